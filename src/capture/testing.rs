//! Records, reports and a store for the tests of this folder.

use crate::clock::Clock;
use crate::mail::{
    Address, Envelope, MailDsn, MessageId, QueueId, Recipient, RecipientDsn, ReversePath, Stage,
    Timestamp, envelope::BodyKind,
};
use crate::secret::{random_u64, sha256_hex};
use crate::store::record::{
    Attempt, CapturedBy, Decision, Origin, ReportId, ReportReceived, ReturnPathMode, Submission,
};
use crate::store::state::State;
use crate::store::{LiveMessage, LiveRecipient, Options, Store};
use std::path::PathBuf;
use std::time::Duration;

/// When everything happens.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

pub(super) fn id(unique: u32) -> QueueId {
    QueueId::new(NOW, unique)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(super) fn submission(queue_id: QueueId, recipients: &[&str]) -> Submission {
    let recipients = recipients.iter().map(|text| Recipient::from(address(text))).collect();
    Submission {
        queue_id,
        message_id: MessageId::parse("m1@app.example").unwrap(),
        account: "default".to_owned(),
        received_at: NOW,
        envelope: Envelope {
            reverse_path: ReversePath::Address(address("app@example.com")),
            recipients,
            body: BodyKind::default(),
            smtputf8: false,
            dsn: MailDsn::default(),
        },
        header: b"Message-ID: <m1@app.example>\r\nSubject: one\r\n".to_vec(),
        size_bytes: 100,
        long_lines: false,
        origin: Origin::App,
        meta: [("order".to_owned(), "17".to_owned())].into(),
        client: None,
        return_path: ReturnPathMode::Preserve,
        dsn: true,
        source: Default::default(),
        control: Default::default(),
    }
}

pub(super) fn live(recipients: &[&str]) -> LiveMessage {
    let submission = submission(id(1), recipients);
    let recipients = recipients.iter().map(|text| LiveRecipient {
        under_way: false,
        address: address(text),
        state: State::Queued,
        attempts: 0,
        next_attempt: NOW,
        last: None,
        notice_owed: false,
        dsn: RecipientDsn::default(),
    });
    LiveMessage {
        queue_id: submission.queue_id,
        message_id: submission.message_id,
        account: submission.account,
        origin: submission.origin,
        received_at: submission.received_at,
        reverse_path: submission.envelope.reverse_path,
        return_path: submission.return_path,
        dsn: submission.dsn,
        size_bytes: submission.size_bytes,
        long_lines: submission.long_lines,
        body: BodyKind::default(),
        smtputf8: false,
        dsn_asked: MailDsn::default(),
        send_at: None,
        attempts_max: None,
        held: false,
        delay_notices: 0,
        recipients: recipients.collect(),
    }
}

pub(super) fn attempt(recipient: u32, stage: Stage, decision: Decision) -> Attempt {
    Attempt {
        queue_id: id(1),
        recipient,
        number: 1,
        started_at: NOW,
        ended_at: NOW,
        stage,
        remote_mta: Some("mx.ethereal.email[192.0.2.1]:25".to_owned()),
        reply: None,
        error: None,
        remote_queue_id: None,
        alias: None,
        tls: None,
        decision,
        notice_owed: false,
    }
}

pub(super) fn report(raw: &[u8]) -> ReportReceived {
    let mut digest = [0; 16];
    let hash = sha256_hex(raw);
    digest.iter_mut().zip(hash.bytes()).for_each(|(to, from)| *to = from);
    ReportReceived {
        id: ReportId(id(77)),
        received_at: NOW,
        captured_by: CapturedBy::Listener,
        reverse_path: String::new(),
        recipients: vec!["b@bounces.example".to_owned()],
        tokens: Vec::new(),
        digest,
        raw: raw.to_vec(),
    }
}

/// A store in a directory of its own, which goes with it.
pub(super) struct TestStore {
    pub(super) store: Store,
    dir: PathBuf,
}

impl TestStore {
    pub(super) fn open(clock: &Clock) -> Self {
        let dir = std::env::temp_dir().join(format!("rebound-capture-{:016x}", random_u64()));
        std::fs::create_dir_all(&dir).unwrap();
        let options = Options {
            dir: dir.clone(),
            keep: Duration::from_secs(90 * 86_400),
            bodies: Duration::ZERO,
        };
        Self { store: Store::open(&options, clock.clone()).unwrap(), dir }
    }

    /// Closes the store, of which nobody else may hold a clone, and opens it again.
    pub(super) async fn reopen(&mut self, clock: &Clock) {
        self.store.close().await;
        let elsewhere = self.dir.join("empty");
        std::fs::create_dir_all(&elsewhere).unwrap();
        let keep = Duration::from_secs(90 * 86_400);
        let open = |dir| {
            Store::open(&Options { dir, keep, bodies: Duration::ZERO }, clock.clone()).unwrap()
        };
        // The lock goes with the store that held it.
        self.store = open(elsewhere);
        self.store = open(self.dir.clone());
    }

    /// Takes over a mail as an app hands it in.
    pub(super) async fn accept(&self, submission: Submission) {
        let mut writer = self.store.body_writer(submission.queue_id);
        writer.write(&submission.header).await.unwrap();
        writer.write(b"\r\nhello\r\n").await.unwrap();
        let body = writer.finish().await.unwrap();
        self.store.accept(submission, body).unwrap().synced().await.unwrap();
    }

    pub(super) async fn accept_report(&self, report: ReportReceived) {
        self.store.accept_report(report).unwrap().synced().await.unwrap();
    }

    pub(super) fn states(&self, queue_id: QueueId) -> Vec<State> {
        let record = self.store.message(queue_id).unwrap().unwrap();
        let indexes = 0_u32..u32::try_from(record.submission.envelope.recipients.len()).unwrap();
        let state = |index| {
            crate::store::state::of(
                record.attempts.iter().filter(|attempt| attempt.recipient == index),
                record.bounces.iter().filter(|bounce| bounce.recipient_index == Some(index)),
                &record.orders,
            )
        };
        indexes.map(state).collect()
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// A DSN (RFC 3464) about `recipients`, each with its action, with what `fields` adds to the
/// per-message block and the returned `header`.
pub(super) fn dsn(fields: &str, recipients: &[(&str, &str)], header: &str) -> Vec<u8> {
    let blocks: String = recipients
        .iter()
        .map(|(recipient, action)| {
            let (status, reply) = match *action {
                "failed" => ("5.1.1", "550 5.1.1 No such user here"),
                "delayed" => ("4.2.2", "452 4.2.2 Mailbox full"),
                _ => ("2.0.0", "250 2.0.0 ok"),
            };
            format!(
                "\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: {action}\r\n\
                 Status: {status}\r\nRemote-MTA: dns; mx.example.net\r\n\
                 Diagnostic-Code: smtp; {reply}\r\n"
            )
        })
        .collect();
    format!(
        "From: MAILER-DAEMON@mx.example.net\r\nTo: b@bounces.example\r\n\
         Subject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"b1\"\r\n\r\n\
         --b1\r\nContent-Type: text/plain\r\n\r\nSorry.\r\n\
         --b1\r\nContent-Type: message/delivery-status\r\n\r\n\
         Reporting-MTA: dns; relay.example.net\r\n{fields}{blocks}\r\n\
         --b1\r\nContent-Type: text/rfc822-headers\r\n\r\n{header}\r\n--b1--\r\n"
    )
    .into_bytes()
}
