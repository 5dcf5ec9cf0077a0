//! The settings, with the compiled-in file `conf/rebound.toml` as their defaults.
//!
//! An operator's file is laid over the defaults, the environment over both.
//! What a setting means stands beside it in `conf/rebound.toml`; `load` reads it all.

mod keys;
mod load;
mod mailbox;
mod secrets;
mod span;
mod suppression;
mod validate;
mod webhook;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use load::{ConfigError, Environment, Loaded, Source, Variables, defaults, load, load_over};
pub use mailbox::{AfterCapture, Mailbox, MailboxAuth, MailboxTls, OAuth2, Provider, Unparsed};
pub use secrets::read_secret;
pub use span::Span;
pub use suppression::{Suppression, SuppressionMode};
pub use webhook::{Webhook, WebhookFormat};

use crate::mail::{Address, NameAddr, address::is_domain};

/// Every setting of the daemon.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The name in EHLO, `Received` and `Reporting-MTA`; empty means the host's own.
    pub hostname: String,
    /// The domain of the Message-IDs we stamp; empty means `hostname`.
    pub message_id_domain: String,
    /// Where everything that must survive is kept; empty means a default place.
    pub data_dir: PathBuf,
    /// Who gets what belongs to nobody; empty means `postmaster@<hostname>`.
    pub postmaster: String,
    /// Stage 1.
    pub submission: Submission,
    /// Certificates of our own servers.
    pub tls: Tls,
    /// The credentials of the apps.
    pub account: Vec<Account>,
    /// The smarthost.
    pub relay: Relay,
    /// Stage 2.
    pub queue: Queue,
    /// The reverse-path we send with.
    pub return_path: ReturnPath,
    /// Stage 4a.
    pub inbound: Inbound,
    /// Stage 4b.
    pub mailbox: Vec<Mailbox>,
    /// Stage 7.
    pub webhook: Vec<Webhook>,
    /// How bounces are read.
    pub bounces: Bounces,
    /// What is done about addresses that bounce.
    pub suppression: Suppression,
    /// How long things are kept.
    pub retention: Retention,
    /// Stage 6.
    pub http: Http,
    /// What is logged, and how.
    pub log: Log,
    /// The built-in destination of `rebound dev`.
    pub simulator: Simulator,
}

/// The SMTP server that apps submit to.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Submission {
    /// Where plain connections (with STARTTLS where there is a certificate) are taken.
    pub listen: Vec<SocketAddr>,
    /// Where implicit TLS connections are taken (RFC 8314).
    pub tls_listen: Vec<SocketAddr>,
    /// Who must authenticate.
    pub auth: AuthPolicy,
    /// Networks that need not authenticate, as `192.0.2.0/24`.
    pub trusted_networks: Vec<Network>,
    /// Networks of proxies, which begin each connection with a PROXY header.
    pub proxy_networks: Vec<Network>,
    /// Networks whose clients may say by XCLIENT on whose behalf they speak.
    pub xclient_networks: Vec<Network>,
    /// Octets of one mail.
    pub message_bytes_max: u64,
    /// Octets of the header of one mail.
    pub header_bytes_max: usize,
    /// Fields of the header of one mail.
    pub header_fields_max: usize,
    /// Recipients of one mail.
    pub recipients_max: u32,
    /// Connections that wait in the kernel to be taken.
    pub listen_backlog: u32,
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections at a time from one address.
    pub connections_per_address_max: usize,
    /// Errors after which a connection is closed.
    pub errors_max: u32,
    /// Commands other than RCPT and DATA since the last accepted mail after which a connection is
    /// closed.
    pub idle_commands_max: u32,
    /// Mails in one connection.
    pub transactions_max: u32,
    /// Seconds a client may take for one command.
    pub command_timeout_secs: u64,
    /// Seconds a client may take for one block of data.
    pub data_timeout_secs: u64,
    /// Seconds one mail may take in all.
    pub message_timeout_secs: u64,
    /// `Received` fields after which a mail is taken to go in circles.
    pub received_max: u32,
    /// What is done with a bare CR or LF in a mail.
    pub bare_newline: BareNewline,
    /// What is done with a line that is longer than SMTP allows.
    pub long_lines: LongLines,
    /// Mails of one account in a minute; 0 means no limit.
    pub messages_per_minute_max: u32,
    /// Recipients of one account in a minute; 0 means no limit.
    pub recipients_per_minute_max: u32,
    /// Failed authentications after which an address is banned; 0 means never.
    pub auth_failures_max: u32,
    /// Seconds in which they must lie, and for which it is banned then.
    pub auth_ban_secs: u64,
}

