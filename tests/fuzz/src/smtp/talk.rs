//! A whole conversation with the session, whose service answers by what it is asked.

use std::sync::Arc;
use std::time::Duration;

use samotop_core::smtp::DriverControl;

use super::service::{Auth, BareNewline, Peer, Protocol, ScramChallenge, SessionOptions};
use super::session::{Channel, Question, Session, Step};
use crate::mail::{Reply, ReversePath};

/// Which server is spoken to: one bit for each thing that makes a difference.
#[derive(Clone, Copy, Debug)]
pub struct Server(pub u8);

/// What came of a conversation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Talk {
    /// Everything that the server said.
    pub said: Vec<u8>,
    /// The mails that the service got whole.
    pub mails: Vec<Vec<u8>>,
    /// Octets of the pieces that the session was given before it ended.
    pub given: usize,
    /// Whether a TLS handshake would follow.
    pub starttls: bool,
    /// Whether the server ended it.
    pub closed: bool,
    /// The most that was to be written at once.
    pub written_max: usize,
}

impl Server {
    /// Whether STARTTLS can be had.
    pub fn has_starttls(self) -> bool {
        self.has(4) && !self.has(64)
    }

    /// Whether this is LMTP.
    pub fn is_lmtp(self) -> bool {
        self.has(1)
    }

    /// Whether bare newlines are put right.
    pub fn normalizes(self) -> bool {
        self.has(8)
    }

    fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    fn options(self) -> SessionOptions {
        let narrow = self.has(16);
        let second = Duration::from_secs(1);
        SessionOptions {
            hostname: "relay.example".to_owned(),
            protocol: if self.is_lmtp() { Protocol::Lmtp } else { Protocol::Smtp },
            auth: self.auth(),
            scram: true,
            xclient: self.has(2),
            message_bytes_max: if narrow { MESSAGE_BYTES_MAX } else { 0 },
            recipients_max: if narrow { 2 } else { 1000 },
            transactions_max: if narrow { 2 } else { 1000 },
            errors_max: if narrow { 3 } else { 1000 },
            recipients_are_errors: true,
            idle_commands_max: if narrow { 6 } else { 1000 },
            command_timeout: second,
            data_timeout: second,
            message_timeout: second,
            write_timeout: second,
            dsn: true,
            bare_newline: if self.normalizes() {
                BareNewline::Normalize
            } else {
                BareNewline::Refuse
            },
        }
    }

    fn auth(self) -> Auth {
        if self.has(2) { Auth::Required } else { Auth::Optional }
    }

    fn peer(self) -> Peer {
        let address = if self.has(32) { [192, 0, 2, 1] } else { [127, 0, 0, 1] };
        Peer { address: Some(address.into()) }
    }

    fn channel(self) -> Channel {
        if self.has(64) { Channel::Tls } else { Channel::Plain { starttls: self.has_starttls() } }
    }
}

/// Gives the session one piece after the other and does what it wants in between.
pub fn talk<'a>(server: Server, pieces: impl Iterator<Item = &'a [u8]>) -> Talk {
    let mut session = Session::new(Arc::new(server.options()), server.peer(), server.channel());
    let mut talk = Talk::default();
    let mut service = Service { refuses: server.has(128), ..Service::default() };
    session.greet();
    turn(server, &mut session, &mut service, &mut talk);
    for piece in pieces {
        if talk.closed || talk.starttls {
            break;
        }
        talk.given += piece.len();
        session.receive(piece);
        turn(server, &mut session, &mut service, &mut talk);
    }
    talk.mails = service.mails;
    talk
}

