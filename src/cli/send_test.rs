//! `rebound send-test`: submits one mail over SMTP and shows what becomes of each recipient.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::Duration;

use serde_json::Value;

use super::api::{Api, ApiError, DaemonArguments, local};
use super::{chain, complain, exit, say};
use crate::clock::{Clock, Stopwatch};
use crate::config::{Environment, Settings};
use crate::dev::client::{Client, ClientError};
use crate::http::client::encode;
use crate::mail::{Address, ReversePath};

/// What `send-test` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A recipient; may be given more than once.
    #[arg(long, value_name = "ADDRESS", required = true, value_parser = Address::parse)]
    to: Vec<Address>,
    /// The sender; send-test@<hostname> unless given.
    #[arg(long, value_name = "ADDRESS", value_parser = Address::parse)]
    from: Option<Address>,
    /// Where to submit; the configuration's submission.listen unless given.
    #[arg(long, value_name = "HOST:PORT")]
    server: Option<String>,
    /// Show what becomes of each recipient, until each has come to its end.
    #[arg(long)]
    wait: bool,
    /// How long `relayed` must stand without news to count as the end.
    #[arg(long, value_name = "SECS", default_value_t = 5)]
    settle: u64,
    /// After how long waiting is given up.
    #[arg(long, value_name = "SECS", default_value_t = 60)]
    timeout: u64,
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// The arguments, with the configuration filled in.
struct Plan {
    from: Address,
    to: Vec<Address>,
    server: String,
    wait: Option<Wait>,
}

struct Wait {
    api: Api,
    settle: Duration,
    limit: Duration,
}

/// Why nothing is known of the test mail.
#[derive(Debug)]
enum SendTestError {
    /// The daemon cannot be found or asked.
    Api(ApiError),
    /// Neither argument nor configuration says where.
    Nowhere(&'static str),
    /// No runtime can be started.
    Runtime(io::Error),
    /// The mail could not be submitted.
    Submit(ClientError),
    /// The mail was submitted, and the daemon did not say what became of it.
    Look(ApiError),
}

/// Submits the mail, prints its ids, and with `--wait` a line for each change of state.
///
/// `OK` when every recipient is relayed or delivered (without `--wait`: when the mail was taken),
/// `FAILED` when one failed, bounced or expired, `TRY_AGAIN` when one is still pending.
pub fn run(arguments: &Arguments, environment: Environment<'_>) -> u8 {
    match submit(arguments, environment) {
        Ok(verdict) => verdict.exit_code(),
        Err(error) => {
            complain(chain(&error));
            error.exit_code()
        }
    }
}

fn submit(arguments: &Arguments, environment: Environment<'_>) -> Result<Verdict, SendTestError> {
    let settings = arguments.daemon.settings(environment).map_err(SendTestError::Api)?;
    let plan = Plan::new(arguments, &settings)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(SendTestError::Runtime)?.block_on(submit_and_watch(&plan, &Clock::system()))
}

impl Plan {
    fn new(arguments: &Arguments, settings: &Settings) -> Result<Self, SendTestError> {
        let server = match &arguments.server {
            Some(server) => server.clone(),
            None => local(&settings.submission.listen).ok_or(SendTestError::Nowhere(
                "submission.listen names no address: give --server",
            ))?,
        };
        let from = match &arguments.from {
            Some(from) => from.clone(),
            None => Address::parse(&format!("send-test@{}", settings.hostname))
                .map_err(|_e| SendTestError::Nowhere("the hostname is no domain: give --from"))?,
        };
        let wait = arguments.wait.then(|| Wait::new(arguments, settings)).transpose()?;
        Ok(Self { from, to: arguments.to.clone(), server, wait })
    }
}

impl Wait {
    fn new(arguments: &Arguments, settings: &Settings) -> Result<Self, SendTestError> {
        Ok(Self {
            api: Api::new(&arguments.daemon, settings).map_err(SendTestError::Api)?,
            settle: Duration::from_secs(arguments.settle),
            limit: Duration::from_secs(arguments.timeout),
        })
    }
}

async fn submit_and_watch(plan: &Plan, clock: &Clock) -> Result<Verdict, SendTestError> {
    let mail = compose(plan, clock);
    let mut client =
        Client::connect(&plan.server, CLIENT_NAME).await.map_err(SendTestError::Submit)?;
    let from = ReversePath::Address(plan.from.clone());
    let sent = client.send(&from, &plan.to, &mail).await.map_err(SendTestError::Submit)?;
    // The mail is taken; that the daemon might not hear QUIT changes nothing.
    if let Err(error) = client.quit().await {
        tracing::debug!(%error, "saying goodbye");
    }
    let (queue_id, message_id) = ids(&sent.reply.text);
    say(format!("queued as {queue_id} {message_id}"));
    for (address, reply) in &sent.refused {
        say(format!("{address}  refused  {reply}"));
    }
    let refused = if sent.refused.is_empty() { Verdict::Good } else { Verdict::Bad };
    match &plan.wait {
        Some(wait) => Ok(watch(wait, &queue_id).await?.max(refused)),
        None => Ok(refused),
    }
}

impl SendTestError {
    /// The exit code that says whose fault it is.
    fn exit_code(&self) -> u8 {
        match self {
            Self::Submit(ClientError::Refused { reply, .. }) if reply.code < 500 => exit::TRY_AGAIN,
            Self::Submit(ClientError::Refused { .. }) => exit::FAILED,
            Self::Submit(_) => exit::UNAVAILABLE,
            Self::Api(error) | Self::Look(error) => error.exit_code(),
            Self::Nowhere(_) => exit::USAGE,
            Self::Runtime(_) => exit::TRY_AGAIN,
        }
    }
}

/// What all recipients together have come to; the worst counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Good,
    Bad,
    Pending,
}

