//! The stamp: the header block as it leaves, from the header block as it came.
//!
//! Fields are prepended or removed as whole lines and all other octets stay as they are, so a
//! DKIM signature made by the app still verifies.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::mail::address::{ascii_domain, is_address_literal, is_domain};
use crate::mail::header::{self, Field};
use crate::mail::{Address, MessageId, QueueId, Timestamp};

/// What a stamp is made from, next to the header itself.
#[derive(Clone, Copy, Debug)]
pub struct Stamping<'a> {
    /// Our name for the mail.
    pub queue_id: QueueId,
    /// When it is taken over.
    pub now: Timestamp,
    /// The `Date` of a mail that has none: when it is sent.
    pub date: Timestamp,
    /// Makes a stamped Message-ID unguessable.
    pub random: u64,
    /// The name behind `by` in `Received`.
    pub hostname: &'a str,
    /// The domain of a stamped Message-ID.
    pub message_id_domain: &'a str,
    /// `Received` fields after which a mail is taken to go in circles.
    pub received_max: u32,
    /// How the mail came.
    pub trace: Trace<'a>,
}

/// How a mail came, for `Received`.
#[derive(Clone, Copy, Debug)]
pub struct Trace<'a> {
    /// What the client called itself in EHLO.
    pub helo: Option<&'a str>,
    /// The client's address; none on a Unix socket.
    pub peer: Option<IpAddr>,
    /// The protocol it spoke.
    pub protocol: Protocol,
    /// The recipient, where there is only one (RFC 5321 §7.2).
    pub recipient: Option<&'a Address>,
}

/// The protocol that a mail came by, as `with` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// After HELO.
    Smtp,
    /// After EHLO, with the extensions that were in use (RFC 3848, RFC 6531 §4.3).
    Esmtp {
        /// The connection had TLS.
        tls: bool,
        /// The client had authenticated.
        auth: bool,
        /// The mail needed SMTPUTF8.
        utf8: bool,
    },
    /// Not SMTP: the HTTP submit.
    Http,
}

/// A stamped header block and what was learnt from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// The header block as it leaves, every field with its line ending, the empty line not
    /// included.
    pub header: Vec<u8>,
    /// The Message-ID that it carries now.
    pub message_id: MessageId,
    /// `X-Rebound-Meta-*`, names without that prefix and in lower case.
    pub meta: BTreeMap<String, String>,
}

/// Why a header is not stamped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampError {
    /// It has more `Received` fields than a mail that reaches its goal (RFC 5321 §6.3).
    Loop {
        /// How many it has.
        received: u32,
    },
}

/// Stamps the header block `header`, which must end where `header::split` says it ends.
pub fn stamp(header: &[u8], stamping: &Stamping<'_>) -> Result<Stamped, StampError> {
    let received = header::fields(header).filter(|field| field.is("Received")).count();
    let received = u32::try_from(received).unwrap_or(u32::MAX);
    if received > stamping.received_max {
        return Err(StampError::Loop { received });
    }
    let kept_id = header::fields(header).find_map(|field| message_id_of(&field));
    let kept_date = header::fields(header).find(is_valid_date_field).map(|field| field.raw);
    let message_id = kept_id.as_ref().map_or_else(
        || {
            let Stamping { queue_id, random, message_id_domain, .. } = *stamping;
            MessageId::generate(queue_id, random, message_id_domain)
        },
        |(id, _raw)| id.clone(),
    );

    let mut out = trace_fields(stamping).into_bytes();
    if kept_id.is_none() {
        out.extend_from_slice(format!("Message-ID: {message_id}\r\n").as_bytes());
    }
    if kept_date.is_none() {
        out.extend_from_slice(format!("Date: {}\r\n", stamping.date.rfc5322()).as_bytes());
    }
    let kept_id = kept_id.map(|(_id, raw)| raw);
    // The first valid one stays, where it is: the others are told from it by their place.
    let is_same = |raw: &[u8], kept: Option<&[u8]>| kept.is_some_and(|k| std::ptr::eq(k, raw));
    out.extend_from_slice(&header::without(header, |field| {
        (field.is("Message-ID") && !is_same(field.raw, kept_id))
            || (field.is("Date") && !is_same(field.raw, kept_date))
            || is_stripped(field)
    }));
    if !out.ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    Ok(Stamped { header: out, message_id, meta: meta_of(header) })
}

