//! The objects that answers are made of, field by field, as `view` writes them.
//!
//! What is not listed here is not promised.

use serde_json::{Value, json};

use super::happened::HAPPENED;
use super::listing::{FOLDERS, STATS};
use super::submitting::SUBMITTING;
use super::telling::{EVENTS, WEBHOOKS};
use crate::bounce::{Action, RecommendedAction};
use crate::http::operation::{Field, Schema, Shape};
use crate::http::routes::{CAPTURED_BY, QUEUE_ID_PATTERN, categories, faults};
use crate::store::state::State;

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Schema> {
    let groups = [
        ERROR,
        SUBMITTING,
        MAILS,
        FOLDERS,
        STATS,
        BOUNCES,
        REPORTS,
        EVENTS,
        HAPPENED,
        SUPPRESSIONS,
        MAILBOXES,
        WEBHOOKS,
        OPERATION,
    ];
    groups.into_iter().flatten()
}

/// What a parameter in a path looks like.
pub(super) fn of_path_parameter(name: &str) -> Value {
    match name {
        "queueId" | "reportId" => json!({ "type": "string", "pattern": QUEUE_ID_PATTERN }),
        _ => json!({ "type": "string", "minLength": 1 }),
    }
}

pub(super) const TEXT: Shape = Shape::Text;
pub(super) const TEXTS: Shape = Shape::List(&Shape::Text);
pub(super) const TIME: Shape = Shape::Time;
pub(super) const FLAG: Shape = Shape::Flag;
pub(super) const NUMBER: Shape = Shape::Number;
pub(super) const ID: Shape = Shape::Pattern(QUEUE_ID_PATTERN);
const IDS: Shape = Shape::List(&ID);
pub(super) const HEADERS: Shape = Shape::Map(&TEXTS);
pub(super) const META: Shape = Shape::Map(&TEXT);
pub(super) const STATUS: Shape = Shape::Pattern("^[245]\\.[0-9]{1,3}\\.[0-9]{1,3}$");
pub(super) const CODE: Shape = Shape::Between(100, 999, None);
pub(super) const ACTION: Shape = Shape::Words(actions);
pub(super) const STATE: Shape = Shape::Words(states);
const STAGE: Shape =
    Shape::OneOf(&["connect", "tls", "greeting", "auth", "mail", "rcpt", "data", "end"]);
const METHOD: Shape = Shape::OneOf(&[
    "conversation",
    "token",
    "envelope-id",
    "message-id",
    "alias",
    "rebound-id",
    "remote-queue-id",
    "references",
    "recipient",
]);
pub(super) const VERDICT: Shape =
    Shape::OneOf(&["bounce", "delayed", "delivered", "complaint", "autoreply", "mdn", "other"]);
pub(super) const CAUGHT: Shape = Shape::OneOf(CAPTURED_BY);

pub(super) const fn has(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, shape, is_always: true, about }
}

pub(super) const fn may(name: &'static str, shape: Shape, about: &'static str) -> Field {
    Field { name, shape, is_always: false, about }
}

pub(super) const fn schema(
    name: &'static str,
    about: &'static str,
    fields: &'static [Field],
) -> Schema {
    Schema { name, about, fields }
}

fn states() -> Vec<&'static str> {
    State::ALL.map(State::as_str).to_vec()
}

fn actions() -> Vec<&'static str> {
    Action::ALL.map(Action::as_str).to_vec()
}

fn recommended_actions() -> Vec<&'static str> {
    RecommendedAction::ALL.iter().map(|action| action.as_str()).collect()
}

const ERROR: &[Schema] = &[
    schema(
        "Error",
        "Why it could not be done.",
        &[
            has("statusCode", CODE, "The status of the answer"),
            has("error", TEXT, "Its name"),
            has("message", TEXT, "What went wrong, for a person"),
            has("code", TEXT, "What went wrong, for a program"),
            may("reason", Shape::OneOf(&["never_seen", "purged"]), "Why nothing is found"),
            may("fields", Shape::List(&Shape::Of("WrongField")), "Every parameter that is wrong"),
        ],
    ),
    schema(
        "WrongField",
        "A parameter that is wrong.",
        &[has("message", TEXT, "What is wrong with it"), has("key", TEXT, "Its name")],
    ),
];

