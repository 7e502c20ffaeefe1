//! One command's trace, from its request to its rows, in a collector of the test's own.

use std::collections::BTreeSet;
use std::time::Duration;

use fanfold_otel::testing::{Collector, Received};
use serde_json::{Value, json};

use crate::{Up, fanfold};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
const LONGEST: Duration = Duration::from_secs(60);

/// `up` in memory, with these variables.
fn up(variables: &[(&str, &str)]) -> Result<Up, String> {
    let mut command = fanfold(&["up", "--in-memory", "--listen", "127.0.0.1:0"]);
    Up::try_start(command.envs(variables.iter().copied()))
}

/// Opens an account, and waits for its row. Returns the command's entry.
fn open(up: &Up, id: u64, traceparent: Option<&str>) -> Value {
    let command = json!({
        "type": "ledger", "command": "open", "id": id, "user": "ann", "org": "acme",
        "data": {"account": format!("a{id}")},
    });
    let mut request = ureq::post(format!("{}/command?wait=5000", up.url));
    if let Some(traceparent) = traceparent {
        request = request.header("traceparent", traceparent);
    }
    let mut answer = request.send(command.to_string()).expect("it answers");
    let entry: Value =
        serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON");
    assert_eq!(entry["status"], "accepted", "{entry}");
    entry
}

fn of_trace(spans: &[Received]) -> Vec<&Received> {
    spans.iter().filter(|span| span.trace == TRACE).collect()
}

#[test]
fn a_collector_finds_all_hops_of_a_command_in_its_trace() {
    let collector = Collector::start().expect("a port");
    let endpoint = collector.endpoint();
    let up = up(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
        ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ("OTEL_TRACES_SAMPLER", "parentbased_always_off"),
    ]);
    let up = up.expect("it starts");
    let entry = open(&up, 1, Some(&format!("00-{TRACE}-{CALLER}-01")));
    let plain = open(&up, 2, None);
    assert_eq!(plain.get("traceparent"), None, "its trace is not recorded");

    let hops = [
        "POST /command",
        "send commands",
        "process commands",
        "send commits",
        "process commits by balances",
        "process commits by statement",
        "process commits by totals",
    ];
    let names = |spans: &[Received]| -> BTreeSet<String> {
        of_trace(spans).iter().map(|span| span.name.clone()).collect()
    };
    let all: BTreeSet<String> = hops.iter().map(|name| (*name).to_owned()).collect();
    // Of a batch, its own span comes first.
    let spans = collector.wait(LONGEST, |spans| names(spans) == all);
    assert_eq!(names(&spans), all, "{spans:#?}");
    let of = of_trace(&spans);
    assert_eq!(of.len(), hops.len(), "each hop once: {of:#?}");
    let server = of.iter().find(|span| span.name == hops[0]).expect("the request's span");
    assert_eq!((&server.parent[..], &server.kind[..]), (CALLER, "Server"));
    assert!(spans.iter().all(|span| span.service == "ledger"));
    let sent = format!("00-{TRACE}-{}-01", server.span);
    assert_eq!(entry["traceparent"], json!(sent), "the entry names the span of its request");
    for span in of.iter().filter(|span| span.name != hops[0]) {
        assert_eq!(span.parent, server.span, "{span:#?}");
        assert_eq!(span.attribute("fanfold.log"), Some("ledger/org:acme"));
        assert_eq!(span.attribute("fanfold.seq"), Some("1"));
        let [(trace, batch)] = &span.links[..] else { panic!("{span:#?}") };
        let batch = spans.iter().find(|other| (&other.trace, &other.span) == (trace, batch));
        let batch = batch.expect("the batch has a span");
        assert_eq!((&batch.name, &batch.parent[..]), (&span.name, ""));
        assert_eq!(batch.links, [(TRACE.to_owned(), server.span.clone())]);
    }
    assert_eq!(spans.len(), 2 * hops.len() - 1, "a command of no trace has no span: {spans:#?}");
}

#[test]
fn a_trace_goes_on_where_nothing_is_sent() {
    let up = up(&[]).expect("it starts");
    let caller = format!("00-{TRACE}-{CALLER}-01");
    assert_eq!(open(&up, 1, Some(&caller))["traceparent"], json!(caller));
    assert_eq!(open(&up, 2, Some("nonsense")).get("traceparent"), None);
}

#[test]
fn a_protocol_that_is_not_built_in_is_refused() {
    let grpc = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4317"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ];
    let said = up(&grpc).err().expect("it does not start");
    assert!(said.contains("`OTEL_EXPORTER_OTLP_PROTOCOL`: `grpc` is not supported here"), "{said}");
}
