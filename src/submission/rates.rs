//! How many mails and recipients an account may submit in a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::session::DEFAULT_ACCOUNT;
use crate::config::Settings;
use crate::mail::{EnhancedStatus, Reply, Timestamp};

/// Counts what accounts submit, over all connections; clones share the counts.
///
/// Only counts are kept, so that other limits hold at once for what was counted before.
#[derive(Clone, Default)]
pub(super) struct Rates {
    /// Never many more than there are accounts.
    accounts: Arc<Mutex<HashMap<String, Counts>>>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// A MAIL that was accepted.
    Message,
    /// A RCPT that was accepted.
    Recipient,
}

#[derive(Default)]
struct Counts {
    messages: Window,
    recipients: Window,
}

/// How often something happened in the last minute, in slices of a second.
#[derive(Clone, Copy, Debug)]
struct Window {
    /// The second of the first slice, since 1970.
    second: u64,
    /// The newest first. A minute touches 61 of them.
    slices: [u32; SLICES],
}

impl Rates {
    /// Counts one more at `now`, unless the account has had as many as it may in this minute.
    ///
    /// # Errors
    /// The reply that the client gets: as Postfix's `smtpd_client_message_rate_limit`, 450, which
    /// RFC 5321 §4.2.3 has for what is temporarily blocked for policy reasons.
    pub(super) fn count(
        &self,
        settings: &Settings,
        account: &str,
        counted: Counted,
        now: Timestamp,
    ) -> Result<(), Reply> {
        let limits = settings.rate_limits(account);
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.contains_key(account) {
            // Accounts that are no longer there make room.
            accounts.retain(|name, _| name == DEFAULT_ACCOUNT || settings.account(name).is_some());
        }
        let counts = accounts.entry(account.to_owned()).or_default();
        let (window, most, what) = match counted {
            Counted::Message => (&mut counts.messages, limits.messages_per_minute_max, "mails"),
            Counted::Recipient => {
                (&mut counts.recipients, limits.recipients_per_minute_max, "recipients")
            }
        };
        if window.count(now, most) {
            Ok(())
        } else {
            let text = format!("this account has had its {most} {what} of this minute");
            Err(Reply::new(450, TOO_FAST, text))
        }
    }
}

impl Window {
    /// Counts one more, unless there were `most` in the last minute; 0 means no limit.
    ///
    /// Where the clock is set back, what was counted grows old from there on.
    fn count(&mut self, now: Timestamp, most: u32) -> bool {
        let second = now.as_millis() / 1000;
        let passed = second.saturating_sub(self.second);
        let passed = usize::try_from(passed).unwrap_or(SLICES).min(SLICES);
        self.slices.rotate_right(passed);
        self.slices.iter_mut().take(passed).for_each(|slice| *slice = 0);
        self.second = second;
        let total = self.slices.iter().fold(0_u32, |sum, slice| sum.saturating_add(*slice));
        let [newest, ..] = &mut self.slices;
        let is_free = most == 0 || total < most;
        if is_free {
            *newest = newest.saturating_add(1);
        }
        is_free
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { second: 0, slices: [0; SLICES] }
    }
}

/// Slices of a second that a minute touches.
const SLICES: usize = 61;
const TOO_FAST: EnhancedStatus = EnhancedStatus::new(4, 7, 1);

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_665_576_640_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(START + millis)
    }

    #[test]
    fn no_minute_has_more_than_the_limit() {
        let mut window = Window::default();
        // Ten seconds of as much as there is, for five minutes.
        let mut taken: Vec<u64> = Vec::new();
        for millis in (0..300_000).step_by(70).filter(|millis| millis / 10_000 % 2 == 0) {
            if window.count(at(millis), 40) {
                taken.push(millis);
            }
        }
        for (first, begin) in taken.iter().enumerate() {
            let in_minute = taken[first..].iter().take_while(|end| *end - begin < 60_000);
            assert!(in_minute.count() <= 40, "the minute from {begin}");
        }
        assert!(taken.len() > 40 * 4, "{}", taken.len());
    }

    #[test]
    fn a_minute_forgets_and_a_clock_may_go_back() {
        let mut window = Window::default();
        for (millis, most, want) in [
            (0, 2, true),
            (20, 2, true),
            (40, 2, false),
            (40, 3, true),
            (40, 0, true),
            (59_000, 3, false),
            (61_000, 3, true),
            (62_000, 1, false),
        ] {
            assert_eq!(window.count(at(millis), most), want, "{millis} {most}");
        }
        let back = |millis: u64| Timestamp::from_millis(START - 3_600_000 + millis);
        assert!(!window.count(back(0), 1));
        assert!(window.count(back(61_000), 1));
        assert!(window.count(Timestamp::from_millis(u64::MAX), 1));
    }

    #[test]
    fn accounts_are_counted_apart_and_by_the_limits_of_now() {
        let mut settings = crate::config::defaults();
        settings.submission.messages_per_minute_max = 1;
        let rates = Rates::default();
        let count = |settings: &Settings, account: &str, counted: Counted| {
            rates
                .clone()
                .count(settings, account, counted, at(0))
                .map_err(|reply| reply.to_string())
        };
        assert_eq!(count(&settings, "default", Counted::Message), Ok(()));
        assert_eq!(
            count(&settings, "default", Counted::Message),
            Err("450 4.7.1 this account has had its 1 mails of this minute".to_owned())
        );
        assert_eq!(count(&settings, "default", Counted::Recipient), Ok(()));
        assert_eq!(count(&settings, "shop", Counted::Message), Ok(()));
        settings.submission.messages_per_minute_max = 2;
        assert_eq!(count(&settings, "default", Counted::Message), Ok(()));
        assert!(count(&settings, "default", Counted::Message).is_err());
        // `shop` is no account, and makes room for the next.
        assert_eq!(count(&settings, "till", Counted::Message), Ok(()));
        assert_eq!(rates.accounts.lock().unwrap().len(), 2);
    }
}
