//! Access tokens: from a refresh token (RFC 6749 §6), which a person gets with a device code
//! (RFC 8628), cached and renewed before they expire.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::clock::Clock;
use crate::config::{OAuth2, read_secret};
use crate::mail::Timestamp;
use crate::mail::header::sanitized;
use crate::net::web::{WebError, post_form};
use crate::secret::create_private;

/// The access tokens of one mailbox.
pub struct Tokens {
    settings: OAuth2,
    clock: Clock,
    cached: Option<Cached>,
    /// A refresh token that the provider has given and that could not be written down.
    unwritten: Option<String>,
}

struct Cached {
    token: String,
    renew_at: Timestamp,
}

/// Why there is no token.
#[derive(Debug)]
pub enum OAuthError {
    /// The refresh token cannot be read.
    ConfigRefreshToken(PathBuf, io::Error),
    /// The refresh token cannot be written.
    StoreRefreshToken(PathBuf, io::Error),
    /// The settings name no device authorization endpoint.
    ConfigNoDevice,
    /// The provider was not reached.
    Web(WebError),
    /// The provider refuses: the grant is revoked, has expired, or was never given.
    PeerRefused {
        /// `invalid_grant` and the like (RFC 6749 §5.2).
        error: String,
        /// The provider's words.
        description: String,
    },
    /// The provider answered something else.
    PeerAnswer(u16),
}

/// What a person is shown, and what the provider is asked with until the person has agreed.
#[derive(Clone, Deserialize)]
pub struct DeviceCode {
    device_code: String,
    /// What the person types.
    pub user_code: String,
    /// Where.
    #[serde(alias = "verification_url")]
    pub verification_uri: String,
    expires_in: u64,
    #[serde(default = "default_interval_secs")]
    interval: u64,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
    #[serde(default)]
    refresh_token: Option<String>,
}

#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
}

impl Tokens {
    /// No token yet; it is asked for when it is needed.
    pub fn new(settings: OAuth2, clock: Clock) -> Self {
        Self { settings, clock, cached: None, unwritten: None }
    }

    /// A token that is good for a while.
    ///
    /// # Errors
    /// When there is no refresh token, or the provider gives nothing for it.
    pub async fn access_token(&mut self) -> Result<String, OAuthError> {
        let now = self.clock.now();
        if let Some(cached) = self.cached.as_ref().filter(|cached| now < cached.renew_at) {
            return Ok(cached.token.clone());
        }
        let path = &self.settings.refresh_token_file;
        let refresh_token = match &self.unwritten {
            Some(token) => token.clone(),
            None => read_secret(path)
                .map_err(|error| OAuthError::ConfigRefreshToken(path.clone(), error))?,
        };
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh_token.trim())];
        let granted = ask_for_token(&self.settings, &fields).await?;
        if let Some(rotated) = granted.refresh_token.filter(|token| *token != refresh_token) {
            self.unwritten = Some(rotated);
        }
        self.write_down().await;
        let lifetime = granted.expires_in.unwrap_or(LIFETIME_SECS);
        let usable = Duration::from_secs(lifetime.saturating_sub(renew_before_secs(lifetime)));
        let renew_at = now.plus(usable);
        self.cached = Some(Cached { token: granted.access_token.clone(), renew_at });
        Ok(granted.access_token)
    }

    /// Asks for a new token the next time: the server does not take the one that is cached.
    pub fn forget(&mut self) {
        self.cached = None;
    }

    /// Keeps a new refresh token, in whose place the old one is worth nothing any more.
    async fn write_down(&mut self) {
        let Some(token) = &self.unwritten else { return };
        match store_refresh_token(&self.settings.refresh_token_file, token).await {
            Ok(()) => self.unwritten = None,
            Err(error) => {
                let error = crate::maillog::chain(&error);
                tracing::error!(error, "a new refresh token is held in memory only");
            }
        }
    }
}

/// Writes a refresh token down, readable by its owner alone, in the place of the old one.
///
/// # Errors
/// When the file cannot be written.
pub async fn store_refresh_token(path: &Path, token: &str) -> Result<(), OAuthError> {
    let (path, content) = (path.to_owned(), format!("{token}\n"));
    let written = tokio::task::spawn_blocking(move || {
        create_private(&path, content.as_bytes())
            .map_err(|error| OAuthError::StoreRefreshToken(path, error))
    });
    written.await.unwrap_or_else(|error| {
        Err(OAuthError::StoreRefreshToken(PathBuf::new(), io::Error::other(error)))
    })
}

/// Begins the device flow (RFC 8628 §3.1).
///
/// # Errors
/// When the provider has no such flow, or refuses.
pub async fn begin_device(settings: &OAuth2) -> Result<DeviceCode, OAuthError> {
    if settings.device_url.is_empty() {
        return Err(OAuthError::ConfigNoDevice);
    }
    ask(settings, &settings.device_url, &[("scope", settings.scope.as_str())]).await
}

