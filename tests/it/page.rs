//! The web page in a real browser: signing in, what arrives, what is hostile, who can use it.

use std::io::{Read, Write};
use std::path::PathBuf;

use crate::harness::browser::Browser;
use crate::harness::daemon::{Config, Daemon};
use crate::harness::http;
use crate::harness::receiver::{Answer as Taken, Receiver};
use crate::harness::report::{dsn, send};
use crate::harness::sink::{Answer, Point, Sink};
use crate::harness::smtp::{Queued, mail, submit};
use crate::harness::{SOON, TempDir, free_listener, free_port, wait_for};

const APP: &str = "bounces@app.test";

/// A next hop that refuses `no@`, puts `late@` off and takes everything else.
fn start(config: Config) -> (Sink, Daemon) {
    let sink = Sink::scripted(Box::new(|point, _| match point {
        Point::Rcpt("no@dest.test") => Answer::Reply("550 5.1.1 No such user"),
        Point::Rcpt("late@dest.test") => Answer::Reply("450 4.2.1 Not now"),
        _ => Answer::Accept,
    }));
    let config = config.preserve().relay(sink.address).set("queue", "retry_after", "[\"1h\"]");
    (sink, Daemon::start(config))
}

fn url(daemon: &Daemon, path: &str) -> String {
    format!("http://{}{path}", daemon.http)
}

fn token(daemon: &Daemon, name: &str, scope: &str) -> String {
    let (code, said) = daemon.command(&["token", "add", name, "--scope", scope]);
    assert_eq!(code, 0, "{said}");
    let found = said.split_whitespace().find(|word| word.starts_with("rebound_"));
    found.unwrap_or_else(|| panic!("no token: {said}")).to_owned()
}

/// Mails in every state there is without waiting; the first bounced by a report.
fn some_mails(daemon: &Daemon) -> Queued {
    let bounced = submit(daemon.smtp, APP, &["b@dest.test", "no@dest.test"], &mail("Two of them"));
    daemon.await_states(&bounced.queue_id, &["relayed", "failed"]);
    let report = dsn(&bounced.message_id, &[("b@dest.test", "failed")]);
    submit_report(daemon, &report);
    daemon.await_states(&bounced.queue_id, &["bounced", "failed"]);
    let late = submit(daemon.smtp, APP, &["late@dest.test"], &mail("Put off"));
    daemon.await_states(&late.queue_id, &["deferred"]);
    let sent = submit(daemon.smtp, APP, &["good@dest.test"], &mail("Well received"));
    daemon.await_states(&sent.queue_id, &["relayed"]);
    bounced
}

fn submit_report(daemon: &Daemon, report: &[u8]) {
    let reply = send(daemon.inbound, APP, report).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
}

