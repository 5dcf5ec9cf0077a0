//! Reports at the inbound listener: good, false, repeated, huge and far too many.

use std::process::Command;

use rebound::clock::Stopwatch;
use serde_json::Value;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Answer, Mail, Sink};
use crate::harness::smtp::{Client, Queued, mail, submit};
use crate::harness::{SOON, TempDir, http, program, run, wait_for};

const APP: &str = "anna@app.test";

fn start() -> (Sink, Daemon) {
    let sink = Sink::start();
    let config =
        Config::new().verp().relay(sink.address).set("return_path", "forward_to", "\"none\"");
    let daemon = Daemon::start(config);
    (sink, daemon)
}

/// Submits a mail and returns it as it went out: its reverse-path is a return token.
fn relayed(sink: &Sink, daemon: &Daemon, to: &str, subject: &str) -> (Queued, Mail) {
    let queued = submit(daemon.smtp, APP, &[to], &mail(subject));
    let mail = sink.wait_for_text(&format!("Subject: {subject}\r\n"));
    daemon.await_states(&queued.queue_id, &["relayed"]);
    (queued, mail)
}

fn report_total(daemon: &Daemon, name: &str) -> f64 {
    let (_, _, body) = http::get_raw(daemon.http, "/metrics", "");
    let text = String::from_utf8_lossy(&body).into_owned();
    let lines = text.lines().filter(|line| line.starts_with(name));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[test]
fn only_a_valid_return_token_is_taken() {
    let (sink, daemon) = start();
    let (_, mail) = relayed(&sink, &daemon, "b@dest.test", "token");
    let good = mail.from;
    assert!(good.starts_with("b+") && good.ends_with("@bounces.app.test"), "{good}");
    assert!(good.split('@').next().unwrap().len() <= 64, "{good}");
    let token = good.strip_prefix("b+").unwrap().split('@').next().unwrap().to_owned();
    let flipped = |at: usize| {
        let mut chars: Vec<char> = token.chars().collect();
        chars[at] = if chars[at] == 'a' { 'b' } else { 'a' };
        format!("b+{}@bounces.app.test", chars.iter().collect::<String>())
    };
    let mut client = Client::connect(daemon.inbound);
    client.say("MAIL FROM:<>");
    let last = token.len() - 1;
    let mut bad: Vec<String> = [0, 1, 8, 20, last].into_iter().map(flipped).collect();
    bad.push(format!("b+{}@bounces.app.test", token.split_at(last).0));
    bad.push(format!("b+{token}x@bounces.app.test"));
    bad.push(format!("b+{token}@elsewhere.test"));
    bad.extend(
        ["b+@bounces.app.test", "postmaster@elsewhere.test", "anna@app.test"].map(str::to_owned),
    );
    for address in bad {
        let reply = client.say(&format!("RCPT TO:<{address}>"));
        assert!(reply.starts_with("550 5."), "{address}: {reply}");
        client.say("RSET");
        client.say("MAIL FROM:<>");
    }
    let upper = good.to_ascii_uppercase();
    for address in [good.as_str(), upper.as_str()] {
        let reply = client.say(&format!("RCPT TO:<{address}>"));
        assert!(reply.starts_with("250"), "{address}: {reply}");
    }
}

#[test]
fn a_token_of_another_installation_or_of_too_long_ago_is_refused() {
    let (sink, daemon) = start();
    let (_, foreign) = relayed(&sink, &daemon, "b@dest.test", "foreign");
    let (other_sink, other) = start();
    let reply = send(other.inbound, &foreign.from, &dsn("<m@x>", &[("b@dest.test", "failed")]));
    assert!(reply.unwrap().starts_with("550 5."));
    drop((other, other_sink));

    let sink = Sink::start();
    let config = Config::new().verp().relay(sink.address);
    let daemon = Daemon::start(config.set("return_path", "token_lifetime", "\"1s\""));
    let (queued, old) = relayed(&sink, &daemon, "b@dest.test", "old");
    wait_for("the token is too old", SOON, || {
        let mut client = Client::connect(daemon.inbound);
        client.say("MAIL FROM:<>");
        client.say(&format!("RCPT TO:<{}>", old.from)).starts_with("550 5.").then_some(())
    });
    daemon.await_states(&queued.queue_id, &["relayed"]);
}

#[test]
fn the_same_report_twice_is_one_bounce() {
    let (sink, daemon) = start();
    let (queued, mail) = relayed(&sink, &daemon, "b@dest.test", "twice");
    let report = dsn(&queued.message_id, &[("b@dest.test", "failed")]);
    for _ in 0..2 {
        assert!(send(daemon.inbound, &mail.from, &report).unwrap().starts_with("250"));
    }
    wait_for("both are captured", SOON, || {
        (report_total(&daemon, "rebound_reports_total") >= 2.0).then_some(())
    });
    let answer = daemon.bounces(&queued.message_id);
    assert_eq!(answer["bounces"].as_array().unwrap().len(), 1, "{answer:#}");
    daemon.await_states(&queued.queue_id, &["bounced"]);
}

#[test]
fn news_of_a_delivery_is_no_bounce_and_a_failure_outweighs_it() {
    let (sink, daemon) = start();
    let (queued, mail) = relayed(&sink, &daemon, "b@dest.test", "news");
    let report = |action| {
        let report = dsn(&queued.message_id, &[("b@dest.test", action)]);
        assert!(send(daemon.inbound, &mail.from, &report).unwrap().starts_with("250"));
    };
    report("delivered");
    daemon.await_states(&queued.queue_id, &["delivered"]);
    report("failed");
    daemon.await_states(&queued.queue_id, &["bounced"]);
    report("delayed");
    wait_for("all three are captured", SOON, || {
        (report_total(&daemon, "rebound_reports_total") >= 3.0).then_some(())
    });
    daemon.await_states(&queued.queue_id, &["bounced"]);
    let answer = daemon.bounces(&queued.message_id);
    let failed = answer["bounces"].as_array().unwrap();
    assert_eq!(failed.iter().filter(|bounce| bounce["action"] == "failed").count(), 1);
}

#[test]
fn a_report_that_overtakes_the_250_still_counts() {
    let inbound = std::sync::Arc::new(std::sync::OnceLock::<std::net::SocketAddr>::new());
    let known = std::sync::Arc::clone(&inbound);
    let sink = Sink::scripted(Box::new(move |point, _| {
        if let crate::harness::sink::Point::End(mail) = point
            && mail.from.starts_with("b+")
        {
            let report = dsn("<unknown@elsewhere.test>", &[("b@dest.test", "failed")]);
            let reply = send(*known.get().unwrap(), &mail.from, &report).unwrap();
            assert!(reply.starts_with("250"), "{reply}");
        }
        Answer::Accept
    }));
    let daemon = Daemon::start(Config::new().verp().relay(sink.address));
    inbound.set(daemon.inbound).unwrap();
    let queued = submit(daemon.smtp, APP, &["b@dest.test"], &mail("overtaken"));
    daemon.await_states(&queued.queue_id, &["bounced"]);
}

#[test]
fn a_report_with_a_thousand_recipients_is_read_whole() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().preserve().relay(sink.address));
    let to: Vec<String> = (0..1000).map(|n| format!("r{n}@dest.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let queued = submit(daemon.smtp, "bounces@app.test", &to, &mail("thousand"));
    let relayed = vec!["relayed"; 1000];
    daemon.await_states(&queued.queue_id, &relayed);
    let failed: Vec<(&str, &str)> = to.iter().map(|to| (*to, "failed")).collect();
    let reply = send(daemon.inbound, "bounces@app.test", &dsn(&queued.message_id, &failed));
    assert!(reply.unwrap().starts_with("250"));
    daemon.await_states(&queued.queue_id, &vec!["bounced"; 1000]);
    let answer = daemon.bounces(&queued.message_id);
    assert_eq!(answer["bounces"].as_array().unwrap().len(), 1000);
}

#[test]
fn a_storm_of_reports_to_one_token_costs_bounded_memory() {
    let (sink, daemon) = start();
    let (queued, mail) = relayed(&sink, &daemon, "b@dest.test", "storm");
    let before = daemon.resident_bytes();
    let storm = Stopwatch::start();
    let from = mail.from.as_str();
    let daemon_ref = &daemon;
    let queued_ref = &queued;
    std::thread::scope(|scope| {
        for worker in 0..10 {
            scope.spawn(move || {
                let mut client = Client::connect(daemon_ref.inbound);
                for number in 0..1000 {
                    let mut report = format!("X-Storm: {worker}-{number}\r\n").into_bytes();
                    report.extend(dsn(&queued_ref.message_id, &[("b@dest.test", "failed")]));
                    let reply = client.send("", &[from], &report).unwrap();
                    assert!(reply.starts_with("250") || reply.starts_with("45"), "{reply}");
                }
            });
        }
    });
    println!("10000 reports in {:?}", storm.elapsed());
    daemon.await_states(&queued.queue_id, &["bounced"]);
    let answer = daemon.bounces(&queued.message_id);
    assert_eq!(answer["bounces"].as_array().unwrap().len(), 1, "{answer:#}");
    let grown = daemon.resident_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{} MiB more than before the storm", grown >> 20);
    assert!(report_total(&daemon, "rebound_reports_dropped_total") > 0.0, "the cap is counted");
}

#[test]
fn a_report_nested_thirty_levels_deep_is_taken_and_kept() {
    let (sink, daemon) = start();
    let (queued, mail) = relayed(&sink, &daemon, "b@dest.test", "nested");
    let mut part = "Content-Type: text/plain\r\n\r\ninnermost\r\n".to_owned();
    for level in 0..30 {
        part = format!(
            "Content-Type: multipart/mixed; boundary=\"b{level}\"\r\n\r\n--b{level}\r\n{part}\r\n--b{level}--\r\n"
        );
    }
    let nested = format!(
        "From: mailer-daemon@x.test\r\nSubject: Undelivered\r\nMIME-Version: 1.0\r\n{part}"
    );
    assert!(send(daemon.inbound, &mail.from, nested.as_bytes()).unwrap().starts_with("250"));
    let good = dsn(&queued.message_id, &[("b@dest.test", "failed")]);
    assert!(send(daemon.inbound, &mail.from, &good).unwrap().starts_with("250"));
    daemon.await_states(&queued.queue_id, &["bounced"]);
    wait_for("the nested one is captured, too", SOON, || {
        (report_total(&daemon, "rebound_reports_total") >= 2.0).then_some(())
    });
}

#[test]
fn a_report_that_matches_nothing_is_kept_and_listed() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().preserve().relay(sink.address));
    let report = dsn("<never@seen.test>", &[("b@dest.test", "failed")]);
    assert!(send(daemon.inbound, "bounces@app.test", &report).unwrap().starts_with("250"));
    let list = wait_for("it is listed", SOON, || {
        let (status, list) = daemon.get("/v1/reports?unmatched=true");
        assert_eq!(status, 200, "{list}");
        list["reports"].as_array().is_some_and(|reports| !reports.is_empty()).then_some(list)
    });
    let id = list["reports"][0]["id"].as_str().unwrap();
    let (status, kept) = daemon.get(&format!("/v1/reports/{id}"));
    assert_eq!(status, 200, "{kept}");
    let (status, missing) = daemon.get("/v1/bounces/never%40seen.test");
    assert_eq!((status, missing["statusCode"].as_u64()), (404, Some(404)), "{missing}");
    assert_ne!(missing["code"], Value::Null, "{missing}");
}

