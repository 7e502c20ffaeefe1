//! Traces of commands, sent to an OpenTelemetry collector by OTLP over HTTP.
//!
//! [`Otel::of_environment`] reads the variables of OpenTelemetry. Without an endpoint there are no traces, and they cost
//! nothing. Spans wait in a bounded queue, and a thread sends them in batches; what does not fit into the queue is dropped.
//!
//! The spans follow OpenTelemetry's conventions for messaging:
//!
//! | span | kind | parent | links |
//! |---|---|---|---|
//! | `POST /command` | server | what the request's `traceparent` names, or none | – |
//! | a batch of a stage, as `process commands` | consumer, or producer | none: a batch belongs to no command | its commands |
//! | a command in that batch, of the same name | the same | the span that has sent the command | the batch |
//!
//! So one trace has all hops of a command. A batch without a recorded command has no span.

mod client;
#[cfg(any(feature = "testing", test))]
pub mod testing;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use fanfold::TraceParent;
use fanfold_pipeline::traces::{Hop, RequestSpan, Traced, TracedBatch, Traces};
use opentelemetry::trace::{
    Link, Span as _, SpanBuilder, SpanContext, SpanId, SpanKind, Status, TraceContextExt,
    TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData, SpanProcessor,
};

use crate::client::Client;

/// The variables that turn traces on, the first one first. Source: OpenTelemetry's specification of the OTLP exporter.
const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// The variables of the protocol. Source: the same.
const PROTOCOLS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
/// How long an end of the process waits for spans to be sent. Source: our choice; `up` stops within ten seconds.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Sends spans to a collector. Cheap to clone.
#[derive(Clone)]
pub struct Otel(Arc<Inner>);

struct Inner {
    /// Of requests, and of commands in a batch: the sampler decides, or the parent.
    spans: SdkTracer,
    /// Of batches, each of which has a recorded command.
    batches: SdkTracer,
    processor: Shared,
    /// Spans have ended since the last flush.
    has_ended: AtomicBool,
}

/// Why traces cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum OtelError {
    /// A variable has a value that this program cannot take.
    #[error("`{variable}`: {message}")]
    Variable {
        /// The variable.
        variable: &'static str,
        /// What is wrong with it, and what it may be.
        message: String,
    },
    /// The exporter refuses its configuration.
    #[error("the exporter of traces cannot be made: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

impl Otel {
    /// The exporter that the variables of the environment describe; `None` if they name no endpoint, or turn traces off.
    /// `service` is the name of the service unless `OTEL_SERVICE_NAME` has another.
    pub fn of_environment(service: &str) -> Result<Option<Self>, OtelError> {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if !is_on(get)? {
            return Ok(None);
        }
        Self::new(service, None).map(Some)
    }

    /// Sends to this URL, as `http://127.0.0.1:4318/v1/traces`.
    pub fn to(endpoint: &str, service: &str) -> Result<Self, OtelError> {
        Self::new(service, Some(endpoint))
    }

    fn new(service: &str, endpoint: Option<&str>) -> Result<Self, OtelError> {
        let exporter = SpanExporter::builder().with_http().with_http_client(Client::new());
        let exporter = exporter.with_protocol(Protocol::HttpBinary);
        let exporter = match endpoint {
            Some(endpoint) => exporter.with_endpoint(endpoint).build()?,
            None => exporter.build()?,
        };
        let mut resource = Resource::builder();
        if std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty()) {
            // The resource has it.
        } else {
            resource = resource.with_service_name(service.to_owned());
        }
        let resource = resource.build();
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        processor.set_resource(&resource);
        let processor = Shared(Arc::new(processor));
        let provider = || {
            let builder = SdkTracerProvider::builder().with_resource(resource.clone());
            builder.with_span_processor(processor.clone())
        };
        // The variables of the environment choose this sampler.
        let spans = provider().build().tracer("fanfold");
        let batches = provider().with_sampler(Sampler::AlwaysOn).build().tracer("fanfold");
        let has_ended = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner { spans, batches, processor, has_ended })))
    }

    /// Waits until the spans that have ended are sent, for at most five seconds. It blocks its thread.
    pub fn flush(&self) {
        if self.0.has_ended.swap(false, Ordering::Relaxed)
            && let Err(error) = self.0.processor.force_flush()
        {
            tracing::warn!(%error, "spans could not be sent");
        }
    }

    /// Sends what is left, for at most two seconds, and ends. It blocks its thread.
    pub fn shut_down(&self) {
        if let Err(error) = self.0.processor.0.shutdown_with_timeout(SHUTDOWN) {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }

    fn end(&self, mut span: Span, at: SystemTime) {
        span.end_with_timestamp(at);
        self.0.has_ended.store(true, Ordering::Relaxed);
    }
}

impl fmt::Debug for Otel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Otel")
    }
}

/// Whether variables of the environment turn traces on.
fn is_on(get: impl Fn(&str) -> Option<String>) -> Result<bool, OtelError> {
    let is = |name: &str, value: &str| get(name).is_some_and(|v| v.eq_ignore_ascii_case(value));
    let has_endpoint = ENDPOINTS.iter().any(|name| get(name).is_some());
    if !has_endpoint || is("OTEL_SDK_DISABLED", "true") || is("OTEL_TRACES_EXPORTER", "none") {
        return Ok(false);
    }
    if let Some((variable, protocol)) = PROTOCOLS.iter().find_map(|name| Some((*name, get(name)?)))
        && protocol != "http/protobuf"
    {
        let message = format!("`{protocol}` is not supported here, only `http/protobuf` is");
        return Err(OtelError::Variable { variable, message });
    }
    Ok(true)
}

