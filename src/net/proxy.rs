//! The PROXY protocol, versions 1 and 2: on whose behalf a proxy in front of us has connected.
//! The sections are those of HAProxy's `proxy-protocol.txt`.
//!
//! **Invariant:** whether there is a header is never guessed. A peer in `proxy_networks` must
//! begin with one; from any other none is read, so that nobody can name himself somebody else.
//! **Invariant:** not one octet behind the header is taken: what follows is SMTP or TLS.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Why a connection of a proxy is dropped before a word is said.
#[derive(Debug)]
pub enum ProxyError {
    /// What it sent is no header; the words say why.
    PeerHeader(&'static str),
    /// It closed the connection within its header.
    PeerClosed,
    /// The header did not come in time.
    PeerTimedOut,
    /// It is on another host and names loopback, which is trusted only where it is our own.
    PeerLoopback,
    /// The connection broke.
    Broken(io::Error),
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerHeader(why) => write!(f, "no PROXY header: {why}"),
            Self::PeerClosed => f.write_str("it closed the connection within its PROXY header"),
            Self::PeerTimedOut => {
                write!(f, "no PROXY header came within {} s", HEADER_TIMEOUT.as_secs())
            }
            Self::PeerLoopback => f.write_str("it names a loopback address, which is not ours"),
            Self::Broken(_) => f.write_str("the connection broke within its PROXY header"),
        }
    }
}

impl std::error::Error for ProxyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken(error) => Some(error),
            _ => None,
        }
    }
}

/// Reads the header that `proxy` begins with: whom it has connected for, and itself where it
/// speaks for itself (`LOCAL`) or does not know (`UNKNOWN`).
pub(super) async fn origin(
    stream: &mut TcpStream,
    proxy: SocketAddr,
) -> Result<SocketAddr, ProxyError> {
    let named = match timeout(HEADER_TIMEOUT, header(stream)).await {
        Ok(read) => read?.unwrap_or(proxy),
        Err(_elapsed) => return Err(ProxyError::PeerTimedOut),
    };
    let is_local = |address: SocketAddr| address.ip().to_canonical().is_loopback();
    if is_local(named) && !is_local(proxy) { Err(ProxyError::PeerLoopback) } else { Ok(named) }
}

/// Looks at what there is before it takes it.
async fn header(stream: &mut TcpStream) -> Result<Option<SocketAddr>, ProxyError> {
    let mut header = Vec::new();
    let mut octets = [0; PEEK_BYTES];
    loop {
        let seen = stream.peek(&mut octets).await.map_err(ProxyError::Broken)?;
        if seen == 0 {
            return Err(ProxyError::PeerClosed);
        }
        let taken = header.len();
        header.extend_from_slice(octets.get(..seen).unwrap_or_default());
        let parsed = parse(&header).map_err(ProxyError::PeerHeader)?;
        let len = match &parsed {
            Parsed::Whole { len, .. } => *len,
            Parsed::Partial => header.len(),
        };
        // What was seen is there; reading it cannot wait.
        let own = octets.get_mut(..len.saturating_sub(taken)).unwrap_or_default();
        stream.read_exact(own).await.map_err(ProxyError::Broken)?;
        if let Parsed::Whole { origin, .. } = parsed {
            return Ok(origin);
        }
    }
}

/// What the first octets of a connection come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    /// All of them belong to a header whose end is missing.
    Partial,
    /// The first `len` are a header.
    Whole {
        len: usize,
        /// Whom the proxy has connected for, where it says so.
        origin: Option<SocketAddr>,
    },
}

fn parse(octets: &[u8]) -> Result<Parsed, &'static str> {
    let begins_with =
        |start: &[u8]| octets.iter().zip(start).all(|(octet, wanted)| octet == wanted);
    if begins_with(V2_SIGNATURE) {
        parse_binary(octets)
    } else if begins_with(V1_SIGNATURE) {
        parse_line(octets)
    } else {
        Err("it begins with something else")
    }
}

