//! Notices for people: text and HTML without a machine-readable part.
//!
//! The text is read line by line. A line names a failed recipient by its place (an address at
//! its start), by its key (`Recipient address: ...`), by its words (`could not be delivered to
//! ...`) or in a transcript (`>>> RCPT TO:<...>`); the lines behind it say why.

use super::address::{self, Found};
use super::facts::{Action, Diagnostic, RecipientFacts};
use super::notice::{BOILERPLATE, Group, NAMING_WORDS, NOT_RECIPIENT_KEYS, RECIPIENT_KEYS, Words};
use super::reason;
use super::text::{head, strip_prefix_ignore_case};

/// What a notice says.
#[derive(Clone, Debug, Default)]
pub(super) struct Notice {
    /// The recipients it names, surest kind only.
    pub(super) recipients: Vec<RecipientFacts>,
    /// How they were found.
    pub(super) rule: &'static str,
    /// Whether it lists its recipients rather than speaking of them.
    pub(super) is_structured: bool,
    /// Whether it quotes a code or a status, of a recipient or by itself.
    pub(super) has_code: bool,
    /// The groups of words in its own text.
    pub(super) words: Words,
    /// Its own text on one line, for want of a better reason.
    pub(super) summary: String,
    /// The first line that quotes a reply.
    pub(super) reply: Option<String>,
    /// The addresses that may be recipients if nothing else is.
    pub(super) weak: Vec<String>,
}

/// How sure it is that an address is a failed recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Sureness {
    Words,
    Transcript,
    Key,
    Place,
}

#[derive(Clone, Debug)]
struct Candidate {
    address: String,
    alias: Option<String>,
    reason: String,
    sureness: Sureness,
}

#[derive(Debug, Default)]
struct Reader<'a> {
    candidates: Vec<Candidate>,
    weak: Vec<String>,
    /// Addresses of others that the text mentions and says nothing more of.
    mentioned: Vec<String>,
    own: &'a [String],
    current: Option<usize>,
    blanks: usize,
    rcpts: Vec<String>,
    in_rcpt: bool,
    indent: usize,
    opening: bool,
    /// The recipients of a list that an opening line announced are being named.
    listing: bool,
    reply: Option<String>,
    stated: String,
}

/// Reads the notice's own text; `own` are the addresses of the notice itself in lower case.
pub(super) fn read(text: &str, own: &[String]) -> Notice {
    let mut reader = Reader { own, ..Reader::default() };
    let mut summary = String::new();
    let mut ruled = false;
    let mut words_text = String::new();
    for line in text.lines().take(LINES_MAX) {
        let line = head(line, LINE_BYTES_MAX).trim_end();
        let clean;
        let line = if line.contains(is_stray) {
            clean = line.replace(is_stray, " ");
            clean.as_str()
        } else {
            line
        };
        if line == "--" && !summary.is_empty() {
            // A signature follows.
            break;
        }
        if line.trim_start().starts_with('>') && !line.trim_start().starts_with(">>>") {
            continue;
        }
        words_text.push_str(&line.to_lowercase());
        // A phrase may be folded; a paragraph ends with an empty line.
        words_text.push(if line.trim().is_empty() { '\n' } else { ' ' });
        // Behind a ruler stands what some scanner or signature adds.
        ruled |= !summary.is_empty() && is_ruler(line);
        if !line.trim().is_empty() && !ruled && summary.len() < SUMMARY_BYTES_MAX {
            summary.push_str(line.trim());
            summary.push(' ');
        }
        reader.line(line);
    }
    let words = Words::of(&collapsed(&words_text));
    reader.finish(words, summary)
}

