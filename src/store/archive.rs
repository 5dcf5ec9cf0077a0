//! The long-lived records: the files of `log/` by day, and the index rows that point into them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::day_notes::DayNotes;
use super::disk::{Disk, create_private_dir};
use super::entry::{Entry, Frame};
use super::index::{self, IndexError, Opened, Rows, Table, Tables};
use super::journal::{self, Found, ScanOrder, ScanRange};
use super::layout::{self, Location, SegmentHeader, StoreUuid};

/// `log/` and `index/`.
pub(super) struct Archive {
    dir: PathBuf,
    disk: Disk,
    store: StoreUuid,
    seed: u32,
    tables: Tables,
    /// Held by whoever changes files or rows: the applier, a rebuild, a prune.
    writers: Mutex<Writers>,
    readers: Mutex<HashMap<(u32, u32), Arc<File>>>,
    days: Mutex<BTreeSet<u32>>,
    notes: DayNotes,
    /// Days before this one have been dropped.
    kept_from: AtomicU32,
}

#[derive(Default)]
struct Writers {
    open: BTreeMap<u32, Writer>,
    /// Files that are full and not synced yet.
    full: Vec<Arc<File>>,
}

/// The file of a day that is being appended to.
struct Writer {
    file: Arc<File>,
    number: u32,
    len: u64,
    dirty: bool,
}

impl Archive {
    /// Opens the archive, and rebuilds the days whose index cannot be trusted.
    pub(super) fn open(
        root: &Path,
        disk: Disk,
        store: StoreUuid,
        boot_id: String,
    ) -> Result<Self, StoreError> {
        let dir = root.join("log");
        create_private_dir(&dir)
            .map_err(|error| StoreError::io(format!("creating {}", dir.display()), error))?;
        let mut days = BTreeSet::new();
        for path in journal::list(&dir)? {
            let name = path.file_name().and_then(|name| name.to_str());
            days.extend(name.and_then(|name| name.parse::<u32>().ok()));
        }
        let tables = Tables::new(root.join("index"), disk.clone(), boot_id)?;
        let suspects = days.iter().copied().filter(|day| tables.is_suspect(*day)).collect();
        let archive = Self {
            dir,
            disk,
            store,
            seed: layout::checksum_seed(&store),
            tables,
            writers: Mutex::default(),
            readers: Mutex::default(),
            days: Mutex::new(days),
            notes: DayNotes::default(),
            kept_from: AtomicU32::new(0),
        };
        archive.rebuild(&archive.writers(), &suspects)?;
        Ok(archive)
    }

    /// Appends frames to their days and inserts their rows.
    ///
    /// It may be repeated with the same frames: rows are the same again and point to the new copy.
    pub(super) fn apply(&self, frames: &[(u64, &Frame)]) -> Result<(), StoreError> {
        let mut writers = self.writers();
        let kept_from = self.kept_from.load(Ordering::SeqCst);
        let mut rows: BTreeMap<u32, Rows> = BTreeMap::new();
        let mut buffers: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for (lsn, frame) in frames {
            let Some(day) = frame.entry.day().filter(|day| *day >= kept_from) else { continue };
            let buffer = buffers.entry(day).or_default();
            let room = layout::frame_size(&frame.key, &frame.payload);
            let location = self.place(&mut writers, day, *lsn, buffer, room)?;
            let kind = frame.entry.kind().as_u8();
            let payload = frame.payload.get(..frame.log_len).unwrap_or(&frame.payload);
            let flags = frame.flags & layout::REVISION;
            layout::encode_frame(buffer, self.seed, *lsn, (kind, flags), &frame.key, payload);
            for row in frame.entry.rows(*lsn, flags, location) {
                if row.day >= kept_from {
                    rows.entry(row.day).or_default().push((row.key, row.value));
                }
            }
        }
        for (day, buffer) in &buffers {
            self.flush(&mut writers, *day, buffer)?;
        }
        for (day, rows) in rows {
            self.insert(&writers, day, rows)?;
        }
        Ok(())
    }

