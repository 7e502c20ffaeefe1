//! The third stage: commands of the command stream become entries of their logs.
//!
//! The processor groups a batch's records by log and sorts each log's commands by seq. With the log
//! from its cache, or loaded from the state table and the journal, a command is:
//!
//! - **done** (at or below the tail): the processor compares it with the entry there, and publishes
//!   that entry's commit again unless it knows that the commit was published;
//! - **next**: the processor decides and folds it, and appends its entry to the journal;
//! - **beyond** a gap: another environment may have gone on, so the processor first reads the
//!   journal and then what is parked. If the gap remains, the missing commands can only come in a
//!   later batch, because a batch that comes again never grows. So the processor parks the commands
//!   at once, and puts a nudge on the command stream behind the missing ones. The nudge takes the
//!   parked commands up.
//!
//! Then the processor publishes all commits, takes the snapshots that are due, and only then
//! answers the batch (F5). A log that fails stops no other (F7): it reports its first unfinished
//! record, and the other logs find their work done when the batch comes again. A record that ends
//! the process comes back alone: see [`Suspicion`].

mod cache;
mod gather;
mod publish;
mod suspect;
mod tables;
mod work;

use std::collections::VecDeque;
use std::sync::Arc;

use fanfold::host::body::lease::Step;
use fanfold::host::body::notification::Commit;
use fanfold::host::body::parked::Reason;
use fanfold::host::knob::Knob;
use fanfold::host::log::{Place, Sent, Work};
use fanfold::{AnyService, Command, Log, LogId, Seq, Services, Time};

pub use gather::ReceivedRecord;
pub use suspect::Suspicion;

use self::cache::{Cache, WEIGHT_MAX};
use self::gather::{Arrival, LogBatch, gather};
use self::publish::Publication;
use self::suspect::{Caution, Suspects};
use self::tables::{Appended, Blocked, COMMITS_PER_READ, report_faults};
use crate::BatchOutcome;
use crate::at_once::{Pace, at_once};
use crate::breach::report;
use crate::ports::{CommandStream, Env, Journal, ParkedTable, State, Topic};
use crate::telemetry::Telemetry;
use crate::traces::{Hop, Tracing, of_entries};

/// Logs of one batch that are processed at the same time. Source: our choice, enough to hide the
/// latency of the tables, and fewer than their connections. A batch may take long and shares its
/// thread, so it yields after every `turn` logs.
const LOGS_AT_ONCE: Pace = Pace { limit: 32, turn: 32 };

/// How many passes over a log may make no progress in one batch: after a conflict, a gap that
/// closed, or a catch-up.
const IDLE_PASSES_MAX: usize = 16;

/// Commands that are decided at a time. Source: about what one commit holds if they are small.
const RUN_MAX: Knob = Knob::new(2_000, 1);

/// The ports of the processor.
#[derive(Clone)]
pub struct ProcessorPorts {
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Heads, documents and windows.
    pub state: Arc<dyn State>,
    /// Parked items, and the processor's leases.
    pub parked: Arc<dyn ParkedTable>,
    /// Where commits are published.
    pub topic: Arc<dyn Topic>,
    /// The stream that the records come from. Nudges go there.
    pub stream: Arc<dyn CommandStream>,
    /// Time and randomness.
    pub env: Arc<dyn Env>,
}

/// The stage. There is one per environment, because it keeps logs in memory between batches.
pub struct Processor {
    ports: ProcessorPorts,
    services: Services,
    cache: Cache,
    suspects: Suspects,
    publishes_canaries: bool,
    telemetry: Option<Arc<Telemetry>>,
}

/// The work of a batch on one log.
struct LogWork {
    id: LogId,
    /// The log, if the cache may keep it.
    log: Option<Box<Log>>,
    /// By seq. An arrival leaves when it has its entry or is parked.
    queue: VecDeque<Arrival>,
    /// Items taken up from the parked table that are done. They are removed there after publishing.
    unpark: Vec<(Seq, String)>,
    /// More may be parked than this call took up.
    more_parked: bool,
    /// The commits to publish before the batch is answered, by their first seq.
    publish: Vec<Commit>,
    first_record: usize,
    /// The first record that must come again.
    unfinished: Option<usize>,
    /// Set if the log's commands run and commit one at a time.
    caution: Option<Caution>,
    /// A lease is stored, and must be removed when the call returns.
    has_lease: bool,
    /// The most commands of the next run. It shrinks when a decision asks for a document that is not
    /// in memory, since the rest of the run was prepared in vain, and doubles after a whole run.
    run_max: usize,
    tracing: Tracing,
}

/// Whether a log needs another pass.
#[derive(PartialEq, Eq)]
enum Pass {
    Again,
    Done,
}

