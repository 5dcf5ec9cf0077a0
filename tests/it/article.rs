//! EmailEngine's article "Tracking bounces" from its first command to its last, with another host
//! and token: a mail that Postfix takes and bounces, its webhook, the list of sent mails, the report.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::daemon::{Config, Daemon, account_hash};
use crate::harness::postfix::Postfix;
use crate::harness::receiver::{Answer, Receiver};
use crate::harness::{SOON, program, run, wait_for};

/// The article's body, to somebody whose mail bounces here.
const BODY: &str = r#"{
      "to": {
        "address": "later@dest.test"
      },
      "subject": "Test message",
      "text": "This email should bounce!"
    }"#;

struct Place {
    daemon: Daemon,
    receiver: Receiver,
    token: String,
    _postfix: Postfix,
}

impl Place {
    fn start() -> Self {
        let receiver = Receiver::start(Box::new(|_, _| Answer::Take));
        let account = format!(
            "[[account]]\nname = \"ekiri\"\nfrom = \"Andris Ekiri <andris@ekiri.ee>\"\n\
             password_hash = \"{}\"",
            account_hash("unused")
        );
        let config = Config::new()
            .verp()
            .set("http", "service_url", "\"https://emailengine.srv.dev\"")
            .table(&account)
            .table(&receiver.table("app", "events = [\"messageBounce\"]"));
        let postfix = Postfix::start(config.listen("inbound"));
        let daemon = Daemon::start(config.relay(postfix.address));
        let (code, token) =
            daemon.command(&["token", "add", "app", "--scope", "read", "--scope", "submit"]);
        assert_eq!(code, 0, "{token}");
        Self { daemon, receiver, token: token.trim().to_owned(), _postfix: postfix }
    }

    /// What curl prints for the article's arguments.
    fn curl(&self, path: &str, arguments: &[&str]) -> String {
        let output = run(Command::new(program("curl", "curl"))
            .args(["-sS", &format!("http://{}{path}", self.daemon.http)])
            .args(["-H", &format!("Authorization: Bearer {}", self.token)])
            .args(arguments));
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, path: &str, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.curl(path, arguments)).unwrap()
    }
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_articles_exchanges_work_with_another_host_and_token() {
    let place = Place::start();
    let path = "/v1/account/ekiri/submit";
    let json_type = "Content-type: application/json";
    let queued = place.json(path, &["-XPOST", "-H", json_type, "-d", BODY]);
    assert_eq!(keys(&queued), ["response", "messageId", "sendAt", "queueId"]);
    assert_eq!(queued["response"], "Queued for delivery");

    let told = place.receiver.wait_for("the bounce", |taken| taken.first().cloned()).json();
    assert_eq!(keys(&told), ["serviceUrl", "account", "date", "event", "data"]);
    assert_eq!(told["serviceUrl"], "https://emailengine.srv.dev");
    assert_eq!((&told["account"], &told["event"]), (&json!("ekiri"), &json!("messageBounce")));
    let data = &told["data"];
    assert_eq!(data["messageId"], queued["messageId"]);
    assert_eq!(
        (&data["recipient"], &data["action"]),
        (&json!("later@dest.test"), &json!("failed"))
    );
    assert_eq!(
        (&data["response"]["source"], &data["response"]["status"]),
        (&json!("smtp"), &json!("5.2.2"))
    );
    assert!(data["mta"].is_string() && data["queueId"].is_string(), "{data:#}");
    let headers = &data["messageHeaders"];
    assert_eq!(headers["from"], json!(["Andris Ekiri <andris@ekiri.ee>"]));
    assert_eq!(headers["to"], json!(["later@dest.test"]));
    assert_eq!(headers["subject"], json!(["Test message"]));
    assert_eq!(headers["message-id"], json!([queued["messageId"]]));
    assert_eq!(headers["mime-version"], json!(["1.0"]));
    assert!(headers["date"][0].is_string() && headers["content-type"][0].is_string(), "{data:#}");

    let path = "/v1/account/ekiri/messages?path=INBOX.Sent";
    let sent = wait_for("the bounce is in the list", SOON, || {
        let sent = place.json(path, &["-X", "GET"]);
        sent["messages"][0]["bounces"].is_array().then_some(sent)
    });
    assert_eq!((&sent["total"], &sent["page"], &sent["pages"]), (&json!(1), &json!(0), &json!(1)));
    let message = &sent["messages"][0];
    assert!(message["uid"].is_u64() && message["id"].is_string(), "{message:#}");
    assert_eq!(message["messageId"], queued["messageId"]);
    let [bounce] = message["bounces"].as_array().unwrap().as_slice() else {
        panic!("one bounce: {message:#}");
    };
    assert_eq!(keys(bounce), ["message", "recipient", "action", "response", "date"]);
    assert_eq!(keys(&bounce["response"]), ["message", "status"]);
    assert_eq!(bounce["message"], data["bounceMessage"]);
    assert_eq!(bounce["response"]["message"], data["response"]["message"]);

    // "You could use that ID to fetch the contents of the bounce report."
    let report = bounce["message"].as_str().unwrap();
    let shown = place.json(&format!("/v1/account/ekiri/message/{report}"), &[]);
    assert_eq!(shown["id"], report, "{shown:#}");
    let source = place.curl(&format!("/v1/account/ekiri/message/{report}/source"), &[]);
    assert!(source.contains("Reporting-MTA: dns; smarthost.test"), "{source}");
}
