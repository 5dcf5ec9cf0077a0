//! How fast mails are read, beside mail-parser on the same mails, and how the time grows with
//! the size of shapes that are meant to hurt.

use std::path::{Path, PathBuf};
use std::time::Instant;

use rebound::bounce::{self, Parsed, Rules};

use crate::percentile;

pub(crate) fn run(long: bool) {
    let mut files = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus"), &mut files);
    if let Some(dir) = std::env::var_os("REBOUND_CORPUS") {
        collect(&PathBuf::from(dir).join("mail"), &mut files);
    }
    let mails: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(file).unwrap()).collect();
    let bytes: usize = mails.iter().map(Vec::len).sum();
    println!("\nparse: {} mails, {:.1} MB, one core", mails.len(), bytes as f64 / 1e6);
    let rounds = if long { 50 } else { 5 };
    let rules = Rules::compiled_in();
    let parser = mail_parser::MessageParser::default();
    let base = measure("mail-parser alone", &mails, bytes, rounds, None, |mail| {
        std::hint::black_box(parser.parse(mail));
    });
    let read = |mail: &[u8]| {
        std::hint::black_box(bounce::read(mail));
    };
    measure("bounce::read", &mails, bytes, rounds, Some(base), read);
    measure("bounce::read and the rules", &mails, bytes, rounds, Some(base), |mail| {
        std::hint::black_box(Parsed::new(bounce::read(mail), &rules));
    });
    println!("milliseconds for 1, 2, 4 and 8 MB; memory beside the mail of 8 MB, in its lengths");
    for (name, unit) in SHAPES {
        let mut peak = String::new();
        let times: Vec<String> = [1_usize, 2, 4, 8]
            .iter()
            .map(|megabytes| {
                let mut mail = HEAD.as_bytes().to_vec();
                mail.extend(unit.repeat(megabytes * 1_000_000 / unit.len()).into_bytes());
                let before = reset_peak();
                let started = Instant::now();
                std::hint::black_box(bounce::read(&mail));
                let took = started.elapsed().as_secs_f64();
                if let (Some(before), Some(after)) = (before, status_bytes("VmHWM:")) {
                    let share = after.saturating_sub(before) as f64 / mail.len() as f64;
                    peak = format!("{share:>8.2} x");
                }
                format!("{:>8.1}", took * 1e3)
            })
            .collect();
        println!("{name:<44} {} {peak}", times.join(" "));
    }
}

/// Forgets the peak of this process's memory and returns what it holds now, in octets; only
/// Linux knows.
fn reset_peak() -> Option<usize> {
    std::fs::write("/proc/self/clear_refs", "5").ok()?;
    status_bytes("VmRSS:")
}

fn status_bytes(field: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kilobytes: usize = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Reads every mail so many times; prints and returns MB in a second.
fn measure(
    name: &str,
    mails: &[Vec<u8>],
    bytes: usize,
    rounds: usize,
    baseline: Option<f64>,
    read: impl Fn(&[u8]),
) -> f64 {
    let mut times = vec![f64::MAX; mails.len()];
    for _ in 0..rounds {
        for (mail, best) in mails.iter().zip(&mut times) {
            let started = Instant::now();
            read(mail);
            *best = best.min(started.elapsed().as_secs_f64());
        }
    }
    let rate = bytes as f64 / 1e6 / times.iter().sum::<f64>();
    times.sort_by(f64::total_cmp);
    let (p50, p99) = (percentile(&times, 50.0) * 1e6, percentile(&times, 99.0) * 1e6);
    let slowest = times.last().copied().unwrap_or_default() * 1e3;
    let ratio = baseline.map(|base| format!("{:>6.2} x mail-parser", rate / base));
    println!("{name:<44} {rate:>8.0} MB/s {}", ratio.unwrap_or_default());
    println!("{:<44} p50 {p50:.0} us, p99 {p99:.0} us, slowest {slowest:.1} ms", "");
    rate
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    let mut inside: Vec<PathBuf> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    inside.sort();
    for path in inside {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "eml") {
            files.push(path);
        }
    }
}

const HEAD: &str = "From: MAILER-DAEMON@mx.example\nReturn-Path: <>\nSubject: failure notice\n\
                    Content-Type: multipart/report; report-type=delivery-status; boundary=b\n";
/// What a hostile mail consists of, over and over.
const SHAPES: &[(&str, &str)] = &[
    ("header fields", "X-H: v\n"),
    ("folds", " x\n"),
    ("boundaries", "\n--b\n"),
    ("boundaries of nobody", "\n--c\n"),
    ("nested multiparts", "\n--b\nContent-Type: multipart/mixed; boundary=b\n"),
    (
        "recipients",
        "\n--b\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b.c\n",
    ),
    ("dots", "."),
    ("at signs", "\n@@@@@@@@"),
    ("encoded words", " =?"),
];