    /// Puts everything applied on disk: all of it has an LSN of `lsn` or less.
    ///
    /// When that fails, what was applied since the last checkpoint must be applied again: after
    /// a failed sync nobody knows what is on disk, and syncing the same file again would not tell.
    pub(super) fn checkpoint(&self, lsn: u64) -> Result<(), StoreError> {
        let mut writers = self.writers();
        let Writers { open, full } = &mut *writers;
        let mut synced = Ok(());
        for writer in
            full.drain(..).chain(open.values_mut().filter(|writer| writer.dirty).map(|writer| {
                writer.dirty = false;
                Arc::clone(&writer.file)
            }))
        {
            synced = synced.and_then(|()| self.disk.sync_data(&writer));
        }
        if let Err(error) = synced {
            writers.open.clear();
            return Err(StoreError::io("syncing the log", error));
        }
        self.rebuild(&writers, &self.tables.take_doubtful())?;
        self.tables.checkpoint(lsn)
    }

    /// Closes all files; the index is marked as whole.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        self.tables.close()
    }

    /// The value of a key in the index of a day.
    pub(super) fn value(&self, day: u32, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(day, |table| table.value(key)).map(Option::flatten)
    }

    /// Whether a day may have rows with this prefix.
    pub(super) fn may_contain(&self, day: u32, prefix: &[u8]) -> bool {
        self.tables.may_contain(day, prefix)
    }

    /// Rows of a day whose keys start with `prefix`, behind the key `after`.
    pub(super) fn scan(
        &self,
        day: u32,
        prefix: &[u8],
        after: Option<&[u8]>,
        max: usize,
    ) -> Result<Rows, StoreError> {
        if !self.may_contain(day, prefix) {
            return Ok(Rows::new());
        }
        self.ask(day, |table| table.scan(prefix, after, max)).map(Option::unwrap_or_default)
    }

    /// Rows of a day whose keys start with `prefix`, before the key `before`, the last first.
    pub(super) fn scan_back(
        &self,
        day: u32,
        prefix: &[u8],
        before: Option<&[u8]>,
        max: usize,
    ) -> Result<Rows, StoreError> {
        self.ask(day, |table| table.scan_back(prefix, before, max)).map(Option::unwrap_or_default)
    }

    /// The entry at a place in `log/`; `None` when it is damaged, which is logged.
    pub(super) fn read(&self, location: Location) -> Result<Option<Entry>, StoreError> {
        let octets = self.octets_at(location)?;
        let frame = layout::decode_frame(&octets, self.seed);
        match frame.map(|frame| Entry::read(&frame)) {
            Some(Ok(entry)) => Ok(entry),
            Some(Err(why)) => {
                tracing::error!(?location, why, "a record cannot be read");
                Ok(None)
            }
            None => {
                tracing::error!(?location, "a record is damaged");
                Ok(None)
            }
        }
    }

    /// The last LSN in all of `log/`; reads all of it.
    pub(super) fn last_lsn(&self) -> Result<u64, StoreError> {
        let mut last = 0;
        for day in self.days() {
            for (_, path) in journal::numbered_files(&self.day_dir(day), "seg")? {
                let data = std::fs::read(&path).map_err(|error| {
                    StoreError::io(format!("reading {}", path.display()), error)
                })?;
                let range = ScanRange { from: 0, until: u64::MAX, order: ScanOrder::Any };
                journal::scan(&data, self.seed, range, &mut |found| {
                    if let Found::Batch(frames) = found {
                        last = frames.iter().map(|(_, frame)| frame.lsn).fold(last, u64::max);
                    }
                    Ok(())
                })?;
            }
        }
        Ok(last)
    }

    /// The days that are kept, newest first.
    pub(super) fn days(&self) -> Vec<u32> {
        self.known_days().iter().rev().copied().collect()
    }

    /// How many days of the index are open.
    #[cfg(test)]
    pub(super) fn open_days(&self) -> usize {
        self.tables.open_days()
    }

    /// The first day that has not been dropped.
    pub(super) fn kept_from(&self) -> u32 {
        self.kept_from.load(Ordering::SeqCst)
    }

    /// Drops all days before `day`.
    pub(super) fn prune(&self, day: u32) -> Result<usize, StoreError> {
        let mut writers = self.writers();
        self.kept_from.fetch_max(day, Ordering::SeqCst);
        let old: Vec<u32> = self.known_days().range(..day).copied().collect();
        for day in &old {
            writers.open.remove(day);
            self.known_days().remove(day);
            self.notes.forget(*day);
            self.open_readers().retain(|(of, _), _| of != day);
            // The index goes first: a row must never point to a file that is gone.
            self.tables.remove(*day)?;
            index::remove_all(&self.day_dir(*day))?;
        }
        Ok(old.len())
    }

    /// Asks the index of a day; a broken one is rebuilt and asked again, and one that is being
    /// rebuilt is waited for.
    fn ask<T>(
        &self,
        day: u32,
        question: impl Fn(&dyn Table) -> Result<T, IndexError>,
    ) -> Result<Option<T>, StoreError> {
        let mut why = String::new();
        for _ in 0..ASKED_MAX {
            if !self.known_days().contains(&day) {
                return Ok(None);
            }
            let mut failed = None;
            match self.tables.open_whole(day) {
                Opened::Ready(table) => match question(table.as_ref()) {
                    Ok(answer) => return Ok(Some(answer)),
                    Err(error) => {
                        why = error.0;
                        failed = Some(table);
                    }
                },
                Opened::Broken(reason) => why = reason,
            }
            let writers = self.writers();
            // Somebody else may have rebuilt or dropped the day while this waited for the lock.
            let is_old = |table: &Arc<dyn Table>| {
                failed.as_ref().is_some_and(|failed| Arc::ptr_eq(failed, table))
            };
            let is_mended = match self.tables.open_whole(day) {
                Opened::Ready(table) => !is_old(&table),
                Opened::Broken(_) => !self.known_days().contains(&day),
            };
            if !is_mended {
                tracing::error!(day, why, "the index of a day is broken");
                self.rebuild(&writers, &BTreeSet::from([day]))?;
            }
        }
        let source = std::io::Error::other(why);
        Err(StoreError::io(format!("asking the index of {day}"), source))
    }

    /// Finds room for a frame in the file of its day.
    fn place(
        &self,
        writers: &mut Writers,
        day: u32,
        lsn: u64,
        buffer: &mut Vec<u8>,
        room: usize,
    ) -> Result<Location, StoreError> {
        let end = |writer: &Writer| writer.len.saturating_add(octets(buffer.len()));
        let is_full = |writer: &Writer| {
            writer.len > octets(layout::SEGMENT_HEADER_BYTES)
                && end(writer).saturating_add(octets(room)) > LOG_FILE_BYTES_MAX
        };
        if writers.open.get(&day).is_some_and(is_full) {
            self.flush(writers, day, buffer)?;
            buffer.clear();
            let full = writers.open.remove(&day).map(|writer| writer.file);
            writers.full.extend(full);
        }
        if !writers.open.contains_key(&day) {
            let writer = self.start_file(writers, day, lsn)?;
            writers.open.insert(day, writer);
        }
        let writer = writers.open.get(&day);
        let offset = writer.map_or(0, |writer| writer.len.saturating_add(octets(buffer.len())));
        Ok(Location {
            day,
            file: writer.map_or(0, |writer| writer.number),
            offset: u32::try_from(offset).unwrap_or(u32::MAX),
        })
    }

    /// Starts a file in a day, and the day's index with its first file.
    fn start_file(&self, writers: &Writers, day: u32, lsn: u64) -> Result<Writer, StoreError> {
        let dir = self.day_dir(day);
        let failed = |error| StoreError::io(format!("starting a file in {}", dir.display()), error);
        if !self.known_days().contains(&day) {
            std::fs::create_dir_all(&dir).map_err(failed)?;
            self.disk.sync_dir(&self.dir).map_err(failed)?;
            self.tables.reset(day)?;
            // Only now: nobody is to ask a day that is being made.
            self.known_days().insert(day);
        } else if matches!(self.tables.open(day), Opened::Broken(_)) {
            self.rebuild(writers, &BTreeSet::from([day]))?;
        }
        let last = journal::numbered_files(&dir, "seg")?.pop();
        let number = last.map_or(1, |(number, _)| number.saturating_add(1));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(dir.join(file_name(number)))
            .map_err(failed)?;
        let header = SegmentHeader { number, first_lsn: lsn, store: self.store };
        self.disk.write_at(&file, &layout::encode_header(&header), 0).map_err(failed)?;
        self.disk.sync_dir(&dir).map_err(failed)?;
        Ok(Writer {
            file: Arc::new(file),
            number,
            len: octets(layout::SEGMENT_HEADER_BYTES),
            dirty: true,
        })
    }

    fn flush(&self, writers: &mut Writers, day: u32, buffer: &[u8]) -> Result<(), StoreError> {
        let Some(writer) = writers.open.get_mut(&day).filter(|_| !buffer.is_empty()) else {
            return Ok(());
        };
        if let Err(error) = self.disk.write_at(&writer.file, buffer, writer.len) {
            // What was written of it is of no use; the next try starts another file.
            writers.open.remove(&day);
            return Err(StoreError::io(format!("writing the log of {day}"), error));
        }
        writer.len = writer.len.saturating_add(octets(buffer.len()));
        writer.dirty = true;
        Ok(())
    }

    /// Inserts rows; where that fails the day is rebuilt, with these rows, from the log.
    fn insert(&self, writers: &Writers, day: u32, rows: Rows) -> Result<(), StoreError> {
        if !self.known_days().contains(&day) {
            // News about a mail whose own day is unknown: its log is empty, its index has rows.
            let dir = self.day_dir(day);
            std::fs::create_dir_all(&dir)
                .map_err(|error| StoreError::io(format!("creating {}", dir.display()), error))?;
            self.tables.reset(day)?;
            self.known_days().insert(day);
        }
        let _writing = self.notes.writing(day);
        match self.tables.apply(day, rows) {
            Ok(()) => Ok(()),
            Err(error) => {
                tracing::error!(day, %error, "the index of a day is broken");
                self.rebuild(writers, &BTreeSet::from([day]))
            }
        }
    }

    /// Makes the indexes of these days anew, from all that was logged since the first of them.
    /// Who asks meanwhile waits or is refused, and afterwards they say what they said before.
    fn rebuild(&self, _writers: &Writers, days: &BTreeSet<u32>) -> Result<(), StoreError> {
        let Some(first) = days.first() else { return Ok(()) };
        tracing::warn!(?days, "rebuilding the index");
        self.tables.begin_rebuild(days)?;
        let logged: Vec<u32> = self.known_days().range(first..).copied().collect();
        let mut last_lsn = 0;
        for day in logged {
            for (file, path) in journal::numbered_files(&self.day_dir(day), "seg")? {
                last_lsn = last_lsn.max(self.rebuild_from(day, file, &path, days)?);
                self.tables.checkpoint(last_lsn)?;
            }
        }
        self.tables.end_rebuild(days, last_lsn)
    }

    /// Inserts the rows of one file that belong to `days`; the last LSN in it.
    fn rebuild_from(
        &self,
        day: u32,
        file: u32,
        path: &Path,
        days: &BTreeSet<u32>,
    ) -> Result<u64, StoreError> {
        let data = std::fs::read(path)
            .map_err(|error| StoreError::io(format!("reading {}", path.display()), error))?;
        let mut rows: BTreeMap<u32, Rows> = BTreeMap::new();
        let range = ScanRange { from: 0, until: u64::MAX, order: ScanOrder::Any };
        let end = journal::scan(&data, self.seed, range, &mut |found| {
            let frames = match found {
                Found::Batch(frames) => frames,
                Found::Damage(range) => {
                    tracing::error!(path = %path.display(), ?range, "the log is damaged");
                    return Ok(());
                }
            };
            for (offset, frame) in frames {
                let offset = layout::u32_of(offset);
                let location = Location { day, file, offset };
                if let Ok(Some(entry)) = Entry::read(&frame) {
                    for row in entry.rows(frame.lsn, frame.flags, location) {
                        if days.contains(&row.day) {
                            rows.entry(row.day).or_default().push((row.key, row.value));
                        }
                    }
                }
            }
            Ok(())
        })?;
        for (day, rows) in rows {
            self.tables.apply(day, rows).map_err(|error| {
                let source = std::io::Error::other(error);
                StoreError::io(format!("rebuilding the index of {day}"), source)
            })?;
        }
        Ok(end.last_lsn)
    }

    fn octets_at(&self, location: Location) -> Result<Vec<u8>, StoreError> {
        let file = self.reader(location.day, location.file)?;
        let failed = |error| StoreError::io(format!("reading the log at {location:?}"), error);
        let offset = u64::from(location.offset);
        let mut head = [0; 4];
        match file.read_exact_at(&mut head, offset) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Ok(Vec::new());
            }
            result => result.map_err(failed)?,
        }
        let rest = file.metadata().map_err(failed)?.len().saturating_sub(offset);
        let len = u64::from(u32::from_le_bytes(head)).min(rest);
        let mut octets = vec![0; usize::try_from(len).unwrap_or(0)];
        file.read_exact_at(&mut octets, offset).map_err(failed)?;
        Ok(octets)
    }

    fn reader(&self, day: u32, file: u32) -> Result<Arc<File>, StoreError> {
        if let Some(open) = self.open_readers().get(&(day, file)) {
            return Ok(Arc::clone(open));
        }
        let path = self.day_dir(day).join(file_name(file));
        let opened = File::open(&path)
            .map_err(|error| StoreError::io(format!("opening {}", path.display()), error))?;
        let opened = Arc::new(opened);
        let mut readers = self.open_readers();
        if readers.len() >= OPEN_FILES_MAX {
            readers.clear();
        }
        readers.insert((day, file), Arc::clone(&opened));
        Ok(opened)
    }

    fn day_dir(&self, day: u32) -> PathBuf {
        self.dir.join(format!("{day:08}"))
    }

    fn writers(&self) -> MutexGuard<'_, Writers> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_days(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was found out about days.
    pub(super) fn notes(&self) -> &DayNotes {
        &self.notes
    }

    fn open_readers(&self) -> MutexGuard<'_, HashMap<(u32, u32), Arc<File>>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The store that the files of `log/` belong to, for when nothing else tells.
pub(super) fn any_store(root: &Path) -> Result<Option<StoreUuid>, StoreError> {
    for day in journal::list(&root.join("log"))? {
        for (_, path) in journal::numbered_files(&day, "seg")? {
            let octets = std::fs::read(&path)
                .map_err(|error| StoreError::io(format!("reading {}", path.display()), error))?;
            if let Ok(header) = layout::decode_header(&octets) {
                return Ok(Some(header.store));
            }
        }
    }
    Ok(None)
}

fn file_name(number: u32) -> String {
    format!("{number:04}.seg")
}

fn octets(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// How often the index of a day is asked before its errors are passed on.
const ASKED_MAX: u32 = 3;
/// Octets after which the file of a day is full.
const LOG_FILE_BYTES_MAX: u64 = 64 << 20;
/// Files of `log/` that are open for reading at once.
const OPEN_FILES_MAX: usize = 64;
