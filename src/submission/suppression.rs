//! Recipients that are suppressed: nothing is sent to them where the operator wants it so.

use super::Door;
use crate::config::{Settings, Suppression, SuppressionMode};
use crate::mail::{Address, EnhancedStatus, Reply};
use crate::store::suppressions::SuppressionPolicy;

/// When an address counts as suppressed, as the settings have it.
pub fn suppression_policy(settings: &Suppression) -> SuppressionPolicy {
    SuppressionPolicy {
        hard_after: settings.hard_after,
        soft_after: settings.soft_after,
        expire: settings.expire.duration(),
    }
}

impl Door {
    /// Why `account` may not write to `recipient`: the reply that RCPT gets.
    ///
    /// Whoever brings a mail asks this for each of its recipients, once. Where one recipient alone
    /// cannot be refused, its `is_suppressed` says it instead: then it is never tried. Where
    /// nothing is to be refused it is counted what would have been.
    pub fn suppressed(
        &self,
        settings: &Settings,
        account: &str,
        recipient: &Address,
    ) -> Option<Reply> {
        let suppression = &settings.suppression;
        if suppression.mode == SuppressionMode::Off {
            return None;
        }
        let policy = suppression_policy(suppression);
        let entry = self.store().suppressed(account, &recipient.canonical(), policy)?;
        let is_refused = suppression.mode == SuppressionMode::Reject;
        self.metrics().recipient_suppressed(if is_refused { "refused" } else { "observed" });
        if !is_refused {
            return None;
        }
        let why = match (&entry.told, &entry.by_hand) {
            (_, Some(_)) => "it was suppressed by hand".to_owned(),
            (Some(told), None) => format!("it bounced before: {}", told.category),
            (None, None) => "it is suppressed".to_owned(),
        };
        let text = format!("<{recipient}> is not written to, {why}");
        Some(Reply::new(550, SUPPRESSED, text))
    }
}

/// RFC 3463 §3.2: the mailbox does not exist, as far as is known.
const SUPPRESSED: EnhancedStatus = EnhancedStatus::new(5, 1, 1);
