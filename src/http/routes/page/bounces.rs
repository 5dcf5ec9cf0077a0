//! What bounced: how much of it, whose fault it was, and where, the newest last.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::Response;
use maud::{Markup, html};

use super::chart::{self, Day};
use super::frame::{self, Failed, Frame, Place, word};
use super::{Page, Viewer, text};
use crate::bounce::{Category, Fault};
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::routes::search::Search;
use crate::http::routes::stats::{self, Tally};
use crate::http::routes::{bounces, look_up};
use crate::mail::Timestamp;
use crate::store::record::Bounce;

/// `GET /bounces?since=&category=&fault=&domain=&account=&cursor=`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    request: Request,
) -> Result<Response, Failed> {
    let query = given(request.uri().query())?;
    let now = page.now();
    let span = query.value("since").unwrap_or(SINCE);
    let days = SPANS.iter().find(|(word, ..)| *word == span).map(|(_, days, _)| *days);
    let days = days.ok_or_else(|| ApiError::field("since", "\"since\" must be 7d, 30d or 90d"))?;
    let before = query.value("cursor").map(bounces::cursor).transpose()?;
    let search = Search::of(&query, viewer.caller.clone(), now)?;
    // Whole days, so that the first bar is no shorter than the others.
    let first = now.minus(DAY.saturating_mul(days.saturating_sub(1)));
    let first = first.rfc3339().get(..DAY_CHARS).and_then(Timestamp::parse).unwrap_or(first);
    let search = search.from(first);
    let is_first = before.is_none();
    let found = look_up(&page.http, move |store| {
        let counted = is_first.then(|| stats::bounces(store, &search)).transpose()?;
        let found = search.page(store, before, ROWS_MAX)?;
        Ok((counted, found))
    });
    let (counted, found) = found.await?;
    let next = found.next.map(|next| next.0);
    let content = html! {
        div.head { h1 { "Bounces" } }
        (form(&query, span, &viewer))
        div id=[is_first.then_some("live")] {
            @if let Some((tally, domains)) = &counted {
                (by_day(tally, first, days))
                (most(tally, domains, &query))
            }
            (rows(&found.bounces, next.is_some()))
            @if let Some(next) = &next { (older(&query, next)) }
        }
    };
    let frame = Frame { title: "Bounces", place: Place::Bounces, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

/// The query without what a form sends for fields that are left empty.
fn given(query: Option<&str>) -> Result<Query, ApiError> {
    let parts = query.unwrap_or_default().split('&').filter(|part| !part.ends_with('='));
    Query::parse(Some(&parts.collect::<Vec<_>>().join("&")), KEYS)
}

fn form(query: &Query, span: &str, viewer: &Viewer) -> Markup {
    let value = |key| query.value(key).unwrap_or_default();
    html! {
        form.filter method="get" action="/bounces" role="search" aria-label="Bounces" {
            div.grow {
                label for="domain" { "Domain of the recipient" }
                input #domain type="search" name="domain" value=(value("domain"))
                    autocomplete="off" spellcheck="false" maxlength="255";
            }
            div {
                label for="category" { "Category" }
                select #category name="category" {
                    option value="" { "any" }
                    @for category in Category::ALL {
                        @let word = category.as_str();
                        option value=(word) selected[word == value("category")] { (word) }
                    }
                }
            }
            div {
                label for="fault" { "Whose fault" }
                select #fault name="fault" {
                    option value="" { "any" }
                    @for fault in Fault::ALL {
                        @let word = fault.as_str();
                        option value=(word) selected[word == value("fault")] { (word) }
                    }
                }
            }
            @if viewer.caller.account().is_none() {
                div {
                    label for="account" { "Account" }
                    input #account type="text" name="account" value=(value("account"))
                        placeholder="all" autocomplete="off" spellcheck="false" maxlength="200";
                }
            }
            div {
                label for="since" { "Within" }
                select #since name="since" {
                    @for (word, _, name) in SPANS {
                        option value=(word) selected[*word == span] { (name) }
                    }
                }
            }
            button.primary { "Show" }
        }
    }
}

/// The days as a chart.
fn by_day(tally: &Tally, first: Timestamp, days: u32) -> Markup {
    let days = (0..days).map(|number| {
        let date = first.plus(DAY.saturating_mul(number)).rfc3339();
        let date = date.get(..DAY_CHARS).unwrap_or_default().to_owned();
        let mut counts = BTreeMap::<Fault, u64>::new();
        for (category, count) in tally.days.get(&date).into_iter().flatten() {
            let fault = Category::parse(category).map_or(Fault::Unknown, Category::fault);
            let sum = counts.entry(fault).or_default();
            *sum = sum.saturating_add(*count);
        }
        Day { date, counts }
    });
    html! {
        section.panel aria-label="By day" {
            (chart::by_day(&days.collect::<Vec<_>>()))
            @if let Some(from) = tally.counted_from {
                p.faint { "There are too many to count all: these came since " (frame::time(from)) "." }
            }
        }
    }
}

