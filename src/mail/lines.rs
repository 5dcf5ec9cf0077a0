//! Whether a mail has lines that are longer than SMTP allows (RFC 5321 §4.5.3.1.6).

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

/// Octets of a line with its CRLF (RFC 5321 §4.5.3.1.6).
pub const LINE_BYTES_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

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
