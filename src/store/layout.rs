//! Every frame, header, key and value of the store, octet by octet.
//!
//! Integers in files are little-endian; integers inside index keys are big-endian, so that keys
//! sort as the numbers do. `src/README.md` shows the same tables.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::record::{Bounce, ReportId};
use crate::mail::address::canonical;
use crate::mail::{MessageId, QueueId};

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A mail: its record and, unless it has a file of its own, its body.
    Message,
    /// An attempt.
    Attempt,
    /// A bounce or delivery news.
    Bounce,
    /// A report as it arrived.
    Report,
    /// The mark that a report has been captured.
    Captured,
    /// A settled notice.
    Notice,
    /// Where a mail in the queue stands, written with its re-appended message.
    Standing,
    /// How far a folder of a mailbox has been read.
    Cursor,
    /// What was ordered to be done with a mail in the queue.
    Order,
    /// What speaks against writing to an address.
    Suppression,
    /// A mail is closed.
    Closed,
    /// How far a follower of the feed has come.
    Follower,
}

impl Kind {
    /// The kind of this number.
    pub(super) const fn from_u8(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Message,
            2 => Self::Attempt,
            3 => Self::Bounce,
            4 => Self::Report,
            5 => Self::Captured,
            6 => Self::Notice,
            7 => Self::Standing,
            8 => Self::Cursor,
            9 => Self::Order,
            12 => Self::Suppression,
            10 => Self::Closed,
            11 => Self::Follower,
            _ => return None,
        })
    }

    /// Its number in a frame.
    pub(super) const fn as_u8(self) -> u8 {
        match self {
            Self::Message => 1,
            Self::Attempt => 2,
            Self::Bounce => 3,
            Self::Report => 4,
            Self::Captured => 5,
            Self::Notice => 6,
            Self::Standing => 7,
            Self::Cursor => 8,
            Self::Order => 9,
            Self::Suppression => 12,
            Self::Closed => 10,
            Self::Follower => 11,
        }
    }
}

/// One frame as it lies in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameRef<'a> {
    /// Its place in the order of all writes.
    pub(super) lsn: u64,
    /// The number of its kind; a newer version may write kinds that this one does not know.
    pub(super) kind: u8,
    /// `MORE`, `CONTINUES`, `COPY`.
    pub(super) flags: u8,
    /// What it is about.
    pub(super) key: &'a [u8],
    /// What it says.
    pub(super) payload: &'a [u8],
    /// Octets it takes in the segment, padding included.
    pub(super) size: usize,
}

/// The first octets of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    /// The number in the file's name.
    pub(super) number: u32,
    /// The LSN of the first frame; a frame with a smaller one is what an older use left behind.
    pub(super) first_lsn: u64,
    /// The store it belongs to.
    pub(super) store: StoreUuid,
}

/// Names a store, and seeds the checksum of its frames: no mail can contain a valid one.
pub(super) type StoreUuid = [u8; 16];

/// Why the head of a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    /// It was written by another version of the store.
    Version(u32),
    /// It is damaged, or of another store.
    Damaged,
}

/// Where a frame lies in `log/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Location {
    /// The day of the directory, as `20221012`.
    pub(super) day: u32,
    /// The number of the file.
    pub(super) file: u32,
    /// The offset of the frame.
    pub(super) offset: u32,
}

/// The seed of every frame checksum of a store.
pub(super) fn checksum_seed(store: &StoreUuid) -> u32 {
    crc32c::crc32c(store)
}

/// Octets that a frame takes, padding included.
pub(super) fn frame_size(key: &[u8], payload: &[u8]) -> usize {
    padded(FRAME_HEADER_BYTES.saturating_add(key.len()).saturating_add(payload.len()))
}

