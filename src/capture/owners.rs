//! Whose the mails are that the bounces of a report are about.

use std::collections::{BTreeSet, HashMap};

use super::Capture;
use crate::mail::QueueId;
use crate::store::StoreError;
use crate::store::record::{Bounce, Origin};

/// The accounts of the mails of apps that failed, by mail.
#[derive(Debug, Default)]
pub(super) struct Owners(HashMap<QueueId, String>);

impl Capture {
    /// Looks each mail up once, however many of its recipients have failed.
    pub(super) fn owners(&self, bounces: &[Bounce]) -> Result<Owners, StoreError> {
        let failed = bounces.iter().filter(|bounce| bounce.is_failure());
        let mails: BTreeSet<QueueId> = failed.filter_map(|bounce| bounce.queue_id).collect();
        let mut owners = Owners::default();
        for queue_id in mails {
            let mail = self.inner.store.submission(queue_id)?.ok();
            let mail = mail.filter(|mail| mail.origin == Origin::App);
            owners.0.extend(mail.map(|mail| (queue_id, mail.account)));
        }
        Ok(owners)
    }
}

impl Owners {
    /// Whose mail it is; `None` for one of our own.
    pub(super) fn of(&self, queue_id: QueueId) -> Option<&str> {
        self.0.get(&queue_id).map(String::as_str)
    }

    /// All of them, each once.
    pub(super) fn all(&self) -> BTreeSet<String> {
        self.0.values().cloned().collect()
    }
}
