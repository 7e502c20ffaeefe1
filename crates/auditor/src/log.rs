//! Audits one log: folds its entries page by page, and compares its views with the fold.

use std::collections::{BTreeMap, HashMap};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::claims::{Claim, Claims, Names};
use crate::exact::is_same;
use crate::findings::Findings;
use crate::invariant::Invariant::{self, F1, F3, F6, Time};
use crate::ledger::{Event, Ledger};
use crate::limits::PAGE_MAX;
use crate::reader::{EntriesPage, ReadError, Reader};
use crate::receipts::{Model, ledger_views};
use crate::rows::{Cursor, RowSource, Scan, ScanError};
use crate::seen::Observations;
use crate::views::{STATEMENT, Statement, compare_balances, compare_totals};
use crate::window::Window;

mod judge;
mod lookups;

use judge::Entry;
use lookups::Lookups;

/// How often the audit follows a log that grows while it is read.
const ROUNDS_MAX: usize = 3;

/// The input of the audit of one log.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) log: &'a str,
    pub(crate) names: &'a Names,
    pub(crate) own: &'a OwnUsers,
    /// By which outcomes and rows are judged.
    pub(crate) model: Model,
    /// The views that must reach the end; with a model, those that it compares.
    pub(crate) views: &'a [String],
    /// When every accepted command must be in the log and in every view.
    pub(crate) until: Instant,
    /// The maximum number of movements that wait for their comparison.
    pub(crate) lines_max: usize,
    /// The seed of the choice of what is read again.
    pub(crate) seed: u64,
}

/// The users whose commands the file names.
#[derive(Debug)]
pub(crate) struct OwnUsers {
    /// How their names begin.
    pub(crate) prefix: String,
    /// Whether the file names every command that they sent.
    pub(crate) is_complete: bool,
}

#[derive(Debug, Default)]
pub(crate) struct LogVerdict {
    pub(crate) findings: Findings,
    pub(crate) entries: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) receipts: u64,
    /// Receipts whose entry is `lost`.
    pub(crate) given_up: u64,
    pub(crate) rows: u64,
    pub(crate) seen: u64,
    pub(crate) lookups: u64,
    /// The sum of all balances, if the model is the ledger's.
    pub(crate) balance: Option<i128>,
    /// Why the log could not be read to its end.
    pub(crate) error: Option<ReadError>,
    /// The log grew faster than the audit could read it.
    pub(crate) is_growing: bool,
    /// The audit was stopped before the end of this log.
    pub(crate) stopped: bool,
}

/// Audits one log, until its end or until `stopped` returns. The verdict holds what was found until
/// then.
pub(crate) async fn audit_log(
    task: Task<'_>,
    claims: Claims,
    stopped: impl Future<Output = ()>,
) -> LogVerdict {
    let mut audit = LogAudit::new(task, claims);
    match until_stopped(stopped, audit.run()).await {
        Some(Ok(())) => {}
        Some(Err(error)) => audit.done.error = Some(error),
        None => audit.done.stopped = true,
    }
    audit.done.receipts = audit.receipts_done as u64;
    audit.done.seen += audit.observations.compared;
    audit.done.balance = audit.fold.map(|fold| fold.ledger.balances());
    audit.done
}

/// The result of `work`; `None`: `stopped` returned before.
pub(crate) async fn until_stopped<T>(
    stopped: impl Future<Output = ()>,
    work: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        () = stopped => None,
        done = work => Some(done),
    }
}

struct LogAudit<'a> {
    task: Task<'a>,
    claims: Claims,
    /// The number of receipts that are compared.
    receipts_done: usize,
    /// The number of entries seen by readers that are compared.
    seen_done: usize,
    /// The seq of the next entry.
    next: u64,
    accepted: u64,
    tail: u64,
    /// The fold of the ledger, if that is the model.
    fold: Option<Fold>,
    /// The windows, by origin.
    windows: HashMap<String, Window>,
    /// The highest time of an entry so far.
    time: u64,
    lookups: Lookups,
    observations: Observations,
    /// With the ledger's model, of its three views in the order of [`ledger_views`].
    cursors: Vec<Cursor>,
    /// An entry to read again on its own: its seq, and how its page showed it.
    probe: (u64, Option<Box<RawValue>>),
    done: LogVerdict,
}

