//! How many mails a second are read out of a mailbox in Dovecot, beside a client that fetches
//! them all with one command, and the most memory that the daemon holds meanwhile.

use std::time::Instant;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::dovecot::Dovecot;
use crate::harness::report::dsn;
use crate::rate;

pub(crate) fn run(long: bool) {
    let count: usize = if long { 20_000 } else { 2_000 };
    println!("\nimap: {count} mails in Dovecot, every second one a report");
    let dovecot = Dovecot::start();
    for number in 0..count {
        if number % 2 == 0 {
            let id = format!("<sent-{number}@app.test>");
            dovecot.deliver("", &dsn(&id, &[("b@dest.test", "failed")]));
        } else {
            let body = "At noon?\r\n".repeat(200);
            dovecot.deliver("", format!("Subject: Lunch\r\n\r\n{body}").as_bytes());
        }
    }
    let mut client = dovecot.client();
    client.say("EXAMINE INBOX");
    let started = Instant::now();
    let fetched = client.say("UID FETCH 1:* (UID BODY.PEEK[])");
    assert!(fetched.len() > count * 1000);
    let bare = rate("fetched by a bare client", count, started.elapsed().as_secs_f64(), None);

    let started = Instant::now();
    let daemon = Daemon::start(Config::new().preserve().table(&dovecot.table("bench", "")));
    let mailbox = daemon.await_mailbox("all are read", |mailbox| !mailbox["lastPoll"].is_null());
    assert_eq!(mailbox["counts"]["captured"], count / 2, "{mailbox:#}");
    let seconds = started.elapsed().as_secs_f64();
    rate("read, and the reports captured", count, seconds, Some(("bare", bare)));
    println!("{:<44} {:>10} MiB", "the most memory held", daemon.memory_max() >> 20);
}
