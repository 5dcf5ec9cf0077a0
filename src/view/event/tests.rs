//! What is told of every kind of event.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::bounce;
use crate::mail::EVENT_NAMES;
use crate::mail::QueueId;
use crate::store::record::{Bounce, CapturedBy, Closed, ReportCaptured, ReportId, ReportReceived};
use crate::view::testing::{NOW, queue_id, record, reported, tried};

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
    let broken =
        Attempt { reply: None, error: Some("connection refused".to_owned()), ..refused.clone() };
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
    assert!(has_failed(&message));
    let message = record(vec![first.clone(), retried, sent], vec![]);
    assert_eq!(told_of_attempt(&first, &message), None);
    assert!(!has_failed(&message));
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
        bounced_accounts: Default::default(),
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

/// One of each event, about the article's mail.
fn one_of_each() -> Vec<Told> {
    let sent = tried(0, 1, "250 2.0.0 Ok: queued as 4RWX", Decision::Relayed);
    let sent = Attempt { remote_queue_id: Some("4RWX".to_owned()), ..sent };
    let retry = Decision::RetryAt(NOW.plus(Duration::from_secs(120)));
    let deferred = tried(1, 1, "450 4.2.0 later", retry);
    let first = tried(0, 1, "550 5.1.1 no", Decision::Failed);
    let last = tried(1, 2, "452 4.2.2 full", Decision::Expired);
    let failed = record(vec![first, last.clone()], vec![]);
    let mut mail = record(vec![sent.clone(), last.clone()], vec![reported()]);
    mail.submission.meta = [("order".to_owned(), "17".to_owned())].into();
    let delivered = Bounce { action: Action::Delivered, ..reported() };
    let closed = Closed { queue_id: queue_id(), closed_at: NOW };
    let told_of = |what, mail: &MessageRecord| told(what, mail).unwrap();
    vec![
        told_of(Happened::Attempt(Arc::new(sent)), &mail),
        told_of(Happened::Attempt(Arc::new(deferred)), &mail),
        told_of(Happened::Attempt(Arc::new(last)), &failed),
        told_of(Happened::Bounce(Arc::new(reported())), &mail),
        told_of_report(COMPLAINT, Some(&mail)).unwrap(),
        told_of(Happened::Bounce(Arc::new(delivered)), &mail),
        told_of_report(VACATION, Some(&mail)).unwrap(),
        told_of(Happened::Closed(Arc::new(closed)), &mail),
        told_of_report(BOUNCE, None).unwrap(),
    ]
}

#[test]
fn every_event_has_the_fields_that_are_promised_in_both_forms() {
    let told = one_of_each();
    let names: Vec<&str> = told.iter().map(|one| one.event).collect();
    assert_eq!(names, EVENT_NAMES);
    let url = Some("https://emailengine.srv.dev");
    let forms = |one: &Told| json!({ "emailengine": one.body(url), "events": one.entry() });
    let shown = Value::from(told.iter().map(forms).collect::<Vec<Value>>());
    let shown = format!("{shown:#}\n");
    let want = include_str!("golden.json");
    assert_eq!(shown, want, "as it is now:\n{shown}");
}

#[test]
fn the_articles_webhook_is_told_field_by_field() {
    let article = json!({
        "serviceUrl": "https://emailengine.srv.dev",
        "account": "ekiri",
        "date": "2022-10-12T12:10:40.980Z",
        "event": "messageBounce",
        "data": {
            "recipient": "unknown@ethereal.email",
            "action": "failed",
            "response": {
                "source": "smtp",
                "message": "550 No such user here",
                "status": "5.0.0"
            },
            "mta": "mx.ethereal.email",
            "queueId": "B7D3F8220C",
            "messageId": "<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>",
            "messageHeaders": {
                "return-path": ["<andris@ekiri.ee>"],
                "content-type": ["text/plain; charset=utf-8"],
                "from": ["Andris Ekiri <andris@ekiri.ee>"],
                "to": ["unknown@ethereal.email"],
                "subject": ["Test message"],
                "message-id": ["<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>"],
                "content-transfer-encoding": ["7bit"],
                "date": ["Wed, 12 Oct 2022 12:10:34 +0000"],
                "mime-version": ["1.0"]
            }
        }
    });
    let bounce = Happened::Bounce(Arc::new(reported()));
    let ours = told(bounce, &record(vec![], vec![])).unwrap();
    let ours = ours.body(Some("https://emailengine.srv.dev"));
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&ours), keys(&article));
    assert!(ours["data"]["bounceMessage"].is_string(), "its value is ours");
    assert_has(&ours, &article, "");
}

/// Every field of the article is there, with its value; ours may be more.
fn assert_has(ours: &Value, article: &Value, at: &str) {
    match article {
        Value::Object(fields) => {
            for (key, value) in fields {
                assert_has(&ours[key], value, &format!("{at}/{key}"));
            }
        }
        value => assert_eq!(ours, value, "{at}"),
    }
}
