//! A drill: under load, the commands table is put back to an older state, and mended. The journal, the streams and the
//! clients know more than the table then.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanfold::entry::Outcome;
use fanfold::{LogId, Seq};
use fanfold_pipeline::doctor::{Ailment, Depth, Doctor};
use fanfold_pipeline::operate::Done;
use fanfold_pipeline::ports::{Commands, Env, Slot};
use serde_json::json;

use crate::check::{play, seeds};
use crate::operate::{drain, on_the_way, operate};
use crate::world::{NEVER, World, log, services, views};

const HOUR_MS: u64 = 3_600_000;
/// Rounds of raising and resuming. Two suffice: a slot is behind again only because of commands that were on their way.
const ROUNDS_MAX: usize = 5;

/// A client that numbers its commands, and keeps all that were answered with a receipt.
#[derive(Default)]
struct Client {
    last_id: u64,
    answered: BTreeSet<(LogId, u64)>,
}

impl Client {
    async fn send(&mut self, world: &World, log: &LogId, commands: u64) {
        let ids = self.last_id + 1..=self.last_id + commands;
        self.last_id += commands;
        self.send_ids(world, log, ids).await;
    }

    /// Sends the commands with these ids in one request, new ones or again.
    async fn send_ids(&mut self, world: &World, log: &LogId, ids: impl IntoIterator<Item = u64>) {
        let org = log.partition().strip_prefix("org:").expect("an org's log");
        let data = json!({"counter": "a", "by": 1});
        let request = |id: &u64| {
            let request = json!({"type": log.service(), "command": "add", "id": id, "user": "ann", "org": org, "data": data});
            request.to_string()
        };
        let ids: Vec<u64> = ids.into_iter().collect();
        let requests: Vec<String> = ids.iter().map(request).collect();
        let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        let answers = world.ingest().ingest(&requests).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        self.answered.extend(ids.into_iter().map(|id| (log.clone(), id)));
    }
}

/// The logs of the journal whose slots are behind. Nothing else may be wrong with any log, but that views, which the
/// drill does not run, are behind, and that something waits.
async fn behind(world: &World) -> BTreeSet<LogId> {
    let doctor = Doctor::new(world.operated(), services(), views());
    let page = doctor.page_of_journal(None, 50, Depth::All).await.expect("memory");
    let mut behind = BTreeSet::new();
    for examined in page.logs {
        for finding in examined.findings.iter().filter(|finding| finding.view.is_none()) {
            assert_eq!(finding.what, Ailment::SlotBehind, "{}: {}", examined.log, finding.detail);
            behind.insert(examined.log.clone());
        }
    }
    behind
}

/// Raises the slots that are behind, and lets commands in conflict go on; returns the logs that were raised and the number
/// of commands.
async fn mend(world: &World) -> (BTreeSet<LogId>, usize) {
    let operate = operate(world);
    let behind = behind(world).await;
    for log in &behind {
        let done = operate.raise(log).await.expect("memory");
        assert!(matches!(done, Done::Raised { .. }), "{log}: {done:?}");
    }
    let waiting = operate.waiting(None, None, 1_000).await.expect("memory").items;
    for item in &waiting {
        assert_eq!(format!("{:?}", item.reason), "Conflict", "{} of {}", item.seq, item.log);
        let done = operate.resume(&item.log, item.seq, Some(&item.identity)).await;
        assert!(matches!(done.expect("memory"), Done::Accepted(_)));
    }
    (behind, waiting.len())
}

/// Relays and processes, until nothing is on its way.
struct Stages {
    relayed: usize,
    processed: usize,
}

impl Stages {
    async fn drain(&mut self, world: &World) {
        drain(world, (self.relayed, self.processed)).await;
        (self.relayed, self.processed) = on_the_way(world);
    }

    /// Brings what was accepted to the command stream, and leaves it there.
    async fn relay(&mut self, world: &World) {
        let changes = world.changes();
        world.relay().relay(&changes[self.relayed..], NEVER).await;
        self.relayed = changes.len();
    }
}

