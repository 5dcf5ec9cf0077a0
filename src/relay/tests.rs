//! Conversations with a scripted next hop, one for each way they can go.

use std::path::PathBuf;

use super::testing::{Scripted, settings};
use super::{Delivery, Outcome, OutcomeResult, Relay};
use crate::config::{self, RelayTls};
use crate::mail::dsn::{Content, EnvelopeId, Notify, OriginalRecipient};
use crate::mail::{Address, MailDsn, Recipient, ReversePath, Stage};
use crate::net::tls::ServerTls;
use crate::secret;

const BODY: &[u8] = b"Subject: x\r\n\r\n.dot\r\nbody\r\n";
const STUFFED: &str = "Subject: x\r\n\r\n..dot\r\nbody\r\n.\r\n";

pub(super) fn delivery(recipients: &[&str]) -> Delivery {
    let addresses = recipients.iter().map(|text| Recipient::from(Address::parse(text).unwrap()));
    Delivery {
        reverse_path: ReversePath::Address(Address::parse("app@example.org").unwrap()),
        dsn: MailDsn::default(),
        recipients: (5..).zip(addresses).collect(),
        size_bytes: u64::try_from(BODY.len()).unwrap(),
        long_lines: false,
        eight_bit: false,
        smtputf8: false,
        is_ascii: false,
    }
}

/// `stage result` of each outcome, in the recipients' order.
pub(super) fn shown(outcomes: &[Outcome]) -> Vec<String> {
    let numbers: Vec<u32> = outcomes.iter().map(|outcome| outcome.recipient).collect();
    let want: Vec<u32> = (5..).take(outcomes.len()).collect();
    assert_eq!(numbers, want, "one outcome for each recipient, in order");
    outcomes.iter().map(|outcome| format!("{:?} {}", outcome.stage, outcome.result)).collect()
}

pub(super) async fn converse(dialog: &str, delivery: &Delivery) -> (Vec<String>, Vec<String>) {
    let next_hop = Scripted::start(&[dialog]).await;
    let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
    let outcomes = relay.deliver(delivery, BODY).await;
    relay.close().await;
    (shown(&outcomes), next_hop.bodies().await)
}

#[tokio::test]
async fn mixed_recipients_without_pipelining() {
    let dialog = "
        S: 220 mx.example.net ESMTP
        C: EHLO relay.example.com
        S: 250-mx.example.net
        S: 250-SIZE 1000000
        S: 250-8BITMIME
        S: 250 DSN
        C: MAIL FROM:<app@example.org> SIZE=26
        S: 250 2.1.0 Ok
        C: RCPT TO:<good@example.net>
        S: 250 2.1.5 Ok
        C: RCPT TO:<bad@example.net>
        S: 550-5.1.1 <bad@example.net>: no such user
        S: 550 5.1.1 see https://example.net/
        C: RCPT TO:<later@example.net>
        S: 450 4.2.0 greylisted, try again in 300 seconds
        C: DATA
        S: 354 go on
        BODY
        S: 250 2.0.0 Ok: queued as 4MnF2v
        C: QUIT
        S: 221 bye";
    let mail = delivery(&["good@example.net", "bad@example.net", "later@example.net"]);
    let (outcomes, bodies) = converse(dialog, &mail).await;
    assert_eq!(
        outcomes,
        [
            "End 250 2.0.0 Ok: queued as 4MnF2v",
            "Rcpt 550 5.1.1 <bad@example.net>: no such user see https://example.net/",
            "Rcpt 450 4.2.0 greylisted, try again in 300 seconds",
        ]
    );
    assert_eq!(bodies, [STUFFED]);
}

