//! Limits of open files.

use std::io::Read;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::{Neighbour, connect, exchange, request, rest};
use crate::Up;

/// Starts an `up` in memory that may open this many files.
fn up(files: u32, arguments: &str) -> Up {
    let fanfold = env!("CARGO_BIN_EXE_fanfold");
    let line = format!(
        "ulimit -n {files}; exec {fanfold} up --in-memory --listen 127.0.0.1:0 {arguments}"
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line]).env_remove("FANFOLD_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Up::start(&mut command)
}

#[test]
fn silent_connections_are_evicted_for_others() {
    let up = up(64, "--grace-ms 100");
    let mut silent: Vec<_> = (0..200).map(|_| connect(&up)).collect();
    thread::sleep(Duration::from_millis(200));
    let neighbour = Neighbour::begin(&up);
    thread::sleep(Duration::from_secs(1));
    neighbour.end();
    // Connections for which there was no place then were answered with 503.
    let told = silent.iter_mut().rev().find_map(|stream| {
        stream.set_read_timeout(Some(Duration::from_millis(1))).expect("a duration");
        let mut text = [0; 1024];
        let n = stream.read(&mut text).ok().filter(|n| *n > 0)?;
        Some(String::from_utf8_lossy(&text[..n]).into_owned())
    });
    let told = told.expect("some were refused");
    assert!(told.starts_with("HTTP/1.1 503 "), "{told}");
    assert!(told.contains("retry-after: 1\r\n") && told.contains(":overloaded"), "{told}");
}

#[test]
fn a_host_without_free_files_logs_an_error_and_answers_new_clients() {
    let up = up(48, "--connections-max 1000 --idle-ms 3000 --grace-ms 100");
    let silent: Vec<_> = (0..48).map(|_| connect(&up)).collect();
    let mut late = connect(&up);
    let answer = rest(&mut late);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drop(silent);
    Neighbour::begin(&up).end();
    assert!(exchange(&up, request("GET", "/healthz", "", "")).starts_with("HTTP/1.1 200 "));
    up.signal("-TERM");
    let (code, stderr) = up.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stderr.contains("raise the limit of open files"), "{stderr}");
    assert!(stderr.lines().count() < 100, "{stderr}");
}
