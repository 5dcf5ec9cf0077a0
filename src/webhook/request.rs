//! Makes requests of events, signs them, and says what an answer means.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::HeaderMap;

use super::outbox::{Failure, Request};
use super::{Shared, Tested, WebhookError};
use crate::clock::{Clock, Stopwatch};
use crate::config::{Webhook, WebhookFormat};
use crate::mail::header::sanitized;
use crate::mail::{Timestamp, base64};
use crate::maillog::chain;
use crate::net::outgoing::{Answer, Post, Reach, Target, header_map};
use crate::net::tls::{ClientTls, Verify};
use crate::net::web::WebError;
use crate::secret::WebhookSecret;
use crate::view::Told;

/// Sends events to one endpoint; clones share it.
#[derive(Clone)]
pub(super) struct Sender {
    inner: Arc<Inner>,
}

struct Inner {
    target: Target,
    secret: WebhookSecret,
    /// The fields that are the same in every request.
    fields: HeaderMap,
    format: WebhookFormat,
    tls: ClientTls,
    reach: Reach,
    timeout: Duration,
    service_url: Option<String>,
    clock: Clock,
}

/// What an answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The event was taken.
    Taken,
    /// The other side wants no more of anything.
    Gone,
    /// It was not taken.
    Failed(Failure),
}

/// What is posted.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Message {
    id: String,
    body: String,
    /// Failed attempts before.
    attempts: u32,
    /// When the event happened.
    date: Timestamp,
}

/// What is the same in every request.
pub(super) struct Fixed {
    target: Target,
    fields: HeaderMap,
    tls: ClientTls,
}

impl Fixed {
    /// Reads certificates.
    pub(super) fn new(index: usize, settings: &Webhook) -> Result<Self, WebhookError> {
        let target = Target::parse(&settings.url).ok_or(WebhookError::ConfigUrl(index))?;
        let ca_file = Some(settings.tls_ca_file.as_path());
        let ca_file = ca_file.filter(|path| !path.as_os_str().is_empty());
        let tls = ClientTls::new(Verify::Yes, ca_file)
            .map_err(|error| WebhookError::ConfigTls(index, error))?;
        let login = target.login().map(|(name, password)| {
            format!("Basic {}", base64::encode(format!("{name}:{password}").as_bytes()))
        });
        let agent = concat!("rebound/", env!("CARGO_PKG_VERSION"));
        let own = [("content-type", "application/json"), ("user-agent", agent)];
        let login = login.as_deref().map(|login| ("authorization", login));
        let wanted = settings.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let fields = header_map(own.into_iter().chain(login).chain(wanted))
            .map_err(|name| WebhookError::ConfigHeader(index, name))?;
        Ok(Self { target, fields, tls })
    }
}

