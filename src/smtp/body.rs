//! Reads the octets of a mail: after DATA up to the line that ends them (RFC 5321 §4.5.2), after
//! BDAT as many as were announced (RFC 3030 §2).
//!
//! Only `CRLF . CRLF` ends the data, however the octets are cut into pieces on their way.
//! What comes out has no stuffed dots, and no bare CR, bare LF or NUL: those are noticed, and
//! written as `BareNewline::Normalize` wants them, so that nothing downstream can read a line
//! end where we saw none.

/// Takes pieces of the data and gives back the mail.
#[derive(Debug, Default)]
pub(crate) struct BodyReader {
    framing: Framing,
    at: At,
    defects: Defects,
}

/// How the client says where the mail ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Framing {
    /// With a line that holds a dot and nothing else (DATA).
    #[default]
    Dot,
    /// By the number of octets (BDAT): a dot is an octet like any other.
    Count,
}

/// What stood in the data that must not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Defects {
    /// A CR without LF after it, or an LF without CR before it (RFC 5321 §2.3.8).
    pub(crate) bare_newline: bool,
    /// A NUL (RFC 5322 §2.2 has none).
    pub(crate) nul: bool,
}

/// What was read last, as far as it matters for what comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// CRLF, or nothing yet: the CRLF of the DATA command counts (RFC 5321 §4.1.1.4).
    #[default]
    LineStart,
    /// Something within a line.
    Text,
    /// A CR within or at the start of a line; it is not written yet.
    Cr,
    /// A dot at the start of a line; it is never written.
    Dot,
    /// A dot at the start of a line and a CR.
    DotCr,
    /// The end of the data.
    End,
}

impl BodyReader {
    /// Reads a mail that ends as `framing` says.
    pub(crate) fn new(framing: Framing) -> Self {
        Self { framing, ..Self::default() }
    }

    /// Reads `input` up to its end or the end of the data, and appends what it means to `out`.
    ///
    /// Returns how many octets were read; the rest of `input` is no data.
    pub(crate) fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> usize {
        let mut rest = input;
        loop {
            if matches!(self.at, At::LineStart | At::Text) {
                let clean = self.clean_prefix(rest);
                out.extend_from_slice(rest.get(..clean).unwrap_or_default());
                rest = rest.get(clean..).unwrap_or_default();
            }
            match rest.split_first() {
                Some((octet, tail)) if self.at != At::End => {
                    self.step(*octet, out);
                    rest = tail;
                }
                _ => return input.len().saturating_sub(rest.len()),
            }
        }
    }

    /// Ends a mail whose octets were counted; its last line is completed if need be, so that
    /// every mail we hold is whole lines.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.at == At::Cr {
            self.defects.bare_newline = true;
        }
        if self.at != At::LineStart {
            out.extend_from_slice(b"\r\n");
            self.at = At::LineStart;
        }
    }

    /// Whether the end of the data was read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.at == At::End
    }

    /// What was noticed so far.
    pub(crate) fn defects(&self) -> Defects {
        self.defects
    }

    /// How many octets at the start of `octets` mean themselves; moves behind them.
    fn clean_prefix(&mut self, octets: &[u8]) -> usize {
        let mut len = 0_usize;
        loop {
            let line = octets.get(len..).unwrap_or_default();
            if self.is_stuffing(line.first()) {
                return len;
            }
            let text = text_len(line);
            if text > 0 {
                self.at = At::Text;
            }
            len = len.saturating_add(text);
            if !line.get(text..).unwrap_or_default().starts_with(b"\r\n") {
                return len;
            }
            len = len.saturating_add(2);
            self.at = At::LineStart;
        }
    }

    /// Whether the dot is one that the client added, or the one that ends the mail.
    fn is_stuffing(&self, octet: Option<&u8>) -> bool {
        self.framing == Framing::Dot && self.at == At::LineStart && octet == Some(&b'.')
    }

    fn step(&mut self, octet: u8, out: &mut Vec<u8>) {
        if self.is_stuffing(Some(&octet)) {
            self.at = At::Dot;
            return;
        }
        match (self.at, octet) {
            (At::Dot, b'\r') => self.at = At::DotCr,
            (At::DotCr, b'\n') => self.at = At::End,
            (At::Cr, b'\n') => {
                out.extend_from_slice(b"\r\n");
                self.at = At::LineStart;
            }
            (At::Cr | At::DotCr, b'\r') => {
                self.defects.bare_newline = true;
                self.at = At::Cr;
            }
            (At::Cr | At::DotCr, _) => {
                self.defects.bare_newline = true;
                self.text(octet, out);
            }
            (_, b'\r') => self.at = At::Cr,
            (_, _) => self.text(octet, out),
        }
    }

    /// An octet within a line, with no CR before it.
    fn text(&mut self, octet: u8, out: &mut Vec<u8>) {
        match octet {
            b'\n' => {
                self.defects.bare_newline = true;
                out.extend_from_slice(b"\r\n");
            }
            0 => self.defects.nul = true,
            _ => out.push(octet),
        }
        self.at = At::Text;
    }
}

