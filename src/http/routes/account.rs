//! `/v1/account/{account}/`: sent mails and reports as EmailEngine shows the messages of a
//! mailbox account.

use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Bytes;
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt;

use super::search::Accounts;
use super::stream::Pieces;
use super::{
    ApiError, CURSOR, HttpState, PAGE_SIZE, PAGE_SIZE_MAX, PAGE_SIZE_PARAMETER, answer, look_up,
    not_found, queue_id,
};
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::QueueId;
use crate::store::record::{Bounce, BounceId, Origin, ReportId};
use crate::store::{BodyReader, MessageRecord, Range, ReportRecord, Store, StoreError};
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

/// Where a page begins: its number, and behind what, where that is known.
#[derive(Clone, Debug)]
struct Place {
    page: usize,
    before: Option<String>,
}

/// `GET /v1/account/{account}/messages`
async fn list(
    State(state): State<HttpState>,
    caller: Caller,
    Path(account): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    own(&caller, &account)?;
    let folder = query.word("path", Folder::named)?.unwrap_or(Folder::Sent);
    let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
    let page = query.number("page", 0, 0, PAGE_MAX)?;
    let place = match query.value("cursor") {
        Some(text) => Place::parse(text).ok_or_else(bad_cursor)?,
        None => Place { page, before: None },
    };
    let page = look_up(&state, move |store| match folder {
        Folder::Sent => sent(store, &account, &place, page_size),
        Folder::Bounces => bounced(store, &account, &place, page_size),
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
    own(&caller, &account)?;
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
    own(&caller, &account)?;
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
    own(&caller, &account)?;
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

/// Refuses who is not to know of the account.
fn own(caller: &Caller, account: &str) -> Result<(), ApiError> {
    if caller.may_see(account) {
        return Ok(());
    }
    Err(ApiError::Forbidden("The token is for another account".to_owned()))
}

/// A page of the mails of an account.
fn sent(store: &Store, account: &str, place: &Place, page_size: usize) -> Result<Value, ApiError> {
    let total = usize::try_from(store.sent_count(Some(account))?).unwrap_or(usize::MAX);
    let before = place.before.as_deref();
    let before = before.map(|id| QueueId::parse(id).ok_or_else(bad_cursor)).transpose()?;
    let before = match before {
        Some(before) => Some(before),
        None => match behind(store, account, place.page.saturating_mul(page_size))? {
            Some(before) => before,
            None => return Ok(page(total, place, page_size, None, Vec::new())),
        },
    };
    let ids = store.sent(Some(account), before, page_size)?;
    let next = ids.last().filter(|_last| ids.len() == page_size).map(ToString::to_string);
    let mut messages = Vec::with_capacity(ids.len());
    for id in ids {
        messages.extend(store.message(id)?.ok().map(|record| view::listed(&record)));
    }
    Ok(page(total, place, page_size, next, messages))
}

/// What stands behind so many mails of an account: what comes before the last of them, or all
/// where there are none to pass over; `None` where there are not so many.
fn behind(
    store: &Store,
    account: &str,
    mut to_skip: usize,
) -> Result<Option<Option<QueueId>>, ApiError> {
    let mut before = None;
    while to_skip > 0 {
        let skipped = store.sent(Some(account), before, to_skip.min(SKIPPED_MAX))?;
        let Some(last) = skipped.last() else { return Ok(None) };
        before = Some(*last);
        to_skip = to_skip.saturating_sub(skipped.len());
    }
    Ok(Some(before))
}

/// A page of the reports that brought bounces of an account's mails. Nothing lists them by
/// account, so the newest bounces are looked through; `total` is what is among those.
fn bounced(
    store: &Store,
    account: &str,
    place: &Place,
    page_size: usize,
) -> Result<Value, ApiError> {
    let all = reports_of(store, account, None, usize::MAX)?;
    let total = all.len();
    let reports = match &place.before {
        Some(before) => {
            let before = BounceId::parse(before).ok_or_else(bad_cursor)?;
            reports_of(store, account, Some(before), page_size)?
        }
        None => all.into_iter().skip(place.page.saturating_mul(page_size)).collect(),
    };
    let mut messages = Vec::new();
    let mut last = None;
    for (id, at) in reports.into_iter().take(page_size) {
        messages.extend(store.report(id)?.ok().map(|record| view::listed_report(&record)));
        last = Some(at.0);
    }
    let next = last.filter(|_last| messages.len() == page_size);
    Ok(page(total, place, page_size, next, messages))
}

/// At most `max` reports that brought bounces of an account's mails, the newest first, each with
/// the name of its newest such bounce.
fn reports_of(
    store: &Store,
    account: &str,
    mut before: Option<BounceId>,
    max: usize,
) -> Result<Vec<(ReportId, BounceId)>, ApiError> {
    let mut accounts = Accounts::new(store);
    let mut is_wanted = |one: &Bounce| -> Result<bool, StoreError> {
        let account_of = one.queue_id.map_or(Ok(None), |id| accounts.of(id))?;
        Ok(one.is_failure() && account_of.is_some_and(|of| of == account))
    };
    let mut found = Vec::new();
    let mut looked_at: usize = 0;
    while looked_at < BOUNCES_MAX && found.len() < max {
        let range = Range { before: before.as_ref(), ..Range::default() };
        let stretch = store.bounces(range, BOUNCES_AT_A_TIME)?;
        looked_at = looked_at.saturating_add(stretch.bounces.len()).saturating_add(1);
        for bounce in stretch.bounces {
            let Some(report) = bounce.report_id else { continue };
            if found.len() == max || !is_wanted(&bounce)? {
                continue;
            }
            // A report stands where its newest bounce does, and nowhere else.
            let mut is_newest = true;
            for other in store.bounces_of_report(report)? {
                is_newest &= other.id <= bounce.id || !is_wanted(&other)?;
            }
            if is_newest {
                found.push((report, bounce.id));
            }
        }
        before = stretch.next;
        if before.is_none() {
            break;
        }
    }
    Ok(found)
}

fn page(
    total: usize,
    place: &Place,
    page_size: usize,
    next: Option<String>,
    messages: Vec<Value>,
) -> Value {
    let mut page = Map::new();
    page.insert("total".to_owned(), json!(total));
    page.insert("page".to_owned(), json!(place.page));
    page.insert("pages".to_owned(), json!(total.div_ceil(page_size)));
    let next_page = place.page.saturating_add(1);
    page.extend(next.map(|next| ("cursor".to_owned(), json!(format!("{next_page}.{next}")))));
    page.insert("messages".to_owned(), Value::Array(messages));
    Value::Object(page)
}

fn bad_cursor() -> ApiError {
    ApiError::field("cursor", "\"cursor\" must be one that a page gave")
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

impl Place {
    /// `PAGE.NAME`: the number of the page, and what the page before it ended with.
    fn parse(text: &str) -> Option<Self> {
        let (page, before) = text.split_once('.')?;
        let page = page.parse().ok().filter(|page| *page <= PAGE_MAX)?;
        Some(Self { page, before: Some(before.to_owned()) })
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
        Parameter::new("page", Shape::Between(0, PAGE_MAX, Some(0)), "Which page, from 0 on"),
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

/// The last page that can be asked for by its number.
const PAGE_MAX: usize = 100_000;
/// Mails that are passed over at a time on the way to a page.
const SKIPPED_MAX: usize = 10_000;
/// Bounces that are looked through for the folder `Bounces`.
const BOUNCES_MAX: usize = 5000;
/// Bounces that are read for it at a time.
const BOUNCES_AT_A_TIME: usize = 500;
/// Octets of a mail that are read for its text.
const READ_BYTES_MAX: u64 = 8 << 20;
/// Octets of a text.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Octets of a mail that are sent at a time.
const PIECE_BYTES: usize = 65_536;
