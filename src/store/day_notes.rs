//! What was found out about the index of a day, which holds until the day is written to.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The notes of every day, so that most days need not be opened for what they said before.
#[derive(Debug, Default)]
pub(super) struct DayNotes(Mutex<HashMap<u32, Note>>);

#[derive(Debug, Default)]
struct Note {
    /// Counts the writes to the day.
    writes: u64,
    /// Behind this place of the feed there was nothing.
    feed_end: Option<u64>,
    /// How many rows had a prefix.
    counts: HashMap<Vec<u8>, u64>,
}

/// A look at a day that is being taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    day: u32,
    writes: u64,
}

impl DayNotes {
    /// Notes that rows have been written to a day; to be called behind the write.
    pub(super) fn written(&self, day: u32) {
        let mut days = self.days();
        let writes = days.get(&day).map_or(0, |note| note.writes).wrapping_add(1);
        days.insert(day, Note { writes, ..Note::default() });
    }

    /// Forgets a day that is dropped.
    pub(super) fn forget(&self, day: u32) {
        self.days().remove(&day);
    }

    /// Begins a look.
    pub(super) fn look(&self, day: u32) -> Look {
        Look { day, writes: self.days().entry(day).or_default().writes }
    }

    /// Whether a day has no event behind `after`, as far as is known.
    pub(super) fn is_feed_over(&self, day: u32, after: u64) -> bool {
        let end = self.days().get(&day).and_then(|note| note.feed_end);
        end.is_some_and(|end| end <= after)
    }

    /// Notes that a look found no event behind `after`.
    pub(super) fn saw_no_event(&self, look: Look, after: u64) {
        self.note(look, |note| note.feed_end = Some(after));
    }

    /// How many rows of a day have a prefix, where it is known.
    pub(super) fn count(&self, day: u32, prefix: &[u8]) -> Option<u64> {
        self.days().get(&day)?.counts.get(prefix).copied()
    }

    /// Notes how many rows with a prefix a look found.
    pub(super) fn saw_count(&self, look: Look, prefix: &[u8], count: u64) {
        self.note(look, |note| {
            note.counts.insert(prefix.to_vec(), count);
        });
    }

    /// Notes what a look found, unless the day was written to meanwhile.
    fn note(&self, look: Look, change: impl FnOnce(&mut Note)) {
        let mut days = self.days();
        if let Some(note) = days.get_mut(&look.day).filter(|note| note.writes == look.writes) {
            change(note);
        }
    }

    fn days(&self) -> MutexGuard<'_, HashMap<u32, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
