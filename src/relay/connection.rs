//! Opening a connection to a next hop: greeting, EHLO, TLS, AUTH; and talking through it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use mail_send::SmtpClient;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::extensions::Extensions;
use super::gate::{Gate, Opened};
use super::route::Route;
use super::wire::Wire;
use super::{OutcomeResult, TlsClients};
use crate::config::{self, RelayTls};
use crate::mail::{Reply, Stage, base64};
use crate::net::tls::describe;

/// What a connection is opened to, and how.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    /// The next hop.
    pub(super) route: &'a Route,
    /// How to connect to it.
    pub(super) settings: &'a config::Relay,
    /// Our name in EHLO.
    pub(super) hostname: &'a str,
    /// How TLS is spoken.
    pub(super) tls: &'a TlsClients,
    /// Where the connection is counted.
    pub(super) gate: &'a Gate,
}

/// A connection that is ready for MAIL.
pub(super) struct Connection {
    talk: Talk<Box<dyn Stream>>,
    /// The other side.
    pub(super) peer: Peer,
    /// What it offers.
    pub(super) extensions: Extensions,
    /// Transactions so far.
    pub(super) transactions: u32,
    /// Whether the last transaction was left in the middle, so that RSET must come first.
    pub(super) needs_reset: bool,
    command_limit: Duration,
    _opened: Opened,
}

/// The other side of a connection, as outcomes name it.
#[derive(Clone, Debug, Default)]
pub(super) struct Peer {
    /// `name[ip]:port`.
    pub(super) remote_mta: Option<String>,
    /// The TLS version and cipher.
    pub(super) tls: Option<String>,
}

/// Why no connection could be made ready.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) stage: Stage,
    pub(super) peer: Peer,
    pub(super) result: OutcomeResult,
}

/// TCP with or without TLS.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// What one connection does about TLS, with `Auto` decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TlsMode {
    Required,
    Implicit,
    Opportunistic,
    None,
}

/// A conversation through mail-send's client.
struct Talk<S: Stream> {
    client: SmtpClient<Wire<S>>,
}

/// What a connection is made of once the other side is ready for MAIL.
struct Ready {
    talk: Talk<Box<dyn Stream>>,
    peer: Peer,
    extensions: Extensions,
}

/// A failure before it is known whose connection it ends.
type StageError = (Stage, OutcomeResult);

impl Connection {
    /// Opens a connection, trying the next hop's addresses in order.
    pub(super) async fn open(target: Target<'_>) -> Result<Self, Failure> {
        let opening = target.gate.opening();
        match Self::try_addresses(target).await {
            Ok(ready) => Ok(Self {
                talk: ready.talk,
                peer: ready.peer,
                extensions: ready.extensions,
                transactions: 0,
                needs_reset: false,
                command_limit: Duration::from_secs(target.settings.command_timeout_secs),
                _opened: opening.opened(),
            }),
            Err(failure) => {
                opening.failed(&failure);
                Err(failure)
            }
        }
    }

    /// A further address is tried after any failure before AUTH: credentials that one of them
    /// refuses are wrong for all.
    async fn try_addresses(target: Target<'_>) -> Result<Ready, Failure> {
        let limit = Duration::from_secs(target.settings.connect_timeout_secs);
        let nowhere = |error| Failure {
            stage: Stage::Connect,
            peer: Peer::default(),
            result: OutcomeResult::Error(error),
        };
        let source = target.settings.source_address;
        let addresses = target.route.resolve(source, limit).await.map_err(nowhere)?;
        let mut last = None;
        for address in addresses {
            match Box::pin(Self::open_at(target, address)).await {
                Err(failure) if failure.stage != Stage::Auth => last = Some(failure),
                decided => return decided,
            }
        }
        Err(last.unwrap_or_else(|| nowhere(format!("{} has no address", target.route))))
    }

    async fn open_at(target: Target<'_>, address: SocketAddr) -> Result<Ready, Failure> {
        let mode = TlsMode::of(target.settings.tls, address.ip());
        match Self::dial(target, address, mode).await {
            // RFC 7435: a handshake that fails is no reason to give up what is sent in the clear
            // to whoever offers no TLS at all.
            Err(failure) if failure.stage == Stage::Tls && mode == TlsMode::Opportunistic => {
                let failure = &failure.result;
                tracing::warn!(%address, %failure, "TLS failed; going on without");
                Self::dial(target, address, TlsMode::None).await
            }
            decided => decided,
        }
    }

