//! Lists, newest first: the mails of an account and the reports that brought bounces of them, and
//! how many there are; all reports, and those that match nothing.

use std::collections::BTreeSet;

use super::StoreError;
use super::archive::Archive;
use super::keys::{self, ReportPart};
use super::record::ReportId;
use super::shared::Shared;
use crate::mail::QueueId;

/// What is listed: an id that begins with the time.
trait Id: Copy + Ord {
    /// The day in which it lies.
    fn day(self) -> u32;
}

impl Id for QueueId {
    fn day(self) -> u32 {
        self.time().day()
    }
}

impl Id for ReportId {
    fn day(self) -> u32 {
        self.0.time().day()
    }
}

impl Shared {
    /// The mails of an account, or of all, newest first, those before `before` only.
    pub(super) fn sent(
        &self,
        account: Option<&str>,
        before: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<QueueId>, StoreError> {
        let before = before.map(|id| (id, keys::account_key(account, id)));
        self.listed(&keys::account_prefix(account), before, max)
    }

    /// The reports that brought bounces of an account's mails, likewise.
    pub(super) fn bounced(
        &self,
        account: &str,
        before: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        let before = before.map(|id| (id.0, keys::account_report_key(account, id)));
        let ids = self.listed(&keys::account_report_prefix(account), before, max)?;
        Ok(ids.into_iter().map(ReportId).collect())
    }

    /// How many mails of an account, or of all, are kept.
    pub(super) fn sent_count(&self, account: Option<&str>) -> Result<u64, StoreError> {
        self.counted(&keys::account_prefix(account), |id| keys::account_key(account, id))
    }

    /// How many reports that brought bounces of an account's mails are kept.
    pub(super) fn bounced_count(&self, account: &str) -> Result<u64, StoreError> {
        let key = |id| keys::account_report_key(account, ReportId(id));
        self.counted(&keys::account_report_prefix(account), key)
    }

    /// All reports, captured or not, newest first, those before `before` only.
    pub(super) fn reports(
        &self,
        before: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        let pending = self.core().pending.arrived();
        let end = before.map(|before| keys::report_key(before, ReportPart::Received));
        // Each report has up to two rows.
        let rows_max = max.saturating_mul(2);
        self.newest(pending, before, max, |day| {
            let rows =
                self.archive.scan_back(day, &keys::report_prefix(), end.as_deref(), rows_max)?;
            let received = |(key, _): &(Vec<u8>, _)| keys::report_of(key, ReportPart::Received);
            Ok(rows.iter().filter_map(received).collect())
        })
    }

    /// Reports that match nothing, likewise.
    pub(super) fn unmatched_reports(
        &self,
        before: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        let pending = self.core().pending.unmatched();
        let after = before.map(keys::unmatched_key);
        self.newest(pending, before, max, |day| {
            let prefix = keys::unmatched_prefix();
            let rows = self.archive.scan(day, &prefix, after.as_deref(), max)?;
            Ok(rows.iter().filter_map(|(key, _)| keys::inverted_id_of(key)).map(ReportId).collect())
        })
    }

    /// The ids in names with a prefix, newest first: those before the id and the name `before`.
    fn listed(
        &self,
        prefix: &[u8],
        before: Option<(QueueId, Vec<u8>)>,
        max: usize,
    ) -> Result<Vec<QueueId>, StoreError> {
        let (before, after) = before.unzip();
        let pending = self.core().pending.by_name(prefix);
        self.newest(pending, before, max, |day| {
            let rows = self.archive.scan(day, prefix, after.as_deref(), max)?;
            Ok(rows.iter().filter_map(|(key, _)| keys::inverted_id_of(key)).collect())
        })
    }

    /// The newest `max` of what is pending and of what the days have, those before `before` only.
    /// What is pending is to be asked for first: what leaves it is in the index by then.
    fn newest<I: Id>(
        &self,
        pending: Vec<I>,
        before: Option<I>,
        max: usize,
        of_day: impl Fn(u32) -> Result<Vec<I>, StoreError>,
    ) -> Result<Vec<I>, StoreError> {
        let is_before = |id: &I| before.is_none_or(|before| *id < before);
        let mut found: BTreeSet<I> = pending.into_iter().filter(is_before).collect();
        let mut from_days = 0_usize;
        for day in self.archive.days() {
            if from_days >= max {
                break;
            }
            // A day after that of `before` has nothing before it.
            if before.is_some_and(|before| day > before.day()) {
                continue;
            }
            let ids = of_day(day)?;
            from_days = from_days.saturating_add(ids.len());
            found.extend(ids);
        }
        Ok(found.into_iter().rev().take(max).collect())
    }

    /// How many names with a prefix there are. Where some come into the index all the time, the
    /// last of them may be left out.
    fn counted(&self, prefix: &[u8], key: impl Fn(QueueId) -> Vec<u8>) -> Result<u64, StoreError> {
        let mut total = 0;
        for _ in 0..COUNTED_MAX {
            // Pending first: what leaves it is in the index by then.
            let pending = self.core().pending.by_name(prefix);
            let not_in_index = || {
                let mut ids = 0_u64;
                for id in &pending {
                    let is_there = self.archive.value(id.time().day(), &key(*id))?.is_some();
                    ids = ids.saturating_add(u64::from(!is_there));
                }
                Ok::<u64, StoreError>(ids)
            };
            let before = not_in_index()?;
            let mut in_index = 0_u64;
            for day in self.archive.days() {
                in_index = in_index.saturating_add(self.archive.count(day, prefix)?);
            }
            let after = not_in_index()?;
            total = in_index.saturating_add(after);
            if before == after {
                break;
            }
        }
        Ok(total)
    }
}

impl Archive {
    /// How many rows of a day have a prefix that is counted.
    fn count(&self, day: u32, prefix: &[u8]) -> Result<u64, StoreError> {
        if !self.may_contain(day, prefix) {
            return Ok(0);
        }
        if let Some(count) = self.notes().count(day, prefix) {
            return Ok(count);
        }
        let look = self.notes().look(day);
        let value = self.value(day, &keys::count_key(prefix))?;
        let count = value.map_or(0, |value| keys::count_of(&value));
        self.notes().saw_count(look, prefix, count);
        Ok(count)
    }
}

/// How often it is counted again because something came into the index meanwhile.
const COUNTED_MAX: usize = 5;
