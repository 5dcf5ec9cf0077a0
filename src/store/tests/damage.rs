//! Damaged files: what is torn, flipped, truncated, missing, foreign or in use.

use std::path::PathBuf;

use super::*;
use crate::store::index::GENERATION;
use crate::store::journal::{self, Found, ScanOrder, ScanRange};
use crate::store::layout::{self, SEGMENT_HEADER_BYTES};
use crate::store::recovery::StateFile;

/// The only spool segment that has frames.
fn segment(dir: &Path) -> PathBuf {
    let mut found: Vec<PathBuf> = files_under(&dir.join("spool"))
        .into_iter()
        .filter(|path| {
            path.extension().is_some_and(|it| it == "seg") && !frames_in(path).is_empty()
        })
        .collect();
    assert_eq!(found.len(), 1);
    found.remove(0)
}

/// Offset and size of every frame in a segment.
fn frames_in(path: &Path) -> Vec<(usize, usize)> {
    let octets = std::fs::read(path).unwrap();
    let seed = layout::checksum_seed(&layout::decode_header(&octets).unwrap().store);
    let mut found = Vec::new();
    let mut at = SEGMENT_HEADER_BYTES;
    while let Some(frame) = octets.get(at..).and_then(|rest| layout::decode_frame(rest, seed)) {
        found.push((at, frame.size));
        at += frame.size;
    }
    found
}

fn files_under(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_under(&path)) } else { files.push(path) }
    }
    files
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_dir(&path, &target);
        } else {
            std::fs::copy(&path, &target).unwrap();
        }
    }
}

/// How many frames each batch has that a scan finds.
fn batches_in(octets: &[u8]) -> Vec<usize> {
    let header = layout::decode_header(octets).unwrap();
    let range =
        ScanRange { from: header.first_lsn, until: u64::MAX, order: ScanOrder::Consecutive };
    let mut batches = Vec::new();
    let seed = layout::checksum_seed(&header.store);
    journal::scan(octets, seed, range, &mut |found| {
        match found {
            Found::Batch(frames) => batches.push(frames.len()),
            Found::Damage(range) => panic!("{range:?} is torn, not damaged"),
        }
        Ok(())
    })
    .unwrap();
    batches
}

/// Removes what was applied behind the last checkpoint: a power loss may leave nothing of it.
fn forget_archive(dir: &Path) {
    std::fs::remove_dir_all(dir.join("log")).unwrap();
    std::fs::remove_dir_all(dir.join("index")).unwrap();
}

