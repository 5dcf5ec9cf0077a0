//! Any octets as what a client says: the server never panics, says well-formed replies and not
//! too many, and says the same however the octets are cut. And any line as a command, beside
//! what smtp-proto makes of it.
//!
//! The first octet chooses the server, the second the cut.

#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use rebound_fuzz::mail::ReversePath;
use rebound_fuzz::pieces::cut;
use rebound_fuzz::smtp::{Server, Talk, Understood, talk, understood};
use smtp_proto::Request;

fuzz_target!(|input: &[u8]| {
    let [server, seed, octets @ ..] = input else { return };
    let server = Server(*server);
    let whole = talk(server, cut(octets, 0));
    sound(server, octets, &whole);
    let in_pieces = talk(server, cut(octets, (*seed).max(1)));
    sound(server, octets, &in_pieces);
    if !met_starttls(server, &whole) && !met_starttls(server, &in_pieces) {
        let (text, other) = (said(&whole), said(&in_pieces));
        assert_eq!(text, other, "the cut makes a difference");
        assert_eq!(whole.mails, in_pieces.mails, "the cut makes a difference to the mail");
        assert_eq!(whole.closed, in_pieces.closed);
    }
    for line in octets.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        // Lines are framed before they are understood; see `smtp/command.rs`.
        if !line.windows(2).any(|two| two == b"\r\n") {
            against_the_oracle(line);
        }
    }
});

fn said(talk: &Talk) -> String {
    String::from_utf8_lossy(&talk.said).into_owned()
}

/// Whether STARTTLS was taken or refused for what came along with it: the one thing for which
/// the cut must matter.
fn met_starttls(server: Server, talk: &Talk) -> bool {
    let refused = || said(talk).contains("503 5.5.1 Nothing may be sent along with STARTTLS");
    server.has_starttls() && (talk.starttls || refused())
}

fn sound(server: Server, octets: &[u8], talk: &Talk) {
    // A write begins when this is passed, by one command's replies at most; LMTP has one for
    // each recipient.
    let most = if server.is_lmtp() { 1 << 20 } else { 16_384 + 1024 };
    assert!(talk.written_max <= most, "{} octets at once", talk.written_max);
    let text = std::str::from_utf8(&talk.said).expect("replies are ASCII");
    let mut replies = 0;
    let mut rest = text;
    while !rest.is_empty() {
        rest = reply(rest);
        replies += 1;
    }
    // Each reply is for a line, but for the greeting and two on leaving.
    let lines = octets.windows(2).filter(|two| two == b"\r\n").count();
    let most = if server.is_lmtp() { 2 * lines } else { lines } + 3;
    assert!(replies <= most, "{replies} replies to {lines} lines");
    for mail in &talk.mails {
        let clean = mail.iter().all(|octet| *octet != 0) && has_only_whole_lines(mail);
        assert!(clean, "{:?} reaches the service", String::from_utf8_lossy(mail));
    }
}

fn has_only_whole_lines(mail: &[u8]) -> bool {
    let ends = mail.windows(2).filter(|two| two == b"\r\n").count();
    let count = |wanted: u8| mail.iter().filter(|octet| **octet == wanted).count();
    count(b'\r') == ends && count(b'\n') == ends
}

/// Takes one whole reply off the text.
fn reply(text: &str) -> &str {
    let code = text.get(..3).expect("a code");
    assert!(code.bytes().all(|octet| octet.is_ascii_digit()), "{text:?}");
    assert!(code.starts_with(['2', '3', '4', '5']), "{text:?}");
    let mut rest = text;
    loop {
        let (line, tail) = rest.split_once("\r\n").expect("every reply ends");
        assert!(line.len() <= 510, "{line:?} is too long");
        assert!(line.bytes().all(|octet| (b' '..=b'~').contains(&octet)), "{line:?}");
        assert!(line.starts_with(code), "{line:?} is no line of a {code}");
        rest = tail;
        let is_last = match line.as_bytes().get(3) {
            Some(b' ') => true,
            Some(b'-') => false,
            _ => panic!("{line:?}"),
        };
        if is_last {
            assert!(has_status(code, line), "{line:?} has no enhanced status");
            return rest;
        }
    }
}

/// RFC 2034 §4: all but the greeting, replies to HELO and EHLO, and 3yz have one.
fn has_status(code: &str, line: &str) -> bool {
    let class = &code[..1];
    let after = line.get(4..).unwrap_or_default();
    let exempt = class == "3"
        || code == "220" && after.ends_with("MTP Rebound")
        || code == "250"
        || line == "501 A domain or an address literal must follow";
    exempt || after.get(..2).is_some_and(|start| start == format!("{class}."))
}