const MAILS: &[Schema] = &[
    schema(
        "Lookup",
        "What became of a mail.",
        &[
            has("messageId", TEXT, "Its Message-ID, in angle brackets"),
            has("queueId", ID, "Our name for the submission"),
            has("account", TEXT, "Whose it is"),
            has("date", TIME, "When it was taken over"),
            has("closed", FLAG, "Whether nothing waits and no bounce is expected any more"),
            has("recipients", Shape::List(&Shape::Of("Recipient")), "In the order of the envelope"),
            has("bounces", Shape::List(&Shape::Of("Bounce")), "Oldest first"),
            may("aliases", TEXTS, "Message-IDs that next hops gave it instead of its own"),
            may("meta", META, "Its X-Rebound-Meta-* fields"),
            may("aliasOf", TEXT, "Its own Message-ID, where an alias was asked for"),
            may("submissions", Shape::List(&Shape::Of("Lookup")), "All that have this id"),
        ],
    ),
    schema(
        "Recipient",
        "What became of a recipient.",
        &[
            has("recipient", TEXT, "The address"),
            has("state", STATE, "What became of it"),
            has("attempts", NUMBER, "How often it was tried"),
            may("lastAttempt", TIME, "When it was tried last"),
            may("nextAttempt", TIME, "When it is tried again"),
            may("response", Shape::Of("Reply"), "What was answered last"),
            may("error", TEXT, "What failed, where nothing was answered"),
            may("remoteQueueId", TEXT, "The next hop's queue id of the mail"),
        ],
    ),
    schema(
        "Reply",
        "What a server answered.",
        &[
            has("message", TEXT, "The whole reply"),
            may("status", STATUS, "Its enhanced status"),
            has("code", CODE, "Its code"),
        ],
    ),
    schema(
        "Timeline",
        "Everything that is known of a mail.",
        &[
            has("messageId", TEXT, "Its Message-ID, in angle brackets"),
            has("queueId", ID, "Our name for the submission"),
            has("account", TEXT, "Whose it is"),
            has("date", TIME, "When it was taken over"),
            has("closed", FLAG, "Whether nothing waits and no bounce is expected any more"),
            has("final", FLAG, "Whether every recipient has ended"),
            has("version", NUMBER, "Grows with all that becomes known"),
            has("from", TEXT, "The reverse-path, in angle brackets"),
            has("size", NUMBER, "Octets"),
            has("origin", Shape::OneOf(&["app", "notice"]), "Who wrote it"),
            may("client", TEXT, "Where it came from"),
            has("returnPath", Shape::OneOf(&["preserve", "verp", "plus"]), "What it leaves with"),
            may("dsn", Shape::Of("MailDsn"), "What was asked of reports"),
            has("recipients", Shape::List(&Shape::Of("TimelineRecipient")), "All recipients"),
            has("bounces", Shape::List(&Shape::Of("Bounce")), "Oldest first"),
            has("deliveryReports", Shape::List(&Shape::Of("Bounce")), "News that are no bounces"),
            has("reports", Shape::List(&Shape::Of("ReportSummary")), "What came back about it"),
            has("messageHeaders", HEADERS, "Its header: lower-case names, values in order"),
            may("aliases", TEXTS, "Message-IDs that next hops gave it instead of its own"),
            may("sendAt", TIME, "When it was to be sent"),
            may("deliveryAttempts", NUMBER, "How often it is tried at most"),
            may("orders", Shape::List(&Shape::Of("Order")), "What people had done with it"),
            may("meta", META, "Its X-Rebound-Meta-* fields"),
            may("aliasOf", TEXT, "Its own Message-ID, where an alias was asked for"),
            may("webhooks", Shape::List(&Shape::Of("TimelineDelivery")), "What others were told"),
            may("moreWebhooks", FLAG, "Whether `webhooks` leaves out what is older"),
            may("otherSubmissions", Shape::List(&Shape::Of("Submission")), "Older ones of the id"),
        ],
    ),
    schema(
        "TimelineRecipient",
        "A recipient with every attempt.",
        &[
            has("recipient", TEXT, "The address"),
            has("state", STATE, "What became of it"),
            has("attempts", Shape::List(&Shape::Of("Attempt")), "Every try, oldest first"),
            may("lastAttempt", TIME, "When it was tried last"),
            may("nextAttempt", TIME, "When it is tried again"),
            may("response", Shape::Of("Reply"), "What was answered last"),
            may("error", TEXT, "What failed, where nothing was answered"),
            may("remoteQueueId", TEXT, "The next hop's queue id of the mail"),
            may("dsn", Shape::Of("RecipientDsn"), "What was asked of reports"),
        ],
    ),
    schema(
        "Attempt",
        "One try to hand a recipient to the next hop.",
        &[
            has("number", NUMBER, "1 for the first"),
            has("date", TIME, "When it began"),
            has("ended", TIME, "When its outcome was known"),
            has("stage", STAGE, "How far the conversation came"),
            has("command", TEXT, "The command that was answered"),
            may("mta", TEXT, "The next hop, as name[address]:port"),
            may("tls", TEXT, "The TLS version and cipher"),
            may("response", Shape::Of("Reply"), "What was answered"),
            may("error", TEXT, "What failed, where nothing was answered"),
            may("remoteQueueId", TEXT, "The next hop's queue id of the mail"),
            may("alias", TEXT, "The Message-ID that the next hop gave the mail"),
            has("decision", STATE, "What follows from it"),
            may("nextAttempt", TIME, "When it is tried again"),
        ],
    ),
    schema(
        "MailDsn",
        "What MAIL asked of reports (RFC 3461).",
        &[may("id", TEXT, "ENVID"), may("return", Shape::OneOf(&["full", "headers"]), "RET")],
    ),
    schema(
        "RecipientDsn",
        "What RCPT asked of reports (RFC 3461).",
        &[
            may(
                "notify",
                Shape::List(&Shape::OneOf(&["never", "success", "failure", "delay"])),
                "NOTIFY",
            ),
            may("originalRecipient", TEXT, "ORCPT, without its type"),
        ],
    ),
    schema(
        "Submission",
        "A submission by its names.",
        &[
            has("queueId", ID, "Our name for it"),
            has("account", TEXT, "Whose it is"),
            has("date", TIME, "When it was taken over"),
        ],
    ),
];