#[tokio::test]
async fn mixed_recipients_with_pipelining_and_everything_declared() {
    let dialog = "
        S: 220 mx
        C: EHLO relay.example.com
        S: 250-mx
        S: 250-PIPELINING
        S: 250-8BITMIME
        S: 250 SMTPUTF8
        C: MAIL FROM:<app@example.org> BODY=8BITMIME SMTPUTF8
        C: RCPT TO:<good@example.net>
        C: RCPT TO:<b\u{e4}d@example.net>
        C: DATA
        S: 250 2.1.0 Ok
        S: 250 2.1.5 Ok
        S: 550 5.7.606 Access denied
        S: 354 go on
        BODY
        S: 250 OK id=1oiXyz-0003Ab-7C
        C: QUIT
        S: 221 bye";
    let mut mail = delivery(&["good@example.net", "b\u{e4}d@example.net"]);
    (mail.eight_bit, mail.smtputf8) = (true, true);
    let next_hop = Scripted::start(&[dialog]).await;
    let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
    let outcomes = relay.deliver(&mail, BODY).await;
    relay.close().await;
    assert_eq!(
        shown(&outcomes),
        ["End 250 OK id=1oiXyz-0003Ab-7C", "Rcpt 550 5.7.606 Access denied"]
    );
    assert_eq!(outcomes[0].remote_queue_id.as_deref(), Some("1oiXyz-0003Ab-7C"));
    assert_eq!(outcomes[1].remote_queue_id, None);
    let name = format!("127.0.0.1[127.0.0.1]:{}", next_hop.address.port());
    assert_eq!(outcomes[1].remote_mta.as_deref(), Some(name.as_str()));
    assert_eq!(next_hop.bodies().await, [STUFFED]);
}

const PIPELINED: &str = "
        S: 220 mx
        C: EHLO relay.example.com
        S: 250-mx
        S: 250 PIPELINING
        C: MAIL FROM:<app@example.org>
        C: RCPT TO:<a@example.net>
        C: RCPT TO:<b@example.net>
        C: DATA
";

/// What follows on `PIPELINED`, and what both recipients end with.
#[tokio::test]
async fn every_way_a_pipelined_envelope_can_fail() {
    let both = |outcome: &str| [outcome.to_owned(), outcome.to_owned()];
    for (rest, want) in [
        // All refused: DATA is refused, too, or a lone dot ends it (RFC 2920 §3.1).
        (
            "S: 250 ok\nS: 550 5.1.1 a\nS: 550 5.1.1 a\nS: 554 5.5.1 none\nC: QUIT\nS: 221 bye",
            both("Rcpt 550 5.1.1 a"),
        ),
        (
            "S: 250 ok\nS: 450 a\nS: 450 a\nS: 354 go\nC: .\nS: 554 none\nC: QUIT\nS: 221 bye",
            both("Rcpt 450 a"),
        ),
        (
            "S: 550 5.1.8 no\nS: 503 a\nS: 503 b\nS: 503 c\nC: QUIT\nS: 221 bye",
            both("Mail 550 5.1.8 no"),
        ),
        // A lone dot would deliver an empty mail here.
        ("S: 550 5.1.8 no\nS: 250 a\nS: 503 b\nS: 354 c\nEOF", both("Mail 550 5.1.8 no")),
        (
            "S: 250 ok\nS: 250 a\nS: 250 b\nS: 451 4.3.0 c\nC: QUIT\nS: 221 bye",
            both("Data 451 4.3.0 c"),
        ),
        (
            "S: 250 ok\nS: 250 a\nS: 250 b\nS: 250 odd\nEOF",
            both("Data it answered DATA with 250 odd"),
        ),
        ("S: 250 ok\nS: 421 4.3.2 bye\nDROP", both("Rcpt 421 4.3.2 bye")),
        ("S: 250 ok\nS: 250 a\nS: 421 4.3.2 bye\nDROP", both("Rcpt 421 4.3.2 bye")),
        ("S: 421 4.3.2 bye\nDROP", both("Mail 421 4.3.2 bye")),
        ("S: 250 ok\nDROP", both("Rcpt it closed the connection")),
        ("S: 250 ok\nS: 250 a\nS: 250 b\nDROP", both("Data it closed the connection")),
        ("S: hello\nEOF", both("Mail it answered something that is no SMTP reply")),
        (
            "S: 250 ok\nS: 354 odd\nS: 354 odd\nS: 354 odd\nEOF",
            both("Rcpt it answered RCPT with 354 odd"),
        ),
    ] {
        let dialog = format!("{PIPELINED}{rest}");
        let mail = delivery(&["a@example.net", "b@example.net"]);
        let (outcomes, bodies) = converse(&dialog, &mail).await;
        assert_eq!(outcomes, want, "{rest}");
        assert!(bodies.is_empty(), "{rest}");
    }
}

