//! What a submission comes to, and everything that is wrong with bad ones.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Letter, Terms, letter};
use crate::http::error::ApiError;
use crate::mail::dsn::Content;
use crate::mail::envelope::BodyKind;
use crate::mail::{NameAddr, Timestamp, base64, header};

fn terms() -> Terms {
    Terms {
        now: Timestamp::from_millis(1_665_576_634_845),
        send_ahead_max: Duration::from_secs(30 * 86_400),
        recipients_max: 3,
        sender: NameAddr::parse("Andris Ekiri <andris@ekiri.ee>"),
        mends_lines: false,
    }
}

fn read(value: Value) -> Letter {
    let shown = value.to_string();
    letter(value, &terms()).unwrap_or_else(|error| panic!("{shown}: {error:?}"))
}

/// The keys that are wrong, each once.
fn wrong(value: Value) -> Vec<String> {
    match letter(value, &terms()) {
        Err(ApiError::Input(fields)) => {
            let mut keys: Vec<String> = fields.into_iter().map(|field| field.key).collect();
            keys.dedup();
            keys
        }
        other => panic!("{other:?}"),
    }
}

fn text(letter: &Letter) -> String {
    String::from_utf8(letter.mail.clone()).unwrap()
}

fn recipients(letter: &Letter) -> Vec<&str> {
    letter.envelope.recipients.iter().map(|one| one.address.as_str()).collect()
}

/// The article's mail, with what else is said about it.
fn article(more: Value) -> Value {
    let mut value = json!({
        "to": { "address": "unknown@ethereal.email" },
        "subject": "Test message",
        "text": "This email should bounce!"
    });
    let Value::Object(more) = more else { panic!("{more}") };
    for (key, field) in more {
        value[key] = field;
    }
    value
}

#[test]
fn the_articles_mail_is_plain_text_from_the_accounts_sender() {
    let letter = read(article(json!({})));
    assert_eq!(letter.envelope.reverse_path.to_string(), "andris@ekiri.ee");
    assert_eq!(recipients(&letter), ["unknown@ethereal.email"]);
    assert_eq!((letter.envelope.smtputf8, letter.is_dry_run), (false, false));
    let (fields, body) = header::split(&letter.mail);
    for (name, want) in [
        ("From", "Andris Ekiri <andris@ekiri.ee>"),
        ("To", "unknown@ethereal.email"),
        ("Subject", "Test message"),
        ("MIME-Version", "1.0"),
        ("Content-Type", "text/plain; charset=\"utf-8\""),
        ("Content-Transfer-Encoding", "7bit"),
    ] {
        let got = header::find(fields, name).map(|field| field.text());
        assert_eq!(got.as_deref(), Some(want), "{name}");
    }
    assert!(header::find(fields, "Message-ID").is_none(), "the door stamps it");
    assert!(header::find(fields, "Date").is_none(), "the door stamps it");
    assert_eq!(body, b"\r\nThis email should bounce!\r\n");
}

#[test]
fn everything_that_can_be_said_is_followed() {
    let letter = read(json!({
        "from": { "name": "Jörg, \"the\" Boss", "address": "boss@example.com" },
        "to": [{ "name": "A", "address": "a@example.net" }, { "address": "b@example.net" }],
        "cc": { "address": "a@example.net" },
        "bcc": [{ "address": "secret@example.net" }],
        "replyTo": { "address": "reply@example.com" },
        "subject": "Grüße",
        "text": "plain\nlines\rof all\r\nkinds",
        "html": "<p>h\u{e9}</p>",
        "messageId": "<kept@example.com>",
        "headers": { "X-One": "1", "X-Many": ["a", "b"], "X-Number": 7 },
        "sendAt": "2022-10-13T00:00:00Z",
        "deliveryAttempts": 4,
        "dsn": {
            "id": "order 17", "return": "headers", "notify": ["failure", "delay"],
            "recipient": "orig@example.net"
        },
        "dryRun": true
    }));
    assert_eq!(recipients(&letter), ["a@example.net", "b@example.net", "secret@example.net"]);
    assert_eq!(letter.envelope.reverse_path.to_string(), "boss@example.com");
    assert_eq!(letter.control.send_at, Timestamp::parse("2022-10-13"));
    assert_eq!(letter.control.attempts_max, Some(4));
    assert!(letter.is_dry_run);
    assert_eq!(letter.envelope.dsn.content, Some(Content::Headers));
    assert_eq!(letter.envelope.dsn.envelope_id.as_ref().unwrap().as_str(), "order+2017");
    let dsn = &letter.envelope.recipients[1].dsn;
    assert_eq!(dsn.notify.unwrap().to_string(), "FAILURE,DELAY");
    assert_eq!(dsn.original_recipient.as_ref().unwrap().address(), "orig@example.net");
    let (fields, _) = header::split(&letter.mail);
    let all = |name: &str| {
        let fields = header::fields(fields).filter(|field| field.is(name));
        fields.map(|field| field.text()).collect::<Vec<_>>()
    };
    assert_eq!(all("Message-ID"), ["<kept@example.com>"]);
    assert_eq!(all("X-Many"), ["a", "b"]);
    assert_eq!(all("X-Number"), ["7"]);
    assert_eq!(all("Reply-To"), ["reply@example.com"]);
    assert!(all("Bcc").is_empty() && !text(&letter).contains("secret@"));
    assert!(fields.is_ascii(), "what is not is coded");
    let mail = text(&letter);
    assert!(mail.contains("multipart/alternative"), "{mail}");
    assert!(mail.contains("plain\r\nlines\r\nof all\r\nkinds"), "{mail}");
    assert!(!mail.replace("\r\n", "").contains(['\r', '\n']), "{mail}");
}

