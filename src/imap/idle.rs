//! Waiting for news: with IDLE (RFC 2177), and with NOTIFY for the folders beside the one that is
//! selected (RFC 5465).

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::ImapError;
use super::response::{Malformed, Response, Status, for_people, parse};
use super::session::{Session, Step, quoted};

/// Why waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something has arrived.
    News,
    /// It was long enough, or somebody wants it so.
    Time,
    /// The server does not let us wait.
    Refused,
}

impl Session {
    /// Waits until the server tells that something has arrived, `stop` completes, or `limit` is
    /// over.
    pub(super) async fn idle(
        &mut self,
        limit: Duration,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Woken, ImapError> {
        let tag = self.next_tag();
        let mut is_news = false;
        let begun = self
            .begin("waiting for news", &tag, &format!("{tag} IDLE\r\n"), &mut |response| {
                is_news |= tells_news(response);
            })
            .await?;
        match begun {
            Step::Continue(_) if is_news => {}
            Step::Continue(_) => match self.listen(&tag, limit, stop).await? {
                Some(woken) => is_news = woken == Woken::News,
                None => return Ok(Woken::Time),
            },
            Step::Ended(_) => return Ok(Woken::Refused),
        }
        let limit = self.limit();
        let ended = async {
            self.wire.send(b"DONE\r\n").await?;
            let mut each = |response: &Response<'_>| is_news |= tells_news(response);
            self.until_end("ending the wait", &tag, IDLE_RESPONSE_BYTES_MAX, &mut each).await
        };
        // A server that does not answer now has gone, however open its connection looks.
        let ended = timeout(limit, ended).await;
        ended.map_err(|_elapsed| ImapError::PeerTimeout("ending the wait"))??;
        Ok(if is_news { Woken::News } else { Woken::Time })
    }

    /// Listens until there is news or time is over; nothing where the server ended the command.
    async fn listen(
        &mut self,
        tag: &str,
        limit: Duration,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<Option<Woken>, ImapError> {
        let deadline = Instant::now() + limit;
        let mut stop = std::pin::pin!(stop);
        loop {
            let octets = tokio::select! {
                received = self.wire.receive(IDLE_RESPONSE_BYTES_MAX) => received?,
                () = &mut stop => return Ok(Some(Woken::Time)),
                () = tokio::time::sleep_until(deadline) => return Ok(Some(Woken::Time)),
            };
            match parse(octets) {
                Ok(Response::Status(outcome)) if outcome.status == Status::Bye => {
                    return Err(ImapError::PeerBye(for_people(outcome.text)));
                }
                Ok(Response::Done(ended, _)) if ended == tag.as_bytes() => return Ok(None),
                Ok(response) if tells_news(&response) => return Ok(Some(Woken::News)),
                Ok(_) => {}
                Err(Malformed(what)) => tracing::debug!(what, "a response is passed over"),
            }
        }
    }

    /// Asks to be told of mails in other folders, too; whether the server will.
    pub(super) async fn notify(&mut self, others: &[String]) -> Result<bool, ImapError> {
        if others.is_empty() || !self.capabilities.has("NOTIFY") {
            return Ok(false);
        }
        let names = others.iter().map(|name| quoted(name)).collect::<Result<Vec<_>, _>>()?;
        let events = "(MessageNew MessageExpunge)";
        let command =
            format!("NOTIFY SET (SELECTED {events}) (MAILBOXES ({}) {events})", names.join(" "));
        let ended = self.run("asking for news of all folders", &command, &mut |_| {}).await?;
        Ok(ended.status == Status::Ok)
    }
}

/// Whether a response says that a mail may have arrived, here or in another folder.
pub(super) fn tells_news(response: &Response<'_>) -> bool {
    match response {
        Response::Numbered(_, kind, _) => kind.eq_ignore_ascii_case(b"EXISTS"),
        Response::Data(kind, _) => kind.eq_ignore_ascii_case(b"STATUS"),
        _ => false,
    }
}

/// Octets of one response while nothing was asked for.
const IDLE_RESPONSE_BYTES_MAX: usize = 65_536;
