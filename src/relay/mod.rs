//! Stage 3: hands mail to the next hop and says what became of each recipient.

use crate::mail::{Address, Reply, Stage};

/// What is handed over in one transaction.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `MAIL FROM`, without angle brackets; empty for `<>`.
    pub reverse_path: String,
    /// `ENVID`, given where the next hop offers DSN (RFC 3461 §4.4).
    pub envelope_id: Option<String>,
    /// `RCPT TO`, each with its place in the submission's envelope.
    pub recipients: Vec<(u32, Address)>,
    /// Octets of the body as it is stored, for `SIZE` (RFC 1870).
    pub size_bytes: u64,
    /// Whether the body has octets above 127.
    pub eight_bit: bool,
    /// Whether `SMTPUTF8` is needed (RFC 6531).
    pub smtputf8: bool,
}

/// What became of one recipient in one attempt; there is exactly one for each.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The recipient's place in the submission's envelope.
    pub recipient: u32,
    /// How far the conversation came.
    pub stage: Stage,
    /// The next hop as `name[ip]:port`.
    pub remote_mta: Option<String>,
    /// The next hop's name for the mail, from its 250.
    pub remote_queue_id: Option<String>,
    /// The TLS version and cipher.
    pub tls: Option<String>,
    /// What happened.
    pub result: OutcomeResult,
}

/// What happened to one recipient.
#[derive(Clone, Debug)]
pub enum OutcomeResult {
    /// The next hop answered: 2yz at `End` is the only success.
    Reply(Reply),
    /// There was no answer: the connection, TLS, a time limit or the body failed. Transient.
    Error(String),
    /// It could not be offered to this next hop as it is (8-bit or UTF-8 mail to a next hop that
    /// takes neither); our own words, with the status that a 5yz reply would carry. Permanent.
    Refusal(Reply),
    /// There is no next hop: the mail is held, and the attempt does not count.
    NoRoute,
}
