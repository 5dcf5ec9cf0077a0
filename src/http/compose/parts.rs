//! The content of a mail as its parts: addresses, texts, attachments, header fields.

use serde_json::Value;

use super::reader::{Object, Reader};
use crate::mail::{MessageId, NameAddr, base64};

/// The content of a mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    pub(super) from: NameAddr,
    pub(super) to: Vec<NameAddr>,
    pub(super) cc: Vec<NameAddr>,
    /// In no header field.
    pub(super) bcc: Vec<NameAddr>,
    pub(super) reply_to: Vec<NameAddr>,
    pub(super) subject: Option<String>,
    pub(super) message_id: Option<MessageId>,
    /// Further fields; names are tokens, values hold no control.
    pub(super) headers: Vec<(String, String)>,
    pub(super) text: Option<String>,
    pub(super) html: Option<String>,
    pub(super) attachments: Vec<Attachment>,
}

/// An attachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) filename: Option<String>,
    pub(super) content: Vec<u8>,
    pub(super) media: Media,
    pub(super) is_inline: bool,
    /// Its Content-ID, without angle brackets.
    pub(super) cid: Option<String>,
}

/// A media type with its parameters, all of them tokens or clean texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Media {
    pub(super) name: String,
    pub(super) parameters: Vec<(String, String)>,
}

/// The keys that make up the content.
pub(super) const KEYS: &[&str] = &[
    "from",
    "to",
    "cc",
    "bcc",
    "replyTo",
    "subject",
    "text",
    "html",
    "attachments",
    "messageId",
    "headers",
];

/// Takes the content out of a submission; `sender` is from whom it is unless it says.
pub(super) fn read(
    reader: &mut Reader,
    fields: &mut Object,
    sender: Option<&NameAddr>,
) -> Option<Parts> {
    let from = match fields.take("from") {
        Some((path, value)) => reader.mailbox(&path, value),
        None if sender.is_some() => sender.cloned(),
        None => {
            reader.wrong("from", "is required: the account has no `from` in the configuration");
            None
        }
    };
    let mut people = |key: &str| {
        let value = fields.take(key);
        value.map(|(path, value)| reader.mailboxes(&path, value)).unwrap_or_default()
    };
    let (to, cc, bcc, reply_to) = (people("to"), people("cc"), people("bcc"), people("replyTo"));
    let subject = fields.take("subject").and_then(|(path, value)| reader.line(&path, value));
    let text = fields.take("text").and_then(|(path, value)| body_text(reader, &path, value));
    let html = fields.take("html").and_then(|(path, value)| body_text(reader, &path, value));
    let attachments = fields.take("attachments").map(|(path, value)| {
        let all = reader.list(&path, value);
        all.into_iter().filter_map(|(path, value)| attachment(reader, &path, value)).collect()
    });
    let message_id = fields.take("messageId").and_then(|(path, value)| {
        let text = reader.line(&path, value)?;
        let id = MessageId::parse(&text).filter(|id| MessageId::is_valid_field(&id.to_string()));
        id.or_else(|| reader.expected(&path, "a Message-ID such as <a@b>"))
    });
    let headers = fields.take("headers").map(|(path, value)| headers(reader, &path, value));
    Some(Parts {
        from: from?,
        to,
        cc,
        bcc,
        reply_to,
        subject,
        message_id,
        headers: headers.unwrap_or_default(),
        text,
        html,
        attachments: attachments.unwrap_or_default(),
    })
}

fn body_text(reader: &mut Reader, path: &str, value: Value) -> Option<String> {
    let text = reader.text(path, value)?;
    if text.contains('\0') {
        reader.wrong(path, "must have no NUL character");
        return None;
    }
    Some(text)
}

