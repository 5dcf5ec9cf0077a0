//! What is ordered to be done with mails in the queue, and mails that wait for their time.

use super::basics::{LEAVINGS, left};
use super::*;
use crate::store::record::{Control, Idempotency, OrderAction};
use crate::store::state::{self, State};
use crate::store::{QueueOrder, QueueRange};

const NOBODY: &dyn Fn(QueueId) -> bool = &|_id| false;

async fn controlled(store: &Store, control: Control) -> QueueId {
    let queue_id = store.new_queue_id();
    let body = body(store, queue_id, b"Subject: a\r\n\r\nhello\r\n").await;
    let submission = Submission { control, ..submission(queue_id, &["a@b.test", "c@d.test"]) };
    store.accept(submission, body).unwrap().synced().await.unwrap();
    queue_id
}

async fn order(store: &Store, queue_id: QueueId, action: OrderAction) {
    store.order(queue_id, action).unwrap().unwrap().ticket.synced().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_ordered_holds_at_once_and_however_the_store_was_left() {
    for how in LEAVINGS {
        let dir = TempDir::new();
        let store = open(&dir);
        let later = START.plus(DAY * 20);
        let id = controlled(&store, Control { send_at: Some(later), ..Control::default() }).await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.next_due(NOBODY), Some(later), "{how:?}");
        assert_eq!(store.due_after(START.plus(DAY), 9, NOBODY), [], "{how:?}: no clock did that");
        order(&store, id, OrderAction::Hold).await;
        let store = left(&dir, store, how).await;
        assert!(store.live(id).unwrap().held, "{how:?}");
        assert_eq!(store.next_due(NOBODY), None, "{how:?}");
        assert!(!store.claim(id, &[0]).has(0), "{how:?}");
        order(&store, id, OrderAction::Release).await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.next_due(NOBODY), Some(later), "{how:?}");
        order(&store, id, OrderAction::Retry).await;
        let store = left(&dir, store, how).await;
        assert_eq!(store.due(START, 9, NOBODY), [id], "{how:?}");
        order(&store, id, OrderAction::Cancel).await;
        let store = left(&dir, store, how).await;
        assert!(store.live(id).is_none(), "{how:?}");
        assert_eq!(store.next_due(NOBODY), None, "{how:?}");
        assert!(store.order(id, OrderAction::Retry).unwrap().is_none(), "{how:?}");
        let record = store.message(id).unwrap().unwrap();
        let actions: Vec<OrderAction> = record.orders.iter().map(|order| order.action).collect();
        let all = [OrderAction::Hold, OrderAction::Release, OrderAction::Retry];
        assert_eq!(actions, [&all[..], &[OrderAction::Cancel]].concat(), "{how:?}");
        assert_eq!(state::of([], [], &record.orders), State::Canceled, "{how:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_cancels_is_told_what_is_under_way_and_sees_what_comes_of_it() {
    let dir = TempDir::new();
    let store = open(&dir);
    let id = controlled(&store, Control::default()).await;
    let claim = store.claim(id, &[0]);
    assert!(claim.has(0) && !claim.has(1));
    assert!(!store.claim(id, &[0]).has(0), "nobody is tried twice at a time");
    let canceled = store.order(id, OrderAction::Cancel).unwrap().unwrap();
    let told: Vec<bool> = canceled.before.recipients.iter().map(|one| one.under_way).collect();
    assert_eq!(told, [true, false]);
    canceled.ticket.synced().await.unwrap();
    assert!(!store.claim(id, &[1]).has(1), "what was canceled is not begun");
    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
    drop(claim);
    let record = store.message(id).unwrap().unwrap();
    let of = |index| {
        let attempts = record.attempts.iter().filter(|one| one.recipient == index);
        state::of(attempts, [], &record.orders)
    };
    assert_eq!([of(0), of(1)], [State::Relayed, State::Canceled]);
}

#[tokio::test]
async fn a_claim_ends_when_it_is_dropped() {
    let dir = TempDir::new();
    let store = open(&dir);
    let id = controlled(&store, Control::default()).await;
    let claim = store.claim(id, &[0, 1, 2]);
    assert!(claim.has(1) && !claim.has(2), "the third recipient is not there");
    drop(claim);
    assert!(store.claim(id, &[1]).has(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idempotency_key_leads_to_the_mail_of_its_account() {
    for how in LEAVINGS {
        let dir = TempDir::new();
        let store = open(&dir);
        let once = Idempotency { key: "k".to_owned(), fingerprint: "f".to_owned() };
        let control = Control { idempotency: Some(once), ..Control::default() };
        let id = controlled(&store, control.clone()).await;
        order(&store, id, OrderAction::Cancel).await;
        let store = left(&dir, store, how).await;
        let find = |account, key, since| store.by_idempotency_key(account, key, since).unwrap();
        let found = find("default", "k", START).unwrap();
        assert_eq!((found.queue_id, found.control), (id, control), "{how:?}");
        assert!(find("other", "k", START).is_none(), "{how:?}");
        assert!(find("default", "K", START).is_none(), "{how:?}");
        let after = START.plus(Duration::from_millis(1));
        assert!(find("default", "k", after).is_none(), "{how:?}: it is too old");
    }
}

#[tokio::test]
async fn the_queue_is_shown_in_pages_from_either_end() {
    let dir = TempDir::new();
    let store = open(&dir);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(controlled(&store, Control::default()).await);
    }
    ids.sort_unstable();
    ids.reverse();
    let oldest: Vec<QueueId> = ids.iter().rev().copied().collect();
    let (new, old) = (QueueOrder::Newest, QueueOrder::Oldest);
    for (account, order, behind, skip, total, want) in [
        (None, new, None, 0, 5, &ids[..2]),
        (Some("default"), new, None, 4, 5, &ids[4..]),
        (None, new, None, 5, 5, &[]),
        (Some("other"), new, None, 0, 0, &[]),
        (Some("default"), new, Some(ids[1]), 0, 5, &ids[2..4]),
        (None, new, Some(ids[4]), 0, 5, &[]),
        (None, old, None, 0, 5, &oldest[..2]),
        (Some("default"), old, Some(ids[2]), 1, 5, &oldest[4..]),
        (None, old, Some(ids[0]), 0, 5, &[]),
        (Some("other"), old, None, 0, 0, &[]),
    ] {
        let (found, page) = store.queue_page(QueueRange { account, order, behind }, skip, 2);
        let page: Vec<QueueId> = page.iter().map(|mail| mail.queue_id).collect();
        assert_eq!((found, page.as_slice()), (total, want), "{account:?} {behind:?} {skip}");
    }
    // The mail behind which a page begins may have gone.
    order(&store, ids[2], OrderAction::Cancel).await;
    let range = QueueRange { behind: Some(ids[2]), ..QueueRange::default() };
    let (found, page) = store.queue_page(range, 0, 9);
    assert_eq!((found, page[0].queue_id, page.len()), (4, ids[3], 2));
}
