//! Aliases: the Message-ID that a next hop gave a mail instead of its own, read from its 250.
//!
//! Rules are rows of a file, whose head says how it is written. What they make of a reply is only
//! a name to find the mail by; a report under that name still has to name one of its recipients.

use std::fmt;

use super::rules::RulesError;
use crate::mail::MessageId;

/// The rows of a file of alias rules, ready to be matched.
#[derive(Debug)]
pub struct AliasRules {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    id: String,
    line: usize,
    host: Option<Pattern>,
    replies: Vec<(Pattern, Vec<Piece>)>,
}

/// A text with places that are open.
#[derive(Debug)]
struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// This, in either case.
    Text(String),
    /// `{name}`
    Name(String),
    /// `*`
    Anything,
}

/// What stood in the places of a text that have names.
type Found<'a> = Vec<(&'a str, &'a str)>;

impl AliasRules {
    /// The rules that are compiled in.
    pub fn compiled_in() -> Self {
        Self::parse(COMPILED_IN).unwrap_or_else(|_error| Self { rows: Vec::new() })
    }

    /// Reads a file of alias rules.
    ///
    /// # Errors
    /// With the line of the first row or pattern that is wrong.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let mut rows: Vec<Row> = Vec::new();
        for (number, line) in (1_usize..).zip(text.lines()) {
            let fail = |problem: String| RulesError { line: number, problem };
            let trimmed = line.trim();
            if trimmed.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                let row = rows.last_mut();
                let row =
                    row.ok_or_else(|| fail("a pattern stands before the first row".into()))?;
                row.add(trimmed).map_err(fail)?;
            } else {
                rows.push(Row::parse(trimmed, number).map_err(fail)?);
            }
        }
        match rows.iter().find(|row| row.replies.is_empty()) {
            Some(Row { id, line, .. }) => {
                let problem = format!("row `{id}` has no pattern");
                Err(RulesError { line: *line, problem })
            }
            None => Ok(Self { rows }),
        }
    }

    /// The Message-ID under which a mail goes on from the next hop `host`, which answered the
    /// final dot with `reply`, the text without code and enhanced status.
    pub fn alias(&self, host: &str, reply: &str) -> Option<MessageId> {
        let mut words = String::new();
        for word in reply.split_whitespace() {
            if words.len().saturating_add(word.len()) >= TEXT_BYTES_MAX {
                return None;
            }
            words.push_str(if words.is_empty() { "" } else { " " });
            words.push_str(word);
        }
        self.rows.iter().find_map(|row| row.alias(host, &words))
    }
}

impl Row {
    /// `id  [host=PATTERN]`
    fn parse(text: &str, line: usize) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let id = words.next().unwrap_or_default().to_owned();
        let mut host = None;
        for condition in words {
            let Some(pattern) = condition.strip_prefix("host=") else {
                return Err(format!("`{condition}` is no condition; expected `host=...`"));
            };
            host = Some(Pattern::parse(pattern)?);
        }
        Ok(Self { id, line, host, replies: Vec::new() })
    }

    /// `REPLY PATTERN -> MESSAGE-ID`
    fn add(&mut self, text: &str) -> Result<(), String> {
        let Some((pattern, alias)) = text.rsplit_once("->") else {
            return Err(format!("`{text}` has no `->` with the Message-ID behind it"));
        };
        let pattern = Pattern::parse(pattern.trim())?;
        let alias = pieces(alias.trim())?;
        for piece in &alias {
            let is_known = match piece {
                Piece::Text(_) => true,
                Piece::Name(_) => self.host.iter().chain([&pattern]).any(|p| p.0.contains(piece)),
                Piece::Anything => return Err("a Message-ID cannot have a `*`".to_owned()),
            };
            if !is_known {
                return Err(format!("no pattern has the `{piece}` of the Message-ID"));
            }
        }
        self.replies.push((pattern, alias));
        Ok(())
    }

    fn alias(&self, host: &str, reply: &str) -> Option<MessageId> {
        let of_host = match &self.host {
            Some(pattern) => pattern.find(host)?,
            None => Found::new(),
        };
        self.replies.iter().find_map(|(pattern, alias)| {
            let found = [of_host.clone(), pattern.find(reply)?].concat();
            let text: String = alias.iter().map(|piece| piece.filled(&found)).collect();
            MessageId::parse(&text)
        })
    }
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, String> {
        let pieces = pieces(text)?;
        if pieces.is_empty() {
            return Err("the pattern is empty".to_owned());
        }
        let is_open = |piece: &Piece| !matches!(piece, Piece::Text(_));
        let mut pairs = pieces.iter().zip(pieces.iter().skip(1));
        if let Some((left, right)) = pairs.find(|(left, right)| is_open(left) && is_open(right)) {
            return Err(format!("nothing tells where `{left}` ends and `{right}` begins"));
        }
        Ok(Self(pieces))
    }

    /// What stands in the named places of `text`, where the pattern fits all of it.
    fn find<'a>(&'a self, text: &'a str) -> Option<Found<'a>> {
        let mut found = Found::new();
        let mut rest = text;
        let mut pieces = self.0.iter().peekable();
        while let Some(piece) = pieces.next() {
            if let Piece::Text(wanted) = piece {
                rest = after(rest, wanted)?;
                continue;
            }
            // What is open reaches to the next text, or to the end.
            let end = match pieces.peek() {
                Some(Piece::Text(next)) => position(rest, next)?,
                _ => rest.len(),
            };
            let (value, tail) = rest.split_at_checked(end)?;
            if let Piece::Name(name) = piece {
                let is_inside = |c: char| !c.is_whitespace() && !c.is_control() && c != '<';
                if value.is_empty() || value.contains('>') || !value.chars().all(is_inside) {
                    return None;
                }
                found.push((name, value));
            }
            rest = tail;
        }
        rest.is_empty().then_some(found)
    }
}

