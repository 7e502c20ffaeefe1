//! The commands table, and the loop that makes all appends to it.
//!
//! The loop gathers all appends that arrive while the disk is busy into one group of the command
//! log. It writes and syncs the group as one unit, and only then shows its changes in the slots, on
//! the change stream and to the callers. So a crash loses nothing that was visible, and the loop
//! holds no lock that readers need while the disk is busy.

mod group;
mod slots;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::knob::Knob;
use fanfold::{LogId, Seq, Time, with_causes};
use fanfold_pipeline::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, Env, OperatorCommands,
    Slot, SlotRaise, Token, Unavailable,
};
use foldhash::fast::FixedState;
use tokio::sync::{Notify, oneshot};

use self::slots::Slots;
use crate::faults;
use crate::hash_key::HashKey;
use crate::limit::{Backlog, Limit};
use crate::shards::Shards;
use crate::store::command_log::CommandLog;
use crate::store::{Driver, Store, StoreError};
use crate::striped::lock;
use crate::transit::{ITEM_OVERHEAD_BYTES, MemoryTopic, Obstacle};

const HOP: &str = "commands table";
/// Bytes of a group beyond which further appends go into the next one.
const GROUP_BYTES_SOFT: Knob = Knob::new(4 * 1024 * 1024, 200);
/// Appends that may wait for the disk. The HTTP server bounds its concurrent requests, too.
const WAITING_MAX: usize = 100_000;
/// The backlog of one stage beyond which appends wait: some tenths of a second of work. This
/// backpressure slows clients down to the pace of the stages, and keeps memory small.
const PACE: Limit = Limit { items: 8_000, bytes: 16 * 1024 * 1024 };
/// Bytes of pending notifications beyond which appends wait for the views.
const PACE_NOTIFICATIONS_BYTES: usize = 24 * 1024 * 1024;
/// The checks that also wait for views: few, as one that stands still must not stop all commands.
const PACE_LOOKS_FOR_VIEWS_MAX: usize = 25;
/// The pause between two checks of a waiting append, in milliseconds.
const PACE_LOOK_MS: u64 = 2;
/// The checks after which a waiting append is throttled: half a second.
const PACE_LOOKS_MAX: usize = 250;
/// Bytes of the command log beyond which no command is accepted: some accepted command has then
/// been unprocessed for long, and a restart would take long, too.
const LOG_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// How long no command is accepted after the disk was full, in milliseconds.
const FULL_MS: u64 = 1_000;

/// The channel for the result of an append or a raise.
type Answer = oneshot::Sender<Result<Seq, AppendError>>;

/// A request of a caller to the loop.
enum Request {
    Append { log: LogId, append: Append, answer: Answer },
    Raise { log: LogId, to: Seq, at: Time, token: Token, answer: Answer },
    Close { log: LogId, answer: oneshot::Sender<bool> },
}

#[derive(Default)]
struct Queue {
    waiting: Vec<Request>,
    is_closed: bool,
}

/// The backlogs behind the change stream. Appends wait while these are too large.
struct PacedBy {
    records: Arc<Backlog>,
    topic: Arc<MemoryTopic>,
}

/// Counts of the command log since it was opened.
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

/// The commands table: slots and the change stream, over the command log.
pub struct StoredCommands {
    store: Arc<Store>,
    slots: Slots,
    log: Mutex<CommandLog>,
    changes: Shards<Change>,
    limit: Limit,
    env: Arc<dyn Env>,
    queue: Mutex<Queue>,
    arrived: Notify,
    /// Held while waiting requests are executed.
    taking: Mutex<()>,
    /// Everything below this position in the command log was put on the change stream.
    shown: AtomicU64,
    counts: Counts,
    replayed: Vec<LogId>,
    replayed_until: Time,
    paced_by: OnceLock<PacedBy>,
    /// When the disk was found full, in milliseconds; 0: never.
    full_at: AtomicU64,
    /// Whether a [`Hold`] keeps the command log.
    is_held: AtomicBool,
}

/// Keeps the command log from being trimmed until it is dropped. Appends go on.
pub(crate) struct Hold<'a>(&'a StoredCommands);

impl Hold<'_> {
    /// The files of the command log with their synced bytes, and the position behind these.
    pub(crate) fn parts(&self) -> (Vec<(PathBuf, u64)>, u64) {
        let log = lock(&self.0.log);
        (log.parts(), log.next())
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.0.is_held.store(false, Ordering::Release);
        // The next checkpoint drops what was kept.
        self.0.store.wanted.notify_one();
    }
}

