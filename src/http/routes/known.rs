//! Bounces of any mails and reports in one answer, each beside what it is about.

use std::collections::HashMap;

use serde_json::Value;

use super::ApiError;
use crate::bounce;
use crate::mail::QueueId;
use crate::store::Store;
use crate::store::record::{Bounce, ReportId, Submission};
use crate::view;

/// The submissions and reports that the bounces of one answer have named so far: each is read
/// once, however many bounces it has.
pub(super) struct Known<'a> {
    store: &'a Store,
    mails: HashMap<QueueId, Option<(Submission, Headers)>>,
    reports: HashMap<ReportId, Headers>,
    /// Octets of headers that the answer may still repeat.
    room_bytes: usize,
}

/// The value of `messageHeaders`, as often as there is room for it.
struct Headers {
    value: Option<Value>,
    bytes: usize,
}

impl<'a> Known<'a> {
    /// Nothing has been named yet.
    pub(super) fn new(store: &'a Store) -> Self {
        let room_bytes = view::HEADERS_BYTES_MAX;
        Self { store, mails: HashMap::new(), reports: HashMap::new(), room_bytes }
    }

    /// The headers that a report returned, where somebody has read it already.
    pub(super) fn has_returned(&mut self, report: ReportId, headers: Option<Value>) {
        self.reports.insert(report, Headers::new(headers));
    }

    /// A bounce with its submission and the headers of that, else with those that came back.
    pub(super) fn show(&mut self, bounce: &Bounce) -> Result<Value, ApiError> {
        if let Some(queue_id) = bounce.queue_id {
            self.mail(queue_id)?;
            if let Some(Some((mail, headers))) = self.mails.get(&queue_id) {
                return Ok(view::bounce(bounce, Some(mail), headers.take(&mut self.room_bytes)));
            }
        }
        let Some(report_id) = bounce.report_id else { return Ok(view::bounce(bounce, None, None)) };
        if !self.reports.contains_key(&report_id) {
            let headers = if self.has_room() { self.returned(report_id)? } else { None };
            self.reports.insert(report_id, Headers::new(headers));
        }
        let headers = self.reports.get(&report_id);
        let headers = headers.and_then(|headers| headers.take(&mut self.room_bytes));
        Ok(view::bounce(bounce, None, headers))
    }

    /// A mail that is named, read once; `None` where it is no longer there.
    fn mail(&mut self, queue_id: QueueId) -> Result<&Option<(Submission, Headers)>, ApiError> {
        if !self.mails.contains_key(&queue_id) {
            let mail = self.store.submission(queue_id)?.ok();
            let with_headers = |mail: Submission| {
                let headers = self.has_room().then(|| view::message_headers(&mail));
                (mail, Headers::new(headers))
            };
            self.mails.insert(queue_id, mail.map(with_headers));
        }
        Ok(self.mails.get(&queue_id).unwrap_or(&None))
    }

    fn has_room(&self) -> bool {
        self.room_bytes > 0
    }

    fn returned(&self, report: ReportId) -> Result<Option<Value>, ApiError> {
        let record = self.store.report(report)?.ok();
        let small = record.filter(|record| record.received.raw.len() <= REPORT_BYTES_MAX);
        let facts = small.map(|record| bounce::read(&record.received.raw));
        Ok(facts.and_then(|facts| view::returned_headers(&facts)))
    }
}

impl Headers {
    fn new(value: Option<Value>) -> Self {
        let bytes = value.as_ref().map_or(0, |value| value.to_string().len());
        Self { value, bytes }
    }

    /// The headers once more; nothing from where they would not fit on.
    fn take(&self, room_bytes: &mut usize) -> Option<&Value> {
        let left = room_bytes.checked_sub(self.bytes);
        *room_bytes = left.unwrap_or_default();
        left.and(self.value.as_ref())
    }
}

/// Octets of a report that is read again for the headers in a list; larger ones are left out
/// there and stand in `/v1/reports/{id}`.
const REPORT_BYTES_MAX: usize = 262_144;
