//! The objects of folders and of statistics, field by field.

use super::schemas::{
    ACTION, FLAG, HEADERS, ID, META, NUMBER, STATUS, TEXT, TIME, has, may, schema,
};
use crate::http::operation::{Schema, Shape};

/// Folders of mails and reports.
pub(super) const FOLDERS: &[Schema] = &[
    schema(
        "MessagePage",
        "Messages of a folder, newest first.",
        &[
            has("total", NUMBER, "Messages of the folder"),
            has("page", NUMBER, "The number of the page, from 0 on"),
            has("pages", NUMBER, "How many there are"),
            may("cursor", TEXT, "Where the next page begins; absent after the last"),
            has("messages", Shape::List(&Shape::Of("Message")), "The messages"),
        ],
    ),
    schema(
        "Message",
        "A sent mail, or a report about one, as EmailEngine lists messages.",
        &[
            has("id", ID, "Its name: the queue id of a mail, the id of a report"),
            has("uid", NUMBER, "A number; later messages have larger ones"),
            has("date", TIME, "When it was taken over, or arrived"),
            has("size", NUMBER, "Octets"),
            may("subject", TEXT, "Its subject, decoded"),
            may("from", Shape::Of("Contact"), "The first address of From"),
            may("replyTo", Shape::List(&Shape::Of("Contact")), "Reply-To"),
            may("to", Shape::List(&Shape::Of("Contact")), "To"),
            may("cc", Shape::List(&Shape::Of("Contact")), "Cc"),
            may("messageId", TEXT, "Its Message-ID, in angle brackets"),
            may("inReplyTo", TEXT, "In-Reply-To"),
            has("text", Shape::Of("TextName"), "What its text is asked for by"),
            may("account", TEXT, "Whose mail it is"),
            may("states", Shape::Map(&NUMBER), "How many recipients are in each state"),
            may("meta", META, "Its X-Rebound-Meta-* fields"),
            may("bounces", Shape::List(&Shape::Of("MessageBounce")), "Only where there are any"),
            may("headers", HEADERS, "Its header, where one mail was asked for"),
        ],
    ),
    schema(
        "Contact",
        "A name and an address.",
        &[has("name", TEXT, "May be empty"), has("address", TEXT, "May be empty")],
    ),
    schema("TextName", "Names a text.", &[has("id", ID, "For the text's own path")]),
    schema(
        "MessageBounce",
        "A bounce beside its mail.",
        &[
            may("message", ID, "The report; absent for a refusal in the conversation"),
            has("recipient", TEXT, "The address"),
            has("action", ACTION, "What happened: failed"),
            has("response", Shape::Of("MessageBounceResponse"), "What was answered"),
            has("date", TIME, "When it was captured"),
        ],
    ),
    schema(
        "MessageBounceResponse",
        "What was answered.",
        &[may("message", TEXT, "The words"), may("status", STATUS, "The enhanced status")],
    ),
    schema(
        "MessageText",
        "The text of a message.",
        &[
            may("plain", TEXT, "As text"),
            may("html", TEXT, "As HTML, as its writer left it"),
            has("hasMore", FLAG, "Whether it was cut"),
        ],
    ),
];

/// What became of mails.
pub(super) const STATS: &[Schema] = &[
    schema(
        "Stats",
        "What became of mails, and what bounced, in a window of time.",
        &[
            has("since", TIME, "From then on"),
            has("until", TIME, "Before then"),
            has("recipients", Shape::Of("StateCounts"), "Recipients of mails of the window"),
            has("bounces", Shape::Of("CategoryCounts"), "Bounces that were captured in it"),
            has("domains", Shape::List(&Shape::Of("DomainCount")), "Those that bounced most"),
            may("queue", NUMBER, "Mails in the queue now; absent for one account"),
        ],
    ),
    schema(
        "StateCounts",
        "Recipients by state.",
        &[
            has("total", NUMBER, "All"),
            has("states", Shape::Map(&NUMBER), "By state"),
            has(
                "days",
                Shape::List(&Shape::Of("StateDay")),
                "By the day of the mail, oldest first",
            ),
            may("countedFrom", TIME, "Older ones are not counted; absent where all are"),
        ],
    ),
    schema(
        "StateDay",
        "Recipients of a day's mails.",
        &[has("date", TEXT, "As 2022-10-12, UTC"), has("states", Shape::Map(&NUMBER), "By state")],
    ),
    schema(
        "CategoryCounts",
        "Bounces by category.",
        &[
            has("total", NUMBER, "All"),
            has("categories", Shape::Map(&NUMBER), "By category"),
            has("days", Shape::List(&Shape::Of("CategoryDay")), "By day, oldest first"),
            may("countedFrom", TIME, "Older ones are not counted; absent where all are"),
        ],
    ),
    schema(
        "CategoryDay",
        "Bounces of a day.",
        &[
            has("date", TEXT, "As 2022-10-12, UTC"),
            has("categories", Shape::Map(&NUMBER), "By category"),
        ],
    ),
    schema(
        "DomainCount",
        "Bounces of a domain.",
        &[has("domain", TEXT, "The domain"), has("count", NUMBER, "How many")],
    ),
];
