//! What makes two deliveries of one report the same report.

use crate::mail::header;

/// blake3 of a report without the trace fields that each delivery adds, its first 16 octets.
pub fn report_digest(raw: &[u8]) -> [u8; 16] {
    let (report_header, rest) = header::split(raw);
    let mut hasher = blake3::Hasher::new();
    for field in header::fields(report_header) {
        if !TRACE_FIELDS.iter().any(|name| field.is(name)) {
            hasher.update(field.raw);
        }
    }
    hasher.update(rest);
    let mut digest = [0; 16];
    hasher.finalize_xof().fill(&mut digest);
    digest
}

/// Fields that a delivery adds on top.
const TRACE_FIELDS: [&str; 4] = ["Received", "Return-Path", "Delivered-To", "X-Original-To"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_delivery_adds_makes_no_difference() {
        let report = b"Subject: failed\r\nFrom: a@b\r\n\r\nReceived: in the body\r\n";
        let own = report_digest(report);
        let top = b"Return-Path: <>\r\nReceived: from a\r\n by b; c\r\nDelivered-To: x@y\r\n\
                    X-Original-To: x@y\r\n";
        assert_eq!(report_digest(&[&top[..], report].concat()), own);
        for other in [
            &b"Subject: failed\r\nFrom: a@b\r\n\r\nReceived: in the Body\r\n"[..],
            b"Subject: Failed\r\nFrom: a@b\r\n\r\nReceived: in the body\r\n",
            b"From: a@b\r\nSubject: failed\r\n\r\nReceived: in the body\r\n",
            b"Subject: failed\r\nFrom: a@b\r\n\r\n",
            b"",
        ] {
            assert_ne!(report_digest(other), own);
        }
    }
}
