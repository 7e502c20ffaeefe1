//! The templates' alarms, metric filters and dashboard watch the metrics and log lines that the code
//! writes.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use fanfold::Time;
use fanfold_aws::events::{changes, records};
use fanfold_lambda::metrics::{self, Dimensions, Metrics};
use fanfold_pipeline::metrics::{ALL, Kind, Metric, Scope};
use serde_json::{Value, json};
use tracing::Level;
use tracing_subscriber::filter::Targets;

use crate::stack::{STACK, Template, as_text, core_arn};
use crate::template::{VIEWS, id};

/// The metrics of the sweeps that need an alarm.
const REPORTED: [&str; 9] = [
    metrics::STANDSTILL_MS_MAX,
    metrics::WAITING,
    metrics::FAILED,
    metrics::UNREADABLE,
    metrics::CANARY_AGE_MS_MAX,
    metrics::VIEW_PARKED,
    metrics::VIEW_FAILED,
    metrics::VIEW_BEHIND,
    metrics::VIEW_UNDELIVERED,
];

/// The metrics that the dashboard leaves out: they explain another one that it shows, or say how far
/// a walk has come.
const NOT_SHOWN: [&str; 17] = [
    "Logs",
    "Nudged",
    "Resent",
    "Attempted",
    "WaitingGap",
    "WaitingNoService",
    "WaitingCannotFold",
    "WaitingConflict",
    "WaitingUndecodable",
    "WaitingSuspect",
    "WaitingUnpublished",
    "WaitingGivenUp",
    "ViewLogs",
    "ViewWalks",
    "ViewUnderWay",
    "ViewDelivered",
    "SchedulesDropped",
];

#[test]
fn alarms_watch_every_function_every_queue_and_all_reports_of_the_sweeps() {
    for delivery in ["direct", "queue"] {
        let template = Template::with(&[("ViewDelivery", delivery)]);
        let mut expected = BTreeSet::new();
        let mut watch = |namespace: &str, metric: &str, dimension: &str, of: &str| {
            expected.insert([namespace, metric, dimension, of].map(str::to_owned));
        };
        for function in template.functions().keys() {
            watch("AWS/Lambda", "Errors", "FunctionName", function);
            watch("AWS/Lambda", "Throttles", "FunctionName", function);
        }
        watch("AWS/Lambda", "IteratorAge", "FunctionName", "RelayFunction");
        watch("AWS/Lambda", "IteratorAge", "FunctionName", "ProcessorFunction");
        for mapping in ["RelayFunctionChanges", "ProcessorFunctionCommands"] {
            watch("AWS/Lambda", "DroppedEventCount", "EventSourceMappingUUID", mapping);
        }
        watch("AWS/Lambda", "Invocations", "FunctionName", "SweepFunction");
        watch("AWS/Lambda", "ClaimedAccountConcurrency", "", "");
        watch("AWS/ApiGateway", "5xx", "ApiId", "Api");
        watch("AWS/ApiGateway", "4xx", "ApiId", "Api");
        watch("AWS/Kinesis", "WriteProvisionedThroughputExceeded", "StreamName", "Stream");
        for table in template.of_type("AWS::DynamoDB::Table").keys() {
            watch("AWS/DynamoDB", "WriteThrottleEvents", "TableName", table);
            watch("AWS/DynamoDB", "ReadThrottleEvents", "TableName", table);
        }
        watch(metrics::NAMESPACE, &format!("{STACK}-AlarmLines"), "", "");
        for view in VIEWS {
            let queue = |of| format!("{}.QueueName", id(view, of));
            let letters = queue("DeadLetters");
            watch("AWS/SQS", "ApproximateNumberOfMessagesVisible", "QueueName", &letters);
            if delivery == "queue" {
                watch("AWS/SQS", "ApproximateAgeOfOldestMessage", "QueueName", &queue("Queue"));
                continue;
            }
            for metric in ["AsyncEventAge", "AsyncEventsDropped", "DestinationDeliveryFailures"] {
                watch("AWS/Lambda", metric, "FunctionName", &id(view, "Function"));
            }
        }
        for name in REPORTED {
            watch(metrics::NAMESPACE, name, metrics::STACK, STACK);
        }
        let alarms = template.of_type("AWS::CloudWatch::Alarm");
        let by_arn = json!([core_arn("sns", &format!("{STACK}-alarms"))]);
        let of_a_view = |id: &str| VIEWS.iter().any(|view| id.starts_with(&self::id(view, "")));
        let found = alarms.iter().map(|(id, alarm)| {
            let to = if of_a_view(id) { by_arn.clone() } else { json!(["Alarms"]) };
            assert_eq!(alarm["AlarmActions"], to, "{id}");
            assert!(alarm["AlarmDescription"].is_string(), "it has no description: {alarm}");
            let dimension = &alarm["Dimensions"][0];
            let dimension = ["Name", "Value"].map(|of| dimension[of].as_str().unwrap_or_default());
            let of = ["Namespace", "MetricName"].map(|name| as_text(&alarm[name]));
            let [namespace, metric] = of;
            [namespace, metric, dimension[0].to_owned(), dimension[1].to_owned()]
        });
        assert_eq!(found.collect::<BTreeSet<_>>(), expected);
        // Two alarms watch the relay's age, and two the canaries' age: after minutes, and after an hour.
        assert_eq!(alarms.len(), expected.len() + 2);
    }
}

