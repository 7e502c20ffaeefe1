//! Metrics as CloudWatch takes them out of a log: JSON lines in the embedded metric format.

use fanfold::Time;
use serde_json::{Map, Value, json};

/// Where they are found in CloudWatch.
const NAMESPACE: &str = "Fanfold";

/// What one invocation has to say in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics(Vec<(&'static str, Unit, f64)>);

/// In what a metric counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Count,
    Milliseconds,
}

/// Whose metrics they are: the dimensions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dimensions {
    /// The beginning of the tables' names.
    pub stack: String,
    /// `relay`, `processor`, `sweep`, or `view-<name>`.
    pub service: String,
}

impl Metrics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number of things.
    pub fn count(&mut self, name: &'static str, value: usize) {
        self.amount(name, value as f64);
    }

    /// Adds an amount, as of capacity.
    pub fn amount(&mut self, name: &'static str, value: f64) {
        self.0.push((name, Unit::Count, value));
    }

    /// Adds a time.
    pub fn ms(&mut self, name: &'static str, value: u64) {
        self.0.push((name, Unit::Milliseconds, value as f64));
    }

    /// The value of a metric.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(known, ..)| *known == name).map(|(_, _, value)| *value)
    }

    /// The line; `None` if there is nothing to say.
    pub fn line(&self, of: &Dimensions, now: Time) -> Option<String> {
        if self.0.is_empty() {
            return None;
        }
        let unit = |unit| match unit {
            Unit::Count => "Count",
            Unit::Milliseconds => "Milliseconds",
        };
        let names: Vec<Value> =
            self.0.iter().map(|(name, u, _)| json!({ "Name": name, "Unit": unit(*u) })).collect();
        let mut line = Map::new();
        line.insert(
            "_aws".to_owned(),
            json!({
                "Timestamp": now.0,
                "CloudWatchMetrics": [{
                    "Namespace": NAMESPACE,
                    "Dimensions": [["stack", "service"]],
                    "Metrics": names,
                }],
            }),
        );
        line.insert("stack".to_owned(), json!(of.stack));
        line.insert("service".to_owned(), json!(of.service));
        line.extend(self.0.iter().map(|(name, _, value)| ((*name).to_owned(), json!(value))));
        Some(Value::Object(line).to_string())
    }
}
