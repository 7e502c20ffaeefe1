//! Compares what readers saw during the run with the fold, while the fold proceeds.
//!
//! A reader reads the cursor before the rows, so it saw each row as of the cursor or later. A row
//! with a seq up to the cursor is therefore the fold's row at the cursor. A row with a higher seq
//! is the fold's row at that seq. A row that the fold has at the cursor may be absent only if it
//! was deleted later.
//!
//! Without a model only the cursors count: a reader waited for a seq, and no later reader may see a
//! lower cursor.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::findings::Findings;
use crate::invariant::Invariant::{F5, F6};
use crate::ledger::{Event, Kind, Ledger};
use crate::limits::NEWEST_ROWS;
use crate::receipts::{SeenCursor, SeenRow, SeenRows};
use crate::views::{
    BALANCES, Movement, STATEMENT, Statement, TOTAL, TOTALS, is_balance, is_total, line_key,
};

/// A comparison that is due when the fold reaches its seq.
#[derive(Debug, Clone, Copy)]
enum Comparison {
    /// All rows of a read, at its cursor.
    Read { read: usize },
    /// One row of a read: a row above the cursor, or any row of a statement.
    Row { read: usize, row: usize },
}

#[derive(Debug)]
pub(crate) struct Observations {
    reads: Vec<SeenRows>,
    cursors: Vec<SeenCursor>,
    due: BTreeMap<u64, Vec<Comparison>>,
    /// Accounts that reads should have shown at their cursors, with these cursors: they must be
    /// closed later.
    missing: HashMap<String, Vec<u64>>,
    /// The number of rows, and of reads without rows, that were compared.
    pub(crate) compared: u64,
}

impl Observations {
    /// Takes what readers saw. Finds what is wrong with it on its own, without the fold.
    pub(crate) fn new(
        log: &str,
        reads: Vec<SeenRows>,
        cursors: Vec<SeenCursor>,
        findings: &mut Findings,
    ) -> Self {
        find_lower_cursors(log, &reads, &cursors, findings);
        for SeenCursor { view, wanted, seq, .. } in cursors.iter().filter(|c| c.seq < c.wanted) {
            let what = format!("{view}: a reader that waited for {wanted} was answered at {seq}");
            findings.add(F5, log, Some(*seq), what);
        }
        let compared = cursors.len() as u64;
        let mut due: BTreeMap<u64, Vec<Comparison>> = BTreeMap::new();
        for (at, read) in reads.iter().enumerate() {
            if ![BALANCES, STATEMENT, TOTALS].contains(&read.view.as_str()) {
                continue;
            }
            due.entry(read.seq).or_default().push(Comparison::Read { read: at });
            for (row, seen) in read.rows.iter().enumerate() {
                if seen.seq > read.seq || read.view == STATEMENT {
                    due.entry(seen.seq).or_default().push(Comparison::Row { read: at, row });
                }
            }
            let ordered = read.rows.windows(2).all(|pair| match read.view.as_str() {
                STATEMENT => pair[0].key > pair[1].key,
                _ => pair[0].key < pair[1].key,
            });
            if !ordered {
                let what = format!("{}: a reader saw rows out of order", read.view);
                findings.add(F6, log, Some(read.seq), what);
            }
        }
        Self { reads, cursors, due, missing: HashMap::new(), compared }
    }

    /// The same without a model: the rows do not count.
    pub(crate) fn without_rows(
        log: &str,
        reads: Vec<SeenRows>,
        mut cursors: Vec<SeenCursor>,
        findings: &mut Findings,
    ) -> Self {
        cursors.extend(reads.into_iter().map(|read| {
            let SeenRows { view, log, seq, began_us, ended_us, .. } = read;
            SeenCursor { view, log, wanted: 0, seq, began_us, ended_us }
        }));
        Self::new(log, Vec::new(), cursors, findings)
    }

    /// Whether a reader saw rows of this view.
    pub(crate) fn has(&self, view: &str) -> bool {
        self.reads.iter().any(|read| read.view == view)
    }

