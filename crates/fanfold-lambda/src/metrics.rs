//! Metrics in CloudWatch's embedded metric format: JSON lines of the log.
//!
//! Metrics of the sweeps describe the whole stack, and alarms watch them. Metrics of an invocation
//! describe its service. The template's alarms and dashboard use the same names.

use fanfold::Time;
use fanfold::host::body::parked::Reason;
use serde_json::{Map, Value, json};

/// The namespace of all metrics in CloudWatch.
pub const NAMESPACE: &str = "Fanfold";
/// The dimension of all metrics: the stack's name.
pub const STACK: &str = "Stack";
/// The second dimension of an invocation's metrics: `relay`, `processor`, `sweep`, or `view-<name>`.
pub const SERVICE: &str = "Service";

/// Sweep: the longest time that a log's oldest command without an entry has waited, in milliseconds.
pub const STANDSTILL_MS_MAX: &str = "StandstillMsMax";
/// Sweep: the age of the oldest canary's last entry, in milliseconds.
pub const CANARY_AGE_MS_MAX: &str = "CanaryAgeMsMax";
/// Sweep: logs in which something waits for an operator, or has waited for minutes for something that
/// should come by itself.
pub const WAITING: &str = "Waiting";
/// Sweep: logs whose slot's batch was put on the command stream again.
pub const RESENT: &str = "Resent";
/// Sweep: logs that were nudged.
pub const NUDGED: &str = "Nudged";
/// Sweep: logs that could not be read or nudged.
pub const FAILED: &str = "Failed";
/// Sweep: logs with a lease of an attempt that did not return.
pub const ATTEMPTED: &str = "Attempted";
/// Sweep: logs that were visited.
pub const LOGS: &str = "Logs";

/// View sweep: logs for which the view is parked.
pub const VIEW_PARKED: &str = "ViewParked";
/// View sweep: logs for which the view was behind, and caught up.
pub const VIEW_BEHIND: &str = "ViewBehind";
/// View sweep: logs for which the view could not catch up.
pub const VIEW_FAILED: &str = "ViewFailed";
/// View sweep: logs that were skipped, since another process was catching up on them.
pub const VIEW_UNDER_WAY: &str = "ViewUnderWay";
/// View sweep, of the view's service: logs that this run has visited.
pub const VIEW_LOGS: &str = "ViewLogs";
/// View sweep, of the view's service: 1 if this run ended a walk over all logs, else 0. After the first walk a new view
/// has been through all logs.
pub const VIEW_WALKS: &str = "ViewWalks";
/// View sweep: dead letters that were delivered.
pub const VIEW_DELIVERED: &str = "ViewDelivered";
/// View sweep: dead letters that stay in the queue, and calls of the queue that failed.
pub const VIEW_UNDELIVERED: &str = "ViewUndelivered";

/// Invocation: records or messages in the event.
pub const RECORDS: &str = "Records";
/// Invocation: records or messages that Lambda has to deliver again.
pub const UNFINISHED: &str = "Unfinished";
/// Stack: changes, records and messages that were skipped because they cannot be read.
pub const UNREADABLE: &str = "Unreadable";
/// Invocation: scheduled events that were dropped because the next one was sent already.
pub const SCHEDULES_DROPPED: &str = "SchedulesDropped";
/// Invocation: read units of DynamoDB.
pub const READ_UNITS: &str = "ReadUnits";
/// Invocation: write units of DynamoDB, with one for each condition that failed.
pub const WRITE_UNITS: &str = "WriteUnits";

/// Sweep: the name of the metric that counts logs with something parked for this reason.
pub fn waiting_for(reason: Reason) -> &'static str {
    match reason {
        Reason::Gap => "WaitingGap",
        Reason::NoService => "WaitingNoService",
        Reason::CannotFold => "WaitingCannotFold",
        Reason::Conflict => "WaitingConflict",
        Reason::Undecodable => "WaitingUndecodable",
        Reason::Suspect => "WaitingSuspect",
        Reason::Unpublished => "WaitingUnpublished",
        Reason::GivenUp => "WaitingGivenUp",
    }
}

/// The metrics of one invocation.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<Metric>);

#[derive(Debug, Clone, PartialEq)]
struct Metric {
    name: &'static str,
    scope: Scope,
    value: f64,
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
        self.0.push(Metric { name, scope: Scope::Stack, value });
    }

    /// Adds a metric of the invocation's service.
    pub fn of_service(&mut self, name: &'static str, value: f64) {
        self.0.push(Metric { name, scope: Scope::Service, value });
    }

    /// The value of a metric; `None` if it was not added.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|metric| metric.name == name).map(|metric| metric.value)
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
        line.extend(self.0.iter().map(|metric| (metric.name.to_owned(), json!(metric.value))));
        Value::Object(line).to_string()
    }
}

fn unit(name: &str) -> &'static str {
    if [STANDSTILL_MS_MAX, CANARY_AGE_MS_MAX].contains(&name) { "Milliseconds" } else { "Count" }
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
}
