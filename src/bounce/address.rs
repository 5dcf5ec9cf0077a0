//! Addresses as reports write them: in brackets, quotes, comments, with a type in front.

use crate::mail::Address;
use crate::mail::xtext::unitext_decoded;

/// `type; value` of a DSN field (RFC 3464 §2.1.2): the type in lower case, empty where there
/// is none, and the value.
pub(super) fn typed(value: &str) -> (String, &str) {
    match value.split_once(';') {
        Some((kind, rest)) if is_type(kind.trim()) => {
            (kind.trim().to_ascii_lowercase(), rest.trim())
        }
        _ => (String::new(), value.trim()),
    }
}

/// A recipient as a DSN field gives it, its type taken off and its codings undone.
pub(super) fn of_field(value: &str) -> Option<String> {
    let (kind, value) = typed(value);
    // The type may stand there twice, or be one that nobody registered.
    let value = typed(value).1;
    let value = if kind == "utf-8" { unitext_decoded(value) } else { xtext_decoded(value) };
    clean(&value)
}

/// An address without what surrounds it; a lone local part is kept, nothing else is.
pub(super) fn clean(text: &str) -> Option<String> {
    let text = text.trim();
    let text = match (text.find('<'), text.rfind('>')) {
        (Some(open), Some(close)) if open < close => {
            let inner = text.get(open..=close).unwrap_or(text);
            inner.trim_matches(['<', '>', ' '])
        }
        _ => text,
    };
    let text = text.trim_matches(['<', '>', '\'', ' ', '\t', ',', ';', '(', ')']);
    let text = match text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner,
        None if text.contains("\"@") => text,
        None => text.trim_matches(['"', ':']),
    };
    let text = super::text::strip_prefix_ignore_case(text, "mailto:").unwrap_or(text);
    let text = super::text::strip_prefix_ignore_case(text, "smtp:").unwrap_or(text);
    let quoted = text.starts_with('"') || text.contains("\"@");
    let word = if quoted { text } else { text.split_whitespace().next().unwrap_or_default() };
    let word = word.trim_end_matches(['.', ',', ';', ':', '>', ')']);
    let sound = !word.is_empty() && word.len() <= 320 && !word.chars().any(char::is_control);
    sound.then(|| word.to_owned())
}

/// An address in a line, and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found<'a> {
    /// The address.
    pub(super) text: &'a str,
    /// Where it begins.
    pub(super) start: usize,
    /// Where it ends.
    pub(super) end: usize,
}

/// The addresses in a line, in order.
pub(super) fn scan(line: &str) -> Vec<Found<'_>> {
    let mut found: Vec<Found<'_>> = Vec::new();
    let mut from: usize = 0;
    for (at, _) in line.match_indices('@') {
        if at < from || found.len() >= PER_LINE_MAX {
            continue;
        }
        let before = line.get(from..at).unwrap_or_default();
        let local_len = if before.ends_with('"') {
            let inner = before.strip_suffix('"').unwrap_or_default();
            inner.rfind('"').map_or(0, |open| before.len().saturating_sub(open))
        } else {
            let is_local = |c: char| c.is_alphanumeric() || "!#$%&*+-/=?^_`{|}~.'".contains(c);
            let tail = before.rfind(|c: char| !is_local(c)).map_or(before, |last| {
                let width =
                    before.get(last..).and_then(|t| t.chars().next()).map_or(1, char::len_utf8);
                before.get(last.saturating_add(width)..).unwrap_or_default()
            });
            tail.trim_start_matches(['\'', '`', '*', '-', '=', '.', '/', '#', '|']).len()
        };
        let after = line.get(at.saturating_add(1)..).unwrap_or_default();
        let is_domain = |c: char| c.is_alphanumeric() || "-._".contains(c);
        let domain_len = if after.starts_with('[') {
            after.find(']').map_or(0, |close| close.saturating_add(1))
        } else {
            let end = after.find(|c: char| !is_domain(c)).unwrap_or(after.len());
            after.get(..end).unwrap_or_default().trim_end_matches(['.', '-', '_']).len()
        };
        // `SMTP=a@b` is an address of Exchange in the manner of X.400.
        let local = before.get(before.len().saturating_sub(local_len)..).unwrap_or_default();
        let local_len = match super::text::strip_prefix_ignore_case(local, "smtp=") {
            Some(rest) => rest.len(),
            None => local_len,
        };
        let start = at.saturating_sub(local_len);
        let end = at.saturating_add(1).saturating_add(domain_len);
        let is_whole = local_len > 0 && domain_len > 0 && local_len <= 320;
        if let Some(text) = line.get(start..end).filter(|_| is_whole) {
            found.push(Found { text, start, end });
            from = end;
        }
    }
    found
}

