//! One run of one mail: its due recipients in transactions, each outcome written down.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::runner::Progress;
use super::schedule::{Blame, Next, Policy, Tried, blame};
use super::{Context, blocking, debts};
use crate::config::Settings;
use crate::mail::dsn::{Content, Event, Notify, OriginalRecipient};
use crate::mail::envelope::BodyKind;
use crate::mail::return_path::{ReturnPathFormat, TokenForm};
use crate::mail::{MailDsn, QueueId, Recipient, RecipientDsn, ReversePath, Stage, Timestamp};
use crate::maillog::{self, Line};
use crate::relay::{Delivery, Outcome, OutcomeResult};
use crate::secret::{self, KeyRing};
use crate::store::record::{Attempt, Decision, Origin, ReturnPathMode};
use crate::store::{LiveMessage, LiveRecipient};

/// Tries all recipients of a mail that are due, then pays what is owed about the mail.
pub(super) async fn run_mail(
    context: Arc<Context>,
    queue_id: QueueId,
    transactions: Arc<Semaphore>,
) -> Progress {
    let Some(mail) = context.store.live(queue_id) else { return Progress::Recorded };
    let now = context.clock.now();
    let due = due_recipients(&mail, now, Policy::of(&context.settings.queue).latest_due(now));
    let mut progress = Progress::Recorded;
    let mut running = JoinSet::new();
    for delivery in deliveries(&context.settings, &context.keys, &mail, due) {
        // Closed: the daemon stops, and what has not begun does not begin.
        let Ok(permit) = Arc::clone(&transactions).acquire_owned().await else { break };
        let context = Arc::clone(&context);
        running.spawn(async move {
            let progress = run_transaction(&context, queue_id, delivery).await;
            drop(permit);
            progress
        });
    }
    while let Some(ended) = running.join_next().await {
        match ended {
            Ok(Progress::Recorded) => {}
            Ok(Progress::Stuck) => progress = Progress::Stuck,
            Err(error) => {
                tracing::error!(%queue_id, %error, "a transaction was broken off");
                progress = Progress::Stuck;
            }
        }
    }
    match debts::pay(&context, queue_id).await {
        Ok(()) => progress,
        Err(error) => {
            tracing::error!(%queue_id, %error, "a notice could not be submitted");
            Progress::Stuck
        }
    }
}

/// Whether notices about a mail may be written at all: never about our own, never to `<>`
/// (RFC 5321 §4.5.5), never to an account that does not want them.
pub(super) fn may_notify(mail: &LiveMessage) -> bool {
    mail.origin == Origin::App && mail.dsn && !mail.reverse_path.is_null()
}

fn due_recipients(
    mail: &LiveMessage,
    now: Timestamp,
    latest_due: Timestamp,
) -> Vec<(u32, Recipient)> {
    let is_due = |recipient: &LiveRecipient| {
        let due = recipient.next_attempt;
        let is_late = due > latest_due && mail.send_at != Some(due);
        !recipient.state.has_left_queue() && (due <= now || is_late)
    };
    let numbered = (0_u32..).zip(&mail.recipients);
    let due = numbered.filter(|(_, recipient)| is_due(recipient));
    let asked = |one: &LiveRecipient| Recipient {
        dsn: one.dsn.clone(),
        ..Recipient::from(one.address.clone())
    };
    due.map(|(index, recipient)| (index, asked(recipient))).collect()
}

/// One transaction for each return path: recipients with a token of their own go alone.
pub(super) fn deliveries(
    settings: &Settings,
    keys: &KeyRing,
    mail: &LiveMessage,
    due: Vec<(u32, Recipient)>,
) -> Vec<Delivery> {
    let format = ReturnPathFormat {
        prefix: &settings.return_path.prefix,
        delimiter: settings.return_path.delimiter,
        domain: &settings.return_path.domain,
    };
    let form = match mail.return_path {
        ReturnPathMode::Preserve => None,
        ReturnPathMode::Verp => Some(TokenForm::Verp),
        ReturnPathMode::Plus => Some(TokenForm::Plus),
    };
    let own_path = |index: u32| {
        let token = keys.token(mail.queue_id, u16::try_from(index).ok()?);
        format.write(form?, &mail.reverse_path, &token)
    };
    let delivery =
        |reverse_path: ReversePath, dsn: MailDsn, recipients: Vec<(u32, Recipient)>| Delivery {
            smtputf8: mail.smtputf8
                || reverse_path.address().is_some_and(|address| !address.is_ascii())
                || recipients.iter().any(|(_, recipient)| !recipient.address.is_ascii()),
            reverse_path,
            dsn,
            recipients,
            size_bytes: mail.size_bytes,
            long_lines: mail.long_lines,
            eight_bit: mail.body == BodyKind::EightBitMime,
            is_ascii: false,
        };
    let mut together = Vec::new();
    let mut all = Vec::new();
    for (index, recipient) in due {
        match own_path(index) {
            Some(path) => {
                let (dsn, recipient) = own_dsn(mail, recipient);
                all.push(delivery(ReversePath::Address(path), dsn, vec![(index, recipient)]));
            }
            None => together.push((index, recipient)),
        }
    }
    if form.is_some() && !together.is_empty() && !mail.reverse_path.is_null() {
        let queue_id = mail.queue_id;
        tracing::info!(%queue_id, "its reverse-path has no room for a token and is preserved");
    }
    for group in together.chunks(settings.relay.recipients_per_transaction_max.max(1)) {
        all.push(delivery(mail.reverse_path.clone(), mail.dsn_asked.clone(), group.to_vec()));
    }
    all
}

