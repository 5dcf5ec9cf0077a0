//! Stage 7: webhooks. Each follows the feed by itself, with a cursor that survives a crash.
//!
//! The outbox is the feed: an event is in it by the write that made it true. `outbox` decides
//! what is sent when, `endpoint` does it, `request` makes requests of events, `about`
//! says what was told of one mail.
//! **Invariant:** the events of one mail are delivered in order, each at least once until it is
//! given up; those of other mails do not wait for them, and no endpoint waits for another.

mod about;
mod endpoint;
mod outbox;
mod request;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::config;
use crate::metrics::Metrics;
use crate::net::shutdown::Shutdown;
use crate::net::tls::TlsError;
use crate::store::{Store, StoreError};
use crate::view::WebhookStatus;
use endpoint::Endpoint;
use outbox::Outbox;
use request::{Fixed, Sender};

/// What the endpoints share.
#[derive(Clone)]
pub struct Shared {
    /// Where the feed is.
    pub store: Store,
    /// The time.
    pub clock: Clock,
    /// What is counted.
    pub metrics: Metrics,
    /// The value of `serviceUrl`; nothing where it is empty.
    pub service_url: String,
}

/// Every webhook, for those who ask about them; clones share it.
#[derive(Clone, Default)]
pub struct Webhooks {
    all: Arc<Vec<Known>>,
}

struct Known {
    settings: config::Webhook,
    sender: Sender,
    outbox: Arc<Mutex<Outbox>>,
    orders: mpsc::Sender<Order>,
}

/// The endpoints, ready to run.
pub struct Endpoints(Vec<Endpoint>);

/// Why webhooks cannot be used as they are configured.
#[derive(Debug)]
pub enum WebhookError {
    /// The URL cannot be asked.
    ConfigUrl(usize),
    /// The secret is none.
    ConfigSecret(usize, &'static str),
    /// A field of `headers` cannot stand in a request.
    ConfigHeader(usize, String),
    /// TLS cannot be used.
    ConfigTls(usize, TlsError),
}

/// What an endpoint is told to do.
enum Order {
    /// Deliver events once more.
    Replay(Replay, oneshot::Sender<Result<Replayed, StoreError>>),
    /// Go on after the other side had said that it is gone.
    Enable(oneshot::Sender<()>),
}

/// Which events are to be delivered once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The first place of the feed.
    pub from: u64,
    /// The last one.
    pub to: u64,
}

/// What is delivered once more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// How many events were put into the outbox; fewer are told where some are not wanted.
    pub queued: usize,
    /// The place up to which they were.
    pub end: u64,
    /// Whether more lie behind it, for which there was no room.
    pub has_more: bool,
}

/// What came of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tested {
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// Why it does not count as delivered.
    pub error: Option<String>,
    /// How long it took.
    pub took: Duration,
}

/// Why an order was not followed.
#[derive(Debug)]
pub enum OrderError {
    /// No webhook has this name.
    Unknown,
    /// The daemon stops.
    Stopping,
    /// The store cannot be read.
    Store(StoreError),
}

impl Webhooks {
    /// The webhooks of the settings, and what runs them. Reads certificates.
    ///
    /// # Errors
    /// When one of them cannot be used as it is configured.
    pub fn new(
        settings: &[config::Webhook],
        shared: &Shared,
    ) -> Result<(Self, Endpoints), WebhookError> {
        let mut all = Vec::new();
        let mut endpoints = Vec::new();
        for (index, one) in settings.iter().enumerate() {
            let sender = Sender::new(index, one, shared)?;
            let outbox = Arc::new(Mutex::new(Outbox::open(one, &shared.store)));
            let (orders, received) = mpsc::channel(ORDERS_MAX);
            endpoints.push(Endpoint::new(
                one.clone(),
                shared.clone(),
                sender.clone(),
                Arc::clone(&outbox),
                received,
            ));
            all.push(Known { settings: one.clone(), sender, outbox, orders });
        }
        Ok((Self { all: Arc::new(all) }, Endpoints(endpoints)))
    }

    /// How every webhook is doing, in the order of the settings.
    pub fn list(&self) -> Vec<WebhookStatus> {
        self.all.iter().map(Known::status).collect()
    }

