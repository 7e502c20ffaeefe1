//! Runs a load for each kind of fault. Meanwhile calls of AWS are refused, throttled, or answered
//! with an error after their effect; Lambdas are killed; mappings are switched off. Then the
//! generator's auditor must find everything that was accepted, once. The counters of moto and of
//! the host must show that each fault has happened.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Moto, NAME};
use crate::e2e::{load, say};

/// Each load. It begins before the fault and ends after it.
const LOAD: [&str; 4] = ["--rate", "15", "--duration", "8s"];
const BEFORE: Duration = Duration::from_millis(1_500);
const GATHER: Duration = Duration::from_millis(2_500);
const LASTS: Duration = Duration::from_secs(4);
/// How long after the fault its effects on a mapping may take to show.
const SEEN: Duration = Duration::from_secs(20);

/// The fault that only one log meets, and the prefix of the log's name.
const ONE_LOG: &str = "journal-denied-to-one";
const OFF: &str = "mappings-off";
const IN_CI: [&str; 4] = ["journal-lost", ONE_LOG, "kills", OFF];
/// How often a fault is planted again for an effect that it shows only by chance.
const AGAIN_MAX: usize = 5;

/// Something that fails for a while.
struct Fault {
    name: &'static str,
    what: What,
}

enum What {
    /// Calls of AWS fail, as described for moto's server.
    Calls(Value),
    /// Processes of every function are killed: immediately, and during their next invocations.
    Kills,
    /// The mappings are off. When they are on again, their first batches, which are large, fail.
    MappingsOff,
}

fn faults() -> Vec<Fault> {
    let denied = "AccessDeniedException";
    let throttled = "ProvisionedThroughputExceededException";
    let journal = json!(["fanfold-journal"]);
    let calls = |name, target: &str, texts: Value, how: Value| {
        let mut fault = how;
        fault["target"] = json!(target);
        fault["texts"] = texts;
        Fault { name, what: What::Calls(fault) }
    };
    let refused = |kind: &str, share: f64| json!({ "type": kind, "share": share });
    let lost = |share: f64| json!({ "type": "InternalServerError", "status": 500, "after": true, "share": share });
    vec![
        calls("journal-denied", "PutItem", journal.clone(), refused(denied, 1.0)),
        calls("journal-throttled", "PutItem", journal.clone(), refused(throttled, 0.5)),
        calls("journal-lost", "PutItem", journal, lost(0.5)),
        // One log of several in a batch: the records before it are done, and it comes again.
        calls(
            ONE_LOG,
            "PutItem",
            json!(["fanfold-journal", format!("org:{ONE_LOG}-1\"")]),
            refused(denied, 1.0),
        ),
        calls("stream-denied", "PutRecords", json!([]), refused(denied, 1.0)),
        calls("slots-lost", "UpdateItem", json!(["fanfold-commands"]), lost(0.3)),
        calls("view-denied", "PutItem", json!(["fanfold-view-balances"]), refused(denied, 1.0)),
        Fault { name: "kills", what: What::Kills },
        Fault { name: OFF, what: What::MappingsOff },
    ]
}

/// Runs the faults one after another; in CI only those that each cover something new.
pub(super) fn run(stack: &Moto<'_>, all: bool) -> Result<()> {
    let mut faults = faults();
    faults.retain(|fault| all || IN_CI.contains(&fault.name));
    for fault in &faults {
        run_and_count(stack, fault)?;
    }
    // Every way in which a mapping of streams retries must have happened. Whether a finished record
    // lies before an unfinished one is chance, so the faults are repeated until it does.
    for (mapping, what, by) in [
        ("fanfold-processor", "partial", ONE_LOG),
        ("fanfold-processor", "split", ONE_LOG),
        ("fanfold-relay", "bisected", OFF),
        ("fanfold-processor", "bisected", OFF),
    ] {
        let seen = || -> Result<bool> {
            Ok(stack.counts()?["mappings"][mapping][what].as_u64() > Some(0))
        };
        let fault = faults
            .iter()
            .find(|fault| fault.name == by)
            .with_context(|| format!("there is no fault `{by}`"))?;
        for _ in 0..AGAIN_MAX {
            if !seen()? {
                run_and_count(stack, fault)?;
            }
        }
        ensure!(seen()?, "the mapping of {mapping} has counted no batch as {what}");
    }
    Ok(())
}

