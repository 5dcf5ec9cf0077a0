//! Which bounces are wanted, and the cheapest way to them.

use std::collections::HashMap;
use std::time::Duration;

use super::{ApiError, Submissions, by_message_id, by_queue_id, message_id, moment, queue_id};
use crate::bounce::{Category, Fault};
use crate::clock::Stopwatch;
use crate::http::auth::Caller;
use crate::http::query::Query;
use crate::mail::address::{ascii_domain, canonical};
use crate::mail::{MessageId, QueueId, Timestamp};
use crate::store::record::{Bounce, BounceId, CapturedBy};
use crate::store::{Range, Store, StoreError};

/// What is asked for: a bounce fits when everything that is given fits.
#[derive(Clone, Debug, Default)]
pub(super) struct Search {
    /// Who asks: others' bounces are not for him.
    caller: Caller,
    message_id: Option<MessageId>,
    queue_id: Option<QueueId>,
    /// In canonical form.
    recipient: Option<String>,
    /// In lower case and A-labels.
    domain: Option<String>,
    category: Option<Category>,
    fault: Option<Fault>,
    account: Option<String>,
    captured_by: Option<CapturedBy>,
    since: Timestamp,
    until: Option<Timestamp>,
}

/// What one look found.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// The newest first.
    pub(super) bounces: Vec<Bounce>,
    /// Where the next look begins; `None` where nothing is left.
    pub(super) next: Option<BounceId>,
}

impl Search {
    /// What a query asks for.
    pub(super) fn of(query: &Query, caller: Caller, now: Timestamp) -> Result<Self, ApiError> {
        let recipient = query.value("recipient").map(|text| canonical(text.trim()));
        if recipient.as_ref().is_some_and(|address| !address.contains('@')) {
            return Err(ApiError::field("recipient", "\"recipient\" must be an address"));
        }
        let domain = query.value("domain").map(|text| ascii_domain(text.trim()).to_lowercase());
        if domain.as_ref().is_some_and(|domain| domain.is_empty() || domain.contains('@')) {
            return Err(ApiError::field("domain", "\"domain\" must be what stands behind an @"));
        }
        let time = |key| query.value(key).map(|text| moment(key, text, now)).transpose();
        let account = caller.asks_of(query.value("account"))?;
        Ok(Self {
            caller,
            message_id: query.value("messageId").map(message_id).transpose()?,
            queue_id: query.value("queueId").map(|id| queue_id("queueId", id)).transpose()?,
            recipient,
            domain,
            category: query.word("category", Category::parse)?,
            fault: query.word("fault", Fault::parse)?,
            account,
            captured_by: query.word("capturedBy", captured_by)?,
            since: time("since")?.unwrap_or_default(),
            until: time("until")?,
        })
    }

    /// The same, of what was captured at `since` or later.
    pub(super) fn from(self, since: Timestamp) -> Self {
        Self { since, ..self }
    }

    /// At most `max` of what fits, before a place. What is rare is not looked for to the end at
    /// once, so that there may be fewer, or none, and yet a next place.
    pub(super) fn page(
        &self,
        store: &Store,
        before: Option<BounceId>,
        max: usize,
    ) -> Result<Page, ApiError> {
        let until = self.until.map(BounceId::first_of);
        let before = match (before, until) {
            (Some(before), Some(until)) => Some(before.min(until)),
            (before, until) => before.or(until),
        };
        if self.message_id.is_some() || self.queue_id.is_some() {
            return self.of_mails(store, before.as_ref(), max);
        }
        self.of_all(store, before, max)
    }

    /// What fits among the bounces of the mails that are named.
    fn of_mails(
        &self,
        store: &Store,
        before: Option<&BounceId>,
        max: usize,
    ) -> Result<Page, ApiError> {
        let records = match (&self.message_id, self.queue_id) {
            (Some(id), wanted) => {
                let Submissions { mut records, .. } = by_message_id(store, &self.caller, id)?;
                records.retain(|mail| wanted.is_none_or(|id| mail.submission.queue_id == id));
                records
            }
            (None, Some(id)) => vec![by_queue_id(store, &self.caller, id)?],
            (None, None) => Vec::new(),
        };
        let mut accounts = Accounts::new(store);
        let mut page = Page::default();
        for bounce in records.into_iter().flat_map(|mail| mail.bounces) {
            let is_before = before.is_none_or(|before| bounce.id < *before);
            if is_before && self.wants(&bounce, &mut accounts)? {
                page.bounces.push(bounce);
            }
        }
        page.bounces.sort_by(|a, b| b.id.cmp(&a.id));
        if page.bounces.len() > max {
            page.bounces.truncate(max);
            page.next = page.bounces.last().map(|last| last.id.clone());
        }
        Ok(page)
    }

