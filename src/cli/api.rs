//! How the commands ask the daemon: over HTTP, as every other client does.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value;

use super::exit;
use crate::config::{ConfigError, Environment, Settings, load};
use crate::http::client::{self, ClientError};

/// Where the daemon is asked; its own name, because clap makes a group of it.
#[derive(Clone, Debug, clap::Args)]
pub struct DaemonArguments {
    /// The daemon's HTTP server; the configuration's http.listen unless given.
    #[arg(long, value_name = "URL")]
    api: Option<String>,
    /// A file that holds a token for it.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The configuration file that names the daemon's addresses.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl DaemonArguments {
    /// The settings that name the daemon's addresses.
    pub(super) fn settings(&self, environment: Environment<'_>) -> Result<Settings, ApiError> {
        let loaded = load(self.config.as_deref(), environment).map_err(ApiError::Config)?;
        Ok(loaded.settings)
    }
}

/// The daemon's HTTP interface.
pub(super) struct Api {
    url: String,
    token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum ApiError {
    /// The configuration cannot be read.
    Config(ConfigError),
    /// Neither argument nor configuration says where.
    Nowhere,
    /// The token cannot be read.
    Token(PathBuf, io::Error),
    /// No runtime can be started.
    Runtime(io::Error),
    /// The daemon did not answer.
    Client(ClientError),
    /// It answered with an error.
    PeerAnswer {
        /// The HTTP status.
        status: u16,
        /// What the answer says.
        message: String,
    },
}

impl Api {
    /// The daemon that the arguments name, else the one of the configuration.
    pub(super) fn of(
        arguments: &DaemonArguments,
        environment: Environment<'_>,
    ) -> Result<Self, ApiError> {
        Self::new(arguments, &arguments.settings(environment)?)
    }

    /// The same where the settings have been read already.
    pub(super) fn new(arguments: &DaemonArguments, settings: &Settings) -> Result<Self, ApiError> {
        let url = match &arguments.api {
            Some(url) => url.clone(),
            None => format!("http://{}", local(&settings.http.listen).ok_or(ApiError::Nowhere)?),
        };
        let read = |path: &PathBuf| {
            let text = std::fs::read_to_string(path);
            text.map_err(|error| ApiError::Token(path.clone(), error))
        };
        let token = arguments.token_file.as_ref().map(read).transpose()?;
        Ok(Self { url, token: token.map(|token| token.trim().to_owned()) })
    }

    /// The answer to a GET; anything but 200 is an error.
    pub(super) async fn ask(&self, path_and_query: &str) -> Result<Value, ApiError> {
        answered(client::get(&self.url, path_and_query, self.token.as_deref()).await)
    }

    /// The answer to a GET, for a command that has nothing else to do.
    pub(super) fn get(&self, path_and_query: &str) -> Result<Value, ApiError> {
        runtime()?.block_on(self.ask(path_and_query))
    }

    /// The same for a POST, which changes something.
    pub(super) fn post(&self, path_and_query: &str) -> Result<Value, ApiError> {
        let token = self.token.as_deref();
        runtime()?
            .block_on(async { answered(client::post(&self.url, path_and_query, token).await) })
    }

    /// The same for a DELETE.
    pub(super) fn delete(&self, path_and_query: &str) -> Result<Value, ApiError> {
        let token = self.token.as_deref();
        runtime()?
            .block_on(async { answered(client::delete(&self.url, path_and_query, token).await) })
    }
}

fn answered(asked: Result<(u16, Value), ClientError>) -> Result<Value, ApiError> {
    let (status, answer) = asked.map_err(ApiError::Client)?;
    if status == 200 {
        return Ok(answer);
    }
    Err(ApiError::PeerAnswer { status, message: why(&answer) })
}

/// What an answer says is wrong: of every field, where it names some.
fn why(answer: &Value) -> String {
    let fields = list(answer, "/fields").iter();
    let fields: Vec<&str> = fields.filter_map(|field| field.get("message")?.as_str()).collect();
    if !fields.is_empty() {
        return fields.join("; ");
    }
    answer.get("message").and_then(Value::as_str).unwrap_or("no reason").to_owned()
}

fn runtime() -> Result<tokio::runtime::Runtime, ApiError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ApiError::Runtime)
}

impl ApiError {
    /// The exit code that says whose fault it is.
    pub(super) fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) => exit::CONFIG,
            Self::Nowhere | Self::Token(..) => exit::USAGE,
            Self::Runtime(_) => exit::TRY_AGAIN,
            Self::Client(ClientError::Address(_)) => exit::USAGE,
            Self::Client(_) => exit::UNAVAILABLE,
            Self::PeerAnswer { status: 401 | 403, .. } => exit::NOT_PERMITTED,
            Self::PeerAnswer { status: 500.., .. } => exit::TRY_AGAIN,
            Self::PeerAnswer { .. } => exit::FAILED,
        }
    }

    /// Whether there is nothing by the name that was asked for.
    pub(super) fn is_not_found(&self) -> bool {
        matches!(self, Self::PeerAnswer { status: 404, .. })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Nowhere => f.write_str("http.listen names no address: give --api"),
            Self::Token(path, _) => write!(f, "cannot read the token in {}", path.display()),
            Self::Runtime(_) => f.write_str("cannot start"),
            Self::Client(_) => f.write_str("the daemon gave no answer"),
            Self::PeerAnswer { status: 401, message } => {
                write!(f, "the daemon answered 401: {message}; name a file with --token-file")
            }
            Self::PeerAnswer { status, message } => {
                write!(f, "the daemon answered {status}: {message}")
            }
        }
    }
}

impl std::error::Error for ApiError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config(error) => error.source(),
            Self::Token(_, error) | Self::Runtime(error) => Some(error),
            Self::Client(error) => Some(error),
            Self::Nowhere | Self::PeerAnswer { .. } => None,
        }
    }
}

/// How to reach the first address from this host.
pub(super) fn local(listen: &[SocketAddr]) -> Option<String> {
    let mut address = *listen.first()?;
    if address.ip().is_unspecified() {
        let loopback: IpAddr =
            if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    Some(address.to_string())
}

/// A text of an answer, `-` where it has none.
pub(super) fn text<'a>(answer: &'a Value, pointer: &str) -> &'a str {
    answer.pointer(pointer).and_then(Value::as_str).unwrap_or("-")
}

/// A list of an answer.
pub(super) fn list<'a>(answer: &'a Value, pointer: &str) -> &'a [Value] {
    answer.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}
