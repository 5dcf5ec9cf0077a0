//! What a mail is: the order in which its possible kinds are tried.

use std::borrow::Cow;

use super::evidence::Evidence;
use super::facts::{Action, Defect, Diagnostic, Facts, RecipientFacts, Verdict};
use super::freeform::{self, Notice};
use super::mime::{self, Mail, Part};
use super::notice::Group;
use super::returned::{self, Split};
use super::{address, arf, autoreply, dsn, original, reason, sns};

/// Reads a mail.
pub(super) fn read(raw: &[u8]) -> Facts {
    read_at(raw, 0)
}

/// Reads a mail that lies `depth` mails deep inside the one that was handed in.
fn read_at(raw: &[u8], depth: usize) -> Facts {
    let raw = with_line_feeds(raw);
    let mail = mime::parse(&raw);
    let mut facts = Facts {
        message_id: mail.headers.raw("message-id").and_then(original::message_id),
        references: original::references(&mail.headers),
        notice: mail.headers.plain("x-rebound-notice"),
        ..Facts::default()
    };
    let evidence = Evidence::of(&mail);
    let known = arf::read(&mail, &mut facts)
        || arf::read_mdn(&mail, evidence.is_from_daemon(), &mut facts)
        || status_report(&mail, &evidence, &mut facts)
        || notice(&mail, &evidence, depth, &mut facts);
    if !known && let Some(rule) = autoreply::rule(&mail) {
        facts.verdict = Verdict::Autoreply;
        facts.because("verdict", rule);
    }
    for defect in &mail.defects {
        facts.defect(defect);
    }
    facts
}

/// Reads a report by its delivery-status part; whether it is one.
fn status_report(mail: &Mail<'_>, evidence: &Evidence, facts: &mut Facts) -> bool {
    let is_report = mail.kind == "multipart/report";
    let parts: Vec<&Part<'_>> = mail
        .parts
        .iter()
        .filter(|part| is_status(part, is_report))
        .take(STATUS_PARTS_MAX)
        .collect();
    if parts.is_empty() {
        return false;
    }
    if evidence.is_sent_by_hand(is_report) {
        facts.because("verdict", "detect.status-part-sent-by-hand");
        return false;
    }
    // Some systems write another part of that type in front of the real one.
    let mut read = parts.iter().map(|part| dsn::read(&part.octets(STATUS_BYTES_MAX)));
    let mut status = read.next().unwrap_or_default();
    if status.report.recipients.is_empty()
        && let Some(better) = read.find(|dsn| !dsn.report.recipients.is_empty())
    {
        status = better;
    }
    for defect in status.defects {
        facts.defect(defect);
    }
    facts.report = status.report;
    facts.original = original::embedded(mail).unwrap_or_default();
    let named = failed_recipients(mail);
    for recipient in &mut facts.report.recipients {
        // A pipe or a file is no recipient that anybody wrote to.
        if let ([only], false) = (named.as_slice(), recipient.final_recipient.contains('@')) {
            recipient.final_recipient.clone_from(only);
        }
    }
    let needs_text = facts.report.recipients.is_empty()
        || facts.original.message_id.is_none()
        || facts.report.recipients.iter().any(|r| r.diagnostic.is_none());
    if needs_text {
        let (split, notice) = own_text(mail, evidence);
        fill_in(facts, mail, status.nameless, &split, notice);
    }
    facts.verdict = verdict_of(&facts.report.recipients);
    facts.because("verdict", "dsn.delivery-status");
    true
}

/// Fills in what a delivery-status part left out, from the text beside it.
fn fill_in(
    facts: &mut Facts,
    mail: &Mail<'_>,
    nameless: Option<RecipientFacts>,
    split: &Split,
    notice: Notice,
) {
    if facts.report.recipients.is_empty() {
        facts.defect("no-recipient-in-status-part");
        let is_nameless = nameless.is_none();
        let said = nameless.unwrap_or_default();
        facts.report.recipients = recipients(mail, split, notice);
        for recipient in &mut facts.report.recipients {
            recipient.action = said.action;
            recipient.status = reason::better_status(said.status, recipient.status);
            if said.diagnostic.is_some() {
                recipient.diagnostic.clone_from(&said.diagnostic);
            }
            if is_nameless && delay_in(mail, &split.own) {
                recipient.action = Action::Delayed;
            }
        }
    } else {
        for recipient in facts.report.recipients.iter_mut().filter(|r| r.diagnostic.is_none()) {
            let same = notice.recipients.iter().find(|other| {
                other.final_recipient.eq_ignore_ascii_case(&recipient.final_recipient)
            });
            recipient.diagnostic = same.and_then(|other| other.diagnostic.clone()).or_else(|| {
                let text = notice.reply.clone().unwrap_or_else(|| notice.summary.clone());
                (!text.trim().is_empty()).then(|| Diagnostic { kind: String::new(), text })
            });
        }
    }
    printed_original(facts, split);
}

