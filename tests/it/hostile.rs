//! What a peer that means harm tries over a real socket: to smuggle a mail into another, to speak
//! before TLS for what comes after it, to hold connections for ever, to take all of them.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rebound::clock::Stopwatch;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::sink::{Mail, Sink};
use crate::harness::smtp::{Client, mail, submit};
use crate::harness::{SOON, TempDir, certificate, wait_for};

/// What some server takes for the end of a mail, and what a mail with it is refused with.
const NO_ENDS: &[(&str, &str)] = &[
    ("\n.\n", BARE),
    ("\n.\r\n", BARE),
    ("\r.\r\n", BARE),
    ("\r.\r", BARE),
    ("\r\n.\r", BARE),
    ("\r\n.\n", BARE),
    ("\n.\r", BARE),
    ("\r\n\0.\r\n", NUL),
    ("\r\n.\0\r\n", NUL),
    ("\r\n.\r\r\n", BARE),
];
const BARE: &str = "550 5.6.11 ";
const NUL: &str = "550 5.6.0 ";

/// A mail that holds a whole transaction behind something that is no end.
fn smuggler(number: usize, no_end: &str) -> String {
    format!(
        "From: Anna <anna@app.test>\r\nSubject: outer {number}\r\n\r\nx{no_end}\
         MAIL FROM:<evil@app.test>\r\nRCPT TO:<bounces@app.test>\r\nDATA\r\n\
         Subject: smuggled\r\n\r\ny\r\n.\r\n"
    )
}

/// Sends it within a transaction of its own; the one reply that the server may give.
fn smuggle(server: SocketAddr, to: &str, number: usize, no_end: &str) -> String {
    let mut client = Client::connect(server);
    client.say("MAIL FROM:<anna@app.test>");
    let reply = client.say(&format!("RCPT TO:<{to}>"));
    assert!(reply.starts_with("250"), "{reply}");
    assert!(client.say("DATA").starts_with("354"));
    client.raw(smuggler(number, no_end).as_bytes()).unwrap();
    let reply = client.reply().unwrap();
    // One reply more, and this would be the answer to the smuggled MAIL.
    assert_eq!(client.say("NOOP"), "250 2.0.0 Ok", "{no_end:?}");
    reply
}

/// What stands on the wire between DATA and the next command holds no other end than its own.
fn assert_clean(mail: &Mail) {
    let wire = mail.wire.as_slice();
    let shown = String::from_utf8_lossy(wire).into_owned();
    let count = |wanted: &[u8]| wire.windows(wanted.len()).filter(|part| *part == wanted).count();
    assert_eq!(count(b"\r"), count(b"\r\n"), "a bare CR goes out: {shown:?}");
    assert_eq!(count(b"\n"), count(b"\r\n"), "a bare LF goes out: {shown:?}");
    assert_eq!(count(b"\0"), 0, "a NUL goes out: {shown:?}");
    assert_eq!(count(b"\r\n.\r\n"), 1, "{shown:?}");
    assert!(wire.ends_with(b"\r\n.\r\n"), "{shown:?}");
}

fn assert_nothing_was_smuggled(sink: &Sink) {
    for mail in sink.mails() {
        assert_ne!(mail.from, "evil@app.test");
        assert_clean(&mail);
    }
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_a_mail_of_an_app() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().relay(sink.address));
    for (number, (no_end, refusal)) in NO_ENDS.iter().enumerate() {
        let reply = smuggle(daemon.smtp, "b@dest.test", number, no_end);
        assert!(reply.starts_with(refusal), "{no_end:?}: {reply}");
    }
    submit(daemon.smtp, "anna@app.test", &["b@dest.test"], &mail("marker"));
    sink.wait_for_text("Subject: marker");
    assert_eq!(sink.mails().len(), 1, "what was refused went out");
}

#[test]
fn a_mail_that_is_put_right_goes_out_without_another_end() {
    let sink = Sink::start();
    let config =
        Config::new().relay(sink.address).set("submission", "bare_newline", "\"normalize\"");
    let daemon = Daemon::start(config);
    for (number, (no_end, refusal)) in NO_ENDS.iter().enumerate() {
        let reply = smuggle(daemon.smtp, "b@dest.test", number, no_end);
        let wanted = if *refusal == NUL { NUL } else { "250 2.0.0 " };
        assert!(reply.starts_with(wanted), "{no_end:?}: {reply}");
        if *refusal != NUL {
            let mail = sink.wait_for_text(&format!("Subject: outer {number}\r\n"));
            assert!(mail.octets.ends_with(b"Subject: smuggled\r\n\r\ny\r\n"), "{no_end:?}");
        }
    }
    assert_nothing_was_smuggled(&sink);
}

#[test]
fn nothing_but_crlf_dot_crlf_ends_a_report() {
    let sink = Sink::start();
    // What matches no mail goes on to the postmaster, and so to the sink.
    let daemon = Daemon::start(Config::new().relay(sink.address).preserve());
    let mut taken = 0;
    for (number, (no_end, refusal)) in NO_ENDS.iter().enumerate() {
        let reply = smuggle(daemon.inbound, "bounces@app.test", number, no_end);
        let wanted = if *refusal == NUL { NUL } else { "250 2.0.0 Ok: report " };
        assert!(reply.starts_with(wanted), "{no_end:?}: {reply}");
        taken += usize::from(*refusal != NUL);
    }
    let reports = wait_for("all reports are read", SOON, || {
        let (status, answer) = daemon.get("/v1/reports?unmatched=true&pageSize=100");
        assert_eq!(status, 200, "{answer}");
        let reports = answer["reports"].as_array().unwrap().clone();
        (reports.len() >= taken).then_some(reports)
    });
    assert_eq!(reports.len(), taken, "one was smuggled: {reports:?}");
    assert_nothing_was_smuggled(&sink);
}

