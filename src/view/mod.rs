//! The JSON promised to users: what look-ups answer.
//!
//! Pure but for `tell`, which looks up what an event is about: records in, JSON out. Names, types and order are EmailEngine's where it has them.
//! **Invariant:** what is not known is absent, never null, and a key never changes its type.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::bounce::{Action, Facts};
use crate::mail::dsn::EnvelopeId;
use crate::mail::{MailDsn, MessageId, Timestamp, header};
use crate::store::record::{Bounce, Submission};
use crate::store::state::State;
use crate::store::{Evidence, MessageRecord};
pub use event::{Told, cursor, event_id, event_name, has_failed, place_of};
pub use listed::{listed, listed_report, listed_whole, text};
pub use mailbox::mailbox;
pub use outbox::{canceled, outbox_entry, submitted};
use recipient::AttemptsAs;
pub use report::{report, report_summary};
pub use suppression::{SUPPRESSION_COLUMNS, suppression, suppression_cells};
pub use tell::Teller;
pub use webhook::{
    MailTold, WaitingDelivery, WebhookStatus, delivery_id, webhook, webhook_deliveries,
};

/// When a quiet mail is closed.
#[derive(Clone, Copy, Debug)]
pub struct Closing {
    /// The time now.
    pub now: Timestamp,
    /// How long after the last news a mail may still bounce (`bounces.window`).
    pub window: Duration,
}

/// Builds an object; what serializes to null is left out.
macro_rules! object {
    ($($key:literal: $value:expr,)*) => {{
        let mut map = Map::new();
        $(put(&mut map, $key, $value);)*
        Value::Object(map)
    }};
}

// After the macro, which they use.
mod event;
mod listed;
mod mailbox;
mod outbox;
mod recipient;
mod report;
mod suppression;
mod tell;
#[cfg(test)]
mod testing;
mod webhook;

/// A bounce or delivery news.
///
/// `submission` is the mail it was tied to, `headers` the value of `messageHeaders`: from
/// `message_headers` of the submission, else from `returned_headers` of the report.
pub fn bounce(bounce: &Bounce, submission: Option<&Submission>, headers: Option<&Value>) -> Value {
    let message_id = submission.map(|submission| &submission.message_id);
    object! {
        "bounceMessage": bounce.report_id,
        "recipient": &bounce.recipient,
        "action": bounce.action,
        "response": response(bounce),
        "mta": &bounce.mta,
        "queueId": &bounce.remote_queue_id,
        "messageId": message_id.or(bounce.original_message_id.as_ref()).map(shown),
        "messageHeaders": headers,
        "id": &bounce.id,
        "date": bounce.date.rfc3339(),
        "capturedBy": bounce.captured_by,
        "match": bounce.matched,
        "originalMessageId": bounce.original_message_id.as_ref().map(shown),
        "envelopeId": &bounce.envelope_id,
        "finalRecipient": &bounce.final_recipient,
        "originalRecipient": &bounce.original_recipient,
        "relayQueueId": bounce.queue_id,
        "meta": submission.and_then(meta),
    }
}

/// The look-up of one Message-ID: the newest submission, and all of them under `submissions`
/// where there are several; `aliasOf` where the id that was asked for is an alias of the mail's.
/// `None` without any.
pub fn lookup(records: &[MessageRecord], by_alias: bool, closing: Closing) -> Option<Value> {
    let (newest, others) = records.split_first()?;
    let mut answer = submission(newest, closing);
    if let Value::Object(map) = &mut answer {
        put(map, "aliasOf", alias_of(newest, by_alias));
        if !others.is_empty() {
            let all = records.iter().map(|record| submission(record, closing)).collect::<Vec<_>>();
            put(map, "submissions", all);
        }
    }
    Some(answer)
}

