//! What the callers, the committer and the applier share: one short lock around the state.

use std::collections::VecDeque;
use std::fs::File;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};

use super::StoreError;
use super::archive::Archive;
use super::disk::Disk;
use super::entry::Frame;
use super::layout::StoreUuid;
use super::live::{Ended, Live};
use super::mailboxes::Mailboxes;
use super::pending::Pending;
use super::spool::Spool;
use crate::clock::Clock;
use crate::mail::QueueId;
use crate::metrics::Metrics;

/// The store behind its handles.
pub(super) struct Shared {
    pub(super) paths: Paths,
    pub(super) clock: Clock,
    pub(super) keep: Duration,
    /// How long bodies are kept once their mails have ended.
    pub(super) keep_bodies: Duration,
    pub(super) tuning: Tuning,
    pub(super) disk: Disk,
    pub(super) uuid: StoreUuid,
    pub(super) seed: u32,
    pub(super) boot_id: String,
    pub(super) archive: Archive,
    pub(super) core: Mutex<Core>,
    /// Held from the look for bounces that are known to the write of those that are not, so that
    /// each is written once. Taken before `core`.
    pub(super) bounces: Mutex<()>,
    /// The committer waits for it.
    pub(super) work_ready: Condvar,
    /// The applier waits for it.
    pub(super) backlog_ready: Condvar,
    pub(super) queue_changed: Notify,
    pub(super) report_arrived: Notify,
    pub(super) mailboxes: Mailboxes,
    /// Counts what was written.
    pub(super) changes: watch::Sender<u64>,
    /// The last LSN that is in the index.
    pub(super) applied: watch::Sender<u64>,
    pub(super) metrics: OnceLock<Metrics>,
    pub(super) next_unique: AtomicU64,
    /// Held as long as the store is open.
    pub(super) _lock: DirLock,
}

/// The lock on a data directory.
///
/// It is given back in words, for the end of the file alone does not: a process that was forked
/// at this moment, and has not come to its `exec` yet, holds the same open file.
pub(super) struct DirLock(pub(super) File);

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::warn!(%error, "the data directory could not be unlocked");
        }
    }
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) root: PathBuf,
    pub(super) state: PathBuf,
    pub(super) spool: PathBuf,
    pub(super) big: PathBuf,
    pub(super) bodies: PathBuf,
    pub(super) quarantine: PathBuf,
}

/// Sizes and times that only tests set otherwise.
#[derive(Clone, Debug)]
pub(super) struct Tuning {
    /// Octets of a spool segment.
    pub(super) segment_bytes: u64,
    /// How often a checkpoint is made while something changes.
    pub(super) checkpoint_every: Duration,
    /// How long the committer waits before it tries a failed disk again.
    pub(super) retry_after: Duration,
    /// The age at which a segment's mails may be written again.
    pub(super) copy_after_secs: u64,
    /// The disk.
    pub(super) disk: Disk,
}

/// All that changes.
#[derive(Default)]
pub(super) struct Core {
    pub(super) live: Live,
    pub(super) pending: Pending,
    pub(super) spool: Spool,
    /// Works that wait for the committer.
    pub(super) queue: VecDeque<Work>,
    pub(super) queue_bytes: usize,
    /// Works that wait for the applier.
    pub(super) backlog: VecDeque<Done>,
    pub(super) backlog_bytes: usize,
    pub(super) health: Health,
    pub(super) stop: Stop,
    pub(super) write_failures: u64,
    pub(super) checkpoint_failures: u64,
    pub(super) damaged_ranges: u64,
    pub(super) last_lsn: u64,
}

/// One batch on its way to the disk.
pub(super) struct Work {
    pub(super) source: Source,
    pub(super) frames: Vec<Frame>,
    /// Mails that the batch ends.
    pub(super) ended: Vec<Ended>,
    pub(super) ticket: Option<oneshot::Sender<Result<(), StoreError>>>,
}

/// Who made a batch, which decides what a failed write means for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// A mail or report that is refused when it cannot be written.
    Intake,
    /// Outcomes that are true whether written or not: they are written when the disk is back.
    Outcome,
    /// A copy out of an old segment.
    Copy,
}

/// A batch on disk, on its way to the index.
pub(super) struct Done {
    pub(super) frames: Vec<(u64, Frame)>,
    pub(super) bytes: usize,
    /// Mails that have ended and whose bodies are still to be kept.
    pub(super) ended: Vec<QueueId>,
    /// Where the journal goes on behind it.
    pub(super) position: Position,
}

/// A place in the journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u64,
    pub(super) lsn: u64,
}

