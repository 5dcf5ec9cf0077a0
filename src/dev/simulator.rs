//! The simulator: an SMTP server that does what the recipient's address asks for.

use std::collections::HashSet;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::cli::chain;
use crate::clock::Clock;
use crate::mail::envelope::Recipient;
use crate::mail::{Address, EnhancedStatus, Reply, ReversePath, Timestamp};
use crate::smtp::{
    Auth, BareNewline, Hello, MailCommand, Peer, Protocol, Service, SessionEnd, SessionOptions,
};

use super::address::{Behaviour, RefuseAt, RefuseTimes, ReportKind, behaviour};
use super::client::{Client, ClientError};
use super::report::{Subject, compose};

/// What the simulator must know.
#[derive(Clone, Debug)]
pub struct Options {
    /// The domain whose addresses ask for something; `sim.test` by default.
    pub domain: String,
    /// The inbound listener, where reports are sent.
    pub inbound: SocketAddr,
    /// The clock.
    pub clock: Clock,
}

/// Serves connections until `shutdown` completes; reports that are not sent by then are dropped.
pub async fn simulator(
    listener: TcpListener,
    options: Options,
    shutdown: impl Future<Output = ()> + Send,
) {
    let shared = Arc::new(Shared {
        session: Arc::new(session_options(&options.domain)),
        options,
        refused_once: Mutex::default(),
        mails: AtomicU64::new(0),
        reports: Arc::new(Semaphore::new(REPORTS_PENDING_MAX)),
    });
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(());
    let accepting = async {
        while let Ok(permit) = Arc::clone(&connections).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let serving = serve(stream, peer, Arc::clone(&shared), stopped.clone(), permit);
                    tokio::spawn(serving);
                }
                Err(error) => {
                    tracing::warn!(%error, "the simulator cannot take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accepting => {}
        () = shutdown => {}
    }
    // Sessions and reports that wait see the sender go.
    drop(stop);
}

/// What all connections share.
struct Shared {
    options: Options,
    session: Arc<SessionOptions>,
    /// Reverse-path and recipient of the mails that have been refused once.
    refused_once: Mutex<HashSet<(String, String)>>,
    mails: AtomicU64,
    /// Room for reports that wait for their time.
    reports: Arc<Semaphore>,
}

async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    stopped: watch::Receiver<()>,
    permit: OwnedSemaphorePermit,
) {
    let session = Arc::clone(&shared.session);
    let peer = Peer { address: Some(peer.ip()) };
    let mut stopping = stopped.clone();
    let shutdown = async move {
        // The sender never sends: this returns when it is dropped.
        while stopping.changed().await.is_ok() {}
    };
    let mut service = Simulated { shared, stopped, mail: None };
    let end = crate::smtp::serve(stream, peer, None, session, None, &mut service, shutdown).await;
    if let SessionEnd::Broken(error) = end {
        tracing::debug!(%error, "a connection to the simulator broke");
    }
    drop(permit);
}

/// One connection.
struct Simulated {
    shared: Arc<Shared>,
    stopped: watch::Receiver<()>,
    mail: Option<Mail>,
}

/// One transaction.
struct Mail {
    reverse_path: ReversePath,
    recipients: Vec<(Address, Behaviour)>,
    /// Its first `RETURNED_BYTES_MAX` octets, for the reports.
    octets: Vec<u8>,
}

/// A report that waits for its time.
struct PendingReport {
    kind: ReportKind,
    after: Duration,
    to: Address,
    about: Address,
    queue_id: String,
    arrived_at: Timestamp,
    returned: Arc<Vec<u8>>,
}

impl Service for Simulated {
    fn hello(&mut self, _hello: &Hello) {}

    fn secured(&mut self, _tls: &str) {}

    fn introduced(&mut self, _peer: &Peer) -> Auth {
        Auth::None
    }

    async fn authenticate(&mut self, _username: &str, _password: &[u8]) -> Result<(), Reply> {
        Err(Reply::new(503, EnhancedStatus::new(5, 5, 1), "AUTH is not offered here"))
    }