const BOUNCES: &[Schema] = &[
    schema(
        "Bounce",
        "What one source says of one recipient: a bounce, or news of a delivery.",
        &[
            may("bounceMessage", ID, "The report; absent for a refusal in the conversation"),
            has("recipient", TEXT, "The address, as the app gave it"),
            has("action", ACTION, "What happened"),
            has("response", Shape::Of("BounceResponse"), "What was answered"),
            may("mta", TEXT, "The remote MTA, else the reporting one"),
            may("queueId", TEXT, "The reporting MTA's queue id"),
            may("messageId", TEXT, "The mail's Message-ID, else the one that the report names"),
            may("messageHeaders", HEADERS, "The mail's header, else what the report returned"),
            has("id", Shape::Pattern("^[0-9a-f]{20}$"), "Its name"),
            has("date", TIME, "When it was captured"),
            has("capturedBy", CAUGHT, "Where it was caught"),
            may("match", Shape::Of("Match"), "How it was tied to the mail"),
            may("originalMessageId", TEXT, "The Message-ID that the report names"),
            may("envelopeId", TEXT, "Original-Envelope-Id"),
            may("finalRecipient", TEXT, "The address that failed in the end"),
            may("originalRecipient", TEXT, "The address as the report says it was given"),
            may("relayQueueId", ID, "Our queue id of the mail"),
            may("meta", META, "The mail's X-Rebound-Meta-* fields"),
        ],
    ),
    schema(
        "BounceResponse",
        "What was answered, and what it means.",
        &[
            has("source", TEXT, "Who speaks: smtp, or the type of the diagnostic"),
            may("message", TEXT, "The words"),
            may("status", STATUS, "The enhanced status"),
            may("category", Shape::Words(categories), "What kind of failure it is"),
            may("recommendedAction", Shape::Words(recommended_actions), "What had better be done"),
            may("blocklist", Shape::Of("Blocklist"), "The list that was named"),
            may("retryAfter", NUMBER, "Seconds after which to try again"),
            may("code", CODE, "The code"),
            may("command", TEXT, "The command that was answered"),
            may("fault", Shape::Words(faults), "Whose fault it is"),
        ],
    ),
    schema(
        "Blocklist",
        "A list of senders.",
        &[
            has("name", TEXT, "Its name"),
            has("type", Shape::OneOf(&["ip", "domain"]), "What it lists"),
        ],
    ),
    schema(
        "Match",
        "How a report was tied to its mail.",
        &[
            has("method", METHOD, "By what"),
            has("confidence", Shape::OneOf(&["low", "high", "certain"]), "How sure that is"),
            may("changesState", FLAG, "Whether a guess changes the state all the same"),
        ],
    ),
    schema(
        "BouncePage",
        "Bounces, newest first.",
        &[
            may("recipient", TEXT, "The address that was asked for"),
            has("bounces", Shape::List(&Shape::Of("Bounce")), "What fits"),
            may("cursor", TEXT, "Where the next page begins; absent after the last"),
        ],
    ),
];

