//! What waits to be handed over, and having it tried or given up.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place};
use super::{Page, Viewer, text};
use crate::http::error::ApiError;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::routes::{look_up, not_found, outbox, queue_id};
use crate::mail::QueueId;
use crate::store::record::{Attempt, OrderAction};
use crate::store::{LiveMessage, LiveRecipient, QueueOrder, QueueRange};

/// A mail in the queue with the start of its header.
struct Waiting {
    live: LiveMessage,
    header: Vec<u8>,
}

/// Which part of the queue is asked for.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    order: QueueOrder,
    /// Behind which mail it begins.
    after: Option<QueueId>,
}

/// `GET /queue?order=&cursor=`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    request: Request,
) -> Result<Response, Failed> {
    let asked = Asked::of(request.uri().query())?;
    let caller = viewer.caller.clone();
    let found = look_up(&page.http, move |store| {
        let rows = ROWS_MAX.saturating_add(1);
        let range =
            QueueRange { account: caller.account(), order: asked.order, behind: asked.after };
        let (in_all, mut mails) = store.queue_page(range, 0, rows);
        let has_more = mails.len() > ROWS_MAX;
        mails.truncate(ROWS_MAX);
        let next = mails.last().filter(|_last| has_more).map(|last| last.queue_id);
        let mut waiting = Vec::new();
        for live in mails {
            let mail = store.submission(live.queue_id)?.ok();
            waiting.extend(mail.map(|mail| Waiting { live, header: mail.header }));
        }
        Ok((waiting, next, in_all))
    });
    let (waiting, next, in_all) = found.await?;
    let content = html! {
        div #live {
            div.head {
                h1 { "Queue" }
                p.faint { (in_all) @if in_all == 1 { " mail waits" } @else { " mails wait" } }
            }
            @if in_all > 1 { (asked.orders()) }
            @if waiting.is_empty() {
                p.panel.empty {
                    @if in_all == 0 { "Nothing waits: everything has been handed over or given up." }
                    @else { "Nothing behind this place waits any more." }
                }
            } @else {
                (rows(&waiting, asked, &viewer))
            }
            (asked.pages(next))
        }
    };
    let frame = Frame { title: "Queue", place: Place::Queue, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

/// `POST /queue/{queueId}/{action}`: what the outbox of the API does; then it goes on where the
/// button was.
pub(super) async fn order(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    Path((id, action)): Path<(String, String)>,
    request: Request,
) -> Result<Response, Failed> {
    let asked = Asked::of(request.uri().query())?;
    let action = match action.as_str() {
        "retry" => OrderAction::Retry,
        "cancel" => OrderAction::Cancel,
        _ => return Err(not_found("NotFound", "There is no such path", None).into()),
    };
    outbox::ordered(&page.http, viewer.caller, &id, action).await?;
    Ok(Redirect::to(&asked.path("/queue")).into_response())
}

impl Asked {
    fn of(query: Option<&str>) -> Result<Self, ApiError> {
        let query = Query::parse(query, &["order", "cursor"])?;
        let order = query.word("order", |word| match word {
            "newest" => Some(QueueOrder::Newest),
            "oldest" => Some(QueueOrder::Oldest),
            _ => None,
        })?;
        let after = query.value("cursor").map(|text| queue_id("cursor", text)).transpose()?;
        Ok(Self { order: order.unwrap_or_default(), after })
    }

    /// A path with what is asked for behind it.
    fn path(self, path: &str) -> String {
        let order = match self.order {
            QueueOrder::Newest => "",
            QueueOrder::Oldest => "oldest",
        };
        let cursor = self.after.map(|id| id.to_string()).unwrap_or_default();
        let query = frame::query([("order", order), ("cursor", cursor.as_str())].into_iter());
        if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
    }

    /// Links to either end of the queue.
    fn orders(self) -> Markup {
        let ends = [(QueueOrder::Newest, "Newest first"), (QueueOrder::Oldest, "Oldest first")];
        html! {
            nav.ends aria-label="Order" {
                @for (order, name) in ends {
                    a href=(Self { order, after: None }.path("/queue"))
                        aria-current=[(order == self.order).then_some("true")] { (name) }
                }
            }
        }
    }

    /// Links to where the list begins and to what lies behind its last mail, where there is more.
    fn pages(self, last: Option<QueueId>) -> Markup {
        let next = last.map(|last| Self { after: Some(last), ..self });
        let (first, further) = match self.order {
            QueueOrder::Newest => ("Newest", "Older"),
            QueueOrder::Oldest => ("Oldest", "Newer"),
        };
        html! {
            @if next.is_some() || self.after.is_some() {
                nav.pages aria-label="Pages" {
                    @if self.after.is_some() {
                        a.button href=(Self { after: None, ..self }.path("/queue")) { (first) }
                    }
                    @if let Some(next) = next {
                        a.button href=(next.path("/queue")) rel="next" { (further) }
                    }
                }
            }
        }
    }
}

/// What can be done with a mail that waits; giving it up takes two steps, as nothing undoes it.
pub(super) fn orders(id: QueueId) -> Markup {
    orders_from(id, Asked::default())
}

/// The same in a part of the queue, where it goes on then.
fn orders_from(id: QueueId, asked: Asked) -> Markup {
    let action = |name: &str| asked.path(&format!("/queue/{id}/{name}"));
    html! {
        div.orders {
            form method="post" action=(action("retry")) { button { "Retry now" } }
            details data-key={ "cancel-" (id) } {
                summary { "Cancel …" }
                form method="post" action=(action("cancel")) {
                    button.danger { "Try nobody any more" }
                }
            }
        }
    }
}

fn rows(waiting: &[Waiting], asked: Asked, viewer: &Viewer) -> Markup {
    let order = match asked.order {
        QueueOrder::Newest => "newest",
        QueueOrder::Oldest => "oldest",
    };
    html! {
        table.rows {
            caption.unseen { "Mails in the queue, " (order) " first" }
            thead {
                tr {
                    th scope="col" { "Mail" }
                    th.extra scope="col" { "Next attempt" }
                    th.extra scope="col" { "Last answer" }
                    th scope="col" { "State" }
                }
            }
            tbody { @for one in waiting { (row(one, asked, viewer)) } }
        }
    }
}

fn row(one: &Waiting, asked: Asked, viewer: &Viewer) -> Markup {
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
                @if viewer.is_admin && !waiting.is_empty() {
                    (orders_from(live.queue_id, asked))
                }
            }
            td.extra.nowrap { @if let Some(next) = next { (frame::time(next)) } }
            td.extra { @if let Some(said) = &said { (text::words(said, SAID_CHARS_MAX)) } }
            td.chips { (frame::chips(&states)) }
        }
    }
}

/// Mails of one page.
const ROWS_MAX: usize = 50;

/// Characters of the last answer that are shown.
const SAID_CHARS_MAX: usize = 200;
