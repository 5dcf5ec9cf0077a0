//! Counters and gauges, and their text for Prometheus.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// Everything that is counted; clones share the counters.
#[derive(Clone)]
pub struct Metrics {
    inner: Arc<Inner>,
}

/// Counts a connection as open, and as closed when it is dropped, also in a panic.
#[derive(Debug)]
#[must_use = "the connection counts as closed once this is dropped"]
pub struct OpenConnection {
    metrics: Metrics,
    server: &'static str,
}

struct Inner {
    registry: Registry,
    connections: Family<Server, Counter>,
    connections_refused: Family<Server, Counter>,
    connections_open: Family<Server, Gauge>,
    accepted: Counter,
    rejected: Family<Server, Counter>,
    auth_failed: Counter,
    auth_banned: Counter,
    tls_failed: Family<Server, Counter>,
    attempts: Family<Outcome, Counter>,
    bounces: Family<Bounced, Counter>,
    reports: Family<Verdict, Counter>,
    reports_dropped: Counter,
    reports_unmatched: Counter,
    store_writes: Counter,
    store_syncs: Counter,
    store_failures: Counter,
    sync_seconds: Histogram,
    queue_length: Gauge,
    disk_free_bytes: Gauge,
    apps: Apps,
    mailboxes: Mailboxes,
    webhooks: Webhooks,
}

/// What is counted of the webhooks.
struct Webhooks {
    deliveries: Family<WebhookOf, Counter>,
    waiting: Family<WebhookName, Gauge>,
}

/// What apps ask, and what they are not given.
struct Apps {
    http_requests: Family<Status, Counter>,
    suppressed: Family<Suppressed, Counter>,
}