#[test]
fn a_report_over_lmtp_is_taken_for_a_token_and_refused_for_strangers() {
    let place = TempDir::new("lmtp");
    let socket = place.path().join("lmtp");
    let sink = Sink::start();
    let quoted = format!("\"{}\"", socket.display());
    let config = Config::new()
        .verp()
        .relay(sink.address)
        .set("return_path", "forward_to", "\"none\"")
        .set("inbound", "lmtp_socket", &quoted);
    let daemon = Daemon::start(config);
    let (queued, sent) = relayed(&sink, &daemon, "b@dest.test", "lmtp");
    let report = place.file("report.eml", dsn(&queued.message_id, &[("b@dest.test", "failed")]));
    let script = "import smtplib, sys\n\
        client = smtplib.LMTP(sys.argv[1])\n\
        refused = client.sendmail('', sys.argv[3:], open(sys.argv[2], 'rb').read())\n\
        client.quit()\n\
        print(sorted(refused))\n";
    let stranger = "stranger@bounces.app.test";
    let output = run(Command::new(program("python3", "python3"))
        .args(["-c", script])
        .args([&socket, &report])
        .args([stranger, &sent.from]));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("['{stranger}']"));
    let message = daemon.await_states(&queued.queue_id, &["bounced"]);
    assert_eq!(message["bounces"][0]["capturedBy"], "listener", "{message:#}");
}

