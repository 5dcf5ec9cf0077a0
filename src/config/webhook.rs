//! `[[webhook]]`: the URLs that are told what happens.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::validate::{Problem, problem};
use super::{Span, redacted};
use crate::mail::EVENT_NAMES;
use crate::secret::WebhookSecret;

/// One URL that is told what happens.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// What it is called in logs, metrics and URLs; where it has come to is kept by this name.
    pub name: String,
    /// Where events are posted; a user name and password in it are sent as basic authentication.
    #[serde(serialize_with = "redacted")]
    pub url: String,
    /// The key of the signatures, once `Loaded::find_secrets` has found it.
    #[serde(default, serialize_with = "redacted")]
    pub secret: String,
    /// A file that holds it.
    #[serde(default)]
    pub secret_file: PathBuf,
    /// A systemd credential that holds it.
    #[serde(default)]
    pub secret_credential: String,
    /// An environment variable that holds it.
    #[serde(default)]
    pub secret_env: String,
    /// The events that are told; empty means all.
    #[serde(default)]
    pub events: Vec<String>,
    /// The accounts whose events are told; empty means all.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The form of what is told.
    #[serde(default)]
    pub format: WebhookFormat,
    /// Further fields of each request.
    #[serde(default, serialize_with = "redacted_values")]
    pub headers: BTreeMap<String, String>,
    /// Seconds for one delivery, from the look-up of the name to the end of the answer.
    #[serde(default = "default_timeout_secs")]
    pub timeout_secs: u64,
    /// The waits after the first failures of a delivery; the last one repeats.
    #[serde(default = "default_retry_after")]
    pub retry_after: Vec<Span>,
    /// How long after its first try a delivery is given up.
    #[serde(default = "default_retry_for")]
    pub retry_for: Span,
    /// Whether loopback and private networks may be reached.
    #[serde(default)]
    pub allow_private_networks: bool,
    /// Certificates that are trusted instead of the system's, in PEM.
    #[serde(default)]
    pub tls_ca_file: PathBuf,
}

/// The form of what a webhook is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookFormat {
    /// EmailEngine's.
    #[default]
    EmailEngine,
    /// As in `/v1/events`, with the mail that it is about.
    Events,
}

impl WebhookFormat {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::EmailEngine => "emailengine",
            Self::Events => "events",
        }
    }
}

/// Checks what the types cannot say. Whether the URL can be asked is found out where it is.
pub(super) fn check(webhooks: &[Webhook]) -> Result<(), Problem> {
    let mut names = BTreeSet::new();
    for (index, webhook) in webhooks.iter().enumerate() {
        let key = |field: &str| format!("webhook[{index}].{field}");
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if webhook.name.is_empty() || !webhook.name.chars().all(word) {
            let text = format!("`{}`: expected letters, digits and any of `-_.`", webhook.name);
            return problem(&key("name"), &text);
        }
        if !names.insert(&webhook.name) {
            let text = format!("the name `{}` is taken by a webhook above", webhook.name);
            return problem(&key("name"), &text);
        }
        let is_url = webhook.url.starts_with("https://") || webhook.url.starts_with("http://");
        if !is_url || webhook.url.chars().any(|c| c.is_control() || c == ' ') {
            return problem(&key("url"), "expected a URL such as https://app.example.com/hook");
        }
        if webhook.is_unsigned() {
            return problem(&key("name"), "has no secret; give secret_file");
        }
        if let Some(event) = webhook.events.iter().find(|one| !EVENT_NAMES.contains(&one.as_str()))
        {
            let text = format!("`{event}` is none of {}", EVENT_NAMES.join(", "));
            return problem(&key("events"), &text);
        }
        check_times(webhook, &key)?;
        for name in webhook.headers.keys() {
            if RESERVED.contains(&name.to_ascii_lowercase().as_str()) {
                return problem(&key("headers"), &format!("`{name}` is set by the request itself"));
            }
        }
    }
    Ok(())
}

fn check_times(webhook: &Webhook, key: &dyn Fn(&str) -> String) -> Result<(), Problem> {
    if !(1..=TIMEOUT_SECS_MAX).contains(&webhook.timeout_secs) {
        let text = format!("must be from 1 to {TIMEOUT_SECS_MAX}");
        return problem(&key("timeout_secs"), &text);
    }
    if webhook.retry_after.is_empty() {
        return problem(&key("retry_after"), "the list is empty; give at least one wait");
    }
    if webhook.retry_after.iter().any(|wait| wait.duration().is_zero()) {
        return problem(&key("retry_after"), "a wait of 0s would never rest; give at least 1s");
    }
    Ok(())
}

