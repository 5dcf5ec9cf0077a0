//! The correlation ladder: from a report to the submission and recipient that it is about.
//!
//! The steps, best first: return token, Original-Envelope-Id, Message-ID of the returned header,
//! X-Rebound-Id of the returned header. A new way to find a submission is a new step here.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};

use super::{BOUNCES_PER_MESSAGE_MAX, SUBMISSIONS_PER_ID_MAX};
use crate::bounce::{Facts, RecipientFacts};
use crate::mail::QueueId;
use crate::mail::address::canonical;
use crate::store::record::{BounceKey, Confidence, Match, MatchMethod, Origin, ReportReceived};
use crate::store::{MessageRecord, Store, StoreError};

/// Every submission that a report leads to, best step first.
pub(super) struct Ladder {
    steps: Vec<Step>,
}

/// One submission, and how the report led to it.
struct Step {
    method: MatchMethod,
    /// The recipient that the return token names.
    token_recipient: Option<u32>,
    message: MessageRecord,
    /// The places of the recipients by their comparable form.
    places: HashMap<String, u32>,
    /// How many more bounces this submission takes.
    room: Cell<usize>,
}

/// Where what a report says of one recipient belongs.
pub(super) struct Place {
    /// The submission, the recipient's place in its envelope, and how it was found.
    pub(super) found: Option<Found>,
    /// Whether the submission has had more bounces than are recorded.
    pub(super) is_full: bool,
}

/// A recipient of a submission that a report is about.
pub(super) struct Found {
    pub(super) queue_id: QueueId,
    pub(super) recipient_index: u32,
    /// The address as the app gave it.
    pub(super) recipient: String,
    /// Whether the report names this very address.
    pub(super) is_named: bool,
    pub(super) matched: Match,
}

impl Ladder {
    /// Looks up everything that the report names.
    pub(super) fn climb(
        store: &Store,
        received: &ReportReceived,
        facts: &Facts,
    ) -> Result<Self, StoreError> {
        let mut ladder = Self { steps: Vec::new() };
        for (queue_id, recipient) in &received.tokens {
            ladder.step(store, MatchMethod::Token, *queue_id, Some(*recipient))?;
        }
        let envelope_id = facts.report.envelope_id.as_deref();
        if let Some(queue_id) = envelope_id.and_then(|id| QueueId::parse(id.trim())) {
            ladder.step(store, MatchMethod::EnvelopeId, queue_id, None)?;
        }
        if let Some(message_id) = &facts.original.message_id {
            let queue_ids = store.by_message_id(message_id)?;
            for queue_id in queue_ids.into_iter().take(SUBMISSIONS_PER_ID_MAX) {
                ladder.step(store, MatchMethod::MessageId, queue_id, None)?;
            }
        }
        if let Some(queue_id) = facts.original.rebound_id {
            ladder.step(store, MatchMethod::ReboundId, queue_id, None)?;
        }
        Ok(ladder)
    }

    /// Where what the report says of one recipient belongs.
    ///
    /// A token decides alone: whatever address failed in the end, it failed for the recipient
    /// that the token names. An id needs a recipient of that mail; without one it is believed,
    /// with low confidence, of a mail that has only one.
    pub(super) fn place(&self, recipient: &RecipientFacts) -> Place {
        let names = names(recipient);
        let by_token = || self.steps.iter().filter(|step| step.token_recipient.is_some());
        let by_id = || self.steps.iter().filter(|step| step.token_recipient.is_none());
        let token_named = by_token().find_map(|step| {
            let index = step.token_recipient?;
            names
                .iter()
                .any(|name| step.places.get(name) == Some(&index))
                .then(|| step.take(index, true, Confidence::Certain))
        });
        token_named
            .or_else(|| {
                let step = by_token().next()?;
                Some(step.take(step.token_recipient?, false, Confidence::Certain))
            })
            .or_else(|| {
                by_id().find_map(|step| {
                    let index = names.iter().find_map(|name| step.places.get(name))?;
                    Some(step.take(*index, true, Confidence::High))
                })
            })
            .or_else(|| {
                let alone = |step: &&Step| step.message.submission.envelope.recipients.len() == 1;
                Some(by_id().find(alone)?.take(0, false, Confidence::Low))
            })
            .unwrap_or(Place { found: None, is_full: false })
    }

