//! The one part of the protocol that reads and writes.

use std::future::Future;
use std::sync::Arc;

use super::service::{Peer, Service, SessionEnd, SessionOptions, Stream, Upgrade};

/// Serves one connection until it ends.
///
/// STARTTLS is offered when there is an `upgrade`. On a connection that is TLS from its first
/// octet, `tls` names version and cipher and there is no `upgrade`.
/// When `shutdown` completes, the session ends with 421 before its next command; a mail that is
/// on its way in is finished first.
pub async fn serve<P: Stream, S: Service>(
    stream: P,
    peer: Peer,
    tls: Option<String>,
    options: Arc<SessionOptions>,
    upgrade: Option<Upgrade<P>>,
    service: &mut S,
    shutdown: impl Future<Output = ()> + Send,
) -> SessionEnd {
    todo!()
}
