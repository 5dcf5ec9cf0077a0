//! What an app or a stranger may throw at the submission port.

use crate::harness::daemon::{Config, Daemon};
use crate::harness::sink::{Sink, contains};
use crate::harness::smtp::{Client, mail, submit};
use crate::harness::{SOON, wait_for};

const APP: &str = "anna@app.test";

#[test]
fn a_mail_over_the_limit_is_refused_early_and_late_and_the_next_one_is_taken() {
    let sink = Sink::start();
    let config = Config::new().relay(sink.address).set("submission", "message_bytes_max", "100000");
    let daemon = Daemon::start(config);
    let mut client = Client::connect(daemon.smtp);
    let reply = client.say("MAIL FROM:<anna@app.test> SIZE=100001");
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    let mut big = mail("too big");
    big.resize(200_000, b'x');
    let reply = client.send(APP, &["b@dest.test"], &big).unwrap();
    assert!(reply.starts_with("552 5.3.4"), "{reply}");
    let reply = client.send(APP, &["b@dest.test"], &mail("small enough")).unwrap();
    assert!(reply.starts_with("250 2.0.0"), "{reply}");
    sink.wait_for_text("Subject: small enough");
}

#[test]
fn an_address_cannot_carry_a_command_or_a_field() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().relay(sink.address));
    let mut client = Client::connect(daemon.smtp);
    for line in [
        "MAIL FROM:<a\rRCPT TO:<x@y>@app.test>",
        "MAIL FROM:<a\0b@app.test>",
        "MAIL FROM:<\"a\rb\"@app.test>",
        "MAIL FROM:<a@app.test> SIZE=1 SIZE=2",
        "MAIL FROM:<a@app.test\u{85}Bcc: x@y>",
        "MAIL FROM:a@app.test",
        "MAIL FROM:<a@app.test",
    ] {
        let reply = client.say(line);
        assert!(reply.starts_with("50") || reply.starts_with("55"), "{line:?}: {reply}");
    }
    client.say("MAIL FROM:<anna@app.test>");
    for line in [
        "RCPT TO:<b@dest.test\rDATA>",
        "RCPT TO:<b@dest.test> NOTIFY=NEVER\rX: y",
        "RCPT TO:<>",
        "RCPT TO:<b@dest.test>>",
        "RCPT TO:<b c@dest.test>",
        "RCPT TO:<@@>",
    ] {
        let reply = client.say(line);
        assert!(reply.starts_with('5'), "{line:?}: {reply}");
    }
    let reply = client.say("RCPT TO:<\"quoted @ <local>\"@dest.test>");
    assert!(reply.starts_with("250"), "{reply}");
    client.say("DATA");
    client.raw(&[mail("quoted").as_slice(), b".\r\n"].concat()).unwrap();
    assert!(client.reply().unwrap().starts_with("250 2.0.0"));
    let mail = sink.wait_for_text("Subject: quoted");
    assert_eq!(mail.to, ["\"quoted @ <local>\"@dest.test"]);
}

#[test]
fn what_the_app_must_not_send_out_is_removed_and_what_is_missing_is_added() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().relay(sink.address));
    let body = "From: a@app.test\r\nBcc: hidden@dest.test\r\nReturn-Path: <x@y>\r\n\
                X-Rebound-Meta-Order: 4711\r\nSubject: stamped\r\n\r\nHello.\r\n";
    let queued = submit(daemon.smtp, APP, &["b@dest.test"], body.as_bytes());
    let mail = sink.wait_for_text("Subject: stamped");
    for gone in ["Bcc:", "Return-Path:", "X-Rebound-Meta"] {
        assert!(!contains(&mail.octets, gone.as_bytes()), "{gone}");
    }
    for there in ["Message-ID:", "Date:", "Received:", "X-Rebound-Id:"] {
        assert!(contains(&mail.octets, there.as_bytes()), "{there}");
    }
    assert!(contains(&mail.octets, queued.message_id.as_bytes()));
}

#[test]
fn an_account_over_its_limit_is_put_off_and_a_new_limit_holds_for_what_was_counted() {
    let sink = Sink::start();
    let limit = |most: u32| format!("messages_per_minute_max = {most}");
    let config =
        Config::new().relay(sink.address).set("submission", "messages_per_minute_max", "2");
    let daemon = Daemon::start(config);
    let send = |subject: &str| {
        let mut client = Client::connect(daemon.smtp);
        client.send(APP, &["b@dest.test"], &mail(subject)).unwrap()
    };
    for subject in ["first", "second"] {
        let reply = send(subject);
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
    }
    let reply = send("third");
    assert!(reply.starts_with("450 4.7.1"), "{reply}");

    let path = daemon.dir.path().join("rebound.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace(&limit(2), &limit(3))).unwrap();
    daemon.signal("HUP");
    wait_for("the third is taken", SOON, || send("third").starts_with("250 2.0.0").then_some(()));
    let reply = send("fourth");
    assert!(reply.starts_with("450 4.7.1"), "{reply}");
    sink.wait_for("three mails", SOON, |mails| (mails.len() == 3).then_some(()));
}

#[test]
fn a_session_of_nonsense_ends_and_others_go_on() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().relay(sink.address));
    let mut client = Client::connect(daemon.smtp);
    let mut last = String::new();
    for _ in 0..100 {
        match client.command("\u{1}NONSENSE") {
            Ok(reply) => last = reply,
            Err(_) => break,
        }
    }
    assert!(last.starts_with("421"), "{last}");
    let mut client = Client::connect(daemon.smtp);
    client.raw(&vec![b'A'; 1 << 20]).unwrap_or_default();
    submit(daemon.smtp, APP, &["b@dest.test"], &mail("still here"));
    sink.wait_for("the mail of the others", SOON, |mails| (!mails.is_empty()).then_some(()));
}

#[test]
fn nothing_that_is_relayed_has_a_bare_newline_or_a_nul() {
    let sink = Sink::start();
    let config =
        Config::new().relay(sink.address).set("submission", "bare_newline", "\"normalize\"");
    let daemon = Daemon::start(config);
    let body = "one\ntwo\rthree\r\r\n.\n\n.\r\r\nfour\r.\r\n";
    let long = "x".repeat(2000);
    for (subject, text) in [("by data", body.to_owned()), ("in chunks", format!("{body}{long}\n"))]
    {
        let mut client = Client::connect(daemon.smtp);
        client.say("MAIL FROM:<anna@app.test>");
        client.say("RCPT TO:<b@dest.test>");
        let mail = format!("Subject: {subject}\r\nX-Bare: a\rb\nX-More: c\r\n\r\n{text}");
        client.raw(format!("BDAT {} LAST\r\n{mail}", mail.len()).as_bytes()).unwrap();
        let reply = client.reply().unwrap();
        assert!(reply.starts_with("250 2.0.0"), "{reply}");
        let arrived = sink.wait_for_text(&format!("Subject: {subject}\r\n"));
        assert_eq!(arrived.chunks > 0, subject == "in chunks");
        let octets = arrived.octets;
        let count = |part: &[u8]| octets.windows(part.len()).filter(|w| *w == part).count();
        let lines = count(b"\r\n");
        assert_eq!([count(b"\r"), count(b"\n"), count(b"\0")], [lines, lines, 0]);
    }
    let mut client = Client::connect(daemon.smtp);
    let with_nul = [crate::harness::smtp::mail("nul").as_slice(), b"a\0b\r\n"].concat();
    let reply = client.send(APP, &["b@dest.test"], &with_nul).unwrap();
    assert!(reply.starts_with("550 5.6.0"), "{reply}");
    assert_eq!(sink.mails().len(), 2);
}
