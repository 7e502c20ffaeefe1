//! The cost of a command, in DynamoDB's units and in messages. The meter counts it over the real stages
//! and tables, so it is exact, and each bound is a test. These tests print the table of
//! `docs/costs.md`: `cargo test -p fanfold-aws --test it capacity -- --nocapture --test-threads 1`.

use bytes::Bytes;
use fanfold::Views;
use fanfold::host::body::notification::Message;
use fanfold_aws::meter::Usage;
use futures::stream::{self, StreamExt};
use ledger::views::Balances;

use crate::dynamo::Dynamo;
use crate::pipeline::{NEVER, Pipeline};
use crate::relaying::services;

/// The users of these tests. Each has one account.
const USERS: u64 = 1_000;

/// Calls at the same time. It does not change any count.
const AT_ONCE: usize = 16;

/// How commands are spread over logs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Logs {
    /// Each user has a log.
    OfUsers,
    /// All users belong to one organisation, and share its log.
    OfOneOrg,
}

struct Bench {
    dynamo: Dynamo,
    pipeline: Pipeline,
    logs: Logs,
    /// Commands sent by each user.
    ids: Vec<u64>,
}

impl Bench {
    /// A bench in which every account is open.
    async fn new(logs: Logs) -> Self {
        let dynamo = Dynamo::start().await;
        let pipeline = Pipeline::new(&dynamo.aws, &dynamo.tables, services());
        let mut bench = Self { dynamo, pipeline, logs, ids: vec![0; USERS as usize] };
        bench.send_together(0..USERS).await;
        bench.pipeline.process().await;
        bench
    }

    /// Replaces the processor with one whose cache is empty.
    fn forget(&mut self) {
        self.pipeline.processor = self.pipeline.wiring.processor(services());
    }

    /// The user's next command: the first opens the account, all others deposit into it.
    fn command(&mut self, user: u64) -> String {
        let id = &mut self.ids[user as usize];
        *id += 1;
        let org = match self.logs {
            Logs::OfUsers => "",
            Logs::OfOneOrg => r#","org":"acme""#,
        };
        let (command, amount) = match *id {
            1 => ("open", String::new()),
            n => ("deposit", format!(r#","amount":{}"#, 1 + n * 37 % 500)),
        };
        let timestamp = 1_795_401_660_000 + *id * 1_000;
        format!(
            r#"{{"type":"ledger","command":"{command}","id":{id},"timestamp":{timestamp},"user":"user-{user}"{org},"data":{{"account":"account-{user}"{amount}}}}}"#,
        )
    }

    /// Sends one request, which must be accepted.
    async fn send(&self, commands: &[String]) {
        let answers = self.pipeline.send(commands).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    /// Sends a command of each user, each in a request of its own.
    async fn send_alone(&mut self, users: impl Iterator<Item = u64>) {
        let commands: Vec<String> = users.map(|user| self.command(user)).collect();
        let sent = stream::iter(&commands).map(|command| self.send(std::slice::from_ref(command)));
        sent.buffer_unordered(AT_ONCE).collect::<()>().await;
    }

    /// Sends a command of each user, in requests of 100.
    async fn send_together(&mut self, users: impl Iterator<Item = u64>) {
        let commands: Vec<String> = users.map(|user| self.command(user)).collect();
        for commands in commands.chunks(100) {
            self.send(commands).await;
        }
    }

    fn spent(&self) -> Usage {
        self.pipeline.aws.meter.snapshot()
    }

    /// The write and read units per command that were spent since `before`. Prints them.
    fn per_command(&self, what: &str, before: &Usage, commands: u64) -> [f64; 2] {
        let spent = self.spent() - before;
        let tables = &self.dynamo.tables;
        let each = |units: f64| units / commands as f64;
        let [slot, journal, state] = [tables.commands(), tables.journal(), tables.state()]
            .map(|table| each(spent.of(&table).write));
        let total = spent.total();
        let (written, read) = (each(total.write), each(total.read));
        println!(
            "{what}: {written:.3} write units (slot {slot:.3}, journal {journal:.3}, state \
             {state:.3}), {read:.3} read units"
        );
        assert_eq!(total.conflicts, 0.0, "there is no other writer");
        [written, read]
    }

    /// The write units of snapshots per entry, measured from one snapshot of the organisation's log to
    /// the next.
    async fn snapshots_per_entry(&mut self) -> f64 {
        let state = self.dynamo.tables.state();
        let (mut written, mut entries) = (None, 0);
        // No log has this many entries between two snapshots.
        for _ in 0..2 * fanfold::host::limits::SNAPSHOT_ENTRIES_MAX.get() as u64 / USERS {
            let before = self.spent();
            self.send_together(0..USERS).await;
            self.pipeline.process().await;
            entries += USERS;
            let units = (self.spent() - &before).of(&state).write;
            match written {
                _ if units == 0.0 => {}
                None => (written, entries) = (Some(units), 0),
                Some(_) => {
                    println!("a snapshot of {units} units after {entries} entries");
                    return units / entries as f64;
                }
            }
        }
        panic!("no snapshot is ever taken");
    }
}

/// Commands in requests of their own, with a warm processor, from the request to the published entry.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_lone_commands_in_logs_of_users() {
    const ROUNDS: u64 = 12;
    let mut bench = Bench::new(Logs::OfUsers).await;
    // Spreads the logs evenly over the distance between two snapshots.
    for age in 0..24 {
        bench.send_together((0..USERS).filter(|user| user % 24 > age)).await;
        bench.pipeline.process().await;
    }
    let before = bench.spent();
    for _ in 0..ROUNDS {
        bench.send_alone(0..USERS).await;
        bench.pipeline.process().await;
    }
    let what = "a lone command, a log for each user";
    let [written, read] = bench.per_command(what, &before, ROUNDS * USERS);
    assert!(written <= 2.3 && read <= 0.2, "{written} {read}");

    // The same logs, but every command loads its log.
    let before = bench.spent();
    for user in 0..USERS {
        bench.send_alone(std::iter::once(user)).await;
        bench.forget();
        bench.pipeline.process().await;
    }
    let what = "a lone command that finds a cold processor, a log for each user";
    let [written, read] = bench.per_command(what, &before, USERS);
    assert!(written <= 2.3 && read <= 3.0, "{written} {read}");
}

/// The cost of a command does not depend on its log's length.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_log_costs_as_much_as_a_short_one() {
    const USERS: std::ops::Range<u64> = 0..10;
    let mut bench = Bench::new(Logs::OfUsers).await;
    let mut costs = Vec::new();
    for length in [50, 2_000] {
        while bench.ids[0] < length {
            bench.send_together(USERS).await;
            bench.pipeline.process().await;
        }
        let before = bench.spent();
        // Enough commands for several snapshots.
        for _ in 0..60 {
            for user in USERS {
                bench.send_alone(std::iter::once(user)).await;
                bench.forget();
                bench.pipeline.process().await;
            }
        }
        let what = format!("a lone command, cold, on logs of {length} entries");
        costs.push(bench.per_command(&what, &before, 60 * 10));
    }
    let [short, long] = costs[..] else { panic!("two lengths") };
    // Numbers get one digit longer, which moves the snapshots by an entry.
    assert!(long[0] <= short[0] + 0.05 && long[1] <= short[1] + 0.1, "{short:?} {long:?}");
}

/// All users in one log: commands alone, ten in a batch of the processor, and in requests of 100.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cost_of_commands_of_a_thousand_users_in_one_log() {
    let mut bench = Bench::new(Logs::OfOneOrg).await;
    let before = bench.spent();
    for user in 0..USERS {
        bench.send_alone(std::iter::once(user)).await;
        bench.pipeline.process().await;
    }
    let [alone, read] = bench.per_command("a lone command, one log of all users", &before, USERS);
    assert!(read <= 0.2, "{read}");

