//! The SMTP and LMTP server protocol.

mod driver;
mod service;

pub use driver::serve;
pub use service::{
    Auth, BareNewline, DATA_BLOCK_BYTES, Hello, HelloKind, MailCommand, Peer, Protocol, Secured,
    Service, SessionEnd, SessionOptions, Stream, Upgrade,
};
