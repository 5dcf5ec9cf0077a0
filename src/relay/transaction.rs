//! One mail transaction with a next hop: MAIL, RCPT, DATA, the body, the dot; one outcome each.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::body::{Framing, Outgoing};
use super::connection::{Connection, refusal};
use super::extensions::{Extensions, Size};
use super::queued_as::remote_queue_id;
use super::{Delivery, Outcome, OutcomeResult};
use crate::config;
use crate::mail::dsn::OriginalRecipient;
use crate::mail::{EnhancedStatus, MailDsn, Recipient, RecipientDsn, Reply, ReversePath, Stage};

/// How a transaction left its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The next mail may use it.
    Usable,
    /// It is of no more use.
    Broken,
    /// The next hop had closed it while it was idle: nothing was offered, and the mail is to be
    /// tried again on another connection.
    Stale,
}

/// The time limits of a transaction (RFC 5321 §4.5.3.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// The reply to a command.
    pub(super) command: Duration,
    /// Sending one block of the body.
    pub(super) data_block: Duration,
    /// The reply to the final dot.
    pub(super) data_end: Duration,
}

impl Limits {
    pub(super) fn of(settings: &config::Relay) -> Self {
        Self {
            command: Duration::from_secs(settings.command_timeout_secs),
            data_block: Duration::from_secs(settings.data_block_timeout_secs),
            data_end: Duration::from_secs(settings.data_end_timeout_secs),
        }
    }
}

/// Runs one transaction. There is exactly one outcome for each recipient, in their order, unless
/// the end is `Stale`.
pub(super) async fn run<B: AsyncRead + Send + Unpin>(
    connection: &mut Connection,
    delivery: &Delivery,
    limits: Limits,
    body: &mut B,
) -> (Vec<Outcome>, End) {
    let is_first = connection.transactions == 0;
    let in_ascii = if connection.extensions.smtputf8 { None } else { in_ascii(delivery) };
    let delivery = in_ascii.as_ref().unwrap_or(delivery);
    if let Some(reply) = local_refusal(delivery, &connection.extensions) {
        let fate = Fate::ended(Stage::Mail, OutcomeResult::Refusal(reply));
        let fates = vec![fate; delivery.recipients.len()];
        return (outcomes(delivery, connection, fates), End::Usable);
    }
    connection.transactions = connection.transactions.saturating_add(1);
    // Whatever way this ends, but for a reply to the final dot, RSET must clear up behind it.
    connection.needs_reset = true;
    let framing = framing(delivery, &connection.extensions);
    let commands = commands(delivery, &connection.extensions, framing);
    let fates = vec![Fate::Open; delivery.recipients.len()];
    let mut transaction =
        Transaction { connection, limits, framing, commands, sent: 0, answered: 0, fates };
    let end = transaction.converse(body, delivery.size_bytes, !is_first).await;
    let fates = transaction.fates;
    (outcomes(delivery, connection, fates), end)
}

/// What is known of a recipient so far.
#[derive(Clone, Debug)]
enum Fate {
    /// Its RCPT has not been answered, or nothing has ended it yet.
    Open,
    /// Its RCPT was answered with 2yz.
    Accepted,
    /// It is decided.
    Ended(Box<(Stage, OutcomeResult, Option<String>)>),
}

pub(super) struct Transaction<'a> {
    pub(super) connection: &'a mut Connection,
    pub(super) limits: Limits,
    framing: Framing,
    /// MAIL, one RCPT for each recipient, and DATA unless the mail goes in chunks.
    commands: Vec<String>,
    /// Commands that have been sent.
    sent: usize,
    /// Commands whose reply has been read.
    answered: usize,
    fates: Vec<Fate>,
}

/// What keeps a body from being sent whole.
enum BodyError {
    /// It could not be read from the store.
    Read(String),
    /// It could not be written to the next hop.
    Write(String),
}

