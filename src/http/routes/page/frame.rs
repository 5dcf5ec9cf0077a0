//! What is around every page, and the small parts that they share.

use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};
use serde::Serialize;
use serde_json::Value;

use super::Viewer;
use crate::http::client::encode;
use crate::http::error::ApiError;
use crate::mail::{QueueId, Timestamp};
use crate::store::state::State;

/// A page without its content.
pub(super) struct Frame<'a> {
    /// What the browser calls it.
    pub(super) title: &'a str,
    /// Where it is in the navigation.
    pub(super) place: Place,
    /// Who looks at it.
    pub(super) viewer: &'a Viewer,
}

/// Where a page stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Messages,
    Bounces,
    Queue,
    Mailboxes,
    Webhooks,
    /// In front of the others: they cannot be reached from there.
    SignIn,
}

/// An error, as a page.
pub(super) struct Failed(ApiError);

impl Frame<'_> {
    /// The whole page.
    pub(super) fn around(&self, content: &Markup) -> Html<String> {
        let is_inside = self.place != Place::SignIn;
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    title { (self.title) " · Rebound" }
                    link rel="icon" href="/page/icon.svg" type="image/svg+xml";
                    link rel="stylesheet" href="/page/style.css";
                    @if is_inside { script src="/page/live.js" defer {} }
                }
                body {
                    a.skip href="#main" { "Skip to the content" }
                    header.top {
                        div.wide {
                            a.brand href="/" { (logo()) "Rebound" }
                            @if is_inside { (self.navigation()) }
                        }
                    }
                    main #main.wide tabindex="-1" data-seen=(self.viewer.seen) { (content) }
                    footer.wide {
                        p {
                            "Times are in " span #zone { "UTC" } ". "
                            span #live-state hidden { "Live: the page follows what happens." }
                        }
                    }
                    p #news.unseen role="status" {}
                }
            }
        };
        Html(page.into_string())
    }

    fn navigation(&self) -> Markup {
        let mut places = vec![
            (Place::Messages, "/", "Messages"),
            (Place::Bounces, "/bounces", "Bounces"),
            (Place::Queue, "/queue", "Queue"),
        ];
        if self.viewer.caller.account().is_none() {
            places.push((Place::Mailboxes, "/mailboxes", "Mailboxes"));
            places.push((Place::Webhooks, "/webhooks", "Webhooks"));
        }
        html! {
            nav aria-label="Main" {
                ul {
                    @for (place, path, name) in places {
                        li {
                            a href=(path) aria-current=[(place == self.place).then_some("page")] {
                                (name)
                            }
                        }
                    }
                }
            }
            @if self.viewer.has_session {
                form method="post" action="/sign-out" { button.quiet { "Sign out" } }
            }
        }
    }
}

impl From<ApiError> for Failed {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl From<crate::store::StoreError> for Failed {
    fn from(error: crate::store::StoreError) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let Self(error) = self;
        error.log();
        let status = error.status();
        let title = status.canonical_reason().unwrap_or("Error");
        let frame = Frame { title, place: Place::Messages, viewer: &Viewer::default() };
        let content = html! {
            h1 { (title) }
            p { (error.message()) "." }
            @if let ApiError::Input(fields) = &error {
                ul { @for field in fields { li { (field.message) } } }
            }
            p { a href="/" { "To the messages" } }
        };
        (status, frame.around(&content)).into_response()
    }
}

/// A page that is there.
pub(super) fn answer(frame: &Frame<'_>, content: &Markup) -> Response {
    (StatusCode::OK, frame.around(content)).into_response()
}

/// A state as a coloured word.
pub(super) fn chip(state: State) -> Markup {
    html! { span.chip.(state.as_str()) { (state.as_str()) } }
}

/// The states of all recipients of a mail: the word for one, numbers for several.
pub(super) fn chips(states: &[State]) -> Markup {
    let mut counts = std::collections::BTreeMap::<State, usize>::new();
    for state in states {
        let count = counts.entry(*state).or_default();
        *count = count.saturating_add(1);
    }
    html! {
        @for (state, count) in counts {
            span.chip.(state.as_str()) {
                @if states.len() > 1 { (count) " " }
                (state.as_str())
            }
            " "
        }
    }
}

/// A moment, which the script shows in the viewer's own time.
pub(super) fn time(moment: Timestamp) -> Markup {
    let full = moment.rfc3339();
    let shown = full.get(..19).unwrap_or(&full).replace('T', " ");
    html! { time datetime=(full) { (shown) } }
}

/// The word that stands for a value in JSON.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(word)) => word,
        _ => String::new(),
    }
}

/// The page of a mail.
pub(super) fn path_of(queue_id: QueueId) -> String {
    format!("/message/{queue_id}")
}

/// A row of facts, where the fact is known.
pub(super) fn fact(name: &str, value: Option<Markup>) -> Markup {
    html! { @if let Some(value) = value { div { dt { (name) } dd { (value) } } } }
}

/// What stands behind the `?` of an address.
pub(super) fn query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.filter(|(_, value)| !value.is_empty());
    pairs.map(|(key, value)| format!("{key}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// A link to what is older.
pub(super) fn older(path: &str, query: &str) -> Markup {
    html! {
        nav.pages aria-label="Pages" {
            a.button href={ (path) "?" (query) } rel="next" { "Older" }
        }
    }
}

/// Octets in a form that people read.
pub(super) fn size(octets: u64) -> String {
    match octets {
        0..1024 => format!("{octets} B"),
        1024..1_048_576 => format!("{} KiB", octets / 1024),
        _ => format!("{} MiB", octets / 1_048_576),
    }
}

/// A ball that bounces.
fn logo() -> Markup {
    html! {
        svg.logo viewBox="0 0 32 32" aria-hidden="true" {
            path d="M3 8c5 2 8 8 9.500 17C14 15 18 9 25 8.500" {}
            circle cx="27" cy="7.500" r="3.500" {}
        }
    }
}
