//! Streams of events whose clients do not read, and streams and waits while the host stops.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::{Neighbour, PATIENCE, call, connect, open, request, rest, up};
use crate::Up;

/// Opens a stream, and reads the head and the beginning of its answer.
fn stream(up: &Up, path: &str) -> TcpStream {
    let mut stream = connect(up);
    let asks = request("GET", path, "Accept: text/event-stream\r\n", "");
    stream.write_all(&asks).expect("it reads");
    let mut begin = String::new();
    while !begin.contains("retry: ") {
        let mut piece = [0; 512];
        let n = stream.read(&mut piece).expect("it answers");
        assert!(n > 0, "{begin}");
        begin.push_str(&String::from_utf8_lossy(&piece[..n]));
    }
    assert!(begin.starts_with("HTTP/1.1 200 "), "{begin}");
    stream
}

/// Waits until the host has no more than this number of connections, the one that asks included.
fn until_connections(up: &Up, most: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut answer = ureq::get(format!("{}/metrics", up.url)).call().expect("it answers");
        let text = answer.body_mut().read_to_string().expect("it is text");
        let line = text.lines().find_map(|line| line.strip_prefix("fanfold_http_connections "));
        let connections: usize = line.expect("a line").parse().expect("a number");
        if connections <= most {
            return;
        }
        assert!(Instant::now() < deadline, "{connections} connections");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_stream_whose_client_does_not_read_is_closed() {
    let up = up(&["--write-ms", "500"]);
    for batch in 0..40 {
        let lines = (1..=500).map(|id| open(batch * 500 + id, "long") + "\n");
        call(&up.url, "/commands", Some(lines.collect()));
    }
    call(&up.url, "/logs/ledger/org:long/20000?wait=20000", None);
    let neighbour = Neighbour::begin(&up);
    let unread: Vec<_> = (0..5).map(|_| stream(&up, "/logs/ledger/org:long")).collect();
    neighbour.end();
    until_connections(&up, 1);
    drop(unread);
}

#[test]
fn quiet_streams_make_room_for_other_requests() {
    let up = up(&["--connections-max", "4", "--grace-ms", "200"]);
    let streams: Vec<_> = (0..4).map(|_| stream(&up, "/logs/ledger/org:quiet")).collect();
    thread::sleep(Duration::from_millis(300));
    let neighbour = Neighbour::begin(&up);
    neighbour.end();
    drop(streams);
}

#[test]
fn streams_and_waits_end_soon_when_the_host_stops() {
    let up = up(&[]);
    call(&up.url, "/command", Some(open(1, "acme")));
    let mut streams = [
        stream(&up, "/logs/ledger/org:acme"),
        stream(&up, "/logs/ledger/org:none"),
        stream(&up, "/views/balances/ledger/org:acme"),
        stream(&up, "/views/balances/ledger/org:none/cash"),
    ];
    let mut waits = connect(&up);
    let asks = request("GET", "/logs/ledger/org:none?wait=25000", "", "");
    waits.write_all(&asks).expect("it reads");
    thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    up.signal("-TERM");
    for stream in &mut streams {
        // The end of a chunked body: the answer is whole.
        let rest = rest(stream);
        assert!(rest.ends_with("0\r\n\r\n"), "{rest}");
    }
    assert!(asked.elapsed() < Duration::from_millis(1_500), "{:?}", asked.elapsed());
    let answer = rest(&mut waits);
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
    assert_eq!(up.end(), (Some(0), String::new()));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}
