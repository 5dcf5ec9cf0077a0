//! A receiver of webhooks that does what its script says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use rebound::clock::Stopwatch;
use serde_json::Value;

use super::{SOON, free_listener, wait_for};

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Takes it.
    Take,
    /// Answers with this status.
    Status(u16),
    /// Answers 429 and wants to be asked again after so many seconds.
    RetryAfter(u64),
    /// Says nothing until the other side hangs up.
    Hang,
    /// Closes in the middle of a 200.
    Break,
    /// Leads somewhere else.
    Redirect,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    /// The path.
    pub(crate) path: String,
    /// Its fields, with names in lower case.
    pub(crate) fields: BTreeMap<String, String>,
    /// The body as it came.
    pub(crate) body: String,
    /// What was done with it.
    pub(crate) answer: Answer,
}

impl Delivery {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    /// The event and the mail it is about.
    pub(crate) fn event(&self) -> (String, String) {
        let body = self.json();
        let data = &body["data"];
        // In a bounce `queueId` is the other side's.
        let queue_id = data["relayQueueId"].as_str().or(data["queueId"].as_str());
        (body["event"].as_str().unwrap().to_owned(), queue_id.unwrap_or_default().to_owned())
    }
}

/// Decides about a request, given how many there were before.
pub(crate) type Script = Box<dyn Fn(&Delivery, usize) -> Answer + Send + Sync>;

/// A receiver on a port of its own.
#[derive(Clone)]
pub(crate) struct Receiver {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    deliveries: Mutex<Vec<Delivery>>,
    script: Mutex<Script>,
}

/// A `[[webhook]]` that leads to a port, with these further lines; every wait is a second.
pub(crate) fn table(port: u16, name: &str, more: &str) -> String {
    format!(
        "[[webhook]]\nname = \"{name}\"\nurl = \"http://127.0.0.1:{port}/hook\"\n\
         secret = \"{SECRET}\"\nallow_private_networks = true\nretry_after = [\"1s\"]\n{more}\n"
    )
}

impl Receiver {
    pub(crate) fn start(script: Script) -> Self {
        Self::on(free_listener(), script)
    }

    /// One at a port that was not answered before.
    pub(crate) fn come_up(port: u16, script: Script) -> Self {
        Self::on(TcpListener::bind(("127.0.0.1", port)).unwrap(), script)
    }

    fn on(listener: TcpListener, script: Script) -> Self {
        let state = Arc::new(State { deliveries: Mutex::default(), script: Mutex::new(script) });
        let receiver = Self { address: listener.local_addr().unwrap(), state };
        let server = receiver.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, server) = (stream.unwrap(), server.clone());
                thread::spawn(move || server.serve(stream).unwrap_or_default());
            }
        });
        receiver
    }

    /// From now on this decides.
    pub(crate) fn change(&self, script: Script) {
        *self.state.script.lock().unwrap() = script;
    }

    /// A `[[webhook]]` that leads here, with these further lines.
    pub(crate) fn table(&self, name: &str, more: &str) -> String {
        table(self.address.port(), name, more)
    }

    /// Everything that came.
    pub(crate) fn deliveries(&self) -> Vec<Delivery> {
        self.state.deliveries.lock().unwrap().clone()
    }

    /// What was taken.
    pub(crate) fn taken(&self) -> Vec<Delivery> {
        let all = self.deliveries().into_iter();
        all.filter(|delivery| delivery.answer == Answer::Take).collect()
    }

    /// Returns what was taken once it is as it should be.
    pub(crate) fn wait_for<T>(
        &self,
        what: &str,
        mut found: impl FnMut(&[Delivery]) -> Option<T>,
    ) -> T {
        wait_for(what, 3 * SOON, || found(&self.taken()))
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        stream.set_read_timeout(Some(SOON))?;
        let mut writer = stream.try_clone()?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        // Who was killed in front of the end of his request has asked for nothing.
        if reader.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut fields = BTreeMap::new();
        loop {
            let mut field = String::new();
            if reader.read_line(&mut field)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = field.trim_end().split_once(':') else { break };
            fields.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let len = fields.get("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        let mut body = vec![0; len];
        reader.read_exact(&mut body)?;
        let body = String::from_utf8_lossy(&body).into_owned();
        let mut delivery = Delivery { path, fields, body, answer: Answer::Take };
        {
            let mut deliveries = self.state.deliveries.lock().unwrap();
            delivery.answer = (self.state.script.lock().unwrap())(&delivery, deliveries.len());
            deliveries.push(delivery.clone());
        }
        let head = |status: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
        match delivery.answer {
            Answer::Take => write!(writer, "{}Content-Length: 2\r\n\r\nok", head("200 OK")),
            Answer::Status(status) => {
                write!(writer, "{}Content-Length: 4\r\n\r\nno!\n", head(&format!("{status} No")))
            }
            Answer::RetryAfter(seconds) => write!(
                writer,
                "{}Retry-After: {seconds}\r\nContent-Length: 0\r\n\r\n",
                head("429 Too Many Requests")
            ),
            Answer::Redirect => write!(
                writer,
                "{}Location: http://{}/elsewhere\r\nContent-Length: 0\r\n\r\n",
                head("307 Temporary Redirect"),
                self.address
            ),
            Answer::Break => write!(writer, "{}Content-Length: 100\r\n\r\nbroken", head("200 OK")),
            Answer::Hang => {
                // Until the other side has had enough, which ends the read.
                let waited = Stopwatch::start();
                while waited.elapsed() < SOON && reader.read(&mut [0; 16])? > 0 {}
                Ok(())
            }
        }?;
        writer.flush()
    }
}

/// The secret of every webhook here.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
