//! A real Postfix as smarthost and as the one that bounces.

use serde_json::Value;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::postfix::Postfix;
use crate::harness::smtp::{mail, submit};
use crate::harness::{SOON, wait_for};

const APP: &str = "bounces@app.test";

/// A Postfix and a daemon that relays to it, each with the other's address.
fn pair(config: Config) -> (Postfix, Daemon) {
    let postfix = Postfix::start(config.listen("inbound"));
    let daemon = Daemon::start(config.relay(postfix.address));
    (postfix, daemon)
}

/// The only bounce of that recipient.
fn bounce_of<'a>(answer: &'a Value, recipient: &str) -> &'a Value {
    let bounces = answer["bounces"].as_array().unwrap();
    let mut own = bounces.iter().filter(|bounce| bounce["recipient"] == recipient);
    let bounce = own.next().unwrap_or_else(|| panic!("{recipient} has no bounce in {answer:#}"));
    assert!(own.next().is_none(), "{recipient} has two bounces in {answer:#}");
    bounce
}

#[test]
fn a_refusal_at_rcpt_is_an_inline_bounce() {
    let (_postfix, daemon) = pair(Config::new().verp());
    let queued = submit(daemon.smtp, APP, &["nobody@dest.test"], &mail("refused"));
    daemon.await_states(&queued.queue_id, &["failed"]);
    let answer = daemon.bounces(&queued.message_id);
    let bounce = bounce_of(&answer, "nobody@dest.test");
    assert_eq!(bounce["capturedBy"], "inline", "{bounce:#}");
    assert_eq!(bounce["action"], "failed", "{bounce:#}");
    assert_eq!(bounce["response"]["code"], 550, "{bounce:#}");
    assert_eq!(bounce["response"]["status"], "5.1.1", "{bounce:#}");
    assert_eq!(bounce["response"]["category"], "user_unknown", "{bounce:#}");
    assert_eq!(bounce["response"]["fault"], "recipient", "{bounce:#}");
    let command = bounce["response"]["command"].as_str().unwrap_or_default();
    assert!(command.to_ascii_uppercase().starts_with("RCPT"), "{bounce:#}");
    assert!(bounce.get("bounceMessage").is_none(), "there is no report: {bounce:#}");
}

