//! Kills: a process that writes is killed, and the directory it leaves keeps every promise.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::*;
use crate::store::record::NoticeSent;

/// What the process that is killed has promised so far.
#[derive(Default)]
struct Promises {
    mails: Vec<QueueId>,
    ended: Vec<QueueId>,
    reports: Vec<QueueId>,
    captured: Vec<QueueId>,
    owed: Vec<QueueId>,
    told: Vec<QueueId>,
}

const KILLS: u64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_has_kept_every_promise() {
    let dir = TempDir::new();
    let mut promised = Promises::default();
    for kill in 0..KILLS {
        // Longer and longer, so that kills fall into starts, groups, checkpoints and recycling.
        run_and_kill(&dir, 20 + kill * kill * 12, &mut promised);
        if kill % 2 == 1 {
            as_after_a_power_loss(dir.path());
        }
        let store = open_as_child(&dir);
        check(&store, &promised);
        check_bodies(&store, &promised.ended).await;
        if kill % 3 == 0 {
            store.close().await;
        }
    }
    assert!(promised.mails.len() > 100, "{} mails", promised.mails.len());
}

fn check(store: &Store, promised: &Promises) {
    for id in &promised.mails {
        let record = store.message(*id).unwrap();
        assert!(record.is_ok(), "mail {id} was acknowledged");
        let mut numbers: Vec<u32> =
            record.unwrap().attempts.iter().map(|attempt| attempt.number).collect();
        let all = numbers.len();
        numbers.dedup();
        assert_eq!(numbers.len(), all, "an attempt of {id} is there twice");
        let is_known = store.by_message_id(&submission(*id, &[]).message_id).unwrap() == [*id];
        assert!(is_known, "mail {id} is not found");
    }
    for id in &promised.ended {
        assert!(store.live(*id).is_none(), "mail {id} is in the queue again");
        assert_eq!(store.message(*id).unwrap().unwrap().bounces.len(), 1, "mail {id}");
    }
    let waiting = store.uncaptured_reports(usize::MAX);
    for id in &promised.reports {
        let report = store.report(ReportId(*id)).unwrap().unwrap();
        let is_waiting = waiting.contains(&ReportId(*id));
        assert_eq!(report.captured.is_none(), is_waiting, "report {id}");
    }
    for id in &promised.captured {
        assert!(!waiting.contains(&ReportId(*id)), "report {id} would be captured twice");
    }
    for id in &promised.owed {
        let told = store.by_message_id(&notice_of(*id)).unwrap().len();
        let is_owed = store.live(*id).is_some_and(|mail| mail.recipients[0].notice_owed);
        assert_eq!(told, usize::from(!is_owed), "the notice about {id} is owed or written, once");
    }
    for id in &promised.told {
        assert!(store.live(*id).is_none(), "the notice about {id} would be written twice");
    }
}

/// No machine has stopped, so that the body of every mail that has ended is there, and whole.
async fn check_bodies(store: &Store, ended: &[QueueId]) {
    for id in ended {
        let body = read_body(store, *id).await;
        let body = body.unwrap_or_else(|error| panic!("the body of {id} is gone: {error}"));
        assert_eq!(body.len(), body_of(*id).len(), "mail {id}");
    }
}

/// The body of a mail that a child writes; some are large.
fn body_of(id: QueueId) -> Vec<u8> {
    let is_large = id.as_bytes()[9].is_multiple_of(32);
    vec![b'x'; if is_large { 300 * 1024 } else { 2_000 }]
}

/// The Message-ID of the notice about a mail.
fn notice_of(queue_id: QueueId) -> MessageId {
    MessageId::parse(&format!("about-{queue_id}@relay.test")).unwrap()
}

fn open_as_child(dir: &TempDir) -> Store {
    open_dir(dir.path())
}

fn open_dir(dir: &Path) -> Store {
    let options = Options { dir: dir.to_path_buf(), keep: DAY * 90, bodies: DAY };
    let tuning = Tuning {
        segment_bytes: 65_536,
        checkpoint_every: Duration::from_millis(30),
        copy_after_secs: 0,
        ..Tuning::default()
    };
    Store::open_tuned(&options, Clock::system(), tuning).unwrap()
}

