//! A small SMTP client for mail of our own on this machine: reports of the simulator, test mails.
//!
//! Mail of the apps goes through `relay`; this one knows neither TLS nor AUTH nor extensions.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::mail::{Address, Reply, ReversePath};

/// One connection to a server that has greeted.
pub struct Client {
    stream: BufReader<TcpStream>,
    server: String,
}

/// Why a mail could not be handed over.
#[derive(Debug)]
pub enum ClientError {
    /// The connection could not be made or was lost.
    Peer {
        /// The server, as it was named.
        server: String,
        /// Why.
        source: io::Error,
    },
    /// The server answered nothing in time.
    PeerSilent(String),
    /// The server answered something that is no SMTP reply.
    PeerGarbled(String),
    /// The server refused.
    Refused {
        /// The command that was refused.
        command: String,
        /// What was answered.
        reply: Reply,
    },
}

/// What became of each recipient of a mail.
#[derive(Debug)]
pub struct Sent {
    /// The recipients that were refused at `RCPT`, with the reply.
    pub refused: Vec<(Address, Reply)>,
    /// The reply to the end of the data.
    pub reply: Reply,
}

impl Client {
    /// Connects to `server` (`host:port`), reads the greeting and says `EHLO name`.
    pub async fn connect(server: &str, name: &str) -> Result<Self, ClientError> {
        let peer = |source| ClientError::Peer { server: server.to_owned(), source };
        let stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(server))
            .await
            .map_err(|_elapsed| ClientError::PeerSilent(server.to_owned()))?
            .map_err(peer)?;
        let mut client = Self { stream: BufReader::new(stream), server: server.to_owned() };
        let greeting = client.reply(REPLY_TIMEOUT).await?;
        accepted("connecting", greeting)?;
        client.command(&format!("EHLO {name}")).await?;
        Ok(client)
    }

    /// Sends one mail, lines ended by CRLF; fails unless one recipient at least is taken.
    pub async fn send(
        &mut self,
        from: &ReversePath,
        to: &[Address],
        mail: &[u8],
    ) -> Result<Sent, ClientError> {
        self.command(&format!("MAIL FROM:<{from}>")).await?;
        let mut refused = Vec::new();
        for address in to {
            match self.command(&format!("RCPT TO:<{address}>")).await {
                Ok(_) => {}
                Err(ClientError::Refused { command, reply }) => {
                    if refused.len().saturating_add(1) == to.len() {
                        return Err(ClientError::Refused { command, reply });
                    }
                    refused.push((address.clone(), reply));
                }
                Err(other) => return Err(other),
            }
        }
        self.write(b"DATA\r\n").await?;
        let go_ahead = self.reply(REPLY_TIMEOUT).await?;
        if go_ahead.code != 354 {
            return Err(ClientError::Refused { command: "DATA".to_owned(), reply: go_ahead });
        }
        self.write(&stuffed(mail)).await?;
        let reply = self.reply(DATA_END_TIMEOUT).await?;
        let reply = accepted("the end of the data", reply)?;
        Ok(Sent { refused, reply })
    }

    /// Says `QUIT`; what is answered does not matter any more.
    pub async fn quit(mut self) -> Result<(), ClientError> {
        self.write(b"QUIT\r\n").await
    }

    async fn command(&mut self, line: &str) -> Result<Reply, ClientError> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        let reply = self.reply(REPLY_TIMEOUT).await?;
        accepted(line, reply)
    }

    async fn write(&mut self, octets: &[u8]) -> Result<(), ClientError> {
        let server = self.server.clone();
        timeout(DATA_END_TIMEOUT, self.stream.get_mut().write_all(octets))
            .await
            .map_err(|_elapsed| ClientError::PeerSilent(server.clone()))?
            .map_err(|source| ClientError::Peer { server, source })
    }

    async fn reply(&mut self, limit: Duration) -> Result<Reply, ClientError> {
        let server = self.server.clone();
        let text = timeout(limit, self.reply_lines())
            .await
            .map_err(|_elapsed| ClientError::PeerSilent(server.clone()))?
            .map_err(|source| ClientError::Peer { server: server.clone(), source })?;
        Reply::parse(&text).ok_or(ClientError::PeerGarbled(server))
    }

    /// The lines of one reply, of `REPLY_BYTES_MAX` octets at most.
    async fn reply_lines(&mut self) -> io::Result<String> {
        let mut octets = Vec::new();
        loop {
            let start = octets.len();
            let room = REPLY_BYTES_MAX.saturating_sub(u64::try_from(start).unwrap_or(u64::MAX));
            let read = (&mut self.stream).take(room).read_until(b'\n', &mut octets).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            // RFC 5321 §4.2.1: every line but the last has a hyphen after the code.
            if octets.get(start.saturating_add(3)) != Some(&b'-') {
                return Ok(String::from_utf8_lossy(&octets).into_owned());
            }
        }
    }
}

fn accepted(command: &str, reply: Reply) -> Result<Reply, ClientError> {
    if (200..400).contains(&reply.code) {
        Ok(reply)
    } else {
        Err(ClientError::Refused { command: command.to_owned(), reply })
    }
}

/// The mail with its leading dots doubled and the final dot (RFC 5321 §4.5.2).
fn stuffed(mail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.len().saturating_add(8));
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

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer { server, .. } => write!(f, "talking to {server}"),
            Self::PeerSilent(server) => write!(f, "{server} did not answer in time"),
            Self::PeerGarbled(server) => write!(f, "{server} answered with no SMTP reply"),
            Self::Refused { command, reply } => write!(f, "{command} was refused: {reply}"),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Peer { source, .. } => Some(source),
            Self::PeerSilent(_) | Self::PeerGarbled(_) | Self::Refused { .. } => None,
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
const DATA_END_TIMEOUT: Duration = Duration::from_secs(120);
const REPLY_BYTES_MAX: u64 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_at_the_start_of_a_line_are_doubled_and_the_data_is_ended() {
        for (mail, want) in [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".\r\n..\r\na.\r\n", "..\r\n...\r\na.\r\n.\r\n"),
        ] {
            assert_eq!(String::from_utf8(stuffed(mail.as_bytes())).unwrap(), want);
        }
    }
}
