//! One log: its entries page by page, folded as they come, and its views held against the fold.

use std::collections::{BTreeMap, HashMap};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::claims::{Claim, Claims, Names};
use crate::exact::is_same;
use crate::findings::Findings;
use crate::ledger::{Event, Ledger};
use crate::limits::PAGE_MAX;
use crate::reader::{EntriesPage, Reader, Trouble};
use crate::rows::{Cursor, Place, Stop};
use crate::seen::Watch;
use crate::views::{BALANCES, STATEMENT, Statement, TOTALS, compare_balances, compare_totals};
use crate::window::Window;
use crate::{F1, F3, F6, unless};

mod judge;
mod lookups;

use judge::Entry;
use lookups::Lookups;

/// How often a log that grows meanwhile is followed.
const ROUNDS_MAX: usize = 3;

/// What one log is audited with.
#[derive(Clone, Copy)]
pub(crate) struct Task<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) log: &'a str,
    pub(crate) names: &'a Names,
    /// Whose receipts these are.
    pub(crate) run: &'a Whose,
    /// By when everything that was accepted must be everywhere.
    pub(crate) until: Instant,
    /// Movements that wait to be compared, at most.
    pub(crate) lines_max: usize,
    /// Which entry is read once more, alone.
    pub(crate) seed: u64,
}

/// Whose receipts a file holds.
#[derive(Debug)]
pub(crate) struct Whose {
    /// How the names of our users begin.
    pub(crate) users: String,
    /// Whether the file has an end: what it does not name was not sent.
    pub(crate) is_whole: bool,
}

/// What is known of one log in the end.
#[derive(Debug, Default)]
pub(crate) struct Audited {
    pub(crate) findings: Findings,
    pub(crate) entries: u64,
    pub(crate) outcomes: BTreeMap<String, u64>,
    pub(crate) receipts: u64,
    /// Receipts whose entry an operator has given up.
    pub(crate) given_up: u64,
    pub(crate) rows: u64,
    pub(crate) seen: u64,
    /// Ids that were looked up.
    pub(crate) lookups: u64,
    pub(crate) balance: i128,
    /// Why it was not looked at to its end.
    pub(crate) trouble: Option<Trouble>,
    /// It grew faster than it could be followed.
    pub(crate) moving: bool,
    /// It was not looked at to its end since the audit was told to end.
    pub(crate) stopped: bool,
}

/// Audits one log, until its end or until `stopped`: what was found before counts.
pub(crate) async fn audit_log(
    task: Task<'_>,
    claims: Claims,
    stopped: impl Future<Output = ()>,
) -> Audited {
    let mut audit = LogAudit::new(task, claims);
    match unless(stopped, audit.run()).await {
        Some(Ok(())) => {}
        Some(Err(trouble)) => audit.done.trouble = Some(trouble),
        None => audit.done.stopped = true,
    }
    audit.done.receipts = audit.receipts_done as u64;
    audit.done.seen += audit.watch.compared;
    audit.done.balance = audit.ledger.held();
    audit.done
}

struct LogAudit<'a> {
    task: Task<'a>,
    claims: Claims,
    /// Of the receipts, how many lie behind.
    receipts_done: usize,
    /// Of the entries that were seen, likewise.
    seen_done: usize,
    /// The seq of the entry that comes next.
    next: u64,
    accepted: u64,
    tail: u64,
    ledger: Ledger,
    /// By origin.
    windows: HashMap<String, Window>,
    /// The highest time of the entries so far.
    time: u64,
    lookups: Lookups,
    statement: Statement,
    watch: Watch,
    cursors: [Cursor; 3],
    /// An entry that is read once more.
    probe: (u64, Option<Box<RawValue>>),
    done: Audited,
}

impl<'a> LogAudit<'a> {
    fn new(task: Task<'a>, mut claims: Claims) -> Self {
        let mut done = Audited::default();
        let watch = Watch::new(task.log, std::mem::take(&mut claims.rows), &mut done.findings);
        let statement = Statement::new(watch.has(STATEMENT));
        Self {
            task,
            claims,
            receipts_done: 0,
            seen_done: 0,
            next: 1,
            accepted: 0,
            tail: 0,
            ledger: Ledger::default(),
            windows: HashMap::new(),
            time: 0,
            lookups: Lookups::new(SmallRng::seed_from_u64(!task.seed)),
            statement,
            watch,
            cursors: [BALANCES, STATEMENT, TOTALS].map(|view| Cursor::new(view, 0)),
            probe: (0, None),
            done,
        }
    }