async fn slot(world: &World, log: &LogId) -> Option<Slot> {
    world.memory.commands.slot(log).await.expect("memory")
}

#[test]
fn a_restored_commands_table_is_mended_without_a_loss() {
    play(async || seeds(40, drill).await);
}

async fn drill(seed: u64) {
    let old = World::seeded(seed);
    let pick = |below: u64| old.env.random() % below;
    let logs = ["a", "b", "c", "d", "e"].map(|name| log(&format!("tally/org:{name}")));
    let (mut client, mut stages) = (Client::default(), Stages { relayed: 0, processed: 0 });
    for log in &logs[..2] {
        client.send(&old, log, 1 + pick(4)).await;
    }
    stages.drain(&old).await;
    let mut kept: Vec<(LogId, Slot)> = Vec::new();
    for log in &logs[..2] {
        kept.push((log.clone(), slot(&old, log).await.expect("a slot")));
    }
    // Load goes on, in new logs, too. The last commands are on the command stream when the table is put back.
    for log in &logs[..3] {
        client.send(&old, log, 1 + pick(4)).await;
    }
    stages.drain(&old).await;
    for log in &logs[1..4] {
        client.send(&old, log, pick(4)).await;
    }
    stages.relay(&old).await;
    let world: Arc<World> = old.with_slots(&kept).await;
    stages.relayed = world.changes().len();
    let is_mended_at_once = pick(2) == 0;
    let mut raised = BTreeSet::new();
    if is_mended_at_once {
        raised.extend(mend(&world).await.0);
        assert_eq!(raised, logs[..3].iter().cloned().collect(), "all whose entries are newer");
    }
    // Clients go on before an operator has seen anything, or before what was on its way has arrived.
    for log in &logs {
        client.send(&world, log, pick(5)).await;
    }
    let mut rounds = 0;
    loop {
        stages.drain(&world).await;
        let (behind, resumed) = mend(&world).await;
        if behind.is_empty() && resumed == 0 {
            break;
        }
        raised.extend(behind);
        rounds += 1;
        assert!(rounds <= ROUNDS_MAX, "it is not mended after {ROUNDS_MAX} rounds");
    }
    assert!(rounds > 0 || is_mended_at_once, "something was to be mended");
    // Commands that were answered are sent again, and new ones.
    let answered: Vec<(LogId, u64)> = client.answered.iter().cloned().collect();
    for (log, id) in answered {
        client.send_ids(&world, &log, [id]).await;
    }
    for log in &logs {
        client.send(&world, log, 1 + pick(3)).await;
    }
    stages.drain(&world).await;
    world.env.pass(HOUR_MS);
    assert_eq!(behind(&world).await, BTreeSet::new());
    audit(&world, &logs, &client).await;
}

/// Every command that was answered has exactly one entry, beside duplicates. No log stands still.
async fn audit(world: &World, logs: &[LogId], client: &Client) {
    for log in logs {
        world.audit(log).await;
        let entries = world.entries(log).await;
        let tail = entries.last().map_or(Seq::ZERO, |entry| entry.seq);
        assert_eq!(slot(world, log).await.map(|slot| slot.seq), Some(tail), "{log} stands still");
        assert_eq!(world.parked(log).await, [] as [String; 0], "{log}");
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        for entry in &entries {
            match &entry.outcome {
                Outcome::Accepted(_) => *counts.entry(entry.id.get()).or_default() += 1,
                Outcome::Duplicate { .. } => {}
                other => panic!("{log} {}: {other:?}", entry.seq),
            }
        }
        let of_log = client.answered.iter().filter(|(of, _)| of == log);
        let expected: BTreeMap<u64, usize> = of_log.map(|(_, id)| (*id, 1)).collect();
        assert_eq!(counts, expected, "the accepted commands of {log}");
    }
}
