//! Replies and report texts to categories, by rules that are rows of a data file.

use serde::{Deserialize, Serialize};

use super::category::{Category, Fault, RecommendedAction};
use super::rules::Rules;
use crate::mail::EnhancedStatus;

/// What is classified: a reply of an SMTP server, or what a report says of one recipient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The SMTP code, where one is known.
    pub code: Option<u16>,
    /// The enhanced status, where one is known.
    pub status: Option<EnhancedStatus>,
    /// The SMTP command that was answered, such as `RCPT`, where it is known.
    pub command: Option<&'a str>,
    /// The text: of the reply, or the diagnostic or the report's own words.
    pub text: &'a str,
}

/// What a failure is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Classification {
    /// What kind of failure.
    pub category: Category,
    /// What the app had better do.
    pub recommended_action: RecommendedAction,
    /// Whose fault it is.
    pub fault: Fault,
    /// Seconds after which the other side asked to try again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_secs: Option<u32>,
    /// The blocklist that was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocklist: Option<Blocklist>,
    /// The id of the rule that decided.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub rule: String,
}

/// A list of addresses or domains that receivers refuse.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blocklist {
    /// Its common name, such as `Spamhaus ZEN`.
    pub name: String,
    /// What it lists: `ip` or `domain`.
    #[serde(rename = "type")]
    pub kind: String,
}

impl Rules {
    /// Classifies one failure. Never fails: without a matching row it is `unknown`.
    pub fn classify(&self, subject: &Subject<'_>) -> Classification {
        let text = normalized(subject.text);
        let reply = reply_in(&text);
        let (mut decision, mut list) = self.decide(subject, reply);
        if reply.len() < text.len() && decision.is_none_or(|decision| decision.is_vague) {
            (decision, list) = self.decide(subject, &text);
        }
        let category = decision.map_or(Category::Unknown, |decision| decision.category);
        let is_listing = matches!(category, Category::IpBlacklisted | Category::DomainBlacklisted);
        Classification {
            category,
            recommended_action: category.recommended_action(),
            fault: category.fault(),
            retry_after_secs: retry_after_secs(&text),
            blocklist: list.filter(|_| is_listing).cloned(),
            rule: decision.map(|decision| decision.rule.to_owned()).unwrap_or_default(),
        }
    }
}

/// Classifies a reply as a server wrote it, code and enhanced status in front of the text.
pub fn classify_reply(rules: &Rules, reply: &str) -> Classification {
    let said = super::reason::of(reply);
    let command = said.command.as_deref();
    rules.classify(&Subject { code: said.code, status: said.status, text: reply, command })
}

/// The text as the patterns are written: lower case, single spaces, addresses as `@`, the codes
/// of continued lines left out but the first; a space at both ends, so that patterns can ask for
/// a word.
fn normalized(text: &str) -> String {
    let text = super::text::head(text, TEXT_BYTES_MAX);
    let mut normal = String::with_capacity(text.len());
    let mut is_continued = false;
    for mut word in text.split(|c: char| c.is_whitespace() || c.is_control()) {
        if word.is_empty() {
            continue;
        }
        if let Some((code, tail)) = continued_code(word) {
            // The first of them is where the reply begins.
            if !is_continued {
                normal.push(' ');
                normal.push_str(code);
            }
            let repeats = is_continued && EnhancedStatus::parse(tail).is_some();
            is_continued = true;
            if tail.is_empty() || repeats {
                continue;
            }
            word = tail;
        }
        normal.push(' ');
        let is_url = word.contains("://");
        if !is_url && word.contains('@') {
            push_without_addresses(&mut normal, word);
        } else {
            normal.extend(word.chars().flat_map(char::to_lowercase));
        }
    }
    normal.push(' ');
    normal
}

/// The reply that a text quotes, from its code on; the whole text where it quotes none. What
/// stands in front of it are the words of the system that reports it, which are the same for
/// every failure.
fn reply_in(text: &str) -> &str {
    let is_code = |at: &usize| {
        let word = text.get(at.saturating_add(1)..).unwrap_or_default().as_bytes();
        matches!(word, [b'4' | b'5', b'0'..=b'5', c, b' ' | b':', ..] if c.is_ascii_digit())
    };
    let start = text.match_indices([' ', '(', '\'']).map(|(at, _)| at).find(is_code);
    start.and_then(|start| text.get(start..)).unwrap_or(text)
}

/// The code and what stands behind its hyphen in `550-5.7.1` or `550-Text`: the head of a line
/// that is continued.
fn continued_code(word: &str) -> Option<(&str, &str)> {
    let (code, tail) = word.split_once('-')?;
    let is_code = matches!(code.as_bytes(), [b'4' | b'5', b'0'..=b'7', c] if c.is_ascii_digit());
    let is_number = !tail.is_empty() && tail.bytes().all(|octet| octet.is_ascii_digit());
    (is_code && !is_number).then_some((code, tail))
}

