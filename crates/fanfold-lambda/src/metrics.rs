//! Metrics as CloudWatch takes them out of a log: JSON lines in the embedded metric format.
//!
//! What the sweeps report is of the whole stack: alarms look at it. What an invocation did is of
//! its service. The template's alarms and dashboard use these names.

use fanfold::Time;
use fanfold::body::parked::Reason;
use serde_json::{Map, Value, json};

/// Where CloudWatch shows them.
pub const NAMESPACE: &str = "Fanfold";
/// The dimension of all: the stack's name.
pub const STACK: &str = "Stack";
/// The dimension of what an invocation did: `relay`, `processor`, `sweep`, or `view-<name>`.
pub const SERVICE: &str = "Service";

/// The sweep: for how long the oldest command without an entry has waited, at most.
pub const STANDSTILL_MS_MAX: &str = "StandstillMsMax";
/// The sweep: how old the last entry of a canary is, at most.
pub const CANARY_AGE_MS_MAX: &str = "CanaryAgeMsMax";
/// The sweep: logs in which something waits for an operator, or has waited for minutes for what
/// should come by itself.
pub const WAITING: &str = "Waiting";
/// The sweep: logs whose slot's batch was put on the command stream again.
pub const RESENT: &str = "Resent";
/// The sweep: logs that were nudged.
pub const NUDGED: &str = "Nudged";
/// The sweep: logs that could not be looked at, or not be nudged.
pub const FAILED: &str = "Failed";
/// The sweep: logs with a marker of an attempt that did not return.
pub const ATTEMPTED: &str = "Attempted";
/// The sweep: logs looked at.
pub const LOGS: &str = "Logs";

/// A view's sweep: logs for which the view is parked.
pub const VIEW_PARKED: &str = "ViewParked";
/// A view's sweep: logs for which the view was behind, and was brought on.
pub const VIEW_BEHIND: &str = "ViewBehind";
/// A view's sweep: logs for which the view could not be brought on.
pub const VIEW_FAILED: &str = "ViewFailed";
/// A view's sweep: logs that another process was bringing on at the time: left alone.
pub const VIEW_UNDER_WAY: &str = "ViewUnderWay";
/// A view's sweep: dead letters that were delivered.
pub const VIEW_DELIVERED: &str = "ViewDelivered";
/// A view's sweep: dead letters that stay, and calls of their queue that failed.
pub const VIEW_UNDELIVERED: &str = "ViewUndelivered";

/// An invocation: records, or messages.
pub const RECORDS: &str = "Records";
/// An invocation: those that come again.
pub const UNFINISHED: &str = "Unfinished";
/// Of the stack: changes, records and messages that were passed over because they cannot be read.
pub const UNREADABLE: &str = "Unreadable";
/// An invocation: scheduled events that came when the next had been sent, and were dropped.
pub const SCHEDULES_DROPPED: &str = "SchedulesDropped";
/// An invocation: read units of DynamoDB.
pub const READ_UNITS: &str = "ReadUnits";
/// An invocation: write units of DynamoDB, with one for each condition that failed.
pub const WRITE_UNITS: &str = "WriteUnits";

/// The sweep: logs in which something waits so, by what it waits for.
pub fn waiting_for(reason: Reason) -> &'static str {
    match reason {
        Reason::Gap => "WaitingGap",
        Reason::NoService => "WaitingNoService",
        Reason::CannotFold => "WaitingCannotFold",
        Reason::Conflict => "WaitingConflict",
        Reason::Undecodable => "WaitingUndecodable",
        Reason::Suspect => "WaitingSuspect",
        Reason::Unpublished => "WaitingUnpublished",
    }
}

/// What one invocation has to say in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<Metric>);

#[derive(Debug, Clone, PartialEq)]
struct Metric {
    name: &'static str,
    of: Of,
    value: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Stack,
    Service,
}

/// Whose metrics they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions {
    /// See [`STACK`].
    pub stack: String,
    /// See [`SERVICE`].
    pub service: String,
}

impl Metrics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to say.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what a sweep reports of the stack.
    pub fn of_stack(&mut self, name: &'static str, value: f64) {
        self.0.push(Metric { name, of: Of::Stack, value });
    }

    /// Adds what an invocation of a service did.
    pub fn of_service(&mut self, name: &'static str, value: f64) {
        self.0.push(Metric { name, of: Of::Service, value });
    }

    /// The value of a metric.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|metric| metric.name == name).map(|metric| metric.value)
    }

    /// The line.
    pub fn line(&self, whose: &Dimensions, now: Time) -> String {
        let directive = |of: Of, dimensions: &[&str]| {
            let metrics = self.0.iter().filter(|metric| metric.of == of);
            let metrics: Vec<Value> = metrics
                .map(|metric| json!({ "Name": metric.name, "Unit": unit(metric.name) }))
                .collect();
            (!metrics.is_empty()).then(|| {
                json!({ "Namespace": NAMESPACE, "Dimensions": [dimensions], "Metrics": metrics })
            })
        };
        let directives =
            [directive(Of::Stack, &[STACK]), directive(Of::Service, &[STACK, SERVICE])];
        let directives: Vec<Value> = directives.into_iter().flatten().collect();
        let mut line = Map::new();
        let about = json!({ "Timestamp": now.0, "CloudWatchMetrics": directives });
        line.insert("_aws".to_owned(), about);
        line.insert(STACK.to_owned(), json!(whose.stack));
        line.insert(SERVICE.to_owned(), json!(whose.service));
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
    fn a_line_is_one_object_that_cloudwatch_reads() {
        let mut metrics = Metrics::new();
        metrics.of_stack(STANDSTILL_MS_MAX, 12.0);
        metrics.of_service(READ_UNITS, 0.5);
        let whose = Dimensions { stack: "shop".to_owned(), service: "sweep".to_owned() };
        let line = metrics.line(&whose, Time(1_795_401_660_123));
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
