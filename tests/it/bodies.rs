//! What was in a mail that has ended, over HTTP: as long as `retention.bodies` says.

use std::fs;

use rebound::mail::base64;
use serde_json::{Value, json};

use crate::harness::daemon::{Config, Daemon};
use crate::harness::sink::{Sink, contains};
use crate::harness::smtp::submit;
use crate::harness::{SOON, http, wait_for};

/// Dots at the start of lines, octets that are no ASCII, a line too long for DATA, no end of line.
fn by_smtp() -> Vec<u8> {
    let mut mail = b"Subject: small\r\nMIME-Version: 1.0\r\n\
                     Content-Type: text/plain; charset=utf-8\r\n\
                     Content-Transfer-Encoding: 8bit\r\n\r\n.\r\n..Gr\xc3\xbc\xc3\x9fe\r\n\r\n"
        .to_vec();
    mail.extend(vec![b'x'; 2_000]);
    mail.extend(b"\r\n.\r\n\r\n");
    mail
}

/// A mail whose body is too large for the spool's frames, by HTTP; its queue id.
fn posted(daemon: &Daemon) -> String {
    let picture: Vec<u8> = (0_u32..100_000).flat_map(u32::to_be_bytes).collect();
    let letter = json!({
        "from": { "address": "anna@app.test" },
        "to": { "address": "b@dest.test" },
        "subject": "large",
        "text": "Gr\u{fc}\u{df}e",
        "attachments": [{ "filename": "p.bin", "content": base64::encode(&picture) }]
    });
    let path = "/v1/account/default/submit";
    let fields = "Content-Type: application/json\r\n";
    let (status, _, answer) =
        http::send("POST", daemon.http, path, fields, letter.to_string().as_bytes());
    assert_eq!(status, 200, "{answer}");
    answer["queueId"].as_str().unwrap().to_owned()
}

fn source(daemon: &Daemon, queue_id: &str) -> (u16, Vec<u8>) {
    let path = format!("/v1/account/default/message/{queue_id}/source");
    let (status, _, body) = http::get_raw(daemon.http, &path, "");
    (status, body)
}

fn text(daemon: &Daemon, queue_id: &str) -> (u16, Value) {
    daemon.get(&format!("/v1/account/default/text/{queue_id}"))
}

/// Starts it again with another `retention.bodies`.
fn restart_with(daemon: &mut Daemon, was: &str, now: &str) {
    let path = daemon.dir.path().join("rebound.toml");
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace(&format!("bodies = \"{was}\""), &format!("bodies = \"{now}\""));
    assert_ne!(changed, text);
    fs::write(&path, changed).unwrap();
    daemon.restart();
}

#[test]
fn a_mail_that_was_relayed_is_read_octet_for_octet_over_kill_9_until_its_time_is_over() {
    let sink = Sink::start();
    let config = Config::new().relay(sink.address).set("retention", "bodies", "\"1h\"");
    let mut daemon = Daemon::start(config);
    let small = submit(daemon.smtp, "anna@app.test", &["b@dest.test"], &by_smtp()).queue_id;
    let large = posted(&daemon);
    sink.wait_for("both arrive", SOON, |mails| (mails.len() == 2).then_some(()));
    for round in ["killed as they went", "killed later", "stopped"] {
        if round == "stopped" {
            assert!(daemon.terminate().success());
        } else {
            daemon.kill();
        }
        daemon.restart();
        for (queue_id, subject) in [(&small, "Subject: small"), (&large, "Subject: large")] {
            daemon.await_states(queue_id, &["relayed"]);
            let relayed = sink.wait_for_text(subject).octets;
            let (status, octets) = source(&daemon, queue_id);
            assert_eq!(status, 200, "{round}, {subject}");
            assert!(octets == relayed, "{round}, {subject}: {} octets", octets.len());
            let (status, shown) = text(&daemon, queue_id);
            assert!(status == 200 && shown["plain"].as_str().unwrap().contains("Grüße"), "{shown}");
        }
    }
    let (_, octets) = source(&daemon, &small);
    assert!(contains(&octets, b"\r\n.\r\n..Gr\xc3\xbc\xc3\x9fe\r\n\r\nxxx"), "as it was given");

    daemon.kill();
    restart_with(&mut daemon, "1h", "0s");
    for queue_id in [&small, &large] {
        let (status, octets) = source(&daemon, queue_id);
        let answer: Value = serde_json::from_slice(&octets).unwrap();
        assert_eq!((status, &answer["code"]), (404, &json!("MessageBodyPurged")), "{answer}");
        let (status, answer) = text(&daemon, queue_id);
        assert_eq!((status, &answer["code"]), (404, &json!("MessageBodyPurged")), "{answer}");
        let (status, shown) = daemon.get(&format!("/v1/account/default/message/{queue_id}"));
        assert_eq!(status, 200, "{shown}");
    }
    let bodies = daemon.dir.path().join("data/bodies");
    wait_for("their files are removed", SOON, || {
        (fs::read_dir(&bodies).unwrap().count() == 0).then_some(())
    });
}
