//! Mails and reports as EmailEngine lists the messages of a folder.

use std::collections::BTreeMap;

use mail_parser::{Addr, MessageParser, PartType};
use serde_json::{Map, Value};

use super::{message_headers, meta, put, shown, states};
use crate::mail::{QueueId, header};
use crate::store::record::{Bounce, HEADER_BYTES_MAX};
use crate::store::{MessageRecord, ReportRecord};

/// A sent mail in a list.
pub fn listed(record: &MessageRecord) -> Value {
    let mail = &record.submission;
    let mut entry = entry(mail.queue_id, &mail.header);
    if let Value::Object(map) = &mut entry {
        put(map, "date", mail.received_at.rfc3339());
        put(map, "size", mail.size_bytes);
        put(map, "messageId", shown(&mail.message_id));
        put(map, "account", &mail.account);
        put(map, "states", counts(record));
        put(map, "meta", meta(mail));
        let bounces: Vec<Value> =
            record.bounces.iter().filter(|bounce| bounce.is_failure()).map(listed_bounce).collect();
        if !bounces.is_empty() {
            put(map, "bounces", bounces);
        }
    }
    entry
}

/// The same with the whole header, for one mail.
pub fn listed_whole(record: &MessageRecord) -> Value {
    let mut entry = listed(record);
    if let Value::Object(map) = &mut entry {
        put(map, "headers", message_headers(&record.submission));
    }
    entry
}

/// A report in the list of the virtual folder `Bounces`.
pub fn listed_report(record: &ReportRecord) -> Value {
    let received = &record.received;
    let (fields, _) = header::split(&received.raw);
    let mut entry = entry(received.id.0, fields.get(..HEADER_BYTES_MAX).unwrap_or(fields));
    if let Value::Object(map) = &mut entry {
        put(map, "date", received.received_at.rfc3339());
        put(map, "size", received.raw.len());
        match header::find(fields, "Message-ID").map(|field| field.text()) {
            Some(message_id) => put(map, "messageId", message_id),
            None => drop(map.shift_remove("messageId")),
        }
    }
    entry
}

/// The text of a mail, `bytes_max` octets of each form at most.
pub fn text(raw: &[u8], bytes_max: usize) -> Value {
    let mail = MessageParser::default().parse(raw);
    let (mut plain, mut html) = (String::new(), String::new());
    let parts = mail.iter().flat_map(|mail| {
        let places = mail.text_body.iter().chain(&mail.html_body);
        let mut places: Vec<u32> = places.copied().collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| mail.part(place))
    });
    for part in parts {
        match &part.body {
            PartType::Text(text) => plain.push_str(text),
            PartType::Html(text) => html.push_str(text),
            _ => {}
        }
    }
    let has_more = plain.len() > bytes_max || html.len() > bytes_max;
    let cut = |text: &str| {
        let end = text.floor_char_boundary(bytes_max);
        text.get(..end).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    object! {
        "plain": cut(&plain),
        "html": cut(&html),
        "hasMore": has_more,
    }
}

/// What a mail and a report have in common: names, and what stands in the header.
fn entry(id: QueueId, fields: &[u8]) -> Value {
    let parsed = MessageParser::default().parse_headers(fields);
    let parsed = parsed.as_ref();
    let all = |addresses: Option<&mail_parser::Address<'_>>| {
        let all: Vec<Value> = addresses?.iter().take(ADDRESSES_MAX).map(address).collect();
        (!all.is_empty()).then_some(all)
    };
    let from = parsed.and_then(|mail| mail.from()?.iter().next().map(address));
    object! {
        "id": id,
        "uid": uid(id),
        // In the place of each stands what only the record knows.
        "date": "",
        "size": 0,
        "subject": parsed.and_then(|mail| mail.subject()),
        "from": from,
        "replyTo": all(parsed.and_then(|mail| mail.reply_to())),
        "to": all(parsed.and_then(|mail| mail.to())),
        "cc": all(parsed.and_then(|mail| mail.cc())),
        "messageId": "",
        "inReplyTo": parsed.and_then(|mail| mail.in_reply_to().as_text()),
        "text": object! { "id": id, },
    }
}

fn address(address: &Addr<'_>) -> Value {
    object! {
        "name": address.name.as_deref().unwrap_or_default(),
        "address": address.address.as_deref().unwrap_or_default(),
    }
}

/// A bounce as it stands beside its mail; `message` is absent where there is no report.
fn listed_bounce(bounce: &Bounce) -> Value {
    let response = &bounce.response;
    object! {
        "message": bounce.report_id,
        "recipient": &bounce.recipient,
        "action": bounce.action,
        "response": object! {
            "message": Some(&response.message).filter(|message| !message.is_empty()),
            "status": response.status,
        },
        "date": bounce.date.rfc3339(),
    }
}

/// How many recipients are in each state.
fn counts(record: &MessageRecord) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for state in states(record) {
        let count: &mut usize = counts.entry(state.as_str()).or_default();
        *count = count.saturating_add(1);
    }
    counts
}

