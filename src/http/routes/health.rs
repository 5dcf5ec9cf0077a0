//! `/health` and `/metrics`.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;

use super::{ApiError, HttpState, look_up};
use crate::http::operation::{Access, Answer, Content, Operation, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::store::StoreError;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route {
            path: "/health",
            access: Access::Anyone,
            methods: get(health),
            operations: &[HEALTH],
        },
        Route {
            path: "/metrics",
            access: Access::All(Scope::Read),
            methods: get(metrics),
            operations: &[METRICS],
        },
    ]
}

/// `GET /health`: 200 while mail is taken and the queue moves, else 503. Needs no token and
/// gives nothing away.
async fn health(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &HEALTH)?;
    let now = state.inner.clock.now();
    let (store, queue) = look_up(&state, move |store| {
        let writable = match store.can_accept(0) {
            Ok(()) => "ok",
            Err(StoreError::DiskFull) => "full",
            Err(_) => "failing",
        };
        let is_stuck =
            store.next_due(&|_queue_id| false).is_some_and(|due| now.since(due) > STUCK_AFTER);
        Ok((writable, if is_stuck { "stuck" } else { "ok" }))
    })
    .await?;
    let is_well = store == "ok" && queue == "ok";
    let status = if is_well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let word = if is_well { "ok" } else { "failing" };
    Ok((status, Json(json!({ "status": word, "store": store, "queue": queue }))).into_response())
}

/// `GET /metrics`
async fn metrics(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &METRICS)?;
    Ok(([(header::CONTENT_TYPE, OPEN_METRICS)], state.inner.metrics.text()).into_response())
}

/// How long a mail may be due without being tried; longer than the slowest attempt takes
/// (RFC 5321 §4.5.3.2: the final dot alone may take ten minutes).
const STUCK_AFTER: Duration = Duration::from_secs(1800);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const HEALTH: Operation = Operation {
    id: "getHealth",
    path: "/health",
    group: "Operation",
    about: "Whether mail is taken and the queue moves. Needs no token.",
    answers: &[
        Answer::ok("All is well", &[Content::json("Health")]),
        Answer { status: 503, about: "Something is not", forms: &[Content::json("Health")] },
    ],
    ..Operation::GET
};

const METRICS: Operation = Operation {
    id: "getMetrics",
    path: "/metrics",
    group: "Operation",
    about: "Counters for Prometheus.",
    answers: &[Answer::ok("All counters", &[Content::of(OPEN_METRICS, Shape::Text)])],
    ..Operation::GET
};
