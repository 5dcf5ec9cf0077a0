//! Opening a store: takes the lock, reads `state`, scans the spool, brings log and index up to it.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Condvar, Mutex, OnceLock};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};

use super::archive::{self, Archive};
use super::disk::{Disk, create_private_dir};
use super::entry::{Entry, Frame};
use super::journal::{self, Found, ScanOrder, ScanRange, Segment};
use super::layout::{self, FrameRef, SegmentHeader, StoreUuid};
use super::live::Durability;
use super::mailboxes::Mailboxes;
use super::shared::{Core, DirLock, Paths, Position, Shared, Tuning};
use super::spool::Place;
use super::{Options, StoreError, applier, index};
use crate::clock::Clock;
use crate::mail::QueueId;

/// What `state` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StateFile {
    pub(super) store: StoreUuid,
    /// The boot of the machine in which it was written.
    pub(super) boot_id: String,
    pub(super) cleanliness: Cleanliness,
    /// Everything up to here is in `log/` and the index, and on disk.
    pub(super) checkpoint: Position,
}

/// Whether the store was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Cleanliness {
    /// It was.
    Clean,
    /// It was, or is, open.
    Dirty,
}

/// What is found in `state` behind its head.
#[derive(Serialize, Deserialize)]
struct StateRecord {
    store: StoreUuid,
    boot_id: String,
    cleanliness: Cleanliness,
    segment: u32,
    offset: u64,
    lsn: u64,
}

/// A store that is recovered; its threads are not started.
pub(super) struct Recovered {
    pub(super) shared: Shared,
    /// Where the journal ends.
    pub(super) end: Position,
    /// The number of the next segment.
    pub(super) next_number: u32,
}

/// Opens the store in a directory.
pub(super) fn open(
    options: &Options,
    clock: Clock,
    tuning: Tuning,
) -> Result<Recovered, StoreError> {
    let paths = Paths::under(&options.dir);
    for dir in [&paths.root, &paths.spool, &paths.big] {
        create_private_dir(dir)
            .map_err(|error| StoreError::io(format!("creating {}", dir.display()), error))?;
    }
    let lock = take_lock(&paths.root)?;
    let disk = tuning.disk.clone();
    let boot_id = boot_id();
    let state = StateFile::read(&paths.state)?;
    let files = segment_files(&paths.spool)?;
    let uuid = match &state {
        Some(state) => state.store,
        None => match files.iter().find_map(SegmentFile::any_store) {
            Some(store) => store,
            None => archive::any_store(&paths.root)?.unwrap_or_else(new_uuid),
        },
    };
    if let Some(state) = &state
        && state.cleanliness == Cleanliness::Dirty
        && state.boot_id != boot_id
    {
        tracing::warn!("the machine stopped while the store was open; it is recovered");
    }
    let archive = Archive::open(&paths.root, disk.clone(), uuid, boot_id.clone())?;
    let shared = Shared {
        clock,
        keep: options.keep,
        keep_bodies: options.bodies,
        disk,
        uuid,
        seed: layout::checksum_seed(&uuid),
        boot_id,
        archive,
        core: Mutex::new(Core::default()),
        bounces: Mutex::default(),
        work_ready: Condvar::new(),
        backlog_ready: Condvar::new(),
        queue_changed: Notify::new(),
        report_arrived: Notify::new(),
        mailboxes: Mailboxes::default(),
        changes: watch::Sender::new(0),
        applied: watch::Sender::new(0),
        metrics: OnceLock::new(),
        next_unique: AtomicU64::new(random_u64()),
        _lock: lock,
        paths,
        tuning,
    };
    let checkpoint = state.map_or(Position::default(), |state| state.checkpoint);
    let next_number = files.last().map_or(1, |file| file.number.saturating_add(1));
    let mut end = replay(&shared, &files, checkpoint)?;
    if checkpoint.lsn == 0 {
        // Without a state the spool alone does not tell which LSNs were given before.
        end.lsn = end.lsn.max(shared.archive.last_lsn()?);
    }
    sweep_bodies(&shared)?;
    let end = Position { segment: next_number, ..end };
    applier::write_checkpoint(&shared, end, Cleanliness::Dirty)?;
    applier::recycle(&shared, next_number)?;
    Ok(Recovered { shared, end, next_number })
}

