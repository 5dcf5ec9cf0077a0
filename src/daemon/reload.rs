//! SIGHUP: certificates, accounts, the smarthost and the rules are read again.

use std::sync::Arc;

use tokio::sync::watch;

use super::stages;
use crate::capture::Capture;
use crate::cli::chain;
use crate::config::{ConfigError, Loaded, Settings};
use crate::net::tls::ServerTls;
use crate::relay::Relay;

/// Takes over what may change while the daemon runs; a wrong configuration changes nothing.
///
/// Listeners, the data directory and the limits of the queue wait for a restart.
pub(super) fn apply(
    loaded: Result<Loaded, ConfigError>,
    current: &watch::Sender<Arc<Settings>>,
    tls: Option<&ServerTls>,
    relay: &Relay,
    capture: &Capture,
) {
    let settings = match loaded {
        Ok(loaded) => loaded.settings,
        Err(error) => {
            tracing::error!(error = chain(&error), "the configuration is not reloaded");
            return;
        }
    };
    match stages::rules(&settings) {
        Ok(rules) => capture.set_rules(rules),
        Err(error) => tracing::error!(%error, "bounces.rules_file is not reloaded"),
    }
    if let Some(tls) = tls
        && let Err(error) = tls.reload(&settings.tls.certificates)
    {
        tracing::error!(error = chain(&error), "tls.certificates are not reloaded");
    }
    if let Err(error) = relay.reload(&settings.relay, &settings.hostname) {
        tracing::error!(error = chain(&error), "[relay] is not reloaded");
    }
    current.send_replace(Arc::new(settings));
    tracing::info!("reloaded certificates, accounts, the smarthost and the rules");
}
