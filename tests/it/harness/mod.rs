//! What the stories are made of: the daemon, its peers, and ways to wait for what they do.

pub(crate) mod browser;
pub(crate) mod daemon;
pub(crate) mod dovecot;
pub(crate) mod haproxy;
pub(crate) mod http;
pub(crate) mod imap_script;
pub(crate) mod postfix;
pub(crate) mod provider;
pub(crate) mod receiver;
pub(crate) mod report;
pub(crate) mod sink;
pub(crate) mod smtp;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rebound::clock::Stopwatch;

/// How long anything may take that should take a moment; generous, because CI is slow.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A directory that is removed at the end of a test that passes, and kept for one that fails.
pub(crate) struct TempDir(PathBuf);

impl TempDir {
    pub(crate) fn new(name: &str) -> Self {
        // Not below the checkout: Postfix's own user must be able to get there.
        let dir = std::env::temp_dir().join(format!("rebound-it-{name}-{}", free_port()));
        if dir.exists() {
            fs::remove_dir_all(&dir).unwrap();
        }
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.0.display());
        } else if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

/// A port of loopback that nobody uses, below those that the kernel gives to clients.
pub(crate) fn free_port() -> u16 {
    free_listener().local_addr().unwrap().port()
}

/// A listener at such a port.
pub(crate) fn free_listener() -> TcpListener {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let port = own_ports() + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
}

/// The first of the ports that are this process's own, so that a port which was given back is not
/// taken by another run of the tests; a locked file says whose they are.
fn own_ports() -> u16 {
    static OWN: OnceLock<(File, u16)> = OnceLock::new();
    let take = |block: u16| {
        let path = std::env::temp_dir().join(format!("rebound-it-ports-{block}"));
        let file = File::options().write(true).create(true).truncate(false).open(path).ok()?;
        file.try_lock().is_ok().then_some((file, 10_000 + block * PORTS))
    };
    OWN.get_or_init(|| (0..BLOCKS).find_map(take).expect("too many runs of the tests")).1
}

/// Ports of one process, and how many processes have some.
const PORTS: u16 = 1_000;
const BLOCKS: u16 = 20;

/// Asks again and again until there is an answer; fails when `limit` is over.
pub(crate) fn wait_for<T>(what: &str, limit: Duration, mut answer: impl FnMut() -> Option<T>) -> T {
    let waiting = Stopwatch::start();
    loop {
        if let Some(found) = answer() {
            return found;
        }
        assert!(waiting.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::park_timeout(Duration::from_millis(25));
    }
}

/// The path of a peer's program; says what to install where it is missing.
pub(crate) fn program(name: &str, package: &str) -> PathBuf {
    ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/bin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// Runs a program to its end; its output is shown when it fails.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    output
}

/// Sends a signal by name (`TERM`, `HUP`) to a process we started.
pub(crate) fn signal(name: &str, pid: u32) {
    run(Command::new(program("kill", "procps")).arg(format!("-{name}")).arg(pid.to_string()));
}

/// A certificate for `localhost` that signs itself, and its key.
pub(crate) fn certificate(dir: &TempDir) -> (PathBuf, PathBuf) {
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    run(Command::new(program("openssl", "openssl"))
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&cert));
    (cert, key)
}
