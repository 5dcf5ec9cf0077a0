//! The index: one sled database per day, behind a small trait, thrown away whenever in doubt.
//!
//! Beside each day's directory lies a mark: up to which LSN its rows are on disk, and whether a
//! process had it open. A day that does not keep what its mark promises is rebuilt from `log/`.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::StoreError;
use super::disk::{Disk, create_private_dir};
use super::filter::{self, Filter};
use super::journal;
use super::keys;
use super::layout;

/// The index of one day. Another engine that has these can replace sled.
pub(super) trait Table: Send + Sync {
    /// The value of a key.
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError>;
    /// Inserts rows, all or none.
    fn apply(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), IndexError>;
    /// At most `max` rows whose keys start with `prefix` and lie behind `after`, in order.
    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, max: usize) -> Result<Rows, IndexError>;
    /// At most `max` rows whose keys start with `prefix` and lie before `before`, the last first.
    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        max: usize,
    ) -> Result<Rows, IndexError>;
    /// Returns once everything applied is on disk.
    fn checkpoint(&self, disk: &Disk) -> Result<(), IndexError>;
}

/// Keys with their values.
pub(super) type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// Why the index could not answer; the day is rebuilt.
#[derive(Debug)]
pub(super) struct IndexError(pub(super) String);

/// The days of the index, a handful of them open.
pub(super) struct Tables {
    dir: PathBuf,
    disk: Disk,
    boot_id: String,
    open: Mutex<Days>,
}

#[derive(Default)]
struct Days {
    open: HashMap<u32, OpenDay>,
    /// Days whose rows are not complete yet, whatever their mark says.
    building: BTreeSet<u32>,
    /// Days whose last checkpoint failed.
    doubtful: BTreeSet<u32>,
    uses: u64,
}

struct OpenDay {
    table: Arc<dyn Table>,
    last_use: u64,
    dirty: bool,
    /// Read when the day is first written to; `None` also where its file is not whole.
    filter: Option<Filter>,
}

/// What became of opening a day.
pub(super) enum Opened {
    /// Here it is.
    Ready(Arc<dyn Table>),
    /// It has to be rebuilt, for this reason.
    Broken(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    lsn: u64,
    open_in: Option<String>,
}

impl Tables {
    /// The index in `dir`; directories of other generations are removed.
    pub(super) fn new(dir: PathBuf, disk: Disk, boot_id: String) -> Result<Self, StoreError> {
        create_private_dir(&dir)
            .map_err(|error| StoreError::io(format!("creating {}", dir.display()), error))?;
        for path in journal::list(&dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let generation = name.split('.').nth(1);
            if generation != Some(GENERATION) {
                remove_all(&path)?;
            }
        }
        Ok(Self { dir, disk, boot_id, open: Mutex::default() })
    }

    /// Whether a day that `log/` knows must be rebuilt before it can be asked.
    pub(super) fn is_suspect(&self, day: u32) -> bool {
        match self.read_mark(day) {
            None => true,
            Some(mark) => {
                mark.open_in.is_some_and(|boot| boot != self.boot_id) || !self.path(day).is_dir()
            }
        }
    }

    /// Opens a day whose rows are complete; one that is being rebuilt counts as broken.
    pub(super) fn open_whole(&self, day: u32) -> Opened {
        let mut days = self.days();
        if days.building.contains(&day) {
            return Opened::Broken("it is being rebuilt".to_owned());
        }
        self.open_in(&mut days, day)
    }

    /// Opens a day, or finds it open, for whoever holds the lock of the writers.
    pub(super) fn open(&self, day: u32) -> Opened {
        self.open_in(&mut self.days(), day)
    }