/// The categories and domains that have most.
fn most(tally: &Tally, domains: &[(String, u64)], query: &Query) -> Markup {
    let mut categories: Vec<(&str, u64)> =
        tally.all.iter().map(|(word, count)| (word.as_str(), *count)).collect();
    categories.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let domains = domains.iter().map(|(domain, count)| (domain.as_str(), *count));
    let domains: Vec<(&str, u64)> = domains.take(DOMAINS_MAX).collect();
    html! {
        @if !categories.is_empty() {
            div.side-by-side {
                (ranking("By category", "category", &categories, query))
                (ranking("By domain", "domain", &domains, query))
            }
        }
    }
}

/// A table with the most frequent first; each name leads to its bounces.
fn ranking(title: &str, key: &str, counts: &[(&str, u64)], query: &Query) -> Markup {
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or_default();
    html! {
        section.panel {
            h2 { (title) }
            table.ranking {
                caption.unseen { (title) }
                thead.unseen {
                    tr { th scope="col" { (key) } th scope="col" { "bounces" } }
                }
                tbody {
                    @for (name, count) in counts {
                        tr {
                            th scope="row" {
                                a href={ "/bounces?" (with(query, key, name)) } {
                                    (text::address(name))
                                }
                                (chart::beside(*count, most))
                            }
                            td.number { (count) }
                        }
                    }
                }
            }
        }
    }
}

fn rows(bounces: &[Bounce], is_more: bool) -> Markup {
    html! {
        @if bounces.is_empty() {
            p.panel.empty {
                @if is_more { "Nothing fits among the newest bounces." } @else { "No bounces." }
            }
        } @else {
            table.rows {
                caption.unseen { "Bounces, newest first" }
                thead {
                    tr {
                        th scope="col" { "Recipient" }
                        th.extra scope="col" { "Caught" }
                        th.extra scope="col" { "When" }
                        th scope="col" { "Why" }
                    }
                }
                tbody { @for bounce in bounces { (row(bounce)) } }
            }
        }
    }
}

fn row(bounce: &Bounce) -> Markup {
    let class = &bounce.response.classification;
    let path = match (bounce.queue_id, bounce.report_id) {
        (Some(mail), _) => Some(frame::path_of(mail)),
        (None, Some(report)) => Some(format!("/report/{}", report.0)),
        (None, None) => None,
    };
    html! {
        tr data-key=(bounce.id.0) {
            th scope="row" {
                a.main href=[path] { (text::address(&bounce.recipient)) }
                span.under { (text::words(&bounce.response.message, SAID_CHARS_MAX)) }
                span.under.narrow { (frame::time(bounce.date)) }
            }
            td.extra {
                (word(&bounce.captured_by))
                span.under {
                    @match bounce.matched {
                        Some(matched) => {
                            (word(&matched.method)) ", " (word(&matched.confidence))
                        }
                        None => "matches no mail",
                    }
                }
            }
            td.extra.nowrap { (frame::time(bounce.date)) }
            td.why {
                (class.category.as_str())
                span.under { (class.fault.as_str()) }
            }
        }
    }
}

/// The query with another value, from the newest on.
fn with(query: &Query, key: &str, value: &str) -> String {
    let kept = KEYS.iter().filter(|kept| **kept != key && **kept != "cursor");
    let kept = kept.filter_map(|kept| Some((*kept, query.value(kept)?)));
    frame::query(kept.chain([(key, value)]))
}

fn older(query: &Query, next: &str) -> Markup {
    frame::older("/bounces", &with(query, "cursor", next))
}

/// What may be asked.
const KEYS: &[&str] = &["since", "category", "fault", "domain", "account", "cursor"];

/// How far back is looked: the word, the days, and what it is called.
const SPANS: &[(&str, u32, &str)] =
    &[("7d", 7, "7 days"), ("30d", 30, "30 days"), ("90d", 90, "90 days")];

/// How far back is looked unless it is said.
const SINCE: &str = "7d";

const DAY: Duration = Duration::from_secs(86_400);

/// `2022-10-12`.
const DAY_CHARS: usize = 10;

/// Bounces of one page.
const ROWS_MAX: usize = 50;

/// Domains that are shown, those with most bounces.
const DOMAINS_MAX: usize = 10;

/// Characters of a reply that are shown in the list.
const SAID_CHARS_MAX: usize = 200;
