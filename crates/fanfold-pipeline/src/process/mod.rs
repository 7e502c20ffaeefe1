//! The third stage: commands of the record stream become entries of their logs.
//!
//! Records are grouped by log; each log's commands are sorted by seq, and then, with the log as it
//! is in memory or loaded from the state table and the journal:
//!
//! - **done** (at or below the tail): compared with what stands there, and published again unless
//!   it is known to have been;
//! - **next**: decided, folded, appended to the journal;
//! - **beyond** a gap: another environment may have gone on, so the journal is read first, then
//!   what is parked. Still a gap: what is missing can only come in a later batch, because a batch
//!   that comes again never grows. So the commands are parked at once, and a nudge is put on the
//!   command stream, behind what is missing: it takes them up.
//!
//! Then everything is published, packed across logs; then snapshots are taken where due; only
//! then is the batch answered (F5). A log that fails stops no other (F7): it reports its first
//! unfinished record, and the others find their work done when the batch comes again. What ends
//! the process itself comes back alone: see [`Suspicion`].

mod cache;
mod gather;
mod publish;
mod suspect;
mod tables;

use std::collections::VecDeque;
use std::sync::Arc;

use fanfold::body::attempt::Step;
use fanfold::body::notification::Notice;
use fanfold::body::parked::{Parked, Reason};
use fanfold::log::{Place, Work};
use fanfold::{AnyService, Command, Log, LogId, Seq, Services, Time};

pub use gather::ReceivedRecord;
pub use suspect::Suspicion;

use self::cache::{Cache, WEIGHT_MAX};
use self::gather::{Arrival, LogBatch, gather};
use self::publish::Told;
use self::suspect::{Caution, Suspects};
use self::tables::{Appended, COMMITS_PER_READ, Stop, report_faults};
use crate::BatchOutcome;
use crate::at_once::{Pace, at_once};
use crate::breach::report;
use crate::ports::{CommandStream, Env, Journal, ParkedTable, State, Topic};

/// Logs of one batch that are worked on at the same time: enough to hide the latency of the
/// tables, few enough to stay below their connections. A batch may take long, and shares its
/// thread: others have their turn now and then.
const LOGS_AT_ONCE: Pace = Pace { limit: 32, turn: 32 };

/// How often one batch starts over on a log without getting anywhere: after a conflict, a gap that
/// closed, a catch-up.
const IDLE_PASSES_MAX: usize = 16;

/// Commands that are decided at a time: about what one commit holds when they are small.
const RUN_MAX: usize = 2_000;

/// What the stage needs.
#[derive(Clone)]
pub struct ProcessorPorts {
    /// The event logs.
    pub journal: Arc<dyn Journal>,
    /// Heads, documents, windows.
    pub state: Arc<dyn State>,
    /// What waits.
    pub parked: Arc<dyn ParkedTable>,
    /// Where commits are announced.
    pub topic: Arc<dyn Topic>,
    /// The stream that the records come from: for nudges.
    pub stream: Arc<dyn CommandStream>,
    /// Time and chance.
    pub env: Arc<dyn Env>,
}

/// The stage. One per environment: it keeps logs in memory between batches.
pub struct Processor {
    ports: ProcessorPorts,
    services: Services,
    cache: Cache,
    suspects: Suspects,
    canaries_are_told: bool,
}

/// One log's part of a batch, under way.
struct Lane {
    id: LogId,
    /// To be kept for the next batch.
    log: Option<Box<Log>>,
    /// By seq; an arrival leaves when it has its entry, or is parked.
    queue: VecDeque<Arrival>,
    /// Taken up from the parked table and done: removed there after publishing.
    unpark: Vec<(Seq, String)>,
    /// The commits to publish before the batch is answered, by their first seq.
    publish: Vec<Notice>,
    first_record: usize,
    /// The first record that must come again.
    unfinished: Option<usize>,
    /// Set if its commands go one at a time.
    caution: Option<Caution>,
    /// An attempt marker stands, and is removed when the call returns.
    marked: bool,
}