    /// The highest cursor of a view that a reader saw, up to `tail`.
    pub(crate) fn highest(&self, view: &str, tail: u64) -> u64 {
        let reads = self.reads.iter().map(|read| (&read.view, read.seq));
        let cursors = self.cursors.iter().map(|seen| (&seen.view, seen.seq));
        let of_view = reads.chain(cursors).filter(|(of, seq)| *of == view && *seq <= tail);
        of_view.map(|(_, seq)| seq).max().unwrap_or(0)
    }

    /// Compares what is due, after the fold of the entry at `seq`.
    pub(crate) fn compare(
        &mut self,
        log: &str,
        (seq, at, events): (u64, u64, &[Event]),
        ledger: &Ledger,
        statement: &Statement,
        findings: &mut Findings,
    ) {
        if !self.missing.is_empty() {
            for event in events.iter().filter(|event| event.kind == Kind::Closed) {
                self.missing.remove(&event.document);
            }
        }
        // What is due at a missing seq is compared with the next entry.
        while let Some(first) = self.due.first_entry().filter(|first| *first.key() <= seq) {
            for due in first.remove() {
                let wrong = match due {
                    Comparison::Row { read, row } => {
                        let read = &self.reads[read];
                        self.compared += 1;
                        let seen = &read.rows[row];
                        let checked =
                            compare_with_entry(&read.view, seen, (seq, at, events), ledger);
                        checked.err().map(|what| (read, seen.seq, format!("`{}` {what}", seen.key)))
                    }
                    Comparison::Read { read } => {
                        let read = &self.reads[read];
                        let (compared, missing) = (&mut self.compared, &mut self.missing);
                        let checked = compare_with_fold(read, ledger, statement, compared, missing);
                        checked.err().map(|what| (read, read.seq, what))
                    }
                };
                if let Some((read, seq, what)) = wrong {
                    let what =
                        format!("{}: a reader at the cursor {} saw {what}", read.view, read.seq);
                    findings.add(F6, log, Some(seq), what);
                }
            }
        }
    }

    /// Reports what readers saw beyond `tail`, and accounts that were absent and never closed.
    pub(crate) fn finish(&mut self, log: &str, tail: u64, findings: &mut Findings) {
        for SeenCursor { view, seq, .. } in self.cursors.iter().filter(|seen| seen.seq > tail) {
            let what = format!("{view}: the log ends at {tail}, a reader had a higher cursor");
            findings.add(F6, log, Some(*seq), what);
        }
        for (seq, dues) in std::mem::take(&mut self.due) {
            for due in dues {
                self.compared += 1;
                let (read, what) = match due {
                    Comparison::Read { read } => {
                        (&self.reads[read], "had a higher cursor".to_owned())
                    }
                    Comparison::Row { read, row } => {
                        let read = &self.reads[read];
                        (read, format!("saw `{}` of {seq}", read.rows[row].key))
                    }
                };
                let what = format!("{}: the log ends at {tail}, a reader {what}", read.view);
                findings.add(F6, log, Some(seq), what);
            }
        }
        for (account, cursors) in std::mem::take(&mut self.missing) {
            for seq in cursors {
                let what =
                    format!("{BALANCES}: a reader at the cursor {seq} saw no row `{account}`");
                findings.add(F6, log, Some(seq), what);
            }
        }
    }
}

/// What a reader saw of a view: its cursor, and when the read began and ended.
struct Sight {
    seq: u64,
    began_us: u64,
    ended_us: u64,
}

