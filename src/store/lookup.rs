//! Look-ups: what is pending first, then the index, so that every write is seen at once.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::entry::{self, Entry};
use super::keys::{self, ReportPart};
use super::layout::Location;
use super::pending::PendingMessage;
use super::record::{
    Attempt, Bounce, BounceKey, Decision, Order, ReportCaptured, ReportId, ReportReceived,
    Submission,
};
use super::shared::Shared;
use super::{MessageRecord, Missing, ReportRecord, StoreError};
use crate::mail::{MessageId, QueueId, Timestamp};

impl Shared {
    pub(super) fn message(
        &self,
        queue_id: QueueId,
    ) -> Result<Result<MessageRecord, Missing>, StoreError> {
        // Pending first: what leaves it is in the index by then.
        let pending = self.core().pending.message(queue_id);
        let submission = match self.submission_of(queue_id, &pending)? {
            Ok(submission) => submission,
            Err(missing) => return Ok(Err(missing)),
        };
        let Events { attempts, bounces, orders } = self.events(queue_id, pending)?;
        Ok(Ok(MessageRecord { submission, attempts, bounces, orders }))
    }

    pub(super) fn submission(
        &self,
        queue_id: QueueId,
    ) -> Result<Result<Submission, Missing>, StoreError> {
        let pending = self.core().pending.message(queue_id);
        self.submission_of(queue_id, &pending)
    }

    /// The submissions of a Message-ID, newest first.
    pub(super) fn by_message_id(&self, wanted: &MessageId) -> Result<Vec<QueueId>, StoreError> {
        let mut found: BTreeSet<QueueId> =
            self.core().pending.by_message_id(wanted).into_iter().collect();
        let prefix = keys::message_id_prefix(wanted);
        for day in self.archive.days() {
            for (key, value) in self.archive.scan(day, &prefix, None, SUBMISSIONS_MAX)? {
                let Some(queue_id) = keys::inverted_id_of(&key) else { continue };
                if let Some(Entry::Message(submission)) = self.entry(&value)?
                    && entry::is_same_message(&submission, wanted)
                {
                    found.insert(queue_id);
                }
            }
        }
        Ok(found.into_iter().rev().collect())
    }

    /// The submissions to which a next hop gave this Message-ID, newest first.
    pub(super) fn by_alias(&self, wanted: &MessageId) -> Result<Vec<QueueId>, StoreError> {
        let prefix = keys::alias_prefix(wanted);
        let mut found = Vec::new();
        for record in self.named(&prefix, Timestamp::default(), NAMED_MAX)? {
            if record.attempts.iter().any(|attempt| attempt.alias.as_ref() == Some(wanted)) {
                found.push(record.submission.queue_id);
            }
        }
        Ok(found)
    }

    /// The attempts, of mails taken over since `since`, in which a next hop took the mail under
    /// this queue id; those of the newest mails first.
    pub(super) fn by_remote_queue_id(
        &self,
        wanted: &str,
        since: Timestamp,
    ) -> Result<Vec<Attempt>, StoreError> {
        let prefix = keys::remote_queue_id_prefix(wanted);
        let is_wanted = |attempt: &Attempt| {
            attempt.decision == Decision::Relayed
                && attempt.remote_queue_id.as_deref() == Some(wanted)
        };
        let records = self.named(&prefix, since, NAMED_MAX)?;
        Ok(records.into_iter().flat_map(|record| record.attempts).filter(is_wanted).collect())
    }

    /// The newest mails of apps to an address, `max` at most, taken over since `since`.
    pub(super) fn sent_to(
        &self,
        address: &str,
        since: Timestamp,
        max: usize,
    ) -> Result<Vec<MessageRecord>, StoreError> {
        let mut records = self.named(&keys::sent_prefix(address), since, max)?;
        records.retain(|record| {
            let mut recipients = record.submission.envelope.recipients.iter();
            recipients.any(|to| to.address.canonical() == address)
        });
        Ok(records)
    }

    /// The newest mail that an account submitted with this idempotency key since `since`.
    pub(super) fn by_idempotency_key(
        &self,
        account: &str,
        key: &str,
        since: Timestamp,
    ) -> Result<Option<Submission>, StoreError> {
        let records = self.named(&keys::idempotency_prefix(account, key), since, NAMED_MAX)?;
        let mut submissions = records.into_iter().map(|record| record.submission);
        Ok(submissions.find(|submission| {
            let once = submission.control.idempotency.as_ref();
            submission.account == account && once.is_some_and(|once| once.key == key)
        }))
    }

