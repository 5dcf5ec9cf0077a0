//! Base64 as SASL, MIME and JSON have it (RFC 4648 §4).

use std::borrow::Cow;

use data_encoding::BASE64;

/// The octets that `text` stands for; padding is required and nothing else may stand in it.
pub fn decode(text: &[u8]) -> Option<Vec<u8>> {
    BASE64.decode(text).ok()
}

/// The text of `octets`, with padding.
pub fn encode(octets: &[u8]) -> String {
    BASE64.encode(octets)
}

/// As `decode`, where white space may stand anywhere in between.
pub fn decode_lenient(text: &[u8]) -> Option<Vec<u8>> {
    let text: Cow<'_, [u8]> = match text.iter().any(u8::is_ascii_whitespace) {
        true => text.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect(),
        false => text.into(),
    };
    decode(&text)
}

/// The text of `octets` in lines of 76 characters, each ended by CRLF (RFC 2045 §6.8).
pub fn encode_lines(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len().saturating_mul(3).checked_div(2).unwrap_or(0));
    for line in octets.chunks(LINE_INPUT_BYTES) {
        out.extend_from_slice(BASE64.encode(line).as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Octets that 76 characters stand for.
const LINE_INPUT_BYTES: usize = 57;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_and_written() {
        let octets: Vec<u8> = (0..=255).collect();
        let text = encode_lines(&octets);
        assert!(text.split(|b| *b == b'\n').all(|line| line.len() <= 77));
        assert!(text.ends_with(b"==\r\n"));
        assert_eq!(decode_lenient(&text), Some(octets));
        assert_eq!(encode_lines(b""), b"");
        assert_eq!(decode_lenient(b" AG EA\tYg\n=="), Some(b"\0a\0b".to_vec()));
        assert_eq!(decode_lenient(b"AG*A"), None);
    }

    #[test]
    fn decodes_the_padded_form_only() {
        assert_eq!(decode(b"").as_deref(), Some(&b""[..]));
        assert_eq!(decode(b"AGEAYg==").as_deref(), Some(&b"\0a\0b"[..]));
        assert_eq!(encode(b"\0a\0b"), "AGEAYg==");
        for bad in ["not base64", "AGEAYg", "AGEAYg=", "AGEA Yg==", "*", "=", "AGEAYh=="] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
