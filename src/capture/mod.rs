//! Stage 5: the funnel. Every bounce, wherever it was caught, goes through here.
//!
//! Evidence is classified, tied to its submission and written in one atomic batch; the same
//! evidence twice makes one bounce.
//! **Invariant:** only a return token, or a known id together with a recipient of that mail, may
//! change the state of a recipient; everything else is kept and shown.

mod correlate;
mod evidence;
#[cfg(test)]
mod testing;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::bounce::{self, Action, Facts, RecipientFacts, Rules, Verdict};
use crate::clock::Clock;
use crate::mail::{Address, QueueId, ReversePath, Timestamp};
use crate::maillog::{self, Line};
use crate::metrics::Metrics;
use crate::secret::KeyRing;
use crate::store::record::{
    Attempt, Batch, Bounce, BounceKey, CapturedBy, Decision, Origin, ReportCaptured, ReportId,
    ReportReceived,
};
use crate::store::state::State;
use crate::store::{LiveMessage, ReportRecord, Store, StoreError, Ticket};
use correlate::Ladder;

/// The funnel; clones share it.
#[derive(Clone)]
pub struct Capture {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    rules: RwLock<Arc<Rules>>,
    keyring: Arc<KeyRing>,
    clock: Clock,
    metrics: Metrics,
    options: Options,
    /// Held from the look for earlier bounces to the write of new ones, so that they are one.
    writing: Mutex<()>,
}

/// What is done with reports beside recording them.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where reports go on to.
    pub forward_to: Forward,
    /// Who gets reports that match nothing; nobody without it.
    pub postmaster: Option<Address>,
}

/// Where reports caught at our return path go on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// To the reverse-path that the app had used; those that match nothing to the postmaster.
    #[default]
    Original,
    /// Nowhere.
    Nowhere,
    /// All to one address.
    To(Address),
}

/// What was read from a report.
struct Read {
    /// Bounces and news that were not known yet.
    bounces: Vec<Bounce>,
    /// The submissions that it is about.
    matched: Vec<QueueId>,
}

impl Capture {
    /// A funnel into `store`.
    pub fn new(
        store: Store,
        rules: Rules,
        keyring: Arc<KeyRing>,
        clock: Clock,
        metrics: Metrics,
        options: Options,
    ) -> Self {
        let rules = RwLock::new(Arc::new(rules));
        let writing = Mutex::new(());
        Self { inner: Arc::new(Inner { store, rules, keyring, clock, metrics, options, writing }) }
    }

