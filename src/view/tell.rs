//! Looks up what events are about and says what is told of them.

use std::collections::HashMap;

use super::event::{Subject, Told, event, event_name};
use crate::bounce;
use crate::mail::QueueId;
use crate::store::record::ReportCaptured;
use crate::store::{Event, Happened, MessageRecord, Store, StoreError};

/// Tells of the events of one piece of the feed: each mail is looked up once, however many
/// recipients it has. It reads the store, so it may block.
pub struct Teller<'a> {
    store: &'a Store,
    mails: HashMap<QueueId, Option<MessageRecord>>,
}

impl<'a> Teller<'a> {
    /// For events that have been read from the store before; what has happened since is not
    /// looked at.
    pub fn new(store: &'a Store) -> Self {
        Self { store, mails: HashMap::new() }
    }

    /// What is told of an event; `None` where nobody is told anything.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn tell(&mut self, told: &Event) -> Result<Option<Told>, StoreError> {
        if event_name(&told.what).is_none() {
            return Ok(None);
        }
        if let Happened::Report(captured) = &told.what {
            return self.tell_of_report(told, captured);
        }
        let message = match told.queue_id() {
            Some(queue_id) => self.mail(queue_id)?,
            None => None,
        };
        Ok(event(told, Subject { message, report: None }))
    }

    fn tell_of_report(
        &mut self,
        told: &Event,
        captured: &ReportCaptured,
    ) -> Result<Option<Told>, StoreError> {
        let Ok(report) = self.store.report(captured.id)? else { return Ok(None) };
        let first = self.store.report_by_digest(&report.received.digest)?;
        if first.is_some_and(|first| first < captured.id) {
            // The same mail came in two ways; it has been told.
            return Ok(None);
        }
        let facts = bounce::read(&report.received.raw);
        let message = match told.queue_id() {
            Some(queue_id) => self.mail(queue_id)?,
            None => None,
        };
        Ok(event(told, Subject { message, report: Some((&report, &facts)) }))
    }

    /// A mail, unless it is older than what is kept.
    fn mail(&mut self, queue_id: QueueId) -> Result<Option<&MessageRecord>, StoreError> {
        let known = match self.mails.entry(queue_id) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                unknown.insert(self.store.message(queue_id)?.ok())
            }
        };
        Ok(known.as_ref())
    }
}
