//! The worker between the listener and capture: every stored report is captured, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::clock::Clock;
use crate::mail::Timestamp;
use crate::net::shutdown::Shutdown;
use crate::store::record::ReportId;
use crate::store::{Store, StoreError};

/// Captures reports with `capture` until the daemon stops.
///
/// A report that cannot be captured (an error, a panic) is logged, left in the store and tried
/// again later; it never keeps the others waiting.
pub async fn capture_each<F>(store: Store, clock: Clock, capture: F, shutdown: Shutdown)
where
    F: Fn(ReportId) -> Result<(), StoreError> + Clone + Send + 'static,
{
    let mut stop = std::pin::pin!(shutdown.requested());
    let mut failed: BTreeMap<ReportId, Timestamp> = BTreeMap::new();
    loop {
        let is_idle = capture_batch(&store, &clock, &capture, &mut failed, &shutdown).await;
        if shutdown.is_requested() {
            return;
        }
        if is_idle {
            tokio::select! {
                () = store.report_arrived() => {}
                () = tokio::time::sleep(RETRY_AFTER), if !failed.is_empty() => {}
                () = &mut stop => return,
            }
        }
    }
}

/// Captures what waits now; whether nothing did.
async fn capture_batch<F>(
    store: &Store,
    clock: &Clock,
    capture: &F,
    failed: &mut BTreeMap<ReportId, Timestamp>,
    shutdown: &Shutdown,
) -> bool
where
    F: Fn(ReportId) -> Result<(), StoreError> + Clone + Send + 'static,
{
    let now = clock.now();
    // The store lists the oldest first, so those that failed are asked for on top.
    let waiting = store.uncaptured_reports(BATCH.saturating_add(failed.len()));
    failed.retain(|id, _at| waiting.contains(id));
    let is_due = |id: &ReportId| failed.get(id).is_none_or(|at| now.since(*at) >= RETRY_AFTER);
    let due: Vec<ReportId> = waiting.into_iter().filter(is_due).collect();
    for id in &due {
        if shutdown.is_requested() {
            break;
        }
        let (capture, id) = (capture.clone(), *id);
        let reason = match tokio::task::spawn_blocking(move || capture(id)).await {
            Ok(Ok(())) => {
                failed.remove(&id);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        tracing::error!(report = %id.0, reason, "cannot capture a report; it is tried again");
        failed.insert(id, clock.now());
    }
    due.is_empty()
}

/// Reports that are asked for at a time.
const BATCH: usize = 64;
/// When a report that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);
