//! The words by which notices are known: rows of `notice.txt`, matched in one pass.

use std::sync::LazyLock;

use super::patterns::Patterns;

/// The groups of words of which at least one stands in a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Words(u32);

/// A group of `notice.txt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    /// Subjects of reports.
    Subject,
    /// It is tried again.
    Delay,
    /// It was delivered.
    Success,
    /// It is given up.
    Final,
    /// Something was not delivered.
    Failure,
    /// What follows is the returned mail.
    Separator,
    /// A person is away, a request has been received.
    Autoreply,
    /// Deliveries of another sort, and lists of mails that are kept or wait somewhere.
    Things,
    /// The sender is asked to prove something before the mail is passed on.
    Challenge,
}

impl Words {
    /// Which groups `text` (in lower case) has words of.
    pub(super) fn of(text: &str) -> Self {
        let found = std::cell::Cell::new(0_u32);
        PHRASES.scan(
            text,
            |group| found.get() & bit(group) == 0,
            |group, _start| {
                found.set(found.get() | bit(group));
                true
            },
        );
        Self(found.get())
    }

    /// Whether there are words of this group.
    pub(super) fn has(self, group: Group) -> bool {
        NAMES.iter().position(|(known, _)| *known == group).is_some_and(|at| self.0 & bit(at) != 0)
    }
}

fn bit(group: usize) -> u32 {
    u32::try_from(group).ok().and_then(|group| 1_u32.checked_shl(group)).unwrap_or(0)
}

/// Reads the groups of a phrase file.
fn parse(text: &str) -> Result<Patterns, String> {
    let mut patterns = Patterns::default();
    let mut group = None;
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            group = NAMES.iter().position(|(_, known)| *known == name);
            if group.is_none() {
                return Err(format!("`{name}` is no group"));
            }
        } else {
            patterns.add(group.ok_or("a pattern stands before the first group")?, line)?;
        }
    }
    Ok(patterns)
}

static PHRASES: LazyLock<Patterns> =
    LazyLock::new(|| parse(include_str!("notice.txt")).unwrap_or_default());

const NAMES: &[(Group, &str)] = &[
    (Group::Subject, "subject"),
    (Group::Delay, "delay"),
    (Group::Success, "success"),
    (Group::Final, "final"),
    (Group::Failure, "failure"),
    (Group::Separator, "separator"),
    (Group::Autoreply, "autoreply"),
    (Group::Things, "about-delivery-of-things"),
    (Group::Challenge, "challenge"),
];

/// Words that stand in front of the recipient of a mail.
pub(super) const NAMING_WORDS: &[&str] = &[
    "you sent mail to",
    "message to",
    "mail to",
    "addressed to",
    "was addressed",
    "sent to",
    "e-mail to",
    "email to",
];
/// Words of the keys that recipients stand behind.
pub(super) const RECIPIENT_KEYS: &[&str] = &[
    "recipient",
    "address",
    "rcpt",
    "failed",
    "failure",
    "unknown user",
    "user",
    "mailbox",
    "undeliver",
    "deliver",
    "destin",
    "empfänger",
    "geadresseerd",
    "mottagar",
    "mottaker",
    "modtager",
    "vastaanottaj",
    "odbiorc",
    "adresat",
    "příjemc",
    "címzett",
    "alıcı",
    "παραλήπτ",
    "получател",
    "адресат",
    "נמען",
    "المستلم",
    "المستقبل",
    "宛先",
    "受信者",
    "送信先",
    "收件人",
    "收信人",
    "받는",
    "수신",
    "error-for",
    "error for",
    "could not be",
    "sent to",
    "dest",
];
/// Words of the keys that other addresses stand behind.
pub(super) const NOT_RECIPIENT_KEYS: &[&str] = &[
    "from",
    "sender",
    "reply",
    "return",
    "contact",
    "postmaster",
    "subject",
    "message-id",
    "message id",
    "received",
    "date",
    "by",
    "administrator",
    "help",
    "http",
    "x-",
    "original-env",
];
/// How lines begin that belong to every notice of a system.
pub(super) const BOILERPLATE: &[&str] = &[
    "please ",
    "if you ",
    "for further ",
    "for more ",
    "for help",
    "do not reply",
    "additional information",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_words_are_sound() {
        assert!(parse(include_str!("notice.txt")).unwrap().len() > 300);
        assert!(parse("[nonsense]\n").is_err());
        assert!(parse("word\n").is_err());
    }

    #[test]
    fn groups_are_found_wherever_their_words_stand() {
        let words = Words::of("your message could not be delivered. it will be retried.");
        assert!(words.has(Group::Failure) && words.has(Group::Delay));
        assert!(!words.has(Group::Final) && !words.has(Group::Things));
        assert_eq!(Words::of(""), Words::default());
    }
}
