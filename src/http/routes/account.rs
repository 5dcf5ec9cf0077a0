//! `/v1/account/{account}/`: sent mails and reports as EmailEngine shows the messages of a
//! mailbox account.

use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Bytes;
use serde_json::Value;
use tokio::io::AsyncReadExt;

use super::place::{PAGE, Place};
use super::stream::Pieces;
use super::{
    ApiError, CURSOR, HttpState, PAGE_SIZE_PARAMETER, answer, look_up, not_found, queue_id,
};
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::QueueId;
use crate::store::record::{Origin, ReportId};
use crate::store::{BodyReader, MessageRecord, ReportRecord, Store, StoreError};
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    let access = Access::Own(Scope::Read);
    vec![
        Route {
            path: "/v1/account/{account}/messages",
            access,
            methods: get(list),
            operations: &[LIST],
        },
        Route {
            path: "/v1/account/{account}/message/{id}",
            access,
            methods: get(one),
            operations: &[ONE],
        },
        Route {
            path: "/v1/account/{account}/message/{id}/source",
            access,
            methods: get(source),
            operations: &[SOURCE],
        },
        Route {
            path: "/v1/account/{account}/text/{id}",
            access,
            methods: get(text),
            operations: &[TEXT],
        },
    ]
}

/// What is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Folder {
    Sent,
    Bounces,
}

/// One entry of a folder.
enum Found {
    Mail(Box<MessageRecord>),
    Report(Box<ReportRecord>),
}

/// `GET /v1/account/{account}/messages`
async fn list(
    State(state): State<HttpState>,
    caller: Caller,
    Path(account): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    caller.asks_of(Some(&account))?;
    let folder = query.word("path", Folder::named)?.unwrap_or(Folder::Sent);
    let place = Place::of(&query)?;
    let page = look_up(&state, move |store| match folder {
        Folder::Sent => sent(store, &account, &place),
        Folder::Bounces => bounced(store, &account, &place),
    });
    Ok(answer(page.await?))
}

/// `GET /v1/account/{account}/message/{id}`
async fn one(
    State(state): State<HttpState>,
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &ONE)?;
    caller.asks_of(Some(&account))?;
    let id = queue_id("id", &id)?;
    let shown = look_up(&state, move |store| {
        Ok(match found(store, &account, id)? {
            Found::Mail(record) => view::listed_whole(&record),
            Found::Report(record) => view::listed_report(&record),
        })
    });
    Ok(answer(shown.await?))
}

/// `GET /v1/account/{account}/message/{id}/source`: the octets, as they are relayed or arrived.
async fn source(
    State(state): State<HttpState>,
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &SOURCE)?;
    caller.asks_of(Some(&account))?;
    let id = queue_id("id", &id)?;
    let found = look_up(&state, move |store| found(store, &account, id)).await?;
    let mail = match found {
        Found::Report(record) => record.received.raw.into_response(),
        Found::Mail(_) => streamed(body(&state, id).await?),
    };
    Ok((super::AS_MAIL, mail).into_response())
}

/// `GET /v1/account/{account}/text/{id}`
async fn text(
    State(state): State<HttpState>,
    caller: Caller,
    Path((account, id)): Path<(String, String)>,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &TEXT)?;
    caller.asks_of(Some(&account))?;
    let bytes_max = query.number("maxBytes", TEXT_BYTES_MAX, 1, TEXT_BYTES_MAX)?;
    let id = queue_id("id", &id)?;
    let found = look_up(&state, move |store| found(store, &account, id)).await?;
    let raw = match found {
        Found::Report(record) => record.received.raw,
        Found::Mail(_) => {
            let mut raw = Vec::new();
            let mut body = body(&state, id).await?.take(READ_BYTES_MAX);
            let read = body.read_to_end(&mut raw).await;
            read.map_err(|_error| ApiError::Internal("a body could not be read"))?;
            raw
        }
    };
    let shown = look_up(&state, move |_store| Ok(view::text(&raw, bytes_max)));
    Ok(answer(shown.await?))
}

/// A page of the mails of an account.
fn sent(store: &Store, account: &str, place: &Place) -> Result<Value, ApiError> {
    let list = |before, max| store.sent(Some(account), before, max);
    let show = |id| Ok(store.message(id)?.ok().map(|record| view::listed(&record)));
    listed(place, store.sent_count(Some(account))?, &list, &show)
}

/// A page of the reports that brought bounces of an account's mails.
fn bounced(store: &Store, account: &str, place: &Place) -> Result<Value, ApiError> {
    let list = |before: Option<QueueId>, max| {
        let ids = store.bounced(account, before.map(ReportId), max)?;
        Ok(ids.into_iter().map(|ReportId(id)| id).collect())
    };
    let show = |id| {
        let record = store.report(ReportId(id))?.ok();
        Ok(record.map(|record| view::listed_report(&record)))
    };
    listed(place, store.bounced_count(account)?, &list, &show)
}

