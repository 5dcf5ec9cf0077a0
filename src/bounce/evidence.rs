//! What speaks for a mail being a report, and against it, besides what it says.

use super::address;
use super::facts::{Original, RecipientFacts};
use super::freeform::Notice;
use super::mime::Mail;
use super::notice::{Group, Words};
use super::reason;

/// What the header of a mail says about who wrote it and why.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence {
    /// A mail delivery agent is named in `From`.
    from_daemon: bool,
    /// What is named there may as well be a person's office.
    from_office: bool,
    /// The subject is that of an automatic answer.
    is_autoreply: bool,
    /// The return path is null or a mail delivery agent's.
    null_path: bool,
    /// There is an `X-Failed-Recipients` field.
    failed_recipients: bool,
    /// Which words the subject has.
    subject: Words,
    /// The subject answers or forwards another.
    is_answer: bool,
    /// It came through a mailing list, or is a newsletter.
    is_list: bool,
    /// It says by its type that it is a report about a delivery.
    is_report: bool,
    /// A person's program wrote it, or it answers another mail.
    is_person: bool,
    /// It is a notification of Amazon SNS.
    pub(super) is_sns: bool,
    /// The software of a mailing list is named in `From`.
    from_list_software: bool,
    /// A product that reports failures is named.
    is_product: bool,
    /// The notice's own addresses, in lower case.
    pub(super) own: Vec<String>,
}

impl Evidence {
    /// Looks at the header of a mail.
    pub(super) fn of(mail: &Mail<'_>) -> Self {
        let headers = &mail.headers;
        let text = |name: &str| headers.text(name).unwrap_or_default().to_lowercase();
        let from = text("from");
        let path = text("return-path");
        let subject = text("subject");
        let own = ["from", "to", "reply-to", "sender", "errors-to"]
            .iter()
            .flat_map(|name| {
                let value = text(name);
                address::scan(&value)
                    .into_iter()
                    .map(|found| found.text.to_owned())
                    .collect::<Vec<_>>()
            })
            .take(OWN_MAX)
            .collect();
        Self {
            from_daemon: is_daemon(&from),
            from_office: is_daemon(&from) && is_office(&from),
            is_autoreply: super::autoreply::is_subject(&subject),
            null_path: path.trim() == "<>" || (is_daemon(&path) && !is_office(&path)),
            failed_recipients: headers.has("x-failed-recipients"),
            is_answer: is_answer(&subject),
            subject: Words::of(&subject),
            is_list: headers.has("list-unsubscribe")
                || headers.has("list-id")
                || headers.has("list-post"),
            is_report: mail.report_type == "delivery-status",
            is_person: headers.has("user-agent")
                || headers.has("in-reply-to")
                || subject.trim_end().ends_with('?'),
            is_sns: from.contains("sns.amazonaws.com") || headers.has("x-amz-sns-message-id"),
            from_list_software: ["-admin@", "-owner@", "-request@", "-bounces@"]
                .iter()
                .any(|mark| from.contains(mark)),
            is_product: PRODUCTS.iter().any(|name| from.contains(name)),
            own,
        }
    }

    /// Whether a person sent it on: what it returns is itself a report.
    pub(super) fn is_sent_on(&self, original: Option<&Original>) -> bool {
        let from = original
            .and_then(|original| original.headers.iter().find(|(name, _)| name == "from"))
            .and_then(|(_, values)| values.first());
        !self.has_sender() && from.is_some_and(|from| is_daemon(&from.to_lowercase()))
    }

    /// Whether it is worth reading the text.
    pub(super) fn may_be_report(&self) -> bool {
        self.has_sender() || self.is_sns || self.is_product || self.subject.has(Group::Subject)
    }

    /// Whether a mail with a delivery-status part was sent by a person, who attached it.
    pub(super) fn is_sent_by_hand(&self, is_report: bool) -> bool {
        let has_subject = self.subject.has(Group::Subject) || self.subject.has(Group::Delay);
        if is_report {
            return self.is_answer && !self.has_sender();
        }
        !self.has_sender() && (self.is_answer || !has_subject)
    }

