//! `[[mailbox]]`: the IMAP mailboxes that reports arrive in.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Span, redacted};

/// One mailbox that is watched.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Mailbox {
    /// What it is called in logs, metrics and URLs.
    pub name: String,
    /// The IMAP server.
    pub host: String,
    /// Its port; 993 with implicit TLS and 143 otherwise, unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: MailboxTls,
    /// Certificates that are trusted instead of the system's, in PEM.
    #[serde(default)]
    pub tls_ca_file: PathBuf,
    /// The user name.
    pub username: String,
    /// How it logs in.
    #[serde(default)]
    pub auth: MailboxAuth,
    /// The password, once `Loaded::find_secrets` has found it.
    #[serde(default, serialize_with = "redacted")]
    pub password: String,
    /// A file that holds it; read again at every login.
    #[serde(default)]
    pub password_file: PathBuf,
    /// A systemd credential that holds it.
    #[serde(default)]
    pub password_credential: String,
    /// An environment variable that holds it.
    #[serde(default)]
    pub password_env: String,
    /// Where access tokens come from, for `xoauth2` and `oauthbearer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oauth2: Option<OAuth2>,
    /// Folders by name, or by special use as `\Junk` (RFC 6154); the first is watched with IDLE.
    #[serde(default = "default_folders")]
    pub folders: Vec<String>,
    /// Whether the server is asked to tell at once what arrives (RFC 2177).
    #[serde(default = "yes")]
    pub idle: bool,
    /// Seconds after which all folders are looked at, whatever the server tells.
    #[serde(default = "default_poll_interval_secs")]
    pub poll_interval_secs: u64,
    /// How old a mail may be that is read when a folder is seen for the first time.
    #[serde(default = "default_since")]
    pub since: Span,
    /// What is done with a report once it is captured.
    #[serde(default)]
    pub after: AfterCapture,
    /// What is done with a mail that cannot be read.
    #[serde(default)]
    pub unparsed: Unparsed,
    /// The folder that mails are moved to.
    #[serde(default)]
    pub move_to: String,
    /// Octets of a mail that is read whole; of a larger one the head and 256 KiB are read.
    #[serde(default = "default_message_bytes_max")]
    pub message_bytes_max: u64,
    /// Seconds for opening a connection.
    #[serde(default = "default_connect_timeout_secs")]
    pub connect_timeout_secs: u64,
    /// Seconds for the whole answer to one command; for a large mail it is longer.
    #[serde(default = "default_command_timeout_secs")]
    pub command_timeout_secs: u64,
}

/// How the connection to a mailbox is protected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailboxTls {
    /// TLS from the first octet (RFC 8314).
    #[default]
    Implicit,
    /// STARTTLS, or no login.
    Starttls,
    /// Plain; to loopback only.
    None,
}

/// How the poller logs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum MailboxAuth {
    /// With a password: AUTHENTICATE PLAIN where it is offered, else LOGIN.
    #[default]
    Password,
    /// With an access token, as Google and Microsoft have it.
    Xoauth2,
    /// With an access token (RFC 7628).
    Oauthbearer,
}

/// What is done with a report in its folder once it is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AfterCapture {
    /// Nothing.
    #[default]
    Keep,
    /// It is marked as seen.
    Seen,
    /// It is moved to `move_to`.
    Move,
    /// It is deleted.
    Delete,
}

/// What is done with a mail that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unparsed {
    /// Nothing.
    #[default]
    Keep,
    /// It is moved to `move_to`.
    Move,
}

/// Where access tokens come from (RFC 6749 §6).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct OAuth2 {
    /// Whose addresses and scope are filled in.
    #[serde(default)]
    pub provider: Provider,
    /// The token endpoint.
    #[serde(default)]
    pub token_url: String,
    /// The device authorization endpoint, for `rebound oauth2 login` (RFC 8628).
    #[serde(default)]
    pub device_url: String,
    /// The client's name at the provider.
    pub client_id: String,
    /// The client's secret, once `Loaded::find_secrets` has found it; some providers want none.
    #[serde(default, serialize_with = "redacted")]
    pub client_secret: String,
    /// A file that holds it.
    #[serde(default)]
    pub client_secret_file: PathBuf,
    /// A systemd credential that holds it.
    #[serde(default)]
    pub client_secret_credential: String,
    /// An environment variable that holds it.
    #[serde(default)]
    pub client_secret_env: String,
    /// The refresh token; replaced when the provider gives a new one.
    #[serde(default)]
    pub refresh_token_file: PathBuf,
    /// What is asked for.
    #[serde(default)]
    pub scope: String,
    /// Certificates that are trusted for the endpoints instead of the system's, in PEM.
    #[serde(default)]
    pub tls_ca_file: PathBuf,
}

/// A provider of access tokens whose addresses are known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// Gmail and Google Workspace.
    Google,
    /// Microsoft 365 and Outlook.
    Microsoft365,
    /// Any other.
    #[default]
    Custom,
}

impl Mailbox {
    /// The port that is connected to.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(if self.tls == MailboxTls::Implicit { 993 } else { 143 })
    }

    /// Whether the server is on this machine.
    pub fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }

    /// Whether anything is ever changed in its folders.
    pub fn is_read_only(&self) -> bool {
        self.after == AfterCapture::Keep && self.unparsed == Unparsed::Keep
    }
}

