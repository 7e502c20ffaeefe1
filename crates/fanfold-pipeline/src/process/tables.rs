//! What the processor asks of its tables: loading a log, catching up, appending, parking,
//! snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanfold::body::notification::Notice;
use fanfold::body::parked::{Content, Parked, Reason};
use fanfold::body::{
    DecodeError,
    head::{Head, Prev},
};
use fanfold::entry::Outcome;
use fanfold::invariant::Breach;
use fanfold::log::{FoldError, Put, Sealed, Sent, Snapshot, Want, Work};
use fanfold::{AnyService, Log, LogId, Seq, StateKey, Time};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::gather::Arrival;
use super::{Lane, Processor};
use crate::backoff::Backoff;
use crate::ports::{
    CommitItem, Guarded, JournalAppendError, Nonce, ParkedItem, StateItem, StreamRecord,
    Unavailable,
};

/// Commits that one look into the journal asks for: about a page of DynamoDB's (1 MB) when they
/// are small.
pub(super) const COMMITS_PER_READ: usize = 100;
/// Keys of the state table that are asked for at a time (its limit).
const KEYS_PER_READ: usize = 1_000;
/// Parked commands that are taken up at a time.
pub(super) const PARKED_PER_READ: usize = 1_000;
/// Commits refused by the topic that are read, and published, again at a time: 350 KiB each at most.
const REFUSED_PER_READ: usize = 100;
/// Puts of one snapshot under way at the same time.
const PUTS_AT_ONCE: usize = 16;
/// Heads of older document versions that are looked for beside the log's own.
const OLD_VERSIONS_MAX: u32 = 100;
/// The put of a commit stands between a command and its entry: short, then the batch comes again.
const APPEND_BACKOFF: Backoff = Backoff { attempts_max: 3, first_ms: 20, longest_ms: 100 };

/// Why a log cannot go on now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error(transparent)]
    Unavailable(Unavailable),
    #[error("the deadline is over")]
    Deadline,
    #[error("others write to the log all the time")]
    Contended,
    #[error("another process is perhaps at it")]
    UnderWay,
    #[error("no such service is registered here")]
    NoService,
    #[error("it is suspect of ending its process: {0}")]
    Suspect(String),
    #[error("this build cannot fold the log")]
    CannotFold(#[source] FoldError),
    #[error("what is stored of the log is damaged")]
    Damaged(#[source] Unavailable),
    #[error(transparent)]
    Breach(#[from] Breach),
}

/// What cannot be read comes again for ever if it is taken for what does not answer now.
impl From<Unavailable> for Stop {
    fn from(error: Unavailable) -> Self {
        match error {
            Unavailable::Damaged { .. } => Self::Damaged(error),
            Unavailable::Throttled { .. }
            | Unavailable::Full { .. }
            | Unavailable::Refused { .. }
            | Unavailable::TimedOut { .. }
            | Unavailable::Failed { .. } => Self::Unavailable(error),
        }
    }
}

impl From<FoldError> for Stop {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Breach(breach) => Self::Breach(breach),
            FoldError::Body(_) | FoldError::Fault { .. } => Self::CannotFold(error),
        }
    }
}

impl From<DecodeError> for Stop {
    fn from(error: DecodeError) -> Self {
        Self::CannotFold(error.into())
    }
}

/// What became of a commit.
#[derive(PartialEq, Eq)]
pub(super) enum Appended {
    Stored,
    /// Another writer was there first.
    Conflict,
}

impl Processor {
    /// The log as its head, and the journal behind it, have it.
    pub(super) async fn load(
        &self,
        id: &LogId,
        service: &Arc<dyn AnyService>,
        deadline: Time,
    ) -> Result<Log, Stop> {
        let version = service.document_version();
        // Versions are counted from 1 on; one that is 0 has none before it.
        let oldest = version.saturating_sub(OLD_VERSIONS_MAX).max(1).min(version);
        let versions = oldest..=version;
        let keys: Vec<StateKey> = versions.map(StateKey::head).collect();
        let mut heads = self.ports.state.heads(id, &keys).await?;
        let head = heads.pop().flatten();
        // Also beside a head of its own: a long first load writes it long before it is through.
        let old = heads.into_iter().flatten().map(|item| item.seq).max();
        let head = match head {
            Some(item) => Some((item.seq, Head::decode(&item.body)?)),
            None => None,
        };
        let mut log = Log::new(id.clone(), service.clone(), head, old.unwrap_or(Seq::ZERO));
        self.catch_up(&mut log, deadline).await?;
        Ok(log)
    }