    async fn mail(&mut self, mail: &MailCommand) -> Result<(), Reply> {
        let reverse_path = mail.reverse_path.clone();
        if let Some(from) = reverse_path.address()
            && let Behaviour::Refuse { reply, at: RefuseAt::Mail, times } = self.behaviour(from)
            && self.shared.refuses(&reverse_path, from, times)
        {
            return Err(reply);
        }
        self.mail = Some(Mail { reverse_path, recipients: Vec::new(), octets: Vec::new() });
        Ok(())
    }

    async fn rcpt(&mut self, recipient: &Recipient) -> Result<(), Reply> {
        let address = recipient.address.clone();
        let behaviour = self.behaviour(&address);
        let Some(mail) = &mut self.mail else { return Err(no_transaction()) };
        if let Behaviour::Refuse { reply, at: RefuseAt::Rcpt, times } = &behaviour
            && self.shared.refuses(&mail.reverse_path, &address, *times)
        {
            return Err(reply.clone());
        }
        mail.recipients.push((address, behaviour));
        Ok(())
    }

    async fn data(&mut self) -> Result<(), Reply> {
        self.refusal_at(RefuseAt::Data).map_or(Ok(()), Err)
    }

    async fn chunk(&mut self, octets: &[u8]) -> Result<(), Reply> {
        if let Some(mail) = &mut self.mail {
            let room = RETURNED_BYTES_MAX.saturating_sub(mail.octets.len());
            mail.octets.extend(octets.iter().take(room));
        }
        Ok(())
    }

    async fn end(&mut self) -> Vec<Reply> {
        let refusal = self.refusal_at(RefuseAt::End);
        let Some(mail) = self.mail.take() else { return vec![no_transaction()] };
        vec![refusal.unwrap_or_else(|| self.take(mail))]
    }

    fn reset(&mut self) {
        self.mail = None;
    }
}

impl Simulated {
    /// What an address asks for; one outside our domain asks for nothing.
    fn behaviour(&self, address: &Address) -> Behaviour {
        if address.domain().eq_ignore_ascii_case(&self.shared.options.domain) {
            behaviour(address.local_part())
        } else {
            Behaviour::Take
        }
    }

    /// The refusal that a recipient of the mail asks for at this point.
    fn refusal_at(&self, point: RefuseAt) -> Option<Reply> {
        let mail = self.mail.as_ref()?;
        mail.recipients.iter().find_map(|(address, behaviour)| match behaviour {
            Behaviour::Refuse { reply, at, times }
                if *at == point && self.shared.refuses(&mail.reverse_path, address, *times) =>
            {
                Some(reply.clone())
            }
            _ => None,
        })
    }

    /// Takes the mail over: it is gone, and what was asked to be reported will be.
    fn take(&self, mail: Mail) -> Reply {
        let now = self.shared.options.clock.now();
        let number = self.shared.mails.fetch_add(1, Ordering::Relaxed);
        let queue_id = format!("{:X}{:04X}", now.as_millis(), number % 0x1_0000);
        let returned = Arc::new(mail.octets);
        for (about, behaviour) in mail.recipients {
            let Behaviour::Report { report: kind, after } = behaviour else { continue };
            // RFC 5321 §4.5.5: nothing is reported about a mail with a null reverse-path.
            let Some(to) = mail.reverse_path.address().cloned() else { continue };
            let Ok(room) = Arc::clone(&self.shared.reports).try_acquire_owned() else {
                let status = EnhancedStatus::new(4, 3, 1);
                return Reply::new(452, status, "Too many simulated reports are waiting");
            };
            let report = PendingReport {
                kind,
                after,
                to,
                about,
                queue_id: queue_id.clone(),
                arrived_at: now,
                returned: Arc::clone(&returned),
            };
            tokio::spawn(report_later(
                report,
                self.shared.options.clone(),
                self.stopped.clone(),
                room,
            ));
        }
        let text = format!("Ok: queued as {queue_id}");
        Reply::new(250, EnhancedStatus::new(2, 0, 0), text)
    }
}