#[test]
fn rules_that_are_read_at_a_reload_are_for_reports_to_come_and_for_old_ones_read_again() {
    let place = TempDir::new("rules");
    let rules = |category: &str| {
        place.file("rules.txt", format!("{category}  of-the-operator\n    no such user\n"))
    };
    let quoted = format!("\"{}\"", rules("mailbox_full").display());
    let sink = Sink::start();
    let config =
        Config::new().verp().relay(sink.address).set("return_path", "forward_to", "\"none\"");
    let daemon = Daemon::start(config.set("bounces", "rules_file", &quoted));
    let reported = |subject: &str| {
        let (queued, mail) = relayed(&sink, &daemon, "b@dest.test", subject);
        let report = dsn(&queued.message_id, &[("b@dest.test", "failed")]);
        assert!(send(daemon.inbound, &mail.from, &report).unwrap().starts_with("250"));
        daemon.await_states(&queued.queue_id, &["bounced"]);
        queued
    };
    let category = |queued: &Queued| {
        daemon.bounces(&queued.message_id)["bounces"][0]["response"]["category"].clone()
    };
    let old = reported("by the old rules");
    assert_eq!(category(&old), "mailbox_full");

    rules("user_unknown");
    daemon.signal("HUP");
    wait_for("the rules are read", SOON, || {
        daemon.log().contains("reloaded certificates").then_some(())
    });
    let new = reported("by the new rules");
    assert_eq!(category(&new), "user_unknown");
    assert_eq!(category(&old), "mailbox_full", "what was captured stays as it was");

    let (code, said) = daemon.command(&["reparse"]);
    assert!(code == 0 && said.contains("mailbox_full") && said.contains("user_unknown"), "{said}");
    assert!(said.contains("2 reports read again, 1 differ, nothing recorded"), "{said}");
    assert_eq!(category(&old), "mailbox_full");

    // To change what is stored takes a token, and with a token all who ask need one.
    let (code, token) = daemon.command(&["token", "add", "test", "--scope", "admin"]);
    assert_eq!(code, 0, "{token}");
    let file = place.file("token", token.trim());
    let file = file.to_str().unwrap();
    let (code, said) = daemon.command(&["reparse", "--apply", "--token-file", file]);
    assert!(code == 0 && said.contains("1 differ, 1 recorded"), "{said}");
    let arguments = ["bounces", &old.message_id, "--json", "--token-file", file];
    let (_, said) = daemon.command(&arguments);
    assert!(said.contains("user_unknown") && !said.contains("mailbox_full"), "{said}");
}

