//! The settings of a Lambda, which the template puts into its environment variables.

use std::ops::RangeInclusive;

use fanfold_aws::names::{
    ADMISSION_HOURS_MAX, CANARIES, DEAD_LETTERS, LOG, LOGS_PER_SWEEP, QUEUE, STREAM, TABLES,
    TOPICS, Tables, WAIT_MS_MAX,
};
use fanfold_http::limits;
use tracing_subscriber::filter::Targets;

/// The variable in which Lambda itself puts the function's memory, in MB.
const MEMORY: &str = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
/// The most bytes of logs that the processor's cache keeps. Source: our choice.
const CACHE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// The most canaries. Source: more canaries than the stream has shards show nothing more, and few
/// streams have a hundred.
const CANARIES_MAX: usize = 100;
/// Canaries by default. Source: our choice. A small table has about four parts, and each may have a shard of its stream.
const CANARIES_DEFAULT: usize = 4;
/// For how many hours commands may not arrive before new ones are refused, by default. Source: our choice, a quarter of
/// the 24 hours after which a table's stream forgets them. The alarms ring after five minutes and after one hour.
const ADMISSION_HOURS_DEFAULT: usize = 6;
/// The most such hours. Source: four hours before a table's stream forgets.
const ADMISSION_HOURS_MOST: usize = 20;
/// Logs that a run of a sweep visits by default. Source: 15,000 logs are then visited once an hour, at
/// the cost in `infra/operate.md`.
const LOGS_PER_SWEEP_DEFAULT: usize = 250;
/// The most logs that a run of a sweep may visit. Source: about what a run of less than a minute can
/// do, 16 logs at a time, each for some 30 ms.
const LOGS_PER_SWEEP_MAX: usize = 10_000;

/// All problems of the environment variables.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment variables are not as the template sets them: {}", .0.join("; "))]
pub struct SettingsError(pub Vec<String>);

/// Reads environment variables, and collects their problems.
pub struct EnvVars<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl<'a> EnvVars<'a> {
    /// Reads variables with `get`.
    pub fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { get, problems: Vec::new() }
    }

    /// The names of the stack's tables.
    pub fn tables(&mut self) -> Tables {
        Tables::new(self.required(TABLES, "the beginning of the tables' names", "the stack's name"))
    }

    /// The name of the command stream.
    pub fn stream(&mut self) -> String {
        let resource = "the resource of type AWS::Kinesis::Stream";
        self.required(STREAM, "the name of the command stream", resource)
    }

    /// The topics' ARNs.
    pub fn topics(&mut self) -> Vec<String> {
        let holds = "the ARNs of the topics, separated by commas";
        let list = self.required(TOPICS, holds, "the resources of type AWS::SNS::Topic");
        let arns: Vec<String> = list.split(',').map(|arn| arn.trim().to_owned()).collect();
        if !list.is_empty() && arns.iter().any(|arn| !arn.starts_with("arn:")) {
            self.problems.push(format!("{TOPICS} is `{list}`, but must hold {holds}"));
        }
        arns
    }

    /// The URL of the queue of a view's dead letters.
    pub fn dead_letters(&mut self) -> String {
        let holds = "the URL of the queue of the view's dead letters";
        let url = self.required(DEAD_LETTERS, holds, "the view's resource of type AWS::SQS::Queue");
        if !url.is_empty() && !url.starts_with("http") {
            self.problems.push(format!("{DEAD_LETTERS} is `{url}`, but must hold {holds}"));
        }
        url
    }

    /// The URL of the queue that is a view's event source; `None` if SNS calls the view.
    pub fn queue(&mut self) -> Option<String> {
        let url = (self.get)(QUEUE).filter(|url| !url.trim().is_empty())?;
        if !url.starts_with("http") {
            self.problems
                .push(format!("{QUEUE} is `{url}`, but must hold the URL of the view's queue"));
        }
        Some(url)
    }

    /// The longest `wait` of a request, in milliseconds; 5,000 by default.
    pub fn wait_ms_max(&mut self) -> u64 {
        let [default, most] =
            [limits::WAIT_MS_EVERYWHERE, limits::WAIT_MS_MAX].map(|ms| ms as usize);
        self.number(WAIT_MS_MAX, "a number of milliseconds", default, 0..=most) as u64
    }

    /// The number of canaries; 4 by default.
    pub fn canaries(&mut self) -> usize {
        self.number(CANARIES, "a number of canaries", CANARIES_DEFAULT, 0..=CANARIES_MAX)
    }

    /// For how long commands may not arrive before new ones are refused, in milliseconds; 6 hours by default.
    pub fn admission_ms_max(&mut self) -> u64 {
        let (default, range) = (ADMISSION_HOURS_DEFAULT, 1..=ADMISSION_HOURS_MOST);
        self.number(ADMISSION_HOURS_MAX, "a number of hours", default, range) as u64 * 3_600_000
    }

    /// The number of logs that a run of a sweep visits; 250 by default.
    pub fn logs_per_sweep(&mut self) -> usize {
        let range = 1..=LOGS_PER_SWEEP_MAX;
        self.number(LOGS_PER_SWEEP, "a number of logs", LOGS_PER_SWEEP_DEFAULT, range)
    }

    /// Bytes of logs that the processor's cache keeps: a quarter of the function's memory, at most
    /// 128 MiB.
    pub fn cache_bytes(&mut self) -> usize {
        let megabytes = (self.get)(MEMORY).and_then(|text| text.parse::<usize>().ok());
        megabytes.map_or(CACHE_BYTES_MAX, |mb| (mb * 1024 * 1024 / 4).min(CACHE_BYTES_MAX))
    }

    /// The filter of the log; `info` by default.
    pub fn log(&mut self) -> Targets {
        let text = (self.get)(LOG).filter(|text| !text.is_empty());
        let text = text.unwrap_or_else(|| "info".to_owned());
        text.parse().unwrap_or_else(|error| {
            let holds = "levels by target, such as `info` or `info,fanfold_pipeline=debug`";
            self.problems.push(format!("{LOG} is `{text}`, but must hold {holds}: {error}"));
            Targets::new().with_default(tracing::Level::INFO)
        })
    }

    /// Fails with all problems if there are any.
    pub fn check(self) -> Result<(), SettingsError> {
        if self.problems.is_empty() { Ok(()) } else { Err(SettingsError(self.problems)) }
    }

    fn number(
        &mut self,
        name: &str,
        what: &str,
        default: usize,
        range: RangeInclusive<usize>,
    ) -> usize {
        let Some(text) = (self.get)(name).filter(|text| !text.is_empty()) else { return default };
        match text.parse() {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let holds = format!("{what}, {} to {}", range.start(), range.end());
                self.problems.push(format!("{name} is `{text}`, but must hold {holds}"));
                default
            }
        }
    }

    fn required(&mut self, name: &str, holds: &str, resource: &str) -> String {
        let value = (self.get)(name).unwrap_or_default();
        if value.trim().is_empty() {
            self.problems.push(format!("{name} is missing: {holds}, from {resource}"));
        }
        value
    }
}
