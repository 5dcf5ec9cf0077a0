//! What the funnel is told by the settings.

use std::time::Duration;

use crate::bounce::{AliasRules, Rules};
use crate::mail::Address;

/// The rules that are files of their own; they can be replaced while the daemon runs.
#[derive(Debug)]
pub struct RuleSets {
    /// What replies and reports mean.
    pub classes: Rules,
    /// What next hops call the mails they take.
    pub aliases: AliasRules,
}

/// How reports are tied to mails, and what is done with them beside recording them.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where reports go on to.
    pub forward_to: Forward,
    /// Who gets reports that match nothing; nobody without it.
    pub postmaster: Option<Address>,
    /// How our return tokens stand in addresses.
    pub return_path: ReturnPath,
    /// How long after it was relayed a mail may bounce.
    pub bounce_window: Duration,
    /// How long a mail may wait to be relayed.
    pub queue_lifetime: Duration,
    /// Whether a match of low confidence changes a state, too.
    pub low_confidence_changes_state: bool,
    /// How long after the last one bounces count against their recipients; `None` where none is
    /// counted.
    pub strikes_expire: Option<Duration>,
}

/// How our return tokens stand in addresses, and how long they hold.
#[derive(Clone, Debug, Default)]
pub struct ReturnPath {
    /// What stands before the token.
    pub prefix: String,
    /// What sets it off.
    pub delimiter: char,
    /// The bounce domain; empty where there is none.
    pub domain: String,
    /// How long after a mail was taken over its token is believed.
    pub token_lifetime: Duration,
}

/// Where reports caught at our return path go on to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// To the reverse-path that the app had used; those that match nothing to the postmaster.
    #[default]
    Original,
    /// Nowhere.
    Nowhere,
    /// All to one address.
    To(Address),
}

impl RuleSets {
    /// The rules that are compiled in.
    pub fn compiled_in() -> Self {
        Self { classes: Rules::compiled_in(), aliases: AliasRules::compiled_in() }
    }
}
