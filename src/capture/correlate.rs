//! The correlation ladder: from a report to the submission and recipient that it is about.
//!
//! `rungs` looks up what a report names; what that leads to are the steps here, best first, and
//! each recipient of the report gets its place on one of them.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use super::BOUNCES_PER_MESSAGE_MAX;
use crate::bounce::{Facts, RecipientFacts};
use crate::mail::address::canonical;
use crate::mail::wrapped_address::unwrapped;
use crate::mail::{QueueId, RecipientDsn};
use crate::store::MessageRecord;
use crate::store::record::{BounceKey, Confidence, Match, MatchMethod, Origin, Submission};

/// Every submission that a report leads to, best step first.
pub(super) struct Ladder {
    steps: Vec<Step>,
    /// Whether a guess may change a state, because the operator wants it to.
    low_confidence_changes_state: bool,
}

/// One submission, and how the report led to it.
struct Step {
    method: MatchMethod,
    /// The only recipient that it speaks of, where that is known: the return token's, or the one
    /// that was looked for.
    only: Option<u32>,
    mail: Rc<Mail>,
}

/// A submission with what is known of it, which the steps for its recipients share.
struct Mail {
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

/// A step for one recipient of a report.
struct Foothold<'a> {
    step: &'a Step,
    index: u32,
    is_named: bool,
    confidence: Confidence,
}

impl Ladder {
    /// A ladder without steps.
    pub(super) fn new(low_confidence_changes_state: bool) -> Self {
        Self { steps: Vec::new(), low_confidence_changes_state }
    }

    /// Adds a submission that the report leads to; `only` is the recipient that it speaks of,
    /// where that is known.
    pub(super) fn add(&mut self, method: MatchMethod, message: MessageRecord, only: Option<u32>) {
        self.push(method, Rc::new(Mail::new(message)), only);
    }

    /// Adds a submission once more where it is a step already, for whatever recipient; false
    /// where it is none, and has to be looked up.
    pub(super) fn add_known(
        &mut self,
        method: MatchMethod,
        queue_id: QueueId,
        only: Option<u32>,
    ) -> bool {
        let is_it = |step: &&Step| step.submission().queue_id == queue_id;
        let Some(mail) = self.steps.iter().find(is_it).map(|step| Rc::clone(&step.mail)) else {
            return false;
        };
        if !self.steps.iter().filter(is_it).any(|step| step.only == only) {
            self.push(method, mail, only);
        }
        true
    }

    fn push(&mut self, method: MatchMethod, mail: Rc<Mail>, only: Option<u32>) {
        let queue_id = mail.message.submission.queue_id;
        self.steps.extend(Step::new(method, only, mail));
        tracing::debug!(%queue_id, ?method, steps = self.steps.len(), "correlation step");
    }

    /// Whether the report leads nowhere.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether all that the report says of recipients has a place that is more than a guess.
    pub(super) fn is_settled(&self, facts: &Facts) -> bool {
        let is_sure = |recipient: &RecipientFacts| {
            self.foothold(recipient).is_some_and(|found| found.confidence > Confidence::Low)
        };
        !self.is_empty() && facts.report.recipients.iter().all(is_sure)
    }

    /// Where what the report says of one recipient belongs.
    pub(super) fn place(&self, recipient: &RecipientFacts) -> Place {
        match self.foothold(recipient) {
            Some(found) => found.take(self.low_confidence_changes_state),
            None => Place { found: None, is_full: false },
        }
    }

