//! One connection that brings reports: the service behind the SMTP and LMTP engine.

use std::sync::Arc;
use std::time::Duration;

use super::admit::{Admission, NotAdmitted, admit};
use super::caps::{Caps, Limits, TokenKey, Verdict};
use crate::clock::Clock;
use crate::config::{Network, Settings};
use crate::mail::envelope::Recipient;
use crate::mail::{Address, EnhancedStatus, QueueId, Reply, ReversePath};
use crate::maillog::{self, Line};
use crate::metrics::Metrics;
use crate::net::memory::{Memory, Share};
use crate::secret::KeyRing;
use crate::smtp::{Auth, BareNewline, Hello, MailCommand, Peer, Protocol, Service, SessionOptions};
use crate::store::record::{CapturedBy, ReportId, ReportReceived};
use crate::store::{Store, StoreError, report_digest};

/// What all connections share.
#[derive(Clone)]
pub struct Shared {
    /// Where reports are kept.
    pub store: Store,
    /// Who signed the return tokens.
    pub keys: Arc<KeyRing>,
    /// Tells the time.
    pub clock: Clock,
    /// The counters.
    pub metrics: Metrics,
    /// What was stored today.
    pub caps: Arc<Caps>,
    /// What reports on their way in take up.
    pub memory: Memory,
}

/// What one connection knows.
pub struct Session {
    settings: Arc<Settings>,
    shared: Shared,
    peer: Peer,
    protocol: Protocol,
    reverse_path: ReversePath,
    recipients: Vec<Address>,
    tokens: Vec<TokenKey>,
    body: Body,
}

/// A report on its way in.
enum Body {
    /// There is none.
    None,
    /// It will be stored.
    Kept { octets: Vec<u8>, share: Share },
    /// There are enough for its tokens: it is taken and counted.
    Counted,
}

impl Session {
    /// A connection from `peer`, judged by `settings` to its end.
    pub fn new(settings: Arc<Settings>, shared: Shared, peer: Peer, protocol: Protocol) -> Self {
        Self {
            settings,
            shared,
            peer,
            protocol,
            reverse_path: ReversePath::NULL,
            recipients: Vec::new(),
            tokens: Vec::new(),
            body: Body::None,
        }
    }

    /// What the engine must know to serve this connection.
    pub fn options(&self) -> SessionOptions {
        let inbound = &self.settings.inbound;
        // The time limits are those of every SMTP server of ours.
        let submission = &self.settings.submission;
        SessionOptions {
            hostname: self.settings.hostname.clone(),
            protocol: self.protocol,
            auth: Auth::None,
            scram: false,
            xclient: Network::any_contains(&inbound.xclient_networks, self.peer.address),
            message_bytes_max: inbound.message_bytes_max,
            recipients_max: inbound.recipients_max,
            transactions_max: submission.transactions_max,
            errors_max: submission.errors_max,
            recipients_are_errors: true,
            idle_commands_max: inbound.idle_commands_max,
            command_timeout: Duration::from_secs(submission.command_timeout_secs),
            data_timeout: Duration::from_secs(submission.data_timeout_secs),
            message_timeout: Duration::from_secs(submission.message_timeout_secs),
            write_timeout: Duration::from_secs(submission.command_timeout_secs),
            // Nothing goes on from here, and what arrives is itself a report: there is nothing
            // to promise to a sender.
            dsn: false,
            // A report is not lost for its line ends, and goes on without them if it is forwarded.
            bare_newline: BareNewline::Normalize,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            per_token_per_day_max: self.settings.inbound.reports_per_token_per_day_max,
            per_day_max: self.settings.inbound.reports_per_day_max,
        }
    }

    fn log_rejected(&self, to: Option<&Address>, reply: &Reply, reason: &str) {
        self.shared.metrics.message_rejected("inbound");
        let (from, text) = (self.reverse_path.to_string(), reply.to_string());
        maillog::rejected(&Line {
            from: Some(&from),
            to: to.map(Address::as_str),
            status: reply.status,
            reply: Some(&text),
            client: Some(&self.peer.to_string()),
            reason: Some(reason),
            ..Line::default()
        });
    }

