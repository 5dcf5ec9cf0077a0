//! What survives a crash: bodies, the journal, and the index that is rebuilt from it.
//!
//! The journal is the truth and sled an index over it that can be thrown away.
//! `accept`, `accept_report` and `commit` return a `Ticket`; what it stands for is on disk once
//! `Ticket::synced` returns, and visible to every look-up at once.

mod applier;
mod archive;
mod body;
mod committer;
mod day_notes;
mod deliveries;
mod digest;
mod disk;
mod entry;
mod evidence;
mod feed;
mod filter;
mod index;
mod intake;
mod journal;
mod kept;
mod keys;
mod layout;
mod listing;
mod live;
mod lookup;
mod mailboxes;
mod orders;
mod pending;
pub mod record;
mod recovery;
mod retention;
mod search;
mod shared;
mod spool;
pub mod state;
pub mod suppressions;
mod timetable;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::oneshot;

pub use self::body::{Body, BodyWriter};
pub use self::deliveries::{DeliveryEnd, DeliveryEnded};
pub use self::digest::report_digest;
pub use self::disk::create_private_dir;
pub use self::evidence::Evidence;
pub use self::feed::{Event, Events, Happened};
pub use self::mailboxes::{MailboxCounts, MailboxState, MailboxStatus};
pub use self::orders::{Claim, Ordered, QueueOrder, QueueRange};
use self::record::{
    Attempt, Batch, Bounce, FeedCursor, Order, ReportCaptured, ReportId, ReportReceived, Submission,
};
pub use self::search::{Range, Stretch};
pub use self::shared::Health;
use self::shared::{Shared, Stop, Tuning};
use self::spool::Pin;
use self::state::State;
use crate::clock::Clock;
use crate::mail::{Address, MailDsn, MessageId, QueueId, RecipientDsn, ReversePath, Timestamp};
use crate::metrics::Metrics;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// How long records are kept.
    pub keep: Duration,
    /// How long bodies are kept once their mails have ended; zero: not at all.
    pub bodies: Duration,
}

/// The store; clones share it. When the last one is dropped without `close`, it ends as in a
/// crash: what was synced is there at the next start.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// Why the store could not do what was asked. (Names of what failed follow in the variants.)
#[derive(Debug)]
pub enum StoreError {
    /// The queue to the committer is full, or a write failed a moment ago: 451.
    Busy,
    /// The disk is nearly full: 452.
    DiskFull,
    /// Reading or writing a file failed.
    Io {
        /// What was being done, with which file.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The directory is used by another process.
    Locked(PathBuf),
    /// The directory was written by a version we cannot read, or is damaged beyond repair.
    Format(String),
}

/// Reads a body from its first octet.
pub type BodyReader = Box<dyn AsyncRead + Send + Unpin>;

/// A write that is under way.
#[must_use = "nothing is acknowledged before it is synced"]
#[derive(Debug)]
pub struct Ticket(oneshot::Receiver<Result<(), StoreError>>);

/// A mail in the queue.
#[derive(Clone, Debug)]
pub struct LiveMessage {
    /// Our name for it.
    pub queue_id: QueueId,
    /// Its Message-ID.
    pub message_id: MessageId,
    /// Whose it is.
    pub account: String,
    /// An app's mail or our own notice.
    pub origin: record::Origin,
    /// When it was taken over.
    pub received_at: Timestamp,
    /// The app's reverse-path.
    pub reverse_path: ReversePath,
    /// Which reverse-path it leaves with.
    pub return_path: record::ReturnPathMode,
    /// Whether DSNs are mailed about it.
    pub dsn: bool,
    /// Octets of the whole mail.
    pub size_bytes: u64,
    /// Whether it has lines longer than SMTP allows (RFC 5321 §4.5.3.1.6).
    pub long_lines: bool,
    /// What `BODY=` declared.
    pub body: crate::mail::envelope::BodyKind,
    /// Whether it needs SMTPUTF8.
    pub smtputf8: bool,
    /// What the app asked of reports.
    pub dsn_asked: MailDsn,
    /// When it is relayed at the earliest, where the app said so.
    pub send_at: Option<Timestamp>,
    /// Attempts after which a recipient is given up, where the app said so.
    pub attempts_max: Option<u32>,
    /// Whether nobody is tried until it is released.
    pub held: bool,
    /// Delay notices it has had.
    pub delay_notices: u32,
    /// Every recipient, in the order of the envelope.
    pub recipients: Vec<LiveRecipient>,
}

/// A recipient of a mail in the queue.
#[derive(Clone, Debug)]
pub struct LiveRecipient {
    /// The address.
    pub address: Address,
    /// What became of it so far.
    pub state: State,
    /// Attempts so far.
    pub attempts: u32,
    /// When it is tried next; of no meaning once it has left the queue.
    pub next_attempt: Timestamp,
    /// The last attempt, for the notices.
    pub last: Option<Attempt>,
    /// Whether the app is owed a DSN about it.
    pub notice_owed: bool,
    /// What the app asked of reports about it.
    pub dsn: RecipientDsn,
    /// Whether an attempt is under way.
    pub under_way: bool,
}

impl LiveMessage {
    /// When it was to be tried first: its age counts from there.
    pub fn begins_at(&self) -> Timestamp {
        record::begins_at(self.received_at, self.send_at)
    }
}

/// Everything that is known of one submission.
#[derive(Clone, Debug)]
pub struct MessageRecord {
    /// What was taken over.
    pub submission: Submission,
    /// Every attempt, oldest first.
    pub attempts: Vec<Attempt>,
    /// Every bounce and all delivery news, oldest first.
    pub bounces: Vec<Bounce>,
    /// What was ordered to be done with it in the queue, oldest first.
    pub orders: Vec<Order>,
}

/// A report and what was made of it.
#[derive(Clone, Debug)]
pub struct ReportRecord {
    /// The report as it arrived.
    pub received: ReportReceived,
    /// What was made of it; `None` until it is captured.
    pub captured: Option<ReportCaptured>,
}

/// Why nothing is known under an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing was ever stored under it.
    NeverSeen,
    /// It was there, and its day has been pruned.
    Purged,
}

