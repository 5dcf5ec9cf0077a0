//! Mailboxes as JSON: how the poller is doing with them.

use serde_json::{Map, Value};

use super::put;
use crate::store::MailboxStatus;

/// How the poller is doing with a mailbox.
pub fn mailbox(status: &MailboxStatus) -> Value {
    let error = status.last_error.as_ref().map(|(date, message)| {
        object! { "date": date.rfc3339(), "message": message, }
    });
    let counts = &status.counts;
    object! {
        "name": &status.name,
        "state": status.state.as_str(),
        "since": status.since.rfc3339(),
        "lastPoll": status.last_poll.map(|time| time.rfc3339()),
        "lastError": error,
        "folders": &status.folders,
        "counts": object! {
            "seen": counts.seen,
            "read": counts.read,
            "captured": counts.captured,
            "known": counts.known,
            "unreadable": counts.unreadable,
            "errors": counts.errors,
        },
    }
}
