//! Where mail goes next: the smarthost of the settings, resolved for each connection.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::config;
use crate::mail::address::ascii_domain;

/// The name and port of a next hop.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Route {
    /// A domain name in A-labels, or an address without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

impl Route {
    /// The smarthost of the settings; `None` when there is none.
    pub fn of(settings: &config::Relay) -> Option<Self> {
        let (host, port) = settings.endpoint()?;
        // DNS and certificates know A-labels alone.
        Some(Self { host: ascii_domain(host).into_owned(), port })
    }

    /// The addresses to try, in the resolver's order; those of the other family are left out when
    /// connections are made from one address.
    pub(super) async fn resolve(
        &self,
        source_address: Option<IpAddr>,
        limit: Duration,
    ) -> Result<Vec<SocketAddr>, String> {
        let lookup = tokio::net::lookup_host((self.host.as_str(), self.port));
        let found = match tokio::time::timeout(limit, lookup).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return Err(format!("looking up {} failed: {error}", self.host)),
            Err(_) => {
                return Err(format!("looking up {} took over {} s", self.host, limit.as_secs()));
            }
        };
        let usable = |address: &SocketAddr| {
            source_address.is_none_or(|source| source.is_ipv4() == address.is_ipv4())
        };
        let mut addresses: Vec<SocketAddr> = found.filter(usable).collect();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(format!("{} has no address that can be used", self.host));
        }
        Ok(addresses)
    }
}

/// `name:port`, with brackets around an IPv6 address.
impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Addresses of one next hop that are tried in one attempt.
const ADDRESSES_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    fn route(host: &str) -> Option<Route> {
        let mut settings = config::defaults().relay;
        settings.host = host.to_owned();
        Route::of(&settings)
    }

    #[test]
    fn a_route_shows_as_it_would_be_configured_with_its_name_in_a_labels() {
        for (host, want) in [
            ("smtp.example.com", Some("smtp.example.com:587")),
            ("192.0.2.1:25", Some("192.0.2.1:25")),
            ("[2001:db8::1]:25", Some("[2001:db8::1]:25")),
            ("smtp.bücher.example:465", Some("smtp.xn--bcher-kva.example:465")),
            ("", None),
        ] {
            assert_eq!(route(host).map(|route| route.to_string()).as_deref(), want, "{host}");
        }
    }

    #[tokio::test]
    async fn addresses_of_the_other_family_are_left_out() {
        let limit = Duration::from_secs(5);
        let route = route("127.0.0.1:25").unwrap();
        assert_eq!(route.resolve(None, limit).await.unwrap(), ["127.0.0.1:25".parse().unwrap()]);
        let error = route.resolve(Some("::1".parse().unwrap()), limit).await.unwrap_err();
        assert!(error.contains("no address that can be used"), "{error}");
    }
}
