//! Service code that crashes the process: a decision that overflows the stack, one that never
//! returns, and an apply that aborts. The test restarts the process as a supervisor would. Each
//! such command becomes a fault, the view is parked for the one log, and everything else continues.
//!
//! The engine runs in a child: this test binary, with the name of the test below, and a folder.

use std::fs;
use std::time::Duration;

use crate::{Config, Engine};
use fanfold::entry::Outcome;
use fanfold::{
    Code, Context, DocumentId, Documents, LogId, Recorded, RowKey, Seq, Service, Services, View,
    Views,
};
use fanfold_pipeline::read::Awaited;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::child;

/// The number of orgs, each with three commands.
const ORGS: u64 = 20;
/// The orgs whose second command crashes the process.
const OVERFLOWS: u64 = 7;
const LOOPS: u64 = 9;
const ABORTS: u64 = 11;
/// The largest number of starts until all work is done: the first, two that crash at the same
/// place, then two for the view and two for each command. Some more for checkpoints in between.
const STARTS_MAX: usize = 16;
const WAIT_MS: u64 = 20_000;

struct Lethal;

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
enum Command {
    Note {},
    /// Its decision overflows the stack.
    Overflow {},
    /// Its decision never returns.
    Loop {},
    /// Its event makes the view `notes` abort the process.
    Abort {},
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Event {
    Noted,
    Lethal,
}

#[derive(Debug, thiserror::Error)]
enum Never {}

impl Code for Never {
    fn code(&self) -> &'static str {
        match *self {}
    }
}

const EVENTS: &[(&str, u32)] = &[("noted", 1), ("lethal", 1)];

impl Service for Lethal {
    const NAME: &'static str = "lethal";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = EVENTS;
    type Command = Command;
    type Event = Event;
    type Document = u64;
    type Rejection = Never;

    fn documents(_: &Command) -> Vec<DocumentId> {
        vec!["notes".parse().expect("a name")]
    }

    fn init(_: &DocumentId) -> u64 {
        0
    }

    fn decide(
        _: &Documents<'_, u64>,
        command: &Command,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Event)>, Never> {
        let event = match command {
            Command::Note {} => Event::Noted,
            Command::Overflow {} => {
                deeper(1);
                Event::Noted
            }
            Command::Loop {} => loop {
                std::thread::sleep(Duration::from_millis(10));
            },
            Command::Abort {} => Event::Lethal,
        };
        Ok(vec![("notes".parse().expect("a name"), event)])
    }

    fn evolve(notes: &mut u64, _: &Event) {
        *notes += 1;
    }
}

/// Recurses until the stack overflows.
#[expect(unconditional_recursion, reason = "it is to overflow the stack")]
fn deeper(depth: u64) -> u64 {
    let frame = std::hint::black_box([depth; 64]);
    deeper(frame[0] + 1) + frame[1]
}

/// Counts events. `notes` aborts the process on the event `Lethal`, and `counts` does not.
struct Counter<const IS_LETHAL: bool>;

impl<const IS_LETHAL: bool> View for Counter<IS_LETHAL> {
    const NAME: &'static str = if IS_LETHAL { "notes" } else { "counts" };
    const VERSION: u32 = 1;
    const SERVICES: &'static [&'static str] = &[Lethal::NAME];
    const EVENTS: &'static [(&'static str, u32)] = EVENTS;
    type Event = Event;
    type Row = u64;

    fn rows(entry: &Recorded<Event>) -> Vec<RowKey> {
        entry.events().iter().map(|(document, _)| document.into()).collect()
    }

    fn apply(row: Option<u64>, _: &RowKey, entry: &Recorded<Event>) -> Option<u64> {
        if IS_LETHAL && entry.events().iter().any(|(_, event)| matches!(event, Event::Lethal)) {
            std::process::abort();
        }
        Some(row.unwrap_or(0) + entry.events().len() as u64)
    }
}

fn log(org: u64) -> LogId {
    format!("lethal/org:{org}").parse().expect("a log")
}

