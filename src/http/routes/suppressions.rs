//! `/v1/suppressions`: the addresses that an account had better not write to, as JSON and as CSV.

use axum::extract::{Request, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};

use super::{
    ApiError, CURSOR, HttpState, PAGE_SIZE, PAGE_SIZE_MAX, PAGE_SIZE_PARAMETER, accepts, answer,
    look_up, not_found,
};
use crate::http::auth::Caller;
use crate::http::body::{self, BodyLimits, Whole};
use crate::http::csv;
use crate::http::error::Field;
use crate::http::operation::{Access, Answer, Content, Operation, Parameter, Route, Shape};
use crate::http::query::{Query, decode};
use crate::http::tokens::Scope;
use crate::mail::{Address, Timestamp};
use crate::store::suppressions::{ByHand, ByHandChange, Suppression, SuppressionPolicy};
use crate::submission::{DEFAULT_ACCOUNT, suppression_policy};
use crate::view;

pub(super) fn routes() -> Vec<Route> {
    let path = "/v1/suppressions";
    vec![
        Route { path, access: Access::Own(Scope::Read), methods: get(list), operations: &[LIST] },
        Route {
            path,
            access: Access::Own(Scope::Admin),
            methods: post(add).delete(remove),
            operations: &[ADD, REMOVE],
        },
    ]
}

/// `GET /v1/suppressions?account=&recipient=&suppressed=true`, in pages; all at once as a table
/// for `Accept: text/csv`.
async fn list(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &LIST)?;
    let account = caller.asks_of(query.value("account"))?;
    let recipient = query.value("recipient").map(address).transpose()?;
    let only_those = query.flag("suppressed")?;
    let page_size = query.number("pageSize", PAGE_SIZE, 1, PAGE_SIZE_MAX)?;
    let after = query.value("cursor").map(cursor).transpose()?;
    let as_table = accepts(request.headers(), CSV);
    let (now, policy) = (state.inner.clock.now(), policy(&state));
    let max = if as_table { usize::MAX } else { page_size };
    let found = look_up(&state, move |store| {
        let is_wanted = |entry: &Suppression| {
            recipient.as_ref().is_none_or(|address| *address == entry.recipient)
                && !entry.is_over(policy, now)
                && (!only_those || entry.holds(policy, now))
        };
        let after =
            after.as_ref().map(|(account, recipient)| (account.as_str(), recipient.as_str()));
        Ok(store.suppressions(account.as_deref(), after, max, &is_wanted))
    });
    let found = found.await?;
    if as_table {
        let mut table = String::new();
        csv::write_line(&mut table, &view::SUPPRESSION_COLUMNS);
        for held in &found {
            csv::write_line(&mut table, &view::suppression_cells(held, policy, now));
        }
        let kind = [(header::CONTENT_TYPE, WHOLE_CSV), (header::X_CONTENT_TYPE_OPTIONS, "nosniff")];
        return Ok((kind, table).into_response());
    }
    let next = found.last().filter(|_last| found.len() == page_size);
    let next = next.map(|last| encoded(&last.entry.account, &last.entry.recipient));
    let shown = found.iter().map(|held| view::suppression(held, policy, now));
    let mut page = json!({ "suppressions": shown.collect::<Vec<Value>>() });
    if let (Some(next), Value::Object(map)) = (next, &mut page) {
        map.insert("cursor".to_owned(), Value::String(next));
    }
    Ok(answer(page))
}

/// `POST /v1/suppressions` with one entry as JSON, or with many as `text/csv`; they are on disk
/// when it answers.
async fn add(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &ADD)?;
    let account = caller.asks_of(query.value("account"))?;
    let (parts, body) = request.into_parts();
    let limits = BodyLimits::of(&state.inner.settings.borrow().http);
    let kinds = [body::JSON, CSV];
    let whole = body::read_one_of(&kinds, body, &parts.headers, &state.memory, limits).await?;
    let is_table = body::is(&parts.headers, CSV);
    // Its share of the memory is kept until all is written.
    let Whole { octets, share: _share } = whole;
    let text = std::str::from_utf8(&octets);
    let text = text.map_err(|_error| ApiError::field("body", "the body is not UTF-8"))?;
    if is_table {
        let Import { entries, skipped } = table(text, &caller, account.as_deref())?;
        let added = entries.len();
        commit(&state, entries).await?;
        return Ok(answer(json!({ "added": added, "skipped": skipped })));
    }
    let change = entry(text, &caller, account.as_deref())?;
    let key = named(&change);
    commit(&state, vec![change]).await?;
    let (now, policy) = (state.inner.clock.now(), policy(&state));
    let held = state.inner.store.suppression(&key.0, &key.1);
    Ok(answer(held.map(|held| view::suppression(&held, policy, now)).unwrap_or_default()))
}

