//! Bodies of mails that have ended: how long they are there, and what may go wrong with them.

use std::fs;

use super::*;
use crate::store::disk::{Disk, Faults};
use crate::store::live::Ended;
use crate::store::record::{NoticeSent, Order, OrderAction};

const HOUR: Duration = Duration::from_hours(1);
const SMALL: &[u8] = b"Subject: a\r\n\r\nsmall\r\n";

/// A body with a file of its own, no stretch of which is like another.
fn large() -> Vec<u8> {
    (0_u32..75_000).flat_map(u32::to_be_bytes).collect()
}

/// Where bodies are kept for a day, unless `keep` says otherwise.
struct Place {
    dir: TempDir,
    clock: Clock,
    keep: Duration,
    disk: Disk,
}

impl Place {
    fn new() -> Self {
        Self { dir: TempDir::new(), clock: clock(), keep: DAY, disk: Disk::default() }
    }

    fn open(&self) -> Store {
        let options = Options { bodies: self.keep, ..self.dir.options() };
        let tuning = Tuning { disk: self.disk.clone(), ..tuning() };
        Store::open_tuned(&options, self.clock.clone(), tuning).unwrap()
    }

    /// The same, but nothing is put behind a checkpoint.
    fn open_without_checkpoints(&self) -> Store {
        let options = Options { bodies: self.keep, ..self.dir.options() };
        let tuning = Tuning { checkpoint_every: DAY, ..tuning() };
        Store::open_tuned(&options, self.clock.clone(), tuning).unwrap()
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.dir.path().join(path)
    }

