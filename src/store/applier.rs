//! The thread that carries what is on disk into `log/` and the index, makes checkpoints, and
//! gives spool segments back.

use std::sync::{Arc, PoisonError};

use super::StoreError;
use super::entry::{Entry, Frame};
use super::index;
use super::layout;
use super::recovery::{self, Cleanliness, StateFile};
use super::shared::{Done, Health, Position, Shared, Source, Stop, Work};
use super::spool::{Pin, Place};
use crate::clock::Stopwatch;

/// How far the applier has come.
pub(super) struct Applier {
    applied: Position,
    checkpointed: Position,
    since: Stopwatch,
    bytes: usize,
    /// Whether a checkpoint has failed, so that nobody knows what of the archive is on disk.
    in_doubt: bool,
}

impl Applier {
    /// Goes on behind `position`, up to which everything is in the archive and on disk.
    pub(super) fn new(position: Position) -> Self {
        Self {
            applied: position,
            checkpointed: position,
            since: Stopwatch::start(),
            bytes: 0,
            in_doubt: false,
        }
    }

    /// Applies until the store stops.
    pub(super) fn run(mut self, shared: &Arc<Shared>) {
        loop {
            let (group, stop) = self.next_group(shared);
            if stop == Stop::Abandon {
                return;
            }
            let is_last = stop == Stop::Drained && group.is_empty();
            if !self.apply(shared, &group) {
                return;
            }
            if is_last {
                self.finish(shared);
                return;
            }
            if self.is_checkpoint_due(shared) {
                self.checkpoint(shared);
            }
        }
    }

