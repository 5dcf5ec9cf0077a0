//! An IMAP server that knows RFC 3501 and no extension, and that a test can twist.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::SOON;

/// What is done with a command, instead of answering it.
pub(crate) enum Twist {
    /// Nothing unusual.
    Usual,
    /// This is said, and then the command is answered.
    Before(Vec<u8>),
    /// This is said instead of an answer; the connection stays open.
    Say(Vec<u8>),
    /// This is said, and the server hangs up.
    HangUp(Vec<u8>),
    /// The first is said, and then the second again and again until the client hangs up.
    Flood(Vec<u8>, Vec<u8>),
}

/// Says what is done: the number of the connection and the command without its tag.
pub(crate) type Script = dyn Fn(usize, &str) -> Twist + Send + Sync;

/// A server whose INBOX holds some mails for good.
pub(crate) struct ImapScript {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl ImapScript {
    pub(crate) fn start(mails: Vec<Vec<u8>>, script: Box<Script>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&connections);
        let shared = Arc::new((mails, script));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, shared) = (stream.unwrap(), Arc::clone(&shared));
                let number = counter.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    serve(stream, number, &shared.0, &shared.1).unwrap_or_default();
                });
            }
        });
        Self { address, connections }
    }

    /// How often it has been connected to.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A `[[mailbox]]` table for it, with further lines.
    pub(crate) fn table(&self, name: &str, more: &str) -> String {
        format!(
            "[[mailbox]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\n\
             username = \"u\"\npassword = \"p\"\n{more}",
            self.address.port()
        )
    }
}

fn serve(
    stream: TcpStream,
    number: usize,
    mails: &[Vec<u8>],
    script: &Script,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(SOON))?;
    let mut stream = BufReader::new(stream);
    stream.get_mut().write_all(b"* OK ready\r\n")?;
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let (tag, command) = line.trim_end().split_once(' ').unwrap();
        let out = stream.get_mut();
        match script(number, command) {
            Twist::Usual => {}
            Twist::Before(octets) => out.write_all(&octets)?,
            Twist::Say(octets) => {
                out.write_all(&octets)?;
                continue;
            }
            Twist::HangUp(octets) => return out.write_all(&octets),
            Twist::Flood(first, again) => {
                out.write_all(&first)?;
                loop {
                    out.write_all(&again)?;
                }
            }
        }
        out.write_all(&answer(command, mails))?;
        write!(out, "{tag} OK done\r\n")?;
        if command == "LOGOUT" {
            return Ok(());
        }
    }
}

fn answer(command: &str, mails: &[Vec<u8>]) -> Vec<u8> {
    let count = mails.len();
    if command == "CAPABILITY" {
        return b"* CAPABILITY IMAP4rev1\r\n".to_vec();
    }
    if command.starts_with("LIST") {
        return b"* LIST () \"/\" INBOX\r\n".to_vec();
    }
    if command.starts_with("SELECT") || command.starts_with("EXAMINE") {
        return format!(
            "* {count} EXISTS\r\n* OK [UIDVALIDITY 7] x\r\n* OK [UIDNEXT {}] x\r\n",
            count + 1
        )
        .into_bytes();
    }
    if let Some(range) = command.strip_prefix("UID SEARCH UID ") {
        let (first, last) = range.split(' ').next().unwrap().split_once(':').unwrap();
        let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
        let uids = (1..=count).filter(|uid| (first..=last).contains(uid));
        let uids: Vec<String> = uids.map(|uid| uid.to_string()).collect();
        return format!("* SEARCH {}\r\n", uids.join(" ")).into_bytes();
    }
    let Some(rest) = command.strip_prefix("UID FETCH ") else { return Vec::new() };
    let mut out = Vec::new();
    for uid in set(rest.split(' ').next().unwrap()) {
        if let Some(mail) = mails.get(uid - 1) {
            out.extend(fetch(uid, rest, mail));
        }
    }
    out
}

fn fetch(uid: usize, items: &str, mail: &[u8]) -> Vec<u8> {
    let header_end = mail.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
    let mut answers: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    answers.insert("RFC822.SIZE", mail.len().to_string().into_bytes());
    let literal = |octets: &[u8]| [format!("{{{}}}\r\n", octets.len()).as_bytes(), octets].concat();
    if items.contains("BODY.PEEK[HEADER]") {
        answers.insert("BODY[HEADER]<0>", literal(&mail[..header_end]));
    } else {
        let cut = items.split("<0.").nth(1).and_then(|rest| rest.split('>').next());
        let len = cut.map_or(mail.len(), |len| len.parse().unwrap()).min(mail.len());
        answers.insert(if cut.is_some() { "BODY[]<0>" } else { "BODY[]" }, literal(&mail[..len]));
    }
    let mut out = format!("* {uid} FETCH (UID {uid}").into_bytes();
    for (name, value) in answers {
        out.extend(format!(" {name} ").into_bytes());
        out.extend(value);
    }
    out.extend(b")\r\n");
    out
}

fn set(text: &str) -> Vec<usize> {
    let runs = text.split(',').map(|run| run.split_once(':').unwrap_or((run, run)));
    runs.flat_map(|(first, last)| first.parse().unwrap()..=last.parse().unwrap()).collect()
}
