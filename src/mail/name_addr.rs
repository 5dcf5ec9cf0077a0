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
}
