//! Events as JSON: what webhooks push and `/v1/events` lists.
//!
//! The names and the fields of `data` are EmailEngine's where it has them.

use serde_json::{Map, Value};

use super::{bounce, message_headers, meta, put, report_summary, returned_headers, shown};
use crate::bounce::{Action, Facts, Verdict};
use crate::mail::{QueueId, Timestamp, header};
use crate::store::record::{Attempt, Decision, Origin, Submission};
use crate::store::{Event, Happened, MessageRecord, ReportRecord};

/// The names of all events.
pub const EVENT_NAMES: [&str; 8] = [
    "messageSent",
    "messageDeliveryError",
    "messageFailed",
    "messageBounce",
    "messageComplaint",
    "deliveryReport",
    "autoReply",
    "bounceUnmatched",
];

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
    })
}

/// What is told of an event; `None` where nobody is told anything: of our own notices, and of
/// a recipient that is given up while others are not (its bounce says so).
pub(super) fn event(event: &Event, subject: Subject<'_>) -> Option<Told> {
    let mail = subject.message.map(|message| &message.submission);
    if mail.is_some_and(|mail| mail.origin == Origin::Notice) {
        return None;
    }
    let name = event_name(&event.what)?;
    let (date, data) = match &event.what {
        Happened::Attempt(attempt) => (attempt.ended_at, of_attempt(attempt, subject.message?)?),
        Happened::Bounce(one) => {
            (one.date, bounce(one, Some(mail?), Some(&message_headers(mail?))))
        }
        Happened::Report(captured) => {
            let (record, facts) = subject.report?;
            let data = match name {
                "messageComplaint" => complaint(record, facts, mail),
                "autoReply" => auto_reply(record, facts, mail),
                _ => unmatched(record, facts),
            };
            (captured.captured_at, data)
        }
    };
    Some(Told {
        place: event.place,
        event: name,
        queue_id: mail.map(|mail| mail.queue_id),
        account: mail.map(|mail| mail.account.clone()),
        date,
        data,
        mail: mail.map(submitted),
    })
}

