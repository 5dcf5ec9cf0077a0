//! `POST /v1/account/{account}/submit`: a mail as JSON, through the same door as one by SMTP.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use axum::routing::post;
use serde_json::json;

use super::{ApiError, HttpState, Peer, answer, not_found};
use crate::config::{BareNewline, Settings};
use crate::http::auth::Caller;
use crate::http::body::{BodyLimits, Whole, read_json};
use crate::http::compose::{Letter, Terms, letter, parse};
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::{Address, NameAddr, Reply, base64};
use crate::maillog::{self, Line};
use crate::secret::sha256_hex;
use crate::store::record::{Control, Idempotency};
use crate::submission::stamp::Protocol;
use crate::submission::{Accepted, Checks, DEFAULT_ACCOUNT, Door, Offer, Refusal, control};
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    vec![Route {
        path: "/v1/account/{account}/submit",
        access: Access::Own(Scope::Submit),
        methods: post(submit),
        operations: &[SUBMIT],
    }]
}

/// Answers once the mail is on disk, or with the mail itself where it is only to be shown.
async fn submit(
    State(state): State<HttpState>,
    Path(account): Path<String>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    Query::of(request.uri(), &SUBMIT)?;
    caller.asks_of(Some(&account))?;
    let settings = Arc::clone(&state.inner.settings.borrow());
    let sender = sender(&state, &settings, &account)?;
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    let limits = BodyLimits::of(&settings.http);
    let Whole { octets, share } = read_json(body, &parts.headers, &state.memory, limits).await?;
    let once = key.map(|key| Idempotency { key, fingerprint: sha256_hex(&octets) });
    if let Some(once) = &once
        && let Some(known) = state.inner.door.known(&account, once).await.map_err(refused)?
    {
        return Ok(queued(&known, Some(&once.key)));
    }
    let terms = Terms {
        now: state.inner.clock.now(),
        send_ahead_max: settings.queue.send_at_max.duration(),
        recipients_max: usize::try_from(settings.submission.recipients_max).unwrap_or(usize::MAX),
        sender,
        mends_lines: settings.submission.bare_newline == BareNewline::Normalize,
    };
    // Decoding so many octets takes a while.
    let read = tokio::task::spawn_blocking(move || {
        let value = parse(&octets)?;
        drop(octets);
        letter(value, &terms)
    });
    let panicked = |_error| Err(ApiError::Internal("reading a submission ended in a panic"));
    let Letter { envelope, mail, control, is_dry_run } = read.await.unwrap_or_else(panicked)?;
    let peer = parts.extensions.get::<Peer>().map(|Peer(address)| address.ip());
    let key = once.as_ref().map(|once| once.key.clone());
    let mut offer = Offer {
        settings: Arc::clone(&settings),
        account,
        envelope,
        helo: None,
        peer,
        protocol: Protocol::Http,
        control: Control { idempotency: once, ..control },
    };
    let door = &state.inner.door;
    let checks =
        Checks { settings: &settings, door, guards: &state.inner.guards, account: &offer.account };
    let size_bytes = u64::try_from(mail.len()).unwrap_or(u64::MAX);
    let told = |reply: Reply| {
        log_rejected(&state, &offer, &reply);
        told(&reply)
    };
    checks.sender(&offer.envelope.reverse_path, size_bytes).map_err(told)?;
    if is_dry_run {
        let (message_id, octets) = door.preview(offer, &mail).map_err(refused)?;
        return Ok(answer(json!({
            "response": "Dry run",
            "messageId": message_id.to_string(),
            "preview": base64::encode(&octets),
        })));
    }
    checks.count_message().map_err(told)?;
    for _ in &offer.envelope.recipients {
        checks.count_recipient().map_err(told)?;
    }
    suppress(&mut offer, door);
    let accepted = door.submit(offer, &mail).await.map_err(refused)?;
    drop(share);
    Ok(queued(&accepted, key.as_deref()))
}

/// Marks the recipients that are suppressed: the others get the mail, and these are never tried.
fn suppress(offer: &mut Offer, door: &Door) {
    for recipient in &mut offer.envelope.recipients {
        let why = door.suppressed(&offer.settings, &offer.account, &recipient.address);
        recipient.is_suppressed = why.is_some();
    }
}