#[tokio::test]
async fn every_way_the_end_of_the_mail_can_go() {
    for (rest, want) in [
        ("BODY\nS: 554 5.7.1 spam\nC: QUIT\nS: 221 bye", "End 554 5.7.1 spam"),
        ("BODY\nS: 451 4.3.0 later\nC: QUIT\nS: 221 bye", "End 451 4.3.0 later"),
        ("BODY\nS: 421 4.3.2 bye\nDROP", "End 421 4.3.2 bye"),
        ("BODY\nDROP", "End it closed the connection"),
        ("BODY\nS: 354 odd\nEOF", "End it answered end of DATA with 354 odd"),
    ] {
        let head = "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\n";
        let dialog = format!("{head}C: DATA\nS: 354 go\n{rest}");
        let (outcomes, _) = converse(&dialog, &delivery(&["a@example.net"])).await;
        assert_eq!(outcomes, [want], "{rest}");
    }
}

#[tokio::test]
async fn every_way_the_beginning_can_go() {
    for (dialog, want) in [
        ("S: 554 5.7.1 go away\nEOF", "Greeting 554 5.7.1 go away"),
        ("S: 421 4.3.2 busy\nEOF", "Greeting 421 4.3.2 busy"),
        ("DROP", "Greeting it closed the connection"),
        ("S: 220 mx\nC: EHLO *\nS: 421 later\nEOF", "Greeting 421 later"),
        ("S: 220 mx\nC: EHLO *\nS: 502 what\nC: HELO *\nS: 550 no\nEOF", "Greeting 550 no"),
        (
            "S: 220 mx\nC: EHLO *\nS: 502 what\nC: HELO *\nS: 250 mx\nC: MAIL FROM:<app@example.org>\n\
             S: 550 no\nC: QUIT\nS: 221 bye",
            "Mail 550 no",
        ),
    ] {
        let (outcomes, _) = converse(dialog, &delivery(&["a@example.net"])).await;
        assert_eq!(outcomes, [want], "{dialog}");
    }
}

#[tokio::test]
async fn what_the_next_hop_cannot_take_is_refused_before_mail() {
    let hello = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 SIZE 10\nC: QUIT\nS: 221 bye";
    let (outcomes, _) = converse(hello, &delivery(&["a@example.net"])).await;
    assert_eq!(outcomes, ["Mail 552 5.3.4 the mail has 26 octets, the next hop takes 10"]);

    let hello = "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: QUIT\nS: 221 bye";
    let mail = Delivery { smtputf8: true, ..delivery(&["a@example.net"]) };
    let (outcomes, _) = converse(hello, &mail).await;
    let want = "Mail 553 5.6.7 the mail needs SMTPUTF8, which the next hop does not offer";
    assert_eq!(outcomes, [want]);
}

