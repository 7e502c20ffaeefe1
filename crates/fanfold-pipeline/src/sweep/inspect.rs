//! How one log stands, and what is done about it.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use fanfold::body::parked::{Content, Parked, Reason};
use fanfold::body::record::{Part, Record};
use fanfold::{LogId, Seq, Time};
use lru::LruCache;

use super::{PARKED_PER_LOOK, STANDSTILL_MS, Sweep};
use crate::leases::{may_run, take_marker};
use crate::ports::{Change, ParkedItem, StreamRecord, Unavailable};

/// What is parked for something that comes by itself (the commands before it, a build that knows
/// its service, or can fold its log) has that within minutes: a nudge takes one, a deployment a few.
/// In milliseconds.
const WAITING_MS: u64 = 5 * 60 * 1_000;
/// A log that was nudged, and has not gone on, is nudged again after this, in milliseconds; the pause
/// doubles up to the longest. A nudge makes the processor load the log anew, for about five read
/// units; and what is put on a stream that stands still piles up there.
const PAUSE_FIRST_MS: u64 = STANDSTILL_MS;
const PAUSE_LONGEST_MS: u64 = 5 * 60 * 1_000;
/// Logs of which a sweep remembers how they stood; about 150 bytes each. Of more that stand still at
/// the same time, some count as standing still since the last batch.
const LOGS_REMEMBERED_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("not zero");

/// How one log stands.
pub(super) struct Inspection {
    /// For how long the oldest command without an entry has waited.
    pub standstill_ms: u64,
    /// For what something has waited too long.
    pub waiting: BTreeSet<Reason>,
    /// Whether a marker tells of an attempt that has ended its process.
    pub attempted: bool,
    /// What to put on the stream.
    pub records: Vec<StreamRecord>,
    /// Whether the slot's batch is among them.
    pub is_resent: bool,
}

/// What is parked of a log.
#[derive(Default)]
struct ParkedOfLog {
    waiting: BTreeSet<Reason>,
    attempted: bool,
    /// Something could go on.
    could_go_on: bool,
    /// A suspect is above the tail: the log can go no further, however often it is nudged.
    is_held: bool,
    /// The first above the tail, and when it was accepted.
    first: Option<(Seq, Time)>,
}

/// How a log stood when it was looked at before.
struct Stood {
    tail: Seq,
    /// Since when that is known to be its tail, with commands behind it.
    since: Option<Time>,
    /// How often something was put for it since.
    puts: u32,
    /// When something may be put again.
    next: Time,
}

