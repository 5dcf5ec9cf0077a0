//! The stages: bound before anything starts, started together, ended together.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::prepare::{Prepared, given, wrong};
use super::{DaemonError, certificates, reload};
use crate::capture::{self, Capture, Forward};
use crate::clock::Clock;
use crate::config::{ForwardTo, Loaded, Settings, SuppressionMode};
use crate::http::{self, HttpState};
use crate::mail::Address;
use crate::metrics::Metrics;
use crate::net::listener::{BindError, Sockets};
use crate::net::memory::Memory;
use crate::net::shutdown::Shutdown;
use crate::net::tls::ServerTls;
use crate::queue;
use crate::relay::Relay;
use crate::secret::KeyRing;
use crate::store::{self, Store};
use crate::webhook::{self, Endpoints, Webhooks};
use crate::{dev, imap, inbound, submission};

/// Every socket, bound; a port that is taken stops the start before anything else begins.
pub(super) struct Bound {
    submission: submission::Listeners,
    inbound: inbound::Listeners,
    http: Vec<TcpListener>,
    simulator: Option<(TcpListener, SocketAddr)>,
}

/// What runs.
pub(super) struct Stages {
    tasks: JoinSet<&'static str>,
    store: Store,
    capture: Capture,
    settings: watch::Sender<Arc<Settings>>,
    tls: Option<Arc<ServerTls>>,
    relay: Relay,
}

/// What the stages share while they are started.
struct Parts {
    settings: Arc<Settings>,
    changes: watch::Receiver<Arc<Settings>>,
    clock: Clock,
    metrics: Metrics,
    keys: Arc<KeyRing>,
    store: Store,
    door: submission::Door,
    guards: submission::Guards,
    capture: Capture,
    tls: Option<Arc<ServerTls>>,
    relay: Relay,
    stop: Shutdown,
}

/// A listener for the simulator, on a free port of loopback.
pub(super) async fn bind_simulator() -> Result<(TcpListener, SocketAddr), DaemonError> {
    let bind = async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    };
    bind.await.map_err(|error| DaemonError::System("bind the simulator", error))
}

impl Bound {
    /// Binds what the settings name, or takes it over from systemd.
    pub(super) fn new(
        loaded: &Loaded,
        simulator: Option<(TcpListener, SocketAddr)>,
    ) -> Result<Self, DaemonError> {
        let mut sockets = Sockets::from_env();
        let settings = &loaded.settings;
        let mut tcp = |key: &str, addresses: &[SocketAddr], backlog: u32| {
            let bound = addresses.iter().map(|address| sockets.tcp(*address, backlog));
            bound.collect::<Result<Vec<_>, _>>().map_err(|error| not_bound(loaded, key, error))
        };
        let backlog = settings.submission.listen_backlog;
        let submission = submission::Listeners {
            plain: tcp("submission.listen", &settings.submission.listen, backlog)?,
            tls: tcp("submission.tls_listen", &settings.submission.tls_listen, backlog)?,
        };
        let inbound = &settings.inbound;
        let smtp = tcp("inbound.listen", &inbound.listen, inbound.listen_backlog)?;
        let http = tcp("http.listen", &settings.http.listen, HTTP_BACKLOG)?;
        let lmtp = given(&settings.inbound.lmtp_socket)
            .map(|path| sockets.unix(path))
            .transpose()
            .map_err(|error| not_bound(loaded, "inbound.lmtp_socket", error))?;
        for address in sockets.unused() {
            tracing::warn!(address, "no setting names this socket that systemd handed over");
        }
        Ok(Self { submission, inbound: inbound::Listeners { smtp, lmtp }, http, simulator })
    }
}

