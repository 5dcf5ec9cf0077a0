//! An SMTP client that says exactly what it is told, so that it can also say what is wrong.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::SOON;

/// One connection.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

/// The two ids in `250 2.0.0 Ok: queued as <queueId> <message-id>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Queued {
    pub(crate) queue_id: String,
    pub(crate) message_id: String,
}

impl Client {
    /// Connects, reads the greeting and says EHLO.
    pub(crate) fn connect(server: SocketAddr) -> Self {
        Self::try_connect(server).unwrap_or_else(|error| panic!("connecting to {server}: {error}"))
    }

    pub(crate) fn try_connect(server: SocketAddr) -> std::io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, SOON)?;
        stream.set_read_timeout(Some(SOON))?;
        stream.set_write_timeout(Some(SOON))?;
        stream.set_nodelay(true)?;
        let mut client = Self { stream: BufReader::new(stream) };
        client.reply()?;
        client.command("EHLO client.test")?;
        Ok(client)
    }

    /// Sends a line and returns the reply, lines joined by `\n`.
    pub(crate) fn command(&mut self, line: &str) -> std::io::Result<String> {
        self.raw(format!("{line}\r\n").as_bytes())?;
        self.reply()
    }

    /// The reply to a line; fails when there is none.
    pub(crate) fn say(&mut self, line: &str) -> String {
        self.command(line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    pub(crate) fn raw(&mut self, octets: &[u8]) -> std::io::Result<()> {
        self.stream.get_mut().write_all(octets)
    }

    pub(crate) fn reply(&mut self) -> std::io::Result<String> {
        let mut text = String::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            text += line.trim_end();
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(text);
            }
            text.push('\n');
        }
    }

    /// Everything that the server says until it closes.
    pub(crate) fn read_to_end(&mut self, said: &mut Vec<u8>) -> std::io::Result<usize> {
        self.stream.read_to_end(said)
    }

    /// Sends one mail whole; the reply to its end, or to what was refused before.
    pub(crate) fn send(&mut self, from: &str, to: &[&str], mail: &[u8]) -> std::io::Result<String> {
        let to: Vec<(&str, &str)> = to.iter().map(|to| (*to, "")).collect();
        self.send_asking((from, ""), &to, mail)
    }

    /// The same with parameters behind each path.
    pub(crate) fn send_asking(
        &mut self,
        (from, parameters): (&str, &str),
        to: &[(&str, &str)],
        mail: &[u8],
    ) -> std::io::Result<String> {
        let said = self.command(&format!("MAIL FROM:<{from}> {parameters}"))?;
        if !said.starts_with('2') {
            return Ok(said);
        }
        for (to, parameters) in to {
            let said = self.command(&format!("RCPT TO:<{to}> {parameters}"))?;
            if !said.starts_with('2') {
                self.command("RSET")?;
                return Ok(said);
            }
        }
        let said = self.command("DATA")?;
        if !said.starts_with('3') {
            return Ok(said);
        }
        self.raw(&stuffed(mail))?;
        self.reply()
    }
}

/// Submits one mail that must be taken.
pub(crate) fn submit(server: SocketAddr, from: &str, to: &[&str], mail: &[u8]) -> Queued {
    let to: Vec<(&str, &str)> = to.iter().map(|to| (*to, "")).collect();
    submit_asking(server, (from, ""), &to, mail)
}

/// The same with parameters behind each path.
pub(crate) fn submit_asking(
    server: SocketAddr,
    from: (&str, &str),
    to: &[(&str, &str)],
    mail: &[u8],
) -> Queued {
    let mut client = Client::connect(server);
    let reply = client.send_asking(from, to, mail).unwrap();
    client.command("QUIT").unwrap();
    queued(&reply).unwrap_or_else(|| panic!("not taken: {reply}"))
}

/// The ids in a reply, if it says that the mail is taken.
pub(crate) fn queued(reply: &str) -> Option<Queued> {
    let mut words = reply.strip_prefix("250 2.0.0 Ok: queued as ")?.split(' ');
    let queue_id = words.next()?.to_owned();
    Some(Queued { queue_id, message_id: words.next()?.to_owned() })
}

/// A small mail with a subject.
pub(crate) fn mail(subject: &str) -> Vec<u8> {
    format!(
        "From: App <bounces@app.test>\r\nTo: Somebody <good@dest.test>\r\nSubject: {subject}\r\n\
         \r\nHello.\r\n"
    )
    .into_bytes()
}

fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len() + 5);
    let mut at_line_start = true;
    for octet in mail {
        if at_line_start && *octet == b'.' {
            out.push(b'.');
        }
        out.push(*octet);
        at_line_start = *octet == b'\n';
    }
    out.extend_from_slice(if at_line_start { b".\r\n" } else { b"\r\n.\r\n" });
    out
}
