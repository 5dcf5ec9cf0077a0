//! A Dovecot of a test's own: on loopback, with its own configuration, users and mail.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::{SOON, TempDir, free_port, program, wait_for};

/// The one user.
pub(crate) const USER: &str = "bounces@app.test";
/// Its password at first.
pub(crate) const PASSWORD: &str = "secret \"of\" the mailbox";

/// A Dovecot with one user, an INBOX and a folder for junk.
pub(crate) struct Dovecot {
    dir: TempDir,
    /// Plain, with STARTTLS.
    pub(crate) imap: SocketAddr,
    /// With TLS from the first octet.
    pub(crate) imaps: SocketAddr,
    /// Where mail is taken over LMTP.
    pub(crate) lmtp: SocketAddr,
    /// The certificate that it shows, which is its own authority.
    pub(crate) cert: PathBuf,
    child: Option<Child>,
}

impl Dovecot {
    pub(crate) fn start() -> Self {
        let mut dovecot = Self::prepare("");
        dovecot.up();
        dovecot
    }

    /// Prepares one that is down, with further lines in its configuration.
    pub(crate) fn prepare(more: &str) -> Self {
        let dir = TempDir::new("dovecot");
        open_to_all(dir.path());
        let base = dir.path().display().to_string();
        fs::create_dir(dir.path().join("mail")).unwrap();
        chown(dir.path().join("mail"), Some(NOBODY), Some(NOBODY)).unwrap();
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let (imap, imaps) = (local(free_port()), local(free_port()));
        let lmtp = local(free_port());
        let conf = CONF
            .replace("{base}", &base)
            .replace("{imap}", &imap.port().to_string())
            .replace("{imaps}", &imaps.port().to_string())
            .replace("{lmtp}", &lmtp.port().to_string());
        dir.file("dovecot.conf", format!("{conf}{}", more.replace("{base}", &base)));
        let cert = dir.path().join("cert.pem");
        let dovecot = Self { dir, imap, imaps, lmtp, cert, child: None };
        dovecot.set_password(PASSWORD);
        dovecot.show_certificate(true);
        dovecot
    }

    pub(crate) fn up(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        // A group of its own, so that all of it can be killed at once.
        let child = Command::new(program("dovecot", "dovecot-imapd dovecot-lmtpd"))
            .arg("-F")
            .arg("-c")
            .arg(self.dir.path().join("dovecot.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.dir.path().join("stderr")).unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_for("Dovecot greets", SOON, || {
            let mut line = String::new();
            let stream = TcpStream::connect(self.imap).ok()?;
            // Behind a kill it may leave a connection lie for ever, and greet the next one.
            stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            BufReader::new(stream).read_line(&mut line).ok()?;
            line.starts_with("* OK").then_some(())
        });
    }

    /// Ends it as an administrator does.
    pub(crate) fn down(&mut self) {
        let mut child = self.child.take().unwrap();
        super::signal("TERM", child.id());
        wait_for("Dovecot ends", SOON, || child.try_wait().unwrap());
        // Its master does not wait for those that serve clients.
        drop(kill_group(child.id()));
    }

