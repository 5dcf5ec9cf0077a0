//! The one part of the protocol that reads and writes.
//!
//! **Invariant:** every wait for the peer has a deadline that octets alone do not move: one for
//! each command, one for each block of a mail, one for the mail, one for each write.
//! **Invariant:** an idle connection owns no buffer: what is read lands on the stack first.

use std::future::{Future, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use samotop_core::smtp::DriverControl;
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout};

use super::service::{Peer, Service, SessionEnd, SessionOptions, Stream, Upgrade};
use super::session::{Channel, Expecting, Question, Session, Step};

/// Serves one connection until it ends.
///
/// STARTTLS is offered when there is an `upgrade`. On a connection that is TLS from its first
/// octet, `tls` names version and cipher and there is no `upgrade`.
/// When `shutdown` completes, the session ends with 421 before its next command; a mail that is
/// on its way in is finished first.
pub async fn serve<P: Stream, S: Service>(
    mut stream: P,
    peer: Peer,
    tls: Option<String>,
    options: Arc<SessionOptions>,
    upgrade: Option<Upgrade<P>>,
    service: &mut S,
    shutdown: impl Future<Output = ()> + Send,
) -> SessionEnd {
    let mut shutdown = pin!(shutdown);
    let channel = match &tls {
        Some(_) => Channel::Tls,
        None => Channel::Plain { local: peer.is_local(), starttls: upgrade.is_some() },
    };
    let mut session = Session::new(Arc::clone(&options), channel);
    if let Some(tls) = &tls {
        service.secured(tls);
    }
    session.greet();
    let conversation = Conversation { options: &options, session: &mut session, service };
    match (conversation.run(&mut stream, shutdown.as_mut()).await, upgrade) {
        (Pause::StartTls, Some(upgrade)) => match upgrade(stream).await {
            Ok(secured) => {
                let mut stream = secured.stream;
                session.secured();
                service.secured(&secured.tls);
                let conversation =
                    Conversation { options: &options, session: &mut session, service };
                match conversation.run(&mut stream, shutdown).await {
                    Pause::End(end) => end,
                    Pause::StartTls => SessionEnd::Refused,
                }
            }
            Err(error) => SessionEnd::TlsFailed(error),
        },
        (Pause::StartTls, None) => SessionEnd::Refused,
        (Pause::End(end), _) => end,
    }
}

/// The part of a session that is spoken over one stream.
struct Conversation<'a, S> {
    options: &'a SessionOptions,
    session: &'a mut Session,
    service: &'a mut S,
}

/// Why a conversation over one stream is over.
enum Pause {
    /// The session is over.
    End(SessionEnd),
    /// It goes on inside TLS.
    StartTls,
}

/// What ended a wait for the peer.
enum Wake {
    Read(io::Result<usize>),
    Deadline,
    Shutdown,
}

impl<S: Service> Conversation<'_, S> {
    async fn run<T: Stream>(
        mut self,
        stream: &mut T,
        shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> Pause {
        let pause = match self.converse(stream, shutdown).await {
            Ok(pause) => pause,
            Err(error) => Pause::End(broken(error)),
        };
        if self.session.abandon() {
            self.service.reset();
        }
        if let Pause::End(end) = &pause {
            close(stream, end).await;
        }
        pause
    }

    /// Goes on until the session is over, the stream breaks, or TLS is to begin.
    async fn converse<T: Stream>(
        &mut self,
        stream: &mut T,
        mut shutdown: Pin<&mut (impl Future<Output = ()> + Send)>,
    ) -> io::Result<Pause> {
        let mut deadlines = Deadlines::new();
        let mut sleep = pin!(sleep_until(deadlines.next));
        loop {
            match self.session.step() {
                Step::Ask(question) => {
                    ask(self.service, self.session, question).await;
                    continue;
                }
                Step::Write | Step::Read => {}
            }
            if let Some(pause) = self.write(stream).await? {
                return Ok(pause);
            }
            if deadlines.observe(self.session, self.options) {
                sleep.as_mut().reset(deadlines.next);
            }
            let may_stop = self.session.expecting() == Expecting::Line;
            let wake = tokio::select! {
                biased;
                () = shutdown.as_mut(), if may_stop => Wake::Shutdown,
                () = sleep.as_mut() => Wake::Deadline,
                read = read(stream, |octets| self.session.receive(octets)) => Wake::Read(read),
            };
            match wake {
                Wake::Read(Ok(0)) => return Ok(Pause::End(SessionEnd::PeerClosed)),
                Wake::Read(Ok(_)) => {}
                Wake::Read(Err(error)) => return Err(error),
                Wake::Deadline => self.session.time_out(),
                Wake::Shutdown => self.session.shut_down(),
            }
        }
    }

    /// Writes what is to be written; says when the conversation is over with that.
    async fn write<T: Stream>(&mut self, stream: &mut T) -> io::Result<Option<Pause>> {
        let output = self.session.take_output();
        if output.is_empty() {
            return Ok(None);
        }
        let limit = self.options.write_timeout;
        let mut pause = None;
        for control in output {
            match control {
                DriverControl::Response(octets) => {
                    let written = async {
                        stream.write_all(&octets).await?;
                        stream.flush().await
                    };
                    timeout(limit, written).await??;
                }
                DriverControl::StartTls => pause = Some(Pause::StartTls),
                DriverControl::Shutdown => {
                    let end = self.session.take_end().unwrap_or(SessionEnd::Refused);
                    pause = Some(Pause::End(end));
                }
            }
        }
        Ok(pause)
    }
}

