//! The mailboxes: how far their folders have been read, which survives a crash, and how the
//! poller is doing, which does not.
//!
//! The poller and the look-ups never call each other: what one wants of the other stands here.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::record::{FolderCursor, ReportId};
use super::{Store, StoreError};
use crate::mail::Timestamp;

/// How the poller is doing with one mailbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailboxStatus {
    /// Its name in the settings.
    pub name: String,
    /// What it is doing.
    pub state: MailboxState,
    /// Since when.
    pub since: Timestamp,
    /// What went wrong last, and when; it stays after it has been mended.
    pub last_error: Option<(Timestamp, String)>,
    /// When all folders had been looked at last.
    pub last_poll: Option<Timestamp>,
    /// The folders that are read, by their names on the server.
    pub folders: Vec<String>,
    /// What was done since the daemon started.
    pub counts: MailboxCounts,
}

/// What the poller is doing with a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxState {
    /// It has not begun.
    Init,
    /// It connects and logs in.
    Connecting,
    /// It looks at the folders.
    Syncing,
    /// It is connected and waits for news.
    Connected,
    /// The server, or the token endpoint, refuses the login; it is tried again.
    AuthenticationError,
    /// No connection can be made; it is tried again.
    ConnectError,
    /// The connection was lost or the folders could not be read; it is tried again.
    Disconnected,
}

impl MailboxState {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Init => "init",
            Self::Connecting => "connecting",
            Self::Syncing => "syncing",
            Self::Connected => "connected",
            Self::AuthenticationError => "authenticationError",
            Self::ConnectError => "connectError",
            Self::Disconnected => "disconnected",
        }
    }
}

/// What the poller has done with a mailbox since the daemon started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MailboxCounts {
    /// Mails whose header was looked at.
    pub seen: u64,
    /// Mails that were read because they might be reports.
    pub read: u64,
    /// Reports that were captured.
    pub captured: u64,
    /// Reports that had been captured before.
    pub known: u64,
    /// Mails that could not be read.
    pub unreadable: u64,
    /// Times that something failed.
    pub errors: u64,
}

/// All mailboxes, in the order of the settings.
#[derive(Debug, Default)]
pub(super) struct Mailboxes {
    all: Mutex<Vec<Watched>>,
}

#[derive(Debug)]
struct Watched {
    status: MailboxStatus,
    poll: Arc<Notify>,
}

impl Mailboxes {
    fn all(&self) -> MutexGuard<'_, Vec<Watched>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Makes a mailbox known; what it returns is notified whenever somebody wants it polled now.
    pub fn watch_mailbox(&self, name: &str) -> Arc<Notify> {
        let poll = Arc::new(Notify::new());
        let status = MailboxStatus {
            name: name.to_owned(),
            state: MailboxState::Init,
            since: self.shared.clock.now(),
            last_error: None,
            last_poll: None,
            folders: Vec::new(),
            counts: MailboxCounts::default(),
        };
        self.shared.mailboxes.all().push(Watched { status, poll: Arc::clone(&poll) });
        poll
    }

    /// Changes what is known of a mailbox.
    pub fn change_mailbox(&self, name: &str, change: impl FnOnce(&mut MailboxStatus)) {
        let mut all = self.shared.mailboxes.all();
        if let Some(watched) = all.iter_mut().find(|watched| watched.status.name == name) {
            change(&mut watched.status);
        }
    }

    /// How the poller is doing with every mailbox, in the order of the settings.
    pub fn mailboxes(&self) -> Vec<MailboxStatus> {
        self.shared.mailboxes.all().iter().map(|watched| watched.status.clone()).collect()
    }

    /// Asks for a mailbox to be polled now; whether there is one of that name.
    pub fn poll_mailbox(&self, name: &str) -> bool {
        let all = self.shared.mailboxes.all();
        let found = all.iter().find(|watched| watched.status.name == name);
        found.inspect(|watched| watched.poll.notify_one()).is_some()
    }

    /// How far a folder of a mailbox has been read.
    pub fn folder_cursor(&self, mailbox: &str, folder: &str) -> Option<FolderCursor> {
        let key = FolderCursor::key_of(mailbox, folder);
        let core = self.shared.core();
        let cursor = core.live.cursor(&key)?;
        let is_same = cursor.mailbox == mailbox && cursor.folder == folder;
        is_same.then(|| cursor.as_ref().clone())
    }

    /// The report that has this digest, captured or not, if there is one.
    pub fn any_report_by_digest(&self, digest: &[u8; 16]) -> Result<Option<ReportId>, StoreError> {
        self.shared.reports_by_digest(digest).map(|found| found.first().copied())
    }

    /// Returns once a report that is on disk has been captured.
    pub async fn report_captured(&self, id: ReportId) {
        let mut changes = self.changes();
        while self.shared.core().live.is_uncaptured(id) {
            // The sender lives as long as this store does.
            drop(changes.changed().await);
        }
    }
}

/// The folder cursors that hold, by key.
pub(super) type Cursors = BTreeMap<super::record::CursorKey, Arc<FolderCursor>>;
