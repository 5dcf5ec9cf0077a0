//! How many reports are stored in a day, so that a storm of them stays bounded.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::mail::{QueueId, Timestamp};

/// What a token names: a recipient of a submission.
pub type TokenKey = (QueueId, u32);

/// The reports of the UTC day that is running; it begins anew with the daemon.
#[derive(Debug, Default)]
pub struct Caps {
    today: Mutex<Today>,
}

#[derive(Debug, Default)]
struct Today {
    day: u32,
    reports: u32,
    /// Holds no more entries than `reports` has counted tokens, which is bounded by both caps.
    per_token: HashMap<TokenKey, u32>,
}

/// The most that is stored in a day.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For one token.
    pub per_token_per_day_max: u32,
    /// In all.
    pub per_day_max: u32,
}

/// What becomes of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored.
    Store,
    /// It is taken and only counted: there are enough for these tokens.
    CountOnly,
    /// It is put off: there are enough in all.
    PutOff,
}

impl Caps {
    /// What would become of a report for these tokens; none are the configured addresses.
    pub fn look(&self, now: Timestamp, tokens: &[TokenKey], limits: Limits) -> Verdict {
        self.today.lock().unwrap_or_else(PoisonError::into_inner).look(now, tokens, limits)
    }

    /// As `look`, and counts the report when it is to be stored.
    pub fn count(&self, now: Timestamp, tokens: &[TokenKey], limits: Limits) -> Verdict {
        let mut today = self.today.lock().unwrap_or_else(PoisonError::into_inner);
        let verdict = today.look(now, tokens, limits);
        if verdict == Verdict::Store {
            today.reports = today.reports.saturating_add(1);
            for token in tokens {
                let count = today.per_token.entry(*token).or_default();
                *count = count.saturating_add(1);
            }
        }
        verdict
    }
}

impl Today {
    fn look(&mut self, now: Timestamp, tokens: &[TokenKey], limits: Limits) -> Verdict {
        // A clock that goes backward does not begin a day anew.
        if now.day() > self.day {
            *self = Self { day: now.day(), ..Self::default() };
        }
        let is_full = |token: &TokenKey| {
            let stored = self.per_token.get(token).copied().unwrap_or_default();
            stored >= limits.per_token_per_day_max
        };
        if !tokens.is_empty() && tokens.iter().all(is_full) {
            Verdict::CountOnly
        } else if self.reports >= limits.per_day_max {
            Verdict::PutOff
        } else {
            Verdict::Store
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOON: Timestamp = Timestamp::from_millis(1_665_576_640_980);
    const LIMITS: Limits = Limits { per_token_per_day_max: 2, per_day_max: 5 };

    fn token(recipient: u32) -> TokenKey {
        (QueueId::new(NOON, 1), recipient)
    }

    #[test]
    fn a_storm_for_one_token_is_counted_only_and_leaves_room_for_others() {
        let caps = Caps::default();
        let mut verdicts = (0..10_000).map(|_| caps.count(NOON, &[token(0)], LIMITS));
        assert_eq!(verdicts.next(), Some(Verdict::Store));
        assert_eq!(verdicts.next(), Some(Verdict::Store));
        assert!(verdicts.all(|verdict| verdict == Verdict::CountOnly));
        assert_eq!(caps.count(NOON, &[token(0), token(1)], LIMITS), Verdict::Store);
        assert_eq!(caps.count(NOON, &[], LIMITS), Verdict::Store);
    }

    #[test]
    fn more_than_the_days_cap_is_put_off_until_the_next_day() {
        let caps = Caps::default();
        for recipient in 0..5 {
            assert_eq!(caps.count(NOON, &[token(recipient)], LIMITS), Verdict::Store);
        }
        assert_eq!(caps.look(NOON, &[token(9)], LIMITS), Verdict::PutOff);
        assert_eq!(caps.count(NOON, &[], LIMITS), Verdict::PutOff);
        let day = Duration::from_secs(24 * 3600);
        assert_eq!(caps.look(NOON.minus(day), &[], LIMITS), Verdict::PutOff);
        assert_eq!(caps.look(NOON.plus(day), &[token(9)], LIMITS), Verdict::Store);
    }
}
