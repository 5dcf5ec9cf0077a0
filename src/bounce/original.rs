//! The mail that a report is about: its ids and its header, from whatever was returned of it.

use std::borrow::Cow;
use std::collections::HashMap;

use super::facts::Original;
use super::headers::{Headers, split};
use super::mime::{Mail, Part};
use super::text::{next_line, unfold};
use crate::mail::{MessageId, QueueId};

/// The returned mail as an embedded part (RFC 6522 §3): the last one that has a header.
pub(super) fn embedded(mail: &Mail<'_>) -> Option<Original> {
    let mut best: Option<Original> = None;
    let by_type = mail.parts.iter().filter(|part| is_returned(part));
    let by_type = by_type.filter_map(|part| of_header(&part.octets(HEADER_BYTES_MAX)));
    let by_form = mail.parts.iter().enumerate().filter_map(|(at, part)| in_part(part, at));
    for found in by_type.chain(by_form) {
        if best.as_ref().is_none_or(|known| known.message_id.is_none()) {
            best = Some(found);
        }
    }
    best
}

/// The returned mail in one part of another type: in the part's own header, where a gateway put
/// the mail behind the boundary as it was; or in a text that is nothing but a header.
fn in_part(part: &Part<'_>, at: usize) -> Option<Original> {
    if is_returned(part) {
        return None;
    }
    let headers = Headers::parse(part.header);
    if headers.has("message-id") || headers.has("received") {
        return of_fields(&headers);
    }
    if at == 0 || !part.kind.starts_with("text/plain") {
        return None;
    }
    let octets = part.octets(HEADER_BYTES_MAX);
    let (block, _) = split(past_blank_lines(&octets));
    let headers = Headers::parse(block);
    (headers.has("message-id") && headers.has("from")).then(|| of_fields(&headers))?
}

/// Whether a part holds a returned mail or the header of one.
pub(super) fn is_returned(part: &Part<'_>) -> bool {
    part.is(&[
        "message/rfc822",
        "message/rfc822-headers",
        "message/rfc822-header",
        "message/global",
        "message/global-headers",
        "message/partial",
        "message/external-body",
        "text/rfc822-headers",
        "text/rfc822-header",
        "text/rfc822",
    ])
}

/// Reads the header at the start of `text`; `None` where there is none.
pub(super) fn of_header(text: &[u8]) -> Option<Original> {
    let text = past_blank_lines(text);
    let (block, body) = split(text);
    let headers = Headers::parse(block);
    let mut original = of_fields(&headers)?;
    if original.message_id.is_none() {
        // `message/partial` and some gateways put the mail's own header behind another.
        let inner = Headers::parse(split(past_blank_lines(body)).0);
        if inner.has("message-id") && inner.has("from") {
            original.message_id = inner.raw("message-id").and_then(message_id);
            original.rebound_id = inner.plain("x-rebound-id").and_then(|id| QueueId::parse(&id));
        }
    }
    Some(original)
}

/// Reads what the fields say; `None` unless they are those of a mail.
pub(super) fn of_fields(headers: &Headers<'_>) -> Option<Original> {
    let known = ["from", "to", "subject", "date", "message-id", "received", "return-path"];
    if !known.iter().any(|name| headers.has(name)) {
        return None;
    }
    Some(Original {
        message_id: headers.raw("message-id").and_then(message_id),
        rebound_id: headers.plain("x-rebound-id").and_then(|id| QueueId::parse(id.trim())),
        headers: collect(headers),
    })
}

/// The id of a `Message-ID` field: the one in angle brackets where other text stands beside
/// it, soft breaks and folds inside it taken out.
pub(super) fn message_id(raw: &[u8]) -> Option<MessageId> {
    let text = unfold(raw);
    let inner = match (text.find('<'), text.find('>')) {
        (Some(open), Some(close)) if open < close => text.get(open..=close)?,
        (Some(open), None) => text.get(open.saturating_add(1)..)?,
        _ => text.as_str(),
    };
    let joined: Cow<'_, str> = if inner.contains("= ") || inner.contains(' ') {
        Cow::Owned(inner.replace("= ", "").replace(' ', ""))
    } else {
        Cow::Borrowed(inner)
    };
    MessageId::parse(&joined)
}

/// Every id in angle brackets in the fields `In-Reply-To` and `References`, in order.
pub(super) fn references(headers: &Headers<'_>) -> Vec<MessageId> {
    let mut ids = Vec::new();
    for name in ["in-reply-to", "references"] {
        let Some(text) = headers.plain(name) else { continue };
        let mut rest = text.as_str();
        while let Some((_, tail)) = rest.split_once('<')
            && let Some((id, after)) = tail.split_once('>')
            && ids.len() < REFERENCES_MAX
        {
            if let Some(id) = MessageId::parse(id)
                && !ids.contains(&id)
            {
                ids.push(id);
            }
            rest = after;
        }
    }
    ids
}

/// The fields by their names in lower case, each with its values in order.
fn collect(headers: &Headers<'_>) -> Vec<(String, Vec<String>)> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for (name, body) in headers.iter().take(HEADER_FIELDS_MAX) {
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let place = *places.entry(name.clone()).or_insert(fields.len());
        match fields.get_mut(place) {
            Some((_, values)) => values.push(unfold(body)),
            None => fields.push((name, vec![unfold(body)])),
        }
    }
    fields
}

fn past_blank_lines(text: &[u8]) -> &[u8] {
    let mut rest = text;
    loop {
        let (line, tail) = next_line(rest);
        if rest.is_empty() || !(line.trim_ascii().is_empty() || line.starts_with(b"From ")) {
            return rest;
        }
        rest = tail;
    }
}

/// Octets of a returned mail in which its header is looked for.
const HEADER_BYTES_MAX: usize = 65_536;
/// Fields of a returned header that are kept.
const HEADER_FIELDS_MAX: usize = 500;
/// Ids of `References` that are kept.
const REFERENCES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_from_whole_and_from_broken_fields() {
        for (raw, want) in [
            (&b" <a@b>\r\n"[..], Some("a@b")),
            (b"\r\n <a@b>", Some("a@b")),
            (b" <a@\r\n b>", Some("a@b")),
            (b" <a=\r\n @b>", Some("a@b")),
            (b" <a@b> (comment)", Some("a@b")),
            (b" no-at-sign", Some("no-at-sign")),
            (b" <cut@b", Some("cut@b")),
            (b" <>", None),
            (b"", None),
        ] {
            assert_eq!(message_id(raw).as_ref().map(MessageId::as_str), want);
        }
    }

    #[test]
    fn a_returned_header_is_kept_by_name() {
        let header = b"Received: a\nReceived: b\nX-Rebound-Id: 0lc7jc1jo0000001\nMessage-ID: <m@x>\nSubject: s\n t\n\nbody";
        let original = of_header(header).unwrap();
        assert_eq!(original.message_id.unwrap().as_str(), "m@x");
        assert_eq!(
            original.headers[0],
            ("received".to_owned(), vec!["a".to_owned(), "b".to_owned()])
        );
        assert_eq!(original.headers.last().unwrap().1, ["s t"]);
        assert!(of_header(b"just text\n\nmore").is_none());
        assert!(of_header(b"").is_none());
    }
}
