//! Webhooks: what receivers are told, in which order, whatever they answer and whoever is killed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::daemon::{Config, Daemon};
use crate::harness::receiver::{self, Answer, Delivery, Receiver, SECRET};
use crate::harness::sink::{Answer as Reply, Point, Sink};
use crate::harness::smtp::{mail, submit};
use crate::harness::{SOON, TempDir, free_port, http, program, run, wait_for};

const APP: &str = "anna@app.test";

/// A next hop that refuses `no@`, takes `late@` at the second try and everything else at once.
fn sink() -> Sink {
    Sink::scripted(Box::new(|point, number| match point {
        Point::Rcpt("no@dest.test") => Reply::Reply("550 5.1.1 No such user"),
        Point::Rcpt("late@dest.test") if number == 1 => Reply::Reply("450 4.2.1 Not now"),
        _ => Reply::Accept,
    }))
}

/// The events of each mail, in the order in which they were first taken.
fn by_mail(taken: &[Delivery]) -> BTreeMap<String, Vec<String>> {
    let mut told: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut seen = std::collections::HashSet::new();
    for delivery in taken {
        if seen.insert(delivery.field("webhook-id").to_owned()) {
            let (event, queue_id) = delivery.event();
            told.entry(queue_id).or_default().push(event);
        }
    }
    told
}

fn webhook(daemon: &Daemon, name: &str) -> Value {
    let (status, answer) = daemon.get(&format!("/v1/webhooks/{name}"));
    assert_eq!(status, 200, "{answer}");
    answer
}

/// A token that may change something, as a field and in a file; from then on everybody needs one.
fn admin(daemon: &Daemon) -> (String, String) {
    let (code, token) = daemon.command(&["token", "add", "test", "--scope", "admin"]);
    assert_eq!(code, 0, "{token}");
    let file = daemon.dir.file("token", token.trim());
    (format!("Authorization: Bearer {}\r\n", token.trim()), file.display().to_string())
}

#[test]
fn whatever_the_receiver_does_nothing_is_lost_and_each_mail_is_told_in_order() {
    let sink = sink();
    let receiver = Receiver::start(Box::new(|_, number| match number % 7 {
        _ if number > 40 => Answer::Take,
        0 => Answer::Status(500),
        1 => Answer::RetryAfter(1),
        2 => Answer::Hang,
        3 => Answer::Break,
        4 => Answer::Redirect,
        _ => Answer::Take,
    }));
    let table = receiver.table("app", "timeout_secs = 1");
    let config = Config::new().relay(sink.address).table(&table);
    let mut daemon = Daemon::start(config);
    let mut mails = Vec::new();
    for round in 0..3 {
        for to in ["no@dest.test", "yes@dest.test"] {
            let queued = submit(daemon.smtp, APP, &[to], &mail(&format!("{round}")));
            mails.push((queued.queue_id, to));
        }
        let before = receiver.taken().len();
        receiver.wait_for("something is taken", |taken| (taken.len() > before).then_some(()));
        daemon.kill();
        daemon.restart();
    }
    let told = receiver.wait_for("everything is told", |taken| {
        let told = by_mail(taken);
        let events: usize = told.values().map(Vec::len).sum();
        // Of each that was refused: failed, bounced, closed; of each other: sent.
        (events == 3 * 3 + 3).then_some(told)
    });
    for (queue_id, to) in &mails {
        let want: &[&str] = match *to {
            "no@dest.test" => &["messageFailed", "messageBounce", "messageClosed"],
            _ => &["messageSent"],
        };
        assert_eq!(told[queue_id], want, "{to}");
    }
    let paths: Vec<String> = receiver.deliveries().into_iter().map(|one| one.path).collect();
    assert!(paths.iter().all(|path| path == "/hook"), "a redirect was followed: {paths:?}");
    // The same event has the same name and the same body however often it is sent.
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    for delivery in receiver.deliveries() {
        let id = delivery.field("webhook-id").to_owned();
        let body = bodies.entry(id).or_insert_with(|| delivery.body.clone());
        assert_eq!(*body, delivery.body);
    }
}

/// An hour of the default schedule: six attempts, whose waits the settings make a second each.
const ATTEMPTS_IN_AN_HOUR: u64 = 6;

