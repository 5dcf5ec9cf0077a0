//! What follows from an attempt: the retry policy, and the only place that looks at 4yz and 5yz.
//!
//! A refusal is final when it is about the mail or the recipient. What is refused before MAIL
//! (greeting, EHLO, STARTTLS, AUTH) is about us and the next hop: no recipient may pay for a
//! wrong password, so the mail waits until the operator has seen to it or its lifetime is over.

use std::time::Duration;

use crate::config;
use crate::mail::{EnhancedStatus, Reply, Stage, Timestamp};
use crate::relay::{Outcome, OutcomeResult};
use crate::store::record::Decision;

/// When what is tried again, and for how long.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The wait after the first, second, ... failed attempt; the last repeats.
    pub retry_after: Vec<Duration>,
    /// How long a recipient is tried.
    pub lifetime: Duration,
    /// Ages at which the app is told that mail is late.
    pub delay_notice_after: Vec<Duration>,
}

/// What the schedule must know of an attempt besides its outcome.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// Which attempt it was; 1 for the first.
    pub number: u32,
    /// When the mail was to be tried first: when it was taken over, or when it was to be sent.
    pub begins_at: Timestamp,
    /// Attempts after which the app wants it given up.
    pub attempts_max: Option<u32>,
    /// The time now, at the end of the attempt.
    pub now: Timestamp,
    /// Thousandths by which the wait is made longer, so that mails that failed together do not
    /// come back together.
    pub jitter_permille: u32,
}

/// What follows from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// The attempt counts, and this is what becomes of the recipient.
    Decided(Decision),
    /// There was no attempt: the recipient waits as it is.
    Hold,
}

/// Whose fault a failed attempt is, as far as the operator must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The recipient's, the mail's, or a passing trouble of the next hop.
    Usual,
    /// The next hop refuses us: the settings of `[relay]` need a look.
    Configuration,
}

impl Policy {
    /// The policy of the settings.
    pub fn of(settings: &config::Queue) -> Self {
        let durations = |spans: &[config::Span]| spans.iter().map(|s| s.duration()).collect();
        Self {
            retry_after: durations(&settings.retry_after),
            lifetime: settings.lifetime.duration(),
            delay_notice_after: durations(&settings.delay_notice_after),
        }
    }

    /// What follows from an attempt.
    ///
    /// A recipient is given up by its age only after an attempt that began when its time was
    /// over has failed, however long the daemon was down. A clock that was set backward makes
    /// the mail younger, which expires nothing. It is given up after the last attempt that the
    /// app wants, too.
    pub fn next(&self, outcome: &Outcome, tried: &Tried) -> Next {
        let is_old = tried.now.since(tried.begins_at) >= self.lifetime;
        let is_last = tried.attempts_max.is_some_and(|most| tried.number >= most);
        match &outcome.result {
            OutcomeResult::NoRoute if !is_old => Next::Hold,
            OutcomeResult::Reply(reply) if outcome.stage == Stage::End && reply.is_positive() => {
                Next::Decided(Decision::Relayed)
            }
            OutcomeResult::Refusal(_) => Next::Decided(Decision::Failed),
            OutcomeResult::Reply(reply) if is_final(outcome.stage, reply) => {
                Next::Decided(Decision::Failed)
            }
            _ if is_old || is_last => Next::Decided(Decision::Expired),
            _ => Next::Decided(Decision::RetryAt(tried.now.plus(self.wait(tried)))),
        }
    }

    /// How many delay notices a mail of this age should have had, when that is more than it has
    /// had. Ages that passed while the daemon was down are made up for by one notice.
    pub fn delay_notices_due(&self, age: Duration, had: u32) -> Option<u32> {
        let passed = self.delay_notice_after.iter().filter(|after| **after <= age).count();
        u32::try_from(passed).ok().filter(|passed| *passed > had)
    }

    /// The latest time that a mail can be put off to. What is due later than that was put off
    /// by a clock that has been set back since, and must not wait until it is right again.
    pub fn latest_due(&self, now: Timestamp) -> Timestamp {
        let longest = self.retry_after.iter().copied().max().unwrap_or(RETRY_AFTER_DEFAULT);
        // The jitter makes a wait twice as long at most.
        now.plus(longest.max(RETRY_AFTER_MIN).saturating_mul(2))
    }

