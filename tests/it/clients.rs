//! Clients that people use, and mail that must arrive octet for octet.

use std::path::{Path, PathBuf};
use std::process::Command;

use lettre::address::Envelope;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{SmtpTransport, Transport};
use serde_json::Value;

use crate::harness::daemon::{Config, Daemon, account_hash, scram_verifier};
use crate::harness::postfix::{Hop, Postfix};
use crate::harness::sink::{Mail, Sink};
use crate::harness::smtp::{Client, submit};
use crate::harness::{SOON, TempDir, certificate, http, program, run, wait_for};

const APP: &str = "anna@app.test";
const TO: &str = "b@dest.test";
/// An address for which our Postfix is not the last stop.
const TO_ELSEWHERE: &str = "b@elsewhere.test";
const PASSWORD: &str = "correct horse";

/// A sink, a daemon with a certificate and the accounts `shop` and `till`, and the certificate.
///
/// Of the second's password there is a verifier of SCRAM-SHA-256.
struct Place {
    dir: TempDir,
    cert: PathBuf,
    sink: Sink,
    daemon: Daemon,
}

impl Place {
    fn new() -> Self {
        let dir = TempDir::new("clients");
        let (cert, key) = certificate(&dir);
        let sink = Sink::start();
        let pair =
            format!("[{{ cert_file = \"{}\", key_file = \"{}\" }}]", cert.display(), key.display());
        let account = |name: &str, hash: &str| {
            format!("[[account]]\nname = \"{name}\"\npassword_hash = \"{hash}\"")
        };
        let config = Config::new()
            .relay(sink.address)
            .set("tls", "certificates", &pair)
            .table(&account("shop", &account_hash(PASSWORD)))
            .table(&account("till", &scram_verifier(PASSWORD)));
        let daemon = Daemon::start(config);
        Self { dir, cert, sink, daemon }
    }

    fn port(&self) -> String {
        self.daemon.smtp.port().to_string()
    }

    fn cert(&self) -> &str {
        self.cert.to_str().unwrap()
    }

    /// A mail with this subject, in a file.
    fn mail(&self, subject: &str) -> (PathBuf, Vec<u8>) {
        let mail = format!(
            "Message-ID: <{subject}@app.test>\r\nDate: Mon, 23 Nov 2026 15:00:00 +0000\r\n\
             From: Anna <{APP}>\r\nTo: <{TO}>\r\nSubject: {subject}\r\n\
             X-Folded: one\r\n\ttwo  three \r\n\r\nHello.\r\n..dots\r\n.\r\n\r\nTr\u{e4}ger\r\n"
        )
        .into_bytes();
        (self.dir.file(subject, &mail), mail)
    }

    /// The mail arrived as it was sent, below what was added, and belongs to the account.
    fn assert_arrived(&self, subject: &str, sent: &[u8], account: &str) {
        self.assert_arrived_for(TO, subject, sent, account);
    }

    fn assert_arrived_for(&self, to: &str, subject: &str, sent: &[u8], account: &str) {
        let arrived = self.sink.wait_for_text(&format!("Subject: {subject}\r\n"));
        assert_same_below_added(&arrived, sent);
        assert_eq!(arrived.to, [to]);
        let path = format!("/v1/bounces/{}", http::encode(&format!("<{subject}@app.test>")));
        let (status, answer) = self.daemon.get(&path);
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["account"], account, "{answer}");
        assert_eq!(answer["bounces"], Value::Array(Vec::new()), "{answer}");
    }
}

/// What was sent is the end of what arrived; in front of it are whole added lines.
fn assert_same_below_added(arrived: &Mail, sent: &[u8]) {
    let added = arrived.octets.len().checked_sub(sent.len()).expect("nothing is lost");
    assert!(arrived.octets.ends_with(sent), "{}", String::from_utf8_lossy(&arrived.octets));
    let added = String::from_utf8_lossy(&arrived.octets[..added]).into_owned();
    assert!(added.ends_with("\r\n"), "{added:?}");
    for line in added.lines().filter(|line| !line.starts_with([' ', '\t'])) {
        let name = line.split(':').next().unwrap();
        assert!(["Received", "X-Rebound-Id"].contains(&name), "{line}");
    }
}

