//! `/v1/openapi.json` and the page that shows the same to people.

use std::sync::LazyLock;

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::{ApiError, HttpState};
use crate::http::openapi;
use crate::http::operation::{Access, Answer, Content, Operation, Route, Shape};
use crate::http::query::Query;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route {
            path: "/v1/openapi.json",
            access: Access::Anyone,
            methods: get(document),
            operations: &[DOCUMENT],
        },
        Route { path: "/docs", access: Access::Anyone, methods: get(page), operations: &[PAGE] },
        Route {
            path: "/docs.css",
            access: Access::Anyone,
            methods: get(style),
            operations: &[STYLE],
        },
    ]
}

/// `GET /v1/openapi.json`: the same for every installation, so that it needs no token.
async fn document(State(_): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| format!("{:#}", openapi::document(&super::routes())));
    Query::of(request.uri(), &DOCUMENT)?;
    Ok(([(header::CONTENT_TYPE, JSON)], TEXT.as_str()).into_response())
}

/// `GET /docs`
async fn page(State(_): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    static TEXT: LazyLock<String> =
        LazyLock::new(|| openapi::page::html(&openapi::document(&super::routes())));
    Query::of(request.uri(), &PAGE)?;
    let headers = [
        (header::CONTENT_TYPE, HTML),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
    ];
    Ok((headers, TEXT.as_str()).into_response())
}

/// `GET /docs.css`
async fn style(State(_): State<HttpState>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &STYLE)?;
    let headers = [(header::CONTENT_TYPE, CSS), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
    Ok((headers, openapi::page::STYLE).into_response())
}

/// Nothing but our own style.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
                      frame-ancestors 'none'";
const JSON: &str = "application/json";
const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";

const DOCUMENT: Operation = Operation {
    id: "getDocument",
    path: "/v1/openapi.json",
    group: "Document",
    about: "This document. Needs no token.",
    answers: &[Answer::ok("OpenAPI 3.1", &[Content::of(JSON, Shape::Any)])],
    ..Operation::GET
};

const PAGE: Operation = Operation {
    id: "getDocumentPage",
    path: "/docs",
    group: "Document",
    about: "This document for people. Needs no token.",
    answers: &[Answer::ok("A page", &[Content::of(HTML, Shape::Text)])],
    ..Operation::GET
};

const STYLE: Operation = Operation {
    id: "getDocumentStyle",
    path: "/docs.css",
    group: "Document",
    about: "What the page looks like.",
    answers: &[Answer::ok("A style sheet", &[Content::of(CSS, Shape::Text)])],
    ..Operation::GET
};
