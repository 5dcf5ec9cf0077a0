//! Takes connections and serves them, within limits, until it is told to stop.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::paced::Paced;
use super::{HttpState, routes};
use crate::metrics::Metrics;
use crate::net::listener::{self, Gate};
use crate::net::shutdown::{Shutdown, shutdown};

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, over all listeners.
    pub connections_max: usize,
    /// Connections at a time from one address.
    pub connections_per_address_max: usize,
    /// How long a client may take to send the header of a request, the wait for it included.
    pub header_timeout: Duration,
    /// How long a client may take for each piece of an answer.
    pub write_timeout: Duration,
}

/// The peer of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Serves on `listeners` until `stop` ends; requests under way are then answered.
pub async fn run(
    listeners: Vec<TcpListener>,
    state: HttpState,
    limits: Limits,
    stop: impl Future<Output = ()> + Send,
) {
    let (stopper, stopping) = shutdown();
    let server = Server {
        metrics: state.inner.metrics.clone(),
        router: routes::router(state),
        limits,
        stopping: stopping.clone(),
    };
    let Limits { connections_max, connections_per_address_max, .. } = limits;
    let metrics = server.metrics.clone();
    let gate = Gate::new(SERVER, metrics, connections_max, connections_per_address_max);
    let mut serving = JoinSet::new();
    for listener in listeners {
        let server = server.clone();
        let serve = move |stream, peer| server.clone().serve(stream, peer);
        let (gate, stopping) = (gate.clone(), stopping.clone());
        serving.spawn(listener::run(listener, gate, REFUSAL, stopping, DRAIN_TIMEOUT, serve));
    }
    stop.await;
    stopper.stop();
    for drained in serving.join_all().await {
        if drained.aborted > 0 {
            tracing::warn!(connections = drained.aborted, "HTTP connections were cut off");
        }
    }
}

#[derive(Clone)]
struct Server {
    router: Router,
    metrics: Metrics,
    limits: Limits,
    stopping: Shutdown,
}

impl Server {
    async fn serve(self, stream: TcpStream, peer: Option<SocketAddr>) {
        let peer = peer.unwrap_or_else(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)));
        let open = self.metrics.connection_opened(SERVER);
        let inner = TowerToHyperService::new(self.router);
        let stopping = self.stopping.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(Peer(peer));
            // For requests that take their time on purpose.
            request.extensions_mut().insert(stopping.clone());
            inner.call(request)
        });
        let stream = Paced::new(stream, self.limits.write_timeout);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.header_timeout)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => Some(ended),
            () = self.stopping.requested() => None,
            () = sleep(CONNECTION_LIFETIME) => None,
        };
        let ended = match ended {
            Some(ended) => Some(ended),
            None => {
                connection.as_mut().graceful_shutdown();
                timeout(LAST_REQUEST_TIMEOUT, connection).await.ok()
            }
        };
        if let Some(Err(error)) = ended {
            tracing::debug!(%error, %peer, "an HTTP connection broke off");
        }
        drop(open);
    }
}

/// The name in metrics and logs.
const SERVER: &str = "http";
/// What a connection over the limit is told.
const REFUSAL: &str = concat!(
    "HTTP/1.1 503 Service Unavailable\r\n",
    "Content-Type: application/json\r\nRetry-After: 1\r\nConnection: close\r\n\r\n",
    r#"{"statusCode":503,"error":"Service Unavailable","#,
    r#""message":"Too many connections","code":"TooManyConnections"}"#,
);

/// How long a connection lives; a client that does not read holds it no longer.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);

/// How long the last request of a connection may take, longer than the longest long poll.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(130);

/// How long requests under way are waited for when the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of the header of a request, and of what is buffered of an answer.
const BUFFER_BYTES_MAX: usize = 65_536;
