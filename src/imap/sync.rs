//! One look at a folder: from its cursor to its end, in chunks, each captured before the cursor
//! passes it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::timeout;

use super::error::ImapError;
use super::intake::{self, Taken};
use super::mailbox::Poller;
use super::session::{Detail, Head, Selected, Session};
use crate::bounce;
use crate::config::{AfterCapture, Unparsed};
use crate::mail::header;
use crate::metrics::MailboxMail;
use crate::store::Ticket;
use crate::store::record::{Batch, FolderCursor, ReportId};

/// A mail that may be a report.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    uid: u32,
    size_bytes: u64,
    header_bytes: usize,
}

/// What became of the mails of a chunk.
#[derive(Debug, Default)]
struct Sorted {
    /// Reports, new and known.
    reports: Vec<(u32, ReportId)>,
    /// How many of them were known.
    known: usize,
    /// Mails that cannot be read.
    unreadable: Vec<u32>,
    /// What is not on disk yet, and its octets.
    tickets: Vec<Ticket>,
    bytes: usize,
}

impl Poller {
    /// Whether a folder that is not selected may hold what has not been read.
    pub(super) async fn has_changed(
        &self,
        session: &mut Session,
        folder: &str,
    ) -> Result<bool, ImapError> {
        let now = match session.status(folder).await {
            Ok(now) => now,
            // Selecting it will tell what is wrong with it.
            Err(ImapError::PeerRefused { .. }) => return Ok(true),
            Err(error) => return Err(error),
        };
        let Some(cursor) = self.cursor(folder) else { return Ok(true) };
        if now.uid_validity != cursor.uid_validity || now.uid_validity == 0 {
            return Ok(true);
        }
        let is_same =
            now.highest_mod_seq.is_some() && now.highest_mod_seq == cursor.highest_mod_seq;
        let is_behind = now.uid_next.is_none_or(|next| next > cursor.last_uid.saturating_add(1));
        Ok(!is_same && is_behind)
    }

    /// Reads a folder from its cursor to its end.
    pub(super) async fn sync(
        &mut self,
        session: &mut Session,
        folder: &str,
    ) -> Result<(), ImapError> {
        let selected = session.select(folder, self.settings.is_read_only()).await?;
        let mut cursor = self.begin(folder, &selected);
        // Without UIDNEXT the last mail is the last that the search finds.
        let end = selected.uid_next.map_or(u32::MAX, |next| next.saturating_sub(1));
        let mut width = WINDOW_UIDS;
        let mut first = cursor.last_uid.saturating_add(1);
        while first <= end && selected.exists > 0 {
            let is_old = first < cursor.old_below;
            let mut last = end;
            if is_old {
                last = last.min(cursor.old_below.saturating_sub(1));
            }
            if selected.exists > WINDOW_UIDS {
                last = last.min(first.saturating_add(width).saturating_sub(1));
            }
            let since = is_old.then_some(cursor.read_from);
            let uids = session.search((first, last), since).await?;
            width = if uids.is_empty() { width.saturating_mul(2) } else { WINDOW_UIDS };
            self.read_all(session, &mut cursor, &uids).await?;
            if selected.uid_next.is_some() {
                cursor.last_uid = last;
            }
            if last == u32::MAX {
                break;
            }
            first = last.saturating_add(1);
        }
        cursor.last_uid = cursor.last_uid.max(selected.uid_next.map_or(0, |_next| end));
        cursor.highest_mod_seq = selected.highest_mod_seq;
        self.put(cursor).await
    }

    /// The cursor that holds for a folder as it was selected.
    fn begin(&self, folder: &str, selected: &Selected) -> FolderCursor {
        let now = self.shared.clock.now();
        let known = self.cursor(folder);
        let is_valid = |cursor: &FolderCursor| {
            cursor.uid_validity == selected.uid_validity && selected.uid_validity != 0
        };
        if let Some(cursor) = known.clone().filter(is_valid) {
            return cursor;
        }
        if known.is_some() {
            let mailbox = &self.settings.name;
            tracing::info!(mailbox, folder, "the folder has been made anew; it is read again");
        }
        let read_from = now.minus(self.settings.since.duration());
        // Of older mails nobody would know any more that they have been captured.
        let kept_from = now.minus(self.shared.keep);
        FolderCursor {
            mailbox: self.settings.name.clone(),
            folder: folder.to_owned(),
            uid_validity: selected.uid_validity,
            last_uid: 0,
            highest_mod_seq: None,
            read_from: known.map_or(read_from, |cursor| cursor.read_from).max(kept_from),
            old_below: selected.uid_next.unwrap_or(u32::MAX),
        }
    }

    /// Reads mails in chunks and moves the cursor behind each.
    async fn read_all(
        &mut self,
        session: &mut Session,
        cursor: &mut FolderCursor,
        uids: &[u32],
    ) -> Result<(), ImapError> {
        let mut rest = uids;
        while let Some(first) = rest.first() {
            let (folder, validity) = (&cursor.folder, cursor.uid_validity);
            let most = self.suspects.together(folder, validity, *first, CHUNK_MAILS);
            let Some((chunk, tail)) = rest.split_at_checked(most.min(rest.len())) else { break };
            self.suspects.begin(folder, validity, chunk);
            self.read_chunk(session, cursor, chunk).await?;
            self.suspects.done();
            cursor.last_uid = chunk.last().copied().unwrap_or(cursor.last_uid);
            self.put(cursor.clone()).await?;
            rest = tail;
        }
        Ok(())
    }

