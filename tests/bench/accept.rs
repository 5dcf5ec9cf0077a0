//! How many mails a second are taken over with a durable 250.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Instant;

use crate::daemon::{Daemon, new_dir};
use crate::smtp::{Client, mail};
use crate::{percentile, rate};

pub(crate) async fn run(long: bool) {
    println!("\naccept: a durable 250 for mails of 4 KB, beside the disk's own sync rate");
    let dir = new_dir("accept");
    let syncs = disk_sync_rate(&dir, if long { 5000 } else { 500 });
    let daemon = Daemon::start(&dir, None);
    for (sessions, mails_each) in if long { LONG } else { SHORT } {
        let (before, synced) = (
            daemon.metric("rebound_store_writes_total"),
            daemon.metric("rebound_store_syncs_total"),
        );
        let started = Instant::now();
        let mut tasks = Vec::new();
        for session in 0..sessions {
            tasks.push(tokio::spawn(submit(daemon.smtp, sessions, session, mails_each)));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.expect("a session"));
        }
        let seconds = started.elapsed().as_secs_f64();
        times.sort_by(f64::total_cmp);
        rate(&format!("{sessions} sessions"), times.len(), seconds, Some(("disk syncs", syncs)));
        let writes = daemon.metric("rebound_store_writes_total") - before;
        let syncs = daemon.metric("rebound_store_syncs_total") - synced;
        println!(
            "{:<44} p50 {:.2} ms, p99 {:.2} ms, {:.2} syncs a mail",
            "",
            percentile(&times, 50.0),
            percentile(&times, 99.0),
            syncs / writes.max(1.0)
        );
    }
    drop(daemon);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Appends of 4 KB, each synced by itself: what one session of any durable server can do at most.
fn disk_sync_rate(dir: &Path, count: usize) -> f64 {
    let path = dir.join("sync");
    let file = File::create(&path).unwrap();
    let block = [b'x'; 4096];
    let started = Instant::now();
    for at in 0..count {
        file.write_all_at(&block, (at * block.len()) as u64).unwrap();
        file.sync_data().unwrap();
    }
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate("the disk: write 4 KB, fdatasync", count, seconds, None)
}

/// Milliseconds from the first command of a mail to its 250, for each mail.
async fn submit(port: u16, run: usize, session: usize, count: usize) -> Vec<f64> {
    let mut client = Client::connect(port).await.expect("a connection");
    let mut times = Vec::with_capacity(count);
    for number in 0..count {
        let mail = mail(&format!("accept-{run}-{session}-{number}"), 4096);
        let started = Instant::now();
        client.submit("app@bench.example", "user@example.com", &mail).await.expect("a 250");
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    times
}

/// Sessions at a time, and the mails that each submits.
const SHORT: [(usize, usize); 3] = [(1, 2_000), (16, 32), (128, 20)];
const LONG: [(usize, usize); 3] = [(1, 20_000), (16, 320), (128, 40)];