/// How much an account may submit in a minute; 0 means no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Mails.
    pub messages_per_minute_max: u32,
    /// Recipients.
    pub recipients_per_minute_max: u32,
}

/// Who must authenticate before submitting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthPolicy {
    /// Everyone but loopback, who may.
    Auto,
    /// Everyone, loopback included.
    Required,
    /// Nobody in `trusted_networks` or on loopback.
    Optional,
    /// Nobody in `trusted_networks` or on loopback; AUTH is not offered.
    None,
}

/// What is done with a bare CR or LF in a mail (RFC 5321 §2.3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BareNewline {
    /// The mail is refused.
    Refuse,
    /// A bare LF becomes CRLF, a bare CR is dropped.
    Normalize,
}

/// What is done with a line of more than 998 octets in a mail (RFC 5321 §4.5.3.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LongLines {
    /// The mail is taken as it is, and goes on as it is.
    Accept,
    /// The mail is refused.
    Refuse,
}

/// Certificates of our own servers.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// The pairs, the first being the one for clients that name no host.
    pub certificates: Vec<Certificate>,
}

/// One certificate with its key.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    /// The chain in PEM, the server's own first.
    pub cert_file: PathBuf,
    /// The key in PEM.
    pub key_file: PathBuf,
}

/// One app's credential.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    /// The user name of AUTH and the name in URLs.
    pub name: String,
    /// What `rebound account hash` printed; empty for an account that cannot log in.
    #[serde(default)]
    pub password_hash: String,
    /// The From of mails that it submits over HTTP without one: `Name <address>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<NameAddr>,
    /// Addresses (`a@b`) and domains (`@b`) it may send as; empty means any.
    #[serde(default)]
    pub allowed_senders: Vec<String>,
    /// Whether it is mailed DSNs about what is given up.
    #[serde(default)]
    pub dsn: DsnPolicy,
    /// Overrides `submission.messages_per_minute_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_minute_max: Option<u32>,
    /// Overrides `submission.recipients_per_minute_max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients_per_minute_max: Option<u32>,
    /// Overrides `return_path.mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub return_path: Option<ReturnPathMode>,
    /// Echoed in every answer about its mails.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub meta: BTreeMap<String, String>,
}

/// Whether an account is mailed DSNs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DsnPolicy {
    /// To its own reverse-path (RFC 5321 §6.1).
    #[default]
    Mail,
    /// Never: it looks up or listens.
    Never,
}

/// The next hop for everything.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Relay {
    /// `name`, `name:port`, `[address]:port`; empty means none: mail is held.
    pub host: String,
    /// The user name; empty means no AUTH.
    pub username: String,
    /// The password, once `load` has found it; in a file of its own it is better kept.
    #[serde(serialize_with = "redacted")]
    pub password: String,
    /// A file that holds the password.
    pub password_file: PathBuf,
    /// A systemd credential that holds the password.
    pub password_credential: String,
    /// An environment variable that holds the password.
    pub password_env: String,
    /// How the connection is protected.
    pub tls: RelayTls,
    /// Whether the certificate must be valid for the host.
    pub tls_verify: bool,
    /// Certificates that are trusted instead of the system's, in PEM.
    pub tls_ca_file: PathBuf,
    /// The address that connections are made from.
    #[serde(with = "empty_is_none")]
    pub source_address: Option<IpAddr>,
    /// Connections at a time.
    pub connections_max: usize,
    /// Recipients in one transaction in `preserve` mode.
    pub recipients_per_transaction_max: usize,
    /// Transactions in one connection.
    pub connection_reuse_max: u32,
    /// Seconds an idle connection is kept for the next mail.
    pub connection_idle_secs: u64,
    /// Seconds for opening a connection.
    pub connect_timeout_secs: u64,
    /// Seconds for the reply to a command (RFC 5321 §4.5.3.2).
    pub command_timeout_secs: u64,
    /// Seconds for sending one block of data (RFC 5321 §4.5.3.2.5).
    pub data_block_timeout_secs: u64,
    /// Seconds for the reply to the final dot (RFC 5321 §4.5.3.2.6).
    pub data_end_timeout_secs: u64,
}

