//! A mail in chunks, by BDAT (RFC 3030 §2), for what DATA is not made for: lines of any length.
//!
//! All other mail goes by DATA, though BDAT would do for it as well. DATA is what every next hop
//! and every device in between has been tried with; BDAT has been announced by servers that then
//! lose or refuse mail (Exchange 2003 behind some firewalls is the known case), and Postfix's
//! client never says it. Nothing is won by it either: stuffing dots costs next to nothing, and
//! our bodies are no binary (RFC 3030 §3).
//! A mail with long lines has more to lose by DATA, where a next hop may refuse it, or fold it
//! and break its signature.

use tokio::io::{AsyncRead, AsyncReadExt};

use super::body::{Framing, Outgoing};
use super::connection::refusal;
use super::transaction::{BLOCK_BYTES, End, Transaction, is_intermediate, truncated, unreadable};
use crate::mail::Stage;

impl Transaction<'_> {
    /// Sends the mail in chunks to a next hop that offers CHUNKING.
    ///
    /// The last one is sent when all before it have been taken, and on its own: so no next hop
    /// can take a mail with a hole in it, whatever it makes of a chunk that it has refused.
    pub(super) async fn send_chunks<B: AsyncRead + Send + Unpin>(
        &mut self,
        body: &mut B,
        size_bytes: u64,
    ) -> End {
        let mut outgoing = Outgoing::new(Framing::Count);
        let (mut block, mut chunk) = (vec![0; CHUNK_BYTES], Vec::with_capacity(CHUNK_BYTES));
        let (mut size_read, mut unanswered) = (0_u64, 0_usize);
        loop {
            let len = match read_full(body, &mut block).await {
                Ok(len) => len,
                // Without its last chunk the mail counts as not sent, so it is enough to hang up.
                Err(error) => return self.broken(Stage::Data, unreadable(&error)),
            };
            size_read = size_read.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
            chunk.clear();
            outgoing.push(block.get(..len).unwrap_or_default(), &mut chunk);
            let is_last = len < block.len();
            if is_last {
                if size_read < size_bytes {
                    return self.broken(Stage::Data, truncated(size_read, size_bytes));
                }
                outgoing.finish(&mut chunk);
            }
            let ahead =
                if is_last || !self.connection.extensions.pipelining { 0 } else { AHEAD_MAX };
            while unanswered > ahead {
                unanswered = unanswered.saturating_sub(1);
                if let Err(end) = self.chunk_taken(unanswered).await {
                    return end;
                }
            }
            if let Err(error) = self.send_chunk(&chunk, is_last).await {
                return self.cut_off(unanswered, error).await;
            }
            if is_last {
                return self.mail_answered().await;
            }
            unanswered = unanswered.saturating_add(1);
        }
    }

    async fn send_chunk(&mut self, chunk: &[u8], is_last: bool) -> Result<(), String> {
        let last = if is_last { " LAST" } else { "" };
        let command = format!("BDAT {}{last}\r\n", chunk.len());
        self.connection.send(command.as_bytes(), self.limits.command).await?;
        for block in chunk.chunks(BLOCK_BYTES) {
            self.connection.send(block, self.limits.data_block).await?;
        }
        Ok(())
    }

    /// Reads the reply to a chunk. One that is refused ends the mail for all (RFC 3030 §2); the
    /// replies to the `unanswered` behind it are read, so that RSET can be heard.
    async fn chunk_taken(&mut self, unanswered: usize) -> Result<(), End> {
        let reply = match self.connection.reply(self.limits.data_end).await {
            Ok(reply) if reply.is_positive() => return Ok(()),
            Ok(reply) => reply,
            Err(error) => return Err(self.broken(Stage::Data, error)),
        };
        let code = reply.code;
        self.end_all(Stage::Data, &refusal(Stage::Data, reply));
        if code == 421 || is_intermediate(code) {
            return Err(End::Broken);
        }
        for _ in 0..unanswered {
            match self.connection.reply(self.limits.data_end).await {
                Ok(reply) if reply.code != 421 => {}
                _ => return Err(End::Broken),
            }
        }
        Err(End::Usable)
    }
}

/// Reads until `block` is full or the body is at its end.
async fn read_full<B: AsyncRead + Unpin>(body: &mut B, block: &mut [u8]) -> std::io::Result<usize> {
    let mut len = 0_usize;
    while let Some(rest) = block.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match body.read(rest).await? {
            0 => break,
            read => len = len.saturating_add(read),
        }
    }
    Ok(len)
}

