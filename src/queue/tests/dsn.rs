//! What the app asked of reports, and what becomes of it.

use tokio::io::AsyncReadExt;

use super::*;
use crate::mail::dsn::{Content, EnvelopeId, Notify, OriginalRecipient};

#[test]
fn reports_are_asked_for_by_us_where_they_come_to_us_and_by_the_app_where_they_do_not() {
    let keys = KeyRing::from_secret([7; 32]);
    let mut settings = config::defaults();
    settings.return_path.domain = "bounces.example.com".to_owned();
    let queue_id = QueueId::new(Timestamp::from_millis(1_700_000_000_000), 1);
    let mut mail = live(queue_id, ReversePath::Address(Address::parse("app@x.org").unwrap()));
    let asked = |content, id, address, notify, original| {
        let dsn = MailDsn { content, envelope_id: EnvelopeId::parse(id) };
        let mut recipient = Recipient::from(Address::parse(address).unwrap());
        recipient.dsn.notify = Notify::parse(notify);
        recipient.dsn.original_recipient = OriginalRecipient::parse(original);
        (dsn, recipient)
    };
    let ours = queue_id.to_string();
    let (full, headers) = (Some(Content::Full), Some(Content::Headers));
    for (given, want) in [
        (
            asked(None, "", "a+b@c.d", "", ""),
            asked(headers, &ours, "a+b@c.d", "FAILURE,DELAY", "rfc822;a+2Bb@c.d"),
        ),
        (
            asked(full, "app", "a@c.d", "NEVER", "rfc822;x@y"),
            asked(full, &ours, "a@c.d", "FAILURE,DELAY", "rfc822;x@y"),
        ),
        (
            asked(headers, "app", "Pelé@c.d", "SUCCESS", ""),
            asked(headers, &ours, "Pelé@c.d", "SUCCESS,FAILURE,DELAY", "utf-8;Pelé@c.d"),
        ),
    ] {
        let (dsn, recipient) = given;
        mail.dsn_asked = dsn.clone();
        let due = || vec![(0, recipient.clone())];
        mail.return_path = ReturnPathMode::Verp;
        let deliveries = super::super::attempt::deliveries(&settings, &keys, &mail, due());
        assert_eq!((&deliveries[0].dsn, &deliveries[0].recipients[0].1), (&want.0, &want.1));
        mail.return_path = ReturnPathMode::Preserve;
        let deliveries = super::super::attempt::deliveries(&settings, &keys, &mail, due());
        assert_eq!((&deliveries[0].dsn, &deliveries[0].recipients[0].1), (&dsn, &recipient));
    }
}

