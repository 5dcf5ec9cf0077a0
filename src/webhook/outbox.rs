//! What of the feed is still to be delivered to one endpoint, and when it is tried.
//!
//! Pure but for `open`: no socket, and `now` is an argument.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use crate::config;
use crate::mail::{QueueId, Timestamp};
use crate::secret;
use crate::store::record::{Delivery, FeedCursor};
use crate::store::{DeliveryEnd, DeliveryEnded, Event, Store};
use crate::view;

/// The outbox of one endpoint.
#[derive(Debug)]
pub(super) struct Outbox {
    /// The name of the endpoint.
    webhook: String,
    cursor: FeedCursor,
    /// Deliveries that have ended since the cursor was written, oldest first.
    ended: Vec<DeliveryEnded>,
    /// Places of the deliveries that are under way.
    running: BTreeSet<u64>,
    policy: Policy,
    /// Until when nothing is sent because the other side wants it so.
    paused_until: Timestamp,
    last_success: Option<Timestamp>,
    last_error: Option<(Timestamp, String)>,
    /// Whether the cursor has changed since it was written.
    is_dirty: bool,
}

/// When a delivery is tried again, and for how long.
#[derive(Clone, Debug)]
struct Policy {
    waits: Vec<Duration>,
    retry_for: Duration,
}

/// Why a delivery was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What went wrong.
    pub(super) error: String,
    /// How long the other side wants everybody to wait.
    pub(super) retry_after: Option<Duration>,
}

/// One request that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// The status of the answer, where there was one.
    pub(super) status: Option<u16>,
    /// How long it took.
    pub(super) took: Duration,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// It is tried again.
    Retry,
    /// It was given up.
    GivenUp,
}

impl Outbox {
    /// Goes on where the endpoint of this name had come to; a new one begins with what happens
    /// from now on. One that was disabled goes on when its settings have changed.
    pub(super) fn open(settings: &config::Webhook, store: &Store) -> Self {
        let follower = format!("webhook {}", settings.name);
        let found = store.feed_cursor(&follower);
        let is_new = found.is_none();
        let new = || FeedCursor { follower, place: store.events_end(), ..FeedCursor::default() };
        let mut outbox = Self::new(found.unwrap_or_else(new), settings);
        outbox.is_dirty = is_new;
        if outbox.cursor.disabled.is_some_and(|(_, digest)| digest != digest_of(settings)) {
            outbox.enable();
        }
        outbox
    }

    fn new(cursor: FeedCursor, settings: &config::Webhook) -> Self {
        Self {
            webhook: settings.name.clone(),
            cursor,
            ended: Vec::new(),
            running: BTreeSet::new(),
            policy: Policy {
                waits: settings.retry_after.iter().map(|wait| wait.duration()).collect(),
                retry_for: settings.retry_for.duration(),
            },
            paused_until: Timestamp::from_millis(0),
            last_success: None,
            last_error: None,
            is_dirty: false,
        }
    }

    pub(super) fn cursor(&self) -> &FeedCursor {
        &self.cursor
    }

    /// Deliveries that have ended and are not on disk yet.
    pub(super) fn ended(&self) -> &[DeliveryEnded] {
        &self.ended
    }

    pub(super) fn last_success(&self) -> Option<Timestamp> {
        self.last_success
    }

    pub(super) fn last_error(&self) -> Option<&(Timestamp, String)> {
        self.last_error.as_ref()
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.cursor.disabled.is_some()
    }

    /// How many more events there is room for.
    pub(super) fn room(&self) -> usize {
        WAITING_MAX.saturating_sub(self.cursor.waiting.len())
    }

