//! Loads from workload files, from the command line to the verdict.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use fake_target::{Fake, Manner, Plant};
use serde_json::Value;
use tempfile::TempDir;

use crate::generator::{count, json, load, loadtest, run, text};

/// A file of the folder `workloads`.
fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads").join(name)
}

/// The workload of the fake target's own service.
fn seats() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workloads/seats.yaml")
}

/// The usual load without the options of the ledger.
fn line(url: &str, more: &str) -> String {
    format!("{} {more} --workload", load(url).replace("--rejected 0.1", ""))
}

/// Writes a workload file.
fn workload(folder: &TempDir, content: &str) -> PathBuf {
    let path = folder.path().join("w.yaml");
    std::fs::write(&path, content).expect("it is written");
    path
}

#[test]
fn a_load_of_any_service_is_driven_audited_and_reported() {
    for how in [
        "",
        "--batch 10 --batch-of-one-tenant",
        "--threads 2 --poisson --reused 0.1",
        "--clients 2 --reused 0.1",
    ] {
        let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
        let paths = ["r.json", "r.html", "receipts"].map(|name| folder.path().join(name));
        let [to_json, to_html, receipts] = &paths;
        let [json_flag, html_flag, receipts_flag] =
            ["--json", "--html", "--receipts"].map(Path::new);
        let seats = seats();
        let more: [&Path; 7] =
            [&seats, json_flag, to_json, html_flag, to_html, receipts_flag, receipts];
        let output = run(&line(&fake.url, how), &more);
        assert!(output.status.success(), "{how}: {output:?}");
        let report = json(to_json);
        let due = count(&report, "/counts/due");
        assert_eq!(count(&report, "/counts/accepted"), due, "{how}");
        // Five rooms of each of five organisations were added before.
        assert_eq!(count(&report, "/audit/receipts"), due + 25, "{how}");
        assert_eq!(count(&report, "/audit/breaches"), 0, "{how}");
        assert_eq!(
            (&report["audit"]["service"], &report["audit"]["model"], &report["audit"]["expects"]),
            (&"seats".into(), &"none".into(), &true.into()),
            "{how}"
        );
        for outcome in ["accepted", "rejected", "duplicate"] {
            assert!(count(&report, &format!("/audit/outcomes/{outcome}")) > 0, "{how}: {report}");
        }
        assert!(count(&report, "/audit/seen") > 10 && count(&report, "/audit/rows") > 50, "{how}");
        for latency in report["latencies"].as_array().expect("a list") {
            assert!(count(latency, "/count") > 0, "{how}: {latency}");
        }
        let page = std::fs::read_to_string(to_html).expect("the page was written");
        let shown = text(&output.stdout);
        assert!(shown.contains("Audit: PASS"), "{shown}");
        for text in [&shown, &page] {
            assert!(!text.contains("ledger") && !text.contains("account"), "{how}: {text}");
        }
        // The file knows its service and that there is no model.
        let again = format!("audit --target {} --audit-patience 2s --receipts", fake.url);
        let again = run(&again, &[receipts]);
        assert!(again.status.success(), "{how}: {again:?}");
    }
}

#[test]
fn a_tenant_can_be_a_user() {
    let (fake, folder) = (Fake::start(None), TempDir::new().expect("a folder"));
    let path = workload(
        &folder,
        "service: seats\npartition: user\nviews: [holders]\nsetup: [{ command: begin }]\n\
         mix: [{ command: note, data: { n: '{{ n }}' }, expect: accepted }]",
    );
    let to_json = folder.path().join("r.json");
    let output = run(&line(&fake.url, "--threads 2"), &[&path, Path::new("--json"), &to_json]);
    assert!(output.status.success(), "{output:?}");
    let report = json(&to_json);
    assert_eq!(count(&report, "/audit/logs"), 5, "{report}");
    assert_eq!(count(&report, "/audit/receipts"), count(&report, "/counts/due") + 5);
}

#[test]
fn the_ledger_is_judged_by_its_model_unless_told_otherwise() {
    for (how, plant, is_clean, model) in [
        ("", None, true, "ledger"),
        ("", Some(Plant::WrongBalance), false, "ledger"),
        ("--model none", None, true, "none"),
        ("--model none", Some(Plant::WrongBalance), true, "none"),
        ("--model none --name r-", Some(Plant::DataChanged), false, "none"),
        ("--model none --give-up 2s", Some(Plant::ViewStuck), false, "none"),
    ] {
        let (fake, folder) = (Fake::start(plant), TempDir::new().expect("a folder"));
        let to_json = folder.path().join("r.json");
        let paths = [&*example("ledger.yaml"), Path::new("--json"), &to_json];
        let output = run(&line(&fake.url, how), &paths);
        assert_eq!(output.status.code(), Some(i32::from(!is_clean)), "{how} {plant:?}: {output:?}");
        let report = json(&to_json);
        assert_eq!(report["audit"]["model"], model, "{how} {plant:?}");
        assert!(count(&report, "/audit/outcomes/rejected") > 0, "{report}");
    }
}