impl Verdict {
    fn exit_code(self) -> u8 {
        match self {
            Self::Good => exit::OK,
            Self::Bad => exit::FAILED,
            Self::Pending => exit::TRY_AGAIN,
        }
    }

    /// Of a recipient's state; `relayed` is good as long as nothing else is heard.
    fn of(state: &str) -> Self {
        match state {
            "relayed" | "delivered" => Self::Good,
            "failed" | "bounced" | "expired" | "suppressed" | "canceled" => Self::Bad,
            _ => Self::Pending,
        }
    }
}

/// Follows the mail until every recipient has come to its end.
async fn watch(wait: &Wait, queue_id: &str) -> Result<Verdict, SendTestError> {
    let mut seen = 0;
    let mut shown: BTreeMap<String, String> = BTreeMap::new();
    let watching = Stopwatch::start();
    let mut quiet = Stopwatch::start();
    loop {
        let path = format!(
            "/v1/messages/{}/wait?for=change&seen={seen}&timeout={POLL_SECS}",
            encode(queue_id)
        );
        let message = wait.api.ask(&path).await.map_err(SendTestError::Look)?;
        let states = states(&message);
        for (recipient, state) in &states {
            if shown.get(recipient) != Some(state) {
                let reason = reason(&message, recipient, state).unwrap_or_default();
                say(format!("{recipient}  {state}  {reason}").trim_end());
                shown.insert(recipient.clone(), state.clone());
                quiet = Stopwatch::start();
            }
        }
        let verdict =
            states.iter().map(|(_, state)| Verdict::of(state)).max().unwrap_or(Verdict::Pending);
        let may_change = states.iter().any(|(_, state)| state == "relayed");
        let over = verdict < Verdict::Pending && (!may_change || quiet.elapsed() >= wait.settle);
        if over {
            return Ok(verdict);
        }
        if watching.elapsed() >= wait.limit {
            if let Some(pending) = pending(&states) {
                let waited = wait.limit.as_secs();
                complain(format_args!("gave up after {waited} s (--timeout); pending: {pending}"));
            }
            return Ok(verdict);
        }
        seen = message.get("version").and_then(Value::as_u64).unwrap_or(seen);
    }
}

/// Each recipient with its state, in the order of the envelope.
fn states(message: &Value) -> Vec<(String, String)> {
    let text = |value: &Value, key: &str| value.get(key)?.as_str().map(str::to_owned);
    let recipients = message.get("recipients").and_then(Value::as_array);
    let pair = |value| Some((text(value, "recipient")?, text(value, "state")?));
    recipients.into_iter().flatten().filter_map(pair).collect()
}

