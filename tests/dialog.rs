//! Runs the conversations in `dialogs/*.smtp` against the SMTP engine.
//!
//! Each is run over memory and over a loopback socket, in whole lines and octet by octet, and
//! where it says `! pipelined` also with all commands sent at once; where it says `! whole` the
//! cut matters, and `! takes-time` is for memory only. A script is made of lines:
//!
//! ```text
//! # a comment
//! ! auth required            a setting of the server, see `Script::setting`
//! C: EHLO client.example     the client sends this and CRLF
//! C~ QU                      the client sends this as it is
//! S: 250 2.0.0 *             the server must say this; `*` stands for any text
//! S: 250...                  the server must give a whole reply with this code
//! T:                         both do a TLS handshake
//! X:                         the server is told to stop
//! S!                         the server must close the connection, and have said nothing else
//! M: Subject: x              a line of the last mail that the service must have got
//! E: reset                   a call that the service must have got, if any is listed all are
//! Z: Quit                    how the session must have ended, as `SessionEnd` shows it
//! ```
//!
//! In what is sent, `\r`, `\n`, `\0`, `\\` and `\xff` are octets, and `\{a*20}` is `a` 20 times.
//! Over memory the clock stands still until everyone waits, then jumps to the next deadline.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test stops at the first surprise"
)]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rebound::config::Certificate;
use rebound::mail::Reply;
use rebound::mail::base64;
use rebound::mail::envelope::{BodyKind, Recipient};
use rebound::net::shutdown::{Stopper, shutdown};
use rebound::net::tls::{ClientTls, ServerTls, Verify};
use rebound::secret::ScramVerifier;
use rebound::smtp::{
    Auth, BareNewline, Hello, HelloKind, MailCommand, Peer, Protocol, ScramChallenge, ScramProof,
    Secured, Service, SessionEnd, SessionOptions, Stream, Upgrade, serve,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

#[test]
fn dialogs_over_memory() {
    run_all(&scripts(), |script, pace| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().start_paused(true).build().unwrap().block_on(async {
            // A pipe of one octet is what makes every read and every write one octet long; a
            // TLS handshake wants to write more than that before it reads.
            let size = if pace.by_octet && script.tls == Tls::None { 1 } else { 65_536 };
            let (client, server) = tokio::io::duplex(size);
            let (task, stopper) = script.start(server);
            Client::new(script, pace, client, stopper).run(task).await;
        });
    });
}

#[test]
fn dialogs_over_a_socket() {
    let at_once = scripts().into_iter().filter(|script| !script.takes_time);
    run_all(&at_once.collect::<Vec<Script>>(), |script, pace| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().build().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap());
            let (client, server) = tokio::join!(client, listener.accept());
            let client = client.unwrap();
            client.set_nodelay(true).unwrap();
            let (task, stopper) = script.start(server.unwrap().0);
            Client::new(script, pace, client, stopper).run(task).await;
        });
    });
}

#[test]
fn every_reply_of_the_protocol_is_said_in_a_dialog() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/smtp/reply.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let replies: Vec<&str> = source
        .split("Canned(\"")
        .skip(1)
        .filter_map(|rest| rest.split_once('"').map(|(reply, _)| reply))
        .collect();
    assert!(replies.len() > 40, "the replies were not found");
    let scripts = scripts();
    let is_said = |reply: &&str| {
        scripts.iter().flat_map(|script| &script.lines).any(|(_, line)| match line {
            // A pattern that leaves the enhanced status open says too little.
            Line::Expect(want) => want.find('*').is_none_or(|at| at > 9) && matches(reply, want),
            _ => false,
        })
    };
    let missing: Vec<&str> = replies.into_iter().filter(|reply| !is_said(reply)).collect();
    assert!(missing.is_empty(), "no dialog has {missing:?}");
}

