//! The queue with a real store, a scripted next hop and a clock that stands still.

mod dsn;
mod orders;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::Context;
use super::runner::Runner;
use crate::bounce::{Action, Rules, Subject, Verdict};
use crate::capture::{self, Capture, RuleSets};
use crate::clock::Clock;
use crate::config::{self, Settings};
use crate::mail::envelope::BodyKind;
use crate::mail::{
    Address, Envelope, MailDsn, MessageId, QueueId, Recipient, Reply, ReturnPathFormat,
    ReversePath, Stage, Timestamp,
};
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::relay::testing::{Scripted, refusing, settings as relay_settings};
use crate::secret::{self, KeyRing};
use crate::store::record::{
    Attempt, Batch, Bounce, BounceId, CapturedBy, Confidence, Decision, Match, MatchMethod, Origin,
    ReportCaptured, ReportId, ReportReceived, Response, ReturnPathMode, Submission,
};
use crate::store::state::{self, State};
use crate::store::{Options, Store};

const HEADER: &[u8] = b"Subject: x\r\nMessage-ID: <a@example.org>\r\n";
const MAIL: &[u8] = b"Subject: x\r\nMessage-ID: <a@example.org>\r\n\r\nbody\r\n";
const ON_WIRE: &str = "Subject: x\r\nMessage-ID: <a@example.org>\r\n\r\nbody\r\n.\r\n";

/// A queue that is driven by hand.
struct Bench {
    context: Context,
    runner: Runner,
    dir: PathBuf,
}

impl Bench {
    /// A queue whose smarthost is `next_hop`; without one there is none.
    fn new(next_hop: Option<&Scripted>, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = std::env::temp_dir().join(format!("rebound-queue-{:016x}", secret::random_u64()));
        let mut settings = config::defaults();
        settings.hostname = "relay.example.com".to_owned();
        if let Some(next_hop) = next_hop {
            settings.relay = relay_settings(next_hop.address);
        }
        change(&mut settings);
        let clock = Clock::manual(Timestamp::from_millis(1_700_000_000_000));
        Self::open(dir, Arc::new(settings), clock)
    }

    /// A queue over what lies in `dir`.
    fn open(dir: PathBuf, settings: Arc<Settings>, clock: Clock) -> Self {
        let keep = Duration::from_secs(90 * 86_400);
        let store =
            Store::open(&Options { dir: dir.clone(), keep, bodies: Duration::ZERO }, clock.clone())
                .unwrap();
        let keys = Arc::new(KeyRing::from_secret([7; 32]));
        let metrics = Metrics::new();
        let capture = Capture::new(
            store.clone(),
            RuleSets::compiled_in(),
            Arc::clone(&keys),
            clock.clone(),
            metrics.clone(),
            capture::Options::default(),
        );
        let relay = Relay::new(&settings.relay, &settings.hostname).unwrap();
        let context = Context { settings, clock, store, capture, keys, relay, metrics };
        Self { runner: Runner::new(context.clone()), context, dir }
    }

    async fn submit(&self, change: impl FnOnce(&mut Submission), to: &[&str]) -> QueueId {
        let store = &self.context.store;
        let queue_id = store.new_queue_id();
        let recipients = to.iter().map(|text| Recipient::from(Address::parse(text).unwrap()));
        let mut submission = Submission {
            queue_id,
            message_id: MessageId::parse("<a@example.org>").unwrap(),
            account: "shop".to_owned(),
            received_at: self.context.clock.now(),
            envelope: Envelope {
                reverse_path: ReversePath::Address(Address::parse("app@example.org").unwrap()),
                recipients: recipients.collect(),
                body: BodyKind::SevenBit,
                smtputf8: false,
                dsn: MailDsn::default(),
            },
            header: HEADER.to_vec(),
            size_bytes: u64::try_from(MAIL.len()).unwrap(),
            long_lines: false,
            origin: Origin::App,
            meta: std::collections::BTreeMap::new(),
            client: None,
            return_path: ReturnPathMode::Preserve,
            dsn: true,
            source: Default::default(),
            control: Default::default(),
        };
        change(&mut submission);
        let mut body = store.body_writer(queue_id);
        body.write(MAIL).await.unwrap();
        let body = body.finish().await.unwrap();
        store.accept(submission, body).unwrap().synced().await.unwrap();
        queue_id
    }

