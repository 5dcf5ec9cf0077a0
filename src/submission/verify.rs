//! Checks passwords of accounts, without letting that become a way to exhaust the host.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::config::Settings;
use crate::secret;

/// Checks passwords; clones share the limit and the memory of what was right.
///
/// A right password is remembered by a MAC under a key of this process, so that an app that
/// authenticates for every mail does not pay for argon2 every time. A wrong one always does,
/// and an unknown user as much as a known one.
#[derive(Clone)]
pub struct Verifier {
    permits: Arc<Semaphore>,
    /// The MAC of the last right password of each account; never more than there are accounts.
    right: Arc<Mutex<HashMap<String, [u8; 32]>>>,
    /// Without it nothing is remembered.
    key: Option<Arc<[u8; 32]>>,
}

/// What is known of a user name and a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// They belong together.
    Right,
    /// They do not.
    Wrong,
    /// Too many passwords are being checked.
    Busy,
}

impl Verifier {
    /// A verifier that remembers nothing yet.
    pub fn new() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(CONCURRENT_MAX)),
            right: Arc::default(),
            key: secret::random_bytes().ok().map(Arc::new),
        }
    }

    /// Whether `password` is that of the account `username`.
    pub async fn verify(&self, settings: &Settings, username: &str, password: &[u8]) -> Verified {
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

impl Default for Verifier {
    fn default() -> Self {
        Self::new()
    }
}

fn same(left: &[u8; 32], right: &[u8; 32]) -> bool {
    secret::constant_time_eq(left, right)
}

/// Passwords that are checked at a time: argon2 takes 19 MiB and a processor for each.
const CONCURRENT_MAX: usize = 4;
/// How long a client waits for others' passwords to be checked.
const WAIT_MAX: Duration = Duration::from_secs(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Account, DsnPolicy};

    fn settings(password: &str) -> Settings {
        let mut settings = crate::config::defaults();
        settings.account.push(Account {
            name: "app".to_owned(),
            password_hash: secret::hash_password(password.as_bytes()).unwrap(),
            allowed_senders: Vec::new(),
            dsn: DsnPolicy::Mail,
            return_path: None,
            meta: std::collections::BTreeMap::new(),
        });
        settings
    }

    #[tokio::test]
    async fn a_right_password_is_right_the_first_and_the_second_time() {
        let verifier = Verifier::new();
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
        let verifier = Verifier::new();
        assert_eq!(verifier.verify(&settings("old"), "app", b"old").await, Verified::Right);
        assert_eq!(verifier.verify(&settings("new"), "app", b"old").await, Verified::Wrong);
        let mut none = settings("old");
        none.account.clear();
        assert_eq!(verifier.verify(&none, "app", b"old").await, Verified::Wrong);
    }
}
