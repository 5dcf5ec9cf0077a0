//! What webhooks were told of one mail, and what they are still to be told.

use std::sync::Arc;

use super::{Webhooks, locked};
use crate::store::record::{Delivery, Origin};
use crate::store::{DeliveryEnded, MessageRecord, Store, StoreError};
use crate::view::{self, MailTold, WaitingDelivery};

impl Webhooks {
    /// What of a mail was told, and what waits. Reads the store, so it may block.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn about(&self, store: &Store, mail: &MessageRecord) -> Result<MailTold, StoreError> {
        let queue_id = mail.submission.queue_id;
        // The outboxes first: what leaves them is in the store by then.
        let (unwritten, mut waiting) = self.held(mail);
        let mut ended = store.deliveries(queue_id, DELIVERIES_MAX.saturating_add(1))?;
        for one in unwritten {
            if !ended.iter().any(|known| **known == one) {
                ended.push(Arc::new(one));
            }
        }
        ended.sort_by_key(|one| one.ended_at);
        // What has ended meanwhile does not wait; what was taken before and is told once more does.
        waiting.retain(|waiting| {
            let is_end = |one: &Arc<DeliveryEnded>| {
                one.ended_at >= waiting.delivery.first_attempt
                    && one.webhook == waiting.webhook
                    && one.event_id == view::delivery_id(&waiting.delivery)
            };
            !ended.iter().any(is_end)
        });
        let too_many = ended.len().saturating_sub(DELIVERIES_MAX);
        let has_more = too_many > 0 || waiting.len() > DELIVERIES_MAX;
        ended.drain(..too_many);
        waiting.truncate(DELIVERIES_MAX);
        Ok(MailTold { ended, waiting, has_more })
    }

    /// What the outboxes have about a mail: deliveries that have ended and are not written yet,
    /// and those that wait.
    fn held(&self, mail: &MessageRecord) -> (Vec<DeliveryEnded>, Vec<WaitingDelivery>) {
        let submission = &mail.submission;
        let mut ended = Vec::new();
        let mut waiting = Vec::new();
        for known in self.all.iter() {
            let outbox = locked(&known.outbox);
            let found = outbox.ended().iter().filter(|one| one.queue_id == submission.queue_id);
            ended.extend(found.cloned());
            let accounts = &known.settings.accounts;
            if accounts.is_empty() || accounts.contains(&submission.account) {
                let found = to_be_told(&outbox.cursor().waiting, mail).into_iter();
                waiting.extend(found.map(|delivery| WaitingDelivery {
                    webhook: known.settings.name.clone(),
                    is_disabled: outbox.is_disabled(),
                    delivery,
                }));
            }
        }
        (ended, waiting)
    }
}

/// Those of the deliveries that tell of a mail. An endpoint finds out only when it comes to one
/// whether there is anything to tell; here the mail is known.
fn to_be_told(waiting: &[Delivery], mail: &MessageRecord) -> Vec<Delivery> {
    let submission = &mail.submission;
    let of_mail = || waiting.iter().filter(|one| one.queue_id == Some(submission.queue_id));
    if submission.origin == Origin::Notice {
        return Vec::new();
    }
    let is_failure = |one: &Delivery| one.event == "messageFailed";
    let last = of_mail().rfind(|one| is_failure(one)).filter(|_last| view::has_failed(mail));
    let last = last.map(|last| last.place);
    of_mail().filter(|one| !is_failure(one) || Some(one.place) == last).cloned().collect()
}

/// Deliveries about one mail that are shown: the newest that have ended, and as many that wait.
const DELIVERIES_MAX: usize = 200;
