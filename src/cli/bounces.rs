//! `rebound bounces MESSAGE-ID|ADDRESS`: what bounced.

use serde_json::Value;

use super::api::{Api, ApiError, DaemonArguments, list, text};
use super::{chain, complain, exit, say};
use crate::config::Environment;
use crate::http::client::encode;

/// What is looked up.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A Message-ID, with or without <>, or the address of a recipient.
    #[arg(value_name = "MESSAGE-ID|ADDRESS")]
    name: String,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// Looks it up and prints one line for each recipient and each bounce.
///
/// `OK` also when nothing bounced, `FAILED` when nothing is known under the name.
pub fn run(arguments: &Arguments, environment: Environment<'_>) -> u8 {
    let found = Api::of(&arguments.daemon, environment)
        .and_then(|api| look_up(&arguments.name, &|path| api.get(path)));
    match found {
        Ok(answer) if arguments.json => say(format!("{answer:#}")),
        Ok(answer) => lines(&answer).iter().for_each(say),
        Err(error) => {
            complain(chain(&error));
            return error.exit_code();
        }
    }
    exit::OK
}

/// An address and a Message-ID look alike: a name that is no known Message-ID and not in angle
/// brackets is taken for an address.
fn look_up(name: &str, ask: &dyn Fn(&str) -> Result<Value, ApiError>) -> Result<Value, ApiError> {
    let found = ask(&format!("/v1/bounces/{}", encode(name)));
    match found {
        Err(error) if error.is_not_found() && !name.starts_with('<') && name.contains('@') => {
            let listed = ask(&format!("/v1/bounces?pageSize=1000&recipient={}", encode(name)))?;
            if list(&listed, "/bounces").is_empty() { Err(error) } else { Ok(listed) }
        }
        found => found,
    }
}

fn lines(answer: &Value) -> Vec<String> {
    let recipients = list(answer, "/recipients").iter().map(|recipient| {
        format!("{}  {}", text(recipient, "/recipient"), text(recipient, "/state"))
    });
    let bounces = list(answer, "/bounces").iter().map(|bounce| {
        format!(
            "{}  {}  {}  {} ({})  {}",
            text(bounce, "/date"),
            text(bounce, "/recipient"),
            text(bounce, "/response/message"),
            text(bounce, "/response/category"),
            text(bounce, "/response/recommendedAction"),
            text(bounce, "/messageId"),
        )
    });
    recipients.chain(bounces).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bounce() -> Value {
        json!({
            "date": "2022-10-12T12:10:40.980Z",
            "recipient": "a@b",
            "response": {
                "message": "550 no", "category": "user_unknown", "recommendedAction": "remove"
            },
            "messageId": "<m@app>"
        })
    }

    #[test]
    fn what_is_no_known_message_id_is_taken_for_an_address() {
        let ask = |path: &str| match path {
            "/v1/bounces/m%40app" | "/v1/bounces/%3Cm%40app%3E" => Ok(json!({ "bounces": [] })),
            "/v1/bounces?pageSize=1000&recipient=a%40b" => Ok(json!({ "bounces": [bounce()] })),
            path if path.contains("recipient=") => Ok(json!({ "bounces": [] })),
            _ => Err(ApiError::PeerAnswer { status: 404, message: "no such mail".to_owned() }),
        };
        for (name, want) in [
            ("m@app", Some(0)),
            ("<m@app>", Some(0)),
            ("a@b", Some(1)),
            ("<a@b>", None),
            ("nobody@b", None),
            ("word", None),
        ] {
            let found = look_up(name, &ask).map(|answer| list(&answer, "/bounces").len());
            assert_eq!(found.ok(), want, "{name}");
        }
    }

    #[test]
    fn each_recipient_and_each_bounce_is_a_line() {
        let answer = json!({
            "recipients": [{ "recipient": "a@b", "state": "bounced" }],
            "bounces": [bounce()]
        });
        assert_eq!(
            lines(&answer),
            [
                "a@b  bounced",
                "2022-10-12T12:10:40.980Z  a@b  550 no  user_unknown (remove)  <m@app>"
            ]
        );
    }
}
