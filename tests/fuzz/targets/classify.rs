//! Any reply through the rules, and any text as rules.
//!
//! The first octet says which; the rest is text, for rules with the reply behind a NUL.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rebound_fuzz::bounce::{Category, Classification, Rules, Subject, classify::classify_reply};
use rebound_fuzz::mail::EnhancedStatus;

fuzz_target!(|input: &[u8]| {
    let Some((mode, text)) = input.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    if *mode == b'#' {
        own_rules(&text);
        return;
    }
    static RULES: OnceLock<Rules> = OnceLock::new();
    let rules = RULES.get_or_init(Rules::compiled_in);
    sound(&classify_reply(rules, &text));
    // `550 RCPT 5.1.1 text`: each may be missing, and the code be any number.
    let mut words = text.splitn(4, ' ');
    let code = words.next().and_then(|word| word.parse().ok());
    let command = words.next();
    let status = words.next().and_then(EnhancedStatus::parse);
    let text = words.next().unwrap_or(&text);
    let subject = Subject { code, status, command, text };
    let classification = rules.classify(&subject);
    sound(&classification);
    assert_eq!(rules.classify(&subject), classification, "classified twice, it is two things");
});

fn own_rules(text: &str) {
    let (rules, reply) = text.split_once('\0').unwrap_or((text, text));
    match Rules::parse(rules) {
        Ok(rules) => sound(&classify_reply(&rules, reply)),
        Err(error) => {
            assert!((1..=rules.lines().count()).contains(&error.line), "line {}", error.line);
            assert!(!error.problem.is_empty());
        }
    }
}

fn sound(classification: &Classification) {
    let category = classification.category;
    assert_eq!(classification.fault, category.fault());
    assert_eq!(classification.recommended_action, category.recommended_action());
    let is_listing = matches!(category, Category::IpBlacklisted | Category::DomainBlacklisted);
    assert!(is_listing || classification.blocklist.is_none(), "{category:?} names a list");
    assert!(
        category == Category::Unknown || !classification.rule.is_empty(),
        "{category:?} by no rule"
    );
}
