//! The mails of apps, newest first, and finding one.

use std::time::Duration;

use axum::Extension;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::frame::{self, Failed, Frame, Place};
use super::{Page, Viewer, text};
use crate::clock::Stopwatch;
use crate::http::auth::Caller;
use crate::http::error::ApiError;
use crate::http::query::Query;
use crate::http::routes::{by_message_id, look_up, queue_id};
use crate::mail::address::canonical;
use crate::mail::{MessageId, QueueId, Timestamp};
use crate::store::state::State as Fate;
use crate::store::{MessageRecord, Store};
use crate::view;

/// What is looked for.
#[derive(Clone, Debug, Default)]
struct Wanted {
    /// Who asks: others' mails are not for him.
    caller: Caller,
    /// An address, a Message-ID or a queue id.
    text: String,
    /// Mails with a recipient in this state.
    state: Option<Fate>,
    /// Mails of this account.
    account: String,
    /// Where the page begins.
    before: Option<QueueId>,
}

/// What was found.
#[derive(Default)]
struct Found {
    records: Vec<MessageRecord>,
    /// Whether they are all that have the Message-ID that was asked for.
    by_message_id: bool,
    /// Before which mail to look on.
    next: Option<QueueId>,
}

/// `GET /?q=&state=&account=&cursor=`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(viewer): Extension<Viewer>,
    request: Request,
) -> Result<Response, Failed> {
    let query = Query::parse(request.uri().query(), &["q", "state", "account", "cursor"])?;
    let wanted = Wanted::of(&query, &viewer.caller)?;
    if let Some(id) = QueueId::parse(&wanted.text) {
        return Ok(Redirect::to(&frame::path_of(id)).into_response());
    }
    let asked = wanted.clone();
    let found = look_up(&page.http, move |store| asked.find(store)).await?;
    // Who looks for a Message-ID and finds one mail wants to see that.
    if let ([only], true) = (found.records.as_slice(), found.by_message_id) {
        return Ok(Redirect::to(&frame::path_of(only.submission.queue_id)).into_response());
    }
    let content = html! {
        div.head { h1 { "Messages" } }
        (form(&wanted))
        // What is older does not change, and is not loaded again.
        div id=[wanted.before.is_none().then_some("live")] { (rows(&found, &wanted)) }
    };
    let frame = Frame { title: "Messages", place: Place::Messages, viewer: &viewer };
    Ok(frame::answer(&frame, &content))
}

impl Wanted {
    fn of(query: &Query, caller: &Caller) -> Result<Self, ApiError> {
        let given = |key| query.value(key).map(str::trim).filter(|text| !text.is_empty());
        let state = given("state").map(|word| {
            let found = STATES.into_iter().find(|state| state.as_str() == word);
            found.ok_or_else(|| ApiError::field("state", "\"state\" must be a state"))
        });
        Ok(Self {
            caller: caller.clone(),
            text: given("q").unwrap_or_default().to_owned(),
            state: state.transpose()?,
            account: caller.asks_of(given("account"))?.unwrap_or_default(),
            before: given("cursor").map(|text| queue_id("cursor", text)).transpose()?,
        })
    }

    fn find(&self, store: &Store) -> Result<Found, ApiError> {
        if self.text.is_empty() {
            return self.newest(store);
        }
        let mut records = Vec::new();
        if let Some(id) = MessageId::parse(&self.text) {
            records = match by_message_id(store, &self.caller, &id) {
                Ok(found) => found.records,
                Err(ApiError::NotFound { .. }) => Vec::new(),
                Err(error) => return Err(error),
            };
        }
        // An address can be a Message-ID, too, as it is written.
        let by_message_id = !records.is_empty();
        if !by_message_id {
            let address = canonical(&self.text);
            records = store.sent_to(&address, Timestamp::default(), ROWS_MAX)?;
        }
        records.retain(|record| self.wants(record));
        Ok(Found { records, by_message_id, next: None })
    }

