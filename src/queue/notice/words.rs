//! What a notice says to a person.

use std::time::Duration;

use super::mime::{Part, paragraph};
use super::{AboutRecipient, Letterhead};
use crate::bounce::Category;
use crate::mail::{Stage, Timestamp, header};
use crate::store::record::{Attempt, Submission};
use crate::store::state::State;

/// The first part of a DSN about recipients that were given up.
pub(super) fn failure(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    returned: &Part,
) -> String {
    let mut text = opening(head);
    let whom = share(about.len(), original.envelope.recipients.len());
    text += &paragraph("", &format!("Your mail could not be delivered to {whom}."));
    text += &paragraph("", "It will not be tried again there.");
    text += &identity(original);
    for one in about {
        text += &format!("\r\n{}\r\n", header::sanitized(one.recipient.address.as_str()));
        text += &paragraph("  ", &ending(one, original.received_at));
        if let Some(last) = &one.recipient.last {
            text += &last_words(last);
        }
        if let Some(advice) = one.category.and_then(advice) {
            text += &paragraph("  ", advice);
        }
    }
    text += "\r\n";
    text += &paragraph("", AFTER_FAILURE);
    let others = original.envelope.recipients.len().saturating_sub(about.len());
    if others > 0 {
        text += &paragraph("", AFTER_FAILURE_OTHERS);
    }
    text += "\r\n";
    text += &attached(returned);
    text
}

/// The first part of a notice that mail is late.
pub(super) fn delay(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    expires_at: Timestamp,
    returned: &Part,
) -> String {
    let mut text = opening(head);
    let whom = share(about.len(), original.envelope.recipients.len());
    text += &paragraph("", &format!("Your mail has not been delivered yet to {whom}."));
    text += &paragraph("", DELAY_ONLY);
    text += &identity(original);
    for one in about {
        text += &format!("\r\n{}\r\n", header::sanitized(one.recipient.address.as_str()));
        let tried = times(one.recipient.attempts);
        let next = one.recipient.next_attempt.max(head.now).rfc5322();
        text += &paragraph("  ", &format!("Tried {tried} so far; the next attempt is due {next}."));
        if let Some(last) = &one.recipient.last {
            text += &last_words(last);
        }
    }
    let until = expires_at.rfc5322();
    text += "\r\n";
    text += &paragraph(
        "",
        &format!("Delivery is tried until {until}. If it fails for good you get another report."),
    );
    text += "\r\n";
    text += &attached(returned);
    text
}

/// The first part of a DSN about recipients whose next hop does not tell of deliveries.
pub(super) fn relayed(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    returned: &Part,
) -> String {
    let mut text = opening(head);
    let whom = share(about.len(), original.envelope.recipients.len());
    text += &paragraph("", &format!("Your mail was passed on for {whom}."));
    text += &paragraph("", RELAYED_ONLY);
    text += &identity(original);
    for one in about {
        text += &format!("\r\n{}\r\n", header::sanitized(one.recipient.address.as_str()));
        if let Some(last) = &one.recipient.last {
            text += &last_words(last);
        }
    }
    text += "\r\n";
    text += &attached(returned);
    text
}

/// `Refused by the other side` and the like, in one or two sentences.
fn ending(about: &AboutRecipient<'_>, since: Timestamp) -> String {
    let recipient = about.recipient;
    let meaning = about.category.and_then(meaning).unwrap_or_default();
    let tried = times(recipient.attempts.max(1));
    if recipient.state == State::Expired {
        let until = recipient.last.as_ref().map_or(since, |last| last.ended_at);
        let span = span(until.since(since));
        return format!("Given up: it was tried {tried} in {span} and did not succeed. {meaning}");
    }
    let refused = "The address was refused for good.";
    if meaning.is_empty() { refused.to_owned() } else { meaning.to_owned() }
}

/// What the other side said in the last attempt, or why there was no answer.
fn last_words(last: &Attempt) -> String {
    let mta = last.remote_mta.as_deref().unwrap_or("the next hop");
    let when = last.ended_at.rfc5322();
    match (&last.reply, &last.error) {
        (Some(reply), _) => {
            let asked = last.stage.command();
            let mut said = paragraph("  ", &format!("{mta} answered {asked} ({when}) with:"));
            let full: String = reply.to_string().chars().take(REPLY_CHARS_MAX).collect();
            said += &paragraph("    ", &full);
            said
        }
        (None, error) => {
            let doing = match last.stage {
                Stage::Connect => "connecting to",
                Stage::Tls => "securing the connection to",
                Stage::Auth => "logging in to",
                _ => "talking to",
            };
            let error = error.as_deref().unwrap_or("no answer");
            let error: String = error.chars().take(REPLY_CHARS_MAX).collect();
            let mut said = paragraph("  ", &format!("The last attempt ({when}), {doing} {mta}:"));
            said += &paragraph("    ", &error);
            said
        }
    }
}

/// What follows the text.
fn attached(returned: &Part) -> String {
    let is_header = returned.content_type.ends_with("-headers");
    paragraph("", if is_header { ATTACHED_HEADER } else { ATTACHED_MAIL })
}