/// Checks the secrets once they are found.
pub(super) fn check_secrets(webhooks: &[Webhook]) -> Result<(), Problem> {
    for (index, webhook) in webhooks.iter().enumerate() {
        if let Err(why) = WebhookSecret::parse(&webhook.secret) {
            return problem(&format!("webhook[{index}].secret"), why);
        }
    }
    Ok(())
}

impl Webhook {
    fn is_unsigned(&self) -> bool {
        self.secret.is_empty()
            && self.secret_file.as_os_str().is_empty()
            && self.secret_credential.is_empty()
            && self.secret_env.is_empty()
    }
}

fn redacted_values<S: serde::Serializer>(
    values: &BTreeMap<String, String>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(values.keys().map(|name| (name, "(set)")))
}

const fn default_timeout_secs() -> u64 {
    TIMEOUT_SECS_MAX
}

fn default_retry_after() -> Vec<Span> {
    let waits = ["5s", "30s", "2m", "10m", "30m", "1h", "2h", "4h"];
    waits.iter().filter_map(|wait| Span::try_from((*wait).to_owned()).ok()).collect()
}

const fn default_retry_for() -> Span {
    Span::of_days(3)
}

/// The longest time for one delivery.
const TIMEOUT_SECS_MAX: u64 = 30;
/// Fields that say where a request goes and how long it is.
const RESERVED: [&str; 4] = ["host", "content-length", "transfer-encoding", "connection"];

#[cfg(test)]
mod tests {
    use crate::config::{Loaded, load};

    /// What a file with one webhook of these further lines says.
    fn webhook(more: &str) -> Result<Loaded, String> {
        let name = format!("rebound-webhook-{:016x}.toml", crate::secret::random_u64());
        let path = std::env::temp_dir().join(name);
        let text = "[[webhook]]\nname = \"a\"\nurl = \"https://u:pw@a.example/x\"\n";
        std::fs::write(&path, format!("{text}{more}")).unwrap();
        let found = load(Some(&path), &|_: &str| None).and_then(|mut loaded| {
            loaded.find_secrets(&|_: &str| None)?;
            Ok(loaded)
        });
        std::fs::remove_file(&path).unwrap();
        found.map_err(|error| error.to_string())
    }

    #[test]
    fn a_webhook_has_defaults_and_shows_no_secret() {
        let more = "secret = \"0123456789abcdef\"\nheaders = { X-Key = \"hidden\" }\n";
        let loaded = webhook(more).unwrap();
        let found = &loaded.settings.webhook[0];
        assert_eq!(found.timeout_secs, 30);
        assert_eq!(found.retry_after.len(), 8);
        let shown = format!("{:?}", loaded.values());
        for secret in ["pw@", "0123456789abcdef", "hidden"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }

    #[test]
    fn every_wrong_webhook_names_its_key_and_remedy() {
        const SECRET: &str = "secret = \"0123456789abcdef\"\n";
        for (more, want) in [
            ("", "`webhook[0].name`: has no secret; give secret_file"),
            ("secret = \"short\"", "`webhook[0].secret`: it is too short"),
            (
                "secret_file = \"/nonexistent\"",
                "`webhook[0].secret_file`: cannot read /nonexistent",
            ),
            (
                &format!("{SECRET}events = [\"x\"]"),
                "`webhook[0].events`: `x` is none of messageSent",
            ),
            (
                &format!("{SECRET}timeout_secs = 31"),
                "`webhook[0].timeout_secs`: must be from 1 to 30",
            ),
            (&format!("{SECRET}retry_after = []"), "`webhook[0].retry_after`: the list is empty"),
            (
                &format!("{SECRET}headers = {{ Host = \"x\" }}"),
                "`webhook[0].headers`: `Host` is set",
            ),
            (&format!("{SECRET}colour = 1"), "unknown field `colour`"),
        ] {
            let error = webhook(more).unwrap_err();
            assert!(error.contains(want), "{more}: {error}");
        }
    }
}