/// What we ask of reports that come back to us: all that says whose they are, and of every failure
/// and delay, whatever the app wants to be told of.
fn own_dsn(mail: &LiveMessage, recipient: Recipient) -> (MailDsn, Recipient) {
    let of_mail = MailDsn {
        content: Some(mail.dsn_asked.content.unwrap_or(Content::Headers)),
        envelope_id: Some(mail.queue_id.into()),
    };
    let Recipient { address, dsn, .. } = recipient;
    let ours = Notify::NEVER.and(Event::Failure).and(Event::Delay);
    let notify = if dsn.wants(Event::Success) { ours.and(Event::Success) } else { ours };
    let original_recipient = dsn.original_recipient.or_else(|| OriginalRecipient::of(&address));
    let dsn = RecipientDsn { notify: Some(notify), original_recipient };
    (of_mail, Recipient { dsn, ..Recipient::from(address) })
}

async fn run_transaction(context: &Context, queue_id: QueueId, mut delivery: Delivery) -> Progress {
    // A report may have ended a recipient while its turn had not come yet, or somebody canceled it.
    let indexes: Vec<u32> = delivery.recipients.iter().map(|(index, _)| *index).collect();
    let claim = context.store.claim(queue_id, &indexes);
    let Some(mail) = context.store.live(queue_id) else { return Progress::Recorded };
    delivery.recipients.retain(|(index, _)| claim.has(*index));
    if delivery.recipients.is_empty() {
        return Progress::Recorded;
    }
    if delivery.smtputf8 {
        delivery.is_ascii = is_ascii(context, queue_id).await;
    }
    let started_at = context.clock.now();
    let outcomes = match context.store.body(queue_id).await {
        Ok(body) => Box::pin(context.relay.deliver(&delivery, body)).await,
        Err(error) => unread(&delivery, &error.to_string()),
    };
    if let Some(outcome) = outcomes.iter().find(|o| blame(o) == Blame::Configuration) {
        complain(context, outcome);
    }
    let policy = Policy::of(&context.settings.queue);
    let now = context.clock.now();
    let mut attempts = Vec::with_capacity(outcomes.len());
    for outcome in &outcomes {
        let tried = Tried {
            number: recipient(&mail, outcome.recipient).map_or(0, |r| r.attempts).saturating_add(1),
            begins_at: mail.begins_at(),
            attempts_max: mail.attempts_max,
            now,
            jitter_permille: jitter_permille(),
        };
        if let Next::Decided(decision) = policy.next(outcome, &tried) {
            attempts.push(attempt(&mail, outcome, decision, &tried, started_at));
        }
    }
    if attempts.is_empty() {
        return Progress::Stuck;
    }
    record(context, &mail, &attempts).await;
    drop(claim);
    for attempt in &attempts {
        log(context, &mail, attempt);
    }
    Progress::Recorded
}

/// Whether every octet of a mail is ASCII; what cannot be read will be missed when it is sent.
async fn is_ascii(context: &Context, queue_id: QueueId) -> bool {
    let Ok(mut body) = context.store.body(queue_id).await else { return false };
    let mut block = vec![0_u8; BLOCK_BYTES];
    loop {
        match body.read(&mut block).await {
            Ok(0) => return true,
            Ok(len) if block.get(..len).is_some_and(<[u8]>::is_ascii) => {}
            Ok(_) | Err(_) => return false,
        }
    }
}

fn recipient(mail: &LiveMessage, index: u32) -> Option<&LiveRecipient> {
    mail.recipients.get(usize::try_from(index).ok()?)
}

