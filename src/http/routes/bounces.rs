//! `/v1/bounces`: what became of a mail, and what came back from an address.

use axum::extract::{Request, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::known::Known;
use super::{
    ApiError, HttpState, PAGE_SIZE, PAGE_SIZE_MAX, Submissions, answer, by_message_id, by_queue_id,
    closing, id_in_path, look_up, message_id, queue_id,
};
use crate::http::auth::Caller;
use crate::http::query::Query;
use crate::store::Store;
use crate::store::record::{Bounce, BounceId};
use crate::view;

/// `GET /v1/bounces/{messageId}`: the core look-up.
pub(super) async fn of_message(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    Query::parse(request.uri().query(), &[])?;
    let id = id_in_path(request.uri().path(), "/v1/bounces/")?;
    of_message_id(&state, caller, &id).await
}

/// `GET /v1/bounces?messageId=`, `?queueId=` or `?recipient=`.
pub(super) async fn search(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let keys = ["messageId", "queueId", "recipient", "cursor", "pageSize"];
    let query = Query::parse(request.uri().query(), &keys)?;
    match (query.value("messageId"), query.value("queueId"), query.value("recipient")) {
        (Some(id), None, None) => of_message_id(&state, caller, id).await,
        (None, Some(id), None) => of_queue_id(&state, caller, id).await,
        (None, None, Some(address)) => of_recipient(&state, caller, address, &query).await,
        _ => Err(ApiError::field(
            "messageId",
            "exactly one of \"messageId\", \"queueId\" and \"recipient\" is needed",
        )),
    }
}

async fn of_message_id(state: &HttpState, caller: Caller, id: &str) -> Result<Response, ApiError> {
    let id = message_id(id)?;
    let closing = closing(state);
    let found = look_up(state, move |store| {
        let Submissions { records, by_alias } = by_message_id(store, &caller, &id)?;
        Ok(view::lookup(&records, by_alias, closing))
    });
    Ok(answer(found.await?.unwrap_or_default()))
}

async fn of_queue_id(state: &HttpState, caller: Caller, id: &str) -> Result<Response, ApiError> {
    let id = queue_id("queueId", id)?;
    let closing = closing(state);
    let found = look_up(state, move |store| {
        Ok(view::submission(&by_queue_id(store, &caller, id)?, closing))
    });
    Ok(answer(found.await?))
}

async fn of_recipient(
    state: &HttpState,
    caller: Caller,
    address: &str,
    query: &Query,
) -> Result<Response, ApiError> {
    let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
    let before = query.value("cursor").map(cursor).transpose()?;
    let address = address.trim().to_lowercase();
    if !address.contains('@') {
        return Err(ApiError::field("recipient", "\"recipient\" must be an address"));
    }
    let page = look_up(state, move |store| {
        let mut known = Known::new(store);
        let mut is_shown = |bounce: &Bounce| known.may_see(&caller, bounce);
        let (bounces, next) = page(store, &address, before, page_size, &mut is_shown)?;
        let shown = bounces.iter().map(|bounce| known.show(bounce)).collect::<Result<Vec<_>, _>>();
        let mut page = json!({ "recipient": address, "bounces": shown? });
        if let (Some(next), Value::Object(map)) = (next, &mut page) {
            map.insert("cursor".to_owned(), Value::String(next.0));
        }
        Ok(page)
    });
    Ok(answer(page.await?))
}

/// The next bounces of an address, and where the page after them begins. News of delays and
/// deliveries stand between them in the store and are passed over, as are bounces of others.
fn page(
    store: &Store,
    address: &str,
    mut before: Option<BounceId>,
    page_size: usize,
    is_shown: &mut dyn FnMut(&Bounce) -> Result<bool, ApiError>,
) -> Result<(Vec<Bounce>, Option<BounceId>), ApiError> {
    let mut bounces = Vec::new();
    for _ in 0..FETCHES_MAX {
        let fetched = store.by_recipient(address, before.as_ref(), PAGE_SIZE_MAX)?;
        let is_last = fetched.len() < PAGE_SIZE_MAX;
        for bounce in fetched {
            if bounces.len() == page_size {
                return Ok((bounces, before));
            }
            before = Some(bounce.id.clone());
            if bounce.is_failure() && is_shown(&bounce)? {
                bounces.push(bounce);
            }
        }
        if is_last {
            return Ok((bounces, None));
        }
    }
    Ok((bounces, before))
}

/// A cursor is the id of the last bounce of the page before: 20 hexadecimal digits.
fn cursor(text: &str) -> Result<BounceId, ApiError> {
    let is_id = text.len() == CURSOR_CHARS && text.bytes().all(|b| b.is_ascii_hexdigit());
    if is_id {
        Ok(BounceId(text.to_owned()))
    } else {
        Err(ApiError::field("cursor", "\"cursor\" must be one that a page gave"))
    }
}

/// Pages of the store that are looked through for one page of an answer.
const FETCHES_MAX: usize = 10;

const CURSOR_CHARS: usize = 20;
