//! Crashes, power cuts and errors at every system call that changes the folder.
//!
//! The tests record a short run of `fanfold up`: a start in an empty folder, commands, a
//! checkpoint, a split of a shard, an end, a start, a kill, a start. They start a host on a copy of
//! every state that a crash can leave (see `record.rs`), also after half of each write. Commands
//! acknowledged by then must have exactly one entry, and the host must accept commands.
//!
//! `FANFOLD_POINTS=all` tries all states; a number tries that many in each test, chosen by
//! `FANFOLD_SEED`. `cargo xtask crash-points` tries all.

mod record;

use std::collections::HashSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tempfile::TempDir;

use self::record::{Call, Disk, Step, Tree};
use crate::crash::seed;
use crate::load::{agent, get, post};
use crate::{Up, up_on};

/// States of each test, unless `FANFOLD_POINTS` names another number.
const POINTS: usize = 40;
/// The most bytes of a file of the command log: two or three commands.
const SEGMENT_BYTES: &str = "300";
/// Hosts that are started at the same time.
const AT_ONCE: usize = 2;
/// The errors with which calls fail.
const ERRORS: [(&str, i32); 2] = [("EIO", 5), ("ENOSPC", 28)];

/// A place for folders, and the shared library that records the calls on them.
struct Bench {
    place: TempDir,
    shim: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let place = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let place = place.expect("a folder");
        let shim = place.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/crash_points/shim.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&shim).arg(source);
        let built = compiler.status().expect("there is a C compiler");
        assert!(built.success(), "the shim cannot be compiled");
        Self { place, shim }
    }

    /// Creates a folder of this name, for the folder of a host.
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.place.path().join(name);
        fs::create_dir(&folder).expect("it is new");
        folder
    }

    /// A command that runs `fanfold up` on the folder `data` in `folder`, recorded.
    fn watched(&self, folder: &Path) -> Command {
        let mut command = up_on(&folder.join("data"));
        command.env("LD_PRELOAD", &self.shim).env("FANFOLD_SHIM_FOLDER", folder);
        command.env("FANFOLD_SHIM_RECORD", self.record(folder));
        command.env("FANFOLD_SEGMENT_BYTES", SEGMENT_BYTES);
        command
    }

    fn record(&self, folder: &Path) -> PathBuf {
        folder.with_extension("record")
    }

    fn steps(&self, folder: &Path) -> Vec<Step> {
        record::read(&self.record(folder), folder)
    }
}

/// The indexes of the states to try, of `points` states.
fn chosen(points: usize) -> HashSet<usize> {
    let wanted = match std::env::var("FANFOLD_POINTS") {
        Ok(all) if all == "all" => points,
        Ok(number) => number.parse().expect("FANFOLD_POINTS is `all` or a number"),
        Err(_) => POINTS,
    };
    let mut all: Vec<usize> = (0..points).collect();
    all.shuffle(&mut SmallRng::seed_from_u64(seed()));
    all.into_iter().take(wanted).collect()
}

