//! Measures how long the Lambdas take, at the emulator's runtime API: a start with its first
//! invocation, and later invocations.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::stack::{Aws, Delivery, NAME};
use super::{Built, Deployed};
use crate::lambdas::FUNCTIONS;

/// Long enough for the sweeps, which begin a minute after the stack, to run twice.
const LOAD: [&str; 4] = ["--rate", "4", "--duration", "130s"];
const PATIENCE: Duration = Duration::from_secs(60);

/// The times of one function, in milliseconds.
#[derive(Debug, Default)]
struct Times {
    /// From the start of the program until it asks for work, as it logs.
    init: Vec<u64>,
    /// The first invocation of a process: its start, `init`, and the invocation.
    first: Vec<u64>,
    /// All other invocations.
    warm: Vec<u64>,
}

/// Deploys a stack, sends a few commands, and reads the times from the logs.
pub(super) fn run(built: &Built) -> Result<()> {
    let stack = Deployed::deploy(built, Delivery::Direct, &[])?;
    let held =
        stack.scenarios("tour", &["tour::every_answer_has_its_exact_form", "--exact"], PATIENCE)?;
    stack.must("tour", held)?;
    let load = [&LOAD[..], &["--tenants", "20", "--connections", "4"]].concat();
    super::load(&stack, &load)?;
    let aws = Aws::new(&built.venv, &stack.emulator, &stack.folder);
    println!(
        "\n{:<10} {:>8} {:>8} {:>8} {:>8} {:>8}",
        "ms", "starts", "init", "first", "warm", "p99"
    );
    for name in FUNCTIONS {
        let times = times(&aws, name)?;
        let [init, first, warm] = [&times.init, &times.first, &times.warm].map(|of| at(of, 50));
        let p99 = at(&times.warm, 99);
        println!("{name:<10} {:>8} {init:>8} {first:>8} {warm:>8} {p99:>8}", times.init.len());
    }
    let folder = stack.folder.clone();
    drop(stack);
    std::fs::remove_dir_all(folder)?;
    Ok(())
}

/// The percentile; of few values, the largest.
fn at(values: &[u64], percent: usize) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    let place = (values.len() * percent).div_ceil(100).saturating_sub(1);
    values.get(place).copied().unwrap_or_default()
}

/// The emulator writes a log stream for each invocation.
fn times(aws: &Aws<'_>, name: &str) -> Result<Times> {
    let group = format!("/aws/lambda/{NAME}-{name}");
    let found = aws.read(&["logs", "filter-log-events", "--log-group-name", &group])?;
    let events = found["events"].as_array().context("the logs have no events")?;
    let mut invocations: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for event in events {
        let stream = event["logStreamName"].as_str().context("a log event has no stream")?;
        let message = event["message"].as_str().context("a log event has no message")?;
        invocations.entry(stream).or_default().push(message);
    }
    let mut times = Times::default();
    for lines in invocations.values() {
        let Some(ms) = lines.iter().find_map(|line| duration(line)) else { continue };
        match lines.iter().find_map(|line| init(line)) {
            Some(init_ms) => {
                times.init.push(init_ms);
                times.first.push(ms);
            }
            None => times.warm.push(ms),
        }
    }
    ensure!(
        !times.init.is_empty() && !times.warm.is_empty(),
        "{name} has no start, or no later invocation: {times:?}"
    );
    Ok(times)
}

/// Reads `REPORT RequestId: …`, a tab, `Duration: 12 ms`, a tab, and so on.
fn duration(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("REPORT ")?.split_once("\tDuration: ")?;
    rest.split_once(" ms")?.0.parse().ok()
}

/// Reads the line that the Lambda logs when it is ready.
fn init(line: &str) -> Option<u64> {
    serde_json::from_str::<Value>(line).ok()?.get("init_ms")?.as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_from_log_lines() {
        let report = "REPORT RequestId: 1\tDuration: 12 ms\tBilled Duration: 13 ms\tMemory";
        assert_eq!(duration(report), Some(12));
        assert_eq!(duration("END RequestId: 1"), None);
        assert_eq!(init(r#"{"level":"INFO","message":"ready","init_ms":31}"#), Some(31));
        assert_eq!(init(r#"{"level":"INFO"}"#), None);
        assert_eq!(init("START"), None);
    }

    #[test]
    fn percentiles_are_measured_values() {
        for (values, percent, expected) in
            [(&[][..], 50, 0), (&[7], 99, 7), (&[3, 1, 2], 50, 2), (&[4, 3, 2, 1], 99, 4)]
        {
            assert_eq!(at(values, percent), expected, "{values:?}");
        }
    }
}