    fn breach(&mut self, invariant: &'static str, seq: u64, what: impl Into<String>) {
        self.done.findings.add(invariant, self.task.log, Some(seq), what);
    }

    async fn run(&mut self) -> Result<(), Trouble> {
        self.check_receipts();
        self.advance_watch(0, 0, &[]);
        let Some(page) = self.settle().await? else {
            self.finish();
            return Ok(());
        };
        let mut rng = SmallRng::seed_from_u64(self.task.seed);
        self.probe.0 = rng.random_range(1..=page.tail.max(1));
        for cursor in &mut self.cursors {
            cursor.seq = self.watch.highest(cursor.view, page.tail);
        }
        self.fold_from(page).await?;
        for round in 1.. {
            let mut found = Findings::default();
            self.compare_views(&mut found).await?;
            let beyond = self.cursors.iter().map(|cursor| cursor.seq).max().unwrap_or(0);
            if found.count() == 0 && beyond <= self.tail {
                break;
            }
            // Perhaps the log has grown meanwhile, and only that is to be seen.
            let page = self.settle().await?;
            let Some(page) = page.filter(|page| page.tail >= self.next) else {
                self.done.findings.merge(found);
                if beyond > self.tail {
                    let what = format!("a view is at {beyond}, the log ends at {}", self.tail);
                    self.breach(F6, beyond, what);
                }
                break;
            };
            if round == ROUNDS_MAX {
                self.done.moving = found.count() > 0;
                break;
            }
            self.cursors.iter_mut().for_each(Cursor::look_again);
            self.fold_from(page).await?;
        }
        self.read_again().await?;
        self.look_up().await?;
        self.finish();
        Ok(())
    }

    /// Two receipts for one place.
    fn check_receipts(&mut self) {
        let receipts = self.claims.receipts();
        for pair in receipts.windows(2).filter(|pair| pair[0].seq == pair[1].seq) {
            // Also of the same command: each time it was accepted it has an entry of its own.
            let whose =
                |claim: Claim| format!("{} of {}", claim.id, self.task.names.text(claim.user));
            let (first, second) = (whose(pair[0]), whose(pair[1]));
            let what = format!("the place was promised to {first}, and again to {second}");
            self.done.findings.add(F1, self.task.log, Some(pair[0].seq), what);
        }
    }

    /// The page of the entries that come next, once everything that is accepted now has its entry.
    async fn settle(&mut self) -> Result<Option<EntriesPage>, Trouble> {
        let Task { reader, log, until, .. } = self.task;
        let mut page = reader.entries(log, self.next, PAGE_MAX).await?;
        if let Some(accepted) = page.as_ref().filter(|p| p.accepted > p.tail).map(|p| p.accepted) {
            reader.entry(log, accepted, until).await?;
            page = reader.entries(log, self.next, PAGE_MAX).await?;
            if let Some(page) = page.as_ref().filter(|page| page.tail < accepted) {
                let what = format!("{accepted} are accepted, and entries end at {}", page.tail);
                self.breach(F1, accepted, what);
            }
        }
        Ok(page)
    }

