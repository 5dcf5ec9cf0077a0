//! What we write, read by eye and by our own reader.

use std::time::Duration;

use super::dsn::Kind;
use super::fields::status;
use super::*;
use crate::bounce::{self, Verdict};
use crate::mail::dsn::{EnvelopeId, OriginalRecipient};
use crate::mail::{RecipientDsn, Reply, Stage, header};
use crate::store::record::{Attempt, CapturedBy, Decision, ReportId, ReportReceived};
use crate::store::state::State;

const SENT: Timestamp = Timestamp::from_millis(1_665_576_640_980);

fn head() -> Letterhead<'static> {
    let now = SENT.plus(Duration::from_secs(5 * 24 * 3600));
    let queue_id = QueueId::new(now, 1);
    Letterhead { hostname: "relay.example.com", queue_id, now, random: 0xfeed, mark: "m.1.x" }
}

fn original(reverse_path: &str, recipients: &[&str], mail_header: &str) -> Submission {
    let parse = |text: &str| Address::parse(text).unwrap();
    let recipients = recipients.iter().map(|to| Recipient::from(parse(to))).collect();
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
            dsn: MailDsn::default(),
        },
        header: mail_header.as_bytes().to_vec(),
        size_bytes: 1000,
        long_lines: false,
        origin: Origin::App,
        meta: std::collections::BTreeMap::new(),
        client: None,
        return_path: ReturnPathMode::Verp,
        dsn: true,
        source: Default::default(),
        control: Default::default(),
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
        under_way: false,
        address: Address::parse(address).unwrap(),
        state,
        attempts: if state == State::Failed { 1 } else { 52 },
        next_attempt: SENT,
        last: Some(last),
        notice_owed: true,
        dsn: RecipientDsn::default(),
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
    let notice = failure(&head(), &original, &about, None).unwrap();
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

/// A header that names the mail, as every mail of the queue has one.
const NAMED: &str = "Message-ID: <orig@app.example>\r\nX-Rebound-Id: 061so6l1qg000009\r\n";

/// Writes the notice of this verdict about one recipient.
fn notice(verdict: Verdict, original: &Submission, one: &LiveRecipient) -> Notice {
    let about = [AboutRecipient { recipient: one, category: None }];
    match verdict {
        Verdict::Bounce => failure(&head(), original, &about, None),
        Verdict::Delayed => delay(&head(), original, &about, SENT),
        _ => relayed(&head(), original, &about),
    }
    .unwrap()
}

#[test]
fn our_own_reader_reads_what_we_write() {
    use Verdict::{Bounce, Delayed, Delivered};
    let rcpt = |reply| (Stage::Rcpt, Some(reply), None);
    let lost = |error| (Stage::Connect, None, Some(error));
    for (address, original_recipient, verdict, (stage, reply, error), status) in [
        ("bob@example.org", None, Bounce, rcpt("550 5.1.1 no"), "5.1.1"),
        ("Pelé@example.org", None, Bounce, rcpt("550 5.1.1 né"), "5.1.1"),
        ("bob@example.org", None, Delayed, lost("refused"), "4.4.1"),
        ("Pelé@example.org", None, Delayed, lost("refusé"), "4.4.1"),
        ("bob@example.org", None, Delivered, (Stage::End, Some("250 2.0.0 ok"), None), "2.0.0"),
        ("bob@example.org", Some("rfc822;List@y.org"), Bounce, rcpt("550 5.1.1 no"), "5.1.1"),
        ("bob@example.org", Some("rfc822;b+2Bx@y.org"), Bounce, rcpt("550 5.1.1 no"), "5.1.1"),
        ("bob@example.org", Some("utf-8;a\\x{2B}b@y.org"), Bounce, rcpt("550 5.1.1 no"), "5.1.1"),
        ("bob@example.org", Some("utf-8;Pel\\x{E9}@y.org"), Bounce, rcpt("550 5.1.1 no"), "5.1.1"),
        ("bob@example.org", Some("UTF-8;Pelé@y.org"), Delayed, lost("refusé"), "4.4.1"),
    ] {
        let mut original = original("app@example.com", &[address], NAMED);
        original.envelope.dsn.envelope_id = EnvelopeId::parse("order+2B31");
        let state = if verdict == Bounce { State::Failed } else { State::Deferred };
        let mut one = recipient(address, state, attempt(stage, reply, error));
        one.dsn.original_recipient =
            original_recipient.map(|text| OriginalRecipient::parse(text).unwrap());
        let facts = bounce::read(&notice(verdict, &original, &one).1);
        assert_eq!(facts.verdict, verdict, "{address}");
        assert_eq!(facts.defects, [], "{address}");
        assert_eq!(facts.notice.as_deref(), Some("m.1.x"));
        assert_eq!(facts.original.message_id.unwrap().as_str(), "orig@app.example");
        assert_eq!(facts.original.rebound_id.unwrap().to_string(), "061so6l1qg000009");
        assert_eq!(facts.report.reporting_mta.as_deref(), Some("relay.example.com"));
        assert_eq!(facts.report.envelope_id.as_deref(), Some("order+31"));
        let [read] = facts.report.recipients.as_slice() else {
            panic!("{:?}", facts.report.recipients);
        };
        assert_eq!(read.final_recipient, address);
        assert_eq!(read.original_recipient, one.dsn.original_recipient.map(|to| to.address()));
        assert_eq!(read.status.unwrap().to_string(), status);
        assert_eq!(read.remote_mta.as_deref(), Some("mx.example.org"));
        let said = reply.or(error).unwrap();
        let is_global =
            !address.is_ascii() || read.original_recipient.iter().any(|to| !to.is_ascii());
        let want = if is_global { said.to_owned() } else { said.replace('é', "?") };
        assert_eq!(read.diagnostic.as_ref().unwrap().text, want);
    }
}

