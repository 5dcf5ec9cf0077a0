//! What webhooks were told of a mail.

use std::sync::Arc;

use super::*;
use crate::store::entry::Entry;
use crate::store::{DeliveryEnd, DeliveryEnded};

fn ended(queue_id: QueueId, number: u32) -> DeliveryEnded {
    DeliveryEnded {
        queue_id,
        webhook: "app".to_owned(),
        event_id: format!("{:012x}{number:08x}", START.as_millis()),
        event: "messageDeliveryError".to_owned(),
        end: DeliveryEnd::Taken,
        ended_at: queue_id.time().plus(Duration::from_secs(u64::from(number))),
        attempts: 1,
        status: Some(200),
        took_millis: Some(12),
        error: String::new(),
    }
}

fn deliveries(deliveries: Vec<DeliveryEnded>) -> Batch {
    Batch { deliveries, ..Batch::default() }
}

fn found(store: &Store, queue_id: QueueId, max: usize) -> Vec<DeliveryEnded> {
    let found = store.deliveries(queue_id, max).unwrap();
    found.into_iter().map(Arc::unwrap_or_clone).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_webhooks_were_told_is_found_at_once_after_a_crash_and_without_the_index() {
    let dir = TempDir::new();
    let store = open(&dir);
    let (id, other) = (
        accepted(&store, &["a@b.test"], b"body").await,
        accepted(&store, &["a@b.test"], b"body").await,
    );
    let all: Vec<DeliveryEnded> = (0..5).map(|number| ended(id, number)).collect();
    committed(&store, deliveries(all[..3].to_vec())).await;
    committed(&store, deliveries(vec![ended(other, 9)])).await;
    // Not waited for: it is seen before it is on disk.
    let ticket = store.commit(deliveries(all[3..].to_vec())).unwrap();
    let holds = |store: &Store| {
        assert_eq!(found(store, id, 5), all);
        assert_eq!(found(store, id, 2), all[3..], "the newest");
        assert_eq!(found(store, other, 5), [ended(other, 9)]);
    };
    holds(&store);
    ticket.synced().await.unwrap();
    until("indexed", || store.stats().backlog_bytes == 0).await;
    holds(&store);
    // Nobody is told of what was told, and it is no news of the mail.
    assert_eq!(store.events_after(0, 10).unwrap().events, []);
    drop(store);
    let store = open(&dir);
    holds(&store);
    drop(store);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    holds(&open(&dir));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_webhooks_were_told_goes_with_the_day_of_the_mail() {
    let dir = TempDir::new();
    let clock = clock();
    let store = Store::open_tuned(&dir.options(), clock.clone(), tuning()).unwrap();
    let id = accepted(&store, &["a@b.test"], b"body").await;
    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
    let late = DeliveryEnded { ended_at: START.plus(DAY * 3), ..ended(id, 1) };
    committed(&store, deliveries(vec![late.clone()])).await;
    until("indexed", || store.stats().backlog_bytes == 0).await;
    clock.advance(DAY * 89);
    store.prune().unwrap();
    assert_eq!(found(&store, id, 5), [late]);
    clock.advance(DAY * 3);
    store.prune().unwrap();
    assert_eq!(found(&store, id, 5), []);
}

#[test]
fn a_delivery_costs_one_small_frame_and_one_row() {
    let queue_id = QueueId::new(START, 1);
    let entry = Entry::Delivery(Arc::new(ended(queue_id, 1)));
    let location = crate::store::layout::Location { day: START.day(), file: 1, offset: 64 };
    assert_eq!(entry.rows(7, 0, location).len(), 1);
    let size = entry.into_frame(None).unwrap().size();
    assert!(size <= 256, "{size} octets");
}