impl Shared {
    /// Whether this try is refused: a `once` address takes every second try of a mail.
    fn refuses(&self, from: &ReversePath, to: &Address, times: RefuseTimes) -> bool {
        if times == RefuseTimes::Always {
            return true;
        }
        let mut seen = self.refused_once.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (from.to_string(), to.canonical());
        if seen.remove(&key) {
            return false;
        }
        if seen.len() >= REFUSED_ONCE_MAX {
            seen.clear();
        }
        seen.insert(key)
    }
}

async fn report_later(
    report: PendingReport,
    options: Options,
    mut stopped: watch::Receiver<()>,
    room: OwnedSemaphorePermit,
) {
    let sending = async {
        tokio::time::sleep(report.after).await;
        for pause in RETRY_AFTER {
            match send(&report, &options).await {
                Ok(()) => return,
                Err(error) if is_final(&error) => {
                    tracing::warn!(%error, to = %report.to, "a simulated report was not taken");
                    return;
                }
                Err(error) => {
                    let error = chain(&error);
                    tracing::debug!(error, to = %report.to, "a report is sent again");
                }
            }
            tokio::time::sleep(pause).await;
        }
        tracing::warn!(to = %report.to, "a simulated report could not be sent");
    };
    tokio::select! {
        () = sending => {}
        _ = stopped.changed() => {}
    }
    drop(room);
}

async fn send(report: &PendingReport, options: &Options) -> Result<(), ClientError> {
    let mail = compose(&Subject {
        kind: report.kind,
        reverse_path: report.to.as_str(),
        recipient: report.about.as_str(),
        queue_id: &report.queue_id,
        arrived_at: report.arrived_at,
        now: options.clock.now(),
        returned: &report.returned,
        domain: &options.domain,
    });
    let name = format!("mx.{}", options.domain);
    let mut client = Client::connect(&options.inbound.to_string(), &name).await?;
    client.send(&ReversePath::NULL, std::slice::from_ref(&report.to), &mail).await?;
    client.quit().await
}

fn is_final(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { reply, .. } if reply.code >= 500)
}

fn no_transaction() -> Reply {
    Reply::new(503, EnhancedStatus::new(5, 5, 1), "There is no transaction")
}

fn session_options(domain: &str) -> SessionOptions {
    SessionOptions {
        hostname: format!("mx.{domain}"),
        protocol: Protocol::Smtp,
        auth: Auth::None,
        scram: false,
        xclient: false,
        message_bytes_max: MESSAGE_BYTES_MAX,
        recipients_max: 1_000,
        transactions_max: 100_000,
        errors_max: 1_000,
        recipients_are_errors: true,
        idle_commands_max: 1_000,
        command_timeout: Duration::from_secs(300),
        data_timeout: Duration::from_secs(180),
        message_timeout: Duration::from_secs(3_600),
        write_timeout: Duration::from_secs(60),
        // It throws mail away, and so does not promise to tell of deliveries.
        dsn: false,
        bare_newline: BareNewline::Refuse,
    }
}

