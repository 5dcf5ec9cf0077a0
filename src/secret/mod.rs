//! Secrets: MACs of return tokens and notices, password hashes, constant-time comparison.

mod scram;
mod webhook;

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use data_encoding::{BASE32_DNSSEC, HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

pub use scram::{ScramError, ScramVerifier};
pub use webhook::WebhookSecret;

use crate::mail::return_token::MAC_BYTES;
use crate::mail::{QueueId, ReturnToken, Timestamp};

/// The keys that sign return tokens and notices: the first signs, all verify.
pub struct KeyRing {
    keys: Vec<Key>,
}

struct Key {
    id: u8,
    secret: [u8; KEY_BYTES],
}

/// Why the key file could not be used.
#[derive(Debug)]
pub enum KeyError {
    /// Reading or creating it failed.
    Io(PathBuf, io::Error),
    /// A line is not of the form `keyid created hex`.
    Line(PathBuf, usize),
    /// It holds no key.
    Empty(PathBuf),
    /// Others than its owner may read it.
    Open(PathBuf),
    /// The system gave no random octets.
    Random(getrandom::Error),
}

impl KeyRing {
    /// Reads the keys, or makes the file with one key, readable by its owner only.
    ///
    /// A line is `keyid created hex`: a number from 0 to 255, when it was made, 64 hexadecimal
    /// digits. To rotate, put a new line first; the old ones go on verifying.
    pub fn load_or_create(path: &Path, now: Timestamp) -> Result<Self, KeyError> {
        let io_error = |error| KeyError::Io(path.to_owned(), error);
        if !path.try_exists().map_err(io_error)? {
            let secret = random_bytes::<KEY_BYTES>().map_err(KeyError::Random)?;
            let line = format!("1 {now} {}\n", HEXLOWER.encode(&secret));
            create_private(path, line.as_bytes()).map_err(io_error)?;
        }
        let mode = fs::metadata(path).map_err(io_error)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(KeyError::Open(path.to_owned()));
        }
        let text = fs::read_to_string(path).map_err(io_error)?;
        let mut keys = Vec::new();
        for (number, line) in (1_usize..).zip(text.lines()) {
            if !line.trim().is_empty() && !line.starts_with('#') {
                keys.push(Key::parse(line).ok_or_else(|| KeyError::Line(path.to_owned(), number))?);
            }
        }
        if keys.is_empty() { Err(KeyError::Empty(path.to_owned())) } else { Ok(Self { keys }) }
    }

    /// A ring of one key, for tests and for `rebound dev`.
    pub fn from_secret(secret: [u8; KEY_BYTES]) -> Self {
        Self { keys: vec![Key { id: 1, secret }] }
    }

    /// The return token of one recipient of a submission.
    pub fn token(&self, queue_id: QueueId, recipient: u16) -> ReturnToken {
        // A ring is never empty: `load_or_create` refuses that.
        let (key_id, mac) = self.keys.first().map_or((0, [0; MAC_BYTES]), |key| {
            let signed = ReturnToken::signed_bytes(queue_id, recipient, key.id);
            (key.id, key.mac(TOKEN_DOMAIN, &signed))
        });
        ReturnToken { queue_id, recipient, key_id, mac }
    }

    /// Whether a token was made with one of our keys.
    pub fn verify(&self, token: &ReturnToken) -> bool {
        let signed = ReturnToken::signed_bytes(token.queue_id, token.recipient, token.key_id);
        self.keys.iter().filter(|key| key.id == token.key_id).any(|key| {
            let mac = key.mac(TOKEN_DOMAIN, &signed);
            mac.ct_eq(&token.mac).into()
        })
    }

    /// The value of `X-Rebound-Notice` on a mail of our own: `<queue id>.<key id>.<mac>`.
    pub fn notice(&self, queue_id: QueueId) -> String {
        self.keys.first().map_or_else(String::new, |key| {
            let mac = key.mac(NOTICE_DOMAIN, queue_id.as_bytes());
            format!("{queue_id}.{}.{}", key.id, BASE32_DNSSEC.encode(&mac))
        })
    }

    /// The queue id of our own mail, where `value` is a notice mark that one of our keys made.
    pub fn verify_notice(&self, value: &str) -> Option<QueueId> {
        let mut parts = value.trim().splitn(3, '.');
        let queue_id = QueueId::parse(parts.next()?)?;
        let key_id: u8 = parts.next()?.parse().ok()?;
        let mac = BASE32_DNSSEC.decode(parts.next()?.as_bytes()).ok()?;
        let made_by = |key: &&Key| {
            key.id == key_id
                && bool::from(key.mac(NOTICE_DOMAIN, queue_id.as_bytes()).ct_eq(mac.as_slice()))
        };
        self.keys.iter().find(made_by).map(|_key| queue_id)
    }

    /// What stands for a secret that is not there: always the same for `name`, and as random as
    /// one to whoever does not know the key.
    pub fn decoy(&self, name: &[u8]) -> [u8; 32] {
        // The oldest key: a new one in front of it changes nothing.
        let secret = self.keys.last().map_or([0; KEY_BYTES], |key| key.secret);
        hmac_sha256(&secret, &[DECOY_DOMAIN, name].concat())
    }
}

