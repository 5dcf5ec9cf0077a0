//! Return tokens in a report's own header.
//!
//! A report that was found in a mailbox, or handed in, has no envelope; where it was delivered
//! still stands in its header. Only the header on top counts: the mail that it returns names our
//! reverse-path, too, and anybody may quote that mail.

use super::ReturnPath;
use crate::mail::{Address, QueueId, ReturnPathFormat, Timestamp, header};
use crate::secret::KeyRing;
use crate::store::record::ReportReceived;

/// The submissions and recipients that the return tokens of a report name: those of its envelope,
/// else the valid ones of its header. `begins_at` says from when on a mail was to be sent.
pub(super) fn tokens(
    received: &ReportReceived,
    keys: &KeyRing,
    path: &ReturnPath,
    begins_at: &dyn Fn(QueueId) -> Timestamp,
) -> Vec<(QueueId, u32)> {
    if !received.tokens.is_empty() {
        return received.tokens.clone();
    }
    let format =
        ReturnPathFormat { prefix: &path.prefix, delimiter: path.delimiter, domain: &path.domain };
    let mut tokens = Vec::new();
    let (top, _body) = header::split(&received.raw);
    let fields = header::fields(top.get(..HEADER_BYTES_MAX).unwrap_or(top));
    let fields = fields.filter(|field| FIELDS.iter().any(|name| field.is(name)));
    for field in fields.take(FIELDS_MAX) {
        let text = field.text();
        let words = text.split(|c: char| c.is_whitespace() || "<>,;:()\"".contains(c));
        let words = words.filter(|word| word.contains('@')).take(ADDRESSES_MAX);
        for address in words.filter_map(|word| Address::parse(word).ok()) {
            let Some(token) = format.read(&address).map(|found| found.token) else { continue };
            let named = (token.queue_id, u32::from(token.recipient));
            let is_young = |time| received.received_at.since(time) <= path.token_lifetime;
            let is_valid = keys.verify(&token)
                && (is_young(token.queue_id.time()) || is_young(begins_at(token.queue_id)));
            if is_valid && !tokens.contains(&named) {
                tokens.push(named);
            }
        }
    }
    tokens
}

/// Fields in which the servers of a mailbox, and the sender of a mail, say whom it is for.
const FIELDS: [&str; 11] = [
    "Delivered-To",
    "X-Delivered-To",
    "X-Original-To",
    "Original-Recipient",
    "Envelope-To",
    "X-Envelope-To",
    "X-Rcpt-To",
    "X-MDaemon-Deliver-To",
    "X-Forwarded-To",
    "Resent-To",
    "To",
];
/// Octets of the header that are looked at.
const HEADER_BYTES_MAX: usize = 65_536;
/// Fields that are looked at.
const FIELDS_MAX: usize = 20;
/// Addresses of one field that are looked at.
const ADDRESSES_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::testing::{NOW, id, report};
    use crate::mail::{ReversePath, TokenForm};
    use std::time::Duration;

    fn path() -> ReturnPath {
        ReturnPath {
            prefix: "b".to_owned(),
            delimiter: '+',
            domain: "bounces.example".to_owned(),
            token_lifetime: Duration::from_secs(3600),
        }
    }

    fn address(keys: &KeyRing, form: TokenForm, recipient: u16) -> String {
        let format = ReturnPathFormat { prefix: "b", delimiter: '+', domain: "bounces.example" };
        let app = ReversePath::Address(Address::parse("app@example.org").unwrap());
        format.write(form, &app, &keys.token(id(1), recipient)).unwrap().to_string()
    }

    #[test]
    fn a_token_counts_in_the_fields_that_say_whom_a_report_is_for() {
        let keys = KeyRing::from_secret([7; 32]);
        let verp = address(&keys, TokenForm::Verp, 2);
        let plus = address(&keys, TokenForm::Plus, 3);
        let forged = address(&KeyRing::from_secret([8; 32]), TokenForm::Verp, 2);
        let many = "x@y.example, ".repeat(ADDRESSES_MAX);
        for (raw, want) in [
            (format!("Delivered-To: {verp}\r\n\r\n"), vec![2]),
            (format!("DELIVERED-TO: {}\r\n\r\n", verp.to_uppercase()), vec![2]),
            (format!("X-Original-To:\r\n {plus}\r\n\r\n"), vec![3]),
            (format!("Original-Recipient: rfc822;{verp}\r\n\r\n"), vec![2]),
            (format!("To: \"Bounces, all\" <{verp}>, Anna <{plus}> (x)\r\n\r\n"), vec![2, 3]),
            (format!("Envelope-To: {verp}\r\nTo: {verp}\r\n\r\n"), vec![2]),
            (format!("To: {many}{verp}\r\n\r\n"), vec![]),
            (format!("{}To: {verp}\r\n\r\n", "To: x@y\r\n".repeat(FIELDS_MAX)), vec![]),
            (format!("Cc: {verp}\r\nReturn-Path: <{verp}>\r\nFrom: {verp}\r\n\r\n"), vec![]),
            (format!("Delivered-To: {forged}\r\n\r\n"), vec![]),
            (format!("Delivered-To: {}\r\n\r\n", verp.replace("bounces.", "other.")), vec![]),
            (format!("Subject: x\r\n\r\nDelivered-To: {verp}\r\nTo: {plus}\r\n"), vec![]),
            (
                format!(
                    "Subject: x\r\nContent-Type: message/rfc822\r\n\r\n\
                     Return-Path: <{verp}>\r\nTo: {plus}\r\n\r\n"
                ),
                vec![],
            ),
        ] {
            let want: Vec<(QueueId, u32)> = want.into_iter().map(|at| (id(1), at)).collect();
            assert_eq!(
                tokens(&report(raw.as_bytes()), &keys, &path(), &QueueId::time),
                want,
                "{raw}"
            );
        }
    }

    #[test]
    fn a_token_of_the_envelope_goes_before_and_an_old_one_counts_nowhere() {
        let keys = KeyRing::from_secret([7; 32]);
        let raw = format!("Delivered-To: {}\r\n\r\n", address(&keys, TokenForm::Verp, 2));
        let enveloped = ReportReceived { tokens: vec![(id(9), 0)], ..report(raw.as_bytes()) };
        assert_eq!(tokens(&enveloped, &keys, &path(), &QueueId::time), [(id(9), 0)]);
        for (age, want) in [(3600, 1), (3601, 0)] {
            let received_at = NOW.plus(Duration::from_secs(age));
            let late = ReportReceived { received_at, ..report(raw.as_bytes()) };
            assert_eq!(tokens(&late, &keys, &path(), &QueueId::time).len(), want, "{age}");
            let sent_later = |id: QueueId| id.time().plus(Duration::from_secs(1));
            assert_eq!(tokens(&late, &keys, &path(), &sent_later).len(), 1, "{age}");
        }
    }
}
