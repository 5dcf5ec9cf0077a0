//! Writes a mail out of its parts (RFC 5322, RFC 2045).
//!
//! Neither Message-ID nor Date nor Received are written: the door stamps them as it does for SMTP.

use std::borrow::Cow;

use mail_builder::MessageBuilder;
use mail_builder::headers::address::Address as Mailboxes;
use mail_builder::headers::content_type::ContentType;
use mail_builder::headers::raw::Raw;
use mail_builder::headers::text::Text;
use mail_builder::headers::{Header, HeaderType};
use mail_builder::mime::{BodyPart, MimePart};

use super::parts::{Attachment, Media, OCTETS, Parts};
use crate::mail::{NameAddr, base64, lines};

/// The whole mail, its lines ended by CRLF.
pub(super) fn write(parts: Parts) -> Vec<u8> {
    let mut out = Vec::new();
    field(&mut out, "From", &mailboxes(std::slice::from_ref(&parts.from)));
    for (name, people) in [("To", &parts.to), ("Cc", &parts.cc), ("Reply-To", &parts.reply_to)] {
        if !people.is_empty() {
            field(&mut out, name, &mailboxes(people));
        }
    }
    if let Some(subject) = &parts.subject {
        field(&mut out, "Subject", &HeaderType::Text(Text::new(subject)));
    }
    if let Some(id) = &parts.message_id {
        field(&mut out, "Message-ID", &HeaderType::Raw(Raw::new(id.to_string())));
    }
    for (name, value) in &parts.headers {
        field(&mut out, name, &unstructured(value));
    }
    out.extend_from_slice(b"MIME-Version: 1.0\r\n");
    let Parts { text, html, attachments, .. } = parts;
    MessageBuilder::new().body(content(text, html, attachments)).serialize_body(&mut out);
    if !out.ends_with(b"\r\n") {
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn field(out: &mut Vec<u8>, name: &str, value: &HeaderType<'_>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    value.write_header(out, name.len().saturating_add(2));
}

fn mailboxes(people: &[NameAddr]) -> HeaderType<'_> {
    match people {
        // An address alone needs no angle brackets.
        [NameAddr { name: None, address }] => HeaderType::Raw(Raw::new(address.as_str())),
        [person] if person.is_plain() => HeaderType::Raw(Raw::new(person.to_string())),
        _ => {
            let one = |person: &NameAddr| {
                Mailboxes::new_address(person.name.clone(), person.address.to_string())
            };
            HeaderType::Address(Mailboxes::new_list(people.iter().map(one).collect()))
        }
    }
}

/// A field of the app's own. It may have a structure, so nothing is coded that need not be.
fn unstructured(value: &str) -> HeaderType<'_> {
    if value.is_ascii() {
        HeaderType::Raw(Raw::new(value))
    } else {
        HeaderType::Text(Text::new(value))
    }
}

/// `mixed(alternative(text, related(html, inline...)), attachment...)`, without what has one part.
fn content(
    text: Option<String>,
    html: Option<String>,
    attachments: Vec<Attachment>,
) -> MimePart<'static> {
    let is_related = |one: &Attachment| html.is_some() && one.cid.is_some();
    let (inline, attached): (Vec<_>, Vec<_>) = attachments.into_iter().partition(is_related);
    let html = html.map(|html| {
        let html = MimePart::new("text/html", BodyPart::Text(with_crlf(&html)));
        together("multipart/related", html, inline.into_iter().map(attachment).collect())
    });
    let text = text.map(|text| MimePart::new("text/plain", BodyPart::Text(with_crlf(&text))));
    let body = match (text, html) {
        (Some(text), Some(html)) => Some(together("multipart/alternative", text, vec![html])),
        (text, html) => text.or(html),
    };
    let mut attached = attached.into_iter().map(attachment);
    let empty = || MimePart::new("text/plain", BodyPart::Text("".into()));
    match body.or_else(|| attached.next()) {
        Some(first) => together("multipart/mixed", first, attached.collect()),
        None => empty(),
    }
}

/// The first part, or a multipart of it and the others where there are any.
fn together(
    media: &'static str,
    first: MimePart<'static>,
    others: Vec<MimePart<'static>>,
) -> MimePart<'static> {
    if others.is_empty() {
        return first;
    }
    let parts: Vec<_> = std::iter::once(first).chain(others).collect();
    MimePart::new(media, BodyPart::Multipart(parts))
}

/// An attachment is always coded as base64, so that it arrives octet by octet, but for a mail,
/// which may not be coded (RFC 2046 §5.2.1) and goes as it is where it can.
fn attachment(attachment: Attachment) -> MimePart<'static> {
    let Attachment { filename, content, media, is_inline, cid } = attachment;
    let is_mail = media.name.starts_with("message/");
    let (media, encoding, octets) = match is_mail && lines::is_seven_bit(&content) {
        true => (media, "7bit", content),
        false if is_mail => {
            let media = Media { name: OCTETS.to_owned(), parameters: Vec::new() };
            (media, "base64", base64::encode_lines(&content))
        }
        false => (media, "base64", base64::encode_lines(&content)),
    };
    let mut disposition = ContentType::new(if is_inline { "inline" } else { "attachment" });
    if let Some(filename) = filename {
        disposition = disposition.attribute("filename", filename);
    }
    let attributes = media.parameters.into_iter().map(|(key, value)| (key.into(), value.into()));
    let content_type = ContentType { c_type: media.name.into(), attributes: attributes.collect() };
    let part = MimePart::new(content_type, BodyPart::Binary(octets.into()))
        .transfer_encoding(encoding)
        .header("Content-Disposition", disposition);
    match cid {
        Some(cid) => part.header("Content-ID", Raw::new(format!("<{cid}>"))),
        None => part,
    }
}

/// The text with every line ended by CRLF, whatever ended it before.
fn with_crlf(text: &str) -> Cow<'static, str> {
    text.replace("\r\n", "\n").replace('\r', "\n").replace('\n', "\r\n").into()
}