/// The fold of a log by the rules of the ledger.
struct Fold {
    ledger: Ledger,
    statement: Statement,
}

impl<'a> LogAudit<'a> {
    fn new(task: Task<'a>, mut claims: Claims) -> Self {
        let mut done = LogVerdict::default();
        let (rows, cursors) =
            (std::mem::take(&mut claims.rows), std::mem::take(&mut claims.cursors));
        let (observations, fold, views) = match task.model {
            Model::Ledger => {
                let seen = Observations::new(task.log, rows, cursors, &mut done.findings);
                let statement = Statement::new(seen.has(STATEMENT));
                (seen, Some(Fold { ledger: Ledger::default(), statement }), ledger_views())
            }
            Model::None => {
                let findings = &mut done.findings;
                let seen = Observations::without_rows(task.log, rows, cursors, findings);
                (seen, None, task.views.to_vec())
            }
        };
        Self {
            task,
            claims,
            receipts_done: 0,
            seen_done: 0,
            next: 1,
            accepted: 0,
            tail: 0,
            fold,
            windows: HashMap::new(),
            time: 0,
            lookups: Lookups::new(SmallRng::seed_from_u64(!task.seed)),
            observations,
            cursors: views.iter().map(|view| Cursor::new(view, 0)).collect(),
            probe: (0, None),
            done,
        }
    }

    fn breach(&mut self, invariant: Invariant, seq: u64, what: impl Into<String>) {
        self.done.findings.add(invariant, self.task.log, Some(seq), what);
    }

    async fn run(&mut self) -> Result<(), ReadError> {
        self.check_receipts();
        self.compare_seen_rows(0, 0, &[]);
        let Some(page) = self.settle().await? else {
            self.finish();
            return Ok(());
        };
        let mut rng = SmallRng::seed_from_u64(self.task.seed);
        self.probe.0 = rng.random_range(1..=page.tail.max(1));
        for cursor in &mut self.cursors {
            cursor.seq = self.observations.highest(&cursor.view, page.tail);
        }
        self.fold_from(page).await?;
        for round in 1.. {
            let mut found = Findings::default();
            self.compare_views(&mut found).await?;
            let beyond = self.cursors.iter().map(|cursor| cursor.seq).max().unwrap_or(0);
            if found.count() == 0 && beyond <= self.tail {
                break;
            }
            // A log that has grown may explain all findings: compare again at the new tail.
            let page = self.settle().await?;
            let Some(page) = page.filter(|page| page.tail >= self.next) else {
                self.done.findings.merge(found);
                if beyond > self.tail {
                    let what = format!(
                        "a view has the cursor {beyond}, and the log ends at {}",
                        self.tail
                    );
                    self.breach(F6, beyond, what);
                }
                break;
            };
            if round == ROUNDS_MAX {
                self.done.is_growing = found.count() > 0;
                break;
            }
            self.cursors.iter_mut().for_each(Cursor::begin_again);
            self.fold_from(page).await?;
        }
        self.read_again().await?;
        self.look_up().await?;
        self.finish();
        Ok(())
    }

    /// Checks that no two receipts have the same seq.
    fn check_receipts(&mut self) {
        let receipts = self.claims.receipts();
        for pair in receipts.windows(2).filter(|pair| pair[0].seq == pair[1].seq) {
            // This holds for repetitions, too: each accepted one has an entry of its own.
            let whose =
                |claim: Claim| format!("id {} of {}", claim.id, self.task.names.text(claim.user));
            let (first, second) = (whose(pair[0]), whose(pair[1]));
            let what = format!("two receipts have this seq: {first}, and {second}");
            self.done.findings.add(F1, self.task.log, Some(pair[0].seq), what);
        }
    }