/// Runs all, so that one failure does not hide the next.
fn run_all(scripts: &[Script], run: impl Fn(&Script, Pace)) {
    assert!(scripts.len() > 80, "only {} scripts were found", scripts.len());
    let mut failed = Vec::new();
    for script in scripts {
        for pace in script.paces() {
            let result = catch_unwind(AssertUnwindSafe(|| run(script, pace)));
            if let Err(cause) = result {
                let cause = cause.downcast_ref::<String>().cloned().unwrap_or_default();
                failed.push(format!("{} {pace:?}: {cause}", script.name));
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// How the client sends.
#[derive(Clone, Copy, Debug)]
struct Pace {
    by_octet: bool,
    pipelined: bool,
}

/// One file.
struct Script {
    name: String,
    options: Arc<SessionOptions>,
    service: Scripted,
    local: bool,
    tls: Tls,
    pipelined: bool,
    takes_time: bool,
    whole: bool,
    lines: Vec<(usize, Line)>,
    events: Vec<String>,
    mail: Option<String>,
    end: Option<String>,
}

#[derive(Clone, Copy, PartialEq)]
enum Tls {
    None,
    Offered,
    Broken,
    Implicit,
}

enum Line {
    Send(Vec<u8>),
    Expect(String),
    ExpectReply(String),
    Handshake,
    Stop,
    Closed,
}

fn scripts() -> Vec<Script> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let wanted = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "smtp");
    paths.into_iter().filter(wanted).map(|path| Script::read(&path)).collect()
}

impl Script {
    fn read(path: &Path) -> Self {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let mut options = default_options();
        let mut script = Self {
            name,
            options: Arc::new(options.clone()),
            service: Scripted::default(),
            local: true,
            tls: Tls::None,
            pipelined: false,
            takes_time: false,
            whole: false,
            lines: Vec::new(),
            events: Vec::new(),
            mail: None,
            end: None,
        };
        let text = std::fs::read_to_string(path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let number = number + 1;
            let rest = line.get(2..).unwrap_or_default();
            let rest = rest.strip_prefix(' ').unwrap_or(rest);
            let parsed = match line.get(..2).unwrap_or(line) {
                "" | "#" | "# " => continue,
                "! " => {
                    script.setting(rest, &mut options);
                    continue;
                }
                "M:" => {
                    script.mail.get_or_insert_default().push_str(&format!("{rest}\n"));
                    continue;
                }
                "E:" => {
                    script.events.push(rest.to_owned());
                    continue;
                }
                "Z:" => {
                    script.end = Some(rest.to_owned());
                    continue;
                }
                "C:" => Line::Send([unescape(rest), b"\r\n".to_vec()].concat()),
                "C~" => Line::Send(unescape(rest)),
                "S:" if rest.ends_with("...") => Line::ExpectReply(rest.replace("...", "")),
                "S:" => Line::Expect(rest.to_owned()),
                "T:" => Line::Handshake,
                "X:" => Line::Stop,
                "S!" => Line::Closed,
                _ => panic!("{}:{number}: what is {line:?}?", script.name),
            };
            script.lines.push((number, parsed));
        }
        script.options = Arc::new(options);
        script
    }

    /// What a line that begins with `!` sets.
    fn setting(&mut self, text: &str, options: &mut SessionOptions) {
        let (name, value) = text.split_once(' ').unwrap_or((text, ""));
        match name {
            "pipelined" => self.pipelined = true,
            "whole" => self.whole = true,
            "takes-time" => self.takes_time = true,
            "remote" => self.local = false,
            "lmtp" => options.protocol = Protocol::Lmtp,
            "starttls" => self.tls = Tls::Offered,
            "broken-starttls" => self.tls = Tls::Broken,
            "implicit-tls" => self.tls = Tls::Implicit,
            "dsn" => options.dsn = true,
            // XCLIENT is taken; who must authenticate after it.
            "xclient" => {
                options.xclient = true;
                self.service.auth_introduced = Some(auth(value));
            }
            "normalize" => options.bare_newline = BareNewline::Normalize,
            "auth" => options.auth = auth(value),
            "scram" => options.scram = true,
            "hostname" => options.hostname = value.to_owned(),
            "message_bytes_max" => options.message_bytes_max = value.parse().unwrap(),
            "recipients_max" => options.recipients_max = value.parse().unwrap(),
            "transactions_max" => options.transactions_max = value.parse().unwrap(),
            "errors_max" => options.errors_max = value.parse().unwrap(),
            "idle_commands_max" => options.idle_commands_max = value.parse().unwrap(),
            // The service refuses this call with this reply; RCPT that address only.
            "refuse" => {
                let (call, reply) = value.split_once(' ').unwrap();
                self.service.refusals.push((call.to_owned(), Reply::parse(reply).unwrap()));
            }
            // The service's replies to the end of a mail.
            "end" => self.service.ends.push(Reply::parse(&value.replace("\\n", "\n")).unwrap()),
            "no-end" => self.service.says_nothing = true,
            _ => panic!("{}: no such setting: {text}", self.name),
        }
    }

    fn paces(&self) -> Vec<Pace> {
        let whole = Pace { by_octet: false, pipelined: false };
        if self.whole {
            return vec![whole];
        }
        let mut paces = vec![whole, Pace { by_octet: true, ..whole }];
        if self.pipelined {
            paces.push(Pace { pipelined: true, ..whole });
            paces.push(Pace { by_octet: true, pipelined: true });
        }
        paces
    }

    fn start<S: Stream + 'static>(
        &self,
        stream: S,
    ) -> (JoinHandle<(Scripted, SessionEnd)>, Stopper) {
        let (stopper, stop) = shutdown();
        let address = if self.local { "127.0.0.1" } else { "192.0.2.1" };
        let peer = Peer { address: Some(address.parse().unwrap()) };
        let (mut service, options, tls) =
            (self.service.clone(), Arc::clone(&self.options), self.tls);
        let task = tokio::spawn(async move {
            let stop = stop.requested();
            let end = if tls == Tls::Implicit {
                let (stream, tls) = server_tls().accept(stream).await.unwrap();
                let upgrade: Option<Upgrade<_>> = None;
                serve(stream, peer, Some(tls), options, upgrade, &mut service, stop).await
            } else {
                let upgrade = (tls != Tls::None).then(|| upgrade(tls));
                serve(stream, peer, None, options, upgrade, &mut service, stop).await
            };
            (service, end)
        });
        (task, stopper)
    }
}

fn auth(value: &str) -> Auth {
    match value {
        "none" => Auth::None,
        "optional" => Auth::Optional,
        "required" => Auth::Required,
        _ => panic!("auth {value}?"),
    }
}

fn default_options() -> SessionOptions {
    SessionOptions {
        hostname: "relay.example".to_owned(),
        protocol: Protocol::Smtp,
        auth: Auth::None,
        scram: false,
        xclient: false,
        message_bytes_max: 1_000_000,
        recipients_max: 100,
        transactions_max: 100,
        errors_max: 20,
        recipients_are_errors: true,
        idle_commands_max: 100,
        command_timeout: Duration::from_secs(300),
        data_timeout: Duration::from_secs(180),
        message_timeout: Duration::from_secs(3600),
        write_timeout: Duration::from_secs(60),
        dsn: false,
        bare_newline: BareNewline::Refuse,
    }
}

fn upgrade<S: Stream + 'static>(tls: Tls) -> Upgrade<S> {
    Box::new(move |stream| {
        Box::pin(async move {
            if tls == Tls::Broken {
                return Err(std::io::Error::other("no handshake today"));
            }
            let (stream, tls) = server_tls().accept(stream).await?;
            Ok(Secured { stream: Box::new(stream), tls })
        })
    })
}