    /// Stores the report; when this returns `Ok` it is on disk.
    async fn store(&self, raw: Vec<u8>) -> Result<ReportId, StoreError> {
        let Shared { store, clock, .. } = &self.shared;
        let id = ReportId(store.new_queue_id());
        let report = ReportReceived {
            id,
            received_at: clock.now(),
            captured_by: CapturedBy::Listener,
            reverse_path: self.reverse_path.to_string(),
            recipients: self.recipients.iter().map(Address::to_string).collect(),
            tokens: self.tokens.clone(),
            digest: report_digest(&raw),
            raw,
        };
        store.accept_report(report)?.synced().await?;
        Ok(id)
    }

    async fn finish(&mut self) -> Reply {
        let now = self.shared.clock.now();
        let (octets, _share) = match std::mem::replace(&mut self.body, Body::None) {
            Body::Kept { octets, share } => (octets, share),
            Body::Counted => return self.counted(),
            Body::None => return bad_sequence(),
        };
        match self.shared.caps.count(now, &self.tokens, self.limits()) {
            Verdict::Store => {}
            Verdict::CountOnly => return self.counted(),
            Verdict::PutOff => return self.put_off(),
        }
        let size_bytes = u64::try_from(octets.len()).ok();
        match self.store(octets).await {
            Ok(id) => {
                let report = id.0.to_string();
                self.log_accepted(size_bytes, &report);
                Reply::new(250, EnhancedStatus::new(2, 0, 0), format!("Ok: report {report}"))
            }
            Err(error) => {
                let reply = store_reply(&error);
                self.log_rejected(None, &reply, &error.to_string());
                reply
            }
        }
    }

    fn log_accepted(&self, size_bytes: Option<u64>, report: &str) {
        let from = self.reverse_path.to_string();
        let client = self.peer.to_string();
        for to in &self.recipients {
            maillog::accepted(&Line {
                from: Some(&from),
                to: Some(to.as_str()),
                size_bytes,
                client: Some(&client),
                report: Some(report),
                ..Line::default()
            });
        }
    }

    /// Whether a mail was to be sent so late that its tokens are not too old.
    async fn was_sent_later(&self, queue_id: QueueId) -> bool {
        let store = self.shared.store.clone();
        let found = tokio::task::spawn_blocking(move || store.submission(queue_id)).await;
        let Ok(Ok(Ok(submission))) = found else { return false };
        let age = self.shared.clock.now().since(submission.begins_at());
        age <= self.settings.return_path.token_lifetime.duration()
    }

    fn counted(&self) -> Reply {
        self.shared.metrics.report_dropped();
        Reply::new(250, EnhancedStatus::new(2, 0, 0), "Ok: counted")
    }

    fn put_off(&self) -> Reply {
        let reply = Reply::new(452, NO_ROOM, "too many reports today, try again later");
        self.log_rejected(None, &reply, "reports_per_day_max");
        reply
    }
}

impl Service for Session {
    fn hello(&mut self, _hello: &Hello) {}

    fn secured(&mut self, _tls: &str) {
        self.reset();
    }

    fn introduced(&mut self, peer: &Peer) -> Auth {
        self.peer = peer.clone();
        self.reset();
        Auth::None
    }

    async fn authenticate(&mut self, _username: &str, _password: &[u8]) -> Result<(), Reply> {
        Err(Reply::new(535, EnhancedStatus::new(5, 7, 8), "nobody authenticates here"))
    }