/// How many octets stand before the first CR, LF or NUL.
fn text_len(octets: &[u8]) -> usize {
    let is_special = |octet: &u8| matches!(octet, 0 | b'\n' | b'\r');
    let (blocks, _) = octets.as_chunks::<SCAN_BYTES>();
    // No early exit within a block: this is what lets the compiler compare it as a whole.
    let has_special = |block: &[u8; SCAN_BYTES]| {
        block.iter().fold(false, |found, octet| found | is_special(octet))
    };
    let clean = blocks.iter().take_while(|block| !has_special(block)).count();
    let clean = clean.saturating_mul(SCAN_BYTES);
    let rest = octets.get(clean..).unwrap_or_default();
    clean.saturating_add(rest.iter().position(is_special).unwrap_or(rest.len()))
}

/// Octets that are looked at together.
const SCAN_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    /// What the data means, written down from the rules and not for speed.
    struct Model {
        read: usize,
        mail: Vec<u8>,
        defects: Defects,
        ended: bool,
    }

    fn model(input: &[u8]) -> Model {
        let mut stream = b"\r\n".to_vec();
        stream.extend_from_slice(input);
        let end = stream.windows(5).position(|five| five == b"\r\n.\r\n");
        let data = &stream[2..end.map_or(stream.len(), |at| at + 2).max(2)];
        let mut defects = Defects::default();
        let mut mail = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let line_end = rest.windows(2).position(|two| two == b"\r\n");
            let line = &rest[..line_end.unwrap_or(rest.len())];
            for octet in line.strip_prefix(b".").unwrap_or(line) {
                match octet {
                    b'\r' => defects.bare_newline = true,
                    b'\n' => {
                        defects.bare_newline = true;
                        mail.extend_from_slice(b"\r\n");
                    }
                    0 => defects.nul = true,
                    octet => mail.push(*octet),
                }
            }
            if line_end.is_some() {
                mail.extend_from_slice(b"\r\n");
            }
            rest = &rest[line_end.map_or(rest.len(), |at| at + 2)..];
        }
        let read = end.map_or(input.len(), |at| at + 3);
        Model { read, mail, defects, ended: end.is_some() }
    }

    fn read_in_pieces(input: &[u8], mut piece: impl FnMut() -> usize) -> Model {
        let mut reader = BodyReader::default();
        let mut mail = Vec::new();
        let mut read = 0;
        while read < input.len() && !reader.is_at_end() {
            let upto = input.len().min(read + piece().max(1));
            read += reader.read(&input[read..upto], &mut mail);
        }
        Model { read, mail, defects: reader.defects(), ended: reader.is_at_end() }
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_data() {
        for (input, mail) in [
            (&b".\r\n"[..], &b""[..]),
            (b"a\r\n.\r\n", b"a\r\n"),
            (b"..\r\n.\r\n", b".\r\n"),
            (b".a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n"),
            (b"a.\r\nb\r\n.\r\nQUIT\r\n", b"a.\r\nb\r\n"),
            (b"\r\n\r\n.\r\n", b"\r\n\r\n"),
        ] {
            let got = read_in_pieces(input, || usize::MAX);
            assert!(got.ended, "{input:?}");
            assert_eq!(got.defects, Defects::default(), "{input:?}");
            assert_eq!(got.mail, mail, "{input:?}");
        }
        // SMTP smuggling: what some other server takes for the end is none here.
        for end in [
            "\n.\n",
            "\n.\r\n",
            "\r.\r",
            "\r.\r\n",
            "\r\n.\r",
            "\r\n.\n",
            "\n.\r",
            "\r\n\0.\r\n",
            "\r\n.\0\r\n",
            "\r\n.\r\r\n",
            "\r\r\n.\r\r\n",
            "\r\n.\r\0\n",
            "\r\n .\r\n",
            "\r\n. \r\n",
        ] {
            let input = format!("a{end}MAIL FROM:<x@y>\r\n");
            let got = read_in_pieces(input.as_bytes(), || 1);
            assert!(!got.ended, "{end:?}");
            let bare = ["\r\n .\r\n", "\r\n. \r\n"].contains(&end);
            assert_eq!(got.defects == Defects::default(), bare, "{end:?}");
            let mail = String::from_utf8(got.mail).unwrap();
            assert!(!mail.replace("\r\n", "").contains(['\r', '\n', '\0']), "{end:?} {mail:?}");
        }
    }

    #[test]
    fn counted_octets_mean_themselves_but_for_bare_newlines() {
        for (chunks, mail, bare) in [
            (&["a\r\n"][..], "a\r\n", false),
            (&["a"], "a\r\n", false),
            (&["", ""], "", false),
            (&[".\r\n..\r\n.", "\r\n"], ".\r\n..\r\n.\r\n", false),
            (&["a\r", "\n.b"], "a\r\n.b\r\n", false),
            (&["a\r"], "a\r\n", true),
            (&["a\n", "b"], "a\r\nb\r\n", true),
            (&["a\r", "b"], "ab\r\n", true),
        ] {
            let mut reader = BodyReader::new(Framing::Count);
            let mut out = Vec::new();
            for chunk in chunks {
                assert_eq!(reader.read(chunk.as_bytes(), &mut out), chunk.len());
                assert!(!reader.is_at_end());
            }
            reader.finish(&mut out);
            assert_eq!(String::from_utf8(out).unwrap(), mail, "{chunks:?}");
            assert_eq!(reader.defects().bare_newline, bare, "{chunks:?}");
        }
    }

    /// A small generator with a fixed seed, so that a failure can be seen again.
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            usize::try_from(self.0 >> 11).unwrap() % limit
        }
    }

    #[test]
    fn every_body_in_every_cut_means_what_the_model_says() {
        let mut numbers = Numbers(0x5EED_0FB0_D1E5);
        let pieces: [&[u8]; 12] = [
            b"\r",
            b"\n",
            b".",
            b"\r\n",
            b"\r\n.",
            b"\r\n.\r",
            b"\0",
            b"a",
            b"\x80\xff",
            b"\r\n..",
            b"a line of more than thirty-two octets, so that whole blocks are skipped",
            b"\r\n.\r\n",
        ];
        for round in 0..200_000 {
            let mut input = Vec::new();
            for _ in 0..numbers.below(12) {
                // The last two are rarer, or most bodies would end at once.
                let kinds = if numbers.below(4) == 0 { 12 } else { 10 };
                input.extend_from_slice(pieces[numbers.below(kinds)]);
            }
            let largest = 1 + numbers.below(40);
            let want = model(&input);
            let got = read_in_pieces(&input, || 1 + numbers.below(largest));
            let cause = format!("round {round}: {:?}", String::from_utf8_lossy(&input));
            assert_eq!(got.ended, want.ended, "{cause}");
            assert_eq!(got.read, want.read, "{cause}");
            // A CR or a dot may still be held back where the data has not ended.
            if want.ended {
                assert_eq!(got.mail, want.mail, "{cause}");
                assert_eq!(got.defects, want.defects, "{cause}");
            } else {
                assert!(want.mail.starts_with(&got.mail), "{cause}");
            }
        }
    }
}
