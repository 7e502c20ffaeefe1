//! Foreign, wrong, too long and malformed requests.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::process::Command;

use serde_json::Value;

use super::{Neighbour, connect, exchange, open, request, rest, up};
use crate::{Up, fanfold};

/// Checks that the answer has this status, and contains `says`.
#[track_caller]
fn check(up: &Up, request: impl AsRef<[u8]>, begins: &str, says: &str) {
    let answer = exchange(up, request.as_ref());
    let shown = String::from_utf8_lossy(&request.as_ref()[..request.as_ref().len().min(300)]);
    let begin = format!("HTTP/1.1 {begins}");
    assert!(answer.starts_with(&begin) && answer.contains(says), "{shown}\n\n{answer}");
}

#[test]
fn foreign_origins_and_hosts_are_refused_on_every_route() {
    let up = up(&["--host", "app.example"]);
    let command = open(1, "acme");
    for (method, path, body) in [
        ("POST", "/command", command.as_str()),
        ("POST", "/commands", &command),
        ("POST", "/ops/shards/split", r#"{"shard":"shardId-000000000000"}"#),
        ("POST", "/ops/shards/merge", "{}"),
        ("GET", "/ops/shards", ""),
        ("GET", "/ops/parked", ""),
        ("GET", "/ops/parked/balances", ""),
        ("POST", "/ops/resume", r#"{"log":"ledger/org:acme","seq":1}"#),
        ("POST", "/ops/skip", r#"{"log":"ledger/org:acme","seq":1,"reason":"evil"}"#),
        ("POST", "/ops/resend", r#"{"log":"ledger/org:acme","seq":1}"#),
        ("GET", "/console", ""),
        ("GET", "/console/app.js", ""),
        ("POST", "/ops/raise", r#"{"log":"ledger/org:acme"}"#),
        ("GET", "/metrics", ""),
        ("GET", "/healthz", ""),
        ("GET", "/logs/ledger/org:acme", ""),
        ("OPTIONS", "/command", ""),
        ("GET", "/nothing", ""),
    ] {
        for headers in [
            "Origin: https://evil.example\r\n",
            "Origin: null\r\n",
            "Sec-Fetch-Site: cross-site\r\n",
            "Sec-Fetch-Site: same-site\r\n",
        ] {
            check(&up, request(method, path, headers, body), "403 ", ":foreign-origin");
        }
        let rebound = request(method, path, "", body);
        let rebound = String::from_utf8(rebound).expect("it is text");
        let evil = rebound.replace("Host: localhost", "Host: evil.example:8080");
        check(&up, evil, "403 ", "`--host evil.example`");
        let absolute = rebound.replacen(path, &format!("http://evil.example{path}"), 1);
        check(&up, absolute, "403 ", ":foreign-host");
    }
    // None of these commands was accepted.
    check(&up, request("GET", "/logs/ledger/org:acme", "", ""), "200 ", "\"accepted\":0");
    let proxied = String::from_utf8(request("POST", "/command", "", &command)).expect("text");
    let proxied = proxied.replace("Host: localhost", "Host: app.example");
    let proxied = proxied.replacen("\r\n", "\r\nOrigin: https://app.example\r\n", 1);
    check(&up, proxied, "202 ", "seq");
}

#[test]
fn curl_works_with_every_name_of_loopback() {
    if Command::new("curl").arg("--version").output().is_err() {
        return;
    }
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl").args(["-sS"]).args(arguments).output();
        String::from_utf8(output.expect("there is curl").stdout).expect("it is text")
    };
    let mut id = 0;
    for (listen, names) in
        [("127.0.0.1:0", &["localhost", "127.0.0.1"][..]), ("[::1]:0", &["localhost", "[::1]"])]
    {
        let mut command = fanfold(&["up", "--in-memory", "--listen", listen]);
        let up = Up::start(&mut command);
        let port = up.url.rsplit(':').next().expect("it has a port");
        for name in names {
            id += 1;
            let url = format!("http://{name}:{port}/command");
            let answer = curl(&["-d", &open(id, "curl"), &url]);
            assert!(answer.contains(r#""log":"ledger/org:curl""#), "{url}: {answer}");
        }
    }
}

#[test]
fn a_wrong_body_is_answered_with_the_reason() {
    let up = up(&[]);
    let neighbour = Neighbour::begin(&up);
    let post = |path: &str, headers: &str, body: &[u8]| request("POST", path, headers, body);
    let marked = format!("\u{feff}{}", open(1, "bytes"));
    check(&up, post("/command", "", marked.as_bytes()), "202 ", r#""seq":1"#);
    let lines = format!("\u{feff}{}\n\u{feff}{}\n", open(2, "bytes"), open(3, "bytes"));
    check(&up, post("/commands", "", lines.as_bytes()), "202 ", r#""seq":3"#);
    let array = format!("\u{feff}[{}]", open(4, "bytes"));
    check(&up, post("/commands", "", array.as_bytes()), "202 ", r#""seq":4"#);
    let fields = r#""org":null,"client":null,"timestamp":null,"type":"ledger","command":"open""#;
    let nulls = format!(r#"{{"user":"ann","id":1,{fields},"data":{{"account":"cash"}}}}"#);
    check(
        &up,
        post("/command", "", nulls.as_bytes()),
        "202 ",
        r#""log":"ledger/user:ann","seq":1"#,
    );
    let utf16: Vec<u8> = marked.encode_utf16().flat_map(u16::to_le_bytes).collect();
    check(&up, post("/command", "", &utf16), "400 ", "UTF-16");
    let gzip = post("/command", "Content-Encoding: gzip\r\n", b"\x1f\x8b\x08");
    check(&up, &gzip, "415 ", "accept-encoding: identity");
    let pretty = b"{\n  \"type\": \"ledger\"\n}\n";
    check(&up, post("/commands", "", pretty), "400 ", "1 JSON object on 3 lines");
    check(&up, post("/command", "Content-Length: 0\r\n", b""), "400 ", "the body is empty");
    check(
        &up,
        post("/ops/shards/split", "Content-Length: 0\r\n", b""),
        "400 ",
        "the body is empty",
    );
    let junk = open(5, "bytes") + " junk";
    check(&up, post("/command", "", junk.as_bytes()), "400 ", "trailing characters");
    check(&up, post("/command/", "", b"{}"), "404 ", "ends with a slash");
    check(&up, request("PUT", "/command", "", "{}"), "405 ", "allow: POST");
    check(&up, request("OPTIONS", "/command", "", ""), "204 ", "allow: POST");
    check(&up, request("HEAD", "/healthz", "", ""), "200 ", "content-length: 15");
    neighbour.end();
}

/// Each wrong request of an operator names the field, and says what to do.
#[test]
fn a_wrong_request_of_an_operator_is_answered_with_the_reason() {
    let up = up(&[]);
    let neighbour = Neighbour::begin(&up);
    for (path, begins, says) in [
        ("/ops/parked?after=nonsense", "400 ", "`after`: `nonsense` is no position"),
        ("/ops/parked?limit=0", "400 ", "limit"),
        ("/ops/parked?limit=100000", "400 ", "limit"),
        ("/ops/parked?reason=gap", "400 ", "`reason`"),
        ("/ops/parked?service=a&service=b", "400 ", "service"),
        ("/ops/parked/nothing", "404 ", "`nothing`"),
        ("/ops/parked/balances?after=acme", "400 ", "after"),
        ("/ops/parked/balances?after=ledger%2Forg:a%00b", "400 ", "after"),
        ("/ops/doctor?source=memory", "400 ", "`source`: must be"),
        ("/ops/doctor?source=journal&after=acme", "400 ", "`after`"),
        ("/ops/doctor?source=journal&after=zzz/org:a", "200 ", r#"{"logs":[],"next":null}"#),
        ("/ops", "404 ", "nothing at"),
        ("/ops/resume", "405 ", "allow: POST"),
    ] {
        check(&up, request("GET", path, "", ""), begins, says);
    }
    let (log, long) = (r#""log":"ledger/org:acme""#, "x".repeat(100_000));
    for (path, body, begins, says) in [
        ("resume", "[]".to_owned(), "400 ", "JSON object"),
        ("resume", "{".to_owned(), "400 ", "not JSON"),
        ("resume", "{}".to_owned(), "400 ", "`log`: is required"),
        ("resume", r#"{"log":7,"seq":1}"#.to_owned(), "400 ", "`log`: must be a string"),
        ("resume", r#"{"log":"acme","seq":1}"#.to_owned(), "400 ", "`log`"),
        ("resume", format!("{{{log}}}"), "400 ", "`seq`"),
        ("resume", format!(r#"{{{log},"seq":-1}}"#), "400 ", "`seq`"),
        ("resume", format!(r#"{{{log},"seq":1.5}}"#), "400 ", "`seq`"),
        ("resume", format!(r#"{{{log},"seq":1e300}}"#), "400 ", "`seq`"),
        ("resume", format!(r#"{{{log},"seq":18446744073709551615}}"#), "400 ", "`seq`"),
        ("resume", format!(r#"{{{log},"seq":1,"force":true}}"#), "400 ", "`force`: unknown field"),
        ("resume", format!(r#"{{{log},"view":"balances","seq":1}}"#), "400 ", "`seq`"),
        ("resume", format!(r#"{{{log},"view":"nothing"}}"#), "404 ", "`nothing`"),
        ("resume", format!(r#"{{{log},"view":"balances"}}"#), "404 ", "not parked"),
        ("resume", format!(r#"{{{log},"seq":1}}"#), "404 ", "nothing waits"),
        ("resume", format!(r#"{{{log},"seq":1,"identity":"{long}"}}"#), "404 ", "nothing waits"),
        ("skip", format!(r#"{{{log},"seq":1}}"#), "400 ", "`reason`"),
        ("skip", format!(r#"{{{log},"seq":1,"reason":"  "}}"#), "400 ", "`reason`"),
        ("skip", format!(r#"{{{log},"seq":1,"reason":"{long}"}}"#), "400 ", "`reason`"),
        ("skip", format!(r#"{{{log},"seq":1,"reason":7}}"#), "400 ", "`reason`"),
        ("skip", format!(r#"{{{log},"seq":1,"reason":"no"}}"#), "404 ", "nothing waits"),
        ("resend", format!(r#"{{{log},"seq":0}}"#), "404 ", "nothing waits"),
        ("raise", "{}".to_owned(), "400 ", "`log`: is required"),
        ("raise", format!(r#"{{{log},"to":9}}"#), "400 ", "`to`: unknown field"),
        ("raise", format!("{{{log}}}"), "200 ", r#"{"done":"fits"}"#),
        ("resend", format!(r#"{{{log},"seq":1,"view":"balances"}}"#), "400 ", "`view`"),
    ] {
        check(&up, request("POST", &format!("/ops/{path}"), "", &body), begins, says);
    }
    check(&up, request("GET", "/ops/parked", "", ""), "200 ", r#"{"parked":[],"next":null}"#);
    neighbour.end();
}

#[test]
fn too_long_bodies_are_refused_before_they_are_read() {
    let up = up(&[]);
    for headers in ["", "Expect: 100-continue\r\n"] {
        let mut stream = connect(&up);
        let head = format!(
            "POST /commands HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 5000000\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).expect("it answers without the body");
        assert_eq!(&begin, b"HTTP/1.1 413");
        // A client that keeps sending can still read the answer.
        stream.write_all(&vec![b' '; 5_000_000]).expect("it is read");
        assert!(rest(&mut stream).contains(":body-too-large"));
    }
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let chunked = "POST /command HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
    check(&up, format!("{chunked}{}0\r\n\r\n", chunk.repeat(17)), "413 ", ":body-too-large");
    let small = open(1, "chunks");
    let small = format!("{chunked}{:x}\r\n{small}\r\n0\r\n\r\n", small.len());
    check(&up, small, "202 ", r#""seq":1"#);
}

#[test]
fn a_client_that_expects_100_continue_gets_it() {
    let up = up(&[]);
    let mut stream = connect(&up);
    let body = open(1, "expect");
    let whole = request("POST", "/command", "Expect: 100-continue\r\n", &body);
    let (head, body) = whole.split_at(whole.len() - body.len());
    stream.write_all(head).expect("it reads");
    let mut begin = [0; 25];
    stream.read_exact(&mut begin).expect("it asks");
    assert_eq!(&begin, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body).expect("it reads");
    stream.shutdown(Shutdown::Write).expect("it is open");
    assert!(rest(&mut stream).starts_with("HTTP/1.1 202 "));
}

#[test]
fn malformed_http_is_answered_or_closed() {
    let up = up(&[]);
    let neighbour = Neighbour::begin(&up);
    let many: String = (0..200).map(|n| format!("X-{n}: y\r\n")).collect();
    check(&up, request("GET", "/healthz", &many, ""), "431 ", "");
    let huge = format!("X: {}\r\n", "y".repeat(100_000));
    check(&up, request("GET", "/healthz", &huge, ""), "431 ", "");
    check(&up, format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000)), "4", "");
    for bad in ["nonsense\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\x16\x03\x01\x02\x00\x01\r\n\r\n"] {
        check(&up, bad, "400 ", "");
    }
    check(&up, "GET /healthz HTTP/1.1\r\n\r\n", "400 ", ":bad-host");
    check(&up, "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 ", ":bad-host");
    assert!(exchange(&up, "GET /healthz HTTP/1.0\r\n\r\n").starts_with("HTTP/1.0 200 "));
    let both = "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n";
    let smuggled = format!("POST /command HTTP/1.1\r\nHost: localhost\r\n{both}\r\n0\r\n\r\n");
    check(&up, smuggled, "400 ", "");
    // A client of HTTP/2 with prior knowledge gets a refusal in frames of HTTP/2.
    let mut http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    http2.extend_from_slice(&[0, 0, 0, 4, 0, 0, 0, 0, 0]);
    assert!(exchange(&up, http2).ends_with("use HTTP/1.1 here"));
    neighbour.end();
}

#[test]
fn pipelined_requests_are_answered_in_order_even_on_a_half_closed_connection() {
    let up = up(&[]);
    let row: Vec<u8> =
        (1..=50).flat_map(|id| request("POST", "/command", "", open(id, "row"))).collect();
    let answers = exchange(&up, row);
    let seqs = answers.split("HTTP/1.1 202 Accepted").skip(1).map(|answer| {
        let (_, json) = answer.split_once("\r\n\r\n").expect("it has a head");
        let receipt: Value = serde_json::from_str(json).expect("it is JSON");
        receipt["seq"].as_u64().expect("a number")
    });
    assert!(seqs.eq(1..=50), "{answers}");
}