/// A server with a certificate of its own making.
fn server_tls() -> &'static ServerTls {
    static TLS: OnceLock<ServerTls> = OnceLock::new();
    TLS.get_or_init(|| {
        let made = rcgen::generate_simple_self_signed(["relay.example".to_owned()]).unwrap();
        let folder = std::env::temp_dir().join(format!("rebound-dialog-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (cert_file, key_file) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&cert_file, made.cert.pem()).unwrap();
        std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        let tls = ServerTls::load(&[Certificate { cert_file, key_file }]).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        tls
    })
}

/// The client's end.
struct Client<'a> {
    script: &'a Script,
    pace: Pace,
    stream: Box<dyn Stream>,
    stopper: Stopper,
    read: Vec<u8>,
    at: usize,
}

impl<'a> Client<'a> {
    fn new(
        script: &'a Script,
        pace: Pace,
        stream: impl Stream + 'static,
        stopper: Stopper,
    ) -> Self {
        Self { script, pace, stream: Box::new(stream), stopper, read: Vec::new(), at: 0 }
    }

    async fn run(mut self, task: JoinHandle<(Scripted, SessionEnd)>) {
        if self.pace.pipelined {
            self.send_all_at_once().await;
        }
        for (at, line) in &self.script.lines {
            self.at = *at;
            match line {
                Line::Send(_) if self.pace.pipelined => {}
                Line::Send(octets) => self.send(octets).await,
                Line::Expect(want) => {
                    let got = self.line().await;
                    self.check(&got, want);
                }
                Line::ExpectReply(code) => loop {
                    let got = self.line().await;
                    self.check(&got, &format!("{code}*"));
                    if !got.starts_with(&format!("{code}-")) {
                        break;
                    }
                },
                Line::Handshake => self.handshake().await,
                Line::Stop => self.stopper.stop(),
                Line::Closed => self.closed().await,
            }
        }
        drop(self.stream.shutdown().await);
        let rest = self.rest().await;
        let place = self.place();
        assert_eq!(rest, "", "{place}: the server said more");
        let (service, end) = task.await.unwrap();
        if let Some(want) = &self.script.end {
            assert!(format!("{end:?}").starts_with(want.as_str()), "{place}: ended {end:?}");
        }
        if let Some(want) = &self.script.mail {
            let got = String::from_utf8_lossy(&service.mail).replace("\r\n", "\n");
            assert_eq!(got, *want, "{place}: the mail");
        }
        if !self.script.events.is_empty() {
            assert_eq!(service.events, self.script.events, "{place}: the service's calls");
        }
    }

