//! The one thread that writes the journal: it takes what waits, writes it at once, syncs it once
//! and answers all.
//!
//! There is no timer: while one fdatasync runs the next group gathers.

use std::sync::{Arc, PoisonError};

use super::StoreError;
use super::body;
use super::entry::Entry;
use super::journal::{self, Segment};
use super::layout::{self, SegmentHeader};
use super::shared::{Done, Health, Position, Shared, Source, Stop, Work, repeated};
use super::spool::Place;
use crate::clock::Stopwatch;
use crate::mail::QueueId;

/// The end of the journal.
pub(super) struct Committer {
    active: Option<(Arc<Segment>, u64)>,
    next_lsn: u64,
    next_number: u32,
}

/// Where each frame of a group went.
struct Written {
    position: Position,
    places: Vec<Vec<(u64, Place)>>,
}

impl Committer {
    /// Goes on behind `last_lsn` in a new segment, numbered from `next_number` on.
    pub(super) fn new(last_lsn: u64, next_number: u32) -> Self {
        Self { active: None, next_lsn: last_lsn.saturating_add(1), next_number }
    }

    /// Opens the first segment, so that a disk which takes no writes is noticed at the start.
    pub(super) fn start(&mut self, shared: &Shared) -> Result<(), StoreError> {
        self.segment_for(shared, 0).map(|_segment| ())
    }

    /// Writes until the store stops.
    pub(super) fn run(mut self, shared: &Arc<Shared>) {
        while let Some(group) = next_group(shared) {
            let watch = Stopwatch::start();
            match self.write(shared, &group) {
                Ok(written) => {
                    if let Some(metrics) = shared.metrics.get() {
                        let batches = u64_of(group.len());
                        metrics.store_synced(batches, watch.elapsed().as_secs_f64());
                    }
                    settle(shared, group, written);
                }
                Err(error) => {
                    // Whether the last write reached the disk is unknown, and a second fdatasync
                    // would not tell. The segment is sealed in front of it: the next one starts
                    // with the same LSN.
                    self.active = None;
                    fail(shared, group, &error);
                    wait_out(shared);
                }
            }
        }
        let mut core = shared.core();
        if core.stop == Stop::Drain {
            core.stop = Stop::Drained;
        }
        drop(core);
        shared.backlog_ready.notify_all();
    }

    /// Appends a group and syncs it; nothing counts as written when this fails.
    fn write(&mut self, shared: &Shared, group: &[Work]) -> Result<Written, StoreError> {
        let size: usize = group.iter().map(Work::size).sum();
        let (segment, start) = self.segment_for(shared, size)?;
        let mut octets = Vec::with_capacity(size);
        let mut places = Vec::with_capacity(group.len());
        let mut lsn = self.next_lsn;
        for work in group {
            let mut of_work = Vec::with_capacity(work.frames.len());
            let last = work.frames.len().saturating_sub(1);
            for (index, frame) in work.frames.iter().enumerate() {
                let more = if index < last { layout::MORE } else { 0 };
                let continues = if index > 0 { layout::CONTINUES } else { 0 };
                let flags = frame.flags | more | continues;
                let kind = frame.entry.kind().as_u8();
                let offset = start.saturating_add(u64_of(octets.len()));
                let (key, payload) = (&frame.key, &frame.payload);
                layout::encode_frame(&mut octets, shared.seed, lsn, (kind, flags), key, payload);
                let place = Place::new(segment.number, offset, frame.size(), &frame.entry, payload);
                of_work.push((lsn, place));
                lsn = lsn.saturating_add(1);
            }
            places.push(of_work);
        }
        if !octets.is_empty() {
            let failed =
                |error| StoreError::io(format!("writing {}", segment.path.display()), error);
            shared
                .disk
                .write_at(&segment.file, &octets, start)
                .and_then(|()| shared.disk.sync_data(&segment.file))
                .map_err(failed)?;
        }
        let end = start.saturating_add(u64_of(octets.len()));
        let number = segment.number;
        self.next_lsn = lsn;
        self.active = Some((segment, end));
        let position = Position { segment: number, offset: end, lsn: lsn.saturating_sub(1) };
        Ok(Written { position, places })
    }

    /// The segment with room for `size` octets, and where they go.
    fn segment_for(
        &mut self,
        shared: &Shared,
        size: usize,
    ) -> Result<(Arc<Segment>, u64), StoreError> {
        let size = u64_of(size);
        let capacity = shared.tuning.segment_bytes;
        if let Some((segment, end)) = &self.active
            && end.saturating_add(size) <= capacity
        {
            return Ok((Arc::clone(segment), *end));
        }
        let start = u64_of(layout::SEGMENT_HEADER_BYTES);
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        let path = shared.paths.spool.join(journal::segment_name(number));
        let header = SegmentHeader { number, first_lsn: self.next_lsn, store: shared.uuid };
        let recycled = shared.core().spool.take_free();
        let capacity = capacity.max(start.saturating_add(size));
        let segment = Segment::create(&shared.disk, path, &header, capacity, recycled.as_deref())?;
        let segment = Arc::new(segment);
        shared.core().spool.add(Arc::clone(&segment), start);
        self.active = Some((Arc::clone(&segment), start));
        Ok((segment, start))
    }
}

