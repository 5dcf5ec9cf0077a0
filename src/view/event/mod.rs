//! Events as JSON: what webhooks push and `/v1/events` lists.
//!
//! The names and the fields of `data` are EmailEngine's where it has them.

use serde_json::{Map, Value};

use super::recipient::{self, AttemptsAs};
use super::{bounce, message_headers, meta, put, report_summary, returned_headers, shown};
use crate::bounce::{Action, Facts, Verdict};
use crate::mail::{QueueId, Timestamp, header};
use crate::store::record::{Attempt, Decision, Origin, Submission};
use crate::store::{Event, Evidence, Happened, MessageRecord, ReportRecord};

/// What an event is about, as far as it is still known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subject<'a> {
    /// The mail.
    pub message: Option<&'a MessageRecord>,
    /// The report, and what was read from it.
    pub report: Option<(&'a ReportRecord, &'a Facts)>,
}

/// An event as it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Its place in the feed.
    pub place: u64,
    /// Its name, one of `EVENT_NAMES`.
    pub event: &'static str,
    /// The mail that it is about; events of one mail are told in order.
    pub queue_id: Option<QueueId>,
    /// Whose mail it is about; `None` where that is not known.
    pub account: Option<String>,
    /// When it happened.
    pub date: Timestamp,
    /// What happened.
    pub data: Value,
    /// The mail as it was taken over.
    mail: Option<Value>,
}

/// The name that an event has if it is told at all.
pub fn event_name(what: &Happened) -> Option<&'static str> {
    Some(match what {
        Happened::Attempt(attempt) => match attempt.decision {
            Decision::Relayed => "messageSent",
            Decision::RetryAt(_) => "messageDeliveryError",
            Decision::Failed | Decision::Expired => "messageFailed",
        },
        Happened::Bounce(bounce) => match bounce.action {
            Action::Failed => "messageBounce",
            Action::Delayed | Action::Delivered | Action::Relayed | Action::Expanded => {
                "deliveryReport"
            }
        },
        Happened::Report(captured) => match captured.verdict {
            _ if captured.own_notice => return None,
            Verdict::Complaint => "messageComplaint",
            Verdict::Autoreply => "autoReply",
            Verdict::Bounce | Verdict::Delayed | Verdict::Delivered if captured.is_unmatched() => {
                "bounceUnmatched"
            }
            _ => return None,
        },
        Happened::Closed(_) => "messageClosed",
        Happened::Canceled(_) | Happened::Suppressed(_) => return None,
    })
}

/// Names an event, the same whenever it is told.
pub fn event_id(event: &Event) -> String {
    id_at(happened_at(&event.what), event.place)
}

fn happened_at(what: &Happened) -> Timestamp {
    match what {
        Happened::Attempt(attempt) => attempt.ended_at,
        Happened::Bounce(bounce) => bounce.date,
        Happened::Report(captured) => captured.captured_at,
        Happened::Closed(closed) => closed.closed_at,
        Happened::Canceled(order) => order.at,
        Happened::Suppressed(submission) => submission.received_at,
    }
}

/// When it happened, and its place.
fn id_at(date: Timestamp, place: u64) -> String {
    format!("{:012x}{place:08x}", date.as_millis())
}

/// What is told of an event; `None` where nobody is told anything: of our own notices, and of
/// a recipient that is given up while others are not (its bounce says so).
pub(super) fn event(event: &Event, subject: Subject<'_>) -> Option<Told> {
    let mail = subject.message.map(|message| &message.submission);
    if mail.is_some_and(|mail| mail.origin == Origin::Notice) {
        return None;
    }
    let name = event_name(&event.what)?;
    let data = match &event.what {
        Happened::Attempt(attempt) => of_attempt(attempt, subject.message?)?,
        Happened::Bounce(one) => bounce(one, Some(mail?), Some(&message_headers(mail?))),
        Happened::Report(_) => {
            let (record, facts) = subject.report?;
            match name {
                "messageComplaint" => complaint(record, facts, mail),
                "autoReply" => auto_reply(record, facts, mail),
                _ => unmatched(record, facts),
            }
        }
        Happened::Closed(_) => closed(subject.message?),
        Happened::Canceled(_) | Happened::Suppressed(_) => return None,
    };
    Some(Told {
        place: event.place,
        event: name,
        queue_id: mail.map(|mail| mail.queue_id),
        account: mail.map(|mail| mail.account.clone()),
        date: happened_at(&event.what),
        data,
        mail: mail.map(submitted),
    })
}

