//! The routes, asked over real connections.

mod folders;

use super::auth::Policy;
use super::tokens::{Scope, TokenFile};
use super::*;
use crate::bounce::{Action, Category, Classification};
use crate::capture::RuleSets;
use crate::mail::{
    Address, Envelope, MailDsn, MessageId, QueueId, Recipient, Reply, ReversePath, Stage,
    Timestamp, envelope::BodyKind,
};
use crate::secret::{KeyRing, random_u64};
use crate::store::Options;
use crate::store::record::{
    Attempt, Batch, Bounce, BounceId, CapturedBy, Confidence, Decision, KeyScope, Match,
    MatchMethod, Origin, ReportCaptured, ReportId, ReportReceived, Response, ReturnPathMode,
    Submission, bounce_key,
};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);
const MESSAGE_ID: &str = "a/b+c%d@app.example";
const LIMITS: Limits = Limits {
    connections_max: 8,
    connections_per_address_max: 8,
    header_timeout: Duration::from_secs(5),
    write_timeout: Duration::from_secs(5),
};

struct Server {
    dir: PathBuf,
    store: Store,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Server {
    async fn start(policy: Policy, limits: Limits) -> Self {
        let dir = std::env::temp_dir().join(format!("rebound-http-{:016x}", random_u64()));
        std::fs::create_dir_all(&dir).unwrap();
        let clock = Clock::manual(NOW);
        let keep = Duration::from_secs(90 * 86_400);
        let store =
            Store::open(&Options { dir: dir.clone(), keep, bodies: Duration::ZERO }, clock.clone())
                .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let capture = Capture::new(
            store.clone(),
            RuleSets::compiled_in(),
            Arc::new(KeyRing::from_secret([7; 32])),
            clock.clone(),
            Metrics::new(),
            crate::capture::Options::default(),
        );
        let state = HttpState::new(Parts {
            store: store.clone(),
            capture,
            clock: clock.clone(),
            metrics: Metrics::new(),
            settings: watch::channel(Arc::new(crate::config::defaults())).1,
            door: Door::new(store.clone(), clock, Metrics::new()),
            guards: submission::Guards::new(Arc::new(KeyRing::from_secret([7; 32]))),
            auth: Auth::new(TokenFile::new(dir.join("tokens")), policy),
            bounce_window: Duration::from_secs(7 * 86_400),
            webhooks: Webhooks::default(),
            request_limits: RequestLimits { per_minute_max: 0, look_ups_max: 8 },
            has_page: false,
        });
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(run(vec![listener], state, limits, async {
            drop(stopped.await);
        }));
        Self { dir, store, address, stop, running }
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        self.get_as(path, None).await
    }

    async fn get_as(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        client::get(&format!("http://{}", self.address), path, token).await.unwrap()
    }

    /// Sends octets and returns everything that comes back until the server closes.
    async fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// Returns once a request waits for the store to change.
    async fn wait_for_waiter(&self) {
        let watched = async {
            while self.store.watchers() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), watched).await.unwrap();
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap();
        drop(std::fs::remove_dir_all(&self.dir));
    }

    async fn accept(&self, queue_id: QueueId) {
        self.accept_mail(mail(queue_id)).await;
    }

    async fn accept_mail(&self, mail: Submission) {
        let mut writer = self.store.body_writer(mail.queue_id);
        writer.write(b"Subject: one\r\n\r\nhello\r\n").await.unwrap();
        let body = writer.finish().await.unwrap();
        self.store.accept(mail, body).unwrap().synced().await.unwrap();
    }

    async fn refuse(&self, queue_id: QueueId, unique: u8) {
        let batch = Batch {
            attempts: vec![attempt(queue_id)],
            bounces: vec![bounce(Some(queue_id), None, unique)],
            ..Batch::default()
        };
        self.store.commit(batch).unwrap().synced().await.unwrap();
    }
}

fn id(unique: u32) -> QueueId {
    QueueId::new(NOW, unique)
}