/// Whether a log has gone as far as it goes.
#[derive(PartialEq, Eq)]
enum Pass {
    Again,
    Done,
}

impl Processor {
    /// A processor with nothing in memory.
    pub fn new(ports: ProcessorPorts, services: Services) -> Self {
        let (cache, suspects) = (Cache::new(WEIGHT_MAX), Suspects::new(&*ports.env));
        Self { ports, services, cache, suspects, canaries_are_told: false }
    }

    /// Also publishes the commits of the service [`Canary`](fanfold::canary::Canary): for a host
    /// with a view of it. By default they count as published: subscribers could do nothing with them.
    #[must_use]
    pub fn with_canaries_told(mut self) -> Self {
        self.canaries_are_told = true;
        self
    }

    /// Keeps logs of about so many bytes together, instead of 128 MiB.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache = Cache::new(bytes);
        self
    }

    /// Processes a batch. What is not finished by the deadline is reported.
    pub async fn process(&self, records: &[ReceivedRecord], deadline: Time) -> BatchOutcome {
        let suspicion = self.suspicion_of(records);
        self.process_as(records, suspicion, deadline).await
    }

    async fn process_as(
        &self,
        records: &[ReceivedRecord],
        suspicion: Option<Suspicion>,
        deadline: Time,
    ) -> BatchOutcome {
        let batches = gather(records);
        let mut lanes: Vec<Lane> = Vec::with_capacity(batches.len());
        let batches = batches.into_iter().map(|batch| self.advance(batch, suspicion, deadline));
        at_once(LOGS_AT_ONCE, batches, |lane| lanes.push(lane)).await;

        lanes.iter_mut().for_each(Lane::publish_for_snapshot);
        let notices: Vec<&Notice> = lanes.iter().flat_map(|lane| &lane.publish).collect();
        let told = self.tell(&notices, deadline).await;

        let mut rest = told.as_slice();
        let finished = lanes.into_iter().map(|lane| {
            let told = rest.split_off(..lane.publish.len()).unwrap_or_default();
            self.finish(lane, told, deadline)
        });
        let mut outcome = BatchOutcome::DONE;
        at_once(LOGS_AT_ONCE, finished, |unfinished| {
            if let Some(index) = unfinished {
                outcome.fail_from(index);
            }
        })
        .await;
        outcome
    }

    /// Takes one log as far as it goes before publishing.
    async fn advance(&self, batch: LogBatch, suspicion: Option<Suspicion>, deadline: Time) -> Lane {
        let LogBatch { log, arrivals, nudged, first_record, unreadable } = batch;
        let mut lane = Lane {
            id: log,
            log: None,
            queue: arrivals.into(),
            unpark: Vec::new(),
            publish: Vec::new(),
            first_record,
            unfinished: None,
            caution: None,
            marked: false,
        };
        let parked = self.park_unreadable(&lane.id, &unreadable).await;
        let driven = match self.services.get(lane.id.service()).cloned() {
            Some(service) => match self.begin(&mut lane, nudged, suspicion, deadline).await {
                Ok(()) => self.drive(&mut lane, service, nudged, deadline).await,
                Err(stop) => Err(stop),
            },
            None => Err(Stop::NoService),
        };
        let driven = match driven {
            Err(Stop::NoService) => {
                let detail = format!("no service `{}` is registered here", lane.id.service());
                self.park_queue(&mut lane, Reason::NoService, &detail).await
            }
            Err(Stop::CannotFold(error)) => self.park_unfoldable(&mut lane, &error).await,
            Err(Stop::Damaged(error)) => self.park_unfoldable(&mut lane, &error).await,
            Err(Stop::Breach(breach)) => {
                report(&lane.id, &breach);
                self.park_queue(&mut lane, Reason::CannotFold, &breach.to_string()).await
            }
            Err(Stop::Suspect(detail)) => {
                tracing::error!(alarm = "suspect", log = %lane.id, detail);
                let parked = self.park_queue(&mut lane, Reason::Suspect, &detail).await;
                self.cache.note_parked(&lane.id, true);
                parked
            }
            driven => driven,
        };
        if let Err(stop) = driven {
            tracing::debug!(log = %lane.id, %stop, "the log's commands must come again");
            let first = lane.queue.iter().filter_map(|arrival| arrival.record).min();
            lane.fail_from(first.unwrap_or(lane.first_record));
        }
        if let Err(stop) = parked {
            tracing::debug!(log = %lane.id, %stop, "what cannot be read must come again");
            lane.fail_from(lane.first_record);
        }
        self.look_for_newer_head(&mut lane).await;
        lane
    }

    async fn drive(
        &self,
        lane: &mut Lane,
        service: Arc<dyn AnyService>,
        nudged: bool,
        deadline: Time,
    ) -> Result<(), Stop> {
        let mut log = match self.cache.take(&lane.id).filter(|_| !nudged) {
            Some(log) => log,
            None => Box::new(self.load(&lane.id, &service, deadline).await?),
        };
        let driven = self.passes(lane, &mut log, nudged, deadline).await;
        let intact = !matches!(driven, Err(Stop::CannotFold(_) | Stop::Breach(_)));
        // What was decided and is perhaps not stored is forgotten with the log.
        if intact && log.is_settled() {
            lane.log = Some(log);
        }
        driven
    }

    async fn passes(
        &self,
        lane: &mut Lane,
        log: &mut Log,
        nudged: bool,
        deadline: Time,
    ) -> Result<(), Stop> {
        if nudged {
            // Also what has its entry already, and was not removed.
            self.take_up_parked(lane, log, Seq::ZERO).await?;
            lane.publish_through(log, log.tail());
        }
        if nudged || self.cache.has_parked(&lane.id) {
            self.take_up_parked(lane, log, log.tail().next()).await?;
        }
        let mut idle = 0;
        while idle < IDLE_PASSES_MAX {
            self.check(deadline)?;
            let waiting = lane.queue.len();
            self.settle(lane, log, deadline).await?;
            let decided = self.decide(lane, log, deadline).await?;
            let pass = match lane.queue.front().map(|arrival| log.place(arrival.seq)) {
                None => Pass::Done,
                _ if decided == Pass::Again => Pass::Again,
                Some(Place::Beyond) => self.close_gap(lane, log, deadline).await?,
                Some(Place::Done | Place::Next) => Pass::Again,
            };
            if pass == Pass::Done {
                return Ok(());
            }
            idle = if lane.queue.len() < waiting { 0 } else { idle + 1 };
        }
        Err(Stop::Contended)
    }

    /// Takes out of the queue what has its entry already: a repeat of the record stream.
    async fn settle(&self, lane: &mut Lane, log: &Log, deadline: Time) -> Result<(), Stop> {
        let done = lane.queue.partition_point(|a| log.place(a.seq) == Place::Done);
        let below = lane.queue.iter().take(done).take_while(|a| a.seq <= log.head());
        let below: Vec<Seq> = below.map(|a| a.seq).collect();
        let stored = self.commands_at(&lane.id, &below, COMMITS_PER_READ, deadline).await?;
        for _ in 0..done {
            let Some(arrival) = lane.queue.front() else { break };
            let (seq, command) = (arrival.seq, &arrival.command);
            let entry = log.command_at(seq).or_else(|| stored.get(&seq));
            let same = entry.is_some_and(|e| e.origin == command.origin && e.id == command.id);
            if same {
                if let Some(notice) = log.unpublished_at(seq) {
                    lane.publish(notice.clone());
                }
                lane.take_front();
            } else {
                let detail = format!("{entry:?} stands at {seq}");
                tracing::error!(alarm = "conflict", log = %lane.id, %seq, detail);
                self.park(&lane.id, arrival, Reason::Conflict, detail).await?;
                lane.queue.pop_front();
            }
        }
        Ok(())
    }

    /// Decides the run of commands that follows the tail, and appends it. `Again`: the log is not
    /// where memory had it; `log` is then up to date, and nothing was decided.
    async fn decide(&self, lane: &mut Lane, log: &mut Log, deadline: Time) -> Result<Pass, Stop> {
        if let Some(caution) = lane.caution {
            return self.decide_alone(lane, log, caution, deadline).await;
        }
        let mut works: Vec<Work> = Vec::new();
        for arrival in &lane.queue {
            if works.len() == RUN_MAX {
                break;
            }
            let next = log.tail().plus(works.len() as u64 + 1);
            // Another command for a seq that is taken stays behind, and is settled later.
            if arrival.seq == next {
                works.push(log.prepare(arrival.seq, arrival.at, arrival.command.clone()));
            } else if arrival.seq > next {
                break;
            }
        }
        self.provide_for(log, &works, deadline).await?;
        if log.is_behind() {
            self.catch_up(log, deadline).await?;
            return Ok(Pass::Again);
        }
        self.commit(lane, log, works, deadline).await
    }

    /// Decides what is prepared, and appends it.
    async fn commit(
        &self,
        lane: &mut Lane,
        log: &mut Log,
        works: Vec<Work>,
        deadline: Time,
    ) -> Result<Pass, Stop> {
        let now = self.ports.env.now();
        let commands: Vec<Arc<Command>> = works.iter().map(|work| work.command.clone()).collect();
        for work in works {
            // Each stands behind the one before it: none is handed back.
            let _ = log.decide(work, now);
        }
        let mut commands = commands.iter();
        for mut sealed in log.seal() {
            if self.append(&lane.id, &mut sealed).await? == Appended::Conflict {
                self.mark(lane, Step::Loading).await?;
                *log = self.load(&lane.id, &log.service().clone(), deadline).await?;
                return Ok(Pass::Again);
            }
            let notice = sealed.notice.clone();
            report_faults(&notice);
            log.acknowledge(sealed)?;
            for command in commands.by_ref().take(notice.entries.len()) {
                lane.take(command);
            }
            lane.publish(notice);
        }
        Ok(Pass::Done)
    }

    /// Something is missing before the queue's first command.
    async fn close_gap(
        &self,
        lane: &mut Lane,
        log: &mut Log,
        deadline: Time,
    ) -> Result<Pass, Stop> {
        let tail = log.tail();
        self.mark(lane, Step::Loading).await?;
        self.catch_up(log, deadline).await?;
        self.take_up_parked(lane, log, log.tail().next()).await?;
        let closed = |lane: &Lane, log: &Log| {
            lane.queue.front().is_none_or(|a| log.place(a.seq) != Place::Beyond)
        };
        if log.tail() > tail || closed(lane, log) {
            return Ok(Pass::Again);
        }
        let parks_more = lane.queue.iter().any(|arrival| !arrival.parked);
        let detail = format!("the log ends at {tail}");
        self.park_queue(lane, Reason::Gap, &detail).await?;
        // Who closed the gap meanwhile did not yet see what is parked now.
        self.catch_up(log, deadline).await?;
        if log.tail() > tail {
            self.take_up_parked(lane, log, tail.next()).await?;
            return Ok(Pass::Again);
        }
        // A nudge parks nothing that was not parked before, and so puts no other.
        if parks_more {
            self.nudge(&lane.id, deadline).await;
        }
        Ok(Pass::Done)
    }

    /// After publishing: what is stored and told is noted, what was parked for it removed, a
    /// snapshot taken if due. Returns the first record that must come again.
    /// `told` says of each of the lane's commits, in order, what became of it.
    async fn finish(&self, mut lane: Lane, told: &[Told], deadline: Time) -> Option<usize> {
        let all = told.iter().all(Told::is_done);
        if let Some(log) = &mut lane.log {
            let done = lane.publish.iter().zip(told).filter(|(_, told)| told.is_done());
            done.for_each(|(notice, _)| log.published(notice.first()));
        }
        lane.keep_refused(told);
        if !all {
            lane.fail_from(lane.first_record);
        }
        if all && let Err(stop) = self.remove_parked(&lane).await {
            // It stays parked though it is done: whoever takes it up next finds that out.
            tracing::debug!(log = %lane.id, %stop, "a parked command was not removed");
        }
        if let Some(mut log) = lane.log.take() {
            // A snapshot runs the author's code, and can be made later.
            if lane.caution.is_none() && self.ports.env.now() < deadline {
                self.snapshot(&mut log).await;
            }
            self.cache.keep(log);
        }
        if lane.marked {
            self.close(&lane.id).await;
        }
        lane.unfinished
    }
}

