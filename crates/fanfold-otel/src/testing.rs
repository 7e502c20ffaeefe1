//! A collector for tests: it takes spans by OTLP over HTTP, and keeps them.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;

/// The most bytes of a request. Source: our choice; an exporter sends at most 512 spans at once.
const REQUEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A span as a collector receives it. Ids are hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The name of the service that has sent it.
    pub service: String,
    /// Its name.
    pub name: String,
    /// `Server`, `Producer` or `Consumer`.
    pub kind: String,
    /// Its trace.
    pub trace: String,
    /// Its own id.
    pub span: String,
    /// The span above it; empty if there is none.
    pub parent: String,
    /// The spans that it is linked with: trace and span.
    pub links: Vec<(String, String)>,
    /// Its attributes, as text.
    pub attributes: Vec<(String, String)>,
    /// Nanoseconds from its begin to its end.
    pub nanos: u64,
}

impl Received {
    /// An attribute's value.
    pub fn attribute(&self, key: &str) -> Option<&str> {
        self.attributes.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }
}

/// A collector at a loopback address. Its threads end with the process.
#[derive(Debug, Clone)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<(Mutex<Vec<Received>>, Condvar)>,
}

impl Collector {
    /// Listens, on a port that is free.
    pub fn start() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let collector = Self { address: listener.local_addr()?, spans: Arc::default() };
        let spans = collector.spans.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let spans = spans.clone();
                std::thread::spawn(move || serve(stream, &spans));
            }
        });
        Ok(collector)
    }

    /// For `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Received> {
        self.spans.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the spans are as `is_enough` wants them, for at most `longest`, and returns them.
    pub fn wait(
        &self,
        longest: Duration,
        is_enough: impl Fn(&[Received]) -> bool,
    ) -> Vec<Received> {
        let until = Instant::now() + longest;
        let (spans, changed) = &*self.spans;
        let mut spans = spans.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_enough(&spans) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = changed.wait_timeout(spans, left);
            spans = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        spans.clone()
    }
}

/// Answers the requests of a connection. One that cannot be read ends it.
fn serve(stream: TcpStream, spans: &(Mutex<Vec<Received>>, Condvar)) {
    let Ok(mut answers) = stream.try_clone() else { return };
    let mut requests = BufReader::new(stream);
    while let Ok(Some(body)) = read(&mut requests) {
        let Ok(request) = ExportTraceServiceRequest::decode(&body[..]) else { return };
        let mut received = spans.0.lock().unwrap_or_else(PoisonError::into_inner);
        received.extend(spans_of(request));
        drop(received);
        spans.1.notify_all();
        let answer =
            "HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if answers.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// The body of the next request; `None` at the end.
fn read(requests: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = 0;
    loop {
        let mut line = String::new();
        if requests.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let line = line.trim_end().to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(length) = line.strip_prefix("content-length:") {
            bytes = length.trim().parse().map_err(io::Error::other)?;
        }
    }
    let mut body = Vec::new();
    requests.take(bytes.min(REQUEST_BYTES_MAX)).read_to_end(&mut body)?;
    Ok(Some(body))
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Received> {
    let mut received = Vec::new();
    for of in request.resource_spans {
        let resource = of.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = texts(resource).into_iter().find(|(key, _)| key == "service.name");
        let service = service.map(|(_, name)| name).unwrap_or_default();
        for span in of.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            let kind = SpanKind::try_from(span.kind).map(|kind| format!("{kind:?}"));
            let links = span.links.iter();
            received.push(Received {
                service: service.clone(),
                kind: kind.unwrap_or_default(),
                trace: hex(&span.trace_id),
                span: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: links.map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
                attributes: texts(span.attributes),
                nanos: span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano),
                name: span.name,
            });
        }
    }
    received
}

fn texts(attributes: Vec<KeyValue>) -> Vec<(String, String)> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    attributes.into_iter().map(|KeyValue { key, value, .. }| (key, text(value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