impl Reader<'_> {
    fn line(&mut self, line: &str) {
        let trimmed = line.trim();
        if trimmed.is_empty() {
            self.blanks = self.blanks.saturating_add(1);
            self.blank();
            return;
        }
        if is_ruler(trimmed) {
            self.current = None;
            return;
        }
        let indent = line.len().saturating_sub(line.trim_start().len());
        if self.continues(indent) {
            self.continuation(trimmed);
            return;
        }
        let known = self.candidates.len();
        if !self.transcript(trimmed)
            && !self.alias(trimmed)
            && !self.leading(trimmed)
            && !self.keyed(trimmed)
            && !self.phrased(trimmed)
            && !self.local_part(line)
        {
            self.reason(trimmed);
        }
        let is_named = self.candidates.len() > known;
        if is_named {
            self.indent = indent;
        }
        self.blanks = 0;
        self.opening =
            trimmed.ends_with(':') && Words::of(&trimmed.to_lowercase()).has(Group::Failure);
        self.listing = self.opening || (self.listing && is_named);
    }

    /// Whether a line goes on with what the line above says of a recipient: it is indented
    /// deeper than the recipient.
    fn continues(&self, indent: usize) -> bool {
        self.blanks == 0 && self.current.is_some() && indent > self.indent
    }

    /// A line that goes on: no address in it is a recipient of its own.
    fn continuation(&mut self, line: &str) {
        if self.alias(line) {
            return;
        }
        let place = self.current.and_then(|at| self.candidates.get_mut(at));
        let Some(candidate) = place else { return };
        // `(expanded from` may stand at the end of the line, and the alias on the next.
        let cut = ["(expanded from", "expanded from", "(generated from", "generated from"]
            .iter()
            .find_map(|words| candidate.reason.trim_end().strip_suffix(words))
            .map(str::len);
        if let Some(cut) = cut
            && let Some(found) = address::scan(line).first()
        {
            candidate.reason.truncate(cut);
            candidate.alias.get_or_insert_with(|| found.text.to_owned());
            let rest = line.get(found.end..).unwrap_or_default();
            let rest = rest.trim_start_matches(['>', ')', ':', ' ']).to_owned();
            if let Some(at) = self.current.filter(|_| !rest.is_empty()) {
                self.add_reason(at, &rest);
            }
            return;
        }
        self.reason(line);
    }

    /// A blank line ends a reason that already says something precise.
    fn blank(&mut self) {
        let candidate = self.current.and_then(|at| self.candidates.get(at));
        if candidate.is_some_and(|c| self.blanks > 3 || has_code(&c.reason)) {
            self.current = None;
        }
    }

    /// `>>> RCPT TO:<a>`, `<<< 550 no`, `550 5.1.1 <a>... User unknown`.
    fn transcript(&mut self, line: &str) -> bool {
        let sent = strip_any(line, &[">>>", "In:", "C:"]);
        if let Some(command) = sent {
            let command = command.trim_start();
            let first = address::scan(command).into_iter().next();
            if first.is_some_and(|first| self.begins_with(command, &first)) {
                // No command begins with an address: some mark their recipients like this.
                return self.leading(command);
            }
            self.in_rcpt = strip_prefix_ignore_case(command, "rcpt").is_some();
            if strip_prefix_ignore_case(command, "mail").is_some() {
                self.rcpts.clear();
            }
            if self.in_rcpt && self.rcpts.len() < KNOWN_MAX {
                self.rcpts
                    .extend(address::scan(command).first().map(|found| found.text.to_owned()));
            }
            self.current = None;
            return true;
        }
        let received = strip_any(line, &["<<<", "Out:", "S:"]);
        let reply = received.unwrap_or(line).trim_start();
        if !begins_with_code(reply) {
            return received.is_some();
        }
        let found = address::scan(reply);
        let first = found.first().filter(|found| self.is_foreign(found.text));
        let refused: Vec<String> = match first {
            Some(found) => vec![found.text.to_owned()],
            None if self.in_rcpt => self.rcpts.last().cloned().into_iter().collect(),
            // What is refused after the recipients is refused for all of them.
            None if is_failure_code(reply) => std::mem::take(&mut self.rcpts),
            None => Vec::new(),
        };
        if refused.is_empty() || !is_failure_code(reply) {
            if self.reply.is_none() && is_failure_code(reply) {
                self.reply = Some(reply.to_owned());
            }
            self.reason(reply);
            return true;
        }
        for address in refused {
            self.add(&address, Sureness::Transcript, "");
            if let Some(at) = self.current {
                self.add_reason(at, reply);
            }
        }
        self.current = None;
        true
    }

    /// `(expanded from: <x>)`, `(generated from x)`.
    fn alias(&mut self, line: &str) -> bool {
        let lower = line.to_ascii_lowercase();
        let words =
            ["expanded from", "generated from", "generated by", "forwarded from", "originally to"];
        let Some(at) = words.iter().find_map(|word| lower.find(word)) else { return false };
        let tail = line.get(at..).unwrap_or_default();
        let Some(found) = address::scan(tail).into_iter().next() else { return false };
        if self.candidates.is_empty() && address::scan(line).len() == 1 {
            // What it was expanded to is a program or a file.
            self.add(found.text, Sureness::Place, "");
            return true;
        }
        let place = self.current.or_else(|| self.candidates.len().checked_sub(1));
        if let Some(candidate) = place.and_then(|place| self.candidates.get_mut(place)) {
            candidate.alias.get_or_insert_with(|| found.text.to_owned());
        }
        let before = line.get(..at).unwrap_or_default();
        if let Some(first) = address::scan(before).first() {
            // `<a@b> (expanded from <x@y>): reason` stands on one line.
            let start = Found { ..*first };
            if self.begins_with(line, &start) {
                self.add(first.text, Sureness::Place, "");
                let after = tail.get(found.end..).unwrap_or_default();
                let reason = after.trim_start_matches(['>', ')', ':', ' ']);
                if let Some(candidate) = self.candidates.last_mut() {
                    candidate.alias = Some(found.text.to_owned());
                    candidate.reason = head(reason, REASON_BYTES_MAX).to_owned();
                }
            }
        }
        true
    }

    /// An address at the start of the line, with or without a reason behind it.
    fn leading(&mut self, line: &str) -> bool {
        let found = address::scan(line);
        let Some(first) = found.first() else { return false };
        let tail = line.get(first.end..).unwrap_or_default();
        // `Ann Berg (a@b)` in a list of those who were not reached.
        let is_listed = self.listing
            && found.len() == 1
            && line.get(..first.start).is_some_and(|before| before.ends_with(['<', '(', '[']))
            && tail.trim_matches(['>', ')', ']', '.', ',', ';', ' ']).is_empty();
        if !(is_listed || self.begins_with(line, first)) || is_service(first.text) {
            return false;
        }
        let is_list = found.len() > 1
            && found.windows(2).all(|pair| {
                let &[a, b] = pair else { return true };
                let between = line.get(a.end..b.start).unwrap_or_default();
                between.chars().all(|c| " ,;<>\"'\t".contains(c))
            });
        if is_list {
            for found in &found {
                self.add(found.text, Sureness::Place, "");
            }
            return true;
        }
        let reason =
            tail.trim_start_matches(['>', ')', '"', '\'', ':', ' ', '\t', ']', ',', ';', '-', '.']);
        if is_sentence(reason) && !Words::of(&reason.to_lowercase()).has(Group::Failure) {
            return false;
        }
        let inner = reason.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        self.add(first.text, Sureness::Place, inner.unwrap_or(reason));
        true
    }

    fn begins_with(&self, line: &str, first: &Found<'_>) -> bool {
        let before = line.get(..first.start).unwrap_or_default();
        let before = before.trim();
        let number = before.trim_end_matches(['<', '"', '\'', ' ', '\t']);
        let digits = number.trim_end_matches(['.', ')', ':']);
        let is_number = !digits.is_empty()
            && digits.len() <= 2
            && digits.len() < number.len()
            && digits.bytes().all(|b| b.is_ascii_digit());
        let mark = |c: char| c.is_whitespace() || "<\"'[(*-•·#>|:=～".contains(c);
        let before = if is_number { "" } else { before.trim_matches(mark) };
        let prefix = before.trim_end_matches([';', ':']).trim().to_ascii_lowercase();
        matches!(prefix.as_str(), "" | "smtp" | "rfc822" | "mailto" | "user" | "internet")
            || prefix.starts_with("c=")
            || (before.len() <= 40
                && line.get(first.start.saturating_sub(1)..first.start) == Some("<")
                && before.starts_with('"')
                && before.ends_with('"'))
    }

    /// `Recipient address: a`, `Unknown user: a`.
    fn keyed(&mut self, line: &str) -> bool {
        let Some((key, value)) = line.split_once(':') else { return false };
        let key = key.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
        if key.len() > 60 || key.contains('@') {
            return false;
        }
        let found = address::scan(value);
        let Some(first) = found.first() else { return false };
        if NOT_RECIPIENT_KEYS.iter().any(|word| key.contains(word)) {
            return false;
        }
        let lead = value.get(..first.start).unwrap_or_default().trim();
        if key == "to" || key == "cc" {
            self.weak.push(first.text.to_owned());
            return true;
        }
        let is_sentence = lead.split_whitespace().count() > 2;
        if !RECIPIENT_KEYS.iter().any(|word| key.contains(word)) || is_sentence {
            return false;
        }
        for found in &found {
            self.add(found.text, Sureness::Key, "");
        }
        let tail = found.last().and_then(|last| value.get(last.end..)).unwrap_or_default();
        let says =
            ["unknown", "exceed", "invalid", "full", "reject", "no such", "disabled", "over"];
        let key = if says.iter().any(|word| key.contains(word)) { key.as_str() } else { "" };
        let reason =
            format!("{key} {}", tail.trim_start_matches(['>', ' ', ':', '"', ')', ',', '.']));
        if let Some(at) = self.current.filter(|_| !reason.trim().is_empty()) {
            self.add_reason(at, reason.trim());
        }
        true
    }

    /// A sentence that says of an address that something failed.
    fn phrased(&mut self, line: &str) -> bool {
        let found = address::scan(line);
        if found.is_empty() {
            return false;
        }
        let lower = line.to_lowercase();
        let words = Words::of(&lower);
        let is_help = [
            "contact",
            "please send",
            "questions",
            "assistance",
            "http",
            "message-id",
            "complain",
            "postmaster@",
            "help",
            "from:",
        ]
        .iter()
        .any(|word| lower.contains(word));
        let names = NAMING_WORDS.iter().any(|word| lower.contains(word));
        let key = lower.split_once(':').map(|(key, _)| key).unwrap_or_default();
        let is_sender = NOT_RECIPIENT_KEYS.iter().any(|word| key.contains(word));
        if !is_help && !is_sender && self.mentioned.len() < KNOWN_MAX {
            let others = found.iter().filter(|found| self.is_foreign(found.text));
            let others: Vec<String> = others.map(|found| found.text.to_owned()).collect();
            self.mentioned.extend(others);
        }
        if is_help || !(words.has(Group::Failure) || names) {
            return false;
        }
        let mut any = false;
        for found in found {
            let before = lower.get(..found.start).unwrap_or_default();
            let is_source = before.trim_end_matches(['<', '"', '\'', ' ']).ends_with("from");
            if !is_source && self.is_foreign(found.text) && !is_service(found.text) {
                self.add(found.text, Sureness::Words, "");
                any = true;
            }
        }
        if any && let Some(at) = self.current {
            self.add_reason(at, line);
        }
        any
    }

    /// A lone word below `... could not be delivered:`: a local part of the notice's own
    /// domain.
    fn local_part(&mut self, line: &str) -> bool {
        let word = line.trim();
        let is_word = word.len() <= 64
            && line.starts_with([' ', '\t'])
            && word.chars().all(|c| c.is_ascii_alphanumeric() || "._-+".contains(c));
        let domain = self.own.first().and_then(|own| own.split_once('@')).map(|(_, domain)| domain);
        if let Some(domain) = domain.filter(|_| self.opening && is_word) {
            self.add(&format!("{word}@{domain}"), Sureness::Words, "");
            return true;
        }
        false
    }

    /// A line that belongs to the recipient above it.
    fn reason(&mut self, line: &str) {
        // What a reader is asked to do says nothing of why.
        if BOILERPLATE.iter().any(|start| strip_prefix_ignore_case(line, start).is_some()) {
            return;
        }
        let key = line.split_once(':').map(|(key, _)| key.to_ascii_lowercase()).unwrap_or_default();
        let names_reason = ["reason", "error", "diagnos"].iter().any(|word| key.contains(word));
        if let Some(at) = self.current {
            self.add_reason(at, line);
        } else if names_reason && key.len() < 30 && self.stated.len() < REASON_BYTES_MAX {
            self.stated.push_str(head(line, REASON_BYTES_MAX));
            self.stated.push(' ');
        } else if self.reply.is_none() && has_code(line) {
            self.reply = Some(line.to_owned());
        }
    }

    fn add_reason(&mut self, at: usize, line: &str) {
        let inner = line.strip_prefix("(reason:").and_then(|rest| rest.strip_suffix(')'));
        let line = inner.map_or(line, str::trim);
        let known = self.candidates.get_mut(at).filter(|known| !known.reason.contains(line));
        if let Some(candidate) = known {
            let room = REASON_BYTES_MAX.saturating_sub(candidate.reason.len());
            if !candidate.reason.is_empty() && room > 1 {
                candidate.reason.push(' ');
            }
            candidate.reason.push_str(head(line, room));
        }
    }

    fn add(&mut self, address: &str, sureness: Sureness, reason: &str) {
        let known = self.candidates.iter_mut().take(KNOWN_MAX);
        let same = known.enumerate().find(|(_, c)| c.address.eq_ignore_ascii_case(address));
        if let Some((at, candidate)) = same {
            candidate.sureness = candidate.sureness.max(sureness);
            self.current = Some(at);
            if !reason.is_empty() && !has_code(&candidate.reason) {
                self.add_reason(at, reason);
            }
            return;
        }
        if self.candidates.len() >= super::RECIPIENTS_MAX {
            return;
        }
        let reason = head(reason, REASON_BYTES_MAX).to_owned();
        self.candidates.push(Candidate {
            address: address.to_owned(),
            alias: None,
            reason,
            sureness,
        });
        self.current = self.candidates.len().checked_sub(1);
    }

    /// Whether an address is none of the notice's own.
    fn is_foreign(&self, address: &str) -> bool {
        !self.own.iter().any(|own| own.eq_ignore_ascii_case(address))
    }

    fn finish(mut self, words: Words, summary: String) -> Notice {
        let best = self.candidates.iter().map(|c| c.sureness).max();
        let foreign: Vec<bool> =
            self.candidates.iter().map(|c| self.is_foreign(&c.address)).collect();
        let any_foreign = self
            .candidates
            .iter()
            .zip(&foreign)
            .any(|(c, foreign)| *foreign && Some(c.sureness) == best);
        let mut at = 0;
        self.candidates.retain(|candidate| {
            let keep = Some(candidate.sureness) == best
                && (!any_foreign || foreign.get(at) == Some(&true));
            at += 1;
            keep
        });
        spread_reasons(&mut self.candidates);
        if let Some(reply) = self.reply.as_deref().filter(|reply| has_code(reply)) {
            // A reply that stands apart from all recipients is about those that have none.
            for candidate in self.candidates.iter_mut().filter(|c| !has_code(&c.reason)) {
                candidate.reason = format!("{reply} {}", candidate.reason).trim_end().to_owned();
            }
        }
        let has_code = self.reply.as_deref().is_some_and(has_code)
            || has_code(&self.stated)
            || self.candidates.iter().any(|candidate| has_code(&candidate.reason));
        let recipients = self.candidates.into_iter().map(Candidate::into_facts).collect();
        let rule = match best {
            Some(Sureness::Place) => "freeform.address-at-line-start",
            Some(Sureness::Key) => "freeform.keyed-address",
            Some(Sureness::Transcript) => "freeform.transcript",
            Some(Sureness::Words) => "freeform.address-in-sentence",
            None => "freeform.nobody",
        };
        self.mentioned.dedup();
        if self.weak.is_empty() && self.mentioned.len() == 1 {
            self.weak = self.mentioned;
        }
        let stated = Some(self.stated.trim().to_owned()).filter(|stated| !stated.is_empty());
        let reply = self.reply.or(stated);
        let is_structured = best.is_some_and(|best| best >= Sureness::Transcript);
        Notice { recipients, rule, is_structured, has_code, words, summary, reply, weak: self.weak }
    }
}