/// The recipients that have come to no end yet, each with its state; `None` without any.
fn pending(states: &[(String, String)]) -> Option<String> {
    let pending = states.iter().filter(|(_, state)| Verdict::of(state) == Verdict::Pending);
    let shown: Vec<String> =
        pending.map(|(recipient, state)| format!("{recipient} ({state})")).collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// The words of the bounce, else of the recipient's last attempt.
fn reason(message: &Value, recipient: &str, state: &str) -> Option<String> {
    let about = |value: &&Value| value.get("recipient").and_then(Value::as_str) == Some(recipient);
    let list = |key: &str| message.get(key).and_then(Value::as_array);
    let last = |key| list(key)?.iter().rfind(about);
    let words = |value: &Value| Some(value.get("response")?.get("message")?.as_str()?.to_owned());
    match state {
        "queued" => None,
        "bounced" | "failed" | "expired" => words(last("bounces")?),
        _ => {
            let attempt = last("recipients")?.get("attempts")?.as_array()?.last()?;
            words(attempt).or_else(|| Some(attempt.get("error")?.as_str()?.to_owned()))
        }
    }
}

/// Queue id and Message-ID from `Ok: queued as <queueId> <message-id>`; the latter may be absent.
fn ids(reply: &str) -> (String, String) {
    let mut words = reply.split("queued as ").nth(1).unwrap_or_default().split_whitespace();
    let mut next = || words.next().unwrap_or_default().to_owned();
    (next(), next())
}

/// The mail; Rebound stamps Message-ID and Date.
fn compose(plan: &Plan, clock: &Clock) -> Vec<u8> {
    let to: Vec<&str> = plan.to.iter().map(Address::as_str).collect();
    format!(
        "From: {}\r\nTo: {}\r\nSubject: Test mail from rebound send-test\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\nSent at {}.\r\n",
        plan.from,
        to.join(",\r\n\t"),
        clock.now(),
    )
    .into_bytes()
}

impl fmt::Display for SendTestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(error) => error.fmt(f),
            Self::Nowhere(why) => f.write_str(why),
            Self::Runtime(_) => f.write_str("cannot start"),
            Self::Submit(ClientError::Peer { source, .. })
                if source.kind() == io::ErrorKind::ConnectionRefused =>
            {
                f.write_str(
                    "cannot submit the test mail (is `rebound serve`, or `rebound dev`, running?)",
                )
            }
            Self::Submit(_) => f.write_str("cannot submit the test mail"),
            Self::Look(_) => f.write_str("the mail was submitted, but its state cannot be read"),
        }
    }
}

impl std::error::Error for SendTestError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Submit(error) => Some(error),
            Self::Look(error) => Some(error),
            Self::Api(error) => error.source(),
            Self::Runtime(error) => Some(error),
            Self::Nowhere(_) => None,
        }
    }
}

const CLIENT_NAME: &str = "localhost";
/// How long one question waits for news; `settle` is looked at in between.
const POLL_SECS: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ids_are_read_from_the_reply() {
        for (reply, queue_id, message_id) in [
            ("Ok: queued as 0abc <m@x>", "0abc", "<m@x>"),
            ("Ok: queued as 0abc", "0abc", ""),
            ("Ok", "", ""),
        ] {
            assert_eq!(ids(reply), (queue_id.to_owned(), message_id.to_owned()), "{reply}");
        }
    }

    #[test]
    fn the_worst_recipient_decides_and_pending_is_worse_than_bad() {
        for (states, want) in [
            (vec!["relayed", "delivered"], 0),
            (vec!["relayed", "bounced"], 1),
            (vec!["failed", "deferred"], 75),
            (vec!["expired"], 1),
            (vec!["queued"], 75),
        ] {
            let verdict = states.iter().map(|state| Verdict::of(state)).max().unwrap();
            assert_eq!(verdict.exit_code(), want, "{states:?}");
        }
    }

    #[test]
    fn what_is_pending_is_named() {
        let state = |recipient: &str, state: &str| (recipient.to_owned(), state.to_owned());
        for (states, want) in [
            (vec![state("a@b", "relayed"), state("c@d", "failed")], None),
            (vec![state("a@b", "queued"), state("c@d", "failed")], Some("a@b (queued)")),
            (
                vec![state("a@b", "queued"), state("c@d", "deferred")],
                Some("a@b (queued), c@d (deferred)"),
            ),
        ] {
            assert_eq!(pending(&states).as_deref(), want, "{states:?}");
        }
    }

    #[test]
    fn the_reason_is_the_bounce_or_else_the_last_attempt() {
        let reply = |text: &str| json!({"response": {"message": text}});
        let message = json!({
            "recipients": [
                {"recipient": "a@b", "state": "bounced", "attempts": [reply("250 ok")]},
                {"recipient": "c@d", "state": "relayed", "attempts": [reply("450 x"), reply("250 y")]},
                {"recipient": "e@f", "state": "deferred", "attempts": [{"error": "refused"}]},
                {"recipient": "g@h", "state": "queued", "attempts": []},
            ],
            "bounces": [{"recipient": "a@b", "response": {"message": "552 full"}}],
        });
        let reasons: Vec<_> = states(&message)
            .iter()
            .map(|(recipient, state)| reason(&message, recipient, state).unwrap_or_default())
            .collect();
        assert_eq!(reasons, ["552 full", "250 y", "refused", ""]);
    }
}
