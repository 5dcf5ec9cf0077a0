//! The listeners that apps connect to.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::door::Door;
use super::guards::Guards;
use super::session::Session;
use crate::config::Settings;
use crate::net::listener::{self, Gate};
use crate::net::shutdown::{Drained, Shutdown};
use crate::net::tls::ServerTls;
use crate::smtp::{Peer, Secured, SessionEnd, SessionOptions, Upgrade, serve};

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
    /// What keeps guessers and floods out.
    pub guards: Guards,
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
    let metrics = context.door.metrics().clone();
    let per_address_max = limits.connections_per_address_max;
    let gate = Gate::new(SERVER, metrics, limits.connections_max, per_address_max)
        .behind(&limits.proxy_networks);
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
    let metrics = context.door.metrics().clone();
    let open = metrics.connection_opened(SERVER);
    let peer = Peer { address: address.map(|address| address.ip()) };
    let settings = Arc::clone(&context.settings.borrow());
    let Context { door, guards, tls, .. } = context;
    let mut session = Session::new(settings, door, guards, peer.clone());
    let options = Arc::new(session.options());
    let (stop, certificates) = (shutdown.requested(), tls.clone());
    // Each in a box of its own size, so that none takes up what only the other needs.
    let served: Pin<Box<dyn Future<Output = SessionEnd> + Send + '_>> = match (security, tls) {
        (Security::StartTls, tls) => {
            let upgrade = tls.map(upgrade);
            Box::pin(serve(stream, peer.clone(), None, options, upgrade, &mut session, stop))
        }
        (Security::Implicit, Some(tls)) => {
            Box::pin(implicit(tls, stream, peer.clone(), options, &mut session, stop))
        }
        (Security::Implicit, None) => return,
    };
    let end = served.await;
    if let SessionEnd::TlsFailed(error) = &end {
        metrics.tls_failed(SERVER);
        if let Some(certificates) = certificates {
            certificates.log_failed(SERVER, peer.address, error);
        }
    }
    drop(open);
    tracing::debug!(server = SERVER, %peer, ?end, "a connection has ended");
}

/// A connection that is TLS from its first octet.
async fn implicit(
    tls: Arc<ServerTls>,
    stream: TcpStream,
    peer: Peer,
    options: Arc<SessionOptions>,
    session: &mut Session,
    stop: impl Future<Output = ()> + Send,
) -> SessionEnd {
    match tls.accept(stream).await {
        Ok((stream, tls)) => {
            serve(Box::new(stream), peer, Some(tls), options, None, session, stop).await
        }
        Err(error) => SessionEnd::TlsFailed(error),
    }
}

fn upgrade(tls: Arc<ServerTls>) -> Upgrade<TcpStream> {
    Box::new(move |stream| {
        Box::pin(async move {
            let (stream, tls) = tls.accept(stream).await?;
            Ok(Secured { stream: Box::new(stream), tls })
        })
    })
}

