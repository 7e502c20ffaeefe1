//! What the template tells a Lambda, by its environment.

use std::ops::RangeInclusive;

use fanfold_aws::names::{
    CANARIES, DEAD_LETTERS, LOG, LOGS_PER_SWEEP, QUEUE, STREAM, TABLES, TOPICS, Tables, WAIT_MS_MAX,
};
use fanfold_http::limits;
use tracing_subscriber::filter::Targets;

/// Set by Lambda itself: the memory of the function, in MB.
const MEMORY: &str = "AWS_LAMBDA_FUNCTION_MEMORY_SIZE";
/// What the processor keeps by default.
const CACHE_BYTES_MAX: usize = 128 * 1024 * 1024;
/// More canaries than shards of a stream that anybody has by default show no more.
const CANARIES_MAX: usize = 100;
/// Logs that one run of a sweep looks at, if nobody says; the next run goes on behind them. 15,000
/// have their turn once an hour; what it costs is in `infra/README.md`.
const LOGS_PER_SWEEP_DEFAULT: usize = 250;
/// About what a run of less than a minute can look at: 16 at a time, each for some 30 ms.
const LOGS_PER_SWEEP_MAX: usize = 10_000;

/// What is wrong with the environment, all at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the environment is not as the template makes it: {}", .0.join("; "))]
pub struct SettingsError(pub Vec<String>);

/// Reads variables, and notes what is wrong with them.
pub struct Environment<'a> {
    get: &'a dyn Fn(&str) -> Option<String>,
    problems: Vec<String>,
}

impl<'a> Environment<'a> {
    /// Over whatever has the variables: a process's, or a test's.
    pub fn new(get: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self { get, problems: Vec::new() }
    }

    /// The stack's tables.
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
            self.problems.push(format!("{TOPICS} is `{list}`, and should hold {holds}"));
        }
        arns
    }

    /// The URL of a view's dead letters.
    pub fn dead_letters(&mut self) -> String {
        let holds = "the URL of the queue of the view's dead letters";
        let url = self.required(DEAD_LETTERS, holds, "the view's resource of type AWS::SQS::Queue");
        if !url.is_empty() && !url.starts_with("http") {
            self.problems.push(format!("{DEAD_LETTERS} is `{url}`, and should hold {holds}"));
        }
        url
    }

    /// The URL of the queue that a view is behind; `None` if SNS calls it.
    pub fn queue(&mut self) -> Option<String> {
        let url = (self.get)(QUEUE).filter(|url| !url.trim().is_empty())?;
        if !url.starts_with("http") {
            let problem =
                format!("{QUEUE} is `{url}`, and should hold the URL of the view's queue");
            self.problems.push(problem);
        }
        Some(url)
    }

    /// The longest `wait` of a request, in milliseconds; 5,000 by default.
    pub fn wait_ms_max(&mut self) -> u64 {
        let [default, most] =
            [limits::WAIT_MS_EVERYWHERE, limits::WAIT_MS_MAX].map(|ms| ms as usize);
        self.number(WAIT_MS_MAX, "a number of milliseconds", default, 0..=most) as u64
    }

    /// How many canaries; one, if nobody says.
    pub fn canaries(&mut self) -> usize {
        self.number(CANARIES, "a number of canaries", 1, 0..=CANARIES_MAX)
    }

    /// How many logs a run of a sweep looks at; 250, if nobody says.
    pub fn logs_per_sweep(&mut self) -> usize {
        let range = 1..=LOGS_PER_SWEEP_MAX;
        self.number(LOGS_PER_SWEEP, "a number of logs", LOGS_PER_SWEEP_DEFAULT, range)
    }

    /// Bytes of logs that the processor keeps: a quarter of the memory that Lambda gives it.
    pub fn cache_bytes(&mut self) -> usize {
        let megabytes = (self.get)(MEMORY).and_then(|text| text.parse::<usize>().ok());
        megabytes.map_or(CACHE_BYTES_MAX, |mb| (mb * 1024 * 1024 / 4).min(CACHE_BYTES_MAX))
    }

    /// The filter of the log; `info`, if nobody says.
    pub fn log(&mut self) -> Targets {
        let text = (self.get)(LOG).filter(|text| !text.is_empty());
        let text = text.unwrap_or_else(|| "info".to_owned());
        text.parse().unwrap_or_else(|error| {
            let holds = "levels by target, as `info` or `info,fanfold_pipeline=debug`";
            self.problems.push(format!("{LOG} is `{text}`, and should hold {holds}: {error}"));
            Targets::new().with_default(tracing::Level::INFO)
        })
    }

    /// Everything that was wrong.
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
                self.problems.push(format!("{name} is `{text}`, and should hold {holds}"));
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
