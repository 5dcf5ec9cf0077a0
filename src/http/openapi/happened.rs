//! What events say, field by field, and the document's section of webhooks.

use serde_json::{Map, Value, json};

use super::reference;
use super::schemas::{
    ACTION, CAUGHT, CODE, FLAG, HEADERS, ID, META, NUMBER, STATUS, TEXT, TEXTS, TIME, VERDICT, has,
    may, schema,
};
use crate::http::operation::{Schema, Shape};

/// Each event with the name of what its `data` is, in the order of `EVENT_NAMES`.
const DATA: [(&str, &str); 9] = [
    ("messageSent", "MessageTried"),
    ("messageDeliveryError", "MessageTried"),
    ("messageFailed", "MessageTried"),
    ("messageBounce", "Bounce"),
    ("messageComplaint", "Complaint"),
    ("deliveryReport", "Bounce"),
    ("autoReply", "AutoReply"),
    ("messageClosed", "MessageClosed"),
    ("bounceUnmatched", "BounceUnmatched"),
];

/// What `data` may be.
pub(super) const ANY_DATA: Shape = Shape::AnyOf(&[
    "MessageTried",
    "Bounce",
    "Complaint",
    "AutoReply",
    "MessageClosed",
    "BounceUnmatched",
]);

/// What is told of an event.
pub(super) const HAPPENED: &[Schema] = &[
    schema(
        "WebhookBody",
        "What a webhook of the format `emailengine` is sent.",
        &[
            may("serviceUrl", TEXT, "`http.service_url`, where it is set"),
            may("account", TEXT, "Whose mail it is about"),
            has("date", TIME, "When it happened"),
            has("event", TEXT, "Its kind; `test` for a test"),
            has("data", ANY_DATA, "What happened"),
        ],
    ),
    schema(
        "MessageTried",
        "`messageSent`, `messageDeliveryError`, `messageFailed`: what came of an attempt.",
        &[
            has("messageId", TEXT, "Its Message-ID, in angle brackets"),
            has("queueId", ID, "Our name for the submission"),
            may("response", TEXT, "What the next hop said that took it"),
            may("error", TEXT, "What was answered, or what failed"),
            may("smtpResponse", TEXT, "What was answered, where it was not taken"),
            may("smtpResponseCode", CODE, "Its code"),
            may("status", STATUS, "The enhanced status of the answer"),
            has("recipient", TEXT, "The address"),
            has("envelope", Shape::Of("EventEnvelope"), "What it was sent with"),
            may("mta", TEXT, "The next hop, as name[address]:port"),
            may("remoteQueueId", TEXT, "The next hop's queue id of the mail"),
            may("job", Shape::Of("EventJob"), "How it goes on, where it was not taken"),
            may("meta", META, "Its X-Rebound-Meta-* fields"),
        ],
    ),
    schema(
        "EventEnvelope",
        "Who a mail is from and to.",
        &[has("from", TEXT, "The reverse-path"), has("to", TEXTS, "The recipient")],
    ),
    schema(
        "EventJob",
        "How it goes on with a recipient.",
        &[
            has("attemptsMade", NUMBER, "How often it was tried"),
            may("nextAttempt", TIME, "When it is tried again; absent where it is given up"),
        ],
    ),
    schema(
        "Complaint",
        "`messageComplaint`: somebody took the mail for spam (RFC 5965).",
        &[
            has("complaintMessage", ID, "The report"),
            has("arf", Shape::Of("Arf"), "What the report says"),
            may("recipient", TEXT, "Whose complaint it is"),
            may("messageId", TEXT, "The mail's Message-ID, else the one that the report names"),
            may("relayQueueId", ID, "Our name for the submission"),
            may("headers", HEADERS, "The mail's header, else what the report returned"),
            has("capturedBy", CAUGHT, "Where it was caught"),
            may("meta", META, "The mail's X-Rebound-Meta-* fields"),
        ],
    ),
    schema(
        "Arf",
        "What a complaint says.",
        &[
            may("source", TEXT, "Who reports it"),
            may("feedbackType", TEXT, "The kind of complaint, such as `abuse`"),
            may("originalRcptTo", TEXTS, "To whom the mail went"),
            may("arrivalDate", TIME, "When it had arrived there"),
        ],
    ),
    schema(
        "AutoReply",
        "`autoReply`: a machine answered, which is no bounce.",
        &[
            has("message", ID, "The answer"),
            may("from", TEXT, "Its From"),
            may("subject", TEXT, "Its subject"),
            may("messageId", TEXT, "The mail's Message-ID, else the one that the answer names"),
            may("relayQueueId", ID, "Our name for the submission"),
            has("capturedBy", CAUGHT, "Where it was caught"),
            may("meta", META, "The mail's X-Rebound-Meta-* fields"),
        ],
    ),
    schema(
        "MessageClosed",
        "`messageClosed`: nothing waits, and no more news is expected.",
        &[
            has("messageId", TEXT, "Its Message-ID, in angle brackets"),
            has("queueId", ID, "Our name for the submission"),
            has("recipients", Shape::List(&Shape::Of("Recipient")), "What became of each"),
            may("meta", META, "Its X-Rebound-Meta-* fields"),
        ],
    ),
    schema(
        "BounceUnmatched",
        "`bounceUnmatched`: a report that matches no mail.",
        &[
            has("id", ID, "The report"),
            has("date", TIME, "When it arrived"),
            has("capturedBy", CAUGHT, "Where it was caught"),
            has("from", TEXT, "Its reverse-path"),
            has("to", TEXTS, "Its recipients"),
            has("size", NUMBER, "Octets"),
            may("capturedAt", TIME, "When it was captured"),
            may("verdict", VERDICT, "What it is"),
            may("matched", Shape::List(&ID), "Always empty"),
            may("ownNotice", FLAG, "Always false"),
            may("forwardedTo", TEXT, "Where it went on to"),
            has("bounceMessage", ID, "The report, once more"),
            has("recipients", Shape::List(&Shape::Of("UnmatchedRecipient")), "Whom it is about"),
            may("messageId", TEXT, "The Message-ID that the report names"),
            may("messageHeaders", HEADERS, "What the report returned of the mail's header"),
        ],
    ),
    schema(
        "UnmatchedRecipient",
        "What a report that matches no mail says of a recipient.",
        &[
            may("recipient", TEXT, "The address"),
            may("action", ACTION, "What happened"),
            may("status", STATUS, "The enhanced status"),
            may("message", TEXT, "What was answered"),
        ],
    ),
];

