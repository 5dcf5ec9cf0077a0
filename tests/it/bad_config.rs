//! A wrong configuration stops the start, and says where it is wrong and what was expected.

use std::process::{Command, Output};

use crate::harness::daemon::{Config, Daemon};
use crate::harness::{TempDir, free_listener, free_port};

/// Runs `rebound` to its end.
fn rebound(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rebound")).args(arguments).output().unwrap()
}

/// The end of `rebound serve` with this file.
fn serve(dir: &TempDir, text: &str) -> (Option<i32>, String) {
    let listen = |section: &str| format!("[{section}]\nlisten = [\"127.0.0.1:{}\"]\n", free_port());
    let mut text = text.to_owned();
    for section in ["submission", "inbound", "http"] {
        // A configuration that is taken by mistake must not block the ports of others.
        if !text.contains(&format!("[{section}]")) {
            text += &listen(section);
        }
    }
    let path = dir.file("rebound.toml", text);
    let output = rebound(&["serve", "--config", path.to_str().unwrap()]);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// Each text ends the start with 78, and all of these words are said.
fn assert_named(rows: &[(&str, &str, &[&str])]) {
    let dir = TempDir::new("config");
    let data = format!("data_dir = \"{}/data\"\n", dir.path().display());
    for (kind, text, named) in rows {
        // Lines are counted in the operator's text, so the directory goes to the end of the top.
        let text = if text.starts_with('[') { (*text).to_owned() } else { format!("{text}{data}") };
        let (code, said) = serve(&dir, &text);
        assert_eq!(code, Some(78), "{kind}: {said}");
        for word in *named {
            assert!(said.contains(word), "{kind}: `{word}` is not in: {said}");
        }
        assert!(!said.contains("panicked"), "{kind}: {said}");
    }
}

#[test]
fn wrong_rules_are_named_with_their_file_and_line() {
    let dir = TempDir::new("config");
    let data = format!("data_dir = \"{}/data\"\n", dir.path().display());
    let missing = dir.path().join("missing.txt");
    for key in ["rules_file", "alias_rules_file"] {
        let wrong = dir.file("wrong.txt", "# rules\n\n    a pattern of nothing -> x\n");
        for (path, problem) in [
            (&missing, format!("cannot read {}", missing.display())),
            (&wrong, format!("{}, line 3: a pattern stands before", wrong.display())),
        ] {
            let text = format!("{data}[bounces]\n{key} = \"{}\"\n", path.display());
            let (code, said) = serve(&dir, &text);
            assert_eq!(code, Some(78), "{said}");
            assert!(
                said.contains(&format!("`bounces.{key}`")) && said.contains(&problem),
                "{said}"
            );
        }
    }
}

#[test]
fn a_wrong_file_is_named_with_line_and_key_and_exit_78() {
    assert_named(&[
        ("no TOML", "hostname = \n", &["rebound.toml", "1"]),
        ("unknown key", "\nhostnam = \"x.test\"\n", &["rebound.toml", "2", "hostnam", "hostname"]),
        (
            "unknown key in a section",
            "[relay]\nhost = \"h.test\"\nusrname = \"u\"\n",
            &["rebound.toml", "3", "usrname", "username"],
        ),
        ("unknown section", "[relya]\nhost = \"x\"\n", &["rebound.toml", "1", "relya", "relay"]),
        (
            "wrong type",
            "[queue]\nattempts_max_concurrent = \"many\"\n",
            &["rebound.toml", "2", "attempts_max_concurrent", "whole number"],
        ),
        (
            "negative number",
            "[submission]\nrecipients_max = -1\n",
            &["rebound.toml", "2", "recipients_max", "whole number"],
        ),
        (
            "bad time",
            "[queue]\nlifetime = \"5 days\"\n",
            &["rebound.toml", "2", "lifetime", "5 days"],
        ),
        (
            "bad choice",
            "[relay]\ntls = \"maybe\"\n",
            &["rebound.toml", "2", "tls", "required", "opportunistic"],
        ),
    ]);
}

#[test]
fn a_value_that_cannot_be_is_named_with_what_is_wanted() {
    assert_named(&[
        (
            "bad address",
            "[submission]\nlisten = [\"localhost\"]\n",
            &["rebound.toml", "2", "listen", "127.0.0.1:2525"],
        ),
        (
            "bad network",
            "[submission]\ntrusted_networks = [\"10.0.0.0/64\"]\n",
            &["rebound.toml", "2", "trusted_networks", "10.0.0.0/64"],
        ),
        (
            "bad bounce address",
            "[inbound]\naddresses = [\"not an address\"]\n",
            &["rebound.toml", "2", "addresses"],
        ),
        (
            "bad domain",
            "[return_path]\ndomain = \"bounces..example\"\n",
            &["rebound.toml", "2", "domain"],
        ),
        (
            "account without a hash",
            "[[account]]\nname = \"shop\"\npassword_hash = \"plain text\"\n",
            &["rebound.toml", "password_hash"],
        ),
        (
            "missing file",
            "[relay]\nhost = \"h.test\"\npassword_file = \"/nonexistent/password\"\nusername = \"u\"\n",
            &["password_file", "/nonexistent/password"],
        ),
        (
            "missing rules",
            "[bounces]\nalias_rules_file = \"/no/such/file\"\n",
            &["rebound.toml", "2", "bounces.alias_rules_file", "cannot read /no/such/file"],
        ),
    ]);
}

#[test]
fn a_missing_file_is_named() {
    let output = rebound(&["serve", "--config", "/nonexistent/rebound.toml"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/rebound.toml"));
}

#[test]
fn an_occupied_port_is_named_with_its_setting() {
    let dir = TempDir::new("config");
    let taken = free_listener();
    let address = taken.local_addr().unwrap().to_string();
    let text =
        format!("data_dir = \"{}/data\"\n[http]\nlisten = [\"{address}\"]\n", dir.path().display());
    let (code, said) = serve(&dir, &text);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains(&address) && said.contains("http.listen"), "{said}");
}

#[test]
fn an_unwritable_directory_is_named() {
    let dir = TempDir::new("config");
    let file = dir.file("occupied", "a file");
    let text = format!("data_dir = \"{}/data\"\n", file.display());
    let (code, said) = serve(&dir, &text);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("data_dir") && said.contains("occupied"), "{said}");
}

#[test]
fn a_directory_in_use_is_not_shared() {
    let daemon = Daemon::start(Config::new());
    let dir = TempDir::new("config");
    let text = format!("data_dir = \"{}/data\"\n", daemon.dir.path().display());
    let (code, said) = serve(&dir, &text);
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("data") && said.contains("use"), "{said}");
}

#[test]
fn a_wrong_command_line_is_exit_64() {
    for arguments in [&["serv"][..], &["serve", "--confg", "x"], &["send-test"], &[]] {
        let output = rebound(arguments);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {output:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?} says nothing");
    }
}

#[test]
fn a_good_file_passes_the_check() {
    let dir = TempDir::new("config");
    let path = dir.file("rebound.toml", "hostname = \"relay.test\"\n[relay]\nhost = \"h.test\"\n");
    let path = path.to_str().unwrap();
    let output = rebound(&["config", "check", "--config", path]);
    assert!(output.status.success(), "{output:?}");
    let output = rebound(&["config", "show", "--config", path]);
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(shown.contains("relay.host") && shown.contains("h.test"), "{shown}");
}
