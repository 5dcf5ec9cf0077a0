//! The queue: an entry in EmailEngine's shape, and the answers about what was done with it.

use serde_json::{Map, Value};

use super::{put, shown};
use crate::mail::{MessageId, QueueId, Reply, Timestamp, header};
use crate::store::record::{Origin, Source, Submission};
use crate::store::{LiveMessage, LiveRecipient};

/// The answer to a submission; `once` is its idempotency key, and whether it was known.
pub fn submitted(
    message_id: &MessageId,
    queue_id: QueueId,
    send_at: Timestamp,
    once: Option<(&str, bool)>,
) -> Value {
    let idempotency = once.map(|(key, is_known)| {
        object! {
            "key": key,
            "status": if is_known { "HIT" } else { "MISS" },
        }
    });
    object! {
        "response": "Queued for delivery",
        "messageId": shown(message_id),
        "sendAt": send_at.rfc3339(),
        "queueId": queue_id,
        "idempotency": idempotency,
    }
}

/// A mail in the queue.
pub fn outbox_entry(mail: &LiveMessage, submission: &Submission) -> Value {
    let waiting = || mail.recipients.iter().filter(|one| !one.state.has_left_queue());
    let next = waiting().map(|one| one.next_attempt).min().filter(|_| !mail.held);
    let attempts = mail.recipients.iter().map(|one| one.attempts).max().unwrap_or_default();
    let to: Vec<&str> = mail.recipients.iter().map(|one| one.address.as_str()).collect();
    let recipients: Vec<Value> = mail.recipients.iter().map(recipient).collect();
    object! {
        "queueId": mail.queue_id,
        "account": &mail.account,
        "source": source(submission),
        "messageId": shown(&mail.message_id),
        "envelope": object! {
            "from": mail.reverse_path.to_string(),
            "to": to,
        },
        "subject": header::find(&submission.header, "Subject").map(|field| field.text()),
        "created": mail.received_at.rfc3339(),
        "scheduled": mail.begins_at().rfc3339(),
        "nextAttempt": next.map(Timestamp::rfc3339),
        "attemptsMade": attempts,
        "attempts": mail.attempts_max,
        "progress": progress(mail),
        "held": Some(true).filter(|_| mail.held),
        "size": mail.size_bytes,
        "recipients": recipients,
    }
}

/// What became of an order to cancel a mail that stood as `before`.
///
/// `deleted` and `locked` are EmailEngine's: whether it was all still there, and whether an attempt
/// is under way, which cannot be taken back.
pub fn canceled(before: &LiveMessage) -> Value {
    let waiting = || before.recipients.iter().filter(|one| !one.state.has_left_queue());
    let addresses = |is_under_way: bool| {
        let meant = waiting().filter(|one| one.under_way == is_under_way);
        let meant: Vec<&str> = meant.map(|one| one.address.as_str()).collect();
        Some(meant).filter(|meant| !meant.is_empty())
    };
    let (canceled, under_way) = (addresses(false), addresses(true));
    object! {
        "deleted": canceled.is_some(),
        "locked": under_way.as_ref().map(|_| true),
        "queueId": before.queue_id,
        "canceled": canceled,
        "underWay": under_way,
    }
}

/// `smtp` and `api` are EmailEngine's; our own notices are in the queue, too.
fn source(submission: &Submission) -> &'static str {
    match (submission.origin, submission.source) {
        (Origin::Notice, _) => "notice",
        (Origin::App, Source::Smtp) => "smtp",
        (Origin::App, Source::Api) => "api",
    }
}

/// Where it stands, with the last thing that went wrong.
fn progress(mail: &LiveMessage) -> Value {
    let attempts = mail.recipients.iter().filter_map(|one| one.last.as_ref());
    let last = attempts.max_by_key(|attempt| attempt.ended_at);
    let reply = last.and_then(|last| last.reply.as_ref());
    let is_under_way = mail.recipients.iter().any(|one| one.under_way);
    let has_failed = last.is_some_and(|_| reply.is_none_or(|reply| !reply.is_positive()));
    let status = match (is_under_way, has_failed) {
        (true, _) => "processing",
        (false, true) => "error",
        (false, false) => "queued",
    };
    let error = last.filter(|_| has_failed).map(|last| {
        object! {
            "message": reply.map(Reply::to_string).or_else(|| last.error.clone()),
            "statusCode": reply.map(|reply| reply.code),
        }
    });
    object! {
        "status": status,
        "error": error,
    }
}

fn recipient(one: &LiveRecipient) -> Value {
    let last = one.last.as_ref();
    object! {
        "recipient": one.address.as_str(),
        "state": one.state,
        "attempts": one.attempts,
        "nextAttempt": Some(one.next_attempt.rfc3339()).filter(|_| !one.state.has_left_queue()),
        "response": last.and_then(|last| last.reply.as_ref()).map(super::recipient::reply),
        "error": last.and_then(|last| last.error.as_ref()),
        "underWay": Some(true).filter(|_| one.under_way),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_articles_answer_to_a_submission_has_every_field_by_name_type_and_value() {
        let article = json!({
            "response": "Queued for delivery",
            "messageId": "<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>",
            "sendAt": "2022-10-12T12:10:34.845Z",
            "queueId": "183cc1a89ddfe365bbb"
        });
        let message_id = MessageId::parse("3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee").unwrap();
        let send_at = Timestamp::from_millis(1_665_576_634_845);
        let queue_id = QueueId::new(send_at, 1);
        let mut ours = submitted(&message_id, queue_id, send_at, None);
        assert_eq!(ours["queueId"], queue_id.to_string(), "another queue, another id");
        ours["queueId"] = article["queueId"].clone();
        assert_eq!(ours.to_string(), article.to_string());
        let known = submitted(&message_id, queue_id, send_at, Some(("k", true)));
        assert_eq!(known["idempotency"], json!({ "key": "k", "status": "HIT" }));
        let new = submitted(&message_id, queue_id, send_at, Some(("k", false)));
        assert_eq!(new["idempotency"]["status"], "MISS");
    }
}
