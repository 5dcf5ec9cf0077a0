//! `rebound token add`, `list` and `revoke`: who may ask over HTTP.

use std::io;
use std::path::Path;

use clap::{Subcommand, ValueEnum};

use super::{chain, complain, exit, say};
use crate::clock::Clock;
use crate::config::{Environment, Settings, Span, load};
use crate::http::tokens::{Grant, Scope, Token, TokenError, TokenFile};
use crate::mail::Timestamp;
use crate::submission::DEFAULT_ACCOUNT;

/// What is done with tokens.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token and print it; it cannot be shown again.
    Add {
        /// What you call it: the app or person that will use it.
        name: String,
        /// What it is good for; may be given more than once.
        #[arg(long, value_enum, default_values_t = [ScopeName::Read])]
        scope: Vec<ScopeName>,
        /// The only account whose mail it shows, and that it submits for; all when left out.
        #[arg(long)]
        account: Option<String>,
        /// After what time it is good for nothing, such as `30d`; never when left out.
        #[arg(long, value_name = "SPAN", value_parser = span)]
        expires: Option<Span>,
    },
    /// List the tokens: name, scopes, when made, account, when it ends.
    List,
    /// Take a token away; a running daemon refuses it from the next request on.
    Revoke {
        /// Its name.
        name: String,
    },
}

/// What a token is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ScopeName {
    /// Look-ups.
    Read,
    /// Submitting mail.
    Submit,
    /// Everything.
    Admin,
}

/// Runs the command on the tokens file of the configuration.
pub fn run(command: Command, file: Option<&Path>, environment: Environment<'_>) -> u8 {
    let settings = match load(file, environment) {
        Ok(loaded) => loaded.settings,
        Err(error) => {
            complain(chain(&error));
            return exit::CONFIG;
        }
    };
    match act(command, &settings, Clock::system().now()) {
        Ok(lines) => {
            lines.iter().for_each(say);
            exit::OK
        }
        Err(error) => {
            complain(chain(&error));
            exit_code(&error)
        }
    }
}

fn act(command: Command, settings: &Settings, now: Timestamp) -> Result<Vec<String>, TokenError> {
    let file = TokenFile::configured(settings);
    match command {
        Command::Add { name, scope, account, expires } => {
            let mut scopes: Vec<Scope> = scope.into_iter().map(Scope::from).collect();
            scopes.sort_unstable();
            scopes.dedup();
            let expires = expires.map(|span| now.plus(span.duration()));
            let secret =
                file.add(&name, Grant { scopes, account: account.clone(), expires }, now)?;
            if let Some(account) = account.filter(|account| !is_known(settings, account)) {
                complain(format!("the token is made; no [[account]] has the name `{account}` yet"));
            }
            Ok(vec![secret])
        }
        Command::List => {
            let tokens = file.read()?.unwrap_or_default();
            Ok(tokens.iter().map(|token| shown(token, now)).collect())
        }
        Command::Revoke { name } => file.revoke(&name).map(|()| Vec::new()),
    }
}

fn is_known(settings: &Settings, account: &str) -> bool {
    account == DEFAULT_ACCOUNT || settings.account(account).is_some()
}

/// One line, its words with tabs between them; `-` for what does not hold.
fn shown(token: &Token, now: Timestamp) -> String {
    let Token { name, grant, created, .. } = token;
    let account = grant.account.as_deref().unwrap_or("-");
    let end = grant.expires.map_or_else(|| "-".to_owned(), Timestamp::rfc3339);
    let over = if grant.is_expired(now) { "\texpired" } else { "" };
    format!("{name}\t{}\t{created}\t{account}\t{end}{over}", grant.scope_names())
}

fn span(text: &str) -> Result<Span, String> {
    Span::try_from(text.to_owned())
}

fn exit_code(error: &TokenError) -> u8 {
    match error {
        TokenError::Name(_) | TokenError::Account(_) => exit::USAGE,
        TokenError::Exists(_) | TokenError::Unknown(_) => exit::FAILED,
        TokenError::Line(..) => exit::CONFIG,
        TokenError::Io(_, error) if error.kind() == io::ErrorKind::PermissionDenied => {
            exit::NOT_PERMITTED
        }
        TokenError::Io(..) | TokenError::NoDirectory(_) | TokenError::Random(_) => exit::TRY_AGAIN,
    }
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::Read => Self::Read,
            ScopeName::Submit => Self::Submit,
            ScopeName::Admin => Self::Admin,
        }
    }
}