#[test]
fn an_outage_with_more_events_than_may_wait_loses_none_and_all_can_be_had_once_more() {
    const MAILS: usize = 200;
    let sink = sink();
    let port = free_port();
    let config = Config::new().relay(sink.address).table(&receiver::table(port, "app", ""));
    let mut daemon = Daemon::start(config);
    let mut mails = Vec::new();
    for half in 0..2 {
        for _ in 0..MAILS / 2 {
            mails.push(submit(daemon.smtp, APP, &["no@dest.test"], &mail("lost?")).queue_id);
        }
        wait_for("it fails", SOON, || {
            let shown = webhook(&daemon, "app");
            (shown["deliveries"][0]["attempts"].as_u64() > Some(half)).then_some(())
        });
        daemon.kill();
        daemon.restart();
    }
    wait_for("an hour is over, and no more may wait", 2 * SOON, || {
        let shown = webhook(&daemon, "app");
        let attempts = shown["deliveries"][0]["attempts"].as_u64();
        (attempts >= Some(ATTEMPTS_IN_AN_HOUR) && shown["waiting"] == 500).then_some(())
    });
    daemon.kill();
    let receiver = Receiver::come_up(port, Box::new(|_, _| Answer::Take));
    daemon.restart();
    let told = receiver.wait_for("everything is told", |taken| {
        let told = by_mail(taken);
        (told.values().map(Vec::len).sum::<usize>() == 3 * MAILS).then_some(told)
    });
    for queue_id in &mails {
        assert_eq!(told[queue_id], ["messageFailed", "messageBounce", "messageClosed"]);
    }

    let (bearer, _) = admin(&daemon);
    let before = receiver.deliveries().len();
    let first = receiver.taken().iter().map(|one| one.field("webhook-id").to_owned()).min();
    let mut cursor = first.unwrap();
    let mut queued = 0;
    wait_for("all are in the outbox once more", SOON, || {
        let path = format!("/v1/webhooks/app/replay?from={cursor}");
        let (status, answer) = http::post(daemon.http, &path, &bearer);
        assert_eq!(status, 200, "{answer}");
        queued += answer["queued"].as_u64().unwrap();
        cursor = answer["cursor"].as_str().unwrap().to_owned();
        (answer["more"] == false).then_some(())
    });
    // Of our own DSNs nobody is told.
    assert!(queued >= 3 * u64::try_from(MAILS).unwrap(), "{queued}");
    let again = receiver.wait_for("all are told once more", |taken| {
        let again = by_mail(&taken[before..]);
        (again.values().map(Vec::len).sum::<usize>() == 3 * MAILS).then_some(again)
    });
    assert_eq!(again, told);
}

#[test]
fn a_dead_endpoint_delays_nobody_and_one_failing_mail_no_other() {
    let sink = sink();
    let dead = Receiver::start(Box::new(|_, _| Answer::Hang));
    let alive = Receiver::start(Box::new(|delivery, _| {
        if delivery.body.contains("stuck@dest.test") { Answer::Status(500) } else { Answer::Take }
    }));
    let config = Config::new()
        .relay(sink.address)
        .table(&dead.table("dead", ""))
        .table(&alive.table("alive", "events = [\"messageSent\"]\nformat = \"events\""));
    let daemon = Daemon::start(config);
    let stuck = submit(daemon.smtp, APP, &["stuck@dest.test"], &mail("stuck"));
    daemon.await_states(&stuck.queue_id, &["relayed"]);
    for number in 0..20 {
        submit(daemon.smtp, APP, &[&format!("a{number}@dest.test")], &mail("free"));
    }
    alive.wait_for("the others are told", |taken| (taken.len() == 20).then_some(()));
    let body = alive.taken()[0].json();
    assert_eq!(body["message"]["messageId"], body["data"]["messageId"], "{body:#}");
    let shown = wait_for("the failure is shown", SOON, || {
        let shown = webhook(&daemon, "alive");
        (shown["state"] == "failing").then_some(shown)
    });
    let delivery = &shown["deliveries"][0];
    assert_eq!(delivery["queueId"], stuck.queue_id, "{shown:#}");
    assert_eq!(delivery["error"], "500: no!", "{shown:#}");
    alive.change(Box::new(|_, _| Answer::Take));
    alive.wait_for("the one that was stuck is told", |taken| (taken.len() == 21).then_some(()));
    assert_eq!(webhook(&daemon, "dead")["waiting"], 21);
    let (_, _, metrics) = http::get_raw(daemon.http, "/metrics", "");
    let metrics = String::from_utf8_lossy(&metrics).into_owned();
    assert!(
        metrics.contains("rebound_webhook_deliveries_total{webhook=\"alive\",result=\"taken\"} 21"),
        "{metrics}"
    );
    // What will be told of a mail waits, and nothing else: it fails with its last recipient.
    for (to, want) in [
        (&["no@dest.test"][..], &["messageBounce", "messageClosed", "messageFailed"][..]),
        (&["no@dest.test", "yes@dest.test"], &["messageBounce", "messageSent"]),
    ] {
        let queued = submit(daemon.smtp, APP, to, &mail("fails"));
        wait_for("all that will be told waits", SOON, || {
            let (_, waiting) = told(&daemon, &queued.queue_id);
            let mut events: Vec<_> =
                waiting.iter().filter(|one| one["webhook"] == "dead").collect();
            events.sort_by_key(|one| one["event"].to_string());
            events
                .iter()
                .map(|one| one["event"].as_str().unwrap())
                .eq(want.iter().copied())
                .then_some(())
        });
    }
}

