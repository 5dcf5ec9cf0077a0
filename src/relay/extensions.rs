//! What a next hop offers: its reply to EHLO (RFC 5321 §4.1.1.1).

/// The service extensions of a next hop that we make use of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    /// RFC 2920.
    pub(super) pipelining: bool,
    /// RFC 6152.
    pub(super) eight_bit_mime: bool,
    /// RFC 6531.
    pub(super) smtputf8: bool,
    /// RFC 3461.
    pub(super) dsn: bool,
    /// RFC 3207.
    pub(super) starttls: bool,
    /// RFC 3030.
    pub(super) chunking: bool,
    /// RFC 1870.
    pub(super) size: Size,
    /// `AUTH PLAIN` (RFC 4616).
    pub(super) auth_plain: bool,
    /// `AUTH LOGIN`.
    pub(super) auth_login: bool,
}

/// What is said of the size of a mail (RFC 1870 §4).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Size {
    /// The extension is not offered.
    #[default]
    NotOffered,
    /// It is offered, and no limit is given.
    Unlimited,
    /// Octets of the largest mail.
    Limit(u64),
}

impl Extensions {
    /// Reads the text of a positive reply to EHLO; its first line is the greeting.
    ///
    /// Keywords are compared without regard to case (RFC 5321 §2.4). What is unknown or odd is
    /// passed over: an extension that we do not understand is one that we do not use.
    pub(super) fn of_ehlo(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().skip(1) {
            // Some servers still write `AUTH=LOGIN PLAIN`, as the draft of the extension had it.
            let mut words = line.split([' ', '\t', '=']).filter(|word| !word.is_empty());
            match words.next().map(str::to_ascii_uppercase).as_deref() {
                Some("PIPELINING") => found.pipelining = true,
                Some("8BITMIME") => found.eight_bit_mime = true,
                Some("SMTPUTF8") => found.smtputf8 = true,
                Some("DSN") => found.dsn = true,
                Some("STARTTLS") => found.starttls = true,
                Some("CHUNKING") => found.chunking = true,
                Some("SIZE") => {
                    // Zero says that no limit is in force (RFC 1870 §4).
                    let limit = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
                    found.size = if limit == 0 { Size::Unlimited } else { Size::Limit(limit) };
                }
                Some("AUTH") => {
                    for word in words {
                        found.auth_plain |= word.eq_ignore_ascii_case("PLAIN");
                        found.auth_login |= word.eq_ignore_ascii_case("LOGIN");
                    }
                }
                _ => {}
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_extensions_are_found_and_others_passed_over() {
        let found = Extensions::of_ehlo(
            "mx.example.com DSN\nPIPELINING\nsize 1000\nETRN\nSTARTTLS\nAUTH=LOGIN\n\
             AUTH PLAIN CRAM-MD5\nENHANCEDSTATUSCODES\n8bitmime\nSMTPUTF8\n\nCHUNKING",
        );
        let want = Extensions {
            pipelining: true,
            eight_bit_mime: true,
            smtputf8: true,
            dsn: false,
            starttls: true,
            chunking: true,
            size: Size::Limit(1000),
            auth_plain: true,
            auth_login: true,
        };
        assert_eq!(found, want);
        assert_eq!(Extensions::of_ehlo("PIPELINING"), Extensions::default());
        assert_eq!(Extensions::of_ehlo(""), Extensions::default());
    }

    #[test]
    fn a_size_of_zero_or_none_is_no_limit() {
        for (line, want) in [
            ("SIZE", Size::Unlimited),
            ("SIZE 0", Size::Unlimited),
            ("SIZE x", Size::Unlimited),
            ("SIZE 99999999999999999999999", Size::Unlimited),
            ("SIZE 10240000", Size::Limit(10_240_000)),
            ("SIZED 5", Size::NotOffered),
        ] {
            assert_eq!(Extensions::of_ehlo(&format!("mx\n{line}")).size, want, "{line}");
        }
    }
}
