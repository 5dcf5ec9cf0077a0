//! `rebound queue`: what waits in the daemon's queue, and what is to be done with it.

use serde_json::Value;

use super::api::{Api, ApiError, DaemonArguments, list, text};
use super::{chain, complain, exit, say};
use crate::config::Environment;
use crate::http::client::encode;

/// What can be asked of the queue.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum Command {
    /// List the mails in the queue, newest first.
    List {
        /// Those of this account only.
        #[arg(long, value_name = "NAME")]
        account: Option<String>,
        /// How it is asked and shown.
        #[command(flatten)]
        how: How,
    },
    /// Show mails in the queue with each of their recipients.
    Show(Mails),
    /// Try mails now, also those that are held or to be sent later; needs the scope `admin`.
    Retry(Mails),
    /// Keep mails in the queue until they are released; needs the scope `admin`.
    Hold(Mails),
    /// Let held mails go on; needs the scope `admin`.
    Release(Mails),
    /// Take mails out of the queue, so that nobody who waits is tried any more; needs the scope
    /// `admin`.
    Delete(Mails),
}

/// Some mails.
#[derive(Clone, Debug, clap::Args)]
pub struct Mails {
    /// Their queue ids.
    #[arg(required = true, value_name = "QUEUE-ID")]
    ids: Vec<String>,
    #[command(flatten)]
    how: How,
}

/// How it is asked and shown.
#[derive(Clone, Debug, clap::Args)]
pub struct How {
    /// Print one JSON object for each mail.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// Asks the daemon; goes through all mails that are named, and fails when one of them does.
pub fn run(command: &Command, environment: Environment<'_>) -> u8 {
    let (how, done) = match command {
        Command::List { account, how } => {
            let done = Api::of(&how.daemon, environment).and_then(|api| {
                let ask = |path: &str| api.get(path);
                pages(account.as_deref(), &ask, &mut |entry| show(entry, how, &[line(entry)]))
            });
            (how, done.map(|()| exit::OK))
        }
        Command::Show(mails)
        | Command::Retry(mails)
        | Command::Hold(mails)
        | Command::Release(mails)
        | Command::Delete(mails) => {
            let done = Api::of(&mails.how.daemon, environment);
            (&mails.how, done.map(|api| each(command, mails, &api)))
        }
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let hint = if how.json { "" } else { "queue: " };
            complain(format!("{hint}{}", chain(&error)));
            error.exit_code()
        }
    }
}

/// Asks about one mail after the other; the code of the last that failed.
fn each(command: &Command, mails: &Mails, api: &Api) -> u8 {
    let mut code = exit::OK;
    for id in &mails.ids {
        let path = format!("/v1/outbox/{}", encode(id));
        let asked = match command {
            Command::Retry(_) => api.post(&format!("{path}/retry")),
            Command::Hold(_) => api.post(&format!("{path}/hold")),
            Command::Release(_) => api.post(&format!("{path}/release")),
            Command::Delete(_) => api.delete(&path),
            Command::List { .. } | Command::Show(_) => api.get(&path),
        };
        match asked {
            Ok(answer) => {
                let lines = match command {
                    Command::Delete(_) => deleted(&answer),
                    Command::Show(_) => lines(&answer),
                    _ => vec![line(&answer)],
                };
                show(&answer, &mails.how, &lines);
            }
            Err(error) => {
                complain(format!("{id}: {}", chain(&error)));
                code = error.exit_code();
            }
        }
    }
    code
}

/// Asks for one page after the other.
fn pages(
    account: Option<&str>,
    ask: &dyn Fn(&str) -> Result<Value, ApiError>,
    each: &mut dyn FnMut(&Value),
) -> Result<(), ApiError> {
    let account = account.map(|name| format!("&account={}", encode(name))).unwrap_or_default();
    let mut cursor = String::new();
    loop {
        let answer = ask(&format!("/v1/outbox?pageSize=1000{account}{cursor}"))?;
        list(&answer, "/messages").iter().for_each(&mut *each);
        match answer.get("cursor").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={}", encode(next)),
            None => return Ok(()),
        }
    }
}

