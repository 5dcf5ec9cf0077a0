//! The mailboxes that are read for reports, and how that goes.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place, fact, time};
use super::{Page, Viewer, text};
use crate::http::client::encode;
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::routes::not_found;
use crate::store::{MailboxState, MailboxStatus};

/// `GET /mailboxes`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    request: Request,
) -> Result<Response, Failed> {
    Query::parse(request.uri().query(), &[])?;
    let mailboxes = page.http.inner.store.mailboxes();
    let content = html! {
        div #live {
            div.head { h1 { "Mailboxes" } }
            @if mailboxes.is_empty() {
                p.panel.empty {
                    "No mailbox is read. A " code { "[[mailbox]]" }
                    " table in the configuration names one."
                }
            }
            @for mailbox in &mailboxes { (shown(mailbox, &viewer)) }
        }
    };
    let frame = Frame { title: "Mailboxes", place: Place::Mailboxes, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

/// `POST /mailboxes/{name}/poll`
pub(super) async fn poll(
    State(page): State<Page>,
    Path(name): Path<String>,
) -> Result<Response, Failed> {
    if !page.http.inner.store.poll_mailbox(&name) {
        return Err(not_found("MailboxNotFound", "No mailbox has this name", None).into());
    }
    Ok(Redirect::to("/mailboxes").into_response())
}

fn shown(mailbox: &MailboxStatus, viewer: &Viewer) -> Markup {
    let health = match mailbox.state {
        MailboxState::Connected | MailboxState::Syncing => "delivered",
        MailboxState::Init | MailboxState::Connecting => "queued",
        _ => "failed",
    };
    let counts = &mailbox.counts;
    let number = |number: u64| Some(html! { (number) });
    html! {
        section.panel {
            div.head {
                h2 { (text::address(&mailbox.name)) }
                span.chip.(health) { (mailbox.state.as_str()) }
            }
            @if let Some((at, error)) = &mailbox.last_error {
                p { "Last error, " (time(*at)) ":" }
                blockquote { (text::said(error)) }
            }
            dl.facts {
                (fact("Since", Some(time(mailbox.since))))
                (fact("Looked at", mailbox.last_poll.map(time)))
                (fact("Folders", Some(text::address(&mailbox.folders.join(", ")))))
                (fact("Mails seen", number(counts.seen)))
                (fact("Read whole", number(counts.read)))
                (fact("Reports captured", number(counts.captured)))
                (fact("Known already", number(counts.known)))
                (fact("Unreadable", number(counts.unreadable)))
                (fact("Errors", number(counts.errors)))
            }
            @if viewer.is_admin {
                form method="post" action={ "/mailboxes/" (encode(&mailbox.name)) "/poll" } {
                    button { "Look now" }
                }
            }
        }
    }
}
