//! `rebound explain MESSAGE-ID`: the whole story of a mail, with the evidence.

use serde_json::Value;

use super::api::{Api, DaemonArguments, list, text};
use super::{chain, complain, exit, say};
use crate::config::Environment;
use crate::http::client::encode;

/// What is explained.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A Message-ID, with or without <>, or a queue id.
    #[arg(value_name = "MESSAGE-ID")]
    name: String,
    /// Print the answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// Looks the mail up and tells what happened, recipient by recipient.
pub fn run(arguments: &Arguments, environment: Environment<'_>) -> u8 {
    let path = format!("/v1/messages/{}", encode(&arguments.name));
    match Api::of(&arguments.daemon, environment).and_then(|api| api.get(&path)) {
        Ok(answer) if arguments.json => say(format!("{answer:#}")),
        Ok(answer) => story(&answer).iter().for_each(say),
        Err(error) => {
            complain(chain(&error));
            return error.exit_code();
        }
    }
    exit::OK
}

fn story(mail: &Value) -> Vec<String> {
    let mut lines = vec![format!(
        "{}  {} taken over from {} as {}, sender <{}>",
        text(mail, "/date"),
        text(mail, "/messageId"),
        text(mail, "/account"),
        text(mail, "/queueId"),
        mail.get("from").and_then(Value::as_str).unwrap_or_default(),
    )];
    for recipient in list(mail, "/recipients") {
        let name = text(recipient, "/recipient");
        lines.push(String::new());
        lines.push(format!("{name} is {}", text(recipient, "/state")));
        lines.extend(list(recipient, "/attempts").iter().map(attempt));
        let evidence = list(mail, "/bounces").iter().chain(list(mail, "/deliveryReports"));
        // What was refused in the conversation stands there as an attempt.
        let reported = evidence
            .filter(|one| text(one, "/recipient") == name && one.get("bounceMessage").is_some());
        lines.extend(reported.map(report));
    }
    let told = list(mail, "/webhooks");
    if !told.is_empty() {
        lines.push(String::new());
        lines.push("webhooks".to_owned());
        lines.extend(told.iter().map(delivery));
    }
    lines
}

fn attempt(attempt: &Value) -> String {
    let said = attempt.pointer("/response/message").or(attempt.get("error"));
    let next = attempt.get("nextAttempt").and_then(Value::as_str);
    format!(
        "  {}  attempt {} at {} of {}: {} -> {}{}",
        text(attempt, "/date"),
        attempt.get("number").map(ToString::to_string).unwrap_or_default(),
        text(attempt, "/command"),
        text(attempt, "/mta"),
        said.and_then(Value::as_str).unwrap_or("-"),
        text(attempt, "/decision"),
        next.map(|next| format!(", again at {next}")).unwrap_or_default(),
    )
}

fn report(bounce: &Value) -> String {
    let class = bounce.pointer("/response/category").and_then(Value::as_str);
    format!(
        "  {}  report {} by {} ({}, {}): {}, {}{}",
        text(bounce, "/date"),
        text(bounce, "/bounceMessage"),
        text(bounce, "/mta"),
        text(bounce, "/match/method"),
        text(bounce, "/match/confidence"),
        text(bounce, "/action"),
        text(bounce, "/response/message"),
        class.map(|class| format!(" -> {class}")).unwrap_or_default(),
    )
}

fn delivery(told: &Value) -> String {
    let detail = |words: &str, key: &str| match told.get(key) {
        Some(Value::String(said)) => format!(", {words} {said}"),
        Some(other) => format!(", {words} {other}"),
        None => String::new(),
    };
    format!(
        "  {}  {} to {}: {} after {} attempts{}{}{}",
        text(told, "/date"),
        text(told, "/event"),
        text(told, "/webhook"),
        text(told, "/state"),
        told.get("attempts").and_then(Value::as_u64).unwrap_or_default(),
        detail("answer", "status"),
        detail("last error", "error"),
        detail("again at", "nextAttempt"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_story_names_every_attempt_and_report_once() {
        let mail = json!({
            "date": "D0", "messageId": "<m@app>", "queueId": "q1", "account": "shop", "from": "",
            "recipients": [
                {
                    "recipient": "a@b", "state": "bounced",
                    "attempts": [
                        {
                            "number": 1, "date": "D1", "command": "CONNECT", "mta": "mx:25",
                            "error": "connection refused", "decision": "deferred",
                            "nextAttempt": "D2"
                        },
                        {
                            "number": 2, "date": "D2", "command": "end of DATA", "mta": "mx:25",
                            "response": { "message": "250 ok" }, "decision": "relayed"
                        }
                    ]
                },
                { "recipient": "c@d", "state": "queued", "attempts": [] }
            ],
            "bounces": [
                {
                    "bounceMessage": "r1", "recipient": "a@b", "action": "failed", "date": "D3",
                    "mta": "far", "match": { "method": "token", "confidence": "certain" },
                    "response": { "message": "550 no", "category": "user_unknown" }
                },
                { "recipient": "c@d", "action": "failed" }
            ],
            "deliveryReports": [],
            "webhooks": [
                {
                    "webhook": "app", "id": "e1", "event": "messageSent", "state": "taken",
                    "attempts": 3, "date": "D4", "status": 200, "took": 7, "error": "500"
                },
                {
                    "webhook": "app", "id": "e2", "event": "messageBounce", "state": "waiting",
                    "attempts": 0, "nextAttempt": "D5"
                }
            ]
        });
        assert_eq!(
            story(&mail),
            [
                "D0  <m@app> taken over from shop as q1, sender <>",
                "",
                "a@b is bounced",
                "  D1  attempt 1 at CONNECT of mx:25: connection refused -> deferred, again at D2",
                "  D2  attempt 2 at end of DATA of mx:25: 250 ok -> relayed",
                "  D3  report r1 by far (token, certain): failed, 550 no -> user_unknown",
                "",
                "c@d is queued",
                "",
                "webhooks",
                "  D4  messageSent to app: taken after 3 attempts, answer 200, last error 500",
                "  -  messageBounce to app: waiting after 0 attempts, again at D5",
            ]
        );
    }
}