#[test]
fn a_later_bounce_matches_by_its_token() {
    let (_postfix, daemon) = pair(Config::new().verp());
    let queued = submit(daemon.smtp, APP, &["later@dest.test"], &mail("later"));
    daemon.await_states(&queued.queue_id, &["bounced"]);
    let answer = daemon.bounces(&queued.message_id);
    let bounce = bounce_of(&answer, "later@dest.test");
    assert_eq!(bounce["capturedBy"], "listener", "{bounce:#}");
    assert_eq!(bounce["match"]["method"], "token", "{bounce:#}");
    assert_eq!(bounce["response"]["status"], "5.2.2", "{bounce:#}");
    assert_eq!(bounce["response"]["category"], "mailbox_full", "{bounce:#}");
    assert!(bounce["mta"].is_string(), "{bounce:#}");
    let report = bounce["bounceMessage"].as_str().unwrap();
    let (status, source) = {
        let path = format!("/v1/reports/{report}/source");
        let (status, _, body) = crate::harness::http::get_raw(daemon.http, &path, "");
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    assert_eq!(status, 200);
    assert!(source.contains("Reporting-MTA: dns; smarthost.test"), "{source}");
}

#[test]
fn a_later_bounce_matches_by_its_message_id_in_preserve_mode() {
    let (_postfix, daemon) = pair(Config::new().preserve());
    let queued = submit(daemon.smtp, APP, &["later@dest.test"], &mail("later"));
    daemon.await_states(&queued.queue_id, &["bounced"]);
    let answer = daemon.bounces(&queued.message_id);
    let bounce = bounce_of(&answer, "later@dest.test");
    let method = bounce["match"]["method"].as_str().unwrap();
    assert!(["message-id", "envelope-id"].contains(&method), "{bounce:#}");
    assert_eq!(bounce["originalMessageId"], queued.message_id.as_str(), "{bounce:#}");
}

#[test]
fn one_good_one_refused_and_one_bounced_recipient_end_in_three_states() {
    for config in [Config::new().verp(), Config::new().preserve()] {
        let (postfix, daemon) = pair(config);
        let to = ["good@dest.test", "nobody@dest.test", "later@dest.test"];
        let queued = submit(daemon.smtp, APP, &to, &mail("three"));
        daemon.await_states(&queued.queue_id, &["relayed", "failed", "bounced"]);
        let answer = daemon.bounces(&queued.message_id);
        assert_eq!(bounce_of(&answer, "nobody@dest.test")["capturedBy"], "inline");
        assert_eq!(bounce_of(&answer, "later@dest.test")["capturedBy"], "listener");
        assert_eq!(answer["bounces"].as_array().unwrap().len(), 2, "{answer:#}");
        wait_for("the good one is in the mailbox", SOON, || {
            (postfix.delivered().len() == 1).then_some(())
        });
    }
}

#[test]
fn a_450_is_retried_and_ends_relayed() {
    let (_postfix, daemon) = pair(Config::new().verp());
    let queued = submit(daemon.smtp, APP, &["grey@dest.test"], &mail("greylisted"));
    let message = daemon.await_states(&queued.queue_id, &["relayed"]);
    let attempts = message["recipients"][0]["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{message:#}");
    assert_eq!(attempts[0]["response"]["code"], 450, "{message:#}");
    assert_eq!(attempts[1]["response"]["code"], 250, "{message:#}");
    let answer = daemon.bounces(&queued.message_id);
    assert_eq!(answer["bounces"], serde_json::json!([]), "a delay is no bounce");
}

#[test]
fn our_own_dsn_that_comes_back_changes_no_state() {
    let (_postfix, daemon) = pair(Config::new().preserve());
    let to = ["nobody@dest.test", "good@dest.test"];
    let queued = submit(daemon.smtp, APP, &to, &mail("own notice"));
    daemon.await_states(&queued.queue_id, &["failed", "relayed"]);
    // The DSN goes to bounces@app.test: through Postfix, back to our own listener.
    let came_back = |metrics: &str| {
        let lines = metrics.lines().filter(|line| line.starts_with("rebound_reports_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() >= 1.0
    };
    wait_for("the DSN is back", SOON, || {
        let (_, _, body) = crate::harness::http::get_raw(daemon.http, "/metrics", "");
        came_back(&String::from_utf8_lossy(&body)).then_some(())
    });
    let answer = daemon.bounces(&queued.message_id);
    assert_eq!(answer["bounces"].as_array().unwrap().len(), 1, "{answer:#}");
    assert_eq!(bounce_of(&answer, "nobody@dest.test")["capturedBy"], "inline");
    daemon.await_states(&queued.queue_id, &["failed", "relayed"]);
}

#[test]
fn mail_waits_for_a_smarthost_that_is_down() {
    let config = Config::new().verp();
    let mut postfix = Postfix::prepare(config.listen("inbound"));
    let daemon = Daemon::start(config.relay(postfix.address));
    let queued = submit(daemon.smtp, APP, &["good@dest.test"], &mail("down"));
    let message = daemon.await_states(&queued.queue_id, &["deferred"]);
    assert!(message["recipients"][0]["attempts"][0]["error"].is_string(), "{message:#}");
    postfix.up();
    daemon.await_states(&queued.queue_id, &["relayed"]);
    wait_for("it is in the mailbox", SOON, || (postfix.delivered().len() == 1).then_some(()));
    postfix.down();
}

#[test]
fn required_tls_is_verified_against_the_given_authority() {
    let config = Config::new().verp();
    let postfix = Postfix::start(config.listen("inbound"));
    let config = config
        .set("relay", "host", &format!("\"localhost:{}\"", postfix.address.port()))
        .set("relay", "tls", "\"required\"");
    let trusting =
        config.clone().set("relay", "tls_ca_file", &format!("\"{}\"", postfix.cert.display()));
    let daemon = Daemon::start(trusting);
    let queued = submit(daemon.smtp, APP, &["good@dest.test"], &mail("tls"));
    let message = daemon.await_states(&queued.queue_id, &["relayed"]);
    let tls = message["recipients"][0]["attempts"][0]["tls"].as_str().unwrap_or_default();
    assert!(tls.starts_with("TLS"), "{message:#}");
    drop(daemon);

    let daemon = Daemon::start(config);
    let queued = submit(daemon.smtp, APP, &["good@dest.test"], &mail("no trust"));
    daemon.await_states(&queued.queue_id, &["deferred"]);
}
