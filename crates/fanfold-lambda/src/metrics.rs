//! Metrics in CloudWatch's embedded metric format: JSON lines of the log.
//!
//! Metrics of the sweeps describe the whole stack, and alarms watch them. Metrics of an invocation
//! describe its service. All names are those of [`fanfold_pipeline::metrics`]. The template's alarms
//! and dashboard use the same names.

use fanfold::Time;
use fanfold::host::body::parked::Reason;
use fanfold_pipeline::metrics::{self as list, Kind, Metric as Listed};
use fanfold_pipeline::telemetry::{BOUNDS_MS, Figures, Latencies};
use serde_json::{Map, Value, json};

/// The namespace of all metrics in CloudWatch.
pub const NAMESPACE: &str = "Fanfold";
/// The dimension of all metrics: the stack's name.
pub const STACK: &str = "Stack";
/// The second dimension of an invocation's metrics: `relay`, `processor`, `sweep`, or `view-<name>`.
pub const SERVICE: &str = "Service";

/// Sweep: the longest time that a log's oldest command without an entry has waited, in milliseconds.
pub const STANDSTILL_MS_MAX: &str = list::STANDSTILL.aws[0];
/// Sweep: the age of the oldest canary's last entry, in milliseconds.
pub const CANARY_AGE_MS_MAX: &str = list::CANARY_AGE.aws[0];
/// Sweep: logs in which something waits for an operator, or has waited for minutes for something that
/// should come by itself.
pub const WAITING: &str = list::WAITING.aws[0];
/// Sweep: logs whose slot's batch was put on the command stream again.
pub const RESENT: &str = list::RESENT.aws[0];
/// Sweep: logs that were nudged.
pub const NUDGED: &str = list::NUDGED.aws[0];
/// Sweep: logs that could not be read or nudged.
pub const FAILED: &str = list::FAILED.aws[0];
/// Sweep: logs with a lease of an attempt that did not return.
pub const ATTEMPTED: &str = list::ATTEMPTED.aws[0];
/// Sweep: logs that were visited.
pub const LOGS: &str = list::LOGS.aws[0];

/// View sweep: logs for which the view is parked.
pub const VIEW_PARKED: &str = list::VIEW_PARKED.aws[0];
/// View sweep: logs for which the view was behind, and caught up.
pub const VIEW_BEHIND: &str = list::VIEW_BEHIND.aws[0];
/// View sweep: logs for which the view could not catch up.
pub const VIEW_FAILED: &str = list::VIEW_FAILED.aws[0];
/// View sweep: logs that were skipped, since another process was catching up on them.
pub const VIEW_UNDER_WAY: &str = list::VIEW_UNDER_WAY.aws[0];
/// View sweep, of the view's service: logs that this run has visited.
pub const VIEW_LOGS: &str = list::VIEW_WALK_LOGS.aws[0];
/// View sweep, of the view's service: 1 if this run ended a walk over all logs, else 0. After the first walk a new view
/// has been through all logs.
pub const VIEW_WALKS: &str = list::VIEW_WALKS.aws[0];
/// View sweep: dead letters that were delivered.
pub const VIEW_DELIVERED: &str = list::VIEW_DELIVERED.aws[0];
/// View sweep: dead letters that stay in the queue, and calls of the queue that failed.
pub const VIEW_UNDELIVERED: &str = list::VIEW_UNDELIVERED.aws[0];

/// Invocation: records or messages in the event.
pub const RECORDS: &str = list::RECORDS.aws[0];
/// Invocation: records or messages that Lambda has to deliver again.
pub const UNFINISHED: &str = list::UNFINISHED.aws[0];
/// Stack: changes, records and messages that were skipped because they cannot be read.
pub const UNREADABLE: &str = list::UNREADABLE.aws[0];
/// Invocation: scheduled events that were dropped because the next one was sent already.
pub const SCHEDULES_DROPPED: &str = list::SCHEDULES_DROPPED.aws[0];
/// Invocation: read units of DynamoDB.
pub const READ_UNITS: &str = list::READ_UNITS.aws[0];
/// Invocation: write units of DynamoDB, with one for each condition that failed.
pub const WRITE_UNITS: &str = list::WRITE_UNITS.aws[0];

/// Sweep: the name of the metric that counts logs with something parked for this reason.
pub fn waiting_for(reason: Reason) -> &'static str {
    let at = Reason::ALL.iter().position(|of| *of == reason);
    at.and_then(|at| list::PARKED.aws.get(at)).copied().unwrap_or(WAITING)
}

/// The metrics of one invocation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<Metric>);

