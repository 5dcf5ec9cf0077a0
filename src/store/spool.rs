//! The spool: which segments exist, what in them is still needed, and where the bodies are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use super::entry::Entry;
use super::journal::Segment;
use super::layout;
use super::live::Ended;
use super::record::{CursorKey, NoticeSent, ReportId};
use super::suppressions::SuppressionKey;
use crate::clock::Stopwatch;
use crate::mail::{QueueId, Timestamp};

/// What keeps a segment from being recycled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Pin {
    /// A mail in the queue.
    Mail(QueueId),
    /// A report that is not captured.
    Report(ReportId),
    /// A captured report that is still to be forwarded.
    Forward(ReportId),
    /// How far a folder of a mailbox has been read, or a follower of the feed has come.
    Cursor(CursorKey),
    /// What speaks against writing to an address.
    Suppression(SuppressionKey),
}

/// Where the frame behind a pin lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// The segment.
    pub(super) segment: u32,
    /// The offset of the frame.
    pub(super) offset: u64,
    /// Octets of the frame.
    pub(super) size: usize,
    /// Whether the body of a mail is in a file of its own.
    pub(super) body: BodyPlace,
    /// When the mail ended, where its body is still to be kept.
    pub(super) ended_at: Option<Timestamp>,
}

/// Where the body of a mail is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyPlace {
    /// In its frame.
    Here,
    /// In `spool/big`.
    InFile,
}

/// The segments, and what pins them.
#[derive(Debug, Default)]
pub(super) struct Spool {
    segments: BTreeMap<u32, Held>,
    places: HashMap<Pin, Place>,
    free: Vec<PathBuf>,
}

#[derive(Debug)]
struct Held {
    segment: Arc<Segment>,
    used_bytes: u64,
    live_bytes: u64,
    pins: BTreeSet<Pin>,
    age: Stopwatch,
}

impl Spool {
    /// Adds a segment.
    pub(super) fn add(&mut self, segment: Arc<Segment>, used_bytes: u64) {
        let number = segment.number;
        let age = Stopwatch::start();
        let held = Held { segment, used_bytes, live_bytes: 0, pins: BTreeSet::new(), age };
        self.segments.insert(number, held);
    }

    /// Notes up to where a segment has been written.
    pub(super) fn grown(&mut self, number: u32, used_bytes: u64) {
        if let Some(held) = self.segments.get_mut(&number) {
            held.used_bytes = used_bytes;
        }
    }

    /// Follows an entry that is on disk: what it pins, and what it lets go.
    pub(super) fn settle(&mut self, entry: &Entry, place: Place) {
        match entry {
            Entry::Message(message) => self.pin(Pin::Mail(message.queue_id), place),
            Entry::Report(report) => self.pin(Pin::Report(report.id), place),
            Entry::Captured(mark) => {
                self.release(Pin::Report(mark.id));
                if mark.owes_forward() {
                    self.pin(Pin::Forward(mark.id), place);
                }
            }
            Entry::Notice(notice) => {
                if let NoticeSent::Forward { report_id } = notice.as_ref() {
                    self.release(Pin::Forward(*report_id));
                }
            }
            Entry::Cursor(cursor) => self.pin(Pin::Cursor(cursor.key()), place),
            Entry::Suppression(entry) if entry.is_gone => {
                self.release(Pin::Suppression(entry.key()));
            }
            Entry::Suppression(entry) => self.pin(Pin::Suppression(entry.key()), place),
            Entry::Follower(cursor) => self.pin(Pin::Cursor(cursor.key()), place),
            Entry::Attempt(_)
            | Entry::Bounce(_)
            | Entry::Standing(..)
            | Entry::Order(_)
            | Entry::Delivery(_)
            | Entry::Closed(_) => {}
        }
    }

    /// Lets a frame go; where it was.
    pub(super) fn release(&mut self, pin: Pin) -> Option<Place> {
        let place = self.places.remove(&pin)?;
        if let Some(held) = self.segments.get_mut(&place.segment) {
            held.pins.remove(&pin);
            held.live_bytes = held.live_bytes.saturating_sub(octets(place.size));
        }
        Some(place)
    }

    /// Notes that a mail has ended; its frame stays until its body is kept.
    pub(super) fn end(&mut self, ended: Ended) {
        if let Some(place) = self.places.get_mut(&Pin::Mail(ended.queue_id)) {
            place.ended_at = Some(ended.at);
        }
    }

