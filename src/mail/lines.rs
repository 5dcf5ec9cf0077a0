//! The lines of a mail: how long they are (RFC 5321 §4.5.3.1.6), and how they end (RFC 5321 §2.3.8).

/// Looks at a mail piece by piece, and keeps nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct LineLengths {
    /// Octets of the line that has not ended yet.
    open_bytes: usize,
    has_long: bool,
}

impl LineLengths {
    /// Takes the next octets; LF ends a line.
    pub fn push(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while !self.has_long && !rest.is_empty() {
            // All lines that end here are short enough, so only the last of their ends matters,
            // and few octets are looked at.
            let left = LINE_BYTES_MAX.saturating_sub(self.open_bytes);
            let window = rest.get(..left).unwrap_or(rest);
            match window.iter().rposition(|octet| *octet == b'\n') {
                Some(at) => {
                    self.open_bytes = 0;
                    rest = rest.get(at.saturating_add(1)..).unwrap_or_default();
                }
                None => {
                    self.open_bytes = self.open_bytes.saturating_add(window.len());
                    self.has_long = self.open_bytes >= LINE_BYTES_MAX;
                    rest = rest.get(window.len()..).unwrap_or_default();
                }
            }
        }
    }

    /// Whether a line was too long so far.
    pub fn has_long(self) -> bool {
        self.has_long
    }
}

/// Whether a whole mail has a line that is too long.
pub fn has_long_lines(mail: &[u8]) -> bool {
    let mut lines = LineLengths::default();
    lines.push(mail);
    lines.has_long()
}

/// A mail that came by another way than SMTP, with every line ended by CRLF.
///
/// Where all end with LF alone, as in a file, that is what is meant. Where some do, or a CR stands
/// alone, nobody knows; `mends` has LF become CRLF and drops the CR all the same.
///
/// # Errors
/// With what is wrong with it: bare line ends, or a NUL.
pub fn for_smtp(mail: Vec<u8>, mends: bool) -> Result<Vec<u8>, &'static str> {
    if mail.contains(&0) {
        return Err("has a NUL octet");
    }
    let is_bare = |at: usize, octet: u8| match octet {
        b'\r' => mail.get(at.saturating_add(1)) != Some(&b'\n'),
        b'\n' => at.checked_sub(1).and_then(|before| mail.get(before)) != Some(&b'\r'),
        _ => false,
    };
    if !mail.iter().enumerate().any(|(at, octet)| is_bare(at, *octet)) {
        return Ok(mail);
    }
    if !mends && mail.contains(&b'\r') {
        return Err("has a CR or LF that is not part of a CRLF");
    }
    let mut mended = Vec::with_capacity(mail.len().saturating_add(mail.len() / 40));
    for octet in mail.iter().filter(|octet| **octet != b'\r') {
        if *octet == b'\n' {
            mended.push(b'\r');
        }
        mended.push(*octet);
    }
    Ok(mended)
}

/// Whether octets may stand in a mail as they are: ASCII in short lines that end with CRLF.
pub fn is_seven_bit(octets: &[u8]) -> bool {
    let text = octets.is_ascii() && !octets.contains(&0) && !has_long_lines(octets);
    let bare = |pair: &[u8]| (pair.last() == Some(&b'\n')) != (pair.first() == Some(&b'\r'));
    let starts_bare = octets.first() == Some(&b'\n') || octets.last() == Some(&b'\r');
    text && !starts_bare && !octets.windows(2).any(bare)
}

/// Octets of a line with its CRLF (RFC 5321 §4.5.3.1.6).
pub const LINE_BYTES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_for_smtp_has_no_bare_line_end_and_no_nul() {
        let bare = Err("has a CR or LF that is not part of a CRLF");
        for (mail, mends, want) in [
            ("", false, Ok("")),
            ("a\r\n\r\nb", false, Ok("a\r\n\r\nb")),
            ("a\n\nb\n", false, Ok("a\r\n\r\nb\r\n")),
            ("a\r\nb\n", false, bare),
            ("a\rb", false, bare),
            ("a\r", false, bare),
            ("\na\r\n", false, bare),
            ("a\r\r\nb\n\r", true, Ok("a\r\nb\r\n")),
            ("a\0", true, Err("has a NUL octet")),
        ] {
            let got = for_smtp(mail.as_bytes().to_vec(), mends);
            assert_eq!(got, want.map(|text: &str| text.as_bytes().to_vec()), "{mail:?} {mends}");
        }
    }

    #[test]
    fn seven_bit_is_ascii_in_lines() {
        for (text, want) in [
            ("", true),
            ("a", true),
            ("a\r\n", true),
            ("\r\n\r\na", true),
            ("a\nb", false),
            ("a\rb", false),
            ("\na", false),
            ("a\r", false),
            ("a\n\r", false),
            ("é", false),
            ("a\0", false),
        ] {
            assert_eq!(is_seven_bit(text.as_bytes()), want, "{text:?}");
        }
        assert!(!is_seven_bit("x".repeat(1000).as_bytes()));
    }

    #[test]
    fn a_line_of_998_octets_and_crlf_is_long_enough() {
        let of = |len: usize| format!("{}\r\n", "x".repeat(len));
        for (mail, want) in [
            (String::new(), false),
            (of(0), false),
            (of(998), false),
            (of(999), true),
            (of(10_000), true),
            (of(998).repeat(10), false),
            (of(76).repeat(1000) + &of(999), true),
            (of(999) + &of(76).repeat(1000), true),
            ("x".repeat(999), false),
            ("x".repeat(1000), true),
            ("x".repeat(998) + "\r" + &"\n".repeat(2000), false),
            ("\n".repeat(999) + &"x".repeat(1000), true),
        ] {
            assert_eq!(has_long_lines(mail.as_bytes()), want, "{} octets", mail.len());
        }
    }

    #[test]
    fn it_does_not_matter_how_a_mail_is_cut() {
        for (len, want) in [(998, false), (999, true)] {
            let line = format!("{}\r\n", "x".repeat(len));
            let mail = format!("a\r\n{line}{line}b\r\n");
            for piece_len in [1, 2, 3, 499, 500, 998, 999, 1000, 1001, 1500] {
                let mut lines = LineLengths::default();
                mail.as_bytes().chunks(piece_len).for_each(|piece| lines.push(piece));
                assert_eq!(lines.has_long(), want, "{len} by {piece_len}");
            }
        }
    }
}
