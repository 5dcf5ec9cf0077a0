//! What an app is told, and what is recorded of its mail.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex, split};

use super::*;
use crate::clock::Clock;
use crate::config::{Account, AuthPolicy, DsnPolicy};
use crate::mail::dsn::{Content, EnvelopeId, Notify, OriginalRecipient};
use crate::mail::{MailDsn, MessageId, QueueId, RecipientDsn, Timestamp, base64, header};
use crate::metrics::Metrics;
use crate::secret::{self, KeyRing};
use crate::store::record::{Origin, ReturnPathMode};
use crate::store::{self, Store};

const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

/// A store, and settings that each test changes as it needs.
struct Stage {
    dir: PathBuf,
    store: Store,
    settings: Settings,
    metrics: Metrics,
    clock: Clock,
    guards: Guards,
}

impl Stage {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("rebound-sub-{:016x}", secret::random_u64()));
        let keep = Duration::from_secs(3600 * 24 * 90);
        let options = store::Options { dir: dir.clone(), keep, bodies: Duration::ZERO };
        let clock = Clock::manual(NOW);
        let store = Store::open(&options, clock.clone()).unwrap();
        let mut settings = crate::config::defaults();
        settings.hostname = "relay.example.com".to_owned();
        let guards = Guards::new(Arc::new(KeyRing::from_secret([7; 32])));
        Self { dir, store, settings, metrics: Metrics::new(), clock, guards }
    }

    /// Ends the store, whose threads write in the directory until then.
    async fn close(self) {
        self.store.close().await;
        std::fs::remove_dir_all(&self.dir).unwrap();
    }

    fn with_account(mut self, allowed_senders: &[&str]) -> Self {
        self.settings.account.push(Account {
            name: "app".to_owned(),
            password_hash: secret::hash_password(b"secret").unwrap(),
            from: None,
            allowed_senders: allowed_senders.iter().map(|text| (*text).to_owned()).collect(),
            dsn: DsnPolicy::Never,
            messages_per_minute_max: None,
            recipients_per_minute_max: None,
            return_path: None,
            meta: [("team".to_owned(), "billing".to_owned())].into(),
        });
        self
    }

    /// Everything that the server says to `input`, sent at once by a client at `peer`.
    async fn talk(&self, peer: &str, input: &[u8]) -> String {
        self.talk_within(None, peer, input).await
    }

    /// As `talk`, within TLS from the start where it is named.
    async fn talk_within(&self, tls: Option<&str>, peer: &str, input: &[u8]) -> String {
        let door = Door::new(self.store.clone(), self.clock.clone(), self.metrics.clone());
        let settings = Arc::new(self.settings.clone());
        let peer = Peer { address: Some(peer.parse().unwrap()) };
        let mut session = Session::new(settings, door, self.guards.clone(), peer.clone());
        let options = Arc::new(session.options());
        let (client, server) = duplex(64 * 1024);
        let never = std::future::pending();
        let tls = tls.map(str::to_owned);
        let serve = crate::smtp::serve(server, peer, tls, options, None, &mut session, never);
        let (mut read, mut write) = split(client);
        let talk = async {
            write.write_all(input).await.unwrap();
            let mut said = String::new();
            read.read_to_string(&mut said).await.unwrap();
            said
        };
        tokio::join!(serve, talk).1
    }

    /// As `talk`, with one mail from and to ordinary addresses on loopback.
    async fn send(&self, mail: &str) -> String {
        let input = format!(
            "EHLO app.example.com\r\nMAIL FROM:<app@example.org>\r\n\
             RCPT TO:<bob@example.net>\r\nDATA\r\n{mail}\r\n.\r\nQUIT\r\n"
        );
        self.talk("127.0.0.1", input.as_bytes()).await
    }

    async fn body(&self, queue_id: QueueId) -> Vec<u8> {
        let mut octets = Vec::new();
        let mut body = self.store.body(queue_id).await.unwrap();
        body.read_to_end(&mut octets).await.unwrap();
        octets
    }
}

/// The queue id in the reply to a mail.
fn queue_id(said: &str) -> QueueId {
    let rest = said.split("queued as ").nth(1).unwrap_or_else(|| panic!("refused: {said}"));
    QueueId::parse(rest.split_whitespace().next().unwrap()).unwrap()
}

