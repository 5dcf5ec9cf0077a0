//! Composes what the simulator mails back, in the form that Postfix gives it.
//!
//! Pure: the time and the ids are arguments.

use crate::mail::{Timestamp, header::sanitized};

use super::address::{ReportKind, Returned, words_for};

/// What a report is about.
#[derive(Clone, Debug)]
pub(super) struct Subject<'a> {
    /// What happened.
    pub kind: ReportKind,
    /// The reverse-path that the mail came with: where the report goes.
    pub reverse_path: &'a str,
    /// The recipient.
    pub recipient: &'a str,
    /// The simulator's own name for the mail.
    pub queue_id: &'a str,
    /// When it was taken.
    pub arrived_at: Timestamp,
    /// When the report is written.
    pub now: Timestamp,
    /// The mail: its header and the beginning of its body.
    pub returned: &'a [u8],
    /// The simulator's domain.
    pub domain: &'a str,
}

/// The report as it is sent, lines ended by CRLF.
pub(super) fn compose(subject: &Subject<'_>) -> Vec<u8> {
    if subject.kind == ReportKind::AutoReply { auto_reply(subject) } else { dsn(subject) }
}

/// RFC 3464, with the parts, fields and words of Postfix.
fn dsn(subject: &Subject<'_>) -> Vec<u8> {
    let Subject { domain, queue_id, .. } = subject;
    let boundary = format!("{queue_id}.{}/mx.{domain}", subject.now.as_millis());
    let mut mail = format!(
        "{}Subject: {}\r\nAuto-Submitted: auto-replied\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary=\"{boundary}\"\r\n\
         \r\nThis is a MIME-encapsulated message.\r\n\r\n--{boundary}\r\n\
         Content-Description: Notification\r\nContent-Type: text/plain; charset=us-ascii\r\n\r\n{}\r\n\
         --{boundary}\r\nContent-Description: Delivery report\r\n\
         Content-Type: message/delivery-status\r\n\r\n{}\r\n",
        trace(subject, "Mail Delivery System", "MAILER-DAEMON"),
        subject_line(subject.kind),
        notification(subject),
        delivery_status(subject),
    )
    .into_bytes();
    if let Some(returned) = returned_mail(subject) {
        let (description, kind) = match subject.kind {
            ReportKind::Failed(..) => ("Undelivered Message", "message/rfc822"),
            _ => ("Message Headers", "text/rfc822-headers"),
        };
        let head = format!(
            "--{boundary}\r\nContent-Description: {description}\r\nContent-Type: {kind}\r\n\r\n"
        );
        mail.extend_from_slice(head.as_bytes());
        mail.extend_from_slice(returned);
        mail.extend_from_slice(b"\r\n");
    }
    mail.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    mail
}

fn auto_reply(subject: &Subject<'_>) -> Vec<u8> {
    let original = crate::mail::header::split(subject.returned).0;
    let field = |name| crate::mail::header::find(original, name).map(|field| field.text());
    let references = field("Message-ID").map_or_else(String::new, |id| {
        let id = sanitized(&id);
        format!("In-Reply-To: {id}\r\nReferences: {id}\r\n")
    });
    let about = sanitized(&field("Subject").unwrap_or_default());
    format!(
        "{}Subject: Out of office: {about}\r\n{references}Auto-Submitted: auto-replied\r\n\
         X-Auto-Response-Suppress: All\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=us-ascii\r\n\r\n\
         I am out of the office until Monday and will answer your mail then.\r\n",
        trace(subject, "Somebody away", local_part(subject.recipient)),
    )
    .into_bytes()
}

/// `Received` to `Message-Id`, as every mail of the simulator begins.
fn trace(subject: &Subject<'_>, name: &str, local: &str) -> String {
    let Subject { domain, queue_id, reverse_path, now, .. } = subject;
    let date = now.rfc5322();
    format!(
        "Received: by mx.{domain} (Rebound simulator)\r\n\tid {queue_id}; {date}\r\n\
         Date: {date}\r\nFrom: {name} <{local}@{domain}>\r\nTo: {reverse_path}\r\n\
         Message-Id: <{}.{queue_id}@mx.{domain}>\r\n",
        now.as_millis(),
    )
}

fn subject_line(kind: ReportKind) -> &'static str {
    match kind {
        ReportKind::Delayed(_) => "Delayed Mail (still being retried)",
        ReportKind::Delivered => "Successful Mail Delivery Report",
        ReportKind::Failed(..) | ReportKind::AutoReply => "Undelivered Mail Returned to Sender",
    }
}

/// The part for people.
fn notification(subject: &Subject<'_>) -> String {
    let Subject { domain, recipient, .. } = subject;
    let said = match subject.kind {
        ReportKind::Delayed(_) => "Your message could not be delivered yet.\r\nIt will be retried.",
        ReportKind::Delivered => {
            "Your message was successfully delivered to the destination below."
        }
        _ => {
            "I'm sorry to have to inform you that your message could not\r\n\
              be delivered to one or more recipients."
        }
    };
    let explanation = match diagnostic(subject.kind) {
        Some(reply) => format!(
            "host mx2.{domain}[192.0.2.25] said: {reply}\r\n    (in reply to RCPT TO command)"
        ),
        None => "delivery via local: delivered to mailbox".to_owned(),
    };
    format!(
        "This is the mail system at host mx.{domain}.\r\n\r\n{said}\r\n\r\n\
         <{recipient}>: {explanation}\r\n"
    )
}

