//! Closing mails: finds those of which no more news is expected, and writes that down.
//!
//! It follows the feed twice. In front, whatever may have ended the last recipient of a mail is
//! looked at when it happens; behind, everything is looked at once more when the bounce window
//! after it is over. The last event of a mail is looked at both times, so no mail is missed, and
//! none is closed twice, because a closing is a record that is looked up first.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bounce::Action;
use crate::clock::{Clock, Stopwatch};
use crate::mail::{QueueId, Timestamp};
use crate::store::record::{Batch, Closed, Decision, FeedCursor, Origin};
use crate::store::{Event, Evidence, Happened, Store, StoreError};

/// What closes mails.
#[derive(Clone)]
pub struct Closer {
    /// Where they are.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// How long after the last news a mail may still bounce (`bounces.window`).
    pub window: Duration,
}

/// How far the feed has been looked at.
#[derive(Clone, Debug)]
struct Progress {
    /// For what ends a mail at once.
    ahead: FeedCursor,
    /// For what the window is over of.
    behind: FeedCursor,
    /// When the window is over of the next event behind.
    due: Timestamp,
    /// Whether an event has been passed since this was written.
    is_worth_keeping: bool,
    /// Whether there is more to look at now.
    has_more: bool,
}

impl Closer {
    /// Closes mails until the daemon stops.
    pub async fn run(self, stop: impl Future<Output = ()> + Send) {
        tokio::pin!(stop);
        let mut progress = self.progress();
        let mut kept = Stopwatch::start();
        loop {
            let (closer, was) = (self.clone(), progress.clone());
            let is_keeping = kept.elapsed() >= KEEP_INTERVAL;
            let round = tokio::task::spawn_blocking(move || closer.round(was, is_keeping));
            match round.await {
                Ok(Ok(moved)) => progress = moved,
                Ok(Err(error)) => {
                    progress.has_more = false;
                    tracing::warn!(%error, "mails could not be closed; it is tried again");
                }
                // A panic is a defect: the daemon ends and is started again.
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            }
            if is_keeping {
                kept = Stopwatch::start();
            }
            let pause = if progress.has_more { Duration::ZERO } else { ROUND_INTERVAL };
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn progress(&self) -> Progress {
        let cursor = |follower: &str| {
            let found = self.store.feed_cursor(follower);
            let new = || FeedCursor { follower: follower.to_owned(), ..FeedCursor::default() };
            found.unwrap_or_else(new)
        };
        Progress {
            ahead: cursor(AHEAD),
            behind: cursor(BEHIND),
            due: Timestamp::from_millis(0),
            is_worth_keeping: false,
            has_more: false,
        }
    }

    /// One look at what is new in front and behind, and what follows from it. What was passed
    /// without a closing is written only where `is_keeping`: to look at it again does no harm.
    fn round(&self, mut progress: Progress, is_keeping: bool) -> Result<Progress, StoreError> {
        let now = self.clock.now();
        let mut closed = BTreeSet::new();
        let ahead = self.store.events_after(progress.ahead.place, EVENTS_MAX)?;
        for queue_id in ahead.events.iter().filter_map(may_end) {
            self.look_at(queue_id, now, &mut closed)?;
        }
        progress.ahead.place = ahead.end;
        progress.is_worth_keeping |= !ahead.events.is_empty();
        progress.has_more = !ahead.is_last;
        if now >= progress.due {
            self.look_behind(&mut progress, now, &mut closed)?;
        }
        if closed.is_empty() && !(is_keeping && progress.is_worth_keeping) {
            return Ok(progress);
        }
        let closing = |queue_id| Closed { queue_id, closed_at: now };
        let batch = Batch {
            closings: closed.into_iter().map(closing).collect(),
            feed_cursors: vec![progress.ahead.clone(), progress.behind.clone()],
            ..Batch::default()
        };
        // When the disk fails it stays true in memory, and is written later.
        drop(self.store.commit(batch)?);
        progress.is_worth_keeping = false;
        Ok(progress)
    }

    fn look_behind(
        &self,
        progress: &mut Progress,
        now: Timestamp,
        closed: &mut BTreeSet<QueueId>,
    ) -> Result<(), StoreError> {
        let behind = self.store.events_after(progress.behind.place, EVENTS_MAX)?;
        for event in &behind.events {
            if let Some((queue_id, date)) = subject(event) {
                progress.due = date.plus(self.window);
                if now < progress.due {
                    return Ok(());
                }
                self.look_at(queue_id, now, closed)?;
            }
            progress.behind.place = event.place;
            progress.is_worth_keeping = true;
        }
        progress.behind.place = behind.end;
        progress.has_more |= !behind.is_last;
        Ok(())
    }

    /// Closes a mail of an app, unless more may come of it or it has been closed.
    fn look_at(
        &self,
        queue_id: QueueId,
        now: Timestamp,
        closed: &mut BTreeSet<QueueId>,
    ) -> Result<(), StoreError> {
        if closed.contains(&queue_id) || self.store.is_closed(queue_id)? {
            return Ok(());
        }
        let Ok(record) = self.store.message(queue_id)? else { return Ok(()) };
        let recipients = Evidence::by_recipient(&record);
        let is_over = recipients.iter().all(|one| one.is_closed(now, self.window));
        if is_over && record.submission.origin == Origin::App {
            closed.insert(queue_id);
        }
        Ok(())
    }
}

/// The mail that an event may have ended for good.
fn may_end(event: &Event) -> Option<QueueId> {
    match &event.what {
        Happened::Attempt(attempt) => {
            let has_failed = matches!(attempt.decision, Decision::Failed | Decision::Expired);
            has_failed.then_some(attempt.queue_id)
        }
        Happened::Bounce(bounce) if bounce.action == Action::Failed => bounce.queue_id,
        Happened::Canceled(_) | Happened::Suppressed(_) => event.queue_id(),
        Happened::Bounce(_) | Happened::Report(_) | Happened::Closed(_) => None,
    }
}

/// The mail that an event is about, and when it happened.
fn subject(event: &Event) -> Option<(QueueId, Timestamp)> {
    match &event.what {
        Happened::Attempt(attempt) => Some((attempt.queue_id, attempt.ended_at)),
        Happened::Bounce(bounce) => Some((bounce.queue_id?, bounce.date)),
        Happened::Canceled(order) => Some((order.queue_id, order.at)),
        Happened::Suppressed(mail) => Some((mail.queue_id, mail.received_at)),
        Happened::Report(_) | Happened::Closed(_) => None,
    }
}

/// The name of the cursor for what ends a mail at once.
const AHEAD: &str = "closing";
/// The name of the cursor for what the window is over of.
const BEHIND: &str = "closing after the window";
/// Events that are looked at in one round.
const EVENTS_MAX: usize = 1_000;
/// The pause between two rounds.
const ROUND_INTERVAL: Duration = Duration::from_secs(1);
/// How often it is written how far the rounds came, also where no mail was closed.
const KEEP_INTERVAL: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, TestStore, attempt, id, submission};
    use super::*;
    use crate::mail::Stage;
    use crate::store::record::{Attempt, OrderAction};