impl Stages {
    /// Opens the store and starts everything.
    pub(super) async fn start(
        loaded: &Loaded,
        bound: Bound,
        is_dev: bool,
        stop: Shutdown,
    ) -> Result<Self, DaemonError> {
        let (sender, changes) = watch::channel(Arc::new(loaded.settings.clone()));
        let parts = Parts::new(loaded, changes, stop).await?;
        let mut stages = Self {
            tasks: JoinSet::new(),
            store: parts.store.clone(),
            capture: parts.capture.clone(),
            settings: sender,
            tls: parts.tls.clone(),
            relay: parts.relay.clone(),
        };
        let Bound { submission, inbound, http, simulator } = bound;
        if let (Some((listener, _)), Some(inbound)) =
            (simulator, loaded.settings.inbound.listen.first())
        {
            let options = dev::Options {
                domain: loaded.settings.simulator.domain.clone(),
                inbound: *inbound,
                clock: parts.clock.clone(),
            };
            stages.spawn("simulator", dev::simulator(listener, options, parts.stop.requested()));
        }
        stages.spawn("submission", parts.submission(submission));
        stages.spawn("inbound", parts.inbound(inbound));
        stages.spawn("mailboxes", parts.mailboxes());
        stages.spawn("capture", parts.captures());
        stages.spawn("closing", parts.closing());
        stages.spawn("queue", parts.queue());
        let (webhooks, endpoints) = parts.webhooks(loaded)?;
        stages.spawn("webhooks", endpoints.run(parts.stop.clone()));
        stages.spawn("http", parts.http(http, webhooks, is_dev));
        stages.spawn("store", parts.watch_store());
        let (tls, changes) = (parts.tls.clone(), parts.changes.clone());
        stages.spawn("certificates", certificates::watch(tls, changes, parts.stop.clone()));
        stages.spawn("housekeeping", parts.housekeeping());
        Ok(stages)
    }

    /// The name of a stage that has ended though nobody had asked it to.
    ///
    /// A stage that panics ends as well: the process exits and the service manager restarts it.
    pub(super) async fn one_ended(&mut self) -> &'static str {
        match self.tasks.join_next().await {
            Some(Ok(name)) => name,
            Some(Err(error)) => {
                tracing::error!(%error, "a stage has failed");
                "failed"
            }
            None => std::future::pending().await,
        }
    }

    /// Takes over what may change while the daemon runs; the rest waits for a restart.
    pub(super) fn reload(&self, loaded: Result<Loaded, DaemonError>) {
        reload::apply(loaded, &self.settings, self.tls.as_deref(), &self.relay, &self.capture);
    }

    /// Waits for the stages within the limit, then closes the store.
    pub(super) async fn finish(mut self, limit: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!("a stage did not end in time and is dropped");
            self.tasks.shutdown().await;
        }
        self.store.close().await;
    }

    fn spawn<F>(&mut self, name: &'static str, stage: F)
    where
        F: Future + Send + 'static,
    {
        self.tasks.spawn(async move {
            stage.await;
            name
        });
    }
}

impl Parts {
    async fn new(
        loaded: &Loaded,
        changes: watch::Receiver<Arc<Settings>>,
        stop: Shutdown,
    ) -> Result<Self, DaemonError> {
        let settings = changes.borrow().clone();
        let clock = Clock::system();
        let metrics = Metrics::new();
        let Prepared { keys, rules, tls, relay } = Prepared::new(loaded, clock.now())?;
        let store = open_store(&settings, &clock).await.map_err(wrong(loaded, "data_dir"))?;
        store.count_in(metrics.clone());
        let options = capture_options(&settings);
        let capture = Capture::new(
            store.clone(),
            rules,
            Arc::clone(&keys),
            clock.clone(),
            metrics.clone(),
            options,
        );
        let door = submission::Door::new(store.clone(), clock.clone(), metrics.clone());
        let guards = submission::Guards::new(Arc::clone(&keys));
        Ok(Self {
            settings,
            changes,
            clock,
            metrics,
            keys,
            store,
            door,
            guards,
            capture,
            tls,
            relay,
            stop,
        })
    }

