//! The part of a DSN that programs read (RFC 3464 §2, RFC 6533 §4.1).

use super::dsn::Kind;
use super::mime::field;
use super::{AboutRecipient, Letterhead};
use crate::mail::address::is_domain;
use crate::mail::{EnhancedStatus, Stage};
use crate::store::LiveRecipient;
use crate::store::record::{Attempt, Submission};
use crate::store::state::State;

/// `message/delivery-status`: the fields about the mail, then a block per recipient
/// (RFC 3464 §2.1).
pub(super) fn delivery_status(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    kind: &Kind,
    is_global: bool,
) -> String {
    let mut out = String::new();
    if let Some(id) = &original.envelope.dsn.envelope_id {
        out += &field("Original-Envelope-Id", &id.text());
    }
    // RFC 3464 §2.2.2, §2.2.5.
    out += &field("Reporting-MTA", &format!("dns; {}", head.hostname));
    out += &field("X-Rebound-Queue-ID", &original.queue_id.to_string());
    out += &field("X-Rebound-Message-ID", &ascii(&original.message_id.to_string(), is_global));
    out += &field("Arrival-Date", &original.received_at.rfc5322());
    for one in about {
        let address = &one.recipient.address;
        // RFC 6533 §3.
        let kind_of_address = if address.is_ascii() { "rfc822" } else { "utf-8" };
        let last = one.recipient.last.as_ref();
        out += "\r\n";
        // RFC 3461 §6.3: where ORCPT gave nothing this field must not appear.
        if let Some(original) = &one.recipient.dsn.original_recipient {
            let kind = original.kind();
            let address = if is_global { original.address() } else { original.address_in_ascii() };
            out += &field("Original-Recipient", &format!("{kind}; {address}"));
        }
        out += &field("Final-Recipient", &format!("{kind_of_address}; {address}"));
        out += &field("Action", action(kind));
        out += &field("Status", &status(one.recipient, kind).to_string());
        if let Some(name) = last.and_then(|last| mta_name(last)) {
            out += &field("Remote-MTA", &format!("dns; {name}"));
        }
        if let Some(diagnostic) = last.and_then(diagnostic) {
            out += &field("Diagnostic-Code", &ascii(&diagnostic, is_global));
        }
        if let Some(last) = last {
            out += &field("Last-Attempt-Date", &last.ended_at.rfc5322());
        }
        if let Kind::Delay { expires_at } = kind {
            out += &field("Will-Retry-Until", &expires_at.rfc5322());
        }
    }
    out
}

/// RFC 3464 §2.3.3.
fn action(kind: &Kind) -> &'static str {
    match kind {
        Kind::Failure => "failed",
        Kind::Delay { .. } => "delayed",
        Kind::Relayed => "relayed",
    }
}

/// RFC 3464 §2.3.4, with the codes of RFC 3463 §3 where the other side gave none.
pub(super) fn status(recipient: &LiveRecipient, kind: &Kind) -> EnhancedStatus {
    let last = recipient.last.as_ref();
    let class = match kind {
        Kind::Relayed => 2,
        Kind::Failure if recipient.state != State::Expired => 5,
        // A delivery that was given up by its age keeps its transient status.
        _ => 4,
    };
    let replied = last.and_then(|last| last.reply.as_ref()).map(|reply| reply.status_or_class());
    if let Some(status) = replied.filter(|status| status.class == class && !status.is_generic()) {
        return status;
    }
    match (class, last.map(|last| (last.stage, last.reply.is_some()))) {
        (2 | 5, _) => EnhancedStatus::new(class, 0, 0),
        (_, Some((Stage::Connect, false))) => EnhancedStatus::new(4, 4, 1),
        (_, Some((Stage::Tls, false))) => EnhancedStatus::new(4, 7, 5),
        (_, Some((_, false))) => EnhancedStatus::new(4, 4, 2),
        _ if recipient.state == State::Expired => EnhancedStatus::new(4, 4, 7),
        _ => EnhancedStatus::new(4, 0, 0),
    }
}

/// RFC 3464 §2.3.6.
fn diagnostic(last: &Attempt) -> Option<String> {
    let text = match (&last.reply, &last.error) {
        (Some(reply), _) => format!("smtp; {reply}"),
        (None, Some(error)) => format!("x-rebound; {error}"),
        (None, None) => return None,
    };
    Some(text.chars().take(DIAGNOSTIC_CHARS_MAX).collect())
}

/// The name in `name[ip]:port` (RFC 3464 §2.3.5).
fn mta_name(last: &Attempt) -> Option<&str> {
    let text = last.remote_mta.as_deref()?;
    let name = text.split(['[', ':']).next()?;
    is_domain(name).then_some(name)
}

/// The text as a `message/delivery-status` part may hold it (RFC 3464 §2.1).
fn ascii(text: &str, is_global: bool) -> String {
    text.chars().map(|c| if c.is_ascii() || is_global { c } else { '?' }).collect()
}

/// Characters of the other side's words in `Diagnostic-Code`.
const DIAGNOSTIC_CHARS_MAX: usize = 2048;
