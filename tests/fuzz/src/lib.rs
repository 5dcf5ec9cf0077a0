//! The pure core of Rebound, compiled by itself: it needs nothing else, so a target is built in
//! seconds and the fuzzer's counters stand in the code that is fuzzed and in nothing else.

#[path = "../../../src/bounce/mod.rs"]
pub mod bounce;
#[path = "../../../src/mail/mod.rs"]
pub mod mail;

#[allow(dead_code, reason = "what only the driver of the connection uses")]
pub mod smtp;

pub mod pieces;
pub mod relay;
pub mod standing;
