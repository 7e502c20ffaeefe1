//! Settings from environment variables: an error names all wrong variables.

use std::collections::BTreeMap;

use fanfold_lambda::settings::EnvVars;
use tracing_subscriber::filter::LevelFilter;

/// The stack, the topics, and the numbers: canaries, logs of a sweep, bytes of the cache, the longest
/// wait, and the milliseconds without arrivals.
type Read = (String, Vec<String>, [usize; 5]);

/// Reads all settings.
fn read(variables: &[(&str, &str)]) -> Result<Read, Vec<String>> {
    let variables: BTreeMap<&str, &str> = variables.iter().copied().collect();
    let get = |name: &str| variables.get(name).map(|value| (*value).to_owned());
    let mut environment = EnvVars::new(&get);
    let stack = environment.tables().stack().to_owned();
    environment.stream();
    let topics = environment.topics();
    environment.dead_letters();
    environment.queue();
    let [canaries, logs] = [environment.canaries(), environment.logs_per_sweep()];
    let wait_ms = environment.wait_ms_max() as usize;
    let admission_ms = environment.admission_ms_max() as usize;
    let numbers = [canaries, logs, environment.cache_bytes(), wait_ms, admission_ms];
    environment.log();
    environment.check().map(|()| (stack, topics, numbers)).map_err(|error| error.0)
}

const GOOD: [(&str, &str); 4] = [
    ("FANFOLD_TABLES", "shop"),
    ("FANFOLD_STREAM", "shop-commands"),
    ("FANFOLD_TOPICS", "arn:aws:sns:eu-west-1:1:a, arn:aws:sns:eu-west-1:1:b"),
    ("FANFOLD_DEAD_LETTERS", "https://sqs.eu-west-1.amazonaws.com/1/dead"),
];

#[test]
fn variables_and_defaults_are_read() {
    let (stack, topics, numbers) = read(&GOOD).unwrap();
    assert_eq!(stack, "shop");
    assert_eq!(topics, ["arn:aws:sns:eu-west-1:1:a", "arn:aws:sns:eu-west-1:1:b"]);
    assert_eq!(numbers, [4, 250, 128 * 1024 * 1024, 5_000, 21_600_000]);
    let mut more = GOOD.to_vec();
    more.extend([("FANFOLD_CANARIES", "0"), ("FANFOLD_LOGS_PER_SWEEP", "10")]);
    more.extend([("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"), ("FANFOLD_WAIT_MS_MAX", "25000")]);
    more.push(("FANFOLD_ADMISSION_HOURS_MAX", "20"));
    let (_, _, numbers) = read(&more).unwrap();
    assert_eq!(numbers, [0, 10, 64 * 1024 * 1024, 25_000, 72_000_000]);
}

#[test]
fn an_error_names_all_missing_variables() {
    let problems = read(&[]).unwrap_err();
    assert_eq!(problems.len(), 4, "{problems:?}");
    for ((name, _), problem) in GOOD.iter().zip(&problems) {
        assert!(problem.starts_with(&format!("{name} is missing: ")), "{problem}");
        assert!(problem.contains(", from "), "it does not name the resource: {problem}");
    }
}

#[test]
fn an_error_names_a_wrong_variable_and_its_value() {
    for (name, value) in [
        ("FANFOLD_TABLES", " "),
        ("FANFOLD_TOPICS", "commits"),
        ("FANFOLD_TOPICS", "arn:aws:sns:eu-west-1:1:a,"),
        ("FANFOLD_DEAD_LETTERS", "arn:aws:sqs:eu-west-1:1:dead"),
        ("FANFOLD_CANARIES", "many"),
        ("FANFOLD_CANARIES", "101"),
        ("FANFOLD_LOGS_PER_SWEEP", "0"),
        ("FANFOLD_LOGS_PER_SWEEP", "10001"),
        ("FANFOLD_LOG", "info=debug=warn"),
        ("FANFOLD_WAIT_MS_MAX", "25001"),
        ("FANFOLD_ADMISSION_HOURS_MAX", "0"),
        ("FANFOLD_ADMISSION_HOURS_MAX", "21"),
        ("FANFOLD_QUEUE", "arn:aws:sqs:eu-west-1:1:balances"),
    ] {
        let mut variables = GOOD.to_vec();
        variables.push((name, value));
        let problems = read(&variables).unwrap_err();
        assert!(problems.len() == 1 && problems[0].starts_with(name), "{problems:?}");
        assert!(problems[0].contains(value.trim()), "{problems:?}");
    }
}

#[test]
fn the_log_is_filtered_by_target() {
    let get = |_: &str| Some("warn,fanfold_pipeline=debug".to_owned());
    let filter = EnvVars::new(&get).log();
    assert_eq!(filter.default_level(), Some(LevelFilter::WARN));
    assert!(filter.would_enable("fanfold_pipeline::relay", &tracing::Level::DEBUG));
    assert!(!filter.would_enable("aws_config", &tracing::Level::INFO));
    let none = |_: &str| None;
    assert_eq!(EnvVars::new(&none).log().default_level(), Some(LevelFilter::INFO));
}