/// One submission with its recipients and bounces.
pub fn submission(record: &MessageRecord, closing: Closing) -> Value {
    let by_recipient = Evidence::by_recipient(record);
    let recipients: Vec<Value> =
        by_recipient.iter().map(|one| recipient::shown(one, AttemptsAs::Count)).collect();
    object! {
        "messageId": shown(&record.submission.message_id),
        "queueId": record.submission.queue_id,
        "account": &record.submission.account,
        "date": record.submission.received_at.rfc3339(),
        "closed": are_closed(&by_recipient, closing),
        "recipients": recipients,
        "bounces": bounces(record, Bounce::is_failure),
        "aliases": aliases(record),
        "meta": meta(&record.submission),
    }
}

/// Everything that is known of one submission: every attempt, bounce, delivery news and report
/// (each as `report_summary` shows it), and what webhooks were told, for those who may see that.
pub fn timeline(
    record: &MessageRecord,
    by_alias: bool,
    reports: Vec<Value>,
    told: Option<&MailTold>,
    closing: Closing,
) -> Value {
    let mail = &record.submission;
    let by_recipient = Evidence::by_recipient(record);
    let recipients: Vec<Value> =
        by_recipient.iter().map(|one| recipient::shown(one, AttemptsAs::List)).collect();
    object! {
        "messageId": shown(&mail.message_id),
        "queueId": mail.queue_id,
        "account": &mail.account,
        "date": mail.received_at.rfc3339(),
        "closed": are_closed(&by_recipient, closing),
        "final": by_recipient.iter().all(|evidence| evidence.state().is_final()),
        "version": version(record),
        "from": mail.envelope.reverse_path.to_string(),
        "size": mail.size_bytes,
        "origin": mail.origin,
        "client": &mail.client,
        "returnPath": mail.return_path,
        "dsn": dsn(&mail.envelope.dsn),
        "recipients": recipients,
        "bounces": bounces(record, Bounce::is_failure),
        "deliveryReports": bounces(record, |bounce| !bounce.is_failure()),
        "reports": reports,
        "messageHeaders": message_headers(mail),
        "aliases": aliases(record),
        "sendAt": mail.control.send_at.map(Timestamp::rfc3339),
        "deliveryAttempts": mail.control.attempts_max,
        "orders": orders(record),
        "meta": meta(mail),
        "aliasOf": alias_of(record, by_alias),
        "webhooks": told.and_then(webhook::told),
        "moreWebhooks": told.filter(|told| told.has_more).map(|_more| true),
    }
}

/// What the app asked of reports about a mail, as EmailEngine's submission takes it.
fn dsn(asked: &MailDsn) -> Option<Value> {
    (!asked.is_empty()).then(|| {
        object! {
            "id": asked.envelope_id.as_ref().map(EnvelopeId::text),
            "return": asked.content,
        }
    })
}

/// The value of `messageHeaders`: lower-case names, each with its values in order.
pub fn message_headers(submission: &Submission) -> Value {
    let fields = header::fields(&submission.header);
    headers(fields.map(|field| (String::from_utf8_lossy(field.name).into_owned(), field.text())))
}

/// The same from the header that a report returned; `None` where it returned none.
pub fn returned_headers(facts: &Facts) -> Option<Value> {
    let fields = facts.original.headers.iter();
    let pairs =
        fields.flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())));
    (!facts.original.headers.is_empty()).then(|| headers(pairs))
}

/// The state of every recipient of a submission, in the order of the envelope.
pub fn states(record: &MessageRecord) -> Vec<State> {
    Evidence::by_recipient(record).iter().map(Evidence::state).collect()
}

/// Whether no more news is expected of any recipient of a submission.
pub fn is_closed(record: &MessageRecord, closing: Closing) -> bool {
    are_closed(&Evidence::by_recipient(record), closing)
}

/// Counts what is known of a submission; it grows with every piece of evidence.
pub fn version(record: &MessageRecord) -> usize {
    let seen = record.attempts.len().saturating_add(record.bounces.len());
    seen.saturating_add(record.orders.len())
}

