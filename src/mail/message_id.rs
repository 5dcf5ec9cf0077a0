//! Message-IDs (RFC 5322 §3.6.4): canonical without `<>`, shown with them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The longest id that is taken over; longer ones are replaced like invalid ones.
pub const MESSAGE_ID_BYTES_MAX: usize = 900;

/// A Message-ID, held without its angle brackets and otherwise exactly as it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MessageId(String);

impl MessageId {
    /// Reads an id from the body of a `Message-ID` field, a URL, or a report.
    ///
    /// Accepts it with or without `<>`, with white space around it, and in the shapes that real
    /// systems make though RFC 5322 does not (no `@`, odd characters). Refuses white space,
    /// control characters and angle brackets inside, the empty id, and ids that are too long.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t', '\r', '\n']);
        let inner = match text.strip_prefix('<') {
            Some(rest) => rest.strip_suffix('>')?,
            None => text,
        };
        let clean = |c: char| !c.is_whitespace() && !c.is_control() && c != '<' && c != '>';
        (!inner.is_empty() && inner.len() <= MESSAGE_ID_BYTES_MAX && inner.chars().all(clean))
            .then(|| Self(inner.to_owned()))
    }

    /// Whether `field_body` is an id that a stamp leaves alone: one id in angle brackets with
    /// an `@` inside (RFC 5322 §3.6.4).
    pub fn is_valid_field(field_body: &str) -> bool {
        let text = field_body.trim_matches([' ', '\t', '\r', '\n']);
        text.starts_with('<')
            && Self::parse(text).is_some_and(|id| {
                id.0.split_once('@')
                    .is_some_and(|(left, right)| !left.is_empty() && !right.is_empty())
            })
    }

    /// A new id `<queue id>.<random>@domain`; `random` makes it unguessable.
    pub fn generate(queue_id: super::QueueId, random: u64, domain: &str) -> Self {
        Self(format!("{queue_id}.{random:016x}@{domain}"))
    }

    /// The id without angle brackets.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<{}>", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ids_with_and_without_brackets() {
        for (text, want) in [
            ("<a@b>", Some("a@b")),
            ("a@b", Some("a@b")),
            (" \r\n <a@b>\r\n", Some("a@b")),
            ("<no-at-sign>", Some("no-at-sign")),
            ("<a b@c>", None),
            ("<a@b", None),
            ("<>", None),
            ("", None),
            ("<a@b><c@d>", None),
            ("a\u{0}@b", None),
        ] {
            assert_eq!(MessageId::parse(text).as_ref().map(MessageId::as_str), want, "{text}");
        }
        assert_eq!(MessageId::parse(&"x".repeat(901)), None);
    }

    #[test]
    fn a_field_is_valid_only_with_brackets_and_both_sides() {
        for (text, want) in
            [("<a@b>", true), ("a@b", false), ("<@b>", false), ("<a@>", false), ("<ab>", false)]
        {
            assert_eq!(MessageId::is_valid_field(text), want, "{text}");
        }
    }
}