/// Never shows a key.
impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyRing({} keys)", self.keys.len())
    }
}

impl Key {
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let id = words.next()?.parse().ok()?;
        let _created = words.next()?;
        let secret = HEXLOWER_PERMISSIVE.decode(words.next()?.as_bytes()).ok()?;
        let secret = secret.try_into().ok()?;
        words.next().is_none().then_some(Self { id, secret })
    }

    /// HMAC-SHA256, cut to 80 bits; `domain` keeps the uses of one key apart.
    fn mac(&self, domain: &[u8], octets: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        let full = hmac_sha256(&self.secret, &[domain, octets].concat());
        mac.iter_mut().zip(full).for_each(|(to, from)| *to = from);
        mac
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(path, _) => write!(f, "cannot read or create the key file {}", path.display()),
            Self::Line(path, line) => {
                let path = path.display();
                write!(f, "{path}, line {line}: expected `keyid created hex`, a key of 64 digits")
            }
            Self::Empty(path) => {
                let path = path.display();
                write!(f, "the key file {path} holds no key; remove it to have a new one made")
            }
            Self::Open(path) => {
                let path = path.display();
                write!(f, "the key file {path} can be read by others; run `chmod 600 {path}`")
            }
            Self::Random(_) => write!(f, "the system gave no random octets for a key"),
        }
    }
}

impl std::error::Error for KeyError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io(_, error) => Some(error),
            Self::Random(error) => Some(error),
            Self::Line(..) | Self::Empty(_) | Self::Open(_) => None,
        }
    }
}

/// HMAC-SHA256 of `octets`.
pub fn hmac_sha256(secret: &[u8], octets: &[u8]) -> [u8; 32] {
    // A key of any length is taken, so that this never falls back to the digest.
    Hmac::<Sha256>::new_from_slice(secret).map_or_else(
        |_error| Sha256::digest(octets).into(),
        |mut mac| {
            mac.update(octets);
            mac.finalize().into_bytes().into()
        },
    )
}

/// The argon2id hash of a password, in the form of a PHC string. Takes tens of milliseconds.
///
/// # Errors
/// When the system gives no random octets for the salt.
pub fn hash_password(password: &[u8]) -> Result<String, argon2::password_hash::Error> {
    let salt = random_bytes::<16>().map_err(|_e| argon2::password_hash::Error::Crypto)?;
    let salt = SaltString::encode_b64(&salt)?;
    Ok(argon2id().hash_password(password, &salt)?.to_string())
}

