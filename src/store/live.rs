//! The mails in the queue, the reports that wait, the folders that are read and the addresses
//! that bounce: folded from entries, in memory.
//!
//! The same fold serves a running store and recovery, so both come to the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::mailboxes::Cursors;
use super::record::{
    Attempt, Bounce, CursorKey, Decision, FeedCursor, FolderCursor, NoticeSent, Order, OrderAction,
    ReportCaptured, ReportId, Submission,
};
use super::state::{self, State};
use super::suppressions::Suppressions;
use super::timetable::{Due, Timetable};
use super::{LiveMessage, LiveRecipient};
use crate::mail::{QueueId, Timestamp};

/// Everything that is still to be done.
#[derive(Debug, Default)]
pub(super) struct Live {
    mails: BTreeMap<QueueId, Mail>,
    timetable: Timetable,
    uncaptured: BTreeSet<ReportId>,
    forwards: BTreeMap<ReportId, Arc<ReportCaptured>>,
    cursors: Cursors,
    pub(super) suppressions: Suppressions,
    followers: BTreeMap<CursorKey, Arc<FeedCursor>>,
}

#[derive(Debug)]
struct Mail {
    message: LiveMessage,
    durability: Durability,
    due: Option<Due>,
    /// When the last thing happened to it.
    changed_at: Timestamp,
}

/// A mail that has left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) queue_id: QueueId,
    /// When the last of its recipients ended.
    pub(super) at: Timestamp,
}

/// Whether the frame of a mail is on disk; only then may it be relayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Durability {
    /// It is being written.
    Written,
    /// It is on disk.
    Synced,
}

/// Where a mail stands, written with it when it is re-appended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Standing {
    delay_notices: u32,
    #[serde(default)]
    held: bool,
    #[serde(default)]
    changed_at: Timestamp,
    recipients: Vec<RecipientStanding>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct RecipientStanding {
    state: State,
    attempts: u32,
    next_attempt: Timestamp,
    #[serde(default)]
    last: Option<Attempt>,
    #[serde(default)]
    notice_owed: bool,
}

impl Live {
    /// Folds an entry in; the mail that it ended, if it ended one.
    pub(super) fn apply(&mut self, entry: &Entry, durability: Durability) -> Option<Ended> {
        match entry {
            Entry::Message(submission) => {
                self.insert(submission, durability);
                // One whose recipients are all suppressed has ended as it came.
                self.change(submission.queue_id, None, |_message| {})
            }
            Entry::Attempt(attempt) => {
                let at = Some(attempt.ended_at);
                self.change(attempt.queue_id, at, |message| apply_attempt(message, attempt))
            }
            Entry::Bounce(bounce) => {
                let at = Some(bounce.date);
                self.change(bounce.queue_id?, at, |message| apply_bounce(message, bounce))
            }
            Entry::Notice(notice) => self.apply_notice(notice),
            Entry::Report(report) => {
                if durability == Durability::Synced {
                    self.uncaptured.insert(report.id);
                }
                None
            }
            Entry::Captured(mark) => {
                self.uncaptured.remove(&mark.id);
                if mark.owes_forward() {
                    self.forwards.insert(mark.id, Arc::clone(mark));
                }
                None
            }
            Entry::Standing(queue_id, standing) => {
                let at = Some(standing.changed_at);
                self.change(*queue_id, at, |message| apply_standing(message, standing))
            }
            Entry::Cursor(cursor) => {
                self.cursors.insert(cursor.key(), Arc::clone(cursor));
                None
            }
            Entry::Order(order) => {
                self.change(order.queue_id, Some(order.at), |message| apply_order(message, *order))
            }
            Entry::Suppression(entry) => {
                self.suppressions.apply(entry);
                None
            }
            Entry::Follower(cursor) => {
                self.followers.insert(cursor.key(), Arc::clone(cursor));
                None
            }
            Entry::Closed(_) | Entry::Delivery(_) => None,
        }
    }

