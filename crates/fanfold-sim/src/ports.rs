//! The in-memory ports behind the fault layer. Each reports its effects to the auditor when they
//! happen, also when the caller has stopped waiting.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fanfold::entry::Outcome;
use fanfold::host::body::commit;
use fanfold::host::body::lease::ProcessorLease;
use fanfold::host::body::notification::{self, Message};
use fanfold::host::body::parked::{Parked, Reason};
use fanfold::host::body::record::Record;
use fanfold::{LogId, Seq, StateKey};
use fanfold_embedded::testing::Position;
use fanfold_embedded::testing::StoredCommands;
use fanfold_embedded::testing::{StoredJournal, StoredParked, StoredState};
use fanfold_pipeline::conformance::WithBodies;
use fanfold_pipeline::packing::MessageTopics;
use fanfold_pipeline::ports::{
    Admission, Append, AppendError, CataloguePage, CataloguePosition, Change, CommandStream,
    Commands, CommitItem, Guarded, Journal, JournalAppendError, JournalPage, NotAdmitted,
    ParkedItem, ParkedTable, PublishError, Slot, State, StateItem, StreamRecord, Unavailable,
};

use crate::executor::World;
use crate::faults::{Fault, Faults};
use crate::model::Case;
use crate::transport::{Notifications, Queue, Received};
use crate::watch::{PARKED, Watch};

/// The commands table. The change of each append goes into `changes`, unless it is lost.
#[derive(Clone)]
pub struct SimCommands {
    /// The in-memory slots, with the bodies of the last batches.
    pub memory: Arc<WithBodies<StoredCommands>>,
    /// The same slots, without the bodies.
    pub stored: Arc<StoredCommands>,
    /// The change stream, by shard.
    pub changes: Vec<Queue<Change>>,
    /// Faults, auditor and trace.
    pub watch: Watch,
}

impl SimCommands {
    /// Takes the changes that an append put on the embedded change stream.
    fn changes_made(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        for (_, shard) in self.stored.changes().iter() {
            changes.extend(shard.read(Position::START, usize::MAX).into_iter().map(|(_, c)| c));
            shard.trim(shard.end());
        }
        changes
    }
}

#[async_trait]
impl Commands for SimCommands {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        let (this, log) = (self.clone(), log.clone());
        let effect = async move {
            let result = this.memory.append(&log, append).await;
            for change in this.changes_made() {
                let Change { log, last, n, at, body, .. } = change.clone();
                let watch = &this.watch;
                watch.note(|| format!("slot {log} +{n} = {last}"));
                watch.audit(|model| model.accepted(&log, last, at, &body));
                if watch.faults.loses_change() {
                    watch.note(|| format!("lost {log} +{n} = {last}"));
                    watch.audit(|model| model.lost(&log, last, n));
                } else {
                    Queue::of(&this.changes, &log).push(change);
                }
            }
            result
        };
        self.watch.faults.call("commands table", effect).await
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        let (this, log) = (self.clone(), log.clone());
        let effect = async move { this.memory.slot(&log).await };
        self.watch.faults.call("commands table", effect).await
    }

    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable> {
        let (this, log) = (self.clone(), log.clone());
        let effect = async move { this.memory.batch(&log).await };
        self.watch.faults.call("commands table", effect).await
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let this = self.clone();
        let effect = async move { this.memory.catalogue(after, limit).await };
        self.watch.faults.call("commands table", effect).await
    }
}

/// Admits every log.
pub struct AdmitAll;

impl Admission for AdmitAll {
    fn admit(&self, _: &LogId) -> Result<(), NotAdmitted> {
        Ok(())
    }
}

/// The command stream.
pub struct SimStream {
    /// Its shards.
    pub records: Vec<Queue<Received>>,
    /// Faults, auditor and trace.
    pub watch: Watch,
    /// The clock of arrivals.
    pub world: World,
}

#[async_trait]
impl CommandStream for SimStream {
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        let left_out = self.watch.faults.parts_left_out(records.len(), Fault::PartialPut);
        let (queues, watch, world) = (self.records.clone(), self.watch.clone(), self.world.clone());
        let records = records.to_vec();
        let effect = async move {
            let put = |(record, left_out): (StreamRecord, bool)| {
                if left_out {
                    return Err(Unavailable::Throttled { hop: "command stream" });
                }
                if let Ok(decoded) = Record::decode(&record.data) {
                    let log = decoded.log.clone();
                    match (decoded.parts.first(), decoded.parts.last()) {
                        (Some(first), Some(last)) => {
                            let (first, last) = (first.first(), last.last);
                            watch.note(|| format!("stream {log} {first}-{last}"));
                            for part in &decoded.parts {
                                watch.audit(|m| m.streamed(&log, part.first(), part.last));
                            }
                        }
                        _ => watch.note(|| format!("nudge {log}")),
                    }
                }
                let queue = Queue::of(&queues, &record.key);
                let mut both = vec![record.clone()];
                if let Some(rival) = watch.rival_of(&record) {
                    both.insert(world.pick(0..2) as usize, rival);
                }
                for record in both {
                    queue.put(Received::new(record, &world), &watch.faults, &world);
                }
                Ok(())
            };
            Ok(records.into_iter().zip(left_out).map(put).collect())
        };
        self.watch.faults.call("command stream", effect).await
    }
}