    /// Waits until every command that is accepted now has its entry. Returns the next page.
    async fn settle(&mut self) -> Result<Option<EntriesPage>, ReadError> {
        let Task { reader, log, until, .. } = self.task;
        let mut page = reader.entries(log, self.next, PAGE_MAX).await?;
        if let Some(accepted) = page.as_ref().filter(|p| p.accepted > p.tail).map(|p| p.accepted) {
            reader.entry(log, accepted, until).await?;
            page = reader.entries(log, self.next, PAGE_MAX).await?;
            if let Some(page) = page.as_ref().filter(|page| page.tail < accepted) {
                let what = format!(
                    "{accepted} commands are accepted, and the entries end at {}",
                    page.tail
                );
                self.breach(F1, accepted, what);
            }
        }
        Ok(page)
    }

    /// Folds the entries from this page up to the tail that it names.
    async fn fold_from(&mut self, first: EntriesPage) -> Result<(), ReadError> {
        let Task { reader, log, .. } = self.task;
        self.tail = first.tail;
        let mut page = first;
        loop {
            let (from, end) = (self.next, self.tail);
            self.check_page(&page, from);
            let (of, mut folded) = (page.entries.len(), 0);
            for raw in page.entries {
                if self.next > end || !self.entry(&raw) {
                    break;
                }
                folded += 1;
            }
            let next = (self.next <= page.tail).then_some(self.next);
            if folded == of && page.next != next {
                let what = format!(
                    "the page says that the next begins at {:?}, not at {next:?}",
                    page.next
                );
                self.breach(F3, self.next - 1, what);
            }
            let lines_max = self.task.lines_max;
            if self.fold.as_ref().is_some_and(|fold| fold.statement.is_full(lines_max)) {
                self.flush().await?;
            }
            if self.next > end {
                return Ok(());
            }
            if self.next == from {
                self.breach(F1, from, format!("the entries {from} to {end} are missing"));
                self.next = end + 1;
                return Ok(());
            }
            let limit = PAGE_MAX.min(end + 1 - self.next);
            match reader.entries(log, self.next, limit).await? {
                Some(next) => page = next,
                None => {
                    self.breach(F3, self.next, "the log disappeared between two pages");
                    self.next = end + 1;
                    return Ok(());
                }
            }
        }
    }

    fn check_page(&mut self, page: &EntriesPage, from: u64) {
        if page.log != self.task.log {
            self.breach(F3, from, format!("the page names the log {}", page.log));
        }
        if page.accepted < page.tail || page.accepted < self.accepted || page.tail < self.tail {
            let what = format!(
                "the page says accepted {} and tail {}, after accepted {} and tail {}",
                page.accepted, page.tail, self.accepted, self.tail
            );
            self.breach(F1, from, what);
        }
        self.accepted = self.accepted.max(page.accepted);
    }

    /// Folds the next entry. Returns whether to go on with this page.
    fn entry(&mut self, raw: &RawValue) -> bool {
        let seq = self.next;
        let parsed = serde_json::from_str::<Entry>(raw.get()).and_then(|entry| {
            let events = if self.fold.is_some() { entry.ledger_events()? } else { Vec::new() };
            Ok((entry, events))
        });
        let (entry, events) = match parsed {
            Ok(parsed) => parsed,
            Err(error) => {
                self.breach(F3, seq, format!("this is not an entry: {error}: {raw}"));
                self.next += 1;
                return true;
            }
        };
        if entry.seq > seq {
            self.breach(
                F1,
                seq,
                format!("the entry is missing, the next has the seq {}", entry.seq),
            );
            self.next = entry.seq;
        } else if entry.seq < seq {
            self.breach(F1, seq, format!("an entry with the seq {} is here", entry.seq));
            return false;
        }
        let seq = entry.seq;
        self.next = seq + 1;
        self.done.entries += 1;
        match self.done.outcomes.get_mut(&entry.status) {
            Some(count) => *count += 1,
            None => drop(self.done.outcomes.insert(entry.status.clone(), 1)),
        }
        if entry.log != self.task.log {
            self.breach(F3, seq, format!("the entry names the log {}", entry.log));
        }
        if entry.at < self.time {
            let what = format!("the time {} is earlier than {} before it", entry.at, self.time);
            self.breach(Time, seq, what);
        }
        self.time = self.time.max(entry.at);
        if self.probe.0 == seq {
            self.probe.1 = Some(raw.to_owned());
        }
        self.compare_seen_entries(seq, Some(raw));
        let promised = self.compare_receipts(&entry);
        self.judge(&entry, &events, promised);
        self.compare_seen_rows(seq, entry.at, &events);
        true
    }

