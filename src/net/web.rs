//! The client's side of HTTP: one request over one connection, with or without TLS.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Bytes, Incoming};
use hyper::{Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::tls::{ClientTls, TlsError, Verify};

/// Why an exchange gave no answer.
#[derive(Debug)]
pub enum ExchangeError {
    /// The conversation broke off.
    Http(hyper::Error),
    /// The answer broke off, or is too large.
    Body(Box<dyn std::error::Error + Send + Sync>),
}

/// Why a server on the web gave no answer.
#[derive(Debug)]
pub enum WebError {
    /// The URL is none that can be asked.
    Address(String),
    /// The server could not be reached, or TLS could not be begun.
    Connect(String, io::Error),
    /// The name leads to an address that may not be connected to.
    Refused(String, IpAddr),
    /// TLS cannot be used.
    Tls(TlsError),
    /// The conversation broke off.
    Exchange(String, ExchangeError),
    /// The server did not answer in time.
    Timeout(String),
}

/// Sends a request over a stream and reads the whole answer, of at most so many octets.
///
/// # Errors
/// When there is no answer, or it is larger.
pub async fn exchange<S, B>(
    stream: S,
    request: Request<B>,
    body_bytes_max: usize,
) -> Result<(u16, Bytes), ExchangeError>
where
    S: AsyncRead + AsyncWrite + Unpin,
    B: Body + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let connecting = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = connecting.await.map_err(ExchangeError::Http)?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(ExchangeError::Http)?;
        read(response, body_bytes_max).await
    };
    tokio::pin!(connection, answer);
    // The connection does the reading and writing; it may end before the body is taken out.
    tokio::select! {
        answered = &mut answer => answered,
        ended = &mut connection => match ended {
            Ok(()) => answer.await,
            Err(error) => Err(ExchangeError::Http(error)),
        },
    }
}

/// Sends a form to an `https://` URL, or to an `http://` one, which the settings allow on loopback
/// only; returns the status and the octets of the answer.
///
/// # Errors
/// When there is no answer. An answer such as 400 is no error.
pub async fn post_form(
    url: &str,
    fields: &[(&str, &str)],
    ca_file: Option<&Path>,
) -> Result<(u16, Bytes), WebError> {
    let bad = || WebError::Address(url.to_owned());
    let uri: Uri = url.parse().map_err(|_e| bad())?;
    let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(bad)?;
    let is_tls = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let pairs = fields.iter().map(|(name, value)| format!("{}={}", encode(name), encode(value)));
    let form = pairs.collect::<Vec<_>>().join("&");
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, uri.authority().map_or(host, |authority| authority.as_str()))
        .header(header::ACCEPT, "application/json")
        .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(Full::new(Bytes::from(form)))
        .map_err(|_e| bad())?;
    let failed = |error| WebError::Connect(url.to_owned(), error);
    let asked = async {
        let stream = TcpStream::connect((bare, port)).await.map_err(failed)?;
        let answered = if is_tls {
            let tls = ClientTls::new(Verify::Yes, ca_file).map_err(WebError::Tls)?;
            let (stream, _) = tls.connect(bare, stream).await.map_err(failed)?;
            exchange(stream, request, FORM_ANSWER_BYTES_MAX).await
        } else {
            exchange(stream, request, FORM_ANSWER_BYTES_MAX).await
        };
        answered.map_err(|error| WebError::Exchange(url.to_owned(), error))
    };
    timeout(FORM_TIMEOUT, asked).await.map_err(|_elapsed| WebError::Timeout(url.to_owned()))?
}

/// A text as it may stand in one segment of a path, in a value of a query or in a form.
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for octet in text.bytes() {
        // RFC 3986 §2.3: unreserved characters stand for themselves.
        if octet.is_ascii_alphanumeric() || b"-._~".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            encoded.push_str(&format!("%{octet:02X}"));
        }
    }
    encoded
}

/// Decodes `%XX` (RFC 3986 §2.1); `None` when that gives no UTF-8 or a `%` stands alone.
pub fn decode(text: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(octet) = rest.next() {
        if octet == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            octets.push(u8::try_from(high << 4 | low).ok()?);
        } else {
            octets.push(octet);
        }
    }
    String::from_utf8(octets).ok()
}

async fn read(
    response: Response<Incoming>,
    body_bytes_max: usize,
) -> Result<(u16, Bytes), ExchangeError> {
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), body_bytes_max).collect().await;
    Ok((status, body.map_err(ExchangeError::Body)?.to_bytes()))
}

impl fmt::Display for ExchangeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(_) => f.write_str("the conversation broke off"),
            Self::Body(_) => f.write_str("the answer cannot be read"),
        }
    }
}

impl std::error::Error for ExchangeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Http(error) => Some(error),
            Self::Body(error) => Some(error.as_ref()),
        }
    }
}

impl fmt::Display for WebError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(url) => write!(f, "`{url}` is no address such as https://host/path"),
            Self::Connect(url, _) => write!(f, "cannot reach {url}"),
            Self::Refused(url, address) => {
                write!(f, "{url} leads to {address}, which may not be connected to")
            }
            Self::Tls(_) => f.write_str("TLS cannot be used"),
            Self::Exchange(url, _) => write!(f, "no answer from {url}"),
            Self::Timeout(url) => write!(f, "{url} did not answer in time"),
        }
    }
}

impl std::error::Error for WebError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(_, error) => Some(error),
            Self::Tls(error) => Some(error),
            Self::Exchange(_, error) => Some(error),
            Self::Address(_) | Self::Refused(..) | Self::Timeout(_) => None,
        }
    }
}

/// For a form, from the connection to the end of the answer.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);
/// Octets of the answer to a form.
const FORM_ANSWER_BYTES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_end_a_segment_or_a_field_is_encoded() {
        assert_eq!(encode("<a/b+c%@d>é&="), "%3Ca%2Fb%2Bc%25%40d%3E%C3%A9%26%3D");
    }

    #[test]
    fn percent_encoding_is_decoded_once_and_plus_stays() {
        for (text, want) in [
            ("a%2Fb", Some("a/b")),
            ("%3Ca+b%40c%3E", Some("<a+b@c>")),
            ("%2525", Some("%25")),
            ("%C3%a9", Some("é")),
            ("", Some("")),
            ("%", None),
            ("%4", None),
            ("%zz", None),
            ("%ff", None),
        ] {
            assert_eq!(decode(text).as_deref(), want, "{text}");
        }
    }
}
