//! Stage 6: look-ups over HTTP.
//!
//! `server` takes connections, `routes` answers, one file per kind of thing; who may ask is
//! decided in `auth` before a route is reached, and everything that goes wrong is told in the
//! one shape of `error`.
//! **Invariant:** a look-up never runs on an async worker.

pub mod auth;
pub mod client;
pub mod error;
mod query;
mod routes;
mod server;

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::Store;
use auth::Auth;

pub use server::{Limits, run};

/// What the routes know; clones share it.
#[derive(Clone)]
pub struct HttpState {
    inner: Arc<Parts>,
}

/// What the routes are made of.
pub struct Parts {
    /// Where everything is looked up.
    pub store: Store,
    /// The time for `closed`.
    pub clock: Clock,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Who may ask.
    pub auth: Auth,
    /// How long a quiet mail may still bounce (`bounces.window`).
    pub bounce_window: Duration,
}

impl HttpState {
    /// The state of one server.
    pub fn new(parts: Parts) -> Self {
        Self { inner: Arc::new(parts) }
    }
}
