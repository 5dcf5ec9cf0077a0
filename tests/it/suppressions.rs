//! Addresses that bounce: what counts against them, what is refused then, and what it survives.

use serde_json::{Value, json};

use crate::harness::daemon::{Config, Daemon};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{Client, Queued, mail, submit};
use crate::harness::{SOON, http, wait_for};

const APP: &str = "anna@app.test";
const JSON: &str = "Content-Type: application/json\r\n";

/// A next hop that refuses by the local part, and a daemon behind it.
fn start(config: impl FnOnce(Config) -> Config) -> (Sink, Daemon) {
    let sink = Sink::scripted(Box::new(|point, _| match point {
        Point::Rcpt(to) if to.starts_with("gone") => Answer::Reply("550 5.1.1 no such user"),
        Point::Rcpt(to) if to.starts_with("full") => Answer::Reply("552 5.2.2 mailbox full"),
        Point::Rcpt(to) if to.starts_with("spf") => {
            Answer::Reply("550 5.7.26 unauthenticated mail is not accepted, SPF failed")
        }
        _ => Answer::Accept,
    }));
    let base = Config::new().verp().relay(sink.address);
    let base = base.set("return_path", "forward_to", "\"none\"");
    let daemon = Daemon::start(config(base));
    (sink, daemon)
}

fn reject(config: Config) -> Config {
    config.set("suppression", "mode", "\"reject\"")
}

fn send_to(daemon: &Daemon, to: &str, state: &str) -> Queued {
    let queued = submit(daemon.smtp, APP, &[to], &mail("to one"));
    daemon.await_states(&queued.queue_id, &[state]);
    queued
}

/// The entry of a recipient; `null` without one.
fn entry(daemon: &Daemon, recipient: &str) -> Value {
    let (status, page) = daemon.get(&format!("/v1/suppressions?recipient={recipient}"));
    assert_eq!(status, 200, "{page}");
    page["suppressions"][0].clone()
}

fn rcpt(daemon: &Daemon, to: &str) -> String {
    let mut client = Client::connect(daemon.smtp);
    client.say(&format!("MAIL FROM:<{APP}>"));
    let reply = client.say(&format!("RCPT TO:<{to}>"));
    client.say("QUIT");
    reply
}

/// Makes an administrator; the header line that shows him.
fn admin(daemon: &Daemon, more: &[&str]) -> String {
    let name = format!("admin{}", more.len());
    let arguments = [&["token", "add", &name, "--scope", "admin"], more].concat();
    let (code, token) = daemon.command(&arguments);
    assert_eq!(code, 0, "{token}");
    let token = token.lines().find(|line| line.starts_with("rebound_")).unwrap();
    format!("Authorization: Bearer {token}\r\n")
}

fn ask(daemon: &Daemon, method: &str, path: &str, fields: &str, body: &str) -> (u16, Value) {
    // A body is JSON unless the test says otherwise.
    let is_json = !body.is_empty() && !fields.contains("Content-Type:");
    let json = if is_json { JSON } else { "" };
    let fields = format!("{json}{fields}");
    let (status, _, answer) = http::send(method, daemon.http, path, &fields, body.as_bytes());
    (status, answer)
}

