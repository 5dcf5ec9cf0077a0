//! The rows of a rules file, parsed once and matched in one pass over a text.

use std::fmt;

use super::category::Category;
use super::classify::{Blocklist, Subject};
use super::patterns::Patterns;
use crate::mail::EnhancedStatus;

/// The rows of a rules file, ready to be matched.
#[derive(Debug)]
pub struct Rules {
    rows: Vec<Row>,
    patterns: Patterns,
}

/// Why a rules file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub problem: String,
}

/// What deciding came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decision<'a> {
    pub(super) category: Category,
    pub(super) rule: &'a str,
    /// Whether it rests on the codes alone or on words that say little.
    pub(super) is_vague: bool,
}

#[derive(Debug)]
struct Row {
    id: String,
    meaning: Meaning,
    codes: Vec<String>,
    statuses: Vec<String>,
    commands: Vec<String>,
    has_patterns: bool,
}

#[derive(Debug)]
enum Meaning {
    Category(Category),
    List(Blocklist),
}

impl Rules {
    /// The rules that are compiled in.
    pub fn compiled_in() -> Self {
        Self::parse(COMPILED_IN).unwrap_or_else(|_error| Self::empty())
    }

    /// Reads a rules file; its head says how it is written.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let mut rules = Self::empty();
        for (at, line) in text.lines().enumerate() {
            let fail = |problem: String| RulesError { line: at.saturating_add(1), problem };
            let trimmed = line.trim();
            if trimmed.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with([' ', '\t']) {
                rules.add_pattern(trimmed).map_err(fail)?;
            } else {
                rules.rows.push(row(trimmed).map_err(fail)?);
            }
        }
        Ok(rules)
    }

    /// The first row that matches, and the blocklist that is named.
    pub(super) fn decide(
        &self,
        subject: &Subject<'_>,
        text: &str,
    ) -> (Option<Decision<'_>>, Option<&Blocklist>) {
        let mut by_text: Option<usize> = None;
        let mut list: Option<usize> = None;
        let best = std::cell::Cell::new((by_text, list));
        let is_list = |row: usize| {
            self.rows.get(row).is_some_and(|row| matches!(row.meaning, Meaning::List(_)))
        };
        self.patterns.scan(
            text,
            |row| {
                let (by_text, list) = best.get();
                let known = if is_list(row) { list } else { by_text };
                known.is_none_or(|known| row < known)
                    && self.rows.get(row).is_some_and(|row| row.holds(subject))
            },
            |row, _start| {
                let (by_text, list) = best.get();
                best.set(if is_list(row) { (by_text, Some(row)) } else { (Some(row), list) });
                true
            },
        );
        (by_text, list) = best.get();
        let alone = self
            .rows
            .iter()
            .position(|row| !row.has_patterns && row.holds(subject) && row.is_category());
        let first = match (by_text, alone) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let decision = first.and_then(|at| self.rows.get(at)).and_then(|row| match row.meaning {
            Meaning::Category(category) => {
                let is_vague = by_text.is_none() || VAGUE.contains(&category);
                Some(Decision { category, rule: &row.id, is_vague })
            }
            Meaning::List(_) => None,
        });
        let list = list.and_then(|at| self.rows.get(at)).and_then(|row| match &row.meaning {
            Meaning::List(list) => Some(list),
            Meaning::Category(_) => None,
        });
        (decision, list)
    }

    fn empty() -> Self {
        Self { rows: Vec::new(), patterns: Patterns::default() }
    }

    fn add_pattern(&mut self, text: &str) -> Result<(), String> {
        let Some(row) = self.rows.last_mut() else {
            return Err("a pattern stands before the first row".to_owned());
        };
        row.has_patterns = true;
        let row = self.rows.len().saturating_sub(1);
        self.patterns.add(row, text)
    }
}

impl Row {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        let code = subject.code.map(|code| code.to_string());
        let status = subject.status.map(|status: EnhancedStatus| status.to_string());
        holds(&self.codes, code.as_deref(), |code, want| {
            code.len() == want.len()
                && code.chars().zip(want.chars()).all(|(c, w)| w == 'x' || c == w)
        }) && holds(&self.statuses, status.as_deref(), |status, want| {
            let mut wanted = want.split('.');
            status.split('.').all(|part| wanted.next().is_some_and(|w| w == "x" || w == part))
        }) && holds(&self.commands, subject.command, |command, want| command == want)
    }

    fn is_category(&self) -> bool {
        matches!(self.meaning, Meaning::Category(_))
    }
}