impl StateFile {
    /// Reads `state`; `None` when there is none, or when it is damaged: then everything in the
    /// spool is applied again.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, StoreError> {
        let octets = match std::fs::read(path) {
            Ok(octets) => octets,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(StoreError::io(format!("reading {}", path.display()), error));
            }
        };
        match Self::decode(&octets) {
            Some(Ok(state)) => Ok(Some(state)),
            Some(Err(version)) => Err(StoreError::Format(format!(
                "{} was written in format {version}; this program reads format {}",
                path.display(),
                layout::FORMAT_VERSION
            ))),
            None => {
                tracing::error!(path = %path.display(), "the state is damaged; it is recovered");
                Ok(None)
            }
        }
    }

    /// Replaces `state`.
    pub(super) fn write(&self, disk: &Disk, path: &Path) -> Result<(), StoreError> {
        let record = StateRecord {
            store: self.store,
            boot_id: self.boot_id.clone(),
            cleanliness: self.cleanliness,
            segment: self.checkpoint.segment,
            offset: self.checkpoint.offset,
            lsn: self.checkpoint.lsn,
        };
        let record = layout::encode_record(&record).map_err(StoreError::Format)?;
        let mut octets = STATE_MAGIC.to_vec();
        octets.extend_from_slice(&layout::FORMAT_VERSION.to_le_bytes());
        octets.extend_from_slice(&crc32c::crc32c(&record).to_le_bytes());
        octets.extend_from_slice(&record);
        disk.replace(path, &octets)
            .map_err(|error| StoreError::io(format!("writing {}", path.display()), error))
    }

    /// `magic [8] | version u32 | crc32c u32 | record`; the version where it is another one.
    fn decode(octets: &[u8]) -> Option<Result<Self, u32>> {
        let rest = octets.strip_prefix(STATE_MAGIC)?;
        let version = layout::u32_at(rest, 0)?;
        if version != layout::FORMAT_VERSION {
            return Some(Err(version));
        }
        let record = rest.get(8..)?;
        if crc32c::crc32c(record) != layout::u32_at(rest, 4)? {
            return None;
        }
        let record: StateRecord = layout::decode_record(record).ok()?;
        let checkpoint =
            Position { segment: record.segment, offset: record.offset, lsn: record.lsn };
        Some(Ok(Self {
            store: record.store,
            boot_id: record.boot_id,
            cleanliness: record.cleanliness,
            checkpoint,
        }))
    }
}

impl Paths {
    fn under(root: &Path) -> Self {
        let spool = root.join("spool");
        Self {
            root: root.to_path_buf(),
            state: root.join("state"),
            big: spool.join("big"),
            bodies: root.join("bodies"),
            spool,
            quarantine: root.join("quarantine"),
        }
    }
}

/// A file of the spool, before it is scanned.
struct SegmentFile {
    number: u32,
    path: PathBuf,
    /// `None` when the head is damaged.
    header: Option<SegmentHeader>,
}

impl SegmentFile {
    fn any_store(&self) -> Option<StoreUuid> {
        self.header.map(|header| header.store)
    }
}

fn take_lock(root: &Path) -> Result<DirLock, StoreError> {
    let path = root.join("LOCK");
    let failed = |error| StoreError::io(format!("locking {}", path.display()), error);
    let file =
        File::options().write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(DirLock(file)),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked(root.to_path_buf())),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The segments there are, in order; what a crash left of an unfinished one is removed.
