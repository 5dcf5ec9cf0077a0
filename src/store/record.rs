//! The records that survive: what a frame of the journal says once it is decoded.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::deliveries::DeliveryEnded;
use super::suppressions::{ByHandChange, Strike};
use crate::bounce::{Action, Classification};
use crate::mail::{EnhancedStatus, Envelope, MessageId, QueueId, Reply, Stage, Timestamp};

/// One mail taken over from an app, or written by us: the envelope and what was stamped.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submission {
    /// Our name for it.
    pub queue_id: QueueId,
    /// Its Message-ID, the app's own or the one we stamped.
    pub message_id: MessageId,
    /// Whose it is.
    pub account: String,
    /// When it was taken over.
    pub received_at: Timestamp,
    /// Who it is from and for.
    pub envelope: Envelope,
    /// The header block as it will be relayed; the first `HEADER_BYTES_MAX` octets of it.
    #[serde(with = "bytes")]
    pub header: Vec<u8>,
    /// Octets of the whole mail as it will be relayed.
    pub size_bytes: u64,
    /// Whether it has lines longer than SMTP allows (RFC 5321 §4.5.3.1.6).
    #[serde(default)]
    pub long_lines: bool,
    /// An app's mail or our own notice.
    pub origin: Origin,
    /// `X-Rebound-Meta-*` of the app, names in lower case, echoed in every answer about the mail.
    #[serde(default)]
    pub meta: BTreeMap<String, String>,
    /// The peer it came from, for the timeline.
    #[serde(default)]
    pub client: Option<String>,
    /// Which reverse-path it leaves with.
    #[serde(default)]
    pub return_path: ReturnPathMode,
    /// Whether we mail a DSN to the reverse-path when recipients are given up.
    #[serde(default = "yes")]
    pub dsn: bool,
    /// How it was submitted.
    #[serde(default)]
    pub source: Source,
    /// What the app told us alone about it.
    #[serde(default)]
    pub control: Control,
}

/// How a mail was submitted; the words are EmailEngine's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// By SMTP.
    #[default]
    Smtp,
    /// By HTTP.
    Api,
}

/// What an app tells us alone about a mail: with control headers, or beside it over HTTP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    /// The mail is not relayed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_at: Option<Timestamp>,
    /// Attempts after which a recipient is given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// What makes it the same mail when it is submitted again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
}

impl Control {
    /// The same with what `other` says where this says nothing.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            send_at: self.send_at.or(other.send_at),
            attempts_max: self.attempts_max.or(other.attempts_max),
            idempotency: self.idempotency.or(other.idempotency),
        }
    }
}

/// The key under which an app submits a mail once, however often it tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Idempotency {
    /// The app's key.
    pub key: String,
    /// A hash over what was submitted with it, in hexadecimal.
    pub fingerprint: String,
}

impl Submission {
    /// When it was to be tried first: its age counts from there.
    pub fn begins_at(&self) -> Timestamp {
        begins_at(self.received_at, self.control.send_at)
    }

    /// Whether it ended as it was taken over, because nobody of its recipients may be written to.
    pub fn is_all_suppressed(&self) -> bool {
        self.envelope.recipients.iter().all(|recipient| recipient.is_suppressed)
    }
}

/// When a mail that was taken over at `received_at` is to be tried first.
pub fn begins_at(received_at: Timestamp, send_at: Option<Timestamp>) -> Timestamp {
    send_at.map_or(received_at, |time| time.max(received_at))
}

/// What a person, or an app, has us do with a mail in the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The submission.
    pub queue_id: QueueId,
    /// When it was given.
    pub at: Timestamp,
    /// What is to be done.
    pub action: OrderAction,
}

/// What can be ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderAction {
    /// Nobody who waits is tried any more.
    Cancel,
    /// Everybody who waits is tried now, whether the mail was held or to be sent later.
    Retry,
    /// Nobody is tried until the mail is released.
    Hold,
    /// The mail goes on as if it had not been held.
    Release,
}

/// Who wrote a mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// An app.
    App,
    /// We did: a DSN, a delay notice or a forwarded report; in no list, never answered.
    Notice,
}

/// Which reverse-path a mail is relayed with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReturnPathMode {
    /// The app's own.
    #[default]
    Preserve,
    /// `prefix+token@bounce-domain`, one per recipient.
    Verp,
    /// `user+prefix.token@own-domain`, one per recipient.
    Plus,
}

