//! Whether an address stands in a mail, however the mail is coded.
//!
//! This shares no code with the reader that it checks. It undoes every coding anywhere in the
//! mail, whether or not the mail declares it there, so it accepts more than it should; what it
//! refuses was made up.

/// Whether the words of an address stand in `mail`, all but one where there are several: the
/// end of a line, of a tag or of a two-octet character may have been taken out of the midst of
/// one.
///
/// A word is a run of ASCII letters and digits, in whatever case: what charsets, quoting and
/// punctuation make of the rest is left out of account.
pub fn stands_in(mail: &[u8], address: &str) -> bool {
    let mut wanted = words(address);
    let may_lack = usize::from(wanted.len() > 1);
    let mut texts = vec![mail.to_ascii_lowercase()];
    strike(&mut wanted, &texts);
    // A coding inside another one inside another one is as deep as mails go.
    let mut layer = vec![mail.to_vec()];
    layer.extend(bodies(mail).map(|body| base64(body, 0)));
    for _ in 0..3 {
        if wanted.len() <= may_lack {
            break;
        }
        layer = layer.iter().flat_map(|text| undone(text)).collect();
        layer.sort_unstable();
        layer.dedup();
        texts = layer.iter().map(|text| text.to_ascii_lowercase()).collect();
        strike(&mut wanted, &texts);
    }
    wanted.len() <= may_lack
}

/// Everything behind each empty line, where a coded part may begin.
fn bodies(mail: &[u8]) -> impl Iterator<Item = &[u8]> {
    let is_empty =
        |at: &usize| mail[*at..].starts_with(b"\n\n") || mail[*at..].starts_with(b"\n\r\n");
    (0..mail.len()).filter(is_empty).map(|at| &mail[at..]).take(40)
}

fn strike(wanted: &mut Vec<Vec<u8>>, texts: &[Vec<u8>]) {
    wanted.retain(|word| !texts.iter().any(|text| holds(text, word)));
}

fn holds(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

fn words(text: &str) -> Vec<Vec<u8>> {
    let words = text.as_bytes().split(|octet| !octet.is_ascii_alphanumeric());
    words.filter(|word| !word.is_empty()).map(<[u8]>::to_ascii_lowercase).collect()
}

/// The text with one coding undone, in every way that is known here.
fn undone(text: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![
        quoted_printable(text),
        escapes(text),
        without_tags(text),
        text.iter().copied().filter(|octet| !octet.is_ascii_whitespace()).collect(),
        text.iter().copied().filter(|octet| *octet != 0).collect(),
    ];
    all.extend((0..4).map(|phase| base64(text, phase)));
    all.retain(|new| new != text);
    all
}

fn quoted_printable(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((octet, tail)) = rest.split_first() {
        rest = tail;
        match (octet, tail) {
            (b'=' | b'+', [high, low, after @ ..]) if hex(&[*high, *low]).is_some() => {
                out.extend(hex(&[*high, *low]).and_then(|code| u8::try_from(code).ok()));
                rest = after;
            }
            (b'=', _) => {
                let blank = tail.iter().take_while(|octet| octet.is_ascii_whitespace()).count();
                rest = &tail[blank..];
            }
            _ => out.push(*octet),
        }
    }
    out
}

/// `&#64;`, `&#x40;`, `\u0040`, `\x{40}` and `\n`.
fn escapes(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    'text: while let Some((octet, tail)) = rest.split_first() {
        for (prefix, is_hex, len_max) in [
            (&b"&#x"[..], true, 8),
            (b"&#X", true, 8),
            (b"&#", false, 8),
            (b"\\x{", true, 8),
            (b"\\u", true, 4),
        ] {
            let Some(coded) = rest.strip_prefix(prefix) else { continue };
            let len = coded
                .iter()
                .take(len_max)
                .take_while(|o| if is_hex { o.is_ascii_hexdigit() } else { o.is_ascii_digit() })
                .count();
            let digits = &coded[..len];
            let code = if is_hex { hex(digits) } else { decimal(digits) };
            if let Some(c) = code.and_then(char::from_u32) {
                out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = &coded[len..];
                rest = rest.strip_prefix(b";").or(rest.strip_prefix(b"}")).unwrap_or(rest);
                continue 'text;
            }
        }
        if *octet == b'\\' && !tail.is_empty() {
            rest = &tail[1..];
            out.push(if tail[0].is_ascii_alphabetic() { b'\n' } else { tail[0] });
            continue;
        }
        out.push(*octet);
        rest = tail;
    }
    out
}

fn without_tags(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(open) = rest.iter().position(|octet| *octet == b'<') {
        out.extend_from_slice(&rest[..open]);
        rest = &rest[open..];
        let Some(close) = rest.iter().position(|octet| *octet == b'>') else { break };
        rest = &rest[close + 1..];
    }
    out.extend_from_slice(rest);
    out
}

/// Base64 as if every stretch between two `=` began `phase` characters into a group.
fn base64(text: &[u8], phase: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    for stretch in text.split(|octet| *octet == b'=') {
        let values = stretch.iter().filter_map(|octet| {
            Some(u32::from(match octet {
                b'A'..=b'Z' => octet - b'A',
                b'a'..=b'z' => octet - b'a' + 26,
                b'0'..=b'9' => octet - b'0' + 52,
                b'+' | b'-' => 62,
                b'/' | b'_' => 63,
                _ => return None,
            }))
        });
        let values: Vec<u32> = values.skip(phase).collect();
        for group in values.chunks(4) {
            let bits =
                group.iter().enumerate().fold(0, |bits, (at, value)| bits | value << (18 - 6 * at));
            let [_, octets @ ..] = bits.to_be_bytes();
            out.extend_from_slice(&octets[..group.len() - 1]);
        }
    }
    out
}

fn hex(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok().and_then(|digits| u32::from_str_radix(digits, 16).ok())
}

fn decimal(digits: &[u8]) -> Option<u32> {
    std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::stands_in;

    #[test]
    fn what_stands_there_is_found_however_it_is_coded_and_nothing_else() {
        for (mail, address, want) in [
            ("to <fred@example.com>", "fred@example.com", true),
            ("to <FRED@Example.com>", "fred@example.com", true),
            ("fr=65d=40exam=\r\nple.com", "fred@example.com", true),
            ("ZnJlZEBleGFtcGxlLmNvbQ==", "fred@example.com", true),
            ("x ZnJlZEBleGFtcGxlLmNvbQ==", "fred@example.com", true),
            ("fr&#101;d<b>@</b>exam<i>ple</i>.com", "fred@example.com", true),
            ("fred\\u0040ex\\x{61}mple.com", "fred@example.com", true),
            ("fred at elsewhere.org", "fred@example.com", false),
            ("nobody@example.com", "fred.x@example.org", false),
            ("example", "fred", false),
            ("", "fred@example.com", false),
            ("", "", true),
        ] {
            assert_eq!(stands_in(mail.as_bytes(), address), want, "{mail}");
        }
    }
}
