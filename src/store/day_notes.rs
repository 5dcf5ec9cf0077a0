//! What was found out about the index of a day, which holds until the day is written to.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The notes of every day, so that most days need not be opened for what they said before.
#[derive(Debug, Default)]
pub(super) struct DayNotes(Mutex<HashMap<u32, Note>>);

#[derive(Debug, Default)]
struct Note {
    /// Counts the beginnings and the ends of writes to the day: while one is under way it is odd,
    /// and nothing is noted or known.
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

/// A write to a day that is under way.
#[must_use = "it ends when this is dropped"]
pub(super) struct Writing<'a> {
    notes: &'a DayNotes,
    day: u32,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.notes.count_write(self.day);
    }
}

impl DayNotes {
    /// Forgets what is known of a day that is written to from now on, until this is dropped. Of
    /// the writes to a day there is one at a time.
    pub(super) fn writing(&self, day: u32) -> Writing<'_> {
        self.count_write(day);
        Writing { notes: self, day }
    }

    fn count_write(&self, day: u32) {
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

    /// Notes what a look found, unless the day was, or is being, written to.
    fn note(&self, look: Look, change: impl FnOnce(&mut Note)) {
        let mut days = self.days();
        let is_still =
            |note: &&mut Note| note.writes == look.writes && note.writes.is_multiple_of(2);
        if let Some(note) = days.get_mut(&look.day).filter(is_still) {
            change(note);
        }
    }

    fn days(&self) -> MutexGuard<'_, HashMap<u32, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u32 = 20_221_012;

    #[test]
    fn what_was_seen_holds_until_a_write_begins_and_nothing_is_noted_before_it_ends() {
        let notes = DayNotes::default();
        let before = notes.look(DAY);
        notes.saw_count(before, b"o", 7);
        notes.saw_no_event(before, 9);
        assert_eq!(notes.count(DAY, b"o"), Some(7));
        assert!(notes.is_feed_over(DAY, 9) && !notes.is_feed_over(DAY, 8));
        let writing = notes.writing(DAY);
        assert_eq!(notes.count(DAY, b"o"), None);
        for look in [before, notes.look(DAY)] {
            notes.saw_count(look, b"o", 8);
            assert_eq!(notes.count(DAY, b"o"), None, "it may be half written");
        }
        let during = notes.look(DAY);
        drop(writing);
        notes.saw_count(during, b"o", 8);
        assert_eq!(notes.count(DAY, b"o"), None, "it was looked at too early");
        notes.saw_count(notes.look(DAY), b"o", 9);
        assert_eq!(notes.count(DAY, b"o"), Some(9));
        assert!(!notes.is_feed_over(DAY, 9));
    }
}