    fn wait(&self, tried: &Tried) -> Duration {
        let place = usize::try_from(tried.number.saturating_sub(1)).unwrap_or(usize::MAX);
        let wait = self.retry_after.get(place).or(self.retry_after.last());
        let wait = wait.copied().unwrap_or(RETRY_AFTER_DEFAULT).max(RETRY_AFTER_MIN);
        let thousandth = wait.checked_div(1000).unwrap_or_default();
        wait.saturating_add(thousandth.saturating_mul(tried.jitter_permille.min(1000)))
    }
}

/// Whom the operator must be told about.
pub fn blame(outcome: &Outcome) -> Blame {
    match (&outcome.result, outcome.stage) {
        (OutcomeResult::Reply(reply), Stage::Auth | Stage::Tls | Stage::Greeting)
            if reply.is_permanent() =>
        {
            Blame::Configuration
        }
        (OutcomeResult::Reply(reply), _) if wants_authentication(reply) => Blame::Configuration,
        (OutcomeResult::Error(_), Stage::Auth | Stage::Tls) => Blame::Configuration,
        _ => Blame::Usual,
    }
}

/// Whether a 5yz reply is about the mail or its recipient.
fn is_final(stage: Stage, reply: &Reply) -> bool {
    match stage {
        Stage::Connect | Stage::Tls | Stage::Greeting | Stage::Auth => false,
        _ if !reply.is_permanent() || wants_authentication(reply) => false,
        // RFC 5321 §4.5.3.1.10: some answer "too many recipients" with 552 where 452 is meant.
        // The others that say 552 mean the size of the mail or of the mailbox.
        Stage::Rcpt => {
            let too_many = Some(EnhancedStatus::new(5, 5, 3));
            reply.code != 552 || reply.status != too_many
        }
        Stage::Mail | Stage::Data | Stage::End => true,
    }
}

/// RFC 4954 §6 and RFC 3207 §4: 530 asks for AUTH or STARTTLS, whatever command it answers.
fn wants_authentication(reply: &Reply) -> bool {
    reply.code == 530
}

