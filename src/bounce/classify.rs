//! Replies and report texts to categories, by rules that are rows of a data file.

use serde::{Deserialize, Serialize};

use super::category::{Category, Fault, RecommendedAction};
use crate::mail::EnhancedStatus;

/// What is classified: a reply of an SMTP server, or what a report says of one recipient.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// The SMTP code, where one is known.
    pub code: Option<u16>,
    /// The enhanced status, where one is known.
    pub status: Option<EnhancedStatus>,
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

/// The rows of a rules file, ready to be matched.
#[derive(Debug)]
pub struct Rules {}

impl Rules {
    /// The rules that are compiled in.
    pub fn compiled_in() -> Self {
        Self {}
    }

    /// Classifies one failure. Never fails: without a matching row it is `unknown`.
    pub fn classify(&self, subject: &Subject<'_>) -> Classification {
        let _ = subject;
        let category = Category::Unknown;
        Classification {
            category,
            recommended_action: category.recommended_action(),
            fault: category.fault(),
            retry_after_secs: None,
            blocklist: None,
            rule: String::new(),
        }
    }
}
