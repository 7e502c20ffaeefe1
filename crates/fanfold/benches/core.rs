//! The cost of each step of one command.
//!
//! `cargo bench -p fanfold --bench core`

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::hint::black_box;
use std::sync::Arc;

use divan::{AllocProfiler, Bencher};
use fanfold::host::body::notification::{self, Commit};
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::{commit, envelope, slot};
use fanfold::host::log::{Log, Sealed};
use fanfold::host::window::Window;
use fanfold::{
    Code, Command, CommandId, Context, Digest, DocumentId, Documents, LogId, Request, RowKey, Seq,
    Service, Services, Time, Views,
};
use ledger::Ledger;
use ledger::views::{Balances, Totals};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[global_allocator]
static ALLOCATOR: AllocProfiler = AllocProfiler::system();

/// Commands in a batch.
const BATCHES: [u64; 2] = [1, 100];

const NOW: Time = Time(1_795_401_660_123);

fn services() -> Services {
    Services::new().with::<Ledger>()
}

/// The first opens an account, the others deposit into it.
fn request(id: u64) -> String {
    let (command, data) = match id {
        1 => ("open", r#"{"account":"cash"}"#.to_owned()),
        _ => ("deposit", format!(r#"{{"account":"cash","amount":{}}}"#, id * 100)),
    };
    format!(
        r#"{{"type":"ledger","command":"{command}","id":{id},"timestamp":1795401660000,"user":"user-7","org":"org-0001","data":{data}}}"#
    )
}

fn parse(id: u64, services: &Services) -> Request {
    Request::parse(request(id).as_bytes(), services).expect("it is a request")
}

fn commands(n: u64) -> Vec<Command> {
    let services = services();
    (2..2 + n).map(|id| parse(id, &services).command).collect()
}

/// A log with an open account.
struct Bench {
    services: Services,
    log: Log,
    next: u64,
}

impl Bench {
    fn new() -> Self {
        let services = services();
        let id: LogId = parse(1, &services).log;
        let service = services.get("ledger").expect("it is there").clone();
        let log = Log::new(id, service, None, Seq::ZERO);
        let mut bench = Self { services, log, next: 1 };
        let first = bench.commands(1);
        bench.decide(first);
        bench
    }

    fn commands(&mut self, n: u64) -> Vec<Arc<Command>> {
        let ids = self.next..self.next + n;
        self.next = ids.end;
        ids.map(|id| Arc::new(parse(id, &self.services).command)).collect()
    }

    fn decide(&mut self, commands: Vec<Arc<Command>>) -> Vec<Sealed> {
        let numbered = commands.into_iter().zip(self.log.tail().0 + 1..);
        let works: Vec<_> =
            numbered.map(|(command, seq)| self.log.prepare(Seq(seq), NOW, command)).collect();
        for want in self.log.wants(&works) {
            self.log.provide(want, None).expect("there is nothing yet");
        }
        for work in works {
            assert!(self.log.decide(work, NOW).is_ok(), "they are in order");
        }
        let sealed = self.log.seal();
        for sealed in sealed.clone() {
            let first = sealed.commit.first();
            self.log.acknowledge(sealed).expect("it is the next");
            self.log.published(first);
        }
        if let Some(snapshot) = self.log.snapshot() {
            self.log.snapshotted(&snapshot);
        }
        sealed
    }

    fn sealed(n: u64) -> Sealed {
        let mut bench = Self::new();
        let commands = bench.commands(n);
        bench.decide(commands).pop().expect("one commit")
    }
}

fn main() {
    divan::main();
}

#[divan::bench]
fn digest() -> Digest {
    Digest::of_json(divan::black_box(r#"{"account":"a17","amount":100}"#))
}

#[divan::bench]
fn request_parse(bencher: Bencher<'_, '_>) {
    let (services, json) = (services(), request(17));
    bencher.bench_local(|| Request::parse(black_box(json.as_bytes()), &services));
}

#[divan::bench]
fn window_insert(bencher: Bencher<'_, '_>) {
    let (mut window, mut id) = (Window::default(), 0);
    bencher.bench_local(|| {
        id += 1;
        window.insert(CommandId::new(id).expect("it is in range"), Seq(id), NOW);
    });
}

#[divan::bench(args = BATCHES)]
fn decide_and_seal(bencher: Bencher<'_, '_>, n: u64) {
    let bench = std::cell::RefCell::new(Bench::new());
    bencher
        .counter(divan::counter::ItemsCount::new(n))
        .with_inputs(|| bench.borrow_mut().commands(n))
        .bench_local_values(|commands| bench.borrow_mut().decide(commands));
}

/// A service whose documents have as many lines as their name says.
struct Lists;

#[derive(Clone, Serialize, Deserialize)]
struct Line {
    article: String,
    count: u32,
}

#[derive(Deserialize, JsonSchema)]
#[serde(tag = "command", content = "data", rename_all = "snake_case")]
enum Count {
    Count { list: DocumentId },
}

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data", rename_all = "snake_case")]
enum Counted {
    Counted,
}

#[derive(Debug, thiserror::Error)]
#[error("never")]
struct Never(Infallible);

impl Code for Never {
    fn code(&self) -> &'static str {
        match self.0 {}
    }
}

impl Service for Lists {
    const NAME: &'static str = "lists";
    const DOCUMENT_VERSION: u32 = 1;
    const EVENTS: &'static [(&'static str, u32)] = &[("counted", 1)];
    type Command = Count;
    type Event = Counted;
    type Document = Vec<Line>;
    type Rejection = Never;

    fn documents(Count::Count { list }: &Count) -> Vec<DocumentId> {
        vec![list.clone()]
    }

    fn init(id: &DocumentId) -> Vec<Line> {
        let lines = 0..id.to_string().parse().expect("it is a number");
        lines.map(|at| Line { article: format!("article {at:06}"), count: 0 }).collect()
    }

    fn decide(
        _: &Documents<'_, Vec<Line>>,
        Count::Count { list }: &Count,
        _: &Context,
    ) -> Result<Vec<(DocumentId, Counted)>, Never> {
        Ok(vec![(list.clone(), Counted::Counted)])
    }

    fn evolve(list: &mut Vec<Line>, Counted::Counted: &Counted) {
        list[0].count += 1;
    }
}

/// A decision that changes one document of so many lines. A line has 39 bytes of JSON, so these are up to 256 KiB.
#[divan::bench(args = [1, 26, 420, 1_680, 6_721])]
fn decide_on_a_document_of_lines(bencher: Bencher<'_, '_>, lines: usize) {
    let services = Services::new().with::<Lists>();
    let service = services.get("lists").expect("it is there");
    let id: DocumentId = lines.to_string().parse().expect("it is a name");
    let request = format!(
        r#"{{"type":"lists","command":"count","id":1,"user":"ann","data":{{"list":"{id}"}}}}"#
    );
    let request = Request::parse(request.as_bytes(), &services).expect("it is a request");
    let Command { name, origin, id: number, data, .. } = request.command;
    let command = service.parse(&name, &data).expect("it is a command");
    let ctx =
        Context { log: request.log, seq: Seq(1), time: NOW, origin, id: number, timestamp: None };
    let json = serde_json::to_vec(&Lists::init(&id)).expect("it can be written");
    let doc = service.decode_document(&json).expect("it is a document");
    bencher
        .counter(divan::counter::BytesCount::new(json.len()))
        .bench_local(|| service.decide(black_box(&[(&id, Some(&doc))]), &command, &ctx));
}

#[divan::bench(args = [100, 4_000])]
fn envelope_seal(bencher: Bencher<'_, '_>, bytes: usize) {
    let payload: Vec<u8> = request(7).bytes().cycle().take(bytes).collect();
    bencher.bench_local(|| envelope::seal(1, black_box(&payload)));
}

#[divan::bench(args = BATCHES)]
fn slot_encode(bencher: Bencher<'_, '_>, n: u64) {
    let commands = commands(n);
    let commands: Vec<&Command> = commands.iter().collect();
    bencher.bench_local(|| slot::encode(black_box(&commands)));
}

#[divan::bench(args = BATCHES)]
fn slot_decode(bencher: Bencher<'_, '_>, n: u64) {
    let commands = commands(n);
    let commands: Vec<&Command> = commands.iter().collect();
    let bodies = slot::encode(&commands).expect("they can be written");
    bencher.bench_local(|| slot::decode(black_box(&bodies[0].1)));
}

#[divan::bench]
fn record_encode(bencher: Bencher<'_, '_>) {
    let log = parse(1, &services()).log;
    let part = Part { last: Seq(17), n: 1, at: NOW, body: &[b'x'; 100] };
    let record = Record { log, parts: vec![part] };
    bencher.bench_local(|| black_box(&record).encode());
}

#[divan::bench]
fn record_decode(bencher: Bencher<'_, '_>) {
    let log = parse(1, &services()).log;
    let part = Part { last: Seq(17), n: 1, at: NOW, body: &[b'x'; 100] };
    let bytes = Record { log, parts: vec![part] }.encode().expect("it can be written");
    bencher.bench_local(|| Record::decode(black_box(&bytes)).map(|record| record.parts.len()));
}

#[divan::bench(args = BATCHES)]
fn commit_decode(bencher: Bencher<'_, '_>, n: u64) {
    let sealed = Bench::sealed(n);
    bencher.bench_local(|| commit::decode(sealed.commit.first(), black_box(&sealed.body)));
}

#[divan::bench(args = BATCHES)]
fn notification_pack(bencher: Bencher<'_, '_>, n: u64) {
    let commits: Vec<Commit> = vec![Bench::sealed(n).commit];
    bencher.bench_local(|| notification::pack(black_box(&commits)));
}

#[divan::bench(args = BATCHES)]
fn notification_decode(bencher: Bencher<'_, '_>, n: u64) {
    let packed = notification::pack([&Bench::sealed(n).commit]).expect("it can be written");
    bencher.bench_local(|| notification::decode(black_box(&packed[0].message.body)));
}

#[divan::bench(args = ["balances", "totals"])]
fn view_read_and_fold(bencher: Bencher<'_, '_>, view: &str) {
    let views = Views::new().with::<Balances>().with::<Totals>();
    let view = views.get(view).expect("it is there");
    let commit = Bench::sealed(1).commit;
    let mut rows: BTreeMap<RowKey, Vec<u8>> = BTreeMap::new();
    bencher.bench_local(|| {
        for entry in commit.entries.iter() {
            let recorded = view.read(&commit.log, entry).expect("it can be read");
            let recorded = recorded.expect("the view reads it");
            for key in view.rows(&recorded).expect("it has rows") {
                let row = rows.get(&key).map(Vec::as_slice);
                let row = view.fold(&key, row, &[&recorded]).expect("it can be folded");
                rows.insert(key, row.expect("it is not deleted"));
            }
        }
    });
}