#[test]
fn the_recipients_own_fault_counts_and_nothing_else_does() {
    let (sink, daemon) = start(|config| config);
    send_to(&daemon, "gone@Dest.TEST", "failed");
    let gone = entry(&daemon, "gone@dest.test");
    assert_eq!((&gone["suppressed"], &gone["hardBounces"]), (&json!(true), &json!(1)), "{gone}");
    assert_eq!(gone["category"], "user_unknown");
    send_to(&daemon, "spf@dest.test", "failed");
    assert_eq!(entry(&daemon, "spf@dest.test"), Value::Null, "the sender's fault");
    for count in 1..=5 {
        send_to(&daemon, "full@dest.test", "failed");
        let full = entry(&daemon, "full@dest.test");
        assert_eq!(full["softBounces"], count);
        assert_eq!(full["suppressed"], count == 5, "{full}");
    }
    // In `observe` the mail goes on, and it is shown what would have been refused.
    assert!(rcpt(&daemon, "gone@dest.test").starts_with("250 "));
    assert_eq!(entry(&daemon, "gone@dest.test")["hits"], 1);
    let (_, _, metrics) = http::get_raw(daemon.http, "/metrics", "");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(metrics.contains("rebound_suppressed_total{result=\"observed\"} 1"), "{metrics}");

    // A report counts once, with a token that is good; one that guesses or is forged does not.
    let queued = send_to(&daemon, "late@dest.test", "relayed");
    let sent = sink.wait_for_text(&format!("{}\r\n", queued.message_id));
    let report = dsn(&queued.message_id, &[("late@dest.test", "failed")]);
    let forged = sent.from.replace("b+", "b+x");
    assert!(send(daemon.inbound, &forged, &report).unwrap().starts_with("550 "));
    assert_eq!(entry(&daemon, "late@dest.test"), Value::Null);
    for _ in 0..2 {
        assert!(send(daemon.inbound, &sent.from, &report).unwrap().starts_with("250 "));
        daemon.await_states(&queued.queue_id, &["bounced"]);
        assert_eq!(entry(&daemon, "late@dest.test")["hardBounces"], 1);
    }
    let bearer = admin(&daemon, &[]);
    let (status, answer) = http::post(daemon.http, "/v1/reports/differences", &bearer);
    assert_eq!(status, 200, "{answer}");
    let (_, page) = ask(&daemon, "GET", "/v1/suppressions?recipient=late@dest.test", &bearer, "");
    assert_eq!(page["suppressions"][0]["hardBounces"], 1, "reading again counts nothing twice");
}

#[test]
fn a_report_that_matches_by_recipient_alone_counts_for_nothing() {
    let sink = Sink::start();
    let config = Config::new().preserve().relay(sink.address);
    let config = config.set("return_path", "forward_to", "\"none\"").set(
        "bounces",
        "low_confidence_changes_state",
        "true",
    );
    let daemon = Daemon::start(config);
    let queued = submit(daemon.smtp, "bounces@app.test", &["b@dest.test"], &mail("guessed"));
    daemon.await_states(&queued.queue_id, &["relayed"]);
    let report = dsn("<unknown@elsewhere.test>", &[("b@dest.test", "failed")]);
    send(daemon.inbound, "bounces@app.test", &report).unwrap();
    daemon.await_states(&queued.queue_id, &["bounced"]);
    assert_eq!(entry(&daemon, "b@dest.test"), Value::Null);
}

#[test]
fn who_is_suppressed_is_refused_also_after_a_kill_and_the_others_get_their_mail() {
    let (sink, mut daemon) = start(reject);
    send_to(&daemon, "gone@dest.test", "failed");
    for _ in 0..2 {
        let mut client = Client::connect(daemon.smtp);
        client.say(&format!("MAIL FROM:<{APP}>"));
        let refused = client.say("RCPT TO:<GONE@dest.test>");
        let want = "550 5.1.1 <GONE@dest.test> is not written to, it bounced before: user_unknown";
        assert_eq!(refused, want);
        assert!(client.say("RCPT TO:<good@dest.test>").starts_with("250 "));
        client.say("DATA");
        client.raw(b"Subject: for the other\r\n\r\nx\r\n.\r\n").unwrap();
        assert!(client.reply().unwrap().starts_with("250 "));
        daemon.kill();
        daemon.restart();
    }
    let mail = sink.wait_for_text("Subject: for the other\r\n");
    assert_eq!(mail.to, ["good@dest.test"]);
    assert_eq!(entry(&daemon, "gone@dest.test")["suppressed"], true);
}

#[test]
fn over_http_who_is_suppressed_is_shown_as_such_and_the_others_get_the_mail() {
    let (sink, mut daemon) = start(reject);
    send_to(&daemon, "gone@dest.test", "failed");
    let submitted = |daemon: &Daemon, to: &[&str]| {
        let to: Vec<Value> = to.iter().map(|to| json!({ "address": to })).collect();
        let from = json!({ "address": APP });
        let mail = json!({ "from": from, "to": to, "subject": "for some", "text": "x" });
        let path = "/v1/account/default/submit";
        let (status, answer) = ask(daemon, "POST", path, "", &mail.to_string());
        assert_eq!(status, 200, "{answer}");
        answer["queueId"].as_str().unwrap().to_owned()
    };
    let some = submitted(&daemon, &["gone@dest.test", "good@dest.test"]);
    daemon.await_states(&some, &["suppressed", "relayed"]);
    assert_eq!(sink.wait_for_text("Subject: for some\r\n").to, ["good@dest.test"]);
    let alone = submitted(&daemon, &["gone@dest.test"]);
    for _ in 0..2 {
        let shown = daemon.await_states(&alone, &["suppressed"]);
        assert_eq!(
            (&shown["final"], &shown["recipients"][0]["attempts"]),
            (&json!(true), &json!([]))
        );
        let (_, queue) = daemon.get("/v1/outbox");
        assert_eq!(queue["total"], 0, "{queue}");
        daemon.kill();
        daemon.restart();
    }
    daemon.await_states(&some, &["suppressed", "relayed"]);
}

