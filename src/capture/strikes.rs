//! What counts against a recipient: a bounce that is certainly about this address, and is its
//! own fault.
//!
//! A guess counts for nothing, and neither does a report that names another address than the one
//! that was written to: a list or a forwarder is not gone because somebody behind it is.

use super::Capture;
use super::correlate::comparable;
use super::owners::Owners;
use crate::bounce::category::{Fault, RecommendedAction};
use crate::mail::QueueId;
use crate::mail::address::canonical;
use crate::store::record::{Bounce, Confidence};
use crate::store::suppressions::{Strike, Told};

impl Capture {
    /// What the bounces of reports count for.
    pub(super) fn strikes(&self, bounces: &[Bounce], owners: &Owners) -> Vec<Strike> {
        let strike = |bounce: &Bounce| {
            let queue_id = bounce.queue_id?;
            self.strike(bounce, queue_id, owners.of(queue_id)?)
        };
        bounces.iter().filter_map(strike).collect()
    }

    /// What a bounce of a mail of `account` counts for; `None` for nothing.
    pub(super) fn strike(
        &self,
        bounce: &Bounce,
        queue_id: QueueId,
        account: &str,
    ) -> Option<Strike> {
        let expire = self.inner.options.strikes_expire?;
        counts(bounce).then(|| Strike {
            of: (queue_id, bounce.key),
            account: account.to_owned(),
            recipient: canonical(&bounce.recipient),
            is_hard: is_hard(bounce),
            date: bounce.date,
            forget_before: bounce.date.minus(expire),
            told: Told {
                bounce: bounce.id.clone(),
                category: bounce.response.classification.category,
                message: bounce.response.message.clone(),
            },
        })
    }
}

fn counts(bounce: &Bounce) -> bool {
    let is_sure = bounce.matched.is_some_and(|found| found.confidence > Confidence::Low);
    let names = [&bounce.original_recipient, &bounce.final_recipient];
    let mut names = names.into_iter().flatten().peekable();
    let recipient = comparable(&bounce.recipient);
    // Where it names nobody, the return token alone says whom it is about.
    let is_exact = names.peek().is_none() || names.any(|name| comparable(name) == recipient);
    let is_recipients_fault = bounce.response.classification.fault == Fault::Recipient;
    bounce.is_failure()
        && bounce.recipient_index.is_some()
        && is_sure
        && is_exact
        && is_recipients_fault
}

/// Whether it says that there is no such address, and for good. One that was never more than
/// put off may come back.
fn is_hard(bounce: &Bounce) -> bool {
    let response = &bounce.response;
    let is_put_off = response.status.is_some_and(|status| status.class == 4)
        || response.code.is_some_and(|code| (400..500).contains(&code));
    response.classification.recommended_action == RecommendedAction::Remove && !is_put_off
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, attempt, id, live};
    use super::*;
    use crate::bounce::Category;
    use crate::mail::{EnhancedStatus, Reply, Stage};
    use crate::store::record::{Decision, Match, MatchMethod};

    fn bounce() -> Bounce {
        let refusal = crate::store::record::Attempt {
            reply: Reply::parse("550 5.1.1 no such user"),
            ..attempt(0, Stage::Rcpt, Decision::Failed)
        };
        let rules = super::super::RuleSets::compiled_in();
        let message = live(&["A@example.com"]);
        super::super::evidence::inline(&message, &refusal, &rules.classes, NOW).unwrap()
    }

    fn of(category: Category) -> Bounce {
        let mut bounce = bounce();
        let said = &mut bounce.response.classification;
        said.category = category;
        said.fault = category.fault();
        said.recommended_action = category.recommended_action();
        bounce
    }

    fn matched(method: MatchMethod, confidence: Confidence) -> Bounce {
        Bounce { matched: Some(Match::new(method, confidence)), ..bounce() }
    }

    fn named(original: Option<&str>, last: Option<&str>) -> Bounce {
        let owned = |name: Option<&str>| name.map(str::to_owned);
        Bounce { original_recipient: owned(original), final_recipient: owned(last), ..bounce() }
    }

    #[test]
    fn only_what_is_certainly_about_this_address_and_its_own_fault_counts() {
        let guess =
            Match { changes_state: true, ..Match::new(MatchMethod::Recipient, Confidence::Low) };
        for (name, bounce, want) in [
            ("refused", bounce(), true),
            ("full", of(Category::MailboxFull), true),
            ("SPF, 5.7.26", of(Category::AuthFailure), false),
            ("spam", of(Category::SpamBlocked), false),
            ("expired", of(Category::DeliveryExpired), false),
            ("unknown", of(Category::Unknown), false),
            ("an id and the recipient", matched(MatchMethod::MessageId, Confidence::High), true),
            ("an id alone", matched(MatchMethod::MessageId, Confidence::Low), false),
            ("a guess", matched(MatchMethod::Recipient, Confidence::Low), false),
            ("a guess that is let", Bounce { matched: Some(guess), ..bounce() }, false),
            ("nothing", Bounce { matched: None, ..bounce() }, false),
            ("the whole mail", Bounce { recipient_index: None, ..bounce() }, false),
            ("itself", named(None, Some("<a@EXAMPLE.com>")), true),
            ("forwarded, as it was sent", named(Some("a@example.com"), Some("z@x.test")), true),
            ("somebody behind it", named(None, Some("member@list.test")), false),
        ] {
            assert_eq!(counts(&bounce), want, "{name}");
        }
        let delay = Bounce { action: crate::bounce::Action::Delayed, ..bounce() };
        assert!(!counts(&delay));
        assert_eq!(bounce().queue_id, Some(id(1)));
    }

    #[test]
    fn hard_is_what_says_for_good_that_there_is_no_such_address() {
        let put_off = |code, status| {
            let mut bounce = bounce();
            bounce.response.code = code;
            bounce.response.status = status;
            bounce
        };
        let later = EnhancedStatus::new(4, 1, 1);
        for (bounce, want) in [
            (bounce(), true),
            (of(Category::DomainNotFound), true),
            (of(Category::MailboxFull), false),
            (put_off(Some(450), None), false),
            (put_off(None, Some(later)), false),
            (put_off(None, None), true),
        ] {
            assert_eq!(is_hard(&bounce), want, "{:?}", bounce.response);
        }
    }
}
