//! The command grammar (RFC 5321 §4.1), as samotop's `Parser` wants it.
//!
//! A command is framed by CRLF and nothing else. It is read as a whole, then understood.

use samotop_core::smtp::{ParseError, ParseResult, Parser, SmtpContext};

use super::reply::{
    AUTH_LINE_TOO_LONG, AUTH_SYNTAX, BAD_OCTET, Canned, HELLO_NAME, LINE_TOO_LONG, MAIL_SYNTAX,
    NEEDS_ARGUMENT, NO_ARGUMENT, RCPT_SYNTAX, RECIPIENT_SYNTAX, SENDER_SYNTAX, UNKNOWN_COMMAND,
};
use super::service::{Hello, HelloKind};
use crate::mail::address::{is_address_literal, is_domain};
use crate::mail::{Address, ReversePath};

/// A command whose syntax is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// HELO, EHLO, LHLO.
    Hello(Hello),
    /// MAIL, with its parameters as they were written.
    Mail(ReversePath, String),
    /// RCPT, with its parameters as they were written.
    Rcpt(ForwardPath, String),
    /// DATA.
    Data,
    /// BDAT (RFC 3030 §2).
    Bdat {
        /// Octets that follow the command.
        bytes: u64,
        /// Whether the mail ends with them.
        last: bool,
    },
    /// BDAT that does not say how many octets follow.
    BadBdat,
    /// RSET.
    Rset,
    /// NOOP.
    Noop,
    /// VRFY.
    Vrfy,
    /// HELP.
    Help,
    /// QUIT.
    Quit,
    /// STARTTLS (RFC 3207).
    StartTls,
    /// AUTH (RFC 4954 §4).
    Auth {
        /// As it was written.
        mechanism: String,
        /// As it was written; `=` means no octets.
        initial: Option<String>,
    },
    /// XCLIENT, with its attributes as they were written.
    Xclient(String),
    /// EXPN and what else RFC 5321 §4.1.1 names and we do not do.
    NotImplemented,
    /// What a browser sends, or a page that makes one speak to us.
    Foreign,
}

/// Where RCPT wants the mail to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ForwardPath {
    /// An address.
    Address(Address),
    /// `<Postmaster>`, without a domain (RFC 5321 §4.5.1).
    Postmaster,
}

/// Reads commands: what samotop's frame calls the parser of its normal mode.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grammar;

impl Parser<Result<Command, Canned>> for Grammar {
    fn parse(&self, input: &[u8], _state: &SmtpContext) -> ParseResult<Result<Command, Canned>> {
        let line = framed(input).ok_or(ParseError::Incomplete)?;
        let length = line.len().saturating_add(2);
        let limit = LineLimit::of_command(input);
        let fits = length <= limit.bytes_max;
        Ok((length, if fits { Command::parse(line) } else { Err(limit.refusal) }))
    }
}

/// Reads the client's lines within an AUTH exchange: what its own mode is parsed with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AuthGrammar;

impl Parser<Result<Vec<u8>, Canned>> for AuthGrammar {
    fn parse(&self, input: &[u8], _state: &SmtpContext) -> ParseResult<Result<Vec<u8>, Canned>> {
        let line = framed(input).ok_or(ParseError::Incomplete)?;
        let length = line.len().saturating_add(2);
        let limit = LineLimit::AUTH;
        let fits = length <= limit.bytes_max;
        Ok((length, if fits { Ok(line.to_vec()) } else { Err(limit.refusal) }))
    }
}

/// How long a line may be, and what is said when it is longer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LineLimit {
    /// With the CRLF.
    pub(crate) bytes_max: usize,
    /// Said when the line has ended.
    pub(crate) refusal: Canned,
}

impl LineLimit {
    /// Of AUTH and of a line in its exchange (RFC 4954 §4).
    pub(crate) const AUTH: Self =
        Self { bytes_max: AUTH_LINE_BYTES_MAX, refusal: AUTH_LINE_TOO_LONG };
    const COMMAND: Self = Self { bytes_max: COMMAND_LINE_BYTES_MAX, refusal: LINE_TOO_LONG };

