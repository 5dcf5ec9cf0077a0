//! One session: what is allowed when, what is answered, what is asked of the service.
//!
//! Pure: octets go in through `receive`, `step` says what is to be done next, verdicts of the
//! service come back through `verdict` and its like, output leaves through `take_output`.
//!
//! Of samotop's frame this uses `input`, `output` and `mode` of its `SmtpSession`, and its
//! `Parser` for whatever the mode expects. Its `Interpret` and `Action` are not used: they take
//! a boxed future for every command and would hide from this file what may come when.

mod exchange;
mod intake;
mod rules;

use std::sync::Arc;

use samotop_core::smtp::{DriverControl, ParseResult, Parser, SmtpContext, SmtpSession};

use super::auth::{Credentials, Exchange};
use super::command::{Grammar, LineLimit};
use super::reply::{self, Canned};
use super::scram::ClientFirst;
use super::service::{
    Auth, Hello, HelloKind, MailCommand, Peer, Protocol, ScramProof, SessionEnd, SessionOptions,
};
use crate::mail::Reply;
use crate::mail::envelope::Recipient;
use intake::{Intake, Piece};

/// The state of one session.
#[derive(Debug)]
pub(crate) struct Session {
    frame: SmtpContext,
    options: Arc<SessionOptions>,
    /// Who is at the other end of the connection.
    peer: Peer,
    /// On whose behalf the peer speaks, if it said so by XCLIENT.
    named: Option<Peer>,
    channel: Channel,
    hello: Option<HelloKind>,
    authenticated: bool,
    transaction: Option<Transaction>,
    exchange: Option<Exchange>,
    intake: Option<Intake>,
    piece: Option<Piece>,
    awaiting: Awaiting,
    /// What is to be asked or told before anything else, first thing first.
    next: [Option<Question>; 2],
    /// Octets of the input that are dealt with.
    taken: usize,
    /// Within a line that is too long, with the reply for its end.
    skipping: Option<Canned>,
    counters: Counters,
    /// Counts whatever a deadline is for.
    progress: u64,
    /// Octets of the block of a mail that is under way.
    block_bytes: u64,
    /// Nothing more is read in this state.
    halted: bool,
    end: Option<SessionEnd>,
}

/// What to do next.
#[derive(Debug)]
pub(crate) enum Step {
    /// Write the output, then read.
    Read,
    /// Write the output: it has become large.
    Write,
    /// Ask the service, and give its answer to `verdict`, `challenged`, `proved` or `ended`.
    Ask(Question),
}

/// What the service is asked or told.
#[derive(Debug)]
pub(crate) enum Question {
    /// Needs no answer.
    Hello(Hello),
    /// Needs no answer.
    Reset,
    /// Needs who must authenticate, for `introduced`.
    Introduced(Peer),
    /// Needs a verdict.
    Authenticate(Credentials),
    /// Needs a challenge for this user.
    Challenge(String),
    /// Needs the server's proof.
    Prove(Box<ScramProof>),
    /// Needs no answer: this user has authenticated.
    Proved(String),
    /// Needs a verdict.
    Mail(MailCommand),
    /// Needs a verdict.
    Rcpt(Recipient),
    /// Needs a verdict.
    Data,
    /// Needs a verdict; the octets are in `chunk`.
    Chunk,
    /// Needs replies.
    End,
}

/// How well what is said is protected from being overheard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Not at all.
    Plain {
        /// Whether STARTTLS can be had.
        starttls: bool,
    },
    /// By TLS.
    Tls,
}

/// What the driver must keep deadlines for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expecting {
    /// A command or a line of an exchange.
    Line,
    /// The octets of a mail.
    Data,
}

/// Whose answer is due.
#[derive(Debug)]
enum Awaiting {
    Nothing,
    Authenticate,
    Challenge(Box<ClientFirst>),
    Prove { username: String },
    Mail { smtputf8: bool },
    Rcpt,
    Data,
    Chunk,
    End,
}

