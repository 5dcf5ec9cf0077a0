//! The tokens file: who has been given what.
//!
//! A token is 256 random bits, so its SHA-256 is kept: a slow hash protects what people choose,
//! and nothing here is chosen.
//! **Invariant:** the file stays when its last token goes: it says that tokens are wanted.

use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
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

/// What somebody is given with a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// What it is good for.
    pub scopes: Vec<Scope>,
    /// The only account that it shows and submits for; `None` for all.
    pub account: Option<String>,
    /// From when on it is good for nothing.
    pub expires: Option<Timestamp>,
}

/// A token as the file keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// What the operator calls it.
    pub name: String,
    /// What it is good for, and for how long.
    pub grant: Grant,
    /// When it was made.
    pub created: String,
    /// SHA-256 of the token, in hexadecimal.
    hash: String,
}

/// The tokens file: one line `name scopes created sha256 [account=NAME] [expires=TIME]` for each
/// token.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
}

/// What changes whenever the file does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(SystemTime, u64);

/// Why the tokens file could not be used.
#[derive(Debug)]
pub enum TokenError {
    /// Reading or writing it failed.
    Io(PathBuf, io::Error),
    /// The directory that would hold it is not there.
    NoDirectory(PathBuf),
    /// A line is not of the form that `TokenFile` has.
    Line(PathBuf, usize),
    /// There is a token of that name.
    Exists(String),
    /// There is no token of that name.
    Unknown(String),
    /// A name is 1 to 64 letters, digits, `-`, `_` and `.`.
    Name(String),
    /// An account's name is made of letters, digits and `-_.@+`.
    Account(String),
    /// The system gave no random octets.
    Random(Box<dyn std::error::Error + Send + Sync>),
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

    /// All tokens; `None` when there is no file, so that nobody has ever wanted one.
    ///
    /// # Errors
    /// When it cannot be read, or a line is malformed.
    pub fn read(&self) -> Result<Option<Vec<Token>>, TokenError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TokenError::Io(self.path.clone(), error)),
        };
        let lines = (1_usize..).zip(text.lines());
        let lines = lines.filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
        let tokens = lines.map(|(number, line)| {
            Token::parse(line).ok_or_else(|| TokenError::Line(self.path.clone(), number))
        });
        tokens.collect::<Result<_, _>>().map(Some)
    }

    /// Makes a token and returns it; it is not kept and cannot be shown again.
    ///
    /// # Errors
    /// When the name is taken or bad, or the file cannot be written.
    pub fn add(
        &self,
        name: &str,
        grant: impl Into<Grant>,
        now: Timestamp,
    ) -> Result<String, TokenError> {
        let grant = grant.into();
        if !is_word(name, "-_.") {
            return Err(TokenError::Name(name.to_owned()));
        }
        if let Some(account) = grant.account.as_ref().filter(|account| !is_account(account)) {
            return Err(TokenError::Account(account.clone()));
        }
        let mut tokens = self.read()?.unwrap_or_default();
        if tokens.iter().any(|token| token.name == name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        let octets = random_bytes::<TOKEN_BYTES>();
        let octets = octets.map_err(|error| TokenError::Random(Box::new(error)))?;
        let hex: String = octets.iter().map(|octet| format!("{octet:02x}")).collect();
        let secret = format!("{TOKEN_PREFIX}{hex}");
        tokens.push(Token {
            name: name.to_owned(),
            grant,
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
        let mut tokens = self.read()?.unwrap_or_default();
        let before = tokens.len();
        tokens.retain(|token| token.name != name);
        if tokens.len() == before {
            return Err(TokenError::Unknown(name.to_owned()));
        }
        self.write(&tokens)
    }

    fn write(&self, tokens: &[Token]) -> Result<(), TokenError> {
        let lines = tokens.iter().map(|token| format!("{token}\n"));
        let text: String = std::iter::once(HEAD.to_owned()).chain(lines).collect();
        create_private(&self.path, text.as_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => TokenError::NoDirectory(self.path.clone()),
            _ => TokenError::Io(self.path.clone(), error),
        })
    }

    /// `None` without a file.
    pub(super) fn version(&self) -> Option<Version> {
        let metadata = fs::metadata(&self.path).ok()?;
        // The file is replaced as a whole, so that its inode tells two changes in one tick apart.
        Some(Version(metadata.modified().ok()?, metadata.ino()))
    }
}

impl Grant {
    /// Everything that needs one of these scopes, for all accounts and for ever.
    pub fn of(scopes: &[Scope]) -> Self {
        Self { scopes: scopes.to_vec(), account: None, expires: None }
    }

    /// Whether it covers what needs `scope`.
    pub fn has(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether its time is over at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }

    /// The scopes' words, with commas between them.
    pub fn scope_names(&self) -> String {
        let names: Vec<&str> = self.scopes.iter().map(|scope| scope.as_str()).collect();
        names.join(",")
    }
}

impl<const N: usize> From<&[Scope; N]> for Grant {
    fn from(scopes: &[Scope; N]) -> Self {
        Self::of(scopes)
    }
}

impl Token {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let name = words.next()?.to_owned();
        let scopes: Option<Vec<Scope>> = words.next()?.split(',').map(Scope::parse).collect();
        let created = words.next()?.to_owned();
        let hash = words.next()?.to_owned();
        let mut grant = Grant::of(&scopes?);
        for word in words {
            // A word that is not understood could be one that takes something away.
            match word.split_once('=')? {
                (ACCOUNT, account) if is_account(account) && grant.account.is_none() => {
                    grant.account = Some(account.to_owned());
                }
                (EXPIRES, time) if grant.expires.is_none() => {
                    grant.expires = Some(Timestamp::parse(time)?);
                }
                _ => return None,
            }
        }
        let is_hash = hash.len() == HASH_CHARS && hash.bytes().all(|b| b.is_ascii_hexdigit());
        is_hash.then_some(Self { name, grant, created, hash })
    }

    /// Whether it is the token with this hash; takes as long for every other.
    pub(super) fn is(&self, hash: &str) -> bool {
        constant_time_eq(self.hash.as_bytes(), hash.as_bytes())
    }
}

