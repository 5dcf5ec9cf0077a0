//! How long a look-up takes with many records, beside the same server's `/health`.

use std::time::{Duration, Instant};

use rebound::bounce::{Action, Category, Classification};
use rebound::clock::Clock;
use rebound::mail::{
    Address, Envelope, MessageId, Recipient, Reply, ReversePath, Stage, Timestamp,
};
use rebound::store::record::{
    Attempt, Batch, Bounce, BounceId, CapturedBy, Confidence, Decision, KeyScope, Match,
    MatchMethod, Origin, Response, Submission, bounce_key,
};
use rebound::store::{Options, Store};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::daemon::{Daemon, new_dir};
use crate::{percentile, rate};

pub(crate) async fn run(long: bool) {
    let count = if long { 1_000_000 } else { 50_000 };
    println!("\nlookup: by Message-ID among {count} messages, one keep-alive connection");
    let dir = new_dir("lookup");
    let ids = fill(&dir.join("data"), count).await;
    let started = Instant::now();
    let daemon = Daemon::start(&dir, None);
    println!("{:<44} {:>10.2} s", "the daemon starts in", started.elapsed().as_secs_f64());
    let mut connection = TcpStream::connect(("127.0.0.1", daemon.http)).await.unwrap();
    connection.set_nodelay(true).unwrap();
    let requests = 20_000;
    let mut times = Vec::new();
    for number in 0..requests {
        let started = Instant::now();
        ask(&mut connection, "/health").await;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        std::hint::black_box(number);
    }
    report("/health", &mut times, None);
    let base = times.len() as f64 / (times.iter().sum::<f64>() / 1e6);
    times.clear();
    for number in 0..requests {
        // A large odd step visits the ids in no order that a cache could like.
        let id = &ids[number * 7919 % ids.len()];
        let started = Instant::now();
        let body = ask(&mut connection, &format!("/v1/bounces/{id}")).await;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        assert!(body.contains(id), "{body}");
    }
    report("/v1/bounces/{messageId}", &mut times, Some(("/health", base)));
    crate::wrk::run(&dir, daemon.http, &ids, RECIPIENT).await;
    drop(daemon);
    std::fs::remove_dir_all(dir).unwrap();
}

fn report(name: &str, times: &mut [f64], baseline: Option<(&str, f64)>) {
    let seconds = times.iter().sum::<f64>() / 1e6;
    times.sort_by(f64::total_cmp);
    rate(name, times.len(), seconds, baseline);
    let (p50, p99) = (percentile(times, 50.0), percentile(times, 99.0));
    println!("{:<44} p50 {p50:.0} us, p99 {p99:.0} us", "");
}