const REPORTS: &[Schema] = &[
    schema(
        "ReportSummary",
        "A report in a list.",
        &[
            has("id", ID, "Its name"),
            has("date", TIME, "When it arrived"),
            has("capturedBy", CAUGHT, "Where"),
            has("from", TEXT, "The reverse-path it came with"),
            has("to", TEXTS, "The addresses it came for"),
            has("size", NUMBER, "Octets"),
            may("capturedAt", TIME, "When it was read"),
            may("verdict", VERDICT, "What it is"),
            may("matched", IDS, "The submissions that it is about"),
            may("ownNotice", FLAG, "Whether it is our own notice come back"),
            may("forwardedTo", TEXT, "Where it went on to"),
        ],
    ),
    schema(
        "Report",
        "A report, what was read from it, and what came of it.",
        &[
            has("id", ID, "Its name"),
            has("date", TIME, "When it arrived"),
            has("capturedBy", CAUGHT, "Where"),
            has("from", TEXT, "The reverse-path it came with"),
            has("to", TEXTS, "The addresses it came for"),
            has("size", NUMBER, "Octets"),
            may("known", FLAG, "Whether one that was given had been captured before"),
            may("capturedAt", TIME, "When it was read"),
            may("verdict", VERDICT, "What it is"),
            may("matched", IDS, "The submissions that it is about"),
            may("ownNotice", FLAG, "Whether it is our own notice come back"),
            may("forwardedTo", TEXT, "Where it went on to"),
            may("messageId", TEXT, "Its own Message-ID"),
            has("report", Shape::Of("Said"), "What it says"),
            has("original", Shape::Of("Original"), "What it returned of the mail"),
            has("defects", TEXTS, "What is broken in it"),
            has("why", Shape::List(&Shape::Of("Why")), "Which rule read which fact"),
            has("bounces", Shape::List(&Shape::Of("Bounce")), "What came of it"),
        ],
    ),
    schema(
        "Said",
        "What a report says.",
        &[
            may("reportingMta", TEXT, "Who reports"),
            may("arrivalDate", TIME, "When the mail had arrived there"),
            may("envelopeId", TEXT, "Original-Envelope-Id"),
            may("queueId", TEXT, "The reporting MTA's queue id"),
            may("feedbackType", TEXT, "The kind of complaint"),
            has("recipients", Shape::List(&Shape::Of("SaidRecipient")), "Of each recipient"),
        ],
    ),
    schema(
        "SaidRecipient",
        "What a report says of one recipient.",
        &[
            has("finalRecipient", TEXT, "Final-Recipient"),
            may("originalRecipient", TEXT, "Original-Recipient"),
            has("action", ACTION, "Action"),
            may("status", STATUS, "Status"),
            may("code", CODE, "The code of the reply"),
            may("diagnostic", Shape::Of("Diagnostic"), "Diagnostic-Code"),
            may("remoteMta", TEXT, "Remote-MTA"),
            may("command", TEXT, "The command that was answered"),
            may("willRetryUntil", TIME, "Will-Retry-Until"),
        ],
    ),
    schema(
        "Diagnostic",
        "The words of another system.",
        &[may("type", TEXT, "Their type"), has("text", TEXT, "The words")],
    ),
    schema(
        "Original",
        "What a report returned of the mail.",
        &[
            may("messageId", TEXT, "Its Message-ID"),
            may("queueId", ID, "Its X-Rebound-Id"),
            may("headers", HEADERS, "Its header"),
        ],
    ),
    schema(
        "Why",
        "What a fact was read by.",
        &[has("fact", TEXT, "The fact"), has("rule", TEXT, "The rule")],
    ),
    schema(
        "ReportPage",
        "Reports, newest first.",
        &[
            has("reports", Shape::List(&Shape::Of("ReportSummary")), "The reports"),
            may("cursor", TEXT, "Where the next page begins; absent after the last"),
        ],
    ),
    schema(
        "DifferencePage",
        "What stored reports say when they are read again.",
        &[
            has("read", NUMBER, "Reports that were read again"),
            has("reports", Shape::List(&Shape::Of("Difference")), "Those that say otherwise now"),
            may("cursor", TEXT, "Where the next page begins; absent after the last"),
        ],
    ),
    schema(
        "Difference",
        "A report that says otherwise now.",
        &[
            has("id", ID, "The report"),
            has("date", TIME, "When it arrived"),
            may("verdict", Shape::Of("VerdictChange"), "What it is"),
            may("newlyMatched", IDS, "Submissions that it was not tied to before"),
            has("recipients", Shape::List(&Shape::Of("RecipientChange")), "Of each recipient"),
            has("written", FLAG, "Whether it was recorded"),
        ],
    ),
    schema(
        "VerdictChange",
        "What a report was taken for.",
        &[has("was", VERDICT, "Then"), has("now", VERDICT, "Now")],
    ),
    schema(
        "RecipientChange",
        "What is said of a recipient.",
        &[
            has("recipient", TEXT, "The address"),
            has("change", Shape::OneOf(&["added", "revised", "withdrawn"]), "What has changed"),
            may("was", Shape::Of("SaidOfRecipient"), "What was said then"),
            may("now", Shape::Of("SaidOfRecipient"), "What is said now"),
        ],
    ),
    schema(
        "SaidOfRecipient",
        "What a reading says of a recipient.",
        &[
            has("action", ACTION, "What happened"),
            may("status", STATUS, "The enhanced status"),
            may("code", CODE, "The code"),
            has("category", Shape::Words(categories), "What kind of failure it is"),
            may("message", TEXT, "The words"),
            may("queueId", ID, "Our queue id of the mail"),
            may("match", Shape::Of("Match"), "How it was tied to the mail"),
        ],
    ),
];

