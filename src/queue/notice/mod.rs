//! The mail that Rebound itself writes: DSNs, delay notices, forwarded reports.
//!
//! Text in, octets out. Whatever comes from outside (replies, names, headers) is cleaned before
//! it is written, and everything written is 7-bit unless it is the report of another.

mod mime;
mod words;

use crate::bounce::Category;
use crate::mail::address::is_domain;
use crate::mail::envelope::{BodyKind, Recipient};
use crate::mail::{
    Address, EnhancedStatus, Envelope, MessageId, QueueId, ReversePath, Stage, Timestamp, header,
};
use crate::store::LiveRecipient;
use crate::store::record::{
    Attempt, HEADER_BYTES_MAX, Origin, ReportReceived, ReturnPathMode, Submission,
};
use crate::store::state::State;

use mime::{Part, field, lines, multipart};

/// A mail of ours: what the store takes over, and all its octets.
pub type Notice = (Submission, Vec<u8>);

/// Who writes a notice, and as which mail.
#[derive(Clone, Copy, Debug)]
pub struct Letterhead<'a> {
    /// Our name: `Reporting-MTA` and the domain of `From`.
    pub hostname: &'a str,
    /// The notice's own queue id.
    pub queue_id: QueueId,
    /// When it is written.
    pub now: Timestamp,
    /// Makes Message-ID and boundary unpredictable.
    pub random: u64,
    /// The value of `X-Rebound-Notice`: `KeyRing::notice` of `queue_id`.
    pub mark: &'a str,
}

/// What a notice says about one recipient.
#[derive(Clone, Copy, Debug)]
pub struct AboutRecipient<'a> {
    /// The recipient as the queue has it.
    pub recipient: &'a LiveRecipient,
    /// What its failure was classified as, where it was.
    pub category: Option<Category>,
}

/// The DSN about recipients that were given up (RFC 3464, RFC 5321 §6.1).
///
/// `None` when the mail had a null reverse-path: nobody is told then (RFC 5321 §4.5.5).
pub fn failure(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
) -> Option<Notice> {
    let to = original.envelope.reverse_path.address()?;
    let text = words::failure(head, original, about);
    Some(dsn(head, original, to, about, &Kind::Failure, text))
}

/// The notice that mail is late; it will be tried until `expires_at`.
///
/// `None` when the mail had a null reverse-path.
pub fn delay(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    expires_at: Timestamp,
) -> Option<Notice> {
    let to = original.envelope.reverse_path.address()?;
    let text = words::delay(head, original, about, expires_at);
    Some(dsn(head, original, to, about, &Kind::Delay { expires_at }, text))
}

