//! Reading a captured report again, with the rules and the code of today.
//!
//! What it says now is laid beside what was recorded. Applying records what is new and replaces
//! what is read otherwise; the journal keeps both. A bounce that the report no longer says is
//! shown and stays: what it did to its recipient was final, and the app has been told.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::Capture;
use crate::bounce::{self, Verdict};
use crate::mail::{QueueId, Timestamp};
use crate::store::record::{Batch, Bounce, BounceKey, ReportCaptured, ReportId};
use crate::store::{StoreError, Ticket};

/// Whether the difference is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is only shown.
    Show,
    /// It is recorded.
    Apply,
}

/// What reading a report again changes.
#[derive(Debug)]
pub struct Difference {
    /// The report.
    pub id: ReportId,
    /// When it arrived.
    pub received_at: Timestamp,
    /// What it was taken for.
    pub verdict_was: Verdict,
    /// What it is taken for now.
    pub verdict: Verdict,
    /// The submissions it is tied to now and was not.
    pub newly_matched: Vec<QueueId>,
    /// What it says of recipients, where that differs.
    pub changes: Vec<Change>,
    /// The write; `None` when nothing is to be written.
    pub ticket: Option<Ticket>,
}

/// What is read otherwise of one recipient.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It was not read.
    Added(Bounce),
    /// It was read otherwise.
    Revised {
        /// As it was recorded.
        was: Box<Bounce>,
        /// As it is read now.
        now: Box<Bounce>,
    },
    /// It is no longer read; the record stays.
    Withdrawn(Bounce),
}

impl Capture {
    /// Reads a captured report again; `None` when it says what it said.
    ///
    /// Also `None` for a report that is not captured or not there, for notices of our own, and
    /// for a copy of an earlier report, which is read in its place. Nothing is forwarded and no
    /// notice is written because of it. Needs processor time and look-ups, as `report` does.
    ///
    /// # Errors
    /// When the store cannot be read or does not take the batch.
    pub fn reread(&self, id: ReportId, mode: Mode) -> Result<Option<Difference>, StoreError> {
        let Ok(record) = self.inner.store.report(id)? else { return Ok(None) };
        let received = record.received;
        let facts = bounce::read(&received.raw);
        let _writing = self.writing();
        let Some(captured) = self.load(id)?.captured else { return Ok(None) };
        if captured.own_notice || self.is_own_notice(&facts) || self.earlier(&received)?.is_some() {
            return Ok(None);
        }
        let ladder = self.climb(&received, &facts)?;
        if ladder.leads_to_notice() {
            return Ok(None);
        }
        let now = self.inner.clock.now();
        let read = self.bounces(&received, &facts, &ladder, HashSet::new(), now);
        let recorded = self.inner.store.bounces_of_report(id)?;
        let changes = changes(recorded, read.bounces, &ladder.known_keys());
        let was: BTreeSet<QueueId> = captured.matched.iter().copied().collect();
        let newly_matched: Vec<QueueId> =
            read.matched.into_iter().filter(|queue_id| !was.contains(queue_id)).collect();
        let is_same_verdict = captured.verdict == facts.verdict;
        if is_same_verdict && newly_matched.is_empty() && changes.is_empty() {
            if mode == Mode::Apply {
                self.name_accounts(captured, &self.inner.store.bounces_of_report(id)?)?;
            }
            return Ok(None);
        }
        let mut difference = Difference {
            id,
            received_at: received.received_at,
            verdict_was: captured.verdict,
            verdict: facts.verdict,
            newly_matched,
            changes,
            ticket: None,
        };
        let (bounces, revisions) = difference.writes();
        let is_written = !is_same_verdict
            || !difference.newly_matched.is_empty()
            || !bounces.is_empty()
            || !revisions.is_empty();
        if mode == Mode::Apply && is_written {
            self.tell_bounces(&received, &bounces);
            let owners = self.owners(&bounces)?;
            let mut mark = difference.mark(captured, now);
            mark.bounced_accounts.extend(owners.all());
            let report = Some(mark);
            let strikes = self.strikes(&bounces, &owners);
            let batch = Batch { bounces, strikes, revisions, report, ..Batch::default() };
            difference.ticket = Some(self.inner.store.commit(batch)?);
        }
        Ok(Some(difference))
    }