#[test]
fn one_that_is_gone_stays_so_over_a_restart_until_it_is_enabled_and_then_hears_everything() {
    let sink = sink();
    let receiver = Receiver::start(Box::new(|_, _| Answer::Status(410)));
    let config = Config::new().relay(sink.address).table(&receiver.table("app", ""));
    let mut daemon = Daemon::start(config);
    let first = submit(daemon.smtp, APP, &["a@dest.test"], &mail("first"));
    let is_disabled = |daemon: &Daemon| {
        let shown = webhook(daemon, "app");
        (shown["state"] == "disabled").then_some(shown)
    };
    let shown = wait_for("it is disabled", SOON, || is_disabled(&daemon));
    let waits = &shown["deliveries"][0];
    assert!(waits["state"] == "waiting" && waits.get("nextAttempt").is_none(), "{shown:#}");
    daemon.terminate();
    daemon.restart();
    assert!(is_disabled(&daemon).is_some());
    let (_, waiting) = told(&daemon, &first.queue_id);
    assert_eq!((waiting.len(), waiting[0].get("nextAttempt")), (1, None), "{waiting:#?}");
    let second = submit(daemon.smtp, APP, &["b@dest.test"], &mail("second"));
    daemon.await_states(&second.queue_id, &["relayed"]);
    assert_eq!(receiver.deliveries().len(), 1);
    receiver.change(Box::new(|_, _| Answer::Take));
    let (status, _) = http::post(daemon.http, "/v1/webhooks/app/enable", "");
    assert_eq!(status, 401, "it needs a token that may change something");
    let (bearer, _) = admin(&daemon);
    let (status, answer) = http::post(daemon.http, "/v1/webhooks/app/enable", &bearer);
    assert_eq!(status, 200, "{answer}");
    let told =
        receiver.wait_for("both are told", |taken| (taken.len() == 2).then(|| by_mail(taken)));
    let mut mails = [first.queue_id, second.queue_id];
    mails.sort();
    assert!(told.into_keys().eq(mails), "each mail is told");
}

