//! Suppressed addresses as JSON, and as the cells of a table.

use serde_json::{Map, Value};

use super::put;
use crate::mail::Timestamp;
use crate::store::suppressions::{Suppressed, SuppressionPolicy};

/// What speaks against an address, and whether that is enough at `now`.
pub fn suppression(held: &Suppressed, policy: SuppressionPolicy, now: Timestamp) -> Value {
    let Suppressed { entry, hits } = held;
    let told = entry.told.as_ref();
    let by_hand = entry.by_hand.as_ref();
    object! {
        "account": &entry.account,
        "recipient": &entry.recipient,
        "suppressed": entry.holds(policy, now),
        "hardBounces": entry.hard,
        "softBounces": entry.soft,
        "since": entry.since.rfc3339(),
        "last": entry.last.rfc3339(),
        "expires": entry.ends(policy).map(Timestamp::rfc3339),
        "byHand": by_hand.is_some(),
        "reason": by_hand.map(|by_hand| by_hand.reason.as_str()),
        "bounce": told.map(|told| told.bounce.0.as_str()),
        "category": told.map(|told| told.category.as_str()),
        "message": told.map(|told| told.message.as_str()),
        "hits": hits,
    }
}

/// The names of the cells of [`suppression_cells`].
pub const SUPPRESSION_COLUMNS: [&str; 10] = [
    "account",
    "recipient",
    "suppressed",
    "hardBounces",
    "softBounces",
    "since",
    "last",
    "until",
    "reason",
    "category",
];

/// The same as the cells of one line; empty where there is nothing.
pub fn suppression_cells(
    held: &Suppressed,
    policy: SuppressionPolicy,
    now: Timestamp,
) -> [String; 10] {
    let entry = &held.entry;
    let by_hand = entry.by_hand.as_ref();
    let told = entry.told.as_ref();
    let reason = by_hand.map(|by_hand| by_hand.reason.clone());
    [
        entry.account.clone(),
        entry.recipient.clone(),
        entry.holds(policy, now).to_string(),
        entry.hard.to_string(),
        entry.soft.to_string(),
        entry.since.rfc3339(),
        entry.last.rfc3339(),
        entry.ends(policy).map(Timestamp::rfc3339).unwrap_or_default(),
        reason.or_else(|| told.map(|told| told.message.clone())).unwrap_or_default(),
        told.map(|told| told.category.to_string()).unwrap_or_default(),
    ]
}
