//! How everything is told to stop, and how what runs is waited for.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// Asks every holder of a `Shutdown` to stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Told when the daemon is to stop; cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// A connected pair.
pub fn shutdown() -> (Stopper, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Shutdown(receiver))
}

impl Stopper {
    /// Asks; whoever looks later finds it asked.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// Completes when the daemon is to stop, at once if it was asked before.
    ///
    /// A `Stopper` that is gone counts as asked, so that nothing outlives its owner.
    pub fn requested(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut receiver = self.0.clone();
        async move {
            // An error says that the Stopper is gone, which is an answer, too.
            drop(receiver.wait_for(|asked| *asked).await);
        }
    }

    /// Whether the daemon is to stop.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }
}

/// Tasks that are waited for when the daemon stops.
#[derive(Debug, Default)]
pub struct Drain {
    tasks: JoinSet<()>,
}

/// How waiting for the tasks ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Tasks that were ended because the time was over.
    pub aborted: usize,
}

impl Drain {
    /// Runs a task.
    pub fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// How many run.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether none runs.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Waits until a task has ended; for ever while there is none.
    pub async fn one_ended(&mut self) {
        match self.tasks.join_next().await {
            Some(ended) => report(ended),
            None => std::future::pending().await,
        }
    }

    /// Waits until all tasks have ended, but no longer than `limit`; then ends the rest.
    pub async fn finish(mut self, limit: Duration) -> Drained {
        let all_ended = async {
            while let Some(ended) = self.tasks.join_next().await {
                report(ended);
            }
        };
        if tokio::time::timeout(limit, all_ended).await.is_ok() {
            return Drained { aborted: 0 };
        }
        let aborted = self.tasks.len();
        self.tasks.shutdown().await;
        Drained { aborted }
    }
}

/// A panic ends one task, never the daemon, but it is a defect and is logged as one.
fn report(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        tracing::error!(%error, "a connection was dropped after a panic");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn everyone_hears_of_it_also_who_asks_later() {
        let (stopper, shutdown) = shutdown();
        assert!(!shutdown.is_requested());
        let early = tokio::spawn(shutdown.requested());
        stopper.stop();
        early.await.unwrap();
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_stopper_stops_everything() {
        let (stopper, shutdown) = shutdown();
        drop(stopper);
        shutdown.requested().await;
        assert!(shutdown.is_requested());
    }

    #[tokio::test(start_paused = true)]
    async fn tasks_are_waited_for_up_to_the_limit() {
        let mut drain = Drain::default();
        drain.spawn(tokio::time::sleep(Duration::from_secs(1)));
        drain.spawn(async { panic!("one of them panics") });
        assert_eq!(drain.len(), 2);
        assert_eq!(drain.finish(Duration::from_secs(2)).await, Drained { aborted: 0 });

        let mut drain = Drain::default();
        drain.spawn(std::future::pending());
        drain.spawn(async {});
        assert_eq!(drain.finish(Duration::from_secs(2)).await, Drained { aborted: 1 });
    }
}
