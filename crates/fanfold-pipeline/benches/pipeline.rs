//! What one command costs on its way from the request to the rows of three views, in one thread,
//! over the ports in memory: all of it, and stage by stage.
//!
//! `cargo bench -p fanfold-pipeline --bench pipeline`

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use divan::counter::ItemsCount;
use divan::{AllocProfiler, Bencher};
use fanfold::host::body::notification::ReceivedCommit;
use fanfold::{Services, Time, Views};
use fanfold_embedded::Shards;
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_embedded::testing::Position;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ingest::Ingest;
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::process::Processor;
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::relay::Relay;
use futures::executor::block_on;
use ledger::Ledger;
use ledger::views::{Balances, Statement, Totals};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Commands that one pass takes through the pipeline, and the logs that they are spread over.
const LOADS: [Load; 3] = [
    Load { commands: 1, logs: 1_000 },
    Load { commands: 100, logs: 1_000 },
    Load { commands: 1_000, logs: 100 },
];

const NEVER: Time = Time(u64::MAX);

#[derive(Debug, Clone, Copy)]
struct Load {
    commands: u64,
    logs: u64,
}

impl std::fmt::Display for Load {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {} logs", self.commands, self.logs)
    }
}

#[derive(Default)]
struct BenchEnv(AtomicU64);

#[async_trait]
impl Env for BenchEnv {
    fn now(&self) -> Time {
        Time(1_795_401_660_123)
    }

    fn random(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    async fn sleep(&self, _: u64) {}
}

/// The pipeline, with what lies between its stages.
struct World {
    load: Load,
    sent: u64,
    ports: Ports,
    ingest: Ingest,
    relay: Relay,
    processor: Processor,
    projectors: Vec<Projector>,
    published: Position,
}

impl World {
    /// Every account is open, and has been used.
    fn new(load: Load) -> RefCell<Self> {
        let env: Arc<dyn Env> = Arc::new(BenchEnv::default());
        let services = Services::new().with::<Ledger>();
        let views = Views::new().with::<Balances>().with::<Statement>().with::<Totals>();
        let names = views.iter().map(|view| view.name());
        let ports = Ports::in_memory(&TransitConfig::default(), names, env.clone()).expect("ports");
        let wiring = ports.wiring(env);
        let mut world = Self {
            load: Load { commands: 2 * load.logs, ..load },
            sent: 0,
            ingest: wiring.ingest(services.clone()),
            relay: wiring.relay(),
            processor: wiring.processor(services),
            projectors: views.iter().map(|view| wiring.projector(view)).collect(),
            published: Position::START,
            ports,
        };
        for _ in 0..3 {
            let requests = world.requests();
            world.pass(&requests);
        }
        world.load = load;
        RefCell::new(world)
    }

    fn requests(&mut self) -> Vec<String> {
        let sent = self.sent..self.sent + self.load.commands;
        self.sent = sent.end;
        sent.map(|n| {
            let (org, id) = (n % self.load.logs, n / self.load.logs + 1);
            let (command, data) = match id {
                1 => ("open", r#"{"account":"cash"}"#.to_owned()),
                2 => ("open", r#"{"account":"bank"}"#.to_owned()),
                id if id % 4 == 0 => {
                    ("transfer", format!(r#"{{"from":"cash","to":"bank","amount":{}}}"#, id % 9 + 1))
                }
                id => ("deposit", format!(r#"{{"account":"cash","amount":{}}}"#, id * 100)),
            };
            format!(
                r#"{{"type":"ledger","command":"{command}","id":{id},"timestamp":1795401660000,"user":"user-7","org":"org-{org:04}","data":{data}}}"#
            )
        })
        .collect()
    }

    fn ingest(&self, requests: &[String]) {
        let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        let answers = block_on(self.ingest.ingest(&requests));
        assert!(answers.iter().all(Result::is_ok), "{:?}", answers.first());
    }

    fn relay(&self) {
        take(self.ports.commands.changes(), |changes| block_on(self.relay.relay(&changes, NEVER)));
    }

    fn process(&self) {
        take(self.ports.stream.records(), |records| {
            block_on(self.processor.process(&records, NEVER))
        });
    }

    fn project(&mut self) {
        let messages = self.ports.topic.log().read(self.published, usize::MAX);
        for projector in &self.projectors {
            let commits: Vec<&[ReceivedCommit]> =
                messages.iter().map(|(_, message)| &message.commits[..]).collect();
            let failed = block_on(projector.project_commits(&commits, NEVER));
            assert!(failed.is_empty(), "nothing fails here");
        }
        self.published = self.ports.topic.log().end();
        self.ports.topic.log().trim(self.published);
    }

    #[inline(never)]
    fn pass(&mut self, requests: &[String]) {
        self.ingest(requests);
        self.relay();
        self.process();
        self.project();
    }
}

/// Runs a stage over the items in the shards, a batch per shard.
fn take<T: Clone>(shards: &Shards<T>, stage: impl Fn(Vec<T>) -> BatchOutcome) {
    for (_, shard) in shards.iter() {
        let items = shard.read(shard.start(), usize::MAX);
        if !items.is_empty() {
            let items = items.into_iter().map(|(_, item)| item).collect();
            assert_eq!(stage(items), BatchOutcome::DONE, "nothing fails here");
            shard.trim(shard.end());
        }
    }
}

fn main() {
    divan::main();
}

#[divan::bench(args = LOADS)]
fn whole(bencher: Bencher<'_, '_>, load: Load) {
    let world = World::new(load);
    bencher
        .counter(ItemsCount::new(load.commands))
        .with_inputs(|| world.borrow_mut().requests())
        .bench_local_values(|requests| world.borrow_mut().pass(&requests));
}

/// One stage, after those before it have done their part.
fn stage(bencher: Bencher<'_, '_>, load: Load, before: fn(&mut World), timed: fn(&mut World)) {
    let world = World::new(load);
    bencher
        .counter(ItemsCount::new(load.commands))
        .with_inputs(|| {
            let mut world = world.borrow_mut();
            world.pass(&[]);
            let requests = world.requests();
            world.ingest(&requests);
            before(&mut world);
        })
        .bench_local_values(|()| timed(&mut world.borrow_mut()));
}

#[divan::bench(args = LOADS)]
fn ingest(bencher: Bencher<'_, '_>, load: Load) {
    let world = World::new(load);
    bencher
        .counter(ItemsCount::new(load.commands))
        .with_inputs(|| {
            let mut world = world.borrow_mut();
            world.pass(&[]);
            world.requests()
        })
        .bench_local_values(|requests| world.borrow().ingest(&requests));
}

#[divan::bench(args = LOADS, sample_size = 1)]
fn relay(bencher: Bencher<'_, '_>, load: Load) {
    stage(bencher, load, |_| {}, |world| world.relay());
}

#[divan::bench(args = LOADS, sample_size = 1)]
fn process(bencher: Bencher<'_, '_>, load: Load) {
    stage(bencher, load, |world| world.relay(), |world| world.process());
}

#[divan::bench(args = LOADS, sample_size = 1)]
fn project(bencher: Bencher<'_, '_>, load: Load) {
    let before = |world: &mut World| {
        world.relay();
        world.process();
    };
    stage(bencher, load, before, World::project);
}
