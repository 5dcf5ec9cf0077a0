//! Addresses as they stand in an envelope (RFC 5321 §4.1.2, RFC 6531 §3.3).
//!
//! A domain may be of U-labels (`müller.example`), and is then the same as its form in A-labels
//! (`xn--mller-kva.example`). UTS #46 says which that is; what it cannot turn into a name that
//! DNS could hold is no domain. An `xn--` label that stands for nothing is taken as it is, as
//! long as all else is ASCII: DNS can hold it, and somebody may have it.
//! Of address literals there are those of IPv4 and IPv6: RFC 5321 §4.1.3 wants a registered tag
//! before any other, and none has been registered.

use std::borrow::Cow;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use serde::{Deserialize, Serialize};

/// Octets of a local part (RFC 5321 §4.5.3.1.1).
pub const LOCAL_PART_BYTES_MAX: usize = 64;
/// Octets of a domain (RFC 5321 §4.5.3.1.2).
pub const DOMAIN_BYTES_MAX: usize = 255;
/// Octets of a path without its angle brackets (RFC 5321 §4.5.3.1.3).
pub const ADDRESS_BYTES_MAX: usize = 254;
/// Octets of a label, of a U-label in its form as A-label (RFC 5890 §2.3.2.1).
const LABEL_BYTES_MAX: usize = 63;

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

    /// The form in which two addresses are compared; see `canonical`.
    pub fn canonical(&self) -> String {
        canonical(&self.text)
    }

    /// Whether it needs no SMTPUTF8 to be relayed as it is (RFC 6531 §3.3).
    pub fn is_ascii(&self) -> bool {
        self.text.is_ascii()
    }

    /// The same address in ASCII, its domain in A-labels, which is no internationalized address
    /// any more (RFC 6531 §3.2); `None` where its local part is not ASCII, or it grows too long.
    pub fn to_ascii(&self) -> Option<Self> {
        if self.is_ascii() {
            return Some(self.clone());
        }
        let text = format!("{}@{}", self.local_part(), ascii_domain(self.domain()));
        Self::parse(&text).ok().filter(Self::is_ascii)
    }
}

/// The form in which two addresses are compared: everything in lower case, the domain in A-labels.
///
/// RFC 5321 §2.4 lets a host tell local parts apart by case; none of note does, and reports
/// often come back in another case than they went out. What is no address, as reports have it,
/// is compared by its lower case.
pub fn canonical(address: &str) -> String {
    match address.rsplit_once('@') {
        Some((local, domain)) if !domain.is_ascii() => {
            format!("{}@{}", local.to_lowercase(), ascii_domain(domain).to_lowercase())
        }
        _ => address.to_lowercase(),
    }
}

/// A domain in A-labels; what is ASCII, or no domain at all, is left as it is.
pub fn ascii_domain(domain: &str) -> Cow<'_, str> {
    match a_labels(domain) {
        Some(ascii) if !domain.is_ascii() => Cow::Owned(ascii),
        _ => Cow::Borrowed(domain),
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
    text.len() <= DOMAIN_BYTES_MAX
        && if text.is_ascii() { is_ascii_domain(text) } else { a_labels(text).is_some() }
}

fn is_ascii_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= LABEL_BYTES_MAX
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    text.split('.').all(is_label)
}