/// When the peer must have done what is waited for.
struct Deadlines {
    next: Instant,
    message: Option<Instant>,
    progress: Option<u64>,
}

impl Deadlines {
    fn new() -> Self {
        Self { next: Instant::now(), message: None, progress: None }
    }

    /// Sets the next deadline if the session has moved; says whether it has.
    fn observe(&mut self, session: &Session, options: &SessionOptions) -> bool {
        let progress = Some(session.progress());
        if self.progress == progress {
            return false;
        }
        self.progress = progress;
        let now = Instant::now();
        match session.expecting() {
            Expecting::Line => {
                self.message = None;
                self.next = now + options.command_timeout;
            }
            Expecting::Data => {
                let message = *self.message.get_or_insert(now + options.message_timeout);
                self.next = message.min(now + options.data_timeout);
            }
        }
        true
    }
}

async fn ask<S: Service>(service: &mut S, session: &mut Session, question: Question) {
    let verdict = match question {
        Question::Hello(hello) => return service.hello(&hello),
        Question::Reset => return service.reset(),
        Question::End => {
            let replies = service.end().await;
            return session.ended(replies);
        }
        Question::Authenticate(credentials) => {
            service.authenticate(&credentials.username, &credentials.password).await
        }
        Question::Mail(mail) => service.mail(&mail).await,
        Question::Rcpt(recipient) => service.rcpt(&recipient).await,
        Question::Data => service.data().await,
        Question::Chunk => service.chunk(session.chunk()).await,
    };
    session.verdict(verdict);
}

/// Reads what there is, and no more than `READ_BYTES_MAX`; 0 octets are the end.
async fn read<T: Stream>(stream: &mut T, mut take: impl FnMut(&[u8])) -> io::Result<usize> {
    poll_fn(|context| {
        let mut octets = [MaybeUninit::uninit(); READ_BYTES_MAX];
        let mut buffer = ReadBuf::uninit(&mut octets);
        let polled = Pin::new(&mut *stream).poll_read(context, &mut buffer);
        polled.map_ok(|()| {
            take(buffer.filled());
            buffer.filled().len()
        })
    })
    .await
}

/// Closes the stream so that the last reply arrives.
///
/// Closing a socket with unread input resets the connection, and the client may never see why:
/// so a client that was sent away while it was still talking is listened to for a moment.
async fn close<T: Stream>(stream: &mut T, end: &SessionEnd) {
    let closed = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
    if matches!(closed, Ok(Ok(()))) && matches!(end, SessionEnd::Refused) {
        let drained = async {
            for _ in 0..LINGER_READS_MAX {
                if matches!(read(stream, |_| {}).await, Ok(0) | Err(_)) {
                    break;
                }
            }
        };
        drop(timeout(CLOSE_TIMEOUT, drained).await);
    }
}

/// A write that took too long is the peer's failure to read, not a broken connection.
fn broken(error: io::Error) -> SessionEnd {
    match error.kind() {
        io::ErrorKind::TimedOut => SessionEnd::TimedOut,
        _ => SessionEnd::Broken(error),
    }
}

/// Octets that are read at a time, on the stack.
const READ_BYTES_MAX: usize = 16_384;
/// For the last octets in both directions.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Reads that a client which was sent away is still listened to.
const LINGER_READS_MAX: u32 = 64;
