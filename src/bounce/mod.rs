//! Report bytes to facts.
//!
//! `read` turns the octets of any mail into what it says about deliveries; `Rules` turns a reply
//! or a report into a category. Both are pure and never fail: what is odd about a mail is a
//! `Defect` in the answer.

mod address;
mod aliases;
mod arf;
mod autoreply;
pub mod category;
pub mod classify;
mod detect;
mod dsn;
mod evidence;
pub mod facts;
mod freeform;
mod headers;
mod html;
mod may_be;
mod mime;
mod notice;
mod original;
mod parsed;
mod patterns;
mod reason;
mod returned;
mod rules;
mod sns;
mod text;

pub use aliases::AliasRules;
pub use category::{Category, Fault, RecommendedAction};
pub use classify::{Blocklist, Classification, Subject};
pub use facts::{
    Action, Defect, Diagnostic, Facts, Original, RecipientFacts, Report, Verdict, Why,
};
pub use parsed::Parsed;
pub use rules::{Rules, RulesError};

/// Reads a mail: whether it is a report, and if so of what.
///
/// Takes linear time in the length of `mail`, keeps no reference to it and never panics.
pub fn read(mail: &[u8]) -> Facts {
    detect::read(mail)
}

/// Whether a mail may be a report about a delivery or a complaint: what is asked of its header
/// block (or the start of it) and the types of its parts before all of it is fetched.
///
/// Everything that `read` takes for one passes, and much that it does not.
pub fn may_be_report(header: &[u8], kinds: &[String]) -> bool {
    may_be::may_be_report(header, kinds)
}

/// A field body on one line, as people read it: folds become one space, encoded words (RFC 2047)
/// are decoded.
pub fn field_text(raw_body: &[u8]) -> String {
    text::field_text(raw_body)
}

/// Recipients of one report that are kept; real reports name fewer.
pub const RECIPIENTS_MAX: usize = 2000;