    /// Notes that a mail is on disk: from now on it may be due.
    pub(super) fn synced(&mut self, queue_id: QueueId) {
        if let Some(mail) = self.mails.get_mut(&queue_id) {
            mail.durability = Durability::Synced;
            schedule(&mut self.timetable, queue_id, mail);
        }
    }

    /// Notes that a report is on disk: from now on it waits to be captured.
    pub(super) fn report_synced(&mut self, id: ReportId) {
        self.uncaptured.insert(id);
    }

    /// Takes a mail back that could not be written.
    pub(super) fn remove(&mut self, queue_id: QueueId) {
        if let Some(mail) = self.mails.remove(&queue_id)
            && let Some(due) = mail.due
        {
            self.timetable.remove(due, queue_id);
        }
    }

    /// Notes that recipients are being tried: those of these that may be.
    pub(super) fn claim(&mut self, queue_id: QueueId, recipients: &[u32]) -> Vec<u32> {
        let Some(mail) = self.mails.get_mut(&queue_id).filter(|mail| !mail.message.held) else {
            return Vec::new();
        };
        let mut claimed = Vec::new();
        for index in recipients {
            if let Some(recipient) = recipient_at(&mut mail.message, *index)
                && !recipient.state.has_left_queue()
                && !recipient.under_way
            {
                recipient.under_way = true;
                claimed.push(*index);
            }
        }
        claimed
    }

    /// Notes that recipients are not being tried any more.
    pub(super) fn unclaim(&mut self, queue_id: QueueId, recipients: &[u32]) {
        let Some(mail) = self.mails.get_mut(&queue_id) else { return };
        for index in recipients {
            if let Some(recipient) = recipient_at(&mut mail.message, *index) {
                recipient.under_way = false;
            }
        }
    }

    /// A mail.
    pub(super) fn mail(&self, queue_id: QueueId) -> Option<&LiveMessage> {
        self.mails.get(&queue_id).map(|mail| &mail.message)
    }

    /// Where a mail stands.
    pub(super) fn standing(&self, queue_id: QueueId) -> Option<Standing> {
        let Mail { message, changed_at, .. } = self.mails.get(&queue_id)?;
        let recipients = message.recipients.iter().map(|recipient| RecipientStanding {
            state: recipient.state,
            attempts: recipient.attempts,
            next_attempt: recipient.next_attempt,
            last: recipient.last.clone(),
            notice_owed: recipient.notice_owed,
        });
        Some(Standing {
            delay_notices: message.delay_notices,
            held: message.held,
            changed_at: *changed_at,
            recipients: recipients.collect(),
        })
    }

    /// Mails that are due, oldest due first, without those that `skip` picks.
    pub(super) fn due(
        &self,
        now: Timestamp,
        max: usize,
        skip: &dyn Fn(QueueId) -> bool,
    ) -> Vec<QueueId> {
        self.timetable.due(now, max, skip)
    }

    /// Mails that are tried again after `time` only, without those that `skip` picks.
    pub(super) fn due_after(
        &self,
        time: Timestamp,
        max: usize,
        skip: &dyn Fn(QueueId) -> bool,
    ) -> Vec<QueueId> {
        self.timetable.retried_after(time, max, skip)
    }

    /// When the next mail that `skip` does not pick is due.
    pub(super) fn next_due(&self, skip: &dyn Fn(QueueId) -> bool) -> Option<Timestamp> {
        self.timetable.next(skip)
    }

    /// Mails in the queue.
    pub(super) fn len(&self) -> usize {
        self.mails.len()
    }

    /// Every mail in the queue, oldest first.
    pub(super) fn queue_ids(&self) -> impl Iterator<Item = QueueId> {
        self.mails.keys().copied()
    }

    /// Every mail in the queue, or every one before `before`, newest first.
    pub(super) fn newest_first(
        &self,
        before: Option<QueueId>,
    ) -> impl Iterator<Item = &LiveMessage> {
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let mails = self.mails.range((Bound::Unbounded, end));
        mails.rev().map(|(_, mail)| &mail.message)
    }

