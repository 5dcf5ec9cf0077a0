//! What can be asked, one file per kind of thing.

mod account;
mod bounces;
mod document;
mod events;
mod health;
mod known;
mod mailboxes;
mod messages;
mod outbox;
mod page;
mod place;
mod reports;
mod reread;
mod search;
mod stats;
mod stream;
mod submit;
mod suppressions;
mod webhooks;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::request;
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use serde_json::Value;
use tokio::time::timeout;

use super::HttpState;
use super::auth::{Asked, Caller, Denied};
use super::error::ApiError;
use super::operation::{Access, Parameter, Route, Shape};
use super::query::{access_token, decode};
use super::rates::Who;
use super::server::Peer;
use super::tokens::Scope;
use crate::config::Span;
use crate::mail::{MessageId, QueueId, Timestamp};
use crate::net::listener::network_of;
use crate::store::{MessageRecord, Missing, Store};
use crate::view::Closing;
use crate::webhook::Webhooks;
pub(super) use events::Streams;
pub(super) use search::{CAPTURED_BY, categories, faults};

/// All routes, in the order of the document.
pub(super) fn routes() -> Vec<Route> {
    let groups = [
        bounces::routes(),
        messages::routes(),
        account::routes(),
        reports::routes(),
        events::routes(),
        reread::routes(),
        submit::routes(),
        outbox::routes(),
        suppressions::routes(),
        mailboxes::routes(),
        webhooks::routes(),
        stats::routes(),
        health::routes(),
        document::routes(),
    ];
    groups.into_iter().flatten().collect()
}

/// Serves all routes, each to those who may ask.
pub(super) fn router(state: HttpState) -> Router {
    // The pages are for people, and not in the document.
    let mut router = if state.inner.has_page { page::router(state.clone()) } else { Router::new() };
    for route in routes() {
        let needing = |scope| middleware::from_fn_with_state((state.clone(), scope), let_in);
        let methods = match route.access {
            Access::Anyone => route.methods,
            Access::Own(scope) => route.methods.route_layer(needing(scope)),
            // The last layer is the first to be passed.
            Access::All(scope) => {
                let unbound = middleware::from_fn(unbound);
                route.methods.route_layer(unbound).route_layer(needing(scope))
            }
        };
        router = router.route(route.path, methods);
    }
    router
        .method_not_allowed_fallback(async || ApiError::Method)
        .fallback(async || not_found("NotFound", "There is no such path", None))
        .layer(middleware::from_fn_with_state(state.clone(), counted))
        .with_state(state)
}

async fn let_in(
    State((state, scope)): State<(HttpState, Scope)>,
    mut request: Request,
    next: Next,
) -> Response {
    match allow(&state, &request, scope) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

async fn unbound(caller: Caller, request: Request, next: Next) -> Response {
    match caller.account() {
        None => next.run(request).await,
        Some(account) => {
            let why = format!("The token is for the account `{account}`, and this is for all");
            ApiError::Forbidden(why).into_response()
        }
    }
}

/// Who was let in; a route in no group that lets anybody in has nobody to answer.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut request::Parts, _: &S) -> Result<Self, ApiError> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or(ApiError::Internal("a route knows nobody who may ask"))
    }
}

/// Whether the token that came with a request lets it do what needs `scope`.
fn allow(state: &HttpState, request: &Request, scope: Scope) -> Result<Caller, ApiError> {
    let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok());
    let bearer = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("Bearer").then(|| token.trim().to_owned())
    });
    let token = bearer.or_else(|| access_token(request.uri().query()));
    admit(state, request, token.as_deref(), scope)
}

/// Who sent a request with this token, if he may do what needs `scope`, and not too often.
fn admit(
    state: &HttpState,
    request: &Request,
    token: Option<&str>,
    scope: Scope,
) -> Result<Caller, ApiError> {
    let asked = asked(request, token);
    let now = state.inner.clock.now();
    let allowed = state.inner.auth.allow(asked, scope, now);
    let who = match allowed.as_ref().ok().and_then(Caller::token) {
        Some(token) => Who::Token(token.to_owned()),
        None => Who::Address(network_of(asked.peer)),
    };
    state.guards.rates.count(who, now).map_err(|wait_secs| ApiError::TooOften { wait_secs })?;
    allowed.map_err(|denied| refused(denied, scope))
}

fn asked<'a>(request: &'a Request, token: Option<&'a str>) -> Asked<'a> {
    let peer = request.extensions().get::<Peer>().map(|Peer(address)| address.ip());
    // A request that came over no connection of ours is nobody's.
    let peer = peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let host = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    Asked { token, peer, host }
}