/// Appends a frame to `out`:
/// `len u32 | crc32c u32 | lsn u64 | kind u8 | flags u8 | 0 u16 | key_len u32 | key | payload`,
/// then zeros up to a multiple of 8. `len` is without the zeros, the checksum over everything
/// but itself and the zeros.
pub(super) fn encode_frame(
    out: &mut Vec<u8>,
    seed: u32,
    lsn: u64,
    (kind, flags): (u8, u8),
    key: &[u8],
    payload: &[u8],
) {
    let len = FRAME_HEADER_BYTES.saturating_add(key.len()).saturating_add(payload.len());
    let len_octets = u32_of(len).to_le_bytes();
    let mut head = Vec::with_capacity(16);
    head.extend_from_slice(&lsn.to_le_bytes());
    head.extend_from_slice(&[kind, flags, 0, 0]);
    head.extend_from_slice(&u32_of(key.len()).to_le_bytes());
    let mut crc = crc32c::crc32c_append(seed, &len_octets);
    for part in [head.as_slice(), key, payload] {
        crc = crc32c::crc32c_append(crc, part);
    }
    out.extend_from_slice(&len_octets);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&head);
    out.extend_from_slice(key);
    out.extend_from_slice(payload);
    out.resize(out.len().saturating_add(padded(len).saturating_sub(len)), 0);
}

/// Reads the frame at the start of `octets`; `None` when none stands there whole and unharmed.
pub(super) fn decode_frame(octets: &[u8], seed: u32) -> Option<FrameRef<'_>> {
    let len = usize::try_from(u32_at(octets, 0)?).ok()?;
    if len < FRAME_HEADER_BYTES {
        return None;
    }
    let frame = octets.get(..len)?;
    let key_len = usize::try_from(u32_at(frame, 20)?).ok()?;
    let (key, payload) = frame.get(FRAME_HEADER_BYTES..)?.split_at_checked(key_len)?;
    let crc = crc32c::crc32c_append(seed, frame.get(..4)?);
    let crc = crc32c::crc32c_append(crc, frame.get(8..)?);
    if crc != u32_at(frame, 4)? {
        return None;
    }
    Some(FrameRef {
        lsn: u64_at(frame, 8)?,
        kind: *frame.get(16)?,
        flags: *frame.get(17)?,
        key,
        payload,
        size: padded(len),
    })
}

/// The 64 octets at the head of a segment:
/// `magic [8] | version u32 | number u32 | first_lsn u64 | store [16] | 0 [20] | crc32c u32`.
pub(super) fn encode_header(header: &SegmentHeader) -> Vec<u8> {
    let mut out = Vec::with_capacity(SEGMENT_HEADER_BYTES);
    out.extend_from_slice(SEGMENT_MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&header.number.to_le_bytes());
    out.extend_from_slice(&header.first_lsn.to_le_bytes());
    out.extend_from_slice(&header.store);
    out.resize(SEGMENT_HEADER_BYTES.saturating_sub(4), 0);
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Reads the head of a segment.
pub(super) fn decode_header(octets: &[u8]) -> Result<SegmentHeader, HeaderError> {
    let head = octets.get(..SEGMENT_HEADER_BYTES).ok_or(HeaderError::Damaged)?;
    read_header(head).unwrap_or(Err(HeaderError::Damaged))
}

fn read_header(head: &[u8]) -> Option<Result<SegmentHeader, HeaderError>> {
    if head.get(..8)? != SEGMENT_MAGIC {
        return None;
    }
    if crc32c::crc32c(head.get(..60)?) != u32_at(head, 60)? {
        return None;
    }
    let version = u32_at(head, 8)?;
    if version != FORMAT_VERSION {
        return Some(Err(HeaderError::Version(version)));
    }
    Some(Ok(SegmentHeader {
        number: u32_at(head, 12)?,
        first_lsn: u64_at(head, 16)?,
        store: head.get(24..40)?.try_into().ok()?,
    }))
}

/// A record as a payload: one octet of version, then MessagePack with named fields.
pub(super) fn encode_record<T: Serialize>(record: &T) -> Result<Vec<u8>, String> {
    let mut out = vec![RECORD_VERSION];
    let mut serializer = rmp_serde::Serializer::new(&mut out).with_struct_map();
    record.serialize(&mut serializer).map_err(|error| error.to_string())?;
    Ok(out)
}

/// Reads what `encode_record` wrote; unknown fields are passed over.
pub(super) fn decode_record<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    match payload.split_first() {
        Some((&RECORD_VERSION, record)) => {
            rmp_serde::from_slice(record).map_err(|error| error.to_string())
        }
        Some((version, _)) => Err(format!("record version {version} is unknown")),
        None => Err("the record is empty".to_owned()),
    }
}