/// Whether `text` is an address with a domain.
pub(super) fn is_complete(text: &str) -> bool {
    text.contains('@') && (Address::parse(text).is_ok() || is_lenient(text))
}

/// Addresses that exist although the grammar says no: a dot at the end of the local part or
/// two in a row, as some providers give them out.
fn is_lenient(text: &str) -> bool {
    text.rsplit_once('@').is_some_and(|(local, domain)| {
        let sound =
            |c: char| !c.is_whitespace() && !c.is_control() && !"<>()[],;:\"@\\".contains(c);
        !local.is_empty()
            && local.len() <= 64
            && local.chars().all(sound)
            && domain.contains('.')
            && crate::mail::address::is_domain(domain)
    })
}

/// Undoes the xtext (RFC 3461 §4) of the characters that it must code and that stand in
/// addresses. Any other `+XX` is left alone: it may be a subaddress.
fn xtext_decoded(text: &str) -> String {
    text.replace("+3D", "=")
        .replace("+2B", "+")
        .replace("+40", "@")
        .replace("+3d", "=")
        .replace("+2b", "+")
}

/// Addresses of one line that are looked at.
const PER_LINE_MAX: usize = 50;

fn is_type(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 20
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_/. ".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_lines() {
        for (line, want) in [
            ("<a@b.c>: no", vec!["a@b.c"]),
            ("to a@b.c, d@e.f.", vec!["a@b.c", "d@e.f"]),
            ("SMTP:a@b.c", vec!["a@b.c"]),
            (r#"<"a b"@c.d>"#, vec![r#""a b"@c.d"#]),
            ("'a@b.c'", vec!["a@b.c"]),
            ("a@[192.0.2.1]", vec!["a@[192.0.2.1]"]),
            ("an @ alone, @b, a@", vec![]),
            ("名前a@b.c様", vec!["名前a@b.c様"]),
            ("@@@@", vec![]),
        ] {
            let found: Vec<&str> = scan(line).into_iter().map(|found| found.text).collect();
            assert_eq!(found, want, "{line}");
        }
    }

    #[test]
    fn recipients_of_dsn_fields_lose_all_wrapping() {
        for (value, want) in [
            ("rfc822; a@b.example", Some("a@b.example")),
            ("RFC822;a@b.example", Some("a@b.example")),
            ("rfc822; <<a@b.example>>", Some("a@b.example")),
            ("rfc822; \"a@b.example\"", Some("a@b.example")),
            ("rfc/822; a@b.example", Some("a@b.example")),
            ("a@b.example", Some("a@b.example")),
            ("rfc822; a@b.example (the reason)", Some("a@b.example")),
            ("rfc822; A B <a@b.example>", Some("a@b.example")),
            ("rfc822;a+2Bx@b.example", Some("a+x@b.example")),
            ("rfc822;a+20x@b.example", Some("a+20x@b.example")),
            ("utf-8; \\x{E9}t\\x{E9}@b.example", Some("été@b.example")),
            ("rfc822; mailto:a@b.example", Some("a@b.example")),
            ("x-local; joe", Some("joe")),
            ("rfc822;", None),
            ("", None),
        ] {
            assert_eq!(of_field(value).as_deref(), want, "{value}");
        }
    }
}
