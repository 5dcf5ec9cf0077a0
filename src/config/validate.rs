//! What the types of the settings cannot say: defaults that depend on the host, and checks
//! across settings. Every problem names its key and the remedy.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::load::Environment;
use super::{
    Account, AfterCapture, Mailbox, MailboxAuth, MailboxTls, Relay, RelayTls, ReturnPathMode,
    Settings, Unparsed, webhook,
};
use crate::mail::Address;
use crate::mail::address::{ascii_domain, is_address_literal, is_domain};
use crate::secret;

/// A dotted key and what is wrong with its value.
pub(super) type Problem = (String, String);

/// Fills in what is empty and depends on the host: name, directories, files.
pub(super) fn complete(settings: &mut Settings, environment: Environment<'_>) {
    if settings.hostname.is_empty() {
        settings.hostname = host_name();
    }
    if settings.data_dir.as_os_str().is_empty() {
        settings.data_dir = default_data_dir(environment);
    }
    // They are said to others, who need not know U-labels (RFC 6531 §3.7.1).
    for name in
        [&mut settings.hostname, &mut settings.message_id_domain, &mut settings.return_path.domain]
    {
        *name = ascii_domain(name).into_owned();
    }
    if settings.postmaster.is_empty() {
        settings.postmaster = format!("postmaster@{}", settings.hostname);
    }
    let in_data_dir = |path: &mut PathBuf, name: &str| {
        if path.as_os_str().is_empty() {
            *path = settings.data_dir.join(name);
        }
    };
    in_data_dir(&mut settings.return_path.key_file, "return_path.keys");
    in_data_dir(&mut settings.http.tokens_file, "tokens");
    for mailbox in &mut settings.mailbox {
        mailbox.host = ascii_domain(&mailbox.host).into_owned();
        if let Some(oauth2) = &mut mailbox.oauth2 {
            oauth2.complete();
            in_data_dir(&mut oauth2.refresh_token_file, &format!("oauth2-{}", mailbox.name));
        }
    }
}

/// Checks what must hold between the settings.
pub(super) fn check(settings: &Settings) -> Result<(), Problem> {
    check_names(settings)?;
    check_accounts(&settings.account)?;
    check_relay(&settings.relay)?;
    check_return_path(settings)?;
    check_mailboxes(&settings.mailbox)?;
    webhook::check(&settings.webhook)?;
    if settings.queue.retry_after.is_empty() {
        return problem("queue.retry_after", "the list is empty; give at least one wait");
    }
    if settings.queue.retry_after.iter().any(|wait| wait.duration().is_zero()) {
        return problem("queue.retry_after", "a wait of 0s would never rest; give at least 1s");
    }
    if settings.suppression.expire.duration().is_zero() {
        return problem("suppression.expire", "0s would forget at once; use suppression.mode");
    }
    if settings.retention.bodies > settings.retention.keep {
        let text = format!(
            "a body goes with the records of its mail: give at most retention.keep, which is {}",
            settings.retention.keep
        );
        return problem("retention.bodies", &text);
    }
    for (key, value) in at_least_one(settings) {
        if value == 0 {
            return problem(key, "must be at least 1");
        }
    }
    Ok(())
}

fn check_names(settings: &Settings) -> Result<(), Problem> {
    let names = [
        ("hostname", &settings.hostname, is_address_literal(&settings.hostname)),
        ("message_id_domain", &settings.message_id_domain, settings.message_id_domain.is_empty()),
        ("simulator.domain", &settings.simulator.domain, false),
    ];
    for (key, name, excused) in names {
        if !excused && !is_domain(name) {
            return problem(key, &format!("`{name}` is no host name such as relay.example.com"));
        }
    }
    match Address::parse(&settings.postmaster) {
        Ok(_) => Ok(()),
        Err(error) => {
            problem("postmaster", &format!("`{}` is no address: {error}", settings.postmaster))
        }
    }
}

