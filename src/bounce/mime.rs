//! The parts of a mail (RFC 2045, RFC 2046), found in one pass and left undecoded.
//!
//! Embedded mails are leaves: what stands inside a returned mail is not about this one.

use std::borrow::Cow;

use super::headers::{Headers, field_name, split};
use super::text::{Encoding, next_line, starts_with_ignore_case, to_text, unfold};

/// One part that is no multipart.
#[derive(Clone, Debug)]
pub(super) struct Part<'a> {
    /// `type/subtype` in lower case.
    pub(super) kind: String,
    /// The `charset` parameter.
    pub(super) charset: String,
    /// How the body is coded.
    pub(super) encoding: Encoding,
    /// Whether its header says that it is a file.
    pub(super) is_attachment: bool,
    /// The header block as it stands in the mail.
    pub(super) header: &'a [u8],
    /// The body as it stands in the mail.
    pub(super) body: &'a [u8],
}

impl Part<'_> {
    /// Whether its type is one of these.
    pub(super) fn is(&self, kinds: &[&str]) -> bool {
        kinds.contains(&self.kind.as_str())
    }

    /// The body with its transfer encoding undone, as far as `bytes_max` octets.
    pub(super) fn octets(&self, bytes_max: usize) -> Cow<'_, [u8]> {
        self.encoding.decode(self.body, bytes_max)
    }

    /// The body as text, as far as `bytes_max` octets of it.
    pub(super) fn text(&self, bytes_max: usize) -> String {
        to_text(&self.octets(bytes_max), &self.charset)
    }
}

/// A mail taken apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Mail<'a> {
    /// Its header.
    pub(super) headers: Headers<'a>,
    /// `type/subtype` of the whole, in lower case; `text/plain` where nothing is said.
    pub(super) kind: String,
    /// The `report-type` parameter, in lower case.
    pub(super) report_type: String,
    /// The parts that are no multiparts, in order.
    pub(super) parts: Vec<Part<'a>>,
    /// What was wrong with its form.
    pub(super) defects: Vec<&'static str>,
}

/// `Content-Type` and `Content-Transfer-Encoding` of a mail or a part.
#[derive(Clone, Debug, Default)]
struct Content {
    kind: String,
    charset: String,
    boundary: String,
    report_type: String,
    encoding: Encoding,
    is_attachment: bool,
}

/// Takes a mail apart.
pub(super) fn parse(mail: &[u8]) -> Mail<'_> {
    let mail = skip_envelope(mail);
    let (block, body) = split(mail);
    let headers = Headers::parse(block);
    let content = Content::of(&headers);
    let mut parsed = Mail {
        headers,
        kind: content.kind.clone(),
        report_type: content.report_type.clone(),
        ..Mail::default()
    };
    if !content.kind.starts_with("multipart/") {
        parsed.parts.push(content.part(&[], body));
        return parsed;
    }
    split_parts(&content.boundary, body, &mut parsed);
    if parsed.parts.is_empty()
        && let Some(boundary) = guessed_boundary(body)
    {
        parsed.defects.push("boundary-guessed");
        split_parts(&boundary, body, &mut parsed);
    }
    if parsed.parts.is_empty() {
        parsed.defects.push("no-parts");
        let text = Content { kind: "text/plain".to_owned(), ..content };
        parsed.parts.push(text.part(&[], body));
    }
    parsed
}

impl Content {
    fn of(headers: &Headers<'_>) -> Self {
        let mut content = Self { kind: "text/plain".to_owned(), ..Self::default() };
        if let Some(value) = headers.raw("content-type") {
            let value = unfold(value);
            let kind = value.split([';', ' ']).next().unwrap_or_default().trim();
            if kind.contains('/') {
                content.kind = kind.to_ascii_lowercase();
            }
            content.charset = parameter(&value, "charset").unwrap_or_default();
            content.boundary = parameter(&value, "boundary").unwrap_or_default();
            content.report_type =
                parameter(&value, "report-type").unwrap_or_default().to_ascii_lowercase();
        }
        if let Some(value) = headers.raw("content-transfer-encoding") {
            content.encoding = Encoding::named(&unfold(value));
        }
        content.is_attachment = headers
            .raw("content-disposition")
            .is_some_and(|value| starts_with_ignore_case(value.trim_ascii(), b"attachment"));
        content
    }

    fn part<'a>(self, header: &'a [u8], body: &'a [u8]) -> Part<'a> {
        Part {
            header,
            kind: self.kind,
            charset: self.charset,
            encoding: self.encoding,
            is_attachment: self.is_attachment,
            body,
        }
    }
}