impl Piece {
    fn filled<'a>(&'a self, found: &Found<'a>) -> &'a str {
        match self {
            Self::Text(text) => text,
            Self::Name(name) => {
                found.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
            }
            Self::Anything => "",
        }
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Name(name) => write!(f, "{{{name}}}"),
            Self::Anything => f.write_str("*"),
        }
    }
}

/// Takes a pattern or a Message-ID apart.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '*']) {
        let (plain, open) = rest.split_at_checked(at).unwrap_or((rest, ""));
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        if let Some(tail) = open.strip_prefix('*') {
            pieces.push(Piece::Anything);
            rest = tail;
            continue;
        }
        let name = open.strip_prefix('{').and_then(|open| open.split_once('}'));
        let Some((name, tail)) = name.filter(|(name, _)| is_name(name)) else {
            return Err(format!("`{open}` does not begin with a `{{name}}` in small letters"));
        };
        pieces.push(Piece::Name(name.to_owned()));
        rest = tail;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest.to_owned()));
    }
    Ok(pieces)
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|octet| octet.is_ascii_lowercase())
}

/// What follows `prefix`, in either case.
fn after<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Where `wanted` stands first, in either case.
fn position(text: &str, wanted: &str) -> Option<usize> {
    text.char_indices()
        .map(|(at, _)| at)
        .find(|at| text.get(*at..).is_some_and(|rest| after(rest, wanted).is_some()))
}

/// Octets of a reply that are looked at; longer ones name no id.
const TEXT_BYTES_MAX: usize = 1_024;

/// The rules that come with this program.
const COMPILED_IN: &str = include_str!("aliases.txt");

#[cfg(test)]
mod tests {
    use super::*;

    const SES: &str = "email-smtp.eu-west-1.amazonaws.com";
    const SES_ID: &str = "0102017f0a1b2c3d-4e5f6a7b-0000-4444-8888-0123456789ab-000000";

