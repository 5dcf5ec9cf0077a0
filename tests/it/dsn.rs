//! What apps ask of delivery reports, through Postfix and back.

use std::process::Command;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::postfix::Postfix;
use crate::harness::sink::contains;
use crate::harness::smtp::{mail, submit, submit_asking};
use crate::harness::{SOON, TempDir, http, program, run, wait_for};

/// An app whose reverse-path is a mailbox, so that it can be seen what it is told.
const APP: &str = "good@dest.test";

fn verp() -> (Postfix, Daemon) {
    let config = Config::new().verp();
    let postfix = Postfix::start(config.listen("inbound"));
    let daemon = Daemon::start(config.relay(postfix.address));
    (postfix, daemon)
}

/// The mail in the app's mailbox that holds this text.
fn told(postfix: &Postfix, text: &str) -> String {
    let found = wait_for(text, SOON, || {
        postfix.delivered().into_iter().find(|mail| contains(mail, text.as_bytes()))
    });
    String::from_utf8_lossy(&found).into_owned()
}

#[test]
fn what_smtplib_asks_comes_back_in_the_report_of_a_later_bounce() {
    let config = Config::new().preserve();
    let postfix = Postfix::start(config.listen("inbound"));
    let daemon = Daemon::start(config.relay(postfix.address));
    let place = TempDir::new("smtplib");
    let text = [b"Message-ID: <asked@app.test>\r\n".as_slice(), &mail("asked")].concat();
    let script = "import smtplib, sys\n\
        client = smtplib.SMTP('127.0.0.1', int(sys.argv[1]))\n\
        client.ehlo()\n\
        assert client.has_extn('dsn')\n\
        client.sendmail('bounces@app.test', ['later@dest.test'], open(sys.argv[2], 'rb').read(),\n\
            ['RET=HDRS', 'ENVID=order+2B17'], ['NOTIFY=FAILURE', 'ORCPT=rfc822;Later+2Bx@dest.test'])\n\
        client.quit()\n";
    run(Command::new(program("python3", "python3"))
        .args(["-c", script, &daemon.smtp.port().to_string()])
        .arg(place.file("mail", text)));
    let bounce = wait_for("it has bounced", SOON, || {
        let answer = daemon.bounces("<asked@app.test>");
        answer["bounces"].as_array().unwrap().first().cloned()
    });
    assert_eq!(bounce["capturedBy"], "listener", "{bounce:#}");
    assert_eq!(bounce["envelopeId"], "order+17", "{bounce:#}");
    assert_eq!(bounce["originalRecipient"], "Later+x@dest.test", "{bounce:#}");
    let report = bounce["bounceMessage"].as_str().unwrap();
    let (_, _, source) = http::get_raw(daemon.http, &format!("/v1/reports/{report}/source"), "");
    let source = String::from_utf8_lossy(&source).into_owned();
    for field in [
        "Reporting-MTA: dns; smarthost.test",
        "Original-Envelope-Id: order+17",
        "Original-Recipient: rfc822;Later+x@dest.test",
        "Content-Type: text/rfc822-headers",
    ] {
        assert!(source.contains(field), "{field} is missing in {source}");
    }
}

#[test]
fn who_never_wants_to_know_is_told_of_no_refusal() {
    let (postfix, daemon) = verp();
    let to = [("nobody@dest.test", "NOTIFY=NEVER")];
    let never = submit_asking(daemon.smtp, (APP, ""), &to, &mail("never"));
    daemon.await_states(&never.queue_id, &["failed"]);
    let unsaid = submit(daemon.smtp, APP, &["nobody@dest.test"], &mail("unsaid"));
    daemon.await_states(&unsaid.queue_id, &["failed"]);
    let dsn = told(&postfix, "Action: failed");
    assert!(dsn.contains(&unsaid.message_id), "{dsn}");
    let notices = daemon.log().matches("\"message\":\"notified\"").count();
    assert_eq!((notices, postfix.delivered().len()), (1, 1), "{}", daemon.log());
}

#[test]
fn a_failure_dsn_brings_back_what_was_asked_and_the_whole_mail() {
    let (postfix, daemon) = verp();
    let from = (APP, "RET=FULL ENVID=order+2B17");
    let to = [("nobody@dest.test", "ORCPT=rfc822;No+2BBody@dest.test")];
    submit_asking(daemon.smtp, from, &to, &mail("whole"));
    let dsn = told(&postfix, "Action: failed");
    for text in [
        "Original-Envelope-Id: order+17",
        "Original-Recipient: rfc822; No+Body@dest.test",
        "Content-Type: message/rfc822",
        "Subject: whole",
        "\n\nHello.\n",
    ] {
        assert!(dsn.replace("\r\n", "\n").contains(text), "{text} is missing in {dsn}");
    }
}

#[test]
fn a_next_hop_without_dsn_is_made_up_for_by_a_relayed_dsn() {
    let config = Config::new().verp();
    let mut postfix = Postfix::prepare(config.listen("inbound"))
        .set("smtpd_discard_ehlo_keywords = dsn, silent-discard");
    postfix.up();
    let daemon = Daemon::start(config.relay(postfix.address));
    let to = [("good@dest.test", "NOTIFY=SUCCESS ORCPT=rfc822;Good@dest.test")];
    let queued = submit_asking(daemon.smtp, (APP, "ENVID=order-17"), &to, &mail("handed over"));
    daemon.await_states(&queued.queue_id, &["relayed"]);
    let dsn = told(&postfix, "Action: relayed");
    for text in [
        "Subject: Relayed: handed over",
        "Original-Envelope-Id: order-17",
        "Original-Recipient: rfc822; Good@dest.test",
        "X-Rebound-Notice: ",
        &queued.message_id,
    ] {
        assert!(dsn.contains(text), "{text} is missing in {dsn}");
    }
}

#[test]
fn a_delivery_that_the_next_hop_reports_is_known_and_told_to_who_asked() {
    let (postfix, daemon) = verp();
    let unsaid = submit(daemon.smtp, APP, &["good@dest.test"], &mail("unsaid"));
    let to = [("good@dest.test", "NOTIFY=SUCCESS,FAILURE")];
    let queued = submit_asking(daemon.smtp, (APP, "ENVID=order-17"), &to, &mail("delivered"));
    let message = daemon.await_states(&queued.queue_id, &["delivered"]);
    assert_eq!(message["dsn"]["id"], "order-17", "{message:#}");
    let notify = serde_json::json!(["success", "failure"]);
    assert_eq!(message["recipients"][0]["dsn"]["notify"], notify, "{message:#}");
    let news = &message["deliveryReports"][0];
    assert_eq!(news["envelopeId"], queued.queue_id.as_str(), "{news:#}");
    let report = told(&postfix, "Action: delivered");
    assert!(report.contains(&queued.message_id), "{report}");
    daemon.await_states(&unsaid.queue_id, &["relayed"]);
}