    fn place(&self) -> String {
        format!("{}:{} {:?}", self.script.name, self.at, self.pace)
    }

    fn check(&self, got: &str, want: &str) {
        assert!(matches(got, want), "{}: want {want:?}, got {got:?}", self.place());
    }

    async fn send_all_at_once(&mut self) {
        let sent = |(_, line): &(usize, Line)| match line {
            Line::Send(octets) => octets.clone(),
            _ => Vec::new(),
        };
        let octets: Vec<u8> = self.script.lines.iter().flat_map(sent).collect();
        self.send(&octets).await;
    }

    /// Reads while it writes, or a small pipe would be full in both directions.
    ///
    /// The server may have closed: what it said before that is what the script checks.
    async fn send(&mut self, octets: &[u8]) {
        let (mut reader, mut writer) = tokio::io::split(&mut self.stream);
        let mut write = std::pin::pin!(async {
            for piece in octets.chunks(if self.pace.by_octet { 1 } else { octets.len() }) {
                drop(writer.write_all(piece).await);
                drop(writer.flush().await);
                tokio::task::yield_now().await;
            }
        });
        loop {
            tokio::select! {
                biased;
                () = write.as_mut() => break,
                read = reader.read_buf(&mut self.read) => {
                    if matches!(read, Ok(0) | Err(_)) {
                        break;
                    }
                }
            }
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return String::from_utf8(line[..end].to_vec()).unwrap();
            }
            let read = patient(self.stream.read_buf(&mut self.read)).await;
            if matches!(read, None | Some(Ok(0) | Err(_))) {
                panic!("{}: no line came, but {read:?} {:?}", self.place(), self.read);
            }
        }
    }

    async fn closed(&mut self) {
        let rest = self.rest().await;
        assert_eq!(rest, "", "{}: the server must close", self.place());
    }

    async fn rest(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.read);
        match patient(self.stream.read_to_end(&mut rest)).await {
            Some(_) => String::from_utf8_lossy(&rest).into_owned(),
            None => panic!("{}: the server does not close", self.place()),
        }
    }

    async fn handshake(&mut self) {
        assert!(self.read.is_empty(), "{}: said before the handshake", self.place());
        let plain = std::mem::replace(&mut self.stream, Box::new(tokio::io::duplex(1).0));
        let tls = ClientTls::new(Verify::No, None).unwrap();
        match tls.connect("relay.example", plain).await {
            Ok((stream, _)) => self.stream = Box::new(stream),
            Err(error) => assert!(self.script.tls == Tls::Broken, "{error}"),
        }
    }
}

/// Waits longer than any deadline of the server over memory, and as long as a slow machine
/// may take over a socket.
async fn patient<T>(wait: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(86_400), wait).await.ok()
}

/// Whether `got` is `want`, in which `*` stands for any text.
fn matches(got: &str, want: &str) -> bool {
    match want.split_once('*') {
        None => got == want,
        Some((start, rest)) => got.strip_prefix(start).is_some_and(|tail| {
            let ends = tail.char_indices().map(|(at, _)| at).chain([tail.len()]);
            ends.into_iter().any(|at| matches(&tail[at..], rest))
        }),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        octets.extend_from_slice(before.as_bytes());
        let (kind, tail) = after.split_at(1);
        rest = tail;
        match kind {
            "r" => octets.push(b'\r'),
            "n" => octets.push(b'\n'),
            "0" => octets.push(0),
            "\\" => octets.push(b'\\'),
            "x" => {
                let (digits, tail) = tail.split_at(2);
                octets.push(u8::from_str_radix(digits, 16).unwrap());
                rest = tail;
            }
            "{" => {
                let (repeat, tail) = tail.split_once('}').unwrap();
                let (piece, times) = repeat.split_once('*').unwrap();
                octets.extend_from_slice(piece.repeat(times.parse().unwrap()).as_bytes());
                rest = tail;
            }
            _ => panic!("what is \\{kind}?"),
        }
    }
    octets.extend_from_slice(rest.as_bytes());
    octets
}

/// What is kept of `pencil`, as PostgreSQL writes it.
const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
    $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

/// A service that does what the script says and remembers what it was asked.
#[derive(Clone, Default)]
struct Scripted {
    auth_introduced: Option<Auth>,
    refusals: Vec<(String, Reply)>,
    ends: Vec<Reply>,
    says_nothing: bool,
    recipients: usize,
    mail: Vec<u8>,
    events: Vec<String>,
}