fn response(bounce: &Bounce) -> Value {
    let response = &bounce.response;
    // Whose fault a delivery is, nobody asks.
    let class = matches!(bounce.action, Action::Failed | Action::Delayed)
        .then_some(&response.classification);
    object! {
        "source": &response.source,
        "message": Some(&response.message).filter(|message| !message.is_empty()),
        "status": response.status,
        "category": class.map(|class| class.category),
        "recommendedAction": class.map(|class| class.recommended_action),
        "blocklist": class.and_then(|class| class.blocklist.as_ref()),
        "retryAfter": class.and_then(|class| class.retry_after_secs),
        "code": response.code,
        "command": &response.command,
        "fault": class.map(|class| class.fault),
    }
}

/// Bounces or delivery news of a submission, oldest first. The header goes along with each until
/// the answer would grow past all measure.
fn bounces(record: &MessageRecord, wanted: fn(&Bounce) -> bool) -> Vec<Value> {
    let headers = message_headers(&record.submission);
    let mut room = HEADERS_BYTES_MAX;
    let wanted = record.bounces.iter().filter(|bounce| wanted(bounce));
    let shown = wanted.map(|one| {
        let left = room.checked_sub(record.submission.header.len());
        room = left.unwrap_or_default();
        bounce(one, Some(&record.submission), left.map(|_left| &headers))
    });
    shown.collect()
}