    /// Tries everything that is due now, once.
    async fn run_due(&mut self) {
        self.runner.start_due();
        self.runner.finish_jobs().await;
    }

    async fn pass(&mut self, secs: u64) {
        self.context.clock.advance(Duration::from_secs(secs));
        self.run_due().await;
    }

    fn states(&self, queue_id: QueueId) -> Vec<State> {
        let record = self.context.store.message(queue_id).unwrap().unwrap();
        let recipients = 0..u32::try_from(record.submission.envelope.recipients.len()).unwrap();
        let of = |index| {
            let attempts = record.attempts.iter().filter(|attempt| attempt.recipient == index);
            let bounces = record.bounces.iter();
            let bounces = bounces.filter(|bounce| bounce.recipient_index == Some(index));
            state::of(attempts, bounces, &record.orders)
        };
        recipients.map(of).collect()
    }

    fn is_in_queue(&self, queue_id: QueueId) -> bool {
        self.context.store.live(queue_id).is_some()
    }

    async fn end(self) {
        self.context.relay.close().await;
        self.context.store.close().await;
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

const HELLO: &str = "S: 220 mx\nC: EHLO *\nS: 250 mx\n";
const QUIT: &str = "C: QUIT\nS: 221 bye";

/// One transaction for one recipient that is answered in the end with `reply`.
fn taken(from: &str, to: &str, reply: &str) -> String {
    format!(
        "C: MAIL FROM:<{from}>\nS: 250 ok\nC: RCPT TO:<{to}>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\n\
         S: {reply}\n"
    )
}

fn refused(from: &str, to: &str, reply: &str) -> String {
    format!("C: MAIL FROM:<{from}>\nS: 250 ok\nC: RCPT TO:<{to}>\nS: {reply}\nC: RSET\nS: 250 ok\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ascii_mail_to_a_u_label_needs_no_smtputf8_and_its_bounce_is_found_in_both_forms() {
    let dialog = format!(
        "{HELLO}{}{QUIT}",
        refused("app@example.org", "a@xn--mller-kva.example", "550 5.1.1 no such user")
    );
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let to = |submission: &mut Submission| {
        submission.envelope.smtputf8 = true;
        submission.dsn = false;
    };
    let queue_id = bench.submit(to, &["a@müller.example"]).await;
    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Failed]);
    for address in ["a@müller.example", "A@XN--MLLER-KVA.example", "a@MÜLLER.EXAMPLE"] {
        let found = bench.context.store.by_recipient(address, None, 10).unwrap();
        assert_eq!(found.len(), 1, "{address}");
        assert_eq!(found[0].recipient, "a@müller.example");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_recipients_end_in_three_states_and_the_app_is_told_once() {
    let dialog = format!(
        "{HELLO}C: MAIL FROM:<app@example.org>\nS: 250 ok\n\
         C: RCPT TO:<good@example.net>\nS: 250 ok\n\
         C: RCPT TO:<bad@example.net>\nS: 550 5.1.1 no such user\n\
         C: RCPT TO:<late@example.net>\nS: 450 4.2.0 greylisted\n\
         C: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 Ok: queued as 77AB\n{}{}{QUIT}",
        taken("", "app@example.org", "250 ok"),
        taken("app@example.org", "late@example.net", "250 2.0.0 Ok"),
    );
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let to = ["good@example.net", "bad@example.net", "late@example.net"];
    let queue_id = bench.submit(|_| {}, &to).await;
    assert_eq!(bench.states(queue_id), [State::Queued; 3]);

    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Relayed, State::Failed, State::Deferred]);
    let store = bench.context.store.clone();
    assert!(!store.live(queue_id).unwrap().recipients[1].notice_owed);
    assert_eq!(store.queue_len(), 2, "the mail, and the DSN about bad@");

    // The DSN is due at once; the mail not before its two minutes are over.
    bench.run_due().await;
    assert_eq!(store.queue_len(), 1);
    bench.pass(119).await;
    assert_eq!(bench.states(queue_id), [State::Relayed, State::Failed, State::Deferred]);
    bench.pass(14).await;
    assert_eq!(bench.states(queue_id), [State::Relayed, State::Failed, State::Relayed]);
    assert_eq!(store.queue_len(), 0);

    let record = store.message(queue_id).unwrap().unwrap();
    let tried: Vec<(u32, u32)> = record.attempts.iter().map(|a| (a.recipient, a.number)).collect();
    assert_eq!(tried, [(0, 1), (1, 1), (2, 1), (2, 2)]);
    assert_eq!(record.attempts[0].remote_queue_id.as_deref(), Some("77AB"));
    assert_eq!(record.bounces.len(), 1);
    assert_eq!(record.bounces[0].recipient, "bad@example.net");
    bench.end().await;
    let bodies = next_hop.bodies().await;
    assert_eq!(bodies.len(), 3);
    assert_eq!([&bodies[0], &bodies[2]], [ON_WIRE, ON_WIRE]);
    let dsn = &bodies[1];
    assert!(dsn.contains("Final-Recipient: rfc822; bad@example.net\r\n"), "{dsn}");
    assert!(!dsn.contains("late@example.net") && !dsn.contains("good@example.net"), "{dsn}");
    assert!(dsn.contains("X-Rebound-Notice: "), "{dsn}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tokens_each_recipient_has_a_transaction_and_a_return_path_of_its_own() {
    let dialog = format!(
        "{HELLO}{}{}{}{QUIT}",
        taken("b+*", "a@example.net", "250 ok").replace("b+*>", "b+*"),
        refused("b+*", "b@example.net", "550 5.1.1 no").replace("b+*>", "b+*"),
        taken("", "app@example.org", "250 ok"),
    );
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |settings| {
        settings.return_path.domain = "bounces.example.com".to_owned();
        settings.queue.attempts_max_concurrent = 1;
    });
    let verp = |submission: &mut Submission| submission.return_path = ReturnPathMode::Verp;
    let queue_id = bench.submit(verp, &["a@example.net", "b@example.net"]).await;
    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Relayed, State::Failed]);
    bench.run_due().await;
    assert_eq!(bench.context.store.queue_len(), 0);
    bench.end().await;
    next_hop.bodies().await;
}

