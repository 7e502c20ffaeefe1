//! Suspect mode: what ends the process itself.
//!
//! A panic is caught. A stack overflow, memory, an endless loop end the process, and leave nothing
//! behind that says so but a **marker** that was stored before, and not removed: every call that
//! returns removes its own, whatever it returns.
//!
//! What ends its process comes back alone, by bisection, and grows old. So a call is suspect if it
//! has one record, and that is old:
//!
//! - it goes on as any other, behind a marker that counts the attempts;
//! - after as many as are allowed its commands run and commit one at a time, and the marker says
//!   which is at hand, or that the log is being loaded;
//! - where that attempt ends, too, shows what it was: the command becomes a fault without being
//!   run; or, while loading, the log's commands are parked.
//!
//! A marker is a lease: while the call of another process may be under way, its record, or a repeat
//! of that, comes again later, and nothing is counted.
//!
//! A log with such a command parked above its tail is **held**: it can go no further, and loading
//! it is perhaps what ends the process. A nudge does nothing with it.
//!
//! A marker outlives its record if that comes back in another call, which is not suspect. The sweep
//! finds it, and a nudge's return removes it.

use std::sync::{PoisonError, RwLock};

use fanfold::body::attempt::{Attempt, Step};
use fanfold::body::parked::{Parked, Reason};
use fanfold::log::{Prepared, Work};
use fanfold::{Fault, Log, LogId, Seq, Time};

use super::gather::{Arrival, ReceivedRecord};
use super::tables::{Blocked, PARKED_PER_READ};
use super::{LogWork, Pass, Processor};
use crate::BatchOutcome;
use crate::leases::{CLOSE_BACKOFF, Leases, Others, Standing, take_marker};
use crate::ports::{Env, ParkedItem, Unavailable};

/// What only fails comes through before it is so old, or fails for another reason than itself.
/// `docs/design.md#suspects`.
const AGE_MS: u64 = 5 * 60 * 1_000;
/// `docs/design.md#suspects`.
const ATTEMPTS_MAX: u32 = 3;
/// `docs/design.md#suspects`. More of them are the service's fault, or the build's, and no single
/// command's.
const FAULTS_PER_HOUR_MAX: usize = 10;
const HOUR_MS: u64 = 60 * 60 * 1_000;

/// When a record is suspect of ending its process, and what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// A lone record is suspect once it has been on the stream for so long, in milliseconds.
    pub age_ms: u64,
    /// Attempts that may go by without a return, before its commands go one at a time. With 0 they
    /// do so from the first attempt on.
    pub attempts_max: u32,
    /// Commands of one service that may be faulted for it within an hour; what is beyond is parked.
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

/// What a processor keeps of it.
pub(super) struct Suspects {
    suspicion: RwLock<Suspicion>,
    leases: Leases,
}

impl Suspects {
    pub(super) fn new(env: &dyn Env) -> Self {
        Self { suspicion: RwLock::default(), leases: Leases::new(env) }
    }
}

/// How a work goes whose commands go one at a time.
#[derive(Clone, Copy)]
pub(super) struct Caution {
    /// The attempts that have ended their processes.
    crashes: u32,
    /// Where the last one ended, and its process with it.
    died_at: Step,
    /// When this call has to answer.
    deadline: Time,
    faults_per_hour_max: usize,
}

/// What of a log is in the parked table.
struct ParkedOfLog {
    attempt: Option<Attempt>,
    items: Vec<ParkedItem>,
    /// The first suspect above the tail.
    held_at: Option<Seq>,
}

impl Processor {
    /// With another suspicion than the default one.
    #[must_use]
    pub fn with_suspicion(self, suspicion: Suspicion) -> Self {
        self.suspect(suspicion);
        self
    }

    /// Among other processes than the default ones.
    #[must_use]
    pub fn among(mut self, others: Others) -> Self {
        self.suspects.leases = self.suspects.leases.among(others);
        self
    }

    /// Calls that begin from now on are suspect as this says: for hosts that know better than the
    /// age of a record what has ended the process, as after a second unclean start.
    pub fn suspect(&self, suspicion: Suspicion) {
        *self.suspects.suspicion.write().unwrap_or_else(PoisonError::into_inner) = suspicion;
    }

    /// As [`Processor::process`], but suspect, however old the record is.
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

