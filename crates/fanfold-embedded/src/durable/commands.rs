//! The commands table, and the thread that takes all appends to it.
//!
//! Appends from everywhere are gathered; whatever has come while the disk was busy becomes one
//! group of the command log, is written and synced in one piece, and only then shown to anybody: in
//! the slots, on the change stream, to the callers. So nothing that was ever seen can be lost, and
//! no lock is held while the disk is busy.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use async_trait::async_trait;
use bytes::{Buf, Bytes};
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, Slot, Token,
    Unavailable,
};
use foldhash::fast::FixedState;
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::{group, unavailable};
use crate::faults;
use crate::hash_key::{BUCKETS, HashKey};
use crate::memory::{Changing, ITEM_OVERHEAD_BYTES, MemoryTopic, Obstacle, twice};
use crate::shard::{Backlog, Bound};
use crate::shards::Shards;
use crate::store::command_log::CommandLog;
use crate::store::{Space, Store, StoreError};
use crate::striped::lock;
use crate::watchdog::Vital;

const HOP: &str = "commands table";
/// Bytes of a group, beyond which what waits becomes the next one.
const GROUP_BYTES_SOFT: usize = 4 * 1024 * 1024;
/// Appends that wait for the disk. Each is a request at hand, which the HTTP side bounds, too.
const WAITING_MAX: usize = 100_000;

/// Where an append is answered.
type Answer = oneshot::Sender<Result<Seq, AppendError>>;

/// What was asked of the thread.
enum Request {
    Append { log: LogId, append: Append, answer: Answer },
    Close { log: LogId, answer: oneshot::Sender<bool> },
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Request>,
    is_closed: bool,
}

/// What may be on its way to one stage, before appends wait for it: some tenths of a second of work.
/// So whoever sends without end is slowed down to what the stages do, and memory stays small.
const PACE: Bound = Bound { items: 8_000, bytes: 16 * 1024 * 1024 };
/// Bytes of notifications on their way, beyond which appends wait for the views, but not for long: a
/// view that stands still must not stop everybody.
const PACE_NOTIFICATIONS_BYTES: usize = 24 * 1024 * 1024;
const PACE_LOOKS_FOR_VIEWS_MAX: usize = 25;
/// How often an append that waits looks again, in milliseconds, and how often at most: half a second,
/// then it is throttled.
const PACE_LOOK_MS: u64 = 2;
const PACE_LOOKS_MAX: usize = 250;
/// Bytes of the command log beyond which no more is taken: by then something that was accepted has
/// not been processed for long, and a restart would take long, too.
const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How long nothing is taken after the disk was full, in milliseconds; then somebody may try.
const FULL_MS: u64 = 1_000;

/// The stages behind the change stream.
struct Behind {
    records: Arc<Backlog>,
    topic: Arc<MemoryTopic>,
}

/// How much the command log has done since it was opened.
#[derive(Debug, Default)]
pub struct Counts {
    commands: AtomicU64,
    groups: AtomicU64,
    log_bytes: AtomicU64,
}

impl Counts {
    /// Commands that were accepted.
    pub fn commands(&self) -> u64 {
        self.commands.load(Ordering::Relaxed)
    }

    /// Groups that were written, and as many syncs.
    pub fn syncs(&self) -> u64 {
        self.groups.load(Ordering::Relaxed)
    }

    /// The bytes of the command log.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }
}

/// Slots and the change stream, behind the command log.
pub struct DurableCommands {
    store: Arc<Store>,
    log: Mutex<CommandLog>,
    changes: Shards<Change>,
    bound: Bound,
    queue: Mutex<Queue>,
    arrived: Condvar,
    /// Everything below is on the change stream, or was before.
    shown: AtomicU64,
    counts: Counts,
    replayed: Vec<LogId>,
    replayed_until: Time,
    /// What is behind the change stream.
    behind: OnceLock<Behind>,
    opened: Instant,
    /// Nothing is taken until so many milliseconds after `opened`.
    full_until_ms: AtomicU64,
}