fn check_accounts(accounts: &[Account]) -> Result<(), Problem> {
    let mut names = BTreeSet::new();
    for (index, account) in accounts.iter().enumerate() {
        let key = |field: &str| format!("account[{index}].{field}");
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.@+".contains(c);
        if account.name.is_empty() || !account.name.chars().all(word) {
            let text = "expected letters, digits and any of `-_.@+`";
            return problem(&key("name"), &format!("`{}`: {text}", account.name));
        }
        if !names.insert(&account.name) {
            let text = format!("the name `{}` is taken by an account above", account.name);
            return problem(&key("name"), &text);
        }
        if !account.password_hash.is_empty() {
            secret::check_password_hash(&account.password_hash)
                .map_err(|text| (key("password_hash"), text))?;
        }
        for sender in &account.allowed_senders {
            let domain = sender.strip_prefix('@');
            if !domain.map_or_else(|| Address::parse(sender).is_ok(), is_domain) {
                let text = format!("`{sender}` is neither an address nor @domain");
                return problem(&key("allowed_senders"), &text);
            }
        }
    }
    Ok(())
}

fn check_relay(relay: &Relay) -> Result<(), Problem> {
    if !relay.host.is_empty() && relay.endpoint().is_none() {
        let text = format!("`{}` is none of name, name:port, [address]:port", relay.host);
        return problem("relay.host", &text);
    }
    let has_password = !relay.password.is_empty()
        || !relay.password_file.as_os_str().is_empty()
        || !relay.password_credential.is_empty()
        || !relay.password_env.is_empty();
    if !relay.username.is_empty() && !has_password {
        return problem("relay.username", "has no password; give relay.password_file");
    }
    if !relay.username.is_empty() && relay.tls == RelayTls::None && !relay.is_loopback() {
        let text = "`none` would send the password in the clear; use `required` or `implicit`";
        return problem("relay.tls", text);
    }
    Ok(())
}

fn check_mailboxes(mailboxes: &[Mailbox]) -> Result<(), Problem> {
    let mut names = BTreeSet::new();
    for (index, mailbox) in mailboxes.iter().enumerate() {
        let key = |field: &str| format!("mailbox[{index}].{field}");
        let word = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if mailbox.name.is_empty() || !mailbox.name.chars().all(word) {
            let text = format!("`{}`: expected letters, digits and any of `-_.`", mailbox.name);
            return problem(&key("name"), &text);
        }
        if !names.insert(&mailbox.name) {
            let text = format!("the name `{}` is taken by a mailbox above", mailbox.name);
            return problem(&key("name"), &text);
        }
        if !is_domain(&mailbox.host) && mailbox.host.parse::<IpAddr>().is_err() {
            let text = format!("`{}` is neither a host name nor an address", mailbox.host);
            return problem(&key("host"), &text);
        }
        if mailbox.tls == MailboxTls::None && !mailbox.is_loopback() {
            let text = "`none` would send the login in the clear; use `implicit` or `starttls`";
            return problem(&key("tls"), text);
        }
        if mailbox.folders.is_empty() {
            return problem(&key("folders"), "the list is empty; give at least \"INBOX\"");
        }
        let moves = mailbox.after == AfterCapture::Move || mailbox.unparsed == Unparsed::Move;
        if moves && mailbox.move_to.is_empty() {
            return problem(&key("move_to"), "`move` needs a folder to move to");
        }
        if moves && mailbox.folders.contains(&mailbox.move_to) {
            return problem(&key("move_to"), "must be none of the folders that are read");
        }
        if !(1..=POLL_INTERVAL_SECS_MAX).contains(&mailbox.poll_interval_secs) {
            let text = format!(
                "must be from 1 to {POLL_INTERVAL_SECS_MAX}: IDLE is begun anew within 29 minutes"
            );
            return problem(&key("poll_interval_secs"), &text);
        }
        for (field, value) in [
            ("message_bytes_max", mailbox.message_bytes_max),
            ("connect_timeout_secs", mailbox.connect_timeout_secs),
            ("command_timeout_secs", mailbox.command_timeout_secs),
        ] {
            if value == 0 {
                return problem(&key(field), "must be at least 1");
            }
        }
        check_login(mailbox, &key)?;
    }
    Ok(())
}