    fn compare_seen_rows(&mut self, seq: u64, at: u64, events: &[Event]) {
        let Self { observations, fold, done, .. } = self;
        let Some(Fold { ledger, statement }) = fold else { return };
        let came = (seq, at, events);
        observations.compare(self.task.log, came, ledger, statement, &mut done.findings);
    }

    fn rows_at(&self, seq: u64) -> RowSource<'a> {
        let Task { reader, log, until, .. } = self.task;
        RowSource { reader, log, seq, until }
    }

    async fn flush(&mut self) -> Result<(), ReadError> {
        let rows = self.rows_at(self.next - 1);
        let (Some(fold), [_, cursor, _]) = (&mut self.fold, &mut self.cursors[..]) else {
            return Ok(());
        };
        if cursor.given_up {
            return Ok(());
        }
        match fold.statement.flush(rows, cursor, &mut self.done.findings).await {
            Ok(rows) => self.done.rows += rows,
            Err(ScanError::Read(error)) => return Err(error),
            Err(ScanError::GivenUp) => {}
        }
        Ok(())
    }

    /// Compares all rows with the fold at the tail; without a model, checks that the views have
    /// reached the tail.
    async fn compare_views(&mut self, found: &mut Findings) -> Result<(), ReadError> {
        if self.tail == 0 {
            return Ok(());
        }
        let source = self.rows_at(self.tail);
        let mut rows = 0;
        let mut count = |compared: Result<u64, ScanError>| match compared {
            Ok(compared) => {
                rows += compared;
                Ok(())
            }
            Err(ScanError::Read(error)) => Err(error),
            Err(ScanError::GivenUp) => Ok(()),
        };
        let Self { cursors, fold, .. } = self;
        let (Some(Fold { ledger, statement: lines }), [balances, statement, totals]) =
            (fold, &mut cursors[..])
        else {
            for cursor in &mut self.cursors {
                let scan = Scan::new(source, cursor, found, "", String::new());
                count(scan.first_page().await)?;
            }
            self.done.rows += rows;
            return Ok(());
        };
        if !balances.given_up {
            count(compare_balances(source, balances, ledger, found).await)?;
        }
        if !statement.given_up {
            count(lines.compare(source, statement, found).await)?;
        }
        if !totals.given_up {
            count(compare_totals(source, totals, ledger, found).await)?;
        }
        self.done.rows += rows;
        let (paid_in, held, balance) = (ledger.deposited_net(), ledger.balances(), ledger.balance);
        if paid_in != held || held != balance {
            let what = format!(
                "{paid_in} was paid in, the accounts hold {held}, and the events add up to {balance}"
            );
            found.add(F6, self.task.log, Some(self.tail), what);
        }
        Ok(())
    }

    /// Reads one entry on its own, and compares it with the one in its page.
    async fn read_again(&mut self) -> Result<(), ReadError> {
        let Task { reader, log, .. } = self.task;
        let (seq, Some(before)) = &self.probe else { return Ok(()) };
        let again = reader.entry(log, *seq, Instant::now()).await?;
        if !again.as_deref().is_some_and(|again| is_same(again, before)) {
            let again = again.map_or("nothing".to_owned(), |again| again.to_string());
            let what = format!("its page shows {before}, and a read of it alone shows {again}");
            self.done.findings.add(F3, log, Some(*seq), what);
        }
        Ok(())
    }

    fn finish(&mut self) {
        let tail = self.tail;
        for at in self.receipts_done..self.claims.receipts().len() {
            self.lost(self.claims.receipts()[at].seq);
        }
        self.receipts_done = self.claims.receipts().len();
        self.compare_seen_entries(u64::MAX, None);
        self.observations.finish(self.task.log, tail, &mut self.done.findings);
    }
}
