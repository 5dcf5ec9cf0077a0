//! What an IMAP server says, taken apart (RFC 3501 §7, RFC 9051 §7): octets in, values out.
//!
//! Nothing is copied that need not be, lists nest only so deep, and what is no IMAP is an error
//! and never a panic: the server is as little trusted as the mails that it holds.

use std::borrow::Cow;

/// One complete response, without its final line ending.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Response<'a> {
    /// `+ text`: the server waits for more of a command.
    Continue(&'a [u8]),
    /// `tag OK text`: a command has ended.
    Done(&'a [u8], Outcome<'a>),
    /// `* OK text`, and NO, BAD, BYE, PREAUTH.
    Status(Outcome<'a>),
    /// `* 23 FETCH (...)`, and EXISTS, EXPUNGE, RECENT.
    Numbered(u32, &'a [u8], Vec<Value<'a>>),
    /// `* SEARCH 1 2 3`, and everything else that begins with a word.
    Data(&'a [u8], Vec<Value<'a>>),
}

/// How something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome<'a> {
    /// The word.
    pub(super) status: Status,
    /// What stands in brackets, such as `UIDVALIDITY 7`; empty without them.
    pub(super) code: &'a [u8],
    /// For people.
    pub(super) text: &'a [u8],
}

/// How something went, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// It was done.
    Ok,
    /// It was not.
    No,
    /// It was not understood.
    Bad,
    /// The server will hang up.
    Bye,
    /// Nobody needs to log in.
    Preauth,
}

/// A value in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// `NIL`
    Nil,
    /// A word or number, such as `\Seen`, `17` or `BODY[HEADER]<0>`.
    Atom(&'a [u8]),
    /// A quoted string or a literal.
    Text(Cow<'a, [u8]>),
    /// Values in parentheses.
    List(Vec<Value<'a>>),
}

/// Why a response cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Takes a response apart; literals stand in it as they were sent, `{5}`, line ending and octets.
pub(super) fn parse(octets: &[u8]) -> Result<Response<'_>, Malformed> {
    if let Some(rest) = octets.strip_prefix(b"+") {
        return Ok(Response::Continue(rest.strip_prefix(b" ").unwrap_or(rest)));
    }
    let (tag, rest) = word(octets);
    let (kind, tail) = word(rest);
    if tag.is_empty() || kind.is_empty() {
        return Err(Malformed("a line is no response"));
    }
    if let Some(status) = Status::named(kind) {
        let outcome = Outcome::new(status, tail);
        return Ok(match tag {
            b"*" => Response::Status(outcome),
            tag => Response::Done(tag, outcome),
        });
    }
    if tag != b"*" {
        return Err(Malformed("a line is no response"));
    }
    match number(kind) {
        Some(number) => {
            let (kind, tail) = word(tail);
            Ok(Response::Numbered(number, kind, values(tail)?))
        }
        None => Ok(Response::Data(kind, values(tail)?)),
    }
}

/// Whether the octets so far may go on in a literal: lines for people never do.
pub(super) fn may_hold_literals(octets: &[u8]) -> bool {
    let Some(rest) = octets.strip_prefix(b"* ") else { return false };
    Status::named(word(rest).0).is_none()
}

/// The length that a line announces at its end with `{5}`, its line ending taken off.
pub(super) fn literal_len(line: &[u8]) -> Option<u64> {
    let line = line.strip_suffix(b"}")?;
    let open = line.iter().rposition(|octet| *octet == b'{')?;
    let digits = line.get(open.saturating_add(1)..)?;
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    // A number that is too large for us is a literal all the same.
    is_number.then(|| std::str::from_utf8(digits).ok()?.parse().ok().or(Some(u64::MAX))).flatten()
}

/// A number of at most 32 bits.
pub(super) fn number(octets: &[u8]) -> Option<u32> {
    std::str::from_utf8(octets).ok().filter(|text| !text.starts_with('+'))?.parse().ok()
}

/// A text for people: of a log line or a status.
pub(super) fn for_people(octets: &[u8]) -> String {
    let head = octets.get(..TEXT_BYTES_MAX).unwrap_or(octets);
    crate::mail::header::sanitized(&String::from_utf8_lossy(head))
}

impl Status {
    fn named(word: &[u8]) -> Option<Self> {
        let names = [
            ("OK", Self::Ok),
            ("NO", Self::No),
            ("BAD", Self::Bad),
            ("BYE", Self::Bye),
            ("PREAUTH", Self::Preauth),
        ];
        let found = names.iter().find(|(name, _)| word.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, status)| *status)
    }
}

impl<'a> Outcome<'a> {
    fn new(status: Status, text: &'a [u8]) -> Self {
        let in_brackets = text.strip_prefix(b"[").and_then(|rest| {
            let end = rest.iter().position(|octet| *octet == b']')?;
            Some((rest.get(..end)?, rest.get(end.saturating_add(1)..)?))
        });
        let (code, text) = in_brackets.unwrap_or((&[], text));
        Self { status, code, text: text.trim_ascii() }
    }