    /// Records whose mails a report brought bounces of, where an older version has not.
    fn name_accounts(
        &self,
        captured: ReportCaptured,
        recorded: &[Bounce],
    ) -> Result<(), StoreError> {
        let bounced_accounts = self.owners(recorded)?.all();
        if captured.bounced_accounts.is_superset(&bounced_accounts) {
            return Ok(());
        }
        let mark = ReportCaptured { bounced_accounts, reread: true, ..captured };
        // Losing this write means reading it once more.
        drop(self.inner.store.commit(Batch { report: Some(mark), ..Batch::default() })?);
        Ok(())
    }
}

impl Difference {
    /// The bounces that are new, and those that replace others.
    fn writes(&self) -> (Vec<Bounce>, Vec<Bounce>) {
        let mut added = Vec::new();
        let mut revised = Vec::new();
        for change in &self.changes {
            match change {
                Change::Added(bounce) => added.push(bounce.clone()),
                Change::Revised { now, .. } => revised.push(now.as_ref().clone()),
                Change::Withdrawn(_) => {}
            }
        }
        (added, revised)
    }

    /// The mark of the later reading. What the report was tied to it stays tied to, as its
    /// bounces stay.
    fn mark(&self, captured: ReportCaptured, now: Timestamp) -> ReportCaptured {
        let mut matched = captured.matched;
        matched.extend(&self.newly_matched);
        ReportCaptured {
            captured_at: now,
            verdict: self.verdict,
            matched,
            reread: true,
            ..captured
        }
    }
}

/// How what was recorded of a report and what it says now differ. `known` are the bounces of the
/// submissions it is about: what another report or a refusal has brought is no news.
fn changes(recorded: Vec<Bounce>, read: Vec<Bounce>, known: &HashSet<BounceKey>) -> Vec<Change> {
    let mut recorded: HashMap<BounceKey, Bounce> =
        recorded.into_iter().map(|bounce| (bounce.key, bounce)).collect();
    let mut changes = Vec::new();
    for now in read {
        match recorded.remove(&now.key) {
            Some(was) if is_revision(&was, &now) => {
                let now = Bounce { id: was.id.clone(), date: was.date, ..now };
                if was != now {
                    changes.push(Change::Revised { was: Box::new(was), now: Box::new(now) });
                }
            }
            Some(was) => {
                recorded.insert(was.key, was);
                changes.push(Change::Added(now));
            }
            None if known.contains(&now.key) => {}
            None => changes.push(Change::Added(now)),
        }
    }
    let mut gone: Vec<Bounce> = recorded.into_values().collect();
    gone.sort_by(|a, b| a.id.cmp(&b.id));
    changes.extend(gone.into_iter().map(Change::Withdrawn));
    changes
}