fn queued(accepted: &Accepted, key: Option<&str>) -> Response {
    let Accepted { queue_id, message_id, send_at, is_repeated } = accepted;
    let once = key.map(|key| (key, *is_repeated));
    answer(view::submitted(message_id, *queue_id, *send_at, once))
}

/// Who a mail of this account is from unless it says; 404 for an account that is not there.
///
/// In `rebound dev` every account is there, and has an address.
fn sender(
    state: &HttpState,
    settings: &Settings,
    account: &str,
) -> Result<Option<NameAddr>, ApiError> {
    let known = settings.account(account);
    let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
    let is_any = state.inner.auth.takes_any_token() && account.chars().all(is_word);
    if known.is_none() && account != DEFAULT_ACCOUNT && !is_any {
        return Err(not_found("AccountNotFound", "There is no account of this name", None));
    }
    if let Some(from) = known.and_then(|account| account.from.clone()) {
        return Ok(Some(from));
    }
    let made_up = is_any.then(|| Address::parse(&format!("{account}@{}", settings.hostname)));
    Ok(made_up.and_then(Result::ok).map(NameAddr::from))
}

/// The key, with or without the quotes that the header's draft gives it
/// (draft-ietf-httpapi-idempotency-key-header §2.1).
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let mut values = headers.get_all(KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    let quoted = text.strip_prefix('"').and_then(|inner| inner.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    if values.next().is_some() || !control::is_key(key) {
        let expected = control::key_expected();
        return Err(ApiError::field(KEY, format!("\"{KEY}\" must be {expected}, given once")));
    }
    Ok(Some(key.to_owned()))
}

/// Counts and logs a mail that is refused before the door has it.
fn log_rejected(state: &HttpState, offer: &Offer, reply: &Reply) {
    state.inner.metrics.message_rejected("http");
    let (from, text) = (offer.envelope.reverse_path.to_string(), reply.to_string());
    let client = offer.peer.map(|peer| peer.to_canonical().to_string());
    maillog::rejected(&Line {
        account: Some(&offer.account),
        from: Some(&from),
        status: reply.status,
        reply: Some(&text),
        client: client.as_deref(),
        ..Line::default()
    });
}

/// A reply of SMTP as an answer of HTTP.
fn told(reply: &Reply) -> ApiError {
    let (status, code) = match reply.code {
        450 => (StatusCode::TOO_MANY_REQUESTS, "TooManyMessages"),
        451 | 452 => return ApiError::Busy,
        553 => (StatusCode::FORBIDDEN, "SenderNotAllowed"),
        _ => (StatusCode::BAD_REQUEST, "MessageRefused"),
    };
    ApiError::refused(status, code, reply.text.clone())
}

fn refused(refusal: Refusal) -> ApiError {
    let (status, code) = match refusal {
        Refusal::Store(error) => return ApiError::Store(error),
        Refusal::ClientMailTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "MessageTooLarge"),
        Refusal::ClientSender { .. } => (StatusCode::FORBIDDEN, "SenderNotAllowed"),
        // draft-ietf-httpapi-idempotency-key-header §2.7.
        Refusal::ClientKeyReused => (StatusCode::UNPROCESSABLE_ENTITY, "IdempotencyKeyReused"),
        _ => (StatusCode::BAD_REQUEST, "MessageRefused"),
    };
    ApiError::refused(status, code, refusal.to_string())
}

const KEY: &str = "Idempotency-Key";

const SUBMIT: Operation = Operation {
    id: "submitMessage",
    path: "/v1/account/{account}/submit",
    group: "Submission",
    about: "Takes a mail over; it is on disk when this is answered.",
    headers: &[Parameter::new(KEY, Shape::Text, "The mail is taken once under it, for 48 hours")],
    takes: &[Content::json("Letter")],
    answers: &[
        Answer::ok("It is taken over, or shown", &[Content::json("Submitted")]),
        Answer::refusal(422, "The key was used for another mail"),
        Answer::refusal(429, "The account has sent as many as it may in a minute"),
    ],
    ..Operation::POST
};