impl Candidate {
    fn into_facts(self) -> RecipientFacts {
        let said = reason::of(&self.reason);
        let diagnostic = (!self.reason.is_empty()).then(|| Diagnostic {
            kind: if said.code.is_some() { "smtp".to_owned() } else { String::new() },
            text: self.reason,
        });
        RecipientFacts {
            final_recipient: self.address,
            original_recipient: self.alias,
            action: Action::Failed,
            status: said.status,
            code: said.code,
            command: said.command,
            remote_mta: said.host,
            diagnostic,
            ..RecipientFacts::default()
        }
    }
}

/// Recipients in a row often share the reason behind the last of them.
fn spread_reasons(candidates: &mut [Candidate]) {
    let mut next = String::new();
    for candidate in candidates.iter_mut().rev() {
        if candidate.reason.is_empty() {
            candidate.reason.clone_from(&next);
        } else {
            next.clone_from(&candidate.reason);
        }
    }
}

/// A control character that has no business in a text.
fn is_stray(c: char) -> bool {
    c.is_control() && c != '\t'
}

fn is_ruler(line: &str) -> bool {
    let line = line.trim();
    line.len() >= 20 && line.chars().all(|c| "-_=*~#".contains(c))
}

fn has_code(text: &str) -> bool {
    let said = reason::of(text);
    said.code.is_some() || said.status.is_some()
}

