//! The fixture of a test: the in-memory ports behind the fault layer, the stages over them, and the
//! checks of the results.

use std::sync::Arc;

use bytes::Bytes;
use fanfold::entry::{Event, Outcome, Raw};
use fanfold::host::body::lease::{ProcessorLease, Step};
use fanfold::host::body::notification;
use fanfold::host::body::parked::{Parked, Reason};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::{commit, slot};
use fanfold::host::canary::Canary;
use fanfold::{
    Command, CommandId, DocumentId, Entry, LogId, Name, Origin, Seq, Services, StateKey, Time,
    Views,
};
use fanfold_embedded::Shards;
use fanfold_embedded::TransitConfig;
use fanfold_embedded::testing::Ports;
use fanfold_embedded::testing::Position;
use fanfold_embedded::testing::StoredCommands;
use fanfold_embedded::testing::StoredView;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::calls::ViewCalls;
use fanfold_pipeline::conformance::WithBodies;
use fanfold_pipeline::ingest::Ingest;
use fanfold_pipeline::operate::OperatePorts;
use fanfold_pipeline::packing::PackingTopic;
use fanfold_pipeline::ports::{
    Append, Change, Commands, CommitItem, Cursor, Env, Journal, Nonce, OperatorView, ParkedTable,
    Row, RowRange, Slot, State, StateItem, Token, ViewTable,
};
use fanfold_pipeline::process::{Processor, ReceivedRecord};
use fanfold_pipeline::project::Projector;
use fanfold_pipeline::read::Reads;
use fanfold_pipeline::relay::Relay;
use fanfold_pipeline::sweep::{Sweep, ViewSweep};
use fanfold_pipeline::testing::{Faults, Faulty, ManualEnv, SentMessages};
use fanfold_pipeline::wiring::Wiring;
use ledger::Ledger;
use ledger::views::Balances;
use serde_json::{Value, json};

use crate::tally::{Resets, Sums, Tally};

/// A deadline that is never reached.
pub(crate) const NEVER: Time = Time(u64::MAX);

/// The time of a call in these tests, and the time until its lease expires: the call's deadline,
/// the host's grace, and the difference of clocks.
const CALL_MS: u64 = 60_000;
pub(crate) const LEASE_MS: u64 = CALL_MS + 10_000 + 5_001;

/// More items than a shard has.
const ALL: usize = usize::MAX;

/// The log of most tests.
pub(crate) fn acme() -> LogId {
    log("tally/org:acme")
}

pub(crate) fn log(name: &str) -> LogId {
    name.parse().expect("a log")
}

/// A command of a user.
pub(crate) fn command(user: &str, id: u64, name: &str, data: Value) -> Command {
    let user = Name::new(user).expect("a user");
    Command {
        origin: Origin::user(&user).expect("a user"),
        id: CommandId::new(id).expect("an id"),
        name: Name::new(name).expect("a command"),
        timestamp: None,
        trace: None,
        data: serde_json::value::to_raw_value(&data).expect("JSON"),
    }
}

/// The command `id` of ann, which adds one to the counter `a`.
pub(crate) fn add(id: u64) -> Command {
    command("ann", id, "add", json!({"counter": "a", "by": 1}))
}

/// Like [`add`], with so many bytes more.
pub(crate) fn padded(id: u64, bytes: usize) -> Command {
    command("ann", id, "add", json!({"counter": "a", "by": 1, "pad": "p".repeat(bytes)}))
}

/// Commands of ann whose ids are their seqs. Each adds one to one of three counters.
pub(crate) fn run(seqs: impl IntoIterator<Item = u64>) -> Vec<Command> {
    let counter = |seq: u64| ["a", "b", "c"][seq as usize % 3];
    let one = |seq| command("ann", seq, "add", json!({"counter": counter(seq), "by": 1}));
    seqs.into_iter().map(one).collect()
}

/// The body of a commit with one event on the counter `a`.
pub(crate) fn commit_of(seq: u64, kind: &str, version: u32, data: &Value) -> Vec<u8> {
    let Command { origin, id, name, .. } = add(seq);
    let event = Event {
        kind: Name::new(kind).expect("a kind"),
        version,
        document: DocumentId::new("a").expect("a document"),
        data: Raw(serde_json::value::to_raw_value(data).expect("JSON")),
    };
    let outcome = Outcome::Accepted(vec![event]);
    let (seq, time, command) = (Seq(seq), Time(0), Some(name));
    let entry = Entry { seq, time, origin, id, command, digest: None, trace: None, outcome };
    let mut payload = b"[".to_vec();
    commit::write_entry(&entry, &mut payload).expect("JSON");
    payload.push(b']');
    commit::seal(&payload)
}

pub(crate) fn services() -> Services {
    Services::new().with::<Tally>().with::<Ledger>().with::<Canary>()
}

