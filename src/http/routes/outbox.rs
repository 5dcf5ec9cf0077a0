//! `/v1/outbox`: the queue in EmailEngine's shape, and what can be done with a mail in it.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{delete, get, post};
use serde_json::Value;

use super::place::{PAGE, Place};
use super::{
    ApiError, CURSOR, HttpState, PAGE_SIZE_PARAMETER, answer, look_up, never_or_purged, not_found,
    queue_id,
};
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::QueueId;
use crate::store::record::OrderAction;
use crate::store::{LiveMessage, Missing, Ordered, QueueRange, Store};
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

/// `GET /v1/outbox?page=&pageSize=&cursor=&account=`: the mails in the queue, newest first.
async fn list(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    let place = Place::of(&query)?;
    let account = caller.asks_of(query.value("account"))?;
    let page = look_up(&state, move |store| {
        let range = QueueRange {
            account: account.as_deref(),
            behind: place.before(QueueId::parse)?,
            ..QueueRange::default()
        };
        let (total, mails) = store.queue_page(range, place.skipped(), place.page_size);
        let next = mails.last().filter(|_last| mails.len() == place.page_size);
        let next = next.map(|mail| mail.queue_id.to_string());
        let shown: Result<Vec<Value>, ApiError> =
            mails.iter().filter_map(|mail| shown(store, mail).transpose()).collect();
        Ok(place.page(total, next.as_deref(), shown?))
    });
    Ok(answer(page.await?))
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

const GROUP: &str = "Outbox";
const ENTRY: &[Content] = &[Content::json("OutboxEntry")];

const LIST: Operation = Operation {
    id: "listOutbox",
    path: "/v1/outbox",
    group: GROUP,
    about: "The mails in the queue, newest first. Pages shift when mails come and go; a cursor \
            goes on where the page before it ended.",
    query: &[
        PAGE,
        PAGE_SIZE_PARAMETER,
        CURSOR,
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
