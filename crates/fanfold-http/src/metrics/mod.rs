//! Metrics for Prometheus: counters of requests and commands, and what the host adds.

mod format;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{Method, StatusCode};
use fanfold_pipeline::metrics::{self as list, Kind as MetricKind, Metric, Unit};
use fanfold_pipeline::telemetry::{BOUNDS_MS, Latencies};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{self, Registry};

pub(crate) use self::format::Format;
use crate::problem::{Kind, Problem};

/// What the names of all metrics begin with.
const PREFIX: &str = "fanfold";

/// The counters of one host. Clones are cheap and share the counters.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    counted: Counted,
}

/// What the router counts.
#[derive(Debug, Clone, Default)]
struct Counted {
    requests: Family<RequestLabels, Counter>,
    commands: Family<CommandLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Counters that are all zero.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix(PREFIX);
        let counted = Counted::default();
        registry.register_collector(Box::new(counted.clone()));
        Self { registry: Arc::new(Mutex::new(registry)), counted }
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
        self.counted.requests.get_or_create(&labels).inc();
    }

    /// Counts the answers to commands: their receipts, and the slugs of their problems.
    pub(crate) fn count_commands(
        &self,
        receipts: usize,
        refused: impl IntoIterator<Item = &'static str>,
    ) {
        let mut problems = 0;
        for reason in refused {
            self.counted.refused.get_or_create(&RefusedLabels { reason }).inc();
            problems += 1;
        }
        for (answer, n) in [("receipt", receipts as u64), ("problem", problems)] {
            self.counted.commands.get_or_create(&CommandLabels { answer }).inc_by(n);
        }
    }

    /// All metrics as text.
    pub(crate) fn encode(&self, format: Format) -> Result<String, Problem> {
        let mut encoded = String::new();
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        text::encode(&mut encoded, &registry)
            .map_err(|e| Problem::new(Kind::INTERNAL, format!("metrics cannot be written: {e}")))?;
        Ok(match format {
            Format::OpenMetrics => encoded,
            Format::Text => format::as_text(&encoded),
        })
    }
}

impl Collector for Counted {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.requests.encode(describe(&mut encoder, &list::HTTP_REQUESTS)?)?;
        self.commands.encode(describe(&mut encoder, &list::HTTP_COMMANDS)?)?;
        self.refused.encode(describe(&mut encoder, &list::REFUSED)?)
    }
}

/// Begins a metric of the list, for its values.
pub fn describe<'e>(
    encoder: &'e mut DescriptorEncoder<'_>,
    metric: &'e Metric,
) -> Result<MetricEncoder<'e>, fmt::Error> {
    let (unit, end) = match metric.unit {
        Some(Unit::Seconds) => (Some(&registry::Unit::Seconds), "_seconds"),
        Some(Unit::Bytes) => (Some(&registry::Unit::Bytes), "_bytes"),
        None => (None, ""),
    };
    let kind = match metric.kind {
        MetricKind::Counter => MetricType::Counter,
        MetricKind::Gauge => MetricType::Gauge,
        MetricKind::Histogram => MetricType::Histogram,
    };
    // The encoder adds the prefix, the unit, and the end of a counter's name.
    let name = metric.name.strip_prefix(PREFIX).and_then(|name| name.strip_prefix('_'));
    let name = name.unwrap_or(metric.name);
    let name = name.strip_suffix("_total").unwrap_or(name);
    let name = name.strip_suffix(end).unwrap_or(name);
    encoder.encode_descriptor(name, metric.help, unit, kind)
}

/// Writes a metric of the list that is one number.
pub fn value(encoder: &mut DescriptorEncoder<'_>, metric: &Metric, value: f64) -> fmt::Result {
    write_value(describe(encoder, metric)?, metric, value)
}

/// Writes a metric of the list that has a number for each set of labels.
pub fn values<'l, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    values: impl IntoIterator<Item = ([&'l str; N], f64)>,
) -> fmt::Result {
    let mut family = describe(encoder, metric)?;
    for (labels, value) in values {
        let labels: Vec<(&str, &str)> = metric.labels.iter().copied().zip(labels).collect();
        write_value(family.encode_family(&labels)?, metric, value)?;
    }
    Ok(())
}

fn write_value(encoder: MetricEncoder<'_>, metric: &Metric, value: f64) -> fmt::Result {
    match metric.kind {
        MetricKind::Counter => ConstCounter::new(value as u64).encode(encoder),
        // A count is shown without a decimal point.
        MetricKind::Gauge if metric.unit != Some(Unit::Seconds) => {
            ConstGauge::new(value as i64).encode(encoder)
        }
        MetricKind::Gauge | MetricKind::Histogram => ConstGauge::new(value).encode(encoder),
    }
}

/// Writes a histogram of the list; with one label, for each of its values.
pub fn latencies<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    metric: &Metric,
    all: impl IntoIterator<Item = (Option<&'l str>, &'l Latencies)>,
) -> fmt::Result {
    let mut family = describe(encoder, metric)?;
    for (label, latencies) in all {
        let buckets = BOUNDS_MS.iter().map(|ms| *ms as f64 / 1_000.0).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = buckets.zip(latencies.buckets).collect();
        let sum = latencies.sum_ms as f64 / 1_000.0;
        let write = |mut encoder: MetricEncoder<'_>| {
            encoder.encode_histogram::<NoLabelSet>(sum, latencies.count(), &buckets, None)
        };
        match label {
            Some(value) => {
                let labels: Vec<(&str, &str)> =
                    metric.labels.iter().copied().zip([value]).collect();
                write(family.encode_family(&labels)?)?;
            }
            None => {
                // A metric without labels has one value.
                return write(family);
            }
        }
    }
    Ok(())
}
