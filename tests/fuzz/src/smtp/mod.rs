//! The SMTP server without its driver: nothing in here reads, writes or waits.
//!
//! The items of `src/smtp/` are known within one crate only, so what the targets need of them is
//! handed on from here.

#[path = "../../../../src/smtp/auth.rs"]
mod auth;
#[path = "../../../../src/smtp/body.rs"]
mod body;
#[path = "../../../../src/smtp/command.rs"]
mod command;
#[path = "../../../../src/smtp/parameters.rs"]
mod parameters;
#[path = "../../../../src/smtp/reply.rs"]
mod reply;
#[path = "../../../../src/smtp/scram.rs"]
mod scram;
#[path = "../../../../src/smtp/service.rs"]
mod service;
#[path = "../../../../src/smtp/session/mod.rs"]
mod session;
mod talk;
#[path = "../../../../src/smtp/xclient.rs"]
mod xclient;

use crate::mail::{Address, ReversePath};
use body::{BodyReader, Framing};
use command::{Command, ForwardPath};
pub use talk::{MESSAGE_BYTES_MAX, Server, Talk, talk};

/// A command as it was understood.
#[derive(Debug, PartialEq, Eq)]
pub enum Understood {
    /// EHLO, HELO or LHLO, and the name that was given.
    Hello(String),
    /// MAIL: the path, and the parameters as they were written.
    Mail(ReversePath, String),
    /// RCPT: the address, `None` being `<Postmaster>`, and the parameters as they were written.
    Rcpt(Option<Address>, String),
    /// BDAT.
    Bdat { bytes: u64, last: bool },
    /// AUTH: mechanism and initial response.
    Auth(String, Option<String>),
    /// Every other command: its verb.
    Verb(&'static str),
    /// A command that is known and not done, or BDAT without a size.
    NotDone,
    /// What is said instead of doing anything.
    Refused(&'static str),
}

/// Understands a line without its CRLF.
pub fn understood(line: &[u8]) -> Understood {
    match Command::parse(line) {
        Ok(Command::Hello(hello)) => Understood::Hello(hello.name),
        Ok(Command::Mail(path, parameters)) => Understood::Mail(path, parameters),
        Ok(Command::Rcpt(ForwardPath::Address(address), parameters)) => {
            Understood::Rcpt(Some(address), parameters)
        }
        Ok(Command::Rcpt(ForwardPath::Postmaster, parameters)) => {
            Understood::Rcpt(None, parameters)
        }
        Ok(Command::Bdat { bytes, last }) => Understood::Bdat { bytes, last },
        Ok(Command::Auth { mechanism, initial }) => Understood::Auth(mechanism, initial),
        Ok(Command::Data) => Understood::Verb("DATA"),
        Ok(Command::Rset) => Understood::Verb("RSET"),
        Ok(Command::Noop) => Understood::Verb("NOOP"),
        Ok(Command::Vrfy) => Understood::Verb("VRFY"),
        Ok(Command::Help) => Understood::Verb("HELP"),
        Ok(Command::Quit) => Understood::Verb("QUIT"),
        Ok(Command::StartTls) => Understood::Verb("STARTTLS"),
        Ok(_) => Understood::NotDone,
        Err(refusal) => Understood::Refused(refusal.as_str()),
    }
}

/// What was read of a mail.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Octets that were taken for the mail, up to its end and with it.
    pub taken: usize,
    /// The mail.
    pub mail: Vec<u8>,
    /// Whether its end came.
    pub ended: bool,
    /// Whether a bare CR or LF stood in it.
    pub bare_newline: bool,
    /// Whether a NUL did.
    pub nul: bool,
}

/// Reads what follows DATA, piece by piece, until the mail ends.
pub fn read_data<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut reader = BodyReader::new(Framing::Dot);
    let mut read = Read::default();
    for piece in pieces {
        read.taken += reader.read(piece, &mut read.mail);
        if reader.is_at_end() {
            break;
        }
    }
    read.ended = reader.is_at_end();
    seen(read, &reader)
}

/// Reads what follows BDAT: every octet is the mail's.
pub fn read_counted<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Read {
    let mut reader = BodyReader::new(Framing::Count);
    let mut read = Read::default();
    for piece in pieces {
        read.taken += reader.read(piece, &mut read.mail);
    }
    reader.finish(&mut read.mail);
    read.ended = true;
    seen(read, &reader)
}

fn seen(read: Read, reader: &BodyReader) -> Read {
    let defects = reader.defects();
    Read { bare_newline: defects.bare_newline, nul: defects.nul, ..read }
}
