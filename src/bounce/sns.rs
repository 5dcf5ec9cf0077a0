//! Notifications of Amazon SES as JSON inside a mail (Amazon SNS topics).

use super::facts::{Action, Diagnostic, Facts, RecipientFacts, Verdict};
use super::reason;
use crate::mail::MessageId;

/// Reads such a notification; whether the text is one.
pub(super) fn read(text: &str, facts: &mut Facts) -> bool {
    let Some(kind) = value_of(text, "notificationType").or_else(|| value_of(text, "eventType"))
    else {
        return false;
    };
    let list = match kind.as_str() {
        "Bounce" => "bouncedRecipients",
        "Complaint" => "complainedRecipients",
        "Delivery" => "recipients",
        _ => return false,
    };
    facts.verdict = match kind.as_str() {
        "Bounce" => Verdict::Bounce,
        "Complaint" => Verdict::Complaint,
        _ => Verdict::Delivered,
    };
    facts.because("verdict", "sns.notification");
    facts.report.reporting_mta =
        value_of(text, "reportingMTA").map(|mta| super::address::typed(&mta).1.to_owned());
    facts.report.feedback_type = value_of(text, "complaintFeedbackType");
    // SES gives the mail an id of its own; the sender's stands among the headers only.
    facts.original.message_id = header_of(text, "Message-ID").and_then(|id| MessageId::parse(&id));
    facts.report.queue_id = value_of(text, "messageId");
    let recipients = array_of(text, list);
    for object in recipients.split('}') {
        let address = value_of(object, "emailAddress");
        let Some(address) = address.and_then(|text| super::address::clean(&text)) else {
            continue;
        };
        if facts.report.recipients.len() >= super::RECIPIENTS_MAX {
            break;
        }
        let text = value_of(object, "diagnosticCode").unwrap_or_default();
        let (kind, text) = super::address::typed(&text);
        let said = reason::of(text);
        let status = value_of(object, "status").and_then(|status| super::dsn::status(&status));
        let action = value_of(object, "action").and_then(|word| super::dsn::action(&word));
        facts.report.recipients.push(RecipientFacts {
            final_recipient: address,
            action: action.unwrap_or(match facts.verdict {
                Verdict::Bounce => Action::Failed,
                _ => Action::Delivered,
            }),
            status: reason::better_status(status, said.status),
            code: said.code,
            command: said.command,
            diagnostic: (!text.is_empty()).then(|| Diagnostic { kind, text: text.to_owned() }),
            ..RecipientFacts::default()
        });
    }
    true
}

/// The string that is the value of `key`, at whatever depth it stands first.
fn value_of(text: &str, key: &str) -> Option<String> {
    let value = after_key(text, key)?;
    string_at(value)
}

/// What stands behind `"key":`.
fn after_key<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut rest = text;
    while let Some(at) = rest.find(key) {
        let after = rest.get(at.saturating_add(key.len())..)?;
        let is_key = rest.get(..at)?.ends_with('"');
        let value = after.strip_prefix('"').filter(|_| is_key);
        if let Some(value) = value.and_then(|value| value.trim_start().strip_prefix(':')) {
            return Some(value.trim_start());
        }
        rest = after;
    }
    None
}

/// The inside of the array that is the value of `key`.
fn array_of<'a>(text: &'a str, key: &str) -> &'a str {
    let Some(array) = after_key(text, key).and_then(|value| value.strip_prefix('[')) else {
        return "";
    };
    let mut quoted = false;
    let mut escaped = false;
    for (at, c) in array.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ']' if !quoted => return array.get(..at).unwrap_or_default(),
            _ => {}
        }
    }
    array
}

/// The value of a header field in `"headers":[{"name":...,"value":...}]`.
fn header_of(text: &str, name: &str) -> Option<String> {
    array_of(text, "headers").split('}').find_map(|object| {
        let is_it = value_of(object, "name").is_some_and(|n| n.eq_ignore_ascii_case(name));
        if is_it { value_of(object, "value") } else { None }
    })
}

/// The JSON string that begins here, its escapes undone (RFC 8259 §7).
fn string_at(text: &str) -> Option<String> {
    let mut chars = text.strip_prefix('"')?.chars();
    let mut out = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(out),
            '\\' => match chars.next()? {
                'n' | 'r' | 't' => out.push(' '),
                'u' => {
                    let hex: String = chars.by_ref().take(4).collect();
                    let c = u32::from_str_radix(&hex, 16).ok().and_then(char::from_u32);
                    out.push(c.unwrap_or('\u{fffd}'));
                }
                c => out.push(c),
            },
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bounce_is_read_with_all_its_recipients() {
        let text = r#"{"notificationType":"Bounce","bounce":{"bounceType":"Permanent","reportingMTA":"dsn; a.example","bouncedRecipients":[{"emailAddress":"a@b.c","status":"5.1.1","action":"failed","diagnosticCode":"smtp; 550 5.1.1 \"no\" such]user"},{"emailAddress":"d@e.f"}]},"mail":{"messageId":"0101","headers":[{"name":"From","value":"x"},{"name":"Message-ID","value":"<m@x>"}]}}"#;
        let mut facts = Facts::default();
        assert!(read(text, &mut facts));
        assert_eq!(facts.verdict, Verdict::Bounce);
        assert_eq!(facts.original.message_id.unwrap().as_str(), "m@x");
        let addresses: Vec<&str> =
            facts.report.recipients.iter().map(|r| r.final_recipient.as_str()).collect();
        assert_eq!(addresses, ["a@b.c", "d@e.f"]);
        assert_eq!(facts.report.recipients[0].code, Some(550));
    }

    #[test]
    fn an_address_is_one_word_and_brings_no_line_of_its_own() {
        let text = "{\"notificationType\":\"Bounce\",\"bounce\":{\"bouncedRecipients\":[\
            {\"emailAddress\":\"Fred <a@b.c>\"},{\"emailAddress\":\"d@e.f\r\nBcc: x@y.z\"},\
            {\"emailAddress\":\"\\u0000@e.f\"},{\"emailAddress\":\"\"}]}}";
        let mut facts = Facts::default();
        assert!(read(text, &mut facts));
        let found = facts.report.recipients.iter().map(|r| r.final_recipient.as_str());
        assert_eq!(found.collect::<Vec<_>>(), ["a@b.c", "d@e.f"]);
    }

    #[test]
    fn other_text_is_none() {
        for text in
            ["", "notificationType", r#"{"notificationType":"Other"}"#, r#"{"notificationType":"#]
        {
            assert!(!read(text, &mut Facts::default()), "{text}");
        }
    }
}