#[test]
fn what_was_given_up_is_listed_and_can_be_had_once_more_and_a_test_says_what_came_of_it() {
    let sink = sink();
    let receiver = Receiver::start(Box::new(|_, _| Answer::Status(503)));
    let table = receiver.table("app", "retry_for = \"1s\"\nevents = [\"messageSent\"]");
    let daemon = Daemon::start(Config::new().relay(sink.address).table(&table));
    let queued = submit(daemon.smtp, APP, &["a@dest.test"], &mail("given up"));
    let shown = wait_for("it is given up", SOON, || {
        let shown = webhook(&daemon, "app");
        (shown["givenUp"] == 1).then_some(shown)
    });
    let delivery = &shown["deliveries"][0];
    assert_eq!(delivery["state"], "givenUp", "{shown:#}");
    assert_eq!(delivery["queueId"], queued.queue_id, "{shown:#}");
    let (bearer, file) = admin(&daemon);
    let command = |arguments: &[&str]| {
        daemon.command(&[&["webhook"], arguments, &["--token-file", &file]].concat())
    };
    let (code, text) = command(&["test", "app"]);
    assert!(code != 0 && text.contains("503"), "{code}: {text}");
    receiver.change(Box::new(|_, _| Answer::Take));
    let (code, text) = command(&["test", "app"]);
    assert!(code == 0 && text.contains("delivered: 200"), "{code}: {text}");
    let id = delivery["id"].as_str().unwrap();
    let (code, text) = command(&["replay", "app", "--id", id]);
    assert!(code == 0 && text.contains("1 events"), "{code}: {text}");
    receiver.wait_for("it is told", |taken| {
        taken
            .iter()
            .any(|one| one.event() == ("messageSent".to_owned(), queued.queue_id.clone()))
            .then_some(())
    });
    let ask = |path: &str| {
        let (status, _, body) = http::get_raw(daemon.http, path, &bearer);
        (status, serde_json::from_slice::<Value>(&body).unwrap())
    };
    assert_eq!(ask("/v1/webhooks/app").1["givenUp"], 0);
    for (path, want) in [("/v1/webhooks/nobody", 404), ("/v1/webhooks/app?page=1", 400)] {
        assert_eq!(ask(path).0, want, "{path}");
    }
    for (path, want) in [
        ("/v1/webhooks/nobody/test", 404),
        ("/v1/webhooks/app/replay", 400),
        ("/v1/webhooks/app/replay?id=x", 400),
        (&format!("/v1/webhooks/app/replay?id={id}&from={id}"), 400),
        (&format!("/v1/webhooks/app/replay?from={id}"), 200),
    ] {
        assert_eq!(http::post(daemon.http, path, &bearer).0, want, "{path}");
    }
}

/// What the timeline of a mail says of webhooks, those that have ended and those that wait.
fn told(daemon: &Daemon, queue_id: &str) -> (Vec<Value>, Vec<Value>) {
    let message = daemon.message(queue_id);
    let all = message["webhooks"].as_array().cloned().unwrap_or_default();
    all.into_iter().partition(|one| one["state"] != "waiting")
}

#[test]
fn a_timeline_says_what_webhooks_were_told_over_kills_of_the_daemon() {
    let sink = sink();
    let third = Receiver::start(Box::new(|_, number| match number {
        0 => Answer::Hang,
        1 => Answer::Status(503),
        _ => Answer::Take,
    }));
    let never = Receiver::start(Box::new(|_, _| Answer::Status(500)));
    let only = "events = [\"messageSent\"]\ntimeout_secs = 1";
    let config = Config::new()
        .relay(sink.address)
        .table(&third.table("third", only))
        .table(&never.table("never", &format!("{only}\nretry_for = \"2s\"")))
        .table(&never.table("waits", &format!("{only}\nretry_for = \"1h\"")))
        .table(&third.table("others", &format!("{only}\naccounts = [\"shop\"]")));
    let mut daemon = Daemon::start(config);
    let queued = submit(daemon.smtp, APP, &["a@dest.test"], &mail("told"));
    third.wait_for("it is taken", |taken| (!taken.is_empty()).then_some(()));
    // Perhaps before this is on disk; then it is taken once more, and recorded once all the same.
    daemon.kill();
    daemon.restart();
    let (ended, waiting) = wait_for("two have ended, one waits", 3 * SOON, || {
        let (ended, waiting) = told(&daemon, &queued.queue_id);
        let is_failing = |one: &Value| one["attempts"].as_u64() > Some(1);
        (ended.len() == 2 && waiting.iter().all(is_failing)).then_some((ended, waiting))
    });
    let of = |name: &str| ended.iter().find(|one| one["webhook"] == name).unwrap();
    let taken = of("third");
    let id = third.taken()[0].field("webhook-id").to_owned();
    assert_eq!((&taken["state"], &taken["status"]), (&json!("taken"), &json!(200)), "{taken:#}");
    assert_eq!((&taken["event"], &taken["id"]), (&json!("messageSent"), &json!(id)), "{taken:#}");
    assert!(taken["took"].is_u64() && taken["date"].is_string(), "{taken:#}");
    let given_up = of("never");
    assert_eq!(given_up["state"], "givenUp", "{given_up:#}");
    assert_eq!((&given_up["status"], &given_up["error"]), (&json!(500), &json!("500: no!")));
    assert_eq!(waiting.len(), 1, "nothing waits for a webhook of other accounts: {waiting:#?}");
    assert_eq!((&waiting[0]["webhook"], &waiting[0]["id"]), (&json!("waits"), &json!(id)));
    assert!(waiting[0]["nextAttempt"].is_string(), "{waiting:#?}");
    // What is on disk stays so, and nothing is told again.
    daemon.terminate();
    let before = third.deliveries().len();
    for _ in 0..2 {
        daemon.restart();
        assert_eq!(told(&daemon, &queued.queue_id).0, ended);
        daemon.kill();
    }
    assert_eq!(third.deliveries().len(), before);
    daemon.restart();
    let (code, text) = daemon.command(&["explain", &queued.queue_id]);
    assert!(code == 0 && text.contains("messageSent to third: taken after"), "{code}: {text}");
    // Webhooks are everybody's: who has one account sees nothing of them.
    let (code, token) = daemon.command(&["token", "add", "own", "--account", "default"]);
    assert_eq!(code, 0, "{token}");
    let bearer = format!("Authorization: Bearer {}\r\n", token.trim());
    let path = format!("/v1/messages/{}", queued.queue_id);
    let (status, _, body) = http::get_raw(daemon.http, &path, &bearer);
    let shown: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, shown.get("webhooks")), (200, None), "{shown:#}");
}

