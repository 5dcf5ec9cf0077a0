//! kill -9 under load: what was acknowledged is never lost, and nothing is counted twice.
//!
//! `REBOUND_KILLS=50 cargo test --release --test it crash` is the long version.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Mail, Sink};
use crate::harness::smtp::{Client, Queued, queued};
use crate::harness::wait_for;

const APP: &str = "anna@app.test";
const SUBMITTERS: usize = 6;

#[test]
fn nothing_acknowledged_is_lost_when_the_daemon_is_killed_again_and_again() {
    let kills = std::env::var_os("REBOUND_KILLS")
        .map_or(8, |text| text.to_str().unwrap().parse::<u32>().unwrap());
    let sink = Sink::start();
    let config = Config::new()
        .verp()
        .relay(sink.address)
        .set("return_path", "forward_to", "\"none\"")
        .set("log", "level", "\"info\"");
    let mut daemon = Daemon::start(config);
    let (smtp, inbound) = (daemon.smtp, daemon.inbound);
    let acknowledged: Mutex<Vec<Queued>> = Mutex::default();
    let reported: Mutex<BTreeSet<String>> = Mutex::default();
    let (over, failed) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        for worker in 0..SUBMITTERS {
            let (acknowledged, over) = (&acknowledged, &over);
            scope.spawn(move || submit_until(over, smtp, worker, acknowledged));
        }
        let end = End { over: &over, failed: &failed };
        let (reported, end_ref, sink_ref) = (&reported, (&over, &failed), &sink);
        scope.spawn(move || report_until(end_ref, inbound, sink_ref, reported));
        let mut random: u64 = 20_261_123;
        // Nobody sends: the wait for a message is the random time between two kills.
        let (_never, timer) = mpsc::channel::<()>();
        for _ in 0..kills {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let pause = Duration::from_millis(100 + (random >> 33) % 900);
            assert_eq!(timer.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Timeout));
            daemon.kill();
            daemon.restart();
        }
        drop(end);
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let reported = reported.into_inner().unwrap();
    println!("{kills} kills, {} mails, {} reports", acknowledged.len(), reported.len());
    assert!(acknowledged.len() > 20, "there was hardly any load: {}", acknowledged.len());
    assert_all_arrived(&sink, &acknowledged);
    let patience = Duration::from_secs(60);
    for Queued { queue_id, message_id } in &acknowledged {
        let want = if reported.contains(message_id) { "bounced" } else { "relayed" };
        let message = wait_for(&format!("{queue_id} is {want}"), patience, || {
            let message = daemon.message(queue_id);
            (message["recipients"][0]["state"] == want).then_some(message)
        });
        assert_eq!(message["messageId"], message_id.as_str());
        let bounces = message["bounces"].as_array().map_or(0, Vec::len);
        let want = usize::from(reported.contains(message_id));
        assert_eq!(bounces, want, "a report is captured once: {message:#}");
    }
}

/// Ends the load when it is dropped, also by a failure: the scope waits for those who make it.
struct End<'a> {
    over: &'a AtomicBool,
    failed: &'a AtomicBool,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.failed.store(std::thread::panicking(), Ordering::SeqCst);
        self.over.store(true, Ordering::SeqCst);
    }
}

/// Every acknowledged mail is in the sink at least once.
fn assert_all_arrived(sink: &Sink, acknowledged: &[Queued]) {
    let mut missing: BTreeSet<&str> =
        acknowledged.iter().map(|queued| queued.message_id.as_str()).collect();
    let mut seen = 0;
    sink.wait_for("every mail", Duration::from_secs(300), |mails| {
        // Only what is new: there are tens of thousands in the long version.
        for mail in &mails[seen..] {
            if let Some(id) = message_id(mail) {
                missing.remove(id.as_str());
            }
        }
        seen = mails.len();
        missing.is_empty().then_some(())
    });
}

/// Submits mail after mail; a connection that breaks is made again.
fn submit_until(
    over: &AtomicBool,
    smtp: std::net::SocketAddr,
    worker: usize,
    acknowledged: &Mutex<Vec<Queued>>,
) {
    let mut number = 0;
    while !over.load(Ordering::SeqCst) {
        let Ok(mut client) = Client::try_connect(smtp) else {
            std::thread::park_timeout(Duration::from_millis(10));
            continue;
        };
        while !over.load(Ordering::SeqCst) {
            number += 1;
            let mail = format!(
                "Message-ID: <{worker}.{number}@app.test>\r\nFrom: {APP}\r\nSubject: load\r\n\r\n{}\r\n",
                "x".repeat(900)
            );
            let Ok(reply) = client.send(APP, &["b@dest.test"], mail.as_bytes()) else { break };
            if let Some(queued) = queued(&reply) {
                acknowledged.lock().unwrap().push(queued);
            }
        }
    }
}

/// Reports every fourth mail of the sink as failed, and notes which reports were acknowledged.
/// A report whose reply was lost is sent again, as a real MTA does.
fn report_until(
    (over, failed): (&AtomicBool, &AtomicBool),
    inbound: std::net::SocketAddr,
    sink: &Sink,
    reported: &Mutex<BTreeSet<String>>,
) {
    let mut next = 0;
    let mut pending: Option<(String, String)> = None;
    while !over.load(Ordering::SeqCst) || (pending.is_some() && !failed.load(Ordering::SeqCst)) {
        let Some((id, to)) = pending.take().or_else(|| {
            let mail = sink.mail(next)?;
            next += 4;
            Some((message_id(&mail)?, mail.from))
        }) else {
            std::thread::park_timeout(Duration::from_millis(10));
            continue;
        };
        if reported.lock().unwrap().contains(&id) {
            continue;
        }
        match send(inbound, &to, &dsn(&id, &[("b@dest.test", "failed")])) {
            Ok(reply) if reply.starts_with("250") => {
                reported.lock().unwrap().insert(id);
            }
            Ok(reply) => {
                assert!(reply.starts_with('4'), "{reply}");
                pending = Some((id, to));
            }
            Err(_) => pending = Some((id, to)),
        }
    }
}

fn message_id(mail: &Mail) -> Option<String> {
    let text = String::from_utf8_lossy(&mail.octets);
    let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with("message-id:"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
