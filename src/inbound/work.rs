//! The worker between the listener and capture: every stored report is captured, in order.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::capture::Capture;
use crate::net::shutdown::Shutdown;
use crate::store::record::ReportId;
use crate::store::{Store, StoreError};

/// Captures every report that is stored, oldest first, until the daemon stops.
///
/// A report that cannot be captured (an error, a panic) is logged, left in the store and tried
/// again later; it never keeps the others waiting.
pub async fn capture_loop(store: Store, capture: Capture, shutdown: Shutdown) {
    capture_each(store, move |id| capture.report(id).map(drop), shutdown).await;
}

async fn capture_each<F>(store: Store, capture: F, shutdown: Shutdown)
where
    F: Fn(ReportId) -> Result<(), StoreError> + Clone + Send + 'static,
{
    let mut stop = std::pin::pin!(shutdown.requested());
    let mut failed: BTreeMap<ReportId, Instant> = BTreeMap::new();
    loop {
        let is_idle = capture_batch(&store, &capture, &mut failed, &shutdown).await;
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
    capture: &F,
    failed: &mut BTreeMap<ReportId, Instant>,
    shutdown: &Shutdown,
) -> bool
where
    F: Fn(ReportId) -> Result<(), StoreError> + Clone + Send + 'static,
{
    let now = Instant::now();
    // The store lists the oldest first, so those that failed are asked for on top.
    let waiting = store.uncaptured_reports(BATCH.saturating_add(failed.len()));
    failed.retain(|id, _at| waiting.contains(id));
    let is_due =
        |id: &ReportId| failed.get(id).is_none_or(|at| now.duration_since(*at) >= RETRY_AFTER);
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
        failed.insert(id, Instant::now());
    }
    due.is_empty()
}

/// Reports that are asked for at a time.
const BATCH: usize = 64;
/// When a report that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::bounce::Verdict;
    use crate::clock::Clock;
    use crate::mail::{QueueId, Timestamp};
    use crate::net::shutdown::shutdown;
    use crate::secret::random_u64;
    use crate::store::record::{Batch, CapturedBy, ReportCaptured, ReportReceived};
    use crate::store::{Options, report_digest};

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn report(unique: u32) -> ReportReceived {
        let raw = format!("Subject: {unique}\r\n\r\n").into_bytes();
        ReportReceived {
            id: ReportId(QueueId::new(NOW, unique)),
            received_at: NOW,
            captured_by: CapturedBy::Listener,
            reverse_path: String::new(),
            recipients: Vec::new(),
            tokens: Vec::new(),
            digest: report_digest(&raw),
            raw,
        }
    }

    fn mark(id: ReportId) -> Batch {
        let report = ReportCaptured {
            id,
            captured_at: NOW,
            verdict: Verdict::Other,
            matched: Vec::new(),
            own_notice: false,
            forward_to: None,
            reread: false,
            bounced_accounts: Default::default(),
        };
        Batch { report: Some(report), ..Batch::default() }
    }

    #[tokio::test]
    async fn a_bad_report_neither_stops_the_worker_nor_holds_up_the_others() {
        let dir = std::env::temp_dir().join(format!("rebound-work-{:016x}", random_u64()));
        let options = Options {
            dir: dir.clone(),
            keep: Duration::from_secs(3600 * 24 * 90),
            bodies: Duration::ZERO,
        };
        let store = Store::open(&options, Clock::manual(NOW)).unwrap();
        for unique in [1, 2, 3] {
            store.accept_report(report(unique)).unwrap().synced().await.unwrap();
        }
        let (seen, sees) = mpsc::channel();
        let worker_store = store.clone();
        let capture = move |id: ReportId| {
            seen.send(id).unwrap();
            match id {
                id if id == report(1).id => panic!("a defect"),
                id if id == report(2).id => Err(StoreError::Busy),
                id => worker_store.commit(mark(id)).map(drop),
            }
        };
        let (stopper, stop) = shutdown();
        let worker = tokio::spawn(capture_each(store.clone(), capture, stop));
        let (mut order, limit) = (Vec::new(), Duration::from_secs(10));
        let mut sees = Some(sees);
        for more in [None, Some(4)] {
            if let Some(unique) = more {
                store.accept_report(report(unique)).unwrap().synced().await.unwrap();
            }
            let wanted = if more.is_some() { 1 } else { 3 };
            let receiver = sees.take().unwrap();
            let got = tokio::task::spawn_blocking(move || {
                let ids: Vec<ReportId> =
                    (0..wanted).map(|_| receiver.recv_timeout(limit).unwrap()).collect();
                (receiver, ids)
            });
            let (receiver, ids) = got.await.unwrap();
            order.extend(ids);
            sees = Some(receiver);
        }
        assert_eq!(order, [1, 2, 3, 4].map(|unique| report(unique).id));
        stopper.stop();
        worker.await.unwrap();
        assert_eq!(store.uncaptured_reports(10), [1, 2].map(|unique| report(unique).id));
        store.close().await;
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
