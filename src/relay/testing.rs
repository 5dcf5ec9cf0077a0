//! A next hop that follows a script, for the tests of the relay and the queue.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::connection::Stream;
use crate::config::{self, RelayTls};
use crate::net::tls::ServerTls;

/// A next hop that plays one dialog for each connection, in the order in which they come.
///
/// A dialog has one line for each thing that happens:
/// `S: text` is sent, followed by CRLF, and what follows a written `\r\n` goes out with it as a
/// line of its own; `C: text` must be what the client sends, where a final `*` stands for any
/// rest; `BODY` reads up to the lone dot, `OCTETS n` reads so many; `TLS` waits for a handshake; `DROP` hangs up; `EOF`
/// waits until the client does; `LAST` waits until another dialog has ended.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    played: JoinHandle<Vec<String>>,
}

impl Scripted {
    /// Binds a port of loopback and begins to play.
    pub(crate) async fn start(dialogs: &[&str]) -> Self {
        Self::start_with(dialogs, None).await
    }

    /// The same with certificates for `TLS`.
    pub(crate) async fn start_with(dialogs: &[&str], tls: Option<ServerTls>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let dialogs: Vec<String> = dialogs.iter().map(|dialog| (*dialog).to_owned()).collect();
        let tls = tls.map(Arc::new);
        let played = tokio::spawn(async move {
            let (ended, _) = watch::channel(0);
            let mut playing = Vec::new();
            for dialog in dialogs {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, ended) = (tls.clone(), ended.clone());
                playing.push(tokio::spawn(async move {
                    let bodies = play(stream, &dialog, tls.as_deref(), &ended).await;
                    ended.send_modify(|count| *count += 1);
                    bodies
                }));
            }
            let mut bodies = Vec::new();
            for dialog in playing {
                bodies.append(&mut dialog.await.unwrap());
            }
            bodies
        });
        Self { address, played }
    }

    /// Waits until every dialog has been played to its end; the bodies as they were on the wire,
    /// with the lone dot.
    pub(crate) async fn bodies(self) -> Vec<String> {
        tokio::time::timeout(DEADLINE, self.played).await.expect("a dialog did not end").unwrap()
    }
}

/// An address where every connection is refused. The port is bound and nobody listens, so that as
/// long as the socket is held no other test can come to listen there.
pub(crate) fn refusing() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Settings that lead to `address`, without TLS and waits.
pub(crate) fn settings(address: SocketAddr) -> config::Relay {
    let mut settings = config::defaults().relay;
    settings.host = address.to_string();
    settings.tls = RelayTls::None;
    // Longer than a busy machine lets a test stand still between two mails.
    settings.connection_idle_secs = 60;
    settings.connect_timeout_secs = 5;
    settings.command_timeout_secs = 5;
    settings.data_block_timeout_secs = 5;
    settings.data_end_timeout_secs = 5;
    settings
}

async fn play(
    stream: TcpStream,
    dialog: &str,
    tls: Option<&ServerTls>,
    ended: &watch::Sender<usize>,
) -> Vec<String> {
    let mut bodies = Vec::new();
    let mut stream: BufStream<Box<dyn Stream>> = BufStream::new(Box::new(stream));
    for step in dialog.lines().map(str::trim_start).filter(|step| !step.is_empty()) {
        if let Some(text) = step.strip_prefix("S: ") {
            let text = text.replace("\\r\\n", "\r\n");
            stream.write_all(format!("{text}\r\n").as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
        } else if let Some(want) = step.strip_prefix("C: ") {
            let got = line(&mut stream).await;
            let got = got.strip_suffix("\r\n").unwrap_or(&got);
            match want.strip_suffix('*') {
                Some(start) => assert!(got.starts_with(start), "{got:?} instead of {want:?}"),
                None => assert_eq!(got, want, "in\n{dialog}"),
            }
        } else if step == "BODY" {
            let mut body = String::new();
            while body != ".\r\n" && !body.ends_with("\r\n.\r\n") {
                body += &line(&mut stream).await;
            }
            bodies.push(body);
        } else if let Some(count) = step.strip_prefix("OCTETS ") {
            let mut octets = vec![0; count.parse().unwrap()];
            let read = stream.read_exact(&mut octets);
            tokio::time::timeout(DEADLINE, read).await.expect("octets are missing").unwrap();
            bodies.push(String::from_utf8(octets).unwrap());
        } else if step == "EOF" {
            let got = line(&mut stream).await;
            assert_eq!(got, "", "in\n{dialog}");
        } else if step == "TLS" {
            match tls.unwrap().accept(stream.into_inner()).await {
                Ok((encrypted, _)) => stream = BufStream::new(Box::new(encrypted)),
                // The client did not like the certificate, which is for its own test to say.
                Err(_) => return bodies,
            }
        } else if step == "LAST" {
            let mut ended = ended.subscribe();
            let other = ended.wait_for(|count| *count > 0);
            tokio::time::timeout(DEADLINE, other).await.expect("no other dialog ended").unwrap();
        } else if step == "DROP" {
            return bodies;
        } else {
            panic!("`{step}` is no step of a dialog");
        }
    }
    bodies
}

async fn line(stream: &mut BufStream<Box<dyn Stream>>) -> String {
    let mut octets = Vec::new();
    let read = stream.read_until(b'\n', &mut octets);
    match tokio::time::timeout(DEADLINE, read).await.expect("the client sent nothing") {
        Ok(_) => {}
        // A client that hangs up on unread octets resets the connection.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        // A client that hangs up does not take leave of TLS.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
        Err(error) => panic!("{error}"),
    }
    String::from_utf8(octets).unwrap()
}

const DEADLINE: Duration = Duration::from_secs(10);