/// `DELETE /v1/suppressions?account=&recipient=`
async fn remove(
    State(state): State<HttpState>,
    caller: Caller,
    request: Request,
) -> Result<Response, ApiError> {
    let query = Query::of(request.uri(), &REMOVE)?;
    let account = caller.asks_of(query.value("account"))?;
    let account = account.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
    let recipient = query.value("recipient");
    let recipient =
        recipient.ok_or_else(|| ApiError::field("recipient", "\"recipient\" is needed"))?;
    let recipient = address(recipient)?;
    if state.inner.store.suppression(&account, &recipient).is_none() {
        let message = "Nothing is known against this address";
        return Err(not_found("SuppressionNotFound", message, None));
    }
    let shown = json!({ "account": &account, "recipient": &recipient, "removed": true });
    commit(&state, vec![ByHandChange::Remove { account, recipient }]).await?;
    Ok(answer(shown))
}

fn policy(state: &HttpState) -> SuppressionPolicy {
    suppression_policy(&state.inner.settings.borrow().suppression)
}

/// An address in the form in which addresses are compared.
fn address(text: &str) -> Result<String, ApiError> {
    let parsed = Address::parse(text.trim());
    parsed.map(|address| address.canonical()).map_err(|error| {
        ApiError::field("recipient", format!("\"recipient\" must be an address: {error}"))
    })
}

/// A cursor is account and recipient of the last entry of the page before, with `/` between them,
/// which the name of an account does not have, in hexadecimal: nobody need encode it.
fn encoded(account: &str, recipient: &str) -> String {
    format!("{account}/{recipient}").bytes().map(|octet| format!("{octet:02x}")).collect()
}

fn cursor(text: &str) -> Result<(String, String), ApiError> {
    let pairs = text.as_bytes().chunks(2).map(String::from_utf8_lossy);
    let decoded = decode(&pairs.map(|pair| format!("%{pair}")).collect::<String>());
    let parts = decoded.as_deref().and_then(|text| text.split_once('/'));
    let wrong = "\"cursor\" must be one that a page gave";
    let (account, recipient) = parts.ok_or_else(|| ApiError::field("cursor", wrong))?;
    Ok((account.to_owned(), recipient.to_owned()))
}

fn named(change: &ByHandChange) -> (String, String) {
    match change {
        ByHandChange::Add { account, recipient, .. }
        | ByHandChange::Remove { account, recipient } => (account.clone(), recipient.clone()),
    }
}

/// Reads one entry: `{"recipient","account","reason","until"}`.
fn entry(text: &str, caller: &Caller, account: Option<&str>) -> Result<ByHandChange, ApiError> {
    let given: Map<String, Value> = serde_json::from_str(text)
        .map_err(|error| ApiError::field("body", format!("the body must be an object: {error}")))?;
    let mut wrong = Vec::new();
    let mut texts = [const { None }; 4];
    for (key, value) in &given {
        let place = KEYS.iter().position(|known| known == key);
        match (place.and_then(|place| texts.get_mut(place)), value) {
            (Some(slot), Value::String(text)) => *slot = Some(text.as_str()),
            (Some(_), _) => wrong.push(field(key, "must be a string")),
            (None, _) => wrong.push(field(key, "is not allowed")),
        }
    }
    let [_, own_account, ..] = texts;
    caller.asks_of(own_account.map(str::trim))?;
    let change = change(texts, caller, account, &mut wrong);
    change.filter(|_| wrong.is_empty()).ok_or(ApiError::Input(wrong))
}

fn field(key: &str, why: &str) -> Field {
    Field { message: format!("\"{key}\" {why}"), key: key.to_owned() }
}

/// An entry of the texts under `KEYS`; says what is wrong with them.
fn change(
    [recipient, own_account, reason, until]: [Option<&str>; 4],
    caller: &Caller,
    account: Option<&str>,
    wrong: &mut Vec<Field>,
) -> Option<ByHandChange> {
    let given =
        |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let account = given(own_account).or_else(|| account.map(str::to_owned));
    let account = account.unwrap_or_else(|| DEFAULT_ACCOUNT.to_owned());
    if !caller.may_see(&account) {
        wrong.push(field("account", "is not the account of the token"));
    }
    if account.len() > TEXT_BYTES_MAX || account.contains(['/', '\0']) {
        wrong.push(field("account", "is no account"));
    }
    let reason = reason.unwrap_or_default();
    if reason.len() > TEXT_BYTES_MAX {
        wrong.push(field("reason", &format!("has more than {TEXT_BYTES_MAX} octets")));
    }
    let until = given(until).map(|text| Timestamp::parse(&text));
    if until == Some(None) {
        wrong.push(field("until", "must be a time such as 2026-10-12T12:00:00Z"));
    }
    let recipient = recipient.map(|text| Address::parse(text.trim()));
    let recipient = match recipient {
        Some(Ok(address)) => address.canonical(),
        Some(Err(error)) => {
            wrong.push(field("recipient", &format!("must be an address: {error}")));
            return None;
        }
        None => {
            wrong.push(field("recipient", "is needed"));
            return None;
        }
    };
    let by_hand = ByHand { reason: reason.to_owned(), until: until.flatten() };
    Some(ByHandChange::Add { account, recipient, by_hand })
}

/// What a table brings.
struct Import {
    entries: Vec<ByHandChange>,
    /// Lines that say `suppressed` is false: what was counted without being enough.
    skipped: usize,
}

