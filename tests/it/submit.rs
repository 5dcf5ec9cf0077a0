//! Mail over HTTP: the article's exchange, attachments, idempotency, mails for later, the outbox.

use std::process::Command;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rebound::clock::Clock;
use rebound::mail::base64;
use serde_json::{Value, json};

use crate::dev::Dev;
use crate::harness::daemon::{Config, Daemon, states};
use crate::harness::postfix::Postfix;
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::{SOON, TempDir, http, program, run, smtp, wait_for};

const JSON: &str = "Content-Type: application/json\r\n";
const PATH: &str = "/v1/account/default/submit";

/// The status and answer of a submission.
fn submit(daemon: &Daemon, fields: &str, body: &Value) -> (u16, Value) {
    let fields = format!("{JSON}{fields}");
    let body = body.to_string();
    let (status, _, answer) = http::send("POST", daemon.http, PATH, &fields, body.as_bytes());
    (status, answer)
}

/// The queue id of a submission that is taken.
fn submitted(daemon: &Daemon, body: &Value) -> String {
    let (status, answer) = submit(daemon, "", body);
    assert_eq!(status, 200, "{answer}");
    answer["queueId"].as_str().unwrap().to_owned()
}

fn letter(to: &str) -> Value {
    json!({
        "from": { "name": "Anna", "address": "anna@app.test" },
        "to": { "address": to },
        "subject": "Over HTTP",
        "text": "hello"
    })
}

fn with(mut letter: Value, key: &str, value: Value) -> Value {
    letter[key] = value;
    letter
}

/// What Python's email package reads in a mail.
fn parsed(mail: &[u8]) -> Value {
    let dir = TempDir::new("parse");
    let file = dir.file("mail.eml", mail);
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/peers/parse_mail.py");
    let output = run(Command::new(program("python3", "python3")).arg(script).arg(file));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_articles_curl_runs_as_it_stands() {
    let dev = Dev::start();
    let url = format!("http://{}/v1/account/ekiri/submit", dev.http);
    let article = r#"{
          "to": {
            "address": "unknown@ethereal.email"
          },
          "subject": "Test message",
          "text": "This email should bounce!"
        }"#;
    let curl = |args: &[&str]| {
        let output = run(Command::new(program("curl", "curl")).arg("-sS").args(args));
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    let authorization = "Authorization: Bearer secret123";
    let answer = curl(&[
        "-XPOST",
        &url,
        "-H",
        authorization,
        "-H",
        "Content-type: application/json",
        "-d",
        article,
    ]);
    let keys: Vec<&String> = answer.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["response", "messageId", "sendAt", "queueId"], "{answer}");
    assert_eq!(answer["response"], "Queued for delivery");
    let id = answer["messageId"].as_str().unwrap();
    assert!(id.starts_with('<') && id.ends_with('>') && id.contains('@'), "{answer}");
    let sent_at = answer["sendAt"].as_str().unwrap();
    assert_eq!(sent_at.len(), "2022-10-12T12:10:34.845Z".len(), "{answer}");
    let bounces = format!("http://{}/v1/bounces/{}", dev.http, http::encode(id));
    let found = wait_for("it is relayed", SOON, || {
        let found = curl(&[&bounces, "-H", authorization]);
        (found["recipients"][0]["state"] == "relayed").then_some(found)
    });
    assert_eq!(found["account"], "ekiri", "{found}");
    assert_eq!(found["recipients"][0]["recipient"], "unknown@ethereal.email", "{found}");
}

