//! A mailbox as a person writes it: `Name <address>`, or the address alone (RFC 5322 §3.4).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::Address;

/// An address with the name of whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct NameAddr {
    /// The name, without quotes; no control character is in it.
    pub name: Option<String>,
    /// The address.
    pub address: Address,
}

impl NameAddr {
    /// Reads `Name <address>`, `"Name" <address>` or `address`.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let Some((name, rest)) = text.rsplit_once('<') else {
            return Some(Self { name: None, address: Address::parse(text).ok()? });
        };
        let address = Address::parse(rest.strip_suffix('>')?.trim()).ok()?;
        let name = name.trim();
        let quoted = name.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
        Self::new(quoted.unwrap_or(name), address)
    }

    /// An address with a name, which may be empty; `None` for a name that could break a line.
    pub fn new(name: &str, address: Address) -> Option<Self> {
        let is_clean = !name.chars().any(|c| c.is_control() || "\u{2028}\u{2029}".contains(c));
        let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
        is_clean.then_some(Self { name, address })
    }

    /// Whether the name is a few plain words, which need neither quotes nor coding (RFC 5322 §3.2.5).
    pub fn is_plain(&self) -> bool {
        let is_word = |word: &str| {
            !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-'_".contains(c))
        };
        let is_plain =
            |name: &String| name.len() <= PLAIN_BYTES_MAX && name.split(' ').all(is_word);
        self.name.as_ref().is_some_and(is_plain)
    }
}

impl From<Address> for NameAddr {
    fn from(address: Address) -> Self {
        Self { name: None, address }
    }
}

impl fmt::Display for NameAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} <{}>", self.address),
            None => self.address.fmt(f),
        }
    }
}

impl TryFrom<String> for NameAddr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("`{text}` is not of the form `Name <address>`"))
    }
}

impl From<NameAddr> for String {
    fn from(whole: NameAddr) -> Self {
        whole.to_string()
    }
}

/// Octets of a name that is written as it is.
const PLAIN_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_a_name_and_an_address_or_an_address() {
        for (text, want) in [
            ("Andris Ekiri <andris@ekiri.ee>", Some((Some("Andris Ekiri"), "andris@ekiri.ee"))),
            ("\"Ekiri, Andris\" <a@b>", Some((Some("Ekiri, Andris"), "a@b"))),
            (" a@b ", Some((None, "a@b"))),
            ("<a@b>", Some((None, "a@b"))),
            ("Jörg <jörg@müller.example>", Some((Some("Jörg"), "jörg@müller.example"))),
            ("Andris", None),
            ("Andris <a@b", None),
            ("Andris <a@b> x", None),
            ("And\r\nris <a@b>", None),
            ("", None),
        ] {
            let got = NameAddr::parse(text);
            let got = got.as_ref().map(|one| (one.name.as_deref(), one.address.as_str()));
            assert_eq!(got, want, "{text}");
        }
        let whole = NameAddr::parse("Andris <a@b>").unwrap();
        assert_eq!(NameAddr::try_from(String::from(whole.clone())), Ok(whole));
    }

    #[test]
    fn a_name_of_plain_words_needs_no_quotes() {
        let long = "x".repeat(65);
        for (name, want) in [
            ("Andris Ekiri", true),
            ("Anne-Marie O'Neil", true),
            ("", false),
            ("two  blanks", false),
            ("Ekiri, Andris", false),
            ("J. Doe", false),
            ("=?utf-8?q?x?=", false),
            ("J\u{fc}rgen", false),
            (&long, false),
        ] {
            let address = Address::parse("a@b.test").unwrap();
            assert_eq!(NameAddr::new(name, address).unwrap().is_plain(), want, "{name}");
        }
    }
}