    /// Of the command at the start of `input`.
    pub(crate) fn of_command(input: &[u8]) -> Self {
        let is_auth = input.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"AUTH "));
        if is_auth { Self::AUTH } else { Self::COMMAND }
    }
}

/// The octets before the first CRLF.
fn framed(input: &[u8]) -> Option<&[u8]> {
    let mut searched = 0_usize;
    loop {
        let at = input.get(searched..)?.iter().position(|octet| *octet == b'\n')?;
        let line_feed = searched.saturating_add(at);
        if let Some(line) = input.get(..line_feed).and_then(|line| line.strip_suffix(b"\r")) {
            return Some(line);
        }
        searched = line_feed.saturating_add(1);
    }
}

impl Command {
    /// Understands a line without its CRLF.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, Canned> {
        let text = match std::str::from_utf8(line) {
            Ok(text) if !text.contains(|c: char| c.is_ascii_control()) => text,
            _ => return Err(BAD_OCTET),
        };
        // RFC 5321 §4.1.1: spaces before the CRLF should be tolerated.
        let text = text.trim_end_matches(' ');
        let (verb, argument) = match text.split_once(' ') {
            Some((verb, argument)) => (verb, argument.trim_start_matches(' ')),
            None => (text, ""),
        };
        let alone = |command| if argument.is_empty() { Ok(command) } else { Err(NO_ARGUMENT) };
        let with_argument =
            |command| if argument.is_empty() { Err(NEEDS_ARGUMENT) } else { Ok(command) };
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => hello(HelloKind::Ehlo, argument),
            "HELO" => hello(HelloKind::Helo, argument),
            "LHLO" => hello(HelloKind::Lhlo, argument),
            "MAIL" => mail(argument),
            "RCPT" => rcpt(argument),
            "DATA" => alone(Self::Data),
            "BDAT" => Ok(bdat(argument).unwrap_or(Self::BadBdat)),
            "RSET" => alone(Self::Rset),
            "QUIT" => alone(Self::Quit),
            "STARTTLS" => alone(Self::StartTls),
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" => with_argument(Self::Vrfy),
            "AUTH" => auth(argument),
            "XCLIENT" => Ok(Self::Xclient(argument.to_owned())),
            "EXPN" | "TURN" | "ETRN" | "SEND" | "SOML" | "SAML" => Ok(Self::NotImplemented),
            "GET" | "POST" | "PUT" | "HEAD" | "OPTIONS" | "CONNECT" | "HOST:" => Ok(Self::Foreign),
            _ => Err(UNKNOWN_COMMAND),
        }
    }
}

/// RFC 5321 §4.1.1.1; an address literal is taken after HELO, too.
fn hello(kind: HelloKind, name: &str) -> Result<Command, Canned> {
    if is_domain(name) || is_address_literal(name) {
        Ok(Command::Hello(Hello { kind, name: name.to_owned() }))
    } else {
        Err(HELLO_NAME)
    }
}

/// RFC 5321 §4.1.1.2.
fn mail(argument: &str) -> Result<Command, Canned> {
    let path = after_keyword(argument, "FROM:").ok_or(MAIL_SYNTAX)?;
    let (mailbox, parameters) = split_path(path).ok_or(SENDER_SYNTAX)?;
    let reverse_path = if mailbox.is_empty() {
        ReversePath::NULL
    } else {
        ReversePath::Address(address(mailbox).ok_or(SENDER_SYNTAX)?)
    };
    Ok(Command::Mail(reverse_path, parameters.to_owned()))
}

/// RFC 5321 §4.1.1.3.
fn rcpt(argument: &str) -> Result<Command, Canned> {
    let path = after_keyword(argument, "TO:").ok_or(RCPT_SYNTAX)?;
    let (mailbox, parameters) = split_path(path).ok_or(RECIPIENT_SYNTAX)?;
    let forward_path = if mailbox.eq_ignore_ascii_case("postmaster") {
        ForwardPath::Postmaster
    } else {
        ForwardPath::Address(address(mailbox).ok_or(RECIPIENT_SYNTAX)?)
    };
    Ok(Command::Rcpt(forward_path, parameters.to_owned()))
}