impl Processor {
    /// A processor with nothing in memory.
    pub fn new(ports: ProcessorPorts, services: Services) -> Self {
        let (cache, suspects) = (Cache::new(WEIGHT_MAX), Suspects::new(&*ports.env));
        Self { ports, services, cache, suspects, publishes_canaries: false, telemetry: None }
    }

    /// Also publishes the commits of the service [`Canary`](fanfold::host::canary::Canary): for a host
    /// with a view of it. By default they count as published, since no subscriber can read them.
    #[must_use]
    pub fn with_canaries_published(mut self) -> Self {
        self.publishes_canaries = true;
        self
    }

    /// Keeps logs of about `bytes` together in memory, instead of 128 MiB.
    #[must_use]
    pub fn with_cache_bytes(mut self, bytes: usize) -> Self {
        self.cache = Cache::new(bytes);
        self
    }

    /// Measures into `telemetry`; `None`: nothing.
    #[must_use]
    pub fn with_telemetry(mut self, telemetry: Option<Arc<Telemetry>>) -> Self {
        self.telemetry = telemetry;
        self
    }

    /// The traces of work that begins now.
    fn tracing(&self) -> Tracing {
        self.telemetry.as_ref().map(|telemetry| telemetry.begin()).unwrap_or_default()
    }

    /// Processes a batch, and reports what is not finished by the deadline.
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
        let mut works: Vec<LogWork> = Vec::with_capacity(batches.len());
        let batches = batches.into_iter().map(|batch| self.work_on(batch, suspicion, deadline));
        at_once(LOGS_AT_ONCE, batches, |work| works.push(work)).await;

        works.iter_mut().for_each(LogWork::publish_for_snapshot);
        let commits: Vec<&Commit> = works.iter().flat_map(|work| &work.publish).collect();
        let publications = self.publish(&commits, deadline).await;

