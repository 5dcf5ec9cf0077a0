//! Connections: through HAProxy, and what TLS and limits make of them.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::harness::daemon::{Config, Daemon, account_hash};
use crate::harness::haproxy::{HaProxy, Way};
use crate::harness::postfix::Postfix;
use crate::harness::sink::{Answer, Point, Sink, contains};
use crate::harness::smtp::{Client, mail, submit};
use crate::harness::{SOON, TempDir, certificate, free_port, http, program, run, wait_for};

const APP: &str = "anna@app.test";
const TO: &str = "b@dest.test";
const PASSWORD: &str = "correct horse";
const LOOPBACK: &str = "[\"127.0.0.0/8\"]";

/// A certificate in `[tls]`, and the account `shop`.
fn with_tls(config: Config, dir: &TempDir) -> Config {
    let (cert, key) = certificate(dir);
    let pair =
        format!("[{{ cert_file = \"{}\", key_file = \"{}\" }}]", cert.display(), key.display());
    let account =
        format!("[[account]]\nname = \"shop\"\npassword_hash = \"{}\"", account_hash(PASSWORD));
    config.set("tls", "certificates", &pair).table(&account)
}

/// Everything that is said before the connection is closed.
fn said_to(octets: &[u8], daemon: &Daemon) -> String {
    let mut stream = TcpStream::connect(daemon.smtp).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(octets).unwrap();
    let mut said = String::new();
    // Octets that were not read make it a reset.
    drop(stream.read_to_string(&mut said));
    said
}

#[test]
fn what_comes_through_haproxy_counts_as_its_client() {
    let (sink, dir) = (Sink::start(), TempDir::new("proxied"));
    let tls_port = free_port();
    let config = with_tls(Config::new().relay(sink.address), &dir)
        .set("submission", "tls_listen", &format!("[\"127.0.0.1:{tls_port}\"]"))
        .set("submission", "proxy_networks", LOOPBACK);
    let daemon = Daemon::start(config);
    let tls = ([127, 0, 0, 1], tls_port).into();
    let (v4, v6) = ("ipv4(203.0.113.7)", "ipv6(2001:db8::7)");
    let proxy = HaProxy::start(&[
        Way { client: v4, server: "send-proxy", to: daemon.smtp },
        Way { client: v6, server: "send-proxy", to: daemon.smtp },
        Way { client: v4, server: "send-proxy-v2", to: daemon.smtp },
        Way { client: v6, server: "send-proxy-v2", to: daemon.smtp },
        Way { client: v4, server: "send-proxy-v2", to: tls },
        Way { client: "src", server: "send-proxy-v2-ssl", to: daemon.smtp },
    ]);
    for (way, secure, literal) in [
        (0, "--tls", "[203.0.113.7]"),
        (1, "--tls", "[IPv6:2001:db8::7]"),
        (2, "--tls", "[203.0.113.7]"),
        (3, "--tls", "[IPv6:2001:db8::7]"),
        (4, "--tls-on-connect", "[203.0.113.7]"),
    ] {
        if secure == "--tls" {
            // The proxy is on loopback, and has not given that away.
            let mut client = Client::connect(proxy.way(way));
            let hello = client.say("EHLO client.test");
            assert!(!hello.contains("AUTH"), "{hello}");
            let reply = client.say("MAIL FROM:<anna@app.test>");
            assert!(reply.starts_with("530 5.7.0"), "{reply}");
        }
        let subject = format!("way {way}");
        run(Command::new(program("swaks", "swaks"))
            .args(["--server", &proxy.way(way).to_string(), "--from", APP, "--to", TO])
            .args(["--header", &format!("Subject: {subject}"), "--helo", "client.test", secure])
            .args(["--auth", "PLAIN", "--auth-user", "shop", "--auth-password", PASSWORD]));
        let arrived = sink.wait_for_text(&format!("Subject: {subject}\r\n"));
        let from = format!("Received: from client.test ({literal}) by relay.test");
        assert!(contains(&arrived.octets, from.as_bytes()), "{arrived:?}");
    }
    // Who is on loopback himself is so through the proxy.
    submit(proxy.way(5), APP, &[TO], &mail("from here"));
    sink.wait_for_text("Subject: from here\r\n");
    assert!(daemon.log().contains("\"client\":\"203.0.113.7\""), "{}", daemon.log());
}

