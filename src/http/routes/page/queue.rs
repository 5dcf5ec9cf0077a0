//! What waits to be handed over.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place};
use super::{Page, Viewer, text};
use crate::http::query::Query;
use crate::http::routes::look_up;
use crate::store::record::Attempt;
use crate::store::{LiveMessage, LiveRecipient};

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
        let mut waiting = Vec::new();
        for id in store.live_ids(ROWS_MAX) {
            if let (Some(live), Ok(mail)) = (store.live(id), store.submission(id)?)
                && caller.may_see(&mail.account)
            {
                waiting.push(Waiting { live, header: mail.header });
            }
        }
        Ok((waiting, store.queue_len()))
    });
    let (waiting, in_all) = found.await?;
    let content = html! {
        div #live {
            div.head {
                h1 { "Queue" }
                p.faint {
                    (in_all) @if in_all == 1 { " mail waits" } @else { " mails wait" }
                    @if in_all > waiting.len() { ", the oldest " (waiting.len()) " are shown" }
                }
            }
            @if waiting.is_empty() {
                p.panel.empty { "Nothing waits: everything has been handed over or given up." }
            } @else {
                (rows(&waiting))
            }
        }
    };
    let frame = Frame { title: "Queue", place: Place::Queue, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

fn rows(waiting: &[Waiting]) -> Markup {
    html! {
        table.rows {
            caption.unseen { "Mails in the queue, oldest first" }
            thead {
                tr {
                    th scope="col" { "Mail" }
                    th.extra scope="col" { "Next attempt" }
                    th.extra scope="col" { "Last answer" }
                    th scope="col" { "State" }
                }
            }
            tbody { @for one in waiting { (row(one)) } }
        }
    }
}

fn row(one: &Waiting) -> Markup {
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
                }
            }
            td.extra.nowrap { @if let Some(next) = next { (frame::time(next)) } }
            td.extra { @if let Some(said) = &said { (text::words(said, SAID_CHARS_MAX)) } }
            td.chips { (frame::chips(&states)) }
        }
    }
}

/// Mails of the queue that are shown, the oldest.
const ROWS_MAX: usize = 200;

/// Characters of the last answer that are shown.
const SAID_CHARS_MAX: usize = 200;
