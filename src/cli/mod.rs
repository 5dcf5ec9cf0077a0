//! The commands besides the daemon, one file each.
//!
//! Each has a `run` that returns an exit code of `exit`.

use std::io::Write;

use crate::mail::header::sanitized;
pub use crate::maillog::chain;

pub mod account;
pub mod api;
pub mod bounces;
pub mod classify;
pub mod config;
pub mod explain;
pub mod mailbox;
pub mod oauth2;
pub mod parse;
pub mod queue;
pub mod reparse;
pub mod send_test;
pub mod token;
pub mod webhook;

/// Exit codes, as `sysexits.h` has them.
pub mod exit {
    /// Everything went as asked.
    pub const OK: u8 = 0;
    /// It was done, and the answer is no.
    pub const FAILED: u8 = 1;
    /// The command line is wrong.
    pub const USAGE: u8 = 64;
    /// The input cannot be read.
    pub const DATA: u8 = 65;
    /// The daemon cannot be reached.
    pub const UNAVAILABLE: u8 = 69;
    /// It may work later.
    pub const TRY_AGAIN: u8 = 75;
    /// The daemon refuses the token, or the system refuses the file.
    pub const NOT_PERMITTED: u8 = 77;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;
}

/// Writes a line to standard output; a reader that has gone away is no error.
pub fn say(line: impl std::fmt::Display) {
    let written = writeln!(std::io::stdout().lock(), "{line}");
    drop(written);
}

/// Writes a line to standard error; what stands in it of others cannot begin a line of its own.
pub fn complain(line: impl std::fmt::Display) {
    let line = sanitized(&line.to_string());
    let written = writeln!(std::io::stderr().lock(), "rebound: {line}");
    drop(written);
}
