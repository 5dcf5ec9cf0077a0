//! `rebound oauth2 login`: gets a refresh token with a device code.

use std::path::Path;

use super::{chain, complain, exit, mailbox, say};
use crate::config::{Environment, OAuth2};
use crate::imap::oauth2::{OAuthError, begin_device, finish_device, store_refresh_token};

/// Shows a code, waits until a person has agreed, and writes the refresh token down.
pub fn login(name: &str, file: Option<&Path>, environment: Environment<'_>) -> u8 {
    let found = match mailbox::find(name, file, environment) {
        Ok(found) => found,
        Err(error) => {
            complain(chain(&error));
            return exit::CONFIG;
        }
    };
    let Some(settings) = found.and_then(|mailbox| mailbox.oauth2) else {
        complain(format!("no [[mailbox]] with oauth2 has the name `{name}`"));
        return exit::USAGE;
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format!("cannot start: {error}"));
            return exit::TRY_AGAIN;
        }
    };
    match runtime.block_on(agree(&settings)) {
        Ok(()) => {
            say(format!("logged in; the token is in {}", settings.refresh_token_file.display()));
            exit::OK
        }
        Err(error) => {
            complain(chain(&error));
            exit_code(&error)
        }
    }
}

async fn agree(settings: &OAuth2) -> Result<(), OAuthError> {
    let code = begin_device(settings).await?;
    let clean = crate::mail::header::sanitized;
    say(format!("open {}", clean(&code.verification_uri)));
    say(format!("and type {}", clean(&code.user_code)));
    let token = finish_device(settings, &code).await?;
    store_refresh_token(&settings.refresh_token_file, &token).await
}

fn exit_code(error: &OAuthError) -> u8 {
    match error {
        OAuthError::ConfigNoDevice | OAuthError::ConfigRefreshToken(..) => exit::CONFIG,
        OAuthError::StoreRefreshToken(..) => exit::NOT_PERMITTED,
        OAuthError::Web(_) | OAuthError::PeerAnswer(_) => exit::TRY_AGAIN,
        OAuthError::PeerRefused { .. } => exit::FAILED,
    }
}
