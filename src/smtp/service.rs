//! What the protocol asks of the stage behind it, and what the stage tells the protocol to be.

use std::fmt;
use std::future::{Future, ready};
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::reply;
use crate::mail::envelope::{BodyKind, Recipient};
use crate::mail::{MailDsn, Reply, ReversePath};

/// One connection's server behind the protocol: policy, and what becomes of the mail.
///
/// The engine has checked syntax, order and its own limits before it asks.
/// An `Err` is the reply that the client gets; a reply with code 421 also ends the session.
/// The order within one transaction is `mail`, `rcpt`..., `data`, `chunk`..., `end`, and `reset`
/// may come in place of any of them; after `end` there is no `reset` for that mail.
/// A dropped connection shows as `reset`, too, where a transaction was open.
pub trait Service: Send {
    /// The client has said who it is: HELO, EHLO or LHLO.
    fn hello(&mut self, hello: &Hello);

    /// TLS has begun; everything that was said in plain text is forgotten (RFC 3207 §4.2).
    ///
    /// `tls` is version and cipher for `Received` fields and logs. It is called before the
    /// greeting on a connection that is TLS from its first octet.
    fn secured(&mut self, tls: &str);

    /// XCLIENT: the client speaks for `peer` from now on. Everything that it said and everything
    /// that it was allowed is forgotten; who must authenticate now is answered.
    fn introduced(&mut self, peer: &Peer) -> Auth;

    /// Whether these credentials are right; PLAIN and LOGIN.
    ///
    /// The usual refusal is 535 5.7.8, and 454 4.7.0 where it cannot be told now.
    fn authenticate(
        &mut self,
        username: &str,
        password: &[u8],
    ) -> impl Future<Output = Result<(), Reply>> + Send;

    /// SCRAM-SHA-256, first: what the client must know to prove that it knows the password.
    ///
    /// A user who does not exist has it, too, and always the same, or names could be guessed.
    /// Asked only where the options say `scram`, as are the next two.
    fn challenge(
        &mut self,
        _username: &str,
    ) -> impl Future<Output = Result<ScramChallenge, Reply>> + Send {
        ready(Err(reply::unspecific()))
    }

    /// SCRAM-SHA-256, second: our own proof (`ServerSignature`), if the client's is right.
    ///
    /// Refusals are as those of `authenticate`.
    fn prove(
        &mut self,
        _proof: &ScramProof,
    ) -> impl Future<Output = Result<[u8; 32], Reply>> + Send {
        ready(Err(reply::unspecific()))
    }

    /// SCRAM-SHA-256, last: the client takes our proof, and from now on is `username`.
    fn proved(&mut self, _username: &str) {}

    /// MAIL: whether a mail from there may be sent now.
    fn mail(&mut self, mail: &MailCommand) -> impl Future<Output = Result<(), Reply>> + Send;

    /// RCPT: whether the mail may go there.
    fn rcpt(&mut self, recipient: &Recipient) -> impl Future<Output = Result<(), Reply>> + Send;

    /// DATA: whether the mail may come now; at least one recipient was accepted.
    fn data(&mut self) -> impl Future<Output = Result<(), Reply>> + Send;

    /// The next octets of the mail, dot-unstuffed; never empty.
    ///
    /// After an `Err` the engine reads on to the end of the data, replies with it and calls
    /// `reset` instead of `end`.
    fn chunk(&mut self, octets: &[u8]) -> impl Future<Output = Result<(), Reply>> + Send;

    /// The mail is complete; a 250 may be returned only when it cannot be lost any more.
    ///
    /// One reply, or with `Protocol::Lmtp` one for each accepted recipient, in their order.
    fn end(&mut self) -> impl Future<Output = Vec<Reply>> + Send;

    /// The transaction, if there is one, is over without a mail.
    fn reset(&mut self);
}

/// What a SCRAM exchange needs of a user (RFC 5802 §5.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScramChallenge {
    /// The server's part of the nonce: fresh, of printable ASCII without commas.
    pub nonce: String,
    /// What the client hashes the password with.
    pub salt: Vec<u8>,
    /// How often.
    pub iterations: u32,
}

/// What a client says to prove that it knows a password (RFC 5802 §3).
#[derive(PartialEq, Eq)]
pub struct ScramProof {
    /// The authentication identity.
    pub username: String,
    /// What was said on both sides (`AuthMessage`).
    pub auth_message: String,
    /// The proof that belongs to it (`ClientProof`).
    pub proof: [u8; 32],
}

/// Without what passwords could be tried on.
impl fmt::Debug for ScramProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramProof").field("username", &self.username).finish_non_exhaustive()
    }
}

