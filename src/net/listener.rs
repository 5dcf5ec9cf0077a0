//! Listeners: bound with a clear error, or handed over by systemd; limits on who comes in.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use listenfd::ListenFd;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::proxy::{self, ProxyError};
use super::seldom::Seldom;
use super::shutdown::{Drain, Drained, Shutdown};
use crate::config::Network;
use crate::metrics::Metrics;

/// The sockets that systemd has opened for us, taken by the address they are bound to.
#[derive(Debug, Default)]
pub struct Sockets {
    tcp: Vec<std::net::TcpListener>,
    unix: Vec<std::os::unix::net::UnixListener>,
}

/// Why an address could not be listened on.
#[derive(Debug)]
pub struct BindError {
    address: String,
    source: io::Error,
}

impl Sockets {
    /// Takes over what systemd has opened, if it has; to be called once, when the daemon starts.
    pub fn from_env() -> Self {
        let mut passed = ListenFd::from_env();
        let mut sockets = Self::default();
        for at in 0..passed.len() {
            if let Ok(Some(listener)) = passed.take_tcp_listener(at) {
                sockets.tcp.push(listener);
            } else if let Ok(Some(listener)) = passed.take_unix_listener(at) {
                sockets.unix.push(listener);
            } else {
                tracing::warn!(at, "a socket that was handed over is no listener, and is ignored");
            }
        }
        sockets
    }

    /// A listener on `address`: the one handed over for it, or a new one, where `backlog`
    /// connections may wait in the kernel to be accepted.
    pub fn tcp(&mut self, address: SocketAddr, backlog: u32) -> Result<TcpListener, BindError> {
        let is_it = |listener: &std::net::TcpListener| {
            listener.local_addr().is_ok_and(|bound| bound == address)
        };
        let bound = match self.tcp.iter().position(is_it) {
            Some(at) => {
                let listener = self.tcp.swap_remove(at);
                listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener))
            }
            None => bind_tcp(address, backlog),
        };
        bound.map_err(|source| BindError { address: address.to_string(), source })
    }

    /// A listener on the Unix socket at `path`: the one handed over for it, or a new one.
    pub fn unix(&mut self, path: &Path) -> Result<UnixListener, BindError> {
        let is_it = |listener: &std::os::unix::net::UnixListener| {
            listener.local_addr().is_ok_and(|bound| bound.as_pathname() == Some(path))
        };
        let bound = match self.unix.iter().position(is_it) {
            Some(at) => {
                let listener = self.unix.swap_remove(at);
                listener.set_nonblocking(true).and_then(|()| UnixListener::from_std(listener))
            }
            None => bind_unix(path),
        };
        bound.map_err(|source| BindError { address: path.display().to_string(), source })
    }

    /// What was handed over and not taken, for a warning: no setting names these addresses.
    pub fn unused(&self) -> Vec<String> {
        let tcp = self.tcp.iter().filter_map(|listener| listener.local_addr().ok());
        let unix = self.unix.iter().filter_map(|listener| listener.local_addr().ok());
        let path = |address: std::os::unix::net::SocketAddr| {
            address.as_pathname().map_or_else(PathBuf::new, Path::to_path_buf)
        };
        tcp.map(|address| address.to_string())
            .chain(unix.map(|address| path(address).display().to_string()))
            .collect()
    }
}

impl BindError {
    /// What the operator can do about it.
    fn remedy(&self) -> &'static str {
        match self.source.kind() {
            io::ErrorKind::AddrInUse => "; another server listens there, stop it or choose another",
            io::ErrorKind::PermissionDenied => {
                "; ports below 1024 need CAP_NET_BIND_SERVICE or a socket unit"
            }
            io::ErrorKind::AddrNotAvailable => "; no interface of this host has that address",
            _ => "",
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot listen on {}: {}{}", self.address, self.source, self.remedy())
    }
}

impl std::error::Error for BindError {
    /// What lies behind the system's error, which `Display` shows itself, before the remedy.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.source()
    }
}