#[test]
fn who_guesses_passwords_is_banned_for_a_while_and_nobody_else() {
    let (sink, dir) = (Sink::start(), TempDir::new("banned"));
    let config = with_tls(Config::new().relay(sink.address), &dir)
        .set("submission", "proxy_networks", LOOPBACK)
        .set("submission", "auth_failures_max", "2")
        .set("submission", "auth_ban_secs", "5");
    let daemon = Daemon::start(config);
    let proxy = HaProxy::start(&[
        Way { client: "ipv4(203.0.113.7)", server: "send-proxy-v2", to: daemon.smtp },
        Way { client: "ipv4(203.0.113.8)", server: "send-proxy-v2", to: daemon.smtp },
    ]);
    // What swaks showed of the conversation up to AUTH.
    let auth = |way: usize, password: &str| {
        let swaks = Command::new(program("swaks", "swaks"))
            .args(["--server", &proxy.way(way).to_string(), "--tls", "--quit-after", "AUTH"])
            .args(["--auth", "PLAIN", "--auth-user", "shop", "--auth-password", password])
            .output();
        String::from_utf8_lossy(&swaks.unwrap().stdout).into_owned()
    };
    for _ in 0..2 {
        let said = auth(0, "guessed");
        assert!(said.contains("535 5.7.8"), "{said}");
    }
    let said = auth(0, PASSWORD);
    assert!(said.contains("421 4.7.0") && !said.contains("235 "), "{said}");
    let said = auth(1, PASSWORD);
    assert!(said.contains("235 2.7.0"), "{said}");
    wait_for("the ban is over", SOON, || auth(0, PASSWORD).contains("235 2.7.0").then_some(()));
}

#[test]
fn a_proxy_must_begin_with_a_header_and_nobody_else_may() {
    let daemon = Daemon::start(Config::new().set("submission", "proxy_networks", LOOPBACK));
    for octets in [&b"EHLO client.test\r\n"[..], b"PROXY TCP4 1.2.3.4\r\nEHLO x\r\n", b"\x16\x03"] {
        assert_eq!(said_to(octets, &daemon), "", "{octets:?}");
    }
    let complaint = "a connection of a proxy is dropped";
    wait_for("it is logged", SOON, || daemon.log().contains(complaint).then_some(()));
    assert_eq!(daemon.log().matches(complaint).count(), 1, "once is enough");

    let daemon = Daemon::start(Config::new().set("submission", "proxy_networks", "[\"10.0.0.1\"]"));
    let said = said_to(b"PROXY TCP4 203.0.113.7 127.0.0.1 1 2\r\nQUIT\r\n", &daemon);
    assert!(said.starts_with("220 relay.test") && said.contains("\r\n500 5.5.1"), "{said}");
}

#[test]
fn the_cap_for_one_address_is_for_the_client_and_not_for_the_proxy() {
    let config = Config::new().set("inbound", "proxy_networks", LOOPBACK).set(
        "inbound",
        "connections_per_address_max",
        "1",
    );
    let daemon = Daemon::start(config);
    let way = |client| Way { client, server: "send-proxy-v2", to: daemon.inbound };
    let proxy = HaProxy::start(&[way("ipv4(203.0.113.7)"), way("ipv4(203.0.113.8)")]);
    let greeted = |number: usize| {
        let mut stream = TcpStream::connect(proxy.way(number)).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut said = [0; 4];
        stream.read_exact(&mut said).unwrap();
        (stream, String::from_utf8_lossy(&said).into_owned())
    };
    // The connection that has seen it listen may not be gone yet.
    let first = wait_for("there is room", SOON, || {
        let (stream, said) = greeted(0);
        (said == "220 ").then_some(stream)
    });
    assert_eq!(greeted(0).1, "421 ");
    wait_for("there is room for another", SOON, || (greeted(1).1 == "220 ").then_some(()));
    drop(first);
    wait_for("there is room again", SOON, || (greeted(0).1 == "220 ").then_some(()));
    let mut client = Client::connect(proxy.way(1));
    client.say("MAIL FROM:<>");
    let reply = client.say("RCPT TO:<nobody@dest.test>");
    assert!(reply.starts_with("550"), "{reply}");
    wait_for("it is logged", SOON, || {
        daemon.log().contains("\"client\":\"203.0.113.8\"").then_some(())
    });
}