#[tokio::test]
async fn a_mail_is_stamped_stored_and_acknowledged_with_both_ids() {
    let mut stage = Stage::new();
    stage.settings.return_path.domain = "bounces.example.com".to_owned();
    let mail = "DKIM-Signature: v=1;\r\n b=x\r\nFrom: a@b\r\nMessage-ID: <kept@app>\r\n\
                Date: Wed, 12 Oct 2022 12:10:40 +0000\r\nX-Rebound-Meta-Order: 7\r\n\
                Bcc: c@d\r\n\r\n..dot\r\nbody";
    let said = stage.send(mail).await;
    let id = queue_id(&said);
    assert!(said.contains(&format!("250 2.0.0 Ok: queued as {id} <kept@app>\r\n")), "{said}");
    let record = stage.store.message(id).unwrap().unwrap().submission;
    assert_eq!(record.message_id.as_str(), "kept@app");
    assert_eq!((record.account.as_str(), record.origin), ("default", Origin::App));
    assert_eq!(record.meta["order"], "7");
    assert_eq!(record.client.as_deref(), Some("127.0.0.1"));
    assert_eq!(record.return_path, ReturnPathMode::Verp);
    assert!(record.dsn);
    assert_eq!(record.envelope.recipients[0].address.as_str(), "bob@example.net");
    let body = stage.body(id).await;
    assert_eq!(record.size_bytes, u64::try_from(body.len()).unwrap());
    let (top, rest) = header::split(&body);
    assert_eq!(record.header, top);
    let received = header::find(top, "Received").unwrap().text();
    assert!(
        received.starts_with("from app.example.com ([127.0.0.1]) by relay.example.com with ESMTP"),
        "{received}"
    );
    assert!(received.contains("for <bob@example.net>"), "{received}");
    let kept = "DKIM-Signature: v=1;\r\n b=x\r\nFrom: a@b\r\nMessage-ID: <kept@app>\r\n\
                Date: Wed, 12 Oct 2022 12:10:40 +0000\r\n";
    assert!(top.ends_with(kept.as_bytes()));
    assert_eq!(rest, b"\r\n.dot\r\nbody\r\n");
    stage.close().await;
}

#[tokio::test]
async fn a_large_body_is_stored_octet_by_octet() {
    let stage = Stage::new();
    let line = "0123456789abcdef\u{e9}".repeat(40);
    let body: String = (0..2000).map(|n| format!("{n} {line}\r\n")).collect();
    let said = stage.send(&format!("Subject: x\r\n\r\n{body}")).await;
    let stored = stage.body(queue_id(&said)).await;
    let (_, rest) = header::split(&stored);
    assert_eq!(rest, format!("\r\n{body}\r\n").as_bytes());
    stage.close().await;
}

#[tokio::test]
async fn a_mail_without_a_header_gets_one_and_keeps_its_text() {
    let stage = Stage::new();
    for (mail, want) in [
        ("no header", "\r\nno header\r\n"),
        ("\r\nafter an empty line", "\r\nafter an empty line\r\n"),
        ("Subject: x\r\nbroken\r\nBcc: c@d", "\r\nbroken\r\nBcc: c@d\r\n"),
        ("From x@y Mon Jan 1 12:10\r\nSubject: x\r\n\r\nbody", "\r\nbody\r\n"),
        ("Subject: x", "\r\n"),
    ] {
        let stored = stage.body(queue_id(&stage.send(mail).await)).await;
        let (top, rest) = header::split(&stored);
        assert_eq!(String::from_utf8_lossy(rest), want, "{mail}");
        assert!(header::find(top, "Message-ID").is_some(), "{mail}");
    }
    stage.close().await;
}

#[tokio::test]
async fn what_passes_a_limit_is_refused_and_the_session_goes_on() {
    let mut stage = Stage::new();
    stage.settings.submission.header_bytes_max = 2000;
    stage.settings.submission.message_bytes_max = 100_000;
    for (mail, want) in [
        (format!("X: {}\r\n\r\nbody", "x".repeat(3000)), "552 5.3.4 "),
        (format!("X: y\r\n{}", "no end\r\n "), "250 2.0.0 Ok: queued"),
        (format!("X: y\r\n\r\n{}", "x".repeat(200_000)), "552 5.3.4 "),
        ("Received: x\r\n".repeat(51) + "\r\nbody", "554 5.4.6 "),
        ("Received: x\r\n".repeat(50) + "\r\nbody", "250 2.0.0 Ok: queued"),
    ] {
        let said = stage.send(&mail).await;
        assert!(said.contains(&format!("\r\n{want}")), "{want} is not in {said}");
        assert!(said.contains("\r\n221 "), "{said}");
    }
    stage.close().await;
}