    /// Whether the code is this one, whatever stands behind it.
    pub(super) fn has_code(&self, name: &str) -> bool {
        word(self.code).0.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The number behind the name of a code.
    pub(super) fn code_number(&self, name: &str) -> Option<u64> {
        let (found, value) = word(self.code);
        let text = std::str::from_utf8(value.trim_ascii()).ok()?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| text.parse().ok()).flatten()
    }
}

impl<'a> Value<'a> {
    /// Words and texts as octets.
    pub(super) fn octets(&self) -> Option<&[u8]> {
        match self {
            Self::Atom(octets) => Some(octets),
            Self::Text(octets) => Some(octets),
            Self::Nil | Self::List(_) => None,
        }
    }

    /// A number.
    pub(super) fn number(&self) -> Option<u64> {
        let Self::Atom(octets) = self else { return None };
        std::str::from_utf8(octets).ok()?.parse().ok()
    }

    /// What stands in parentheses; nothing for anything else.
    pub(super) fn list(&self) -> &[Value<'a>] {
        match self {
            Self::List(values) => values,
            _ => &[],
        }
    }
}

/// The value behind a name in a list of names and values, such as `UID` in that of FETCH; a name
/// may end in `<0>`, which is passed over.
pub(super) fn item<'v, 'a>(items: &'v [Value<'a>], name: &str) -> Option<&'v Value<'a>> {
    let is_it = |value: &Value<'_>| {
        let Value::Atom(octets) = value else { return false };
        let end = octets.iter().position(|octet| *octet == b'<').unwrap_or(octets.len());
        octets.get(..end).is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    };
    items.chunks_exact(2).find_map(|pair| match pair {
        [found, value] if is_it(found) => Some(value),
        _ => None,
    })
}

/// The types of all parts in a BODYSTRUCTURE, as `type/subtype`; what is attached as a mail is a
/// part itself, and what is inside of it is not looked at.
pub(super) fn part_kinds(structure: &Value<'_>) -> Vec<String> {
    let mut kinds = Vec::new();
    let mut waiting = vec![structure];
    while let Some(part) = waiting.pop() {
        match part.list() {
            // A multipart begins with its parts (RFC 3501 §7.4.2).
            [Value::List(_), ..] => {
                let is_part = |value: &&Value<'_>| matches!(value, Value::List(_));
                waiting.extend(part.list().iter().take_while(is_part));
            }
            [kind, subtype, ..] => {
                let text = |value: &Value<'_>| {
                    value.octets().map(|octets| String::from_utf8_lossy(octets).to_lowercase())
                };
                if let (Some(kind), Some(subtype)) = (text(kind), text(subtype)) {
                    kinds.push(format!("{kind}/{subtype}"));
                }
            }
            _ => {}
        }
        if kinds.len() >= PARTS_MAX {
            break;
        }
    }
    kinds
}

/// The values up to the end.
fn values(octets: &[u8]) -> Result<Vec<Value<'_>>, Malformed> {
    let mut rest = octets;
    let mut open: Vec<Vec<Value<'_>>> = Vec::new();
    let mut current: Vec<Value<'_>> = Vec::new();
    while let Some((first, tail)) = rest.split_first() {
        match first {
            b' ' => rest = tail,
            b'(' if open.len() >= DEPTH_MAX => return Err(Malformed("lists are nested too deep")),
            b'(' => {
                open.push(std::mem::take(&mut current));
                rest = tail;
            }
            b')' => {
                let outer = open.pop().ok_or(Malformed("a list ends that was not begun"))?;
                let list = std::mem::replace(&mut current, outer);
                current.push(Value::List(list));
                rest = tail;
            }
            b'"' => {
                let (text, after) = quoted(tail)?;
                current.push(Value::Text(text));
                rest = after;
            }
            b'{' => {
                let (text, after) = literal(rest)?;
                current.push(Value::Text(Cow::Borrowed(text)));
                rest = after;
            }
            _ => {
                let (atom, after) = atom(rest)?;
                let is_nil = atom.eq_ignore_ascii_case(b"NIL");
                current.push(if is_nil { Value::Nil } else { Value::Atom(atom) });
                rest = after;
            }
        }
    }
    if open.is_empty() { Ok(current) } else { Err(Malformed("a list does not end")) }
}

/// A word up to the next space, and what is behind that.
fn word(octets: &[u8]) -> (&[u8], &[u8]) {
    let end = octets.iter().position(|octet| *octet == b' ').unwrap_or(octets.len());
    let (word, rest) = octets.split_at_checked(end).unwrap_or((octets, &[]));
    (word, rest.strip_prefix(b" ").unwrap_or(rest))
}