/// From MAIL to the end of the mail.
#[derive(Debug)]
struct Transaction {
    smtputf8: bool,
    accepted: u32,
    refused: u32,
}

/// What reading a line came to.
enum Line<T> {
    /// Its end has not come yet.
    Missing,
    /// It is too long or makes no sense.
    Refused(Canned),
    /// What it says.
    Read(T),
}

#[derive(Debug, Default)]
struct Counters {
    /// Since the last accepted mail.
    errors: u32,
    /// Since the last accepted mail.
    idle_commands: u32,
    transactions: u32,
}

impl Session {
    /// A session before its greeting.
    pub(crate) fn new(options: Arc<SessionOptions>, peer: Peer, channel: Channel) -> Self {
        Self {
            frame: SmtpContext::default(),
            options,
            peer,
            named: None,
            channel,
            hello: None,
            authenticated: false,
            transaction: None,
            exchange: None,
            intake: None,
            piece: None,
            awaiting: Awaiting::Nothing,
            next: [None, None],
            taken: 0,
            skipping: None,
            counters: Counters::default(),
            progress: 0,
            block_bytes: 0,
            halted: false,
            end: None,
        }
    }

    /// Greets the client (RFC 5321 §4.3.1).
    pub(crate) fn greet(&mut self) {
        let protocol = match self.options.protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        self.write_line(&format!("220 {} {protocol} Rebound", self.options.hostname));
    }

    /// Takes what the client sent.
    pub(crate) fn receive(&mut self, octets: &[u8]) {
        self.frame.session.input.extend_from_slice(octets);
    }

    /// What is to be done next.
    pub(crate) fn step(&mut self) -> Step {
        let step = self.turn();
        if matches!(step, Step::Read) {
            self.settle();
        }
        step
    }

    /// Takes the service's answer to a question that needs a verdict.
    pub(crate) fn verdict(&mut self, verdict: Result<(), Reply>) {
        let refusal = verdict.err().map(reply::refusal);
        match (std::mem::replace(&mut self.awaiting, Awaiting::Nothing), refusal) {
            (Awaiting::Chunk, refusal) => {
                if let Some(intake) = self.intake.as_mut() {
                    intake.refusal = refusal;
                }
            }
            (Awaiting::Rcpt, Some(refusal)) => {
                if let Some(transaction) = self.transaction.as_mut() {
                    transaction.refused = transaction.refused.saturating_add(1);
                }
                if self.options.recipients_are_errors || refusal.code == 421 {
                    self.refuse(&refusal);
                } else {
                    self.write_reply(&refusal);
                }
            }
            (Awaiting::Data, Some(refusal)) if self.piece.is_some() => self.discard(refusal),
            (_, Some(refusal)) => self.refuse(&refusal),
            (Awaiting::Authenticate, None) => {
                self.authenticated = true;
                self.say(reply::AUTHENTICATED);
            }
            (Awaiting::Mail { smtputf8 }, None) => {
                self.transaction = Some(Transaction { smtputf8, accepted: 0, refused: 0 });
                self.say(reply::SENDER_OK);
            }
            (Awaiting::Rcpt, None) => {
                if let Some(transaction) = self.transaction.as_mut() {
                    transaction.accepted = transaction.accepted.saturating_add(1);
                }
                self.say(reply::RECIPIENT_OK);
            }
            (Awaiting::Data, None) => self.begin_intake(),
            (
                Awaiting::Nothing | Awaiting::Challenge(_) | Awaiting::Prove { .. } | Awaiting::End,
                None,
            ) => {}
        }
    }

    /// What is to be written or done, in order.
    pub(crate) fn take_output(&mut self) -> Vec<DriverControl> {
        std::mem::take(&mut self.frame.session.output)
    }

