//! The lists of the HTTP interface, paged through while mail comes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{mail, submit};
use crate::harness::{SOON, wait_for};

const APP: &str = "anna@app.test";

/// A next hop that refuses `no…@dest.test` and takes everything else.
fn start() -> (Sink, Daemon) {
    let sink = Sink::scripted(Box::new(|point, _number| match point {
        Point::Rcpt(to) if to.starts_with("no") => Answer::Reply("550 5.1.1 No such user"),
        _ => Answer::Accept,
    }));
    let daemon = Daemon::start(Config::new().relay(sink.address));
    (sink, daemon)
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
        ("/v1/bounces?", "bounces", "id"),
        ("/v1/bounces?domain=dest.test&", "bounces", "id"),
        ("/v1/bounces?recipient=no@dest.test&", "bounces", "id"),
        ("/v1/events?", "events", "id"),
    ];
    let refused = |count: usize| {
        for _ in 0..count {
            let one = submit(daemon.smtp, APP, &["no@dest.test"], &mail("one"));
            daemon.await_states(&one.queue_id, &["failed"]);
        }
    };
    refused(20);
    // Events come from the index, a moment later.
    wait_for("all events", SOON, || {
        (paged(&daemon, "/v1/events?event=messageBounce&", "events", "id").len() == 20)
            .then_some(())
    });
    let before: Vec<Vec<String>> =
        lists.iter().map(|(path, list, id)| paged(&daemon, path, list, id)).collect();
    let is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::SeqCst) {
                refused(1);
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
    for page in 0..2 {
        let path = format!("/v1/account/default/messages?page={page}&pageSize=3");
        let (_, shown) = daemon.get(&path);
        let total = shown["total"].as_u64().unwrap();
        assert!(total > 20 && shown["pages"] == total.div_ceil(3), "{shown:#}");
        assert_eq!(shown["messages"].as_array().unwrap().len(), 3);
        assert!(
            shown["messages"]
                .as_array()
                .unwrap()
                .iter()
                .all(|one| { one["bounces"].as_array().is_some_and(|bounces| bounces.len() == 1) })
        );
        assert_ne!(shown["page"], Value::Null);
    }
}
