//! `rebound webhook`: lists, tests and replays what the daemon's webhooks deliver.

use serde_json::Value;

use super::api::{Api, ApiError, DaemonArguments};
use super::{chain, complain, exit, say};
use crate::config::Environment;
use crate::http::client::encode;

/// Which events are delivered once more.
#[derive(Clone, Debug, clap::Args)]
pub struct ReplayArguments {
    /// The id of one event.
    #[arg(long, value_name = "ID", conflicts_with = "from")]
    id: Option<String>,
    /// The id of the first of several.
    #[arg(long, value_name = "ID", required_unless_present = "id")]
    from: Option<String>,
    /// The id of the last one; the newest unless given.
    #[arg(long, value_name = "ID", requires = "from")]
    to: Option<String>,
}

/// Sends a test event and says what came of it.
pub fn test(name: &str, daemon: &DaemonArguments, environment: Environment<'_>) -> u8 {
    let path = format!("/v1/webhooks/{}/test", encode(name));
    let answered = Api::of(daemon, environment).and_then(|api| api.post(&path));
    told(answered, |answer| {
        let took = answer["took"].as_u64().unwrap_or_default();
        match answer["error"].as_str() {
            None => {
                say(format!("delivered: {} in {took} ms", answer["status"]));
                exit::OK
            }
            Some(error) => {
                complain(format!("not delivered: {error}"));
                exit::FAILED
            }
        }
    })
}

/// Delivers events once more, in as many pieces as the daemon takes.
pub fn replay(
    name: &str,
    events: &ReplayArguments,
    daemon: &DaemonArguments,
    environment: Environment<'_>,
) -> u8 {
    let base = format!("/v1/webhooks/{}/replay", encode(name));
    let path = match (&events.id, &events.from, &events.to) {
        (Some(id), ..) => format!("{base}?id={}", encode(id)),
        (None, Some(from), Some(to)) => {
            format!("{base}?from={}&to={}", encode(from), encode(to))
        }
        (None, from, None) => {
            format!("{base}?from={}", encode(from.as_deref().unwrap_or_default()))
        }
        (None, None, Some(_)) => return exit::USAGE,
    };
    let answered = Api::of(daemon, environment).and_then(|api| api.post(&path));
    told(answered, |answer| {
        say(format!("{} events are delivered once more", answer["queued"]));
        if answer["more"] == Value::Bool(true) {
            say(format!(
                "there is no room for more now; go on with --from {}",
                answer["cursor"].as_str().unwrap_or_default()
            ));
        }
        exit::OK
    })
}

fn told(answered: Result<Value, ApiError>, tell: impl FnOnce(&Value) -> u8) -> u8 {
    match answered {
        Ok(answer) => tell(&answer),
        Err(error) => {
            complain(chain(&error));
            error.exit_code()
        }
    }
}