    /// Folds what the journal has above the tail. Nothing may be undecided. A log for which that
    /// takes too long stops at the deadline; heads written on the way keep what was done.
    pub(super) async fn catch_up(&self, log: &mut Log, deadline: Time) -> Result<(), Stop> {
        let id = log.id().clone();
        loop {
            self.check(deadline)?;
            let page = self.ports.journal.read(&id, log.tail().next(), COMMITS_PER_READ).await?;
            let mut decoded = Vec::with_capacity(page.commits.len());
            let mut wants = BTreeSet::new();
            for item in &page.commits {
                let (entries, bytes) = item.entries()?;
                wants.extend(log.wants_to_fold(&entries));
                decoded.push((entries, bytes));
            }
            self.provide(log, wants).await?;
            for (entries, bytes) in decoded {
                log.fold(entries, bytes)?;
            }
            if page.commits.is_empty() || !page.more && !log.is_behind() {
                return Ok(log.reaches_the_state_table()?);
            }
            // A long first load writes heads as it goes, so that it is made only once.
            if log.may_snapshot() {
                let unpublished: Vec<_> = log.unpublished(log.tail()).cloned().collect();
                let unpublished: Vec<_> = unpublished.iter().collect();
                let told = self.tell(&unpublished, deadline).await;
                let done = unpublished.iter().zip(told).filter(|(_, told)| told.is_done());
                done.for_each(|(notice, _)| log.published(notice.first()));
                self.snapshot(log).await;
            }
        }
    }

    /// Loads what must be known to decide the works. Which entries of the journal that are, shows
    /// only when the windows are there; then nothing more is wanted.
    pub(super) async fn provide_for(
        &self,
        log: &mut Log,
        works: &[Work],
        deadline: Time,
    ) -> Result<(), Stop> {
        for _ in 0..2 {
            let wants = log.wants(works);
            let any_window = wants.iter().any(|want| matches!(want, Want::Window(_)));
            let entry = |want: &Want| if let Want::Entry(seq) = want { Some(*seq) } else { None };
            let seqs: Vec<Seq> = wants.iter().filter_map(entry).collect();
            self.provide(log, wants).await?;
            // Repeats of clients may be far apart: each costs about its own commit.
            let per_read = seqs.len().min(COMMITS_PER_READ);
            let mut sent = self.commands_at(log.id(), &seqs, per_read, deadline).await?;
            seqs.iter().for_each(|seq| log.provide_entry(*seq, sent.remove(seq)));
            if !any_window {
                break;
            }
        }
        Ok(())
    }

    /// Loads what the log wants to know of the state table.
    async fn provide(&self, log: &mut Log, wants: BTreeSet<Want>) -> Result<(), Stop> {
        let stored = wants.into_iter().filter_map(|want| Some((log.state_key(&want)?, want)));
        let (keys, wants): (Vec<StateKey>, Vec<Want>) = stored.unzip();
        for (keys, wants) in keys.chunks(KEYS_PER_READ).zip(wants.chunks(KEYS_PER_READ)) {
            let items = self.ports.state.get(log.id(), keys).await?;
            for (want, item) in wants.iter().zip(items) {
                log.provide(want.clone(), item.as_ref().map(|item| (item.seq, &*item.body)))?;
            }
        }
        Ok(())
    }

    /// Puts a commit, whose body it takes. All attempts carry one nonce, so that one whose answer
    /// was lost is recognised.
    pub(super) async fn append(&self, id: &LogId, sealed: &mut Sealed) -> Result<Appended, Stop> {
        let env = &*self.ports.env;
        let item = CommitItem {
            first: sealed.notice.first(),
            n: sealed.notice.entries.len() as u64,
            at: sealed.at,
            nonce: Nonce(u128::from(env.random()) << 64 | u128::from(env.random())),
            body: std::mem::take(&mut sealed.body).into(),
        };
        let mut attempt = 1;
        loop {
            match self.ports.journal.append(id, &item).await {
                Ok(()) => return Ok(Appended::Stored),
                Err(JournalAppendError::Exists(stored)) if stored.nonce == item.nonce => {
                    return Ok(Appended::Stored);
                }
                Err(JournalAppendError::Exists(_)) => return Ok(Appended::Conflict),
                Err(JournalAppendError::Unavailable(unavailable)) => {
                    if !unavailable.may_pass() || !APPEND_BACKOFF.pause(attempt, env).await {
                        return Err(unavailable.into());
                    }
                    attempt += 1;
                }
            }
        }
    }