#[derive(Debug, Clone, PartialEq)]
struct Metric {
    name: &'static str,
    scope: Scope,
    value: Given,
}

/// One value, or the values of a histogram.
#[derive(Debug, Clone, PartialEq)]
enum Given {
    One(f64),
    Many(Vec<f64>),
}

impl Given {
    fn json(&self) -> Value {
        match self {
            Self::One(value) => json!(value),
            Self::Many(values) => json!(values),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Stack,
    Service,
}

/// The values of the dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions {
    /// See [`STACK`].
    pub stack: String,
    /// See [`SERVICE`].
    pub service: String,
}

impl Metrics {
    /// No metrics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there are no metrics.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a metric of the whole stack.
    pub fn of_stack(&mut self, name: &'static str, value: f64) {
        self.0.push(Metric { name, scope: Scope::Stack, value: Given::One(value) });
    }

    /// Adds a metric of the invocation's service.
    pub fn of_service(&mut self, name: &'static str, value: f64) {
        self.0.push(Metric { name, scope: Scope::Service, value: Given::One(value) });
    }

    /// Adds what the stages have measured during the invocation, except for what is zero: CloudWatch
    /// bills a metric only for the hours in which it has values.
    pub fn of_figures(&mut self, figures: &Figures) {
        let hops = [
            (&list::RELAY, &figures.relay),
            (&list::DECIDE, &figures.decide),
            (&list::PUBLISH, &figures.publish),
        ];
        // A function has one view.
        let views = figures.apply.values().map(|of| (&list::APPLY, of));
        for (metric, latencies) in hops.into_iter().chain(views) {
            if latencies.count() > 0 {
                let value = Given::Many(sample(latencies));
                self.0.push(Metric { name: metric.aws[0], scope: Scope::Service, value });
            }
        }
        let outcomes = list::OUTCOMES.aws.iter().zip(figures.outcomes);
        let lookups = [figures.cache_hits, figures.cache_misses];
        let lookups = list::CACHE_LOOKUPS.aws.iter().zip(lookups);
        for (name, n) in outcomes.chain(lookups).filter(|(_, n)| *n > 0) {
            self.of_service(name, n as f64);
        }
    }

    /// The value of a metric; `None` if it was not added, or is a histogram.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|metric| metric.name == name).and_then(|metric| match metric.value {
            Given::One(value) => Some(value),
            Given::Many(_) => None,
        })
    }

    /// The values of a histogram, in seconds; none if it was not added.
    pub fn values(&self, name: &str) -> &[f64] {
        let found = self.0.iter().find(|metric| metric.name == name);
        match found.map(|metric| &metric.value) {
            Some(Given::Many(values)) => values,
            Some(Given::One(_)) | None => &[],
        }
    }

    /// The metrics as one line of the embedded metric format.
    pub fn line(&self, dimensions: &Dimensions, now: Time) -> String {
        let directive = |scope: Scope, dimensions: &[&str]| {
            let metrics = self.0.iter().filter(|metric| metric.scope == scope);
            let metrics: Vec<Value> = metrics
                .map(|metric| json!({ "Name": metric.name, "Unit": unit(metric.name) }))
                .collect();
            (!metrics.is_empty()).then(|| {
                json!({ "Namespace": NAMESPACE, "Dimensions": [dimensions], "Metrics": metrics })
            })
        };
        let directives =
            [directive(Scope::Stack, &[STACK]), directive(Scope::Service, &[STACK, SERVICE])];
        let directives: Vec<Value> = directives.into_iter().flatten().collect();
        let mut line = Map::new();
        let about = json!({ "Timestamp": now.0, "CloudWatchMetrics": directives });
        line.insert("_aws".to_owned(), about);
        line.insert(STACK.to_owned(), json!(dimensions.stack));
        line.insert(SERVICE.to_owned(), json!(dimensions.service));
        line.extend(self.0.iter().map(|metric| (metric.name.to_owned(), metric.value.json())));
        Value::Object(line).to_string()
    }
}

/// The unit as CloudWatch names it.
fn unit(name: &str) -> &'static str {
    let kind = Listed::of_aws(name).map(|metric| metric.kind);
    if kind == Some(Kind::Histogram) {
        "Seconds"
    } else if name.ends_with("MsMax") {
        "Milliseconds"
    } else {
        "Count"
    }
}

/// The values of one histogram in a line. Source: the embedded metric format takes an array of at
/// most 100 numbers.
const VALUES_MAX: u64 = 100;

