//! Octets of an IMAP connection to complete responses, each bounded in size.
//!
//! A literal that is announced larger than what may be read is refused before any of it is, and
//! nothing is set aside for what has not arrived.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::error::ImapError;
use super::response;

/// A connection to an IMAP server.
pub(super) struct Wire<S> {
    stream: BufReader<S>,
    /// The response that is being received, or was received last.
    response: Vec<u8>,
    is_complete: bool,
    /// Where its current line begins.
    line_start: usize,
    /// Octets of a literal that have not arrived.
    literal_left: u64,
}

/// TCP with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S) -> Self {
        let stream = BufReader::with_capacity(READ_BYTES_MAX, stream);
        Self { stream, response: Vec::new(), is_complete: true, line_start: 0, literal_left: 0 }
    }

    /// The stream below, unless the server has said more than it was asked for: what stands in
    /// the buffer when TLS begins was not protected by it (RFC 2595 §3.1).
    pub(super) fn into_stream(self) -> Option<S> {
        self.stream.buffer().is_empty().then(|| self.stream.into_inner())
    }

    /// Sends octets; nothing else is said to the server.
    pub(super) async fn send(&mut self, octets: &[u8]) -> Result<(), ImapError> {
        let sent = async {
            self.stream.write_all(octets).await?;
            self.stream.flush().await
        };
        sent.await.map_err(ImapError::Lost)
    }

    /// The next complete response of at most `bytes_max` octets, its final line ending taken
    /// off. It may be given up at any `await` and goes on where it was when it is called again.
    pub(super) async fn receive(&mut self, bytes_max: usize) -> Result<&[u8], ImapError> {
        if std::mem::take(&mut self.is_complete) {
            self.response.clear();
            // What a large mail has taken is not kept for the small responses behind it.
            self.response.shrink_to(READ_BYTES_MAX);
            self.line_start = 0;
        }
        while !self.is_complete {
            let chunk = self.stream.fill_buf().await.map_err(ImapError::Lost)?;
            if chunk.is_empty() {
                let closed = io::Error::new(io::ErrorKind::UnexpectedEof, CLOSED);
                return Err(ImapError::Lost(closed));
            }
            let line_end = chunk.iter().position(|octet| *octet == b'\n');
            let (taken, ends_line) = match usize::try_from(self.literal_left) {
                Ok(0) => match line_end {
                    Some(end) => (end.saturating_add(1), true),
                    None => (chunk.len(), false),
                },
                left => (chunk.len().min(left.unwrap_or(usize::MAX)), false),
            };
            if self.response.len().saturating_add(taken) > bytes_max {
                return Err(ImapError::PeerTooLong(bytes_max));
            }
            self.response.extend_from_slice(chunk.get(..taken).unwrap_or_default());
            self.stream.consume(taken);
            if self.literal_left > 0 {
                let taken = u64::try_from(taken).unwrap_or(u64::MAX);
                self.literal_left = self.literal_left.saturating_sub(taken);
                self.line_start = self.response.len();
            } else if ends_line {
                self.end_line(bytes_max)?;
            }
        }
        Ok(without_ending(&self.response))
    }

    /// Finds out what follows a line: a literal, or the next response.
    fn end_line(&mut self, bytes_max: usize) -> Result<(), ImapError> {
        let is_data = response::may_hold_literals(&self.response);
        let line = without_ending(self.response.get(self.line_start..).unwrap_or_default());
        let literal = is_data.then(|| response::literal_len(line)).flatten();
        let room = bytes_max.saturating_sub(self.response.len());
        match literal {
            Some(len) if len > u64::try_from(room).unwrap_or(u64::MAX) => {
                return Err(ImapError::PeerTooLong(bytes_max));
            }
            Some(len) => self.literal_left = len,
            None => self.is_complete = true,
        }
        self.line_start = self.response.len();
        Ok(())
    }
}

fn without_ending(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Octets that are read at a time.
const READ_BYTES_MAX: usize = 16_384;
const CLOSED: &str = "it closed the connection";

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    async fn received(sent: &[u8], bytes_max: usize) -> Vec<Result<String, String>> {
        let (near, mut far) = duplex(1 << 20);
        far.write_all(sent).await.unwrap();
        drop(far);
        let mut wire = Wire::new(near);
        let mut all = Vec::new();
        loop {
            match wire.receive(bytes_max).await {
                Ok(response) => all.push(Ok(String::from_utf8_lossy(response).into_owned())),
                Err(error) => {
                    all.push(Err(crate::maillog::chain(&error)));
                    return all;
                }
            }
        }
    }

    #[tokio::test]
    async fn responses_are_framed_with_their_literals() {
        let sent = b"* OK see {5}\r\n* 1 FETCH (A {4}\r\n\r\n\r\n B {0}\r\n)\r\n+ {3}\r\nA1 OK\n";
        let want = ["* OK see {5}", "* 1 FETCH (A {4}\r\n\r\n\r\n B {0}\r\n)", "+ {3}", "A1 OK"];
        let got = received(sent, 1000).await;
        let end = "the connection was lost: it closed the connection";
        let want: Vec<_> =
            want.iter().map(|line| Ok((*line).to_owned())).chain([Err(end.to_owned())]).collect();
        assert_eq!(got, want);
    }

    #[tokio::test]
    async fn what_is_too_long_or_cut_short_ends_the_reading() {
        let long = "* X ".to_owned() + &"x".repeat(200);
        let lost = "the connection was lost: it closed the connection";
        let too_long = "the server sent a response of more than 100 octets";
        for (sent, want) in [
            (long.as_str(), too_long),
            ("* 1 FETCH (A {99999999999999999999}\r\n", too_long),
            ("* 1 FETCH (A {90}\r\nxxx", too_long),
            ("* 1 FETCH (A {9}\r\nxxx", lost),
            ("* 1 FETCH (A {3}\r\nxxx", lost),
            ("* 1 FETCH", lost),
            ("", lost),
        ] {
            let got = received(sent.as_bytes(), 100).await;
            assert_eq!(got, [Err(want.to_owned())], "{sent}");
        }
    }

    #[tokio::test]
    async fn reading_goes_on_after_it_was_given_up() {
        let sent = b"* 1 FETCH (A {5}\r\nab\r\nc B \"x\")\r\n";
        let (near, mut far) = duplex(1000);
        let mut wire = Wire::new(near);
        for octet in &sent[..sent.len() - 1] {
            far.write_all(&[*octet]).await.unwrap();
            let receiving = wire.receive(100);
            tokio::select! {
                biased;
                received = receiving => panic!("{received:?}"),
                () = std::future::ready(()) => {}
            }
        }
        far.write_all(b"\n").await.unwrap();
        assert_eq!(wire.receive(100).await.unwrap(), &sent[..sent.len() - 2]);
    }

    #[tokio::test]
    async fn a_stream_with_more_in_its_buffer_is_not_given_away() {
        for (sent, is_given) in [(&b"A1 OK\r\n"[..], true), (b"A1 OK\r\n* OK\r\n", false)] {
            let (near, mut far) = duplex(1000);
            far.write_all(sent).await.unwrap();
            let mut wire = Wire::new(near);
            wire.receive(100).await.unwrap();
            assert_eq!(wire.into_stream().is_some(), is_given);
        }
    }
}