impl Told {
    /// Names it, the same whenever it is told: when it happened, and its place.
    pub fn id(&self) -> String {
        format!("{:012x}{:08x}", self.date.as_millis(), self.place)
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
    format!("{:012x}{place:08x}", 0)
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
    let has_failed = matches!(attempt.decision, Decision::Failed | Decision::Expired);
    if has_failed && !ends_in_failure(attempt, message) {
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

/// Whether this attempt gave up the last recipient of a mail that nobody got.
fn ends_in_failure(attempt: &Attempt, message: &MessageRecord) -> bool {
    let gave_up = |one: &Attempt| matches!(one.decision, Decision::Failed | Decision::Expired);
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
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use serde_json::json;

    use super::super::testing::{NOW, queue_id, record, reported, tried};
    use super::*;
    use crate::bounce;
    use crate::mail::QueueId;
    use crate::store::record::{Bounce, CapturedBy, ReportCaptured, ReportId, ReportReceived};

    fn told(what: Happened, message: &MessageRecord) -> Option<Told> {
        let subject = Subject { message: Some(message), report: None };
        event(&Event { place: 1, what }, subject)
    }

    fn told_of_attempt(attempt: &Attempt, message: &MessageRecord) -> Option<Told> {
        told(Happened::Attempt(Arc::new(attempt.clone())), message)
    }

    #[test]
    fn a_mail_that_was_sent_is_told_as_emailengine_does() {
        let attempt = Attempt {
            remote_queue_id: Some("4RWX".to_owned()),
            ..tried(0, 1, "250 2.0.0 Ok: queued as 4RWX", Decision::Relayed)
        };
        let message = record(vec![attempt.clone()], vec![]);
        let told = told_of_attempt(&attempt, &message).unwrap();
        assert_eq!(
            told.body(Some("https://relay.example")).to_string(),
            json!({
                "serviceUrl": "https://relay.example",
                "account": "ekiri",
                "date": "2022-10-12T12:10:40.980Z",
                "event": "messageSent",
                "data": {
                    "messageId": "<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>",
                    "queueId": queue_id().to_string(),
                    "response": "250 2.0.0 Ok: queued as 4RWX",
                    "status": "2.0.0",
                    "recipient": "unknown@ethereal.email",
                    "envelope": { "from": "andris@ekiri.ee", "to": ["unknown@ethereal.email"] },
                    "mta": "mx.ethereal.email[192.0.2.1]:25",
                    "remoteQueueId": "4RWX"
                }
            })
            .to_string()
        );
    }

    #[test]
    fn an_attempt_that_failed_for_now_says_when_the_next_one_is() {
        let retry = Decision::RetryAt(NOW.plus(Duration::from_secs(120)));
        let refused = tried(1, 3, "450 4.2.0 later", retry);
        let broken = Attempt {
            reply: None,
            error: Some("connection refused".to_owned()),
            ..refused.clone()
        };
        let message = record(vec![refused.clone()], vec![]);
        let data = told_of_attempt(&refused, &message).unwrap();
        assert_eq!(data.event, "messageDeliveryError");
        assert_eq!(data.data["error"], "450 4.2.0 later");
        assert_eq!(data.data["smtpResponseCode"], 450);
        let job = json!({ "attemptsMade": 3, "nextAttempt": "2022-10-12T12:12:40.980Z" });
        assert_eq!(data.data["job"], job);
        let data = told_of_attempt(&broken, &message).unwrap().data;
        assert_eq!(data["error"], "connection refused");
        assert!(data.get("smtpResponse").is_none() && data.get("response").is_none(), "{data}");
    }

    #[test]
    fn a_mail_fails_once_with_the_last_recipient_that_is_given_up() {
        let first = tried(0, 1, "550 5.1.1 no", Decision::Failed);
        let retried = tried(1, 1, "450 4.2.0 later", Decision::RetryAt(NOW));
        let last = tried(1, 2, "452 4.2.2 full", Decision::Expired);
        let sent = tried(1, 2, "250 2.0.0 ok", Decision::Relayed);
        // Whenever it is asked for, before or behind what came later.
        for known in [2, 3] {
            let mut attempts = vec![first.clone(), retried.clone(), last.clone()];
            attempts.truncate(known);
            let message = record(attempts, vec![]);
            assert_eq!(told_of_attempt(&first, &message), None, "{known}");
        }
        let message = record(vec![first.clone(), retried.clone(), last.clone()], vec![]);
        let told = told_of_attempt(&last, &message).unwrap();
        assert_eq!((told.event, &told.data["error"]), ("messageFailed", &json!("452 4.2.2 full")));
        let message = record(vec![first.clone(), retried, sent], vec![]);
        assert_eq!(told_of_attempt(&first, &message), None);
    }

    #[test]
    fn a_bounce_is_told_like_the_articles_and_news_are_no_bounce() {
        let message = record(vec![], vec![]);
        let mut bounced = reported();
        let told_of = |one: &Bounce| told(Happened::Bounce(Arc::new(one.clone())), &message);
        let body = told_of(&bounced).unwrap().body(None);
        assert_eq!(body["event"], "messageBounce");
        assert_eq!(body["date"], "2022-10-12T12:10:40.980Z");
        assert!(body.get("serviceUrl").is_none());
        assert_eq!(body["data"]["recipient"], "unknown@ethereal.email");
        assert_eq!(body["data"]["response"]["message"], "550 No such user here");
        assert_eq!(body["data"]["messageHeaders"]["subject"], json!(["Test message"]));
        for action in [Action::Delayed, Action::Delivered, Action::Relayed, Action::Expanded] {
            bounced.action = action;
            assert_eq!(told_of(&bounced).unwrap().event, "deliveryReport");
        }
    }

    #[test]
    fn nobody_is_told_of_our_own_notices() {
        let attempt = tried(0, 1, "250 2.0.0 ok", Decision::Relayed);
        let mut message = record(vec![attempt.clone()], vec![]);
        message.submission.origin = Origin::Notice;
        assert_eq!(told_of_attempt(&attempt, &message), None);
        assert_eq!(told(Happened::Bounce(Arc::new(reported())), &message), None);
    }

    /// What is told of a report with this text, tied to the mail or to nothing.
    fn told_of_report(raw: &str, message: Option<&MessageRecord>) -> Option<Told> {
        let facts = bounce::read(raw.as_bytes());
        let id = ReportId(QueueId::new(NOW, 7));
        let received = ReportReceived {
            id,
            received_at: NOW,
            captured_by: CapturedBy::Listener,
            reverse_path: String::new(),
            recipients: vec!["b@bounces.example".to_owned()],
            tokens: vec![],
            digest: [0; 16],
            raw: raw.as_bytes().to_vec(),
        };
        let captured = ReportCaptured {
            id,
            captured_at: NOW,
            verdict: facts.verdict,
            matched: message.iter().map(|message| message.submission.queue_id).collect(),
            own_notice: false,
            forward_to: None,
            reread: false,
        };
        let happened = Happened::Report(Arc::new(captured.clone()));
        let record = ReportRecord { received, captured: Some(captured) };
        let subject = Subject { message, report: Some((&record, &facts)) };
        event(&Event { place: 1, what: happened }, subject)
    }

    const BOUNCE: &str = "From: MAILER-DAEMON@mx.example\r\nSubject: failure notice\r\n\
        Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n\
        --b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
        Final-Recipient: rfc822; gone@example.com\r\nAction: failed\r\nStatus: 5.1.1\r\n\r\n\
        --b--\r\n";
    const COMPLAINT: &str = "From: fbl@isp.example\r\nSubject: complaint\r\n\
        Content-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n\
        --b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\n\
        User-Agent: x/1\r\nVersion: 1\r\nOriginal-Rcpt-To: a@example.com\r\n\r\n\
        --b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <one@app.example>\r\n\
        Subject: hello\r\n\r\nbody\r\n--b--\r\n";
    const VACATION: &str = "From: bob@example.com\r\nSubject: Out of office: hello\r\n\
        Auto-Submitted: auto-replied\r\n\r\nI am away.\r\n";

    #[test]
    fn reports_that_are_no_bounces_of_a_mail_are_told_by_what_they_are() {
        let message = record(vec![], vec![]);
        assert_eq!(told_of_report(BOUNCE, Some(&message)), None, "its bounces are told");
        let unmatched = told_of_report(BOUNCE, None).unwrap();
        assert_eq!((unmatched.event, unmatched.account), ("bounceUnmatched", None));
        assert_eq!(unmatched.data["recipients"][0]["recipient"], "gone@example.com");
        let complaint = told_of_report(COMPLAINT, Some(&message)).unwrap();
        assert_eq!(complaint.event, "messageComplaint");
        assert_eq!(complaint.account.as_deref(), Some("ekiri"));
        assert_eq!(complaint.data["arf"]["feedbackType"], "abuse");
        assert_eq!(complaint.data["recipient"], "a@example.com");
        let away = told_of_report(VACATION, Some(&message)).unwrap();
        assert_eq!(away.event, "autoReply");
        assert_eq!(away.data["from"], "bob@example.com");
        assert_eq!(away.data["relayQueueId"], queue_id().to_string());
        let person = "From: bob@example.com\r\nSubject: Re: hello\r\n\r\nThank you.\r\n";
        assert_eq!(told_of_report(person, Some(&message)), None);
    }
}