fn attempt(
    mail: &LiveMessage,
    outcome: &Outcome,
    decision: Decision,
    tried: &Tried,
    started_at: Timestamp,
) -> Attempt {
    let (reply, error) = match &outcome.result {
        OutcomeResult::Reply(reply) | OutcomeResult::Refusal(reply) => (Some(reply.clone()), None),
        other => (None, Some(other.to_string())),
    };
    Attempt {
        queue_id: mail.queue_id,
        recipient: outcome.recipient,
        number: tried.number,
        started_at,
        ended_at: tried.now,
        stage: outcome.stage,
        remote_mta: outcome.remote_mta.clone(),
        reply,
        error,
        remote_queue_id: outcome.remote_queue_id.clone(),
        alias: None,
        tls: outcome.tls.clone(),
        decision,
        notice_owed: owes_notice(mail, outcome, decision),
    }
}

/// Whether the app is to be told by mail of what an attempt came to.
fn owes_notice(mail: &LiveMessage, outcome: &Outcome, decision: Decision) -> bool {
    let event = match decision {
        Decision::Failed | Decision::Expired => Event::Failure,
        // RFC 3461 §5.2.2: from there on nobody else will say so.
        Decision::Relayed if !outcome.dsn => Event::Success,
        Decision::Relayed | Decision::RetryAt(_) => return false,
    };
    let recipient = recipient(mail, outcome.recipient);
    may_notify(mail) && recipient.is_some_and(|recipient| recipient.dsn.wants(event))
}

/// Writes attempts down, however often it takes: to forget that a mail was handed over would
/// be to hand it over again.
async fn record(context: &Context, mail: &LiveMessage, attempts: &[Attempt]) {
    let queue_id = mail.queue_id;
    loop {
        let (capture, mail, attempts) = (context.capture.clone(), mail.clone(), attempts.to_vec());
        match blocking(move || capture.outcomes(&mail, attempts)).await {
            Ok(ticket) => {
                if let Err(error) = ticket.synced().await {
                    tracing::error!(%queue_id, %error, "an attempt is known but not on disk");
                }
                return;
            }
            Err(error) => {
                tracing::error!(%queue_id, %error, "an attempt could not be written down yet");
                tokio::time::sleep(RECORD_AGAIN_AFTER).await;
            }
        }
    }
}

fn log(context: &Context, mail: &LiveMessage, attempt: &Attempt) {
    let to = recipient(mail, attempt.recipient).map(|recipient| recipient.address.as_str());
    let reply = attempt.reply.as_ref().map(ToString::to_string).or_else(|| attempt.error.clone());
    let from = mail.reverse_path.to_string();
    let line = Line {
        queue_id: Some(mail.queue_id),
        message_id: Some(mail.message_id.as_str()),
        account: Some(&mail.account),
        from: Some(&from),
        to,
        size_bytes: Some(mail.size_bytes),
        relay: attempt.remote_mta.as_deref(),
        delay: Some(attempt.ended_at.since(mail.begins_at())),
        attempt: Some(attempt.number),
        status: attempt.reply.as_ref().map(crate::mail::Reply::status_or_class),
        reply: reply.as_deref(),
        ..Line::default()
    };
    let outcome = match attempt.decision {
        Decision::Relayed => {
            maillog::relayed(&line);
            "relayed"
        }
        Decision::RetryAt(_) => {
            maillog::deferred(&line);
            "deferred"
        }
        Decision::Failed => {
            maillog::failed(&line);
            "failed"
        }
        Decision::Expired => {
            maillog::expired(&line);
            "expired"
        }
    };
    context.metrics.attempt_ended(outcome);
}

/// What is refused to us, and not to a recipient, is for the operator to see.
fn complain(context: &Context, outcome: &Outcome) {
    let relay = outcome.remote_mta.as_deref().unwrap_or(&context.settings.relay.host);
    let answer = outcome.result.to_string();
    let command = outcome.stage.command();
    tracing::error!(
        relay,
        command,
        answer,
        "the next hop refuses us, not the recipient: check [relay]; mail waits meanwhile"
    );
}

/// The outcomes when the body cannot be opened: nobody was asked anything.
fn unread(delivery: &Delivery, error: &str) -> Vec<Outcome> {
    let outcome = |(recipient, _): &(u32, Recipient)| Outcome {
        recipient: *recipient,
        stage: Stage::Connect,
        remote_mta: None,
        remote_queue_id: None,
        tls: None,
        dsn: false,
        result: OutcomeResult::Error(format!("the stored mail could not be read: {error}")),
    };
    delivery.recipients.iter().map(outcome).collect()
}

fn jitter_permille() -> u32 {
    let span = u64::from(JITTER_PERMILLE_MAX).saturating_add(1);
    let random = secret::random_u64().checked_rem(span).unwrap_or(0);
    u32::try_from(random).unwrap_or(0)
}

/// Octets of a body that are looked at together.
const BLOCK_BYTES: usize = 32_768;
/// Waits are made up to a tenth longer.
const JITTER_PERMILLE_MAX: u32 = 100;
const RECORD_AGAIN_AFTER: Duration = Duration::from_secs(1);
