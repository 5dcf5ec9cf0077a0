//! Octets to text: lines, transfer encodings, charsets, encoded words, case.
//!
//! Everything here takes linear time and tolerates anything.

use std::borrow::Cow;

use mail_parser::decoders::charsets::map::charset_decoder;

/// How the body of a part is coded (RFC 2045 §6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    #[default]
    Identity,
    /// `base64`.
    Base64,
    /// `quoted-printable`.
    QuotedPrintable,
}

impl Encoding {
    /// What a `Content-Transfer-Encoding` field names; anything unknown is left as it is.
    pub(super) fn named(value: &str) -> Self {
        let value = value.trim();
        if starts_with_ignore_case(value.as_bytes(), b"base64") {
            Self::Base64
        } else if starts_with_ignore_case(value.as_bytes(), b"quoted-printable") {
            Self::QuotedPrintable
        } else {
            Self::Identity
        }
    }

    /// Undoes the encoding, as far as `bytes_max` octets of what comes out.
    pub(super) fn decode(self, raw: &[u8], bytes_max: usize) -> Cow<'_, [u8]> {
        match self {
            Self::Identity => Cow::Borrowed(raw.get(..bytes_max).unwrap_or(raw)),
            Self::Base64 => Cow::Owned(base64(raw, bytes_max)),
            Self::QuotedPrintable => Cow::Owned(quoted_printable(raw, bytes_max)),
        }
    }
}

/// Octets in a charset to text. An unknown charset is read as UTF-8, and where that fails as
/// Latin-1, so that no octet is lost.
pub(super) fn to_text(octets: &[u8], charset: &str) -> String {
    let is_unicode = charset.is_empty()
        || charset.eq_ignore_ascii_case("utf-8")
        || charset.eq_ignore_ascii_case("utf8")
        || charset.eq_ignore_ascii_case("us-ascii");
    // An ISO-2022-JP text often comes without its name; the escapes give it away.
    let has_escape = octets.windows(2).any(|pair| pair == b"\x1b$");
    if has_escape && let Some(decode) = charset_decoder(b"iso-2022-jp") {
        return decode(octets);
    }
    if (octets.is_ascii() && !borrows_ascii(charset)) || is_unicode {
        return match std::str::from_utf8(octets) {
            Ok(text) => text.to_owned(),
            Err(_) => octets.iter().map(|octet| char::from(*octet)).collect(),
        };
    }
    match charset_decoder(charset.as_bytes()) {
        Some(decode) => decode(octets),
        None => String::from_utf8_lossy(octets).into_owned(),
    }
}

/// Whether a charset writes other characters with the octets of ASCII.
fn borrows_ascii(charset: &str) -> bool {
    ["utf-16", "utf16", "utf-7", "hz-gb", "unicode"]
        .iter()
        .any(|name| starts_with_ignore_case(charset.as_bytes(), name.as_bytes()))
}

/// A field body on one line: folds become one space, encoded words (RFC 2047) are decoded.
pub(super) fn field_text(raw: &[u8]) -> String {
    let unfolded = unfold(raw);
    if unfolded.contains("=?") { decode_words(&unfolded) } else { unfolded }
}

/// A field body on one line, nothing decoded but the charset.
pub(super) fn unfold(raw: &[u8]) -> String {
    let raw = raw.get(..FIELD_BYTES_MAX).unwrap_or(raw);
    let text: Cow<'_, str> = match std::str::from_utf8(raw) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(to_text(raw, "")),
    };
    let mut line = String::with_capacity(text.len());
    for piece in text.split(['\n', '\r']) {
        let piece = piece.trim_matches([' ', '\t']);
        if !piece.is_empty() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(piece);
        }
    }
    line
}