    /// Takes over the events that are wanted up to the place `end`.
    pub(super) fn take_over<'a>(
        &mut self,
        wanted: impl Iterator<Item = &'a Event>,
        end: u64,
        has_passed: bool,
        now: Timestamp,
    ) {
        for event in wanted {
            self.put(event, now);
        }
        self.cursor.place = end.max(self.cursor.place);
        // A place that only moved over what is no event is not worth a write.
        self.is_dirty |= has_passed;
    }

    /// Puts an event in, to be tried at once.
    pub(super) fn put(&mut self, event: &Event, now: Timestamp) {
        self.is_dirty = true;
        self.cursor.given_up.retain(|delivery| delivery.place != event.place);
        match self.cursor.waiting.binary_search_by_key(&event.place, |known| known.place) {
            Ok(at) => {
                if let Some(known) = self.cursor.waiting.get_mut(at) {
                    known.next_attempt = now;
                }
            }
            Err(at) => self.cursor.waiting.insert(
                at,
                Delivery {
                    place: event.place,
                    queue_id: event.queue_id(),
                    event_id: view::event_id(event),
                    event: view::event_name(&event.what).unwrap_or_default().to_owned(),
                    attempts: 0,
                    first_attempt: now,
                    next_attempt: now,
                    error: String::new(),
                },
            ),
        }
    }

    /// Deliveries to begin now, which are under way from then on: of each mail the first only.
    pub(super) fn start(&mut self, now: Timestamp) -> Vec<Delivery> {
        if self.is_disabled() || now < self.paused_until {
            return Vec::new();
        }
        let room = self.room_to_start();
        let due: Vec<Delivery> =
            self.firsts().filter(|one| one.next_attempt <= now).take(room).cloned().collect();
        self.running.extend(due.iter().map(|delivery| delivery.place));
        due
    }

    /// When the next delivery is to begin; `None` while there is none, or no room for it.
    pub(super) fn next_start(&self) -> Option<Timestamp> {
        if self.is_disabled() || self.room_to_start() == 0 {
            return None;
        }
        self.firsts().map(|one| one.next_attempt).min().map(|time| time.max(self.paused_until))
    }

    /// The first delivery of each mail, of those that are not under way.
    fn firsts(&self) -> impl Iterator<Item = &Delivery> {
        let mut mails: HashSet<QueueId> = HashSet::new();
        self.cursor.waiting.iter().filter(move |one| {
            let is_first = one.queue_id.is_none_or(|queue_id| mails.insert(queue_id));
            is_first && !self.running.contains(&one.place)
        })
    }

    /// How many more deliveries may begin: each may end in a record, and those that are not
    /// written wait in memory.
    fn room_to_start(&self) -> usize {
        let running = self.running.len();
        let records = ENDED_MAX.saturating_sub(self.ended.len());
        CONCURRENT_MAX.min(records).saturating_sub(running)
    }

    /// Whether records had better be written before more deliveries begin.
    pub(super) fn is_full(&self) -> bool {
        self.ended.len() >= ENDED_MAX.saturating_sub(CONCURRENT_MAX)
    }

    /// A delivery was taken.
    pub(super) fn taken(&mut self, place: u64, request: Request, now: Timestamp) {
        self.last_success = Some(now);
        let waiting = self.cursor.waiting.iter().find(|one| one.place == place).cloned();
        self.done(place);
        if let Some(mut delivery) = waiting {
            delivery.attempts = delivery.attempts.saturating_add(1);
            self.record(&delivery, DeliveryEnd::Taken, Some(request), now);
        }
    }

    /// Keeps for the timeline of its mail how a delivery ended; what is about no mail has none.
    fn record(
        &mut self,
        delivery: &Delivery,
        end: DeliveryEnd,
        request: Option<Request>,
        now: Timestamp,
    ) {
        let Some(queue_id) = delivery.queue_id else { return };
        let millis = |request: Request| u64::try_from(request.took.as_millis());
        self.ended.push(DeliveryEnded {
            queue_id,
            webhook: self.webhook.clone(),
            event_id: view::delivery_id(delivery),
            event: delivery.event.clone(),
            end,
            ended_at: now,
            attempts: delivery.attempts,
            status: request.and_then(|request| request.status),
            took_millis: request.and_then(|request| millis(request).ok()),
            error: delivery.error.clone(),
        });
    }

    /// A delivery has nothing to tell, or was ended in some other way.
    pub(super) fn done(&mut self, place: u64) {
        self.running.remove(&place);
        self.cursor.waiting.retain(|delivery| delivery.place != place);
        self.is_dirty = true;
    }

    /// A delivery was not taken, or could not even be sent.
    pub(super) fn failed(
        &mut self,
        place: u64,
        failure: &Failure,
        request: Option<Request>,
        now: Timestamp,
    ) -> Next {
        self.running.remove(&place);
        self.is_dirty = true;
        self.last_error = Some((now, failure.error.clone()));
        let wanted = failure.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX);
        if failure.retry_after.is_some() {
            self.paused_until = self.paused_until.max(now.plus(wanted));
        }
        let Some(at) = self.cursor.waiting.iter().position(|one| one.place == place) else {
            return Next::Retry;
        };
        let mut delivery = self.cursor.waiting.remove(at);
        if delivery.attempts == 0 {
            delivery.first_attempt = now;
        }
        delivery.attempts = delivery.attempts.saturating_add(1);
        delivery.error = failure.error.chars().take(ERROR_CHARS_MAX).collect();
        delivery.next_attempt = now.plus(self.policy.wait(delivery.attempts).max(wanted));
        if delivery.next_attempt.since(delivery.first_attempt) <= self.policy.retry_for {
            self.cursor.waiting.insert(at, delivery);
            return Next::Retry;
        }
        delivery.next_attempt = now;
        self.record(&delivery, DeliveryEnd::GivenUp, request, now);
        self.cursor.given_up.push(delivery);
        let too_many = self.cursor.given_up.len().saturating_sub(GIVEN_UP_MAX);
        self.cursor.given_up.drain(..too_many);
        Next::GivenUp
    }

    /// The other side says that it is gone: nothing more is sent.
    pub(super) fn disable(&mut self, place: u64, settings: &config::Webhook, now: Timestamp) {
        self.running.remove(&place);
        self.last_error = Some((now, "410 Gone".to_owned()));
        self.cursor.disabled = Some((now, digest_of(settings)));
        self.is_dirty = true;
    }

    /// Goes on; what waits is tried at once.
    pub(super) fn enable(&mut self) {
        self.is_dirty |= self.cursor.disabled.take().is_some();
    }

    /// The cursor, where it has changed since this was called last, and the deliveries that have
    /// ended and are to be written with it.
    pub(super) fn changed(&mut self) -> Option<(FeedCursor, Vec<DeliveryEnded>)> {
        let is_dirty = std::mem::take(&mut self.is_dirty);
        is_dirty.then(|| (self.cursor.clone(), self.ended.clone()))
    }

    /// The store has the oldest `count` of the deliveries that have ended: it shows them, and
    /// writes them if not now then later.
    pub(super) fn handed_over(&mut self, count: usize) {
        self.ended.drain(..count.min(self.ended.len()));
    }

    /// The cursor was not written after all.
    pub(super) fn not_written(&mut self) {
        self.is_dirty = true;
    }
}

