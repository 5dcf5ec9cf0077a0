//! From a mailbox's settings to a session that is logged in: address, TLS, greeting, login.

use std::time::Duration;

use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::error::ImapError;
use super::oauth2::Tokens;
use super::response::{Malformed, Status, for_people};
use super::session::{Ended, Session, Step, quoted};
use super::wire::{Stream, Wire};
use crate::config::{Mailbox, MailboxAuth, MailboxTls, read_secret};
use crate::mail::base64;
use crate::net::tls::{ClientTls, Verify};

/// Opens a connection and logs in; a token that is refused is asked for anew once.
pub(super) async fn log_in(
    mailbox: &Mailbox,
    tokens: Option<&mut Tokens>,
) -> Result<Session, ImapError> {
    let Some(tokens) = tokens else { return open(mailbox, &Login::password(mailbox)?).await };
    let login = Login::token(mailbox, tokens.access_token().await.map_err(ImapError::Token)?);
    match open(mailbox, &login).await {
        Err(ImapError::PeerRefusedLogin(_)) => {
            tokens.forget();
            let token = tokens.access_token().await.map_err(ImapError::Token)?;
            open(mailbox, &Login::token(mailbox, token)).await
        }
        opened => opened,
    }
}

/// What is said to log in.
enum Login<'a> {
    Password { user: &'a str, password: String },
    Token { mailbox: &'a Mailbox, token: String },
}

impl<'a> Login<'a> {
    /// With the password as it is now: it may have been changed in its file.
    fn password(mailbox: &'a Mailbox) -> Result<Self, ImapError> {
        let file = &mailbox.password_file;
        let password = match file.as_os_str().is_empty() {
            true => mailbox.password.clone(),
            false => {
                read_secret(file).map_err(|error| ImapError::ConfigSecret(file.clone(), error))?
            }
        };
        Ok(Self::Password { user: &mailbox.username, password })
    }

    fn token(mailbox: &'a Mailbox, token: String) -> Self {
        Self::Token { mailbox, token }
    }

    /// The SASL mechanism, what it says first, and what it answers to being refused.
    fn sasl(&self) -> (&'static str, String, &'static str) {
        match self {
            // RFC 4616.
            Self::Password { user, password } => ("PLAIN", format!("\0{user}\0{password}"), ""),
            Self::Token { mailbox, token } if mailbox.auth == MailboxAuth::Xoauth2 => {
                ("XOAUTH2", format!("user={}\x01auth=Bearer {token}\x01\x01", mailbox.username), "")
            }
            // RFC 7628 §3.1; `=` and `,` of a name are escaped as RFC 5801 §4 has it.
            Self::Token { mailbox, token } => (
                "OAUTHBEARER",
                format!(
                    "n,a={},\x01host={}\x01port={}\x01auth=Bearer {token}\x01\x01",
                    mailbox.username.replace('=', "=3D").replace(',', "=2C"),
                    mailbox.host,
                    mailbox.port(),
                ),
                "AQ==",
            ),
        }
    }
}

/// Opens a connection, trying the server's addresses in order, and logs in.
async fn open(mailbox: &Mailbox, login: &Login<'_>) -> Result<Session, ImapError> {
    let limit = Duration::from_secs(mailbox.command_timeout_secs);
    let (mut session, is_logged_in) = greet(mailbox, limit).await?;
    if is_logged_in {
        session.capability().await?;
        return Ok(session);
    }
    if session.capabilities.is_empty() {
        session.capability().await?;
    }
    let (mechanism, words, on_refusal) = login.sasl();
    let offers = session.capabilities.has(&format!("AUTH={mechanism}"));
    let ended = match login {
        Login::Password { user, password } if !offers => {
            if session.capabilities.has("LOGINDISABLED") {
                return Err(ImapError::PeerOffer("any login with a password"));
            }
            login_plainly(&mut session, user, password).await?
        }
        Login::Token { .. } if !offers => return Err(ImapError::PeerOffer(mechanism)),
        _ => authenticate(&mut session, mechanism, &words, on_refusal).await?,
    };
    match ended.status {
        Status::Ok => {}
        // RFC 5530 §3: the server cannot tell now whether the login is good.
        _ if ["UNAVAILABLE", "INUSE", "LIMIT"].iter().any(|code| ended.code == *code) => {
            return Err(ImapError::PeerRefused { doing: "logging in", text: ended.words() });
        }
        _ => return Err(ImapError::PeerRefusedLogin(ended.words())),
    }
    session.capability().await?;
    Ok(session)
}

/// Connects and reads the greeting, TLS begun; whether nobody needs to log in.
async fn greet(mailbox: &Mailbox, limit: Duration) -> Result<(Session, bool), ImapError> {
    let server = format!("{}:{}", mailbox.host, mailbox.port());
    let doing = |what: &str| format!("{what} {server}");
    let failed = |what: &str, source| ImapError::Connect { doing: doing(what), source };
    let dialled = dial(mailbox).await.map_err(|error| failed("connecting to", error))?;
    let stream: Box<dyn Stream> = Box::new(dialled);
    if mailbox.tls == MailboxTls::None {
        return greeted(stream, limit).await;
    }
    let path = &mailbox.tls_ca_file;
    let ca_file = (!path.as_os_str().is_empty()).then_some(path.as_path());
    let tls = ClientTls::new(Verify::Yes, ca_file).map_err(ImapError::ConfigTls)?;
    let stream = match mailbox.tls {
        MailboxTls::Starttls => start_tls(stream, limit).await?,
        MailboxTls::Implicit | MailboxTls::None => stream,
    };
    let secured = tls.connect(&mailbox.host, stream).await;
    let (stream, _) = secured.map_err(|error| failed("beginning TLS with", error))?;
    match mailbox.tls {
        // There is no second greeting.
        MailboxTls::Starttls => Ok((Session::new(Wire::new(Box::new(stream)), limit), false)),
        MailboxTls::Implicit | MailboxTls::None => greeted(Box::new(stream), limit).await,
    }
}

async fn greeted(stream: Box<dyn Stream>, limit: Duration) -> Result<(Session, bool), ImapError> {
    let mut session = Session::new(Wire::new(stream), limit);
    let is_logged_in = session.greeting().await?;
    Ok((session, is_logged_in))
}

/// Opens a TCP connection to the first address that answers.
async fn dial(mailbox: &Mailbox) -> std::io::Result<TcpStream> {
    let limit = Duration::from_secs(mailbox.connect_timeout_secs);
    let addresses = timeout(limit, lookup_host((mailbox.host.as_str(), mailbox.port()))).await??;
    let mut last = std::io::Error::other("the name has no address");
    for address in addresses.take(ADDRESSES_MAX) {
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(error)) => last = error,
            Err(elapsed) => last = elapsed.into(),
        }
    }
    Err(last)
}