/// What stands between a stamped header and `rest`, what `header::split` left of the mail: the
/// empty line, where the app sent none.
pub fn separator(rest: &[u8]) -> &'static [u8] {
    if rest.starts_with(b"\r\n") || rest.starts_with(b"\n") { b"" } else { b"\r\n" }
}

/// How much of the start of a mail is a `From ` line of a mailbox file, which is no header field
/// and would end the header where it begins.
pub fn mailbox_line_len(mail: &[u8]) -> usize {
    let start = mail.strip_prefix(b">").unwrap_or(mail);
    if !start.starts_with(b"From ") {
        return 0;
    }
    mail.iter().position(|b| *b == b'\n').map_or(mail.len(), |at| at.saturating_add(1))
}

impl Protocol {
    /// The word behind `with`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Smtp => "SMTP",
            Self::Http => "HTTP",
            Self::Esmtp { tls, auth, utf8 } => match (utf8, tls, auth) {
                (false, false, false) => "ESMTP",
                (false, false, true) => "ESMTPA",
                (false, true, false) => "ESMTPS",
                (false, true, true) => "ESMTPSA",
                (true, false, false) => "UTF8SMTP",
                (true, false, true) => "UTF8SMTPA",
                (true, true, false) => "UTF8SMTPS",
                (true, true, true) => "UTF8SMTPSA",
            },
        }
    }
}

/// `Received` (RFC 5321 §4.4) and `X-Rebound-Id`.
fn trace_fields(stamping: &Stamping<'_>) -> String {
    let Stamping { queue_id, now, hostname, trace, .. } = stamping;
    let peer = trace.peer.map(address_literal);
    // A name that is no name could be anything, so the connection's own address stands for it.
    // RFC 6531 §3.7.3 would rather have U-labels here. But then this field alone could keep a mail
    // from a next hop without SMTPUTF8, and to everybody else they are the same.
    let helo = trace.helo.map(ascii_domain);
    let helo = helo.as_deref().filter(|name| is_domain(name) || is_address_literal(name));
    let from = match (helo, &peer) {
        (Some(helo), Some(peer)) => format!("from {helo} ({peer}) "),
        (None, Some(peer)) => format!("from {peer} ({peer}) "),
        (Some(helo), None) => format!("from {helo} "),
        (None, None) => String::new(),
    };
    let protocol = trace.protocol.word();
    let recipient = trace.recipient.map(|to| to.to_ascii().unwrap_or_else(|| to.clone()));
    let recipient = recipient.map(|to| format!("\r\n\tfor <{to}>")).unwrap_or_default();
    format!(
        "Received: {from}by {hostname}\r\n\twith {protocol} id {queue_id}{recipient};\r\n\t{}\r\n\
         X-Rebound-Id: {queue_id}\r\n",
        now.rfc5322()
    )
}

/// RFC 5321 §4.1.3.
fn address_literal(peer: IpAddr) -> String {
    match peer.to_canonical() {
        IpAddr::V4(v4) => format!("[{v4}]"),
        IpAddr::V6(v6) => format!("[IPv6:{v6}]"),
    }
}

/// Fields that do not leave: blind copies, what only a final delivery may write, what only we
/// may write, and what an app says to us alone.
fn is_stripped(field: &Field<'_>) -> bool {
    let exact = ["Bcc", "Resent-Bcc", "Return-Path", "X-Rebound-Id", "X-Rebound-Notice"];
    exact.iter().any(|name| field.is(name))
        || [CONTROL_PREFIX, META_PREFIX].iter().any(|prefix| after_prefix(field, prefix).is_some())
}

fn after_prefix<'a>(field: &Field<'a>, prefix: &str) -> Option<&'a [u8]> {
    let (head, rest) = field.name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix.as_bytes()).then_some(rest)
}

/// What the app said about its mail. The name in front is bounded by the line, the rest here.
fn meta_of(header: &[u8]) -> BTreeMap<String, String> {
    let mut meta = BTreeMap::new();
    for field in header::fields(header) {
        let Some(name) = after_prefix(&field, META_PREFIX).filter(|name| !name.is_empty()) else {
            continue;
        };
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        let value: String = header::sanitized(&field.text()).chars().take(META_CHARS_MAX).collect();
        if meta.len() < META_FIELDS_MAX && name.len() <= META_CHARS_MAX {
            meta.entry(name).or_insert(value);
        }
    }
    meta
}

