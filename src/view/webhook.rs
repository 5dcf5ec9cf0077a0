//! Webhooks as JSON: how they are doing, and what waits.

use serde_json::{Map, Value};

use super::put;
use crate::mail::Timestamp;
use crate::store::record::{Delivery, FeedCursor};

/// How a webhook is doing.
#[derive(Clone, Debug)]
pub struct WebhookStatus {
    /// Its name in the settings.
    pub name: String,
    /// Where it leads, without what is secret in it.
    pub url: String,
    /// The form of what it is told.
    pub format: &'static str,
    /// The events it is told; empty means all.
    pub events: Vec<String>,
    /// The accounts whose events it is told; empty means all.
    pub accounts: Vec<String>,
    /// How far it has come.
    pub cursor: FeedCursor,
    /// When an event was taken last, since the daemon started.
    pub last_success: Option<Timestamp>,
    /// What went wrong last, and when, since the daemon started.
    pub last_error: Option<(Timestamp, String)>,
}

/// How a webhook is doing; every delivery that fails or was given up is listed apart.
pub fn webhook(status: &WebhookStatus) -> Value {
    let cursor = &status.cursor;
    let failing = cursor.waiting.iter().filter(|delivery| delivery.attempts > 0).count();
    let state = match (&cursor.disabled, failing) {
        (Some(_), _) => "disabled",
        (None, 0) => "active",
        (None, _) => "failing",
    };
    let error = status.last_error.as_ref().map(|(date, message)| {
        object! { "date": date.rfc3339(), "message": message, }
    });
    object! {
        "name": &status.name,
        "url": &status.url,
        "state": state,
        "format": status.format,
        "events": Some(&status.events).filter(|events| !events.is_empty()),
        "accounts": Some(&status.accounts).filter(|accounts| !accounts.is_empty()),
        "cursor": super::cursor(cursor.place),
        "waiting": cursor.waiting.len(),
        "failing": failing,
        "givenUp": cursor.given_up.len(),
        "disabledAt": cursor.disabled.map(|(date, _)| date.rfc3339()),
        "lastSuccess": status.last_success.map(Timestamp::rfc3339),
        "lastError": error,
    }
}

/// The same with its deliveries: `failing` have been tried, `waiting` come behind one of them or
/// are new, `givenUp` can be replayed.
pub fn webhook_deliveries(status: &WebhookStatus) -> Value {
    let mut shown = webhook(status);
    let waiting = status
        .cursor
        .waiting
        .iter()
        .map(|one| delivery(one, if one.attempts > 0 { "failing" } else { "waiting" }));
    let given_up = status.cursor.given_up.iter().map(|one| delivery(one, "givenUp"));
    if let Value::Object(map) = &mut shown {
        put(map, "deliveries", given_up.chain(waiting).collect::<Vec<Value>>());
    }
    shown
}

fn delivery(delivery: &Delivery, state: &str) -> Value {
    let has_tried = delivery.attempts > 0;
    object! {
        "id": super::cursor(delivery.place),
        "state": state,
        "queueId": delivery.queue_id,
        "attempts": delivery.attempts,
        "firstAttempt": Some(delivery.first_attempt.rfc3339()).filter(|_date| has_tried),
        "nextAttempt": Some(delivery.next_attempt.rfc3339()).filter(|_date| state != "givenUp"),
        "givenUpAt": Some(delivery.next_attempt.rfc3339()).filter(|_date| state == "givenUp"),
        "error": Some(&delivery.error).filter(|error| !error.is_empty()),
    }
}