impl MailboxAuth {
    /// Whether it logs in with an access token.
    pub fn needs_token(self) -> bool {
        match self {
            Self::Password => false,
            Self::Xoauth2 | Self::Oauthbearer => true,
        }
    }
}

impl OAuth2 {
    /// Fills in what the provider decides and the operator has left out.
    pub(super) fn complete(&mut self) {
        let (token_url, device_url, scope) = match self.provider {
            Provider::Google => (
                "https://oauth2.googleapis.com/token",
                "https://oauth2.googleapis.com/device/code",
                "https://mail.google.com/",
            ),
            Provider::Microsoft365 => (
                "https://login.microsoftonline.com/common/oauth2/v2.0/token",
                "https://login.microsoftonline.com/common/oauth2/v2.0/devicecode",
                "https://outlook.office.com/IMAP.AccessAsUser.All offline_access",
            ),
            Provider::Custom => return,
        };
        let fill = |setting: &mut String, value: &str| {
            if setting.is_empty() {
                value.clone_into(setting);
            }
        };
        fill(&mut self.token_url, token_url);
        fill(&mut self.device_url, device_url);
        fill(&mut self.scope, scope);
    }
}

fn yes() -> bool {
    true
}

fn default_folders() -> Vec<String> {
    vec!["INBOX".to_owned(), "\\Junk".to_owned()]
}

fn default_poll_interval_secs() -> u64 {
    300
}

fn default_since() -> Span {
    Span::of_days(7)
}

fn default_message_bytes_max() -> u64 {
    10_485_760
}

fn default_connect_timeout_secs() -> u64 {
    30
}

fn default_command_timeout_secs() -> u64 {
    120
}

#[cfg(test)]
mod tests {
    use crate::config::{Loaded, load};

    /// What a file with one mailbox of these further lines says.
    fn mailbox(more: &str) -> Result<Loaded, String> {
        let name = format!("rebound-mailbox-{:016x}.toml", crate::secret::random_u64());
        let path = std::env::temp_dir().join(name);
        let text = "[[mailbox]]\nname = \"a\"\nhost = \"h\"\nusername = \"u\"\n";
        std::fs::write(&path, format!("{text}{more}")).unwrap();
        let environment = |name: &str| (name == "SECRET").then(|| "hunter2".to_owned());
        let loaded = load(Some(&path), &environment).and_then(|mut loaded| {
            loaded.find_secrets(&environment)?;
            Ok(loaded)
        });
        std::fs::remove_file(&path).unwrap();
        loaded.map_err(|error| error.to_string().replace(path.to_str().unwrap(), "FILE"))
    }

    #[test]
    fn a_mailbox_has_defaults_and_its_secrets_are_found_and_never_shown() {
        let more = "auth = \"oauthbearer\"\n[mailbox.oauth2]\nprovider = \"google\"\n\
                    client_id = \"c\"\nclient_secret_env = \"SECRET\"\n";
        let loaded = mailbox(more).unwrap();
        let found = &loaded.settings.mailbox[0];
        assert_eq!((found.port(), found.poll_interval_secs, found.idle), (993, 300, true));
        assert_eq!(found.folders, ["INBOX", "\\Junk"]);
        let oauth2 = found.oauth2.as_ref().unwrap();
        assert_eq!(oauth2.client_secret, "hunter2");
        assert_eq!(oauth2.token_url, "https://oauth2.googleapis.com/token");
        assert!(oauth2.refresh_token_file.ends_with("oauth2-a"));
        assert!(loaded.values().iter().all(|(_, value)| !value.contains("hunter2")));
    }

    #[test]
    fn every_wrong_mailbox_names_line_key_and_remedy() {
        for (more, want) in [
            ("", "4: `mailbox[0].username`: has no password; give password_file"),
            (
                "password_file = \"/nonexistent\"",
                "5: `mailbox[0].password_file`: cannot read /nonexistent: ",
            ),
            (
                "password = \"p\"\ntls = \"none\"",
                "6: `mailbox[0].tls`: `none` would send the login in the clear",
            ),
            (
                "password = \"p\"\nafter = \"move\"",
                "1: `mailbox[0].move_to`: `move` needs a folder to move to",
            ),
            (
                "password = \"p\"\npoll_interval_secs = 1800",
                "6: `mailbox[0].poll_interval_secs`: must be from 1 to 1500",
            ),
            ("password = \"p\"\nfolders = []", "6: `mailbox[0].folders`: the list is empty"),
            ("auth = \"xoauth2\"", "5: `mailbox[0].auth`: needs oauth2 = "),
            (
                "auth = \"xoauth2\"\noauth2 = { client_id = \"c\", \
                 token_url = \"http://127.0.0.1.evil.test/\" }",
                "6: `mailbox[0].oauth2`: token_url: `http://127.0.0.1.evil.test/` must begin",
            ),
            ("colour = 1", "5: `mailbox[0].colour`: unknown field `colour`, expected one of"),
        ] {
            let error = mailbox(more).unwrap_err();
            let want = format!("FILE, line {want}");
            assert!(error.starts_with(&want), "{more}\n got {error}\nwant {want}");
        }
    }
}
