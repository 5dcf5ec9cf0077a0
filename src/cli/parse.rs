//! `rebound parse`: reads mails from files, directories, mailboxes or standard input and says
//! what they report. Needs neither a daemon nor a configuration.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{complain, exit, say};
use crate::bounce::{self, Parsed, Rules};
use crate::clock::Stopwatch;

/// What `parse` can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// One JSON object per mail instead of a page for people.
    #[arg(long)]
    json: bool,
    /// Say which rule produced which fact.
    #[arg(long)]
    why: bool,
    /// A rules file instead of the rules that come with the program.
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Mails, mailboxes (mbox) or directories; `-` is standard input.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
}

/// One mail as JSON shows it.
#[derive(Serialize)]
struct Row<'a> {
    file: &'a str,
    #[serde(flatten)]
    parsed: &'a Parsed,
    seconds: f64,
}

/// Reads every mail that is named and prints what it reports.
///
/// `OK` whatever the mails are; `DATA` when a path cannot be read, after all others were.
pub fn run(arguments: &Arguments) -> u8 {
    let rules = match rules(arguments.rules.as_deref()) {
        Ok(rules) => rules,
        Err(problem) => {
            complain(problem);
            return exit::CONFIG;
        }
    };
    let mut code = exit::OK;
    let mut waiting: Vec<PathBuf> = arguments.paths.iter().rev().cloned().collect();
    while let Some(path) = waiting.pop() {
        match entries(&path) {
            Ok(Some(inside)) => waiting.extend(inside.into_iter().rev()),
            Ok(None) => match octets(&path) {
                Ok(octets) => show_file(&path.to_string_lossy(), &octets, arguments, &rules),
                Err(error) => {
                    complain(format_args!("cannot read {}: {error}", path.display()));
                    code = exit::DATA;
                }
            },
            Err(error) => {
                complain(format_args!("cannot read {}: {error}", path.display()));
                code = exit::DATA;
            }
        }
    }
    code
}

