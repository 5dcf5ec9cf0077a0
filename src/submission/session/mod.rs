//! One connection of an app: the service behind the SMTP engine.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::checks::Checks;
use super::door::{Accepted, Door, Intake, Offer};
use super::guards::Guards;
use super::policy::{self, Admission, WithoutAuth};
use super::stamp::Protocol;
use super::verify::{Verified, Verifier};
use crate::config::{BareNewline, Network, Settings};
use crate::mail::envelope::Recipient;
use crate::mail::{Address, EnhancedStatus, Envelope, Reply, ReversePath};
use crate::maillog::{self, Line};
use crate::smtp::{
    Auth, Hello, HelloKind, MailCommand, Peer, ScramChallenge, ScramProof, Service, SessionOptions,
};
use crate::store::record::Control;

/// What one connection knows.
pub struct Session {
    settings: Arc<Settings>,
    door: Door,
    guards: Guards,
    peer: Peer,
    admission: Admission,
    hello: Option<Hello>,
    has_tls: bool,
    /// The account that has authenticated.
    account: Option<String>,
    mail: Option<MailCommand>,
    recipients: Vec<Recipient>,
    intake: Option<Intake>,
}

impl Session {
    /// A connection from `peer`, judged by `settings` to its end.
    pub fn new(settings: Arc<Settings>, door: Door, guards: Guards, peer: Peer) -> Self {
        let submission = &settings.submission;
        let admission =
            policy::admission(submission.auth, &submission.trusted_networks, peer.address);
        Self {
            settings,
            door,
            guards,
            peer,
            admission,
            hello: None,
            has_tls: false,
            account: None,
            mail: None,
            recipients: Vec::new(),
            intake: None,
        }
    }

    /// What the engine must know to serve this connection.
    pub fn options(&self) -> SessionOptions {
        let submission = &self.settings.submission;
        SessionOptions {
            hostname: self.settings.hostname.clone(),
            protocol: crate::smtp::Protocol::Smtp,
            auth: self.admission.auth,
            scram: Verifier::offers_scram(&self.settings),
            xclient: Network::any_contains(&submission.xclient_networks, self.peer.address),
            message_bytes_max: submission.message_bytes_max,
            recipients_max: submission.recipients_max,
            transactions_max: submission.transactions_max,
            errors_max: submission.errors_max,
            recipients_are_errors: false,
            idle_commands_max: submission.idle_commands_max,
            command_timeout: Duration::from_secs(submission.command_timeout_secs),
            data_timeout: Duration::from_secs(submission.data_timeout_secs),
            message_timeout: Duration::from_secs(submission.message_timeout_secs),
            write_timeout: Duration::from_secs(submission.command_timeout_secs),
            dsn: true,
            bare_newline: match submission.bare_newline {
                BareNewline::Refuse => crate::smtp::BareNewline::Refuse,
                BareNewline::Normalize => crate::smtp::BareNewline::Normalize,
            },
        }
    }

    /// The account that mails of this connection belong to.
    fn account_name(&self) -> &str {
        self.account.as_deref().unwrap_or(DEFAULT_ACCOUNT)
    }

    /// Whether a mail may come from `reverse_path` now.
    fn check_sender(&self, mail: &MailCommand) -> Result<(), Reply> {
        if self.account.is_none() && self.admission.without_auth == WithoutAuth::Refused {
            return Err(Reply::new(530, NOT_ALLOWED, "authentication required"));
        }
        self.checks().sender(&mail.reverse_path, mail.size_bytes.unwrap_or_default())
    }

