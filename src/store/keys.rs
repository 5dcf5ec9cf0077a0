//! The keys of the index, octet by octet.
//!
//! Integers inside keys are big-endian, so that keys sort as the numbers do. `src/README.md` shows
//! the same table.

use super::record::{Bounce, ReportId};
use crate::mail::address::canonical;
use crate::mail::{MessageId, QueueId};

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

/// `'f' | hash of the account [12] | !report id`: the reports that brought bounces of an account's
/// mails, newest first; in the day of the report.
pub(super) fn account_report_key(account: &str, id: ReportId) -> Vec<u8> {
    joined(b'f', &[&account_hash(Some(account)), &inverted(id.0.as_bytes())])
}

/// All `'f'` keys of an account.
pub(super) fn account_report_prefix(account: &str) -> Vec<u8> {
    joined(b'f', &[&account_hash(Some(account))])
}

/// `'l' | tag and hash of 'o' or 'f'`: how many rows of the day have this prefix.
pub(super) fn count_key(prefix: &[u8]) -> Vec<u8> {
    joined(b'l', &[prefix])
}

/// The value of an `'l'` key.
pub(super) fn count_of(value: &[u8]) -> u64 {
    value.try_into().map_or(0, u64::from_be_bytes)
}

/// The part of a key by which its rows are counted: tag and hash of `'o'` and `'f'`.
pub(super) fn counted_prefix(key: &[u8]) -> Option<&[u8]> {
    match key.first()? {
        b'o' | b'f' => key.get(..13),
        _ => None,
    }
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

/// `'w' | queue id | !lsn`: what webhooks were told of a submission, newest first; in the day of
/// the message.
pub(super) fn delivery_key(queue_id: QueueId, lsn: u64) -> Vec<u8> {
    joined(b'w', &[queue_id.as_bytes(), &(!lsn).to_be_bytes()])
}

/// All `'w'` keys of a submission.
pub(super) fn delivery_prefix(queue_id: QueueId) -> Vec<u8> {
    joined(b'w', &[queue_id.as_bytes()])
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

/// The report of a `'p'` key that is about this part of it.
pub(super) fn report_of(key: &[u8], part: ReportPart) -> Option<ReportId> {
    let id = key.split_last().and_then(|(_part, rest)| id_of(rest)).map(ReportId)?;
    (key == report_key(id, part)).then_some(id)
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
/// `'g'`, `'b'`, `'s'`, `'o'`, `'f'`, which are looked for in many days.
pub(super) fn filtered_prefix(key: &[u8]) -> Option<&[u8]> {
    match key.first()? {
        b'm' | b'a' | b'n' | b'g' => key.get(..17),
        b'b' | b's' | b'o' | b'f' => key.get(..13),
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

fn joined(tree: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = vec![tree];
    parts.iter().for_each(|part| key.extend_from_slice(part));
    key
}

fn inverted(id: &[u8; 10]) -> [u8; 10] {
    id.map(|octet| !octet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;

    #[test]
    fn newest_ids_come_first_where_the_key_is_inverted() {
        let id = |millis| QueueId::new(Timestamp::from_millis(millis), 1);
        let message_id = MessageId::parse("a@b").unwrap();
        assert!(message_id_key(&message_id, id(2)) < message_id_key(&message_id, id(1)));
        assert_eq!(inverted_id_of(&message_id_key(&message_id, id(2))), Some(id(2)));
        assert!(unmatched_key(ReportId(id(2))) < unmatched_key(ReportId(id(1))));
        assert!(event_key(id(1), 9) < event_key(id(1), 10));
        assert!(delivery_key(id(1), 10) < delivery_key(id(1), 9));
    }
}