#[test]
fn attachments_are_coded_as_base64_and_pictures_stand_beside_their_page() {
    let attachment = |more: Value| {
        let mut value = json!({ "content": base64::encode(b"a\rb\nc\0\xff") });
        let Value::Object(more) = more else { panic!("{more}") };
        for (key, field) in more {
            value[key] = field;
        }
        value
    };
    let mail = text(&read(article(json!({
        "html": "<img src='cid:pic'>",
        "attachments": [
            attachment(json!({ "filename": "a \"b\" ü.csv", "contentType": "text/csv" })),
            attachment(json!({ "cid": "pic", "contentType": "image/png" })),
            attachment(json!({
                "contentType": "application/pdf; name=\"x y\"", "encoding": "base64",
                "contentDisposition": "inline"
            })),
            json!({ "contentType": "message/rfc822", "content": base64::encode(b"A: b\r\n\r\nc\r\n") }),
        ]
    }))));
    let order = [
        "multipart/mixed",
        "multipart/alternative",
        "text/plain",
        "multipart/related",
        "text/html",
        "image/png",
        "Content-Disposition: inline\r\n",
        "Content-ID: <pic>",
        "text/csv",
        "filename*=UTF-8''a%20%22b%22%20%C3%BC.csv",
        "application/pdf; name=\"x y\"",
        "message/rfc822\r\nContent-Transfer-Encoding: 7bit",
        "\r\n\r\nA: b\r\n\r\nc\r\n",
    ];
    let mut rest = mail.as_str();
    for part in order {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("{part} is not in {rest}"));
        rest = after;
    }
    assert_eq!(mail.matches("YQ1iCmMA/w==\r\n").count(), 3, "{mail}");
}

#[test]
fn a_mail_with_nothing_in_it_is_a_mail() {
    let letter = read(json!({ "to": { "address": "a@b" } }));
    assert!(text(&letter).ends_with("Content-Transfer-Encoding: 7bit\r\n\r\n"));
}

#[test]
fn a_raw_mail_goes_as_it_is_to_whom_its_header_or_the_envelope_names() {
    let mail = b"From: \"X\" <x@y>\r\nTo: a@b, Team: <c@d>;\r\nBcc: e@f\r\n\r\nb\xc3\xb6dy\r\n";
    let raw = base64::encode(mail);
    let letter = read(json!({ "raw": raw }));
    assert_eq!(letter.mail, mail);
    assert_eq!(recipients(&letter), ["a@b", "c@d", "e@f"]);
    assert_eq!(letter.envelope.reverse_path.to_string(), "x@y");
    assert_eq!(letter.envelope.body, BodyKind::EightBitMime);
    let letter = read(json!({ "raw": raw, "envelope": { "from": "", "to": ["g@h"] } }));
    assert!(letter.envelope.reverse_path.is_null());
    assert_eq!(recipients(&letter), ["g@h"]);
    let unix = base64::encode(b"To: a@b\n\nbody\n");
    assert_eq!(read(json!({ "raw": unix })).mail, b"To: a@b\r\n\r\nbody\r\n");
}

#[test]
fn addresses_that_are_not_ascii_need_smtputf8() {
    let letter = read(article(json!({ "to": { "address": "jörg@example.net" } })));
    assert!(letter.envelope.smtputf8);
    assert!(text(&letter).contains("To: jörg@example.net\r\n"));
}

