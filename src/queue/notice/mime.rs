//! The few things that writing a report in MIME takes: folding, wrapping, encoding, boundaries.

use crate::mail::header::sanitized;

/// One part of a multipart mail.
pub(super) struct Part {
    /// The value of `Content-Type`.
    pub(super) content_type: &'static str,
    /// The value of `Content-Description`.
    pub(super) description: &'static str,
    /// The content, with CRLF at the end of every line.
    pub(super) content: Vec<u8>,
    /// How it may be written.
    pub(super) coding: Coding,
}

/// How the content of a part may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// In quoted-printable where it is not plain.
    Any,
    /// As it is; it must have lines that `fits_lines`.
    AsItIs,
}

/// `Name: value`, folded before 78 columns where the value has a space to fold at, and in any
/// case before 998 octets (RFC 5322 §2.1.1); ends in CRLF.
pub(super) fn field(name: &str, value: &str) -> String {
    let mut out = format!("{name}:");
    let mut column = out.len();
    for word in sanitized(value).split(' ').filter(|word| !word.is_empty()) {
        for piece in pieces(word, WORD_BYTES_MAX) {
            let fits = column.saturating_add(piece.len()) < WIDTH;
            let is_first = column <= name.len().saturating_add(1);
            if fits || is_first {
                out.push(' ');
                column = column.saturating_add(1);
            } else {
                out.push_str("\r\n ");
                column = 1;
            }
            out.push_str(piece);
            column = column.saturating_add(piece.len());
        }
    }
    out.push_str("\r\n");
    out
}

/// `text` as lines of at most 72 columns that all begin with `indent`; a longer word has a line
/// of its own. Line breaks in `text` stay. Ends in CRLF unless there is nothing to say.
pub(super) fn paragraph(indent: &str, text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let line = sanitized(line);
        let mut column = 0_usize;
        for word in line.split(' ').filter(|word| !word.is_empty()) {
            for piece in pieces(word, WORD_BYTES_MAX) {
                let len = piece.chars().count();
                if column > 0 && column.saturating_add(len) < TEXT_WIDTH {
                    out.push(' ');
                    column = column.saturating_add(1);
                } else {
                    out.push_str(if column > 0 { "\r\n" } else { "" });
                    out.push_str(indent);
                    column = indent.len();
                }
                out.push_str(piece);
                column = column.saturating_add(len);
            }
        }
        out.push_str(if column > 0 { "\r\n" } else { "" });
    }
    out
}

/// The lines of `octets`, cleaned of what cannot be sent: all end in CRLF, bare CR and NUL are
/// gone.
pub(super) fn lines(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|b| *b == b'\n') {
        out.extend(line.iter().filter(|b| !matches!(b, b'\r' | b'\n' | 0)));
        out.extend_from_slice(b"\r\n");
    }
    out
}

/// Whether every line is short enough for mail (RFC 5322 §2.1.1).
pub(super) fn fits_lines(content: &[u8]) -> bool {
    content.split(|b| *b == b'\n').all(|line| line.len() <= LINE_BYTES_MAX)
}

/// The parts between boundary lines, and the boundary. The result is all 7-bit, but for parts
/// that are written as they are.
///
/// `seed` must be unpredictable; a boundary that the content holds in spite of that is made
/// longer until it does not.
pub(super) fn multipart(parts: Vec<Part>, seed: &str) -> (String, Vec<u8>) {
    let parts: Vec<(Part, &str)> = parts.into_iter().map(encoded).collect();
    let mut boundary = format!("=_{seed}");
    while parts.iter().any(|(part, _)| contains(&part.content, boundary.as_bytes())) {
        boundary.push('_');
    }
    let mut out = Vec::new();
    for (part, encoding) in parts {
        let head = format!(
            "--{boundary}\r\nContent-Type: {}\r\nContent-Description: {}\r\n\
             Content-Transfer-Encoding: {encoding}\r\n\r\n",
            part.content_type, part.description
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&part.content);
        // The CRLF before a boundary line belongs to the boundary (RFC 2046 §5.1.1).
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (boundary, out)
}

/// The part as it can go through any next hop, and its `Content-Transfer-Encoding`.
fn encoded(part: Part) -> (Part, &'static str) {
    if part.content.is_ascii() && fits_lines(&part.content) {
        return (part, "7bit");
    }
    if part.coding == Coding::AsItIs {
        return (part, "8bit");
    }
    let content = quoted_printable(&part.content);
    (Part { content, ..part }, "quoted-printable")
}

/// RFC 2045 §6.7, for lines that end in CRLF.
fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(octets.len());
    for line in octets.split_inclusive(|b| *b == b'\n') {
        let (text, end) = match line.strip_suffix(b"\r\n") {
            Some(text) => (text, &b"\r\n"[..]),
            None => (line, &b""[..]),
        };
        let mut column = 0_usize;
        for (at, octet) in text.iter().enumerate() {
            let is_last = at.saturating_add(1) == text.len();
            let is_blank = matches!(octet, b' ' | b'\t');
            let is_literal = matches!(octet, b'!'..=b'<' | b'>'..=b'~') || is_blank && !is_last;
            let coded = format!("={octet:02X}");
            let shown = if is_literal { std::slice::from_ref(octet) } else { coded.as_bytes() };
            if column.saturating_add(shown.len()) > 75 {
                out.extend_from_slice(b"=\r\n");
                column = 0;
            }
            out.extend_from_slice(shown);
            column = column.saturating_add(shown.len());
        }
        out.extend_from_slice(end);
    }
    out
}

