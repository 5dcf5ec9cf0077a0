//! Memory that many connections share, so that together they stay below a limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Octets that are held in memory at a time, over all connections; clones share the count.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    used_bytes: Arc<AtomicU64>,
}

/// A share of the memory, given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    memory: Memory,
    bytes: u64,
}

impl Memory {
    /// A share with nothing in it.
    pub fn share(&self) -> Share {
        Share { memory: self.clone(), bytes: 0 }
    }
}

impl Share {
    /// Takes `bytes` more; `false` when there is not so much left below `bytes_max`.
    pub fn grow(&mut self, bytes: u64, bytes_max: u64) -> bool {
        let add = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= bytes_max);
        let used = &self.memory.used_bytes;
        let is_taken = used.fetch_update(Ordering::AcqRel, Ordering::Acquire, add).is_ok();
        if is_taken {
            self.bytes = self.bytes.saturating_add(bytes);
        }
        is_taken
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.memory.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_and_given_back() {
        let memory = Memory::default();
        let (mut one, mut two) = (memory.share(), memory.share());
        assert!(one.grow(60, 100));
        assert!(!two.grow(50, 100));
        assert!(two.grow(40, 100));
        drop(one);
        assert!(two.grow(60, 100));
        assert!(!two.grow(u64::MAX, 100));
    }
}