/// Whether `password` has this hash, be it of argon2 or a SCRAM verifier. Takes tens of
/// milliseconds: not for an async worker.
///
/// A hash that cannot be read costs the same time as one that does not fit.
pub fn verify_password(hash: &str, password: &[u8]) -> bool {
    if let Ok(verifier) = ScramVerifier::parse(hash) {
        return verifier.accepts(password);
    }
    let parsed = PasswordHash::new(hash).or_else(|_e| PasswordHash::new(NOBODYS_HASH));
    let fits = parsed.is_ok_and(|parsed| argon2id().verify_password(password, &parsed).is_ok());
    fits && hash != NOBODYS_HASH
}

/// Whether `hash` is one that `verify_password` can check; what is wrong with it and what to do,
/// as the rest of a sentence about it, if not.
pub fn check_password_hash(hash: &str) -> Result<(), String> {
    if ScramVerifier::is_meant(hash) {
        let remedy = "make one with `rebound account hash --scram`";
        return ScramVerifier::parse(hash).map(drop).map_err(|error| format!("{error}; {remedy}"));
    }
    match PasswordHash::new(hash) {
        Ok(parsed) if Algorithm::try_from(parsed.algorithm).is_ok() => Ok(()),
        _ => Err("is no argon2 hash; make one with `rebound account hash`".to_owned()),
    }
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
pub fn constant_time_eq(left: &[u8], right: &[u8]) -> bool {
    left.ct_eq(right).into()
}

/// SHA-256 in lower-case hexadecimal; for secrets that are random themselves, such as tokens.
pub fn sha256_hex(octets: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(octets))
}

/// `N` octets of the system's random source.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut octets = [0; N];
    getrandom::fill(&mut octets)?;
    Ok(octets)
}

/// A random number, for ids and jitter; not for keys: zero should the system have none.
pub fn random_u64() -> u64 {
    random_bytes::<8>().map_or(0, u64::from_be_bytes)
}

/// Writes a new file that only its owner may read, so that a crash leaves it whole or absent.
///
/// What root writes belongs to the owner of the file that it replaces, else of its directory:
/// an administrator makes tokens and keys, and the daemon's own user reads them.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&partial)?;
    file.write_all(content)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    hand_over(&file, path, dir)?;
    file.sync_all()?;
    fs::rename(&partial, path)?;
    fs::File::open(dir)?.sync_all()
}

/// Gives the file that will stand at `path` to whom it must belong.
fn hand_over(file: &fs::File, path: &Path, dir: &Path) -> io::Result<()> {
    let own = file.metadata()?;
    let wanted = fs::metadata(path).or_else(|_absent| fs::metadata(dir))?;
    let is_theirs = (own.uid(), own.gid()) == (wanted.uid(), wanted.gid());
    // Only root can give a file away, and for anybody else there is nobody to give it to.
    if own.uid() != ROOT || is_theirs {
        return Ok(());
    }
    fchown(file, Some(wanted.uid()), Some(wanted.gid()))
}

/// 19 MiB, two passes: the first choice of the OWASP password storage cheat sheet.
fn argon2id() -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::default())
}

/// Octets of a key.
pub const KEY_BYTES: usize = 32;

/// The user who may give files away.
const ROOT: u32 = 0;

const TOKEN_DOMAIN: &[u8] = b"rebound return token 1\0";
const NOTICE_DOMAIN: &[u8] = b"rebound notice 1\0";
const DECOY_DOMAIN: &[u8] = b"rebound decoy 1\0";

/// The hash that an unknown user's password is checked against, so that it takes as long.
const NOBODYS_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$cmVib3VuZC1ub2JvZHk\
    $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[cfg(test)]
mod tests {
    use super::*;

    fn id(unique: u32) -> QueueId {
        QueueId::new(Timestamp::from_millis(1_665_576_640_980), unique)
    }

    #[test]
    fn a_token_verifies_only_as_it_was_made() {
        let ring = KeyRing::from_secret([7; KEY_BYTES]);
        let token = ring.token(id(1), 2);
        assert!(ring.verify(&token));
        for forged in [
            ReturnToken { recipient: 3, ..token },
            ReturnToken { queue_id: id(2), ..token },
            ReturnToken { key_id: 2, ..token },
            ReturnToken { mac: [0; MAC_BYTES], ..token },
        ] {
            assert!(!ring.verify(&forged), "{forged:?}");
        }
        assert!(!KeyRing::from_secret([8; KEY_BYTES]).verify(&token));
    }