        let mut rest = publications.as_slice();
        let finished = works.into_iter().map(|work| {
            let publications = rest.split_off(..work.publish.len()).unwrap_or_default();
            self.finish(work, publications, deadline)
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

    /// Does everything for one log that comes before publishing.
    async fn work_on(
        &self,
        batch: LogBatch,
        suspicion: Option<Suspicion>,
        deadline: Time,
    ) -> LogWork {
        let LogBatch { log, arrivals, nudged, first_record, unreadable } = batch;
        let mut work = LogWork {
            id: log,
            log: None,
            queue: arrivals.into(),
            unpark: Vec::new(),
            more_parked: false,
            publish: Vec::new(),
            first_record,
            unfinished: None,
            caution: None,
            has_lease: false,
            run_max: RUN_MAX.get(),
            tracing: self.tracing(),
        };
        let parked = self.park_unreadable(&work.id, &unreadable).await;
        let driven = match self.services.get(work.id.service()).cloned() {
            Some(service) => match self.begin(&mut work, nudged, suspicion, deadline).await {
                Ok(()) => self.drive(&mut work, service, nudged, deadline).await,
                Err(blocked) => Err(blocked),
            },
            None => Err(Blocked::NoService),
        };
        let driven = match driven {
            Err(Blocked::NoService) => {
                let detail = format!("no service `{}` is registered here", work.id.service());
                self.park_queue(&mut work, Reason::NoService, &detail).await
            }
            Err(Blocked::CannotFold(error)) => self.park_unfoldable(&mut work, &error).await,
            Err(Blocked::Damaged(error)) => self.park_unfoldable(&mut work, &error).await,
            Err(Blocked::Breach(breach)) => {
                report(&work.id, &breach);
                self.park_queue(&mut work, Reason::CannotFold, &breach.to_string()).await
            }
            Err(Blocked::Suspect(detail)) => {
                tracing::error!(alarm = "suspect", log = %work.id, detail, "the log may have crashed its process: its commands are parked");
                let parked = self.park_queue(&mut work, Reason::Suspect, &detail).await;
                self.cache.note_parked(&work.id, true);
                parked
            }
            driven => driven,
        };
        if let Err(blocked) = driven {
            tracing::debug!(log = %work.id, %blocked, "the stream must deliver the log's commands again");
            let first = work.queue.iter().filter_map(|arrival| arrival.record).min();
            work.fail_from(first.unwrap_or(work.first_record));
        }
        if let Err(blocked) = parked {
            tracing::debug!(log = %work.id, %blocked, "the stream must deliver the unreadable records again");
            work.fail_from(work.first_record);
        }
        self.look_for_newer_head(&mut work).await;
        work
    }

    async fn drive(
        &self,
        work: &mut LogWork,
        service: Arc<dyn AnyService>,
        nudged: bool,
        deadline: Time,
    ) -> Result<(), Blocked> {
        let cached = self.cache.take(&work.id).filter(|_| !nudged);
        if let Some(telemetry) = &self.telemetry {
            telemetry.looked_up(cached.is_some());
        }
        let mut log = match cached {
            Some(log) => log,
            None => Box::new(self.load(&work.id, &service, deadline).await?),
        };
        let driven = self.passes(work, &mut log, nudged, deadline).await;
        let intact = !matches!(driven, Err(Blocked::CannotFold(_) | Blocked::Breach(_)));
        // Otherwise the log in memory may have entries that the journal does not have.
        if intact && log.is_settled() {
            work.log = Some(log);
        }
        driven
    }

    async fn passes(
        &self,
        work: &mut LogWork,
        log: &mut Log,
        nudged: bool,
        deadline: Time,
    ) -> Result<(), Blocked> {
        if nudged {
            // From zero on, to find items that have their entries but were not removed.
            self.take_up_parked(work, log, Seq::ZERO, deadline).await?;
            work.publish_through(log, log.tail());
        }
        if nudged || self.cache.has_parked(&work.id) {
            self.take_up_parked(work, log, log.tail().next(), deadline).await?;
        }
        let mut idle = 0;
        while idle < IDLE_PASSES_MAX {
            self.check(deadline)?;
            let waiting = work.queue.len();
            self.settle(work, log, deadline).await?;
            let decided = self.decide(work, log, deadline).await?;
            let pass = match work.queue.front().map(|arrival| log.place(arrival.seq)) {
                None => Pass::Done,
                _ if decided == Pass::Again => Pass::Again,
                Some(Place::Beyond) => self.close_gap(work, log, deadline).await?,
                Some(Place::Done | Place::Next) => Pass::Again,
            };
            if pass == Pass::Done {
                return Ok(());
            }
            idle = if work.queue.len() < waiting { 0 } else { idle + 1 };
        }
        Err(Blocked::Contended)
    }

    /// Takes the commands that have their entries out of the queue: they are repeats of the stream.
    async fn settle(&self, work: &mut LogWork, log: &Log, deadline: Time) -> Result<(), Blocked> {
        let done = work.queue.partition_point(|a| log.place(a.seq) == Place::Done);
        let below = work.queue.iter().take(done).take_while(|a| a.seq <= log.head());
        let below: Vec<Seq> = below.map(|a| a.seq).collect();
        let stored = self.commands_at(&work.id, &below, COMMITS_PER_READ.get(), deadline).await?;
        for _ in 0..done {
            let Some(arrival) = work.queue.front() else { break };
            let (seq, command) = (arrival.seq, &arrival.command);
            let entry = log.command_at(seq).or_else(|| stored.get(&seq));
            let same = entry.is_some_and(|e| e.origin == command.origin && e.id == command.id);
            // A command that was given up has an entry now: that, or its own if it came after all.
            if same || arrival.given_up.is_some() {
                if let Some(commit) = log.unpublished_at(seq) {
                    work.publish(commit.clone());
                }
                work.take_front();
            } else {
                let detail = match entry {
                    None => format!("the entry {seq} does not say of which command it is"),
                    Some(entry) if entry.command.is_none() => {
                        format!("the command at {seq} was given up, and its entry is `lost`")
                    }
                    Some(Sent { origin, id, .. }) => {
                        format!("the entry {seq} is of the command {origin}#{id}")
                    }
                };
                tracing::error!(alarm = "conflict", log = %work.id, %seq, detail, "the journal has another command at this seq: the late one is parked");
                self.park(&work.id, arrival, Reason::Conflict, detail).await?;
                work.queue.pop_front();
            }
        }
        Ok(())
    }

    /// Decides the run of commands that follows the tail, and appends it. `Again`: another
    /// environment has appended to the log. Then nothing was decided, and `log` is up to date.
    async fn decide(
        &self,
        work: &mut LogWork,
        log: &mut Log,
        deadline: Time,
    ) -> Result<Pass, Blocked> {
        if let Some(caution) = work.caution {
            return self.decide_alone(work, log, caution, deadline).await;
        }
        let mut works: Vec<Work> = Vec::new();
        for arrival in &work.queue {
            if works.len() == work.run_max {
                break;
            }
            let next = log.tail().plus(works.len() as u64 + 1);
            // A second command for the same seq stays in the queue, and `settle` parks it.
            if arrival.seq == next {
                works.push(prepared(log, arrival));
            } else if arrival.seq > next {
                break;
            }
        }
        self.provide_for(log, &works, deadline).await?;
        if log.is_behind() {
            self.catch_up(log, deadline).await?;
            return Ok(Pass::Again);
        }
        self.commit(work, log, works, deadline).await
    }

    /// Decides the prepared commands, and appends their entries.
    async fn commit(
        &self,
        work: &mut LogWork,
        log: &mut Log,
        works: Vec<Work>,
        deadline: Time,
    ) -> Result<Pass, Blocked> {
        let now = self.ports.env.now();
        let commands: Vec<Arc<Command>> = works.iter().map(|work| work.command.clone()).collect();
        let mut decided = 0;
        for next in works {
            // Each has the seq after the one before it. So if the log does not decide one, its
            // service asks for documents that are not in memory, and the next pass loads them.
            if log.decide(next, now).is_err() {
                break;
            }
            decided += 1;
        }
        work.run_max = match decided == commands.len() {
            true => (2 * work.run_max).min(RUN_MAX.get()),
            false => decided.max(1),
        };
        let mut commands = commands.iter();
        for mut sealed in log.seal() {
            if self.append(&work.id, &mut sealed).await? == Appended::Conflict {
                self.write_step(work, Step::Loading).await?;
                *log = self.load(&work.id, &log.service().clone(), deadline).await?;
                return Ok(Pass::Again);
            }
            let commit = sealed.commit.clone();
            report_faults(&commit);
            if let Some(telemetry) = &self.telemetry {
                telemetry.decided(&work.id, &commit.entries, self.ports.env.now());
            }
            work.tracing.report(Hop::Decide, || of_entries(&commit.log, commit.entries.iter()));
            log.acknowledge(sealed)?;
            for command in commands.by_ref().take(commit.entries.len()) {
                work.take(command);
            }
            work.publish(commit);
        }
        Ok(Pass::Done)
    }

    /// Handles a gap before the queue's first command: closes it, or parks the queue.
    async fn close_gap(
        &self,
        work: &mut LogWork,
        log: &mut Log,
        deadline: Time,
    ) -> Result<Pass, Blocked> {
        let tail = log.tail();
        self.write_step(work, Step::Loading).await?;
        self.catch_up(log, deadline).await?;
        self.take_up_parked(work, log, log.tail().next(), deadline).await?;
        let closed = |work: &LogWork, log: &Log| {
            work.queue.front().is_none_or(|a| log.place(a.seq) != Place::Beyond)
        };
        if log.tail() > tail || closed(work, log) {
            return Ok(Pass::Again);
        }
        let parks_more = work.queue.iter().any(|arrival| !arrival.parked);
        let detail = format!("the log ends at {tail}");
        self.park_queue(work, Reason::Gap, &detail).await?;
        // An environment that closed the gap meanwhile may not have seen what was parked now.
        self.catch_up(log, deadline).await?;
        if log.tail() > tail {
            self.take_up_parked(work, log, tail.next(), deadline).await?;
            return Ok(Pass::Again);
        }
        // A nudge parks nothing new, so it does not put another nudge.
        if parks_more {
            self.nudge(&work.id, deadline).await;
        }
        Ok(Pass::Done)
    }

    /// Runs after publishing: notes the published commits, removes their parked items, and takes a
    /// snapshot if one is due. Returns the first record that must come again. `publications` has
    /// one item per commit of `work`, in order.
    async fn finish(
        &self,
        mut work: LogWork,
        publications: &[Publication],
        deadline: Time,
    ) -> Option<usize> {
        let all = publications.iter().all(|publication| publication.is_done());
        if let Some(log) = &mut work.log {
            let done = work.publish.iter().zip(publications).filter(|(_, p)| p.is_done());
            done.for_each(|(commit, _)| log.published(commit.first()));
        }
        work.keep_refused(publications);
        if !all {
            work.fail_from(work.first_record);
        }
        if all {
            match self.remove_parked(&work).await {
                // The nudge takes up more. Each such nudge follows a removal, so they end.
                Ok(()) if work.more_parked && !work.unpark.is_empty() => {
                    self.nudge(&work.id, deadline).await;
                }
                Ok(()) => {}
                // The item stays parked although it is done. The next nudge finds its entry and
                // removes it.
                Err(blocked) => {
                    tracing::debug!(log = %work.id, %blocked, "a parked command was not removed");
                }
            }
        }
        if let Some(mut log) = work.log.take() {
            // A snapshot runs the author's code, and can be taken later.
            if work.caution.is_none() && self.ports.env.now() < deadline {
                self.snapshot(&mut log).await;
            }
            self.cache.keep(log);
        }
        if work.has_lease {
            self.close(&work.id).await;
        }
        work.unfinished
    }
}

/// The work of a command. Nothing is read of one that was given up.
fn prepared(log: &Log, arrival: &Arrival) -> Work {
    let Arrival { seq, at, command, .. } = arrival;
    match &arrival.given_up {
        Some(reason) => Log::give_up(*seq, *at, command.clone(), reason.clone()),
        None => log.prepare(*seq, *at, command.clone()),
    }
}

#[cfg(test)]
mod tests;