impl Policy {
    /// The wait after so many failures, up to a fifth longer, so that those which failed together
    /// do not come back together.
    fn wait(&self, failures: u32) -> Duration {
        let index = usize::try_from(failures.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.waits.get(index).or(self.waits.last()).copied().unwrap_or(WAIT_DEFAULT);
        let span = u64::from(JITTER_PERMILLE_MAX).saturating_add(1);
        let permille = secret::random_u64().checked_rem(span).unwrap_or_default();
        let permille = u32::try_from(permille).unwrap_or_default();
        wait.saturating_add(wait.saturating_mul(permille) / 1000)
    }
}

/// What of the settings decides where a webhook goes: when it changes, one that was disabled goes
/// on.
fn digest_of(settings: &config::Webhook) -> [u8; 16] {
    let text = format!("{}\n{:?}\n{}", settings.url, settings.headers, settings.secret);
    let mut digest = [0; 16];
    digest.iter_mut().zip(secret::sha256_hex(text.as_bytes()).bytes()).for_each(|(to, from)| {
        *to = from;
    });
    digest
}

/// Deliveries to one endpoint that may wait; what lies behind them stays in the feed.
const WAITING_MAX: usize = 500;
/// Deliveries to one endpoint at a time.
const CONCURRENT_MAX: usize = 8;
/// Deliveries to one endpoint that have ended and are not on disk yet; no more begin beyond it.
const ENDED_MAX: usize = 1_000;
/// Deliveries that were given up and are still listed, the newest.
const GIVEN_UP_MAX: usize = 100;
/// Characters of an error that are kept.
const ERROR_CHARS_MAX: usize = 200;
/// The longest wait that the other side may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(86_400);
/// Waits are made up to a fifth longer.
const JITTER_PERMILLE_MAX: u32 = 200;
/// Where the settings name no wait, which they must.
const WAIT_DEFAULT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::bounce::Verdict;
    use crate::mail::Stage;
    use crate::store::Happened;
    use crate::store::record::{Attempt, Decision, ReportCaptured, ReportId};

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);
    const SECOND: Duration = Duration::from_secs(1);
    const ANSWER: Request = Request { status: Some(500), took: Duration::from_millis(7) };

    fn settings(waits: &str, retry_for: &str) -> config::Webhook {
        let text = format!(
            "[[webhook]]\nname = \"a\"\nurl = \"https://a.example/\"\nsecret = \"0123456789abcdef\"\n\
             retry_after = {waits}\nretry_for = \"{retry_for}\"\n"
        );
        let path =
            std::env::temp_dir().join(format!("rebound-outbox-{:016x}", secret::random_u64()));
        std::fs::write(&path, text).unwrap();
        let loaded = config::load(Some(&path), &|_: &str| None).unwrap();
        std::fs::remove_file(&path).unwrap();
        loaded.settings.webhook.into_iter().next().unwrap()
    }

    fn outbox(waits: &str, retry_for: &str) -> Outbox {
        Outbox::new(FeedCursor::default(), &settings(waits, retry_for))
    }

    /// An event of the mail with this number.
    fn event(place: u64, mail: u32) -> Event {
        let attempt = Attempt {
            queue_id: QueueId::new(NOW, mail),
            recipient: 0,
            number: 1,
            started_at: NOW,
            ended_at: NOW,
            stage: Stage::Rcpt,
            remote_mta: None,
            reply: None,
            error: None,
            remote_queue_id: None,
            alias: None,
            tls: None,
            decision: Decision::Relayed,
            notice_owed: false,
        };
        Event { place, what: Happened::Attempt(Arc::new(attempt)) }
    }

    fn filled(outbox: &mut Outbox, events: &[(u64, u32)]) {
        let events: Vec<Event> = events.iter().map(|(place, mail)| event(*place, *mail)).collect();
        let end = events.last().map_or(0, |event| event.place);
        outbox.take_over(events.iter(), end, true, NOW);
    }

    fn started(outbox: &mut Outbox, now: Timestamp) -> Vec<u64> {
        outbox.start(now).iter().map(|delivery| delivery.place).collect()
    }

    fn failure(retry_after: Option<Duration>) -> Failure {
        Failure { error: "500".to_owned(), retry_after }
    }

    #[test]
    fn of_each_mail_the_first_is_sent_and_others_overtake_one_that_fails() {
        let mut outbox = outbox("[\"10s\"]", "1h");
        filled(&mut outbox, &[(1, 7), (2, 7), (3, 8), (4, 8), (5, 9)]);
        assert_eq!(started(&mut outbox, NOW), [1, 3, 5]);
        assert_eq!(started(&mut outbox, NOW), [0; 0], "they are under way");
        outbox.taken(3, ANSWER, NOW);
        assert_eq!(outbox.failed(1, &failure(None), Some(ANSWER), NOW), Next::Retry);
        assert_eq!(started(&mut outbox, NOW), [4], "2 waits for 1");
        let next = outbox.next_start().unwrap();
        assert!(next >= NOW.plus(10 * SECOND) && next <= NOW.plus(12 * SECOND), "{next}");
        assert_eq!(started(&mut outbox, next), [1]);
        outbox.taken(1, ANSWER, next);
        assert_eq!(started(&mut outbox, next), [2]);
    }

    #[test]
    fn a_delivery_is_given_up_when_its_time_is_over_and_the_next_of_its_mail_follows() {
        let mut outbox = outbox("[\"10s\", \"100s\"]", "60s");
        filled(&mut outbox, &[(1, 7), (2, 7)]);
        assert_eq!(started(&mut outbox, NOW), [1]);
        assert_eq!(outbox.failed(1, &failure(None), Some(ANSWER), NOW), Next::Retry);
        let later = NOW.plus(20 * SECOND);
        assert_eq!(started(&mut outbox, later), [1]);
        assert_eq!(outbox.failed(1, &failure(None), Some(ANSWER), later), Next::GivenUp);
        assert_eq!(started(&mut outbox, later), [2]);
        let given_up = &outbox.cursor().given_up;
        assert_eq!((given_up.len(), given_up[0].attempts), (1, 2));
        assert_eq!(given_up[0].error, "500");
        // It can be had once more.
        outbox.put(&event(1, 7), later);
        assert!(outbox.cursor().given_up.is_empty());
        outbox.taken(2, ANSWER, later);
        assert_eq!(started(&mut outbox, later), [1]);
    }

    #[test]
    fn who_is_asked_to_wait_sends_nothing_and_no_longer_than_a_day() {
        let mut outbox = outbox("[\"1s\"]", "3d");
        filled(&mut outbox, &[(1, 7), (2, 8)]);
        assert_eq!(started(&mut outbox, NOW), [1, 2]);
        outbox.failed(2, &failure(None), Some(ANSWER), NOW);
        outbox.failed(1, &failure(Some(30 * SECOND)), Some(ANSWER), NOW);
        assert_eq!(started(&mut outbox, NOW.plus(29 * SECOND)), [0; 0]);
        assert_eq!(outbox.next_start(), Some(NOW.plus(30 * SECOND)));
        assert_eq!(started(&mut outbox, NOW.plus(30 * SECOND)), [1, 2]);
        outbox.failed(1, &failure(Some(Duration::from_secs(10 * 86_400))), Some(ANSWER), NOW);
        assert_eq!(outbox.paused_until, NOW.plus(Duration::from_secs(86_400)));
    }

    #[test]
    fn one_that_is_gone_is_sent_nothing_until_it_is_enabled_and_loses_nothing() {
        let mut outbox = outbox("[\"1s\"]", "1h");
        filled(&mut outbox, &[(1, 7), (2, 8)]);
        assert_eq!(started(&mut outbox, NOW), [1, 2]);
        outbox.disable(1, &settings("[\"1s\"]", "1h"), NOW);
        outbox.failed(2, &failure(None), Some(ANSWER), NOW);
        let later = NOW.plus(60 * SECOND);
        assert_eq!((started(&mut outbox, later), outbox.next_start()), (vec![], None));
        outbox.enable();
        assert_eq!(started(&mut outbox, later), [1, 2]);
    }

    #[test]
    fn what_waits_is_bounded_and_only_what_matters_is_written() {
        let mut outbox = outbox("[\"1s\"]", "1h");
        let many: Vec<(u64, u32)> = (1..=500).map(|number| (u64::from(number), number)).collect();
        filled(&mut outbox, &many);
        assert_eq!(outbox.room(), 0);
        assert_eq!(started(&mut outbox, NOW).len(), CONCURRENT_MAX);
        assert_eq!(outbox.changed().unwrap().0.waiting.len(), 500);
        assert_eq!(outbox.changed(), None);
        outbox.take_over(std::iter::empty(), 900, false, NOW);
        assert_eq!(outbox.changed(), None, "no event lay there");
        outbox.done(1);
        assert_eq!(outbox.changed().unwrap().0.place, 900);
    }

    #[test]
    fn how_a_delivery_ended_is_kept_until_the_store_has_it() {
        let mut outbox = outbox("[\"10s\"]", "30s");
        filled(&mut outbox, &[(1, 7), (2, 7)]);
        let mut now = NOW;
        for _ in 0..2 {
            assert_eq!(started(&mut outbox, now), [1]);
            outbox.failed(1, &failure(None), Some(ANSWER), now);
            assert_eq!(outbox.ended(), [], "it is tried again");
            now = outbox.next_start().unwrap();
        }
        let taken = Request { status: Some(204), took: 3 * SECOND };
        outbox.taken(1, taken, now);
        outbox.failed(2, &failure(None), Some(ANSWER), now);
        let late = now.plus(60 * SECOND);
        outbox.failed(2, &failure(None), None, late);
        let first = DeliveryEnded {
            queue_id: QueueId::new(NOW, 7),
            webhook: "a".to_owned(),
            event_id: "0183cc1aa1d400000001".to_owned(),
            event: "messageSent".to_owned(),
            end: DeliveryEnd::Taken,
            ended_at: now,
            attempts: 3,
            status: Some(204),
            took_millis: Some(3000),
            error: "500".to_owned(),
        };
        let second = DeliveryEnded {
            event_id: "0183cc1aa1d400000002".to_owned(),
            end: DeliveryEnd::GivenUp,
            ended_at: late,
            attempts: 2,
            status: None,
            took_millis: None,
            ..first.clone()
        };
        let (_, written) = outbox.changed().unwrap();
        assert_eq!(written, [first, second.clone()]);
        assert_eq!(outbox.ended().len(), 2, "they are seen while they are written");
        outbox.handed_over(1);
        assert_eq!(outbox.ended(), [second]);
    }

    #[test]
    fn what_is_about_no_mail_or_has_nothing_to_tell_leaves_no_record() {
        let mut outbox = outbox("[\"10s\"]", "15s");
        filled(&mut outbox, &[(1, 7)]);
        outbox.done(1);
        let unmatched = ReportCaptured {
            id: ReportId(QueueId::new(NOW, 1)),
            captured_at: NOW,
            verdict: Verdict::Bounce,
            matched: Vec::new(),
            bounced_accounts: BTreeSet::new(),
            own_notice: false,
            forward_to: None,
            reread: false,
        };
        outbox.put(&Event { place: 2, what: Happened::Report(Arc::new(unmatched)) }, NOW);
        assert_eq!(outbox.cursor().waiting[0].event, "bounceUnmatched");
        outbox.taken(2, ANSWER, NOW);
        assert_eq!(outbox.ended(), []);
    }

    #[test]
    fn while_records_cannot_be_written_no_more_of_them_are_made() {
        let mut outbox = outbox("[\"1s\"]", "1h");
        for place in 1.. {
            filled(&mut outbox, &[(place, 7)]);
            let Some(place) = started(&mut outbox, NOW).first().copied() else { break };
            outbox.taken(place, ANSWER, NOW);
        }
        assert_eq!((outbox.ended().len(), outbox.next_start()), (ENDED_MAX, None));
        assert!(outbox.is_full());
        outbox.handed_over(ENDED_MAX);
        assert!(!outbox.is_full());
        assert_eq!(started(&mut outbox, NOW).len(), 1);
    }
}