#[tokio::test]
async fn domains_are_in_a_labels_where_smtputf8_is_not_offered_and_nothing_else_needs_it() {
    let to = |recipient: &str| Delivery {
        reverse_path: ReversePath::Address(Address::parse("App@müller.example").unwrap()),
        smtputf8: true,
        is_ascii: true,
        ..delivery(&["a@example.net", recipient])
    };
    let taken = "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL FROM:<App@xn--mller-kva.example>\n\
        S: 250 ok\nC: RCPT TO:<a@example.net>\nS: 250 ok\nC: RCPT TO:<b@xn--bcher-kva.example>\n\
        S: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye";
    let (outcomes, _) = converse(taken, &to("b@bücher.example")).await;
    assert_eq!(outcomes, ["End 250 ok"; 2]);

    let hello = "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: QUIT\nS: 221 bye";
    let want = "Mail 553 5.6.7 the mail needs SMTPUTF8, which the next hop does not offer";
    let internationalized = Delivery { is_ascii: false, ..to("b@bücher.example") };
    for mail in [internationalized, to("bü@bücher.example")] {
        let (outcomes, _) = converse(hello, &mail).await;
        assert_eq!(outcomes, [want; 2]);
    }

    // Where it is offered, nothing is changed.
    let offered = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 SMTPUTF8\n\
        C: MAIL FROM:<App@müller.example> SMTPUTF8\nS: 250 ok\nC: RCPT TO:<a@example.net>\n\
        S: 250 ok\nC: RCPT TO:<b@bücher.example>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\n\
        C: QUIT\nS: 221 bye";
    let (outcomes, _) = converse(offered, &to("b@bücher.example")).await;
    assert_eq!(outcomes, ["End 250 ok"; 2]);
}

#[tokio::test]
async fn orcpt_is_in_ascii_where_the_mail_is() {
    let dialog = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 DSN\nC: MAIL FROM:<app@example.org>\n\
        S: 250 ok\nC: RCPT TO:<b@xn--bcher-kva.example> ORCPT=utf-8;b@b\\x{FC}cher.example\n\
        S: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye";
    let mut mail = Delivery { smtputf8: true, is_ascii: true, ..delivery(&["b@bücher.example"]) };
    let recipient = &mut mail.recipients[0].1;
    recipient.dsn.original_recipient = OriginalRecipient::of(&recipient.address);
    let (outcomes, _) = converse(dialog, &mail).await;
    assert_eq!(outcomes, ["End 250 ok"]);
}

#[tokio::test]
async fn what_was_asked_of_reports_is_passed_on_where_dsn_is_offered_and_only_there() {
    let mut mail = delivery(&["a@example.net", "b@example.net"]);
    mail.dsn =
        MailDsn { content: Some(Content::Full), envelope_id: EnvelopeId::parse("Order+2B1") };
    mail.recipients[0].1.dsn.notify = Notify::parse("DELAY,SUCCESS");
    mail.recipients[0].1.dsn.original_recipient = OriginalRecipient::parse("RFC822;A+2Bx@Y");
    for (extension, of_mail, of_rcpt) in [
        ("DSN", " RET=FULL ENVID=Order+2B1", " NOTIFY=SUCCESS,DELAY ORCPT=RFC822;A+2Bx@Y"),
        ("HELP", "", ""),
    ] {
        let dialog = format!(
            "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 {extension}\n\
             C: MAIL FROM:<app@example.org>{of_mail}\nS: 250 ok\n\
             C: RCPT TO:<a@example.net>{of_rcpt}\nS: 250 ok\n\
             C: RCPT TO:<b@example.net>\nS: 550 no\n\
             C: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye"
        );
        let next_hop = Scripted::start(&[&dialog]).await;
        let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
        let outcomes = relay.deliver(&mail, BODY).await;
        relay.close().await;
        assert_eq!(shown(&outcomes), ["End 250 ok", "Rcpt 550 no"]);
        assert!(outcomes.iter().all(|outcome| outcome.dsn == (extension == "DSN")));
        next_hop.bodies().await;
    }
}

#[tokio::test]
async fn eight_bit_mail_goes_as_it_is_where_8bitmime_is_not_offered() {
    let dialog = "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL FROM:<app@example.org>\nS: 250 ok\n\
        C: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye";
    let mail = Delivery { eight_bit: true, ..delivery(&["a@example.net"]) };
    let (outcomes, _) = converse(dialog, &mail).await;
    assert_eq!(outcomes, ["End 250 ok"]);
}

const MAIL_TAKEN: &str = "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\n\
    S: 250 ok\n";

