//! How often something happened in the last minute.

use crate::mail::Timestamp;

/// Counts in slices of a second, so that no minute, whenever it begins, has more than the limit.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The second of the first slice, since 1970.
    second: u64,
    /// The newest first. A minute touches 61 of them.
    slices: [u32; SLICES],
}

impl Window {
    /// Counts one more, unless there were `most` in the last minute; 0 means no limit.
    ///
    /// Where the clock is set back, what was counted grows old from there on.
    pub fn count(&mut self, now: Timestamp, most: u32) -> bool {
        self.forget(now);
        let is_free = most == 0 || self.total() < most;
        let [newest, ..] = &mut self.slices;
        if is_free {
            *newest = newest.saturating_add(1);
        }
        is_free
    }

    /// How often it happened in the minute before `now`.
    pub fn count_at(&self, now: Timestamp) -> u32 {
        let mut then = *self;
        then.forget(now);
        then.total()
    }

    /// The seconds after the last count until there were fewer than `most` in a minute, if nothing
    /// is counted until then; from 1 on.
    pub fn wait_secs(&self, most: u32) -> u64 {
        let mut total = self.total();
        let oldest_first = (0_u64..).zip(self.slices.iter().rev());
        for (waited, slice) in oldest_first {
            total = total.saturating_sub(*slice);
            if total < most {
                return waited.saturating_add(1);
            }
        }
        u64::try_from(SLICES).unwrap_or(u64::MAX)
    }

    fn forget(&mut self, now: Timestamp) {
        let second = now.as_millis() / 1000;
        let passed = second.saturating_sub(self.second);
        let passed = usize::try_from(passed).unwrap_or(SLICES).min(SLICES);
        self.slices.rotate_right(passed);
        self.slices.iter_mut().take(passed).for_each(|slice| *slice = 0);
        self.second = second;
    }

    fn total(&self) -> u32 {
        self.slices.iter().fold(0_u32, |sum, slice| sum.saturating_add(*slice))
    }
}

impl Default for Window {
    fn default() -> Self {
        Self { second: 0, slices: [0; SLICES] }
    }
}

/// Slices of a second that a minute touches.
const SLICES: usize = 61;

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_665_576_640_000;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from_millis(START + millis)
    }

    #[test]
    fn no_minute_has_more_than_the_limit() {
        let mut window = Window::default();
        // Ten seconds of as much as there is, for five minutes.
        let mut taken: Vec<u64> = Vec::new();
        for millis in (0..300_000).step_by(70).filter(|millis| millis / 10_000 % 2 == 0) {
            if window.count(at(millis), 40) {
                taken.push(millis);
            }
        }
        for (first, begin) in taken.iter().enumerate() {
            let in_minute = taken[first..].iter().take_while(|end| *end - begin < 60_000);
            assert!(in_minute.count() <= 40, "the minute from {begin}");
        }
        assert!(taken.len() > 40 * 4, "{}", taken.len());
    }

    #[test]
    fn a_minute_forgets_and_a_clock_may_go_back() {
        let mut window = Window::default();
        for (millis, most, want) in [
            (0, 2, true),
            (20, 2, true),
            (40, 2, false),
            (40, 3, true),
            (40, 0, true),
            (59_000, 3, false),
            (61_000, 3, true),
            (62_000, 1, false),
        ] {
            assert_eq!(window.count(at(millis), most), want, "{millis} {most}");
        }
        let back = |millis: u64| Timestamp::from_millis(START - 3_600_000 + millis);
        assert!(!window.count(back(0), 1));
        assert!(window.count(back(61_000), 1));
        assert!(window.count(Timestamp::from_millis(u64::MAX), 1));
    }

    #[test]
    fn after_the_wait_there_is_room_and_not_a_second_before() {
        for (counted_at, asked_at, most, want) in [
            (&[0, 0, 0][..], 0, 3, 61),
            (&[0, 10_000, 20_000], 30_000, 3, 31),
            (&[0, 10_000, 20_000], 30_000, 2, 41),
            (&[0, 10_000, 20_000], 60_000, 3, 1),
            (&[], 0, 1, 1),
        ] {
            let mut window = Window::default();
            counted_at.iter().for_each(|millis| assert!(window.count(at(*millis), 0)));
            window.forget(at(asked_at));
            assert_eq!(window.wait_secs(most), want, "{counted_at:?} {asked_at} {most}");
            let mut later = window;
            assert!(later.count(at(asked_at + want * 1000), most));
            if want > 1 {
                let mut early = window;
                assert!(!early.count(at(asked_at + (want - 1) * 1000), most));
            }
        }
    }
}
