//! A real Dovecot, and what goes wrong: processes are killed, ids are forgotten, folders go,
//! passwords and certificates change. Nothing is lost, nothing is captured twice, and the mailbox
//! is read again by itself.

use std::collections::BTreeSet;
use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::dovecot::{Dovecot, PASSWORD};
use crate::harness::report::dsn;
use crate::harness::sink::Sink;
use crate::harness::wait_for;

fn daemon_for(dovecot: &Dovecot, sink: &Sink, more: &str) -> Daemon {
    let config = Config::new().preserve().relay(sink.address);
    Daemon::start(config.table(&dovecot.table("bounces", more)))
}

fn report(name: &str) -> Vec<u8> {
    dsn(&format!("<sent-{name}@app.test>"), &[("b@dest.test", "failed")])
}

/// Lets some time pass: nobody sends.
fn pause(time: Duration) {
    let (_never, timer) = mpsc::channel::<()>();
    assert_eq!(timer.recv_timeout(time), Err(mpsc::RecvTimeoutError::Timeout));
}

/// How often the log has a line about the mailbox with this state.
fn complaints(daemon: &Daemon, state: &str) -> usize {
    let log = daemon.log();
    let is_one = |line: &&str| {
        line.contains("the mailbox cannot be read")
            && line.contains(&format!("\"state\":\"{state}\""))
    };
    log.lines().filter(is_one).count()
}

fn captured(daemon: &Daemon, count: u64) {
    daemon.await_mailbox(&format!("{count} are captured"), |mailbox| {
        mailbox["counts"]["captured"] == count
    });
}

/// `REBOUND_KILLS=10 cargo test --release --test it imap_faults` is the long version.
#[test]
fn every_report_is_captured_once_when_the_daemon_is_killed_while_it_polls() {
    let kills = std::env::var_os("REBOUND_KILLS")
        .map_or(3, |text| text.to_str().unwrap().parse::<u32>().unwrap());
    let mails = if kills >= 10 { 2000 } else { 400 };
    let dovecot = Dovecot::start();
    let sink = Sink::start();
    for number in 0..mails {
        if number % 2 == 0 {
            dovecot.deliver("", &report(&number.to_string()));
        } else {
            dovecot.deliver("", b"From: a@b.test\r\nSubject: Lunch\r\n\r\nAt noon?\r\n");
        }
    }
    let after = "after = \"move\"\nmove_to = \"Done\"";
    let mut daemon = daemon_for(&dovecot, &sink, after);
    let mut random: u64 = 20_261_128;
    for _ in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        pause(Duration::from_millis(100 + (random >> 33) % 600));
        daemon.kill();
        daemon.restart();
    }
    daemon.await_mailbox("all are read", |mailbox| !mailbox["lastPoll"].is_null());
    let ids = wait_for("every report is there", Duration::from_secs(60), || {
        let ids = daemon.unmatched_reports();
        (ids.len() >= mails / 2).then_some(ids)
    });
    let sources: BTreeSet<String> = ids
        .iter()
        .map(|id| {
            let source = daemon.source(id);
            source.split_once("<sent-").unwrap().1.split('@').next().unwrap().to_owned()
        })
        .collect();
    assert_eq!((ids.len(), sources.len()), (mails / 2, mails / 2), "captured exactly once");
    let (inbox, done) = (dovecot.mails(""), dovecot.mails("Done"));
    assert_eq!((inbox, done), (mails / 2, mails / 2), "no mail is lost");
}

#[test]
fn a_server_that_is_killed_in_the_middle_is_come_back_to() {
    let mut dovecot = Dovecot::start();
    let sink = Sink::start();
    for number in 0..600 {
        dovecot.deliver("", &report(&number.to_string()));
    }
    let daemon = daemon_for(&dovecot, &sink, "");
    daemon.await_mailbox("some are seen", |mailbox| mailbox["counts"]["seen"] != 0);
    dovecot.kill();
    dovecot.up();
    daemon.await_mailbox("all are read", |mailbox| {
        !mailbox["lastPoll"].is_null() && mailbox["state"] == "connected"
    });
    assert_eq!(daemon.unmatched_reports().len(), 600);
    assert_eq!(daemon.mailbox()["counts"]["unreadable"], 0);
    assert_eq!(dovecot.mails(""), 600);
}