/// Lets a child write for a while, kills it, and notes what it said it had done.
fn run_and_kill(dir: &TempDir, lines: u64, promised: &mut Promises) {
    let log = dir.path().join("child.log");
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::crash::writes_until_it_is_killed"])
        .args(["--ignored", "--nocapture", "--test-threads=1"])
        .env(DIR_VARIABLE, dir.path())
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut seen = 0;
    for line in output.lines() {
        let Ok(line) = line else { break };
        let Some((what, id)) = line.rsplit_once(' ') else { continue };
        let Some(id) = QueueId::parse(id) else { continue };
        match what {
            "mail" => promised.mails.push(id),
            "ended" => promised.ended.push(id),
            "report" => promised.reports.push(id),
            "captured" => promised.captured.push(id),
            "owed" => promised.owed.push(id),
            "told" => promised.told.push(id),
            _ => continue,
        }
        seen += 1;
        if seen == lines {
            // What it says after the kill was true before it; it is read to the end.
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(seen >= lines, "the child ended by itself after {seen} lines: {said}");
}

/// Makes a directory look as if the machine had lost power: the index may hold anything then.
fn as_after_a_power_loss(dir: &Path) {
    for entry in std::fs::read_dir(dir.join("index")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it == "mark") {
            let text = std::fs::read_to_string(&path).unwrap();
            let lsn = text.split(' ').next().unwrap();
            let line = format!("{lsn} open anotherboot");
            let crc = crc32c::crc32c(line.as_bytes());
            std::fs::write(&path, format!("{line} {crc:08x}\n")).unwrap();
        }
    }
}

/// The child's part: four writers that say what is on disk, as soon as it is.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a_killed_process_has_kept_every_promise runs it in a process of its own"]
async fn writes_until_it_is_killed() {
    let dir = std::env::var_os(DIR_VARIABLE).expect("the directory to write to");
    let store = open_dir(Path::new(&dir));
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        writers.spawn(write_for_ever(store.clone()));
    }
    writers.join_next().await.unwrap().unwrap();
}

async fn write_for_ever(store: Store) {
    let say = |what: &str, id: QueueId| {
        let mut out = std::io::stdout().lock();
        // Whoever reads it is gone only together with this process.
        writeln!(out, "\n{what} {id}").unwrap();
        out.flush().unwrap();
    };
    loop {
        let id = store.new_queue_id();
        let body = body(&store, id, &body_of(id)).await;
        store.accept(submission(id, &["to@example.test"]), body).unwrap().synced().await.unwrap();
        say("mail", id);
        let retry = attempt(id, 0, 1, Decision::RetryAt(id.time()));
        committed(&store, attempts(vec![retry])).await;
        let report_id = store.new_queue_id();
        store.accept_report(report(report_id, 7)).unwrap().synced().await.unwrap();
        say("report", report_id);
        let mut bounced = bounce(Some(id), 1, id.time());
        bounced.report_id = Some(ReportId(report_id));
        let batch = Batch {
            attempts: vec![attempt(id, 0, 2, Decision::Relayed)],
            bounces: vec![bounced],
            report: Some(mark(ReportId(report_id), None)),
            ..Batch::default()
        };
        committed(&store, batch).await;
        say("ended", id);
        say("captured", report_id);
        hand_over_and_tell(&store, say).await;
    }
}

/// A mail that is handed over, and the notice of that, which its sender is owed.
async fn hand_over_and_tell(store: &Store, say: impl Fn(&str, QueueId)) {
    let id = accepted(store, &["to@example.test"], b"x").await;
    let relayed = Attempt { notice_owed: true, ..attempt(id, 0, 1, Decision::Relayed) };
    committed(store, attempts(vec![relayed])).await;
    say("owed", id);
    let mut notice = submission(store.new_queue_id(), &["app@app.test"]);
    notice.message_id = notice_of(id);
    let batch = Batch {
        notices: vec![NoticeSent::Relayed { queue_id: id, recipients: vec![0] }],
        submissions: vec![(notice, b"Subject: relayed\r\n\r\n".to_vec())],
        ..Batch::default()
    };
    committed(store, batch).await;
    say("told", id);
}

const DIR_VARIABLE: &str = "REBOUND_STORE_TEST_DIR";
