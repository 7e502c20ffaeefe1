use expect_test::expect_file;
use proptest::prelude::*;

use super::*;
use auditor::{BREACHES_MAX, Breach, Invariant};

fn samples() -> [(&'static str, Report); 6] {
    [
        ("normal", samples::normal()),
        ("outage", samples::outage()),
        ("failing", samples::failing()),
        ("search", samples::search()),
        ("nothing", samples::nothing()),
        ("other service", samples::other_service()),
    ]
}

/// Scripts read the JSON: a change of the golden file is a change for them.
#[test]
fn the_json_equals_the_golden_file() {
    let mut report = samples::search();
    report.timeline.truncate(1);
    report.latencies.truncate(1);
    report.audit = samples::failing().audit;
    report.audit.as_mut().expect("it is audited").examples.truncate(1);
    let json = serde_json::to_string_pretty(&report).expect("it is JSON") + "\n";
    expect_file!["golden/report.json"].assert_eq(&json);
}

#[test]
fn the_table_equals_the_golden_file() {
    expect_file!["golden/normal.txt"].assert_eq(&samples::normal().table());
    expect_file!["golden/failing.txt"].assert_eq(&samples::failing().table());
    expect_file!["golden/search.txt"].assert_eq(&samples::search().table());
    expect_file!["golden/nothing.txt"].assert_eq(&samples::nothing().table());
}

#[test]
fn a_page_loads_nothing() {
    for (name, report) in samples() {
        check(name, &report);
    }
}

/// A report on another service has no words of the ledger.
#[test]
fn a_report_speaks_of_its_own_service() {
    let report = samples::other_service();
    let page = report.html().expect("the charts are drawn");
    let (_, body) = page.split_once("</style>").expect("it has a style");
    for text in [&report.table(), body] {
        for word in ["ledger", "account", "transfer", "balance", "money", " fold"] {
            assert!(!text.to_lowercase().contains(word), "{word}: {text}");
        }
        assert!(text.contains("booking/org:load-3") && text.contains("as the workload expects"));
    }
    let ledger = samples::normal().html().expect("the charts are drawn");
    assert!(
        ledger.contains("money in all accounts") && !ledger.contains("as the workload expects")
    );
}

/// Checks what holds for every report.
fn check(name: &str, report: &Report) {
    let table = report.table();
    for line in table.lines() {
        assert!(line.chars().count() <= 80, "{name}: wider than 80 columns: {line}");
    }
    let page = report.html().expect("the charts are drawn");
    for text in [&table, &page] {
        assert!(
            !text.contains("NaN") && !text.contains("inf"),
            "{name}: a number that is not finite"
        );
        assert!(!text.contains('\u{1b}'), "{name}: a control character");
    }
    for load in ["<script", "src=", "href=", "url(", "@import", "<b>user"] {
        assert!(!page.contains(load), "{name}: {load}");
    }
    let addresses = page.matches("http://").count() + page.matches("https://").count();
    assert_eq!(addresses, 1, "{name}: an address other than the target's");
}

/// Writes pages to look at in a browser after a change of the page: run with `-- --ignored`.
#[test]
#[ignore = "writes pages to the folder REPORT_PAGES, to be looked at"]
fn write_pages_to_look_at() {
    let folder = std::env::var("REPORT_PAGES").expect("REPORT_PAGES names a folder");
    for (name, report) in samples().into_iter().chain([("odd", odd())]) {
        let page = report.html().expect("the charts are drawn");
        std::fs::write(format!("{folder}/{name}.html"), page).expect("the folder is writable");
        std::fs::write(format!("{folder}/{name}.txt"), report.table()).expect("it is writable");
    }
}

/// A report with texts that are too long and numbers that are too large or not finite.
fn odd() -> Report {
    let mut report = samples::search();
    let long = "a_name_that_never_ends_".repeat(60);
    report.target = format!("http://{}", "host.".repeat(40));
    report.started = "\u{1b}[31mred".into();
    report.machine.cpu = long.clone();
    report.workload.arrivals = long.clone();
    report.workload.seed = u64::MAX;
    report.workload.rate = f64::MAX;
    report.counts.due = u64::MAX;
    report.counts.samples_dropped = u64::MAX;
    report.counts.samples_unseen = u64::MAX;
    report.counts.accepted_per_s = 123_456_789_012.0;
    report.counts.retries = (0..20).map(|n| (format!("{n}{long}"), u64::MAX)).collect();
    report.latencies[0].p99_ms = f64::INFINITY;
    report.latencies[1].percentiles = vec![(f64::NAN, 1.0), (50.0, f64::NAN), (100.0, 1e300)];
    report.latencies[2].max_ms = 1e12;
    report.timeline = (0..120)
        .map(|n| Interval {
            at_s: f64::from(n) * 60.0,
            seconds: 60.0,
            due_per_s: if n % 9 == 0 { f64::NAN } else { f64::from(n) * 1e7 },
            accepted_per_s: f64::from(n % 50) * 1e7,
            errors: u64::from(n % 7 == 0) * u64::MAX,
            accept_p50_ms: (n % 5 != 0).then_some(f64::from(n)),
            accept_p99_ms: (n % 3 != 0).then_some(f64::from(n) * 1e3),
            entry_p99_ms: None,
            view_p50_ms: None,
            view_p99_ms: (n % 2 == 0).then_some(f64::from(n) * 1e5),
        })
        .collect();
    let search = report.search.as_mut().expect("it is a search");
    search.highest = None;
    search.steps[0].failed = Some(long.clone());
    search.steps[1].view_p99_ms = f64::NAN;
    let audit = report.audit.as_mut().expect("it is audited");
    audit.unfinished = Some(long.clone());
    audit.outcomes.insert(long.clone(), u64::MAX);
    audit.balance = Some(i128::MIN);
    audit.breaches = u64::MAX;
    audit.examples = (0..BREACHES_MAX)
        .map(|_| Breach::new(Invariant::F1, long.clone(), Some(u64::MAX), long.clone()))
        .collect();
    report
}

#[test]
fn extreme_values_can_be_shown() {
    check("odd", &odd());
    let mut report = samples::normal();
    report.timeline.truncate(1);
    check("one interval", &report);
    report.timeline[0].seconds = 0.0;
    report.counts.elapsed_s = 0.0;
    report.counts.accepted_per_s = f64::NAN;
    check("no time", &report);
    for latency in &mut report.latencies {
        latency.percentiles.iter_mut().for_each(|(_, ms)| *ms = 5.0);
    }
    check("all equal", &report);
    for latency in &mut report.latencies {
        latency.count = 0;
        latency.mean_ms = f64::NAN;
    }
    check("no samples", &report);
    report.search = Some(Search { slo: "none".into(), slo_ms: 0.0, steps: vec![], highest: None });
    report.audit = Some(auditor::Verdict::default());
    check("no steps", &report);
}

/// Ordinary numbers, and such that break arithmetic.
fn number() -> impl Strategy<Value = f64> {
    let odd =
        [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX, 1e-9, 99.999, 100.0];
    prop_oneof![1 => proptest::sample::select(odd.to_vec()), 3 => 0.0..1e6f64]
}

fn maybe() -> impl Strategy<Value = Option<f64>> {
    proptest::option::of(number())
}

fn interval() -> impl Strategy<Value = Interval> {
    ([number(), number(), number(), number()], 0..3u64, [maybe(), maybe(), maybe()]).prop_map(
        |([at_s, seconds, due_per_s, accepted_per_s], errors, [p50, p99, view])| Interval {
            at_s,
            seconds,
            due_per_s,
            accepted_per_s,
            errors,
            accept_p50_ms: p50,
            accept_p99_ms: p99,
            entry_p99_ms: None,
            view_p50_ms: None,
            view_p99_ms: view,
        },
    )
}

fn latency(of: &'static str) -> impl Strategy<Value = Latency> {
    let percentiles = proptest::collection::vec((number(), number()), 0..30);
    (proptest::num::u64::ANY, proptest::array::uniform6(number()), percentiles).prop_map(
        move |(count, [mean_ms, p50_ms, p90_ms, p99_ms, p999_ms, max_ms], percentiles)| Latency {
            of: of.to_owned(),
            count,
            mean_ms,
            p50_ms,
            p90_ms,
            p99_ms,
            p999_ms,
            max_ms,
            percentiles,
        },
    )
}

fn searched() -> impl Strategy<Value = Search> {
    let numbers = proptest::array::uniform5(number());
    let step = (numbers, proptest::bool::ANY, proptest::bool::ANY).prop_map(
        |([rate, accepted_per_s, accept_p99_ms, view_p99_ms, send_p99_ms], failed, late)| Step {
            rate,
            accepted_per_s,
            accept_p99_ms,
            view_p99_ms,
            send_p99_ms,
            may_be_the_generator: late,
            failed: failed.then(|| "too slow".to_owned()),
        },
    );
    (number(), proptest::collection::vec(step, 0..12), maybe())
        .prop_map(|(slo_ms, steps, highest)| Search { slo: "p99".into(), slo_ms, steps, highest })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_report_can_be_shown(
        timeline in proptest::collection::vec(interval(), 0..125),
        latencies in (latency("accept"), latency("entry"), latency("view"), latency("send")),
        search in proptest::option::of(searched()),
        rates in [number(), number(), number()],
        accepted in proptest::num::u64::ANY,
    ) {
        let mut report = samples::normal();
        report.timeline = timeline;
        report.latencies = vec![latencies.0, latencies.1, latencies.2, latencies.3];
        report.search = search;
        report.counts.accepted = accepted;
        [report.counts.accepted_per_s, report.counts.requests_per_s, report.counts.elapsed_s] = rates;
        check("any", &report);
    }
}
