//! A mail that did not arrive at our own listener, as a report to be stored.

use crate::mail::{Timestamp, header};
use crate::store::record::{CapturedBy, ReportId, ReportReceived};
use crate::store::report_digest;

/// What is known of a mail that was delivered elsewhere first: its envelope is what deliveries
/// have written into its header, and no return token of it has been verified yet.
pub fn arrived(
    id: ReportId,
    received_at: Timestamp,
    captured_by: CapturedBy,
    raw: Vec<u8>,
) -> ReportReceived {
    let reverse_path = addresses(&raw, "Return-Path").pop().unwrap_or_default();
    let mut recipients = addresses(&raw, "Delivered-To");
    recipients.extend(addresses(&raw, "X-Original-To"));
    let digest = report_digest(&raw);
    let tokens = Vec::new();
    ReportReceived { id, received_at, captured_by, reverse_path, recipients, tokens, digest, raw }
}

/// The addresses in the fields of this name, which deliveries have added.
fn addresses(raw: &[u8], name: &str) -> Vec<String> {
    let (fields, _) = header::split(raw);
    let fields = header::fields(fields).filter(|field| field.is(name)).take(RECIPIENTS_MAX);
    fields.map(|field| field.text().trim_matches(['<', '>']).to_owned()).collect()
}

/// Fields of one name whose addresses are recorded.
const RECIPIENTS_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::QueueId;

    #[test]
    fn the_envelope_is_what_deliveries_have_written() {
        let raw =
            b"Return-Path: <>\r\nDelivered-To: <b+x@app.test>\r\nX-Original-To: a@app.test\r\n\
            \r\nDelivered-To: body@app.test\r\n";
        let id = ReportId(QueueId::new(Timestamp::from_millis(1), 1));
        let report = arrived(id, Timestamp::from_millis(2), CapturedBy::Api, raw.to_vec());
        assert_eq!(report.reverse_path, "");
        assert_eq!(report.recipients, ["b+x@app.test", "a@app.test"]);
        assert_eq!(report.digest, report_digest(raw));
    }
}
