//! Addresses that have guessed passwords too often.
//!
//! A network is one IPv4 address or one IPv6 network of 64 bits, as for the limit of connections.
//! Loopback is never banned: all apps of this host share it, and one with an old password would
//! lock the others out; so would any stranger behind a proxy on this host.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::mail::Timestamp;
use crate::net::listener::network_of;

/// Counts failed authentications by network; clones share the counts.
#[derive(Clone, Default)]
pub(super) struct Bans {
    networks: Arc<Mutex<HashMap<IpAddr, Guesses>>>,
}

/// When a network is banned.
#[derive(Clone, Copy, Debug)]
pub(super) struct BanPolicy {
    /// After how many failures; 0 means never.
    pub(super) failures_max: u32,
    /// Within how long, and for how long.
    pub(super) span: Duration,
}

/// What a network has done.
#[derive(Clone, Copy, Debug)]
struct Guesses {
    failures: u32,
    /// The first of the failures, or when the ban began.
    since: Timestamp,
    is_banned: bool,
}

impl Bans {
    /// Whether `peer` may not authenticate at `now`.
    pub(super) fn is_banned(
        &self,
        peer: Option<IpAddr>,
        policy: BanPolicy,
        now: Timestamp,
    ) -> bool {
        let guesses = bannable(peer).and_then(|network| self.networks().get(&network).copied());
        guesses.is_some_and(|guesses| guesses.is_banned && guesses.counts(policy, now))
    }

    /// Counts a failure; whether it is the one that begins a ban.
    pub(super) fn failed(&self, peer: Option<IpAddr>, policy: BanPolicy, now: Timestamp) -> bool {
        let Some(network) = bannable(peer).filter(|_| policy.failures_max > 0) else {
            return false;
        };
        let mut networks = self.networks();
        if networks.len() >= NETWORKS_MAX && !networks.contains_key(&network) {
            make_room(&mut networks, policy, now);
        }
        let fresh = Guesses { failures: 0, since: now, is_banned: false };
        let guesses = networks.entry(network).or_insert(fresh);
        if !guesses.counts(policy, now) {
            *guesses = fresh;
        }
        guesses.failures = guesses.failures.saturating_add(1);
        let begins = !guesses.is_banned && guesses.failures >= policy.failures_max;
        if begins {
            *guesses = Guesses { since: now, is_banned: true, ..*guesses };
        }
        begins
    }

    /// Forgets the failures of a peer that has authenticated.
    pub(super) fn succeeded(&self, peer: Option<IpAddr>) {
        if let Some(network) = bannable(peer) {
            self.networks().remove(&network);
        }
    }

    fn networks(&self) -> MutexGuard<'_, HashMap<IpAddr, Guesses>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guesses {
    /// Whether it is recent enough to be of any weight.
    fn counts(&self, policy: BanPolicy, now: Timestamp) -> bool {
        now.since(self.since) < policy.span
    }
}

/// The network of a peer that could be banned.
fn bannable(peer: Option<IpAddr>) -> Option<IpAddr> {
    peer.filter(|address| !address.to_canonical().is_loopback()).map(network_of)
}

/// Drops what is over, or else the oldest, and a ban only where there is nothing else.
fn make_room(networks: &mut HashMap<IpAddr, Guesses>, policy: BanPolicy, now: Timestamp) {
    networks.retain(|_, guesses| guesses.counts(policy, now));
    if networks.len() >= NETWORKS_MAX {
        let oldest = networks.iter().min_by_key(|(_, guesses)| (guesses.is_banned, guesses.since));
        if let Some(network) = oldest.map(|(network, _)| *network) {
            networks.remove(&network);
        }
    }
}

/// Networks whose failures are remembered.
const NETWORKS_MAX: usize = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: BanPolicy = BanPolicy { failures_max: 3, span: Duration::from_secs(600) };

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(1_665_576_640_980).plus(Duration::from_secs(secs))
    }

    fn peer(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn so_many_failures_in_time_ban_for_as_long() {
        let bans = Bans::default();
        let address = peer("192.0.2.1");
        for (secs, begins, banned) in
            [(0, false, false), (1, false, false), (2, true, true), (3, false, true)]
        {
            assert_eq!(bans.failed(address, POLICY, at(secs)), begins, "{secs}");
            assert_eq!(bans.is_banned(address, POLICY, at(secs)), banned, "{secs}");
        }
        assert!(!bans.is_banned(peer("192.0.2.2"), POLICY, at(3)));
        assert!(bans.is_banned(address, POLICY, at(601)));
        assert!(!bans.is_banned(address, POLICY, at(602)));
        assert!(!bans.failed(address, POLICY, at(602)), "it begins anew");
        // Too slow for the span.
        let slow = peer("192.0.2.3");
        for secs in [0, 590, 600, 1200] {
            assert!(!bans.failed(slow, POLICY, at(secs)), "{secs}");
        }
    }

    #[test]
    fn a_success_clears_the_count() {
        let bans = Bans::default();
        let address = peer("192.0.2.1");
        for _ in 0..5 {
            assert!(!bans.failed(address, POLICY, at(0)));
            assert!(!bans.failed(address, POLICY, at(0)));
            bans.succeeded(address);
        }
    }

    #[test]
    fn one_network_is_one_guesser_and_loopback_is_none() {
        let never = BanPolicy { failures_max: 0, ..POLICY };
        for (failing, asking, policy, banned) in [
            ("192.0.2.1", "::ffff:192.0.2.1", POLICY, true),
            ("2001:db8::1", "2001:db8:0:0:ffff::9", POLICY, true),
            ("2001:db8::1", "2001:db8:0:1::1", POLICY, false),
            ("127.0.0.1", "127.0.0.1", POLICY, false),
            ("::1", "::1", POLICY, false),
            ("::ffff:127.0.0.1", "127.0.0.1", POLICY, false),
            ("192.0.2.1", "192.0.2.1", never, false),
        ] {
            let bans = Bans::default();
            for _ in 0..9 {
                bans.failed(peer(failing), policy, at(0));
            }
            assert_eq!(bans.is_banned(peer(asking), policy, at(0)), banned, "{failing} {asking}");
        }
        assert!(!Bans::default().failed(None, POLICY, at(0)));
    }

    #[test]
    fn memory_is_bounded_and_a_ban_outlasts_passers_by() {
        let bans = Bans::default();
        let banned = peer("192.0.2.1");
        for _ in 0..3 {
            bans.failed(banned, POLICY, at(0));
        }
        let many = u32::try_from(NETWORKS_MAX).unwrap() + 100;
        for number in 0..many {
            let address = IpAddr::from((0x0A00_0000 + number).to_be_bytes());
            bans.failed(Some(address), POLICY, at(1));
        }
        assert_eq!(bans.networks().len(), NETWORKS_MAX);
        assert!(bans.is_banned(banned, POLICY, at(1)));
        bans.failed(peer("192.0.2.9"), POLICY, at(10_000));
        assert_eq!(bans.networks().len(), 1);
    }
}
