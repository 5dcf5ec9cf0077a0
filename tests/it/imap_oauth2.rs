//! Logging in to a real Dovecot with access tokens that expire, rotate and are revoked.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::harness::daemon::{Config, Daemon};
use crate::harness::dovecot::Dovecot;
use crate::harness::http;
use crate::harness::provider::Provider;
use crate::harness::report::dsn;
use crate::harness::sink::Sink;
use crate::harness::{SOON, wait_for};

/// A Dovecot that believes the tokens of a provider, and a daemon that has its refresh token.
struct Story {
    dovecot: Dovecot,
    provider: Provider,
    daemon: Daemon,
    refresh_token: PathBuf,
    _sink: Sink,
}

fn story(mechanism: &str, lifetime_secs: u64) -> Story {
    let provider = Provider::start(lifetime_secs);
    let mut dovecot = Dovecot::prepare(PASSDB);
    fs::write(dovecot.path().join("oauth2.conf"), provider.dovecot_conf()).unwrap();
    dovecot.up();
    let refresh_token = dovecot.path().join("refresh-token");
    fs::write(&refresh_token, "refresh-0\n").unwrap();
    let sink = Sink::start();
    let more =
        format!("auth = \"{mechanism}\"\n{}", provider.table(&refresh_token.display().to_string()));
    let config = Config::new().preserve().relay(sink.address);
    let daemon = Daemon::start(config.table(&dovecot.table("bounces", &more)));
    Story { dovecot, provider, daemon, refresh_token, _sink: sink }
}

impl Story {
    /// Makes the daemon log in again.
    fn reconnect(&mut self) {
        self.dovecot.down();
        self.dovecot.up();
    }

    /// Delivers a report and returns once it is captured.
    fn capture(&self, name: &str, count: u64) {
        let id = format!("<{name}@app.test>");
        self.dovecot.deliver("", &dsn(&id, &[("b@dest.test", "failed")]));
        self.daemon.await_mailbox("captured", |mailbox| mailbox["counts"]["captured"] == count);
    }
}

#[test]
fn both_mechanisms_log_in_and_a_rotated_refresh_token_is_kept_private() {
    for mechanism in ["xoauth2", "oauthbearer"] {
        let story = story(mechanism, 3600);
        story.capture("one", 1);
        assert_eq!(story.provider.given(), 1, "{mechanism}");
        assert_eq!(fs::read_to_string(&story.refresh_token).unwrap(), "refresh-1\n");
        let mode = fs::metadata(&story.refresh_token).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let log = story.dovecot.log();
        assert!(log.to_lowercase().contains(&format!("method={mechanism}")), "{log}");
        for secret in ["access-1", "refresh-0", "refresh-1"] {
            assert!(!story.daemon.log().contains(secret), "{secret} stands in the log");
        }
    }
}

#[test]
fn a_token_is_used_until_it_expires_and_renewed_when_it_is_refused() {
    let mut long = story("xoauth2", 3600);
    long.capture("one", 1);
    long.reconnect();
    long.capture("two", 2);
    assert_eq!(long.provider.given(), 1, "the token was good for both logins");
    long.provider.expire_all();
    long.reconnect();
    long.capture("three", 3);
    assert_eq!(long.provider.given(), 2, "a token that is refused is not tried again");
    drop(long);

    let mut short = story("oauthbearer", 1);
    short.capture("one", 1);
    short.reconnect();
    short.capture("two", 2);
    assert!(short.provider.given() >= 2, "the first has expired");
    assert_eq!(
        fs::read_to_string(&short.refresh_token).unwrap(),
        format!("refresh-{}\n", short.provider.given())
    );
}

#[test]
fn a_revoked_grant_is_told_and_a_new_one_is_taken_up() {
    let mut story = story("xoauth2", 3600);
    story.capture("one", 1);
    story.provider.revoke();
    story.reconnect();
    let mailbox =
        story.daemon.await_mailbox("refused", |mailbox| mailbox["state"] == "authenticationError");
    let error = mailbox["lastError"]["message"].as_str().unwrap();
    assert!(error.contains("invalid_grant: Token was revoked"), "{error}");
    let (_, _, body) = http::get_raw(story.daemon.http, "/metrics", "");
    let text = String::from_utf8_lossy(&body).into_owned();
    let line = "rebound_mailbox_state{mailbox=\"bounces\",state=\"authenticationError\"} 1";
    assert!(text.contains(line), "{text}");
    story.provider.grant("refresh-new");
    fs::write(&story.refresh_token, "refresh-new\n").unwrap();
    story.capture("two", 2);
}

#[test]
fn a_person_logs_in_with_a_device_code() {
    let story = story("oauthbearer", 3600);
    story.capture("one", 1);
    let provider = story.provider.clone();
    let agreeing = std::thread::spawn(move || {
        // The command has asked once and was told to wait.
        std::thread::park_timeout(std::time::Duration::from_millis(1500));
        provider.agree();
    });
    let (code, shown) = story.daemon.command(&["oauth2", "login", "bounces"]);
    agreeing.join().unwrap();
    assert_eq!(code, 0, "{shown}");
    assert!(shown.contains("open https://provider.test/device"), "{shown}");
    assert!(shown.contains("and type ABCD-EFGH"), "{shown}");
    assert_eq!(fs::read_to_string(&story.refresh_token).unwrap(), "refresh-2\n");
    assert!(!shown.contains("refresh-2"), "the token itself is not shown");
    wait_for("the daemon goes on", SOON, || {
        (story.daemon.mailbox()["state"] == "connected").then_some(())
    });
}

/// Tokens are checked at the provider.
const PASSDB: &str = "\
passdb {
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {base}/oauth2.conf
}
";