    fn open_in(&self, days: &mut Days, day: u32) -> Opened {
        days.uses = days.uses.saturating_add(1);
        let now = days.uses;
        if let Some(found) = days.open.get_mut(&day) {
            found.last_use = now;
            return Opened::Ready(Arc::clone(&found.table));
        }
        if self.is_suspect(day) && !days.building.contains(&day) {
            return Opened::Broken("it is not marked as whole".to_owned());
        }
        let owner = self.owner(days, day);
        match self.open_checked(day, &owner) {
            Ok(table) => {
                self.make_room(days);
                let entry = OpenDay::new(Arc::clone(&table), now);
                days.open.insert(day, entry);
                Opened::Ready(table)
            }
            Err(error) => Opened::Broken(error.0),
        }
    }

    /// Starts days anew whose rows are complete only when `end_rebuild` says so.
    pub(super) fn begin_rebuild(&self, days: &BTreeSet<u32>) -> Result<(), StoreError> {
        self.days().building.extend(days);
        for day in days {
            self.reset(*day)?;
        }
        Ok(())
    }

    /// Marks days as whole that have been rebuilt up to `lsn`.
    pub(super) fn end_rebuild(&self, rebuilt: &BTreeSet<u32>, lsn: u64) -> Result<(), StoreError> {
        for day in rebuilt {
            if let Opened::Broken(why) = self.open(*day) {
                let source = std::io::Error::other(why);
                return Err(StoreError::io(format!("rebuilding the index of {day}"), source));
            }
            let mut days = self.days();
            days.building.remove(day);
            if let Some(open) = days.open.get_mut(day) {
                open.dirty = true;
            }
            drop(days);
            self.checkpoint(lsn)?;
        }
        Ok(())
    }

    /// Starts a day anew, without rows.
    pub(super) fn reset(&self, day: u32) -> Result<Arc<dyn Table>, StoreError> {
        self.remove(day)?;
        let failed = |error: IndexError| {
            let source = std::io::Error::other(error.0);
            StoreError::io(format!("starting the index of {day}"), source)
        };
        let table = open_sled(&self.path(day)).map_err(failed)?;
        let mut days = self.days();
        self.write_mark(day, &Mark { lsn: 0, open_in: Some(self.owner(&days, day)) })?;
        days.uses = days.uses.saturating_add(1);
        let last_use = days.uses;
        self.make_room(&mut days);
        let mut open = OpenDay::new(Arc::clone(&table), last_use);
        open.dirty = true;
        open.filter = Some(Filter::default());
        days.open.insert(day, open);
        Ok(table)
    }

    /// Removes a day.
    pub(super) fn remove(&self, day: u32) -> Result<(), StoreError> {
        let open = self.days().open.remove(&day);
        drop_quietly(open);
        remove_all(&self.mark_path(day))?;
        remove_all(&self.keys_path(day))?;
        remove_all(&self.path(day))
    }

    /// Inserts rows into a day; it counts as changed until the next checkpoint.
    pub(super) fn apply(&self, day: u32, rows: Rows) -> Result<(), IndexError> {
        for (_, value) in &rows {
            debug_assert!(value.len() <= layout::INDEX_VALUE_BYTES_MAX, "an index value is long");
        }
        let table = match self.open(day) {
            Opened::Ready(table) => table,
            Opened::Broken(why) => return Err(IndexError(why)),
        };
        if let Some(open) = self.days().open.get_mut(&day) {
            open.dirty = true;
            if open.filter.is_none() {
                open.filter = Filter::load(&self.keys_path(day));
            }
            if let Some(filter) = &mut open.filter {
                let keys = rows.iter().filter_map(|(key, _)| keys::filtered_prefix(key));
                keys.for_each(|key| filter.add(key));
            }
        }
        let counts = counts(table.as_ref(), &rows)?;
        table.apply(rows.into_iter().chain(counts).collect())
    }

    /// Whether a day may have rows with this prefix; asked before the day is opened.
    pub(super) fn may_contain(&self, day: u32, prefix: &[u8]) -> bool {
        if keys::filtered_prefix(prefix).is_none() {
            return true;
        }
        let days = self.days();
        if days.building.contains(&day) {
            return true;
        }
        if let Some(open) = days.open.get(&day)
            && let Some(filter) = &open.filter
        {
            return filter.may_contain(prefix);
        }
        drop(days);
        filter::file_may_contain(&self.keys_path(day), prefix)
    }

