//! Any text as an address: what is taken is printed as it was, reads as the same address again,
//! and can be written into a command or a header without beginning another; and MAIL, RCPT and
//! the address itself agree on what an address is.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rebound_fuzz::mail::address::{
    ADDRESS_BYTES_MAX, DOMAIN_BYTES_MAX, LOCAL_PART_BYTES_MAX, canonical, is_address_literal,
    is_domain,
};
use rebound_fuzz::mail::{Address, ReversePath};
use rebound_fuzz::smtp::{Understood, understood};

fuzz_target!(|octets: &[u8]| {
    let text = String::from_utf8_lossy(octets);
    for text in text.split('\n').take(8) {
        let address = Address::parse(text);
        if let Ok(address) = &address {
            sound(text, address);
        }
        in_commands(text, address.ok().as_ref());
    }
});

fn sound(text: &str, address: &Address) {
    assert_eq!(address.to_string(), text);
    assert_eq!(Address::parse(&address.to_string()).as_ref(), Ok(address));
    let (local, domain) = (address.local_part(), address.domain());
    assert_eq!(format!("{local}@{domain}"), text);
    assert!((1..=LOCAL_PART_BYTES_MAX).contains(&local.len()));
    assert!((1..=DOMAIN_BYTES_MAX).contains(&domain.len()));
    assert!(text.len() <= ADDRESS_BYTES_MAX);
    assert!(!text.contains(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}'));
    assert!(is_domain(domain) || is_address_literal(domain));
    let outside = outside_quotes(local) + domain;
    assert!(!outside.contains([' ', '<', '>', '"', '(', ')', ',', ';', '\\']), "{text:?}");
    assert_eq!(address.is_ascii(), text.is_ascii());
    let form = address.canonical();
    assert_eq!(canonical(&form), form, "{text:?} has two canonical forms");
    if let Some(ascii) = address.to_ascii() {
        assert!(ascii.is_ascii() && ascii.canonical() == form, "{ascii} is another than {text:?}");
    }
}

/// The text without its quoted strings; a backslash in one of them quotes what follows it.
fn outside_quotes(text: &str) -> String {
    let mut outside = String::new();
    let mut quoted = false;
    let mut characters = text.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => quoted = !quoted,
            '\\' if quoted => drop(characters.next()),
            c if !quoted => outside.push(c),
            _ => {}
        }
    }
    assert!(!quoted, "{text:?} ends within a quoted string");
    outside
}

/// What stands between the angle brackets of MAIL and RCPT is an address if and only if it is
/// one by itself; parameters behind it change nothing.
fn in_commands(text: &str, address: Option<&Address>) {
    // A source route is taken off; an empty path and `<Postmaster>` are no addresses.
    let is_special =
        text.starts_with('@') || text.is_empty() || text.eq_ignore_ascii_case("postmaster");
    if is_special || text.contains(|c: char| c.is_ascii_control()) {
        return;
    }
    for (behind, parameters) in [("", ""), (" SIZE=1", "SIZE=1")] {
        let mail = understood(format!("MAIL FROM:<{text}>{behind}").as_bytes());
        let rcpt = understood(format!("RCPT TO:<{text}>{behind}").as_bytes());
        match address {
            Some(address) => {
                let path = ReversePath::Address(address.clone());
                assert_eq!(mail, Understood::Mail(path, parameters.to_owned()));
                assert_eq!(rcpt, Understood::Rcpt(Some(address.clone()), parameters.to_owned()));
                let routed = understood(format!("RCPT TO:<@a,@b.c:{text}>").as_bytes());
                assert_eq!(routed, Understood::Rcpt(Some(address.clone()), String::new()));
            }
            // An unquoted `>` ends the path, and what follows is judged as a parameter.
            None if text.contains('>') => {}
            None => {
                assert_eq!(mail, Understood::Refused("501 5.1.7 Bad sender address"), "{text:?}");
                let refused = Understood::Refused("501 5.1.3 Bad recipient address");
                assert_eq!(rcpt, refused, "{text:?}");
            }
        }
    }
}
