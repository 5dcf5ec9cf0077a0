//! Evidence to bounces: what an attempt or a report says of one recipient, as our record.

use super::correlate::{Place, comparable};
use crate::bounce::{
    Action, Category, Classification, Diagnostic, Facts, RecipientFacts, Rules, Subject,
};
use crate::mail::{EnhancedStatus, Reply, Timestamp};
use crate::store::LiveMessage;
use crate::store::record::{
    Attempt, Bounce, BounceId, BounceKey, CapturedBy, Confidence, Decision, KeyScope, Match,
    MatchMethod, ReportReceived, Response, bounce_key,
};

/// The bounce of an attempt that ended its recipient; `None` for one that did not, or whose
/// recipient the mail does not have.
pub(super) fn inline(
    message: &LiveMessage,
    attempt: &Attempt,
    rules: &Rules,
    now: Timestamp,
) -> Option<Bounce> {
    if !matches!(attempt.decision, Decision::Failed | Decision::Expired) {
        return None;
    }
    let index = usize::try_from(attempt.recipient).ok()?;
    let address = &message.recipients.get(index)?.address;
    let scope = KeyScope::Recipient(message.queue_id, attempt.recipient);
    let key = bounce_key(scope, &comparable(address.as_str()), Action::Failed);
    Some(Bounce {
        id: bounce_id(now, &key),
        key,
        date: now,
        captured_by: CapturedBy::Inline,
        action: Action::Failed,
        recipient: address.to_string(),
        queue_id: Some(message.queue_id),
        recipient_index: Some(attempt.recipient),
        matched: Some(Match::new(MatchMethod::Conversation, Confidence::Certain)),
        report_id: None,
        response: attempt_response(attempt, rules),
        mta: attempt.remote_mta.as_deref().map(|mta| mta_name(mta).to_owned()),
        remote_queue_id: None,
        original_message_id: None,
        envelope_id: None,
        final_recipient: None,
        original_recipient: None,
    })
}

/// The bounce or news of what a report says of one recipient.
pub(super) fn reported(
    received: &ReportReceived,
    facts: &Facts,
    said: &RecipientFacts,
    place: &Place,
    rules: &Rules,
    now: Timestamp,
) -> Bounce {
    let found = place.found.as_ref();
    let scope = match found {
        Some(found) if found.matched.is_believed() => {
            KeyScope::Recipient(found.queue_id, found.recipient_index)
        }
        // What is not to be trusted must not stand in the way of what is.
        _ => KeyScope::Report(&received.digest),
    };
    // A list or an alias fails once for each address behind it; any other recipient only once,
    // however its address is written.
    let subject = match found {
        Some(found) if found.is_named || said.final_recipient.is_empty() => &found.recipient,
        _ => &said.final_recipient,
    };
    let key = bounce_key(scope, &comparable(subject), said.action);
    let kept = |text: &str| one_line(text, ADDRESS_CHARS_MAX);
    let given = |text: &Option<String>| text.as_deref().map(kept).filter(|text| !text.is_empty());
    let final_recipient = Some(kept(&said.final_recipient)).filter(|text| !text.is_empty());
    let original_recipient = given(&said.original_recipient);
    let recipient = match found {
        Some(found) => found.recipient.clone(),
        None => original_recipient.clone().or(final_recipient.clone()).unwrap_or_default(),
    };
    Bounce {
        id: bounce_id(now, &key),
        key,
        date: now,
        captured_by: received.captured_by,
        action: said.action,
        recipient,
        queue_id: found.map(|found| found.queue_id),
        recipient_index: found.map(|found| found.recipient_index),
        matched: found.map(|found| found.matched),
        report_id: Some(received.id),
        response: reported_response(said, rules),
        mta: given(&said.remote_mta).or_else(|| given(&facts.report.reporting_mta)),
        remote_queue_id: given(&facts.report.queue_id),
        original_message_id: facts.original.message_id.clone(),
        envelope_id: given(&facts.report.envelope_id),
        final_recipient,
        original_recipient,
    }
}

/// Names a bounce captured at `moment`.
pub(super) fn bounce_id(moment: Timestamp, key: &BounceKey) -> BounceId {
    let [a, b, c, d, ..] = *key;
    let unique = u32::from_be_bytes([a, b, c, d]);
    BounceId(format!("{:012x}{unique:08x}", moment.as_millis() & 0xffff_ffff_ffff))
}

