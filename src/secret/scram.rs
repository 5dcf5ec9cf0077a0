//! SCRAM-SHA-256: what a server keeps of a password, and what is proved with it (RFC 5802 §3,
//! RFC 7677 §3).

use std::fmt;

use data_encoding::BASE64;
use sha2::{Digest, Sha256};

use super::{constant_time_eq, hmac_sha256, random_bytes};

/// What is kept of a password, in the form that PostgreSQL gives it:
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in base64.
///
/// Who reads it can pose as the server, and can try passwords, but cannot log in with it.
#[derive(PartialEq, Eq)]
pub struct ScramVerifier {
    iterations: u32,
    salt: Vec<u8>,
    stored_key: [u8; KEY_BYTES],
    server_key: [u8; KEY_BYTES],
}

/// Why there is no verifier.
#[derive(Debug, PartialEq, Eq)]
pub enum ScramError {
    /// The text is not of the form that a verifier has.
    Form,
    /// It asks for so many iterations.
    Iterations(u32),
    /// The password is not of printable ASCII.
    Password,
    /// The system gave no random octets for a salt.
    Random(getrandom::Error),
}

impl ScramVerifier {
    /// What is to be kept of `password`, with a salt of its own. Takes tens of milliseconds.
    ///
    /// # Errors
    /// When the password is not of printable ASCII, or the system gives no random octets.
    pub fn of_password(password: &[u8]) -> Result<Self, ScramError> {
        let salt = random_bytes::<SALT_BYTES>().map_err(ScramError::Random)?;
        if is_prepared(password) {
            Ok(Self::derive(password, &salt, ITERATIONS))
        } else {
            Err(ScramError::Password)
        }
    }

    /// Reads the text of a verifier.
    ///
    /// # Errors
    /// When it has another form, or asks for too few or too many iterations.
    pub fn parse(text: &str) -> Result<Self, ScramError> {
        let rest = text.strip_prefix(PREFIX).ok_or(ScramError::Form)?;
        let (cost, keys) = rest.split_once('$').ok_or(ScramError::Form)?;
        let (iterations, salt) = cost.split_once(':').ok_or(ScramError::Form)?;
        let (stored_key, server_key) = keys.split_once(':').ok_or(ScramError::Form)?;
        if !iterations.bytes().all(|octet| octet.is_ascii_digit()) {
            return Err(ScramError::Form);
        }
        let iterations = iterations.parse().map_err(|_e| ScramError::Form)?;
        let octets = |text: &str| BASE64.decode(text.as_bytes()).map_err(|_e| ScramError::Form);
        let key = |text: &str| octets(text)?.try_into().map_err(|_octets| ScramError::Form);
        let salt = octets(salt)?;
        if !(1..=SALT_BYTES_MAX).contains(&salt.len()) {
            return Err(ScramError::Form);
        }
        if !(ITERATIONS_MIN..=ITERATIONS_MAX).contains(&iterations) {
            return Err(ScramError::Iterations(iterations));
        }
        Ok(Self { iterations, salt, stored_key: key(stored_key)?, server_key: key(server_key)? })
    }

    /// Whether `text` is meant to be a verifier, be it well formed or not.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// How often the client has to hash.
    pub fn iterations(&self) -> u32 {
        self.iterations
    }

    /// What the client has to hash its password with.
    pub fn salt(&self) -> &[u8] {
        &self.salt
    }

    /// Whether it was made of `password`. Takes tens of milliseconds: not for an async worker.
    pub fn accepts(&self, password: &[u8]) -> bool {
        let other = Self::derive(password, &self.salt, self.iterations);
        is_prepared(password) && constant_time_eq(&other.stored_key, &self.stored_key)
    }

    /// The server's own proof (`ServerSignature`), where the client's (`ClientProof`) is right.
    pub fn prove(&self, auth_message: &[u8], proof: &[u8; KEY_BYTES]) -> Option<[u8; KEY_BYTES]> {
        let mut client_key = hmac_sha256(&self.stored_key, auth_message);
        client_key.iter_mut().zip(proof).for_each(|(octet, other)| *octet ^= other);
        constant_time_eq(&Sha256::digest(client_key), &self.stored_key)
            .then(|| hmac_sha256(&self.server_key, auth_message))
    }

    fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let salted = pbkdf2::pbkdf2_hmac_array::<Sha256, KEY_BYTES>(password, salt, iterations);
        let client_key = hmac_sha256(&salted, b"Client Key");
        Self {
            iterations,
            salt: salt.to_vec(),
            stored_key: Sha256::digest(client_key).into(),
            server_key: hmac_sha256(&salted, b"Server Key"),
        }
    }
}

/// The text that `parse` reads.
impl fmt::Display for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { iterations, salt, stored_key, server_key } = self;
        let [salt, stored_key, server_key] =
            [salt.as_slice(), stored_key, server_key].map(|octets| BASE64.encode(octets));
        write!(f, "{PREFIX}{iterations}:{salt}${stored_key}:{server_key}")
    }
}

/// Never shows a key.
impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScramVerifier({} iterations)", self.iterations)
    }
}

impl fmt::Display for ScramError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str(
                "is no verifier `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`",
            ),
            Self::Iterations(number) => write!(
                f,
                "has {number} iterations, which are not from {ITERATIONS_MIN} to {ITERATIONS_MAX}"
            ),
            Self::Password => f.write_str(
                "the password is not of printable ASCII, and clients do not agree on how SCRAM \
                 hashes others",
            ),
            Self::Random(_) => f.write_str("the system gave no random octets for a salt"),
        }
    }
}

