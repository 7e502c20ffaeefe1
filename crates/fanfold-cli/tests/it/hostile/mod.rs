//! Misbehaving clients of a real `fanfold up`, over raw sockets. Meanwhile a well-behaved client,
//! the [`Neighbour`], must get its answers.
//!
//! The tests are in this package because cargo passes the binary's path only to them. They make the
//! host's limits small, so that no test waits for half a minute.

mod connections;
mod console;
mod files;
mod requests;
mod streams;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Up, fanfold};

/// Longer than anything takes here, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Starts an `up` in memory with these arguments.
fn up(arguments: &[&str]) -> Up {
    let begin = ["up", "--in-memory", "--listen", "127.0.0.1:0"];
    Up::start(&mut fanfold(&[&begin, arguments].concat()))
}

fn authority(up: &Up) -> &str {
    up.url.trim_start_matches("http://")
}

/// A connection with timeouts of [`PATIENCE`].
fn connect(up: &Up) -> TcpStream {
    let stream = TcpStream::connect(authority(up)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("it is a duration");
    stream.set_write_timeout(Some(PATIENCE)).expect("it is a duration");
    stream
}

/// Reads until the host closes the connection.
fn rest(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&piece[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(e) => panic!("neither an answer nor an end: {e}"),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Sends bytes on a new connection, closes the sending side, and returns all answers.
fn exchange(up: &Up, request: impl AsRef<[u8]>) -> String {
    let mut stream = connect(up);
    // Fails if the host answers early and closes.
    let _ = stream.write_all(request.as_ref());
    let _ = stream.shutdown(std::net::Shutdown::Write);
    rest(&mut stream)
}

/// The bytes of a whole request.
fn request(method: &str, path: &str, headers: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut request = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}");
    if !body.is_empty() {
        request.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    let mut request = (request + "\r\n").into_bytes();
    request.extend_from_slice(body);
    request
}

fn open(id: u64, org: &str) -> String {
    format!(
        r#"{{"type":"ledger","command":"open","id":{id},"user":"ann","org":"{org}","data":{{"account":"a{id}"}}}}"#
    )
}

/// A well-behaved client: it sends commands, each on its own connection, reads their entries, and
/// sometimes sends a batch of 100 KB.
struct Neighbour {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Duration)>,
}

impl Neighbour {
    fn begin(up: &Up) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, url) = (stop.clone(), up.url.clone());
        let thread = thread::spawn(move || {
            let (mut id, mut slowest) = (0, Duration::ZERO);
            while id < 3 || !stopped.load(Ordering::Relaxed) {
                id += 1;
                let began = Instant::now();
                call(&url, "/command", Some(open(id, "good")));
                call(&url, &format!("/logs/ledger/org:good/{id}?wait=20000"), None);
                if id % 4 == 0 {
                    let line = open(id, "batch") + "\n";
                    call(&url, "/commands", Some(line.repeat(100) + &" ".repeat(90_000)));
                }
                slowest = slowest.max(began.elapsed());
                thread::sleep(Duration::from_millis(20));
            }
            (id, slowest)
        });
        Self { stop, thread }
    }

    /// Stops the client, and checks that it got all of its answers.
    fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (rounds, slowest) = self.thread.join().expect("the neighbour is answered");
        println!("the neighbour: {rounds} rounds, the slowest took {slowest:?}");
    }
}

/// Sends a request until it is answered with success; retries after 503, as the API allows.
fn call(url: &str, path: &str, body: Option<String>) {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(PATIENCE))
        .http_status_as_error(false)
        .max_idle_connections(0);
    let agent: ureq::Agent = config.build().into();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let answer = match &body {
            Some(body) => agent.post(format!("{url}{path}")).send(body),
            None => agent.get(format!("{url}{path}")).call(),
        };
        match answer.as_ref().map(|answer| answer.status().as_u16()) {
            Ok(200 | 202) => return,
            Ok(503) | Err(_) if Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            _ => panic!("{path}: {answer:?}"),
        }
    }
}
