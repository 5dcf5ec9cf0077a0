//! The mail log: one line per mail event and recipient, with fixed verbs and fixed keys.
//!
//! Lines go through `tracing` with the target `mail`, so they are text or JSON as the operator
//! chose. A key that has no value is left out. Values never hold a secret; control characters
//! in them are replaced, so that a peer cannot forge a line.

use std::time::Duration;

use crate::mail::header::sanitized;
use crate::mail::{EnhancedStatus, QueueId};

/// What a line says; fill in what is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Line<'a> {
    /// The submission.
    pub queue_id: Option<QueueId>,
    /// Its Message-ID, without angle brackets.
    pub message_id: Option<&'a str>,
    /// Whose it is.
    pub account: Option<&'a str>,
    /// The reverse-path, without angle brackets.
    pub from: Option<&'a str>,
    /// The recipient.
    pub to: Option<&'a str>,
    /// Octets of the mail.
    pub size_bytes: Option<u64>,
    /// The next hop.
    pub relay: Option<&'a str>,
    /// Time since the mail was taken over.
    pub delay: Option<Duration>,
    /// Which attempt it was.
    pub attempt: Option<u32>,
    /// The enhanced status.
    pub status: Option<EnhancedStatus>,
    /// The other side's words.
    pub reply: Option<&'a str>,
    /// The peer.
    pub client: Option<&'a str>,
    /// What we make of it: a category, or why it was refused.
    pub reason: Option<&'a str>,
    /// The report.
    pub report: Option<&'a str>,
}

macro_rules! verbs {
    ($($(#[$doc:meta])* $verb:ident,)*) => {
        $($(#[$doc])* pub fn $verb(line: &Line<'_>) { line.write(stringify!($verb)); })*
    };
}

verbs! {
    /// A mail or a report was taken over.
    accepted,
    /// A client, sender, recipient, mail or report was refused.
    rejected,
    /// An attempt failed and will be followed by another.
    deferred,
    /// The next hop took it.
    relayed,
    /// It was refused for good.
    failed,
    /// Its time in the queue is over.
    expired,
    /// A report said that it failed.
    bounced,
    /// A DSN, a delay notice or a forwarded report was submitted.
    notified,
}

impl Line<'_> {
    fn write(&self, verb: &'static str) {
        let text = |value: Option<&str>| value.map(sanitized);
        let shown = |value: Option<String>| value.map(tracing::field::display);
        tracing::info!(
            target: "mail",
            queue_id = shown(self.queue_id.map(|id| id.to_string())),
            message_id = shown(text(self.message_id)),
            account = shown(text(self.account)),
            from = shown(text(self.from)),
            to = shown(text(self.to)),
            size = self.size_bytes,
            relay = shown(text(self.relay)),
            delay_ms = self.delay.map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX)),
            attempt = self.attempt,
            status = shown(self.status.map(|status| status.to_string())),
            reply = shown(text(self.reply)),
            client = shown(text(self.client)),
            reason = shown(text(self.reason)),
            report = shown(text(self.report)),
            "{verb}"
        );
    }
}

/// An error and what caused it, on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