/// What is counted of the mailboxes that reports arrive in.
struct Mailboxes {
    state: Family<MailboxIn, Gauge>,
    mails: Family<MailboxOf, Counter>,
    errors: Family<MailboxName, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Server {
    server: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Bounced {
    category: &'static str,
    source: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Verdict {
    verdict: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Suppressed {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MailboxName {
    mailbox: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MailboxIn {
    mailbox: String,
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MailboxOf {
    mailbox: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookName {
    webhook: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookOf {
    webhook: String,
    result: &'static str,
}

/// What became of a delivery to a webhook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebhookResult {
    /// It was taken.
    Taken,
    /// It was not, and is tried again.
    Failed,
    /// It was not, and was given up.
    GivenUp,
}

/// What became of a mail in a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailboxMail {
    /// Its header was looked at.
    Seen,
    /// It was read, because it might be a report.
    Read,
    /// It is a report and was captured.
    Captured,
    /// It is a report that had been captured before.
    Known,
    /// It cannot be read.
    Unreadable,
}

macro_rules! register {
    ($registry:ident, $($metric:ident: $name:literal, $help:literal;)*) => {
        $($registry.register($name, $help, $metric.clone());)*
    };
}

impl Metrics {
    /// A set of counters, all at zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("rebound");
        let connections = Family::default();
        let connections_refused = Family::default();
        let connections_open = Family::default();
        let accepted = Counter::default();
        let rejected = Family::default();
        let auth_failed = Counter::default();
        let auth_banned = Counter::default();
        let tls_failed = Family::default();
        let attempts = Family::default();
        let bounces = Family::default();
        let reports = Family::default();
        let reports_dropped = Counter::default();
        let reports_unmatched = Counter::default();
        let store_writes = Counter::default();
        let store_syncs = Counter::default();
        let store_failures = Counter::default();
        let sync_seconds = Histogram::new(exponential_buckets(0.000_1, 4.0, 9));
        let queue_length = Gauge::default();
        let disk_free_bytes = Gauge::default();
        register! { registry,
            connections: "connections", "Connections taken, by server";
            connections_refused: "connections_refused", "Connections refused over a limit";
            connections_open: "connections_open", "Connections open now";
            accepted: "messages_accepted", "Mails taken over from apps";
            rejected: "messages_rejected", "Mails, senders and recipients refused";
            auth_failed: "auth_failed", "Failed authentications";
            auth_banned: "auth_banned", "Addresses banned for failed authentications";
            tls_failed: "tls_failed", "Failed TLS handshakes";
            attempts: "attempts", "Delivery attempts, by what followed";
            bounces: "bounces", "Bounces captured";
            reports: "reports", "Reports captured, by what they are";
            reports_dropped: "reports_dropped", "Reports over a cap, taken but not stored";
            reports_unmatched: "reports_unmatched", "Reports that match no submission";
            store_writes: "store_writes", "Batches written to the journal";
            store_syncs: "store_syncs", "Syncs of the journal: fewer than writes when shared";
            store_failures: "store_failures", "Failed writes or syncs of the journal";
            sync_seconds: "store_sync_seconds", "How long a sync of the journal took";
            queue_length: "queue_length", "Mails in the queue";
            disk_free_bytes: "disk_free_bytes", "Free octets where the data is kept";
        }
        Self {
            inner: Arc::new(Inner {
                // In front of the registry, into which they go.
                apps: Apps::registered(&mut registry),
                mailboxes: Mailboxes::registered(&mut registry),
                webhooks: Webhooks::registered(&mut registry),
                registry,
                connections,
                connections_refused,
                connections_open,
                accepted,
                rejected,
                auth_failed,
                auth_banned,
                tls_failed,
                attempts,
                bounces,
                reports,
                reports_dropped,
                reports_unmatched,
                store_writes,
                store_syncs,
                store_failures,
                sync_seconds,
                queue_length,
                disk_free_bytes,
            }),
        }
    }

    /// All counters in the text form of Prometheus.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        encode(&mut text, &self.inner.registry).map_or_else(|_e| String::new(), |()| text)
    }

    /// A server took a connection; it counts as open for as long as the guard lives.
    pub fn connection_opened(&self, server: &'static str) -> OpenConnection {
        self.inner.connections.get_or_create(&Server { server }).inc();
        self.inner.connections_open.get_or_create(&Server { server }).inc();
        OpenConnection { metrics: self.clone(), server }
    }

    /// A server refused a connection over a limit.
    pub fn connection_refused(&self, server: &'static str) {
        self.inner.connections_refused.get_or_create(&Server { server }).inc();
    }

    /// A mail was taken over from an app.
    pub fn message_accepted(&self) {
        self.inner.accepted.inc();
    }

    /// A mail, a sender or a recipient was refused.
    pub fn message_rejected(&self, server: &'static str) {
        self.inner.rejected.get_or_create(&Server { server }).inc();
    }

    /// A suppressed recipient was `refused`, or `observed` where it would have been.
    pub fn recipient_suppressed(&self, result: &'static str) {
        self.inner.apps.suppressed.get_or_create(&Suppressed { result }).inc();
    }

    /// An authentication failed.
    pub fn auth_failed(&self) {
        self.inner.auth_failed.inc();
    }

    /// An address was banned for failed authentications.
    pub fn address_banned(&self) {
        self.inner.auth_banned.inc();
    }

    /// A TLS handshake failed.
    pub fn tls_failed(&self, server: &'static str) {
        self.inner.tls_failed.get_or_create(&Server { server }).inc();
    }

    /// An attempt ended: `relayed`, `deferred`, `failed` or `expired`.
    pub fn attempt_ended(&self, outcome: &'static str) {
        self.inner.attempts.get_or_create(&Outcome { outcome }).inc();
    }

    /// A bounce was captured.
    pub fn bounce_captured(&self, category: &'static str, source: &'static str) {
        self.inner.bounces.get_or_create(&Bounced { category, source }).inc();
    }

    /// A report was captured.
    pub fn report_captured(&self, verdict: &'static str) {
        self.inner.reports.get_or_create(&Verdict { verdict }).inc();
    }

    /// A report over a cap was taken and not stored.
    pub fn report_dropped(&self) {
        self.inner.reports_dropped.inc();
    }

    /// A report matched nothing.
    pub fn report_unmatched(&self) {
        self.inner.reports_unmatched.inc();
    }

    /// The journal was synced once for so many batches.
    pub fn store_synced(&self, batches: u64, seconds: f64) {
        self.inner.store_writes.inc_by(batches);
        self.inner.store_syncs.inc();
        self.inner.sync_seconds.observe(seconds);
    }

    /// A write or sync of the journal failed.
    pub fn store_failed(&self) {
        self.inner.store_failures.inc();
    }

    /// Mails in the queue now, and free octets where the data is kept.
    pub fn store_gauges(&self, queue_length: usize, disk_free_bytes: u64) {
        self.inner.queue_length.set(i64::try_from(queue_length).unwrap_or(i64::MAX));
        self.inner.disk_free_bytes.set(i64::try_from(disk_free_bytes).unwrap_or(i64::MAX));
    }

    /// A mailbox is in this state now, and in no other.
    pub fn mailbox_state(&self, mailbox: &str, state: &'static str) {
        for known in MAILBOX_STATES {
            let labels = MailboxIn { mailbox: mailbox.to_owned(), state: known };
            let gauge = self.inner.mailboxes.state.get_or_create(&labels);
            gauge.set(i64::from(*known == state));
        }
    }

    /// So many mails of a mailbox came to this.
    pub fn mailbox_mails(&self, mailbox: &str, what: MailboxMail, mails: u64) {
        let result = match what {
            MailboxMail::Seen => "seen",
            MailboxMail::Read => "read",
            MailboxMail::Captured => "captured",
            MailboxMail::Known => "known",
            MailboxMail::Unreadable => "unreadable",
        };
        let labels = MailboxOf { mailbox: mailbox.to_owned(), result };
        self.inner.mailboxes.mails.get_or_create(&labels).inc_by(mails);
    }

    /// Something failed with a mailbox.
    pub fn mailbox_failed(&self, mailbox: &str) {
        let labels = MailboxName { mailbox: mailbox.to_owned() };
        self.inner.mailboxes.errors.get_or_create(&labels).inc();
    }

    /// A delivery to a webhook ended so.
    pub fn webhook_delivered(&self, webhook: &str, result: WebhookResult) {
        let result = match result {
            WebhookResult::Taken => "taken",
            WebhookResult::Failed => "failed",
            WebhookResult::GivenUp => "given_up",
        };
        let labels = WebhookOf { webhook: webhook.to_owned(), result };
        self.inner.webhooks.deliveries.get_or_create(&labels).inc();
    }

    /// So many deliveries to a webhook wait or fail.
    pub fn webhook_waiting(&self, webhook: &str, deliveries: usize) {
        let labels = WebhookName { webhook: webhook.to_owned() };
        let deliveries = i64::try_from(deliveries).unwrap_or(i64::MAX);
        self.inner.webhooks.waiting.get_or_create(&labels).set(deliveries);
    }

    /// An HTTP request was answered.
    pub fn http_answered(&self, status: u16) {
        self.inner.apps.http_requests.get_or_create(&Status { status }).inc();
    }
}

impl Apps {
    fn registered(registry: &mut Registry) -> Self {
        let http_requests = Family::default();
        let suppressed = Family::default();
        register! { registry,
            http_requests: "http_requests", "HTTP requests, by status";
            suppressed: "suppressed", "Suppressed recipients that were refused, or would have been";
        }
        Self { http_requests, suppressed }
    }
}

impl Webhooks {
    fn registered(registry: &mut Registry) -> Self {
        let deliveries = Family::default();
        let waiting = Family::default();
        register! { registry,
            deliveries: "webhook_deliveries", "Deliveries to a webhook, by what became of them";
            waiting: "webhook_waiting", "Deliveries to a webhook that wait or are tried again";
        }
        Self { deliveries, waiting }
    }
}

impl Mailboxes {
    fn registered(registry: &mut Registry) -> Self {
        let state = Family::default();
        let mails = Family::default();
        let errors = Family::default();
        register! { registry,
            state: "mailbox_state", "1 for the state that a mailbox is in";
            mails: "mailbox_mails", "Mails of a mailbox, by what became of them";
            errors: "mailbox_errors", "Failures with a mailbox";
        }
        Self { state, mails, errors }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let server = Server { server: self.server };
        self.metrics.inner.connections_open.get_or_create(&server).dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// The states of a mailbox, as look-ups name them.
const MAILBOX_STATES: &[&str] = &[
    "init",
    "connecting",
    "syncing",
    "connected",
    "authenticationError",
    "connectError",
    "disconnected",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_stands_in_the_text() {
        let metrics = Metrics::new();
        metrics.message_accepted();
        let open = metrics.connection_opened("submission");
        metrics.store_synced(16, 0.001);
        let text = metrics.text();
        for line in [
            "rebound_messages_accepted_total 1",
            "rebound_connections_open{server=\"submission\"} 1",
            "rebound_store_writes_total 16",
            "rebound_store_syncs_total 1",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
        drop(open);
        let text = metrics.text();
        for line in [
            "rebound_connections_total{server=\"submission\"} 1",
            "rebound_connections_open{server=\"submission\"} 0",
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