/// Reports a read that saw a lower cursor than a read which ended before it began.
fn find_lower_cursors(
    log: &str,
    reads: &[SeenRows],
    cursors: &[SeenCursor],
    findings: &mut Findings,
) {
    let mut of_view: BTreeMap<&str, Vec<Sight>> = BTreeMap::new();
    for SeenRows { view, seq, began_us, ended_us, .. } in reads {
        let sight = Sight { seq: *seq, began_us: *began_us, ended_us: *ended_us };
        of_view.entry(view).or_default().push(sight);
    }
    for SeenCursor { view, seq, began_us, ended_us, .. } in cursors {
        let sight = Sight { seq: *seq, began_us: *began_us, ended_us: *ended_us };
        of_view.entry(view).or_default().push(sight);
    }
    for (view, sights) in of_view {
        let (mut begun, mut ended): (Vec<_>, Vec<_>) =
            (sights.iter().collect(), sights.iter().collect());
        begun.sort_by_key(|read| read.began_us);
        ended.sort_by_key(|read| read.ended_us);
        let mut ended = ended.into_iter().peekable();
        let mut highest = 0;
        for read in begun {
            while let Some(before) = ended.next_if(|before| before.ended_us < read.began_us) {
                highest = highest.max(before.seq);
            }
            if read.seq < highest {
                let what = format!(
                    "{view}: a reader saw the cursor {highest}, and a later one {}",
                    read.seq
                );
                findings.add(F6, log, Some(read.seq), what);
            }
        }
    }
}

/// Compares a row with the entry that changed it last.
fn compare_with_entry(
    view: &str,
    seen: &SeenRow,
    (seq, at, events): (u64, u64, &[Event]),
    ledger: &Ledger,
) -> Result<(), String> {
    let last_event = |account: &str| events.iter().rfind(|event| event.document == account);
    let unchanged = || format!("of {}, which did not change it", seen.seq);
    if seen.seq != seq {
        return Err(unchanged());
    }
    match view {
        BALANCES => match ledger.accounts.get(&seen.key) {
            Some(account) if account.seq == seq => is_balance(&seen.row, account),
            _ => Err(unchanged()),
        },
        TOTALS if seen.key == TOTAL && ledger.totals_seq == seq => is_total(&seen.row, ledger),
        STATEMENT => {
            let account = seen.key.rsplit_once('/').map_or("", |(account, _)| account);
            let movement = last_event(account).and_then(|event| Movement::of(seq, at, event));
            match movement {
                Some(movement) if line_key(account, seq) == seen.key => {
                    movement.is_row(account, &seen.row)
                }
                _ => Err(unchanged()),
            }
        }
        _ => Err(unchanged()),
    }
}

/// Compares all rows of a read with the fold at its cursor.
fn compare_with_fold(
    read: &SeenRows,
    ledger: &Ledger,
    statement: &Statement,
    compared: &mut u64,
    missing: &mut HashMap<String, Vec<u64>>,
) -> Result<(), String> {
    *compared += u64::from(read.rows.is_empty());
    let keys = || read.rows.iter().map(|seen| seen.key.as_str()).collect::<HashSet<&str>>();
    match read.view.as_str() {
        BALANCES => {
            let keys = keys();
            for name in ledger.accounts.keys().filter(|name| !keys.contains(name.as_str())) {
                missing.entry(name.clone()).or_default().push(read.seq);
            }
        }
        STATEMENT => {
            let keys = keys();
            let last = read.rows.last().filter(|_| read.rows.len() >= NEWEST_ROWS);
            let last = last.map_or("", |seen| seen.key.as_str());
            let absent = statement.highest().rev().take_while(|key| *key > last);
            return match absent.into_iter().find(|key| !keys.contains(key)) {
                Some(key) => Err(format!("no row `{key}`")),
                None => Ok(()),
            };
        }
        _ if ledger.totals_seq > 0 && read.rows.is_empty() => return Err("no row".to_owned()),
        _ => {}
    }
    let old = read.rows.iter().filter(|seen| seen.seq <= read.seq);
    for seen in old {
        *compared += 1;
        let last = match read.view.as_str() {
            BALANCES => ledger.accounts.get(&seen.key).map(|account| account.seq),
            _ => Some(ledger.totals_seq).filter(|_| seen.key == TOTAL),
        };
        if last != Some(seen.seq) {
            let last = last
                .map_or("there is no such row".to_owned(), |last| format!("should be of {last}"));
            return Err(format!("`{}` of {}, and {last}", seen.key, seen.seq));
        }
        let checked = match read.view.as_str() {
            BALANCES => is_balance(&seen.row, &ledger.accounts[&seen.key]),
            _ => is_total(&seen.row, ledger),
        };
        checked.map_err(|what| format!("`{}` {what}", seen.key))?;
    }
    Ok(())
}
