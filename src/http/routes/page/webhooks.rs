//! The webhooks, and what they have not delivered.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place, fact, time};
use super::message::took;
use super::{Page, Viewer, text};
use crate::http::client::encode;
use crate::http::error::ApiError;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::mail::Timestamp;
use crate::store::record::Delivery;
use crate::store::{DeliveryEnd, DeliveryEnded};
use crate::view::{MailTold, WaitingDelivery, WebhookStatus};

/// `GET /webhooks`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    request: Request,
) -> Result<Response, Failed> {
    Query::parse(request.uri().query(), &[])?;
    let webhooks = page.http.inner.webhooks.list();
    let content = html! {
        div #live {
            div.head { h1 { "Webhooks" } }
            @if webhooks.is_empty() {
                p.panel.empty {
                    "Nobody is told. A " code { "[[webhook]]" }
                    " table in the configuration names a URL."
                }
            }
            @for webhook in &webhooks { (shown(webhook, &viewer)) }
        }
    };
    let frame = Frame { title: "Webhooks", place: Place::Webhooks, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

/// `POST /webhooks/{name}/enable`: goes on with one whose other side had said 410.
pub(super) async fn enable(
    State(page): State<Page>,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    page.http.inner.webhooks.enable(&name).await.map_err(ApiError::from)?;
    Ok(Redirect::to("/webhooks").into_response())
}

/// What webhooks were told of one mail, and what they are still to be told.
pub(super) fn about(told: &MailTold) -> Markup {
    html! {
        section.panel {
            h2 { "Webhooks" }
            @if told.is_empty() { p.faint { "Nobody has been told of this mail." } }
            @else {
                table {
                    caption.unseen { "What webhooks were told of this mail, oldest first" }
                    thead {
                        tr {
                            th scope="col" { "Event" }
                            th.extra scope="col" { "Attempts" }
                            th.extra scope="col" { "Answer" }
                            th.extra scope="col" { "When" }
                            th scope="col" { "State" }
                        }
                    }
                    tbody {
                        @for one in &told.ended { (ended(one)) }
                        @for one in &told.waiting { (waiting(one)) }
                    }
                }
            }
            @if told.has_more { p.faint { "There are more than are shown here." } }
        }
    }
}

fn ended(ended: &DeliveryEnded) -> Markup {
    let (health, state) = match ended.end {
        DeliveryEnd::Taken => ("delivered", "taken"),
        DeliveryEnd::GivenUp => ("failed", "given up"),
    };
    html! {
        tr {
            (event(&ended.event, &ended.webhook, &ended.error, Some(ended.ended_at)))
            td.extra { (ended.attempts) }
            td.extra.nowrap {
                @match ended.status { Some(status) => (status), None => "none" }
                @if let Some(millis) = ended.took_millis {
                    " in " (took(Duration::from_millis(millis)))
                }
            }
            td.extra.nowrap { (time(ended.ended_at)) }
            td.chips { span.chip.(health) { (state) } }
        }
    }
}

fn waiting(waiting: &WaitingDelivery) -> Markup {
    let WaitingDelivery { webhook, is_disabled, delivery } = waiting;
    let is_failing = delivery.attempts > 0;
    html! {
        tr data-waits {
            (event(&delivery.event, webhook, &delivery.error, None))
            td.extra { (delivery.attempts) }
            td.extra {}
            td.extra.nowrap {
                @if *is_disabled { "disabled" }
                @else if is_failing { "next " (time(delivery.next_attempt)) }
            }
            td.chips { span.chip.(if is_failing { "deferred" } else { "queued" }) { "waiting" } }
        }
    }
}

/// The name of a row: which event, for whom, and what went wrong last.
fn event(event: &str, webhook: &str, error: &str, at: Option<Timestamp>) -> Markup {
    html! {
        th scope="row" {
            (if event.is_empty() { "an event" } else { event })
            span.under { "to " (text::address(webhook)) }
            @if !error.is_empty() {
                span.under { "last error: " (text::words(error, ERROR_CHARS_MAX)) }
            }
            @if let Some(at) = at { span.under.narrow { (time(at)) } }
        }
    }
}

fn shown(webhook: &WebhookStatus, viewer: &Viewer) -> Markup {
    let cursor = &webhook.cursor;
    let failing = cursor.waiting.iter().filter(|delivery| delivery.attempts > 0).count();
    let (health, state) = match (cursor.disabled, failing) {
        (Some(_), _) => ("failed", "disabled"),
        (None, 0) => ("delivered", "active"),
        (None, _) => ("deferred", "failing"),
    };
    let list = |words: &[String]| {
        text::address(&if words.is_empty() { "all".to_owned() } else { words.join(", ") })
    };
    html! {
        section.panel {
            div.head {
                h2 { (text::address(&webhook.name)) }
                span.chip.(health) { (state) }
            }
            @if let Some((at, error)) = &webhook.last_error {
                p { "Last error, " (time(*at)) ":" }
                blockquote { (text::said(error)) }
            }
            dl.facts {
                (fact("URL", Some(text::address(&webhook.url))))
                (fact("Format", Some(html! { (webhook.format) })))
                (fact("Events", Some(list(&webhook.events))))
                (fact("Accounts", Some(list(&webhook.accounts))))
                (fact("Taken last", webhook.last_success.map(time)))
                (fact("Waiting", Some(html! { (cursor.waiting.len()) })))
                (fact("Given up", Some(html! { (cursor.given_up.len()) })))
                (fact("Disabled", cursor.disabled.map(|(at, _)| time(at))))
            }
            @let given_up: Vec<&Delivery> = cursor.given_up.iter().collect();
            @let waiting: Vec<&Delivery> = cursor.waiting.iter().collect();
            (deliveries(&given_up, &waiting))
            @if viewer.is_admin && cursor.disabled.is_some() {
                form method="post" action={ "/webhooks/" (encode(&webhook.name)) "/enable" } {
                    button { "Go on" }
                }
            }
        }
    }
}

fn deliveries(given_up: &[&Delivery], waiting: &[&Delivery]) -> Markup {
    let all =
        given_up.iter().map(|one| (*one, true)).chain(waiting.iter().map(|one| (*one, false)));
    html! {
        @if !(given_up.is_empty() && waiting.is_empty()) {
            table {
                caption.unseen { "What has not been delivered" }
                thead {
                    tr {
                        th scope="col" { "About" }
                        th scope="col" { "Attempts" }
                        th.extra scope="col" { "Next attempt" }
                        th.extra scope="col" { "Last error" }
                    }
                }
                tbody {
                    @for (one, is_lost) in all.take(DELIVERIES_MAX) {
                        tr {
                            th scope="row" {
                                @match one.queue_id {
                                    Some(mail) => {
                                        a href=(frame::path_of(mail)) { code { (mail) } }
                                    }
                                    None => "no mail",
                                }
                                @if !one.event.is_empty() { span.under { (one.event) } }
                            }
                            td { (one.attempts) }
                            td.extra {
                                @if is_lost { "given up" }
                                @else if one.attempts > 0 { (time(one.next_attempt)) }
                                @else { "waits" }
                            }
                            td.extra { (text::words(&one.error, ERROR_CHARS_MAX)) }
                        }
                    }
                }
            }
        }
    }
}

/// Deliveries of one webhook that are listed; the API lists all.
const DELIVERIES_MAX: usize = 50;

/// Characters of an error that are shown in the list.
const ERROR_CHARS_MAX: usize = 200;
