//! What is allowed when, and what a command is answered (RFC 5321 §4.1.4, §4.3.2).

use samotop_core::smtp::DriverControl;

use super::super::auth::Exchange;
use super::super::command::{Command, ForwardPath};
use super::super::parameters::{self, Offered};
use super::super::reply::{self, Canned};
use super::super::service::{Auth, Hello, HelloKind, MailCommand, Peer, Protocol, SessionEnd};
use super::super::xclient;
use super::{Awaiting, Channel, Question, Session, is_over};
use crate::mail::envelope::Recipient;
use crate::mail::{Address, ReversePath};

impl Session {
    pub(super) fn command(&mut self, command: Command) -> Option<Question> {
        if is_idle(&command) && !self.count_idle() {
            return None;
        }
        let canned = match command {
            Command::Hello(hello) => return self.hello(hello),
            Command::Auth { mechanism, initial } => match self.auth_refusal() {
                Some(refusal) => refusal,
                None => {
                    let scram = self.options.scram;
                    let turn = Exchange::begin(&mechanism, initial.as_deref(), scram);
                    return self.exchanged(turn);
                }
            },
            Command::Mail(path, parameters) => match self.mail(path, &parameters) {
                Ok(question) => return Some(question),
                Err(refusal) => refusal,
            },
            Command::Rcpt(path, parameters) => match self.rcpt(path, &parameters) {
                Ok(question) => return Some(question),
                Err(refusal) => refusal,
            },
            Command::Data => match self.data_refusal() {
                Some(refusal) => refusal,
                None => {
                    self.awaiting = Awaiting::Data;
                    return Some(Question::Data);
                }
            },
            Command::Bdat { bytes, last } => return self.bdat(bytes, last),
            // Nobody knows where the next command begins.
            Command::BadBdat => return self.leave(reply::BDAT_SYNTAX, SessionEnd::Refused),
            Command::Rset => {
                self.owe_reset();
                reply::OK
            }
            Command::StartTls => match self.starttls_refusal() {
                Some(refusal) => refusal,
                None => {
                    self.say(reply::READY_FOR_TLS);
                    self.frame.session.say(DriverControl::StartTls);
                    self.halted = true;
                    return None;
                }
            },
            Command::Xclient(said) => match self.xclient(&said) {
                Ok(question) => return Some(question),
                Err(refusal) => refusal,
            },
            Command::Noop => reply::OK,
            Command::Help => reply::HELP,
            Command::Vrfy => reply::CANNOT_VERIFY,
            Command::NotImplemented => reply::NOT_IMPLEMENTED,
            Command::Quit => return self.leave(reply::BYE, SessionEnd::Quit),
            Command::Foreign => return self.leave(reply::NOT_SMTP, SessionEnd::Refused),
        };
        self.say(canned);
        None
    }

    fn hello(&mut self, hello: Hello) -> Option<Question> {
        let fits = match self.options.protocol {
            Protocol::Smtp => hello.kind != HelloKind::Lhlo,
            Protocol::Lmtp => hello.kind == HelloKind::Lhlo,
        };
        if !fits {
            self.say(reply::UNKNOWN_COMMAND);
            return None;
        }
        // RFC 5321 §4.1.4: a new EHLO ends the transaction as RSET does.
        self.owe_reset();
        self.hello = Some(hello.kind);
        let mut lines = vec![self.options.hostname.clone()];
        if hello.kind != HelloKind::Helo {
            lines.extend(self.extensions());
        }
        let last = lines.len().saturating_sub(1);
        for (number, line) in lines.iter().enumerate() {
            let separator = if number == last { ' ' } else { '-' };
            self.write_line(&format!("250{separator}{line}"));
        }
        let [_, second] = &mut self.next;
        *second = Some(Question::Hello(hello));
        None
    }