/// The id of a `Message-ID` field that is left alone, and its octets.
fn message_id_of<'a>(field: &Field<'a>) -> Option<(MessageId, &'a [u8])> {
    if !field.is("Message-ID") || std::str::from_utf8(field.raw_body).is_err() {
        return None;
    }
    let text = without_comments(&field.text());
    MessageId::is_valid_field(&text)
        .then(|| MessageId::parse(&text))
        .flatten()
        .map(|id| (id, field.raw))
}

fn is_valid_date_field(field: &Field<'_>) -> bool {
    field.is("Date") && is_date(&without_comments(&field.text()))
}

/// Whether `text` is a date and time, in the forms of RFC 5322 §3.3 and the old ones of §4.3.
fn is_date(text: &str) -> bool {
    let read = || {
        let day_and_rest = match text.split_once(',') {
            Some((name, rest)) if DAYS.iter().any(|d| d.eq_ignore_ascii_case(name.trim())) => rest,
            Some(_) => return None,
            None => text,
        };
        let mut words = day_and_rest.split_ascii_whitespace();
        let day: u8 = digits(words.next()?, 2)?;
        let month = words.next()?;
        let month = MONTHS.iter().position(|m| m.eq_ignore_ascii_case(month))?;
        let year: u16 = digits(words.next()?, 4)?;
        let mut time = words.next()?.split(':');
        let hour: u8 = digits(time.next()?, 2)?;
        let minute: u8 = digits(time.next()?, 2)?;
        let second: u8 = time.next().map_or(Some(0), |second| digits(second, 2))?;
        let zone = words.next()?;
        let over = time.next().is_some() || words.next().is_some();
        let fits = day >= 1
            && day <= days_of(month, year)
            && hour <= 23
            && minute <= 59
            && second <= 60
            && is_zone(zone);
        (fits && !over).then_some(())
    };
    read().is_some()
}

/// `+hhmm`, `-hhmm`, or an old name such as `GMT` (RFC 5322 §4.3).
fn is_zone(text: &str) -> bool {
    match text.strip_prefix(['+', '-']) {
        Some(offset) => offset.len() == 4 && offset.bytes().all(|b| b.is_ascii_digit()),
        None => text.len() <= 5 && text.bytes().all(|b| b.is_ascii_alphabetic()),
    }
}