/// Reads a notice for people; whether it is one.
fn notice(mail: &Mail<'_>, evidence: &Evidence, depth: usize, facts: &mut Facts) -> bool {
    if !evidence.may_be_report() {
        return false;
    }
    if evidence.is_sns {
        let text = mail.parts.first().map(|part| part.text(TEXT_BYTES_MAX)).unwrap_or_default();
        if sns::read(&text, facts) {
            return true;
        }
    }
    let (split, notice) = own_text(mail, evidence);
    let embedded = original::embedded(mail);
    if evidence.is_sent_on(embedded.as_ref().or(split.original.as_ref())) {
        facts.because("verdict", "detect.report-sent-on");
        return false;
    }
    let returns_mail = split.returns_mail || embedded.is_some();
    let Some(rule) = evidence.decide(&notice, returns_mail) else { return false };
    facts.because("verdict", rule);
    if notice.recipients.is_empty() && enclosed(mail, &split, depth, facts) {
        return true;
    }
    facts.because("recipients", notice.rule);
    facts.original = embedded.unwrap_or_default();
    printed_original(facts, &split);
    let fields = printed_fields(&split.own);
    let is_delay = evidence.is_delay(&notice);
    let is_success = evidence.is_success(&notice);
    facts.report = fields.map(|dsn| dsn.report).unwrap_or_default();
    if facts.report.recipients.is_empty() {
        facts.report.recipients = recipients(mail, &split, notice);
        for recipient in &mut facts.report.recipients {
            if is_success {
                recipient.action = Action::Delivered;
            } else if is_delay {
                recipient.action = Action::Delayed;
            }
        }
    }
    facts.verdict = match verdict_of(&facts.report.recipients) {
        Verdict::Bounce if is_delay && facts.report.recipients.is_empty() => Verdict::Delayed,
        verdict => verdict,
    };
    true
}

/// Reads the report that a notice wraps, where the notice itself names nobody.
fn enclosed(mail: &Mail<'_>, split: &Split, depth: usize, facts: &mut Facts) -> bool {
    if depth >= ENCLOSED_DEPTH_MAX || !failed_recipients(mail).is_empty() {
        return false;
    }
    let part = mail.parts.iter().find(|part| part.is(&["message/rfc822"]));
    let inner = match part {
        Some(part) => read_at(&part.octets(ENCLOSED_BYTES_MAX), depth.saturating_add(1)),
        None if !split.returned.is_empty() => {
            read_at(split.returned.as_bytes(), depth.saturating_add(1))
        }
        None => return false,
    };
    if !matches!(inner.verdict, Verdict::Bounce | Verdict::Delayed)
        || inner.report.recipients.is_empty()
    {
        return false;
    }
    facts.verdict = inner.verdict;
    facts.report = inner.report;
    // What came back is the inner report; what that one names is a reference of this one.
    facts.original =
        original::embedded(mail).or_else(|| split.original.clone()).unwrap_or_default();
    facts.original.rebound_id = facts.original.rebound_id.or(inner.original.rebound_id);
    facts.references.extend(inner.original.message_id);
    facts.because("recipients", "notice.enclosed-report");
    true
}

/// The notice's own text, and what it says.
fn own_text(mail: &Mail<'_>, evidence: &Evidence) -> (Split, Notice) {
    let mut text = String::new();
    let mut html = None;
    for part in mail.parts.iter().filter(|part| !part.is_attachment) {
        if text.len() >= TEXT_BYTES_MAX || original::is_returned(part) {
            break;
        }
        if part.is(&["text/plain"]) || !part.kind.contains('/') {
            text.push_str(&part.text(TEXT_BYTES_MAX));
            text.push('\n');
        } else if part.is(&["text/html"]) && html.is_none() {
            html = Some(part);
        }
    }
    if text.trim().len() < 40
        && let Some(html) = html
    {
        text.push_str(&super::html::to_text(&html.text(TEXT_BYTES_MAX)));
    } else if looks_like_html(&text) {
        text = super::html::to_text(&text);
    }
    let split = returned::split(&text);
    let notice = freeform::read(&split.own, &evidence.own);
    (split, notice)
}

fn looks_like_html(text: &str) -> bool {
    let start = super::text::head(text.trim_start(), 14).to_ascii_lowercase();
    start.starts_with("<html") || start.starts_with("<!doctype html")
}

/// The fields of a delivery status that are printed in the text.
fn printed_fields(own: &str) -> Option<dsn::Dsn> {
    let has_recipient = super::text::contains_ignore_case(own, "final-recipient")
        || super::text::contains_ignore_case(own, "original-recipient");
    if !has_recipient {
        return None;
    }
    let dsn = dsn::read(own.as_bytes());
    (!dsn.report.recipients.is_empty()).then_some(dsn)
}

