//! The mails of an account, newest first, and how many there are.

use std::collections::{BTreeSet, HashMap};
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use super::StoreError;
use super::keys;
use super::shared::Shared;
use crate::mail::QueueId;

/// The mails of an account in one day that need not be counted again.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Count {
    /// The newest of them.
    newest: Option<QueueId>,
    mails: u64,
}

impl Shared {
    /// The mails of an account, or of all, newest first, those before `before` only.
    pub(super) fn sent(
        &self,
        account: Option<&str>,
        before: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<QueueId>, StoreError> {
        let is_before = |id: &QueueId| before.is_none_or(|before| *id < before);
        // Pending first: what leaves it is in the index by then.
        let prefix = keys::account_prefix(account);
        let pending = self.core().pending.by_name(&prefix);
        let mut found: BTreeSet<QueueId> = pending.into_iter().filter(is_before).collect();
        let after = before.map(|before| keys::account_key(account, before));
        let mut from_days = 0_usize;
        for day in self.archive.days() {
            if from_days >= max {
                break;
            }
            // A day after that of `before` has nothing before it.
            if before.is_some_and(|before| day > before.time().day()) {
                continue;
            }
            let rows = self.archive.scan(day, &prefix, after.as_deref(), max)?;
            from_days = from_days.saturating_add(rows.len());
            found.extend(rows.iter().filter_map(|(key, _)| keys::inverted_id_of(key)));
        }
        Ok(found.into_iter().rev().take(max).collect())
    }

    /// How many mails of an account, or of all, are kept.
    pub(super) fn sent_count(&self, account: Option<&str>) -> Result<u64, StoreError> {
        let prefix = keys::account_prefix(account);
        // Pending first: what leaves it is in the index by then, and is not counted there.
        let pending: BTreeSet<QueueId> = self.core().pending.by_name(&prefix).into_iter().collect();
        let days = self.archive.days();
        self.counts().retain(|(day, _), _| days.contains(day));
        let mut total = u64::try_from(pending.len()).unwrap_or(u64::MAX);
        for day in days {
            total = total.saturating_add(self.sent_count_of_day(day, &prefix, &pending)?);
        }
        Ok(total)
    }

    /// Counts what is newer than what was counted before. A mail is named when it begins to come
    /// and in the index when it is complete, so the newest ones are counted each time.
    fn sent_count_of_day(
        &self,
        day: u32,
        prefix: &[u8],
        pending: &BTreeSet<QueueId>,
    ) -> Result<u64, StoreError> {
        let name = (day, prefix.to_vec());
        let mut settled = self.counts().get(&name).copied().unwrap_or_default();
        let known = settled;
        // Nothing is settled that a pending mail may still come before.
        let settled_until = self.clock.now().minus(SETTLED_AFTER);
        let settled_until = pending.first().map_or(settled_until, |oldest| {
            settled_until.min(oldest.time().minus(Duration::from_millis(1)))
        });
        let (mut newer, mut after) = (0_u64, None::<Vec<u8>>);
        'rows: loop {
            let rows = self.archive.scan(day, prefix, after.as_deref(), ROWS_AT_A_TIME)?;
            for id in rows.iter().filter_map(|(key, _)| keys::inverted_id_of(key)) {
                if known.newest.is_some_and(|newest| id <= newest) {
                    break 'rows;
                }
                if pending.contains(&id) {
                    continue;
                }
                if id.time() > settled_until {
                    newer = newer.saturating_add(1);
                } else {
                    settled.mails = settled.mails.saturating_add(1);
                    settled.newest = settled.newest.max(Some(id));
                }
            }
            match rows.into_iter().last() {
                Some((key, _)) => after = Some(key),
                None => break,
            }
        }
        if settled.mails > 0 {
            self.counts().insert(name, settled);
        }
        Ok(settled.mails.saturating_add(newer))
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<(u32, Vec<u8>), Count>> {
        self.sent_counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long a mail may take from its first octet until it is in the index, with room to spare.
const SETTLED_AFTER: Duration = Duration::from_secs(4 * 3600);
/// Rows that are counted at a time.
const ROWS_AT_A_TIME: usize = 10_000;