#[tokio::test]
async fn an_account_authenticates_and_is_held_to_its_senders() {
    let mut stage = Stage::new().with_account(&["@example.org"]);
    stage.settings.submission.auth = AuthPolicy::Required;
    // `\0app\0secret`.
    let auth = "EHLO x\r\nAUTH PLAIN AGFwcABzZWNyZXQ=\r\n";
    let mail = |from: &str, header_from: &str| {
        format!(
            "{auth}MAIL FROM:<{from}>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n\
             From: {header_from}\r\n\r\nbody\r\n.\r\nQUIT\r\n"
        )
    };
    let allowed = mail("a@example.org", "A <a@example.org>");
    let said = stage.talk("127.0.0.1", allowed.as_bytes()).await;
    let record = stage.store.message(queue_id(&said)).unwrap().unwrap().submission;
    assert_eq!((record.account.as_str(), record.dsn), ("app", false));
    assert_eq!(record.meta["team"], "billing");
    let received = header::find(&record.header, "Received").unwrap().text();
    assert!(received.contains("with ESMTPA id"), "{received}");
    for (input, want) in [
        (mail("a@example.com", "a@example.org"), "553 5.7.1 "),
        (mail("a@example.org", "a@example.com"), "550 5.7.1 "),
        ("EHLO x\r\nMAIL FROM:<a@example.org>\r\nQUIT\r\n".to_owned(), "530 5.7"),
    ] {
        let said = stage.talk("127.0.0.1", input.as_bytes()).await;
        assert!(said.contains(&format!("\r\n{want}")), "{want} is not in {said}");
    }
    stage.close().await;
}

// Nothing but the password check and the delay is waited for here, so time may leap.
#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_refused_like_an_unknown_user() {
    let stage = Stage::new().with_account(&[]);
    for credentials in ["\0app\0wrong", "\0nobody\0secret"] {
        let began = tokio::time::Instant::now();
        let encoded = base64::encode(credentials.as_bytes());
        let input = format!("EHLO x\r\nAUTH PLAIN {encoded}\r\nQUIT\r\n");
        let said = stage.talk("127.0.0.1", input.as_bytes()).await;
        assert!(said.contains("\r\n535 5.7.8 "), "{said}");
        assert!(began.elapsed() >= AUTH_FAILED_DELAY);
    }
    assert!(stage.metrics.text().contains("rebound_auth_failed_total 2"));
    stage.close().await;
}

#[tokio::test]
async fn strangers_cannot_submit_without_auth_whether_it_is_offered_or_not() {
    let mut stage = Stage::new();
    let input = b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nQUIT\r\n";
    for policy in [AuthPolicy::Auto, AuthPolicy::Optional, AuthPolicy::None] {
        stage.settings.submission.auth = policy;
        let said = stage.talk("203.0.113.9", input).await;
        assert!(said.contains("\r\n530 5.7"), "{policy:?}: {said}");
    }
    stage.close().await;
}

#[tokio::test]
async fn an_open_relay_takes_two_settings() {
    let mut stage = Stage::new();
    let everybody = ["0.0.0.0/0", "::/0"].map(|text| text.to_owned().try_into().unwrap());
    let input = b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nQUIT\r\n";
    for (policy, trusted, is_open) in [
        (AuthPolicy::Auto, &everybody[..], false),
        (AuthPolicy::Required, &everybody, false),
        (AuthPolicy::Optional, &[], false),
        (AuthPolicy::None, &[], false),
        (AuthPolicy::Optional, &everybody, true),
        (AuthPolicy::None, &everybody, true),
    ] {
        stage.settings.submission.auth = policy;
        stage.settings.submission.trusted_networks = trusted.to_vec();
        for stranger in ["203.0.113.9", "2001:db8::9"] {
            let said = stage.talk(stranger, input).await;
            let want = if is_open { "\r\n250 2.1.0 " } else { "\r\n530 5.7" };
            assert!(said.contains(want), "{policy:?} {stranger}: {said}");
        }
    }
    stage.close().await;
}