    /// Puts every changed day on disk: all rows up to `lsn` are there now.
    pub(super) fn checkpoint(&self, lsn: u64) -> Result<(), StoreError> {
        let changed: Vec<u32> = {
            let days = self.days();
            days.open.iter().filter(|(_, open)| open.dirty).map(|(day, _)| *day).collect()
        };
        for day in changed {
            if let Err(error) = self.checkpoint_day(day, lsn) {
                // After a failed sync nobody knows what is on disk. The day still answers from
                // memory; before the next checkpoint it is made anew.
                self.days().doubtful.insert(day);
                let source = std::io::Error::other(error);
                return Err(StoreError::io(format!("syncing the index of {day}"), source));
            }
        }
        Ok(())
    }

    /// The days whose last checkpoint failed; they have to be rebuilt.
    pub(super) fn take_doubtful(&self) -> BTreeSet<u32> {
        std::mem::take(&mut self.days().doubtful)
    }

    fn checkpoint_day(&self, day: u32, lsn: u64) -> Result<(), IndexError> {
        let failed = |error: std::io::Error| IndexError(error.to_string());
        let mut days = self.days();
        let owner = self.owner(&days, day);
        let Some(open) = days.open.get_mut(&day) else { return Ok(()) };
        let table = Arc::clone(&open.table);
        if let Some(filter) = &mut open.filter {
            filter.save(&self.disk, &self.keys_path(day)).map_err(failed)?;
        }
        open.dirty = false;
        drop(days);
        table.apply(vec![(keys::marker_key(), lsn.to_be_bytes().to_vec())])?;
        table.checkpoint(&self.disk)?;
        let mark = Mark { lsn, open_in: Some(owner) };
        self.write_mark(day, &mark).map_err(|error| IndexError(error.to_string()))
    }

    /// Closes every day; they are marked as whole. Call `checkpoint` before.
    pub(super) fn close(&self) -> Result<(), StoreError> {
        let mut days = self.days();
        for (day, open) in std::mem::take(&mut days.open) {
            self.close_day(&days, day, open)?;
        }
        Ok(())
    }

    /// How many days are open.
    #[cfg(test)]
    pub(super) fn open_days(&self) -> usize {
        self.days().open.len()
    }

    fn open_checked(&self, day: u32, owner: &str) -> Result<Arc<dyn Table>, IndexError> {
        let path = self.path(day);
        let mark = self.read_mark(day).ok_or_else(|| IndexError("it has no mark".to_owned()))?;
        let table = open_sled(&path)?;
        let marker = table.value(&keys::marker_key())?.unwrap_or_default();
        let flushed = marker.try_into().map_or(0, u64::from_be_bytes);
        if flushed < mark.lsn {
            return Err(IndexError(format!("rows up to {} were there, now {flushed}", mark.lsn)));
        }
        let open_in = Some(owner.to_owned());
        if mark.open_in != open_in {
            let mark = Mark { lsn: mark.lsn, open_in };
            self.write_mark(day, &mark).map_err(|error| IndexError(error.to_string()))?;
        }
        Ok(table)
    }

    /// Closes the day that was not used for longest, when too many are open.
    fn make_room(&self, days: &mut Days) {
        while days.open.len() >= OPEN_DAYS_MAX {
            let idle = days.open.iter().filter(|(_, open)| !open.dirty);
            let Some(day) = idle.min_by_key(|(_, open)| open.last_use).map(|(day, _)| *day) else {
                return;
            };
            if let Some(open) = days.open.remove(&day)
                && let Err(error) = self.close_day(days, day, open)
            {
                tracing::warn!(day, %error, "the index of a day could not be closed");
            }
        }
    }

