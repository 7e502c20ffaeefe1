//! Slow, idle and broken connections.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use fanfold_cli::host::{BoundAddress, Limits};

use super::{Neighbour, PATIENCE, connect, exchange, open, request, rest, up};
use crate::Up;

const HEAD: &str = "POST /command HTTP/1.1\r\nHost: localhost\r\n";

#[test]
fn a_connection_that_stops_sending_is_closed() {
    let up = up(&["--head-ms", "300", "--body-ms", "500", "--idle-ms", "700"]);
    let neighbour = Neighbour::begin(&up);
    let half = format!("{HEAD}Content-Length: 900\r\n\r\n{{");
    let whole = String::from_utf8(request("GET", "/healthz", "", "")).expect("it is text");
    for (sent, answered) in [
        ("", ""),
        (HEAD, "HTTP/1.1 408 "),
        (&half, "HTTP/1.1 408 "),
        (&whole, "HTTP/1.1 200 "),
        (&(whole.clone() + HEAD), "HTTP/1.1 200 "),
    ] {
        let began = Instant::now();
        let mut stream = connect(&up);
        stream.write_all(sent.as_bytes()).expect("it reads");
        let answer = rest(&mut stream);
        assert!(answer.starts_with(answered), "{sent}: {answer}");
        assert!(began.elapsed() >= Duration::from_millis(300), "{sent}: too soon");
    }
    neighbour.end();
}

#[test]
fn a_connection_that_sends_byte_by_byte_is_closed() {
    let up = up(&["--head-ms", "600", "--body-ms", "900"]);
    let neighbour = Neighbour::begin(&up);
    for (at_once, then) in [
        (String::new(), HEAD.repeat(100)),
        (format!("{HEAD}Content-Length: 90000\r\n\r\n"), " ".repeat(90_000)),
        (format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n"), "1\r\n \r\n".repeat(10_000)),
    ] {
        let mut stream = connect(&up);
        stream.write_all(at_once.as_bytes()).expect("it reads");
        let began = Instant::now();
        let mut slow = stream.try_clone().expect("it is a socket");
        let writer = thread::spawn(move || {
            let more = |byte: u8| {
                thread::sleep(Duration::from_millis(30));
                slow.write_all(&[byte]).is_ok()
            };
            then.bytes().all(more)
        });
        let answer = rest(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        assert!(!writer.join().expect("it ends"), "it was not cut off");
    }
    neighbour.end();
}

#[test]
fn a_connection_that_does_not_read_its_answers_is_closed() {
    let up = up(&["--write-ms", "500"]);
    let neighbour = Neighbour::begin(&up);
    for batch in 0..10 {
        let lines = (1..=500).map(|id| open(batch * 500 + id, "long") + "\n");
        let lines: String = lines.collect();
        let answer = exchange(&up, request("POST", "/commands", "", lines));
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    }
    let page = request("GET", "/logs/ledger/org:long?limit=1000", "", "");
    let mut stream = connect(&up);
    let began = Instant::now();
    // The socket buffers fill up; then the host waits `--write-ms`, and closes.
    let closed = loop {
        assert!(began.elapsed() < 3 * PATIENCE, "it is still open");
        if let Err(error) = stream.write_all(&page) {
            break error;
        }
    };
    let ended = [ErrorKind::BrokenPipe, ErrorKind::ConnectionReset];
    assert!(ended.contains(&closed.kind()), "{closed}");
    neighbour.end();
}

#[test]
fn the_memory_of_half_sent_bodies_is_bounded() {
    let up = up(&["--body-bytes-max", "16777216", "--grace-ms", "200"]);
    let before_kb = resident_kb(&up);
    let neighbour = Neighbour::begin(&up);
    let half = format!("{HEAD}Content-Length: 900000\r\n\r\n{}", " ".repeat(450_000));
    let half = Arc::new(half);
    let url = up.url.trim_start_matches("http://").to_owned();
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let (half, url) = (half.clone(), url.clone());
            thread::spawn(move || {
                let connected = (0..250).map(|_| {
                    let mut stream = TcpStream::connect(&url).expect("it listens");
                    stream.set_write_timeout(Some(Duration::from_secs(1))).expect("a duration");
                    // Fails if the host refuses the body before its end.
                    let _ = stream.write_all(half.as_bytes());
                    stream
                });
                connected.collect::<Vec<TcpStream>>()
            })
        })
        .collect();
    let streams: Vec<_> = senders.into_iter().map(|sender| sender.join().expect("sends")).collect();
    let after_kb = resident_kb(&up);
    neighbour.end();
    println!("resident: {before_kb} kB, and with 1,000 half bodies {after_kb} kB");
    // 450 MB were sent.
    assert!(after_kb < before_kb + 220_000, "{before_kb} kB, then {after_kb} kB");
    drop(streams);
}

fn resident_kb(up: &Up) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", up.id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_reset_at_any_byte_does_not_disturb_other_clients() {
    let up = up(&[]);
    let neighbour = Neighbour::begin(&up);
    let whole = request("POST", "/command", "", open(1, "reset"));
    for cut in (0..whole.len()).step_by(7).chain([whole.len()]) {
        let mut stream = connect(&up);
        stream.write_all(&whole[..cut]).expect("it reads");
        // Closing with unread bytes of the answer resets the connection.
        if cut == whole.len() {
            stream.read_exact(&mut [0; 9]).expect("it answers");
        }
        drop(stream);
    }
    neighbour.end();
}

#[test]
fn a_long_wait_is_not_idle_and_a_drain_closes_half_sent_requests() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("it starts");
    let wait = || async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        "done"
    };
    let host = runtime.block_on(async {
        let (head, body, idle) = (Duration::from_millis(300), Duration::from_secs(60), None);
        let limits = Limits { head, body, idle: idle.unwrap_or(head), ..Limits::default() };
        let bound = BoundAddress::bind(([127, 0, 0, 1], 0).into()).await.expect("a port is free");
        bound.serve(Router::new().route("/", get(wait)), &[], limits)
    });
    let ask = |text: &[u8]| {
        let mut stream = TcpStream::connect(host.address()).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a duration");
        stream.write_all(text).expect("it reads");
        stream
    };
    let mut waits = ask(&request("GET", "/", "Connection: close\r\n", ""));
    assert!(rest(&mut waits).ends_with("done"), "it is cut off");

    let mut at_hand = ask(&request("GET", "/", "", ""));
    let _half = [
        ask(b""),
        ask(HEAD.as_bytes()),
        ask(format!("{HEAD}Content-Length: 9\r\n\r\n{{").as_bytes()),
    ];
    thread::sleep(Duration::from_millis(200));
    let began = Instant::now();
    runtime.block_on(host.drain());
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    assert!(rest(&mut at_hand).ends_with("done"), "a request at hand is answered");
}