    /// Lets the frame of a mail go; whether its body has a file, which is to go as well.
    pub(super) fn release_mail(&mut self, queue_id: QueueId) -> bool {
        self.release(Pin::Mail(queue_id)).is_some_and(|place| place.body == BodyPlace::InFile)
    }

    /// Where a frame lies, and the open segment, which is not recycled while this is held.
    pub(super) fn find(&self, pin: Pin) -> Option<(Arc<Segment>, Place)> {
        let place = self.places.get(&pin)?;
        let held = self.segments.get(&place.segment)?;
        Some((Arc::clone(&held.segment), *place))
    }

    /// The segments from this number on.
    pub(super) fn segments_from(&self, number: u32) -> Vec<Arc<Segment>> {
        self.segments.range(number..).map(|(_, held)| Arc::clone(&held.segment)).collect()
    }

    /// How many segments there are.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// A recycled file for the next segment.
    pub(super) fn take_free(&mut self) -> Option<PathBuf> {
        self.free.pop()
    }

    /// Keeps a file for a later segment; whether there was room for it.
    pub(super) fn keep_free(&mut self, path: PathBuf) -> bool {
        let has_room = self.free.len() < FREE_SEGMENTS_MAX;
        if has_room {
            self.free.push(path);
        }
        has_room
    }

    /// Takes out the oldest segment if it lies before `before`, nothing pins it and nobody reads
    /// it. Only the oldest may go: what happened to a mail lies in segments behind its own.
    pub(super) fn take_recyclable(&mut self, before: u32) -> Option<PathBuf> {
        let mut oldest = self.segments.first_entry()?;
        let held = oldest.get_mut();
        let is_unused = held.pins.is_empty() && Arc::get_mut(&mut held.segment).is_some();
        if *oldest.key() >= before || !is_unused {
            return None;
        }
        Some(oldest.remove().segment.path.clone())
    }

    /// What is to be written again so that the oldest segment can go: at most `bytes_max` of it.
    ///
    /// A segment is worth it when less than a quarter of it is live, or when it is older than an
    /// hour and at least half of the spool is dead behind it.
    pub(super) fn worth_copying(
        &self,
        before: u32,
        age_secs_max: u64,
        bytes_max: usize,
    ) -> Vec<(Pin, Arc<Segment>, Place)> {
        let Some((number, held)) = self.segments.first_key_value() else { return Vec::new() };
        if *number >= before || held.pins.is_empty() {
            return Vec::new();
        }
        let is_sparse = held.live_bytes.saturating_mul(4) < held.used_bytes;
        let used: u64 = self.segments.values().map(|held| held.used_bytes).sum();
        let live: u64 = self.segments.values().map(|held| held.live_bytes).sum();
        let is_old = held.age.elapsed().as_secs() >= age_secs_max && live.saturating_mul(2) <= used;
        if !is_sparse && !is_old {
            return Vec::new();
        }
        let mut chosen = Vec::new();
        let mut bytes: usize = 0;
        for pin in &held.pins {
            let Some(place) = self.places.get(pin) else { continue };
            bytes = bytes.saturating_add(place.size);
            if bytes > bytes_max && !chosen.is_empty() {
                break;
            }
            chosen.push((*pin, Arc::clone(&held.segment), *place));
        }
        chosen
    }

    fn pin(&mut self, pin: Pin, place: Place) {
        self.release(pin);
        if let Some(held) = self.segments.get_mut(&place.segment) {
            held.pins.insert(pin);
            held.live_bytes = held.live_bytes.saturating_add(octets(place.size));
            self.places.insert(pin, place);
        }
    }
}

impl Place {
    /// The place of a frame with this payload.
    pub(super) fn new(
        segment: u32,
        offset: u64,
        size: usize,
        entry: &Entry,
        payload: &[u8],
    ) -> Self {
        let in_file = matches!(entry, Entry::Message(_))
            && layout::decode_message(payload)
                .is_some_and(|(_, place, _)| place == layout::BODY_IN_FILE);
        let body = if in_file { BodyPlace::InFile } else { BodyPlace::Here };
        Self { segment, offset, size, body, ended_at: None }
    }
}

fn octets(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}

/// Recycled files that are kept for later segments.
const FREE_SEGMENTS_MAX: usize = 2;