    /// What fits among all bounces, or those of the address.
    fn of_all(
        &self,
        store: &Store,
        mut before: Option<BounceId>,
        max: usize,
    ) -> Result<Page, ApiError> {
        let taking = Stopwatch::start();
        let mut accounts = Accounts::new(store);
        let mut bounces = Vec::new();
        let mut looked_at: usize = 0;
        // At first no more than the page needs; when few fit, more at a time.
        let mut at_a_time = max;
        loop {
            let range = Range {
                address: self.recipient.as_deref(),
                before: before.as_ref(),
                since: self.since,
            };
            let stretch = store.bounces(range, at_a_time)?;
            looked_at = looked_at.saturating_add(stretch.bounces.len()).saturating_add(1);
            for bounce in stretch.bounces {
                if bounces.len() == max {
                    return Ok(Page { bounces, next: before });
                }
                before = Some(bounce.id.clone());
                if self.wants(&bounce, &mut accounts)? {
                    bounces.push(bounce);
                }
            }
            before = stretch.next;
            let is_over = before.is_none() || bounces.len() == max;
            if is_over || looked_at >= LOOKED_AT_MAX || taking.elapsed() >= SEARCH_TIME_MAX {
                return Ok(Page { bounces, next: before });
            }
            at_a_time = AT_A_TIME;
        }
    }

    /// Whether a bounce fits. News of delays and deliveries stand among the bounces in the store
    /// and never do.
    fn wants(&self, bounce: &Bounce, accounts: &mut Accounts<'_>) -> Result<bool, StoreError> {
        let class = &bounce.response.classification;
        let fits = bounce.is_failure()
            && self.category.is_none_or(|category| class.category == category)
            && self.fault.is_none_or(|fault| class.fault == fault)
            && self.captured_by.is_none_or(|by| bounce.captured_by == by)
            && self.recipient.as_ref().is_none_or(|to| canonical(&bounce.recipient) == *to)
            && self.domain.as_ref().is_none_or(|domain| domain_of(&bounce.recipient) == *domain)
            && bounce.id >= BounceId::first_of(self.since);
        let is_anyones = self.account.is_none() && self.caller.account().is_none();
        if is_anyones || !fits {
            return Ok(fits);
        }
        let account = bounce.queue_id.map_or(Ok(None), |id| accounts.of(id))?;
        let is_wanted = |account: &String| self.account.as_ref().is_none_or(|one| one == account);
        Ok(account.is_some_and(|account| is_wanted(account) && self.caller.may_see(account)))
    }
}

/// Whose the mails are that one search has met.
pub(super) struct Accounts<'a> {
    store: &'a Store,
    known: HashMap<QueueId, Option<String>>,
}

impl<'a> Accounts<'a> {
    /// Nobody's yet.
    pub(super) fn new(store: &'a Store) -> Self {
        Self { store, known: HashMap::new() }
    }

    /// Whose a mail is; `None` where it is no longer there.
    pub(super) fn of(&mut self, queue_id: QueueId) -> Result<Option<&String>, StoreError> {
        if !self.known.contains_key(&queue_id) {
            let mail = self.store.submission(queue_id)?.ok();
            self.known.insert(queue_id, mail.map(|mail| mail.account));
        }
        Ok(self.known.get(&queue_id).and_then(Option::as_ref))
    }
}

/// What stands behind the @ of an address, as domains are compared.
pub(super) fn domain_of(address: &str) -> String {
    canonical(address).rsplit_once('@').map_or_else(String::new, |(_, domain)| domain.to_owned())
}

fn captured_by(word: &str) -> Option<CapturedBy> {
    let all = [CapturedBy::Inline, CapturedBy::Listener, CapturedBy::Imap, CapturedBy::Api];
    CAPTURED_BY.iter().zip(all).find(|(name, _)| **name == word).map(|(_, by)| by)
}

/// The words of `CapturedBy`.
pub(in crate::http) const CAPTURED_BY: &[&str] = &["inline", "listener", "imap", "api"];

/// What a domain may look like in a question.
pub(super) const DOMAIN_PATTERN: &str = "^[^@\\s]+$";

/// The words of `Category`.
pub(in crate::http) fn categories() -> Vec<&'static str> {
    Category::ALL.iter().map(|category| category.as_str()).collect()
}

/// The words of `Fault`.
pub(in crate::http) fn faults() -> Vec<&'static str> {
    Fault::ALL.iter().map(|fault| fault.as_str()).collect()
}

/// Bounces that are read at a time while few fit.
const AT_A_TIME: usize = 1000;

/// Bounces that are looked at for one page; its cursor goes on behind them.
const LOOKED_AT_MAX: usize = 10_000;

/// How long is looked for one page, the read under way not counted.
const SEARCH_TIME_MAX: Duration = Duration::from_millis(500);
