//! Reports as Postfix writes them, about whatever a test wants.

use std::net::SocketAddr;

use super::smtp::Client;

/// A DSN about these recipients of a mail, each with the action given.
pub(crate) fn dsn(message_id: &str, recipients: &[(&str, &str)]) -> Vec<u8> {
    let mut status = "Reporting-MTA: dns; mx.dest.test\r\n".to_owned();
    for (recipient, action) in recipients {
        let code = match *action {
            "failed" => ("5.1.1", "550 5.1.1 No such user"),
            "delayed" => ("4.4.1", "450 4.4.1 Connection timed out"),
            _ => ("2.0.0", "250 2.0.0 Ok"),
        };
        status += &format!(
            "\r\nFinal-Recipient: rfc822; {recipient}\r\nAction: {action}\r\nStatus: {}\r\n\
             Remote-MTA: dns; mx2.dest.test\r\nDiagnostic-Code: smtp; {}\r\n",
            code.0, code.1
        );
    }
    format!(
        "From: MAILER-DAEMON@mx.dest.test (Mail Delivery System)\r\nTo: x@app.test\r\n\
         Subject: Undelivered Mail Returned to Sender\r\nMIME-Version: 1.0\r\n\
         Message-ID: <dsn-{}@mx.dest.test>\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=\"=b\"\r\n\r\n\
         --=b\r\nContent-Type: text/plain\r\n\r\nThis is the mail system.\r\n\r\n\
         --=b\r\nContent-Type: message/delivery-status\r\n\r\n{status}\r\n\
         --=b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
         Message-ID: {message_id}\r\nSubject: Test\r\n\r\n--=b--\r\n",
        message_id.trim_matches(['<', '>']).replace('@', "-at-"),
    )
    .into_bytes()
}

/// Sends a report from `<>` and returns the reply to its end, or to what was refused before.
pub(crate) fn send(inbound: SocketAddr, to: &str, report: &[u8]) -> std::io::Result<String> {
    let mut client = Client::try_connect(inbound)?;
    let reply = client.send("", &[to], report)?;
    client.command("QUIT")?;
    Ok(reply)
}
