//! What the store asks of the disk, in one place: so that it is counted, and can be made to fail.

use std::fs::{DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Makes a directory, where it is missing, that none but its owner may look into: mail lies there.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The disk under a data directory; clones share their counters.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    syncs: AtomicU64,
    faults: Mutex<Faults>,
}

/// What is made to fail, as error numbers of the system; nothing outside tests.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    /// Writes and preallocations fail with this.
    pub(super) write: Option<i32>,
    /// fdatasync fails with this.
    pub(super) sync: Option<i32>,
    /// The free space that is reported.
    pub(super) free_bytes: Option<u64>,
}

impl Disk {
    /// Makes the following calls fail, or work again.
    #[cfg(test)]
    pub(super) fn inject(&self, faults: Faults) {
        *self.0.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    /// How often data was synced.
    pub(super) fn syncs(&self) -> u64 {
        self.0.syncs.load(Ordering::Relaxed)
    }

    /// Writes all of `octets` at `offset`.
    pub(super) fn write_at(&self, file: &File, octets: &[u8], offset: u64) -> io::Result<()> {
        self.fail_if(|faults| faults.write)?;
        file.write_all_at(octets, offset)
    }

    /// fdatasync.
    pub(super) fn sync_data(&self, file: &File) -> io::Result<()> {
        self.fail_if(|faults| faults.sync)?;
        self.0.syncs.fetch_add(1, Ordering::Relaxed);
        file.sync_data()
    }

    /// Makes the names in a directory last.
    pub(super) fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.fail_if(|faults| faults.sync)?;
        File::open(dir)?.sync_all()
    }

    /// Takes `len` octets of disk for a file; where the file system cannot, it is only made long.
    pub(super) fn preallocate(&self, file: &File, len: u64) -> io::Result<()> {
        self.fail_if(|faults| faults.write)?;
        let mode = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(file, mode, 0, len) {
            Ok(()) => Ok(()),
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(len),
            Err(error) => Err(error.into()),
        }
    }

    /// Octets that an ordinary user may still write.
    pub(super) fn free_bytes(&self, dir: &Path) -> io::Result<u64> {
        let faults = *self.0.faults.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(free) = faults.free_bytes {
            return Ok(free);
        }
        let space = rustix::fs::statvfs(dir)?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    /// Replaces a file so that after a crash it is the old one or the new one, never half of it.
    pub(super) fn replace(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        self.fail_if(|faults| faults.write)?;
        let next = path.with_extension("tmp");
        let mut file = File::create(&next)?;
        file.write_all(octets)?;
        self.sync_data(&file)?;
        std::fs::rename(&next, path)?;
        path.parent().map_or(Ok(()), |dir| self.sync_dir(dir))
    }

    fn fail_if(&self, pick: impl Fn(&Faults) -> Option<i32>) -> io::Result<()> {
        let faults = *self.0.faults.lock().unwrap_or_else(PoisonError::into_inner);
        pick(&faults).map_or(Ok(()), |number| Err(io::Error::from_raw_os_error(number)))
    }
}