    pub(super) fn report(&self, id: ReportId) -> Result<Result<ReportRecord, Missing>, StoreError> {
        let pending = self.core().pending.report(id);
        let received = match pending.received {
            Some(received) => Some(received.as_ref().clone()),
            None => self.received(id)?,
        };
        let Some(received) = received else { return Ok(Err(self.missing(id.0.time()))) };
        let captured = match pending.captured {
            Some(captured) => Some(captured.as_ref().clone()),
            None => self.captured(id)?,
        };
        Ok(Ok(ReportRecord { received, captured }))
    }

    pub(super) fn report_by_digest(
        &self,
        digest: &[u8; 16],
    ) -> Result<Option<ReportId>, StoreError> {
        for id in self.reports_by_digest(digest)? {
            let pending = self.core().pending.report(id);
            if pending.captured.is_some() || self.captured(id)?.is_some() {
                return Ok(Some(id));
            }
        }
        Ok(None)
    }

    /// All reports of a digest, captured or not, oldest first.
    pub(super) fn reports_by_digest(
        &self,
        digest: &[u8; 16],
    ) -> Result<BTreeSet<ReportId>, StoreError> {
        let mut found: BTreeSet<ReportId> =
            self.core().pending.by_digest(digest).into_iter().collect();
        let prefix = keys::digest_prefix(digest);
        for day in self.archive.days() {
            for (key, _) in self.archive.scan(day, &prefix, None, SUBMISSIONS_MAX)? {
                found.extend(keys::id_of(&key).map(ReportId));
            }
        }
        Ok(found)
    }

    pub(super) fn bounces_of_report(&self, id: ReportId) -> Result<Vec<Bounce>, StoreError> {
        let pending = self.core().pending.report(id);
        let mut bounces = Latest::default();
        let prefix = keys::report_bounce_prefix(id);
        for (_, value) in self.archive.scan(id.0.time().day(), &prefix, None, usize::MAX)? {
            if let Some(Entry::Bounce(bounce)) = self.entry(&value)? {
                bounces.put(&bounce);
            }
        }
        pending.bounces.iter().for_each(|bounce| bounces.put(bounce));
        Ok(bounces.bounces)
    }

    /// Captured reports that arrived at `from` or later, behind `after`, oldest first.
    pub(super) fn captured_reports(
        &self,
        from: Timestamp,
        after: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        let before = QueueId::new(from.minus(Duration::from_millis(1)), u32::MAX);
        let after = after.unwrap_or(ReportId(before)).max(ReportId(before));
        let mut found: BTreeSet<ReportId> =
            self.core().pending.marks().map(|mark| mark.id).filter(|id| *id > after).collect();
        let key = keys::report_key(after, ReportPart::Captured);
        let mut from_days: usize = 0;
        let days = self.archive.days().into_iter().rev();
        for day in days.filter(|day| *day >= after.0.time().day()) {
            if from_days >= max {
                break;
            }
            // Each report has up to two rows.
            let rows = max.saturating_mul(2);
            let rows = self.archive.scan(day, &keys::report_prefix(), Some(&key), rows)?;
            let ids: BTreeSet<ReportId> = rows
                .iter()
                .filter_map(|(key, _)| keys::report_of(key, ReportPart::Captured))
                .collect();
            from_days = from_days.saturating_add(ids.len());
            found.extend(ids);
        }
        Ok(found.into_iter().take(max).collect())
    }

    /// Whether a bounce of a submission is in the index.
    pub(super) fn index_knows_bounce(
        &self,
        queue_id: QueueId,
        key: &[u8; 16],
    ) -> Result<bool, StoreError> {
        let row =
            self.archive.value(queue_id.time().day(), &keys::known_bounce_key(queue_id, key))?;
        match row {
            // The row says where the bounce is; it is compared, as every look-up is.
            Some(value) => Ok(match self.entry(&value)? {
                Some(Entry::Bounce(bounce)) => {
                    bounce.queue_id == Some(queue_id) && bounce.key == *key
                }
                _ => false,
            }),
            None => Ok(false),
        }
    }

    /// Why nothing is known under an id of this time.
    pub(super) fn missing(&self, time: Timestamp) -> Missing {
        let window = self.clock.now().minus(self.keep).day().max(self.archive.kept_from());
        if time.day() < window { Missing::Purged } else { Missing::NeverSeen }
    }

    /// The newest submissions that names with this prefix lead to, taken over since `since`.
    fn named(
        &self,
        prefix: &[u8],
        since: Timestamp,
        max: usize,
    ) -> Result<Vec<MessageRecord>, StoreError> {
        let mut found: BTreeSet<QueueId> =
            self.core().pending.by_name(prefix).into_iter().collect();
        let mut from_days: usize = 0;
        for day in self.archive.days().into_iter().filter(|day| *day >= since.day()) {
            if from_days >= max {
                break;
            }
            let rows = self.archive.scan(day, prefix, None, max)?;
            from_days = from_days.saturating_add(rows.len());
            found.extend(rows.iter().filter_map(|(key, _)| keys::inverted_id_of(key)));
        }
        let mut records = Vec::new();
        for queue_id in found.into_iter().rev().filter(|id| id.time() >= since).take(max) {
            records.extend(self.message(queue_id)?.ok());
        }
        Ok(records)
    }

