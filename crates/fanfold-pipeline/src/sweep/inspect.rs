//! Inspects one log: whether it stands still, and what is put on the stream for it.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::body::record::{Part, Record};
use fanfold::{LogId, Seq, Time};
use lru::LruCache;

use super::{PARKED_PER_LOOK, STANDSTILL_MS, Sweep};
use crate::leases::{may_run, take_lease};
use crate::parked_pages::ParkedPages;
use crate::ports::{Change, ParkedItem, StreamRecord, Unavailable};

/// How long something may be parked for what should come by itself (the commands before it, or a
/// build that hosts its service or can fold its log), in milliseconds. Source: a nudge takes a
/// minute, a deployment a few.
const WAITING_MS: u64 = 5 * 60 * 1_000;
/// The pause before a log is nudged again if it has not gone on, in milliseconds. It doubles up to
/// [`PAUSE_LONGEST_MS`]. Source: a nudge makes the processor load the log again, for about five
/// read units, and records pile up on a stream that stands still.
const PAUSE_FIRST_MS: u64 = STANDSTILL_MS;
const PAUSE_LONGEST_MS: u64 = 5 * 60 * 1_000;
/// Logs that a sweep remembers; about 150 bytes each. If more stand still at the same time, some
/// count as standing still only since their last batch.
const LOGS_REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// The result of inspecting one log.
pub(super) struct Inspection {
    /// How long the oldest command without an entry has waited, in milliseconds.
    pub standstill_ms: u64,
    /// The reasons for which something is parked.
    pub parked: BTreeSet<Reason>,
    /// Whether something of it waits for an operator, or has waited too long.
    pub is_waiting: bool,
    /// Whether there is the lease of a call that has ended.
    pub has_ended_lease: bool,
    /// What to put on the stream.
    pub records: Vec<StreamRecord>,
    /// Whether the slot's batch is among them.
    pub is_resent: bool,
}

/// What the parked table has of a log.
#[derive(Default)]
struct ParkedOfLog {
    reasons: BTreeSet<Reason>,
    is_waiting: bool,
    has_ended_lease: bool,
    /// Something could go on after a nudge.
    could_go_on: bool,
    /// A suspect is parked above the tail, so that the log cannot go on, even if it is nudged.
    is_held: bool,
    /// The seq of the first command above the tail, and when it was accepted.
    first: Option<(Seq, Time)>,
}

/// A log as an earlier inspection found it.
struct Seen {
    tail: Seq,
    /// Since when this is known to be its tail while there are commands above it.
    since: Option<Time>,
    /// How often records were put for it since.
    puts: u32,
    /// When records may be put again.
    next: Time,
}

/// What a sweep remembers of logs between its runs. A process that has just started remembers
/// nothing, and measures from its first inspection on.
pub(super) struct SeenLogs(Mutex<LruCache<LogId, Seen>>);

impl SeenLogs {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(LOGS_REMEMBERED_MAX)))
    }

    /// Notes the log's tail. Returns since when that is known to be its tail while there are
    /// commands above it, and whether records may be put for the log now.
    fn note(&self, log: &LogId, tail: Seq, has_more: bool, now: Time) -> (Option<Time>, bool) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |seen: &&mut Seen| seen.tail == tail;
        if let Some(seen) = logs.get_mut(log).filter(is_same) {
            let since = seen.since.unwrap_or(now).min(now);
            seen.since = has_more.then_some(since);
            // If the clock was set back, `next` may be far in the future.
            let may_put = now >= seen.next || now.plus_ms(PAUSE_LONGEST_MS) < seen.next;
            return (seen.since, may_put);
        }
        let since = has_more.then_some(now);
        logs.put(log.clone(), Seen { tail, since, puts: 0, next: now });
        (since, true)
    }

    fn forget(&self, log: &LogId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop(log);
    }

    /// Notes that records were put for the log.
    pub(super) fn put(&self, log: &LogId, now: Time) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = logs.get_mut(log) {
            let doubled = PAUSE_FIRST_MS.saturating_mul(1 << seen.puts.min(16));
            seen.next = now.plus_ms(doubled.min(PAUSE_LONGEST_MS));
            seen.puts = seen.puts.saturating_add(1);
        }
    }
}

