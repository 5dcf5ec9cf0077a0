//! What is owed by mail: DSNs about what was given up or went where nobody reports, delay notices,
//! forwarded reports.
//!
//! A notice is submitted in the same write that settles its debt, so a crash neither loses nor
//! doubles it.

use std::collections::HashMap;

use tokio::io::AsyncReadExt;

use super::attempt::may_notify;
use super::notice::{self, AboutRecipient, Letterhead, Notice};
use super::schedule::Policy;
use super::{Context, blocking};
use crate::bounce::Category;
use crate::mail::dsn::{Content, Event};
use crate::mail::{Address, QueueId};
use crate::maillog::{self, Line};
use crate::secret;
use crate::store::record::{Batch, Decision, NoticeSent, ReportCaptured, ReportReceived};
use crate::store::{LiveMessage, LiveRecipient, MessageRecord, Store, StoreError};

/// Writes the notices that are owed about a mail.
pub(super) async fn pay(context: &Context, queue_id: QueueId) -> Result<(), StoreError> {
    let Some(mail) = context.store.live(queue_id) else { return Ok(()) };
    let failed = numbers_of(&mail, |recipient| recipient.notice_owed && !was_relayed(recipient));
    if !failed.is_empty() {
        let debt = NoticeSent::Failure { queue_id, recipients: failed.clone() };
        let whole = whole_mail(context, &mail).await;
        let write = |head: &Letterhead<'_>, record: &MessageRecord| {
            let about = about(&mail, record, &failed);
            notice::failure(head, &record.submission, &about, whole.as_deref())
        };
        submit_about(context, &mail, debt, "dsn", write).await?;
    }
    let relayed = numbers_of(&mail, |recipient| recipient.notice_owed && was_relayed(recipient));
    if !relayed.is_empty() {
        let debt = NoticeSent::Relayed { queue_id, recipients: relayed.clone() };
        let write = |head: &Letterhead<'_>, record: &MessageRecord| {
            notice::relayed(head, &record.submission, &about(&mail, record, &relayed))
        };
        submit_about(context, &mail, debt, "relayed dsn", write).await?;
    }
    tell_of_delay(context, &mail).await
}

/// Writes the delay notice where the mail has waited for long enough.
async fn tell_of_delay(context: &Context, mail: &LiveMessage) -> Result<(), StoreError> {
    let policy = Policy::of(&context.settings.queue);
    let age = context.clock.now().since(mail.begins_at());
    let late = numbers_of(mail, |recipient| {
        let waits = !recipient.state.has_left_queue() && recipient.attempts > 0;
        waits && recipient.dsn.wants(Event::Delay)
    });
    let Some(count) = policy.delay_notices_due(age, mail.delay_notices) else { return Ok(()) };
    if late.is_empty() || !may_notify(mail) {
        return Ok(());
    }
    let expires_at = mail.begins_at().plus(policy.lifetime);
    let debt = NoticeSent::Delay { queue_id: mail.queue_id, count };
    let write = |head: &Letterhead<'_>, record: &MessageRecord| {
        notice::delay(head, &record.submission, &about(mail, record, &late), expires_at)
    };
    submit_about(context, mail, debt, "delay notice", write).await
}

/// Whether the last attempt handed it over; a report may have come since, which is another matter.
fn was_relayed(recipient: &LiveRecipient) -> bool {
    recipient.last.as_ref().is_some_and(|last| last.decision == Decision::Relayed)
}

/// The mail where it is to go back whole (RFC 3461 §6.2); it is still there while this is owed.
async fn whole_mail(context: &Context, mail: &LiveMessage) -> Option<Vec<u8>> {
    let is_asked = mail.dsn_asked.content == Some(Content::Full);
    if !is_asked || mail.size_bytes > WHOLE_MAIL_BYTES_MAX {
        return None;
    }
    let queue_id = mail.queue_id;
    let mut octets = Vec::new();
    let read = async {
        let body = context.store.body(queue_id).await?;
        let read = body.take(WHOLE_MAIL_BYTES_MAX).read_to_end(&mut octets).await;
        read.map_err(|source| StoreError::Io { doing: format!("reading {queue_id}"), source })
    };
    match read.await {
        Ok(_) => Some(octets),
        Err(error) => {
            tracing::warn!(%queue_id, %error, "only the header of a mail goes back");
            None
        }
    }
}

/// Forwards reports that were caught at our return path to whom they would have gone to without
/// us; a few at a time, for mail comes first. One that cannot be read keeps none of the others.
pub(super) async fn forward_reports(context: &Context) {
    let mut room = FORWARDS_AT_A_TIME;
    for captured in context.store.owed_forwards(FORWARDS_SEEN_MAX) {
        match forward(context, &captured).await {
            Ok(()) => room = room.saturating_sub(1),
            Err(error) => {
                let report = captured.id.0;
                tracing::error!(%report, %error, "a report could not be forwarded yet");
                // A store that takes nothing takes nothing of the others either.
                if matches!(error, StoreError::Busy | StoreError::DiskFull) {
                    return;
                }
            }
        }
        if room == 0 {
            return;
        }
    }
}

