//! The words of strangers, as they may stand in a page.
//!
//! The templates escape what HTML gives a meaning to. Here is what is left: characters that
//! change how others around them are shown, and how long a text may be.

use maud::{Markup, html};

use crate::bounce;
use crate::mail::header;

/// A text on one line, apart from the direction of what is around it.
pub(super) fn words(text: &str, chars_max: usize) -> Markup {
    html! { bdi { (clean(text, chars_max).replace(['\n', '\t'], " ")) } }
}

/// A subject line.
pub(super) fn subject(header: &[u8]) -> Markup {
    let field = header::find(header, "Subject");
    let text = field.map(|field| bounce::field_text(field.raw_body)).unwrap_or_default();
    if text.trim().is_empty() {
        return html! { span.faint { "(no subject)" } };
    }
    words(&text, SUBJECT_CHARS_MAX)
}

/// An address or the name of a host.
pub(super) fn address(address: &str) -> Markup {
    words(address, ADDRESS_CHARS_MAX)
}

/// What a server or a report said; its lines stay.
pub(super) fn said(text: &str) -> Markup {
    html! { bdi { (clean(text, SAID_CHARS_MAX)) } }
}

/// Octets that arrived, as far as they are shown.
pub(super) fn raw(octets: &[u8]) -> Markup {
    let shown = octets.get(..RAW_BYTES_MAX).unwrap_or(octets);
    let text = String::from_utf8_lossy(shown);
    html! {
        pre.raw tabindex="0" { (clean(&text, usize::MAX)) }
        @if shown.len() < octets.len() {
            p.faint { "The first " (shown.len()) " of " (octets.len()) " octets." }
        }
    }
}

/// The text without what hides, reorders or is no character at all, cut after `chars_max`
/// characters. Line feeds and tabs stay, and what is taken away leaves a mark.
fn clean(text: &str, chars_max: usize) -> String {
    let mut out = String::with_capacity(text.len().min(chars_max));
    let mut chars = text.chars().filter(|c| *c != '\r');
    for c in chars.by_ref().take(chars_max) {
        out.push(if is_treacherous(c) { char::REPLACEMENT_CHARACTER } else { c });
    }
    if chars.next().is_some() {
        out.push('…');
    }
    out
}

/// Controls, what turns the direction of the text behind it (UAX #9 §2), line and paragraph
/// separators, and characters without any look that can carry a hidden message.
fn is_treacherous(c: char) -> bool {
    let is_kept = matches!(c, '\n' | '\t');
    let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let hides = matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{e0000}'..='\u{e0fff}');
    (c.is_control() && !is_kept) || turns || hides
}

/// Characters of a subject that are shown.
const SUBJECT_CHARS_MAX: usize = 200;

/// Characters of an address, an id or a name that are shown.
pub(super) const ADDRESS_CHARS_MAX: usize = 320;

/// Characters of what a server or a report said that are shown.
const SAID_CHARS_MAX: usize = 2048;

/// Octets of a mail that are shown as they arrived; the API gives all of them.
const RAW_BYTES_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_or_reorders_leaves_a_mark() {
        for (text, want) in [
            ("plain", "plain"),
            ("שלום عالم", "שלום عالم"),
            ("invoice\u{202e}fdp.exe", "invoice\u{fffd}fdp.exe"),
            ("a\u{2066}b\u{2069}", "a\u{fffd}b\u{fffd}"),
            ("a\0b\u{1b}[31m\u{85}", "a\u{fffd}b\u{fffd}[31m\u{fffd}"),
            ("a\u{2028}b\u{feff}c\u{e0041}", "a\u{fffd}b\u{fffd}c\u{fffd}"),
            ("two\r\nlines\tand", "two\nlines\tand"),
        ] {
            assert_eq!(clean(text, 100), want);
        }
    }

    #[test]
    fn a_text_without_an_end_has_one() {
        let long = "é".repeat(1_000_000);
        assert_eq!(clean(&long, 5), "ééééé…");
        assert_eq!(clean("ééééé", 5), "ééééé");
        let shown = words(&long, SUBJECT_CHARS_MAX).into_string();
        assert!(shown.chars().count() < SUBJECT_CHARS_MAX + 20);
        let shown = raw(&vec![b'x'; RAW_BYTES_MAX + 1]).into_string();
        assert!(shown.contains("The first 65536 of 65537 octets."), "{}", shown.len());
    }

    #[test]
    fn a_subject_is_decoded_and_can_be_nothing_but_text() {
        for (header, want) in [
            (
                &b"Subject: <script>alert(1)</script>\r\n"[..],
                "&lt;script&gt;alert(1)&lt;/script&gt;",
            ),
            (
                b"Subject: =?utf-8?B?PGltZyBzcmM9eCBvbmVycm9yPTE+?=\r\n",
                "&lt;img src=x onerror=1&gt;",
            ),
            (b"Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n", "Grüße"),
            (b"Subject: a\r\n folded\r\n", "a folded"),
        ] {
            assert_eq!(subject(header).into_string(), format!("<bdi>{want}</bdi>"));
        }
        for header in [&b"Subject:\r\n"[..], b"X: y\r\n"] {
            assert!(subject(header).into_string().contains("(no subject)"));
        }
    }
}
