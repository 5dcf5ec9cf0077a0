//! What survives a crash: bodies, the journal, and the index that is rebuilt from it.
//!
//! The journal is the truth and sled an index over it that can be thrown away.
//! `accept`, `accept_report` and `commit` return a `Ticket`; what it stands for is on disk once
//! `Ticket::synced` returns, and visible to every look-up at once.

pub mod record;
pub mod state;

use std::path::PathBuf;
use std::time::Duration;

use tokio::io::AsyncRead;

use crate::clock::Clock;
use crate::mail::{Address, MessageId, QueueId, ReversePath, Timestamp};
use record::{
    Attempt, Batch, Bounce, BounceId, ReportCaptured, ReportId, ReportReceived, Submission,
};
use state::State;

/// How a store is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub dir: PathBuf,
    /// How long records are kept.
    pub keep: Duration,
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Store {}

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

/// A body on its way in: in memory while small, in a file of its own beyond that.
pub struct BodyWriter {}

/// A complete body, which `accept` takes over; dropped without that, its file is removed.
pub struct Body {}

/// Reads a body from its first octet.
pub type BodyReader = Box<dyn AsyncRead + Send + Unpin>;

/// A write that is under way.
#[must_use = "nothing is acknowledged before it is synced"]
pub struct Ticket {}

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
    /// What `BODY=` declared.
    pub body: crate::mail::envelope::BodyKind,
    /// Whether it needs SMTPUTF8.
    pub smtputf8: bool,
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

impl Store {
    /// Opens or creates the store: takes the lock, recovers, starts the committer and applier.
    pub fn open(options: &Options, clock: Clock) -> Result<Self, StoreError> {
        let _ = (options, clock);
        todo!()
    }

    /// Stops accepting, syncs everything, writes a clean checkpoint.
    pub async fn close(&self) {
        todo!()
    }

    /// A queue id that this store has not given before.
    pub fn new_queue_id(&self) -> QueueId {
        todo!()
    }

    /// Whether a mail of `size_bytes` may be offered now: `Busy` or `DiskFull` if not.
    pub fn can_accept(&self, size_bytes: u64) -> Result<(), StoreError> {
        let _ = size_bytes;
        todo!()
    }

    /// Begins to take a body.
    pub fn body_writer(&self, queue_id: QueueId) -> BodyWriter {
        let _ = queue_id;
        todo!()
    }

    /// Takes over a mail. Its recipients are due at once.
    pub fn accept(&self, submission: Submission, body: Body) -> Result<Ticket, StoreError> {
        let _ = (submission, body);
        todo!()
    }

    /// Takes over a report; it is uncaptured until a `Batch` carries its mark.
    pub fn accept_report(&self, report: ReportReceived) -> Result<Ticket, StoreError> {
        let _ = report;
        todo!()
    }

    /// Writes a batch: visible at once, durable when the ticket says so.
    ///
    /// Ends the recipients that attempts (`Relayed`, `Failed`, `Expired`) or trusted reports
    /// (`failed`, `delivered`) end, and the mail when nobody waits and no notice is owed.
    pub fn commit(&self, batch: Batch) -> Result<Ticket, StoreError> {
        let _ = batch;
        todo!()
    }

    /// The body of a mail in the queue.
    pub async fn body(&self, queue_id: QueueId) -> Result<BodyReader, StoreError> {
        let _ = queue_id;
        todo!()
    }

    /// A mail in the queue.
    pub fn live(&self, queue_id: QueueId) -> Option<LiveMessage> {
        let _ = queue_id;
        todo!()
    }

    /// Mails with a recipient that is due, or for which a notice is owed; oldest due first.
    pub fn due(&self, now: Timestamp, max: usize) -> Vec<QueueId> {
        let _ = (now, max);
        todo!()
    }

    /// When the next mail is due.
    pub fn next_due(&self) -> Option<Timestamp> {
        todo!()
    }

    /// Mails in the queue.
    pub fn queue_len(&self) -> usize {
        todo!()
    }

    /// Returns once the queue has changed since the last call returned.
    pub async fn queue_changed(&self) {
        todo!()
    }

    /// Changes whenever something was written; for those who wait for news.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }

    /// Reports that have arrived and are not captured, oldest first.
    pub fn uncaptured_reports(&self, max: usize) -> Vec<ReportId> {
        let _ = max;
        todo!()
    }

    /// Returns once a report has arrived since the last call returned.
    pub async fn report_arrived(&self) {
        todo!()
    }

    /// Captured reports whose forwarding is still owed, oldest first.
    pub fn owed_forwards(&self, max: usize) -> Vec<ReportCaptured> {
        let _ = max;
        todo!()
    }

    /// Everything known of a submission, in the queue or ended.
    pub fn message(&self, queue_id: QueueId) -> Result<Result<MessageRecord, Missing>, StoreError> {
        let _ = queue_id;
        todo!()
    }

    /// The submissions of a Message-ID, newest first, of every account.
    pub fn by_message_id(&self, message_id: &MessageId) -> Result<Vec<QueueId>, StoreError> {
        let _ = message_id;
        todo!()
    }

    /// Bounces and news of a recipient's address, newest first, before `before`.
    pub fn by_recipient(
        &self,
        address: &str,
        before: Option<&BounceId>,
        max: usize,
    ) -> Result<Vec<Bounce>, StoreError> {
        let _ = (address, before, max);
        todo!()
    }

    /// A report.
    pub fn report(&self, id: ReportId) -> Result<Result<ReportRecord, Missing>, StoreError> {
        let _ = id;
        todo!()
    }

    /// The captured report that has this digest, if there is one.
    pub fn report_by_digest(&self, digest: &[u8; 16]) -> Result<Option<ReportId>, StoreError> {
        let _ = digest;
        todo!()
    }

    /// Bounces and news read from one report.
    pub fn bounces_of_report(&self, id: ReportId) -> Result<Vec<Bounce>, StoreError> {
        let _ = id;
        todo!()
    }

    /// Reports that match nothing, newest first, before `before`.
    pub fn unmatched_reports(
        &self,
        before: Option<ReportId>,
        max: usize,
    ) -> Result<Vec<ReportId>, StoreError> {
        let _ = (before, max);
        todo!()
    }

    /// Drops the days that are older than `Options::keep`.
    pub fn prune(&self) -> Result<(), StoreError> {
        todo!()
    }
}

impl BodyWriter {
    /// Adds octets.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), StoreError> {
        let _ = octets;
        todo!()
    }

    /// Octets so far.
    pub fn len(&self) -> u64 {
        todo!()
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Ends the body; a file of its own is synced.
    pub async fn finish(self) -> Result<Body, StoreError> {
        todo!()
    }
}

impl Ticket {
    /// Returns when everything written is on disk, or says that it is not.
    pub async fn synced(self) -> Result<(), StoreError> {
        todo!()
    }
}