/// Has the server begin TLS, or ends the matter: nothing is ever said in the clear instead.
async fn start_tls(stream: Box<dyn Stream>, limit: Duration) -> Result<Box<dyn Stream>, ImapError> {
    let (mut session, _) = greeted(stream, limit).await?;
    if session.capabilities.is_empty() {
        session.capability().await?;
    }
    if !session.capabilities.has("STARTTLS") {
        return Err(ImapError::PeerOffer("STARTTLS"));
    }
    session.must("beginning TLS", "STARTTLS", &mut |_| {}).await?;
    let early = ImapError::PeerMalformed("something was said between STARTTLS and TLS");
    session.wire.into_stream().ok_or(early)
}

/// LOGIN; a name or password that no quoted string can hold goes as literals.
async fn login_plainly(
    session: &mut Session,
    user: &str,
    password: &str,
) -> Result<Ended, ImapError> {
    let tag = session.next_tag();
    let doing = "logging in";
    if let (Ok(user), Ok(password)) = (quoted(user), quoted(password)) {
        let line = format!("{tag} LOGIN {user} {password}\r\n");
        return match session.begin(doing, &tag, &line, &mut |_| {}).await? {
            Step::Ended(ended) => Ok(ended),
            Step::Continue(_) => Err(Malformed("more is asked for than a login needs").into()),
        };
    }
    let mut line = format!("{tag} LOGIN {{{}}}\r\n", user.len());
    for rest in [format!("{user} {{{}}}\r\n", password.len()), format!("{password}\r\n")] {
        match session.begin(doing, &tag, &line, &mut |_| {}).await? {
            Step::Continue(_) => line = rest,
            Step::Ended(ended) => return Ok(ended),
        }
    }
    match session.begin(doing, &tag, &line, &mut |_| {}).await? {
        Step::Ended(ended) => Ok(ended),
        Step::Continue(_) => Err(Malformed("more is asked for than a login needs").into()),
    }
}

/// AUTHENTICATE with what is said first, at once where the server takes it (RFC 4959). A server
/// that refuses may first say why, and is answered before it ends the command.
async fn authenticate(
    session: &mut Session,
    mechanism: &str,
    words: &str,
    on_refusal: &str,
) -> Result<Ended, ImapError> {
    let tag = session.next_tag();
    let doing = "logging in";
    let first = format!("{}\r\n", base64::encode(words.as_bytes()));
    let at_once = session.capabilities.has("SASL-IR");
    let mut line = match at_once {
        true => format!("{tag} AUTHENTICATE {mechanism} {first}"),
        false => format!("{tag} AUTHENTICATE {mechanism}\r\n"),
    };
    let mut rest = if at_once { None } else { Some(first) };
    let mut reason = None;
    for _ in 0..CHALLENGES_MAX {
        match session.begin(doing, &tag, &line, &mut |_| {}).await? {
            Step::Continue(challenge) => {
                line = rest.take().unwrap_or_else(|| {
                    reason = base64::decode(&challenge).map(|octets| for_people(&octets));
                    format!("{on_refusal}\r\n")
                });
            }
            Step::Ended(mut ended) => {
                if let Some(reason) = reason.filter(|_| ended.status != Status::Ok) {
                    ended.text = format!("{} {reason}", ended.text);
                }
                return Ok(ended);
            }
        }
    }
    Err(Malformed("the server does not come to an end with the login").into())
}

/// Addresses of one server that are tried.
const ADDRESSES_MAX: usize = 5;
/// Challenges in one login.
const CHALLENGES_MAX: usize = 4;
