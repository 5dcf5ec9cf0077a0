//! The envelope: who a mail is from and for, apart from its header (RFC 5321 §2.3.1).

use serde::{Deserialize, Serialize};

use super::address::{Address, ReversePath};
use super::dsn::{MailDsn, RecipientDsn};

/// What `MAIL` and `RCPT` said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Everyone the mail is for, in the order of the RCPT commands.
    pub recipients: Vec<Recipient>,
    /// What `BODY=` declared (RFC 6152).
    #[serde(default)]
    pub body: BodyKind,
    /// Whether `SMTPUTF8` was given (RFC 6531 §3.4).
    #[serde(default)]
    pub smtputf8: bool,
    /// What `RET` and `ENVID` asked of reports (RFC 3461).
    #[serde(default, skip_serializing_if = "MailDsn::is_empty")]
    pub dsn: MailDsn,
}

/// One recipient of an envelope.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The address as the app gave it.
    pub address: Address,
    /// What `NOTIFY` and `ORCPT` asked of reports (RFC 3461).
    #[serde(default, skip_serializing_if = "RecipientDsn::is_empty")]
    pub dsn: RecipientDsn,
    /// Whether it is never tried, because its address bounced before or was suppressed by hand.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_suppressed: bool,
}

/// A recipient of whom nothing is asked.
impl From<Address> for Recipient {
    fn from(address: Address) -> Self {
        Self { address, dsn: RecipientDsn::default(), is_suppressed: false }
    }
}

/// What the client declared about the octets of the body (RFC 6152 §2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyKind {
    /// `BODY=7BIT`, and what is meant when nothing is said.
    #[default]
    #[serde(rename = "7bit")]
    SevenBit,
    /// `BODY=8BITMIME`.
    #[serde(rename = "8bit")]
    EightBitMime,
}
