//! What the service manager is told: ready, reloading, stopping, alive.

use std::time::Duration;

use sd_notify::NotifyState;

/// Every listener is bound and every stage runs.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The daemon stops; running attempts are given their time.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// How often the service manager wants to hear that the daemon lives; `None` where it does not.
pub(super) fn watchdog_interval() -> Option<Duration> {
    let mut micros = 0;
    sd_notify::watchdog_enabled(false, &mut micros)
        .then(|| Duration::from_micros(micros.div_euclid(2).max(1)))
}

/// The daemon lives.
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// Outside of systemd nobody listens, which is no error.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, state) {
        tracing::debug!(%error, "cannot notify the service manager");
    }
}
