//! The return token: what stands between prefix and `@` of the reverse-path we send with.
//!
//! `b+<token>@bounces.example.com` names one recipient of one submission and cannot be made
//! by anybody who does not hold the key, so a report that arrives for it is believed.
//! This file knows the shape; `secret::KeyRing` makes and checks the MAC.

use data_encoding::BASE32_DNSSEC;

use super::queue_id::QueueId;

/// Octets of the MAC that stand in a token: 80 bits.
pub const MAC_BYTES: usize = 10;

/// A return token, whose MAC has not been checked by having this value.
///
/// Written as 37 characters of lower-case base32: queue id (10 octets), recipient index (2),
/// key id (1), MAC over those (10). Mail systems on the way may change the case of a local part,
/// so reading ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReturnToken {
    /// The submission.
    pub queue_id: QueueId,
    /// The recipient's place in the submission's envelope, from 0.
    pub recipient: u16,
    /// Which key made the MAC.
    pub key_id: u8,
    /// The MAC over everything above.
    pub mac: [u8; MAC_BYTES],
}

impl ReturnToken {
    /// The octets that the MAC is made over.
    pub fn signed_bytes(queue_id: QueueId, recipient: u16, key_id: u8) -> [u8; 13] {
        let [a, b, c, d, e, f, g, h, i, j] = *queue_id.as_bytes();
        let [k, l] = recipient.to_be_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, key_id]
    }

    /// Reads the 37 characters that `Display` writes, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 23] = BASE32_DNSSEC.decode(text.as_bytes()).ok()?.try_into().ok()?;
        let (id, rest) = bytes.split_first_chunk::<10>()?;
        let (index, rest) = rest.split_first_chunk::<2>()?;
        let (key_id, mac) = rest.split_first()?;
        Some(Self {
            queue_id: QueueId::from_bytes(*id),
            recipient: u16::from_be_bytes(*index),
            key_id: *key_id,
            mac: mac.try_into().ok()?,
        })
    }
}

impl std::fmt::Display for ReturnToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let signed = Self::signed_bytes(self.queue_id, self.recipient, self.key_id);
        let bytes: Vec<u8> = signed.into_iter().chain(self.mac).collect();
        f.write_str(&BASE32_DNSSEC.encode(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::Timestamp;

    #[test]
    fn a_token_fits_a_local_part_and_is_read_back() {
        let token = ReturnToken {
            queue_id: QueueId::new(Timestamp::from_millis(1_665_576_640_980), 9),
            recipient: 999,
            key_id: 3,
            mac: [0xa5; MAC_BYTES],
        };
        let text = token.to_string();
        assert_eq!(text.len(), 37);
        assert_eq!(ReturnToken::parse(&text), Some(token));
        assert_eq!(ReturnToken::parse(&text.to_ascii_uppercase()), Some(token));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in ["", "b", "0123456789abcdefghijklmnopqrstuv01234", "é"] {
            let read = ReturnToken::parse(text);
            assert!(read.is_none_or(|token| token.to_string() == text), "{text}");
        }
    }
}
