//! `/v1/webhooks`: how the webhooks are doing, and having them deliver once more.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::{ApiError, HttpState, answer, not_found};
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::view;
use crate::webhook::{OrderError, Replay};

pub(super) fn routes() -> Vec<Route> {
    let route = |path, scope, methods, operations| Route {
        path,
        access: Access::All(scope),
        methods,
        operations,
    };
    vec![
        route("/v1/webhooks", Scope::Read, get(list), &[LIST]),
        route("/v1/webhooks/{name}", Scope::Read, get(one), &[ONE]),
        route("/v1/webhooks/{name}/replay", Scope::Admin, post(replay), &[REPLAY]),
        route("/v1/webhooks/{name}/test", Scope::Admin, post(test), &[TEST]),
        route("/v1/webhooks/{name}/enable", Scope::Admin, post(enable), &[ENABLE]),
    ]
}

/// `GET /v1/webhooks`: every webhook, in the order of the settings.
async fn list(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &LIST)?;
    let webhooks: Vec<Value> = state.inner.webhooks.list().iter().map(view::webhook).collect();
    Ok(answer(json!({ "webhooks": webhooks })))
}

/// `GET /v1/webhooks/{name}`: one with its deliveries that wait, fail or were given up.
async fn one(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &ONE)?;
    let status = state.inner.webhooks.status(&name).ok_or_else(unknown)?;
    Ok(answer(view::webhook_deliveries(&status)))
}

/// `POST /v1/webhooks/{name}/replay?id=` or `?from=&to=`: delivers one event once more, or all
/// from one to another, or to the newest.
async fn replay(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &REPLAY)?;
    let place = |key: &str| {
        let text = query.value(key);
        text.map(|text| super::events::place(key, text)).transpose()
    };
    let replay = match (place("id")?, place("from")?, place("to")?) {
        (Some(id), None, None) => Replay { from: id, to: id },
        (None, Some(from), to) => Replay { from, to: to.unwrap_or(u64::MAX) },
        _ => {
            let text = "give `id` for one event, or `from` and perhaps `to` for a range";
            return Err(ApiError::field("id", text));
        }
    };
    let replayed = state.inner.webhooks.replay(&name, replay).await?;
    if query.value("id").is_some() && replayed.queued == 0 && !replayed.has_more {
        let why = "The webhook is told of no event with this id";
        return Err(not_found("EventNotFound", why, None));
    }
    Ok(answer(json!({
        "name": name,
        "queued": replayed.queued,
        "more": replayed.has_more,
        "cursor": view::cursor(replayed.end.saturating_add(1)),
    })))
}

/// `POST /v1/webhooks/{name}/test`: sends an event that is none, and says what came of it.
async fn test(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &TEST)?;
    let tested = state.inner.webhooks.test(&name).await?;
    let millis = u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX);
    let mut shown = json!({ "name": name, "delivered": tested.error.is_none(), "took": millis });
    if let Value::Object(map) = &mut shown {
        map.extend(tested.status.map(|status| ("status".to_owned(), json!(status))));
        map.extend(tested.error.map(|error| ("error".to_owned(), json!(error))));
    }
    Ok(answer(shown))
}

/// `POST /v1/webhooks/{name}/enable`: goes on with one whose other side had said 410.
async fn enable(
    State(state): State<HttpState>,
    Path(name): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &ENABLE)?;
    state.inner.webhooks.enable(&name).await?;
    Ok(answer(json!({ "name": name, "enabled": true })))
}

impl From<OrderError> for ApiError {
    fn from(error: OrderError) -> Self {
        match error {
            OrderError::Unknown => unknown(),
            OrderError::Stopping => Self::Store(crate::store::StoreError::Busy),
            OrderError::Store(error) => Self::Store(error),
        }
    }
}

fn unknown() -> ApiError {
    not_found("WebhookNotFound", "No webhook has this name", None)
}

const LIST: Operation = Operation {
    id: "listWebhooks",
    path: "/v1/webhooks",
    group: "Webhooks",
    about: "How every webhook is doing, in the order of the settings.",
    answers: &[Answer::ok("All webhooks", &[Content::json("Webhooks")])],
    ..Operation::GET
};

const ONE: Operation = Operation {
    id: "getWebhook",
    path: "/v1/webhooks/{name}",
    group: "Webhooks",
    about: "How a webhook is doing, with its deliveries that wait, fail or were given up.",
    answers: &[Answer::ok("The webhook", &[Content::json("Webhook")])],
    ..Operation::GET
};

const REPLAY: Operation = Operation {
    id: "replayWebhook",
    path: "/v1/webhooks/{name}/replay",
    group: "Webhooks",
    about: "Delivers one event once more (`id`), or all from one to another, or to the newest.",
    query: &[
        Parameter::new("id", Shape::Text, "This event"),
        Parameter::new("from", Shape::Text, "The first of several"),
        Parameter::new("to", Shape::Text, "The last of them; the newest unless given"),
    ],
    answers: &[Answer::ok("They are in the outbox", &[Content::json("WebhookReplayed")])],
    ..Operation::POST
};

const TEST: Operation = Operation {
    id: "testWebhook",
    path: "/v1/webhooks/{name}/test",
    group: "Webhooks",
    about: "Sends an event that is none, and says what came of it.",
    answers: &[Answer::ok("What came of it", &[Content::json("WebhookTested")])],
    ..Operation::POST
};

const ENABLE: Operation = Operation {
    id: "enableWebhook",
    path: "/v1/webhooks/{name}/enable",
    group: "Webhooks",
    about: "Goes on with a webhook whose other side had said that it is gone.",
    answers: &[Answer::ok("It goes on", &[Content::json("WebhookEnabled")])],
    ..Operation::POST
};