    /// How the webhook of this name is doing.
    pub fn status(&self, name: &str) -> Option<WebhookStatus> {
        self.find(name).ok().map(Known::status)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Has events delivered once more; they are in the outbox, on disk, when this returns.
    ///
    /// # Errors
    /// When there is no such webhook, or it takes no orders.
    pub async fn replay(&self, name: &str, replay: Replay) -> Result<Replayed, OrderError> {
        let (answer, answered) = oneshot::channel();
        self.order(name, Order::Replay(replay, answer)).await?;
        let replayed = answered.await.map_err(|_gone| OrderError::Stopping)?;
        replayed.map_err(OrderError::Store)
    }

    /// Goes on with a webhook whose other side had said that it is gone.
    ///
    /// # Errors
    /// When there is no such webhook, or it takes no orders.
    pub async fn enable(&self, name: &str) -> Result<(), OrderError> {
        let (answer, answered) = oneshot::channel();
        self.order(name, Order::Enable(answer)).await?;
        answered.await.map_err(|_gone| OrderError::Stopping)
    }

    /// Sends an event that is none, past the outbox.
    ///
    /// # Errors
    /// When there is no such webhook.
    pub async fn test(&self, name: &str) -> Result<Tested, OrderError> {
        Ok(self.find(name)?.sender.test().await)
    }

    async fn order(&self, name: &str, order: Order) -> Result<(), OrderError> {
        let known = self.find(name)?;
        known.orders.send(order).await.map_err(|_gone| OrderError::Stopping)
    }

    fn find(&self, name: &str) -> Result<&Known, OrderError> {
        self.all.iter().find(|known| known.settings.name == name).ok_or(OrderError::Unknown)
    }
}

impl Known {
    fn status(&self) -> WebhookStatus {
        let outbox = locked(&self.outbox);
        WebhookStatus {
            name: self.settings.name.clone(),
            url: self.sender.target().to_string(),
            format: self.settings.format.as_str(),
            events: self.settings.events.clone(),
            accounts: self.settings.accounts.clone(),
            cursor: outbox.cursor().clone(),
            last_success: outbox.last_success(),
            last_error: outbox.last_error().cloned(),
        }
    }
}

impl Endpoints {
    /// Delivers until the daemon stops.
    pub async fn run(self, stop: Shutdown) {
        let mut running = JoinSet::new();
        for endpoint in self.0 {
            running.spawn(endpoint.run(stop.clone()));
        }
        // The stage lasts as long as the daemon, also without a webhook.
        stop.requested().await;
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a webhook has failed");
            }
        }
    }
}

impl std::fmt::Display for WebhookError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ConfigUrl(_) => {
                f.write_str("expected a URL such as https://app.example.com/hook")
            }
            Self::ConfigSecret(_, why) => f.write_str(why),
            Self::ConfigHeader(_, name) => write!(f, "`{name}` cannot stand in a request"),
            Self::ConfigTls(..) => f.write_str("TLS cannot be used"),
        }
    }
}

impl WebhookError {
    /// The dotted key of the setting.
    pub fn key(&self) -> String {
        match self {
            Self::ConfigUrl(index) => format!("webhook[{index}].url"),
            Self::ConfigSecret(index, _) => format!("webhook[{index}].secret"),
            Self::ConfigHeader(index, _) => format!("webhook[{index}].headers"),
            Self::ConfigTls(index, _) => format!("webhook[{index}].tls_ca_file"),
        }
    }
}

impl std::error::Error for WebhookError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ConfigTls(_, error) => Some(error),
            _ => None,
        }
    }
}

/// Whether the webhooks can be used as they are configured, but for their secrets.
///
/// # Errors
/// When one of them cannot.
pub fn check(settings: &[config::Webhook]) -> Result<(), WebhookError> {
    settings.iter().enumerate().try_for_each(|(index, one)| Fixed::new(index, one).map(|_| ()))
}

/// A panic of another task has left it whole: changes are small and complete.
fn locked(outbox: &Mutex<Outbox>) -> MutexGuard<'_, Outbox> {
    outbox.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Orders of one webhook that wait.
const ORDERS_MAX: usize = 16;
