//! What is written but not in the index yet: look-ups ask here first, so they read every write.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use super::deliveries::DeliveryEnded;
use super::entry::Entry;
use super::keys;
use super::record::{Attempt, Bounce, Order, ReportCaptured, ReportId, ReportReceived, Submission};
use crate::mail::{MessageId, QueueId};

/// Entries that the applier has not come to.
#[derive(Debug, Default)]
pub(super) struct Pending {
    messages: HashMap<QueueId, PendingMessage>,
    message_ids: HashMap<MessageId, Vec<QueueId>>,
    /// The keys of `Entry::names`.
    names: BTreeSet<Vec<u8>>,
    recipients: HashMap<[u8; 12], BTreeMap<[u8; 10], Arc<Bounce>>>,
    recent: BTreeMap<[u8; 10], Arc<Bounce>>,
    reports: BTreeMap<ReportId, PendingReport>,
    /// Of each mail, oldest first.
    deliveries: HashMap<QueueId, Vec<Arc<DeliveryEnded>>>,
}

/// What is pending about one submission.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingMessage {
    /// Its record.
    pub(super) submission: Option<Arc<Submission>>,
    /// Its attempts, oldest first.
    pub(super) attempts: Vec<Arc<Attempt>>,
    /// Its bounces, oldest first.
    pub(super) bounces: Vec<Arc<Bounce>>,
    /// What was ordered, oldest first.
    pub(super) orders: Vec<Order>,
}

/// What is pending about one report.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingReport {
    /// The report.
    pub(super) received: Option<Arc<ReportReceived>>,
    /// Its mark.
    pub(super) captured: Option<Arc<ReportCaptured>>,
    /// Its bounces, in order.
    pub(super) bounces: Vec<Arc<Bounce>>,
}

impl Pending {
    /// Adds an entry.
    pub(super) fn add(&mut self, entry: &Entry) {
        self.names.extend(entry.names());
        match entry {
            Entry::Message(submission) => {
                let id = submission.queue_id;
                self.messages.entry(id).or_default().submission = Some(Arc::clone(submission));
                self.message_ids.entry(submission.message_id.clone()).or_default().push(id);
            }
            Entry::Attempt(attempt) => {
                let message = self.messages.entry(attempt.queue_id).or_default();
                message.attempts.push(Arc::clone(attempt));
            }
            Entry::Order(order) => {
                self.messages.entry(order.queue_id).or_default().orders.push(*order);
            }
            Entry::Bounce(bounce) => self.add_bounce(bounce),
            Entry::Report(report) => {
                self.reports.entry(report.id).or_default().received = Some(Arc::clone(report));
            }
            Entry::Captured(mark) => {
                self.reports.entry(mark.id).or_default().captured = Some(Arc::clone(mark));
            }
            Entry::Delivery(ended) => {
                self.deliveries.entry(ended.queue_id).or_default().push(Arc::clone(ended));
            }
            Entry::Notice(_)
            | Entry::Standing(..)
            | Entry::Cursor(_)
            | Entry::Suppression(_)
            | Entry::Closed(_)
            | Entry::Follower(_) => {}
        }
    }

    /// Takes an entry out that `add` put in: it is in the index now, or could not be written.
    pub(super) fn remove(&mut self, entry: &Entry) {
        for name in entry.names() {
            // Another entry may have had the same name, which is in the index now.
            self.names.remove(&name);
        }
        match entry {
            Entry::Message(submission) => {
                let id = submission.queue_id;
                self.change_message(id, |message| message.submission = None);
                if let Some(ids) = self.message_ids.get_mut(&submission.message_id) {
                    ids.retain(|other| *other != id);
                    if ids.is_empty() {
                        self.message_ids.remove(&submission.message_id);
                    }
                }
            }
            Entry::Attempt(attempt) => self.change_message(attempt.queue_id, |message| {
                message.attempts.retain(|other| !Arc::ptr_eq(other, attempt));
            }),
            Entry::Order(order) => self.change_message(order.queue_id, |message| {
                message.orders.retain(|other| other != order);
            }),
            Entry::Bounce(bounce) => self.remove_bounce(bounce),
            Entry::Report(report) => {
                self.change_report(report.id, |pending| pending.received = None);
            }
            Entry::Captured(mark) => {
                self.change_report(mark.id, |pending| pending.captured = None);
            }
            Entry::Delivery(ended) => {
                if let Some(of_mail) = self.deliveries.get_mut(&ended.queue_id) {
                    of_mail.retain(|other| !Arc::ptr_eq(other, ended));
                    if of_mail.is_empty() {
                        self.deliveries.remove(&ended.queue_id);
                    }
                }
            }
            Entry::Notice(_)
            | Entry::Standing(..)
            | Entry::Cursor(_)
            | Entry::Suppression(_)
            | Entry::Closed(_)
            | Entry::Follower(_) => {}
        }
    }

    /// What is pending about a submission.
    pub(super) fn message(&self, queue_id: QueueId) -> PendingMessage {
        self.messages.get(&queue_id).cloned().unwrap_or_default()
    }

    /// Pending submissions of a Message-ID.
    pub(super) fn by_message_id(&self, message_id: &MessageId) -> Vec<QueueId> {
        self.message_ids.get(message_id).cloned().unwrap_or_default()
    }

    /// Pending submissions that a name with this prefix leads to.
    pub(super) fn by_name(&self, prefix: &[u8]) -> Vec<QueueId> {
        let names = self.names.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
        let names = names.take_while(|name| name.starts_with(prefix));
        names.filter_map(|name| keys::inverted_id_of(name)).collect()
    }