    #[test]
    fn a_notice_mark_verifies_only_as_it_was_made() {
        let ring = KeyRing::from_secret([7; KEY_BYTES]);
        let mark = ring.notice(id(1));
        assert_eq!(ring.verify_notice(&mark), Some(id(1)));
        let foreign = KeyRing::from_secret([8; KEY_BYTES]).notice(id(1));
        let swapped = mark.replace(&id(1).to_string(), &id(2).to_string());
        for bad in ["", "x", foreign.as_str(), swapped.as_str(), &format!("{mark}0")] {
            assert_eq!(ring.verify_notice(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_key_file_is_made_once_private_and_old_keys_go_on_verifying() {
        let dir = std::env::temp_dir().join(format!("rebound-keys-{:016x}", random_u64()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("return_path.keys");
        let now = Timestamp::from_millis(0);
        let first = KeyRing::load_or_create(&path, now).unwrap();
        let token = first.token(id(1), 0);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(KeyRing::load_or_create(&path, now).unwrap().verify(&token));

        let old = fs::read_to_string(&path).unwrap();
        let new = format!("2 {now} {}\n", "ab".repeat(KEY_BYTES));
        fs::write(&path, new + &old).unwrap();
        let rotated = KeyRing::load_or_create(&path, now).unwrap();
        assert!(rotated.verify(&token));
        assert_eq!(rotated.token(id(1), 0).key_id, 2);

        fs::write(&path, "1 now zz\n").unwrap();
        assert!(matches!(KeyRing::load_or_create(&path, now), Err(KeyError::Line(_, 1))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(KeyRing::load_or_create(&path, now), Err(KeyError::Open(_))));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_private_file_belongs_to_the_owner_of_its_directory() {
        let dir = std::env::temp_dir().join(format!("rebound-private-{:016x}", random_u64()));
        fs::create_dir_all(&dir).unwrap();
        if fs::metadata(&dir).unwrap().uid() == ROOT {
            std::os::unix::fs::chown(&dir, Some(12_345), Some(54_321)).unwrap();
        }
        let owner = fs::metadata(&dir).unwrap();
        let path = dir.join("file");
        for content in [b"first".as_slice(), b"second"] {
            create_private(&path, content).unwrap();
            let made = fs::metadata(&path).unwrap();
            assert_eq!((made.uid(), made.mode() & 0o777), (owner.uid(), 0o600));
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn passwords_verify_against_their_hash_only() {
        let hash = hash_password(b"secret").unwrap();
        assert!(check_password_hash(&hash).is_ok() && hash.starts_with("$argon2id$"));
        assert!(verify_password(&hash, b"secret"));
        assert!(!verify_password(&hash, b"Secret"));
        assert!(!verify_password("", b"secret"));
        assert!(check_password_hash(NOBODYS_HASH).is_ok());
        assert!(check_password_hash("secret").is_err());
        let verifier = ScramVerifier::of_password(b"secret").unwrap().to_string();
        assert!(check_password_hash(&verifier).is_ok());
        assert!(verify_password(&verifier, b"secret"));
        assert!(!verify_password(&verifier, b"Secret"));
    }

    #[test]
    fn a_decoy_is_the_same_for_a_name_until_the_oldest_key_goes() {
        let decoy = |keys: &[[u8; KEY_BYTES]], name: &str| {
            let keys = keys.iter().map(|secret| Key { id: 1, secret: *secret }).collect();
            KeyRing { keys }.decoy(name.as_bytes())
        };
        let (old, new) = ([7; KEY_BYTES], [8; KEY_BYTES]);
        assert_eq!(decoy(&[old], "a"), decoy(&[new, old], "a"));
        assert_ne!(decoy(&[old], "a"), decoy(&[old], "b"));
        assert_ne!(decoy(&[old], "a"), decoy(&[new], "a"));
    }
}