#[test]
fn swaks_submits() {
    let place = Place::new();
    let swaks = |path: &Path, secure: &[&str]| {
        // It ends the data with a CRLF of its own.
        let mail = std::fs::read(path).unwrap();
        let data = place.dir.file("swaks-data", mail.strip_suffix(b"\r\n").unwrap());
        run(Command::new(program("swaks", "swaks"))
            .args(["--server", "localhost", "--port", &place.port(), "--from", APP, "--to", TO])
            .arg("--data")
            .arg(format!("@{}", data.display()))
            .arg("--suppress-data")
            .args(secure));
    };
    let (path, mail) = place.mail("swaks-plain");
    swaks(&path, &[]);
    place.assert_arrived("swaks-plain", &mail, "default");
    for (subject, auth) in [("swaks-plain-auth", "PLAIN"), ("swaks-login-auth", "LOGIN")] {
        let (path, mail) = place.mail(subject);
        let user = ["--auth-user", "shop", "--auth-password", PASSWORD];
        let secure = [&["--tls", "--auth", auth], user.as_slice()].concat();
        swaks(&path, &secure);
        place.assert_arrived(subject, &mail, "shop");
    }
}

#[test]
fn smtplib_submits() {
    let place = Place::new();
    let (path, mail) = place.mail("smtplib-plain");
    python(&place, "smtplib_send.py", &path, &[]);
    place.assert_arrived("smtplib-plain", &mail, "default");
    let (path, mail) = place.mail("smtplib-auth");
    python(&place, "smtplib_send.py", &path, &[place.cert(), "shop", PASSWORD]);
    place.assert_arrived("smtplib-auth", &mail, "shop");
}

#[test]
fn nodemailer_submits() {
    let place = Place::new();
    let module = Path::new("/usr/share/nodejs/nodemailer");
    assert!(module.exists(), "nodemailer is missing: apt-get install node-nodemailer");
    let node = |path: &Path, secure: &[&str]| {
        run(Command::new(program("node", "nodejs"))
            .env("NODE_PATH", "/usr/share/nodejs")
            .arg(script("nodemailer_send.js"))
            .args([&place.port(), APP, TO])
            .arg(path)
            .args(secure));
    };
    let (path, mail) = place.mail("nodemailer-plain");
    node(&path, &[]);
    place.assert_arrived("nodemailer-plain", &mail, "default");
    let (path, mail) = place.mail("nodemailer-auth");
    node(&path, &[place.cert(), "shop", PASSWORD]);
    place.assert_arrived("nodemailer-auth", &mail, "shop");
}

/// msmtp, which hands over the mail at `path`.
fn msmtp(place: &Place, path: &Path, secure: &[String]) -> Command {
    let mut command = Command::new(program("msmtp", "msmtp"));
    command
        .arg("--file=/dev/null")
        .args(["--host=localhost".to_owned(), format!("--port={}", place.port())])
        .arg(format!("--from={APP}"))
        .args(secure)
        .arg(TO)
        .stdin(std::fs::File::open(path).unwrap());
    command
}

/// What makes msmtp authenticate within TLS.
fn with_auth(place: &Place, mechanism: &str, user: &str, password: &str) -> [String; 5] {
    [
        "--tls=on".to_owned(),
        format!("--tls-trust-file={}", place.cert()),
        format!("--auth={mechanism}"),
        format!("--user={user}"),
        format!("--passwordeval=printf '%s' '{password}'"),
    ]
}

#[test]
fn msmtp_submits() {
    let place = Place::new();
    let (path, mail) = place.mail("msmtp-plain");
    run(&mut msmtp(&place, &path, &[]));
    place.assert_arrived("msmtp-plain", &mail, "default");
    let (path, mail) = place.mail("msmtp-auth");
    run(&mut msmtp(&place, &path, &with_auth(&place, "plain", "shop", PASSWORD)));
    place.assert_arrived("msmtp-auth", &mail, "shop");
}

#[test]
fn gnu_sasl_proves_its_password_by_scram_and_checks_ours() {
    let place = Place::new();
    for (mechanism, subject) in [("scram-sha-256", "scram"), ("plain", "scram-plain")] {
        let (path, mail) = place.mail(subject);
        run(&mut msmtp(&place, &path, &with_auth(&place, mechanism, "till", PASSWORD)));
        place.assert_arrived(subject, &mail, "till");
    }
    let (path, _) = place.mail("scram-refused");
    for (user, password) in [("till", "wrong horse"), ("shop", PASSWORD), ("nobody", PASSWORD)] {
        let secure = with_auth(&place, "scram-sha-256", user, password);
        let output = msmtp(&place, &path, &secure).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("535 5.7.8") && !output.status.success(), "{user}: {said}");
    }
}

