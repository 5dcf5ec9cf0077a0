//! `/v1/reports`: what came back, as it was read and as it arrived.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::known::Known;
use super::{
    ApiError, CURSOR, HttpState, PAGE_SIZE, PAGE_SIZE_MAX, PAGE_SIZE_PARAMETER, answer, look_up,
    not_found, queue_id,
};
use crate::bounce;
use crate::capture::{Capture, arrived};
use crate::clock::Clock;
use crate::http::auth::Caller;
use crate::http::body::{self, BodyLimits, Whole};
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::store::record::{CapturedBy, ReportCaptured, ReportId};
use crate::store::{Missing, ReportRecord, Store, Ticket, report_digest};
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route {
            path: "/v1/reports",
            access: Access::All(Scope::Read),
            methods: get(list),
            operations: &[LIST],
        },
        Route {
            path: "/v1/reports",
            access: Access::All(Scope::Admin),
            methods: post(take),
            operations: &[TAKE],
        },
        Route {
            path: "/v1/reports/{id}",
            access: Access::Own(Scope::Read),
            methods: get(one),
            operations: &[ONE],
        },
        Route {
            path: "/v1/reports/{id}/source",
            access: Access::Own(Scope::Read),
            methods: get(source),
            operations: &[SOURCE],
        },
    ]
}

/// `GET /v1/reports`
async fn list(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    let only_unmatched = query.flag("unmatched")?;
    let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
    let before = query.value("cursor").map(|text| queue_id("cursor", text)).transpose()?;
    let page = look_up(&state, move |store| {
        let before = before.map(ReportId);
        let ids = if only_unmatched {
            store.unmatched_reports(before, page_size)?
        } else {
            store.reports(before, page_size)?
        };
        let mut reports = Vec::with_capacity(ids.len());
        for id in &ids {
            // One that was read again may match something by now.
            let is_unmatched = |record: &ReportRecord| {
                record.captured.as_ref().is_none_or(ReportCaptured::is_unmatched)
            };
            let is_wanted = |record: &ReportRecord| !only_unmatched || is_unmatched(record);
            let record = store.report(*id)?.ok().filter(is_wanted);
            reports.extend(record.as_ref().map(view::report_summary));
        }
        let mut page = json!({ "reports": reports });
        if let (Some(last), Value::Object(map)) = (ids.last(), &mut page)
            && ids.len() == page_size
        {
            map.insert("cursor".to_owned(), Value::String(last.0.to_string()));
        }
        Ok(page)
    });
    Ok(answer(page.await?))
}

/// `POST /v1/reports`: a mail that arrived elsewhere, captured like any other. What has been
/// captured before is not captured again.
async fn take(State(state): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &TAKE)?;
    let (parts, body) = request.into_parts();
    let limits = {
        let settings = state.inner.settings.borrow();
        let limits = BodyLimits::of(&settings.http);
        let bytes_max = settings.inbound.message_bytes_max;
        if bytes_max < limits.bytes_max {
            BodyLimits { bytes_max, setting: "inbound.message_bytes_max", ..limits }
        } else {
            limits
        }
    };
    let whole = body::read_one_of(&[MAIL], body, &parts.headers, &state.memory, limits).await?;
    // Its share of the memory is kept until all is written.
    let Whole { octets, share: _share } = whole;
    if octets.is_empty() {
        let message = "The body must be a mail, and is empty".to_owned();
        return Err(ApiError::refused(StatusCode::BAD_REQUEST, "BodyEmpty", message));
    }
    let size_bytes = u64::try_from(octets.len()).unwrap_or(u64::MAX);
    let clock = state.inner.clock.clone();
    let stored = look_up(&state, move |store| store_new(store, &clock, octets, size_bytes)).await?;
    let (id, is_known) = match stored {
        Stored::Before(id) => (id, true),
        Stored::Now(id, ticket) => {
            ticket.synced().await?;
            (id, false)
        }
    };
    let capture = state.inner.capture.clone();
    let taken = look_up(&state, move |store| {
        // It is on disk: where it cannot be captured now it will be later.
        captured(&capture, id);
        let record =
            store.report(id)?.map_err(|_missing| ApiError::Internal("a report is gone"))?;
        shown(store, &record)
    });
    let mut taken = taken.await?;
    if let Value::Object(map) = &mut taken {
        map.insert("known".to_owned(), Value::Bool(is_known));
    }
    Ok(answer(taken))
}

/// Where a mail that was given is stored.
enum Stored {
    /// It was there before, from wherever it came.
    Before(ReportId),
    /// It is being written.
    Now(ReportId, Ticket),
}

