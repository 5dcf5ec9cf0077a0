//! One mailbox: connecting, looking at its folders, waiting for news, and connecting again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use super::connection;
use super::error::ImapError;
use super::folders::{self, Folders};
use super::idle::Woken;
use super::oauth2::Tokens;
use super::session::Session;
use super::suspects::Suspects;
use crate::clock::Clock;
use crate::config::Mailbox;
use crate::mail::header::sanitized;
use crate::maillog::chain;
use crate::metrics::{MailboxMail, Metrics};
use crate::net::shutdown::Shutdown;
use crate::secret::random_u64;
use crate::store::{MailboxState, MailboxStatus, Store};

/// What all mailboxes share.
#[derive(Clone)]
pub struct Shared {
    /// Where reports and cursors go.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// Where it is counted.
    pub metrics: Metrics,
    /// How long reports are known.
    pub keep: Duration,
}

/// The task of one mailbox.
pub(super) struct Poller {
    pub(super) settings: Mailbox,
    pub(super) shared: Shared,
    pub(super) suspects: Suspects,
    tokens: Option<Tokens>,
    /// Notified when somebody wants it polled now.
    poll: Arc<Notify>,
    permits: Arc<Semaphore>,
    /// What has been logged and is not mended.
    complaint: Option<String>,
}

impl Poller {
    /// Makes the mailbox known to those who ask for it.
    pub(super) fn new(settings: Mailbox, shared: Shared, permits: Arc<Semaphore>) -> Self {
        let poll = shared.store.watch_mailbox(&settings.name);
        shared.metrics.mailbox_state(&settings.name, MailboxState::Init.as_str());
        let oauth2 = settings.oauth2.clone().filter(|_| settings.auth.needs_token());
        let tokens = oauth2.map(|oauth2| Tokens::new(oauth2, shared.clock.clone()));
        let suspects = Suspects::default();
        Self { settings, shared, suspects, tokens, poll, permits, complaint: None }
    }

    /// Watches the mailbox until the daemon stops; a failure is waited out, longer each time.
    pub(super) async fn run(mut self, shutdown: Shutdown) {
        let mut failures: u32 = 0;
        loop {
            let mut is_connected = false;
            let error = tokio::select! {
                () = shutdown.requested() => return,
                error = self.session(&mut is_connected, &mut failures) => error,
            };
            self.suspects.connection_ended();
            let state = error.state(is_connected);
            // Whoever sees the state can see why.
            self.complain(&error, state.as_str());
            self.enter(state);
            failures = failures.saturating_add(1);
            tokio::select! {
                () = shutdown.requested() => return,
                () = self.poll.notified() => {}
                () = tokio::time::sleep(pause(state, failures)) => {}
            }
        }
    }

