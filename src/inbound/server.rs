//! The listeners that reports arrive at.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::session::{Session, Shared};
use crate::config::Settings;
use crate::net::listener::{self, Gate};
use crate::net::shutdown::{Drained, Shutdown};
use crate::net::tls::ServerTls;
use crate::smtp::{Peer, Protocol, Secured, SessionEnd, Stream, Upgrade, serve};

/// Where reports arrive.
#[derive(Debug, Default)]
pub struct Listeners {
    /// SMTP, with STARTTLS where there is a certificate.
    pub smtp: Vec<TcpListener>,
    /// LMTP (RFC 2033).
    pub lmtp: Option<UnixListener>,
}

/// What all connections share.
#[derive(Clone)]
pub struct Context {
    /// The settings; a connection keeps those it began with.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Where reports go.
    pub shared: Shared,
    /// Our certificates, where there are any.
    pub tls: Option<Arc<ServerTls>>,
}

/// Takes reports over until the daemon stops, and lets the open connections come to an end then.
pub async fn run(listeners: Listeners, context: Context, shutdown: Shutdown) -> Drained {
    let settings = Arc::clone(&context.settings.borrow());
    let limits = &settings.inbound;
    let metrics = context.shared.metrics.clone();
    let per_address_max = limits.connections_per_address_max;
    let gate = Gate::new(SERVER, metrics, limits.connections_max, per_address_max)
        .behind(&limits.proxy_networks);
    let drain = Duration::from_secs(settings.queue.drain_timeout_secs);
    let mut servers = JoinSet::new();
    for bound in listeners.smtp {
        let on_connection = handler(&context, Protocol::Smtp, &shutdown);
        let (gate, stop) = (gate.clone(), shutdown.clone());
        servers.spawn(listener::run(bound, gate, REFUSAL, stop, drain, on_connection));
    }
    if let Some(bound) = listeners.lmtp {
        let on_connection = handler(&context, Protocol::Lmtp, &shutdown);
        servers.spawn(listener::run(bound, gate, REFUSAL, shutdown, drain, on_connection));
    }
    let ended = servers.join_all().await;
    Drained { aborted: ended.into_iter().map(|drained| drained.aborted).sum() }
}

/// What serves one connection.
fn handler<S: Stream + 'static>(
    context: &Context,
    protocol: Protocol,
    shutdown: &Shutdown,
) -> impl Fn(S, Option<SocketAddr>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + use<S>
{
    let (context, shutdown) = (context.clone(), shutdown.clone());
    move |stream, address| {
        let peer = Peer { address: address.map(|address| address.ip()) };
        Box::pin(connection(context.clone(), stream, peer, protocol, shutdown.clone()))
    }
}

async fn connection<S: Stream + 'static>(
    context: Context,
    stream: S,
    peer: Peer,
    protocol: Protocol,
    shutdown: Shutdown,
) {
    let metrics = context.shared.metrics.clone();
    let open = metrics.connection_opened(SERVER);
    let settings = Arc::clone(&context.settings.borrow());
    let Context { shared, tls, .. } = context;
    let mut session = Session::new(settings, shared, peer.clone(), protocol);
    let options = Arc::new(session.options());
    let certificates = tls.clone();
    let (upgrade, stop) = (tls.map(upgrade), shutdown.requested());
    let end = serve(stream, peer.clone(), None, options, upgrade, &mut session, stop).await;
    if let SessionEnd::TlsFailed(error) = &end {
        metrics.tls_failed(SERVER);
        if let Some(certificates) = certificates {
            certificates.log_failed(SERVER, peer.address, error);
        }
    }
    drop(open);
    tracing::debug!(server = SERVER, %peer, ?end, "a connection has ended");
}

fn upgrade<S: Stream + 'static>(tls: Arc<ServerTls>) -> Upgrade<S> {
    Box::new(move |stream| {
        Box::pin(async move {
            let (stream, tls) = tls.accept(stream).await?;
            Ok(Secured { stream: Box::new(stream), tls })
        })
    })
}

/// The name in metrics and logs.
const SERVER: &str = "inbound";
/// RFC 5321 §3.8.
const REFUSAL: &str = "421 4.7.0 too many connections, try again later\r\n";
