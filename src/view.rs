//! The JSON promised to users, for look-ups and webhooks alike.
//!
//! Pure: records in, JSON out. Names, types and order are EmailEngine's where it has them.
//! **Invariant:** what is not known is absent, never null, and a key never changes its type.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::bounce::{Action, Facts, RecipientFacts};
use crate::mail::{MessageId, Reply, Timestamp, header};
use crate::store::record::{
    Attempt, Bounce, Confidence, Decision, ReportCaptured, Submission,
};
use crate::store::state::{self, State};
use crate::store::{MessageRecord, ReportRecord};

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

/// A bounce or delivery news, the same in look-ups and webhooks.
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
/// where there are several. `None` without any.
pub fn lookup(records: &[MessageRecord], closing: Closing) -> Option<Value> {
    let (newest, others) = records.split_first()?;
    let mut answer = submission(newest, closing);
    if !others.is_empty()
        && let Value::Object(map) = &mut answer
    {
        let all = records.iter().map(|record| submission(record, closing)).collect::<Vec<_>>();
        put(map, "submissions", all);
    }
    Some(answer)
}

/// One submission with its recipients and bounces.
pub fn submission(record: &MessageRecord, closing: Closing) -> Value {
    let by_recipient = Evidence::by_recipient(record);
    let recipients: Vec<Value> =
        by_recipient.iter().map(|evidence| recipient(evidence, AttemptsAs::Count)).collect();
    object! {
        "messageId": shown(&record.submission.message_id),
        "queueId": record.submission.queue_id,
        "account": &record.submission.account,
        "date": record.submission.received_at.rfc3339(),
        "closed": is_closed(&by_recipient, closing),
        "recipients": recipients,
        "bounces": bounces(record, Bounce::is_failure),
        "meta": meta(&record.submission),
    }
}

/// Everything that is known of one submission: every attempt, bounce, delivery news and report
/// (each as `report_summary` shows it).
pub fn timeline(record: &MessageRecord, reports: Vec<Value>, closing: Closing) -> Value {
    let mail = &record.submission;
    let by_recipient = Evidence::by_recipient(record);
    let recipients: Vec<Value> =
        by_recipient.iter().map(|evidence| recipient(evidence, AttemptsAs::List)).collect();
    object! {
        "messageId": shown(&mail.message_id),
        "queueId": mail.queue_id,
        "account": &mail.account,
        "date": mail.received_at.rfc3339(),
        "closed": is_closed(&by_recipient, closing),
        "final": by_recipient.iter().all(|evidence| evidence.state().is_final()),
        "version": version(record),
        "from": mail.envelope.reverse_path.to_string(),
        "size": mail.size_bytes,
        "origin": mail.origin,
        "client": &mail.client,
        "returnPath": mail.return_path,
        "recipients": recipients,
        "bounces": bounces(record, Bounce::is_failure),
        "deliveryReports": bounces(record, |bounce| !bounce.is_failure()),
        "reports": reports,
        "messageHeaders": message_headers(mail),
        "meta": meta(mail),
    }
}

/// A report with what was read from it (`facts`) and the bounces that came of it.
pub fn report(record: &ReportRecord, facts: &Facts, bounces: &[Value]) -> Value {
    let mut answer = report_summary(record);
    if let Value::Object(map) = &mut answer {
        put(map, "messageId", facts.message_id.as_ref().map(shown));
        put(map, "report", said(facts));
        put(map, "original", original(facts));
        put(map, "defects", facts.defects.iter().map(|defect| &defect.0).collect::<Vec<_>>());
        put(map, "why", &facts.why);
        put(map, "bounces", bounces);
    }
    answer
}

/// What a list shows of a report.
pub fn report_summary(record: &ReportRecord) -> Value {
    let received = &record.received;
    let captured = record.captured.as_ref();
    object! {
        "id": received.id,
        "date": received.received_at.rfc3339(),
        "capturedBy": received.captured_by,
        "from": &received.reverse_path,
        "to": &received.recipients,
        "size": received.raw.len(),
        "capturedAt": captured.map(|captured| captured.captured_at.rfc3339()),
        "verdict": captured.map(|captured| captured.verdict),
        "matched": captured.map(|captured| &captured.matched),
        "ownNotice": captured.map(|captured| captured.own_notice),
        "forwardedTo": captured.and_then(forwarded_to),
    }
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

/// Counts what is known of a submission; it grows with every piece of evidence.
pub fn version(record: &MessageRecord) -> usize {
    record.attempts.len().saturating_add(record.bounces.len())
}

/// All that is known of one recipient.
struct Evidence<'a> {
    address: &'a str,
    attempts: Vec<&'a Attempt>,
    bounces: Vec<&'a Bounce>,
}

/// How attempts are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AttemptsAs {
    Count,
    List,
}

impl<'a> Evidence<'a> {
    fn by_recipient(record: &'a MessageRecord) -> Vec<Self> {
        let mut attempts: BTreeMap<u32, Vec<&Attempt>> = BTreeMap::new();
        for attempt in &record.attempts {
            attempts.entry(attempt.recipient).or_default().push(attempt);
        }
        let mut bounces: BTreeMap<u32, Vec<&Bounce>> = BTreeMap::new();
        for bounce in &record.bounces {
            if let Some(index) = bounce.recipient_index {
                bounces.entry(index).or_default().push(bounce);
            }
        }
        let recipients = (0_u32..).zip(&record.submission.envelope.recipients);
        recipients
            .map(|(index, recipient)| Self {
                address: recipient.address.as_str(),
                attempts: attempts.remove(&index).unwrap_or_default(),
                bounces: bounces.remove(&index).unwrap_or_default(),
            })
            .collect()
    }