/// A store that never makes a checkpoint by itself.
fn open_still(dir: &TempDir) -> Store {
    let tuning =
        Tuning { segment_bytes: 65_536, checkpoint_every: Duration::from_hours(1), ..tuning() };
    Store::open_tuned(&dir.options(), clock(), tuning).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_cut_at_any_octet_loses_only_the_batches_that_are_cut() {
    let dir = TempDir::new();
    let store = open_still(&dir);
    let first = accepted(&store, &["a@b.test"], b"first").await;
    let second = accepted(&store, &["a@b.test"], b"second").await;
    let batch = Batch {
        attempts: vec![attempt(second, 0, 1, Decision::Relayed)],
        bounces: vec![bounce(Some(first), 1, START)],
        ..Batch::default()
    };
    committed(&store, batch).await;
    drop(store);
    let path = segment(dir.path());
    let frames = frames_in(&path);
    assert_eq!(frames.len(), 4);
    let ends: Vec<usize> = frames.iter().map(|(at, size)| at + size).collect();
    let (second_at, _) = frames[1];
    let name = path.strip_prefix(dir.path()).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for cut in second_at..=ends[3] {
        // What lies behind a torn write is zeros: the file was preallocated.
        let mut octets = whole.clone();
        octets[cut..].fill(0);
        // Every cut is scanned; some are opened as a whole store, which takes a while.
        let batches = batches_in(&octets);
        // A frame may end in zeros, so that nothing of it is missing though it was cut.
        let is_whole = |end: usize| octets[..end] == whole[..end];
        let mut expected = vec![1; 1 + usize::from(is_whole(ends[1]))];
        expected.extend(is_whole(ends[3]).then_some(2));
        assert_eq!(batches, expected, "cut at {cut}: a batch is kept whole or not at all");
        if (cut - second_at) % 101 != 0 && cut != ends[3] {
            continue;
        }
        let copy = TempDir::new();
        copy_dir(dir.path(), copy.path());
        forget_archive(copy.path());
        std::fs::write(copy.path().join(name), &octets).unwrap();
        let store = open_still(&copy);
        assert!(store.live(first).is_some(), "cut at {cut}");
        let has_second = store.message(second).unwrap().is_ok();
        assert_eq!(has_second, is_whole(ends[1]), "cut at {cut}");
        let ended = has_second && store.live(second).is_none();
        let bounces = store.message(first).unwrap().unwrap().bounces.len();
        assert_eq!(ended, is_whole(ends[3]), "cut at {cut}: a batch is kept whole or not at all");
        assert_eq!(bounces, usize::from(ended), "cut at {cut}");
        assert_eq!(store.stats().damaged_ranges, 0, "cut at {cut}: a torn end is no damage");
        // What is written now is not hidden by what was cut.
        let third = accepted(&store, &["a@b.test"], b"third").await;
        drop(store);
        assert_eq!(read_body(&open_still(&copy), third).await.unwrap(), b"third", "cut at {cut}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_costs_only_the_frame_it_is_in() {
    let dir = TempDir::new();
    let store = open_still(&dir);
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(accepted(&store, &["a@b.test"], b"body").await);
    }
    drop(store);
    let path = segment(dir.path());
    let frames = frames_in(&path);
    let name = path.strip_prefix(dir.path()).unwrap();
    for sealed in [true, false] {
        for (hit, (at, size)) in frames.iter().enumerate().take(4).step_by(3) {
            let copy = TempDir::new();
            copy_dir(dir.path(), copy.path());
            forget_archive(copy.path());
            if sealed {
                // A start seals the segment: its frames lie before the checkpoint then.
                drop(open_still(&copy));
            }
            let mut octets = std::fs::read(&path).unwrap();
            octets[at + size / 2] ^= 0x10;
            std::fs::write(copy.path().join(name), &octets).unwrap();
            let store = open_still(&copy);
            for (index, id) in ids.iter().enumerate() {
                assert_eq!(store.live(*id).is_some(), index != hit, "{sealed} {hit} {index}");
                let is_known = store.message(*id).unwrap().is_ok();
                assert_eq!(is_known, sealed || index != hit, "{sealed} {hit} {index}");
            }
            assert_eq!(store.stats().damaged_ranges, 1);
            assert_eq!(files_under(&copy.path().join("quarantine")).len(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_head_of_a_segment_loses_none_of_its_frames() {
    let dir = TempDir::new();
    let store = open_still(&dir);
    let id = accepted(&store, &["a@b.test"], b"body").await;
    drop(store);
    let path = segment(dir.path());
    let mut octets = std::fs::read(&path).unwrap();
    octets[20] ^= 1;
    std::fs::write(&path, &octets).unwrap();
    let store = open_still(&dir);
    assert_eq!(read_body(&store, id).await.unwrap(), b"body");
}

/// Something that is done to the files of a day's index.
type Harm = fn(&Path);

#[tokio::test(flavor = "multi_thread")]
async fn a_harmed_index_is_rebuilt_and_knows_everything() {
    let harms: [(&str, Harm); 8] = [
        ("untouched", |_index| {}),
        ("deleted", |index| std::fs::remove_dir_all(index).unwrap()),
        ("emptied", |index| {
            for file in files_under(index) {
                std::fs::remove_file(file).unwrap();
            }
        }),
        ("truncated", |index| {
            for file in files_under(index) {
                let octets = std::fs::read(&file).unwrap();
                std::fs::write(&file, &octets[..octets.len() / 2]).unwrap();
            }
        }),
        ("flipped", |index| {
            for file in files_under(index) {
                let mut octets = std::fs::read(&file).unwrap();
                octets.iter_mut().step_by(61).for_each(|octet| *octet ^= 0x20);
                std::fs::write(&file, &octets).unwrap();
            }
        }),
        ("databases flipped", |index| {
            for file in files_under(index).into_iter().filter(|file| file.ends_with("db")) {
                let mut octets = std::fs::read(&file).unwrap();
                octets.iter_mut().skip(512).step_by(97).for_each(|octet| *octet ^= 1);
                std::fs::write(&file, &octets).unwrap();
            }
        }),
        ("torn snapshot", |index| {
            for day in std::fs::read_dir(index).unwrap().map(|day| day.unwrap().path()) {
                if day.is_dir() {
                    let torn = day.join("snap.0000000000000ABC.generating");
                    std::fs::write(torn, b"torn").unwrap();
                }
            }
        }),
        ("of another boot", |index| {
            for file in files_under(index) {
                if file.extension().is_some_and(|it| it == "mark") {
                    let line = "99 open anotherboot";
                    let crc = crc32c::crc32c(line.as_bytes());
                    std::fs::write(&file, format!("{line} {crc:08x}\n")).unwrap();
                }
            }
        }),
    ];
    for closed in [true, false] {
        for (name, harm) in harms {
            let dir = TempDir::new();
            let (ids, bounces) = filled(&dir, closed).await;
            harm(&dir.path().join("index"));
            for round in 0..2 {
                let store = open(&dir);
                for id in &ids {
                    knows(&store, *id, &format!("{name} {closed} {round}"));
                }
                let found = store.by_recipient("to@example.test", None, 1_000).unwrap();
                assert_eq!(found, bounces, "{name} {closed} {round}");
                let sent = store.sent_to("to@example.test", START, 1_000).unwrap();
                assert_eq!(sent.len(), ids.len(), "{name} {closed} {round}");
                assert_eq!(store.recent_bounces(None, 1_000).unwrap(), bounces);
                store.close().await;
            }
        }
    }
}

/// Asks for a mail of `filled` in every way.
fn knows(store: &Store, id: QueueId, what: &str) {
    let record = store.message(id).unwrap().unwrap();
    assert_eq!((record.attempts.len(), record.bounces.len()), (1, 1), "{what}");
    assert_eq!(store.by_message_id(&record.submission.message_id).unwrap(), [id], "{what}");
    assert_eq!(store.by_alias(&alias_of(id)).unwrap(), [id], "{what}");
    let remote = store.by_remote_queue_id(&id.to_string(), START).unwrap();
    assert_eq!(remote, record.attempts, "{what}");
}

/// What the next hop called a mail of `filled`.
fn alias_of(id: QueueId) -> MessageId {
    MessageId::parse(&format!("{id}@hop.test")).unwrap()
}

/// Fills a store with mails that were relayed and bounced, over two days of events.
async fn filled(dir: &TempDir, closed: bool) -> (Vec<QueueId>, Vec<Bounce>) {
    let store = open(dir);
    let mut ids = Vec::new();
    let mut bounces = Vec::new();
    for number in 0..100_u8 {
        let id = accepted(&store, &["to@example.test"], b"body").await;
        let bounce = bounce(Some(id), number, START.plus(DAY * u32::from(number % 2)));
        let batch = Batch {
            attempts: vec![Attempt {
                alias: Some(alias_of(id)),
                remote_queue_id: Some(id.to_string()),
                ..attempt(id, 0, 1, Decision::Relayed)
            }],
            bounces: vec![bounce.clone()],
            ..Batch::default()
        };
        committed(&store, batch).await;
        ids.push(id);
        bounces.push(bounce);
    }
    bounces.sort_by(|one, other| other.id.cmp(&one.id));
    if closed {
        store.close().await;
    }
    (ids, bounces)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_of_an_older_generation_is_rebuilt_with_the_rows_it_lacks() {
    let dir = TempDir::new();
    let (ids, _) = filled(&dir, true).await;
    let index = dir.path().join("index");
    let names = || std::fs::read_dir(&index).unwrap().map(|entry| entry.unwrap().path());
    let is_of = |path: &PathBuf, generation: &str| {
        path.to_string_lossy().contains(&format!(".{generation}"))
    };
    for path in names().collect::<Vec<_>>() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let older = name.replacen(&format!(".{GENERATION}"), ".1", 1);
        std::fs::rename(&path, index.join(older)).unwrap();
    }
    assert!(names().all(|path| is_of(&path, "1")));
    let store = open(&dir);
    assert_eq!(store.sent_count(None).unwrap(), u64::try_from(ids.len()).unwrap());
    for id in &ids {
        assert_eq!(store.by_alias(&alias_of(*id)).unwrap(), [*id]);
    }
    assert_eq!(store.sent_to("to@example.test", START, 1_000).unwrap().len(), ids.len());
    assert!(names().all(|path| is_of(&path, GENERATION)), "the older one is gone");
}

#[test]
fn an_attempt_that_was_written_before_aliases_were_learnt_has_none() {
    /// The fields of an attempt that have no default.
    #[derive(serde::Serialize)]
    struct Older {
        queue_id: QueueId,
        recipient: u32,
        number: u32,
        started_at: Timestamp,
        ended_at: Timestamp,
        stage: Stage,
        decision: Decision,
    }
    let id = QueueId::new(START, 1);
    let older = Older {
        queue_id: id,
        recipient: 0,
        number: 1,
        started_at: START,
        ended_at: START,
        stage: Stage::End,
        decision: Decision::Relayed,
    };
    let read: Attempt = layout::decode_record(&layout::encode_record(&older).unwrap()).unwrap();
    assert_eq!((read.queue_id, read.alias), (id, None));
    let matched = Match::new(MatchMethod::Alias, Confidence::Low);
    let octets = layout::encode_record(&matched).unwrap();
    assert_eq!(layout::decode_record::<Match>(&octets), Ok(matched));
    assert!(!String::from_utf8_lossy(&octets).contains("changesState"), "as it was before");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_breaks_while_it_is_open_is_rebuilt() {
    let dir = TempDir::new();
    let (ids, _) = filled(&dir, true).await;
    let store = open(&dir);
    let day = START.day();
    let index = dir.path().join("index").join(format!("{day}.{GENERATION}"));
    store.message(ids[0]).unwrap().unwrap();
    for file in files_under(&index) {
        std::fs::write(&file, vec![0xA5; 1_000_000]).unwrap();
    }
    for id in &ids {
        assert_eq!(store.message(*id).unwrap().unwrap().bounces.len(), 1);
    }
    let id = accepted(&store, &["to@example.test"], b"body").await;
    until("indexed", || store.stats().backlog_bytes == 0).await;
    assert!(store.message(id).unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_state_recovers_everything() {
    for (octets, has_spool) in
        [(None, true), (Some(&b"garbage"[..]), true), (Some(b""), true), (None, false)]
    {
        let dir = TempDir::new();
        let (ids, bounces) = filled(&dir, true).await;
        if !has_spool {
            std::fs::remove_dir_all(dir.path().join("spool")).unwrap();
        }
        let state = dir.path().join("state");
        match octets {
            Some(octets) => std::fs::write(&state, octets).unwrap(),
            None => std::fs::remove_file(&state).unwrap(),
        }
        let store = open(&dir);
        let id = accepted(&store, &["to@example.test"], b"body").await;
        let batch = Batch { bounces: vec![bounce(Some(ids[0]), 200, START)], ..Batch::default() };
        committed(&store, batch).await;
        until("indexed", || store.stats().backlog_bytes == 0).await;
        assert!(store.message(id).unwrap().is_ok());
        let record = store.message(ids[0]).unwrap().unwrap();
        assert_eq!((record.attempts.len(), record.bounces.len()), (1, 2));
        assert_eq!(store.recent_bounces(None, 1_000).unwrap().len(), bounces.len() + 1);
    }
}

#[test]
fn a_directory_in_use_or_of_another_version_is_refused() {
    let dir = TempDir::new();
    let store = open(&dir);
    let second = Store::open(&dir.options(), clock()).err().unwrap();
    assert!(matches!(&second, StoreError::Locked(path) if path == dir.path()), "{second}");
    assert!(second.to_string().contains("in use by another process"), "{second}");
    // What a process that was forked a moment ago holds open does not keep the lock.
    let forked = store.shared._lock.0.try_clone().unwrap();
    drop(store);
    drop(open(&dir));
    drop(forked);

    let state = dir.path().join("state");
    let good = std::fs::read(&state).unwrap();
    let mut newer = good.clone();
    newer[8] = 9;
    std::fs::write(&state, &newer).unwrap();
    let refused = Store::open(&dir.options(), clock()).err().unwrap();
    assert!(refused.to_string().contains("format 9"), "{refused}");
    std::fs::write(&state, &good).unwrap();

    let path = files_under(&dir.path().join("spool")).remove(0);
    let mut octets = std::fs::read(&path).unwrap();
    octets[8] = 9;
    let crc = crc32c::crc32c(&octets[..60]);
    octets[60..64].copy_from_slice(&crc.to_le_bytes());
    std::fs::write(&path, &octets).unwrap();
    let refused = Store::open(&dir.options(), clock()).err().unwrap();
    assert!(refused.to_string().contains("format 9"), "{refused}");
}

#[tokio::test]
async fn a_closed_store_says_so_in_its_state() {
    use crate::store::recovery::Cleanliness::{Clean, Dirty};
    let dir = TempDir::new();
    let state = || StateFile::read(&dir.path().join("state")).unwrap().unwrap();
    let store = open(&dir);
    assert_eq!(state().cleanliness, Dirty);
    store.close().await;
    assert_eq!(state().cleanliness, Clean);
    assert!(matches!(store.can_accept(0), Err(StoreError::Busy)));
    drop(store);
    let store = open(&dir);
    assert_eq!(state().cleanliness, Dirty);
    drop(store);
    assert_eq!(state().cleanliness, Dirty, "dropped, not closed");
}