fn refused(denied: Denied, scope: Scope) -> ApiError {
    match denied {
        Denied::NoToken => ApiError::Unauthorized("A token is needed: Authorization: Bearer TOKEN"),
        Denied::UnknownToken => ApiError::Unauthorized("The token is not known"),
        Denied::Expired => ApiError::Unauthorized("The token has expired"),
        Denied::NotLoopback => ApiError::Unauthorized(
            "Without a token only loopback may ask, under the name localhost or an IP address; \
             make a token with `rebound token add`",
        ),
        Denied::Unreadable => ApiError::Internal("the tokens cannot be read"),
        Denied::Scope => ApiError::Forbidden(format!("The token lacks `{}`", scope.as_str())),
    }
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
    let permit = timeout(LOOK_UP_TIMEOUT, Arc::clone(&state.guards.look_ups).acquire_owned());
    let permit = permit.await.map_err(|_elapsed| ApiError::Busy)?;
    let store = state.inner.store.clone();
    let done = tokio::task::spawn_blocking(move || {
        let done = job(&store);
        drop(permit);
        done
    });
    done.await.unwrap_or(Err(ApiError::Internal("a look-up ended in a panic")))
}

/// The webhooks, for who may see what they are told: they are everybody's.
fn webhooks_of(state: &HttpState, caller: &Caller) -> Option<Webhooks> {
    caller.account().is_none().then(|| state.inner.webhooks.clone())
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

/// Whether a request asks for this media type by name.
fn accepts(headers: &HeaderMap, wanted: &str) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = accepted.flat_map(|value| value.split(','));
    let mut kinds = kinds.filter_map(|one| one.split(';').next());
    kinds.any(|kind| kind.trim().eq_ignore_ascii_case(wanted))
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
    QueueId::parse(text).ok_or_else(|| {
        ApiError::field(key, format!("\"{key}\" must be an id as `061so6l1qg000001`"))
    })
}

/// A span before now such as `7d`, a day, or a moment.
fn moment(key: &str, text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let span = Span::try_from(text.to_owned()).ok().map(|span| now.minus(span.duration()));
    span.or_else(|| Timestamp::parse(text)).ok_or_else(|| {
        let like = "a time such as 7d, 2022-10-12 or 2022-10-12T12:00:00Z";
        ApiError::field(key, format!("\"{key}\" must be {like}"))
    })
}

/// The submissions that a Message-ID leads to.
struct Submissions {
    /// The newest first; never empty.
    records: Vec<MessageRecord>,
    /// Whether the id is not their own but one that a next hop gave them.
    by_alias: bool,
}

/// The submissions of a Message-ID that `caller` may see, be it their own or one that a next hop
/// gave them; 404 without any.
fn by_message_id(store: &Store, caller: &Caller, id: &MessageId) -> Result<Submissions, ApiError> {
    let mut records = Vec::new();
    let mut missing = Missing::NeverSeen;
    let mut queue_ids = store.by_message_id(id)?;
    let by_alias = queue_ids.is_empty();
    if by_alias {
        queue_ids = store.by_alias(id)?;
    }
    for queue_id in queue_ids.into_iter().take(SUBMISSIONS_MAX) {
        match store.message(queue_id)? {
            Ok(record) if caller.may_see(&record.submission.account) => records.push(record),
            // Whose they are is not told either.
            Ok(_others) => {}
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

/// One submission; 404 without it, and to who may not see it.
fn by_queue_id(store: &Store, caller: &Caller, id: QueueId) -> Result<MessageRecord, ApiError> {
    let record = store.message(id)?.map_err(never_or_purged)?;
    if caller.may_see(&record.submission.account) {
        Ok(record)
    } else {
        Err(never_or_purged(Missing::NeverSeen))
    }
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

/// How long a look-up may wait for others to end.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(10);

/// Entries of a page unless it is asked for more or fewer.
const PAGE_SIZE: usize = 20;

/// Entries of a page at most.
const PAGE_SIZE_MAX: usize = 1000;

/// The header of an answer that is a mail.
const AS_MAIL: [(header::HeaderName, &str); 3] = [
    (header::CONTENT_TYPE, "message/rfc822"),
    // A browser must not take a stranger's mail for a page of ours.
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::CONTENT_SECURITY_POLICY, "sandbox"),
];

/// What a queue id and the id of a report look like.
pub(super) const QUEUE_ID_PATTERN: &str = "^[0-9a-vA-V]{16}$";

/// What a moment looks like in a question.
const MOMENT_PATTERN: &str = "^([0-9]{1,6}[smhdw]|[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\
    (T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2}))?)$";

/// A moment in a question.
const MOMENT: Shape = Shape::Pattern(MOMENT_PATTERN);

/// How many entries a page has.
const PAGE_SIZE_PARAMETER: Parameter = Parameter::new(
    "pageSize",
    Shape::Between(1, PAGE_SIZE_MAX, Some(PAGE_SIZE)),
    "Entries of a page",
);

/// Where a page begins.
const CURSOR: Parameter =
    Parameter::new("cursor", Shape::Text, "Where the page begins: what the page before it gave");