/// How a connection to the smarthost is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RelayTls {
    /// `required`, but `opportunistic` to a loopback address.
    Auto,
    /// STARTTLS, or no mail.
    Required,
    /// TLS from the first octet.
    Implicit,
    /// STARTTLS where it is offered.
    Opportunistic,
    /// Plain.
    None,
}

/// When what is tried again, and for how long.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    /// The wait after the first, second, ... failed attempt; the last repeats.
    pub retry_after: Vec<Span>,
    /// How long a recipient is tried.
    pub lifetime: Span,
    /// Ages at which the app is told that mail is late.
    pub delay_notice_after: Vec<Span>,
    /// How far ahead an app may have a mail sent.
    pub send_at_max: Span,
    /// Attempts at a time.
    pub attempts_max_concurrent: usize,
    /// Seconds that running attempts are given when the daemon stops.
    pub drain_timeout_secs: u64,
}

/// The reverse-path we send with.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ReturnPath {
    /// Which; `auto` is `verp` with a domain and `preserve` without.
    pub mode: ReturnPathMode,
    /// The bounce domain.
    pub domain: String,
    /// What stands before the delimiter.
    pub prefix: String,
    /// What stands between prefix and token.
    pub delimiter: char,
    /// How long a token is taken.
    pub token_lifetime: Span,
    /// The keys; empty means `return_path.keys` in the data directory.
    pub key_file: PathBuf,
    /// Where reports caught at our return path go on to: `original`, `none`, or an address.
    pub forward_to: ForwardTo,
}

/// Which reverse-path a mail is relayed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ReturnPathMode {
    /// `verp` with a bounce domain, `preserve` without.
    Auto,
    /// The app's own.
    Preserve,
    /// `b+token@bounce-domain`.
    Verp,
    /// `user+b.token@own-domain`.
    Plus,
}

/// Where reports caught at our return path go on to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub enum ForwardTo {
    /// The reverse-path that the app had used.
    Original,
    /// Nowhere.
    None,
    /// One address for all.
    Address(Address),
}

/// The SMTP and LMTP server that reports arrive at.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inbound {
    /// Where connections are taken.
    pub listen: Vec<SocketAddr>,
    /// A Unix socket for LMTP; empty means none.
    pub lmtp_socket: PathBuf,
    /// Bounce addresses that are taken without a token.
    pub addresses: Vec<Address>,
    /// Whether even `addresses` need a token.
    pub require_token: bool,
    /// Networks of proxies, which begin each connection with a PROXY header.
    pub proxy_networks: Vec<Network>,
    /// Networks whose clients may say by XCLIENT on whose behalf they speak.
    pub xclient_networks: Vec<Network>,
    /// Octets of one report.
    pub message_bytes_max: u64,
    /// Recipients of one report.
    pub recipients_max: u32,
    /// Connections that wait in the kernel to be taken.
    pub listen_backlog: u32,
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections at a time from one address.
    pub connections_per_address_max: usize,
    /// Commands other than RCPT and DATA since the last accepted report after which a connection
    /// is closed.
    pub idle_commands_max: u32,
    /// Reports that are stored for one token in one day; more are taken and counted only.
    pub reports_per_token_per_day_max: u32,
    /// Reports that are stored in one day; more are put off with a 452.
    pub reports_per_day_max: u32,
}

