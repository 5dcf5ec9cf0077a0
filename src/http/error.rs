//! What goes wrong with a request, and the one shape in which it is told.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::store::{Missing, StoreError};

/// Why a request is not answered with what it asked for.
#[derive(Debug)]
pub enum ApiError {
    /// Parameters are wrong: every one of them is listed.
    Input(Vec<Field>),
    /// There is no token where one is needed, or it is not known.
    Unauthorized(&'static str),
    /// The token is good and not for this.
    Forbidden(String),
    /// There is nothing by that name.
    NotFound {
        /// The machine-readable name of the error.
        code: &'static str,
        /// What was looked for.
        message: String,
        /// Why it is not there.
        reason: Option<Missing>,
    },
    /// The path exists and not for this method.
    Method,
    /// There is no room for another one now.
    TooMany(&'static str),
    /// The caller has asked as often as he may in a minute.
    TooOften {
        /// In how many seconds he may ask again.
        wait_secs: u64,
    },
    /// There is too much to do at the moment.
    Busy,
    /// What was sent is not taken, for a reason of its own.
    Refused {
        /// The status.
        status: StatusCode,
        /// The machine-readable name of the error.
        code: &'static str,
        /// Why.
        message: String,
    },
    /// The store cannot answer now.
    Store(StoreError),
    /// A task of ours ended without an answer.
    Internal(&'static str),
}

/// A parameter that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Field {
    /// What is wrong with it.
    pub message: String,
    /// Its name.
    pub key: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    status_code: u16,
    error: &'a str,
    message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fields: &'a [Field],
}

impl ApiError {
    /// One wrong parameter.
    pub fn field(key: &str, message: impl Into<String>) -> Self {
        Self::Input(vec![Field { message: message.into(), key: key.to_owned() }])
    }

    /// What was sent is not taken, for a reason of its own.
    pub fn refused(status: StatusCode, code: &'static str, message: String) -> Self {
        Self::Refused { status, code, message }
    }

    /// The status it is told with.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Refused { status, .. } => *status,
            Self::Input(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooMany(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::TooOften { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(StoreError::Busy | StoreError::DiskFull) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Store(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Writes down what only the operator is told.
    pub(super) fn log(&self) {
        match self {
            Self::Store(StoreError::Busy | StoreError::DiskFull) => {}
            Self::Store(error) => tracing::error!(?error, "a look-up failed"),
            Self::Internal(what) => tracing::error!(what, "a request failed"),
            _ => {}
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Input(_) => "InputValidationError",
            Self::Unauthorized(_) => "Unauthorized",
            Self::Forbidden(_) => "Forbidden",
            Self::NotFound { code, .. } => code,
            Self::Method => "MethodNotAllowed",
            Self::TooMany(_) => "TooManyStreams",
            Self::TooOften { .. } => "TooManyRequests",
            Self::Busy => "ServerBusy",
            Self::Refused { code, .. } => code,
            Self::Store(StoreError::Busy | StoreError::DiskFull) => "StoreBusy",
            Self::Store(_) => "StoreFailed",
            Self::Internal(_) => "InternalError",
        }
    }

    /// What is told to people.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::Input(_) => "Invalid input",
            Self::Unauthorized(why) | Self::TooMany(why) => why,
            Self::Forbidden(why) => why,
            Self::NotFound { message, .. } | Self::Refused { message, .. } => message,
            Self::Method => "This path does not take this method",
            Self::TooOften { .. } => "There were as many requests as there may be in a minute",
            Self::Busy | Self::Store(StoreError::Busy | StoreError::DiskFull) => {
                "Try again in a moment"
            }
            // What a file is called, or why it cannot be read, is for the log.
            Self::Store(_) | Self::Internal(_) => "Something went wrong here; the log says what",
        }
    }

    /// In how many seconds it is worth asking again (RFC 9110 §10.2.3).
    fn retry_after_secs(&self) -> Option<u64> {
        match self {
            Self::TooOften { wait_secs } => Some(*wait_secs),
            Self::Refused { status: StatusCode::TOO_MANY_REQUESTS, .. } => Some(60),
            Self::Busy | Self::Store(StoreError::Busy) => Some(1),
            _ => None,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.log();
        let status = self.status();
        let reason = match &self {
            Self::NotFound { reason: Some(Missing::NeverSeen), .. } => Some("never_seen"),
            Self::NotFound { reason: Some(Missing::Purged), .. } => Some("purged"),
            _ => None,
        };
        let body = Body {
            status_code: status.as_u16(),
            error: status.canonical_reason().unwrap_or_default(),
            message: self.message(),
            code: self.code(),
            reason,
            fields: if let Self::Input(fields) = &self { fields } else { &[] },
        };
        let mut response = (status, Json(body)).into_response();
        if matches!(self, Self::Unauthorized(_)) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        if let Some(secs) = self.retry_after_secs() {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        response
    }
}

/// RFC 6750 §3.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"rebound\"");