impl Transaction<'_> {
    async fn converse<B: AsyncRead + Send + Unpin>(
        &mut self,
        body: &mut B,
        size_bytes: u64,
        is_reused: bool,
    ) -> End {
        let mail = match self.exchange().await {
            Ok(reply) if reply.code == 421 && is_reused => return End::Stale,
            Err(_) if is_reused => return End::Stale,
            Ok(reply) => reply,
            Err(error) => return self.broken(Stage::Mail, error),
        };
        if !mail.is_positive() {
            self.end_all(Stage::Mail, &refusal(Stage::Mail, mail.clone()));
            return self.wind_down(mail.code).await;
        }
        for index in 0..self.fates.len() {
            let reply = match self.exchange().await {
                Ok(reply) => reply,
                Err(error) => return self.broken(Stage::Rcpt, error),
            };
            let code = reply.code;
            let fate = if reply.is_positive() {
                Fate::Accepted
            } else {
                Fate::ended(Stage::Rcpt, refusal(Stage::Rcpt, reply.clone()))
            };
            if let Some(place) = self.fates.get_mut(index) {
                *place = fate;
            }
            // Who closes, or asks for more where there is no more, ends it for all.
            if code == 421 || is_intermediate(code) {
                self.end_all(Stage::Rcpt, &refusal(Stage::Rcpt, reply));
                return End::Broken;
            }
        }
        if !self.fates.iter().any(|fate| matches!(fate, Fate::Accepted)) {
            return self.wind_down(mail.code).await;
        }
        if self.framing == Framing::Count {
            return Box::pin(self.send_chunks(body, size_bytes)).await;
        }
        match self.exchange().await {
            Ok(reply) if reply.code == 354 => self.send_mail(body, size_bytes).await,
            Ok(reply) => {
                let code = reply.code;
                self.end_all(Stage::Data, &refusal(Stage::Data, reply));
                // Who takes DATA without asking for the body is out of step with us.
                if code == 421 || code < 400 { End::Broken } else { End::Usable }
            }
            Err(error) => self.broken(Stage::Data, error),
        }
    }

    /// Sends the next command, or with PIPELINING as many as fit in one go, and reads the next
    /// reply.
    ///
    /// What is under way is bounded, so that neither side can be left writing to somebody who
    /// does not read because he is writing himself (RFC 2920 §3.1). DATA comes last in its group.
    async fn exchange(&mut self) -> Result<Reply, String> {
        if self.answered == self.sent {
            let mut group = String::new();
            for command in self.commands.iter().skip(self.sent) {
                let is_full = group.len().saturating_add(command.len()) > PIPELINE_BYTES_MAX;
                if !group.is_empty() && (is_full || !self.connection.extensions.pipelining) {
                    break;
                }
                group.push_str(command);
                self.sent = self.sent.saturating_add(1);
            }
            self.connection.send(group.as_bytes(), self.limits.command).await?;
        }
        let reply = self.connection.reply(self.limits.command).await?;
        self.answered = self.answered.saturating_add(1);
        Ok(reply)
    }

    /// Reads the replies to what was sent ahead, now that no recipient is left.
    ///
    /// A next hop may ask for the body all the same; then a lone dot ends the transaction
    /// (RFC 2920 §3.1). But where it has accepted a recipient after it refused MAIL, the dot
    /// would deliver an empty mail: that connection is dropped.
    async fn wind_down(&mut self, mail_code: u16) -> End {
        if mail_code == 421 || is_intermediate(mail_code) {
            return End::Broken;
        }
        let mut accepted_any = false;
        while self.answered < self.sent {
            let is_last = self.answered.saturating_add(1) == self.commands.len();
            let is_data = is_last && self.framing == Framing::Dot;
            let Ok(reply) = self.connection.reply(self.limits.command).await else {
                return End::Broken;
            };
            self.answered = self.answered.saturating_add(1);
            match reply.code {
                421 => return End::Broken,
                354 if is_data && !accepted_any => return self.lone_dot().await,
                code if is_intermediate(code) => return End::Broken,
                code => accepted_any |= (200..300).contains(&code),
            }
        }
        End::Usable
    }

    async fn lone_dot(&mut self) -> End {
        if self.connection.send(b".\r\n", self.limits.command).await.is_err() {
            return End::Broken;
        }
        match self.connection.reply(self.limits.data_end).await {
            Ok(reply) if reply.code != 421 => End::Usable,
            _ => End::Broken,
        }
    }

    async fn send_mail<B: AsyncRead + Send + Unpin>(
        &mut self,
        body: &mut B,
        size_bytes: u64,
    ) -> End {
        match self.send_body(body, size_bytes).await {
            Ok(()) => {}
            // Without its dot the mail counts as not sent, so it is enough to hang up.
            Err(BodyError::Read(error)) => return self.broken(Stage::Data, error),
            Err(BodyError::Write(error)) => return self.cut_off(0, error).await,
        }
        self.mail_answered().await
    }

    /// Whoever hangs up in the middle of a body may have said why, behind `owed` other replies.
    pub(super) async fn cut_off(&mut self, owed: usize, error: String) -> End {
        for _ in 0..=owed {
            match self.connection.reply(LAST_WORDS_TIMEOUT).await {
                Ok(reply) if reply.is_positive() => {}
                Ok(reply) => {
                    self.end_all(Stage::Data, &refusal(Stage::Data, reply));
                    return End::Broken;
                }
                Err(_closed) => break,
            }
        }
        self.broken(Stage::Data, error)
    }

    /// Reads the reply to the mail as a whole.
    pub(super) async fn mail_answered(&mut self) -> End {
        // From here on the next hop may have the mail: a lost reply may mean a duplicate, and
        // never a loss (RFC 5321 §4.5.3.2.6).
        let reply = match self.connection.reply(self.limits.data_end).await {
            Ok(reply) => reply,
            Err(error) => return self.broken(Stage::End, error),
        };
        let code = reply.code;
        if reply.is_positive() {
            let name = remote_queue_id(&reply.text);
            self.end_accepted(Stage::End, &OutcomeResult::Reply(reply), name.as_deref());
        } else {
            self.end_all(Stage::End, &refusal(Stage::End, reply));
        }
        if code == 421 || is_intermediate(code) {
            return End::Broken;
        }
        self.connection.needs_reset = false;
        End::Usable
    }

    async fn send_body<B: AsyncRead + Send + Unpin>(
        &mut self,
        body: &mut B,
        size_bytes: u64,
    ) -> Result<(), BodyError> {
        let mut outgoing = Outgoing::new(Framing::Dot);
        let mut block = vec![0_u8; BLOCK_BYTES];
        let mut out = Vec::with_capacity(BLOCK_BYTES.saturating_mul(2));
        let mut size_read: u64 = 0;
        loop {
            let read = body.read(&mut block).await;
            let len = read.map_err(|error| BodyError::Read(unreadable(&error)))?;
            if len == 0 {
                break;
            }
            size_read = size_read.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
            outgoing.push(block.get(..len).unwrap_or_default(), &mut out);
            let sent = self.connection.send(&out, self.limits.data_block).await;
            sent.map_err(BodyError::Write)?;
            out.clear();
        }
        if size_read < size_bytes {
            return Err(BodyError::Read(truncated(size_read, size_bytes)));
        }
        outgoing.finish(&mut out);
        self.connection.send(&out, self.limits.data_block).await.map_err(BodyError::Write)
    }

    /// The conversation cannot go on: whoever is not decided yet is told why.
    pub(super) fn broken(&mut self, stage: Stage, error: String) -> End {
        self.end_all(stage, &OutcomeResult::Error(error));
        End::Broken
    }

    /// Decides all recipients that are not decided.
    pub(super) fn end_all(&mut self, stage: Stage, result: &OutcomeResult) {
        self.end_accepted(stage, result, None);
    }

    fn end_accepted(&mut self, stage: Stage, result: &OutcomeResult, queue_id: Option<&str>) {
        for fate in &mut self.fates {
            if !matches!(fate, Fate::Ended(_)) {
                let queue_id = queue_id.map(str::to_owned);
                *fate = Fate::Ended(Box::new((stage, result.clone(), queue_id)));
            }
        }
    }
}