/// `NOTIFY` of each recipient, in order; empty where it is not given.
fn notify(submission: &mut Submission, values: &[&str]) {
    for (recipient, value) in submission.envelope.recipients.iter_mut().zip(values) {
        recipient.dsn.notify = Notify::parse(value);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn notify_decides_who_is_in_a_failure_dsn() {
    let dialog = format!(
        "{HELLO}C: MAIL FROM:<app@example.org>\nS: 250 ok\n\
         C: RCPT TO:<never@example.net>\nS: 550 5.1.1 no\n\
         C: RCPT TO:<success@example.net>\nS: 550 5.1.1 no\n\
         C: RCPT TO:<failure@example.net>\nS: 550 5.1.1 no\n\
         C: RCPT TO:<unsaid@example.net>\nS: 550 5.1.1 no\nC: RSET\nS: 250 ok\n{}{QUIT}",
        taken("", "app@example.org", "250 ok"),
    );
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut bench = Bench::new(Some(&next_hop), |_| {});
    let change = |submission: &mut Submission| {
        notify(submission, &["NEVER", "SUCCESS,DELAY", "FAILURE", ""]);
        submission.envelope.dsn.content = Some(Content::Full);
    };
    let to = ["never", "success", "failure", "unsaid"].map(|name| format!("{name}@example.net"));
    let queue_id = bench.submit(change, &to.each_ref().map(String::as_str)).await;
    bench.run_due().await;
    assert_eq!(bench.states(queue_id), [State::Failed; 4]);
    bench.run_due().await;
    assert_eq!(bench.context.store.queue_len(), 0);
    bench.end().await;
    let bodies = next_hop.bodies().await;
    let named = |name: &str| bodies[0].contains(&format!("Final-Recipient: rfc822; {name}@"));
    assert_eq!(["never", "success", "failure", "unsaid"].map(named), [false, false, true, true]);
    assert!(bodies[0].contains("Content-Type: message/rfc822\r\n"), "{}", bodies[0]);
    assert!(bodies[0].contains("\r\n\r\nbody\r\n"), "{}", bodies[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_wants_to_know_of_delays_is_told_of_none() {
    let gone = Scripted::start(&[]).await;
    let address = gone.address;
    gone.bodies().await;
    let mut bench = Bench::new(None, |settings| settings.relay = relay_settings(address));
    let change = |submission: &mut Submission| notify(submission, &["FAILURE", "NEVER"]);
    bench.submit(change, &["a@example.net", "b@example.net"]).await;
    bench.run_due().await;
    bench.pass(4 * 3600).await;
    assert_eq!(bench.context.store.queue_len(), 1, "the mail alone");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_is_told_where_the_next_hop_will_not_and_only_to_who_asked() {
    let envelope = |dsn: [&str; 3]| {
        let [first, second, third] = dsn;
        format!(
            "C: MAIL FROM:<app@example.org>\nS: 250 ok\n\
             C: RCPT TO:<a@example.net>{first}\nS: 250 ok\n\
             C: RCPT TO:<b@example.net>{second}\nS: 250 ok\n\
             C: RCPT TO:<c@example.net>{third}\nS: 250 ok\n\
             C: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 Ok: queued as 77AB\n"
        )
    };
    let told = format!(
        "{HELLO}{}{}{QUIT}",
        envelope(["", "", ""]),
        taken("", "app@example.org", "250 ok")
    );
    let with_dsn = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 DSN\n";
    let passed_on =
        format!("{with_dsn}{}{QUIT}", envelope([" NOTIFY=SUCCESS,FAILURE", " NOTIFY=SUCCESS", ""]));
    for (dialog, waits) in [(told, 1), (passed_on, 0)] {
        let next_hop = Scripted::start(&[&dialog]).await;
        let mut bench = Bench::new(Some(&next_hop), |_| {});
        let change = |submission: &mut Submission| {
            notify(submission, &["SUCCESS,FAILURE", "SUCCESS", ""]);
        };
        let to = ["a@example.net", "b@example.net", "c@example.net"];
        let queue_id = bench.submit(change, &to).await;
        bench.run_due().await;
        assert_eq!(bench.states(queue_id), [State::Relayed; 3]);
        assert!(!bench.is_in_queue(queue_id));
        assert_eq!(bench.context.store.queue_len(), waits);
        bench.run_due().await;
        assert_eq!(bench.context.store.queue_len(), 0, "a notice is never told of");
        bench.end().await;
        let bodies = next_hop.bodies().await;
        assert_eq!(bodies.len(), 1 + waits);
        for dsn in bodies.iter().skip(1) {
            assert_eq!(dsn.matches("Action: relayed\r\n").count(), 2, "{dsn}");
            assert!(!dsn.contains("c@example.net"), "{dsn}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_success_is_told_where_no_notice_may_be_written() {
    let changes: [fn(&mut Submission); 3] = [
        |submission| submission.envelope.reverse_path = ReversePath::NULL,
        |submission| submission.dsn = false,
        |submission| submission.origin = Origin::Notice,
    ];
    let from = ["", "app@example.org", "app@example.org"];
    for (change, from) in changes.into_iter().zip(from) {
        let dialog = format!("{HELLO}{}{QUIT}", taken(from, "a@example.net", "250 ok"));
        let next_hop = Scripted::start(&[&dialog]).await;
        let mut bench = Bench::new(Some(&next_hop), |_| {});
        let change = |submission: &mut Submission| {
            notify(submission, &["SUCCESS"]);
            change(submission);
        };
        bench.submit(change, &["a@example.net"]).await;
        bench.run_due().await;
        assert_eq!(bench.context.store.queue_len(), 0);
        bench.end().await;
        next_hop.bodies().await;
    }
}

impl Bench {
    /// The same after the process was killed: nothing was closed, and what is on disk is read.
    fn crashed(self) -> Self {
        let Self { context, runner, dir } = self;
        let (settings, clock) = (Arc::clone(&context.settings), context.clock.clone());
        drop((runner, context));
        Self::open(dir, settings, clock)
    }

    /// The notices of ours that wait to be relayed, as text.
    async fn notices(&self) -> Vec<String> {
        let store = &self.context.store;
        let mut found = Vec::new();
        for queue_id in store.live_ids(10) {
            if store.live(queue_id).unwrap().origin == Origin::Notice {
                let mut text = String::new();
                store.body(queue_id).await.unwrap().read_to_string(&mut text).await.unwrap();
                found.push(text);
            }
        }
        found
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_that_a_crash_left_untold_is_told_once() {
    let bench = Bench::new(None, |_| {});
    let change = |submission: &mut Submission| {
        notify(submission, &["SUCCESS", "SUCCESS,FAILURE"]);
        submission.envelope.dsn.envelope_id = EnvelopeId::parse("order+2B17");
    };
    let queue_id = bench.submit(change, &["a@example.net", "b@example.net"]).await;
    let now = bench.context.clock.now();
    let attempt = |recipient: u32, reply: &str, decision: Decision| Attempt {
        queue_id,
        recipient,
        number: 1,
        started_at: now,
        ended_at: now,
        stage: Stage::End,
        remote_mta: None,
        reply: Reply::parse(reply),
        error: None,
        remote_queue_id: None,
        alias: None,
        tls: None,
        decision,
        notice_owed: true,
    };
    let attempts = vec![
        attempt(0, "250 2.0.0 Ok", Decision::Relayed),
        attempt(1, "550 5.1.1 no", Decision::Failed),
    ];
    let mail = bench.context.store.live(queue_id).unwrap();
    let ticket = bench.context.capture.outcomes(&mail, attempts).unwrap();
    ticket.synced().await.unwrap();

    // Killed between the 250 and the notices.
    let mut bench = bench.crashed();
    assert!(bench.is_in_queue(queue_id), "the mail stays while they are owed");
    assert_eq!(bench.notices().await, Vec::<String>::new());
    bench.run_due().await;
    for _ in 0..2 {
        assert!(!bench.is_in_queue(queue_id));
        let notices = bench.notices().await;
        assert_eq!(notices.len(), 2, "{notices:?}");
        for (action, to) in [("failed", "b@example.net"), ("relayed", "a@example.net")] {
            let block = format!("Final-Recipient: rfc822; {to}\r\nAction: {action}\r\n");
            assert_eq!(notices.iter().filter(|text| text.contains(&block)).count(), 1, "{to}");
        }
        assert!(notices.iter().all(|text| text.contains("Original-Envelope-Id: order+17\r\n")));
        bench = bench.crashed();
        bench.run_due().await;
    }
    bench.end().await;
}