    /// Ends all of its processes with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        assert!(kill_group(child.id()).status.success());
        child.wait().unwrap();
        drop(fs::remove_file(self.dir.path().join("run/master.pid")));
    }

    /// From the next login on this is the password.
    pub(crate) fn set_password(&self, password: &str) {
        // Written whole, because it may be read at any moment.
        let partial = self.dir.file("users.new", format!("{USER}:{{PLAIN}}{password}::::::\n"));
        fs::rename(partial, self.dir.path().join("users")).unwrap();
    }

    /// From the next start on a new certificate is shown, valid or out of date.
    pub(crate) fn show_certificate(&self, is_valid: bool) {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).unwrap();
        if !is_valid {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        let cert = params.self_signed(&key).unwrap();
        fs::write(&self.cert, cert.pem()).unwrap();
        self.dir.file("key.pem", key.serialize_pem());
    }

    /// Puts a mail into a folder; `""` is the INBOX.
    pub(crate) fn deliver(&self, folder: &str, mail: &[u8]) {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let user = self.dir.path().join("mail").join(USER);
        let maildir =
            if folder.is_empty() { user.clone() } else { user.join(format!(".{folder}")) };
        for sub in ["", "cur", "new", "tmp"] {
            let dir = maildir.join(sub);
            if !dir.exists() {
                fs::create_dir_all(&dir).unwrap();
                chown(&dir, Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        chown(&user, Some(NOBODY), Some(NOBODY)).unwrap();
        let number = NEXT.fetch_add(1, Ordering::SeqCst);
        let name = format!("{}.M{number:09}.test", 1_600_000_000 + number);
        let tmp = maildir.join("tmp").join(&name);
        fs::write(&tmp, mail).unwrap();
        chown(&tmp, Some(NOBODY), Some(NOBODY)).unwrap();
        fs::rename(&tmp, maildir.join("new").join(&name)).unwrap();
    }

    /// Forgets which mail has which unique id, while it is down.
    pub(crate) fn forget_ids(&self) {
        let user = self.dir.path().join("mail").join(USER);
        for entry in fs::read_dir(user).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    /// A client that is logged in as the user.
    pub(crate) fn client(&self) -> ImapClient {
        let mut client = ImapClient::connect(self.imap);
        let password = PASSWORD.replace('"', "\\\"");
        client.say(&format!("LOGIN \"{USER}\" \"{password}\""));
        client
    }

    /// How many mails a folder holds.
    pub(crate) fn mails(&self, folder: &str) -> usize {
        self.client().uids(folder, "ALL").len()
    }

    /// A `[[mailbox]]` table for it, with further lines.
    pub(crate) fn table(&self, name: &str, more: &str) -> String {
        let password = self.dir.path().join("password");
        if !password.exists() {
            fs::write(&password, format!("{PASSWORD}\n")).unwrap();
        }
        format!(
            "[[mailbox]]\nname = \"{name}\"\nhost = \"localhost\"\nport = {}\n\
             tls_ca_file = \"{}\"\nusername = \"{USER}\"\n{more}\n{}",
            self.imaps.port(),
            self.cert.display(),
            if more.contains("auth =") {
                String::new()
            } else {
                format!("password_file = \"{}\"", password.display())
            },
        )
    }

    /// Where the poller finds the password.
    pub(crate) fn password_file(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    /// What it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("Dovecot said last:");
            lines.iter().rev().for_each(|line| eprintln!("{line}"));
        }
        if let Some(mut child) = self.child.take() {
            drop(kill_group(child.id()));
            drop(child.wait());
        }
    }
}

/// Ends a process and all that it has started; there may be none left.
fn kill_group(leader: u32) -> Output {
    let mut kill = Command::new(program("kill", "procps"));
    kill.args(["-KILL", "--"]).arg(format!("-{leader}")).output().unwrap()
}

/// An IMAP client that says exactly what it is told.
pub(crate) struct ImapClient {
    stream: BufReader<TcpStream>,
    tag: u32,
}

impl ImapClient {
    pub(crate) fn connect(server: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&server, SOON).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        let mut client = Self { stream: BufReader::new(stream), tag: 0 };
        let mut greeting = String::new();
        client.stream.read_line(&mut greeting).unwrap();
        client
    }

    /// Everything that is answered to a command that must be done.
    pub(crate) fn say(&mut self, command: &str) -> String {
        self.tag += 1;
        let tag = format!("T{}", self.tag);
        write!(self.stream.get_mut(), "{tag} {command}\r\n").unwrap();
        let mut answer = Vec::new();
        loop {
            let start = answer.len();
            assert!(
                self.stream.read_until(b'\n', &mut answer).unwrap() > 0,
                "{command}: it hung up"
            );
            let line = String::from_utf8_lossy(&answer[start..]).into_owned();
            if let Some(len) = line.trim_end().strip_suffix('}') {
                let len: u64 = len.rsplit('{').next().unwrap().parse().unwrap();
                (&mut self.stream).take(len).read_to_end(&mut answer).unwrap();
            } else if let Some(rest) = line.strip_prefix(&format!("{tag} ")) {
                assert!(rest.starts_with("OK"), "{command}: {line}");
                return String::from_utf8_lossy(&answer).into_owned();
            }
        }
    }

    /// Puts a mail into a folder, so that Dovecot knows of it.
    pub(crate) fn append(&mut self, folder: &str, mail: &[u8]) {
        self.tag += 1;
        let tag = format!("T{}", self.tag);
        write!(self.stream.get_mut(), "{tag} APPEND {folder} {{{}+}}\r\n", mail.len()).unwrap();
        self.stream.get_mut().write_all(&[mail, b"\r\n"].concat()).unwrap();
        let mut line = String::new();
        while !line.starts_with(&tag) {
            line.clear();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "it hung up");
        }
        assert!(line.contains(" OK "), "{line}");
    }

    /// The unique ids of the mails in a folder that fit a search.
    pub(crate) fn uids(&mut self, folder: &str, search: &str) -> Vec<u32> {
        let folder = if folder.is_empty() { "INBOX" } else { folder };
        self.say(&format!("EXAMINE \"{folder}\""));
        let found = self.say(&format!("UID SEARCH {search}"));
        let line = found.lines().find_map(|line| line.strip_prefix("* SEARCH"));
        line.unwrap_or_default().split_whitespace().map(|uid| uid.parse().unwrap()).collect()
    }
}

fn open_to_all(dir: &Path) {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The user that mail belongs to.
const NOBODY: u32 = 65_534;

const CONF: &str = "\
protocols = imap lmtp
base_dir = {base}/run
state_dir = {base}/state
log_path = {base}/log
listen = 127.0.0.1
ssl = yes
ssl_cert = <{base}/cert.pem
ssl_key = <{base}/key.pem
disable_plaintext_auth = no
auth_mechanisms = plain login xoauth2 oauthbearer
auth_username_format = %u
auth_failure_delay = 0
mail_location = maildir:{base}/mail/%u
mail_max_userip_connections = 100
first_valid_uid = 1
default_process_limit = 100
service imap-login {
  inet_listener imap {
    port = {imap}
  }
  inet_listener imaps {
    port = {imaps}
    ssl = yes
  }
}
service lmtp {
  inet_listener lmtp {
    port = {lmtp}
  }
}
service anvil {
  client_limit = 1000
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
passdb {
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {base}/users
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home={base}/mail/%u
}
namespace inbox {
  inbox = yes
  mailbox Junk {
    special_use = \\Junk
    auto = create
  }
}
";