    /// Reads some mails, has the reports among them captured, and then does with them what the
    /// settings say.
    async fn read_chunk(
        &mut self,
        session: &mut Session,
        cursor: &FolderCursor,
        uids: &[u32],
    ) -> Result<(), ImapError> {
        let is_given_up =
            |uid: &u32| self.suspects.is_given_up(&cursor.folder, cursor.uid_validity, *uid);
        let (given_up, uids): (Vec<u32>, Vec<u32>) =
            uids.iter().copied().partition(|uid| is_given_up(uid));
        let mut sorted = Sorted { unreadable: given_up, ..Sorted::default() };
        let candidates = find_candidates(session, &uids, &mut sorted).await?;
        self.count(MailboxMail::Seen, uids.len());
        self.count(MailboxMail::Read, candidates.len());
        let whole_max = self.settings.message_bytes_max;
        let (small, large): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|found| found.size_bytes <= whole_max);
        let mut group = Vec::new();
        let mut bytes: u64 = 0;
        for candidate in small {
            bytes = bytes.saturating_add(candidate.size_bytes);
            group.push(candidate);
            if bytes >= GROUP_BYTES_MAX {
                self.fetch(session, &std::mem::take(&mut group), &mut sorted).await?;
                bytes = 0;
            }
        }
        self.fetch(session, &group, &mut sorted).await?;
        for candidate in large {
            self.fetch_alone(session, candidate, &mut sorted).await?;
        }
        self.settle(session, cursor, sorted).await
    }

    /// Fetches mails whole and stores the reports among them.
    async fn fetch(
        &self,
        session: &mut Session,
        group: &[Candidate],
        sorted: &mut Sorted,
    ) -> Result<(), ImapError> {
        if group.is_empty() {
            return Ok(());
        }
        let uids: Vec<u32> = group.iter().map(|candidate| candidate.uid).collect();
        // Servers do not always count octets alike.
        let room = self.settings.message_bytes_max.saturating_add(GROUP_BYTES_MAX);
        let mut left: BTreeSet<u32> = uids.iter().copied().collect();
        for (uid, raw) in session.bodies(&uids, None, room).await? {
            left.remove(&uid);
            self.take(uid, raw, sorted).await?;
        }
        for candidate in group.iter().filter(|candidate| left.contains(&candidate.uid)) {
            self.fetch_alone(session, *candidate, sorted).await?;
        }
        Ok(())
    }

    /// Fetches one mail, a large one up to some octets behind its header.
    async fn fetch_alone(
        &self,
        session: &mut Session,
        candidate: Candidate,
        sorted: &mut Sorted,
    ) -> Result<(), ImapError> {
        let Candidate { uid, size_bytes, header_bytes } = candidate;
        let head = u64::try_from(header_bytes).unwrap_or_default().saturating_add(KEPT_BYTES);
        let whole_max = self.settings.message_bytes_max;
        let octets = if size_bytes > whole_max { head } else { whole_max };
        match session.bodies(&[uid], Some(octets), octets).await?.pop() {
            Some((_, raw)) => self.take(uid, raw, sorted).await,
            None => {
                if session.is_there(uid).await? {
                    sorted.unreadable.push(uid);
                }
                Ok(())
            }
        }
    }

    /// Stores a mail if it is a report; what waits for the disk is bounded.
    async fn take(&self, uid: u32, raw: Vec<u8>, sorted: &mut Sorted) -> Result<(), ImapError> {
        match intake::take(&self.shared, raw).await {
            Ok(Taken::Other) => {}
            Ok(Taken::Known(id)) => {
                sorted.known = sorted.known.saturating_add(1);
                sorted.reports.push((uid, id));
            }
            Ok(Taken::Stored(id, ticket, size)) => {
                sorted.reports.push((uid, id));
                sorted.tickets.push(ticket);
                sorted.bytes = sorted.bytes.saturating_add(size);
            }
            Err(ImapError::Defect(doing)) => {
                tracing::error!(mailbox = self.settings.name, uid, doing, "a defect");
                sorted.unreadable.push(uid);
            }
            Err(error) => return Err(error),
        }
        if sorted.bytes > WAITING_BYTES_MAX { sorted.synced().await } else { Ok(()) }
    }

    /// Waits until the reports are captured, then touches the folder.
    async fn settle(
        &mut self,
        session: &mut Session,
        cursor: &FolderCursor,
        mut sorted: Sorted,
    ) -> Result<(), ImapError> {
        sorted.synced().await?;
        let mut captured = Vec::new();
        for (uid, id) in &sorted.reports {
            match timeout(CAPTURE_TIMEOUT, self.shared.store.report_captured(*id)).await {
                Ok(()) => captured.push(*uid),
                // It is on disk and will be captured once it can be.
                Err(_elapsed) => sorted.unreadable.push(*uid),
            }
        }
        captured.sort_unstable();
        sorted.unreadable.sort_unstable();
        self.count(MailboxMail::Known, sorted.known.min(captured.len()));
        self.count(MailboxMail::Captured, captured.len().saturating_sub(sorted.known));
        self.count(MailboxMail::Unreadable, sorted.unreadable.len());
        let (mailbox, folder) = (&self.settings.name, &cursor.folder);
        if !sorted.unreadable.is_empty() {
            let uids = format!("{:?}", sorted.unreadable);
            tracing::warn!(mailbox, folder, uids, "mails that cannot be read are passed over");
        }
        if !captured.is_empty() {
            let (reports, known) = (captured.len(), sorted.known);
            tracing::debug!(mailbox, folder, reports, known, "reports are captured");
        }
        let done = self.act(session, &captured, &sorted.unreadable).await;
        match done {
            // What a server does not let us do does not keep later reports from being read.
            Err(error) if error.is_about_one_folder() => self.complain(&error, "connected"),
            Err(error) => return Err(error),
            Ok(()) => {}
        }
        Ok(())
    }

    /// Does in the folder what the settings say.
    async fn act(
        &self,
        session: &mut Session,
        captured: &[u32],
        unreadable: &[u32],
    ) -> Result<(), ImapError> {
        let target = super::folders::encode(&self.settings.move_to);
        if !captured.is_empty() {
            match self.settings.after {
                AfterCapture::Keep => {}
                AfterCapture::Seen => session.flag(captured, "\\Seen").await?,
                AfterCapture::Move => session.move_to(captured, &target).await?,
                AfterCapture::Delete => session.delete(captured).await?,
            }
        }
        if !unreadable.is_empty() && self.settings.unparsed == Unparsed::Move {
            session.move_to(unreadable, &target).await?;
        }
        Ok(())
    }

    fn cursor(&self, folder: &str) -> Option<FolderCursor> {
        self.shared.store.folder_cursor(&self.settings.name, folder)
    }

    /// Writes a cursor unless it is the one that holds.
    async fn put(&self, cursor: FolderCursor) -> Result<(), ImapError> {
        if self.cursor(&cursor.folder).as_ref() == Some(&cursor) {
            return Ok(());
        }
        let batch = Batch { cursors: vec![cursor], ..Batch::default() };
        self.shared.store.commit(batch)?.synced().await?;
        Ok(())
    }
}

