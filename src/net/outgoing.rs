//! Requests to URLs that an operator has named and others have a say in: where they lead is
//! looked at after the name has been resolved, and no answer leads anywhere else.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::tls::ClientTls;
use super::web::{ExchangeError, WebError, decode};

/// An `http://` or `https://` URL that can be asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    is_tls: bool,
    /// Without brackets.
    host: String,
    port: u16,
    /// As it stands in `Host`.
    authority: String,
    path: String,
    /// User name and password, where the URL names them.
    login: Option<(String, String)>,
}

/// Which addresses may be connected to. Those that belong to the machine or the link alone, such
/// as the metadata services of clouds, never are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Addresses of the Internet only.
    Public,
    /// Loopback and private networks, too.
    Private,
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long to wait, where the answer says so: seconds or a date (RFC 9110 §10.2.3).
    pub retry_after: Option<String>,
    /// The first octets of the body.
    pub body: Bytes,
}

/// What is sent, and how much of it may come back.
#[derive(Clone, Debug)]
pub struct Post {
    /// Its fields, beside those that say where it goes and how long it is.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
    /// When there must be an answer.
    pub timeout: Duration,
    /// Octets of the answer that are read; what comes behind them is not waited for.
    pub answer_bytes_max: usize,
}

impl Target {
    /// Reads a URL, with the user name and the password that may stand in it.
    pub fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let is_tls = match scheme {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let (login, authority) = match authority.rsplit_once('@') {
            Some((login, authority)) => {
                let (name, password) = login.split_once(':').unwrap_or((login, ""));
                (Some((decode(name)?, decode(password)?)), authority)
            }
            None => (None, authority),
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let uri: Uri = format!("{scheme}://{authority}{path}").parse().ok()?;
        let host = uri.host().filter(|host| !host.is_empty())?;
        Some(Self {
            is_tls,
            host: host.trim_start_matches('[').trim_end_matches(']').to_owned(),
            port: uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 }),
            authority: authority.to_owned(),
            path,
            login,
        })
    }

    /// User name and password, where the URL names them.
    pub fn login(&self) -> Option<(&str, &str)> {
        self.login.as_ref().map(|(name, password)| (name.as_str(), password.as_str()))
    }

    /// Sends a POST over a connection of its own.
    ///
    /// # Errors
    /// When there is no answer. An answer such as 500 or 302 is no error.
    pub async fn post(
        &self,
        post: Post,
        tls: &ClientTls,
        reach: Reach,
    ) -> Result<Answer, WebError> {
        let until = Instant::now() + post.timeout;
        let late = |_elapsed| WebError::Timeout(self.to_string());
        timeout_at(until, self.post_within(post, tls, reach)).await.map_err(late)?
    }

    async fn post_within(
        &self,
        post: Post,
        tls: &ClientTls,
        reach: Reach,
    ) -> Result<Answer, WebError> {
        let failed = |error| WebError::Connect(self.to_string(), error);
        let stream = self.connect(reach).await?;
        let bytes_max = post.answer_bytes_max;
        let mut request = Request::post(&self.path)
            .body(Full::new(post.body))
            .map_err(|_e| WebError::Address(self.to_string()))?;
        *request.headers_mut() = post.headers;
        let host = HeaderValue::from_str(&self.authority);
        let host = host.map_err(|_e| WebError::Address(self.to_string()))?;
        request.headers_mut().insert(header::HOST, host);
        let answered = if self.is_tls {
            let (stream, _) = tls.connect(&self.host, stream).await.map_err(failed)?;
            ask(stream, request, bytes_max).await
        } else {
            ask(stream, request, bytes_max).await
        };
        answered.map_err(|error| WebError::Exchange(self.to_string(), error))
    }

    /// Connects to the first address that may be connected to and takes the connection.
    async fn connect(&self, reach: Reach) -> Result<TcpStream, WebError> {
        let failed = |error| WebError::Connect(self.to_string(), error);
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found: Vec<SocketAddr> = found.map_err(failed)?.collect();
        let mut last = None;
        let allowed = found.iter().filter(|address| reach.allows(address.ip()));
        for address in allowed.take(ADDRESSES_MAX) {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = Some(error),
            }
        }
        Err(match (last, found.first()) {
            (Some(error), _) => failed(error),
            (None, Some(address)) => WebError::Refused(self.to_string(), address.ip()),
            (None, None) => failed(std::io::Error::other("the name has no address")),
        })
    }
}

/// Without the password and the user name.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "https" } else { "http" };
        // What stands behind `?` may be a secret, too.
        let path = self.path.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.authority)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

impl Reach {
    /// Whether an address may be connected to, in whatever form it comes.
    pub fn allows(self, address: IpAddr) -> bool {
        let is_private = match unwrapped(address) {
            IpAddr::V4(v4) if is_never_v4(v4) => return false,
            IpAddr::V6(v6) if is_never_v6(v6) => return false,
            IpAddr::V4(v4) => {
                let [a, b, ..] = v4.octets();
                v4.is_loopback()
                    || v4.is_private()
                    // Shared (RFC 6598) and for benchmarks (RFC 2544).
                    || (a == 100 && (64..128).contains(&b))
                    || (a == 198 && (18..20).contains(&b))
            }
            IpAddr::V6(v6) => {
                let [first, ..] = v6.segments();
                // fc00::/7 (RFC 4193) and the old fec0::/10.
                v6.is_loopback() || first & 0xfe00 == 0xfc00 || first & 0xffc0 == 0xfec0
            }
        };
        !is_private || self == Self::Private
    }
}

