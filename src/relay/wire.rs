//! The stream that mail-send talks through: it frames, bounds and keeps the next hop's replies.
//!
//! mail-send's own reading loses three things that we need: octets that arrive behind a reply,
//! enhanced statuses above 255 (`5.7.606` becomes `5.7.255`), and text beyond 4096 octets.
//! So this wrapper reads the socket itself, keeps each reply exactly as it was given, and hands
//! mail-send no more than the code line that tells it a reply has ended.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connection::Stream;
use crate::mail::Reply;

/// A stream to a next hop, and the reply that was read from it last.
pub(super) struct Wire<S> {
    stream: S,
    /// Octets that were read and belong to no complete reply yet.
    input: Vec<u8>,
    /// What mail-send has still to be handed of the reply that was framed last.
    handed: Vec<u8>,
    reply: Option<Reply>,
}

impl<S> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, input: Vec::new(), handed: Vec::new(), reply: None }
    }

    /// The reply that mail-send has just been told of.
    pub(super) fn take_reply(&mut self) -> Option<Reply> {
        self.reply.take()
    }

    /// Whether the next hop has said nothing that it was not asked for, and has not hung up.
    ///
    /// Another word on a connection that is used again would be taken for the answer to the next
    /// mail.
    pub(super) fn is_quiet(&mut self) -> bool
    where
        S: AsyncRead + Unpin,
    {
        let mut octet = [0_u8; 1];
        let mut octet = ReadBuf::new(&mut octet);
        let mut context = Context::from_waker(Waker::noop());
        self.input.is_empty()
            && self.handed.is_empty()
            && Pin::new(&mut self.stream).poll_read(&mut context, &mut octet).is_pending()
    }

    /// The stream below, unless the peer has sent more than it was asked for: what stands in the
    /// buffer when TLS begins was not protected by it (RFC 3207 §6).
    pub(super) fn into_stream(self) -> Option<S> {
        self.input.is_empty().then_some(self.stream)
    }

    /// The same with the stream's type forgotten.
    pub(super) fn boxed(self) -> Wire<Box<dyn Stream>>
    where
        S: Stream + 'static,
    {
        let Self { stream, input, handed, reply } = self;
        Wire { stream: Box::new(stream), input, handed, reply }
    }

    /// Takes the next complete reply out of the buffer.
    fn frame(&mut self) -> io::Result<bool> {
        let Some(len) = reply_len(&self.input) else {
            return match self.input.len() {
                len if len >= REPLY_BYTES_MAX => Err(invalid("its reply does not end")),
                _ => Ok(false),
            };
        };
        let rest = self.input.split_off(len);
        let octets = std::mem::replace(&mut self.input, rest);
        let Some(reply) = Reply::parse(&String::from_utf8_lossy(&octets)) else {
            return Err(invalid("it answered something that is no SMTP reply"));
        };
        self.handed = format!("{} \r\n", reply.code).into_bytes();
        self.reply = Some(reply);
        Ok(true)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.handed.is_empty() && !self.frame()? {
            let mut chunk = [0_u8; 2048];
            let mut chunk = ReadBuf::new(&mut chunk);
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it closed the connection",
                )));
            }
            self.input.extend_from_slice(chunk.filled());
        }
        let len = self.handed.len().min(out.remaining());
        let rest = self.handed.split_off(len);
        out.put_slice(&self.handed);
        self.handed = rest;
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        octets: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, octets)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// Octets of the first complete reply: all lines up to the first that has no hyphen behind its
/// code (RFC 5321 §4.2.1).
fn reply_len(input: &[u8]) -> Option<usize> {
    let mut len: usize = 0;
    for line in input.split_inclusive(|octet| *octet == b'\n') {
        if line.last() != Some(&b'\n') {
            return None;
        }
        len = len.saturating_add(line.len());
        if line.get(3) != Some(&b'-') {
            return Some(len);
        }
    }
    None
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Octets of one reply, all its lines together. RFC 5321 §4.5.3.1.5 allows 512 for a line and
/// names no number of lines.
const REPLY_BYTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mail_send::SmtpClient;
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    async fn read_all(input: &[u8]) -> (Vec<Reply>, String) {
        let (near, mut far) = duplex(input.len().max(1));
        far.write_all(input).await.unwrap();
        drop(far);
        let mut client = SmtpClient { stream: Wire::new(near), timeout: Duration::from_secs(5) };
        let mut replies = Vec::new();
        loop {
            match client.read().await {
                Ok(_) => replies.push(client.stream.take_reply().unwrap()),
                Err(error) => return (replies, error.to_string()),
            }
        }
    }

    #[tokio::test]
    async fn every_reply_is_kept_whole_and_in_order() {
        let (replies, end) = read_all(
            b"220 mx\r\n250-mx\r\n250-SIZE 5\r\n250 DSN\r\n550 5.7.606 Access denied\r\n250\r\n",
        )
        .await;
        let shown: Vec<String> = replies.iter().map(|reply| format!("{reply}")).collect();
        assert_eq!(shown, ["220 mx", "250 mx SIZE 5 DSN", "550 5.7.606 Access denied", "250"]);
        assert_eq!(replies[1].text, "mx\nSIZE 5\nDSN");
        assert!(end.contains("closed the connection"), "{end}");
    }

    #[tokio::test]
    async fn long_replies_are_kept_and_endless_ones_end_the_conversation() {
        let line = format!("550-{}\r\n", "x".repeat(500));
        let long = format!("{}550 end\r\n", line.repeat(20));
        let (replies, _) = read_all(long.as_bytes()).await;
        assert_eq!(replies.len(), 1);
        assert_eq!(replies[0].text.len(), 20 * 501 + 3);

        let (replies, end) = read_all(line.repeat(40).as_bytes()).await;
        assert!(replies.is_empty());
        assert!(end.contains("does not end"), "{end}");
        let (replies, end) = read_all("2".repeat(20_000).as_bytes()).await;
        assert!(replies.is_empty());
        assert!(end.contains("does not end"), "{end}");
    }

    #[tokio::test]
    async fn what_is_no_reply_ends_the_conversation() {
        for input in ["HTTP/1.1 400 Bad\r\n", "\r\n", "999 x\r\n", "25\r\n", "\0\0\0\r\n"] {
            let (replies, end) = read_all(input.as_bytes()).await;
            assert!(replies.is_empty(), "{input:?}");
            assert!(end.contains("no SMTP reply"), "{input:?}: {end}");
        }
    }

    #[tokio::test]
    async fn octets_behind_a_reply_are_neither_lost_nor_taken_into_tls() {
        let (near, mut far) = duplex(64);
        far.write_all(b"220 go ahead\r\n250 injected\r\n").await.unwrap();
        let mut client = SmtpClient { stream: Wire::new(near), timeout: Duration::from_secs(5) };
        assert!(client.read().await.is_ok());
        assert!(client.stream.into_stream().is_none());
    }
}