/// Version 1: one line (§2.1).
fn parse_line(octets: &[u8]) -> Result<Parsed, &'static str> {
    let Some(line_feed) = octets.iter().position(|octet| *octet == b'\n') else {
        let is_full = octets.len() >= V1_BYTES_MAX;
        return if is_full { Err("its line is too long") } else { Ok(Parsed::Partial) };
    };
    let len = line_feed.saturating_add(1);
    if len > V1_BYTES_MAX {
        return Err("its line is too long");
    }
    let line = octets.get(..line_feed).and_then(|line| line.strip_suffix(b"\r"));
    let line = line.filter(|line| !line.contains(&b'\r')).ok_or("its line ends without CR LF")?;
    let text = std::str::from_utf8(line).unwrap_or_default();
    let words: Vec<&str> = text.split(' ').collect();
    let origin = match words.as_slice() {
        // What follows must be passed over.
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            Some(named::<Ipv4Addr>([from, to], [from_port, to_port])?)
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            Some(named::<Ipv6Addr>([from, to], [from_port, to_port])?)
        }
        _ => return Err("its line is malformed"),
    };
    Ok(Parsed::Whole { len, origin })
}

/// The first of two addresses, with the first of two ports; the others must be right all the same.
fn named<A>(addresses: [&str; 2], ports: [&str; 2]) -> Result<SocketAddr, &'static str>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let [from, to] = addresses.map(|text| text.parse::<A>().ok());
    let [from_port, to_port] = ports.map(port);
    match (from, to, from_port, to_port) {
        (Some(from), Some(_), Some(port), Some(_)) => Ok(SocketAddr::new(from.into(), port)),
        _ => Err("an address or a port in it is malformed"),
    }
}

/// Decimal, without a sign and without zeros in front.
fn port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|octet| octet.is_ascii_digit());
    let is_short = text.len() == 1 || !text.starts_with('0');
    if is_plain && is_short { text.parse().ok() } else { None }
}

/// Version 2: 16 octets, the addresses, and what we have no use for (§2.2).
fn parse_binary(octets: &[u8]) -> Result<Parsed, &'static str> {
    let head = octets.get(V2_SIGNATURE.len()..).and_then(|rest| rest.split_first_chunk::<4>());
    let Some((&[version_and_command, family, high, low], rest)) = head else {
        return Ok(Parsed::Partial);
    };
    if version_and_command >> 4 != 2 {
        return Err("its version is neither 1 nor 2");
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    let len = V2_HEAD_BYTES.saturating_add(length);
    if len > V2_BYTES_MAX {
        return Err("it is too long");
    }
    let Some(block) = rest.get(..length) else {
        return Ok(Parsed::Partial);
    };
    let too_short = "its addresses are cut off";
    let origin = match (version_and_command & 0x0F, family) {
        (LOCAL, _) => None,
        (PROXY, 0x11) => Some(first::<4>(block).ok_or(too_short)?),
        (PROXY, 0x21) => Some(first::<16>(block).ok_or(too_short)?),
        // A family or transport that cannot be the peer of a TCP connection: the proxy knows of
        // no address that we could use.
        (PROXY, family) if family >> 4 <= 3 && family & 0x0F <= 2 => None,
        (PROXY, _) => return Err("its address family is unknown"),
        _ => return Err("its command is unknown"),
    };
    Ok(Parsed::Whole { len, origin })
}

/// The first of two addresses, with the first of two ports.
fn first<const BYTES: usize>(block: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; BYTES]>,
{
    let (from, rest) = block.split_first_chunk::<BYTES>()?;
    let (_to, rest) = rest.split_first_chunk::<BYTES>()?;
    let [high, low, _, _] = *rest.first_chunk::<4>()?;
    Some(SocketAddr::new(IpAddr::from(*from), u16::from_be_bytes([high, low])))
}

