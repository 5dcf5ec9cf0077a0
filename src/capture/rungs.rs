//! The rungs of the correlation ladder: each look-up that may lead from a report to a mail.
//!
//! They are climbed in the order of `RUNGS` until all that the report says has found its place,
//! so that a weaker clue is asked for nothing that a better one has answered.

use super::correlate::{Ladder, comparable, names};
use super::evidence::mta_name;
use super::{Options, SUBMISSIONS_PER_ID_MAX, reported_action};
use crate::bounce::Facts;
use crate::mail::{Address, MessageId, QueueId, Timestamp};
use crate::store::record::{Attempt, Decision, MatchMethod, Origin};
use crate::store::{MessageRecord, Store, StoreError};

/// What is looked for, and where.
pub(super) struct Search<'a> {
    pub(super) store: &'a Store,
    /// What valid return tokens named: submission and recipient.
    pub(super) tokens: &'a [(QueueId, u32)],
    pub(super) facts: &'a Facts,
    /// When the report arrived.
    pub(super) received_at: Timestamp,
    pub(super) options: &'a Options,
}

type Rung = fn(&mut Ladder, &Search<'_>) -> Result<(), StoreError>;

/// All rungs, best first. A new way to find a submission is a new rung here.
const RUNGS: [Rung; 8] = [
    Ladder::by_token,
    Ladder::by_envelope_id,
    Ladder::by_message_id,
    Ladder::by_alias,
    Ladder::by_rebound_id,
    Ladder::by_remote_queue_id,
    Ladder::by_references,
    Ladder::by_recipient,
];

impl Ladder {
    /// Looks up what the report names.
    pub(super) fn climb(search: &Search<'_>) -> Result<Self, StoreError> {
        let mut ladder = Self::new(search.options.low_confidence_changes_state);
        for rung in RUNGS {
            rung(&mut ladder, search)?;
            if ladder.is_settled(search.facts) {
                break;
            }
        }
        Ok(ladder)
    }

    fn by_token(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        for (queue_id, recipient) in search.tokens {
            self.step(search, MatchMethod::Token, *queue_id, Some(*recipient))?;
        }
        Ok(())
    }

    fn by_envelope_id(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        let envelope_id = search.facts.report.envelope_id.as_deref();
        match envelope_id.and_then(|id| QueueId::parse(id.trim())) {
            Some(queue_id) => self.step(search, MatchMethod::EnvelopeId, queue_id, None),
            None => Ok(()),
        }
    }

    fn by_message_id(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        let Some(message_id) = &search.facts.original.message_id else { return Ok(()) };
        let queue_ids = search.store.by_message_id(message_id)?;
        self.steps(search, MatchMethod::MessageId, queue_ids)
    }

    fn by_alias(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        let Some(message_id) = &search.facts.original.message_id else { return Ok(()) };
        let queue_ids = search.store.by_alias(message_id)?;
        self.steps(search, MatchMethod::Alias, queue_ids)
    }

    fn by_rebound_id(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        match search.facts.original.rebound_id {
            Some(queue_id) => self.step(search, MatchMethod::ReboundId, queue_id, None),
            None => Ok(()),
        }
    }

    fn by_remote_queue_id(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        let report = &search.facts.report;
        let remote = report.queue_id.as_deref().map(str::trim).filter(|id| !id.is_empty());
        let Some(remote) = remote else { return Ok(()) };
        let attempts = search.store.by_remote_queue_id(remote, search.since())?;
        let attempts = of_one_hop(attempts, report.reporting_mta.as_deref());
        let queue_ids = attempts.into_iter().map(|attempt| attempt.queue_id).collect();
        self.steps(search, MatchMethod::RemoteQueueId, queue_ids)
    }

    fn by_references(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        let ids: Vec<&MessageId> = search.facts.references.iter().take(REFERENCES_MAX).collect();
        for id in ids {
            let mut queue_ids = search.store.by_message_id(id)?;
            queue_ids.extend(search.store.by_alias(id)?);
            self.steps(search, MatchMethod::References, queue_ids)?;
        }
        Ok(())
    }

    /// The last resort, for reports that name no mail we know: for each recipient the newest mail
    /// to it that was relayed within the bounce window. Where two accounts wrote to it, neither
    /// is to read what may be the other's report.
    fn by_recipient(&mut self, search: &Search<'_>) -> Result<(), StoreError> {
        let is_about_delivery = reported_action(search.facts.verdict).is_some();
        if !self.is_empty() || !is_about_delivery {
            return Ok(());
        }
        for recipient in search.facts.report.recipients.iter().take(RECIPIENTS_GUESSED_MAX) {
            for name in names(recipient) {
                let Ok(address) = Address::parse(&name) else { continue };
                let sent =
                    search.store.sent_to(&address.canonical(), search.since(), CANDIDATES_MAX)?;
                if let Some((record, index)) = newest_of_one_account(sent, &name, search) {
                    self.add(MatchMethod::Recipient, record, Some(index));
                    break;
                }
            }
        }
        Ok(())
    }

    fn steps(
        &mut self,
        search: &Search<'_>,
        method: MatchMethod,
        queue_ids: Vec<QueueId>,
    ) -> Result<(), StoreError> {
        for queue_id in queue_ids.into_iter().take(SUBMISSIONS_PER_ID_MAX) {
            self.step(search, method, queue_id, None)?;
        }
        Ok(())
    }

    fn step(
        &mut self,
        search: &Search<'_>,
        method: MatchMethod,
        queue_id: QueueId,
        only: Option<u32>,
    ) -> Result<(), StoreError> {
        if self.add_known(method, queue_id, only) {
            return Ok(());
        }
        if let Ok(message) = search.store.message(queue_id)? {
            // An answer to a notice of ours is not that notice coming back.
            let is_notice = message.submission.origin == Origin::Notice;
            if !(is_notice && method == MatchMethod::References) {
                self.add(method, message, only);
            }
        }
        Ok(())
    }
}

impl Search<'_> {
    /// From when on a mail was taken over that may still bounce: it may have waited in the queue
    /// as long as it may, and bounce as late as it may.
    fn since(&self) -> Timestamp {
        let Options { bounce_window, queue_lifetime, .. } = self.options;
        self.received_at.minus(*bounce_window).minus(*queue_lifetime)
    }
}

