//! Complaints (RFC 5965 and the older Hotmail form) and disposition notifications (RFC 8098).

use super::address::{clean, is_complete, of_field};
use super::facts::{Action, Facts, RecipientFacts, Verdict};
use super::headers::Headers;
use super::mime::Mail;
use super::original;

/// Reads a feedback report; whether it is one.
pub(super) fn read(mail: &Mail<'_>, facts: &mut Facts) -> bool {
    let report = mail.parts.iter().find(|part| part.is(&["message/feedback-report"]));
    if report.is_none() && mail.report_type != "feedback-report" {
        return hotmail(mail, facts);
    }
    facts.verdict = Verdict::Complaint;
    facts.because("verdict", "arf.feedback-report");
    facts.original = original::embedded(mail).unwrap_or_default();
    if let Some(report) = report {
        let octets = report.octets(REPORT_BYTES_MAX);
        let fields = Headers::parse(&octets);
        facts.report.feedback_type = fields.plain("feedback-type").map(|t| t.to_ascii_lowercase());
        facts.report.reporting_mta =
            fields.plain("reporting-mta").map(|mta| super::address::typed(&mta).1.to_owned());
        facts.report.envelope_id = fields.plain("original-envelope-id");
        // RFC 5965 §3.2 allows one of these fields per recipient.
        for (name, body) in fields.iter() {
            let is_recipient = name.eq_ignore_ascii_case(b"original-rcpt-to")
                || name.eq_ignore_ascii_case(b"removal-recipient")
                || name.eq_ignore_ascii_case(b"redacted-address");
            if is_recipient && let Some(address) = of_field(&super::text::unfold(body)) {
                complained(facts, address);
            }
        }
    }
    if facts.report.recipients.is_empty() {
        recipients_of_original(facts);
    }
    true
}

/// Whether the subject is the one of the Hotmail form.
pub(super) fn is_complaint_by_subject(mail: &Mail<'_>) -> bool {
    let subject = mail.headers.text("subject").unwrap_or_default();
    super::text::starts_with_ignore_case(subject.as_bytes(), b"complaint about message from")
}

/// The Hotmail form: From staff@hotmail.com, the mail complained of attached.
fn hotmail(mail: &Mail<'_>, facts: &mut Facts) -> bool {
    if !is_complaint_by_subject(mail) {
        return false;
    }
    let Some(found) = original::embedded(mail) else { return false };
    facts.verdict = Verdict::Complaint;
    facts.because("verdict", "arf.hotmail");
    facts.report.feedback_type = Some("abuse".to_owned());
    let value = |name: &str| {
        let field = found.headers.iter().find(|(known, _)| known == name);
        field.and_then(|(_, values)| values.first()).and_then(|value| clean(value))
    };
    let recipient = value("x-hmxmroriginalrecipient").or_else(|| value("to"));
    facts.original = found;
    if let Some(address) = recipient {
        complained(facts, address);
    }
    true
}

/// Reads a disposition notification; whether it is one. It is never about a delivery.
///
/// A delivery agent that throws a mail away and says so in this form (Dovecot does) does not
/// tell of a person who has seen it: that is left to be read as a notice.
pub(super) fn read_mdn(mail: &Mail<'_>, from_daemon: bool, facts: &mut Facts) -> bool {
    let part = mail.parts.iter().find(|part| {
        part.is(&["message/disposition-notification", "message/global-disposition-notification"])
    });
    if part.is_none() && mail.report_type != "disposition-notification" {
        return false;
    }
    let octets = part.map(|part| part.octets(REPORT_BYTES_MAX)).unwrap_or_default();
    let fields = Headers::parse(&octets);
    let disposition = fields.plain("disposition").unwrap_or_default();
    if from_daemon && super::text::contains_ignore_case(&disposition, "deleted") {
        return false;
    }
    facts.verdict = Verdict::Mdn;
    facts.because("verdict", "mdn.disposition-notification");
    facts.original = original::embedded(mail).unwrap_or_default();
    if let Some(id) = fields.raw("original-message-id").and_then(original::message_id) {
        facts.original.message_id = Some(id);
    }
    if let Some(address) = fields.plain("final-recipient").and_then(|value| of_field(&value)) {
        facts.report.recipients.push(RecipientFacts {
            final_recipient: address,
            original_recipient: fields.plain("original-recipient").and_then(|v| of_field(&v)),
            action: Action::Delivered,
            ..RecipientFacts::default()
        });
    }
    true
}

fn recipients_of_original(facts: &mut Facts) {
    let to = facts.original.headers.iter().find(|(name, _)| name == "to");
    let address = to.and_then(|(_, values)| values.first()).and_then(|value| clean(value));
    if let Some(address) = address.filter(|address| is_complete(address)) {
        complained(facts, address);
    }
}

fn complained(facts: &mut Facts, address: String) {
    let known = &facts.report.recipients;
    if known.len() < super::RECIPIENTS_MAX
        && !known.iter().any(|r| r.final_recipient.eq_ignore_ascii_case(&address))
    {
        // The mail was delivered: somebody read it, and complained.
        facts.report.recipients.push(RecipientFacts {
            final_recipient: address,
            action: Action::Delivered,
            ..RecipientFacts::default()
        });
    }
}

/// Octets of the machine-readable part that are read.
const REPORT_BYTES_MAX: usize = 65_536;