#[test]
fn what_is_sent_along_with_starttls_is_not_executed_in_tls() {
    let dir = TempDir::new("starttls");
    let (cert, key) = certificate(&dir);
    let pair =
        format!("[{{ cert_file = \"{}\", key_file = \"{}\" }}]", cert.display(), key.display());
    let daemon = Daemon::start(Config::new().preserve().set("tls", "certificates", &pair));
    for (name, server) in [("submission", daemon.smtp), ("inbound", daemon.inbound)] {
        let mut client = Client::connect(server);
        client.raw(b"STARTTLS\r\nMAIL FROM:<evil@app.test>\r\n").unwrap();
        let reply = client.reply().unwrap();
        assert_eq!(reply, "503 5.5.1 Nothing may be sent along with STARTTLS", "{name}");
        let reply = client.reply().unwrap();
        assert!(reply.starts_with("250 2.1.0"), "it was said in plain text: {reply}");
        let reply = client.say("STARTTLS");
        assert!(reply.starts_with("503 5.5.1"), "not within a transaction: {reply}");
        client.say("RSET");
        assert!(client.say("STARTTLS").starts_with("220 2.0.0"), "{name}");
        // What comes in place of a handshake is no command either.
        client.raw(b"MAIL FROM:<evil@app.test>\r\nQUIT\r\n").unwrap();
        let mut said = Vec::new();
        client.read_to_end(&mut said).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        assert!(!said.contains("250") && !said.contains("221"), "{name}: {said:?}");
    }
}

/// Connects, sends `first`, then an octet at a time, until the server closes; what it said.
fn drip(server: SocketAddr, first: &[u8], octet: &[u8]) -> String {
    let mut stream = TcpStream::connect_timeout(&server, SOON).unwrap();
    stream.set_nodelay(true).unwrap();
    // The pace of the client: it looks for an answer for so long before it sends the next octet.
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.write_all(first).unwrap();
    let began = Stopwatch::start();
    let mut said = Vec::new();
    let mut block = [0; 1024];
    loop {
        match stream.read(&mut block) {
            Ok(0) => break,
            Ok(len) => said.extend_from_slice(&block[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                drop(stream.write_all(octet));
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
            Err(error) => panic!("{error}"),
        }
        assert!(began.elapsed() < SOON, "it is never cut off, and said {said:?}");
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn a_peer_that_drips_is_cut_off_at_the_deadline_of_what_it_drips() {
    let config = Config::new().preserve().set("submission", "command_timeout_secs", "2");
    let config = config.set("submission", "data_timeout_secs", "1");
    let daemon = Daemon::start(config);
    let to_data: &[u8] =
        b"EHLO c\r\nMAIL FROM:<a@app.test>\r\nRCPT TO:<bounces@app.test>\r\nDATA\r\n";
    for (name, server) in [("submission", daemon.smtp), ("inbound", daemon.inbound)] {
        for (first, octet) in [(&b""[..], &b"x"[..]), (b"NOOP ", b"x"), (to_data, b"x")] {
            let said = drip(server, first, octet);
            let wanted = "421 4.4.2 Timeout, closing the connection\r\n";
            assert!(said.ends_with(wanted), "{name} after {first:?}: {said:?}");
        }
    }
}

#[test]
fn a_peer_that_never_reads_is_cut_off() {
    let config = Config::new().preserve().set("submission", "command_timeout_secs", "2");
    let config = config.set("submission", "errors_max", "1000000000");
    let daemon = Daemon::start(config);
    for (name, server) in [("submission", daemon.smtp), ("inbound", daemon.inbound)] {
        let mut stream = TcpStream::connect_timeout(&server, SOON).unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        // No idle command, for those are counted: an error, of which this server forgives many.
        let flood = b"RCPT TO:<a@b>\r\n".repeat(1000);
        let began = Stopwatch::start();
        let error = loop {
            if let Err(error) = stream.write_all(&flood) {
                break error;
            }
            assert!(began.elapsed() < SOON, "{name}: it is never cut off");
        };
        let closed = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
        assert!(closed.contains(&error.kind()), "{name}: {error}");
        wait_for("the log says why", SOON, || {
            let log = daemon.log();
            let mut ends = log.lines().filter(|line| line.contains("a connection has ended"));
            ends.any(|line| line.contains(name) && line.contains("TimedOut")).then_some(())
        });
    }
}

#[test]
fn the_201st_connection_of_an_address_is_told_so_and_the_201st_to_the_5000th_too() {
    let daemon = Daemon::start(Config::new().preserve());
    for (server, most) in [(daemon.smtp, 200), (daemon.inbound, 50)] {
        let mut held: Vec<Client> = (0..most).map(|_| Client::connect(server)).collect();
        let greeting = || {
            let mut said = String::new();
            let mut stream = TcpStream::connect_timeout(&server, SOON).unwrap();
            stream.set_read_timeout(Some(SOON)).unwrap();
            stream.read_to_string(&mut said).unwrap();
            said
        };
        for number in most..5000 {
            let said = greeting();
            assert_eq!(said, "421 4.7.0 too many connections, try again later\r\n", "{number}");
        }
        // Those that are in do not notice, and a place that becomes free is taken again.
        assert_eq!(held[0].say("NOOP"), "250 2.0.0 Ok");
        held.pop().unwrap().say("QUIT");
        wait_for("a place is free again", SOON, || {
            let mut client = Client::try_connect(server).ok()?;
            client.command("NOOP").ok().filter(|reply| reply == "250 2.0.0 Ok")
        });
    }
}
