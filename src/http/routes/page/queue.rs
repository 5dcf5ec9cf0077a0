//! What waits to be handed over, and having it tried or given up.

use axum::Extension;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place};
use super::{Page, Viewer, text};
use crate::http::query::Query;
use crate::http::routes::{look_up, not_found, outbox};
use crate::mail::QueueId;
use crate::store::record::{Attempt, OrderAction};
use crate::store::{LiveMessage, LiveRecipient, QueueRange};

/// A mail in the queue with the start of its header.
struct Waiting {
    live: LiveMessage,
    header: Vec<u8>,
}

/// `GET /queue`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    request: Request,
) -> Result<Response, Failed> {
    Query::parse(request.uri().query(), &[])?;
    let caller = viewer.caller.clone();
    let found = look_up(&page.http, move |store| {
        let (in_all, mails) =
            store.queue_page(QueueRange { account: caller.account(), before: None }, 0, ROWS_MAX);
        let mut waiting = Vec::new();
        for live in mails {
            let mail = store.submission(live.queue_id)?.ok();
            waiting.extend(mail.map(|mail| Waiting { live, header: mail.header }));
        }
        Ok((waiting, in_all))
    });
    let (waiting, in_all) = found.await?;
    let content = html! {
        div #live {
            div.head {
                h1 { "Queue" }
                p.faint {
                    (in_all) @if in_all == 1 { " mail waits" } @else { " mails wait" }
                    @if in_all > waiting.len() { ", the newest " (waiting.len()) " are shown" }
                }
            }
            @if waiting.is_empty() {
                p.panel.empty { "Nothing waits: everything has been handed over or given up." }
            } @else {
                (rows(&waiting, &viewer))
            }
        }
    };
    let frame = Frame { title: "Queue", place: Place::Queue, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

/// `POST /queue/{queueId}/{action}`: what the outbox of the API does.
pub(super) async fn order(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    Path((id, action)): Path<(String, String)>,
) -> Result<Response, Failed> {
    let action = match action.as_str() {
        "retry" => OrderAction::Retry,
        "cancel" => OrderAction::Cancel,
        _ => return Err(not_found("NotFound", "There is no such path", None).into()),
    };
    outbox::ordered(&page.http, viewer.caller, &id, action).await?;
    Ok(Redirect::to("/queue").into_response())
}

/// What can be done with a mail that waits; giving it up takes two steps, as nothing undoes it.
pub(super) fn orders(id: QueueId) -> Markup {
    html! {
        div.orders {
            form method="post" action={ "/queue/" (id) "/retry" } { button { "Retry now" } }
            details data-key={ "cancel-" (id) } {
                summary { "Cancel …" }
                form method="post" action={ "/queue/" (id) "/cancel" } {
                    button.danger { "Try nobody any more" }
                }
            }
        }
    }
}

fn rows(waiting: &[Waiting], viewer: &Viewer) -> Markup {
    html! {
        table.rows {
            caption.unseen { "Mails in the queue, newest first" }
            thead {
                tr {
                    th scope="col" { "Mail" }
                    th.extra scope="col" { "Next attempt" }
                    th.extra scope="col" { "Last answer" }
                    th scope="col" { "State" }
                }
            }
            tbody { @for one in waiting { (row(one, viewer)) } }
        }
    }
}

fn row(one: &Waiting, viewer: &Viewer) -> Markup {
    let live = &one.live;
    let is_waiting = |recipient: &&LiveRecipient| !recipient.state.has_left_queue();
    let waiting: Vec<&LiveRecipient> = live.recipients.iter().filter(is_waiting).collect();
    let next = waiting.iter().map(|recipient| recipient.next_attempt).min();
    let last = waiting.iter().filter_map(|recipient| recipient.last.as_ref());
    let last: Option<&Attempt> = last.max_by_key(|attempt| attempt.ended_at);
    let said = last.and_then(|last| {
        last.reply.as_ref().map(ToString::to_string).or_else(|| last.error.clone())
    });
    let states: Vec<_> = live.recipients.iter().map(|recipient| recipient.state).collect();
    html! {
        tr data-key=(live.queue_id) {
            th scope="row" {
                a.main href=(frame::path_of(live.queue_id)) { (text::subject(&one.header)) }
                span.under {
                    @if let Some(first) = waiting.first() {
                        "to " (text::address(first.address.as_str()))
                        @if waiting.len() > 1 { " and " (waiting.len().saturating_sub(1)) " more" }
                    } @else {
                        "A notice is owed."
                    }
                    @if live.held { " (held)" }
                }
                @if viewer.is_admin && !waiting.is_empty() { (orders(live.queue_id)) }
            }
            td.extra.nowrap { @if let Some(next) = next { (frame::time(next)) } }
            td.extra { @if let Some(said) = &said { (text::words(said, SAID_CHARS_MAX)) } }
            td.chips { (frame::chips(&states)) }
        }
    }
}

/// Mails of the queue that are shown, the newest.
const ROWS_MAX: usize = 200;

/// Characters of the last answer that are shown.
const SAID_CHARS_MAX: usize = 200;