#[tokio::test]
async fn a_connection_is_used_again_and_reset_where_a_transaction_was_left() {
    let dialog = format!(
        "S: 220 mx\nC: EHLO *\nS: 250 mx\n{MAIL_TAKEN}C: MAIL *\nS: 550 no\nC: RSET\nS: 250 ok\n\
         {MAIL_TAKEN}C: QUIT\nS: 221 bye"
    );
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut settings = settings(next_hop.address);
    settings.connection_reuse_max = 3;
    let relay = Relay::new(&settings, "relay.example.com").unwrap();
    for want in ["End 250 ok", "Mail 550 no", "End 250 ok"] {
        let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
        assert_eq!(shown(&outcomes), [want]);
    }
    assert_eq!(next_hop.bodies().await.len(), 2);
}

#[tokio::test]
async fn a_word_too_many_is_not_taken_for_the_answer_to_the_next_mail() {
    let chatty = MAIL_TAKEN.trim_end().to_owned() + "\\r\\n550 bad";
    let first = format!("S: 220 mx\nC: EHLO *\nS: 250 mx\n{chatty}\nEOF");
    let second = format!("S: 220 mx\nC: EHLO *\nS: 250 mx\n{MAIL_TAKEN}C: QUIT\nS: 221 bye");
    let next_hop = Scripted::start(&[&first, &second]).await;
    let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
    for _ in 0..2 {
        let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
        assert_eq!(shown(&outcomes), ["End 250 ok"]);
    }
    relay.close().await;
    assert_eq!(next_hop.bodies().await, [STUFFED, STUFFED]);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_costs_no_attempt() {
    let first = format!("S: 220 mx\nC: EHLO *\nS: 250 mx\n{MAIL_TAKEN}DROP");
    let second =
        format!("S: 220 mx\nC: EHLO *\nS: 250 mx\n{MAIL_TAKEN}C: MAIL *\nS: 421 idle\nDROP");
    let third = format!("S: 220 mx\nC: EHLO *\nS: 250 mx\n{MAIL_TAKEN}C: QUIT\nS: 221 bye");
    let next_hop = Scripted::start(&[&first, &second, &third]).await;
    let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
    for _ in 0..3 {
        let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
        assert_eq!(shown(&outcomes), ["End 250 ok"]);
    }
    relay.close().await;
    assert_eq!(next_hop.bodies().await, [STUFFED, STUFFED, STUFFED]);
}

#[tokio::test]
async fn a_next_hop_that_allows_fewer_connections_gets_all_mail_through_those() {
    // The first mail is under way until the second has been turned away.
    let first = format!(
        "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nLAST\nS: 250 ok\nC: RCPT *\nS: 250 ok\n\
         C: DATA\nS: 354 go\nBODY\nS: 250 ok\n{MAIL_TAKEN}C: QUIT\nS: 221 bye"
    );
    let next_hop = Scripted::start(&[&first, "S: 421 4.7.0 too many connections\nEOF"]).await;
    let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
    let mail = delivery(&["a@example.net"]);
    let (one, other) = tokio::join!(relay.deliver(&mail, BODY), relay.deliver(&mail, BODY));
    relay.close().await;
    assert_eq!([shown(&one), shown(&other)], [["End 250 ok"], ["End 250 ok"]]);
    assert_eq!(next_hop.bodies().await, [STUFFED, STUFFED]);
}

#[tokio::test]
async fn a_next_hop_that_takes_nobody_is_not_asked_for_each_mail() {
    // A second connection would find nobody who accepts it, and fail otherwise.
    let next_hop = Scripted::start(&["S: 554 5.7.1 go away\nEOF"]).await;
    let relay = Relay::new(&settings(next_hop.address), "relay.example.com").unwrap();
    let mail = delivery(&["a@example.net"]);
    assert_eq!(shown(&relay.deliver(&mail, BODY).await), ["Greeting 554 5.7.1 go away"]);
    let again = "Greeting not asked again within 5 s of: 554 5.7.1 go away";
    assert_eq!(shown(&relay.deliver(&mail, BODY).await), [again]);
    next_hop.bodies().await;
}

#[tokio::test]
async fn idle_connections_take_leave_when_their_time_is_over() {
    let dialog = format!("S: 220 mx\nC: EHLO *\nS: 250 mx\n{MAIL_TAKEN}C: QUIT\nS: 221 bye");
    let next_hop = Scripted::start(&[&dialog]).await;
    let mut settings = settings(next_hop.address);
    settings.connection_idle_secs = 1;
    let relay = Relay::new(&settings, "relay.example.com").unwrap();
    let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
    assert_eq!(shown(&outcomes), ["End 250 ok"]);
    // The dialog ends with a QUIT that nothing but the pool's own clock brings about.
    next_hop.bodies().await;
}

fn with_password(settings: &mut config::Relay) {
    settings.username = "user".to_owned();
    settings.password = "secret".to_owned();
}

#[tokio::test]
async fn authentication_by_plain_login_and_its_failures() {
    for (offer, rest, want) in [
        (
            "AUTH LOGIN PLAIN",
            "C: AUTH PLAIN AHVzZXIAc2VjcmV0\nS: 235 2.7.0 ok\nC: MAIL *\nS: 550 no\nC: QUIT\nS: 221 bye",
            "Mail 550 no",
        ),
        (
            "AUTH LOGIN",
            "C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dXNlcg==\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\n\
             S: 235 2.7.0 ok\nC: MAIL *\nS: 550 no\nC: QUIT\nS: 221 bye",
            "Mail 550 no",
        ),
        ("AUTH PLAIN", "C: AUTH *\nS: 535 5.7.8 wrong\nEOF", "Auth 535 5.7.8 wrong"),
        ("AUTH PLAIN", "C: AUTH *\nS: 454 4.7.0 later\nEOF", "Auth 454 4.7.0 later"),
        ("AUTH PLAIN", "C: AUTH *\nDROP", "Auth it closed the connection"),
        ("AUTH PLAIN", "C: AUTH *\nS: 334 more\nEOF", "Auth it answered AUTH with 334 more"),
        ("AUTH CRAM-MD5", "EOF", "Auth it offers neither AUTH PLAIN nor AUTH LOGIN"),
        ("SIZE", "EOF", "Auth it offers neither AUTH PLAIN nor AUTH LOGIN"),
    ] {
        let dialog = format!("S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 {offer}\n{rest}");
        let next_hop = Scripted::start(&[&dialog]).await;
        let mut settings = settings(next_hop.address);
        with_password(&mut settings);
        let relay = Relay::new(&settings, "relay.example.com").unwrap();
        let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
        relay.close().await;
        assert_eq!(shown(&outcomes), [want], "{offer} {rest}");
        next_hop.bodies().await;
    }
}

#[tokio::test]
async fn tls_that_is_required_and_not_to_be_had_sends_no_mail() {
    for (mode, dialog, want) in [
        (
            RelayTls::Required,
            "S: 220 mx\nC: EHLO *\nS: 250 mx\nEOF",
            "Tls TLS is required, and it does not offer STARTTLS",
        ),
        (
            RelayTls::Required,
            "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 later\nEOF",
            "Tls 454 4.7.0 later",
        ),
        (
            RelayTls::Opportunistic,
            "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 454 4.7.0 later\n\
             C: MAIL *\nS: 550 no\nC: QUIT\nS: 221 bye",
            "Mail 550 no",
        ),
        // Auto is opportunistic to loopback.
        (
            RelayTls::Auto,
            "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nS: 550 no\nC: QUIT\nS: 221 bye",
            "Mail 550 no",
        ),
    ] {
        let next_hop = Scripted::start(&[dialog]).await;
        let mut settings = settings(next_hop.address);
        settings.tls = mode;
        let relay = Relay::new(&settings, "relay.example.com").unwrap();
        let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
        relay.close().await;
        assert_eq!(shown(&outcomes), [want], "{mode:?}");
        next_hop.bodies().await;
    }
}

#[tokio::test]
async fn a_handshake_that_fails_ends_required_tls_and_is_gone_without_in_opportunistic() {
    let hello = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n";
    let refused = format!("{hello}DROP");
    let plain = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: MAIL *\nS: 550 no\n\
        C: QUIT\nS: 221 bye";
    let next_hop = Scripted::start(&[&refused, plain]).await;
    let mut settings = settings(next_hop.address);
    settings.tls = RelayTls::Opportunistic;
    let relay = Relay::new(&settings, "relay.example.com").unwrap();
    let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
    relay.close().await;
    assert_eq!(shown(&outcomes), ["Mail 550 no"]);
    next_hop.bodies().await;

    let next_hop = Scripted::start(&[&refused]).await;
    settings.host = next_hop.address.to_string();
    settings.tls = RelayTls::Required;
    let relay = Relay::new(&settings, "relay.example.com").unwrap();
    let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
    assert_eq!(outcomes[0].stage, Stage::Tls, "{}", outcomes[0].result);
}

#[tokio::test]
async fn what_is_injected_before_tls_ends_the_connection() {
    let dialog = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\n\
        S: 220 go\\r\\n250 injected\nEOF";
    let next_hop = Scripted::start(&[dialog]).await;
    let mut settings = settings(next_hop.address);
    settings.tls = RelayTls::Required;
    let relay = Relay::new(&settings, "relay.example.com").unwrap();
    let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
    assert_eq!(shown(&outcomes), ["Tls it sent more before TLS than it was asked"]);
    next_hop.bodies().await;
}

#[tokio::test]
async fn a_next_hop_that_says_nothing_is_left_in_time() {
    let next_hop = Scripted::start(&["S: 220 mx\nC: EHLO *\nEOF"]).await;
    let mut settings = settings(next_hop.address);
    settings.command_timeout_secs = 1;
    let relay = Relay::new(&settings, "relay.example.com").unwrap();
    let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
    assert_eq!(shown(&outcomes), ["Greeting it did not answer within 1 s"]);
    next_hop.bodies().await;
}

#[tokio::test]
async fn a_mail_whose_body_ends_early_is_not_ended_with_a_dot() {
    let dialog = "S: 220 mx\nC: EHLO *\nS: 250 mx\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\n\
        C: DATA\nS: 354 go\nC: Subject: x\nC: \nC: ..dot\nC: body\nEOF";
    let mail = Delivery { size_bytes: 999, ..delivery(&["a@example.net"]) };
    let (outcomes, _) = converse(dialog, &mail).await;
    assert_eq!(outcomes, ["Data the stored mail ends after 26 of 999 octets"]);
}

#[tokio::test]
async fn nobody_there_and_no_route_are_told_apart() {
    let next_hop = Scripted::start(&[]).await;
    let address = next_hop.address;
    next_hop.bodies().await;
    let relay = Relay::new(&settings(address), "relay.example.com").unwrap();
    let outcomes = relay.deliver(&delivery(&["a@example.net", "b@example.net"]), BODY).await;
    assert_eq!(outcomes.len(), 2);
    assert!(shown(&outcomes)[1].starts_with("Connect Connection refused"), "{outcomes:?}");

    let mut settings = settings(address);
    settings.host = String::new();
    let relay = Relay::new(&settings, "relay.example.com").unwrap();
    let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
    assert!(matches!(outcomes[0].result, OutcomeResult::NoRoute));
}

#[tokio::test]
async fn many_recipients_are_pipelined_in_groups_that_fit() {
    let recipients: Vec<String> = (0..300).map(|n| format!("user{n}@example.net")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let mut dialog =
        "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 PIPELINING\nC: MAIL *\nS: 250 ok\n".to_owned();
    for number in 0..300 {
        let reply = if number % 3 == 0 { "550 5.1.1 no" } else { "250 ok" };
        dialog += &format!("C: RCPT TO:<user{number}@example.net>\nS: {reply}\n");
    }
    dialog += "C: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye";
    let (outcomes, bodies) = converse(&dialog, &delivery(&recipients)).await;
    for (number, outcome) in outcomes.iter().enumerate() {
        let want = if number % 3 == 0 { "Rcpt 550 5.1.1 no" } else { "End 250 ok" };
        assert_eq!(outcome, want, "{number}");
    }
    assert_eq!(bodies, [STUFFED]);
}

/// A certificate for `localhost` that nobody trusts but who is told to: its file, and a server
/// that has it.
fn certificate() -> (PathBuf, ServerTls) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = std::env::temp_dir().join(format!("rebound-relay-{:016x}", secret::random_u64()));
    std::fs::create_dir(&dir).unwrap();
    let (cert_file, key_file) = (dir.join("cert.pem"), dir.join("key.pem"));
    std::fs::write(&cert_file, made.cert.pem()).unwrap();
    std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
    let pair = config::Certificate { cert_file: cert_file.clone(), key_file };
    (cert_file, ServerTls::load(&[pair]).unwrap())
}

const AFTER_TLS: &str = "C: EHLO relay.example.com\nS: 250-mx\nS: 250 AUTH PLAIN\n\
    C: AUTH PLAIN AHVzZXIAc2VjcmV0\nS: 235 2.7.0 ok\nC: MAIL FROM:<app@example.org>\nS: 250 ok\n\
    C: RCPT TO:<a@example.net>\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye";

#[tokio::test]
async fn tls_is_verified_unless_said_otherwise_and_everything_before_it_is_forgotten() {
    // The first EHLO offers what the one under TLS does not: none of it may be used.
    let starttls = format!(
        "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250-STARTTLS\nS: 250-SIZE\nS: 250 PIPELINING\n\
         C: STARTTLS\nS: 220 go\nTLS\n{AFTER_TLS}"
    );
    let implicit = format!("TLS\nS: 220 mx\n{AFTER_TLS}");
    for (mode, verify, trusts_it, host, want) in [
        (RelayTls::Required, true, true, "localhost", "End 250 ok"),
        (RelayTls::Implicit, true, true, "localhost", "End 250 ok"),
        (RelayTls::Required, false, false, "127.0.0.1", "End 250 ok"),
        (RelayTls::Opportunistic, true, false, "127.0.0.1", "End 250 ok"),
        (RelayTls::Auto, true, false, "127.0.0.1", "End 250 ok"),
        (RelayTls::Required, true, true, "127.0.0.1", "Tls TLS failed: invalid peer certificate"),
        (RelayTls::Implicit, true, false, "localhost", "Tls TLS failed: invalid peer certificate"),
    ] {
        let (cert_file, tls) = certificate();
        let (other_file, _) = certificate();
        let dialog = if mode == RelayTls::Implicit { &implicit } else { &starttls };
        let next_hop = Scripted::start_with(&[dialog], Some(tls)).await;
        let mut settings = settings(next_hop.address);
        settings.host = format!("{host}:{}", next_hop.address.port());
        settings.source_address = Some("127.0.0.1".parse().unwrap());
        (settings.tls, settings.tls_verify) = (mode, verify);
        settings.tls_ca_file = if trusts_it { cert_file } else { other_file };
        with_password(&mut settings);
        let relay = Relay::new(&settings, "relay.example.com").unwrap();
        let outcomes = relay.deliver(&delivery(&["a@example.net"]), BODY).await;
        relay.close().await;
        let got = shown(&outcomes);
        assert!(got[0].starts_with(want), "{mode:?} {verify} {trusts_it} {host}: {got:?}");
        let encrypted = outcomes[0].tls.as_deref().unwrap_or_default();
        assert_eq!(encrypted.starts_with("TLSv1.3 TLS13_"), want == "End 250 ok", "{encrypted}");
        next_hop.bodies().await;
    }
}
