//! Delivery status notifications (RFC 3461 §6, RFC 3464, RFC 6533).

use super::mime::{Coding, Part, field, fits_lines, lines, multipart};
use super::{
    AUTO_SUBMITTED, AboutRecipient, Letterhead, Notice, fields, from_field, submission, words,
};
use crate::mail::{Address, MessageId, Timestamp, header};
use crate::store::record::Submission;

/// The DSN about recipients that were given up (RFC 3464, RFC 5321 §6.1).
///
/// `whole` is the mail where all of it is to go back, with as much of its form as mail allows.
/// `None` when the mail had a null reverse-path: nobody is told then (RFC 5321 §4.5.5).
pub fn failure(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    whole: Option<&[u8]>,
) -> Option<Notice> {
    let to = original.envelope.reverse_path.address()?;
    let is_global = is_global(about);
    let returned = match whole.and_then(|octets| whole_mail(octets, is_global)) {
        Some(whole) => whole,
        None => header_of(original, is_global),
    };
    let text = words::failure(head, original, about, &returned);
    Some(dsn(head, original, to, about, &Kind::Failure, [text_part(text), returned]))
}

/// The notice that mail is late; it will be tried until `expires_at`.
///
/// `None` when the mail had a null reverse-path.
pub fn delay(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    expires_at: Timestamp,
) -> Option<Notice> {
    let to = original.envelope.reverse_path.address()?;
    let returned = header_of(original, is_global(about));
    let text = words::delay(head, original, about, expires_at, &returned);
    let kind = Kind::Delay { expires_at };
    Some(dsn(head, original, to, about, &kind, [text_part(text), returned]))
}

/// The DSN about recipients that were handed to a next hop which does not tell of deliveries
/// (RFC 3461 §5.2.2).
///
/// `None` when the mail had a null reverse-path.
pub fn relayed(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
) -> Option<Notice> {
    let to = original.envelope.reverse_path.address()?;
    let returned = header_of(original, is_global(about));
    let text = words::relayed(head, original, about, &returned);
    Some(dsn(head, original, to, about, &Kind::Relayed, [text_part(text), returned]))
}

/// What a DSN says happened.
#[derive(Debug)]
pub(super) enum Kind {
    /// It is given up.
    Failure,
    /// It is late.
    Delay {
        /// When it will be given up.
        expires_at: Timestamp,
    },
    /// It is with a next hop that does not tell of deliveries.
    Relayed,
}

fn dsn(
    head: &Letterhead<'_>,
    original: &Submission,
    to: &Address,
    about: &[AboutRecipient<'_>],
    kind: &Kind,
    [text, returned]: [Part; 2],
) -> Notice {
    let Letterhead { hostname, queue_id, now, random, mark } = *head;
    let is_global = is_global(about);
    let status = Part {
        content_type: if is_global {
            "message/global-delivery-status"
        } else {
            "message/delivery-status"
        },
        description: "The same for programs",
        content: fields::delivery_status(head, original, about, kind, is_global).into_bytes(),
        coding: Coding::Any,
    };
    let seed = format!("{queue_id}.{random:016x}");
    let (boundary, body) = multipart(vec![text, status, returned], &seed);
    let message_id = MessageId::generate(queue_id, random, hostname);
    let subject = subject(original, kind);
    let date = now.rfc5322();
    let mut octets = from_field(hostname);
    octets += &field("To", to.as_str());
    octets += &field("Subject", &subject);
    octets += &format!("Date: {date}\r\nMessage-ID: {message_id}\r\n");
    octets += &format!("In-Reply-To: {0}\r\nReferences: {0}\r\n", original.message_id);
    octets += AUTO_SUBMITTED;
    octets += &format!("X-Rebound-Id: {queue_id}\r\nX-Rebound-Notice: {mark}\r\n");
    octets +=
        "MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n";
    octets += &format!("\tboundary=\"{boundary}\"\r\n");
    // RFC 2045 §6.4: what holds 8-bit parts is 8-bit.
    octets += if body.is_ascii() { "" } else { "Content-Transfer-Encoding: 8bit\r\n" };
    let header_len = octets.len();
    octets += "\r\n";
    octets += "This is a delivery report in MIME format (RFC 3464).\r\n\r\n";
    let mut octets = octets.into_bytes();
    octets.extend_from_slice(&body);
    let submission = submission(head, &original.account, message_id, to, &octets, header_len);
    (submission, octets)
}

/// Whether an address cannot be written in ASCII, which takes the global types (RFC 6533 §4).
fn is_global(about: &[AboutRecipient<'_>]) -> bool {
    let is_ascii = |one: &AboutRecipient<'_>| {
        let original = one.recipient.dsn.original_recipient.as_ref();
        let original_is_ascii = original.is_none_or(|original| original.address().is_ascii());
        one.recipient.address.is_ascii() && original_is_ascii
    };
    !about.iter().all(is_ascii)
}

fn text_part(text: String) -> Part {
    Part {
        content_type: "text/plain; charset=utf-8",
        description: "What happened",
        content: text.into_bytes(),
        coding: Coding::Any,
    }
}

/// All of the mail as a part; `None` when it has lines that no part may have as they are.
fn whole_mail(octets: &[u8], is_global: bool) -> Option<Part> {
    let content = lines(octets);
    let is_global = is_global || !header::split(&content).0.is_ascii();
    // RFC 2046 §5.2.1: a message/rfc822 is not encoded; RFC 6532 §3.5: a message/global may be.
    let (content_type, coding) = match is_global {
        true => ("message/global", Coding::Any),
        false if fits_lines(&content) => ("message/rfc822", Coding::AsItIs),
        false => return None,
    };
    Some(Part { content_type, description: "The mail", content, coding })
}

/// The header of the mail as a part, cut at the end of a line where it is too long.
fn header_of(original: &Submission, is_global: bool) -> Part {
    let content = lines(original.header.get(..HEADER_RETURNED_BYTES_MAX).map_or(
        original.header.as_slice(),
        |start| {
            let end = start.iter().rposition(|b| *b == b'\n').map_or(0, |at| at.saturating_add(1));
            start.get(..end).unwrap_or_default()
        },
    ));
    let content_type = if content.is_ascii() && !is_global {
        "text/rfc822-headers"
    } else {
        "message/global-headers"
    };
    Part { content_type, description: "The header of the mail", content, coding: Coding::Any }
}

fn subject(original: &Submission, kind: &Kind) -> String {
    let what = match kind {
        Kind::Failure => "Undelivered",
        Kind::Delay { .. } => "Delayed",
        Kind::Relayed => "Relayed",
    };
    let about = header::find(&original.header, "Subject").map(|field| field.text());
    // Encoded words (RFC 2047) stand in our field as they stood in the app's.
    let fits =
        |text: &String| !text.is_empty() && text.is_ascii() && text.len() <= SUBJECT_BYTES_MAX;
    match about.filter(fits) {
        Some(about) => format!("{what}: {about}"),
        None => format!("{what}: your mail of {}", original.received_at.rfc5322()),
    }
}

/// Octets of the original header that are returned.
const HEADER_RETURNED_BYTES_MAX: usize = 65_536;
/// Octets of the original subject that are repeated in ours.
const SUBJECT_BYTES_MAX: usize = 400;
