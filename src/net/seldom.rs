//! What is logged about a peer, once in a while: nobody can fill the log by trying again.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::listener::network_of;
use crate::clock::Stopwatch;

/// Remembers about whom something was said in this period.
#[derive(Debug)]
pub struct Seldom {
    period: Duration,
    said: Mutex<Said>,
}

#[derive(Debug)]
struct Said {
    since: Stopwatch,
    peers: HashSet<IpAddr>,
}

impl Seldom {
    /// Says something once an hour about each peer.
    pub fn hourly() -> Self {
        Self::every(Duration::from_secs(3600))
    }

    fn every(period: Duration) -> Self {
        let said = Said { since: Stopwatch::start(), peers: HashSet::new() };
        Self { period, said: Mutex::new(said) }
    }

    /// Whether it may be said about `peer` now; then it counts as said.
    ///
    /// After `PEERS_MAX` in one period nothing is said about others: there is enough to read.
    pub fn may_say(&self, peer: IpAddr) -> bool {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.since.elapsed() >= self.period {
            *said = Said { since: Stopwatch::start(), peers: HashSet::new() };
        }
        said.peers.len() < PEERS_MAX && said.peers.insert(network_of(peer))
    }
}

/// Peers about whom it is remembered that something was said in this period.
const PEERS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn each_peer_is_named_once_in_a_period() {
        let (one, other) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        let seldom = Seldom::hourly();
        let said = [one, other, one, other].map(|peer| seldom.may_say(peer));
        assert_eq!(said, [true, true, false, false]);
        // Another address of the same network is no other peer.
        assert!(!seldom.may_say("2001:db8::2".parse().unwrap()));
        let chatty = Seldom::every(Duration::ZERO);
        assert!(chatty.may_say(one) && chatty.may_say(one));
    }

    #[test]
    fn no_number_of_peers_takes_more_memory() {
        let seldom = Seldom::hourly();
        let peers = (0..100_000_u32).map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        assert_eq!(peers.filter(|peer| seldom.may_say(*peer)).count(), PEERS_MAX);
        assert_eq!(seldom.said.lock().unwrap().peers.len(), PEERS_MAX);
    }
}