/// The payload of a `Message` frame: `record_len u32 | place u8 | 0 [3] | record | body`.
/// `place` is 0 for a body that follows, 1 for one in `spool/big`.
pub(super) fn encode_message(record: &[u8], place: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message_record_end(record.len()).saturating_add(body.len()));
    out.extend_from_slice(&u32_of(record.len()).to_le_bytes());
    out.extend_from_slice(&[place, 0, 0, 0]);
    out.extend_from_slice(record);
    out.extend_from_slice(body);
    out
}

/// Splits the payload of a `Message` frame into record, place and body.
pub(super) fn decode_message(payload: &[u8]) -> Option<(&[u8], u8, &[u8])> {
    let record_len = usize::try_from(u32_at(payload, 0)?).ok()?;
    let place = *payload.get(4)?;
    let (record, body) = payload.get(MESSAGE_HEAD_BYTES..)?.split_at_checked(record_len)?;
    Some((record, place, body))
}

/// Octets of a `Message` payload up to the end of its record: all that goes into `log/`.
pub(super) fn message_record_end(record_len: usize) -> usize {
    MESSAGE_HEAD_BYTES.saturating_add(record_len)
}

impl Location {
    /// `day u32 | file u32 | offset u32`.
    pub(super) fn encode(self) -> Vec<u8> {
        let numbers = [self.day, self.file, self.offset];
        numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
    }

    /// Reads what `encode` wrote, whatever follows it.
    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let number = |at| u32_at(value, at).map(u32::swap_bytes);
        Some(Self { day: number(0)?, file: number(4)?, offset: number(8)? })
    }
}

/// `'q' | queue id`: the record of a submission; in the day of the message.
pub(super) fn submission_key(queue_id: QueueId) -> Vec<u8> {
    joined(b'q', &[queue_id.as_bytes()])
}

/// `'m' | hash of the Message-ID [16] | !queue id`: newest first; in the day of the message.
pub(super) fn message_id_key(message_id: &MessageId, queue_id: QueueId) -> Vec<u8> {
    joined(b'm', &[&message_id_hash(message_id), &inverted(queue_id.as_bytes())])
}

/// All `'m'` keys of a Message-ID.
pub(super) fn message_id_prefix(message_id: &MessageId) -> Vec<u8> {
    joined(b'm', &[&message_id_hash(message_id)])
}

/// `'a' | hash of the alias [16] | !queue id`: newest first; in the day of the message.
pub(super) fn alias_key(alias: &MessageId, queue_id: QueueId) -> Vec<u8> {
    joined(b'a', &[&message_id_hash(alias), &inverted(queue_id.as_bytes())])
}

/// All `'a'` keys of an alias.
pub(super) fn alias_prefix(alias: &MessageId) -> Vec<u8> {
    joined(b'a', &[&message_id_hash(alias)])
}

/// `'n' | hash of the next hop's queue id [16] | !queue id`: newest first; in the day of the
/// message.
pub(super) fn remote_queue_id_key(remote: &str, queue_id: QueueId) -> Vec<u8> {
    joined(b'n', &[&hash16(&[remote]), &inverted(queue_id.as_bytes())])
}