/// Checks each value that `all` passes on, [`AT_ONCE`] at the same time. Prints the name of one
/// that fails, and panics in the end.
fn each<T: Send>(
    all: impl FnOnce(&mut dyn FnMut(T)),
    name: impl Fn(&T) -> String + Sync,
    check: impl Fn(&T) + Sync,
) {
    let (sender, receiver) = sync_channel(AT_ONCE);
    let receiver = Mutex::new(receiver);
    let failed = Mutex::new(None);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let next = lock(&receiver).recv();
                    let Ok(one) = next else { return };
                    if lock(&failed).is_some() {
                        continue;
                    }
                    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| check(&one))) {
                        println!("failed: {}", name(&one));
                        lock(&failed).get_or_insert(panic);
                    }
                }
            });
        }
        all(&mut |one| sender.send(one).expect("there are receivers"));
        drop(sender);
    });
    if let Some(panic) = lock(&failed).take() {
        resume_unwind(panic);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The command with this id: the first opens an account, the others deposit into it.
fn command(id: u64, memo: &str) -> String {
    let (command, data) = match id {
        1 => ("open", json!({"account": "cash"})),
        amount => ("deposit", json!({"account": "cash", "amount": amount, "memo": memo})),
    };
    json!({
        "type": "ledger", "command": command, "id": id, "user": "ann", "org": "acme", "data": data,
    })
    .to_string()
}

/// Sends the command with this id; returns the seq of its receipt.
fn send(up: &Up, id: u64) -> Option<u64> {
    match post(&agent(), &format!("{}/command", up.url), &command(id, "")) {
        Ok((202, answer)) => answer["seq"].as_u64(),
        Ok((503, _)) | Err(_) => None,
        Ok((status, answer)) => panic!("{status}: {answer}"),
    }
}

/// Waits until a checkpoint has emptied the command log.
fn checkpoint(folder: &Path) {
    let deadline = Instant::now() + Duration::from_secs(60);
    let bytes = || -> u64 {
        let segments = fs::read_dir(folder.join("data/commands")).expect("a folder").flatten();
        segments.filter_map(|segment| Some(segment.metadata().ok()?.len())).sum()
    };
    while bytes() > 8 {
        assert!(Instant::now() < deadline, "no checkpoint is made");
        thread::sleep(Duration::from_millis(10));
    }
}

fn split(up: &Up) {
    let shards = get(&format!("{}/ops/shards", up.url)).1;
    let body = json!({"shard": shards["shards"][0]["id"]}).to_string();
    let split = post(&agent(), &format!("{}/ops/shards/split", up.url), &body).expect("an answer");
    assert_eq!(split.0, 200, "{}", split.1);
}

/// Checks a folder after `sent` commands, of which `acknowledged` were acknowledged.
fn check(folder: &Path, acknowledged: u64, sent: u64) {
    let up = Up::on(&folder.join("data"));
    let mut tail = 0;
    loop {
        let from = tail + 1;
        let page = format!("{}/logs/ledger/org:acme?from={from}&limit=50", up.url);
        let (status, page) = get(&page);
        let entries = page["entries"].as_array().filter(|entries| !entries.is_empty());
        let Some(entries) = entries else {
            assert_eq!(status, 200, "{page}");
            break;
        };
        for entry in entries {
            tail += 1;
            let found = [&entry["seq"], &entry["id"], &entry["status"]];
            assert_eq!(found, [&json!(tail), &json!(tail), &json!("accepted")], "{entry}");
        }
    }
    assert!((acknowledged..=sent).contains(&tail), "{tail} of {acknowledged} to {sent}");
    if tail > 0 {
        let cash = format!("{}/views/balances/ledger/org:acme/cash?seq={tail}&wait=10000", up.url);
        let (_, row) = get(&cash);
        assert_eq!(row["row"]["balance"], json!((2..=tail).sum::<u64>()), "{row}");
    }
    assert_eq!(send(&up, tail + 1), Some(tail + 1));
    let next = format!("{}/logs/ledger/org:acme/{}?wait=10000", up.url, tail + 1);
    let (_, entry) = get(&next);
    assert_eq!(entry["status"], json!("accepted"), "{entry}");
}

/// The seq of the last command that a recorded answer acknowledges.
fn acknowledged(answer: &str) -> Option<u64> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    let receipt: Value = serde_json::from_str(body).ok()?;
    let last = match receipt["results"].as_array() {
        Some(receipts) => receipts.last()?,
        None => &receipt,
    };
    last.get("log")?;
    last["seq"].as_u64().filter(|_| answer.starts_with("HTTP/1.1 202"))
}

/// A state that a crash can leave.
struct State {
    tree: Tree,
    acknowledged: u64,
    what: String,
}

/// Whether no state after this call is tried, since it is within a long run of writes to one file.
/// Of these only each 16th is tried.
fn is_amidst_writes(steps: &[Step], at: usize) -> bool {
    let file = |at: usize| match steps.get(at) {
        Some(Step::Call(Call::Write { ino, .. })) => Some(*ino),
        _ => None,
    };
    let around = at.saturating_sub(2)..=at + 2;
    at >= 2 && !at.is_multiple_of(16) && around.into_iter().all(|near| file(near) == file(at))
}

