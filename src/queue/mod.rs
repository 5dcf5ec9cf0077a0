//! Stage 2: takes due mail from the store to the relay, and writes down what became of it.
//!
//! **Invariant:** a recipient leaves the queue only in the write that records its end.
//! **Invariant:** what was tried is written down before the same recipient is tried again.

mod attempt;
mod debts;
pub mod notice;
mod runner;
pub mod schedule;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;

use crate::capture::Capture;
use crate::clock::Clock;
use crate::config::Settings;
use crate::metrics::Metrics;
use crate::relay::Relay;
use crate::secret::KeyRing;
use crate::store::Store;

/// What the queue works with; clones share it.
#[derive(Clone)]
pub struct Context {
    /// The settings.
    pub settings: Arc<Settings>,
    /// The clock.
    pub clock: Clock,
    /// Where mail waits.
    pub store: Store,
    /// Where outcomes go.
    pub capture: Capture,
    /// What return tokens and notices are signed with.
    pub keys: Arc<KeyRing>,
    /// The way out.
    pub relay: Relay,
    /// Counters.
    pub metrics: Metrics,
}

/// Relays mail until `shutdown` completes, then lets running attempts end within the drain time.
pub async fn run(context: Context, shutdown: impl Future<Output = ()> + Send) {
    runner::Runner::new(context).run(shutdown).await;
}

/// Runs what may read the index, and with it the disk, where it may block.
async fn blocking<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(job).await {
        Ok(done) => done,
        // A panic there is one here; nothing else ends it.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}