impl Lane {
    fn fail_from(&mut self, record: usize) {
        self.unfinished = Some(self.unfinished.map_or(record, |at| at.min(record)));
    }

    /// Puts the queue in the order of seqs again; what is in it twice becomes one.
    fn sort(&mut self) {
        let mut arrivals: Vec<Arrival> = self.queue.drain(..).collect();
        arrivals.sort_by_key(|arrival| arrival.seq);
        for arrival in arrivals {
            let same_seq = self.queue.iter_mut().rev().take_while(|a| a.seq == arrival.seq);
            match same_seq.into_iter().find(|queued| queued.is_repeat_of(&arrival)) {
                Some(queued) => {
                    queued.parked |= arrival.parked;
                    queued.record = queued.record.or(arrival.record);
                }
                None => self.queue.push_back(arrival),
            }
        }
    }

    /// The first arrival has its entry.
    fn take_front(&mut self) {
        if let Some(Arrival { seq, command, parked: true, .. }) = self.queue.pop_front() {
            self.unpark.push((seq, command.identity()));
        }
    }

    /// The arrival of this very command has its entry.
    fn take(&mut self, command: &Arc<Command>) {
        let at = self.queue.iter().position(|arrival| Arc::ptr_eq(&arrival.command, command));
        if let Some(Arrival { seq, parked: true, .. }) = at.and_then(|at| self.queue.remove(at)) {
            self.unpark.push((seq, command.identity()));
        }
    }

