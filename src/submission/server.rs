//! The listeners that apps connect to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::door::Door;
use super::session::Session;
use super::verify::Verifier;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::net::listener::{self, Gate};
use crate::net::shutdown::{Drained, Shutdown};
use crate::net::tls::ServerTls;
use crate::smtp::{Peer, Secured, SessionEnd, Upgrade, serve};

/// Where apps connect to.
#[derive(Debug, Default)]
pub struct Listeners {
    /// Plain connections, with STARTTLS where there is a certificate.
    pub plain: Vec<TcpListener>,
    /// Connections with TLS from the first octet (RFC 8314 §3.3).
    pub tls: Vec<TcpListener>,
}

/// What all connections share.
#[derive(Clone)]
pub struct Context {
    /// The settings; a connection keeps those it began with.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Where mails go.
    pub door: Door,
    /// Checks passwords.
    pub verifier: Verifier,
    /// Our certificates, where there are any.
    pub tls: Option<Arc<ServerTls>>,
}

/// When TLS begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Security {
    /// With STARTTLS, or not at all.
    StartTls,
    /// With the first octet.
    Implicit,
}

/// Takes mail over until the daemon stops, and lets the open connections come to an end then.
pub async fn run(listeners: Listeners, context: Context, shutdown: Shutdown) -> Drained {
    let settings = Arc::clone(&context.settings.borrow());
    let limits = &settings.submission;
    let gate = Gate::new(limits.connections_max, limits.connections_per_address_max);
    let drain_timeout = Duration::from_secs(settings.queue.drain_timeout_secs);
    let plain = listeners.plain.into_iter().map(|bound| (bound, Security::StartTls, REFUSAL));
    // In front of a handshake nobody could read the reason.
    let tls = listeners.tls.into_iter().map(|bound| (bound, Security::Implicit, ""));
    let mut servers = JoinSet::new();
    for (bound, security, refusal) in plain.chain(tls) {
        let (context, stop) = (context.clone(), shutdown.clone());
        let on_connection = move |stream: TcpStream, address: Option<SocketAddr>| {
            let (context, stop) = (context.clone(), stop.clone());
            async move { connection(context, stream, address, security, stop).await }
        };
        let (gate, shutdown) = (gate.clone(), shutdown.clone());
        servers.spawn(listener::run(bound, gate, refusal, shutdown, drain_timeout, on_connection));
    }
    let ended = servers.join_all().await;
    Drained { aborted: ended.into_iter().map(|drained| drained.aborted).sum() }
}

async fn connection(
    context: Context,
    stream: TcpStream,
    address: Option<SocketAddr>,
    security: Security,
    shutdown: Shutdown,
) {
    let open = Open::new(context.door.metrics());
    let peer = Peer { address: address.map(|address| address.ip()) };
    let settings = Arc::clone(&context.settings.borrow());
    let Context { door, verifier, tls, .. } = context;
    let mut session = Session::new(settings, door, verifier, peer.clone());
    let options = Arc::new(session.options());
    let stop = shutdown.requested();
    let end = match (security, tls) {
        (Security::StartTls, tls) => {
            let upgrade = tls.map(upgrade);
            serve(stream, peer.clone(), None, options, upgrade, &mut session, stop).await
        }
        (Security::Implicit, Some(tls)) => match tls.accept(stream).await {
            Ok((stream, tls)) => {
                serve(stream, peer.clone(), Some(tls), options, None, &mut session, stop).await
            }
            Err(error) => SessionEnd::TlsFailed(error),
        },
        (Security::Implicit, None) => return,
    };
    if matches!(end, SessionEnd::TlsFailed(_)) {
        open.metrics.tls_failed(SERVER);
    }
    tracing::debug!(server = SERVER, %peer, ?end, "a connection has ended");
}

fn upgrade(tls: Arc<ServerTls>) -> Upgrade<TcpStream> {
    Box::new(move |stream| {
        Box::pin(async move {
            let (stream, tls) = tls.accept(stream).await?;
            Ok(Secured { stream: Box::new(stream), tls })
        })
    })
}

/// Counts a connection as open, also if it ends in a panic.
struct Open {
    metrics: Metrics,
}

impl Open {
    fn new(metrics: &Metrics) -> Self {
        metrics.connection_opened(SERVER);
        Self { metrics: metrics.clone() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.metrics.connection_closed(SERVER);
    }
}

/// The name in metrics and logs.
const SERVER: &str = "submission";
/// RFC 5321 §3.8.
const REFUSAL: &str = "421 4.7.0 too many connections, try again later\r\n";