impl DurableCommands {
    /// Opens the command log, and puts on the change stream what must be done again.
    pub fn open(store: Arc<Store>, shards: usize, bound: Bound) -> Result<Self, StoreError> {
        let changes = Shards::equal(shards);
        let done = store.done()?;
        let folder = store.folder().commands();
        let mut replayed = BTreeSet::new();
        let mut replayed_until = Time::default();
        let log = CommandLog::open(&folder, done, |position, group| {
            let group = group::read(group).ok_or_else(|| {
                let message = format!("group {position} of the command log cannot be read");
                StoreError::damaged(message)
            })?;
            group.into_iter().try_for_each(|change| {
                replayed.insert(change.log.clone());
                replayed_until = replayed_until.max(change.at);
                replay(&store, &changes, change)
            })
        })?;
        let shown = AtomicU64::new(log.next());
        Ok(Self {
            store,
            log: Mutex::new(log),
            changes,
            bound: twice(bound),
            queue: Mutex::default(),
            arrived: Condvar::new(),
            shown,
            counts: Counts::default(),
            replayed: replayed.into_iter().collect(),
            replayed_until,
            behind: OnceLock::new(),
            opened: Instant::now(),
            full_until_ms: AtomicU64::new(0),
        })
    }

    /// Starts the thread. It ends when the table is closed.
    pub fn start(self: &Arc<Self>) -> io::Result<thread::JoinHandle<()>> {
        let this = self.clone();
        let thread = thread::Builder::new().name("fanfold-commands".to_owned());
        thread.spawn(move || {
            let _vital = Vital("the commands");
            while this.take() {}
        })
    }

    /// The thread is to end, once it has answered everything. Nothing is taken any more.
    pub fn end(&self) {
        lock(&self.queue).is_closed = true;
        self.arrived.notify_all();
    }

    /// When the latest of what was in the command log was accepted.
    pub(crate) fn replayed_until(&self) -> Time {
        self.replayed_until
    }

    /// The logs of what was in the command log when it was opened.
    pub fn replayed_logs(&self) -> &[LogId] {
        &self.replayed
    }

    /// Everything in the command log below this position is on the change stream, or was.
    pub fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    /// What the command log has done.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// From now on appends also wait for what lies in these.
    pub(crate) fn pace_by(&self, records: Arc<Backlog>, topic: Arc<MemoryTopic>) {
        // There is one pipeline behind a commands table, and it is put together once.
        let _ = self.behind.set(Behind { records, topic });
    }

    /// Returns once the stages have come closer.
    async fn pace(&self) -> Result<(), Unavailable> {
        let behind = self.behind.get();
        for look in 0..PACE_LOOKS_MAX {
            let stages_lag = self.changes.backlog().exceeds(PACE)
                || behind.is_some_and(|behind| behind.records.exceeds(PACE));
            let views_lag = look < PACE_LOOKS_FOR_VIEWS_MAX
                && behind.is_some_and(|behind| behind.topic.lag() > PACE_NOTIFICATIONS_BYTES);
            if !stages_lag && !views_lag {
                return Ok(());
            }
            sleep(Duration::from_millis(PACE_LOOK_MS)).await;
        }
        Err(Unavailable::Throttled { hop: HOP })
    }

