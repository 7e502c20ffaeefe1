use std::collections::BTreeMap;

use fanfold::{LogId, Seq};

use super::*;
use crate::testing::{Collector, Received};

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const LONGEST: Duration = Duration::from_secs(30);

fn otel(collector: &Collector) -> Otel {
    Otel::to(&format!("{}/v1/traces", collector.endpoint()), "shop").expect("an exporter")
}

fn traced(trace: TraceParent, log: &LogId, seq: u64) -> Traced<'_> {
    let outcome = Some("accepted");
    Traced { trace, log, seq: Seq(seq), name: None, outcome }
}

fn batch<'a>(hop: Hop<'a>, commands: Vec<Traced<'a>>) -> TracedBatch<'a> {
    let began = SystemTime::now() - Duration::from_millis(5);
    TracedBatch { hop, began, commands }
}

#[test]
fn a_batch_links_to_its_commands_and_each_command_is_a_child_of_its_request() {
    let collector = Collector::start().expect("a port");
    let otel = otel(&collector);
    let caller: TraceParent = CALLER.parse().expect("a trace");
    let request = otel.request(Some(caller), "POST", "/command");
    let first = request.context().expect("the caller records the trace");
    assert_eq!(first.trace_id(), caller.trace_id());
    assert_ne!(first.span_id(), caller.span_id());
    request.end(202);
    let other = otel.request(None, "POST", "/commands");
    let second = other.context().expect("by default, all requests are recorded");
    assert_ne!(second.trace_id(), first.trace_id());
    other.end(503);
    let log: LogId = "ledger/org:acme".parse().expect("a log");
    otel.batch(&batch(
        Hop::Apply("balances"),
        vec![traced(first, &log, 1), traced(second, &log, 2)],
    ));
    otel.flush();

    let spans = collector.wait(LONGEST, |spans| spans.len() == 5);
    let text = |trace: TraceParent| {
        let text = trace.to_string();
        let parts: Vec<&str> = text.split('-').collect();
        (parts[1].to_owned(), parts[2].to_owned())
    };
    let of =
        |name: &str| -> Vec<&Received> { spans.iter().filter(|span| span.name == name).collect() };
    assert_eq!(spans.len(), 5, "{spans:#?}");
    assert!(spans.iter().all(|span| span.service == "shop"));
    let [server] = of("POST /command")[..] else { panic!("{spans:#?}") };
    let (trace, caller) = text(caller);
    assert_eq!((&server.kind[..], &server.trace, &server.parent), ("Server", &trace, &caller));
    assert_eq!(server.attribute("http.response.status_code"), Some("202"));

    let name = "process commits by balances";
    let (batches, commands): (Vec<&Received>, Vec<&Received>) =
        of(name).into_iter().partition(|span| span.links.len() == 2);
    let [batch] = batches[..] else { panic!("{spans:#?}") };
    assert_eq!((&batch.kind[..], &batch.parent[..]), ("Consumer", ""), "it belongs to no command");
    assert_eq!(batch.links, [text(first), text(second)]);
    assert!(spans.iter().filter(|span| span.trace == batch.trace).count() == 1);
    let by_parent: BTreeMap<(String, String), &Received> =
        commands.iter().map(|span| ((span.trace.clone(), span.parent.clone()), *span)).collect();
    for (trace, seq) in [(first, "1"), (second, "2")] {
        let span = by_parent[&text(trace)];
        assert_eq!(span.links, [(batch.trace.clone(), batch.span.clone())]);
        assert_eq!(span.attribute("fanfold.seq"), Some(seq));
        assert_eq!(span.attribute("fanfold.outcome"), Some("accepted"));
        assert!(span.nanos >= 5_000_000, "from the stage's begin: {}", span.nanos);
    }
}

#[test]
fn a_trace_that_its_caller_does_not_record_is_not_recorded() {
    let collector = Collector::start().expect("a port");
    let otel = otel(&collector);
    let caller = format!("{}00", &CALLER[..53]).parse().expect("a trace");
    let request = otel.request(Some(caller), "POST", "/command");
    assert_eq!(request.context(), None);
    request.end(202);
    otel.request(None, "GET", "/logs").end(200);
    otel.flush();
    let spans = collector.wait(LONGEST, |spans| !spans.is_empty());
    assert_eq!(spans.iter().map(|span| &span.name[..]).collect::<Vec<_>>(), ["GET /logs"]);
}

#[test]
fn a_collector_that_is_away_stops_nothing() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let nowhere = format!("http://{}/v1/traces", listener.local_addr().expect("an address"));
    drop(listener);
    let otel = Otel::to(&nowhere, "shop").expect("an exporter");
    for _ in 0..3_000 {
        otel.request(None, "GET", "/logs").end(200);
    }
    otel.shut_down();
}

#[test]
fn variables_turn_traces_on_and_off() {
    let on = |set: &[(&str, &str)]| {
        let get = |name: &str| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        is_on(get).map_err(|error| error.to_string())
    };
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");
    assert_eq!(on(&[]), Ok(false));
    assert_eq!(on(&[endpoint]), Ok(true));
    assert_eq!(on(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://a/b")]), Ok(true));
    assert_eq!(on(&[endpoint, ("OTEL_SDK_DISABLED", "TRUE")]), Ok(false));
    assert_eq!(on(&[endpoint, ("OTEL_TRACES_EXPORTER", "none")]), Ok(false));
    assert_eq!(on(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]), Ok(true));
    let refused = on(&[endpoint, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]);
    let said =
        "`OTEL_EXPORTER_OTLP_PROTOCOL`: `grpc` is not supported here, only `http/protobuf` is";
    assert_eq!(refused, Err(said.to_owned()));
}