/// Passes each different state of a record to `pass`; returns the number of calls.
fn states(steps: &[Step], mut pass: impl FnMut(State)) -> usize {
    let (mut disk, mut acked, mut calls) = (Disk::new(), 0, 0);
    let mut seen = HashSet::new();
    let mut add = |tree: Tree, acknowledged: u64, what: &dyn Fn() -> String| {
        if seen.insert((record::digest(&tree), acknowledged)) {
            pass(State { tree, acknowledged, what: what() });
        }
    };
    add(disk.tree(false), 0, &|| "nothing".to_owned());
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Answer(answer) => acked = acknowledged(answer).unwrap_or(0).max(acked),
            Step::Failed => calls += 1,
            Step::Call(call) if is_amidst_writes(steps, at) => {
                calls += 1;
                disk.apply(call);
                continue;
            }
            Step::Call(call) => {
                calls += 1;
                if let Call::Write { ino, at, data } = call {
                    let half = data[..data.len() / 2].to_vec();
                    disk.apply(&Call::Write { ino: *ino, at: *at, data: half });
                    add(disk.tree(false), acked, &|| format!("half of call {calls}: {call}"));
                }
                disk.apply(call);
                add(disk.tree(false), acked, &|| format!("call {calls}: {call}"));
            }
        }
        // What this step acknowledges must be synced by now.
        add(disk.tree(true), acked, &|| format!("what is synced after call {calls}"));
    }
    calls
}

#[test]
fn every_state_that_a_crash_can_leave_opens_again() {
    let bench = Bench::new();
    let folder = bench.folder("life");
    let up = Up::start(&mut bench.watched(&folder));
    for id in 1..=3 {
        assert_eq!(send(&up, id), Some(id));
    }
    checkpoint(&folder);
    split(&up);
    for id in 4..=5 {
        assert_eq!(send(&up, id), Some(id));
    }
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
    let mut up = Up::start(&mut bench.watched(&folder));
    assert_eq!(send(&up, 6), Some(6));
    up.kill();
    let up = Up::start(&mut bench.watched(&folder));
    assert_eq!(send(&up, 7), Some(7));
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));

    open_all_states(&bench, &folder, 7);
}

#[test]
fn every_state_opens_again_while_the_store_creates_and_removes_files() {
    // Enough data that the store writes table files.
    const BATCHES: u64 = 20;
    const BATCH: u64 = 16;
    let bench = Bench::new();
    let folder = bench.folder("large");
    let up = Up::start(&mut bench.watched(&folder));
    let mut chance = SmallRng::seed_from_u64(1);
    // Random, so that it cannot be compressed.
    let memo: String = (0..60_000).map(|_| chance.random_range('0'..='z')).collect();
    for batch in 0..BATCHES {
        let ids = batch * BATCH + 1..=(batch + 1) * BATCH;
        let lines: Vec<String> = ids.map(|id| command(id, &memo)).collect();
        let sent = post(&agent(), &format!("{}/commands", up.url), &lines.join("\n"));
        assert_eq!(sent.map(|(status, _)| status).ok(), Some(202));
        checkpoint(&folder);
    }
    up.signal("-TERM");
    assert_eq!(up.end(), (Some(0), String::new()));
    open_all_states(&bench, &folder, BATCHES * BATCH);
}

/// Opens the states of a recorded run, in which `sent` commands were sent and acknowledged.
fn open_all_states(bench: &Bench, folder: &Path, sent: u64) {
    let steps = bench.steps(folder);
    let mut disk = Disk::new();
    let calls = steps.iter().filter_map(|step| match step {
        Step::Call(call) => Some(call),
        Step::Answer(_) | Step::Failed => None,
    });
    calls.for_each(|call| disk.apply(call));
    record::assert_is(&disk.tree(false), folder);
    let (mut count, mut last) = (0, 0);
    let calls = states(&steps, |state| {
        count += 1;
        last = state.acknowledged;
    });
    assert_eq!(last, sent, "the record is not complete");
    let chosen = chosen(count);
    let began = Instant::now();
    each(
        |pass| {
            let mut number = 0;
            states(&steps, |state| {
                if chosen.contains(&number) {
                    pass(state);
                }
                number += 1;
            });
        },
        |state| format!("{} acknowledged, {}", state.acknowledged, state.what),
        |state| {
            let copy = tempfile::tempdir_in(bench.place.path()).expect("a folder");
            record::make(&state.tree, copy.path());
            check(copy.path(), state.acknowledged, sent);
        },
    );
    println!(
        "{calls} calls that change the folder, {count} different states, {} opened in {:?}",
        chosen.len(),
        began.elapsed()
    );
}