impl StoredCommands {
    /// Opens the command log, and puts the commands to process again on the change stream.
    pub fn open(
        store: Arc<Store>,
        shards: usize,
        limit: Limit,
        env: Arc<dyn Env>,
    ) -> Result<Self, StoreError> {
        let (changes, slots) = (Shards::equal(shards), Slots(store.clone()));
        let done = store.done()?;
        let folder = store.folder().commands();
        let mut replayed = BTreeSet::new();
        let mut replayed_until = Time::default();
        let disk = store.folder().disk().clone();
        let log = CommandLog::open(disk, &folder, done, |position, group| {
            let group = group::read(group).ok_or_else(|| {
                let message = format!("group {position} of the command log cannot be read");
                StoreError::damaged(message)
            })?;
            group.into_iter().try_for_each(|change| {
                replayed.insert(change.log.clone());
                replayed_until = replayed_until.max(change.at);
                replay(&slots, &changes, change)
            })
        })?;
        store.check_copied(log.next())?;
        Ok(Self {
            store,
            slots,
            shown: AtomicU64::new(log.next()),
            log: Mutex::new(log),
            changes,
            limit: limit.twice(),
            env,
            queue: Mutex::default(),
            arrived: Notify::new(),
            taking: Mutex::default(),
            counts: Counts::default(),
            replayed: replayed.into_iter().collect(),
            replayed_until,
            paced_by: OnceLock::new(),
            full_at: AtomicU64::new(0),
            is_held: AtomicBool::new(false),
        })
    }

    /// Executes requests until the table is closed.
    pub async fn run(&self) {
        while self.take_waiting() {
            self.arrived.notified().await;
        }
    }

    /// Closes the table for new requests. The loop ends once it has answered all others.
    pub fn end(&self) {
        lock(&self.queue).is_closed = true;
        self.arrived.notify_one();
    }

    /// The change stream: a log's changes are in one shard, in the order of their seqs.
    pub fn changes(&self) -> &Shards<Change> {
        &self.changes
    }

    /// The latest accept time of the commands that were in the command log when it was opened.
    pub(crate) fn replayed_until(&self) -> Time {
        self.replayed_until
    }

    /// The logs of the commands that were in the command log when it was opened.
    pub(crate) fn replayed_logs(&self) -> &[LogId] {
        &self.replayed
    }

    /// Everything below this position in the command log was put on the change stream.
    pub(crate) fn shown(&self) -> u64 {
        self.shown.load(Ordering::Acquire)
    }

    /// Counts of the command log.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// From now on, appends also wait while these backlogs are too large.
    pub(crate) fn pace_by(&self, records: Arc<Backlog>, topic: Arc<MemoryTopic>) {
        // Always succeeds: a commands table has one pipeline, which is assembled once.
        let _ = self.paced_by.set(PacedBy { records, topic });
    }

    /// Waits until the backlogs of the stages are small enough.
    async fn pace(&self) -> Result<(), Unavailable> {
        let paced_by = self.paced_by.get();
        for look in 0..PACE_LOOKS_MAX {
            let stages_lag = self.changes.backlog().exceeds(PACE)
                || paced_by.is_some_and(|stages| stages.records.exceeds(PACE));
            let views_lag = look < PACE_LOOKS_FOR_VIEWS_MAX
                && paced_by.is_some_and(|stages| stages.topic.lag() > PACE_NOTIFICATIONS_BYTES);
            if !stages_lag && !views_lag {
                return Ok(());
            }
            self.env.sleep(PACE_LOOK_MS).await;
        }
        Err(Unavailable::Throttled { hop: HOP })
    }

    /// Why no command can be accepted now, if that is so.
    pub(crate) fn obstacle(&self) -> Option<Obstacle> {
        if self.store.folder().is_gone() {
            let gone = StoreError::Gone(self.store.folder().path().to_owned());
            return Some(Obstacle::Gone(gone.to_string()));
        }
        let full_at = self.full_at.load(Ordering::Relaxed);
        // If the clock was set back, `full_at` is in the future. An append may then try.
        if full_at > 0 && (full_at..full_at + FULL_MS).contains(&self.env.now().0) {
            return Some(Obstacle::Full);
        }
        let bytes = self.counts.log_bytes();
        let behind =
            || Obstacle::Behind(format!("{bytes} bytes of commands are not processed yet"));
        (bytes > LOG_BYTES_MAX).then(behind)
    }

