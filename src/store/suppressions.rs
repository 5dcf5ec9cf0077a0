//! Addresses that an account had better not write to: what was counted against each, or put here
//! by hand.
//!
//! All of them are in memory; each change is a frame that takes the place of the last one for the
//! same address, as the cursor of a folder is. So they do not end with the days that told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::record::{Batch, BounceId, BounceKey};
use super::{Store, StoreError, Ticket};
use crate::bounce::Category;
use crate::mail::{QueueId, Timestamp};

/// What speaks against writing to an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suppression {
    /// The account whose mail it is about.
    pub account: String,
    /// The address, in the form in which addresses are compared.
    pub recipient: String,
    /// Bounces that said that the address is none.
    #[serde(default)]
    pub hard: u32,
    /// Bounces that said that it takes no mail for the time being.
    #[serde(default)]
    pub soft: u32,
    /// When the first of them came, or it was put here.
    pub since: Timestamp,
    /// When the last of them came.
    pub last: Timestamp,
    /// The last of them.
    #[serde(default)]
    pub told: Option<Told>,
    /// That somebody has put it here.
    #[serde(default)]
    pub by_hand: Option<ByHand>,
    /// Whether it was taken away: the mark that ends what older frames say.
    #[serde(default)]
    pub is_gone: bool,
}

/// A bounce that speaks against an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The bounce.
    pub bounce: BounceId,
    /// What it was taken for.
    pub category: Category,
    /// What it said.
    pub message: String,
}

/// An entry that somebody has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ByHand {
    /// Why, in his words.
    pub reason: String,
    /// When it ends; never without.
    #[serde(default)]
    pub until: Option<Timestamp>,
}

/// What a bounce counts for against its recipient.
#[derive(Clone, Debug)]
pub struct Strike {
    /// The submission and the key of the bounce: it counts if that is recorded, and only then.
    pub of: (QueueId, BounceKey),
    /// The account whose mail it was.
    pub account: String,
    /// The recipient, in the form in which addresses are compared.
    pub recipient: String,
    /// Whether the address is none, or only takes no mail for the time being.
    pub is_hard: bool,
    /// When.
    pub date: Timestamp,
    /// What was told before is forgotten.
    pub forget_before: Timestamp,
    /// The bounce.
    pub told: Told,
}

/// A change that somebody makes.
#[derive(Clone, Debug)]
pub enum ByHandChange {
    /// No more mail of the account to the recipient.
    Add {
        /// The account.
        account: String,
        /// The recipient, in the form in which addresses are compared.
        recipient: String,
        /// Why, and until when.
        by_hand: ByHand,
    },
    /// Nothing speaks against the address any more.
    Remove {
        /// The account.
        account: String,
        /// The recipient, in the form in which addresses are compared.
        recipient: String,
    },
}

/// How much speaks against an address before nothing is sent to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SuppressionPolicy {
    /// So many hard bounces; 0 means never.
    pub hard_after: u32,
    /// So many soft ones; 0 means never.
    pub soft_after: u32,
    /// How long after the last of them.
    pub expire: Duration,
}

/// An entry as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suppressed {
    /// What speaks against the address.
    pub entry: Arc<Suppression>,
    /// How often somebody wanted to write to it while it held, since the daemon started.
    pub hits: u64,
}

impl Suppression {
    /// Whether nothing is to be sent to the address at `now`.
    pub fn holds(&self, policy: SuppressionPolicy, now: Timestamp) -> bool {
        let is_recent = now.since(self.last) < policy.expire;
        let reaches = |count: u32, after: u32| after > 0 && count >= after;
        let is_told = is_recent
            && (reaches(self.hard, policy.hard_after) || reaches(self.soft, policy.soft_after));
        is_told || self.is_put(now)
    }

    /// Whether nothing is left of it at `now`.
    pub fn is_over(&self, policy: SuppressionPolicy, now: Timestamp) -> bool {
        now.since(self.last) >= policy.expire && !self.is_put(now)
    }

    /// When it ends, unless more bounces come; `None` for never.
    pub fn ends(&self, policy: SuppressionPolicy) -> Option<Timestamp> {
        let told = self.told.as_ref().map(|_told| self.last.plus(policy.expire));
        match &self.by_hand {
            None => told,
            Some(by_hand) => by_hand.until.map(|until| told.map_or(until, |told| told.max(until))),
        }
    }

    fn is_put(&self, now: Timestamp) -> bool {
        let by_hand = self.by_hand.as_ref();
        by_hand.is_some_and(|by_hand| by_hand.until.is_none_or(|until| now < until))
    }