/// `{filename?, content, contentType?, contentDisposition?, cid?, encoding?}`.
fn attachment(reader: &mut Reader, path: &str, value: Value) -> Option<Attachment> {
    let mut object = reader.object(path, value)?;
    let filename = object.take("filename").and_then(|(path, value)| reader.line(&path, value));
    let content = match object.take("content") {
        Some((path, value)) => reader.text(&path, value).and_then(|text| {
            let octets = base64::decode_lenient(text.as_bytes());
            octets.or_else(|| reader.expected(&path, "base64"))
        }),
        None => reader.required(&object.path_of("content")),
    };
    let media = match object.take("contentType") {
        Some((path, value)) => reader.line(&path, value).and_then(|text| {
            let media = Media::parse(&text);
            media.or_else(|| reader.expected(&path, "a media type such as application/pdf"))
        }),
        None => Some(Media { name: OCTETS.to_owned(), parameters: Vec::new() }),
    };
    let disposition = object.take("contentDisposition").and_then(|(path, value)| {
        let is_inline = match value.as_str() {
            Some("inline") => Some(true),
            Some("attachment") => Some(false),
            _ => None,
        };
        is_inline.or_else(|| reader.expected(&path, "`inline` or `attachment`"))
    });
    let cid = object.take("cid").and_then(|(path, value)| {
        let text = reader.line(&path, value)?;
        let id = MessageId::parse(&text).filter(|id| id.as_str().is_ascii());
        let id = id.map(|id| id.as_str().to_owned());
        id.or_else(|| reader.expected(&path, "printable ASCII without spaces, < and >"))
    });
    if let Some((path, value)) = object.take("encoding")
        && value.as_str() != Some("base64")
    {
        reader.wrong(&path, "must be `base64`");
    }
    object.close(reader);
    let filename = filename.filter(|name| !name.is_empty());
    let is_inline = disposition.unwrap_or(cid.is_some());
    Some(Attachment { filename, content: content?, media: media?, is_inline, cid })
}

/// Fields by name; a value is a text, or an array of texts for a field that comes several times.
fn headers(reader: &mut Reader, path: &str, value: Value) -> Vec<(String, String)> {
    let Some(object) = reader.object(path, value) else { return Vec::new() };
    let mut fields = Vec::new();
    for (name, value) in object.rest() {
        let path = format!("{path}.{name}");
        // RFC 5322 §2.2.
        let is_name =
            !name.is_empty() && name.bytes().all(|b| (33..=126).contains(&b) && b != b':');
        if !is_name {
            reader.wrong(&path, "is no name of a header field");
            continue;
        }
        if let Some(why) = not_for_headers(&name) {
            reader.wrong(&path, why);
            continue;
        }
        for (path, value) in reader.list(&path, value) {
            let value = match value {
                Value::Number(number) => Value::String(number.to_string()),
                other => other,
            };
            fields.extend(reader.line(&path, value).map(|text| (name.clone(), text)));
        }
    }
    fields
}

/// Why a field may not stand in `headers`.
fn not_for_headers(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    match name.as_str() {
        "from" | "to" | "cc" | "bcc" | "reply-to" | "subject" | "message-id" => {
            Some("is not allowed here: it has a key of its own")
        }
        "mime-version" | "received" | "return-path" | "x-rebound-id" | "x-rebound-notice" => {
            Some("is not allowed: it is written here")
        }
        _ if name.starts_with("content-") => Some("is not allowed: it is written here"),
        _ if name.starts_with("x-ee-") => Some("is not allowed here: it has a key of its own"),
        _ => None,
    }
}

impl Media {
    /// Reads `type/subtype; name=value` (RFC 2045 §5.1). The content of an attachment is one
    /// thing, so `multipart` is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut pieces = text.split(';').map(str::trim);
        let name = pieces.next()?.to_ascii_lowercase();
        let (kind, subtype) = name.split_once('/')?;
        if !is_token(kind) || !is_token(subtype) || kind == "multipart" {
            return None;
        }
        let mut parameters = Vec::new();
        for piece in pieces.filter(|piece| !piece.is_empty()) {
            let (key, value) = piece.split_once('=')?;
            let quoted = value.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
            let value = quoted.unwrap_or(value);
            let is_clean = !value.contains(['"', '\\']) && (quoted.is_some() || is_token(value));
            if !is_token(key) || !is_clean {
                return None;
            }
            parameters.push((key.to_ascii_lowercase(), value.to_owned()));
        }
        Some(Self { name, parameters })
    }
}

/// RFC 2045 §5.1.
fn is_token(text: &str) -> bool {
    let is_special = |c: char| "()<>@,;:\\\"/[]?=".contains(c);
    !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && !is_special(c))
}

/// The media type of what is not said to be anything.
pub(super) const OCTETS: &str = "application/octet-stream";