pub(crate) fn views() -> Views {
    Views::new().with::<Sums>().with::<Resets>().with::<Balances>()
}

/// The ports and the stages of one test, in memory.
pub(crate) struct World {
    pub(crate) memory: Ports,
    /// The commands table of `memory`, with bodies in its slots, as on AWS.
    commands: Arc<WithBodies<StoredCommands>>,
    pub(crate) topics: Arc<SentMessages>,
    pub(crate) faults: Faults,
    pub(crate) env: Arc<ManualEnv>,
}

impl World {
    /// An empty world. In an `Arc`, since a test's hooks in the fault layer share it.
    pub(crate) fn new() -> Arc<Self> {
        Self::seeded(1)
    }

    /// An empty world with the randomness of `seed`.
    pub(crate) fn seeded(seed: u64) -> Arc<Self> {
        Self::laid_out(seed, 1)
    }

    /// An empty world with this number of topics.
    pub(crate) fn with_topics(topics: usize) -> Arc<Self> {
        Self::laid_out(1, topics)
    }

    fn laid_out(seed: u64, topics: usize) -> Arc<Self> {
        let faults = Faults::default();
        let env = ManualEnv::new(seed, &faults);
        let config = TransitConfig { shards: 1, ..TransitConfig::default() };
        let views = views();
        let names = views.iter().map(|view| view.name());
        let memory = Ports::in_memory(&config, names, Arc::clone(&env) as _).expect("ports");
        let commands = Arc::new(WithBodies::new(Arc::clone(&memory.commands)));
        Arc::new(Self { memory, commands, topics: SentMessages::new(topics), faults, env })
    }

    /// The same world with another commands table, which has these slots and no others. A table that is restored makes no
    /// changes for them; here they are the first ones of [`World::changes`].
    pub(crate) async fn with_slots(&self, slots: &[(LogId, Slot)]) -> Arc<Self> {
        let config = TransitConfig { shards: 1, ..TransitConfig::default() };
        let fresh = Ports::in_memory(&config, [], Arc::clone(&self.env) as _).expect("ports");
        for (log, slot) in slots {
            let Slot { seq, n, at, token, .. } = slot.clone();
            for (n, token) in [(seq.0 - n, Token(!token.0)), (n, token)] {
                let append = Append { n, body: Bytes::new(), at, token };
                if n > 0 {
                    fresh.commands.append(log, append).await.expect("memory");
                }
            }
        }
        let memory = Ports { commands: fresh.commands, ..self.memory.clone() };
        let commands = Arc::new(WithBodies::new(Arc::clone(&memory.commands)));
        let (topics, faults, env) = (self.topics.clone(), self.faults.clone(), self.env.clone());
        Arc::new(Self { memory, commands, topics, faults, env })
    }

