//! The header fields of a mail or a part, as views of its octets.

use super::text::{field_text, next_line, unfold};

/// The fields of one header block, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Headers<'a> {
    fields: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Headers<'a> {
    /// The fields of `block`. Lines that belong to no field are passed over.
    pub(super) fn parse(block: &'a [u8]) -> Self {
        let mut fields = Vec::new();
        let mut rest = block;
        while !rest.is_empty() && fields.len() < FIELDS_MAX {
            let start = rest;
            let (first, tail) = next_line(rest);
            rest = tail;
            while matches!(rest.first(), Some(b' ' | b'\t')) {
                rest = next_line(rest).1;
            }
            let raw = start.get(..start.len().saturating_sub(rest.len())).unwrap_or(start);
            if let Some((name, colon)) = field_name(first) {
                fields.push((name, raw.get(colon.saturating_add(1)..).unwrap_or_default()));
            }
        }
        Self { fields }
    }

    /// Names and raw bodies, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + '_ {
        self.fields.iter().copied()
    }

    /// The raw body of the first field of this name.
    pub(super) fn raw(&self, name: &str) -> Option<&'a [u8]> {
        self.fields
            .iter()
            .find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, body)| *body)
    }

    /// Whether there is a field of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// The first field of this name on one line, encoded words decoded.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        self.raw(name).map(field_text)
    }

    /// The first field of this name on one line, as it stands.
    pub(super) fn plain(&self, name: &str) -> Option<String> {
        self.raw(name).map(unfold)
    }

    /// Whether it holds no field.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }
}

/// Where the header block of `mail` ends and its body begins.
///
/// The block ends at the empty line. A line that is no field ends it too, unless fields go on
/// right behind it: broken folds are common in what is returned.
pub(super) fn split(mail: &[u8]) -> (&[u8], &[u8]) {
    let mut rest = mail;
    let mut end: usize = 0;
    loop {
        let (line, tail) = next_line(rest);
        if rest.is_empty() {
            return (mail, &[]);
        }
        let is_blank = line.iter().all(|octet| matches!(octet, b' ' | b'\t'));
        if is_blank && (line.is_empty() || !is_field(next_line(tail).0)) {
            return (mail.get(..end).unwrap_or_default(), tail);
        }
        let is_fold = end > 0 && matches!(line.first(), Some(b' ' | b'\t'));
        if !is_fold && !is_field(line) && !goes_on(tail) {
            return (mail.get(..end).unwrap_or_default(), rest);
        }
        end = mail.len().saturating_sub(tail.len());
        rest = tail;
    }
}

/// Whether fields go on within a few lines, none of them blank.
fn goes_on(text: &[u8]) -> bool {
    let mut rest = text;
    for _ in 0..BROKEN_LINES_MAX {
        let (line, tail) = next_line(rest);
        if line.trim_ascii().is_empty() {
            return false;
        }
        if !matches!(line.first(), Some(b' ' | b'\t')) && is_field(line) {
            return true;
        }
        rest = tail;
    }
    false
}

fn is_field(line: &[u8]) -> bool {
    field_name(line).is_some()
}

/// The name in front of the colon and where the colon stands: printable ASCII without colon
/// and space (RFC 5322 §2.2); white space before the colon is tolerated (RFC 5322 §4.5).
pub(super) fn field_name(line: &[u8]) -> Option<(&[u8], usize)> {
    let line_head = line.get(..NAME_BYTES_MAX).unwrap_or(line);
    let colon = line_head.iter().position(|octet| *octet == b':')?;
    let name = line_head.get(..colon)?.trim_ascii_end();
    let sound = name.iter().all(|octet| octet.is_ascii_alphanumeric() || b"-_.".contains(octet));
    (!name.is_empty() && sound).then_some((name, colon))
}

/// Lines in a row that may be broken folds.
const BROKEN_LINES_MAX: usize = 4;
/// Octets of a field name with the white space behind it.
const NAME_BYTES_MAX: usize = 80;
/// Fields of one header block that are looked at.
const FIELDS_MAX: usize = 4000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_ends_where_fields_end() {
        for (mail, want) in [
            (&b"A: b\r\n\r\nc"[..], &b"c"[..]),
            (b"A: b\nno field\nno field\n", b"no field\nno field\n"),
            (b"A: b\nbroken fold\nC: d\n\nbody", b"body"),
            (b"A: b\n \nC: d\n\nbody", b"body"),
            (b"A: b\n \nbody", b"body"),
            (b"A: b", b""),
            (b"", b""),
            (b"\nbody", b"body"),
        ] {
            assert_eq!(split(mail).1, want, "{:?}", String::from_utf8_lossy(mail));
        }
    }

    #[test]
    fn fields_are_found_in_any_case_and_unfolded() {
        let headers = Headers::parse(b"Subject : =?utf-8?q?a?=\r\n b\r\nTo:c@d\r\n");
        assert_eq!(headers.text("subject").as_deref(), Some("a b"));
        assert_eq!(headers.plain("TO").as_deref(), Some("c@d"));
        assert!(!headers.has("From"));
    }
}