/// Whether the disk takes writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// It does.
    #[default]
    Good,
    /// The last write failed; it is tried again.
    Failing,
    /// A thread of the store has died.
    Dead,
}

/// Whether the store goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Stop {
    /// It does.
    #[default]
    No,
    /// It writes what it has and ends.
    Drain,
    /// The committer has ended; the applier ends with a clean checkpoint.
    Drained,
    /// It ends at once, as after a crash.
    Abandon,
}

impl Shared {
    /// The state. A panic of another thread has left it whole: changes are small and complete.
    pub(super) fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to write bounces. What it guards is in `core` and the index.
    pub(super) fn bounce_writer(&self) -> MutexGuard<'_, ()> {
        self.bounces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that no other call gets.
    pub(super) fn unique(&self) -> u32 {
        let number = self.next_unique.fetch_add(1, Ordering::Relaxed);
        u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default()
    }

    /// Makes the threads end.
    pub(super) fn stop(&self, how: Stop) {
        let mut core = self.core();
        if core.stop == Stop::No {
            core.stop = how;
        }
        drop(core);
        self.work_ready.notify_all();
        self.backlog_ready.notify_all();
    }
}

impl Core {
    /// Whether more may be taken in.
    pub(super) fn room(&self) -> Result<(), StoreError> {
        let is_full = self.queue_bytes > QUEUE_BYTES_MAX
            || self.queue.len() > QUEUE_BATCHES_MAX
            || self.backlog_bytes > BACKLOG_BYTES_MAX;
        if is_full || self.health != Health::Good || self.stop != Stop::No {
            return Err(StoreError::Busy);
        }
        Ok(())
    }

    /// Whether outcomes may be taken in: also while the disk fails, as long as memory lasts.
    pub(super) fn room_for_outcome(&self) -> Result<(), StoreError> {
        let is_full = self.queue_bytes > QUEUE_BYTES_MAX.saturating_mul(2)
            || self.queue.len() > QUEUE_BATCHES_MAX.saturating_mul(2)
            || self.backlog_bytes > BACKLOG_BYTES_MAX.saturating_mul(2);
        if is_full || self.health == Health::Dead || self.stop != Stop::No {
            return Err(StoreError::Busy);
        }
        Ok(())
    }

    /// Hands a batch to the committer.
    pub(super) fn enqueue(&mut self, work: Work) {
        self.queue_bytes = self.queue_bytes.saturating_add(work.size());
        self.queue.push_back(work);
    }
}

impl Work {
    /// Octets it takes in a segment.
    pub(super) fn size(&self) -> usize {
        self.frames.iter().map(Frame::size).sum()
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT_BYTES,
            checkpoint_every: CHECKPOINT_EVERY,
            retry_after: RETRY_AFTER,
            copy_after_secs: COPY_AFTER_SECS,
            disk: Disk::default(),
        }
    }
}

/// An error for every ticket of a group: the first error cannot be cloned.
pub(super) fn repeated(error: &StoreError) -> StoreError {
    match error {
        StoreError::DiskFull => StoreError::DiskFull,
        StoreError::Io { doing, source } => {
            let source = std::io::Error::new(source.kind(), source.to_string());
            StoreError::Io { doing: doing.clone(), source }
        }
        StoreError::Busy | StoreError::Locked(_) | StoreError::Format(_) => StoreError::Busy,
    }
}

/// Starts a thread of the store; when it panics the store takes nothing more.
pub(super) fn spawn(
    name: &str,
    shared: &Arc<Shared>,
    run: impl FnOnce(&Arc<Shared>) + Send + 'static,
) -> Result<std::thread::JoinHandle<()>, StoreError> {
    struct Alarm(Arc<Shared>);
    impl Drop for Alarm {
        fn drop(&mut self) {
            if std::thread::panicking() {
                self.0.core().health = Health::Dead;
                self.0.work_ready.notify_all();
                self.0.backlog_ready.notify_all();
            }
        }
    }
    let alarm = Alarm(Arc::clone(shared));
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder
        .spawn(move || run(&alarm.0))
        .map_err(|error| StoreError::io(format!("starting the thread {name}"), error))
}

const SEGMENT_BYTES: u64 = 64 << 20;
const CHECKPOINT_EVERY: Duration = Duration::from_secs(5);
const RETRY_AFTER: Duration = Duration::from_secs(1);
const COPY_AFTER_SECS: u64 = 3_600;
/// Octets that may wait for the committer.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Batches that may wait for the committer.
const QUEUE_BATCHES_MAX: usize = 8_192;
/// Octets that may wait for the applier.
const BACKLOG_BYTES_MAX: usize = 128 << 20;
