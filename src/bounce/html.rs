//! HTML to lines of text, as far as notices need it.

/// The text of an HTML page: tags that end a line become line ends, everything else that is
/// markup disappears, entities become their characters.
pub(super) fn to_text(html: &str) -> String {
    let mut text = String::with_capacity(html.len() / 2);
    let mut rest = html;
    // Behind the last `>` no tag ends, so that none need be looked for there.
    let untagged = html.rfind('>').map_or(html.len(), |last| html.len().saturating_sub(last));
    let mut is_preformatted = false;
    while let Some(at) = rest.find(['<', '&', '\n', '\r']) {
        let (before, tail) = rest.split_at_checked(at).unwrap_or((rest, ""));
        text.push_str(before);
        rest = match tail.as_bytes().first() {
            Some(b'<') if tail.len() > untagged => {
                is_preformatted = preformatted(tail).unwrap_or(is_preformatted);
                after_tag(tail, &mut text)
            }
            Some(b'<') => {
                text.push('<');
                tail.get(1..).unwrap_or_default()
            }
            Some(b'&') => after_entity(tail, &mut text),
            Some(b'\n') if is_preformatted => {
                text.push('\n');
                tail.get(1..).unwrap_or_default()
            }
            // A line end in HTML is a space.
            _ => {
                text.push(' ');
                tail.get(1..).unwrap_or_default()
            }
        };
    }
    text.push_str(rest);
    text
}

/// Whether a tag begins or ends a text whose lines stand as they are.
fn preformatted(tag: &str) -> Option<bool> {
    let starts = |name: &str| super::text::starts_with_ignore_case(tag.as_bytes(), name.as_bytes());
    if starts("<pre>") || starts("<pre ") { Some(true) } else { starts("</pre>").then_some(false) }
}

/// Passes over a tag, or takes a `<` that begins none as it is.
fn after_tag<'a>(tail: &'a str, text: &mut String) -> &'a str {
    let inner = tail.get(1..).unwrap_or_default();
    if let Some(comment) = inner.strip_prefix("!--") {
        return comment.split_once("-->").map_or("", |(_, after)| after);
    }
    let name_end =
        inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '/').unwrap_or(inner.len());
    let name = inner.get(..name_end).unwrap_or_default().to_ascii_lowercase();
    let name = name.trim_matches('/');
    let begins_tag = inner.starts_with(['/', '!', '?']) || is_tag(name);
    let Some((tag, after)) = begins_tag.then(|| inner.split_once('>')).flatten() else {
        text.push('<');
        return inner;
    };
    if matches!(name, "style" | "script" | "title")
        && !inner.starts_with('/')
        && !tag.ends_with('/')
    {
        let end = format!("</{name}");
        let at = super::text::find_ignore_case(after, &end).unwrap_or(after.len());
        return after.get(at..).unwrap_or_default();
    }
    if is_block(name) {
        text.push('\n');
    }
    after
}

fn is_tag(name: &str) -> bool {
    is_block(name)
        || matches!(
            name,
            "a" | "abbr"
                | "b"
                | "big"
                | "body"
                | "center"
                | "code"
                | "em"
                | "font"
                | "head"
                | "html"
                | "i"
                | "img"
                | "input"
                | "link"
                | "meta"
                | "o"
                | "s"
                | "script"
                | "small"
                | "span"
                | "strong"
                | "style"
                | "sub"
                | "sup"
                | "title"
                | "tt"
                | "u"
                | "tbody"
                | "thead"
                | "col"
                | "colgroup"
                | "label"
                | "button"
                | "form"
                | "base"
        )
}

fn is_block(name: &str) -> bool {
    matches!(
        name,
        "br" | "p"
            | "div"
            | "tr"
            | "td"
            | "th"
            | "table"
            | "li"
            | "ul"
            | "ol"
            | "dl"
            | "dt"
            | "dd"
            | "hr"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "pre"
            | "blockquote"
            | "section"
            | "header"
            | "footer"
            | "address"
            | "article"
    )
}

/// Takes an entity as its character, or a `&` that begins none as it is.
fn after_entity<'a>(tail: &'a str, text: &mut String) -> &'a str {
    let inner = tail.get(1..).unwrap_or_default();
    let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '#').unwrap_or(inner.len());
    let name = inner.get(..end).filter(|name| name.len() <= 8).unwrap_or_default();
    let found = match name {
        "lt" => Some('<'),
        "gt" => Some('>'),
        "amp" => Some('&'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        "nbsp" => Some(' '),
        "ndash" => Some('\u{2013}'),
        "mdash" => Some('\u{2014}'),
        "lsquo" => Some('\u{2018}'),
        "rsquo" => Some('\u{2019}'),
        "ldquo" => Some('\u{201c}'),
        "rdquo" => Some('\u{201d}'),
        "laquo" => Some('\u{ab}'),
        "raquo" => Some('\u{bb}'),
        "hellip" => Some('\u{2026}'),
        "bull" => Some('\u{2022}'),
        "middot" => Some('\u{b7}'),
        _ => name.strip_prefix('#').and_then(number).and_then(char::from_u32),
    };
    match found {
        Some(c) => {
            text.push(c);
            let after = inner.get(end..).unwrap_or_default();
            after.strip_prefix(';').unwrap_or(after)
        }
        None => {
            text.push('&');
            inner
        }
    }
}

fn number(digits: &str) -> Option<u32> {
    match digits.strip_prefix(['x', 'X']) {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_goes_and_lines_and_addresses_stay() {
        for (html, want) in [
            ("<html><body>a<br>b</body></html>", "a\nb"),
            ("<p>User <b>x</b>&nbsp;unknown</p>", "\nUser x unknown\n"),
            ("to &lt;a@b.c&gt; &amp; <d@e.f>", "to <a@b.c> & <d@e.f>"),
            ("a<!-- no -->b<style>p{}</style>c", "abc"),
            ("&#64;&#x41;&bogus;&", "@A&bogus;&"),
            ("<pre>a\nb</pre>c\nd", "\na\nb\nc d"),
            ("unclosed <p", "unclosed <p"),
            ("a <script>never closed", "a "),
        ] {
            assert_eq!(to_text(html), want);
        }
    }
}