impl Told {
    /// Names it, the same whenever it is told.
    pub fn id(&self) -> String {
        id_at(self.date, self.place)
    }

    /// What a test of a webhook tells: nothing has happened.
    pub fn test(date: Timestamp) -> Self {
        Self {
            place: 0,
            event: "test",
            queue_id: None,
            account: None,
            date,
            data: object! { "message": "This is a test of the webhook; nothing has happened.", },
            mail: None,
        }
    }

    /// The body of a webhook in EmailEngine's form.
    pub fn body(&self, service_url: Option<&str>) -> Value {
        object! {
            "serviceUrl": service_url,
            "account": &self.account,
            "date": self.date.rfc3339(),
            "event": self.event,
            "data": &self.data,
        }
    }

    /// An entry of `/v1/events`, which says what the mail was, too.
    pub fn entry(&self) -> Value {
        object! {
            "id": self.id(),
            "account": &self.account,
            "date": self.date.rfc3339(),
            "event": self.event,
            "message": &self.mail,
            "data": &self.data,
        }
    }
}

/// The cursor that leads on behind a place.
pub fn cursor(place: u64) -> String {
    id_at(Timestamp::default(), place)
}

/// The place that a cursor or the id of an event stands for.
pub fn place_of(id: &str) -> Option<u64> {
    let (_date, place) = id.split_at_checked(12)?;
    let is_hexadecimal = id.bytes().all(|octet| octet.is_ascii_hexdigit());
    u64::from_str_radix(place, 16).ok().filter(|_place| is_hexadecimal)
}

fn submitted(mail: &Submission) -> Value {
    let recipients = mail.envelope.recipients.iter();
    object! {
        "queueId": mail.queue_id,
        "messageId": shown(&mail.message_id),
        "date": mail.received_at.rfc3339(),
        "from": mail.envelope.reverse_path.to_string(),
        "recipients": recipients.map(|to| to.address.as_str()).collect::<Vec<_>>(),
        "subject": header::find(&mail.header, "Subject").map(|field| field.text()),
        "size": mail.size_bytes,
        "meta": meta(mail),
    }
}

fn of_attempt(attempt: &Attempt, message: &MessageRecord) -> Option<Value> {
    let mail = &message.submission;
    let index = usize::try_from(attempt.recipient).ok()?;
    let recipient = mail.envelope.recipients.get(index)?.address.as_str();
    if gave_up(attempt) && !ends_in_failure(attempt, message) {
        return None;
    }
    let is_error = attempt.decision != Decision::Relayed;
    let reply = attempt.reply.as_ref();
    let said = reply.map(ToString::to_string).or_else(|| attempt.error.clone());
    let next_attempt = match attempt.decision {
        Decision::RetryAt(time) => Some(time.rfc3339()),
        _ => None,
    };
    let job = object! {
        "attemptsMade": attempt.number,
        "nextAttempt": next_attempt,
    };
    Some(object! {
        "messageId": shown(&mail.message_id),
        "queueId": mail.queue_id,
        "response": said.as_ref().filter(|_said| !is_error),
        "error": said.as_ref().filter(|_said| is_error),
        "smtpResponse": reply.filter(|_reply| is_error).map(ToString::to_string),
        "smtpResponseCode": reply.filter(|_reply| is_error).map(|reply| reply.code),
        "status": reply.and_then(|reply| reply.status),
        "recipient": recipient,
        "envelope": envelope(mail, recipient),
        "mta": &attempt.remote_mta,
        "remoteQueueId": &attempt.remote_queue_id,
        "job": Some(job).filter(|_job| is_error),
        "meta": meta(mail),
    })
}