    /// The submission whose return token the report came for.
    pub(super) fn by_token(&self) -> Option<&MessageRecord> {
        self.steps.iter().find(|step| step.token_recipient.is_some()).map(|step| &step.message)
    }

    /// Whether the report is about a notice of ours.
    pub(super) fn leads_to_notice(&self) -> bool {
        self.steps.first().is_some_and(|step| step.message.submission.origin == Origin::Notice)
    }

    /// The submission that a report is tied to as a whole: by its token, else by the best id
    /// that leads to a single one.
    pub(super) fn tied(&self) -> Option<QueueId> {
        self.steps.first().map(|step| step.message.submission.queue_id)
    }

    /// The bounces that are recorded already for the submissions the report leads to.
    pub(super) fn known_keys(&self) -> HashSet<BounceKey> {
        let bounces = self.steps.iter().flat_map(|step| &step.message.bounces);
        bounces.map(|bounce| bounce.key).collect()
    }

    fn step(
        &mut self,
        store: &Store,
        method: MatchMethod,
        queue_id: QueueId,
        token_recipient: Option<u32>,
    ) -> Result<(), StoreError> {
        let same = |step: &Step| {
            step.message.submission.queue_id == queue_id && step.token_recipient == token_recipient
        };
        if self.steps.iter().any(same) {
            return Ok(());
        }
        if let Ok(message) = store.message(queue_id)? {
            self.steps.extend(Step::new(method, token_recipient, message));
        }
        tracing::debug!(%queue_id, ?method, steps = self.steps.len(), "correlation step");
        Ok(())
    }
}

impl Step {
    /// `None` when a token names a recipient that the submission does not have.
    fn new(
        method: MatchMethod,
        token_recipient: Option<u32>,
        message: MessageRecord,
    ) -> Option<Self> {
        let recipients = &message.submission.envelope.recipients;
        let mut places = HashMap::with_capacity(recipients.len());
        for (index, recipient) in (0_u32..).zip(recipients) {
            places.entry(comparable(recipient.address.as_str())).or_insert(index);
        }
        let exists = token_recipient
            .is_none_or(|index| usize::try_from(index).is_ok_and(|i| i < recipients.len()));
        let room = Cell::new(BOUNCES_PER_MESSAGE_MAX.saturating_sub(message.bounces.len()));
        exists.then_some(Self { method, token_recipient, message, places, room })
    }

    fn take(&self, recipient_index: u32, is_named: bool, confidence: Confidence) -> Place {
        let submission = &self.message.submission;
        let recipient = usize::try_from(recipient_index)
            .ok()
            .and_then(|index| submission.envelope.recipients.get(index))
            .map(|recipient| recipient.address.to_string())
            .unwrap_or_default();
        let room = self.room.get();
        self.room.set(room.saturating_sub(1));
        let matched = Match { method: self.method, confidence };
        let queue_id = submission.queue_id;
        let found = Found { queue_id, recipient_index, recipient, is_named, matched };
        Place { found: Some(found), is_full: room == 0 }
    }
}

/// The form in which an address of a report is compared with those of an envelope.
///
/// Beside the case and the labels of a domain, reports add angle brackets and quote local parts that need no quotes.
pub(super) fn comparable(address: &str) -> String {
    let address = canonical(address.trim().trim_start_matches('<').trim_end_matches('>'));
    let Some((local, domain)) = address.rsplit_once('@') else { return address };
    let unquoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match unquoted {
        Some(inner) if !inner.contains(['"', '\\', ' ', '@']) => format!("{inner}@{domain}"),
        _ => address,
    }
}

