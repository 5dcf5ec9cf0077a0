//! A real Dovecot: what arrives in a mailbox is captured, and what is no report is left alone.

use std::collections::BTreeSet;

use rebound::clock::Stopwatch;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::dovecot::{Dovecot, PASSWORD, USER};
use crate::harness::http;
use crate::harness::postfix::Postfix;
use crate::harness::report::dsn;
use crate::harness::sink::Sink;
use crate::harness::smtp::{Queued, mail, submit};
use crate::harness::{SOON, wait_for};

const APP: &str = "bounces@app.test";

/// A daemon in preserve mode that reads a mailbox of this Dovecot.
fn daemon_for(dovecot: &Dovecot, sink: &Sink, more: &str) -> Daemon {
    let config = Config::new().set("return_path", "mode", "\"preserve\"").relay(sink.address);
    Daemon::start(config.table(&dovecot.table("bounces", more)))
}

/// Submits a mail that the sink takes.
fn relayed(daemon: &Daemon, subject: &str) -> Queued {
    let queued = submit(daemon.smtp, APP, &["b@dest.test"], &mail(subject));
    daemon.await_states(&queued.queue_id, &["relayed"]);
    queued
}

fn failed(queued: &Queued) -> Vec<u8> {
    dsn(&queued.message_id, &[("b@dest.test", "failed")])
}

fn is_connected(mailbox: &serde_json::Value) -> bool {
    mailbox["state"] == "connected"
}

/// A mail that is no report, of one of several kinds.
fn other(number: usize) -> Vec<u8> {
    let (header, body) = match number % 4 {
        0 => (
            "From: Anna <anna@dest.test>\r\nSubject: Automatic reply: Your order\r\n\
             Auto-Submitted: auto-replied",
            "I am out of the office until Monday.",
        ),
        1 => (
            "From: News <news@shop.test>\r\nSubject: Our offers\r\nList-Id: <news.shop.test>\r\n\
             List-Unsubscribe: <mailto:x@shop.test>",
            "Buy now. Delivery failed to disappoint nobody yet.",
        ),
        2 => (
            "From: Bert <bert@dest.test>\r\nSubject: Re: Undelivered Mail Returned to Sender",
            "What is this about?\r\n\r\n> The mail system\r\n>\r\n\
             > <b@dest.test>: host mx.dest.test said: 550 5.1.1 No such user",
        ),
        _ => ("From: Carl <carl@dest.test>\r\nSubject: Lunch", "At noon?"),
    };
    format!("{header}\r\nTo: {APP}\r\nMessage-ID: <other-{number}@dest.test>\r\n\r\n{body}\r\n")
        .into_bytes()
}

#[test]
fn a_report_is_captured_when_it_arrives_and_when_we_come_back_in_junk_too() {
    let mut dovecot = Dovecot::start();
    let sink = Sink::start();
    // Nothing is found by looking now and then: the server must tell.
    let daemon = daemon_for(&dovecot, &sink, "poll_interval_secs = 1500");
    daemon.await_mailbox("connected", is_connected);
    for folder in ["INBOX", "Junk"] {
        let queued = relayed(&daemon, "told");
        let waiting = Stopwatch::start();
        dovecot.client().append(folder, &failed(&queued));
        daemon.await_states(&queued.queue_id, &["bounced"]);
        println!("captured {:?} after it was delivered to {folder:?}", waiting.elapsed());
        let answer = daemon.bounces(&queued.message_id);
        let bounce = &answer["bounces"][0];
        assert_eq!(bounce["capturedBy"], "imap", "{answer:#}");
        assert_eq!(bounce["match"]["method"], "message-id", "{answer:#}");
        assert!(daemon.source(bounce["bounceMessage"].as_str().unwrap()).contains("5.1.1"));
    }
    dovecot.down();
    daemon.await_mailbox("disconnected", |mailbox| {
        ["disconnected", "connectError"].contains(&mailbox["state"].as_str().unwrap())
    });
    let missed: Vec<Queued> = (0..2).map(|_| relayed(&daemon, "missed")).collect();
    dovecot.deliver("", &failed(&missed[0]));
    dovecot.deliver("Junk", &failed(&missed[1]));
    dovecot.up();
    for queued in &missed {
        daemon.await_states(&queued.queue_id, &["bounced"]);
    }
    let mailbox = daemon.await_mailbox("connected again", is_connected);
    assert_eq!(mailbox["counts"]["captured"], 4, "{mailbox:#}");
    assert_eq!(mailbox["counts"]["unreadable"], 0, "{mailbox:#}");
    assert_eq!(mailbox["folders"], serde_json::json!(["INBOX", "Junk"]), "{mailbox:#}");
    let unseen = dovecot.client().uids("", "UNSEEN").len();
    assert_eq!(unseen, 2, "reading marks nothing as seen");
}