/// What a sweep remembers between its runs. A process that has just started knows nothing, and
/// measures from its first look on.
pub(super) struct Memory(Mutex<LruCache<LogId, Stood>>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(LOGS_REMEMBERED_MAX)))
    }

    /// Notes the log's tail. Since when it is known to stand there, with commands behind it; and
    /// whether something may be put for it now.
    fn note(&self, log: &LogId, tail: Seq, has_more: bool, now: Time) -> (Option<Time>, bool) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = |stood: &&mut Stood| stood.tail == tail;
        if let Some(stood) = logs.get_mut(log).filter(is_same) {
            let since = stood.since.unwrap_or(now).min(now);
            stood.since = has_more.then_some(since);
            // A clock that went back must not silence a log.
            let may_put = now >= stood.next || now.plus_ms(PAUSE_LONGEST_MS) < stood.next;
            return (stood.since, may_put);
        }
        let since = has_more.then_some(now);
        logs.put(log.clone(), Stood { tail, since, puts: 0, next: now });
        (since, true)
    }

    fn forget(&self, log: &LogId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop(log);
    }

    /// Something was put for the log.
    pub(super) fn put(&self, log: &LogId, now: Time) {
        let mut logs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stood) = logs.get_mut(log) {
            let doubled = PAUSE_FIRST_MS.saturating_mul(1 << stood.puts.min(16));
            stood.next = now.plus_ms(doubled.min(PAUSE_LONGEST_MS));
            stood.puts = stood.puts.saturating_add(1);
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
        let may_go_on = ahead.is_some() || parked.could_go_on || parked.attempted;
        if !may_go_on {
            self.memory.forget(log);
        }
        let mut inspection = Inspection {
            standstill_ms: 0,
            waiting: parked.waiting,
            attempted: parked.attempted,
            records: Vec::new(),
            is_resent: false,
        };
        if !may_go_on {
            return Ok(inspection);
        }
        let (since, may_put) = self.memory.note(log, tail, ahead.is_some(), now);
        // The batch in the slot is the newest. Unless it begins right behind the tail, there are
        // older commands without an entry: older than the first that is parked, and than the time
        // from which on the log is known to stand here.
        let is_next = ahead.as_ref().is_some_and(|slot| slot.first() <= tail.next());
        if let Some(slot) = &ahead {
            let older = [parked.first.map(|(_, at)| at), since].into_iter().flatten();
            let oldest = if is_next { slot.at } else { older.fold(slot.at, Time::min) };
            // A batch from far ahead is not young: the clock was set back.
            inspection.standstill_ms = now.apart_ms(oldest);
        }
        let stands_still = inspection.standstill_ms > STANDSTILL_MS;
        let is_due = (stands_still || parked.could_go_on) && !parked.is_held || parked.attempted;
        if !is_due || !may_put {
            return Ok(inspection);
        }
        // What is parked at the place, a nudge takes up.
        let is_lost = is_next
            && stands_still
            && !parked.is_held
            && parked.first.is_none_or(|(first, _)| first > tail.next());
        if is_lost && let Some(batch) = self.ports.commands.batch(log).await? {
            let is_next = batch.first() <= tail.next() && batch.last > tail;
            inspection.is_resent = is_next;
            inspection.records.extend(is_next.then(|| resent(&batch)));
        }
        // The processor takes up what is parked behind it, or where nothing else helps, if asked.
        if !inspection.is_resent || parked.could_go_on || parked.attempted {
            inspection.records.push(StreamRecord::nudge(log.clone()));
        }
        Ok(inspection)
    }

    async fn parked_of(&self, log: &LogId, tail: Seq) -> Result<ParkedOfLog, Unavailable> {
        let mut items = self.ports.parked.list(log, Seq::ZERO, PARKED_PER_LOOK).await?;
        if items.len() == PARKED_PER_LOOK {
            // What waits for an operator must not hide what could go on.
            items.extend(self.ports.parked.list(log, tail.next(), PARKED_PER_LOOK).await?);
        }
        let now = self.ports.env.now();
        let marker = take_marker(&mut items);
        let attempted = marker.is_some_and(|attempt| !may_run(&attempt.lease, now));
        let mut parked = ParkedOfLog { attempted, ..ParkedOfLog::default() };
        for item in items {
            parked.note(&item, tail, now);
        }
        Ok(parked)
    }
}

impl ParkedOfLog {
    fn note(&mut self, item: &ParkedItem, tail: Seq, now: Time) {
        let Ok(Parked { reason, at, content, .. }) = Parked::decode(&item.body) else {
            self.waiting.insert(Reason::Undecodable);
            return;
        };
        if reason.is_for_operator() || now.since_ms(at) > WAITING_MS {
            self.waiting.insert(reason);
        }
        self.could_go_on |= !reason.is_for_operator();
        self.is_held |= reason == Reason::Suspect && item.seq > tail;
        let is_command = matches!(content, Content::Command(_)) && reason != Reason::Conflict;
        if is_command && item.seq > tail && self.first.is_none_or(|(first, _)| item.seq < first) {
            self.first = Some((item.seq, at));
        }
    }
}

/// As the relay makes it.
fn resent(batch: &Change) -> StreamRecord {
    let Change { log, last, n, at, body, .. } = batch;
    let parts = vec![Part { last: *last, n: *n, at: *at, body }];
    // Its header is names and numbers, which JSON can always hold.
    let data = Record { log: log.clone(), parts }.encode().unwrap_or_default().into();
    StreamRecord { key: log.clone(), data }
}