    async fn mail(&mut self, mail: &MailCommand) -> Result<(), Reply> {
        self.reset();
        self.reverse_path = mail.reverse_path.clone();
        let size_bytes = mail.size_bytes.unwrap_or_default();
        self.shared.store.can_accept(size_bytes).map_err(|error| {
            let reply = store_reply(&error);
            self.log_rejected(None, &reply, &error.to_string());
            reply
        })
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        let Shared { keys, clock, .. } = &self.shared;
        let address = &recipient.address;
        let mut admitted = admit(&self.settings, keys, clock.now(), address);
        if let Err(NotAdmitted::Expired(queue_id, index)) = admitted
            && self.was_sent_later(queue_id).await
        {
            admitted = Ok(Admission::Token(queue_id, index));
        }
        match admitted {
            Ok(admission) => {
                if let Admission::Token(queue_id, recipient) = admission
                    && !self.tokens.contains(&(queue_id, recipient))
                {
                    self.tokens.push((queue_id, recipient));
                }
                self.recipients.push(address.clone());
                Ok(())
            }
            Err(refused) => Err(self.refuse(address, refused)),
        }
    }

    async fn data(&mut self) -> Result<(), Reply> {
        let now = self.shared.clock.now();
        self.body = match self.shared.caps.look(now, &self.tokens, self.limits()) {
            Verdict::Store => Body::Kept { octets: Vec::new(), share: self.shared.memory.share() },
            Verdict::CountOnly => Body::Counted,
            Verdict::PutOff => return Err(self.put_off()),
        };
        Ok(())
    }

    async fn chunk(&mut self, octets: &[u8]) -> Result<(), Reply> {
        let Body::Kept { octets: kept, share } = &mut self.body else {
            return Ok(());
        };
        let bytes = u64::try_from(octets.len()).unwrap_or(u64::MAX);
        let bytes_max = self.settings.inbound.message_bytes_max;
        let bytes_after = u64::try_from(kept.len()).unwrap_or(u64::MAX).saturating_add(bytes);
        if bytes_max > 0 && bytes_after > bytes_max {
            let text = format!("the report is larger than {bytes_max} octets");
            let reply = Reply::new(552, EnhancedStatus::new(5, 3, 4), text);
            self.log_rejected(None, &reply, "message_bytes_max");
            return Err(reply);
        }
        if !share.grow(bytes, MEMORY_BYTES_MAX.max(bytes_max)) {
            let reply = Reply::new(452, NO_ROOM, "too many reports at a time, try again later");
            self.log_rejected(None, &reply, "memory");
            return Err(reply);
        }
        kept.extend_from_slice(octets);
        Ok(())
    }

    async fn end(&mut self) -> Vec<Reply> {
        let reply = self.finish().await;
        let count = match self.protocol {
            Protocol::Smtp => 1,
            // RFC 2033 §4.2: one reply for each recipient; all share the one report.
            Protocol::Lmtp => self.recipients.len(),
        };
        self.reset();
        vec![reply; count]
    }

    fn reset(&mut self) {
        self.reverse_path = ReversePath::NULL;
        self.recipients.clear();
        self.tokens.clear();
        self.body = Body::None;
    }
}

impl Session {
    fn refuse(&self, address: &Address, refused: NotAdmitted) -> Reply {
        let reply = refused.reply(address);
        self.log_rejected(Some(address), &reply, refused.as_str());
        reply
    }
}

/// What a client is told about a store that cannot take its report.
fn store_reply(error: &StoreError) -> Reply {
    match error {
        StoreError::DiskFull => Reply::new(452, NO_ROOM, "out of storage, try again later"),
        StoreError::Busy => Reply::new(451, NO_ROOM, "too busy, try again later"),
        _ => {
            let status = EnhancedStatus::new(4, 3, 0);
            Reply::new(451, status, "cannot store reports now, try again later")
        }
    }
}

fn bad_sequence() -> Reply {
    Reply::new(503, EnhancedStatus::new(5, 5, 1), "bad sequence of commands")
}