/// The recipients of a notice: of `X-Failed-Recipients`, of the text, else of the mail that
/// was returned.
fn recipients(mail: &Mail<'_>, split: &Split, notice: Notice) -> Vec<RecipientFacts> {
    let named = failed_recipients(mail);
    let fallback = notice.reply.clone().unwrap_or_else(|| notice.summary.clone());
    let mut found = notice.recipients;
    if !named.is_empty() {
        let mut all = Vec::new();
        for address in named {
            let same = |r: &&RecipientFacts| {
                r.final_recipient.eq_ignore_ascii_case(&address)
                    || r.original_recipient
                        .as_deref()
                        .is_some_and(|o| o.eq_ignore_ascii_case(&address))
            };
            let said = found.iter().find(same).cloned();
            all.push(RecipientFacts { final_recipient: address, ..said.unwrap_or_default() });
        }
        found = all;
    }
    if found.is_empty() {
        let weak = notice.weak.into_iter().next();
        let address = weak.filter(|to| address::is_complete(to)).or_else(|| {
            let original = split.original.clone().or_else(|| original::embedded(mail))?;
            only_recipient(&original)
        });
        let unnamed =
            |address| RecipientFacts { final_recipient: address, ..RecipientFacts::default() };
        found.extend(address.map(unnamed));
    }
    for recipient in found.iter_mut().filter(|r| r.diagnostic.is_none()) {
        let said = reason::of(&fallback);
        recipient.code = recipient.code.or(said.code);
        recipient.status = recipient.status.or(said.status);
        recipient.command = recipient.command.take().or(said.command);
        let text = fallback.trim().to_owned();
        recipient.diagnostic = (!text.is_empty()).then(|| Diagnostic { kind: String::new(), text });
    }
    found
}

/// The one address that a returned mail was for.
fn only_recipient(original: &super::facts::Original) -> Option<String> {
    ["x-failed-recipients", "x-original-to", "delivered-to", "to"].iter().find_map(|name| {
        let (_, values) = original.headers.iter().find(|(known, _)| known == name)?;
        let value = values.first()?;
        match address::scan(value).as_slice() {
            [only] => Some(only.text.to_owned()),
            _ => None,
        }
    })
}

/// Takes over what is printed of the original, where no part of it is embedded.
fn printed_original(facts: &mut Facts, split: &Split) {
    if facts.original.message_id.is_some() {
        return;
    }
    if let Some(printed) = &split.original {
        if facts.original.headers.is_empty() {
            facts.original = printed.clone();
        } else {
            facts.original.message_id.clone_from(&printed.message_id);
        }
        facts.because("original.message_id", "returned.printed-header");
    }
    if facts.original.message_id.is_none() {
        // A line in the text may give the id of the report itself, which names nothing of ours.
        let printed = returned::printed_id(&split.own);
        facts.original.message_id = printed.filter(|id| facts.message_id.as_ref() != Some(id));
    }
}

/// Whether the text of a report, or its subject, says that it is tried again.
fn delay_in(mail: &Mail<'_>, own: &str) -> bool {
    let subject = mail.headers.text("subject").unwrap_or_default();
    let text = format!("{subject} {}", super::text::head(own, 4000)).to_lowercase();
    let words = super::notice::Words::of(&text);
    words.has(Group::Delay) && !words.has(Group::Final)
}

/// Whether a part is a delivery status: by its type, or in a report by its fields.
fn is_status(part: &Part<'_>, is_report: bool) -> bool {
    if part.is(&[
        "message/delivery-status",
        "message/global-delivery-status",
        "message/xdelivery-status",
        "text/delivery-status",
    ]) {
        return true;
    }
    is_report
        && part.is(&["text/plain", "message/rfc822", "application/octet-stream"])
        && super::text::starts_with_ignore_case(part.body.trim_ascii_start(), b"reporting-mta:")
}

/// The verdict that follows from what happened to the recipients.
fn verdict_of(recipients: &[RecipientFacts]) -> Verdict {
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
fn failed_recipients(mail: &Mail<'_>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, value) in
        mail.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(b"x-failed-recipients"))
    {
        let value = super::text::unfold(value);
        for address in address::scan(&value) {
            let address = address.text.to_owned();
            if found.len() < FAILED_RECIPIENTS_MAX && !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
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
/// Delivery-status parts of one mail that are read.
const STATUS_PARTS_MAX: usize = 8;
/// Octets of a notice's text that are read.
const TEXT_BYTES_MAX: usize = 131_072;
/// Addresses of `X-Failed-Recipients` that are kept.
const FAILED_RECIPIENTS_MAX: usize = 200;
/// Reports inside reports that are read.
const ENCLOSED_DEPTH_MAX: usize = 2;
/// Octets of an enclosed report that are read.
const ENCLOSED_BYTES_MAX: usize = 262_144;
/// Rules that are noted.
const WHY_MAX: usize = 200;