    /// What is waited for.
    pub(crate) fn expecting(&self) -> Expecting {
        match self.frame.session.mode {
            Some(SmtpSession::DATA_MODE | BDAT_MODE) => Expecting::Data,
            _ => Expecting::Line,
        }
    }

    /// Whether a mail has begun to come in and has not ended: also between two BDATs.
    pub(crate) fn is_receiving(&self) -> bool {
        self.intake.is_some() || self.expecting() == Expecting::Data
    }

    /// Grows with every line and with every block of a mail.
    pub(crate) fn progress(&self) -> u64 {
        self.progress
    }

    /// A deadline has passed.
    pub(crate) fn time_out(&mut self) {
        self.write_line(reply::TIMED_OUT.as_str());
        self.close(SessionEnd::TimedOut);
    }

    /// The daemon stops.
    pub(crate) fn shut_down(&mut self) {
        self.write_line(reply::STOPPING.as_str());
        self.close(SessionEnd::Shutdown);
    }

    /// TLS has begun: all that was said before is forgotten (RFC 3207 §4.2).
    ///
    /// Not so on whose behalf it was said: a proxy that passes on what its client says would
    /// otherwise give it the proxy's own rights with the client's STARTTLS. Postfix keeps it, too.
    pub(crate) fn secured(&mut self) {
        let (options, peer) = (Arc::clone(&self.options), self.peer.clone());
        let (named, counters) = (self.named.take(), std::mem::take(&mut self.counters));
        let progress = self.progress;
        *self = Self { named, counters, progress, ..Self::new(options, peer, Channel::Tls) };
    }

    /// The peer speaks for `named` now: it is greeted anew, and all that was said before is
    /// forgotten, but neither its mistakes nor what it has sent since.
    pub(crate) fn introduced(&mut self, named: Peer, auth: Auth) {
        let options = Arc::new(SessionOptions { auth, ..SessionOptions::clone(&self.options) });
        let fresh = Self::new(options, self.peer.clone(), self.channel);
        let Self { frame, taken, counters, progress, .. } = std::mem::replace(self, fresh);
        (self.frame, self.taken, self.counters, self.progress) = (frame, taken, counters, progress);
        self.named = Some(named);
        self.greet();
    }

    /// Why the session ended, where the session itself ended it.
    pub(crate) fn take_end(&mut self) -> Option<SessionEnd> {
        self.end.take()
    }

    /// Ends the transaction that a lost connection left behind; says whether there was one.
    pub(crate) fn abandon(&mut self) -> bool {
        self.intake = None;
        self.piece = None;
        self.transaction.take().is_some()
    }

