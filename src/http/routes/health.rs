//! `/health` and `/metrics`.

use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::{ApiError, HttpState, look_up};
use crate::http::query::Query;
use crate::store::StoreError;

/// `GET /health`: 200 while mail is taken and the queue moves, else 503. Needs no token and
/// gives nothing away.
pub(super) async fn health(
    State(state): State<HttpState>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::parse(request.uri().query(), &[])?;
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
pub(super) async fn metrics(
    State(state): State<HttpState>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], state.inner.metrics.text()).into_response())
}

/// How long a mail may be due without being tried; longer than the slowest attempt takes
/// (RFC 5321 §4.5.3.2: the final dot alone may take ten minutes).
const STUCK_AFTER: Duration = Duration::from_secs(1800);
