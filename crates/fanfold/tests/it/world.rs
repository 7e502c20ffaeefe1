//! A processor without I/O: the tables and the topic of one log as maps, and processes that may crash between any two
//! effects. The tables check the rules of the design.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use fanfold::entry::{Event, Outcome};
use fanfold::host::body::head::{Head, Prev, decode_document, decode_window};
use fanfold::host::body::notification::{Commit, entry_kinds};
use fanfold::host::body::{commit, envelope};
use fanfold::host::limits::{
    COMMIT_BYTES_MAX, SNAPSHOT_ENTRIES_MIN, SNAPSHOT_FACTOR, SNAPSHOT_JOURNAL_BYTES_MIN,
    WRITE_UNIT_BYTES,
};
use fanfold::host::log::{Place, Sealed, Sent, Snapshot, Want, Work};
use fanfold::host::window::Window;
use fanfold::service::MORE_ROUNDS_MAX;
use fanfold::{
    AnyService, Command, CommandId, DocumentId, Entry, Log, LogId, Origin, Seq, Services, StateKey,
    Time,
};
use serde_json::Value;

use crate::counters::Counters;
use crate::samples::{command, entry_json, user, valid};

/// The most rounds of one batch: more mean an endless loop.
const ROUNDS_MAX: usize = 100;

pub(crate) fn service<const V: u32>() -> Arc<dyn AnyService> {
    let services = Services::new().with::<Counters<V>>();
    Arc::clone(services.get("counters").expect("just added"))
}

/// A process has crashed. Its effects so far stay.
#[derive(Debug)]
pub(crate) struct Died;

/// One environment that processes the log, and may keep it between batches.
pub(crate) struct Process {
    pub(crate) service: Arc<dyn AnyService>,
    pub(crate) log: Option<Log>,
    /// The number of effects before it crashes.
    pub(crate) life: usize,
    /// The highest head of older versions when the log was loaded.
    old_head: Seq,
}

impl Process {
    pub(crate) fn new(service: Arc<dyn AnyService>) -> Self {
        Self { service, log: None, life: usize::MAX, old_head: Seq::ZERO }
    }

    fn effect(&mut self) -> Result<(), Died> {
        self.life = self.life.checked_sub(1).ok_or(Died)?;
        Ok(())
    }
}

