//! Measures the daemon: `cargo bench` for all of it, `cargo bench -- accept relay lookup imap
//! parse protocol idle` for some, `--long` for the long runs.
//!
//! Nothing here fails for being slow. Each figure stands beside a baseline that is measured in
//! the same run: the disk's own sync rate, a bare sink, a bare IMAP client, mail-parser, Postfix's
//! smtp-sink, a bare hyper; or, for memory, beside what we aim at.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    clippy::await_holding_lock,
    reason = "a benchmark stops at the first surprise and measures with its own clock"
)]

mod accept;
mod daemon;
#[path = "../it/harness/mod.rs"]
#[allow(dead_code, reason = "these are the peers of the tests, and not all are needed here")]
mod harness;
mod idle;
mod imap;
mod lookup;
mod parse;
mod protocol;
mod relay;
mod smtp;
mod wrk;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    if arguments.iter().any(|argument| argument == protocol::SERVE) {
        return protocol::serve_sink();
    }
    if let [mode, shape] = arguments.as_slice()
        && mode == parse::PEAK
    {
        return parse::peak(shape);
    }
    let long = arguments.iter().any(|argument| argument == "--long");
    let wanted = |name: &str| {
        let mut named = arguments.iter().filter(|argument| !argument.starts_with("--")).peekable();
        named.peek().is_none() || named.any(|argument| argument == name)
    };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    if wanted("accept") {
        runtime.block_on(accept::run(long));
    }
    if wanted("relay") {
        runtime.block_on(relay::run(long));
    }
    if wanted("lookup") {
        runtime.block_on(lookup::run(long));
    }
    if wanted("imap") {
        imap::run(long);
    }
    if wanted("parse") {
        parse::run(long);
    }
    if wanted("protocol") {
        runtime.block_on(protocol::run(long));
    }
    if wanted("idle") {
        runtime.block_on(idle::run());
    }
}

/// Says how many there were in a second, and how that compares with a baseline.
fn rate(name: &str, count: usize, seconds: f64, baseline: Option<(&str, f64)>) -> f64 {
    let rate = count as f64 / seconds;
    match baseline {
        Some((of, base)) => println!("{name:<44} {rate:>10.0}/s  {:>6.2} x {of}", rate / base),
        None => println!("{name:<44} {rate:>10.0}/s"),
    }
    rate
}

/// The value below which `percent` of the sorted values lie.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let at = (sorted.len() as f64 * percent / 100.0) as usize;
    sorted[at.min(sorted.len() - 1)]
}
