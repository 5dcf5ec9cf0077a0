//! Mails that wait for their time, and what people have done with mails that wait.

use super::*;
use crate::store::record::OrderAction;

const HOUR: u64 = 3600;

impl Bench {
    fn send_at(&self, hours: u64) -> impl FnOnce(&mut Submission) + use<> {
        let time = self.context.clock.now().plus(Duration::from_secs(hours * HOUR));
        move |submission| submission.control.send_at = Some(time)
    }

    async fn order(&self, queue_id: QueueId, action: OrderAction) {
        let ordered = self.context.store.order(queue_id, action).unwrap().unwrap();
        ordered.ticket.synced().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mail_is_relayed_at_its_time_or_when_it_is_to_be_tried_now() {
    let taken = taken("app@example.org", "a@example.net", "250 2.0.0 ok");
    let dialog = format!("{HELLO}{taken}{taken}{QUIT}");
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let waits = bench.submit(bench.send_at(20 * 24), &["a@example.net"]).await;
    let hurried = bench.submit(bench.send_at(20 * 24), &["a@example.net"]).await;
    bench.run_due().await;
    assert_eq!(bench.states(waits), [State::Queued]);
    bench.order(hurried, OrderAction::Retry).await;
    bench.run_due().await;
    assert_eq!(bench.states(hurried), [State::Relayed]);
    assert_eq!(bench.states(waits), [State::Queued]);
    bench.pass(20 * 24 * HOUR - 1).await;
    assert_eq!(bench.states(waits), [State::Queued]);
    bench.pass(1).await;
    assert_eq!(bench.states(waits), [State::Relayed]);
    bench.end().await;
    next_hop.bodies().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_age_of_a_mail_counts_from_its_time_and_its_attempts_are_limited() {
    let (_held, address) = refusing();
    let mut bench = Bench::new(None, |settings| settings.relay = relay_settings(address));
    let later = bench.send_at(20 * 24);
    let silent = |submission: &mut Submission| {
        later(submission);
        submission.control.attempts_max = Some(2);
        submission.dsn = false;
    };
    let queue_id = bench.submit(silent, &["a@example.net"]).await;
    bench.pass(20 * 24 * HOUR).await;
    assert_eq!(bench.states(queue_id), [State::Deferred], "it is not old, it is new");
    bench.pass(HOUR).await;
    assert_eq!(bench.states(queue_id), [State::Expired], "that was the second and last");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_held_waits_and_what_is_canceled_is_never_tried() {
    let taken = taken("app@example.org", "a@example.net", "250 2.0.0 ok");
    let next_hop = Scripted::start(&[&format!("{HELLO}{taken}{QUIT}")]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let held = bench.submit(|_| {}, &["a@example.net"]).await;
    let canceled = bench.submit(|_| {}, &["a@example.net"]).await;
    bench.order(held, OrderAction::Hold).await;
    bench.order(canceled, OrderAction::Cancel).await;
    bench.run_due().await;
    assert_eq!(bench.states(held), [State::Queued]);
    assert_eq!(bench.states(canceled), [State::Canceled]);
    assert!(!bench.is_in_queue(canceled));
    bench.order(held, OrderAction::Release).await;
    bench.run_due().await;
    assert_eq!(bench.states(held), [State::Relayed]);
    bench.end().await;
    next_hop.bodies().await;
}
