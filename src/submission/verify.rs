//! Checks passwords of accounts and proofs of knowing them, without letting that become a way to
//! exhaust the host or to guess names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::{Account, Settings};
use crate::mail::base64;
use crate::secret::{self, KeyRing, ScramVerifier};
use crate::smtp::{ScramChallenge, ScramProof};

/// Checks passwords; clones share the limit and the memory of what was right.
///
/// A right password is remembered by a MAC under a key of this process, so that an app that
/// authenticates for every mail does not pay for argon2 every time. A wrong one always does,
/// and an unknown user as much as a known one.
#[derive(Clone)]
pub(super) struct Verifier {
    permits: Arc<Semaphore>,
    /// The MAC of the last right password of each account; never more than there are accounts.
    right: Arc<Mutex<HashMap<String, [u8; 32]>>>,
    /// Without it nothing is remembered.
    key: Option<Arc<[u8; 32]>>,
    /// What salts are made up with.
    keys: Arc<KeyRing>,
}

/// What is known of a user name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verified {
    /// They belong together.
    Right,
    /// They do not.
    Wrong,
    /// Too many passwords are being checked.
    Busy,
}

impl Verifier {
    /// A verifier that remembers nothing yet; `keys` outlive this process, so that what is made
    /// up for users who are not there does not change when the daemon starts again.
    pub(super) fn new(keys: Arc<KeyRing>) -> Self {
        Self {
            permits: Arc::new(Semaphore::new(CONCURRENT_MAX)),
            right: Arc::default(),
            key: secret::random_bytes().ok().map(Arc::new),
            keys,
        }
    }

    /// Whether any account can use SCRAM-SHA-256.
    pub(super) fn offers_scram(settings: &Settings) -> bool {
        settings.account.iter().any(|account| ScramVerifier::is_meant(&account.password_hash))
    }

    /// What SCRAM-SHA-256 needs of a user; nothing where the system gives no random octets.
    ///
    /// A user who is not there, or has an argon2 hash, has a salt, too: always the same, as long
    /// as somebody else's, and with as many iterations.
    pub(super) fn challenge(&self, settings: &Settings, username: &str) -> Option<ScramChallenge> {
        let nonce = secret::random_bytes::<NONCE_BYTES>().ok()?;
        let nonce = base64::encode(&nonce);
        let (salt, iterations) = match settings.account(username).and_then(scram_verifier) {
            Some(verifier) => (verifier.salt().to_vec(), verifier.iterations()),
            None => self.made_up(settings, username)?,
        };
        Some(ScramChallenge { nonce, salt, iterations })
    }

    /// Our own proof, where the client's shows that it knows the password of its account.
    pub(super) fn prove(&self, settings: &Settings, proof: &ScramProof) -> Option<[u8; 32]> {
        let verifier = settings.account(&proof.username).and_then(scram_verifier)?;
        verifier.prove(proof.auth_message.as_bytes(), &proof.proof)
    }

    fn made_up(&self, settings: &Settings, username: &str) -> Option<(Vec<u8>, u32)> {
        let decoy = |what: &str| self.keys.decoy(format!("{what}\0{username}").as_bytes());
        let verifiers: Vec<_> = settings.account.iter().filter_map(scram_verifier).collect();
        let [first, ..] = decoy("whose");
        let index = usize::from(first).checked_rem(verifiers.len())?;
        let like = verifiers.get(index)?;
        let salt = decoy("salt").into_iter().take(like.salt().len()).collect();
        Some((salt, like.iterations()))
    }

    /// Whether `password` is that of the account `username`.
    pub(super) async fn verify(
        &self,
        settings: &Settings,
        username: &str,
        password: &[u8],
    ) -> Verified {
        let account = settings.account(username);
        // A hash that cannot be read, such as this empty one, costs as much as any other.
        let hash = account.map(|account| account.password_hash.clone()).unwrap_or_default();
        let mac = self.mac(username, &hash, password);
        let is_remembered = |known: &[u8; 32]| mac.is_some_and(|mac| same(&mac, known));
        if account.is_some() && self.right().get(username).is_some_and(is_remembered) {
            return Verified::Right;
        }
        let permit = self.permits.clone().acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(WAIT_MAX, permit).await else {
            return Verified::Busy;
        };
        let password = password.to_vec();
        let verified = tokio::task::spawn_blocking(move || {
            let is_right = secret::verify_password(&hash, &password);
            drop(permit);
            is_right
        });
        match (verified.await, account) {
            (Ok(true), Some(account)) => {
                if let Some(mac) = mac {
                    self.right().insert(account.name.clone(), mac);
                }
                Verified::Right
            }
            (Ok(_), _) => Verified::Wrong,
            (Err(_), _) => Verified::Busy,
        }
    }

    /// The hash is part of it: a password that was changed is forgotten.
    fn mac(&self, username: &str, hash: &str, password: &[u8]) -> Option<[u8; 32]> {
        let key = self.key.as_ref()?;
        let (username, hash) = (username.as_bytes(), hash.as_bytes());
        let text = [username, b"\0", hash, b"\0", password].concat();
        Some(secret::hmac_sha256(key.as_slice(), &text))
    }

