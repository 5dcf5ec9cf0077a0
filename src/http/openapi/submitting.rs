//! The objects of submissions and of the queue, field by field.

use super::schemas::{CODE, FLAG, ID, NUMBER, STATE, TEXT, TEXTS, TIME, has, may, schema};
use crate::http::operation::{Schema, Shape};

/// All of them.
pub(super) const SUBMITTING: &[Schema] = &[
    schema(
        "Letter",
        "A mail to be sent; other keys are refused.",
        &[
            may("from", PERSON, "The account's `from` unless given"),
            may("to", PEOPLE, "One object stands for a list of one"),
            may("cc", PEOPLE, "The same"),
            may("bcc", PEOPLE, "The same; in no header field"),
            may("replyTo", PEOPLE, "The same"),
            may("subject", TEXT, "On one line"),
            may("text", TEXT, "The plain text"),
            may("html", TEXT, "The HTML"),
            may("attachments", Shape::List(&Shape::Of("Attachment")), "In this order"),
            may("headers", Shape::Map(&TEXT), "Further fields; a list for one that comes often"),
            may("messageId", TEXT, "Stamped unless given"),
            may("raw", TEXT, "The whole mail in base64, instead of all of these"),
            may("envelope", Shape::Of("LetterEnvelope"), "Whatever the header says"),
            may("sendAt", TIME, "When it is relayed at the earliest"),
            may("deliveryAttempts", Shape::Between(1, 1000, None), "Tries of each recipient"),
            may("dsn", Shape::Of("LetterDsn"), "What is asked of reports (RFC 3461)"),
            may("dryRun", FLAG, "Whether it is only shown"),
        ],
    ),
    schema(
        "Person",
        "A mailbox.",
        &[may("name", TEXT, "Whose it is"), has("address", TEXT, "The address")],
    ),
    schema(
        "Attachment",
        "A file.",
        &[
            may("filename", TEXT, "Its name"),
            has("content", TEXT, "Its octets in base64"),
            may("contentType", TEXT, "application/octet-stream unless given"),
            may("contentDisposition", Shape::OneOf(&["inline", "attachment"]), "How it is shown"),
            may("cid", TEXT, "What the HTML calls it"),
            may("encoding", Shape::OneOf(&["base64"]), "How the content is coded"),
        ],
    ),
    schema(
        "LetterEnvelope",
        "The envelope (RFC 5321).",
        &[may("from", TEXT, "The reverse-path; empty for none"), may("to", TEXTS, "Recipients")],
    ),
    schema(
        "LetterDsn",
        "What is asked of reports (RFC 3461).",
        &[
            may("id", TEXT, "ENVID"),
            may("return", Shape::OneOf(&["headers", "full"]), "RET"),
            may(
                "notify",
                Shape::List(&Shape::OneOf(&["never", "success", "failure", "delay"])),
                "NOTIFY",
            ),
            may("recipient", TEXT, "ORCPT, without its type"),
        ],
    ),
    schema(
        "Submitted",
        "A mail that is taken over, or was before; or one that is only shown.",
        &[
            has("response", Shape::OneOf(&["Queued for delivery", "Dry run"]), "What was done"),
            has("messageId", TEXT, "Its Message-ID, in angle brackets"),
            may("sendAt", TIME, "When it is relayed at the earliest"),
            may("queueId", ID, "Our name for the submission"),
            may("idempotency", Shape::Of("Idempotency"), "Where there is a key"),
            may("preview", TEXT, "The mail in base64, where it is only shown"),
        ],
    ),
    schema(
        "Idempotency",
        "Whether a key was used before.",
        &[
            has("key", TEXT, "The key"),
            has("status", Shape::OneOf(&["MISS", "HIT"]), "HIT where it was"),
        ],
    ),
    schema(
        "Outbox",
        "A page of the queue.",
        &[
            has("total", NUMBER, "Mails in the queue"),
            has("page", NUMBER, "This page; 0 for the first"),
            has("pages", NUMBER, "How many there are"),
            may("cursor", TEXT, "Where the next page begins; absent after the last"),
            has("messages", Shape::List(&Shape::Of("OutboxEntry")), "Newest first"),
        ],
    ),
    schema(
        "OutboxEntry",
        "A mail in the queue.",
        &[
            has("queueId", ID, "Our name for the submission"),
            has("account", TEXT, "Whose it is"),
            has("source", Shape::OneOf(&["smtp", "api", "notice"]), "How it came"),
            has("messageId", TEXT, "Its Message-ID, in angle brackets"),
            has("envelope", Shape::Of("OutboxEnvelope"), "Who it is from and for"),
            may("subject", TEXT, "Its subject, as it stands there"),
            has("created", TIME, "When it was taken over"),
            has("scheduled", TIME, "When it was to be tried first"),
            may("nextAttempt", TIME, "When it is tried next"),
            has("attemptsMade", NUMBER, "How often it was tried"),
            may("attempts", NUMBER, "How often it is tried at most"),
            has("progress", Shape::Of("Progress"), "Where it stands"),
            may("held", FLAG, "Whether it waits to be released"),
            has("size", NUMBER, "Octets"),
            has("recipients", Shape::List(&Shape::Of("OutboxRecipient")), "All recipients"),
        ],
    ),
    schema(
        "OutboxEnvelope",
        "The envelope of a mail in the queue.",
        &[has("from", TEXT, "The reverse-path"), has("to", TEXTS, "All recipients")],
    ),
    schema(
        "Progress",
        "Where a mail in the queue stands.",
        &[
            has("status", Shape::OneOf(&["queued", "processing", "error"]), "In a word"),
            may("error", Shape::Of("ProgressError"), "What went wrong last"),
        ],
    ),
    schema(
        "ProgressError",
        "What went wrong with the last attempt.",
        &[
            may("message", TEXT, "The reply, or what failed"),
            may("statusCode", CODE, "The code of the reply"),
        ],
    ),
    schema(
        "OutboxRecipient",
        "A recipient of a mail in the queue.",
        &[
            has("recipient", TEXT, "The address"),
            has("state", STATE, "What became of it so far"),
            has("attempts", NUMBER, "How often it was tried"),
            may("nextAttempt", TIME, "When it is tried again"),
            may("response", Shape::Of("Reply"), "What was answered last"),
            may("error", TEXT, "What failed, where nothing was answered"),
            may("underWay", FLAG, "Whether it is being tried"),
        ],
    ),
    schema(
        "Canceled",
        "What became of an order to take a mail out of the queue.",
        &[
            has("deleted", FLAG, "Whether anybody was still waiting"),
            may("locked", FLAG, "Whether an attempt is under way"),
            has("queueId", ID, "The submission"),
            may("canceled", TEXTS, "Who is not tried any more"),
            may("underWay", TEXTS, "Who was being tried, and is not tried again"),
        ],
    ),
    schema(
        "Order",
        "What somebody had done with a mail in the queue.",
        &[
            has("date", TIME, "When"),
            has("action", Shape::OneOf(&["cancel", "retry", "hold", "release"]), "What"),
        ],
    ),
];

const PERSON: Shape = Shape::Of("Person");
const PEOPLE: Shape = Shape::List(&PERSON);
