//! Where a notice's own text ends and the mail that it returns begins.

use super::facts::Original;
use super::headers::{Headers, field_name};
use super::notice::{Group, Words};
use super::original;
use super::text::{contains_ignore_case, head};

/// A notice's text taken apart.
#[derive(Clone, Debug, Default)]
pub(super) struct Split {
    /// What the notice itself says.
    pub(super) own: String,
    /// What is known of the returned mail from what is printed of it.
    pub(super) original: Option<Original>,
    /// The mail as it is printed.
    pub(super) returned: String,
    /// Whether a mail, or the header of one, follows the notice's own text.
    pub(super) returns_mail: bool,
}

/// Takes the text of a notice apart.
///
/// The returned mail begins behind a line that says so, or where a header is printed that has
/// trace fields. A few fields of a header in the middle of the text describe the mail; the
/// notice goes on behind them.
pub(super) fn split(text: &str) -> Split {
    let mut split = Split::default();
    let mut rest = text;
    let mut lines_left = LINES_MAX;
    while !rest.is_empty() && lines_left > 0 {
        lines_left = lines_left.saturating_sub(1);
        let (line, tail) = rest.split_once('\n').unwrap_or((rest, ""));
        if is_separator(line) && (has_returned(tail, &mut split) || has_ruler(line)) {
            split.returns_mail = true;
            return split;
        }
        if let Some(run) = header_run(rest) {
            let found = original::of_fields(&run.headers);
            split.returns_mail |= run.has_trace;
            merge(&mut split.original, found);
            if run.has_trace {
                split.returned = head(rest, HEADER_BYTES_MAX).to_owned();
                return split;
            }
            for line in run.text.lines() {
                push_line(&mut split.own, line);
            }
            rest = rest.get(run.text.len()..).unwrap_or_default();
            continue;
        }
        push_line(&mut split.own, line);
        rest = tail;
    }
    split
}

/// Whether a separator is one: a header, or the end of the text, comes behind it.
fn has_returned(tail: &str, split: &mut Split) -> bool {
    if tail.trim().is_empty() {
        split.returns_mail = true;
        return true;
    }
    let mut rest = tail;
    for _ in 0..SEPARATOR_LINES_MAX {
        let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
        if is_header_line(line) {
            let found = unindented(rest);
            merge(&mut split.original, original::of_header(found.as_bytes()));
            split.returned = found;
            split.returns_mail = true;
            return true;
        }
        rest = after;
    }
    // Text follows: the returned mail came without its header, or this was only a sentence.
    false
}

/// Whether a line says that the returned mail follows.
fn is_separator(line: &str) -> bool {
    let trimmed = line.trim();
    if trimmed.is_empty() || trimmed.len() > 160 {
        return false;
    }
    let lower = trimmed.to_lowercase();
    let ends =
        lower.ends_with([':', '.', '-', '=', '*', '_', ')', '#']) || lower.ends_with("follows");
    (has_ruler(line) || ends || lower.len() < 60) && Words::of(&lower).has(Group::Separator)
}

/// Whether a line is drawn rather than written: `--- like this ---`.
fn has_ruler(line: &str) -> bool {
    ["---", "===", "***", "___", "+++", "###"]
        .iter()
        .any(|rule| line.trim_start().starts_with(rule))
}

/// Fields of a header in a row.
struct Run<'a> {
    text: &'a str,
    headers: Headers<'a>,
    has_trace: bool,
}