#[test]
fn of_a_thousand_mixed_mails_exactly_the_reports_are_captured() {
    let dovecot = Dovecot::start();
    let sink = Sink::start();
    let mut want = BTreeSet::new();
    for number in 0..1000 {
        if number % 4 == 3 {
            let id = format!("<sent-{number}@app.test>");
            dovecot.deliver("", &dsn(&id, &[("b@dest.test", "failed")]));
            want.insert(id);
        } else {
            dovecot.deliver("", &other(number / 4 * 3 + number % 4));
        }
    }
    let daemon = daemon_for(&dovecot, &sink, "");
    let mailbox = daemon.await_mailbox("all are read", |mailbox| !mailbox["lastPoll"].is_null());
    assert_eq!(mailbox["counts"]["seen"], 1000, "{mailbox:#}");
    assert_eq!(mailbox["counts"]["captured"], 250, "{mailbox:#}");
    assert_eq!(mailbox["counts"]["unreadable"], 0, "{mailbox:#}");
    let ids = daemon.unmatched_reports();
    assert_eq!(ids.len(), 250);
    let found: BTreeSet<String> = ids
        .iter()
        .map(|id| {
            let source = daemon.source(id);
            let (_, rest) = source.split_once("<sent-").unwrap();
            format!("<sent-{}>", rest.split('>').next().unwrap())
        })
        .collect();
    assert_eq!(found, want);
}

#[test]
fn what_is_done_with_a_captured_report_is_what_the_settings_say() {
    for (capabilities, has_extensions) in [("", true), (PLAIN_CAPABILITIES, false)] {
        let mut dovecot = Dovecot::prepare(capabilities);
        dovecot.up();
        let sink = Sink::start();
        let mut config = Config::new().preserve().relay(sink.address);
        for (name, folder, after) in [
            ("keeps", "Keep", "after = \"keep\""),
            ("sees", "See", "after = \"seen\""),
            ("moves", "Move", "after = \"move\"\nmove_to = \"Done\""),
            ("deletes", "Delete", "after = \"delete\""),
        ] {
            for number in [1, 2] {
                let id = format!("<{name}-{number}@app.test>");
                dovecot.deliver(folder, &dsn(&id, &[("b@dest.test", "failed")]));
            }
            dovecot.deliver(folder, &other(1));
            let folders = format!("folders = [\"{folder}\"]\npoll_interval_secs = 1\n{after}");
            config = config.table(&dovecot.table(name, &folders));
        }
        let daemon = Daemon::start(config);
        wait_for("all four have been read", SOON, || {
            let (_, answer) = daemon.get("/v1/mailboxes");
            let all = answer["mailboxes"].as_array().unwrap();
            all.iter().all(|one| one["counts"]["captured"] == 2).then_some(())
        });
        wait_for("the last command has been given", SOON, || {
            let (_, answer) = daemon.get("/v1/mailboxes");
            let all = answer["mailboxes"].as_array().unwrap();
            all.iter().all(|one| !one["lastPoll"].is_null()).then_some(())
        });
        let mut client = dovecot.client();
        let mut count = |folder: &str, search: &str| client.uids(folder, search).len();
        assert_eq!((count("Keep", "ALL"), count("Keep", "SEEN")), (3, 0));
        assert_eq!((count("See", "ALL"), count("See", "SEEN")), (3, 2));
        assert_eq!((count("Done", "UNDELETED"), count("Done", "SEEN")), (2, 0));
        assert_eq!((count("Move", "UNDELETED"), count("Delete", "UNDELETED")), (1, 1));
        // Without UIDPLUS nothing is expunged: others may have marked mails, too.
        let left = if has_extensions { 1 } else { 3 };
        assert_eq!((count("Move", "ALL"), count("Delete", "ALL")), (left, left));
        assert_eq!(daemon.unmatched_reports().len(), 8);
    }
}

#[test]
fn a_mail_that_cannot_be_read_is_passed_over_and_stays_where_it_is() {
    for (more, left) in [("", 4), ("unparsed = \"move\"\nmove_to = \"Odd\"", 3)] {
        let dovecot = Dovecot::start();
        let sink = Sink::start();
        let report = |n: u32| dsn(&format!("<{n}@app.test>"), &[("b@dest.test", "failed")]);
        dovecot.deliver("", &report(1));
        dovecot.deliver("", &report(2));
        dovecot.deliver("", b"no header at all\r\nbut two lines\r\n");
        dovecot.deliver("", &report(3));
        let daemon = daemon_for(&dovecot, &sink, more);
        let mailbox =
            daemon.await_mailbox("all are read", |mailbox| !mailbox["lastPoll"].is_null());
        assert_eq!(mailbox["counts"]["captured"], 3, "{mailbox:#}");
        assert_eq!(mailbox["counts"]["unreadable"], 1, "{mailbox:#}");
        assert!(daemon.log().contains("mails that cannot be read are passed over"));
        assert_eq!(dovecot.mails(""), left);
        if !more.is_empty() {
            assert_eq!(dovecot.mails("Odd"), 1);
        }
    }
}