#[test]
fn an_entry_ends_with_its_time_or_by_hand() {
    let (_sink, daemon) = start(|config| reject(config).set("suppression", "expire", "\"8s\""));
    send_to(&daemon, "gone@dest.test", "failed");
    assert!(rcpt(&daemon, "gone@dest.test").starts_with("550 5.1.1 "));
    wait_for("the entry ends", SOON, || {
        rcpt(&daemon, "gone@dest.test").starts_with("250 ").then_some(())
    });
    assert_eq!(entry(&daemon, "gone@dest.test"), Value::Null);

    let bearer = admin(&daemon, &[]);
    let by_hand = json!({ "recipient": "Left@dest.test", "reason": "asked to" }).to_string();
    let (status, added) = ask(&daemon, "POST", "/v1/suppressions", &bearer, &by_hand);
    assert_eq!((status, &added["byHand"]), (200, &json!(true)), "{added}");
    assert_eq!((&added["recipient"], &added["expires"]), (&json!("left@dest.test"), &Value::Null));
    let refused = rcpt(&daemon, "left@dest.test");
    assert_eq!(refused, "550 5.1.1 <left@dest.test> is not written to, it was suppressed by hand");
    let path = "/v1/suppressions?recipient=LEFT@dest.test";
    assert_eq!(ask(&daemon, "DELETE", path, &bearer, "").0, 200);
    assert!(rcpt(&daemon, "left@dest.test").starts_with("250 "));
    let (status, missing) = ask(&daemon, "DELETE", path, &bearer, "");
    assert_eq!((status, &missing["code"]), (404, &json!("SuppressionNotFound")));
}

#[test]
fn a_table_comes_back_as_it_was_whatever_its_cells_hold() {
    let (_sink, daemon) = start(reject);
    let bearer = admin(&daemon, &[]);
    let csv = format!("{bearer}Content-Type: text/csv\r\nAccept: text/csv\r\n");
    let reasons =
        ["=HYPERLINK(\"http://x\")", "two\r\nlines, \"quoted\"", "+1", "-", "@a", "é ' ; \t"];
    let mut table = "recipient,reason,account,more\r\n".to_owned();
    for (number, reason) in reasons.iter().enumerate() {
        table += &format!("r{number}@dest.test,\"{}\",,x\r\n", reason.replace('"', "\"\""));
    }
    let (status, answer) = ask(&daemon, "POST", "/v1/suppressions", &csv, &table);
    assert_eq!((status, &answer["added"]), (200, &json!(reasons.len())), "{answer}");
    let path = |number: usize| format!("/v1/suppressions?recipient=r{number}@dest.test");
    let assert_reasons = || {
        for (number, reason) in reasons.iter().enumerate() {
            let (_, page) = ask(&daemon, "GET", &path(number), &bearer, "");
            assert_eq!(page["suppressions"][0]["reason"], *reason);
        }
    };
    assert_reasons();
    let (status, header, export) = http::get_raw(daemon.http, "/v1/suppressions", &csv);
    assert_eq!(status, 200);
    assert!(header.to_ascii_lowercase().contains("content-type: text/csv"), "{header}");
    for number in 0..reasons.len() {
        assert_eq!(ask(&daemon, "DELETE", &path(number), &bearer, "").0, 200);
    }
    let export = String::from_utf8(export).unwrap();
    let (status, answer) = ask(&daemon, "POST", "/v1/suppressions", &csv, &export);
    assert_eq!((status, &answer["added"]), (200, &json!(reasons.len())), "{answer}");
    assert_reasons();

    for (wrong, line) in [
        ("recipient\r\n\"a@b.test", "line 2"),
        ("recipient\r\na@b.test\r\nnobody\r\n", "line 3"),
        ("recipient,until\r\na@b.test,soon\r\n", "line 2"),
        ("address\r\na@b.test\r\n", "the first line"),
    ] {
        let (status, answer) = ask(&daemon, "POST", "/v1/suppressions", &csv, wrong);
        let message = answer["fields"][0]["message"].as_str().unwrap_or_default();
        assert_eq!((status, message.contains(line)), (400, true), "{answer}");
    }
    let (_, page) = ask(&daemon, "GET", "/v1/suppressions?recipient=a@b.test", &bearer, "");
    assert_eq!(page, json!({ "suppressions": [] }), "a wrong table adds nothing");
}