#[test]
fn lettre_submits() {
    let place = Place::new();
    let transport = |tls: Tls| {
        SmtpTransport::builder_dangerous("localhost").port(place.daemon.smtp.port()).tls(tls)
    };
    let send = |transport: &SmtpTransport, subject: &str, account: &str| {
        let (_, mail) = place.mail(subject);
        let (from, to) = (APP.parse().unwrap(), vec![TO.parse().unwrap()]);
        let envelope = Envelope::new(Some(from), to).unwrap();
        // It ends the data with a CRLF of its own.
        let data = mail.strip_suffix(b"\r\n").unwrap();
        let reply = transport.send_raw(&envelope, data).unwrap();
        assert!(reply.is_positive(), "{reply:?}");
        place.assert_arrived(subject, &mail, account);
    };
    send(&transport(Tls::None).build(), "lettre-plain", "default");
    let root = Certificate::from_pem(&std::fs::read(&place.cert).unwrap()).unwrap();
    let tls = TlsParameters::builder("localhost".to_owned()).add_root_certificate(root);
    let secure = transport(Tls::Required(tls.build_rustls().unwrap()))
        .credentials(Credentials::new("shop".to_owned(), PASSWORD.to_owned()));
    for (subject, mechanism) in
        [("lettre-plain-auth", Mechanism::Plain), ("lettre-login-auth", Mechanism::Login)]
    {
        let secure = secure.clone().authentication(vec![mechanism]).build();
        send(&secure, subject, "shop");
    }
}

#[test]
fn phpmailer_submits() {
    let place = Place::new();
    let library = Path::new("/usr/share/php/libphp-phpmailer");
    assert!(library.exists(), "PHPMailer is missing: apt-get install libphp-phpmailer");
    let php = |subject: &str, secure: &[&str]| {
        let sent = place.dir.path().join(subject);
        run(Command::new(program("php", "php-cli"))
            .arg(script("phpmailer_send.php"))
            .args([&place.port(), APP, TO, subject])
            .arg(&sent)
            .args(secure));
        std::fs::read(sent).unwrap()
    };
    let mail = php("phpmailer-plain", &[]);
    place.assert_arrived("phpmailer-plain", &mail, "default");
    let mail = php("phpmailer-auth", &[place.cert(), "shop", PASSWORD]);
    place.assert_arrived("phpmailer-auth", &mail, "shop");
}

#[test]
fn postfix_relays_into_us() {
    let place = Place::new();
    let (_, mail) = place.mail("postfix-auth");
    let hop = Hop {
        name: format!("[localhost]:{}", place.port()),
        ca_file: place.cert.clone(),
        username: "shop",
        password: PASSWORD,
    };
    let postfix = Postfix::start_with_relayhost(&hop);
    let mut client = Client::connect(postfix.address);
    let reply = client.send(APP, &[TO_ELSEWHERE], &mail).unwrap();
    assert!(reply.starts_with("250"), "{reply}");
    place.assert_arrived_for(TO_ELSEWHERE, "postfix-auth", &mail, "shop");
    wait_for("Postfix has verified us", SOON, || {
        let log = postfix.log();
        let verified = log.contains("Verified TLS connection established to localhost");
        (verified && log.contains("status=sent (250 2.0.0 Ok: queued as ")).then_some(())
    });
}

#[test]
fn exim_relays_into_us() {
    let place = Place::new();
    let (_, mail) = place.mail("exim-auth");
    let base = place.dir.path();
    let exim = exim();
    for name in ["spool", "log"] {
        std::fs::create_dir(base.join(name)).unwrap();
        run(Command::new(program("chown", "coreutils")).arg(EXIM_USER).arg(base.join(name)));
    }
    let conf = EXIM_CONF
        .replace("{base}", &base.display().to_string())
        .replace("{exim}", &exim.display().to_string())
        .replace("{port}", &place.port())
        .replace("{cert}", place.cert())
        .replace("{password}", PASSWORD);
    let conf = place.dir.file("exim.conf", conf);
    let path = place.dir.file("exim-mail", &mail);
    let output = run(Command::new(&exim)
        .arg("-C")
        .arg(conf)
        .args(["-odf", "-oi", "-f", APP, TO])
        .stdin(std::fs::File::open(path).unwrap()));
    let log = std::fs::read_to_string(base.join("log/mainlog")).unwrap_or_default();
    let sent = log.lines().find(|line| line.contains(" => b@dest.test "));
    let sent = sent.unwrap_or_else(|| panic!("{log}\n{output:?}"));
    for word in ["X=TLS1.3:", "CV=yes", "A=plain", "C=\"250 2.0.0 Ok: queued as "] {
        assert!(sent.contains(word), "{word}: {sent}");
    }
    place.assert_arrived("exim-auth", &mail, "shop");
}