/// `size [LAST]`, the size being 1 to 20 digits; what does not fit 64 bits never ends.
fn bdat(argument: &str) -> Option<Command> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let size = words.next()?;
    if size.len() > 20 || !size.bytes().all(|octet| octet.is_ascii_digit()) {
        return None;
    }
    let bytes = size.parse().unwrap_or(u64::MAX);
    let last = match words.next() {
        None => false,
        Some(word) if word.eq_ignore_ascii_case("LAST") => true,
        Some(_) => return None,
    };
    words.next().is_none().then_some(Command::Bdat { bytes, last })
}

fn auth(argument: &str) -> Result<Command, Canned> {
    let mut words = argument.split(' ').filter(|word| !word.is_empty());
    let mechanism = words.next().ok_or(AUTH_SYNTAX)?.to_owned();
    let initial = words.next().map(str::to_owned);
    if words.next().is_some() { Err(AUTH_SYNTAX) } else { Ok(Command::Auth { mechanism, initial }) }
}

/// What follows `FROM:` or `TO:`; spaces after the colon are no part of the syntax, but common.
fn after_keyword<'a>(argument: &'a str, keyword: &str) -> Option<&'a str> {
    let (start, rest) = argument.split_at_checked(keyword.len())?;
    start.eq_ignore_ascii_case(keyword).then_some(rest.trim_start_matches(' '))
}

/// Splits `<path> parameters` at the bracket that closes the path; takes a source route off.
fn split_path(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('<')?;
    let mut quoted = false;
    let mut escaped = false;
    let close = inside.find(|c: char| {
        let closes = c == '>' && !quoted;
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        closes
    })?;
    let (path, rest) = inside.split_at_checked(close)?;
    let parameters = match rest.strip_prefix('>')? {
        "" => "",
        rest => rest.strip_prefix(' ')?,
    };
    Some((without_source_route(path)?, parameters))
}

/// `@a,@b:user@c` is `user@c`: source routes are accepted and ignored (RFC 5321 §4.1.1.3).
fn without_source_route(path: &str) -> Option<&str> {
    if !path.starts_with('@') {
        return Some(path);
    }
    let (route, mailbox) = path.split_once(':')?;
    let is_hop = |hop: &str| hop.strip_prefix('@').is_some_and(is_domain);
    (!mailbox.is_empty() && route.split(',').all(is_hop)).then_some(mailbox)
}

/// The reply says whose address it is; more would not help the client.
fn address(mailbox: &str) -> Option<Address> {
    Address::parse(mailbox).ok()
}

