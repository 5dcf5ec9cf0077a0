//! What the tests of the view show: the article's mail and its bounce.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bounce::{Action, Category, Classification};
use crate::mail::{
    Address, EnhancedStatus, Envelope, MailDsn, MessageId, QueueId, Recipient, Reply, ReversePath,
    Stage, Timestamp, envelope::BodyKind,
};
use crate::store::MessageRecord;
use crate::store::record::{
    Attempt, Bounce, BounceId, CapturedBy, Confidence, Decision, Match, MatchMethod, Origin,
    ReportId, Response, ReturnPathMode, Submission,
};

/// 2022-10-12T12:10:40.980Z, the date of the article's webhook.
pub(super) const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

/// The name of the mail.
pub(super) fn queue_id() -> QueueId {
    QueueId::new(NOW, 1)
}

/// The mail of the article, for these recipients.
pub(super) fn mail(recipients: &[&str]) -> Submission {
    let address = |text: &&str| Recipient::from(Address::parse(text).unwrap());
    Submission {
        queue_id: queue_id(),
        message_id: MessageId::parse("3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee").unwrap(),
        account: "ekiri".to_owned(),
        received_at: Timestamp::from_millis(1_665_576_634_845),
        envelope: Envelope {
            reverse_path: ReversePath::Address(Address::parse("andris@ekiri.ee").unwrap()),
            recipients: recipients.iter().map(address).collect(),
            body: BodyKind::default(),
            smtputf8: false,
            dsn: MailDsn::default(),
        },
        header: b"Return-Path: <andris@ekiri.ee>\r\n\
            Content-Type: text/plain;\r\n charset=utf-8\r\n\
            From: Andris Ekiri <andris@ekiri.ee>\r\n\
            To: unknown@ethereal.email\r\n\
            Subject: Test message\r\n\
            Message-ID: <3e013ba5-3bd2-a5f6-b102-5997c7d4d843@ekiri.ee>\r\n\
            Content-Transfer-Encoding: 7bit\r\n\
            Date: Wed, 12 Oct 2022 12:10:34 +0000\r\n\
            MIME-Version: 1.0\r\n"
            .to_vec(),
        size_bytes: 512,
        long_lines: false,
        origin: Origin::App,
        meta: BTreeMap::new(),
        client: None,
        return_path: ReturnPathMode::Verp,
        dsn: true,
        source: Default::default(),
        control: Default::default(),
    }
}

/// The article's bounce.
pub(super) fn reported() -> Bounce {
    let category = Category::UserUnknown;
    Bounce {
        id: BounceId("0183cc1ab07c00000001".to_owned()),
        key: [1; 16],
        date: NOW,
        captured_by: CapturedBy::Listener,
        action: Action::Failed,
        recipient: "unknown@ethereal.email".to_owned(),
        queue_id: Some(queue_id()),
        recipient_index: Some(0),
        matched: Some(Match::new(MatchMethod::Token, Confidence::Certain)),
        report_id: Some(ReportId(QueueId::new(NOW, 2))),
        response: Response {
            source: "smtp".to_owned(),
            message: "550 No such user here".to_owned(),
            status: EnhancedStatus::parse("5.0.0"),
            code: Some(550),
            command: None,
            classification: Classification {
                category,
                recommended_action: category.recommended_action(),
                fault: category.fault(),
                retry_after_secs: None,
                blocklist: None,
                rule: "r1".to_owned(),
            },
        },
        mta: Some("mx.ethereal.email".to_owned()),
        remote_queue_id: Some("B7D3F8220C".to_owned()),
        original_message_id: None,
        envelope_id: None,
        final_recipient: Some("unknown@ethereal.email".to_owned()),
        original_recipient: None,
    }
}

/// An attempt for a recipient.
pub(super) fn tried(recipient: u32, number: u32, reply: &str, decision: Decision) -> Attempt {
    Attempt {
        queue_id: queue_id(),
        recipient,
        number,
        started_at: NOW.minus(Duration::from_millis(800)),
        ended_at: NOW,
        stage: Stage::Rcpt,
        remote_mta: Some("mx.ethereal.email[192.0.2.1]:25".to_owned()),
        reply: Reply::parse(reply),
        error: None,
        remote_queue_id: None,
        alias: None,
        tls: None,
        decision,
        notice_owed: false,
    }
}

/// The mail for two recipients, and what became of it.
pub(super) fn record(attempts: Vec<Attempt>, bounces: Vec<Bounce>) -> MessageRecord {
    let submission = mail(&["unknown@ethereal.email", "known@ethereal.email"]);
    MessageRecord { submission, attempts, bounces, orders: Vec::new() }
}
