//! Stage 6: look-ups over HTTP.
//!
//! `server` takes connections, `routes` answers, one file per kind of thing; who may ask is
//! decided in `auth` before a route is reached, how often in `rates`, and
//! everything that goes wrong is told in the one shape of `error`.
//! **Invariant:** a look-up never runs on an async worker.

pub mod auth;
mod body;
pub mod client;
mod csv;
pub mod error;
mod openapi;
mod operation;
mod paced;
mod query;
mod rates;
mod routes;
mod server;
#[cfg(test)]
mod testing;
pub mod tokens;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::capture::Capture;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::suppressions::SuppressionPolicy;
use auth::Auth;
use body::Bodies;
use rates::Rates;

pub use body::BodyLimits;
pub use server::{Limits, run};

/// What the routes know; clones share it.
#[derive(Clone)]
pub struct HttpState {
    inner: Arc<Parts>,
    streams: routes::Streams,
    guards: Arc<Guards>,
}

/// What keeps floods out.
struct Guards {
    rates: Rates,
    bodies: Bodies,
    /// Taken by each look-up.
    look_ups: Arc<Semaphore>,
}

/// What the routes are made of.
pub struct Parts {
    /// Where everything is looked up.
    pub store: Store,
    /// What reads stored reports again.
    pub capture: Capture,
    /// The time for `closed`.
    pub clock: Clock,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Who may ask.
    pub auth: Auth,
    /// How long a quiet mail may still bounce (`bounces.window`).
    pub bounce_window: Duration,
    /// How much speaks against an address before it is suppressed.
    pub suppression: SuppressionPolicy,
    /// What requests may take.
    pub request_limits: RequestLimits,
    /// Whether the web page is served (`http.ui`).
    pub has_page: bool,
}

/// What requests may take.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Requests in a minute with one token, or from one address without; 0 means no limit.
    pub per_minute_max: u32,
    /// Look-ups at a time.
    pub look_ups_max: usize,
    /// Of a body.
    pub body: BodyLimits,
}

impl HttpState {
    /// The state of one server.
    pub fn new(parts: Parts) -> Self {
        let RequestLimits { per_minute_max, look_ups_max, body } = parts.request_limits;
        let look_ups = Arc::new(Semaphore::new(look_ups_max.min(Semaphore::MAX_PERMITS)));
        let (rates, bodies) = (Rates::new(per_minute_max), Bodies::new(body));
        let guards = Arc::new(Guards { rates, bodies, look_ups });
        Self { inner: Arc::new(parts), streams: routes::Streams::default(), guards }
    }
}

#[cfg(test)]
mod tests;
