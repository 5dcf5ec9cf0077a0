//! The lists of the HTTP interface, paged through while mail comes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{mail, submit};
use crate::harness::{SOON, wait_for};

const APP: &str = "anna@app.test";
const BOUNCES: &str = "bounces@app.test";

/// A next hop that refuses `no…@dest.test`, puts `later…` off and takes everything else.
fn start() -> (Sink, Daemon) {
    let sink = Sink::scripted(Box::new(|point, _number| match point {
        Point::Rcpt(to) if to.starts_with("no") => Answer::Reply("550 5.1.1 No such user"),
        Point::Rcpt(to) if to.starts_with("later") => Answer::Reply("450 4.2.1 Not now"),
        _ => Answer::Accept,
    }));
    let config = Config::new().relay(sink.address).preserve();
    let config = config.set("queue", "retry_after", "[\"1h\"]");
    let daemon = Daemon::start(config.set("inbound", "addresses", &format!("[\"{BOUNCES}\"]")));
    (sink, daemon)
}

/// Adds one entry, at least, to every list.
fn something_happens(daemon: &Daemon, number: usize) {
    let refused = ["no@dest.test", &format!("no{number}@dest.test")];
    let one = submit(daemon.smtp, APP, &refused, &mail("one"));
    daemon.await_states(&one.queue_id, &["failed", "failed"]);
    submit(daemon.smtp, APP, &["later@dest.test"], &mail("later"));
    let late = submit(daemon.smtp, APP, &["late@dest.test"], &mail("late"));
    daemon.await_states(&late.queue_id, &["relayed"]);
    let nobodys = format!("<nobodys-{number}@app.test>");
    for (message_id, to) in [(&late.message_id, "late"), (&nobodys, "nobody")] {
        let report = dsn(message_id, &[(&format!("{to}@dest.test"), "failed")]);
        let reply = send(daemon.inbound, BOUNCES, &report).unwrap();
        assert!(reply.starts_with("250 "), "{reply}");
    }
    daemon.await_states(&late.queue_id, &["bounced"]);
}

/// The ids of all entries of a list, page by page; each page is asked for with `between` done.
fn paged(daemon: &Daemon, path: &str, list: &str, id: &str) -> Vec<String> {
    let mut ids = Vec::new();
    let mut cursor = String::new();
    loop {
        let (status, page) = daemon.get(&format!("{path}pageSize=3{cursor}"));
        assert_eq!(status, 200, "{page:#}");
        let entries = page[list].as_array().unwrap();
        ids.extend(entries.iter().map(|one| one[id].as_str().unwrap().to_owned()));
        let is_over = page["more"] == false;
        match page["cursor"].as_str() {
            Some(next) if !is_over => cursor = format!("&cursor={next}"),
            _ => return ids,
        }
    }
}

#[test]
fn every_list_is_paged_to_its_end_while_mail_comes_without_gaps_or_repeats() {
    let (_sink, daemon) = start();
    let lists = [
        ("/v1/account/default/messages?", "messages", "id"),
        ("/v1/account/default/messages?path=Bounces&", "messages", "id"),
        ("/v1/bounces?", "bounces", "id"),
        ("/v1/bounces?domain=dest.test&", "bounces", "id"),
        ("/v1/bounces?recipient=no@dest.test&", "bounces", "id"),
        ("/v1/events?", "events", "id"),
        ("/v1/outbox?", "messages", "queueId"),
        ("/v1/reports?", "reports", "id"),
        ("/v1/reports?unmatched=true&", "reports", "id"),
        ("/v1/suppressions?", "suppressions", "recipient"),
    ];
    (0..BEFORE).for_each(|number| something_happens(&daemon, number));
    // Reports are captured, and events come from the index, a moment later.
    wait_for("all events", SOON, || {
        let count = |event| paged(&daemon, &format!("/v1/events?event={event}&"), "events", "id");
        let (bounces, unmatched) = (count("messageBounce"), count("bounceUnmatched"));
        (bounces.len() == 3 * BEFORE && unmatched.len() == BEFORE).then_some(())
    });
    let before: Vec<Vec<String>> =
        lists.iter().map(|(path, list, id)| paged(&daemon, path, list, id)).collect();
    for ((path, ..), before) in lists.iter().zip(&before) {
        assert!(before.len() >= BEFORE, "{path}: {}", before.len());
    }
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut number = BEFORE;
            while !is_done.load(Ordering::SeqCst) {
                something_happens(&daemon, number);
                number += 1;
            }
        });
        for ((path, list, id), before) in lists.iter().zip(&before) {
            let during = paged(&daemon, path, list, id);
            let distinct: BTreeSet<&String> = during.iter().collect();
            assert_eq!(distinct.len(), during.len(), "{path} repeats itself");
            let known: Vec<&String> = during.iter().filter(|one| before.contains(one)).collect();
            assert_eq!(known, before.iter().collect::<Vec<_>>(), "{path} has a gap");
        }
        is_done.store(true, Ordering::SeqCst);
    });
    pages_are_numbered(&daemon, "/v1/account/default/messages?");
    pages_are_numbered(&daemon, "/v1/account/default/messages?path=Bounces&");
    pages_are_numbered(&daemon, "/v1/outbox?");
}

/// Pages have numbers where EmailEngine's have, and each says how many there are.
fn pages_are_numbered(daemon: &Daemon, path: &str) {
    let page = |number: usize| {
        let (status, page) = daemon.get(&format!("{path}page={number}&pageSize=3"));
        assert_eq!((status, &page["page"]), (200, &Value::from(number)), "{page:#}");
        page
    };
    let (first, second) = (page(0), page(1));
    let total = first["total"].as_u64().unwrap();
    assert!(total >= 10 && first["pages"] == total.div_ceil(3), "{first:#}");
    let of = |page: &Value| page["messages"].as_array().unwrap().clone();
    assert_eq!((of(&first).len(), of(&second).len()), (3, 3), "{path}");
    assert!(of(&first).iter().all(|one| !of(&second).contains(one)), "{path}");
    let behind = page(usize::try_from(total).unwrap());
    assert_eq!((of(&behind), &behind["cursor"]), (vec![], &Value::Null), "{path}");
}

/// How often something happens before the lists are paged.
const BEFORE: usize = 10;
