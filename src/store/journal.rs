//! Segments: files of frames that are appended to and never changed.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::disk::Disk;
use super::layout::{self, FrameRef, SegmentHeader};

/// A segment that is open.
#[derive(Debug)]
pub(super) struct Segment {
    /// Its number.
    pub(super) number: u32,
    /// The file.
    pub(super) file: File,
    /// Where the file is.
    pub(super) path: PathBuf,
}

/// What a scan came upon.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// All frames of a batch, each with its offset.
    Batch(Vec<(usize, FrameRef<'a>)>),
    /// Octets that are no frame, in front of a frame or in front of the known end.
    Damage(std::ops::Range<usize>),
}

/// Which frames a scan takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct ScanRange {
    /// LSNs from here on.
    pub(super) from: u64,
    /// LSNs before this one.
    pub(super) until: u64,
    /// Whether LSNs must follow each other without a gap.
    pub(super) order: ScanOrder,
}

/// How LSNs follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanOrder {
    /// Each is one more than the last: the spool.
    Consecutive,
    /// They may leave gaps and start again after a crash: the log.
    Any,
}

/// Where a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScanEnd {
    /// The offset behind the last frame that was taken.
    pub(super) offset: usize,
    /// The LSN of the last frame, or the one before the first.
    pub(super) last_lsn: u64,
}

impl Segment {
    /// Creates a segment, in place of a recycled file where there is one.
    ///
    /// The head is on disk before the file gets its name.
    pub(super) fn create(
        disk: &Disk,
        path: PathBuf,
        header: &SegmentHeader,
        capacity: u64,
        recycled: Option<&Path>,
    ) -> Result<Self, StoreError> {
        let draft = recycled.map_or_else(|| path.with_extension("new"), Path::to_path_buf);
        let written = write_head(disk, &draft, header, capacity).and_then(|file| {
            std::fs::rename(&draft, &path)?;
            path.parent().map_or(Ok(()), |dir| disk.sync_dir(dir))?;
            Ok(file)
        });
        match written {
            Ok(file) => Ok(Self { number: header.number, file, path }),
            Err(error) => {
                // A disk that is full stays full as long as failed drafts lie on it.
                for left in [&draft, &path] {
                    super::index::remove_all(left)?;
                }
                Err(StoreError::io(format!("creating segment {}", path.display()), error))
            }
        }
    }

    /// Reads the octets of a frame, unchecked.
    pub(super) fn read_frame(&self, offset: u64, size: usize) -> Result<Vec<u8>, StoreError> {
        let doing = || format!("reading segment {} at {offset}", self.path.display());
        let mut octets = vec![0; size];
        std::os::unix::fs::FileExt::read_exact_at(&self.file, &mut octets, offset)
            .map_err(|error| StoreError::io(doing(), error))?;
        Ok(octets)
    }
}

/// Makes a file that is as long as a segment and starts with its head.
fn write_head(
    disk: &Disk,
    path: &Path,
    header: &SegmentHeader,
    capacity: u64,
) -> std::io::Result<File> {
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).truncate(false).open(path)?;
    disk.preallocate(&file, capacity)?;
    disk.write_at(&file, &layout::encode_header(header), 0)?;
    disk.sync_data(&file)?;
    Ok(file)
}

/// The name of a segment file.
pub(super) fn segment_name(number: u32) -> String {
    format!("{number:08}.seg")
}

/// The numbers of the files in `dir` that end in `extension`, in order.
pub(super) fn numbered_files(
    dir: &Path,
    extension: &str,
) -> Result<Vec<(u32, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for path in list(dir)? {
        let is_kind = path.extension().is_some_and(|it| it == extension);
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        if let Some(number) = stem.filter(|_| is_kind).and_then(|stem| stem.parse().ok()) {
            found.push((number, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Everything in a directory; nothing when it does not exist.
pub(super) fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let failed = |error| StoreError::io(format!("listing {}", dir.display()), error);
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

/// Finds all frames in a segment's octets, and what is damaged between them.
///
/// After damage it goes on at the next whole frame. A batch with a missing frame is left out.
/// Octets behind the last frame are not damage: they were never written, or were torn by a crash
/// before anything in them was acknowledged.
pub(super) fn scan<'a>(
    octets: &'a [u8],
    seed: u32,
    range: ScanRange,
    on_found: &mut dyn FnMut(Found<'a>) -> Result<(), StoreError>,
) -> Result<ScanEnd, StoreError> {
    let mut at = layout::SEGMENT_HEADER_BYTES;
    let mut end = ScanEnd { offset: at, last_lsn: range.from.saturating_sub(1) };
    let mut batch: Vec<(usize, FrameRef<'a>)> = Vec::new();
    while let Some(rest) = octets.get(at..).filter(|rest| !rest.is_empty()) {
        let lower = match range.order {
            ScanOrder::Consecutive => end.last_lsn.saturating_add(1),
            ScanOrder::Any => range.from,
        };
        let is_wanted = |frame: &FrameRef<'_>| frame.lsn >= lower && frame.lsn < range.until;
        let Some(frame) = layout::decode_frame(rest, seed).filter(is_wanted) else {
            at = at.saturating_add(layout::FRAME_ALIGNMENT_BYTES);
            continue;
        };
        if at != end.offset {
            batch.clear();
            on_found(Found::Damage(end.offset..at))?;
        }
        if frame.flags & layout::CONTINUES == 0 {
            batch.clear();
        }
        if frame.flags & layout::CONTINUES == 0 || !batch.is_empty() {
            batch.push((at, frame));
        }
        at = at.saturating_add(frame.size);
        end = ScanEnd { offset: at, last_lsn: frame.lsn };
        if frame.flags & layout::MORE == 0 && !batch.is_empty() {
            on_found(Found::Batch(std::mem::take(&mut batch)))?;
        }
    }
    Ok(end)
}
