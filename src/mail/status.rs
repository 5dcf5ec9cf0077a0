//! Enhanced status codes (RFC 3463): `class.subject.detail`.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An enhanced status code such as `5.1.1` (RFC 3463 §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedStatus {
    /// 2 success, 4 persistent transient failure, 5 permanent failure.
    pub class: u8,
    /// What part of the system the status is about, 0 to 999.
    pub subject: u16,
    /// What precisely happened, 0 to 999.
    pub detail: u16,
}

impl EnhancedStatus {
    /// The status `class.subject.detail`, for statuses written in the code.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Self {
        Self { class, subject, detail }
    }

    /// Parses `text` when it is a status and nothing else.
    pub fn parse(text: &str) -> Option<Self> {
        match Self::parse_prefix(text) {
            Some((status, "")) => Some(status),
            _ => None,
        }
    }

    /// Parses a status at the start of `text`; what follows it is returned as it stands.
    ///
    /// The status must end at the end of the text or before something that is neither a digit,
    /// a letter nor a dot, so that `5.1.1.1` and an IP address are not taken for one.
    pub fn parse_prefix(text: &str) -> Option<(Self, &str)> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, rest) = text.split_at_checked(end)?;
        if rest.starts_with(|c: char| c.is_alphanumeric()) {
            return None;
        }
        let mut parts = number.split('.');
        let class = parts.next()?;
        let subject = short_number(parts.next()?)?;
        let detail = short_number(parts.next()?)?;
        let class = match class {
            "2" => 2,
            "4" => 4,
            "5" => 5,
            _ => return None,
        };
        parts.next().is_none().then_some((Self { class, subject, detail }, rest))
    }

    /// Whether subject and detail say nothing (`5.0.0`).
    pub fn is_generic(self) -> bool {
        self.subject == 0 && self.detail == 0
    }
}

fn short_number(text: &str) -> Option<u16> {
    if text.is_empty() || text.len() > 3 { None } else { text.parse().ok() }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl Serialize for EnhancedStatus {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for EnhancedStatus {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not an enhanced status code"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_statuses_and_nothing_else() {
        for (text, want) in [
            ("5.1.1", Some(EnhancedStatus::new(5, 1, 1))),
            ("2.0.0", Some(EnhancedStatus::new(2, 0, 0))),
            ("5.7.606", Some(EnhancedStatus::new(5, 7, 606))),
            ("3.1.1", None),
            ("5.1", None),
            ("5.1.1.1", None),
            ("5..1", None),
            ("5.1.1000", None),
            ("5.1.1 x", None),
            ("", None),
        ] {
            assert_eq!(EnhancedStatus::parse(text), want, "{text}");
        }
    }

    #[test]
    fn a_prefix_ends_where_the_word_ends() {
        let (status, rest) = EnhancedStatus::parse_prefix("5.1.1 <a@b>: no").unwrap();
        assert_eq!((status.to_string().as_str(), rest), ("5.1.1", " <a@b>: no"));
        assert_eq!(EnhancedStatus::parse_prefix("5.1.1abc"), None);
        assert_eq!(EnhancedStatus::parse_prefix("5.1.1é"), None);
    }
}