#[test]
fn a_person_signs_in_and_sees_a_bounce_arrive() {
    let (_sink, daemon) = start(Config::new());
    let relayed = submit(daemon.smtp, APP, &["b@dest.test"], &mail("Your order"));
    daemon.await_states(&relayed.queue_id, &["relayed"]);
    let reader = token(&daemon, "reader", "read");

    let browser = Browser::start();
    browser.open(&url(&daemon, "/?state=relayed"));
    assert_eq!(browser.url(), url(&daemon, "/sign-in?then=%2F%3Fstate%3Drelayed"));
    browser.write("#token", "rebound_wrong\u{e007}");
    browser.await_text("[role=alert]", "The token is not known");
    browser.write("#token", &format!("{reader}\u{e007}"));
    browser.await_text("#live", "Your order");
    assert_eq!(browser.url(), url(&daemon, "/?state=relayed"), "it goes on where it began");
    let cookies =
        browser.script("return document.cookie + location.href + document.body.innerHTML");
    assert!(!cookies.as_str().unwrap().contains(&reader), "no script may see the token");

    // Live: the page is not loaded again, and yet shows what happens.
    browser.open(&url(&daemon, "/"));
    browser.await_text("#live-state", "Live");
    browser.script("window.isTheSame = true");
    submit_report(&daemon, &dsn(&relayed.message_id, &[("b@dest.test", "failed")]));
    browser.await_text("#live .chip", "bounced");
    browser.await_text("#news", "Bounce: b@dest.test");
    let refused = submit(daemon.smtp, APP, &["no@dest.test"], &mail("Never arrives"));
    browser.await_text("#live tbody tr:first-child", "Never arrives");
    browser.await_text("#live tbody tr:first-child .chip", "failed");
    assert_eq!(browser.script("return window.isTheSame"), true);

    // The filter, and one mail's timeline.
    browser.script("document.querySelector('#state').value = 'bounced'");
    browser.click(".filter button");
    browser.await_url(&url(&daemon, "/?q=&state=bounced&account="));
    browser.await_text("#live", "Your order");
    assert!(!browser.text("#live").contains("Never arrives"));
    browser.click("#live tbody a");
    browser.await_text("h1", "Your order");
    for text in ["Handed over to the next hop", "a report says that it failed", "message-id, high"]
    {
        browser.await_text("#live", text);
    }
    browser.click("#live .steps a");
    browser.await_text("h1", "Report");
    browser.await_text(".raw", "Final-Recipient");

    // Found by recipient, by queue id and by Message-ID.
    for (asked, h1) in [
        ("NO@dest.test", "Messages"),
        (refused.queue_id.as_str(), "Never arrives"),
        (refused.message_id.as_str(), "Never arrives"),
    ] {
        browser.open(&url(&daemon, "/"));
        browser.write("#q", &format!("{asked}\u{e007}"));
        browser.await_text("h1", h1);
        browser.await_text("#live", "no@dest.test");
    }

    browser.click("form[action='/sign-out'] button");
    browser.await_text("h1", "Sign in");
    browser.open(&url(&daemon, "/queue"));
    browser.await_text("h1", "Sign in");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("401")), "{complaints:#?}");
}

#[test]
fn an_admin_has_a_mail_tried_again_and_another_given_up() {
    let sink = Sink::scripted(Box::new(|point, number| match point {
        Point::Rcpt("second@dest.test") if number == 1 => Answer::Reply("450 4.2.1 Not now"),
        Point::Rcpt("never@dest.test") => Answer::Reply("450 4.2.1 Not now"),
        _ => Answer::Accept,
    }));
    let config = Config::new().preserve().relay(sink.address);
    let daemon = Daemon::start(config.set("queue", "retry_after", "[\"1h\"]"));
    let second = submit(daemon.smtp, APP, &["second@dest.test"], &mail("At the second try"));
    let never = submit(daemon.smtp, APP, &["never@dest.test"], &mail("Not any more"));
    for queued in [&second, &never] {
        daemon.await_states(&queued.queue_id, &["deferred"]);
    }
    let browser = Browser::start();
    browser.open(&url(&daemon, "/queue"));
    browser.await_text("#live", "2 mails wait");
    assert!(!browser.text("#live").contains("Retry now"), "without a token nobody is an admin");
    let (reader, admin) = (token(&daemon, "reader", "read"), token(&daemon, "admin", "admin"));
    for (token, may) in [(&reader, false), (&admin, true)] {
        browser.open(&url(&daemon, "/queue"));
        browser.write("#token", &format!("{token}\u{e007}"));
        browser.await_text("#live", "At the second try");
        assert_eq!(browser.text("#live").contains("Retry now"), may);
        if !may {
            browser.click("form[action='/sign-out'] button");
            browser.await_text("h1", "Sign in");
        }
    }
    let faults = browser.accessibility_faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    browser.click(&format!("form[action='/queue/{}/retry'] button", second.queue_id));
    browser.await_text("#live", "1 mail waits");
    browser.open(&url(&daemon, &format!("/message/{}", second.queue_id)));
    browser.await_text("#live .recipient .chip", "relayed");
    browser.await_text("#live", "attempt 2");
    browser.open(&url(&daemon, &format!("/message/{}", never.queue_id)));
    browser.click("#live .orders summary");
    browser.click("#live .orders .danger");
    browser.await_text("#live", "Nothing waits");
    browser.open(&url(&daemon, &format!("/message/{}", never.queue_id)));
    browser.await_text("#live .recipient .chip", "canceled");
}