const SUPPRESSIONS: &[Schema] = &[
    schema(
        "SuppressionPage",
        "A page of addresses.",
        &[
            has("suppressions", Shape::List(&Shape::Of("Suppression")), "The addresses"),
            may("cursor", TEXT, "Where the next page begins"),
        ],
    ),
    schema(
        "Suppression",
        "What speaks against writing to an address.",
        &[
            has("account", TEXT, "Whose mail it is about"),
            has("recipient", TEXT, "The address, in lower case"),
            has("suppressed", FLAG, "Whether it is enough to refuse it"),
            has("hardBounces", NUMBER, "Bounces that said that there is no such address"),
            has("softBounces", NUMBER, "Bounces that said that its mailbox takes nothing now"),
            has("since", TIME, "When the first came, or it was put here"),
            has("last", TIME, "When the last came"),
            may("expires", TIME, "When it ends unless more come"),
            has("byHand", FLAG, "Whether somebody has put it here"),
            may("reason", TEXT, "Why, in his words"),
            may("bounce", TEXT, "The last bounce"),
            may("category", Shape::Words(categories), "What that was taken for"),
            may("message", TEXT, "What that said"),
            has("hits", NUMBER, "Mails to it, since the start, while it was suppressed"),
        ],
    ),
    schema(
        "SuppressionGiven",
        "An address that nothing more is to be sent to.",
        &[
            has("recipient", TEXT, "The address"),
            may("account", TEXT, "For mail of this account; `default` without it"),
            may("reason", TEXT, "Why"),
            may("until", TIME, "Until when; for good without it"),
        ],
    ),
    schema(
        "SuppressionsAdded",
        "What became of a table.",
        &[
            has("added", NUMBER, "Lines that were added"),
            has("skipped", NUMBER, "Lines that say that the address is not suppressed"),
        ],
    ),
    schema(
        "SuppressionRemoved",
        "An address that nothing speaks against any more.",
        &[
            has("account", TEXT, "Of mail of this account"),
            has("recipient", TEXT, "The address"),
            has("removed", FLAG, "Always `true`"),
        ],
    ),
];