/// Runs a load with the fault, and prints what the mappings of streams counted meanwhile.
fn run_and_count(stack: &Moto<'_>, fault: &Fault) -> Result<()> {
    let began = Instant::now();
    let before = stack.counts()?;
    one(stack, fault).with_context(|| format!("with the fault `{}`", fault.name))?;
    let after = stack.counts()?;
    let more = |mapping: &str, what: &str| {
        let of = |counts: &Value| counts["mappings"][mapping][what].as_u64().unwrap_or(0);
        of(&after) - of(&before)
    };
    let [relay, processor] = ["fanfold-relay", "fanfold-processor"].map(|mapping| {
        let counted = ["batches", "partial", "split", "failed", "bisected"];
        counted.map(|what| format!("{what} {}", more(mapping, what))).join(", ")
    });
    let seconds = began.elapsed().as_secs();
    say(NAME, &format!("{}: {seconds} s; relay: {relay}; processor: {processor}", fault.name));
    Ok(())
}

/// Runs a load with the fault in the middle.
fn one(stack: &Moto<'_>, fault: &Fault) -> Result<()> {
    let prefix = format!("{}-", fault.name);
    let users = ["--tenants", "12", "--users", "3", "--zipf", "0", "--org-prefix", &prefix];
    let what = ["--duplicates", "0.05", "--out-of-order", "0.05", "--rejected", "0.05"];
    let how = ["--connections", "16", "--samples", "3", "--give-up", "60s"];
    let arguments = [&LOAD[..], &users, &what, &how].concat();
    thread::scope(|scope| {
        let audited = scope.spawn(|| load(&stack.target, &arguments));
        thread::sleep(BEFORE);
        let planted = plant(stack, &fault.what);
        let report =
            audited.join().unwrap_or_else(|_| Err(anyhow::anyhow!("the load panicked")))?;
        planted?;
        let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
        let accepted = count("/counts/accepted");
        ensure!(accepted > Some(0), "nothing was accepted: {}", report["counts"]);
        ensure!(
            count("/audit/receipts") >= accepted,
            "not all receipts were audited: {}",
            report["audit"]
        );
        Ok(())
    })
}

/// Plants the fault for a while. Fails if no call met the fault.
fn plant(stack: &Moto<'_>, what: &What) -> Result<()> {
    match what {
        What::Calls(fault) => {
            // While the mapping is off, records gather: the first batches that meet the fault are
            // large.
            stack.control("/mappings/fanfold-processor/off")?;
            thread::sleep(GATHER);
            stack.fault(Some(fault))?;
            stack.control("/mappings/fanfold-processor/on")?;
            thread::sleep(LASTS);
            let met = stack.fault(None)?;
            ensure!(met > 0, "the fault met no call: {fault}");
        }
        What::Kills => {
            let functions = ["relay", "processor", "balances", "statement", "totals", "api"];
            for name in functions {
                stack.control(&format!("/kill/fanfold-{name}"))?;
                stack.control(&format!("/kill/fanfold-{name}/3/60"))?;
            }
            until("each function was killed three times in the middle", || {
                let counts = stack.counts()?;
                let left =
                    |name: &&str| &counts["functions"][format!("fanfold-{name}")]["kills_left"];
                Ok(functions.iter().all(|name| *left(name) == 0))
            })?;
        }
        What::MappingsOff => {
            let mappings = ["relay", "processor", "balances", "statement", "totals"];
            for stage in ["relay", "processor"] {
                // The other stage runs, so this one then gets large batches.
                stack.control(&format!("/mappings/fanfold-{stage}/off"))?;
                thread::sleep(LASTS / 2);
                stack.control(&format!("/kill/fanfold-{stage}/3/0"))?;
                stack.control(&format!("/mappings/fanfold-{stage}/on"))?;
            }
            for name in &mappings[2..] {
                stack.control(&format!("/mappings/fanfold-{name}/off"))?;
            }
            thread::sleep(LASTS / 2);
            for name in &mappings[2..] {
                stack.control(&format!("/mappings/fanfold-{name}/on"))?;
            }
        }
    }
    Ok(())
}

/// Waits until the condition holds.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < SEEN, "not within {SEEN:?}: {what}");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
