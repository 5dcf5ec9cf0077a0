//! One report: what was read from it, and its octets.

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place, fact, time, word};
use super::{Page, Viewer, text};
use crate::bounce::{self, Facts, RecipientFacts};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::routes::{look_up, queue_id, reports};
use crate::store::ReportRecord;
use crate::store::record::ReportId;

/// `GET /report/{id}`
pub(super) async fn one(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failed> {
    Query::parse(request.uri().query(), &[])?;
    let id = queue_id("id", &id).map(ReportId)?;
    let caller = viewer.caller.clone();
    let found = look_up(&page.http, move |store| {
        let record = reports::stored(store, &caller, id)?;
        let facts = bounce::read(&record.received.raw);
        Ok((record, facts))
    });
    let (record, facts) = found.await?;
    let title = format!("Report {}", id.0);
    let frame = Frame { title: &title, place: Place::Bounces, viewer: &viewer };
    Ok(frame::answer(&frame, &shown(&record, &facts)))
}

fn shown(record: &ReportRecord, facts: &Facts) -> Markup {
    let received = &record.received;
    let captured = record.captured.as_ref();
    let matched = captured.map(|mark| mark.matched.as_slice()).unwrap_or_default();
    let to = received.recipients.join(", ");
    let from = Some(received.reverse_path.as_str()).filter(|path| !path.is_empty());
    html! {
        div.head { h1 { "Report" } }
        dl.panel.facts {
            (fact("Report id", Some(html! { code { (received.id.0) } })))
            (fact("Is a", captured.map(|mark| html! { (word(&mark.verdict)) })))
            (fact("Arrived", Some(time(received.received_at))))
            (fact("By", Some(html! { (word(&received.captured_by)) })))
            (fact("From", Some(text::address(from.unwrap_or("<>")))))
            (fact("To", Some(text::address(&to))))
            (fact("Reporting MTA", facts.report.reporting_mta.as_deref().map(text::address)))
            (fact("Names the mail", facts.original.message_id.as_ref()
                .map(|id| text::address(&id.to_string()))))
            (fact("Is about", captured.map(|_| html! {
                @if matched.is_empty() { "no mail that is known here" }
                @for id in matched.iter().take(MATCHED_MAX) {
                    a href=(frame::path_of(*id)) { code { (id) } } " "
                }
            })))
        }
        @for said in facts.report.recipients.iter().take(RECIPIENTS_MAX) { (recipient(said)) }
        @if !facts.defects.is_empty() {
            section.panel {
                h2 { "What is odd about it" }
                ul { @for defect in &facts.defects { li { (text::said(&defect.0)) } } }
            }
        }
        section.panel {
            h2 { "As it arrived" }
            (text::raw(&received.raw))
        }
    }
}

fn recipient(said: &RecipientFacts) -> Markup {
    let action = said.action.as_str();
    html! {
        section.panel.recipient {
            div.head {
                h2 { (text::address(&said.final_recipient)) }
                span.chip.(if action == "failed" { "bounced" } else { action }) { (action) }
            }
            @if let Some(diagnostic) = &said.diagnostic {
                blockquote { (text::said(&diagnostic.text)) }
            }
            dl.facts {
                (fact("Original recipient", said.original_recipient.as_deref().map(text::address)))
                (fact("Status", said.status.map(|status| html! { (status) })))
                (fact("Code", said.code.map(|code| html! { (code) })))
                (fact("Command", said.command.as_deref().map(text::address)))
                (fact("Remote MTA", said.remote_mta.as_deref().map(text::address)))
                (fact("Retries until", said.will_retry_until.map(time)))
            }
        }
    }
}

/// Recipients of one report that are shown; the API lists all.
const RECIPIENTS_MAX: usize = 100;

/// Mails of one report that are linked.
const MATCHED_MAX: usize = 20;
