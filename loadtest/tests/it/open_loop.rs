//! The load is an open loop, times count from when requests were due, and every command is
//! accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use fake_target::{Fake, Manner, Plant};
use serde_json::Value;
use tempfile::TempDir;

use crate::generator::{count, json, loadtest};

/// Runs a load whose commands are easy to count. Returns the report and the lines of the receipts.
fn driven(fake: &Fake, flags: &str) -> (Value, Vec<Value>) {
    let folder = TempDir::new().expect("a folder");
    let (to_json, receipts) = (folder.path().join("r.json"), folder.path().join("receipts"));
    let mut line = format!("run --target {} --tenants 5 --users 3 {flags}", fake.url);
    for (flag, value) in [
        ("--duplicates", "0"),
        ("--out-of-order", "0"),
        ("--rejected", "0"),
        ("--samples", "0"),
        ("--audit-patience", "2s"),
    ] {
        if !flags.contains(flag) {
            line += &format!(" {flag} {value}");
        }
    }
    line += " --json";
    let output = loadtest(&line, &[&to_json, Path::new("--receipts"), &receipts]).output();
    let output = output.expect("it starts");
    assert!(to_json.metadata().is_ok_and(|file| file.len() > 0), "{flags}: {output:?}");
    let lines = std::fs::read_to_string(receipts).expect("they were asked for");
    let lines = lines.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    (json(&to_json), lines)
}

fn latency(report: &Value, of: &str, figure: &str) -> f64 {
    let all = report["latencies"].as_array().expect("a list");
    let one = all.iter().find(|latency| latency["of"] == of).expect("it is there");
    one[figure].as_f64().expect("a number")
}

/// Checks that every due command is counted once, and every sent one is in the receipts.
fn check_counts(report: &Value, lines: &[Value]) {
    let of = |name: &str| count(report, &format!("/counts/{name}"));
    let (accepted, refused) = (of("accepted"), of("refused"));
    assert_eq!(of("due"), accepted + refused + of("unanswered") + of("unsent"), "{report}");
    let named = |kind: &str| lines.iter().filter(|line| line.get(kind).is_some()).count() as u64;
    // The accounts of five organisations were opened before.
    assert_eq!(named("receipt"), accepted + 15, "{report}");
    assert_eq!(named("refused") + named("unanswered"), refused + of("unanswered"), "{report}");
    assert!(lines.last().is_some_and(|line| line.get("end").is_some()), "the file has no end");
    assert_eq!(count(report, "/audit/breaches"), 0, "{}", report["audit"]);
}

#[test]
fn the_time_of_requests_that_wait_for_a_stalled_target_counts() {
    // With two connections most requests cannot be sent: counted from when they were sent, few
    // would take long.
    for connections in [2, 200] {
        let fake = Fake::with(None, Manner::Stalls { from_ms: 500, to_ms: 1_500 });
        let flags = format!("--rate 100 --duration 3s --connections {connections}");
        let (report, lines) = driven(&fake, &flags);
        check_counts(&report, &lines);
        assert_eq!(count(&report, "/counts/accepted"), 300);
        assert_eq!(latency(&report, "accept", "count"), 300.0);
        // A third of the commands is due in that second, and waits half of it on average.
        let (p50, p99) =
            (latency(&report, "accept", "p50_ms"), latency(&report, "accept", "p99_ms"));
        assert!(p99 >= 900.0 && p50 < 500.0, "{connections}: {}", report["latencies"]);
        assert!(latency(&report, "accept", "max_ms") >= 950.0, "{connections}");
        assert!(latency(&report, "accept", "mean_ms") >= 140.0, "{connections}");
        let late = latency(&report, "send", "p99_ms");
        assert_eq!(late >= 900.0, connections == 2, "{connections}: {late}");
    }
}

/// With one connection no two commands of an origin are under way at the same time.
#[test]
fn no_command_overtakes_a_retry_of_its_origin() {
    for flags in ["", "--batch 10", "--clients 2 --reused 0"] {
        let manner = match flags.contains("batch") {
            true => Manner::PartlyBusy,
            false => Manner::Busy { until_ms: 1_000 },
        };
        let fake = Fake::with(None, manner);
        let flags = format!("--rate 200 --duration 2s --connections 1 {flags}");
        let (report, lines) = driven(&fake, &flags);
        check_counts(&report, &lines);
        assert_eq!(count(&report, "/counts/accepted"), 400, "{report}");
        let mut origins: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for receipt in lines.iter().filter_map(|line| line.get("receipt")) {
            let origin = format!("{} {} {}", receipt["log"], receipt["user"], receipt["client"]);
            let number = |field: &str| receipt[field].as_u64().expect("a number");
            origins.entry(origin).or_default().push((number("seq"), number("id")));
        }
        for (origin, mut commands) in origins {
            commands.sort_unstable();
            // The commands of one batch are answered together, the accepted ones before the others.
            let late = commands.windows(2).filter(|pair| pair[0].1 >= pair[1].1).count();
            let of_batch = flags.contains("batch");
            assert!(late == 0 || of_batch, "{flags}: {origin}: {commands:?}");
        }
    }
}

