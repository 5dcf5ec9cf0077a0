//! One recipient: everything that is known of it, and how that is shown.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::put;
use crate::mail::{Recipient, RecipientDsn, Reply, Timestamp};
use crate::store::MessageRecord;
use crate::store::record::{Attempt, Bounce, Decision, Match, Order};
use crate::store::state::{self, State};

/// All that is known of one recipient.
pub struct Evidence<'a> {
    /// Who it is, and what was asked of reports about him.
    pub asked: &'a Recipient,
    /// Every attempt, oldest first.
    pub attempts: Vec<&'a Attempt>,
    /// Every bounce and all delivery news, oldest first.
    pub bounces: Vec<&'a Bounce>,
    orders: &'a [Order],
}

/// How attempts are shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AttemptsAs {
    Count,
    List,
}

impl<'a> Evidence<'a> {
    /// Every recipient of a submission, in the order of its envelope.
    pub fn by_recipient(record: &'a MessageRecord) -> Vec<Self> {
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
                asked: recipient,
                attempts: attempts.remove(&index).unwrap_or_default(),
                bounces: bounces.remove(&index).unwrap_or_default(),
                orders: &record.orders,
            })
            .collect()
    }

    /// What became of it.
    pub fn state(&self) -> State {
        if self.asked.is_suppressed {
            return State::Suppressed;
        }
        state::of(self.attempts.iter().copied(), self.bounces.iter().copied(), self.orders)
    }

    /// When the last news came.
    pub(super) fn last_news(&self) -> Option<Timestamp> {
        let attempts = self.attempts.iter().map(|attempt| attempt.ended_at);
        let bounces = self.bounces.iter().filter(|bounce| is_believed(bounce));
        attempts.chain(bounces.map(|bounce| bounce.date)).max()
    }

    /// The recipient as it stands in a look-up or a timeline.
    pub(super) fn shown(&self, attempts_as: AttemptsAs) -> Value {
        let state = self.state();
        let last = self.attempts.iter().max_by_key(|attempt| attempt.number);
        let attempts = match attempts_as {
            AttemptsAs::Count => Value::from(self.attempts.len()),
            AttemptsAs::List => self.attempts.iter().map(|one| attempt(one)).collect(),
        };
        let is_waiting = !state.has_left_queue();
        object! {
            "recipient": self.asked.address.as_str(),
            "state": state,
            "attempts": attempts,
            "lastAttempt": last.map(|last| last.ended_at.rfc3339()),
            "nextAttempt": last.filter(|_last| is_waiting).and_then(|last| next_attempt(last)),
            "response": last.and_then(|last| last.reply.as_ref()).map(reply),
            "error": last.and_then(|last| last.error.as_ref()),
            "remoteQueueId": last.and_then(|last| last.remote_queue_id.as_ref()),
            "dsn": dsn(&self.asked.dsn).filter(|_dsn| attempts_as == AttemptsAs::List),
        }
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

fn is_believed(bounce: &Bounce) -> bool {
    bounce.matched.is_some_and(Match::is_believed)
}
