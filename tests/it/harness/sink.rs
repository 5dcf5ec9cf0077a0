//! A next hop that keeps every mail octet for octet, and answers what a test wants.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::free_listener;

/// A mail as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Mail {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    pub(crate) octets: Vec<u8>,
    /// What came in after DATA: its octets with stuffed dots and the end.
    pub(crate) wire: Vec<u8>,
    /// Pieces that it came in by BDAT; none by DATA.
    pub(crate) chunks: u32,
}

impl Mail {
    /// One that begins with MAIL.
    fn new(from: String) -> Self {
        Self { from, to: Vec::new(), octets: Vec::new(), wire: Vec::new(), chunks: 0 }
    }
}

/// Where the sink asks what to answer.
pub(crate) enum Point<'a> {
    Rcpt(&'a str),
    Data,
    End(&'a Mail),
}

/// What it answers.
pub(crate) enum Answer {
    Accept,
    /// Takes the mail with a reply of the test's own.
    AcceptAs(&'static str),
    Reply(&'static str),
    /// Closes the connection without a word.
    Drop,
    /// Keeps the mail and closes the connection before the reply.
    TakeAndDrop,
}

/// What a sink answers at each point; the number counts the calls for the same point and address.
pub(crate) type Script = Box<dyn Fn(&Point<'_>, u32) -> Answer + Send + Sync>;

/// A running sink.
pub(crate) struct Sink {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    mails: Mutex<Vec<Mail>>,
    arrived: Condvar,
    calls: Mutex<BTreeMap<String, u32>>,
    script: Script,
    stopped: AtomicBool,
    connections: Mutex<Vec<TcpStream>>,
}

impl Sink {
    /// A sink that takes everything.
    pub(crate) fn start() -> Self {
        Self::scripted(Box::new(|_, _| Answer::Accept))
    }

    pub(crate) fn scripted(script: Script) -> Self {
        let listener = free_listener();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            mails: Mutex::default(),
            arrived: Condvar::new(),
            calls: Mutex::default(),
            script,
            stopped: AtomicBool::new(false),
            connections: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.unwrap(), Arc::clone(&accepting));
                shared.connections.lock().unwrap().push(stream.try_clone().unwrap());
                thread::spawn(move || drop(serve(&stream, &shared)));
            }
        });
        Self { address, shared }
    }

    /// The mails so far.
    pub(crate) fn mails(&self) -> Vec<Mail> {
        self.shared.mails.lock().unwrap().clone()
    }

    /// The mail that arrived as number `at`, counted from 0.
    pub(crate) fn mail(&self, at: usize) -> Option<Mail> {
        self.shared.mails.lock().unwrap().get(at).cloned()
    }

    /// Returns what `pick` finds, as soon as it finds something.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        limit: Duration,
        mut pick: impl FnMut(&[Mail]) -> Option<T>,
    ) -> T {
        let mut found = None;
        let mails = self.shared.mails.lock().unwrap();
        let (_mails, waited) = self
            .shared
            .arrived
            .wait_timeout_while(mails, limit, |mails| {
                found = pick(mails);
                found.is_none()
            })
            .unwrap();
        assert!(!waited.timed_out(), "{what}: not within {limit:?}");
        found.unwrap()
    }

    /// The mail whose octets hold this text.
    pub(crate) fn wait_for_text(&self, text: &str) -> Mail {
        self.wait_for(text, super::SOON, |mails| {
            mails.iter().find(|mail| contains(&mail.octets, text.as_bytes())).cloned()
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
    }
}

/// Whether `octets` hold `text`.
pub(crate) fn contains(octets: &[u8], text: &[u8]) -> bool {
    octets.windows(text.len()).any(|window| window == text)
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut mail = Mail::new(String::new());
    reply(stream, "220 sink.test ESMTP")?;
    let mut line = String::new();
    while {
        line.clear();
        reader.read_line(&mut line)? > 0
    } {
        let command = line.trim_end();
        let verb = command.split([' ', ':']).next().unwrap().to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" => reply(stream, EHLO)?,
            "MAIL" => {
                mail = Mail::new(path(command));
                reply(stream, "250 2.1.0 Ok")?;
            }
            "RCPT" => {
                let to = path(command);
                match shared.answer(&Point::Rcpt(&to)) {
                    Answer::Reply(text) => reply(stream, text)?,
                    Answer::Accept | Answer::AcceptAs(_) => {
                        mail.to.push(to);
                        reply(stream, "250 2.1.5 Ok")?;
                    }
                    Answer::Drop | Answer::TakeAndDrop => return stream.shutdown(Shutdown::Both),
                }
            }
            "DATA" if mail.to.is_empty() => reply(stream, "503 5.5.1 No recipients")?,
            "DATA" => match shared.answer(&Point::Data) {
                Answer::Reply(text) => reply(stream, text)?,
                Answer::Accept | Answer::AcceptAs(_) => {
                    reply(stream, "354 Go ahead")?;
                    read_data(&mut reader, &mut mail)?;
                    if !shared.end(stream, &mail)? {
                        return stream.shutdown(Shutdown::Both);
                    }
                }
                Answer::Drop | Answer::TakeAndDrop => return stream.shutdown(Shutdown::Both),
            },
            "BDAT" => {
                let mut words = command.split(' ').skip(1);
                let mut octets = vec![0; words.next().unwrap().parse().unwrap()];
                reader.read_exact(&mut octets)?;
                mail.octets.append(&mut octets);
                mail.chunks += 1;
                match words.next() {
                    None => reply(stream, "250 2.0.0 Go on")?,
                    Some("LAST") => {
                        if !shared.end(stream, &mail)? {
                            return stream.shutdown(Shutdown::Both);
                        }
                    }
                    Some(other) => panic!("BDAT with {other}"),
                }
            }
            "QUIT" => return reply(stream, "221 2.0.0 Bye"),
            "RSET" | "NOOP" | "HELO" => reply(stream, "250 2.0.0 Ok")?,
            _ => reply(stream, "502 5.5.1 What?")?,
        }
    }
    Ok(())
}