#[test]
fn swaks_speaks_for_another_by_xclient() {
    let (sink, dir) = (Sink::start(), TempDir::new("xclient"));
    let config = with_tls(Config::new().relay(sink.address), &dir).set(
        "submission",
        "xclient_networks",
        LOOPBACK,
    );
    let daemon = Daemon::start(config);
    let swaks = |subject: &str, options: &[&str]| {
        Command::new(program("swaks", "swaks"))
            .args(["--server", &daemon.smtp.to_string(), "--from", APP, "--to", TO])
            .args(["--header", &format!("Subject: {subject}"), "--helo", "client.test"])
            .args(options)
            .output()
            .unwrap()
    };
    let secure = ["--tls", "--auth", "PLAIN", "--auth-user", "shop", "--auth-password", PASSWORD];
    for (address, literal) in
        [("203.0.113.7", "[203.0.113.7]"), ("IPV6:2001:db8::7", "[IPv6:2001:db8::7]")]
    {
        let named = ["--xclient-addr", address, "--xclient-name", "client.test"];
        let subject = format!("for {literal}");
        let output = swaks(&subject, &[&named[..], &secure].concat());
        assert!(output.status.success(), "{output:?}");
        let arrived = sink.wait_for_text(&format!("Subject: {subject}\r\n"));
        let from = format!("Received: from client.test ({literal}) by relay.test");
        assert!(contains(&arrived.octets, from.as_bytes()), "{arrived:?}");
        // Without AUTH a client that is not on loopback may send nothing, LOGIN or not.
        let named = [&named[..], &["--xclient-login", "shop"]].concat();
        let said = String::from_utf8(swaks("refused", &named).stdout).unwrap();
        assert!(said.contains("530 5.7.0 Must issue a STARTTLS command first"), "{said}");
    }
    assert_eq!(sink.mails().len(), 2);

    let daemon = Daemon::start(Config::new());
    let mut client = Client::connect(daemon.smtp);
    let reply = client.say("XCLIENT ADDR=203.0.113.7");
    assert!(reply.starts_with("500 5.5.1"), "{reply}");
}