/// All `'n'` keys of a queue id.
pub(super) fn remote_queue_id_prefix(remote: &str) -> Vec<u8> {
    joined(b'n', &[&hash16(&[remote])])
}

/// `'s' | hash of the address [12] | !queue id`: mail sent to an address, newest first; in the
/// day of the message.
pub(super) fn sent_key(address: &str, queue_id: QueueId) -> Vec<u8> {
    joined(b's', &[&address_hash(address), &inverted(queue_id.as_bytes())])
}

/// All `'s'` keys of an address.
pub(super) fn sent_prefix(address: &str) -> Vec<u8> {
    joined(b's', &[&address_hash(address)])
}

/// `'o' | hash of the account [12] | !queue id`: an account's mails, newest first; once more with
/// zeros in place of the hash for the mails of all accounts; in the day of the message.
pub(super) fn account_key(account: Option<&str>, queue_id: QueueId) -> Vec<u8> {
    joined(b'o', &[&account_hash(account), &inverted(queue_id.as_bytes())])
}

/// All `'o'` keys of an account, or of all.
pub(super) fn account_prefix(account: Option<&str>) -> Vec<u8> {
    joined(b'o', &[&account_hash(account)])
}

/// `'c' | !queue id`: that a mail is closed; in the day of the message.
pub(super) fn closed_key(queue_id: QueueId) -> Vec<u8> {
    joined(b'c', &[&inverted(queue_id.as_bytes())])
}

/// `'v' | lsn`: what has happened, to whatever mail, oldest first; in the day of the event.
pub(super) fn feed_key(lsn: u64) -> Vec<u8> {
    joined(b'v', &[&lsn.to_be_bytes()])
}

/// All `'v'` keys.
pub(super) fn feed_prefix() -> Vec<u8> {
    vec![b'v']
}

/// The LSN of a `'v'` key.
pub(super) fn feed_lsn(key: &[u8]) -> Option<u64> {
    key.last_chunk::<8>().copied().map(u64::from_be_bytes)
}

/// `'i' | hash of account and idempotency key [16] | !queue id`: newest first; in the day of the
/// message.
pub(super) fn idempotency_key(account: &str, key: &str, queue_id: QueueId) -> Vec<u8> {
    joined(b'i', &[&hash16(&[account, "\0", key]), &inverted(queue_id.as_bytes())])
}

/// All `'i'` keys of an idempotency key of an account.
pub(super) fn idempotency_prefix(account: &str, key: &str) -> Vec<u8> {
    joined(b'i', &[&hash16(&[account, "\0", key])])
}

/// `'e' | queue id | lsn`: what happened to a submission, oldest first; in the day of the message.
pub(super) fn event_key(queue_id: QueueId, lsn: u64) -> Vec<u8> {
    joined(b'e', &[queue_id.as_bytes(), &lsn.to_be_bytes()])
}

/// All `'e'` keys of a submission.
pub(super) fn event_prefix(queue_id: QueueId) -> Vec<u8> {
    joined(b'e', &[queue_id.as_bytes()])
}

/// `'k' | queue id | bounce key`: that this bounce is known; in the day of the message.
pub(super) fn known_bounce_key(queue_id: QueueId, key: &[u8; 16]) -> Vec<u8> {
    joined(b'k', &[queue_id.as_bytes(), key])
}

/// `'b' | hash of the address [12] | !bounce id`: newest first; in the day of the event.
pub(super) fn recipient_key(address: &str, id: &[u8; 10]) -> Vec<u8> {
    joined(b'b', &[&address_hash(address), &inverted(id)])
}

/// All `'b'` keys of an address.
pub(super) fn recipient_prefix(address: &str) -> Vec<u8> {
    joined(b'b', &[&address_hash(address)])
}

/// `'t' | !bounce id`: every bounce, newest first; in the day of the event.
pub(super) fn recent_key(id: &[u8; 10]) -> Vec<u8> {
    joined(b't', &[&inverted(id)])
}