fn store_new(
    store: &Store,
    clock: &Clock,
    raw: Vec<u8>,
    size_bytes: u64,
) -> Result<Stored, ApiError> {
    if let Some(id) = store.any_report_by_digest(&report_digest(&raw))? {
        return Ok(Stored::Before(id));
    }
    store.can_accept(size_bytes)?;
    let id = ReportId(store.new_queue_id());
    let ticket = store.accept_report(arrived(id, clock.now(), CapturedBy::Api, raw))?;
    Ok(Stored::Now(id, ticket))
}

fn captured(capture: &Capture, id: ReportId) {
    if let Err(error) = capture.report(id) {
        tracing::error!(id = %id.0, %error, "a report that was given cannot be captured yet");
    }
}

/// `GET /v1/reports/{id}`
async fn one(
    State(state): State<HttpState>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &ONE)?;
    let id = queue_id("id", &id).map(ReportId)?;
    let report = look_up(&state, move |store| {
        let record = stored(store, &caller, id)?;
        shown(store, &record)
    });
    Ok(answer(report.await?))
}

/// A report with what was read from it and the bounces that came of it.
fn shown(store: &Store, record: &ReportRecord) -> Result<Value, ApiError> {
    let id = record.received.id;
    let facts = bounce::read(&record.received.raw);
    let mut known = Known::new(store);
    known.has_returned(id, view::returned_headers(&facts));
    let bounces = store.bounces_of_report(id)?;
    let bounces = bounces.iter().map(|bounce| known.show(bounce)).collect::<Result<Vec<_>, _>>();
    Ok(view::report(record, &facts, &bounces?))
}

/// `GET /v1/reports/{id}/source`: the octets that arrived.
async fn source(
    State(state): State<HttpState>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &SOURCE)?;
    let id = queue_id("id", &id).map(ReportId)?;
    let record = look_up(&state, move |store| stored(store, &caller, id)).await?;
    Ok((super::AS_MAIL, record.received.raw).into_response())
}

/// A report; 404 without it, and to who may not see all the mails that it is about.
pub(super) fn stored(
    store: &Store,
    caller: &Caller,
    id: ReportId,
) -> Result<ReportRecord, ApiError> {
    let missing = |missing: Missing| {
        let message = match missing {
            Missing::NeverSeen => "There is no report with this id",
            Missing::Purged => "The report is older than what is kept",
        };
        not_found("ReportNotFound", message, Some(missing))
    };
    let record = store.report(id)?.map_err(missing)?;
    let is_shown = caller.account().is_none() || is_about(store, caller, &record)?;
    if is_shown { Ok(record) } else { Err(missing(Missing::NeverSeen)) }
}

/// Whether a report is about mails that `caller` may see, and about no others.
fn is_about(store: &Store, caller: &Caller, record: &ReportRecord) -> Result<bool, ApiError> {
    let matched = record.captured.as_ref().map(|captured| captured.matched.as_slice());
    let matched = matched.unwrap_or_default();
    for queue_id in matched {
        let mail = store.submission(*queue_id)?.ok();
        if !mail.is_some_and(|mail| caller.may_see(&mail.account)) {
            return Ok(false);
        }
    }
    Ok(!matched.is_empty())
}

const LIST: Operation = Operation {
    id: "listReports",
    path: "/v1/reports",
    group: "Reports",
    about: "Reports, newest first. A page of those that match no mail may be short: one that was \
            read again may match something by now.",
    query: &[
        Parameter::new("unmatched", Shape::OneOf(&["true"]), "Only those that match no mail"),
        PAGE_SIZE_PARAMETER,
        CURSOR,
    ],
    answers: &[Answer::ok("A page", &[Content::json("ReportPage")])],
    ..Operation::GET
};

const TAKE: Operation = Operation {
    id: "giveReport",
    path: "/v1/reports",
    group: "Reports",
    about: "Captures a mail that arrived elsewhere, as if it had come to the inbound listener. It \
            is on disk when this is answered. A mail that has been captured before, from wherever \
            it came, changes nothing.",
    takes: &[Content::of(MAIL, Shape::Octets)],
    answers: &[Answer::ok("The report", &[Content::json("Report")])],
    ..Operation::POST
};

const ONE: Operation = Operation {
    id: "getReport",
    path: "/v1/reports/{reportId}",
    group: "Reports",
    about: "A report as it was read, and what came of it.",
    answers: &[Answer::ok("The report", &[Content::json("Report")])],
    ..Operation::GET
};

const SOURCE: Operation = Operation {
    id: "getReportSource",
    path: "/v1/reports/{reportId}/source",
    group: "Reports",
    about: "A report as it arrived, octet for octet.",
    answers: &[Answer::ok("The mail", &[Content::of(MAIL, Shape::Octets)])],
    ..Operation::GET
};

/// The media type of a mail (RFC 2046 §5.2.1).
const MAIL: &str = "message/rfc822";