    /// Every mail in the queue, or every one behind `after`, oldest first.
    pub(super) fn oldest_first(
        &self,
        after: Option<QueueId>,
    ) -> impl Iterator<Item = &LiveMessage> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.mails.range((start, Bound::Unbounded)).map(|(_, mail)| &mail.message)
    }

    /// Whether a report waits to be captured.
    pub(super) fn is_uncaptured(&self, id: ReportId) -> bool {
        self.uncaptured.contains(&id)
    }

    /// How far a folder of a mailbox has been read.
    pub(super) fn cursor(&self, key: &CursorKey) -> Option<&Arc<FolderCursor>> {
        self.cursors.get(key)
    }

    /// How far a follower of the feed has come.
    pub(super) fn follower(&self, key: &CursorKey) -> Option<&Arc<FeedCursor>> {
        self.followers.get(key)
    }

    /// Reports that wait to be captured, oldest first.
    pub(super) fn uncaptured(&self) -> impl Iterator<Item = ReportId> {
        self.uncaptured.iter().copied()
    }

    /// Captured reports that are still to be forwarded, oldest first.
    pub(super) fn forwards(&self) -> impl Iterator<Item = &Arc<ReportCaptured>> {
        self.forwards.values()
    }

    /// Whether a report is still to be forwarded.
    pub(super) fn owes_forward(&self, id: ReportId) -> bool {
        self.forwards.contains_key(&id)
    }

    /// The oldest thing that is still in work.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let mail = self.mails.keys().next().map(|id| id.time());
        let report = self.uncaptured.iter().next().map(|id| id.0.time());
        let forward = self.forwards.keys().next().map(|id| id.0.time());
        [mail, report, forward].into_iter().flatten().min()
    }

    fn insert(&mut self, submission: &Submission, durability: Durability) {
        let queue_id = submission.queue_id;
        self.remove(queue_id);
        let (message, changed_at) = (live_message(submission), submission.received_at);
        let mut mail = Mail { message, durability, due: None, changed_at };
        schedule(&mut self.timetable, queue_id, &mut mail);
        self.mails.insert(queue_id, mail);
    }

    /// Changes a mail and takes it out of the queue when nothing is left to do for it. `at` is
    /// when this happened to its recipients, where it did.
    fn change(
        &mut self,
        queue_id: QueueId,
        at: Option<Timestamp>,
        apply: impl FnOnce(&mut LiveMessage),
    ) -> Option<Ended> {
        let mail = self.mails.get_mut(&queue_id)?;
        apply(&mut mail.message);
        mail.changed_at = at.unwrap_or(mail.changed_at);
        if has_ended(&mail.message) {
            let ended = Ended { queue_id, at: mail.changed_at };
            self.remove(queue_id);
            return Some(ended);
        }
        schedule(&mut self.timetable, queue_id, mail);
        None
    }

    fn apply_notice(&mut self, notice: &NoticeSent) -> Option<Ended> {
        match notice {
            NoticeSent::Failure { queue_id, recipients }
            | NoticeSent::Relayed { queue_id, recipients } => {
                self.change(*queue_id, None, |message| {
                    for (index, recipient) in (0_u32..).zip(&mut message.recipients) {
                        recipient.notice_owed &= !recipients.contains(&index);
                    }
                })
            }
            NoticeSent::Delay { queue_id, count } => self.change(*queue_id, None, |message| {
                message.delay_notices = message.delay_notices.max(*count);
            }),
            NoticeSent::Forward { report_id } => {
                self.forwards.remove(report_id);
                None
            }
        }
    }
}

