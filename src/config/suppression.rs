//! The settings of `[suppression]`.

use serde::{Deserialize, Serialize};

use super::Span;

/// What is done about addresses that bounce.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Suppression {
    /// Whether they are refused.
    pub mode: SuppressionMode,
    /// Bounces that say that there is no such address; 0 means never.
    pub hard_after: u32,
    /// Bounces that say that the mailbox takes nothing for the time being; 0 means never.
    pub soft_after: u32,
    /// How long after the last of them.
    pub expire: Span,
}

/// Whether addresses that bounce are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SuppressionMode {
    /// Nothing is counted.
    Off,
    /// They are listed, and it is counted what would be refused.
    Observe,
    /// They are refused.
    Reject,
}
