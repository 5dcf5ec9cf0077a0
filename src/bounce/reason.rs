//! What a line of text says about a failure: code, enhanced status, command.

use super::text::contains_ignore_case;
use crate::mail::EnhancedStatus;

/// What was found in a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// The first SMTP code, 400 to 599.
    pub(super) code: Option<u16>,
    /// The first enhanced status of class 4 or 5, the first that says something preferred.
    pub(super) status: Option<EnhancedStatus>,
    /// The SMTP command that was answered.
    pub(super) command: Option<String>,
    /// The host that is said to have answered.
    pub(super) host: Option<String>,
}

/// Reads code, status and command from a text.
pub(super) fn of(text: &str) -> Said {
    let mut said = Said { command: command(text), host: host(text), ..Said::default() };
    let mut rest = text;
    let mut before = ' ';
    while let Some(at) = rest.find(|c: char| c.is_ascii_digit()) {
        let (lead, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        before = lead.chars().next_back().unwrap_or(before);
        let end = tail.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(tail.len());
        let (number, after) = tail.split_at_checked(end).unwrap_or((tail, ""));
        let next = after.chars().next().unwrap_or(' ');
        let free = !before.is_alphanumeric() && !"@/_=".contains(before) && !next.is_alphanumeric();
        let is_joined = (before == '-' && !lead.ends_with(" -")) || is_joined_to_number(after);
        if free && !"@/_=".contains(next) && !is_joined {
            number_found(&mut said, number.trim_end_matches('.'), before, next);
        } else if free && before == '-' && said.code.is_some() {
            // `550-5.1.1 text`: the status behind the code of a continued line.
            status_found(&mut said, number);
        }
        before = number.chars().next_back().unwrap_or(before);
        rest = after;
    }
    said
}

/// Whether a number is the start of a longer one, such as `555-550-1234`; `550-5.1.1` is none.
fn is_joined_to_number(after: &str) -> bool {
    let Some(tail) = after.strip_prefix('-') else { return false };
    let end = tail.find(|c: char| !c.is_ascii_digit()).unwrap_or(tail.len());
    end > 0 && !matches!(tail.as_bytes().get(end), Some(b'.'))
}

fn number_found(said: &mut Said, number: &str, before: char, next: char) {
    match number.len() {
        3 if said.code.is_none() && before != '.' && !matches!(next, '%' | '.') => {
            said.code = number.parse().ok().filter(|code| (400..600).contains(code));
        }
        4.. => status_found(said, number),
        _ => {}
    }
}

fn status_found(said: &mut Said, number: &str) {
    if let Some(found) = EnhancedStatus::parse(number)
        && found.class != 2
        && said.status.is_none_or(|known| known.is_generic() && !found.is_generic())
    {
        said.status = Some(found);
    }
}

/// The SMTP command that a text says was answered.
fn command(text: &str) -> Option<String> {
    let near = [
        "in reply to ",
        "after ",
        "in response to ",
        "response to ",
        ">>> ",
        "[",
        "our ",
        "while sending ",
    ];
    let commands = [
        ("rcpt", "RCPT"),
        ("mail from", "MAIL"),
        ("mail_from", "MAIL"),
        ("end of data", "DATA"),
        ("end of message", "DATA"),
        ("data", "DATA"),
        ("ehlo", "EHLO"),
        ("helo", "HELO"),
        ("starttls", "STARTTLS"),
        ("auth ", "AUTH"),
        ("initial connection", "CONN"),
    ];
    let lower = super::text::head(text, TEXT_BYTES_MAX).to_ascii_lowercase();
    for prefix in near {
        let mut rest = lower.as_str();
        while let Some((_, tail)) = rest.split_once(prefix) {
            let tail_words = tail.strip_prefix("smtp ").unwrap_or(tail);
            if let Some((_, name)) = commands.iter().find(|(word, _)| tail_words.starts_with(word))
            {
                return Some((*name).to_owned());
            }
            rest = tail;
        }
    }
    contains_ignore_case(&lower, "rcpt to:<").then(|| "RCPT".to_owned())
}

/// The host behind `host` or `while talking to`, without its address.
fn host(text: &str) -> Option<String> {
    let text = super::text::head(text, TEXT_BYTES_MAX);
    ["host ", "host: ", "while talking to ", "Host "].iter().find_map(|prefix| {
        let at = text.find(prefix)?;
        let is_word = !text.get(..at)?.ends_with(|c: char| c.is_alphanumeric());
        let tail = text.get(at.saturating_add(prefix.len())..)?;
        let end =
            tail.find(|c: char| c.is_whitespace() || "[(,;:".contains(c)).unwrap_or(tail.len());
        let name = tail.get(..end)?.trim_end_matches('.');
        let sound = is_word && name.contains('.') && crate::mail::address::is_domain(name);
        sound.then(|| name.to_owned())
    })
}

/// Which of a status field and a status in the text says more (RFC 3464 §2.3.4 allows `x.0.0`
/// where nothing else is known; the text often knows).
pub(super) fn better_status(
    field: Option<EnhancedStatus>,
    text: Option<EnhancedStatus>,
) -> Option<EnhancedStatus> {
    match (field, text) {
        (None, text) => text,
        (Some(field), Some(text)) if field.is_generic() && field.class == text.class => Some(text),
        (field, _) => field,
    }
}

/// The class that goes with an SMTP code (RFC 2034 §4).
pub(super) fn class_of(code: u16) -> u8 {
    match code {
        200..=399 => 2,
        400..=499 => 4,
        _ => 5,
    }
}

/// Octets of a text in which a command is looked for.
const TEXT_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_statuses_are_told_from_other_numbers() {
        for (text, code, status) in [
            ("550 5.1.1 no such user", Some(550), Some("5.1.1")),
            ("550-5.1.1 no such user 550 5.1.1 x", Some(550), Some("5.1.1")),
            ("host mx[192.0.2.1] said: 450 4.2.1 later", Some(450), Some("4.2.1")),
            ("user unknown (#5.1.1)", None, Some("5.1.1")),
            ("550 5.0.0 x 5.2.2", Some(550), Some("5.2.2")),
            ("message 12345 to a550@b.c", None, None),
            ("version 5.1.1.2 of 10.5.1.1", None, None),
            ("call 555-550-1234", None, None),
            ("(554 delivery error)", Some(554), None),
            ("200 ok", None, None),
            ("", None, None),
        ] {
            let said = of(text);
            let found = said.status.map(|status| status.to_string());
            assert_eq!((said.code, found.as_deref()), (code, status), "{text}");
        }
    }

    #[test]
    fn the_command_is_read_from_every_wording() {
        for (text, want) in [
            ("550 no (in reply to RCPT TO command)", Some("RCPT")),
            ("550 no (in reply to end of DATA command)", Some("DATA")),
            ("SMTP error from remote mail server after MAIL FROM:<a@b>", Some("MAIL")),
            ("Remote host said: 550 no [RCPT_TO]", Some("RCPT")),
            ("550 no", None),
        ] {
            assert_eq!(command(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn the_host_is_read_where_one_is_named() {
        for (text, want) in [
            ("host mx.b.example[192.0.2.7] said: 550 no", Some("mx.b.example")),
            ("host mx.b.example [192.0.2.7]: 550 no", Some("mx.b.example")),
            ("... while talking to mx.b.example.: >>> DATA", Some("mx.b.example")),
            ("localhost mx.b.example", None),
            ("host unknown", None),
        ] {
            assert_eq!(host(text).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn a_generic_status_gives_way_to_one_that_says_something() {
        let s = |text: &str| EnhancedStatus::parse(text);
        for (field, text, want) in [
            ("5.0.0", "5.1.1", "5.1.1"),
            ("5.0.0", "4.1.1", "5.0.0"),
            ("5.2.2", "5.1.1", "5.2.2"),
            ("", "5.1.1", "5.1.1"),
        ] {
            assert_eq!(better_status(s(field), s(text)), s(want));
        }
    }
}