    async fn dial(
        target: Target<'_>,
        address: SocketAddr,
        mode: TlsMode,
    ) -> Result<Ready, Failure> {
        let mut peer = Peer {
            remote_mta: Some(format!("{}[{}]:{}", target.route.host, address.ip(), address.port())),
            tls: None,
        };
        match Self::converse(target, address, mode, &mut peer).await {
            Ok((talk, extensions)) => Ok(Ready { talk, peer, extensions }),
            Err((stage, result)) => Err(Failure { stage, peer, result }),
        }
    }

    async fn converse(
        target: Target<'_>,
        address: SocketAddr,
        mode: TlsMode,
        peer: &mut Peer,
    ) -> Result<(Talk<Box<dyn Stream>>, Extensions), StageError> {
        let mut client = connect(target.settings, address).await?;
        client.timeout = Duration::from_secs(target.settings.command_timeout_secs);
        let mut talk;
        let mut extensions;
        if mode == TlsMode::Implicit {
            talk = handshake(client, target, mode, peer).await?;
            talk.greeting().await?;
            extensions = talk.hello(target.hostname).await?;
        } else {
            let mut plain = Talk::new(client);
            plain.greeting().await?;
            extensions = plain.hello(target.hostname).await?;
            if plain.starts_tls(mode, &extensions).await? {
                talk = handshake(plain.into_client()?, target, mode, peer).await?;
                // RFC 3207 §4.2: everything learnt before TLS is forgotten.
                extensions = talk.hello(target.hostname).await?;
            } else {
                talk = plain.boxed();
            }
        }
        if !target.settings.username.is_empty() {
            let private = peer.tls.is_some() || address.ip().is_loopback();
            talk.authenticate(target.settings, &extensions, private).await?;
        }
        Ok((talk, extensions))
    }

    /// Writes commands, which the next hop has not been asked to answer yet.
    pub(super) async fn send(&mut self, octets: &[u8], limit: Duration) -> Result<(), String> {
        self.talk.send(octets, limit).await
    }

    /// Reads one reply.
    pub(super) async fn reply(&mut self, limit: Duration) -> Result<Reply, String> {
        self.talk.reply(limit).await
    }

    /// Whether nothing has come that was not asked for.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.talk.client.stream.is_quiet()
    }

    /// Makes a used connection ready for the next mail; false when it is of no more use.
    pub(super) async fn make_ready(&mut self) -> bool {
        if !self.is_quiet() {
            return false;
        }
        if !self.needs_reset {
            return true;
        }
        self.talk.client.timeout = self.command_limit.min(RESET_TIMEOUT);
        let done = self.talk.command("RSET\r\n").await.is_ok_and(|reply| reply.is_positive());
        self.talk.client.timeout = self.command_limit;
        self.needs_reset = !done;
        done
    }

    /// Takes leave (RFC 5321 §4.1.1.10); what is answered does not matter any more.
    pub(super) async fn quit(mut self) {
        self.talk.client.timeout = QUIT_TIMEOUT;
        if let Err(error) = self.talk.command("QUIT\r\n").await {
            tracing::debug!(relay = ?self.peer.remote_mta, error, "QUIT was not answered");
        }
    }
}

impl TlsMode {
    fn of(setting: RelayTls, address: IpAddr) -> Self {
        match setting {
            RelayTls::Auto if address.to_canonical().is_loopback() => Self::Opportunistic,
            RelayTls::Auto | RelayTls::Required => Self::Required,
            RelayTls::Implicit => Self::Implicit,
            RelayTls::Opportunistic => Self::Opportunistic,
            RelayTls::None => Self::None,
        }
    }
}

impl<S: Stream + 'static> Talk<S> {
    fn new(client: SmtpClient<S>) -> Self {
        let SmtpClient { stream, timeout } = client;
        Self { client: SmtpClient { stream: Wire::new(stream), timeout } }
    }

    fn boxed(self) -> Talk<Box<dyn Stream>> {
        let SmtpClient { stream, timeout } = self.client;
        Talk { client: SmtpClient { stream: stream.boxed(), timeout } }
    }
}

