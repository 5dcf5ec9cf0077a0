//! Delivery status notifications (RFC 3464, RFC 6533), with every defect they come with.
//!
//! Fields are told apart by their names and by the recipient they follow; blank lines are only
//! a hint, because real reports lack them or have too many.

use mail_parser::DateTime;

use super::address::{of_field, typed};
use super::facts::{Action, Diagnostic, RecipientFacts, Report};
use super::headers::field_name;
use super::reason;
use super::text::{field_text, next_line, unfold};
use crate::mail::{EnhancedStatus, Timestamp};

/// What a delivery-status part says.
#[derive(Clone, Debug, Default)]
pub(super) struct Dsn {
    /// Everything about the report and its recipients.
    pub(super) report: Report,
    /// What is said of a recipient that is not named.
    pub(super) nameless: Option<RecipientFacts>,
    /// Whether any recipient had an action the RFC does not know, or none.
    pub(super) defects: Vec<&'static str>,
    /// How many fields of a delivery status were seen.
    pub(super) fields: usize,
}

/// Which fields of one recipient have been seen.
#[derive(Debug, Default)]
struct Block {
    facts: RecipientFacts,
    has_final: bool,
    has_action: bool,
    closed: bool,
}

/// Reads the fields of a delivery-status part.
pub(super) fn read(text: &[u8]) -> Dsn {
    let mut dsn = Dsn::default();
    let mut block: Option<Block> = None;
    let mut group = Vec::new();
    let mut rest = text;
    while !rest.is_empty() && dsn.report.recipients.len() < super::RECIPIENTS_MAX {
        let start = rest;
        let (line, tail) = next_line(rest);
        rest = tail;
        if line.trim_ascii().is_empty() {
            end_group(&mut dsn, &mut block, &mut group);
            continue;
        }
        while matches!(rest.first(), Some(b' ' | b'\t'))
            && !next_line(rest).0.trim_ascii().is_empty()
        {
            rest = next_line(rest).1;
        }
        let raw = start.get(..start.len().saturating_sub(rest.len())).unwrap_or(start);
        if let Some((name, colon)) = field_name(line) {
            let body = raw.get(colon.saturating_add(1)..).unwrap_or_default();
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            // Encoded words stand in texts; in an address they would be its own characters.
            let value = if is_recipient_name(&name) { unfold(body) } else { field_text(body) };
            group.push((name, value));
        } else if let Some((_, value)) = group.last_mut() {
            // A line that lost its fold: it goes on with the field above.
            value.push(' ');
            value.push_str(&field_text(raw));
        }
        if group.len() >= GROUP_FIELDS_MAX {
            end_group(&mut dsn, &mut block, &mut group);
        }
    }
    end_group(&mut dsn, &mut block, &mut group);
    close(&mut dsn, block.take());
    if dsn.report.recipients.len() >= super::RECIPIENTS_MAX && !rest.is_empty() {
        dsn.defects.push("too-many-recipients");
    }
    dsn
}

/// Takes over the fields between two blank lines.
fn end_group(dsn: &mut Dsn, block: &mut Option<Block>, group: &mut Vec<(String, String)>) {
    let names_recipient = group.iter().any(|(name, _)| is_recipient_name(name));
    if let Some(open) = block.as_mut() {
        open.closed = names_recipient;
    }
    for (name, value) in group.drain(..) {
        dsn.fields = dsn.fields.saturating_add(1);
        if !message_field(&mut dsn.report, &name, &value) && is_recipient_field(&name) {
            let is_final = name == "final-recipient";
            if block.as_ref().is_some_and(|open| open.closed || (is_final && open.has_final)) {
                close(dsn, block.take());
            }
            recipient_field(block.get_or_insert_default(), &name, &value);
        }
    }
}

/// Ends a recipient: fills in what follows from the fields it has.
fn close(dsn: &mut Dsn, block: Option<Block>) {
    let Some(Block { mut facts, has_final, has_action, .. }) = block else { return };
    let text = facts.diagnostic.as_ref().map(|diagnostic| diagnostic.text.clone());
    let said = reason::of(text.as_deref().unwrap_or_default());
    facts.code = facts.code.or(said.code);
    if facts.command.is_none() {
        facts.command = said.command;
    }
    if facts.remote_mta.is_none() {
        facts.remote_mta = said.host;
    }
    facts.status = reason::better_status(facts.status, said.status);
    if !has_action {
        dsn.defects.push("no-action");
        let class = facts.status.map(|status| status.class);
        facts.action = match class.or(facts.code.map(reason::class_of)) {
            Some(2) => Action::Delivered,
            Some(4) => Action::Delayed,
            _ => Action::Failed,
        };
    }
    if facts.final_recipient.is_empty() {
        if let Some(original) = facts.original_recipient.take() {
            facts.final_recipient = original;
        }
    } else if !has_final {
        dsn.defects.push("no-final-recipient");
    }
    if facts.original_recipient.as_deref() == Some(facts.final_recipient.as_str()) {
        facts.original_recipient = None;
    }
    if facts.final_recipient.is_empty() {
        dsn.nameless.get_or_insert(facts);
    } else if dsn.report.recipients.len() < super::RECIPIENTS_MAX {
        dsn.report.recipients.push(facts);
    }
}

