//! A report that goes on to whom it would have gone to without us.

use super::{AUTO_SUBMITTED, Letterhead, Notice, from_field, submission};
use crate::mail::{Address, MessageId, header};
use crate::store::record::ReportReceived;

/// A report that was caught at our return path, on its way to `to`: its own octets below our
/// trace. `account` is whose mail it is about.
pub fn forward(
    head: &Letterhead<'_>,
    report: &ReportReceived,
    to: &Address,
    account: &str,
) -> Notice {
    let Letterhead { hostname, queue_id, now, random, mark } = *head;
    let (own_header, rest) = header::split(&report.raw);
    let has = |name: &str| header::find(own_header, name).is_some();
    let kept_id = header::find(own_header, "Message-ID").map(|field| field.text());
    let kept_id = kept_id.and_then(|text| MessageId::parse(&text));
    let message_id =
        kept_id.clone().unwrap_or_else(|| MessageId::generate(queue_id, random, hostname));

    let date = now.rfc5322();
    let mut head_text = format!(
        "Received: by {hostname} id {queue_id}\r\n\tfor <{to}>;\r\n\t{date}\r\n\
         X-Rebound-Id: {queue_id}\r\nX-Rebound-Notice: {mark}\r\n"
    );
    let is_forged = |text: &str| text.eq_ignore_ascii_case("no");
    let auto = header::find(own_header, "Auto-Submitted").map(|field| field.text());
    let needs_auto = auto.as_deref().is_none_or(is_forged);
    for (missing, line) in [
        (needs_auto, AUTO_SUBMITTED.to_owned()),
        (!has("From"), from_field(hostname)),
        (kept_id.is_none(), format!("Message-ID: {message_id}\r\n")),
        (!has("Date"), format!("Date: {date}\r\n")),
    ] {
        head_text += if missing { &line } else { "" };
    }
    let mut octets = head_text.into_bytes();
    octets.extend_from_slice(&header::without(own_header, |field| {
        // Only we may write the first two, only a final delivery the third.
        ["X-Rebound-Id", "X-Rebound-Notice", "Return-Path"].iter().any(|name| field.is(name))
            || (needs_auto && field.is("Auto-Submitted"))
            || (kept_id.is_none() && field.is("Message-ID"))
    }));
    if !octets.ends_with(b"\n") {
        octets.extend_from_slice(b"\r\n");
    }
    let header_len = octets.len();
    if !rest.starts_with(b"\r\n") && !rest.starts_with(b"\n") {
        octets.extend_from_slice(b"\r\n");
    }
    octets.extend_from_slice(rest);
    let submission = submission(head, account, message_id, to, &octets, header_len);
    (submission, octets)
}
