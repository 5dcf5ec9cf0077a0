//! The keys of a submission, and what they come to: an envelope, a mail, and what holds for it.

use std::time::Duration;

use serde_json::Value;

use super::mime;
use super::parts::{self, Parts};
use super::reader::{Object, Reader};
use crate::http::error::ApiError;
use crate::mail::dsn::{Content, EnvelopeId, Notify, OriginalRecipient};
use crate::mail::envelope::BodyKind;
use crate::mail::{
    Address, Envelope, MailDsn, NameAddr, Recipient, RecipientDsn, ReversePath, Timestamp, base64,
    header, lines,
};
use crate::store::record::Control;
use crate::submission::{control, policy};

/// What a submission is read by.
#[derive(Clone, Debug)]
pub(in crate::http) struct Terms {
    /// The time now.
    pub(in crate::http) now: Timestamp,
    /// How far ahead a mail may be sent.
    pub(in crate::http) send_ahead_max: Duration,
    /// Recipients of one mail.
    pub(in crate::http) recipients_max: usize,
    /// The sender of a mail that names none.
    pub(in crate::http) sender: Option<NameAddr>,
    /// Whether bare line ends in a raw mail are mended rather than refused.
    pub(in crate::http) mends_lines: bool,
}

/// A mail that is ready for the door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::http) struct Letter {
    /// Who it is from and for.
    pub(in crate::http) envelope: Envelope,
    /// Its octets.
    pub(in crate::http) mail: Vec<u8>,
    /// When it is sent, and how often it is tried.
    pub(in crate::http) control: Control,
    /// Whether it is only to be shown.
    pub(in crate::http) is_dry_run: bool,
}

/// What `envelope` says.
#[derive(Debug, Default)]
struct Asked {
    from: Option<ReversePath>,
    to: Option<Vec<Address>>,
}

/// A mail and whom its header names.
struct Written {
    mail: Vec<u8>,
    from: Option<Address>,
    recipients: Vec<Address>,
    body: BodyKind,
}

/// Reads a submission.
///
/// # Errors
/// With every field that is wrong.
pub(in crate::http) fn letter(value: Value, terms: &Terms) -> Result<Letter, ApiError> {
    let mut reader = Reader::default();
    let read = read(&mut reader, value, terms);
    reader.finish(read)
}

fn read(reader: &mut Reader, value: Value, terms: &Terms) -> Option<Letter> {
    let mut fields = reader.object("", value)?;
    let control = control_of(reader, &mut fields, terms);
    let (dsn, recipient_dsn) = dsn_of(reader, &mut fields);
    let is_dry_run = fields.take("dryRun").and_then(|(path, value)| reader.flag(&path, &value));
    let asked = envelope_of(reader, &mut fields);
    let written = match fields.take("raw") {
        Some((path, value)) => {
            for key in parts::KEYS {
                if let Some((path, _)) = fields.take(key) {
                    reader.wrong(&path, "is not allowed beside \"raw\"");
                }
            }
            raw(reader, &path, value, terms)
        }
        None => parts::read(reader, &mut fields, terms.sender.as_ref()).map(written),
    };
    fields.close(reader);
    let written = written?;
    let sender = || terms.sender.as_ref().map(|sender| sender.address.clone());
    let reverse_path =
        asked.from.or_else(|| written.from.or_else(sender).map(ReversePath::Address));
    let recipients = distinct(asked.to.unwrap_or(written.recipients));
    if reverse_path.is_none() {
        reader.wrong("envelope.from", "is required: the mail has no From with an address");
    }
    if recipients.is_empty() {
        reader.wrong("to", "is required: nobody is named in to, cc, bcc or envelope.to");
    }
    if recipients.len() > terms.recipients_max {
        reader
            .wrong("to", format_args!("and others name more than {} people", terms.recipients_max));
    }
    let (mail_header, _) = header::split(&written.mail);
    let is_ascii = mail_header.is_ascii()
        && reverse_path.as_ref().and_then(ReversePath::address).is_none_or(Address::is_ascii)
        && recipients.iter().all(Address::is_ascii);
    let recipient =
        |address: Address| Recipient { dsn: recipient_dsn.clone(), ..Recipient::from(address) };
    Some(Letter {
        envelope: Envelope {
            reverse_path: reverse_path?,
            recipients: recipients.into_iter().map(recipient).collect(),
            body: written.body,
            smtputf8: !is_ascii,
            dsn,
        },
        mail: written.mail,
        control,
        is_dry_run: is_dry_run.unwrap_or(false),
    })
}

fn control_of(reader: &mut Reader, fields: &mut Object, terms: &Terms) -> Control {
    let mut control = Control::default();
    if let Some((path, value)) = fields.take("sendAt")
        && let Some(text) = reader.text(&path, value)
    {
        match control::send_at(&text, terms.now, terms.send_ahead_max) {
            Ok(time) => control.send_at = time,
            Err(expected) => reader.wrong(&path, format_args!("must be {expected}")),
        }
    }
    if let Some((path, value)) = fields.take("deliveryAttempts") {
        control.attempts_max = value
            .as_u64()
            .and_then(control::attempts_max)
            .or_else(|| reader.expected(&path, control::attempts_expected()));
    }
    control
}

