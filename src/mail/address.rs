//! Addresses as they stand in an envelope (RFC 5321 §4.1.2, RFC 6531 §3.3).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

/// Octets of a local part (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Octets of a domain (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Octets of a path without its angle brackets (RFC 5321 §4.5.3.1.3).
pub const ADDRESS_BYTES_MAX: usize = 254;

/// `local-part@domain`, checked against the grammar and kept exactly as it was written.
///
/// A value of this type holds no control character, no space outside a quoted string and no
/// angle bracket outside one, so that it can be written into a command or a header.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    text: String,
    local_len: usize,
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// There is no `@`, or nothing stands before or after it.
    Incomplete,
    /// The part before the `@` is neither a dot-string nor a quoted string.
    LocalPart,
    /// The part after the `@` is neither a domain nor an address literal.
    Domain,
    /// The local part, the domain or the whole is longer than RFC 5321 §4.5.3.1 allows.
    TooLong,
}

impl Address {
    /// Reads `local-part@domain`, without angle brackets and source route.
    pub fn parse(text: &str) -> Result<Self, AddressError> {
        let at = at_sign(text).ok_or(AddressError::Incomplete)?;
        let (local, rest) = text.split_at_checked(at).ok_or(AddressError::Incomplete)?;
        let domain = rest.strip_prefix('@').ok_or(AddressError::Incomplete)?;
        if local.is_empty() || domain.is_empty() {
            return Err(AddressError::Incomplete);
        }
        if local.len() > LOCAL_PART_BYTES_MAX
            || domain.len() > DOMAIN_BYTES_MAX
            || text.len() > ADDRESS_BYTES_MAX
        {
            return Err(AddressError::TooLong);
        }
        if !is_dot_string(local) && !is_quoted_string(local) {
            return Err(AddressError::LocalPart);
        }
        if !is_domain(domain) && !is_address_literal(domain) {
            return Err(AddressError::Domain);
        }
        Ok(Self { text: text.to_owned(), local_len: at })
    }

    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as it was written, quotes included.
    pub fn local_part(&self) -> &str {
        self.text.get(..self.local_len).unwrap_or_default()
    }

    /// The domain as it was written.
    pub fn domain(&self) -> &str {
        self.text.get(self.local_len.saturating_add(1)..).unwrap_or_default()
    }

    /// The form in which two addresses are compared: everything in lower case.
    ///
    /// RFC 5321 §2.4 lets a host tell local parts apart by case; none of note does, and reports
    /// often come back in another case than they went out.
    pub fn canonical(&self) -> String {
        self.text.to_lowercase()
    }

    /// Whether it needs SMTPUTF8 to be relayed (RFC 6531 §3.3).
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        Self::parse(&text)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.text
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Incomplete => "not of the form local-part@domain",
            Self::LocalPart => "bad local part",
            Self::Domain => "bad domain",
            Self::TooLong => "longer than RFC 5321 allows",
        })
    }
}

impl std::error::Error for AddressError {}

/// What `MAIL FROM` names: an address, or nobody (RFC 5321 §4.5.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ReversePath {
    /// Where reports about this mail go.
    Address(Address),
    /// `<>`: no report may be sent about this mail.
    Null(()),
}

impl ReversePath {
    /// `<>`.
    pub const NULL: Self = Self::Null(());

    /// The address, unless the path is null.
    pub fn address(&self) -> Option<&Address> {
        match self {
            Self::Address(address) => Some(address),
            Self::Null(()) => None,
        }
    }

    /// Whether it is `<>`.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null(()))
    }
}

/// The path without angle brackets; empty when it is null.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Null(()) => Ok(()),
        }
    }
}

/// Whether `text` is a domain: dot-separated labels of letters, digits and hyphens
/// (RFC 5321 §4.1.2), underscores as DNS has them, and U-labels (RFC 6531 §3.3).
pub fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        let inside = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_' || is_utf8_text(c);
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(inside)
    };
    text.len() <= DOMAIN_BYTES_MAX && text.split('.').all(is_label)
}

/// Whether `text` is an address literal such as `[192.0.2.1]` or `[IPv6:2001:db8::1]`
/// (RFC 5321 §4.1.3).
pub fn is_address_literal(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
        return false;
    };
    match inner.split_at_checked(5) {
        Some((tag, rest)) if tag.eq_ignore_ascii_case("IPv6:") => rest.parse::<Ipv6Addr>().is_ok(),
        _ => inner.parse::<Ipv4Addr>().is_ok(),
    }
}

/// Where the `@` between local part and domain stands: the first one outside a quoted string.
fn at_sign(text: &str) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            '@' if !quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn is_dot_string(text: &str) -> bool {
    text.split('.').all(|atom| !atom.is_empty() && atom.chars().all(is_atext))
}

/// RFC 5322 §3.2.3, and UTF-8 (RFC 6531 §3.3).
fn is_atext(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~".contains(c) || is_utf8_text(c)
}

/// RFC 5321 §4.1.2 `Quoted-string`, and UTF-8 (RFC 6531 §3.3).
fn is_quoted_string(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut escaped = false;
    for c in inner.chars() {
        let printable = (' '..='~').contains(&c) || is_utf8_text(c);
        match c {
            _ if !printable => return false,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    // A lone `"` has no inside, and a closing quote that is escaped closes nothing.
    text.len() >= 2 && !escaped
}

fn is_utf8_text(c: char) -> bool {
    // The C1 controls and the line separators could break a line somewhere downstream.
    !c.is_ascii() && !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_grammar_allows_and_keeps_it_exactly() {
        for (text, local, domain) in [
            ("a@b", "a", "b"),
            ("Fred.Bloggs+x@Example.COM", "Fred.Bloggs+x", "Example.COM"),
            (r#""a b"@example.com"#, r#""a b""#, "example.com"),
            (r#""a\"@b"@example.com"#, r#""a\"@b""#, "example.com"),
            (r#""<>"@example.com"#, r#""<>""#, "example.com"),
            ("u@[192.0.2.1]", "u", "[192.0.2.1]"),
            ("u@[IPv6:2001:db8::1]", "u", "[IPv6:2001:db8::1]"),
            ("Pelé@müller.example", "Pelé", "müller.example"),
            ("a@under_score.example", "a", "under_score.example"),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!((address.local_part(), address.domain()), (local, domain));
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn refuses_everything_else() {
        use AddressError::{Domain, Incomplete, LocalPart, TooLong};
        for (text, want) in [
            ("", Incomplete),
            ("a", Incomplete),
            ("@b", Incomplete),
            ("a@", Incomplete),
            (".a@b", LocalPart),
            ("a..b@c", LocalPart),
            ("a b@c", LocalPart),
            ("a\r\nRCPT TO:<x@y>@b", LocalPart),
            ("\"a\r\n\"@b", LocalPart),
            ("a<b@c", LocalPart),
            (r#""a\"@b"#, Incomplete),
            ("\"@b", Incomplete),
            ("a@b@c", Domain),
            ("a@-b", Domain),
            ("a@b..c", Domain),
            ("a@b>", Domain),
            ("a@b c", Domain),
            ("a@[300.1.1.1]", Domain),
            ("a@[IPv6:zz]", Domain),
            ("a\u{85}@b", LocalPart),
        ] {
            assert_eq!(Address::parse(text), Err(want), "{text:?}");
        }
        assert_eq!(Address::parse(&format!("{}@b", "x".repeat(65))), Err(TooLong));
        assert_eq!(Address::parse(&format!("a@{}", "b.".repeat(130))), Err(TooLong));
    }
}