/// What `openssl s_client` says and shows, with these options.
fn s_client(daemon: &Daemon, options: &[&str]) -> String {
    let output = Command::new(program("openssl", "openssl"))
        .args(["s_client", "-connect", &daemon.smtp.to_string(), "-starttls", "smtp"])
        .args(options)
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

/// A certificate for a name that signs itself, and its key, in the files of `dir` that have its
/// name.
fn pair(dir: &TempDir, file: &str, host: &str) -> String {
    let made = rcgen::generate_simple_self_signed([host.to_owned()]).unwrap();
    let cert = dir.file(&format!("{file}.crt"), made.cert.pem());
    let key = dir.file(&format!("{file}.key"), made.signing_key.serialize_pem());
    format!("{{ cert_file = \"{}\", key_file = \"{}\" }}", cert.display(), key.display())
}

#[test]
fn a_client_is_shown_the_certificate_of_the_name_it_asks_for() {
    let dir = TempDir::new("names");
    let names = ["first.test", "second.test", "*.wild.test"];
    let pairs: Vec<String> =
        names.iter().enumerate().map(|(n, name)| pair(&dir, &n.to_string(), name)).collect();
    let pairs = format!("[{}]", pairs.join(", "));
    let daemon = Daemon::start(Config::new().set("tls", "certificates", &pairs));
    for (asked, shown) in
        [("first.test", 0), ("second.test", 1), ("a.wild.test", 2), ("unknown.test", 0), ("", 0)]
    {
        let name =
            if asked.is_empty() { vec!["-noservername"] } else { vec!["-servername", asked] };
        let ca = dir.path().join(format!("{shown}.crt"));
        let trust = ["-verify_return_error", "-CAfile", ca.to_str().unwrap()];
        let said = s_client(&daemon, &[&name[..], &trust].concat());
        assert!(said.contains("Verify return code: 0 (ok)"), "{asked}: {said}");
    }
}

#[test]
fn tls_below_1_2_is_refused() {
    let dir = TempDir::new("old-tls");
    let daemon = Daemon::start(with_tls(Config::new(), &dir));
    // At this level OpenSSL does offer what is old.
    let old = ["-cipher", "ALL:@SECLEVEL=0"];
    for (version, is_taken) in
        [("-tls1", false), ("-tls1_1", false), ("-tls1_2", true), ("-tls1_3", true)]
    {
        let said = s_client(&daemon, &[&[version][..], &old].concat());
        assert_eq!(
            said.contains("Verify return code:") && !said.contains("Cipher is (NONE)"),
            is_taken,
            "{version}: {said}"
        );
        let sent = said.split("SSL handshake has read").nth(1).unwrap_or_default();
        assert!(!sent.contains("written 0 bytes"), "{version} was not offered: {said}");
    }
}

#[test]
fn renewed_certificates_are_shown_and_bad_ones_are_not() {
    let dir = TempDir::new("renewed");
    let config =
        Config::new().set("tls", "certificates", &format!("[{}]", pair(&dir, "own", "localhost")));
    let daemon = Daemon::start(config);
    let is_shown = |cert: &str| {
        let ca = dir.path().join(cert);
        let trust = ["-verify_return_error", "-CAfile", ca.to_str().unwrap()];
        s_client(&daemon, &trust).contains("Verify return code: 0 (ok)").then_some(())
    };
    assert!(is_shown("own.crt").is_some());
    let renewed = "the certificates have changed, and the new ones are shown";
    let refused = "the certificates have changed; the old ones are shown";
    let logged = |line: &str, times: usize| {
        wait_for(line, SOON, || (daemon.log().matches(line).count() == times).then_some(()));
    };

    // Written in place, one after the other.
    pair(&dir, "own", "localhost");
    logged(renewed, 1);
    assert!(is_shown("own.crt").is_some());

    // A certificate whose key does not come.
    pair(&dir, "next", "localhost");
    std::fs::copy(dir.path().join("own.crt"), dir.path().join("shown.crt")).unwrap();
    std::fs::rename(dir.path().join("next.crt"), dir.path().join("own.crt")).unwrap();
    logged(refused, 1);
    assert!(daemon.log().contains("does not belong to the certificate in"), "{}", daemon.log());
    assert!(is_shown("shown.crt").is_some());

    // It comes, put into place as a whole.
    std::fs::rename(dir.path().join("next.key"), dir.path().join("own.key")).unwrap();
    logged(renewed, 2);
    assert!(is_shown("own.crt").is_some());
    assert_eq!(daemon.log().matches(refused).count(), 1, "once is enough");
}

#[test]
fn a_failed_handshake_is_counted_each_time_and_logged_once_for_each_client() {
    let (dir, port) = (TempDir::new("failed-tls"), free_port());
    let config = with_tls(Config::new(), &dir).set(
        "submission",
        "tls_listen",
        &format!("[\"127.0.0.1:{port}\"]"),
    );
    let daemon = Daemon::start(config);
    for _ in 0..3 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.write_all(b"EHLO client.test\r\n").unwrap();
        drop(stream.read_to_end(&mut Vec::new()));
    }
    let counted = "rebound_tls_failed_total{server=\"submission\"} 3";
    wait_for(counted, SOON, || {
        let (_, _, metrics) = http::get_raw(daemon.http, "/metrics", "");
        String::from_utf8_lossy(&metrics).contains(counted).then_some(())
    });
    let log = daemon.log();
    assert_eq!(log.matches("a client's TLS handshake failed").count(), 1, "{log}");
    assert!(log.contains("plain text to a TLS port?"), "{log}");
}