    /// Which rule makes a report of a notice that was read.
    pub(super) fn decide(&self, notice: &Notice, returns_mail: bool) -> Option<&'static str> {
        let words = notice.words;
        let names_one = !notice.recipients.is_empty();
        let says_so = words.has(Group::Failure) || words.has(Group::Delay);
        let has_subject = self.subject.has(Group::Subject);
        if self.failed_recipients && (self.from_daemon || says_so) {
            return Some("notice.x-failed-recipients");
        }
        if self.is_report && self.from_daemon && has_subject {
            return Some("notice.report-without-status");
        }
        if self.is_answer && !self.from_daemon && !(self.null_path && has_subject) {
            // People quote and forward reports; only a machine's own answer reports anew.
            return (Self::is_report_by_form(notice) && has_subject && !self.is_list)
                .then_some("notice.answer-by-form");
        }
        let has_form = has_subject || returns_mail || notice.is_structured;
        // Who only writes about failures neither returns a mail nor quotes a reply.
        let proves = returns_mail || notice.has_code;
        if self.is_something_else(notice, proves, has_form) {
            return None;
        }
        let tells = says_so && (names_one || proves || has_subject);
        if self.from_daemon && (tells || (has_subject && (names_one || returns_mail))) {
            let is_other =
                words.has(Group::Autoreply) && !names_one && !returns_mail && !has_subject;
            return (!is_other).then_some("notice.from-daemon");
        }
        if self.is_form(notice, returns_mail) {
            return Some("notice.by-form");
        }
        if self.null_path && says_so && has_form && (names_one || proves) {
            // Who is away may return the mail, too, but quotes no reply to it.
            let is_other = words.has(Group::Autoreply);
            let is_report = !is_other || has_subject || (returns_mail && notice.has_code);
            return is_report.then_some("notice.null-return-path");
        }
        if (self.is_list && !returns_mail) || self.is_person || notice.summary.contains('?') {
            return None;
        }
        let is_named = notice.is_structured || (self.from_list_software && names_one);
        let is_thing = words.has(Group::Things);
        if has_subject && says_so && is_named && !is_thing && !words.has(Group::Autoreply) {
            return Some("notice.subject-and-text");
        }
        (has_subject && returns_mail && says_so && !is_thing)
            .then_some("notice.subject-and-returned-mail")
    }

    /// Whether a notice that no delivery agent wrote under its own name is an answer, a challenge
    /// or a message about parcels; `proves` says that it returns a mail or quotes a reply.
    fn is_something_else(&self, notice: &Notice, proves: bool, has_form: bool) -> bool {
        if self.from_daemon && !self.from_office {
            return false;
        }
        let words = notice.words;
        let is_challenge = words.has(Group::Challenge) && !notice.has_code;
        let is_thing = words.has(Group::Things) && !proves;
        // A postmaster is a person, too, and answers mail.
        let is_office_mail = self.from_office && !self.null_path;
        let says_nothing = !proves && notice.recipients.is_empty();
        let is_by_person = is_office_mail && (!has_form || says_nothing || self.is_answer);
        self.is_autoreply || is_challenge || is_thing || is_by_person
    }

    /// Whether a notice without a failure tells by its subject of a success.
    pub(super) fn is_success(&self, notice: &Notice) -> bool {
        self.subject.has(Group::Success)
            && !self.subject.has(Group::Delay)
            && !notice.has_code
            && !notice.words.has(Group::Final)
    }

    /// Whether sender, list of recipients and returned mail make a report of a notice, in
    /// whatever language it is written.
    fn is_form(&self, notice: &Notice, returns_mail: bool) -> bool {
        let words = notice.words;
        let is_other = self.is_autoreply || words.has(Group::Autoreply);
        let is_machine = self.from_daemon && !self.from_office;
        let has_sender = is_machine || (self.null_path && (self.from_daemon || notice.has_code));
        notice.is_structured && returns_mail && !is_other && has_sender
    }

    /// Whether a notice has the form of a report although its sender does not.
    fn is_report_by_form(notice: &Notice) -> bool {
        notice.recipients.len() == 1
            && notice.words.has(Group::Failure)
            && !notice.words.has(Group::Things)
            && notice.summary.len() < 600
            && !notice.summary.contains("wrote:")
            && !notice.summary.to_ascii_lowercase().contains("forwarded message")
    }

    /// Whether a notice tells of a delay rather than a failure.
    pub(super) fn is_delay(&self, notice: &Notice) -> bool {
        let says = notice.words.has(Group::Delay) || self.subject.has(Group::Delay);
        // What is refused for good is not tried again, whatever the text says of other cases.
        let is_refused = |recipient: &RecipientFacts| {
            let class = recipient.status.map(|status| status.class);
            class.or(recipient.code.map(reason::class_of)) == Some(5)
        };
        let all_refused = !notice.recipients.is_empty() && notice.recipients.iter().all(is_refused);
        says && !all_refused && !notice.words.has(Group::Final) && !self.subject.has(Group::Final)
    }

    /// Whether a mail delivery agent wrote it in its own name.
    pub(super) fn is_from_daemon(&self) -> bool {
        self.from_daemon
    }

    fn has_sender(&self) -> bool {
        self.from_daemon || self.null_path || self.failed_recipients
    }
}

/// Whether a `From` or `Return-Path` names a mail delivery agent.
fn is_daemon(value: &str) -> bool {
    value.contains("<>") || DAEMONS.iter().any(|name| value.contains(name))
}

/// Whether the only delivery agent that is named is one that people write from, too.
fn is_office(value: &str) -> bool {
    let rest = OFFICES.iter().fold(value.to_owned(), |rest, name| rest.replace(name, ""));
    !is_daemon(&rest)
}

fn is_answer(subject: &str) -> bool {
    let subject = subject.trim_start();
    ["re:", "fwd:", "fw:", "aw:", "wg:", "sv:", "antw:", "tr:", "rv:", "r:", "[fwd:", "re "]
        .iter()
        .any(|mark| subject.starts_with(mark))
}

const DAEMONS: &[&str] = &[
    "mailer-daemon",
    "mailerdaemon",
    "mailer daemon",
    "mail-daemon",
    "postmaster",
    "mail delivery",
    "mail administrator",
    "delivery subsystem",
    "system administrator",
    "mail system",
    "internet mail delivery",
    "mailsystem",
    "mail-system",
    "smtp_mail_service",
    "mdaemon",
    "microsoft outlook",
    "microsoft exchange",
];
/// Those of them that people write from, too.
const OFFICES: &[&str] =
    &["postmaster", "system administrator", "mail administrator", "microsoft outlook"];
/// Addresses of the notice itself that are kept.
const OWN_MAX: usize = 50;
/// Products that write reports in their own name.
const PRODUCTS: &[&str] = &["symantec_antivirus", "imss@", "interscan", "mailmarshal", "mailscan"];
