//! The loop of the queue: which mail is worked on when.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};

use super::schedule::Policy;
use super::{Context, attempt, debts};
use crate::clock::Stopwatch;
use crate::mail::{QueueId, Timestamp};
use crate::store::LiveMessage;

/// What a run of a mail means for the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// The store knows when the mail is due next, if ever.
    Recorded,
    /// Nothing could be written down; the mail is still due, and must not be taken at once.
    Stuck,
}

/// The loop and what it knows of the mails that are worked on.
pub(super) struct Runner {
    context: Arc<Context>,
    jobs: JoinSet<Progress>,
    /// The mail of each job.
    mails: HashMap<Id, QueueId>,
    active: HashSet<QueueId>,
    /// Mails whose last run got stuck, and since when.
    parked: HashMap<QueueId, Stopwatch>,
    /// One permit for each transaction; closed when the daemon stops.
    transactions: Arc<Semaphore>,
    /// When it was last said that mail is held.
    held_said: Option<Stopwatch>,
    /// When held mail was last looked through.
    held_seen: Option<Stopwatch>,
}

impl Runner {
    pub(super) fn new(context: Context) -> Self {
        let settings = &context.settings;
        // More transactions than connections would only wait with their bodies open; and what
        // waits for a connection when the daemon stops would begin then.
        let attempts_max =
            settings.queue.attempts_max_concurrent.min(settings.relay.connections_max).max(1);
        Self {
            context: Arc::new(context),
            jobs: JoinSet::new(),
            mails: HashMap::new(),
            active: HashSet::new(),
            parked: HashMap::new(),
            transactions: Arc::new(Semaphore::new(attempts_max)),
            held_said: None,
            held_seen: None,
        }
    }

    pub(super) async fn run(mut self, shutdown: impl Future<Output = ()> + Send) {
        let mut shutdown = pin!(shutdown);
        loop {
            self.start_due();
            debts::forward_reports(&self.context).await;
            let pause = self.until_next_due();
            let store = self.context.store.clone();
            tokio::select! {
                () = &mut shutdown => break,
                () = store.queue_changed() => {}
                Some(ended) = self.jobs.join_next_with_id() => self.ended(ended),
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.drain().await;
    }

    /// Starts a job for each due mail that there is room for.
    pub(super) fn start_due(&mut self) {
        self.parked.retain(|_, since| since.elapsed() < PARKED_FOR);
        let now = self.context.clock.now();
        let room = self.room();
        if room == 0 {
            return;
        }
        if self.context.relay.route().is_none() {
            self.look_through_held(now, room);
            return;
        }
        let is_busy = |queue_id| self.is_busy(queue_id);
        let mut due = self.context.store.due(now, room, &is_busy);
        let latest = Policy::of(&self.context.settings.queue).latest_due(now);
        let room = room.saturating_sub(due.len());
        let late = self.context.store.due_after(latest, room, &is_busy);
        if !late.is_empty() {
            let mails = late.len();
            tracing::warn!(mails, "the clock was set back: what it had put off is tried now");
        }
        due.extend(late);
        for queue_id in due {
            self.start(queue_id);
        }
    }

    /// Waits until every job has ended: for tests, which drive the loop by hand.
    #[cfg(test)]
    pub(super) async fn finish_jobs(&mut self) {
        while let Some(ended) = self.jobs.join_next_with_id().await {
            self.ended(ended);
        }
    }

    fn start(&mut self, queue_id: QueueId) {
        self.active.insert(queue_id);
        let job =
            attempt::run_mail(Arc::clone(&self.context), queue_id, Arc::clone(&self.transactions));
        let handle = self.jobs.spawn(job);
        self.mails.insert(handle.id(), queue_id);
    }

    fn ended(&mut self, ended: Result<(Id, Progress), JoinError>) {
        let (id, progress) = match ended {
            Ok((id, progress)) => (id, progress),
            Err(error) => {
                // A panic is a defect of ours. The mail stays, and the others go on.
                tracing::error!(%error, "a run of a mail was broken off");
                (error.id(), Progress::Stuck)
            }
        };
        let Some(queue_id) = self.mails.remove(&id) else { return };
        self.active.remove(&queue_id);
        if progress == Progress::Stuck {
            self.parked.insert(queue_id, Stopwatch::start());
        }
    }

    /// Without a smarthost nothing is tried, but what is too old still expires, and the notices
    /// that are owed are still written.
    fn look_through_held(&mut self, now: Timestamp, room: usize) {
        let store = &self.context.store;
        let waiting = store.queue_len();
        if waiting > 0 && self.held_said.is_none_or(|since| since.elapsed() >= HELD_SAID_EVERY) {
            tracing::warn!(waiting, "mail is held: no [relay] host is configured");
            self.held_said = Some(Stopwatch::start());
        }
        if self.held_seen.is_some_and(|since| since.elapsed() < HELD_SEEN_EVERY) {
            return;
        }
        self.held_seen = Some(Stopwatch::start());
        let lifetime = self.context.settings.queue.lifetime.duration();
        let has_work = |mail: &LiveMessage| {
            now.since(mail.begins_at()) >= lifetime
                || mail.recipients.iter().any(|recipient| recipient.notice_owed)
        };
        let mut worth = store.due(now, HELD_SEEN_MAX, &|queue_id| self.is_busy(queue_id));
        worth.retain(|queue_id| store.live(*queue_id).is_some_and(|mail| has_work(&mail)));
        worth.truncate(room);
        for queue_id in worth {
            self.start(queue_id);
        }
    }

    /// How long nothing will be due that is not worked on already.
    ///
    /// Never longer than `PAUSE_MAX`: a clock that was set forward, a machine that slept, and a
    /// report that waits to be forwarded wake nobody.
    fn until_next_due(&self) -> Duration {
        if self.room() == 0 || self.context.relay.route().is_none() {
            return PAUSE_MAX;
        }
        let next = self.context.store.next_due(&|queue_id| self.is_busy(queue_id));
        let pause = next.map_or(PAUSE_MAX, |time| time.since(self.context.clock.now()));
        pause.clamp(PAUSE_MIN, PAUSE_MAX)
    }

    fn room(&self) -> usize {
        let max = self.context.settings.queue.attempts_max_concurrent.max(1);
        max.saturating_sub(self.active.len())
    }

    fn is_busy(&self, queue_id: QueueId) -> bool {
        self.active.contains(&queue_id) || self.parked.contains_key(&queue_id)
    }

    /// Lets running transactions end. Those that do not end in time are dropped, which hangs up
    /// in the middle: their recipients are as they were, and are tried again after the start.
    async fn drain(mut self) {
        self.transactions.close();
        let limit = Duration::from_secs(self.context.settings.queue.drain_timeout_secs);
        let all_ended = async { while self.jobs.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all_ended).await.is_err() {
            tracing::warn!(mails = self.jobs.len(), "running attempts are broken off");
        }
        self.jobs.shutdown().await;
        self.context.relay.close().await;
    }
}

/// How long a mail rests after a run that could not be written down.
const PARKED_FOR: Duration = Duration::from_secs(60);
/// How often it is said that mail is held.
const HELD_SAID_EVERY: Duration = Duration::from_secs(3600);
/// How often held mail is looked through for what is too old.
const HELD_SEEN_EVERY: Duration = Duration::from_secs(60);
/// How many held mails are looked at, the oldest first.
const HELD_SEEN_MAX: usize = 1000;
/// The loop never turns faster than this without news.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_secs(10);