/// Takes over a field of the whole message (RFC 3464 §2.2); whether it was one.
fn message_field(report: &mut Report, name: &str, value: &str) -> bool {
    match name {
        "reporting-mta" => {
            report.reporting_mta.get_or_insert_with(|| host(value));
        }
        "arrival-date" => report.arrival_date = report.arrival_date.or(date(value)),
        "original-envelope-id" => {
            // RFC 3461 §6.3: no xtext stands here, so that a `+` is a plus sign.
            report.envelope_id.get_or_insert_with(|| value.to_owned());
        }
        "x-postfix-queue-id" | "x-zonemta-queue-id" | "x-queue-id" | "x-exim-message-id" => {
            report.queue_id.get_or_insert_with(|| value.to_owned());
        }
        "dsn-gateway" | "received-from-mta" | "x-postfix-sender" | "x-supplementary-info" => {}
        _ => return false,
    }
    true
}

/// Takes over a field of one recipient (RFC 3464 §2.3). The first of each name counts.
fn recipient_field(block: &mut Block, name: &str, value: &str) {
    let facts = &mut block.facts;
    match name {
        "final-recipient" => {
            block.has_final = true;
            if let Some(address) = of_field(value) {
                facts.final_recipient = address;
            }
        }
        "original-recipient" => facts.original_recipient = of_field(value),
        "x-actual-recipient" | "recipient" if facts.final_recipient.is_empty() => {
            facts.final_recipient = of_field(value).unwrap_or_default();
        }
        "action" if !block.has_action => {
            if let Some(action) = action(value) {
                facts.action = action;
                block.has_action = true;
            }
        }
        "status" if facts.status.is_none() => facts.status = status(value),
        "remote-mta" if facts.remote_mta.is_none() => facts.remote_mta = Some(host(value)),
        "diagnostic-code" if facts.diagnostic.is_none() => {
            let (kind, text) = typed(value);
            if !text.is_empty() {
                facts.diagnostic = Some(Diagnostic { kind, text: text.to_owned() });
            }
        }
        "will-retry-until" => facts.will_retry_until = date(value),
        _ => {}
    }
}

fn is_recipient_name(name: &str) -> bool {
    matches!(name, "final-recipient" | "original-recipient" | "x-actual-recipient" | "recipient")
}

fn is_recipient_field(name: &str) -> bool {
    is_recipient_name(name)
        || matches!(
            name,
            "action" | "status" | "remote-mta" | "diagnostic-code" | "will-retry-until"
        )
}

/// `Action` (RFC 3464 §2.3.3), and the words that real systems put there.
pub(super) fn action(value: &str) -> Option<Action> {
    let word = value.split(|c: char| !c.is_ascii_alphabetic()).find(|word| !word.is_empty())?;
    Some(match word.to_ascii_lowercase().as_str() {
        "failed" | "failure" | "fail" | "error" | "expired" | "bounced" | "permanent" => {
            Action::Failed
        }
        "delayed" | "delay" | "deferred" | "transient" => Action::Delayed,
        "delivered" | "deliverable" | "success" => Action::Delivered,
        "relayed" => Action::Relayed,
        "expanded" => Action::Expanded,
        _ => return None,
    })
}

/// `Status` (RFC 3464 §2.3.4), which may have a comment, or be a status and nothing but wrong.
pub(super) fn status(value: &str) -> Option<EnhancedStatus> {
    let word =
        value.split(|c: char| c.is_whitespace() || "(;,:".contains(c)).find(|w| !w.is_empty())?;
    EnhancedStatus::parse(word.trim_matches(['#', '[', ']', '.', '<', '>']))
}

/// `dns; host (comment)` without type and comment.
fn host(value: &str) -> String {
    let value = typed(value).1;
    let name = value.split(['(', ' ']).next().unwrap_or_default().trim();
    if name.is_empty() { value.to_owned() } else { name.to_owned() }
}