    /// The files of kept bodies.
    fn files(&self) -> Vec<std::path::PathBuf> {
        let mut found = Vec::new();
        let mut dirs = vec![self.path("bodies")];
        while let Some(dir) = dirs.pop() {
            let Ok(entries) = fs::read_dir(dir) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() { dirs.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }

    /// Waits until no file is left in `spool/big`.
    async fn has_no_large_body(&self) {
        let big = self.path("spool/big");
        until("it is removed", || fs::read_dir(&big).unwrap().count() == 0).await;
    }

    /// The names of the directories of days.
    fn days(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("bodies")).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

/// Accepts a mail that is relayed now, and waits until its body is where it is kept.
async fn ended(store: &Store, clock: &Clock, octets: &[u8]) -> QueueId {
    let id = accepted(store, &["to@example.test"], octets).await;
    let relayed = Attempt { ended_at: clock.now(), ..attempt(id, 0, 1, Decision::Relayed) };
    committed(store, attempts(vec![relayed])).await;
    settled(store, id).await;
    id
}

/// Waits until nothing of a mail is in the spool.
async fn settled(store: &Store, id: QueueId) {
    let is_pinned = || store.shared.core().spool.find(crate::store::spool::Pin::Mail(id)).is_some();
    until("it has left the spool", || !is_pinned()).await;
}

async fn is_gone(store: &Store, id: QueueId) -> bool {
    match read_body(store, id).await {
        Ok(_) => false,
        Err(error) => {
            assert!(error.is_not_found(), "{error}");
            true
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_there_for_its_time_and_not_a_moment_longer() {
    let place = Place::new();
    let mut store = place.open();
    place.clock.advance(HOUR * 2);
    let large = large();
    let ids = [ended(&store, &place.clock, SMALL).await, ended(&store, &place.clock, &large).await];
    assert_eq!(place.days(), [place.clock.now().day().to_string()]);
    assert_eq!(fs::read_dir(place.path("spool/big")).unwrap().count(), 0);
    place.clock.advance(DAY - Duration::from_millis(1));
    store.prune().unwrap();
    for restart in ["running", "closed", "killed"] {
        if restart == "closed" {
            store.close().await;
        }
        drop(store);
        store = place.open();
        assert_eq!(read_body(&store, ids[0]).await.unwrap(), SMALL, "{restart}");
        assert!(read_body(&store, ids[1]).await.unwrap() == large, "{restart}");
    }
    place.clock.advance(Duration::from_millis(1));
    for id in ids {
        assert!(is_gone(&store, id).await);
        assert!(store.message(id).unwrap().is_ok(), "only the body goes");
    }
    place.clock.advance(DAY);
    store.prune().unwrap();
    assert_eq!(place.days(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_setting_a_body_goes_with_the_end_of_its_mail() {
    let place = Place { keep: Duration::ZERO, ..Place::new() };
    let store = place.open();
    let ids =
        [ended(&store, &place.clock, SMALL).await, ended(&store, &place.clock, &large()).await];
    for id in ids {
        assert!(is_gone(&store, id).await);
    }
    assert!(!place.path("bodies").exists());
    place.has_no_large_body().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_time_counts_from_the_end_of_the_last_recipient_whatever_ended_it() {
    let place = Place::new();
    let store = place.open();
    for (what, is_told_later) in
        [("attempt", false), ("bounce", false), ("order", false), ("attempt", true)]
    {
        let id = accepted(&store, &["a@b.test", "to@example.test"], SMALL).await;
        let at = |recipient| Attempt {
            ended_at: place.clock.now(),
            notice_owed: is_told_later,
            ..attempt(id, recipient, 1, Decision::Failed)
        };
        committed(&store, attempts(vec![at(0)])).await;
        place.clock.advance(HOUR);
        let now = place.clock.now();
        match what {
            "attempt" => committed(&store, attempts(vec![at(1)])).await,
            "bounce" => {
                let bounce = Bounce {
                    recipient_index: Some(1),
                    report_id: Some(ReportId(id)),
                    ..bounce(Some(id), 1, now)
                };
                committed(&store, Batch { bounces: vec![bounce], ..Batch::default() }).await;
            }
            _ => {
                let order = Order { queue_id: id, at: now, action: OrderAction::Cancel };
                committed(&store, Batch { orders: vec![order], ..Batch::default() }).await;
            }
        }
        if is_told_later {
            place.clock.advance(HOUR);
            let notice = NoticeSent::Failure { queue_id: id, recipients: vec![0, 1] };
            committed(&store, Batch { notices: vec![notice], ..Batch::default() }).await;
            place.clock.advance(DAY - HOUR - Duration::from_millis(1));
        } else {
            place.clock.advance(DAY - Duration::from_millis(1));
        }
        settled(&store, id).await;
        assert_eq!(read_body(&store, id).await.unwrap(), SMALL, "{what} {is_told_later}");
        place.clock.advance(Duration::from_millis(1));
        assert!(is_gone(&store, id).await, "{what} {is_told_later}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn when_it_ended_is_known_after_its_segment_has_gone() {
    let place = Place::new();
    let options = Options { bodies: place.keep, ..place.dir.options() };
    let tuning = Tuning { segment_bytes: 65_536, copy_after_secs: 0, ..tuning() };
    let open = || Store::open_tuned(&options, place.clock.clone(), tuning.clone()).unwrap();
    let store = open();
    let id = accepted(&store, &["to@example.test"], SMALL).await;
    place.clock.advance(HOUR);
    let order = Order { queue_id: id, at: place.clock.now(), action: OrderAction::Cancel };
    let failed = Attempt { notice_owed: true, ..attempt(id, 0, 1, Decision::Failed) };
    committed(&store, attempts(vec![failed])).await;
    committed(&store, Batch { orders: vec![order], ..Batch::default() }).await;
    for _ in 0..40 {
        ended(&store, &place.clock, &[b'x'; 4096]).await;
    }
    let first = place.path("spool/00000001.seg");
    until("the first segment is gone", || !first.exists()).await;
    drop(store);
    let store = open();
    let notice = NoticeSent::Failure { queue_id: id, recipients: vec![0] };
    committed(&store, Batch { notices: vec![notice], ..Batch::default() }).await;
    settled(&store, id).await;
    place.clock.advance(DAY - Duration::from_millis(1));
    assert_eq!(read_body(&store, id).await.unwrap(), SMALL);
    place.clock.advance(Duration::from_millis(1));
    assert!(is_gone(&store, id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_we_write_ourselves_is_not_kept() {
    let place = Place::new();
    let store = place.open();
    let id = store.new_queue_id();
    let notice = Submission { origin: Origin::Notice, ..submission(id, &["to@example.test"]) };
    let body = body(&store, id, SMALL).await;
    store.accept(notice, body).unwrap().synced().await.unwrap();
    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
    settled(&store, id).await;
    assert!(is_gone(&store, id).await);
    assert!(place.files().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_between_the_end_and_the_keeping_is_made_up_for() {
    let large = large();
    for (step, octets) in ["nothing", "part", "head", "all"]
        .into_iter()
        .flat_map(|step| [(step, SMALL), (step, large.as_slice())])
    {
        let place = Place::new();
        let store = place.open_without_checkpoints();
        let id = accepted(&store, &["to@example.test"], octets).await;
        let spooled = place.path("spool/big").join(id.to_string());
        let in_spool = fs::read(&spooled).ok();
        committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
        settled(&store, id).await;
        let kept = place.files();
        drop(store);
        if let Some(octets) = in_spool.filter(|_| step != "all") {
            fs::write(&spooled, octets).unwrap();
            fs::remove_file(&kept[1]).unwrap();
        }
        match step {
            "nothing" => fs::remove_dir_all(place.path("bodies")).unwrap(),
            "part" => {
                let file = fs::File::options().write(true).open(&kept[0]).unwrap();
                file.set_len(30).unwrap();
            }
            _ => {}
        }
        let name = format!("{step}, {} octets", octets.len());
        for start in 1..=2 {
            let store = place.open_without_checkpoints();
            assert!(read_body(&store, id).await.unwrap() == octets, "{name}, start {start}");
            assert_eq!(place.files(), kept, "{name}");
            assert!(!spooled.exists(), "{name}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_body_counts_as_gone_and_is_never_shown_in_part() {
    let large = large();
    for octets in [SMALL, large.as_slice()] {
        let place = Place::new();
        let store = place.open();
        let id = ended(&store, &place.clock, octets).await;
        let other = ended(&store, &place.clock, octets).await;
        let files = place.files();
        let mut of_mail: Vec<_> =
            files.iter().filter(|path| path.to_string_lossy().contains(&id.to_string())).collect();
        let with_octets = of_mail.pop().unwrap();
        let good = fs::read(with_octets).unwrap();
        let flipped = |at: usize| {
            let mut bad = good.clone();
            bad[at] ^= 1;
            bad
        };
        let mut longer = good.clone();
        longer.push(b'x');
        let mut damages = vec![good[..good.len() - 1].to_vec(), longer, Vec::new()];
        damages.extend([0, 13, 30, good.len() / 2, good.len() - 1].map(flipped));
        let size = octets.len();
        for (number, damaged) in damages.iter().enumerate() {
            fs::write(with_octets, damaged).unwrap();
            assert!(is_gone(&store, id).await, "damage {number} of {size} octets");
        }
        fs::write(with_octets, &good).unwrap();
        assert!(read_body(&store, id).await.unwrap() == octets);
        // What belongs to another mail.
        let path_of = |id: QueueId| with_octets.with_file_name(id.to_string());
        let head = fs::read(path_of(id)).unwrap();
        fs::copy(path_of(other), path_of(id)).unwrap();
        assert!(is_gone(&store, id).await, "another's, {size} octets");
        fs::write(path_of(id), head).unwrap();
        fs::remove_file(with_octets).unwrap();
        assert!(is_gone(&store, id).await, "missing, {size} octets");
        assert!(read_body(&store, other).await.unwrap() == octets);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_setting_holds_from_the_next_start_on_for_what_is_kept() {
    let mut place = Place::new();
    let store = place.open();
    let id = ended(&store, &place.clock, SMALL).await;
    store.close().await;
    drop(store);
    place.clock.advance(HOUR * 3);
    for (keep, is_there) in [(HOUR * 3, false), (HOUR * 4, true), (DAY * 3, true), (HOUR, false)] {
        place.keep = keep;
        let store = place.open();
        store.prune().unwrap();
        assert_eq!(is_gone(&store, id).await, !is_there, "{keep:?}");
        store.close().await;
    }
    place.keep = Duration::ZERO;
    let store = place.open();
    assert!(is_gone(&store, id).await);
    assert_eq!(place.files().len(), 1, "it goes at the next pass");
    store.prune().unwrap();
    assert_eq!(place.days(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_body_outlives_the_record_of_its_mail() {
    let mut place = Place::new();
    place.keep = DAY * 90;
    let store = place.open();
    let old = accepted(&store, &["to@example.test"], SMALL).await;
    place.clock.advance(DAY * 5);
    let relayed = Attempt { ended_at: place.clock.now(), ..attempt(old, 0, 1, Decision::Relayed) };
    committed(&store, attempts(vec![relayed])).await;
    let new = ended(&store, &place.clock, SMALL).await;
    settled(&store, old).await;
    place.clock.advance(DAY * 86);
    store.prune().unwrap();
    assert!(store.message(old).unwrap().is_err());
    assert!(is_gone(&store, old).await);
    assert_eq!(place.files().len(), 1);
    assert_eq!(read_body(&store, new).await.unwrap(), SMALL);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_goes_back_neither_loses_a_body_nor_keeps_it_for_ever() {
    let mut place = Place::new();
    let now = place.clock.now();
    place.clock.advance(DAY * 1_000);
    let store = place.open();
    let id = ended(&store, &place.clock, SMALL).await;
    store.close().await;
    drop(store);
    let ahead = std::mem::replace(&mut place.clock, Clock::manual(now));
    let store = place.open();
    store.prune().unwrap();
    assert_eq!(read_body(&store, id).await.unwrap(), SMALL);
    assert_eq!(place.days(), [format!("{}.{}", ahead.now().day(), now.day())]);
    store.close().await;
    drop(store);
    // It had been right before.
    let right = std::mem::replace(&mut place.clock, ahead);
    let store = place.open();
    store.prune().unwrap();
    assert_eq!(read_body(&store, id).await.unwrap(), SMALL);
    store.close().await;
    drop(store);
    // It is right now.
    place.clock = right;
    let store = place.open();
    place.clock.advance(DAY);
    store.prune().unwrap();
    assert_eq!(read_body(&store, id).await.unwrap(), SMALL);
    place.clock.advance(DAY);
    assert!(is_gone(&store, id).await);
    store.prune().unwrap();
    assert_eq!(place.days(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_is_noted_for_later_than_now_counts_as_now() {
    let place = Place::new();
    let store = place.open();
    let id = accepted(&store, &["to@example.test"], SMALL).await;
    let ahead = place.clock.now().plus(DAY * 1_000);
    let relayed = Attempt { ended_at: ahead, ..attempt(id, 0, 1, Decision::Relayed) };
    committed(&store, attempts(vec![relayed])).await;
    settled(&store, id).await;
    assert_eq!(place.days(), [place.clock.now().day().to_string()]);
    assert_eq!(read_body(&store, id).await.unwrap(), SMALL);
    place.clock.advance(DAY);
    assert!(is_gone(&store, id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_not_shown_longer_because_it_is_still_in_the_spool() {
    let place = Place::new();
    let store = place.open();
    let id = accepted(&store, &["to@example.test"], SMALL).await;
    // As when it has ended and nothing can be moved into the log.
    store.shared.core().spool.end(Ended { queue_id: id, at: place.clock.now() });
    place.clock.advance(DAY - Duration::from_millis(1));
    assert_eq!(read_body(&store, id).await.unwrap(), SMALL);
    place.clock.advance(Duration::from_millis(1));
    assert!(is_gone(&store, id).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_kept_is_gone_and_its_mail_has_ended_all_the_same() {
    let large = large();
    for what in ["no room", "no directory"] {
        let place = Place::new();
        let store = place.open();
        let ids = [
            accepted(&store, &["to@example.test"], SMALL).await,
            accepted(&store, &["to@example.test"], &large).await,
        ];
        match what {
            "no room" => {
                place.disk.inject(Faults { free_bytes: Some(1 << 20), ..Faults::default() });
            }
            _ => fs::write(place.path("bodies"), b"no directory").unwrap(),
        }
        for id in ids {
            committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
            settled(&store, id).await;
            assert!(store.live(id).is_none(), "{what}");
        }
        assert_eq!(store.message(ids[0]).unwrap().unwrap().attempts.len(), 1, "{what}");
        place.has_no_large_body().await;
        if what == "no room" {
            assert!(is_gone(&store, ids[0]).await && is_gone(&store, ids[1]).await);
            assert_eq!(place.files().len(), 0);
            place.disk.inject(Faults::default());
        } else {
            assert!(read_body(&store, ids[0]).await.is_err());
            fs::remove_file(place.path("bodies")).unwrap();
        }
        let id = ended(&store, &place.clock, SMALL).await;
        assert_eq!(read_body(&store, id).await.unwrap(), SMALL, "{what}: healed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_bodies_hold_no_segment_and_cost_no_sync() {
    let mut syncs = Vec::new();
    for keep in [Duration::ZERO, DAY] {
        let place = Place { keep, ..Place::new() };
        let options = Options { bodies: keep, ..place.dir.options() };
        let tuning = Tuning { segment_bytes: 65_536, checkpoint_every: DAY, ..tuning() };
        let store = Store::open_tuned(&options, place.clock.clone(), tuning).unwrap();
        for _ in 0..60 {
            ended(&store, &place.clock, &[b'x'; 4096]).await;
        }
        syncs.push(store.stats().syncs);
        store.close().await;
        drop(store);
        let store = place.open();
        assert!(store.stats().segments <= 2, "{} segments", store.stats().segments);
        assert_eq!(place.files().len(), if keep.is_zero() { 0 } else { 60 });
    }
    assert_eq!(syncs[0], syncs[1]);
}