impl Fate {
    fn ended(stage: Stage, result: OutcomeResult) -> Self {
        Self::Ended(Box::new((stage, result, None)))
    }
}

/// 3yz asks for more of a command that we have sent whole (RFC 5321 §4.2.1).
pub(super) fn is_intermediate(code: u16) -> bool {
    (300..400).contains(&code)
}

pub(super) fn unreadable(error: &std::io::Error) -> String {
    format!("the stored mail could not be read: {error}")
}

pub(super) fn truncated(size_read: u64, size_bytes: u64) -> String {
    format!("the stored mail ends after {size_read} of {size_bytes} octets")
}

/// How the mail goes: in chunks where it has lines that are too long for DATA and the next hop
/// offers CHUNKING; `chunking` says why not more.
///
/// Where CHUNKING is not offered, long lines go by DATA as they are. RFC 5321 §4.5.3.1.6 has a
/// limit of 1000 octets, but §4.5.3.1 asks everybody to do without where he can, and practically
/// all do; folding them, as Postfix does, would break signatures, and refusing them is what
/// `submission.long_lines` is for.
fn framing(delivery: &Delivery, offered: &Extensions) -> Framing {
    if delivery.long_lines && offered.chunking { Framing::Count } else { Framing::Dot }
}

/// What can be known to be refused without asking.
///
/// 8-bit mail goes to a next hop without 8BITMIME as it is: the smarthost is one the operator
/// chose, practically all of them take it, and re-encoding would break signatures. Postfix does
/// the same once its own conversion is off (`disable_mime_output_conversion`).
fn local_refusal(delivery: &Delivery, offered: &Extensions) -> Option<Reply> {
    if let Size::Limit(limit) = offered.size
        && delivery.size_bytes > limit
    {
        let text =
            format!("the mail has {} octets, the next hop takes {limit}", delivery.size_bytes);
        return Some(Reply::new(552, EnhancedStatus::new(5, 3, 4), text));
    }
    if delivery.smtputf8 && !offered.smtputf8 {
        // RFC 6531 §3.5; what could be said in ASCII has been by now.
        let text = "the mail needs SMTPUTF8, which the next hop does not offer";
        return Some(Reply::new(553, EnhancedStatus::new(5, 6, 7), text));
    }
    None
}

