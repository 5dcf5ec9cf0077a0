//! Stage 3: hands mail to the next hop and says what became of each recipient.
//!
//! **Invariant:** there is exactly one `Outcome` for each recipient of a `Delivery`, and it is a
//! success only when the next hop answered the final dot with 2yz.
//! **Invariant:** what it means for the queue is not judged here; see `queue/schedule.rs`.

mod body;
mod chunking;
mod connection;
mod extensions;
mod gate;
mod pool;
mod queued_as;
mod route;
mod transaction;
mod wire;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::io::AsyncRead;
use tokio::sync::Semaphore;

pub use route::Route;

use crate::clock::Stopwatch;
use crate::config::{self, RelayTls};
use crate::mail::{MailDsn, Recipient, Reply, ReversePath, Stage};
use crate::net::tls::{ClientTls, TlsError, Verify};
use connection::{Connection, Failure, Target};
use gate::{Closed, Gate};
use pool::Pool;
use transaction::{End, Limits};

/// What is handed over in one transaction.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// `MAIL FROM`.
    pub reverse_path: ReversePath,
    /// `RET` and `ENVID`, given where the next hop offers DSN (RFC 3461).
    pub dsn: MailDsn,
    /// `RCPT TO`, each with its place in the submission's envelope; `NOTIFY` and `ORCPT` are
    /// given where the next hop offers DSN.
    pub recipients: Vec<(u32, Recipient)>,
    /// Octets of the body as it is stored, for `SIZE` (RFC 1870).
    pub size_bytes: u64,
    /// Whether it has lines that DATA is not made for (RFC 5321 §4.5.3.1.6).
    pub long_lines: bool,
    /// Whether the body was declared to have octets above 127 (RFC 6152).
    pub eight_bit: bool,
    /// Whether `SMTPUTF8` is needed (RFC 6531).
    pub smtputf8: bool,
    /// Whether every octet of the mail is ASCII, so that only addresses could need `SMTPUTF8`.
    pub is_ascii: bool,
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
    /// Whether the next hop offers DSN, and so reports what becomes of what it takes.
    pub dsn: bool,
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
    /// It could not be offered to this next hop as it is (too large for it, or UTF-8 mail that it
    /// does not take); our own words, with the status that a 5yz reply would carry. Permanent.
    Refusal(Reply),
    /// There is no next hop: the mail is held, and the attempt does not count.
    NoRoute,
}

/// The way to the smarthost; clones share its connections.
#[derive(Clone)]
pub struct Relay {
    /// Replaced as a whole at a reload; a delivery under way keeps the one it began with.
    current: Arc<RwLock<Arc<Inner>>>,
}

struct Inner {
    route: Option<Route>,
    settings: config::Relay,
    hostname: String,
    tls: TlsClients,
    pool: Pool,
    /// One permit for each conversation; a connection is opened only when none is idle, so there
    /// are never more connections than permits.
    conversations: Semaphore,
    /// When a further connection may be opened.
    gate: Gate,
}

/// How TLS is spoken with a next hop.
struct TlsClients {
    /// Absent where no setting can lead to it: a host without trusted certificates may have a
    /// smarthost on loopback, or none.
    verified: Option<ClientTls>,
    unverified: ClientTls,
}

impl Relay {
    /// The way to the smarthost of the settings; `hostname` is our name in EHLO.
    ///
    /// # Errors
    /// When the trusted certificates cannot be read.
    pub fn new(settings: &config::Relay, hostname: &str) -> Result<Self, TlsError> {
        let inner = Arc::new(Inner::new(settings, hostname)?);
        Ok(Self { current: Arc::new(RwLock::new(inner)) })
    }

    /// From the next delivery on, mail goes the way that `other` goes.
    pub fn adopt(&self, other: &Self) {
        let inner = other.inner();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = inner;
    }

    /// The next hop; `None` when none is configured.
    pub fn route(&self) -> Option<Route> {
        self.inner().route.clone()
    }

    /// Tries to hand a mail over. There is exactly one outcome for each recipient, in their order.
    ///
    /// `body` is read from its first octet, once, and only after the next hop has asked for it.
    /// Dropping the future hangs up, which leaves the mail with us.
    pub async fn deliver<B: AsyncRead + Send + Unpin>(
        &self,
        delivery: &Delivery,
        mut body: B,
    ) -> Vec<Outcome> {
        let inner = &*self.inner();
        let Some(route) = &inner.route else {
            return all(delivery, &Failure::no_route());
        };
        // The semaphore is never closed; were it, there would be no limit, and nothing lost.
        let _permit = inner.conversations.acquire().await;
        let limits = Limits::of(&inner.settings);
        loop {
            let mut connection = match inner.connection(route).await {
                Ok(connection) => connection,
                Err(failure) => return all(delivery, &failure),
            };
            let run = transaction::run(&mut connection, delivery, limits, &mut body);
            let (outcomes, end) = Box::pin(run).await;
            match end {
                End::Usable => inner.release(connection),
                End::Broken => drop(connection),
                End::Stale => continue,
            }
            return outcomes;
        }
    }

