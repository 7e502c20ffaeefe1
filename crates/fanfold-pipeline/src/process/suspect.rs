//! Suspects: records that may end the process. `docs/design.md#suspects`.
//!
//! A panic is caught, but a stack overflow, exhausted memory or an endless loop ends the process.
//! The only trace is a **lease** that was stored before the work and not removed after it: every
//! call that returns removes its own lease, whatever it returns.
//!
//! Event sources bisect failed batches and retry them, so a record that ends its process comes back
//! alone and old. A call with one old record is therefore suspect:
//!
//! - At first the call works as any other, behind a lease that counts the attempts.
//! - After [`Suspicion::attempts_max`] attempts its commands run and commit one at a time. The
//!   lease says which command runs, or that the log is being loaded.
//! - If that attempt ends the process, too, the lease shows the cause. A command becomes a fault
//!   without being run. If loading was the cause, the log's commands are parked.
//!
//! While the call of another process may be under way, the record comes again
//! later, and nothing is counted.
//!
//! A log with a suspect command parked above its tail is **held**: it cannot go on, and loading it
//! may be what ends the process. A nudge does nothing with it.
//!
//! A lease stays if its record comes back in a call that is not suspect. The sweep finds such a
//! lease and nudges the log; the call for the nudge removes the lease.

use std::sync::{PoisonError, RwLock};

use fanfold::host::body::lease::{ProcessorLease, Step};
use fanfold::host::body::parked::{Parked, Reason};
use fanfold::host::log::{Prepared, Work};
use fanfold::{Fault, Log, LogId, Seq, Time};

use super::gather::{Arrival, ReceivedRecord};
use super::tables::{Blocked, PARKED_PER_READ, PROVIDE_ROUNDS_MAX};
use super::{LogWork, Pass, Processor, prepared};
use crate::BatchOutcome;
use crate::leases::{CLOSE_BACKOFF, Leases, Others, Standing, take_lease};
use crate::parked_pages::ParkedPages;
use crate::ports::{Env, ParkedItem, Unavailable};

/// Source: a record that only failed succeeds before it is this old, or fails for a reason other
/// than itself. `docs/design.md#suspects`.
const AGE_MS: u64 = 5 * 60 * 1_000;
/// `docs/design.md#suspects`.
const ATTEMPTS_MAX: u32 = 3;
/// Source: if more commands are suspect, the cause is the service or the build, and not a single
/// command. `docs/design.md#suspects`.
const FAULTS_PER_HOUR_MAX: usize = 10;
const HOUR_MS: u64 = 60 * 60 * 1_000;

/// When a record is suspect of ending its process, and how the processor handles it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// A record that comes alone is suspect after it has been on the stream for so many
    /// milliseconds.
    pub age_ms: u64,
    /// Attempts that may end their process before the record's commands run one at a time. With 0
    /// they do so from the first attempt on.
    pub attempts_max: u32,
    /// Suspect commands of one service that may become faults within an hour. Further ones are
    /// parked.
    pub faults_per_hour_max: usize,
}

impl Default for Suspicion {
    fn default() -> Self {
        Self {
            age_ms: AGE_MS,
            attempts_max: ATTEMPTS_MAX,
            faults_per_hour_max: FAULTS_PER_HOUR_MAX,
        }
    }
}

/// How a processor treats suspects, and its leases.
pub(super) struct Suspects {
    suspicion: RwLock<Suspicion>,
    leases: Leases,
}

impl Suspects {
    pub(super) fn new(env: &dyn Env) -> Self {
        Self { suspicion: RwLock::default(), leases: Leases::new(env) }
    }
}

/// The state of a log whose commands run one at a time.
#[derive(Clone, Copy)]
pub(super) struct Caution {
    /// The attempts that have ended their processes.
    crashes: u32,
    /// The step at which the last attempt ended its process.
    crashed_at: Step,
    /// The deadline of this call.
    deadline: Time,
    faults_per_hour_max: usize,
}

/// What the parked table has of a log.
struct ParkedOfLog {
    lease: Option<ProcessorLease>,
    items: Vec<ParkedItem>,
    /// The seq of the first suspect above the tail.
    held_at: Option<Seq>,
}

impl Processor {
    /// Uses `suspicion` instead of the default.
    #[must_use]
    pub fn with_suspicion(self, suspicion: Suspicion) -> Self {
        self.suspect(suspicion);
        self
    }

    /// Assumes `others` about other processes, instead of the default.
    #[must_use]
    pub fn among(mut self, others: Others) -> Self {
        self.suspects.leases = self.suspects.leases.among(others);
        self
    }

    /// Uses `suspicion` for calls that begin from now on. For hosts that know more about the cause
    /// of a crash than the age of a record says, as after a second unclean start.
    pub fn suspect(&self, suspicion: Suspicion) {
        *self.suspects.suspicion.write().unwrap_or_else(PoisonError::into_inner) = suspicion;
    }

    /// Processes one record as suspect, however old it is. Otherwise as [`Processor::process`].
    pub async fn process_suspect(
        &self,
        record: &[ReceivedRecord],
        suspicion: Suspicion,
        deadline: Time,
    ) -> BatchOutcome {
        self.process_as(record, Some(suspicion).filter(|_| record.len() == 1), deadline).await
    }

