//! An entry is a frame with its meaning: what the journal says, the live queue folds and the
//! index points to.

use std::sync::Arc;

use super::deliveries::DeliveryEnded;
use super::keys::{self, ReportPart};
use super::layout::{self, FrameRef, Kind, Location};
use super::live::Standing;
use super::record::{
    Attempt, Bounce, Closed, Decision, FeedCursor, FolderCursor, NoticeSent, Order, OrderAction,
    Origin, ReportCaptured, ReportId, ReportReceived, Submission,
};
use super::suppressions::Suppression;
use crate::mail::{MessageId, QueueId};

/// What one frame says.
#[derive(Clone, Debug)]
pub(super) enum Entry {
    /// A mail was taken over.
    Message(Arc<Submission>),
    /// A recipient was tried.
    Attempt(Arc<Attempt>),
    /// A bounce or delivery news.
    Bounce(Arc<Bounce>),
    /// A report arrived.
    Report(Arc<ReportReceived>),
    /// A report was captured.
    Captured(Arc<ReportCaptured>),
    /// A notice was written.
    Notice(Arc<NoticeSent>),
    /// Where a re-appended mail stands.
    Standing(QueueId, Arc<Standing>),
    /// A folder of a mailbox was read.
    Cursor(Arc<FolderCursor>),
    /// Something was ordered to be done with a mail.
    Order(Order),
    /// What speaks against an address has changed.
    Suppression(Arc<Suppression>),
    /// A mail is closed.
    Closed(Arc<Closed>),
    /// A follower of the feed has come further.
    Follower(Arc<FeedCursor>),
    /// A delivery to a webhook has ended.
    Delivery(Arc<DeliveryEnded>),
}

/// An entry ready to be written: its frame without LSN and checksum.
#[derive(Debug)]
pub(super) struct Frame {
    /// What it says.
    pub(super) entry: Entry,
    /// `MORE`, `CONTINUES`, `COPY`, `REVISION`.
    pub(super) flags: u8,
    /// What it is about.
    pub(super) key: Vec<u8>,
    /// The octets.
    pub(super) payload: Vec<u8>,
    /// How much of the payload goes into `log/`.
    pub(super) log_len: usize,
}

/// A row for the index of one day.
#[derive(Debug)]
pub(super) struct Row {
    /// The day.
    pub(super) day: u32,
    /// The key, from `layout`.
    pub(super) key: Vec<u8>,
    /// The value, at most `INDEX_VALUE_BYTES_MAX` octets.
    pub(super) value: Vec<u8>,
}