fn check_login(mailbox: &Mailbox, key: &dyn Fn(&str) -> String) -> Result<(), Problem> {
    let has_password = !mailbox.password.is_empty()
        || !mailbox.password_file.as_os_str().is_empty()
        || !mailbox.password_credential.is_empty()
        || !mailbox.password_env.is_empty();
    if mailbox.username.is_empty() || mailbox.username.chars().any(char::is_control) {
        return problem(&key("username"), "expected a name without control characters");
    }
    let oauth2 = match (mailbox.auth, &mailbox.oauth2) {
        (MailboxAuth::Password, _) if has_password => return Ok(()),
        (MailboxAuth::Password, _) => {
            return problem(&key("username"), "has no password; give password_file");
        }
        (MailboxAuth::Xoauth2 | MailboxAuth::Oauthbearer, Some(oauth2)) => oauth2,
        (MailboxAuth::Xoauth2 | MailboxAuth::Oauthbearer, None) => {
            return problem(&key("auth"), "needs oauth2 = { provider, client_id }");
        }
    };
    if oauth2.client_id.is_empty() {
        return problem(&key("oauth2"), "needs a client_id");
    }
    for (field, url) in [("token_url", &oauth2.token_url), ("device_url", &oauth2.device_url)] {
        let may_be_missing = field == "device_url" && url.is_empty();
        if !may_be_missing && !url.starts_with("https://") && !is_loopback_url(url) {
            let text = format!("{field}: `{url}` must begin with https://");
            return problem(&key("oauth2"), &text);
        }
    }
    Ok(())
}

/// Whether a URL leads to this machine, where nobody listens on the way.
fn is_loopback_url(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return false };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|octet| octet.is_ascii_digit()) => (host, port),
        _ => (authority, ""),
    };
    port.len() <= 5 && ["localhost", "127.0.0.1", "[::1]"].contains(&host)
}

fn check_return_path(settings: &Settings) -> Result<(), Problem> {
    let own = &settings.return_path;
    let atom = |text: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) && !text.is_empty()
    };
    if !atom(&own.prefix) || own.prefix.len() > 16 {
        return problem("return_path.prefix", "expected 1 to 16 letters, digits, `-` or `_`");
    }
    if !"+-=_.".contains(own.delimiter) {
        return problem("return_path.delimiter", "expected one of `+` `-` `=` `_` `.`");
    }
    if !own.domain.is_empty() && !is_domain(&own.domain) {
        let text = format!("`{}` is no domain such as bounces.example.com", own.domain);
        return problem("return_path.domain", &text);
    }
    let verp = |mode| mode == ReturnPathMode::Verp && own.domain.is_empty();
    if verp(own.mode) {
        return problem("return_path.mode", "`verp` needs return_path.domain");
    }
    for (index, account) in settings.account.iter().enumerate() {
        if account.return_path.is_some_and(verp) {
            let key = format!("account[{index}].return_path");
            return problem(&key, "`verp` needs return_path.domain");
        }
    }
    Ok(())
}

