//! Removes each part of the templates in turn: without it, a scenario must fail.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::stack::Delivery;
use super::{Built, Deployed, Without};

/// How long a probe waits: less than the minute after which a sweep repairs what the missing part
/// left undone. For the sweeps themselves there is no such bound.
const PATIENCE: Duration = Duration::from_secs(15);
const PATIENCE_SWEEP: Duration = Duration::from_secs(100);

/// The parts of both deliveries: each mapping and schedule, and one permission of each role. (A
/// function's own policy says which callers may invoke it. The emulator does not check that.)
const COMMON: [&str; 13] = [
    "RelayFunctionChanges",
    "ProcessorFunctionCommands",
    "SweepFunctionEachMinute",
    "BalancesFunctionEachMinute",
    "StatementFunctionEachMinute",
    "TotalsFunctionEachMinute",
    "ApiRole.dynamodb:UpdateItem",
    "RelayRole.kinesis:PutRecords",
    // AWS checks `sns:Publish`, the emulator the name of the call.
    "ProcessorRole.sns:PublishBatch",
    "SweepRole.dynamodb:UpdateItem",
    "BalancesRole.dynamodb:UpdateItem",
    "StatementRole.dynamodb:UpdateItem",
    "TotalsRole.sqs:DeleteMessage",
];
const OF_TOPIC: [&str; 3] = ["BalancesSubscription", "StatementSubscription", "TotalsSubscription"];
const OF_QUEUES: [&str; 9] = [
    "BalancesQueueSubscription",
    "StatementQueueSubscription",
    "TotalsQueueSubscription",
    "BalancesMapping",
    "StatementMapping",
    "TotalsMapping",
    "BalancesQueuePolicy",
    "StatementQueuePolicy",
    "TotalsQueuePolicy",
];

/// Stacks in parallel: they wait most of the time.
const AT_ONCE: usize = 3;

/// The result of a probe.
#[derive(Debug, Clone, Copy)]
enum Seen {
    Held,
    /// The scenario that failed.
    Red(&'static str),
}

/// Probes every part, each on a stack of its own.
pub(super) fn run(built: &Built) -> Result<()> {
    let direct = COMMON.iter().chain(&OF_TOPIC).map(|what| (Delivery::Direct, *what));
    let queue = OF_QUEUES.iter().map(|what| (Delivery::Queue, *what));
    let whole = Delivery::ALL.map(|delivery| (delivery, None));
    let parts = direct.chain(queue).map(|(delivery, what)| (delivery, Some(what)));
    let table = probe_all(built, whole.into_iter().chain(parts).collect())?;
    println!("\n{:<8} {:<34} noticed by", "views", "without");
    let mut wrong = 0;
    for (delivery, what, seen) in table {
        let (noticed, is_wrong) = match seen {
            Seen::Held => ("-", what.is_some()),
            Seen::Red(scenario) => (scenario, what.is_none()),
        };
        wrong += usize::from(is_wrong);
        let mark = if is_wrong { "  WRONG" } else { "" };
        println!("{:<8} {:<34} {noticed}{mark}", delivery.name(), what.unwrap_or("(nothing)"));
    }
    ensure!(wrong == 0, "{wrong} were not as expected");
    Ok(())
}

/// Probes each part on a stack of its own, [`AT_ONCE`] at the same time.
fn probe_all(
    built: &Built,
    all: Vec<(Delivery, Option<&'static str>)>,
) -> Result<Vec<(Delivery, Option<&'static str>, Seen)>> {
    let left = Mutex::new(all.into_iter().enumerate());
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let probe_some = || -> Result<Vec<_>> {
        let mut seen = Vec::new();
        while let Some((place, (delivery, what))) = next() {
            let without = what.map(str::parse).into_iter().collect::<Result<Vec<_>>>()?;
            seen.push((place, (delivery, what, probe(built, delivery, &without)?)));
        }
        Ok(seen)
    };
    let mut table = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(probe_some)).collect();
        let panicked = |_| Err(anyhow::anyhow!("it panicked"));
        let seen = threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked));
        seen.collect::<Result<Vec<_>>>()
    })?
    .concat();
    table.sort_by_key(|(place, _)| *place);
    Ok(table.into_iter().map(|(_, row)| row).collect())
}

/// Expects a scenario to fail without these parts.
pub(super) fn expect_red(built: &Built, delivery: Delivery, without: &[Without]) -> Result<()> {
    let names: Vec<String> = without.iter().map(Without::to_string).collect();
    match probe(built, delivery, without)? {
        Seen::Red(_) => Ok(()),
        Seen::Held => anyhow::bail!("no scenario failed without {}", names.join(", ")),
    }
}

/// Deploys a stack, and runs one scenario after another until one fails. The quick one is first.
/// The sweeps, which begin a minute later, could repair what it must detect.
fn probe(built: &Built, delivery: Delivery, without: &[Without]) -> Result<Seen> {
    let began = Instant::now();
    let stack = Deployed::deploy(built, delivery, without)?;
    let names: Vec<String> = without.iter().map(Without::to_string).collect();
    let probes = [
        ("tour::every_answer_has_its_exact_form", &["--exact"][..], PATIENCE),
        ("deployed::", &["--ignored", "--test-threads", "1"][..], PATIENCE_SWEEP),
    ];
    let mut seen = Seen::Held;
    for (scenario, arguments, patience) in probes {
        let log = if scenario == "deployed::" { "failures" } else { "tour" };
        if !stack.scenarios(log, &[&[scenario][..], arguments].concat(), patience)? {
            seen = Seen::Red(scenario);
            break;
        }
    }
    let noticed = match seen {
        Seen::Held => "held",
        Seen::Red(scenario) => scenario,
    };
    let what = format!("without [{}]: {noticed}", names.join(", "));
    super::say(&stack.name, &format!("{what}: {} s", began.elapsed().as_secs()));
    Ok(seen)
}
