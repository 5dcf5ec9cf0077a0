//! The SMTP and LMTP server protocol (RFC 5321, RFC 2033), for submission and for reports.
//!
//! `command`, `parameters` and `xclient` understand what the client says, `auth` and `scram` its
//! AUTH exchanges, `body` the octets of a mail; `session` decides what is allowed when, what is
//! answered and what is asked of the `Service` behind it; `driver` reads, writes and keeps the
//! deadlines.
//! All but `driver` are pure.
//!
//! The session stands in samotop-core's frame: its `SmtpSession` holds input, output and mode,
//! its `Parser` is what our grammar implements, its `DriverControl` is what the driver is told.
//! Everything else of that crate is left alone, and none of its types leaves this folder: its
//! own engine lets commands be injected before STARTTLS, takes the rest of a mail for commands
//! after an error, and bounds neither time nor memory.

mod auth;
mod body;
mod command;
mod driver;
mod parameters;
mod reply;
mod scram;
mod service;
mod session;
mod xclient;

pub use driver::serve;
pub use service::{
    Auth, BareNewline, DATA_BLOCK_BYTES, Hello, HelloKind, MailCommand, Peer, Protocol,
    ScramChallenge, ScramProof, Secured, Service, SessionEnd, SessionOptions, Stream, Upgrade,
};