/// The journal.
pub struct SimJournal {
    /// The in-memory table.
    pub memory: Arc<StoredJournal>,
    /// Faults, auditor and trace.
    pub watch: Watch,
}

#[async_trait]
impl Journal for SimJournal {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        let (memory, watch) = (self.memory.clone(), self.watch.clone());
        let (log, commit) = (log.clone(), commit.clone());
        let effect = async move {
            let result = memory.append(&log, &commit).await;
            if result.is_ok() {
                watch.note(|| format!("journal {log} {}-{}", commit.first, commit.last()));
                watch.audit(|model| model.committed(&log, &commit));
                for entry in commit::decode(commit.first, &commit.body).unwrap_or_default().0 {
                    if let Outcome::Faulted { message, .. } = &entry.outcome {
                        watch.check_crashes(PARKED, &log, message);
                    }
                }
            }
            result
        };
        self.watch.faults.call("journal", effect).await
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        let (memory, watch, log) = (self.memory.clone(), self.watch.clone(), log.clone());
        let effect = async move {
            let page = memory.read(&log, from, limit).await?;
            if page.more {
                watch.audit(|model| model.came_upon(Case::PagedJournal));
            }
            Ok(page)
        };
        self.watch.faults.call("journal", effect).await
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        let (memory, log) = (self.memory.clone(), log.clone());
        self.watch.faults.call("journal", async move { memory.tail(&log).await }).await
    }
}

/// All versions stored under each key, oldest first.
pub type Before = BTreeMap<(LogId, StateKey), Vec<StateItem>>;

/// The state table.
pub struct SimState {
    /// The in-memory table.
    pub memory: Arc<StoredState>,
    /// Faults, auditor and trace.
    pub watch: Watch,
    /// All versions ever stored, for stale reads of heads.
    pub before: Arc<Mutex<Before>>,
    /// Picks the version of a stale read.
    pub world: World,
}

#[async_trait]
impl State for SimState {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        let (memory, log, keys) = (self.memory.clone(), log.clone(), keys.to_vec());
        self.watch.faults.call("state table", async move { memory.get(&log, &keys).await }).await
    }

    async fn heads(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        let mut heads = self.get(log, keys).await?;
        for (key, head) in keys.iter().zip(&mut heads) {
            if head.is_some() && self.watch.faults.replication() {
                let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
                let before = before.get(&(log.clone(), key.clone())).map_or(&[][..], Vec::as_slice);
                // The last version is the current one. The index behind it stands for no head.
                let at = self.world.pick(0..before.len() as u64 + 1) as usize;
                *head = before.get(at).cloned();
            }
        }
        Ok(heads)
    }

    async fn put(
        &self,
        log: &LogId,
        key: &StateKey,
        item: &StateItem,
    ) -> Result<Guarded, Unavailable> {
        let (memory, watch) = (self.memory.clone(), self.watch.clone());
        let before = self.before.clone();
        let (log, key, item) = (log.clone(), key.clone(), item.clone());
        let effect = async move {
            let result = memory.put(&log, &key, &item).await;
            if result == Ok(Guarded::Stored) {
                watch.note(|| format!("state {log} {key:?} {}", item.seq));
                watch.audit(|model| model.stored(&log, &key, &item));
                let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
                before.entry((log, key)).or_default().push(item);
            }
            result
        };
        self.watch.faults.call("state table", effect).await
    }
}

/// The parked table.
pub struct SimParked {
    /// The in-memory table.
    pub memory: Arc<StoredParked>,
    /// Faults, auditor and trace.
    pub watch: Watch,
}

#[async_trait]
impl ParkedTable for SimParked {
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable> {
        let (memory, watch) = (self.memory.clone(), self.watch.clone());
        let (log, item) = (log.clone(), item.clone());
        let lease = ProcessorLease::decode(&item.body).ok();
        let lease = lease.filter(|_| item.identity == ProcessorLease::IDENTITY);
        let task = self.watch.world.task();
        if lease.is_some() {
            self.watch.attempts().begun(PARKED, &log, task);
        }
        let (of, checked) = (log.clone(), watch.clone());
        let effect = async move {
            watch.note(|| format!("park {log} {} {} {lease:?}", item.seq, item.identity));
            if let Some(ProcessorLease { lease, .. }) = lease {
                watch.check_lease(PARKED, &log, &lease);
            }
            if let Ok(Parked { reason: Reason::Suspect, detail, .. }) = Parked::decode(&item.body) {
                watch.check_crashes(PARKED, &log, &detail);
            }
            if item.identity == Parked::UNPUBLISHED {
                watch.audit(|model| model.refused(&log, item.seq));
            }
            memory.park(&log, &item).await
        };
        let result = self.watch.faults.call("parked table", effect).await;
        if let Some(ProcessorLease { lease, .. }) = lease.filter(|_| result.is_err()) {
            checked.attempts().unanswered(PARKED, &of, lease.attempts);
        }
        result
    }

