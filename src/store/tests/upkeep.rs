//! What the store does by itself: group commit, recycling, retention, clocks.

use super::*;
use crate::store::Missing;
use crate::store::index::GENERATION;
use crate::store::record::{FolderCursor, NoticeSent};
use crate::store::state::State;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sixteen_writers_share_their_syncs() {
    let dir = TempDir::new();
    let tuning = Tuning { checkpoint_every: Duration::from_hours(1), ..Tuning::default() };
    let store = Store::open_tuned(&dir.options(), clock(), tuning).unwrap();
    let before = store.stats().syncs;
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let store = store.clone();
        writers.spawn(async move {
            for _ in 0..50 {
                accepted(&store, &["a@b.test"], &[b'x'; 4096]).await;
            }
        });
    }
    writers.join_all().await;
    let syncs = store.stats().syncs - before;
    assert_eq!(store.queue_len(), 800);
    assert!(syncs < 400, "{syncs} syncs for 800 mails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_batch_of_many_bounces_is_taken_however_many_others_come_in() {
    let numbered = |queue_id, number: u128| Bounce {
        id: BounceId(format!("{number:020x}")),
        key: number.to_be_bytes(),
        ..bounce(queue_id, 0, START)
    };
    let dir = TempDir::new();
    let store = open(&dir);
    let mail = accepted(&store, &["to@example.test"], b"one").await;
    let mut others = tokio::task::JoinSet::new();
    for task in 1..=8 {
        let store = store.clone();
        others.spawn(async move {
            for number in 0.. {
                let bounces = vec![numbered(None, task * 1_000_000 + number)];
                committed(&store, Batch { bounces, ..Batch::default() }).await;
            }
        });
    }
    until("others come in", || store.stats().syncs > 20).await;
    let bounces = (0..5_000).map(|number| numbered(Some(mail), number)).collect();
    committed(&store, Batch { bounces, ..Batch::default() }).await;
    others.shutdown().await;
    assert_eq!(store.message(mail).unwrap().unwrap().bounces.len(), 5_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_crashes_again_and_again_keeps_no_room_that_it_does_not_use() {
    let dir = TempDir::new();
    let mut mails = Vec::new();
    for _ in 0..20 {
        // A mail that nobody takes keeps its segment, and those behind it.
        let store = open(&dir);
        mails.push(accepted(&store, &["to@example.test"], b"waits").await);
        drop(store);
    }
    let store = open(&dir);
    // All came at the same moment, and ids of one moment begin anywhere with each start.
    mails.sort();
    assert_eq!(store.due(START, 100, &|_id| false), mails);
    for mail in mails {
        assert_eq!(read_body(&store, mail).await.unwrap(), b"waits");
    }
    let files = std::fs::read_dir(dir.path().join("spool")).unwrap();
    let octets: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(octets < 2 * tuning().segment_bytes, "{octets} octets for 20 small mails");
}

fn open_small(dir: &TempDir) -> Store {
    let tuning = Tuning { segment_bytes: 65_536, copy_after_secs: 0, ..tuning() };
    Store::open_tuned(&dir.options(), clock(), tuning).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn segments_are_recycled_and_what_is_live_in_them_is_written_again() {
    let dir = TempDir::new();
    let store = open_small(&dir);
    let stays = accepted(&store, &["a@b.test", "c@d.test"], b"stays").await;
    let later = START.plus(DAY);
    let mut gave_up = attempt(stays, 0, 1, Decision::Failed);
    gave_up.notice_owed = true;
    committed(
        &store,
        attempts(vec![gave_up.clone(), attempt(stays, 1, 1, Decision::RetryAt(later))]),
    )
    .await;
    let notices = vec![NoticeSent::Delay { queue_id: stays, count: 1 }];
    committed(&store, Batch { notices, ..Batch::default() }).await;
    let waits = ReportId(store.new_queue_id());
    store.accept_report(report(waits.0, 1)).unwrap().synced().await.unwrap();
    let owed = ReportId(store.new_queue_id());
    store.accept_report(report(owed.0, 2)).unwrap().synced().await.unwrap();
    let owed_mark = mark(owed, Some("app@app.test"));
    committed(&store, Batch { report: Some(owed_mark.clone()), ..Batch::default() }).await;

    let mut ended = Vec::new();
    for _ in 0..200 {
        let id = accepted(&store, &["a@b.test"], &[b'x'; 4096]).await;
        committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
        ended.push(id);
    }
    let first = dir.path().join("spool/00000001.seg");
    until("the first segment is gone", || !first.exists()).await;
    until("old segments are gone", || store.stats().segments <= 3).await;

    let mut store = Some(store);
    for round in ["running", "opened again"] {
        let store = store.take().unwrap_or_else(|| open_small(&dir));
        assert_eq!(read_body(&store, stays).await.unwrap(), b"stays", "{round}");
        let live = store.live(stays).unwrap();
        assert_eq!(live.delay_notices, 1, "{round}");
        let states: Vec<_> = live.recipients.iter().map(|to| (to.state, to.attempts)).collect();
        assert_eq!(states, [(State::Failed, 1), (State::Deferred, 1)], "{round}");
        assert!(live.recipients[0].notice_owed, "{round}");
        assert_eq!(live.recipients[0].last, Some(gave_up.clone()), "{round}");
        assert_eq!(live.recipients[1].next_attempt, later, "{round}");
        assert_eq!(store.uncaptured_reports(10), [waits], "{round}");
        assert_eq!(store.owed_forwards(10), std::slice::from_ref(&owed_mark), "{round}");
        assert_eq!(store.message(stays).unwrap().unwrap().attempts.len(), 2, "{round}");
        assert_eq!(store.report(waits).unwrap().unwrap().received, report(waits.0, 1), "{round}");
        for id in &ended {
            assert_eq!(store.message(*id).unwrap().unwrap().attempts.len(), 1, "{round}");
        }
    }
}

fn cursor(folder: &str, last_uid: u32) -> FolderCursor {
    FolderCursor {
        mailbox: "bounces".to_owned(),
        folder: folder.to_owned(),
        uid_validity: 7,
        last_uid,
        highest_mod_seq: Some(u64::MAX),
        old_below: 2,
        read_from: START,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_cursor_of_a_folder_outlives_its_segment_and_the_process() {
    let dir = TempDir::new();
    let store = open_small(&dir);
    let moved = |last_uid| Batch { cursors: vec![cursor("INBOX", last_uid)], ..Batch::default() };
    let junk = cursor("Junk", 3);
    committed(&store, Batch { cursors: vec![junk.clone()], ..Batch::default() }).await;
    for last_uid in 1..=200 {
        let id = accepted(&store, &["a@b.test"], &[b'x'; 4096]).await;
        committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
        committed(&store, moved(last_uid)).await;
        assert_eq!(store.folder_cursor("bounces", "INBOX"), Some(cursor("INBOX", last_uid)));
    }
    let first = dir.path().join("spool/00000001.seg");
    until("the first segment is gone", || !first.exists()).await;
    until("old segments are gone", || store.stats().segments <= 3).await;
    // As in a crash: nothing is closed.
    drop(store);
    let store = open_small(&dir);
    assert_eq!(store.folder_cursor("bounces", "INBOX"), Some(cursor("INBOX", 200)));
    assert_eq!(store.folder_cursor("bounces", "Junk"), Some(junk));
    assert_eq!(store.folder_cursor("bounces", "Sent"), None);
    assert_eq!(store.folder_cursor("others", "INBOX"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_live_segment_is_left_alone() {
    let dir = TempDir::new();
    let store = open_small(&dir);
    for _ in 0..40 {
        accepted(&store, &["a@b.test"], &[b'x'; 4096]).await;
    }
    until("indexed", || store.stats().backlog_bytes == 0).await;
    committed(&store, Batch::default()).await;
    let segments = store.stats().segments;
    drop(store);
    assert!(segments >= 3);
    let store = open_small(&dir);
    assert_eq!(store.queue_len(), 40);
    assert_eq!(store.stats().segments, segments + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_days_are_dropped_unless_something_in_them_is_in_work() {
    let dir = TempDir::new();
    let clock = clock();
    let store = Store::open_tuned(&dir.options(), clock.clone(), tuning()).unwrap();
    let id = accepted(&store, &["to@example.test"], b"body").await;
    let message_id = submission(id, &[]).message_id;
    let bounced = bounce(Some(id), 1, START);
    committed(&store, Batch { bounces: vec![bounced], ..Batch::default() }).await;
    until("indexed", || store.stats().backlog_bytes == 0).await;
    let log = dir.path().join("log").join(START.day().to_string());
    let index = dir.path().join("index").join(format!("{}.{GENERATION}", START.day()));

    clock.advance(DAY * 100);
    store.prune().unwrap();
    assert!(log.exists() && index.exists(), "the mail is still in the queue");
    assert!(store.message(id).unwrap().is_ok());

    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Expired)])).await;
    until("indexed", || store.stats().backlog_bytes == 0).await;
    let recent = accepted(&store, &["to@example.test"], b"body").await;
    until("indexed", || store.stats().backlog_bytes == 0).await;
    clock.advance(DAY * 5);
    committed(&store, attempts(vec![attempt(recent, 0, 1, Decision::Relayed)])).await;
    store.prune().unwrap();
    assert!(!log.exists() && !index.exists());
    assert_eq!(store.message(id).unwrap().unwrap_err(), Missing::Purged);
    assert_eq!(store.by_message_id(&message_id).unwrap(), []);
    assert_eq!(store.by_recipient("to@example.test", None, 10).unwrap(), []);
    assert!(store.message(recent).unwrap().is_ok());

    // News of a mail whose day is gone come to nothing, and harm nothing.
    let late = bounce(Some(id), 2, clock.now());
    committed(&store, Batch { bounces: vec![late.clone()], ..Batch::default() }).await;
    until("indexed", || store.stats().backlog_bytes == 0).await;
    assert_eq!(store.message(id).unwrap().unwrap_err(), Missing::Purged);
    assert_eq!(store.by_recipient("to@example.test", None, 10).unwrap(), [late]);
    assert!(!log.exists() && !index.exists());
    store.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_backward_loses_and_drops_nothing() {
    let dir = TempDir::new();
    let store = open(&dir);
    let id = accepted(&store, &["to@example.test"], b"body").await;
    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::RetryAt(START.plus(DAY)))])).await;
    store.close().await;
    drop(store);
    let back = Clock::manual(START.minus(DAY * 200));
    let store = Store::open_tuned(&dir.options(), back.clone(), tuning()).unwrap();
    store.prune().unwrap();
    assert!(store.message(id).unwrap().is_ok());
    assert!(store.live(id).is_some());
    let early = accepted(&store, &["to@example.test"], b"body").await;
    assert!(early < id);
    // Evidence that carries an earlier time than its mail is kept as long as the mail.
    let mut backdated = bounce(Some(id), 1, back.now());
    backdated.report_id = Some(ReportId(store.new_queue_id()));
    committed(&store, Batch { bounces: vec![backdated.clone()], ..Batch::default() }).await;
    store.close().await;
    drop(store);
    let store = open(&dir);
    store.prune().unwrap();
    assert_eq!(store.message(id).unwrap().unwrap().bounces, [backdated.clone()]);
    assert_eq!(store.by_recipient("to@example.test", None, 10).unwrap(), [backdated]);
    assert!(store.message(early).unwrap().is_ok(), "it is still in the queue");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_looked_for_in_vain_opens_no_day() {
    let dir = TempDir::new();
    let clock = clock();
    let store = Store::open_tuned(&dir.options(), clock.clone(), tuning()).unwrap();
    let mut ids = Vec::new();
    for _ in 0..12 {
        let id = accepted(&store, &["to@example.test"], b"body").await;
        committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
        ids.push(id);
        clock.advance(DAY);
    }
    store.close().await;
    drop(store);
    let store = Store::open_tuned(&dir.options(), clock, tuning()).unwrap();
    let foreign = MessageId::parse("nobody@knows.test").unwrap();
    assert_eq!(store.by_message_id(&foreign).unwrap(), []);
    assert_eq!(store.report_by_digest(&[9; 16]).unwrap(), None);
    assert_eq!(store.by_recipient("nobody@knows.test", None, 10).unwrap(), []);
    assert_eq!(store.shared.archive.open_days(), 0);
    for id in &ids {
        let message_id = submission(*id, &[]).message_id;
        assert_eq!(store.by_message_id(&message_id).unwrap(), [*id]);
    }
    assert!(store.shared.archive.open_days() <= 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_wake_those_who_wait() {
    let dir = TempDir::new();
    let store = open(&dir);
    let mut changes = store.changes();
    changes.mark_unchanged();
    let queue = tokio::spawn({
        let store = store.clone();
        async move { store.queue_changed().await }
    });
    let reports = tokio::spawn({
        let store = store.clone();
        async move { store.report_arrived().await }
    });
    accepted(&store, &["a@b.test"], b"x").await;
    let limit = Duration::from_secs(20);
    tokio::time::timeout(limit, changes.changed()).await.unwrap().unwrap();
    tokio::time::timeout(limit, queue).await.unwrap().unwrap();
    assert!(!reports.is_finished());
    store.accept_report(report(store.new_queue_id(), 1)).unwrap().synced().await.unwrap();
    tokio::time::timeout(limit, reports).await.unwrap().unwrap();
}
