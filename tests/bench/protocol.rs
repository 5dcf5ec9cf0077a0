//! What the protocol alone costs: processor time per mail of a server whose store is a sink,
//! beside Postfix's `smtp-sink` with the same client.
//!
//! Each server is a process of its own, so that the client's time is not counted: ours is this
//! program once more, with `--serve-sink`.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rebound::mail::Reply;
use rebound::mail::envelope::Recipient;
use rebound::smtp::{
    Auth, BareNewline, Hello, MailCommand, Peer, Protocol, Service, SessionOptions, serve,
};

use crate::smtp::{Client, mail};

/// The argument with which this program is the server.
pub(crate) const SERVE: &str = "--serve-sink";

pub(crate) async fn run(long: bool) {
    println!("\nprotocol: processor time of the server per mail, one session at a time");
    let ours = Server::ours();
    let theirs = Server::smtp_sink();
    if theirs.is_none() {
        println!(
            "smtp-sink is missing (apt-get install postfix): there is nothing to compare with"
        );
    }
    for (name, size, each, count) in ROWS {
        let count = if long { count * 10 } else { *count };
        let mail = mail("protocol", *size);
        let mut cost = None;
        for (server, who) in [(theirs.as_ref(), "smtp-sink"), (Some(&ours), "Rebound")] {
            let Some(server) = server else { continue };
            // Once before the clock runs, for whatever is done only once.
            send(server.port, &mail, *each, *each).await;
            let before = server.cpu_seconds();
            send(server.port, &mail, *each, count).await;
            let micros = (server.cpu_seconds() - before) * 1e6 / count as f64;
            let ratio = cost.map(|base| format!("  {:>6.2} x smtp-sink", micros / base));
            println!("{name:<34} {who:<9} {micros:>10.1} us {}", ratio.unwrap_or_default());
            cost = Some(micros);
        }
    }
}

/// Sends so many mails, so many of them in each connection.
async fn send(port: u16, mail: &[u8], each: usize, count: usize) {
    let mut left = count;
    while left > 0 {
        let mut client = Client::connect(port).await.expect("a connection");
        for _ in 0..each.min(left) {
            client.submit("app@bench.example", "user@example.com", mail).await.expect("a 250");
        }
        client.quit().await.expect("an end");
        left -= each.min(left);
    }
}

/// A server in a process of its own.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn ours() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .arg(SERVE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("a port");
        Self { child, port }
    }

    fn smtp_sink() -> Option<Self> {
        let program = Path::new("/usr/sbin/smtp-sink");
        if !program.exists() {
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(program);
        // Root must name another user, as whom it runs.
        if std::fs::metadata("/proc/self").is_ok_and(|own| is_root(&own)) {
            command.args(["-u", "nobody"]);
        }
        let child = command.args([&address, "100"]).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while std::net::TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "smtp-sink does not start");
            std::thread::park_timeout(Duration::from_millis(10));
        }
        Some(Self { child, port })
    }

    /// Processor time of all its threads so far, in the kernel and outside.
    fn cpu_seconds(&self) -> f64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let nanos = tasks.map(|task| {
            let path = task.unwrap().path().join("schedstat");
            let text = std::fs::read_to_string(path).unwrap();
            text.split(' ').next().unwrap().parse::<f64>().unwrap()
        });
        nanos.sum::<f64>() / 1e9
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn is_root(own: &std::fs::Metadata) -> bool {
    std::os::unix::fs::MetadataExt::uid(own) == 0
}

/// Serves until standard input ends, on a port that is printed; one thread, as smtp-sink has.
pub(crate) fn serve_sink() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    std::thread::spawn(|| {
        // Nothing comes; it ends when the process that started this one does.
        drop(std::io::stdin().read_to_end(&mut Vec::new()));
        std::process::exit(0);
    });
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("{}", listener.local_addr().unwrap().port());
        let options = Arc::new(options());
        loop {
            let (stream, address) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let options = Arc::clone(&options);
            let peer = Peer { address: Some(address.ip()) };
            tokio::spawn(async move {
                let never = std::future::pending();
                serve(stream, peer, None, options, None, &mut Discard, never).await
            });
        }
    });
}

fn options() -> SessionOptions {
    SessionOptions {
        hostname: "bench.example".to_owned(),
        protocol: Protocol::Smtp,
        auth: Auth::None,
        scram: false,
        xclient: false,
        message_bytes_max: 26_214_400,
        recipients_max: 1000,
        transactions_max: 1_000_000,
        errors_max: 20,
        recipients_are_errors: true,
        idle_commands_max: 1000,
        command_timeout: Duration::from_secs(300),
        data_timeout: Duration::from_secs(180),
        message_timeout: Duration::from_secs(3600),
        write_timeout: Duration::from_secs(300),
        dsn: true,
        bare_newline: BareNewline::Refuse,
    }
}

/// Takes everything and keeps nothing.
struct Discard;

impl Service for Discard {
    fn hello(&mut self, _hello: &Hello) {}

    fn secured(&mut self, _tls: &str) {}

    fn introduced(&mut self, _peer: &Peer) -> Auth {
        Auth::None
    }

    async fn authenticate(&mut self, _username: &str, _password: &[u8]) -> Result<(), Reply> {
        Ok(())
    }

    async fn mail(&mut self, _mail: &MailCommand) -> Result<(), Reply> {
        Ok(())
    }

    async fn rcpt(&mut self, _recipient: &Recipient) -> Result<(), Reply> {
        Ok(())
    }

    async fn data(&mut self) -> Result<(), Reply> {
        Ok(())
    }

    async fn chunk(&mut self, octets: &[u8]) -> Result<(), Reply> {
        std::hint::black_box(octets);
        Ok(())
    }

    async fn end(&mut self) -> Vec<Reply> {
        vec![Reply::parse("250 2.0.0 Ok").unwrap()]
    }

    fn reset(&mut self) {}
}

/// What is sent: octets of a mail, mails in a connection, mails.
const ROWS: &[(&str, usize, usize, usize)] = &[
    ("1 KB, one mail a connection", 1024, 1, 2_000),
    ("1 KB, 100 mails a connection", 1024, 100, 10_000),
    ("4 KB, one mail a connection", 4096, 1, 2_000),
    ("4 KB, 100 mails a connection", 4096, 100, 10_000),
    ("1 MB, 10 mails a connection", 1_048_576, 10, 200),
];