    fn submission(&self, listeners: submission::Listeners) -> impl Future + Send + use<> {
        let context = submission::Context {
            settings: self.changes.clone(),
            door: self.door.clone(),
            guards: self.guards.clone(),
            tls: self.tls.clone(),
        };
        submission::run(listeners, context, self.stop.clone())
    }

    fn inbound(&self, listeners: inbound::Listeners) -> impl Future + Send + use<> {
        let shared = inbound::Shared {
            store: self.store.clone(),
            keys: Arc::clone(&self.keys),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            caps: Arc::default(),
            memory: Memory::default(),
        };
        let context =
            inbound::Context { settings: self.changes.clone(), shared, tls: self.tls.clone() };
        inbound::run(listeners, context, self.stop.clone())
    }

    fn mailboxes(&self) -> impl Future + Send + use<> {
        let shared = imap::Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            keep: self.settings.retention.keep.duration(),
        };
        imap::run(self.settings.mailbox.clone(), shared, self.stop.clone())
    }

    fn captures(&self) -> impl Future + Send + use<> {
        inbound::capture_loop(self.store.clone(), self.capture.clone(), self.stop.clone())
    }

    fn closing(&self) -> impl Future + Send + use<> {
        let closer = capture::Closer {
            store: self.store.clone(),
            clock: self.clock.clone(),
            window: self.settings.bounces.window.duration(),
        };
        closer.run(self.stop.requested())
    }

    fn queue(&self) -> impl Future + Send + use<> {
        let context = queue::Context {
            settings: Arc::clone(&self.settings),
            clock: self.clock.clone(),
            store: self.store.clone(),
            capture: self.capture.clone(),
            keys: Arc::clone(&self.keys),
            relay: self.relay.clone(),
            metrics: self.metrics.clone(),
        };
        queue::run(context, self.stop.requested())
    }

    fn webhooks(&self, loaded: &Loaded) -> Result<(Webhooks, Endpoints), DaemonError> {
        let shared = webhook::Shared {
            store: self.store.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            service_url: self.settings.http.service_url.clone(),
        };
        Webhooks::new(&self.settings.webhook, &shared)
            .map_err(|error| wrong(loaded, &error.key())(error))
    }

    fn http(
        &self,
        listeners: Vec<TcpListener>,
        webhooks: Webhooks,
        is_dev: bool,
    ) -> impl Future + Send + use<> {
        let policy = match is_dev {
            true => http::auth::Policy::AnyToken,
            false => http::auth::Policy::Tokens,
        };
        let tokens = http::tokens::TokenFile::configured(&self.settings);
        let settings = &self.settings.http;
        let state = HttpState::new(http::Parts {
            store: self.store.clone(),
            capture: self.capture.clone(),
            clock: self.clock.clone(),
            metrics: self.metrics.clone(),
            auth: http::auth::Auth::new(tokens, policy),
            bounce_window: self.settings.bounces.window.duration(),
            request_limits: http::RequestLimits {
                per_minute_max: settings.requests_per_minute_max,
                look_ups_max: settings.look_ups_max_concurrent,
            },
            settings: self.changes.clone(),
            door: self.door.clone(),
            guards: self.guards.clone(),
            has_page: settings.ui,
            webhooks,
        });
        let limits = http::Limits {
            connections_max: settings.connections_max,
            connections_per_address_max: settings.connections_per_address_max,
            header_timeout: Duration::from_secs(settings.header_timeout_secs),
            write_timeout: Duration::from_secs(settings.write_timeout_secs),
        };
        http::run(listeners, state, limits, self.stop.requested())
    }

    /// Shows how the store is doing in the metrics, and says when the disk has become too full to
    /// take mail; ends when a thread of the store has died, so that the daemon does, too, and is
    /// started again.
    fn watch_store(&self) -> impl Future + Send + use<> {
        let (store, metrics, stop) = (self.store.clone(), self.metrics.clone(), self.stop.clone());
        let data_dir = self.settings.data_dir.clone();
        async move {
            let mut was_full = false;
            loop {
                let stats = store.stats();
                let free_bytes = stats.disk_free_bytes;
                metrics.store_gauges(stats.queue_len, free_bytes);
                let is_full = matches!(store.can_accept(0), Err(store::StoreError::DiskFull));
                let data_dir = data_dir.display();
                match (was_full, is_full) {
                    (false, true) => {
                        tracing::error!(%data_dir, free_bytes, "the disk is nearly full: no mail is taken");
                    }
                    (true, false) => {
                        tracing::info!(%data_dir, free_bytes, "the disk has room again: mail is taken");
                    }
                    _ => {}
                }
                was_full = is_full;
                if stats.health == store::Health::Dead {
                    return;
                }
                tokio::select! {
                    () = stop.requested() => return,
                    () = tokio::time::sleep(WATCH_INTERVAL) => {}
                }
            }
        }
    }

    /// Drops what is older than it is kept, once an hour.
    fn housekeeping(&self) -> impl Future + Send + use<> {
        let (store, stop) = (self.store.clone(), self.stop.clone());
        let policy = submission::suppression_policy(&self.settings.suppression);
        async move {
            loop {
                let store = store.clone();
                let tidied = move || store.prune().and_then(|()| store.forget_suppressions(policy));
                match tokio::task::spawn_blocking(tidied).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => tracing::error!(%error, "cannot drop what is too old"),
                    Err(error) => tracing::error!(%error, "dropping what is too old has failed"),
                }
                tokio::select! {
                    () = stop.requested() => return,
                    () = tokio::time::sleep(PRUNE_INTERVAL) => {}
                }
            }
        }
    }
}

