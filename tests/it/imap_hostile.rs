//! An IMAP server of our own: plain but honest, and as hostile as can be. Memory stays bounded,
//! the poller lives, and what can be read is read.

use crate::harness::daemon::{Config, Daemon};
use crate::harness::imap_script::{ImapScript, Script, Twist};
use crate::harness::report::dsn;
use crate::harness::sink::Sink;

const MIB: u64 = 1 << 20;

fn daemon_for(server: &ImapScript, sink: &Sink) -> Daemon {
    let more = "poll_interval_secs = 1\ncommand_timeout_secs = 3\nmessage_bytes_max = 1048576";
    let config = Config::new().preserve().relay(sink.address);
    Daemon::start(config.table(&server.table("bounces", more)))
}

fn report(name: &str) -> Vec<u8> {
    dsn(&format!("<{name}@app.test>"), &[("b@dest.test", "failed")])
}

#[test]
fn a_server_without_any_extension_is_read() {
    let mut large = report("large");
    large.extend(vec![b'x'; 3 << 20]);
    let mails = vec![report("one"), b"Subject: Lunch\r\n\r\nNoon?\r\n".to_vec(), large];
    let server = ImapScript::start(mails, Box::new(|_, _| Twist::Usual));
    let sink = Sink::start();
    let daemon = daemon_for(&server, &sink);
    let mailbox = daemon.await_mailbox("read", |mailbox| mailbox["counts"]["captured"] == 2);
    assert_eq!(mailbox["counts"]["seen"], 3, "{mailbox:#}");
    assert_eq!(mailbox["counts"]["unreadable"], 0, "{mailbox:#}");
    let sizes: Vec<usize> =
        daemon.unmatched_reports().iter().map(|id| daemon.source(id).len()).collect();
    let kept = sizes.iter().max().unwrap();
    assert!((262_144..300_000).contains(kept), "of a large mail the start is kept: {sizes:?}");
}

fn fetches_bodies(command: &str) -> bool {
    command.contains("BODY.PEEK[]")
}

/// Servers that do not come to an end in their first two connections.
fn endless() -> Vec<(&'static str, Box<Script>)> {
    vec![
        (
            "an endless literal",
            Box::new(|number, command| match number {
                0 | 1 if fetches_bodies(command) => Twist::Flood(
                    b"* 1 FETCH (UID 1 BODY[] {99999999999}\r\n".to_vec(),
                    vec![b'x'; 1 << 20],
                ),
                _ => Twist::Usual,
            }),
        ),
        (
            "a literal of the largest size",
            Box::new(|number, command| match number {
                0 | 1 if fetches_bodies(command) => Twist::Say(
                    [b"* 1 FETCH (UID 1 BODY[] {5000000}\r\n".as_slice(), &[b'x'; 100_000]]
                        .concat(),
                ),
                _ => Twist::Usual,
            }),
        ),
        (
            "a line without an end",
            Box::new(|number, command| match number {
                0 | 1 if command.starts_with("UID SEARCH") => {
                    Twist::Flood(Vec::new(), vec![b'1'; 1 << 20])
                }
                _ => Twist::Usual,
            }),
        ),
        (
            "a line of ten megabytes",
            Box::new(|number, command| match number {
                0 | 1 if command.starts_with("LIST") => Twist::Before(vec![b'x'; 10_000_000]),
                _ => Twist::Usual,
            }),
        ),
        (
            "parentheses without an end",
            Box::new(|number, command| match number {
                0 | 1 if command.starts_with("UID FETCH") => Twist::Before(
                    [b"* 1 FETCH (BODYSTRUCTURE ".as_slice(), &[b'('; 1_000_000], b"\r\n"].concat(),
                ),
                _ => Twist::Usual,
            }),
        ),
        (
            "news without an end",
            Box::new(|number, command| match number {
                0 | 1 if command.starts_with("EXAMINE") => {
                    Twist::Flood(Vec::new(), b"* 1 EXISTS\r\n".repeat(1000))
                }
                _ => Twist::Usual,
            }),
        ),
    ]
}

/// Servers that break off, or say what is no IMAP.
fn broken() -> Vec<(&'static str, Box<Script>)> {
    vec![
        (
            "a silent server",
            Box::new(|number, command| match number {
                0 if command.starts_with("LOGIN") => Twist::Say(Vec::new()),
                _ => Twist::Usual,
            }),
        ),
        (
            "a goodbye",
            Box::new(|number, command| match number {
                0 if command.starts_with("EXAMINE") => Twist::HangUp(b"* BYE for now\r\n".to_vec()),
                _ => Twist::Usual,
            }),
        ),
        (
            "a literal that is cut off",
            Box::new(|number, command| match number {
                0 if fetches_bodies(command) => {
                    Twist::HangUp(b"* 1 FETCH (UID 1 BODY[] {100}\r\nabc".to_vec())
                }
                _ => Twist::Usual,
            }),
        ),
        (
            "nonsense",
            Box::new(|_, command| match command {
                "CAPABILITY" => Twist::Before(b"* \"\r\n* 1\r\nhello\r\n* 5 FETCH ((\r\n".to_vec()),
                _ => Twist::Usual,
            }),
        ),
    ]
}

#[test]
fn no_server_fills_the_memory_or_stops_the_poller() {
    for (what, script) in endless().into_iter().chain(broken()) {
        let server = ImapScript::start(vec![report("one")], script);
        let sink = Sink::start();
        let daemon = daemon_for(&server, &sink);
        let before = daemon.memory_max();
        daemon.await_mailbox(what, |mailbox| mailbox["counts"]["captured"] == 1);
        let grown = daemon.memory_max().saturating_sub(before);
        println!("{what}: {} connections, {} KiB more", server.connections(), grown / 1024);
        assert!(grown < 48 * MIB, "{what}: {} MiB more", grown / MIB);
    }
}

#[test]
fn a_mail_that_ends_every_connection_is_passed_over() {
    let mails = vec![report("one"), report("two"), report("three")];
    let script = |_: usize, command: &str| {
        let uids = command.strip_prefix("UID FETCH ").and_then(|rest| rest.split(' ').next());
        match uids {
            Some("2" | "1:3" | "2:3") => Twist::HangUp(b"* 2 FETCH (UID 2 BODY[".to_vec()),
            _ => Twist::Usual,
        }
    };
    let server = ImapScript::start(mails, Box::new(script));
    let sink = Sink::start();
    let daemon = daemon_for(&server, &sink);
    let mailbox = daemon.await_mailbox("the others are read", |mailbox| {
        mailbox["counts"]["captured"] == 2 && !mailbox["lastPoll"].is_null()
    });
    assert_eq!(mailbox["counts"]["unreadable"], 1, "{mailbox:#}");
    assert!(daemon.log().contains("\"uids\":\"[2]\""), "{}", daemon.log());
}

#[test]
fn a_mail_whose_answer_is_no_imap_does_not_stop_the_others() {
    let mails = vec![report("one"), report("two"), report("three")];
    let script = |_: usize, command: &str| match command.strip_prefix("UID FETCH ") {
        Some(rest) if rest.starts_with("1:3 ") => {
            Twist::Before(b"* 2 FETCH (UID 2 BODY[HEADER]<0> \"x\r\n".to_vec())
        }
        _ => Twist::Usual,
    };
    let server = ImapScript::start(mails, Box::new(script));
    let sink = Sink::start();
    let daemon = daemon_for(&server, &sink);
    daemon.await_mailbox("all are read", |mailbox| mailbox["counts"]["captured"] == 3);
    assert_eq!(server.connections(), 1);
}
