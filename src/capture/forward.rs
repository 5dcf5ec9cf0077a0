//! Where a captured report goes on to: whom it would have gone to without us, if they want it.

use super::correlate::Ladder;
use super::{Capture, Forward, reported_action, said};
use crate::bounce::{Action, Facts, RecipientFacts};
use crate::mail::RecipientDsn;
use crate::mail::dsn::Event;
use crate::store::record::{CapturedBy, ReportCaptured, ReportReceived, Submission};

impl Capture {
    /// Where a report goes on to, which has changed nothing of what is recorded.
    ///
    /// Its app gets what was caught at our return path. What only named it in its header was
    /// delivered where the app reads it. A guess is no reason to keep it from the postmaster.
    pub(super) fn forward_to(
        &self,
        received: &ReportReceived,
        captured: &ReportCaptured,
        facts: &Facts,
        ladder: &Ladder,
    ) -> Option<String> {
        let options = &self.inner.options;
        let was_caught = !received.tokens.is_empty() && ladder.of_tokens().next().is_some();
        match &options.forward_to {
            // What lies in a mailbox, or was given to us, is where its owner wants it.
            _ if matches!(received.captured_by, CapturedBy::Imap | CapturedBy::Api) => None,
            Forward::Nowhere => None,
            Forward::To(address) => Some(address.to_string()),
            Forward::Original if was_caught => {
                let is_wanted = |(submission, asked): &(&Submission, &RecipientDsn)| {
                    submission.dsn && is_wanted(facts, asked)
                };
                let (submission, _) = ladder.of_tokens().find(is_wanted)?;
                submission.envelope.reverse_path.address().map(ToString::to_string)
            }
            Forward::Original if captured.matched.is_empty() || ladder.is_guessed() => {
                options.postmaster.as_ref().map(ToString::to_string)
            }
            Forward::Original => None,
        }
    }
}

/// Whether the app is to be told what a report says of one recipient, as its `NOTIFY` has it; of
/// what is not about a delivery, always.
fn is_wanted(facts: &Facts, asked: &RecipientDsn) -> bool {
    let Some(action) = reported_action(facts.verdict) else { return true };
    let unnamed = [RecipientFacts { action, ..RecipientFacts::default() }];
    said(facts, &unnamed).iter().any(|said| {
        asked.wants(match said.action {
            Action::Failed => Event::Failure,
            Action::Delayed => Event::Delay,
            Action::Delivered | Action::Relayed | Action::Expanded => Event::Success,
        })
    })
}