/// How the store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Mails in the queue.
    pub queue_len: usize,
    /// When the oldest mail or report that is still in work arrived.
    pub oldest: Option<Timestamp>,
    /// Reports that are not captured.
    pub uncaptured_reports: usize,
    /// Octets free on the disk.
    pub disk_free_bytes: u64,
    /// Segments of the spool.
    pub segments: usize,
    /// Octets that are written but not in the index yet.
    pub backlog_bytes: usize,
    /// Writes of the journal that failed since the start.
    pub write_failures: u64,
    /// Checkpoints that failed since the start.
    pub checkpoint_failures: u64,
    /// Places where the journal was found damaged at the start.
    pub damaged_ranges: u64,
    /// How often data was synced since the start.
    pub syncs: u64,
    /// Whether writes work.
    pub health: Health,
}

impl Store {
    /// Opens or creates the store: takes the lock, recovers, starts the committer and applier.
    pub fn open(options: &Options, clock: Clock) -> Result<Self, StoreError> {
        Self::open_tuned(options, clock, Tuning::default())
    }

    fn open_tuned(options: &Options, clock: Clock, tuning: Tuning) -> Result<Self, StoreError> {
        let recovered = recovery::open(options, clock, tuning)?;
        let mut committer = committer::Committer::new(recovered.end.lsn, recovered.next_number);
        let applier = applier::Applier::new(recovered.end);
        let shared = Arc::new(recovered.shared);
        shared.core().last_lsn = recovered.end.lsn;
        shared.applied.send_replace(recovered.end.lsn);
        committer.start(&shared)?;
        let commit = shared::spawn("store-committer", &shared, |shared| committer.run(shared))?;
        let apply = shared::spawn("store-applier", &shared, |shared| applier.run(shared))?;
        let threads =
            Threads { shared: Arc::clone(&shared), running: Mutex::new(vec![commit, apply]) };
        Ok(Self { shared, threads: Arc::new(threads) })
    }