// Nothing but password checks and delays is waited for here, so time may leap.
#[tokio::test(start_paused = true)]
async fn who_guesses_too_often_is_banned_even_with_the_right_password() {
    let mut stage = Stage::new().with_account(&[]);
    stage.settings.submission.auth_failures_max = 3;
    stage.settings.submission.auth_ban_secs = 600;
    let auth = |password: &str| {
        let encoded = base64::encode(format!("\0app\0{password}").as_bytes());
        format!("AUTH PLAIN {encoded}\r\n")
    };
    let say = async |peer: &str, commands: String| {
        let input = format!("EHLO x\r\n{commands}QUIT\r\n");
        stage.talk_within(Some("TLSv1.3"), peer, input.as_bytes()).await
    };
    let (guesser, other) = ("2001:db8::1", "2001:db8:1::1");
    // A success forgives what came before it.
    let said = say(guesser, auth("a") + &auth("b") + &auth("secret")).await;
    assert!(said.matches("\r\n535 5.7.8 ").count() == 2 && said.contains("\r\n235 "), "{said}");
    let said = say(guesser, auth("a") + &auth("b") + &auth("c") + &auth("secret")).await;
    assert!(said.matches("\r\n535 5.7.8 ").count() == 3, "{said}");
    assert!(said.contains("\r\n421 4.7.0 too many failed") && !said.contains("221"), "{said}");
    // Its neighbour in the same /64 is the same, and SCRAM is no way around.
    stage.clock.advance(Duration::from_secs(599));
    let said = say("2001:db8::2", auth("secret")).await;
    assert!(said.contains("\r\n421 4.7.0 ") && !said.contains("\r\n235 "), "{said}");
    for commands in [String::new(), auth("secret")] {
        let said = say(other, commands).await;
        assert!(said.contains("\r\n221 "), "{said}");
    }
    stage.clock.advance(Duration::from_secs(1));
    let said = say(guesser, auth("secret")).await;
    assert!(said.contains("\r\n235 "), "{said}");
    let text = stage.metrics.text();
    assert!(text.contains("rebound_auth_banned_total 1"), "{text}");
    stage.close().await;
}

#[tokio::test]
async fn an_account_is_put_off_at_its_limits_over_all_its_connections() {
    let mut stage = Stage::new();
    stage.settings.submission.messages_per_minute_max = 3;
    stage.settings.submission.recipients_per_minute_max = 2;
    let input = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<c@d>\r\n\
                  RCPT TO:<e@f>\r\nRCPT TO:<g@h>\r\nRSET\r\nMAIL FROM:<>\r\nQUIT\r\n";
    let said = stage.talk("127.0.0.1", input).await;
    assert_eq!(said.matches("\r\n250 2.1.5 ").count(), 3, "{said}");
    let put_off = "\r\n450 4.7.1 this account has had its 2 recipients of this minute\r\n";
    assert_eq!(said.matches(put_off).count(), 1, "{said}");
    assert_eq!(said.matches("\r\n250 2.1.0 ").count(), 2, "{said}");
    let input = b"EHLO x\r\nMAIL FROM:<a@b>\r\nRSET\r\nMAIL FROM:<a@b>\r\nQUIT\r\n";
    let said = stage.talk("127.0.0.1", input).await;
    assert_eq!(said.matches("\r\n250 2.1.0 ").count(), 1, "{said}");
    let put_off = "\r\n450 4.7.1 this account has had its 3 mails of this minute\r\n";
    assert_eq!(said.matches(put_off).count(), 1, "{said}");
    stage.clock.advance(Duration::from_secs(61));
    let said = stage.talk("127.0.0.1", input).await;
    assert_eq!(said.matches("\r\n250 2.1.0 ").count(), 2, "{said}");
}