/// The line of the file.
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, grant, created, hash } = self;
        write!(f, "{name} {} {created} {hash}", grant.scope_names())?;
        if let Some(account) = &grant.account {
            write!(f, " {ACCOUNT}={account}")?;
        }
        if let Some(expires) = grant.expires {
            write!(f, " {EXPIRES}={}", expires.rfc3339())?;
        }
        Ok(())
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

/// Whether `text` is a name of letters, digits and some `marks`.
fn is_word(text: &str, marks: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.chars().all(fits)
}

/// Whether `text` could be the name of an `[[account]]`.
fn is_account(text: &str) -> bool {
    is_word(text, "-_.@+")
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
                write!(
                    f,
                    "{path}, line {line}: expected `name scopes created sha256`, and perhaps \
                     `account=NAME` and `expires=TIME`"
                )
            }
            Self::Exists(name) => write!(f, "there is a token `{name}` already"),
            Self::Unknown(name) => write!(f, "there is no token `{name}`"),
            Self::Name(name) => {
                write!(f, "`{name}` is no name: use up to {NAME_BYTES_MAX} letters, digits, `-_.`")
            }
            Self::Account(name) => write!(
                f,
                "`{name}` is no account: use up to {NAME_BYTES_MAX} letters, digits, `-_.@+`"
            ),
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
            | Self::Name(_)
            | Self::Account(_) => None,
        }
    }
}

/// The tokens in the data directory.
const FILE_NAME: &str = "tokens";

/// What the file begins with.
const HEAD: &str = "\
# The tokens of Rebound's HTTP interface: name scopes created sha256 [account=] [expires=]\n\
# Tokens are wanted as long as this file is here, also without one in it. Without the file,\n\
# everybody on loopback may look things up.\n";

/// The words that may follow in a line.
const ACCOUNT: &str = "account";
const EXPIRES: &str = "expires";

