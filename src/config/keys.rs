//! Keys of a file that are wrong: which setting was meant, and which is given twice.

use std::ops::Range;

use super::load::dotted;

/// What is wrong with a key that no setting has.
pub(super) fn unknown_key(key: &str, known: &[String]) -> String {
    let sections = known.iter().filter_map(|known| Some(known.split_once('.')?.0));
    let names = known.iter().map(String::as_str).chain(sections);
    let nearest = names.min_by_key(|known| distance(key, known));
    match nearest {
        Some(nearest) if distance(key, nearest) <= key.len().div_ceil(3) => {
            format!("there is no such setting; did you mean `{nearest}`?")
        }
        _ => "there is no such setting; `rebound config show --all` lists them".to_owned(),
    }
}

/// Levenshtein's distance: insertions, deletions and replacements between two short texts.
pub(super) fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, a) in (1_usize..).zip(left.chars()) {
        let mut diagonal = i.saturating_sub(1);
        let mut previous = i;
        if let Some(first) = row.first_mut() {
            *first = i;
        }
        for (cell, b) in row.iter_mut().skip(1).zip(right.chars()) {
            let replaced = diagonal.saturating_add(usize::from(a != b));
            diagonal = *cell;
            *cell = replaced.min(previous.saturating_add(1)).min(diagonal.saturating_add(1));
            previous = *cell;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The dotted key that stands at `span`, the name of its table before it.
pub(super) fn key_at(text: &str, span: Range<usize>) -> String {
    let before = text.get(..span.start).unwrap_or_default();
    let name = text.get(span).unwrap_or_default().trim().trim_matches(['"', '\'', '[', ']']);
    let mut lines = before.split('\n').rev().map(str::trim_start);
    let is_table = lines.next().is_some_and(|line| line.starts_with('['));
    let table = lines.find(|line| line.starts_with('[')).filter(|_line| !is_table);
    let table = table.and_then(|line| line.trim_start_matches('[').split(']').next());
    dotted(table.unwrap_or_default().trim(), name)
}
