//! Retries, expiry, draining: what the queue does when the next hop does not just say yes.

use crate::harness::daemon::{Config, Daemon};
use crate::harness::sink::{Answer, Point, Sink, contains};
use crate::harness::smtp::{mail, submit};
use crate::harness::{SOON, wait_for};

const APP: &str = "anna@app.test";

#[test]
fn a_connection_lost_at_data_or_after_it_is_tried_again() {
    let sink = Sink::scripted(Box::new(|point, number| match point {
        Point::Data if number == 1 => Answer::Drop,
        Point::End(_) if number == 1 => Answer::TakeAndDrop,
        _ => Answer::Accept,
    }));
    let daemon = Daemon::start(Config::new().verp().relay(sink.address));
    let queued = submit(daemon.smtp, APP, &["b@dest.test"], &mail("lost reply"));
    let message = daemon.await_states(&queued.queue_id, &["relayed"]);
    assert_eq!(message["recipients"][0]["attempts"].as_array().unwrap().len(), 3, "{message:#}");
    assert_eq!(sink.mails().len(), 2, "what was not confirmed is sent again");
}

#[test]
fn what_is_given_up_is_reported_to_the_app_once() {
    let sink = Sink::scripted(Box::new(|point, _| match point {
        Point::Rcpt("late@dest.test") => Answer::Reply("450 4.2.1 Not now"),
        Point::Rcpt("no@dest.test") => Answer::Reply("550 5.1.1 No such user"),
        _ => Answer::Accept,
    }));
    let config = Config::new().relay(sink.address).set("queue", "lifetime", "\"3s\"");
    let daemon = Daemon::start(config);
    let to = ["late@dest.test", "no@dest.test", "yes@dest.test"];
    let queued = submit(daemon.smtp, APP, &to, &mail("given up"));
    daemon.await_states(&queued.queue_id, &["expired", "failed", "relayed"]);
    let named = |address: &str| {
        sink.wait_for(address, SOON, |mails| {
            let field = format!("Final-Recipient: rfc822;{address}");
            let spaced = format!("Final-Recipient: rfc822; {address}");
            mails
                .iter()
                .find(|mail| {
                    contains(&mail.octets, field.as_bytes())
                        || contains(&mail.octets, spaced.as_bytes())
                })
                .cloned()
        })
    };
    for address in ["late@dest.test", "no@dest.test"] {
        let dsn = named(address);
        assert_eq!((dsn.from.as_str(), dsn.to.as_slice()), ("", &[APP.to_owned()][..]));
        assert!(contains(&dsn.octets, b"X-Rebound-Notice:"));
        assert!(contains(&dsn.octets, queued.message_id.as_bytes()));
    }
}

#[test]
fn nothing_is_reported_about_a_mail_with_a_null_reverse_path() {
    let sink = Sink::scripted(Box::new(|point, _| match point {
        Point::Rcpt("no@dest.test") => Answer::Reply("550 5.1.1 No such user"),
        _ => Answer::Accept,
    }));
    let daemon = Daemon::start(Config::new().verp().relay(sink.address));
    let queued = submit(daemon.smtp, "", &["no@dest.test", "yes@dest.test"], &mail("null"));
    daemon.await_states(&queued.queue_id, &["failed", "relayed"]);
    let marker = submit(daemon.smtp, APP, &["yes@dest.test"], &mail("marker"));
    daemon.await_states(&marker.queue_id, &["relayed"]);
    let mails = sink.mails();
    assert_eq!(mails.len(), 2, "the mail and the marker, and no DSN");
    assert!(mails.iter().any(|mail| mail.from.is_empty()), "<> is never rewritten");
}

#[test]
fn a_daemon_that_is_asked_to_end_keeps_what_it_has_taken() {
    let sink = Sink::start();
    let down = crate::harness::free_port();
    let config = Config::new().verp().relay(([127, 0, 0, 1], down).into());
    let mut daemon = Daemon::start(config);
    let queued = submit(daemon.smtp, APP, &["b@dest.test"], &mail("kept"));
    daemon.await_states(&queued.queue_id, &["deferred"]);
    assert!(daemon.terminate().success());
    let path = daemon.dir.path().join("rebound.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let text = text.replace(&format!(":{down}"), &format!(":{}", sink.address.port()));
    std::fs::write(&path, text).unwrap();
    daemon.restart();
    daemon.await_states(&queued.queue_id, &["relayed"]);
    sink.wait_for_text("Subject: kept");
}

#[test]
fn without_a_next_hop_mail_is_held_and_the_log_says_so() {
    let daemon = Daemon::start(Config::new());
    let queued = submit(daemon.smtp, APP, &["b@dest.test"], &mail("held"));
    wait_for("the log says it", SOON, || {
        let log = daemon.log();
        (log.contains("relay") && log.contains("held")).then_some(())
    });
    let message = daemon.message(&queued.queue_id);
    assert_eq!(message["recipients"][0]["state"], "queued", "{message:#}");
}

#[test]
fn a_hang_up_re_reads_the_accounts() {
    let sink = Sink::start();
    let daemon =
        Daemon::start(Config::new().relay(sink.address).set("submission", "auth", "\"required\""));
    let refused = {
        let mut client = crate::harness::smtp::Client::connect(daemon.smtp);
        client.send(APP, &["b@dest.test"], &mail("no account")).unwrap()
    };
    assert!(refused.starts_with("530"), "{refused}");
    let path = daemon.dir.path().join("rebound.toml");
    let hash = crate::harness::daemon::account_hash("geheim");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += &format!("\n[[account]]\nname = \"shop\"\npassword_hash = \"{hash}\"\n");
    std::fs::write(&path, text).unwrap();
    daemon.signal("HUP");
    // base64 of "\0shop\0geheim" (RFC 4616).
    wait_for("the account is known", SOON, || {
        let mut client = crate::harness::smtp::Client::connect(daemon.smtp);
        client.say("AUTH PLAIN AHNob3AAZ2VoZWlt").starts_with("235").then_some(())
    });
}