/// A fault of a run: what happens instead of a call.
struct Fault {
    at: usize,
    /// The error with which the call fails; `None` kills the process.
    error: Option<(&'static str, i32)>,
}

/// Runs `fanfold up` with a fault, some commands, and an end. Returns the number of calls, and
/// whether the fault was reached.
fn live_with(bench: &Bench, fault: &Fault) -> (usize, bool) {
    let what = fault.error.map_or("kill", |(name, _)| name);
    let folder = bench.folder(&format!("{what}-{}", fault.at));
    let mut command = bench.watched(&folder);
    command.env("FANFOLD_SHIM_AT", fault.at.to_string());
    if let Some((_, error)) = fault.error {
        command.env("FANFOLD_SHIM_DO", error.to_string());
    }
    let (mut sent, mut acknowledged) = (0, 0);
    match Up::try_start(&mut command) {
        Ok(up) => {
            for id in 1..=3 {
                sent = id;
                match send(&up, id) {
                    Some(seq) => acknowledged = seq,
                    None => break,
                }
            }
            up.signal("-TERM");
            drop(up.end());
        }
        Err(said) if fault.error.is_some() => {
            let shown = folder.join("data").display().to_string();
            // The store may have logged something before.
            let last = said.lines().last().unwrap_or_default();
            assert!(last.starts_with("error: ") && last.contains(&shown), "{said}");
        }
        Err(_) => {}
    }
    let steps = bench.steps(&folder);
    let calls = steps.iter().filter(|step| !matches!(step, Step::Answer(_))).count();
    check(&folder, acknowledged, sent);
    fs::remove_dir_all(&folder).expect("it is there");
    fs::remove_file(bench.record(&folder)).expect("it is there");
    let is_kill = fault.error.is_none();
    (calls, if is_kill { calls + 1 >= fault.at } else { calls >= fault.at })
}

fn live_with_each(errors: &[Option<(&'static str, i32)>]) {
    let bench = Bench::new();
    let (calls, _) = live_with(&bench, &Fault { at: usize::MAX >> 1, error: None });
    // The number of calls differs from run to run.
    let faults = (1..=calls + calls / 10)
        .flat_map(|at| errors.iter().map(move |error| Fault { at, error: *error }));
    let faults: Vec<Fault> = faults.collect();
    let (count, chosen) = (faults.len(), chosen(faults.len()));
    let tried = faults.into_iter().enumerate().filter(|(number, _)| chosen.contains(number));
    let (most, reached) = (AtomicUsize::new(calls), AtomicUsize::new(0));
    let began = Instant::now();
    each(
        |pass| tried.for_each(|(_, fault)| pass(fault)),
        |fault| format!("{:?} at call {}", fault.error, fault.at),
        |fault| {
            let (calls, is_reached) = live_with(&bench, fault);
            most.fetch_max(calls, Ordering::Relaxed);
            reached.fetch_add(usize::from(is_reached), Ordering::Relaxed);
        },
    );
    println!(
        "up to {} calls, {count} faults, {} tried in {:?}, {} of them reached",
        most.into_inner(),
        chosen.len(),
        began.elapsed(),
        reached.into_inner()
    );
}

#[test]
fn a_kill_at_any_call_loses_nothing() {
    live_with_each(&[None]);
}

#[test]
fn an_error_of_any_call_loses_nothing() {
    live_with_each(&ERRORS.map(Some));
}
