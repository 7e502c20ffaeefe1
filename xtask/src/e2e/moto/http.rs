//! Requests that control moto and the host.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// How long an answer may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Sends a request to a server of this machine, and returns its answer, which is JSON.
pub(super) fn ask(port: u16, method: &str, path: &str, body: &Value) -> Result<Value> {
    let what = || format!("{method} {path} on port {port}");
    let answer = exchange(port, method, path, body).with_context(what)?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(what)?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    ensure!(status == "200", "{} was answered {status}: {body}", what());
    serde_json::from_str(body).with_context(what)
}

fn exchange(port: u16, method: &str, path: &str, body: &Value) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    let head = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n");
    stream.write_all(format!("{head}Content-Length: {length}\r\n\r\n{body}").as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