#[test]
fn the_queue_is_paged_from_either_end_with_and_without_scripts() {
    let (_sink, daemon) = start(Config::new());
    let mut mails = Vec::new();
    for number in 0..53 {
        let subject = format!("Number {number:02}.");
        mails.push(submit(daemon.smtp, APP, &["late@dest.test"], &mail(&subject)));
    }
    for queued in &mails {
        daemon.await_states(&queued.queue_id, &["deferred"]);
    }
    let admin = token(&daemon, "admin", "admin");
    let browser = Browser::start();
    browser.open(&url(&daemon, "/queue"));
    browser.write("#token", &format!("{admin}\u{e007}"));
    browser.await_text("#live", "53 mails wait");
    let faults = browser.accessibility_faults();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    browser.forbid_scripts();
    // By keyboard: what has the focus is followed with the Enter key.
    let follow = |selector: &str| {
        browser.script(&format!("document.querySelector({selector:?}).focus()"));
        browser.press("\u{e007}");
    };
    browser.open(&url(&daemon, "/queue"));
    browser.await_text("#live tbody tr:first-child", "Number 52.");
    follow(".pages a[rel=next]");
    browser.await_text("#live tbody tr:first-child", "Number 02.");
    assert_eq!(browser.script("return document.querySelectorAll('tbody tr').length"), 3);
    browser.await_text("#live tbody tr:last-child", "Number 00.");
    let second = browser.url();
    // What is done there leads back there.
    browser.click(&format!("form[action^='/queue/{}/retry'] button", mails[1].queue_id));
    browser.await_text("#live tbody tr:first-child", "Number 02.");
    assert_eq!(browser.url(), second);
    follow(".ends a:last-child");
    browser.await_text("#live tbody tr:first-child", "Number 00.");
    assert_eq!(browser.text("[aria-current=true]"), "Oldest first");
    follow(".pages a[rel=next]");
    browser.await_text("#live tbody tr:last-child", "Number 52.");
    follow(".pages a:first-child");
    browser.await_text("#live tbody tr:first-child", "Number 00.");
    assert_eq!(browser.url(), url(&daemon, "/queue?order=oldest"));
    for wrong in ["order=up", "cursor=x", "page=2"] {
        browser.open(&url(&daemon, &format!("/queue?{wrong}")));
        browser.await_text("h1", "Bad Request");
    }
}