fn holds(wanted: &[String], found: Option<&str>, same: impl Fn(&str, &str) -> bool) -> bool {
    wanted.is_empty() || found.is_some_and(|found| wanted.iter().any(|want| same(found, want)))
}

/// `category  id  [condition ...]` or `list  ip|domain  Name`.
fn row(line: &str) -> Result<Row, String> {
    let mut words = line.split_whitespace();
    let head = words.next().unwrap_or_default();
    let id = words.next().ok_or_else(|| format!("row `{head}` has no id"))?;
    let mut row = Row {
        id: id.to_owned(),
        meaning: Meaning::Category(Category::Unknown),
        codes: Vec::new(),
        statuses: Vec::new(),
        commands: Vec::new(),
        has_patterns: false,
    };
    if head == "list" {
        if !matches!(id, "ip" | "domain") {
            return Err(format!("`{id}` is not what a list lists; expected `ip` or `domain`"));
        }
        let name = words.collect::<Vec<_>>().join(" ");
        row.meaning = Meaning::List(Blocklist { name, kind: id.to_owned() });
        // A list row without patterns would name nothing.
        row.has_patterns = true;
        return Ok(row);
    }
    let category = Category::parse(head).ok_or_else(|| format!("`{head}` is no category"))?;
    row.meaning = Meaning::Category(category);
    for condition in words {
        let values = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<_>>();
        match condition.split_once('=') {
            Some(("code", codes)) => row.codes = values(codes),
            Some(("status", statuses)) => row.statuses = values(statuses),
            Some(("command", commands)) => row.commands = values(commands),
            _ => {
                return Err(format!(
                    "`{condition}` is no condition; expected `code=...`, `status=...` or `command=...`"
                ));
            }
        }
    }
    Ok(row)
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for RulesError {}

/// Categories whose words stand beside others that say more.
const VAGUE: &[Category] = &[Category::PolicyBlocked, Category::ServerError, Category::Unknown];
/// The rules that come with this program.
const COMPILED_IN: &str = include_str!("rules.txt");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compiled_in_rules_are_sound() {
        let rules = Rules::parse(COMPILED_IN).unwrap();
        assert!(rules.patterns.len() > 500);
    }

    #[test]
    fn a_bad_row_is_named_by_its_line() {
        for (text, line, problem) in [
            ("nonsense  x\n", 1, "`nonsense` is no category"),
            ("# c\nunknown\n", 2, "row `unknown` has no id"),
            ("  pattern\n", 1, "a pattern stands before the first row"),
            (
                "unknown  x  color=red\n",
                1,
                "`color=red` is no condition; expected `code=...`, `status=...` or `command=...`",
            ),
            ("unknown  x\n    ab\n", 2, "pattern `ab` begins with less than three octets"),
            ("unknown  x\n    ABC\n", 2, "pattern `ABC` is not in lower case"),
            ("unknown  x\n    * abc\n", 2, "pattern `* abc` begins or ends with `*`"),
            ("list  thing  X\n", 1, "`thing` is not what a list lists; expected `ip` or `domain`"),
        ] {
            let error = Rules::parse(text).unwrap_err();
            assert_eq!((error.line, error.problem.as_str()), (line, problem));
        }
    }

    #[test]
    fn the_first_row_that_matches_decides() {
        let rules = Rules::parse(
            "spam_blocked  a\n    spam * here\n    |uce|\nuser_unknown  b  status=5.1.x\nmailbox_full  c  code=55x\n    full & box\n",
        )
        .unwrap();
        let decide = |code, status, text: &str| {
            let status = EnhancedStatus::parse(status);
            let subject = Subject { code, status, text, command: None };
            rules.decide(&subject, text).0.map(|decision| decision.rule.to_owned())
        };
        for (code, status, text, want) in [
            (Some(550), "5.1.1", "spam is here", Some("a")),
            (Some(550), "5.1.1", "spam", Some("b")),
            (Some(550), "5.7.1", "reduce spam", None),
            (Some(550), "5.7.1", "an uce.", Some("a")),
            (Some(552), "", "full mailbox", Some("c")),
            (Some(552), "", "full", None),
            (Some(450), "", "full mailbox", None),
        ] {
            assert_eq!(decide(code, status, text).as_deref(), want, "{text}");
        }
    }
}
