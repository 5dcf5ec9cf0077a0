//! What the store promises, held against real files.

mod basics;
mod crash;
mod damage;
mod deliveries;
mod faults;
mod feed;
mod kept;
mod orders;
mod search;
mod suppressions;
mod upkeep;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::record::{
    Attempt, Batch, Bounce, BounceId, CapturedBy, Confidence, Decision, Match, MatchMethod, Origin,
    ReportCaptured, ReportId, ReportReceived, Response, ReturnPathMode, Submission,
};
use super::shared::Tuning;
use super::{Body, Options, Store, StoreError};
use crate::bounce::{Action, Category, Classification, Verdict};
use crate::clock::Clock;
use crate::mail::envelope::BodyKind;
use crate::mail::{
    Address, Envelope, MailDsn, MessageId, QueueId, Recipient, Reply, ReversePath, Stage, Timestamp,
};

/// A directory that is removed when the test ends.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        use std::hash::{BuildHasher, Hasher};
        let random = std::hash::RandomState::new().build_hasher().finish();
        let path = std::env::temp_dir().join(format!("rebound-store-{random:016x}"));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn options(&self) -> Options {
        let keep = Duration::from_hours(90 * 24);
        Options { dir: self.0.clone(), keep, bodies: Duration::ZERO }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap();
    }
}

pub(super) const START: Timestamp = Timestamp::from_millis(1_665_576_640_980);
pub(super) const DAY: Duration = Duration::from_hours(24);

pub(super) fn clock() -> Clock {
    Clock::manual(START)
}

/// Small segments and no checkpoint by time, so that tests say when things happen.
pub(super) fn tuning() -> Tuning {
    Tuning {
        segment_bytes: 1 << 20,
        checkpoint_every: Duration::from_millis(20),
        retry_after: Duration::from_millis(5),
        ..Tuning::default()
    }
}

pub(super) fn open(dir: &TempDir) -> Store {
    Store::open_tuned(&dir.options(), clock(), tuning()).unwrap()
}

pub(super) fn submission(queue_id: QueueId, to: &[&str]) -> Submission {
    let recipients = to.iter().map(|to| Recipient::from(Address::parse(to).unwrap())).collect();
    Submission {
        queue_id,
        message_id: MessageId::parse(&format!("{queue_id}@app.test")).unwrap(),
        account: "default".to_owned(),
        received_at: queue_id.time(),
        envelope: Envelope {
            reverse_path: ReversePath::Address(Address::parse("app@app.test").unwrap()),
            recipients,
            body: BodyKind::SevenBit,
            smtputf8: false,
            dsn: MailDsn::default(),
        },
        header: b"Subject: a\r\n".to_vec(),
        size_bytes: 100,
        long_lines: false,
        origin: Origin::App,
        meta: std::collections::BTreeMap::new(),
        client: None,
        return_path: ReturnPathMode::Preserve,
        dsn: true,
        source: Default::default(),
        control: Default::default(),
    }
}

pub(super) async fn body(store: &Store, queue_id: QueueId, octets: &[u8]) -> Body {
    let mut writer = store.body_writer(queue_id);
    for chunk in octets.chunks(65_536) {
        writer.write(chunk).await.unwrap();
    }
    writer.finish().await.unwrap()
}

/// Accepts a mail and waits until it is on disk.
pub(super) async fn accepted(store: &Store, to: &[&str], octets: &[u8]) -> QueueId {
    let queue_id = store.new_queue_id();
    let body = body(store, queue_id, octets).await;
    store.accept(submission(queue_id, to), body).unwrap().synced().await.unwrap();
    queue_id
}

pub(super) async fn committed(store: &Store, batch: Batch) {
    store.commit(batch).unwrap().synced().await.unwrap();
}

pub(super) async fn read_body(store: &Store, queue_id: QueueId) -> Result<Vec<u8>, StoreError> {
    use tokio::io::AsyncReadExt;
    let mut octets = Vec::new();
    store.body(queue_id).await?.read_to_end(&mut octets).await.unwrap();
    Ok(octets)
}

pub(super) fn attempt(
    queue_id: QueueId,
    recipient: u32,
    number: u32,
    decision: Decision,
) -> Attempt {
    Attempt {
        queue_id,
        recipient,
        number,
        started_at: queue_id.time(),
        ended_at: queue_id.time().plus(Duration::from_millis(5)),
        stage: Stage::End,
        remote_mta: Some("mx.test[192.0.2.1]:25".to_owned()),
        reply: Reply::parse("250 2.0.0 ok"),
        error: None,
        remote_queue_id: None,
        alias: None,
        tls: None,
        decision,
        notice_owed: false,
    }
}

pub(super) fn attempts(attempts: Vec<Attempt>) -> Batch {
    Batch { attempts, ..Batch::default() }
}

pub(super) fn bounce(queue_id: Option<QueueId>, key: u8, date: Timestamp) -> Bounce {
    let key = [key; 16];
    let id = QueueId::new(date, u32::from_be_bytes([key[0]; 4]));
    let digits = id.as_bytes().iter().map(|octet| format!("{octet:02x}")).collect();
    Bounce {
        id: BounceId(digits),
        key,
        date,
        captured_by: CapturedBy::Listener,
        action: Action::Failed,
        recipient: "To@Example.test".to_owned(),
        queue_id,
        recipient_index: queue_id.map(|_| 0),
        matched: queue_id.map(|_| Match::new(MatchMethod::Token, Confidence::Certain)),
        report_id: None,
        response: Response {
            source: "smtp".to_owned(),
            message: "550 5.1.1 no such user".to_owned(),
            status: None,
            code: Some(550),
            command: None,
            classification: classification(),
        },
        mta: None,
        remote_queue_id: None,
        original_message_id: None,
        envelope_id: None,
        final_recipient: None,
        original_recipient: None,
    }
}

pub(super) fn report(id: QueueId, digest: u8) -> ReportReceived {
    ReportReceived {
        id: ReportId(id),
        received_at: id.time(),
        captured_by: CapturedBy::Listener,
        reverse_path: String::new(),
        recipients: vec!["b+token@bounces.test".to_owned()],
        tokens: Vec::new(),
        digest: [digest; 16],
        raw: b"Subject: failure notice\r\n\r\nsorry\r\n".to_vec(),
    }
}

pub(super) fn mark(id: ReportId, forward_to: Option<&str>) -> ReportCaptured {
    ReportCaptured {
        id,
        captured_at: id.0.time(),
        verdict: Verdict::Bounce,
        matched: Vec::new(),
        own_notice: false,
        forward_to: forward_to.map(str::to_owned),
        reread: false,
        bounced_accounts: Default::default(),
    }
}

/// Waits until something is so, looking again and again; fails after a while.
pub(super) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let waiting = async {
        while !is_so() {
            // Asking without a pause would keep the lock from the threads that are waited for.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "{what}");
}

fn classification() -> Classification {
    let category = Category::UserUnknown;
    Classification {
        category,
        recommended_action: category.recommended_action(),
        fault: category.fault(),
        retry_after_secs: None,
        blocklist: None,
        rule: String::new(),
    }
}