    fn close_day(&self, days: &Days, day: u32, open: OpenDay) -> Result<(), StoreError> {
        let mark = self.read_mark(day);
        let whole = open.table.checkpoint(&self.disk).is_ok();
        drop_quietly(Some(open));
        match mark {
            // Dropping the database writes too, so the mark comes last.
            Some(mark) if whole => {
                sync_files(&self.disk, &self.path(day))
                    .map_err(|error| StoreError::io(format!("closing the index {day}"), error))?;
                let open_in = days.building.contains(&day).then(|| BUILDING.to_owned());
                self.write_mark(day, &Mark { lsn: mark.lsn, open_in })
            }
            _ => Ok(()),
        }
    }

    /// Who has a day open: this boot, or a rebuild, which no later start takes for whole.
    fn owner(&self, days: &Days, day: u32) -> String {
        if days.building.contains(&day) { BUILDING.to_owned() } else { self.boot_id.clone() }
    }

    fn days(&self) -> MutexGuard<'_, Days> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, day: u32) -> PathBuf {
        self.dir.join(format!("{day:08}.{GENERATION}"))
    }

    fn keys_path(&self, day: u32) -> PathBuf {
        self.dir.join(format!("{day:08}.{GENERATION}.keys"))
    }

    fn mark_path(&self, day: u32) -> PathBuf {
        self.dir.join(format!("{day:08}.{GENERATION}.mark"))
    }

    fn read_mark(&self, day: u32) -> Option<Mark> {
        let text = std::fs::read_to_string(self.mark_path(day)).ok()?;
        let (line, crc) = text.trim_end().rsplit_once(' ')?;
        if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(line.as_bytes()) {
            return None;
        }
        let (lsn, state) = line.split_once(' ')?;
        let open_in = state.strip_prefix("open ").map(str::to_owned);
        Some(Mark { lsn: lsn.parse().ok()?, open_in })
    }

    fn write_mark(&self, day: u32, mark: &Mark) -> Result<(), StoreError> {
        let state = match &mark.open_in {
            Some(boot) => format!("open {boot}"),
            None => "closed".to_owned(),
        };
        let line = format!("{} {state}", mark.lsn);
        let text = format!("{line} {:08x}\n", crc32c::crc32c(line.as_bytes()));
        let path = self.mark_path(day);
        self.disk
            .replace(&path, text.as_bytes())
            .map_err(|error| StoreError::io(format!("writing {}", path.display()), error))
    }
}

impl OpenDay {
    fn new(table: Arc<dyn Table>, last_use: u64) -> Self {
        Self { table, last_use, dirty: false, filter: None }
    }
}

impl std::fmt::Display for IndexError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for IndexError {}

/// How many rows with each prefix that is counted there are once `rows` have been inserted.
fn counts(table: &dyn Table, rows: &Rows) -> Result<Rows, IndexError> {
    let mut seen: HashSet<&[u8]> = HashSet::new();
    let mut new: BTreeMap<&[u8], u64> = BTreeMap::new();
    for (key, _) in rows {
        let Some(prefix) = keys::counted_prefix(key) else { continue };
        // What is applied once more, after a crash, has been counted.
        if seen.insert(key) && table.value(key)?.is_none() {
            let count = new.entry(prefix).or_default();
            *count = count.saturating_add(1);
        }
    }
    let mut counts = Rows::new();
    for (prefix, count) in new {
        let key = keys::count_key(prefix);
        let before = table.value(&key)?.map_or(0, |value| keys::count_of(&value));
        counts.push((key, before.saturating_add(count).to_be_bytes().to_vec()));
    }
    Ok(counts)
}

/// sled 0.34.7: quick, but it syncs nothing by itself and may panic on a damaged file.
struct Sled {
    db: sled::Db,
    path: PathBuf,
}

impl Table for Sled {
    fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, IndexError> {
        guarded(|| Ok(self.db.get(key)?.map(|value| value.to_vec())))
    }