/// All `'t'` keys.
pub(super) fn recent_prefix() -> Vec<u8> {
    vec![b't']
}

/// `'p' | report id | 0 or 1`: the report, and the mark that it is captured; in its own day.
pub(super) fn report_key(id: ReportId, part: ReportPart) -> Vec<u8> {
    let part = match part {
        ReportPart::Received => 0,
        ReportPart::Captured => 1,
    };
    joined(b'p', &[id.0.as_bytes(), &[part]])
}

/// All `'p'` keys.
pub(super) fn report_prefix() -> Vec<u8> {
    vec![b'p']
}

/// The report of a `'p'` key; `None` for the row of the report itself, which may not be captured.
pub(super) fn captured_report_of(key: &[u8]) -> Option<ReportId> {
    let (part, rest) = key.split_last()?;
    (*part == 1).then(|| id_of(rest).map(ReportId)).flatten()
}

/// Which half of a report a row points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReportPart {
    /// The report as it arrived.
    Received,
    /// What was made of it.
    Captured,
}

/// `'g' | digest [16] | report id`: reports of a digest, oldest first; in the day of the report.
pub(super) fn digest_key(digest: &[u8; 16], id: ReportId) -> Vec<u8> {
    joined(b'g', &[digest, id.0.as_bytes()])
}

/// All `'g'` keys of a digest.
pub(super) fn digest_prefix(digest: &[u8; 16]) -> Vec<u8> {
    joined(b'g', &[digest])
}

/// `'r' | report id | lsn`: the bounces of a report, in order; in the day of the report.
pub(super) fn report_bounce_key(id: ReportId, lsn: u64) -> Vec<u8> {
    joined(b'r', &[id.0.as_bytes(), &lsn.to_be_bytes()])
}

/// All `'r'` keys of a report.
pub(super) fn report_bounce_prefix(id: ReportId) -> Vec<u8> {
    joined(b'r', &[id.0.as_bytes()])
}

/// `'u' | !report id`: reports that match nothing, newest first; in the day of the report.
pub(super) fn unmatched_key(id: ReportId) -> Vec<u8> {
    joined(b'u', &[&inverted(id.0.as_bytes())])
}

/// All `'u'` keys.
pub(super) fn unmatched_prefix() -> Vec<u8> {
    vec![b'u']
}

/// `'z'`: the last LSN whose rows were flushed with all before them; in every day.
pub(super) fn marker_key() -> Vec<u8> {
    vec![b'z']
}

/// The part of a key by which the filter of a day knows it: tag and hash of `'m'`, `'a'`, `'n'`,
/// `'g'`, `'b'`, `'s'`, `'o'`, which are looked for in many days.
pub(super) fn filtered_prefix(key: &[u8]) -> Option<&[u8]> {
    match key.first()? {
        b'm' | b'a' | b'n' | b'g' => key.get(..17),
        b'b' | b's' | b'o' => key.get(..13),
        _ => None,
    }
}

/// The id inside the last octets of a key, which stands there inverted.
pub(super) fn inverted_id_of(key: &[u8]) -> Option<QueueId> {
    let id: [u8; 10] = key.last_chunk::<10>().copied()?;
    Some(QueueId::from_bytes(inverted(&id)))
}

/// The id inside the last octets of a key.
pub(super) fn id_of(key: &[u8]) -> Option<QueueId> {
    key.last_chunk::<10>().copied().map(QueueId::from_bytes)
}

/// The ten octets of a bounce's name: 48 bits of time and 32 bits of its key.
///
/// A name that is not the 20 hexadecimal digits `BounceId` describes falls back on date and key.
pub(super) fn bounce_id_bytes(bounce: &Bounce) -> [u8; 10] {
    parse_bounce_id(&bounce.id.0).unwrap_or_else(|| {
        let [a, b, c, d, ..] = bounce.key;
        *QueueId::new(bounce.date, u32::from_be_bytes([a, b, c, d])).as_bytes()
    })
}

