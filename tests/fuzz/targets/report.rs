//! Any octets as a mail: reading ends, names nobody who does not stand there, and takes no more
//! memory than the mail is worth.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rebound_fuzz::bounce::{self, Facts, RECIPIENTS_MAX, RecipientFacts, Verdict};
use rebound_fuzz::standing::stands_in;

fuzz_target!(|mail: &[u8]| {
    let facts = bounce::read(mail);
    for recipient in &facts.report.recipients {
        for address in [Some(&recipient.final_recipient), recipient.original_recipient.as_ref()] {
            let address = address.map_or("", String::as_str);
            assert!(stands_in(mail, address), "{address:?} does not stand in the mail");
            assert!(!address.chars().any(char::is_control), "{address:?} has a control character");
        }
    }
    assert!(facts.report.recipients.len() <= RECIPIENTS_MAX);
    let says_nothing = matches!(facts.verdict, Verdict::Autoreply | Verdict::Other);
    assert!(
        !says_nothing || facts.report.recipients.is_empty(),
        "it names whom it does not report"
    );
    let bytes_max = mail.len() * 4 + (1 << 20);
    assert!(bytes(&facts) <= bytes_max, "{} octets of facts from {}", bytes(&facts), mail.len());
});

fn bytes(facts: &Facts) -> usize {
    let report = &facts.report;
    let texts =
        [&report.reporting_mta, &report.envelope_id, &report.queue_id, &report.feedback_type];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let recipients: usize = report.recipients.iter().map(recipient_bytes).sum();
    let header: usize = facts
        .original
        .headers
        .iter()
        .map(|(name, values)| name.len() + values.iter().map(String::len).sum::<usize>())
        .sum();
    let references: usize = facts.references.iter().map(|id| id.as_str().len()).sum();
    let why: usize = facts.why.iter().map(|why| why.fact.len() + why.rule.len()).sum();
    let defects: usize = facts.defects.iter().map(|defect| defect.0.len()).sum();
    let notice = facts.notice.as_ref().map_or(0, String::len);
    texts + recipients + header + references + why + defects + notice
}

fn recipient_bytes(recipient: &RecipientFacts) -> usize {
    let texts = [&recipient.original_recipient, &recipient.remote_mta, &recipient.command];
    let texts: usize = texts.into_iter().flatten().map(String::len).sum();
    let diagnostic = recipient.diagnostic.as_ref();
    let diagnostic = diagnostic.map_or(0, |said| said.kind.len() + said.text.len());
    size_of::<RecipientFacts>() + recipient.final_recipient.len() + texts + diagnostic
}