/// Reads a table whose first line names its columns; others than `KEYS` and `suppressed` are for
/// people.
fn table(text: &str, caller: &Caller, account: Option<&str>) -> Result<Import, ApiError> {
    let lines = csv::read(text)
        .map_err(|line| ApiError::field("body", format!("line {line}: a quote is misplaced")))?;
    let mut lines = lines.into_iter();
    let (_, columns) = lines.next().unwrap_or_default();
    let place = |name: &str| columns.iter().position(|column| column.trim() == name);
    let places = KEYS.map(place);
    if places.first() == Some(&None) {
        let wrong = "the first line must name the columns, one of them `recipient`";
        return Err(ApiError::field("body", wrong));
    }
    let suppressed = place("suppressed");
    let mut import = Import { entries: Vec::new(), skipped: 0 };
    let mut wrong = Vec::new();
    for (number, cells) in lines {
        let cell = |place: Option<usize>| place.and_then(|at| cells.get(at)).map(String::as_str);
        if cell(suppressed) == Some("false") {
            import.skipped = import.skipped.saturating_add(1);
            continue;
        }
        let mut of_line = Vec::new();
        import.entries.extend(change(places.map(cell), caller, account, &mut of_line));
        wrong.extend(
            of_line.into_iter().map(|field| Field {
                message: format!("line {number}: {}", field.message),
                ..field
            }),
        );
        if wrong.len() >= WRONG_MAX {
            break;
        }
    }
    if wrong.is_empty() { Ok(import) } else { Err(ApiError::Input(wrong)) }
}

/// Writes the changes and returns once all are on disk.
async fn commit(state: &HttpState, changes: Vec<ByHandChange>) -> Result<(), ApiError> {
    let store = state.inner.store.clone();
    let written = tokio::task::spawn_blocking(move || {
        let chunks = changes.chunks(CHANGES_PER_WRITE_MAX);
        let tickets = chunks.map(|chunk| store.change_suppressions(chunk.to_vec()));
        tickets.collect::<Result<Vec<_>, _>>()
    });
    let panicked = |_error| ApiError::Internal("changing suppressions ended in a panic");
    for ticket in written.await.map_err(panicked)?? {
        ticket.synced().await?;
    }
    Ok(())
}

/// What an entry is made of.
const KEYS: [&str; 4] = ["recipient", "account", "reason", "until"];

const CSV: &str = "text/csv";

/// RFC 4180 §3.
const WHOLE_CSV: &str = "text/csv; charset=utf-8; header=present";

/// Octets of a reason or the name of an account.
const TEXT_BYTES_MAX: usize = 1024;

/// Entries that are written at once.
const CHANGES_PER_WRITE_MAX: usize = 1000;

/// Wrong lines of a table that are listed.
const WRONG_MAX: usize = 20;

const OF_ACCOUNT: Parameter = Parameter::new("account", Shape::Text, "Of this account");

const ADDRESS: Shape = Shape::Pattern("^[^@\\s]+@[^@\\s]+$");

const LIST: Operation = Operation {
    id: "listSuppressions",
    path: "/v1/suppressions",
    group: "Suppressions",
    about: "Addresses that bounced by their own fault or were put here by hand, by account and \
            address. With `Accept: text/csv`: all that fit, as a table.",
    query: &[
        OF_ACCOUNT,
        Parameter::new("recipient", ADDRESS, "This address"),
        Parameter::new("suppressed", Shape::OneOf(&["true"]), "Only those that are suppressed"),
        PAGE_SIZE_PARAMETER,
        CURSOR,
    ],
    answers: &[Answer::ok(
        "A page, or the table",
        &[Content::json("SuppressionPage"), Content::of(CSV, Shape::Text)],
    )],
    ..Operation::GET
};

const ADD: Operation = Operation {
    id: "addSuppression",
    path: "/v1/suppressions",
    group: "Suppressions",
    about: "Has nothing more sent to an address, where suppressed addresses are refused. With \
            `Content-Type: text/csv`: to all that a table has, whose first line names its columns; \
            it is taken whole or not at all.",
    query: &[Parameter::new("account", Shape::Text, "For mail of it, unless the body says")],
    takes: &[Content::json("SuppressionGiven"), Content::of(CSV, Shape::Text)],
    answers: &[Answer::ok(
        "The address, or how many were added",
        &[Content {
            kind: "application/json",
            shape: Shape::AnyOf(&["Suppression", "SuppressionsAdded"]),
        }],
    )],
    ..Operation::POST
};

const REMOVE: Operation = Operation {
    id: "removeSuppression",
    path: "/v1/suppressions",
    method: "delete",
    group: "Suppressions",
    about: "Forgets what speaks against an address.",
    query: &[
        Parameter::new("account", Shape::Text, "Of this account; `default` without it"),
        Parameter::needed("recipient", ADDRESS, "The address"),
    ],
    answers: &[
        Answer::ok("It is forgotten", &[Content::json("SuppressionRemoved")]),
        Answer::refusal(404, "Nothing is known against it"),
    ],
    ..Operation::GET
};
