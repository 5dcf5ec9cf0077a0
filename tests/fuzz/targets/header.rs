//! Any octets as a header and as each of the words of `mail`: what is taken apart can be put
//! together again, and what is read and written can be read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rebound_fuzz::mail::{Address, EnhancedStatus, MessageId, QueueId, Reply, ReturnToken, header};

fuzz_target!(|octets: &[u8]| {
    header_block(octets);
    let text = String::from_utf8_lossy(octets);
    words(&text);
    replies(&text);
    addresses(&text);
});

fn header_block(mail: &[u8]) {
    let (head, rest) = header::split(mail);
    assert_eq!([head, rest].concat(), mail, "something is lost between header and body");
    assert_eq!(header::split(head), (head, &[][..]), "a header holds more than its fields");
    assert_eq!(header::without(head, |_| false), head, "a header changes when nothing is removed");
    let fields: Vec<_> = header::fields(head).collect();
    for field in &fields {
        let name = String::from_utf8_lossy(field.name);
        assert!(field.raw.starts_with(field.name) && field.raw.ends_with(field.raw_body));
        assert!(header::find(head, &name).is_some_and(|found| found.is(&name)));
        assert!(!field.text().contains('\n'), "an unfolded field has two lines");
    }
    if let Some(first) = fields.first() {
        let name = String::from_utf8_lossy(first.name);
        let kept = header::without(head, |field| field.is(&name));
        let want: Vec<_> = fields.iter().filter(|field| !field.is(&name)).collect();
        let found: Vec<_> = header::fields(&kept).collect();
        assert!(found.iter().eq(want), "removing {name:?} changes other fields");
        assert_eq!(header::split(&kept).0, kept, "removing {name:?} ends the header early");
    }
    // A mail without a header must do, too.
    assert!(header::fields(mail).all(|field| !field.name.is_empty()));
}

fn words(text: &str) {
    let clean = header::sanitized(text);
    assert!(clean.chars().count() == text.chars().count() && !clean.contains(char::is_control));
    if let Some(id) = MessageId::parse(text) {
        assert_eq!(MessageId::parse(&id.to_string()), Some(id.clone()));
        assert_eq!(MessageId::parse(id.as_str()), Some(id));
    }
    assert!(!MessageId::is_valid_field(text) || MessageId::parse(text).is_some());
    if let Some(id) = QueueId::parse(text) {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Some(token) = ReturnToken::parse(text) {
        assert_eq!(token.to_string(), text.to_ascii_lowercase());
    }
    if let Some((status, rest)) = EnhancedStatus::parse_prefix(text) {
        assert!(text.ends_with(rest));
        assert_eq!(EnhancedStatus::parse(&status.to_string()), Some(status));
    }
}

fn replies(text: &str) {
    let Some(reply) = Reply::parse(text) else { return };
    assert!((200..600).contains(&reply.code));
    let line = reply.to_string();
    assert!(!line.contains('\n'), "a reply on one line has two");
    let again = Reply::parse(&line).map(|again| (again.code, again.status));
    assert_eq!(again, Some((reply.code, reply.status)), "{line:?}");
}

fn addresses(text: &str) {
    for text in text.split(['<', '>', ' ', '\n']).chain([text]).take(20) {
        let Ok(address) = Address::parse(text) else { continue };
        assert_eq!(address.to_string(), text);
        assert_eq!(format!("{}@{}", address.local_part(), address.domain()), text);
        assert!(!text.contains(char::is_control), "an address could break a line");
        assert!(!address.domain().contains(['<', '>', ' ', '"']));
    }
}
