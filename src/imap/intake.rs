//! From the octets of a mail to a stored report: what is no report goes no further.

use std::time::Duration;

use super::error::ImapError;
use super::mailbox::Shared;
use crate::bounce::{self, Verdict};
use crate::capture::arrived;
use crate::store::record::{CapturedBy, ReportId, ReportReceived};
use crate::store::{StoreError, Ticket, report_digest};

/// What a mail turned out to be.
pub(super) enum Taken {
    /// No report.
    Other,
    /// A report that was stored before.
    Known(ReportId),
    /// A report that is being stored, and its size in octets.
    Stored(ReportId, Ticket, usize),
}

/// Reads a mail and stores it if it is a report that is not known.
pub(super) async fn take(shared: &Shared, raw: Vec<u8>) -> Result<Taken, ImapError> {
    let doing = "reading a mail";
    let (store, clock) = (shared.store.clone(), shared.clock.clone());
    let read = tokio::task::spawn_blocking(move || {
        if !is_report(bounce::read(&raw).verdict) {
            return Ok(Err(Taken::Other));
        }
        let digest = report_digest(&raw);
        if let Some(id) = store.any_report_by_digest(&digest)? {
            return Ok(Err(Taken::Known(id)));
        }
        let id = ReportId(store.new_queue_id());
        Ok::<_, StoreError>(Ok(arrived(id, clock.now(), CapturedBy::Imap, raw)))
    });
    let report = match read.await.map_err(|_panicked| ImapError::Defect(doing))?? {
        Ok(report) => report,
        Err(taken) => return Ok(taken),
    };
    let (id, size) = (report.id, report.raw.len());
    Ok(Taken::Stored(id, stored(shared, report).await?, size))
}

/// Hands a report to the store, which may be busy for a moment.
async fn stored(shared: &Shared, report: ReportReceived) -> Result<Ticket, ImapError> {
    for _ in 0..BUSY_MAX {
        match shared.store.can_accept(0) {
            Err(StoreError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
            _ => break,
        }
    }
    Ok(shared.store.accept_report(report)?)
}

/// Whether a mail of this kind is captured.
fn is_report(verdict: Verdict) -> bool {
    match verdict {
        Verdict::Bounce | Verdict::Delayed | Verdict::Delivered | Verdict::Complaint => true,
        Verdict::Autoreply | Verdict::Mdn | Verdict::Other => false,
    }
}

/// How often a busy store is asked again.
const BUSY_MAX: u32 = 100;
/// The pause before that.
const BUSY_PAUSE: Duration = Duration::from_millis(100);