    fn checks(&self) -> Checks<'_> {
        Checks {
            settings: &self.settings,
            door: &self.door,
            guards: &self.guards,
            account: self.account_name(),
        }
    }

    fn log_rejected(&self, from: Option<&ReversePath>, to: Option<&Address>, reply: &Reply) {
        self.door.metrics().message_rejected("submission");
        let (from, text) = (from.map(ReversePath::to_string), reply.to_string());
        maillog::rejected(&Line {
            account: Some(self.account_name()),
            from: from.as_deref(),
            to: to.map(Address::as_str),
            status: reply.status,
            reply: Some(&text),
            client: Some(&self.peer.to_string()),
            ..Line::default()
        });
    }

    fn check_ban(&self) -> Result<(), Reply> {
        self.guards.check_ban(&self.settings, self.peer.address, self.door.now())
    }

    /// The peer knows a password; it may have been banned while that was checked.
    fn auth_succeeded(&self) -> Result<(), Reply> {
        self.check_ban()?;
        self.guards.auth_succeeded(self.peer.address);
        Ok(())
    }

    /// What the client gets for a wrong password, or a wrong proof of one, that it gave at `began`.
    async fn auth_failed(&self, username: &str, began: Instant) -> Reply {
        self.door.metrics().auth_failed();
        if self.guards.auth_failed(&self.settings, self.peer.address, self.door.now()) {
            self.door.metrics().address_banned();
            let (client, secs) = (&self.peer, self.settings.submission.auth_ban_secs);
            tracing::warn!(%client, secs, "an address is banned for failed authentications");
        }
        maillog::rejected(&Line {
            account: Some(username),
            client: Some(&self.peer.to_string()),
            status: Some(AUTH_FAILED),
            reason: Some("wrong user name or password"),
            ..Line::default()
        });
        tokio::time::sleep_until(began + AUTH_FAILED_DELAY).await;
        Reply::new(535, AUTH_FAILED, "wrong user name or password")
    }

    fn offer(&self, mail: &MailCommand) -> Offer {
        let protocol = match self.hello.as_ref().map(|hello| hello.kind) {
            Some(HelloKind::Ehlo | HelloKind::Lhlo) => Protocol::Esmtp {
                tls: self.has_tls,
                auth: self.account.is_some(),
                utf8: mail.smtputf8,
            },
            Some(HelloKind::Helo) | None => Protocol::Smtp,
        };
        Offer {
            settings: self.settings.clone(),
            account: self.account_name().to_owned(),
            envelope: Envelope {
                reverse_path: mail.reverse_path.clone(),
                recipients: self.recipients.clone(),
                body: mail.body,
                smtputf8: mail.smtputf8,
                dsn: mail.dsn.clone(),
            },
            helo: self.hello.as_ref().map(|hello| hello.name.clone()),
            peer: self.peer.address,
            protocol,
            control: Control::default(),
        }
    }
}

impl Service for Session {
    fn hello(&mut self, hello: &Hello) {
        self.hello = Some(hello.clone());
    }

    fn secured(&mut self, _tls: &str) {
        self.has_tls = true;
        self.hello = None;
        self.account = None;
        self.reset();
    }

    fn introduced(&mut self, peer: &Peer) -> Auth {
        let submission = &self.settings.submission;
        self.admission =
            policy::admission(submission.auth, &submission.trusted_networks, peer.address);
        self.peer = peer.clone();
        self.hello = None;
        self.account = None;
        self.reset();
        self.admission.auth
    }

    async fn authenticate(&mut self, username: &str, password: &[u8]) -> Result<(), Reply> {
        self.check_ban()?;
        let began = Instant::now();
        match self.guards.verifier.verify(&self.settings, username, password).await {
            Verified::Right => {
                self.auth_succeeded()?;
                self.account = Some(username.to_owned());
                Ok(())
            }
            Verified::Busy => Err(auth_unavailable()),
            Verified::Wrong => Err(self.auth_failed(username, began).await),
        }
    }

    async fn challenge(&mut self, username: &str) -> Result<ScramChallenge, Reply> {
        self.check_ban()?;
        self.guards.verifier.challenge(&self.settings, username).ok_or_else(auth_unavailable)
    }

    async fn prove(&mut self, proof: &ScramProof) -> Result<[u8; 32], Reply> {
        self.check_ban()?;
        let began = Instant::now();
        match self.guards.verifier.prove(&self.settings, proof) {
            Some(signature) => self.auth_succeeded().map(|()| signature),
            None => Err(self.auth_failed(&proof.username, began).await),
        }
    }

