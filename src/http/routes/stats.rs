//! `/v1/stats`: how many mails ended how, and what bounced, day by day.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use serde_json::{Map, Value, json};

use super::search::Search;
use super::{ApiError, HttpState, answer, look_up, moment};
use crate::clock::Stopwatch;
use crate::http::auth::Caller;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::Query;
use crate::http::tokens::Scope;
use crate::mail::{QueueId, Timestamp};
use crate::store::Store;
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    vec![Route {
        path: "/v1/stats",
        access: Access::Own(Scope::Read),
        methods: get(stats),
        operations: &[STATS],
    }]
}

/// What is counted.
struct Window {
    since: Timestamp,
    until: Option<Timestamp>,
    account: Option<String>,
}

/// Counts by name and, of each day, by name.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) all: BTreeMap<String, u64>,
    pub(super) days: BTreeMap<String, BTreeMap<String, u64>>,
    /// From here on everything is counted, where that is not all.
    pub(super) counted_from: Option<Timestamp>,
}

/// `GET /v1/stats?since=7d&until=&account=`
///
/// What is newest is counted first, for a bounded time; where that does not reach to `since`,
/// `countedFrom` says how far it came.
async fn stats(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &STATS)?;
    let now = state.inner.clock.now();
    let time = |key| query.value(key).map(|text| moment(key, text, now)).transpose();
    let search = Search::of(&query, caller.clone(), now)?;
    let account = caller.asks_of(query.value("account"))?;
    let window = Window {
        since: time("since")?.unwrap_or_else(|| now.minus(WINDOW)),
        until: time("until")?,
        account,
    };
    let search = search.from(window.since);
    let counted = look_up(&state, move |store| {
        let recipients = recipients(store, &window)?;
        let (categories, domains) = bounces(store, &search)?;
        let mut shown = json!({
            "since": window.since.rfc3339(),
            "until": window.until.unwrap_or(now).rfc3339(),
            "recipients": recipients.shown("states"),
            "bounces": categories.shown("categories"),
            "domains": shown_domains(&domains),
        });
        if let (None, Value::Object(map)) = (&window.account, &mut shown) {
            map.insert("queue".to_owned(), json!(store.queue_len()));
        }
        Ok(shown)
    });
    Ok(answer(counted.await?))
}

/// The recipients of the window's mails by state.
fn recipients(store: &Store, window: &Window) -> Result<Tally, ApiError> {
    let taking = Stopwatch::start();
    let mut tally = Tally::default();
    let mut before = window.until.map(|until| QueueId::new(until, 0));
    loop {
        let ids = store.sent(window.account.as_deref(), before, AT_A_TIME)?;
        for id in &ids {
            if id.time() < window.since {
                return Ok(tally);
            }
            if let Ok(record) = store.message(*id)? {
                for state in view::states(&record) {
                    tally.count(id.time(), state.as_str());
                }
            }
        }
        match ids.last() {
            Some(last) if ids.len() == AT_A_TIME => before = Some(*last),
            _ => return Ok(tally),
        }
        if taking.elapsed() >= COUNT_TIME_MAX {
            tally.counted_from = before.map(QueueId::time);
            return Ok(tally);
        }
    }
}

/// The bounces of a search by category, and those domains of recipients that have most.
pub(super) fn bounces(
    store: &Store,
    search: &Search,
) -> Result<(Tally, Vec<(String, u64)>), ApiError> {
    let taking = Stopwatch::start();
    let (mut tally, mut domains) = (Tally::default(), BTreeMap::<String, u64>::new());
    let mut before = None;
    loop {
        let page = search.page(store, before, AT_A_TIME)?;
        for bounce in &page.bounces {
            tally.count(bounce.date, bounce.response.classification.category.as_str());
            let domain = super::search::domain_of(&bounce.recipient);
            if domains.len() < DOMAINS_MAX || domains.contains_key(&domain) {
                let count = domains.entry(domain).or_default();
                *count = count.saturating_add(1);
            }
        }
        let Some(next) = page.next else { return Ok((tally, most(domains))) };
        if taking.elapsed() >= COUNT_TIME_MAX {
            tally.counted_from = next.time();
            return Ok((tally, most(domains)));
        }
        before = Some(next);
    }
}

/// The domains with most bounces.
fn most(domains: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut domains: Vec<(String, u64)> = domains.into_iter().collect();
    domains.sort_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| a.cmp(b)));
    domains.truncate(DOMAINS_SHOWN);
    domains
}

fn shown_domains(domains: &[(String, u64)]) -> Value {
    domains.iter().map(|(domain, count)| json!({ "domain": domain, "count": count })).collect()
}

impl Tally {
    fn count(&mut self, time: Timestamp, name: &str) {
        let day = time.rfc3339().get(..DAY_CHARS).unwrap_or_default().to_owned();
        for names in [&mut self.all, self.days.entry(day).or_default()] {
            let count = names.entry(name.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
    }

    fn shown(self, names: &str) -> Value {
        let total: u64 = self.all.values().fold(0, |sum, count| sum.saturating_add(*count));
        let days = self.days.into_iter().map(|(day, counts)| json!({ "date": day, names: counts }));
        let mut shown = Map::new();
        shown.insert("total".to_owned(), json!(total));
        shown.insert(names.to_owned(), json!(self.all));
        shown.insert("days".to_owned(), days.collect());
        let from = self.counted_from.map(|from| ("countedFrom".to_owned(), json!(from.rfc3339())));
        shown.extend(from);
        Value::Object(shown)
    }
}

const STATS: Operation = Operation {
    id: "getStats",
    path: "/v1/stats",
    group: "Operation",
    about: "How many recipients are in which state, and what bounced, by category, domain and day \
            (UTC). The newest are counted first, for a bounded time: `countedFrom` is there where \
            it was over before `since`.",
    query: &[
        Parameter::new("since", super::MOMENT, "From then on: `7d` ago unless given"),
        Parameter::new("until", super::MOMENT, "Before then: now unless given"),
        Parameter::new("account", Shape::Text, "Of this account"),
    ],
    answers: &[Answer::ok("The counts", &[Content::json("Stats")])],
    ..Operation::GET
};

/// The window unless it is given.
const WINDOW: Duration = Duration::from_secs(7 * 86_400);
/// How long is counted of each, the look under way not counted.
const COUNT_TIME_MAX: Duration = Duration::from_millis(1000);
/// Mails or bounces that are read between two looks at the clock.
const AT_A_TIME: usize = 500;
/// Domains that are counted.
const DOMAINS_MAX: usize = 10_000;
/// Domains that are shown, those with most bounces.
const DOMAINS_SHOWN: usize = 20;
/// `2022-10-12`.
const DAY_CHARS: usize = 10;