/// Sends all commands at the first start. Waits for their entries and rows, and checks them.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs in a child that crashes"]
async fn lethal_child() {
    let Some(folder) = child::folder() else { return };
    let config = Config {
        services: Services::new().with::<Lethal>(),
        views: Views::new().with::<Counter<true>>().with::<Counter<false>>(),
        drain_ms: WAIT_MS,
        // Short, as all other invocations take milliseconds.
        hang_ms: 1_000,
        ..Config::default()
    };
    let engine = Engine::open(config, &folder.join("data")).expect("the folder opens");
    let sent = folder.join("sent");
    if !sent.exists() {
        // All at once, so that all commands are accepted before one of them crashes the process.
        let command = |org, id| match (org, id) {
            (OVERFLOWS, 2) => "overflow",
            (LOOPS, 2) => "loop",
            (ABORTS, 2) => "abort",
            _ => "note",
        };
        let requests = (0..ORGS).flat_map(|org| (1..=3).map(move |id| (org, id)));
        let requests: Vec<String> = requests
            .map(|(org, id)| {
                let command = command(org, id);
                format!(r#"{{"type":"lethal","command":"{command}","id":{id},"user":"ann","org":"{org}"}}"#)
            })
            .collect();
        fs::write(&sent, "").expect("a file");
        let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        for answer in engine.ingest().ingest(&requests).await {
            answer.expect("it is accepted");
        }
    }
    assert!(engine.recovered().await, "everything is done again");
    for org in 0..ORGS {
        let log = log(org);
        for seq in 1..=3 {
            let entry = engine.reads().entry(&log, Seq(seq), WAIT_MS).await.expect("an answer");
            let Awaited::Ready(entry) = entry else { panic!("{log} has no entry {seq}") };
            match (org, seq, &entry.outcome) {
                (OVERFLOWS | LOOPS, 2, Outcome::Faulted { .. }) => {}
                (_, _, Outcome::Accepted(_)) => {}
                (_, _, outcome) => panic!("{log} {seq}: {outcome:?}"),
            }
        }
        let faulted = u64::from(org == OVERFLOWS || org == LOOPS);
        for (view, expected) in [("counts", 3 - faulted), ("notes", 3 - faulted)] {
            let rows = engine
                .reads()
                .row(view, &log, &"notes".parse().expect("a key"), Some(Seq(3)), WAIT_MS)
                .await
                .expect("an answer");
            match (view, org, rows) {
                ("notes", ABORTS, Awaited::Pending { seq, parked: Some(parked) }) => {
                    // The view is parked at its cursor, which is before the entry that aborts.
                    assert!(seq < Seq(2) && parked.seq == seq.next(), "at {seq}: {parked:?}");
                    assert!(parked.reason.contains("the process ended"), "{}", parked.reason);
                }
                (_, _, Awaited::Ready(page)) => {
                    assert_eq!(page.rows[0].body, expected.to_string(), "{view} of {log}");
                }
                (_, _, Awaited::Pending { seq, parked }) => {
                    panic!("{view} of {log} is at {seq}: {parked:?}")
                }
            }
        }
    }
    assert!(engine.shutdown().await, "it ends properly");
}

#[test]
fn code_that_crashes_the_process_is_isolated_and_all_else_continues() {
    let folder = tempfile::tempdir().expect("a folder");
    for (crashes, start) in (1..=STARTS_MAX).enumerate() {
        let child = child::run("tests::lethal::lethal_child", folder.path());
        if child.status.success() {
            assert!(crashes >= 3, "three commands crash the process: {crashes} crashes");
            println!("all work was done after start {start}");
            return;
        }
        // Fails if the child failed an assertion: only a signal is a crash.
        let stderr = String::from_utf8_lossy(&child.stderr);
        assert_eq!(child.status.code(), None, "start {start} was not killed: {stderr}");
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("the process still crashes after {STARTS_MAX} starts");
}
