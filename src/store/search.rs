//! Bounces from the newest on, of all addresses or of one, a bounded stretch at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::entry::Entry;
use super::keys;
use super::layout::Location;
use super::record::{Bounce, BounceId};
use super::shared::Shared;
use super::{Store, StoreError};
use crate::mail::address::canonical;
use crate::mail::{QueueId, Timestamp};

/// Bounces and news that lie next to one another in time, the newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stretch {
    /// What was found.
    pub bounces: Vec<Bounce>,
    /// Before which name the next stretch begins; `None` where there is nothing further. It need
    /// not be the name of a bounce.
    pub next: Option<BounceId>,
}

/// Which bounces are looked through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range<'a> {
    /// Those of this address; of all without it.
    pub address: Option<&'a str>,
    /// Only those before this name.
    pub before: Option<&'a BounceId>,
    /// Only those that were captured then or later.
    pub since: Timestamp,
}

/// A bounce that is wanted, and where it is.
enum Found {
    Pending(Arc<Bounce>),
    Logged(Location),
}

impl Store {
    /// The newest `max` bounces and news of a range.
    ///
    /// Asks a bounded number of days, so that it may find fewer, or none, and yet not have come
    /// to the end.
    ///
    /// # Errors
    /// When the index or the log cannot be read.
    pub fn bounces(&self, range: Range<'_>, max: usize) -> Result<Stretch, StoreError> {
        self.shared.bounces_in(range, max)
    }
}

impl BounceId {
    /// The least name that a bounce of this moment can have.
    pub fn first_of(time: Timestamp) -> Self {
        Self::of_bytes(QueueId::new(time, 0).as_bytes())
    }

    /// The name in hexadecimal, as clients give it back; `None` where it is none.
    pub fn parse(text: &str) -> Option<Self> {
        keys::parse_bounce_id(text).map(|bytes| Self::of_bytes(&bytes))
    }

    /// When the bounce was captured.
    pub fn time(&self) -> Option<Timestamp> {
        keys::parse_bounce_id(&self.0).map(|bytes| QueueId::from_bytes(bytes).time())
    }

    fn of_bytes(bytes: &[u8; 10]) -> Self {
        Self(bytes.iter().map(|octet| format!("{octet:02x}")).collect())
    }
}

impl Shared {
    fn bounces_in(&self, range: Range<'_>, max: usize) -> Result<Stretch, StoreError> {
        let address = range.address.map(canonical);
        let before = range.before.and_then(|id| keys::parse_bounce_id(&id.0));
        let least = *QueueId::new(range.since, 0).as_bytes();
        let mut found = self.pending_bounces(address.as_deref(), before, max);
        let (prefix, after) = match &address {
            Some(address) => (
                keys::recipient_prefix(address),
                before.map(|id| keys::recipient_key(address, &id)),
            ),
            None => (keys::recent_prefix(), before.map(|id| keys::recent_key(&id))),
        };
        let more = max.saturating_add(1);
        let (mut asked, mut is_enough) = (0_usize, false);
        let mut last_day = None;
        for day in self.days_of(address.is_some(), before, range.since) {
            if is_enough || asked >= DAYS_MAX {
                break;
            }
            // One day more than is needed: what was written while the clock was set back over
            // midnight lies in the day before its name's.
            is_enough = found.len() > max;
            let rows = self.archive.scan(day, &prefix, after.as_deref(), more)?;
            // For one address a filter says which days have it; the others cost nothing.
            if address.is_none() || !rows.is_empty() {
                asked = asked.saturating_add(1);
            }
            for (key, value) in rows {
                let (Some(id), Some(at)) = (keys::inverted_id_of(&key), Location::decode(&value))
                else {
                    continue;
                };
                found.entry(*id.as_bytes()).or_insert(Found::Logged(at));
            }
            last_day = Some(day);
        }
        // Where days are left, only what lies in those that were asked is whole.
        let floor = last_day.filter(|_day| asked >= DAYS_MAX && !is_enough).and_then(start_of_day);
        let least = floor.map_or(least, |floor| floor.max(least));
        let mut ids = found.range(least..).rev();
        let mut stretch = Stretch::default();
        let mut last = None;
        for (id, place) in ids.by_ref().take(max) {
            last = Some(id);
            stretch.bounces.extend(self.bounce_at(place, address.as_deref())?);
        }
        stretch.next = match (ids.next(), last) {
            (Some(_), Some(last)) => Some(BounceId::of_bytes(last)),
            _ => floor.filter(|floor| *floor == least).map(|floor| BounceId::of_bytes(&floor)),
        };
        Ok(stretch)
    }

