//! What can be asked, one file per kind of thing.

mod bounces;
mod events;
mod health;
mod known;
mod mailboxes;
mod messages;
mod reports;
mod reread;

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::Value;

use super::HttpState;
use super::auth::{Denied, Scope};
use super::error::ApiError;
use super::query::{access_token, decode};
use super::server::Peer;
use crate::mail::{MessageId, QueueId};
use crate::store::{MessageRecord, Missing, Store};
use crate::view::Closing;
pub(super) use events::Streams;

/// All routes. A new one goes into a group, which says what token it needs.
pub(super) fn router(state: HttpState) -> Router {
    let reading = Router::new()
        .route("/v1/bounces", get(bounces::search))
        .route("/v1/bounces/{*id}", get(bounces::of_message))
        .route("/v1/events", get(events::list_or_follow))
        .route("/v1/messages/{*id}", get(messages::timeline_or_wait))
        .route("/v1/reports", get(reports::list))
        .route("/v1/reports/differences", get(reread::show))
        .route("/v1/reports/{id}", get(reports::one))
        .route("/v1/reports/{id}/source", get(reports::source))
        .route("/v1/mailboxes", get(mailboxes::list))
        .route("/metrics", get(health::metrics))
        .route_layer(middleware::from_fn_with_state(state.clone(), reader));
    let changing = Router::new()
        .route("/v1/reports/differences", post(reread::apply))
        .route("/v1/mailboxes/{name}/poll", post(mailboxes::poll))
        .route_layer(middleware::from_fn_with_state(state.clone(), admin));
    let open = Router::new().route("/health", get(health::health));
    reading
        .merge(changing)
        .merge(open)
        .method_not_allowed_fallback(async || ApiError::Method)
        .fallback(async || not_found("NotFound", "There is no such path", None))
        .layer(middleware::from_fn_with_state(state.clone(), counted))
        .with_state(state)
}

/// Lets those through who may look things up.
async fn reader(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    match allow(&state, &request, Scope::Read) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

/// Lets those through who may change what is there.
async fn admin(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    match allow(&state, &request, Scope::Admin) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

fn allow(state: &HttpState, request: &Request, scope: Scope) -> Result<(), ApiError> {
    let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.ip());
    // A request that came over no connection of ours is nobody's.
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim().to_owned())
    });
    let token = bearer.or_else(|| access_token(request.uri().query()));
    let host = text(header::HOST);
    state.inner.auth.allow(token.as_deref(), peer, host, scope).map_err(|denied| match denied {
        Denied::NoToken => ApiError::Unauthorized("A token is needed: Authorization: Bearer TOKEN"),
        Denied::UnknownToken => ApiError::Unauthorized("The token is not known"),
        Denied::NotLoopback => ApiError::Unauthorized(
            "Without a token only loopback may ask, under the name localhost or an IP address; \
             make a token with `rebound token add`",
        ),
        Denied::Unreadable => ApiError::Internal("the tokens cannot be read"),
        Denied::Scope => ApiError::Forbidden(format!("The token lacks `{}`", scope.as_str())),
    })
}

/// Counts answers.
async fn counted(State(state): State<HttpState>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    state.inner.metrics.http_answered(response.status().as_u16());
    response
}

/// Runs a look-up where it may block.
async fn look_up<T: Send + 'static>(
    state: &HttpState,
    job: impl FnOnce(&Store) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let store = state.inner.store.clone();
    let done = tokio::task::spawn_blocking(move || job(&store)).await;
    done.unwrap_or(Err(ApiError::Internal("a look-up ended in a panic")))
}

fn closing(state: &HttpState) -> Closing {
    Closing { now: state.inner.clock.now(), window: state.inner.bounce_window }
}

fn answer(value: Value) -> Response {
    (StatusCode::OK, Json(value)).into_response()
}

fn not_found(code: &'static str, message: &str, reason: Option<Missing>) -> ApiError {
    ApiError::NotFound { code, message: message.to_owned(), reason }
}

/// The id that stands in a path after `prefix`, which may hold any character.
fn id_in_path(path: &str, prefix: &str) -> Result<String, ApiError> {
    let raw = path.strip_prefix(prefix).unwrap_or_default();
    decode(raw).ok_or_else(|| ApiError::field("id", "the id is not percent-encoded UTF-8"))
}

fn message_id(text: &str) -> Result<MessageId, ApiError> {
    let wrong = "\"messageId\" must be a Message-ID, with or without <>";
    MessageId::parse(text).ok_or_else(|| ApiError::field("messageId", wrong))
}

fn queue_id(key: &str, text: &str) -> Result<QueueId, ApiError> {
    QueueId::parse(text)
        .ok_or_else(|| ApiError::field(key, format!("\"{key}\" must be 16 letters and digits")))
}

/// The submissions that a Message-ID leads to.
struct Submissions {
    /// The newest first; never empty.
    records: Vec<MessageRecord>,
    /// Whether the id is not their own but one that a next hop gave them.
    by_alias: bool,
}

/// The submissions of a Message-ID, be it their own or one that a next hop gave them; 404 without
/// any.
fn by_message_id(store: &Store, id: &MessageId) -> Result<Submissions, ApiError> {
    let mut records = Vec::new();
    let mut missing = Missing::NeverSeen;
    let mut queue_ids = store.by_message_id(id)?;
    let by_alias = queue_ids.is_empty();
    if by_alias {
        queue_ids = store.by_alias(id)?;
    }
    for queue_id in queue_ids.into_iter().take(SUBMISSIONS_MAX) {
        match store.message(queue_id)? {
            Ok(record) => records.push(record),
            Err(why) => missing = why,
        }
    }
    if records.is_empty() {
        // An id that we stamped begins with the queue id, which knows its day.
        let stamped = id.as_str().split('.').next().and_then(QueueId::parse);
        if let Some(queue_id) = stamped
            && let Err(why) = store.message(queue_id)?
        {
            missing = why;
        }
        return Err(never_or_purged(missing));
    }
    Ok(Submissions { records, by_alias })
}

/// One submission; 404 without it.
fn by_queue_id(store: &Store, id: QueueId) -> Result<MessageRecord, ApiError> {
    store.message(id)?.map_err(never_or_purged)
}

fn never_or_purged(missing: Missing) -> ApiError {
    let message = match missing {
        Missing::NeverSeen => "No mail with this id was submitted here",
        Missing::Purged => "The mail is older than what is kept",
    };
    not_found("MessageNotFound", message, Some(missing))
}

/// Submissions of one Message-ID that are shown, the newest.
const SUBMISSIONS_MAX: usize = 100;

/// Entries of a page unless it is asked for more or fewer.
const PAGE_SIZE: usize = 20;

/// Entries of a page at most.
const PAGE_SIZE_MAX: usize = 1000;