fn attempt_response(attempt: &Attempt, rules: &Rules) -> Response {
    let reply = attempt.reply.as_ref();
    let error = attempt.error.as_deref().unwrap_or_default();
    let subject = Subject {
        code: reply.map(|reply| reply.code),
        status: reply.and_then(|reply| reply.status),
        text: reply.map_or(error, |reply| &reply.text),
        command: Some(attempt.stage.command()),
    };
    let mut classification = rules.classify(&subject);
    let is_expired = attempt.decision == Decision::Expired;
    // That the other side was out of order all the time is what expiry means.
    if is_expired && matches!(classification.category, Category::Unknown | Category::ServerError) {
        classification = of_category(Category::DeliveryExpired);
    }
    let message = reply.map_or_else(|| error.to_owned(), ToString::to_string);
    Response {
        source: "smtp".to_owned(),
        message: one_line(&message, MESSAGE_CHARS_MAX),
        status: reply.map(Reply::status_or_class).or(is_expired.then_some(DELIVERY_TIME_EXPIRED)),
        code: subject.code,
        command: Some(attempt.stage.command().to_owned()),
        classification,
    }
}

fn reported_response(said: &RecipientFacts, rules: &Rules) -> Response {
    let diagnostic = said.diagnostic.as_ref();
    let text = diagnostic.map_or("", |diagnostic| &diagnostic.text);
    let classification = match said.action {
        Action::Failed | Action::Delayed => {
            let command = said.command.as_deref();
            rules.classify(&Subject { code: said.code, status: said.status, text, command })
        }
        Action::Delivered | Action::Relayed | Action::Expanded => of_category(Category::Unknown),
    };
    Response {
        source: spoken_by(diagnostic, said.code),
        message: one_line(text, MESSAGE_CHARS_MAX),
        status: said.status.or_else(|| said.code.map(class_of)),
        code: said.code,
        command: said.command.as_deref().map(|command| one_line(command, ADDRESS_CHARS_MAX)),
        classification,
    }
}

/// Who speaks: the diagnostic type, in lower case; `smtp` too where a code was read from text.
fn spoken_by(diagnostic: Option<&Diagnostic>, code: Option<u16>) -> String {
    match diagnostic.map(|diagnostic| diagnostic.kind.trim()) {
        Some(kind) if !kind.is_empty() => one_line(kind, ADDRESS_CHARS_MAX).to_lowercase(),
        _ if code.is_some() => "smtp".to_owned(),
        _ => "report".to_owned(),
    }
}

fn class_of(code: u16) -> EnhancedStatus {
    Reply { code, status: None, text: String::new() }.status_or_class()
}

fn of_category(category: Category) -> Classification {
    Classification {
        category,
        recommended_action: category.recommended_action(),
        fault: category.fault(),
        retry_after_secs: None,
        blocklist: None,
        rule: String::new(),
    }
}

/// The name in `name[ip]:port`, or what stands there for it.
pub(super) fn mta_name(mta: &str) -> &str {
    match mta.split_once('[') {
        Some((name, _)) if !name.is_empty() => name,
        _ => mta,
    }
}

/// The text on one line: white space and controls become single spaces; cut at `chars_max`.
fn one_line(text: &str, chars_max: usize) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    let line = words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(chars_max) {
        Some((end, _)) => line.get(..end).unwrap_or_default().to_owned(),
        None => line,
    }
}

/// RFC 3463 §3.5 X.4.7, of a persistent transient failure: the mail was too old.
const DELIVERY_TIME_EXPIRED: EnhancedStatus = EnhancedStatus::new(4, 4, 7);

/// Characters of a reply or explanation that are kept in a bounce; the report is kept whole.
const MESSAGE_CHARS_MAX: usize = 2_048;

