//! Sample reports for the tests.

use super::{Counts, Interval, Latency, Machine, Partition, Report, Search, Step, Workload};
use auditor::Invariant::{F4, F6, F8, Outcome};
use auditor::{Breach, Model, Verdict};

/// A run of twenty seconds without incidents.
pub(super) fn normal() -> Report {
    Report {
        started: "2025-03-07T09:30:00Z".into(),
        version: "0.1.0".into(),
        target: "http://127.0.0.1:8080".into(),
        workload: workload(),
        machine: Machine {
            cpu: "AMD EPYC 7B13".into(),
            cores: 2,
            memory_bytes: 8_201_000_000,
            os: "Linux 6.1.0".into(),
            shared_with_target: true,
        },
        counts: Counts {
            due: 40_000,
            accepted: 39_988,
            refused: 0,
            unanswered: 0,
            unsent: 12,
            requests: 40_391,
            retries: [("503".to_owned(), 3)].into(),
            samples_dropped: 0,
            samples_unseen: 0,
            elapsed_s: 20.02,
            accepted_per_s: 1997.4,
            requests_per_s: 2017.5,
        },
        latencies: vec![
            latency("accept", 39_988, 3.1, 2.2),
            latency("entry", 1_960, 9.4, 2.0),
            latency("view", 1_955, 17.0, 1.9),
            latency("send", 40_391, 0.09, 2.4),
        ],
        timeline: (0..20).map(|n| interval(n, 2000.0, 0, 1.0)).collect(),
        search: None,
        refusal: None,
        interrupted: false,
        audit: Some(passed()),
    }
}

/// The target is down from the eighth to the eleventh second.
pub(super) fn outage() -> Report {
    let mut report = normal();
    report.timeline = (0..40)
        .map(|n| match n {
            16..22 => Interval {
                accept_p50_ms: Some(f64::from(22 - n) * 500.0 + 40.0),
                accept_p99_ms: Some(f64::from(22 - n) * 500.0 + 390.0),
                view_p50_ms: None,
                view_p99_ms: None,
                ..half(interval(n, 0.0, 340, 1.0))
            },
            22..25 => half(interval(n, 5400.0 - f64::from(n - 22) * 1300.0, 0, 14.0)),
            n => half(interval(n, 2000.0, 0, 1.0)),
        })
        .collect();
    report.latencies[0] = latency("accept", 39_720, 3.1, 5.9);
    report.latencies[1] = latency("entry", 1_660, 9.4, 4.9);
    report.latencies[2] = latency("view", 1_655, 17.0, 4.4);
    report.latencies[3] = latency("send", 41_331, 0.2, 8.0);
    report.counts.accepted = 39_720;
    report.counts.unanswered = 268;
    report.counts.samples_unseen = 31;
    report.counts.retries =
        [("503".to_owned(), 41), ("connection".to_owned(), 1_999), ("timeout".to_owned(), 12)]
            .into();
    report.counts.accepted_per_s = 1984.0;
    report
}

pub(super) fn failing() -> Report {
    let mut report = normal();
    let mut audit = passed();
    audit.breaches = 137;
    audit.broken = [(F4, 45), (F6, 46), (F8, 46)].into();
    audit.examples = (0..10)
        .map(|n: usize| {
            let (invariant, seq, what) = match n % 3 {
                0 => (
                    F8,
                    Some(1_700 + n as u64),
                    format!(
                        "a receipt of user r7-{n} with id 31 promised this place, and the log ends \
                         at {}",
                        1_690 + n
                    ),
                ),
                1 => (
                    F6,
                    Some(212),
                    r#"balances row "cash" holds {"balance":1200,"open":true}, and the fold of all entries up to it is {"balance":1100,"open":true}"#.into(),
                ),
                _ => (F4, None, "<b>user</b> r7-0 with id 3 is accepted at 17 and at 22".into()),
            };
            Breach::new(invariant, format!("ledger/org:load-{n}"), seq, what)
        })
        .collect();
    report.audit = Some(audit);
    report.machine.shared_with_target = false;
    report
}

/// A search for the highest rate with p99 of view below 100 ms.
pub(super) fn search() -> Report {
    let mut report = normal();
    let step = |rate: f64, view: f64, failed: Option<&str>| Step {
        rate,
        accepted_per_s: rate.min(14_350.0) * 0.999,
        accept_p99_ms: view * 0.31,
        view_p99_ms: view,
        send_p99_ms: rate / 20_000.0,
        may_be_the_generator: rate > 15_000.0,
        failed: failed.map(str::to_owned),
    };
    report.search = Some(Search {
        slo: "view p99 < 100 ms".into(),
        slo_ms: 100.0,
        steps: vec![
            step(1_000.0, 14.2, None),
            step(2_000.0, 16.0, None),
            step(4_000.0, 21.5, None),
            step(8_000.0, 34.0, None),
            step(16_000.0, 2_140.0, Some("view p99 is 2,140 ms; accepted 14,336/s of 16,000/s")),
            step(12_000.0, 71.0, None),
            step(14_000.0, 188.0, Some("view p99 is 188 ms")),
            step(13_000.0, 92.0, None),
        ],
        highest: Some(13_000.0),
    });
    report.workload.arrivals = "search from 1000/s, 20s a step, view p99 < 100 ms".into();
    report.latencies[1] = latency("entry", 1_960, 19.0, 2.3);
    report.latencies[2] = latency("view", 1_955, 31.0, 2.1);
    report.counts.unsent = 0;
    report
}

