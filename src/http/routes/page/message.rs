//! One mail: what became of each recipient, step by step.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place, fact, time, word};
use super::{Page, Viewer, queue, text, webhooks};
use crate::http::path::Path;
use crate::http::query::Query;
use crate::http::routes::{by_queue_id, closing, look_up, queue_id, webhooks_of};
use crate::mail::Timestamp;
use crate::store::Evidence;
use crate::store::record::{Attempt, Bounce, CapturedBy, Decision, Origin, ReportId, Submission};
use crate::store::state::State as Fate;
use crate::store::{MessageRecord, ReportRecord};
use crate::view::{self, Closing};

/// A piece of evidence in its place in time.
enum Step<'a> {
    Attempt(&'a Attempt),
    News(&'a Bounce),
}

/// `GET /message/{queueId}`
pub(super) async fn timeline(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Failed> {
    Query::parse(request.uri().query(), &[])?;
    let id = queue_id("id", &id)?;
    let caller = viewer.caller.clone();
    let webhooks = webhooks_of(&page.http, &caller);
    let found = look_up(&page.http, move |store| {
        let record = by_queue_id(store, &caller, id)?;
        let ids: BTreeSet<ReportId> =
            record.bounces.iter().filter_map(|bounce| bounce.report_id).collect();
        let mut reports = Vec::new();
        for id in ids.into_iter().take(REPORTS_MAX) {
            reports.extend(store.report(id)?.ok());
        }
        let told = match webhooks {
            Some(webhooks) => Some(webhooks.about(store, &record)?)
                .filter(|told| !(webhooks.is_empty() && told.is_empty())),
            None => None,
        };
        Ok((record, reports, told))
    });
    let (record, reports, told) = found.await?;
    let content = html! {
        div #live {
            (shown(&record, &reports, closing(&page.http), &viewer))
            @if let Some(told) = &told { (webhooks::about(told)) }
        }
    };
    let title = format!("Message {id}");
    let frame = Frame { title: &title, place: Place::Messages, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

fn shown(
    record: &MessageRecord,
    reports: &[ReportRecord],
    closing: Closing,
    viewer: &Viewer,
) -> Markup {
    let mail = &record.submission;
    let recipients = Evidence::by_recipient(record);
    let others: Vec<&Bounce> =
        record.bounces.iter().filter(|bounce| bounce.recipient_index.is_none()).collect();
    let left_out = recipients.len().saturating_sub(RECIPIENTS_MAX);
    html! {
        div.head {
            h1 { (text::subject(&mail.header)) }
            p.chips { (frame::chips(&view::states(record))) }
        }
        (facts(record, closing))
        @if viewer.is_admin && view::states(record).iter().any(|state| !state.has_left_queue()) {
            (queue::orders(mail.queue_id))
        }
        @for recipient in recipients.iter().take(RECIPIENTS_MAX) { (life(recipient)) }
        @if left_out > 0 {
            p.panel.empty {
                "And " (left_out) " more recipients, whom "
                code { "/v1/messages/" (mail.queue_id) } " lists."
            }
        }
        @if !others.is_empty() {
            section.panel {
                h2 { "About no single recipient" }
                ol.steps { @for bounce in others.iter().take(STEPS_MAX) { (news(bounce)) } }
            }
        }
        @if !reports.is_empty() { (list_of(reports)) }
        details.panel data-key="header" {
            summary { "Header of the mail" }
            (text::raw(&mail.header))
        }
    }
}

fn facts(record: &MessageRecord, closing: Closing) -> Markup {
    let mail = &record.submission;
    let code = |text: String| html! { code { (text::address(&text)) } };
    let is_closed = view::is_closed(record, closing);
    html! {
        dl.panel.facts {
            (fact("Message-ID", Some(code(mail.message_id.to_string()))))
            (fact("Queue id", Some(code(mail.queue_id.to_string()))))
            (fact("From", Some(reverse_path(mail))))
            (fact("Account", Some(text::address(&mail.account))))
            (fact("Taken over", Some(time(mail.received_at))))
            (fact("Size", Some(html! { (frame::size(mail.size_bytes)) })))
            (fact("Client", mail.client.as_deref().map(text::address)))
            (fact("Written by", (mail.origin == Origin::Notice).then(|| html! { "Rebound" })))
            (fact("Return path", Some(html! { (word(&mail.return_path)) })))
            (fact("News", Some(html! {
                @if is_closed { "closed: none is expected any more" } @else { "may still come" }
            })))
            @for (name, value) in mail.meta.iter().take(META_MAX) {
                (fact(name, Some(text::address(value))))
            }
        }
    }
}

fn reverse_path(mail: &Submission) -> Markup {
    let path = mail.envelope.reverse_path.to_string();
    if path.is_empty() {
        html! { "nobody (" code { "<>" } ")" }
    } else {
        text::address(&path)
    }
}

/// What happened to one recipient, oldest first.
fn life(recipient: &Evidence<'_>) -> Markup {
    let attempts = recipient.attempts.iter().map(|one| (one.ended_at, Step::Attempt(one)));
    let news = recipient.bounces.iter().map(|one| (one.date, Step::News(one)));
    let mut steps: Vec<(Timestamp, Step<'_>)> = attempts.chain(news).collect();
    steps.sort_by_key(|(at, _)| *at);
    let left_out = steps.len().saturating_sub(STEPS_MAX);
    let state = recipient.state();
    html! {
        section.panel.recipient {
            div.head {
                h2 { (text::address(recipient.asked.address.as_str())) }
                (frame::chip(state))
            }
            @if steps.is_empty() { p.faint { "Waits for its first attempt." } }
            @if left_out > 0 { p.faint { (left_out) " older steps are left out." } }
            ol.steps {
                @for (_, step) in steps.iter().skip(left_out) {
                    @match step {
                        Step::Attempt(one) => (attempt(one)),
                        Step::News(one) => (self::news(one)),
                    }
                }
            }
        }
    }
}

fn attempt(attempt: &Attempt) -> Markup {
    let (state, title) = match attempt.decision {
        Decision::Relayed => (Fate::Relayed, "Handed over to the next hop"),
        Decision::RetryAt(_) => (Fate::Deferred, "Put off"),
        Decision::Failed => (Fate::Failed, "Refused"),
        Decision::Expired => (Fate::Expired, "Given up: its time is over"),
    };
    let again = match attempt.decision {
        Decision::RetryAt(moment) => Some(time(moment)),
        _ => None,
    };
    let said = attempt.reply.as_ref().map(ToString::to_string);
    html! {
        li.step.(state.as_str()) {
            p.what {
                strong { (title) }
                " " span.faint { "attempt " (attempt.number) }
                " " (time(attempt.ended_at))
            }
            @if let Some(said) = said.as_ref().or(attempt.error.as_ref()) {
                blockquote { (text::said(said)) }
            }
            dl.facts {
                (fact("Answered to", Some(html! { (attempt.stage.command()) })))
                (fact("Next hop", attempt.remote_mta.as_deref().map(text::address)))
                (fact("TLS", Some(html! { (attempt.tls.as_deref().unwrap_or("none")) })))
                (fact("Took", Some(took(attempt.ended_at.since(attempt.started_at)))))
                (fact("Its queue id", attempt.remote_queue_id.as_deref().map(text::address)))
                (fact("Its Message-ID", attempt.alias.as_ref()
                    .map(|alias| text::address(&alias.to_string()))))
                (fact("Next attempt", again))
            }
        }
    }
}

/// A bounce, or news of a delay or a delivery.
fn news(bounce: &Bounce) -> Markup {
    let response = &bounce.response;
    let class = &response.classification;
    let failed = bounce.is_failure();
    let action = bounce.action.as_str();
    let title = match (failed, bounce.captured_by) {
        (true, CapturedBy::Inline) => "Recorded as a bounce",
        (true, _) => "Bounced: a report says that it failed",
        (false, _) => "A report came",
    };
    let matched = bounce.matched.map(|matched| {
        html! {
            (word(&matched.method)) ", " (word(&matched.confidence))
            @if !matched.is_believed() { " (changes no state)" }
        }
    });
    html! {
        li.step.(if failed { "bounced" } else { action }) {
            p.what {
                strong { (title) }
                @if !failed { " " span.faint { (action) } }
                " " (time(bounce.date))
            }
            // A refusal stands in the attempt that met it.
            @if !response.message.is_empty() && bounce.captured_by != CapturedBy::Inline {
                blockquote { (text::said(&response.message)) }
            }
            dl.facts {
                @if failed {
                    (fact("Category", Some(html! { (class.category.as_str()) })))
                    (fact("Whose fault", Some(html! { (class.fault.as_str()) })))
                    (fact("Do", Some(html! { (class.recommended_action.as_str()) })))
                }
                (fact("Status", response.status.map(|status| html! { (status) })))
                (fact("Said by", bounce.mta.as_deref().map(text::address)))
                (fact("Caught", Some(html! { (word(&bounce.captured_by)) })))
                (fact("Matched by", matched))
                (fact("Final recipient", bounce.final_recipient.as_deref().map(text::address)))
                (fact("Report", bounce.report_id.map(link)))
            }
        }
    }
}

fn list_of(reports: &[ReportRecord]) -> Markup {
    html! {
        section.panel {
            h2 { "Reports" }
            table {
                caption.unseen { "Reports about this mail, oldest first" }
                thead {
                    tr {
                        th scope="col" { "Report" }
                        th scope="col" { "Is a" }
                        th.extra scope="col" { "Arrived" }
                        th.extra scope="col" { "By" }
                    }
                }
                tbody {
                    @for report in reports {
                        tr {
                            th scope="row" { (link(report.received.id)) }
                            td { (report.captured.as_ref().map(|mark| word(&mark.verdict))
                                .unwrap_or_default()) }
                            td.extra { (time(report.received.received_at)) }
                            td.extra { (word(&report.received.captured_by)) }
                        }
                    }
                }
            }
        }
    }
}

fn link(report: ReportId) -> Markup {
    html! { a href={ "/report/" (report.0) } { code { (report.0) } } }
}

pub(super) fn took(span: Duration) -> Markup {
    let millis = span.as_millis();
    html! {
        @if millis < 1000 { (millis) " ms" }
        @else { (millis / 1000) "." (millis % 1000 / 100) " s" }
    }
}

/// Recipients of one mail that are shown; the API lists all.
const RECIPIENTS_MAX: usize = 100;

/// Steps of one recipient that are shown, the newest.
const STEPS_MAX: usize = 100;

/// Reports of one mail that are listed.
const REPORTS_MAX: usize = 100;

/// `X-Rebound-Meta-*` of one mail that are shown.
const META_MAX: usize = 32;
