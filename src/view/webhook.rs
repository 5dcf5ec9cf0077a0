//! Webhooks as JSON: how they are doing, and what waits.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::put;
use crate::mail::Timestamp;
use crate::store::DeliveryEnded;
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

/// What webhooks were told of one mail, and what they are still to be told.
#[derive(Clone, Debug, Default)]
pub struct MailTold {
    /// What was taken or given up, oldest first.
    pub ended: Vec<Arc<DeliveryEnded>>,
    /// What waits, of each webhook the oldest event first.
    pub waiting: Vec<WaitingDelivery>,
    /// Whether there is more of either than this.
    pub has_more: bool,
}

/// A delivery that waits.
#[derive(Clone, Debug)]
pub struct WaitingDelivery {
    /// The name of the webhook.
    pub webhook: String,
    /// Whether nothing is sent to it until somebody enables it.
    pub is_disabled: bool,
    /// The delivery.
    pub delivery: Delivery,
}

impl MailTold {
    /// Whether nothing was told and nothing waits.
    pub fn is_empty(&self) -> bool {
        self.ended.is_empty() && self.waiting.is_empty()
    }
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
    let is_disabled = status.cursor.disabled.is_some();
    let waiting = status.cursor.waiting.iter().map(|one| {
        let mut shown = delivery(one, if one.attempts > 0 { "failing" } else { "waiting" });
        if let Value::Object(map) = &mut shown {
            put(map, "nextAttempt", next_attempt(one, is_disabled));
        }
        shown
    });
    let given_up = status.cursor.given_up.iter().map(|one| delivery(one, "givenUp"));
    if let Value::Object(map) = &mut shown {
        put(map, "deliveries", given_up.chain(waiting).collect::<Vec<Value>>());
    }
    shown
}

/// The id of the event that is on its way. Where that was not kept its place names it, too.
pub fn delivery_id(delivery: &Delivery) -> String {
    if delivery.event_id.is_empty() {
        super::cursor(delivery.place)
    } else {
        delivery.event_id.clone()
    }
}

fn delivery(delivery: &Delivery, state: &str) -> Value {
    let has_tried = delivery.attempts > 0;
    object! {
        "id": delivery_id(delivery),
        "event": name_of(&delivery.event),
        "state": state,
        "queueId": delivery.queue_id,
        "attempts": delivery.attempts,
        "firstAttempt": Some(delivery.first_attempt.rfc3339()).filter(|_date| has_tried),
        "givenUpAt": Some(delivery.next_attempt.rfc3339()).filter(|_date| state == "givenUp"),
        "error": Some(&delivery.error).filter(|error| !error.is_empty()),
    }
}

/// The value of `webhooks` in a timeline; absent where there is none.
pub(super) fn told(told: &MailTold) -> Option<Vec<Value>> {
    let ended = told.ended.iter().map(|one| ended(one));
    let waiting = told.waiting.iter().map(waiting);
    (!told.is_empty()).then(|| ended.chain(waiting).collect())
}

fn ended(ended: &DeliveryEnded) -> Value {
    object! {
        "webhook": &ended.webhook,
        "id": &ended.event_id,
        "event": name_of(&ended.event),
        "state": ended.end,
        "attempts": ended.attempts,
        "date": ended.ended_at.rfc3339(),
        "status": ended.status,
        "took": ended.took_millis,
        "error": Some(&ended.error).filter(|error| !error.is_empty()),
    }
}

fn waiting(waiting: &WaitingDelivery) -> Value {
    let delivery = &waiting.delivery;
    object! {
        "webhook": &waiting.webhook,
        "id": delivery_id(delivery),
        "event": name_of(&delivery.event),
        "state": "waiting",
        "attempts": delivery.attempts,
        "error": Some(&delivery.error).filter(|error| !error.is_empty()),
        "nextAttempt": next_attempt(delivery, waiting.is_disabled),
    }
}