const MAILBOXES: &[Schema] = &[
    schema(
        "Mailboxes",
        "All mailboxes.",
        &[has("mailboxes", Shape::List(&Shape::Of("Mailbox")), "In the order of the settings")],
    ),
    schema(
        "Mailbox",
        "How a mailbox is doing.",
        &[
            has("name", TEXT, "Its name in the settings"),
            has(
                "state",
                Shape::OneOf(&[
                    "init",
                    "connecting",
                    "syncing",
                    "connected",
                    "authenticationError",
                    "connectError",
                    "disconnected",
                ]),
                "What is being done with it",
            ),
            has("since", TIME, "Since when"),
            may("lastPoll", TIME, "When all folders had been looked at last"),
            may("lastError", Shape::Of("MailboxError"), "What went wrong last"),
            has("folders", TEXTS, "The folders that are read"),
            has("counts", Shape::Of("MailboxCounts"), "What was done since the start"),
        ],
    ),
    schema(
        "MailboxError",
        "What went wrong.",
        &[has("date", TIME, "When"), has("message", TEXT, "What")],
    ),
    schema(
        "MailboxCounts",
        "What was done with mails since the daemon started.",
        &[
            has("seen", NUMBER, "Looked at"),
            has("read", NUMBER, "Fetched"),
            has("captured", NUMBER, "Captured"),
            has("known", NUMBER, "Known before"),
            has("unreadable", NUMBER, "Passed over"),
            has("errors", NUMBER, "Failures"),
        ],
    ),
    schema(
        "MailboxPolled",
        "A mailbox is looked at.",
        &[has("name", TEXT, "Its name"), has("polled", FLAG, "Always true")],
    ),
];

const OPERATION: &[Schema] = &[schema(
    "Health",
    "Whether all is well.",
    &[
        has("status", Shape::OneOf(&["ok", "failing"]), "All together"),
        has("store", Shape::OneOf(&["ok", "full", "failing"]), "Whether mail is taken"),
        has("queue", Shape::OneOf(&["ok", "stuck"]), "Whether due mails are tried"),
    ],
)];
