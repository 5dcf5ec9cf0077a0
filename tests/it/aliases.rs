//! Preserve mode: the next hop calls a mail something else, and its report comes under that name.

use serde_json::Value;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{Queued, mail, submit};
use crate::harness::{SOON, TempDir, http, wait_for};

const APP: &str = "bounces@app.test";
const SES_ID: &str = "0102017f0a1b2c3d-4e5f6a7b-0000-4444-8888-0123456789ab-000000";
const SES_REPLY: &str = "250 Ok 0102017f0a1b2c3d-4e5f6a7b-0000-4444-8888-0123456789ab-000000";
const OUTLOOK_ID: &str = "<AM0PR01MB0001@AM0PR01MB0001.EURPRD01.PROD.OUTLOOK.COM>";
const OUTLOOK_REPLY: &str = "250 2.6.0 <AM0PR01MB0001@AM0PR01MB0001.EURPRD01.PROD.OUTLOOK.COM> \
    [InternalId=123, Hostname=AM0PR01MB0001.eurprd01.prod.outlook.com] 8123 bytes in 0.201, \
    39.396 KB/sec Queued mail for delivery";

/// A next hop that answers every mail of the app with this 250, as if each were the only one.
fn hop(reply: &'static str) -> Sink {
    Sink::scripted(Box::new(move |point, _| match point {
        Point::End(mail) if mail.from == APP => Answer::AcceptAs(reply),
        _ => Answer::Accept,
    }))
}

/// Submits a mail to two recipients and waits until the next hop has it.
fn relayed(daemon: &Daemon, subject: &str) -> Queued {
    let queued = submit(daemon.smtp, APP, &["b@dest.test", "c@dest.test"], &mail(subject));
    daemon.await_states(&queued.queue_id, &["relayed", "relayed"]);
    queued
}

/// The story of one provider: the alias is learnt, looked up, and ties the report.
fn a_report_under_the_alias_is_tied(daemon: &mut Daemon, alias: &str) {
    let queued = relayed(daemon, "renamed");
    // What was learnt is on disk with the attempt: where that is lost, the mail is tried again.
    daemon.kill();
    daemon.restart();
    daemon.await_states(&queued.queue_id, &["relayed", "relayed"]);
    let found = daemon.bounces(alias);
    assert_eq!(found["aliasOf"], Value::from(queued.message_id.clone()), "{found:#}");
    assert_eq!(found["queueId"], Value::from(queued.queue_id.clone()), "{found:#}");
    let own = daemon.bounces(&queued.message_id);
    assert_eq!((&own["aliases"][0], &own["aliasOf"]), (&Value::from(alias), &Value::Null));

    let guessed = dsn(alias, &[("x@dest.test", "failed")]);
    assert!(send(daemon.inbound, APP, &guessed).unwrap().starts_with("250"));
    wait_for("the guess is captured", SOON, || {
        let (_, list) = daemon.get("/v1/reports?unmatched=true");
        (list["reports"].as_array()?.len() == 1).then_some(())
    });
    daemon.await_states(&queued.queue_id, &["relayed", "relayed"]);
    let report = dsn(alias, &[("c@dest.test", "failed")]);
    assert!(send(daemon.inbound, APP, &report).unwrap().starts_with("250"));
    daemon.await_states(&queued.queue_id, &["relayed", "bounced"]);
    let bounce = &daemon.bounces(alias)["bounces"][0];
    let matched = serde_json::json!({ "method": "alias", "confidence": "high" });
    assert_eq!(bounce["match"], matched, "{bounce:#}");
    assert_eq!(bounce["originalMessageId"], Value::from(alias), "{bounce:#}");
    assert_eq!(bounce["messageId"], Value::from(queued.message_id), "{bounce:#}");
}

#[test]
fn a_report_with_the_id_that_outlook_gave_is_tied_to_the_mail() {
    let sink = hop(OUTLOOK_REPLY);
    let mut daemon = Daemon::start(Config::new().preserve().relay(sink.address));
    a_report_under_the_alias_is_tied(&mut daemon, OUTLOOK_ID);
}

#[test]
fn a_report_with_the_id_that_ses_gave_is_tied_by_a_rule_that_is_read_at_a_reload() {
    let sink = hop(SES_REPLY);
    let place = TempDir::new("rules");
    let file = |text: &str| place.file("aliases.txt", text);
    // The next hop is not called as SES is; what the compiled-in rules make of that name and
    // this reply their own table tells.
    let rules = file("other  host=127.0.0.1\n    Took {id} -> {id}@eu-west-1.amazonses.com\n");
    let quoted = format!("\"{}\"", rules.display());
    let config = Config::new().preserve().relay(sink.address);
    let mut daemon = Daemon::start(config.set("bounces", "alias_rules_file", &quoted));
    let alias = format!("<{SES_ID}@eu-west-1.amazonses.com>");
    relayed(&daemon, "before");
    let (status, _) = daemon.get(&format!("/v1/bounces/{}", http::encode(&alias)));
    assert_eq!(status, 404);

    file("ses  host=127.0.0.1\n    Ok {id} -> {id}@{region}.amazonses.com\n");
    daemon.signal("HUP");
    let line = format!("{}, line 2: no pattern has the `{{region}}`", rules.display());
    wait_for("what is wrong is said", SOON, || daemon.log().contains(&line).then_some(()));
    file("ses  host=127.0.0.1\n    Ok {id} -> {id}@eu-west-1.amazonses.com\n");
    daemon.signal("HUP");
    wait_for("the rules are read", SOON, || {
        daemon.log().contains("reloaded certificates").then_some(())
    });
    a_report_under_the_alias_is_tied(&mut daemon, &alias);
}

#[test]
fn a_report_with_nothing_but_the_next_hops_queue_id_or_the_recipient_is_tied_to_the_mail() {
    let sink = Sink::start();
    let daemon = Daemon::start(Config::new().preserve().relay(sink.address));
    let queued = relayed(&daemon, "queue id");
    let foreign = dsn("<foreign@elsewhere.test>", &[("b@dest.test", "failed")]);
    let foreign = String::from_utf8(foreign).unwrap();
    let named = foreign
        .replace("mx.dest.test\r\n\r\nF", "mx.dest.test\r\nX-Postfix-Queue-ID: SINK1\r\n\r\nF");
    assert_ne!(named, foreign);
    assert!(send(daemon.inbound, APP, named.as_bytes()).unwrap().starts_with("250"));
    let message = daemon.await_states(&queued.queue_id, &["bounced", "relayed"]);
    assert_eq!(message["bounces"][0]["match"]["method"], "remote-queue-id", "{message:#}");

    let guess = foreign.replace("b@dest.test", "c@dest.test");
    assert!(send(daemon.inbound, APP, guess.as_bytes()).unwrap().starts_with("250"));
    let shown = wait_for("it is listed by its recipient", SOON, || {
        let (_, page) = daemon.get("/v1/bounces?recipient=c@dest.test");
        page["bounces"].as_array()?.first().cloned()
    });
    let matched = serde_json::json!({ "method": "recipient", "confidence": "low" });
    assert_eq!(shown["match"], matched, "{shown:#}");
    daemon.await_states(&queued.queue_id, &["bounced", "relayed"]);
}