    fn new(account: &str, recipient: &str, now: Timestamp) -> Self {
        Self {
            account: account.to_owned(),
            recipient: recipient.to_owned(),
            hard: 0,
            soft: 0,
            since: now,
            last: now,
            told: None,
            by_hand: None,
            is_gone: false,
        }
    }

    fn gone(&self) -> Self {
        let new = Self::new(&self.account, &self.recipient, self.last);
        Self { is_gone: true, ..new }
    }

    /// Names account and recipient in the journal.
    pub(super) fn key(&self) -> SuppressionKey {
        let mut hasher = blake3::Hasher::new();
        // Neither holds a zero octet.
        hasher.update(self.account.as_bytes()).update(b"\0").update(self.recipient.as_bytes());
        let mut key = SuppressionKey::default();
        hasher.finalize_xof().fill(&mut key);
        key
    }
}

/// blake3 of account and recipient.
pub(super) type SuppressionKey = [u8; 16];

/// All entries, by account and recipient.
#[derive(Debug, Default)]
pub(super) struct Suppressions {
    accounts: BTreeMap<String, BTreeMap<String, Held>>,
    /// Those that bounces have made, the one longest ago first: it goes when there are too many.
    by_age: BTreeSet<(Timestamp, String, String)>,
    count: usize,
}

#[derive(Debug)]
struct Held {
    entry: Arc<Suppression>,
    hits: u64,
}

impl Held {
    fn shown(&self) -> Suppressed {
        Suppressed { entry: Arc::clone(&self.entry), hits: self.hits }
    }
}

impl Suppressions {
    /// Folds in what a frame says.
    pub(super) fn apply(&mut self, entry: &Arc<Suppression>) {
        let Suppression { account, recipient, last, .. } = entry.as_ref();
        let hits = self.take(account, recipient).map_or(0, |held| held.hits);
        if entry.is_gone {
            return;
        }
        if entry.by_hand.is_none() {
            self.by_age.insert((*last, account.clone(), recipient.clone()));
        }
        let held = Held { entry: Arc::clone(entry), hits };
        self.accounts.entry(account.clone()).or_default().insert(recipient.clone(), held);
        self.count = self.count.saturating_add(1);
    }

    /// The entry of a recipient.
    pub(super) fn get(&self, account: &str, recipient: &str) -> Option<&Arc<Suppression>> {
        self.accounts.get(account)?.get(recipient).map(|held| &held.entry)
    }

    /// Whether this is what stands here.
    pub(super) fn holds(&self, entry: &Suppression) -> bool {
        self.get(&entry.account, &entry.recipient).is_some_and(|held| held.as_ref() == entry)
    }

    /// What is to be written for a bounce, the new entry last.
    pub(super) fn struck(&self, strike: &Strike) -> Vec<Suppression> {
        let Strike { account, recipient, date, .. } = strike;
        let held = self.get(account, recipient);
        let mut entry = match held {
            Some(held) if held.last >= strike.forget_before => held.as_ref().clone(),
            // What was told is too long ago; what somebody has put here stays.
            Some(held) => {
                let by_hand = held.by_hand.clone();
                Suppression { by_hand, ..Suppression::new(account, recipient, *date) }
            }
            None => Suppression::new(account, recipient, *date),
        };
        let count = if strike.is_hard { &mut entry.hard } else { &mut entry.soft };
        *count = count.saturating_add(1);
        entry.last = entry.last.max(*date);
        entry.told = Some(strike.told.clone());
        let is_new = held.is_none();
        self.with_room(is_new, entry)
    }

    /// What is to be written for a change by hand; nothing where there is nothing to take away.
    pub(super) fn changed(&self, change: &ByHandChange, now: Timestamp) -> Vec<Suppression> {
        match change {
            ByHandChange::Add { account, recipient, by_hand } => {
                let held = self.get(account, recipient);
                let entry = held.map_or_else(
                    || Suppression::new(account, recipient, now),
                    |held| held.as_ref().clone(),
                );
                let entry = Suppression { by_hand: Some(by_hand.clone()), ..entry };
                self.with_room(held.is_none(), entry)
            }
            ByHandChange::Remove { account, recipient } => {
                self.get(account, recipient).map(|held| held.gone()).into_iter().collect()
            }
        }
    }

    /// The oldest entry goes where there is no room for one more.
    fn with_room(&self, is_new: bool, entry: Suppression) -> Vec<Suppression> {
        let is_full = is_new && self.count >= SUPPRESSIONS_MAX;
        let oldest = self.by_age.first().filter(|_| is_full);
        let oldest = oldest.and_then(|(_, account, recipient)| self.get(account, recipient));
        oldest.map(|oldest| oldest.gone()).into_iter().chain([entry]).collect()
    }

