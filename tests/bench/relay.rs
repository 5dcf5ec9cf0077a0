//! How many mails a second reach a sink, beside what the sink takes from a bare client.

use std::time::Instant;

use crate::daemon::{Daemon, new_dir};
use crate::rate;
use crate::smtp::{Client, Sink, mail};

pub(crate) async fn run(long: bool) {
    let count = if long { 20_000 } else { 2_000 };
    println!("\nrelay: {count} mails of 4 KB to a sink, beside a client that talks to it directly");
    let mut sink = Sink::start().await;
    let started = Instant::now();
    send(sink.port, "direct", count).await;
    let direct =
        rate("16 sessions straight to the sink", count, started.elapsed().as_secs_f64(), None);

    let dir = new_dir("relay");
    let daemon = Daemon::start(&dir, Some(sink.port));
    let before = sink.count();
    let started = Instant::now();
    send(daemon.smtp, "relayed", count).await;
    let accepted = started.elapsed().as_secs_f64();
    sink.wait_for(before + count).await;
    let relayed = started.elapsed().as_secs_f64();
    rate("accepted by the daemon meanwhile", count, accepted, Some(("direct", direct)));
    rate("through the daemon to the sink", count, relayed, Some(("direct", direct)));
    drop(daemon);
    std::fs::remove_dir_all(dir).unwrap();
}

async fn send(port: u16, name: &'static str, count: usize) {
    let sessions = 16;
    let mut tasks = Vec::new();
    for session in 0..sessions {
        tasks.push(tokio::spawn(async move {
            let mut client = Client::connect(port).await.expect("a connection");
            for number in 0..count / sessions {
                let mail = mail(&format!("{name}-{session}-{number}"), 4096);
                client.submit("app@bench.example", "user@example.com", &mail).await.expect("250");
            }
        }));
    }
    for task in tasks {
        task.await.expect("a session");
    }
}