/// One try to hand one recipient to the next hop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The submission.
    pub queue_id: QueueId,
    /// The recipient's place in the envelope.
    pub recipient: u32,
    /// 1 for the first try.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When its outcome was known.
    pub ended_at: Timestamp,
    /// How far the conversation came.
    pub stage: Stage,
    /// The next hop, as `name[ip]:port`; absent when none could be found.
    #[serde(default)]
    pub remote_mta: Option<String>,
    /// What the next hop answered; absent when the connection failed.
    #[serde(default)]
    pub reply: Option<Reply>,
    /// What failed, where there is no reply: `connection refused` and the like.
    #[serde(default)]
    pub error: Option<String>,
    /// The next hop's name for the mail, from its 250.
    #[serde(default)]
    pub remote_queue_id: Option<String>,
    /// The Message-ID that the next hop gave the mail instead of its own, from its 250.
    #[serde(default)]
    pub alias: Option<MessageId>,
    /// The TLS version and cipher, where the connection had TLS.
    #[serde(default)]
    pub tls: Option<String>,
    /// What follows from it.
    pub decision: Decision,
    /// Whether the app is owed a DSN about it: set with `Failed` and `Expired`, and with `Relayed`
    /// where the app wants to know and the next hop will not tell.
    #[serde(default)]
    pub notice_owed: bool,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// The next hop took it.
    Relayed,
    /// It is tried again then.
    RetryAt(Timestamp),
    /// It was refused for good.
    Failed,
    /// Its time in the queue is over.
    Expired,
}

/// What is known of one recipient from one source: a bounce when the action is `failed`,
/// delivery news otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bounce {
    /// Our name for it.
    pub id: BounceId,
    /// What makes it the same bounce when it is seen again.
    pub key: BounceKey,
    /// When it was captured.
    pub date: Timestamp,
    /// Where it was caught.
    pub captured_by: CapturedBy,
    /// What happened.
    pub action: Action,
    /// The recipient as the app gave it where the mail is known, else as the report gives it.
    pub recipient: String,
    /// The submission it was tied to.
    #[serde(default)]
    pub queue_id: Option<QueueId>,
    /// The recipient's place in that submission's envelope.
    #[serde(default)]
    pub recipient_index: Option<u32>,
    /// How it was tied.
    #[serde(default)]
    pub matched: Option<Match>,
    /// The report it was read from; absent for a refusal in the conversation.
    #[serde(default)]
    pub report_id: Option<ReportId>,
    /// What was answered.
    pub response: Response,
    /// The remote MTA, else the reporting MTA.
    #[serde(default)]
    pub mta: Option<String>,
    /// The reporting MTA's queue id.
    #[serde(default)]
    pub remote_queue_id: Option<String>,
    /// The Message-ID that the report names.
    #[serde(default)]
    pub original_message_id: Option<MessageId>,
    /// The report's `Original-Envelope-Id`.
    #[serde(default)]
    pub envelope_id: Option<String>,
    /// The address that failed in the end.
    #[serde(default)]
    pub final_recipient: Option<String>,
    /// The address as the report says it was given.
    #[serde(default)]
    pub original_recipient: Option<String>,
}

impl Bounce {
    /// Whether it is a bounce rather than news of a delay or a delivery.
    pub fn is_failure(&self) -> bool {
        self.action == Action::Failed
    }
}

/// What was answered, by whom it was said, and what we make of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// Who speaks: `smtp`, or the diagnostic type of a report (`x-unix`, ...).
    pub source: String,
    /// The reply or explanation on one line.
    pub message: String,
    /// The enhanced status; `5.0.0` where only the class is known.
    #[serde(default)]
    pub status: Option<EnhancedStatus>,
    /// The SMTP code.
    #[serde(default)]
    pub code: Option<u16>,
    /// The command that was answered.
    #[serde(default)]
    pub command: Option<String>,
    /// Category, recommended action, fault.
    pub classification: Classification,
}

/// Where a bounce was caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CapturedBy {
    /// In the conversation with the next hop.
    Inline,
    /// By the inbound listener.
    Listener,
    /// In a mailbox.
    Imap,
    /// Through `POST /v1/reports`.
    Api,
}

/// How evidence was tied to a submission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Match {
    /// The step of the ladder.
    pub method: MatchMethod,
    /// How far it is to be trusted.
    pub confidence: Confidence,
    /// Whether the operator lets it change a state all the same.
    #[serde(default, rename = "changesState", skip_serializing_if = "std::ops::Not::not")]
    pub changes_state: bool,
}

impl Match {
    /// A match that changes states where its confidence lets it.
    pub const fn new(method: MatchMethod, confidence: Confidence) -> Self {
        Self { method, confidence, changes_state: false }
    }

    /// Whether it may change the state of a recipient.
    pub fn is_believed(self) -> bool {
        self.confidence > Confidence::Low || self.changes_state
    }
}

/// The steps of the correlation ladder, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatchMethod {
    /// It happened in our own conversation.
    Conversation,
    /// The return token.
    Token,
    /// `Original-Envelope-Id`.
    EnvelopeId,
    /// The Message-ID in the returned header.
    MessageId,
    /// The Message-ID in the returned header is one that the next hop's 250 named.
    Alias,
    /// `X-Rebound-Id` in the returned header.
    ReboundId,
    /// The next hop's queue id.
    RemoteQueueId,
    /// `In-Reply-To` or `References` of the report.
    References,
    /// The recipient alone, and the time.
    Recipient,
}

