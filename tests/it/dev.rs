//! `rebound dev`, `rebound send-test` and curl, as the README has them.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::harness::{SOON, TempDir, daemon, free_port, program, run, signal, wait_for};

/// A running `rebound dev` on free ports.
pub(crate) struct Dev {
    dir: TempDir,
    child: Child,
    smtp: SocketAddr,
    pub(crate) http: SocketAddr,
}

impl Dev {
    pub(crate) fn start() -> Self {
        let dir = TempDir::new("dev");
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (smtp, inbound, http) = (address(), address(), address());
        let config = dir.file(
            "dev.toml",
            format!(
                "[submission]\nlisten = [\"{smtp}\"]\n[inbound]\nlisten = [\"{inbound}\"]\n\
                 [http]\nlisten = [\"{http}\"]\n[queue]\nretry_after = [\"1s\"]\n"
            ),
        );
        let path = dir.path().join("notify");
        let notify = UnixDatagram::bind(&path).unwrap();
        let out = std::fs::File::create(dir.path().join("out")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_rebound"))
            .arg("dev")
            .arg("--config")
            .arg(&config)
            .env("NOTIFY_SOCKET", &path)
            .env("TMPDIR", dir.path())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        let said = dir.path().join("out");
        daemon::await_ready(&notify, &mut child, || {
            std::fs::read_to_string(&said).unwrap_or_default()
        });
        Self { dir, child, smtp, http }
    }

    /// Runs `send-test --wait`; its exit code and what it printed.
    fn send_test(&self, to: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_rebound"))
            .args(["send-test", "--wait", "--settle", "4"])
            .args(["--server", &self.smtp.to_string(), "--api", &format!("http://{}", self.http)])
            .args(to.iter().flat_map(|to| ["--to", to]))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.code(), said + &String::from_utf8_lossy(&output.stderr))
    }

    /// What curl prints for a path.
    fn curl(&self, path: &str) -> Value {
        let url = format!("http://{}{path}", self.http);
        let output =
            run(Command::new(program("curl", "curl")).args(["-sS", "--max-time", "30", &url]));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "{}",
                std::fs::read_to_string(self.dir.path().join("out")).unwrap_or_default()
            );
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn the_first_minute_of_the_readme() {
    let dev = Dev::start();
    let to = ["550-5.1.1@sim.test", "dsn-5.2.2-after-2s@sim.test", "ok@sim.test"];
    let (code, said) = dev.send_test(&to);
    assert_eq!(code, Some(1), "one failed: {said}");
    for (recipient, state) in to.iter().zip(["failed", "bounced", "relayed"]) {
        let line = format!("{recipient}  {state}");
        assert!(said.lines().any(|have| have.starts_with(&line)), "`{line}` is not in: {said}");
    }
    let message_id = said.lines().next().unwrap().split(' ').nth(3).unwrap();
    let bare = message_id.trim_matches(['<', '>']);
    let answer = dev.curl(&format!("/v1/bounces/{bare}"));
    assert_eq!(answer["messageId"], message_id, "{answer:#}");
    let bounces = answer["bounces"].as_array().unwrap();
    assert_eq!(bounces.len(), 2, "{answer:#}");
    for (recipient, captured_by, status, category) in
        [(to[0], "inline", "5.1.1", "user_unknown"), (to[1], "listener", "5.2.2", "mailbox_full")]
    {
        let bounce = bounces.iter().find(|bounce| bounce["recipient"] == recipient).unwrap();
        assert_eq!(bounce["capturedBy"], captured_by, "{bounce:#}");
        assert_eq!(bounce["action"], "failed", "{bounce:#}");
        assert_eq!(bounce["response"]["status"], status, "{bounce:#}");
        assert_eq!(bounce["response"]["category"], category, "{bounce:#}");
        assert_eq!(bounce["response"]["fault"], "recipient", "{bounce:#}");
        assert!(bounce["mta"].is_string(), "{bounce:#}");
    }
    let hints = std::fs::read_to_string(dev.dir.path().join("out")).unwrap();
    let starttls = "STARTTLS is offered with a self-signed certificate: ";
    let cert = hints.split(starttls).nth(1).unwrap().lines().next().unwrap();
    run(Command::new(program("openssl", "openssl"))
        .args(["s_client", "-starttls", "smtp", "-connect", &dev.smtp.to_string()])
        .args(["-verify_return_error", "-verify_hostname", "localhost", "-CAfile", cert])
        .stdin(Stdio::null()));
    assert!(hints.contains("rebound send-test") && hints.contains("curl"), "{hints}");
}

#[test]
fn every_simulated_address_does_what_the_table_says() {
    let dev = Dev::start();
    for (to, state) in [
        ("ok@sim.test", "relayed"),
        ("anybody@elsewhere.test", "relayed"),
        ("550-5.7.1@sim.test", "failed"),
        ("554-5.7.1-at-data@sim.test", "failed"),
        ("554-5.7.1-at-end@sim.test", "failed"),
        ("450-4.2.0-once@sim.test", "relayed"),
        ("dsn-noheaders@sim.test", "bounced"),
        ("delivered@sim.test", "delivered"),
        ("delay@sim.test", "relayed"),
        ("autoreply@sim.test", "relayed"),
    ] {
        let (code, said) = dev.send_test(&[to]);
        let last = said.lines().rfind(|line| line.starts_with(to)).unwrap_or_default();
        assert!(last.starts_with(&format!("{to}  {state}")), "{to}: {said}");
        let want = if ["failed", "bounced"].contains(&state) { 1 } else { 0 };
        assert_eq!(code, Some(want), "{to}: {said}");
    }
}

#[test]
fn a_recipient_that_is_still_tried_is_exit_75() {
    let dev = Dev::start();
    let output = Command::new(env!("CARGO_BIN_EXE_rebound"))
        .args(["send-test", "--wait", "--timeout", "3", "--to", "452-4.2.2@sim.test"])
        .args(["--server", &dev.smtp.to_string(), "--api", &format!("http://{}", dev.http)])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(75), "{output:?}");
}

#[test]
fn without_a_daemon_send_test_is_exit_69() {
    let nobody = format!("127.0.0.1:{}", free_port());
    let output = Command::new(env!("CARGO_BIN_EXE_rebound"))
        .args(["send-test", "--to", "ok@sim.test", "--server", &nobody])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(69), "{output:?}");
}

#[test]
fn dev_leaves_nothing_behind_when_it_is_asked_to_end() {
    let mut dev = Dev::start();
    let left = || {
        let entries = std::fs::read_dir(dev.dir.path()).unwrap();
        entries
            .filter(|e| {
                e.as_ref().unwrap().file_name().to_string_lossy().starts_with("rebound-dev")
            })
            .count()
    };
    assert_eq!(left(), 1);
    signal("TERM", dev.child.id());
    let status = wait_for("it ends", SOON, || dev.child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    assert_eq!(left(), 0);
}