/// The IPv4 address inside an IPv6 address that stands for one: mapped (RFC 4291 §2.5.5.2), of
/// NAT64 (RFC 6052 §2.1) or of 6to4 (RFC 3056).
fn unwrapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let of = |high: u16, low: u16| {
        IpAddr::V4(Ipv4Addr::from(u32::from(high).wrapping_shl(16) | u32::from(low)))
    };
    match (a, b) {
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => of(g, h),
        (0x2002, high) => of(high, c),
        _ => IpAddr::V6(v6),
    }
}

/// Unspecified, of the link (where clouds have their metadata), multicast, reserved, broadcast;
/// and the metadata services of Alibaba and Oracle.
fn is_never_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    a == 0
        || address.is_link_local()
        || a >= 224
        || (a, b, c) == (192, 0, 0)
        || address == Ipv4Addr::new(100, 100, 100, 200)
}

/// Unspecified, of the link, multicast; and the metadata service of AWS.
fn is_never_v6(address: Ipv6Addr) -> bool {
    let [first, ..] = address.segments();
    address.is_unspecified()
        || first & 0xffc0 == 0xfe80
        || address.is_multicast()
        || address == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
}

/// Fields from pairs of text.
///
/// # Errors
/// The name of the first that cannot be a field.
pub fn header_map<'a>(
    pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        let field =
            HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
        let (field, value) = field.ok_or_else(|| name.to_owned())?;
        map.insert(field, value);
    }
    Ok(map)
}

async fn ask<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    bytes_max: usize,
) -> Result<Answer, ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let connecting = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = connecting.await.map_err(ExchangeError::Http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(ExchangeError::Http)?;
        read(response, bytes_max).await
    };
    tokio::pin!(connection, answer);
    tokio::select! {
        answered = &mut answer => answered,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(ExchangeError::Http(error)),
        },
    }
}

/// Reads an answer up to a limit; one that breaks off before has not been given.
async fn read(response: Response<Incoming>, bytes_max: usize) -> Result<Answer, ExchangeError> {
    let status = response.status().as_u16();
    let retry_after = response.headers().get(header::RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let mut body = response.into_body();
    let mut octets = Vec::new();
    while octets.len() < bytes_max
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| ExchangeError::Body(Box::new(error)))?;
        if let Some(data) = frame.data_ref() {
            let room = bytes_max.saturating_sub(octets.len());
            octets.extend(data.iter().take(room));
        }
    }
    Ok(Answer { status, retry_after, body: Bytes::from(octets) })
}

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_split_and_its_login_is_never_shown() {
        for (url, shown, login) in [
            ("https://a.example", "https://a.example/", None),
            ("https://a.example/x?key=1#f", "https://a.example/x", None),
            ("http://u:p%40ss@a.example:81/x", "http://a.example:81/x", Some(("u", "p@ss"))),
            ("http://u@[::1]:8080/", "http://[::1]:8080/", Some(("u", ""))),
            ("https://a.example?x=1", "https://a.example/", None),
        ] {
            let target = Target::parse(url).unwrap();
            assert_eq!(target.to_string(), shown, "{url}");
            assert_eq!(format!("{target:?}"), format!("Target({shown})"), "{url}");
            assert_eq!(target.login(), login, "{url}");
        }
        assert_eq!(Target::parse("http://[::1]:8080/").unwrap().host, "::1");
        assert_eq!(Target::parse("https://a.example/x?key=1").unwrap().path, "/x?key=1");
        for wrong in ["", "a.example", "ftp://a.example/", "https://", "https:///x", "http://a b/"]
        {
            assert_eq!(Target::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn addresses_of_the_machine_the_link_and_the_cloud_are_not_reached() {
        for (address, public, private) in [
            ("192.0.2.1", true, true),
            ("8.8.8.8", true, true),
            ("2001:db8::1", true, true),
            ("127.0.0.1", false, true),
            ("10.1.2.3", false, true),
            ("172.31.0.1", false, true),
            ("192.168.1.1", false, true),
            ("100.64.0.1", false, true),
            ("198.19.0.1", false, true),
            ("::1", false, true),
            ("fd12::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("64:ff9b::7f00:1", false, true),
            ("2002:a01:203::1", false, true),
            ("0.0.0.0", false, false),
            ("0.1.2.3", false, false),
            ("::", false, false),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::a9fe:a9fe", false, false),
            ("2002:a9fe:a9fe::1", false, false),
            ("100.100.100.200", false, false),
            ("192.0.0.192", false, false),
            ("fd00:ec2::254", false, false),
            ("fe80::1", false, false),
            ("ff02::1", false, false),
            ("224.0.0.1", false, false),
            ("255.255.255.255", false, false),
        ] {
            let ip: IpAddr = address.parse().unwrap();
            assert_eq!(Reach::Public.allows(ip), public, "{address}");
            assert_eq!(Reach::Private.allows(ip), private, "{address}");
        }
    }
}