fn segment_files(spool: &Path) -> Result<Vec<SegmentFile>, StoreError> {
    for extension in ["new", "free"] {
        for (_, path) in journal::numbered_files(spool, extension)? {
            index::remove_all(&path)?;
        }
    }
    let mut files = Vec::new();
    for (number, path) in journal::numbered_files(spool, "seg")? {
        let head = read_head(&path)?;
        let header = match layout::decode_header(&head) {
            Ok(header) if header.number == number => Some(header),
            Ok(_) | Err(layout::HeaderError::Damaged) => {
                tracing::error!(path = %path.display(), "the head of a segment is damaged");
                None
            }
            Err(layout::HeaderError::Version(version)) => {
                return Err(StoreError::Format(format!(
                    "{} was written in format {version}; this program reads format {}",
                    path.display(),
                    layout::FORMAT_VERSION
                )));
            }
        };
        files.push(SegmentFile { number, path, header });
    }
    Ok(files)
}

fn read_head(path: &Path) -> Result<Vec<u8>, StoreError> {
    use std::io::Read;
    let failed = |error| StoreError::io(format!("reading {}", path.display()), error);
    let mut head = Vec::new();
    let limit = u64::try_from(layout::SEGMENT_HEADER_BYTES).unwrap_or(64);
    File::open(path).map_err(failed)?.take(limit).read_to_end(&mut head).map_err(failed)?;
    Ok(head)
}

/// Reads all segments: rebuilds what is live, and applies what lies behind the checkpoint.
fn replay(
    shared: &Shared,
    files: &[SegmentFile],
    checkpoint: Position,
) -> Result<Position, StoreError> {
    let mut end = checkpoint;
    let mut last_lsn = None;
    for (at, file) in files.iter().enumerate() {
        let next = files.get(at.saturating_add(1)..).unwrap_or_default();
        let until = next.iter().find_map(|file| file.header).map(|header| header.first_lsn);
        let first = file.header.map(|header| header.first_lsn);
        let from = first.or(last_lsn).unwrap_or(1);
        let scanned = replay_segment(shared, file, (from, until), checkpoint.lsn)?;
        last_lsn = Some(scanned.last_lsn.saturating_add(1));
        end.lsn = end.lsn.max(scanned.last_lsn);
    }
    Ok(end)
}

/// Reads one segment. `range` is its first LSN and, where known, that of the next segment.
fn replay_segment(
    shared: &Shared,
    file: &SegmentFile,
    (from, until): (u64, Option<u64>),
    applied_lsn: u64,
) -> Result<journal::ScanEnd, StoreError> {
    let failed = |error| StoreError::io(format!("reading {}", file.path.display()), error);
    let octets = std::fs::read(&file.path).map_err(failed)?;
    let opened = File::options().read(true).write(true).open(&file.path).map_err(failed)?;
    let segment = Segment { number: file.number, file: opened, path: file.path.clone() };
    let segment = Arc::new(segment);
    shared.core().spool.add(Arc::clone(&segment), 0);
    let range = ScanRange { from, until: until.unwrap_or(u64::MAX), order: ScanOrder::Consecutive };
    let mut replayed: Vec<(u64, Frame)> = Vec::new();
    let mut replayed_bytes: usize = 0;
    let end = journal::scan(&octets, shared.seed, range, &mut |found| {
        match found {
            Found::Damage(range) => quarantine(shared, file, &octets, range)?,
            Found::Batch(frames) => {
                for (offset, frame) in frames {
                    let Some(entry) = read_entry(file, offset, &frame) else { continue };
                    if let Some(ended) = fold(shared, file.number, offset, &frame, &entry) {
                        part(shared, ended, frame.lsn > applied_lsn);
                    }
                    if frame.lsn > applied_lsn && frame.flags & layout::COPY == 0 {
                        replayed_bytes = replayed_bytes.saturating_add(frame.size);
                        replayed.push((frame.lsn, log_frame(&frame, entry)));
                    }
                }
                if replayed_bytes > REPLAY_BYTES_MAX {
                    apply_replayed(shared, &mut replayed)?;
                    replayed_bytes = 0;
                }
            }
        }
        Ok(())
    })?;
    apply_replayed(shared, &mut replayed)?;
    if let Some(until) = until
        && end.last_lsn.saturating_add(1) < until
    {
        let missing = until.saturating_sub(end.last_lsn).saturating_sub(1);
        tracing::error!(path = %file.path.display(), missing, "the end of a segment is damaged");
        quarantine(shared, file, &octets, end.offset..octets.len())?;
    }
    let used = u64::try_from(end.offset).unwrap_or(u64::MAX);
    shared.core().spool.grown(file.number, used);
    // It is never written again. A store that crashes again and again would fill the disk with
    // room that was set aside, and read all of it at each start.
    let needed = octets_needed(&octets, end.offset);
    if needed < octets.len() {
        let needed = u64::try_from(needed).unwrap_or(u64::MAX);
        segment.file.set_len(needed).map_err(|error| {
            StoreError::io(format!("cutting the unused end of {}", file.path.display()), error)
        })?;
    }
    Ok(end)
}