    fn apply(&self, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Result<(), IndexError> {
        let mut batch = sled::Batch::default();
        for (key, value) in rows {
            batch.insert(key, value);
        }
        guarded(|| self.db.apply_batch(batch))
    }

    fn scan(&self, prefix: &[u8], after: Option<&[u8]>, max: usize) -> Result<Rows, IndexError> {
        let from = match after {
            Some(key) => std::ops::Bound::Excluded(key.to_vec()),
            None => std::ops::Bound::Included(prefix.to_vec()),
        };
        guarded(|| {
            let rows = self.db.range::<Vec<u8>, _>((from, std::ops::Bound::Unbounded));
            first_rows(rows, prefix, max)
        })
    }

    fn scan_back(
        &self,
        prefix: &[u8],
        before: Option<&[u8]>,
        max: usize,
    ) -> Result<Rows, IndexError> {
        guarded(|| match before {
            Some(key) => first_rows(self.db.range(prefix..key).rev(), prefix, max),
            None => first_rows(self.db.scan_prefix(prefix).rev(), prefix, max),
        })
    }

    fn checkpoint(&self, disk: &Disk) -> Result<(), IndexError> {
        guarded(|| self.db.flush().map(|_octets| ()))?;
        sync_files(disk, &self.path).map_err(|error| IndexError(error.to_string()))
    }
}

/// The rows up to the first whose key starts otherwise, `max` at most.
fn first_rows(
    rows: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
    prefix: &[u8],
    max: usize,
) -> sled::Result<Rows> {
    let mut first = Rows::new();
    for row in rows.take(max) {
        let (key, value) = row?;
        if !key.starts_with(prefix) {
            break;
        }
        first.push((key.to_vec(), value.to_vec()));
    }
    Ok(first)
}

/// Opens a database on a thread of its own: on a damaged one sled may panic while it opens.
fn open_sled(path: &Path) -> Result<Arc<dyn Table>, IndexError> {
    let failed = |error: StoreError| IndexError(error.to_string());
    for file in journal::list(path).map_err(failed)? {
        // sled takes what a kill left of a half-written snapshot for corruption, for ever.
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            remove_all(&file).map_err(failed)?;
        }
    }
    let config =
        sled::Config::new().path(path).cache_capacity(CACHE_BYTES_MAX).flush_every_ms(None);
    let opener = std::thread::Builder::new().name("store-index-open".to_owned());
    let opened = opener
        .spawn(move || guarded(|| config.open()))
        .map_err(|error| IndexError(format!("starting a thread: {error}")))?;
    let db = opened.join().map_err(|payload| IndexError(panic_text(payload.as_ref())))??;
    Ok(Arc::new(Sled { db, path: path.to_path_buf() }))
}

/// Runs a call of sled, whose panics are errors like any other.
fn guarded<T>(call: impl FnOnce() -> sled::Result<T>) -> Result<T, IndexError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| IndexError(error.to_string())),
        Err(payload) => Err(IndexError(panic_text(payload.as_ref()))),
    }
}

/// Drops a database, which may panic where its file is damaged.
fn drop_quietly<T>(value: T) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        tracing::warn!(error = panic_text(payload.as_ref()), "closing an index failed");
    }
}

fn panic_text(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned()
}

/// fsync of every file of a database and of its directory, which sled never does.
fn sync_files(disk: &Disk, dir: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file() {
            disk.sync_data(&File::open(&path)?)?;
        }
    }
    disk.sync_dir(dir)
}

/// Removes a file or a directory with all in it; it need not exist.
pub(super) fn remove_all(path: &Path) -> Result<(), StoreError> {
    let result =
        if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

/// The layout of the rows; directories of another one are removed and rebuilt.
pub(super) const GENERATION: &str = "4";
/// Stands in a mark instead of a boot id.
const BUILDING: &str = "building";
/// Memory that sled may use for one open day.
const CACHE_BYTES_MAX: u64 = 16 << 20;
/// Days that are open at once; only days with rows not yet on disk may exceed it.
const OPEN_DAYS_MAX: usize = 6;
