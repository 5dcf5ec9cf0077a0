//! The door: stamps a mail and takes it over.
//!
//! It knows no SMTP: whatever brings a mail offers it here, so that limits and durability are in
//! one place. That is the session of `submission/session/`, and `http/routes/submit.rs`.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::control::{self, BadControl};
use super::once::Turns;
use super::policy;
use super::stamp::{self, Protocol, StampError, Stamping, Trace};
use crate::clock::Clock;
use crate::config::{DsnPolicy, LongLines, ReturnPathMode as Mode, Settings};
use crate::mail::lines::{LineLengths, has_long_lines};
use crate::mail::{EnhancedStatus, Envelope, MessageId, QueueId, Reply, Timestamp, header};
use crate::maillog::{self, Line};
use crate::metrics::Metrics;
use crate::secret::random_u64;
use crate::store::record::{
    Control, HEADER_BYTES_MAX, Idempotency, Origin, ReturnPathMode, Source, Submission, begins_at,
};
use crate::store::{BodyWriter, Store, StoreError};

/// Takes mails over; clones share the store.
#[derive(Clone)]
pub struct Door {
    store: Store,
    clock: Clock,
    metrics: Metrics,
    turns: Turns,
}

/// A mail that is offered: everything but its octets.
#[derive(Clone, Debug)]
pub struct Offer {
    /// The settings it is judged by.
    pub settings: Arc<Settings>,
    /// Whose it is.
    pub account: String,
    /// Who it is from and for.
    pub envelope: Envelope,
    /// What the client called itself.
    pub helo: Option<String>,
    /// The client's address.
    pub peer: Option<IpAddr>,
    /// The protocol it spoke.
    pub protocol: Protocol,
    /// What was said about the mail beside it; what is not said here its header may say.
    pub control: Control,
}

/// A mail that cannot be lost any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// Our name for it.
    pub queue_id: QueueId,
    /// Its Message-ID.
    pub message_id: MessageId,
    /// When it is relayed at the earliest.
    pub send_at: Timestamp,
    /// Whether it was taken over before, under the same idempotency key.
    pub is_repeated: bool,
}

/// Why a mail is not taken over.
#[derive(Debug)]
pub enum Refusal {
    /// Its header is too large.
    ClientHeaderTooLarge {
        /// Octets that are allowed.
        bytes_max: usize,
    },
    /// Its header has too many fields.
    ClientHeaderFields {
        /// Fields that are allowed.
        fields_max: usize,
    },
    /// It has a line that is longer than SMTP allows.
    ClientLongLine,
    /// It is too large.
    ClientMailTooLarge {
        /// Octets that are allowed.
        bytes_max: u64,
    },
    /// It goes in circles.
    ClientLoop {
        /// `Received` fields that it has.
        received: u32,
    },
    /// The account may not send as the address in `From`.
    ClientSender {
        /// The address, or what stands in its place.
        sender: String,
    },
    /// A control header cannot be followed.
    ClientControl(BadControl),
    /// Its idempotency key was used for another mail.
    ClientKeyReused,
    /// The store cannot take it now.
    Store(StoreError),
    /// It was refused before, and has nothing more to say.
    Over,
}

/// A mail on its way in.
pub struct Intake {
    door: Door,
    offer: Offer,
    queue_id: QueueId,
    bytes: u64,
    state: State,
}

enum State {
    /// The header is not complete yet.
    Header(HeaderBuffer),
    /// The header is stamped and everything goes to the store.
    Body(Box<Stored>),
    /// It was refused.
    Over,
}

struct Stored {
    writer: MailWriter,
    submission: Submission,
}

/// Writes a mail as it will be relayed, and looks at its lines.
struct MailWriter {
    body: BodyWriter,
    lines: LineLengths,
    long_lines: LongLines,
}

