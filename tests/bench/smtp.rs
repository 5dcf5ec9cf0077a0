//! The least SMTP that a load needs: a client that submits, a sink that takes everything.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A session that submits one mail after the other.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) async fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.reply().await?;
        client.command("EHLO client.example\r\n").await?;
        Ok(client)
    }

    /// Submits a mail and returns the last line of the reply to its end.
    pub(crate) async fn submit(&mut self, from: &str, to: &str, mail: &[u8]) -> io::Result<String> {
        let envelope = format!("MAIL FROM:<{from}>\r\nRCPT TO:<{to}>\r\nDATA\r\n");
        self.stream.get_mut().write_all(envelope.as_bytes()).await?;
        for _ in 0..3 {
            let reply = self.reply().await?;
            if !reply.starts_with(['2', '3']) {
                return Err(io::Error::other(reply));
            }
        }
        self.stream.get_mut().write_all(mail).await?;
        self.stream.get_mut().write_all(b"\r\n.\r\n").await?;
        let reply = self.reply().await?;
        if reply.starts_with("250") { Ok(reply) } else { Err(io::Error::other(reply)) }
    }

    /// Says QUIT and waits for the server to close.
    pub(crate) async fn quit(mut self) -> io::Result<()> {
        self.command("QUIT\r\n").await?;
        self.stream.read_to_end(&mut Vec::new()).await.map(drop)
    }

    async fn command(&mut self, line: &str) -> io::Result<String> {
        self.stream.get_mut().write_all(line.as_bytes()).await?;
        self.reply().await
    }

    async fn reply(&mut self) -> io::Result<String> {
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }
}

/// A mail of about `size` octets with this subject.
pub(crate) fn mail(subject: &str, size: usize) -> Vec<u8> {
    let mut mail = format!(
        "From: app@bench.example\r\nTo: user@example.com\r\nSubject: {subject}\r\n\
         Message-ID: <{subject}@bench.example>\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n\r\n"
    );
    while mail.len() + 72 < size {
        mail.push_str(
            "All work and no play makes a dull line of seventy octets, again and again.\r\n",
        );
    }
    mail.truncate(mail.trim_end().len());
    mail.into_bytes()
}

/// Takes every mail and counts them.
#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) port: u16,
    count: Arc<AtomicUsize>,
    seen: watch::Receiver<usize>,
}

impl Sink {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, seen) = watch::channel(0);
        let count = Arc::new(AtomicUsize::new(0));
        let sink = Self { port, count, seen };
        let (served, sender) = (sink.clone(), Arc::new(sender));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (sink, sender) = (served.clone(), Arc::clone(&sender));
                tokio::spawn(async move {
                    // A client that goes away in the middle is no news here.
                    drop(sink.session(stream, &sender).await);
                });
            }
        });
        sink
    }

    pub(crate) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    /// Returns once so many mails have come.
    pub(crate) async fn wait_for(&mut self, count: usize) {
        self.seen.wait_for(|seen| *seen >= count).await.expect("the sink runs");
    }

    async fn session(&self, stream: TcpStream, sender: &watch::Sender<usize>) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut stream = BufReader::new(stream);
        stream.get_mut().write_all(b"220 sink\r\n").await?;
        let mut line = String::new();
        loop {
            line.clear();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            let reply: &[u8] = match verb.as_str() {
                "EHLO" => b"250-sink\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
                "DATA" => b"354 go\r\n",
                "QUIT" => b"221 bye\r\n",
                _ => b"250 2.0.0 ok\r\n",
            };
            stream.get_mut().write_all(reply).await?;
            if verb == "DATA" {
                take_mail(&mut stream).await?;
                let count = self.count.fetch_add(1, Ordering::SeqCst) + 1;
                stream.get_mut().write_all(b"250 2.0.0 ok: queued as SINK\r\n").await?;
                sender.send_if_modified(|seen| {
                    let newer = count > *seen;
                    *seen = count.max(*seen);
                    newer
                });
            }
        }
    }
}

/// Reads a mail to its final dot.
async fn take_mail(stream: &mut BufReader<TcpStream>) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        if stream.read_until(b'\n', &mut line).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line == b".\r\n" {
            return Ok(());
        }
    }
}