/// Asks until the person has agreed; the refresh token (RFC 8628 §3.4).
///
/// # Errors
/// When the person refuses or takes too long, or the provider gives no refresh token.
pub async fn finish_device(settings: &OAuth2, code: &DeviceCode) -> Result<String, OAuthError> {
    let mut interval = Duration::from_secs(code.interval.clamp(1, INTERVAL_SECS_MAX));
    let fields = [("grant_type", DEVICE_GRANT), ("device_code", code.device_code.as_str())];
    let agreed = async {
        loop {
            tokio::time::sleep(interval).await;
            match ask_for_token(settings, &fields).await {
                Err(OAuthError::PeerRefused { error, .. }) if error == "authorization_pending" => {}
                Err(OAuthError::PeerRefused { error, .. }) if error == "slow_down" => {
                    interval = interval.saturating_add(SLOW_DOWN);
                }
                Err(OAuthError::Web(_)) => {}
                answered => return answered,
            }
        }
    };
    let limit = Duration::from_secs(code.expires_in.min(DEVICE_SECS_MAX));
    let late = || refused("expired_token", "nobody has agreed in time");
    let granted = tokio::time::timeout(limit, agreed).await.map_err(|_elapsed| late())??;
    let missing = || refused("no_refresh_token", "the scope must allow offline access");
    granted.refresh_token.ok_or_else(missing)
}

async fn ask_for_token(settings: &OAuth2, fields: &[(&str, &str)]) -> Result<Granted, OAuthError> {
    ask(settings, &settings.token_url, fields).await
}

/// Asks an endpoint in the client's name.
async fn ask<T: serde::de::DeserializeOwned>(
    settings: &OAuth2,
    url: &str,
    fields: &[(&str, &str)],
) -> Result<T, OAuthError> {
    let mut all = vec![("client_id", settings.client_id.as_str())];
    if !settings.client_secret.is_empty() {
        all.push(("client_secret", settings.client_secret.as_str()));
    }
    all.extend_from_slice(fields);
    let path = &settings.tls_ca_file;
    let ca_file = (!path.as_os_str().is_empty()).then_some(path.as_path());
    let (status, body) = post_form(url, &all, ca_file).await.map_err(OAuthError::Web)?;
    if status == 200 {
        return serde_json::from_slice(&body).map_err(|_e| OAuthError::PeerAnswer(status));
    }
    // What a server says that is out of order is no refusal.
    let refusal = (400..500).contains(&status) && status != 429;
    match serde_json::from_slice::<Refused>(&body) {
        Ok(found) if refusal => Err(refused(&found.error, &found.error_description)),
        _ => Err(OAuthError::PeerAnswer(status)),
    }
}

fn refused(error: &str, description: &str) -> OAuthError {
    let short = |text: &str| sanitized(text).chars().take(WORDS_CHARS_MAX).collect();
    OAuthError::PeerRefused { error: short(error), description: short(description) }
}

/// How long before its end a token is renewed: a tenth of its life, at most five minutes.
fn renew_before_secs(lifetime: u64) -> u64 {
    (lifetime / 10).min(300)
}

impl OAuthError {
    /// Whether only a person can mend it, by agreeing again.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::PeerRefused { .. } | Self::ConfigRefreshToken(..) => true,
            Self::StoreRefreshToken(..)
            | Self::ConfigNoDevice
            | Self::Web(_)
            | Self::PeerAnswer(_) => false,
        }
    }
}

impl fmt::Display for OAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigRefreshToken(path, _) => write!(
                f,
                "cannot read the refresh token in {}; `rebound oauth2 login` gets one",
                path.display()
            ),
            Self::StoreRefreshToken(path, _) => {
                write!(f, "cannot write the refresh token to {}", path.display())
            }
            Self::ConfigNoDevice => f.write_str("oauth2.device_url is not set"),
            Self::Web(_) => f.write_str("the provider was not reached"),
            Self::PeerRefused { error, description } if description.is_empty() => {
                write!(f, "the provider refused: {error}")
            }
            Self::PeerRefused { error, description } => {
                write!(f, "the provider refused: {error}: {description}")
            }
            Self::PeerAnswer(status) => {
                write!(f, "the provider answered {status}, which is no token")
            }
        }
    }
}

impl std::error::Error for OAuthError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ConfigRefreshToken(_, error) | Self::StoreRefreshToken(_, error) => Some(error),
            Self::Web(error) => Some(error),
            Self::ConfigNoDevice | Self::PeerRefused { .. } | Self::PeerAnswer(_) => None,
        }
    }
}

fn default_interval_secs() -> u64 {
    5
}

/// How long a token is good of which the provider does not say.
const LIFETIME_SECS: u64 = 3600;
/// The longest pause between two questions whether the person has agreed.
const INTERVAL_SECS_MAX: u64 = 60;
/// The longest time that a person has to agree.
const DEVICE_SECS_MAX: u64 = 3600;
/// How much longer the pause becomes when the provider wants it so (RFC 8628 §3.5).
const SLOW_DOWN: Duration = Duration::from_secs(5);
/// Characters of a provider's words that are repeated.
const WORDS_CHARS_MAX: usize = 300;
/// RFC 8628 §3.4.
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