/// A mail as it enters the queue: every recipient is due at once, or when the app wants it sent.
fn live_message(submission: &Submission) -> LiveMessage {
    let envelope = &submission.envelope;
    let recipients = envelope.recipients.iter().map(|recipient| LiveRecipient {
        address: recipient.address.clone(),
        state: if recipient.is_suppressed { State::Suppressed } else { State::Queued },
        attempts: 0,
        next_attempt: submission.begins_at(),
        last: None,
        notice_owed: false,
        dsn: recipient.dsn.clone(),
        under_way: false,
    });
    LiveMessage {
        queue_id: submission.queue_id,
        message_id: submission.message_id.clone(),
        account: submission.account.clone(),
        origin: submission.origin,
        received_at: submission.received_at,
        reverse_path: envelope.reverse_path.clone(),
        return_path: submission.return_path,
        dsn: submission.dsn,
        size_bytes: submission.size_bytes,
        long_lines: submission.long_lines,
        body: envelope.body,
        smtputf8: envelope.smtputf8,
        dsn_asked: envelope.dsn.clone(),
        send_at: submission.control.send_at,
        attempts_max: submission.control.attempts_max,
        held: false,
        delay_notices: 0,
        recipients: recipients.collect(),
    }
}

fn apply_attempt(message: &mut LiveMessage, attempt: &Attempt) {
    let Some(recipient) = recipient_at(message, attempt.recipient) else { return };
    recipient.attempts = recipient.attempts.max(attempt.number);
    recipient.state = recipient.state.max(state::of([attempt], [], []));
    recipient.notice_owed |= attempt.notice_owed;
    if let Decision::RetryAt(time) = attempt.decision {
        recipient.next_attempt = time;
    }
    recipient.last = Some(attempt.clone());
}

fn apply_bounce(message: &mut LiveMessage, bounce: &Bounce) {
    if let Some(reported) = state::reported_state(bounce)
        && let Some(index) = bounce.recipient_index
        && let Some(recipient) = recipient_at(message, index)
    {
        recipient.state = recipient.state.max(reported);
    }
}

fn apply_order(message: &mut LiveMessage, order: Order) {
    let ordered = state::of([], [], [&order]);
    match order.action {
        OrderAction::Hold => message.held = true,
        OrderAction::Release | OrderAction::Retry | OrderAction::Cancel => message.held = false,
    }
    for recipient in message.recipients.iter_mut().filter(|one| !one.state.has_left_queue()) {
        recipient.state = recipient.state.max(ordered);
        if order.action == OrderAction::Retry {
            recipient.next_attempt = order.at;
        }
    }
}

fn apply_standing(message: &mut LiveMessage, standing: &Standing) {
    message.delay_notices = standing.delay_notices;
    message.held = standing.held;
    for (recipient, was) in message.recipients.iter_mut().zip(&standing.recipients) {
        recipient.state = was.state;
        recipient.attempts = was.attempts;
        recipient.next_attempt = was.next_attempt;
        recipient.last.clone_from(&was.last);
        recipient.notice_owed = was.notice_owed;
    }
}

fn recipient_at(message: &mut LiveMessage, index: u32) -> Option<&mut LiveRecipient> {
    message.recipients.get_mut(usize::try_from(index).ok()?)
}

/// Whether nothing is left to do for a mail.
fn has_ended(message: &LiveMessage) -> bool {
    let is_over = |one: &LiveRecipient| one.state.has_left_queue() && !one.notice_owed;
    message.recipients.iter().all(is_over)
}

/// When there is something to do for a mail: at once for a notice; `None` when it has ended or is
/// held.
fn due_at(message: &LiveMessage) -> Option<Due> {
    if message.recipients.iter().any(|recipient| recipient.notice_owed) {
        return Some(Due::At(Timestamp::from_millis(0)));
    }
    let waiting = message.recipients.iter().filter(|recipient| !recipient.state.has_left_queue());
    let next = waiting.map(|recipient| recipient.next_attempt).min().filter(|_| !message.held)?;
    let is_appointed = message.send_at == Some(next);
    Some(if is_appointed { Due::Appointed(next) } else { Due::At(next) })
}

/// Puts a mail where it belongs in the order of what is due.
fn schedule(timetable: &mut Timetable, queue_id: QueueId, mail: &mut Mail) {
    let due = due_at(&mail.message).filter(|_| mail.durability == Durability::Synced);
    if mail.due == due {
        return;
    }
    if let Some(old) = mail.due {
        timetable.remove(old, queue_id);
    }
    if let Some(new) = due {
        timetable.insert(new, queue_id);
    }
    mail.due = due;
}