#[tokio::test]
async fn what_is_asked_of_reports_is_kept_with_the_mail() {
    let stage = Stage::new();
    let input = b"EHLO x\r\nMAIL FROM:<a@b> RET=FULL ENVID=a+2Bb\r\n\
                  RCPT TO:<c@d> NOTIFY=NEVER ORCPT=rfc822;C@D\r\n\
                  RCPT TO:<e@f>\r\nRCPT TO:<c@d> NOTIFY=SUCCESS\r\n\
                  DATA\r\nSubject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n";
    let said = stage.talk("127.0.0.1", input).await;
    assert!(said.contains("\r\n250-DSN\r\n"), "{said}");
    let record = stage.store.message(queue_id(&said)).unwrap().unwrap();
    let envelope = record.submission.envelope;
    let (content, envelope_id) = (Some(Content::Full), EnvelopeId::parse("a+2Bb"));
    assert_eq!(envelope.dsn, MailDsn { content, envelope_id });
    let (notify, original) = (Some(Notify::NEVER), OriginalRecipient::parse("rfc822;C@D"));
    let first = RecipientDsn { notify, original_recipient: original };
    let asked: Vec<&RecipientDsn> = envelope.recipients.iter().map(|to| &to.dsn).collect();
    assert_eq!(asked, [&first, &RecipientDsn::default()], "the first RCPT holds");
    stage.close().await;
}

#[tokio::test]
async fn a_recipient_named_twice_gets_the_mail_once() {
    let stage = Stage::new();
    let input = b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@b>\r\nRCPT TO:<c@d>\r\n\
                  RCPT TO:<a@b>\r\nDATA\r\nSubject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n";
    let said = stage.talk("127.0.0.1", input).await;
    let envelope = stage.store.live(queue_id(&said)).unwrap();
    assert_eq!(envelope.recipients.len(), 2);
    assert!(envelope.reverse_path.is_null());
    stage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_headers_are_followed_and_do_not_leave() {
    let stage = Stage::new();
    let mail = "X-EE-Send-At: 2022-10-13T00:00:00Z\r\nSubject: x\r\n\
                X-EE-Delivery-Attempts: 3\r\nX-EE-Idempotency-Key: order-17\r\n\r\nbody";
    let first = queue_id(&stage.send(mail).await);
    let again = queue_id(&stage.send(&mail.replace("body", "another boundary")).await);
    assert_eq!(first, again, "it is the same mail");
    assert_eq!(stage.store.queue_len(), 1);
    let record = stage.store.message(first).unwrap().unwrap().submission;
    assert_eq!(record.control.send_at, Timestamp::parse("2022-10-13"));
    assert_eq!(record.control.attempts_max, Some(3));
    let sent = String::from_utf8(stage.body(first).await).unwrap();
    assert!(!sent.contains("X-EE-"), "{sent}");
    let date = "Date: Thu, 13 Oct 2022 00:00:00 +0000\r\n";
    assert!(sent.contains(date), "it has the date on which it is sent: {sent}");
    let other = "EHLO x\r\nMAIL FROM:<app@example.org>\r\nRCPT TO:<eve@example.net>\r\nDATA\r\n\
                 X-EE-Idempotency-Key: order-17\r\n\r\n.\r\nQUIT\r\n";
    let said = stage.talk("127.0.0.1", other.as_bytes()).await;
    assert!(said.contains("554 5.6.0 this idempotency key was used for another"), "{said}");
    for bad in ["X-EE-Send-At: soon", "X-EE-Send-At: 2032-01-01", "X-EE-Delivery-Attempts: -1"] {
        let said = stage.send(&format!("{bad}\r\n\r\nbody")).await;
        assert!(said.contains("554 5.6.0 X-EE-"), "{bad}: {said}");
    }
    assert_eq!(stage.store.queue_len(), 1);
    stage.clock.advance(Duration::from_secs(48 * 3600 + 1));
    assert_ne!(queue_id(&stage.send(mail).await), first, "the key is forgotten");
    stage.close().await;
}

#[test]
fn the_reply_names_both_ids_where_they_fit_a_line() {
    let queue_id = QueueId::new(NOW, 1);
    let text = |id: &str| {
        let message_id = MessageId::parse(id).unwrap();
        let accepted = Accepted { queue_id, message_id, send_at: NOW, is_repeated: false };
        queued_reply(&accepted).to_string()
    };
    assert_eq!(text("a@b"), format!("250 2.0.0 Ok: queued as {queue_id} <a@b>"));
    let short = format!("250 2.0.0 Ok: queued as {queue_id}");
    let without_id = short.len() + " <>".len() + "\r\n".len();
    assert_eq!(text(&"x".repeat(512 - without_id)).len() + 2, 512);
    assert_eq!(text(&"x".repeat(513 - without_id)), short);
    assert_eq!(text("é@b"), short);
}
