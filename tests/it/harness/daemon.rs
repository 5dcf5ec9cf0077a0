//! The real program, with a configuration, ports and a data directory of the test's own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{SOON, TempDir, free_port, http, signal, wait_for};

/// A configuration under construction: `[section] key = value` lines.
#[derive(Clone)]
pub(crate) struct Config {
    top: Vec<String>,
    sections: BTreeMap<String, Vec<String>>,
    tables: Vec<String>,
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) dir: TempDir,
    pub(crate) smtp: SocketAddr,
    pub(crate) inbound: SocketAddr,
    pub(crate) http: SocketAddr,
    child: Option<Child>,
    starts: u32,
}

impl Config {
    /// Free ports, no next hop, retries after a second.
    pub(crate) fn new() -> Self {
        let config = Self {
            top: vec!["hostname = \"relay.test\"".to_owned()],
            sections: BTreeMap::new(),
            tables: Vec::new(),
        };
        let listen = || format!("[\"127.0.0.1:{}\"]", free_port());
        config
            .set("submission", "listen", &listen())
            .set("inbound", "listen", &listen())
            .set("http", "listen", &listen())
            .set("queue", "retry_after", "[\"1s\"]")
            .set("log", "format", "\"json\"")
            .set("log", "level", "\"debug\"")
    }

    /// `key = value` in a section; the later one holds.
    pub(crate) fn set(mut self, section: &str, key: &str, value: &str) -> Self {
        let lines = self.sections.entry(section.to_owned()).or_default();
        lines.retain(|line| !line.starts_with(&format!("{key} =")));
        lines.push(format!("{key} = {value}"));
        self
    }

    /// The next hop.
    pub(crate) fn relay(self, address: SocketAddr) -> Self {
        self.set("relay", "host", &format!("\"[{}]:{}\"", address.ip(), address.port()))
    }

    /// Return tokens at `bounces.app.test`.
    pub(crate) fn verp(self) -> Self {
        self.set("return_path", "domain", "\"bounces.app.test\"")
    }

    /// The app's own reverse-path, `bounces@app.test`, whose reports come back to us.
    pub(crate) fn preserve(self) -> Self {
        self.set("return_path", "mode", "\"preserve\"").set(
            "inbound",
            "addresses",
            "[\"bounces@app.test\"]",
        )
    }

    /// A whole table such as `[[account]]`.
    pub(crate) fn table(mut self, text: &str) -> Self {
        self.tables.push(text.to_owned());
        self
    }

    /// The address in the first entry of a section's `listen`.
    pub(crate) fn listen(&self, section: &str) -> SocketAddr {
        let lines = &self.sections[section];
        let line = lines.iter().find(|line| line.starts_with("listen =")).unwrap();
        line.split('"').nth(1).unwrap().parse().unwrap()
    }

    fn text(&self) -> String {
        let mut text = self.top.join("\n");
        for (section, lines) in &self.sections {
            text += &format!("\n[{section}]\n{}", lines.join("\n"));
        }
        for table in &self.tables {
            text += &format!("\n{table}");
        }
        text + "\n"
    }
}

impl Daemon {
    /// Starts `rebound serve` and returns once it says that it is ready.
    pub(crate) fn start(config: Config) -> Self {
        let dir = TempDir::new("daemon");
        let (smtp, inbound, http) =
            (config.listen("submission"), config.listen("inbound"), config.listen("http"));
        let data_dir = dir.path().join("data");
        let mut config = config;
        config.top.push(format!("data_dir = \"{}\"", data_dir.display()));
        dir.file("rebound.toml", config.text());
        let mut daemon = Self { dir, smtp, inbound, http, child: None, starts: 0 };
        daemon.restart();
        daemon
    }

    /// Starts it again on the same data.
    pub(crate) fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        self.starts += 1;
        let notify_path = self.dir.path().join(format!("notify{}", self.starts));
        let notify = UnixDatagram::bind(&notify_path).unwrap();
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_rebound"))
            .arg("serve")
            .arg("--config")
            .arg(self.dir.path().join("rebound.toml"))
            .env("NOTIFY_SOCKET", &notify_path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        await_ready(&notify, &mut child, || self.log());
        self.child = Some(child);
    }

