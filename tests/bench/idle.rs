//! What an idle connection costs in memory: how much the daemon's resident set grows.
//!
//! That is the task with the state of both conversations it may have, the SMTP session, the place
//! in tokio's reactor and, with TLS, the state of rustls with its keys
//! and the 4 KB that rustls keeps for the next record. What the kernel holds for the socket is no
//! part of a resident set.

use std::path::Path;
use std::process::Command;

use rebound::config::Certificate;
use rebound::net::tls::{ClientTls, Verify};
use rebound::smtp::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::daemon::{Daemon, new_dir};

pub(crate) async fn run() {
    println!("\nidle: growth of the daemon's resident set for each of {CONNECTIONS} connections");
    raise_open_files();
    for (name, aim, kind) in [
        ("plain, after EHLO", 4.0, Kind::Plain),
        ("TLS from the first octet, after EHLO", 12.0, Kind::Tls),
        ("STARTTLS, after EHLO in TLS", 12.0, Kind::StartTls),
    ] {
        measure(name, aim, kind).await;
    }
}

/// How a connection is protected.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    Tls,
    StartTls,
}

async fn measure(name: &str, aim: f64, kind: Kind) {
    let dir = new_dir("idle");
    let daemon = Daemon::start_with_tls(&dir, &certificate(&dir));
    let tls = ClientTls::new(Verify::No, None).unwrap();
    // The first ones pay for what all have in common.
    let mut held = Vec::new();
    for _ in 0..WARM_UP {
        held.push(connect(&daemon, &tls, kind).await);
    }
    let before = daemon.resident_bytes();
    for _ in 0..CONNECTIONS {
        held.push(connect(&daemon, &tls, kind).await);
    }
    let grown = daemon.resident_bytes() - before;
    let each = grown as f64 / CONNECTIONS as f64 / 1024.0;
    println!("{name:<44} {each:>10.1} KB  {:>6.2} x the aim of {aim} KB", each / aim);
    drop((held, daemon));
    std::fs::remove_dir_all(dir).unwrap();
}

/// A connection that has said EHLO and says no more.
async fn connect(daemon: &Daemon, tls: &ClientTls, kind: Kind) -> Box<dyn Stream> {
    let port = if kind == Kind::Tls { daemon.smtps } else { daemon.smtp };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    let mut stream: Box<dyn Stream> = match kind {
        Kind::Plain => Box::new(stream),
        Kind::Tls => Box::new(tls.connect("localhost", stream).await.expect("a handshake").0),
        Kind::StartTls => {
            reply(&mut stream).await;
            stream.write_all(b"STARTTLS\r\n").await.unwrap();
            reply(&mut stream).await;
            Box::new(tls.connect("localhost", stream).await.expect("a handshake").0)
        }
    };
    if kind != Kind::StartTls {
        reply(&mut stream).await;
    }
    stream.write_all(b"EHLO client.example\r\n").await.unwrap();
    reply(&mut stream).await;
    stream
}

/// Reads one reply to its end.
async fn reply(stream: &mut (impl AsyncReadExt + Unpin)) {
    let mut said = Vec::new();
    let mut block = [0; 2048];
    loop {
        let len = stream.read(&mut block).await.expect("a reply");
        assert!(len > 0, "the daemon closed: {}", String::from_utf8_lossy(&said));
        said.extend_from_slice(&block[..len]);
        let text = String::from_utf8_lossy(&said);
        let last = text.strip_suffix("\r\n").and_then(|text| text.rsplit("\r\n").next());
        if last.is_some_and(|line| line.as_bytes().get(3) == Some(&b' ')) {
            assert!(text.starts_with('2'), "{text}");
            return;
        }
    }
}

fn certificate(dir: &Path) -> Certificate {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    Certificate { cert_file, key_file }
}

/// For this process, and for the daemon that it starts.
fn raise_open_files() {
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &own, &format!("--nofile={OPEN_FILES}:{OPEN_FILES}")])
        .status();
    assert!(raised.is_ok_and(|status| status.success()), "prlimit cannot raise RLIMIT_NOFILE");
}

const CONNECTIONS: usize = 5000;
const WARM_UP: usize = 100;
/// One for each connection, and some.
const OPEN_FILES: usize = 8192;
