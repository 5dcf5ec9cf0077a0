//! Bodies of requests, read within limits of size, time and memory.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::error::ApiError;
use crate::config::Http;
use crate::net::memory::{Memory, Share};

/// What a body may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyLimits {
    /// Octets of it.
    pub(super) bytes_max: u64,
    /// How long all of it may take.
    pub(super) timeout: Duration,
    /// The setting that says how many octets.
    pub(super) setting: &'static str,
}

/// A whole body.
#[derive(Debug)]
pub(super) struct Whole {
    /// Its octets.
    pub(super) octets: Vec<u8>,
    /// Its share of the memory, which is to be kept as long as anything that was made of it.
    pub(super) share: Share,
}

impl BodyLimits {
    /// What the settings allow.
    pub(super) fn of(settings: &Http) -> Self {
        Self {
            bytes_max: settings.request_bytes_max,
            timeout: Duration::from_secs(settings.request_timeout_secs),
            setting: "http.request_bytes_max",
        }
    }
}

/// Whether the header says that the body is of this media type.
pub(super) fn is(headers: &HeaderMap, kind: &str) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|text| text.split(';').next());
    media_type.is_some_and(|media| media.trim().eq_ignore_ascii_case(kind))
}

/// Reads a body of JSON; see `read_one_of`.
pub(super) async fn read_json(
    body: Body,
    headers: &HeaderMap,
    memory: &Memory,
    limits: BodyLimits,
) -> Result<Whole, ApiError> {
    read_one_of(&[JSON], body, headers, memory, limits).await
}

/// Reads a body of one of these media types.
///
/// Only these are taken, and text and forms are never among them: a page on another site can have
/// a browser post those, but not JSON.
///
/// # Errors
/// When it is something else, too large, or does not come in time.
pub(super) async fn read_one_of(
    kinds: &[&str],
    body: Body,
    headers: &HeaderMap,
    memory: &Memory,
    limits: BodyLimits,
) -> Result<Whole, ApiError> {
    if !kinds.iter().any(|kind| is(headers, kind)) {
        let message = format!("The body must have the Content-Type {}", kinds.join(" or "));
        return Err(ApiError::refused(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        ));
    }
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|text| text.parse::<u64>().ok()).is_some_and(|len| len > limits.bytes_max) {
        return Err(too_large(limits));
    }
    let late = |_elapsed| {
        let message = "The body did not come in time".to_owned();
        Err(ApiError::refused(StatusCode::REQUEST_TIMEOUT, "RequestTimeout", message))
    };
    timeout(limits.timeout, read(body, memory, limits)).await.unwrap_or_else(late)
}

async fn read(mut body: Body, memory: &Memory, limits: BodyLimits) -> Result<Whole, ApiError> {
    let mut whole = Whole { octets: Vec::new(), share: memory.share() };
    while let Some(frame) = body.frame().await {
        let broken = |_error| {
            let message = "The body broke off".to_owned();
            ApiError::refused(StatusCode::BAD_REQUEST, "BodyBrokeOff", message)
        };
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        let more = u64::try_from(data.len()).unwrap_or(u64::MAX);
        let len = u64::try_from(whole.octets.len()).unwrap_or(u64::MAX);
        if len.saturating_add(more) > limits.bytes_max {
            return Err(too_large(limits));
        }
        if !whole.share.grow(more.saturating_mul(COPIES), MEMORY_BYTES_MAX) {
            return Err(ApiError::Busy);
        }
        whole.octets.extend_from_slice(&data);
    }
    Ok(whole)
}

fn too_large(limits: BodyLimits) -> ApiError {
    let BodyLimits { bytes_max, setting, .. } = limits;
    let message = format!("The body is larger than {bytes_max} octets ({setting})");
    ApiError::refused(StatusCode::PAYLOAD_TOO_LARGE, "BodyTooLarge", message)
}

/// The media type of JSON (RFC 8259 §11).
pub(super) const JSON: &str = "application/json";

/// How many times a body may be in memory at once: as it came, as values, decoded, as a mail.
const COPIES: u64 = 4;
/// Octets of bodies and what is made of them, over all connections.
const MEMORY_BYTES_MAX: u64 = 512 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BodyLimits =
        BodyLimits { bytes_max: 10, timeout: Duration::from_millis(50), setting: "a.b" };

    fn headers(content_type: &'static str) -> HeaderMap {
        [(header::CONTENT_TYPE, content_type.parse().unwrap())].into_iter().collect()
    }

    async fn status(body: Body, headers: &HeaderMap, memory: &Memory) -> Option<u16> {
        use axum::response::IntoResponse;
        let read = read_json(body, headers, memory, LIMITS).await;
        read.err().map(|error| error.into_response().status().as_u16())
    }

    #[tokio::test]
    async fn a_body_is_json_small_enough_and_there_in_time() {
        let memory = Memory::default();
        let json = headers("application/json; charset=utf-8");
        let never = Body::new(Endless);
        for (body, headers, want) in [
            (Body::from("0123456789"), &json, None),
            (Body::from("0123456789a"), &json, Some(413)),
            (never, &json, Some(408)),
            (Body::from("{}"), &headers("text/plain"), Some(415)),
            (Body::from("{}"), &HeaderMap::new(), Some(415)),
        ] {
            assert_eq!(status(body, headers, &memory).await, want);
        }
        let mut declared = json.clone();
        declared.insert(header::CONTENT_LENGTH, "11".parse().unwrap());
        assert_eq!(status(Body::empty(), &declared, &memory).await, Some(413));
        let mut taken = memory.share();
        assert!(taken.grow(MEMORY_BYTES_MAX - 4, MEMORY_BYTES_MAX));
        assert_eq!(status(Body::from("{}"), &json, &memory).await, Some(503));
        assert_eq!(status(Body::from("1"), &json, &memory).await, None);
    }

    /// A body that does not come.
    struct Endless;

    impl axum::body::HttpBody for Endless {
        type Data = hyper::body::Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _context: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<hyper::body::Frame<Self::Data>, Self::Error>>> {
            std::task::Poll::Pending
        }
    }
}