/// What webhooks are sent, by event.
pub(super) fn webhooks() -> Value {
    let told = DATA.iter().map(|(event, data)| ((*event).to_owned(), pushed(event, data)));
    Value::Object(told.collect::<Map<_, _>>())
}

fn pushed(event: &str, data: &str) -> Value {
    let body = |whole: &str| {
        let fields = json!({ "event": { "const": event }, "data": reference(data) });
        json!({ "allOf": [reference(whole), { "type": "object", "properties": fields }] })
    };
    json!({ "post": {
        "tags": ["Webhooks"],
        "description": "Sent at least once, to one mail's events in their order; `webhook-id` is \
                        the same each time. Signed as Standard Webhooks has it, and in \
                        `X-EE-Wh-Signature` as EmailEngine does.",
        "requestBody": {
            "required": true,
            "description": "The first form for `format = \"emailengine\"`, the second for `events`.",
            "content": { "application/json": { "schema": {
                "anyOf": [body("WebhookBody"), body("Event")],
            } } },
        },
        "responses": {
            "2XX": { "description": "It is taken" },
            "410": { "description": "Nobody is there any more: nothing more is sent" },
            "default": { "description": "It is sent once more later" },
        },
    } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::routes::routes;
    use crate::mail::EVENT_NAMES;

    /// Holds a value against a schema of the document: its form, and which fields there are.
    fn hold(value: &Value, schema: &Value, document: &Value, at: &str) {
        if let Some(reference) = schema["$ref"].as_str() {
            let found = document.pointer(reference.trim_start_matches('#'));
            return hold(value, found.unwrap(), document, at);
        }
        match schema["type"].as_str() {
            Some("object") => {
                let fields = value.as_object().unwrap_or_else(|| panic!("{at}: {value}"));
                for name in schema["required"].as_array().unwrap_or(&vec![]) {
                    assert!(fields.contains_key(name.as_str().unwrap()), "{at} lacks {name}");
                }
                for (name, value) in fields {
                    let of = schema["properties"].get(name);
                    let of = of.or_else(|| schema.get("additionalProperties"));
                    let of = of.unwrap_or_else(|| panic!("{at}/{name} is not told of"));
                    hold(value, of, document, &format!("{at}/{name}"));
                }
            }
            Some("array") => {
                let items = value.as_array().unwrap_or_else(|| panic!("{at}: {value}"));
                items.iter().for_each(|item| hold(item, &schema["items"], document, at));
            }
            Some("string") => assert!(value.is_string(), "{at}: {value}"),
            Some("integer") => assert!(value.is_u64(), "{at}: {value}"),
            Some("boolean") => assert!(value.is_boolean(), "{at}: {value}"),
            _ => {}
        }
    }

    #[test]
    fn every_event_is_as_the_document_has_it() {
        let document = super::super::document(&routes());
        let golden: Value =
            serde_json::from_str(include_str!("../../view/event/golden.json")).unwrap();
        let golden = golden.as_array().unwrap();
        assert!(DATA.iter().map(|(event, _)| *event).eq(EVENT_NAMES));
        for ((event, data), forms) in DATA.iter().zip(golden) {
            for (form, whole) in [("emailengine", "WebhookBody"), ("events", "Event")] {
                let told = &forms[form];
                assert_eq!(told["event"], *event);
                hold(told, &reference(whole), &document, event);
                hold(&told["data"], &reference(data), &document, event);
            }
        }
    }
}
