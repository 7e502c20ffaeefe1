//! A load for each kind of fault: while it runs, calls of AWS are refused, throttled, or answered
//! with an error after their effect; Lambdas are killed; mappings are switched off. Then everything
//! that was accepted is there, once: the generator's auditor says so. And each fault must have
//! happened, which the counters of moto and of the host say.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{Moto, NAME};
use crate::e2e::{load, say};

/// Of each load. It begins before the fault, and ends behind it.
const LOAD: [&str; 4] = ["--rate", "15", "--duration", "8s"];
const BEFORE: Duration = Duration::from_millis(1_500);
const GATHER: Duration = Duration::from_millis(2_500);
const LASTS: Duration = Duration::from_secs(4);
/// What must have happened to a mapping happens within this time after the fault, or not at all.
const SEEN: Duration = Duration::from_secs(20);

/// The fault that only one log meets, and the beginning of its name.
const ONE_LOG: &str = "journal-denied-to-one";
const OFF: &str = "mappings-off";
const IN_CI: [&str; 4] = ["journal-lost", ONE_LOG, "kills", OFF];
/// How often a fault is planted again to see what it shows only by chance.
const AGAIN_MAX: usize = 5;

/// Something that is wrong for a while.
struct Fault {
    name: &'static str,
    what: What,
}

enum What {
    /// Calls of AWS, as moto's server takes them.
    Calls(Value),
    /// Processes of every function are killed: at once, and in the middle of what they do next.
    Kills,
    /// The mappings are off, and when they are on again, their first batches, which are large, fail.
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
        // One log of several in a batch: what is before it is done, and it comes again.
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

/// One after the other; in CI those alone that each show another thing.
pub(super) fn run(stack: &Moto<'_>, all: bool) -> Result<()> {
    let mut faults = faults();
    faults.retain(|fault| all || IN_CI.contains(&fault.name));
    for fault in &faults {
        watched(stack, fault)?;
    }
    // What a mapping of streams has to do for a function that is not done. Whether a record that is
    // done lies before one that is not is chance: the faults that show it come again until it does.
    for (mapping, what, by) in [
        ("fanfold-processor", "partial", ONE_LOG),
        ("fanfold-processor", "split", ONE_LOG),
        ("fanfold-relay", "bisected", OFF),
        ("fanfold-processor", "bisected", OFF),
    ] {
        let seen = || -> Result<bool> {
            Ok(stack.counts()?["mappings"][mapping][what].as_u64() > Some(0))
        };
        let fault =
            faults.iter().find(|fault| fault.name == by).context("there is no such fault")?;
        for _ in 0..AGAIN_MAX {
            if !seen()? {
                watched(stack, fault)?;
            }
        }
        ensure!(seen()?, "the mapping of {mapping} has seen nothing that was {what}");
    }
    Ok(())
}

/// Says what the mappings of streams had to do meanwhile.
fn watched(stack: &Moto<'_>, fault: &Fault) -> Result<()> {
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

/// A load, and the fault in the middle of it.
fn one(stack: &Moto<'_>, fault: &Fault) -> Result<()> {
    let prefix = format!("{}-", fault.name);
    let who = ["--tenants", "12", "--users", "3", "--zipf", "0", "--org-prefix", &prefix];
    let what = ["--duplicates", "0.05", "--out-of-order", "0.05", "--rejected", "0.05"];
    let how = ["--connections", "16", "--samples", "3", "--give-up", "60s"];
    let arguments = [&LOAD[..], &who, &what, &how].concat();
    thread::scope(|scope| {
        let audited = scope.spawn(|| load(&stack.target, &arguments));
        thread::sleep(BEFORE);
        let planted = plant(stack, &fault.what);
        let report = audited.join().unwrap_or_else(|_| Err(anyhow::anyhow!("it panicked")))?;
        planted?;
        let count = |pointer: &str| report.pointer(pointer).and_then(Value::as_u64);
        let accepted = count("/counts/accepted");
        ensure!(accepted > Some(0), "nothing was accepted: {}", report["counts"]);
        ensure!(count("/audit/receipts") >= accepted, "not all were audited: {}", report["audit"]);
        Ok(())
    })
}

/// Has the fault happen for a while; it must have.
fn plant(stack: &Moto<'_>, what: &What) -> Result<()> {
    match what {
        What::Calls(fault) => {
            // So that the first batches that meet the fault are large.
            stack.tell_host("/mappings/fanfold-processor/off")?;
            thread::sleep(GATHER);
            stack.fault(Some(fault))?;
            stack.tell_host("/mappings/fanfold-processor/on")?;
            thread::sleep(LASTS);
            let met = stack.fault(None)?;
            ensure!(met > 0, "the fault has met no call: {fault}");
        }
        What::Kills => {
            let functions = ["relay", "processor", "balances", "statement", "totals", "api"];
            for name in functions {
                stack.tell_host(&format!("/kill/fanfold-{name}"))?;
                stack.tell_host(&format!("/kill/fanfold-{name}/3/60"))?;
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
                // The other one runs, so that what this one gets then is much at once.
                stack.tell_host(&format!("/mappings/fanfold-{stage}/off"))?;
                thread::sleep(LASTS / 2);
                stack.tell_host(&format!("/kill/fanfold-{stage}/3/0"))?;
                stack.tell_host(&format!("/mappings/fanfold-{stage}/on"))?;
            }
            for name in &mappings[2..] {
                stack.tell_host(&format!("/mappings/fanfold-{name}/off"))?;
            }
            thread::sleep(LASTS / 2);
            for name in &mappings[2..] {
                stack.tell_host(&format!("/mappings/fanfold-{name}/on"))?;
            }
        }
    }
    Ok(())
}

/// Waits until it is so.
fn until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        ensure!(began.elapsed() < SEEN, "not after {SEEN:?}: {what}");
        thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