/// Appends a word with every address in it as `@`.
fn push_without_addresses(normal: &mut String, word: &str) {
    let is_part = |c: char| c.is_alphanumeric() || "@._+-=%!#$&'*/?^`{|}~".contains(c);
    for piece in word.split_inclusive(|c: char| !is_part(c)) {
        let address_end = piece.find(|c: char| !is_part(c)).unwrap_or(piece.len());
        let (address, tail) = piece.split_at_checked(address_end).unwrap_or((piece, ""));
        if address.contains('@') {
            normal.push('@');
        } else {
            normal.extend(address.chars().flat_map(char::to_lowercase));
        }
        normal.push_str(tail);
    }
}

/// Seconds after which a text asks to try again: `try again in 5 minutes`, `retry in 300 s`.
fn retry_after_secs(text: &str) -> Option<u32> {
    let asks = [
        "try again in ",
        "retry in ",
        "try again after ",
        "retry after ",
        "wait ",
        "try later in ",
        "come back in ",
        "again within ",
        "retry-after: ",
        "delayed for ",
        "for another ",
        "resubmit in ",
        "blocked for ",
        "greylisted for ",
        "again in at least ",
    ];
    asks.iter().find_map(|ask| {
        let (_, tail) = text.split_once(ask)?;
        span_secs(tail)
    })
}