impl Shared {
    fn answer(&self, point: &Point<'_>) -> Answer {
        let key = match point {
            Point::Rcpt(to) => format!("rcpt {to}"),
            Point::Data => "data".to_owned(),
            Point::End(mail) => format!("end {} {:?}", mail.from, mail.to),
        };
        let number = {
            let mut calls = self.calls.lock().unwrap();
            let number = calls.entry(key).or_insert(0);
            *number += 1;
            *number
        };
        (self.script)(point, number)
    }

    /// Answers the end of the data; false when the connection is to be closed.
    fn end(&self, stream: &TcpStream, mail: &Mail) -> std::io::Result<bool> {
        let answer = self.answer(&Point::End(mail));
        let number = {
            let mut mails = self.mails.lock().unwrap();
            if matches!(answer, Answer::Accept | Answer::AcceptAs(_) | Answer::TakeAndDrop) {
                mails.push(mail.clone());
                self.arrived.notify_all();
            }
            mails.len()
        };
        match answer {
            Answer::Accept => reply(stream, &format!("250 2.0.0 Ok: queued as SINK{number}"))?,
            Answer::AcceptAs(text) | Answer::Reply(text) => reply(stream, text)?,
            Answer::Drop | Answer::TakeAndDrop => return Ok(false),
        }
        Ok(true)
    }
}

/// Reads to what may be taken for the end: a lone dot that any LF stands before.
fn read_data(reader: &mut impl BufRead, mail: &mut Mail) -> std::io::Result<()> {
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        mail.wire.extend_from_slice(&line);
        if line == b".\r\n" {
            return Ok(());
        }
        mail.octets.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
    }
}

fn reply(mut stream: &TcpStream, text: &str) -> std::io::Result<()> {
    stream.write_all(format!("{text}\r\n").as_bytes())
}

/// What stands between the angle brackets.
fn path(command: &str) -> String {
    let rest = command.split_once('<').map_or("", |(_, rest)| rest);
    rest.rsplit_once('>').map_or("", |(path, _)| path).to_owned()
}

const EHLO: &str = "250-sink.test\r\n250-PIPELINING\r\n250-SIZE 104857600\r\n250-8BITMIME\r\n\
                    250-SMTPUTF8\r\n250-CHUNKING\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES";
