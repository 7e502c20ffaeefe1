//! Commands per second through ingest, processor and one view, on the tables of DynamoDB's emulator
//! in a process of its own. The change stream, the command stream and the topic are in memory, as
//! for the alternative in `docs/performance.md`.
//!
//! `cargo run --release -p fanfold-aws --example throughput`

#[path = "../tests/it/pipeline.rs"]
mod pipeline;
#[path = "../tests/it/schema.rs"]
mod schema;

use std::collections::HashMap;
use std::env;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use fanfold::{LogId, Seq, Services, Views};
use fanfold_aws::names::Tables;
use fanfold_aws::{Aws, of_emulator};
use fanfold_pipeline::ports::Change;
use fanfold_pipeline::project::Projector;
use ledger::Ledger;
use ledger::views::Balances;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};

use pipeline::{NEVER, Pipeline};
use schema::make_tables;

/// Commands in flight, as for the alternative.
const IN_FLIGHT: u64 = 32;
const ACCOUNTS: u64 = 1_000;
const COMMANDS: u64 = 20_000;
/// Shards of the command stream, each with a processor and a view builder.
const SHARDS: usize = 4;
const RUNS: usize = 3;
/// A command that takes longer counts as lost, since the emulator answers within milliseconds.
const PATIENCE: Duration = Duration::from_secs(30);

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    if env::args().nth(1).as_deref() == Some("serve") {
        return runtime.block_on(serve());
    }
    for has_view in [false, true] {
        let mut rates: Vec<u64> = (0..RUNS).map(|_| runtime.block_on(run(has_view))).collect();
        rates.sort_unstable();
        let view = if has_view { "with one view" } else { "without a view" };
        println!("{view}: {} commands/s, median of {rates:?}", rates[RUNS / 2]);
    }
}

/// Runs the emulator until the process is killed.
async fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    println!("{}", listener.local_addr().expect("its address"));
    dynoxide::server::serve_on(listener, dynoxide::Database::memory().expect("a database")).await;
}

/// The emulator's process. Dropping it kills the process.
struct Server(Child);

impl Server {
    fn start() -> (Self, String) {
        let program = env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .arg("serve")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the emulator starts");
        let mut address = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut address).expect("its address");
        (Self(child), format!("http://{}", address.trim()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn aws(endpoint: &str) -> Aws {
    let http = aws_smithy_http_client::Builder::new().build_http();
    Aws::new(&of_emulator(endpoint).into_builder().http_client(http).build())
}

/// The waiters by command; `None` means that the command was done before its client waited.
#[derive(Default)]
struct Waiting(Mutex<HashMap<(LogId, Seq), Waiter>>);

type Waiter = Option<oneshot::Sender<()>>;

impl Waiting {
    async fn until(&self, log: LogId, seq: Seq) {
        let (done, is_done) = oneshot::channel();
        let at = (log, seq);
        {
            let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.remove(&at).is_some() {
                return;
            }
            waiting.insert(at, Some(done));
        }
        is_done.await.expect("the stages go on");
    }

    fn done(&self, changes: Vec<Change>) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for Change { log, last, n, .. } in changes {
            for seq in last.0 + 1 - n..=last.0 {
                let at = (log.clone(), Seq(seq));
                match waiting.remove(&at).flatten() {
                    Some(done) => _ = done.send(()),
                    None => _ = waiting.insert(at, None),
                }
            }
        }
    }
}

/// The stages of all shards, with the signals that wake them.
struct Line {
    shards: Vec<Pipeline>,
    projectors: Vec<Projector>,
    arrived: Vec<Notify>,
    waiting: Waiting,
    hash: RandomState,
}

/// Makes one run; returns the commands per second. Each client waits until its command is done.
async fn run(has_view: bool) -> u64 {
    let (_server, endpoint) = Server::start();
    let (aws, tables) = (aws(&endpoint), Tables::new("throughput"));
    make_tables(&aws.dynamodb, &tables).await;
    let shards: Vec<Pipeline> = (0..SHARDS)
        .map(|_| Pipeline::new(&aws, &tables, Services::new().with::<Ledger>()))
        .collect();
    let view = Views::new().with::<Balances>().iter().next().expect("a view").clone();
    let projectors =
        shards.iter().filter(|_| has_view).map(|pipeline| pipeline.projector(view.clone()));
    let line = Arc::new(Line {
        projectors: projectors.collect(),
        arrived: shards.iter().map(|_| Notify::new()).collect(),
        shards,
        waiting: Waiting::default(),
        hash: RandomState::new(),
    });
    let stages: Vec<_> = (0..SHARDS).map(|shard| tokio::spawn(work(line.clone(), shard))).collect();
    // Opens every account, which also warms everything.
    clients(&line, ACCOUNTS, open).await;
    let (began, before) = (Instant::now(), aws.meter.snapshot());
    clients(&line, COMMANDS, |n| deposit(n % ACCOUNTS, n / ACCOUNTS)).await;
    let rate = COMMANDS as f64 / began.elapsed().as_secs_f64();
    stages.iter().for_each(tokio::task::JoinHandle::abort);
    let calls = (aws.meter.snapshot() - &before).calls;
    let calls = calls.iter().map(|(call, n)| format!("{call} {:.2}", *n as f64 / COMMANDS as f64));
    println!("{rate:.0} commands/s; calls each: {}", calls.collect::<Vec<_>>().join(", "));
    rate as u64
}

fn open(account: u64) -> String {
    request(account, 1, "open", String::new())
}

/// A command of about 200 bytes, as for the alternative.
fn deposit(account: u64, round: u64) -> String {
    request(account, round + 2, "deposit", format!(r#","amount":{}"#, 1 + round % 500))
}

fn request(account: u64, id: u64, command: &str, amount: String) -> String {
    format!(
        r#"{{"type":"ledger","command":"{command}","id":{id},"timestamp":1795401660000,"user":"user-{account}","data":{{"account":"account-{account}"{amount}}}}}"#
    )
}

/// Sends `n` commands with [`IN_FLIGHT`] clients, each of which waits until its last one is done.
async fn clients(
    line: &Arc<Line>,
    n: u64,
    command: impl Fn(u64) -> String + Send + Sync + Copy + 'static,
) {
    let next = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..IN_FLIGHT)
        .map(|_| {
            let (line, next) = (line.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    if at >= n {
                        return;
                    }
                    line.send(at % ACCOUNTS, command(at)).await;
                }
            })
        })
        .collect();
    for client in clients {
        client.await.expect("the client ends");
    }
}

impl Line {
    async fn send(&self, account: u64, command: String) {
        let shard = (self.hash.hash_one(account) % SHARDS as u64) as usize;
        let pipeline = &self.shards[shard];
        let receipt = pipeline.send(&[command]).await.pop().expect("an answer").expect("a receipt");
        self.arrived[shard].notify_one();
        let done = self.waiting.until(receipt.log, receipt.seq);
        tokio::time::timeout(PATIENCE, done).await.expect("the command is done in time");
    }
}

/// Runs the stages of one shard, from the change stream on.
async fn work(line: Arc<Line>, shard: usize) {
    let pipeline = &line.shards[shard];
    loop {
        line.arrived[shard].notified().await;
        let done = pipeline.process().await;
        let (_, messages) = pipeline.published.take();
        if let Some(projector) = line.projectors.get(shard) {
            let bodies: Vec<Bytes> = messages.into_iter().map(|m| m.body.into()).collect();
            assert!(projector.project(&bodies, NEVER).await.is_empty(), "all are applied");
        }
        line.waiting.done(done);
    }
}
