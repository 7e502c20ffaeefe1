//! The auditor: a plain model of what the system should contain.
//!
//! The ports report every effect to it when the effect happens. It keeps a model of every log,
//! without the code of the stages that it checks, and collects violations of the invariants.

mod cases;
mod decide;
mod notes;
mod state;
mod views;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fanfold::entry::{Entry, Outcome};
use fanfold::host::body::notification::entry_kinds;
use fanfold::host::body::{commit, head, notification, slot};
use fanfold::host::canary::Canary;
use fanfold::host::invariant::{Breach, Invariant};
use fanfold::host::limits::{COMMIT_BYTES_MAX, NOTIFICATION_BYTES_MAX, SLOT_BODY_BYTES_MAX};
use fanfold::host::window::{Sighting, Window};
use fanfold::service::AnyDocument;
use fanfold::{
    AnyService, Command, CommandId, DocumentId, LogId, Origin, Seq, Service, Services, StateKey,
    Time, Views,
};
use fanfold_pipeline::ports::CommitItem;

use crate::services::Notes;

pub use self::cases::{Case, Cases};
use self::decide::agrees;
use self::notes::NoteModel;
use self::views::ViewModel;

/// Versions of a value, each with the first seq at which it holds.
type History<T> = Vec<(Seq, T)>;

fn at<T>(history: &History<T>, seq: Seq) -> Option<&(Seq, T)> {
    history.iter().rev().find(|(since, _)| *since <= seq)
}

/// What one log should contain.
#[derive(Default)]
struct LogModel {
    accepted: Vec<(Time, Command)>,
    /// Other commands that arrived for a seq.
    rivals: BTreeMap<Seq, Command>,
    /// The first seq of the batch in the slot.
    in_slot: Seq,
    /// The commands of lost changes.
    lost: BTreeSet<Seq>,
    on_stream: BTreeSet<Seq>,
    streamed: Seq,
    entries: Vec<Entry>,
    last_commit_bytes: usize,
    /// The last seq of each commit, by its first.
    commits: BTreeMap<Seq, Seq>,
    published: BTreeSet<Seq>,
    /// The seqs whose commands an operator gave up. If one was held back since, it may still be decided.
    given_up: BTreeSet<Seq>,
    /// The first seqs of commits that are parked because the topic refused them.
    refused: BTreeSet<Seq>,
    used: HashMap<(Origin, CommandId), Seq>,
    documents: BTreeMap<DocumentId, (Option<AnyDocument>, History<Vec<u8>>)>,
    notes: BTreeMap<DocumentId, NoteModel>,
    windows: BTreeMap<Origin, History<Window>>,
    prev: History<head::Prev>,
    /// The seq of each key in the state table.
    stored: BTreeMap<StateKey, Seq>,
    views: BTreeMap<&'static str, ViewModel>,
}

/// The auditor.
pub struct Model {
    /// What was ever deployed, the newest first.
    deployed: Vec<Services>,
    views: Views,
    logs: BTreeMap<LogId, LogModel>,
    canaries_are_published: bool,
    /// What the run came upon.
    pub cases: Cases,
    /// The violations so far.
    pub violations: Vec<Breach>,
}

impl Model {
    /// Creates an empty model. `deployed`: the services, the newest first.
    pub fn new(deployed: Vec<Services>, views: Views, canaries_are_published: bool) -> Self {
        let (logs, cases, violations) = (BTreeMap::new(), Cases::new(), Vec::new());
        Self { deployed, views, logs, canaries_are_published, cases, violations }
    }

    /// Every version of the log's service, the newest first.
    fn versions(&self, log: &LogId) -> Vec<&dyn AnyService> {
        let all = self.deployed.iter();
        all.filter_map(|services| services.get(log.service())).map(Arc::as_ref).collect()
    }

    fn is_published(&self, log: &LogId) -> bool {
        self.canaries_are_published || log.service() != Canary::NAME
    }

