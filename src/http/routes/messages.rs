//! `/v1/messages/{messageId or queueId}`: the timeline of a mail, and waiting for its end.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    ApiError, HttpState, Submissions, answer, by_message_id, by_queue_id, closing, id_in_path,
    look_up, message_id, webhooks_of,
};
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::QueueId;
use crate::net::shutdown::Shutdown;
use crate::store::{MessageRecord, Store};
use crate::view::{self, Closing};
use crate::webhook::Webhooks;

pub(super) fn routes() -> Vec<Route> {
    vec![Route {
        path: "/v1/messages/{*id}",
        access: Access::Own(Scope::Read),
        methods: get(timeline_or_wait),
        operations: &[TIMELINE, WAIT],
    }]
}

/// `GET /v1/messages/{id}` and `/v1/messages/{id}/wait`.
///
/// One route, because an id may hold slashes: only the path before decoding tells them apart.
async fn timeline_or_wait(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let path = request.uri().path();
    match path.strip_suffix("/wait") {
        Some(path) => {
            let query = Query::of(request.uri(), &WAIT)?;
            let stopping = request.extensions().get::<Shutdown>().cloned();
            let asked = (caller, id_in_path(path, PREFIX)?);
            wait(&state, asked, &query, stopping).await
        }
        None => {
            Query::of(request.uri(), &TIMELINE)?;
            let id = id_in_path(path, PREFIX)?;
            Ok(answer(timeline(&state, (caller, id)).await?.shown))
        }
    }
}

/// `for=final` answers once every recipient is final, `for=change` once more is known than when
/// `version` was what `seen` says; both answer with the timeline, at the latest after `timeout`
/// seconds.
async fn wait(
    state: &HttpState,
    asked: (Caller, String),
    query: &Query,
    stopping: Option<Shutdown>,
) -> Result<Response, ApiError> {
    let timeout_secs = query.number("timeout", WAIT_SECS, 0, WAIT_SECS_MAX)?;
    let seen = query.number("seen", 0, 0, usize::MAX)?;
    let is_over: fn(&Timeline, usize) -> bool = match query.value("for") {
        Some("final") => |timeline, _seen| timeline.is_final,
        Some("change") => |timeline, seen| timeline.version > seen,
        _ => return Err(ApiError::field("for", "\"for\" must be `final` or `change`")),
    };
    let timeout = Duration::from_secs(u64::try_from(timeout_secs).unwrap_or_default());
    let deadline = Instant::now() + timeout;
    let mut changes = state.inner.store.changes();
    loop {
        // Marked before the look-up: what changes during it wakes the wait after it.
        changes.mark_unchanged();
        let timeline = timeline(state, asked.clone()).await?;
        let is_stopping = stopping.as_ref().is_some_and(Shutdown::is_requested);
        if is_over(&timeline, seen) || is_stopping || Instant::now() >= deadline {
            return Ok(answer(timeline.shown));
        }
        let stopped = async {
            match &stopping {
                Some(stopping) => stopping.requested().await,
                None => std::future::pending().await,
            }
        };
        let changed = async {
            tokio::select! {
                changed = changes.changed() => drop(changed),
                () = stopped => {}
            }
        };
        if timeout_at(deadline, changed).await.is_ok() {
            // One look-up for a burst of changes, not one for each.
            sleep(BURST).await;
        }
    }
}

struct Timeline {
    shown: Value,
    is_final: bool,
    version: usize,
}

async fn timeline(state: &HttpState, (caller, id): (Caller, String)) -> Result<Timeline, ApiError> {
    let closing = closing(state);
    let webhooks = webhooks_of(state, &caller);
    let asked = (caller, id);
    look_up(state, move |store| look(store, &asked, webhooks.as_ref(), closing)).await
}

fn look(
    store: &Store,
    (caller, id): &(Caller, String),
    webhooks: Option<&Webhooks>,
    closing: Closing,
) -> Result<Timeline, ApiError> {
    let by_queue_id = QueueId::parse(id).map(|id| by_queue_id(store, caller, id));
    let Submissions { records, by_alias } = match by_queue_id {
        Some(Ok(record)) => Submissions { records: vec![record], by_alias: false },
        // A Message-ID can look like a queue id.
        Some(Err(error)) => {
            message_id(id).and_then(|id| by_message_id(store, caller, &id)).or(Err(error))?
        }
        None => by_message_id(store, caller, &message_id(id)?)?,
    };
    let (newest, others) = records.split_first().ok_or(ApiError::Internal("no submission"))?;
    let told = webhooks.map(|webhooks| webhooks.about(store, newest)).transpose()?;
    let reports = reports(store, newest)?;
    let mut shown = view::timeline(newest, by_alias, reports, told.as_ref(), closing);
    if let Value::Object(map) = &mut shown
        && !others.is_empty()
    {
        let others = others.iter().map(|record| {
            let submission = &record.submission;
            json!({
                "queueId": submission.queue_id,
                "account": submission.account,
                "date": submission.received_at.rfc3339(),
            })
        });
        map.insert("otherSubmissions".to_owned(), others.collect());
    }
    let is_final = view::states(newest).iter().all(|state| state.is_final());
    Ok(Timeline { shown, is_final, version: view::version(newest) })
}

/// The reports that said something of a submission, oldest first.
fn reports(store: &Store, record: &MessageRecord) -> Result<Vec<Value>, ApiError> {
    let ids: BTreeSet<_> = record.bounces.iter().filter_map(|bounce| bounce.report_id).collect();
    let mut shown = Vec::new();
    for id in ids.into_iter().take(REPORTS_MAX) {
        shown.extend(store.report(id)?.ok().map(|report| view::report_summary(&report)));
    }
    Ok(shown)
}

const TIMELINE: Operation = Operation {
    id: "getMessage",
    path: "/v1/messages/{id}",
    group: "Messages",
    about: "Everything that is known of a mail: every attempt, bounce and report, and what \
            webhooks were told, which tokens of one account do not see. The id is a Message-ID, \
            with or without <>, or a queue id.",
    answers: &[Answer::ok("The timeline of the mail", &[Content::json("Timeline")])],
    ..Operation::GET
};

const WAIT: Operation = Operation {
    id: "waitForMessage",
    path: "/v1/messages/{id}/wait",
    group: "Messages",
    about: "The same, once every recipient is final or more is known; at the latest when the time \
            is over.",
    query: &[
        Parameter::needed(
            "for",
            Shape::OneOf(&["final", "change"]),
            "`final`: every recipient has ended; `change`: `version` is above `seen`",
        ),
        Parameter::new(
            "timeout",
            Shape::Between(0, WAIT_SECS_MAX, Some(WAIT_SECS)),
            "Seconds to wait at most",
        ),
        Parameter::new("seen", Shape::Number, "The `version` that is known already"),
    ],
    answers: &[Answer::ok("The timeline of the mail", &[Content::json("Timeline")])],
    ..Operation::GET
};

const PREFIX: &str = "/v1/messages/";

/// How long a wait takes unless it says.
const WAIT_SECS: usize = 30;

/// How long a wait may take.
const WAIT_SECS_MAX: usize = 120;

/// How long changes are collected before they are looked at.
const BURST: Duration = Duration::from_millis(20);

/// Reports that a timeline lists.
const REPORTS_MAX: usize = 100;