    /// Adds a commit to what is to be published, unless it is there.
    fn publish(&mut self, notice: Notice) {
        let first = notice.first();
        // Most often it is behind all others.
        if self.publish.last().is_none_or(|last| last.first() < first) {
            self.publish.push(notice);
        } else if let Err(at) = self.publish.binary_search_by_key(&first, Notice::first) {
            self.publish.insert(at, notice);
        }
    }

    /// What stays parked because the topic has refused it again.
    fn keep_refused(&mut self, told: &[Told]) {
        for (notice, _) in self.publish.iter().zip(told).filter(|(_, t)| **t != Told::Published) {
            let refused = (notice.first(), Parked::UNPUBLISHED);
            self.unpark.retain(|(seq, identity)| (*seq, identity.as_str()) != refused);
        }
    }

    fn publish_through(&mut self, log: &Log, through: Seq) {
        log.unpublished(through).for_each(|notice| self.publish(notice.clone()));
    }

    /// Whether a snapshot may be due, and what others have appended would have to be published
    /// for it, again.
    fn would_repeat_others(&self) -> bool {
        self.log.as_ref().is_some_and(|log| {
            let mut untold = log.unpublished(log.tail()).map(Notice::first);
            let ours = |first| self.publish.binary_search_by_key(&first, Notice::first).is_ok();
            log.may_snapshot() && log.is_settled() && untold.any(|first| !ours(first))
        })
    }

    /// A head says that everything up to it is published: also what others appended.
    fn publish_for_snapshot(&mut self) {
        if let Some(log) = self.log.take() {
            if log.may_snapshot() && log.is_settled() {
                self.publish_through(&log, log.tail());
            }
            self.log = Some(log);
        }
    }
}