/// When a delivery is tried again. One that was never tried goes as soon as there is room, behind
/// those of its mail that came before.
fn next_attempt(delivery: &Delivery, is_disabled: bool) -> Option<String> {
    let has_time = delivery.attempts > 0 && !is_disabled;
    has_time.then(|| delivery.next_attempt.rfc3339())
}

fn name_of(event: &str) -> Option<&str> {
    Some(event).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::DeliveryEnd;
    use crate::view::testing::{NOW, queue_id, record};
    use crate::view::{Closing, timeline};
    use serde_json::json;

    const WEEK: Closing = Closing { now: NOW, window: Duration::from_secs(7 * 86_400) };

    fn taken() -> DeliveryEnded {
        DeliveryEnded {
            queue_id: queue_id(),
            webhook: "app".to_owned(),
            event_id: "0183cc1ab07400000007".to_owned(),
            event: "messageSent".to_owned(),
            end: DeliveryEnd::Taken,
            ended_at: NOW,
            attempts: 3,
            status: Some(200),
            took_millis: Some(12),
            error: "503".to_owned(),
        }
    }

    fn waits(event_id: &str, event: &str) -> WaitingDelivery {
        let delivery = Delivery {
            place: 9,
            queue_id: Some(queue_id()),
            event_id: event_id.to_owned(),
            event: event.to_owned(),
            attempts: if event_id.is_empty() { 0 } else { 1 },
            first_attempt: NOW,
            next_attempt: NOW.plus(Duration::from_secs(10)),
            error: String::new(),
        };
        WaitingDelivery { webhook: "app".to_owned(), is_disabled: event.is_empty(), delivery }
    }

    #[test]
    fn a_timeline_lists_what_webhooks_were_told_and_what_waits() {
        let lost = DeliveryEnded {
            webhook: "crm".to_owned(),
            end: DeliveryEnd::GivenUp,
            status: None,
            error: "connection refused".to_owned(),
            ..taken()
        };
        // The second as an older version wrote it, for a webhook that is disabled.
        let waiting = vec![waits("0183cc1ab07400000009", "messageBounce"), waits("", "")];
        let told = MailTold { ended: vec![taken().into(), lost.into()], waiting, has_more: true };
        let shown = timeline(&record(vec![], vec![]), false, vec![], Some(&told), WEEK);
        assert_eq!(
            shown["webhooks"].to_string(),
            json!([
                {
                    "webhook": "app",
                    "id": "0183cc1ab07400000007",
                    "event": "messageSent",
                    "state": "taken",
                    "attempts": 3,
                    "date": "2022-10-12T12:10:40.980Z",
                    "status": 200,
                    "took": 12,
                    "error": "503"
                },
                {
                    "webhook": "crm",
                    "id": "0183cc1ab07400000007",
                    "event": "messageSent",
                    "state": "givenUp",
                    "attempts": 3,
                    "date": "2022-10-12T12:10:40.980Z",
                    "took": 12,
                    "error": "connection refused"
                },
                {
                    "webhook": "app",
                    "id": "0183cc1ab07400000009",
                    "event": "messageBounce",
                    "state": "waiting",
                    "attempts": 1,
                    "nextAttempt": "2022-10-12T12:10:50.980Z"
                },
                {
                    "webhook": "app",
                    "id": "00000000000000000009",
                    "state": "waiting",
                    "attempts": 0
                }
            ])
            .to_string()
        );
        assert_eq!(shown["moreWebhooks"], json!(true));
    }

    #[test]
    fn a_timeline_says_nothing_of_webhooks_where_none_was_told_or_they_are_not_for_who_asks() {
        for told in [None, Some(&MailTold::default())] {
            let shown = timeline(&record(vec![], vec![]), false, vec![], told, WEEK);
            let has = |key| shown.get(key).is_some();
            assert!(!has("webhooks") && !has("moreWebhooks"), "{shown}");
        }
    }
}