/// smtp-proto is trusted for the verb of a command, for the size of a BDAT below 2^63, and for
/// plain addresses and paths without a source route.
///
/// It is not trusted for these, where it is wrong or does something else:
/// - it takes quotes and backslashes off local parts, and space and what stands behind it for
///   parameters in some of them;
/// - it takes anything for a domain, and knows nothing of address literals;
/// - it undoes xtext, drops the type before `;`, and does not know `ORCPT=utf-8;`;
/// - `BDAT 99999999999999999999999` is a small number to it;
/// - it drops what stands behind DATA, RSET, QUIT and STARTTLS, and does not look at names
///   behind EHLO;
/// - `<Postmaster>` is the null path to it, in MAIL, too;
/// - several blanks in a row are an empty argument to it;
/// - a tab is a space to it, a bare CR or LF may end a line, and some octets within a keyword are
///   nothing.
fn against_the_oracle(line: &[u8]) {
    let is_text = line.iter().all(|octet| octet.is_ascii() && !octet.is_ascii_control());
    if !is_text || line.windows(2).any(|two| two == b"  ") {
        return;
    }
    let ours = understood(line);
    let text = [line, b"\r\n"].concat();
    let theirs = Request::parse(&mut text.iter());
    match (&ours, &theirs) {
        (Understood::Verb(verb), Ok(request)) => assert_eq!(*verb, request.name()),
        (Understood::Hello(name), Ok(request)) => {
            let (Request::Ehlo { host } | Request::Helo { host } | Request::Lhlo { host }) =
                request
            else {
                panic!("{ours:?} is {request:?} to smtp-proto");
            };
            assert_eq!(name, host);
        }
        (Understood::Mail(path, _), Ok(Request::Mail { from })) => {
            let is_plain = path.address().is_none_or(|address| is_plain(address.as_str()));
            assert!(!is_plain || path.to_string() == from.address, "{ours:?} {theirs:?}");
        }
        (Understood::Rcpt(Some(address), _), Ok(Request::Rcpt { to })) => {
            let same = address.as_str() == to.address;
            assert!(same || !is_plain(address.as_str()), "{ours:?} {theirs:?}");
        }
        (Understood::Rcpt(None, _), Ok(Request::Rcpt { to })) => assert_eq!(to.address, ""),
        (Understood::Bdat { bytes, last }, Ok(Request::Bdat { chunk_size, is_last })) => {
            let is_small = *bytes < 1 << 63;
            assert!(!is_small || (*bytes, *last) == (*chunk_size as u64, *is_last));
        }
        (Understood::Auth(..), Ok(request)) => assert_eq!(request.name(), "AUTH"),
        (Understood::NotDone, _) => {}
        (Understood::Refused(reply), Ok(request)) => {
            refused_with_a_reason(reply, request, line);
        }
        (Understood::Refused(_), Err(_)) => {}
        (_, Err(error)) => assert!(may_differ(&ours), "{ours:?} is {error:?} to smtp-proto"),
        (_, Ok(request)) => panic!("{ours:?} is {request:?} to smtp-proto"),
    }
}

/// What smtp-proto takes and we do not: never for the verb, never for a plain path alone.
///
/// It skips what is no letter in keywords, so the line is compared with what it should be.
fn refused_with_a_reason(reply: &str, request: &Request<Cow<'_, str>>, line: &[u8]) {
    let line = String::from_utf8_lossy(line);
    let verb = line.split(' ').next().unwrap_or_default();
    let is_known = !matches!(request, Request::Atrn { .. } | Request::Burl { .. });
    if is_known && verb.eq_ignore_ascii_case(request.name()) {
        assert!(!reply.starts_with("500"), "{request:?}: {reply}");
    }
    let (plain, address) = match request {
        Request::Mail { from } => (format!("MAIL FROM:<{}>", from.address), &from.address),
        Request::Rcpt { to } => (format!("RCPT TO:<{}>", to.address), &to.address),
        _ => return,
    };
    assert!(!(is_plain(address) && line.eq_ignore_ascii_case(&plain)), "{request:?}: {reply}");
}

/// What we take and smtp-proto does not.
fn may_differ(ours: &Understood) -> bool {
    match ours {
        // Parameters are judged by the session; it judges them at once.
        Understood::Mail(path, parameters) => {
            let is_plain = matches!(path, ReversePath::Address(a) if is_plain(a.as_str()));
            !is_plain || !parameters.is_empty()
        }
        Understood::Rcpt(Some(address), parameters) => {
            !is_plain(address.as_str()) || !parameters.is_empty()
        }
        Understood::Rcpt(None, parameters) => !parameters.is_empty(),
        Understood::Bdat { bytes, .. } => *bytes >= 1 << 63,
        // It knows the mechanisms that it knows, and no others.
        Understood::Auth(..) => true,
        _ => false,
    }
}

/// Letters and digits with dots between them, once before and once after the `@`.
fn is_plain(address: &str) -> bool {
    let is_name = |name: &str, most: usize| {
        name.len() <= most
            && name.split('.').all(|part| {
                (1..=63).contains(&part.len())
                    && part.bytes().all(|octet| octet.is_ascii_alphanumeric())
            })
    };
    let parts = address.split_once('@');
    parts.is_some_and(|(local, domain)| is_name(local, 64) && is_name(domain, 180))
}
