//! Keeping the disk from filling: the reserve, and the days that are dropped.

use super::shared::Shared;
use super::{Stats, StoreError};

impl Shared {
    /// Whether `size_bytes` more leave the reserve untouched.
    pub(super) fn disk_has_room(&self, size_bytes: u64) -> Result<(), StoreError> {
        let free = self.disk.free_bytes(&self.paths.root);
        let free = free.map_err(|error| StoreError::io("asking for the free disk space", error))?;
        if free < DISK_RESERVE_BYTES.saturating_add(size_bytes) {
            return Err(StoreError::DiskFull);
        }
        Ok(())
    }

    /// Drops the days that have been kept long enough and hold nothing that is still in work.
    pub(super) fn prune(&self) -> Result<(), StoreError> {
        let mut cutoff = self.clock.now().minus(self.keep).day();
        if let Some(oldest) = self.core().live.oldest() {
            cutoff = cutoff.min(oldest.day());
        }
        // First, so that no body outlives the record of its mail.
        let bodies = self.prune_bodies(cutoff);
        let dropped = self.archive.prune(cutoff)?;
        if dropped > 0 {
            tracing::info!(days = dropped, before = cutoff, "dropped old records");
        }
        bodies
    }

    /// How the store is doing.
    pub(super) fn stats(&self) -> Stats {
        let disk_free_bytes = self.disk.free_bytes(&self.paths.root).unwrap_or_default();
        let core = self.core();
        Stats {
            queue_len: core.live.len(),
            oldest: core.live.oldest(),
            uncaptured_reports: core.live.uncaptured().count(),
            disk_free_bytes,
            segments: core.spool.len(),
            backlog_bytes: core.backlog_bytes,
            write_failures: core.write_failures,
            checkpoint_failures: core.checkpoint_failures,
            damaged_ranges: core.damaged_ranges,
            syncs: self.disk.syncs(),
            health: core.health,
        }
    }
}

/// Free disk that new mail must leave, so that what is accepted can be worked off.
const DISK_RESERVE_BYTES: u64 = 256 << 20;