/// A sweep visits a log once in a walk over the catalogue, which may take an hour.
#[test]
fn one_report_of_a_log_in_an_hour_raises_an_alarm() {
    let alarms = Template::with(&[]).of_type("AWS::CloudWatch::Alarm");
    for name in ["LogsStandStill", "CommandsWait", "ViewsParked"] {
        let alarm = &alarms[name];
        let is = |property: &str| alarm[property].as_u64().expect("it is a number");
        assert_eq!(is("DatapointsToAlarm"), 1, "{name}");
        assert_eq!(is("Period") * is("EvaluationPeriods"), 3_600, "{name}");
    }
    // A failure that occurs once may pass. These alarms need two hours in a row, so two walks.
    for name in ["SweepFails", "ViewsFail"] {
        let alarm = &alarms[name];
        let is = |property: &str| alarm[property].as_u64().expect("it is a number");
        assert_eq!((is("Period"), is("DatapointsToAlarm")), (3_600, 2), "{name}");
    }
}

/// Core names no view, so it searches for what all functions report.
#[test]
fn the_dashboard_searches_for_the_metrics_of_all_functions() {
    let template = Template::with(&[]);
    let dashboard = &template.of_type("AWS::CloudWatch::Dashboard")["Dashboard"];
    let body: Value = serde_json::from_str(&as_text(&dashboard["DashboardBody"])).expect("JSON");
    let widgets = body["widgets"].as_array().expect("it has widgets").iter();
    let metrics = widgets.flat_map(|widget| widget["properties"]["metrics"].as_array()).flatten();
    let found = metrics.filter_map(|line| line[0]["expression"].as_str()).map(str::to_owned);
    let [namespace, stack, service] = [metrics::NAMESPACE, metrics::STACK, metrics::SERVICE];
    let functions = ALL.iter().filter(|metric| metric.scope == Scope::Function);
    let names = functions.flat_map(|metric| metric.aws.iter().map(move |name| (metric, *name)));
    let names = names.filter(|(_, name)| !NOT_SHOWN.contains(name));
    let expected = names.map(|(metric, name)| {
        let of = format!(r#"{stack}="{STACK}" MetricName="{name}""#);
        let stat = if metric.kind == Kind::Histogram { "p99" } else { "Sum" };
        format!("SEARCH('{{{namespace},{stack},{service}}} {of}', '{stat}', 60)")
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), expected.collect());
}

#[test]
fn the_dashboard_shows_all_reports_of_the_sweeps() {
    let template = Template::with(&[]);
    let dashboard = &template.of_type("AWS::CloudWatch::Dashboard")["Dashboard"];
    let body: Value = serde_json::from_str(&as_text(&dashboard["DashboardBody"])).expect("JSON");
    let widgets = body["widgets"].as_array().expect("it has widgets").iter();
    let metrics = widgets.flat_map(|widget| widget["properties"]["metrics"].as_array()).flatten();
    let ours = metrics.filter(|line| line[0] == metrics::NAMESPACE);
    let ours: BTreeSet<_> = ours.map(|line| [1, 2, 3].map(|at| as_text(&line[at]))).collect();
    assert_eq!(ours, REPORTED.map(|name| [name, metrics::STACK, STACK].map(str::to_owned)).into());
}

/// A new metric must be shown, or be listed as not shown.
#[test]
fn every_metric_is_on_the_dashboard_or_named_as_not_shown() {
    let stack = ALL.iter().filter(|metric| metric.scope == Scope::Stack);
    for name in stack.flat_map(|metric| metric.aws) {
        let is_shown = REPORTED.contains(name);
        assert!(is_shown != NOT_SHOWN.contains(name), "{name}: is it shown? {is_shown}");
    }
    for name in NOT_SHOWN {
        assert!(Metric::of_aws(name).is_some(), "{name} is in no list");
    }
}

/// The metrics of `REPORTED` are written as the alarms expect them.
#[test]
fn reports_of_the_sweeps_have_only_the_stack_as_dimension() {
    for name in REPORTED {
        let mut metrics = Metrics::new();
        metrics.of_stack(name, 1.0);
        let of = Dimensions { stack: STACK.to_owned(), service: "sweep".to_owned() };
        let line: Value = serde_json::from_str(&metrics.line(&of, Time(0))).expect("JSON");
        let directive = &line["_aws"]["CloudWatchMetrics"][0];
        assert_eq!(directive["Namespace"], metrics::NAMESPACE);
        assert_eq!(directive["Dimensions"], json!([[metrics::STACK]]));
        assert_eq!(directive["Metrics"][0]["Name"], name);
        assert_eq!((&line[name], &line[metrics::STACK]), (&json!(1.0), &json!(STACK)));
    }
}

/// A writer that keeps everything.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether a filter of the form `{ $.field = * }` matches a line, which it does if the line has the
/// field.
fn matches(pattern: &str, line: &Value) -> bool {
    let field = pattern.strip_prefix("{ $.").and_then(|rest| rest.strip_suffix(" = * }"));
    let field = field.expect("the pattern has this form");
    field.split('.').try_fold(line, |of, name| of.get(name)).is_some()
}

/// The lines that a function logs for two unreadable records, and for a warning without an alarm.
fn printed() -> Vec<Value> {
    let written = Written::default();
    let writer = written.clone();
    let filter = Targets::new().with_default(Level::INFO);
    let lines = fanfold_lambda::lines(filter, move || writer.clone());
    tracing::subscriber::with_default(lines, || {
        let unreadable = json!({ "Records": [{ "nothing": "known" }] }).to_string();
        changes(&unreadable).expect("it has records");
        records(&unreadable).expect("it has records");
        tracing::warn!(message = "alarm is only a word here");
    });
    let written = written.0.lock().expect("no panic").clone();
    let lines = String::from_utf8(written).expect("it is text");
    lines.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

#[test]
fn the_metric_filters_count_every_line_with_an_alarm() {
    let template = Template::with(&[]);
    let filters = template.of_type("AWS::Logs::MetricFilter");
    let alarm = &template.of_type("AWS::CloudWatch::Alarm")["LinesWithAlarm"];
    let lines = printed();
    assert_eq!(lines.len(), 3);
    for function in template.functions().values() {
        let group = &function["LoggingConfig"]["LogGroup"];
        let filters: Vec<&Value> =
            filters.values().filter(|f| f["LogGroupName"] == *group).collect();
        let [filter] = filters[..] else { panic!("{group} has one filter, not {filters:?}") };
        let pattern = as_text(&filter["FilterPattern"]);
        let taken: Vec<bool> = lines.iter().map(|line| matches(&pattern, line)).collect();
        assert_eq!(taken, [true, true, false], "{lines:?}");
        let [counts] = &filter["MetricTransformations"].as_array().expect("it counts")[..] else {
            panic!("one metric")
        };
        assert_eq!(counts["MetricNamespace"], alarm["Namespace"]);
        assert_eq!(counts["MetricName"], alarm["MetricName"]);
        assert_eq!(counts["MetricValue"], "1");
    }
}

/// A stream of DynamoDB keeps a change for 24 hours.
#[test]
fn urgent_alarms_leave_a_day_to_save_accepted_commands() {
    let alarms = Template::with(&[]).of_type("AWS::CloudWatch::Alarm");
    for (name, metric) in [("RelayStopped", "IteratorAge"), ("CanariesStopped", "CanaryAgeMsMax")] {
        let alarm = &alarms[name];
        assert_eq!(
            (&alarm["MetricName"], &alarm["Threshold"]),
            (&json!(metric), &json!(3_600_000))
        );
        let text = as_text(&alarm["AlarmDescription"]);
        assert!(text.starts_with("URGENT. ") && text.contains("Stop admission now"), "{text}");
        assert!(as_text(&alarm["AlarmName"]).contains("-URGENT-"));
    }
}

#[test]
fn a_message_that_waits_for_a_retry_raises_no_alarm() {
    let alarms = Template::with(&[("ViewDelivery", "queue")]).of_type("AWS::CloudWatch::Alarm");
    for view in VIEWS {
        let threshold = alarms[&id(view, "QueueOld")]["Threshold"].as_u64().expect("a number");
        let longest = fanfold_aws::hidden_for(u32::MAX).as_secs();
        assert!(threshold > 2 * longest, "{view}: {threshold} s, but hidden for {longest} s");
    }
}
