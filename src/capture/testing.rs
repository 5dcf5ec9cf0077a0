//! Records for the tests of this folder.

use crate::mail::{
    Address, Envelope, MessageId, QueueId, Recipient, ReversePath, Stage, Timestamp,
    envelope::BodyKind,
};
use crate::store::record::{
    Attempt, CapturedBy, Decision, Origin, ReportId, ReportReceived, ReturnPathMode, Submission,
};
use crate::store::state::State;
use crate::store::{LiveMessage, LiveRecipient};

/// When everything happens.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

pub(super) fn id(unique: u32) -> QueueId {
    QueueId::new(NOW, unique)
}

fn address(text: &str) -> Address {
    Address::parse(text).unwrap()
}

pub(super) fn submission(queue_id: QueueId, recipients: &[&str]) -> Submission {
    let recipients = recipients.iter().map(|text| Recipient { address: address(text) }).collect();
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
        },
        header: b"Message-ID: <m1@app.example>\r\nSubject: one\r\n".to_vec(),
        size_bytes: 100,
        origin: Origin::App,
        meta: [("order".to_owned(), "17".to_owned())].into(),
        client: None,
        return_path: ReturnPathMode::Preserve,
        dsn: true,
    }
}

pub(super) fn live(recipients: &[&str]) -> LiveMessage {
    let submission = submission(id(1), recipients);
    let recipients = recipients.iter().map(|text| LiveRecipient {
        address: address(text),
        state: State::Queued,
        attempts: 0,
        next_attempt: NOW,
        last: None,
        notice_owed: false,
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
        body: BodyKind::default(),
        smtputf8: false,
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
        tls: None,
        decision,
        notice_owed: false,
    }
}

pub(super) fn report(raw: &[u8]) -> ReportReceived {
    let mut digest = [0; 16];
    digest.iter_mut().zip(raw).for_each(|(to, from)| *to = *from);
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