/// Stores that many messages that were relayed, every tenth of which bounces, and returns their
/// Message-IDs.
async fn fill(dir: &std::path::Path, count: usize) -> Vec<String> {
    std::fs::create_dir_all(dir).unwrap();
    let clock = Clock::system();
    let keep = Duration::from_secs(90 * 24 * 3600);
    let options = Options { dir: dir.to_owned(), keep, bodies: Duration::ZERO };
    let store = Store::open(&options, clock.clone()).expect("a store");
    let started = Instant::now();
    let mut ids = Vec::with_capacity(count);
    let mut tickets = Vec::new();
    for number in 0..count {
        // The index is filled more slowly than the journal; past a bound the store says so.
        while store.stats().backlog_bytes > BACKLOG_BYTES_MAX {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let id = format!("m{number}.bench@example.com");
        let submission = submission(&store, &id, clock.now());
        let relayed = relayed(&submission, clock.now());
        let bounces = if number % 10 == 0 { vec![bounced(&submission, number)] } else { vec![] };
        let mut writer = store.body_writer(submission.queue_id);
        writer.write(b"Subject: x\r\n\r\nbody\r\n").await.expect("a body");
        let body = writer.finish().await.expect("a body");
        tickets.push(store.accept(submission, body).expect("room in the store"));
        let batch = Batch { attempts: vec![relayed], bounces, ..Batch::default() };
        tickets.push(store.commit(batch).expect("room in the store"));
        ids.push(id);
        if tickets.len() >= 500 {
            for ticket in tickets.drain(..) {
                ticket.synced().await.expect("synced");
            }
        }
    }
    for ticket in tickets {
        ticket.synced().await.expect("synced");
    }
    store.close().await;
    rate("messages stored, each with its attempt", count, started.elapsed().as_secs_f64(), None);
    ids
}

fn submission(store: &Store, id: &str, now: Timestamp) -> Submission {
    let recipient = Recipient::from(Address::parse(RECIPIENT).unwrap());
    Submission {
        queue_id: store.new_queue_id(),
        message_id: MessageId::parse(id).unwrap(),
        account: "default".to_owned(),
        received_at: now,
        envelope: Envelope {
            reverse_path: ReversePath::Address(Address::parse("app@example.com").unwrap()),
            recipients: vec![recipient],
            body: rebound::mail::envelope::BodyKind::SevenBit,
            smtputf8: false,
            dsn: rebound::mail::MailDsn::default(),
        },
        header: format!("Subject: x\r\nMessage-ID: <{id}>\r\n").into_bytes(),
        size_bytes: 20,
        long_lines: false,
        origin: Origin::App,
        meta: std::collections::BTreeMap::new(),
        client: None,
        return_path: rebound::store::record::ReturnPathMode::Verp,
        dsn: true,
        source: Default::default(),
        control: Default::default(),
    }
}

fn relayed(submission: &Submission, now: Timestamp) -> Attempt {
    Attempt {
        queue_id: submission.queue_id,
        recipient: 0,
        number: 1,
        started_at: now,
        ended_at: now,
        stage: Stage::End,
        remote_mta: Some("mx.example.com[192.0.2.1]:25".to_owned()),
        reply: Reply::parse("250 2.0.0 ok"),
        error: None,
        remote_queue_id: None,
        alias: None,
        tls: None,
        decision: Decision::Relayed,
        notice_owed: false,
    }
}

fn bounced(submission: &Submission, number: usize) -> Bounce {
    let category = Category::UserUnknown;
    let scope = KeyScope::Recipient(submission.queue_id, 0);
    Bounce {
        id: BounceId(format!("{:012x}{number:08x}", submission.received_at.as_millis())),
        key: bounce_key(scope, RECIPIENT, Action::Failed),
        date: submission.received_at,
        captured_by: CapturedBy::Listener,
        action: Action::Failed,
        recipient: RECIPIENT.to_owned(),
        queue_id: Some(submission.queue_id),
        recipient_index: Some(0),
        matched: Some(Match::new(MatchMethod::Token, Confidence::Certain)),
        report_id: None,
        response: Response {
            source: "smtp".to_owned(),
            message: "550 5.1.1 no such user".to_owned(),
            status: None,
            code: Some(550),
            command: None,
            classification: Classification {
                category,
                recommended_action: category.recommended_action(),
                fault: category.fault(),
                retry_after_secs: None,
                blocklist: None,
                rule: String::new(),
            },
        },
        mta: None,
        remote_queue_id: None,
        original_message_id: None,
        envelope_id: None,
        final_recipient: None,
        original_recipient: None,
    }
}

/// One request on a kept connection: the body.
async fn ask(connection: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let mut block = vec![0; 16_384];
    loop {
        let read = connection.read(&mut block).await.unwrap();
        assert!(read > 0, "the server closed the connection");
        answer.extend_from_slice(&block[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .find_map(|line| {
                    line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok()
                })
                .unwrap_or(0_usize);
            if body.len() >= length {
                return body.to_owned();
            }
        }
    }
}

/// Whom all mails are for.
const RECIPIENT: &str = "user@example.com";
/// Octets that wait for the index, well below what the store takes.
const BACKLOG_BYTES_MAX: usize = 32 << 20;
