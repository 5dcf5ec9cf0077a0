//! The real daemon in a directory of its own, on free loopback ports.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rebound::config::Certificate;

/// A daemon that runs until it is dropped.
pub(crate) struct Daemon {
    dir: PathBuf,
    pub(crate) smtp: u16,
    /// The same with TLS from the first octet, where there is a certificate.
    pub(crate) smtps: u16,
    pub(crate) http: u16,
    child: Child,
}

/// A port that nobody listens on now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A new directory; under `REBOUND_BENCH_DIR` where that is set, to choose the disk.
pub(crate) fn new_dir(name: &str) -> PathBuf {
    let base = std::env::var_os("REBOUND_BENCH_DIR").map_or_else(std::env::temp_dir, PathBuf::from);
    let dir = base.join(format!("rebound-bench-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

impl Daemon {
    /// Starts a daemon that relays to that port of this machine, or holds its mail.
    pub(crate) fn start(dir: &Path, relay: Option<u16>) -> Self {
        let host = relay.map_or(String::new(), |port| format!("127.0.0.1:{port}"));
        Self::start_with(dir, &host, None)
    }

    /// Starts a daemon that holds its mail and has this certificate.
    pub(crate) fn start_with_tls(dir: &Path, certificate: &Certificate) -> Self {
        Self::start_with(dir, "", Some(certificate))
    }

    fn start_with(dir: &Path, host: &str, certificate: Option<&Certificate>) -> Self {
        let [smtp, smtps, inbound, http] = [free_port(), free_port(), free_port(), free_port()];
        let (tls_listen, tls) = certificate.map_or_else(Default::default, |pair| {
            let (cert, key) = (pair.cert_file.display(), pair.key_file.display());
            (
                format!("tls_listen = [\"127.0.0.1:{smtps}\"]\n"),
                format!(
                    "[tls]\ncertificates = [{{ cert_file = \"{cert}\", key_file = \"{key}\" }}]\n"
                ),
            )
        });
        let config = dir.join("rebound.toml");
        let text = format!(
            "hostname = \"bench.example\"\ndata_dir = \"{}\"\n\
             [submission]\nlisten = [\"127.0.0.1:{smtp}\"]\nconnections_per_address_max = 6000\n{tls_listen}\
             {tls}[relay]\nhost = \"{host}\"\ntls = \"none\"\nconnections_max = 50\n\
             [queue]\nretry_after = [\"1s\"]\n\
             [return_path]\ndomain = \"bounces.bench.example\"\n\
             [inbound]\nlisten = [\"127.0.0.1:{inbound}\"]\nconnections_per_address_max = 1000\n\
             [http]\nlisten = [\"127.0.0.1:{http}\"]\n[log]\nlevel = \"warn\"\n",
            dir.join("data").display()
        );
        std::fs::write(&config, text).unwrap();
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_rebound"))
            .args(["serve", "--config"])
            .arg(&config)
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        let daemon = Self { dir: dir.to_owned(), smtp, smtps, http, child };
        daemon.wait_until_ready();
        daemon
    }

    fn wait_until_ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while get(self.http, "/health").is_none_or(|(status, _)| status != 200) {
            assert!(Instant::now() < deadline, "the daemon does not start: {}", self.log());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Octets of memory that it holds now.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id())).unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * PAGE_BYTES
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// The value of a counter of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> f64 {
        let (_, text) = get(self.http, "/metrics").expect("metrics");
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What /proc counts in.
const PAGE_BYTES: u64 = 4096;

/// One GET on a connection of its own: status and body.
fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    let (_, body) = answer.split_once("\r\n\r\n")?;
    Some((status, body.to_owned()))
}