    fn turn(&mut self) -> Step {
        loop {
            if let Some(question) = self.next.iter_mut().find_map(Option::take) {
                return Step::Ask(question);
            }
            if self.halted {
                return Step::Read;
            }
            if self.output_bytes() > OUTPUT_BYTES_MAX {
                return Step::Write;
            }
            let step = match self.frame.session.mode {
                Some(SmtpSession::DATA_MODE) => self.data_turn(),
                Some(BDAT_MODE) => self.piece_turn(),
                Some(AUTH_MODE) => self.exchange_turn(),
                _ => self.command_turn(),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Lets go of the memory of input that is dealt with, before a wait.
    fn settle(&mut self) {
        let mode = self.frame.session.mode;
        let input = &mut self.frame.session.input;
        if self.taken >= input.len() && mode.is_none() {
            *input = Vec::new();
        } else {
            input.drain(..self.taken.min(input.len()));
        }
        self.taken = 0;
    }

    fn command_turn(&mut self) -> Option<Step> {
        if self.untaken().starts_with(TLS_RECORD) {
            self.say(reply::NOT_SMTP);
            self.close(SessionEnd::Refused);
            return None;
        }
        let limit = LineLimit::of_command(self.untaken());
        match self.line(&Grammar, limit) {
            Line::Missing => Some(Step::Read),
            Line::Refused(refusal) => {
                self.say(refusal);
                None
            }
            Line::Read(command) => {
                let question = self.command(command)?;
                Some(Step::Ask(question))
            }
        }
    }

    /// Ends the transaction without a mail; the service is told before it hears anything else.
    fn owe_reset(&mut self) {
        self.intake = None;
        if self.transaction.take().is_some() {
            let [first, _] = &mut self.next;
            *first = Some(Question::Reset);
        }
    }

    fn untaken(&self) -> &[u8] {
        self.frame.session.input.get(self.taken..).unwrap_or_default()
    }

    /// The next line of the input, as the parser of the mode reads it.
    fn line<T, P>(&mut self, parser: &P, limit: LineLimit) -> Line<T>
    where
        P: Parser<Result<T, Canned>>,
    {
        if self.skipping.is_some() && !self.skip() {
            return Line::Missing;
        }
        if let Some(refusal) = self.skipping.take() {
            return Line::Refused(refusal);
        }
        let parsed: ParseResult<Result<T, Canned>> = parser.parse(self.untaken(), &self.frame);
        match parsed {
            Ok((length, line)) => {
                self.taken = self.taken.saturating_add(length);
                self.progress = self.progress.saturating_add(1);
                line.map_or_else(Line::Refused, Line::Read)
            }
            Err(_incomplete) => {
                if self.untaken().len() > limit.bytes_max {
                    self.skipping = Some(limit.refusal);
                }
                Line::Missing
            }
        }
    }

    /// Drops input up to the end of the line; says whether that came.
    fn skip(&mut self) -> bool {
        let end = self.untaken().windows(2).position(|two| two == b"\r\n");
        let dropped = match end {
            Some(at) => at.saturating_add(2),
            // The last octet may be the CR of the line's end.
            None => self.untaken().len().saturating_sub(1),
        };
        self.taken = self.taken.saturating_add(dropped);
        if end.is_some() {
            self.progress = self.progress.saturating_add(1);
        }
        end.is_some()
    }

    fn say(&mut self, canned: Canned) {
        self.write_line(canned.as_str());
        if canned.is_closing() {
            self.close(SessionEnd::Refused);
        } else if canned.is_error() {
            self.count_error();
        }
    }

    fn refuse(&mut self, refusal: &Reply) {
        self.write_reply(refusal);
        if refusal.code == 421 {
            self.close(SessionEnd::Refused);
        } else if refusal.is_permanent() {
            self.count_error();
        }
    }

    fn count_error(&mut self) {
        self.counters.errors = self.counters.errors.saturating_add(1);
        if self.counters.errors >= self.options.errors_max && !self.halted {
            self.write_line(reply::TOO_MANY_ERRORS.as_str());
            self.close(SessionEnd::Refused);
        }
    }

    /// Counts a command that brings no mail; says whether the session goes on.
    fn count_idle(&mut self) -> bool {
        self.counters.idle_commands = self.counters.idle_commands.saturating_add(1);
        let goes_on = self.counters.idle_commands <= self.options.idle_commands_max;
        if !goes_on {
            self.say(reply::TOO_MANY_COMMANDS);
        }
        goes_on
    }

    fn leave(&mut self, canned: Canned, end: SessionEnd) -> Option<Question> {
        self.write_line(canned.as_str());
        self.close(end);
        None
    }

    /// Nothing is read or said any more.
    fn close(&mut self, end: SessionEnd) {
        if !self.halted {
            self.frame.session.say(DriverControl::Shutdown);
            self.halted = true;
            self.end = Some(end);
        }
    }

    fn write_line(&mut self, line: &str) {
        self.write(line.as_bytes());
        self.write(b"\r\n");
    }

    fn write_reply(&mut self, reply: &Reply) {
        let mut octets = Vec::new();
        reply::write(&mut octets, reply);
        self.write(&octets);
    }

    /// Replies are gathered until the driver writes them (RFC 2920 §3.2).
    fn write(&mut self, octets: &[u8]) {
        let output = &mut self.frame.session.output;
        match output.last_mut() {
            Some(DriverControl::Response(gathered)) => gathered.extend_from_slice(octets),
            _ => output.push(DriverControl::Response(octets.to_vec())),
        }
    }

    fn output_bytes(&self) -> usize {
        let bytes = |control: &DriverControl| match control {
            DriverControl::Response(octets) => octets.len(),
            DriverControl::StartTls | DriverControl::Shutdown => 0,
        };
        self.frame.session.output.iter().map(bytes).sum()
    }
}

fn is_over(bytes: u64, options: &SessionOptions) -> bool {
    options.message_bytes_max > 0 && bytes > options.message_bytes_max
}

/// The mode in which the octets of a BDAT are expected.
const BDAT_MODE: &str = "BDAT";
/// The mode in which a line of an AUTH exchange is expected.
const AUTH_MODE: &str = "AUTH";
/// How a TLS handshake begins: a client that took this for an implicit TLS port.
const TLS_RECORD: &[u8] = &[0x16, 0x03];
/// Replies that are gathered before they are written.
const OUTPUT_BYTES_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::service::BareNewline;
    use super::*;

    fn session() -> Session {
        let options = SessionOptions {
            hostname: "relay.example".to_owned(),
            protocol: Protocol::Smtp,
            auth: Auth::None,
            scram: false,
            xclient: false,
            message_bytes_max: 0,
            recipients_max: 10,
            transactions_max: 10,
            errors_max: 1000,
            recipients_are_errors: true,
            idle_commands_max: 100_000,
            command_timeout: Duration::from_secs(1),
            data_timeout: Duration::from_secs(1),
            message_timeout: Duration::from_secs(1),
            write_timeout: Duration::from_secs(1),
            dsn: false,
            bare_newline: BareNewline::Refuse,
        };
        let peer = Peer { address: None };
        Session::new(Arc::new(options), peer, Channel::Plain { starttls: true })
    }

    #[test]
    fn an_idle_session_owns_no_input_buffer() {
        let mut session = session();
        session.receive(b"NOOP\r\nNOOP\r\nNO");
        assert!(matches!(session.step(), Step::Read));
        assert_eq!(session.frame.session.input, b"NO");
        session.receive(b"OP\r\n");
        assert!(matches!(session.step(), Step::Read));
        assert_eq!(session.frame.session.input.capacity(), 0);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let mut session = session();
        for _ in 0..1000 {
            session.receive(&[b'x'; 4096]);
            assert!(matches!(session.step(), Step::Read));
            assert!(session.untaken().len() <= 4096);
        }
        assert!(session.take_output().is_empty());
        session.receive(b"\r\n");
        assert!(matches!(session.step(), Step::Read));
        let said = session.take_output();
        assert_eq!(said, [DriverControl::Response(b"500 5.5.2 Command line too long\r\n".into())]);
    }

    #[test]
    fn output_is_written_before_it_grows_without_limit() {
        let mut session = session();
        session.receive(&b"HELP\r\n".repeat(1000));
        let mut written = 0;
        while matches!(session.step(), Step::Write) {
            let bytes = session.output_bytes();
            assert!((OUTPUT_BYTES_MAX..OUTPUT_BYTES_MAX + 512).contains(&bytes), "{bytes}");
            session.take_output();
            written += 1;
        }
        assert!(written > 2, "{written}");
    }

    #[test]
    fn nothing_is_read_between_starttls_and_the_handshake() {
        let mut session = session();
        session.receive(b"STARTTLS\r\n");
        assert!(matches!(session.step(), Step::Read));
        assert_eq!(session.take_output().last(), Some(&DriverControl::StartTls));
        session.receive(b"NOOP\r\n");
        assert!(matches!(session.step(), Step::Read));
        assert!(session.take_output().is_empty());
        session.secured();
        assert!(session.untaken().is_empty());
    }
}