#[test]
fn a_broken_expectation_is_a_breach() {
    for (plant, says) in [
        (Plant::FineRejected, "`go` is rejected with full, and should be accepted"),
        (Plant::OverdrawnAccepted, "`stop` is accepted, and should be rejected with late"),
        (Plant::WrongCode, "`stop` is rejected with too_large, and should be rejected with late"),
    ] {
        let (fake, folder) = (Fake::start(Some(plant)), TempDir::new().expect("a folder"));
        let path = workload(
            &folder,
            "service: seats\nmix:\n  - { command: go, expect: accepted }\n  \
             - { command: stop, data: { refuse: late }, expect: { rejected: late } }",
        );
        let output = run(&line(&fake.url, ""), &[&path]);
        // The words may be on several lines.
        let shown = text(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(output.status.code(), Some(1), "{shown}");
        assert!(shown.contains(says), "{plant:?}: {shown}");
        let kept = text(&output.stdout);
        let kept = kept.lines().find_map(|line| line.strip_prefix("The receipts are kept: "));
        std::fs::remove_file(kept.expect("they prove the breach")).expect("it is there");
    }
}

#[test]
fn the_same_name_and_seed_send_the_same_data_whatever_the_answers() {
    let sent = |manner, seed: u32| {
        let (fake, folder) = (Fake::with(None, manner), TempDir::new().expect("a folder"));
        let receipts = folder.path().join("receipts");
        let line = line(&fake.url, &format!("--name ci --seed {seed}"));
        let paths = [&*seats(), Path::new("--receipts"), &receipts];
        assert!(run(&line, &paths).status.success());
        let lines = std::fs::read_to_string(receipts).expect("they were asked for");
        let receipts = lines.lines().filter_map(|line| {
            let mut line: Value = serde_json::from_str(line).expect("it is JSON");
            let mut receipt = line.get_mut("receipt")?.take();
            receipt.as_object_mut()?.remove("seq");
            Some(receipt.to_string())
        });
        let mut receipts: Vec<String> = receipts.collect();
        receipts.sort();
        receipts
    };
    let plain = sent(Manner::Plain, 5);
    assert_eq!(plain.len(), 325);
    assert_eq!(plain, sent(Manner::Stalls { from_ms: 0, to_ms: 700 }, 5));
    let data = |all: &[String]| -> BTreeSet<String> {
        let digest = |line: &String| line.split("\"data\":").nth(1).map(str::to_owned);
        all.iter().filter_map(digest).collect()
    };
    let other = data(&sent(Manner::Plain, 6));
    assert!(data(&plain).intersection(&other).count() < 50, "another seed has other data");
}

#[test]
fn what_the_target_does_not_have_is_named_before_the_load_or_ends_it() {
    let fake = Fake::start(None);
    let mix = "mix: [{ command: go }]";
    for (content, flags, says) in [
        (format!("service: library\n{mix}"), "", "no service `library`: correct `service`"),
        (
            format!("service: seats\nviews: [holders, shelf]\n{mix}"),
            "",
            "no view `shelf` of `seats`: correct `views`",
        ),
        (
            format!("service: seats\nviews: [filtered]\n{mix}"),
            "",
            "the view `filtered` cannot be waited for: take it out",
        ),
        (
            "service: ledger\nsetup: [{ command: opne }]\nmix: [{ command: open }]".to_owned(),
            "",
            "w.yaml, line 2: the target refuses the command `opne`: 400: `command`: the ledger has no `opne`",
        ),
        (
            "service: ledger\nmix: [{ command: opne }]".to_owned(),
            "",
            "w.yaml, line 2: the target refuses the command `opne`: 400: `command`: the ledger has no `opne`",
        ),
        (
            format!("service: seats\n{mix}"),
            "--rejected 0.1",
            "--rejected is of the load on the ledger",
        ),
        (
            format!("service: seats\n{mix}"),
            "--transfers 0.1",
            "give commands a `weight` in the file",
        ),
        (format!("service: seats\n{mix}"), "--payload 100", "use text(count) in the file"),
        (
            format!("service: seats\n{mix}"),
            "--model ledger",
            "the workload is of `seats`: use --model none",
        ),
        (
            format!("service: seats\n{mix}"),
            "--arrivals search",
            "needs a view, and the workload names none",
        ),
        (
            "service: seats\nmix: [{ command: go, data: { a: '{{ text(30000) }}' } }]".to_owned(),
            "--batch 40",
            "--batch 40 of commands with data of 30008 bytes",
        ),
        (
            "service: seats\nmix: [{ command: go, data: { a: '{{ int(n, 3) }}' } }]".to_owned(),
            "",
            "w.yaml, line 2: the command `go`, field `data.a`: int(4, 3): the first must not exceed",
        ),
        ("service: seats".to_owned(), "", "w.yaml: missing field `mix`"),
    ] {
        let folder = TempDir::new().expect("a folder");
        let path = workload(&folder, &content);
        let output = loadtest(&line(&fake.url, flags), &[&path]).output().expect("it starts");
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{content} {flags}: {output:?}");
        assert!(stderr.contains(says), "`{says}` is not in: {stderr}");
        let shown = text(&output.stdout);
        let kept = shown.lines().find_map(|line| line.strip_prefix("The receipts are kept: "));
        kept.inspect(|kept| std::fs::remove_file(kept).expect("it is there"));
    }
    let output = run(&line(&fake.url, ""), &[Path::new("nowhere.yaml")]);
    assert!(text(&output.stderr).contains("cannot read the workload nowhere.yaml"), "{output:?}");
}

#[test]
fn a_target_without_a_description_has_no_first_workload() {
    let fake = Fake::start(None);
    let output = run(&format!("init --target {}", fake.url), &[]);
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("/openapi.json answers 404"), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}
