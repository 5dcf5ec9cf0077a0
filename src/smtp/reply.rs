//! The replies that the protocol itself gives, and how a reply is written on the wire.

use crate::mail::{EnhancedStatus, Reply};

/// A reply that is always the same: `code [status] text` on one line.
///
/// Replies to HELO and EHLO, the greeting and 3yz have no enhanced status (RFC 2034 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Canned(&'static str);

impl Canned {
    /// The line without its CRLF.
    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }

    /// Whether the connection is closed after it (RFC 5321 §4.2.1).
    pub(crate) fn is_closing(self) -> bool {
        self.0.starts_with("421")
    }

    /// Whether it counts as an error of the client.
    pub(crate) fn is_error(self) -> bool {
        self.0.starts_with('5')
    }
}

impl From<Canned> for Reply {
    fn from(canned: Canned) -> Self {
        Self::parse(canned.0).unwrap_or_else(unspecific)
    }
}

/// Writes a reply, in several lines where it has several or is too long for one.
///
/// Whatever the text holds, nothing but printable ASCII goes out, so that no text can begin a
/// reply of its own.
pub(crate) fn write(out: &mut Vec<u8>, reply: &Reply) {
    let lines = wrapped(&reply.text);
    let last = lines.len().saturating_sub(1);
    for (number, line) in lines.iter().enumerate() {
        let separator = if number == last { ' ' } else { '-' };
        out.extend_from_slice(format!("{}{separator}", reply.code).as_bytes());
        if !(300..400).contains(&reply.code) {
            out.extend_from_slice(format!("{} ", reply.status_or_class()).as_bytes());
        }
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

/// The reply as a refusal: what is none in truth would tell the client that all is well.
pub(crate) fn refusal(reply: Reply) -> Reply {
    if reply.is_transient() || reply.is_permanent() { reply } else { unspecific() }
}

/// The reply that says no more than "later".
pub(crate) fn unspecific() -> Reply {
    Reply::new(451, EnhancedStatus::new(4, 3, 0), "Local error in processing")
}

/// Printable lines of at most `TEXT_BYTES_MAX`, at least one.
fn wrapped(text: &str) -> Vec<String> {
    let printable = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let mut lines = Vec::new();
    for line in text.lines() {
        let line: Vec<char> = line.trim_end().chars().map(printable).collect();
        lines.extend(line.chunks(TEXT_BYTES_MAX).map(String::from_iter));
    }
    if lines.is_empty() {
        lines.push(String::new());
    }
    lines
}

/// What fits beside code, status and CRLF into 512 octets (RFC 5321 §4.5.3.1.5).
const TEXT_BYTES_MAX: usize = 512 - "550 5.999.999 \r\n".len();

pub(crate) const OK: Canned = Canned("250 2.0.0 Ok");
pub(crate) const SENDER_OK: Canned = Canned("250 2.1.0 Sender ok");
pub(crate) const RECIPIENT_OK: Canned = Canned("250 2.1.5 Recipient ok");
pub(crate) const BYE: Canned = Canned("221 2.0.0 Bye");
pub(crate) const READY_FOR_TLS: Canned = Canned("220 2.0.0 Ready to start TLS");
pub(crate) const AUTHENTICATED: Canned = Canned("235 2.7.0 Authentication successful");
pub(crate) const START_DATA: Canned = Canned("354 End data with <CR><LF>.<CR><LF>");
pub(crate) const HELP: Canned =
    Canned("214 2.0.0 The commands are those of RFC 5321; EHLO lists the extensions");
pub(crate) const CANNOT_VERIFY: Canned =
    Canned("252 2.0.0 Cannot verify, but will take mail and try to deliver it");

pub(crate) const UNKNOWN_COMMAND: Canned = Canned("500 5.5.1 Command not recognized");
pub(crate) const BAD_OCTET: Canned =
    Canned("500 5.5.2 Commands are UTF-8 text without control characters, ended by CR LF");
pub(crate) const LINE_TOO_LONG: Canned = Canned("500 5.5.2 Command line too long");
pub(crate) const AUTH_LINE_TOO_LONG: Canned = Canned("500 5.5.6 Authentication line too long");
pub(crate) const NO_ARGUMENT: Canned = Canned("501 5.5.4 This command takes no argument");
pub(crate) const NEEDS_ARGUMENT: Canned = Canned("501 5.5.4 This command needs an argument");
pub(crate) const HELLO_NAME: Canned = Canned("501 A domain or an address literal must follow");
pub(crate) const MAIL_SYNTAX: Canned = Canned("501 5.5.4 Syntax: MAIL FROM:<address> parameters");
pub(crate) const RCPT_SYNTAX: Canned = Canned("501 5.5.4 Syntax: RCPT TO:<address> parameters");
pub(crate) const SENDER_SYNTAX: Canned = Canned("501 5.1.7 Bad sender address");
pub(crate) const RECIPIENT_SYNTAX: Canned = Canned("501 5.1.3 Bad recipient address");
pub(crate) const PARAMETER_SYNTAX: Canned = Canned("501 5.5.4 Malformed parameter");
pub(crate) const PARAMETER_TWICE: Canned = Canned("501 5.5.4 Parameter given twice");
pub(crate) const PARAMETER_UNKNOWN: Canned = Canned("555 5.5.4 Parameter not supported");
pub(crate) const XCLIENT_SYNTAX: Canned = Canned("501 5.5.4 Syntax: XCLIENT attribute=value ...");
pub(crate) const XCLIENT_UNKNOWN: Canned = Canned("501 5.5.4 No such attribute of XCLIENT");
pub(crate) const BDAT_SYNTAX: Canned = Canned("501 5.5.4 Syntax: BDAT size [LAST]");
pub(crate) const AUTH_SYNTAX: Canned =
    Canned("501 5.5.4 Syntax: AUTH mechanism [initial-response]");
pub(crate) const AUTH_ENCODING: Canned = Canned("501 5.5.2 Malformed authentication response");
pub(crate) const AUTH_CANCELED: Canned = Canned("501 5.7.0 Authentication canceled");
pub(crate) const NOT_IMPLEMENTED: Canned = Canned("502 5.5.1 Command not implemented");
pub(crate) const HELLO_FIRST: Canned = Canned("503 5.5.1 Say EHLO first");
pub(crate) const LHLO_FIRST: Canned = Canned("503 5.5.1 Say LHLO first");
pub(crate) const MAIL_FIRST: Canned = Canned("503 5.5.1 Say MAIL first");
pub(crate) const RCPT_FIRST: Canned = Canned("503 5.5.1 Say RCPT first");
pub(crate) const NESTED_MAIL: Canned = Canned("503 5.5.1 A transaction is already open");
pub(crate) const IN_TRANSACTION: Canned = Canned("503 5.5.1 Not within a transaction");
pub(crate) const BDAT_BEGUN: Canned = Canned("503 5.5.1 The mail has begun with BDAT");
pub(crate) const TLS_ALREADY: Canned = Canned("503 5.5.1 TLS is already in use");
pub(crate) const TLS_PIPELINED: Canned =
    Canned("503 5.5.1 Nothing may be sent along with STARTTLS");
pub(crate) const AUTH_ALREADY: Canned = Canned("503 5.5.1 Already authenticated");
pub(crate) const MECHANISM_UNKNOWN: Canned = Canned("504 5.5.4 Mechanism not supported");
pub(crate) const AUTH_NEEDED: Canned = Canned("530 5.7.0 Authentication required");
pub(crate) const TLS_NEEDED: Canned = Canned("530 5.7.0 Must issue a STARTTLS command first");
pub(crate) const CREDENTIALS_BAD: Canned = Canned("535 5.7.8 Authentication credentials invalid");
pub(crate) const AUTH_NEEDS_TLS: Canned = Canned("538 5.7.11 Encryption required");
pub(crate) const BARE_NEWLINE: Canned =
    Canned("550 5.6.11 Lines must end in CR LF; the mail has a bare CR or LF");
pub(crate) const XCLIENT_LOOPBACK: Canned =
    Canned("550 5.7.1 Only a client on this host may name a loopback address");
pub(crate) const NUL_IN_MAIL: Canned = Canned("550 5.6.0 The mail has a NUL octet");
pub(crate) const TOO_LARGE: Canned = Canned("552 5.3.4 Mail is larger than the limit");
pub(crate) const NEEDS_SMTPUTF8: Canned =
    Canned("553 5.6.7 An address that is not ASCII needs SMTPUTF8");
pub(crate) const NO_RECIPIENTS: Canned = Canned("554 5.5.1 No valid recipients");
pub(crate) const NOT_SMTP: Canned = Canned("554 5.5.1 This is a mail server");

pub(crate) const TOO_MANY_RECIPIENTS: Canned = Canned("452 4.5.3 Too many recipients");
pub(crate) const TIMED_OUT: Canned = Canned("421 4.4.2 Timeout, closing the connection");
pub(crate) const STOPPING: Canned = Canned("421 4.3.2 Going down, try again later");
pub(crate) const TOO_MANY_ERRORS: Canned = Canned("421 4.7.0 Too many errors");
pub(crate) const TOO_MANY_COMMANDS: Canned = Canned("421 4.7.0 Too many commands without a mail");
pub(crate) const TOO_MANY_MAILS: Canned = Canned("421 4.7.0 Too many mails in one connection");

#[cfg(test)]
mod tests {
    use super::*;

    fn written(code: u16, text: &str) -> String {
        let mut out = Vec::new();
        let status = EnhancedStatus::new(5, 1, 1);
        write(&mut out, &Reply { code, status: Some(status), text: text.to_owned() });
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_line_carries_code_and_status() {
        assert_eq!(written(550, "no"), "550 5.1.1 no\r\n");
        assert_eq!(written(550, "one\ntwo"), "550-5.1.1 one\r\n550 5.1.1 two\r\n");
        assert_eq!(written(550, ""), "550 5.1.1 \r\n");
        assert_eq!(written(334, "x"), "334 x\r\n");
    }

    #[test]
    fn no_text_begins_a_reply_of_its_own() {
        assert_eq!(written(550, "a\r250 b"), "550 5.1.1 a?250 b\r\n");
        assert_eq!(written(550, "a\r\n250 b"), "550-5.1.1 a\r\n550 5.1.1 250 b\r\n");
        assert_eq!(written(550, "\u{85}é\0"), "550 5.1.1 ???\r\n");
    }

    #[test]
    fn no_line_is_longer_than_512_octets() {
        let text = written(550, &"x".repeat(2000));
        assert!(text.split_inclusive("\r\n").all(|line| line.len() <= 512), "{text}");
        assert_eq!(text.matches('x').count(), 2000);
    }

    #[test]
    fn what_is_no_refusal_is_made_one() {
        let status = EnhancedStatus::new(2, 0, 0);
        assert_eq!(refusal(Reply::new(250, status, "Ok")), unspecific());
        assert_eq!(refusal(CREDENTIALS_BAD.into()).code, 535);
    }
}