    /// Before anything is loaded. Looks into the parked table only if the call is suspect, or
    /// somebody asks for it, or this process knows that something of the log is in there.
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
        let ParkedOfLog { attempt, items, held_at } = self.parked_of(&work.id).await?;
        let lease = attempt.as_ref().map(|attempt| &attempt.lease);
        let standing = self.suspects.leases.read(lease, self.ports.env.now());
        let is_free = standing != Standing::UnderWay;
        work.marked = attempt.is_some() && is_free && (suspicion.is_some() || nudged);
        if let Some(seq) = held_at {
            return Err(Blocked::Suspect(format!("the log waits for {seq}, which is suspect")));
        }
        // In a batch of many nobody knows which it was: only a lone record leaves a marker.
        let Some(suspicion) = suspicion else { return Ok(()) };
        let Standing::Free { crashes, is_crash } = standing else { return Err(Blocked::UnderWay) };
        let died_at = attempt.filter(|_| is_crash).map_or(Step::Whole, |attempt| attempt.step);
        if died_at == Step::Loading {
            let detail = format!("its process ended {crashes} times, at last while loading it");
            if nudged {
                self.hold_parked(&work.id, items, &detail).await?;
            }
            return Err(Blocked::Suspect(detail));
        }
        let faults_per_hour_max = suspicion.faults_per_hour_max;
        let is_alone = crashes >= suspicion.attempts_max || died_at != Step::Whole;
        let caution = Caution { crashes, died_at, deadline, faults_per_hour_max };
        work.caution = is_alone.then_some(caution);
        work.marked = true;
        let step = if is_alone { Step::Loading } else { Step::Whole };
        self.write(&work.id, crashes, step, deadline).await
    }

    /// Says what is next, before it ends the process. Only if commands go one at a time.
    pub(super) async fn mark(&self, work: &LogWork, step: Step) -> Result<(), Blocked> {
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
        let body = Attempt { lease, step }.encode().map_err(Blocked::Unencodable)?.into();
        let item = ParkedItem { seq: Seq::ZERO, identity: Attempt::IDENTITY.to_owned(), body };
        Ok(self.ports.parked.park(id, &item).await?)
    }

    /// The call returns.
    pub(super) async fn close(&self, id: &LogId) {
        let parked = &self.ports.parked;
        let mut attempt = 1;
        while let Err(error) = parked.remove(id, Seq::ZERO, Attempt::IDENTITY).await {
            if !error.may_pass() || !CLOSE_BACKOFF.pause(attempt, &*self.ports.env).await {
                tracing::warn!(log = %id, %error, "an attempt marker stays until it is swept");
                return;
            }
            attempt += 1;
        }
    }

    /// Decides the command that follows the tail, and appends it, alone. Returns as `decide` does.
    pub(super) async fn decide_alone(
        &self,
        work: &mut LogWork,
        log: &mut Log,
        caution: Caution,
        deadline: Time,
    ) -> Result<Pass, Blocked> {
        let first = work.queue.front().filter(|arrival| arrival.seq == log.tail().next()).cloned();
        let Some(Arrival { seq, at, command, .. }) = first else { return Ok(Pass::Done) };
        let next = if caution.died_at == Step::Deciding(seq) {
            let detail = format!("it has ended its process {} times", caution.crashes);
            tracing::error!(alarm = "suspect", log = %work.id, %seq, detail);
            if !self.may_fault(&work.id, seq, caution.faults_per_hour_max).await? {
                return self.hold(work, &detail).await;
            }
            Work { seq, at, command, prepared: Prepared::Faulted(Fault::new(detail)) }
        } else {
            self.mark(work, Step::Deciding(seq)).await?;
            log.prepare(seq, at, command)
        };
        if !log.wants([&next]).is_empty() {
            // Reading documents is the author's code, too, and not this command's doing.
            self.mark(work, Step::Loading).await?;
            self.provide_for(log, std::slice::from_ref(&next), deadline).await?;
            if log.is_behind() {
                self.catch_up(log, deadline).await?;
                return Ok(Pass::Again);
            }
            self.mark(work, Step::Deciding(seq)).await?;
        }
        self.commit(work, log, vec![next], deadline).await
    }

    /// Parks the queue: its first command for an operator, what is behind it with it.
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

    /// What is parked already, and could go on: a nudge has nothing else at hand.
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
        let mut items = self.ports.parked.list(id, Seq::ZERO, PARKED_PER_READ).await?;
        let attempt = take_marker(&mut items);
        let is_suspect = |item: &ParkedItem| {
            Parked::decode(&item.body).is_ok_and(|parked| parked.reason == Reason::Suspect)
        };
        let is_full = items.len() + 1 >= PARKED_PER_READ;
        let mut held_at = None;
        if is_full || items.iter().any(is_suspect) {
            let tail = self.ports.journal.tail(id).await?;
            if is_full {
                items.extend(self.ports.parked.list(id, tail.next(), PARKED_PER_READ).await?);
            }
            let above = items.iter().filter(|item| item.seq > tail && is_suspect(item));
            held_at = above.map(|item| item.seq).min();
        }
        Ok(ParkedOfLog { attempt, items, held_at })
    }

    /// Whether one more command of the service may be faulted within this hour, and notes it. The
    /// count stands in the parked table, below a log that no client can have, under the time for a
    /// seq: in memory it would end with the processes whose ends it counts.
    async fn may_fault(&self, id: &LogId, seq: Seq, max: usize) -> Result<bool, Blocked> {
        let Ok(faults) = format!("{}/user:reactor:suspect", id.service()).parse::<LogId>() else {
            return Ok(true);
        };
        let parked = &self.ports.parked;
        let (now, identity) = (self.ports.env.now(), format!("{id}@{seq}"));
        let hour_ago = Seq(now.0.saturating_sub(HOUR_MS));
        let mut others = 0;
        for item in parked.list(&faults, Seq::ZERO, PARKED_PER_READ).await? {
            if item.seq < hour_ago {
                parked.remove(&faults, item.seq, &item.identity).await?;
            } else {
                others += usize::from(item.identity != identity);
            }
        }
        if others >= max {
            return Ok(false);
        }
        let fault = Attempt { lease: self.suspects.leases.end(now), step: Step::Deciding(seq) };
        let body = fault.encode().map_err(Blocked::Unencodable)?.into();
        parked.park(&faults, &ParkedItem { seq: Seq(now.0), identity, body }).await?;
        Ok(true)
    }
}