    /// Stops accepting, syncs everything, writes a clean checkpoint.
    pub async fn close(&self) {
        self.shared.stop(Stop::Drain);
        let threads = Arc::clone(&self.threads);
        if let Err(error) = tokio::task::spawn_blocking(move || threads.join()).await {
            tracing::error!(%error, "the store could not be closed");
        }
    }

    /// A queue id that this store has not given before.
    pub fn new_queue_id(&self) -> QueueId {
        QueueId::new(self.shared.clock.now(), self.shared.unique())
    }

    /// Whether a mail of `size_bytes` may be offered now: `Busy` or `DiskFull` if not.
    pub fn can_accept(&self, size_bytes: u64) -> Result<(), StoreError> {
        self.shared.core().room()?;
        self.shared.disk_has_room(size_bytes)
    }

    /// Begins to take a body.
    pub fn body_writer(&self, queue_id: QueueId) -> BodyWriter {
        BodyWriter::new(&self.shared.paths.big, queue_id, self.shared.disk.clone())
    }

    /// Takes over a mail. Its recipients are due as soon as it is on disk.
    pub fn accept(&self, submission: Submission, body: Body) -> Result<Ticket, StoreError> {
        self.shared.accept(submission, body).map(Ticket)
    }

    /// Takes over a report; once on disk it is uncaptured until a `Batch` carries its mark.
    pub fn accept_report(&self, report: ReportReceived) -> Result<Ticket, StoreError> {
        self.shared.accept_report(report).map(Ticket)
    }

    /// Writes a batch: visible at once, durable when the ticket says so.
    ///
    /// Ends the recipients that attempts (`Relayed`, `Failed`, `Expired`) or trusted reports
    /// (`failed`, `delivered`) end, and the mail when nobody waits and no notice is owed.
    /// A bounce that is known by its key is left out. Reads the index, so it may block shortly.
    /// When the ticket fails the batch stays visible and is written once the disk works again.
    pub fn commit(&self, batch: Batch) -> Result<Ticket, StoreError> {
        self.shared.commit(batch).map(Ticket)
    }

    /// The body of a mail in the queue, or of one that has ended as long as it is kept:
    /// `Options::bodies`. An `Io` of the kind `NotFound` says that it is not there any more.
    pub async fn body(&self, queue_id: QueueId) -> Result<BodyReader, StoreError> {
        let shared = &self.shared;
        let found = shared.core().spool.find(Pin::Mail(queue_id));
        let found = found.filter(|(_, place)| !shared.is_body_over(*place));
        let missing = match found {
            Some((segment, place)) => {
                match body::read(segment, place, shared.seed, &shared.paths.big, queue_id).await {
                    // Its file may just have been moved to those that are kept.
                    Err(error) if error.is_not_found() => error,
                    read => return read,
                }
            }
            None => StoreError::io(
                format!("reading the body of {queue_id}"),
                std::io::Error::new(std::io::ErrorKind::NotFound, "the mail has left the queue"),
            ),
        };
        kept::read(shared, queue_id).await?.ok_or(missing)
    }

    /// A mail in the queue.
    pub fn live(&self, queue_id: QueueId) -> Option<LiveMessage> {
        self.shared.core().live.mail(queue_id).cloned()
    }

    /// Every mail in the queue, oldest first.
    pub fn live_ids(&self, max: usize) -> Vec<QueueId> {
        self.shared.core().live.queue_ids().take(max).collect()
    }

    /// Mails with a recipient that is due, or for which a notice is owed; oldest due first.
    /// Those that `skip` picks are passed over: it runs under the store's lock and must not call
    /// the store.
    pub fn due(&self, now: Timestamp, max: usize, skip: &dyn Fn(QueueId) -> bool) -> Vec<QueueId> {
        self.shared.core().live.due(now, max, skip)
    }

    /// Mails that are not due before `time` is over, but for those that are to be sent then.
    /// `skip` is as for `due`.
    pub fn due_after(
        &self,
        time: Timestamp,
        max: usize,
        skip: &dyn Fn(QueueId) -> bool,
    ) -> Vec<QueueId> {
        self.shared.core().live.due_after(time, max, skip)
    }