/// What connections are taken from.
pub trait Accept: Send {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next connection, and the peer's address where it has one.
    fn accept(&self)
    -> impl Future<Output = io::Result<(Self::Stream, Option<SocketAddr>)>> + Send;

    /// Whom `proxy`, which one of ours is, has connected for; reads its PROXY header.
    fn origin(
        stream: &mut Self::Stream,
        proxy: SocketAddr,
    ) -> impl Future<Output = Result<SocketAddr, ProxyError>> + Send;
}

impl Accept for TcpListener {
    type Stream = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, Option<SocketAddr>)> {
        let (stream, address) = Self::accept(self).await?;
        // Replies are gathered already; waiting for more would only delay them.
        stream.set_nodelay(true)?;
        Ok((stream, Some(address)))
    }

    async fn origin(stream: &mut TcpStream, proxy: SocketAddr) -> Result<SocketAddr, ProxyError> {
        proxy::origin(stream, proxy).await
    }
}

impl Accept for UnixListener {
    type Stream = UnixStream;

    async fn accept(&self) -> io::Result<(UnixStream, Option<SocketAddr>)> {
        let (stream, _) = Self::accept(self).await?;
        Ok((stream, None))
    }

    /// Nobody without an address is one of our proxies.
    async fn origin(_stream: &mut UnixStream, proxy: SocketAddr) -> Result<SocketAddr, ProxyError> {
        Ok(proxy)
    }
}

/// Counts the connections of one server, over all its listeners; cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    /// The server's name in metrics and logs.
    server: &'static str,
    metrics: Metrics,
    /// Who begins with a PROXY header.
    proxies: Arc<[Network]>,
    /// The proxies that were complained about.
    complaints: Arc<Seldom>,
    /// Taken before a connection is accepted.
    doors: Arc<Semaphore>,
    /// Taken by a connection that is served.
    rooms: Arc<Semaphore>,
    per_address_max: usize,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// A connection's place; free again when dropped.
#[derive(Debug)]
struct Place {
    key: Option<IpAddr>,
    addresses: Arc<Mutex<HashMap<IpAddr, usize>>>,
    _room: OwnedSemaphorePermit,
}

/// Why a connection is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Full {
    Server,
    Address,
}

impl Gate {
    /// At most `connections_max` connections, and `per_address_max` from one address.
    ///
    /// One address is one IPv4 address or one IPv6 network of 64 bits, which one host owns.
    pub fn new(
        server: &'static str,
        metrics: Metrics,
        connections_max: usize,
        per_address_max: usize,
    ) -> Self {
        let connections_max = connections_max.min(CONNECTIONS_MAX);
        let doors = connections_max.saturating_add(REFUSALS_MAX);
        Self {
            server,
            metrics,
            proxies: Arc::default(),
            complaints: Arc::new(Seldom::hourly()),
            doors: Arc::new(Semaphore::new(doors)),
            rooms: Arc::new(Semaphore::new(connections_max)),
            per_address_max,
            addresses: Arc::default(),
        }
    }

    /// Connections from these networks begin with a PROXY header, and count as those of whom it
    /// names.
    pub fn behind(self, proxies: &[Network]) -> Self {
        Self { proxies: proxies.into(), ..self }
    }

    /// Whom a connection counts as: its peer, or whom the peer names if it is one of our proxies.
    async fn origin<L: Accept>(
        &self,
        stream: &mut L::Stream,
        peer: Option<SocketAddr>,
    ) -> Result<Option<SocketAddr>, ProxyError> {
        match peer {
            Some(proxy) if Network::any_contains(&self.proxies, Some(proxy.ip())) => {
                // Few connections need it, and all would carry its buffers around.
                Box::pin(L::origin(stream, proxy)).await.map(Some)
            }
            _ => Ok(peer),
        }
    }