    /// Ends it as a power cut of the process would: SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        signal("TERM", child.id());
        wait_for("the daemon ends", SOON, || child.try_wait().unwrap())
    }

    /// Sends a signal such as `HUP`.
    pub(crate) fn signal(&self, name: &str) {
        signal(name, self.pid());
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// What it has logged since its first start.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Octets of memory that it holds now.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let statm = fs::read_to_string(format!("/proc/{}/statm", self.pid())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    /// The most octets of memory that it has held.
    pub(crate) fn memory_max(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// Asks the HTTP server.
    pub(crate) fn get(&self, path: &str) -> (u16, Value) {
        http::get(self.http, path)
    }

    /// How the only mailbox is doing.
    pub(crate) fn mailbox(&self) -> Value {
        let (status, answer) = self.get("/v1/mailboxes");
        assert_eq!(status, 200, "{answer}");
        answer["mailboxes"][0].clone()
    }

    /// Returns how the only mailbox is doing once `is_so`.
    pub(crate) fn await_mailbox(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(what, MAILBOX_SOON, || {
                last = self.mailbox();
                is_so(&last).then(|| last.clone())
            })
        }));
        waited.unwrap_or_else(|_| panic!("{what}: not so in {last:#}"))
    }

    /// The ids of all reports that match no mail, and how often each id comes.
    pub(crate) fn unmatched_reports(&self) -> Vec<String> {
        let mut ids = Vec::new();
        let mut path = "/v1/reports?unmatched=true&pageSize=1000".to_owned();
        loop {
            let (status, page) = self.get(&path);
            assert_eq!(status, 200, "{page}");
            let reports = page["reports"].as_array().unwrap();
            ids.extend(reports.iter().map(|one| one["id"].as_str().unwrap().to_owned()));
            let Some(cursor) = page["cursor"].as_str() else { return ids };
            path = format!("/v1/reports?unmatched=true&pageSize=1000&cursor={cursor}");
        }
    }

    /// The octets of a report.
    pub(crate) fn source(&self, report: &str) -> String {
        let path = format!("/v1/reports/{report}/source");
        let (status, _, body) = http::get_raw(self.http, &path, "");
        assert_eq!(status, 200, "{report}");
        String::from_utf8_lossy(&body).into_owned()
    }

    /// Runs a command of the program with this daemon's configuration; its exit code and output.
    pub(crate) fn command(&self, arguments: &[&str]) -> (i32, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_rebound"))
            .args(arguments)
            .arg("--config")
            .arg(self.dir.path().join("rebound.toml"))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().unwrap(), String::from_utf8_lossy(&text).into_owned())
    }

    /// The timeline of a mail, by queue id.
    pub(crate) fn message(&self, queue_id: &str) -> Value {
        let (status, message) = self.get(&format!("/v1/messages/{queue_id}"));
        assert_eq!(status, 200, "{message}");
        message
    }

    /// The answer of the core look-up, by Message-ID.
    pub(crate) fn bounces(&self, message_id: &str) -> Value {
        let (status, answer) = self.get(&format!("/v1/bounces/{}", http::encode(message_id)));
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// Returns the timeline once the recipients have these states, in their order.
    pub(crate) fn await_states(&self, queue_id: &str, want: &[&str]) -> Value {
        let mut last = Value::Null;
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(&format!("{queue_id} is {want:?}"), SOON, || {
                last = self.message(queue_id);
                (states(&last) == want).then(|| last.clone())
            })
        }));
        waited.unwrap_or_else(|_| panic!("{queue_id} is not {want:?} but {last:#}"))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("daemon.log")
    }
}

/// How long a mailbox may take to change, with a pause after a failure in between.
const MAILBOX_SOON: Duration = Duration::from_secs(90);

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(60).collect();
            eprintln!("the daemon said last:");
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The recipients' states, in the order of the envelope.
pub(crate) fn states(message: &Value) -> Vec<String> {
    let recipients = message["recipients"].as_array().unwrap();
    recipients.iter().map(|one| one["state"].as_str().unwrap().to_owned()).collect()
}

/// Waits for `READY=1` (sd_notify(3)), or fails when the program ends first.
pub(crate) fn await_ready(notify: &UnixDatagram, child: &mut Child, log: impl Fn() -> String) {
    notify.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut octets = [0; 1024];
    wait_for("the daemon is ready", SOON, || match notify.recv(&mut octets) {
        Ok(len) => String::from_utf8_lossy(&octets[..len]).contains("READY=1").then_some(()),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the daemon ended with {status}:\n{}", log());
            }
            None
        }
        Err(error) => panic!("{error}"),
    });
}

/// What `rebound account hash` makes of a password.
pub(crate) fn account_hash(password: &str) -> String {
    hashed(&["account", "hash"], password)
}

/// What `rebound account hash --scram` makes of a password.
pub(crate) fn scram_verifier(password: &str) -> String {
    hashed(&["account", "hash", "--scram"], password)
}

fn hashed(command: &[&str], password: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rebound"))
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), password.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
