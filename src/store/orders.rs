//! What is ordered to be done with mails in the queue, and who of them is being tried.
//!
//! Whoever tries a recipient claims it first, and an order sees the claims under the same lock:
//! so what was canceled is never begun, and what had begun can be told.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::entry::Entry;
use super::live::Durability;
use super::record::{Order, OrderAction};
use super::shared::{Shared, Source, Work};
use super::{LiveMessage, Store, StoreError, Ticket};
use crate::mail::QueueId;

/// The right to try recipients of a mail, until it is dropped.
#[must_use = "without it nothing may be tried"]
pub struct Claim {
    shared: Arc<Shared>,
    queue_id: QueueId,
    recipients: Vec<u32>,
}

/// Which mails of the queue are listed.
#[derive(Clone, Copy, Debug, Default)]
pub struct QueueRange<'a> {
    /// Those of this account; of all without it.
    pub account: Option<&'a str>,
    /// From which end.
    pub order: QueueOrder,
    /// Only those behind this one in that order; it need not be in the queue any more.
    pub behind: Option<QueueId>,
}

/// From which end the queue is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueOrder {
    /// The newest mail comes first.
    #[default]
    Newest,
    /// The oldest mail comes first.
    Oldest,
}

/// What an order found.
#[derive(Debug)]
pub struct Ordered {
    /// Says when the order is on disk; it holds at once.
    pub ticket: Ticket,
    /// The mail as it was before.
    pub before: LiveMessage,
}

impl Store {
    /// Claims those of the recipients that wait, are not being tried and may be tried.
    pub fn claim(&self, queue_id: QueueId, recipients: &[u32]) -> Claim {
        let claimed = self.shared.core().live.claim(queue_id, recipients);
        Claim { shared: Arc::clone(&self.shared), queue_id, recipients: claimed }
    }

    /// Has something done with a mail in the queue; `None` when it is not there.
    ///
    /// # Errors
    /// When the store takes nothing; then nothing is ordered.
    pub fn order(
        &self,
        queue_id: QueueId,
        action: OrderAction,
    ) -> Result<Option<Ordered>, StoreError> {
        let order = Order { queue_id, at: self.shared.clock.now(), action };
        self.shared.order(order)
    }

    /// Mails in the queue: how many there are of the account, or of all, and those of one page of
    /// the range.
    pub fn queue_page(
        &self,
        range: QueueRange<'_>,
        skip: usize,
        max: usize,
    ) -> (usize, Vec<LiveMessage>) {
        let core = self.shared.core();
        let is_wanted =
            |mail: &&LiveMessage| range.account.is_none_or(|account| mail.account == account);
        let total = match range.account {
            Some(_) => core.live.newest_first(None).filter(is_wanted).count(),
            None => core.live.len(),
        };
        let page = match range.order {
            QueueOrder::Newest => {
                let mails = core.live.newest_first(range.behind).filter(is_wanted);
                mails.skip(skip).take(max).cloned().collect()
            }
            QueueOrder::Oldest => {
                let mails = core.live.oldest_first(range.behind).filter(is_wanted);
                mails.skip(skip).take(max).cloned().collect()
            }
        };
        (total, page)
    }
}

impl Claim {
    /// Whether this recipient may be tried.
    pub fn has(&self, recipient: u32) -> bool {
        self.recipients.contains(&recipient)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.shared.core().live.unclaim(self.queue_id, &self.recipients);
    }
}

impl Shared {
    fn order(&self, order: Order) -> Result<Option<Ordered>, StoreError> {
        let frame = Entry::Order(order).into_frame(None).map_err(StoreError::Format)?;
        let (sender, receiver) = oneshot::channel();
        let mut core = self.core();
        let Some(before) = core.live.mail(order.queue_id).cloned() else { return Ok(None) };
        core.room_for_outcome()?;
        let ended = core.live.apply(&frame.entry, Durability::Written).into_iter().collect();
        core.pending.add(&frame.entry);
        let frames = vec![frame];
        core.enqueue(Work { source: Source::Outcome, frames, ended, ticket: Some(sender) });
        drop(core);
        self.work_ready.notify_one();
        self.queue_changed.notify_one();
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
        Ok(Some(Ordered { ticket: Ticket(receiver), before }))
    }
}