    #[test]
    fn known_next_hops_tell_the_message_id_they_gave() {
        let rules = AliasRules::parse(COMPILED_IN).unwrap();
        let ses = format!("Ok {SES_ID}");
        let europe = format!("{SES_ID}@eu-west-1.amazonses.com");
        let virginia = format!("{SES_ID}@email.amazonses.com");
        let outlook = "AM0PR01@AM0PR01.EURPRD01.PROD.OUTLOOK.COM";
        for (host, reply, want) in [
            (SES, ses.clone(), Some(europe.as_str())),
            (
                SES,
                ses.to_uppercase(),
                Some(&*format!("{}@eu-west-1.amazonses.com", SES_ID.to_uppercase())),
            ),
            (
                "EMAIL-SMTP.EU-WEST-1.amazonaws.com",
                ses.clone(),
                Some(&*europe.replace("eu-west-1", "EU-WEST-1")),
            ),
            ("email-smtp.us-east-1.amazonaws.com", ses.clone(), Some(&virginia)),
            ("email-smtp-fips.us-east-1.amazonaws.com", ses.clone(), Some(&virginia)),
            ("email-smtp.evil.example", ses.clone(), None),
            ("x.email-smtp.eu-west-1.amazonaws.com", ses.clone(), None),
            ("email-smtp.eu-west-1.amazonaws.com.evil.example", ses.clone(), None),
            ("mx.example.com", ses.clone(), None),
            (SES, "Ok".to_owned(), None),
            (SES, format!("Ok {SES_ID} and more"), None),
            (SES, "Ok <0102>".to_owned(), None),
            (
                "smtp.office365.com",
                format!("OK <{outlook}> [Hostname=AM0PR01.eurprd01.prod.outlook.com]"),
                Some(outlook),
            ),
            (
                "smtp-mail.outlook.com",
                "OK <A@B.PROD.outlook.com>".to_owned(),
                Some("A@B.PROD.outlook.com"),
            ),
            (
                "mx",
                format!(
                    "<{outlook}> [InternalId=12, Hostname=A.prod.outlook.com] 8123 bytes in 0.2, 39 KB/sec Queued mail for delivery"
                ),
                Some(outlook),
            ),
            ("mx", format!("<{outlook}>\n Queued mail for delivery"), Some(outlook)),
            ("mx", "<no-at-sign> Queued mail for delivery".to_owned(), None),
            ("mx", "OK: queued as <1.2@relay.example>".to_owned(), Some("1.2@relay.example")),
            ("mx", "Ok: queued as 4MnF2v1hZ9z9s".to_owned(), None),
            ("mx", "Ok: queued as 06h0 <m@app.example>".to_owned(), None),
            ("mx", String::new(), None),
        ] {
            let alias = rules.alias(host, &reply);
            assert_eq!(alias.as_ref().map(MessageId::as_str), want, "{host} {reply}");
        }
        assert_eq!(rules.alias("mx", &format!("queued as <{}@b>", "x".repeat(2_000))), None);
    }

    #[test]
    fn the_first_pattern_that_fits_decides() {
        let rules = AliasRules::parse(
            "# rows\nfirst  host=*.example\n  took {id} -> {id}@first\n\nsecond\n\ttook {id} as {other} -> {other}@{id}\n\ttook {id} -> {id}@second\n",
        )
        .unwrap();
        for (host, reply, want) in [
            ("mx.example", "took 1", Some("1@first")),
            ("mx.example", "took 1 as 2", Some("2@1")),
            ("mx.test", "TOOK 1", Some("1@second")),
            ("mx.test", "took", None),
            ("mx.test", "it took 1", None),
            ("mx.test", "took 1\u{e9}", Some("1\u{e9}@second")),
        ] {
            let alias = rules.alias(host, reply);
            assert_eq!(alias.as_ref().map(MessageId::as_str), want, "{host} {reply}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_line() {
        for (text, line, problem) in [
            ("  took {id} -> {id}\n", 1, "a pattern stands before the first row"),
            ("a\n\nb\n  x{id} -> {id}\n", 1, "row `a` has no pattern"),
            ("a  port=25\n", 1, "`port=25` is no condition; expected `host=...`"),
            ("a\n  took {id}\n", 2, "`took {id}` has no `->` with the Message-ID behind it"),
            ("a\n  took {id} -> {other}@x\n", 2, "no pattern has the `{other}` of the Message-ID"),
            ("a\n  took {id} -> {id}@*\n", 2, "a Message-ID cannot have a `*`"),
            ("a\n  took {id}{x} -> {id}\n", 2, "nothing tells where `{id}` ends and `{x}` begins"),
            ("a  host=*{x}\n", 1, "nothing tells where `*` ends and `{x}` begins"),
            ("a\n  took {id -> {id}\n", 2, "`{id` does not begin with a `{name}` in small letters"),
            ("a\n  -> x@y\n", 2, "the pattern is empty"),
        ] {
            let error = AliasRules::parse(text).unwrap_err();
            assert_eq!((error.line, error.problem.as_str()), (line, problem), "{text}");
        }
    }
}