impl Sender {
    /// Reads certificates.
    pub(super) fn new(
        index: usize,
        settings: &Webhook,
        shared: &Shared,
    ) -> Result<Self, WebhookError> {
        let Fixed { target, fields, tls } = Fixed::new(index, settings)?;
        let secret = WebhookSecret::parse(&settings.secret)
            .map_err(|why| WebhookError::ConfigSecret(index, why))?;
        let reach = if settings.allow_private_networks { Reach::Private } else { Reach::Public };
        let service_url = Some(shared.service_url.clone()).filter(|url| !url.is_empty());
        let inner = Inner {
            target,
            secret,
            fields,
            format: settings.format,
            tls,
            reach,
            timeout: Duration::from_secs(settings.timeout_secs),
            service_url,
            clock: shared.clock.clone(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    pub(super) fn target(&self) -> &Target {
        &self.inner.target
    }

    /// Sends an event that has been tried so often before.
    pub(super) async fn send(&self, told: &Told, attempts: u32) -> (Outcome, Request) {
        self.post(&self.message(told, attempts)).await
    }

    /// Sends an event that is none.
    pub(super) async fn test(&self) -> Tested {
        let message = self.message(&Told::test(self.inner.clock.now()), 0);
        let (outcome, request) = self.post(&message).await;
        let error = match outcome {
            Outcome::Taken => None,
            Outcome::Gone => Some("410 Gone".to_owned()),
            Outcome::Failed(failure) => Some(failure.error),
        };
        Tested { status: request.status, error, took: request.took }
    }

    fn message(&self, told: &Told, attempts: u32) -> Message {
        let body = match self.inner.format {
            WebhookFormat::EmailEngine => told.body(self.inner.service_url.as_deref()),
            WebhookFormat::Events => told.entry(),
        };
        Message { id: told.id(), body: body.to_string(), attempts, date: told.date }
    }

    async fn post(&self, message: &Message) -> (Outcome, Request) {
        let inner = &self.inner;
        let mut headers = signed(message, &inner.secret, inner.clock.now());
        // What an operator wants in every request stands above what we put into it.
        headers.extend(inner.fields.iter().map(|(name, value)| (name.clone(), value.clone())));
        let post = Post {
            headers,
            body: Bytes::from(message.body.clone()),
            timeout: inner.timeout,
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let watch = Stopwatch::start();
        let answered = inner.target.post(post, &inner.tls, inner.reach).await;
        let status = answered.as_ref().ok().map(|answer| answer.status);
        let request = Request { status, took: watch.elapsed() };
        (outcome(answered, inner.clock.now()), request)
    }
}

/// The fields that name and sign a message: those of Standard Webhooks, and EmailEngine's.
fn signed(message: &Message, secret: &WebhookSecret, now: Timestamp) -> HeaderMap {
    let timestamp = (now.as_millis() / 1000).to_string();
    let standard = secret.sign_standard(&message.id, &timestamp, message.body.as_bytes());
    let emailengine = secret.sign_emailengine(message.body.as_bytes());
    let queued = format!("{}s", now.since(message.date).as_secs());
    let attempts = message.attempts.to_string();
    let fields = [
        ("webhook-id", message.id.as_str()),
        ("webhook-timestamp", &timestamp),
        ("webhook-signature", &standard),
        ("x-ee-wh-id", &message.id),
        ("x-ee-wh-event-id", &message.id),
        ("x-ee-wh-attempts-made", &attempts),
        ("x-ee-wh-queued-time", &queued),
        ("x-ee-wh-signature", &emailengine),
    ];
    // All of them are digits, letters and base64, which every field can hold.
    header_map(fields).unwrap_or_default()
}

fn outcome(answered: Result<Answer, WebError>, now: Timestamp) -> Outcome {
    let answer = match answered {
        Ok(answer) => answer,
        Err(error) => {
            return Outcome::Failed(Failure { error: chain(&error), retry_after: None });
        }
    };
    match answer.status {
        200..=299 => Outcome::Taken,
        410 => Outcome::Gone,
        status => {
            let said = String::from_utf8_lossy(&answer.body);
            let said = sanitized(said.trim());
            let error = match status {
                300..=399 => format!("{status}: redirects are not followed"),
                _ if said.is_empty() => format!("{status}"),
                _ => format!("{status}: {said}"),
            };
            let retry_after = answer.retry_after.filter(|_wait| matches!(status, 429 | 503));
            let retry_after = retry_after.and_then(|text| wait(&text, now));
            Outcome::Failed(Failure { error, retry_after })
        }
    }
}

/// The value of `Retry-After`: seconds, or a date (RFC 9110 §10.2.3).
fn wait(text: &str, now: Timestamp) -> Option<Duration> {
    match text.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_no_number) => Timestamp::parse_rfc5322(text.trim()).map(|until| until.since(now)),
    }
}

/// Octets of an answer that are read: enough for the words of an error.
const ANSWER_BYTES_MAX: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_665_576_640_980);

    fn answer(status: u16, retry_after: Option<&str>, body: &str) -> Result<Answer, WebError> {
        let retry_after = retry_after.map(str::to_owned);
        Ok(Answer { status, retry_after, body: Bytes::from(body.to_owned()) })
    }

    #[test]
    fn only_a_2xx_takes_an_event_and_only_a_410_ends_all() {
        let failed = |error: &str, secs: Option<u64>| {
            let retry_after = secs.map(Duration::from_secs);
            Outcome::Failed(Failure { error: error.to_owned(), retry_after })
        };
        for (answered, want) in [
            (answer(200, None, "ok"), Outcome::Taken),
            (answer(204, Some("9"), ""), Outcome::Taken),
            (answer(410, None, ""), Outcome::Gone),
            (answer(302, None, "x"), failed("302: redirects are not followed", None)),
            (answer(404, Some("9"), ""), failed("404", None)),
            (answer(500, None, " a\r\nb "), failed("500: a  b", None)),
            (answer(429, Some("7"), ""), failed("429", Some(7))),
            (answer(503, Some("Wed, 12 Oct 2022 12:10:50 GMT"), ""), failed("503", Some(9))),
            (answer(503, Some("Wed, 12 Oct 2022 12:10:30 GMT"), ""), failed("503", Some(0))),
            (answer(503, Some("soon"), ""), failed("503", None)),
        ] {
            let shown = format!("{answered:?}");
            let got = match outcome(answered, NOW) {
                Outcome::Failed(mut failure) => {
                    // A date has no milliseconds.
                    failure.retry_after =
                        failure.retry_after.map(|wait| Duration::from_secs(wait.as_secs()));
                    Outcome::Failed(failure)
                }
                other => other,
            };
            assert_eq!(got, want, "{shown}");
        }
    }

    #[test]
    fn a_message_is_named_and_signed_in_both_ways() {
        let secret = WebhookSecret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let message = Message {
            id: "0183cc1ab07400000007".to_owned(),
            body: "{}".to_owned(),
            attempts: 3,
            date: NOW.minus(Duration::from_secs(42)),
        };
        let fields = signed(&message, &secret, NOW);
        let field = |name: &str| fields.get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(field("webhook-id"), message.id);
        assert_eq!(field("webhook-timestamp"), "1665576640");
        let standard = secret.sign_standard(&message.id, "1665576640", b"{}");
        assert_eq!(field("webhook-signature"), standard);
        assert_eq!(field("x-ee-wh-signature"), secret.sign_emailengine(b"{}"));
        assert_eq!(field("x-ee-wh-attempts-made"), "3");
        assert_eq!(field("x-ee-wh-queued-time"), "42s");
    }
}
