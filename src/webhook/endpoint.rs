//! One endpoint: takes over what is new in the feed, delivers what is due, and writes down how
//! far it has come.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::outbox::{Failure, Next, Outbox, Request};
use super::request::{Outcome, Sender};
use super::{Order, Replay, Replayed, Shared, locked};
use crate::config::Webhook;
use crate::metrics::WebhookResult;
use crate::net::shutdown::Shutdown;
use crate::store::record::{Batch, Delivery};
use crate::store::{Event, Store, StoreError};
use crate::view::{self, Teller, Told};

/// What delivers to one endpoint.
pub(super) struct Endpoint {
    settings: Webhook,
    shared: Shared,
    sender: Sender,
    outbox: Arc<Mutex<Outbox>>,
    orders: mpsc::Receiver<Order>,
    running: JoinSet<(u64, Done)>,
    /// Since when deliveries fail, so that it is logged once.
    is_failing: bool,
    keep_at: Instant,
    /// Whether the feed may have more than was taken over.
    has_more: bool,
}

/// How a delivery ended.
enum Done {
    /// There is nothing to tell, or not to this endpoint.
    Unwanted,
    /// The event is no longer there.
    Purged,
    /// It could not be looked up.
    Unreadable(StoreError),
    /// It was sent.
    Sent(Outcome, Request),
}