/// The date of a field (RFC 5322 §3.3); `None` where it is none or lies before 1970.
fn date(value: &str) -> Option<Timestamp> {
    let date = DateTime::parse_rfc822(value).filter(DateTime::is_valid)?;
    let seconds = u64::try_from(date.to_timestamp()).ok()?;
    Some(Timestamp::from_millis(seconds.saturating_mul(1000)))
}

/// Fields between two blank lines that are held together.
const GROUP_FIELDS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn recipients(text: &str) -> Vec<(String, Action, String)> {
        let dsn = read(text.as_bytes());
        let row = |r: &RecipientFacts| {
            let status = r.status.map(|s| s.to_string()).unwrap_or_default();
            (r.final_recipient.clone(), r.action, status)
        };
        dsn.report.recipients.iter().map(row).collect()
    }

    fn row(address: &str, action: Action, status: &str) -> (String, Action, String) {
        (address.to_owned(), action, status.to_owned())
    }

    #[test]
    fn every_recipient_is_read_however_the_blank_lines_fall() {
        use Action::{Delayed, Delivered, Failed};
        for (text, want) in [
            (
                "Reporting-MTA: dns; m\n\nFinal-Recipient: rfc822; a@b.c\nAction: failed\nStatus: 5.1.1\n\nFinal-Recipient: rfc822; d@e.f\nAction: delayed\nStatus: 4.4.1\n",
                vec![row("a@b.c", Failed, "5.1.1"), row("d@e.f", Delayed, "4.4.1")],
            ),
            (
                "Reporting-MTA: dns; m\nFinal-Recipient: rfc822; a@b.c\nAction: failed\nStatus: 5.1.1\nFinal-Recipient: rfc822; d@e.f\nAction: failed\nStatus: 5.2.2\n",
                vec![row("a@b.c", Failed, "5.1.1"), row("d@e.f", Failed, "5.2.2")],
            ),
            (
                "Final-Recipient : rfc822; a@b.c\r\n\r\nAction : failed\r\n\r\nStatus : 5.1.1 (no)\r\n",
                vec![row("a@b.c", Failed, "5.1.1")],
            ),
            (
                "Original-Recipient: rfc822; x@y.z\nFinal-Recipient: rfc822; a@b.c\nDiagnostic-Code: smtp;\n 550 5.1.10\n not here\nStatus: 5.0.0\n",
                vec![row("a@b.c", Failed, "5.1.10")],
            ),
            (
                "Action: delivered\nStatus: 2.0.0\nFinal-Recipient: rfc822; a@b.c\n\nAction: failed\nStatus: 5.0.0\nFinal-Recipient: rfc822; d@e.f\n",
                vec![row("a@b.c", Delivered, "2.0.0"), row("d@e.f", Failed, "5.0.0")],
            ),
            ("Reporting-MTA: dns; m\n", vec![]),
        ] {
            assert_eq!(recipients(text), want, "{text}");
        }
    }

    #[test]
    fn the_fields_of_the_message_and_of_a_recipient_are_all_kept() {
        let dsn = read(b"Reporting-MTA: dns; mx.example (x)\nOriginal-Envelope-Id: order+31\nX-Postfix-Queue-ID: 4AB\nArrival-Date: Wed, 12 Oct 2022 12:10:34 +0000\n\nFinal-Recipient: rfc822; a@b.c\nRemote-MTA: dns; mx.b.c\nWill-Retry-Until: Thu, 13 Oct 2022 12:10:34 +0000\nDiagnostic-Code: smtp; 450 4.2.0 later (in reply to RCPT TO command)\nAction: delayed\n");
        assert_eq!(dsn.report.reporting_mta.as_deref(), Some("mx.example"));
        assert_eq!(dsn.report.envelope_id.as_deref(), Some("order+31"));
        assert_eq!(dsn.report.queue_id.as_deref(), Some("4AB"));
        assert_eq!(dsn.report.arrival_date.map(|d| d.as_millis()), Some(1_665_576_634_000));
        let recipient = &dsn.report.recipients[0];
        assert_eq!(recipient.remote_mta.as_deref(), Some("mx.b.c"));
        assert_eq!((recipient.code, recipient.command.as_deref()), (Some(450), Some("RCPT")));
        assert_eq!(recipient.will_retry_until.map(|d| d.day()), Some(20_221_013));
    }

    #[test]
    fn a_block_without_an_address_is_kept_apart() {
        let dsn = read(b"Reporting-MTA: dns; m\n\nAction: failed\nStatus: 5.2.1\n");
        assert!(dsn.report.recipients.is_empty());
        assert_eq!(dsn.nameless.unwrap().status, Some(EnhancedStatus::new(5, 2, 1)));
    }
}
