//! Tokens: who may ask for what.
//!
//! A token is 256 random bits, so its SHA-256 is kept: a slow hash protects what people choose,
//! and nothing here is chosen. The file is re-read when it changes; a revoked token is dead at
//! the next request.

use std::fmt;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::config::Settings;
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
    /// The directory that would hold it is not there.
    NoDirectory(PathBuf),
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
    /// Checks against the tokens in `file`.
    pub fn new(file: TokenFile, policy: Policy) -> Self {
        Self { file, policy, cached: Mutex::default() }
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

    /// The file that the settings name.
    pub fn configured(settings: &Settings) -> Self {
        let named = &settings.http.tokens_file;
        let is_named = !named.as_os_str().is_empty();
        Self::new(if is_named { named.clone() } else { settings.data_dir.join(FILE_NAME) })
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
        create_private(&self.path, text.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TokenError::NoDirectory(self.path.clone()),
            _ => TokenError::Io(self.path.clone(), error),
        })
    }

    /// What changes whenever the file does; `None` without a file.
    fn version(&self) -> Option<(SystemTime, u64)> {
        let metadata = fs::metadata(&self.path).ok()?;
        // The file is replaced as a whole, so that its inode tells two changes in one tick apart.
        Some((metadata.modified().ok()?, metadata.ino()))
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
            Self::NoDirectory(path) => {
                let path = path.display();
                write!(
                    f,
                    "cannot write the tokens {path}: the directory does not exist yet; start the \
                     daemon once, or name its configuration with --config or its data_dir with \
                     REBOUND_DATA_DIR"
                )
            }
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
            Self::NoDirectory(_)
            | Self::Line(..)
            | Self::Exists(_)
            | Self::Unknown(_)
            | Self::Name(_) => None,
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

/// The tokens in the data directory.
const FILE_NAME: &str = "tokens";

/// What every token begins with, so that one is known where it turns up.
const TOKEN_PREFIX: &str = "rebound_";

/// Random octets of a token.
const TOKEN_BYTES: usize = 32;

/// Characters of a hash.
const HASH_CHARS: usize = 64;

const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::random_u64;
    use std::os::unix::fs::PermissionsExt;

    const LOOPBACK: &str = "127.0.0.1";

    /// A directory that goes when the test ends.
    struct Dir(PathBuf);

    impl Dir {
        fn new() -> Self {
            let dir = std::env::temp_dir().join(format!("rebound-tokens-{:016x}", random_u64()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }

        fn file(&self) -> TokenFile {
            TokenFile::new(self.0.join(FILE_NAME))
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn allow(auth: &Auth, token: Option<&str>, peer: &str, scope: Scope) -> Result<(), Denied> {
        auth.allow(token, peer.parse().unwrap(), None, scope)
    }

    #[test]
    fn without_tokens_only_loopback_by_its_own_name_may_read() {
        let dir = Dir::new();
        let auth = Auth::new(dir.file(), Policy::Tokens);
        for (peer, host, want) in [
            (LOOPBACK, None, Ok(())),
            (LOOPBACK, Some("127.0.0.1:8025"), Ok(())),
            (LOOPBACK, Some("localhost:8025"), Ok(())),
            (LOOPBACK, Some("LOCALHOST"), Ok(())),
            ("::1", Some("[::1]:8025"), Ok(())),
            ("::1", Some("[::1]"), Ok(())),
            ("::ffff:127.0.0.1", None, Ok(())),
            (LOOPBACK, Some("evil.example:8025"), Err(Denied::NotLoopback)),
            (LOOPBACK, Some("localhost.evil.example"), Err(Denied::NotLoopback)),
            ("192.0.2.1", Some("localhost"), Err(Denied::NotLoopback)),
            ("0.0.0.0", None, Err(Denied::NotLoopback)),
        ] {
            let got = auth.allow(None, peer.parse().unwrap(), host, Scope::Read);
            assert_eq!(got, want, "{peer} {host:?}");
        }
        assert_eq!(allow(&auth, None, LOOPBACK, Scope::Submit), Ok(()));
        assert_eq!(allow(&auth, None, LOOPBACK, Scope::Admin), Err(Denied::NoToken));
        assert_eq!(allow(&auth, Some("x"), LOOPBACK, Scope::Read), Ok(()));
    }

    #[test]
    fn a_token_is_good_for_its_scopes_until_it_is_revoked() {
        let dir = Dir::new();
        let tokens = dir.file();
        let now = Timestamp::from_millis(0);
        let reader = tokens.add("app", &[Scope::Read], now).unwrap();
        let admin = tokens.add("ops", &[Scope::Admin], now).unwrap();
        assert_eq!(fs::metadata(&tokens.path).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = fs::read_to_string(&tokens.path).unwrap();
        assert!(!kept.contains(&reader) && !kept.contains(reader.trim_start_matches("rebound_")));

        let auth = Auth::new(dir.file(), Policy::Tokens);
        for (token, scope, want) in [
            (Some(reader.as_str()), Scope::Read, Ok(())),
            (Some(reader.as_str()), Scope::Submit, Err(Denied::Scope)),
            (Some(admin.as_str()), Scope::Submit, Ok(())),
            (Some("rebound_00"), Scope::Read, Err(Denied::UnknownToken)),
            (Some(""), Scope::Read, Err(Denied::UnknownToken)),
            (None, Scope::Read, Err(Denied::NoToken)),
        ] {
            assert_eq!(allow(&auth, token, LOOPBACK, scope), want, "{token:?} {scope:?}");
        }
        tokens.revoke("app").unwrap();
        assert_eq!(
            allow(&auth, Some(&reader), LOOPBACK, Scope::Read),
            Err(Denied::UnknownToken),
            "a revoked token is dead at the next request"
        );
        assert_eq!(allow(&auth, Some(&admin), "192.0.2.1", Scope::Read), Ok(()));
    }

    #[test]
    fn names_are_words_and_unique() {
        let dir = Dir::new();
        let tokens = dir.file();
        let now = Timestamp::from_millis(0);
        tokens.add("a", &[Scope::Read], now).unwrap();
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(65)] {
            assert!(matches!(tokens.add(bad, &[], now), Err(TokenError::Name(_))), "{bad:?}");
        }
        assert!(matches!(tokens.add("a", &[], now), Err(TokenError::Exists(_))));
        assert!(matches!(tokens.revoke("b"), Err(TokenError::Unknown(_))));
    }

    #[test]
    fn before_the_first_start_the_remedy_is_named() {
        let dir = Dir::new();
        let tokens = TokenFile::new(dir.0.join("absent").join(FILE_NAME));
        assert!(tokens.read().unwrap().is_empty());
        let error = tokens.add("a", &[Scope::Read], Timestamp::from_millis(0)).unwrap_err();
        assert!(matches!(error, TokenError::NoDirectory(_)), "{error}");
        assert!(error.to_string().contains("start the daemon once"), "{error}");
    }

    #[test]
    fn a_damaged_file_lets_nobody_in() {
        let dir = Dir::new();
        let tokens = dir.file();
        for bad in ["app read then zz", "app write then 00", "app read", "app"] {
            fs::write(&tokens.path, format!("# tokens\n\n{bad}\n")).unwrap();
            assert!(matches!(tokens.read(), Err(TokenError::Line(_, 3))), "{bad}");
            let auth = Auth::new(dir.file(), Policy::Tokens);
            assert_eq!(allow(&auth, None, LOOPBACK, Scope::Read), Err(Denied::Unreadable));
        }
    }

    #[test]
    fn in_dev_any_token_and_none_are_good() {
        let dir = Dir::new();
        let auth = Auth::new(dir.file(), Policy::AnyToken);
        assert_eq!(allow(&auth, Some("secret123"), "192.0.2.1", Scope::Admin), Ok(()));
        assert_eq!(allow(&auth, None, LOOPBACK, Scope::Submit), Ok(()));
    }
}
