//! `/v1/events`: everything that happens, as a list to page through or as a stream to follow.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout, timeout_at};

use super::{
    ApiError, CURSOR, HttpState, PAGE_SIZE, PAGE_SIZE_MAX, PAGE_SIZE_PARAMETER, accepts, answer,
    look_up,
};
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::EVENT_NAMES;
use crate::net::shutdown::Shutdown;
use crate::store::Store;
use crate::view::{self, Teller, Told};

/// The streams that may still be opened.
#[derive(Clone, Debug)]
pub(in crate::http) struct Streams(Arc<Semaphore>);

impl Default for Streams {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(STREAMS_MAX)))
    }
}

/// Which events are wanted.
#[derive(Clone, Debug, Default)]
struct Filter {
    account: Option<String>,
    event: Option<String>,
}

/// What was found behind a place of the feed.
struct Found {
    /// The events that are wanted.
    events: Vec<Told>,
    /// The place up to which all was looked at.
    end: u64,
    /// Whether nothing lies behind it yet.
    is_last: bool,
}

pub(super) fn routes() -> Vec<Route> {
    vec![Route {
        path: "/v1/events",
        access: Access::Own(Scope::Read),
        methods: get(list_or_follow),
        operations: &[LIST],
    }]
}

/// `GET /v1/events?cursor=&pageSize=&account=&event=`, and the same as a stream where that is
/// what `Accept` asks for.
///
/// A list begins with the oldest event that is kept, a stream with what happens from now on.
pub(super) async fn list_or_follow(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    let filter = Filter::of(&query, &caller)?;
    let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
    let end = state.inner.store.events_end();
    // What lies ahead of everything would be waited for in silence.
    let place = |key: &str, text: &str| match place(key, text)? {
        place if place > end => {
            let why = "is ahead of all that has happened: it is of another data directory";
            Err(ApiError::field(key, format!("\"{key}\" {why}")))
        }
        place => Ok(place),
    };
    let cursor = query.value("cursor").map(|text| place("cursor", text)).transpose()?;
    if accepts(request.headers(), EVENT_STREAM) {
        let last_seen = request.headers().get("last-event-id").and_then(|id| id.to_str().ok());
        let last_seen = last_seen.map(|text| place("Last-Event-ID", text)).transpose()?;
        let from = last_seen.or(cursor).unwrap_or(end);
        let stopping = request.extensions().get::<Shutdown>().cloned();
        return follow(state, from, filter, stopping);
    }
    let page = look_up(&state, move |store| {
        let mut page =
            Found { events: Vec::new(), end: cursor.unwrap_or_default(), is_last: false };
        let mut looked_at: usize = 0;
        while !page.is_last && page.events.len() < page_size && looked_at < LOOKED_AT_MAX {
            let wanted = page_size.saturating_sub(page.events.len());
            looked_at = looked_at.saturating_add(wanted.max(FETCHED_MIN));
            let found = filter.find(store, page.end, wanted)?;
            page.events.extend(found.events);
            (page.end, page.is_last) = (found.end, found.is_last);
        }
        let events: Vec<Value> = page.events.iter().map(Told::entry).collect();
        Ok(json!({
            "events": events,
            "cursor": view::cursor(page.end),
            "more": !page.is_last,
        }))
    });
    Ok(answer(page.await?))
}

impl Filter {
    fn of(query: &Query, caller: &Caller) -> Result<Self, ApiError> {
        let event = query.value("event");
        if event.is_some_and(|event| !EVENT_NAMES.contains(&event)) {
            let names = EVENT_NAMES.join(", ");
            return Err(ApiError::field("event", format!("\"event\" must be one of {names}")));
        }
        let account = caller.asks_of(query.value("account"))?;
        Ok(Self { account, event: event.map(str::to_owned) })
    }

    fn wants(&self, told: &Told) -> bool {
        self.account.as_ref().is_none_or(|account| told.account.as_ref() == Some(account))
    }

    /// Looks behind the place `after` until `max` events are found that are wanted, or a piece of
    /// the feed has been looked at.
    fn find(&self, store: &Store, after: u64, max: usize) -> Result<Found, ApiError> {
        let piece = store.events_after(after, max.max(FETCHED_MIN))?;
        let mut teller = Teller::new(store);
        let mut found = Found { events: Vec::new(), end: piece.end, is_last: piece.is_last };
        for event in &piece.events {
            // The name is known before anything is looked up.
            let name = view::event_name(&event.what);
            if name.is_none() || self.event.as_deref().is_some_and(|event| name != Some(event)) {
                continue;
            }
            if found.events.len() >= max {
                found.end = event.place.saturating_sub(1);
                found.is_last = false;
                break;
            }
            found.events.extend(teller.tell(event)?.filter(|told| self.wants(told)));
        }
        Ok(found)
    }
}

