//! `/v1/mailboxes`: how the mailboxes are doing, and having one polled now.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{ApiError, HttpState, answer, not_found};
use crate::http::operation::{Access, Answer, Content, Operation, Route};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route {
            path: "/v1/mailboxes",
            access: Access::All(Scope::Read),
            methods: get(list),
            operations: &[LIST],
        },
        Route {
            path: "/v1/mailboxes/{name}/poll",
            access: Access::All(Scope::Admin),
            methods: post(poll),
            operations: &[POLL],
        },
    ]
}

/// `GET /v1/mailboxes`: every mailbox, in the order of the settings.
async fn list(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &LIST)?;
    let mailboxes: Vec<Value> = state.inner.store.mailboxes().iter().map(view::mailbox).collect();
    Ok(answer(json!({ "mailboxes": mailboxes })))
}

/// `POST /v1/mailboxes/{name}/poll`: the poller looks at all folders now, also where it waits
/// after a failure.
async fn poll(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &POLL)?;
    if !state.inner.store.poll_mailbox(&name) {
        return Err(not_found("MailboxNotFound", "No mailbox has this name", None));
    }
    Ok(answer(json!({ "name": name, "polled": true })))
}

const LIST: Operation = Operation {
    id: "listMailboxes",
    path: "/v1/mailboxes",
    group: "Mailboxes",
    about: "How every mailbox is doing, in the order of the settings.",
    answers: &[Answer::ok("All mailboxes", &[Content::json("Mailboxes")])],
    ..Operation::GET
};

const POLL: Operation = Operation {
    id: "pollMailbox",
    path: "/v1/mailboxes/{name}/poll",
    group: "Mailboxes",
    about: "Has a mailbox looked at now, also where it waits after a failure.",
    answers: &[Answer::ok("It is looked at", &[Content::json("MailboxPolled")])],
    ..Operation::POST
};