    /// Whether one more that somebody makes has room.
    fn has_room(&self) -> bool {
        self.count < SUPPRESSIONS_MAX || !self.by_age.is_empty()
    }

    /// Entries that `is_over` picks, at most `max`.
    fn over(&self, is_over: &dyn Fn(&Suppression) -> bool, max: usize) -> Vec<Suppression> {
        let all = self.accounts.values().flat_map(BTreeMap::values);
        let over = all.filter(|held| is_over(&held.entry)).take(max);
        over.map(|held| held.entry.gone()).collect()
    }

    fn take(&mut self, account: &str, recipient: &str) -> Option<Held> {
        let of_account = self.accounts.get_mut(account)?;
        let held = of_account.remove(recipient)?;
        if of_account.is_empty() {
            self.accounts.remove(account);
        }
        self.by_age.remove(&(held.entry.last, account.to_owned(), recipient.to_owned()));
        self.count = self.count.saturating_sub(1);
        Some(held)
    }
}

impl Store {
    /// What speaks against writing to a recipient, if that is enough; counts that somebody asked.
    pub fn suppressed(
        &self,
        account: &str,
        recipient: &str,
        policy: SuppressionPolicy,
    ) -> Option<Arc<Suppression>> {
        let now = self.shared.clock.now();
        let mut core = self.shared.core();
        let held = core.live.suppressions.accounts.get_mut(account)?.get_mut(recipient)?;
        if !held.entry.holds(policy, now) {
            return None;
        }
        held.hits = held.hits.saturating_add(1);
        Some(Arc::clone(&held.entry))
    }

    /// The entry of a recipient, whether it is enough or not.
    pub fn suppression(&self, account: &str, recipient: &str) -> Option<Suppressed> {
        let core = self.shared.core();
        let held = core.live.suppressions.accounts.get(account)?.get(recipient)?;
        Some(held.shown())
    }

    /// Entries behind `after`, an account and a recipient, in the order of these; of one account
    /// or of all, and those alone that `is_wanted` picks, which must not call the store.
    pub fn suppressions(
        &self,
        account: Option<&str>,
        after: Option<(&str, &str)>,
        max: usize,
        is_wanted: &dyn Fn(&Suppression) -> bool,
    ) -> Vec<Suppressed> {
        let core = self.shared.core();
        let (first, last_shown) = after.unwrap_or_default();
        let all = &core.live.suppressions.accounts;
        let accounts = all.range::<str, _>((Bound::Included(first), Bound::Unbounded));
        let asked = accounts.filter(|(name, _)| account.is_none_or(|account| account == *name));
        let entries = asked.flat_map(|(name, of_account)| {
            // No address is empty.
            let from = if name == first { last_shown } else { "" };
            of_account.range::<str, _>((Bound::Excluded(from), Bound::Unbounded))
        });
        let wanted = entries.map(|(_, held)| held).filter(|held| is_wanted(&held.entry));
        wanted.take(max).map(Held::shown).collect()
    }

    /// Makes changes by hand, all in one write.
    ///
    /// # Errors
    /// When there is no room, or the store takes nothing now; then nothing is changed.
    pub fn change_suppressions(&self, changes: Vec<ByHandChange>) -> Result<Ticket, StoreError> {
        if !self.shared.core().live.suppressions.has_room() {
            return Err(StoreError::Busy);
        }
        self.commit(Batch { suppressions: changes, ..Batch::default() })
    }

    /// Takes away the entries of which nothing is left.
    ///
    /// # Errors
    /// When the store takes nothing now.
    pub fn forget_suppressions(&self, policy: SuppressionPolicy) -> Result<(), StoreError> {
        let now = self.shared.clock.now();
        let is_over = |entry: &Suppression| entry.is_over(policy, now);
        loop {
            let over = self.shared.core().live.suppressions.over(&is_over, FORGET_MAX);
            let is_last = over.len() < FORGET_MAX;
            let remove = |gone: Suppression| ByHandChange::Remove {
                account: gone.account,
                recipient: gone.recipient,
            };
            if !over.is_empty() {
                // Should the write be lost, they are over all the same.
                drop(self.change_suppressions(over.into_iter().map(remove).collect())?);
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// Entries at a time; the one whose last bounce is longest ago makes room, none by hand does.
const SUPPRESSIONS_MAX: usize = 200_000;

/// Entries that are taken away in one write.
const FORGET_MAX: usize = 1_000;
