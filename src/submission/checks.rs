//! What is asked of every mail before its octets come, by SMTP and HTTP alike.

use super::door::{Door, store_reply};
use super::guards::Guards;
use super::policy;
use super::rates::Counted;
use crate::config::Settings;
use crate::mail::{EnhancedStatus, Reply, ReversePath};

/// The mails of one account, judged.
#[derive(Clone, Copy)]
pub struct Checks<'a> {
    /// The settings that they are judged by.
    pub settings: &'a Settings,
    /// Where they go.
    pub door: &'a Door,
    /// What is counted over all clients.
    pub guards: &'a Guards,
    /// Whose they are.
    pub account: &'a str,
}

impl Checks<'_> {
    /// Whether a mail of `size_bytes`, 0 where that is not known, may come from `reverse_path`.
    ///
    /// # Errors
    /// With the reply that refuses it.
    pub fn sender(&self, reverse_path: &ReversePath, size_bytes: u64) -> Result<(), Reply> {
        let account = self.settings.account(self.account);
        match reverse_path {
            // RFC 5321 §4.5.5: a report of the app's own; its From is looked at all the same.
            ReversePath::Null(()) => {}
            ReversePath::Address(sender) if policy::may_send_as(account, sender) => {}
            ReversePath::Address(sender) => {
                let text = format!("this account may not send as <{sender}>");
                return Err(Reply::new(553, NOT_ALLOWED, text));
            }
        }
        self.door.store().can_accept(size_bytes).map_err(|error| store_reply(&error))
    }

    /// Counts a mail.
    ///
    /// # Errors
    /// With the reply that refuses it when the account has had its mails of this minute.
    pub fn count_message(&self) -> Result<(), Reply> {
        self.count(Counted::Message)
    }

    /// Counts a recipient.
    ///
    /// # Errors
    /// With the reply that refuses it when the account has had its recipients of this minute.
    pub fn count_recipient(&self) -> Result<(), Reply> {
        self.count(Counted::Recipient)
    }

    fn count(&self, counted: Counted) -> Result<(), Reply> {
        self.guards.rates.count(self.settings, self.account, counted, self.door.now())
    }
}

const NOT_ALLOWED: EnhancedStatus = EnhancedStatus::new(5, 7, 1);