#[test]
fn a_mail_that_is_given_over_http_is_captured_like_any_other_and_once() {
    let sink = Sink::start();
    let config = Config::new().preserve().relay(sink.address);
    let mut daemon = Daemon::start(config.set("inbound", "message_bytes_max", "100000"));
    let queued = submit(daemon.smtp, APP, &["b@dest.test"], &mail("given"));
    daemon.await_states(&queued.queue_id, &["relayed"]);
    let report = dsn(&queued.message_id, &[("b@dest.test", "failed")]);
    let give = |daemon: &Daemon, fields: &str, mail: &[u8]| {
        let (status, _, taken) = http::send("POST", daemon.http, "/v1/reports", fields, mail);
        (status, taken)
    };
    let kind = "Content-Type: message/rfc822\r\n";
    assert_eq!(give(&daemon, kind, &report).0, 401, "it may change a state");

    let (code, token) = daemon.command(&["token", "add", "test", "--scope", "admin"]);
    assert_eq!(code, 0, "{token}");
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    let fields = format!("{kind}{bearer}");
    let (status, taken) = give(&daemon, &fields, &report);
    assert_eq!((status, &taken["known"]), (200, &Value::Bool(false)), "{taken:#}");
    assert_eq!(taken["capturedBy"], "api", "{taken:#}");
    assert_eq!(taken["matched"][0], Value::from(queued.queue_id.clone()), "{taken:#}");
    daemon.kill();
    daemon.restart();
    let (status, again) = give(&daemon, &fields, &report);
    assert_eq!((status, &again["known"]), (200, &Value::Bool(true)), "{again:#}");
    assert_eq!(again["id"], taken["id"]);
    let path = format!("/v1/messages/{}", queued.queue_id);
    let (_, _, message) = http::send("GET", daemon.http, &path, &bearer, b"");
    assert_eq!(message["recipients"][0]["state"], "bounced", "{message:#}");
    assert_eq!(message["bounces"].as_array().unwrap().len(), 1, "{message:#}");
    assert_eq!(message["bounces"][0]["capturedBy"], "api", "{message:#}");

    let (status, other) = give(&daemon, &fields, b"Subject: hello\r\n\r\nno report at all\r\n");
    assert_eq!((status, &other["verdict"]), (200, &Value::from("other")), "{other:#}");
    assert!(other.get("forwardedTo").is_none(), "it has arrived where it was to: {other:#}");
    let as_text = format!("Content-Type: text/plain\r\n{bearer}");
    assert_eq!(give(&daemon, &as_text, &report).0, 415);
    let (status, refused) = give(&daemon, &fields, &[b'x'; 100_001]);
    let names_setting = refused["message"].as_str().unwrap().contains("inbound.message_bytes_max");
    assert!(status == 413 && names_setting, "{refused}");
    let (status, refused) = give(&daemon, &fields, b"");
    assert_eq!((status, &refused["code"]), (400, &Value::from("BodyEmpty")), "{refused}");
}
