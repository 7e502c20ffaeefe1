//! `fanfold up`: requests with plain `curl`, its end, and its arguments.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use fanfold_pipeline::metrics::{ALL, Kind, Metric};
use serde_json::{Value, json};

use crate::{Up, fanfold, lines, stderr};

const ARTICLE: &str = r#"{"type":"ledger","command":"deposit","id":17,"timestamp":11178,"user":"ann","org":"acme","data":{"account":"cash","amount":100}}"#;

fn has_curl() -> bool {
    Command::new("curl").arg("--version").output().is_ok()
}

/// Runs a line in `sh`; returns its output as JSON.
fn paste(line: &str) -> Value {
    let output = Command::new("sh").args(["-c", line]).output().expect("there is `sh`");
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{line}: {e}: {text} {output:?}"))
}

/// Runs `curl -XPOST {url}{path} -d '{body}'`, or `curl '{url}{path}'` without a body. Where there
/// is no curl, sends the bytes that it would send.
fn curl(url: &str, path: &str, body: Option<&str>) -> Value {
    if has_curl() {
        return match body {
            Some(body) => paste(&format!("curl -sS -XPOST {url}{path} -d '{body}'")),
            None => paste(&format!("curl -sS '{url}{path}'")),
        };
    }
    let authority = url.trim_start_matches("http://");
    let common = format!("Host: {authority}\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n");
    let request = match body {
        Some(body) => format!(
            "POST {path} HTTP/1.1\r\n{common}Content-Length: {}\r\nContent-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
            body.len()
        ),
        None => format!("GET {path} HTTP/1.1\r\n{common}\r\n"),
    };
    let mut stream = TcpStream::connect(authority).expect("it listens");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = Vec::new();
    loop {
        let mut piece = [0; 4096];
        let n = stream.read(&mut piece).expect("it answers");
        assert!(n > 0, "the answer broke off: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..n]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((_, json)) = text.split_once("\r\n\r\n")
            && let Ok(json) = serde_json::from_str(json)
        {
            return json;
        }
    }
}

#[test]
fn a_request_by_plain_curl_gets_a_receipt_and_takes_effect() {
    let up = Up::new();
    let open =
        ARTICLE.replace("deposit", "open").replace(":17,", ":1,").replace(r#","amount":100"#, "");
    let receipt = curl(&up.url, "/command", Some(&open));
    assert_eq!(receipt, json!({"log": "ledger/org:acme", "seq": 1}));
    let receipt = curl(&up.url, "/command", Some(ARTICLE));
    assert_eq!(receipt, json!({"log": "ledger/org:acme", "seq": 2}));

    let get = |path: &str| curl(&up.url, path, None);
    let entry = get("/logs/ledger/org:acme/2?wait=5000");
    assert_eq!(entry["status"], "accepted");
    assert_eq!(entry["events"][0]["data"], json!({"amount": 100, "balance": 100}));
    let cash = get("/views/balances/ledger/org:acme/cash?seq=2&wait=5000");
    assert_eq!(cash["row"], json!({"balance": 100, "movements": 1}));
    let statement = get("/views/statement/ledger/org:acme?seq=2&wait=5000&order=desc&limit=1");
    assert_eq!(statement["rows"][0]["row"]["kind"], "deposited");
    let total = get("/views/totals/ledger/org:acme/total?seq=2&wait=5000");
    assert_eq!(total["row"], json!({"accounts": 1, "balance": 100, "movements": 1, "rejected": 0}));
}

#[test]
fn the_printed_commands_work_in_a_shell() {
    let up = Up::new();
    assert_eq!(up.to_paste.len(), 2, "{:?}", up.to_paste);
    if !has_curl() {
        return;
    }
    assert_eq!(paste(&up.to_paste[0]), json!({"log": "ledger/org:acme", "seq": 1}));
    let row = json!({"key": "cash", "seq": 1, "row": {"balance": 0, "movements": 0}});
    assert_eq!(paste(&up.to_paste[1])["rows"], json!([row]));
}

#[test]
fn a_signal_ends_the_host_soon_with_exit_code_0() {
    for signal in ["-TERM", "-INT"] {
        let up = Up::new();
        let batch: String = (1..=500)
            .map(|id| {
                ARTICLE.replace(":17,", &format!(":{id},")).replace("acme", &format!("o{id}"))
                    + "\n"
            })
            .collect();
        assert_eq!(lines(&up.client_reads(&["send"], batch.as_bytes()), 0).len(), 500);
        let asked = Instant::now();
        up.signal(signal);
        let (code, stderr) = up.end();
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{signal}");
        assert!(asked.elapsed() < Duration::from_secs(10), "{signal}: {:?}", asked.elapsed());
    }
}

#[test]
fn a_request_that_has_begun_is_answered_before_the_end() {
    let up = Up::new();
    let mut stream = TcpStream::connect(up.url.trim_start_matches("http://")).expect("it listens");
    let (head, tail) = ARTICLE.split_at(20);
    let length = ARTICLE.len();
    let start = format!(
        "POST /command HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{head}"
    );
    stream.write_all(start.as_bytes()).expect("it reads");
    // So that the beginning of the request arrives before the signal.
    thread::sleep(Duration::from_millis(200));
    up.signal("-TERM");
    thread::sleep(Duration::from_millis(200));
    stream.write_all(tail.as_bytes()).expect("it still reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(up.end().0, Some(0));
}

#[test]
fn a_request_that_never_ends_does_not_delay_the_end() {
    let up = Up::new();
    let mut stream = TcpStream::connect(up.url.trim_start_matches("http://")).expect("it listens");
    stream
        .write_all(b"POST /command HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        .expect("it reads");
    thread::sleep(Duration::from_millis(200));
    let asked = Instant::now();
    up.signal("-TERM");
    assert_eq!(up.end().0, Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10), "{:?}", asked.elapsed());
}

#[test]
fn a_taken_port_is_an_error_of_one_line() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it has one").to_string();
    let output =
        fanfold(&["up", "--in-memory", "--listen", &address]).output().expect("the binary starts");
    assert_eq!(lines(&output, 1), Vec::<String>::new());
    assert_eq!(
        stderr(&output),
        format!("error: {address} is taken by another program: choose another with --listen\n")
    );
}

/// The example `wrong_app` hosts an app without services and views, whose name is wrong, too.
#[test]
fn an_app_that_cannot_be_hosted_is_an_error_of_one_line() {
    let program = Path::new(env!("CARGO_BIN_EXE_fanfold")).with_file_name("examples/wrong_app");
    for args in [&["up", "--in-memory"][..], &["--help"], &[]] {
        let output = Command::new(&program).args(args).output();
        let output = output.expect("cargo builds examples unless it has a name of a test");
        assert_eq!(lines(&output, 1), Vec::<String>::new(), "{args:?}");
        assert_eq!(
            stderr(&output),
            "error: the app `Books` cannot be hosted: the name of the app `Books` contains 'B' \
             (U+0042), allowed are [a-z][a-z0-9-]*; it has neither a service nor a view\n"
        );
    }
}

#[test]
fn bad_arguments_are_explained() {
    // An address that is taken, so that a command that wrongly accepts its arguments ends, too.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let taken = listener.local_addr().expect("it has one").to_string();
    for (args, expected) in [
        (&["up", "--listen", "here"][..], "--listen"),
        (&["up", "--listen", &taken, "--shards", "0"], "--shards"),
        (&["up", "--listen", &taken, "--log", "a=b=c"], "--log"),
        (&["send", "--type", "ledger"], "--command"),
        (&["send", "--type", "ledger", "--data", "{"], "--data"),
        (&["log", "ledger"], "<service>/org:<name>"),
        (&["grow"], "unrecognized subcommand 'grow'; see '--help'"),
        (&["send", "--typ", "ledger"], "--type"),
        (&["view", "balances", "ledger/acme"], "org:"),
    ] {
        let output = fanfold(args).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let error = stderr(&output);
        assert!(error.starts_with("error: ") && error.contains(expected), "{args:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{args:?}: {error}");
    }
}

/// What the host shows is what the list has.
#[test]
fn the_metrics_of_up_are_those_of_the_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let up = Up::on(folder.path());
    curl(&up.url, "/command", Some(ARTICLE));
    curl(&up.url, "/command", Some("nonsense"));
    let mut answer = ureq::get(format!("{}/metrics", up.url)).call().expect("it answers");
    let text = answer.body_mut().read_to_string().expect("it is text");
    let of =
        |line: &str| text.lines().filter_map(|l| l.strip_prefix(line)).map(str::to_owned).collect();
    let listed = || ALL.iter().filter(|metric| metric.up);
    let kind = |kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let types: BTreeSet<String> = of("# TYPE ");
    assert_eq!(types, listed().map(|m| format!("{} {}", m.name, kind(m.kind))).collect());
    let helps: BTreeSet<String> = of("# HELP ");
    assert_eq!(helps, listed().map(|m| format!("{} {}", m.name, m.help)).collect());
    // Each sample has the labels of the list.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, labels) = line.split_once('{').unwrap_or((line, ""));
        let name = name.split(' ').next().expect("it has a name");
        let is_its = |m: &&Metric| {
            let end = name.strip_prefix(m.name);
            end.is_some_and(|end| ["", "_bucket", "_sum", "_count"].contains(&end))
        };
        let metric = listed().filter(is_its).max_by_key(|m| m.name.len());
        let metric = metric.unwrap_or_else(|| panic!("{line}"));
        for label in metric.labels {
            assert!(labels.contains(&format!("{label}=")), "{line} has no {label}");
        }
    }
}