    /// Why nothing can be taken now, if that is so.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        if self.store.folder().is_gone() {
            let gone = StoreError::Gone(self.store.folder().path().to_owned());
            return Some(Obstacle::Gone(gone.to_string()));
        }
        if self.uptime_ms() < self.full_until_ms.load(Ordering::Relaxed) {
            return Some(Obstacle::Full);
        }
        let bytes = self.counts.log_bytes();
        let behind =
            || Obstacle::Behind(format!("{bytes} bytes of commands are not processed yet"));
        (bytes > LOG_BYTES_MAX).then(behind)
    }

    fn uptime_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Drops what is below `done` from the command log. Waits for an append that is under way.
    pub fn trim(&self, done: u64) -> Result<(), StoreError> {
        let mut log = lock(&self.log);
        let trimmed = log.trim(done);
        self.counts.log_bytes.store(log.bytes(), Ordering::Relaxed);
        trimmed
    }

    /// Freezes a log: its slot refuses appends. `false`: it has no slot.
    pub async fn close(&self, log: &LogId) -> Result<bool, Unavailable> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Close { log: log.clone(), answer })?;
        let closed = answered.await.map_err(|_| ended())?;
        self.store.durable().await?;
        Ok(closed)
    }

    fn ask(&self, request: Request) -> Result<(), Unavailable> {
        let mut queue = lock(&self.queue);
        if queue.is_closed {
            return Err(ended());
        }
        if queue.waiting.len() >= WAITING_MAX {
            return Err(Unavailable::Throttled { hop: HOP });
        }
        queue.waiting.push(request);
        drop(queue);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes what waits, and answers it. `false`: the thread is to end.
    fn take(&self) -> bool {
        let waiting = {
            let mut queue = lock(&self.queue);
            while queue.waiting.is_empty() {
                if queue.is_closed {
                    return false;
                }
                queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::take(&mut queue.waiting)
        };
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            let mut group = Group::default();
            while let Some(request) = waiting.next_if(|_| group.bytes.len() < GROUP_BYTES_SOFT) {
                self.gather(request, &mut group);
            }
            self.append_group(group);
        }
        true
    }

    fn gather(&self, request: Request, group: &mut Group) {
        match request {
            Request::Append { log, append, answer } => {
                let (hash, slot) = match group.slots.get(&log) {
                    Some((hash, slot)) => (*hash, Ok(Some(slot.clone()))),
                    None => {
                        let hash = HashKey::of_log(&log);
                        (hash, slot(&self.store, hash, &log))
                    }
                };
                let before = match slot {
                    // Perhaps by what is not on disk yet: answered when that is.
                    Ok(Some(slot)) if slot.closed || slot.token == append.token => {
                        group.refused.push((answer, slot));
                        return;
                    }
                    Ok(slot) => slot.map_or(Seq::ZERO, |slot| slot.seq),
                    Err(error) => {
                        let _ = answer.send(Err(unavailable(HOP, &error).into()));
                        return;
                    }
                };
                let Append { n, body, at, token } = append;
                let last = before.plus(n);
                let slot = Slot { seq: last, n, at, token, closed: false };
                group.slots.insert(log.clone(), (hash, slot));
                let change = Change { log, last, n, at, token, body };
                group::write(&mut group.bytes, &change);
                group.changes.push((hash, change, answer));
            }
            Request::Close { log, answer } => group.closed.push((log, answer)),
        }
    }

    fn append_group(&self, group: Group) {
        let Group { bytes, changes, slots, refused, closed } = group;
        let appended = match changes.is_empty() {
            true => Ok(self.shown() - 1),
            false => self.append_bytes(&bytes),
        };
        match appended {
            Ok(position) => {
                for (log, (hash, slot)) in slots {
                    put_slot(&self.store, hash, &log, &slot);
                }
                let mut answers = Vec::with_capacity(changes.len());
                for (hash, change, answer) in changes {
                    self.counts.commands.fetch_add(change.n, Ordering::Relaxed);
                    answers.push((answer, change.last));
                    emit(&self.changes, hash, change);
                }
                self.shown.store(position + 1, Ordering::Release);
                for (answer, slot) in refused {
                    let _ = answer.send(Err(AppendError::Refused(slot)));
                }
                for (answer, last) in answers {
                    // Who does not wait any more finds its token in the slot.
                    let _ = answer.send(Ok(last));
                }
            }
            Err(error) => {
                if matches!(error, StoreError::Full) {
                    self.full_until_ms.store(self.uptime_ms() + FULL_MS, Ordering::Relaxed);
                }
                // That the folder is gone was said already.
                if !matches!(error, StoreError::Gone(_)) {
                    tracing::error!(alarm = "not_durable", %error, "commands were not accepted");
                }
                let changes = changes.into_iter().map(|(_, _, answer)| answer);
                for answer in changes.chain(refused.into_iter().map(|(answer, _)| answer)) {
                    let _ = answer.send(Err(unavailable(HOP, &error).into()));
                }
            }
        }
        for (log, answer) in closed {
            let hash = HashKey::of_log(&log);
            let slot = slot(&self.store, hash, &log).ok().flatten();
            if let Some(slot) = &slot {
                put_slot(&self.store, hash, &log, &Slot { closed: true, ..slot.clone() });
            }
            let _ = answer.send(slot.is_some());
        }
    }

    fn append_bytes(&self, bytes: &[u8]) -> Result<u64, StoreError> {
        if self.store.folder().is_gone() {
            return Err(self.store.folder().lose());
        }
        let mut log = lock(&self.log);
        let position = log.append(bytes).map_err(|error| match error {
            StoreError::Gone(_) => self.store.folder().lose(),
            error => error,
        })?;
        self.counts.groups.fetch_add(1, Ordering::Relaxed);
        self.counts.log_bytes.store(log.bytes(), Ordering::Relaxed);
        Ok(position)
    }
}

/// What becomes one group.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    changes: Vec<(HashKey, Change, Answer)>,
    /// As they will be.
    slots: HashMap<LogId, (HashKey, Slot), FixedState>,
    refused: Vec<(Answer, Slot)>,
    closed: Vec<(LogId, oneshot::Sender<bool>)>,
}

