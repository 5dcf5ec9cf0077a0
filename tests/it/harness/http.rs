//! A client for one request, as plain as can be.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::SOON;

/// The status and the JSON of the answer; `null` where it is none.
pub(crate) fn get(server: SocketAddr, path: &str) -> (u16, Value) {
    let (status, _, body) = get_raw(server, path, "");
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The status and the JSON of the answer to a POST with an empty body.
pub(crate) fn post(server: SocketAddr, path: &str, fields: &str) -> (u16, Value) {
    let fields = format!("Content-Length: 0\r\n{fields}");
    let (status, _, body) =
        ask("POST", server, path, &fields).unwrap_or_else(|error| panic!("POST {path}: {error}"));
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The status, header and JSON of the answer to a request with a body; `fields` are as below.
pub(crate) fn send(
    method: &str,
    server: SocketAddr,
    path: &str,
    fields: &str,
    body: &[u8],
) -> (u16, String, Value) {
    let answered = converse(method, server, path, fields, body);
    let (status, header, body) =
        answered.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    (status, header, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

/// The status, header and body; `fields` are further header lines, each with its CRLF.
pub(crate) fn get_raw(server: SocketAddr, path: &str, fields: &str) -> (u16, String, Vec<u8>) {
    ask("GET", server, path, fields).unwrap_or_else(|error| panic!("GET {path}: {error}"))
}

fn ask(
    method: &str,
    server: SocketAddr,
    path: &str,
    fields: &str,
) -> std::io::Result<(u16, String, Vec<u8>)> {
    exchange(method, server, path, fields, b"")
}

/// As `exchange`, with the length of the body.
fn converse(
    method: &str,
    server: SocketAddr,
    path: &str,
    fields: &str,
    body: &[u8],
) -> std::io::Result<(u16, String, Vec<u8>)> {
    let length = format!("Content-Length: {}\r\n{fields}", body.len());
    exchange(method, server, path, &length, body)
}

/// The status, header and body of the answer to a request that is sent as it is.
pub(crate) fn exchange(
    method: &str,
    server: SocketAddr,
    path: &str,
    fields: &str,
    body: &[u8],
) -> std::io::Result<(u16, String, Vec<u8>)> {
    let mut stream = TcpStream::connect_timeout(&server, SOON)?;
    stream.set_read_timeout(Some(SOON))?;
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {server}\r\nConnection: close\r\n{fields}\r\n");
    // A server that refuses a connection or a body need not read what comes, and hangs up.
    let sent = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    if answer.is_empty() {
        sent.and(read.map(|_len| ()))?;
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap_or(answer.len());
    let header = String::from_utf8_lossy(&answer[..end]).into_owned();
    let body = answer.get(end + 4..).unwrap_or_default().to_vec();
    let status = header.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let is_chunked = header.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, header, if is_chunked { unchunked(&body) } else { body }))
}

/// RFC 9112 §7.1.
fn unchunked(body: &[u8]) -> Vec<u8> {
    let (mut rest, mut out) = (body, Vec::new());
    while let Some(end) = rest.windows(2).position(|two| two == b"\r\n") {
        let len = usize::from_str_radix(&String::from_utf8_lossy(&rest[..end]), 16).unwrap_or(0);
        if len == 0 {
            break;
        }
        out.extend_from_slice(&rest[end + 2..end + 2 + len]);
        rest = &rest[end + 4 + len..];
    }
    out
}

/// A text as it may stand in a path or query.
pub(crate) fn encode(text: &str) -> String {
    rebound::http::client::encode(text)
}
