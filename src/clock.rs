//! The only reader of the clock.
//!
//! Everything that needs the time is handed one of these or a `Timestamp`, so a test can set it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::mail::Timestamp;

/// Tells the time: the system's, or the one a test has set.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// The system's clock.
    pub fn system() -> Self {
        Self::default()
    }

    /// A clock that stands at `now` until `advance` moves it.
    pub fn manual(now: Timestamp) -> Self {
        Self { manual: Some(Arc::new(AtomicU64::new(now.as_millis()))) }
    }

    /// The time now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn now(&self) -> Timestamp {
        match &self.manual {
            Some(millis) => Timestamp::from_millis(millis.load(Ordering::SeqCst)),
            None => {
                let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
                let millis = since.unwrap_or_default().as_millis();
                Timestamp::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
            }
        }
    }

    /// Moves a manual clock forward; the system's clock cannot be moved.
    pub fn advance(&self, span: Duration) {
        if let Some(millis) = &self.manual {
            let span = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
            millis.fetch_add(span, Ordering::SeqCst);
        }
    }
}

/// A point from which elapsed time is measured, unmoved by changes of the system's clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts measuring.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// How long it has been measuring.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
