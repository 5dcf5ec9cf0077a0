//! The stages of a conversation with the next hop.

use serde::{Deserialize, Serialize};

/// How far the conversation with the next hop came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Finding the host and opening the connection.
    Connect,
    /// The TLS handshake or STARTTLS.
    Tls,
    /// The greeting and EHLO.
    Greeting,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA up to the final dot, or BDAT up to the last.
    Data,
    /// The reply to the final dot, or to the last BDAT.
    End,
}

impl Stage {
    /// The SMTP command that is answered at this stage, as it stands in `response.command`.
    pub const fn command(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Tls => "STARTTLS",
            Self::Greeting => "EHLO",
            Self::Auth => "AUTH",
            Self::Mail => "MAIL",
            Self::Rcpt => "RCPT",
            Self::Data => "DATA",
            Self::End => "end of DATA",
        }
    }
}