/// The start of a mail up to the end of its header, found without reading an octet twice.
#[derive(Default)]
struct HeaderBuffer {
    octets: Vec<u8>,
    /// Where the `From ` line of a mailbox file ends.
    skip: usize,
    /// Where the first line begins that is not complete or not looked at.
    line_start: usize,
    /// How far its end was looked for.
    searched: usize,
}

impl Door {
    /// A door to `store`.
    pub fn new(store: Store, clock: Clock, metrics: Metrics) -> Self {
        Self { store, clock, metrics, turns: Turns::default() }
    }

    /// The store behind it.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The counters.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Begins to take a mail.
    pub fn begin(&self, offer: Offer) -> Intake {
        let queue_id = self.store.new_queue_id();
        let state = State::Header(HeaderBuffer::default());
        Intake { door: self.clone(), offer, queue_id, bytes: 0, state }
    }

    /// What a mail would be relayed as, and its Message-ID. Nothing is taken over.
    ///
    /// # Errors
    /// When it would be refused.
    pub fn preview(&self, offer: Offer, mail: &[u8]) -> Result<(MessageId, Vec<u8>), Refusal> {
        let intake = self.begin(offer);
        intake.check_size(mail.len())?;
        let mut buffer = HeaderBuffer::default();
        let is_complete = buffer.push(mail);
        intake.check_header(&buffer, is_complete)?;
        let (mail_header, rest) = buffer.split();
        let Submission { header, message_id, .. } = intake.stamped(mail_header)?;
        let octets = [header.as_slice(), stamp::separator(rest), rest].concat();
        let settings = &intake.offer.settings.submission;
        if settings.long_lines == LongLines::Refuse && has_long_lines(&octets) {
            return Err(Refusal::ClientLongLine);
        }
        Ok((message_id, octets))
    }

    /// The mail that an account has submitted under an idempotency key, if it has.
    ///
    /// # Errors
    /// When that was another mail, or the store cannot be read.
    pub async fn known(
        &self,
        account: &str,
        once: &Idempotency,
    ) -> Result<Option<Accepted>, Refusal> {
        let since = self.clock.now().minus(IDEMPOTENCY_KEPT);
        let (store, account, key) = (self.store.clone(), account.to_owned(), once.key.clone());
        let found =
            tokio::task::spawn_blocking(move || store.by_idempotency_key(&account, &key, since));
        let panicked = |_error| Err(StoreError::Busy);
        let Some(known) = found.await.unwrap_or_else(panicked).map_err(Refusal::Store)? else {
            return Ok(None);
        };
        if known.control.idempotency.as_ref() != Some(once) {
            return Err(Refusal::ClientKeyReused);
        }
        Ok(Some(Accepted {
            queue_id: known.queue_id,
            send_at: known.begins_at(),
            message_id: known.message_id,
            is_repeated: true,
        }))
    }

    /// Takes a whole mail.
    ///
    /// # Errors
    /// When it is refused; nothing of it is kept then.
    pub async fn submit(&self, offer: Offer, mail: &[u8]) -> Result<Accepted, Refusal> {
        let mut intake = self.begin(offer);
        for piece in mail.chunks(PIECE_BYTES) {
            intake.write(piece).await?;
        }
        intake.finish().await
    }
}

impl Intake {
    /// What it will be called.
    pub fn queue_id(&self) -> QueueId {
        self.queue_id
    }

    /// The next octets of the mail.
    ///
    /// # Errors
    /// When the mail is refused; it must be dropped then.
    pub async fn write(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        let result = self.take(octets).await;
        if let Err(refusal) = &result {
            self.log_refused(refusal);
            self.state = State::Over;
        }
        result
    }

    /// Ends the mail; when this returns `Ok` it is on disk.
    ///
    /// # Errors
    /// When the mail is refused; nothing of it is kept then.
    pub async fn finish(mut self) -> Result<Accepted, Refusal> {
        let result = self.settle().await;
        if let Err(refusal) = &result {
            self.log_refused(refusal);
        }
        result
    }