#[test]
fn what_was_asked_with_envid_and_orcpt_comes_back_and_what_was_not_does_not() {
    let mut original = original("app@example.com", &["a@b"], "");
    let mut one = recipient("a@b", State::Failed, attempt(Stage::Rcpt, Some("550 no"), None));
    let mail = text(&notice(Verdict::Bounce, &original, &one));
    assert!(!mail.contains("Original-Envelope-Id") && !mail.contains("Original-Recipient"));
    original.envelope.dsn.envelope_id = EnvelopeId::parse("a+2Bb+20+3D");
    for (given, is_global, want) in [
        ("RFC822;A+2Bx@B", false, "RFC822; A+x@B\r\n"),
        ("x400;/C+3DDE/", false, "x400; /C=DE/\r\n"),
        ("utf-8;a\\x{2B}b@c", false, "utf-8; a\\x{2B}b@c\r\n"),
        // Quoted-printable holds the characters themselves.
        ("utf-8;\\x{E9}@c", true, "utf-8; =C3=A9@c\r\n"),
        ("utf-8;é\\x{0D}\\x{0A}Injected", true, "utf-8; =C3=A9 Injected\r\n"),
    ] {
        one.dsn.original_recipient = OriginalRecipient::parse(given);
        let mail = text(&notice(Verdict::Bounce, &original, &one));
        assert!(mail.contains("Original-Envelope-Id: a+b "), "{mail}");
        assert!(mail.contains(&format!("Original-Recipient: {want}")), "{given}: {mail}");
        assert_eq!(mail.contains("message/global-delivery-status"), is_global, "{given}");
    }
}

#[test]
fn the_whole_mail_goes_back_in_the_form_that_mail_allows() {
    let long = format!("{NAMED}\r\n{}\r\n", "x".repeat(2000));
    for (address, mail, content_type, coding) in [
        ("a@b", format!("{NAMED}\r\nbody\r\n"), "message/rfc822", "7bit"),
        ("a@b", format!("{NAMED}\r\nbödy\r\n"), "message/rfc822", "8bit"),
        ("a@b", format!("{NAMED}Subject: é\r\n\r\nb\r\n"), "message/global", "quoted-printable"),
        ("é@b", format!("{NAMED}\r\nbödy\r\n"), "message/global", "quoted-printable"),
        ("é@b", long.clone(), "message/global", "quoted-printable"),
        // No coding is allowed, and without one the line is too long.
        ("a@b", long, "text/rfc822-headers", "7bit"),
    ] {
        let original = original("app@example.com", &[address], NAMED);
        let one = recipient(address, State::Failed, attempt(Stage::Rcpt, Some("550 no"), None));
        let about = [AboutRecipient { recipient: &one, category: None }];
        let notice = failure(&head(), &original, &about, Some(mail.as_bytes())).unwrap();
        let written = text(&notice);
        let parts = parts(&written);
        let (top, _) = parts.last().unwrap();
        assert!(top.starts_with(&format!("Content-Type: {content_type}\r\n")), "{top}");
        assert!(top.ends_with(&format!("Content-Transfer-Encoding: {coding}")), "{top}");
        let is_eight_bit = coding == "8bit";
        assert_eq!(notice.0.envelope.body == BodyKind::EightBitMime, is_eight_bit, "{address}");
        let own_coding = header::find(&notice.0.header, "Content-Transfer-Encoding");
        assert_eq!(own_coding.is_some(), is_eight_bit, "{address}");
        assert_eq!(written.contains("not returned"), content_type.ends_with("headers"));
        let facts = bounce::read(&notice.1);
        assert_eq!((facts.verdict, facts.defects), (Verdict::Bounce, vec![]), "{mail}");
        assert_eq!(facts.original.message_id.unwrap().as_str(), "orig@app.example");
    }
}

#[test]
fn a_relayed_dsn_says_that_no_more_will_be_known() {
    let original = original("app@example.com", &["a@b", "c@d"], "Subject: Your invoice\r\n");
    let taken = Attempt {
        decision: Decision::Relayed,
        ..attempt(Stage::End, Some("250 2.6.0 queued"), None)
    };
    let one = recipient("a@b", State::Relayed, taken);
    let mail = text(&notice(Verdict::Delivered, &original, &one));
    for said in [
        "Subject: Relayed: Your invoice\r\n",
        "passed on for one of its 2 recipients.",
        "does not report deliveries",
        "    250 2.6.0 queued\r\n",
        "Action: relayed\r\nStatus: 2.6.0\r\n",
        "Content-Type: text/rfc822-headers\r\n",
    ] {
        assert!(mail.contains(said), "{said} is missing in\n{mail}");
    }
    assert!(!mail.contains("Will-Retry-Until") && !mail.contains("c@d"), "{mail}");
}

#[test]
fn nobody_is_told_about_mail_with_a_null_reverse_path() {
    let original = original("", &["a@b"], "");
    let a = recipient("a@b", State::Failed, attempt(Stage::Rcpt, Some("550 no"), None));
    let about = [AboutRecipient { recipient: &a, category: None }];
    assert!(failure(&head(), &original, &about, None).is_none());
    assert!(delay(&head(), &original, &about, SENT).is_none());
    assert!(relayed(&head(), &original, &about).is_none());
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
    let original = original("app@example.com", &["bob@example.org"], "Subject: =?utf-8?Q?x?=\r\n");
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
    let notice = failure(&head(), &original, &about, None).unwrap();
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
    let mail = text(&failure(&head(), &original, &about, None).unwrap());
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
    let mail = text(&failure(&head(), &original, &about, None).unwrap());
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
