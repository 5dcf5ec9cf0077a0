//! `/v1/bounces`: what became of a mail, and every bounce that a question fits.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use hyper::body::Bytes;
use serde_json::{Map, Value, json};

use super::known::Known;
use super::search::{self, Search};
use super::stream::{Gone, Pieces};
use super::{
    ApiError, CURSOR, HttpState, PAGE_SIZE, PAGE_SIZE_MAX, PAGE_SIZE_PARAMETER, Submissions,
    accepts, answer, by_message_id, by_queue_id, closing, id_in_path, look_up, message_id,
    queue_id,
};
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::store::record::BounceId;
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route {
            path: "/v1/bounces",
            access: Access::Own(Scope::Read),
            methods: get(list),
            operations: &[LIST],
        },
        Route {
            path: "/v1/bounces/{*id}",
            access: Access::Own(Scope::Read),
            methods: get(of_message),
            operations: &[OF_MESSAGE],
        },
    ]
}

/// `GET /v1/bounces/{messageId}`: the core look-up.
async fn of_message(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &OF_MESSAGE)?;
    let id = id_in_path(request.uri().path(), "/v1/bounces/")?;
    of_message_id(&state, caller, &id).await
}

/// `GET /v1/bounces?`: with a `messageId` or a `queueId` and nothing beside it the look-up of
/// that mail, else the bounces that fit, newest first, in pages or as lines.
async fn list(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    let wants_lines = accepts(request.headers(), NDJSON);
    if !wants_lines && let Some((key, id)) = query.only() {
        match key {
            "messageId" => return of_message_id(&state, caller, id).await,
            "queueId" => return of_queue_id(&state, caller, id).await,
            _ => {}
        }
    }
    let search = Search::of(&query, caller, state.inner.clock.now())?;
    let before = query.value("cursor").map(cursor).transpose()?;
    if wants_lines {
        return export(state, search, before).await;
    }
    let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
    let recipient = query.value("recipient").map(str::to_owned);
    let page = look_up(&state, move |store| {
        let found = search.page(store, before, page_size)?;
        let mut known = Known::new(store);
        let bounces = found.bounces.iter().map(|bounce| known.show(bounce));
        let bounces = bounces.collect::<Result<Vec<_>, _>>()?;
        let mut page = Map::new();
        page.extend(recipient.map(|address| ("recipient".to_owned(), json!(address))));
        page.insert("bounces".to_owned(), Value::Array(bounces));
        page.extend(found.next.map(|next| ("cursor".to_owned(), json!(next))));
        Ok(Value::Object(page))
    });
    Ok(answer(page.await?))
}

async fn of_message_id(state: &HttpState, caller: Caller, id: &str) -> Result<Response, ApiError> {
    let id = message_id(id)?;
    let closing = closing(state);
    let found = look_up(state, move |store| {
        let Submissions { records, by_alias } = by_message_id(store, &caller, &id)?;
        Ok(view::lookup(&records, by_alias, closing))
    });
    Ok(answer(found.await?.unwrap_or_default()))
}

async fn of_queue_id(state: &HttpState, caller: Caller, id: &str) -> Result<Response, ApiError> {
    let id = queue_id("queueId", id)?;
    let closing = closing(state);
    let found = look_up(state, move |store| {
        Ok(view::submission(&by_queue_id(store, &caller, id)?, closing))
    });
    Ok(answer(found.await?))
}

/// Every bounce that fits as a line of JSON, read a page at a time as fast as the client takes
/// it; what is wrong with the question is told before the first.
async fn export(
    state: HttpState,
    search: Search,
    before: Option<BounceId>,
) -> Result<Response, ApiError> {
    let (first, mut next) = lines_of(&state, search.clone(), before).await?;
    let (mut lines, response) = Pieces::of(NDJSON);
    tokio::spawn(async move {
        if matches!(lines.send(first).await, Err(Gone)) {
            return;
        }
        while next.is_some() {
            match lines_of(&state, search.clone(), next).await {
                Ok((more, after)) => {
                    if matches!(lines.send(more).await, Err(Gone)) {
                        return;
                    }
                    next = after;
                }
                // The client sees that the answer has no end.
                Err(error) => return lines.abort(&error),
            }
        }
    });
    Ok(response)
}

/// A page of the export, and where the next begins.
async fn lines_of(
    state: &HttpState,
    search: Search,
    before: Option<BounceId>,
) -> Result<(Bytes, Option<BounceId>), ApiError> {
    look_up(state, move |store| {
        let found = search.page(store, before, LINES_AT_A_TIME)?;
        let mut known = Known::new(store);
        let mut text = Vec::new();
        for bounce in &found.bounces {
            text.extend(known.show(bounce)?.to_string().into_bytes());
            text.push(b'\n');
        }
        Ok((Bytes::from(text), found.next))
    })
    .await
}

/// A cursor is where the page before ended: 20 hexadecimal digits.
pub(super) fn cursor(text: &str) -> Result<BounceId, ApiError> {
    BounceId::parse(text)
        .ok_or_else(|| ApiError::field("cursor", "\"cursor\" must be one that a page gave"))
}

const NDJSON: &str = "application/x-ndjson";

/// Bounces that are read at a time for an export.
const LINES_AT_A_TIME: usize = 200;

const OF_MESSAGE: Operation = Operation {
    id: "getBounces",
    path: "/v1/bounces/{messageId}",
    group: "Bounces",
    about: "What became of every recipient of a mail, and every bounce of it. The id goes with or \
            without <>, percent-encoded.",
    answers: &[Answer::ok("The mail; the newest where several have the id", MAIL)],
    ..Operation::GET
};

const LIST: Operation = Operation {
    id: "searchBounces",
    path: "/v1/bounces",
    group: "Bounces",
    about: "The bounces that all parameters fit, newest first. With `messageId` or `queueId` and \
            nothing beside it: the look-up of that mail. A page may be short, or empty, and yet \
            have a cursor: then so many were looked at in vain, and the cursor goes on. With \
            `Accept: application/x-ndjson`: all that fit, a line each.",
    query: &[
        Parameter::new("messageId", Shape::Text, "Of the mail with this Message-ID"),
        Parameter::new("queueId", Shape::Pattern(super::QUEUE_ID_PATTERN), "Of this submission"),
        Parameter::new("recipient", Shape::Pattern("^[^@\\s]+@[^@\\s]+$"), "Of this address"),
        Parameter::new("domain", Shape::Pattern(search::DOMAIN_PATTERN), "Of addresses there"),
        Parameter::new("category", Shape::Words(search::categories), "Of this category"),
        Parameter::new("fault", Shape::Words(search::faults), "By this one's fault"),
        Parameter::new("account", Shape::Text, "Of mails of this account"),
        Parameter::new("capturedBy", Shape::OneOf(search::CAPTURED_BY), "Caught there"),
        Parameter::new("since", super::MOMENT, "Captured then or later: `7d` ago, a day or a time"),
        Parameter::new("until", super::MOMENT, "Captured before then"),
        PAGE_SIZE_PARAMETER,
        CURSOR,
    ],
    answers: &[
        Answer::ok(
            "A page, the look-up of one mail, or a line for each bounce",
            &[
                Content {
                    kind: "application/json",
                    shape: Shape::AnyOf(&["BouncePage", "Lookup"]),
                },
                Content { kind: NDJSON, shape: Shape::Text },
            ],
        ),
        Answer::refusal(404, "There is no such mail, where one was asked for"),
    ],
    ..Operation::GET
};

const MAIL: &[Content] = &[Content::json("Lookup")];
