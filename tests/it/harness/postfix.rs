//! A Postfix of a test's own: on loopback, with its own configuration, queue and data.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use super::sink::{Answer, Point, Sink};
use super::{SOON, TempDir, certificate, free_port, program, run, wait_for};

/// Mail for `dest.test`: `good@` is delivered, `later@` is taken and then bounced, `grey@` is
/// refused once with a 450, everybody else is refused at RCPT.
pub(crate) struct Postfix {
    dir: TempDir,
    pub(crate) address: SocketAddr,
    /// The certificate that it shows.
    pub(crate) cert: PathBuf,
    running: bool,
    /// Where `later@` is refused.
    _full: Sink,
}

/// Where a Postfix sends what it does not deliver itself.
pub(crate) struct Hop {
    /// As `relayhost` has it.
    pub(crate) name: String,
    /// What its certificate is verified with.
    pub(crate) ca_file: PathBuf,
    pub(crate) username: &'static str,
    pub(crate) password: &'static str,
}

impl Postfix {
    /// Starts one that relays by TLS and AUTH PLAIN or not at all.
    pub(crate) fn start_with_relayhost(hop: &Hop) -> Self {
        // Nothing listens where its reports would go.
        let mut postfix = Self::prepare(([127, 0, 0, 1], free_port()).into());
        let Hop { name, ca_file, username, password } = hop;
        postfix.dir.file("conf/passwords", format!("{name} {username}:{password}\n"));
        let main = postfix.dir.path().join("conf/main.cf");
        let relayhost = RELAYHOST_CF
            .replace("{name}", name)
            .replace("{base}", &postfix.dir.path().display().to_string())
            .replace("{ca}", &ca_file.display().to_string());
        let text = fs::read_to_string(&main).unwrap() + &relayhost;
        fs::write(&main, text).unwrap();
        postfix.up();
        postfix
    }

    /// Starts one whose reports go to `inbound`.
    pub(crate) fn start(inbound: SocketAddr) -> Self {
        let mut postfix = Self::prepare(inbound);
        postfix.up();
        postfix
    }

    /// Prepares one that is down.
    pub(crate) fn prepare(inbound: SocketAddr) -> Self {
        Self::with_reports_to(&format!("smtp:[{}]:{}", inbound.ip(), inbound.port()))
    }

    /// Prepares one that hands reports to this transport.
    pub(crate) fn with_reports_to(hop: &str) -> Self {
        let dir = TempDir::new("postfix");
        open_to_all(dir.path());
        let address: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let (cert, key) = certificate(&dir);
        let base = dir.path().display().to_string();
        for name in ["conf", "queue", "data", "mail"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        open_to_all(&dir.path().join("mail"));
        run(Command::new(program("chown", "coreutils")).arg("postfix").arg(format!("{base}/data")));
        run(Command::new(program("chown", "coreutils")).arg("nobody").arg(format!("{base}/mail")));
        let full = Sink::scripted(Box::new(|point, _| match point {
            Point::Rcpt(_) => Answer::Reply("552 5.2.2 Mailbox full, over quota"),
            _ => Answer::Accept,
        }));
        dir.file("conf/mailboxes", MAILBOXES);
        dir.file(
            "conf/transport",
            format!(
                "later@dest.test smtp:[127.0.0.1]:{}\n\
                 bounces.app.test {hop}\napp.test {hop}\n",
                full.address.port()
            ),
        );
        let policy = policy_server();
        let main = MAIN_CF
            .replace("{base}", &base)
            .replace("{policy}", &policy.to_string())
            .replace("{cert}", &cert.display().to_string())
            .replace("{key}", &key.display().to_string());
        dir.file("conf/main.cf", main);
        dir.file("conf/master.cf", MASTER_CF.replace("{smtpd}", &address.to_string()));
        Self { dir, address, cert, running: false, _full: full }
    }

    /// Adds a line to `main.cf`; for one that is down.
    pub(crate) fn set(self, line: &str) -> Self {
        let path = self.dir.path().join("conf/main.cf");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, format!("{text}{line}\n")).unwrap();
        self
    }

    pub(crate) fn up(&mut self) {
        self.postfix("start");
        self.running = true;
        wait_for("Postfix greets", SOON, || {
            let stream = std::net::TcpStream::connect(self.address).ok()?;
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.starts_with("220").then_some(())
        });
    }

    pub(crate) fn down(&mut self) {
        self.postfix("stop");
        self.running = false;
    }

    /// The mails in the mailbox of `good@dest.test`.
    pub(crate) fn delivered(&self) -> Vec<Vec<u8>> {
        let Ok(entries) = fs::read_dir(self.dir.path().join("mail/good/new")) else {
            return Vec::new();
        };
        entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect()
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("data/log")).unwrap_or_default()
    }

    fn postfix(&self, what: &str) {
        let conf = self.dir.path().join("conf");
        run(Command::new(program("postfix", "postfix")).arg("-c").arg(conf).arg(what));
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("Postfix said:\n{}", self.log());
        }
        if self.running {
            let conf = self.dir.path().join("conf");
            let stop = Command::new(program("postfix", "postfix"))
                .arg("-c")
                .arg(conf)
                .arg("stop")
                .output();
            if let Err(error) = stop {
                eprintln!("stopping Postfix: {error}");
            }
        }
    }
}

/// Refuses each recipient `grey...` once with a 450, as postgrey does (SMTPD_POLICY_README).
fn policy_server() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, seen) = (stream.unwrap(), Arc::clone(&seen));
            thread::spawn(move || {
                let mut recipient = String::new();
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let Ok(line) = line else { return };
                    if let Some(value) = line.strip_prefix("recipient=") {
                        recipient = value.to_owned();
                    }
                    if line.is_empty() {
                        let mut seen = seen.lock().unwrap();
                        let is_first = recipient.starts_with("grey") && !seen.contains(&recipient);
                        let action = if is_first { "450 4.2.0 Greylisted" } else { "DUNNO" };
                        seen.push(recipient.clone());
                        if write!(&stream, "action={action}\n\n").is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

const MAILBOXES: &str = "good@dest.test good/\ngrey@dest.test good/\nlater@dest.test later/\n";

const MAIN_CF: &str = "\
compatibility_level = 3.6
queue_directory = {base}/queue
data_directory = {base}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {base}/data/log
maillog_file_prefixes = {base}/data
myhostname = smarthost.test
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtp_dns_support_level = disabled
smtp_host_lookup = native
notify_classes =
biff = no
virtual_mailbox_domains = dest.test
virtual_mailbox_maps = texthash:{base}/conf/mailboxes
virtual_mailbox_base = {base}/mail
virtual_uid_maps = static:65534
virtual_gid_maps = static:65534
transport_maps = texthash:{base}/conf/transport
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_policy_service inet:{policy}, permit_mynetworks, reject
smtpd_tls_security_level = may
smtpd_tls_cert_file = {cert}
smtpd_tls_key_file = {key}
smtpd_peername_lookup = no
minimal_backoff_time = 1s
maximal_backoff_time = 5s
queue_run_delay = 1s
message_size_limit = 52428800
virtual_mailbox_limit = 0
";

const RELAYHOST_CF: &str = "\
relayhost = {name}
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = texthash:{base}/conf/passwords
smtp_sasl_security_options = noanonymous
smtp_sasl_mechanism_filter = plain
smtp_tls_security_level = verify
smtp_tls_verify_cert_match = hostname
smtp_tls_CAfile = {ca}
smtp_tls_loglevel = 1
";

const MASTER_CF: &str = "\
{smtpd} inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
";