/// `{id, return, notify, recipient}` for RFC 3461's ENVID, RET, NOTIFY and ORCPT.
fn dsn_of(reader: &mut Reader, fields: &mut Object) -> (MailDsn, RecipientDsn) {
    let (mut of_mail, mut of_recipient) = (MailDsn::default(), RecipientDsn::default());
    let Some((path, value)) = fields.take("dsn") else { return (of_mail, of_recipient) };
    let Some(mut dsn) = reader.object(&path, value) else { return (of_mail, of_recipient) };
    if let Some((path, value)) = dsn.take("id")
        && let Some(text) = reader.line(&path, value)
    {
        let id = EnvelopeId::of(&text);
        of_mail.envelope_id =
            id.or_else(|| reader.expected(&path, "printable ASCII of at most 100 octets as xtext"));
    }
    if let Some((path, value)) = dsn.take("return") {
        of_mail.content = match value.as_str() {
            Some("headers") => Some(Content::Headers),
            Some("full") => Some(Content::Full),
            _ => reader.expected(&path, "`headers` or `full`"),
        };
    }
    if let Some((path, value)) = dsn.take("notify") {
        let words = reader.list(&path, value);
        let words: Option<Vec<String>> =
            words.into_iter().map(|(path, word)| reader.text(&path, word)).collect();
        let expected = "`never`, or some of `success`, `failure` and `delay`, each once";
        of_recipient.notify = words.and_then(|words| {
            let notify = Notify::parse(&words.join(","));
            notify.or_else(|| reader.expected(&path, expected))
        });
    }
    if let Some((path, value)) = dsn.take("recipient")
        && let Some(address) = reader.address(&path, value)
    {
        of_recipient.original_recipient = OriginalRecipient::of(&address);
    }
    dsn.close(reader);
    (of_mail, of_recipient)
}

fn envelope_of(reader: &mut Reader, fields: &mut Object) -> Asked {
    let mut asked = Asked::default();
    let Some((path, value)) = fields.take("envelope") else { return asked };
    let Some(mut envelope) = reader.object(&path, value) else { return asked };
    asked.from = envelope.take("from").and_then(|(path, value)| match value.as_str() {
        Some("") => Some(ReversePath::NULL),
        _ => reader.address(&path, value).map(ReversePath::Address),
    });
    asked.to = envelope.take("to").map(|(path, value)| {
        let all = reader.list(&path, value);
        all.into_iter().filter_map(|(path, value)| reader.address(&path, value)).collect()
    });
    envelope.close(reader);
    asked
}

fn written(parts: Parts) -> Written {
    let recipients = [&parts.to, &parts.cc, &parts.bcc];
    let recipients = recipients.into_iter().flatten().map(|one| one.address.clone());
    Written {
        recipients: recipients.collect(),
        from: Some(parts.from.address.clone()),
        mail: mime::write(parts),
        body: BodyKind::SevenBit,
    }
}

/// A mail as the app wrote it; its header says who it is from and for.
fn raw(reader: &mut Reader, path: &str, value: Value, terms: &Terms) -> Option<Written> {
    let text = reader.text(path, value)?;
    let Some(octets) = base64::decode_lenient(text.as_bytes()) else {
        return reader.expected(path, "base64");
    };
    let mail = match lines::for_smtp(octets, terms.mends_lines) {
        Ok(mail) => mail,
        Err(why) => {
            reader.wrong(path, format_args!("{why}"));
            return None;
        }
    };
    let (mail_header, _) = header::split(&mail);
    let named = |name: &str| {
        let fields = header::fields(mail_header).filter(|field| field.is(name));
        fields.flat_map(|field| policy::mailboxes(&field.text())).collect::<Vec<_>>()
    };
    let from = named("From").first().and_then(|text| Address::parse(text).ok());
    let mut recipients = Vec::new();
    for text in ["To", "Cc", "Bcc"].into_iter().flat_map(named).filter(|text| !text.is_empty()) {
        match Address::parse(&text) {
            Ok(address) => recipients.push(address),
            Err(error) => {
                let text: String = header::sanitized(&text).chars().take(100).collect();
                reader.wrong(path, format_args!("names <{text}>, which is no address: {error}"));
            }
        }
    }
    let body = if mail.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime };
    Some(Written { mail, from, recipients, body })
}

/// Everybody once, in the order of their first naming.
fn distinct(addresses: Vec<Address>) -> Vec<Address> {
    let mut seen = std::collections::HashSet::new();
    addresses.into_iter().filter(|address| seen.insert(address.clone())).collect()
}
