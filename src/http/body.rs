//! The body of a request: bounded in size, in time and, over all requests, in memory.

use std::ops::Deref;
use std::time::Duration;

use axum::extract::Request;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::timeout;

use super::HttpState;
use super::error::ApiError;
use crate::net::memory::{Memory, Share};

/// What is allowed of bodies, and what they hold now.
#[derive(Debug)]
pub(super) struct Bodies {
    limits: BodyLimits,
    memory: Memory,
}

/// What is allowed of bodies.
#[derive(Clone, Copy, Debug)]
pub struct BodyLimits {
    /// Octets of one.
    pub bytes_max: u64,
    /// How long one may take to arrive.
    pub timeout: Duration,
}

/// The octets of a body; they count until this is dropped.
#[derive(Debug)]
pub(super) struct Octets {
    octets: Vec<u8>,
    _share: Share,
}

impl Bodies {
    /// None yet.
    pub(super) fn new(limits: BodyLimits) -> Self {
        Self { limits, memory: Memory::default() }
    }
}

impl Deref for Octets {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.octets
    }
}

/// Reads the body of a request whole.
///
/// # Errors
/// 413 when it is larger than `http.request_bytes_max`, 408 when it takes longer than
/// `http.request_timeout_secs`, 503 when other bodies hold all memory that there is for them.
pub(super) async fn read(state: &HttpState, request: Request) -> Result<Octets, ApiError> {
    let BodyLimits { bytes_max, timeout: limit } = state.guards.bodies.limits;
    // Who says that it is too large need not send it.
    if request.body().size_hint().lower() > bytes_max {
        return Err(ApiError::TooLarge(bytes_max));
    }
    let mut body = request.into_body();
    let mut share = state.guards.bodies.memory.share();
    let mut octets = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let cut_off = |_error| ApiError::field("body", "the request ends before its body does");
            let Ok(data) = frame.map_err(cut_off)?.into_data() else { continue };
            let more = wide(data.len());
            if wide(octets.len()).saturating_add(more) > bytes_max {
                return Err(ApiError::TooLarge(bytes_max));
            }
            if !share.grow(more, MEMORY_BYTES_MAX) {
                return Err(ApiError::Busy);
            }
            octets.extend_from_slice(&data);
        }
        Ok(())
    };
    timeout(limit, reading).await.map_err(|_elapsed| ApiError::Slow)??;
    Ok(Octets { octets, _share: share })
}

fn wide(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Octets of bodies that are held at a time, over all requests.
const MEMORY_BYTES_MAX: u64 = 256 << 20;