/// A mail with this subject and a line of so many octets.
fn with_line(subject: &str, len: usize) -> Vec<u8> {
    let body = format!("{}\r\n.\r\n..dots\r\n", "x".repeat(len));
    [mail(subject), body.into_bytes()].concat()
}

#[test]
fn mail_with_long_lines_is_relayed_in_chunks_after_a_crash_too() {
    let sink = Sink::scripted(Box::new(|point, number| match point {
        Point::Rcpt("later@dest.test") if number == 1 => Answer::Reply("450 4.2.0 Later"),
        _ => Answer::Accept,
    }));
    let mut daemon = Daemon::start(Config::new().relay(sink.address));
    for (subject, len, chunks) in [("short", 998, 0), ("long", 999, 1), ("huge", 600_000, 3)] {
        let sent = with_line(subject, len);
        submit(daemon.smtp, APP, &[TO], &sent);
        let arrived = sink.wait_for_text(&format!("Subject: {subject}\r\n"));
        assert_eq!(arrived.chunks, chunks, "{subject}");
        assert!(arrived.octets.ends_with(&sent[sent.len() - len - 20..]), "{subject}");
    }
    // What is known of the lines is on disk.
    let queued = submit(daemon.smtp, APP, &["later@dest.test"], &with_line("later", 5000));
    daemon.await_states(&queued.queue_id, &["deferred"]);
    daemon.kill();
    daemon.restart();
    assert_eq!(sink.wait_for_text("Subject: later\r\n").chunks, 1);
}

#[test]
fn postfix_takes_chunks() {
    let config = Config::new().verp();
    let postfix = Postfix::start(config.listen("inbound"));
    let daemon = Daemon::start(config.relay(postfix.address));
    let sent = with_line("in chunks", 300_000);
    let queued = submit(daemon.smtp, APP, &["good@dest.test"], &sent);
    daemon.await_states(&queued.queue_id, &["relayed"]);
    let arrived = wait_for("it is delivered", SOON, || postfix.delivered().pop());
    let line = "x".repeat(300_000) + "\n.\n..dots\n";
    assert!(arrived.ends_with(line.as_bytes()), "{}", String::from_utf8_lossy(&arrived));
    wait_for("Postfix has counted", SOON, || postfix.log().contains(" bdat=2 ").then_some(()));
}

#[test]
fn what_is_over_a_limit_is_refused_and_the_connection_goes_on() {
    let sink = Sink::start();
    let config = Config::new()
        .relay(sink.address)
        .set("submission", "long_lines", "\"refuse\"")
        .set("submission", "header_fields_max", "10")
        .set("submission", "idle_commands_max", "6");
    let daemon = Daemon::start(config);
    let mut client = Client::connect(daemon.smtp);
    let reply = client.send(APP, &[TO], &with_line("too long", 999)).unwrap();
    assert!(reply.starts_with("554 5.6.0"), "{reply}");
    let fields = [b"X-Field: x\r\n".repeat(8), mail("too many")].concat();
    let reply = client.send(APP, &[TO], &fields).unwrap();
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    let fields = [b"X-Field: x\r\n\tfolded\r\n".repeat(7), with_line("enough", 998)].concat();
    let reply = client.send(APP, &[TO], &fields).unwrap();
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    for _ in 0..6 {
        assert!(client.say("NOOP").starts_with("250"));
    }
    let reply = client.say("NOOP");
    assert!(reply.starts_with("421 4.7.0"), "{reply}");
    let arrived = sink.wait_for_text("Subject: enough\r\n");
    assert_eq!((sink.mails().len(), arrived.chunks), (1, 0));
}