    fn proved(&mut self, username: &str) {
        self.account = Some(username.to_owned());
    }

    async fn mail(&mut self, mail: &MailCommand) -> Result<(), Reply> {
        self.reset();
        let checked = self.check_sender(mail).and_then(|()| self.checks().count_message());
        match &checked {
            Ok(()) => self.mail = Some(mail.clone()),
            Err(reply) => self.log_rejected(Some(&mail.reverse_path), None, reply),
        }
        checked
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        // Named twice it still gets the mail once (RFC 5321 §4.1.1.3 leaves that to us).
        // What the first RCPT asked of reports holds.
        if self.recipients.iter().any(|known| known.address == recipient.address) {
            return Ok(());
        }
        let address = &recipient.address;
        let suppressed = self.door.suppressed(&self.settings, self.account_name(), address);
        let counted = suppressed.map_or_else(|| self.checks().count_recipient(), Err);
        match &counted {
            Ok(()) => self.recipients.push(recipient.clone()),
            Err(reply) => {
                let from = self.mail.as_ref().map(|mail| &mail.reverse_path);
                self.log_rejected(from, Some(&recipient.address), reply);
            }
        }
        counted
    }

    async fn data(&mut self) -> Result<(), Reply> {
        let Some(mail) = &self.mail else {
            return Err(bad_sequence());
        };
        self.intake = Some(self.door.begin(self.offer(mail)));
        Ok(())
    }

    async fn chunk(&mut self, octets: &[u8]) -> Result<(), Reply> {
        let Some(intake) = &mut self.intake else {
            return Err(bad_sequence());
        };
        intake.write(octets).await.map_err(|refusal| refusal.reply())
    }

    async fn end(&mut self) -> Vec<Reply> {
        let Some(intake) = self.intake.take() else {
            return vec![bad_sequence()];
        };
        let result = intake.finish().await;
        self.reset();
        vec![result.map_or_else(|refusal| refusal.reply(), |accepted| queued_reply(&accepted))]
    }

    fn reset(&mut self) {
        self.mail = None;
        self.recipients.clear();
        self.intake = None;
    }
}

/// `250 2.0.0 Ok: queued as <queue id> <message-id>`.
fn queued_reply(accepted: &Accepted) -> Reply {
    let Accepted { queue_id, message_id, .. } = accepted;
    let with_id = format!("Ok: queued as {queue_id} {message_id}");
    // RFC 5321 §4.5.3.1.5; what is not ASCII needs more than this client may have (RFC 6531 §3.7).
    let fits = with_id.len() <= REPLY_TEXT_BYTES_MAX && with_id.is_ascii();
    let text = if fits { with_id } else { format!("Ok: queued as {queue_id}") };
    Reply::new(250, EnhancedStatus::new(2, 0, 0), text)
}

fn auth_unavailable() -> Reply {
    Reply::new(454, AUTH_UNAVAILABLE, "cannot authenticate now")
}

fn bad_sequence() -> Reply {
    Reply::new(503, EnhancedStatus::new(5, 5, 1), "bad sequence of commands")
}

/// Whose mails are that come without AUTH.
pub const DEFAULT_ACCOUNT: &str = "default";
/// How long the answer to a wrong password takes. Checking it is part of that, so that it does not
/// show how an account's password is kept, or that there is none.
const AUTH_FAILED_DELAY: Duration = Duration::from_secs(2);
/// 512 octets less `250 2.0.0 ` and CRLF (RFC 5321 §4.5.3.1.5).
const REPLY_TEXT_BYTES_MAX: usize = 500;
const NOT_ALLOWED: EnhancedStatus = EnhancedStatus::new(5, 7, 1);
const AUTH_FAILED: EnhancedStatus = EnhancedStatus::new(5, 7, 8);
const AUTH_UNAVAILABLE: EnhancedStatus = EnhancedStatus::new(4, 7, 0);

#[cfg(test)]
mod tests;
