//! What goes wrong with a mailbox, and what state of it follows.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::oauth2::OAuthError;
use super::response::Malformed;
use crate::net::tls::TlsError;
use crate::store::{MailboxState, StoreError};

/// Why a mailbox cannot be read now.
#[derive(Debug)]
pub enum ImapError {
    /// No connection could be opened, or TLS could not be begun.
    Connect {
        /// What was being done, with which server.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The settings of TLS cannot be used.
    ConfigTls(TlsError),
    /// The server does not offer what must be there before we log in.
    PeerOffer(&'static str),
    /// The connection broke.
    Lost(io::Error),
    /// The server did not answer in time.
    PeerTimeout(&'static str),
    /// The server sent more than is read of one response.
    PeerTooLong(usize),
    /// The server sent more responses than belong to one command.
    PeerFlood(&'static str),
    /// The server said what is no IMAP.
    PeerMalformed(&'static str),
    /// The server hung up with these words.
    PeerBye(String),
    /// The server refused a command.
    PeerRefused {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        text: String,
    },
    /// The server refused the login.
    PeerRefusedLogin(String),
    /// A name cannot stand in a command.
    ConfigName(String),
    /// There is no such folder.
    ConfigFolder(String),
    /// The password cannot be read.
    ConfigSecret(PathBuf, io::Error),
    /// There is no access token.
    Token(OAuthError),
    /// The store takes nothing now.
    Store(StoreError),
    /// Work of ours ended in a panic.
    Defect(&'static str),
}

impl ImapError {
    /// The state of a mailbox that ended with this, before or after it had been logged in to.
    pub(super) fn state(&self, was_connected: bool) -> MailboxState {
        match self {
            Self::PeerRefusedLogin(_) | Self::ConfigSecret(..) => MailboxState::AuthenticationError,
            Self::Token(error) if error.is_refusal() => MailboxState::AuthenticationError,
            Self::Connect { .. } | Self::ConfigTls(_) | Self::PeerOffer(_) | Self::Token(_) => {
                MailboxState::ConnectError
            }
            _ if was_connected => MailboxState::Disconnected,
            _ => MailboxState::ConnectError,
        }
    }

    /// Whether the other folders can be read all the same.
    pub(super) fn is_about_one_folder(&self) -> bool {
        matches!(
            self,
            Self::PeerRefused { .. }
                | Self::ConfigName(_)
                | Self::ConfigFolder(_)
                | Self::Defect(_)
        )
    }
}

impl fmt::Display for ImapError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect { doing, .. } => f.write_str(doing),
            Self::ConfigTls(_) => f.write_str("tls_ca_file cannot be used"),
            Self::PeerOffer(what) => write!(f, "the server does not offer {what}"),
            Self::Lost(_) => f.write_str("the connection was lost"),
            Self::PeerTimeout(doing) => write!(f, "{doing}: the server did not answer in time"),
            Self::PeerTooLong(max) => {
                write!(f, "the server sent a response of more than {max} octets")
            }
            Self::PeerFlood(doing) => write!(f, "{doing}: the server did not come to an end"),
            Self::PeerMalformed(what) => {
                write!(f, "the server said what is no IMAP: {what}")
            }
            Self::PeerBye(text) => write!(f, "the server hung up: {text}"),
            Self::PeerRefused { doing, text } => write!(f, "{doing}: the server refused: {text}"),
            Self::PeerRefusedLogin(text) => write!(f, "the server refused the login: {text}"),
            Self::ConfigName(name) => {
                write!(f, "`{name}` holds a character that no command may hold")
            }
            Self::ConfigFolder(name) => write!(f, "there is no folder `{name}`"),
            Self::ConfigSecret(path, _) => {
                write!(f, "cannot read the password in {}", path.display())
            }
            Self::Token(_) => f.write_str("there is no access token"),
            Self::Store(_) => f.write_str("the store takes nothing now"),
            Self::Defect(doing) => write!(f, "{doing} ended in a panic"),
        }
    }
}

impl std::error::Error for ImapError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect { source, .. } | Self::Lost(source) | Self::ConfigSecret(_, source) => {
                Some(source)
            }
            Self::ConfigTls(error) => Some(error),
            Self::Token(error) => Some(error),
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

impl From<Malformed> for ImapError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::PeerMalformed(what)
    }
}

impl From<StoreError> for ImapError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