/// The attempts at the next hop that the report comes from. Where it is none of them by name, all
/// of them if they were at one next hop: two may have given the same id.
fn of_one_hop(mut attempts: Vec<Attempt>, reporting_mta: Option<&str>) -> Vec<Attempt> {
    let hop = |attempt: &Attempt| {
        attempt.remote_mta.as_deref().map(|mta| mta_name(mta).to_ascii_lowercase())
    };
    let reporting = reporting_mta.map(|mta| mta.trim().trim_end_matches('.').to_ascii_lowercase());
    let named = attempts.iter().any(|attempt| reporting.is_some() && hop(attempt) == reporting);
    let only = if named { reporting } else { attempts.first().and_then(hop) };
    let is_of_one = attempts.iter().all(|attempt| hop(attempt) == only);
    if !named && !is_of_one {
        return Vec::new();
    }
    attempts.retain(|attempt| hop(attempt) == only);
    attempts
}

/// The newest mail to `name` that was relayed within the bounce window, with the recipient's
/// place; `None` where such mails are of several accounts.
fn newest_of_one_account(
    sent: Vec<MessageRecord>,
    name: &str,
    search: &Search<'_>,
) -> Option<(MessageRecord, u32)> {
    let is_recent = |attempt: &Attempt| {
        attempt.decision == Decision::Relayed
            && search.received_at.since(attempt.ended_at) <= search.options.bounce_window
    };
    let place = |record: &MessageRecord| {
        let recipients = (0_u32..).zip(&record.submission.envelope.recipients);
        let mut named = recipients.filter(|(_, to)| comparable(to.address.as_str()) == name);
        let (index, _) = named.next()?;
        let mut attempts = record.attempts.iter();
        attempts.any(|a| a.recipient == index && is_recent(a)).then_some(index)
    };
    let mut candidates =
        sent.into_iter().filter_map(|record| place(&record).map(|index| (record, index)));
    let newest = candidates.next()?;
    let account = &newest.0.submission.account;
    candidates.all(|(record, _)| record.submission.account == *account).then_some(newest)
}