/// A mail that was sent with SMTPUTF8, as a next hop can have it that does not offer it: with the
/// domains of its addresses in A-labels. `None` where something else is not ASCII.
///
/// RFC 6531 §3.2 leaves a submission server free to change addresses so, and does not count an
/// address in A-labels as internationalized. The header, and those of parts within the body,
/// must be ASCII then, too; only a MIME parser could tell the latter from 8-bit text, so such a
/// mail is not sent but returned.
fn in_ascii(delivery: &Delivery) -> Option<Delivery> {
    if !delivery.smtputf8 || !delivery.is_ascii {
        return None;
    }
    let reverse_path = match &delivery.reverse_path {
        ReversePath::Address(address) => ReversePath::Address(address.to_ascii()?),
        ReversePath::Null(()) => ReversePath::NULL,
    };
    let recipients = delivery.recipients.iter();
    let recipients = recipients.map(|(index, recipient)| {
        let address = recipient.address.to_ascii()?;
        // RFC 6533 §3: without SMTPUTF8 this form of ORCPT must be used.
        let original = recipient.dsn.original_recipient.as_ref();
        let original_recipient = original.and_then(OriginalRecipient::to_ascii);
        let dsn = RecipientDsn { original_recipient, ..recipient.dsn };
        Some((*index, Recipient { dsn, ..Recipient::from(address) }))
    });
    let recipients = recipients.collect::<Option<_>>()?;
    Some(Delivery { reverse_path, recipients, smtputf8: false, ..delivery.clone() })
}

fn commands(delivery: &Delivery, offered: &Extensions, framing: Framing) -> Vec<String> {
    let mut mail = format!("MAIL FROM:<{}>", delivery.reverse_path);
    if offered.size != Size::NotOffered {
        mail.push_str(&format!(" SIZE={}", delivery.size_bytes));
    }
    if delivery.eight_bit && offered.eight_bit_mime {
        mail.push_str(" BODY=8BITMIME");
    }
    if delivery.smtputf8 {
        mail.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        mail.push_str(&mail_dsn(&delivery.dsn));
    }
    mail.push_str("\r\n");
    let rcpt = |(_, recipient): &(u32, Recipient)| {
        let dsn = if offered.dsn { rcpt_dsn(&recipient.dsn) } else { String::new() };
        format!("RCPT TO:<{}>{dsn}\r\n", recipient.address)
    };
    let rcpts = delivery.recipients.iter().map(rcpt);
    let data = (framing == Framing::Dot).then(|| "DATA\r\n".to_owned());
    std::iter::once(mail).chain(rcpts).chain(data).collect()
}

/// What was asked with MAIL, and nothing that was not (RFC 3461 §5.2.1).
fn mail_dsn(asked: &MailDsn) -> String {
    let ret = asked.content.map(|content| format!(" RET={}", content.keyword()));
    let id = asked.envelope_id.as_ref().map(|id| format!(" ENVID={}", id.as_str()));
    [ret, id].into_iter().flatten().collect()
}

/// What was asked with RCPT, and nothing that was not (RFC 3461 §5.2.1).
fn rcpt_dsn(asked: &RecipientDsn) -> String {
    let notify = asked.notify.map(|notify| format!(" NOTIFY={notify}"));
    let original = asked.original_recipient.as_ref();
    let original = original.map(|original| format!(" ORCPT={}", original.as_str()));
    [notify, original].into_iter().flatten().collect()
}

fn outcomes(delivery: &Delivery, connection: &Connection, fates: Vec<Fate>) -> Vec<Outcome> {
    let outcome = |((recipient, _), fate): (&(u32, Recipient), Fate)| {
        let (stage, result, remote_queue_id) = match fate {
            Fate::Ended(ended) => *ended,
            // Every way through a transaction ends all fates; should one not, the recipient is
            // tried again.
            Fate::Open | Fate::Accepted => {
                (Stage::Mail, OutcomeResult::Error("the transaction was left".to_owned()), None)
            }
        };
        Outcome {
            recipient: *recipient,
            stage,
            remote_mta: connection.peer.remote_mta.clone(),
            remote_queue_id,
            tls: connection.peer.tls.clone(),
            dsn: connection.extensions.dsn,
            result,
        }
    };
    delivery.recipients.iter().zip(fates).map(outcome).collect()
}

/// Octets of the commands that are sent ahead of their replies.
const PIPELINE_BYTES_MAX: usize = 4096;
/// Octets that are read from the store at a time.
pub(super) const BLOCK_BYTES: usize = 32_768;
/// How long a next hop that hung up on a body may take to say why.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(5);
