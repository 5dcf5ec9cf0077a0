//! `/v1/reports/differences`: what stored reports say when they are read again, and writing it.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

use super::{ApiError, CURSOR, HttpState, PAGE_SIZE_MAX, answer, moment, queue_id};
use crate::capture::{Change, Difference, Mode};
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::store::Ticket;
use crate::store::record::{Bounce, ReportId};

pub(super) fn routes() -> Vec<Route> {
    let path = "/v1/reports/differences";
    vec![
        Route { path, access: Access::All(Scope::Read), methods: get(show), operations: &[SHOW] },
        Route {
            path,
            access: Access::All(Scope::Admin),
            methods: post(apply),
            operations: &[APPLY],
        },
    ]
}

/// `GET /v1/reports/differences?since=`: what reading them again would change.
async fn show(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    differences(state, Query::of(request.uri(), &SHOW)?, Mode::Show).await
}

/// `POST /v1/reports/differences?since=`: the same, and it is recorded when this is answered.
async fn apply(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    differences(state, Query::of(request.uri(), &APPLY)?, Mode::Apply).await
}

async fn differences(state: HttpState, query: Query, mode: Mode) -> Result<Response, ApiError> {
    let since = query
        .value("since")
        .map(|text| moment("since", text, state.inner.clock.now()))
        .transpose()?;
    let since = since.unwrap_or_default();
    let after = query.value("cursor").map(|text| queue_id("cursor", text)).transpose()?;
    let page_size = query.number("pageSize", REPORTS_MAX, 1, PAGE_SIZE_MAX)?;
    let (store, capture) = (state.inner.store.clone(), state.inner.capture.clone());
    let read = tokio::task::spawn_blocking(move || -> Result<_, ApiError> {
        let ids = store.captured_reports(since, after.map(ReportId), page_size)?;
        let mut found = Vec::new();
        for id in &ids {
            found.extend(capture.reread(*id, mode)?);
        }
        Ok((ids, found))
    });
    let panicked = Err(ApiError::Internal("reading reports again ended in a panic"));
    let (ids, mut found) = read.await.unwrap_or(panicked)?;
    let tickets: Vec<Option<Ticket>> =
        found.iter_mut().map(|difference| difference.ticket.take()).collect();
    let mut reports = Vec::with_capacity(found.len());
    for (difference, ticket) in found.iter().zip(tickets) {
        reports.push(shown(difference, ticket.is_some()));
        if let Some(ticket) = ticket {
            ticket.synced().await?;
        }
    }
    let mut page = json!({ "read": ids.len(), "reports": reports });
    if let (Some(last), Value::Object(map)) = (ids.last(), &mut page)
        && ids.len() == page_size
    {
        map.insert("cursor".to_owned(), Value::String(last.0.to_string()));
    }
    Ok(answer(page))
}

fn shown(difference: &Difference, is_written: bool) -> Value {
    let mut report = Map::new();
    report.insert("id".to_owned(), json!(difference.id));
    report.insert("date".to_owned(), json!(difference.received_at.rfc3339()));
    if difference.verdict != difference.verdict_was {
        let verdict = json!({ "was": difference.verdict_was, "now": difference.verdict });
        report.insert("verdict".to_owned(), verdict);
    }
    if !difference.newly_matched.is_empty() {
        report.insert("newlyMatched".to_owned(), json!(difference.newly_matched));
    }
    let recipients: Vec<Value> = difference.changes.iter().map(change).collect();
    report.insert("recipients".to_owned(), json!(recipients));
    report.insert("written".to_owned(), json!(is_written));
    Value::Object(report)
}

fn change(change: &Change) -> Value {
    match change {
        Change::Added(now) => {
            json!({ "recipient": now.recipient, "change": "added", "now": said(now) })
        }
        Change::Revised { was, now } => json!({
            "recipient": now.recipient, "change": "revised", "was": said(was), "now": said(now),
        }),
        Change::Withdrawn(was) => {
            json!({ "recipient": was.recipient, "change": "withdrawn", "was": said(was) })
        }
    }
}

fn said(bounce: &Bounce) -> Value {
    let response = &bounce.response;
    let mut said = json!({
        "action": bounce.action,
        "status": response.status,
        "code": response.code,
        "category": response.classification.category,
        "message": response.message,
        "queueId": bounce.queue_id,
        "match": bounce.matched,
    });
    if let Value::Object(map) = &mut said {
        map.retain(|_key, value| !value.is_null());
    }
    said
}

const SHOW: Operation = Operation {
    id: "getReportDifferences",
    path: "/v1/reports/differences",
    group: "Reports",
    about: "What stored reports say when they are read again, oldest first.",
    query: &[
        Parameter::new("since", super::MOMENT, "Arrived then or later: `7d` ago, a day or a time"),
        Parameter::new(
            "pageSize",
            Shape::Between(1, PAGE_SIZE_MAX, Some(REPORTS_MAX)),
            "Reports that are read",
        ),
        CURSOR,
    ],
    answers: &[Answer::ok("What would change", &[Content::json("DifferencePage")])],
    ..Operation::GET
};

const APPLY: Operation = Operation {
    id: "applyReportDifferences",
    method: "post",
    about: "The same, and it is recorded when this is answered.",
    answers: &[Answer::ok("What has changed", &[Content::json("DifferencePage")])],
    ..SHOW
};

/// Reports that are read again for one answer unless it is asked for more or fewer.
const REPORTS_MAX: usize = 100;