/// Ids of a report's `In-Reply-To` and `References` that are looked up.
const REFERENCES_MAX: usize = 10;
/// Recipients of a report that names no mail we know whose newest mail is looked up.
const RECIPIENTS_GUESSED_MAX: usize = 100;
/// Mails to one recipient that are looked at, the newest.
const CANDIDATES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, TestStore, attempt, dsn, id, live, report, submission};
    use super::super::{Capture, RuleSets};
    use super::*;
    use crate::bounce::Verdict;
    use crate::clock::Clock;
    use crate::mail::{Reply, ReturnPathFormat, ReversePath, Stage, TokenForm};
    use crate::metrics::Metrics;
    use crate::secret::KeyRing;
    use crate::store::LiveMessage;
    use crate::store::record::{
        CapturedBy, Confidence, Match, ReportCaptured, ReportId, ReportReceived, Submission,
    };
    use crate::store::state::State;
    use std::sync::Arc;
    use std::time::Duration;

    const A: &str = "a@example.com";
    const B: &str = "b@example.com";
    const DAY: Duration = Duration::from_secs(86_400);
    const SES: &str = "email-smtp.eu-west-1.amazonaws.com";
    const REWRITTEN: &str = "Message-ID: <0102-3@eu-west-1.amazonses.com>\r\nSubject: one\r\n";
    const FOREIGN: &str = "Message-ID: <foreign@elsewhere.example>\r\nSubject: one\r\n";

    struct Funnel {
        store: TestStore,
        capture: Capture,
        keys: Arc<KeyRing>,
    }

    impl Funnel {
        fn new(low_confidence_changes_state: bool) -> Self {
            let clock = Clock::manual(NOW);
            let store = TestStore::open(&clock);
            let keys = Arc::new(KeyRing::from_secret([7; 32]));
            let options = Options {
                postmaster: Address::parse("post@example.com").ok(),
                return_path: super::super::ReturnPath {
                    prefix: "b".to_owned(),
                    delimiter: '+',
                    domain: "bounces.example".to_owned(),
                    token_lifetime: 14 * DAY,
                },
                bounce_window: 7 * DAY,
                queue_lifetime: 5 * DAY,
                low_confidence_changes_state,
                ..Options::default()
            };
            let (rules, metrics) = (RuleSets::compiled_in(), Metrics::new());
            let (inner, ring) = (store.store.clone(), Arc::clone(&keys));
            let capture = Capture::new(inner, rules, ring, clock, metrics, options);
            Self { store, capture, keys }
        }

        /// A mail that the next hop took with this reply.
        async fn relayed(&self, mail: Submission, hop: &str, text: &str, remote: Option<&str>) {
            let recipients: Vec<&str> =
                mail.envelope.recipients.iter().map(|to| to.address.as_str()).collect();
            let handed = LiveMessage {
                queue_id: mail.queue_id,
                message_id: mail.message_id.clone(),
                ..live(&recipients)
            };
            let attempts = (0..handed.recipients.len()).map(|index| Attempt {
                queue_id: mail.queue_id,
                remote_mta: Some(format!("{hop}[192.0.2.1]:25")),
                reply: Some(Reply { code: 250, status: None, text: text.to_owned() }),
                remote_queue_id: remote.map(str::to_owned),
                ..attempt(u32::try_from(index).unwrap(), Stage::End, Decision::Relayed)
            });
            let attempts = attempts.collect();
            self.store.accept(mail).await;
            self.capture.outcomes(&handed, attempts).unwrap().synced().await.unwrap();
        }

        async fn report(&self, unique: u32, received: ReportReceived) -> ReportCaptured {
            let report_id = ReportId(id(unique));
            self.store.accept_report(ReportReceived { id: report_id, ..received }).await;
            self.capture.report(report_id).unwrap()
        }

        fn matched(&self, captured: &ReportCaptured) -> Option<Match> {
            self.store.store.bounces_of_report(captured.id).unwrap().first()?.matched
        }
    }

    fn mail(unique: u32, recipients: &[&str]) -> Submission {
        let message_id = MessageId::parse(&format!("m{unique}@app.example")).unwrap();
        Submission { message_id, ..submission(id(unique), recipients) }
    }

    fn about(fields: &str, recipient: &str, header: &str) -> ReportReceived {
        report(&dsn(fields, &[(recipient, "failed")], header))
    }

    fn answering(received: &ReportReceived, field: &str) -> ReportReceived {
        let raw = [field.as_bytes(), received.raw.as_slice()].concat();
        report(&raw)
    }

    #[tokio::test]
    async fn each_rung_ties_a_report_that_names_a_recipient_and_nothing_else_does() {
        use Confidence::{Certain, High, Low};
        use MatchMethod::{Alias, Recipient, References, RemoteQueueId, Token};
        let queue_id = "X-Postfix-Queue-ID: 4ABC\r\n";
        let wrapped = "SRS0=hash=TT=example.com=a@forwarder.example";
        for (what, received, want, state) in [
            ("alias", about("", A, REWRITTEN), Some((Alias, High)), State::Bounced),
            ("wrapped", about("", wrapped, REWRITTEN), Some((Alias, High)), State::Bounced),
            ("guessed alias", about("", "x@y", REWRITTEN), None, State::Relayed),
            ("queue id", about(queue_id, A, FOREIGN), Some((RemoteQueueId, High)), State::Bounced),
            ("guessed queue id", about(queue_id, "x@y", FOREIGN), None, State::Relayed),
            (
                "answer",
                answering(&about("", A, FOREIGN), "In-Reply-To: <m1@app.example>\r\n"),
                Some((References, High)),
                State::Bounced,
            ),
            (
                "answer to the alias",
                answering(&about("", A, ""), "References: <0102-3@eu-west-1.amazonses.com>\r\n"),
                Some((References, High)),
                State::Bounced,
            ),
            (
                "guessed answer",
                answering(&about("", "x@y", FOREIGN), "In-Reply-To: <m1@app.example>\r\n"),
                None,
                State::Relayed,
            ),
            ("recipient", about("", A, FOREIGN), Some((Recipient, Low)), State::Relayed),
            ("nobody", about("", "x@y", FOREIGN), None, State::Relayed),
        ] {
            let funnel = Funnel::new(false);
            let reply = "Ok 0102-3";
            funnel.relayed(mail(1, &[A, B]), SES, reply, Some("4ABC")).await;
            let captured = funnel.report(10, received).await;
            let matched = funnel.matched(&captured).map(|found| (found.method, found.confidence));
            assert_eq!(matched, want, "{what}");
            assert_eq!(funnel.store.states(id(1)), [state, State::Relayed], "{what}");
            let is_tied = captured.matched == [id(1)];
            assert_eq!(is_tied, want.is_some(), "{what}");
            let is_sure = want.is_some_and(|(_, confidence)| confidence > Low);
            assert_eq!(captured.forward_to.is_none(), is_sure, "{what}");

            let recipient = 1;
            let format =
                ReturnPathFormat { prefix: "b", delimiter: '+', domain: "bounces.example" };
            let app = ReversePath::Address(Address::parse("app@example.org").unwrap());
            let token = funnel.keys.token(id(1), recipient);
            let path = format.write(TokenForm::Plus, &app, &token).unwrap();
            let in_mailbox = ReportReceived {
                captured_by: CapturedBy::Imap,
                ..answering(&about("", "x@y", FOREIGN), &format!("Delivered-To: {path}\r\n"))
            };
            let captured = funnel.report(11, in_mailbox).await;
            let matched = funnel.matched(&captured).map(|found| (found.method, found.confidence));
            assert_eq!(matched, Some((Token, Certain)), "{what}");
            assert_eq!(captured.forward_to, None, "the app has it already");
            assert_eq!(funnel.store.states(id(1)), [state, State::Bounced], "{what}");
        }
    }

    #[tokio::test]
    async fn a_better_rung_goes_before_a_worse_one() {
        use MatchMethod::{Alias, EnvelopeId, MessageId, ReboundId, References, RemoteQueueId};
        let funnel = Funnel::new(false);
        let hop = "relay.example.net";
        for unique in 1..=6 {
            let alias = format!("OK <alias{unique}@prod.outlook.com>");
            let remote = format!("4AB{unique}");
            funnel.relayed(mail(unique, &[A, B]), hop, &alias, Some(&remote)).await;
        }
        let envelope_id = format!("Original-Envelope-Id: {}\r\n", id(1));
        let queue_id = "X-Postfix-Queue-ID: 4AB5\r\n";
        let rebound = format!("X-Rebound-Id: {}\r\n", id(4));
        let own = "Message-ID: <m2@app.example>\r\n";
        let alias = "Message-ID: <alias3@prod.outlook.com>\r\n";
        let answer = "In-Reply-To: <m6@app.example>\r\n";
        let all = format!("{envelope_id}{queue_id}");
        let subject = "Subject: one\r\n";
        for (at, (fields, header, want)) in (10..).zip([
            (all.as_str(), format!("{own}{rebound}"), (EnvelopeId, 1)),
            (queue_id, format!("{own}{rebound}"), (MessageId, 2)),
            (queue_id, format!("{alias}{rebound}"), (Alias, 3)),
            (queue_id, format!("{rebound}{subject}"), (ReboundId, 4)),
            (queue_id, subject.to_owned(), (RemoteQueueId, 5)),
            ("", subject.to_owned(), (References, 6)),
        ]) {
            let captured = funnel.report(at, answering(&about(fields, A, &header), answer)).await;
            let method = funnel.matched(&captured).map(|found| found.method);
            assert_eq!((method, captured.matched), (Some(want.0), vec![id(want.1)]));
        }
        let strange = answering(&about(queue_id, B, "Message-ID: <x@y>\r\n"), answer);
        let captured = funnel.report(20, strange).await;
        assert_eq!(captured.matched, [id(5)], "a rung that leads nowhere is passed");
    }

    #[tokio::test]
    async fn the_same_queue_id_of_two_next_hops_is_told_apart_by_the_reporting_host() {
        let funnel = Funnel::new(false);
        funnel.relayed(mail(1, &[A]), "relay.example.net", "ok", Some("4ABC")).await;
        funnel.relayed(mail(2, &[A]), "other.example.net", "ok", Some("4ABC")).await;
        // `dsn` comes from relay.example.net.
        let queue_id = "X-Postfix-Queue-ID: 4ABC\r\n";
        let captured = funnel.report(10, about(queue_id, A, FOREIGN)).await;
        assert_eq!(captured.matched, [id(1)]);
        let elsewhere = String::from_utf8(about(queue_id, A, FOREIGN).raw).unwrap();
        let elsewhere = elsewhere.replace("relay.example.net", "third.example.net");
        let captured = funnel.report(11, report(elsewhere.as_bytes())).await;
        let method = funnel.matched(&captured).unwrap().method;
        assert_eq!(method, MatchMethod::Recipient, "either may be meant");
    }

    #[test]
    fn a_host_that_names_itself_otherwise_is_believed_where_it_is_the_only_one() {
        let at = |hop: Option<&str>| Attempt {
            remote_mta: hop.map(|hop| format!("{hop}[192.0.2.1]:25")),
            ..attempt(0, Stage::End, Decision::Relayed)
        };
        for (hops, reporting, want) in [
            (vec![Some("a.example")], Some("A.example."), 1),
            (vec![Some("a.example")], Some("b.example"), 1),
            (vec![Some("a.example")], None, 1),
            (vec![Some("a.example"), Some("A.EXAMPLE")], Some("b.example"), 2),
            (vec![Some("a.example"), Some("b.example")], Some("b.example"), 1),
            (vec![Some("a.example"), Some("b.example")], Some("c.example"), 0),
            (vec![Some("a.example"), None], None, 0),
            (vec![None], None, 1),
            (vec![], Some("a.example"), 0),
        ] {
            let attempts = hops.iter().map(|hop| at(*hop)).collect();
            assert_eq!(of_one_hop(attempts, reporting).len(), want, "{hops:?} {reporting:?}");
        }
    }

    #[tokio::test]
    async fn a_recipient_alone_leads_to_the_newest_mail_of_one_account_within_the_window() {
        let other = |unique, to| Submission { account: "other".to_owned(), ..mail(unique, &[to]) };
        let notice = |unique, to| Submission { origin: Origin::Notice, ..mail(unique, &[to]) };
        let funnel = Funnel::new(false);
        for sent in [mail(1, &[A, B]), mail(2, &[B]), other(3, A), notice(4, B)] {
            funnel.relayed(sent, "relay.example.net", "ok", None).await;
        }
        funnel.store.accept(mail(5, &[B])).await;
        let captured = funnel.report(10, about("", A, FOREIGN)).await;
        assert_eq!(captured.matched, [], "two accounts wrote to it");
        let captured = funnel.report(11, about("", B, FOREIGN)).await;
        assert_eq!(captured.matched, [id(2)], "neither a notice nor what has not left");
        assert_eq!(captured.forward_to.as_deref(), Some("post@example.com"), "it is a guess");
        let shown = funnel.store.store.by_recipient(B, None, 10).unwrap();
        assert_eq!(shown.len(), 1);
        for (at, days, want) in [(12, 7, vec![id(2)]), (13, 8, vec![])] {
            let raw = [format!("X-At: {at}\r\n").as_bytes(), &about("", B, FOREIGN).raw].concat();
            let late = ReportReceived { received_at: NOW.plus(days * DAY), ..report(&raw) };
            assert_eq!(funnel.report(at, late).await.matched, want, "{days} days");
        }
        let known = about("", B, "Message-ID: <m3@app.example>\r\n");
        let captured = funnel.report(14, known).await;
        let matched = funnel.matched(&captured).unwrap();
        assert_eq!(matched, Match::new(MatchMethod::MessageId, Confidence::Low), "it names a mail");
    }

    #[tokio::test]
    async fn a_guess_changes_a_state_only_where_the_operator_wants_it_to() {
        for (wanted, state) in [(false, State::Relayed), (true, State::Bounced)] {
            let funnel = Funnel::new(wanted);
            funnel.relayed(mail(1, &[A]), "relay.example.net", "ok", None).await;
            let captured = funnel.report(10, about("", A, FOREIGN)).await;
            let matched = funnel.matched(&captured).unwrap();
            assert_eq!((matched.confidence, matched.changes_state), (Confidence::Low, wanted));
            assert_eq!(funnel.store.states(id(1)), [state]);
            let known = about("", A, "Message-ID: <m1@app.example>\r\n");
            funnel.report(11, known).await;
            assert_eq!(funnel.store.states(id(1)), [State::Bounced]);
        }
    }

    #[tokio::test]
    async fn an_answer_to_a_mail_that_is_no_report_is_tied_to_nothing() {
        let funnel = Funnel::new(false);
        funnel.relayed(mail(1, &[A]), "relay.example.net", "ok", None).await;
        let raw = b"From: a@example.com\r\nIn-Reply-To: <m1@app.example>\r\n\
            Subject: Re: one\r\n\r\nThank you.\r\n";
        let captured = funnel.report(10, report(raw)).await;
        assert_eq!((captured.verdict, captured.matched), (Verdict::Other, vec![]));
        assert_eq!(captured.forward_to.as_deref(), Some("post@example.com"));

        let notice = Submission { origin: Origin::Notice, ..mail(2, &[A]) };
        funnel.relayed(notice, "relay.example.net", "ok", None).await;
        let raw = String::from_utf8(raw.to_vec()).unwrap().replace("m1@", "m2@");
        let captured = funnel.report(11, report(raw.as_bytes())).await;
        assert!(!captured.own_notice);
    }
}
