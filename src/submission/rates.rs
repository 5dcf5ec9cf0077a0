//! How many mails and recipients an account may submit in a minute.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::session::DEFAULT_ACCOUNT;
use crate::config::Settings;
use crate::mail::{EnhancedStatus, Reply, Timestamp};
use crate::net::window::Window;

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

const TOO_FAST: EnhancedStatus = EnhancedStatus::new(4, 7, 1);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_000);

    #[test]
    fn accounts_are_counted_apart_and_by_the_limits_of_now() {
        let mut settings = crate::config::defaults();
        settings.submission.messages_per_minute_max = 1;
        let rates = Rates::default();
        let count = |settings: &Settings, account: &str, counted: Counted| {
            rates.clone().count(settings, account, counted, NOW).map_err(|reply| reply.to_string())
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
