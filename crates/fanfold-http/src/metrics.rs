//! Counters of requests and commands, in the text format that Prometheus reads.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::problem::{Kind, Problem};

/// The media type of [`Metrics::encode`]'s text: OpenMetrics 1.0.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters of one host. Clones are cheap and share the counters.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    requests: Family<RequestLabels, Counter>,
    commands: Family<CommandLabels, Counter>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CommandLabels {
    answer: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counters that are all zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("fanfold");
        let (requests, commands) = (Family::default(), Family::default());
        registry.register("http_requests", "HTTP requests answered", requests.clone());
        registry.register(
            "http_commands",
            "Commands answered, with a receipt or with a problem",
            commands.clone(),
        );
        Self { registry: Arc::new(Mutex::new(registry)), requests, commands }
    }

    /// Lets the host add its own metrics to those that the router shows. Their names get the prefix
    /// `fanfold_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Counts one request. `route` is a route's pattern or `other`, never the caller's path, so
    /// callers cannot add series without bound.
    pub(crate) fn count_request(&self, method: &Method, route: &'static str, status: StatusCode) {
        let method = match *method {
            Method::GET => "GET",
            Method::HEAD => "HEAD",
            Method::POST => "POST",
            _ => "other",
        };
        let labels = RequestLabels { method, route, status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
    }

    pub(crate) fn count_commands(&self, receipts: usize, problems: usize) {
        for (answer, n) in [("receipt", receipts), ("problem", problems)] {
            self.commands.get_or_create(&CommandLabels { answer }).inc_by(n as u64);
        }
    }

    /// All metrics, as OpenMetrics text.
    pub(crate) fn encode(&self) -> Result<String, Problem> {
        let mut encoded = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut encoded, &registry)
            .map_err(|e| Problem::new(Kind::INTERNAL, format!("metrics cannot be written: {e}")))?;
        Ok(encoded)
    }
}
