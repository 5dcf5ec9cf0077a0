//! The exchange of AUTH within a session: who may begin one, and what its turns lead to
//! (RFC 4954 §4).

use super::super::auth::{Exchange, Turn};
use super::super::command::{AuthGrammar, LineLimit};
use super::super::reply::{self, Canned};
use super::super::scram;
use super::super::service::{Auth, HelloKind, Peer, ScramChallenge};
use super::{AUTH_MODE, Awaiting, Channel, Line, Question, Session, Step};
use crate::mail::{Reply, base64};

impl Session {
    /// Passwords go over TLS or stay on this host (RFC 4954 §4); whom the peer speaks for must be
    /// on it, too, for the way from there is one that we know nothing of.
    pub(super) fn is_auth_offered(&self) -> bool {
        let is_local = self.peer.is_local() && self.named.as_ref().is_none_or(Peer::is_local);
        self.options.auth != Auth::None && (self.channel == Channel::Tls || is_local)
    }

    pub(super) fn auth_refusal(&self) -> Option<Canned> {
        if self.options.auth == Auth::None {
            Some(reply::NOT_IMPLEMENTED)
        } else if !matches!(self.hello, Some(HelloKind::Ehlo | HelloKind::Lhlo)) {
            Some(self.hello_first())
        } else if !self.is_auth_offered() {
            Some(reply::AUTH_NEEDS_TLS)
        } else if self.authenticated {
            Some(reply::AUTH_ALREADY)
        } else if self.transaction.is_some() {
            Some(reply::IN_TRANSACTION)
        } else {
            None
        }
    }

    pub(super) fn exchange_turn(&mut self) -> Option<Step> {
        let line = self.line(&AuthGrammar, LineLimit::AUTH);
        if matches!(line, Line::Missing) {
            return Some(Step::Read);
        }
        self.frame.session.mode = None;
        match (line, self.exchange.take()) {
            (Line::Read(line), Some(exchange)) => {
                self.exchanged(exchange.line(&line)).map(Step::Ask)
            }
            (Line::Refused(refusal), _) => {
                self.say(refusal);
                None
            }
            (Line::Missing | Line::Read(_), _) => None,
        }
    }

    pub(super) fn exchanged(&mut self, turn: Turn) -> Option<Question> {
        match turn {
            Turn::Challenge(challenge, exchange) => {
                self.ask_client(challenge, exchange);
                None
            }
            Turn::Complete(credentials) => {
                self.awaiting = Awaiting::Authenticate;
                Some(Question::Authenticate(credentials))
            }
            Turn::Begun(first) => {
                let username = first.username.clone();
                self.awaiting = Awaiting::Challenge(Box::new(first));
                Some(Question::Challenge(username))
            }
            Turn::Proof(proof) => {
                self.awaiting = Awaiting::Prove { username: proof.username.clone() };
                Some(Question::Prove(Box::new(proof)))
            }
            Turn::Proved { username } => {
                self.authenticated = true;
                self.say(reply::AUTHENTICATED);
                Some(Question::Proved(username))
            }
            Turn::Refused(refusal) => {
                self.say(refusal);
                None
            }
        }
    }

    /// Takes the service's answer to `Question::Challenge`.
    pub(crate) fn challenged(&mut self, answer: Result<ScramChallenge, Reply>) {
        match (std::mem::replace(&mut self.awaiting, Awaiting::Nothing), answer) {
            (Awaiting::Challenge(first), Ok(challenge)) => {
                let challenged = first.answer(&challenge);
                let said = base64::encode(challenged.said().as_bytes());
                self.ask_client(&said, Exchange::ScramProof(Box::new(challenged)));
            }
            (_, Err(refusal)) => self.refuse(&reply::refusal(refusal)),
            (_, Ok(_)) => {}
        }
    }

    /// Takes the service's answer to `Question::Prove`.
    pub(crate) fn proved(&mut self, answer: Result<[u8; 32], Reply>) {
        match (std::mem::replace(&mut self.awaiting, Awaiting::Nothing), answer) {
            (Awaiting::Prove { username }, Ok(signature)) => {
                let said = base64::encode(scram::server_final(&signature).as_bytes());
                self.ask_client(&said, Exchange::ScramEnd { username });
            }
            (_, Err(refusal)) => self.refuse(&reply::refusal(refusal)),
            (_, Ok(_)) => {}
        }
    }

    /// Sends a challenge, which is in base64, and expects a line of the exchange.
    fn ask_client(&mut self, challenge: &str, exchange: Exchange) {
        self.write_line(&format!("334 {challenge}"));
        self.exchange = Some(exchange);
        self.frame.session.mode = Some(AUTH_MODE);
    }
}
