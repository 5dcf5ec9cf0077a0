//! What a mail is: the order in which its possible kinds are tried.

use std::borrow::Cow;

use super::facts::{Action, Defect, Facts, RecipientFacts, Verdict};
use super::mime::{self, Mail, Part};
use super::original;
use super::{arf, autoreply, dsn};

/// Reads a mail.
pub(super) fn read(raw: &[u8]) -> Facts {
    let raw = with_line_feeds(raw);
    let mail = mime::parse(&raw);
    let mut facts = Facts {
        message_id: mail.headers.raw("message-id").and_then(original::message_id),
        references: original::references(&mail.headers),
        notice: mail.headers.plain("x-rebound-notice"),
        ..Facts::default()
    };
    let known = arf::read(&mail, &mut facts)
        || arf::read_mdn(&mail, &mut facts)
        || status_report(&mail, &mut facts);
    if !known && let Some(rule) = autoreply::rule(&mail) {
        facts.verdict = Verdict::Autoreply;
        facts.because("verdict", rule);
    }
    for defect in &mail.defects {
        facts.defect(defect);
    }
    // The id of the report is not the id of what it reports.
    if facts.original.message_id.is_some() && facts.original.message_id == facts.message_id {
        facts.original.message_id = None;
        facts.defect("original-has-own-id");
    }
    facts
}

/// Reads a report by its delivery-status part; whether it is one.
fn status_report(mail: &Mail<'_>, facts: &mut Facts) -> bool {
    let is_report = mail.kind == "multipart/report";
    let Some(part) = mail.parts.iter().find(|part| is_status(part, is_report)) else {
        return false;
    };
    if !is_report && !is_from_daemon(mail) {
        facts.because("verdict", "detect.status-part-sent-by-hand");
        return false;
    }
    let dsn = dsn::read(&part.octets(STATUS_BYTES_MAX));
    for defect in dsn.defects {
        facts.defect(defect);
    }
    facts.report = dsn.report;
    if facts.report.recipients.is_empty() {
        let said = dsn.nameless.unwrap_or_default();
        let named = failed_recipients(mail);
        facts.report.recipients = named
            .into_iter()
            .map(|address| RecipientFacts { final_recipient: address, ..said.clone() })
            .collect();
        facts.defect("no-recipient-in-status-part");
    }
    facts.original = original::embedded(mail).unwrap_or_default();
    facts.verdict = verdict_of(&facts.report.recipients);
    facts.because("verdict", "dsn.delivery-status");
    true
}

/// Whether a part is a delivery status: by its type, or in a report by its fields.
fn is_status(part: &Part<'_>, is_report: bool) -> bool {
    if part.is(&[
        "message/delivery-status",
        "message/global-delivery-status",
        "text/delivery-status",
    ]) {
        return true;
    }
    is_report
        && part.is(&["text/plain", "message/rfc822", "application/octet-stream"])
        && super::text::starts_with_ignore_case(part.body.trim_ascii_start(), b"reporting-mta:")
}

/// The verdict that follows from what happened to the recipients.
pub(super) fn verdict_of(recipients: &[RecipientFacts]) -> Verdict {
    let any = |action: Action| recipients.iter().any(|r| r.action == action);
    if recipients.is_empty() || any(Action::Failed) {
        Verdict::Bounce
    } else if any(Action::Delayed) {
        Verdict::Delayed
    } else {
        Verdict::Delivered
    }
}

/// The addresses of `X-Failed-Recipients`.
pub(super) fn failed_recipients(mail: &Mail<'_>) -> Vec<String> {
    let value = mail.headers.plain("x-failed-recipients").unwrap_or_default();
    let mut found: Vec<String> = Vec::new();
    for address in value.split([',', ';']).filter_map(super::address::clean) {
        if address.contains('@') && found.len() < 100 && !found.contains(&address) {
            found.push(address);
        }
    }
    found
}

/// Whether a machine that delivers mail wrote it.
pub(super) fn is_from_daemon(mail: &Mail<'_>) -> bool {
    let field = |name: &str| mail.headers.text(name).unwrap_or_default().to_lowercase();
    let from = field("from");
    let names = ["mailer-daemon", "postmaster", "mail delivery", "mailerdaemon", "mail-daemon"];
    from.trim().is_empty()
        || from.contains("<>")
        || names.iter().any(|name| from.contains(name))
        || field("return-path").contains("<>")
}

impl Facts {
    /// Notes which rule produced a fact.
    pub(super) fn because(&mut self, fact: &str, rule: &str) {
        if self.why.len() < WHY_MAX {
            self.why.push(super::facts::Why { fact: fact.to_owned(), rule: rule.to_owned() });
        }
    }

    /// Notes a defect, once.
    pub(super) fn defect(&mut self, name: &str) {
        if !self.defects.iter().any(|known| known.0 == name) {
            self.defects.push(Defect(name.to_owned()));
        }
    }
}

/// Mail whose lines end in CR alone, as some old systems store it, with LF instead.
fn with_line_feeds(raw: &[u8]) -> Cow<'_, [u8]> {
    if raw.contains(&b'\n') || !raw.contains(&b'\r') {
        return Cow::Borrowed(raw);
    }
    Cow::Owned(raw.iter().map(|octet| if *octet == b'\r' { b'\n' } else { *octet }).collect())
}

/// Octets of a delivery-status part that are read.
const STATUS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Rules that are noted.
const WHY_MAX: usize = 200;