const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family, length.
const V2_HEAD_BYTES: usize = 16;
const LOCAL: u8 = 0;
const PROXY: u8 = 1;
/// Octets of a version 1 header with its CRLF: the worst case of §2.1.
const V1_BYTES_MAX: usize = 107;
/// Octets of a version 2 header; addresses take 52, what proxies add a few hundred.
const V2_BYTES_MAX: usize = 4096;
/// Octets that are looked at together.
const PEEK_BYTES: usize = 512;
/// The time in which the header must be there; a proxy sends it at once, and §2 asks for three
/// seconds at least.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    fn v2(version_and_command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let length = u16::try_from(block.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[version_and_command, family], &length, block].concat()
    }

    /// `192.0.2.1:4660` to `192.0.2.9:25`.
    const V4: &[u8] = &[192, 0, 2, 1, 192, 0, 2, 9, 0x12, 0x34, 0, 25];

    /// `[2001:db8::1]:4660` to `[2001:db8::9]:25`.
    fn v6() -> Vec<u8> {
        let address = |text: &str| text.parse::<Ipv6Addr>().unwrap().octets();
        [&address("2001:db8::1")[..], &address("2001:db8::9"), &[0x12, 0x34, 0, 25]].concat()
    }

    fn whole(len: usize, origin: &str) -> Result<Parsed, &'static str> {
        let origin = (!origin.is_empty()).then(|| origin.parse().unwrap());
        Ok(Parsed::Whole { len, origin })
    }

    /// Each with what it says, whom it names, and nothing behind it.
    fn good() -> Vec<(Vec<u8>, &'static str)> {
        let mut all = vec![
            (v2(0x21, 0x11, V4), "192.0.2.1:4660"),
            (v2(0x21, 0x11, &[V4, &[3, 0, 4, 1, 2, 3, 4]].concat()), "192.0.2.1:4660"),
            (v2(0x21, 0x11, &[V4, &[0xEE; 4068]].concat()), "192.0.2.1:4660"),
            (v2(0x21, 0x21, &v6()), "[2001:db8::1]:4660"),
            (v2(0x21, 0x00, b""), ""),
            (v2(0x21, 0x00, V4), ""),
            (v2(0x21, 0x12, V4), ""),
            (v2(0x21, 0x31, &[b'/'; 216]), ""),
            (v2(0x20, 0x00, b""), ""),
            (v2(0x20, 0x11, V4), ""),
            (v2(0x20, 0xFF, b"anything"), ""),
        ];
        for (line, origin) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.9 4660 25", "192.0.2.1:4660"),
            ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", "255.255.255.255:65535"),
            ("PROXY TCP4 192.0.2.1 192.0.2.9 0 0", "192.0.2.1:0"),
            ("PROXY TCP6 2001:db8::1 2001:DB8::9 4660 25", "[2001:db8::1]:4660"),
            ("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2", "[::ffff:192.0.2.1]:1"),
            ("PROXY UNKNOWN", ""),
            ("PROXY UNKNOWN anything  at all", ""),
        ] {
            all.push((format!("{line}\r\n").into_bytes(), origin));
        }
        let longest = format!("PROXY UNKNOWN {}\r\n", "f".repeat(91));
        assert_eq!(longest.len(), V1_BYTES_MAX);
        all.push((longest.into_bytes(), ""));
        all
    }

    #[test]
    fn a_header_says_whom_the_proxy_speaks_for() {
        for (octets, origin) in good() {
            assert_eq!(parse(&octets), whole(octets.len(), origin), "{octets:?}");
            let more = [octets.as_slice(), b"EHLO x\r\n"].concat();
            assert_eq!(parse(&more), whole(octets.len(), origin), "{octets:?} and more");
        }
    }

    #[test]
    fn a_header_is_partial_up_to_its_last_octet() {
        for (octets, _) in good() {
            for len in 0..octets.len() {
                assert_eq!(parse(&octets[..len]), Ok(Parsed::Partial), "{len} of {octets:?}");
            }
        }
    }

    #[test]
    fn everything_else_is_refused() {
        let malformed = [
            "PROXY TCP4 192.0.2.1 192.0.2.9 4660\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 4660 25 \r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.9 4660 25\r\n",
            "PROXY TCP4 192.0.2.01 192.0.2.9 4660 25\r\n",
            "PROXY TCP4 192.0.2.256 192.0.2.9 4660 25\r\n",
            "PROXY TCP4 192.0.2 192.0.2.9 4660 25\r\n",
            "PROXY TCP4 ::1 ::1 4660 25\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.9 4660 25\r\n",
            "PROXY TCP6 1::2::3 ::1 4660 25\r\n",
            "PROXY TCP6 fe80::1%eth0 ::1 4660 25\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 65536 25\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 04660 25\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 +466 25\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 -1 25\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 4660 \r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 4660 x\r\n",
            "PROXY TCP4 192.0.2.1 x 4660 25\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 4660 25\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 4660 25\r\r\n",
            "PROXY UNKNOWN\n",
            "PROXY UNKNOWN \r \r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.9 4660 25\r\n",
            "PROXY unknown\r\n",
            "PROXY \r\n",
            "PROXY  UNKNOWN\r\n",
            "PROXX",
            "proxy ",
            "EHLO client.example\r\n",
            "\r\nPROXY UNKNOWN\r\n",
            "\u{16}\u{3}\u{1}",
        ];
        for text in malformed {
            assert!(parse(text.as_bytes()).is_err(), "{text:?}");
        }
        for long in ["PROXY UNKNOWN ", "PROXY TCP4 "] {
            let long = format!("{long}{}", "f".repeat(V1_BYTES_MAX));
            assert!(parse(long.as_bytes()).is_err(), "{long}");
            assert!(parse(format!("{long}\r\n").as_bytes()).is_err(), "{long}");
        }
        for octets in [
            v2(0x11, 0x11, V4),
            v2(0x31, 0x11, V4),
            v2(0x22, 0x11, V4),
            v2(0x2F, 0x11, V4),
            v2(0x21, 0x13, V4),
            v2(0x21, 0x41, V4),
            v2(0x21, 0x11, &V4[..11]),
            v2(0x21, 0x11, b""),
            v2(0x21, 0x21, &v6()[..35]),
            v2(0x21, 0x21, V4),
            v2(0x21, 0x11, &[0; 4081]),
            // A length that never comes: it is refused before it is waited for.
            [V2_SIGNATURE, &[0x21, 0x11, 0xFF, 0xFF]].concat(),
            [V2_SIGNATURE, &[0x20, 0x00, 0xFF, 0xFF]].concat(),
        ] {
            assert!(parse(&octets).is_err(), "{octets:?}");
        }
    }

    /// A connected pair on loopback: what the client has, what we have accepted.
    async fn pair() -> (TcpStream, TcpStream, SocketAddr) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.set_nodelay(true).unwrap();
        let (ours, proxy) = listener.accept().await.unwrap();
        (client, ours, proxy)
    }

    #[tokio::test]
    async fn nothing_behind_the_header_is_taken_however_it_is_cut() {
        for (octets, origin_text) in good() {
            for piece_len in [1, 7, octets.len(), octets.len() + 8] {
                let (mut client, mut ours, proxy) = pair().await;
                let sent = [octets.as_slice(), b"EHLO x\r\n"].concat();
                let send = async {
                    for piece in sent.chunks(piece_len) {
                        client.write_all(piece).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    client.shutdown().await.unwrap();
                };
                let (named, ()) = tokio::join!(origin(&mut ours, proxy), send);
                let want = origin_text.parse().unwrap_or(proxy);
                assert_eq!(named.unwrap(), want, "{octets:?} by {piece_len}");
                let mut rest = String::new();
                ours.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "EHLO x\r\n", "{octets:?} by {piece_len}");
            }
        }
    }

    #[tokio::test]
    async fn a_header_that_does_not_come_ends_the_connection() {
        let (client, mut ours, proxy) = pair().await;
        drop(client);
        let closed = origin(&mut ours, proxy).await;
        assert!(matches!(closed, Err(ProxyError::PeerClosed)), "{closed:?}");

        let (mut client, mut ours, proxy) = pair().await;
        client.write_all(b"EHLO x\r\n").await.unwrap();
        let refused = origin(&mut ours, proxy).await;
        assert!(matches!(refused, Err(ProxyError::PeerHeader(_))), "{refused:?}");

        let (mut client, mut ours, proxy) = pair().await;
        client.write_all(b"PROXY UNK").await.unwrap();
        ours.readable().await.unwrap();
        tokio::time::pause();
        let late = origin(&mut ours, proxy).await;
        assert!(matches!(late, Err(ProxyError::PeerTimedOut)), "{late:?}");
    }

    #[tokio::test]
    async fn only_a_proxy_on_loopback_may_name_loopback() {
        let elsewhere = "192.0.2.7:4000".parse().unwrap();
        for (named, proxy, is_taken) in [
            ("TCP4 127.0.0.1 127.0.0.1 1 2", None, true),
            ("TCP6 ::1 ::1 1 2", None, true),
            ("TCP4 127.0.0.1 127.0.0.1 1 2", Some(elsewhere), false),
            ("TCP6 ::1 ::1 1 2", Some(elsewhere), false),
            ("TCP6 ::ffff:127.0.0.1 ::1 1 2", Some(elsewhere), false),
            ("TCP4 192.0.2.1 192.0.2.2 1 2", Some(elsewhere), true),
            ("UNKNOWN", Some(elsewhere), true),
        ] {
            let (mut client, mut ours, own) = pair().await;
            client.write_all(format!("PROXY {named}\r\n").as_bytes()).await.unwrap();
            let got = origin(&mut ours, proxy.unwrap_or(own)).await;
            assert_eq!(got.is_ok(), is_taken, "{named} {proxy:?}: {got:?}");
        }
    }
}
