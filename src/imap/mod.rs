//! Stage 4b: reads reports out of IMAP mailboxes.
//!
//! Each mailbox has a task with one connection. What may be a report is fetched, stored and
//! captured like every other report; only then does the folder's cursor move and is anything
//! changed in the folder, so that a crash at any moment loses nothing and captures nothing twice.
//! The client is our own: async-imap 0.12 sets aside whatever length a literal announces, and
//! its parser (imap-proto 0.17) ends the process at a few hundred nested parentheses.
//! **Invariant:** a mail is fetched without being marked as seen, and what is no report is never
//! touched.

mod check;
mod connection;
mod error;
mod folders;
mod idle;
mod intake;
mod mailbox;
pub mod oauth2;
mod response;
mod session;
mod suspects;
mod sync;
mod wire;

use std::sync::Arc;

use tokio::sync::Semaphore;

pub use check::{Checked, FolderChecked, check};
pub use error::ImapError;
pub use mailbox::Shared;

use crate::config::Mailbox;
use crate::net::shutdown::Shutdown;

/// Watches the mailboxes until the daemon stops.
pub async fn run(mailboxes: Vec<Mailbox>, shared: Shared, shutdown: Shutdown) {
    let permits = Arc::new(Semaphore::new(SYNCS_MAX));
    let mut tasks = tokio::task::JoinSet::new();
    for settings in mailboxes {
        let poller = mailbox::Poller::new(settings, shared.clone(), Arc::clone(&permits));
        tasks.spawn(poller.run(shutdown.clone()));
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended
            && error.is_panic()
        {
            // The daemon ends with the stage, and is started again.
            std::panic::resume_unwind(error.into_panic());
        }
    }
    shutdown.requested().await;
}

/// Mailboxes that are connected to and read at a time; the others wait.
const SYNCS_MAX: usize = 8;