/// The header that is printed at the start of `text`, if one is.
fn header_run(text: &str) -> Option<Run<'_>> {
    let first = text.split('\n').next().unwrap_or_default();
    if !is_header_line(first) {
        return None;
    }
    let mut len: usize = 0;
    let mut known: usize = 0;
    let mut has_trace = false;
    let mut lines_seen: usize = 0;
    for line in text.split_inclusive('\n').take(RUN_LINES_MAX) {
        let bare = line.trim_end_matches(['\r', '\n']);
        let is_fold = lines_seen > 0 && bare.starts_with([' ', '\t']) && !bare.trim().is_empty();
        if bare.trim().is_empty() || !(is_fold || field_name(bare.as_bytes()).is_some()) {
            break;
        }
        if !is_fold && is_header_line(bare) {
            known = known.saturating_add(1);
            has_trace |= is_trace(bare);
        }
        lines_seen = lines_seen.saturating_add(1);
        len = len.saturating_add(line.len());
    }
    let run = text.get(..len)?;
    let enough = known >= 3 || (has_trace && known >= 2);
    enough.then(|| Run { text: run, headers: Headers::parse(run.as_bytes()), has_trace })
}

/// Whether a line is a field that every mail has, or a trace of its way.
fn is_header_line(line: &str) -> bool {
    let line = head(line, 200);
    let bare = line.trim_start_matches([' ', '\t', '>', '|']);
    field_name(bare.as_bytes()).is_some_and(|(name, _)| {
        KNOWN_FIELDS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
            || name.to_ascii_lowercase().starts_with(b"x-")
    })
}

fn is_trace(line: &str) -> bool {
    field_name(line.trim_start().as_bytes()).is_some_and(|(name, _)| {
        [&b"received"[..], b"return-path", b"dkim-signature", b"mime-version"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
    })
}

/// A header whose lines are all indented or quoted alike, without that.
fn unindented(text: &str) -> String {
    let text = head(text, HEADER_BYTES_MAX);
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    let mark_len =
        first.len().saturating_sub(first.trim_start_matches([' ', '\t', '>', '|']).len());
    let mark = first.get(..mark_len).unwrap_or_default();
    if mark.is_empty() {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        out.push_str(line.strip_prefix(mark).unwrap_or(line.trim_start_matches(['>', '|'])));
        out.push('\n');
    }
    out
}

/// The id in a line `Message-ID: <...>` somewhere in a text.
pub(super) fn printed_id(text: &str) -> Option<crate::mail::MessageId> {
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let line = line.trim_start();
        if !contains_ignore_case(head(line, 40), "message-id") {
            continue;
        }
        let Some((_, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        let folded = lines.peek().map(|next| next.trim()).unwrap_or_default();
        let value = if value.is_empty() { folded } else { value };
        let looks_like_one = value.starts_with('<') || value.contains('@');
        if looks_like_one && let Some(id) = original::message_id(value.as_bytes()) {
            return Some(id);
        }
    }
    None
}

fn merge(known: &mut Option<Original>, found: Option<Original>) {
    let Some(found) = found else { return };
    match known {
        Some(known) if known.message_id.is_some() || found.message_id.is_none() => {}
        _ => *known = Some(found),
    }
}

fn push_line(own: &mut String, line: &str) {
    own.push_str(line);
    own.push('\n');
}

const KNOWN_FIELDS: &[&str] = &[
    "received",
    "return-path",
    "message-id",
    "from",
    "to",
    "subject",
    "date",
    "mime-version",
    "content-type",
    "reply-to",
    "cc",
    "sender",
    "dkim-signature",
    "delivered-to",
    "references",
    "in-reply-to",
    "content-transfer-encoding",
    "authentication-results",
    "user-agent",
    "domainkey-signature",
    "resent-from",
    "list-id",
    "envelope-to",
    "arc-seal",
    "arc-message-signature",
    "arc-authentication-results",
    "received-spf",
];
/// Lines behind a separator in which the header must begin.
const SEPARATOR_LINES_MAX: usize = 6;
/// Lines of a printed header that are looked at.
const RUN_LINES_MAX: usize = 200;
/// Lines of a notice that are looked at.
const LINES_MAX: usize = 20_000;
/// Octets of a returned mail in which its header is looked for.
const HEADER_BYTES_MAX: usize = 65_536;
