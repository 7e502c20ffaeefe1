//! The processor's work with its tables: it loads logs, catches up with the journal, appends
//! commits, parks commands, and stores snapshots.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fanfold::entry::Outcome;
use fanfold::host::body::notification::Commit;
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::body::{
    DecodeError,
    head::{Head, Prev},
};
use fanfold::host::invariant::Breach;
use fanfold::host::knob::Knob;
use fanfold::host::log::{FoldError, Put, Sealed, Sent, Snapshot, Want, Work};
use fanfold::service::MORE_ROUNDS_MAX;
use fanfold::{AnyService, Log, LogId, Seq, StateKey, Time, with_causes};
use futures::stream::{self, StreamExt, TryStreamExt};

use super::gather::Arrival;
use super::{LogWork, Processor};
use crate::backoff::Backoff;
use crate::parked_pages::ParkedPages;
use crate::ports::{
    CommitItem, Guarded, JournalAppendError, Nonce, ParkedItem, StateItem, StreamRecord,
    Unavailable,
};

/// Commits per read of the journal. Source: about a page of DynamoDB (1 MB) if they are small.
pub(super) const COMMITS_PER_READ: Knob = Knob::new(100, 1);
/// Keys per read of the state table. Source: the port's limit.
const KEYS_PER_READ: Knob = Knob::new(1_000, 1);
/// Rounds of loading before a decision. Source: first the windows and the declared documents, then
/// the entries that repeats point to, and then what the service asks for.
pub(super) const PROVIDE_ROUNDS_MAX: usize = 2 + MORE_ROUNDS_MAX;
/// Parked items per read of the parked table. One call takes up about as many.
pub(super) const PARKED_PER_READ: Knob = Knob::new(1_000, 4);
/// Refused commits that one call reads and publishes again. Source: each has up to 350 KiB.
const REFUSED_PER_READ: Knob = Knob::new(100, 16);
/// Puts of one snapshot that run at the same time.
const PUTS_AT_ONCE: usize = 16;
/// Older document versions whose heads are read beside the log's own.
const OLD_VERSIONS_MAX: u32 = 100;
/// Short, because callers wait for the entries meanwhile. Then the batch comes again.
const APPEND_BACKOFF: Backoff = Backoff { attempts_max: 3, first_ms: 20, longest_ms: 100 };