/// The wait where the settings name none.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(3 * 3600);
/// No setting makes the queue spin.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60;
    const DAY: u64 = 86_400;

    fn policy() -> Policy {
        Policy {
            retry_after: [2, 5, 15].map(|minutes| Duration::from_secs(minutes * MINUTE)).to_vec(),
            lifetime: Duration::from_secs(5 * DAY),
            delay_notice_after: vec![Duration::from_secs(4 * 3600), Duration::from_secs(DAY)],
        }
    }

    fn outcome(stage: Stage, result: OutcomeResult) -> Outcome {
        Outcome {
            recipient: 0,
            stage,
            remote_mta: None,
            remote_queue_id: None,
            tls: None,
            dsn: false,
            result,
        }
    }

    fn replied(stage: Stage, reply: &str) -> Outcome {
        outcome(stage, OutcomeResult::Reply(Reply::parse(reply).unwrap()))
    }

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_millis(1_700_000_000_000).plus(Duration::from_secs(secs))
    }

    fn tried(number: u32, age_secs: u64) -> Tried {
        Tried {
            number,
            begins_at: at(0),
            attempts_max: None,
            now: at(age_secs),
            jitter_permille: 0,
        }
    }

    #[test]
    fn what_follows_from_each_reply_at_each_stage() {
        use Decision::{Failed, Relayed, RetryAt};
        let retry = RetryAt(at(10 + 2 * MINUTE));
        for (stage, reply, want, blamed) in [
            (Stage::End, "250 2.0.0 Ok: queued as 1", Relayed, Blame::Usual),
            (Stage::End, "550 5.7.1 spam", Failed, Blame::Usual),
            (Stage::End, "451 4.3.0 later", retry, Blame::Usual),
            (Stage::End, "421 4.3.2 going down", retry, Blame::Usual),
            (Stage::Data, "554 5.5.1 no valid recipients", Failed, Blame::Usual),
            (Stage::Data, "450 4.7.1 later", retry, Blame::Usual),
            (Stage::Rcpt, "550 5.1.1 no such user", Failed, Blame::Usual),
            (Stage::Rcpt, "550 unknown", Failed, Blame::Usual),
            // The code decides, not an enhanced status that contradicts it.
            (Stage::Rcpt, "550 4.1.1 odd", Failed, Blame::Usual),
            (Stage::Rcpt, "450 5.1.1 odd", retry, Blame::Usual),
            (Stage::Rcpt, "452 4.5.3 too many recipients", retry, Blame::Usual),
            (Stage::Rcpt, "552 5.5.3 too many recipients", retry, Blame::Usual),
            (Stage::Rcpt, "552 5.2.2 mailbox full", Failed, Blame::Usual),
            (Stage::Rcpt, "552 full", Failed, Blame::Usual),
            (Stage::Rcpt, "530 5.7.0 authentication required", retry, Blame::Configuration),
            (Stage::Mail, "550 5.1.8 bad sender", Failed, Blame::Usual),
            (Stage::Mail, "552 5.3.4 too large", Failed, Blame::Usual),
            (Stage::Mail, "530 5.7.0 must issue STARTTLS", retry, Blame::Configuration),
            (Stage::Mail, "452 4.3.1 disk full", retry, Blame::Usual),
            (Stage::Auth, "535 5.7.8 wrong", retry, Blame::Configuration),
            (Stage::Auth, "454 4.7.0 later", retry, Blame::Usual),
            (Stage::Greeting, "554 5.7.1 go away", retry, Blame::Configuration),
            (Stage::Greeting, "421 4.3.2 busy", retry, Blame::Usual),
            (Stage::Tls, "502 5.5.1 no TLS", retry, Blame::Configuration),
        ] {
            let outcome = replied(stage, reply);
            let next = policy().next(&outcome, &tried(1, 10));
            assert_eq!(next, Next::Decided(want), "{stage:?} {reply}");
            assert_eq!(blame(&outcome), blamed, "{stage:?} {reply}");
        }
    }

    #[test]
    fn only_the_answer_to_the_final_dot_relays() {
        for stage in [Stage::Connect, Stage::Greeting, Stage::Mail, Stage::Rcpt, Stage::Data] {
            let next = policy().next(&replied(stage, "250 2.0.0 Ok"), &tried(1, 0));
            assert!(matches!(next, Next::Decided(Decision::RetryAt(_))), "{stage:?}");
        }
        let redirected = policy().next(&replied(Stage::End, "354 go on"), &tried(1, 0));
        assert!(matches!(redirected, Next::Decided(Decision::RetryAt(_))));
    }

    #[test]
    fn errors_are_tried_again_and_refusals_of_our_own_are_not() {
        let lost = outcome(Stage::End, OutcomeResult::Error("connection lost".to_owned()));
        assert_eq!(
            policy().next(&lost, &tried(2, 60)),
            Next::Decided(Decision::RetryAt(at(60 + 5 * MINUTE)))
        );
        let reply = Reply::new(552, EnhancedStatus::new(5, 3, 4), "too large");
        let refused = outcome(Stage::Mail, OutcomeResult::Refusal(reply));
        assert_eq!(policy().next(&refused, &tried(1, 0)), Next::Decided(Decision::Failed));
        let tls = outcome(Stage::Tls, OutcomeResult::Error("certificate expired".to_owned()));
        assert_eq!(blame(&tls), Blame::Configuration);
        let connect = outcome(Stage::Connect, OutcomeResult::Error("refused".to_owned()));
        assert_eq!(blame(&connect), Blame::Usual);
    }

    #[test]
    fn waits_follow_the_list_and_its_last_repeats() {
        let lost = outcome(Stage::Connect, OutcomeResult::Error("refused".to_owned()));
        for (number, minutes) in [(0, 2), (1, 2), (2, 5), (3, 15), (4, 15), (u32::MAX, 15)] {
            let next = policy().next(&lost, &tried(number, 0));
            let want = Next::Decided(Decision::RetryAt(at(minutes * MINUTE)));
            assert_eq!(next, want, "attempt {number}");
        }
        let jittered = Tried { jitter_permille: 100, ..tried(1, 0) };
        let want = Next::Decided(Decision::RetryAt(at(132)));
        assert_eq!(policy().next(&lost, &jittered), want);
    }

    #[test]
    fn no_wait_is_longer_than_the_latest_due() {
        let lost = outcome(Stage::Connect, OutcomeResult::Error("refused".to_owned()));
        for retry_after in [vec![], vec![0], vec![2, 15, 5], vec![90 * DAY]] {
            let waits: Vec<Duration> =
                retry_after.iter().copied().map(Duration::from_secs).collect();
            let policy = Policy { retry_after: waits, ..policy() };
            for number in 1..5 {
                let jittered = Tried { jitter_permille: u32::MAX, ..tried(number, 0) };
                let next = policy.next(&lost, &jittered);
                let Next::Decided(Decision::RetryAt(time)) = next else { panic!("{next:?}") };
                assert!(time <= policy.latest_due(at(0)), "{retry_after:?} {number}");
            }
        }
    }

    #[test]
    fn no_setting_makes_the_queue_spin() {
        let lost = outcome(Stage::Connect, OutcomeResult::Error("refused".to_owned()));
        let zero = Policy { retry_after: vec![Duration::ZERO], ..policy() };
        assert_eq!(zero.next(&lost, &tried(1, 0)), Next::Decided(Decision::RetryAt(at(1))));
        let none = Policy { retry_after: Vec::new(), ..policy() };
        let want = Next::Decided(Decision::RetryAt(at(3 * 3600)));
        assert_eq!(none.next(&lost, &tried(1, 0)), want);
    }

    #[test]
    fn age_expires_only_what_has_just_failed() {
        let lost = outcome(Stage::Connect, OutcomeResult::Error("refused".to_owned()));
        let expired = Next::Decided(Decision::Expired);
        assert_ne!(policy().next(&lost, &tried(9, 5 * DAY - 1)), expired);
        assert_eq!(policy().next(&lost, &tried(9, 5 * DAY)), expired);
        // The daemon was down all the time: one try was made, and it failed.
        assert_eq!(policy().next(&lost, &tried(1, 30 * DAY)), expired);
        let late = replied(Stage::Rcpt, "450 4.2.0 greylisted");
        assert_eq!(policy().next(&late, &tried(9, 6 * DAY)), expired);
        // What succeeds or is refused then is still relayed or failed.
        let relayed = replied(Stage::End, "250 2.0.0 Ok");
        let next = policy().next(&relayed, &tried(9, 6 * DAY));
        assert_eq!(next, Next::Decided(Decision::Relayed));
        let refused = replied(Stage::Rcpt, "550 5.1.1 gone");
        assert_eq!(policy().next(&refused, &tried(9, 6 * DAY)), Next::Decided(Decision::Failed));
    }

    #[test]
    fn the_last_attempt_that_the_app_wants_is_the_last() {
        let lost = outcome(Stage::Connect, OutcomeResult::Error("refused".to_owned()));
        let expired = Next::Decided(Decision::Expired);
        for (number, attempts_max, is_over) in [
            (1, Some(2), false),
            (2, Some(2), true),
            (3, Some(2), true),
            (1, Some(1), true),
            (9, None, false),
        ] {
            let next = policy().next(&lost, &Tried { attempts_max, ..tried(number, 10) });
            assert_eq!(next == expired, is_over, "{number} of {attempts_max:?}");
        }
        let last = Tried { attempts_max: Some(1), ..tried(1, 10) };
        let relayed = policy().next(&replied(Stage::End, "250 2.0.0 Ok"), &last);
        assert_eq!(relayed, Next::Decided(Decision::Relayed));
        let held = outcome(Stage::Connect, OutcomeResult::NoRoute);
        assert_eq!(policy().next(&held, &last), Next::Hold, "that is no attempt");
    }

    #[test]
    fn a_clock_that_was_set_backward_expires_nothing() {
        let lost = outcome(Stage::Connect, OutcomeResult::Error("refused".to_owned()));
        let back = Tried { begins_at: at(10 * DAY), ..tried(1, 0) };
        let want = Next::Decided(Decision::RetryAt(at(2 * MINUTE)));
        assert_eq!(policy().next(&lost, &back), want);
    }

    #[test]
    fn without_a_route_mail_is_held_until_its_lifetime_is_over() {
        let held = outcome(Stage::Connect, OutcomeResult::NoRoute);
        assert_eq!(policy().next(&held, &tried(1, 0)), Next::Hold);
        assert_eq!(policy().next(&held, &tried(1, 5 * DAY - 1)), Next::Hold);
        let expired = Next::Decided(Decision::Expired);
        assert_eq!(policy().next(&held, &tried(1, 5 * DAY)), expired);
    }

    #[test]
    fn delay_notices_are_due_once_for_each_age() {
        for (age_secs, had, want) in [
            (0, 0, None),
            (4 * 3600 - 1, 0, None),
            (4 * 3600, 0, Some(1)),
            (4 * 3600, 1, None),
            (DAY, 1, Some(2)),
            (DAY, 0, Some(2)),
            (5 * DAY, 2, None),
            (5 * DAY, 7, None),
        ] {
            let due = policy().delay_notices_due(Duration::from_secs(age_secs), had);
            assert_eq!(due, want, "{age_secs} {had}");
        }
    }
}
