//! Stage 5: the funnel. Every bounce, wherever it was caught, goes through here.
//!
//! Evidence is classified, tied to its submission and written in one atomic batch; the same
//! evidence twice makes one bounce.
//! **Invariant:** only a return token, or a known id together with a recipient of that mail, may
//! change the state of a recipient; everything else is kept and shown, and changes states only
//! where the operator wants guesses to.

mod addressed;
mod arrived;
mod closing;
mod correlate;
mod evidence;
mod forward;
mod options;
mod owners;
mod reread;
mod rungs;
mod strikes;
#[cfg(test)]
mod testing;

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use crate::bounce::{self, Action, AliasRules, Facts, RecipientFacts, Verdict};
use crate::clock::Clock;
use crate::mail::{MessageId, QueueId, Timestamp};
use crate::maillog::{self, Line};
use crate::metrics::Metrics;
use crate::secret::KeyRing;
use crate::store::record::{
    Attempt, Batch, Bounce, BounceKey, CapturedBy, Decision, Origin, ReportCaptured, ReportId,
    ReportReceived,
};
use crate::store::{LiveMessage, ReportRecord, Store, StoreError, Ticket};
use correlate::Ladder;
use rungs::Search;

pub use arrived::arrived;
pub use closing::Closer;
pub use options::{Forward, Options, ReturnPath, RuleSets};
pub use reread::{Change, Difference, Mode};