#[test]
fn a_retry_delays_no_other_origin() {
    let fake = Fake::with(None, Manner::Busy { until_ms: 1_000 });
    let (report, lines) = driven(&fake, "--rate 100 --duration 2s --connections 8");
    check_counts(&report, &lines);
    assert_eq!(count(&report, "/counts/accepted"), 200);
    // Three users of five organisations, each of which waits for its first command.
    assert!(count(&report, "/counts/retries/503") >= 10, "{report}");
    // If retries held connections, eight requests would occupy all of them in that second
    // (`Retry-After: 1`).
    assert!(latency(&report, "send", "p99_ms") < 500.0, "{}", report["latencies"]);
    assert!(latency(&report, "accept", "max_ms") >= 1_000.0, "{}", report["latencies"]);
}

#[test]
fn unanswered_commands_are_given_up_and_count_as_slow() {
    let fake = Fake::with(None, Manner::Deaf);
    let flags = "--rate 200 --duration 2s --timeout 200ms --give-up 700ms";
    let (report, lines) = driven(&fake, flags);
    check_counts(&report, &lines);
    let unanswered = count(&report, "/counts/unanswered");
    assert!((10..80).contains(&unanswered), "{report}");
    assert!(count(&report, "/counts/retries/timeout") > unanswered, "{report}");
    assert_eq!(latency(&report, "accept", "count"), 400.0, "{}", report["latencies"]);
    assert!(latency(&report, "accept", "p99_ms") >= 500.0, "{}", report["latencies"]);
}

#[test]
fn each_command_of_a_batch_is_accounted_for() {
    let flags = "--rate 400 --duration 1s --batch 10";
    let fake = Fake::with(None, Manner::PartlyBusy);
    let (report, lines) = driven(&fake, flags);
    check_counts(&report, &lines);
    assert_eq!(count(&report, "/counts/accepted"), 400);
    assert!(count(&report, "/counts/retries/503") >= 40, "{report}");

    let fake = Fake::with(None, Manner::PartlyRefused);
    let (report, lines) = driven(&fake, flags);
    check_counts(&report, &lines);
    assert!((10..120).contains(&count(&report, "/counts/refused")), "{report}");
    assert!(report["refusal"].as_str().is_some_and(|why| why.contains("not this one")), "{report}");
}

#[test]
fn a_refused_command_is_refused_in_the_receipts() {
    let fake = Fake::with(None, Manner::PartlyRefused);
    let (_, lines) = driven(&fake, "--rate 400 --duration 1s --batch 10");
    let refused: BTreeSet<String> =
        lines.iter().filter_map(|line| Some(line.get("refused")?["id"].to_string())).collect();
    assert!(!refused.is_empty());
    assert!(refused.iter().all(|id| id.ends_with('5') || id.ends_with('0')), "{refused:?}");
}

#[test]
fn samples_of_a_stuck_view_are_given_up_in_time() {
    for (plant, manner, flags) in [
        // The view takes the whole wait.
        (None, Manner::ViewsStand, "--give-up 2s"),
        // The view is parked, so samples do not wait.
        (Some(Plant::ViewStuckParked), Manner::Plain, "--give-up 60s"),
    ] {
        let (fake, began) = (Fake::with(plant, manner), Instant::now());
        let flags = format!("--rate 100 --duration 1s --samples 100 --no-audit {flags}");
        let (report, _) = driven(&fake, &flags);
        assert!(count(&report, "/counts/samples_unseen") > 10, "{report}");
        assert_eq!(count(&report, "/counts/accepted"), 100, "{report}");
        assert!(began.elapsed() < Duration::from_secs(10), "{flags}: {:?}", began.elapsed());
    }
}

#[test]
fn the_same_name_and_seed_send_the_same_commands_whatever_the_answers() {
    let sent = |manner| {
        let fake = Fake::with(None, manner);
        let flags = "--rate 300 --duration 1s --name ci --seed 5 --duplicates 0.2 \
                     --out-of-order 0.1 --rejected 0.1 --payload 300";
        let (_, lines) = driven(&fake, flags);
        let mut sent: Vec<String> = lines
            .into_iter()
            .filter_map(|mut line| {
                let mut receipt = line.get_mut("receipt")?.take();
                receipt.as_object_mut()?.remove("seq");
                Some(receipt.to_string())
            })
            .collect();
        sent.sort();
        sent
    };
    let (plain, stalled) = (sent(Manner::Plain), sent(Manner::Stalls { from_ms: 0, to_ms: 700 }));
    assert_eq!(plain.len(), 315);
    assert_eq!(plain, stalled);
    let different: BTreeSet<&String> = plain.iter().collect();
    assert!(different.len() < 290, "some were sent again: {}", different.len());
}