    fn complain(&self, proxy: Option<SocketAddr>, error: &ProxyError) {
        if let Some(proxy) = proxy.map(|proxy| proxy.ip())
            && self.complaints.may_say(proxy)
        {
            let server = self.server;
            tracing::warn!(server, %proxy, %error, "a connection of a proxy is dropped");
        }
    }

    fn enter(&self, address: Option<IpAddr>) -> Result<Place, Full> {
        let room = Arc::clone(&self.rooms).try_acquire_owned().map_err(|_full| Full::Server)?;
        let key = address.map(network_of);
        if let Some(key) = key {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let count = addresses.entry(key).or_default();
            if *count >= self.per_address_max {
                return Err(Full::Address);
            }
            *count = count.saturating_add(1);
        }
        Ok(Place { key, addresses: Arc::clone(&self.addresses), _room: room })
    }

    async fn turn_away(
        &self,
        mut stream: impl AsyncWrite + Unpin,
        refusal: &'static str,
        origin: Option<SocketAddr>,
        full: Full,
    ) {
        self.metrics.connection_refused(self.server);
        let peer = origin.map(|origin| origin.to_string());
        tracing::debug!(
            server = self.server,
            peer,
            ?full,
            "a connection over the limit is refused"
        );
        let told = async {
            stream.write_all(refusal.as_bytes()).await?;
            stream.shutdown().await
        };
        // It is sent away in any case; whether it heard why is its own affair.
        drop(tokio::time::timeout(REFUSAL_TIMEOUT, told).await);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let mut addresses = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(count) = addresses.get_mut(&key) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    addresses.remove(&key);
                }
            }
        }
    }
}

/// Serves connections until the daemon stops, then waits for those that are open.
///
/// Each is served by `on_connection` in a task of its own; a panic there ends that connection
/// alone. It is given the peer's address, or the one that a proxy of ours has named. A connection
/// over a limit is sent `refusal` and closed.
/// `drain_timeout` is how long open connections may go on after the daemon was told to stop.
pub async fn run<L, H, F>(
    listener: L,
    gate: Gate,
    refusal: &'static str,
    shutdown: Shutdown,
    drain_timeout: Duration,
    on_connection: H,
) -> Drained
where
    L: Accept + 'static,
    H: Fn(L::Stream, Option<SocketAddr>) -> F + Send + Sync + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let on_connection = Arc::new(on_connection);
    let mut tasks = Drain::default();
    let mut stop = std::pin::pin!(shutdown.requested());
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.as_mut() => break,
            () = tasks.one_ended() => continue,
            accepted = next(&listener, &gate) => accepted,
        };
        let (door, stream, peer) = match accepted {
            Ok(arrival) => arrival,
            Err(error) => {
                // Most likely there are no file descriptors left; trying at once would spin.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let on_connection = Arc::clone(&on_connection);
        tasks.spawn(admit::<L, H, F>(gate.clone(), door, stream, peer, refusal, on_connection));
    }
    drop(listener);
    tasks.finish(drain_timeout).await
}

/// Serves one connection, or sends it away; `door` is its place among those that are accepted.
async fn admit<L, H, F>(
    gate: Gate,
    door: OwnedSemaphorePermit,
    mut stream: L::Stream,
    peer: Option<SocketAddr>,
    refusal: &'static str,
    on_connection: Arc<H>,
) where
    L: Accept,
    H: Fn(L::Stream, Option<SocketAddr>) -> F,
    F: Future<Output = ()>,
{
    match gate.origin::<L>(&mut stream, peer).await {
        Ok(origin) => match gate.enter(origin.map(|origin| origin.ip())) {
            Ok(place) => {
                on_connection(stream, origin).await;
                drop(place);
            }
            Err(full) => gate.turn_away(stream, refusal, origin, full).await,
        },
        Err(error) => gate.complain(peer, &error),
    }
    drop(door);
}

/// The permit comes first: what cannot be served waits in the kernel's queue.
async fn next<L: Accept>(
    listener: &L,
    gate: &Gate,
) -> io::Result<(OwnedSemaphorePermit, L::Stream, Option<SocketAddr>)> {
    let door = Arc::clone(&gate.doors).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    Ok((door, stream, address))
}

