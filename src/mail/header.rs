//! The header of a mail as octets: find, prepend and remove whole lines, never reflow.
//!
//! A header that may be signed must leave exactly as it came, so nothing here re-encodes,
//! unfolds in place or changes the case of what it does not remove.

/// One header field: a view of its octets, folded lines and final line ending included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name as it was written, without the colon.
    pub name: &'a [u8],
    /// Everything after the colon, folds and final line ending included.
    pub raw_body: &'a [u8],
    /// The whole field as it stands in the mail.
    pub raw: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name, in whatever case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The body on one line: folds become one space, bad UTF-8 becomes U+FFFD.
    pub fn text(&self) -> String {
        let text = String::from_utf8_lossy(self.raw_body);
        let lines = text.lines().map(|line| line.trim_matches([' ', '\t', '\r']));
        lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// Splits a mail into its header block (the empty line not included) and everything from the
/// empty line on. A mail without an empty line is all header, or all body when its first line
/// is no field.
pub fn split(mail: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = mail;
    let mut header_len: usize = 0;
    while !rest.is_empty() {
        let (line, tail) = next_line(rest);
        let is_fold = header_len > 0 && matches!(line.first(), Some(b' ' | b'\t'));
        let is_empty = matches!(line, b"\r\n" | b"\n");
        if is_empty || (!is_fold && field_name(line).is_none()) {
            break;
        }
        header_len = header_len.saturating_add(line.len());
        rest = tail;
    }
    mail.split_at_checked(header_len).unwrap_or((mail, &[]))
}

/// The fields of a header block, in order. Lines that belong to no field are passed over.
pub fn fields(header: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = header;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let start = rest;
            let (first, tail) = next_line(rest);
            rest = tail;
            while matches!(rest.first(), Some(b' ' | b'\t')) {
                rest = next_line(rest).1;
            }
            let raw = start.get(..start.len().saturating_sub(rest.len())).unwrap_or(start);
            if let Some(name) = field_name(first) {
                let raw_body = raw.get(name.len()..).unwrap_or_default();
                let colon = raw_body.iter().position(|b| *b == b':').unwrap_or_default();
                let raw_body = raw_body.get(colon.saturating_add(1)..).unwrap_or_default();
                return Some(Field { name, raw_body, raw });
            }
        }
        None
    })
}

/// The first field of this name.
pub fn find<'a>(header: &'a [u8], name: &str) -> Option<Field<'a>> {
    fields(header).find(|field| field.is(name))
}

/// The header block without the fields that `unwanted` picks; all other octets stay as they are.
pub fn without(header: &[u8], mut unwanted: impl FnMut(&Field<'_>) -> bool) -> Vec<u8> {
    let mut kept = Vec::with_capacity(header.len());
    for field in fields(header) {
        if !unwanted(&field) {
            kept.extend_from_slice(field.raw);
        }
    }
    kept
}

/// A value that may be interpolated into a field: controls and line breaks become spaces.
pub fn sanitized(value: &str) -> String {
    let is_break = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    value.chars().map(|c| if is_break(c) { ' ' } else { c }).collect()
}

/// The name in front of the colon: printable ASCII without colon and space (RFC 5322 §2.2);
/// white space before the colon is tolerated (RFC 5322 §4.5).
fn field_name(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|b| *b == b':')?;
    let name = line.get(..colon)?.trim_ascii_end();
    (!name.is_empty() && name.iter().all(|b| (33..=126).contains(b))).then_some(name)
}

/// The first line with its line ending, and the rest.
fn next_line(text: &[u8]) -> (&[u8], &[u8]) {
    let end = text.iter().position(|b| *b == b'\n').map_or(text.len(), |at| at.saturating_add(1));
    text.split_at_checked(end).unwrap_or((text, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL: &[u8] = b"Subject: a\r\n folded\r\nX-Odd : y\r\nTo: b@c\r\n\r\nBody: no\r\n";

    #[test]
    fn splits_at_the_empty_line_or_the_first_line_that_is_no_field() {
        for (mail, header, body) in [
            (MAIL, &MAIL[..41], &MAIL[41..]),
            (b"A: b\r\nno field\r\n", b"A: b\r\n", b"no field\r\n"),
            (b"A: b", b"A: b", b""),
            (b"\r\nbody", b"", b"\r\nbody"),
            (b" fold first\r\n", b"", b" fold first\r\n"),
            (b"", b"", b""),
            (b"A: b\n\nc", b"A: b\n", b"\nc"),
        ] {
            assert_eq!(split(mail), (header, body), "{:?}", String::from_utf8_lossy(mail));
        }
    }

    #[test]
    fn finds_unfolds_and_removes() {
        let (header, _) = split(MAIL);
        assert_eq!(find(header, "subject").unwrap().text(), "a folded");
        assert_eq!(find(header, "x-odd").unwrap().text(), "y");
        assert!(find(header, "Body").is_none());
        assert_eq!(without(header, |f| f.is("Subject")), b"X-Odd : y\r\nTo: b@c\r\n");
        assert_eq!(without(header, |_| false), header);
    }

    #[test]
    fn nothing_sanitized_can_start_a_line() {
        assert_eq!(sanitized("a\r\nBcc: x\u{2028}y"), "a  Bcc: x y");
    }
}
