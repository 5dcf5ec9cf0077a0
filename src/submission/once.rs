//! One submission for each idempotency key, however often an app tries.
//!
//! The key is part of the record of the mail, so both are on disk or neither. Only those who come
//! with the same key at the same time must wait for each other, and that is what is here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::OwnedMutexGuard;

/// Lets one at a time submit under a key; clones share the turns.
#[derive(Clone, Default)]
pub(super) struct Turns {
    /// Only of keys that somebody submits under just now.
    open: Arc<Mutex<HashMap<TurnKey, Arc<tokio::sync::Mutex<()>>>>>,
}

/// The turn to submit under a key, until it is dropped.
pub(super) struct Turn {
    turns: Turns,
    key: TurnKey,
    guard: Option<OwnedMutexGuard<()>>,
}

/// An account and its key.
type TurnKey = (String, String);

impl Turns {
    /// Waits until nobody else submits under this key of this account.
    pub(super) async fn wait(&self, account: &str, key: &str) -> Turn {
        let key = (account.to_owned(), key.to_owned());
        let turn = Arc::clone(self.open().entry(key.clone()).or_default());
        let guard = turn.lock_owned().await;
        Turn { turns: self.clone(), key, guard: Some(guard) }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<TurnKey, Arc<tokio::sync::Mutex<()>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut open = self.turns.open();
        self.guard = None;
        // Whoever waits holds it, too.
        if open.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            open.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_key_is_one_turn_at_a_time_and_others_do_not_wait() {
        let turns = Turns::default();
        let first = turns.wait("shop", "k").await;
        let other = turns.wait("till", "k").await;
        let waiting = tokio::spawn({
            let turns = turns.clone();
            async move { drop(turns.wait("shop", "k").await) }
        });
        while turns.open().get(&first.key).map(Arc::strong_count) != Some(3) {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        assert!(!waiting.is_finished());
        drop((first, other));
        waiting.await.unwrap();
        assert!(turns.open().is_empty(), "nothing is kept of those who are done");
    }
}
