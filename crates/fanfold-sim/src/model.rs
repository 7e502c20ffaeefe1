//! The auditor: a plain model of what the system should contain.
//!
//! The ports report every effect to it when the effect happens. It keeps a model of every log,
//! without the code of the stages that it checks, and collects violations of the invariants.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use fanfold::body::notification::entry_kinds;
use fanfold::body::{commit, head, notification, slot};
use fanfold::canary::Canary;
use fanfold::catch::Fault as Panic;
use fanfold::entry::{Entry, Outcome};
use fanfold::invariant::{Breach, Invariant};
use fanfold::service::{AnyDocument, Decision, InvalidCommand};
use fanfold::window::{Sighting, Window};
use fanfold::{
    AnyView, Command, CommandId, Context, DocumentId, LogId, Origin, RowKey, Seq, Service,
    Services, StateKey, Time, Views,
};
use fanfold_pipeline::ports::{CommitItem, StateItem, StoredRow};
use serde_json::Value;

/// Versions of a value, each with the first seq at which it holds.
type History<T> = Vec<(Seq, T)>;

fn at<T>(history: &History<T>, seq: Seq) -> Option<&(Seq, T)> {
    history.iter().rev().find(|(since, _)| *since <= seq)
}

/// What one log should contain.
#[derive(Default)]
struct LogModel {
    accepted: Vec<(Time, Command)>,
    /// The first seq of the batch in the slot.
    in_slot: Seq,
    /// The commands of lost changes.
    lost: BTreeSet<Seq>,
    on_stream: BTreeSet<Seq>,
    streamed: Seq,
    entries: Vec<Entry>,
    /// The last seq of each commit, by its first.
    commits: BTreeMap<Seq, Seq>,
    published: BTreeSet<Seq>,
    /// The first seqs of commits that are parked because the topic refused them.
    refused: BTreeSet<Seq>,
    used: HashMap<(Origin, CommandId), Seq>,
    documents: BTreeMap<DocumentId, (AnyDocumentBox, History<Vec<u8>>)>,
    windows: BTreeMap<Origin, History<Window>>,
    prev: History<head::Prev>,
    /// The seq of each key in the state table.
    stored: BTreeMap<StateKey, Seq>,
    views: BTreeMap<&'static str, ViewModel>,
}

type AnyDocumentBox = Option<AnyDocument>;

#[derive(Default)]
struct ViewModel {
    rows: BTreeMap<RowKey, History<Option<Vec<u8>>>>,
    stored: BTreeMap<RowKey, Seq>,
    cursor: Seq,
    /// The first entry that the view cannot apply.
    broken: Option<Seq>,
    /// The highest cursor that a reader saw.
    seen: Seq,
    rows_seen: BTreeMap<RowKey, Seq>,
}

/// The auditor.
pub struct Model {
    services: Services,
    views: Views,
    logs: BTreeMap<LogId, LogModel>,
    canaries_are_told: bool,
    /// The violations so far.
    pub violations: Vec<Breach>,
}

impl Model {
    /// Creates an empty model.
    pub fn new(services: Services, views: Views, canaries_are_told: bool) -> Self {
        let (logs, violations) = (BTreeMap::new(), Vec::new());
        Self { services, views, logs, canaries_are_told, violations }
    }

    fn is_told(&self, log: &LogId) -> bool {
        self.canaries_are_told || log.service() != Canary::NAME
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
        let model = self.log(log);
        model.in_slot = Seq(model.accepted.len() as u64).next();
        model.accepted.extend(commands.into_iter().map(|command| (at, command)));
        let n = model.accepted.len() as u64;
        self.check(Invariant::F1, n == last.0, || format!("{log}: {n} commands, last seq {last}"));
    }

    /// The change of the batch that ends at `last` will never be on the change stream.
    pub fn lost(&mut self, log: &LogId, last: Seq, n: u64) {
        self.log(log).lost.extend((last.0 + 1 - n..=last.0).map(Seq));
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
        let entries = match commit::decode(item.first, &item.body) {
            Ok((entries, _)) => entries,
            Err(error) => {
                return self.check(Invariant::F3, false, || format!("{log}: {error}"));
            }
        };
        let (first, n) = (item.first, entries.len() as u64);
        self.check(Invariant::F3, first == tail.next() && n == item.n, || {
            format!("{log}: a commit of {n} from {first} behind {tail}")
        });
        if !self.violations.is_empty() {
            return;
        }
        let is_told = self.is_told(log);
        let model = self.log(log);
        model.commits.insert(first, item.last());
        if !is_told {
            model.published.insert(first);
        }
        for entry in entries {
            self.entered(log, entry);
        }
    }

