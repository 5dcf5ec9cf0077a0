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
        None => Channel::Plain { starttls: upgrade.is_some() },
    };
    let mut session = Session::new(Arc::clone(&options), peer, channel);
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
        self.next = match session.expecting() {
            Expecting::Line => now + options.command_timeout,
            Expecting::Data => now + options.data_timeout,
        };
        if session.is_receiving() {
            let message = *self.message.get_or_insert(now + options.message_timeout);
            self.next = self.next.min(message);
        } else {
            self.message = None;
        }
        true
    }
}

async fn ask<S: Service>(service: &mut S, session: &mut Session, question: Question) {
    let verdict = match question {
        Question::Hello(hello) => return service.hello(&hello),
        Question::Reset => return service.reset(),
        Question::Introduced(peer) => {
            let auth = service.introduced(&peer);
            return session.introduced(peer, auth);
        }
        Question::End => {
            // In a box: it is what a service does most for, and idle connections need no room
            // for it.
            let replies = Box::pin(service.end()).await;
            return session.ended(replies);
        }
        Question::Authenticate(credentials) => {
            service.authenticate(&credentials.username, &credentials.password).await
        }
        Question::Challenge(username) => {
            let answer = service.challenge(&username).await;
            return session.challenged(answer);
        }
        Question::Prove(proof) => {
            let answer = service.prove(&proof).await;
            return session.proved(answer);
        }
        Question::Proved(username) => return service.proved(&username),
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, DuplexStream, duplex};
    use tokio::task::JoinHandle;

    use super::super::service::{Auth, BareNewline, Hello, MailCommand, Protocol};
    use super::*;
    use crate::mail::Reply;
    use crate::mail::envelope::Recipient;

    /// Takes everything.
    struct Open;

    impl Service for Open {
        fn hello(&mut self, _hello: &Hello) {}

        fn secured(&mut self, _tls: &str) {}

        fn introduced(&mut self, _peer: &Peer) -> Auth {
            Auth::None
        }

        async fn authenticate(&mut self, _username: &str, _password: &[u8]) -> Result<(), Reply> {
            Ok(())
        }

        async fn mail(&mut self, _mail: &MailCommand) -> Result<(), Reply> {
            Ok(())
        }

        async fn rcpt(&mut self, _recipient: &Recipient) -> Result<(), Reply> {
            Ok(())
        }

        async fn data(&mut self) -> Result<(), Reply> {
            Ok(())
        }

        async fn chunk(&mut self, _octets: &[u8]) -> Result<(), Reply> {
            Ok(())
        }

        async fn end(&mut self) -> Vec<Reply> {
            vec![super::super::reply::OK.into()]
        }

        fn reset(&mut self) {}
    }

    fn options() -> Arc<SessionOptions> {
        Arc::new(SessionOptions {
            hostname: "relay.example".to_owned(),
            protocol: Protocol::Smtp,
            auth: Auth::None,
            scram: false,
            xclient: false,
            message_bytes_max: 0,
            recipients_max: 10,
            transactions_max: 10,
            errors_max: 10,
            recipients_are_errors: true,
            idle_commands_max: 100_000,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            message_timeout: Duration::from_secs(3600),
            write_timeout: Duration::from_secs(60),
            dsn: false,
            bare_newline: BareNewline::Refuse,
        })
    }

    fn served<T: Stream + 'static>(stream: T) -> impl Future<Output = SessionEnd> + Send {
        let peer = Peer { address: None };
        async move {
            let stop = std::future::pending();
            serve(stream, peer, None, options(), None, &mut Open, stop).await
        }
    }

    /// Sends `piece` every second until the server closes; says how many seconds that took.
    async fn drip(mut client: DuplexStream, server: JoinHandle<SessionEnd>, piece: &[u8]) -> u64 {
        let started = Instant::now();
        while !server.is_finished() {
            drop(client.write_all(piece).await);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let seconds = started.elapsed().as_secs();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("421 4.4.2 Timeout, closing the connection\r\n"), "{said}");
        assert!(matches!(server.await.unwrap(), SessionEnd::TimedOut));
        seconds
    }

    const TO_DATA: &[u8] =
        b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: x\r\n\r\n";

    #[tokio::test(start_paused = true)]
    async fn a_command_that_drips_in_is_cut_off_at_its_deadline() {
        let (mut client, server) = duplex(65_536);
        let server = tokio::spawn(served(server));
        client.write_all(b"NOOP ").await.unwrap();
        let seconds = drip(client, server, b"x").await;
        assert!((300..=302).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_that_drips_in_is_cut_off_at_the_deadline_of_its_block() {
        let (mut client, server) = duplex(65_536);
        let server = tokio::spawn(served(server));
        client.write_all(TO_DATA).await.unwrap();
        let seconds = drip(client, server, b"x\r\n").await;
        assert!((180..=182).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_that_never_ends_is_cut_off_at_its_own_deadline() {
        let (mut client, server) = duplex(65_536);
        let server = tokio::spawn(served(server));
        client.write_all(TO_DATA).await.unwrap();
        let seconds = drip(client, server, &b"sixteen octets\r\n".repeat(100)).await;
        assert!((3600..=3602).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_mail_in_endless_pieces_is_cut_off_at_the_same_deadline() {
        let (mut client, server) = duplex(65_536 * 8);
        let server = tokio::spawn(served(server));
        client.write_all(b"EHLO c\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\n").await.unwrap();
        let seconds = drip(client, server, b"BDAT 1\r\nx").await;
        assert!((3600..=3602).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_reads_is_cut_off() {
        let (mut client, server) = duplex(64);
        let server = tokio::spawn(served(server));
        let started = Instant::now();
        let flood = b"NOOP\r\n".repeat(1000);
        assert!(client.write_all(&flood).await.is_err(), "the server must stop reading");
        assert!(matches!(server.await.unwrap(), SessionEnd::TimedOut));
        assert!((60..=62).contains(&started.elapsed().as_secs()));
    }

    /// Counts the writes of the server.
    struct Counting {
        inner: DuplexStream,
        writes: Arc<AtomicUsize>,
    }

    impl AsyncRead for Counting {
        fn poll_read(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            buffer: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_read(context, buffer)
        }
    }

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
            octets: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.writes.fetch_add(1, Ordering::SeqCst);
            Pin::new(&mut self.inner).poll_write(context, octets)
        }

        fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_flush(context)
        }

        fn poll_shutdown(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<io::Result<()>> {
            Pin::new(&mut self.inner).poll_shutdown(context)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn replies_to_pipelined_commands_leave_in_one_write() {
        let (mut client, inner) = duplex(65_536);
        let writes = Arc::new(AtomicUsize::new(0));
        let server = tokio::spawn(served(Counting { inner, writes: Arc::clone(&writes) }));
        let mut greeting = [0; 33];
        client.read_exact(&mut greeting).await.unwrap();
        assert!(greeting.ends_with(b"\r\n"));
        client.write_all(&[TO_DATA, b".\r\nQUIT\r\n"].concat()).await.unwrap();
        let mut said = String::new();
        client.read_to_string(&mut said).await.unwrap();
        assert!(said.ends_with("250 2.0.0 Ok\r\n221 2.0.0 Bye\r\n"), "{said}");
        assert!(matches!(server.await.unwrap(), SessionEnd::Quit));
        assert_eq!(writes.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_client_that_is_sent_away_while_it_talks_still_hears_why() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client =
            tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let server = tokio::spawn(served(server));
        let bad = [&b"FOO\r\n".repeat(10)[..], &b"NOOP\r\n".repeat(20_000)].concat();
        let (mut reader, mut writer) = client.split();
        let write = async { drop(writer.write_all(&bad).await) };
        let mut said = String::new();
        let (read, ()) = tokio::join!(reader.read_to_string(&mut said), write);
        assert!(read.is_ok(), "{read:?}");
        assert!(said.ends_with("421 4.7.0 Too many errors\r\n"), "{said}");
        assert!(matches!(server.await.unwrap(), SessionEnd::Refused));
    }

    #[test]
    fn a_connection_is_small() {
        let (_client, server) = duplex(1);
        let bytes = size_of_val(&served(server));
        assert!(bytes <= 4096, "{bytes} bytes");
    }
}