    /// When the next mail is due that `skip` does not pick.
    pub fn next_due(&self, skip: &dyn Fn(QueueId) -> bool) -> Option<Timestamp> {
        self.shared.core().live.next_due(skip)
    }

    /// Mails in the queue.
    pub fn queue_len(&self) -> usize {
        self.shared.core().live.len()
    }

    /// Returns once the queue has changed since the last call returned; for one waiter.
    pub async fn queue_changed(&self) {
        self.shared.queue_changed.notified().await;
    }

    /// Changes whenever something was written; for those who wait for news.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// How many wait for news.
    #[cfg(test)]
    pub(crate) fn watchers(&self) -> usize {
        self.shared.changes.receiver_count()
    }

    /// Reports that have arrived and are not captured, oldest first.
    pub fn uncaptured_reports(&self, max: usize) -> Vec<ReportId> {
        self.shared.core().live.uncaptured().take(max).collect()
    }

    /// Returns once a report has arrived since the last call returned; for one waiter.
    pub async fn report_arrived(&self) {
        self.shared.report_arrived.notified().await;
    }

    /// Captured reports whose forwarding is still owed, oldest first.
    pub fn owed_forwards(&self, max: usize) -> Vec<ReportCaptured> {
        let core = self.shared.core();
        core.live.forwards().take(max).map(|mark| mark.as_ref().clone()).collect()
    }

    /// Everything known of a submission, in the queue or ended.
    pub fn message(&self, queue_id: QueueId) -> Result<Result<MessageRecord, Missing>, StoreError> {
        self.shared.message(queue_id)
    }

    /// A submission, in the queue or ended, without what became of it.
    pub fn submission(&self, queue_id: QueueId) -> Result<Result<Submission, Missing>, StoreError> {
        self.shared.submission(queue_id)
    }

    /// The submissions of a Message-ID, newest first, of every account.
    pub fn by_message_id(&self, message_id: &MessageId) -> Result<Vec<QueueId>, StoreError> {
        self.shared.by_message_id(message_id)
    }

    /// The submissions to which a next hop gave this Message-ID instead of their own, newest
    /// first, of every account.
    pub fn by_alias(&self, alias: &MessageId) -> Result<Vec<QueueId>, StoreError> {
        self.shared.by_alias(alias)
    }

    /// The attempts in which a next hop took a mail under this queue id, newest mail first; only
    /// of mails taken over since `since`: next hops use their ids again.
    pub fn by_remote_queue_id(
        &self,
        remote_queue_id: &str,
        since: Timestamp,
    ) -> Result<Vec<Attempt>, StoreError> {
        self.shared.by_remote_queue_id(remote_queue_id, since)
    }

    /// The newest mails of apps, `max` at most, that were taken over for an address (in its
    /// canonical form) since `since`; of every account.
    pub fn sent_to(
        &self,
        address: &str,
        since: Timestamp,
        max: usize,
    ) -> Result<Vec<MessageRecord>, StoreError> {
        self.shared.sent_to(address, since, max)
    }

    /// The newest mail that an account submitted with this idempotency key since `since`.
    pub fn by_idempotency_key(
        &self,
        account: &str,
        key: &str,
        since: Timestamp,
    ) -> Result<Option<Submission>, StoreError> {
        self.shared.by_idempotency_key(account, key, since)
    }

    /// Why nothing is known under a Message-ID; only those that we made tell their time.
    pub fn missing_message_id(&self, message_id: &MessageId) -> Missing {
        let ours = message_id.as_str().get(..16).and_then(QueueId::parse);
        ours.map_or(Missing::NeverSeen, |id| self.shared.missing(id.time()))
    }

    /// A report.
    pub fn report(&self, id: ReportId) -> Result<Result<ReportRecord, Missing>, StoreError> {
        self.shared.report(id)
    }

    /// The captured report that has this digest, if there is one.
    pub fn report_by_digest(&self, digest: &[u8; 16]) -> Result<Option<ReportId>, StoreError> {
        self.shared.report_by_digest(digest)
    }

    /// Bounces and news read from one report.
    pub fn bounces_of_report(&self, id: ReportId) -> Result<Vec<Bounce>, StoreError> {
        self.shared.bounces_of_report(id)
    }

