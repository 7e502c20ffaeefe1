//! What is counted, for Prometheus.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use crate::problem::{Kind, Problem};

/// The media type of what [`Metrics::encode`] writes (OpenMetrics 1.0, which Prometheus reads).
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The counters of one host. Cheap to clone; clones count together.
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
    /// All at zero.
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

    /// Lets another layer add its own metrics, under the prefix `fanfold_`.
    pub fn register(&self, add: impl FnOnce(&mut Registry)) {
        add(&mut self.registry.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// `route` has a fixed number of values, so that no caller can make series without end.
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

    /// All of them, as text.
    pub(crate) fn encode(&self) -> Result<String, Problem> {
        let mut encoded = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut encoded, &registry)
            .map_err(|e| Problem::new(Kind::INTERNAL, format!("metrics cannot be written: {e}")))?;
        Ok(encoded)
    }
}