/// Splits `body` at its boundaries, nested ones included, into `mail.parts`.
fn split_parts<'a>(boundary: &str, body: &'a [u8], mail: &mut Mail<'a>) {
    let mut open: Vec<Vec<u8>> = vec![boundary.as_bytes().to_vec()];
    let mut current: Option<(Content, &'a [u8], &'a [u8])> = None;
    let mut rest = body;
    if boundary.is_empty() {
        return;
    }
    while !rest.is_empty() {
        let at_line = rest;
        let (line, tail) = next_line(rest);
        rest = tail;
        let Some((depth, closes)) = delimiter(line, &open) else { continue };
        if let Some((content, header, start)) = current.take() {
            mail.parts.push(content.part(header, between(start, at_line)));
        }
        if mail.parts.len() >= PARTS_MAX {
            mail.defects.push("too-many-parts");
            return;
        }
        open.truncate(if closes { depth } else { depth.saturating_add(1) });
        if closes {
            if open.is_empty() {
                return;
            }
            continue;
        }
        let (content, header, start) = part_header(tail, mail);
        rest = start;
        if !content.kind.starts_with("multipart/") {
            current = Some((content, header, start));
        } else if open.len() < DEPTH_MAX && !content.boundary.is_empty() {
            open.push(content.boundary.into_bytes());
        } else {
            mail.defects.push("multipart-not-split");
            current = Some((content, header, start));
        }
    }
    if let Some((content, header, start)) = current {
        mail.defects.push("boundary-not-closed");
        mail.parts.push(content.part(header, start));
    }
}

/// Which open boundary `line` is, innermost first, and whether it closes it.
fn delimiter(line: &[u8], open: &[Vec<u8>]) -> Option<(usize, bool)> {
    let line = line.strip_prefix(b"--")?;
    open.iter().enumerate().rev().find_map(|(depth, boundary)| {
        let tail = line.strip_prefix(boundary.as_slice())?;
        match tail.trim_ascii_end() {
            b"" => Some((depth, false)),
            b"--" => Some((depth, true)),
            // Some writers leave text behind the closing delimiter.
            _ => None,
        }
    })
}

/// Reads the header of a part, also where a blank line stands before or inside it.
fn part_header<'a>(text: &'a [u8], mail: &mut Mail<'a>) -> (Content, &'a [u8], &'a [u8]) {
    let mut start = text;
    let (mut block, mut body) = split_part(text);
    let mut headers = Headers::parse(block);
    if !headers.has("content-type") && begins_with_content_field(body) {
        if headers.is_empty() {
            start = body;
        }
        let (next, tail) = split_part(body);
        let more = Headers::parse(next);
        if more.has("content-type") {
            mail.defects.push("blank-line-in-part-header");
            headers = more;
            block = next;
            body = tail;
        }
    }
    // A part that begins with its text has no header at all (RFC 2046 §5.1).
    if headers.is_empty() {
        body = if start.len() == text.len() { text } else { start };
    }
    (Content::of(&headers), block, body)
}

/// Splits off the header of a part. Unlike that of a mail it consists of little else than
/// `Content-` fields, so a first line that is a field of another sort is already text.
fn split_part(text: &[u8]) -> (&[u8], &[u8]) {
    let (first, tail) = next_line(text);
    if first.is_empty() {
        return (&[], tail);
    }
    match field_name(first) {
        Some(_) => split(text),
        None => (&[], text),
    }
}

fn begins_with_content_field(text: &[u8]) -> bool {
    starts_with_ignore_case(text, b"content-type:")
        || starts_with_ignore_case(text, b"content-transfer-encoding:")
        || starts_with_ignore_case(text, b"content-description:")
        || starts_with_ignore_case(text, b"content-disposition:")
}

/// What lies between two places of the same text, without the line ending in front of the
/// delimiter, which belongs to the delimiter (RFC 2046 §5.1.1).
fn between<'a>(start: &'a [u8], end: &[u8]) -> &'a [u8] {
    let body = start.get(..start.len().saturating_sub(end.len())).unwrap_or_default();
    let body = body.strip_suffix(b"\n").unwrap_or(body);
    body.strip_suffix(b"\r").unwrap_or(body)
}