/// Goes on until the session wants to read.
fn turn(server: Server, session: &mut Session, service: &mut Service, talk: &mut Talk) {
    loop {
        let step = session.step();
        match step {
            Step::Ask(Question::End) => session.ended(service.end()),
            Step::Ask(Question::Hello(_) | Question::Proved(_)) => {}
            Step::Ask(Question::Challenge(username)) => {
                session.challenged(service.refused_by(&username).map(|()| challenge()));
            }
            Step::Ask(Question::Prove(proof)) => {
                session.proved(service.refused_by(&proof.username).map(|()| [7; 32]));
            }
            Step::Ask(Question::Reset) => service.reset(),
            Step::Ask(Question::Introduced(peer)) => session.introduced(peer, server.auth()),
            Step::Ask(question) => {
                let verdict = service.asked(&question, session.chunk());
                session.verdict(verdict);
            }
            Step::Write | Step::Read => {
                let before = talk.said.len();
                for control in session.take_output() {
                    match control {
                        DriverControl::Response(octets) => talk.said.extend_from_slice(&octets),
                        DriverControl::StartTls => talk.starttls = true,
                        DriverControl::Shutdown => talk.closed = true,
                    }
                }
                talk.written_max = talk.written_max.max(talk.said.len() - before);
                if matches!(step, Step::Read) {
                    return;
                }
            }
        }
    }
}

/// The same for everyone, so that every cut gets the same answers.
fn challenge() -> ScramChallenge {
    ScramChallenge { nonce: "nonce".to_owned(), salt: vec![1; 16], iterations: 4096 }
}

/// Refuses by what stands in addresses and mails, so that every cut gets the same answers.
#[derive(Default)]
struct Service {
    /// Whether it refuses anything.
    refuses: bool,
    /// Recipients of the open transaction; none where there is no transaction.
    open: Option<usize>,
    mail: Vec<u8>,
    mails: Vec<Vec<u8>>,
}

impl Service {
    fn asked(&mut self, question: &Question, chunk: &[u8]) -> Result<(), Reply> {
        match question {
            Question::Authenticate(credentials) => self.refused_by(&credentials.username)?,
            Question::Mail(mail) => {
                assert!(self.open.is_none(), "MAIL within a transaction");
                if let ReversePath::Address(address) = &mail.reverse_path {
                    self.refused_by(address.as_str())?;
                }
                self.open = Some(0);
                self.mail.clear();
            }
            Question::Rcpt(recipient) => {
                self.refused_by(recipient.address.as_str())?;
                *self.open.as_mut().expect("RCPT without MAIL") += 1;
            }
            Question::Data => {
                assert!(self.open.is_some_and(|recipients| recipients > 0), "DATA for nobody");
            }
            Question::Chunk => {
                assert!(!chunk.is_empty(), "the service is asked about nothing");
                self.mail.extend_from_slice(chunk);
            }
            // `turn` answers these.
            Question::Hello(_)
            | Question::Reset
            | Question::Introduced(_)
            | Question::Challenge(_)
            | Question::Prove(_)
            | Question::Proved(_)
            | Question::End => {}
        }
        Ok(())
    }

    /// One reply for each recipient: too many for SMTP, which is the session's to see.
    fn end(&mut self) -> Vec<Reply> {
        let recipients = self.open.take().expect("a mail without a transaction");
        let mail = std::mem::take(&mut self.mail);
        let verdict = self.refused_by(&String::from_utf8_lossy(&mail));
        self.mails.push(mail);
        let reply = verdict.err().or_else(|| Reply::parse("250 2.0.0 Ok"));
        vec![reply.expect("a reply"); recipients]
    }

    fn reset(&mut self) {
        assert!(self.open.take().is_some(), "there is nothing to be reset");
        self.mail.clear();
    }

    fn refused_by(&self, text: &str) -> Result<(), Reply> {
        let word = WORDS.iter().find(|(word, _)| self.refuses && text.contains(word));
        word.map_or(Ok(()), |(_, reply)| Err(Reply::parse(reply).expect("a reply")))
    }
}

/// Octets of a mail where little is allowed.
pub const MESSAGE_BYTES_MAX: u64 = 64;
/// What a service that refuses answers where one of these words stands.
const WORDS: &[(&str, &str)] = &[
    ("bye", "421 4.3.0 Going"),
    ("later", "451 4.3.0 Later"),
    ("never", "550 5.7.1 Never\nand never again"),
    // What is no refusal must not become a success either.
    ("nonsense", "250 2.0.0 Ok"),
];
