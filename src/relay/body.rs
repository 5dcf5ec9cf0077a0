//! The body on its way out: clean whatever the store holds, and dot-stuffed where it follows DATA.
//!
//! Nothing but CRLF ends a line that we send, so no next hop can be brought to see an end of data
//! where we have sent none (RFC 5321 §2.3.8, §4.5.2).

/// Turns the octets of a mail into what is sent, piece by piece.
///
/// LF ends a line and goes out as CRLF, whether a CR stood before it or not; every other CR and
/// every NUL is left out. A bare CR never becomes CRLF, for that would make a line, and with it
/// perhaps a header field, that the sender did not write.
#[derive(Debug)]
pub(super) struct Outgoing {
    framing: Framing,
    at_line_start: bool,
}

/// How the next hop is told where the mail ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// By a lone dot; a dot that begins a line is doubled (RFC 5321 §4.5.2). What begins a line is
    /// judged by what has been sent, so that leaving something out cannot bring a single dot there.
    Dot,
    /// By the number of octets: a dot is an octet like any other (RFC 3030 §2).
    Count,
}

impl Outgoing {
    pub(super) fn new(framing: Framing) -> Self {
        Self { framing, at_line_start: true }
    }

    /// Appends to `out` what is sent for `input`.
    pub(super) fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        out.reserve(input.len());
        for piece in input.split_inclusive(|octet| matches!(octet, b'\r' | b'\n' | 0)) {
            let (text, ends_line) = match piece.split_last() {
                Some((end @ (b'\r' | b'\n' | 0), text)) => (text, *end == b'\n'),
                _ => (piece, false),
            };
            if let Some(first) = text.first() {
                if self.framing == Framing::Dot && self.at_line_start && *first == b'.' {
                    out.push(b'.');
                }
                out.extend_from_slice(text);
                self.at_line_start = false;
            }
            if ends_line {
                out.extend_from_slice(b"\r\n");
                self.at_line_start = true;
            }
        }
    }

    /// Appends the end: CRLF where the last line has none, then the lone dot if one is wanted.
    pub(super) fn finish(&self, out: &mut Vec<u8>) {
        if !self.at_line_start {
            out.extend_from_slice(b"\r\n");
        }
        if self.framing == Framing::Dot {
            out.extend_from_slice(b".\r\n");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(pieces: &[&[u8]]) -> Vec<u8> {
        sent_as(Framing::Dot, pieces)
    }

    fn sent_as(framing: Framing, pieces: &[&[u8]]) -> Vec<u8> {
        let mut outgoing = Outgoing::new(framing);
        let mut out = Vec::new();
        for piece in pieces {
            outgoing.push(piece, &mut out);
        }
        outgoing.finish(&mut out);
        out
    }

    /// The rule once more, an octet at a time over the whole mail, as plainly as it can be said.
    fn reference(mail: &[u8]) -> Vec<u8> {
        let clean: Vec<u8> = mail.iter().copied().filter(|o| !matches!(o, b'\r' | 0)).collect();
        let mut lines: Vec<&[u8]> = clean.split(|octet| *octet == b'\n').collect();
        if lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        let mut out = Vec::new();
        for line in lines {
            if line.starts_with(b".") {
                out.push(b'.');
            }
            out.extend_from_slice(line);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b".\r\n");
        out
    }

    /// What the next hop makes of it (RFC 5321 §4.5.2), and what it would take for a command.
    fn received(wire: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let mut mail = Vec::new();
        let mut rest = wire;
        while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
            let (line, tail) = rest.split_at(end + 2);
            rest = tail;
            match line {
                b".\r\n" => return (mail, rest.to_vec()),
                _ => mail.extend_from_slice(line.strip_prefix(b".").unwrap_or(line)),
            }
        }
        panic!("no end of data in {wire:?}");
    }

    #[test]
    fn bodies_go_out_stuffed_clean_and_ended() {
        for (mail, want) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..\r\n", b"...\r\n.\r\n"),
            (b"a\r\n.\r\nb\r\n", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a.\r\n", b"a.\r\n.\r\n"),
            (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\r\nb", b"a.\r\nb\r\n.\r\n"),
            (b"a\r\n\r.\r\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\n\0.\r\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\r\n", b"a\r\n.\r\n"),
            (b"a\r\0\nb\0c", b"a\r\nbc\r\n.\r\n"),
            (b"a\r\n.\r\r\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r", b"a\r\n.\r\n"),
            (b"a\r\n\r", b"a\r\n.\r\n"),
            (b"\r\n\r\n", b"\r\n\r\n.\r\n"),
        ] {
            assert_eq!(sent(&[mail]), want, "{mail:?}");
            let octets: Vec<&[u8]> = mail.chunks(1).collect();
            assert_eq!(sent(&octets), want, "{mail:?} an octet at a time");
        }
    }

    #[test]
    fn random_bodies_match_the_reference_however_they_are_cut() {
        let mut seed: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut random = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            usize::try_from(seed % below).unwrap()
        };
        for _ in 0..50_000 {
            let len = random(24);
            let mail: Vec<u8> = (0..len).map(|_| b"\r\n.\0a\xe9"[random(6)]).collect();
            let mut pieces = Vec::new();
            let mut rest = mail.as_slice();
            while !rest.is_empty() {
                let (piece, tail) = rest.split_at(1 + random(4).min(rest.len() - 1));
                pieces.push(piece);
                rest = tail;
            }
            let out = sent(&pieces);
            assert_eq!(out, reference(&mail), "{mail:?}");
            let (arrived, left) = received(&out);
            assert!(left.is_empty(), "{mail:?} would smuggle {left:?}");
            assert_eq!(sent_as(Framing::Count, &pieces), arrived, "{mail:?} by count");
            let text = |octets: &[u8]| -> Vec<u8> {
                octets.iter().copied().filter(|o| !matches!(o, b'\r' | b'\n' | 0)).collect()
            };
            assert_eq!(text(&arrived), text(&mail));
            assert!(!out.contains(&0));
            let crs = out.iter().filter(|octet| **octet == b'\r').count();
            let ends = out.windows(2).filter(|two| *two == b"\r\n").count();
            let lfs = out.iter().filter(|octet| **octet == b'\n').count();
            assert!(crs == ends && lfs == ends, "{mail:?}");
        }
    }
}