#[test]
fn a_host_that_greets_is_ready() {
    let up = Up::new();
    for (path, status) in [("/healthz", "ok"), ("/readyz", "ready")] {
        let mut answer = ureq::get(format!("{}{path}", up.url)).call().expect("it answers");
        let text = answer.body_mut().read_to_string().expect("it is text");
        assert_eq!(text, format!("{{\"status\":\"{status}\"}}"));
    }
}

#[test]
fn metrics_show_the_engine() {
    let up = Up::new();
    curl(&up.url, "/command", Some(ARTICLE));
    curl(&up.url, "/views/totals/ledger/org:acme?seq=1&wait=5000", None);
    let metrics = || {
        let mut answer = ureq::get(format!("{}/metrics", up.url)).call().expect("it answers");
        answer.body_mut().read_to_string().expect("it is text")
    };
    // The view may have the entry before the processor has acknowledged its batch.
    let deadline = Instant::now() + Duration::from_secs(10);
    for line in [
        "fanfold_backlog{stage=\"relay\"} 0",
        "fanfold_backlog{stage=\"process\"} 0",
        "fanfold_deliveries_total{view=\"totals\",outcome=\"dead\"} 0",
        "fanfold_standstill_seconds 0.0",
        "fanfold_lag_seconds{stage=\"process\"} 0.0",
        "fanfold_view_backlog{view=\"totals\"} 0",
        "fanfold_outcomes_total{outcome=\"rejected\"} 1",
        "fanfold_decide_seconds_count 1",
        "fanfold_apply_seconds_bucket{le=\"+Inf\",view=\"totals\"} 1",
        // The connection of this request.
        "fanfold_http_connections 1",
        "fanfold_http_body_bytes 0",
    ] {
        let mut text = metrics();
        while !text.lines().any(|found| found == line) {
            assert!(Instant::now() < deadline, "no {line} in\n{text}");
            thread::sleep(Duration::from_millis(20));
            text = metrics();
        }
    }
}