    // A cold load reads what changed since the last snapshot: here all accounts, and a thousand commits.
    bench.forget();
    let before = bench.spent();
    bench.send_alone(std::iter::once(0)).await;
    bench.pipeline.process().await;
    let what = "a lone command that finds a cold processor, one log of all users";
    let [_, read] = bench.per_command(what, &before, 1);
    assert!(read <= 1_100.0, "{read}");

    let before = bench.spent();
    for ten in 0..USERS / 10 {
        bench.send_alone(10 * ten..10 * (ten + 1)).await;
        bench.pipeline.process().await;
    }
    let [by_ten, read] = bench.per_command("ten decided together, one log", &before, USERS);
    assert!(read <= 0.2, "{read}");

    let before = bench.spent();
    for _ in 0..10 {
        for hundred in 0..USERS / 100 {
            bench.send_together(100 * hundred..100 * (hundred + 1)).await;
            bench.pipeline.process().await;
        }
    }
    let [by_hundred, read] = bench.per_command("a request of 100, one log", &before, 10 * USERS);
    assert!(read <= 0.2, "{read}");

    // The measured part may contain a whole snapshot or none, so snapshots count by their share.
    let snapshots = bench.snapshots_per_entry().await;
    println!("snapshots of the one log: {snapshots:.3} write units per entry");
    for (cost, bound) in [(alone, 2.3), (by_ten, 1.3), (by_hundred, 0.15)] {
        assert!(cost + snapshots <= bound, "{cost} + {snapshots}");
    }

    bench.forget();
    let before = bench.spent();
    bench.send_together(0..USERS).await;
    bench.pipeline.process().await;
    let what = "a thousand commands that find a cold processor, one log";
    let [_, read] = bench.per_command(what, &before, USERS);
    assert!(read <= 3.0, "{read}");
}

/// A hundred quiet tenants in one batch of the stream cause few messages, and so few invocations of a
/// view.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quiet_tenants_share_messages() {
    let mut bench = Bench::new(Logs::OfUsers).await;
    let view = Views::new().with::<Balances>().iter().next().expect("a view").clone();
    let projector = bench.pipeline.projector(view);
    let project = async |messages: Vec<Message>| {
        let bodies: Vec<Bytes> = messages.into_iter().map(|message| message.body.into()).collect();
        assert_eq!(projector.project(&bodies, NEVER).await, Vec::<usize>::new());
    };
    let (_, opened) = bench.pipeline.published.take();
    project(opened).await;
    bench.send_alone(0..100).await;
    bench.pipeline.process().await;
    let (calls, messages) = bench.pipeline.published.take();
    println!("100 quiet tenants: {} message(s) in {calls} call(s)", messages.len());
    assert!(messages.len() as f64 / 100.0 <= 0.05, "{}", messages.len());

    // A view pays for them, too: it reads and writes the row and the cursor.
    let before = bench.spent();
    project(messages).await;
    let spent = (bench.spent() - &before).total();
    println!("a view: {} write units and {} read units for 100 commands", spent.write, spent.read);
    assert!(spent.write <= 200.0 && spent.read <= 200.0, "{spent:?}");
}