#[test]
fn a_mailbox_is_checked_polled_and_shown() {
    let dovecot = Dovecot::start();
    let sink = Sink::start();
    dovecot.deliver("", &dsn("<one@app.test>", &[("b@dest.test", "failed")]));
    dovecot.deliver("", &other(3));
    let daemon = daemon_for(&dovecot, &sink, "idle = false\npoll_interval_secs = 1500");
    let (code, shown) = daemon.command(&["mailbox", "check", "bounces"]);
    assert_eq!(code, 0, "{shown}");
    for part in [
        "logged in; the server offers IDLE NOTIFY MOVE",
        "INBOX: 2 mails, 2 of them young enough to be read at first; of the newest, 1 may be",
        "Undelivered Mail Returned to Sender",
        "Junk: 0 mails",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    let (code, shown) = daemon.command(&["mailbox", "check", "nobody"]);
    assert_eq!(code, 64, "{shown}");

    daemon.await_mailbox("read once", |mailbox| mailbox["counts"]["captured"] == 1);
    let (code, token) = daemon.command(&["token", "add", "test", "--scope", "admin"]);
    assert_eq!(code, 0, "{token}");
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    let (status, _) = http::post(daemon.http, "/v1/mailboxes/bounces/poll", "");
    assert_eq!(status, 401, "polling needs a token that may change something");
    dovecot.deliver("", &dsn("<two@app.test>", &[("b@dest.test", "failed")]));
    let (status, answer) = http::post(daemon.http, "/v1/mailboxes/bounces/poll", &bearer);
    assert_eq!((status, &answer["polled"]), (200, &serde_json::json!(true)), "{answer}");
    let text = wait_for("the second is captured", SOON, || {
        let (_, _, body) = http::get_raw(daemon.http, "/metrics", &bearer);
        let text = String::from_utf8_lossy(&body).into_owned();
        let line = "rebound_mailbox_mails_total{mailbox=\"bounces\",result=\"captured\"} 2";
        text.contains(line).then_some(text)
    });
    let line = "rebound_mailbox_state{mailbox=\"bounces\",state=\"authenticationError\"} 0";
    assert!(text.contains(line), "{text}");
    let (status, _) = http::post(daemon.http, "/v1/mailboxes/nobody/poll", &bearer);
    assert_eq!(status, 404);
    for secret in [PASSWORD, "of\\\" the"] {
        assert!(!daemon.log().contains(secret), "the password stands in the log");
    }
}

#[test]
fn starttls_is_begun_before_the_login() {
    let dovecot = Dovecot::start();
    let sink = Sink::start();
    dovecot.deliver("", &dsn("<one@app.test>", &[("b@dest.test", "failed")]));
    let table = dovecot.table("bounces", "tls = \"starttls\"");
    let table = table.replace(
        &format!("port = {}", dovecot.imaps.port()),
        &format!("port = {}", dovecot.imap.port()),
    );
    let daemon = Daemon::start(Config::new().preserve().relay(sink.address).table(&table));
    daemon.await_mailbox("captured", |mailbox| mailbox["counts"]["captured"] == 1);
    let log = dovecot.log();
    let login = log.lines().find(|line| line.contains("Login: user=")).unwrap();
    assert!(login.contains(&format!("user=<{USER}>")) && login.contains("TLS"), "{login}");
}

#[test]
fn a_later_bounce_of_a_real_postfix_is_found_in_the_apps_own_mailbox() {
    let dovecot = Dovecot::start();
    let config = Config::new().set("return_path", "mode", "\"preserve\"");
    let mut postfix =
        Postfix::with_reports_to(&format!("lmtp:inet:127.0.0.1:{}", dovecot.lmtp.port()));
    postfix.up();
    let table = dovecot.table("bounces", "");
    let daemon = Daemon::start(config.relay(postfix.address).table(&table));
    daemon.await_mailbox("connected", is_connected);
    let queued = submit(daemon.smtp, APP, &["later@dest.test"], &mail("later"));
    daemon.await_states(&queued.queue_id, &["bounced"]);
    let answer = daemon.bounces(&queued.message_id);
    let bounces = answer["bounces"].as_array().unwrap();
    assert_eq!(bounces.len(), 1, "{answer:#}");
    assert_eq!(bounces[0]["capturedBy"], "imap", "{answer:#}");
    assert_eq!(bounces[0]["recipient"], "later@dest.test", "{answer:#}");
    assert_eq!(bounces[0]["response"]["status"], "5.2.2", "{answer:#}");
    assert_eq!(bounces[0]["response"]["category"], "mailbox_full", "{answer:#}");
}

/// What a server offers that knows RFC 3501 and little more.
const PLAIN_CAPABILITIES: &str = "protocol imap {\n  imap_capability = IMAP4rev1\n}\n";