    pub(super) fn check(&self, deadline: Time) -> Result<(), Stop> {
        if self.ports.env.now() < deadline { Ok(()) } else { Err(Stop::Deadline) }
    }

    /// What the commands were whose entries stand at `seqs`, which ascend. Looks into the journal
    /// for so many commits at a time, and for no more than hold them.
    pub(super) async fn commands_at(
        &self,
        id: &LogId,
        seqs: &[Seq],
        commits_per_read: usize,
        deadline: Time,
    ) -> Result<BTreeMap<Seq, Sent>, Stop> {
        let mut commands = BTreeMap::new();
        let mut read_to = Seq::ZERO;
        for seq in seqs {
            if *seq <= read_to {
                continue;
            }
            self.check(deadline)?;
            let page = self.ports.journal.read(id, *seq, commits_per_read).await?;
            for item in &page.commits {
                let (entries, _) = item.entries()?;
                let asked = entries.iter().filter(|e| seqs.binary_search(&e.seq).is_ok());
                commands.extend(asked.map(|e| (e.seq, Sent::from(e))));
                read_to = item.last();
            }
        }
        Ok(commands)
    }

    /// Adds what is parked for the log at or above `from`, and could go on, to the queue. Whether
    /// anything was there. Commits that the topic has refused are to be published again: perhaps it
    /// takes them now.
    pub(super) async fn take_up_parked(
        &self,
        lane: &mut Lane,
        log: &Log,
        from: Seq,
    ) -> Result<bool, Stop> {
        let items = self.ports.parked.list(&lane.id, from, PARKED_PER_READ).await?;
        let (mut any, mut refused) = (false, 0);
        for item in items {
            // What cannot be read, and what conflicts, waits for an operator.
            let Ok(Parked { reason, at, content, .. }) = Parked::decode(&item.body) else {
                continue;
            };
            let command = match content {
                Content::Command(command) => command,
                Content::Commit { prev, .. } if refused < REFUSED_PER_READ => {
                    refused += 1;
                    self.take_up_refused(lane, item.seq, prev).await?;
                    continue;
                }
                Content::Commit { .. } | Content::Bytes(_) => continue,
            };
            // A suspect, too, but the log waits for it; unless somebody else has decided it.
            let is_undecided = reason == Reason::Suspect && item.seq > log.tail();
            any |= is_undecided;
            if is_undecided || matches!(reason, Reason::Conflict | Reason::Undecodable) {
                continue;
            }
            any = true;
            let command = Arc::new(command);
            let arrival = Arrival { seq: item.seq, at, command, record: None, parked: true };
            lane.queue.push_back(arrival);
        }
        lane.sort();
        self.cache.note_parked(&lane.id, any);
        Ok(any)
    }

    /// The commit from `first` on is to be published again, and to be removed from the parked table
    /// if it is.
    async fn take_up_refused(&self, lane: &mut Lane, first: Seq, prev: Prev) -> Result<(), Stop> {
        let page = self.ports.journal.read(&lane.id, first, 1).await?;
        if let Some(item) = page.commits.first().filter(|item| item.first == first) {
            let entries = item.entries()?.0.into();
            lane.publish(Notice { log: lane.id.clone(), entries, prev: Arc::new(prev) });
            lane.unpark.push((first, Parked::UNPUBLISHED.to_owned()));
        }
        Ok(())
    }

    /// Parks all of the queue, for one reason; what is parked already stays as it is.
    pub(super) async fn park_queue(
        &self,
        lane: &mut Lane,
        reason: Reason,
        detail: &str,
    ) -> Result<(), Stop> {
        self.cache.note_parked(&lane.id, !lane.queue.is_empty());
        while let Some(arrival) = lane.queue.front() {
            if !arrival.parked {
                tracing::warn!(log = %lane.id, seq = %arrival.seq, ?reason, detail, "parked");
                self.park(&lane.id, arrival, reason, detail.to_owned()).await?;
            }
            lane.queue.pop_front();
        }
        Ok(())
    }