fn at_least_one(settings: &Settings) -> [(&'static str, u64); 32] {
    let Settings { submission, relay, queue, inbound, http, .. } = settings;
    let wide = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    [
        ("submission.message_bytes_max", submission.message_bytes_max),
        ("submission.header_bytes_max", wide(submission.header_bytes_max)),
        ("submission.header_fields_max", wide(submission.header_fields_max)),
        ("submission.listen_backlog", submission.listen_backlog.into()),
        ("submission.idle_commands_max", submission.idle_commands_max.into()),
        ("submission.recipients_max", submission.recipients_max.into()),
        ("submission.connections_max", wide(submission.connections_max)),
        ("submission.connections_per_address_max", wide(submission.connections_per_address_max)),
        ("submission.errors_max", submission.errors_max.into()),
        ("submission.transactions_max", submission.transactions_max.into()),
        ("submission.command_timeout_secs", submission.command_timeout_secs),
        ("submission.data_timeout_secs", submission.data_timeout_secs),
        ("submission.message_timeout_secs", submission.message_timeout_secs),
        ("submission.auth_ban_secs", submission.auth_ban_secs),
        ("relay.connections_max", wide(relay.connections_max)),
        ("relay.recipients_per_transaction_max", wide(relay.recipients_per_transaction_max)),
        ("relay.connection_reuse_max", relay.connection_reuse_max.into()),
        ("relay.command_timeout_secs", relay.command_timeout_secs),
        ("queue.attempts_max_concurrent", wide(queue.attempts_max_concurrent)),
        ("inbound.message_bytes_max", inbound.message_bytes_max),
        ("inbound.listen_backlog", inbound.listen_backlog.into()),
        ("inbound.idle_commands_max", inbound.idle_commands_max.into()),
        ("inbound.recipients_max", inbound.recipients_max.into()),
        ("inbound.connections_max", wide(inbound.connections_max)),
        ("inbound.connections_per_address_max", wide(inbound.connections_per_address_max)),
        ("http.connections_max", wide(http.connections_max)),
        ("http.connections_per_address_max", wide(http.connections_per_address_max)),
        ("http.look_ups_max_concurrent", wide(http.look_ups_max_concurrent)),
        ("http.header_timeout_secs", http.header_timeout_secs),
        ("http.request_bytes_max", http.request_bytes_max),
        ("http.request_timeout_secs", http.request_timeout_secs),
        ("http.write_timeout_secs", http.write_timeout_secs),
    ]
}

pub(super) fn problem<T>(key: &str, text: &str) -> Result<T, Problem> {
    Err((key.to_owned(), text.to_owned()))
}

/// The host's full name: the kernel's, completed from `/etc/hosts` where it has no domain.
fn host_name() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let name = rustix::system::uname().nodename().to_string_lossy().to_ascii_lowercase();
    let hosts = read("/etc/hosts");
    let full = format!("{name}.");
    let words = hosts.lines().filter(|line| !line.starts_with('#'));
    let mut words = words.flat_map(str::split_ascii_whitespace);
    let full_name = words.find(|word| !name.contains('.') && word.starts_with(&full));
    let found = full_name.map_or(name.clone(), str::to_owned);
    if is_domain(&found) && name != "(none)" { found } else { "localhost".to_owned() }
}

/// `/var/lib/rebound` where it is ours to write, else the user's own place for state.
fn default_data_dir(environment: Environment<'_>) -> PathBuf {
    let system = PathBuf::from("/var/lib/rebound");
    let home = environment.value("HOME").unwrap_or_else(|| "/".to_owned());
    let user = environment
        .value("XDG_STATE_HOME")
        .filter(|dir| dir.starts_with('/'))
        .map_or_else(|| Path::new(&home).join(".local/state"), PathBuf::from)
        .join("rebound");
    let writable = |dir: &Path| {
        fs::metadata(dir).is_ok_and(|metadata| metadata.is_dir())
            && rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_ok()
    };
    if writable(&system) || (!system.exists() && writable(Path::new("/var/lib"))) {
        system
    } else {
        user
    }
}

/// The longest interval between two looks at a mailbox (RFC 2177).
const POLL_INTERVAL_SECS_MAX: u64 = 1500;

#[cfg(test)]
mod tests {
    use super::super::load;

    #[test]
    fn bodies_are_kept_at_most_as_long_as_their_records() {
        for (keep, bodies, is_good) in [("7d", "0s", true), ("7d", "7d", true), ("7d", "8d", false)]
        {
            let variable = |name: &str| match name {
                "REBOUND_RETENTION_KEEP" => Some(keep.to_owned()),
                "REBOUND_RETENTION_BODIES" => Some(bodies.to_owned()),
                _ => None,
            };
            let loaded = load(None, &variable).map_err(|error| error.to_string());
            assert_eq!(loaded.is_ok(), is_good, "{bodies}: {:?}", loaded.err());
            let why = loaded.err().unwrap_or_default();
            assert!(is_good || why.contains("at most retention.keep, which is 7d"), "{why}");
        }
    }
}