/// Its package and Postfix's exclude each other, so it is unpacked and not installed.
fn exim() -> PathBuf {
    let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ci-exim/usr/sbin/exim4");
    if unpacked.exists() {
        return unpacked;
    }
    let installed = PathBuf::from("/usr/sbin/exim4");
    assert!(installed.exists(), "exim4 is missing: bash .ci/run unpacks it");
    installed
}

#[test]
fn an_attachment_of_10_mb_arrives_octet_for_octet() {
    let place = Place::new();
    let mut mail = "Message-ID: <big@app.test>\r\nDate: Mon, 23 Nov 2026 15:00:00 +0000\r\n\
         From: anna@app.test\r\nTo: b@dest.test\r\nSubject: big\r\nMIME-Version: 1.0\r\n\
         Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        .to_owned();
    let mut state: u64 = 42;
    let lines = 10 * 1_048_576 / 57;
    for _ in 0..lines {
        for _ in 0..76 {
            // Numerical Recipes' generator: any that does not repeat will do.
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            mail.push(char::from(ALPHABET[usize::try_from(state >> 58).unwrap()]));
        }
        mail.push_str("\r\n");
    }
    submit(place.daemon.smtp, APP, &[TO], mail.as_bytes());
    place.assert_arrived("big", mail.as_bytes(), "default");
    let again =
        mail.replace("<big@", "<big-smtplib@").replace("Subject: big", "Subject: big-smtplib");
    let path = place.dir.file("big-smtplib", &again);
    python(&place, "smtplib_send.py", &path, &[]);
    place.assert_arrived("big-smtplib", again.as_bytes(), "default");
}

#[test]
fn a_dkim_signature_still_verifies_behind_us() {
    let place = Place::new();
    let key = place.dir.path().join("dkim.key");
    run(Command::new(program("openssl", "openssl"))
        .args(["genrsa", "-traditional", "-out"])
        .arg(&key)
        .arg("2048"));
    let (path, _) = place.mail("dkim");
    let signed = place.dir.path().join("signed");
    dkim(&["sign"], &[&key, &path, &signed]);
    dkim(&["verify"], &[&key, &signed]);
    let mail = std::fs::read(&signed).unwrap();
    submit(place.daemon.smtp, APP, &[TO], &mail);
    let arrived = place.sink.wait_for_text("Subject: dkim\r\n");
    let behind = place.dir.file("behind", &arrived.octets);
    dkim(&["verify"], &[&key, &behind]);
}

fn python(place: &Place, name: &str, path: &Path, secure: &[&str]) {
    run(Command::new(program("python3", "python3"))
        .arg(script(name))
        .args([&place.port(), APP, TO])
        .arg(path)
        .args(secure));
}

fn dkim(command: &[&str], files: &[&Path]) {
    let output = Command::new(program("python3", "python3"))
        .arg(script("dkim_mail.py"))
        .args(command)
        .args(files)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!said.contains("No module named"), "dkimpy is missing: apt-get install python3-dkim");
    assert!(output.status.success(), "{command:?}: {said}");
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/peers").join(name)
}

/// The user as which Debian's Exim runs.
const EXIM_USER: &str = "Debian-exim";
const EXIM_CONF: &str = "\
primary_hostname = exim.test
exim_path = {exim}
spool_directory = {base}/spool
log_file_path = {base}/log/%slog
keep_environment =
never_users =
begin routers
smarthost:
  driver = manualroute
  transport = out
  route_list = * localhost byname
  self = send
begin transports
out:
  driver = smtp
  port = {port}
  hosts_require_tls = *
  hosts_require_auth = *
  tls_verify_certificates = {cert}
  tls_verify_hosts = *
begin retry
* * F,1m,1s
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^shop^{password}
";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

#[test]
fn a_hang_up_shows_new_certificates_and_keeps_the_old_ones_where_the_new_are_bad() {
    let place = Place::new();
    let shown = || {
        let script = format!(
            "openssl s_client -connect {} -starttls smtp </dev/null 2>/dev/null \
             | openssl x509 -noout -fingerprint -sha256",
            place.daemon.smtp
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let old = shown();
    assert!(old.contains("Fingerprint="), "{old}");

    let key = place.dir.path().join("key.pem");
    let good_key = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    place.daemon.signal("HUP");
    wait_for("the log refuses it", SOON, || {
        place.daemon.log().contains("the configuration is not reloaded").then_some(())
    });
    assert_eq!(shown(), old);
    assert!(!place.daemon.log().contains("reloaded certificates"));

    std::fs::write(&key, good_key).unwrap();
    certificate(&place.dir);
    place.daemon.signal("HUP");
    wait_for("the new certificate is shown", SOON, || (shown() != old).then_some(()));
}
