//! Names in the path of a request, for which what is wrong is told as everything else is.

use axum::extract::{FromRequestParts, Path as Router};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::ApiError;

/// What the placeholders of a route stand for, percent-decoded.
#[derive(Clone, Debug)]
pub(super) struct Path<T>(pub(super) T);

impl<S, T> FromRequestParts<S> for Path<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let found = Router::<T>::from_request_parts(parts, state).await;
        let Router(names) = found.map_err(|_not_text| {
            ApiError::field("path", "a name in the path is not percent-encoded UTF-8")
        })?;
        Ok(Self(names))
    }
}
