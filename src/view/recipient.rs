//! One recipient: how everything that is known of it is shown.

use serde_json::{Map, Value};

use super::put;
use crate::mail::{RecipientDsn, Reply};
use crate::store::Evidence;
use crate::store::record::{Attempt, Decision};
use crate::store::state::State;

/// How attempts are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptsAs {
    Count,
    List,
}

/// The recipient as it stands in a look-up or a timeline.
pub(super) fn shown(evidence: &Evidence<'_>, attempts_as: AttemptsAs) -> Value {
    let state = evidence.state();
    let last = evidence.attempts.iter().max_by_key(|attempt| attempt.number);
    let attempts = match attempts_as {
        AttemptsAs::Count => Value::from(evidence.attempts.len()),
        AttemptsAs::List => evidence.attempts.iter().map(|one| attempt(one)).collect(),
    };
    let is_waiting = !state.has_left_queue();
    object! {
        "recipient": evidence.asked.address.as_str(),
        "state": state,
        "attempts": attempts,
        "lastAttempt": last.map(|last| last.ended_at.rfc3339()),
        "nextAttempt": last.filter(|_last| is_waiting).and_then(|last| next_attempt(last)),
        "response": last.and_then(|last| last.reply.as_ref()).map(reply),
        "error": last.and_then(|last| last.error.as_ref()),
        "remoteQueueId": last.and_then(|last| last.remote_queue_id.as_ref()),
        "dsn": dsn(&evidence.asked.dsn).filter(|_dsn| attempts_as == AttemptsAs::List),
    }
}

/// What the app asked of reports about a recipient.
fn dsn(asked: &RecipientDsn) -> Option<Value> {
    let notify = asked.notify.map(|notify| {
        let words = notify.to_string().to_ascii_lowercase();
        words.split(',').map(Value::from).collect::<Value>()
    });
    let original_recipient = asked.original_recipient.as_ref().map(|original| original.address());
    (!asked.is_empty()).then(|| {
        object! {
            "notify": notify,
            "originalRecipient": original_recipient,
        }
    })
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
        "alias": attempt.alias.as_ref().map(super::shown),
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

pub(super) fn reply(reply: &Reply) -> Value {
    object! {
        "message": reply.to_string(),
        "status": reply.status,
        "code": reply.code,
    }
}
