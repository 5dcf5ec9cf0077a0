//! Any octets as a mail on its way in and out: what is taken for the mail, where it ends and
//! whether it is refused is what a plain model says, however the octets are cut; and what goes
//! out ends where it ends and nowhere before.
//!
//! The first octet chooses the server, the second the cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rebound_fuzz::pieces::cut;
use rebound_fuzz::relay::{counted, stuffed};
use rebound_fuzz::smtp::{MESSAGE_BYTES_MAX, Read, Server, read_counted, read_data, talk};

fuzz_target!(|input: &[u8]| {
    let [server, seed, octets @ ..] = input else { return };
    // No LMTP, no AUTH, no TLS: only how a mail is taken matters here.
    let server = Server(*server & 0b1_1000);
    for seed in [0, 1, (*seed).max(2)] {
        let want = model(octets);
        let got = read_data(cut(octets, seed));
        if want.ended {
            assert_eq!(got, want);
        } else {
            // A CR or a dot may be held back until it is clear what it is.
            assert!(!got.ended && want.mail.starts_with(&got.mail), "{got:?} {want:?}");
            assert_eq!(got.taken, octets.len());
        }
        assert_eq!(read_counted(cut(octets, seed)), counted_model(octets));
        in_a_session(server, seed, octets, &want);
        in_a_chunk(server, seed, octets);
        on_its_way_out(seed, octets);
        on_its_way_out(seed, &want.mail);
    }
});

/// What follows DATA, written down from RFC 5321 §4.5.2 and not for speed.
fn model(octets: &[u8]) -> Read {
    // The CRLF of the command itself may begin the end of the mail (RFC 5321 §4.1.1.4).
    let stream = [b"\r\n", octets].concat();
    let end = stream.windows(5).position(|five| five == b"\r\n.\r\n");
    let lines_end = end.map_or(octets.len(), |at| at);
    let mut read = Read { taken: end.map_or(octets.len(), |at| at + 3), ..Read::default() };
    read.ended = end.is_some();
    let mut rest = &octets[..lines_end];
    while !rest.is_empty() {
        let line_end = rest.windows(2).position(|two| two == b"\r\n");
        let line = &rest[..line_end.unwrap_or(rest.len())];
        clean(line.strip_prefix(b".").unwrap_or(line), &mut read);
        if line_end.is_some() {
            read.mail.extend_from_slice(b"\r\n");
        }
        rest = &rest[line_end.map_or(rest.len(), |at| at + 2)..];
    }
    read
}

/// What follows BDAT: every octet means itself, and the last line is a whole one.
fn counted_model(octets: &[u8]) -> Read {
    let mut read = Read { taken: octets.len(), ended: true, ..Read::default() };
    let mut rest = octets;
    while !rest.is_empty() {
        let line_end = rest.windows(2).position(|two| two == b"\r\n");
        clean(&rest[..line_end.unwrap_or(rest.len())], &mut read);
        read.mail.extend_from_slice(b"\r\n");
        rest = &rest[line_end.map_or(rest.len(), |at| at + 2)..];
    }
    read
}

/// A line without its CRLF: a bare CR is dropped, a bare LF ends a line, a NUL is dropped.
fn clean(line: &[u8], read: &mut Read) {
    for octet in line {
        match octet {
            b'\r' => read.bare_newline = true,
            b'\n' => {
                read.bare_newline = true;
                read.mail.extend_from_slice(b"\r\n");
            }
            0 => read.nul = true,
            octet => read.mail.push(*octet),
        }
    }
}

/// The session says of the mail what the model says, and takes for a command what is behind it.
fn in_a_session(server: Server, seed: u8, octets: &[u8], want: &Read) {
    if !want.ended {
        return;
    }
    let mail = octets.get(..want.taken).unwrap_or_default();
    let input = [BEFORE, b"DATA\r\n", mail, b"HELP\r\nQUIT\r\n"].concat();
    let talk = talk(server, cut(&input, seed));
    judged(server, &talk.said, &talk.mails, want, "214 2.0.0");
}

/// The same of a mail that comes in one counted piece.
fn in_a_chunk(server: Server, seed: u8, octets: &[u8]) {
    let bdat = format!("BDAT {} LAST\r\n", octets.len());
    let input = [BEFORE, bdat.as_bytes(), octets, b"HELP\r\nQUIT\r\n"].concat();
    let talk = talk(server, cut(&input, seed));
    judged(server, &talk.said, &talk.mails, &counted_model(octets), "214 2.0.0");
}

fn judged(server: Server, said: &[u8], mails: &[Vec<u8>], want: &Read, next: &str) {
    let text = String::from_utf8_lossy(said);
    let last: Vec<&str> = text.lines().rev().take(3).collect();
    let [bye, help, verdict] = last[..] else { panic!("{text}") };
    assert!(bye.starts_with("221 2.0.0") && help.starts_with(next), "{text}");
    let is_large = server.0 & 16 != 0 && want.mail.len() as u64 > MESSAGE_BYTES_MAX;
    let refusal = if want.nul {
        "550 5.6.0 "
    } else if want.bare_newline && !server.normalizes() {
        "550 5.6.11 "
    } else if is_large {
        "552 5.3.4 "
    } else {
        assert_eq!(mails, [want.mail.as_slice()], "another mail was taken");
        return;
    };
    assert!(verdict.starts_with(refusal) && mails.is_empty(), "{refusal}, not {text}");
}

/// What is sent has one end, no defects, and is the mail again once it is unstuffed.
fn on_its_way_out(seed: u8, mail: &[u8]) {
    let sent = stuffed(cut(mail, seed));
    assert_eq!(sent, stuffed(cut(mail, 0)), "the cut makes a difference");
    let arrived = read_data(cut(&sent, seed));
    assert!(arrived.ended && arrived.taken == sent.len(), "it ends before its end");
    assert!(!arrived.bare_newline && !arrived.nul, "{sent:?} is not clean");
    assert_eq!(counted(cut(mail, seed)), arrived.mail, "by BDAT it is another mail");
    // What came in clean goes out as it is; of anything else the text does, at least.
    let is_text = |octet: &&u8| !matches!(**octet, b'\r' | b'\n' | 0);
    assert!(arrived.mail.iter().filter(is_text).eq(mail.iter().filter(is_text)));
    if counted_model(mail).mail == mail {
        assert_eq!(arrived.mail, mail, "it is another mail");
    }
}

const BEFORE: &[u8] = b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n";
