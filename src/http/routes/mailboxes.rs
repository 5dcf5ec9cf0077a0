//! `/v1/mailboxes`: how the mailboxes are doing, and having one polled now.

use axum::extract::{Path, Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::{ApiError, HttpState, answer, not_found};
use crate::http::query::Query;
use crate::view;

/// `GET /v1/mailboxes`: every mailbox, in the order of the settings.
pub(super) async fn list(
    State(state): State<HttpState>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let mailboxes: Vec<Value> = state.inner.store.mailboxes().iter().map(view::mailbox).collect();
    Ok(answer(json!({ "mailboxes": mailboxes })))
}

/// `POST /v1/mailboxes/{name}/poll`: the poller looks at all folders now, also where it waits
/// after a failure.
pub(super) async fn poll(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    if !state.inner.store.poll_mailbox(&name) {
        return Err(not_found("MailboxNotFound", "No mailbox has this name", None));
    }
    Ok(answer(json!({ "name": name, "polled": true })))
}
