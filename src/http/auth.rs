//! Tokens: who may ask for what.
//!
//! A token is 256 random bits, so its SHA-256 is kept: a slow hash protects what people choose,
//! and nothing here is chosen. The file is re-read when it changes; a revoked token is dead at
//! the next request.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::mail::Timestamp;
use crate::secret::{constant_time_eq, create_private, random_bytes, sha256_hex};

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// Look-ups.
    Read,
    /// Submitting mail.
    Submit,
    /// Changing what is there.
    Admin,
}

/// A token as the file keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What the operator calls it.
    pub name: String,
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// When it was made.
    pub created: String,
    /// SHA-256 of the token, in hexadecimal.
    hash: String,
}

/// The tokens file: one line `name scopes created sha256` for each token.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
}

/// Why the tokens file could not be used.
#[derive(Debug)]
pub enum TokenError {
    /// Reading or writing it failed.
    Io(PathBuf, io::Error),
    /// A line is not of the form `name scopes created sha256`.
    Line(PathBuf, usize),
    /// There is a token of that name.
    Exists(String),
    /// There is no token of that name.
    Unknown(String),
    /// A name is 1 to 64 letters, digits, `-`, `_` and `.`.
    Name(String),
    /// The system gave no random octets.
    Random(Box<dyn std::error::Error + Send + Sync>),
}

/// Who may ask without a token, and which tokens there are.
#[derive(Debug)]
pub struct Auth {
    file: TokenFile,
    policy: Policy,
    cached: Mutex<Cached>,
}

/// Whether tokens are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// They are; without any in the file, loopback may read without one.
    Tokens,
    /// Any token is good and none is needed: `rebound dev`.
    AnyToken,
}

/// Why somebody may not ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A token is needed and none was given.
    NoToken,
    /// No token is configured, so that only loopback may ask.
    NotLoopback,
    /// The token is not known.
    UnknownToken,
    /// The token is known and not good for this.
    Scope,
    /// The tokens file cannot be read.
    Unreadable,
}

#[derive(Debug, Default)]
struct Cached {
    version: Option<(SystemTime, u64)>,
    tokens: Option<Vec<Token>>,
}

impl Auth {
    /// Checks against the tokens in `path`, which need not exist.
    pub fn new(path: PathBuf, policy: Policy) -> Self {
        Self { file: TokenFile::new(path), policy, cached: Mutex::default() }
    }

    /// Whether `peer`, who gave `token` and asked for `host`, may do what needs `scope`.
    ///
    /// # Errors
    /// With the reason when not.
    pub fn allow(
        &self,
        token: Option<&str>,
        peer: IpAddr,
        host: Option<&str>,
        scope: Scope,
    ) -> Result<(), Denied> {
        if self.policy == Policy::AnyToken {
            return Ok(());
        }
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh(&mut cached);
        let tokens = cached.tokens.as_deref().ok_or(Denied::Unreadable)?;
        if tokens.is_empty() {
            return without_tokens(peer, host, scope);
        }
        let hash = sha256_hex(token.ok_or(Denied::NoToken)?.as_bytes());
        // All are compared, so that the time does not tell which one fits.
        let mut found = None;
        for known in tokens {
            if constant_time_eq(known.hash.as_bytes(), hash.as_bytes()) {
                found = Some(known);
            }
        }
        let scopes = &found.ok_or(Denied::UnknownToken)?.scopes;
        if scopes.contains(&scope) || scopes.contains(&Scope::Admin) {
            Ok(())
        } else {
            Err(Denied::Scope)
        }
    }

    /// Reads the file again when it has changed since.
    fn refresh(&self, cached: &mut Cached) {
        let version = self.file.version();
        if cached.tokens.is_some() && version == cached.version {
            return;
        }
        match self.file.read() {
            Ok(tokens) => *cached = Cached { version, tokens: Some(tokens) },
            Err(error) => {
                // Until it can be read nobody is let in: it may just have been a revocation.
                tracing::error!(%error, "the tokens cannot be read; nobody is let in");
                cached.tokens = None;
            }
        }
    }
}