/// The first line `--something` right in front of a `Content-` field.
fn guessed_boundary(body: &[u8]) -> Option<String> {
    let mut rest = body;
    while !rest.is_empty() {
        let (line, tail) = next_line(rest);
        rest = tail;
        if let Some(boundary) = line.strip_prefix(b"--")
            && !boundary.is_empty()
            && boundary.len() <= 200
            && starts_with_ignore_case(tail, b"content-")
        {
            return Some(String::from_utf8_lossy(boundary.trim_ascii_end()).into_owned());
        }
    }
    None
}

/// Passes over what mailboxes and pipes put in front of a header: blank lines, `From ` lines.
fn skip_envelope(mail: &[u8]) -> &[u8] {
    let mut rest = mail.strip_prefix(b"\xef\xbb\xbf").unwrap_or(mail);
    loop {
        let (line, tail) = next_line(rest);
        let is_from_line = line.starts_with(b"From ") || line.starts_with(b">From ");
        let is_blank = line.iter().all(u8::is_ascii_whitespace);
        if rest.is_empty() || !(is_blank || is_from_line) {
            return rest;
        }
        rest = tail;
    }
}

/// A parameter of a structured field, quoted or not (RFC 2045 §5.1).
pub(super) fn parameter(value: &str, name: &str) -> Option<String> {
    let mut rest = value;
    while let Some((_, tail)) = rest.split_once(';') {
        rest = tail;
        let tail = tail.trim_start();
        let Some(body) = super::text::strip_prefix_ignore_case(tail, name) else { continue };
        let Some(body) = body.trim_start().strip_prefix('=') else { continue };
        let body = body.trim_start();
        if let Some(quoted) = body.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            return quoted.get(..end).map(str::to_owned);
        }
        let end = body.find([';', ' ', '\t']).unwrap_or(body.len());
        return body.get(..end).map(str::to_owned);
    }
    None
}

/// Multiparts inside one another that are split.
const DEPTH_MAX: usize = 16;
/// Parts that are looked at.
const PARTS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(mail: &str) -> (Vec<String>, Vec<&'static str>) {
        let parsed = parse(mail.as_bytes());
        (parsed.parts.iter().map(|p| p.kind.clone()).collect(), parsed.defects.clone())
    }

    #[test]
    fn parts_are_found_in_spite_of_their_form() {
        let status = "message/delivery-status";
        for (mail, want, defects) in [
            ("Subject: x\n\nhello", vec!["text/plain"], vec![]),
            (
                "Content-Type: multipart/report; boundary=\"b\"\n\n--b\n\nhi\n--b\nContent-Type: message/delivery-status\n\nA: b\n--b--\n",
                vec!["text/plain", status],
                vec![],
            ),
            (
                "Content-Type: multipart/report; boundary=cut\n\n--b\nContent-Type: text/plain\n\nhi\n--b\n\nContent-Type: message/delivery-status\n\nA: b\n",
                vec!["text/plain", status],
                vec!["boundary-guessed", "blank-line-in-part-header", "boundary-not-closed"],
            ),
            (
                "Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: multipart/related; boundary=c\n\n--c\nContent-Type: text/html\n\nx\n--c--\n--b\nContent-Type: message/delivery-status\n\nA: b\n--b--\n",
                vec!["text/html", status],
                vec![],
            ),
            ("Content-Type: multipart/mixed\n\nhello", vec!["text/plain"], vec!["no-parts"]),
        ] {
            let (kinds, found) = kinds(mail);
            assert_eq!((kinds, found), (want.into_iter().map(str::to_owned).collect(), defects));
        }
    }

    #[test]
    fn nesting_and_floods_end_at_their_limits() {
        let mut deep = String::from("Content-Type: multipart/mixed; boundary=b0\n\n");
        for n in 0..100 {
            let next = n + 1;
            deep.push_str(&format!("--b{n}\nContent-Type: multipart/mixed; boundary=b{next}\n\n"));
        }
        assert!(parse(deep.as_bytes()).parts.len() <= 1);
        let flood =
            format!("Content-Type: multipart/mixed; boundary=b\n\n{}", "--b\n\n".repeat(9999));
        assert_eq!(parse(flood.as_bytes()).parts.len(), PARTS_MAX);
    }

    #[test]
    fn parameters_are_read_in_every_form() {
        for (value, want) in [
            ("multipart/report; report-type=x; boundary=\"a b\"", Some("a b")),
            ("multipart/report; BOUNDARY = a; x=y", Some("a")),
            ("multipart/report; boundary=\"cut", Some("cut")),
            ("multipart/report", None),
        ] {
            assert_eq!(parameter(value, "boundary").as_deref(), want);
        }
    }
}
