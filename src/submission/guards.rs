//! What all connections share to keep guessers and floods out.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::bans::{BanPolicy, Bans};
use super::rates::Rates;
use super::verify::Verifier;
use crate::config::Settings;
use crate::mail::{EnhancedStatus, Reply, Timestamp};
use crate::secret::KeyRing;

/// What is known of passwords, accounts and addresses over all connections; clones share it.
#[derive(Clone)]
pub struct Guards {
    /// Checks passwords.
    pub(super) verifier: Verifier,
    /// Counts what accounts submit.
    pub(super) rates: Rates,
    /// Counts who guesses passwords.
    bans: Bans,
}

impl Guards {
    /// Guards that have seen nothing yet; `keys` are what salts are made up with.
    pub fn new(keys: Arc<KeyRing>) -> Self {
        Self { verifier: Verifier::new(keys), rates: Rates::default(), bans: Bans::default() }
    }

    /// Who has guessed too often may not go on, and does not hear when it guesses right.
    pub(super) fn check_ban(
        &self,
        settings: &Settings,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), Reply> {
        if self.bans.is_banned(peer, ban_policy(settings), now) {
            let text = "too many failed authentications from your address, try again later";
            return Err(Reply::new(421, BANNED, text));
        }
        Ok(())
    }

    /// Counts a wrong password; whether it is the one for which the peer is banned.
    pub(super) fn auth_failed(
        &self,
        settings: &Settings,
        peer: Option<IpAddr>,
        now: Timestamp,
    ) -> bool {
        self.bans.failed(peer, ban_policy(settings), now)
    }

    /// Forgets the wrong passwords of a peer that has given a right one.
    pub(super) fn auth_succeeded(&self, peer: Option<IpAddr>) {
        self.bans.succeeded(peer);
    }
}

fn ban_policy(settings: &Settings) -> BanPolicy {
    BanPolicy {
        failures_max: settings.submission.auth_failures_max,
        span: Duration::from_secs(settings.submission.auth_ban_secs),
    }
}

const BANNED: EnhancedStatus = EnhancedStatus::new(4, 7, 0);