#[test]
fn every_view_can_be_used_by_everybody_in_both_themes_and_on_a_phone() {
    // Nobody listens there, so that deliveries wait.
    let secrets = TempDir::new("page");
    let receiver = Receiver::start(Box::new(|_, _| Taken::Take));
    let webhook = format!(
        "[[webhook]]\nname = \"app\"\nurl = \"http://127.0.0.1:{}/\"\nsecret_file = {:?}",
        free_port(),
        secrets.file("secret", "a secret of the test's own")
    );
    let config = Config::new().table(&webhook).table(&receiver.table("crm", ""));
    let (_sink, daemon) = start(config);
    let browser = Browser::start();
    // Before anything has happened, too.
    browser.open(&url(&daemon, "/"));
    browser.await_text("#live", "No mail yet");
    let bounced = some_mails(&daemon);
    let message = format!("/message/{}", bounced.queue_id);
    wait_for("somebody has been told, and somebody has not", SOON, || {
        let told = daemon.message(&bounced.queue_id)["webhooks"].clone();
        let has =
            |state| told.as_array().is_some_and(|all| all.iter().any(|one| one["state"] == state));
        (has("taken") && has("waiting")).then_some(())
    });
    let report = daemon.message(&bounced.queue_id)["reports"][0]["id"].as_str().unwrap().to_owned();
    let report = format!("/report/{report}");
    let pictures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/it-page");
    for (name, path) in [
        ("messages", "/"),
        ("bounces", "/bounces"),
        ("bounces-of-a-season", "/bounces?since=90d&fault=recipient"),
        ("message", &message),
        ("report", &report),
        ("queue", "/queue"),
        ("mailboxes", "/mailboxes"),
        ("webhooks", "/webhooks"),
        ("nothing", "/?q=nobody@dest.test"),
        ("wrong", "/?state=x"),
    ] {
        for (theme, width) in [("light", 1200), ("dark", 1200), ("light", 360), ("dark", 360)] {
            browser.look(theme, width);
            browser.open(&url(&daemon, path));
            let faults = browser.accessibility_faults();
            assert!(faults.is_empty(), "{path} {theme} {width}: {}", faults.join("\n"));
            let across = browser.script("return document.documentElement.scrollWidth");
            assert!(across.as_u64().unwrap() <= u64::from(width), "{path} is {across} wide");
            browser.picture(&pictures.join(format!("{name}-{theme}-{width}.png")));
        }
    }
    browser.open(&url(&daemon, "/webhooks"));
    browser.await_text("#live .chip", "failing");
    browser.look("light", 1200);
    browser.open(&url(&daemon, &message));
    for text in ["Webhooks", "messageBounce", "to crm", "200 in", "taken", "to app", "waiting"] {
        browser.await_text("#live", text);
    }
    assert!(!browser.text("#live").contains("messageFailed"), "somebody got it");
    // By keyboard: the first stop leads past the navigation.
    browser.open(&url(&daemon, "/"));
    browser.press("\u{e004}");
    assert_eq!(browser.script("return document.activeElement.className"), "skip");
    browser.press("\u{e007}");
    assert_eq!(browser.script("return document.activeElement.id"), "main");
    let complaints = browser.complaints();
    assert!(complaints.iter().all(|line| line.contains("400")), "{complaints:#?}");
}

#[test]
fn without_scripts_everything_can_be_read() {
    let (_sink, daemon) = start(Config::new());
    let bounced = some_mails(&daemon);
    let browser = Browser::start();
    browser.forbid_scripts();
    browser.open(&url(&daemon, "/"));
    assert_eq!(browser.text("#zone"), "UTC", "no script has changed it");
    assert!(browser.text("#live").contains("Two of them"));
    browser.write("#q", "b@dest.test\u{e007}");
    browser.await_url(&url(&daemon, "/?q=b%40dest.test&state=&account="));
    browser.await_text("#live", "Two of them");
    browser.click("#live tbody a");
    browser.await_text("h1", "Two of them");
    assert_eq!(browser.url(), url(&daemon, &format!("/message/{}", bounced.queue_id)));
    for text in ["550 5.1.1 No such user", "user_unknown", "message-id, high", "Bounced"] {
        browser.await_text("#live", text);
    }
    browser.click("nav a[href='/bounces']");
    for text in ["2 bounces", "user_unknown", "dest.test", "550 5.1.1 No such user"] {
        browser.await_text("main", text);
    }
    browser.click("nav a[href='/queue']");
    browser.await_text("#live", "450 4.2.1 Not now");
}