impl Entry {
    /// The kind of its frame.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Message(_) => Kind::Message,
            Self::Attempt(_) => Kind::Attempt,
            Self::Bounce(_) => Kind::Bounce,
            Self::Report(_) => Kind::Report,
            Self::Captured(_) => Kind::Captured,
            Self::Notice(_) => Kind::Notice,
            Self::Standing(..) => Kind::Standing,
            Self::Cursor(_) => Kind::Cursor,
            Self::Order(_) => Kind::Order,
            Self::Suppression(_) => Kind::Suppression,
            Self::Closed(_) => Kind::Closed,
            Self::Follower(_) => Kind::Follower,
            Self::Delivery(_) => Kind::Delivery,
        }
    }

    /// What its frame is about: ten octets that name the submission, the report, the bounce,
    /// the folder or the follower, sixteen that name account and recipient.
    pub(super) fn key(&self) -> Vec<u8> {
        match self {
            Self::Message(message) => message.queue_id.as_bytes().to_vec(),
            Self::Attempt(attempt) => attempt.queue_id.as_bytes().to_vec(),
            Self::Bounce(bounce) => keys::bounce_id_bytes(bounce).to_vec(),
            Self::Report(report) => report.id.0.as_bytes().to_vec(),
            Self::Captured(mark) => mark.id.0.as_bytes().to_vec(),
            Self::Notice(notice) => notice_subject(notice).as_bytes().to_vec(),
            Self::Standing(queue_id, _) => queue_id.as_bytes().to_vec(),
            Self::Cursor(cursor) => cursor.key().to_vec(),
            Self::Order(order) => order.queue_id.as_bytes().to_vec(),
            Self::Suppression(entry) => entry.key().to_vec(),
            Self::Closed(closed) => closed.queue_id.as_bytes().to_vec(),
            Self::Follower(cursor) => cursor.key().to_vec(),
            Self::Delivery(ended) => ended.queue_id.as_bytes().to_vec(),
        }
    }

    /// Makes the frame of an entry; a message's body is given apart.
    pub(super) fn into_frame(self, body: Option<&[u8]>) -> Result<Frame, String> {
        let (payload, log_len) = match &self {
            Self::Message(message) => {
                let record = layout::encode_record(message.as_ref())?;
                let (place, octets) = match body {
                    Some(octets) => (layout::BODY_HERE, octets),
                    None => (layout::BODY_IN_FILE, &[][..]),
                };
                let end = layout::message_record_end(record.len());
                (layout::encode_message(&record, place, octets), end)
            }
            Self::Attempt(attempt) => whole(layout::encode_record(attempt.as_ref())?),
            Self::Bounce(bounce) => whole(layout::encode_record(bounce.as_ref())?),
            Self::Report(report) => whole(layout::encode_record(report.as_ref())?),
            Self::Captured(mark) => whole(layout::encode_record(mark.as_ref())?),
            Self::Notice(notice) => whole(layout::encode_record(notice.as_ref())?),
            Self::Standing(_, standing) => (layout::encode_record(standing.as_ref())?, 0),
            Self::Cursor(cursor) => (layout::encode_record(cursor.as_ref())?, 0),
            Self::Order(order) => whole(layout::encode_record(order)?),
            Self::Suppression(entry) => (layout::encode_record(entry.as_ref())?, 0),
            Self::Closed(closed) => whole(layout::encode_record(closed.as_ref())?),
            Self::Follower(cursor) => (layout::encode_record(cursor.as_ref())?, 0),
            Self::Delivery(ended) => whole(layout::encode_record(ended.as_ref())?),
        };
        if payload.len() > layout::FRAME_BYTES_MAX {
            return Err(format!("{} octets are too many for one record", payload.len()));
        }
        Ok(Frame { key: self.key(), entry: self, flags: 0, payload, log_len })
    }

    /// Reads a frame; `None` for a kind that a newer version wrote.
    pub(super) fn read(frame: &FrameRef<'_>) -> Result<Option<Self>, String> {
        let Some(kind) = Kind::from_u8(frame.kind) else { return Ok(None) };
        let payload = frame.payload;
        Ok(Some(match kind {
            Kind::Message => {
                let parts = layout::decode_message(payload);
                let (record, _, _) = parts.ok_or("a message frame is cut short")?;
                Self::Message(Arc::new(layout::decode_record(record)?))
            }
            Kind::Attempt => Self::Attempt(Arc::new(layout::decode_record(payload)?)),
            Kind::Bounce => Self::Bounce(Arc::new(layout::decode_record(payload)?)),
            Kind::Report => Self::Report(Arc::new(layout::decode_record(payload)?)),
            Kind::Captured => Self::Captured(Arc::new(layout::decode_record(payload)?)),
            Kind::Notice => Self::Notice(Arc::new(layout::decode_record(payload)?)),
            Kind::Standing => {
                let queue_id = keys::id_of(frame.key).ok_or("a frame has no queue id")?;
                Self::Standing(queue_id, Arc::new(layout::decode_record(payload)?))
            }
            Kind::Cursor => Self::Cursor(Arc::new(layout::decode_record(payload)?)),
            Kind::Order => Self::Order(layout::decode_record(payload)?),
            Kind::Suppression => Self::Suppression(Arc::new(layout::decode_record(payload)?)),
            Kind::Closed => Self::Closed(Arc::new(layout::decode_record(payload)?)),
            Kind::Follower => Self::Follower(Arc::new(layout::decode_record(payload)?)),
            Kind::Delivery => Self::Delivery(Arc::new(layout::decode_record(payload)?)),
        }))
    }

    /// The day whose `log/` directory takes it; `None` for what only the spool needs.
    ///
    /// Never before the day of what it is about, so that every row points to its own day or a
    /// later one, also when the clock went backward, and days can be dropped from the oldest on.
    pub(super) fn day(&self) -> Option<u32> {
        Some(match self {
            Self::Message(message) => message.queue_id.time().day(),
            Self::Attempt(attempt) => attempt.ended_at.day().max(attempt.queue_id.time().day()),
            Self::Bounce(bounce) => bounce_day(bounce),
            Self::Report(report) => report.id.0.time().day(),
            Self::Captured(mark) => mark.captured_at.day().max(mark.id.0.time().day()),
            Self::Notice(notice) => notice_subject(notice).time().day(),
            Self::Order(order) => order.at.day().max(order.queue_id.time().day()),
            Self::Closed(closed) => closed.closed_at.day().max(closed.queue_id.time().day()),
            Self::Delivery(ended) => ended.ended_at.day().max(ended.queue_id.time().day()),
            Self::Standing(..) | Self::Cursor(_) | Self::Follower(_) | Self::Suppression(_) => {
                return None;
            }
        })
    }

    /// Keys that end in the id of a submission or report which can be found by something beside
    /// its own ids; the rows hold nothing else, and belong to the day of the id.
    ///
    /// These are the account, the recipients and the idempotency key of an app's mail, what the
    /// next hop that took it calls it, whether it is closed, and the accounts whose mails a report
    /// brought bounces of.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        match self {
            Self::Message(message) if message.origin == Origin::App => {
                let id = message.queue_id;
                let recipients = message.envelope.recipients.iter();
                let sent = recipients.map(|to| keys::sent_key(&to.address.canonical(), id));
                let accounts = [Some(message.account.as_str()), None];
                let accounts = accounts.map(|account| keys::account_key(account, id));
                let once = message.control.idempotency.as_ref();
                let once = once.map(|once| keys::idempotency_key(&message.account, &once.key, id));
                sent.chain(accounts).chain(once).collect()
            }
            Self::Attempt(attempt) if attempt.decision == Decision::Relayed => {
                let id = attempt.queue_id;
                let alias = attempt.alias.as_ref().map(|alias| keys::alias_key(alias, id));
                let remote = attempt.remote_queue_id.as_deref();
                let remote = remote.map(|remote| keys::remote_queue_id_key(remote, id));
                alias.into_iter().chain(remote).collect()
            }
            Self::Closed(closed) => vec![keys::closed_key(closed.queue_id)],
            Self::Captured(mark) => {
                let accounts = mark.bounced_accounts.iter();
                accounts.map(|account| keys::account_report_key(account, mark.id)).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The rows that point to it, once its frame with these flags lies at `location`.
    pub(super) fn rows(&self, lsn: u64, flags: u8, location: Location) -> Vec<Row> {
        let place = location.encode();
        let row = |day, key, value: &[u8]| Row { day, key, value: value.to_vec() };
        let told = || row(location.day, keys::feed_key(lsn), &place);
        let named = |day| self.names().into_iter().map(move |key| row(day, key, &[]));
        match self {
            Self::Message(message) => {
                let id = message.queue_id;
                let day = id.time().day();
                let own = [
                    row(day, keys::submission_key(id), &place),
                    row(day, keys::message_id_key(&message.message_id, id), &place),
                ];
                let ended = message.is_all_suppressed().then(told);
                own.into_iter().chain(named(day)).chain(ended).collect()
            }
            Self::Attempt(attempt) => {
                let id = attempt.queue_id;
                let day = id.time().day();
                let own = [row(day, keys::event_key(id, lsn), &place), told()];
                own.into_iter().chain(named(day)).collect()
            }
            Self::Bounce(bounce) => {
                let mut rows = bounce_rows(bounce, lsn, &place);
                // What is read anew has been told; of what matches no mail its report tells.
                if flags & layout::REVISION == 0 && bounce.queue_id.is_some() {
                    rows.push(told());
                }
                rows
            }
            Self::Order(order) => {
                let id = order.queue_id;
                let own = row(id.time().day(), keys::event_key(id, lsn), &place);
                let canceled = (order.action == OrderAction::Cancel).then(told);
                [own].into_iter().chain(canceled).collect()
            }
            Self::Report(report) => {
                let day = report.id.0.time().day();
                vec![
                    row(day, keys::report_key(report.id, ReportPart::Received), &place),
                    row(day, keys::digest_key(&report.digest, report.id), &[]),
                ]
            }
            Self::Captured(mark) => {
                let day = mark.id.0.time().day();
                let key = keys::report_key(mark.id, ReportPart::Captured);
                let mut rows = vec![row(day, key, &place)];
                if !mark.reread {
                    rows.push(told());
                }
                if mark.is_unmatched() {
                    rows.push(row(day, keys::unmatched_key(mark.id), &[]));
                }
                rows.extend(named(day));
                rows
            }
            Self::Closed(closed) => {
                let day = closed.queue_id.time().day();
                named(day).chain([told()]).collect()
            }
            Self::Delivery(ended) => {
                let id = ended.queue_id;
                vec![row(id.time().day(), keys::delivery_key(id, lsn), &place)]
            }
            Self::Notice(_)
            | Self::Standing(..)
            | Self::Cursor(_)
            | Self::Follower(_)
            | Self::Suppression(_) => Vec::new(),
        }
    }
}