impl std::error::Error for ScramError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Random(error) => Some(error),
            Self::Form | Self::Iterations(_) | Self::Password => None,
        }
    }
}

/// Whether SASLprep (RFC 4013 §2) leaves `password` as it is: printable ASCII.
///
/// RFC 5802 §2.2 lets us either implement SASLprep or do without other characters.
fn is_prepared(password: &[u8]) -> bool {
    !password.is_empty() && password.iter().all(|octet| (b' '..=b'~').contains(octet))
}

/// What a verifier begins with.
const PREFIX: &str = "SCRAM-SHA-256$";
/// Octets of SHA-256, and so of every key.
const KEY_BYTES: usize = 32;
/// Octets of the salts that we make.
const SALT_BYTES: usize = 16;
/// Octets of a salt; as many as can be made up for somebody who is not there.
const SALT_BYTES_MAX: usize = 32;
/// The iterations of the verifiers that we make.
///
/// RFC 7677 §4 wants what takes a modern machine a tenth of a second, which were 15,000 then. Most
/// clients cannot remember what they hashed and do it for every connection, so it is not more.
const ITERATIONS: u32 = 100_000;
/// RFC 7677 §3; what PostgreSQL makes unless told otherwise.
const ITERATIONS_MIN: u32 = 4096;
/// More would let a few wrong passwords keep a processor busy: PLAIN has them hashed here.
const ITERATIONS_MAX: u32 = 1_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    /// What PostgreSQL would keep of `pencil`, with salt and iterations of RFC 7677 §3.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    fn array(text: &str) -> [u8; 32] {
        BASE64.decode(text.as_bytes()).unwrap().try_into().unwrap()
    }

    #[test]
    fn the_example_of_rfc_7677_is_proved_on_both_sides() {
        let verifier = ScramVerifier::parse(PENCIL).unwrap();
        assert_eq!(verifier, ScramVerifier::derive(b"pencil", verifier.salt(), 4096));
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let message = format!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
             c=biws,r={nonce}"
        );
        let proof = array("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let own = array("6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(verifier.prove(message.as_bytes(), &proof), Some(own));
        let mut wrong = proof;
        wrong[31] ^= 1;
        assert_eq!(verifier.prove(message.as_bytes(), &wrong), None);
        assert_eq!(verifier.prove(&message.as_bytes()[1..], &proof), None);
    }

    #[test]
    fn a_verifier_is_read_as_it_was_written_and_takes_its_password_only() {
        let made = ScramVerifier::of_password(b"pencil box").unwrap();
        assert_eq!(ScramVerifier::parse(&made.to_string()), Ok(made));
        assert_eq!(ScramVerifier::parse(PENCIL).unwrap().to_string(), PENCIL);
        let verifier = ScramVerifier::parse(PENCIL).unwrap();
        for (password, want) in
            [("pencil", true), ("Pencil", false), ("pencil ", false), ("", false)]
        {
            assert_eq!(verifier.accepts(password.as_bytes()), want, "{password}");
        }
        let shown = format!("{verifier:?}");
        assert_eq!(shown, "ScramVerifier(4096 iterations)");
    }

    #[test]
    fn a_password_that_sasl_would_change_has_no_verifier() {
        for password in ["", "tab\t", "bell\u{7}", "pass\u{e9}", "soft\u{ad}hyphen"] {
            let made = ScramVerifier::of_password(password.as_bytes());
            assert_eq!(made, Err(ScramError::Password), "{password:?}");
        }
    }

    #[test]
    fn what_is_no_verifier_is_refused() {
        let key = BASE64.encode(&[1; 32]);
        let with = |cost: &str, salt: &str, stored: &str, server: &str| {
            format!("SCRAM-SHA-256${cost}:{salt}${stored}:{server}")
        };
        let long_salt = BASE64.encode(&[1; 33]);
        for (text, want) in [
            (with("4096", "AAAA", &key, &key), None),
            (with("1000000", &BASE64.encode(&[1; 32]), &key, &key), None),
            (with("4095", "AAAA", &key, &key), Some(ScramError::Iterations(4095))),
            (with("1000001", "AAAA", &key, &key), Some(ScramError::Iterations(1_000_001))),
            (with("+4096", "AAAA", &key, &key), Some(ScramError::Form)),
            (with("", "AAAA", &key, &key), Some(ScramError::Form)),
            (with("99999999999", "AAAA", &key, &key), Some(ScramError::Form)),
            (with("4096", "", &key, &key), Some(ScramError::Form)),
            (with("4096", &long_salt, &key, &key), Some(ScramError::Form)),
            (with("4096", "A===", &key, &key), Some(ScramError::Form)),
            (with("4096", "AAAA", "AAAA", &key), Some(ScramError::Form)),
            (with("4096", "AAAA", &key, ""), Some(ScramError::Form)),
            (with("4096", "AAAA", &key, &format!("{key} ")), Some(ScramError::Form)),
            (format!("SCRAM-SHA-256$4096:AAAA${key}"), Some(ScramError::Form)),
            ("SCRAM-SHA-256$".to_owned(), Some(ScramError::Form)),
            ("SCRAM-SHA-1$4096:AAAA$AAAA:AAAA".to_owned(), Some(ScramError::Form)),
            (String::new(), Some(ScramError::Form)),
        ] {
            assert_eq!(ScramVerifier::parse(&text).err(), want, "{text}");
        }
    }
}