#[test]
fn attachments_arrive_octet_for_octet_through_postfix() {
    let config = Config::new().verp();
    let postfix = Postfix::start(config.listen("inbound"));
    let daemon = Daemon::start(config.relay(postfix.address));
    let picture: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let table = b"a;b\r\nc;d\ne\rf\0g".to_vec();
    let queue_id = submitted(
        &daemon,
        &json!({
            "from": { "name": "Jörg \"J\" Müller", "address": "joerg@app.test" },
            "to": [{ "name": "Good, the", "address": "good@dest.test" }],
            "bcc": { "address": "ok@elsewhere.test" },
            "envelope": { "to": ["good@dest.test"] },
            "subject": "Grüße aus München, mit einem sehr langen Betreff, der umbrochen werden muss",
            "text": "plain ü\n.\nFrom here\n",
            "html": "<img src=\"cid:pic@app.test\">",
            "attachments": [
                {
                    "filename": "Übersicht \"neu\".csv", "contentType": "text/csv; charset=utf-8",
                    "content": base64::encode(&table)
                },
                {
                    "filename": "p.png", "contentType": "image/png", "cid": "pic@app.test",
                    "content": base64::encode(&picture), "contentDisposition": "inline",
                    "encoding": "base64"
                }
            ]
        }),
    );
    daemon.await_states(&queue_id, &["relayed"]);
    let mail = wait_for("Postfix delivers", SOON, || postfix.delivered().pop());
    let read = parsed(&mail);
    assert_eq!(read["defects"], json!([]), "{read}");
    assert_eq!(read["bcc"], Value::Null, "{read}");
    let headers = &read["headers"];
    assert_eq!(headers["From"], "\"Jörg \\\"J\\\" Müller\" <joerg@app.test>", "{headers}");
    assert_eq!(headers["To"], "\"Good, the\" <good@dest.test>", "{headers}");
    assert_eq!(
        headers["Subject"],
        "Grüße aus München, mit einem sehr langen Betreff, der umbrochen werden muss"
    );
    let part = |media: &str| {
        let parts = read["parts"].as_array().unwrap();
        parts.iter().find(|part| part["type"] == media).unwrap_or_else(|| panic!("{media}: {read}"))
    };
    let csv = part("text/csv");
    assert_eq!(csv["content"], base64::encode(&table), "{csv}");
    assert_eq!(csv["filename"], "Übersicht \"neu\".csv", "{csv}");
    assert_eq!(csv["disposition"], "attachment", "{csv}");
    let png = part("image/png");
    assert_eq!(png["content"], base64::encode(&picture));
    assert_eq!((&png["cid"], &png["disposition"]), (&json!("<pic@app.test>"), &json!("inline")));
    let text = part("text/plain")["content"].as_str().unwrap();
    let text = String::from_utf8(base64::decode(text.as_bytes()).unwrap()).unwrap();
    assert_eq!(text.replace("\r\n", "\n").trim_end(), "plain ü\n.\nFrom here");
    let message = daemon.message(&queue_id);
    assert_eq!(message["messageHeaders"]["message-id"][0], headers["Message-ID"], "{message}");
}

#[test]
fn what_is_only_shown_is_what_would_be_sent() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().relay(sink.address));
    let (status, shown) = submit(&daemon, "", &with(letter("b@dest.test"), "dryRun", json!(true)));
    assert_eq!((status, &shown["response"]), (200, &json!("Dry run")), "{shown}");
    let preview = base64::decode(shown["preview"].as_str().unwrap().as_bytes()).unwrap();
    let queue_id = submitted(&daemon, &letter("b@dest.test"));
    daemon.await_states(&queue_id, &["relayed"]);
    let mail = sink.mail(0).unwrap();
    let (shown_as, sent_as) = (parsed(&preview), parsed(&mail.octets));
    assert_eq!(shown_as["parts"], sent_as["parts"]);
    for name in ["From", "To", "Subject"] {
        assert_eq!(shown_as["headers"][name], sent_as["headers"][name], "{name}");
    }
    assert_eq!(shown_as["headers"]["Message-ID"], shown["messageId"]);
    assert_eq!(sink.mails().len(), 1, "what was shown was not sent");
}