#[test]
fn what_comes_by_mail_is_never_markup() {
    let (_sink, daemon) = start(Config::new());
    let script = "<script>window.isPwned = 1</script><img src=x onerror=\"window.isPwned = 1\">";
    let long = "x".repeat(200_000);
    let hostile = format!(
        "From: {script} <{APP}>\r\nSubject: {script}\u{202e}gpj.exe\r\nX-Long: {}\r\n\
         X-Rebound-Meta-Note: {script}\r\n\r\n{script}\r\n",
        long.as_bytes()
            .chunks(900)
            .map(|one| String::from_utf8_lossy(one))
            .collect::<Vec<_>>()
            .join("\r\n ")
    );
    let to = ["b@dest.test", "\"<script>window.isPwned=1</script>\"@dest.test"];
    let queued = submit(daemon.smtp, APP, &to, hostile.as_bytes());
    daemon.await_states(&queued.queue_id, &["relayed", "relayed"]);
    let report = dsn(&queued.message_id, &[(to[0], "failed")]);
    let report = String::from_utf8(report).unwrap().replace(
        "Status: ",
        &format!("Diagnostic-Code: smtp; 550 {script}\r\nRemote-MTA: dns; {script}\r\nStatus: "),
    );
    submit_report(&daemon, report.as_bytes());
    daemon.await_states(&queued.queue_id, &["bounced", "relayed"]);
    let id = daemon.message(&queued.queue_id)["reports"][0]["id"].as_str().unwrap().to_owned();

    let browser = Browser::start();
    for path in ["/", &format!("/message/{}", queued.queue_id), &format!("/report/{id}")] {
        let (status, header, body) = http::get_raw(daemon.http, path, "");
        let body = String::from_utf8(body).unwrap();
        assert_eq!(status, 200, "{header}");
        assert!(!body.contains("<script>window") && !body.contains("<img"), "{path}: {body}");
        assert!(body.contains("&lt;script&gt;"), "{path}: {body}");
        assert!(!body.contains('\u{202e}') && body.len() < 300_000, "{path}: {}", body.len());
        browser.open(&url(&daemon, path));
        assert_eq!(browser.script("return window.isPwned ?? 0"), 0, "{path}");
        let across = browser.script("return document.documentElement.scrollWidth - innerWidth");
        assert!(across.as_i64().unwrap() <= 0, "{path} is too wide by {across}");
    }
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn only_who_may_sees_a_page_and_no_other_site_sends_a_form() {
    let (_sink, daemon) = start(Config::new());
    let (status, header, _) = http::get_raw(daemon.http, "/", "");
    assert_eq!(status, 200, "without tokens loopback may look");
    for part in ["script-src 'self'", "frame-ancestors 'none'", "default-src 'none'"] {
        assert!(header.contains(part), "{header}");
    }
    let reader = token(&daemon, "reader", "read");
    let sender = token(&daemon, "sender", "submit");
    for path in ["/", "/queue", "/mailboxes", &format!("/?access_token={reader}")] {
        let (status, header, _) = http::get_raw(daemon.http, path, "");
        assert_eq!(status, 303, "{path}: {header}");
    }
    let origin = url(&daemon, "");
    let sign_in = |token: &str, fields: &str| {
        let body = format!("token={token}&then=%2F%2Fevil.example");
        http::send("POST", daemon.http, "/sign-in", fields, body.as_bytes())
    };
    let ours = format!("Origin: {origin}\r\n");
    for (token, fields, want) in [
        (&reader, "", 403),
        (&reader, "Origin: http://evil.example\r\n", 403),
        (&reader, "Sec-Fetch-Site: cross-site\r\n", 403),
        (&sender, &ours, 401),
        (&reader, &ours, 303),
    ] {
        let (status, header, _) = sign_in(token, fields);
        assert_eq!(status, want, "{fields}: {header}");
    }
    let (_, header, _) = sign_in(&reader, &ours);
    let header = header.to_ascii_lowercase();
    assert!(header.contains("\r\nlocation: /\r\n"), "{header}");
    let cookie = header.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let cookie = format!("Cookie: {cookie}\r\n");
    assert_eq!(http::get_raw(daemon.http, "/", &cookie).0, 200);
    assert_eq!(http::get_raw(daemon.http, "/v1/mailboxes", &cookie).0, 401, "the API has tokens");
    let poll = |fields: &str| http::send("POST", daemon.http, "/mailboxes/x/poll", fields, b"").0;
    assert_eq!(poll(&format!("{cookie}{ours}")), 403, "a reader changes nothing");
    assert_eq!(poll(&cookie), 403);
    let (code, said) = daemon.command(&["token", "revoke", "reader"]);
    assert_eq!(code, 0, "{said}");
    wait_for("the session dies with its token", SOON, || {
        (http::get_raw(daemon.http, "/", &cookie).0 == 303).then_some(())
    });
}

/// A page of another site; cookies tell that by the host, whatever the port.
fn elsewhere(html: String) -> String {
    let listener = free_listener();
    let address = format!("http://localhost:{}/", listener.local_addr().unwrap().port());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // What is asked for does not matter; browsers open connections that they never use.
            if stream.read(&mut [0; 4096]).is_ok_and(|len| len > 0) {
                let length = html.len();
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n";
                drop(write!(stream, "{head}Content-Length: {length}\r\n\r\n{html}"));
            }
        }
    });
    address
}