    /// Waits for something to apply, or until a checkpoint is due.
    fn next_group(&self, shared: &Shared) -> (Vec<Done>, Stop) {
        let mut core = shared.core();
        loop {
            let is_over =
                matches!(core.stop, Stop::Abandon | Stop::Drained) || core.health == Health::Dead;
            if is_over || !core.backlog.is_empty() || self.is_checkpoint_due(shared) {
                let mut group = Vec::new();
                let mut bytes: usize = 0;
                while let Some(done) = core.backlog.front().filter(|_| bytes < GROUP_BYTES_MAX) {
                    bytes = bytes.saturating_add(done.bytes);
                    group.extend(core.backlog.pop_front());
                }
                let stop = if core.health == Health::Dead { Stop::Abandon } else { core.stop };
                return (group, stop);
            }
            let wait = shared.backlog_ready.wait_timeout(core, shared.tuning.checkpoint_every);
            core = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Applies a group, again and again until it works; false when the store stops meanwhile.
    fn apply(&mut self, shared: &Shared, group: &[Done]) -> bool {
        let Some(position) = group.last().map(|done| done.position) else { return true };
        let frames: Vec<(u64, &Frame)> = group
            .iter()
            .flat_map(|done| done.frames.iter().map(|(lsn, frame)| (*lsn, frame)))
            .collect();
        while let Err(error) = shared.archive.apply(&frames) {
            tracing::error!(%error, "records could not be moved into the log");
            let core = shared.core();
            let is_running = |core: &mut super::shared::Core| core.stop == Stop::No;
            let after = shared.tuning.retry_after;
            let wait = shared.backlog_ready.wait_timeout_while(core, after, is_running);
            let (core, _) = wait.unwrap_or_else(PoisonError::into_inner);
            if core.stop != Stop::No {
                return false;
            }
        }
        let bytes: usize = group.iter().map(|done| done.bytes).sum();
        shared.applied.send_replace(position.lsn);
        let mut core = shared.core();
        for (_, frame) in &frames {
            core.pending.remove(&frame.entry);
        }
        core.backlog_bytes = core.backlog_bytes.saturating_sub(bytes);
        drop(core);
        // Before a checkpoint goes past their end: until then a start makes up for it.
        for done in group {
            shared.let_go(&done.ended);
        }
        self.applied = position;
        self.bytes = self.bytes.saturating_add(bytes);
        true
    }

    fn is_checkpoint_due(&self, shared: &Shared) -> bool {
        self.applied != self.checkpointed
            && (self.bytes >= CHECKPOINT_BYTES
                || self.since.elapsed() >= shared.tuning.checkpoint_every)
    }

    /// Puts everything applied on disk, says so in `state`, and gives segments back.
    fn checkpoint(&mut self, shared: &Shared) {
        self.since = Stopwatch::start();
        self.bytes = 0;
        let made = self.settle_doubt(shared).and_then(|()| {
            write_checkpoint(shared, self.applied, Cleanliness::Dirty)?;
            self.checkpointed = self.applied;
            Ok(())
        });
        if let Err(error) = made {
            tracing::error!(%error, "the checkpoint failed");
            let mut core = shared.core();
            core.checkpoint_failures = core.checkpoint_failures.saturating_add(1);
            self.in_doubt = true;
            return;
        }
        let before = self.checkpointed.segment;
        if let Err(error) = recycle(shared, before).and_then(|()| copy_live(shared, before)) {
            tracing::error!(%error, "old segments could not be given back");
        }
    }

    /// After a failed checkpoint: what lies behind the last good one is applied again.
    fn settle_doubt(&mut self, shared: &Shared) -> Result<(), StoreError> {
        if self.in_doubt {
            recovery::reapply(shared, self.checkpointed, self.applied.lsn)?;
            self.in_doubt = false;
        }
        Ok(())
    }

    fn finish(&mut self, shared: &Shared) {
        let closed = self
            .settle_doubt(shared)
            .and_then(|()| shared.archive.checkpoint(self.applied.lsn))
            .and_then(|()| shared.archive.close())
            .and_then(|()| write_state(shared, self.applied, Cleanliness::Clean));
        if let Err(error) = closed {
            tracing::error!(%error, "the store could not be closed cleanly");
        }
    }
}

/// Puts everything up to `position` on disk and says so in `state`.
pub(super) fn write_checkpoint(
    shared: &Shared,
    position: Position,
    cleanliness: Cleanliness,
) -> Result<(), StoreError> {
    shared.archive.checkpoint(position.lsn)?;
    write_state(shared, position, cleanliness)
}

/// Gives back the oldest segments that nothing needs any more.
pub(super) fn recycle(shared: &Shared, before: u32) -> Result<(), StoreError> {
    loop {
        let mut core = shared.core();
        let Some(path) = core.spool.take_recyclable(before) else { return Ok(()) };
        let free = path.with_extension("free");
        let is_plain =
            std::fs::metadata(&path).is_ok_and(|file| file.len() <= shared.tuning.segment_bytes);
        if is_plain && core.spool.keep_free(free.clone()) {
            std::fs::rename(&path, &free)
                .map_err(|error| StoreError::io(format!("recycling {}", path.display()), error))?;
        } else {
            drop(core);
            index::remove_all(&path)?;
        }
    }
}

/// Writes the live mails of the oldest segment again where that frees disk.
fn copy_live(shared: &Shared, before: u32) -> Result<(), StoreError> {
    let chosen =
        shared.core().spool.worth_copying(before, shared.tuning.copy_after_secs, COPY_BYTES_MAX);
    for (pin, segment, place) in chosen {
        let octets = segment.read_frame(place.offset, place.size)?;
        let Some(frame) = layout::decode_frame(&octets, shared.seed) else {
            tracing::error!(path = %segment.path.display(), offset = place.offset, "a frame is damaged");
            continue;
        };
        let Ok(Some(entry)) = Entry::read(&frame) else { continue };
        let copy = Frame {
            entry,
            flags: layout::COPY,
            key: frame.key.to_vec(),
            payload: frame.payload.to_vec(),
            log_len: 0,
        };
        enqueue_copy(shared, pin, place, copy)?;
    }
    Ok(())
}

/// Hands a copy to the committer, with where the mail stands at this moment in the order of
/// writes; nothing when it has ended, moved or been superseded meanwhile.
fn enqueue_copy(shared: &Shared, pin: Pin, place: Place, copy: Frame) -> Result<(), StoreError> {
    let mut core = shared.core();
    let is_needed = match pin {
        Pin::Mail(queue_id) => core.live.mail(queue_id).is_some(),
        Pin::Report(id) => core.live.is_uncaptured(id),
        Pin::Forward(id) => core.live.owes_forward(id),
        // A newer one may be on its way to the disk in front of this copy.
        Pin::Cursor(key) => match &copy.entry {
            Entry::Cursor(copied) => core.live.cursor(&key) == Some(copied),
            Entry::Follower(copied) => core.live.follower(&key) == Some(copied),
            _ => false,
        },
        Pin::Suppression(_) => match &copy.entry {
            Entry::Suppression(copied) => core.live.suppressions.holds(copied),
            _ => false,
        },
    };
    let is_there = core
        .spool
        .find(pin)
        .is_some_and(|(_, now)| (now.segment, now.offset) == (place.segment, place.offset));
    if !is_needed || !is_there {
        return Ok(());
    }
    let mut frames = vec![copy];
    if let Pin::Mail(queue_id) = pin
        && let Some(standing) = core.live.standing(queue_id)
    {
        let entry = Entry::Standing(queue_id, Arc::new(standing));
        let mut frame = entry.into_frame(None).map_err(StoreError::Format)?;
        frame.flags = layout::COPY;
        frames.push(frame);
    }
    core.enqueue(Work { source: Source::Copy, frames, ended: Vec::new(), ticket: None });
    drop(core);
    shared.work_ready.notify_one();
    Ok(())
}

fn write_state(
    shared: &Shared,
    position: Position,
    cleanliness: Cleanliness,
) -> Result<(), StoreError> {
    let state = StateFile {
        store: shared.uuid,
        boot_id: shared.boot_id.clone(),
        cleanliness,
        checkpoint: position,
    };
    state.write(&shared.disk, &shared.paths.state)
}

/// Octets of one group that is applied.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// Octets applied after which a checkpoint is due.
const CHECKPOINT_BYTES: usize = 64 << 20;
/// Octets that are copied out of an old segment after one checkpoint.
const COPY_BYTES_MAX: usize = 8 << 20;