    /// Takes leave of the next hop on all idle connections.
    pub async fn close(&self) {
        self.inner().pool.close().await;
    }

    fn inner(&self) -> Arc<Inner> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Inner {
    fn new(settings: &config::Relay, hostname: &str) -> Result<Self, TlsError> {
        let idle_limit = Duration::from_secs(settings.connection_idle_secs);
        Ok(Self {
            route: Route::of(settings),
            settings: settings.clone(),
            hostname: hostname.to_owned(),
            tls: TlsClients::of(settings)?,
            pool: Pool::new(idle_limit),
            conversations: Semaphore::new(settings.connections_max.max(1)),
            gate: Gate::default(),
        })
    }

    /// An idle connection, or a new one where the gate lets us open one.
    async fn connection(&self, route: &Route) -> Result<Connection, Failure> {
        let target = Target {
            route,
            settings: &self.settings,
            hostname: &self.hostname,
            tls: &self.tls,
            gate: &self.gate,
        };
        let began = Stopwatch::start();
        let mut own = None;
        loop {
            if let Some(connection) = self.idle_connection().await {
                return Ok(connection);
            }
            let Some(closed) = self.gate.closed() else {
                match Box::pin(Connection::open(target)).await {
                    Err(failure) if failure.stage != Stage::Auth => own = Some(failure),
                    decided => return decided,
                }
                continue;
            };
            let is_over = began.elapsed() >= FREED_TIMEOUT;
            if is_over || closed.failure.stage == Stage::Auth || self.gate.is_deserted() {
                return Err(own.unwrap_or_else(|| closed.repeated()));
            }
            self.gate.wait(closed.left).await;
        }
    }

    async fn idle_connection(&self) -> Option<Connection> {
        loop {
            let mut connection = self.pool.take()?;
            if connection.make_ready().await {
                return Some(connection);
            }
        }
    }

    fn release(&self, mut connection: Connection) {
        if !connection.is_quiet() {
            tracing::debug!("the next hop hung up or said more than it was asked: not used again");
        } else if connection.transactions >= self.settings.connection_reuse_max {
            tokio::spawn(connection.quit());
        } else {
            self.pool.put(connection);
            self.gate.ring();
        }
    }
}

impl TlsClients {
    fn of(settings: &config::Relay) -> Result<Self, TlsError> {
        let may_verify = match settings.tls {
            RelayTls::Required | RelayTls::Implicit => true,
            RelayTls::Auto => !settings.is_loopback(),
            RelayTls::Opportunistic | RelayTls::None => false,
        };
        let ca_file = Some(settings.tls_ca_file.as_path()).filter(|p| !p.as_os_str().is_empty());
        let verified = if may_verify && settings.tls_verify && !settings.host.is_empty() {
            Some(ClientTls::new(Verify::Yes, ca_file)?)
        } else {
            None
        };
        Ok(Self { verified, unverified: ClientTls::new(Verify::No, None)? })
    }
}

impl Closed {
    /// The failure for a mail that did not ask for itself; the words say so.
    fn repeated(self) -> Failure {
        let (wait, result) = (self.wait.as_secs(), &self.failure.result);
        let result = OutcomeResult::Error(format!("not asked again within {wait} s of: {result}"));
        Failure { result, ..self.failure }
    }
}

impl Failure {
    fn no_route() -> Self {
        Self {
            stage: Stage::Connect,
            peer: connection::Peer::default(),
            result: OutcomeResult::NoRoute,
        }
    }
}

/// Our own words or the next hop's, on one line.
impl fmt::Display for OutcomeResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reply(reply) | Self::Refusal(reply) => reply.fmt(f),
            Self::Error(error) => f.write_str(error),
            Self::NoRoute => f.write_str("no [relay] host is configured"),
        }
    }
}

/// The same for every recipient.
fn all(delivery: &Delivery, failure: &Failure) -> Vec<Outcome> {
    let outcome = |(recipient, _): &(u32, Recipient)| Outcome {
        recipient: *recipient,
        stage: failure.stage,
        remote_mta: failure.peer.remote_mta.clone(),
        remote_queue_id: None,
        tls: failure.peer.tls.clone(),
        dsn: false,
        result: failure.result.clone(),
    };
    delivery.recipients.iter().map(outcome).collect()
}

/// How long a mail waits for one of the connections that the next hop allows.
const FREED_TIMEOUT: Duration = Duration::from_secs(60);