/// `550 ...`, `550-...`, `550 5.1.1 ...`.
fn begins_with_code(line: &str) -> bool {
    matches!(line.as_bytes(), [b'2'..=b'5', b, c, d, ..]
        if b.is_ascii_digit() && c.is_ascii_digit() && matches!(d, b' ' | b'-'))
}

fn is_failure_code(line: &str) -> bool {
    line.starts_with(['4', '5'])
}

fn strip_any<'a>(line: &'a str, prefixes: &[&str]) -> Option<&'a str> {
    prefixes.iter().find_map(|prefix| line.strip_prefix(prefix))
}

/// Whether an address is one to write to for help.
fn is_service(address: &str) -> bool {
    let local = address.split('@').next().unwrap_or_default().to_ascii_lowercase();
    matches!(local.as_str(), "postmaster" | "mailer-daemon" | "abuse" | "hostmaster" | "helpdesk")
}

/// Whether what follows an address goes on as a sentence rather than with a reason.
fn is_sentence(text: &str) -> bool {
    ["wrote", "schrieb", "a écrit", "if ", "for ", "and ", "or ", "to ", "with "]
        .iter()
        .any(|word| strip_prefix_ignore_case(text, word).is_some())
}

/// White space as single spaces.
fn collapsed(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut blank = true;
    for c in text.chars() {
        if c.is_whitespace() {
            if !blank {
                out.push(' ');
            }
            blank = true;
        } else {
            out.push(c);
            blank = false;
        }
    }
    out
}

/// Octets of one line that are looked at.
const LINE_BYTES_MAX: usize = 2000;
/// Lines of a notice that are looked at.
const LINES_MAX: usize = 20_000;
/// Octets of the reason of one recipient.
const REASON_BYTES_MAX: usize = 1000;
/// Octets of the summary.
const SUMMARY_BYTES_MAX: usize = 2000;
/// Recipients among which one that comes again is looked for.
const KNOWN_MAX: usize = 200;