    async fn take(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.check_size(octets.len())?;
        self.bytes = self.bytes.saturating_add(u64::try_from(octets.len()).unwrap_or(u64::MAX));
        match &mut self.state {
            State::Over => Err(Refusal::Over),
            State::Body(stored) => stored.writer.write(octets).await,
            State::Header(buffer) => {
                let mut buffer = std::mem::take(buffer);
                let is_complete = buffer.push(octets);
                self.check_header(&buffer, is_complete)?;
                if is_complete {
                    self.open_body(&buffer).await?;
                } else {
                    self.state = State::Header(buffer);
                }
                Ok(())
            }
        }
    }

    /// Whether so many octets more are not too many.
    fn check_size(&self, more: usize) -> Result<(), Refusal> {
        let bytes_max = self.offer.settings.submission.message_bytes_max;
        let bytes = self.bytes.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        if bytes_max > 0 && bytes > bytes_max {
            return Err(Refusal::ClientMailTooLarge { bytes_max });
        }
        Ok(())
    }

    fn check_header(&self, buffer: &HeaderBuffer, is_complete: bool) -> Result<(), Refusal> {
        // An incomplete header is all there is.
        let header_len = if is_complete { buffer.line_start } else { buffer.octets.len() };
        let bytes_max = self.offer.settings.submission.header_bytes_max;
        if header_len > bytes_max {
            return Err(Refusal::ClientHeaderTooLarge { bytes_max });
        }
        Ok(())
    }

    /// Stamps the header and writes what there is of the mail.
    async fn open_body(&mut self, buffer: &HeaderBuffer) -> Result<(), Refusal> {
        let (mail_header, rest) = buffer.split();
        let mut submission = self.stamped(mail_header)?;
        let body = self.door.store.body_writer(self.queue_id);
        let long_lines = self.offer.settings.submission.long_lines;
        let mut writer = MailWriter { body, lines: LineLengths::default(), long_lines };
        for piece in [&submission.header, stamp::separator(rest), rest] {
            if !piece.is_empty() {
                writer.write(piece).await?;
            }
        }
        submission.header.truncate(HEADER_BYTES_MAX);
        self.state = State::Body(Box::new(Stored { writer, submission }));
        Ok(())
    }

    /// The record of the mail, with its whole header as it leaves.
    fn stamped(&self, mail_header: &[u8]) -> Result<Submission, Refusal> {
        let Offer { settings, account, envelope, .. } = &self.offer;
        let fields_max = settings.submission.header_fields_max;
        if header::fields(mail_header).count() > fields_max {
            return Err(Refusal::ClientHeaderFields { fields_max });
        }
        let account = settings.account(account);
        if let Some(sender) = policy::forbidden_from(account, mail_header) {
            return Err(Refusal::ClientSender { sender });
        }
        let now = self.door.clock.now();
        let ahead_max = settings.queue.send_at_max.duration();
        let said = control::of_header(mail_header, envelope, now, ahead_max)
            .map_err(Refusal::ClientControl)?;
        let control = self.offer.control.clone().or(said);
        let stamping = self.stamping(now, begins_at(now, control.send_at));
        let mut stamped = stamp::stamp(mail_header, &stamping)
            .map_err(|StampError::Loop { received }| Refusal::ClientLoop { received })?;
        let mut meta = account.map(|account| account.meta.clone()).unwrap_or_default();
        meta.append(&mut stamped.meta);
        Ok(Submission {
            queue_id: self.queue_id,
            message_id: stamped.message_id,
            account: self.offer.account.clone(),
            received_at: now,
            envelope: envelope.clone(),
            header: stamped.header,
            size_bytes: 0,
            long_lines: false,
            origin: Origin::App,
            meta,
            client: self.offer.peer.map(|peer| peer.to_canonical().to_string()),
            return_path: match settings.return_path_mode(account) {
                Mode::Auto | Mode::Preserve => ReturnPathMode::Preserve,
                Mode::Verp => ReturnPathMode::Verp,
                Mode::Plus => ReturnPathMode::Plus,
            },
            dsn: account.is_none_or(|account| account.dsn == DsnPolicy::Mail),
            source: match self.offer.protocol {
                Protocol::Http => Source::Api,
                Protocol::Smtp | Protocol::Esmtp { .. } => Source::Smtp,
            },
            control,
        })
    }

