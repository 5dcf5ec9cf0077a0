//! `/v1/outbox`: the queue in EmailEngine's shape, and what can be done with a mail in it.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde_json::{Value, json};

use super::{
    ApiError, HttpState, PAGE_SIZE, PAGE_SIZE_MAX, answer, look_up, never_or_purged, not_found,
    queue_id,
};
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::QueueId;
use crate::store::record::OrderAction;
use crate::store::{LiveMessage, Missing, Ordered, Store};
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    let (read, admin) = (Access::Own(Scope::Read), Access::Own(Scope::Admin));
    let one = "/v1/outbox/{queueId}";
    let orders = &[RETRY, HOLD, RELEASE];
    vec![
        Route { path: "/v1/outbox", access: read, methods: get(list), operations: &[LIST] },
        Route { path: one, access: read, methods: get(entry), operations: &[ONE] },
        Route { path: one, access: admin, methods: delete(cancel), operations: &[CANCEL] },
        Route {
            path: "/v1/outbox/{queueId}/{action}",
            access: admin,
            methods: post(order),
            operations: orders,
        },
    ]
}

/// `GET /v1/outbox?page=&pageSize=&account=`: the mails in the queue, newest first.
async fn list(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    let page = query.number("page", 0, 0, PAGE_MAX)?;
    let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
    let account = caller.asks_of(query.value("account"))?;
    let (total, messages) = look_up(&state, move |store| {
        let skip = page.saturating_mul(page_size);
        let (total, mails) = store.queue_page(account.as_deref(), skip, page_size);
        let shown: Result<Vec<Value>, ApiError> =
            mails.iter().filter_map(|mail| shown(store, mail).transpose()).collect();
        Ok((total, shown?))
    })
    .await?;
    Ok(answer(json!({
        "total": total,
        "page": page,
        "pages": total.div_ceil(page_size).max(1),
        "messages": messages,
    })))
}

/// `GET /v1/outbox/{queueId}`.
async fn entry(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &ONE)?;
    let id = queue_id("queueId", &id)?;
    let entry = look_up(&state, move |store| {
        let mail = queued(store, &caller, id)?;
        shown(store, &mail)?.ok_or_else(not_in_queue)
    })
    .await?;
    Ok(answer(entry))
}

/// `DELETE /v1/outbox/{queueId}`: nobody who waits is tried any more once this is answered, and
/// the answer says whose attempt was under way.
async fn cancel(
    State(state): State<HttpState>,
    Path(id): Path<String>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &CANCEL)?;
    let before = ordered(&state, caller, &id, OrderAction::Cancel).await?;
    Ok(answer(view::canceled(&before)))
}

/// `POST /v1/outbox/{queueId}/retry`, `/hold` and `/release`: the answer is the entry after it.
async fn order(
    State(state): State<HttpState>,
    Path((id, action)): Path<(String, String)>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &RETRY)?;
    let action = match action.as_str() {
        "retry" => OrderAction::Retry,
        "hold" => OrderAction::Hold,
        "release" => OrderAction::Release,
        _ => return Err(not_found("NotFound", "There is no such path", None)),
    };
    let before = ordered(&state, caller, &id, action).await?;
    let entry = look_up(&state, move |store| {
        // It may have gone meanwhile.
        let mail = store.live(before.queue_id).unwrap_or(before);
        shown(store, &mail)?.ok_or_else(not_in_queue)
    })
    .await?;
    Ok(answer(entry))
}

/// Has it done, and returns the mail as it was before, once the order is on disk.
pub(super) async fn ordered(
    state: &HttpState,
    caller: Caller,
    id: &str,
    action: OrderAction,
) -> Result<LiveMessage, ApiError> {
    let id = queue_id("queueId", id)?;
    let ordered = look_up(state, move |store| {
        queued(store, &caller, id)?;
        store.order(id, action)?.ok_or_else(not_in_queue)
    })
    .await?;
    let Ordered { ticket, before } = ordered;
    ticket.synced().await?;
    tracing::info!(queue_id = %id, ?action, "ordered over HTTP");
    Ok(before)
}

/// An entry; `None` where the record of the mail is gone.
fn shown(store: &Store, mail: &LiveMessage) -> Result<Option<Value>, ApiError> {
    let submission = store.submission(mail.queue_id)?.ok();
    Ok(submission.map(|submission| view::outbox_entry(mail, &submission)))
}

/// A mail in the queue; 404 with the reason where it is not there, or not the caller's.
fn queued(store: &Store, caller: &Caller, id: QueueId) -> Result<LiveMessage, ApiError> {
    if let Some(mail) = store.live(id).filter(|mail| caller.may_see(&mail.account)) {
        return Ok(mail);
    }
    Err(match store.submission(id)? {
        Ok(left) if caller.may_see(&left.account) => not_in_queue(),
        Ok(_others) => never_or_purged(Missing::NeverSeen),
        Err(missing) => never_or_purged(missing),
    })
}

fn not_in_queue() -> ApiError {
    not_found("NotInQueue", "The mail has left the queue: see /v1/messages/{queueId}", None)
}

/// Pages that can be asked for, as EmailEngine has it.
const PAGE_MAX: usize = 1_048_576;

const GROUP: &str = "Outbox";
const ENTRY: &[Content] = &[Content::json("OutboxEntry")];

const LIST: Operation = Operation {
    id: "listOutbox",
    path: "/v1/outbox",
    group: GROUP,
    about: "The mails in the queue, newest first.",
    query: &[
        Parameter::new("page", Shape::Between(0, PAGE_MAX, Some(0)), "0 for the first"),
        Parameter::new(
            "pageSize",
            Shape::Between(1, PAGE_SIZE_MAX, Some(PAGE_SIZE)),
            "Mails of a page",
        ),
        Parameter::new("account", Shape::Text, "Those of one account"),
    ],
    answers: &[Answer::ok("A page", &[Content::json("Outbox")])],
    ..Operation::GET
};

const ONE: Operation = Operation {
    id: "getOutboxEntry",
    path: "/v1/outbox/{queueId}",
    group: GROUP,
    about: "A mail in the queue.",
    answers: &[Answer::ok("The mail", ENTRY)],
    ..Operation::GET
};

const CANCEL: Operation = Operation {
    id: "cancelOutboxEntry",
    path: "/v1/outbox/{queueId}",
    group: GROUP,
    about: "Takes a mail out of the queue: nobody who waits is tried any more.",
    answers: &[Answer::ok("Who is not tried, and who was", &[Content::json("Canceled")])],
    ..Operation::DELETE
};

const RETRY: Operation = Operation {
    id: "retryOutboxEntry",
    path: "/v1/outbox/{queueId}/retry",
    group: GROUP,
    about: "Has a mail tried now, also where it is held or to be sent later.",
    answers: &[Answer::ok("The mail", ENTRY)],
    ..Operation::POST
};

const HOLD: Operation = Operation {
    id: "holdOutboxEntry",
    path: "/v1/outbox/{queueId}/hold",
    about: "Keeps a mail in the queue until it is released.",
    ..RETRY
};

const RELEASE: Operation = Operation {
    id: "releaseOutboxEntry",
    path: "/v1/outbox/{queueId}/release",
    about: "Lets a held mail go on.",
    ..RETRY
};