/// Octets of reports on their way in, over all connections.
const MEMORY_BYTES_MAX: u64 = 256 * 1024 * 1024;
const NO_ROOM: EnhancedStatus = EnhancedStatus::new(4, 3, 1);

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

    use super::*;
    use crate::mail::{QueueId, ReturnToken, Timestamp};
    use crate::secret;
    use crate::store;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);
    const REPORT: &str = "From: <>\r\nSubject: failed\r\n\r\nbody";

    struct Stage {
        dir: PathBuf,
        shared: Shared,
        settings: Settings,
    }

    impl Stage {
        fn new() -> Self {
            let dir =
                std::env::temp_dir().join(format!("rebound-in-{:016x}", secret::random_u64()));
            let keep = Duration::from_secs(3600 * 24 * 90);
            let options = store::Options { dir: dir.clone(), keep, bodies: Duration::ZERO };
            let clock = Clock::manual(NOW);
            let shared = Shared {
                store: Store::open(&options, clock.clone()).unwrap(),
                keys: Arc::new(KeyRing::from_secret([7; 32])),
                clock,
                metrics: Metrics::new(),
                caps: Arc::default(),
                memory: Memory::default(),
            };
            let mut settings = crate::config::defaults();
            settings.hostname = "relay.example.com".to_owned();
            settings.return_path.domain = "bounces.example.com".to_owned();
            settings.inbound.addresses = vec![Address::parse("bounces@example.com").unwrap()];
            Self { dir, shared, settings }
        }

        /// Ends the store, whose threads write in the directory until then.
        async fn close(self) {
            self.shared.store.close().await;
            std::fs::remove_dir_all(&self.dir).unwrap();
        }

        fn token(&self, recipient: u16) -> ReturnToken {
            self.shared.keys.token(QueueId::new(NOW, 5), recipient)
        }

        fn address(&self, recipient: u16) -> String {
            format!("b+{}@bounces.example.com", self.token(recipient))
        }

        /// Everything that the server says to `input`, sent at once.
        async fn talk(&self, protocol: Protocol, input: &str) -> String {
            let settings = Arc::new(self.settings.clone());
            let peer = Peer { address: Some("192.0.2.25".parse().unwrap()) };
            let mut session = Session::new(settings, self.shared.clone(), peer.clone(), protocol);
            let options = Arc::new(session.options());
            let (client, server) = duplex(64 * 1024);
            let never = std::future::pending();
            let serve = crate::smtp::serve(server, peer, None, options, None, &mut session, never);
            let (mut read, mut write) = split(client);
            let talk = async {
                write.write_all(input.as_bytes()).await.unwrap();
                let mut said = String::new();
                read.read_to_string(&mut said).await.unwrap();
                said
            };
            tokio::join!(serve, talk).1
        }

        async fn send(&self, recipients: &[String], report: &str) -> String {
            let rcpt: String = recipients.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
            let input = format!(
                "EHLO mx.example.net\r\nMAIL FROM:<>\r\n{rcpt}DATA\r\n{report}\r\n.\r\nQUIT\r\n"
            );
            self.talk(Protocol::Smtp, &input).await
        }
    }

    #[tokio::test]
    async fn a_report_is_stored_as_it_came_before_its_250() {
        let stage = Stage::new();
        let to = [stage.address(1), stage.address(0).to_ascii_uppercase(), stage.address(1)];
        let said = stage.send(&to, REPORT).await;
        assert!(said.contains("\r\n250 2.0.0 Ok: report "), "{said}");
        assert!(!said.contains("DSN"), "{said}");
        let waiting = stage.shared.store.uncaptured_reports(10);
        assert_eq!(waiting.len(), 1);
        let record = stage.shared.store.report(waiting[0]).unwrap().unwrap();
        let raw = format!("{REPORT}\r\n");
        assert_eq!(record.received.raw, raw.as_bytes());
        assert_eq!(record.received.digest, report_digest(raw.as_bytes()));
        let queue_id = QueueId::new(NOW, 5);
        assert_eq!(record.received.tokens, [(queue_id, 1), (queue_id, 0)]);
        assert_eq!(record.received.recipients, to);
        assert_eq!(record.received.reverse_path, "");
        assert_eq!(record.received.captured_by, CapturedBy::Listener);
        assert!(record.captured.is_none());
        stage.close().await;
    }

    #[tokio::test]
    async fn strangers_are_refused_at_rcpt_and_nothing_is_stored() {
        let stage = Stage::new();
        let forged = stage.address(0).replace('@', "0@");
        for (to, want) in [
            ("anybody@bounces.example.com", "550 5.1.1 "),
            ("b+x@bounces.example.com", "550 5.7.1 "),
            (forged.as_str(), "550 5.7.1 "),
        ] {
            let input = format!("EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<{to}>\r\nQUIT\r\n");
            let said = stage.talk(Protocol::Smtp, &input).await;
            assert!(said.contains(&format!("\r\n{want}<{to}>")), "{said}");
        }
        assert!(stage.shared.store.uncaptured_reports(10).is_empty());
        stage.close().await;
    }

    #[tokio::test]
    async fn a_configured_address_takes_reports_without_a_token() {
        let stage = Stage::new();
        let said = stage.send(&["Bounces@example.com".to_owned()], REPORT).await;
        assert!(said.contains("\r\n250 2.0.0 Ok: report "), "{said}");
        let waiting = stage.shared.store.uncaptured_reports(10);
        let record = stage.shared.store.report(waiting[0]).unwrap().unwrap();
        assert!(record.received.tokens.is_empty());
        stage.close().await;
    }

    #[tokio::test]
    async fn lmtp_answers_for_each_recipient() {
        let stage = Stage::new();
        let (one, two) = (stage.address(0), stage.address(1));
        let input = format!(
            "LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{one}>\r\nRCPT TO:<x@y>\r\nRCPT TO:<{two}>\r\n\
             DATA\r\n{REPORT}\r\n.\r\nQUIT\r\n"
        );
        let said = stage.talk(Protocol::Lmtp, &input).await;
        assert_eq!(said.matches("Ok: report ").count(), 2, "{said}");
        assert_eq!(stage.shared.store.uncaptured_reports(10).len(), 1);
        stage.close().await;
    }

    #[tokio::test]
    async fn a_storm_is_answered_counted_and_mostly_not_stored() {
        let mut stage = Stage::new();
        stage.settings.inbound.reports_per_token_per_day_max = 3;
        stage.settings.inbound.reports_per_day_max = 5;
        let one = |to: &str| format!("MAIL FROM:<>\r\nRCPT TO:<{to}>\r\nDATA\r\n{REPORT}\r\n.\r\n");
        let storm = one(&stage.address(0)).repeat(200);
        let said = stage.talk(Protocol::Smtp, &format!("EHLO x\r\n{storm}QUIT\r\n")).await;
        assert_eq!(said.matches("Ok: report ").count(), 3);
        assert_eq!(said.matches("250 2.0.0 Ok: counted").count(), 197);
        assert_eq!(stage.shared.store.uncaptured_reports(1000).len(), 3);
        assert!(stage.shared.metrics.text().contains("rebound_reports_dropped_total 197"));
        for recipient in 1..=2 {
            let said = stage.send(&[stage.address(recipient)], REPORT).await;
            assert!(said.contains("Ok: report "), "{said}");
        }
        let input =
            format!("EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<{}>\r\nDATA\r\nQUIT\r\n", stage.address(9));
        let said = stage.talk(Protocol::Smtp, &input).await;
        assert!(said.contains("\r\n452 4.3.1 "), "{said}");
        stage.close().await;
    }

    #[tokio::test]
    async fn a_report_that_is_too_large_is_refused_and_gives_its_memory_back() {
        let mut stage = Stage::new();
        stage.settings.inbound.message_bytes_max = 50_000;
        let large = format!("Subject: x\r\n\r\n{}", "x".repeat(100_000));
        let said = stage.send(&[stage.address(0)], &large).await;
        assert!(said.contains("\r\n552 5.3.4 "), "{said}");
        assert!(stage.shared.memory.share().grow(50_000, 50_000));
        assert!(stage.shared.store.uncaptured_reports(10).is_empty());
        stage.close().await;
    }
}