    fn faulty<P: Send + Sync + 'static>(&self, memory: &Arc<P>) -> Arc<Faulty<P>> {
        Faulty::new(memory, &self.faults)
    }

    /// All ports, behind the fault layer.
    pub(crate) fn wiring(&self) -> Wiring {
        let Ports { admission, stream, journal, state, parked, .. } = &self.memory;
        let faulty = |(name, table): (&String, &Arc<StoredView>)| {
            (name.clone(), self.faulty(table) as Arc<dyn OperatorView>)
        };
        Wiring {
            commands: self.faulty(&self.commands),
            admission: self.faulty(admission),
            stream: self.faulty(stream),
            journal: self.faulty(journal),
            state: self.faulty(state),
            parked: self.faulty(parked),
            topic: Arc::new(PackingTopic::new(self.faulty(&self.topics), self.env.clone())),
            dead_letters: self.faulty(&self.memory.dead_letters),
            views: self.memory.views.iter().map(faulty).collect(),
            ..self.memory.wiring(self.env.clone())
        }
    }

    /// The ports of operators, behind the fault layer; but what is parked, and the views, without it.
    pub(crate) fn operated(&self) -> OperatePorts {
        let Ports { stream, journal, state, .. } = &self.memory;
        OperatePorts {
            commands: self.faulty(&self.commands),
            journal: self.faulty(journal),
            state: self.faulty(state),
            stream: self.faulty(stream),
            ..self.memory.operated(ViewCalls::End { within_ms: CALL_MS }, self.env.clone())
        }
    }

    // The stages, cold.

    pub(crate) fn ingest(&self) -> Ingest {
        self.wiring().ingest(services())
    }

    pub(crate) fn relay(&self) -> Relay {
        self.wiring().relay()
    }

    pub(crate) fn processor(&self) -> Processor {
        self.processor_of(services())
    }

    pub(crate) fn processor_of(&self, services: Services) -> Processor {
        self.wiring().processor(services)
    }

    /// A processor of another environment, without faults.
    pub(crate) fn elsewhere(&self) -> Processor {
        let topic = Arc::new(PackingTopic::new(self.topics.clone(), self.env.clone()));
        Wiring { topic, ..self.memory.wiring(self.env.clone()) }.processor(services())
    }

    pub(crate) fn table(&self, view: &str) -> &Arc<StoredView> {
        &self.memory.views[view]
    }

    pub(crate) fn projector(&self, view: &str) -> Arc<Projector> {
        self.projector_of(view, &views())
    }

    /// A projector of another build.
    pub(crate) fn projector_of(&self, view: &str, views: &Views) -> Arc<Projector> {
        Arc::new(self.wiring().projector(views.get(view).expect("a view")))
    }

    pub(crate) fn sweep(&self) -> Sweep {
        self.wiring().sweep()
    }

    pub(crate) fn view_sweep(&self, view: &str) -> ViewSweep {
        self.wiring().view_sweep(self.projector(view))
    }

    pub(crate) fn reads(&self) -> Reads {
        self.wiring().reads(&views(), services())
    }

    /// The deadline of a call that begins now.
    pub(crate) fn soon(&self) -> Time {
        self.env.now().plus_ms(CALL_MS)
    }

    // Input.

    /// A stream record that has just arrived, with commands from `first` on that were accepted now.
    pub(crate) fn record(&self, log: &LogId, first: u64, commands: &[Command]) -> ReceivedRecord {
        self.record_at(log, first, commands, self.env.now())
    }

    /// Like [`World::record`], accepted at another time.
    pub(crate) fn record_at(
        &self,
        log: &LogId,
        first: u64,
        commands: &[Command],
        at: Time,
    ) -> ReceivedRecord {
        let commands: Vec<&Command> = commands.iter().collect();
        let bodies = slot::encode(&commands).expect("JSON");
        let mut last = first - 1;
        let parts: Vec<Part<'_>> = bodies
            .iter()
            .map(|(n, body)| {
                last += *n as u64;
                Part { last: Seq(last), n: *n as u64, at, body }
            })
            .collect();
        let data = Record { log: log.clone(), parts }.encode().expect("JSON").into();
        ReceivedRecord { key: log.clone(), data, arrived: self.env.now() }
    }

    /// [`run`] as a record for [`acme`].
    pub(crate) fn acme(&self, seqs: std::ops::RangeInclusive<u64>) -> ReceivedRecord {
        self.record(&acme(), *seqs.start(), &run(seqs))
    }

    pub(crate) fn nudge(&self, log: &LogId) -> ReceivedRecord {
        let data = Record::nudge(log.clone()).encode().expect("JSON").into();
        ReceivedRecord { key: log.clone(), data, arrived: self.env.now() }
    }

    /// Lets another environment commit these commands, and returns the message.
    pub(crate) async fn commit(&self, log: &LogId, commands: &[Command]) -> Bytes {
        let first = self.tail(log).await.next().0;
        let record = self.record(log, first, commands);
        done(&self.elsewhere(), &[record]).await;
        self.messages().pop().expect("the commit was published")
    }

    /// Puts a commit into the journal of [`acme`] that this build did not write.
    pub(crate) async fn strange_commit(&self, first: u64, body: Vec<u8>) {
        let (first, body) = (Seq(first), body.into());
        let item = CommitItem { first, n: 1, at: Time(0), nonce: Nonce(1), body };
        self.memory.journal.append(&acme(), &item).await.expect("memory");
    }

    /// Accepts commands of ann for a log, each with its own id. No stage has processed them yet.
    pub(crate) async fn accept(&self, log: &LogId, commands: u64) {
        let known = self.memory.commands.slot(log).await.expect("memory");
        let known = known.map_or(0, |slot| slot.seq.0);
        let org = log.partition().strip_prefix("org:").expect("an org's log");
        let data = json!({"counter": "a", "by": 1});
        let requests: Vec<String> = (known + 1..=known + commands)
            .map(|id| {
                let request = json!({"type": log.service(), "command": "add", "id": id, "user": "ann", "org": org, "data": data});
                request.to_string()
            })
            .collect();
        let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
        let answers = self.ingest().ingest(&requests).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    }

    // Results.

    pub(crate) fn changes(&self) -> Vec<Change> {
        all(self.memory.commands.changes())
    }

    pub(crate) fn records(&self) -> Vec<ReceivedRecord> {
        all(self.memory.stream.records())
    }

    /// The bodies of all messages, in the order in which they were published.
    pub(crate) fn messages(&self) -> Vec<Bytes> {
        self.topics.all().into_iter().map(|(_, message)| message.body.into()).collect()
    }

    /// The published commits of a log, with repeats.
    pub(crate) fn published(&self, log: &LogId) -> Vec<(u64, u64)> {
        let messages = self.messages();
        let read = |body: &Bytes| notification::decode(std::str::from_utf8(body).expect("text"));
        let commits = messages.iter().flat_map(|body| read(body).expect("a batch"));
        commits.filter(|c| c.log == *log).map(|c| (c.first.0, c.last.0)).collect()
    }

    pub(crate) async fn tail(&self, log: &LogId) -> Seq {
        self.memory.journal.tail(log).await.expect("memory")
    }

    pub(crate) async fn commits(&self, log: &LogId) -> Vec<CommitItem> {
        self.memory.journal.read(log, Seq(1), ALL).await.expect("memory").commits
    }

    pub(crate) async fn entries(&self, log: &LogId) -> Vec<Entry> {
        let commits = self.commits(log).await.into_iter();
        commits.flat_map(|c| commit::decode(c.first, &c.body).expect("a commit").0).collect()
    }

    /// `1 ann#1 accepted`, for each entry.
    pub(crate) async fn outcomes(&self, log: &LogId) -> Vec<String> {
        let entries = self.entries(log).await.into_iter();
        entries.map(|e| format!("{} {}#{} {}", e.seq, e.origin, e.id, e.outcome.status())).collect()
    }

    /// Checks that the entries of [`acme`] are those of [`run`] up to `last`, and nothing is
    /// parked.
    pub(crate) async fn assert_run(&self, last: u64) {
        let expected: Vec<String> = (1..=last).map(|n| format!("{n} ann#{n} accepted")).collect();
        assert_eq!(self.outcomes(&acme()).await, expected);
        assert_eq!(self.parked(&acme()).await, [] as [String; 0]);
    }

    /// The log's lease.
    pub(crate) async fn lease(&self, log: &LogId) -> Option<(u32, Step)> {
        let items = self.memory.parked.list(log, (Seq::ZERO, ""), 1).await.expect("memory");
        let lease = items.first().filter(|item| item.identity == ProcessorLease::IDENTITY)?;
        let attempt = ProcessorLease::decode(&lease.body).expect("a lease");
        Some((attempt.lease.attempts, attempt.step))
    }

    /// `7 ann#7 Gap`, for each parked item except a lease.
    pub(crate) async fn parked(&self, log: &LogId) -> Vec<String> {
        let mut items = self.memory.parked.list(log, (Seq::ZERO, ""), ALL).await.expect("memory");
        items.retain(|item| item.identity != ProcessorLease::IDENTITY);
        let reason = |body: &[u8]| -> Reason { Parked::decode(body).expect("parked").reason };
        items.iter().map(|i| format!("{} {} {:?}", i.seq, i.identity, reason(&i.body))).collect()
    }

    pub(crate) async fn state(&self, log: &LogId, key: StateKey) -> Option<StateItem> {
        self.memory.state.get(log, &[key]).await.expect("memory").pop().flatten()
    }

    /// The seq of the log's head; zero if there is none.
    pub(crate) async fn head(&self, log: &LogId) -> Seq {
        self.state(log, StateKey::head(1)).await.map_or(Seq::ZERO, |item| item.seq)
    }

    /// A view's cursor for a log.
    pub(crate) async fn cursor(&self, view: &str, log: &LogId) -> Cursor {
        self.table(view).cursor(log).await.expect("memory").unwrap_or_default()
    }

    /// A view's live rows for [`acme`]: `a@3 {…}`.
    pub(crate) async fn rows(&self, view: &str) -> Vec<String> {
        let range = RowRange { limit: ALL, ..RowRange::default() };
        let page = self.table(view).scan(&acme(), &range).await.expect("memory");
        let show =
            |row: &Row| format!("{}@{} {}", row.key, row.seq, String::from_utf8_lossy(&row.body));
        page.rows.iter().map(show).collect()
    }
}

/// Processes a batch, and checks that all of it is done.
pub(crate) async fn done(processor: &Processor, records: &[ReceivedRecord]) {
    assert_eq!(processor.process(records, NEVER).await, BatchOutcome::DONE);
}

/// Processes a batch of which a part must be retried, and returns the first unfinished record.
pub(crate) async fn unfinished(processor: &Processor, records: &[ReceivedRecord]) -> usize {
    let outcome = processor.process(records, NEVER).await;
    outcome.unfinished.expect("a part of the batch must be unfinished")
}

/// Applies messages, and checks that all are done.
pub(crate) async fn applied<'a>(
    projector: &Projector,
    messages: impl IntoIterator<Item = &'a Bytes>,
) {
    let messages: Vec<Bytes> = messages.into_iter().cloned().collect();
    let again = projector.project(&messages, NEVER).await;
    assert!(again.is_empty(), "{again:?} of {} messages were not applied", messages.len());
}

fn all<T: Clone>(shards: &Shards<T>) -> Vec<T> {
    let items = shards.iter().flat_map(|(_, shard)| shard.read(Position::START, ALL));
    items.map(|(_, item)| item).collect()
}
