//! The little HTTP client of the commands: one request over plain HTTP, the answer as JSON.
//!
//! It talks to our own daemon, so it knows no TLS, no redirect and no proxy; everything it reads
//! is bounded in size and in time all the same.

use std::fmt;
use std::io;
use std::time::Duration;

use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::{Method, Request, Uri, header};
use tokio::net::TcpStream;
use tokio::time::timeout;

pub use crate::net::web::encode;
use crate::net::web::{ExchangeError, exchange};

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// The base URL is not `http://host[:port]`, or the path cannot stand in a request.
    Address(String),
    /// The daemon could not be reached.
    Connect(String, io::Error),
    /// The conversation broke off.
    Http(String, hyper::Error),
    /// The daemon did not answer in time.
    Timeout(String),
    /// The answer is not JSON, or larger than `RESPONSE_BYTES_MAX`.
    Answer(String, Box<dyn std::error::Error + Send + Sync>),
}

/// Asks the daemon at `base_url` (`http://127.0.0.1:8025`) for `path_and_query`, which is
/// percent-encoded already (see `encode`); returns the status and the JSON of the answer.
///
/// # Errors
/// When there is no answer that is JSON. An answer such as 404 is no error.
pub async fn get(
    base_url: &str,
    path_and_query: &str,
    token: Option<&str>,
) -> Result<(u16, serde_json::Value), ClientError> {
    send(Method::GET, base_url, path_and_query, token).await
}

/// The same as a POST with an empty body.
///
/// # Errors
/// As `get`.
pub async fn post(
    base_url: &str,
    path_and_query: &str,
    token: Option<&str>,
) -> Result<(u16, serde_json::Value), ClientError> {
    send(Method::POST, base_url, path_and_query, token).await
}

/// The same as a DELETE.
///
/// # Errors
/// As `get`.
pub async fn delete(
    base_url: &str,
    path_and_query: &str,
    token: Option<&str>,
) -> Result<(u16, serde_json::Value), ClientError> {
    send(Method::DELETE, base_url, path_and_query, token).await
}

async fn send(
    method: Method,
    base_url: &str,
    path_and_query: &str,
    token: Option<&str>,
) -> Result<(u16, serde_json::Value), ClientError> {
    let (authority, request) = request(method, base_url, path_and_query, token)?;
    let late = || ClientError::Timeout(base_url.to_owned());
    let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(&authority)).await;
    let stream = stream
        .map_err(|_elapsed| late())?
        .map_err(|error| ClientError::Connect(base_url.to_owned(), error))?;
    timeout(RESPONSE_TIMEOUT, ask(stream, request, base_url)).await.map_err(|_e| late())?
}

fn request(
    method: Method,
    base_url: &str,
    path_and_query: &str,
    token: Option<&str>,
) -> Result<(String, Request<Empty<Bytes>>), ClientError> {
    let bad = || ClientError::Address(base_url.to_owned());
    let base: Uri = base_url.parse().map_err(|_e| bad())?;
    let is_plain = base.scheme_str().is_none_or(|scheme| scheme == "http");
    let host = base.host().filter(|host| is_plain && !host.is_empty()).ok_or_else(bad)?;
    let authority = format!("{host}:{}", base.port_u16().unwrap_or(DEFAULT_PORT));
    let path = format!("{}{path_and_query}", base.path().trim_end_matches('/'));
    let mut builder = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, &authority)
        .header(header::ACCEPT, "application/json");
    if let Some(token) = token {
        builder = builder.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = builder
        .body(Empty::new())
        .map_err(|_e| ClientError::Address(format!("{base_url} with {path_and_query}")))?;
    Ok((authority, request))
}

async fn ask(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    base_url: &str,
) -> Result<(u16, serde_json::Value), ClientError> {
    let unreadable = |error| ClientError::Answer(base_url.to_owned(), error);
    let answered = exchange(stream, request, RESPONSE_BYTES_MAX).await;
    let (status, body) = answered.map_err(|error| match error {
        ExchangeError::Http(error) => ClientError::Http(base_url.to_owned(), error),
        ExchangeError::Body(error) => unreadable(error),
    })?;
    let value = serde_json::from_slice(&body).map_err(|error| unreadable(Box::new(error)))?;
    Ok((status, value))
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(url) => write!(f, "`{url}` is no address such as http://127.0.0.1:8025"),
            Self::Connect(url, error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                write!(
                    f,
                    "cannot reach the daemon at {url} (is `rebound serve`, or `rebound dev`, running?)"
                )
            }
            Self::Connect(url, _) => write!(f, "cannot reach the daemon at {url}"),
            Self::Http(url, _) => write!(f, "the conversation with the daemon at {url} broke off"),
            Self::Timeout(url) => write!(f, "the daemon at {url} did not answer in time"),
            Self::Answer(url, _) => write!(f, "cannot read the answer of the daemon at {url}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Connect(_, error) => Some(error),
            Self::Http(_, error) => Some(error),
            Self::Answer(_, error) => Some(error.as_ref()),
            Self::Address(_) | Self::Timeout(_) => None,
        }
    }
}

/// How long opening the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long an answer may take: longer than the longest long poll.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(150);

/// Octets of an answer.
const RESPONSE_BYTES_MAX: usize = 67_108_864;

const DEFAULT_PORT: u16 = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_plain_http() {
        for (url, want) in [
            ("http://127.0.0.1:8025", Some("127.0.0.1:8025")),
            ("http://[::1]:8025/", Some("[::1]:8025")),
            ("http://localhost", Some("localhost:80")),
            ("127.0.0.1:8025", Some("127.0.0.1:8025")),
            ("https://127.0.0.1:8025", None),
            ("/v1", None),
            ("", None),
        ] {
            let got =
                request(Method::GET, url, "/health", None).ok().map(|(authority, _)| authority);
            assert_eq!(got.as_deref(), want, "{url}");
        }
    }

    #[test]
    fn a_base_path_stays_in_front_and_the_token_goes_along() {
        let (_, request) = request(Method::GET, "http://h/rebound/", "/health", Some("t")).unwrap();
        assert_eq!(request.uri(), "/rebound/health");
        assert_eq!(request.headers()["authorization"], "Bearer t");
    }
}
