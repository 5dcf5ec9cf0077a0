//! Reports as JSON: what arrived, what was read from it, what came of it.

use serde_json::{Map, Value};

use super::{put, returned_headers, shown};
use crate::bounce::{Facts, RecipientFacts};
use crate::mail::Timestamp;
use crate::store::ReportRecord;
use crate::store::record::ReportCaptured;

/// A report with what was read from it (`facts`) and the bounces that came of it.
pub fn report(record: &ReportRecord, facts: &Facts, bounces: &[Value]) -> Value {
    let mut answer = report_summary(record);
    if let Value::Object(map) = &mut answer {
        put(map, "messageId", facts.message_id.as_ref().map(shown));
        put(map, "report", said(facts));
        put(map, "original", original(facts));
        put(map, "defects", facts.defects.iter().map(|defect| &defect.0).collect::<Vec<_>>());
        put(map, "why", &facts.why);
        put(map, "bounces", bounces);
    }
    answer
}

/// What a list shows of a report.
pub fn report_summary(record: &ReportRecord) -> Value {
    let received = &record.received;
    let captured = record.captured.as_ref();
    object! {
        "id": received.id,
        "date": received.received_at.rfc3339(),
        "capturedBy": received.captured_by,
        "from": &received.reverse_path,
        "to": &received.recipients,
        "size": received.raw.len(),
        "capturedAt": captured.map(|captured| captured.captured_at.rfc3339()),
        "verdict": captured.map(|captured| captured.verdict),
        "matched": captured.map(|captured| &captured.matched),
        "ownNotice": captured.map(|captured| captured.own_notice),
        "forwardedTo": captured.and_then(forwarded_to),
    }
}

fn said(facts: &Facts) -> Value {
    let report = &facts.report;
    let recipients: Vec<Value> = report.recipients.iter().map(said_of_recipient).collect();
    object! {
        "reportingMta": &report.reporting_mta,
        "arrivalDate": report.arrival_date.map(Timestamp::rfc3339),
        "envelopeId": &report.envelope_id,
        "queueId": &report.queue_id,
        "feedbackType": &report.feedback_type,
        "recipients": recipients,
    }
}

fn said_of_recipient(said: &RecipientFacts) -> Value {
    let diagnostic = said.diagnostic.as_ref().map(|diagnostic| {
        object! {
            "type": Some(&diagnostic.kind).filter(|kind| !kind.is_empty()),
            "text": &diagnostic.text,
        }
    });
    object! {
        "finalRecipient": &said.final_recipient,
        "originalRecipient": &said.original_recipient,
        "action": said.action,
        "status": said.status,
        "code": said.code,
        "diagnostic": diagnostic,
        "remoteMta": &said.remote_mta,
        "command": &said.command,
        "willRetryUntil": said.will_retry_until.map(Timestamp::rfc3339),
    }
}

fn original(facts: &Facts) -> Value {
    object! {
        "messageId": facts.original.message_id.as_ref().map(shown),
        "queueId": facts.original.rebound_id,
        "headers": returned_headers(facts),
    }
}

fn forwarded_to(captured: &ReportCaptured) -> Option<&str> {
    captured.forward_to.as_deref().filter(|address| !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bounce::{Action, Defect, Diagnostic, Verdict, Why};
    use crate::mail::{EnhancedStatus, MessageId, QueueId};
    use crate::store::record::{CapturedBy, ReportId, ReportReceived};
    use serde_json::json;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn id(unique: u32) -> QueueId {
        QueueId::new(NOW, unique)
    }

    fn record(captured: Option<ReportCaptured>) -> ReportRecord {
        let received = ReportReceived {
            id: ReportId(id(1)),
            received_at: NOW,
            captured_by: CapturedBy::Listener,
            reverse_path: String::new(),
            recipients: vec!["b@bounces.example".to_owned()],
            tokens: vec![],
            digest: [0; 16],
            raw: b"From: x\r\n\r\n".to_vec(),
        };
        ReportRecord { received, captured }
    }

    #[test]
    fn a_report_that_is_not_captured_yet_shows_what_arrived() {
        let want = json!({
            "id": id(1).to_string(),
            "date": "2022-10-12T12:10:40.980Z",
            "capturedBy": "listener",
            "from": "",
            "to": ["b@bounces.example"],
            "size": 11
        });
        assert_eq!(report_summary(&record(None)).to_string(), want.to_string());
    }

    #[test]
    fn a_report_shows_everything_that_was_read_from_it() {
        let captured = ReportCaptured {
            id: ReportId(id(1)),
            captured_at: NOW,
            verdict: Verdict::Bounce,
            matched: vec![id(2)],
            own_notice: false,
            forward_to: Some("app@example.com".to_owned()),
            reread: false,
            bounced_accounts: Default::default(),
        };
        let mut facts = Facts {
            verdict: Verdict::Bounce,
            message_id: MessageId::parse("r@mx"),
            defects: vec![Defect("no-boundary".to_owned())],
            why: vec![Why { fact: "verdict".to_owned(), rule: "dsn".to_owned() }],
            ..Facts::default()
        };
        facts.report.reporting_mta = Some("mx".to_owned());
        facts.report.arrival_date = Some(NOW);
        facts.report.recipients = vec![RecipientFacts {
            final_recipient: "a@b".to_owned(),
            action: Action::Failed,
            status: EnhancedStatus::parse("5.1.1"),
            code: Some(550),
            diagnostic: Some(Diagnostic { kind: String::new(), text: "no".to_owned() }),
            ..RecipientFacts::default()
        }];
        facts.original.message_id = MessageId::parse("m@app");
        facts.original.headers = vec![("subject".to_owned(), vec!["one".to_owned()])];
        let want = json!({
            "id": id(1).to_string(),
            "date": "2022-10-12T12:10:40.980Z",
            "capturedBy": "listener",
            "from": "",
            "to": ["b@bounces.example"],
            "size": 11,
            "capturedAt": "2022-10-12T12:10:40.980Z",
            "verdict": "bounce",
            "matched": [id(2).to_string()],
            "ownNotice": false,
            "forwardedTo": "app@example.com",
            "messageId": "<r@mx>",
            "report": {
                "reportingMta": "mx",
                "arrivalDate": "2022-10-12T12:10:40.980Z",
                "recipients": [{
                    "finalRecipient": "a@b",
                    "action": "failed",
                    "status": "5.1.1",
                    "code": 550,
                    "diagnostic": { "text": "no" }
                }]
            },
            "original": { "messageId": "<m@app>", "headers": { "subject": ["one"] } },
            "defects": ["no-boundary"],
            "why": [{ "fact": "verdict", "rule": "dsn" }],
            "bounces": []
        });
        let shown = report(&record(Some(captured)), &facts, &[]);
        assert_eq!(shown.to_string(), want.to_string());
    }
}