    fn log(&mut self, log: &LogId) -> &mut LogModel {
        self.logs.entry(log.clone()).or_default()
    }

    /// Adds a violation unless `holds`.
    pub fn check(&mut self, invariant: Invariant, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violations.push(Breach { invariant, what: what() });
        }
    }

    /// Ingest appended a batch to a slot.
    pub fn accepted(&mut self, log: &LogId, last: Seq, at: Time, body: &[u8]) {
        let commands = slot::decode(body).unwrap_or_default();
        if commands.len() == 1 && commands[0].data.get().len() > SLOT_BODY_BYTES_MAX.get() {
            self.came_upon(Case::LargeSlot);
        }
        let model = self.log(log);
        model.in_slot = Seq(model.accepted.len() as u64).next();
        model.accepted.extend(commands.into_iter().map(|command| (at, command)));
        let n = model.accepted.len() as u64;
        self.check(Invariant::F1, n == last.0, || format!("{log}: {n} commands, last seq {last}"));
    }

    /// Another command arrives for this seq.
    pub fn has_rival(&mut self, log: &LogId, seq: Seq, rival: Command) {
        self.log(log).rivals.insert(seq, rival);
    }

    /// Of the two commands for a seq, those without the entry. They must be parked, so that an operator sees them.
    pub fn losers(&self, log: &LogId) -> Vec<(Seq, String)> {
        let Some(model) = self.logs.get(log) else { return Vec::new() };
        let both = model.rivals.iter().filter_map(|(seq, rival)| {
            let entry = self.entry(log, *seq)?;
            let (_, accepted) = model.accepted.get((seq.0 as usize).checked_sub(1)?)?;
            let is_rival = entry.origin == rival.origin && entry.id == rival.id;
            Some((*seq, if is_rival { accepted.identity() } else { rival.identity() }))
        });
        both.collect()
    }

    /// The change of the batch that ends at `last` will never be on the change stream.
    pub fn lost(&mut self, log: &LogId, last: Seq, n: u64) {
        self.log(log).lost.extend((last.0 + 1 - n..=last.0).map(Seq));
    }

    /// An operator gave up the command at `seq`.
    pub fn given_up(&mut self, log: &LogId, seq: Seq) {
        self.log(log).given_up.insert(seq);
    }

    /// Where a log is stopped for good: the change of its next command was lost, and a later batch
    /// has overwritten that command in the slot.
    pub fn stopped(&self, log: &LogId) -> Option<Seq> {
        let (model, next) = (self.logs.get(log)?, self.tail(log).next());
        let is_lost = model.lost.contains(&next) && !model.on_stream.contains(&next);
        (is_lost && next < model.in_slot).then_some(next)
    }

    /// The commands behind the tail that reached the stream. The system must keep them.
    pub fn waiting(&self, log: &LogId) -> Vec<Seq> {
        let tail = self.tail(log);
        let Some(model) = self.logs.get(log) else { return Vec::new() };
        model.on_stream.range(tail.next()..).copied().collect()
    }

    /// The relay put the commands `first..=last` on the stream.
    pub fn streamed(&mut self, log: &LogId, first: Seq, last: Seq) {
        let model = self.log(log);
        let before = model.streamed;
        model.streamed = before.max(last);
        model.on_stream.extend((first.0..=last.0).map(Seq));
        let is_lost = |seq| model.lost.contains(&Seq(seq));
        let follows = (before.0 + 1..first.0).all(is_lost);
        self.check(Invariant::F2, follows, || {
            format!("{log}: {first} to {last} put on the stream, which ended at {before}")
        });
    }

    /// The relay acknowledged a change.
    pub fn change_acknowledged(&mut self, log: &LogId, last: Seq) {
        let streamed = self.log(log).streamed;
        self.check(Invariant::F8, last <= streamed, || {
            format!("{log}: change {last} was acknowledged, the stream ends at {streamed}")
        });
    }

    /// The seq of the last accepted command.
    pub fn accepted_seq(&self, log: &LogId) -> Seq {
        Seq(self.logs.get(log).map_or(0, |model| model.accepted.len() as u64))
    }

    /// The seq of the last entry of a log.
    pub fn tail(&self, log: &LogId) -> Seq {
        Seq(self.logs.get(log).map_or(0, |model| model.entries.len() as u64))
    }

    /// All logs, in order.
    pub fn log_ids(&self) -> Vec<LogId> {
        self.logs.keys().cloned().collect()
    }

    /// The first entry of the log that the view cannot apply.
    pub fn broken(&self, view: &str, log: &LogId) -> Option<Seq> {
        self.logs.get(log)?.views.get(view)?.broken
    }

    /// The entry at `seq`.
    pub fn entry(&self, log: &LogId, seq: Seq) -> Option<&Entry> {
        self.logs.get(log)?.entries.get((seq.0 as usize).checked_sub(1)?)
    }

    /// The journal stored a commit.
    pub fn committed(&mut self, log: &LogId, item: &CommitItem) {
        let tail = self.tail(log);
        let (entries, bytes) = match commit::decode(item.first, &item.body) {
            Ok(commit) => commit,
            Err(error) => {
                return self.check(Invariant::F3, false, || format!("{log}: {error}"));
            }
        };
        let (first, n) = (item.first, entries.len() as u64);
        self.check(Invariant::F3, first == tail.next() && n == item.n, || {
            format!("{log}: a commit of {n} from {first} behind {tail}")
        });
        self.check(Invariant::F8, bytes <= COMMIT_BYTES_MAX.get(), || {
            format!(
                "{log}: the commit from {first} has {bytes} bytes, and a table does not take it"
            )
        });
        if !self.violations.is_empty() {
            return;
        }
        let is_published = self.is_published(log);
        let model = self.log(log);
        let before = std::mem::replace(&mut model.last_commit_bytes, bytes);
        let is_full = before + bytes > COMMIT_BYTES_MAX.get();
        model.commits.insert(first, item.last());
        if !is_published {
            model.published.insert(first);
        }
        if is_full {
            self.came_upon(Case::FullCommit);
        }
        for entry in entries {
            self.entered(log, entry);
        }
    }

    /// Appends an entry to the model, and checks it against its command.
    pub fn entered(&mut self, log: &LogId, entry: Entry) {
        let seq = entry.seq;
        let before = self.log(log).now();
        self.check(Invariant::F9, entry.time >= before, || {
            format!("{log}: the time decreases from {} to {} at {seq}", before.0, entry.time.0)
        });
        let expected = self.expected(log, &entry);
        let describe = |entry: &Entry| format!("{log}: {entry:?}");
        let is_given_up = self.log(log).given_up.contains(&seq);
        match expected {
            Some(_) if matches!(entry.outcome, Outcome::Lost { .. }) => {
                self.check(Invariant::F8, is_given_up, || {
                    format!("{}: no operator gave its command up", describe(&entry))
                });
                self.came_upon(Case::GivenUp);
            }
            None => self.check(Invariant::F3, false, || {
                format!("{}: no such command was accepted", describe(&entry))
            }),
            Some((command, outcome)) => {
                let same = entry.origin == command.origin && entry.id == command.id;
                self.check(Invariant::F3, same, || {
                    format!("{}: its command is {}", describe(&entry), command.identity())
                });
                let repeated = matches!(
                    &outcome,
                    Outcome::Duplicate { .. } | Outcome::Rejected { of: Some(_), .. }
                );
                let repeated = repeated && entry.outcome.uses_id();
                let invariant = if repeated { Invariant::F4 } else { Invariant::F9 };
                self.check(invariant, agrees(&outcome, &entry.outcome), || {
                    format!("{}: expected {outcome:?}", describe(&entry))
                });
            }
        }
        self.count(log, &entry);
        let (newest, views) = (self.deployed.first().cloned(), self.views.clone());
        let (mut wrong, mut is_made_again) = (None, false);
        let model = self.log(log);
        if let Outcome::Accepted(events) = &entry.outcome
            && let Some(service) = newest.as_ref().and_then(|services| services.get(log.service()))
        {
            for event in events {
                let (document, history) =
                    model.documents.entry(event.document.clone()).or_default();
                let folded = service.fold(document.take(), event).ok();
                let json = folded.as_ref().and_then(|d| service.encode_document(d).ok());
                let json = json.unwrap_or_default();
                *document = folded;
                if log.service() == Notes::<()>::NAME {
                    let note = model.notes.entry(event.document.clone()).or_default();
                    is_made_again |= note.was_removed() && event.kind.as_str() == "created";
                    note.fold(event);
                    wrong = wrong.or((!note.is(&json)).then(|| event.document.clone()));
                }
                history.retain(|(since, _)| *since != seq);
                history.push((seq, json));
            }
        }
        if entry.outcome.uses_id() {
            model.used.insert((entry.origin.clone(), entry.id), seq);
            let history = model.windows.entry(entry.origin.clone()).or_default();
            let mut window = history.last().map(|(_, w)| w.clone()).unwrap_or_default();
            window.insert(entry.id, seq, entry.time);
            history.push((seq, window));
        }
        let mut prev = model.prev.last().map(|(_, prev)| prev.clone()).unwrap_or_default();
        prev.extend(entry_kinds(log.service(), &entry).map(|kind| (kind.into_owned(), seq)));
        model.prev.push((seq, prev));
        let mut parked = Vec::new();
        for view in views.iter().filter(|view| view.services().contains(&log.service())) {
            let rows = model.views.entry(view.name()).or_default();
            if rows.broken.is_none()
                && let Err(fault) = rows.apply(view.as_ref(), log, &entry)
            {
                rows.broken = Some(seq);
                parked.push(fault);
            }
        }
        model.entries.push(entry);
        if is_made_again {
            self.came_upon(Case::MadeAgain);
        }
        self.check(Invariant::F9, wrong.is_none(), || {
            format!("{log}: {wrong:?} is folded wrong at {seq}")
        });
        if parked.iter().any(|fault| fault.message() == views::ROW_TOO_LARGE) {
            self.came_upon(Case::RowTooLarge);
        }
    }

    /// Appends a command to the accepted commands of the log.
    pub fn accept(&mut self, log: &LogId, at: Time, command: Command) {
        self.log(log).accepted.push((at, command));
    }

    /// The topic took a message.
    pub fn published(&mut self, body: &str) {
        let commits = match notification::decode(body) {
            Ok(commits) => commits,
            Err(error) => {
                return self.check(Invariant::F5, false, || format!("unreadable: {error}"));
            }
        };
        let is_large = body.len() > NOTIFICATION_BYTES_MAX.get();
        self.check(Invariant::F8, !is_large || commits.iter().all(|c| c.entries.is_none()), || {
            format!("a message has {} bytes, and a topic does not take it", body.len())
        });
        if commits.iter().any(|commit| commit.log != commits[0].log) {
            self.came_upon(Case::MessageOfLogs);
        }
        if commits.iter().any(|commit| commit.entries.is_none()) {
            self.came_upon(Case::MessageWithoutEntries);
        }
        for received in commits {
            let log = received.log.clone();
            let is_published = self.is_published(&log);
            self.check(Invariant::F5, is_published, || format!("{log}: a canary was published"));
            let model = self.log(&log);
            let stored = model.commits.get(&received.first) == Some(&received.last);
            let prev = at(&model.prev, received.first.before()).map(|(_, prev)| prev.clone());
            let prev_holds = prev.unwrap_or_default() == *received.prev;
            if stored {
                model.published.insert(received.first);
            }
            self.check(Invariant::F5, stored, || {
                format!("{log}: {} to {} published, but not stored", received.first, received.last)
            });
            self.check(Invariant::F6, prev_holds, || {
                format!("{log}: `prev` of {} is {:?}", received.first, received.prev)
            });
        }
    }

    /// The processor parked the commit from `first` on, because the topic refused it.
    pub fn refused(&mut self, log: &LogId, first: Seq) {
        let model = self.log(log);
        model.refused.insert(first);
        let stored = model.commits.contains_key(&first);
        self.check(Invariant::F5, stored, || {
            format!("{log}: {first} was parked as refused, but no commit begins there")
        });
    }

    /// The processor removed the parked commit, so it must have been published.
    pub fn not_refused(&mut self, log: &LogId, first: Seq) {
        let model = self.log(log);
        model.refused.remove(&first);
        let published = model.published.contains(&first);
        self.check(Invariant::F5, published, || {
            format!("{log}: the commit from {first} was unparked, but never published")
        });
    }

    /// The processor removed a parked command. No stage publishes its commit after that.
    pub fn unparked(&mut self, log: &LogId, seq: Seq) {
        let (_, published) = self.log(log).commit_at(seq);
        self.check(Invariant::F5, published, || {
            format!("{log}: {seq} was unparked, but its commit was never published")
        });
    }

    /// The processor acknowledged a command; `parked` says whether it is in the parked table.
    pub fn command_acknowledged(&mut self, log: &LogId, seq: Seq, parked: bool) {
        let (stored, published) = self.log(log).commit_at(seq);
        self.check(Invariant::F8, stored || parked, || {
            format!("{log}: {seq} was acknowledged, but is neither an entry nor parked")
        });
        self.check(Invariant::F5, published || parked, || {
            format!("{log}: {seq} was acknowledged before its commit was published")
        });
    }

    /// Whether any entry of the log is a fault.
    pub fn has_faults(&self, log: &LogId) -> bool {
        let entries = self.logs.get(log).into_iter().flat_map(|model| &model.entries);
        entries.into_iter().any(|entry| matches!(entry.outcome, Outcome::Faulted { .. }))
    }

    /// A client looked up an accepted command by its id.
    pub fn looked_up(&mut self, log: &LogId, by: (Origin, CommandId), found: Option<Seq>) {
        let model = self.log(log);
        let (first, now) = (model.used.get(&by).copied(), model.now());
        let window = model.windows.get(&by.0).and_then(|history| history.last());
        let is_remembered =
            window.is_some_and(|(_, window)| matches!(window.sight(by.1, now), Sighting::Known(_)));
        let found_it = found == first && found.is_some() || found.is_none() && !is_remembered;
        self.check(Invariant::F8, found_it, || {
            format!("{log}: looked up {by:?}, found {found:?}, its entry is {first:?}")
        });
    }

    /// The commits that were neither published nor parked as refused.
    pub fn unpublished(&self, log: &LogId) -> Vec<Seq> {
        let Some(model) = self.logs.get(log) else { return Vec::new() };
        model.commits.keys().filter(|first| !model.is_done(first)).copied().collect()
    }
}

impl LogModel {
    /// The time of the last entry.
    fn now(&self) -> Time {
        self.entries.last().map_or(Time::default(), |last| last.time)
    }

    /// Whether the commit from `first` on is published, or parked as refused.
    fn is_done(&self, first: &Seq) -> bool {
        self.published.contains(first) || self.refused.contains(first)
    }

    /// Whether the entry at `seq` is stored, and whether its commit is published or parked as refused.
    fn commit_at(&self, seq: Seq) -> (bool, bool) {
        let commit = self.commits.range(..=seq).next_back().filter(|(_, last)| **last >= seq);
        match commit {
            Some((first, _)) => (true, self.is_done(first)),
            None => (false, false),
        }
    }
}
