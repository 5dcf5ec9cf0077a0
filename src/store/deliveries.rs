//! What webhooks were told of a mail: a record of each delivery that has ended, for its timeline.
//!
//! It is written with the cursor of its webhook, so that a crash loses both or neither, and it is
//! no event: nobody is told of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::StoreError;
use super::entry::Entry;
use super::keys;
use super::shared::Shared;
use crate::mail::{QueueId, Timestamp};

/// A delivery to a webhook that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryEnded {
    /// The mail that the event is about; of a report the first.
    pub queue_id: QueueId,
    /// The webhook, by its name in the settings.
    pub webhook: String,
    /// The id of the event, the same as in the request.
    pub event_id: String,
    /// The name of the event.
    pub event: String,
    /// How it ended.
    pub end: DeliveryEnd,
    /// When.
    pub ended_at: Timestamp,
    /// How often it was tried.
    pub attempts: u32,
    /// The status of the last answer; `None` where the last attempt had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Milliseconds of the last attempt; `None` where nothing could be sent in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took_millis: Option<u64>,
    /// What went wrong in the last attempt that failed; empty where none did.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DeliveryEnd {
    /// The other side took it.
    Taken,
    /// Its time was over.
    GivenUp,
}

impl Shared {
    /// The newest deliveries about a mail that have ended, `max` at most, oldest first.
    pub(super) fn deliveries(
        &self,
        queue_id: QueueId,
        max: usize,
    ) -> Result<Vec<Arc<DeliveryEnded>>, StoreError> {
        // Pending first: what leaves it is in the index by then.
        let pending = self.core().pending.deliveries(queue_id, max);
        let prefix = keys::delivery_prefix(queue_id);
        let mut found = Vec::new();
        for (_, value) in self.archive.scan(queue_id.time().day(), &prefix, None, max)? {
            match self.entry(&value)? {
                Some(Entry::Delivery(ended)) if ended.queue_id == queue_id => found.push(ended),
                _ => {}
            }
        }
        found.reverse();
        for ended in pending {
            if !found.contains(&ended) {
                found.push(ended);
            }
        }
        found.drain(..found.len().saturating_sub(max));
        Ok(found)
    }
}