/// How the client has said who it is (RFC 5321 §4.1.1.1, RFC 2033 §4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// With which command.
    pub kind: HelloKind,
    /// As whom: a domain or an address literal, nothing else.
    pub name: String,
}

/// The command with which the client has said who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelloKind {
    /// Plain SMTP.
    Helo,
    /// Extended SMTP.
    Ehlo,
    /// LMTP.
    Lhlo,
}

/// What MAIL said (RFC 5321 §4.1.1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailCommand {
    /// Where reports go.
    pub reverse_path: ReversePath,
    /// Octets the mail will have, where the client said so (RFC 1870 §6).
    pub size_bytes: Option<u64>,
    /// What `BODY=` declared (RFC 6152 §2).
    pub body: BodyKind,
    /// Whether `SMTPUTF8` was given (RFC 6531 §3.4).
    pub smtputf8: bool,
    /// What it asked of reports (RFC 3461).
    pub dsn: MailDsn,
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; none on a Unix socket.
    pub address: Option<IpAddr>,
}

impl Peer {
    /// Whether it is on this host, where nobody listens on the way.
    pub fn is_local(&self) -> bool {
        self.address.is_none_or(|address| address.to_canonical().is_loopback())
    }
}

/// The address, or `local`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.to_canonical().fmt(f),
            None => f.write_str("local"),
        }
    }
}

/// What one listener's sessions are like; shared by all of them.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// Our name in the greeting and the EHLO reply, and the domain of `<Postmaster>`.
    pub hostname: String,
    /// SMTP or LMTP.
    pub protocol: Protocol,
    /// Who must authenticate; AUTH is offered under TLS and to local peers only.
    pub auth: Auth,
    /// Whether AUTH offers SCRAM-SHA-256, too.
    pub scram: bool,
    /// Whether the client may say by XCLIENT on whose behalf it speaks.
    pub xclient: bool,
    /// Octets of one mail (RFC 1870 §4); 0 means no limit.
    pub message_bytes_max: u64,
    /// Recipients of one mail (RFC 9422).
    pub recipients_max: u32,
    /// Mails in one connection (RFC 9422).
    pub transactions_max: u32,
    /// Errors since the last accepted mail after which the connection is closed.
    pub errors_max: u32,
    /// Whether a recipient that the service refuses is one of them: so it is where strangers could
    /// try which addresses there are.
    pub recipients_are_errors: bool,
    /// Commands other than RCPT and DATA (NOOP, RSET, EHLO, MAIL, ...) since the last accepted
    /// mail after which the connection is closed.
    pub idle_commands_max: u32,
    /// The time for one command, however many reads it takes.
    pub command_timeout: Duration,
    /// The time for each block of `DATA_BLOCK_BYTES` of a mail.
    pub data_timeout: Duration,
    /// The time for one mail from DATA to its end.
    pub message_timeout: Duration,
    /// The time in which the peer must take what we write.
    pub write_timeout: Duration,
    /// Whether DSN is offered (RFC 3461): whoever offers it must report, or have it reported.
    pub dsn: bool,
    /// What is done with a bare CR or LF in a mail.
    pub bare_newline: BareNewline,
}

/// SMTP or LMTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// RFC 5321.
    Smtp,
    /// RFC 2033: one reply for each recipient.
    Lmtp,
}

/// Who must authenticate (RFC 4954).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// AUTH is not offered.
    None,
    /// Who wants to may.
    Optional,
    /// MAIL is refused before.
    Required,
}

/// What is done with a bare CR or LF in a mail (RFC 5321 §2.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BareNewline {
    /// The mail is refused.
    Refuse,
    /// A bare LF becomes CRLF, a bare CR is dropped.
    Normalize,
}

/// A stream to a peer.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// What STARTTLS makes of a plain stream.
pub struct Secured {
    /// The stream inside TLS.
    pub stream: Box<dyn Stream>,
    /// Version and cipher.
    pub tls: String,
}

/// Does the server's part of a TLS handshake on a plain stream, within a time limit.
pub type Upgrade<S> =
    Box<dyn FnOnce(S) -> Pin<Box<dyn Future<Output = io::Result<Secured>> + Send>> + Send>;

/// How a session ended.
#[derive(Debug)]
pub enum SessionEnd {
    /// The client said QUIT.
    Quit,
    /// The client closed the connection without QUIT.
    PeerClosed,
    /// A deadline passed.
    TimedOut,
    /// We closed: too many errors or mails, or the service said 421.
    Refused,
    /// The daemon stops.
    Shutdown,
    /// The TLS handshake failed.
    TlsFailed(io::Error),
    /// The connection broke.
    Broken(io::Error),
}

/// Octets of a mail for which `data_timeout` holds.
pub const DATA_BLOCK_BYTES: u64 = 8192;