    /// From now on these rules classify.
    pub fn set_rules(&self, rules: Rules) {
        *self.inner.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// The rules that classify now.
    pub fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.inner.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records finished attempts of one mail, with a bounce for each that ends its recipient
    /// as failed or expired.
    ///
    /// # Errors
    /// When the store does not take the batch.
    pub fn outcomes(
        &self,
        message: &LiveMessage,
        attempts: Vec<Attempt>,
    ) -> Result<Ticket, StoreError> {
        let ends = |attempt: &&Attempt| {
            matches!(attempt.decision, Decision::Failed | Decision::Expired)
                && message.origin == Origin::App
        };
        if !attempts.iter().any(|attempt| ends(&attempt)) {
            return self.inner.store.commit(Batch { attempts, ..Batch::default() });
        }
        let _writing = self.writing();
        let rules = self.rules();
        let known = self.reported_already(message)?;
        let now = self.inner.clock.now();
        let bounces: Vec<Bounce> = attempts
            .iter()
            .filter(ends)
            .filter_map(|attempt| evidence::inline(message, attempt, &rules, now))
            .filter(|bounce| !known.contains(&bounce.key))
            .collect();
        for bounce in &bounces {
            let category = bounce.response.classification.category;
            self.inner.metrics.bounce_captured(category.as_str(), source(bounce.captured_by));
        }
        self.inner.store.commit(Batch { attempts, bounces, ..Batch::default() })
    }

    /// Reads a report, ties it to what it is about and records what it says.
    ///
    /// Needs processor time and look-ups: not for an async worker. A report that has been
    /// captured before is left as it is.
    ///
    /// # Errors
    /// When the store cannot be read or does not take the batch; the report stays uncaptured.
    pub fn report(&self, id: ReportId) -> Result<ReportCaptured, StoreError> {
        let received = self.load(id)?.received;
        let facts = bounce::read(&received.raw);
        let _writing = self.writing();
        if let Some(captured) = self.load(id)?.captured {
            return Ok(captured);
        }
        let mut captured = ReportCaptured {
            id,
            captured_at: self.inner.clock.now(),
            verdict: facts.verdict,
            matched: Vec::new(),
            own_notice: self.is_own_notice(&facts),
            forward_to: None,
        };
        let mut bounces = Vec::new();
        if let Some(earlier) = self.earlier(&received)? {
            captured.matched = earlier.matched;
            captured.own_notice |= earlier.own_notice;
        } else if !captured.own_notice {
            let ladder = Ladder::climb(&self.inner.store, &received, &facts)?;
            if ladder.leads_to_notice() {
                captured.own_notice = true;
            } else {
                let read = self.bounces(&received, &facts, &ladder, captured.captured_at)?;
                (bounces, captured.matched) = (read.bounces, read.matched);
                captured.forward_to = self.forward_to(&captured, &ladder);
            }
        }
        self.tell(&received, &captured, &bounces);
        let batch = Batch { bounces, report: Some(captured.clone()), ..Batch::default() };
        // The report itself is on disk, so that losing this write means reading it once more.
        drop(self.inner.store.commit(batch)?);
        Ok(captured)
    }

    /// The bounces and news of a report that are not known yet.
    fn bounces(
        &self,
        received: &ReportReceived,
        facts: &Facts,
        ladder: &Ladder,
        now: Timestamp,
    ) -> Result<Read, StoreError> {
        let rules = self.rules();
        let mut known = ladder.known_keys();
        if let Some(earlier) = self.inner.store.report_by_digest(&received.digest)? {
            known.extend(self.inner.store.bounces_of_report(earlier)?.iter().map(|b| b.key));
        }
        let Some(action) = reported_action(facts.verdict) else {
            return Ok(Read { bounces: Vec::new(), matched: ladder.tied().into_iter().collect() });
        };
        // A report about a delivery may fail to say whose; a return token tells all the same.
        let unnamed = [RecipientFacts { action, ..RecipientFacts::default() }];
        let said = match facts.report.recipients.as_slice() {
            [] => unnamed.as_slice(),
            named => named,
        };
        let mut ids = HashSet::new();
        let mut bounces = Vec::new();
        let mut matched = BTreeSet::new();
        for recipient in said.iter().take(BOUNCES_PER_REPORT_MAX) {
            let place = ladder.place(recipient);
            matched.extend(place.found.as_ref().map(|found| found.queue_id));
            let mut bounce = evidence::reported(received, facts, recipient, &place, &rules, now);
            if place.is_full || !known.insert(bounce.key) {
                continue;
            }
            let mut moment = now;
            while !ids.insert(bounce.id.clone()) {
                moment = moment.plus(Duration::from_millis(1));
                bounce.id = evidence::bounce_id(moment, &bounce.key);
            }
            bounces.push(bounce);
        }
        Ok(Read { bounces, matched: matched.into_iter().collect() })
    }

    /// Whether a report is a notice of ours that came back, or is about one.
    fn is_own_notice(&self, facts: &Facts) -> bool {
        let returned = facts.original.headers.iter();
        let returned = returned.filter(|(name, _)| name.eq_ignore_ascii_case(NOTICE_FIELD));
        let values = returned.flat_map(|(_, values)| values.iter());
        facts
            .notice
            .iter()
            .chain(values)
            .any(|value| self.inner.keyring.verify_notice(value).is_some())
    }

    /// What was made of the same report when it came before, for the same return tokens.
    fn earlier(&self, received: &ReportReceived) -> Result<Option<ReportCaptured>, StoreError> {
        let Some(id) = self.inner.store.report_by_digest(&received.digest)? else {
            return Ok(None);
        };
        if id == received.id {
            return Ok(None);
        }
        let Ok(record) = self.inner.store.report(id)? else { return Ok(None) };
        let covers = received.tokens.iter().all(|token| record.received.tokens.contains(token));
        Ok(record.captured.filter(|_captured| covers))
    }

    /// Where a report goes on to, which has changed nothing of what is recorded.
    fn forward_to(&self, captured: &ReportCaptured, ladder: &Ladder) -> Option<String> {
        let options = &self.inner.options;
        match &options.forward_to {
            Forward::Nowhere => None,
            Forward::To(address) => Some(address.to_string()),
            Forward::Original => match ladder.by_token() {
                Some(message) if !message.submission.dsn => None,
                Some(message) => match &message.submission.envelope.reverse_path {
                    ReversePath::Address(address) => Some(address.to_string()),
                    ReversePath::Null(()) => None,
                },
                None if captured.matched.is_empty() => {
                    options.postmaster.as_ref().map(ToString::to_string)
                }
                None => None,
            },
        }
    }

    /// What reports have said of the recipients of a mail in the queue.
    fn reported_already(&self, message: &LiveMessage) -> Result<HashSet<BounceKey>, StoreError> {
        // A mail that a report has ended is no longer in the queue; any other shows there
        // whether a report has come in, so that most refusals need no look-up.
        let untouched = self.inner.store.live(message.queue_id).is_some_and(|live| {
            live.recipients.iter().all(|recipient| recipient.state != State::Bounced)
        });
        if untouched {
            return Ok(HashSet::new());
        }
        let Ok(record) = self.inner.store.message(message.queue_id)? else {
            return Ok(HashSet::new());
        };
        Ok(record.bounces.iter().map(|bounce| bounce.key).collect())
    }

    fn load(&self, id: ReportId) -> Result<ReportRecord, StoreError> {
        self.inner
            .store
            .report(id)?
            .map_err(|_missing| StoreError::Format(format!("report {} is not in the store", id.0)))
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        // What it guards is in the store; a panic of another holder has left nothing half done.
        self.inner.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts and logs what a report brought.
    fn tell(&self, received: &ReportReceived, captured: &ReportCaptured, bounces: &[Bounce]) {
        let metrics = &self.inner.metrics;
        metrics.report_captured(verdict(captured.verdict));
        if captured.matched.is_empty() && !captured.own_notice {
            metrics.report_unmatched();
        }
        let report = received.id.0.to_string();
        for bounce in bounces.iter().filter(|bounce| bounce.is_failure()) {
            let category = bounce.response.classification.category.as_str();
            metrics.bounce_captured(category, source(bounce.captured_by));
            maillog::bounced(&Line {
                queue_id: bounce.queue_id,
                message_id: bounce.original_message_id.as_ref().map(|id| id.as_str()),
                to: Some(&bounce.recipient),
                relay: bounce.mta.as_deref(),
                status: bounce.response.status,
                reply: Some(&bounce.response.message),
                reason: Some(category),
                report: Some(&report),
                ..Line::default()
            });
        }
    }
}

/// What a report reports of a recipient that it does not name; `None` when it is not about a
/// delivery.
fn reported_action(verdict: Verdict) -> Option<Action> {
    match verdict {
        Verdict::Bounce => Some(Action::Failed),
        Verdict::Delayed => Some(Action::Delayed),
        Verdict::Delivered => Some(Action::Delivered),
        Verdict::Complaint | Verdict::Autoreply | Verdict::Mdn | Verdict::Other => None,
    }
}

fn source(captured_by: CapturedBy) -> &'static str {
    match captured_by {
        CapturedBy::Inline => "inline",
        CapturedBy::Listener => "listener",
        CapturedBy::Imap => "imap",
        CapturedBy::Api => "api",
    }
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Bounce => "bounce",
        Verdict::Delayed => "delayed",
        Verdict::Delivered => "delivered",
        Verdict::Complaint => "complaint",
        Verdict::Autoreply => "autoreply",
        Verdict::Mdn => "mdn",
        Verdict::Other => "other",
    }
}

/// Recipients of one report that are recorded; the report itself is kept whole.
pub const BOUNCES_PER_REPORT_MAX: usize = 10_000;

/// Bounces and news recorded for one submission; a storm of reports adds no more.
pub const BOUNCES_PER_MESSAGE_MAX: usize = 20_000;

/// Submissions of one Message-ID that are tried for a matching recipient, newest first.
pub const SUBMISSIONS_PER_ID_MAX: usize = 20;

/// The field that marks a mail of our own, in lower case as `Original::headers` has it.
const NOTICE_FIELD: &str = "x-rebound-notice";