    fn pending_bounces(
        &self,
        address: Option<&str>,
        before: Option<[u8; 10]>,
        max: usize,
    ) -> BTreeMap<[u8; 10], Found> {
        // Pending first: what leaves it is in the index by then.
        let core = self.core();
        let pending = match address {
            Some(address) => core.pending.by_recipient(address, before),
            None => core.pending.recent(before, max.saturating_add(1)),
        };
        let name = |bounce: Arc<Bounce>| (keys::bounce_id_bytes(&bounce), Found::Pending(bounce));
        pending.into_iter().map(name).collect()
    }

    /// The days in which a bounce of the range can lie, newest first.
    fn days_of(
        &self,
        is_filtered: bool,
        before: Option<[u8; 10]>,
        since: Timestamp,
    ) -> impl Iterator<Item = u32> {
        // A bounce lies in the day of its name, or in a later one where the clock was set back.
        let last = before.filter(|_before| !is_filtered);
        let last = last.map(|id| QueueId::from_bytes(id).time().plus(CLOCK_BACK_MAX).day());
        let days = self.archive.days().into_iter();
        days.filter(move |day| last.is_none_or(|last| *day <= last) && *day >= since.day())
    }

    /// The bounce that was found, as it was read last; `None` where it is another address's, or
    /// its record is damaged.
    fn bounce_at(
        &self,
        found: &Found,
        address: Option<&str>,
    ) -> Result<Option<Bounce>, StoreError> {
        let bounce = match found {
            Found::Pending(bounce) => bounce.as_ref().clone(),
            Found::Logged(location) => match self.archive.read(*location)? {
                Some(Entry::Bounce(bounce)) => bounce.as_ref().clone(),
                _ => return Ok(None),
            },
        };
        let is_wanted = address.is_none_or(|address| canonical(&bounce.recipient) == address);
        Ok(is_wanted.then_some(bounce))
    }
}

/// The least name of a day that is written as `20221012`.
fn start_of_day(day: u32) -> Option<[u8; 10]> {
    let (year, month, day) = (day / 10_000, day / 100 % 100, day % 100);
    let start = Timestamp::parse(&format!("{year:04}-{month:02}-{day:02}"))?;
    Some(*QueueId::new(start, 0).as_bytes())
}

/// Days whose index is asked for one stretch: opening one takes time.
const DAYS_MAX: usize = 8;
/// How far a clock may be set back without bounces of that time being passed over in later pages.
const CLOCK_BACK_MAX: Duration = Duration::from_secs(86_400);

/// What tests ask: everything that a range holds.
#[cfg(test)]
impl Store {
    /// Bounces and news of a recipient's address, newest first, before `before`.
    pub(crate) fn by_recipient(
        &self,
        address: &str,
        before: Option<&BounceId>,
        max: usize,
    ) -> Result<Vec<Bounce>, StoreError> {
        self.all_of(Range { address: Some(address), before, ..Range::default() }, max)
    }

    /// All bounces and news, newest first, before `before`.
    pub(crate) fn recent_bounces(
        &self,
        before: Option<&BounceId>,
        max: usize,
    ) -> Result<Vec<Bounce>, StoreError> {
        self.all_of(Range { before, ..Range::default() }, max)
    }

    fn all_of(&self, range: Range<'_>, max: usize) -> Result<Vec<Bounce>, StoreError> {
        let mut all = Vec::new();
        let mut next = range.before.cloned();
        while all.len() < max {
            let before = next.as_ref();
            let stretch = self.bounces(Range { before, ..range }, max - all.len())?;
            all.extend(stretch.bounces);
            next = stretch.next;
            if next.is_none() {
                break;
            }
        }
        Ok(all)
    }
}
