//! `rebound config check` and `rebound config show`.

use std::path::Path;

use super::{complain, exit, say};
use crate::config::{Environment, Source, load};
use crate::daemon::{self, DaemonError};

/// Reads the configuration and everything it names, and says whether it is good.
pub fn check(file: Option<&Path>, environment: Environment<'_>) -> u8 {
    let checked = load(file, environment).map_err(DaemonError::from).and_then(|mut loaded| {
        let by_systemd = loaded.settings.names_credentials();
        if by_systemd && environment.value("CREDENTIALS_DIRECTORY").is_none() {
            complain("systemd credentials can be looked at by the systemd service only");
        } else {
            loaded.find_secrets(environment)?;
        }
        daemon::check(&loaded)?;
        Ok(loaded)
    });
    match checked {
        Ok(loaded) => {
            let name =
                loaded.file.map_or_else(|| "defaults".to_owned(), |f| f.display().to_string());
            say(format!("{name}: good"));
            exit::OK
        }
        Err(error) => {
            complain(super::chain(&error));
            exit::CONFIG
        }
    }
}

/// Prints the settings that differ from the defaults, or all of them with their source.
pub fn show(file: Option<&Path>, all: bool, environment: Environment<'_>) -> u8 {
    let loaded = match load(file, environment) {
        Ok(loaded) => loaded,
        Err(error) => {
            complain(super::chain(&error));
            return exit::CONFIG;
        }
    };
    for (key, value) in loaded.values() {
        let source = loaded.source(&key);
        if all || *source != Source::Default {
            say(format!("{key} = {value}  # {source}"));
        }
    }
    exit::OK
}
