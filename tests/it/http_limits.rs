//! Who may ask over HTTP, for what, how often and how slowly.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::daemon::{Config, Daemon};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{mail, submit};
use crate::harness::{SOON, http, wait_for};

const APP: &str = "anna@app.test";

/// Makes a token; the header line that shows it.
fn bearer(daemon: &Daemon, arguments: &[&str]) -> String {
    let (code, said) = daemon.command(&[&["token", "add"], arguments].concat());
    assert_eq!(code, 0, "{said}");
    let token = said.lines().find(|line| line.starts_with("rebound_")).unwrap();
    format!("Authorization: Bearer {token}\r\n")
}

fn get(daemon: &Daemon, path: &str, fields: &str) -> (u16, Value) {
    let (status, _, body) = http::get_raw(daemon.http, path, fields);
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

#[test]
fn a_token_for_an_account_shows_nothing_of_others() {
    let sink = Sink::scripted(Box::new(|point, _| match point {
        Point::Rcpt("gone@dest.test") => Answer::Reply("550 5.1.1 no such user"),
        _ => Answer::Accept,
    }));
    let config = Config::new().verp().relay(sink.address);
    let daemon = Daemon::start(config.set("return_path", "forward_to", "\"none\""));
    let queued = submit(daemon.smtp, APP, &["gone@dest.test"], &mail("refused"));
    daemon.await_states(&queued.queue_id, &["failed"]);
    let later = submit(daemon.smtp, APP, &["late@dest.test"], &mail("reported"));
    let sent = sink.wait_for_text("Subject: reported\r\n");
    daemon.await_states(&later.queue_id, &["relayed"]);
    send(daemon.inbound, &sent.from, &dsn(&later.message_id, &[("late@dest.test", "failed")]))
        .unwrap();
    let told = daemon.await_states(&later.queue_id, &["bounced"]);
    let report = told["reports"][0]["id"].as_str().unwrap();

    let own = bearer(&daemon, &["own", "--account", "default", "--scope", "admin"]);
    let other = bearer(&daemon, &["other", "--account", "shop"]);
    let all = bearer(&daemon, &["all", "--scope", "admin"]);
    let message_id = http::encode(&queued.message_id);
    for path in [
        format!("/v1/bounces/{message_id}"),
        format!("/v1/bounces?queueId={}", queued.queue_id),
        format!("/v1/messages/{}", queued.queue_id),
        format!("/v1/messages/{message_id}"),
        format!("/v1/messages/{message_id}/wait?for=final"),
        format!("/v1/reports/{report}"),
        format!("/v1/reports/{report}/source"),
    ] {
        for (token, want) in [(&own, 200), (&all, 200), (&other, 404)] {
            let (status, answer) = get(&daemon, &path, token);
            assert_eq!(status, want, "{path} {answer}");
        }
        let (_, answer) = get(&daemon, &path, &other);
        assert_eq!(answer["reason"], "never_seen", "{answer}");
    }
    let list = "/v1/bounces?recipient=gone@dest.test";
    for (token, want) in [(&own, 1), (&all, 1), (&other, 0)] {
        let (status, answer) = get(&daemon, list, token);
        assert_eq!((status, answer["bounces"].as_array().unwrap().len()), (200, want), "{answer}");
    }
    for (token, account, want, is_shown) in
        [(&own, "", 200, true), (&other, "", 200, false), (&other, "&account=default", 403, false)]
    {
        let (status, answer) = get(&daemon, &format!("/v1/events?pageSize=100{account}"), token);
        assert_eq!(status, want, "{answer}");
        let shown = answer["events"].as_array().map_or(0, Vec::len);
        assert_eq!(shown > 0, is_shown, "{answer}");
    }
    // What is for all accounts is for nobody who has one of them, whatever he may do with it.
    for path in
        ["/v1/reports?unmatched=true", "/v1/reports/differences", "/v1/mailboxes", "/metrics"]
    {
        for (token, want) in [(&own, 403), (&all, 200), (&other, 403)] {
            assert_eq!(get(&daemon, path, token).0, want, "{path}");
        }
    }
    assert_eq!(http::post(daemon.http, "/v1/reports/differences", &own).0, 403);
    assert_eq!(http::post(daemon.http, "/v1/reports/differences", &all).0, 200);
}

#[test]
fn a_token_ends_with_its_time_or_its_revocation_and_then_nothing_is_open() {
    let daemon = Daemon::start(Config::new());
    let path = "/v1/bounces?recipient=a@b.test";
    assert_eq!(daemon.get(path).0, 200, "without any token loopback may ask");
    let brief = bearer(&daemon, &["brief", "--expires", "2s"]);
    let (status, answer) = daemon.get(path);
    assert_eq!((status, &answer["code"]), (401, &json!("Unauthorized")));
    wait_for("the token ends", SOON, || {
        let (status, answer) = get(&daemon, path, &brief);
        (status == 401).then(|| assert_eq!(answer["message"], "The token has expired"))
    });
    let (code, said) = daemon.command(&["token", "list"]);
    assert_eq!((code, said.trim_end().ends_with("\texpired")), (0, true), "{said}");
    let lasting = bearer(&daemon, &["lasting"]);
    assert_eq!(get(&daemon, path, &lasting).0, 200);
    for name in ["brief", "lasting"] {
        assert_eq!(daemon.command(&["token", "revoke", name]), (0, String::new()));
    }
    assert_eq!(get(&daemon, path, &lasting).0, 401);
    assert_eq!(daemon.get(path).0, 401, "revoking the last token opens nothing");
    assert_eq!(daemon.get("/health").0, 200);
    for (wrong, code) in [
        (&["token", "add", "a b"][..], 64),
        (&["token", "add", "a", "--expires", "soon"], 64),
        (&["token", "add", "a", "--account", "a b"], 64),
        (&["token", "revoke", "nobody"], 1),
    ] {
        assert_eq!(daemon.command(wrong).0, code, "{wrong:?}");
    }
}

#[test]
fn who_asks_too_often_is_told_when_to_come_back() {
    let daemon = Daemon::start(Config::new().set("http", "requests_per_minute_max", "3"));
    let one = bearer(&daemon, &["one"]);
    let two = bearer(&daemon, &["two"]);
    let path = "/v1/bounces?recipient=a@b.test";
    for token in [&one, &two] {
        for _ in 0..3 {
            assert_eq!(get(&daemon, path, token).0, 200);
        }
        let (status, header, body) = http::get_raw(daemon.http, path, token);
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((status, &body["code"]), (429, &json!("TooManyRequests")), "{header}");
        let header = header.to_ascii_lowercase();
        let wait = header.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
        assert!((1..=61).contains(&wait.parse().unwrap()), "{header}");
    }
    // Those without a good token share what their address has.
    for wrong in ["", "Authorization: Bearer x\r\n", "Authorization: Bearer y\r\n"] {
        assert_eq!(get(&daemon, path, wrong).0, 401);
    }
    assert_eq!(get(&daemon, path, "").0, 429);
    assert_eq!(daemon.get("/health").0, 200, "who watches is not counted");
}

#[test]
fn who_does_not_take_the_answers_is_cut_off() {
    let daemon = Daemon::start(Config::new().set("http", "write_timeout_secs", "1"));
    let mut stream = TcpStream::connect(daemon.http).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(10))).unwrap();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", daemon.http).repeat(1000);
    // Asks on and reads nothing, until all buffers are full and the time is over.
    let error = wait_for("the connection ends", SOON, || match stream.write(request.as_bytes()) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => Some(error),
        Ok(_) => None,
    });
    assert!(matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{error}");
    assert_eq!(daemon.get("/health").0, 200);
}

#[test]
fn one_address_cannot_take_all_connections() {
    let config = Config::new().set("http", "connections_per_address_max", "2").set(
        "http",
        "header_timeout_secs",
        "1",
    );
    let daemon = Daemon::start(config);
    // An answer to each, so that both are known to be inside.
    let request = format!("GET /health HTTP/1.1\r\nHost: {}\r\n\r\n", daemon.http);
    let hold = |_| {
        let mut stream = TcpStream::connect(daemon.http).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        assert!(stream.read(&mut [0; 16]).unwrap() > 0);
        stream
    };
    let held: Vec<TcpStream> = (0..2).map(hold).collect();
    let (status, refused) = daemon.get("/health");
    assert_eq!((status, &refused["code"]), (503, &json!("TooManyConnections")));
    // Who sends no header in time makes room.
    for mut stream in held {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    wait_for("there is room", SOON, || (daemon.get("/health").0 == 200).then_some(()));
}