#[test]
fn the_list_is_paged_and_each_account_sees_its_own() {
    let (_sink, daemon) = start(|config| config);
    let all = admin(&daemon, &[]);
    let shop = admin(&daemon, &["--account", "shop"]);
    for number in 0..5 {
        for account in ["default", "shop"] {
            let one = json!({ "recipient": format!("r{number}@x.test"), "account": account });
            let (status, answer) = ask(&daemon, "POST", "/v1/suppressions", &all, &one.to_string());
            assert_eq!(status, 200, "{answer}");
        }
    }
    let paged = |token: &str| {
        let mut seen = Vec::new();
        let mut path = "/v1/suppressions?pageSize=2".to_owned();
        loop {
            let (status, page) = ask(&daemon, "GET", &path, token, "");
            assert_eq!(status, 200, "{page}");
            let entries = page["suppressions"].as_array().unwrap();
            seen.extend(
                entries.iter().map(|one| format!("{} {}", one["account"], one["recipient"])),
            );
            let Some(cursor) = page["cursor"].as_str() else { return seen };
            path = format!("/v1/suppressions?pageSize=2&cursor={}", http::encode(cursor));
        }
    };
    let seen = paged(&all);
    assert_eq!((seen.len(), seen.is_sorted()), (10, true), "{seen:?}");
    assert_eq!(paged(&shop).len(), 5);
    let other = json!({ "recipient": "r@x.test", "account": "default" }).to_string();
    for (method, path, body, want) in [
        ("GET", "/v1/suppressions?account=default", "", 403),
        ("DELETE", "/v1/suppressions?account=default&recipient=r0@x.test", "", 403),
        ("POST", "/v1/suppressions", other.as_str(), 403),
        ("POST", "/v1/suppressions", "{\"recipient\":\"r9@x.test\"}", 200),
        ("POST", "/v1/suppressions", "{\"recipient\":1,\"x\":2}", 400),
        ("POST", "/v1/suppressions", "[]", 400),
        ("GET", "/v1/suppressions?cursor=x", "", 400),
        ("GET", "/v1/suppressions?suppressed=1", "", 400),
    ] {
        let (status, answer) = ask(&daemon, method, path, &shop, body);
        assert_eq!(status, want, "{method} {path} {body}: {answer}");
    }
    assert_eq!(paged(&shop).len(), 6);
    assert_eq!(ask(&daemon, "POST", "/v1/suppressions", "", "{}").0, 401);
}

#[test]
fn bodies_that_are_too_large_or_too_slow_are_refused() {
    let (_sink, daemon) = start(|config| {
        config.set("http", "request_bytes_max", "1000").set("http", "request_timeout_secs", "1")
    });
    let bearer = admin(&daemon, &[]);
    let (status, answer) = ask(&daemon, "POST", "/v1/suppressions", &bearer, &"x".repeat(1001));
    assert_eq!((status, &answer["code"]), (413, &json!("BodyTooLarge")), "{answer}");
    // One that does not say how large it is.
    let chunked = format!("{bearer}{JSON}Transfer-Encoding: chunked\r\n");
    let body = format!("3e9\r\n{}\r\n0\r\n\r\n", "x".repeat(1001));
    let (status, _, _) =
        http::exchange("POST", daemon.http, "/v1/suppressions", &chunked, body.as_bytes()).unwrap();
    assert_eq!(status, 413);
    let promised = format!("{bearer}{JSON}Content-Length: 10\r\n");
    let (status, _, body) =
        http::exchange("POST", daemon.http, "/v1/suppressions", &promised, b"{").unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &answer["code"]), (408, &json!("RequestTimeout")), "{answer}");
    // Who may not write is told before he has sent anything.
    let empty = "Content-Length: 900\r\n";
    let (status, _, _) =
        http::exchange("POST", daemon.http, "/v1/suppressions", empty, b"").unwrap();
    assert_eq!(status, 401);
}