/// A domain that may have U-labels, in A-labels (RFC 5890 §2.3.2.1), by UTS #46.
///
/// UTS #46 reads other characters as dots, too, and some as nothing or as ASCII: what has
/// another number of labels then, or is no domain, is none.
fn a_labels(domain: &str) -> Option<String> {
    if !domain.chars().all(|c| c.is_ascii_graphic() || is_utf8_text(c)) {
        return None;
    }
    let length = DnsLength::Verify;
    let hyphens = Hyphens::CheckFirstLast;
    let mapped = Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::EMPTY, hyphens, length);
    let ascii = mapped.ok()?;
    let has_its_labels = ascii.split('.').count() == domain.split('.').count();
    (has_its_labels && is_ascii_domain(&ascii)).then(|| ascii.into_owned())
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
        use AddressError::{Domain, Incomplete, LocalPart};
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
    }

    #[test]
    fn lengths_are_of_octets_and_hold_to_the_last() {
        let label = "x".repeat(63);
        let domain_255 = [label.as_str(); 4].join(".");
        let with_domain = |local: usize, whole: usize| {
            let local = "x".repeat(local);
            let domain = domain_255.get(domain_255.len() + local.len() + 1 - whole..).unwrap();
            format!("{local}@{domain}")
        };
        for (what, text, is_good) in [
            ("63 of a local part", format!("{}@b", "x".repeat(63)), true),
            ("64 of a local part", format!("{}@b", "x".repeat(64)), true),
            ("65 of a local part", format!("{}@b", "x".repeat(65)), false),
            ("64 with quotes", format!("\"{}\"@b", "x".repeat(62)), true),
            ("65 with quotes", format!("\"{}\"@b", "x".repeat(63)), false),
            ("64 in UTF-8", format!("{}@b", "é".repeat(32)), true),
            ("66 in UTF-8", format!("{}@b", "é".repeat(33)), false),
            ("254 in all, 256 with brackets", with_domain(64, 254), true),
            ("255 in all", with_domain(64, 255), false),
            ("63 of a label", format!("a@{label}"), true),
            ("64 of a label", format!("a@{label}x"), false),
            ("80 of a U-label, 47 as A-label", format!("a@{}", "é".repeat(40)), true),
            ("a U-label that is too long as A-label", format!("a@{}", "é".repeat(62)), false),
        ] {
            assert_eq!(Address::parse(&text).is_ok(), is_good, "{what}: {text}");
        }
        assert!(is_domain(&domain_255));
        assert!(!is_domain(&format!("{domain_255}x")) && !is_domain(&format!("{domain_255}.x")));
        assert_eq!(with_domain(64, 254).len(), ADDRESS_BYTES_MAX);
        assert_eq!(Address::parse(&"x".repeat(300)), Err(AddressError::Incomplete));
        assert_eq!(Address::parse(&with_domain(64, 255)), Err(AddressError::TooLong));
    }

    #[test]
    fn a_domain_is_the_same_in_u_labels_and_a_labels() {
        for (text, canonical_text, ascii) in [
            ("A.b@Example.COM", "a.b@example.com", Some("A.b@Example.COM")),
            ("A@müller.example", "a@xn--mller-kva.example", Some("A@xn--mller-kva.example")),
            ("a@MÜLLER.Example", "a@xn--mller-kva.example", Some("a@xn--mller-kva.example")),
            ("a@mu\u{308}ller.example", "a@xn--mller-kva.example", Some("a@xn--mller-kva.example")),
            ("a@XN--mller-kva.example", "a@xn--mller-kva.example", Some("a@XN--mller-kva.example")),
            ("a@straße.example", "a@xn--strae-oqa.example", Some("a@xn--strae-oqa.example")),
            ("a@例え.テスト", "a@xn--r8jz45g.xn--zckzah", Some("a@xn--r8jz45g.xn--zckzah")),
            ("a@مثال.example", "a@xn--mgbh0fb.example", Some("a@xn--mgbh0fb.example")),
            ("Pelé@müller.example", "pelé@xn--mller-kva.example", None),
            ("Pelé@b.example", "pelé@b.example", None),
            ("\"É@x\"@müller.example", "\"é@x\"@xn--mller-kva.example", None),
            ("a@xn--a.example", "a@xn--a.example", Some("a@xn--a.example")),
            ("a@[IPv6:2001:DB8::1]", "a@[ipv6:2001:db8::1]", Some("a@[IPv6:2001:DB8::1]")),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(address.as_str(), text, "it is kept");
            assert_eq!(address.canonical(), canonical_text);
            assert_eq!(canonical(canonical_text), canonical_text);
            assert_eq!(address.to_ascii().as_ref().map(Address::as_str), ascii, "{text}");
        }
        for text in ["no address", "É", "@", "a@b c", "É@-ü"] {
            assert_eq!(canonical(text), text.to_lowercase());
        }
    }

    #[test]
    fn what_dns_could_not_hold_is_no_domain() {
        for domain in [
            // Dots of other scripts, which UTS #46 takes for dots.
            "a\u{3002}ü.example",
            "a\u{ff0e}b",
            // What UTS #46 would map to ASCII that is in no domain.
            "\u{ff1c}.example",
            "\u{2100}.example",
            "ü\u{a0}.example",
            // Nothing, once it is mapped.
            "\u{ad}",
            // A mark that nothing carries, a lone surrogate's stand-in, private use, a joiner.
            "\u{308}a.example",
            "\u{fffd}.example",
            "\u{e000}.example",
            "a\u{200d}b.example",
            // Right to left and left to right in one label.
            "مثالa.example",
            "ü..example",
            "ü.",
            "-ü.example",
            "ü-.example",
            "ü b",
            "ü>x",
            "ü\0",
            "ü\u{85}",
            "ü\u{2028}",
            // Beside a U-label, an A-label must be one.
            "xn--a.ü.example",
        ] {
            assert!(!is_domain(domain), "{domain:?}");
            assert_eq!(Address::parse(&format!("a@{domain}")), Err(AddressError::Domain));
        }
    }

    #[test]
    fn address_literals_are_of_ipv4_and_ipv6() {
        for (text, want) in [
            ("[192.0.2.1]", true),
            ("[IPv6:::]", true),
            ("[ipv6:2001:db8::192.0.2.1]", true),
            ("[IPv6:1:2:3:4:5:6:7:8]", true),
            ("[192.0.2.256]", false),
            ("[192.0.2]", false),
            ("[192.0.2.01]", false),
            ("[2001:db8::1]", false),
            ("[IPv6:fe80::1%eth0]", false),
            ("[IPv6:1:2:3:4:5:6:7:8:9]", false),
            ("[IPv6:]", false),
            ("[x-tag:anything]", false),
            ("[ 192.0.2.1]", false),
            ("[192.0.2.1", false),
            ("[]", false),
            ("[", false),
        ] {
            assert_eq!(is_address_literal(text), want, "{text}");
        }
    }

    /// Texts that come near to being addresses, from a generator that always gives the same.
    fn texts() -> impl Iterator<Item = String> {
        const PIECES: &[&str] = &[
            "a",
            "b.c",
            "@",
            "@",
            "@d.example",
            "\"",
            "\"",
            "\\",
            " ",
            ".",
            "<",
            ">",
            ",",
            ":",
            "\r",
            "\n",
            "\0",
            "\t",
            "é",
            "ü.example",
            "xn--mller-kva",
            "[192.0.2.1]",
            "[IPv6:::1]",
            "-",
            "\u{85}",
            "\u{2028}",
            "\u{202e}",
            "\u{ff1c}",
            "\u{3002}",
            "テスト",
            "مثال",
            "(",
            ")",
        ];
        let mut state: u64 = 42;
        let mut next = move |below: usize| {
            // Numerical Recipes' generator: any that does not repeat will do.
            state = state.wrapping_mul(6_364_136_223_846_793_005);
            state = state.wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 40).unwrap() % below
        };
        (0..50_000).map(move |_| {
            let text: String = (0..=next(7)).map(|_| PIECES[next(PIECES.len())]).collect();
            text + ["", "@d.example", "@ü.example"][next(3)]
        })
    }

    #[test]
    fn whatever_is_an_address_prints_itself_and_breaks_out_of_nothing() {
        let mut parsed = 0;
        for text in texts() {
            let Ok(address) = Address::parse(&text) else { continue };
            parsed += 1;
            assert_eq!(address.to_string(), text);
            assert_eq!(format!("{}@{}", address.local_part(), address.domain()), text);
            for shown in [Some(address.clone()), address.to_ascii()].into_iter().flatten() {
                let (mut quoted, mut escaped) = (false, false);
                for c in shown.as_str().chars() {
                    assert!(!c.is_control(), "{text:?} holds a control character");
                    assert!(quoted || !" <>".contains(c), "{text:?} has it unquoted: {c:?}");
                    match c {
                        _ if escaped => escaped = false,
                        '\\' if quoted => escaped = true,
                        '"' => quoted = !quoted,
                        _ => {}
                    }
                }
                assert!(!quoted, "{text:?} does not end its quotes");
                assert_eq!(shown.canonical(), address.canonical());
                assert_eq!(Address::parse(shown.as_str()).as_ref(), Ok(&shown));
            }
        }
        assert!(parsed > 1000, "only {parsed} were addresses");
    }
}