/// Why a log cannot go on now.
#[derive(Debug, thiserror::Error)]
pub(super) enum Blocked {
    #[error(transparent)]
    Unavailable(Unavailable),
    #[error("the deadline has passed")]
    Deadline,
    #[error("other environments keep appending to the log")]
    Contended,
    #[error("another process may be working on the log")]
    UnderWay,
    #[error("no such service is registered here")]
    NoService,
    #[error("the log may have crashed its process: {0}")]
    Suspect(String),
    #[error("the item to be parked cannot be encoded")]
    Unencodable(#[source] serde_json::Error),
    #[error("this build cannot fold the log")]
    CannotFold(#[source] FoldError),
    #[error("the log's stored data is damaged")]
    Damaged(#[source] Unavailable),
    #[error(transparent)]
    Breach(#[from] Breach),
}

/// Tells damaged data apart from a table that does not answer. As an outage, damaged data would
/// make the batch come again for ever.
impl From<Unavailable> for Blocked {
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

impl From<FoldError> for Blocked {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Breach(breach) => Self::Breach(breach),
            FoldError::Body(_) | FoldError::Fault { .. } => Self::CannotFold(error),
        }
    }
}

impl From<DecodeError> for Blocked {
    fn from(error: DecodeError) -> Self {
        Self::CannotFold(error.into())
    }
}

/// What a parked item waits for, as the processor finds it.
enum Waiting {
    /// A command that waits for its turn.
    Arrival(Arrival),
    /// A refused commit, by its first seq. It waits until the topic takes it.
    Refused(Seq, Prev),
    /// A suspect that waits for an operator. Its log waits, too.
    Held,
    /// An item that waits for an operator. Its log goes on without it.
    ForOperator,
}

impl Waiting {
    fn of(item: ParkedItem, tail: Seq) -> Self {
        match Parked::decode(&item.body) {
            Ok(Parked { content: Content::Commit { prev, .. }, .. }) => {
                Self::Refused(item.seq, prev)
            }
            // At or below the tail, another process has decided it.
            Ok(Parked { reason: Reason::Suspect, .. }) if item.seq > tail => Self::Held,
            Ok(Parked { reason: Reason::Conflict | Reason::Undecodable, .. }) => Self::ForOperator,
            Ok(Parked { at, reason, detail, content: Content::Command(command) }) => {
                let is_given_up = reason == Reason::GivenUp || command.origin.is_nobody();
                Self::Arrival(Arrival {
                    seq: item.seq,
                    at,
                    command: Arc::new(command),
                    record: None,
                    parked: true,
                    given_up: is_given_up.then_some(detail),
                })
            }
            Ok(Parked { content: Content::Bytes(_), .. }) | Err(_) => Self::ForOperator,
        }
    }
}

/// The result of an append.
#[derive(PartialEq, Eq)]
pub(super) enum Appended {
    Stored,
    /// Another writer has appended a commit with the same first seq.
    Conflict,
}

impl Processor {
    /// Loads the log from its head and the journal behind that.
    pub(super) async fn load(
        &self,
        id: &LogId,
        service: &Arc<dyn AnyService>,
        deadline: Time,
    ) -> Result<Log, Blocked> {
        let version = service.document_version();
        // Versions begin at 1. Version 0 has none before it.
        let oldest = version.saturating_sub(OLD_VERSIONS_MAX).max(1).min(version);
        let versions = oldest..=version;
        let keys: Vec<StateKey> = versions.map(StateKey::head).collect();
        let mut heads = self.ports.state.heads(id, &keys).await?;
        let head = heads.pop().flatten();
        // Needed even if the log has a head of this version: a long first load writes heads on its
        // way.
        let old = heads.into_iter().flatten().map(|item| item.seq).max();
        let head = match head {
            Some(item) => Some((item.seq, Head::decode(&item.body)?)),
            None => None,
        };
        let mut log = Log::new(id.clone(), service.clone(), head, old.unwrap_or(Seq::ZERO));
        self.catch_up(&mut log, deadline).await?;
        Ok(log)
    }

    /// Folds the commits that the journal has above the tail. The log must have no undecided
    /// command. If that takes too long, it stops at the deadline; heads written on the way keep
    /// what was done.
    pub(super) async fn catch_up(&self, log: &mut Log, deadline: Time) -> Result<(), Blocked> {
        let id = log.id().clone();
        loop {
            self.check(deadline)?;
            let page =
                self.ports.journal.read(&id, log.tail().next(), COMMITS_PER_READ.get()).await?;
            let mut decoded = Vec::with_capacity(page.commits.len());
            let mut wants = BTreeSet::new();
            for item in &page.commits {
                let (entries, bytes) = item.entries()?;
                wants.extend(log.wants_to_fold(&entries));
                decoded.push((entries, bytes));
            }
            self.provide(log, wants, deadline).await?;
            for (entries, bytes) in decoded {
                log.fold(entries, bytes)?;
            }
            if page.commits.is_empty() || !page.more && !log.is_behind() {
                return Ok(log.reaches_the_state_table()?);
            }
            // A long first load writes heads on its way, so that the next call continues there.
            if log.may_snapshot() {
                let unpublished: Vec<_> = log.unpublished(log.tail()).cloned().collect();
                let unpublished: Vec<_> = unpublished.iter().collect();
                let publications = self.publish(&unpublished, deadline).await;
                let done = unpublished.iter().zip(publications).filter(|(_, p)| p.is_done());
                done.for_each(|(commit, _)| log.published(commit.first()));
                self.snapshot(log).await;
            }
        }
    }

    /// Loads what the log needs to decide these commands. It may take several rounds: only windows
    /// show which entries of the journal are needed, and only documents which others are.
    pub(super) async fn provide_for(
        &self,
        log: &mut Log,
        works: &[Work],
        deadline: Time,
    ) -> Result<(), Blocked> {
        for _ in 0..PROVIDE_ROUNDS_MAX {
            let wants = log.wants(works);
            if wants.is_empty() {
                break;
            }
            self.provide(log, wants, deadline).await?;
        }
        Ok(())
    }

    /// Loads items of the state table and the journal into the log.
    pub(super) async fn provide(
        &self,
        log: &mut Log,
        wants: BTreeSet<Want>,
        deadline: Time,
    ) -> Result<(), Blocked> {
        let entry = |want: &Want| if let Want::Entry(seq) = want { Some(*seq) } else { None };
        let seqs: Vec<Seq> = wants.iter().filter_map(entry).collect();
        // Repeated ids may be far apart in the journal, so each read asks for few commits.
        let per_read = seqs.len().min(COMMITS_PER_READ.get());
        let mut sent = self.commands_at(log.id(), &seqs, per_read, deadline).await?;
        seqs.iter().for_each(|seq| log.provide_entry(*seq, sent.remove(seq)));
        let stored = wants.into_iter().filter_map(|want| Some((log.state_key(&want)?, want)));
        let (keys, wants): (Vec<StateKey>, Vec<Want>) = stored.unzip();
        for (keys, wants) in keys.chunks(KEYS_PER_READ.get()).zip(wants.chunks(KEYS_PER_READ.get()))
        {
            let items = self.ports.state.get(log.id(), keys).await?;
            for (want, item) in wants.iter().zip(items) {
                log.provide(want.clone(), item.as_ref().map(|item| (item.seq, &*item.body)))?;
            }
        }
        Ok(())
    }

    /// Appends a commit to the journal. Leaves its body empty. All attempts carry one nonce, so
    /// that the processor recognises an attempt whose answer was lost.
    pub(super) async fn append(
        &self,
        id: &LogId,
        sealed: &mut Sealed,
    ) -> Result<Appended, Blocked> {
        let env = &*self.ports.env;
        let item = CommitItem {
            first: sealed.commit.first(),
            n: sealed.commit.entries.len() as u64,
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

    pub(super) fn check(&self, deadline: Time) -> Result<(), Blocked> {
        if self.ports.env.now() < deadline { Ok(()) } else { Err(Blocked::Deadline) }
    }

    /// The commands of the entries at `seqs`, which ascend. Each read begins at a seq that no
    /// earlier one reached, and asks for `commits_per_read` commits.
    pub(super) async fn commands_at(
        &self,
        id: &LogId,
        seqs: &[Seq],
        commits_per_read: usize,
        deadline: Time,
    ) -> Result<BTreeMap<Seq, Sent>, Blocked> {
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

    /// Adds to the queue what is parked for the log at or above `from` and could go on. Commits
    /// that the topic has refused are published again, since it may take them now.
    pub(super) async fn take_up_parked(
        &self,
        work: &mut LogWork,
        log: &Log,
        from: Seq,
        deadline: Time,
    ) -> Result<(), Blocked> {
        let id = work.id.clone();
        let mut pages = ParkedPages::new(&*self.ports.parked, &id, from, PARKED_PER_READ.get());
        let enough = work.queue.len() + PARKED_PER_READ.get();
        let (mut refused, mut any_held) = (Vec::new(), false);
        while work.queue.len() < enough
            && let Some(items) = pages.next().await?
        {
            self.check(deadline)?;
            for item in items {
                match Waiting::of(item, log.tail()) {
                    Waiting::Arrival(arrival) => work.queue.push_back(arrival),
                    Waiting::Refused(first, prev) => refused.push((first, prev)),
                    Waiting::Held => any_held = true,
                    Waiting::ForOperator => {}
                }
            }
        }
        let taken = work.queue.len() + PARKED_PER_READ.get() - enough;
        // If nothing was taken, the next call would find the same.
        work.more_parked |= taken >= PARKED_PER_READ.get() || taken > 0 && !pages.are_whole();
        work.sort();
        self.cache.note_parked(&work.id, taken > 0 || any_held);
        self.take_up_refused(work, refused).await
    }

    /// Queues refused commits to be published again, and to be removed from the parked table if
    /// that succeeds. If there are too many, it picks others each time, since the topic may refuse
    /// some for good.
    async fn take_up_refused(
        &self,
        work: &mut LogWork,
        mut refused: Vec<(Seq, Prev)>,
    ) -> Result<(), Blocked> {
        if refused.len() > REFUSED_PER_READ.get() {
            work.more_parked = true;
            let first = self.ports.env.random() % refused.len() as u64;
            refused.rotate_left(first as usize);
            refused.truncate(REFUSED_PER_READ.get());
        }
        for (first, prev) in refused {
            let page = self.ports.journal.read(&work.id, first, 1).await?;
            if let Some(item) = page.commits.first().filter(|item| item.first == first) {
                let entries = item.entries()?.0.into();
                work.publish(Commit { log: work.id.clone(), entries, prev: Arc::new(prev) });
                work.unpark.push((first, Parked::UNPUBLISHED.to_owned()));
            }
        }
        Ok(())
    }

    /// Parks the whole queue for one reason. What is parked already stays as it is.
    pub(super) async fn park_queue(
        &self,
        work: &mut LogWork,
        reason: Reason,
        detail: &str,
    ) -> Result<(), Blocked> {
        self.cache.note_parked(&work.id, !work.queue.is_empty());
        while let Some(arrival) = work.queue.front() {
            if !arrival.parked {
                tracing::warn!(log = %work.id, seq = %arrival.seq, ?reason, detail, "the processor parks a command");
                self.park(&work.id, arrival, reason, detail.to_owned()).await?;
            }
            work.queue.pop_front();
        }
        Ok(())
    }

    /// Puts a nudge on the stream, behind everything that is there now. It makes one attempt,
    /// because the sweep would find the parked commands, too.
    pub(super) async fn nudge(&self, id: &LogId, deadline: Time) {
        if self.check(deadline).is_err() {
            return;
        }
        let put = match self.ports.stream.put_records(&[StreamRecord::nudge(id.clone())]).await {
            Ok(results) => results.into_iter().collect::<Result<(), Unavailable>>(),
            Err(error) => Err(error),
        };
        if let Err(error) = put {
            tracing::warn!(log = %id, %error, "the processor could not put a nudge on the command stream: the sweep will");
        }
    }

    /// Parks the whole queue of a log that would fail in the same way each time.
    pub(super) async fn park_unfoldable(
        &self,
        work: &mut LogWork,
        error: &(dyn std::error::Error + Sync),
    ) -> Result<(), Blocked> {
        let detail = with_causes(error);
        tracing::error!(alarm = "cannot_fold", log = %work.id, detail, "the processor cannot fold the log, and parks its commands");
        self.park_queue(work, Reason::CannotFold, &detail).await
    }

    pub(super) async fn park(
        &self,
        id: &LogId,
        arrival: &Arrival,
        reason: Reason,
        detail: String,
    ) -> Result<(), Blocked> {
        let content = Content::Command((*arrival.command).clone());
        let parked = Parked { reason, at: arrival.at, detail, content };
        self.park_body(id, arrival.seq, &parked).await
    }

    pub(super) async fn park_unreadable(
        &self,
        id: &LogId,
        unreadable: &[(Seq, Parked)],
    ) -> Result<(), Blocked> {
        for (seq, parked) in unreadable {
            tracing::error!(alarm = "undecodable", log = %id, %seq, detail = parked.detail, "the processor cannot read a record, and parks it");
            self.park_body(id, *seq, parked).await?;
        }
        Ok(())
    }

    pub(super) async fn park_body(
        &self,
        id: &LogId,
        seq: Seq,
        parked: &Parked,
    ) -> Result<(), Blocked> {
        let item = ParkedItem::of(seq, parked).map_err(Blocked::Unencodable)?;
        Ok(self.ports.parked.park(id, &item).await?)
    }

    /// Removes the parked items whose entries are published.
    pub(super) async fn remove_parked(&self, work: &LogWork) -> Result<(), Blocked> {
        for (seq, identity) in &work.unpark {
            self.ports.parked.remove(&work.id, *seq, identity).await?;
        }
        Ok(())
    }

    /// Reads the head that another environment may have stored, before commits of that environment
    /// are published again for a snapshot. So environments that take turns on a log repeat little.
    pub(super) async fn look_for_newer_head(&self, work: &mut LogWork) {
        if !work.would_repeat_others() {
            return;
        }
        let Some(log) = work.log.as_mut() else { return };
        let key = StateKey::head(log.service().document_version());
        let found = self.ports.state.get(&work.id, std::slice::from_ref(&key)).await;
        let Ok(Some(item)) = found.map(|mut found| found.pop().flatten()) else { return };
        if let Ok(head) = Head::decode(&item.body) {
            log.adopt(item.seq, &head);
        }
    }

    /// Stores a snapshot if one is due: first all documents and windows, then the head. A snapshot
    /// that fails is taken again later, because nothing depends on it.
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
        // A newer item that is already stored serves as well.
        puts.try_for_each(|_: Guarded| async { Ok(()) }).await?;
        put(&snapshot.head).await?;
        Ok(())
    }
}

/// Logs each fault with its log and seq, which the panic hook does not have.
pub(super) fn report_faults(commit: &Commit) {
    for entry in commit.entries.iter() {
        if let Outcome::Faulted { message, .. } = &entry.outcome {
            tracing::warn!(log = %commit.log, seq = %entry.seq, fault = message, "the service panicked, or crashed the process: the command's entry is `faulted`");
        }
    }
}
