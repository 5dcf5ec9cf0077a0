//! Every frame, header and value of the store, octet by octet; the keys are in `keys`.
//!
//! Integers in files are little-endian. `src/README.md` shows the same tables.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::mail::{QueueId, Timestamp};

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
    /// A delivery to a webhook has ended.
    Delivery,
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
            13 => Self::Delivery,
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
            Self::Delivery => 13,
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

/// The first octets of a kept body's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeptHeader {
    /// Whose body it is.
    pub(super) queue_id: QueueId,
    /// When the last recipient of the mail ended.
    pub(super) ended_at: Timestamp,
    /// `BODY_HERE` or `BODY_IN_FILE`.
    pub(super) place: u8,
    /// Octets of the body.
    pub(super) len: u64,
    /// Their crc32c.
    pub(super) checksum: u32,
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

/// The 64 octets at the head of a kept body:
/// `magic [8] | version u32 | place u8 | 0 | queue id [10] | ended at u64 | len u64 |
/// crc32c of the body u32 | 0 [16] | crc32c u32`. The last one is seeded as those of frames are.
/// `place` is 0 for a body that follows, 1 for one in a file beside it.
pub(super) fn encode_kept_header(header: &KeptHeader, seed: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(KEPT_HEADER_BYTES);
    out.extend_from_slice(KEPT_MAGIC);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&[header.place, 0]);
    out.extend_from_slice(header.queue_id.as_bytes());
    out.extend_from_slice(&header.ended_at.as_millis().to_le_bytes());
    out.extend_from_slice(&header.len.to_le_bytes());
    out.extend_from_slice(&header.checksum.to_le_bytes());
    out.resize(KEPT_HEADER_BYTES.saturating_sub(4), 0);
    let crc = crc32c::crc32c_append(seed, &out);
    out.extend_from_slice(&crc.to_le_bytes());
    out
}

/// Reads the head of a kept body; `None` when it is damaged, or of another store or version.
pub(super) fn decode_kept_header(octets: &[u8], seed: u32) -> Option<KeptHeader> {
    let crc = crc32c::crc32c_append(seed, octets.get(..60)?);
    let is_whole = octets.starts_with(KEPT_MAGIC) && crc == u32_at(octets, 60)?;
    if !is_whole || u32_at(octets, 8)? != FORMAT_VERSION {
        return None;
    }
    Some(KeptHeader {
        queue_id: QueueId::from_bytes(octets.get(14..24)?.try_into().ok()?),
        ended_at: Timestamp::from_millis(u64_at(octets, 24)?),
        place: *octets.get(12)?,
        len: u64_at(octets, 32)?,
        checksum: u32_at(octets, 40)?,
    })
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

fn padded(len: usize) -> usize {
    len.checked_next_multiple_of(FRAME_ALIGNMENT_BYTES).unwrap_or(len)
}

/// The version of everything this file lays out.
pub(super) const FORMAT_VERSION: u32 = 1;
/// The version of the records inside frames.
pub(super) const RECORD_VERSION: u8 = 1;
/// Octets at the head of a segment.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
/// Octets at the head of a kept body.
pub(super) const KEPT_HEADER_BYTES: usize = 64;
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
/// Where a body is: behind the record of its frame, or behind the head of its file.
pub(super) const BODY_HERE: u8 = 0;
/// Where a body is: in a file of its own, in `spool/big` or beside the head of a kept one.
pub(super) const BODY_IN_FILE: u8 = 1;

const SEGMENT_MAGIC: &[u8; 8] = b"RBNDSEG\n";
const KEPT_MAGIC: &[u8; 8] = b"RBNDBDY\n";
const MESSAGE_HEAD_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Address, Envelope, MailDsn, Recipient, ReversePath, dsn};
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
    fn the_head_of_a_kept_body_is_read_back_and_any_flipped_bit_is_noticed() {
        let header = KeptHeader {
            queue_id: QueueId::new(Timestamp::from_millis(1_665_576_640_980), 7),
            ended_at: Timestamp::from_millis(1_665_576_640_990),
            place: BODY_IN_FILE,
            len: u64::MAX,
            checksum: 9,
        };
        let good = encode_kept_header(&header, 7);
        assert_eq!(good.len(), KEPT_HEADER_BYTES);
        assert_eq!(decode_kept_header(&good, 7), Some(header));
        assert_eq!(decode_kept_header(&good, 8), None, "another store's");
        for bit in 0..KEPT_HEADER_BYTES * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode_kept_header(&bad, 7), None, "bit {bit}");
        }
        for len in 0..KEPT_HEADER_BYTES {
            assert_eq!(decode_kept_header(&good[..len], 7), None, "{len} octets");
        }
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
