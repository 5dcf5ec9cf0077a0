//! A recipient's state as a function of the evidence, whatever the order it arrived in.

use serde::{Deserialize, Serialize};

use super::record::{Attempt, Bounce, Decision, Match, Order, OrderAction};
use crate::bounce::Action;
use crate::mail::Timestamp;

/// What became of a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It waits for its first attempt.
    Queued,
    /// An attempt failed; another will follow.
    Deferred,
    /// It was taken out of the queue before anybody took it over.
    Canceled,
    /// The next hop took it, which is not a delivery.
    Relayed,
    /// There is evidence that it was delivered.
    Delivered,
    /// A report said that it failed.
    Bounced,
    /// It was refused in the conversation.
    Failed,
    /// Its time in the queue is over.
    Expired,
    /// It was never tried: the address had bounced before, or was suppressed by hand.
    Suppressed,
}

impl State {
    /// All states, in the order of a recipient's life.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Deferred,
        Self::Canceled,
        Self::Relayed,
        Self::Delivered,
        Self::Bounced,
        Self::Failed,
        Self::Expired,
        Self::Suppressed,
    ];

    /// The word, as it stands in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Deferred => "deferred",
            Self::Canceled => "canceled",
            Self::Relayed => "relayed",
            Self::Delivered => "delivered",
            Self::Bounced => "bounced",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::Suppressed => "suppressed",
        }
    }

    /// Whether the queue has nothing more to do for the recipient.
    pub const fn has_left_queue(self) -> bool {
        !matches!(self, Self::Queued | Self::Deferred)
    }

    /// Whether nothing can change it any more, but for a report that calls a relayed one bounced,
    /// and the outcome of an attempt that was under way when the mail was canceled.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::Canceled
                | Self::Delivered
                | Self::Bounced
                | Self::Failed
                | Self::Expired
                | Self::Suppressed
        )
    }
}

/// The state of one recipient, from its attempts and bounces and what was ordered, in any order.
///
/// A queue-final state (`failed`, `expired`) never changes; otherwise bounced > delivered >
/// relayed > canceled > deferred > queued. So `canceled` stays, unless it turns out that the mail
/// had gone all the same: an attempt was under way when that was ordered.
pub fn of<'a>(
    attempts: impl IntoIterator<Item = &'a Attempt>,
    bounces: impl IntoIterator<Item = &'a Bounce>,
    orders: impl IntoIterator<Item = &'a Order>,
) -> State {
    let mut state = State::Queued;
    if orders.into_iter().any(|order| order.action == OrderAction::Cancel) {
        state = State::Canceled;
    }
    for attempt in attempts {
        state = state.max(match attempt.decision {
            Decision::Relayed => State::Relayed,
            Decision::RetryAt(_) => State::Deferred,
            Decision::Failed => State::Failed,
            Decision::Expired => State::Expired,
        });
    }
    for bounce in bounces {
        if let Some(reported) = reported_state(bounce) {
            state = state.max(reported);
        }
    }
    state
}

/// What a report alone makes of its recipient; `None` when it may change nothing.
///
/// What was refused in our own conversation is counted by its attempt.
pub fn reported_state(bounce: &Bounce) -> Option<State> {
    let trusted = bounce.report_id.is_some() && bounce.matched.is_some_and(Match::is_believed);
    match bounce.action {
        Action::Failed if trusted => Some(State::Bounced),
        Action::Delivered if trusted => Some(State::Delivered),
        _ => None,
    }
}

/// When the recipient is tried again; `None` when it has left the queue or was never tried.
pub fn next_attempt<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Option<Timestamp> {
    attempts.into_iter().max_by_key(|attempt| attempt.number).and_then(|last| match last.decision {
        Decision::RetryAt(time) => Some(time),
        _ => None,
    })
}