/// A report that was caught at our return path, on its way to `to`: its own octets below our
/// trace. `account` is whose mail it is about.
pub fn forward(
    head: &Letterhead<'_>,
    report: &ReportReceived,
    to: &Address,
    account: &str,
) -> Notice {
    let Letterhead { hostname, queue_id, now, random, mark } = *head;
    let (own_header, rest) = header::split(&report.raw);
    let has = |name: &str| header::find(own_header, name).is_some();
    let kept_id = header::find(own_header, "Message-ID").map(|field| field.text());
    let kept_id = kept_id.and_then(|text| MessageId::parse(&text));
    let message_id =
        kept_id.clone().unwrap_or_else(|| MessageId::generate(queue_id, random, hostname));

    let date = now.rfc5322();
    let mut head_text = format!(
        "Received: by {hostname} id {queue_id}\r\n\tfor <{to}>;\r\n\t{date}\r\n\
         X-Rebound-Id: {queue_id}\r\nX-Rebound-Notice: {mark}\r\n"
    );
    let is_forged = |text: &str| text.eq_ignore_ascii_case("no");
    let auto = header::find(own_header, "Auto-Submitted").map(|field| field.text());
    let needs_auto = auto.as_deref().is_none_or(is_forged);
    for (missing, line) in [
        (needs_auto, AUTO_SUBMITTED.to_owned()),
        (!has("From"), from_field(hostname)),
        (kept_id.is_none(), format!("Message-ID: {message_id}\r\n")),
        (!has("Date"), format!("Date: {date}\r\n")),
    ] {
        head_text += if missing { &line } else { "" };
    }
    let mut octets = head_text.into_bytes();
    octets.extend_from_slice(&header::without(own_header, |field| {
        // Only we may write the first two, only a final delivery the third.
        ["X-Rebound-Id", "X-Rebound-Notice", "Return-Path"].iter().any(|name| field.is(name))
            || (needs_auto && field.is("Auto-Submitted"))
            || (kept_id.is_none() && field.is("Message-ID"))
    }));
    if !octets.ends_with(b"\n") {
        octets.extend_from_slice(b"\r\n");
    }
    let header_len = octets.len();
    if !rest.starts_with(b"\r\n") && !rest.starts_with(b"\n") {
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(rest);
    let submission = submission(head, account, message_id, to, &octets, header_len);
    (submission, octets)
}

/// What a DSN says happened.
enum Kind {
    /// It is given up.
    Failure,
    /// It is late.
    Delay {
        /// When it will be given up.
        expires_at: Timestamp,
    },
}

fn dsn(
    head: &Letterhead<'_>,
    original: &Submission,
    to: &Address,
    about: &[AboutRecipient<'_>],
    kind: &Kind,
    text: String,
) -> Notice {
    let Letterhead { hostname, queue_id, now, random, mark } = *head;
    // RFC 6533 §4: the global types where an address cannot be written in ASCII.
    let is_global = about.iter().any(|one| !one.recipient.address.is_ascii());
    let original_header = lines(original.header.get(..HEADER_RETURNED_BYTES_MAX).map_or(
        original.header.as_slice(),
        |start| {
            // Cut at the end of a line.
            let end = start.iter().rposition(|b| *b == b'\n').map_or(0, |at| at.saturating_add(1));
            start.get(..end).unwrap_or_default()
        },
    ));
    let header_type = if original_header.is_ascii() && !is_global {
        "text/rfc822-headers"
    } else {
        "message/global-headers"
    };
    let parts = vec![
        Part {
            content_type: "text/plain; charset=utf-8",
            description: "What happened",
            content: text.into_bytes(),
        },
        Part {
            content_type: if is_global {
                "message/global-delivery-status"
            } else {
                "message/delivery-status"
            },
            description: "The same for programs",
            content: delivery_status(head, original, about, kind, is_global).into_bytes(),
        },
        Part {
            content_type: header_type,
            description: "The header of the mail",
            content: original_header,
        },
    ];
    let (boundary, body) = multipart(parts, &format!("{queue_id}.{random:016x}"));
    let message_id = MessageId::generate(queue_id, random, hostname);
    let subject = subject(original, kind);
    let date = now.rfc5322();
    let mut octets = from_field(hostname);
    octets += &field("To", to.as_str());
    octets += &field("Subject", &subject);
    octets += &format!("Date: {date}\r\nMessage-ID: {message_id}\r\n");
    octets += &format!("In-Reply-To: {0}\r\nReferences: {0}\r\n", original.message_id);
    octets += AUTO_SUBMITTED;
    octets += &format!("X-Rebound-Id: {queue_id}\r\nX-Rebound-Notice: {mark}\r\n");
    octets +=
        "MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status;\r\n";
    octets += &format!("\tboundary=\"{boundary}\"\r\n");
    let header_len = octets.len();
    octets += "\r\n";
    octets += "This is a delivery report in MIME format (RFC 3464).\r\n\r\n";
    let mut octets = octets.into_bytes();
    octets.extend_from_slice(&body);
    let submission = submission(head, &original.account, message_id, to, &octets, header_len);
    (submission, octets)
}

/// `message/delivery-status`: the fields about the mail, then a block per recipient
/// (RFC 3464 §2.1).
fn delivery_status(
    head: &Letterhead<'_>,
    original: &Submission,
    about: &[AboutRecipient<'_>],
    kind: &Kind,
    is_global: bool,
) -> String {
    // RFC 3464 §2.2.2, §2.2.5.
    let mut out = field("Reporting-MTA", &format!("dns; {}", head.hostname));
    out += &field("X-Rebound-Queue-ID", &original.queue_id.to_string());
    out += &field("X-Rebound-Message-ID", &ascii(&original.message_id.to_string(), is_global));
    out += &field("Arrival-Date", &original.received_at.rfc5322());
    for one in about {
        let address = &one.recipient.address;
        // RFC 6533 §3.
        let kind_of_address = if address.is_ascii() { "rfc822" } else { "utf-8" };
        let last = one.recipient.last.as_ref();
        out += "\r\n";
        // RFC 3464 §2.3.2: Original-Recipient is for what ORCPT gave, so it does not stand here.
        out += &field("Final-Recipient", &format!("{kind_of_address}; {address}"));
        out += &field("Action", if matches!(kind, Kind::Failure) { "failed" } else { "delayed" });
        out += &field("Status", &status(one.recipient, kind).to_string());
        if let Some(name) = last.and_then(|last| mta_name(last)) {
            out += &field("Remote-MTA", &format!("dns; {name}"));
        }
        if let Some(diagnostic) = last.and_then(diagnostic) {
            out += &field("Diagnostic-Code", &ascii(&diagnostic, is_global));
        }
        if let Some(last) = last {
            out += &field("Last-Attempt-Date", &last.ended_at.rfc5322());
        }
        if let Kind::Delay { expires_at } = kind {
            out += &field("Will-Retry-Until", &expires_at.rfc5322());
        }
    }
    out
}

/// RFC 3464 §2.3.4, with the codes of RFC 3463 §3 where the other side gave none.
fn status(recipient: &LiveRecipient, kind: &Kind) -> EnhancedStatus {
    let last = recipient.last.as_ref();
    let class = match kind {
        Kind::Failure if recipient.state != State::Expired => 5,
        // A delivery that was given up by its age keeps its transient status.
        _ => 4,
    };
    let replied = last.and_then(|last| last.reply.as_ref()).map(|reply| reply.status_or_class());
    if let Some(status) = replied.filter(|status| status.class == class && !status.is_generic()) {
        return status;
    }
    match (class, last.map(|last| (last.stage, last.reply.is_some()))) {
        (5, _) => EnhancedStatus::new(5, 0, 0),
        (_, Some((Stage::Connect, false))) => EnhancedStatus::new(4, 4, 1),
        (_, Some((Stage::Tls, false))) => EnhancedStatus::new(4, 7, 5),
        (_, Some((_, false))) => EnhancedStatus::new(4, 4, 2),
        _ if recipient.state == State::Expired => EnhancedStatus::new(4, 4, 7),
        _ => EnhancedStatus::new(4, 0, 0),
    }
}

/// RFC 3464 §2.3.6.
fn diagnostic(last: &Attempt) -> Option<String> {
    let text = match (&last.reply, &last.error) {
        (Some(reply), _) => format!("smtp; {reply}"),
        (None, Some(error)) => format!("x-rebound; {error}"),
        (None, None) => return None,
    };
    Some(text.chars().take(DIAGNOSTIC_CHARS_MAX).collect())
}

/// The name in `name[ip]:port` (RFC 3464 §2.3.5).
fn mta_name(last: &Attempt) -> Option<&str> {
    let text = last.remote_mta.as_deref()?;
    let name = text.split(['[', ':']).next()?;
    is_domain(name).then_some(name)
}

fn subject(original: &Submission, kind: &Kind) -> String {
    let what = match kind {
        Kind::Failure => "Undelivered",
        Kind::Delay { .. } => "Delayed",
    };
    let about = header::find(&original.header, "Subject").map(|field| field.text());
    // Encoded words (RFC 2047) stand in our field as they stood in the app's.
    let fits =
        |text: &String| !text.is_empty() && text.is_ascii() && text.len() <= SUBJECT_BYTES_MAX;
    match about.filter(fits) {
        Some(about) => format!("{what}: {about}"),
        None => format!("{what}: your mail of {}", original.received_at.rfc5322()),
    }
}

fn from_field(hostname: &str) -> String {
    field("From", &format!("Mail Delivery System <MAILER-DAEMON@{hostname}>"))
}

/// The text as a `message/delivery-status` part may hold it (RFC 3464 §2.1).
fn ascii(text: &str, is_global: bool) -> String {
    text.chars().map(|c| if c.is_ascii() || is_global { c } else { '?' }).collect()
}

fn submission(
    head: &Letterhead<'_>,
    account: &str,
    message_id: MessageId,
    to: &Address,
    octets: &[u8],
    header_len: usize,
) -> Submission {
    let header = octets.get(..header_len.min(HEADER_BYTES_MAX)).unwrap_or(octets);
    Submission {
        queue_id: head.queue_id,
        message_id,
        account: account.to_owned(),
        received_at: head.now,
        envelope: Envelope {
            // RFC 5321 §6.1: a report about a report would have nowhere to go.
            reverse_path: ReversePath::NULL,
            recipients: vec![Recipient { address: to.clone() }],
            body: if octets.is_ascii() { BodyKind::SevenBit } else { BodyKind::EightBitMime },
            smtputf8: !to.is_ascii(),
        },
        header: header.to_vec(),
        size_bytes: u64::try_from(octets.len()).unwrap_or(u64::MAX),
        origin: Origin::Notice,
        meta: std::collections::BTreeMap::new(),
        client: None,
        return_path: ReturnPathMode::Preserve,
        dsn: false,
    }
}

/// RFC 3834 §5.
const AUTO_SUBMITTED: &str = "Auto-Submitted: auto-replied\r\n";
/// Octets of the original header that are returned.
const HEADER_RETURNED_BYTES_MAX: usize = 65_536;
/// Octets of the original subject that are repeated in ours.
const SUBJECT_BYTES_MAX: usize = 400;
/// Characters of the other side's words in `Diagnostic-Code`.
const DIAGNOSTIC_CHARS_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::bounce::{self, Verdict};
    use crate::mail::Reply;
    use crate::store::record::{CapturedBy, Decision, ReportId};

    const SENT: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn head() -> Letterhead<'static> {
        let now = SENT.plus(Duration::from_secs(5 * 24 * 3600));
        let queue_id = QueueId::new(now, 1);
        Letterhead { hostname: "relay.example.com", queue_id, now, random: 0xfeed, mark: "m.1.x" }
    }

    fn original(reverse_path: &str, recipients: &[&str], mail_header: &str) -> Submission {
        let parse = |text: &str| Address::parse(text).unwrap();
        let recipients = recipients.iter().map(|to| Recipient { address: parse(to) }).collect();
        Submission {
            queue_id: QueueId::new(SENT, 9),
            message_id: MessageId::parse("<orig@app.example>").unwrap(),
            account: "app".to_owned(),
            received_at: SENT,
            envelope: Envelope {
                reverse_path: match reverse_path {
                    "" => ReversePath::NULL,
                    text => ReversePath::Address(parse(text)),
                },
                recipients,
                body: BodyKind::SevenBit,
                smtputf8: false,
            },
            header: mail_header.as_bytes().to_vec(),
            size_bytes: 1000,
            origin: Origin::App,
            meta: std::collections::BTreeMap::new(),
            client: None,
            return_path: ReturnPathMode::Verp,
            dsn: true,
        }
    }

    fn attempt(stage: Stage, reply: Option<&str>, error: Option<&str>) -> Attempt {
        Attempt {
            queue_id: QueueId::new(SENT, 9),
            recipient: 0,
            number: 1,
            started_at: SENT,
            ended_at: SENT.plus(Duration::from_secs(3)),
            stage,
            remote_mta: Some("mx.example.org[192.0.2.25]:25".to_owned()),
            reply: reply.map(|text| Reply::parse(text).unwrap()),
            error: error.map(str::to_owned),
            remote_queue_id: None,
            alias: None,
            tls: None,
            decision: Decision::Failed,
            notice_owed: true,
        }
    }

    fn recipient(address: &str, state: State, last: Attempt) -> LiveRecipient {
        LiveRecipient {
            address: Address::parse(address).unwrap(),
            state,
            attempts: if state == State::Failed { 1 } else { 52 },
            next_attempt: SENT,
            last: Some(last),
            notice_owed: true,
        }
    }

    fn text((_, octets): &Notice) -> String {
        String::from_utf8(octets.clone()).unwrap()
    }

    /// The content of each part, taken apart by the boundary that the header names.
    fn parts(mail: &str) -> Vec<(String, String)> {
        let boundary = mail.split("boundary=\"").nth(1).unwrap().split('"').next().unwrap();
        let delimiter = format!("--{boundary}");
        let mut parts = mail.split(delimiter.as_str()).skip(1);
        let mut found = Vec::new();
        for part in parts.by_ref().take_while(|part| !part.starts_with("--\r\n")) {
            let (head, content) = part.split_once("\r\n\r\n").unwrap();
            found.push((head.trim().to_owned(), content.to_owned()));
        }
        found
    }

    #[test]
    fn a_dsn_says_it_to_people_and_to_programs() {
        let header = "From: app@example.com\r\nSubject: Your invoice\r\nTo: x@y\r\n";
        let original = original("app@example.com", &["bob@example.org", "c@d"], header);
        let last = attempt(Stage::Rcpt, Some("550 5.1.1 <bob@example.org>: no such user"), None);
        let bob = recipient("bob@example.org", State::Failed, last);
        let about = [AboutRecipient { recipient: &bob, category: Some(Category::UserUnknown) }];
        let notice = failure(&head(), &original, &about).unwrap();
        let mail = text(&notice);

        let (top, _) = header::split(mail.as_bytes());
        for (name, want) in [
            ("From", "Mail Delivery System <MAILER-DAEMON@relay.example.com>"),
            ("To", "app@example.com"),
            ("Subject", "Undelivered: Your invoice"),
            ("Auto-Submitted", "auto-replied"),
            ("X-Rebound-Notice", "m.1.x"),
            ("In-Reply-To", "<orig@app.example>"),
            ("Date", "Mon, 17 Oct 2022 12:10:40 +0000"),
            ("X-Rebound-Id", &head().queue_id.to_string()),
        ] {
            assert_eq!(header::find(top, name).unwrap().text(), want, "{name}");
        }
        assert_eq!(notice.0.header, top);
        assert!(notice.0.envelope.reverse_path.is_null());
        assert_eq!(notice.0.origin, Origin::Notice);
        assert_eq!(notice.0.envelope.recipients[0].address.as_str(), "app@example.com");
        assert_eq!(notice.0.size_bytes, u64::try_from(mail.len()).unwrap());
        assert_eq!(notice.0.envelope.body, BodyKind::SevenBit);

        let parts = parts(&mail);
        assert_eq!(parts.len(), 3);
        assert!(parts[0].0.starts_with("Content-Type: text/plain"));
        for said in [
            "could not be delivered to one of its 2 recipients.",
            "There is no such mailbox",
            "mx.example.org[192.0.2.25]:25 answered RCPT",
            "    550 5.1.1 <bob@example.org>: no such user\r\n",
            "Subject:     Your invoice",
            "nothing about the mail's other recipients",
        ] {
            assert!(parts[0].1.contains(said), "{said} is missing in\n{}", parts[0].1);
        }
        assert!(parts[1].0.starts_with("Content-Type: message/delivery-status\r\n"));
        assert_eq!(
            parts[1].1,
            format!(
                "Reporting-MTA: dns; relay.example.com\r\nX-Rebound-Queue-ID: {}\r\n\
                 X-Rebound-Message-ID: <orig@app.example>\r\n\
                 Arrival-Date: Wed, 12 Oct 2022 12:10:40 +0000\r\n\r\n\
                 Final-Recipient: rfc822; bob@example.org\r\nAction: failed\r\nStatus: 5.1.1\r\n\
                 Remote-MTA: dns; mx.example.org\r\n\
                 Diagnostic-Code: smtp; 550 5.1.1 <bob@example.org>: no such user\r\n\
                 Last-Attempt-Date: Wed, 12 Oct 2022 12:10:43 +0000\r\n\r\n",
                original.queue_id
            )
        );
        assert!(parts[2].0.starts_with("Content-Type: text/rfc822-headers\r\n"));
        assert_eq!(parts[2].1, format!("{header}\r\n"));
    }

    #[test]
    fn our_own_reader_reads_what_we_write() {
        let header = "Message-ID: <orig@app.example>\r\nX-Rebound-Id: 061so6l1qg000009\r\n";
        for (address, verdict, stage, reply, error) in [
            ("bob@example.org", Verdict::Bounce, Stage::Rcpt, Some("550 5.1.1 no"), None),
            ("Pelé@example.org", Verdict::Bounce, Stage::Rcpt, Some("550 5.1.1 né"), None),
            ("bob@example.org", Verdict::Delayed, Stage::Connect, None, Some("refused")),
            ("Pelé@example.org", Verdict::Delayed, Stage::Connect, None, Some("refusé")),
        ] {
            let original = original("app@example.com", &[address], header);
            let is_failure = verdict == Verdict::Bounce;
            let state = if is_failure { State::Failed } else { State::Deferred };
            let one = recipient(address, state, attempt(stage, reply, error));
            let about = [AboutRecipient { recipient: &one, category: None }];
            let notice = match is_failure {
                true => failure(&head(), &original, &about),
                false => delay(&head(), &original, &about, SENT),
            };
            let facts = bounce::read(&notice.unwrap().1);
            assert_eq!(facts.verdict, verdict, "{address}");
            assert_eq!(facts.defects, [], "{address}");
            assert_eq!(facts.notice.as_deref(), Some("m.1.x"));
            assert_eq!(facts.original.message_id.unwrap().as_str(), "orig@app.example");
            assert_eq!(facts.original.rebound_id.unwrap().to_string(), "061so6l1qg000009");
            assert_eq!(facts.report.reporting_mta.as_deref(), Some("relay.example.com"));
            let [read] = facts.report.recipients.as_slice() else {
                panic!("{:?}", facts.report.recipients);
            };
            assert_eq!(read.final_recipient, address);
            let status = if is_failure { "5.1.1" } else { "4.4.1" };
            assert_eq!(read.status.unwrap().to_string(), status);
            assert_eq!(read.remote_mta.as_deref(), Some("mx.example.org"));
            let said = reply.or(error).unwrap();
            let want = if address.is_ascii() { said.replace('é', "?") } else { said.to_owned() };
            assert_eq!(read.diagnostic.as_ref().unwrap().text, want);
        }
    }

    #[test]
    fn nobody_is_told_about_mail_with_a_null_reverse_path() {
        let original = original("", &["a@b"], "");
        let a = recipient("a@b", State::Failed, attempt(Stage::Rcpt, Some("550 no"), None));
        let about = [AboutRecipient { recipient: &a, category: None }];
        assert!(failure(&head(), &original, &about).is_none());
        assert!(delay(&head(), &original, &about, SENT).is_none());
    }

    #[test]
    fn every_end_has_a_status_that_tells_it() {
        for (state, stage, reply, error, want) in [
            (State::Failed, Stage::Rcpt, Some("550 5.1.1 no"), None, "5.1.1"),
            (State::Failed, Stage::Rcpt, Some("550 no"), None, "5.0.0"),
            (State::Failed, Stage::Rcpt, Some("550 4.1.1 odd"), None, "5.0.0"),
            (State::Expired, Stage::Rcpt, Some("452 4.2.2 full"), None, "4.2.2"),
            (State::Expired, Stage::Rcpt, Some("450 later"), None, "4.4.7"),
            (State::Expired, Stage::Connect, None, Some("connection refused"), "4.4.1"),
            (State::Expired, Stage::Tls, None, Some("bad certificate"), "4.7.5"),
            (State::Expired, Stage::Data, None, Some("timed out"), "4.4.2"),
        ] {
            let one = recipient("a@b", state, attempt(stage, reply, error));
            assert_eq!(status(&one, &Kind::Failure).to_string(), want, "{reply:?} {error:?}");
        }
        let late = recipient("a@b", State::Deferred, attempt(Stage::Rcpt, Some("450 no"), None));
        assert_eq!(status(&late, &Kind::Delay { expires_at: SENT }).to_string(), "4.0.0");
    }

    #[test]
    fn a_delay_notice_warns_and_says_until_when() {
        let original =
            original("app@example.com", &["bob@example.org"], "Subject: =?utf-8?Q?x?=\r\n");
        let last = attempt(Stage::Connect, None, Some("connection refused"));
        let bob = recipient("bob@example.org", State::Deferred, last);
        let about = [AboutRecipient { recipient: &bob, category: None }];
        let until = SENT.plus(Duration::from_secs(5 * 24 * 3600));
        let mail = text(&delay(&head(), &original, &about, until).unwrap());
        for said in [
            "Subject: Delayed: =?utf-8?Q?x?=\r\n",
            "has not been delivered yet to its recipient.",
            "This is only a warning",
            "connecting to",
            "    connection refused\r\n",
            "Action: delayed\r\n",
            "Status: 4.4.1\r\n",
            "Will-Retry-Until: Mon, 17 Oct 2022 12:10:40 +0000\r\n",
            "Diagnostic-Code: x-rebound; connection refused\r\n",
        ] {
            assert!(mail.contains(said), "{said} is missing in\n{mail}");
        }
    }

    #[test]
    fn an_address_that_is_not_ascii_makes_the_report_global_and_still_seven_bit() {
        let original = original("app@example.com", &["Pelé@example.org"], "To: Pelé\r\n");
        let last = attempt(Stage::Rcpt, Some("550 5.1.1 né"), None);
        let one = recipient("Pelé@example.org", State::Failed, last);
        let about = [AboutRecipient { recipient: &one, category: None }];
        let notice = failure(&head(), &original, &about).unwrap();
        let mail = text(&notice);
        assert!(mail.is_ascii() && !notice.0.envelope.smtputf8);
        for said in [
            "Content-Type: message/global-delivery-status\r\n",
            "Content-Type: message/global-headers\r\n",
            "Final-Recipient: utf-8; Pel=C3=A9@example.org\r\n",
            "Content-Transfer-Encoding: quoted-printable\r\n",
        ] {
            assert!(mail.contains(said), "{said} is missing in\n{mail}");
        }
        let plain = recipient("a@b", State::Failed, attempt(Stage::Rcpt, Some("550 né"), None));
        let about = [AboutRecipient { recipient: &plain, category: None }];
        let mail = text(&failure(&head(), &original, &about).unwrap());
        assert!(mail.contains("Content-Type: message/delivery-status\r\n"));
        assert!(mail.contains("Diagnostic-Code: smtp; 550 n?\r\n"), "{mail}");
    }

    #[test]
    fn nothing_hostile_gets_a_line_of_its_own() {
        let header = "Subject: a\r\n b\r\n\tBcc: c\r\nX: y\rInjected: 1\r\nZ: \0\r\n";
        let original = original("app@example.com", &["bob@example.org"], header);
        let mut last = attempt(Stage::Rcpt, Some("550 5.1.1 x"), None);
        last.reply.as_mut().unwrap().text =
            "a\n\nFinal-Recipient: rfc822; evil@x\n--=_\r\n.\r\nInjected: 1".to_owned();
        last.remote_mta = Some("mx\r\nInjected: 1".to_owned());
        let one = recipient("bob@example.org", State::Failed, last);
        let about = [AboutRecipient { recipient: &one, category: None }];
        let mail = text(&failure(&head(), &original, &about).unwrap());
        assert!(!mail.contains("\nInjected") && !mail.contains("\nFinal-Recipient: rfc822; evil"));
        assert!(!mail.contains("Remote-MTA"));
        assert!(!mail.contains('\0'));
        assert_eq!(parts(&mail).len(), 3);
        assert_eq!(mail.matches('\r').count(), mail.matches("\r\n").count());
        assert_eq!(mail.matches('\n').count(), mail.matches("\r\n").count());
    }

    fn report(raw: &[u8]) -> ReportReceived {
        ReportReceived {
            id: ReportId(QueueId::new(SENT, 3)),
            received_at: SENT,
            captured_by: CapturedBy::Listener,
            reverse_path: String::new(),
            recipients: vec!["b+x@bounces.example.com".to_owned()],
            tokens: Vec::new(),
            digest: [0; 16],
            raw: raw.to_vec(),
        }
    }

    #[test]
    fn a_forwarded_report_keeps_its_octets_below_our_trace() {
        let to = Address::parse("app@example.com").unwrap();
        let raw = b"Return-Path: <>\r\nReceived: from x; y\r\nX-Rebound-Notice: forged\r\n\
                    From: <MAILER-DAEMON@mx>\r\nMessage-ID: <r@mx>\r\nDate: odd\r\n\
                    Auto-Submitted: auto-generated\r\n\r\nbody\xff\r\n";
        let (submission, octets) = forward(&head(), &report(raw), &to, "app");
        let id = head().queue_id;
        let want_head = format!(
            "Received: by relay.example.com id {id}\r\n\tfor <app@example.com>;\r\n\t\
             Mon, 17 Oct 2022 12:10:40 +0000\r\nX-Rebound-Id: {id}\r\nX-Rebound-Notice: m.1.x\r\n"
        );
        let kept = b"Received: from x; y\r\nFrom: <MAILER-DAEMON@mx>\r\nMessage-ID: <r@mx>\r\n\
                     Date: odd\r\nAuto-Submitted: auto-generated\r\n\r\nbody\xff\r\n";
        assert_eq!(octets, [want_head.as_bytes(), kept].concat());
        assert_eq!(submission.message_id.as_str(), "r@mx");
        assert_eq!(submission.envelope.body, BodyKind::EightBitMime);
        assert!(submission.envelope.reverse_path.is_null());
        assert_eq!((submission.account.as_str(), submission.dsn), ("app", false));
    }

    #[test]
    fn a_forwarded_report_without_a_header_gets_one() {
        let to = Address::parse("app@example.com").unwrap();
        let (submission, octets) = forward(&head(), &report(b"no header at all\r\n"), &to, "app");
        let (top, rest) = header::split(&octets);
        for name in ["From", "Date", "Message-ID", "Auto-Submitted", "X-Rebound-Notice"] {
            assert!(header::find(top, name).is_some(), "{name}");
        }
        assert_eq!(rest, b"\r\nno header at all\r\n");
        assert_eq!(submission.header, top);
    }
}