#[test]
fn a_folder_whose_ids_are_forgotten_is_read_again_and_nothing_is_captured_twice() {
    let mut dovecot = Dovecot::start();
    let sink = Sink::start();
    for number in 0..5 {
        dovecot.deliver("", &report(&number.to_string()));
    }
    let daemon = daemon_for(&dovecot, &sink, "");
    captured(&daemon, 5);
    dovecot.down();
    // UIDVALIDITY is the time in seconds when it is given.
    pause(Duration::from_millis(1100));
    dovecot.forget_ids();
    dovecot.deliver("", &report("new"));
    dovecot.up();
    captured(&daemon, 6);
    daemon.await_mailbox("all are known", |mailbox| {
        mailbox["counts"]["known"] == 5 && mailbox["state"] == "connected"
    });
    assert_eq!(daemon.unmatched_reports().len(), 6);
    assert!(daemon.log().contains("the folder has been made anew; it is read again"));
}

#[test]
fn a_folder_that_goes_and_comes_again_is_missed_and_read() {
    let dovecot = Dovecot::start();
    let sink = Sink::start();
    dovecot.client().say("CREATE Bounces");
    dovecot.deliver("Bounces", &report("before"));
    let folders = "folders = [\"INBOX\", \"Bounces\"]\npoll_interval_secs = 1";
    let daemon = daemon_for(&dovecot, &sink, folders);
    captured(&daemon, 1);
    dovecot.client().say("DELETE Bounces");
    let mailbox = daemon.await_mailbox("it is missed", |mailbox| {
        let error = mailbox["lastError"]["message"].as_str().unwrap_or_default();
        error.contains("there is no folder `Bounces`")
    });
    assert_ne!(mailbox["state"], "authenticationError", "{mailbox:#}");
    dovecot.deliver("", &report("inbox"));
    captured(&daemon, 2);
    pause(Duration::from_millis(1100));
    dovecot.client().say("CREATE Bounces");
    dovecot.deliver("Bounces", &report("after"));
    captured(&daemon, 3);
    wait_for("it is said", Duration::from_secs(10), || {
        daemon.log().contains("the mailbox is read again").then_some(())
    });
}

#[test]
fn a_password_that_changes_stops_the_reading_until_it_is_known() {
    let mut dovecot = Dovecot::start();
    let sink = Sink::start();
    let daemon = daemon_for(&dovecot, &sink, "");
    daemon.await_mailbox("connected", |mailbox| mailbox["state"] == "connected");
    dovecot.set_password("another");
    dovecot.down();
    dovecot.up();
    let mailbox =
        daemon.await_mailbox("refused", |mailbox| mailbox["state"] == "authenticationError");
    let error = mailbox["lastError"]["message"].as_str().unwrap();
    assert!(error.starts_with("the server refused the login: "), "{error}");
    assert_eq!(complaints(&daemon, "authenticationError"), 1);
    dovecot.deliver("", &report("one"));
    fs::write(dovecot.password_file(), "another\n").unwrap();
    captured(&daemon, 1);
    daemon.await_mailbox("connected", |mailbox| mailbox["state"] == "connected");
    assert_eq!(complaints(&daemon, "authenticationError"), 1, "one line says it all");
    let log = daemon.log();
    assert!(!log.contains(PASSWORD) && !log.contains("another\""), "a password is in the log");
}

#[test]
fn a_certificate_that_is_out_of_date_is_not_believed() {
    let mut dovecot = Dovecot::prepare("");
    dovecot.show_certificate(false);
    dovecot.up();
    let sink = Sink::start();
    let daemon = daemon_for(&dovecot, &sink, "");
    let mailbox = daemon.await_mailbox("refused", |mailbox| mailbox["state"] == "connectError");
    let error = mailbox["lastError"]["message"].as_str().unwrap().to_lowercase();
    assert!(error.contains("beginning tls") && error.contains("expired"), "{error}");
    assert_eq!(complaints(&daemon, "connectError"), 1);
    dovecot.deliver("", &report("one"));
    dovecot.down();
    dovecot.show_certificate(true);
    dovecot.up();
    captured(&daemon, 1);
    assert!(!dovecot.log().contains(PASSWORD));
}

#[test]
fn a_server_without_idle_is_asked_now_and_then() {
    let mut dovecot =
        Dovecot::prepare("protocol imap {\n  imap_capability = IMAP4rev1 UIDPLUS MOVE\n}\n");
    dovecot.up();
    let sink = Sink::start();
    let daemon = daemon_for(&dovecot, &sink, "poll_interval_secs = 1");
    daemon.await_mailbox("connected", |mailbox| mailbox["state"] == "connected");
    for (count, folder) in [(1, ""), (2, "Junk")] {
        dovecot.deliver(folder, &report(&count.to_string()));
        captured(&daemon, count);
    }
    assert_eq!(complaints(&daemon, "disconnected"), 0);
}