    /// Keeps the command log until the result is dropped. The caller has one of them at a time.
    pub(crate) fn hold(&self) -> Hold<'_> {
        let _log = lock(&self.log);
        self.is_held.store(true, Ordering::Release);
        Hold(self)
    }

    /// Drops the groups below `done` from the command log, unless it is held. Waits for an append
    /// under way.
    pub(crate) fn trim(&self, done: u64) -> Result<(), StoreError> {
        let mut log = lock(&self.log);
        if self.is_held.load(Ordering::Acquire) {
            return Ok(());
        }
        let trimmed = log.trim(done);
        self.counts.log_bytes.store(log.bytes(), Ordering::Relaxed);
        trimmed
    }

    /// Freezes a log: its slot refuses appends. `false`: the log has no slot.
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
        match self.store.driver() {
            Driver::Loops => self.arrived.notify_one(),
            Driver::Callers => drop(self.take_waiting()),
        }
        Ok(())
    }

    /// Executes and answers the waiting requests. `false`: the table is closed, and none is left.
    fn take_waiting(&self) -> bool {
        let _alone = lock(&self.taking);
        let (waiting, is_closed) = {
            let mut queue = lock(&self.queue);
            (std::mem::take(&mut queue.waiting), queue.is_closed)
        };
        let mut waiting = waiting.into_iter().peekable();
        while waiting.peek().is_some() {
            let mut group = Group::default();
            while let Some(request) =
                waiting.next_if(|_| group.bytes.len() < GROUP_BYTES_SOFT.get())
            {
                self.gather(request, &mut group);
            }
            self.append_group(group);
        }
        !is_closed
    }

    fn gather(&self, request: Request, group: &mut Group) {
        match request {
            Request::Append { log, append, answer } => {
                let (hash, slot) = self.slot_behind(group, &log);
                let before = match slot {
                    // The refusing slot may be of this group. So answer when the group is on disk.
                    Ok(Some(slot)) if slot.closed || slot.token == append.token => {
                        group.refused.push((answer, slot));
                        return;
                    }
                    Ok(slot) => slot.map_or(Seq::ZERO, |slot| slot.seq),
                    Err(error) => {
                        let _ = answer.send(Err(error.unavailable(HOP).into()));
                        return;
                    }
                };
                let Append { n, body, at, token } = append;
                let change = Change { log, last: before.plus(n), n, at, token, body };
                group.add(hash, change, false, answer);
            }
            Request::Raise { log, to, at, token, answer } => {
                let (hash, slot) = self.slot_behind(group, &log);
                match slot {
                    Ok(Some(slot)) if slot.seq >= to => group.refused.push((answer, slot)),
                    Ok(slot) => {
                        let change = Change { log, last: to, n: 0, at, token, body: Bytes::new() };
                        group.add(hash, change, slot.is_some_and(|slot| slot.closed), answer);
                    }
                    Err(error) => drop(answer.send(Err(error.unavailable(HOP).into()))),
                }
            }
            Request::Close { log, answer } => group.closed.push((log, answer)),
        }
    }

    /// A log's slot after this group.
    fn slot_behind(
        &self,
        group: &Group,
        log: &LogId,
    ) -> (HashKey, Result<Option<Slot>, StoreError>) {
        match group.slots.get(log) {
            Some((hash, slot)) => (*hash, Ok(Some(slot.clone()))),
            None => {
                let hash = HashKey::of_log(log);
                (hash, self.slots.get(hash, log))
            }
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
                    self.slots.put(hash, &log, &slot);
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
                    // If the caller no longer waits, it finds its token in the slot.
                    let _ = answer.send(Ok(last));
                }
            }
            Err(error) => {
                if matches!(error, StoreError::Full) {
                    self.full_at.store(self.env.now().0, Ordering::Relaxed);
                }
                // `mark_gone` has logged that the folder is gone.
                if !matches!(error, StoreError::Gone(_)) {
                    tracing::error!(
                        alarm = "not_durable",
                        error = with_causes(&error),
                        "the engine could not store commands, and refused them"
                    );
                }
                let changes = changes.into_iter().map(|(_, _, answer)| answer);
                for answer in changes.chain(refused.into_iter().map(|(answer, _)| answer)) {
                    let _ = answer.send(Err(error.unavailable(HOP).into()));
                }
            }
        }
        for (log, answer) in closed {
            let hash = HashKey::of_log(&log);
            let slot = self.slots.get(hash, &log).ok().flatten();
            if let Some(slot) = &slot {
                self.slots.put(hash, &log, &Slot { closed: true, ..slot.clone() });
            }
            let _ = answer.send(slot.is_some());
        }
    }

    fn append_bytes(&self, bytes: &[u8]) -> Result<u64, StoreError> {
        if self.store.folder().is_gone() {
            return Err(self.store.folder().mark_gone());
        }
        let mut log = lock(&self.log);
        let position = log.append(bytes).map_err(|error| match error {
            StoreError::Gone(_) => self.store.folder().mark_gone(),
            error => error,
        })?;
        self.counts.groups.fetch_add(1, Ordering::Relaxed);
        self.counts.log_bytes.store(log.bytes(), Ordering::Relaxed);
        Ok(position)
    }
}

