//! SIGHUP: certificates, accounts, the smarthost and the rules are read again.

use std::sync::Arc;

use tokio::sync::watch;

use super::{DaemonError, prepare};
use crate::capture::Capture;
use crate::cli::chain;
use crate::config::{Loaded, Settings};
use crate::net::tls::ServerTls;
use crate::relay::Relay;

/// Takes over what may change while the daemon runs; a wrong configuration changes nothing.
///
/// Listeners, the data directory and the limits of the queue wait for a restart.
pub(super) fn apply(
    loaded: Result<Loaded, DaemonError>,
    current: &watch::Sender<Arc<Settings>>,
    tls: Option<&ServerTls>,
    relay: &Relay,
    capture: &Capture,
) {
    let read = loaded.and_then(|loaded| Ok((prepare::read(&loaded)?, loaded.settings)));
    let ((rules, certificates, way), settings) = match read {
        Ok(read) => read,
        Err(error) => {
            tracing::error!(error = chain(&error), "the configuration is not reloaded");
            return;
        }
    };
    match (tls, certificates) {
        (Some(tls), Some(certificates)) => tls.adopt(&certificates),
        (None, None) => {}
        (None, Some(_)) | (Some(_), None) => {
            tracing::warn!(
                "TLS is begun or ended by a restart only; certificates stay as they are"
            );
        }
    }
    capture.set_rules(rules);
    relay.adopt(&way);
    current.send_replace(Arc::new(settings));
    tracing::info!("reloaded certificates, accounts, the smarthost and the rules");
}
