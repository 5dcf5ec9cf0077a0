//! `rebound reparse`: reads stored reports again and shows, or records, what differs.

use serde_json::Value;

use super::api::{Api, ApiError, DaemonArguments, list, text};
use super::{chain, complain, exit, say};
use crate::config::Environment;
use crate::http::client::encode;

/// Which reports are read again.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// Reports that arrived since then: 7d, 2022-10-12 or 2022-10-12T12:00:00Z; all unless given.
    #[arg(long, value_name = "DATE|DURATION")]
    since: Option<String>,
    /// Record what differs: bounces that are new, and those that are read otherwise. What a
    /// report no longer says is only shown. Needs a token with the scope `admin`.
    #[arg(long)]
    apply: bool,
    /// Print one JSON object for each report that differs.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: DaemonArguments,
}

/// Has the running daemon read its reports again, which alone may write its store.
pub fn run(arguments: &Arguments, environment: Environment<'_>) -> u8 {
    let done = Api::of(&arguments.daemon, environment).and_then(|api| {
        let ask = |path: &str| if arguments.apply { api.post(path) } else { api.get(path) };
        all(arguments.since.as_deref(), &ask, &mut |report| show(report, arguments))
    });
    match done {
        Ok(totals) if !arguments.json => say(totals.line(arguments.apply)),
        Ok(_) => {}
        Err(error) => {
            complain(chain(&error));
            return error.exit_code();
        }
    }
    exit::OK
}

/// What came of all pages.
#[derive(Debug, Default, PartialEq, Eq)]
struct Totals {
    read: u64,
    differing: usize,
    written: usize,
}

/// Asks for one page after the other.
fn all(
    since: Option<&str>,
    ask: &dyn Fn(&str) -> Result<Value, ApiError>,
    each: &mut dyn FnMut(&Value),
) -> Result<Totals, ApiError> {
    let since = since.map(|since| format!("since={}", encode(since)));
    let mut cursor: Option<String> = None;
    let mut totals = Totals::default();
    loop {
        let query: Vec<&str> = since.iter().chain(&cursor).map(String::as_str).collect();
        let page = ask(&format!("/v1/reports/differences?{}", query.join("&")))?;
        let reports = list(&page, "/reports");
        let is_written = |report: &&Value| report.get("written") == Some(&Value::Bool(true));
        let read = page.get("read").and_then(Value::as_u64).unwrap_or_default();
        totals.read = totals.read.saturating_add(read);
        totals.differing = totals.differing.saturating_add(reports.len());
        totals.written = totals.written.saturating_add(reports.iter().filter(is_written).count());
        reports.iter().for_each(&mut *each);
        match page.get("cursor").and_then(Value::as_str) {
            Some(next) => cursor = Some(format!("cursor={}", encode(next))),
            None => return Ok(totals),
        }
    }
}

impl Totals {
    fn line(&self, is_applied: bool) -> String {
        let Self { read, differing, written } = self;
        match is_applied {
            true => format!("{read} reports read again, {differing} differ, {written} recorded"),
            false => format!("{read} reports read again, {differing} differ, nothing recorded"),
        }
    }
}

fn show(report: &Value, arguments: &Arguments) {
    match arguments.json {
        true => say(report),
        false => lines(report).iter().for_each(say),
    }
}

fn lines(report: &Value) -> Vec<String> {
    let mut head = format!("{}  {}", text(report, "/date"), text(report, "/id"));
    if report.get("verdict").is_some() {
        let (was, now) = (text(report, "/verdict/was"), text(report, "/verdict/now"));
        head.push_str(&format!("  {was} -> {now}"));
    }
    for queue_id in list(report, "/newlyMatched").iter().filter_map(Value::as_str) {
        head.push_str(&format!("  now about {queue_id}"));
    }
    let recipients = list(report, "/recipients").iter().map(|recipient| {
        let (name, change) = (text(recipient, "/recipient"), text(recipient, "/change"));
        let sides = ["/was", "/now"].iter().filter_map(|side| recipient.pointer(side).map(said));
        format!("    {name}  {change}: {}", sides.collect::<Vec<_>>().join(" -> "))
    });
    std::iter::once(head).chain(recipients).collect()
}

fn said(bounce: &Value) -> String {
    let words = ["/action", "/status", "/category", "/queueId", "/match/method"];
    let words = words.iter().map(|pointer| text(bounce, pointer)).filter(|word| *word != "-");
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn report() -> Value {
        json!({
            "id": "r1", "date": "2022-10-12T12:10:40.980Z",
            "verdict": { "was": "other", "now": "bounce" },
            "newlyMatched": ["q1"],
            "recipients": [{
                "recipient": "a@b", "change": "revised",
                "was": { "action": "failed", "status": null, "category": "unknown" },
                "now": {
                    "action": "failed", "status": "5.1.1", "category": "user_unknown",
                    "queueId": "q1", "match": { "method": "token", "confidence": "certain" }
                }
            }],
            "written": true
        })
    }

    #[test]
    fn pages_are_asked_for_until_the_last() {
        let ask = |path: &str| match path {
            "/v1/reports/differences?since=7d" => {
                Ok(json!({ "read": 100, "reports": [report()], "cursor": "c1" }))
            }
            "/v1/reports/differences?since=7d&cursor=c1" => Ok(json!({ "read": 3, "reports": [] })),
            path => panic!("asked for {path}"),
        };
        let mut seen = 0;
        let totals = all(Some("7d"), &ask, &mut |_report| seen += 1).unwrap();
        assert_eq!((totals, seen), (Totals { read: 103, differing: 1, written: 1 }, 1));
    }

    #[test]
    fn what_was_and_what_is_stand_on_one_line() {
        assert_eq!(
            lines(&report()),
            [
                "2022-10-12T12:10:40.980Z  r1  other -> bounce  now about q1",
                "    a@b  revised: failed unknown -> failed 5.1.1 user_unknown q1 token",
            ]
        );
    }
}
