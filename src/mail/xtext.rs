//! How the parameters of DSN write what a parameter may not hold: xtext (RFC 3461 §4) and, for
//! addresses of the type `utf-8`, unitext (RFC 6533 §3).

/// Whether `text` is xtext: printable ASCII without `+` and `=`, but for `+` in front of two
/// upper-case hexadecimal digits.
pub fn is_xtext(text: &str) -> bool {
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        rest = match (first, tail) {
            (b'+', [high, low, after @ ..]) if is_hex(*high) && is_hex(*low) => after,
            (b'+' | b'=', _) => return false,
            (b'!'..=b'~', _) => tail,
            _ => return false,
        };
    }
    true
}

/// Writes xtext: printable ASCII as it is, but for `+` and `=`; everything else as `+` and two
/// hexadecimal digits for each octet.
pub fn xtext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for octet in text.bytes() {
        match octet {
            b'!'..=b'~' if octet != b'+' && octet != b'=' => out.push(char::from(octet)),
            _ => out.push_str(&format!("+{octet:02X}")),
        }
    }
    out
}

/// Undoes xtext. What is none stays as it is, and octets that are no UTF-8 become U+FFFD.
pub fn xtext_decoded(text: &str) -> String {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let coded = match tail {
            [high, low, ..] if *first == b'+' && is_hex(*high) && is_hex(*low) => {
                Some(digit(*high).wrapping_mul(16).wrapping_add(digit(*low)))
            }
            _ => None,
        };
        octets.push(coded.unwrap_or(*first));
        rest = if coded.is_some() { tail.get(2..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&octets).into_owned()
}

/// Writes unitext as SMTPUTF8 has it: `\x{HEX}` for what ORCPT may not hold, and every other
/// character as itself.
pub fn unitext(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if "\\+= ".contains(c) || c.is_control() => {
                out.push_str(&format!("\\x{{{:02X}}}", u32::from(c)))
            }
            _ => out.push(c),
        }
    }
    out
}

/// Undoes `\x{HEX}`; what is none stays as it is.
pub fn unitext_decoded(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, tail)) = rest.split_once("\\x{") {
        decoded.push_str(before);
        let coded = tail.split_once('}').and_then(|(hex, after)| {
            let code = u32::from_str_radix(hex, 16).ok()?;
            Some((char::from_u32(code)?, after))
        });
        match coded {
            Some((c, after)) => {
                decoded.push(c);
                rest = after;
            }
            None => {
                decoded.push_str("\\x{");
                rest = tail;
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

fn is_hex(octet: u8) -> bool {
    matches!(octet, b'0'..=b'9' | b'A'..=b'F')
}

/// The value of a hexadecimal digit.
fn digit(octet: u8) -> u8 {
    match octet {
        b'A'..=b'F' => octet.wrapping_sub(b'A').wrapping_add(10),
        _ => octet.wrapping_sub(b'0'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xtext_is_written_and_read_back() {
        for (text, want) in [
            ("0c3k9s0ab1d2e3f4", "0c3k9s0ab1d2e3f4"),
            ("a+b=c", "a+2Bb+3Dc"),
            ("a b\r\nRSET", "a+20b+0D+0ARSET"),
            ("é", "+C3+A9"),
            ("", ""),
        ] {
            assert_eq!(xtext(text), want);
            assert!(is_xtext(want), "{want}");
            assert_eq!(xtext_decoded(want), text);
        }
    }

    #[test]
    fn what_is_no_xtext_is_told_and_left_alone() {
        for text in ["a+b", "+2", "+2b", "+", "++2B", "a=b", "a b", "é", "a\tb", "+ZZ"] {
            assert!(!is_xtext(text), "{text}");
        }
        for (text, want) in [("a+b", "a+b"), ("+2", "+2"), ("++2B", "++"), ("+FF", "\u{fffd}")] {
            assert_eq!(xtext_decoded(text), want);
        }
    }

    #[test]
    fn unitext_is_written_and_read_back() {
        for (text, want) in [
            ("Pelé@example.org", "Pelé@example.org"),
            (r#""a b\+="@é"#, r#""a\x{20}b\x{5C}\x{2B}\x{3D}"@é"#),
        ] {
            assert_eq!(unitext(text), want);
            assert_eq!(unitext_decoded(want), text);
        }
        for (text, want) in
            [(r"Pel\x{E9}@x", "Pelé@x"), (r"\x{D800}", r"\x{D800}"), (r"a\x{", r"a\x{")]
        {
            assert_eq!(unitext_decoded(text), want);
        }
    }
}