    /// Pending bounces of an address, those with an id before `before` only.
    pub(super) fn by_recipient(&self, address: &str, before: Option<[u8; 10]>) -> Vec<Arc<Bounce>> {
        let bounces = self.recipients.get(&keys::address_hash(address));
        bounces.map_or_else(Vec::new, |bounces| before_id(bounces, before).cloned().collect())
    }

    /// Pending bounces, newest first, those with an id before `before` only.
    pub(super) fn recent(&self, before: Option<[u8; 10]>, max: usize) -> Vec<Arc<Bounce>> {
        before_id(&self.recent, before).take(max).cloned().collect()
    }

    /// What is pending about a report.
    pub(super) fn report(&self, id: ReportId) -> PendingReport {
        self.reports.get(&id).cloned().unwrap_or_default()
    }

    /// Pending reports with this digest, whether captured or not.
    pub(super) fn by_digest(&self, digest: &[u8; 16]) -> Vec<ReportId> {
        let has_it = |report: &PendingReport| {
            report.received.as_ref().is_some_and(|received| received.digest == *digest)
        };
        self.reports.iter().filter(|(_, report)| has_it(report)).map(|(id, _)| *id).collect()
    }

    /// Pending reports, oldest first.
    pub(super) fn arrived(&self) -> Vec<ReportId> {
        let arrived = self.reports.iter().filter(|(_, report)| report.received.is_some());
        arrived.map(|(id, _)| *id).collect()
    }

    /// Pending reports that match nothing, oldest first.
    pub(super) fn unmatched(&self) -> Vec<ReportId> {
        self.marks().filter(|mark| mark.is_unmatched()).map(|mark| mark.id).collect()
    }

    /// Pending marks of captured reports.
    pub(super) fn marks(&self) -> impl Iterator<Item = &Arc<ReportCaptured>> {
        self.reports.values().filter_map(|report| report.captured.as_ref())
    }

    /// The newest pending deliveries about a submission, `max` at most, oldest first.
    pub(super) fn deliveries(&self, queue_id: QueueId, max: usize) -> Vec<Arc<DeliveryEnded>> {
        let of_mail = self.deliveries.get(&queue_id).map(Vec::as_slice).unwrap_or_default();
        of_mail.iter().skip(of_mail.len().saturating_sub(max)).cloned().collect()
    }

    /// Whether a bounce of this submission with this key is pending.
    pub(super) fn knows_bounce(&self, queue_id: QueueId, key: &[u8; 16]) -> bool {
        let message = self.messages.get(&queue_id);
        message.is_some_and(|message| message.bounces.iter().any(|bounce| bounce.key == *key))
    }

    fn add_bounce(&mut self, bounce: &Arc<Bounce>) {
        let id = keys::bounce_id_bytes(bounce);
        let address = keys::address_hash(&bounce.recipient);
        self.recipients.entry(address).or_default().insert(id, Arc::clone(bounce));
        self.recent.insert(id, Arc::clone(bounce));
        if let Some(queue_id) = bounce.queue_id {
            self.messages.entry(queue_id).or_default().bounces.push(Arc::clone(bounce));
        }
        if let Some(report) = bounce.report_id {
            self.reports.entry(report).or_default().bounces.push(Arc::clone(bounce));
        }
    }

    fn remove_bounce(&mut self, bounce: &Arc<Bounce>) {
        let id = keys::bounce_id_bytes(bounce);
        let address = keys::address_hash(&bounce.recipient);
        if let Some(bounces) = self.recipients.get_mut(&address) {
            remove_same(bounces, &id, bounce);
            if bounces.is_empty() {
                self.recipients.remove(&address);
            }
        }
        remove_same(&mut self.recent, &id, bounce);
        if let Some(queue_id) = bounce.queue_id {
            self.change_message(queue_id, |message| {
                message.bounces.retain(|other| !Arc::ptr_eq(other, bounce));
            });
        }
        if let Some(report) = bounce.report_id {
            self.change_report(report, |pending| {
                pending.bounces.retain(|other| !Arc::ptr_eq(other, bounce));
            });
        }
    }

    fn change_message(&mut self, queue_id: QueueId, change: impl FnOnce(&mut PendingMessage)) {
        if let Some(message) = self.messages.get_mut(&queue_id) {
            change(message);
            if message.submission.is_none()
                && message.attempts.is_empty()
                && message.bounces.is_empty()
                && message.orders.is_empty()
            {
                self.messages.remove(&queue_id);
            }
        }
    }

    fn change_report(&mut self, id: ReportId, change: impl FnOnce(&mut PendingReport)) {
        if let Some(report) = self.reports.get_mut(&id) {
            change(report);
            if report.received.is_none() && report.captured.is_none() && report.bounces.is_empty() {
                self.reports.remove(&id);
            }
        }
    }
}

/// Takes a bounce out unless what revises it stands in its place.
fn remove_same(bounces: &mut BTreeMap<[u8; 10], Arc<Bounce>>, id: &[u8; 10], bounce: &Arc<Bounce>) {
    if bounces.get(id).is_some_and(|other| Arc::ptr_eq(other, bounce)) {
        bounces.remove(id);
    }
}

/// The bounces with an id before `before`, newest first.
fn before_id(
    bounces: &BTreeMap<[u8; 10], Arc<Bounce>>,
    before: Option<[u8; 10]>,
) -> impl Iterator<Item = &Arc<Bounce>> {
    let end = before.map_or(Bound::Unbounded, Bound::Excluded);
    bounces.range((Bound::Unbounded, end)).rev().map(|(_, bounce)| bounce)
}