impl TokenFile {
    /// The file at `path`, which need not exist.
    pub fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// All tokens; none when there is no file.
    ///
    /// # Errors
    /// When it cannot be read, or a line is malformed.
    pub fn read(&self) -> Result<Vec<Token>, TokenError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(TokenError::Io(self.path.clone(), error)),
        };
        let lines = (1_usize..).zip(text.lines());
        let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        lines
            .map(|(number, line)| {
                Token::parse(line).ok_or_else(|| TokenError::Line(self.path.clone(), number))
            })
            .collect()
    }

    /// Makes a token and returns it; it is not kept and cannot be shown again.
    ///
    /// # Errors
    /// When the name is taken or bad, or the file cannot be written.
    pub fn add(&self, name: &str, scopes: &[Scope], now: Timestamp) -> Result<String, TokenError> {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.chars().all(is_word) {
            return Err(TokenError::Name(name.to_owned()));
        }
        let mut tokens = self.read()?;
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        let octets = random_bytes::<TOKEN_BYTES>();
        let octets = octets.map_err(|error| TokenError::Random(Box::new(error)))?;
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let secret = format!("{TOKEN_PREFIX}{hex}");
        tokens.push(Token {
            name: name.to_owned(),
            scopes: scopes.to_vec(),
            created: now.rfc3339(),
            hash: sha256_hex(secret.as_bytes()),
        });
        self.write(&tokens)?;
        Ok(secret)
    }

    /// Takes a token away.
    ///
    /// # Errors
    /// When there is none of that name, or the file cannot be written.
    pub fn revoke(&self, name: &str) -> Result<(), TokenError> {
        let mut tokens = self.read()?;
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == before {
            return Err(TokenError::Unknown(name.to_owned()));
        }
        self.write(&tokens)
    }

    fn write(&self, tokens: &[Token]) -> Result<(), TokenError> {
        let text: String = tokens.iter().map(|token| format!("{token}\n")).collect();
        create_private(&self.path, text.as_bytes())
            .map_err(|error| TokenError::Io(self.path.clone(), error))
    }

    /// What changes whenever the file does; `None` without a file.
    fn version(&self) -> Option<(SystemTime, u64)> {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(&self.path).ok()?;
        // The file is replaced as a whole, so that its inode tells two changes in one tick apart.
        Some((metadata.modified().ok()?, metadata.ino()))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Token {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.to_owned();
        let scopes: Option<Vec<Scope>> = words.next()?.split(',').map(Scope::parse).collect();
        let created = words.next()?.to_owned();
        let hash = words.next()?.to_owned();
        let is_hash = hash.len() == HASH_CHARS && hash.bytes().all(|b| b.is_ascii_hexdigit());
        let token = Self { name, scopes: scopes?, created, hash };
        (is_hash && words.next().is_none()).then_some(token)
    }
}

/// The line of the file.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scopes: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        write!(f, "{} {} {} {}", self.name, scopes.join(","), self.created, self.hash)
    }
}

impl Scope {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Admin => "admin",
        }
    }

    /// The scope that `word` names.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Read, Self::Submit, Self::Admin].into_iter().find(|scope| scope.as_str() == word)
    }
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, _) => write!(f, "cannot read or write the tokens {}", path.display()),
            Self::Line(path, line) => {
                let path = path.display();
                write!(f, "{path}, line {line}: expected `name scopes created sha256`")
            }
            Self::Exists(name) => write!(f, "there is a token `{name}` already"),
            Self::Unknown(name) => write!(f, "there is no token `{name}`"),
            Self::Name(name) => {
                write!(f, "`{name}` is no name: use up to {NAME_BYTES_MAX} letters, digits, `-_.`")
            }
            Self::Random(_) => write!(f, "the system gave no random octets for a token"),
        }
    }
}

impl std::error::Error for TokenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Random(error) => Some(error.as_ref()),
            Self::Line(..) | Self::Exists(_) | Self::Unknown(_) | Self::Name(_) => None,
        }
    }
}

/// Loopback may read. The name it asked for must be an address or `localhost` too: otherwise a
/// web page could ask through a browser here, by a name that it has made lead to loopback.
fn without_tokens(peer: IpAddr, host: Option<&str>, scope: Scope) -> Result<(), Denied> {
    let is_local_name = host.is_none_or(|host| {
        let name = host.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
        let name = name.map_or(host, |(name, _port)| name);
        let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        name.eq_ignore_ascii_case("localhost") || address.is_ok()
    });
    if !peer.to_canonical().is_loopback() || !is_local_name {
        return Err(Denied::NotLoopback);
    }
    if scope == Scope::Admin { Err(Denied::NoToken) } else { Ok(()) }
}

/// What every token begins with, so that one is known where it turns up.
const TOKEN_PREFIX: &str = "rebound_";

/// Random octets of a token.
const TOKEN_BYTES: usize = 32;

/// Characters of a hash.
const HASH_CHARS: usize = 64;

const NAME_BYTES_MAX: usize = 64;
