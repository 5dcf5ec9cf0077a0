//! The facts of a mail in the shape that is shown: one JSON object per mail.

use serde::Serialize;

use super::classify::{Classification, Subject};
use super::facts::{Facts, RecipientFacts, Verdict};
use super::rules::Rules;
use crate::mail::{MessageId, QueueId};

/// What was read from a mail, classified and flattened for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct Parsed {
    /// Whether it tells of a failure or a delay.
    pub is_bounce: bool,
    /// The verdict; `other` for a disposition notification.
    pub kind: &'static str,
    /// `mdn`, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subkind: Option<&'static str>,
    /// What it says of each recipient.
    pub recipients: Vec<ParsedRecipient>,
    /// The Message-ID of the mail that it is about, without angle brackets.
    pub original_message_id: Option<MessageId>,
    /// The Message-ID of the mail itself.
    pub message_id: Option<MessageId>,
    /// The ids in its `In-Reply-To` and `References`.
    pub references: Vec<MessageId>,
    /// Who wrote the report.
    pub reporting_mta: Option<String>,
    /// When the mail it is about arrived there.
    pub arrival_date: Option<String>,
    /// The `ENVID` of the mail it is about.
    pub envelope_id: Option<String>,
    /// The reporting MTA's name for that mail.
    pub queue_id: Option<String>,
    /// What kind of complaint it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feedback_type: Option<String>,
    /// What is known of the mail it is about.
    pub original: ParsedOriginal,
    /// What was wrong with its form.
    pub defects: Vec<super::facts::Defect>,
    /// Which rule produced what.
    pub why: Vec<super::facts::Why>,
}

/// What is known of the mail that a report is about, besides its Message-ID.
#[derive(Clone, Debug, Serialize)]
pub struct ParsedOriginal {
    /// The queue id in its `X-Rebound-Id` field.
    pub rebound_id: Option<QueueId>,
    /// Its header.
    pub headers: Headers,
}

/// A header as JSON shows it: lower-case names, each with its values in order.
#[derive(Clone, Debug)]
pub struct Headers(pub Vec<(String, Vec<String>)>);

impl Serialize for Headers {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, values)| (name, values)))
    }
}

/// One recipient of a report.
#[derive(Clone, Debug, Serialize)]
pub struct ParsedRecipient {
    /// The address that the report is about.
    pub address: String,
    /// The address as the sender gave it, where it is another.
    pub original_recipient: Option<String>,
    /// What happened.
    pub action: &'static str,
    /// The enhanced status.
    pub status: Option<String>,
    /// The SMTP code.
    pub code: Option<u16>,
    /// The type of the diagnostic.
    pub diagnostic_type: Option<String>,
    /// The reply or explanation.
    pub diagnostic: Option<String>,
    /// Who gave the reply.
    pub remote_mta: Option<String>,
    /// The SMTP command that was answered.
    pub command: Option<String>,
    /// Until when it is tried again.
    pub will_retry_until: Option<String>,
    /// Category, recommended action, fault; absent where nothing failed.
    #[serde(flatten)]
    pub classification: Option<Classification>,
}

impl Parsed {
    /// Puts the facts of a mail into their shape.
    pub fn new(facts: Facts, rules: &Rules) -> Self {
        let is_bounce = matches!(facts.verdict, Verdict::Bounce | Verdict::Delayed);
        let recipients = facts.report.recipients.into_iter().map(|recipient| {
            let classification = is_bounce.then(|| recipient.classify(rules));
            ParsedRecipient::new(recipient, classification)
        });
        Self {
            is_bounce,
            kind: facts.verdict.kind(),
            subkind: (facts.verdict == Verdict::Mdn).then_some("mdn"),
            recipients: recipients.collect(),
            original_message_id: facts.original.message_id.clone(),
            message_id: facts.message_id,
            references: facts.references,
            reporting_mta: facts.report.reporting_mta,
            arrival_date: facts.report.arrival_date.map(|date| date.rfc3339()),
            envelope_id: facts.report.envelope_id,
            queue_id: facts.report.queue_id,
            feedback_type: facts.report.feedback_type,
            original: ParsedOriginal {
                rebound_id: facts.original.rebound_id,
                headers: Headers(facts.original.headers),
            },
            defects: facts.defects,
            why: facts.why,
        }
    }
}

impl ParsedRecipient {
    fn new(recipient: RecipientFacts, classification: Option<Classification>) -> Self {
        let (diagnostic_type, diagnostic) = match recipient.diagnostic {
            Some(found) => (Some(found.kind).filter(|kind| !kind.is_empty()), Some(found.text)),
            None => (None, None),
        };
        Self {
            address: recipient.final_recipient,
            original_recipient: recipient.original_recipient,
            action: recipient.action.as_str(),
            status: recipient.status.map(|status| status.to_string()),
            code: recipient.code,
            diagnostic_type,
            diagnostic,
            remote_mta: recipient.remote_mta,
            command: recipient.command,
            will_retry_until: recipient.will_retry_until.map(|date| date.rfc3339()),
            classification,
        }
    }
}

impl RecipientFacts {
    /// Classifies what the report says of this recipient.
    pub fn classify(&self, rules: &Rules) -> Classification {
        let (kind, text) = match &self.diagnostic {
            Some(found) => (found.kind.as_str(), found.text.as_str()),
            None => ("", ""),
        };
        let command = self.command.as_deref();
        // The number of a program's exit says nothing without its type.
        let typed = format!("{kind}; {text}");
        let text = if matches!(kind, "" | "smtp") { text } else { typed.as_str() };
        rules.classify(&Subject { code: self.code, status: self.status, text, command })
    }
}

impl Verdict {
    /// The word for it in JSON; a disposition notification is `other` there.
    const fn kind(self) -> &'static str {
        match self {
            Self::Bounce => "bounce",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Complaint => "complaint",
            Self::Autoreply => "autoreply",
            Self::Mdn | Self::Other => "other",
        }
    }
}
