//! Stage 6: look-ups over HTTP.
//!
//! `server` takes connections, `routes` answers, one file per kind of thing; who may ask is
//! decided in `auth` before a route is reached, how often in `rates`, and
//! everything that goes wrong is told in the one shape of `error`.
//! **Invariant:** a look-up never runs on an async worker.

pub mod auth;
mod body;
pub mod client;
mod compose;
mod csv;
pub mod error;
mod openapi;
mod operation;
mod paced;
mod path;
mod query;
mod rates;
mod routes;
mod server;
#[cfg(test)]
mod testing;
pub mod tokens;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::capture::Capture;
use crate::clock::Clock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::net::memory::Memory;
use crate::store::Store;
use crate::submission::{self, Door};
use crate::webhook::Webhooks;
use auth::Auth;
use rates::Rates;

pub use server::{Limits, run};

/// What the routes know; clones share it.
#[derive(Clone)]
pub struct HttpState {
    inner: Arc<Parts>,
    streams: routes::Streams,
    guards: Arc<Guards>,
    /// What the bodies of requests take, over all connections.
    memory: Memory,
}

/// What keeps floods out.
struct Guards {
    rates: Rates,
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
    /// What tells others.
    pub webhooks: Webhooks,
    /// What requests may take.
    pub request_limits: RequestLimits,
    /// What holds for mails that are submitted.
    pub settings: watch::Receiver<Arc<Settings>>,
    /// Where mails go that are submitted.
    pub door: Door,
    /// What counts them.
    pub guards: submission::Guards,
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
}

impl HttpState {
    /// The state of one server.
    pub fn new(parts: Parts) -> Self {
        let RequestLimits { per_minute_max, look_ups_max } = parts.request_limits;
        let look_ups = Arc::new(Semaphore::new(look_ups_max.min(Semaphore::MAX_PERMITS)));
        let guards = Arc::new(Guards { rates: Rates::new(per_minute_max), look_ups });
        Self {
            inner: Arc::new(parts),
            streams: routes::Streams::default(),
            guards,
            memory: Memory::default(),
        }
    }
}

#[cfg(test)]
mod tests;
