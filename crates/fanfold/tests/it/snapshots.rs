//! When a snapshot is due, what it writes, and how a later version uses it.

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold::host::body::head::Head;
use fanfold::host::limits::{
    HEAD_WINDOWS_BYTES_MAX, SNAPSHOT_ENTRIES_MIN, SNAPSHOT_FACTOR, SNAPSHOT_JOURNAL_BYTES_MIN,
    WINDOW_IDLE_MS_MAX, WRITE_UNIT_BYTES,
};
use fanfold::host::log::Snapshot;
use fanfold::{Log, Origin, Seq, StateKey, Time};
use serde_json::{Value, json};

use crate::samples::{command, user, valid};
use crate::world::{Process, World, service};

/// A warm log without stored items: everything that it wants is absent.
struct Bench {
    log: Log,
    /// Bytes of the journal since the head.
    bytes: usize,
}

impl Bench {
    fn new() -> Self {
        let log = Log::new(valid("counters/org:acme"), service::<1>(), None, Seq::ZERO);
        Self { log, bytes: 0 }
    }

    fn decide(&mut self, by: &str, name: &str, data: &Value) {
        let id = self.log.tail().next().0;
        self.decide_at(Time(5), &user(by), id, name, data);
    }

    fn decide_at(&mut self, now: Time, by: &Origin, id: u64, name: &str, data: &Value) {
        let seq = self.log.tail().next();
        let command = Arc::new(command(by.clone(), id, name, data));
        let work = self.log.prepare(seq, now, command);
        for want in self.log.wants([&work]) {
            self.log.provide(want, None).unwrap();
        }
        assert!(self.log.decide(work, now).is_ok());
    }

    /// Stores and publishes everything that was decided.
    fn store(&mut self) {
        for sealed in self.log.seal() {
            let first = sealed.commit.first();
            self.bytes += fanfold::host::body::envelope::open(1, &sealed.body).unwrap().len();
            self.log.acknowledge(sealed).unwrap();
            self.log.published(first);
        }
    }

    /// Decides this command again and again until a snapshot is due. Returns the snapshot, the
    /// bytes since the head one command before and now, and the number of commands.
    fn until_due(&mut self, by: &str, name: &str, data: &Value) -> (Snapshot, [usize; 2], usize) {
        for commands in 1..10_000 {
            let before = self.bytes;
            self.decide(by, name, data);
            self.store();
            if let Some(snapshot) = self.log.snapshot() {
                let bytes = [before, std::mem::take(&mut self.bytes)];
                self.log.snapshotted(&snapshot);
                return (snapshot, bytes, commands);
            }
        }
        panic!("no snapshot is ever due");
    }
}

fn written(snapshot: &Snapshot) -> usize {
    snapshot.puts.iter().map(|put| put.body.len()).sum::<usize>() + snapshot.head.body.len()
}

fn keys(snapshot: &Snapshot) -> Vec<&str> {
    snapshot.puts.iter().map(|put| put.key.as_str()).collect()
}

