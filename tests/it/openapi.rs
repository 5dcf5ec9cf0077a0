//! The document of the HTTP interface, held against the running daemon: schemathesis asks
//! everything in it, and every answer is what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::daemon::{Config, Daemon};
use crate::harness::receiver::{Answer as Taken, Receiver};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{Queued, mail, submit};
use crate::harness::{SOON, http, run, wait_for};

const APP: &str = "anna@app.test";

/// The environment that `.ci/run` installs.
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-schemathesis/bin/python");
    assert!(python.exists(), "schemathesis is missing: `.ci/run` installs it");
    python
}

/// What is asked for by name: mails, reports and lists that there are.
fn paths(refused: &Queued, waiting: &Queued, report: &str) -> Vec<String> {
    vec![
        format!("/v1/bounces/{}", http::encode(&refused.message_id)),
        format!("/v1/bounces?queueId={}", refused.queue_id),
        "/v1/bounces?domain=dest.test&pageSize=1".to_owned(),
        format!("/v1/messages/{}", refused.queue_id),
        format!("/v1/messages/{}", waiting.queue_id),
        format!("/v1/reports/{report}"),
        "/v1/reports?unmatched=true".to_owned(),
        "/v1/reports/differences".to_owned(),
        "/v1/account/default/messages".to_owned(),
        "/v1/account/default/messages?path=Bounces".to_owned(),
        format!("/v1/account/default/message/{}", refused.queue_id),
        format!("/v1/account/default/text/{}", waiting.queue_id),
        "/v1/events?pageSize=100".to_owned(),
        "/v1/outbox".to_owned(),
        format!("/v1/outbox/{}", waiting.queue_id),
        "/v1/suppressions".to_owned(),
        "/v1/webhooks/app".to_owned(),
        "/v1/mailboxes".to_owned(),
        "/v1/stats".to_owned(),
        "/health".to_owned(),
        "/metrics".to_owned(),
        "/docs".to_owned(),
    ]
}

/// What the mails of the story tell of; two of them are told once for each webhook at least.
const KINDS: [&str; 5] =
    ["messageSent", "messageDeliveryError", "messageBounce", "messageClosed", "bounceUnmatched"];

#[test]
fn schemathesis_finds_no_answer_that_the_document_does_not_tell_of() {
    let sink = Sink::scripted(Box::new(|point, _number| match point {
        Point::Rcpt(to) if to.starts_with("no") => Answer::Reply("550 5.1.1 No such user"),
        Point::Rcpt(to) if to.starts_with("later") => Answer::Reply("450 4.2.1 Not now"),
        _ => Answer::Accept,
    }));
    let receiver = Receiver::start(Box::new(|_, _| Taken::Take));
    let config = Config::new()
        .relay(sink.address)
        .preserve()
        .table(&receiver.table("app", ""))
        .table(&receiver.table("all", "format = \"events\""));
    // So that the mails are still in the queue when they are asked for.
    let daemon = Daemon::start(config.set("queue", "retry_after", "[\"1h\"]"));
    let refused = submit(daemon.smtp, APP, &["no@dest.test", "yes@dest.test"], &mail("one"));
    daemon.await_states(&refused.queue_id, &["failed", "relayed"]);
    let waiting = submit(daemon.smtp, APP, &["later@dest.test"], &mail("two"));
    daemon.await_states(&waiting.queue_id, &["deferred"]);
    let canceled = submit(daemon.smtp, APP, &["later@dest.test"], &mail("three"));
    daemon.await_states(&canceled.queue_id, &["deferred"]);
    for (message_id, recipient) in
        [(refused.message_id.as_str(), "yes@dest.test"), ("<x@elsewhere.test>", "x@dest.test")]
    {
        let report = dsn(message_id, &[(recipient, "failed")]);
        let reply = send(daemon.inbound, "bounces@app.test", &report).unwrap();
        assert!(reply.starts_with("250 "), "{reply}");
    }
    let timeline = daemon.await_states(&refused.queue_id, &["failed", "bounced"]);
    let report = timeline["reports"][0]["id"].as_str().unwrap();
    wait_for("the other report is read", SOON, || {
        (daemon.unmatched_reports().len() == 1).then_some(())
    });
    let told = receiver.wait_for("every kind of event is told in both forms", |taken| {
        let told: Vec<(String, Value)> =
            taken.iter().map(|one| (one.event().0, one.json())).collect();
        let has_all = KINDS.iter().all(|kind| told.iter().filter(|one| one.0 == *kind).count() > 1);
        has_all.then_some(told)
    });
    daemon.dir.file("told.json", json!(told).to_string());
    let (code, said) = daemon.command(&["token", "add", "all", "--scope", "admin"]);
    assert_eq!(code, 0, "{said}");
    let token = said.trim();
    let examples = json!({
        "account": "default",
        "name": "app",
        "messageId": refused.message_id,
        "id": refused.queue_id,
        "queueId": waiting.queue_id,
        "cancelOutboxEntry.queueId": canceled.queue_id,
        "reportId": report,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers/openapi.py");
    run(Command::new(python())
        .arg(script)
        .arg(format!("http://{}", daemon.http))
        .arg(token)
        .arg(daemon.dir.path())
        .arg(examples.to_string())
        .args(paths(&refused, &waiting, report))
        .stdin(Stdio::null()));
    let (status, _, _) = http::get_raw(daemon.http, "/health", "");
    assert_eq!(status, 200, "{}", daemon.log());
}