/// Octets of a command with its CRLF: RFC 5321 §4.5.3.1.4 has 512, extensions add to it; DSN
/// wants 1036 (RFC 3461 §5.4).
const COMMAND_LINE_BYTES_MAX: usize = 2048;
/// Octets of AUTH and of a line in its exchange with the CRLF (RFC 4954 §4).
const AUTH_LINE_BYTES_MAX: usize = 12_288;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Command, Canned> {
        Command::parse(line.as_bytes())
    }

    #[test]
    fn frames_on_crlf_only() {
        for (input, want) in [
            (&b"NOOP\r\nQUIT\r\n"[..], Some(&b"NOOP"[..])),
            (b"\r\n", Some(b"")),
            (b"a\nb\rc\r\n", Some(b"a\nb\rc")),
            (b"a\r\r\n", Some(b"a\r")),
            (b"a\n", None),
            (b"a\r", None),
            (b"", None),
        ] {
            assert_eq!(framed(input), want, "{input:?}");
        }
    }

    #[test]
    fn verbs_have_no_case_and_take_only_their_own_arguments() {
        let auth = |mechanism: &str, initial: Option<&str>| Command::Auth {
            mechanism: mechanism.to_owned(),
            initial: initial.map(str::to_owned),
        };
        let bdat = |bytes, last| Command::Bdat { bytes, last };
        for (line, want) in [
            ("data", Ok(Command::Data)),
            ("Data  ", Ok(Command::Data)),
            ("DATA x", Err(NO_ARGUMENT)),
            ("BDAT 0", Ok(bdat(0, false))),
            ("bdat 86 last", Ok(bdat(86, true))),
            ("BDAT 99999999999999999999", Ok(bdat(u64::MAX, false))),
            ("BDAT 999999999999999999999", Ok(Command::BadBdat)),
            ("BDAT", Ok(Command::BadBdat)),
            ("BDAT -1", Ok(Command::BadBdat)),
            ("BDAT 5 FIRST", Ok(Command::BadBdat)),
            ("BDAT 5 LAST LAST", Ok(Command::BadBdat)),
            ("RSET", Ok(Command::Rset)),
            ("RSET x", Err(NO_ARGUMENT)),
            ("QUIT", Ok(Command::Quit)),
            ("QUIT now", Err(NO_ARGUMENT)),
            ("NOOP", Ok(Command::Noop)),
            ("noop anything", Ok(Command::Noop)),
            ("HELP", Ok(Command::Help)),
            ("HELP MAIL", Ok(Command::Help)),
            ("VRFY a@b", Ok(Command::Vrfy)),
            ("VRFY", Err(NEEDS_ARGUMENT)),
            ("EXPN staff", Ok(Command::NotImplemented)),
            ("XCLIENT", Ok(Command::Xclient(String::new()))),
            ("xclient  ADDR=1.2.3.4 NAME=x ", Ok(Command::Xclient("ADDR=1.2.3.4 NAME=x".into()))),
            ("STARTTLS", Ok(Command::StartTls)),
            ("STARTTLS now", Err(NO_ARGUMENT)),
            ("AUTH PLAIN", Ok(auth("PLAIN", None))),
            ("auth plain AAA=", Ok(auth("plain", Some("AAA=")))),
            ("AUTH", Err(AUTH_SYNTAX)),
            ("AUTH PLAIN a b", Err(AUTH_SYNTAX)),
            ("GET / HTTP/1.1", Ok(Command::Foreign)),
            ("", Err(UNKNOWN_COMMAND)),
            (" NOOP", Err(UNKNOWN_COMMAND)),
            ("NOOPx", Err(UNKNOWN_COMMAND)),
            ("NOOP\n", Err(BAD_OCTET)),
            ("NO\0OP", Err(BAD_OCTET)),
            ("NOOP\r", Err(BAD_OCTET)),
            ("NOOP\t", Err(BAD_OCTET)),
        ] {
            assert_eq!(parse(line), want, "{line:?}");
        }
        assert_eq!(Command::parse(b"NOOP \xff"), Err(BAD_OCTET));
    }

    #[test]
    fn a_hello_names_a_domain_or_an_address() {
        for (line, kind, name) in [
            ("EHLO client.example", HelloKind::Ehlo, "client.example"),
            ("ehlo [192.0.2.1]", HelloKind::Ehlo, "[192.0.2.1]"),
            ("HELO localhost", HelloKind::Helo, "localhost"),
            ("HELO [IPv6:::1]", HelloKind::Helo, "[IPv6:::1]"),
            ("LHLO my_pc", HelloKind::Lhlo, "my_pc"),
        ] {
            let name = name.to_owned();
            assert_eq!(parse(line), Ok(Command::Hello(Hello { kind, name })), "{line}");
        }
        for line in ["EHLO", "EHLO ", "EHLO a b", "EHLO <a>", "EHLO a..b", "HELO (x)", "EHLO [x]"] {
            assert_eq!(parse(line), Err(HELLO_NAME), "{line}");
        }
    }

    #[test]
    fn mail_takes_a_path_that_may_be_null() {
        let sender = |text: &str| ReversePath::Address(Address::parse(text).unwrap());
        for (line, path, parameters) in [
            ("MAIL FROM:<a@b>", sender("a@b"), ""),
            ("mail from:<a@b> SIZE=1 BODY=7BIT", sender("a@b"), "SIZE=1 BODY=7BIT"),
            ("MAIL FROM: <a@b>", sender("a@b"), ""),
            ("MAIL FROM:<>", ReversePath::NULL, ""),
            ("MAIL FROM:<> SIZE=5", ReversePath::NULL, "SIZE=5"),
            ("MAIL FROM:<@x,@y.z:a@b>", sender("a@b"), ""),
            (r#"MAIL FROM:<"a> b"@c>"#, sender(r#""a> b"@c"#), ""),
            (r#"MAIL FROM:<"a\"> b"@c> X"#, sender(r#""a\"> b"@c"#), "X"),
            ("MAIL FROM:<a@[IPv6:::1]>", sender("a@[IPv6:::1]"), ""),
            ("MAIL FROM:<Pelé@b>", sender("Pelé@b"), ""),
        ] {
            assert_eq!(parse(line), Ok(Command::Mail(path, parameters.to_owned())), "{line}");
        }
        for (line, want) in [
            ("MAIL", MAIL_SYNTAX),
            ("MAIL <a@b>", MAIL_SYNTAX),
            ("MAIL TO:<a@b>", MAIL_SYNTAX),
            ("MAIL FROM", MAIL_SYNTAX),
            ("MAIL FROM:", SENDER_SYNTAX),
            ("MAIL FROM:a@b", SENDER_SYNTAX),
            ("MAIL FROM:<a@b", SENDER_SYNTAX),
            ("MAIL FROM:<a@b>SIZE=1", SENDER_SYNTAX),
            ("MAIL FROM:<a>", SENDER_SYNTAX),
            ("MAIL FROM:<postmaster>", SENDER_SYNTAX),
            ("MAIL FROM:<a b@c>", SENDER_SYNTAX),
            ("MAIL FROM:<@x>", SENDER_SYNTAX),
            ("MAIL FROM:<@x:>", SENDER_SYNTAX),
            ("MAIL FROM:<@-:a@b>", SENDER_SYNTAX),
            ("MAIL FROM:<<a@b>>", SENDER_SYNTAX),
        ] {
            assert_eq!(parse(line), Err(want), "{line}");
        }
    }

    #[test]
    fn rcpt_takes_an_address_or_postmaster() {
        let to = |text: &str| ForwardPath::Address(Address::parse(text).unwrap());
        for (line, path) in [
            ("RCPT TO:<a@b>", to("a@b")),
            ("rcpt to: <a@b>  ", to("a@b")),
            ("RCPT TO:<@x:a@b>", to("a@b")),
            ("RCPT TO:<Postmaster>", ForwardPath::Postmaster),
            ("RCPT TO:<POSTMASTER>", ForwardPath::Postmaster),
            ("RCPT TO:<postmaster@b>", to("postmaster@b")),
        ] {
            assert_eq!(parse(line), Ok(Command::Rcpt(path, String::new())), "{line}");
        }
        for (line, want) in [
            ("RCPT", RCPT_SYNTAX),
            ("RCPT FROM:<a@b>", RCPT_SYNTAX),
            ("RCPT TO:<>", RECIPIENT_SYNTAX),
            ("RCPT TO:<a>", RECIPIENT_SYNTAX),
            ("RCPT TO:a@b", RECIPIENT_SYNTAX),
        ] {
            assert_eq!(parse(line), Err(want), "{line}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_refused_whole() {
        let state = SmtpContext::default();
        for (line, ok) in [
            (format!("NOOP {}\r\n", "x".repeat(2041)), true),
            (format!("NOOP {}\r\n", "x".repeat(2042)), false),
            (format!("AUTH PLAIN {}\r\n", "x".repeat(12_275)), true),
            (format!("AUTH PLAIN {}\r\n", "x".repeat(12_276)), false),
        ] {
            let (length, command) = Grammar.parse(line.as_bytes(), &state).unwrap();
            assert_eq!(length, line.len());
            assert_eq!(command.is_ok(), ok, "{length}");
        }
        let line = format!("{}\r\n", "x".repeat(12_287));
        let (_, answer) = AuthGrammar.parse(line.as_bytes(), &state).unwrap();
        assert_eq!(answer, Err(AUTH_LINE_TOO_LONG));
    }
}
