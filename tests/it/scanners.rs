//! What a stranger's scanners find: nmap looks for an open relay, testssl.sh for weak TLS.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;

use crate::harness::daemon::{Config, Daemon, account_hash};
use crate::harness::{TempDir, certificate, program, run};

/// A daemon with a certificate where everybody must authenticate, loopback too: a scanner on this
/// host is to be treated as any stranger is.
fn scanned(dir: &TempDir) -> Daemon {
    let (cert, key) = certificate(dir);
    let pair =
        format!("[{{ cert_file = \"{}\", key_file = \"{}\" }}]", cert.display(), key.display());
    let account =
        format!("[[account]]\nname = \"shop\"\npassword_hash = \"{}\"", account_hash("secret"));
    let config = Config::new()
        .verp()
        .set("submission", "auth", "\"required\"")
        .set("tls", "certificates", &pair)
        .table(&account);
    Daemon::start(config)
}

#[test]
fn nmap_finds_no_open_relay_and_only_the_commands_that_there_are() {
    let dir = TempDir::new("nmap");
    let daemon = scanned(&dir);
    let (submission, reports) = (nmap(daemon.smtp), nmap(daemon.inbound));
    assert!(submission.contains("isn't an open relay, authentication needed"), "{submission}");
    assert!(reports.contains("doesn't seem to be an open relay, all tests failed"), "{reports}");
    for said in [&submission, &reports] {
        let commands = said.lines().find(|line| line.contains("smtp-commands: "));
        let commands = commands.unwrap_or_else(|| panic!("{said}"));
        for word in ["PIPELINING", "SIZE", "8BITMIME", "ENHANCEDSTATUSCODES", "STARTTLS"] {
            assert!(commands.contains(word), "{word}: {commands}");
        }
        for word in ["VRFY", "EXPN", "ETRN", "XCLIENT", "TURN", "DEBUG"] {
            assert!(!commands.contains(word), "{word}: {commands}");
        }
    }
    assert!(!reports.contains("AUTH"), "{reports}");
}

fn nmap(server: SocketAddr) -> String {
    // The plus sign runs the scripts although the port is none of those of SMTP.
    let output = run(Command::new(program("nmap", "nmap"))
        .args(["-n", "-Pn", "-sT", "-p", &server.port().to_string()])
        .args(["--script", "+smtp-open-relay,+smtp-commands", &server.ip().to_string()]));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn testssl_finds_no_weakness_behind_starttls() {
    let dir = TempDir::new("testssl");
    let daemon = scanned(&dir);
    // Both servers show the same configuration of TLS; one scan takes long enough.
    let findings = testssl(&dir, daemon.smtp);
    let finding = |id: &str| {
        let row = findings.iter().find(|row| row["id"] == id);
        let row = row.unwrap_or_else(|| panic!("{id} was not looked at: {findings:?}"));
        row["finding"].as_str().unwrap().to_owned()
    };
    for weak in [
        "SSLv2",
        "SSLv3",
        "TLS1",
        "TLS1_1",
        "cipherlist_NULL",
        "cipherlist_aNULL",
        "cipherlist_EXPORT",
        "cipherlist_LOW",
        "cipherlist_3DES_IDEA",
        "cipherlist_AVERAGE",
    ] {
        assert_eq!(finding(weak), "not offered", "{weak}");
    }
    for strong in ["TLS1_2", "TLS1_3", "cipherlist_STRONG"] {
        assert!(finding(strong).starts_with("offered"), "{strong}");
    }
    for hole in ["heartbleed", "CCS", "ROBOT"] {
        assert!(finding(hole).starts_with("not vulnerable"), "{hole}");
    }
    for row in &findings {
        let severity = row["severity"].as_str().unwrap();
        let is_weakness = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"].contains(&severity);
        assert!(!is_weakness, "{row}");
    }
}

/// Protocols, cipher categories, Heartbleed, CCS injection and ROBOT: what does not follow from
/// one another, or takes minutes.
fn testssl(dir: &TempDir, server: SocketAddr) -> Vec<Value> {
    let report = dir.path().join("testssl.json");
    let output = Command::new(program("testssl", "testssl.sh"))
        .args(["--warnings", "off", "--color", "0", "--quiet", "--ip", "one"])
        .args(["--starttls", "smtp", "-p", "-s", "-H", "-I", "-BB"])
        .arg("--jsonfile")
        .arg(&report)
        .arg(server.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = std::fs::read_to_string(&report).unwrap_or_else(|error| panic!("{error}: {said}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