/// Whether nothing more is to be expected of any of these recipients.
fn are_closed(recipients: &[Evidence<'_>], closing: Closing) -> bool {
    recipients.iter().all(|recipient| recipient.is_closed(closing.now, closing.window))
}

fn headers(fields: impl Iterator<Item = (String, String)>) -> Value {
    let mut map = Map::new();
    for (name, value) in fields {
        let values = map.entry(name.to_lowercase()).or_insert_with(|| Value::Array(Vec::new()));
        if let Value::Array(values) = values {
            values.push(Value::String(value));
        }
    }
    Value::Object(map)
}

/// What was ordered to be done with it in the queue; absent without any.
fn orders(record: &MessageRecord) -> Option<Vec<Value>> {
    let shown = record.orders.iter().map(|order| {
        object! {
            "date": order.at.rfc3339(),
            "action": order.action,
        }
    });
    (!record.orders.is_empty()).then(|| shown.collect())
}

fn meta(submission: &Submission) -> Option<&BTreeMap<String, String>> {
    Some(&submission.meta).filter(|meta| !meta.is_empty())
}

/// The Message-IDs that next hops gave a mail instead of its own, each once; absent without any.
fn aliases(record: &MessageRecord) -> Option<Vec<String>> {
    let mut aliases = Vec::new();
    for alias in record.attempts.iter().filter_map(|attempt| attempt.alias.as_ref()).map(shown) {
        if !aliases.contains(&alias) {
            aliases.push(alias);
        }
    }
    Some(aliases).filter(|aliases| !aliases.is_empty())
}

fn alias_of(record: &MessageRecord, by_alias: bool) -> Option<String> {
    by_alias.then(|| shown(&record.submission.message_id))
}

/// An id as it is shown: with angle brackets.
fn shown(id: &MessageId) -> String {
    id.to_string()
}

fn put(map: &mut Map<String, Value>, key: &str, value: impl Serialize) {
    // Nothing here has a map with keys that are no strings, so every value can be shown.
    if let Ok(value) = serde_json::to_value(value)
        && !value.is_null()
    {
        map.insert(key.to_owned(), value);
    }
}

/// Octets of headers repeated in one answer; bounces after that come without `messageHeaders`.
pub const HEADERS_BYTES_MAX: usize = 4_194_304;

#[cfg(test)]
mod tests {
    use super::testing::{NOW, mail, queue_id, record, reported, tried};
    use super::*;
    use crate::mail::{QueueId, Stage, dsn};
    use crate::store::record::{
        Attempt, CapturedBy, Confidence, Decision, Match, MatchMethod, Response,
    };
    use serde_json::json;

    const DAY: Duration = Duration::from_secs(86_400);
    const WEEK: Closing = Closing { now: NOW, window: Duration::from_secs(7 * 86_400) };

    /// The article's webhook as it stands there, from `data` on.
    fn article() -> Value {
        json!({
            "bounceMessage": "AAAADAAAByc",
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
        })
    }

    #[test]
    fn the_articles_bounce_has_every_field_by_name_type_and_value() {
        let mail = mail(&["unknown@ethereal.email"]);
        let headers = message_headers(&mail);
        let ours = bounce(&reported(), Some(&mail), Some(&headers));
        let article = article();
        for (key, theirs) in article.as_object().unwrap() {
            match key.as_str() {
                // Another store, another id; of the same type.
                "bounceMessage" => assert!(ours[key].is_string()),
                // Ours says more; what the article has is all there.
                "response" => theirs.as_object().unwrap().iter().for_each(|(key, value)| {
                    assert_eq!(&ours["response"][key], value, "response.{key}");
                }),
                _ => assert_eq!(&ours[key], theirs, "{key}"),
            }
        }
    }

    #[test]
    fn a_bounce_has_these_fields_in_this_order() {
        let mail = Submission { meta: [("order".into(), "17".into())].into(), ..mail(&["a@b"]) };
        let shown = bounce(&reported(), Some(&mail), Some(&json!({})));
        assert_eq!(
            shown.to_string(),
            json!({
                "bounceMessage": QueueId::new(NOW, 2).to_string(),
                "recipient": "unknown@ethereal.email",
                "action": "failed",
                "response": {
                    "source": "smtp",
                    "message": "550 No such user here",
                    "status": "5.0.0",
                    "category": "user_unknown",
                    "recommendedAction": "remove",
                    "code": 550,
                    "fault": "recipient"
                },
                "mta": "mx.ethereal.email",
                "queueId": "B7D3F8220C",
                "messageId": "<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>",
                "messageHeaders": {},
                "id": "0183cc1ab07c00000001",
                "date": "2022-10-12T12:10:40.980Z",
                "capturedBy": "listener",
                "match": { "method": "token", "confidence": "certain" },
                "finalRecipient": "unknown@ethereal.email",
                "relayQueueId": queue_id().to_string(),
                "meta": { "order": "17" }
            })
            .to_string()
        );
    }

    #[test]
    fn what_is_not_known_is_absent_not_null() {
        let inline = Bounce {
            captured_by: CapturedBy::Inline,
            report_id: None,
            mta: None,
            remote_queue_id: None,
            queue_id: None,
            matched: None,
            final_recipient: None,
            response: Response {
                message: String::new(),
                status: None,
                code: None,
                ..reported().response
            },
            ..reported()
        };
        let shown = bounce(&inline, None, None);
        assert!(!shown.to_string().contains("null"), "{shown}");
        let keys: Vec<&String> = shown.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["recipient", "action", "response", "id", "date", "capturedBy"]);
        let delivered = bounce(&Bounce { action: Action::Delivered, ..inline }, None, None);
        assert_eq!(delivered["response"], json!({ "source": "smtp" }));
    }

    #[test]
    fn a_lookup_says_of_each_recipient_what_became_of_it() {
        let retry = Decision::RetryAt(NOW.plus(Duration::from_secs(120)));
        let delayed = Bounce { action: Action::Delayed, ..reported() };
        let record = record(
            vec![
                tried(0, 1, "250 2.0.0 ok", Decision::Relayed),
                tried(1, 1, "450 4.2.0 later", retry),
            ],
            vec![delayed, reported()],
        );
        let mut shown = lookup(std::slice::from_ref(&record), false, WEEK).unwrap();
        assert_eq!(shown["bounces"].as_array().unwrap().len(), 1, "news is no bounce");
        shown["bounces"] = json!([]);
        assert_eq!(
            shown.to_string(),
            json!({
                "messageId": "<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>",
                "queueId": queue_id().to_string(),
                "account": "ekiri",
                "date": "2022-10-12T12:10:34.845Z",
                "closed": false,
                "recipients": [
                    {
                        "recipient": "unknown@ethereal.email",
                        "state": "bounced",
                        "attempts": 1,
                        "lastAttempt": "2022-10-12T12:10:40.980Z",
                        "response": { "message": "250 2.0.0 ok", "status": "2.0.0", "code": 250 }
                    },
                    {
                        "recipient": "known@ethereal.email",
                        "state": "deferred",
                        "attempts": 1,
                        "lastAttempt": "2022-10-12T12:10:40.980Z",
                        "nextAttempt": "2022-10-12T12:12:40.980Z",
                        "response": { "message": "450 4.2.0 later", "status": "4.2.0", "code": 450 }
                    }
                ],
                "bounces": []
            })
            .to_string()
        );
        assert_eq!(lookup(&[], false, WEEK), None);
        let twice = lookup(&[record.clone(), record], false, WEEK).unwrap();
        let each = twice["submissions"].as_array().unwrap();
        assert_eq!((each.len(), &each[0]["queueId"]), (2, &twice["queueId"]));
        assert!(each[0]["submissions"].is_null());
    }

    #[test]
    fn a_mail_is_closed_when_nothing_more_can_come() {
        let relayed = |index| tried(index, 1, "250 ok", Decision::Relayed);
        let failed = |index| tried(index, 1, "550 no", Decision::Failed);
        let low = Match::new(MatchMethod::MessageId, Confidence::Low);
        let rumour = Bounce { matched: Some(low), date: NOW.plus(6 * DAY), ..reported() };
        let delivered = Bounce {
            action: Action::Delivered,
            recipient_index: Some(1),
            date: NOW.plus(6 * DAY),
            ..reported()
        };
        for (what, record, days, want) in [
            ("both failed", record(vec![failed(0), failed(1)], vec![]), 0, true),
            ("one waits", record(vec![failed(0)], vec![]), 100, false),
            ("one relayed", record(vec![failed(0), relayed(1)], vec![]), 6, false),
            ("window over", record(vec![failed(0), relayed(1)], vec![]), 7, true),
            ("bounced", record(vec![relayed(0), failed(1)], vec![reported()]), 0, true),
            ("rumour", record(vec![relayed(0), failed(1)], vec![rumour]), 7, true),
            ("news", record(vec![failed(0), relayed(1)], vec![delivered.clone()]), 12, false),
            ("old news", record(vec![failed(0), relayed(1)], vec![delivered]), 13, true),
        ] {
            let closing = Closing { now: NOW.plus(days * DAY), ..WEEK };
            assert_eq!(submission(&record, closing)["closed"], json!(want), "{what}");
        }
    }

    #[test]
    fn a_timeline_lists_every_attempt() {
        let retry = Decision::RetryAt(NOW.plus(Duration::from_secs(120)));
        let lost = Attempt {
            stage: Stage::Connect,
            error: Some("connection refused".to_owned()),
            ..tried(0, 1, "", retry)
        };
        let taken = Attempt {
            stage: Stage::End,
            remote_queue_id: Some("4XyZ".to_owned()),
            tls: Some("TLSv1.3 TLS_AES_256_GCM_SHA384".to_owned()),
            ..tried(0, 2, "250 2.0.0 queued as 4XyZ", Decision::Relayed)
        };
        let record = record(vec![lost, taken], vec![]);
        let shown = timeline(&record, false, vec![], None, WEEK);
        assert_eq!(
            shown["recipients"][0]["attempts"].to_string(),
            json!([
                {
                    "number": 1,
                    "date": "2022-10-12T12:10:40.180Z",
                    "ended": "2022-10-12T12:10:40.980Z",
                    "stage": "connect",
                    "command": "CONNECT",
                    "mta": "mx.ethereal.email[192.0.2.1]:25",
                    "error": "connection refused",
                    "decision": "deferred",
                    "nextAttempt": "2022-10-12T12:12:40.980Z"
                },
                {
                    "number": 2,
                    "date": "2022-10-12T12:10:40.180Z",
                    "ended": "2022-10-12T12:10:40.980Z",
                    "stage": "end",
                    "command": "end of DATA",
                    "mta": "mx.ethereal.email[192.0.2.1]:25",
                    "tls": "TLSv1.3 TLS_AES_256_GCM_SHA384",
                    "response": {
                        "message": "250 2.0.0 queued as 4XyZ",
                        "status": "2.0.0",
                        "code": 250
                    },
                    "remoteQueueId": "4XyZ",
                    "decision": "relayed"
                }
            ])
            .to_string()
        );
        assert_eq!(shown["recipients"][0]["remoteQueueId"], "4XyZ");
        assert_eq!(shown["recipients"][1]["state"], "queued");
        assert_eq!((&shown["final"], &shown["version"]), (&json!(false), &json!(2)));
        assert!(!shown.to_string().contains("null"), "{shown}");
    }

    #[test]
    fn a_mail_shows_what_the_next_hop_calls_it_and_says_so_where_that_was_asked_for() {
        let named = |recipient, alias| Attempt {
            alias: MessageId::parse(alias),
            ..tried(recipient, 1, "250 Ok 0102", Decision::Relayed)
        };
        let ses = "0102@eu-west-1.amazonses.com";
        let mail = record(vec![named(0, ses), named(1, ses), named(1, "other@x")], vec![]);
        let own = "<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>";
        let all = json!([format!("<{ses}>"), "<other@x>"]);
        for (by_alias, want) in [(true, json!(own)), (false, Value::Null)] {
            let found = lookup(std::slice::from_ref(&mail), by_alias, WEEK).unwrap();
            let timeline = timeline(&mail, by_alias, vec![], None, WEEK);
            for shown in [found, timeline] {
                assert_eq!((&shown["aliases"], &shown["messageId"]), (&all, &json!(own)));
                assert_eq!(shown["aliasOf"], want);
            }
        }
        let attempt = &timeline(&mail, false, vec![], None, WEEK)["recipients"][0]["attempts"][0];
        assert_eq!(attempt["alias"], json!(format!("<{ses}>")));
    }

    #[test]
    fn a_timeline_shows_what_was_asked_of_reports_and_a_lookup_does_not() {
        let mut record = record(vec![], vec![]);
        let shown = timeline(&record, false, vec![], None, WEEK);
        assert!(shown["dsn"].is_null() && shown["recipients"][0]["dsn"].is_null(), "{shown}");
        let envelope = &mut record.submission.envelope;
        envelope.dsn.content = Some(dsn::Content::Headers);
        envelope.dsn.envelope_id = dsn::EnvelopeId::parse("order+2B17");
        let [first, second] = envelope.recipients.as_mut_slice() else { panic!("two recipients") };
        first.dsn.notify = dsn::Notify::parse("DELAY,SUCCESS");
        first.dsn.original_recipient = dsn::OriginalRecipient::parse("rfc822;a+2Bb@c");
        second.dsn.notify = dsn::Notify::parse("NEVER");
        let shown = timeline(&record, false, vec![], None, WEEK);
        assert_eq!(shown["dsn"], json!({ "id": "order+17", "return": "headers" }));
        let asked = json!({ "notify": ["success", "delay"], "originalRecipient": "a+b@c" });
        assert_eq!(shown["recipients"][0]["dsn"], asked);
        assert_eq!(shown["recipients"][1]["dsn"], json!({ "notify": ["never"] }));
        let shown = submission(&record, WEEK);
        assert!(shown["dsn"].is_null() && shown["recipients"][0]["dsn"].is_null(), "{shown}");
    }

    #[test]
    fn headers_are_repeated_up_to_a_limit() {
        let mut record = record(vec![], vec![reported(); 100]);
        record.submission.header = b"X: ".iter().chain(&[b'x'; 60_000]).copied().collect();
        let shown = submission(&record, WEEK);
        let with = |one: &&Value| !one["messageHeaders"].is_null();
        assert_eq!(shown["bounces"].as_array().unwrap().iter().filter(with).count(), 69);
    }
}
