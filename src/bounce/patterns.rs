//! Many patterns looked for in one pass over a text.

use std::collections::HashMap;

/// Patterns, each of which belongs to a group.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    patterns: Vec<Pattern>,
    /// Patterns by the first three octets of their first piece.
    anchors: HashMap<[u8; 3], Vec<usize>>,
    /// Which hashes of three octets begin a pattern, so that most places need no look-up.
    seen: Vec<bool>,
}

/// Pieces that must stand in the text one after the other, and another pattern beside it.
#[derive(Debug)]
struct Pattern {
    group: usize,
    pieces: Vec<String>,
    at_word_start: bool,
    at_word_end: bool,
    also: Option<String>,
}

impl Patterns {
    /// Adds a pattern in lower case: `*` stands for up to `WILDCARD_BYTES_MAX` octets, `|` at
    /// an end asks for the end of a word, ` & ` joins another text that must stand there too.
    pub(super) fn add(&mut self, group: usize, text: &str) -> Result<(), String> {
        let (text, also) = match text.split_once(" & ") {
            Some((text, also)) => (text, Some(also.trim().to_owned())),
            None => (text, None),
        };
        let at_word_start = text.starts_with('|');
        let at_word_end = text.ends_with('|');
        let pieces: Vec<String> =
            text.trim_matches('|').split('*').map(|piece| piece.trim().to_owned()).collect();
        let is_upper = |text: &str| text.chars().any(char::is_uppercase);
        if is_upper(text) || also.as_deref().is_some_and(is_upper) {
            return Err(format!("pattern `{text}` is not in lower case"));
        }
        if pieces.iter().any(String::is_empty) {
            return Err(format!("pattern `{text}` begins or ends with `*`"));
        }
        let first = pieces.first().map(String::as_bytes).unwrap_or_default();
        let Some(&[a, b, c]) = first.get(..3) else {
            return Err(format!("pattern `{text}` begins with less than three octets"));
        };
        self.seen.resize(HASHES, false);
        if let Some(seen) = self.seen.get_mut(hash(a, b, c)) {
            *seen = true;
        }
        self.anchors.entry([a, b, c]).or_default().push(self.patterns.len());
        self.patterns.push(Pattern { group, pieces, at_word_start, at_word_end, also });
        Ok(())
    }

    /// Calls `found` with the group and the place of every match. `wanted` says whether a match
    /// of a group would still matter.
    pub(super) fn scan(
        &self,
        text: &str,
        mut wanted: impl FnMut(usize) -> bool,
        mut found: impl FnMut(usize, usize) -> bool,
    ) {
        for (start, window) in text.as_bytes().windows(3).enumerate() {
            let &[a, b, c] = window else { continue };
            if self.seen.get(hash(a, b, c)) != Some(&true) {
                continue;
            }
            for pattern in self.anchors.get(&[a, b, c]).into_iter().flatten() {
                let Some(pattern) = self.patterns.get(*pattern) else { continue };
                if wanted(pattern.group)
                    && pattern.matches(text, start)
                    && !found(pattern.group, start)
                {
                    return;
                }
            }
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.patterns.len()
    }
}

impl Pattern {
    /// Whether the pattern matches `text` with its first piece at `start`.
    fn matches(&self, text: &str, start: usize) -> bool {
        let octets = text.as_bytes();
        let Some((first, others)) = self.pieces.split_first() else { return false };
        let Some(mut rest) = octets.get(start..).and_then(|t| t.strip_prefix(first.as_bytes()))
        else {
            return false;
        };
        let is_word = |octet: Option<&u8>| octet.is_some_and(u8::is_ascii_alphanumeric);
        if self.at_word_start && is_word(start.checked_sub(1).and_then(|at| octets.get(at))) {
            return false;
        }
        for piece in others {
            let reach = piece.len().saturating_add(WILDCARD_BYTES_MAX);
            let near = rest.get(..reach).unwrap_or(rest);
            let Some(at) = near.windows(piece.len()).position(|w| w == piece.as_bytes()) else {
                return false;
            };
            rest = rest.get(at.saturating_add(piece.len())..).unwrap_or_default();
        }
        !(self.at_word_end && is_word(rest.first()))
            && self.also.as_deref().is_none_or(|also| text.contains(also))
    }
}

fn hash(a: u8, b: u8, c: u8) -> usize {
    let mixed = usize::from(a).wrapping_mul(961) ^ usize::from(b).wrapping_mul(31) ^ usize::from(c);
    mixed % HASHES
}

/// Octets that a `*` may stand for.
const WILDCARD_BYTES_MAX: usize = 120;
const HASHES: usize = 8192;