/// Whether `now` may take the place of `was`: every index finds it where it found the other, and
/// the recipient's state does not depend on which of them is read.
fn is_revision(was: &Bounce, now: &Bounce) -> bool {
    let place = |bounce: &Bounce| (bounce.queue_id, bounce.recipient_index, bounce.action);
    let is_trusted = |bounce: &Bounce| crate::store::state::reported_state(bounce).is_some();
    place(was) == place(now)
        && was.recipient == now.recipient
        && was.report_id == now.report_id
        && is_trusted(was) == is_trusted(now)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, TestStore, dsn, id, report, submission};
    use super::super::{Options, RuleSets};
    use super::*;
    use crate::bounce::{Category, Rules};
    use crate::clock::Clock;
    use crate::mail::Address;
    use crate::metrics::Metrics;
    use crate::secret::KeyRing;
    use crate::store::record::ReportReceived;
    use crate::store::state::State;
    use std::sync::Arc;

    const A: &str = "a@example.com";
    const B: &str = "b@example.com";
    const RETURNED: &str = "Message-ID: <m1@app.example>\r\nSubject: one\r\n";
    const REPORT: ReportId = ReportId(QueueId::from_bytes([1; 10]));

    fn with(classes: Rules) -> RuleSets {
        RuleSets { classes, ..RuleSets::compiled_in() }
    }

    fn capture(store: &TestStore, clock: &Clock, rules: &str) -> Capture {
        let keyring = Arc::new(KeyRing::from_secret([7; 32]));
        let options =
            Options { postmaster: Address::parse("post@example.com").ok(), ..Options::default() };
        let rules = with(Rules::parse(rules).unwrap());
        let store = store.store.clone();
        Capture::new(store, rules, keyring, clock.clone(), Metrics::new(), options)
    }

    async fn reread(capture: &Capture, id: ReportId, mode: Mode) -> Option<Difference> {
        let mut difference = capture.reread(id, mode).unwrap()?;
        if let Some(ticket) = difference.ticket.take() {
            ticket.synced().await.unwrap();
        }
        Some(difference)
    }

    /// Everywhere a bounce of the first mail can be looked up.
    fn everywhere(store: &TestStore, report: ReportId) -> Vec<Vec<Bounce>> {
        let store = &store.store;
        let mut by_recipient = store.by_recipient(A, None, 10).unwrap();
        by_recipient.extend(store.by_recipient(B, None, 10).unwrap());
        vec![
            store.message(id(1)).unwrap().unwrap().bounces,
            store.bounces_of_report(report).unwrap(),
            store.recent_bounces(None, 10).unwrap(),
            by_recipient,
        ]
    }

    fn category(bounce: &Bounce) -> Category {
        bounce.response.classification.category
    }

    #[tokio::test]
    async fn new_rules_replace_what_old_ones_made_of_a_report_wherever_it_is_looked_up() {
        let clock = Clock::manual(NOW);
        let mut store = TestStore::open(&clock);
        let old = capture(&store, &clock, "");
        store.accept(submission(id(1), &[A, B])).await;
        let raw = dsn("", &[(A, "failed"), (B, "failed")], RETURNED);
        let received = ReportReceived { tokens: vec![(id(1), 0)], ..report(&raw) };
        let report_id = received.id;
        store.accept_report(received).await;
        old.report(report_id).unwrap();
        let owed = store.store.owed_forwards(10);
        assert_eq!(owed.len(), 1);
        assert!(reread(&old, report_id, Mode::Apply).await.is_none(), "nothing has changed");

        old.set_rules(RuleSets::compiled_in());
        let shown = reread(&old, report_id, Mode::Show).await.unwrap();
        assert_eq!((shown.verdict_was, shown.verdict), (Verdict::Bounce, Verdict::Bounce));
        let states = store.states(id(1));
        for _ in 0..2 {
            let before = everywhere(&store, report_id);
            assert!(before.iter().flatten().all(|bounce| category(bounce) == Category::Unknown));
            let again = reread(&old, report_id, Mode::Show).await.unwrap();
            assert_eq!(again.changes, shown.changes, "showing writes nothing");
        }
        let applied = reread(&old, report_id, Mode::Apply).await.unwrap();
        assert_eq!(applied.changes, shown.changes);
        drop(old);
        for _ in 0..2 {
            for found in everywhere(&store, report_id) {
                assert_eq!(found.len(), applied.changes.len());
                assert!(found.iter().all(|b| category(b) == Category::UserUnknown), "{found:?}");
            }
            assert_eq!(store.states(id(1)), states);
            assert_eq!(store.store.owed_forwards(10), owed, "it is forwarded once");
            let new = capture(&store, &clock, "");
            new.set_rules(RuleSets::compiled_in());
            assert!(reread(&new, report_id, Mode::Apply).await.is_none(), "it is done");
            drop(new);
            store.reopen(&clock).await;
        }
    }

    #[tokio::test]
    async fn what_was_overlooked_is_recorded_and_changes_its_recipient() {
        let clock = Clock::manual(NOW);
        let store = TestStore::open(&clock);
        let capture = capture(&store, &clock, "");
        store.accept(submission(id(1), &[A, B])).await;
        let raw = dsn("", &[(B, "failed")], RETURNED);
        store.accept_report(ReportReceived { id: REPORT, ..report(&raw) }).await;
        let overlooked = ReportCaptured {
            id: REPORT,
            captured_at: NOW,
            verdict: Verdict::Other,
            matched: vec![],
            own_notice: false,
            forward_to: None,
            reread: false,
            bounced_accounts: Default::default(),
        };
        let batch = Batch { report: Some(overlooked), ..Batch::default() };
        store.store.commit(batch).unwrap().synced().await.unwrap();
        let shown = reread(&capture, REPORT, Mode::Show).await.unwrap();
        assert_eq!(store.states(id(1)), [State::Queued, State::Queued]);
        assert_eq!((shown.verdict_was, shown.verdict), (Verdict::Other, Verdict::Bounce));
        assert_eq!(shown.newly_matched, [id(1)]);
        assert!(matches!(shown.changes.as_slice(), [Change::Added(new)] if new.recipient == B));
        reread(&capture, REPORT, Mode::Apply).await.unwrap();
        assert_eq!(store.states(id(1)), [State::Queued, State::Bounced]);
        let mark = store.store.report(REPORT).unwrap().unwrap().captured.unwrap();
        assert_eq!((mark.verdict, mark.matched), (Verdict::Bounce, vec![id(1)]));
        assert_eq!(store.store.owed_forwards(10), []);
        assert!(reread(&capture, REPORT, Mode::Apply).await.is_none());
    }

    #[tokio::test]
    async fn whose_bounces_a_report_brought_is_recorded_where_an_older_version_has_not() {
        let clock = Clock::manual(NOW);
        let store = TestStore::open(&clock);
        let capture = capture(&store, &clock, "");
        store.accept(submission(id(1), &[A, B])).await;
        let raw = dsn("", &[(B, "failed")], RETURNED);
        store.accept_report(ReportReceived { id: REPORT, ..report(&raw) }).await;
        let captured = capture.report(REPORT).unwrap();
        let older = ReportCaptured { bounced_accounts: Default::default(), ..captured.clone() };
        let batch = Batch { report: Some(older.clone()), ..Batch::default() };
        store.store.commit(batch).unwrap().synced().await.unwrap();
        let mark = || store.store.report(REPORT).unwrap().unwrap().captured.unwrap();
        assert!(reread(&capture, REPORT, Mode::Show).await.is_none());
        assert_eq!(mark(), older);
        assert!(reread(&capture, REPORT, Mode::Apply).await.is_none(), "it says what it said");
        assert_eq!(mark(), ReportCaptured { reread: true, ..captured });
        assert_eq!(store.store.bounced("default", None, 10).unwrap(), [REPORT]);
    }

    #[tokio::test]
    async fn what_a_report_no_longer_says_is_shown_and_stays() {
        let clock = Clock::manual(NOW);
        let store = TestStore::open(&clock);
        let capture = capture(&store, &clock, "");
        store.accept(submission(id(1), &[A, B])).await;
        let raw = dsn("", &[(A, "failed"), (B, "failed")], RETURNED);
        let report_id = report(&raw).id;
        store.accept_report(report(&raw)).await;
        capture.report(report_id).unwrap();
        let mut bounces = store.store.bounces_of_report(report_id).unwrap();
        let known: HashSet<BounceKey> = bounces.iter().map(|bounce| bounce.key).collect();
        let gone = bounces.remove(0);
        let all = store.store.bounces_of_report(report_id).unwrap();
        assert_eq!(changes(all, bounces, &known), [Change::Withdrawn(gone)]);
        assert_eq!(changes(vec![], store.store.recent_bounces(None, 9).unwrap(), &known), []);
    }

    #[tokio::test]
    async fn reports_are_listed_from_a_moment_on_once_they_are_captured() {
        let clock = Clock::manual(NOW);
        let mut store = TestStore::open(&clock);
        let funnel = capture(&store, &clock, "");
        let late =
            |unique| ReportId(QueueId::new(NOW.plus(std::time::Duration::from_secs(1)), unique));
        let ids = [ReportId(id(10)), ReportId(id(11)), late(1), late(2)];
        for id in ids {
            let raw = format!("Subject: {}\r\n\r\n", id.0);
            store.accept_report(ReportReceived { id, ..report(raw.as_bytes()) }).await;
        }
        for id in &ids[..3] {
            funnel.report(*id).unwrap();
        }
        drop(funnel);
        for _ in 0..2 {
            let list = |from, after, max| store.store.captured_reports(from, after, max).unwrap();
            assert_eq!(list(Timestamp::default(), None, 10), ids[..3]);
            assert_eq!(list(NOW, None, 2), ids[..2]);
            assert_eq!(list(NOW, Some(ids[0]), 10), ids[1..3]);
            assert_eq!(list(late(0).0.time(), None, 10), ids[2..3]);
            assert_eq!(list(NOW, Some(ids[2]), 10), []);
            store.reopen(&clock).await;
        }
    }
}