/// The names a report has for a recipient: as the sender gave it, then as it was in the end.
fn names(recipient: &RecipientFacts) -> Vec<String> {
    let names = recipient.original_recipient.iter().chain([&recipient.final_recipient]);
    names.map(|name| comparable(name)).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::testing::{id, submission};
    use crate::mail::Address;

    fn step(method: MatchMethod, token_recipient: Option<u32>, recipients: &[&str]) -> Step {
        let submission = submission(id(u32::from(token_recipient.is_some())), recipients);
        let message = MessageRecord { submission, attempts: vec![], bounces: vec![] };
        Step::new(method, token_recipient, message).unwrap()
    }

    fn said(final_recipient: &str, original_recipient: Option<&str>) -> RecipientFacts {
        RecipientFacts {
            final_recipient: final_recipient.to_owned(),
            original_recipient: original_recipient.map(str::to_owned),
            ..RecipientFacts::default()
        }
    }

    fn place(ladder: &Ladder, said: &RecipientFacts) -> Option<(MatchMethod, Confidence, u32)> {
        let found = ladder.place(said).found?;
        Some((found.matched.method, found.matched.confidence, found.recipient_index))
    }

    #[test]
    fn a_token_names_its_recipient_whatever_the_report_says() {
        use MatchMethod::{MessageId, Token};
        let both = ["a@example.com", "b@example.com"];
        let ladder =
            Ladder { steps: vec![step(Token, Some(1), &both), step(MessageId, None, &both)] };
        for said in [
            said("b@example.com", None),
            said("forwarded@elsewhere.example", None),
            said("a@example.com", None),
            said("", None),
        ] {
            let want = Some((Token, Confidence::Certain, 1));
            assert_eq!(place(&ladder, &said), want, "{said:?}");
        }
    }

    #[test]
    fn several_tokens_are_told_apart_by_their_recipients() {
        use MatchMethod::Token;
        let both = ["a@example.com", "b@example.com"];
        let ladder =
            Ladder { steps: vec![step(Token, Some(0), &both), step(Token, Some(1), &both)] };
        assert_eq!(place(&ladder, &said("B@EXAMPLE.com", None)).unwrap().2, 1);
        assert_eq!(place(&ladder, &said("x@y", Some("a@example.com"))).unwrap().2, 0);
        assert_eq!(place(&ladder, &said("x@y", None)).unwrap().2, 0);
    }

    #[test]
    fn an_id_needs_a_recipient_of_that_mail() {
        use MatchMethod::{EnvelopeId, MessageId};
        let both = ["a@example.com", "B.b@Example.com"];
        let ladder = Ladder {
            steps: vec![
                step(EnvelopeId, None, &["c@example.com", "d@x"]),
                step(MessageId, None, &both),
            ],
        };
        for (said, want) in [
            (said("a@example.com", None), Some((MessageId, Confidence::High, 0))),
            (said("<b.B@EXAMPLE.COM>", None), Some((MessageId, Confidence::High, 1))),
            (said("\"b.b\"@example.com", None), Some((MessageId, Confidence::High, 1))),
            (said("x@y", Some("a@example.com")), Some((MessageId, Confidence::High, 0))),
            (said("c@example.com", None), Some((EnvelopeId, Confidence::High, 0))),
            (said("nobody@example.com", None), None),
            (said("", None), None),
        ] {
            assert_eq!(place(&ladder, &said), want, "{said:?}");
        }
    }

    #[test]
    fn an_id_alone_is_believed_a_little_of_a_mail_with_one_recipient() {
        let ladder = Ladder { steps: vec![step(MatchMethod::MessageId, None, &["a@example.com"])] };
        let want = Some((MatchMethod::MessageId, Confidence::Low, 0));
        assert_eq!(place(&ladder, &said("alias@elsewhere.example", None)), want);
        assert_eq!(place(&Ladder { steps: vec![] }, &said("a@example.com", None)), None);
    }

    #[test]
    fn a_token_for_a_recipient_that_is_not_there_leads_nowhere() {
        let message = MessageRecord {
            submission: submission(id(1), &["a@example.com"]),
            attempts: vec![],
            bounces: vec![],
        };
        assert!(Step::new(MatchMethod::Token, Some(1), message).is_none());
    }

    #[test]
    fn addresses_are_compared_without_case_brackets_and_needless_quotes() {
        for (left, right, want) in [
            ("A@B.example", "a@b.EXAMPLE", true),
            ("<a@b>", "a@b", true),
            (" a@b ", "a@b", true),
            (r#""a"@b"#, "a@b", true),
            (r#""a b"@c"#, "a b@c", false),
            (r#""a\"b"@c"#, r#"a\"b@c"#, false),
            ("a+x@b", "a@b", false),
        ] {
            assert_eq!(comparable(left) == comparable(right), want, "{left} {right}");
        }
        assert!(Address::parse("a@b").is_ok_and(|address| comparable(address.as_str()) == "a@b"));
    }
}