    fn state(&self) -> State {
        state::of(self.attempts.iter().copied(), self.bounces.iter().copied())
    }

    /// When the last news came.
    fn last_news(&self) -> Option<Timestamp> {
        let attempts = self.attempts.iter().map(|attempt| attempt.ended_at);
        let bounces = self.bounces.iter().filter(|bounce| is_believed(bounce));
        attempts.chain(bounces.map(|bounce| bounce.date)).max()
    }
}

fn recipient(evidence: &Evidence<'_>, attempts_as: AttemptsAs) -> Value {
    let state = evidence.state();
    let last = evidence.attempts.iter().max_by_key(|attempt| attempt.number);
    let attempts = match attempts_as {
        AttemptsAs::Count => Value::from(evidence.attempts.len()),
        AttemptsAs::List => evidence.attempts.iter().map(|one| attempt(one)).collect(),
    };
    let is_waiting = !state.has_left_queue();
    object! {
        "recipient": evidence.address,
        "state": state,
        "attempts": attempts,
        "lastAttempt": last.map(|last| last.ended_at.rfc3339()),
        "nextAttempt": last.filter(|_last| is_waiting).and_then(|last| next_attempt(last)),
        "response": last.and_then(|last| last.reply.as_ref()).map(reply),
        "error": last.and_then(|last| last.error.as_ref()),
        "remoteQueueId": last.and_then(|last| last.remote_queue_id.as_ref()),
    }
}

fn attempt(attempt: &Attempt) -> Value {
    let decision = match attempt.decision {
        Decision::Relayed => State::Relayed,
        Decision::RetryAt(_) => State::Deferred,
        Decision::Failed => State::Failed,
        Decision::Expired => State::Expired,
    };
    object! {
        "number": attempt.number,
        "date": attempt.started_at.rfc3339(),
        "ended": attempt.ended_at.rfc3339(),
        "stage": attempt.stage,
        "command": attempt.stage.command(),
        "mta": &attempt.remote_mta,
        "tls": &attempt.tls,
        "response": attempt.reply.as_ref().map(reply),
        "error": &attempt.error,
        "remoteQueueId": &attempt.remote_queue_id,
        "decision": decision,
        "nextAttempt": next_attempt(attempt),
    }
}

fn next_attempt(attempt: &Attempt) -> Option<String> {
    match attempt.decision {
        Decision::RetryAt(time) => Some(time.rfc3339()),
        _ => None,
    }
}

fn reply(reply: &Reply) -> Value {
    object! {
        "message": reply.to_string(),
        "status": reply.status,
        "code": reply.code,
    }
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

/// Whether nothing more is to be expected: every recipient has ended for good, or has been quiet
/// for the window after the next hop took it.
fn is_closed(recipients: &[Evidence<'_>], closing: Closing) -> bool {
    recipients.iter().all(|recipient| match recipient.state() {
        State::Queued | State::Deferred => false,
        State::Failed | State::Expired | State::Bounced => true,
        State::Relayed | State::Delivered => {
            recipient.last_news().is_some_and(|last| closing.now.since(last) >= closing.window)
        }
    })
}

fn is_believed(bounce: &Bounce) -> bool {
    bounce.matched.is_some_and(|found| found.confidence > Confidence::Low)
}

fn said(facts: &Facts) -> Value {
    let report = &facts.report;
    let recipients: Vec<Value> = report.recipients.iter().map(said_of_recipient).collect();
    object! {
        "reportingMta": &report.reporting_mta,
        "arrivalDate": report.arrival_date.map(Timestamp::rfc3339),
        "envelopeId": &report.envelope_id,
        "queueId": &report.queue_id,
        "feedbackType": &report.feedback_type,
        "recipients": recipients,
    }
}

fn said_of_recipient(said: &RecipientFacts) -> Value {
    let diagnostic = said.diagnostic.as_ref().map(|diagnostic| {
        object! {
            "type": Some(&diagnostic.kind).filter(|kind| !kind.is_empty()),
            "text": &diagnostic.text,
        }
    });
    object! {
        "finalRecipient": &said.final_recipient,
        "originalRecipient": &said.original_recipient,
        "action": said.action,
        "status": said.status,
        "code": said.code,
        "diagnostic": diagnostic,
        "remoteMta": &said.remote_mta,
        "command": &said.command,
        "willRetryUntil": said.will_retry_until.map(Timestamp::rfc3339),
    }
}

fn original(facts: &Facts) -> Value {
    object! {
        "messageId": facts.original.message_id.as_ref().map(shown),
        "queueId": facts.original.rebound_id,
        "headers": returned_headers(facts),
    }
}

fn forwarded_to(captured: &ReportCaptured) -> Option<&str> {
    captured.forward_to.as_deref().filter(|address| !address.is_empty())
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

fn meta(submission: &Submission) -> Option<&BTreeMap<String, String>> {
    Some(&submission.meta).filter(|meta| !meta.is_empty())
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
const HEADERS_BYTES_MAX: usize = 4_194_304;