fn ended() -> Unavailable {
    Unavailable::Failed { hop: HOP, message: "it is closed".to_owned() }
}

/// A change that was in the command log when it was opened becomes visible: first its slot, which
/// may be further on already, then itself.
fn replay(store: &Store, changes: &Shards<Change>, change: Change) -> Result<(), StoreError> {
    let Change { last, n, at, token, .. } = change;
    let hash = HashKey::of_log(&change.log);
    let stored = slot(store, hash, &change.log)?;
    if stored.as_ref().is_none_or(|slot| slot.seq < last) {
        let closed = stored.is_some_and(|slot| slot.closed);
        put_slot(store, hash, &change.log, &Slot { seq: last, n, at, token, closed });
    }
    emit(changes, hash, change);
    Ok(())
}

fn emit(changes: &Shards<Change>, hash: HashKey, change: Change) {
    let bytes = ITEM_OVERHEAD_BYTES + change.log.as_str().len() + change.body.len();
    changes.append(hash, bytes, change);
    faults::reached("commands.show");
}

/// Bucket and log: the order of the catalogue.
fn key(hash: HashKey, log: &LogId) -> Bytes {
    [&[hash.bucket()], log.as_str().as_bytes()].concat().into()
}

fn slot(store: &Store, hash: HashKey, log: &LogId) -> Result<Option<Slot>, StoreError> {
    Ok(store.get(Space::SLOTS, &key(hash, log))?.and_then(decode_slot))
}

/// `[seq u64][n u64][at u64][token u128][closed u8]`, big-endian.
fn decode_slot(mut value: Bytes) -> Option<Slot> {
    Some(Slot {
        seq: Seq(value.try_get_u64().ok()?),
        n: value.try_get_u64().ok()?,
        at: Time(value.try_get_u64().ok()?),
        token: Token(value.try_get_u128().ok()?),
        closed: value.try_get_u8().ok()? != 0,
    })
}

fn put_slot(store: &Store, hash: HashKey, log: &LogId, slot: &Slot) {
    let mut value = Vec::with_capacity(41);
    value.extend(slot.seq.0.to_be_bytes());
    value.extend(slot.n.to_be_bytes());
    value.extend(slot.at.0.to_be_bytes());
    value.extend(slot.token.0.to_be_bytes());
    value.push(u8::from(slot.closed));
    store.put(Space::SLOTS, key(hash, log), value.into());
}

impl Changing for DurableCommands {
    fn changes(&self) -> &Shards<Change> {
        &self.changes
    }
}

#[async_trait]
impl Commands for DurableCommands {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        if self.changes.backlog().exceeds(self.bound) {
            return Err(Unavailable::Throttled { hop: HOP }.into());
        }
        self.pace().await?;
        self.store.room().await?;
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Append { log: log.clone(), append, answer })?;
        answered.await.unwrap_or_else(|_| Err(ended().into()))
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        let slot = slot(&self.store, HashKey::of_log(log), log);
        slot.map_err(|error| unavailable(HOP, &error))
    }

    /// What was accepted comes out of the command log again: no change is ever lost.
    async fn batch(&self, _: &LogId) -> Result<Option<Change>, Unavailable> {
        Ok(None)
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let limit = limit.max(1);
        // Behind a log: its name with the lowest byte added, which no name has.
        let from = match after {
            None => Vec::new(),
            Some(CataloguePosition { bucket, log: None }) => vec![bucket],
            Some(CataloguePosition { bucket, log: Some(log) }) => {
                [&[bucket], log.as_str().as_bytes(), &[0]].concat()
            }
        };
        let mut logs: Vec<LogId> = Vec::new();
        let mut more = false;
        let scanned = self.store.scan(Space::SLOTS, &from, &[BUCKETS], false, |key, _| {
            if logs.len() == limit {
                more = true;
                return ControlFlow::Break(());
            }
            let log = key.get(1..).and_then(|log| std::str::from_utf8(log).ok()?.parse().ok());
            logs.extend(log);
            ControlFlow::Continue(())
        });
        scanned.map_err(|error| unavailable(HOP, &error))?;
        let next = logs.last().filter(|_| more).map(|last| CataloguePosition {
            bucket: HashKey::of_log(last).bucket(),
            log: Some(last.clone()),
        });
        Ok(CataloguePage { logs, next })
    }
}