async fn forward(context: &Context, captured: &ReportCaptured) -> Result<(), StoreError> {
    let to = captured.forward_to.as_deref().and_then(|text| Address::parse(text).ok());
    let (store, id) = (context.store.clone(), captured.id);
    let report = blocking(move || store.report(id)).await?.ok().map(|record| record.received);
    let (store, matched) = (context.store.clone(), captured.matched.clone());
    let account = blocking(move || account_of(&store, &matched)).await?;
    let written = match (&to, &report) {
        (Some(to), Some(report)) => Some(forwarded(context, report, to, &account)),
        // It was pruned, or cannot be sent anywhere: the debt ends here.
        _ => None,
    };
    let debt = NoticeSent::Forward { report_id: captured.id };
    let report = captured.id.0.to_string();
    submit(context, debt, written, "forwarded report", Some(&report)).await
}

fn forwarded(context: &Context, report: &ReportReceived, to: &Address, account: &str) -> Notice {
    let queue_id = context.store.new_queue_id();
    let mark = context.keys.notice(queue_id);
    notice::forward(&letterhead(context, queue_id, &mark), report, to, account)
}

/// Whose mail a report is about; what matches nothing belongs to the default account.
fn account_of(store: &Store, matched: &[QueueId]) -> Result<String, StoreError> {
    for queue_id in matched {
        if let Ok(submission) = store.submission(*queue_id)? {
            return Ok(submission.account);
        }
    }
    Ok(DEFAULT_ACCOUNT.to_owned())
}

async fn submit_about(
    context: &Context,
    mail: &LiveMessage,
    debt: NoticeSent,
    what: &'static str,
    write: impl FnOnce(&Letterhead<'_>, &MessageRecord) -> Option<Notice>,
) -> Result<(), StoreError> {
    let (store, queue_id) = (context.store.clone(), mail.queue_id);
    let written = match blocking(move || store.message(queue_id)).await? {
        Ok(record) => {
            let queue_id = context.store.new_queue_id();
            let mark = context.keys.notice(queue_id);
            write(&letterhead(context, queue_id, &mark), &record)
        }
        // Its record is gone; there is nothing left to tell about.
        Err(_missing) => None,
    };
    submit(context, debt, written, what, None).await
}

/// Submits a notice and settles the debt in one write.
async fn submit(
    context: &Context,
    debt: NoticeSent,
    written: Option<Notice>,
    what: &'static str,
    report: Option<&str>,
) -> Result<(), StoreError> {
    let logged = written.as_ref().map(|(submission, _)| submission.clone());
    let batch = Batch {
        notices: vec![debt],
        submissions: written.into_iter().collect(),
        ..Batch::default()
    };
    context.store.commit(batch)?.synced().await?;
    if let Some(submission) = logged {
        let recipients = submission.envelope.recipients.iter();
        for recipient in recipients {
            maillog::notified(&Line {
                queue_id: Some(submission.queue_id),
                message_id: Some(submission.message_id.as_str()),
                account: Some(&submission.account),
                to: Some(recipient.address.as_str()),
                size_bytes: Some(submission.size_bytes),
                reason: Some(what),
                report,
                ..Line::default()
            });
        }
    }
    Ok(())
}

fn letterhead<'a>(context: &'a Context, queue_id: QueueId, mark: &'a str) -> Letterhead<'a> {
    Letterhead {
        hostname: &context.settings.hostname,
        queue_id,
        now: context.clock.now(),
        random: secret::random_u64(),
        mark,
    }
}

fn numbers_of(mail: &LiveMessage, is_meant: impl Fn(&LiveRecipient) -> bool) -> Vec<u32> {
    let numbered = (0_u32..).zip(&mail.recipients);
    numbered.filter(|(_, recipient)| is_meant(recipient)).map(|(index, _)| index).collect()
}

fn about<'a>(
    mail: &'a LiveMessage,
    record: &MessageRecord,
    numbers: &[u32],
) -> Vec<AboutRecipient<'a>> {
    let bounces = record.bounces.iter().filter(|bounce| bounce.is_failure());
    let categories: HashMap<u32, Category> = bounces
        .filter_map(|bounce| {
            Some((bounce.recipient_index?, bounce.response.classification.category))
        })
        .collect();
    let one = |index: &u32| {
        let recipient = mail.recipients.get(usize::try_from(*index).ok()?)?;
        Some(AboutRecipient { recipient, category: categories.get(index).copied() })
    };
    numbers.iter().filter_map(one).collect()
}

/// Whose mail it is when nobody logged in.
const DEFAULT_ACCOUNT: &str = "default";
const FORWARDS_AT_A_TIME: usize = 16;
/// Reports among which those are that can be read, the oldest first.
const FORWARDS_SEEN_MAX: usize = 1_000;
/// Octets of a mail that goes back whole; of a larger one it is the header, as with Postfix
/// (`bounce_size_limit`).
const WHOLE_MAIL_BYTES_MAX: u64 = 50_000;
