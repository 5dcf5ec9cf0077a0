//! What is known of each recipient of a mail, and what follows from it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::MessageRecord;
use super::record::{Attempt, Bounce, Match, Order};
use super::state::{self, State};
use crate::mail::{Recipient, Timestamp};

/// All that is known of one recipient.
#[derive(Clone, Debug)]
pub struct Evidence<'a> {
    /// The recipient, with what the app asked of reports about it.
    pub asked: &'a Recipient,
    /// Every attempt, oldest first.
    pub attempts: Vec<&'a Attempt>,
    /// Every bounce and all delivery news, oldest first.
    pub bounces: Vec<&'a Bounce>,
    orders: &'a [Order],
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
    pub fn last_news(&self) -> Option<Timestamp> {
        let attempts = self.attempts.iter().map(|attempt| attempt.ended_at);
        let is_believed = |bounce: &&&Bounce| bounce.matched.is_some_and(Match::is_believed);
        let bounces = self.bounces.iter().filter(is_believed);
        attempts.chain(bounces.map(|bounce| bounce.date)).max()
    }

    /// Whether nothing more is to be expected of it: it has ended for good, or has been quiet
    /// for the window after the next hop took it.
    pub fn is_closed(&self, now: Timestamp, window: Duration) -> bool {
        match self.state() {
            State::Queued | State::Deferred => false,
            State::Canceled
            | State::Failed
            | State::Expired
            | State::Suppressed
            | State::Bounced => true,
            State::Relayed | State::Delivered => {
                self.last_news().is_some_and(|last| now.since(last) >= window)
            }
        }
    }
}
