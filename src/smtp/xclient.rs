//! XCLIENT: a client that we trust says on whose behalf it speaks (Postfix's `XCLIENT_README`).
//!
//! What counts is ADDR. NAME is what a look-up of the address gave, and we decide nothing by
//! names. HELO and PROTO are said again by the EHLO or HELO that must follow. PORT, DESTADDR and
//! DESTPORT are of no use here. LOGIN would be an authentication without a password, for which
//! our accounts are too much: who speaks for an account authenticates as it. All are checked, so
//! that a client which says nonsense hears of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::reply::{Canned, PARAMETER_TWICE, XCLIENT_SYNTAX, XCLIENT_UNKNOWN};
use crate::mail::address::{is_address_literal, is_domain};

/// The attributes, as EHLO lists them.
pub(crate) const ATTRIBUTES: [&str; 8] =
    ["NAME", "ADDR", "PORT", "PROTO", "HELO", "LOGIN", "DESTADDR", "DESTPORT"];

/// The address that `ATTRIBUTE=value ...` names, if it names one.
pub(crate) fn address(argument: &str) -> Result<Option<IpAddr>, Canned> {
    let mut named = None;
    let mut seen: Vec<String> = Vec::new();
    for word in argument.split(' ').filter(|word| !word.is_empty()) {
        let (name, value) = word.split_once('=').ok_or(XCLIENT_SYNTAX)?;
        let name = name.to_ascii_uppercase();
        if !ATTRIBUTES.contains(&name.as_str()) {
            return Err(XCLIENT_UNKNOWN);
        }
        if seen.contains(&name) {
            return Err(PARAMETER_TWICE);
        }
        let value = decoded(value).ok_or(XCLIENT_SYNTAX)?;
        let is_right = match name.as_str() {
            "ADDR" => {
                named = Some(read_address(&value).ok_or(XCLIENT_SYNTAX)?);
                true
            }
            "DESTADDR" => read_address(&value).is_some(),
            "NAME" => is_unavailable(&value) || is_domain(&value),
            "PORT" | "DESTPORT" => is_unavailable(&value) || value.parse::<u16>().is_ok(),
            "PROTO" => ["SMTP", "ESMTP"].iter().any(|proto| value.eq_ignore_ascii_case(proto)),
            "HELO" => is_unavailable(&value) || is_domain(&value) || is_address_literal(&value),
            _ => true,
        };
        if !is_right {
            return Err(XCLIENT_SYNTAX);
        }
        seen.push(name);
    }
    if seen.is_empty() { Err(XCLIENT_SYNTAX) } else { Ok(named) }
}

/// An address whose owner is not known is nobody's: not one of this host, which is trusted.
fn read_address(value: &str) -> Option<IpAddr> {
    const PREFIX: &str = "IPV6:";
    if is_unavailable(value) {
        return Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    }
    match value.split_at_checked(PREFIX.len()) {
        Some((prefix, address)) if prefix.eq_ignore_ascii_case(PREFIX) => {
            address.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
        }
        _ => value.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn is_unavailable(value: &str) -> bool {
    ["[UNAVAILABLE]", "[TEMPUNAVAIL]"].iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// The text of an xtext (RFC 3461 §4); it may not hold a control character.
fn decoded(xtext: &str) -> Option<String> {
    let mut octets = Vec::with_capacity(xtext.len());
    let mut rest = xtext;
    while let Some((plain, coded)) = rest.split_once('+') {
        let (digits, tail) = coded.split_at_checked(2)?;
        let is_hexadecimal = |c: char| matches!(c, '0'..='9' | 'A'..='F');
        let octet = u8::from_str_radix(Some(digits).filter(|d| d.chars().all(is_hexadecimal))?, 16);
        octets.extend_from_slice(plain.as_bytes());
        octets.push(octet.ok()?);
        rest = tail;
    }
    octets.extend_from_slice(rest.as_bytes());
    let text = String::from_utf8(octets).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_what_counts() {
        let named = |text: &str| Ok(Some(text.parse().unwrap()));
        for (argument, want) in [
            ("ADDR=192.0.2.1", named("192.0.2.1")),
            ("addr=192.0.2.1 NAME=client.example", named("192.0.2.1")),
            ("ADDR=IPV6:2001:db8::1", named("2001:db8::1")),
            ("ADDR=ipv6:::1", named("::1")),
            ("ADDR=192.0.2+2E1", named("192.0.2.1")),
            ("ADDR=[UNAVAILABLE]", named("0.0.0.0")),
            ("ADDR=[tempunavail]", named("0.0.0.0")),
            ("NAME=[UNAVAILABLE] HELO=[UNAVAILABLE] PORT=[UNAVAILABLE]", Ok(None)),
            ("NAME=client.example HELO=[192.0.2.1] PROTO=esmtp PORT=4660", Ok(None)),
            ("DESTADDR=IPV6:::1 DESTPORT=25 LOGIN=anna+40shop", Ok(None)),
            ("LOGIN=+C3+A9", Ok(None)),
            ("", Err(XCLIENT_SYNTAX)),
            ("ADDR", Err(XCLIENT_SYNTAX)),
            ("ADDR=", Err(XCLIENT_SYNTAX)),
            ("=192.0.2.1", Err(XCLIENT_UNKNOWN)),
            ("FOO=bar", Err(XCLIENT_UNKNOWN)),
            ("ADDR=192.0.2.1 FOO=bar", Err(XCLIENT_UNKNOWN)),
            ("ADDR=192.0.2.1 addr=192.0.2.2", Err(PARAMETER_TWICE)),
            ("ADDR=2001:db8::1", Err(XCLIENT_SYNTAX)),
            ("ADDR=IPV6:192.0.2.1", Err(XCLIENT_SYNTAX)),
            ("ADDR=IPV6:", Err(XCLIENT_SYNTAX)),
            ("ADDR=[192.0.2.1]", Err(XCLIENT_SYNTAX)),
            ("ADDR=192.0.2.256", Err(XCLIENT_SYNTAX)),
            ("ADDR=client.example", Err(XCLIENT_SYNTAX)),
            ("ADDR=é", Err(XCLIENT_SYNTAX)),
            ("NAME=two words", Err(XCLIENT_SYNTAX)),
            ("NAME=a+20b", Err(XCLIENT_SYNTAX)),
            ("PORT=65536", Err(XCLIENT_SYNTAX)),
            ("PORT=x", Err(XCLIENT_SYNTAX)),
            ("PROTO=LMTP", Err(XCLIENT_SYNTAX)),
            ("HELO=(x)", Err(XCLIENT_SYNTAX)),
            ("DESTADDR=x", Err(XCLIENT_SYNTAX)),
            ("LOGIN=a+0D+0AQUIT", Err(XCLIENT_SYNTAX)),
            ("LOGIN=+FF", Err(XCLIENT_SYNTAX)),
            ("LOGIN=+", Err(XCLIENT_SYNTAX)),
            ("LOGIN=+4", Err(XCLIENT_SYNTAX)),
            ("LOGIN=+4g", Err(XCLIENT_SYNTAX)),
            ("LOGIN=+é", Err(XCLIENT_SYNTAX)),
        ] {
            assert_eq!(address(argument), want, "{argument}");
        }
    }
}