impl<S: Stream> Talk<S> {
    /// Sends a command and reads its reply, within the client's time limit.
    async fn command(&mut self, line: &str) -> Result<Reply, String> {
        match self.client.cmd(line).await {
            Ok(_code) => self.last_reply(),
            Err(error) => Err(explain(&error, self.client.timeout)),
        }
    }

    async fn send(&mut self, octets: &[u8], limit: Duration) -> Result<(), String> {
        let write = async {
            self.client.stream.write_all(octets).await?;
            self.client.stream.flush().await
        };
        match tokio::time::timeout(limit, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("sending failed: {error}")),
            Err(_) => Err(format!("it took nothing for {} s", limit.as_secs())),
        }
    }

    async fn reply(&mut self, limit: Duration) -> Result<Reply, String> {
        match tokio::time::timeout(limit, self.client.read()).await {
            Ok(Ok(_code)) => self.last_reply(),
            Ok(Err(error)) => Err(explain(&error, limit)),
            Err(_) => Err(explain(&mail_send::Error::Timeout, limit)),
        }
    }

    fn last_reply(&mut self) -> Result<Reply, String> {
        self.client.stream.take_reply().ok_or_else(|| "it gave no reply".to_owned())
    }

    async fn greeting(&mut self) -> Result<(), StageError> {
        let limit = self.client.timeout;
        let reply = self.reply(limit).await.map_err(|error| failed(Stage::Greeting, error))?;
        if reply.is_positive() { Ok(()) } else { Err(refused(Stage::Greeting, reply)) }
    }

    /// EHLO, and HELO where EHLO is not known (RFC 5321 §3.2).
    async fn hello(&mut self, hostname: &str) -> Result<Extensions, StageError> {
        let fail = |error| failed(Stage::Greeting, error);
        let reply = self.command(&format!("EHLO {hostname}\r\n")).await.map_err(fail)?;
        if reply.is_positive() {
            return Ok(Extensions::of_ehlo(&reply.text));
        }
        if !reply.is_permanent() {
            return Err(refused(Stage::Greeting, reply));
        }
        let reply = self.command(&format!("HELO {hostname}\r\n")).await.map_err(fail)?;
        if reply.is_positive() {
            Ok(Extensions::default())
        } else {
            Err(refused(Stage::Greeting, reply))
        }
    }

    /// Asks for TLS where the mode wants it; whether the handshake follows.
    async fn starts_tls(
        &mut self,
        mode: TlsMode,
        offered: &Extensions,
    ) -> Result<bool, StageError> {
        match (mode, offered.starttls) {
            (TlsMode::None | TlsMode::Implicit, _) | (TlsMode::Opportunistic, false) => Ok(false),
            (TlsMode::Required, false) => {
                Err(failed(Stage::Tls, "TLS is required, and it does not offer STARTTLS".into()))
            }
            (TlsMode::Required | TlsMode::Opportunistic, true) => {
                let reply = self.command("STARTTLS\r\n").await;
                let reply = reply.map_err(|error| failed(Stage::Tls, error))?;
                match mode {
                    _ if reply.code == 220 => Ok(true),
                    TlsMode::Opportunistic => Ok(false),
                    _ => Err(refused(Stage::Tls, reply)),
                }
            }
        }
    }

    /// RFC 4954, with PLAIN (RFC 4616) before LOGIN.
    async fn authenticate(
        &mut self,
        settings: &config::Relay,
        offered: &Extensions,
        private: bool,
    ) -> Result<(), StageError> {
        let fail = |error| failed(Stage::Auth, error);
        // The settings refuse `tls = "none"` with a password to another machine, so what is left
        // here is a next hop that TLS was not required of and that offered none.
        if !private {
            return Err(fail("the password is not sent without TLS".to_owned()));
        }
        let (user, password) = (settings.username.as_bytes(), settings.password.as_bytes());
        let steps = if offered.auth_plain {
            let secret = [b"\0", user, b"\0", password].concat();
            vec![format!("AUTH PLAIN {}\r\n", base64::encode(&secret))]
        } else if offered.auth_login {
            let step = |octets| format!("{}\r\n", base64::encode(octets));
            vec!["AUTH LOGIN\r\n".to_owned(), step(user), step(password)]
        } else {
            return Err(fail("it offers neither AUTH PLAIN nor AUTH LOGIN".to_owned()));
        };
        let last = steps.len().saturating_sub(1);
        for (number, step) in steps.iter().enumerate() {
            let reply = self.command(step).await.map_err(fail)?;
            let wanted = if number == last { 235 } else { 334 };
            if reply.code != wanted {
                return Err(refused(Stage::Auth, reply));
            }
        }
        Ok(())
    }
}