/// Which mail it is about.
fn identity(original: &Submission) -> String {
    let mut text = "\r\n".to_owned();
    let subject = header::find(&original.header, "Subject").map(|field| field.text());
    // An encoded subject (RFC 2047) would not be read by a person; it stands in our own Subject.
    if let Some(subject) = subject.filter(|text| !text.is_empty() && !text.contains("=?")) {
        let subject: String = subject.chars().take(SUBJECT_CHARS_MAX).collect();
        text += &format!("  Subject:     {}\r\n", header::sanitized(&subject));
    }
    text += &format!("  Submitted:   {}\r\n", original.received_at.rfc5322());
    text += &format!("  Message-ID:  {}\r\n", original.message_id);
    text += &format!("  Queue id:    {}\r\n", original.queue_id);
    text
}

fn opening(head: &Letterhead<'_>) -> String {
    paragraph("", &format!("This is the mail system at {}.", head.hostname)) + "\r\n"
}

fn share(about: usize, all: usize) -> String {
    match (about, all) {
        (1, 0 | 1) => "its recipient".to_owned(),
        (about, all) if about >= all => format!("any of its {about} recipients"),
        (1, all) => format!("one of its {all} recipients"),
        (about, all) => format!("{about} of its {all} recipients"),
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        _ => format!("{count} times"),
    }
}

/// `5 days`, `4 hours`, `37 minutes`: the largest unit of which there are two, or one day.
fn span(length: Duration) -> String {
    let minutes = length.as_secs() / 60;
    let (count, unit) = match minutes {
        0..120 => (minutes.max(1), "minute"),
        120..2880 => (minutes / 60, "hour"),
        _ => (minutes / 1440, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural}")
}

/// What the category means for one recipient.
fn meaning(category: Category) -> Option<&'static str> {
    Some(match category {
        Category::UserUnknown => "There is no such mailbox at the recipient's domain.",
        Category::InvalidAddress => "The address cannot exist as it is written.",
        Category::MailboxDisabled => "The mailbox exists but is switched off.",
        Category::MailboxFull => "The recipient's mailbox is full.",
        Category::Greylisting => "The other side asked to wait, and went on asking.",
        Category::RateLimited => "The other side takes only so much mail at a time.",
        Category::ServerError => "The other side's server has a problem of its own.",
        Category::IpBlacklisted => "The sending server's address is on a block list.",
        Category::GeoBlocked => "The other side takes no mail from this part of the world.",
        Category::DomainBlacklisted => "A domain of the sender or in the mail is on a block list.",
        Category::AuthFailure => "The mail failed the other side's check of its sender.",
        Category::RelayDenied => "The server does not pass on mail from this sender.",
        Category::SpamBlocked => "The other side took the mail for spam.",
        Category::PolicyBlocked => "A rule of the other side forbids the mail.",
        Category::VirusDetected => "The other side took the mail for dangerous.",
        Category::DomainNotFound => "The recipient's domain does not exist or takes no mail.",
        Category::MessageTooLarge => "The mail is larger than the other side takes.",
        Category::ProtocolError => "The other side did not accept the form of the mail.",
        Category::LoopDetected => "The mail went in circles between servers.",
        Category::DeliveryExpired | Category::Unknown => return None,
    })
}

/// What a person can do about it.
fn advice(category: Category) -> Option<&'static str> {
    Some(match category {
        Category::UserUnknown | Category::InvalidAddress | Category::DomainNotFound => {
            "Check the spelling; if it is right, the address is gone and should not be used again."
        }
        Category::MailboxDisabled => "Ask the recipient for another address.",
        Category::MailboxFull => "Try again in a few days, or reach the recipient another way.",
        Category::Greylisting | Category::RateLimited | Category::ServerError => {
            "Sending it again later may succeed."
        }
        Category::IpBlacklisted | Category::GeoBlocked | Category::DomainBlacklisted => {
            "The address may well be right: whoever runs the sending server must have this lifted."
        }
        Category::AuthFailure | Category::RelayDenied | Category::ProtocolError => {
            "The address may well be right: whoever runs the sending side must correct its settings."
        }
        Category::SpamBlocked | Category::PolicyBlocked => {
            "The address may well be right: look at what the mail says and links to."
        }
        Category::VirusDetected => "Look at the attachments before sending anything again.",
        Category::MessageTooLarge => "Send it without its attachments, or send a link to them.",
        Category::LoopDetected => "A forwarding at the recipient's side points back at itself.",
        Category::DeliveryExpired | Category::Unknown => return None,
    })
}

const AFTER_FAILURE: &str = "To reach them after all, correct the cause and send the mail \
    again.";
const AFTER_FAILURE_OTHERS: &str = "This says nothing about the mail's other recipients.";
const DELAY_ONLY: &str = "This is only a warning: there is nothing to do, and the mail need not be \
    sent again.";
const RELAYED_ONLY: &str = "You asked to be told of its delivery, but the server that has it now \
    does not report deliveries: this is all that will be known of a success.";
const ATTACHED_MAIL: &str =
    "The same follows in a form for programs (RFC 3464), then the mail itself.";
const ATTACHED_HEADER: &str = "The same follows in a form for programs (RFC 3464), then the header of the \
    mail. Its text and attachments are not returned.";
/// Characters of the other side's words that are quoted.
const REPLY_CHARS_MAX: usize = 4096;
/// Characters of the subject that are quoted.
const SUBJECT_CHARS_MAX: usize = 200;