    /// Appends an entry to the model, and checks it against its command.
    pub fn entered(&mut self, log: &LogId, entry: Entry) {
        let seq = entry.seq;
        let before = self.log(log).entries.last().map_or(Time::default(), |last| last.time);
        self.check(Invariant::F9, entry.time >= before, || {
            format!("{log}: the time decreases from {} to {} at {seq}", before.0, entry.time.0)
        });
        let expected = self.expected(log, &entry);
        let describe = |entry: &Entry| format!("{log}: {entry:?}");
        match expected {
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
        let (services, views) = (self.services.clone(), self.views.clone());
        let model = self.log(log);
        if let Outcome::Accepted(events) = &entry.outcome
            && let Some(service) = services.get(log.service())
        {
            for event in events {
                let (document, history) =
                    model.documents.entry(event.document.clone()).or_default();
                let folded = service.fold(document.take(), event).ok();
                let json = folded.as_ref().and_then(|d| service.encode_document(d).ok());
                *document = folded;
                history.retain(|(since, _)| *since != seq);
                history.push((seq, json.unwrap_or_default()));
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
        for view in views.iter().filter(|view| view.services().contains(&log.service())) {
            let rows = model.views.entry(view.name()).or_default();
            if rows.broken.is_none() && rows.apply(view.as_ref(), log, &entry).is_err() {
                rows.broken = Some(seq);
            }
        }
        model.entries.push(entry);
    }

    /// Appends a command to the accepted commands of the log.
    pub fn accept(&mut self, log: &LogId, at: Time, command: Command) {
        self.log(log).accepted.push((at, command));
    }

    /// Whether deciding `command` at this entry's seq gives this entry's outcome.
    pub fn explains(&self, log: &LogId, entry: &Entry, command: &Command) -> bool {
        let empty = LogModel::default();
        let model = self.logs.get(log).unwrap_or(&empty);
        let expected = self.expected_of(model, log, entry, command);
        expected.is_some_and(|expected| agrees(&expected, &entry.outcome))
    }

    /// The command at this entry's seq, and the outcome that the model decides for it.
    fn expected(&self, log: &LogId, entry: &Entry) -> Option<(Command, Outcome)> {
        let model = self.logs.get(log)?;
        let (_, command) = model.accepted.get((entry.seq.0 as usize).checked_sub(1)?)?;
        Some((command.clone(), self.expected_of(model, log, entry, command)?))
    }

    fn expected_of(
        &self,
        model: &LogModel,
        log: &LogId,
        entry: &Entry,
        command: &Command,
    ) -> Option<Outcome> {
        let window = model.windows.get(&command.origin).and_then(|history| history.last());
        let sight = |(_, window): &(Seq, Window)| window.sight(command.id, entry.time);
        let outcome = match window.map_or(Sighting::New, sight) {
            Sighting::Known(of) => repeated(&model.accepted, command, of),
            Sighting::Unknown => Outcome::Stale,
            Sighting::New => self.decided(model, log, entry, command)?,
        };
        if let Some(of) = model.used.get(&(command.origin.clone(), command.id))
            && outcome.uses_id()
        {
            // The window lost an id, although its 2,048 ids suffice for every simulated client.
            return Some(Outcome::Duplicate { of: *of });
        }
        Some(outcome)
    }

    fn decided(
        &self,
        model: &LogModel,
        log: &LogId,
        entry: &Entry,
        command: &Command,
    ) -> Option<Outcome> {
        let service = self.services.get(log.service())?;
        let faulted = |fault: &Panic| Outcome::Faulted {
            message: fault.to_string(),
            data: command.data.as_ref().into(),
            timestamp: command.timestamp,
        };
        let parsed = match service.parse(&command.name, &command.data) {
            Ok(parsed) => parsed,
            Err(invalid) => return Some(rejected(&invalid)),
        };
        let declared = match service.documents(&parsed) {
            Ok(declared) => declared,
            Err(fault) => return Some(faulted(&fault)),
        };
        let docs: Vec<(&DocumentId, Option<&AnyDocument>)> = declared
            .iter()
            .map(|id| {
                let document = model.documents.get(id).and_then(|(document, _)| document.as_ref());
                (id, document)
            })
            .collect();
        let ctx = Context {
            log: log.clone(),
            seq: entry.seq,
            time: entry.time,
            origin: command.origin.clone(),
            id: command.id,
            timestamp: command.timestamp,
        };
        Some(match service.decide(&docs, &parsed, &ctx) {
            Err(fault) => faulted(&fault),
            Ok(Decision::Rejected { code, message }) => Outcome::rejected(code, message),
            Ok(Decision::Accepted { events, .. }) => Outcome::Accepted(events),
        })
    }

    /// The topic took a message.
    pub fn published(&mut self, body: &str) {
        let commits = match notification::decode(body) {
            Ok(commits) => commits,
            Err(error) => {
                return self.check(Invariant::F5, false, || format!("unreadable: {error}"));
            }
        };
        for received in commits {
            let log = received.log.clone();
            let is_told = self.is_told(&log);
            self.check(Invariant::F5, is_told, || format!("{log}: a canary was published"));
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

    /// The state table stored a document, a window or a head.
    pub fn stored(&mut self, log: &LogId, key: &StateKey, item: &StateItem) {
        let services = self.services.clone();
        let Some(service) = services.get(log.service()) else { return };
        let version = service.document_version();
        let model = self.log(log);
        let mut wrong = Vec::new();
        let tail = model.entries.len() as u64;
        if item.seq.0 > tail {
            wrong.push(format!("{key:?} at {} is beyond the journal's {tail}", item.seq));
        }
        for (id, (_, history)) in &model.documents {
            if *key == StateKey::document(version, id) {
                let expected = at(history, item.seq).map(|(_, json)| json.as_slice());
                let found = head::decode_document(&item.body).ok();
                if expected != found.as_deref() {
                    wrong.push(format!("{key:?} at {} is not its fold", item.seq));
                }
            }
        }
        for (origin, history) in &model.windows {
            if *key == StateKey::window(version, origin) {
                let expected = at(history, item.seq).map(|(_, window)| window);
                let found = head::decode_window(&item.body).ok();
                if expected != found.as_ref() {
                    wrong.push(format!("{key:?} at {} is not its fold", item.seq));
                }
            }
        }
        let before = model.stored.insert(key.clone(), item.seq);
        if before.is_some_and(|before| before >= item.seq) {
            wrong.push(format!("{key:?} went from {before:?} to {}", item.seq));
        }
        if *key == StateKey::head(version) {
            wrong.extend(model.head_contradictions(version, item));
        }
        for what in wrong {
            self.check(Invariant::Head, false, || format!("{log}: {what}"));
        }
    }

    /// A view's table stored a row.
    pub fn row_stored(&mut self, view: &'static str, log: &LogId, key: &RowKey, row: &StoredRow) {
        let rows = self.log(log).views.entry(view).or_default();
        let before = rows.stored.insert(key.clone(), row.seq);
        let fold = rows.rows.get(key).and_then(|history| at(history, row.seq));
        let same = fold.is_some_and(|(since, body)| {
            *since == row.seq && body.as_deref() == row.body.as_deref()
        });
        let what = format!("{view} {log} {key}: {row:?}, before at {before:?}, should be {fold:?}");
        let forward = before.is_none_or(|before| before < row.seq);
        self.check(Invariant::F6, same && forward, || what);
    }

    /// A view's cursor moved.
    pub fn advanced(&mut self, view: &'static str, log: &LogId, to: Seq) {
        let tail = self.tail(log);
        let rows = self.log(log).views.entry(view).or_default();
        let from = std::mem::replace(&mut rows.cursor, to);
        let missing = rows.rows.iter().find_map(|(key, history)| {
            let touched = at(history, to).map_or(Seq::ZERO, |(since, _)| *since);
            let stored = rows.stored.get(key).copied().unwrap_or_default();
            (stored < touched).then(|| format!("{key} is stored at {stored}, not {touched}"))
        });
        let passes_broken = rows.broken.is_some_and(|broken| to >= broken);
        self.check(
            Invariant::F6,
            from < to && to <= tail && missing.is_none() && !passes_broken,
            || format!("{view} {log}: the cursor moved from {from} to {to} of {tail}: {missing:?}"),
        );
    }

    /// A view acknowledged a message while its cursor of this log was at `cursor`. `excused`: the
    /// view is parked or marked behind for this log.
    pub fn message_acknowledged(
        &mut self,
        view: &'static str,
        notice: (&LogId, Seq),
        cursor: Seq,
        excused: bool,
    ) {
        let (log, last) = notice;
        self.check(Invariant::F6, cursor >= last || excused, || {
            format!("{view} {log}: {last} was acknowledged, the cursor is at {cursor}")
        });
    }

    /// Checks the stored rows of a view whose cursor is at `cursor`. Each must be the fold at its seq,
    /// and none may be older than the cursor requires. `rows` has live rows only.
    pub fn rows_stored(
        &mut self,
        view: &'static str,
        log: &LogId,
        cursor: Seq,
        rows: &BTreeMap<RowKey, (Seq, Vec<u8>)>,
    ) {
        let fold = self.log(log).views.entry(view).or_default();
        let mut wrong = Vec::new();
        for (key, (seq, body)) in rows {
            let expected = fold.rows.get(key).and_then(|history| at(history, *seq));
            let same =
                |(since, row): &(Seq, Option<Vec<u8>>)| since == seq && row.as_ref() == Some(body);
            if !expected.is_some_and(same) {
                wrong.push(format!("{key} at {seq} is not its fold, which is {expected:?}"));
            }
        }
        for (key, history) in &fold.rows {
            let Some((since, row)) = at(history, cursor) else { continue };
            let shown = rows.get(key).map(|(seq, _)| *seq);
            // An entry behind the cursor may have removed a missing row.
            let is_removed_later =
                history.iter().any(|(later, row)| later > since && row.is_none());
            if row.is_some() && shown < Some(*since) && !(shown.is_none() && is_removed_later) {
                wrong.push(format!("{key} at {shown:?}, {since} is below the cursor {cursor}"));
            }
        }
        for what in wrong {
            self.check(Invariant::F6, false, || format!("{view} {log}: {what}"));
        }
    }

    /// Checks a row that a reader saw. The row may have changed since.
    pub fn row_seen(
        &mut self,
        view: &'static str,
        log: &LogId,
        key: &RowKey,
        seq: Seq,
        row: &[u8],
    ) {
        let fold = self.log(log).views.entry(view).or_default();
        let expected = fold.rows.get(key).and_then(|history| at(history, seq)).cloned();
        let same = matches!(&expected, Some((since, Some(body))) if *since == seq && body == row);
        self.check(Invariant::F6, same, || {
            format!("{view} {log}: a reader saw {key} at {seq}, its fold is {expected:?}")
        });
    }

    /// The keys of documents, windows and head that the state table may have of a log, head last.
    pub fn state_keys(&self, log: &LogId) -> Vec<StateKey> {
        let (Some(model), Some(service)) = (self.logs.get(log), self.services.get(log.service()))
        else {
            return Vec::new();
        };
        let version = service.document_version();
        let documents = model.documents.keys().map(|id| StateKey::document(version, id));
        let windows = model.windows.keys().map(|origin| StateKey::window(version, origin));
        documents.chain(windows).chain([StateKey::head(version)]).collect()
    }

    /// The rows that a view should have at the tail.
    pub fn rows(&self, view: &str, log: &LogId) -> BTreeMap<RowKey, (Seq, Option<Vec<u8>>)> {
        let rows = self.logs.get(log).and_then(|model| model.views.get(view));
        let rows = rows.into_iter().flat_map(|view| &view.rows);
        rows.filter_map(|(key, history)| Some((key.clone(), history.last()?.clone()))).collect()
    }

    /// Whether any entry of the log is a fault.
    pub fn has_faults(&self, log: &LogId) -> bool {
        let entries = self.logs.get(log).into_iter().flat_map(|model| &model.entries);
        entries.into_iter().any(|entry| matches!(entry.outcome, Outcome::Faulted { .. }))
    }

    /// A reader read these rows of a view, with the cursor at `seq`.
    pub fn seen(&mut self, view: &'static str, log: &LogId, seq: Seq, rows: &[(RowKey, Seq)]) {
        let seen = self.log(log).views.entry(view).or_default();
        let before = std::mem::replace(&mut seen.seen, seq);
        let mut backwards = (seq < before).then(|| format!("from {before} to {seq}"));
        for (key, at) in rows {
            let before = seen.rows_seen.insert(key.clone(), *at).unwrap_or_default();
            if *at < before {
                backwards = Some(format!("{key} from {before} to {at}"));
            }
        }
        // The rows were read after the cursor, so they contain everything up to it, unless an entry
        // behind it has removed a row.
        let missing = seen.rows.iter().find(|(key, history)| {
            let Some((since, _)) = at(history, seq) else { return false };
            let stays = history.iter().filter(|(at, _)| at >= since).all(|(_, row)| row.is_some());
            let shown = rows.iter().find(|(shown, _)| shown == *key).map(|(_, at)| *at);
            stays && shown < Some(*since)
        });
        let missing = missing.map(|(key, _)| format!("{key} is not what it was at {seq}"));
        let wrong = backwards.or(missing);
        self.check(Invariant::F6, wrong.is_none(), || format!("{view} {log}: read {wrong:?}"));
    }

    /// A client looked up an accepted command by its id.
    pub fn looked_up(&mut self, log: &LogId, by: (Origin, CommandId), found: Option<Seq>) {
        let first = self.log(log).used.get(&by).copied();
        self.check(Invariant::F8, found.is_some() && found == first, || {
            format!("{log}: looked up {by:?}, found {found:?}, its entry is {first:?}")
        });
    }

    /// The commits that were neither published nor parked as refused.
    pub fn unpublished(&self, log: &LogId) -> Vec<Seq> {
        let Some(model) = self.logs.get(log) else { return Vec::new() };
        model.commits.keys().filter(|first| !model.is_done(first)).copied().collect()
    }
}

/// Whether `found` agrees with the expected outcome.
fn agrees(expected: &Outcome, found: &Outcome) -> bool {
    match (expected, found) {
        (Outcome::Faulted { .. }, Outcome::Faulted { .. }) => true,
        // The processor took the command for the cause of crashes, and did not run it.
        (expected, Outcome::Faulted { message, .. }) if expected.uses_id() => {
            message.starts_with("it has ended its process")
        }
        // The model does not predict the text.
        (
            Outcome::Rejected { code: expected, of: of @ Some(_), .. },
            Outcome::Rejected { code, of: found, .. },
        ) => (expected, of) == (code, found),
        (expected, found) => expected == found,
    }
}

fn rejected(invalid: &InvalidCommand) -> Outcome {
    Outcome::rejected(invalid.code(), invalid.to_string())
}

/// The outcome of a command whose id was used at `of`: the same command, or another one.
fn repeated(accepted: &[(Time, Command)], command: &Command, of: Seq) -> Outcome {
    let json = |command: &Command| serde_json::from_str::<Value>(command.data.get()).ok();
    let first = accepted.get((of.0 as usize).saturating_sub(1)).map(|(_, first)| first);
    match first {
        Some(first) if first.name != command.name || json(first) != json(command) => {
            Outcome::Rejected { code: "id_reused".to_owned(), message: String::new(), of: Some(of) }
        }
        _ => Outcome::Duplicate { of },
    }
}

impl LogModel {
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

    fn head_contradictions(&self, version: u32, item: &StateItem) -> Vec<String> {
        let through = item.seq;
        let mut wrong = Vec::new();
        let Ok(head) = head::Head::decode(&item.body) else {
            return vec!["the head cannot be read".to_owned()];
        };
        for (id, (_, history)) in &self.documents {
            let touched = at(history, through).map_or(Seq::ZERO, |(since, _)| *since);
            let stored = self.stored.get(&StateKey::document(version, id)).copied();
            if stored.unwrap_or_default() < touched {
                wrong.push(format!("head {through}: {id} stored at {stored:?}, not {touched}"));
            }
        }
        for (origin, history) in &self.windows {
            let Some((touched, window)) = at(history, through) else { continue };
            match &head.windows {
                Some(inline) if inline.get(origin) == Some(window) => {}
                Some(_) => wrong.push(format!("head {through}: the window of {origin} is wrong")),
                None => {
                    let stored = self.stored.get(&StateKey::window(version, origin)).copied();
                    if stored.unwrap_or_default() < *touched {
                        wrong.push(format!("head {through}: window of {origin} at {stored:?}"));
                    }
                }
            }
        }
        if at(&self.prev, through).map(|(_, prev)| prev) != Some(&head.prev) {
            wrong.push(format!("head {through}: `prev` is {:?}", head.prev));
        }
        let unpublished = self.commits.range(..=through).find(|(first, _)| !self.is_done(first));
        if let Some((first, last)) = unpublished {
            wrong.push(format!("head {through}: {first} to {last} was never published"));
        }
        wrong
    }
}

impl ViewModel {
    /// Folds a single entry into the rows.
    fn apply(&mut self, view: &dyn AnyView, log: &LogId, entry: &Entry) -> Result<(), Panic> {
        let Some(recorded) = view.read(log, entry)? else { return Ok(()) };
        let mut folded = Vec::new();
        for key in view.rows(&recorded)? {
            let row = self.rows.get(&key).and_then(|history| history.last());
            let row = row.and_then(|(_, row)| row.as_deref());
            let row = view.fold(&key, row, &[&recorded]).map_err(|fault| fault.fault)?;
            folded.push((key, row));
        }
        for (key, row) in folded {
            self.rows.entry(key).or_default().push((entry.seq, row));
        }
        Ok(())
    }
}