fn bind_tcp(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A restart must not wait until the kernel has forgotten the old connections.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(backlog)
}

/// A socket file that nobody listens on any more is left over from a crash, and is replaced.
fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            match std::os::unix::net::UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        bound => bound,
    }
}

/// What counts as one peer: an IPv4 address, or the IPv6 network of 64 bits that one host owns.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & NETWORK_MASK)),
        v4 => v4,
    }
}

/// More connections than a host has ports make no sense; the semaphore has a limit, too.
const CONNECTIONS_MAX: usize = 1 << 24;
/// Connections that are being refused at a time.
const REFUSALS_MAX: usize = 64;
/// The time in which a refused connection must take the reason.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// The wait after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// The first 64 bits of an IPv6 address.
const NETWORK_MASK: u128 = 0xFFFF_FFFF_FFFF_FFFF_0000_0000_0000_0000;

#[cfg(test)]
mod tests {
    use super::super::shutdown::shutdown;
    use super::*;
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    const LOOPBACK: &str = "127.0.0.1:0";

    fn bound() -> (TcpListener, SocketAddr) {
        let listener = Sockets::default().tcp(LOOPBACK.parse().unwrap(), 16).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    fn gate(connections_max: usize, per_address_max: usize) -> Gate {
        Gate::new("test", Metrics::new(), connections_max, per_address_max)
    }

    async fn read_all(address: SocketAddr) -> String {
        let mut text = String::new();
        TcpStream::connect(address).await.unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn an_occupied_address_is_named_with_a_remedy() {
        let (_listener, address) = bound();
        let error = Sockets::default().tcp(address, 16).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(error.contains("another server listens there"), "{error}");
        let error = Sockets::default().tcp("192.0.2.1:2525".parse().unwrap(), 16).unwrap_err();
        assert!(error.to_string().contains("no interface"), "{error}");
    }

    #[tokio::test]
    async fn a_socket_that_was_handed_over_is_taken_by_its_address() {
        let passed = std::net::TcpListener::bind(LOOPBACK).unwrap();
        let address = passed.local_addr().unwrap();
        let mut sockets = Sockets { tcp: vec![passed], unix: Vec::new() };
        assert_eq!(sockets.unused(), [address.to_string()]);
        let listener = sockets.tcp(address, 16).unwrap();
        assert_eq!(listener.local_addr().unwrap(), address);
        assert!(sockets.unused().is_empty());
    }

    #[tokio::test]
    async fn a_socket_file_left_by_a_crash_is_replaced_but_not_one_in_use() {
        let path = std::env::temp_dir().join(format!("rebound-unix-{}", std::process::id()));
        drop(Sockets::default().unix(&path).unwrap());
        assert!(path.exists());
        let _listener = Sockets::default().unix(&path).unwrap();
        let error = Sockets::default().unix(&path).unwrap_err().to_string();
        assert!(error.contains(&path.display().to_string()), "{error}");
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn what_is_over_a_limit_is_told_so_and_a_free_place_is_used_again() {
        for gate in [gate(1, 10), gate(10, 1)] {
            let metrics = gate.metrics.clone();
            let (listener, address) = bound();
            let (stopper, stop) = shutdown();
            let (leave, left) = tokio::sync::watch::channel(false);
            let (arrived, mut arrivals) = mpsc::unbounded_channel();
            let drained = Duration::from_secs(5);
            let server = run(listener, gate, "full\r\n", stop, drained, move |stream, address| {
                let (arrived, mut left) = (arrived.clone(), left.clone());
                async move {
                    arrived.send(address).unwrap();
                    left.wait_for(|left| *left).await.unwrap();
                    drop(stream);
                }
            });
            let server = tokio::spawn(server);
            let first = tokio::spawn(read_all(address));
            assert!(arrivals.recv().await.unwrap().unwrap().ip().is_loopback());
            assert_eq!(read_all(address).await, "full\r\n");
            let text = metrics.text();
            let refused = "rebound_connections_refused_total{server=\"test\"} 1\n";
            assert!(text.contains(refused), "{text}");
            leave.send(true).unwrap();
            assert_eq!(first.await.unwrap(), "");
            // The place is free as soon as the task has ended, which `first` may see earlier.
            while !read_all(address).await.is_empty() {}
            stopper.stop();
            assert_eq!(server.await.unwrap(), Drained { aborted: 0 });
        }
    }

    #[tokio::test]
    async fn a_connection_of_a_proxy_counts_as_that_of_whom_it_names() {
        let (listener, address) = bound();
        let (stopper, stop) = shutdown();
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let loopback = Network::try_from("127.0.0.0/8".to_owned()).unwrap();
        let gate = gate(10, 1).behind(&[loopback]);
        let limit = Duration::from_secs(5);
        let server = run(listener, gate, "full\r\n", stop, limit, move |mut stream, address| {
            let arrived = arrived.clone();
            async move {
                arrived.send(address).unwrap();
                stream.write_all(b"220 hello\r\n").await.unwrap();
                // Until the client has closed.
                drop(stream.read_to_end(&mut Vec::new()).await);
            }
        });
        let server = tokio::spawn(server);
        let connect = async |header: &str| {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(header.as_bytes()).await.unwrap();
            let mut said = [0; 4];
            let _closed = stream.read_exact(&mut said).await;
            (stream, String::from_utf8_lossy(&said).into_owned())
        };
        let one = "PROXY TCP4 192.0.2.1 192.0.2.9 4660 25\r\n";
        let (first, said) = connect(one).await;
        assert_eq!(said, "220 ");
        assert_eq!(arrivals.recv().await.unwrap(), Some("192.0.2.1:4660".parse().unwrap()));
        assert_eq!(connect(one).await.1, "full");
        let (_other, said) = connect("PROXY TCP4 192.0.2.2 192.0.2.9 4660 25\r\n").await;
        assert_eq!(said, "220 ");
        assert_eq!(arrivals.recv().await.unwrap(), Some("192.0.2.2:4660".parse().unwrap()));
        drop(first);
        while connect(one).await.1 != "220 " {}
        // Without a header there is no service, and nothing is said.
        assert_eq!(connect("EHLO x\r\n").await.1, "\0\0\0\0");
        stopper.stop();
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_panic_ends_one_connection_and_frees_its_place() {
        let (listener, address) = bound();
        let (stopper, stop) = shutdown();
        let gate = gate(1, 1);
        let limit = Duration::from_secs(5);
        let places = gate.clone();
        let server = run(listener, gate, "full\r\n", stop, limit, |_stream, _address| async {
            panic!("a defect")
        });
        let server = tokio::spawn(server);
        for _ in 0..3 {
            while !read_all(address).await.is_empty() {}
        }
        stopper.stop();
        assert_eq!(server.await.unwrap(), Drained { aborted: 0 });
        assert!(places.addresses.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn connections_that_do_not_end_are_ended_after_the_drain_time() {
        let (listener, address) = bound();
        let (stopper, stop) = shutdown();
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let limit = Duration::from_millis(10);
        let server = run(listener, gate(5, 5), "", stop, limit, move |stream, _address| {
            arrived.send(()).unwrap();
            async move {
                std::future::pending::<()>().await;
                drop(stream);
            }
        });
        let server = tokio::spawn(server);
        let client = tokio::spawn(read_all(address));
        arrivals.recv().await.unwrap();
        stopper.stop();
        assert_eq!(server.await.unwrap(), Drained { aborted: 1 });
        assert_eq!(client.await.unwrap(), "");
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[test]
    fn one_ipv6_network_counts_as_one_address() {
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:1"));
        assert_ne!(network("2001:db8::1"), network("2001:db8:0:1::1"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
    }
}