/// A workload file for another service, with a broken expectation.
pub(super) fn other_service() -> Report {
    let mut report = normal();
    report.workload = Workload {
        service: "booking".into(),
        file: Some("booking.yaml".into()),
        payload: None,
        rejected: None,
        ..workload()
    };
    let what = "`book` is rejected with full, and should be accepted".to_owned();
    let audit = report.audit.as_mut().expect("it is audited");
    audit.service = "booking".into();
    (audit.model, audit.expects, audit.balance) = (Model::None, true, None);
    (audit.breaches, audit.broken) = (1, [(Outcome, 1)].into());
    audit.examples = vec![Breach::new(Outcome, "booking/org:load-3".into(), Some(17), what)];
    report
}

pub(super) fn nothing() -> Report {
    let mut report = normal();
    report.counts = Counts::default();
    report.latencies.clear();
    report.timeline.clear();
    report.audit = None;
    report.interrupted = true;
    report
}

fn workload() -> Workload {
    Workload {
        service: "ledger".into(),
        file: None,
        partition: Partition::Org,
        arrivals: "constant 2000/s for 20s".into(),
        rate: 2000.0,
        duration_s: 20.0,
        tenants: 1_000,
        zipf: 1.1,
        users: 4,
        clients: 0,
        batch: 1,
        batch_of_one_tenant: false,
        payload: Some(128),
        duplicates: 0.01,
        reused: 0.0,
        out_of_order: 0.02,
        rejected: Some(0.05),
        seed: 7_311_940_022_118,
        threads: 1,
        connections: 256,
    }
}

fn passed() -> Verdict {
    let outcomes = [("accepted", 37_704), ("duplicate", 388), ("rejected", 2_284)];
    Verdict {
        logs: 912,
        logs_named: 912,
        entries: 40_376,
        outcomes: outcomes.map(|(status, times)| (status.to_owned(), times)).into(),
        receipts: 39_988,
        seed: 7,
        rows: 7_115,
        seen: 4_871,
        lookups: 3_996,
        service: "ledger".into(),
        model: Model::Ledger,
        expects: false,
        has_views: true,
        balance: Some(1_288_440_100),
        unfinished: None,
        breaches: 0,
        broken: Default::default(),
        examples: Vec::new(),
        notes: Vec::new(),
        seconds: 1.84,
    }
}

/// A distribution whose tail grows with `steep`.
fn latency(of: &str, count: u64, p50: f64, steep: f64) -> Latency {
    let at = |percent: f64| {
        let nines = -(1.0 - percent.min(99.999) / 100.0).log10();
        // Rounded, so that the golden file does not depend on a library's last digit.
        (p50 * (0.35 + 0.65 * steep.powf((nines - 0.3).max(-0.3)) / 1.0) * 1000.0).round() / 1000.0
    };
    let last = 100.0 * (1.0 - 1.0 / count as f64);
    let percents = [0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.99];
    let below = percents.into_iter().filter(|percent| *percent < last);
    Latency {
        of: of.to_owned(),
        count,
        mean_ms: (p50 * 1200.0).round() / 1000.0,
        p50_ms: at(50.0),
        p90_ms: at(90.0),
        p99_ms: at(99.0),
        p999_ms: at(99.9),
        max_ms: at(last),
        percentiles: below.map(|p| (p, at(p))).chain([(100.0, at(last))]).collect(),
    }
}

fn interval(n: u32, accepted_per_s: f64, errors: u64, slow: f64) -> Interval {
    let uneven = [0.0, 0.7, -0.4, 0.9, -0.8, 0.2, -0.1][n as usize % 7];
    let ms = |ms: f64| Some(((ms * slow * (1.0 + 0.12 * uneven)) * 100.0).round() / 100.0);
    Interval {
        at_s: f64::from(n),
        seconds: 1.0,
        due_per_s: 2000.0,
        accepted_per_s: (accepted_per_s * (1.0 + 0.004 * uneven)).round(),
        errors,
        accept_p50_ms: ms(3.1),
        accept_p99_ms: ms(11.0),
        entry_p99_ms: ms(29.0),
        view_p50_ms: ms(17.0),
        view_p99_ms: ms(44.0),
    }
}

fn half(interval: Interval) -> Interval {
    Interval { at_s: interval.at_s / 2.0, seconds: 0.5, ..interval }
}