/// What every token begins with, so that one is known where it turns up.
const TOKEN_PREFIX: &str = "rebound_";

/// Random octets of a token.
const TOKEN_BYTES: usize = 32;

/// Characters of a hash.
const HASH_CHARS: usize = 64;

/// Octets of the name of a token or an account.
const NAME_BYTES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::testing::Dir;
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    #[test]
    fn what_is_granted_is_kept_and_the_token_is_not() {
        let dir = Dir::new();
        let tokens = dir.tokens();
        let grant = Grant {
            scopes: vec![Scope::Read, Scope::Submit],
            account: Some("shop@example.com".to_owned()),
            expires: Some(NOW),
        };
        let secret = tokens.add("app", grant.clone(), NOW).unwrap();
        tokens.add("ops", &[Scope::Admin], NOW).unwrap();
        assert_eq!(fs::metadata(&tokens.path).unwrap().permissions().mode() & 0o777, 0o600);
        let kept = fs::read_to_string(&tokens.path).unwrap();
        assert!(!kept.contains(secret.trim_start_matches(TOKEN_PREFIX)), "{kept}");
        let read = tokens.read().unwrap().unwrap();
        let grants: Vec<&Grant> = read.iter().map(|token| &token.grant).collect();
        assert_eq!(grants, [&grant, &Grant::of(&[Scope::Admin])]);
        assert!(read[0].is(&sha256_hex(secret.as_bytes())));
    }

    #[test]
    fn names_are_words_and_unique() {
        let dir = Dir::new();
        let tokens = dir.tokens();
        tokens.add("a", &[Scope::Read], NOW).unwrap();
        for bad in ["", "a b", "a\nb", "é", &"x".repeat(65)] {
            let error = tokens.add(bad, &[Scope::Read], NOW);
            assert!(matches!(error, Err(TokenError::Name(_))), "{bad:?}");
            let bound = Grant { account: Some(bad.to_owned()), ..Grant::of(&[Scope::Read]) };
            let error = tokens.add("b", bound, NOW);
            assert!(matches!(error, Err(TokenError::Account(_))), "{bad:?}");
        }
        assert!(matches!(tokens.add("a", &[Scope::Read], NOW), Err(TokenError::Exists(_))));
        assert!(matches!(tokens.revoke("b"), Err(TokenError::Unknown(_))));
    }

    #[test]
    fn the_file_outlives_its_last_token() {
        let dir = Dir::new();
        let tokens = dir.tokens();
        assert_eq!(tokens.read().unwrap(), None);
        tokens.add("a", &[Scope::Read], NOW).unwrap();
        tokens.revoke("a").unwrap();
        assert_eq!(tokens.read().unwrap(), Some(vec![]));
        let kept = fs::read_to_string(&tokens.path).unwrap();
        assert!(kept.contains("Tokens are wanted"), "{kept}");
    }

    #[test]
    fn before_the_first_start_the_remedy_is_named() {
        let dir = Dir::new();
        let tokens = TokenFile::new(dir.path().join("absent").join(FILE_NAME));
        assert_eq!(tokens.read().unwrap(), None);
        let error = tokens.add("a", &[Scope::Read], NOW).unwrap_err();
        assert!(matches!(error, TokenError::NoDirectory(_)), "{error}");
        assert!(error.to_string().contains("start the daemon once"), "{error}");
    }

    #[test]
    fn a_line_that_is_not_understood_is_refused() {
        let dir = Dir::new();
        let tokens = dir.tokens();
        let hash = "0".repeat(HASH_CHARS);
        for bad in [
            "app",
            "app read",
            "app read then zz",
            &format!("app write then {hash}"),
            &format!("app read then {hash} more"),
            &format!("app read then {hash} scope=submit"),
            &format!("app read then {hash} account="),
            &format!("app read then {hash} account=a account=b"),
            &format!("app read then {hash} expires=soon"),
        ] {
            fs::write(&tokens.path, format!("# tokens\n\n{bad}\n")).unwrap();
            assert!(matches!(tokens.read(), Err(TokenError::Line(_, 3))), "{bad}");
        }
    }
}
