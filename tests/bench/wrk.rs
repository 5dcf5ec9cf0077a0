//! What wrk gets out of the look-ups, beside a bare hyper in the same run.

use std::convert::Infallible;
use std::path::Path;
use std::process::Command;

use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::harness::program;

/// Asks `hello world` of a bare hyper, then the daemon at `port` for the mails with these ids, for
/// pages of them, and for pages of the bounces of the address `recipient`.
pub(crate) async fn run(dir: &Path, port: u16, ids: &[String], recipient: &str) {
    println!("the same with wrk, 16 connections; wrk, hyper and the daemon share the processors");
    let bare = hello().await;
    let bare = wrk(dir, "a bare hyper", bare, &["/".to_owned()], None);
    let some = ids.iter().step_by(ids.len().div_ceil(PATHS_MAX)).map(String::as_str);
    let by_id: Vec<String> = some.map(|id| format!("/v1/bounces/{id}")).collect();
    let pages: Vec<String> = (0..50)
        .map(|page| format!("/v1/account/default/messages?page={page}&pageSize=20"))
        .collect();
    let search = format!("/v1/bounces?recipient={recipient}&pageSize=20");
    let filtered = "/v1/bounces?category=user_unknown&pageSize=20".to_owned();
    for (name, paths) in [
        ("/health", vec!["/health".to_owned()]),
        ("/v1/bounces/{messageId}", by_id),
        ("/v1/bounces?recipient=, 20 on a page", vec![search]),
        ("/v1/bounces?category=, 20 on a page", vec![filtered]),
        ("/v1/account/default/messages, 20 on a page", pages),
    ] {
        wrk(dir, name, port, &paths, Some(bare));
    }
}

/// A server that answers everything with the same words, and its port.
async fn hello() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let answer = |_: Request<Incoming>| async {
                    let body = http_body_util::Full::new(Bytes::from_static(b"hello world"));
                    Ok::<_, Infallible>(Response::new(body))
                };
                let server = hyper::server::conn::http1::Builder::new();
                drop(server.serve_connection(TokioIo::new(stream), service_fn(answer)).await);
            });
        }
    });
    port
}

/// Requests in a second for one path after the other.
fn wrk(dir: &Path, name: &str, port: u16, paths: &[String], bare: Option<f64>) -> f64 {
    let (list, script) = (dir.join("paths"), dir.join("paths.lua"));
    std::fs::write(&list, paths.join("\n")).unwrap();
    // A large odd step visits the paths in no order that a cache could like.
    let lua = format!(
        "local paths = {{}}\nfor line in io.lines(\"{}\") do paths[#paths + 1] = line end\n\
         local at = 0\nfunction request()\n  at = (at + 7919) % #paths\n  \
         return wrk.format(\"GET\", paths[at + 1])\nend\n",
        list.display()
    );
    std::fs::write(&script, lua).unwrap();
    let output = Command::new(program("wrk", "wrk"))
        .args(["--threads", "2", "--connections", "16", "--duration", "10s", "--latency"])
        .arg("--script")
        .arg(&script)
        .arg(format!("http://127.0.0.1:{port}"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    let is_answered = ["Non-2xx", "Socket errors"].iter().all(|error| !said.contains(error));
    assert!(is_answered, "{name}: {said}");
    let figure = |label: &str| {
        let line = said.lines().find_map(|line| line.trim().strip_prefix(label));
        line.unwrap_or_else(|| panic!("wrk says no {label}: {said}")).trim().to_owned()
    };
    let rate: f64 = figure("Requests/sec:").parse().unwrap();
    let share = bare.map_or(String::new(), |bare| format!("  {:>6.2} x bare hyper", rate / bare));
    println!("{name:<44} {rate:>10.0}/s{share}");
    println!("{:<44} p50 {}, p99 {}", "", figure("50%"), figure("99%"));
    rate
}

/// Paths that are visited; each thread of wrk keeps them all.
const PATHS_MAX: usize = 50_000;