/// A number and a unit at the start of a text, `5 minutes`, `300s`, `00:05:00`.
fn span_secs(text: &str) -> Option<u32> {
    let text = text.trim_start_matches(|c: char| !c.is_ascii_digit() && !c.is_ascii_punctuation());
    let text = ["at least ", "about ", "approximately ", "another "]
        .iter()
        .find_map(|word| text.strip_prefix(word))
        .unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, tail) = text.split_at_checked(end)?;
    let number: u32 = digits.parse().ok()?;
    if let Some(clock) = tail.strip_prefix(':') {
        let mut parts = clock.split(|c: char| !c.is_ascii_digit());
        let minutes: u32 = parts.next()?.parse().ok()?;
        return match parts.next().and_then(|seconds| seconds.parse::<u32>().ok()) {
            Some(seconds) => number
                .checked_mul(3600)?
                .checked_add(minutes.checked_mul(60)?)?
                .checked_add(seconds),
            None => number.checked_mul(60)?.checked_add(minutes),
        };
    }
    let unit = tail.trim_start_matches([' ', '-']);
    let factor = match unit {
        _ if unit.starts_with("mi") || unit.starts_with("m ") || unit.starts_with("m.") => 60,
        _ if unit.starts_with('h') => 3600,
        _ if unit.starts_with("da") => 86_400,
        _ if unit.starts_with('s') => 1,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// Octets of a text that are classified; replies are shorter, notices say it at their start.
const TEXT_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_of_well_known_servers_fall_into_their_categories() {
        let rules = Rules::compiled_in();
        for (reply, want) in REPLIES {
            let found = classify_reply(&rules, reply);
            assert_eq!(found.category.as_str(), *want, "{reply} by {}", found.rule);
        }
    }

    #[test]
    fn the_text_decides_where_the_codes_say_otherwise() {
        let rules = Rules::compiled_in();
        let found = classify_reply(&rules, "550 5.1.1 message rejected as spam");
        assert_eq!(found.category, Category::SpamBlocked);
        assert_eq!(found.fault, Fault::Content);
        assert_eq!(found.recommended_action, RecommendedAction::Review);
    }

    #[test]
    fn a_reply_begins_at_the_first_code_of_its_lines() {
        for (text, want) in [
            ("550-5.7.1 a\n550 5.7.1 b", " 550 5.7.1 a 550 5.7.1 b "),
            ("said: 550-a 550-5.1.1 b 550 c", " said: 550 a b 550 c "),
            ("550- a\n550 b", " 550 a 550 b "),
            ("call 555-1234 for x-550-y", " call 555-1234 for x-550-y "),
        ] {
            assert_eq!(normalized(text), want, "{text}");
        }
    }

    #[test]
    fn the_span_to_wait_is_read() {
        for (text, want) in [
            ("450 greylisted, try again in 5 minutes", Some(300)),
            ("451 retry in 300 seconds", Some(300)),
            ("451 please wait 60s", Some(60)),
            ("450 try again in 00:04:30", Some(270)),
            ("450 please try again in 1 hour", Some(3600)),
            ("450 greylisted, try again in 5m.", Some(300)),
            ("450 try again in 5 months", None),
            ("451 try again later", None),
            ("550 in 5 minutes", None),
            ("450 try again in 99999999999 hours", None),
        ] {
            assert_eq!(retry_after_secs(&normalized(text)), want, "{text}");
        }
    }

    #[test]
    fn the_blocklist_is_named() {
        let rules = Rules::compiled_in();
        let found = classify_reply(&rules, "554 5.7.1 blocked using zen.spamhaus.org");
        let list = found.blocklist.unwrap();
        assert_eq!((list.name.as_str(), list.kind.as_str()), ("Spamhaus ZEN", "ip"));
        assert_eq!(classify_reply(&rules, "550 5.1.1 user unknown").blocklist, None);
    }

    #[test]
    fn addresses_do_not_decide() {
        let rules = Rules::compiled_in();
        let found = classify_reply(&rules, "550 5.1.1 <spam-quota@spamhaus.example>: user unknown");
        assert_eq!(found.category, Category::UserUnknown);
    }

    const REPLIES: &[(&str, &str)] = &[
        (
            "550 5.1.1 <u@x.example>: Recipient address rejected: User unknown in virtual mailbox table",
            "user_unknown",
        ),
        (
            "550-5.1.1 The email account that you tried to reach does not exist. Please try\n550-5.1.1 double-checking the recipient's email address",
            "user_unknown",
        ),
        (
            "550 5.1.10 RESOLVER.ADR.RecipientNotFound; Recipient u@x.example not found by SMTP address lookup",
            "user_unknown",
        ),
        ("550 5.4.1 Recipient address rejected: Access denied.", "user_unknown"),
        (
            "554 delivery error: dd This user doesn't have a yahoo.example account (u@yahoo.example) [0]",
            "user_unknown",
        ),
        ("550 5.1.1 <u@x.example>... User unknown", "user_unknown"),
        ("552 5.2.2 <u@x.example>: user is over quota", "mailbox_full"),
        ("452-4.2.2 The email account that you tried to reach is over quota.", "mailbox_full"),
        ("552 5.2.2 The recipient's inbox is out of storage space and inactive.", "mailbox_full"),
        ("550-5.2.1 The email account that you tried to reach is disabled.", "mailbox_disabled"),
        (
            "450 4.2.0 <u@x.example>: Recipient address rejected: Greylisted, see http://postgrey.example/",
            "greylisting",
        ),
        ("451 4.7.1 Greylisting in action, please come back later", "greylisting"),
        (
            "421 4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints",
            "rate_limited",
        ),
        (
            "421-4.7.28 Our system has detected an unusual rate of unsolicited mail originating from your IP address.",
            "rate_limited",
        ),
        (
            "554 5.7.1 Service unavailable; Client host [192.0.2.1] blocked using zen.spamhaus.org",
            "ip_blacklisted",
        ),
        ("550 5.7.606 Access denied, banned sending IP [192.0.2.1].", "ip_blacklisted"),
        ("550 5.7.1 [192.0.2.1] does not have a PTR record", "ip_blacklisted"),
        (
            "550-5.7.26 This mail is unauthenticated, which poses a security risk to the sender",
            "auth_failure",
        ),
        (
            "550 5.7.509 Access denied, sending domain x.example does not pass DMARC verification",
            "auth_failure",
        ),
        ("550 5.7.1 SPF check failed", "auth_failure"),
        ("554 5.7.1 <u@x.example>: Relay access denied", "relay_denied"),
        ("550 relay not permitted", "relay_denied"),
        ("553 sorry, that domain isn't in my list of allowed rcpthosts (#5.7.1)", "relay_denied"),
        (
            "550-5.7.1 Our system has detected that this message is likely unsolicited mail.",
            "spam_blocked",
        ),
        ("554 5.7.1 Message rejected as spam by Content Filtering.", "spam_blocked"),
        ("550 5.7.1 virus Eicar-Test found", "virus_detected"),
        ("552 5.3.4 Message size exceeds fixed limit", "message_too_large"),
        ("554 5.4.6 Too many hops", "loop_detected"),
        ("501 5.5.4 Syntax error in parameters", "protocol_error"),
        (
            "Host or domain name not found. Name service error for name=x.example type=A: Host not found",
            "domain_not_found",
        ),
        ("556 5.1.10 Recipient domain has null MX", "domain_not_found"),
        ("connect to mx.x.example[192.0.2.1]:25: Connection timed out", "server_error"),
        ("421 4.3.2 Service shutting down", "server_error"),
        ("550 5.7.1 Denied by policy", "policy_blocked"),
        ("retry timeout exceeded", "delivery_expired"),
        ("550", "user_unknown"),
        ("", "unknown"),
    ];
}