/// A number for those who need one: later mails have larger ones, and a program that has only
/// doubles keeps it whole. Milliseconds, and ten bits of what makes an id unique.
fn uid(id: QueueId) -> u64 {
    let [.., high, low] = *id.as_bytes();
    let unique = u64::from(u16::from_be_bytes([high, low])) & 0x3ff;
    (id.time().as_millis() << 10) | unique
}

/// Addresses of one field that are shown in a list.
const ADDRESSES_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::super::testing::{mail, record, reported};
    use super::*;
    use crate::mail::Timestamp;
    use crate::store::record::{CapturedBy, ReportId, ReportReceived};
    use serde_json::json;

    /// `bounces` of the article's list, as it stands there.
    fn article() -> Value {
        json!([{
            "message": "AAAADAAAByc",
            "recipient": "unknown@ethereal.email",
            "action": "failed",
            "response": { "message": "550 No such user here", "status": "5.0.0" },
            "date": "2022-10-12T12:10:40.003Z"
        }])
    }

    #[test]
    fn the_articles_bounces_have_every_field_by_name_type_order_and_value() {
        let report = ReportId(QueueId::new(Timestamp::from_millis(1_665_576_640_003), 2));
        let bounce = Bounce {
            date: Timestamp::from_millis(1_665_576_640_003),
            report_id: Some(report),
            ..reported()
        };
        let entry = listed(&record(vec![], vec![bounce]));
        let mut want = article();
        want[0]["message"] = json!(report);
        assert_eq!(entry["bounces"].to_string(), want.to_string());
        for (key, value) in [
            ("date", json!("2022-10-12T12:10:34.845Z")),
            ("subject", json!("Test message")),
            ("from", json!({ "name": "Andris Ekiri", "address": "andris@ekiri.ee" })),
            ("to", json!([{ "name": "", "address": "unknown@ethereal.email" }])),
            ("messageId", json!("<3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>")),
            ("size", json!(512)),
            ("states", json!({ "bounced": 1, "queued": 1 })),
        ] {
            assert_eq!(entry[key], value, "{key}");
        }
        assert!(entry["id"].is_string() && entry["uid"].is_u64());
        assert!(entry["uid"].as_u64().unwrap() < 1 << 53);
    }

    #[test]
    fn what_is_not_there_is_absent() {
        let inline = Bounce { report_id: None, captured_by: CapturedBy::Inline, ..reported() };
        let entry = listed(&record(vec![], vec![inline]));
        assert!(entry["bounces"][0].get("message").is_none(), "{entry}");
        let delayed = Bounce { action: crate::bounce::Action::Delayed, ..reported() };
        let entry = listed(&record(vec![], vec![delayed]));
        for key in ["bounces", "cc", "replyTo", "inReplyTo", "meta", "headers"] {
            assert!(entry.get(key).is_none(), "{key}: {entry}");
        }
        let bare = MessageRecord {
            submission: crate::store::record::Submission { header: vec![], ..mail(&["a@b.c"]) },
            attempts: vec![],
            bounces: vec![],
            orders: vec![],
        };
        let entry = listed(&bare);
        assert!(entry.get("subject").is_none() && entry.get("from").is_none(), "{entry}");
    }

    #[test]
    fn headers_are_decoded_and_reports_are_listed_alike() {
        let raw = b"From: =?utf-8?q?J=C3=BCrgen?= <j@x.example>\r\n\
            To: a@b.example, \"B, C\" <c@d.example>\r\nSubject: =?utf-8?b?w7xiZXI=?=\r\n\
            Message-ID: <r@x>\r\n\r\nbody\r\n";
        let received = ReportReceived {
            id: ReportId(QueueId::new(Timestamp::from_millis(1_665_576_640_003), 2)),
            received_at: Timestamp::from_millis(1_665_576_640_003),
            captured_by: CapturedBy::Imap,
            reverse_path: String::new(),
            recipients: vec![],
            tokens: vec![],
            digest: [0; 16],
            raw: raw.to_vec(),
        };
        let entry = listed_report(&ReportRecord { received, captured: None });
        assert_eq!(entry["subject"], "\u{fc}ber");
        assert_eq!(entry["from"]["name"], "J\u{fc}rgen");
        assert_eq!(entry["to"][1], json!({ "name": "B, C", "address": "c@d.example" }));
        assert_eq!(entry["messageId"], "<r@x>");
        assert_eq!(entry["size"], raw.len());
    }

    #[test]
    fn a_text_is_given_in_each_form_and_cut_between_characters() {
        let raw = b"Content-Type: multipart/alternative; boundary=b\r\n\r\n\
            --b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n\xc3\xbc\xc3\xbc\r\n\
            --b\r\nContent-Type: text/html\r\n\r\n<p>hi</p>\r\n--b--\r\n";
        let whole = text(raw, 1000);
        assert_eq!(whole["plain"].as_str().unwrap().trim_end(), "\u{fc}\u{fc}");
        assert_eq!(whole["html"].as_str().unwrap().trim_end(), "<p>hi</p>");
        assert_eq!(whole["hasMore"], false);
        let cut = text(raw, 3);
        assert_eq!((&cut["plain"], &cut["hasMore"]), (&json!("\u{fc}"), &json!(true)));
        assert_eq!(text(b"", 10), json!({ "hasMore": false }));
    }
}