#[test]
fn every_bad_field_is_named() {
    let line = "a\r\nBcc: evil@example.net";
    for (bad, want) in [
        (json!({ "to": { "address": "no address" } }), vec!["to.address", "to"]),
        (json!({ "to": [{ "address": "a@b" }, { "name": "x" }] }), vec!["to[1].address"]),
        (json!({ "to": { "address": line } }), vec!["to.address", "to"]),
        (json!({ "to": { "name": line, "address": "a@b" } }), vec!["to.name"]),
        (json!({ "to": "a@b" }), vec!["to"]),
        (json!({ "to": null }), vec!["to"]),
        (json!({ "to": { "address": "a@b", "group": "x" } }), vec!["to.group"]),
        (json!({ "subject": line }), vec!["subject"]),
        (json!({ "subject": 7 }), vec!["subject"]),
        (json!({ "text": "a\u{0}b" }), vec!["text"]),
        (json!({ "messageId": line }), vec!["messageId"]),
        (json!({ "messageId": "no id" }), vec!["messageId"]),
        (json!({ "from": { "name": line, "address": "a@b" } }), vec!["from.name"]),
        (json!({ "headers": { "X": line } }), vec!["headers.X"]),
        (json!({ "headers": { "X: y\r\nZ": "a" } }), vec!["headers.X: y\r\nZ"]),
        (json!({ "headers": { "bcc": "a@b" } }), vec!["headers.bcc"]),
        (json!({ "headers": { "Content-Type": "x" } }), vec!["headers.Content-Type"]),
        (json!({ "headers": { "X-EE-Send-At": "x" } }), vec!["headers.X-EE-Send-At"]),
        (json!({ "headers": { "X": ["a", {}] } }), vec!["headers.X[1]"]),
        (json!({ "attachments": [{}] }), vec!["attachments[0].content"]),
        (json!({ "attachments": { "content": "*" } }), vec!["attachments.content"]),
        (
            json!({ "attachments": [{ "content": "", "contentType": line }] }),
            vec!["attachments[0].contentType"],
        ),
        (
            json!({ "attachments": [{ "content": "", "contentType": "multipart/mixed" }] }),
            vec!["attachments[0].contentType"],
        ),
        (
            json!({ "attachments": [{ "content": "", "filename": line, "cid": "a b" }] }),
            vec!["attachments[0].filename", "attachments[0].cid"],
        ),
        (
            json!({ "attachments": [{ "content": "", "encoding": "hex", "path": "/etc/passwd" }] }),
            vec!["attachments[0].encoding", "attachments[0].path"],
        ),
        (json!({ "raw": "QQ==" }), vec!["to", "subject", "text"]),
        (json!({ "sendAt": "tomorrow" }), vec!["sendAt"]),
        (json!({ "sendAt": "2032-01-01" }), vec!["sendAt"]),
        (json!({ "deliveryAttempts": 0 }), vec!["deliveryAttempts"]),
        (json!({ "deliveryAttempts": -1.5 }), vec!["deliveryAttempts"]),
        (json!({ "dryRun": "yes" }), vec!["dryRun"]),
        (json!({ "envelope": { "from": "x", "size": 1 } }), vec!["envelope.from", "envelope.size"]),
        (json!({ "envelope": { "to": [line] } }), vec!["envelope.to[0]"]),
        (
            json!({ "dsn": { "id": "é", "return": "all", "notify": "often", "recipient": "x" } }),
            vec!["dsn.id", "dsn.return", "dsn.notify", "dsn.recipient"],
        ),
        (json!({ "template": "x", "mailMerge": [] }), vec!["template", "mailMerge"]),
    ] {
        let got = wrong(article(bad.clone()));
        let got: Vec<&str> = got.iter().map(String::as_str).collect();
        let want: Vec<&str> = want.into_iter().collect();
        // Where nobody is left to send to, that is said, too.
        let got_first = got.get(..want.len()).unwrap_or(&got);
        assert_eq!(got_first.to_vec(), want, "{bad}: {got:?}");
    }
    for not_an_object in [json!([]), json!("x"), json!(null), json!(7)] {
        assert_eq!(wrong(not_an_object), [""]);
    }
    let many: Vec<Value> = (0..4).map(|n| json!({ "address": format!("{n}@b") })).collect();
    assert_eq!(wrong(article(json!({ "to": many }))), ["to"]);
    assert_eq!(wrong(json!({ "subject": "x" })), ["to"]);
    let nobody = Terms { sender: None, ..terms() };
    assert!(letter(article(json!({})), &nobody).is_err());
    for raw in ["To: a@b\r\n\r\nbare\n", "To: a@b\r\n\r\n\0", "To: nobody here\r\n\r\n"] {
        assert_eq!(wrong(json!({ "raw": base64::encode(raw.as_bytes()) }))[0], "raw", "{raw:?}");
    }
}