const CONNECTIONS_MAX: usize = 1_000;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// As large as `submission.message_bytes_max` may sensibly be set.
const MESSAGE_BYTES_MAX: u64 = 1_073_741_824;
/// Postfix returns as much (`bounce_size_limit`).
const RETURNED_BYTES_MAX: usize = 50_000;
const REPORTS_PENDING_MAX: usize = 1_000;
const REFUSED_ONCE_MAX: usize = 10_000;
const RETRY_AFTER: [Duration; 5] = [
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::sync::oneshot;

    /// A simulator that runs until the returned sender is dropped.
    async fn start(inbound: SocketAddr) -> (String, oneshot::Sender<()>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let clock = Clock::system();
        let options = Options { domain: "sim.test".to_owned(), inbound, clock };
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(simulator(listener, options, async move { drop(stopped.await) }));
        (address, stop)
    }

    /// What one mail is answered.
    async fn answer(server: &str, from: &str, to: &str) -> Result<u16, (String, u16)> {
        let from = ReversePath::Address(Address::parse(from).unwrap());
        let to = Address::parse(to).unwrap();
        let mut client = Client::connect(server, "client.test").await.unwrap();
        match client.send(&from, &[to], b"Subject: x\r\n\r\nHello.\r\n").await {
            Ok(sent) => Ok(sent.reply.code),
            Err(ClientError::Refused { command, reply }) => {
                let verb = command.split(':').next().unwrap().to_owned();
                Err((verb, reply.code))
            }
            Err(other) => panic!("{other}"),
        }
    }

    /// Takes one mail and returns its lines, the commands included.
    async fn take_one(listener: TcpListener) -> Vec<String> {
        let (stream, _) = listener.accept().await.unwrap();
        let (read, mut write) = stream.into_split();
        write.write_all(b"220 x\r\n").await.unwrap();
        let (mut lines, mut said) = (BufReader::new(read).lines(), Vec::new());
        let mut in_data = false;
        while let Some(line) = lines.next_line().await.unwrap() {
            let reply = match (in_data, line.as_str()) {
                (true, ".") => {
                    in_data = false;
                    "250 taken\r\n"
                }
                (true, _) => "",
                (false, "DATA") => {
                    in_data = true;
                    "354 go\r\n"
                }
                (false, "QUIT") => return said,
                (false, _) => "250 ok\r\n",
            };
            write.write_all(reply.as_bytes()).await.unwrap();
            said.push(line);
        }
        said
    }

    #[tokio::test]
    async fn each_address_is_answered_as_it_asks_where_it_asks() {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let (server, _stop) = start(nobody).await;
        let refused = |command: &str, code| Err((command.to_owned(), code));
        for (from, to, want) in [
            ("a@app.test", "ok@sim.test", Ok(250)),
            ("a@app.test", "550-5.1.1@elsewhere.test", Ok(250)),
            ("a@app.test", "550-5.1.1@SIM.test", refused("RCPT TO", 550)),
            ("a@app.test", "452-4.2.2@sim.test", refused("RCPT TO", 452)),
            ("a@app.test", "452-4.2.2@sim.test", refused("RCPT TO", 452)),
            ("a@app.test", "554-5.7.1-at-data@sim.test", refused("DATA", 554)),
            ("a@app.test", "554-5.7.1-at-end@sim.test", refused("the end of the data", 554)),
            ("550-5.7.1-at-mail@sim.test", "ok@sim.test", refused("MAIL FROM", 550)),
            ("a@app.test", "450-4.2.0-once@sim.test", refused("RCPT TO", 450)),
            ("b@app.test", "450-4.2.0-once@sim.test", refused("RCPT TO", 450)),
            ("a@app.test", "450-4.2.0-once@sim.test", Ok(250)),
            ("a@app.test", "450-4.2.0-once@sim.test", refused("RCPT TO", 450)),
        ] {
            assert_eq!(answer(&server, from, to).await, want, "{from} {to}");
        }
    }

    #[tokio::test]
    async fn a_report_goes_from_the_null_path_to_the_reverse_path() {
        let inbound = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (server, _stop) = start(inbound.local_addr().unwrap()).await;
        let taken = answer(&server, "b+tok@bounces.test", "dsn-5.2.2-after-0s@sim.test").await;
        assert_eq!(taken, Ok(250));
        let said = tokio::time::timeout(Duration::from_secs(20), take_one(inbound)).await.unwrap();
        for line in
            ["MAIL FROM:<>", "RCPT TO:<b+tok@bounces.test>", "Action: failed", "Status: 5.2.2"]
        {
            assert!(said.iter().any(|have| have == line), "{line} in {said:#?}");
        }
    }
}