    /// A token decides alone: whatever address failed in the end, it failed for the recipient
    /// that the token names. An id needs a recipient of that mail; without one, an id that only
    /// that mail has is believed, with low confidence, of a mail that has only one.
    fn foothold(&self, recipient: &RecipientFacts) -> Option<Foothold<'_>> {
        let names = names(recipient);
        let by_token = || self.steps.iter().filter(|step| step.method == MatchMethod::Token);
        by_token()
            .find_map(|step| step.named(&names))
            .or_else(|| {
                let step = by_token().next()?;
                Some(step.unnamed(step.only?, Confidence::Certain))
            })
            .or_else(|| self.steps.iter().find_map(|step| step.named(&names)))
            .or_else(|| {
                let step = self.steps.iter().find(|step| step.is_unmistakable())?;
                Some(step.unnamed(0, Confidence::Low))
            })
    }

    /// The submissions whose return tokens the report came for, each with what was asked of
    /// reports about the recipient that the token names.
    pub(super) fn of_tokens(&self) -> impl Iterator<Item = (&Submission, &RecipientDsn)> {
        let by_token = self.steps.iter().filter(|step| step.method == MatchMethod::Token);
        by_token.filter_map(|step| {
            let submission = step.submission();
            let index = usize::try_from(step.only?).ok()?;
            Some((submission, &submission.envelope.recipients.get(index)?.dsn))
        })
    }

    /// Whether the report is about a notice of ours.
    pub(super) fn leads_to_notice(&self) -> bool {
        self.steps.first().is_some_and(|step| step.submission().origin == Origin::Notice)
    }

    /// The submission that a report is tied to as a whole: by its token, else by the best id
    /// that names a single one. To answer a mail is not to report of it.
    pub(super) fn tied(&self) -> Option<QueueId> {
        let step = self.steps.first().filter(|step| step.method < MatchMethod::References)?;
        Some(step.submission().queue_id)
    }

    /// Whether nothing but a recipient led to a submission.
    pub(super) fn is_guessed(&self) -> bool {
        self.steps.first().is_some_and(|step| step.method == MatchMethod::Recipient)
    }

    /// The bounces that are recorded already for the submissions the report leads to.
    pub(super) fn known_keys(&self) -> HashSet<BounceKey> {
        let bounces = self.steps.iter().flat_map(|step| &step.mail.message.bounces);
        bounces.map(|bounce| bounce.key).collect()
    }
}

impl Mail {
    fn new(message: MessageRecord) -> Self {
        let recipients = &message.submission.envelope.recipients;
        let mut places = HashMap::with_capacity(recipients.len());
        for (index, recipient) in (0_u32..).zip(recipients) {
            places.entry(comparable(recipient.address.as_str())).or_insert(index);
        }
        // A report may know a recipient by the name that the app gave with ORCPT.
        for (index, recipient) in (0_u32..).zip(recipients) {
            if let Some(original) = &recipient.dsn.original_recipient {
                places.entry(comparable(&original.address())).or_insert(index);
            }
        }
        let room = Cell::new(BOUNCES_PER_MESSAGE_MAX.saturating_sub(message.bounces.len()));
        Self { message, places, room }
    }
}

impl Step {
    /// `None` when a token names a recipient that the submission does not have.
    fn new(method: MatchMethod, only: Option<u32>, mail: Rc<Mail>) -> Option<Self> {
        let count = mail.message.submission.envelope.recipients.len();
        let exists = only.is_none_or(|index| usize::try_from(index).is_ok_and(|i| i < count));
        exists.then_some(Self { method, only, mail })
    }

    fn submission(&self) -> &Submission {
        &self.mail.message.submission
    }

    /// This step, where one of the names is a recipient that it speaks of.
    fn named(&self, names: &[String]) -> Option<Foothold<'_>> {
        let mut indexes = names.iter().filter_map(|name| self.mail.places.get(name)).copied();
        let index = indexes.find(|index| self.only.is_none_or(|only| only == *index))?;
        let confidence = match self.method {
            MatchMethod::Token => Confidence::Certain,
            MatchMethod::Recipient => Confidence::Low,
            _ => Confidence::High,
        };
        Some(Foothold { step: self, index, is_named: true, confidence })
    }

    /// This step for a recipient whose address the report does not give.
    fn unnamed(&self, index: u32, confidence: Confidence) -> Foothold<'_> {
        Foothold { step: self, index, is_named: false, confidence }
    }

    /// Whether the id that led here names this mail alone, which has one recipient. The ids of
    /// other hosts, and of mails that are answered, do not.
    fn is_unmistakable(&self) -> bool {
        self.method <= MatchMethod::ReboundId && self.submission().envelope.recipients.len() == 1
    }
}

impl Foothold<'_> {
    fn take(self, low_confidence_changes_state: bool) -> Place {
        let submission = self.step.submission();
        let recipient = usize::try_from(self.index)
            .ok()
            .and_then(|index| submission.envelope.recipients.get(index))
            .map(|recipient| recipient.address.to_string())
            .unwrap_or_default();
        let room = self.step.mail.room.get();
        self.step.mail.room.set(room.saturating_sub(1));
        let is_guess = self.confidence == Confidence::Low;
        let matched = Match {
            changes_state: is_guess && low_confidence_changes_state,
            ..Match::new(self.step.method, self.confidence)
        };
        let found = Found {
            queue_id: submission.queue_id,
            recipient_index: self.index,
            recipient,
            is_named: self.is_named,
            matched,
        };
        Place { found: Some(found), is_full: room == 0 }
    }
}