/// How bounces are read.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Bounces {
    /// How long a relayed mail may still bounce.
    pub window: Span,
    /// Rules instead of the compiled-in ones; empty means those.
    pub rules_file: PathBuf,
    /// Rules for what next hops call a mail instead of the compiled-in ones; empty means those.
    pub alias_rules_file: PathBuf,
    /// Whether a match of low confidence changes a state, too.
    pub low_confidence_changes_state: bool,
}

/// How long things are kept.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// Records, attempts, bounces and reports.
    pub keep: Span,
    /// Bodies, from the end of the last recipient on.
    pub bodies: Span,
}

/// The HTTP server.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Where connections are taken.
    pub listen: Vec<SocketAddr>,
    /// The tokens' hashes; empty means `tokens` in the data directory.
    pub tokens_file: PathBuf,
    /// How we are reached, as webhooks say in `serviceUrl`; empty leaves it out.
    pub service_url: String,
    /// Connections at a time.
    pub connections_max: usize,
    /// Connections at a time from one address.
    pub connections_per_address_max: usize,
    /// Requests in a minute with one token, or from one address without; 0 means no limit.
    pub requests_per_minute_max: u32,
    /// Look-ups that are made at a time; others wait.
    pub look_ups_max_concurrent: usize,
    /// Seconds a client may take to send its header.
    pub header_timeout_secs: u64,
    /// Octets of the body of a request.
    pub request_bytes_max: u64,
    /// Seconds a client may take to send the body of a request.
    pub request_timeout_secs: u64,
    /// Seconds a client may take for each piece of an answer.
    pub write_timeout_secs: u64,
    /// Whether the web page is served at `/`.
    pub ui: bool,
}

/// What is logged, and how.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// The form of a line.
    pub format: LogFormat,
    /// The least important level that is logged.
    pub level: LogLevel,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// `text` on a terminal, else `json`.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// How important a log line must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs a person.
    Error,
    /// What may need one.
    Warn,
    /// One line per mail event.
    Info,
    /// What a developer wants to see.
    Debug,
    /// Everything.
    Trace,
}

/// The built-in destination of `rebound dev`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Simulator {
    /// Whether it runs.
    pub enabled: bool,
    /// The domain of its addresses.
    pub domain: String,
}

/// An IP network such as `192.0.2.0/24`; a lone address is a network of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix_len: u8,
}

impl Network {
    /// Whether `address` lies in the network; an IPv4 address in IPv6 form counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address.to_canonical() {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, 32_u8),
            IpAddr::V6(v6) => (v6.to_bits(), 128),
        };
        let ((own, own_len), (other, other_len)) = (bits(self.address), bits(address));
        let host_bits = 128_u32.saturating_sub(u32::from(self.prefix_len));
        let mask = u128::MAX.checked_shl(host_bits).unwrap_or(0);
        own_len == other_len && own & mask == other & mask
    }

    /// Whether `peer` lies in one of the networks; one without an address, on a Unix socket, does
    /// not.
    pub fn any_contains(networks: &[Self], peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|address| networks.iter().any(|network| network.contains(address)))
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let expected = || format!("`{text}` is no network such as 192.0.2.0/24");
        let (address, prefix_len) = match text.split_once('/') {
            Some((address, len)) => (address, Some(len.parse::<u8>().map_err(|_e| expected())?)),
            None => (text.as_str(), None),
        };
        let address: IpAddr = address.parse().map_err(|_e| expected())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix_len = prefix_len.unwrap_or(longest);
        if prefix_len > longest { Err(expected()) } else { Ok(Self { address, prefix_len }) }
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        format!("{}/{}", network.address, network.prefix_len)
    }
}

impl TryFrom<String> for ForwardTo {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "original" => Ok(Self::Original),
            "none" => Ok(Self::None),
            _ => Address::parse(&text).map(Self::Address).map_err(|error| {
                format!("`{text}` is neither `original`, `none` nor an address ({error})")
            }),
        }
    }
}

impl From<ForwardTo> for String {
    fn from(forward: ForwardTo) -> Self {
        match forward {
            ForwardTo::Original => "original".to_owned(),
            ForwardTo::None => "none".to_owned(),
            ForwardTo::Address(address) => address.to_string(),
        }
    }
}