fn mail(queue_id: QueueId) -> Submission {
    let address = Address::parse("gone@example.com").unwrap();
    Submission {
        queue_id,
        message_id: MessageId::parse(MESSAGE_ID).unwrap(),
        account: "default".to_owned(),
        received_at: NOW,
        envelope: Envelope {
            reverse_path: ReversePath::NULL,
            recipients: vec![Recipient::from(address)],
            body: BodyKind::default(),
            smtputf8: false,
            dsn: MailDsn::default(),
        },
        header: b"Subject: one\r\n".to_vec(),
        size_bytes: 22,
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

fn attempt(queue_id: QueueId) -> Attempt {
    Attempt {
        queue_id,
        recipient: 0,
        number: 1,
        started_at: NOW,
        ended_at: NOW,
        stage: Stage::Rcpt,
        remote_mta: Some("mx.example.com[192.0.2.1]:25".to_owned()),
        reply: Reply::parse("550 5.1.1 no such user"),
        error: None,
        remote_queue_id: None,
        alias: None,
        tls: None,
        decision: Decision::Failed,
        notice_owed: false,
    }
}

fn bounce(queue_id: Option<QueueId>, report: Option<ReportId>, unique: u8) -> Bounce {
    let category = Category::UserUnknown;
    let scope = KeyScope::Report(&[unique; 16]);
    let moment = NOW.plus(Duration::from_millis(u64::from(unique)));
    Bounce {
        id: BounceId(format!("{:012x}{unique:08x}", moment.as_millis())),
        key: bounce_key(scope, "gone@example.com", Action::Failed),
        date: moment,
        captured_by: CapturedBy::Inline,
        action: Action::Failed,
        recipient: "gone@example.com".to_owned(),
        queue_id,
        recipient_index: queue_id.map(|_id| 0),
        matched: queue_id.map(|_id| Match::new(MatchMethod::Conversation, Confidence::Certain)),
        report_id: report,
        response: Response {
            source: "smtp".to_owned(),
            message: "550 5.1.1 no such user".to_owned(),
            status: None,
            code: Some(550),
            command: Some("RCPT".to_owned()),
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

#[tokio::test]
async fn a_mail_is_found_by_its_message_id_however_it_is_written_and_by_its_queue_id() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    server.accept(id(1)).await;
    let (status, before) = server.get("/v1/bounces/a%2Fb%2Bc%25d%40app.example").await;
    assert_eq!((status, &before["bounces"]), (200, &json!([])));
    assert_eq!(before["recipients"][0]["state"], "queued");
    server.refuse(id(1), 1).await;
    for path in [
        "/v1/bounces/%3Ca%2Fb%2Bc%25d%40app.example%3E".to_owned(),
        "/v1/bounces/a/b+c%25d@app.example".to_owned(),
        "/v1/bounces?messageId=a/b+c%25d@app.example".to_owned(),
        format!("/v1/bounces?queueId={}", id(1)),
    ] {
        let (status, found) = server.get(&path).await;
        assert_eq!(status, 200, "{path}: {found}");
        assert_eq!(found["messageId"], format!("<{MESSAGE_ID}>"));
        assert_eq!(found["recipients"][0]["state"], "failed");
        assert_eq!(found["bounces"][0]["response"]["command"], "RCPT");
        assert_eq!(found["bounces"][0]["messageHeaders"], json!({ "subject": ["one"] }));
    }
    let (status, found) = server.get(&format!("/v1/messages/{}", id(1))).await;
    assert_eq!((status, &found["final"]), (200, &json!(true)));
    assert_eq!(found["recipients"][0]["attempts"][0]["stage"], "rcpt");
    server.stop().await;
}

#[tokio::test]
async fn a_message_id_that_was_submitted_twice_lists_both() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    server.accept(id(1)).await;
    server.accept(id(2)).await;
    let (_, found) = server.get("/v1/bounces/a%2Fb%2Bc%25d@app.example").await;
    assert_eq!(found["queueId"], id(2).to_string());
    assert_eq!(found["submissions"][1]["queueId"], id(1).to_string());
    let (_, found) = server.get("/v1/messages/a%2Fb%2Bc%25d@app.example").await;
    assert_eq!(found["otherSubmissions"][0]["queueId"], id(1).to_string());
    server.stop().await;
}

#[tokio::test]
async fn an_address_lists_its_bounces_in_pages_newest_first() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    for unique in 1..=5 {
        server.accept(id(u32::from(unique))).await;
        server.refuse(id(u32::from(unique)), unique).await;
    }
    let mut path = "/v1/bounces?recipient=GONE@example.com&pageSize=2".to_owned();
    let mut seen = Vec::new();
    loop {
        let (status, page) = server.get(&path).await;
        assert_eq!(status, 200, "{page}");
        let bounces = page["bounces"].as_array().unwrap();
        seen.extend(bounces.iter().map(|one| one["relayQueueId"].clone()));
        let Some(cursor) = page["cursor"].as_str() else { break };
        path = format!("/v1/bounces?recipient=gone@example.com&pageSize=2&cursor={cursor}");
    }
    let want: Vec<Value> = (1..=5).rev().map(|n| json!(id(n).to_string())).collect();
    assert_eq!(seen, want);
    server.stop().await;
}

/// Six bounces, of which each question below finds some; the first is the oldest.
async fn many_bounces(server: &Server) {
    server.accept(id(1)).await;
    server.accept_mail(Submission { account: "other".to_owned(), ..mail(id(2)) }).await;
    let of = |unique, queue_id: Option<QueueId>, recipient: &str| Bounce {
        recipient: recipient.to_owned(),
        ..bounce(queue_id, None, unique)
    };
    let mut bounces = vec![
        of(0, Some(id(1)), "gone@example.com"),
        of(1, Some(id(2)), "Gone@M\u{fc}ller.example"),
        of(2, None, "gone@xn--mller-kva.example"),
        of(3, Some(id(1)), "full@example.com"),
        of(4, Some(id(1)), "late@example.com"),
        of(5, None, "gone@sub.example.com"),
    ];
    let class = &mut bounces[3].response.classification;
    class.category = Category::AuthFailure;
    class.fault = class.category.fault();
    bounces[4].action = Action::Delayed;
    bounces[5].captured_by = CapturedBy::Imap;
    let batch = Batch { bounces, ..Batch::default() };
    server.store.commit(batch).unwrap().synced().await.unwrap();
}

#[tokio::test]
async fn bounces_are_found_by_all_that_is_asked_together_as_pages_and_as_lines() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    many_bounces(&server).await;
    let moment = |millis| NOW.plus(Duration::from_millis(millis)).rfc3339();
    for (question, want) in [
        ("", vec![5, 3, 2, 1, 0]),
        ("recipient=GONE@m%C3%BCller.example", vec![2, 1]),
        ("domain=example.com", vec![3, 0]),
        ("domain=M%C3%BCller.Example", vec![2, 1]),
        ("category=auth_failure", vec![3]),
        ("fault=recipient", vec![5, 2, 1, 0]),
        ("fault=content", vec![]),
        ("capturedBy=imap", vec![5]),
        ("account=other", vec![1]),
        ("account=default&fault=recipient", vec![0]),
        (&format!("messageId={MESSAGE_ID}&domain=example.com").replace('%', "%25"), vec![3, 0]),
        (&format!("queueId={}&since=2022-10-12", id(2)), vec![1]),
        (&format!("since={}", moment(3)), vec![5, 3]),
        (&format!("until={}", moment(2)), vec![1, 0]),
        (&format!("since={}&until={}&domain=example.com", moment(0), moment(4)), vec![3, 0]),
        ("since=7d", vec![5, 3, 2, 1, 0]),
    ] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let path = format!("/v1/bounces?pageSize=1&{question}{cursor}");
            let (status, page) = server.get(&path).await;
            assert_eq!(status, 200, "{path}: {page}");
            let bounces = page["bounces"].as_array().unwrap();
            found.extend(bounces.iter().map(|one| one["id"].clone()));
            let Some(next) = page["cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        let want: Vec<Value> = want.into_iter().map(|n| json!(bounce(None, None, n).id)).collect();
        assert_eq!(found, want, "{question}");
        let fields = "Host: localhost\r\nConnection: close\r\nAccept: application/x-ndjson";
        let lines = format!("GET /v1/bounces?{question} HTTP/1.1\r\n{fields}\r\n\r\n");
        let answer = server.raw(&lines).await;
        assert!(answer.contains("content-type: application/x-ndjson\r\n"), "{answer}");
        let lines = answer.lines().filter_map(|line| serde_json::from_str(line).ok());
        let lines = lines.filter(Value::is_object);
        let found: Vec<Value> = lines.map(|line| line["id"].clone()).collect();
        assert_eq!(found, want, "{question}, as lines");
    }
    server.stop().await;
}

#[tokio::test]
async fn what_is_wrong_is_told_in_one_shape() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    let old = QueueId::new(NOW.minus(Duration::from_secs(100 * 86_400)), 1);
    for (path, status, code, more) in [
        ("/v1/bounces/nobody@x", 404, "MessageNotFound", json!({ "reason": "never_seen" })),
        ("/v1/reports/0000000000000000", 404, "ReportNotFound", json!({ "reason": "purged" })),
        (&format!("/v1/messages/{old}"), 404, "MessageNotFound", json!({ "reason": "purged" })),
        (
            &format!("/v1/bounces/{old}.00ff@relay.example"),
            404,
            "MessageNotFound",
            json!({ "reason": "purged" }),
        ),
        ("/v1/nothing", 404, "NotFound", json!({})),
        ("/", 404, "NotFound", json!({})),
        (
            "/v1/bounces?recipient=a@b&x=1&y=2",
            400,
            "InputValidationError",
            json!({ "fields": [
                { "message": "\"x\" is not allowed", "key": "x" },
                { "message": "\"y\" is not allowed", "key": "y" },
            ]}),
        ),
        ("/v1/bounces?category=none", 400, "InputValidationError", json!({})),
        ("/v1/bounces?since=yesterday", 400, "InputValidationError", json!({})),
        ("/v1/bounces?domain=a@b", 400, "InputValidationError", json!({})),
        ("/v1/bounces?messageId=nobody@x&fault=sender", 404, "MessageNotFound", json!({})),
        ("/v1/bounces?recipient=a@b&queueId=x", 400, "InputValidationError", json!({})),
        ("/v1/bounces?recipient=a@b&cursor=x", 400, "InputValidationError", json!({})),
        ("/v1/bounces?recipient=nobody", 400, "InputValidationError", json!({})),
        ("/v1/bounces?queueId=x", 400, "InputValidationError", json!({})),
        ("/v1/bounces/%ff", 400, "InputValidationError", json!({})),
        ("/v1/bounces/%20", 400, "InputValidationError", json!({})),
        ("/v1/reports?unmatched=no", 400, "InputValidationError", json!({})),
        ("/v1/reports?cursor=x", 400, "InputValidationError", json!({})),
        ("/v1/reports/%ff", 400, "InputValidationError", json!({})),
        ("/v1/account/default/message/%ff", 400, "InputValidationError", json!({})),
        ("/v1/events?cursor=ffffffffffffffffffff", 400, "InputValidationError", json!({})),
        (
            "/v1/bounces?fault=mine",
            400,
            "InputValidationError",
            json!({ "fields": [{
                "message": "\"fault\" must be one of recipient, sender, content, infrastructure, unknown",
                "key": "fault",
            }] }),
        ),
        ("/v1/reports/x", 400, "InputValidationError", json!({})),
        ("/health?x=1", 400, "InputValidationError", json!({})),
    ] {
        let (got, body) = server.get(path).await;
        assert_eq!((got, &body["code"]), (status, &json!(code)), "{path}: {body}");
        assert_eq!(body["statusCode"], status);
        assert!(body["error"].is_string() && body["message"].is_string(), "{body}");
        for (key, value) in more.as_object().unwrap() {
            assert_eq!(&body[key], value, "{path}");
        }
    }
    let request = "POST /v1/bounces HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = server.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    assert!(answer.contains("\"code\":\"MethodNotAllowed\""), "{answer}");
    assert!(answer.to_lowercase().contains("allow: get"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn with_a_token_configured_everything_but_health_needs_one() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    let tokens = TokenFile::new(server.dir.join("tokens"));
    let reader = tokens.add("app", &[Scope::Read], NOW).unwrap();
    let sender = tokens.add("web", &[Scope::Submit], NOW).unwrap();
    for (token, want) in [
        (Some(reader.as_str()), 200),
        (Some(sender.as_str()), 403),
        (Some("wrong"), 401),
        (None, 401),
    ] {
        assert_eq!(server.get_as("/v1/bounces", token).await.0, want, "{token:?}");
        assert_eq!(server.get_as("/health", token).await.0, 200);
    }
    let path = format!("/v1/bounces/nobody@x?access_token={reader}");
    assert_eq!(server.get(&path).await.0, 404);
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = server.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.contains("www-authenticate: Bearer realm=\"rebound\""), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn in_dev_any_token_is_good() {
    let server = Server::start(Policy::AnyToken, LIMITS).await;
    assert_eq!(server.get_as("/v1/bounces/nobody@x", Some("secret123")).await.0, 404);
    server.stop().await;
}

#[tokio::test]
async fn metrics_are_text_and_count_the_requests() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    server.get("/v1/nothing").await;
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = server.raw(request).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("rebound_http_requests_total{status=\"404\"} 1"), "{answer}");
    server.stop().await;
}