    /// One connection, from the login to what ends it.
    async fn session(&mut self, is_connected: &mut bool, failures: &mut u32) -> ImapError {
        match self.talk(is_connected, failures).await {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }

    async fn talk(
        &mut self,
        is_connected: &mut bool,
        failures: &mut u32,
    ) -> Result<std::convert::Infallible, ImapError> {
        self.enter(MailboxState::Connecting);
        let permits = Arc::clone(&self.permits);
        let mut permit = permit_of(&permits).await;
        let mut session =
            Box::pin(connection::log_in(&self.settings, self.tokens.as_mut())).await?;
        *is_connected = true;
        let mut folders: Option<Folders> = None;
        let mut is_idle_refused = false;
        loop {
            self.enter(MailboxState::Syncing);
            let known = match folders.take().filter(|folders| folders.missing.is_empty()) {
                Some(known) => known,
                None => self.find_folders(&mut session).await?,
            };
            let is_whole = self.round(&mut session, &known).await?;
            *failures = 0;
            self.has_polled(is_whole && known.missing.is_empty());
            folders = Some(known).filter(|_| is_whole);
            self.enter(MailboxState::Connected);
            drop(permit.take());
            if !session.take_news() {
                let can_idle = self.settings.idle && session.capabilities.has("IDLE");
                let idles = can_idle && !is_idle_refused && session.is_selected();
                is_idle_refused |= !self.wait(&mut session, idles).await?;
            }
            permit = permit_of(&permits).await;
        }
    }

    /// Finds out which folders there are, and asks to be told of mails in them.
    async fn find_folders(&mut self, session: &mut Session) -> Result<Folders, ImapError> {
        let listed = session.list().await?;
        let folders = folders::resolve(&self.settings.folders, &listed);
        if let Some(name) = folders.missing.first() {
            self.complain(&ImapError::ConfigFolder(sanitized(name)), "connected");
        }
        if self.settings.idle {
            let others = folders.found.get(1..).unwrap_or_default();
            session.notify(others).await?;
        }
        let shown = folders.found.iter().map(|name| folders::decode(name)).collect();
        self.change(|status| status.folders = shown);
        Ok(folders)
    }

    /// Looks at every folder, the one that is watched last, so that it stays selected; whether
    /// all of them could be read.
    async fn round(&mut self, session: &mut Session, folders: &Folders) -> Result<bool, ImapError> {
        let mut is_whole = true;
        for (index, folder) in folders.found.iter().enumerate().rev() {
            let is_watched = index == 0;
            let looked = match is_watched || self.has_changed(session, folder).await? {
                true => self.sync(session, folder).await,
                false => Ok(()),
            };
            match looked {
                Err(error) if !error.is_about_one_folder() => return Err(error),
                Err(error) => {
                    self.suspects.done();
                    self.complain(&error, "connected");
                    is_whole = false;
                }
                Ok(()) => {}
            }
        }
        Ok(is_whole)
    }

    /// Waits for news, with IDLE where it may; whether IDLE was not refused.
    async fn wait(&mut self, session: &mut Session, idles: bool) -> Result<bool, ImapError> {
        let limit = Duration::from_secs(self.settings.poll_interval_secs);
        let poll = Arc::clone(&self.poll);
        let asked = async { poll.notified().await };
        if idles {
            let woken = session.idle(limit, asked).await?;
            // A server that tells of news again and again is not asked as often.
            tokio::time::sleep(NEWS_PAUSE).await;
            return Ok(woken != Woken::Refused);
        }
        tokio::select! {
            () = asked => {}
            () = tokio::time::sleep(limit) => {}
        }
        Ok(true)
    }

    /// Shows a state.
    fn enter(&self, state: MailboxState) {
        let now = self.shared.clock.now();
        self.change(|status| {
            if status.state != state {
                status.state = state;
                status.since = now;
            }
        });
        self.shared.metrics.mailbox_state(&self.settings.name, state.as_str());
    }

    /// Notes a failure, and logs it unless it was the last that was logged.
    pub(super) fn complain(&mut self, error: &ImapError, state: &str) {
        let (now, text) = (self.shared.clock.now(), chain(error));
        self.shared.metrics.mailbox_failed(&self.settings.name);
        self.change(|status| {
            status.counts.errors = status.counts.errors.saturating_add(1);
            status.last_error = Some((now, text.clone()));
        });
        if self.complaint.as_ref() != Some(&text) {
            let mailbox = &self.settings.name;
            tracing::warn!(mailbox, state, error = text, "the mailbox cannot be read");
            self.complaint = Some(text);
        }
    }

    /// Notes that all folders were looked at.
    fn has_polled(&mut self, is_whole: bool) {
        let now = self.shared.clock.now();
        self.change(|status| status.last_poll = Some(now));
        if is_whole && self.complaint.take().is_some() {
            tracing::info!(mailbox = self.settings.name, "the mailbox is read again");
        }
    }

    /// Counts mails.
    pub(super) fn count(&self, what: MailboxMail, mails: usize) {
        let mails = u64::try_from(mails).unwrap_or(u64::MAX);
        self.shared.metrics.mailbox_mails(&self.settings.name, what, mails);
        self.change(|status| {
            let counts = &mut status.counts;
            let count = match what {
                MailboxMail::Seen => &mut counts.seen,
                MailboxMail::Read => &mut counts.read,
                MailboxMail::Captured => &mut counts.captured,
                MailboxMail::Known => &mut counts.known,
                MailboxMail::Unreadable => &mut counts.unreadable,
            };
            *count = count.saturating_add(mails);
        });
    }

    fn change(&self, change: impl FnOnce(&mut MailboxStatus)) {
        self.shared.store.change_mailbox(&self.settings.name, change);
    }
}

/// Waits until it is this mailbox's turn.
async fn permit_of(permits: &Semaphore) -> Option<SemaphorePermit<'_>> {
    // It is never closed.
    permits.acquire().await.ok()
}

/// How long a failure is waited out: longer each time, and never for all mailboxes alike.
fn pause(state: MailboxState, failures: u32) -> Duration {
    let (first, longest) = match state {
        // A server that refuses logins may shut out who tries too often.
        MailboxState::AuthenticationError => (REFUSED_PAUSE, REFUSED_PAUSE_MAX),
        _ => (LOST_PAUSE, LOST_PAUSE_MAX),
    };
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1).min(16));
    let pause = first.saturating_mul(doubled).min(longest);
    let jitter = u32::try_from(random_u64() % 256).unwrap_or_default();
    pause.saturating_add(pause.saturating_mul(jitter) / 1024)
}

/// The pause after the first failure to connect or to stay connected, and the longest one.
const LOST_PAUSE: Duration = Duration::from_secs(1);
const LOST_PAUSE_MAX: Duration = Duration::from_secs(300);
/// The same after a login was refused.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(900);
/// Between news and the next wait for them.
const NEWS_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_waited_out_longer_each_time_up_to_a_limit() {
        use MailboxState::{AuthenticationError, ConnectError};
        for (state, failures, least) in [
            (ConnectError, 1, 1),
            (ConnectError, 2, 2),
            (ConnectError, 5, 16),
            (ConnectError, 30, 300),
            (AuthenticationError, 1, 10),
            (AuthenticationError, 4, 80),
            (AuthenticationError, u32::MAX, 900),
        ] {
            let (pause, least) = (pause(state, failures), Duration::from_secs(least));
            assert!(pause >= least && pause <= least * 5 / 4, "{state:?} {failures}: {pause:?}");
        }
    }
}
