//! The daemon: reads the settings, binds, opens the store, starts the stages, waits, drains.

mod certificates;
mod logging;
mod prepare;
mod reload;
mod stages;
mod systemd;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{chain, complain, exit};
use crate::config::{ConfigError, Environment, Loaded, load_over};
use crate::dev;
use crate::net::shutdown::shutdown;
use crate::store::create_private_dir;
use stages::{Bound, Stages};

/// How the daemon is started.
pub struct Start<'a> {
    /// The operator's file.
    pub config_file: Option<PathBuf>,
    /// Whether it runs for a developer or in earnest.
    pub mode: Mode,
    /// The environment that settings may come from.
    pub environment: Environment<'a>,
}

/// Whether the daemon runs for a developer or in earnest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `rebound serve`.
    Serve,
    /// `rebound dev`: the simulator is the next hop; data is kept there, or in a temporary place.
    Dev(Option<PathBuf>),
}

/// Why the daemon could not start, or had to stop.
#[derive(Debug)]
pub enum DaemonError {
    /// The configuration is wrong, or what it names cannot be used.
    Config {
        /// What was being done, with which setting.
        doing: String,
        /// Why it failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A stage ended though nobody had asked it to.
    Stage(&'static str),
    /// The system refused something that every daemon needs.
    System(&'static str, io::Error),
}

/// Runs the daemon until it is told to stop; returns an exit code.
pub fn run(start: &Start<'_>) -> u8 {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(format!("cannot start the runtime: {error}"));
            return exit::TRY_AGAIN;
        }
    };
    match runtime.block_on(serve(start)) {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(chain(&error));
            error.exit_code()
        }
    }
}

/// Whether a daemon with these settings would start: everything they name is read, nothing made.
///
/// # Errors
/// With the setting that is wrong.
pub fn check(loaded: &Loaded) -> Result<(), DaemonError> {
    prepare::read(loaded).map(drop)
}

async fn serve(start: &Start<'_>) -> Result<(), DaemonError> {
    let (simulator, dir) = match &start.mode {
        Mode::Serve => (None, None),
        Mode::Dev(dir) => {
            (Some(stages::bind_simulator().await?), Some(DevDir::new(dir.as_deref())?))
        }
    };
    let base = match (&simulator, &dir) {
        (Some((_, address)), Some(dir)) => {
            let pair = dev::certificate(dir.path())
                .map_err(|error| DaemonError::System("make a certificate", error))?;
            dev::defaults(dir.path(), *address, &pair)
        }
        _ => Vec::new(),
    };
    let load = || {
        let mut loaded = load_over(&base, start.config_file.as_deref(), start.environment)?;
        loaded.find_secrets(start.environment)?;
        Ok::<_, DaemonError>(loaded)
    };
    let loaded = load()?;
    logging::start(&loaded.settings.log);
    prepare(&loaded)?;

    let mut signals = Signals::new()?;
    let bound = Bound::new(&loaded, simulator)?;
    let (stopper, stop) = shutdown();
    let mut stages = Stages::start(&loaded, bound, start.mode != Mode::Serve, stop).await?;
    systemd::ready();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        hostname = loaded.settings.hostname,
        data_dir = %loaded.settings.data_dir.display(),
        submission = ?loaded.settings.submission.listen,
        inbound = ?loaded.settings.inbound.listen,
        http = ?loaded.settings.http.listen,
        "ready"
    );
    if loaded.settings.relay.endpoint().is_none() {
        tracing::warn!("mail is held: no [relay] host is configured; set relay.host");
    }
    if start.mode != Mode::Serve {
        dev::print_hints(&loaded.settings)
            .map_err(|error| DaemonError::System("print what to try", error))?;
    }

    let ended = loop {
        tokio::select! {
            _ = signals.terminate.recv() => break Ok(()),
            _ = signals.interrupt.recv() => break Ok(()),
            _ = signals.hangup.recv() => stages.reload(load()),
            () = alive() => systemd::alive(),
            name = stages.one_ended() => break Err(DaemonError::Stage(name)),
        }
    };
    systemd::stopping();
    tracing::info!("stopping");
    stopper.stop();
    let limit = Duration::from_secs(loaded.settings.queue.drain_timeout_secs);
    stages.finish(limit.saturating_add(FINISH_GRACE_TIMEOUT)).await;
    tracing::info!("stopped");
    ended
}

/// Makes the data directory, readable by its owner alone, and tries to write there.
fn prepare(loaded: &Loaded) -> Result<(), DaemonError> {
    let dir = &loaded.settings.data_dir;
    let made = create_private_dir(dir).and_then(|()| writable(dir));
    made.map_err(|error| DaemonError::Config {
        doing: format!(
            "{}: `data_dir`: cannot write to {}; choose another or change its owner",
            loaded.source("data_dir"),
            dir.display()
        ),
        source: error.into(),
    })
}

fn writable(dir: &Path) -> io::Result<()> {
    let probe = dir.join(".writable");
    fs::write(&probe, b"")?;
    fs::remove_file(&probe)
}

/// Waits until the service manager wants to hear from us; for ever where it does not.
async fn alive() {
    match systemd::watchdog_interval() {
        Some(interval) => tokio::time::sleep(interval).await,
        None => std::future::pending().await,
    }
}

/// Where `rebound dev` keeps its data; a directory that we made goes when the daemon ends.
enum DevDir {
    Given(PathBuf),
    Temporary(PathBuf),
}

impl DevDir {
    fn new(given: Option<&Path>) -> Result<Self, DaemonError> {
        match given {
            Some(dir) => Ok(Self::Given(dir.to_owned())),
            None => dev::temporary_data_dir()
                .map(Self::Temporary)
                .map_err(|error| DaemonError::System("make a temporary directory", error)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(dir) | Self::Temporary(dir) => dir,
        }
    }
}

impl Drop for DevDir {
    fn drop(&mut self) {
        if let Self::Temporary(dir) = self
            && let Err(error) = fs::remove_dir_all(&*dir)
        {
            tracing::warn!(dir = %dir.display(), %error, "the temporary directory stays");
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let listen =
            |kind| signal(kind).map_err(|error| DaemonError::System("listen for signals", error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }
}

impl DaemonError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config { .. } => exit::CONFIG,
            Self::Stage(_) | Self::System(..) => exit::TRY_AGAIN,
        }
    }
}

impl From<ConfigError> for DaemonError {
    fn from(error: ConfigError) -> Self {
        Self::Config { doing: "configuration".to_owned(), source: error.into() }
    }
}

impl fmt::Display for DaemonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config { doing, .. } => f.write_str(doing),
            Self::Stage(name) => write!(f, "the {name} stage ended by itself; see the log above"),
            Self::System(doing, _) => write!(f, "cannot {doing}"),
        }
    }
}

impl std::error::Error for DaemonError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Config { source, .. } => Some(source.as_ref()),
            Self::System(_, source) => Some(source),
            Self::Stage(_) => None,
        }
    }
}

/// Beyond the drain time, for the stages to write down what they have.
const FINISH_GRACE_TIMEOUT: Duration = Duration::from_secs(10);