impl Traces for Otel {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn request(
        &self,
        parent: Option<TraceParent>,
        method: &str,
        route: &'static str,
    ) -> Box<dyn RequestSpan> {
        let parent = match parent {
            Some(parent) => Context::new().with_remote_span_context(context_of(parent)),
            None => Context::new(),
        };
        let attributes = [
            KeyValue::new("http.request.method", method.to_owned()),
            KeyValue::new("http.route", route),
        ];
        let builder = SpanBuilder::from_name(format!("{method} {route}"))
            .with_kind(SpanKind::Server)
            .with_attributes(attributes);
        let span = self.0.spans.build_with_context(builder, &parent);
        Box::new(Request { otel: self.clone(), span: Some(span) })
    }

    fn batch(&self, batch: &TracedBatch<'_>) {
        let (hop, began, now) = (Named::of(batch.hop), batch.began, self.now());
        let links = batch.commands.iter().map(|of| Link::with_context(context_of(of.trace)));
        let builder = hop.span(began).with_links(links.collect());
        let span = self.0.batches.build_with_context(builder, &Context::new());
        let of_batch = span.span_context().clone();
        self.end(span, now);
        for command in &batch.commands {
            let builder = hop.span_of(began, command);
            let builder = builder.with_links(vec![Link::with_context(of_batch.clone())]);
            let parent = Context::new().with_remote_span_context(context_of(command.trace));
            let span = self.0.spans.build_with_context(builder, &parent);
            self.end(span, now);
        }
    }
}

/// A hop in the words of OpenTelemetry's conventions for messaging.
struct Named {
    /// `send` or `process`.
    operation: &'static str,
    kind: SpanKind,
    /// Where messages go, or come from.
    destination: &'static str,
    name: String,
}

impl Named {
    fn of(hop: Hop<'_>) -> Self {
        let (operation, kind, destination) = match hop {
            Hop::Relay => ("send", SpanKind::Producer, "commands"),
            Hop::Decide => ("process", SpanKind::Consumer, "commands"),
            Hop::Publish => ("send", SpanKind::Producer, "commits"),
            Hop::Apply(_) => ("process", SpanKind::Consumer, "commits"),
        };
        let name = match hop {
            Hop::Apply(view) => format!("{operation} {destination} by {view}"),
            _ => format!("{operation} {destination}"),
        };
        Self { operation, kind, destination, name }
    }

    fn span(&self, began: SystemTime) -> SpanBuilder {
        SpanBuilder::from_name(self.name.clone())
            .with_kind(self.kind.clone())
            .with_start_time(began)
            .with_attributes(self.attributes())
    }

    fn span_of(&self, began: SystemTime, command: &Traced<'_>) -> SpanBuilder {
        let Traced { log, seq, name, outcome, .. } = command;
        let mut attributes = self.attributes().to_vec();
        attributes.push(KeyValue::new("fanfold.log", log.to_string()));
        attributes.push(KeyValue::new("fanfold.seq", i64::try_from(seq.0).unwrap_or(i64::MAX)));
        let name = name.as_ref().map(|name| KeyValue::new("fanfold.command", name.to_string()));
        attributes.extend(name);
        attributes.extend(outcome.map(|outcome| KeyValue::new("fanfold.outcome", outcome)));
        self.span(began).with_attributes(attributes)
    }

    fn attributes(&self) -> [KeyValue; 3] {
        [
            KeyValue::new("messaging.system", "fanfold"),
            KeyValue::new("messaging.operation.type", self.operation),
            KeyValue::new("messaging.destination.name", self.destination),
        ]
    }
}

/// A request's span. If it is dropped early, the caller has gone away.
struct Request {
    otel: Otel,
    span: Option<Span>,
}

impl RequestSpan for Request {
    fn context(&self) -> Option<TraceParent> {
        let context = self.span.as_ref()?.span_context();
        let (trace, span) = (context.trace_id().to_bytes(), context.span_id().to_bytes());
        TraceParent::new(trace, span, context.is_sampled()).filter(TraceParent::is_sampled)
    }

    fn end(mut self: Box<Self>, status: u16) {
        if let Some(span) = &mut self.span {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
            if status >= 500 {
                span.set_status(Status::error(""));
            }
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let Some(span) = self.span.take() {
            self.otel.end(span, SystemTime::now());
        }
    }
}

fn context_of(trace: TraceParent) -> SpanContext {
    let flags = if trace.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (id, span) = (TraceId::from_bytes(trace.trace_id()), SpanId::from_bytes(trace.span_id()));
    SpanContext::new(id, span, flags, true, TraceState::NONE)
}

/// One processor for both providers. [`Otel`] ends it, and not a provider that is dropped.
#[derive(Debug, Clone)]
struct Shared(Arc<BatchSpanProcessor>);

impl SpanProcessor for Shared {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        self.0.on_end(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
