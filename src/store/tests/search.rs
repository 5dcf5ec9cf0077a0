//! Bounces in stretches: all of them, in order, each once, a bounded number of days at a time.

use super::super::Range;
use super::{DAY, START, TempDir, accepted, bounce, clock, committed, open, tuning, until};
use crate::clock::Clock;
use crate::mail::Timestamp;
use crate::store::record::{Batch, Bounce, BounceId};
use crate::store::{Store, Stretch};

/// Reads stretches to the end; what they hold, and how many there were.
fn all(store: &Store, address: Option<&str>, since: Timestamp, max: usize) -> (Vec<Bounce>, usize) {
    let (mut found, mut stretches, mut next) = (Vec::new(), 0, None::<BounceId>);
    loop {
        let range = Range { address, before: next.as_ref(), since };
        let Stretch { bounces, next: after } = store.bounces(range, max).unwrap();
        assert!(bounces.len() <= max);
        found.extend(bounces);
        stretches += 1;
        match after {
            Some(after) => {
                assert!(next.as_ref().is_none_or(|before| after < *before), "it does not go on");
                next = Some(after);
            }
            None => return (found, stretches),
        }
    }
}

/// One bounce in each of these days after the start.
async fn in_days(store: &Store, days: impl Iterator<Item = u32>) -> Vec<Bounce> {
    let mut bounces: Vec<Bounce> =
        days.map(|day| bounce(None, u8::try_from(day).unwrap(), START.plus(DAY * day))).collect();
    committed(store, Batch { bounces: bounces.clone(), ..Batch::default() }).await;
    bounces.reverse();
    bounces
}

#[tokio::test(flavor = "multi_thread")]
async fn stretches_of_any_length_hold_each_bounce_once_from_the_newest_on() {
    let dir = TempDir::new();
    let store = open(&dir);
    let mut want = in_days(&store, 0..40).await;
    for is_indexed in [false, true] {
        if is_indexed {
            until("indexed", || store.stats().backlog_bytes == 0).await;
        }
        for max in [1, 3, 1000] {
            for address in [None, Some("to@example.test")] {
                let (found, _) = all(&store, address, Timestamp::default(), max);
                assert_eq!(found, want, "{max} {address:?} {is_indexed}");
            }
        }
    }
    let (found, stretches) = all(&store, None, Timestamp::default(), 1000);
    assert_eq!(found, want);
    assert!(stretches > 3, "so many days are not asked at once");
    assert_eq!(all(&store, Some("other@example.test"), START, 10), (vec![], 1));

    want.truncate(5);
    let (found, stretches) = all(&store, None, START.plus(DAY * 35), 1000);
    assert_eq!((found, stretches), (want, 1));
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bounces_of_a_night_in_which_the_clock_was_set_back_are_in_their_place() {
    let dir = TempDir::new();
    let midnight = Timestamp::parse("2022-10-13").unwrap();
    let clock = clock();
    clock.advance(midnight.since(START));
    let store = Store::open_tuned(&dir.options(), clock, tuning()).unwrap();
    let id = accepted(&store, &["to@example.test"], b"x").await;
    store.close().await;
    drop(store);
    let hour = DAY / 24;
    let back = Clock::manual(midnight.minus(hour));
    let store = Store::open_tuned(&dir.options(), back, tuning()).unwrap();
    // It lies in the day of its mail, which is behind its own.
    let backdated = bounce(Some(id), 1, midnight.minus(hour / 2));
    let others = [2, 3, 4].map(|n| bounce(None, n, midnight.minus(hour / u32::from(n) / 3)));
    let later = bounce(None, 5, midnight.plus(hour));
    let mut want = vec![backdated];
    want.extend(others);
    want.push(later);
    committed(&store, Batch { bounces: want.clone(), ..Batch::default() }).await;
    until("indexed", || store.stats().backlog_bytes == 0).await;
    want.sort_by(|a, b| b.id.cmp(&a.id));
    for max in 1..=want.len() {
        assert_eq!(all(&store, None, Timestamp::default(), max).0, want, "{max}");
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_no_bounce_has_are_places_all_the_same() {
    let dir = TempDir::new();
    let store = open(&dir);
    let want = in_days(&store, 0..3).await;
    for (before, left) in [
        (BounceId("ffffffffffffffffffff".to_owned()), 3),
        (BounceId::first_of(START.plus(DAY * 2)), 2),
        (BounceId::first_of(Timestamp::default()), 0),
    ] {
        let found = store.recent_bounces(Some(&before), 10).unwrap();
        assert_eq!(found, want[3 - left..], "{before:?}");
    }
    for text in ["", "0", "x0000000000000000000", "0000000000000000000é"] {
        assert_eq!(BounceId::parse(text), None, "{text}");
    }
    let upper = BounceId::parse("0183CC1AB07C00000001");
    assert_eq!(upper, Some(BounceId("0183cc1ab07c00000001".to_owned())));
    store.close().await;
}