    /// Folds this page, and all up to the tail that it names.
    async fn fold_from(&mut self, first: EntriesPage) -> Result<(), Trouble> {
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
                let what = format!("the page goes on at {:?}, not at {next:?}", page.next);
                self.breach(F3, self.next - 1, what);
            }
            if self.statement.is_full(self.task.lines_max) {
                self.flush().await?;
            }
            if self.next > end {
                return Ok(());
            }
            if self.next == from {
                self.breach(F1, from, format!("entries {from} to {end} are not there"));
                self.next = end + 1;
                return Ok(());
            }
            let limit = PAGE_MAX.min(end + 1 - self.next);
            match reader.entries(log, self.next, limit).await? {
                Some(next) => page = next,
                None => {
                    self.breach(F3, self.next, "the log is gone, between two pages");
                    self.next = end + 1;
                    return Ok(());
                }
            }
        }
    }

    fn check_page(&mut self, page: &EntriesPage, from: u64) {
        if page.log != self.task.log {
            self.breach(F3, from, format!("the page is of {}", page.log));
        }
        if page.accepted < page.tail || page.accepted < self.accepted || page.tail < self.tail {
            let what = format!(
                "{} are accepted and {} entries, after {} and {}",
                page.accepted, page.tail, self.accepted, self.tail
            );
            self.breach(F1, from, what);
        }
        self.accepted = self.accepted.max(page.accepted);
    }

    /// Folds the next entry; whether the page can be gone on with.
    fn entry(&mut self, raw: &RawValue) -> bool {
        let seq = self.next;
        let entry: Entry = match serde_json::from_str(raw.get()) {
            Ok(entry) => entry,
            Err(error) => {
                self.breach(F3, seq, format!("it is no entry: {error}: {raw}"));
                self.next += 1;
                return true;
            }
        };
        if entry.seq > seq {
            self.breach(F1, seq, format!("{seq} is followed by {}", entry.seq));
            self.next = entry.seq;
        } else if entry.seq < seq {
            self.breach(F1, seq, format!("{} stands in this place", entry.seq));
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
            self.breach(F3, seq, format!("it is of {}", entry.log));
        }
        if self.probe.0 == seq {
            self.probe.1 = Some(raw.to_owned());
        }
        self.check_seen(seq, Some(raw));
        let promised = self.check_claims(&entry);
        self.judge(&entry, promised);
        self.advance_watch(seq, entry.at, &entry.events);
        true
    }

    fn advance_watch(&mut self, seq: u64, at: u64, events: &[Event]) {
        let Self { watch, ledger, statement, done, .. } = self;
        let came = (seq, at, events);
        watch.advance(self.task.log, came, ledger, statement, &mut done.findings);
    }

    fn place(&self, seq: u64) -> Place<'a> {
        let Task { reader, log, until, .. } = self.task;
        Place { reader, log, seq, until }
    }

    async fn flush(&mut self) -> Result<(), Trouble> {
        let place = self.place(self.next - 1);
        let [_, cursor, _] = &mut self.cursors;
        if cursor.given_up {
            return Ok(());
        }
        match self.statement.flush(place, cursor, &mut self.done.findings).await {
            Ok(rows) => self.done.rows += rows,
            Err(Stop::Trouble(trouble)) => return Err(trouble),
            Err(Stop::GivenUp) => {}
        }
        Ok(())
    }

    /// All rows against the fold, at the tail.
    async fn compare_views(&mut self, found: &mut Findings) -> Result<(), Trouble> {
        if self.tail == 0 {
            return Ok(());
        }
        let place = self.place(self.tail);
        let Self { cursors: [balances, statement, totals], ledger, .. } = self;
        let mut rows = 0;
        let mut take = |compared: Result<u64, Stop>| match compared {
            Ok(compared) => {
                rows += compared;
                Ok(())
            }
            Err(Stop::Trouble(trouble)) => Err(trouble),
            Err(Stop::GivenUp) => Ok(()),
        };
        if !balances.given_up {
            take(compare_balances(place, balances, ledger, found).await)?;
        }
        if !statement.given_up {
            take(self.statement.compare(place, statement, found).await)?;
        }
        if !totals.given_up {
            take(compare_totals(place, totals, ledger, found).await)?;
        }
        self.done.rows += rows;
        let (put_in, held, balance) = (ledger.put_in(), ledger.held(), ledger.balance);
        if put_in != held || held != balance {
            let what = format!("{put_in} came in, accounts hold {held}, the sums say {balance}");
            found.add(F6, self.task.log, Some(self.tail), what);
        }
        Ok(())
    }

    /// One entry, alone: it is the one that was in its page.
    async fn read_again(&mut self) -> Result<(), Trouble> {
        let Task { reader, log, .. } = self.task;
        let (seq, Some(before)) = &self.probe else { return Ok(()) };
        let again = reader.entry(log, *seq, Instant::now()).await?;
        if !again.as_deref().is_some_and(|again| is_same(again, before)) {
            let again = again.map_or("nothing".to_owned(), |again| again.to_string());
            let what = format!("in its page it is {before}, and alone {again}");
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
        self.check_seen(u64::MAX, None);
        self.watch.finish(self.task.log, tail, &mut self.done.findings);
    }
}