impl Endpoint {
    pub(super) fn new(
        settings: Webhook,
        shared: Shared,
        sender: Sender,
        outbox: Arc<Mutex<Outbox>>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            settings,
            shared,
            sender,
            outbox,
            orders,
            running: JoinSet::new(),
            is_failing: false,
            keep_at: Instant::now(),
            has_more: true,
        }
    }

    /// Delivers until the daemon stops.
    pub(super) async fn run(mut self, stop: Shutdown) {
        let mut feed = self.shared.store.feed();
        while !stop.is_requested() {
            // Marked before the look: what comes during it wakes the wait after it.
            feed.mark_unchanged();
            self.take_over().await;
            self.start();
            if Instant::now() >= self.keep_at {
                self.keep().await;
            }
            let wake = self.wake();
            tokio::select! {
                () = stop.requested() => break,
                Some(ended) = self.running.join_next() => self.ended(ended),
                Some(order) = self.orders.recv() => self.follow(order).await,
                changed = feed.changed(), if !self.has_more => if changed.is_err() { break },
                () = sleep_until(wake) => {}
            }
        }
        let finished = async {
            while let Some(ended) = self.running.join_next().await {
                self.ended(ended);
            }
        };
        // What is cut off here is delivered once more after the start.
        drop(timeout(FINISH_TIMEOUT, finished).await);
        self.keep().await;
    }

    /// When there is something to do though nothing happens.
    fn wake(&self) -> Instant {
        let now = self.shared.clock.now();
        let next = locked(&self.outbox).next_start();
        let wait = next.map_or(LOOK_INTERVAL, |next| next.since(now).min(LOOK_INTERVAL));
        let has_room = locked(&self.outbox).room() > 0;
        let wait = if self.has_more && has_room { FAILED_PAUSE.min(wait) } else { wait };
        (Instant::now() + wait).min(self.keep_at.max(Instant::now() + WAKE_MIN))
    }

    /// Takes over what the feed has behind the cursor, as far as there is room.
    async fn take_over(&mut self) {
        loop {
            let (after, room, is_disabled) = {
                let outbox = locked(&self.outbox);
                (outbox.cursor().place, outbox.room(), outbox.is_disabled())
            };
            self.has_more = true;
            if room == 0 || is_disabled {
                return;
            }
            let store = self.shared.store.clone();
            let read = move || store.events_after(after, room.min(FETCHED_MAX));
            match blocking(read).await {
                Ok(piece) => {
                    let now = self.shared.clock.now();
                    let has_passed = !piece.events.is_empty();
                    let wanted = piece.events.iter().filter(|event| self.may_want(event));
                    locked(&self.outbox).take_over(wanted, piece.end, has_passed, now);
                    self.has_more = !piece.is_last;
                    if piece.is_last {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(webhook = self.settings.name, %error, "the feed cannot be read");
                    return;
                }
            }
        }
    }

    /// Whether an event may be one that this endpoint wants; the account is known only once the
    /// mail is looked up.
    fn may_want(&self, event: &Event) -> bool {
        let events = &self.settings.events;
        view::event_name(&event.what)
            .is_some_and(|name| events.is_empty() || events.iter().any(|event| event == name))
    }

    /// Begins the deliveries that are due.
    fn start(&mut self) {
        let due = locked(&self.outbox).start(self.shared.clock.now());
        for delivery in due {
            let (store, sender) = (self.shared.store.clone(), self.sender.clone());
            let accounts: HashSet<String> = self.settings.accounts.iter().cloned().collect();
            self.running.spawn(async move {
                (delivery.place, deliver(&delivery, accounts, store, &sender).await)
            });
        }
    }

    fn ended(&mut self, ended: Result<(u64, Done), tokio::task::JoinError>) {
        let (place, done) = match ended {
            Ok(ended) => ended,
            // A panic is a defect: the daemon ends and is started again.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now = self.shared.clock.now();
        let name = &self.settings.name;
        match done {
            Done::Unwanted => locked(&self.outbox).done(place),
            Done::Purged => {
                locked(&self.outbox).done(place);
                tracing::error!(webhook = name, place, "an event is no longer there");
            }
            Done::Unreadable(error) => {
                tracing::warn!(webhook = name, place, %error, "an event cannot be read");
                let failure = Failure { error: error.to_string(), retry_after: None };
                locked(&self.outbox).failed(place, &failure, None, now);
            }
            Done::Sent(Outcome::Taken, request) => {
                locked(&self.outbox).taken(place, request, now);
                self.says_taken();
            }
            Done::Sent(Outcome::Gone, _) => {
                locked(&self.outbox).disable(place, &self.settings, now);
                self.says_gone();
            }
            Done::Sent(Outcome::Failed(failure), request) => {
                let next = locked(&self.outbox).failed(place, &failure, Some(request), now);
                self.says_failed(place, &failure, next);
            }
        }
        if locked(&self.outbox).is_full() {
            self.keep_at = Instant::now();
        }
        let waiting = locked(&self.outbox).cursor().waiting.len();
        self.shared.metrics.webhook_waiting(&self.settings.name, waiting);
    }

    fn says_gone(&mut self) {
        let name = &self.settings.name;
        self.shared.metrics.webhook_delivered(name, WebhookResult::Failed);
        tracing::error!(
            webhook = name,
            "the other side says 410: nothing more is sent until the webhook is enabled again or \
             its settings change"
        );
        // It is to be known after a crash, too.
        self.keep_at = Instant::now();
    }

    fn says_taken(&mut self) {
        self.shared.metrics.webhook_delivered(&self.settings.name, WebhookResult::Taken);
        if std::mem::take(&mut self.is_failing) {
            tracing::info!(webhook = self.settings.name, "the webhook takes events again");
        }
    }

    fn says_failed(&mut self, place: u64, failure: &Failure, next: Next) {
        let (name, error) = (&self.settings.name, &failure.error);
        let result = match next {
            Next::Retry => WebhookResult::Failed,
            Next::GivenUp => WebhookResult::GivenUp,
        };
        self.shared.metrics.webhook_delivered(name, result);
        match next {
            Next::GivenUp => {
                tracing::error!(webhook = name, place, error, "an event was given up");
            }
            Next::Retry if !self.is_failing => {
                tracing::warn!(webhook = name, place, error, "the webhook does not take events");
            }
            Next::Retry => tracing::debug!(webhook = name, place, error, "an event was not taken"),
        }
        self.is_failing = true;
    }

    /// Writes down how far it has come, and what has ended since.
    async fn keep(&mut self) {
        self.keep_at = Instant::now() + KEEP_INTERVAL;
        let Some((cursor, deliveries)) = locked(&self.outbox).changed() else { return };
        let count = deliveries.len();
        let batch = Batch { feed_cursors: vec![cursor], deliveries, ..Batch::default() };
        let store = self.shared.store.clone();
        let written = match blocking(move || store.commit(batch)).await {
            Ok(ticket) => {
                locked(&self.outbox).handed_over(count);
                ticket.synced().await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = written {
            locked(&self.outbox).not_written();
            tracing::warn!(webhook = self.settings.name, %error, "cannot write how far it has come");
        }
    }

    async fn follow(&mut self, order: Order) {
        match order {
            Order::Enable(answer) => {
                locked(&self.outbox).enable();
                self.keep().await;
                answer_with(answer, ());
            }
            Order::Replay(replay, answer) => {
                let replayed = self.replay(replay).await;
                self.keep().await;
                answer_with(answer, replayed);
            }
        }
    }

    /// Puts events into the outbox once more, as far as there is room.
    async fn replay(&mut self, replay: Replay) -> Result<Replayed, StoreError> {
        let mut replayed =
            Replayed { queued: 0, end: replay.from.saturating_sub(1), has_more: true };
        while replayed.has_more {
            let (after, room) = (replayed.end, locked(&self.outbox).room());
            if room == 0 {
                break;
            }
            let store = self.shared.store.clone();
            let piece = blocking(move || store.events_after(after, room.min(FETCHED_MAX))).await?;
            let now = self.shared.clock.now();
            let wanted = piece.events.iter().filter(|event| event.place <= replay.to);
            let mut outbox = locked(&self.outbox);
            // Nothing that the cursor will come to is taken over twice.
            let passed = outbox.cursor().place;
            for event in wanted.filter(|event| event.place <= passed && self.may_want(event)) {
                outbox.put(event, now);
                replayed.queued = replayed.queued.saturating_add(1);
            }
            replayed.end = piece.end.min(replay.to);
            replayed.has_more = !piece.is_last && piece.end < replay.to;
        }
        Ok(replayed)
    }
}

/// Looks an event up and sends it.
async fn deliver(
    delivery: &Delivery,
    accounts: HashSet<String>,
    store: Store,
    sender: &Sender,
) -> Done {
    let place = delivery.place;
    let found = blocking(move || told(&store, place)).await;
    match found {
        Ok(None) => Done::Purged,
        Ok(Some(Some(told))) => {
            let is_wanted = accounts.is_empty()
                || told.account.as_ref().is_some_and(|account| accounts.contains(account));
            if !is_wanted {
                return Done::Unwanted;
            }
            let (outcome, request) = sender.send(&told, delivery.attempts).await;
            Done::Sent(outcome, request)
        }
        Ok(Some(None)) => Done::Unwanted,
        Err(error) => Done::Unreadable(error),
    }
}

/// What is told of the event at a place; `None` where it is no longer there.
fn told(store: &Store, place: u64) -> Result<Option<Option<Told>>, StoreError> {
    let piece = store.events_after(place.saturating_sub(1), 1)?;
    let Some(event) = piece.events.first().filter(|event| event.place == place) else {
        return Ok(None);
    };
    Teller::new(store).tell(event).map(Some)
}

/// Runs what reads or writes the store where it may block.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(job).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Whoever does not wait for the answer has gone.
fn answer_with<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}

/// Events of the feed that are read at a time.
const FETCHED_MAX: usize = 200;
/// How often it is written how far an endpoint has come: what was delivered since is delivered
/// again after a crash.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing is looked at while nothing happens.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// The pause after a feed that cannot be read.
const FAILED_PAUSE: Duration = Duration::from_secs(1);
/// The shortest pause.
const WAKE_MIN: Duration = Duration::from_millis(10);
/// How long deliveries under way are waited for when the daemon stops.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);