    const DAY: Duration = Duration::from_secs(86_400);

    /// Commits attempts and returns once they are in the feed.
    async fn happened(store: &Store, attempts: Vec<Attempt>) {
        store.commit(Batch { attempts, ..Batch::default() }).unwrap().synced().await.unwrap();
        while store.stats().backlog_bytes > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The mails that the feed tells to be closed.
    fn closed(store: &Store) -> Vec<QueueId> {
        let feed = store.events_after(0, 1_000).unwrap();
        let closed = feed.events.iter().filter_map(|event| match &event.what {
            Happened::Closed(closed) => Some(closed.queue_id),
            _ => None,
        });
        closed.collect()
    }

    #[tokio::test]
    async fn a_mail_is_closed_once_when_no_more_may_come_of_it_also_over_a_restart() {
        let clock = Clock::manual(NOW);
        let mut at = TestStore::open(&clock);
        for mail in 1..=3 {
            at.accept(submission(id(mail), &["a@b.test"])).await;
        }
        let of =
            |mail, decision| Attempt { queue_id: id(mail), ..attempt(0, Stage::Rcpt, decision) };
        happened(&at.store, vec![of(1, Decision::Failed), of(2, Decision::Relayed)]).await;
        happened(&at.store, vec![of(3, Decision::RetryAt(NOW.plus(DAY)))]).await;
        for (after, want) in [
            (Duration::ZERO, vec![id(1)]),
            (6 * DAY, vec![id(1)]),
            (DAY, vec![id(1), id(2)]),
            (100 * DAY, vec![id(1), id(2)]),
        ] {
            clock.advance(after);
            // Whatever of the progress was not written is looked at again.
            at.reopen(&clock).await;
            let closer = Closer { store: at.store.clone(), clock: clock.clone(), window: 7 * DAY };
            let mut progress = closer.progress();
            for _ in 0..3 {
                progress = closer.round(progress, false).unwrap();
                // Behind what the round has written.
                happened(&at.store, vec![]).await;
            }
            assert_eq!(closed(&at.store), want, "{after:?}");
        }
    }

    #[tokio::test]
    async fn a_mail_that_ends_without_an_attempt_is_closed_at_once() {
        let clock = Clock::manual(NOW);
        let at = TestStore::open(&clock);
        // Those who may not be written to.
        for (mail, nobody) in [(1, &[0, 1][..]), (2, &[1]), (3, &[]), (4, &[])] {
            let mut mail = submission(id(mail), &["a@b.test", "c@d.test"]);
            for index in nobody {
                mail.envelope.recipients[*index].is_suppressed = true;
            }
            at.accept(mail).await;
        }
        let order = |mail, action| at.store.order(id(mail), action).unwrap().unwrap();
        order(2, OrderAction::Cancel).ticket.synced().await.unwrap();
        order(3, OrderAction::Hold).ticket.synced().await.unwrap();
        happened(&at.store, vec![]).await;
        let closer = Closer { store: at.store.clone(), clock: clock.clone(), window: 7 * DAY };
        let mut progress = closer.progress();
        for _ in 0..2 {
            progress = closer.round(progress, false).unwrap();
            happened(&at.store, vec![]).await;
        }
        assert_eq!(closed(&at.store), [id(1), id(2)]);
    }
}