/// Octets of a segment without the zeros behind its last frame. What is no frame and no zero
/// either stays for a look.
fn octets_needed(octets: &[u8], end: usize) -> usize {
    let tail = octets.get(end..).unwrap_or_default();
    let is_written = |block: &[u8]| ZEROS.get(..block.len()) != Some(block);
    let last = tail.chunks(ZEROS.len()).rposition(is_written);
    let blocks = last.map_or(0, |at| at.saturating_add(1));
    end.saturating_add(blocks.saturating_mul(ZEROS.len())).min(octets.len())
}

/// Applies everything again that lies behind `checkpoint`, up to `last_lsn`.
pub(super) fn reapply(
    shared: &Shared,
    checkpoint: Position,
    last_lsn: u64,
) -> Result<(), StoreError> {
    let segments = shared.core().spool.segments_from(checkpoint.segment);
    let mut until = last_lsn.saturating_add(1);
    // From the last one back, because each head says where the one before it ends.
    for segment in segments.iter().rev() {
        let failed = |error| StoreError::io(format!("reading {}", segment.path.display()), error);
        let octets = std::fs::read(&segment.path).map_err(failed)?;
        let Ok(header) = layout::decode_header(&octets) else { continue };
        let from = header.first_lsn;
        let range = ScanRange { from, until, order: ScanOrder::Consecutive };
        let mut frames: Vec<(u64, Frame)> = Vec::new();
        journal::scan(&octets, shared.seed, range, &mut |found| {
            let Found::Batch(batch) = found else { return Ok(()) };
            for (_, frame) in batch {
                let is_new = frame.lsn > checkpoint.lsn && frame.flags & layout::COPY == 0;
                if let Some(entry) = Entry::read(&frame).ok().flatten().filter(|_| is_new) {
                    frames.push((frame.lsn, log_frame(&frame, entry)));
                }
            }
            Ok(())
        })?;
        apply_replayed(shared, &mut frames)?;
        until = until.min(from);
    }
    Ok(())
}

fn apply_replayed(shared: &Shared, frames: &mut Vec<(u64, Frame)>) -> Result<(), StoreError> {
    let borrowed: Vec<(u64, &Frame)> = frames.iter().map(|(lsn, frame)| (*lsn, frame)).collect();
    shared.archive.apply(&borrowed)?;
    frames.clear();
    Ok(())
}

fn read_entry(file: &SegmentFile, offset: usize, frame: &FrameRef<'_>) -> Option<Entry> {
    match Entry::read(frame) {
        Ok(entry) => entry,
        Err(why) => {
            tracing::error!(path = %file.path.display(), offset, why, "a frame cannot be read");
            None
        }
    }
}