/// Characters of an address, a host name or an id that are kept in a bounce.
const ADDRESS_CHARS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::correlate::Found;
    use crate::capture::testing::{attempt, id, live, report};
    use crate::mail::Stage;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn refused(reply: &str, decision: Decision) -> Attempt {
        Attempt { reply: Reply::parse(reply), ..attempt(0, Stage::Rcpt, decision) }
    }

    #[test]
    fn an_attempt_that_ends_its_recipient_is_a_bounce() {
        let rules = Rules::compiled_in();
        let message = live(&["unknown@ethereal.email"]);
        let refusal = refused("550-5.1.1 no such\r\n550 5.1.1 user", Decision::Failed);
        let bounce = inline(&message, &refusal, &rules, NOW).unwrap();
        assert_eq!(bounce.response.message, "550 5.1.1 no such user");
        assert_eq!(bounce.response.code, Some(550));
        assert_eq!(bounce.response.status, EnhancedStatus::parse("5.1.1"));
        assert_eq!(bounce.response.command.as_deref(), Some("RCPT"));
        assert_eq!(bounce.response.source, "smtp");
        assert_eq!(bounce.mta.as_deref(), Some("mx.ethereal.email"));
        assert_eq!(bounce.recipient, "unknown@ethereal.email");
        assert_eq!((bounce.report_id, bounce.recipient_index), (None, Some(0)));

        for decision in [Decision::Relayed, Decision::RetryAt(NOW)] {
            assert_eq!(inline(&message, &refused("450 x", decision), &rules, NOW), None);
        }
        let stray = Attempt { recipient: 1, ..refusal };
        assert_eq!(inline(&message, &stray, &rules, NOW), None);
    }

    #[test]
    fn what_expired_says_so_unless_the_last_answer_says_more() {
        let rules = Rules::compiled_in();
        let message = live(&["a@example.com"]);
        let unreachable = Attempt {
            error: Some("connection refused".to_owned()),
            ..attempt(0, Stage::Connect, Decision::Expired)
        };
        let bounce = inline(&message, &unreachable, &rules, NOW).unwrap();
        assert_eq!(bounce.response.status, Some(DELIVERY_TIME_EXPIRED));
        assert_eq!(bounce.response.message, "connection refused");
        assert_eq!(bounce.response.code, None);
        assert_eq!(bounce.response.classification.category, Category::DeliveryExpired);
        let full = refused("452 4.2.2 mailbox full", Decision::Expired);
        let bounce = inline(&message, &full, &rules, NOW).unwrap();
        assert_eq!(bounce.response.classification.category, Category::MailboxFull);
        let odd = refused("450 zqxj", Decision::Expired);
        let bounce = inline(&message, &odd, &rules, NOW).unwrap();
        assert_eq!(bounce.response.classification.category, Category::DeliveryExpired);
        assert_eq!(bounce.response.status, EnhancedStatus::parse("4.0.0"));
    }

    fn said(final_recipient: &str) -> RecipientFacts {
        RecipientFacts {
            final_recipient: final_recipient.to_owned(),
            code: Some(550),
            diagnostic: Some(Diagnostic {
                kind: "SMTP".to_owned(),
                text: "550 No such\r\n user here".to_owned(),
            }),
            ..RecipientFacts::default()
        }
    }

    fn at(is_named: bool, confidence: Confidence) -> Place {
        let matched = Match::new(MatchMethod::MessageId, confidence);
        let recipient = "a@example.com".to_owned();
        let found = Found { queue_id: id(1), recipient_index: 0, recipient, is_named, matched };
        Place { found: Some(found), is_full: false }
    }

    #[test]
    fn a_report_and_a_refusal_of_one_recipient_are_the_same_bounce() {
        let rules = Rules::compiled_in();
        let refusal = refused("550 no", Decision::Failed);
        let inline = inline(&live(&["a@example.com"]), &refusal, &rules, NOW).unwrap();
        let facts = Facts::default();
        let key = |said: &RecipientFacts, place: &Place| {
            reported(&report(b"r"), &facts, said, place, &rules, NOW).key
        };
        let high = at(true, Confidence::High);
        assert_eq!(key(&said("A@example.com"), &high), inline.key);
        assert_eq!(key(&said(""), &at(false, Confidence::Certain)), inline.key);
        let low = at(false, Confidence::Low);
        assert_ne!(key(&said(""), &low), inline.key, "low confidence must not hide the real one");
        let alias = at(false, Confidence::Certain);
        assert_ne!(key(&said("x@y"), &alias), key(&said("z@y"), &alias));
        let delayed = RecipientFacts { action: Action::Delayed, ..said("a@example.com") };
        assert_ne!(key(&delayed, &high), inline.key);
    }

    #[test]
    fn a_report_is_quoted_on_one_line_with_what_it_names() {
        let rules = Rules::compiled_in();
        let mut facts = Facts::default();
        facts.report.reporting_mta = Some("mail.ekiri.ee".to_owned());
        facts.report.queue_id = Some("B7D3F8220C".to_owned());
        let place = Place { found: None, is_full: false };
        let bounce = reported(&report(b"r"), &facts, &said("u@x"), &place, &rules, NOW);
        assert_eq!(bounce.response.message, "550 No such user here");
        assert_eq!(bounce.response.source, "smtp");
        assert_eq!(bounce.response.status, EnhancedStatus::parse("5.0.0"));
        assert_eq!(bounce.mta.as_deref(), Some("mail.ekiri.ee"));
        assert_eq!(bounce.remote_queue_id.as_deref(), Some("B7D3F8220C"));
        assert_eq!((bounce.recipient.as_str(), bounce.queue_id), ("u@x", None));
        assert!(
            bounce.id.0.len() == 20 && bounce.id.0.starts_with("0183cc1aa1d4"),
            "{:?}",
            bounce.id
        );
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(one_line("é é\u{0}é", 3), "é é");
        assert_eq!(one_line("  a\tb \n", 9), "a b");
    }
}