/// Sends what happens as it happens, until the client or the daemon ends it.
fn follow(
    state: HttpState,
    from: u64,
    filter: Filter,
    stopping: Option<Shutdown>,
) -> Result<Response, ApiError> {
    let Ok(permit) = Arc::clone(&state.streams.0).try_acquire_owned() else {
        return Err(ApiError::TooMany("Too many streams of events are open; try again later"));
    };
    let (sender, body) = Channel::<Bytes>::new(1);
    let stream = Stream { state, after: from, filter, sender, _permit: permit };
    tokio::spawn(async move {
        if let Err(error) = stream.send_all(stopping).await {
            tracing::debug!(?error, "a stream of events has ended");
        }
    });
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would keep a stream until its buffer is full.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    Ok((headers, Body::new(body)).into_response())
}

/// A stream that is open.
struct Stream {
    state: HttpState,
    /// Everything up to this place has been sent.
    after: u64,
    filter: Filter,
    sender: Sender<Bytes>,
    _permit: OwnedSemaphorePermit,
}

/// Why a stream ends.
#[derive(Debug)]
enum StreamEnd {
    /// The client has gone, or does not read.
    PeerGone,
    /// The store cannot be read.
    StoreFailed,
}

impl Stream {
    async fn send_all(mut self, stopping: Option<Shutdown>) -> Result<(), StreamEnd> {
        let stopped = async {
            match &stopping {
                Some(stopping) => stopping.requested().await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(stopped);
        let end = Instant::now() + STREAM_LIFETIME;
        let mut feed = self.state.inner.store.feed();
        // At once, so that the client knows that it is connected.
        self.send(format!("retry: {}\n\n", RECONNECT_AFTER.as_millis())).await?;
        loop {
            // Marked before the look: what comes during it wakes the wait after it.
            feed.mark_unchanged();
            let is_last = self.send_what_is_there().await?;
            if stopping.as_ref().is_some_and(Shutdown::is_requested) {
                return Ok(());
            }
            if !is_last {
                continue;
            }
            let next = (Instant::now() + HEARTBEAT).min(end);
            tokio::select! {
                () = &mut stopped => return Ok(()),
                waited = timeout_at(next, feed.changed()) => match waited {
                    Ok(Ok(())) => {}
                    Ok(Err(_closed)) => return Ok(()),
                    Err(_elapsed) if next == end => return Ok(()),
                    Err(_elapsed) => self.send(":\n\n".to_owned()).await?,
                }
            }
        }
    }

    /// Sends one piece of the feed; whether it was the last.
    async fn send_what_is_there(&mut self) -> Result<bool, StreamEnd> {
        let (filter, after) = (self.filter.clone(), self.after);
        let found = look_up(&self.state, move |store| filter.find(store, after, PAGE_SIZE));
        let found = found.await.map_err(|_logged| StreamEnd::StoreFailed)?;
        for told in &found.events {
            self.send(streamed(told)).await?;
        }
        self.after = found.end;
        Ok(found.is_last)
    }

    async fn send(&mut self, text: String) -> Result<(), StreamEnd> {
        match timeout(SEND_TIMEOUT, self.sender.send_data(Bytes::from(text))).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(StreamEnd::PeerGone),
        }
    }
}

/// JSON holds no line break, so each event is one `data` line.
fn streamed(told: &Told) -> String {
    format!("id: {}\nevent: {}\ndata: {}\n\n", told.id(), told.event, told.entry())
}

pub(super) fn place(key: &str, text: &str) -> Result<u64, ApiError> {
    view::place_of(text)
        .ok_or_else(|| ApiError::field(key, format!("\"{key}\" must be one that an answer gave")))
}

const LIST: Operation = Operation {
    id: "listEvents",
    path: "/v1/events",
    group: "Events",
    about: "What happens to mails, oldest first. With `Accept: text/event-stream`: the same as it \
            happens, from now on or behind a cursor.",
    query: &[
        Parameter::new("account", Shape::Text, "About mails of this account"),
        Parameter::new("event", Shape::OneOf(&EVENT_NAMES), "Of this kind"),
        PAGE_SIZE_PARAMETER,
        CURSOR,
    ],
    headers: &[Parameter::new(
        "Last-Event-ID",
        Shape::Text,
        "The last event that a stream brought",
    )],
    answers: &[Answer::ok(
        "A page, or a stream",
        &[Content::json("EventPage"), Content::of(EVENT_STREAM, Shape::Text)],
    )],
    ..Operation::GET
};

const EVENT_STREAM: &str = "text/event-stream";

/// Streams that may be open at a time; each holds a connection, too.
const STREAMS_MAX: usize = 64;

/// Events of the feed that are looked at for one answer.
const LOOKED_AT_MAX: usize = 10_000;

/// Events that are read at a time, so that a filter which lets few through is soon done.
const FETCHED_MIN: usize = 100;

/// How often something is sent when nothing happens, so that nobody on the way hangs up.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How long a client may take to read what is sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a stream lasts, less than a connection; the client comes back with `Last-Event-ID`.
const STREAM_LIFETIME: Duration = Duration::from_secs(590);

/// How long a client is to wait before it comes back.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