    fn right(&self) -> MutexGuard<'_, HashMap<String, [u8; 32]>> {
        self.right.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn scram_verifier(account: &Account) -> Option<ScramVerifier> {
    ScramVerifier::parse(&account.password_hash).ok()
}

fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    secret::constant_time_eq(left, right)
}

/// Passwords that are checked at a time: argon2 takes 19 MiB and a processor for each.
const CONCURRENT_MAX: usize = 4;
/// Octets of our part of a nonce, before base64.
const NONCE_BYTES: usize = 18;
/// How long a client waits for others' passwords to be checked.
const WAIT_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DsnPolicy;

    fn verifier() -> Verifier {
        Verifier::new(Arc::new(KeyRing::from_secret([7; 32])))
    }

    fn settings(password: &str) -> Settings {
        let mut settings = crate::config::defaults();
        let hash = secret::hash_password(password.as_bytes()).unwrap();
        settings.account.push(account("app", &hash));
        settings
    }

    fn account(name: &str, password_hash: &str) -> Account {
        Account {
            name: name.to_owned(),
            password_hash: password_hash.to_owned(),
            from: None,
            allowed_senders: Vec::new(),
            dsn: DsnPolicy::Mail,
            messages_per_minute_max: None,
            recipients_per_minute_max: None,
            return_path: None,
            meta: std::collections::BTreeMap::new(),
        }
    }

    /// `pencil`, with salt and iterations of RFC 7677 §3.
    const PENCIL: &str = "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==\
        $WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";

    #[tokio::test]
    async fn a_right_password_is_right_the_first_and_the_second_time() {
        let verifier = verifier();
        let settings = settings("secret");
        for (username, password, want) in [
            ("app", "secret", Verified::Right),
            ("app", "secret", Verified::Right),
            ("app", "Secret", Verified::Wrong),
            ("App", "secret", Verified::Wrong),
            ("nobody", "secret", Verified::Wrong),
            ("nobody", "", Verified::Wrong),
            ("", "", Verified::Wrong),
        ] {
            let got = verifier.verify(&settings, username, password.as_bytes()).await;
            assert_eq!(got, want, "{username} {password}");
        }
        assert_eq!(verifier.right().len(), 1);
    }

    #[tokio::test]
    async fn a_password_that_was_changed_is_forgotten() {
        let verifier = verifier();
        assert_eq!(verifier.verify(&settings("old"), "app", b"old").await, Verified::Right);
        assert_eq!(verifier.verify(&settings("new"), "app", b"old").await, Verified::Wrong);
        let mut none = settings("old");
        none.account.clear();
        assert_eq!(verifier.verify(&none, "app", b"old").await, Verified::Wrong);
    }

    #[test]
    fn a_user_who_is_not_there_has_a_salt_of_its_own_that_stays() {
        let mut settings = settings("secret");
        assert!(!Verifier::offers_scram(&settings));
        assert_eq!(verifier().challenge(&settings, "nobody"), None);
        settings.account.push(account("user", PENCIL));
        assert!(Verifier::offers_scram(&settings));
        let known = |name: &str| {
            let ScramChallenge { nonce, salt, iterations } =
                verifier().challenge(&settings, name).unwrap();
            assert_eq!((nonce.len(), salt.len(), iterations), (24, 16, 4096), "{name}");
            (nonce, salt)
        };
        let salts = ["user", "app", "nobody", "nobody else"].map(|name| known(name).1);
        assert_eq!(salts[0], base64::decode(b"W22ZaJ0SNY7soEsUEjb6gQ==").unwrap());
        for (at, salt) in salts.iter().enumerate() {
            assert_eq!(salts.iter().position(|other| other == salt), Some(at), "a salt is shared");
        }
        assert_eq!(known("nobody").1, salts[2]);
        assert_ne!(known("nobody").0, known("nobody").0);
    }

    #[tokio::test]
    async fn an_account_with_a_verifier_has_a_password_and_a_proof() {
        let verifier = verifier();
        let mut settings = settings("secret");
        settings.account.push(account("user", PENCIL));
        assert_eq!(verifier.verify(&settings, "user", b"pencil").await, Verified::Right);
        assert_eq!(verifier.verify(&settings, "user", b"pencils").await, Verified::Wrong);
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof = |username: &str| ScramProof {
            username: username.to_owned(),
            auth_message: format!(
                "n=user,r=rOprNGfwEbeRWgbNEkqO,r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
                 c=biws,r={nonce}"
            ),
            proof: base64::decode(b"dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=")
                .unwrap()
                .try_into()
                .unwrap(),
        };
        let own = verifier.prove(&settings, &proof("user")).unwrap();
        assert_eq!(base64::encode(&own), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        assert_eq!(verifier.prove(&settings, &proof("app")), None);
        assert_eq!(verifier.prove(&settings, &proof("nobody")), None);
    }
}