#[test]
fn tokens_name_the_recipient_and_a_null_reverse_path_is_never_rewritten() {
    let keys = KeyRing::from_secret([7; 32]);
    let mut settings = config::defaults();
    settings.return_path.domain = "bounces.example.com".to_owned();
    let format = ReturnPathFormat { prefix: "b", delimiter: '+', domain: "bounces.example.com" };
    let queue_id = QueueId::new(Timestamp::from_millis(1_700_000_000_000), 1);
    let due = || {
        let texts = ["a@example.net", "b@example.net", "c@example.net"];
        let recipients = texts.map(|text| Recipient::from(Address::parse(text).unwrap()));
        (3_u32..).zip(recipients).collect::<Vec<_>>()
    };
    let mut mail = live(queue_id, ReversePath::Address(Address::parse("app@x.org").unwrap()));
    for mode in [ReturnPathMode::Verp, ReturnPathMode::Plus] {
        mail.return_path = mode;
        let deliveries = super::attempt::deliveries(&settings, &keys, &mail, due());
        assert_eq!(deliveries.len(), 3);
        for delivery in &deliveries {
            let found = format.read(delivery.reverse_path.address().unwrap()).unwrap();
            assert!(keys.verify(&found.token));
            assert_eq!(found.token.queue_id, queue_id);
            assert_eq!(u32::from(found.token.recipient), delivery.recipients[0].0);
            assert_eq!(delivery.recipients.len(), 1);
            assert_eq!(delivery.dsn.envelope_id, Some(queue_id.into()));
        }
        let null = crate::store::LiveMessage { reverse_path: ReversePath::NULL, ..mail.clone() };
        let deliveries = super::attempt::deliveries(&settings, &keys, &null, due());
        assert_eq!(deliveries.len(), 1);
        assert!(deliveries[0].reverse_path.is_null());
        assert_eq!(deliveries[0].recipients.len(), 3);
    }
    mail.return_path = ReturnPathMode::Preserve;
    settings.relay.recipients_per_transaction_max = 2;
    let deliveries = super::attempt::deliveries(&settings, &keys, &mail, due());
    let sizes: Vec<usize> = deliveries.iter().map(|d| d.recipients.len()).collect();
    assert_eq!(sizes, [2, 1]);
    assert_eq!(deliveries[1].reverse_path, mail.reverse_path);
}