fn digits<N: std::str::FromStr>(text: &str, len_max: usize) -> Option<N> {
    let plain = !text.is_empty() && text.len() <= len_max;
    (plain && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn days_of(month: usize, year: u16) -> u8 {
    // The years of RFC 5322 §4.3 with two or three digits are not told apart here.
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        1 if leap || year < 1900 => 29,
        1 => 28,
        3 | 5 | 8 | 10 => 30,
        _ => 31,
    }
}

/// The text without its comments (RFC 5322 §3.2.2); a parenthesis in a quoted string is none.
pub(super) fn without_comments(text: &str) -> String {
    let (mut depth, mut quoted, mut escaped) = (0_u32, false, false);
    let is_outside = |c: &char| {
        let was_inside = depth > 0;
        match c {
            _ if escaped => escaped = false,
            '\\' if was_inside || quoted => escaped = true,
            '"' if !was_inside => quoted = !quoted,
            '(' if !quoted => depth = depth.saturating_add(1),
            ')' if was_inside => depth = depth.saturating_sub(1),
            _ => {}
        }
        !was_inside && depth == 0
    };
    text.chars().filter(is_outside).collect()
}

/// Recorded `X-Rebound-Meta-*` fields of one mail; further ones are removed all the same.
const META_FIELDS_MAX: usize = 32;
/// Characters of the name and of the value of one of them.
const META_CHARS_MAX: usize = 1024;
const META_PREFIX: &str = "X-Rebound-Meta-";
const CONTROL_PREFIX: &str = "X-EE-";
const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    const DATE: &str = "Date: Wed, 12 Oct 2022 12:10:40 +0000\r\n";
    const ID: &str = "Message-ID: <a@b>\r\n";

    fn stamping() -> Stamping<'static> {
        let now = Timestamp::from_millis(1_665_576_640_980);
        Stamping {
            queue_id: QueueId::new(now, 7),
            now,
            date: now,
            random: 0xabcd,
            hostname: "relay.example.com",
            message_id_domain: "id.example.com",
            received_max: 3,
            trace: Trace {
                helo: Some("app.example.com"),
                peer: Some("192.0.2.1".parse().unwrap()),
                protocol: Protocol::Esmtp { tls: false, auth: false, utf8: false },
                recipient: None,
            },
        }
    }

    /// What follows our two trace fields.
    fn after_trace(header: &str) -> String {
        let stamped = stamp(header.as_bytes(), &stamping()).unwrap();
        let text = String::from_utf8(stamped.header).unwrap();
        let trace = trace_fields(&stamping());
        text.strip_prefix(&trace).unwrap().to_owned()
    }

    #[test]
    fn a_complete_header_follows_ours_octet_by_octet() {
        let signed = format!(
            "DKIM-Signature: v=1; a=rsa-sha256;\r\n\t h=from:to:subject:date:message-id;\r\n \
             b=abc \r\n\t def\r\nSUBJECT :  odd  spacing\t\r\nFrom: \"x\" <a@b>\r\n\
             message-ID:\r\n <Kept.Exactly@B>  \r\n{DATE}Received: from x\r\n by y; z\r\n"
        );
        assert_eq!(after_trace(&signed), signed);
    }

    #[test]
    fn what_is_missing_or_invalid_is_stamped() {
        let id =
            format!("Message-ID: <{}.000000000000abcd@id.example.com>\r\n", stamping().queue_id);
        for (header, want) in [
            (format!("{ID}{DATE}"), format!("{ID}{DATE}")),
            (String::new(), format!("{id}{DATE}")),
            (ID.to_owned(), format!("{DATE}{ID}")),
            (DATE.to_owned(), format!("{id}{DATE}")),
            (format!("Message-ID: x\r\n{DATE}"), format!("{id}{DATE}")),
            (format!("Message-ID: <a\r\n b@c>\r\n{DATE}"), format!("{id}{DATE}")),
            (
                format!("Message-ID: <a@b> (why)\r\n{DATE}"),
                format!("Message-ID: <a@b> (why)\r\n{DATE}"),
            ),
            (
                format!("Message-ID:\r\nMessage-Id: <c@d>\r\n{ID}{DATE}"),
                format!("Message-Id: <c@d>\r\n{DATE}"),
            ),
            (format!("{ID}{ID}{DATE}"), format!("{ID}{DATE}")),
            (format!("{ID}Date: yesterday\r\n"), format!("{DATE}{ID}")),
            (format!("{ID}Date: yesterday\r\n{DATE}X: y\r\n"), format!("{ID}{DATE}X: y\r\n")),
            (format!("{ID}Date: Wed, 12 Oct 2022 12:10:40 +0000"), format!("{ID}{DATE}")),
        ] {
            assert_eq!(after_trace(&header), want, "{header}");
        }
    }

    #[test]
    fn what_is_not_for_others_is_removed_as_whole_fields() {
        for gone in [
            "Bcc: secret@x\r\n",
            "bCC : a@b,\r\n\tsecret@x\r\n",
            "Resent-Bcc: secret@x\r\n",
            "Return-Path: <a@b>\r\n",
            "X-Rebound-Id: forged\r\n",
            "X-Rebound-Notice: forged\r\n",
            "X-EE-Send-At: 2030-01-01\r\n",
            "x-ee-account: other\r\n",
            "X-Rebound-Meta-Order: 7\r\n",
        ] {
            let header = format!("{ID}{gone}{DATE}");
            assert_eq!(after_trace(&header), format!("{ID}{DATE}"), "{gone}");
        }
        for kept in ["X-Bcc: a\r\n", "Cc: a@b\r\n", "X-Rebound: 1\r\n", "X-EE: 1\r\n"] {
            let header = format!("{ID}{kept}{DATE}");
            assert_eq!(after_trace(&header), header, "{kept}");
        }
    }

    #[test]
    fn meta_is_returned_bounded_and_clean() {
        let many: String = (0..40).map(|n| format!("X-Rebound-Meta-N{n:02}: v\r\n")).collect();
        let header = format!("X-REBOUND-META-Order: 7\r\n 8\r\nX-Rebound-Meta-Order: 9\r\n{many}");
        let meta = stamp(header.as_bytes(), &stamping()).unwrap().meta;
        assert_eq!(meta.len(), META_FIELDS_MAX);
        assert_eq!(meta["order"], "7 8");
    }

    #[test]
    fn received_says_who_how_and_for_whom() {
        let to = Address::parse("bob@example.org").unwrap();
        let u_label = Address::parse("bob@bücher.example").unwrap();
        let six = Some("2001:db8::1".parse().unwrap());
        let tls = Protocol::Esmtp { tls: true, auth: true, utf8: false };
        let base = stamping().trace;
        for (trace, want) in [
            (base, "from app.example.com ([192.0.2.1]) by relay.example.com with ESMTP id QID;"),
            (
                Trace { helo: Some("x y\r\nBcc: z"), ..base },
                "from [192.0.2.1] ([192.0.2.1]) by relay.example.com with ESMTP id QID;",
            ),
            (
                Trace { peer: six, protocol: tls, recipient: Some(&to), ..base },
                "from app.example.com ([IPv6:2001:db8::1]) by relay.example.com with ESMTPSA id \
                 QID for <bob@example.org>;",
            ),
            (
                Trace { helo: Some("müller.example"), recipient: Some(&u_label), ..base },
                "from xn--mller-kva.example ([192.0.2.1]) by relay.example.com with ESMTP \
                 id QID for <bob@xn--bcher-kva.example>;",
            ),
            (
                Trace { helo: None, peer: None, protocol: Protocol::Http, recipient: None },
                "by relay.example.com with HTTP id QID;",
            ),
        ] {
            let stamping = Stamping { trace, ..stamping() };
            let stamped = stamp(b"", &stamping).unwrap();
            let want = want.replace("QID", &stamping.queue_id.to_string());
            let received = header::find(&stamped.header, "Received").unwrap().text();
            assert_eq!(received, format!("{want} Wed, 12 Oct 2022 12:10:40 +0000"));
            let id = header::find(&stamped.header, "X-Rebound-Id").unwrap().text();
            assert_eq!(id, stamping.queue_id.to_string());
        }
    }

    #[test]
    fn a_mail_that_goes_in_circles_is_refused() {
        let received = |count: usize| "Received: by x; y\r\n".repeat(count);
        assert!(stamp(received(3).as_bytes(), &stamping()).is_ok());
        let looping = stamp(received(4).as_bytes(), &stamping());
        assert_eq!(looping, Err(StampError::Loop { received: 4 }));
    }

    #[test]
    fn dates_old_and_new_are_left_alone_and_others_are_not() {
        for (text, want) in [
            ("Wed, 12 Oct 2022 12:10:40 +0000", true),
            ("12 Oct 2022 12:10:40 -0330", true),
            ("Wed,12 Oct 2022 12:10 GMT", true),
            ("Wed, 2 oct 22 12:10:40 EST", true),
            ("Thu, 29 Feb 2024 00:00:60 +0000", true),
            ("29 Feb 00 00:00:00 Z", true),
            ("Thu, 29 Feb 2023 00:00:00 +0000", false),
            ("Wed, 32 Oct 2022 12:10:40 +0000", false),
            ("Wed, 0 Oct 2022 12:10:40 +0000", false),
            ("Xyz, 12 Oct 2022 12:10:40 +0000", false),
            ("Wed, 12 Oct 2022 24:10:40 +0000", false),
            ("Wed, 12 Oct 2022 12:10:40", false),
            ("Wed, 12 Oct 2022 12:10:40 +00", false),
            ("Wed, 12 Oct 2022 12:10:40 +0000 x", false),
            ("2022-10-12T12:10:40Z", false),
            ("+1 Oct 2022 12:10:40 +0000", false),
            ("", false),
        ] {
            assert_eq!(is_date(text), want, "{text}");
        }
        assert!(is_date(&without_comments("Wed, 12 Oct 2022 (a (b\\)) c) 12:10:40 +0200 (CEST)")));
    }

    #[test]
    fn a_mailbox_line_and_a_missing_empty_line_are_told() {
        assert_eq!(mailbox_line_len(b"From a@b Mon Jan 1\r\nTo: x\r\n"), 20);
        assert_eq!(mailbox_line_len(b">From a@b\r\nTo: x\r\n"), 11);
        assert_eq!(mailbox_line_len(b"From: a@b\r\n"), 0);
        for (rest, want) in [
            (&b"\r\nbody"[..], &b""[..]),
            (b"\nbody", b""),
            (b"body", b"\r\n"),
            (b" body", b"\r\n"),
            (b"", b"\r\n"),
        ] {
            assert_eq!(separator(rest), want);
        }
    }
}