/// The name in metrics and logs.
const SERVER: &str = "submission";
/// RFC 5321 §3.8.
const REFUSAL: &str = "421 4.7.0 too many connections, try again later\r\n";

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;
    use crate::clock::Clock;
    use crate::config::Certificate;
    use crate::metrics::Metrics;
    use crate::net::shutdown::{Stopper, shutdown};
    use crate::net::tls::{ClientTls, Verify};
    use crate::secret::{KeyRing, random_u64};
    use crate::store::{Options, Store};

    /// Two plain listeners and one with TLS, and what is behind them.
    struct Stage {
        dir: PathBuf,
        store: Store,
        metrics: Metrics,
        plain: [SocketAddr; 2],
        tls: SocketAddr,
        stopper: Stopper,
        server: JoinHandle<Drained>,
    }

    impl Stage {
        async fn start() -> Self {
            let dir = std::env::temp_dir().join(format!("rebound-serve-{:016x}", random_u64()));
            let keep = Duration::from_secs(3600 * 24 * 90);
            let options = Options { dir: dir.clone(), keep, bodies: Duration::ZERO };
            let store = Store::open(&options, Clock::system()).unwrap();
            let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
            let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
            std::fs::write(&cert_file, made.cert.pem()).unwrap();
            std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
            let certificates = ServerTls::load(&[Certificate { cert_file, key_file }]).unwrap();
            let metrics = Metrics::new();
            let context = Context {
                settings: watch::channel(Arc::new(crate::config::defaults())).1,
                door: Door::new(store.clone(), Clock::system(), metrics.clone()),
                guards: Guards::new(Arc::new(KeyRing::from_secret([7; 32]))),
                tls: Some(Arc::new(certificates)),
            };
            let (one, two, three) = (bind().await, bind().await, bind().await);
            let plain = [one.local_addr().unwrap(), two.local_addr().unwrap()];
            let tls = three.local_addr().unwrap();
            let listeners = Listeners { plain: vec![one, two], tls: vec![three] };
            let (stopper, stop) = shutdown();
            let server = tokio::spawn(run(listeners, context, stop));
            Self { dir, store, metrics, plain, tls, stopper, server }
        }
    }

    async fn bind() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    /// Sends one mail and QUIT at once; everything that the server says.
    async fn send(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        let input = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n\r\n.\r\nQUIT\r\n";
        stream.write_all(input).await.unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).await.unwrap();
        said
    }

    #[tokio::test]
    async fn mail_is_taken_on_every_listener_until_the_daemon_stops() {
        let stage = Stage::start().await;
        for address in stage.plain {
            let said = send(TcpStream::connect(address).await.unwrap()).await;
            assert!(said.contains("250 2.0.0 Ok: queued as "), "{said}");
        }
        let mut idle = TcpStream::connect(stage.plain[0]).await.unwrap();
        let mut greeting = [0; 4];
        idle.read_exact(&mut greeting).await.unwrap();
        assert_eq!(&greeting, b"220 ");
        stage.stopper.stop();
        let mut said = String::new();
        idle.read_to_string(&mut said).await.unwrap();
        assert!(said.contains("\r\n421 4."), "{said}");
        assert_eq!(stage.server.await.unwrap(), Drained { aborted: 0 });
        assert_eq!(stage.store.queue_len(), 2);
        let text = stage.metrics.text();
        for line in [
            "rebound_connections_total{server=\"submission\"} 3",
            "rebound_connections_open{server=\"submission\"} 0",
            "rebound_messages_accepted_total 2",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        stage.store.close().await;
        std::fs::remove_dir_all(&stage.dir).unwrap();
    }

    #[tokio::test]
    async fn tls_is_spoken_from_the_first_octet_and_after_starttls() {
        let stage = Stage::start().await;
        let client = ClientTls::new(Verify::No, None).unwrap();
        let stream = TcpStream::connect(stage.tls).await.unwrap();
        let (stream, _) = client.connect("localhost", stream).await.unwrap();
        let implicit = send(stream).await;

        let mut stream = TcpStream::connect(stage.plain[0]).await.unwrap();
        stream.write_all(b"EHLO x\r\nSTARTTLS\r\n").await.unwrap();
        let mut said = Vec::new();
        while !said.ends_with(b"\r\n") || said.windows(4).filter(|w| w == b"220 ").count() < 2 {
            said.push(stream.read_u8().await.unwrap());
        }
        assert!(String::from_utf8(said).unwrap().contains("250-STARTTLS\r\n"));
        let (stream, _) = client.connect("localhost", stream).await.unwrap();
        let upgraded = send(stream).await;
        for said in [implicit, upgraded] {
            let id = said.split("queued as ").nth(1).unwrap_or_else(|| panic!("refused: {said}"));
            let id = crate::mail::QueueId::parse(id.split(' ').next().unwrap()).unwrap();
            let record = stage.store.message(id).unwrap().unwrap().submission;
            let received = crate::mail::header::find(&record.header, "Received").unwrap().text();
            assert!(received.contains(" with ESMTPS id "), "{received}");
        }
        // What is no handshake ends the connection and is counted, whatever the client sees.
        let mut stream = TcpStream::connect(stage.tls).await.unwrap();
        stream.write_all(b"EHLO x\r\nQUIT\r\n").await.unwrap();
        drop(stream.read_to_end(&mut Vec::new()).await);
        stage.stopper.stop();
        assert_eq!(stage.server.await.unwrap(), Drained { aborted: 0 });
        let text = stage.metrics.text();
        assert!(text.contains("rebound_tls_failed_total{server=\"submission\"} 1"), "{text}");
        stage.store.close().await;
        std::fs::remove_dir_all(&stage.dir).unwrap();
    }
}