/// At most [`VALUES_MAX`] values that are distributed as the latencies are, in seconds. Each is the
/// upper bound of its bucket; above all bounds it is the last one. A bucket that is not empty has at
/// least one value, so the worst latencies are never missing.
fn sample(latencies: &Latencies) -> Vec<f64> {
    let all = latencies.count();
    let seconds = |at: usize| BOUNDS_MS[at.min(BOUNDS_MS.len() - 1)] as f64 / 1_000.0;
    let filled = latencies.buckets.iter().enumerate().filter(|(_, n)| **n > 0);
    // One value for each bucket, and the rest by size.
    let rest = VALUES_MAX - latencies.buckets.iter().filter(|n| **n > 0).count() as u64;
    let values = filled.flat_map(|(at, n)| {
        let n = if all <= VALUES_MAX { *n } else { 1 + (n - 1) * rest / all };
        (0..n).map(move |_| seconds(at))
    });
    values.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shape of "Specification: Embedded metric format" of CloudWatch's user guide.
    #[test]
    fn a_line_has_the_embedded_metric_format() {
        let mut metrics = Metrics::new();
        metrics.of_stack(STANDSTILL_MS_MAX, 12.0);
        metrics.of_service(READ_UNITS, 0.5);
        let dimensions = Dimensions { stack: "shop".to_owned(), service: "sweep".to_owned() };
        let line = metrics.line(&dimensions, Time(1_795_401_660_123));
        assert!(!line.contains('\n'));
        let expected = json!({
            "_aws": {
                "Timestamp": 1_795_401_660_123_u64,
                "CloudWatchMetrics": [
                    {
                        "Namespace": "Fanfold",
                        "Dimensions": [["Stack"]],
                        "Metrics": [{ "Name": "StandstillMsMax", "Unit": "Milliseconds" }],
                    },
                    {
                        "Namespace": "Fanfold",
                        "Dimensions": [["Stack", "Service"]],
                        "Metrics": [{ "Name": "ReadUnits", "Unit": "Count" }],
                    },
                ],
            },
            "Stack": "shop",
            "Service": "sweep",
            "StandstillMsMax": 12.0,
            "ReadUnits": 0.5,
        });
        assert_eq!(serde_json::from_str::<Value>(&line).ok(), Some(expected));
    }

    fn latencies(buckets: &[(usize, u64)]) -> Latencies {
        let mut latencies = Latencies::default();
        buckets.iter().for_each(|(at, n)| latencies.buckets[*at] = *n);
        latencies
    }

    #[test]
    fn a_histogram_is_at_most_100_values_with_the_worst_among_them() {
        assert!(sample(&latencies(&[])).is_empty());
        assert_eq!(sample(&latencies(&[(0, 2), (3, 1)])), [0.001, 0.001, 0.01]);
        let many = sample(&latencies(&[(4, 1_000_000), (5, 250_000), (14, 3), (15, 1)]));
        assert!(many.len() as u64 <= VALUES_MAX && many.len() > 90, "{} values", many.len());
        let count = |of: f64| many.iter().filter(|value| **value == of).count();
        assert_eq!((count(0.025), count(0.05), count(60.0)), (77, 20, 2));
        let all = latencies(&std::array::from_fn::<_, 16, _>(|at| (at, u64::MAX >> 12)));
        assert!(sample(&all).len() as u64 <= VALUES_MAX);
    }

    #[test]
    fn what_the_stages_measured_is_sent_unless_it_is_zero() {
        let mut figures = Figures { decide: latencies(&[(2, 1)]), ..Figures::default() };
        figures.apply.insert("totals".to_owned(), latencies(&[(0, 1)]));
        figures.outcomes[4] = 3;
        let mut metrics = Metrics::new();
        metrics.of_figures(&figures);
        assert_eq!(metrics.values("DecideSeconds"), [0.005]);
        assert_eq!(metrics.values("ApplySeconds"), [0.001]);
        assert_eq!(metrics.get("Faulted"), Some(3.0));
        assert_eq!(metrics.0.len(), 3, "{metrics:?}");
        let of = Dimensions { stack: "shop".to_owned(), service: "processor".to_owned() };
        let line: Value = serde_json::from_str(&metrics.line(&of, Time(0))).expect("it is JSON");
        assert_eq!(line["DecideSeconds"], json!([0.005]));
        let told = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(told["Dimensions"], json!([["Stack", "Service"]]));
        assert_eq!(told["Metrics"][0], json!({ "Name": "DecideSeconds", "Unit": "Seconds" }));
    }

    #[test]
    fn each_reason_has_its_name() {
        assert_eq!(waiting_for(Reason::Gap), "WaitingGap");
        assert_eq!(waiting_for(Reason::GivenUp), "WaitingGivenUp");
    }
}