/// Folds an entry into what is live; the mail that it ended, if it ended one.
fn fold(
    shared: &Shared,
    segment: u32,
    offset: usize,
    frame: &FrameRef<'_>,
    entry: &Entry,
) -> Option<QueueId> {
    let mut core = shared.core();
    let offset = u64::try_from(offset).unwrap_or(u64::MAX);
    let place = Place::new(segment, offset, frame.size, entry, frame.payload);
    core.spool.settle(entry, place);
    core.last_lsn = frame.lsn;
    let ended = core.live.apply(entry, Durability::Synced)?;
    core.spool.end(ended);
    Some(ended.queue_id)
}

/// Lets a mail go that has ended. In front of the checkpoint its body was kept before; behind it
/// the crash may have come first.
fn part(shared: &Shared, ended: QueueId, is_behind_checkpoint: bool) {
    if is_behind_checkpoint {
        shared.let_go(&[ended]);
    } else {
        shared.core().spool.release_mail(ended);
    }
}

/// The frame as it goes into `log/`.
fn log_frame(frame: &FrameRef<'_>, entry: Entry) -> Frame {
    let log_len = match layout::decode_message(frame.payload) {
        Some((record, _, _)) if matches!(entry, Entry::Message(_)) => {
            layout::message_record_end(record.len())
        }
        _ => frame.payload.len(),
    };
    let payload = frame.payload.get(..log_len).unwrap_or_default().to_vec();
    let flags = frame.flags & layout::REVISION;
    Frame { entry, flags, key: frame.key.to_vec(), payload, log_len }
}

/// Keeps a copy of damaged octets and raises an alarm.
fn quarantine(
    shared: &Shared,
    file: &SegmentFile,
    octets: &[u8],
    range: std::ops::Range<usize>,
) -> Result<(), StoreError> {
    let dir = &shared.paths.quarantine;
    let path = dir.join(format!("{:08}-{}.bin", file.number, range.start));
    tracing::error!(
        segment = %file.path.display(),
        from = range.start,
        to = range.end,
        kept = %path.display(),
        "the journal is damaged; the octets are kept and the frames behind them are read"
    );
    let mut core = shared.core();
    core.damaged_ranges = core.damaged_ranges.saturating_add(1);
    drop(core);
    let kept = octets.get(range).unwrap_or_default();
    let end = kept.iter().rposition(|octet| *octet != 0).map_or(0, |at| at.saturating_add(1));
    create_private_dir(dir)
        .and_then(|()| std::fs::write(&path, kept.get(..end).unwrap_or_default()))
        .map_err(|error| StoreError::io(format!("writing {}", path.display()), error))
}

/// Removes bodies of mails that are not in the queue: cut short by a crash, or done with.
fn sweep_bodies(shared: &Shared) -> Result<(), StoreError> {
    let live: BTreeSet<QueueId> = shared.core().live.queue_ids().collect();
    for path in journal::list(&shared.paths.big)? {
        let name = path.file_name().and_then(|name| name.to_str());
        let queue_id = name.and_then(QueueId::parse);
        if !queue_id.is_some_and(|id| live.contains(&id)) {
            index::remove_all(&path)?;
        }
    }
    Ok(())
}

fn boot_id() -> String {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let id: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    // Where the system does not tell, every start counts as one after a power loss.
    if id.is_empty() { format!("unknown{:016x}", random_u64()) } else { id }
}

fn new_uuid() -> StoreUuid {
    u128::from(random_u64()).wrapping_shl(64).wrapping_add(u128::from(random_u64())).to_be_bytes()
}

/// A number that differs from start to start; nothing secret hangs on it.
fn random_u64() -> u64 {
    std::hash::RandomState::new().build_hasher().finish()
}

const STATE_MAGIC: &[u8; 8] = b"RBNDSTA\n";
/// What was never written, a block at a time.
const ZEROS: [u8; 4096] = [0; 4096];
/// Octets that are replayed at once.
const REPLAY_BYTES_MAX: usize = 8 << 20;