    /// Whether a call with these records is suspect.
    pub(super) fn suspicion_of(&self, records: &[ReceivedRecord]) -> Option<Suspicion> {
        let [record] = records else { return None };
        let suspicion = *self.suspects.suspicion.read().unwrap_or_else(PoisonError::into_inner);
        let age_ms = self.ports.env.now().since_ms(record.arrived);
        (age_ms >= suspicion.age_ms).then_some(suspicion)
    }

    /// Checks whether the log may go on, and stores a lease if the call is suspect. It runs before
    /// anything is loaded, and reads the parked table only if the call is suspect or has a nudge,
    /// or if this process has parked something of the log.
    pub(super) async fn begin(
        &self,
        work: &mut LogWork,
        nudged: bool,
        suspicion: Option<Suspicion>,
        deadline: Time,
    ) -> Result<(), Blocked> {
        if suspicion.is_none() && !nudged && !self.cache.has_parked(&work.id) {
            return Ok(());
        }
        let ParkedOfLog { lease, items, held_at } = self.parked_of(&work.id).await?;
        let stored = lease.as_ref().map(|lease| &lease.lease);
        let standing = self.suspects.leases.read(stored, self.ports.env.now());
        let is_free = standing != Standing::UnderWay;
        work.has_lease = lease.is_some() && is_free && (suspicion.is_some() || nudged);
        if let Some(seq) = held_at {
            return Err(Blocked::Suspect(format!("the log waits for {seq}, which is suspect")));
        }
        // Only a record that comes alone leaves a lease: in a larger batch the cause is unknown.
        let Some(suspicion) = suspicion else { return Ok(()) };
        let Standing::Free { crashes, is_crash } = standing else { return Err(Blocked::UnderWay) };
        let crashed_at = lease.filter(|_| is_crash).map_or(Step::Whole, |lease| lease.step);
        if crashed_at == Step::Loading {
            let detail = format!("its process ended {crashes} times, at last while loading it");
            if nudged {
                self.hold_parked(&work.id, items, &detail).await?;
            }
            return Err(Blocked::Suspect(detail));
        }
        let faults_per_hour_max = suspicion.faults_per_hour_max;
        let is_alone = crashes >= suspicion.attempts_max || crashed_at != Step::Whole;
        let caution = Caution { crashes, crashed_at, deadline, faults_per_hour_max };
        work.caution = is_alone.then_some(caution);
        work.has_lease = true;
        let step = if is_alone { Step::Loading } else { Step::Whole };
        self.write(&work.id, crashes, step, deadline).await
    }

    /// Stores the next step in the lease, before the step can end the process. Does nothing unless
    /// commands run one at a time.
    pub(super) async fn write_step(&self, work: &LogWork, step: Step) -> Result<(), Blocked> {
        match work.caution {
            Some(caution) => self.write(&work.id, caution.crashes, step, caution.deadline).await,
            None => Ok(()),
        }
    }

    async fn write(
        &self,
        id: &LogId,
        crashes: u32,
        step: Step,
        deadline: Time,
    ) -> Result<(), Blocked> {
        let lease = self.suspects.leases.begin(crashes, self.ports.env.now(), deadline);
        let body = ProcessorLease { lease, step }.encode().map_err(Blocked::Unencodable)?.into();
        let item =
            ParkedItem { seq: Seq::ZERO, identity: ProcessorLease::IDENTITY.to_owned(), body };
        Ok(self.ports.parked.park(id, &item).await?)
    }

    /// Removes the lease, because the call returns.
    pub(super) async fn close(&self, id: &LogId) {
        let parked = &self.ports.parked;
        let mut attempt = 1;
        while let Err(error) = parked.remove(id, Seq::ZERO, ProcessorLease::IDENTITY).await {
            if !error.may_pass() || !CLOSE_BACKOFF.pause(attempt, &*self.ports.env).await {
                tracing::warn!(log = %id, %error, "the lease of a returned call stays until the sweep removes it: it may count as one crash");
                return;
            }
            attempt += 1;
        }
    }

    /// Decides the command that follows the tail, and appends its entry alone. Returns as `decide`
    /// does.
    pub(super) async fn decide_alone(
        &self,
        work: &mut LogWork,
        log: &mut Log,
        caution: Caution,
        deadline: Time,
    ) -> Result<Pass, Blocked> {
        let first = work.queue.front().filter(|arrival| arrival.seq == log.tail().next()).cloned();
        let Some(arrival) = first else { return Ok(Pass::Done) };
        let Arrival { seq, at, ref command, ref given_up, .. } = arrival;
        let next = if caution.crashed_at == Step::Deciding(seq) && given_up.is_none() {
            let detail = format!("it has ended its process {} times", caution.crashes);
            tracing::error!(alarm = "suspect", log = %work.id, %seq, detail, "the command may have crashed its process");
            if !self.may_fault(&work.id, seq, caution.faults_per_hour_max).await? {
                return self.hold(work, &detail).await;
            }
            let (command, prepared) = (command.clone(), Prepared::Faulted(Fault::new(detail)));
            Work { seq, at, command, prepared }
        } else {
            self.write_step(work, Step::Deciding(seq)).await?;
            prepared(log, &arrival)
        };
        for _ in 0..PROVIDE_ROUNDS_MAX {
            let wants = log.wants([&next]);
            if wants.is_empty() {
                break;
            }
            // Reading documents runs the author's code, too, but is not the command's fault.
            self.write_step(work, Step::Loading).await?;
            self.provide(log, wants, deadline).await?;
            if log.is_behind() {
                self.catch_up(log, deadline).await?;
                return Ok(Pass::Again);
            }
            self.write_step(work, Step::Deciding(seq)).await?;
        }
        self.commit(work, log, vec![next], deadline).await
    }

