//! What the settings name and must be there before anything starts: keys, rules, certificates.
//!
//! The start, the reload and `rebound config check` all look here, so that what one finds good is
//! good for the others.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use super::DaemonError;
use crate::bounce::{AliasRules, Rules, RulesError};
use crate::capture::RuleSets;
use crate::config::Loaded;
use crate::mail::Timestamp;
use crate::net::tls::ServerTls;
use crate::relay::Relay;
use crate::secret::KeyRing;
use crate::webhook;

/// Everything that was read from the files which the settings name.
pub(super) struct Prepared {
    pub(super) keys: Arc<KeyRing>,
    pub(super) rules: RuleSets,
    pub(super) tls: Option<Arc<ServerTls>>,
    pub(super) relay: Relay,
}

impl Prepared {
    /// Reads it all, and makes the keys where there are none yet.
    pub(super) fn new(loaded: &Loaded, now: Timestamp) -> Result<Self, DaemonError> {
        let (rules, tls, relay) = read(loaded)?;
        let keys = KeyRing::load_or_create(&loaded.settings.return_path.key_file, now)
            .map_err(wrong(loaded, "return_path.key_file"))?;
        Ok(Self { keys: Arc::new(keys), rules, tls, relay })
    }
}

/// Reads what may change while the daemon runs, and makes nothing.
///
/// # Errors
/// With the setting that names what is missing or wrong.
pub(super) fn read(
    loaded: &Loaded,
) -> Result<(RuleSets, Option<Arc<ServerTls>>, Relay), DaemonError> {
    let settings = &loaded.settings;
    let classes = rules(&settings.bounces.rules_file, Rules::parse, Rules::compiled_in)
        .map_err(wrong(loaded, "bounces.rules_file"))?;
    let file = &settings.bounces.alias_rules_file;
    let aliases = rules(file, AliasRules::parse, AliasRules::compiled_in)
        .map_err(wrong(loaded, "bounces.alias_rules_file"))?;
    let rules = RuleSets { classes, aliases };
    let tls = match settings.tls.certificates.as_slice() {
        [] => None,
        certificates => Some(Arc::new(
            ServerTls::load(certificates).map_err(wrong(loaded, "tls.certificates"))?,
        )),
    };
    if tls.is_none() && !settings.submission.tls_listen.is_empty() {
        let text = "needs a certificate; give tls.certificates";
        return Err(wrong(loaded, "submission.tls_listen")(text));
    }
    webhook::check(&settings.webhook).map_err(|error| wrong(loaded, &error.key())(error))?;
    let relay = Relay::new(&settings.relay, &settings.hostname)
        .map_err(wrong(loaded, "relay.tls_ca_file"))?;
    Ok((rules, tls, relay))
}

/// An error of what the setting with this key names.
pub(super) fn wrong<E: Into<Box<dyn Error + Send + Sync>>>(
    loaded: &Loaded,
    key: &str,
) -> impl FnOnce(E) -> DaemonError + use<E> {
    let doing = format!("{}: `{key}`", loaded.source(key));
    move |source| DaemonError::Config { doing, source: source.into() }
}

/// A path that is set.
pub(super) fn given(path: &Path) -> Option<&Path> {
    Some(path).filter(|path| !path.as_os_str().is_empty())
}

/// The rules of a file, or the compiled-in ones; what is wrong is told with file and line.
fn rules<T>(
    path: &Path,
    parse: fn(&str) -> Result<T, RulesError>,
    compiled_in: fn() -> T,
) -> Result<T, Box<dyn Error + Send + Sync>> {
    let Some(path) = given(path) else { return Ok(compiled_in()) };
    let shown = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    Ok(parse(&text).map_err(|error| format!("{shown}, {error}"))?)
}