/// The requests that become one group.
#[derive(Default)]
struct Group {
    bytes: Vec<u8>,
    changes: Vec<(HashKey, Change, Answer)>,
    /// The slots after this group.
    slots: HashMap<LogId, (HashKey, Slot), FixedState>,
    refused: Vec<(Answer, Slot)>,
    closed: Vec<(LogId, oneshot::Sender<bool>)>,
}

impl Group {
    /// Adds a change, which makes the log's slot.
    fn add(&mut self, hash: HashKey, change: Change, closed: bool, answer: Answer) {
        let Change { last, n, at, token, .. } = change;
        let slot = Slot { seq: last, n, at, token, closed };
        self.slots.insert(change.log.clone(), (hash, slot));
        group::write(&mut self.bytes, &change);
        self.changes.push((hash, change, answer));
    }
}

fn ended() -> Unavailable {
    Unavailable::Failed { hop: HOP, message: "it is closed".to_owned() }
}

/// Shows a change of the opened command log: in its slot, unless that is newer, and as a change.
fn replay(slots: &Slots, changes: &Shards<Change>, change: Change) -> Result<(), StoreError> {
    let Change { last, n, at, token, .. } = change;
    let hash = HashKey::of_log(&change.log);
    let stored = slots.get(hash, &change.log)?;
    if stored.as_ref().is_none_or(|slot| slot.seq < last) {
        let closed = stored.is_some_and(|slot| slot.closed);
        slots.put(hash, &change.log, &Slot { seq: last, n, at, token, closed });
    }
    emit(changes, hash, change);
    Ok(())
}

fn emit(changes: &Shards<Change>, hash: HashKey, change: Change) {
    let bytes = ITEM_OVERHEAD_BYTES + change.log.as_str().len() + change.body.len();
    changes.append(hash, bytes, change);
    faults::reached("commands.show");
}

#[async_trait]
impl Commands for StoredCommands {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        if self.changes.backlog().exceeds(self.limit) {
            return Err(Unavailable::Throttled { hop: HOP }.into());
        }
        self.pace().await?;
        self.store.room().await?;
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Append { log: log.clone(), append, answer })?;
        answered.await.unwrap_or_else(|_| Err(ended().into()))
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        let slot = self.slots.get(HashKey::of_log(log), log);
        slot.map_err(|error| error.unavailable(HOP))
    }

    /// Always `None`: a restart reads all accepted changes from the command log again.
    async fn batch(&self, _: &LogId) -> Result<Option<Change>, Unavailable> {
        Ok(None)
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        self.slots.catalogue(after, limit).map_err(|error| error.unavailable(HOP))
    }
}

#[async_trait]
impl OperatorCommands for StoredCommands {
    /// Goes through the command log as an append does, so it survives a crash. It does not wait for the stages: it gives
    /// them nothing to do.
    async fn raise(
        &self,
        log: &LogId,
        to: Seq,
        at: Time,
        token: Token,
    ) -> Result<SlotRaise, Unavailable> {
        self.store.room().await?;
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Raise { log: log.clone(), to, at, token, answer })?;
        match answered.await.unwrap_or_else(|_| Err(ended().into())) {
            Ok(_) => Ok(SlotRaise::Raised),
            Err(AppendError::Refused(slot)) => Ok(SlotRaise::Refused(slot)),
            Err(AppendError::Unavailable(error)) => Err(error),
        }
    }
}