/// Text that zstd cannot compress much.
fn noise(bytes: usize) -> String {
    let step = |n: &u64| Some(n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let numbers = std::iter::successors(Some(7u64), step);
    numbers
        .map(|n| char::from(b'!' + (n >> 33) as u8 % 90))
        .filter(|c| !"\"\\".contains(*c))
        .take(bytes)
        .collect()
}

#[test]
fn small_snapshots_are_due_by_the_bytes_of_the_journal() {
    let mut bench = Bench::new();
    for _ in 0..3 {
        let add = json!({"counter": "a", "by": 0, "note": 900});
        let (snapshot, [before, now], _) = bench.until_due("ann", "add", &add);
        assert!(written(&snapshot) * SNAPSHOT_FACTOR.get() < SNAPSHOT_JOURNAL_BYTES_MIN.get());
        assert!(
            before <= SNAPSHOT_JOURNAL_BYTES_MIN.get() && SNAPSHOT_JOURNAL_BYTES_MIN.get() < now
        );
        assert_eq!(keys(&snapshot), ["v1#doc#a"]);
        assert_eq!((snapshot.head.key.as_str(), snapshot.head.seq), ("v1#head", bench.log.tail()));
    }
}

#[test]
fn large_snapshots_are_due_by_their_cost() {
    let mut bench = Bench::new();
    bench.decide("ann", "carry", &json!({"counter": "a", "text": noise(4_000)}));
    for _ in 0..3 {
        let add = json!({"counter": "a", "by": 0, "note": 900});
        let (snapshot, [before, now], commands) = bench.until_due("ann", "add", &add);
        let due = written(&snapshot) * SNAPSHOT_FACTOR.get();
        assert!(
            due > 2 * SNAPSHOT_JOURNAL_BYTES_MIN.get() && commands < SNAPSHOT_ENTRIES_MIN.get()
        );
        // One command earlier it would have cost about the same: only the head may differ by some bytes.
        assert!(before <= due + 20 * SNAPSHOT_FACTOR.get() && due < now, "{before} {due} {now}");
    }
}

#[test]
fn many_entries_make_a_snapshot_due() {
    let mut bench = Bench::new();
    bench.decide("ann", "carry", &json!({"counter": "a", "text": noise(20_000)}));
    bench.store();
    // The bytes of the entries do not make the snapshot due, because the document costs too much.
    let (snapshot, [_, bytes], commands) =
        bench.until_due("ann", "touch", &json!({"counter": "a"}));
    assert_eq!(commands + 1, SNAPSHOT_ENTRIES_MIN.get());
    assert!(bytes < written(&snapshot) * SNAPSHOT_FACTOR.get());
}

#[test]
fn many_small_documents_wait_for_more_entries() {
    let mut bench = Bench::new();
    let carry = |n: usize| json!({"counter": format!("c{n:03}"), "text": noise(700)});
    (0..300).for_each(|n| bench.decide("ann", "carry", &carry(n)));
    bench.store();
    // By bytes the snapshot would be due far later. Each document takes a whole write unit, and so
    // does the head.
    let (snapshot, [_, bytes], commands) =
        bench.until_due("ann", "touch", &json!({"counter": "c000"}));
    assert_eq!((snapshot.puts.len(), 300 + commands), (300, 301 * SNAPSHOT_FACTOR.get()));
    assert!(bytes < written(&snapshot) * SNAPSHOT_FACTOR.get());
}

#[test]
fn a_snapshot_waits_until_everything_is_stored_and_published() {
    let mut bench = Bench::new();
    let add = json!({"counter": "a", "by": 0, "note": 40_000});
    bench.decide("ann", "add", &add);
    let sealed = bench.log.seal().remove(0);
    bench.log.acknowledge(sealed).unwrap();
    assert!(bench.log.may_snapshot());
    assert!(bench.log.snapshot().is_none(), "not published");
    bench.log.published(Seq(2));
    assert!(bench.log.snapshot().is_none(), "another commit is published");
    bench.log.published(Seq(1));
    bench.decide("ann", "add", &add);
    assert!(bench.log.snapshot().is_none(), "the second command is not sealed");
    let sealed = bench.log.seal().remove(0);
    assert!(bench.log.snapshot().is_none(), "its commit is not stored");
    bench.log.acknowledge(sealed).unwrap();
    bench.log.published(Seq(2));
    let snapshot = bench.log.snapshot().expect("it is due");
    // Until the snapshot is stored, the next one holds all of it, and more.
    bench.decide("bob", "move", &json!({"from": "a", "to": "b", "by": 0}));
    bench.store();
    let again = bench.log.snapshot().expect("it is still due");
    assert_eq!((keys(&snapshot), keys(&again)), (vec!["v1#doc#a"], vec!["v1#doc#a", "v1#doc#b"]));
    // Only the first head is stored: later changes stay dirty.
    bench.log.snapshotted(&snapshot);
    assert_eq!(bench.log.head(), Seq(2));
    let (last, ..) =
        bench.until_due("ann", "add", &json!({"counter": "c", "by": 0, "note": 20_000}));
    assert_eq!(keys(&last), ["v1#doc#a", "v1#doc#b", "v1#doc#c"]);
}

#[test]
fn windows_leave_the_head_when_they_are_large() {
    let mut bench = Bench::new();
    let add = json!({"counter": "a", "by": 0, "note": 2_000});
    let name = |n: u64| format!("{n:04}{}", "@".repeat(100));
    let mut users = 0;
    let first = loop {
        users += 1;
        let (snapshot, ..) = bench.until_due(&name(users), "add", &add);
        let head = Head::decode(&snapshot.head.body).unwrap();
        match head.windows {
            Some(windows) => {
                assert_eq!(windows.len() as u64, users);
                let bytes = serde_json::to_vec(&windows).unwrap().len();
                assert!(bytes <= 2 * HEAD_WINDOWS_BYTES_MAX.get(), "{bytes} bytes of windows");
                assert_eq!(keys(&snapshot), ["v1#doc#a"]);
            }
            None => break snapshot,
        }
    };
    // The first split writes all windows, including old ones.
    let windows = |snapshot: &Snapshot| {
        keys(snapshot)
            .iter()
            .filter(|key| key.starts_with("v1#win#"))
            .map(|key| key[7..].to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(windows(&first), (1..=users).map(name).collect::<Vec<_>>());
    // From then on only changed windows are written, and the head never holds them again.
    let (next, ..) = bench.until_due(&name(1), "add", &add);
    assert_eq!(windows(&next), [name(1)]);
    assert_eq!(Head::decode(&next.head.body).unwrap().windows, None);
}

/// Of ten thousand clients of one user, the log keeps only the highest id of each, a week after its last command.
#[test]
fn idle_clients_keep_only_their_highest_id() {
    const CLIENTS: u64 = 10_000;
    let client = |n: u64| Origin::client(&valid("ann"), &valid(&format!("c{n}"))).unwrap();
    // The clients number by the clock, so no two ids are consecutive.
    let id = |n: u64| 1_795_401_660_000_000 + n * 1_000_000_000 + n * 829_348_951 % 999_999_937;
    let (nothing, large) = (json!({}), json!({"counter": "a", "by": 0, "note": 9_000}));
    let (mut bench, mut stored, mut bobs) = (Bench::new(), BTreeMap::new(), 0);
    // Enough bytes to make a snapshot due at any cost.
    let mut fill = |bench: &mut Bench, now: Time| {
        for _ in 0..1_100 {
            bobs += 1;
            bench.decide_at(now, &user("bob"), bobs, "add", &large);
            bench.store();
            if let Some(snapshot) = bench.log.snapshot() {
                bench.log.snapshotted(&snapshot);
                let windows = snapshot.puts.iter().filter(|put| put.key.as_str().contains("#win#"));
                stored.extend(windows.map(|put| (put.key.clone(), put.body.len())));
                bench.log.shrink();
                return (stored.values().sum::<usize>(), stored.values().max().copied());
            }
        }
        panic!("no snapshot is due");
    };
    for n in 0..CLIENTS {
        let many = if n % 500 == 0 { 400 } else { 1 };
        for nth in 0..many {
            bench.decide_at(Time(1_000 + n), &client(n), id(nth), "nothing", &nothing);
        }
    }
    bench.store();
    let (_, largest) = fill(&mut bench, Time(1_000 + CLIENTS));
    assert!(largest > Some(WRITE_UNIT_BYTES), "{largest:?}");

    let late = Time(1_001 + CLIENTS + WINDOW_IDLE_MS_MAX.as_u64());
    let (bytes, largest) = fill(&mut bench, late);
    assert!(largest <= Some(WRITE_UNIT_BYTES), "{largest:?}");
    assert!(bytes < CLIENTS as usize * 100, "{bytes} bytes are stored");
    let weight = bench.log.weight();
    assert!(weight < CLIENTS as usize * 300, "{weight} bytes in memory");

    // It is known that their ids were used, but no longer for which command.
    for (n, nth, status) in
        [(0, 0, "stale"), (0, 399, "stale"), (0, 400, "accepted"), (1, 1, "accepted")]
    {
        bench.decide_at(late, &client(n), id(nth), "nothing", &nothing);
        let entry = bench.log.seal()[0].commit.entries[0].clone();
        assert_eq!(entry.outcome.status(), status, "{n} {nth}");
    }
}

/// So many documents of 8,000 bytes exceed what a log keeps in memory (4 MiB), and their events exceed what a cold load
/// should read (8 MiB).
const MANY: usize = 1_100;

#[test]
fn only_stored_documents_and_windows_are_evicted() {
    let mut bench = Bench::new();
    let counter = |n: usize| json!({"counter": format!("c{n:04}"), "by": 1});
    let wanted = |log: &Log| {
        let works = (0..MANY).map(|n| {
            let command = Arc::new(command(user("ann"), 9_999, "add", &counter(n)));
            log.prepare(log.tail().next(), Time(5), command)
        });
        log.wants(&works.collect::<Vec<_>>()).len()
    };
    let text = noise(8_000);
    let carried = |n: usize| json!({"counter": format!("c{n:04}"), "text": text});
    (0..MANY).for_each(|n| bench.decide("ann", "carry", &carried(n)));
    bench.store();
    bench.log.shrink();
    assert_eq!(wanted(&bench.log), 0, "nothing is stored, so nothing is evicted");
    let snapshot = bench.log.snapshot().expect("the journal has grown by much");
    assert_eq!(snapshot.puts.len(), MANY);
    bench.log.shrink();
    assert_eq!(wanted(&bench.log), 0, "it is not known that the snapshot is stored");
    bench.log.snapshotted(&snapshot);
    bench.decide("ann", "add", &counter(7));
    bench.store();
    bench.log.shrink();
    assert_eq!(wanted(&bench.log), MANY - 1, "one has changed since");
    // One document, one window and one entry, with some hundred bytes for each.
    assert!(bench.log.weight() < 8_000 + 6 * 128, "{}", bench.log.weight());
    // Windows in the head stay in memory, because they have no items to load.
    assert!(bench.log.command_at(Seq(MANY as u64 + 1)).is_some());
    bench.decide("ann", "add", &counter(7));
    assert_eq!(bench.log.seal()[0].commit.entries[0].outcome.status(), "accepted");
}

#[test]
fn a_new_document_version_folds_afresh_and_publishes_nothing_again() {
    let mut world = World::new();
    let mut old = Process::new(service::<1>());
    for id in 1..=30 {
        let counter = if id % 2 == 0 { "a" } else { "b" };
        world.send(
            &mut old,
            ("ann", id),
            "add",
            &json!({"counter": counter, "by": 1, "note": 500}),
        );
    }
    let old_head = old.log.as_ref().expect("the log is loaded").head();
    assert!(Seq(0) < old_head && old_head < Seq(30));

    let mut new = Process::new(service::<2>());
    let log = world.load(&mut new);
    assert_eq!((log.head(), log.tail()), (Seq::ZERO, Seq(30)));
    let unpublished: Vec<Seq> = log.unpublished(log.tail()).map(|commit| commit.first()).collect();
    assert_eq!(unpublished, (old_head.0 + 1..=30).map(Seq).collect::<Vec<_>>());
    new.log = Some(log);
    world.send(&mut new, ("ann", 31), "add", &json!({"counter": "a", "by": 1}));
    for key in
        [StateKey::head(2), StateKey::document(2, &valid("a")), StateKey::document(2, &valid("b"))]
    {
        assert!(world.state.contains_key(&key), "{key:?}");
    }
    // The old version continues beside it with its own documents.
    world.send(&mut old, ("ann", 32), "add", &json!({"counter": "b", "by": 1}));
    world.check_state(service::<1>().as_ref());
    world.check_state(service::<2>().as_ref());
    let totals = |seq: usize| {
        crate::samples::entry_json(&world.entries[seq - 1])["r"]["a"][0]["x"]["total"].clone()
    };
    assert_eq!((totals(31), totals(32)), (json!(16), json!(16)));
}
