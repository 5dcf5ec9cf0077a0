//! How fast mails are read, beside mail-parser on the same mails, and how the time grows with
//! the size of shapes that are meant to hurt.

use std::path::{Path, PathBuf};
use std::process::Command;
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
    for shape in SHAPES {
        let times: Vec<String> = [1_usize, 2, 4, 8]
            .iter()
            .map(|megabytes| {
                let mail = shape.mail(*megabytes);
                let started = Instant::now();
                std::hint::black_box(bounce::read(&mail));
                format!("{:>8.1}", started.elapsed().as_secs_f64() * 1e3)
            })
            .collect();
        // A process that has done anything else holds freed memory that hides what is taken.
        let mut peak = Command::new(std::env::current_exe().unwrap());
        let peak = peak.args([PEAK, shape.name]).output().unwrap().stdout;
        println!("{:<44} {} {}", shape.name, times.join(" "), String::from_utf8_lossy(&peak));
    }
}

/// The argument with which this program is started to read one shape.
pub(crate) const PEAK: &str = "--peak";

/// Reads 8 MB of a shape in a process of its own and says what that took at its peak.
pub(crate) fn peak(name: &str) {
    let shape = SHAPES.iter().find(|shape| shape.name == name).unwrap();
    let mail = shape.mail(8);
    let held = status_bytes("VmRSS:");
    std::hint::black_box(bounce::read(&mail));
    // Only Linux tells.
    if let (Some(held), Some(peak)) = (held, status_bytes("VmHWM:")) {
        print!("{:>8.2} x", peak.saturating_sub(held) as f64 / mail.len() as f64);
    }
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

/// What a hostile mail consists of, over and over, behind its head.
struct Shape {
    name: &'static str,
    head: &'static str,
    unit: &'static str,
}

impl Shape {
    fn mail(&self, megabytes: usize) -> Vec<u8> {
        let units = megabytes * 1_000_000 / self.unit.len();
        let mut mail = Vec::with_capacity(self.head.len() + units * self.unit.len());
        mail.extend_from_slice(self.head.as_bytes());
        for _ in 0..units {
            mail.extend_from_slice(self.unit.as_bytes());
        }
        mail
    }
}

const fn shape(name: &'static str, head: &'static str, unit: &'static str) -> Shape {
    Shape { name, head, unit }
}

const REPORT: &str = "From: MAILER-DAEMON@mx.example\nReturn-Path: <>\nSubject: failure notice\n\
                      Content-Type: multipart/report; report-type=delivery-status; boundary=b\n";
const STATUS: &str = "From: MAILER-DAEMON@mx.example\nReturn-Path: <>\nSubject: failure notice\n\
                      Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n\
                      --b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx\n";
const TEXT: &str = "From: MAILER-DAEMON@mx.example\nReturn-Path: <>\nSubject: failure notice\n\n\
                    could not be delivered to:\n";
const HTML: &str = "From: MAILER-DAEMON@mx.example\nReturn-Path: <>\nSubject: failure notice\n\
                    Content-Type: text/html\n\n";
const SHAPES: &[Shape] = &[
    shape("header fields", REPORT, "X-H: v\n"),
    shape("folds", REPORT, " x\n"),
    shape("boundaries", REPORT, "\n--b\n"),
    shape("boundaries of nobody", REPORT, "\n--c\n"),
    shape("nested multiparts", REPORT, "\n--b\nContent-Type: multipart/mixed; boundary=b\n"),
    shape(
        "parts with a recipient",
        REPORT,
        "\n--b\nContent-Type: message/delivery-status\n\nFinal-Recipient: rfc822; a@b.c\n",
    ),
    shape("recipients", STATUS, "\nFinal-Recipient: rfc822; a@b.c\nAction: failed\n"),
    shape("recipients without a blank line", STATUS, "Final-Recipient: rfc822; a@b.c\n"),
    shape("a line of dots in a header", REPORT, "."),
    shape("a line of dots", TEXT, "."),
    shape("at signs", TEXT, "\n@@@@@@@@"),
    shape("addresses", TEXT, "\n  a@b.c\n    550 no"),
    shape("addresses in one line", TEXT, "a@b.c "),
    shape("a transcript", TEXT, "\n>>> RCPT TO:<a@b.c>\n<<< 550 no"),
    shape("encoded words", REPORT, " =?"),
    shape("tags", HTML, "<p"),
    shape("preformatted text", HTML, "<pre>\n</pre>"),
    shape("returns without line feeds", "From: MAILER-DAEMON@mx.example\r\r", "x\r"),
];
