//! Consoles that cannot be written to.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, authority, call, open};
use crate::{Up, fanfold};

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    listener.local_addr().expect("it has one").port()
}

/// Sends bytes that are not HTTP, which the host logs.
fn nonsense(address: &str) {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.write_all(b"nonsense\r\n\r\n").expect("it reads");
    stream.read_to_end(&mut Vec::new()).expect("it answers, and closes");
}

/// Runs `fanfold up` with these redirections until it has answered, then sends SIGTERM: it must end
/// with exit code 0.
#[track_caller]
fn check(redirections: &str) {
    let port = free_port();
    let fanfold = env!("CARGO_BIN_EXE_fanfold");
    let line = format!(
        "exec {fanfold} up --in-memory --log debug --listen 127.0.0.1:{port} {redirections}"
    );
    let mut child = Command::new("bash")
        .args(["-c", &line])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("there is bash");
    let url = format!("http://127.0.0.1:{port}");
    for id in 1..=3 {
        call(&url, "/command", Some(open(id, "console")));
        nonsense(&format!("127.0.0.1:{port}"));
    }
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status();
    assert!(kill.expect("there is kill").success());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait().expect("it can be asked") {
            Some(status) => break status,
            None if Instant::now() > deadline => {
                child.kill().expect("it can be killed");
                panic!("{redirections}: it does not end");
            }
            None => thread::sleep(Duration::from_millis(20)),
        }
    };
    assert_eq!(status.code(), Some(0), "{redirections}: {status}");
}

#[test]
fn a_host_survives_a_closed_or_full_console() {
    check(">/dev/full 2>/dev/full");
    check(">&- 2>&-");
    // The readers end before the host writes anything.
    check("> >(true) 2> >(true)");
}

#[test]
fn a_reader_that_closes_the_pipe_is_not_an_error() {
    let up = Up::new();
    let lines: String = (1..=500).map(|id| open(id, "much") + "\n").collect();
    assert!(up.client_reads(&["send"], lines.as_bytes()).status.success());
    call(&up.url, "/logs/ledger/org:much/500?wait=20000", None);
    let fanfold = env!("CARGO_BIN_EXE_fanfold");
    let line = format!("set -o pipefail; {fanfold} log ledger/org:much | head -1");
    let output = Command::new("bash").args(["-c", &line]).env("FANFOLD_URL", &up.url).output();
    let output = output.expect("there is bash");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{output:?}");
}

#[test]
fn colours_are_written_only_to_terminals() {
    let mut command = fanfold(&["up", "--in-memory", "--listen", "127.0.0.1:0", "--log", "debug"]);
    let up = Up::start(&mut command);
    nonsense(authority(&up));
    up.signal("-TERM");
    let (code, stderr) = up.end();
    assert_eq!(code, Some(0), "{stderr}");
    assert!(!stderr.is_empty() && !stderr.contains('\x1b'), "{stderr}");
}