    fn submission_of(
        &self,
        queue_id: QueueId,
        pending: &PendingMessage,
    ) -> Result<Result<Submission, Missing>, StoreError> {
        if let Some(submission) = &pending.submission {
            return Ok(Ok(submission.as_ref().clone()));
        }
        let time = queue_id.time();
        match self.entry_at(time.day(), &keys::submission_key(queue_id))? {
            Some(Entry::Message(found)) if found.queue_id == queue_id => {
                Ok(Ok(found.as_ref().clone()))
            }
            _ => Ok(Err(self.missing(time))),
        }
    }

    fn events(&self, queue_id: QueueId, pending: PendingMessage) -> Result<Events, StoreError> {
        let mut attempts: Vec<Attempt> = Vec::new();
        let mut orders: Vec<Order> = Vec::new();
        let mut bounces = Latest::default();
        let prefix = keys::event_prefix(queue_id);
        for (_, value) in self.archive.scan(queue_id.time().day(), &prefix, None, usize::MAX)? {
            match self.entry(&value)? {
                Some(Entry::Attempt(attempt)) if attempt.queue_id == queue_id => {
                    attempts.push(attempt.as_ref().clone());
                }
                Some(Entry::Bounce(bounce)) if bounce.queue_id == Some(queue_id) => {
                    bounces.put(&bounce);
                }
                Some(Entry::Order(order)) if order.queue_id == queue_id => orders.push(order),
                _ => {}
            }
        }
        for order in pending.orders {
            if !orders.contains(&order) {
                orders.push(order);
            }
        }
        for attempt in pending.attempts {
            let is_same = |known: &Attempt| {
                (known.recipient, known.number) == (attempt.recipient, attempt.number)
            };
            if !attempts.iter().any(is_same) {
                attempts.push(attempt.as_ref().clone());
            }
        }
        pending.bounces.iter().for_each(|bounce| bounces.put(bounce));
        Ok(Events { attempts, bounces: bounces.bounces, orders })
    }

    fn received(&self, id: ReportId) -> Result<Option<ReportReceived>, StoreError> {
        let key = keys::report_key(id, ReportPart::Received);
        Ok(match self.entry_at(id.0.time().day(), &key)? {
            Some(Entry::Report(report)) if report.id == id => Some(report.as_ref().clone()),
            _ => None,
        })
    }

    fn captured(&self, id: ReportId) -> Result<Option<ReportCaptured>, StoreError> {
        let key = keys::report_key(id, ReportPart::Captured);
        Ok(match self.entry_at(id.0.time().day(), &key)? {
            Some(Entry::Captured(mark)) if mark.id == id => Some(mark.as_ref().clone()),
            _ => None,
        })
    }

    fn entry_at(&self, day: u32, key: &[u8]) -> Result<Option<Entry>, StoreError> {
        match self.archive.value(day, key)? {
            Some(value) => self.entry(&value),
            None => Ok(None),
        }
    }

    /// What a row with this value points to.
    pub(super) fn entry(&self, value: &[u8]) -> Result<Option<Entry>, StoreError> {
        Location::decode(value).map_or(Ok(None), |location| self.archive.read(location))
    }
}

/// What happened to a submission, each kind oldest first.
struct Events {
    attempts: Vec<Attempt>,
    bounces: Vec<Bounce>,
    orders: Vec<Order>,
}

/// Bounces in the order in which they were made, each as it was read last.
#[derive(Default)]
struct Latest {
    bounces: Vec<Bounce>,
    places: HashMap<([u8; 10], BounceKey), usize>,
}

impl Latest {
    /// Adds a bounce, or puts it in the place of what it revises.
    fn put(&mut self, bounce: &Bounce) {
        let name = (keys::bounce_id_bytes(bounce), bounce.key);
        let place = *self.places.entry(name).or_insert(self.bounces.len());
        match self.bounces.get_mut(place) {
            Some(known) => known.clone_from(bounce),
            None => self.bounces.push(bounce.clone()),
        }
    }
}

/// Submissions of one Message-ID in one day that are looked at.
const SUBMISSIONS_MAX: usize = 1_000;
/// Submissions of one alias or one queue id of a next hop that are looked at.
const NAMED_MAX: usize = 20;