/// Reads the 20 hexadecimal digits of a bounce's name.
pub(super) fn parse_bounce_id(text: &str) -> Option<[u8; 10]> {
    if text.len() != 20 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 10];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let start = at.saturating_mul(2);
        *byte = u8::from_str_radix(text.get(start..start.saturating_add(2))?, 16).ok()?;
    }
    Some(bytes)
}

/// blake3 of an address in its canonical form, cut to 12 octets.
pub(super) fn address_hash(address: &str) -> [u8; 12] {
    hash12(canonical(address).as_bytes())
}

/// blake3 of the name of an account, cut to 12 octets; zeros stand for all accounts.
fn account_hash(account: Option<&str>) -> [u8; 12] {
    account.map_or([0; 12], |name| hash12(name.as_bytes()))
}

fn hash12(octets: &[u8]) -> [u8; 12] {
    let mut short = [0; 12];
    short.iter_mut().zip(blake3::hash(octets).as_bytes()).for_each(|(to, from)| *to = *from);
    short
}

/// blake3 of a Message-ID without its brackets, cut to 16 octets.
pub(super) fn message_id_hash(message_id: &MessageId) -> [u8; 16] {
    hash16(&[message_id.as_str().as_bytes()])
}

/// blake3 of the parts one after another, cut to 16 octets.
pub(super) fn hash16<P: AsRef<[u8]>>(parts: &[P]) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part.as_ref());
    }
    let mut short = [0; 16];
    short.iter_mut().zip(hasher.finalize().as_bytes()).for_each(|(to, from)| *to = *from);
    short
}

/// Reads a little-endian number.
pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    let octets = octets.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(octets.try_into().ok()?))
}

/// Reads a little-endian number.
pub(super) fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    let octets = octets.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(octets.try_into().ok()?))
}