async fn open_store(settings: &Settings, clock: &Clock) -> Result<Store, store::StoreError> {
    let options = store::Options {
        dir: settings.data_dir.clone(),
        keep: settings.retention.keep.duration(),
        bodies: settings.retention.bodies.duration(),
    };
    let clock = clock.clone();
    // Recovery reads the whole journal; a panic there is a defect and is passed on as one.
    match tokio::task::spawn_blocking(move || Store::open(&options, clock)).await {
        Ok(opened) => opened,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn capture_options(settings: &Settings) -> capture::Options {
    let forward_to = match &settings.return_path.forward_to {
        ForwardTo::Original => Forward::Original,
        ForwardTo::None => Forward::Nowhere,
        ForwardTo::Address(address) => Forward::To(address.clone()),
    };
    let own = &settings.return_path;
    capture::Options {
        forward_to,
        postmaster: Address::parse(&settings.postmaster).ok(),
        return_path: capture::ReturnPath {
            prefix: own.prefix.clone(),
            delimiter: own.delimiter,
            domain: own.domain.clone(),
            token_lifetime: own.token_lifetime.duration(),
        },
        bounce_window: settings.bounces.window.duration(),
        queue_lifetime: settings
            .queue
            .lifetime
            .duration()
            .saturating_add(settings.queue.send_at_max.duration()),
        low_confidence_changes_state: settings.bounces.low_confidence_changes_state,
        strikes_expire: (settings.suppression.mode != SuppressionMode::Off)
            .then(|| settings.suppression.expire.duration()),
    }
}

fn not_bound(loaded: &Loaded, key: &str, error: BindError) -> DaemonError {
    let variable = key.replace('.', "_").to_uppercase();
    DaemonError::Config {
        doing: format!("{}: `{key}` (or REBOUND_{variable})", loaded.source(key)),
        source: error.into(),
    }
}

/// Connections of HTTP clients that wait in the kernel to be taken.
const HTTP_BACKLOG: u32 = 1024;
/// How often the metrics of the store are brought up to date.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);
/// How often what is too old is dropped.
const PRUNE_INTERVAL: Duration = Duration::from_secs(3600);