/// A page of what `list` names, as `show` has it. Those that stand before a page which is asked
/// for by its number are passed over.
fn listed(
    place: &Place,
    total: u64,
    list: &dyn Fn(Option<QueueId>, usize) -> Result<Vec<QueueId>, StoreError>,
    show: &dyn Fn(QueueId) -> Result<Option<Value>, StoreError>,
) -> Result<Value, ApiError> {
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    let mut before = place.before(QueueId::parse)?;
    let mut to_skip = place.skipped();
    while to_skip > 0 {
        let skipped = list(before, to_skip.min(SKIPPED_MAX))?;
        let Some(last) = skipped.last() else {
            return Ok(place.page(total, None, Vec::new()));
        };
        before = Some(*last);
        to_skip = to_skip.saturating_sub(skipped.len());
    }
    let ids = list(before, place.page_size)?;
    let next = ids.last().filter(|_last| ids.len() == place.page_size).map(ToString::to_string);
    let mut messages = Vec::with_capacity(ids.len());
    for id in ids {
        messages.extend(show(id)?);
    }
    Ok(place.page(total, next.as_deref(), messages))
}

/// A mail or a report of an account; 404 without it.
fn found(store: &Store, account: &str, id: QueueId) -> Result<Found, ApiError> {
    let missing = match store.message(id)? {
        Ok(record) => {
            let mail = &record.submission;
            if mail.account == account && mail.origin == Origin::App {
                return Ok(Found::Mail(Box::new(record)));
            }
            None
        }
        Err(missing) => Some(missing),
    };
    if let Ok(record) = store.report(ReportId(id))? {
        let matched = record.captured.iter().flat_map(|captured| &captured.matched);
        for queue_id in matched {
            if store.submission(*queue_id)?.is_ok_and(|mail| mail.account == account) {
                return Ok(Found::Report(Box::new(record)));
            }
        }
    }
    Err(not_found("MessageNotFound", "The account has no message with this id", missing))
}

/// The body of a mail, as long as it is kept.
async fn body(state: &HttpState, id: QueueId) -> Result<BodyReader, ApiError> {
    match state.inner.store.body(id).await {
        Ok(body) => Ok(body),
        Err(error) if error.is_not_found() => {
            let message = "The mail has ended, and its body is not kept any longer";
            Err(not_found("MessageBodyPurged", message, None))
        }
        Err(error) => Err(ApiError::Store(error)),
    }
}

/// Sends a body as the client takes it.
fn streamed(mut body: BodyReader) -> Response {
    let (mut pieces, response) = Pieces::of("message/rfc822");
    tokio::spawn(async move {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            match body.read(&mut piece).await {
                Ok(0) => return,
                Ok(len) => {
                    piece.truncate(len);
                    if pieces.send(Bytes::from(piece)).await.is_err() {
                        return;
                    }
                }
                Err(error) => return pieces.abort(&error),
            }
        }
    });
    response
}

impl Folder {
    /// The folder by one of its names, in whatever case.
    fn named(path: &str) -> Option<Self> {
        let is = |name: &&str| name.eq_ignore_ascii_case(path);
        if SENT.iter().any(is) {
            Some(Self::Sent)
        } else {
            BOUNCES.iter().any(is).then_some(Self::Bounces)
        }
    }
}

/// What the folder of sent mails may be called.
const SENT: [&str; 3] = ["INBOX.Sent", "Sent", "\\Sent"];
/// What the folder of reports may be called.
const BOUNCES: [&str; 1] = ["Bounces"];
const FOLDERS: &[&str] = &["INBOX.Sent", "Sent", "\\Sent", "Bounces"];

const LIST: Operation = Operation {
    id: "listMessages",
    path: "/v1/account/{account}/messages",
    group: "Accounts",
    about: "The sent mails of an account, newest first, each with its bounces; or the reports \
            about them, as the folder `Bounces`. Pages shift when mails come; a cursor goes on \
            where the page before it ended.",
    query: &[
        Parameter::new("path", Shape::OneOf(FOLDERS), "The folder: `Sent` unless given"),
        PAGE,
        PAGE_SIZE_PARAMETER,
        CURSOR,
    ],
    answers: &[Answer::ok("A page", &[Content::json("MessagePage")])],
    ..Operation::GET
};

const ONE: Operation = Operation {
    id: "getAccountMessage",
    path: "/v1/account/{account}/message/{id}",
    group: "Accounts",
    about: "A sent mail, or a report about one.",
    answers: &[Answer::ok("The message", &[Content::json("Message")])],
    ..Operation::GET
};

const SOURCE: Operation = Operation {
    id: "getAccountMessageSource",
    path: "/v1/account/{account}/message/{id}/source",
    group: "Accounts",
    about: "Its octets. A sent mail's are there until its last recipient has ended, and as much \
            longer as `retention.bodies` says: then 404 with the code `MessageBodyPurged`.",
    answers: &[Answer::ok("The mail", &[Content::of("message/rfc822", Shape::Octets)])],
    ..Operation::GET
};

const TEXT: Operation = Operation {
    id: "getAccountMessageText",
    path: "/v1/account/{account}/text/{id}",
    group: "Accounts",
    about: "Its text. A sent mail's is there as long as its octets are.",
    query: &[Parameter::new(
        "maxBytes",
        Shape::Between(1, TEXT_BYTES_MAX, Some(TEXT_BYTES_MAX)),
        "Octets of each form",
    )],
    answers: &[Answer::ok("The text", &[Content::json("MessageText")])],
    ..Operation::GET
};

/// Mails that are passed over at a time on the way to a page.
const SKIPPED_MAX: usize = 10_000;
/// Octets of a mail that are read for its text.
const READ_BYTES_MAX: u64 = 8 << 20;
/// Octets of a text.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Octets of a mail that are sent at a time.
const PIECE_BYTES: usize = 65_536;