impl Sweep {
    pub(super) async fn inspect(&self, log: &LogId) -> Result<Inspection, Unavailable> {
        let slot = self.ports.commands.slot(log).await?;
        let tail = self.ports.journal.tail(log).await?;
        let parked = self.parked_of(log, tail).await?;
        let now = self.ports.env.now();
        let ahead = slot.filter(|slot| slot.seq > tail);
        let may_go_on = ahead.is_some() || parked.could_go_on || parked.has_ended_lease;
        if !may_go_on {
            self.seen.forget(log);
        }
        let mut inspection = Inspection {
            standstill_ms: 0,
            parked: parked.reasons,
            is_waiting: parked.is_waiting,
            has_ended_lease: parked.has_ended_lease,
            records: Vec::new(),
            is_resent: false,
        };
        if !may_go_on {
            return Ok(inspection);
        }
        let (since, may_put) = self.seen.note(log, tail, ahead.is_some(), now);
        // The slot holds the newest batch. Unless that begins right behind the tail, there are
        // older commands without an entry. They are at least as old as the first parked command,
        // and as the time since which the log is known to stand here.
        let is_next = ahead.as_ref().is_some_and(|slot| slot.first() <= tail.next());
        if let Some(slot) = &ahead {
            let older = [parked.first.map(|(_, at)| at), since].into_iter().flatten();
            let oldest = if is_next { slot.at } else { older.fold(slot.at, Time::min) };
            // A batch from far ahead is not young: the clock was set back.
            inspection.standstill_ms = now.apart_ms(oldest);
        }
        let stands_still = inspection.standstill_ms > STANDSTILL_MS;
        let is_due =
            (stands_still || parked.could_go_on) && !parked.is_held || parked.has_ended_lease;
        if !is_due || !may_put {
            return Ok(inspection);
        }
        // If the next command is parked, it is not lost: a nudge takes it up.
        let is_lost = is_next
            && stands_still
            && !parked.is_held
            && parked.first.is_none_or(|(first, _)| first > tail.next());
        if is_lost && let Some(batch) = self.ports.commands.batch(log).await? {
            let is_next = batch.first() <= tail.next() && batch.last > tail;
            inspection.is_resent = is_next;
            inspection.records.extend(is_next.then(|| resent(&batch)));
        }
        // A nudge makes the processor take up what is parked, and remove a lease.
        if !inspection.is_resent || parked.could_go_on || parked.has_ended_lease {
            inspection.records.push(StreamRecord::nudge(log.clone()));
        }
        Ok(inspection)
    }

    async fn parked_of(&self, log: &LogId, tail: Seq) -> Result<ParkedOfLog, Unavailable> {
        let (now, mut parked) = (self.ports.env.now(), ParkedOfLog::default());
        let from = |seq| ParkedPages::new(&*self.ports.parked, log, seq, PARKED_PER_LOOK.get());
        let mut pages = from(Seq::ZERO);
        let mut through = Seq::ZERO;
        while !parked.could_go_on
            && let Some(mut items) = pages.next().await?
        {
            let lease = take_lease(&mut items);
            parked.has_ended_lease |= lease.is_some_and(|found| !may_run(&found.lease, now));
            items.iter().for_each(|item| parked.note(item, tail, now));
            through = items.last().map_or(through, |item| item.seq);
        }
        // Whatever is parked below, the sweep must know where the log stands still.
        if through <= tail && !pages.are_whole() {
            let items = from(tail.next()).next().await?;
            items.iter().flatten().for_each(|item| parked.note(item, tail, now));
        }
        Ok(parked)
    }
}

impl ParkedOfLog {
    fn note(&mut self, item: &ParkedItem, tail: Seq, now: Time) {
        let Ok(Parked { reason, at, content, .. }) = Parked::decode(&item.body) else {
            self.reasons.insert(Reason::Undecodable);
            self.is_waiting = true;
            return;
        };
        self.reasons.insert(reason);
        self.is_waiting |= reason.is_for_operator() || now.since_ms(at) > WAITING_MS;
        self.could_go_on |= !reason.is_for_operator();
        self.is_held |= reason == Reason::Suspect && item.seq > tail;
        let is_command = matches!(content, Content::Command(_)) && reason != Reason::Conflict;
        if is_command && item.seq > tail && self.first.is_none_or(|(first, _)| item.seq < first) {
            self.first = Some((item.seq, at));
        }
    }
}

/// The record of the batch, as the relay makes it.
fn resent(batch: &Change) -> StreamRecord {
    let Change { log, last, n, at, body, .. } = batch;
    let parts = vec![Part { last: *last, n: *n, at: *at, body }];
    // Cannot fail: the header has only names and numbers.
    let data = Record { log: log.clone(), parts }.encode().unwrap_or_default().into();
    StreamRecord { key: log.clone(), data }
}
