//! The feed of what has happened, and the mails of an account.

use std::sync::Arc;

use super::*;
use crate::store::{Event, Happened};

async fn applied(store: &Store) {
    until("indexed", || store.stats().backlog_bytes == 0).await;
}

fn submission_of(queue_id: QueueId, account: &str) -> Submission {
    Submission { account: account.to_owned(), ..submission(queue_id, &["a@b.test"]) }
}

async fn accepted_for(store: &Store, account: &str, origin: Origin) -> QueueId {
    let queue_id = store.new_queue_id();
    let octets = body(store, queue_id, b"body").await;
    let submission = Submission { origin, ..submission_of(queue_id, account) };
    store.accept(submission, octets).unwrap().synced().await.unwrap();
    queue_id
}

/// The feed in pages of `size`, from its start.
fn paged(store: &Store, size: usize) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let mut after = 0;
    loop {
        let page = store.events_after(after, size).unwrap();
        assert!(page.events.len() <= size && page.end >= after);
        let is_last = page.is_last;
        events.extend(page.events);
        after = page.end;
        if is_last {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_feed_tells_of_everything_once_in_the_order_of_the_writes() {
    let dir = TempDir::new();
    let store = open(&dir);
    let id = accepted(&store, &["a@b.test"], b"body").await;
    let first = attempt(id, 0, 1, Decision::RetryAt(START.plus(DAY)));
    let second = attempt(id, 0, 2, Decision::Relayed);
    let late = bounce(Some(id), 1, START.plus(DAY * 3));
    // A clock that was set back: written later, and about an earlier day.
    let early = bounce(Some(id), 2, START.plus(DAY));
    // What is read anew has been told.
    let anew = Bounce { mta: Some("mx.b.test".to_owned()), ..late.clone() };
    let arrived = report(store.new_queue_id(), 1);
    committed(&store, attempts(vec![first.clone()])).await;
    committed(&store, attempts(vec![second.clone()])).await;
    committed(&store, Batch { bounces: vec![late.clone()], ..Batch::default() }).await;
    applied(&store).await;
    assert_eq!(paged(&store, 2).len(), 3);
    let batch = Batch { bounces: vec![early.clone()], revisions: vec![anew], ..Batch::default() };
    committed(&store, batch).await;
    store.accept_report(arrived.clone()).unwrap().synced().await.unwrap();
    let captured = mark(arrived.id, None);
    committed(&store, Batch { report: Some(captured.clone()), ..Batch::default() }).await;
    applied(&store).await;
    let want = [
        Happened::Attempt(Arc::new(first)),
        Happened::Attempt(Arc::new(second)),
        Happened::Bounce(Arc::new(late)),
        Happened::Bounce(Arc::new(early)),
        Happened::Report(Arc::new(captured)),
    ];
    let told = |store: &Store, size| {
        let events = paged(store, size);
        assert!(events.is_sorted_by(|one, next| one.place < next.place));
        events
    };
    let before = told(&store, 2);
    assert_eq!(before.iter().map(|event| event.what.clone()).collect::<Vec<_>>(), want);
    // Whatever became of the index, the places are the same.
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let store = open(&dir);
    for size in [1, 2, 3, 100] {
        assert_eq!(told(&store, size), before, "{size}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_feed_sees_what_comes() {
    let dir = TempDir::new();
    let store = open(&dir);
    let id = accepted(&store, &["a@b.test"], b"body").await;
    let mut feed = store.feed();
    for number in 1..=20 {
        committed(&store, attempts(vec![attempt(id, 0, number, Decision::RetryAt(START))])).await;
        let told = async {
            loop {
                feed.mark_unchanged();
                let events = paged(&store, 100);
                if events.len() >= usize::try_from(number).unwrap() {
                    return;
                }
                feed.changed().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), told).await.is_ok(), "{number}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mails_of_an_account_are_listed_newest_first_and_counted() {
    let dir = TempDir::new();
    let clock = Clock::manual(START);
    let mut store = Store::open_tuned(&dir.options(), clock.clone(), tuning()).unwrap();
    let (mut shop, mut all) = (Vec::new(), Vec::new());
    for day in 0..4 {
        for _ in 0..3 {
            clock.advance(Duration::from_secs(1));
            all.insert(0, accepted_for(&store, "shop", Origin::App).await);
            shop.insert(0, all[0]);
            all.insert(0, accepted_for(&store, "blog", Origin::App).await);
            accepted_for(&store, "shop", Origin::Notice).await;
        }
        for is_indexed in [false, true] {
            if is_indexed {
                applied(&store).await;
            }
            for (account, want) in [(Some("shop"), &shop), (None, &all), (Some("no"), &vec![])] {
                for size in [1, 4, 100] {
                    let mut listed: Vec<QueueId> = Vec::new();
                    loop {
                        let page = store.sent(account, listed.last().copied(), size).unwrap();
                        if page.is_empty() {
                            break;
                        }
                        listed.extend(page);
                    }
                    assert_eq!(listed, *want, "{account:?} {day} {size}");
                }
                let count = u64::try_from(want.len()).unwrap();
                assert_eq!(store.sent_count(account).unwrap(), count, "{account:?} {day}");
            }
        }
        clock.advance(DAY);
    }
    store.close().await;
    drop(store);
    store = Store::open_tuned(&dir.options(), clock, tuning()).unwrap();
    assert_eq!(store.sent_count(None).unwrap(), 24);
    assert_eq!(store.sent(Some("shop"), None, 100).unwrap(), shop);
}