#[test]
fn a_key_stands_for_its_mail_over_kill_9_and_for_all_who_come_at_once() {
    let sink = Sink::start();
    let mut daemon = Daemon::start(Config::new());
    let key = "Idempotency-Key: \"order-17\"\r\n";
    let (status, first) = submit(&daemon, key, &letter("b@dest.test"));
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["idempotency"], json!({ "key": "order-17", "status": "MISS" }));
    daemon.kill();
    daemon.restart();
    let (status, again) = submit(&daemon, key, &letter("b@dest.test"));
    assert_eq!(status, 200, "{again}");
    assert_eq!(again["idempotency"], json!({ "key": "order-17", "status": "HIT" }));
    for same in ["queueId", "messageId", "sendAt"] {
        assert_eq!(again[same], first[same], "{same}");
    }
    let (status, other) = submit(&daemon, key, &letter("eve@dest.test"));
    assert_eq!((status, &other["code"]), (422, &json!("IdempotencyKeyReused")), "{other}");
    let (status, bad) = submit(&daemon, "Idempotency-Key: \r\n", &letter("b@dest.test"));
    assert_eq!((status, &bad["fields"][0]["key"]), (400, &json!("Idempotency-Key")), "{bad}");

    let answers: Vec<Value> = thread::scope(|scope| {
        let racing: Vec<_> = (0..8)
            .map(|_| {
                let key = "Idempotency-Key: race\r\n";
                scope.spawn(|| submit(&daemon, key, &letter("c@dest.test")).1)
            })
            .collect();
        racing.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let misses = answers.iter().filter(|one| one["idempotency"]["status"] == "MISS").count();
    assert_eq!(misses, 1, "{answers:?}");
    assert!(answers.iter().all(|one| one["queueId"] == answers[0]["queueId"]), "{answers:?}");
    let (_, outbox) = daemon.get("/v1/outbox");
    assert_eq!(outbox["total"], 2, "{outbox}");
    drop(sink);
}

#[test]
fn a_mail_for_later_waits_over_kill_9_and_goes_at_its_time() {
    let sink = Sink::start();
    let config = Config::new().relay(sink.address).set("queue", "lifetime", "\"3s\"");
    let mut daemon = Daemon::start(config);
    let clock = Clock::system();
    let later = clock.now().plus(Duration::from_secs(12));
    let body = with(letter("b@dest.test"), "sendAt", json!(later.rfc3339()));
    let (status, answer) = submit(&daemon, "", &body);
    assert_eq!((status, &answer["sendAt"]), (200, &json!(later.rfc3339())), "{answer}");
    let queue_id = answer["queueId"].as_str().unwrap().to_owned();
    let control = format!(
        "Subject: by SMTP\r\nX-EE-Send-At: {}\r\nX-EE-Delivery-Attempts: 2\r\n\r\nx\r\n",
        later.rfc3339()
    );
    let by_smtp = smtp::submit(daemon.smtp, "a@app.test", &["c@dest.test"], control.as_bytes());
    daemon.kill();
    daemon.restart();
    let (_, outbox) = daemon.get("/v1/outbox?pageSize=1&page=1");
    let entry = &outbox["messages"][0];
    assert_eq!((&outbox["total"], &outbox["pages"]), (&json!(2), &json!(2)), "{outbox}");
    for (key, want) in [
        ("queueId", json!(queue_id)),
        ("account", json!("default")),
        ("source", json!("api")),
        ("messageId", answer["messageId"].clone()),
        ("envelope", json!({ "from": "anna@app.test", "to": ["b@dest.test"] })),
        ("subject", json!("Over HTTP")),
        ("scheduled", json!(later.rfc3339())),
        ("nextAttempt", json!(later.rfc3339())),
        ("attemptsMade", json!(0)),
        ("progress", json!({ "status": "queued" })),
    ] {
        assert_eq!(entry[key], want, "{key}: {entry:#}");
    }
    let (_, entry) = daemon.get(&format!("/v1/outbox/{}", by_smtp.queue_id));
    assert_eq!((&entry["source"], &entry["attempts"]), (&json!("smtp"), &json!(2)), "{entry:#}");
    assert_eq!(states(&daemon.message(&queue_id)), ["queued"]);
    let mails = sink.wait_for("both go", SOON, |mails| (mails.len() == 2).then(|| mails.to_vec()));
    assert!(clock.now() >= later, "they went before their time");
    assert!(mails.iter().all(|mail| !String::from_utf8_lossy(&mail.octets).contains("X-EE-")));
    daemon.await_states(&queue_id, &["relayed"]);
    daemon.await_states(&by_smtp.queue_id, &["relayed"]);
}

#[test]
fn the_return_tokens_of_a_mail_for_later_count_from_its_time() {
    let config = Config::new().verp().set("return_path", "token_lifetime", "\"9s\"");
    let postfix = Postfix::start(config.listen("inbound"));
    let daemon = Daemon::start(config.relay(postfix.address));
    let later = Clock::system().now().plus(Duration::from_secs(10));
    let body = with(letter("later@dest.test"), "sendAt", json!(later.rfc3339()));
    let queue_id = submitted(&daemon, &body);
    daemon.await_states(&queue_id, &["bounced"]);
}

#[test]
fn what_waits_can_be_canceled_held_released_and_tried_now() {
    let sink = Sink::start();
    let mut daemon = Daemon::start(Config::new().relay(sink.address));
    let later = Clock::system().now().plus(Duration::from_secs(86_400)).rfc3339();
    let waiting = || submitted(&daemon, &with(letter("b@dest.test"), "sendAt", json!(later)));
    let (canceled, hurried, kept) = (waiting(), waiting(), waiting());
    let (code, token) = daemon.command(&["token", "add", "ops", "--scope", "admin"]);
    assert_eq!(code, 0, "{token}");
    let token = token.split_whitespace().find(|word| word.starts_with("rebound_")).unwrap();
    let token_file = daemon.dir.file("token", token);
    let fields = format!("Authorization: Bearer {token}\r\n");
    let ask = |daemon: &Daemon, method: &str, path: &str| {
        let (status, _, answer) = http::send(method, daemon.http, path, &fields, b"");
        (status, answer)
    };
    let queue = |daemon: &Daemon, arguments: &[&str]| {
        let token = ["--token-file", token_file.to_str().unwrap()];
        daemon.command(&[&["queue"], arguments, &token].concat())
    };
    let path = |id: &str| format!("/v1/outbox/{id}");
    let (status, answer) = ask(&daemon, "DELETE", &path(&canceled));
    let want = json!({ "deleted": true, "queueId": canceled, "canceled": ["b@dest.test"] });
    assert_eq!((status, answer), (200, want));
    let (code, said) = queue(&daemon, &["hold", &kept]);
    assert!(code == 0 && said.contains("held"), "{said}");
    daemon.kill();
    daemon.restart();
    for (method, path) in [("GET", path(&canceled)), ("DELETE", path(&canceled))] {
        let (status, answer) = ask(&daemon, method, &path);
        assert_eq!((status, &answer["code"]), (404, &json!("NotInQueue")), "{answer}");
    }
    let (_, message) = ask(&daemon, "GET", &format!("/v1/messages/{canceled}"));
    assert_eq!(states(&message), ["canceled"], "{message:#}");
    assert_eq!(message["orders"][0]["action"], "cancel", "{message:#}");
    assert_eq!((&message["closed"], &message["final"]), (&json!(true), &json!(true)));

    let (_, entry) = ask(&daemon, "GET", &path(&kept));
    assert_eq!((&entry["held"], entry.get("nextAttempt")), (&json!(true), None), "{entry:#}");
    let (code, said) = queue(&daemon, &["release", &kept]);
    assert!(code == 0 && said.contains(&later), "{said}");
    let (status, _) = ask(&daemon, "POST", &format!("{}/retry", path(&hurried)));
    assert_eq!(status, 200);
    sink.wait_for_text("Over HTTP");
    let (code, said) = queue(&daemon, &["list"]);
    assert!(code == 0 && said.lines().count() == 1 && said.starts_with(&kept), "{said}");
    let (code, said) = queue(&daemon, &["delete", &kept, &canceled]);
    assert!(code == 1 && said.contains("b@dest.test  canceled"), "{said}");
    assert_eq!(sink.mails().len(), 1, "only what was to be tried now went");
    for (method, path, want) in [
        ("POST", format!("/v1/outbox/{hurried}/explode"), 404),
        ("GET", "/v1/outbox/nonsense".to_owned(), 400),
        ("GET", "/v1/outbox?pageSize=0".to_owned(), 400),
        ("DELETE", "/v1/outbox".to_owned(), 405),
    ] {
        assert_eq!(ask(&daemon, method, &path).0, want, "{method} {path}");
    }
    let (status, _, _) = http::send("DELETE", daemon.http, &path(&kept), "", b"");
    assert_eq!(status, 401, "who has no token cancels nothing");
}

#[test]
fn who_cancels_is_told_what_is_under_way() {
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let held = Arc::clone(&gate);
    let sink = Sink::scripted(Box::new(move |point, _| {
        if let Point::Data = point {
            let open = held.0.lock().unwrap();
            drop(held.1.wait_timeout_while(open, SOON, |open| !*open).unwrap());
        }
        Answer::Accept
    }));
    let daemon = Daemon::start(Config::new().relay(sink.address));
    let queue_id = submitted(&daemon, &letter("b@dest.test"));
    let path = format!("/v1/outbox/{queue_id}");
    let (_, token) = daemon.command(&["token", "add", "ops", "--scope", "admin"]);
    let token = token.split_whitespace().find(|word| word.starts_with("rebound_")).unwrap();
    let fields = format!("Authorization: Bearer {token}\r\n");
    let ask = |method: &str, path: &str| http::send(method, daemon.http, path, &fields, b"").2;
    wait_for("it is under way", SOON, || {
        (ask("GET", &path)["progress"]["status"] == "processing").then_some(())
    });
    let want = json!({
        "deleted": false, "locked": true, "queueId": queue_id, "underWay": ["b@dest.test"]
    });
    assert_eq!(ask("DELETE", &path), want);
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    wait_for("it has gone all the same, and that is what is said", SOON, || {
        let message = ask("GET", &format!("/v1/messages/{queue_id}"));
        (states(&message) == ["relayed"]).then_some(())
    });
}

#[test]
fn the_limits_of_smtp_hold_over_http() {
    let account = "[[account]]\nname = \"shop\"\nfrom = \"Shop <shop@app.test>\"\n\
                   allowed_senders = [\"@app.test\"]\nmessages_per_minute_max = 2\n";
    let daemon = Daemon::start(
        Config::new().table(account).set("submission", "message_bytes_max", "2000").set(
            "submission",
            "recipients_max",
            "2",
        ),
    );
    let post = |account: &str, body: &Value| {
        let path = format!("/v1/account/{account}/submit");
        let body = body.to_string();
        let (status, header, answer) =
            http::send("POST", daemon.http, &path, JSON, body.as_bytes());
        (status, answer["code"].as_str().unwrap_or_default().to_owned(), header)
    };
    let to = json!({ "to": { "address": "b@dest.test" } });
    let long = with(to.clone(), "text", json!("x ".repeat(2000)));
    let many = json!({ "to": [{ "address": "a@b" }, { "address": "c@d" }, { "address": "e@f" }] });
    let forged = letter("b@dest.test");
    let forged = with(forged, "from", json!({ "address": "eve@evil.test" }));
    let hidden = with(forged.clone(), "envelope", json!({ "from": "anna@app.test" }));
    for (account, body, status, code) in [
        ("nobody", &to, 404, "AccountNotFound"),
        ("default", &to, 400, "InputValidationError"),
        ("shop", &long, 413, "MessageTooLarge"),
        ("shop", &many, 400, "InputValidationError"),
        ("shop", &forged, 403, "SenderNotAllowed"),
        ("shop", &hidden, 403, "SenderNotAllowed"),
        ("shop", &to, 429, "TooManyMessages"),
    ] {
        let (got, name, header) = post(account, body);
        assert_eq!((got, name.as_str()), (status, code), "{account} {body}");
        let has_pause = header.to_ascii_lowercase().contains("retry-after: 60");
        assert_eq!(has_pause, status == 429, "{header}");
    }
    let (status, outbox) = daemon.get("/v1/outbox");
    assert_eq!((status, &outbox["total"]), (200, &json!(0)), "{outbox}");
    let from = letter("b@dest.test");
    assert_eq!(post("default", &from).0, 200);
    let (_, outbox) = daemon.get("/v1/outbox?account=default");
    assert_eq!(outbox["messages"][0]["envelope"]["from"], "anna@app.test", "{outbox}");
}

#[test]
fn hostile_bodies_are_refused_and_cost_little() {
    let daemon = Daemon::start(Config::new().set("http", "request_timeout_secs", "1").set(
        "http",
        "request_bytes_max",
        "1000000",
    ));
    let deep = "[".repeat(900_000);
    let wide = format!("[{}1]", "1,".repeat(400_000));
    let names: Vec<String> = (0..60_000).map(|n| format!("\"k{n}\":1")).collect();
    let keys = format!("{{{}}}", names.join(","));
    let injected = letter("b@dest.test\r\nRCPT TO:<eve@evil.test>").to_string();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let chunk = format!("{:x}\r\n{}\r\n", 700_000, "x".repeat(700_000));
    let bodies: Vec<(&str, Vec<u8>, u16)> = vec![
        ("", b"".to_vec(), 400),
        ("", deep.into_bytes(), 400),
        ("", wide.into_bytes(), 400),
        ("", keys.into_bytes(), 400),
        ("", b"{\"to\":{\"address\":\"\xff\xfe\"}}".to_vec(), 400),
        ("", b"{\"to\":{},\"to\":{}}".to_vec(), 400),
        ("", b"{\"subject\":\"\\ud800\"}".to_vec(), 400),
        ("", injected.into_bytes(), 400),
        ("", b"{\"raw\":\"AAAA\"}".to_vec(), 400),
        ("", vec![b' '; 1_000_001], 413),
    ];
    for (fields, body, want) in &bodies {
        let fields = format!("{JSON}{fields}");
        let (status, _, answer) = http::send("POST", daemon.http, PATH, &fields, body);
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        assert_eq!(status, *want, "{start}: {answer}");
        assert_eq!(answer["statusCode"], *want, "{start}: {answer}");
    }
    let long = [chunk.as_bytes(), chunk.as_bytes(), b"0\r\n\r\n"].concat();
    assert_eq!(daemon.raw(&format!("{JSON}{chunked}"), &long), 413);
    assert_eq!(daemon.raw(&format!("{JSON}{chunked}"), b"5\r\n{\"to\""), 408, "it never ends");
    assert_eq!(daemon.raw("Content-Type: text/plain\r\nContent-Length: 2\r\n", b"{}"), 415);
    let queue_id = submitted(&daemon, &letter("b@dest.test"));
    assert_eq!(states(&daemon.message(&queue_id)), ["queued"]);
    let (_, outbox) = daemon.get("/v1/outbox");
    assert_eq!(outbox["total"], 1, "{outbox}");
    assert!(daemon.memory_max() < 300 << 20, "{} octets", daemon.memory_max());
}

impl Daemon {
    /// The status of the answer to a submission with header lines and a body as they are.
    fn raw(&self, fields: &str, body: &[u8]) -> u16 {
        http::exchange("POST", self.http, PATH, fields, body).unwrap().0
    }
}
