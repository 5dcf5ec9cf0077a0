//! A disk that fails: nothing false is said, nothing true is forgotten, and it heals.

use super::*;
use crate::store::disk::{Disk, Faults};
use crate::store::state::State;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn open_on(dir: &TempDir, disk: &Disk) -> Store {
    let tuning = Tuning { disk: disk.clone(), ..tuning() };
    Store::open_tuned(&dir.options(), clock(), tuning).unwrap()
}

const FAULTS: [(&str, Faults); 3] = [
    ("EIO at write", Faults { write: Some(EIO), sync: None, free_bytes: None }),
    ("ENOSPC at write", Faults { write: Some(ENOSPC), sync: None, free_bytes: None }),
    ("EIO at fdatasync", Faults { write: None, sync: Some(EIO), free_bytes: None }),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_write_is_refused_forgotten_and_healed_without_a_restart() {
    for (name, faults) in FAULTS {
        let dir = TempDir::new();
        let disk = Disk::default();
        let store = open_on(&dir, &disk);
        let before = accepted(&store, &["a@b.test"], b"before").await;
        until("indexed", || store.stats().backlog_bytes == 0).await;
        let refused = store.new_queue_id();
        let offered = body(&store, refused, b"refused").await;
        disk.inject(faults);
        let ticket = store.accept(submission(refused, &["a@b.test"]), offered).unwrap();
        let error = ticket.synced().await.unwrap_err();
        let is_full = faults.write == Some(ENOSPC);
        assert_eq!(matches!(error, StoreError::DiskFull), is_full, "{name}: {error}");
        assert!(store.live(refused).is_none(), "{name}: a refused mail is never relayed");
        assert!(store.message(refused).unwrap().is_err(), "{name}");
        assert!(store.can_accept(0).is_err(), "{name}");
        let offered = body(&store, refused, b"refused").await;
        assert!(store.accept(submission(refused, &["a@b.test"]), offered).is_err(), "{name}");
        assert!(
            store.stats().write_failures > 0
                && store.stats().health == crate::store::Health::Failing,
            "{name}"
        );

        disk.inject(Faults::default());
        until("healed", || store.can_accept(0).is_ok()).await;
        let after = accepted(&store, &["a@b.test"], b"after").await;
        drop(store);
        let store = open(&dir);
        assert_eq!(store.due(START, 10, &|_id| false), [before, after], "{name}");
        assert_eq!(read_body(&store, after).await.unwrap(), b"after", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_that_could_not_be_written_is_written_when_the_disk_is_back() {
    for (name, faults) in FAULTS {
        let dir = TempDir::new();
        let disk = Disk::default();
        let store = open_on(&dir, &disk);
        let id = accepted(&store, &["a@b.test", "c@d.test"], b"body").await;
        disk.inject(faults);
        let batch = attempts(vec![attempt(id, 0, 1, Decision::Relayed)]);
        store.commit(batch).unwrap().synced().await.unwrap_err();
        let live = store.live(id).unwrap();
        assert_eq!(live.recipients[0].state, State::Relayed, "{name}: it has happened");
        let more = store.commit(attempts(vec![attempt(id, 1, 1, Decision::Relayed)]));
        disk.inject(Faults::default());
        more.unwrap().synced().await.unwrap_or_default();
        until("healed", || store.can_accept(0).is_ok()).await;
        accepted(&store, &["a@b.test"], b"behind it").await;
        drop(store);
        let store = open(&dir);
        assert!(store.live(id).is_none(), "{name}: relayed mail is not sent again");
        assert_eq!(store.message(id).unwrap().unwrap().attempts.len(), 2, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_checkpoint_moves_nothing_and_is_made_up_for() {
    for (name, faults) in FAULTS {
        let dir = TempDir::new();
        let disk = Disk::default();
        let store = open_on(&dir, &disk);
        let mut ids = Vec::new();
        while ids.len() < 10 || store.stats().checkpoint_failures == 0 {
            let id = accepted(&store, &["a@b.test"], b"body").await;
            committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
            ids.push(id);
            assert!(ids.len() < 1_000, "{name}: no checkpoint met the fault");
            // Nothing is left to be written to the journal or to be moved into the log, where it
            // would meet the fault first and be moved when it is over: the next to meet it is the
            // checkpoint, unless it was made just before.
            until("moved into the log", || store.stats().backlog_bytes == 0).await;
            disk.inject(faults);
            let waiting = failed_checkpoint(&store);
            tokio::time::timeout(Duration::from_millis(100), waiting).await.unwrap_or_default();
            disk.inject(Faults::default());
        }
        store.close().await;
        drop(store);
        let store = open(&dir);
        for id in ids {
            assert_eq!(store.message(id).unwrap().unwrap().attempts.len(), 1, "{name}");
        }
    }
}

/// Waits until a checkpoint has failed.
async fn failed_checkpoint(store: &Store) {
    while store.stats().checkpoint_failures == 0 {
        // Asking without a pause would keep the lock from the thread that makes checkpoints.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nearly_full_disk_refuses_mail_but_takes_outcomes() {
    let dir = TempDir::new();
    let disk = Disk::default();
    let store = open_on(&dir, &disk);
    let id = accepted(&store, &["a@b.test"], b"body").await;
    for (free, size, is_accepted) in [
        (300 << 20, 1 << 20, true),
        (300 << 20, 100 << 20, false),
        (10 << 20, 0, false),
        (0, 0, false),
    ] {
        disk.inject(Faults { free_bytes: Some(free), ..Faults::default() });
        let answer = store.can_accept(size);
        assert_eq!(answer.is_ok(), is_accepted, "{free} {size}");
        assert!(is_accepted || matches!(answer, Err(StoreError::DiskFull)), "{free} {size}");
    }
    let refused = store.accept_report(report(store.new_queue_id(), 1)).err();
    assert!(matches!(refused, Some(StoreError::DiskFull)));
    committed(&store, attempts(vec![attempt(id, 0, 1, Decision::Relayed)])).await;
    assert!(store.live(id).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_synced_is_not_taken() {
    let dir = TempDir::new();
    let disk = Disk::default();
    let store = open_on(&dir, &disk);
    let id = store.new_queue_id();
    let mut writer = store.body_writer(id);
    writer.write(&vec![b'x'; 300 * 1024]).await.unwrap();
    disk.inject(Faults { sync: Some(EIO), ..Faults::default() });
    assert!(writer.finish().await.is_err());
    let file = dir.path().join("spool/big").join(id.to_string());
    assert!(!file.exists(), "nobody will ask for it");
}