/// Octets of a chunk; each costs a reply, and is held in memory.
const CHUNK_BYTES: usize = 262_144;
/// Chunks that are sent ahead of their replies where the next hop offers PIPELINING. Their
/// replies must find room on the way while neither side reads (RFC 2920 §3.1).
const AHEAD_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::super::testing::{Scripted, settings};
    use super::super::tests::{converse, delivery, shown};
    use super::super::{Delivery, Relay};
    use super::*;

    const OFFERED: &str = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 CHUNKING\n";
    const PIPELINED: &str = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250-PIPELINING\nS: 250 CHUNKING\n";
    const ENVELOPE: &str = "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\n";
    const LEAVE: &str = "C: QUIT\nS: 221 bye";

    fn long(recipients: &[&str]) -> Delivery {
        Delivery { long_lines: true, ..delivery(recipients) }
    }

    /// Hands over a body of `len` octets in lines of 3000; the outcomes and what arrived.
    async fn chunked(dialog: &str, len: usize) -> (Vec<String>, Vec<String>) {
        let line = format!("{}\r\n", "x".repeat(2998));
        let body = line.repeat(len.div_ceil(line.len()));
        let body = &body.as_bytes()[body.len() - len..];
        let next_hop = Scripted::start(&[dialog]).await;
        let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
        let size_bytes = u64::try_from(len).unwrap();
        let mail = Delivery { size_bytes, ..long(&["a@example.net"]) };
        let outcomes = relay.deliver(&mail, body).await;
        relay.close().await;
        let arrived = next_hop.bodies().await;
        assert!(body.starts_with(arrived.concat().as_bytes()), "what was sent is what is stored");
        (shown(&outcomes), arrived)
    }

    #[tokio::test]
    async fn only_mail_with_long_lines_goes_in_chunks_and_only_where_they_are_offered() {
        let data = "C: DATA\nS: 354 go\nBODY\nS: 250 ok\n";
        let chunk = "C: BDAT 26 LAST\nOCTETS 26\nS: 250 ok id=1\n";
        let stuffed = "Subject: x\r\n\r\n..dot\r\nbody\r\n.\r\n";
        let plain = "Subject: x\r\n\r\n.dot\r\nbody\r\n";
        for (offer, is_long, rest, arrived) in [
            (OFFERED, true, chunk, plain),
            (OFFERED, false, data, stuffed),
            ("S: 220 mx\nC: EHLO *\nS: 250 mx\n", true, data, stuffed),
        ] {
            let dialog = format!("{offer}{ENVELOPE}{rest}{LEAVE}");
            let mail = Delivery { long_lines: is_long, ..delivery(&["a@example.net"]) };
            let (outcomes, bodies) = converse(&dialog, &mail).await;
            assert!(outcomes[0].starts_with("End 250 ok"), "{outcomes:?}");
            assert_eq!(bodies, [arrived]);
        }
    }

    #[tokio::test]
    async fn each_chunk_is_counted_and_the_last_says_so() {
        let one = "C: BDAT 262144\nOCTETS 262144\nS: 250 taken\n";
        let last = "C: BDAT 75712 LAST\nOCTETS 75712\nS: 250 ok\n";
        let (outcomes, _) =
            chunked(&format!("{OFFERED}{ENVELOPE}{one}{one}{last}{LEAVE}"), 600_000).await;
        assert_eq!(outcomes, ["End 250 ok"]);
        // One that is filled to its last octet is followed by one of none.
        let last = "C: BDAT 0 LAST\nS: 250 ok\n";
        let dialog = format!("{OFFERED}{ENVELOPE}{one}{last}{LEAVE}");
        assert_eq!(chunked(&dialog, CHUNK_BYTES).await.0, ["End 250 ok"]);
    }

    #[tokio::test]
    async fn chunks_are_sent_ahead_but_not_the_last_one() {
        let one = "C: BDAT 262144\nOCTETS 262144\n";
        let taken = "S: 250 taken\n";
        let envelope = "C: MAIL *\nC: RCPT *\nS: 250 ok\nS: 250 ok\n";
        let dialog = format!(
            "{PIPELINED}{envelope}{}{}C: BDAT 0 LAST\nS: 250 ok\n{LEAVE}",
            one.repeat(5),
            taken.repeat(5)
        );
        assert_eq!(chunked(&dialog, CHUNK_BYTES * 5).await.0, ["End 250 ok"]);
    }

    #[tokio::test]
    async fn every_way_a_chunk_can_be_answered() {
        let one = "C: BDAT 262144\nOCTETS 262144\n";
        let last = "C: BDAT 0 LAST\n";
        for (rest, want) in [
            (format!("{one}S: 552 5.3.4 too much\n{LEAVE}"), "Data 552 5.3.4 too much"),
            (format!("{one}S: 451 4.3.0 later\n{LEAVE}"), "Data 451 4.3.0 later"),
            (format!("{one}S: 421 4.3.2 bye\nDROP"), "Data 421 4.3.2 bye"),
            (format!("{one}S: 354 odd\nEOF"), "Data it answered DATA with 354 odd"),
            (format!("{one}DROP"), "Data it closed the connection"),
            (format!("{one}S: 250 ok\n{last}S: 554 5.7.1 spam\n{LEAVE}"), "End 554 5.7.1 spam"),
            (format!("{one}S: 250 ok\n{last}S: 421 4.3.2 bye\nDROP"), "End 421 4.3.2 bye"),
            (format!("{one}S: 250 ok\n{last}DROP"), "End it closed the connection"),
        ] {
            let (outcomes, _) = chunked(&format!("{OFFERED}{ENVELOPE}{rest}"), CHUNK_BYTES).await;
            assert_eq!(outcomes, [want], "{rest}");
        }
    }

    #[tokio::test]
    async fn after_a_refused_chunk_the_connection_is_reset_and_used_again() {
        let one = "C: BDAT 262144\nOCTETS 262144\n";
        let envelope = "C: MAIL *\nC: RCPT *\nS: 250 ok\nS: 250 ok\n";
        let dialog = format!(
            "{PIPELINED}{envelope}{}S: 250 taken\n{one}S: 552 5.3.4 too much\n{}C: RSET\n\
             S: 250 ok\n{envelope}C: BDAT 26 LAST\nOCTETS 26\nS: 250 ok\n{LEAVE}",
            one.repeat(5),
            "S: 503 5.5.1 no mail\n".repeat(4),
        );
        let next_hop = Scripted::start(&[&dialog]).await;
        let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
        let large = vec![b'x'; CHUNK_BYTES * 6];
        let size_bytes = u64::try_from(large.len()).unwrap();
        let mail = Delivery { size_bytes, ..long(&["a@example.net"]) };
        let outcomes = relay.deliver(&mail, large.as_slice()).await;
        assert_eq!(shown(&outcomes), ["Data 552 5.3.4 too much"]);
        let body = &b"Subject: x\r\n\r\n.dot\r\nbody\r\n"[..];
        let outcomes = relay.deliver(&long(&["a@example.net"]), body).await;
        assert_eq!(shown(&outcomes), ["End 250 ok"]);
        relay.close().await;
        next_hop.bodies().await;
    }

    #[tokio::test]
    async fn where_no_recipient_is_left_there_is_no_chunk() {
        for rest in [
            "C: MAIL *\nC: RCPT *\nC: RCPT *\nS: 250 ok\nS: 550 5.1.1 no\nS: 550 5.1.1 no\n",
            "C: MAIL *\nC: RCPT *\nC: RCPT *\nS: 250 ok\nS: 550 5.1.1 no\nS: 450 4.2.0 no\n",
        ] {
            let dialog = format!("{PIPELINED}{rest}{LEAVE}");
            let (outcomes, bodies) =
                converse(&dialog, &long(&["a@b.example", "c@d.example"])).await;
            assert_eq!(outcomes[0], "Rcpt 550 5.1.1 no");
            assert!(bodies.is_empty());
        }
        // Nobody asked for a body: a next hop that does is out of step with us.
        let dialog = format!("{PIPELINED}C: MAIL *\nC: RCPT *\nS: 550 5.1.8 no\nS: 354 odd\nEOF");
        let (outcomes, _) = converse(&dialog, &long(&["a@b.example"])).await;
        assert_eq!(outcomes, ["Mail 550 5.1.8 no"]);
    }

    #[tokio::test]
    async fn a_mail_whose_body_ends_early_is_not_ended_with_a_last_chunk() {
        let dialog = format!("{OFFERED}{ENVELOPE}EOF");
        let mail = Delivery { size_bytes: 999, ..long(&["a@example.net"]) };
        let (outcomes, _) = converse(&dialog, &mail).await;
        assert_eq!(outcomes, ["Data the stored mail ends after 26 of 999 octets"]);
    }
}
