//! Kills the daemon under load, again and again, and looks for what was acknowledged and lost.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::daemon::{Daemon, get, new_dir};
use crate::smtp::{Client, Sink, mail};

pub(crate) async fn run(long: bool) {
    let kills = if long { 50 } else { 5 };
    println!("\nkill9: {kills} kills under load");
    let dir = new_dir("kill9");
    let sink = Sink::start().await;
    let mut daemon = Daemon::start(&dir, Some(sink.port));
    let acknowledged: Arc<Mutex<HashMap<String, String>>> = Arc::default();
    let (stop, stopped) = watch::channel(false);
    let loads: Vec<_> = (0..8)
        .map(|session| {
            tokio::spawn(load(daemon.smtp, session, Arc::clone(&acknowledged), stopped.clone()))
        })
        .collect();
    for kill in 0..kills {
        // Different moments of start and work: 50 ms to about 1.2 s after it became ready.
        tokio::time::sleep(Duration::from_millis(50 + kill * 379 % 1150)).await;
        daemon.kill_and_restart();
    }
    stop.send(true).expect("the loads run");
    for task in loads {
        task.await.expect("a load");
    }
    let acknowledged = acknowledged.lock().unwrap().clone();
    let deadline = Instant::now() + Duration::from_secs(120);
    let arrived = |subject: &String| sink.subjects.lock().unwrap().contains(subject);
    while !acknowledged.keys().all(arrived) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let lost = acknowledged.keys().filter(|subject| !arrived(subject)).count();
    let unknown = acknowledged
        .values()
        .filter(|id| get(daemon.http, &format!("/v1/messages/{id}")).is_none_or(|(s, _)| s != 200))
        .count();
    println!(
        "{} acknowledged, {lost} lost, {unknown} unknown to the look-up, {} at the sink",
        acknowledged.len(),
        sink.count()
    );
    assert!(lost == 0 && unknown == 0, "{}", daemon.log());
    drop(daemon);
    std::fs::remove_dir_all(dir).unwrap();
}

/// Submits until told to stop, connecting anew whenever the daemon goes away.
async fn load(
    port: u16,
    session: usize,
    acknowledged: Arc<Mutex<HashMap<String, String>>>,
    stopped: watch::Receiver<bool>,
) {
    let mut number = 0;
    while !*stopped.borrow() {
        let Ok(mut client) = Client::connect(port).await else {
            tokio::task::yield_now().await;
            continue;
        };
        while !*stopped.borrow() {
            number += 1;
            let subject = format!("kill-{session}-{number}");
            let text = mail(&subject, 2048);
            let submitted = client.submit("app@bench.example", "user@example.com", &text);
            let Ok(reply) = submitted.await else { break };
            // `250 2.0.0 Ok: queued as <queue id> <message id>`
            let id = reply.split(' ').nth(5).unwrap_or_default().to_owned();
            acknowledged.lock().unwrap().insert(subject, id);
        }
    }
}
