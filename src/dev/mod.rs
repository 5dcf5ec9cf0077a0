//! `rebound dev`: the daemon with a simulator as its next hop, so that nothing leaves the machine.
//!
//! The recipient's address says what happens, whatever the mail:
//!
//! | local part at `sim.test` | what happens |
//! |---|---|
//! | `ok`, and every address not listed here, of any domain | taken and discarded: ends as `relayed` |
//! | `550-5.1.1` | refused at RCPT with this code and status: `failed` |
//! | `452-4.2.2` | refused at RCPT each time: `deferred`; tried again after 5 s, 10 s, 30 s and then every minute, and `expired` with the first try after 2 minutes |
//! | `450-4.2.0-once` | refused at the first try of a mail, taken at the second |
//! | `554-5.7.1-at-data`, `554-5.7.1-at-end` | refused at DATA, or after the final dot |
//! | `550-5.7.1-at-mail` | as the *sender's* address, in `preserve` mode: refused at MAIL |
//! | `dsn-5.2.2-after-2s` | taken; 2 seconds later a report says that it failed: `bounced` |
//! | `dsn-noheaders`, `dsn-noheaders-5.2.1-after-2s` | as `dsn-...`, but nothing of the mail is returned |
//! | `delay`, `delay-4.4.1-after-2s` | taken; a report says that it is delayed |
//! | `delivered`, `delivered-after-2s` | taken; a report says that it was delivered: `delivered` |
//! | `autoreply`, `autoreply-after-2s` | taken; an out-of-office mail comes back |
//!
//! `CODE[-STATUS][-once][-at-mail|-at-rcpt|-at-data|-at-end]` and
//! `dsn[-noheaders][-STATUS][-after-Ns]` are the whole grammar; without `-after-` a report comes
//! after one second, and a `+tag` before the `@` is passed over. Reports look like those of Postfix
//! and go, from `<>`, through the real inbound listener to the reverse-path that the mail came
//! with.

mod address;
mod certificate;
pub mod client;
mod report;
mod simulator;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::config::{Certificate, Settings};

pub use certificate::certificate;
pub use simulator::{Options, simulator};

/// What `rebound dev` sets below the operator's file: the simulator as next hop, a bounce domain
/// of its own, retries that a person can wait for, and a certificate.
pub fn defaults(
    data_dir: &Path,
    simulator: SocketAddr,
    pair: &Certificate,
) -> Vec<(&'static str, String)> {
    let Certificate { cert_file, key_file } = pair;
    vec![
        ("tls.certificates", format!("[{{ cert_file = {cert_file:?}, key_file = {key_file:?} }}]")),
        ("data_dir", data_dir.to_string_lossy().into_owned()),
        ("relay.host", simulator.to_string()),
        ("relay.tls", "none".to_owned()),
        ("queue.retry_after", "5s,10s,30s,1m".to_owned()),
        ("queue.lifetime", "2m".to_owned()),
        ("return_path.domain", "bounces.sim.test".to_owned()),
        ("simulator.enabled", "true".to_owned()),
    ]
}

/// A new directory for the data of one `rebound dev`, readable by its owner alone.
pub fn temporary_data_dir() -> io::Result<PathBuf> {
    let unique: u64 = crate::secret::random_u64();
    let dir = std::env::temp_dir().join(format!("rebound-dev-{unique:016x}"));
    let mut builder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&dir)?;
    Ok(dir)
}

/// Writes `hints` to standard output.
pub fn print_hints(settings: &Settings) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(hints(settings).as_bytes())?;
    out.flush()
}

/// What to try, for somebody who has just started `rebound dev`.
pub fn hints(settings: &Settings) -> String {
    let smtp = first(&settings.submission.listen);
    let http = first(&settings.http.listen);
    let domain = &settings.simulator.domain;
    let is_own = |pair: &Certificate| pair.cert_file.ends_with(certificate::CERT_FILE);
    let starttls = match settings.tls.certificates.first() {
        Some(pair) if is_own(pair) => {
            let path = pair.cert_file.display();
            format!("STARTTLS is offered with a self-signed certificate: {path}\n")
        }
        _ => String::new(),
    };
    format!(
        "Rebound is running; nothing leaves this machine, and the data is in {data}.\n\
         \n\
         Submission {smtp}   inbound {inbound}   HTTP http://{http}\n\
         {starttls}\
         \n\
         Try, in a second terminal:\n\
         \n  rebound send-test --to 550-5.1.1@{domain} --to dsn-5.2.2-after-2s@{domain} \
         --to ok@{domain} --wait\n\
         \n  curl http://{http}/v1/bounces/MESSAGE-ID     (without its < and >)\n\
         \n  swaks --server {smtp} --from app@example.com --to dsn-5.2.2-after-2s@{domain}\n\
         \n\
         Other addresses: 452-4.2.2@ 450-4.2.0-once@ 554-5.7.1-at-data@ 554-5.7.1-at-end@\n  \
         dsn-noheaders@ delay@ delivered@ autoreply@ (all at {domain}); all others are discarded.\n",
        data = settings.data_dir.display(),
        inbound = first(&settings.inbound.listen),
    )
}

fn first(listen: &[SocketAddr]) -> String {
    listen.first().map_or_else(|| "off".to_owned(), ToString::to_string)
}