#[test]
fn an_event_that_is_taken_at_the_third_try_says_so_and_what_went_wrong_before() {
    let sink = sink();
    let receiver = Receiver::start(Box::new(|_, number| match number {
        0 | 1 => Answer::Status(503),
        _ => Answer::Take,
    }));
    let config = Config::new().relay(sink.address).table(&receiver.table("app", ""));
    let daemon = Daemon::start(config);
    let queued = submit(daemon.smtp, APP, &["a@dest.test"], &mail("third"));
    let taken =
        wait_for("it is taken", 3 * SOON, || told(&daemon, &queued.queue_id).0.into_iter().next());
    assert_eq!((&taken["attempts"], &taken["status"]), (&json!(3), &json!(200)), "{taken:#}");
    assert_eq!((&taken["state"], &taken["error"]), (&json!("taken"), &json!("503: no!")));
    // Once more, because somebody wants it so: that is another delivery.
    let (bearer, _) = admin(&daemon);
    let path = format!("/v1/webhooks/app/replay?id={}", taken["id"].as_str().unwrap());
    let (status, answer) = http::post(daemon.http, &path, &bearer);
    assert_eq!((status, &answer["queued"]), (200, &json!(1)), "{answer}");
    let path = format!("/v1/messages/{}", queued.queue_id);
    wait_for("both are shown", SOON, || {
        let (_, _, body) = http::get_raw(daemon.http, &path, &bearer);
        let shown: Value = serde_json::from_slice(&body).unwrap();
        let all = shown["webhooks"].as_array().unwrap();
        let is_it = |one: &Value| one["id"] == taken["id"] && one["state"] == "taken";
        (all.len() == 2 && all.iter().all(is_it) && all[1]["attempts"] == 1).then_some(())
    });
}

#[test]
fn private_addresses_are_not_reached_unless_the_settings_say_so() {
    let sink = sink();
    let receiver = Receiver::start(Box::new(|_, _| Answer::Take));
    let table = receiver.table("app", "").replace("allow_private_networks = true\n", "");
    let link = "[[webhook]]\nname = \"link\"\nurl = \"http://169.254.169.254/\"\n\
        secret = \"0123456789abcdef\"\nallow_private_networks = true\n";
    let daemon = Daemon::start(Config::new().relay(sink.address).table(&table).table(link));
    let (bearer, _) = admin(&daemon);
    for (name, address) in [("app", "127.0.0.1"), ("link", "169.254.169.254")] {
        let (_, answer) = http::post(daemon.http, &format!("/v1/webhooks/{name}/test"), &bearer);
        assert_eq!(answer["delivered"], false, "{answer}");
        let error = answer["error"].as_str().unwrap();
        assert!(error.contains(&format!("leads to {address}, which may not")), "{error}");
    }
    assert!(receiver.deliveries().is_empty());
}