    /// The newest that fit. Where few do, it ends after a while, and says where to look on.
    fn newest(&self, store: &Store) -> Result<Found, ApiError> {
        let taking = Stopwatch::start();
        let account = Some(self.account.as_str()).filter(|account| !account.is_empty());
        let mut found = Found { next: self.before, ..Found::default() };
        while taking.elapsed() < SEARCH_TIME_MAX {
            let ids = store.sent(account, found.next, ROWS_MAX)?;
            let is_last = ids.len() < ROWS_MAX;
            for id in ids {
                if found.records.len() == ROWS_MAX {
                    return Ok(found);
                }
                found.next = Some(id);
                let record = store.message(id)?.ok().filter(|record| self.wants(record));
                found.records.extend(record);
            }
            if is_last {
                found.next = None;
                break;
            }
        }
        Ok(found)
    }

    fn wants(&self, record: &MessageRecord) -> bool {
        let account = &record.submission.account;
        self.caller.may_see(account)
            && (self.account.is_empty() || *account == self.account)
            && self.state.is_none_or(|state| view::states(record).contains(&state))
    }
}

fn form(wanted: &Wanted) -> Markup {
    html! {
        form.filter method="get" action="/" role="search" aria-label="Messages" {
            div.grow {
                label for="q" { "Recipient, Message-ID or queue id" }
                input #q type="search" name="q" value=(wanted.text) autocomplete="off"
                    spellcheck="false" maxlength="1000";
            }
            div {
                label for="state" { "State" }
                select #state name="state" {
                    option value="" { "any" }
                    @for state in STATES {
                        option value=(state.as_str()) selected[wanted.state == Some(state)] {
                            (state.as_str())
                        }
                    }
                }
            }
            @if wanted.caller.account().is_none() {
                div {
                    label for="account" { "Account" }
                    input #account type="text" name="account" value=(wanted.account)
                        placeholder="all" autocomplete="off" spellcheck="false" maxlength="200";
                }
            }
            button.primary { "Show" }
        }
    }
}

fn rows(found: &Found, wanted: &Wanted) -> Markup {
    let state = wanted.state.map(Fate::as_str).unwrap_or_default();
    html! {
        @if found.records.is_empty() {
            p.panel.empty {
                @if found.next.is_some() { "Nothing fits among the newest mails." }
                @else if wanted.before.is_some() || !wanted.text.is_empty() || !state.is_empty() {
                    "Nothing fits."
                } @else {
                    "No mail yet. Point your app's SMTP settings here, or try "
                    code { "rebound send-test" } "."
                }
            }
        } @else {
            table.rows {
                caption.unseen { "Mails, newest first" }
                thead {
                    tr {
                        th scope="col" { "Mail" }
                        th.extra scope="col" { "Account" }
                        th.extra scope="col" { "Taken over" }
                        th scope="col" { "State" }
                    }
                }
                tbody { @for record in &found.records { (row(record)) } }
            }
        }
        @if let Some(next) = found.next {
            @let cursor = next.to_string();
            @let pairs = [
                ("q", wanted.text.as_str()),
                ("state", state),
                ("account", wanted.account.as_str()),
                ("cursor", cursor.as_str()),
            ];
            (frame::older("/", &frame::query(pairs.into_iter())))
        }
    }
}

fn row(record: &MessageRecord) -> Markup {
    let mail = &record.submission;
    let recipients = &mail.envelope.recipients;
    let others = recipients.len().saturating_sub(1);
    html! {
        tr data-key=(mail.queue_id) {
            th scope="row" {
                a.main href=(frame::path_of(mail.queue_id)) { (text::subject(&mail.header)) }
                span.under {
                    @if let Some(first) = recipients.first() {
                        "to " (text::address(first.address.as_str()))
                    }
                    @if others > 0 { " and " (others) " more" }
                }
                span.under.narrow { (frame::time(mail.received_at)) }
            }
            td.extra { (text::address(&mail.account)) }
            td.extra.nowrap { (frame::time(mail.received_at)) }
            td.chips { (frame::chips(&view::states(record))) }
        }
    }
}

/// In the order of a life.
const STATES: [Fate; 9] = [
    Fate::Queued,
    Fate::Deferred,
    Fate::Relayed,
    Fate::Delivered,
    Fate::Bounced,
    Fate::Failed,
    Fate::Expired,
    Fate::Suppressed,
    Fate::Canceled,
];

/// Mails of one page.
const ROWS_MAX: usize = 50;

/// How long mails are looked through for one page.
const SEARCH_TIME_MAX: Duration = Duration::from_millis(500);
