//! What `rebound mailbox check` finds out: logs in, looks at the folders, and changes nothing.

use std::collections::BTreeMap;

use super::connection;
use super::error::ImapError;
use super::folders;
use super::oauth2::Tokens;
use super::session::{Detail, Head, Session};
use super::sync::WINDOW_UIDS;
use crate::bounce;
use crate::clock::Clock;
use crate::config::Mailbox;

/// What was found.
#[derive(Debug)]
pub struct Checked {
    /// Extensions that matter here and that the server offers.
    pub extensions: Vec<&'static str>,
    /// Every folder of the mailbox, as people write it.
    pub all_folders: Vec<String>,
    /// The folders that would be read.
    pub folders: Vec<FolderChecked>,
    /// Folders of the settings that are not there.
    pub missing: Vec<String>,
}

/// What a folder holds that would be read.
#[derive(Debug)]
pub struct FolderChecked {
    /// Its name, as people write it.
    pub name: String,
    /// Mails in it.
    pub mails: u32,
    /// Those that are young enough to be read the first time; of a very large folder, among the
    /// newest.
    pub recent: usize,
    /// Those of the newest `LOOKED_AT_MAX` of them that may be reports: unique id and subject.
    pub candidates: Vec<(u32, String)>,
}

/// Logs in and looks at the folders.
///
/// # Errors
/// When that cannot be done.
pub async fn check(settings: &Mailbox, clock: &Clock) -> Result<Checked, ImapError> {
    let oauth2 = settings.oauth2.clone().filter(|_| settings.auth.needs_token());
    let mut tokens = oauth2.map(|oauth2| Tokens::new(oauth2, clock.clone()));
    let mut session = Box::pin(connection::log_in(settings, tokens.as_mut())).await?;
    let listed = session.list().await?;
    let found = folders::resolve(&settings.folders, &listed);
    let mut checked = Vec::new();
    let since = clock.now().minus(settings.since.duration());
    for folder in &found.found {
        let selected = session.select(folder, true).await?;
        let mut recent = Vec::new();
        if selected.exists > 0 {
            let last = selected.uid_next.map_or(u32::MAX, |next| next.saturating_sub(1));
            let is_large = selected.exists > WINDOW_UIDS;
            let first = if is_large { last.saturating_sub(WINDOW_UIDS).max(1) } else { 1 };
            recent = session.search((first, last), Some(since)).await?;
        }
        let newest = recent.len().saturating_sub(LOOKED_AT_MAX);
        let newest = recent.get(newest..).unwrap_or_default();
        checked.push(FolderChecked {
            name: folders::decode(folder),
            mails: selected.exists,
            recent: recent.len(),
            candidates: candidates(&mut session, newest).await?,
        });
    }
    let offers = |name: &&&str| session.capabilities.has(name);
    let extensions = EXTENSIONS.iter().filter(offers).copied().collect();
    session.logout().await;
    Ok(Checked {
        extensions,
        all_folders: listed.iter().map(|folder| folders::decode(&folder.name)).collect(),
        folders: checked,
        missing: found.missing,
    })
}

async fn candidates(session: &mut Session, uids: &[u32]) -> Result<Vec<(u32, String)>, ImapError> {
    let mut found = BTreeMap::new();
    let mut each = |head: Head| {
        if bounce::may_be_report(&head.header, &head.kinds) {
            let subject = crate::mail::header::find(&head.header, "Subject");
            found.insert(head.uid, subject.map(|field| field.text()).unwrap_or_default());
        }
    };
    if !uids.is_empty() {
        session.heads(uids, Detail::Structure, &mut each).await?;
    }
    Ok(found.into_iter().collect())
}

/// What makes a difference to us.
const EXTENSIONS: &[&str] =
    &["IDLE", "NOTIFY", "MOVE", "UIDPLUS", "SPECIAL-USE", "CONDSTORE", "SASL-IR"];
/// The newest mails of a folder that are looked at.
const LOOKED_AT_MAX: usize = 500;