/// Whether a mail was given up for all of its recipients; that is told once, of the last.
pub fn has_failed(message: &MessageRecord) -> bool {
    let last = message.attempts.iter().rfind(|one| gave_up(one));
    last.is_some_and(|last| ends_in_failure(last, message))
}

fn gave_up(attempt: &Attempt) -> bool {
    matches!(attempt.decision, Decision::Failed | Decision::Expired)
}

/// Whether this attempt gave up the last recipient of a mail that nobody got.
fn ends_in_failure(attempt: &Attempt, message: &MessageRecord) -> bool {
    let is_this =
        |one: &Attempt| (one.recipient, one.number) == (attempt.recipient, attempt.number);
    // What came later does not count, so that the answer is the same whenever it is asked for.
    let Some(until) = message.attempts.iter().position(is_this) else { return false };
    let known = || message.attempts.iter().take(until.saturating_add(1));
    let recipients = (0_u32..).zip(&message.submission.envelope.recipients);
    recipients
        .map(|(index, _)| index)
        .all(|index| known().any(|one| one.recipient == index && gave_up(one)))
}

fn closed(message: &MessageRecord) -> Value {
    let mail = &message.submission;
    let recipients = Evidence::by_recipient(message);
    let recipients = recipients.iter().map(|one| recipient::shown(one, AttemptsAs::Count));
    object! {
        "messageId": shown(&mail.message_id),
        "queueId": mail.queue_id,
        "recipients": recipients.collect::<Vec<Value>>(),
        "meta": meta(mail),
    }
}

fn complaint(record: &ReportRecord, facts: &Facts, mail: Option<&Submission>) -> Value {
    let recipient = facts.report.recipients.first();
    let arf = object! {
        "source": &facts.report.reporting_mta,
        "feedbackType": &facts.report.feedback_type,
        "originalRcptTo": recipient.map(|said| [&said.final_recipient]),
        "arrivalDate": facts.report.arrival_date.map(Timestamp::rfc3339),
    };
    object! {
        "complaintMessage": record.received.id,
        "arf": arf,
        "recipient": recipient.map(|said| &said.final_recipient),
        "messageId": id_of(facts, mail),
        "relayQueueId": mail.map(|mail| mail.queue_id),
        "headers": mail.map(message_headers).or_else(|| returned_headers(facts)),
        "capturedBy": record.received.captured_by,
        "meta": mail.and_then(meta),
    }
}

fn auto_reply(record: &ReportRecord, facts: &Facts, mail: Option<&Submission>) -> Value {
    object! {
        "message": record.received.id,
        "from": own_field(record, "From"),
        "subject": own_field(record, "Subject"),
        "messageId": id_of(facts, mail),
        "relayQueueId": mail.map(|mail| mail.queue_id),
        "capturedBy": record.received.captured_by,
        "meta": mail.and_then(meta),
    }
}

/// A field of the report's own header.
fn own_field(record: &ReportRecord, name: &str) -> Option<String> {
    let (own_header, _) = header::split(&record.received.raw);
    header::find(own_header, name).map(|field| field.text())
}

fn unmatched(record: &ReportRecord, facts: &Facts) -> Value {
    let recipients: Vec<Value> = facts
        .report
        .recipients
        .iter()
        .map(|said| {
            object! {
                "recipient": &said.final_recipient,
                "action": said.action,
                "status": said.status,
                "message": said.diagnostic.as_ref().map(|diagnostic| &diagnostic.text),
            }
        })
        .collect();
    let mut data = report_summary(record);
    if let Value::Object(map) = &mut data {
        put(map, "bounceMessage", record.received.id);
        put(map, "recipients", recipients);
        put(map, "messageId", facts.original.message_id.as_ref().map(shown));
        put(map, "messageHeaders", returned_headers(facts));
    }
    data
}

fn id_of(facts: &Facts, mail: Option<&Submission>) -> Option<String> {
    mail.map(|mail| &mail.message_id).or(facts.original.message_id.as_ref()).map(shown)
}

fn envelope(mail: &Submission, recipient: &str) -> Value {
    object! {
        "from": mail.envelope.reverse_path.to_string(),
        "to": [recipient],
    }
}

#[cfg(test)]
mod tests;
