//! `rebound token add`, `list` and `revoke`: who may ask over HTTP.

use std::io;
use std::path::Path;

use clap::{Subcommand, ValueEnum};

use super::{chain, complain, exit, say};
use crate::clock::Clock;
use crate::config::{Environment, load};
use crate::http::auth::{Scope, TokenError, TokenFile};

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
    },
    /// List the tokens by name.
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
    match act(command, &TokenFile::configured(&settings), &Clock::system()) {
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

fn act(command: Command, file: &TokenFile, clock: &Clock) -> Result<Vec<String>, TokenError> {
    match command {
        Command::Add { name, scope } => {
            let mut scopes: Vec<Scope> = scope.into_iter().map(Scope::from).collect();
            scopes.sort_unstable();
            scopes.dedup();
            file.add(&name, &scopes, clock.now()).map(|secret| vec![secret])
        }
        Command::List => file.read().map(|tokens| {
            let shown = tokens.iter().map(|token| {
                let scopes: Vec<&str> = token.scopes.iter().map(|scope| scope.as_str()).collect();
                format!("{}\t{}\t{}", token.name, scopes.join(","), token.created)
            });
            shown.collect()
        }),
        Command::Revoke { name } => file.revoke(&name).map(|()| Vec::new()),
    }
}

fn exit_code(error: &TokenError) -> u8 {
    match error {
        TokenError::Name(_) => exit::USAGE,
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
