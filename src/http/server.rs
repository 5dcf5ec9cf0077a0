//! Takes connections and serves them, within limits, until it is told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};

use super::{HttpState, routes};
use crate::metrics::Metrics;

/// What a server allows.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time, over all listeners.
    pub connections_max: usize,
    /// How long a client may take to send the header of a request, the wait for it included.
    pub header_timeout: Duration,
}

/// The peer of the connection that a request came over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Tells a request that takes its time that the daemon stops.
#[derive(Clone, Debug)]
pub(super) struct Stopping(watch::Receiver<bool>);

impl Stopping {
    pub(super) fn is_requested(&self) -> bool {
        *self.0.borrow()
    }

    pub(super) async fn requested(&self) {
        // Whoever could ask being gone is an answer, too.
        drop(self.0.clone().wait_for(|stopped| *stopped).await);
    }
}

/// Serves on `listeners` until `shutdown` ends; requests under way are then answered.
pub async fn run(
    listeners: Vec<TcpListener>,
    state: HttpState,
    limits: Limits,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (stop, stopped) = watch::channel(false);
    let server = Server {
        metrics: state.inner.metrics.clone(),
        router: routes::router(state),
        permits: Arc::new(Semaphore::new(limits.connections_max)),
        limits,
        stopped,
    };
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, server.clone()));
    }
    shutdown.await;
    stop.send_replace(true);
    while let Some(ended) = accepting.join_next().await {
        report(ended);
    }
}

#[derive(Clone)]
struct Server {
    router: Router,
    permits: Arc<Semaphore>,
    limits: Limits,
    metrics: Metrics,
    stopped: watch::Receiver<bool>,
}

async fn accept(listener: TcpListener, server: Server) {
    let mut connections = JoinSet::new();
    let stopping = Stopping(server.stopped.clone());
    loop {
        while let Some(ended) = connections.try_join_next() {
            report(ended);
        }
        // The permit comes first: beyond the limit connections wait in the kernel, not here.
        let accepted = tokio::select! {
            accepted = next(&listener, &server.permits) => accepted,
            () = stopping.requested() => break,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                connections.spawn(serve(stream, peer, permit, server.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot take an HTTP connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let drained = timeout(DRAIN_TIMEOUT, async {
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    });
    if drained.await.is_err() {
        tracing::warn!(open = connections.len(), "HTTP connections are cut off");
    }
}

async fn next(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, permit))
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
    mut server: Server,
) {
    server.metrics.connection_opened("http");
    let inner = TowerToHyperService::new(server.router);
    let stopping = Stopping(server.stopped.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        request.extensions_mut().insert(stopping.clone());
        inner.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(server.limits.header_timeout)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = server.stopped.wait_for(|stopped| *stopped) => None,
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
    server.metrics.connection_closed("http");
    drop(permit);
}

/// A panic in a connection ends that connection; it is told, and the others go on.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "an HTTP connection ended in a panic");
    }
}

/// How long accepting pauses when the system has no more file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long a connection lives; a client that does not read holds it no longer.
const CONNECTION_LIFETIME: Duration = Duration::from_secs(600);

/// How long the last request of a connection may take, longer than the longest long poll.
const LAST_REQUEST_TIMEOUT: Duration = Duration::from_secs(130);

/// How long requests under way are waited for when the daemon stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Octets of the header of a request, and of what is buffered of an answer.
const BUFFER_BYTES_MAX: usize = 65_536;