/// The rules of a file, or those that are compiled in.
pub(super) fn rules(path: Option<&Path>) -> Result<Rules, String> {
    let Some(path) = path else { return Ok(Rules::compiled_in()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the rules file {shown}: {error}"))?;
    Rules::parse(&text).map_err(|error| format!("bad rules file {shown}, {error}"))
}

/// What a directory holds, in the order of the names; `None` for everything else.
fn entries(path: &Path) -> io::Result<Option<Vec<PathBuf>>> {
    if path == Path::new("-") || !path.is_dir() {
        return Ok(None);
    }
    let mut inside = Vec::new();
    for entry in std::fs::read_dir(path)? {
        inside.push(entry?.path());
    }
    inside.sort();
    Ok(Some(inside))
}

fn octets(path: &Path) -> io::Result<Vec<u8>> {
    if path != Path::new("-") {
        return std::fs::read(path);
    }
    let mut octets = Vec::new();
    io::stdin().lock().read_to_end(&mut octets)?;
    Ok(octets)
}

/// Shows every mail of a file: one, or all of a mailbox.
fn show_file(name: &str, octets: &[u8], arguments: &Arguments, rules: &Rules) {
    let mails = mails(octets);
    let is_mailbox = mails.len() > 1;
    for (at, mail) in mails.into_iter().enumerate() {
        let name =
            if is_mailbox { format!("{name}#{}", at.saturating_add(1)) } else { name.to_owned() };
        let watch = Stopwatch::start();
        let parsed = Parsed::new(bounce::read(mail), rules);
        let seconds = watch.elapsed().as_secs_f64();
        if arguments.json {
            let mut parsed = parsed;
            if !arguments.why {
                parsed.why.clear();
            }
            match serde_json::to_string(&Row { file: &name, parsed: &parsed, seconds }) {
                Ok(line) => say(line),
                Err(error) => complain(format_args!("cannot show {name} as JSON: {error}")),
            }
        } else {
            say(page(&name, &parsed, arguments.why));
        }
    }
}

/// The mails of an mbox file (RFC 4155): each begins with a `From ` line behind an empty one.
fn mails(octets: &[u8]) -> Vec<&[u8]> {
    if !octets.starts_with(b"From ") {
        return vec![octets];
    }
    let mut mails = Vec::new();
    let mut start: usize = 0;
    let mut line_start: usize = 0;
    let mut after_empty = false;
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if line_start > 0 && after_empty && is_from_line(line) {
            mails.extend(octets.get(start..line_start));
            start = line_start;
        }
        after_empty = line.trim_ascii().is_empty();
        line_start = line_start.saturating_add(line.len());
    }
    mails.extend(octets.get(start..));
    mails
}

/// `From sender date`: the date ends with a year, or has a time in it.
fn is_from_line(line: &[u8]) -> bool {
    line.starts_with(b"From ") && line.iter().filter(|octet| **octet == b':').count() >= 2
}

/// What a mail reports, for people.
fn page(name: &str, parsed: &Parsed, with_why: bool) -> String {
    let mut lines = vec![format!("{name}: {}", parsed.subkind.unwrap_or(parsed.kind))];
    if let Some(id) = &parsed.original_message_id {
        lines.push(format!("  about {id}"));
    }
    if let Some(mta) = &parsed.reporting_mta {
        lines.push(format!("  reported by {mta}"));
    }
    for recipient in &parsed.recipients {
        let mut line = format!("  {} {}", recipient.address, recipient.action);
        if let Some(original) = &recipient.original_recipient {
            line.push_str(&format!(" (sent to {original})"));
        }
        if let Some(status) = &recipient.status {
            line.push_str(&format!(" {status}"));
        }
        if let Some(found) = &recipient.classification {
            line.push_str(&format!(" {} -> {}", found.category, found.recommended_action));
            if with_why && !found.rule.is_empty() {
                line.push_str(&format!(" [rule {}]", found.rule));
            }
        }
        lines.push(line);
        if let Some(diagnostic) = &recipient.diagnostic {
            lines.push(format!("    {diagnostic}"));
        }
    }
    for defect in &parsed.defects {
        lines.push(format!("  defect: {}", defect.0));
    }
    if with_why {
        lines.extend(parsed.why.iter().map(|why| format!("  {} by {}", why.fact, why.rule)));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mailbox_is_split_at_its_from_lines_only() {
        let mbox = b"From a Thu Oct 12 12:10:40 2022\nSubject: a\n\nFrom here on: x\n\nFrom me\n\nFrom b Thu Oct 12 12:10:41 2022\nSubject: b\n\nb\n";
        let found = mails(mbox);
        assert_eq!(found.len(), 2);
        assert!(found[1].starts_with(b"From b"));
        assert_eq!(mails(b"Subject: a\n\nFrom b 1:2:3\n").len(), 1);
        assert_eq!(mails(b"").len(), 1);
    }

    #[test]
    fn what_is_no_mail_is_shown_as_something_else() {
        let rules = Rules::compiled_in();
        for octets in [&b""[..], b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\0\0\0", b"From "] {
            let parsed = Parsed::new(bounce::read(octets), &rules);
            assert_eq!(page("x", &parsed, false).lines().next(), Some("x: other"));
        }
    }

    #[test]
    fn the_page_names_recipients_categories_and_rules() {
        let mail = b"From: MAILER-DAEMON@mx.example\nSubject: failure notice\n\n<a@b.example>:\n550 5.1.1 no such user\n";
        let parsed = Parsed::new(bounce::read(mail), &Rules::compiled_in());
        let page = page("x", &parsed, true);
        assert!(page.contains("a@b.example failed 5.1.1 user_unknown -> remove"), "{page}");
        assert!(page.contains("verdict by notice.from-daemon"), "{page}");
    }
}