    fn extensions(&self) -> Vec<String> {
        let mut lines = vec!["PIPELINING".to_owned()];
        lines.push(match self.options.message_bytes_max {
            0 => "SIZE".to_owned(),
            most => format!("SIZE {most}"),
        });
        let always = ["8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "CHUNKING"];
        lines.extend(always.map(str::to_owned));
        if self.options.dsn {
            lines.push("DSN".to_owned());
        }
        let limits: Vec<String> =
            [("RCPTMAX", self.options.recipients_max), ("MAILMAX", self.options.transactions_max)]
                .into_iter()
                // RFC 9422 §4: one to six digits, not 0; what is larger is as good as no limit.
                .filter(|(_, most)| (1..1_000_000).contains(most))
                .map(|(name, most)| format!(" {name}={most}"))
                .collect();
        if !limits.is_empty() {
            lines.push(format!("LIMITS{}", limits.concat()));
        }
        if self.options.xclient {
            lines.push(format!("XCLIENT {}", xclient::ATTRIBUTES.join(" ")));
        }
        if matches!(self.channel, Channel::Plain { starttls: true }) {
            lines.push("STARTTLS".to_owned());
        }
        if self.is_auth_offered() {
            let scram = if self.options.scram { " SCRAM-SHA-256" } else { "" };
            lines.push(format!("AUTH PLAIN LOGIN{scram}"));
        }
        lines
    }

    fn offered(&self) -> Offered {
        Offered { auth: self.is_auth_offered(), dsn: self.options.dsn }
    }

    fn mail(&mut self, path: ReversePath, parameters: &str) -> Result<Question, Canned> {
        if self.hello.is_none() {
            return Err(self.hello_first());
        }
        if self.options.auth == Auth::Required && !self.authenticated {
            let possible = self.is_auth_offered();
            return Err(if possible { reply::AUTH_NEEDED } else { reply::TLS_NEEDED });
        }
        if self.transaction.is_some() {
            return Err(reply::NESTED_MAIL);
        }
        if self.counters.transactions >= self.options.transactions_max {
            return Err(reply::TOO_MANY_MAILS);
        }
        let said = parameters::mail(parameters, self.offered())?;
        if path.address().is_some_and(|address| !address.is_ascii()) && !said.smtputf8 {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        // RFC 1870 §6.1: what is declared too large is refused before it is sent.
        if said.size_bytes.is_some_and(|bytes| is_over(bytes, &self.options)) {
            return Err(reply::TOO_LARGE);
        }
        self.awaiting = Awaiting::Mail { smtputf8: said.smtputf8 };
        Ok(Question::Mail(MailCommand {
            reverse_path: path,
            size_bytes: said.size_bytes,
            body: said.body,
            smtputf8: said.smtputf8,
            dsn: said.dsn,
        }))
    }

    fn rcpt(&mut self, path: ForwardPath, parameters: &str) -> Result<Question, Canned> {
        let transaction = self.transaction.as_ref().ok_or(reply::MAIL_FIRST)?;
        if self.intake.is_some() {
            return Err(reply::BDAT_BEGUN);
        }
        if transaction.accepted >= self.options.recipients_max {
            return Err(reply::TOO_MANY_RECIPIENTS);
        }
        let dsn = parameters::rcpt(parameters, self.offered())?;
        let address = match path {
            ForwardPath::Address(address) => address,
            ForwardPath::Postmaster => {
                Address::parse(&format!("postmaster@{}", self.options.hostname))
                    .map_err(|_e| reply::RECIPIENT_SYNTAX)?
            }
        };
        let original = dsn.original_recipient.as_ref().map_or("", |original| original.as_str());
        let is_ascii = address.is_ascii() && original.is_ascii();
        if !is_ascii && !transaction.smtputf8 {
            return Err(reply::NEEDS_SMTPUTF8);
        }
        self.awaiting = Awaiting::Rcpt;
        Ok(Question::Rcpt(Recipient { dsn, ..Recipient::from(address) }))
    }

    /// XCLIENT, which is no command for those who may not use it.
    fn xclient(&self, said: &str) -> Result<Question, Canned> {
        if !self.options.xclient {
            return Err(reply::UNKNOWN_COMMAND);
        }
        if self.transaction.is_some() {
            return Err(reply::IN_TRANSACTION);
        }
        let before = self.named.as_ref().unwrap_or(&self.peer);
        let named = match xclient::address(said)? {
            Some(address) => Peer { address: Some(address) },
            None => before.clone(),
        };
        // What is trusted is loopback of this host, and not that of another.
        if named.is_local() && !self.peer.is_local() {
            return Err(reply::XCLIENT_LOOPBACK);
        }
        Ok(Question::Introduced(named))
    }

    pub(super) fn data_refusal(&self) -> Option<Canned> {
        match &self.transaction {
            // RFC 3030 §2: one mail comes by DATA or by BDAT.
            Some(_) if self.intake.is_some() => Some(reply::BDAT_BEGUN),
            None => Some(reply::MAIL_FIRST),
            Some(transaction) if transaction.accepted > 0 => None,
            // RFC 2033 §4.2 wants 503 in LMTP; RFC 5321 §3.3 takes either.
            Some(transaction)
                if transaction.refused == 0 || self.options.protocol == Protocol::Lmtp =>
            {
                Some(reply::RCPT_FIRST)
            }
            Some(_) => Some(reply::NO_RECIPIENTS),
        }
    }

    fn starttls_refusal(&self) -> Option<Canned> {
        match self.channel {
            Channel::Tls => Some(reply::TLS_ALREADY),
            Channel::Plain { starttls: false } => Some(reply::NOT_IMPLEMENTED),
            Channel::Plain { .. } if self.transaction.is_some() => Some(reply::IN_TRANSACTION),
            // What came along was not protected, and must not pass for what came in TLS.
            Channel::Plain { .. } if !self.untaken().is_empty() => Some(reply::TLS_PIPELINED),
            Channel::Plain { .. } => None,
        }
    }

    pub(super) fn hello_first(&self) -> Canned {
        match self.options.protocol {
            Protocol::Smtp => reply::HELLO_FIRST,
            Protocol::Lmtp => reply::LHLO_FIRST,
        }
    }
}

/// Whether it is counted until a mail is accepted: a client that sends these and never a mail
/// would hold a connection for ever.
fn is_idle(command: &Command) -> bool {
    matches!(
        command,
        Command::Hello(_)
            | Command::Mail(..)
            | Command::Rset
            | Command::Noop
            | Command::Vrfy
            | Command::Help
            | Command::Xclient(_)
            | Command::NotImplemented
    )
}
