//! What was read from a mail.

use serde::{Deserialize, Serialize};

use crate::mail::{EnhancedStatus, MessageId, QueueId, Timestamp};

/// Everything that `read` found in one mail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// What the mail is.
    pub verdict: Verdict,
    /// What it reports; empty for an auto-reply and anything else that reports nothing.
    pub report: Report,
    /// What is known of the mail that it is about.
    pub original: Original,
    /// The report's own Message-ID.
    #[serde(default)]
    pub message_id: Option<MessageId>,
    /// The ids in the report's own `In-Reply-To` and `References`.
    #[serde(default)]
    pub references: Vec<MessageId>,
    /// The value of the report's own `X-Rebound-Notice` field: set on mail that we wrote.
    #[serde(default)]
    pub notice: Option<String>,
    /// What was wrong with its form.
    #[serde(default)]
    pub defects: Vec<Defect>,
    /// Which rule produced what.
    #[serde(default)]
    pub why: Vec<Why>,
}

/// What a mail is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It reports at least one recipient as failed.
    Bounce,
    /// It reports a delay, and no failure.
    Delayed,
    /// It reports deliveries (delivered, relayed, expanded), and neither failure nor delay.
    Delivered,
    /// A feedback report: a person called the mail spam (RFC 5965).
    Complaint,
    /// A machine's answer to the mail, not about its delivery.
    Autoreply,
    /// A message disposition notification (RFC 8098).
    Mdn,
    /// Anything else.
    #[default]
    Other,
}

/// What a report says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// `Reporting-MTA`, the name without its type (RFC 3464 §2.2.2).
    #[serde(default)]
    pub reporting_mta: Option<String>,
    /// `Arrival-Date` (RFC 3464 §2.2.5).
    #[serde(default)]
    pub arrival_date: Option<Timestamp>,
    /// `Original-Envelope-Id` (RFC 3464 §2.2.1), xtext decoded.
    #[serde(default)]
    pub envelope_id: Option<String>,
    /// The reporting MTA's own name for the mail (`X-Postfix-Queue-ID` and the like).
    #[serde(default)]
    pub queue_id: Option<String>,
    /// `Feedback-Type` of a complaint (RFC 5965 §3.1).
    #[serde(default)]
    pub feedback_type: Option<String>,
    /// What it says of each recipient, in the order of the report.
    #[serde(default)]
    pub recipients: Vec<RecipientFacts>,
}

/// What a report says of one recipient.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RecipientFacts {
    /// The address that the report is about (`Final-Recipient`), without its type.
    pub final_recipient: String,
    /// The address as the sender gave it (`Original-Recipient`, `expanded from`).
    #[serde(default)]
    pub original_recipient: Option<String>,
    /// What happened.
    pub action: Action,
    /// The enhanced status; `None` where the report gives none.
    #[serde(default)]
    pub status: Option<EnhancedStatus>,
    /// The SMTP code of the reply that the report quotes.
    #[serde(default)]
    pub code: Option<u16>,
    /// The reply or explanation.
    #[serde(default)]
    pub diagnostic: Option<Diagnostic>,
    /// `Remote-MTA`: who gave the reply, without its type.
    #[serde(default)]
    pub remote_mta: Option<String>,
    /// The SMTP command that was answered, such as `RCPT`.
    #[serde(default)]
    pub command: Option<String>,
    /// `Will-Retry-Until` (RFC 3464 §2.3.9).
    #[serde(default)]
    pub will_retry_until: Option<Timestamp>,
}

/// What happened to a recipient (RFC 3464 §2.3.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It could not be delivered and is given up.
    #[default]
    Failed,
    /// It could not be delivered yet.
    Delayed,
    /// It was delivered.
    Delivered,
    /// It was handed to a system that reports nothing.
    Relayed,
    /// It was delivered to a list or an alias, which sends it on.
    Expanded,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Failed, Self::Delayed, Self::Delivered, Self::Relayed, Self::Expanded];

    /// The word of RFC 3464 §2.3.3.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }
}

/// `Diagnostic-Code` (RFC 3464 §2.3.6), or the words that stand for it in a text notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// `smtp`, `x-unix`, ...; empty where the report gives none.
    pub kind: String,
    /// The text, unfolded.
    pub text: String,
}

/// What is known of the mail that a report is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Original {
    /// Its Message-ID.
    #[serde(default)]
    pub message_id: Option<MessageId>,
    /// The queue id in its `X-Rebound-Id` field.
    #[serde(default)]
    pub rebound_id: Option<QueueId>,
    /// Its header: lower-case names, each with its values in order, unfolded.
    #[serde(default)]
    pub headers: Vec<(String, Vec<String>)>,
}

/// Something wrong with the form of a report, by a short fixed name such as `no-boundary`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Defect(pub String);

/// Which rule produced a fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The fact: `verdict`, `recipients[0].status`, `original.message_id`, ...
    pub fact: String,
    /// The rule's name.
    pub rule: String,
}