/// The command stream, the journal, the state table and the topic of one log.
pub(crate) struct World {
    pub(crate) id: LogId,
    pub(crate) now: Time,
    pub(crate) stream: Vec<(Arc<Command>, Time)>,
    pub(crate) journal: BTreeMap<Seq, Vec<u8>>,
    /// The entries of the journal.
    pub(crate) entries: Vec<Entry>,
    pub(crate) state: BTreeMap<StateKey, (Seq, Vec<u8>)>,
    pub(crate) published: BTreeMap<Seq, Commit>,
    /// The number of snapshots whose head was stored.
    pub(crate) snapshots: usize,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            id: valid("counters/org:acme"),
            now: Time(1_000),
            stream: Vec::new(),
            journal: BTreeMap::new(),
            entries: Vec::new(),
            state: BTreeMap::new(),
            published: BTreeMap::new(),
            snapshots: 0,
        }
    }

    /// Accepts a command, and returns its position.
    pub(crate) fn accept(&mut self, by: &str, id: u64, name: &str, data: &Value) -> Seq {
        self.accept_from(user(by), id, name, data)
    }

    pub(crate) fn accept_from(&mut self, by: Origin, id: u64, name: &str, data: &Value) -> Seq {
        self.stream.push((Arc::new(command(by, id, name, data)), self.now));
        Seq(self.stream.len() as u64)
    }

    /// Accepts and processes a command, and returns its entry.
    pub(crate) fn send(
        &mut self,
        process: &mut Process,
        (by, id): (&str, u64),
        name: &str,
        data: &Value,
    ) -> Entry {
        let seq = self.accept(by, id, name, data);
        self.process(process, &[seq]).expect("the process does not crash");
        self.entries.last().expect("the command has its entry").clone()
    }

    pub(crate) fn tail(&self) -> Seq {
        self.entries.last().map_or(Seq::ZERO, |entry| entry.seq)
    }

    pub(crate) fn load(&self, process: &mut Process) -> Log {
        let version = process.service.document_version();
        let heads = (0..version).filter_map(|old| self.state.get(&StateKey::head(old)));
        process.old_head = heads.map(|(seq, _)| *seq).max().unwrap_or(Seq::ZERO);
        let head = self.state.get(&StateKey::head(version));
        let head = head.map(|(seq, body)| (*seq, Head::decode(body).expect("a head")));
        let service = Arc::clone(&process.service);
        let mut log = Log::new(self.id.clone(), service, head, process.old_head);
        self.catch_up(&mut log);
        log
    }

    pub(crate) fn catch_up(&self, log: &mut Log) {
        let above: Vec<_> = self.journal.range(log.tail().next()..).collect();
        let decoded = above.into_iter().map(|(first, body)| commit::decode(*first, body).unwrap());
        let decoded: Vec<_> = decoded.collect();
        let wants = decoded.iter().flat_map(|(entries, _)| log.wants_to_fold(entries)).collect();
        self.provide(log, wants);
        for (entries, bytes) in decoded {
            log.fold(entries, bytes).expect("a stored commit can be folded");
        }
        assert!(!log.is_behind());
    }

    pub(crate) fn provide(&self, log: &mut Log, wants: BTreeSet<Want>) {
        for want in wants {
            match (log.state_key(&want), want) {
                (None, Want::Entry(seq)) => {
                    let entry = self.entries.get(seq.0 as usize - 1);
                    log.provide_entry(seq, entry.map(Sent::from));
                }
                (key, want) => {
                    let item = key.and_then(|key| self.state.get(&key));
                    let item = item.map(|(seq, body)| (*seq, body.as_slice()));
                    log.provide(want, item).expect("a stored item can be read");
                }
            }
        }
    }

    /// Appends a commit, unless its place is taken. Returns whether it was stored.
    pub(crate) fn append(&mut self, sealed: &Sealed) -> bool {
        let first = sealed.commit.first();
        if self.journal.contains_key(&first) {
            return false;
        }
        let before = self.entries.last();
        assert_eq!(first, before.map_or(Seq(1), |entry| entry.seq.next()), "F3");
        let payload_bytes = envelope::open(1, &sealed.body).expect("a commit").len();
        assert!(payload_bytes <= COMMIT_BYTES_MAX.get());
        let mut time = before.map_or(Time(0), |entry| entry.time);
        for entry in sealed.commit.entries.iter() {
            let (command, at) = &self.stream[entry.seq.0 as usize - 1];
            assert_eq!((&entry.origin, entry.id), (&command.origin, command.id));
            time = time.max((*at).min(self.now));
            assert_eq!(entry.time, time);
        }
        assert_eq!(sealed.at, time);
        self.entries.extend(commit::decode(first, &sealed.body).expect("a commit").0);
        self.journal.insert(first, sealed.body.clone());
        true
    }

    /// Processes one batch of the command stream, as the processor does. Commands behind a gap are left out: they come again.
    pub(crate) fn process(&mut self, process: &mut Process, batch: &[Seq]) -> Result<(), Died> {
        let log = process.log.take();
        let mut log = log.unwrap_or_else(|| self.load(process));
        let sorted: BTreeSet<Seq> = batch.iter().copied().collect();
        let mut queue = VecDeque::from_iter(sorted);
        let mut publish = BTreeSet::new();
        for round in 0.. {
            assert!(round < ROUNDS_MAX, "the log makes no progress");
            while let Some(seq) = queue.front().filter(|seq| log.place(**seq) == Place::Done) {
                self.settle(&log, *seq);
                publish.extend(log.unpublished_at(*seq).map(Commit::first));
                queue.pop_front();
            }
            match queue.front().map(|seq| log.place(*seq)) {
                None => break,
                Some(Place::Next | Place::Done) => self.decide(process, &mut log, &queue)?,
                Some(Place::Beyond) => {
                    let tail = log.tail();
                    self.catch_up(&mut log);
                    if log.tail() == tail {
                        break;
                    }
                }
            }
        }
        if log.may_snapshot() {
            publish.extend(log.unpublished(log.tail()).map(Commit::first));
        }
        for first in publish {
            self.publish(process, &mut log, first)?;
        }
        self.snapshot(process, &mut log)?;
        log.shrink();
        process.log = Some(log);
        Ok(())
    }

    /// Checks that a done command is the one of the entry at its seq.
    fn settle(&self, log: &Log, seq: Seq) {
        let (command, _) = &self.stream[seq.0 as usize - 1];
        let known = log.command_at(seq);
        assert_eq!(known.is_some(), seq > log.head(), "known above the head");
        if let Some(Sent { origin, id, .. }) = known {
            assert_eq!((origin, *id), (&command.origin, command.id));
        }
    }

    fn decide(
        &mut self,
        process: &mut Process,
        log: &mut Log,
        queue: &VecDeque<Seq>,
    ) -> Result<(), Died> {
        let run = (log.tail().next().0..).zip(queue).take_while(|(next, seq)| *next == seq.0);
        let works: Vec<Work> = run
            .map(|(_, seq)| {
                let (command, at) = &self.stream[seq.0 as usize - 1];
                log.prepare(*seq, *at, Arc::clone(command))
            })
            .collect();
        for _ in 0..2 + MORE_ROUNDS_MAX {
            let wants = log.wants(&works);
            self.provide(log, wants);
        }
        assert!(log.wants(&works).is_empty(), "these rounds are enough");
        if log.is_behind() {
            self.catch_up(log);
            return Ok(());
        }
        for work in works {
            let seq = work.seq;
            if log.decide(work, self.now).is_err() {
                assert_eq!(log.place(seq), Place::Next, "its service asks for more documents");
                break;
            }
        }
        for sealed in log.seal() {
            assert!(!log.is_settled());
            process.effect()?;
            if !self.append(&sealed) {
                *log = self.load(process);
                return Ok(());
            }
            // The process may crash before the acknowledgement arrives.
            process.effect()?;
            log.acknowledge(sealed).unwrap();
        }
        assert!(log.is_settled());
        Ok(())
    }

    fn publish(&mut self, process: &mut Process, log: &mut Log, first: Seq) -> Result<(), Died> {
        // After a conflict the log is loaded again. Its head may show that another process has
        // published the commit.
        let Some(commit) = log.unpublished_at(first).cloned() else { return Ok(()) };
        assert!(commit.last() > process.old_head, "published by an older version");
        process.effect()?;
        let (entries, _) = commit::decode(first, &self.journal[&first]).expect("a commit");
        assert_eq!(*commit.entries, *entries);
        assert_eq!(*commit.prev, self.fold_to(first.before()).prev);
        self.published.insert(first, commit);
        process.effect()?;
        log.published(first);
        assert!(log.unpublished_at(first).is_none());
        Ok(())
    }

    fn snapshot(&mut self, process: &mut Process, log: &mut Log) -> Result<(), Died> {
        let Some(snapshot) = log.snapshot() else { return Ok(()) };
        self.check_due(log, &snapshot);
        for put in snapshot.puts.iter().chain([&snapshot.head]) {
            process.effect()?;
            let stored = self.state.get(&put.key).map_or(Seq::ZERO, |(seq, _)| *seq);
            if stored < put.seq {
                self.state.insert(put.key.clone(), (put.seq, put.body.clone()));
            }
        }
        self.snapshots += 1;
        self.check_state(process.service.as_ref());
        process.effect()?;
        log.snapshotted(&snapshot);
        assert!(log.head() == snapshot.head.seq && !log.may_snapshot());
        Ok(())
    }

    /// Checks that a snapshot costs at most a twentieth of the journal, or comes after many entries.
    fn check_due(&self, log: &Log, snapshot: &Snapshot) {
        let since = self.journal.range(log.head().next()..);
        let bytes: usize = since.map(|(_, body)| envelope::open(1, body).unwrap().len()).sum();
        let puts = snapshot.puts.iter().chain([&snapshot.head]).map(|put| put.body.len());
        let (writes, units): (usize, usize) = (puts.clone().sum(), puts.map(units).sum());
        let entries = (log.tail().0 - log.head().0) as usize;
        assert!(
            bytes > (writes * SNAPSHOT_FACTOR.get()).max(SNAPSHOT_JOURNAL_BYTES_MIN.get())
                || entries >= (units * SNAPSHOT_FACTOR.get()).max(SNAPSHOT_ENTRIES_MIN.get()),
            "{bytes} bytes and {entries} entries for {writes} bytes, {units} units"
        );
    }

    /// The log folded from its first entry up to `seq`, by the definitions of the design.
    pub(crate) fn fold_to(&self, seq: Seq) -> Folded<'_> {
        let mut folded = Folded::default();
        for entry in self.entries.iter().take_while(|entry| entry.seq <= seq) {
            folded.time = folded.time.max(entry.time);
            for kind in entry_kinds("counters", entry) {
                folded.prev.insert(kind, entry.seq);
            }
            if entry.outcome.uses_id() {
                let ids: &mut Vec<_> = folded.windows.entry(&entry.origin).or_default();
                ids.push((entry.seq, entry.id, entry.time));
            }
            if let Outcome::Accepted(events) = &entry.outcome {
                for event in events {
                    let of_document: &mut Vec<_> =
                        folded.documents.entry(&event.document).or_default();
                    of_document.push((entry.seq, event));
                }
            }
        }
        folded
    }

    /// Checks that the stored items equal the fold of the log, and that the promise of the head holds.
    pub(crate) fn check_state(&self, service: &dyn AnyService) {
        let version = service.document_version();
        let all = self.fold_to(self.tail());
        for (id, events) in &all.documents {
            let Some((seq, body)) = self.state.get(&StateKey::document(version, id)) else {
                continue;
            };
            let events = events.iter().take_while(|(at, _)| at <= seq);
            let folded =
                events.fold(None, |doc, (_, event)| Some(service.fold(doc, event).unwrap()));
            let json = service.encode_document(&folded.expect("touched")).unwrap();
            let stored = decode_document(body).unwrap();
            assert_eq!(
                String::from_utf8_lossy(&stored),
                String::from_utf8_lossy(&json),
                "{id}@{seq}"
            );
        }
        for (origin, ids) in &all.windows {
            let Some((seq, body)) = self.state.get(&StateKey::window(version, origin)) else {
                continue;
            };
            let stored = decode_window(body).unwrap();
            assert_eq!(self.idle(stored), self.idle(window(ids, *seq)), "{origin}@{seq}");
        }
        let Some((head, body)) = self.state.get(&StateKey::head(version)) else { return };
        let folded = self.fold_to(*head);
        let Head { time, prev, windows } = Head::decode(body).unwrap();
        assert_eq!((time, prev), (folded.time, folded.prev));
        let is_stored = |key: StateKey, touched: Seq| {
            assert!(self.state.get(&key).is_some_and(|(seq, _)| *seq >= touched), "{key:?} Head");
        };
        for (id, events) in &folded.documents {
            is_stored(StateKey::document(version, id), events.last().expect("touched").0);
        }
        match windows {
            Some(windows) => {
                let expected = folded.windows.iter();
                let expected = expected
                    .map(|(origin, ids)| ((*origin).clone(), self.idle(window(ids, *head))));
                let found = windows.into_iter().map(|(origin, window)| (origin, self.idle(window)));
                assert_eq!(found.collect::<BTreeMap<_, _>>(), expected.collect());
            }
            None => folded.windows.iter().for_each(|(origin, ids)| {
                is_stored(StateKey::window(version, origin), ids.last().expect("touched").0);
            }),
        }
        let unpublished =
            self.journal.range(..=head).find(|(first, _)| !self.published.contains_key(first));
        assert!(unpublished.is_none(), "F5");
    }

    /// The answers of a window now, which do not depend on when it was stored.
    fn idle(&self, mut window: Window) -> Window {
        window.forget_if_idle(self.entries.last().map_or(Time(0), |entry| entry.time));
        window
    }

    /// F4 by its definition: of each origin the first command with an id counts. A repeat names it, and another command with
    /// the id is refused.
    pub(crate) fn check_repeats(&self) {
        let json = |command: &Command| {
            serde_json::from_str::<Value>(command.data.get()).expect("it is JSON")
        };
        let mut firsts = BTreeMap::new();
        for entry in self.entries.iter().filter(|entry| entry.outcome != Outcome::Stale) {
            let command = &self.stream[entry.seq.0 as usize - 1].0;
            let key = (&entry.origin, entry.id);
            let Some(of) = firsts.get(&key).copied() else {
                assert!(entry.outcome.uses_id(), "F4: {entry:?} is the first");
                firsts.insert(key, entry.seq);
                continue;
            };
            let first: &Command = &self.stream[of.0 as usize - 1].0;
            match &entry.outcome {
                Outcome::Duplicate { of: found } => {
                    assert_eq!(*found, of, "F4");
                    assert_eq!((&first.name, json(first)), (&command.name, json(command)));
                }
                Outcome::Rejected { code, of: Some(found), message } => {
                    assert_eq!((code.as_str(), *found), ("id_reused", of), "F4");
                    let what = if first.name == command.name { "`data`" } else { "the command" };
                    assert!(message.contains(what), "{message}");
                    assert_ne!((&first.name, json(first)), (&command.name, json(command)));
                }
                other => panic!("F4: {other:?} at {} has the id of {of}", entry.seq),
            }
        }
    }
}

/// The fold of a log.
#[derive(Default)]
pub(crate) struct Folded<'a> {
    time: Time,
    pub(crate) prev: Prev,
    /// The events of each document.
    documents: BTreeMap<&'a DocumentId, Vec<(Seq, &'a Event)>>,
    /// The ids that each origin has used.
    windows: BTreeMap<&'a Origin, Vec<(Seq, CommandId, Time)>>,
}

/// The window of these ids, as of `seq`.
fn window(ids: &[(Seq, CommandId, Time)], seq: Seq) -> Window {
    let mut window = Window::default();
    let ids = ids.iter().take_while(|(at, ..)| *at <= seq);
    for (at, id, time) in ids {
        window.insert(*id, *at, *time);
    }
    window
}

/// The entries without their times, which depend on the arrival of batches.
pub(crate) fn timeless(entries: &[Entry]) -> Vec<Value> {
    let entries = entries.iter().map(|entry| Entry { time: Time(0), ..entry.clone() });
    entries.map(|entry| entry_json(&entry)).collect()
}

/// The write units of an item.
fn units(bytes: usize) -> usize {
    bytes.div_ceil(WRITE_UNIT_BYTES).max(1)
}