fn show(answer: &Value, how: &How, lines: &[String]) {
    match how.json {
        true => say(answer),
        false => lines.iter().for_each(say),
    }
}

/// A mail on one line.
fn line(entry: &Value) -> String {
    let is_held = entry.get("held") == Some(&Value::Bool(true));
    let next = if is_held { "held" } else { text(entry, "/nextAttempt") };
    let to: Vec<&str> = list(entry, "/envelope/to").iter().filter_map(Value::as_str).collect();
    let (first, more) = to.split_first().map_or(("-", 0), |(first, rest)| (*first, rest.len()));
    let others = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!(
        "{}  {}  {}  {}  <{}> -> {first}{others}  {}",
        text(entry, "/queueId"),
        text(entry, "/created"),
        text(entry, "/account"),
        next,
        text(entry, "/envelope/from"),
        text(entry, "/progress/error/message"),
    )
}

/// A mail with its recipients.
fn lines(entry: &Value) -> Vec<String> {
    let recipients = list(entry, "/recipients").iter().map(|recipient| {
        let said = text(recipient, "/response/message");
        let said = if said == "-" { text(recipient, "/error") } else { said };
        let (name, state) = (text(recipient, "/recipient"), text(recipient, "/state"));
        format!("    {name}  {state}  {}  {said}", text(recipient, "/nextAttempt"))
    });
    std::iter::once(line(entry)).chain(recipients).collect()
}

/// What became of a mail that was to be taken out.
fn deleted(answer: &Value) -> Vec<String> {
    let id = text(answer, "/queueId");
    let of = |pointer: &str, what: &str| {
        let names = list(answer, pointer).iter().filter_map(Value::as_str);
        names.map(|name| format!("{id}  {name}  {what}")).collect::<Vec<_>>()
    };
    [of("/canceled", "canceled"), of("/underWay", "under way, and not tried again")].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn entry() -> Value {
        json!({
            "queueId": "q1", "created": "2022-10-12T12:10:40.980Z", "account": "shop",
            "nextAttempt": "2022-10-12T12:12:40.980Z",
            "envelope": { "from": "a@b", "to": ["c@d", "e@f", "g@h"] },
            "progress": { "status": "error", "error": { "message": "450 4.2.0 later" } },
            "recipients": [
                { "recipient": "c@d", "state": "deferred", "response": { "message": "450 later" } },
                { "recipient": "e@f", "state": "deferred", "error": "connection refused" }
            ]
        })
    }

    #[test]
    fn a_mail_is_a_line_and_so_is_each_recipient() {
        let head = "q1  2022-10-12T12:10:40.980Z  shop  2022-10-12T12:12:40.980Z  \
                    <a@b> -> c@d and 2 more  450 4.2.0 later";
        assert_eq!(
            lines(&entry()),
            [head, "    c@d  deferred  -  450 later", "    e@f  deferred  -  connection refused"]
        );
        let held = json!({ "queueId": "q2", "held": true });
        assert_eq!(line(&held), "q2  -  -  held  <-> -> -  -");
    }

    #[test]
    fn what_is_under_way_is_said() {
        let answer = json!({ "queueId": "q1", "canceled": ["a@b"], "underWay": ["c@d"] });
        assert_eq!(
            deleted(&answer),
            ["q1  a@b  canceled", "q1  c@d  under way, and not tried again"]
        );
    }

    #[test]
    fn all_pages_are_asked_for() {
        let ask = |path: &str| match path {
            "/v1/outbox?pageSize=1000&account=my%20shop" => {
                Ok(json!({ "cursor": "1.q2", "messages": [entry()] }))
            }
            "/v1/outbox?pageSize=1000&account=my%20shop&cursor=1.q2" => {
                Ok(json!({ "messages": [entry()] }))
            }
            path => panic!("asked for {path}"),
        };
        let mut seen = 0;
        pages(Some("my shop"), &ask, &mut |_entry| seen += 1).unwrap();
        assert_eq!(seen, 2);
    }
}
