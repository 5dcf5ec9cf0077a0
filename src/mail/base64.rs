//! Base64 as SASL has it (RFC 4648 §4).

use data_encoding::BASE64;

/// The octets that `text` stands for; padding is required and nothing else may stand in it.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// The text of `octets`, with padding.
pub fn encode(octets: &[u8]) -> String {
    BASE64.encode(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_the_padded_form_only() {
        assert_eq!(decode(b"").as_deref(), Some(&b""[..]));
        assert_eq!(decode(b"AGEAYg==").as_deref(), Some(&b"\0a\0b"[..]));
        assert_eq!(encode(b"\0a\0b"), "AGEAYg==");
        for bad in ["AGEAYg", "AGEAYg=", "AGEA Yg==", "*", "=", "AGEAYh=="] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