/// A length as it is written; what is longer was refused before (`FRAME_BYTES_MAX`).
pub(super) fn u32_of(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn joined(tree: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![tree];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn inverted(id: &[u8; 10]) -> [u8; 10] {
    id.map(|octet| !octet)
}

fn padded(len: usize) -> usize {
    len.checked_next_multiple_of(FRAME_ALIGNMENT_BYTES).unwrap_or(len)
}

/// The version of everything this file lays out.
pub(super) const FORMAT_VERSION: u32 = 1;
/// The version of the records inside frames.
pub(super) const RECORD_VERSION: u8 = 1;
/// Octets at the head of a segment.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
/// Octets of a frame in front of its key.
pub(super) const FRAME_HEADER_BYTES: usize = 24;
/// Frames start at multiples of this.
pub(super) const FRAME_ALIGNMENT_BYTES: usize = 8;
/// The largest frame that is written.
pub(super) const FRAME_BYTES_MAX: usize = 512 << 20;
/// The largest value of an index row.
pub(super) const INDEX_VALUE_BYTES_MAX: usize = 64;
/// A frame flag: the next frame belongs to the same batch.
pub(super) const MORE: u8 = 1;
/// A frame flag: the frame before belongs to the same batch.
pub(super) const CONTINUES: u8 = 2;
/// A frame flag: written again from an older segment; `log/` and the index have it already.
pub(super) const COPY: u8 = 4;
/// A frame flag: the bounce takes the place of a known one, which has been told.
pub(super) const REVISION: u8 = 8;
/// Where the body of a `Message` frame is: behind its record.
pub(super) const BODY_HERE: u8 = 0;
/// Where the body of a `Message` frame is: in `spool/big`.
pub(super) const BODY_IN_FILE: u8 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"RBNDSEG\n";
const MESSAGE_HEAD_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Address, Envelope, MailDsn, Recipient, ReversePath, Timestamp, dsn};
    use std::collections::BTreeMap;

    #[test]
    fn a_frame_is_read_back_and_any_flipped_bit_is_noticed() {
        let mut out = Vec::new();
        encode_frame(&mut out, 7, 42, (2, MORE), b"key", b"payload");
        assert_eq!(out.len(), frame_size(b"key", b"payload"));
        assert_eq!(out.len() % 8, 0);
        let frame = decode_frame(&out, 7).unwrap();
        assert_eq!((frame.lsn, frame.kind, frame.flags), (42, 2, MORE));
        assert_eq!((frame.key, frame.payload), (&b"key"[..], &b"payload"[..]));
        assert_eq!(decode_frame(&out, 8), None, "another store's frame");
        for bit in 0..(24 + 10) * 8 {
            let mut bad = out.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_frame(&bad, 7), None, "bit {bit}");
        }
        for len in 0..34 {
            assert_eq!(decode_frame(&out[..len], 7), None, "{len} octets");
        }
    }

    #[test]
    fn an_envelope_from_before_dsn_is_read_and_what_was_asked_is_read_back() {
        /// As it was written before.
        #[derive(Serialize)]
        struct Old {
            reverse_path: ReversePath,
            recipients: Vec<BTreeMap<&'static str, Address>>,
        }
        let address = Address::parse("a@b.test").unwrap();
        let old = Old {
            reverse_path: ReversePath::NULL,
            recipients: vec![[("address", address.clone())].into()],
        };
        let mut envelope: Envelope = decode_record(&encode_record(&old).unwrap()).unwrap();
        assert_eq!(envelope.recipients, [Recipient::from(address)]);
        assert_eq!(envelope.dsn, MailDsn::default());
        let small = encode_record(&envelope).unwrap();
        envelope.dsn.content = Some(dsn::Content::Full);
        envelope.dsn.envelope_id = dsn::EnvelopeId::parse("a+2Bb");
        envelope.recipients[0].dsn.notify = dsn::Notify::parse("NEVER");
        envelope.recipients[0].dsn.original_recipient = dsn::OriginalRecipient::parse("utf-8;é@b");
        let record = encode_record(&envelope).unwrap();
        assert_eq!(decode_record::<Envelope>(&record).unwrap(), envelope);
        assert!(!small.windows(3).any(|three| three == b"dsn"), "what was not asked takes no room");
    }

    #[test]
    fn a_header_is_read_back_and_damage_or_another_version_is_told_apart() {
        let header = SegmentHeader { number: 3, first_lsn: 99, store: [9; 16] };
        let good = encode_header(&header);
        assert_eq!(good.len(), SEGMENT_HEADER_BYTES);
        assert_eq!(decode_header(&good), Ok(header));
        let mut newer = good.clone();
        newer[8] = 2;
        let crc = crc32c::crc32c(&newer[..60]);
        newer[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode_header(&newer), Err(HeaderError::Version(2)));
        for at in 0..SEGMENT_HEADER_BYTES {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode_header(&bad), Err(HeaderError::Damaged), "octet {at}");
        }
    }

    #[test]
    fn newest_ids_come_first_where_the_key_is_inverted() {
        let id = |millis| QueueId::new(Timestamp::from_millis(millis), 1);
        let message_id = MessageId::parse("a@b").unwrap();
        assert!(message_id_key(&message_id, id(2)) < message_id_key(&message_id, id(1)));
        assert_eq!(inverted_id_of(&message_id_key(&message_id, id(2))), Some(id(2)));
        assert!(unmatched_key(ReportId(id(2))) < unmatched_key(ReportId(id(1))));
        assert!(event_key(id(1), 9) < event_key(id(1), 10));
    }

    #[test]
    fn a_location_fits_a_value_and_is_read_back() {
        let location = Location { day: 20_221_012, file: 7, offset: u32::MAX };
        let value = location.encode();
        assert!(value.len() <= INDEX_VALUE_BYTES_MAX);
        assert_eq!(Location::decode(&value), Some(location));
        assert_eq!(Location::decode(&value[..11]), None);
    }
}