impl Settings {
    /// The domain of the Message-IDs that are stamped.
    pub fn message_id_domain(&self) -> &str {
        if self.message_id_domain.is_empty() { &self.hostname } else { &self.message_id_domain }
    }

    /// The account of that name.
    pub fn account(&self, name: &str) -> Option<&Account> {
        self.account.iter().find(|account| account.name == name)
    }

    /// How much the account of that name may submit in a minute.
    pub fn rate_limits(&self, name: &str) -> RateLimits {
        let account = self.account(name);
        let own = |limit: fn(&Account) -> Option<u32>| account.and_then(limit);
        let all = &self.submission;
        RateLimits {
            messages_per_minute_max: own(|account| account.messages_per_minute_max)
                .unwrap_or(all.messages_per_minute_max),
            recipients_per_minute_max: own(|account| account.recipients_per_minute_max)
                .unwrap_or(all.recipients_per_minute_max),
        }
    }

    /// Which reverse-path the mails of an account leave with.
    pub fn return_path_mode(&self, account: Option<&Account>) -> ReturnPathMode {
        let mode = account.and_then(|account| account.return_path).unwrap_or(self.return_path.mode);
        match mode {
            ReturnPathMode::Auto if is_domain(&self.return_path.domain) => ReturnPathMode::Verp,
            ReturnPathMode::Auto => ReturnPathMode::Preserve,
            chosen => chosen,
        }
    }
}

/// A secret is never printed.
fn redacted<S: serde::Serializer>(secret: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(if secret.is_empty() { "" } else { "(set)" })
}

/// An address, or nothing where the text is empty.
mod empty_is_none {
    use std::net::IpAddr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        address: &Option<IpAddr>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&address.map(|address| address.to_string()).unwrap_or_default())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<IpAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let parse = |text: String| text.parse().map_err(|_e| format!("`{text}` is no IP address"));
        if text.is_empty() { Ok(None) } else { parse(text).map(Some).map_err(D::Error::custom) }
    }
}

impl Relay {
    /// Host and port of the smarthost; `None` where `host` is empty or cannot be read.
    pub fn endpoint(&self) -> Option<(&str, u16)> {
        let default = if self.tls == RelayTls::Implicit { 465 } else { 587 };
        let (host, port) = match self.host.strip_prefix('[') {
            // `[address]:port`, and `[name]:port` as Postfix writes it.
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':').or(port.is_empty().then_some(""))?)
            }
            None if self.host.parse::<IpAddr>().is_ok() => (self.host.as_str(), ""),
            None => self.host.split_once(':').unwrap_or((&self.host, "")),
        };
        let port = if port.is_empty() { default } else { port.parse().ok()? };
        (is_domain(host) || host.parse::<IpAddr>().is_ok()).then_some((host, port))
    }

    /// Whether the smarthost is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.endpoint().is_some_and(|(host, _)| {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_its_own_limits_or_those_of_all() {
        let mut settings = load::defaults();
        settings.submission.messages_per_minute_max = 100;
        let text = "name = \"shop\"\nmessages_per_minute_max = 0\nrecipients_per_minute_max = 7";
        settings.account.push(toml::from_str(text).unwrap());
        for (name, messages, recipients) in [("shop", 0, 7), ("default", 100, 0)] {
            let limits = settings.rate_limits(name);
            let got = (limits.messages_per_minute_max, limits.recipients_per_minute_max);
            assert_eq!(got, (messages, recipients), "{name}");
        }
    }

    #[test]
    fn a_network_contains_its_addresses_only() {
        for (network, address, want) in [
            ("192.0.2.0/24", "192.0.2.77", true),
            ("192.0.2.0/24", "192.0.3.1", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("::/0", "2001:db8::1", true),
        ] {
            let network = Network::try_from(network.to_owned()).unwrap();
            assert_eq!(network.contains(address.parse().unwrap()), want, "{network:?} {address}");
        }
        for bad in ["", "x", "192.0.2.0/33", "192.0.2.0/-1", "2001:db8::/129"] {
            assert!(Network::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