/// Decodes the encoded words of RFC 2047 in `text`; what is none stays as it is.
pub(super) fn decode_words(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_word = false;
    while let Some((before, tail)) = rest.split_once("=?") {
        // White space between two encoded words is no part of the text (RFC 2047 §6.2).
        if !(after_word && before.trim().is_empty()) {
            decoded.push_str(before);
        }
        match encoded_word(tail) {
            Some((word, tail)) => {
                decoded.push_str(&word);
                rest = tail;
                after_word = true;
            }
            None => {
                decoded.push_str("=?");
                rest = tail;
                after_word = false;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

/// `charset?encoding?text?=`, and what follows it.
fn encoded_word(tail: &str) -> Option<(String, &str)> {
    let (charset, tail) = tail.split_once('?')?;
    let (encoding, tail) = tail.split_once('?')?;
    if charset.len() > 40 || encoding.len() != 1 || charset.contains(' ') {
        return None;
    }
    let (coded, tail) = tail.split_once("?=")?;
    // A language may follow the charset (RFC 2231 §5).
    let charset = charset.split('*').next().unwrap_or_default();
    let octets = if encoding.eq_ignore_ascii_case("b") {
        base64(coded.as_bytes(), coded.len())
    } else if encoding.eq_ignore_ascii_case("q") {
        quoted_printable(coded.replace('_', " ").as_bytes(), coded.len())
    } else {
        return None;
    };
    let mut text = to_text(&octets, charset);
    text.retain(|c| !matches!(c, '\r' | '\n'));
    Some((text, tail))
}

/// Base64 as it comes: everything outside the alphabet is passed over, padding ends a group.
fn base64(raw: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len().min(bytes_max));
    let mut group: u32 = 0;
    let mut bits: u32 = 0;
    for octet in raw {
        let value = match octet {
            b'A'..=b'Z' => octet.wrapping_sub(b'A'),
            b'a'..=b'z' => octet.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => octet.wrapping_sub(b'0').wrapping_add(52),
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => {
                bits = 0;
                continue;
            }
            _ => continue,
        };
        group = (group << 6) | u32::from(value);
        bits = bits.wrapping_add(6);
        if bits >= 8 {
            bits = bits.wrapping_sub(8);
            if out.len() >= bytes_max {
                break;
            }
            let [.., low] = (group >> bits).to_be_bytes();
            out.push(low);
        }
    }
    out
}

/// Quoted-printable as it comes: a `=` that starts no code stays (RFC 2045 §6.7).
fn quoted_printable(raw: &[u8], bytes_max: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len().min(bytes_max));
    let mut rest = raw;
    while let Some((octet, tail)) = rest.split_first() {
        if out.len() >= bytes_max {
            break;
        }
        rest = tail;
        if *octet != b'=' {
            out.push(*octet);
            continue;
        }
        match tail {
            [high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(hex(*high).wrapping_mul(16).wrapping_add(hex(*low)));
                rest = after;
            }
            [b'\r', b'\n', after @ ..] | [b'\n', after @ ..] => rest = after,
            [b' ' | b'\t', ..] if line_is_blank(tail) => rest = after_line(tail),
            _ => out.push(b'='),
        }
    }
    out
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit.wrapping_sub(b'0'),
        b'a'..=b'f' => digit.wrapping_sub(b'a').wrapping_add(10),
        b'A'..=b'F' => digit.wrapping_sub(b'A').wrapping_add(10),
        _ => 0,
    }
}

/// Whether the line that `text` begins with is blank; looks at no more than one line's width.
fn line_is_blank(text: &[u8]) -> bool {
    let line = text.get(..80).unwrap_or(text);
    let end = line.iter().position(|octet| !matches!(octet, b' ' | b'\t' | b'\r'));
    end.is_some_and(|end| line.get(end) == Some(&b'\n'))
}

fn after_line(text: &[u8]) -> &[u8] {
    next_line(text).1
}

/// The first line without its line ending, and the rest.
pub(super) fn next_line(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|octet| *octet == b'\n') {
        Some(end) => {
            let line = text.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            (line, text.get(end.saturating_add(1)..).unwrap_or_default())
        }
        None => (text.strip_suffix(b"\r").unwrap_or(text), &[]),
    }
}

/// Whether `text` starts with `prefix`, in whatever ASCII case.
pub(super) fn starts_with_ignore_case(text: &[u8], prefix: &[u8]) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// What follows `prefix`, in whatever ASCII case.
pub(super) fn strip_prefix_ignore_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (start, rest) = text.split_at_checked(prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Where `needle` (in lower case) begins in `text`, in whatever ASCII case.
pub(super) fn find_ignore_case(text: &str, needle: &str) -> Option<usize> {
    let (first, _) = needle.as_bytes().split_first()?;
    let upper = first.to_ascii_uppercase();
    let octets = text.as_bytes();
    let mut from: usize = 0;
    loop {
        let rest = octets.get(from..)?;
        let at = rest.iter().position(|octet| octet == first || *octet == upper)?;
        let start = from.saturating_add(at);
        if starts_with_ignore_case(rest.get(at..)?, needle.as_bytes()) {
            return Some(start);
        }
        from = start.saturating_add(1);
    }
}

/// Whether `needle` (in lower case) stands in `text`, in whatever ASCII case.
pub(super) fn contains_ignore_case(text: &str, needle: &str) -> bool {
    find_ignore_case(text, needle).is_some()
}

/// At most `bytes_max` octets of `text`, cut between characters.
pub(super) fn head(text: &str, bytes_max: usize) -> &str {
    if text.len() <= bytes_max {
        return text;
    }
    let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Octets of one field body that are looked at.
const FIELD_BYTES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfer_encodings_are_undone_as_far_as_they_are_sound() {
        let q = Encoding::QuotedPrintable;
        for (encoding, raw, want) in [
            (Encoding::Base64, &b"aGVs\r\nbG8="[..], &b"hello"[..]),
            (Encoding::Base64, b"aGVsbG8", b"hello"),
            (Encoding::Base64, b"", b""),
            (q, b"a=3Db=\r\nc=\nd", b"a=bcd"),
            (q, b"a=zz=", b"a=zz="),
            (q, b"soft=  \r\nbreak", b"softbreak"),
            (Encoding::Identity, b"=41", b"=41"),
        ] {
            assert_eq!(encoding.decode(raw, 100).as_ref(), want);
        }
        assert_eq!(Encoding::Base64.decode(b"aGVsbG8=", 2).as_ref(), b"he");
    }

    #[test]
    fn encoded_words_are_decoded_and_others_left() {
        for (text, want) in [
            ("=?utf-8?q?a_b?= =?utf-8?B?Yw==?= d", "a bc d"),
            ("=?iso-8859-1?Q?=E9?=", "é"),
            ("=?utf-8?x?a?= b", "=?utf-8?x?a?= b"),
            ("a =?broken", "a =?broken"),
            ("=?ISO-2022-JP?B?GyRCJDMbKEI=?=", "こ"),
        ] {
            assert_eq!(decode_words(text), want);
        }
    }

    #[test]
    fn charsets_that_borrow_ascii_are_decoded() {
        for (octets, charset, want) in [
            (&b"h\0i\0"[..], "utf-16le", "hi"),
            (b"hi", "us-ascii", "hi"),
            (b"hi", "iso-2022-jp", "hi"),
        ] {
            assert_eq!(to_text(octets, charset), want, "{charset}");
        }
    }

    #[test]
    fn search_ignores_case() {
        assert_eq!(find_ignore_case("xx Delivery", "delivery"), Some(3));
        assert_eq!(find_ignore_case("xx", "delivery"), None);
        assert_eq!(find_ignore_case("ddelivery", "delivery"), Some(1));
    }
}
