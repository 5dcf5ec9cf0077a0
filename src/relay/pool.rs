//! Connections that wait for the next mail to the same next hop.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use super::connection::Connection;
use crate::clock::Stopwatch;

/// Idle connections to one next hop with one set of credentials; clones share them.
#[derive(Clone)]
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    idle_limit: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one that was used last stands last.
    connections: Vec<(Connection, Stopwatch)>,
    /// Whether a task waits to close those that are idle for too long.
    is_swept: bool,
}

impl Pool {
    pub(super) fn new(idle_limit: Duration) -> Self {
        Self { shared: Arc::new(Shared { idle_limit, idle: Mutex::default() }) }
    }

    /// The connection that was used last, if its time is not over.
    pub(super) fn take(&self) -> Option<Connection> {
        let (connection, since) = self.shared.lock().connections.pop()?;
        if since.elapsed() < self.shared.idle_limit {
            return Some(connection);
        }
        tokio::spawn(connection.quit());
        None
    }

    /// Keeps a connection for the next mail, for as long as it may be idle.
    pub(super) fn put(&self, connection: Connection) {
        if self.shared.idle_limit.is_zero() {
            tokio::spawn(connection.quit());
            return;
        }
        let mut idle = self.shared.lock();
        idle.connections.push((connection, Stopwatch::start()));
        if !std::mem::replace(&mut idle.is_swept, true) {
            tokio::spawn(sweep(Arc::downgrade(&self.shared), self.shared.idle_limit));
        }
    }

    /// Takes leave of all idle connections.
    pub(super) async fn close(&self) {
        let all = std::mem::take(&mut self.shared.lock().connections);
        let mut leaving = tokio::task::JoinSet::new();
        for (connection, _) in all {
            leaving.spawn(connection.quit());
        }
        while leaving.join_next().await.is_some() {}
    }
}

impl Shared {
    /// What is inside is a list that is whole between any two statements, so that a panic of
    /// another holder leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes connections whose time is over, until none is left.
async fn sweep(pool: Weak<Shared>, idle_limit: Duration) {
    loop {
        tokio::time::sleep(idle_limit).await;
        let Some(shared) = pool.upgrade() else { return };
        let mut idle = shared.lock();
        let all = std::mem::take(&mut idle.connections);
        for (connection, since) in all {
            if since.elapsed() < idle_limit {
                idle.connections.push((connection, since));
            } else {
                tokio::spawn(connection.quit());
            }
        }
        if idle.connections.is_empty() {
            idle.is_swept = false;
            return;
        }
    }
}