/// A quoted string, its opening quote taken off.
fn quoted(octets: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Malformed> {
    let mut text: Option<Vec<u8>> = None;
    let mut at: usize = 0;
    loop {
        let octet = octets.get(at).ok_or(Malformed("a quoted string does not end"))?;
        let so_far = || octets.get(..at).unwrap_or_default().to_vec();
        match octet {
            b'"' => {
                let rest = octets.get(at.saturating_add(1)..).unwrap_or_default();
                let text = text.map(Cow::Owned);
                let plain = || Cow::Borrowed(octets.get(..at).unwrap_or_default());
                return Ok((text.unwrap_or_else(plain), rest));
            }
            b'\r' | b'\n' => return Err(Malformed("a quoted string does not end")),
            b'\\' => {
                let mut unescaped = text.take().unwrap_or_else(so_far);
                at = at.saturating_add(1);
                unescaped.extend(octets.get(at));
                text = Some(unescaped);
            }
            other => {
                if let Some(text) = &mut text {
                    text.push(*other);
                }
            }
        }
        at = at.saturating_add(1);
    }
}

/// A literal with its length in front.
fn literal(octets: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let wrong = Malformed("a literal does not fit its length");
    let line_end = octets.iter().position(|octet| *octet == b'\n').ok_or(wrong)?;
    let (line, rest) = octets.split_at_checked(line_end).ok_or(wrong)?;
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let len = literal_len(line).filter(|_| line.iter().filter(|o| **o == b'{').count() == 1);
    let len = len.and_then(|len| usize::try_from(len).ok()).ok_or(wrong)?;
    rest.get(1..).and_then(|rest| rest.split_at_checked(len)).ok_or(wrong)
}

/// A word of a list; what stands in brackets belongs to it, as in `BODY[HEADER.FIELDS (TO)]`.
fn atom(octets: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let mut at: usize = 0;
    while let Some(octet) = octets.get(at) {
        match octet {
            b' ' | b'(' | b')' | b'"' => break,
            b'\r' | b'\n' | 0 => return Err(Malformed("a control character stands in a word")),
            b'[' => {
                let rest = octets.get(at..).unwrap_or_default();
                let line = rest.split(|octet| matches!(octet, b'\r' | b'\n')).next();
                let end = line.and_then(|line| line.iter().position(|octet| *octet == b']'));
                at = at.saturating_add(end.unwrap_or(0)).saturating_add(1);
            }
            _ => at = at.saturating_add(1),
        }
    }
    match octets.split_at_checked(at) {
        Some((atom, rest)) if !atom.is_empty() => Ok((atom, rest)),
        _ => Err(Malformed("a word is empty")),
    }
}

/// Lists inside lists; a mail whose parts nest deeper is read without its structure.
const DEPTH_MAX: usize = 64;
/// Parts of one mail whose types are looked at.
const PARTS_MAX: usize = 1000;
/// Octets of a server's words that are repeated.
const TEXT_BYTES_MAX: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    fn atom(text: &str) -> Value<'_> {
        Value::Atom(text.as_bytes())
    }

    fn text(text: &str) -> Value<'_> {
        Value::Text(Cow::Borrowed(text.as_bytes()))
    }

    #[test]
    fn every_kind_of_response_is_taken_apart() {
        let outcome = |status, code: &'static str, text: &'static str| Outcome {
            status,
            code: code.as_bytes(),
            text: text.as_bytes(),
        };
        for (line, want) in [
            ("+ go on", Response::Continue(b"go on")),
            ("+", Response::Continue(b"")),
            ("A1 OK done", Response::Done(b"A1", outcome(Status::Ok, "", "done"))),
            ("A1 no", Response::Done(b"A1", outcome(Status::No, "", ""))),
            (
                "* OK [UIDVALIDITY 7] valid",
                Response::Status(outcome(Status::Ok, "UIDVALIDITY 7", "valid")),
            ),
            ("* BYE [x", Response::Status(outcome(Status::Bye, "", "[x"))),
            ("* 23 EXISTS", Response::Numbered(23, b"EXISTS", vec![])),
            ("* SEARCH 1 2", Response::Data(b"SEARCH", vec![atom("1"), atom("2")])),
            ("* SEARCH", Response::Data(b"SEARCH", vec![])),
            (
                "* 1 FETCH (UID 5 BODY[HEADER.FIELDS (TO CC)]<0> {4}\r\na\r\n) FLAGS (\\Seen $[x))",
                Response::Numbered(
                    1,
                    b"FETCH",
                    vec![Value::List(vec![
                        atom("UID"),
                        atom("5"),
                        atom("BODY[HEADER.FIELDS (TO CC)]<0>"),
                        text("a\r\n)"),
                        atom("FLAGS"),
                        Value::List(vec![atom("\\Seen"), atom("$[x")]),
                    ])],
                ),
            ),
            (
                r#"* LIST (\Noselect) "/" "a \"b\" \\ c""#,
                Response::Data(
                    b"LIST",
                    vec![Value::List(vec![atom("\\Noselect")]), text("/"), text(r#"a "b" \ c"#)],
                ),
            ),
            ("* LIST () nil INBOX", {
                Response::Data(b"LIST", vec![Value::List(vec![]), Value::Nil, atom("INBOX")])
            }),
        ] {
            assert_eq!(parse(line.as_bytes()), Ok(want), "{line}");
        }
    }

    #[test]
    fn what_is_no_imap_is_an_error_and_never_more() {
        for line in [
            "",
            "*",
            "A1",
            "hello world",
            "* 1 FETCH (UID 5",
            "* 1 FETCH UID 5)",
            "* 1 FETCH (\"a",
            "* 1 FETCH ({5}\r\nabc)",
            "* 1 FETCH ({99999999999999999999}\r\nabc)",
            "* 1 FETCH ({x}\r\nabc)",
            "* 1 FETCH (a\rb)",
        ] {
            assert!(parse(line.as_bytes()).is_err(), "{line}");
        }
        let deep = format!("* 1 FETCH {}{}", "(".repeat(DEPTH_MAX), ")".repeat(DEPTH_MAX));
        assert!(parse(deep.as_bytes()).is_ok());
        let endless = format!("* 1 FETCH {}", "(".repeat(1_000_000));
        assert_eq!(parse(endless.as_bytes()), Err(Malformed("lists are nested too deep")));
        // Every cut of a good response is an error or another response, without a panic.
        let good = b"* 1 FETCH (UID 5 BODY[] {3}\r\nabc X \"a\\\"b\" (NIL))".as_slice();
        for end in 0..good.len() {
            drop(parse(&good[..end]));
            drop(parse(&good[end..]));
        }
    }

    #[test]
    fn a_literal_is_announced_at_the_end_of_a_line_of_data() {
        for (line, want) in [
            ("* 1 FETCH (BODY[] {12}", Some(12)),
            ("{0}", Some(0)),
            ("{99999999999999999999999}", Some(u64::MAX)),
            ("{}", None),
            ("{-1}", None),
            ("{12", None),
            ("12}", None),
            ("{1a}", None),
        ] {
            assert_eq!(literal_len(line.as_bytes()), want, "{line}");
        }
        for (line, want) in [
            ("* 1 FETCH (", true),
            ("* LIST () ", true),
            ("* OK see {5}", false),
            ("* bye {5}", false),
            ("+ {5}", false),
            ("A1 OK {5}", false),
        ] {
            assert_eq!(may_hold_literals(line.as_bytes()), want, "{line}");
        }
    }

    #[test]
    fn numbers_and_items_are_found_by_name() {
        let Ok(Response::Status(ok)) = parse(b"* OK [HIGHESTMODSEQ 715194045007] x") else {
            panic!()
        };
        assert_eq!(ok.code_number("highestmodseq"), Some(715_194_045_007));
        assert_eq!(ok.code_number("UIDNEXT"), None);
        assert!(ok.has_code("HIGHESTMODSEQ") && !ok.has_code("HIGHEST"));
        let Ok(Response::Numbered(_, _, values)) = parse(b"* 1 FETCH (BODY[]<0> \"x\" uid 7)")
        else {
            panic!()
        };
        let items = values[0].list();
        assert_eq!(item(items, "UID").and_then(Value::number), Some(7));
        assert_eq!(item(items, "BODY[]"), Some(&text("x")));
        assert_eq!(item(items, "RFC822.SIZE"), None);
    }

    #[test]
    fn the_parts_of_a_mail_are_named_and_those_of_attached_mails_are_not() {
        let structure = r#"* 1 FETCH (BODYSTRUCTURE (("TEXT" "PLAIN" NIL NIL NIL "7BIT" 1 1)
            ("message" "delivery-status" NIL NIL NIL "7BIT" 1)
            ("MESSAGE" "RFC822" NIL NIL NIL "7BIT" 9 ("d" "s" NIL NIL NIL NIL NIL NIL NIL NIL)
            ("text" "html" NIL NIL NIL "7BIT" 1 1) 1) "REPORT" ("boundary" "x")))"#;
        let structure = structure.replace("\n            ", "");
        let Ok(Response::Numbered(_, _, values)) = parse(structure.as_bytes()) else { panic!() };
        let mut kinds = part_kinds(item(values[0].list(), "BODYSTRUCTURE").unwrap());
        kinds.sort();
        assert_eq!(kinds, ["message/delivery-status", "message/rfc822", "text/plain"]);
        assert!(part_kinds(&Value::Nil).is_empty());
    }
}
