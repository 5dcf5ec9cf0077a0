//! What is kept of addresses that bounce.

use super::*;
use crate::store::record::BounceKey;
use crate::store::suppressions::{ByHand, ByHandChange, Strike, SuppressionPolicy, Told};

const ACCOUNT: &str = "default";
const A: &str = "a@b.test";
const POLICY: SuppressionPolicy =
    SuppressionPolicy { hard_after: 1, soft_after: 3, expire: DAY.saturating_mul(90) };

fn key(unique: u8) -> BounceKey {
    [unique; 16]
}

fn strike(queue_id: QueueId, unique: u8, is_hard: bool, date: Timestamp) -> Strike {
    Strike {
        of: (queue_id, key(unique)),
        account: ACCOUNT.to_owned(),
        recipient: A.to_owned(),
        is_hard,
        date,
        forget_before: date.minus(POLICY.expire),
        told: Told {
            bounce: BounceId(format!("{unique:020x}")),
            category: Category::UserUnknown,
            message: "550 5.1.1 no".to_owned(),
        },
    }
}

/// Records a bounce and what it counts for.
async fn struck(store: &Store, queue_id: QueueId, unique: u8, is_hard: bool, date: Timestamp) {
    let bounce = bounce(Some(queue_id), unique, date);
    let strikes = vec![strike(queue_id, unique, is_hard, date)];
    committed(store, Batch { bounces: vec![bounce], strikes, ..Batch::default() }).await;
}

fn counts(store: &Store) -> Option<(u32, u32)> {
    store.suppression(ACCOUNT, A).map(|held| (held.entry.hard, held.entry.soft))
}

fn put(recipient: &str, until: Option<Timestamp>) -> ByHandChange {
    let by_hand = ByHand { reason: "asked".to_owned(), until };
    ByHandChange::Add { account: ACCOUNT.to_owned(), recipient: recipient.to_owned(), by_hand }
}

fn removed(recipient: &str) -> ByHandChange {
    ByHandChange::Remove { account: ACCOUNT.to_owned(), recipient: recipient.to_owned() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bounce_counts_once_and_a_crash_forgets_nothing() {
    let dir = TempDir::new();
    let mut store = open(&dir);
    let id = accepted(&store, &[A], b"x\r\n").await;
    struck(&store, id, 1, true, START).await;
    struck(&store, id, 1, true, START).await;
    assert_eq!(counts(&store), Some((1, 0)), "a known bounce counts for nothing");
    for _ in 0..2 {
        drop(store);
        store = open(&dir);
        assert_eq!(counts(&store), Some((1, 0)));
        assert!(store.suppressed(ACCOUNT, A, POLICY).is_some());
        assert!(store.suppressed("shop", A, POLICY).is_none(), "each account has its own");
    }
    store.change_suppressions(vec![removed(A)]).unwrap().synced().await.unwrap();
    assert_eq!(counts(&store), None);
    drop(store);
    assert_eq!(counts(&open(&dir)), None, "what was taken away stays away");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_outlive_the_segments_and_days_that_told_of_them() {
    let dir = TempDir::new();
    let clock = clock();
    let open = || Store::open_tuned(&dir.options(), clock.clone(), tuning()).unwrap();
    let store = open();
    let first = dir.path().join("spool/00000001.seg");
    assert!(first.exists());
    let id = accepted(&store, &[A], b"x\r\n").await;
    struck(&store, id, 1, true, START).await;
    store.change_suppressions(vec![put("b@b.test", None)]).unwrap().synced().await.unwrap();
    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Failed)])).await;
    clock.advance(DAY.saturating_mul(200));
    // Three segments of mails that end at once.
    for _ in 0..24 {
        let id = accepted(&store, &["c@d.test"], &[b'x'; 128 << 10]).await;
        committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Failed)])).await;
    }
    until("the first segment is given back", || !first.exists()).await;
    store.prune().unwrap();
    assert!(store.message(id).unwrap().is_err(), "the day is gone");
    drop(store);
    let store = open();
    assert_eq!(counts(&store), Some((1, 0)));
    assert!(store.suppression(ACCOUNT, "b@b.test").is_some());
    store.forget_suppressions(POLICY).unwrap();
    assert_eq!(counts(&store), None, "its time is over");
    assert!(store.suppression(ACCOUNT, "b@b.test").is_some(), "this one was given no time");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_holds_and_until_when() {
    let dir = TempDir::new();
    let store = open(&dir);
    let id = accepted(&store, &[A], b"x\r\n").await;
    let holds = |days: u32| {
        let entry = store.suppression(ACCOUNT, A).unwrap().entry;
        entry.holds(POLICY, START.plus(DAY.saturating_mul(days)))
    };
    for unique in 1..=3 {
        struck(&store, id, unique, false, START).await;
        assert_eq!(holds(1), unique == 3, "{unique}");
    }
    assert!(holds(89) && !holds(90));
    // After so long it is counted anew.
    struck(&store, id, 4, false, START.plus(DAY.saturating_mul(91))).await;
    assert_eq!(counts(&store), Some((0, 1)));
    let until = START.plus(DAY.saturating_mul(100));
    store.change_suppressions(vec![put(A, Some(until))]).unwrap().synced().await.unwrap();
    assert!(holds(99) && !holds(100));
    assert_eq!(counts(&store), Some((0, 1)), "what was told stays beside it");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_come_in_order_in_pages_and_of_one_account() {
    let dir = TempDir::new();
    let store = open(&dir);
    let names = ["a@x.test", "b@x.test", "c@x.test"];
    let changes = names.iter().rev().map(|name| put(name, None)).collect();
    store.change_suppressions(changes).unwrap().synced().await.unwrap();
    let page = |account, after, max| -> Vec<String> {
        let found = store.suppressions(account, after, max, &|_| true);
        found.into_iter().map(|held| held.entry.recipient.clone()).collect()
    };
    assert_eq!(page(None, None, 2), ["a@x.test", "b@x.test"]);
    assert_eq!(page(Some(ACCOUNT), Some((ACCOUNT, "b@x.test")), 2), ["c@x.test"]);
    assert!(page(Some("shop"), None, 2).is_empty());
    assert!(store.suppressed(ACCOUNT, "a@x.test", POLICY).is_some());
    assert_eq!(store.suppression(ACCOUNT, "a@x.test").unwrap().hits, 1);
}