#[test]
fn a_link_from_elsewhere_shows_the_page_and_a_form_from_there_is_refused() {
    let (_sink, daemon) = start(Config::new());
    let late = submit(daemon.smtp, APP, &["late@dest.test"], &mail("Put off"));
    daemon.await_states(&late.queue_id, &["deferred"]);
    let admin = token(&daemon, "admin", "admin");
    let cancel = url(&daemon, &format!("/queue/{}/cancel", late.queue_id));
    let other = elsewhere(format!(
        "<title>Elsewhere</title><a href='{}'>Look</a>\
         <form id=cancel method=post action='{cancel}'><button>Free money</button></form>\
         <form id=out method=post action='{}'><button>More</button></form>\
         <form id=in method=post action='{}'><input name=token value='{admin}'><button>x</button></form>",
        url(&daemon, &format!("/message/{}", late.queue_id)),
        url(&daemon, "/sign-out"),
        url(&daemon, "/sign-in"),
    ));
    let browser = Browser::start();
    browser.open(&other);
    browser.click("#in button");
    browser.await_text("main", "The form was not sent from a page of this server");
    browser.open(&other);
    browser.click("a");
    browser.await_text("h1", "Sign in");
    browser.write("#token", &format!("{admin}\u{e007}"));
    browser.await_text("h1", "Put off");
    for form in ["#cancel", "#out"] {
        browser.open(&other);
        browser.click(&format!("{form} button"));
        browser.await_text("main", "The form was not sent from a page of this server");
    }
    browser.open(&other);
    browser.click("a");
    browser.await_text("h1", "Put off");
    browser.await_text("#live .recipient .chip", "deferred");
    // The same without a browser: whatever the path, with a session that may.
    let ours = format!("Origin: {}\r\n", url(&daemon, ""));
    let body = format!("token={admin}");
    let (_, header, _) = http::send("POST", daemon.http, "/sign-in", &ours, body.as_bytes());
    let header = header.to_ascii_lowercase();
    let cookie = header.split("set-cookie: ").nth(1).unwrap().split(';').next().unwrap();
    let cookie = format!("Cookie: {cookie}\r\n");
    for path in [
        &format!("/queue/{}/cancel", late.queue_id),
        &format!("/queue/{}/retry", late.queue_id),
        "/mailboxes/x/poll",
        "/webhooks/x/enable",
        "/sign-in",
        "/sign-out",
    ] {
        for (method, want) in [("POST", 403), ("PUT", 405), ("PATCH", 405), ("DELETE", 405)] {
            for from in [
                "",
                "Origin: null\r\n",
                "Origin: http://evil.example\r\n",
                "Sec-Fetch-Site: cross-site\r\n",
                "Sec-Fetch-Site: same-site\r\n",
                &format!("{ours}Sec-Fetch-Site: cross-site\r\n"),
            ] {
                let fields = format!("{cookie}{from}");
                let (status, _, _) = http::send(method, daemon.http, path, &fields, b"");
                assert_eq!(status, want, "{method} {path} {from}");
            }
        }
    }
    let asked =
        http::send("POST", daemon.http, "/mailboxes/x/poll", &format!("{cookie}{ours}"), b"");
    assert_eq!(asked.0, 404, "from here it is let through, and there is no such mailbox");
    browser.open(&url(&daemon, "/queue"));
    browser.await_text("#live", "1 mail waits");
}

#[test]
fn the_page_can_be_switched_off() {
    let (_sink, daemon) = start(Config::new().set("http", "ui", "false"));
    for path in ["/", "/sign-in", "/page/live.js", "/live"] {
        assert_eq!(http::get_raw(daemon.http, path, "").0, 404, "{path}");
    }
    assert_eq!(daemon.get("/v1/mailboxes").0, 200);
}
