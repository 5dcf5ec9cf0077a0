//! Taking in: mails, reports and batches become work for the committer, visible at once.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::StoreError;
use super::body::{Body, BodyOctets, FileGuard};
use super::entry::{Entry, Frame};
use super::layout;
use super::live::Durability;
use super::record::{Batch, Bounce, ReportReceived, Submission};
use super::shared::{Core, Shared, Source, Work};
use super::suppressions::{ByHandChange, Strike, Suppression, Suppressions};
use crate::mail::{QueueId, Timestamp};

type Receipt = oneshot::Receiver<Result<(), StoreError>>;

impl Shared {
    pub(super) fn accept(&self, submission: Submission, body: Body) -> Result<Receipt, StoreError> {
        self.disk_has_room(submission.size_bytes)?;
        let entry = Entry::Message(Arc::new(submission));
        let frame = match &body.octets {
            BodyOctets::Here(octets) => frame_of(entry, Some(octets))?,
            BodyOctets::InFile(_) => frame_of(entry, None)?,
        };
        let receipt = self.enqueue_intake(frame)?;
        if let BodyOctets::InFile(guard) = body.octets {
            FileGuard::keep(guard);
        }
        Ok(receipt)
    }

    pub(super) fn accept_report(&self, report: ReportReceived) -> Result<Receipt, StoreError> {
        self.disk_has_room(u64::try_from(report.raw.len()).unwrap_or(u64::MAX))?;
        self.enqueue_intake(frame_of(Entry::Report(Arc::new(report)), None)?)
    }

    pub(super) fn commit(&self, batch: Batch) -> Result<Receipt, StoreError> {
        let Batch {
            attempts,
            bounces,
            revisions,
            report,
            notices,
            cursors,
            orders,
            strikes,
            suppressions,
            closings,
            feed_cursors,
            deliveries,
            submissions,
        } = batch;
        let mut frames = Vec::new();
        for entry in shared(attempts, Entry::Attempt).chain(shared(report, Entry::Captured)) {
            frames.push(frame_of(entry, None)?);
        }
        for (submission, body) in submissions {
            frames.push(frame_of(Entry::Message(Arc::new(submission)), Some(&body))?);
        }
        let plain = shared(notices, Entry::Notice)
            .chain(shared(cursors, Entry::Cursor))
            .chain(orders.into_iter().map(Entry::Order))
            .chain(shared(closings, Entry::Closed))
            .chain(shared(deliveries, Entry::Delivery))
            .chain(shared(feed_cursors, Entry::Follower));
        for entry in plain {
            frames.push(frame_of(entry, None)?);
        }
        for bounce in revisions {
            let mut frame = frame_of(Entry::Bounce(Arc::new(bounce)), None)?;
            frame.flags = layout::REVISION;
            frames.push(frame);
        }
        let mut bounces = distinct(bounces);
        let _no_other = (!bounces.is_empty()).then(|| self.bounce_writer());
        self.forget_known(&mut bounces)?;
        let recorded: HashSet<_> =
            bounces.iter().map(|bounce| (bounce.queue_id, bounce.key)).collect();
        let counts = |strike: &Strike| recorded.contains(&(Some(strike.of.0), strike.of.1));
        let strikes: Vec<Strike> = strikes.into_iter().filter(counts).collect();
        for bounce in bounces {
            frames.push(frame_of(Entry::Bounce(Arc::new(bounce)), None)?);
        }
        let (sender, receiver) = oneshot::channel();
        let mut core = self.core();
        core.room_for_outcome()?;
        // They are made of what stands there, so that nothing may come in between.
        frames.extend(core.suppress(&strikes, &suppressions, self.clock.now())?);
        let mut ended = Vec::new();
        for frame in &frames {
            ended.extend(core.live.apply(&frame.entry, Durability::Written));
            core.pending.add(&frame.entry);
        }
        core.enqueue(Work { source: Source::Outcome, frames, ended, ticket: Some(sender) });
        drop(core);
        self.work_ready.notify_one();
        self.queue_changed.notify_one();
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        Ok(receiver)
    }

    fn enqueue_intake(&self, frame: Frame) -> Result<Receipt, StoreError> {
        let (sender, receiver) = oneshot::channel();
        let mut core = self.core();
        core.room()?;
        let ended = core.live.apply(&frame.entry, Durability::Written).into_iter().collect();
        core.pending.add(&frame.entry);
        let frames = vec![frame];
        let work = Work { source: Source::Intake, frames, ended, ticket: Some(sender) };
        core.enqueue(work);
        drop(core);
        self.work_ready.notify_one();
        Ok(receiver)
    }

    /// Leaves out bounces of a submission that are known already.
    fn forget_known(&self, bounces: &mut Vec<Bounce>) -> Result<(), StoreError> {
        let mut fresh = Vec::with_capacity(bounces.len());
        for bounce in bounces.drain(..) {
            let is_known = match bounce.queue_id {
                Some(queue_id) => self.knows_bounce(queue_id, &bounce.key)?,
                None => false,
            };
            if !is_known {
                fresh.push(bounce);
            }
        }
        *bounces = fresh;
        Ok(())
    }

    fn knows_bounce(&self, queue_id: QueueId, key: &[u8; 16]) -> Result<bool, StoreError> {
        if self.core().pending.knows_bounce(queue_id, key) {
            return Ok(true);
        }
        self.index_knows_bounce(queue_id, key)
    }
}

impl Core {
    /// The frames of what bounces and people change about addresses, which holds from now on.
    fn suppress(
        &mut self,
        strikes: &[Strike],
        changes: &[ByHandChange],
        now: Timestamp,
    ) -> Result<Vec<Frame>, StoreError> {
        let held = &mut self.live.suppressions;
        let mut frames = Vec::new();
        let mut write = |held: &mut Suppressions, entries: Vec<Suppression>| {
            for entry in entries.into_iter().map(Arc::new) {
                held.apply(&entry);
                frames.push(frame_of(Entry::Suppression(entry), None)?);
            }
            Ok::<(), StoreError>(())
        };
        for strike in strikes {
            let entries = held.struck(strike);
            write(held, entries)?;
        }
        for change in changes {
            let entries = held.changed(change, now);
            write(held, entries)?;
        }
        Ok(frames)
    }
}

/// Records as entries of one kind.
fn shared<T>(
    records: impl IntoIterator<Item = T>,
    entry: fn(Arc<T>) -> Entry,
) -> impl Iterator<Item = Entry> {
    records.into_iter().map(move |record| entry(Arc::new(record)))
}

fn frame_of(entry: Entry, body: Option<&[u8]>) -> Result<Frame, StoreError> {
    entry.into_frame(body).map_err(StoreError::Format)
}

/// The bounces of one batch, each key once.
fn distinct(bounces: Vec<Bounce>) -> Vec<Bounce> {
    let mut seen = HashSet::new();
    bounces.into_iter().filter(|bounce| seen.insert((bounce.queue_id, bounce.key))).collect()
}