    /// Parks the queue: the first command as suspect, and those behind it as waiting for it.
    async fn hold(&self, work: &mut LogWork, detail: &str) -> Result<Pass, Blocked> {
        if let Some(arrival) = work.queue.front() {
            self.park(&work.id, arrival, Reason::Suspect, detail.to_owned()).await?;
            let behind = format!("the log waits for {}, which is suspect", arrival.seq);
            work.queue.pop_front();
            self.park_queue(work, Reason::Gap, &behind).await?;
            self.cache.note_parked(&work.id, true);
        }
        Ok(Pass::Done)
    }

    /// Marks what is parked and could go on as suspect: a nudge has no commands of its own to park.
    async fn hold_parked(
        &self,
        id: &LogId,
        items: Vec<ParkedItem>,
        detail: &str,
    ) -> Result<(), Blocked> {
        for item in items {
            if let Ok(parked) = Parked::decode(&item.body)
                && !parked.reason.is_for_operator()
            {
                let (reason, detail) = (Reason::Suspect, detail.to_owned());
                self.park_body(id, item.seq, &Parked { reason, detail, ..parked }).await?;
            }
        }
        Ok(())
    }

    async fn parked_of(&self, id: &LogId) -> Result<ParkedOfLog, Unavailable> {
        let is_suspect = |item: &ParkedItem| {
            Parked::decode(&item.body).is_ok_and(|parked| parked.reason == Reason::Suspect)
        };
        let (lease, mut items, is_whole) = self.parked_from(id, Seq::ZERO).await?;
        let mut held_at = None;
        if !is_whole || items.iter().any(is_suspect) {
            let tail = self.ports.journal.tail(id).await?;
            if !is_whole {
                items.extend(self.parked_from(id, tail.next()).await?.1);
            }
            let above = items.iter().filter(|item| item.seq > tail && is_suspect(item));
            held_at = above.map(|item| item.seq).min();
        }
        Ok(ParkedOfLog { lease, items, held_at })
    }

    /// The log's lease, about [`PARKED_PER_READ`] of the items from `from` on that are suspect or
    /// could go on, and whether these are all.
    async fn parked_from(
        &self,
        id: &LogId,
        from: Seq,
    ) -> Result<(Option<ProcessorLease>, Vec<ParkedItem>, bool), Unavailable> {
        let mut pages = ParkedPages::new(&*self.ports.parked, id, from, PARKED_PER_READ.get());
        let (mut lease, mut items) = (None, Vec::new());
        while items.len() < PARKED_PER_READ.get()
            && let Some(mut page) = pages.next().await?
        {
            lease = lease.or(take_lease(&mut page));
            items.extend(page.into_iter().filter(|item| {
                Parked::decode(&item.body).is_ok_and(|parked| {
                    parked.reason == Reason::Suspect || !parked.reason.is_for_operator()
                })
            }));
        }
        Ok((lease, items, pages.are_whole()))
    }

    /// Whether one more command of the service may become a fault within this hour; if so, counts
    /// it. The count is kept in the parked table, because memory would be lost with the processes
    /// whose ends are counted. It is under a log that no client can have, with the time as seq.
    async fn may_fault(&self, id: &LogId, seq: Seq, max: usize) -> Result<bool, Blocked> {
        let Ok(faults) = format!("{}/user:reactor:suspect", id.service()).parse::<LogId>() else {
            return Ok(true);
        };
        let parked = &self.ports.parked;
        let (now, identity) = (self.ports.env.now(), format!("{id}@{seq}"));
        let hour_ago = Seq(now.0.saturating_sub(HOUR_MS));
        let mut others = 0;
        for item in parked.list(&faults, (Seq::ZERO, ""), PARKED_PER_READ.get()).await? {
            if item.seq < hour_ago {
                parked.remove(&faults, item.seq, &item.identity).await?;
            } else {
                others += usize::from(item.identity != identity);
            }
        }
        if others >= max {
            return Ok(false);
        }
        let fault =
            ProcessorLease { lease: self.suspects.leases.end(now), step: Step::Deciding(seq) };
        let body = fault.encode().map_err(Blocked::Unencodable)?.into();
        parked.park(&faults, &ParkedItem { seq: Seq(now.0), identity, body }).await?;
        Ok(true)
    }
}