/// The mails whose header and structure say that they may be reports.
async fn find_candidates(
    session: &mut Session,
    uids: &[u32],
    sorted: &mut Sorted,
) -> Result<Vec<Candidate>, ImapError> {
    let mut heads = Heads { missing: uids.iter().copied().collect(), ..Heads::default() };
    if !uids.is_empty() {
        session.heads(uids, Detail::Structure, &mut |head| heads.note(&head)).await?;
    }
    // A structure that is nested too deep, or that the server cannot make, hides the header.
    for uid in heads.missing.clone() {
        session.heads(&[uid], Detail::HeaderOnly, &mut |head| heads.note(&head)).await?;
    }
    for uid in heads.missing {
        if session.is_there(uid).await? {
            sorted.unreadable.push(uid);
        }
    }
    sorted.unreadable.extend(heads.headless);
    heads.candidates.sort_unstable_by_key(|candidate| candidate.uid);
    Ok(heads.candidates)
}

/// What the headers of a chunk say.
#[derive(Debug, Default)]
struct Heads {
    candidates: Vec<Candidate>,
    /// Mails that have no header.
    headless: Vec<u32>,
    /// Mails whose header has not come.
    missing: BTreeSet<u32>,
}

impl Heads {
    fn note(&mut self, head: &Head) {
        self.missing.remove(&head.uid);
        if header::fields(&head.header).next().is_none() {
            self.headless.push(head.uid);
        } else if bounce::may_be_report(&head.header, &head.kinds) {
            self.candidates.push(Candidate {
                uid: head.uid,
                size_bytes: head.size_bytes,
                header_bytes: head.header.len(),
            });
        }
    }
}

impl Sorted {
    /// Waits until everything stored so far is on disk.
    async fn synced(&mut self) -> Result<(), ImapError> {
        for ticket in self.tickets.drain(..) {
            ticket.synced().await?;
        }
        self.bytes = 0;
        Ok(())
    }
}

/// Mails whose headers are fetched with one command.
const CHUNK_MAILS: usize = 100;
/// Unique ids that are searched at a time where a folder holds more mails than this.
pub(super) const WINDOW_UIDS: u32 = 50_000;
/// Octets of mails that are fetched with one command.
const GROUP_BYTES_MAX: u64 = 4 << 20;
/// Octets of reports that may wait for the disk.
const WAITING_BYTES_MAX: usize = 4 << 20;
/// Octets behind the header that are kept of a mail that is too large.
const KEPT_BYTES: u64 = 262_144;
/// How long a report on disk may take to be captured before its mail is left as it is.
const CAPTURE_TIMEOUT: Duration = Duration::from_secs(120);