/// The funnel; clones share it.
#[derive(Clone)]
pub struct Capture {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    rules: RwLock<Arc<RuleSets>>,
    keyring: Arc<KeyRing>,
    clock: Clock,
    metrics: Metrics,
    options: Options,
    /// Held from the look for earlier copies of a report to the write, so that they are one.
    writing: Mutex<()>,
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
        rules: RuleSets,
        keyring: Arc<KeyRing>,
        clock: Clock,
        metrics: Metrics,
        options: Options,
    ) -> Self {
        let rules = RwLock::new(Arc::new(rules));
        let writing = Mutex::new(());
        Self { inner: Arc::new(Inner { store, rules, keyring, clock, metrics, options, writing }) }
    }

    /// From now on these rules hold.
    pub fn set_rules(&self, rules: RuleSets) {
        *self.inner.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
    }

    /// The rules that hold now.
    pub fn rules(&self) -> Arc<RuleSets> {
        Arc::clone(&self.inner.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records finished attempts of one mail, with what the next hop calls the mail from then on,
    /// and with a bounce for each that ends its recipient as failed or expired; the store leaves
    /// out those that a report has brought already.
    ///
    /// # Errors
    /// When the store does not take the batch.
    pub fn outcomes(
        &self,
        message: &LiveMessage,
        mut attempts: Vec<Attempt>,
    ) -> Result<Ticket, StoreError> {
        let ends = |attempt: &&Attempt| {
            matches!(attempt.decision, Decision::Failed | Decision::Expired)
                && message.origin == Origin::App
        };
        let rules = self.rules();
        for attempt in &mut attempts {
            attempt.alias = alias(message, attempt, &rules.aliases);
        }
        let now = self.inner.clock.now();
        let bounces: Vec<Bounce> = attempts
            .iter()
            .filter(ends)
            .filter_map(|attempt| evidence::inline(message, attempt, &rules.classes, now))
            .collect();
        for bounce in &bounces {
            let category = bounce.response.classification.category;
            self.inner.metrics.bounce_captured(category.as_str(), source(bounce.captured_by));
        }
        let strike = |bounce| self.strike(bounce, message.queue_id, &message.account);
        let strikes = bounces.iter().filter_map(strike).collect();
        self.inner.store.commit(Batch { attempts, bounces, strikes, ..Batch::default() })
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
            reread: false,
            bounced_accounts: BTreeSet::new(),
        };
        let mut bounces = Vec::new();
        if let Some(earlier) = self.earlier(&received)? {
            captured.matched = earlier.matched;
            captured.own_notice |= earlier.own_notice;
        } else if !captured.own_notice {
            let ladder = self.climb(&received, &facts)?;
            if ladder.leads_to_notice() {
                captured.own_notice = true;
            } else {
                let known = self.known(&received, &ladder)?;
                let read = self.bounces(&received, &facts, &ladder, known, captured.captured_at);
                (bounces, captured.matched) = (read.bounces, read.matched);
                captured.forward_to = self.forward_to(&received, &captured, &facts, &ladder);
            }
        }
        self.tell(&received, &captured, &bounces);
        let owners = self.owners(&bounces)?;
        captured.bounced_accounts = owners.all();
        let strikes = self.strikes(&bounces, &owners);
        let batch = Batch { bounces, strikes, report: Some(captured.clone()), ..Batch::default() };
        // The report itself is on disk, so that losing this write means reading it once more.
        drop(self.inner.store.commit(batch)?);
        Ok(captured)
    }

    /// Everything that a report leads to.
    fn climb(&self, received: &ReportReceived, facts: &Facts) -> Result<Ladder, StoreError> {
        Ladder::climb(&Search {
            store: &self.inner.store,
            tokens: &self.tokens(received),
            facts,
            received_at: received.received_at,
            options: &self.inner.options,
        })
    }

    /// What the valid return tokens of a report name.
    fn tokens(&self, received: &ReportReceived) -> Vec<(QueueId, u32)> {
        let Inner { store, keyring, options, .. } = self.inner.as_ref();
        let begins_at = |id: QueueId| {
            let submission = store.submission(id).ok().and_then(Result::ok);
            submission.map_or(id.time(), |submission| submission.begins_at())
        };
        addressed::tokens(received, keyring, &options.return_path, &begins_at)
    }

    /// The bounces that are recorded for what a report is about, or were when it came before.
    fn known(
        &self,
        received: &ReportReceived,
        ladder: &Ladder,
    ) -> Result<HashSet<BounceKey>, StoreError> {
        let mut known = ladder.known_keys();
        if let Some(earlier) = self.inner.store.report_by_digest(&received.digest)? {
            known.extend(self.inner.store.bounces_of_report(earlier)?.iter().map(|b| b.key));
        }
        Ok(known)
    }

    /// The bounces and news of a report, but for those that are known.
    fn bounces(
        &self,
        received: &ReportReceived,
        facts: &Facts,
        ladder: &Ladder,
        mut known: HashSet<BounceKey>,
        now: Timestamp,
    ) -> Read {
        let rules = self.rules();
        let Some(action) = reported_action(facts.verdict) else {
            return Read { bounces: Vec::new(), matched: ladder.tied().into_iter().collect() };
        };
        let unnamed = [RecipientFacts { action, ..RecipientFacts::default() }];
        let said = said(facts, &unnamed);
        let mut ids = HashSet::new();
        let mut bounces = Vec::new();
        let mut matched = BTreeSet::new();
        for recipient in said.iter().take(BOUNCES_PER_REPORT_MAX) {
            let place = ladder.place(recipient);
            matched.extend(place.found.as_ref().map(|found| found.queue_id));
            let rules = &rules.classes;
            let mut bounce = evidence::reported(received, facts, recipient, &place, rules, now);
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
        Read { bounces, matched: matched.into_iter().collect() }
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
        let known = self.tokens(&record.received);
        let covers = self.tokens(received).iter().all(|token| known.contains(token));
        Ok(record.captured.filter(|_captured| covers))
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
        self.tell_bounces(received, bounces);
    }

    fn tell_bounces(&self, received: &ReportReceived, bounces: &[Bounce]) {
        let metrics = &self.inner.metrics;
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

/// The Message-ID that the next hop gave a mail instead of its own when it took it.
fn alias(message: &LiveMessage, attempt: &Attempt, rules: &AliasRules) -> Option<MessageId> {
    if attempt.decision != Decision::Relayed {
        return None;
    }
    let host = evidence::mta_name(attempt.remote_mta.as_deref()?);
    let alias = rules.alias(host, &attempt.reply.as_ref()?.text)?;
    (alias != message.message_id).then_some(alias)
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

/// What a report says of recipients; `unnamed` where it fails to say whose delivery it is about,
/// which a return token tells all the same.
fn said<'a>(facts: &'a Facts, unnamed: &'a [RecipientFacts]) -> &'a [RecipientFacts] {
    match facts.report.recipients.as_slice() {
        [] => unnamed,
        named => named,
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

#[cfg(test)]
mod tests {
    use super::testing::{NOW, TestStore, attempt, dsn, id, live, report, submission};
    use super::*;
    use crate::mail::dsn::Notify;
    use crate::mail::{Address, Reply, ReversePath, Stage};
    use crate::store::record::{Confidence, MatchMethod};
    use crate::store::state::State;

    const A: &str = "a@example.com";
    const B: &str = "b@example.com";
    const C: &str = "c@example.com";

    struct Funnel {
        store: TestStore,
        capture: Capture,
        keyring: Arc<KeyRing>,
    }

    impl Funnel {
        /// A funnel whose store holds one mail for A, B and C.
        async fn new() -> Self {
            let clock = Clock::manual(NOW);
            let store = TestStore::open(&clock);
            let keyring = Arc::new(KeyRing::from_secret([7; 32]));
            let options = Options {
                postmaster: Address::parse("post@example.com").ok(),
                ..Options::default()
            };
            let capture = Capture::new(
                store.store.clone(),
                RuleSets::compiled_in(),
                Arc::clone(&keyring),
                clock,
                Metrics::new(),
                options,
            );
            store.accept(submission(id(1), &[A, B, C])).await;
            Self { store, capture, keyring }
        }

        async fn report(&self, unique: u32, report: ReportReceived) -> ReportCaptured {
            let report_id = ReportId(id(unique));
            self.store.accept_report(ReportReceived { id: report_id, ..report }).await;
            self.capture.report(report_id).unwrap()
        }

        async fn refuse(&self, recipient: u32) {
            let refusal = Attempt {
                reply: Reply::parse("550 5.1.1 no"),
                ..attempt(recipient, Stage::Rcpt, Decision::Failed)
            };
            let message = live(&[A, B, C]);
            self.capture.outcomes(&message, vec![refusal]).unwrap().synced().await.unwrap();
        }

        async fn relay(&self, recipient: u32) {
            let taken = Attempt {
                reply: Reply::parse("250 ok"),
                ..attempt(recipient, Stage::End, Decision::Relayed)
            };
            let message = live(&[A, B, C]);
            self.capture.outcomes(&message, vec![taken]).unwrap().synced().await.unwrap();
        }

        fn bounces(&self) -> Vec<Bounce> {
            self.store.store.message(id(1)).unwrap().unwrap().bounces
        }
    }

    fn by_token(raw: &[u8], recipient: u32) -> ReportReceived {
        ReportReceived { tokens: vec![(id(1), recipient)], ..report(raw) }
    }

    const RETURNED: &str = "Message-ID: <m1@app.example>\r\nSubject: one\r\n";

    #[tokio::test]
    async fn a_refusal_is_an_attempt_and_a_bounce_and_a_success_is_an_attempt() {
        let funnel = Funnel::new().await;
        funnel.refuse(0).await;
        funnel.relay(1).await;
        assert_eq!(funnel.store.states(id(1)), [State::Failed, State::Relayed, State::Queued]);
        let bounces = funnel.bounces();
        assert_eq!(bounces.len(), 1);
        assert_eq!(
            (bounces[0].recipient.as_str(), bounces[0].captured_by),
            (A, CapturedBy::Inline)
        );
    }

    #[tokio::test]
    async fn a_notice_that_is_refused_is_no_bounce() {
        let funnel = Funnel::new().await;
        let notice = LiveMessage { origin: Origin::Notice, ..live(&[A, B, C]) };
        let refusal = attempt(0, Stage::Rcpt, Decision::Failed);
        funnel.capture.outcomes(&notice, vec![refusal]).unwrap().synced().await.unwrap();
        assert_eq!(funnel.bounces(), []);
    }

    #[tokio::test]
    async fn a_report_for_a_token_bounces_its_recipient_once() {
        let funnel = Funnel::new().await;
        funnel.relay(1).await;
        let raw = dsn("", &[("someone@elsewhere.example", "failed")], "");
        let captured = funnel.report(10, by_token(&raw, 1)).await;
        assert_eq!(captured.matched, [id(1)]);
        assert_eq!(captured.forward_to.as_deref(), Some("app@example.com"));
        assert_eq!(funnel.store.states(id(1))[1], State::Bounced);

        let again = funnel.capture.report(ReportId(id(10))).unwrap();
        assert_eq!(again, captured, "a captured report is left as it is");
        let copy = funnel.report(11, by_token(&raw, 1)).await;
        assert_eq!((copy.matched, copy.forward_to), (vec![id(1)], None));
        let store = &funnel.store.store;
        assert_eq!(store.bounced("default", None, 10).unwrap(), [captured.id], "it is listed once");
        let bounces = funnel.bounces();
        assert_eq!(bounces.len(), 1);
        assert_eq!(bounces[0].recipient, B);
        assert_eq!(bounces[0].mta.as_deref(), Some("mx.example.net"));
        let matched = bounces[0].matched.unwrap();
        assert_eq!((matched.method, matched.confidence), (MatchMethod::Token, Confidence::Certain));
    }

    #[tokio::test]
    async fn without_a_token_an_id_and_a_recipient_of_that_mail_are_needed() {
        let ours = format!("X-Rebound-Id: {}\r\nSubject: one\r\n", id(1));
        let envelope_id = format!("Original-Envelope-Id: {}\r\n", id(1));
        for (fields, header, method) in [
            ("", RETURNED, MatchMethod::MessageId),
            ("", ours.as_str(), MatchMethod::ReboundId),
            (envelope_id.as_str(), "Subject: one\r\n", MatchMethod::EnvelopeId),
        ] {
            let funnel = Funnel::new().await;
            let said = [("C@EXAMPLE.com", "failed"), (A, "delayed"), (B, "delivered")];
            let captured = funnel.report(10, report(&dsn(fields, &said, header))).await;
            assert_eq!(captured.matched, [id(1)], "{method:?}");
            assert_eq!(captured.forward_to, None, "the app's own return path has had it");
            let want = [State::Queued, State::Delivered, State::Bounced];
            assert_eq!(funnel.store.states(id(1)), want, "{method:?}");
            let bounces = funnel.bounces();
            assert_eq!(bounces.len(), 3);
            assert!(bounces.iter().all(|bounce| bounce.matched.unwrap().method == method));

            let strange = dsn(fields, &[("nobody@example.com", "failed")], header);
            let captured = funnel.report(11, report(&strange)).await;
            assert_eq!(captured.matched, []);
            assert_eq!(captured.forward_to.as_deref(), Some("post@example.com"));
            assert_eq!(funnel.bounces().len(), 3);
            let unmatched = funnel.store.store.unmatched_reports(None, 10).unwrap();
            assert_eq!(unmatched, [ReportId(id(11))]);
        }
    }

    #[tokio::test]
    async fn a_rumour_about_a_single_recipient_is_shown_and_changes_nothing() {
        let funnel = Funnel::new().await;
        let alone = crate::store::record::Submission {
            message_id: crate::mail::MessageId::parse("m2@app.example").unwrap(),
            ..submission(id(2), &[A])
        };
        funnel.store.accept(alone).await;
        let header = "Message-ID: <m2@app.example>\r\n";
        let raw = dsn("", &[("alias@elsewhere.example", "failed")], header);
        let captured = funnel.report(10, report(&raw)).await;
        assert_eq!(captured.matched, [id(2)]);
        assert_eq!(funnel.store.states(id(2)), [State::Queued]);
        let raw = dsn("", &[(A, "failed")], header);
        funnel.report(11, report(&raw)).await;
        assert_eq!(funnel.store.states(id(2)), [State::Bounced]);
    }

    #[tokio::test]
    async fn what_was_refused_inline_is_not_counted_again_by_a_report() {
        let funnel = Funnel::new().await;
        funnel.refuse(0).await;
        let raw = dsn("", &[(A, "failed")], RETURNED);
        assert_eq!(funnel.report(10, report(&raw)).await.matched, [id(1)]);
        assert_eq!(funnel.bounces().len(), 1);
        assert_eq!(funnel.store.states(id(1))[0], State::Failed);
    }

    #[tokio::test]
    async fn what_a_report_has_bounced_is_not_counted_again_by_a_refusal() {
        let funnel = Funnel::new().await;
        let raw = dsn("", &[(A, "failed")], RETURNED);
        funnel.report(10, by_token(&raw, 0)).await;
        funnel.refuse(0).await;
        let bounces = funnel.bounces();
        assert_eq!((bounces.len(), bounces[0].captured_by), (1, CapturedBy::Listener));
    }

    #[tokio::test]
    async fn a_notice_of_ours_that_comes_back_changes_nothing() {
        let funnel = Funnel::new().await;
        let mark = funnel.keyring.notice(id(9));
        let forged = KeyRing::from_secret([8; 32]).notice(id(9));
        let raw = dsn("", &[(A, "failed")], RETURNED);
        let with = |mark: &str| [format!("X-Rebound-Notice: {mark}\r\n").as_bytes(), &raw].concat();
        let returned = format!("X-Rebound-Notice: {mark}\r\n{RETURNED}");
        let about = dsn("", &[(A, "failed")], &returned);
        for (unique, raw) in [(10, with(&mark)), (11, about)] {
            let captured = funnel.report(unique, by_token(&raw, 0)).await;
            assert!(captured.own_notice);
            assert_eq!((captured.matched, captured.forward_to), (vec![], None));
            assert_eq!(funnel.bounces(), []);
        }
        let captured = funnel.report(12, by_token(&with(&forged), 0)).await;
        assert!(!captured.own_notice);
        assert_eq!(funnel.store.states(id(1))[0], State::Bounced);
    }

    #[tokio::test]
    async fn an_auto_reply_goes_on_to_the_app_and_is_no_bounce() {
        let funnel = Funnel::new().await;
        let raw = b"From: a@example.com\r\nAuto-Submitted: auto-replied\r\n\
            Subject: Out of office\r\n\r\nBack on Monday.\r\n";
        let captured = funnel.report(10, by_token(raw, 0)).await;
        assert_eq!(captured.verdict, Verdict::Autoreply);
        assert_eq!(captured.forward_to.as_deref(), Some("app@example.com"));
        assert_eq!(funnel.bounces(), []);
    }

    #[tokio::test]
    async fn nothing_goes_on_that_the_app_does_not_want() {
        let funnel = Funnel::new().await;
        let raw = dsn("", &[("x@y.example", "failed")], "");
        for (unique, dsn, reverse_path) in [(2, false, funnel_path()), (3, true, ReversePath::NULL)]
        {
            let mut mail = submission(id(unique), &[A]);
            mail.dsn = dsn;
            mail.envelope.reverse_path = reverse_path;
            funnel.store.accept(mail).await;
            let mut received = report(&[&raw[..], &[u8::try_from(unique).unwrap()]].concat());
            received.digest = [u8::try_from(unique).unwrap(); 16];
            received.tokens = vec![(id(unique), 0)];
            let captured = funnel.report(unique + 10, received).await;
            assert_eq!((captured.matched, captured.forward_to), (vec![id(unique)], None));
        }
    }

    #[tokio::test]
    async fn a_report_goes_on_where_notify_wants_to_know_it() {
        let funnel = Funnel::new().await;
        let autoreply: &[u8] = b"From: a@example.com\r\nAuto-Submitted: auto-replied\r\n\
            Subject: Out of office\r\n\r\nBack on Monday.\r\n";
        let said = |action| dsn("", &[(A, action)], "");
        let reports = [
            said("failed"),
            said("delayed"),
            said("delivered"),
            said("relayed"),
            said("expanded"),
            dsn("", &[(A, "delivered"), ("x@y.example", "failed")], ""),
            autoreply.to_vec(),
        ];
        let asked: [(Option<&str>, [bool; 7]); 4] = [
            (None, [true, true, false, false, false, true, true]),
            (Some("NEVER"), [false, false, false, false, false, false, true]),
            (Some("SUCCESS"), [false, false, true, true, true, true, true]),
            (Some("FAILURE"), [true, false, false, false, false, true, true]),
        ];
        let mut unique = 20;
        for (notify, want) in asked {
            for (raw, want) in reports.iter().zip(want) {
                unique += 2;
                let mut mail = submission(id(unique), &[B, A]);
                mail.envelope.recipients[1].dsn.notify = notify.map(|n| Notify::parse(n).unwrap());
                funnel.store.accept(mail).await;
                let tokens = vec![(id(unique), 1)];
                let digest = [u8::try_from(unique).unwrap(); 16];
                let received = ReportReceived { tokens, digest, ..report(raw) };
                let captured = funnel.report(unique + 1, received).await;
                assert_eq!(captured.matched, [id(unique)]);
                let to = captured.forward_to.as_deref();
                let want = want.then_some("app@example.com");
                assert_eq!(to, want, "{notify:?} {}", String::from_utf8_lossy(raw));
            }
        }
    }

    fn funnel_path() -> ReversePath {
        ReversePath::Address(Address::parse("app@example.com").unwrap())
    }

    #[tokio::test]
    async fn a_report_with_a_thousand_recipients_makes_as_many_bounces() {
        let funnel = Funnel::new().await;
        let names: Vec<String> = (0..1000).map(|n| format!("user{n}@example.com")).collect();
        let recipients: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut mail = submission(id(2), &recipients);
        mail.message_id = crate::mail::MessageId::parse("m2@app.example").unwrap();
        funnel.store.accept(mail).await;
        let said: Vec<(&str, &str)> = recipients.iter().map(|name| (*name, "failed")).collect();
        let raw = dsn("", &said, "Message-ID: <m2@app.example>\r\n");
        funnel.report(10, report(&raw)).await;
        assert!(funnel.store.states(id(2)).iter().all(|state| *state == State::Bounced));
        let bounces = funnel.store.store.message(id(2)).unwrap().unwrap().bounces;
        let ids: HashSet<_> = bounces.iter().map(|bounce| &bounce.id).collect();
        assert_eq!((bounces.len(), ids.len()), (1000, 1000));
    }
}