    /// Reports that match nothing, newest first, before `before`.
    pub fn unmatched_reports(
        &self,
        before: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        self.shared.unmatched_reports(before, max)
    }

    /// All reports, captured or not, newest first, before `before`.
    pub fn reports(
        &self,
        before: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        self.shared.reports(before, max)
    }

    /// Captured reports that arrived at `from` or later, behind `after`, oldest first.
    pub fn captured_reports(
        &self,
        from: Timestamp,
        after: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        self.shared.captured_reports(from, after, max)
    }

    /// The mails that apps have submitted for an account, or for any, newest first, those before
    /// `before` only.
    pub fn sent(
        &self,
        account: Option<&str>,
        before: Option<QueueId>,
        max: usize,
    ) -> Result<Vec<QueueId>, StoreError> {
        self.shared.sent(account, before, max)
    }

    /// How many mails `sent` would list in all.
    pub fn sent_count(&self, account: Option<&str>) -> Result<u64, StoreError> {
        self.shared.sent_count(account)
    }

    /// The reports that brought bounces of an account's mails, newest first, those before
    /// `before` only.
    pub fn bounced(
        &self,
        account: &str,
        before: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        self.shared.bounced(account, before, max)
    }

    /// How many reports `bounced` would list in all.
    pub fn bounced_count(&self, account: &str) -> Result<u64, StoreError> {
        self.shared.bounced_count(account)
    }

    /// At most `max` events behind the place `after`, oldest first.
    pub fn events_after(&self, after: u64, max: usize) -> Result<Events, StoreError> {
        self.shared.events_after(after, max)
    }

    /// The place behind everything that has happened so far.
    pub fn events_end(&self) -> u64 {
        self.shared.core().last_lsn
    }

    /// How far a follower of the feed has come; `None` where it begins to follow.
    pub fn feed_cursor(&self, follower: &str) -> Option<FeedCursor> {
        self.shared.feed_cursor(follower)
    }

    /// The newest deliveries of webhooks about a mail that have ended, `max` at most, oldest first.
    pub fn deliveries(
        &self,
        queue_id: QueueId,
        max: usize,
    ) -> Result<Vec<Arc<DeliveryEnded>>, StoreError> {
        self.shared.deliveries(queue_id, max)
    }

    /// Whether a mail has been closed.
    pub fn is_closed(&self, queue_id: QueueId) -> Result<bool, StoreError> {
        self.shared.is_closed(queue_id)
    }

    /// Changes whenever there may be more events; its value says nothing.
    pub fn feed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.shared.applied.subscribe()
    }

    /// Drops the days that are older than `Options::keep`, and kept bodies that are older than
    /// `Options::bodies`. Removes files, so it may block.
    pub fn prune(&self) -> Result<(), StoreError> {
        self.shared.prune()
    }

    /// Has writes counted; without it they are not.
    pub fn count_in(&self, metrics: Metrics) {
        self.shared.metrics.get_or_init(|| metrics);
    }

    /// How the store is doing; cheap.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }
}

impl Ticket {
    /// Returns when everything written is on disk, or says that it is not.
    pub async fn synced(self) -> Result<(), StoreError> {
        self.0.await.unwrap_or(Err(StoreError::Busy))
    }
}

impl StoreError {
    /// Whether a file is not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    }

    fn io(doing: impl Into<String>, source: std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match source.kind() {
            StorageFull | QuotaExceeded => Self::DiskFull,
            _ => Self::Io { doing: doing.into(), source },
        }
    }
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("the store takes nothing just now"),
            Self::DiskFull => f.write_str("the disk of the data directory is full"),
            Self::Io { doing, source } => write!(f, "{doing}: {source}"),
            Self::Locked(dir) => {
                write!(f, "the data directory {} is in use by another process", dir.display())
            }
            Self::Format(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// The threads of a store; they end when the last handle is gone.
struct Threads {
    shared: Arc<Shared>,
    running: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    fn join(&self) {
        let running =
            std::mem::take(&mut *self.running.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in running {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has died");
            }
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop(Stop::Abandon);
        self.join();
    }
}

#[cfg(test)]
mod tests;