fn contains(content: &[u8], needle: &[u8]) -> bool {
    content.windows(needle.len().max(1)).any(|window| window == needle)
}

/// The text in pieces of at most `bytes_max` octets, cut between characters.
fn pieces(text: &str, bytes_max: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let at = rest.floor_char_boundary(bytes_max);
        let (piece, tail) = rest.split_at_checked(at)?;
        rest = tail;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Columns of a folded field.
const WIDTH: usize = 78;
/// Columns of the text for people.
const TEXT_WIDTH: usize = 72;
/// Octets of a word that is not cut.
const WORD_BYTES_MAX: usize = 900;
/// Octets of a line, its CR included (RFC 5322 §2.1.1).
const LINE_BYTES_MAX: usize = 999;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_fold_at_spaces_and_never_let_a_line_break_in() {
        assert_eq!(field("To", "a@b"), "To: a@b\r\n");
        assert_eq!(field("X", "a\r\nBcc: b"), "X: a Bcc: b\r\n");
        let long = field("Diagnostic-Code", &format!("smtp; {}", "word ".repeat(40)));
        assert!(long.lines().all(|line| line.len() <= 78), "{long}");
        assert!(long.lines().skip(1).all(|line| line.starts_with(" word")), "{long}");
        let monster = field("X", &"x".repeat(5000));
        assert!(monster.lines().all(|line| line.len() <= 998));
    }

    #[test]
    fn paragraphs_wrap_and_keep_their_indent() {
        assert_eq!(paragraph("  ", "one\ntwo"), "  one\r\n  two\r\n");
        assert_eq!(paragraph("  ", ""), "");
        let text = paragraph("    ", &"word ".repeat(60));
        assert!(
            text.lines().all(|line| line.starts_with("    word") && line.len() <= 72),
            "{text}"
        );
        assert_eq!(paragraph("", "a\rb\u{7}c"), "a b c\r\n");
    }

    #[test]
    fn lines_are_cleaned() {
        for (octets, want) in
            [(&b"a\r\nb\nc"[..], &b"a\r\nb\r\nc\r\n"[..]), (b"a\rb\0c\r\n", b"abc\r\n"), (b"", b"")]
        {
            assert_eq!(lines(octets), want);
        }
    }

    #[test]
    fn quoted_printable_is_short_and_reversible_by_eye() {
        assert_eq!(quoted_printable("é=x \r\n".as_bytes()), b"=C3=A9=3Dx=20\r\n");
        let long = quoted_printable(&[b'x'; 200]);
        assert!(long.split(|b| *b == b'\n').all(|line| line.len() <= 77));
    }

    #[test]
    fn a_boundary_in_the_content_is_not_used() {
        let part = |content: &str| Part {
            content_type: "text/plain",
            description: "d",
            content: content.as_bytes().to_vec(),
            coding: Coding::Any,
        };
        let (boundary, body) =
            multipart(vec![part("--=_seed\r\n--=_seed_\r\n"), part("é\r\n")], "seed");
        assert_eq!(boundary, "=_seed__");
        assert!(body.is_ascii());
        assert!(body.ends_with(b"--=_seed__--\r\n"));
    }
}