    /// Has the log looked at again behind all that is on the stream now: one attempt, for a sweep
    /// finds what is parked, too.
    pub(super) async fn nudge(&self, id: &LogId, deadline: Time) {
        if self.check(deadline).is_err() {
            return;
        }
        let put = match self.ports.stream.put_records(&[StreamRecord::nudge(id.clone())]).await {
            Ok(results) => results.into_iter().collect::<Result<(), Unavailable>>(),
            Err(error) => Err(error),
        };
        if let Err(error) = put {
            tracing::warn!(log = %id, %error, "a nudge was not put");
        }
    }

    /// Parks all of the queue, of a log that would fail in the same way for ever.
    pub(super) async fn park_unfoldable(
        &self,
        lane: &mut Lane,
        error: &(dyn std::error::Error + Sync),
    ) -> Result<(), Stop> {
        let detail = chain(error);
        tracing::error!(alarm = "cannot_fold", log = %lane.id, detail);
        self.park_queue(lane, Reason::CannotFold, &detail).await
    }

    pub(super) async fn park(
        &self,
        id: &LogId,
        arrival: &Arrival,
        reason: Reason,
        detail: String,
    ) -> Result<(), Stop> {
        let content = Content::Command((*arrival.command).clone());
        let parked = Parked { reason, at: arrival.at, detail, content };
        self.park_body(id, arrival.seq, &parked).await
    }

    pub(super) async fn park_unreadable(
        &self,
        id: &LogId,
        unreadable: &[(Seq, Parked)],
    ) -> Result<(), Stop> {
        for (seq, parked) in unreadable {
            tracing::error!(alarm = "undecodable", log = %id, %seq, detail = parked.detail);
            self.park_body(id, *seq, parked).await?;
        }
        Ok(())
    }

    pub(super) async fn park_body(
        &self,
        id: &LogId,
        seq: Seq,
        parked: &Parked,
    ) -> Result<(), Stop> {
        // Names, numbers and what was JSON before: nothing that JSON cannot hold.
        let body = parked.encode().map_err(DecodeError::from)?.into();
        let item = ParkedItem { seq, identity: parked.identity(), body };
        Ok(self.ports.parked.park(id, &item).await?)
    }

    /// What was taken up from the parked table has its entry, and that is published.
    pub(super) async fn remove_parked(&self, lane: &Lane) -> Result<(), Stop> {
        for (seq, identity) in &lane.unpark {
            self.ports.parked.remove(&lane.id, *seq, identity).await?;
        }
        Ok(())
    }

    /// Where environments take turns on a log, one of them takes its snapshots, and the others look
    /// for its head before they publish again what that says is published.
    pub(super) async fn look_for_newer_head(&self, lane: &mut Lane) {
        if !lane.would_repeat_others() {
            return;
        }
        let Some(log) = lane.log.as_mut() else { return };
        let key = StateKey::head(log.service().document_version());
        let found = self.ports.state.get(&lane.id, std::slice::from_ref(&key)).await;
        let Ok(Some(item)) = found.map(|mut found| found.pop().flatten()) else { return };
        if let Ok(head) = Head::decode(&item.body) {
            log.adopt(item.seq, &head);
        }
    }

    /// Stores a snapshot if one is due: documents and windows, and only when all of them are
    /// stored the head. One that fails is made again later: nothing depends on it.
    pub(super) async fn snapshot(&self, log: &mut Log) {
        let Some(snapshot) = log.snapshot() else { return };
        match self.store(log.id(), &snapshot).await {
            Ok(()) => log.snapshotted(&snapshot),
            Err(error) => tracing::debug!(log = %log.id(), %error, "a snapshot was not finished"),
        }
    }

    async fn store(&self, id: &LogId, snapshot: &Snapshot) -> Result<(), Unavailable> {
        let put = |put: &Put| {
            let item = StateItem { seq: put.seq, body: put.body.clone().into() };
            let key = put.key.clone();
            async move { self.ports.state.put(id, &key, &item).await }
        };
        let puts = stream::iter(snapshot.puts.iter().map(put)).buffer_unordered(PUTS_AT_ONCE);
        // Newer ones that are there already serve as well.
        puts.try_for_each(|_: Guarded| async { Ok(()) }).await?;
        put(&snapshot.head).await?;
        Ok(())
    }
}

/// A fault is an outcome, and somebody's bug: who was told of the panic learns here whose it was.
pub(super) fn report_faults(notice: &Notice) {
    for entry in notice.entries.iter() {
        if let Outcome::Faulted { message, .. } = &entry.outcome {
            tracing::warn!(log = %notice.log, seq = %entry.seq, fault = message, "a command is faulted");
        }
    }
}

/// An error with all its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}
