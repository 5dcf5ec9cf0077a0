//! Queue ids: our name for one submission, sortable by time.

use std::fmt;

use data_encoding::BASE32_DNSSEC;
use serde::{Deserialize, Serialize};

use super::timestamp::Timestamp;

/// Names one submission: 48 bits of time, then 32 bits that make it unique in this store.
///
/// Written as 16 characters of the base32 alphabet whose letters keep the order of the bytes
/// (RFC 4648 §7, in lower case), so ids sort as they were made.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId([u8; 10]);

impl QueueId {
    /// The id for a submission made at `time`; `unique` must differ within one millisecond.
    pub fn new(time: Timestamp, unique: u32) -> Self {
        let [_, _, a, b, c, d, e, f] = time.as_millis().to_be_bytes();
        let [g, h, i, j] = unique.to_be_bytes();
        Self([a, b, c, d, e, f, g, h, i, j])
    }

    /// The id whose bytes these are.
    pub const fn from_bytes(bytes: [u8; 10]) -> Self {
        Self(bytes)
    }

    /// The ten bytes, in an order that sorts by time.
    pub const fn as_bytes(&self) -> &[u8; 10] {
        &self.0
    }

    /// Reads the 16 characters that `Display` writes, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 16 {
            return None;
        }
        let bytes = BASE32_DNSSEC.decode(text.as_bytes()).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// When the submission was made.
    pub fn time(self) -> Timestamp {
        let [a, b, c, d, e, f, ..] = self.0;
        Timestamp::from_millis(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }
}

impl fmt::Display for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32_DNSSEC.encode(&self.0))
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "QueueId({self})")
    }
}

impl Serialize for QueueId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for QueueId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a queue id"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_in_either_case_and_knows_its_time() {
        let time = Timestamp::from_millis(1_665_576_640_980);
        let id = QueueId::new(time, 7);
        let text = id.to_string();
        assert_eq!(text.len(), 16);
        assert_eq!(QueueId::parse(&text), Some(id));
        assert_eq!(QueueId::parse(&text.to_ascii_uppercase()), Some(id));
        assert_eq!(id.time(), time);
    }

    #[test]
    fn ids_sort_as_they_were_made() {
        let early = QueueId::new(Timestamp::from_millis(1), u32::MAX);
        let late = QueueId::new(Timestamp::from_millis(2), 0);
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn what_is_no_id_is_refused() {
        for text in ["", "0", "zzzzzzzzzzzzzzzz", "0123456789abcdefg", "é123456789abcde"] {
            assert_eq!(QueueId::parse(text), None, "{text}");
        }
    }
}
