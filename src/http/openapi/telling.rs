//! The objects of what is told: events, and the webhooks that they go to, field by field.

use super::happened::ANY_DATA;
use super::schemas::{FLAG, ID, META, NUMBER, TEXT, TEXTS, TIME, has, may, schema};
use crate::http::operation::{Schema, Shape};
use crate::mail::EVENT_NAMES;

/// What has happened.
pub(super) const EVENTS: &[Schema] = &[
    schema(
        "EventPage",
        "Events, oldest first.",
        &[
            has("events", Shape::List(&Shape::Of("Event")), "What has happened"),
            has("cursor", TEXT, "Where the next page begins, also where nothing is there yet"),
            has("more", FLAG, "Whether something is there already"),
        ],
    ),
    schema(
        "Event",
        "What has happened.",
        &[
            has("id", TEXT, "Its name, the same whenever it is told"),
            may("account", TEXT, "Whose mail it is about"),
            has("date", TIME, "When it happened"),
            has("event", Shape::OneOf(&EVENT_NAMES), "Its kind"),
            has("data", ANY_DATA, "What happened, as webhooks say it"),
            may("message", Shape::Of("EventMessage"), "The mail as it was taken over"),
        ],
    ),
    schema(
        "EventMessage",
        "A mail as it was taken over.",
        &[
            has("queueId", ID, "Our name for the submission"),
            has("messageId", TEXT, "Its Message-ID, in angle brackets"),
            has("date", TIME, "When it was taken over"),
            has("from", TEXT, "The reverse-path, in angle brackets"),
            has("recipients", TEXTS, "In the order of the envelope"),
            may("subject", TEXT, "Its subject, as it stands in the header"),
            has("size", NUMBER, "Octets"),
            may("meta", META, "Its X-Rebound-Meta-* fields"),
        ],
    ),
];

/// Who is told of it.
pub(super) const WEBHOOKS: &[Schema] = &[
    schema(
        "Webhooks",
        "All webhooks.",
        &[has("webhooks", Shape::List(&Shape::Of("Webhook")), "In the order of the settings")],
    ),
    schema(
        "Webhook",
        "How a webhook is doing.",
        &[
            has("name", TEXT, "Its name in the settings"),
            has("url", TEXT, "Where it leads, without what is secret in it"),
            has("state", Shape::OneOf(&["active", "failing", "disabled"]), "How it is doing"),
            has("format", Shape::OneOf(&["emailengine", "events"]), "The form of what it is told"),
            may("events", Shape::List(&Shape::OneOf(&EVENT_NAMES)), "What it is told; else all"),
            may("accounts", TEXTS, "Of whose mails it is told; else of all"),
            has("cursor", TEXT, "How far it has come in the feed"),
            has("waiting", NUMBER, "Deliveries that wait or fail"),
            has("failing", NUMBER, "Those of them that have been tried"),
            has("givenUp", NUMBER, "Deliveries that were given up and are still listed"),
            may("disabledAt", TIME, "When the other side said that it is gone"),
            may("lastSuccess", TIME, "When an event was taken last"),
            may("lastError", Shape::Of("MailboxError"), "What went wrong last"),
            may("deliveries", Shape::List(&Shape::Of("Delivery")), "Only where one was asked for"),
        ],
    ),
    schema(
        "Delivery",
        "An event on its way to a webhook.",
        &[
            has("id", TEXT, "Names it, for a replay"),
            may("event", Shape::OneOf(&EVENT_NAMES), "The kind of event"),
            has("state", Shape::OneOf(&["waiting", "failing", "givenUp"]), "How it is doing"),
            may("queueId", TEXT, "The mail that it is about"),
            has("attempts", NUMBER, "How often it was tried"),
            may("firstAttempt", TIME, "When it was tried first"),
            may("nextAttempt", TIME, "When it is tried next"),
            may("givenUpAt", TIME, "When it was given up"),
            may("error", TEXT, "Why it has not been taken"),
        ],
    ),
    schema(
        "TimelineDelivery",
        "What a webhook was told of a mail, or is to be told.",
        &[
            has("webhook", TEXT, "Its name in the settings"),
            has("id", TEXT, "The event, by its id: the same as `webhook-id` and in /v1/events"),
            may("event", Shape::OneOf(&EVENT_NAMES), "Its kind"),
            has("state", Shape::OneOf(&["taken", "givenUp", "waiting"]), "What became of it"),
            has("attempts", NUMBER, "How often it was tried"),
            may("date", TIME, "When it was taken or given up"),
            may("status", NUMBER, "The status of the last answer"),
            may("took", NUMBER, "Milliseconds of the last attempt"),
            may("error", TEXT, "What went wrong in the last attempt that failed"),
            may("nextAttempt", TIME, "When it is tried next; not while the webhook is disabled"),
        ],
    ),
    schema(
        "WebhookReplayed",
        "Events are delivered once more.",
        &[
            has("name", TEXT, "The webhook"),
            has("queued", NUMBER, "How many"),
            has("more", FLAG, "Whether there was no room for all"),
            has("cursor", TEXT, "Where to go on"),
        ],
    ),
    schema(
        "WebhookTested",
        "What came of a test.",
        &[
            has("name", TEXT, "The webhook"),
            has("delivered", FLAG, "Whether it was taken"),
            has("took", NUMBER, "Milliseconds"),
            may("status", NUMBER, "The status of the answer"),
            may("error", TEXT, "Why it was not taken"),
        ],
    ),
    schema(
        "WebhookEnabled",
        "A webhook goes on.",
        &[has("name", TEXT, "Its name"), has("enabled", FLAG, "Always true")],
    ),
];
