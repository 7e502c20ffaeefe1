//! The work of a batch on one log: its queue of commands, and the commits to publish.

use std::sync::Arc;

use fanfold::host::body::notification::Commit;
use fanfold::host::body::parked::Parked;
use fanfold::{Command, Log, Seq};

use super::LogWork;
use super::gather::Arrival;
use super::publish::Publication;

impl LogWork {
    pub(super) fn fail_from(&mut self, record: usize) {
        self.unfinished = Some(self.unfinished.map_or(record, |at| at.min(record)));
    }

    /// Sorts the queue by seq, and merges repeats.
    pub(super) fn sort(&mut self) {
        let mut arrivals: Vec<Arrival> = self.queue.drain(..).collect();
        // A command comes before one that was given up at its seq without being known.
        arrivals.sort_by_key(|arrival| (arrival.seq, arrival.given_up.is_some()));
        for arrival in arrivals {
            let same_seq = self.queue.iter_mut().rev().take_while(|a| a.seq == arrival.seq);
            match same_seq.into_iter().find(|queued| queued.is_repeat_of(&arrival)) {
                Some(queued) => {
                    queued.given_up = queued.given_up.take().or(arrival.given_up);
                    queued.parked |= arrival.parked;
                    queued.record = queued.record.or(arrival.record);
                }
                None => self.queue.push_back(arrival),
            }
        }
    }

    /// Takes the first arrival, which has its entry, out of the queue.
    pub(super) fn take_front(&mut self) {
        if let Some(Arrival { seq, command, parked: true, .. }) = self.queue.pop_front() {
            self.unpark.push((seq, command.identity()));
        }
    }

    /// Takes this very command, which has its entry, out of the queue.
    pub(super) fn take(&mut self, command: &Arc<Command>) {
        let at = self.queue.iter().position(|arrival| Arc::ptr_eq(&arrival.command, command));
        if let Some(Arrival { seq, parked: true, .. }) = at.and_then(|at| self.queue.remove(at)) {
            self.unpark.push((seq, command.identity()));
        }
    }

    /// Adds a commit to those to publish, unless it is among them.
    pub(super) fn publish(&mut self, commit: Commit) {
        let first = commit.first();
        // Fast path: it is behind all others.
        if self.publish.last().is_none_or(|last| last.first() < first) {
            self.publish.push(commit);
        } else if let Err(at) = self.publish.binary_search_by_key(&first, Commit::first) {
            self.publish.insert(at, commit);
        }
    }

    /// Keeps the commits that the topic has refused again in the parked table.
    pub(super) fn keep_refused(&mut self, publications: &[Publication]) {
        let unpublished = self.publish.iter().zip(publications);
        for (commit, _) in unpublished.filter(|(_, p)| **p != Publication::Published) {
            let refused = (commit.first(), Parked::UNPUBLISHED);
            self.unpark.retain(|(seq, identity)| (*seq, identity.as_str()) != refused);
        }
    }

    pub(super) fn publish_through(&mut self, log: &Log, through: Seq) {
        log.unpublished(through).for_each(|commit| self.publish(commit.clone()));
    }

    /// Whether a snapshot may be due that would publish commits of other environments again.
    pub(super) fn would_repeat_others(&self) -> bool {
        self.log.as_ref().is_some_and(|log| {
            let mut unpublished = log.unpublished(log.tail()).map(Commit::first);
            let ours = |first| self.publish.binary_search_by_key(&first, Commit::first).is_ok();
            log.may_snapshot() && log.is_settled() && unpublished.any(|first| !ours(first))
        })
    }

    /// Adds all unpublished commits if a snapshot may be due: its head says that everything up to
    /// it is published, including what other environments appended.
    pub(super) fn publish_for_snapshot(&mut self) {
        if let Some(log) = self.log.take() {
            if log.may_snapshot() && log.is_settled() {
                self.publish_through(&log, log.tail());
            }
            self.log = Some(log);
        }
    }
}