fn live(queue_id: QueueId, reverse_path: ReversePath) -> crate::store::LiveMessage {
    crate::store::LiveMessage {
        queue_id,
        message_id: MessageId::parse("<a@example.org>").unwrap(),
        account: "shop".to_owned(),
        origin: Origin::App,
        received_at: queue_id.time(),
        reverse_path,
        return_path: ReturnPathMode::Preserve,
        dsn: true,
        size_bytes: 1,
        long_lines: false,
        body: BodyKind::SevenBit,
        smtputf8: false,
        dsn_asked: MailDsn::default(),
        send_at: None,
        attempts_max: None,
        held: false,
        delay_notices: 0,
        recipients: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_smarthost_that_is_down_costs_an_attempt_and_no_mail() {
    let (_held, address) = refusing();
    let mut bench = Bench::new(None, |settings| settings.relay = relay_settings(address));
    let queue_id = bench.submit(|_| {}, &["a@example.net"]).await;
    bench.run_due().await;
    bench.run_due().await;
    bench.pass(60).await;
    assert_eq!(bench.states(queue_id), [State::Deferred]);
    let record = bench.context.store.message(queue_id).unwrap().unwrap();
    assert_eq!(record.attempts.len(), 1, "the back-off holds");
    assert!(record.attempts[0].error.as_deref().unwrap().contains("Connection refused"));
    assert!(matches!(record.attempts[0].decision, Decision::RetryAt(_)));

    // It stays down until the lifetime is over; then the app is told, by a mail that waits, too.
    bench.pass(5 * 86_400).await;
    assert_eq!(bench.states(queue_id), [State::Expired]);
    assert!(!bench.is_in_queue(queue_id));
    assert_eq!(bench.context.store.queue_len(), 1);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_that_ran_ahead_has_put_off_is_tried_once_the_clock_is_right() {
    let dialog = format!("{HELLO}{}{QUIT}", taken("app@example.org", "a@example.net", "250 ok"));
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let queue_id = bench.submit(|_| {}, &["a@example.net"]).await;
    let next_year = bench.context.clock.now().plus(Duration::from_secs(365 * 86_400));
    let put_off = attempt(queue_id, next_year, Decision::RetryAt(next_year));
    let batch = Batch { attempts: vec![put_off], ..Batch::default() };
    bench.context.store.commit(batch).unwrap().synced().await.unwrap();
    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Relayed]);
    bench.end().await;
    next_hop.bodies().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_notice_is_written_where_none_may_be() {
    let changes: [fn(&mut Submission); 3] = [
        |submission| submission.envelope.reverse_path = ReversePath::NULL,
        |submission| submission.dsn = false,
        |submission| submission.origin = Origin::Notice,
    ];
    let from = ["", "app@example.org", "app@example.org"];
    for (change, from) in changes.into_iter().zip(from) {
        let dialog = format!("{HELLO}{}{QUIT}", refused(from, "a@example.net", "550 5.1.1 no"))
            .replace("C: RSET\nS: 250 ok\n", "");
        let next_hop = Scripted::start(&[&dialog]).await;
        let mut bench = Bench::new(Some(&next_hop), |_| {});
        let queue_id = bench.submit(change, &["a@example.net"]).await;
        bench.run_due().await;
        assert_eq!(bench.states(queue_id), [State::Failed]);
        assert_eq!(bench.context.store.queue_len(), 0);
        bench.end().await;
        next_hop.bodies().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_mail_is_told_of_once_for_each_age() {
    let (_held, address) = refusing();
    let mut bench = Bench::new(None, |settings| settings.relay = relay_settings(address));
    let queue_id = bench.submit(|_| {}, &["a@example.net"]).await;
    let notices = |bench: &Bench| bench.context.store.live(queue_id).unwrap().delay_notices;
    bench.run_due().await;
    assert_eq!(notices(&bench), 0);
    bench.pass(4 * 3600).await;
    assert_eq!(notices(&bench), 1);
    assert_eq!(bench.context.store.queue_len(), 2);
    bench.pass(4 * 3600).await;
    assert_eq!(notices(&bench), 1);
    assert_eq!(bench.context.store.queue_len(), 2, "a notice is never told of");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_smarthost_mail_is_held_and_expires_with_its_lifetime_only() {
    let mut bench = Bench::new(None, |_| {});
    let queue_id = bench.submit(|submission| submission.dsn = false, &["a@example.net"]).await;
    bench.run_due().await;
    bench.context.clock.advance(Duration::from_secs(5 * 86_400 - 1));
    let mut bench = bench.restarted();
    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Queued]);
    bench.context.clock.advance(Duration::from_secs(1));
    let mut bench = bench.restarted();
    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Expired]);
    assert_eq!(bench.context.store.queue_len(), 0);
    bench.end().await;
}

impl Bench {
    /// The same with a loop that has looked at nothing yet.
    fn restarted(self) -> Self {
        Self { runner: Runner::new(self.context.clone()), ..self }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_notice_that_a_crash_left_owed_is_written_once() {
    let mut bench = Bench::new(None, |_| {});
    let queue_id = bench.submit(|_| {}, &["a@example.net"]).await;
    let store = bench.context.store.clone();
    let now = bench.context.clock.now();
    let failed = Attempt { notice_owed: true, ..attempt(queue_id, now, Decision::Failed) };
    let mail = store.live(queue_id).unwrap();
    let ticket = bench.context.capture.outcomes(&mail, vec![failed]).unwrap();
    ticket.synced().await.unwrap();
    assert!(bench.is_in_queue(queue_id), "the mail stays while it is owed");

    bench.run_due().await;
    assert!(!bench.is_in_queue(queue_id));
    assert_eq!(store.queue_len(), 1, "the DSN");
    let mut bench = bench.restarted();
    bench.run_due().await;
    assert_eq!(store.queue_len(), 1);
    assert_eq!(bench.states(queue_id), [State::Failed]);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recipient_whose_failure_was_reported_meanwhile_is_not_tried() {
    let dialog = format!("{HELLO}{}{QUIT}", taken("app@example.org", "b@example.net", "250 ok"));
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let queue_id = bench.submit(|_| {}, &["a@example.net", "b@example.net"]).await;
    let id = bench.context.store.new_queue_id();
    let rules = Rules::compiled_in();
    let reported = Bounce {
        id: BounceId(format!("{:012x}00000001", 1)),
        key: [1; 16],
        date: bench.context.clock.now(),
        captured_by: CapturedBy::Listener,
        action: Action::Failed,
        recipient: "a@example.net".to_owned(),
        queue_id: Some(queue_id),
        recipient_index: Some(0),
        matched: Some(Match::new(MatchMethod::Token, Confidence::Certain)),
        report_id: Some(ReportId(id)),
        response: Response {
            source: "smtp".to_owned(),
            message: "550 5.1.1 no".to_owned(),
            status: None,
            code: Some(550),
            command: None,
            classification: rules.classify(&Subject::default()),
        },
        mta: None,
        remote_queue_id: None,
        original_message_id: None,
        envelope_id: None,
        final_recipient: None,
        original_recipient: None,
    };
    let batch = Batch { bounces: vec![reported], ..Batch::default() };
    bench.context.store.commit(batch).unwrap().synced().await.unwrap();
    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Bounced, State::Relayed]);
    assert!(!bench.is_in_queue(queue_id));
    bench.end().await;
    next_hop.bodies().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_is_forwarded_once_as_mail_of_ours() {
    let dialog = format!("{HELLO}{}{QUIT}", taken("", "app@example.org", "250 ok"));
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let store = bench.context.store.clone();
    let now = bench.context.clock.now();
    // The second cannot go anywhere: its debt ends without a mail.
    for owed in [report(now, 1, "app@example.org"), report(now, 2, "nowhere")] {
        captured(&store, owed).await;
    }
    assert_eq!(store.owed_forwards(10).len(), 2);
    super::debts::forward_reports(&bench.context).await;
    super::debts::forward_reports(&bench.context).await;
    assert!(store.owed_forwards(10).is_empty());
    assert_eq!(store.queue_len(), 1);
    bench.run_due().await;
    assert_eq!(store.queue_len(), 0);
    bench.end().await;
    let bodies = next_hop.bodies().await;
    assert!(bodies[0].contains("Subject: failed\r\n"), "{}", bodies[0]);
    assert!(bodies[0].contains("X-Rebound-Notice: "), "{}", bodies[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_read_keeps_none_of_the_others() {
    let bench = Bench::new(None, |_| {});
    let store = bench.context.store.clone();
    let first_day = bench.context.clock.now();
    captured(&store, report(first_day, 1, "app@example.org")).await;
    until(|| store.stats().backlog_bytes == 0).await;
    let days = std::fs::read_dir(bench.dir.join("log")).unwrap();
    for day in days.map(|day| day.unwrap().path()) {
        std::fs::rename(&day, day.with_extension("away")).unwrap();
    }
    bench.context.clock.advance(Duration::from_secs(86_400));
    captured(&store, report(bench.context.clock.now(), 2, "app@example.org")).await;
    super::debts::forward_reports(&bench.context).await;
    let owed: Vec<ReportId> = store.owed_forwards(10).iter().map(|mark| mark.id).collect();
    assert_eq!(owed, [ReportId(QueueId::new(first_day, 1))]);
    assert_eq!(store.queue_len(), 1, "the second went on");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_relays_what_comes_in_and_drains_when_it_is_told_to_stop() {
    // The second mail gets no answer to MAIL; the drain time is over before the time limit.
    let dialog =
        format!("{HELLO}{}C: MAIL *\nEOF", taken("app@example.org", "a@example.net", "250 ok"));
    let next_hop = Scripted::start(&[&dialog]).await;
    let bench = Bench::new(Some(&next_hop), |settings| settings.queue.drain_timeout_secs = 1);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let stopped = async { stopped.await.unwrap_or_default() };
    let queue = tokio::spawn(super::run(bench.context.clone(), stopped));
    let first = bench.submit(|_| {}, &["a@example.net"]).await;
    until(|| bench.states(first) == [State::Relayed]).await;
    let second = bench.submit(|_| {}, &["b@example.net"]).await;
    // Its connection is in use as soon as MAIL has been sent, which nothing here can see; the
    // drain must do the right thing at whatever point it finds the attempt.
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(20), queue).await.unwrap().unwrap();
    assert_eq!(bench.states(second), [State::Queued]);
    assert!(bench.is_in_queue(second));
    bench.end().await;
}

/// A report that is to be forwarded.
fn report(now: Timestamp, unique: u32, forward_to: &str) -> (ReportReceived, ReportCaptured) {
    let id = ReportId(QueueId::new(now, unique));
    let received = ReportReceived {
        id,
        received_at: now,
        captured_by: CapturedBy::Listener,
        reverse_path: String::new(),
        recipients: vec!["b@bounces.example.com".to_owned()],
        tokens: Vec::new(),
        digest: [u8::try_from(unique).unwrap(); 16],
        raw: b"Subject: failed\r\n\r\nIt failed.\r\n".to_vec(),
    };
    let captured = ReportCaptured {
        id,
        captured_at: now,
        verdict: Verdict::Bounce,
        matched: Vec::new(),
        own_notice: false,
        forward_to: Some(forward_to.to_owned()),
        reread: false,
        bounced_accounts: Default::default(),
    };
    (received, captured)
}

/// Takes a report in, captured.
async fn captured(store: &Store, (received, mark): (ReportReceived, ReportCaptured)) {
    store.accept_report(received).unwrap().synced().await.unwrap();
    let batch = Batch { report: Some(mark), ..Batch::default() };
    store.commit(batch).unwrap().synced().await.unwrap();
}

/// A first attempt that ended at RCPT.
fn attempt(queue_id: QueueId, now: Timestamp, decision: Decision) -> Attempt {
    Attempt {
        queue_id,
        recipient: 0,
        number: 1,
        started_at: now,
        ended_at: now,
        stage: Stage::Rcpt,
        remote_mta: None,
        reply: Reply::parse("550 5.1.1 no such user"),
        error: None,
        remote_queue_id: None,
        alias: None,
        tls: None,
        decision,
        notice_owed: false,
    }
}

async fn until(is_so: impl Fn() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(tokio::time::Instant::now() < deadline, "it did not happen");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