/// RFC 3464 §2.2 and §2.3.
fn delivery_status(subject: &Subject<'_>) -> String {
    let Subject { domain, recipient, queue_id, .. } = subject;
    let (action, status) = match subject.kind {
        ReportKind::Failed(status, _) => ("failed", status.to_string()),
        ReportKind::Delayed(status) => ("delayed", status.to_string()),
        ReportKind::Delivered | ReportKind::AutoReply => ("delivered", "2.0.0".to_owned()),
    };
    let remote = match diagnostic(subject.kind) {
        Some(reply) => {
            format!("Remote-MTA: dns; mx2.{domain}\r\nDiagnostic-Code: smtp; {reply}\r\n")
        }
        None => "Diagnostic-Code: x-postfix; delivered to mailbox\r\n".to_owned(),
    };
    let until = match subject.kind {
        ReportKind::Delayed(_) => {
            format!("Will-Retry-Until: {}\r\n", subject.now.plus(RETRIED_FOR).rfc5322())
        }
        _ => String::new(),
    };
    format!(
        "Reporting-MTA: dns; mx.{domain}\r\nX-Postfix-Queue-ID: {queue_id}\r\n\
         X-Postfix-Sender: rfc822; {}\r\nArrival-Date: {}\r\n\r\n\
         Final-Recipient: rfc822; {recipient}\r\nOriginal-Recipient: rfc822;{recipient}\r\n\
         Action: {action}\r\nStatus: {status}\r\n{remote}{until}",
        subject.reverse_path,
        subject.arrived_at.rfc5322(),
    )
}

/// The reply that the report quotes: `550 5.1.1 ...`.
fn diagnostic(kind: ReportKind) -> Option<String> {
    let (status, code) = match kind {
        ReportKind::Failed(status, _) if status.class == 5 && status.subject == 2 => (status, 552),
        ReportKind::Failed(status, _) if status.class == 5 => (status, 550),
        ReportKind::Failed(status, _) | ReportKind::Delayed(status) => (status, 450),
        ReportKind::Delivered | ReportKind::AutoReply => return None,
    };
    Some(format!("{code} {status} {}", words_for(status)))
}

fn returned_mail<'a>(subject: &Subject<'a>) -> Option<&'a [u8]> {
    match subject.kind {
        ReportKind::Failed(_, Returned::Nothing) => None,
        ReportKind::Failed(_, Returned::Message) => Some(subject.returned),
        _ => Some(crate::mail::header::split(subject.returned).0),
    }
}

fn local_part(address: &str) -> &str {
    address.split('@').next().unwrap_or(address)
}

/// Five days, as Postfix has it.
const RETRIED_FOR: std::time::Duration = std::time::Duration::from_secs(5 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::EnhancedStatus;

    const MAIL: &[u8] = b"Message-ID: <m@app.test>\r\nSubject: Hi\r\n\r\nBody\r\n";

    fn composed(kind: ReportKind) -> String {
        let subject = Subject {
            kind,
            reverse_path: "b+t@bounces.sim.test",
            recipient: "dsn@sim.test",
            queue_id: "4XYZ",
            arrived_at: Timestamp::from_millis(1_665_576_634_000),
            now: Timestamp::from_millis(1_665_576_640_980),
            returned: MAIL,
            domain: "sim.test",
        };
        String::from_utf8(compose(&subject)).unwrap()
    }

    #[test]
    fn a_failure_has_the_three_parts_of_rfc_3464() {
        let mail = composed(ReportKind::Failed(EnhancedStatus::new(5, 2, 2), Returned::Message));
        for line in [
            "To: b+t@bounces.sim.test",
            "Content-Type: multipart/report; report-type=delivery-status;",
            "Reporting-MTA: dns; mx.sim.test",
            "Final-Recipient: rfc822; dsn@sim.test",
            "Action: failed",
            "Status: 5.2.2",
            "Remote-MTA: dns; mx2.sim.test",
            "Diagnostic-Code: smtp; 552 5.2.2 Mailbox full, over quota",
            "Arrival-Date: Wed, 12 Oct 2022 12:10:34 +0000",
            "Content-Type: message/rfc822",
            "Message-ID: <m@app.test>",
            "Body",
        ] {
            assert!(mail.split("\r\n").any(|have| have == line), "{line} in {mail}");
        }
        assert!(mail.ends_with("--\r\n"));
        assert!(!mail.replace("\r\n", "").contains(['\r', '\n']), "only CRLF ends a line");
    }

    #[test]
    fn what_is_returned_depends_on_the_kind() {
        let status = EnhancedStatus::new(5, 1, 1);
        let nothing = composed(ReportKind::Failed(status, Returned::Nothing));
        assert!(!nothing.contains("m@app.test"));
        let delayed = composed(ReportKind::Delayed(EnhancedStatus::new(4, 4, 1)));
        assert!(delayed.contains("Action: delayed\r\nStatus: 4.4.1\r\n"));
        assert!(delayed.contains("Will-Retry-Until: Mon, 17 Oct 2022 12:10:40 +0000\r\n"));
        assert!(delayed.contains("m@app.test") && !delayed.contains("Body"));
        let delivered = composed(ReportKind::Delivered);
        assert!(delivered.contains("Action: delivered\r\nStatus: 2.0.0\r\n"));
    }

    #[test]
    fn an_auto_reply_is_no_report_and_cannot_be_led_to_inject_a_field() {
        let mail = composed(ReportKind::AutoReply);
        assert!(mail.contains("In-Reply-To: <m@app.test>\r\n"));
        assert!(mail.contains("Subject: Out of office: Hi\r\n"));
        assert!(!mail.contains("multipart/report"));
    }
}
