//! The feed: what has happened to any mail, in the order in which it was written.
//!
//! It is no record of its own but an order over those that are there, so it tells of each in
//! the very write that made it true. It shows what is in the index, all of which is on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::StoreError;
use super::archive::Archive;
use super::entry::Entry;
use super::keys;
use super::layout::Location;
use super::record::{Attempt, Bounce, Closed, FeedCursor, Order, ReportCaptured, Submission};
use super::shared::Shared;
use crate::mail::QueueId;

/// A piece of the feed.
#[derive(Clone, Debug, PartialEq)]
pub struct Events {
    /// What has happened, oldest first.
    pub events: Vec<Event>,
    /// The place behind which the next piece begins.
    pub end: u64,
    /// Whether there was nothing more at the time.
    pub is_last: bool,
}

/// One thing that has happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Its place in the order of all writes: later events have larger ones.
    pub place: u64,
    /// What it was.
    pub what: Happened,
}

impl Event {
    /// The mail that it is about, where one is known; of a report the first.
    pub fn queue_id(&self) -> Option<QueueId> {
        match &self.what {
            Happened::Attempt(attempt) => Some(attempt.queue_id),
            Happened::Bounce(bounce) => bounce.queue_id,
            Happened::Report(captured) => captured.matched.first().copied(),
            Happened::Closed(closed) => Some(closed.queue_id),
            Happened::Canceled(order) => Some(order.queue_id),
            Happened::Suppressed(submission) => Some(submission.queue_id),
        }
    }
}

/// What has happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// A recipient was tried.
    Attempt(Arc<Attempt>),
    /// A bounce or delivery news was captured.
    Bounce(Arc<Bounce>),
    /// A report was captured, whatever was in it.
    Report(Arc<ReportCaptured>),
    /// A mail was closed.
    Closed(Arc<Closed>),
    /// What still waited of a mail was canceled. Nobody is told: who did it knows.
    Canceled(Order),
    /// A mail was taken over of which every recipient is suppressed. Nobody is told: it was
    /// answered so.
    Suppressed(Arc<Submission>),
}

impl Shared {
    /// At most `max` events behind the place `after`, oldest first.
    pub(super) fn events_after(&self, after: u64, max: usize) -> Result<Events, StoreError> {
        // What a group that is being applied has in one day, but not in another yet, is left for
        // later: else an event could be passed over.
        let until = *self.applied.borrow();
        let found = self.archive.feed(after, until, max)?;
        let is_last = found.len() < max;
        let last = found.last_key_value().map(|(place, _)| *place);
        let end = last.filter(|_last| !is_last).unwrap_or(until.max(after));
        let mut events = Vec::with_capacity(found.len());
        for (place, location) in found {
            let what = match self.archive.read(location)? {
                Some(Entry::Attempt(attempt)) => Happened::Attempt(attempt),
                Some(Entry::Bounce(bounce)) => Happened::Bounce(bounce),
                Some(Entry::Captured(mark)) => Happened::Report(mark),
                Some(Entry::Closed(closed)) => Happened::Closed(closed),
                Some(Entry::Order(order)) => Happened::Canceled(order),
                Some(Entry::Message(submission)) => Happened::Suppressed(submission),
                // A damaged record has been logged; the feed goes on behind it.
                _ => continue,
            };
            events.push(Event { place, what });
        }
        Ok(Events { events, end, is_last })
    }

    /// How far a follower has come.
    pub(super) fn feed_cursor(&self, follower: &str) -> Option<FeedCursor> {
        let core = self.core();
        let cursor = core.live.follower(&FeedCursor::key_of(follower))?;
        (cursor.follower == follower).then(|| cursor.as_ref().clone())
    }

    /// Whether a mail has been closed.
    pub(super) fn is_closed(&self, queue_id: QueueId) -> Result<bool, StoreError> {
        let key = keys::closed_key(queue_id);
        // Pending first: what leaves it is in the index by then.
        if !self.core().pending.by_name(&key).is_empty() {
            return Ok(true);
        }
        Ok(self.archive.value(queue_id.time().day(), &key)?.is_some())
    }
}

impl Archive {
    /// Where the records of at most `max` events behind the place `after`, up to `until`, lie.
    fn feed(
        &self,
        after: u64,
        until: u64,
        max: usize,
    ) -> Result<BTreeMap<u64, Location>, StoreError> {
        let prefix = keys::feed_prefix();
        let key = keys::feed_key(after);
        let mut found = BTreeMap::new();
        // The days of events mostly rise with their places. A clock that was set back makes
        // exceptions, so every day is asked that may have something behind `after`.
        for day in self.days() {
            if self.notes().is_feed_over(day, after) {
                continue;
            }
            let look = self.notes().look(day);
            let rows = self.scan(day, &prefix, Some(&key), max)?;
            if rows.is_empty() {
                self.notes().saw_no_event(look, after);
            }
            let places = rows
                .iter()
                .filter_map(|(key, value)| Some((keys::feed_lsn(key)?, Location::decode(value)?)));
            found.extend(places.filter(|(place, _)| *place <= until));
            while found.len() > max {
                found.pop_last();
            }
        }
        Ok(found)
    }
}