/// The form in which an address of a report is compared with those of an envelope.
///
/// Beside the case and the labels of a domain, reports add angle brackets, quote local parts that
/// need no quotes, and name addresses as a forwarder has wrapped them.
pub(super) fn comparable(address: &str) -> String {
    let address = address.trim().trim_start_matches('<').trim_end_matches('>').to_lowercase();
    let address = canonical(&unwrapped(&address));
    let Some((local, domain)) = address.rsplit_once('@') else { return address };
    let unquoted = local.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match unquoted {
        Some(inner) if !inner.contains(['"', '\\', ' ', '@']) => format!("{inner}@{domain}"),
        _ => address,
    }
}

/// The names a report has for a recipient: as the sender gave it, then as it was in the end.
pub(super) fn names(recipient: &RecipientFacts) -> Vec<String> {
    let names = recipient.original_recipient.iter().chain([&recipient.final_recipient]);
    names.map(|name| comparable(name)).filter(|name| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::testing::{id, submission};
    use crate::mail::Address;
    use crate::mail::dsn::OriginalRecipient;

    fn step(method: MatchMethod, only: Option<u32>, recipients: &[&str]) -> Step {
        let submission = submission(id(u32::from(only.is_some())), recipients);
        let message =
            MessageRecord { submission, attempts: vec![], bounces: vec![], orders: vec![] };
        Step::new(method, only, Rc::new(Mail::new(message))).unwrap()
    }

    fn ladder(steps: Vec<Step>) -> Ladder {
        Ladder { steps, ..Ladder::new(false) }
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
        let ladder = ladder(vec![step(Token, Some(1), &both), step(MessageId, None, &both)]);
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
        let ladder = ladder(vec![step(Token, Some(0), &both), step(Token, Some(1), &both)]);
        assert_eq!(place(&ladder, &said("B@EXAMPLE.com", None)).unwrap().2, 1);
        assert_eq!(place(&ladder, &said("x@y", Some("a@example.com"))).unwrap().2, 0);
        assert_eq!(place(&ladder, &said("x@y", None)).unwrap().2, 0);
    }

    #[test]
    fn an_id_needs_a_recipient_of_that_mail() {
        use MatchMethod::{EnvelopeId, MessageId};
        let both = ["a@example.com", "B.b@Example.com"];
        let ladder = ladder(vec![
            step(EnvelopeId, None, &["c@example.com", "d@x"]),
            step(MessageId, None, &both),
        ]);
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
    fn a_recipient_is_known_by_its_orcpt_too_unless_that_is_anothers_address() {
        let mut submission = submission(id(1), &["a@example.com", "b@example.com"]);
        for (recipient, original) in submission
            .envelope
            .recipients
            .iter_mut()
            .zip(["rfc822;b@example.com", "rfc822;List+2Bb@example.org"])
        {
            recipient.dsn.original_recipient = OriginalRecipient::parse(original);
        }
        let message =
            MessageRecord { submission, attempts: vec![], bounces: vec![], orders: vec![] };
        let mail = Rc::new(Mail::new(message));
        let step = Step::new(MatchMethod::MessageId, None, mail);
        let ladder = ladder(step.into_iter().collect());
        for (address, want) in
            [("b@example.com", 1), ("a@example.com", 0), ("list+b@example.org", 1)]
        {
            assert_eq!(place(&ladder, &said(address, None)).unwrap().2, want, "{address}");
        }
    }

    #[test]
    fn an_id_alone_is_believed_a_little_of_a_mail_with_one_recipient() {
        let known = ladder(vec![step(MatchMethod::MessageId, None, &["a@example.com"])]);
        let want = Some((MatchMethod::MessageId, Confidence::Low, 0));
        assert_eq!(place(&known, &said("alias@elsewhere.example", None)), want);
        assert_eq!(place(&ladder(vec![]), &said("a@example.com", None)), None);
    }

    #[test]
    fn a_token_for_a_recipient_that_is_not_there_leads_nowhere() {
        let mail = Rc::new(Mail::new(MessageRecord {
            submission: submission(id(1), &["a@example.com"]),
            attempts: vec![],
            bounces: vec![],
            orders: vec![],
        }));
        assert!(Step::new(MatchMethod::Token, Some(1), mail).is_none());
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
            ("prvs=0123456789=A@b", "a@b", true),
            ("<SRS0=xyz=TT=b.example=a@fwd.example>", "a@b.example", true),
            ("prvs=0123456789=a+x@b", "a@b", false),
        ] {
            assert_eq!(comparable(left) == comparable(right), want, "{left} {right}");
        }
        assert!(Address::parse("a@b").is_ok_and(|address| comparable(address.as_str()) == "a@b"));
    }
}