impl Talk<TcpStream> {
    /// The client for the TLS handshake. What the next hop has sent behind its reply to STARTTLS
    /// was not protected, and somebody else may have put it there.
    fn into_client(self) -> Result<SmtpClient<TcpStream>, StageError> {
        let SmtpClient { stream, timeout } = self.client;
        let injected = || failed(Stage::Tls, "it sent more before TLS than it was asked".into());
        Ok(SmtpClient { stream: stream.into_stream().ok_or_else(injected)?, timeout })
    }
}

/// What a conversation makes of a reply: only 4yz and 5yz refuse; anything else here is a next
/// hop that does not keep to the protocol.
pub(super) fn refusal(stage: Stage, reply: Reply) -> OutcomeResult {
    if reply.is_transient() || reply.is_permanent() {
        OutcomeResult::Reply(reply)
    } else {
        OutcomeResult::Error(format!("it answered {} with {reply}", stage.command()))
    }
}

async fn connect(
    settings: &config::Relay,
    address: SocketAddr,
) -> Result<SmtpClient<TcpStream>, StageError> {
    let limit = Duration::from_secs(settings.connect_timeout_secs);
    let connected = match settings.source_address {
        Some(source) => SmtpClient::connect_using(source, address, limit).await,
        None => SmtpClient::connect(address, limit).await,
    };
    let client = connected.map_err(|error| failed(Stage::Connect, explain(&error, limit)))?;
    // A mail's last octets are not to wait for the acknowledgement of those before them.
    client.stream.set_nodelay(true).map_err(|error| failed(Stage::Connect, error.to_string()))?;
    Ok(client)
}

async fn handshake(
    client: SmtpClient<TcpStream>,
    target: Target<'_>,
    mode: TlsMode,
    peer: &mut Peer,
) -> Result<Talk<Box<dyn Stream>>, StageError> {
    // Whoever may go without TLS at all gains nothing from a certificate that is checked.
    let verify = target.settings.tls_verify && mode != TlsMode::Opportunistic;
    let tls = match (verify, &target.tls.verified) {
        (false, _) => &target.tls.unverified,
        (true, Some(verified)) => verified,
        (true, None) => {
            let text = "its certificate cannot be checked: a name of loopback leads elsewhere";
            return Err(failed(Stage::Tls, text.to_owned()));
        }
    };
    let limit = client.timeout;
    let name = target.route.host.strip_suffix('.').unwrap_or(&target.route.host);
    let client = Box::pin(client.into_tls(tls.connector(), name)).await;
    let client = client.map_err(|error| failed(Stage::Tls, explain(&error, limit)))?;
    peer.tls = Some(describe(client.tls_connection()));
    Ok(Talk::new(client).boxed())
}

fn failed(stage: Stage, error: String) -> StageError {
    (stage, OutcomeResult::Error(error))
}

fn refused(stage: Stage, reply: Reply) -> StageError {
    (stage, refusal(stage, reply))
}

/// Our words for what went wrong below a conversation.
fn explain(error: &mail_send::Error, limit: Duration) -> String {
    match error {
        mail_send::Error::Io(error) => error.to_string(),
        mail_send::Error::Tls(error) => format!("TLS failed: {error}"),
        mail_send::Error::Timeout => format!("it did not answer within {} s", limit.as_secs()),
        other => other.to_string(),
    }
}

/// A connection that was left in the middle is worth no longer wait than this.
const RESET_TIMEOUT: Duration = Duration::from_secs(20);
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