/// What the receiver gets of a mail that is refused.
fn bounce(more: &str) -> (Delivery, Daemon, Sink) {
    let sink = sink();
    let receiver = Receiver::start(Box::new(|_, _| Answer::Take));
    let table = receiver.table("app", &format!("events = [\"messageBounce\"]\n{more}"));
    let table = table.replace("http://", "http://user:pass%20word@");
    let config = Config::new()
        .relay(sink.address)
        .set("http", "service_url", "\"https://relay.test\"")
        .table(&table);
    let daemon = Daemon::start(config);
    submit(daemon.smtp, APP, &["no@dest.test"], &mail("bounces"));
    let told = receiver.wait_for("the bounce", |taken| taken.first().cloned());
    (told, daemon, sink)
}

#[test]
fn the_library_of_standard_webhooks_verifies_what_we_send() {
    let (told, _daemon, _sink) = bounce("headers = { X-Own = \"mine\" }");
    assert_eq!(told.field("x-own"), "mine");
    assert_eq!(told.field("authorization"), "Basic dXNlcjpwYXNzIHdvcmQ=");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-webhooks/bin/python");
    assert!(python.exists(), "standardwebhooks is missing: bash .ci/run installs it");
    let place = TempDir::new("standardwebhooks");
    let fields = json!({
        "webhook-id": told.field("webhook-id"),
        "webhook-timestamp": told.field("webhook-timestamp"),
        "webhook-signature": told.field("webhook-signature"),
    });
    let script = "import json, sys\n\
        from standardwebhooks.webhooks import Webhook, WebhookVerificationError\n\
        secret, body, fields = sys.argv[1], open(sys.argv[2], 'rb').read(), json.loads(sys.argv[3])\n\
        print(Webhook(secret).verify(body, fields)['event'])\n\
        try:\n    Webhook(secret).verify(body + b' ', fields)\n\
        except WebhookVerificationError:\n    sys.exit(0)\n\
        sys.exit('a changed body was taken')\n";
    let output = run(Command::new(&python)
        .args(["-c", script, SECRET])
        .arg(place.file("body", &told.body))
        .arg(fields.to_string()));
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "messageBounce");
}

#[test]
fn a_consumer_written_after_emailengines_article_handles_a_bounce_of_ours() {
    let (told, _daemon, _sink) = bounce("");
    let place = TempDir::new("consumer");
    // What the article reads, and what EmailEngine's documentation verifies.
    let script = "const crypto = require('crypto');\n\
        const fs = require('fs');\n\
        const [secret, file, signature] = process.argv.slice(2);\n\
        const raw = fs.readFileSync(file);\n\
        const expected = crypto.createHmac('sha256', secret).update(raw).digest('base64url');\n\
        if (expected !== signature) throw new Error('signature');\n\
        const { serviceUrl, account, date, event, data } = JSON.parse(raw);\n\
        if (event !== 'messageBounce') throw new Error(event);\n\
        console.log(JSON.stringify([serviceUrl, account, !isNaN(new Date(date)), data.recipient,\n\
          data.action, data.response.message, data.response.status, data.messageId,\n\
          data.messageHeaders.subject[0]]));\n";
    let output = run(Command::new(program("node", "nodejs"))
        .arg(place.file("consumer.js", script))
        .arg(SECRET)
        .arg(place.file("body", &told.body))
        .arg(told.field("x-ee-wh-signature")));
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let id = told.json()["data"]["messageId"].clone();
    let want = json!([
        "https://relay.test",
        "default",
        true,
        "no@dest.test",
        "failed",
        "550 5.1.1 No such user",
        "5.1.1",
        id,
        "bounces"
    ]);
    assert_eq!(said, want);
    assert_eq!(told.field("x-ee-wh-attempts-made"), "0");
    assert_eq!(told.field("x-ee-wh-event-id"), told.field("webhook-id"));
    assert!(told.field("x-ee-wh-queued-time").ends_with('s'));
}
