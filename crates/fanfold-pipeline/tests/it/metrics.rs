//! The list of metrics beside the documents and the dashboard that are written by hand.

use std::collections::BTreeSet;
use std::path::Path;

use fanfold_pipeline::metrics::{ALL, Kind, Metric};
use serde_json::Value;

fn read(path: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The row of `docs/metrics.md`.
fn row(metric: &Metric) -> String {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    let code = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
        names.join(", ")
    };
    let (name, labels, aws) = (metric.name, code(metric.labels), code(metric.aws));
    let up = if metric.up { "yes" } else { "" };
    format!("| `{name}` | {kind} | {labels} | {up} | {aws} | {} |", metric.help)
}

#[test]
fn the_document_has_the_list() {
    let document = read("docs/metrics.md");
    let found: Vec<&str> =
        document.lines().filter(|line| line.starts_with("| `fanfold_")).collect();
    let listed: Vec<String> = ALL.iter().map(row).collect();
    assert!(found == listed, "docs/metrics.md should have these rows:\n{}", listed.join("\n"));
}

/// The metrics that an expression of PromQL asks for.
fn asked(expression: &str, names: &mut BTreeSet<String>) {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    for word in expression.split(|c| !is_of_name(c)).filter(|word| word.starts_with("fanfold_")) {
        let histogram = ALL.iter().find(|metric| {
            let end = word.strip_prefix(metric.name);
            metric.kind == Kind::Histogram
                && end.is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
        });
        names.insert(histogram.map_or(word, |metric| metric.name).to_owned());
    }
}

fn expressions(value: &Value, names: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if ["expr", "query", "definition"].contains(&&**name) => {
                        asked(text, names);
                    }
                    _ => expressions(value, names),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, names)),
        _ => {}
    }
}

#[test]
fn the_dashboard_of_grafana_shows_every_metric_of_up_and_no_other() {
    let dashboard: Value = serde_json::from_str(&read("infra/grafana.json")).expect("it is JSON");
    let mut names = BTreeSet::new();
    expressions(&dashboard, &mut names);
    let of_up = ALL.iter().filter(|metric| metric.up).map(|metric| metric.name.to_owned());
    assert_eq!(names, of_up.collect());
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let ids: BTreeSet<u64> = panels.iter().filter_map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len(), "each panel has an id of its own");
}