/// Waits for work and takes a group of it; `None` when the store stops. The group is empty while
/// the disk fails: then it is only tried.
fn next_group(shared: &Shared) -> Option<Vec<Work>> {
    let mut core = shared.core();
    loop {
        match core.stop {
            Stop::Abandon | Stop::Drained => return None,
            Stop::Drain if core.queue.is_empty() || core.health != Health::Good => return None,
            _ => {}
        }
        if !core.queue.is_empty() || core.health == Health::Failing {
            break;
        }
        core = shared.work_ready.wait(core).unwrap_or_else(PoisonError::into_inner);
    }
    let mut group: Vec<Work> = Vec::new();
    let mut bytes: usize = 0;
    let mut frames: usize = 0;
    while let Some(next) = core.queue.front() {
        bytes = bytes.saturating_add(next.size());
        frames = frames.saturating_add(next.frames.len());
        if !group.is_empty() && (bytes > GROUP_BYTES_MAX || frames > GROUP_FRAMES_MAX) {
            break;
        }
        group.extend(core.queue.pop_front());
    }
    let taken: usize = group.iter().map(Work::size).sum();
    core.queue_bytes = core.queue_bytes.saturating_sub(taken);
    Some(group)
}

/// Makes a written group known: its mails may be relayed, its tickets are answered, and the
/// applier gets it.
fn settle(shared: &Shared, group: Vec<Work>, written: Written) {
    let mut tickets = Vec::new();
    let mut removed: Vec<QueueId> = Vec::new();
    let mut reports = false;
    let mut core = shared.core();
    core.health = if core.health == Health::Failing { Health::Good } else { core.health };
    core.last_lsn = written.position.lsn;
    core.spool.grown(written.position.segment, written.position.offset);
    let (mut frames, mut ended) = (Vec::new(), Vec::new());
    for (work, places) in group.into_iter().zip(written.places) {
        for (mut frame, (lsn, place)) in work.frames.into_iter().zip(places) {
            core.spool.settle(&frame.entry, place);
            match &frame.entry {
                Entry::Message(message) if work.source != Source::Copy => {
                    core.live.synced(message.queue_id);
                }
                Entry::Report(report) if work.source != Source::Copy => {
                    core.live.report_synced(report.id);
                    reports = true;
                }
                _ => {}
            }
            if work.source != Source::Copy {
                frame.keep_log_part();
                frames.push((lsn, frame));
            }
        }
        for mail in work.ended {
            if shared.keeps_bodies() {
                core.spool.end(mail);
                ended.push(mail.queue_id);
            } else if core.spool.release_mail(mail.queue_id) {
                removed.push(mail.queue_id);
            }
        }
        tickets.extend(work.ticket);
    }
    let bytes = frames.iter().map(|(_, frame)| frame.size()).sum();
    core.backlog_bytes = core.backlog_bytes.saturating_add(bytes);
    core.backlog.push_back(Done { frames, bytes, ended, position: written.position });
    drop(core);
    shared.backlog_ready.notify_one();
    for ticket in tickets {
        // Whoever does not wait for its ticket has dropped it.
        ticket.send(Ok(())).unwrap_or_default();
    }
    shared.queue_changed.notify_one();
    shared.changes.send_modify(|count| *count = count.wrapping_add(1));
    if reports {
        shared.report_arrived.notify_one();
    }
    for queue_id in removed {
        body::remove_file(&shared.paths.big.join(queue_id.to_string()));
    }
}

/// Answers a group that could not be written. What was offered is taken back; what has happened
/// stays true and is written when the disk takes it.
fn fail(shared: &Shared, group: Vec<Work>, error: &StoreError) {
    tracing::error!(%error, batches = group.len(), "the journal could not be written");
    if let Some(metrics) = shared.metrics.get() {
        metrics.store_failed();
    }
    let mut core = shared.core();
    core.write_failures = core.write_failures.saturating_add(1);
    core.health = Health::Failing;
    let mut tickets = Vec::new();
    let mut removed: Vec<QueueId> = Vec::new();
    let mut kept = Vec::new();
    for mut work in group {
        tickets.extend(work.ticket.take());
        match work.source {
            Source::Outcome => kept.push(work),
            Source::Copy => {}
            Source::Intake => {
                for frame in &work.frames {
                    core.pending.remove(&frame.entry);
                    if let Entry::Message(message) = &frame.entry {
                        core.live.remove(message.queue_id);
                        removed.push(message.queue_id);
                    }
                }
            }
        }
    }
    for work in kept.into_iter().rev() {
        core.queue_bytes = core.queue_bytes.saturating_add(work.size());
        core.queue.push_front(work);
    }
    drop(core);
    for queue_id in removed {
        body::remove_file(&shared.paths.big.join(queue_id.to_string()));
    }
    for ticket in tickets {
        ticket.send(Err(repeated(error))).unwrap_or_default();
    }
}

/// Lets some time pass after a failure, unless the store stops.
fn wait_out(shared: &Shared) {
    let core = shared.core();
    let wait = shared
        .work_ready
        .wait_timeout_while(core, shared.tuning.retry_after, |core| core.stop == Stop::No);
    drop(wait);
}

fn u64_of(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Octets of one write.
const GROUP_BYTES_MAX: usize = 4 << 20;
/// Frames of one write.
const GROUP_FRAMES_MAX: usize = 1_024;
