//! An SMTP reply: three digits, an enhanced status, a text (RFC 5321 §4.2, RFC 2034).

use std::fmt;

use serde::{Deserialize, Serialize};

use super::status::EnhancedStatus;

/// What an SMTP server answered to one command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The three digits, 200 to 599.
    pub code: u16,
    /// The enhanced status, where the server gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<EnhancedStatus>,
    /// The text without code and enhanced status, lines joined by `\n`.
    pub text: String,
}

impl Reply {
    /// A reply that carries an enhanced status.
    pub fn new(code: u16, status: EnhancedStatus, text: impl Into<String>) -> Self {
        Self { code, status: Some(status), text: text.into() }
    }

    /// Reads `550 5.1.1 no such user` and multi-line replies, as a server writes them.
    ///
    /// Lines may end in LF or CRLF. The code and an equal enhanced status are taken off every
    /// line. `None` when the text does not start with a code from 200 to 599.
    pub fn parse(text: &str) -> Option<Self> {
        let mut code = None;
        let mut status = None;
        let mut lines = Vec::new();
        for line in text.lines() {
            let (line_code, rest) = split_code(line).map_or((None, line), |(c, r)| (Some(c), r));
            code = match (code, line_code) {
                (None, None) => return None,
                (None, found) => found,
                (known, _) => known,
            };
            let rest = if line_code == code { rest } else { line };
            lines.push(match EnhancedStatus::parse_prefix(rest.trim_start()) {
                Some((found, tail)) if status.is_none() || status == Some(found) => {
                    status = Some(found);
                    tail.trim_start()
                }
                _ => rest,
            });
        }
        code.map(|code| Self { code, status, text: lines.join("\n").trim_end().to_owned() })
    }

    /// 2yz: the command was done.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 4yz: it may be tried again (RFC 5321 §4.2.1).
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5yz: it must not be tried again unchanged (RFC 5321 §4.2.1).
    pub fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// The enhanced status, or `class.0.0` of the code where the server gave none.
    pub fn status_or_class(&self) -> EnhancedStatus {
        self.status.unwrap_or_else(|| {
            let class = match self.code {
                200..=399 => 2,
                400..=499 => 4,
                _ => 5,
            };
            EnhancedStatus::new(class, 0, 0)
        })
    }
}

/// The reply on one line: `550 5.1.1 no such user`; the form of `response.message`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        for line in self.text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

/// `550-rest`, `550 rest` or `550` alone.
fn split_code(line: &str) -> Option<(u16, &str)> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let code = digits.parse().ok().filter(|code| (200..600).contains(code))?;
    let rest = match rest.strip_prefix([' ', '-']) {
        Some(rest) => rest,
        None if rest.is_empty() => rest,
        None => return None,
    };
    Some((code, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_replies_as_servers_write_them() {
        for (text, code, status, rest) in [
            ("550 5.1.1 no such user", 550, Some("5.1.1"), "no such user"),
            ("550 No such user here", 550, None, "No such user here"),
            ("550-5.7.1 blocked\r\n550 5.7.1 see url", 550, Some("5.7.1"), "blocked\nsee url"),
            ("450", 450, None, ""),
            ("421 4.7.0 try later", 421, Some("4.7.0"), "try later"),
            ("554-one\n554 two", 554, None, "one\ntwo"),
        ] {
            let reply = Reply::parse(text).unwrap();
            assert_eq!(reply.code, code, "{text}");
            assert_eq!(reply.status.map(|s| s.to_string()).as_deref(), status, "{text}");
            assert_eq!(reply.text, rest, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_no_reply() {
        for text in ["", "hello", "5501 x", "199 x", "600 x", "é50 x"] {
            assert_eq!(Reply::parse(text), None, "{text}");
        }
    }

    #[test]
    fn shows_on_one_line() {
        let reply = Reply::parse("550-5.7.1 blocked\r\n550 5.7.1 see url").unwrap();
        assert_eq!(reply.to_string(), "550 5.7.1 blocked see url");
    }
}