/// How far a match is to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// A guess: shown, but changes no state unless the operator lets it.
    Low,
    /// A known id and a recipient of that mail.
    High,
    /// Authenticated.
    Certain,
}

/// A report as it arrived.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportReceived {
    /// Our name for it.
    pub id: ReportId,
    /// When it arrived.
    pub received_at: Timestamp,
    /// Where.
    pub captured_by: CapturedBy,
    /// The reverse-path it came with, without angle brackets.
    pub reverse_path: String,
    /// The addresses it came for.
    pub recipients: Vec<String>,
    /// What valid return tokens among those named: submission and recipient.
    pub tokens: Vec<(QueueId, u32)>,
    /// blake3 of the mail without the trace fields that each delivery adds.
    pub digest: [u8; 16],
    /// The mail.
    #[serde(with = "bytes")]
    pub raw: Vec<u8>,
}

/// What was made of a report: the mark that it has been captured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReportCaptured {
    /// The report.
    pub id: ReportId,
    /// When.
    pub captured_at: Timestamp,
    /// What it is.
    pub verdict: crate::bounce::Verdict,
    /// The submissions it was tied to; none when it matches nothing.
    pub matched: Vec<QueueId>,
    /// Whether it is a notice of ours that came back.
    #[serde(default)]
    pub own_notice: bool,
    /// Where it is to be forwarded; empty when it is not.
    #[serde(default)]
    pub forward_to: Option<String>,
    /// Whether an earlier mark said where it goes on to: this one owes no forwarding.
    #[serde(default)]
    pub reread: bool,
    /// The accounts of the mails that it brought bounces of.
    #[serde(default)]
    pub bounced_accounts: BTreeSet<String>,
}

impl ReportCaptured {
    /// Whether the report is one of those that match nothing.
    pub fn is_unmatched(&self) -> bool {
        self.matched.is_empty() && !self.own_notice
    }

    /// Whether the report is to be forwarded because of this mark.
    pub fn owes_forward(&self) -> bool {
        self.forward_to.is_some() && !self.reread
    }
}

/// How far a folder of a mailbox has been read: everything up to `last_uid` that may be a report
/// is captured, and what was to be done with it in the folder is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FolderCursor {
    /// The mailbox, by its name in the settings.
    pub mailbox: String,
    /// The folder, by its name on the server.
    pub folder: String,
    /// What the server's unique ids are valid for (RFC 3501 §2.3.1.1).
    pub uid_validity: u32,
    /// The highest unique id that is done with.
    pub last_uid: u32,
    /// The folder's highest mod-sequence when it was read, where the server has them (RFC 7162).
    #[serde(default)]
    pub highest_mod_seq: Option<u64>,
    /// Mails with a lower unique id were there when the folder was first seen: of those, the
    /// ones that arrived at `read_from` or later are read.
    #[serde(default)]
    pub old_below: u32,
    /// When mails of the folder began to matter.
    pub read_from: Timestamp,
}

/// Names a folder of a mailbox, or a follower of the feed.
pub type CursorKey = [u8; 10];

impl FolderCursor {
    /// blake3 of mailbox and folder.
    pub fn key_of(mailbox: &str, folder: &str) -> CursorKey {
        let mut hasher = blake3::Hasher::new();
        // The name of a mailbox holds no zero octet.
        hasher.update(mailbox.as_bytes()).update(b"\0").update(folder.as_bytes());
        let mut key = CursorKey::default();
        hasher.finalize_xof().fill(&mut key);
        key
    }

    /// The key of this one.
    pub fn key(&self) -> CursorKey {
        Self::key_of(&self.mailbox, &self.folder)
    }
}

/// A mail is closed: nothing waits, and no news is expected any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Closed {
    /// The submission.
    pub queue_id: QueueId,
    /// When it was found to be so.
    pub closed_at: Timestamp,
}

/// How far somebody has come who follows the feed: the event at `place` and all before it are
/// done with, except for those that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedCursor {
    /// Who follows.
    pub follower: String,
    /// The last place that has been looked at.
    pub place: u64,
    /// Events up to there that are still to be delivered, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<Delivery>,
    /// Events that were given up, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub given_up: Vec<Delivery>,
    /// Since when nothing is delivered because the other side said that it is gone, and the
    /// digest of the settings to which that applies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled: Option<(Timestamp, [u8; 16])>,
}

/// An event on its way to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// Its place in the feed.
    pub place: u64,
    /// The mail that it is about: events of one mail are delivered in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<QueueId>,
    /// The id of the event; empty where a version wrote it that did not keep it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event_id: String,
    /// The name of the event; empty in the same case.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub event: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was tried first.
    pub first_attempt: Timestamp,
    /// When it is tried next, or was given up.
    pub next_attempt: Timestamp,
    /// Why it has not been taken.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub error: String,
}