/// A report that is none.
fn odd_report(id: ReportId) -> ReportReceived {
    ReportReceived {
        id,
        received_at: NOW,
        captured_by: CapturedBy::Listener,
        reverse_path: String::new(),
        recipients: vec!["b@bounces.example".to_owned()],
        tokens: vec![],
        digest: [1; 16],
        raw: b"From: x@example.com\r\nSubject: odd\r\n\r\n\x00\xff\r\n".to_vec(),
    }
}

/// What somebody made of it.
fn taken_for_a_bounce(id: ReportId) -> Batch {
    let captured = ReportCaptured {
        id,
        captured_at: NOW,
        verdict: crate::bounce::Verdict::Bounce,
        matched: vec![],
        own_notice: false,
        forward_to: None,
        reread: false,
        bounced_accounts: Default::default(),
    };
    let bounces = vec![bounce(None, Some(id), 1)];
    Batch { bounces, report: Some(captured), ..Batch::default() }
}

#[tokio::test]
async fn what_reports_say_now_is_shown_to_readers_and_recorded_for_admins() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    let report_id = ReportId(id(7));
    server.store.accept_report(odd_report(report_id)).unwrap().synced().await.unwrap();
    let batch = taken_for_a_bounce(report_id);
    server.store.commit(batch).unwrap().synced().await.unwrap();
    let path = "/v1/reports/differences?since=2022-10-12";
    let (status, shown) = server.get(path).await;
    assert_eq!((status, &shown["read"]), (200, &json!(1)));
    let report = &shown["reports"][0];
    assert_eq!(report["verdict"], json!({ "was": "bounce", "now": "other" }));
    assert_eq!(report["recipients"][0]["change"], "withdrawn");
    assert_eq!(report["written"], false);

    let base = format!("http://{}", server.address);
    let (status, _) = client::post(&base, path, None).await.unwrap();
    assert!(matches!(status, 401 | 403), "{status}: nobody writes without a token");
    let tokens = TokenFile::new(server.dir.join("tokens"));
    let reader = tokens.add("reader", &[Scope::Read], NOW).unwrap();
    let admin = tokens.add("admin", &[Scope::Admin], NOW).unwrap();
    let (status, _) = client::post(&base, path, Some(&reader)).await.unwrap();
    assert_eq!(status, 403);
    let (status, applied) = client::post(&base, path, Some(&admin)).await.unwrap();
    assert_eq!((status, &applied["reports"][0]["written"]), (200, &json!(true)));
    let record = server.store.report(report_id).unwrap().unwrap();
    assert_eq!(record.captured.unwrap().verdict, crate::bounce::Verdict::Other);
    let (_, applied) = client::post(&base, path, Some(&admin)).await.unwrap();
    assert_eq!(applied["reports"][0]["written"], false, "there is nothing more to record");
    for wrong in ["since=yesterday", "cursor=x", "pageSize=0", "apply=true"] {
        let (status, _) =
            server.get_as(&format!("/v1/reports/differences?{wrong}"), Some(&reader)).await;
        assert_eq!(status, 400, "{wrong}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_report_is_shown_as_read_and_given_back_as_it_arrived() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    let report_id = ReportId(id(7));
    server.store.accept_report(odd_report(report_id)).unwrap().synced().await.unwrap();
    let (status, shown) = server.get(&format!("/v1/reports/{}", report_id.0)).await;
    assert_eq!((status, &shown["verdict"]), (200, &Value::Null));
    let (_, list) = server.get("/v1/reports?unmatched=true").await;
    assert_eq!(list, json!({ "reports": [] }), "it is not captured yet");
    let (_, list) = server.get("/v1/reports").await;
    assert_eq!(list["reports"][0]["id"], report_id.0.to_string());
    let batch = taken_for_a_bounce(report_id);
    server.store.commit(batch).unwrap().synced().await.unwrap();
    let (_, shown) = server.get(&format!("/v1/reports/{}", report_id.0)).await;
    assert_eq!(shown["verdict"], "bounce");
    assert_eq!(shown["bounces"][0]["bounceMessage"], report_id.0.to_string());
    let (_, list) = server.get("/v1/reports?unmatched=true").await;
    assert_eq!(list["reports"][0]["id"], report_id.0.to_string());
    let source = format!(
        "GET /v1/reports/{}/source HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        report_id.0
    );
    let answer = server.raw(&source).await;
    assert!(answer.contains("content-type: message/rfc822\r\n"), "{answer}");
    assert!(answer.ends_with("Subject: odd\r\n\r\n\0\u{fffd}\r\n"), "{answer}");
    server.stop().await;
}

#[tokio::test]
async fn headers_are_repeated_up_to_a_limit_in_each_answer() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    let header = format!("X: {}\r\n", "x".repeat(60_000)).into_bytes();
    server.accept_mail(Submission { header, ..mail(id(1)) }).await;
    let report_id = ReportId(id(7));
    server.store.accept_report(odd_report(report_id)).unwrap().synced().await.unwrap();
    let bounces = (0..100).map(|unique| bounce(Some(id(1)), Some(report_id), unique));
    let batch = Batch { bounces: bounces.collect(), ..taken_for_a_bounce(report_id) };
    server.store.commit(batch).unwrap().synced().await.unwrap();
    for path in [
        format!("/v1/reports/{}", report_id.0),
        "/v1/bounces?recipient=gone@example.com&pageSize=100".to_owned(),
    ] {
        let (_, shown) = server.get(&path).await;
        let bounces = shown["bounces"].as_array().unwrap();
        let with = bounces.iter().filter(|one| !one["messageHeaders"].is_null()).count();
        assert_eq!((bounces.len(), with), (100, 69), "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn a_wait_ends_with_the_news_it_waits_for() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    server.accept(id(1)).await;
    let path = format!("/v1/messages/{}/wait?for=final&timeout=60", id(1));
    let change = format!("/v1/messages/{}/wait?for=change&seen=0&timeout=60", id(1));
    let (ended, changed, ()) =
        tokio::join!(server.get(&path), server.get(&change), server.refuse(id(1), 1));
    assert_eq!((ended.0, &ended.1["final"]), (200, &json!(true)));
    assert!(changed.1["version"].as_u64().unwrap() > 0);
    let (status, body) = server.get(&format!("/v1/messages/{}/wait", id(1))).await;
    assert_eq!((status, &body["fields"][0]["key"]), (400, &json!("for")));
    server.stop().await;
}

#[tokio::test]
async fn a_wait_ends_when_its_time_is_over_or_the_daemon_stops() {
    let server = Server::start(Policy::Tokens, LIMITS).await;
    server.accept(id(1)).await;
    let path = format!("/v1/messages/{}/wait?for=final&timeout=0", id(1));
    let (status, body) = server.get(&path).await;
    assert_eq!((status, &body["final"]), (200, &json!(false)));
    let url = format!("http://{}", server.address);
    let path = format!("/v1/messages/{}/wait?for=final&timeout=100", id(1));
    let waiting = tokio::spawn(async move { client::get(&url, &path, None).await });
    server.wait_for_waiter().await;
    server.stop().await;
    assert_eq!(waiting.await.unwrap().unwrap().0, 200);
}

#[tokio::test]
async fn a_connection_over_the_limit_is_told_so() {
    let limits = Limits { connections_max: 1, ..LIMITS };
    let server = Server::start(Policy::Tokens, limits).await;
    let first = TcpStream::connect(server.address).await.unwrap();
    let refusal = server.raw("").await;
    let (head, body) = refusal.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["statusCode"], &body["code"]), (&json!(503), &json!("TooManyConnections")));
    drop(first);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_sends_no_header_is_let_go() {
    let limits = Limits { header_timeout: Duration::from_millis(50), ..LIMITS };
    let server = Server::start(Policy::Tokens, limits).await;
    let answer = server.raw("GET /health HTTP/1.1\r\nHost: loc").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop().await;
}
