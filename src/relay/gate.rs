//! When a further connection to the next hop may be opened.
//!
//! A next hop that takes no further connection while it has some of ours allows fewer than we do:
//! mail waits for one of those. One that takes none at all is left in peace for a moment, so that
//! a long queue does not knock mail by mail; nor does a wrong password lock the account.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::connection::Failure;
use crate::clock::Stopwatch;
use crate::mail::Stage;

/// The gate to one next hop; clones share it.
#[derive(Clone, Default)]
pub(super) struct Gate {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    numbers: Mutex<Numbers>,
    /// Rung when a connection can be had or had better be opened, and when there is none left.
    bell: Notify,
}

#[derive(Default)]
struct Numbers {
    /// Connections that are being opened.
    opening: usize,
    /// Connections that are open, in use or idle.
    open: usize,
    /// Why the last one could not be opened, and when that was.
    failure: Option<(Failure, Stopwatch)>,
}

/// A connection that is being opened.
pub(super) struct Opening(Gate);

/// An open connection, for as long as this lives.
pub(super) struct Opened(Gate);

/// That no connection is to be opened now.
pub(super) struct Closed {
    /// Why the last one could not be opened.
    pub(super) failure: Failure,
    /// How long ago that was to be.
    pub(super) wait: Duration,
    /// How much of it is left.
    pub(super) left: Duration,
}

impl Gate {
    /// Why no connection is to be opened now, if so.
    pub(super) fn closed(&self) -> Option<Closed> {
        let numbers = self.lock();
        let (failure, since) = numbers.failure.as_ref()?;
        let wait = if failure.stage == Stage::Auth { AUTH_AGAIN_AFTER } else { OPEN_AGAIN_AFTER };
        let left = wait.checked_sub(since.elapsed()).filter(|left| !left.is_zero())?;
        Some(Closed { failure: failure.clone(), wait, left })
    }

    /// Begins to open a connection.
    pub(super) fn opening(&self) -> Opening {
        let mut numbers = self.lock();
        numbers.opening = numbers.opening.saturating_add(1);
        Opening(self.clone())
    }

    /// Whether there is no connection that might become idle.
    pub(super) fn is_deserted(&self) -> bool {
        self.lock().is_deserted()
    }

    /// Tells one who waits that a connection has become idle.
    pub(super) fn ring(&self) {
        self.shared.bell.notify_one();
    }

    /// Waits for the bell, but no longer than `limit`, and not where nobody is left to ring it.
    pub(super) async fn wait(&self, limit: Duration) {
        let mut bell = pin!(self.shared.bell.notified());
        // From here on no ring is missed, so what is asked next cannot go stale unheard.
        bell.as_mut().enable();
        if !self.is_deserted() {
            drop(tokio::time::timeout(limit, bell).await);
        }
    }

    /// Changes the numbers, and tells everybody when nothing is left to wait for.
    fn change(&self, change: impl FnOnce(&mut Numbers)) {
        let is_deserted = {
            let mut numbers = self.lock();
            change(&mut numbers);
            numbers.is_deserted()
        };
        if is_deserted {
            self.shared.bell.notify_waiters();
        } else {
            self.ring();
        }
    }

    /// The numbers are whole between any two statements, so a panic of another holder leaves
    /// nothing half done.
    fn lock(&self) -> MutexGuard<'_, Numbers> {
        self.shared.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Numbers {
    fn is_deserted(&self) -> bool {
        self.opening == 0 && self.open == 0
    }
}

impl Opening {
    /// It is open. What failed meanwhile says that there had better be no further one.
    pub(super) fn opened(self) -> Opened {
        let mut numbers = self.0.lock();
        numbers.open = numbers.open.saturating_add(1);
        Opened(self.0.clone())
    }

    /// It could not be opened: the gate is closed for a while.
    pub(super) fn failed(self, failure: &Failure) {
        self.0.lock().failure = Some((failure.clone(), Stopwatch::start()));
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.change(|numbers| numbers.opening = numbers.opening.saturating_sub(1));
    }
}

impl Drop for Opened {
    /// The end of a connection makes room for another.
    fn drop(&mut self) {
        self.0.change(|numbers| {
            numbers.open = numbers.open.saturating_sub(1);
            numbers.failure = None;
        });
    }
}

/// How long a next hop that could not be reached is left in peace.
const OPEN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long credentials that were refused are not offered again.
const AUTH_AGAIN_AFTER: Duration = Duration::from_secs(60);