impl FeedCursor {
    /// blake3 of the follower.
    pub fn key(&self) -> CursorKey {
        Self::key_of(&self.follower)
    }

    /// The key of a follower, which is that of no folder.
    pub fn key_of(follower: &str) -> CursorKey {
        let mut key = CursorKey::default();
        let mut hasher = blake3::Hasher::new_derive_key("rebound feed cursor");
        hasher.update(follower.as_bytes()).finalize_xof().fill(&mut key);
        key
    }
}

/// A notice that has been written: the debt it settles.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NoticeSent {
    /// The DSN about recipients of a submission that were given up.
    Failure {
        /// The submission.
        queue_id: QueueId,
        /// The recipients it names.
        recipients: Vec<u32>,
    },
    /// The DSN about recipients that were handed to a next hop that reports no success.
    Relayed {
        /// The submission.
        queue_id: QueueId,
        /// The recipients it names.
        recipients: Vec<u32>,
    },
    /// The delay notice about a submission.
    Delay {
        /// The submission.
        queue_id: QueueId,
        /// How many delay notices it has had with this one.
        count: u32,
    },
    /// The forwarded report.
    Forward {
        /// The report.
        report_id: ReportId,
    },
}

/// Names a bounce: 48 bits of time and 32 bits of its key, in hexadecimal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BounceId(pub String);

/// Names a report: 48 bits of time and 32 bits that make it unique, written as a queue id is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReportId(pub QueueId);

/// The same for all evidence of one bounce: blake3 over the submission (or the report's digest
/// where none matched), the recipient and the action.
pub type BounceKey = [u8; 16];

/// Within what a bounce is captured once.
#[derive(Clone, Copy, Debug)]
pub enum KeyScope<'a> {
    /// One recipient of a submission.
    Recipient(QueueId, u32),
    /// One report, by its digest.
    Report(&'a [u8; 16]),
}

/// The key of a bounce; `recipient` is in the form in which addresses are compared.
pub fn bounce_key(scope: KeyScope<'_>, recipient: &str, action: Action) -> BounceKey {
    let mut hasher = blake3::Hasher::new();
    match scope {
        KeyScope::Recipient(queue_id, index) => {
            hasher.update(b"s").update(queue_id.as_bytes()).update(&index.to_be_bytes())
        }
        KeyScope::Report(digest) => hasher.update(b"r").update(digest),
    };
    // The action holds no zero octet, so that the two texts cannot run into each other.
    hasher.update(action.as_str().as_bytes()).update(b"\0").update(recipient.as_bytes());
    let mut key = BounceKey::default();
    hasher.finalize_xof().fill(&mut key);
    key
}

/// What one `Store::commit` writes: all of it survives a crash, or none.
#[derive(Debug, Default)]
pub struct Batch {
    /// Attempts, with what follows from them for the queue.
    pub attempts: Vec<Attempt>,
    /// Bounces and delivery news.
    pub bounces: Vec<Bounce>,
    /// Known bounces as they are read now: each takes the place of the one with its id, whose
    /// key, date, recipient, submission, report and action it must have. Both stay in the journal.
    pub revisions: Vec<Bounce>,
    /// The mark that a report has been captured.
    pub report: Option<ReportCaptured>,
    /// Debts that are settled.
    pub notices: Vec<NoticeSent>,
    /// How far folders of mailboxes have been read; each takes the place of the last one.
    pub cursors: Vec<FolderCursor>,
    /// What is ordered to be done with mails in the queue.
    pub orders: Vec<Order>,
    /// What the bounces count for against their recipients; those of known ones are left out.
    pub strikes: Vec<Strike>,
    /// Suppressed addresses that somebody adds or takes away.
    pub suppressions: Vec<ByHandChange>,
    /// Mails that are closed.
    pub closings: Vec<Closed>,
    /// How far followers of the feed have come; each takes the place of the last one.
    pub feed_cursors: Vec<FeedCursor>,
    /// Deliveries to webhooks that have ended.
    pub deliveries: Vec<DeliveryEnded>,
    /// Mail of ours that is submitted in the same write.
    pub submissions: Vec<(Submission, Vec<u8>)>,
}

/// Octets of a header block that are kept in the record.
pub const HEADER_BYTES_MAX: usize = 65_536;

fn yes() -> bool {
    true
}

/// Octets as one binary value instead of a list of numbers.
mod bytes {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("octets")
            }

            fn visit_bytes<E>(self, octets: &[u8]) -> Result<Vec<u8>, E> {
                Ok(octets.to_vec())
            }
        }
        from.deserialize_bytes(Bytes)
    }
}