    async fn settle(&mut self) -> Result<Accepted, Refusal> {
        if let State::Header(buffer) = &mut self.state {
            // The mail ended within its header.
            let buffer = std::mem::take(buffer);
            self.open_body(&buffer).await?;
        }
        let State::Body(stored) = std::mem::replace(&mut self.state, State::Over) else {
            return Err(Refusal::Over);
        };
        let Stored { writer: MailWriter { body, lines, .. }, mut submission } = *stored;
        submission.size_bytes = body.len();
        submission.long_lines = lines.has_long();
        // Held until the mail is on disk: who comes with the same key then finds it.
        let _turn = match &submission.control.idempotency {
            None => None,
            Some(once) => {
                let turn = self.door.turns.wait(&submission.account, &once.key).await;
                if let Some(known) = self.door.known(&submission.account, once).await? {
                    return Ok(known);
                }
                Some(turn)
            }
        };
        let accepted = Accepted {
            queue_id: self.queue_id,
            message_id: submission.message_id.clone(),
            send_at: submission.begins_at(),
            is_repeated: false,
        };
        let body = body.finish().await.map_err(Refusal::Store)?;
        let size_bytes = submission.size_bytes;
        let ticket = self.door.store.accept(submission, body).map_err(Refusal::Store)?;
        // Nothing may be acknowledged before this.
        ticket.synced().await.map_err(Refusal::Store)?;
        self.door.metrics.message_accepted();
        let message_id = accepted.message_id.as_str();
        let line =
            Line { message_id: Some(message_id), size_bytes: Some(size_bytes), ..Line::default() };
        self.log(line, maillog::accepted);
        Ok(accepted)
    }

    fn stamping(&self, now: Timestamp, date: Timestamp) -> Stamping<'_> {
        let Offer { settings, envelope, helo, peer, protocol, .. } = &self.offer;
        Stamping {
            queue_id: self.queue_id,
            now,
            date,
            random: random_u64(),
            hostname: &settings.hostname,
            message_id_domain: settings.message_id_domain(),
            received_max: settings.submission.received_max,
            trace: Trace {
                helo: helo.as_deref(),
                peer: *peer,
                protocol: *protocol,
                recipient: match envelope.recipients.as_slice() {
                    [only] => Some(&only.address),
                    _ => None,
                },
            },
        }
    }

    fn log_refused(&self, refusal: &Refusal) {
        if matches!(refusal, Refusal::Over) {
            return;
        }
        self.door.metrics.message_rejected("submission");
        let reply = refusal.reply();
        let reason = reason_chain(refusal);
        let text = reply.to_string();
        let to = match self.offer.envelope.recipients.as_slice() {
            [only] => Some(only.address.as_str()),
            _ => None,
        };
        let line = Line {
            to,
            status: reply.status,
            reply: Some(&text),
            reason: Some(&reason),
            ..Line::default()
        };
        self.log(line, maillog::rejected);
    }

    /// Writes a line with what is known of every mail.
    fn log(&self, line: Line<'_>, write: fn(&Line<'_>)) {
        let Offer { account, envelope, peer, .. } = &self.offer;
        let from = envelope.reverse_path.to_string();
        let client = peer.map(|peer| peer.to_canonical().to_string());
        write(&Line {
            queue_id: Some(self.queue_id),
            account: Some(account),
            from: Some(&from),
            client: client.as_deref(),
            ..line
        });
    }
}