impl Frame {
    /// Octets it takes in a segment.
    pub(super) fn size(&self) -> usize {
        layout::frame_size(&self.key, &self.payload)
    }

    /// Drops what does not go into `log/`.
    pub(super) fn keep_log_part(&mut self) {
        self.payload.truncate(self.log_len);
        self.payload.shrink_to_fit();
    }
}

/// Whether two Message-IDs are the same.
pub(super) fn is_same_message(submission: &Submission, message_id: &MessageId) -> bool {
    submission.message_id == *message_id
}

/// The day of a bounce: not before those of the submission and the report it belongs to.
fn bounce_day(bounce: &Bounce) -> u32 {
    let of = |id: QueueId| id.time().day();
    let submission = bounce.queue_id.map_or(0, of);
    let report = bounce.report_id.map_or(0, |ReportId(id)| of(id));
    bounce.date.day().max(submission).max(report)
}

fn bounce_rows(bounce: &Bounce, lsn: u64, place: &[u8]) -> Vec<Row> {
    let row = |day, key| Row { day, key, value: place.to_vec() };
    let id = keys::bounce_id_bytes(bounce);
    let day = bounce_day(bounce);
    let mut rows = vec![
        row(day, keys::recipient_key(&bounce.recipient, &id)),
        row(day, keys::recent_key(&id)),
    ];
    if let Some(queue_id) = bounce.queue_id {
        let day = queue_id.time().day();
        rows.push(row(day, keys::event_key(queue_id, lsn)));
        rows.push(row(day, keys::known_bounce_key(queue_id, &bounce.key)));
    }
    if let Some(report) = bounce.report_id {
        rows.push(row(report.0.time().day(), keys::report_bounce_key(report, lsn)));
    }
    rows
}

/// The submission or report that a notice is about.
fn notice_subject(notice: &NoticeSent) -> QueueId {
    match notice {
        NoticeSent::Failure { queue_id, .. }
        | NoticeSent::Relayed { queue_id, .. }
        | NoticeSent::Delay { queue_id, .. } => *queue_id,
        NoticeSent::Forward { report_id } => report_id.0,
    }
}

fn whole(payload: Vec<u8>) -> (Vec<u8>, usize) {
    let len = payload.len();
    (payload, len)
}