    async fn list(
        &self,
        log: &LogId,
        from: (Seq, &str),
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let (memory, log) = (self.memory.clone(), log.clone());
        let (seq, identity) = (from.0, from.1.to_owned());
        let effect = async move { memory.list(&log, (seq, &identity), limit).await };
        self.watch.faults.call("parked table", effect).await
    }

    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable> {
        let (memory, watch) = (self.memory.clone(), self.watch.clone());
        let (of, is_lease) = (log.clone(), identity == ProcessorLease::IDENTITY);
        let (log, identity) = (log.clone(), identity.to_owned());
        let task = self.watch.world.task();
        let effect = async move {
            watch.note(|| format!("unpark {log} {seq} {identity}"));
            // Leases and the count of suspects are not commands.
            let is_command = identity != ProcessorLease::IDENTITY
                && !log.partition().starts_with("user:reactor:");
            if identity == Parked::UNPUBLISHED {
                watch.audit(|model| model.not_refused(&log, seq));
            } else if is_command {
                watch.audit(|model| model.unparked(&log, seq));
            }
            memory.remove(&log, seq, &identity).await
        };
        let result = self.watch.faults.call("parked table", effect).await;
        if is_lease {
            // A removal that got no answer may have no effect, so the lease may count as a crash.
            match result {
                Ok(()) => self.watch.attempts().ended(PARKED, &of, task),
                Err(_) => self.watch.attempts().unanswered(PARKED, &of, 1),
            }
        }
        result
    }
}

/// The messages that the topics refuse permanently: drawn once per seed.
#[derive(Debug, Clone, Copy)]
pub struct Refusal {
    /// Refuse messages of the logs in this third; `None`: refuse nothing.
    logs: Option<u64>,
    /// Also refuse commits without their entries in the message.
    by_reference: bool,
    /// Also refuse after all other faults have stopped.
    for_ever: bool,
}

impl Refusal {
    /// Draws what is refused: nothing in most runs.
    pub fn draw(world: &World) -> Self {
        Self {
            logs: world.happens(400).then(|| world.pick(0..3)),
            by_reference: world.happens(400),
            for_ever: world.happens(500),
        }
    }

    fn is_of(self, log: &LogId) -> bool {
        let sum: u64 = log.as_str().bytes().map(u64::from).sum();
        self.logs.is_some_and(|third| sum % 3 == third)
    }

    /// Whether commits of the log may stay unpublished permanently.
    pub fn keeps(self, log: &LogId) -> bool {
        self.by_reference && self.for_ever && self.is_of(log)
    }

    fn takes(self, message: &Message, faults: &Faults) -> bool {
        let refuses = |commit: &notification::ReceivedCommit| {
            self.is_of(&commit.log) && (self.by_reference || commit.entries.is_some())
        };
        !(self.for_ever || faults.are_on())
            || !notification::decode(&message.body).unwrap_or_default().iter().any(refuses)
    }
}

/// The topics.
pub struct SimTopic {
    /// Each subscriber's notifications.
    pub subscribers: Vec<Notifications>,
    /// The number of topics.
    pub topics: usize,
    /// The messages that the topics refuse.
    pub refusal: Refusal,
    /// Faults, auditor and trace.
    pub watch: Watch,
    /// The clock of deliveries.
    pub world: World,
}

#[async_trait]
impl MessageTopics for SimTopic {
    fn topics(&self) -> usize {
        self.topics
    }

    async fn publish_messages(
        &self,
        topic: usize,
        messages: &[Message],
    ) -> Result<Vec<Result<(), PublishError>>, Unavailable> {
        let left_out = self.watch.faults.parts_left_out(messages.len(), Fault::PartialPublish);
        let (watch, world, refusal) = (self.watch.clone(), self.world.clone(), self.refusal);
        let (subscribers, messages) = (self.subscribers.clone(), messages.to_vec());
        let effect = async move {
            let publish = |(message, left_out): (Message, bool)| {
                if left_out {
                    return Err(Unavailable::Throttled { hop: "topic" }.into());
                }
                if !refusal.takes(&message, &watch.faults) {
                    watch.faults.count(Fault::MessageRefused);
                    return Err(PublishError::Refused("injected".to_owned()));
                }
                watch.note(|| format!("publish {topic} {} bytes", message.body.len()));
                watch.audit(|model| model.published(&message.body));
                for subscriber in &subscribers {
                    subscriber.deliver(message.body.clone().into(), &watch.faults, &world);
                }
                Ok(())
            };
            Ok(messages.into_iter().zip(left_out).map(publish).collect())
        };
        self.watch.faults.call("topic", effect).await
    }
}