impl MailWriter {
    async fn write(&mut self, octets: &[u8]) -> Result<(), Refusal> {
        self.lines.push(octets);
        if self.lines.has_long() && self.long_lines == LongLines::Refuse {
            return Err(Refusal::ClientLongLine);
        }
        self.body.write(octets).await.map_err(Refusal::Store)
    }
}

impl HeaderBuffer {
    /// Adds octets; whether the header is complete now.
    fn push(&mut self, octets: &[u8]) -> bool {
        self.octets.extend_from_slice(octets);
        while let Some(line_end) = self.line_end() {
            let line = self.octets.get(self.line_start..line_end).unwrap_or_default();
            if self.line_start == 0 && stamp::mailbox_line_len(line) > 0 {
                self.skip = line_end;
            } else {
                let is_first = self.line_start == self.skip;
                let is_fold = !is_first && matches!(line.first(), Some(b' ' | b'\t'));
                if !is_fold && header::split(line).0.is_empty() {
                    return true;
                }
            }
            self.line_start = line_end;
            self.searched = line_end;
        }
        self.searched = self.octets.len();
        false
    }

    /// Where the next complete line ends.
    fn line_end(&self) -> Option<usize> {
        let unseen = self.octets.get(self.searched..)?;
        let at = unseen.iter().position(|b| *b == b'\n')?;
        self.searched.checked_add(at)?.checked_add(1)
    }

    fn split(&self) -> (&[u8], &[u8]) {
        header::split(self.octets.get(self.skip..).unwrap_or_default())
    }
}

impl Refusal {
    /// What the client is told.
    pub fn reply(&self) -> Reply {
        let status = EnhancedStatus::new;
        match self {
            // RFC 5321 §4.5.3.1.9: too much mail data; more fields than the system takes are that,
            // too (RFC 3463 §3.4).
            Self::ClientHeaderTooLarge { .. }
            | Self::ClientHeaderFields { .. }
            | Self::ClientMailTooLarge { .. } => Reply::new(552, status(5, 3, 4), self.to_string()),
            Self::ClientLongLine => Reply::new(554, status(5, 6, 0), self.to_string()),
            Self::ClientLoop { .. } => Reply::new(554, status(5, 4, 6), self.to_string()),
            Self::ClientSender { .. } => Reply::new(550, status(5, 7, 1), self.to_string()),
            Self::ClientControl(_) | Self::ClientKeyReused => {
                Reply::new(554, status(5, 6, 0), self.to_string())
            }
            Self::Store(error) => store_reply(error),
            Self::Over => Reply::new(451, status(4, 3, 0), "the mail was refused before its end"),
        }
    }
}

/// What a client is told about a store that cannot take its mail: what is wrong on our side is
/// for our log, not for it.
pub fn store_reply(error: &StoreError) -> Reply {
    let status = EnhancedStatus::new;
    match error {
        StoreError::Busy => Reply::new(451, status(4, 3, 1), "too busy, try again later"),
        StoreError::DiskFull => Reply::new(452, status(4, 3, 1), "out of storage, try again later"),
        _ => Reply::new(451, status(4, 3, 0), "cannot store mail now, try again later"),
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientHeaderTooLarge { bytes_max } => {
                write!(f, "the header is larger than {bytes_max} octets")
            }
            Self::ClientHeaderFields { fields_max } => {
                write!(f, "the header has more than {fields_max} fields")
            }
            Self::ClientLongLine => f.write_str(
                "a line is longer than 998 octets; encode the text as quoted-printable or base64",
            ),
            Self::ClientMailTooLarge { bytes_max } => {
                write!(f, "the mail is larger than {bytes_max} octets")
            }
            Self::ClientLoop { received } => {
                write!(f, "the mail goes in circles: it has {received} Received fields")
            }
            Self::ClientSender { sender } => {
                let sender: String = header::sanitized(sender).chars().take(100).collect();
                write!(f, "this account may not send as <{sender}> (From)")
            }
            Self::ClientControl(BadControl { field, expected }) => {
                write!(f, "{field} must be {expected}")
            }
            Self::ClientKeyReused => {
                f.write_str("this idempotency key was used for another mail in the last 48 hours")
            }
            Self::Store(_) => f.write_str("cannot store the mail"),
            Self::Over => f.write_str("the mail was refused before its end"),
        }
    }
}