impl Scripted {
    fn asked(&mut self, call: &str, event: String) -> Result<(), Reply> {
        self.events.push(event);
        match self.refusals.iter().find(|(refused, _)| refused == call) {
            Some((_, reply)) => Err(reply.clone()),
            None => Ok(()),
        }
    }
}

impl Service for Scripted {
    fn hello(&mut self, hello: &Hello) {
        let kind = match hello.kind {
            HelloKind::Helo => "helo",
            HelloKind::Ehlo => "ehlo",
            HelloKind::Lhlo => "lhlo",
        };
        self.events.push(format!("{kind} {}", hello.name));
    }

    fn secured(&mut self, tls: &str) {
        assert!(tls.starts_with("TLSv1.3 TLS13_"), "{tls}");
        self.events.push("secured".to_owned());
    }

    fn introduced(&mut self, peer: &Peer) -> Auth {
        self.events.push(format!("introduced {peer}"));
        self.auth_introduced.unwrap()
    }

    async fn authenticate(&mut self, username: &str, password: &[u8]) -> Result<(), Reply> {
        self.asked("authenticate", format!("authenticate {username}"))?;
        if (username, password) == ("app", b"secret") {
            Ok(())
        } else {
            Err(Reply::parse("535 5.7.8 Authentication credentials invalid").unwrap())
        }
    }

    /// Salt, iterations and nonce of the example in RFC 7677 §3, whose user is `user`.
    async fn challenge(&mut self, username: &str) -> Result<ScramChallenge, Reply> {
        self.asked("challenge", format!("challenge {username}"))?;
        Ok(ScramChallenge {
            nonce: "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0".to_owned(),
            salt: base64::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            iterations: 4096,
        })
    }

    /// The password of the example is `pencil`.
    async fn prove(&mut self, proof: &ScramProof) -> Result<[u8; 32], Reply> {
        let ScramProof { username, auth_message, proof } = proof;
        self.asked("prove", format!("prove {username}"))?;
        let verifier = ScramVerifier::parse(PENCIL).unwrap();
        let proved = verifier.prove(auth_message.as_bytes(), proof);
        proved.ok_or_else(|| Reply::parse("535 5.7.8 Authentication credentials invalid").unwrap())
    }

    fn proved(&mut self, username: &str) {
        self.events.push(format!("proved {username}"));
    }

    async fn mail(&mut self, mail: &MailCommand) -> Result<(), Reply> {
        let mut event = format!("mail <{}>", mail.reverse_path);
        if let Some(bytes) = mail.size_bytes {
            event.push_str(&format!(" size={bytes}"));
        }
        if mail.body == BodyKind::EightBitMime {
            event.push_str(" 8bit");
        }
        if mail.smtputf8 {
            event.push_str(" smtputf8");
        }
        if let Some(content) = mail.dsn.content {
            event.push_str(&format!(" ret={}", content.keyword()));
        }
        if let Some(id) = &mail.dsn.envelope_id {
            event.push_str(&format!(" envid={}", id.as_str()));
        }
        self.recipients = 0;
        self.mail.clear();
        self.asked("mail", event)
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        let Recipient { address, dsn, .. } = recipient;
        let mut event = format!("rcpt <{address}>");
        if let Some(notify) = dsn.notify {
            event.push_str(&format!(" notify={notify}"));
        }
        if let Some(original) = &dsn.original_recipient {
            event.push_str(&format!(" orcpt={}", original.as_str()));
        }
        self.asked(address.as_str(), event)?;
        self.recipients += 1;
        Ok(())
    }

    async fn data(&mut self) -> Result<(), Reply> {
        self.asked("data", "data".to_owned())
    }

    async fn chunk(&mut self, octets: &[u8]) -> Result<(), Reply> {
        assert!(!octets.is_empty());
        self.mail.extend_from_slice(octets);
        match self.refusals.iter().find(|(refused, _)| refused == "chunk") {
            Some((_, reply)) => Err(reply.clone()),
            None => Ok(()),
        }
    }

    async fn end(&mut self) -> Vec<Reply> {
        self.events.push("end".to_owned());
        if self.says_nothing {
            return Vec::new();
        }
        if self.ends.is_empty() {
            let ok = Reply::parse("250 2.0.0 Ok: queued as TEST").unwrap();
            return vec![ok; self.recipients];
        }
        self.ends.clone()
    }

    fn reset(&mut self) {
        self.events.push("reset".to_owned());
    }
}
