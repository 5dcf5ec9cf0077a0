//! The feed of events: paged through, and followed as a stream.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{mail, submit};
use crate::harness::{SOON, wait_for};

const APP: &str = "anna@app.test";

/// A next hop that refuses `no@`, takes `late@` at the second try and everything else at once.
fn start() -> (Sink, Daemon) {
    let sink = Sink::scripted(Box::new(|point, number| match point {
        Point::Rcpt("no@dest.test") => Answer::Reply("550 5.1.1 No such user"),
        Point::Rcpt("late@dest.test") if number == 1 => Answer::Reply("450 4.2.1 Not now"),
        _ => Answer::Accept,
    }));
    let daemon = Daemon::start(Config::new().relay(sink.address));
    (sink, daemon)
}

/// All events behind a cursor, and the cursor behind them, in pages of two.
fn paged(daemon: &Daemon, filter: &str, from: &str) -> (Vec<Value>, String) {
    let mut cursor = from.to_owned();
    let mut events = Vec::new();
    loop {
        let (status, page) = daemon.get(&format!(
            "/v1/events?pageSize=2{filter}{}",
            if cursor.is_empty() { String::new() } else { format!("&cursor={cursor}") }
        ));
        assert_eq!(status, 200, "{page:#}");
        let found = page["events"].as_array().unwrap();
        assert!(found.len() <= 2, "{page:#}");
        events.extend(found.iter().cloned());
        page["cursor"].as_str().unwrap().clone_into(&mut cursor);
        if page["more"] == false {
            return (events, cursor);
        }
    }
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event"].as_str().unwrap()).collect()
}

/// A stream of events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(server: SocketAddr, fields: &str) -> Self {
        let mut stream = TcpStream::connect_timeout(&server, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        write!(
            stream,
            "GET /v1/events HTTP/1.1\r\nHost: {server}\r\nAccept: text/event-stream\r\n{fields}\r\n"
        )
        .unwrap();
        let mut opened = Self(BufReader::new(stream));
        opened.until(|line| line.starts_with("retry:"));
        opened
    }

    fn until(&mut self, is_it: impl Fn(&str) -> bool) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.0.read_line(&mut line).unwrap(), 0, "the stream has ended");
            if is_it(&line) {
                return line.trim_end().to_owned();
            }
        }
    }

    /// The next event: its id, and its data.
    fn next(&mut self) -> (String, Value) {
        let id = self.until(|line| line.starts_with("id: "));
        let data = self.until(|line| line.starts_with("data: "));
        let data = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        (id.strip_prefix("id: ").unwrap().to_owned(), data)
    }
}

#[test]
fn everything_is_told_once_in_order_and_cursors_outlive_a_kill_and_the_index() {
    let (_sink, mut daemon) = start();
    let queued = submit(daemon.smtp, APP, &["no@dest.test"], &mail("refused"));
    daemon.await_states(&queued.queue_id, &["failed"]);
    let told = wait_for("both are told", SOON, || {
        let (events, cursor) = paged(&daemon, "", "");
        (events.len() == 3).then_some((events, cursor))
    });
    assert_eq!(names(&told.0), ["messageFailed", "messageBounce", "messageClosed"]);
    assert_eq!(told.0[1]["data"]["capturedBy"], "inline", "{:#}", told.0[1]);
    assert_eq!(told.0[1]["message"]["queueId"], queued.queue_id, "{:#}", told.0[1]);
    daemon.kill();
    std::fs::remove_dir_all(daemon.dir.path().join("data/index")).unwrap();
    daemon.restart();
    assert_eq!(paged(&daemon, "", "").0, told.0);
    let late = submit(daemon.smtp, APP, &["late@dest.test"], &mail("late"));
    daemon.await_states(&late.queue_id, &["relayed"]);
    let later = wait_for("the later ones are told", SOON, || {
        let (events, _) = paged(&daemon, "", &told.1);
        (events.len() == 2).then_some(events)
    });
    assert_eq!(names(&later), ["messageDeliveryError", "messageSent"]);
    let (bounces, _) = paged(&daemon, "&event=messageBounce&account=default", "");
    assert_eq!(names(&bounces), ["messageBounce"]);
    assert!(paged(&daemon, "&account=somebody", "").0.is_empty());
    for wrong in ["cursor=x", "event=nothing", "pageSize=0", "page=1"] {
        let (status, answer) = daemon.get(&format!("/v1/events?{wrong}"));
        assert_eq!(status, 400, "{wrong}: {answer}");
    }
}

#[test]
fn a_stream_brings_what_happens_and_goes_on_behind_the_last_event_that_was_seen() {
    let (_sink, mut daemon) = start();
    let mut stream = Stream::open(daemon.http, "");
    let queued = submit(daemon.smtp, APP, &["no@dest.test"], &mail("refused"));
    let (failed, event) = stream.next();
    assert_eq!(event["event"], "messageFailed", "{event:#}");
    assert_eq!(event["data"]["queueId"], queued.queue_id, "{event:#}");
    drop(stream);
    daemon.await_states(&queued.queue_id, &["failed"]);
    let mut stream = Stream::open(daemon.http, &format!("Last-Event-ID: {failed}\r\n"));
    let (bounced, event) = stream.next();
    assert_eq!((&event["event"], &event["id"]), (&"messageBounce".into(), &bounced.into()));
    // A stream does not hold the daemon up.
    assert!(daemon.terminate().success());
    let mut rest = String::new();
    while stream.0.read_line(&mut rest).unwrap() > 0 {}
}