impl std::error::Error for Refusal {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Store(error) => Some(error),
            _ => None,
        }
    }
}

/// An error with everything behind it, on one line.
fn reason_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Octets of a whole mail that are taken at a time, so that no more than its header is gathered.
const PIECE_BYTES: usize = 65_536;
/// How long an idempotency key stands for its mail.
const IDEMPOTENCY_KEPT: Duration = Duration::from_secs(48 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_ends_at_the_same_octet_however_it_is_cut() {
        for (mail, is_complete, mail_header, rest) in [
            ("A: b\r\nC: d\r\n\r\nbody", true, "A: b\r\nC: d\r\n", "\r\nbody"),
            ("A: b\r\n folded\r\n\r\n", true, "A: b\r\n folded\r\n", "\r\n"),
            ("\r\nbody", true, "", "\r\nbody"),
            (" fold first\r\n", true, "", " fold first\r\n"),
            ("A: b\r\nno field\r\nC: d\r\n", true, "A: b\r\n", "no field\r\nC: d\r\n"),
            ("From x Mon 12:10\r\nA: b\r\n\r\n", true, "A: b\r\n", "\r\n"),
            ("From x Mon 12:10\r\n fold first\r\n", true, "", " fold first\r\n"),
            ("A: b\r\nFrom x 1:2\r\n\r\n", true, "A: b\r\n", "From x 1:2\r\n\r\n"),
            ("A: b\r\nC: d", false, "A: b\r\nC: d", ""),
            ("A: b\r\nCut", false, "A: b\r\n", "Cut"),
            ("", false, "", ""),
        ] {
            for piece_len in 1..=mail.len().max(1) {
                let mut buffer = HeaderBuffer::default();
                let mut pieces = mail.as_bytes().chunks(piece_len);
                let got = pieces.by_ref().any(|piece| buffer.push(piece));
                assert_eq!(got, is_complete, "{mail:?} by {piece_len}");
                pieces.for_each(|piece| buffer.octets.extend_from_slice(piece));
                let want = (mail_header.as_bytes(), rest.as_bytes());
                assert_eq!(buffer.split(), want, "{mail:?} by {piece_len}");
            }
        }
    }

    #[test]
    fn each_refusal_has_its_code_and_never_shows_our_insides() {
        for (refusal, want) in [
            (Refusal::ClientHeaderTooLarge { bytes_max: 9 }, "552 5.3.4 the header is larger"),
            (Refusal::ClientHeaderFields { fields_max: 9 }, "552 5.3.4 the header has more than 9"),
            (Refusal::ClientLongLine, "554 5.6.0 a line is longer than 998 octets"),
            (Refusal::ClientMailTooLarge { bytes_max: 9 }, "552 5.3.4 the mail is larger"),
            (Refusal::ClientLoop { received: 51 }, "554 5.4.6 the mail goes in circles"),
            (Refusal::ClientSender { sender: "a\r\n@b".to_owned() }, "550 5.7.1 this account may"),
            (Refusal::Store(StoreError::Busy), "451 4.3.1 "),
            (Refusal::Store(StoreError::DiskFull), "452 4.3.1 "),
            (Refusal::Store(StoreError::Format("secret".to_owned())), "451 4.3.0 cannot store"),
        ] {
            let reply = refusal.reply().to_string();
            assert!(reply.starts_with(want), "{reply}");
            assert!(!reply.contains("secret") && !reply.contains('\r'), "{reply}");
        }
    }
}
