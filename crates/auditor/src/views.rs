//! The rows that the three views of the ledger must have.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::findings::Findings;
use crate::ledger::{Account, Event, Ledger};
use crate::limits::{NEWEST_ROWS, PAGE_MAX};
use crate::rows::{Cursor, RowSource, Scan, ScanError, same};

/// A view with a row for each open account.
pub(crate) const BALANCES: &str = "balances";
/// A view with a row for each movement.
pub(crate) const STATEMENT: &str = "statement";
/// A view with one row.
pub(crate) const TOTALS: &str = "totals";
pub(crate) const TOTAL: &str = "total";

/// Bytes of memos that wait for their comparison, in one log.
const MEMO_BYTES_MAX: usize = 8 * 1_024 * 1_024;

/// A row of `balances`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Balance {
    balance: i64,
    movements: u64,
}

/// The row of `totals`.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Total {
    accounts: i64,
    balance: i128,
    movements: u64,
    rejected: u64,
}

/// A row of `statement`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineRow<'a> {
    #[serde(borrow)]
    account: Cow<'a, str>,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    amount: i64,
    balance: i64,
    at: u64,
    #[serde(default, borrow)]
    memo: Option<Cow<'a, str>>,
}

/// Checks that this is the account's row in `balances`.
pub(crate) fn is_balance(row: &RawValue, account: &Account) -> Result<(), String> {
    same(row, &Balance { balance: account.balance, movements: account.movements })
}

/// Checks that this is the row of `totals`.
pub(crate) fn is_total(row: &RawValue, ledger: &Ledger) -> Result<(), String> {
    let Ledger { opened: accounts, balance, movements, rejected, .. } = *ledger;
    same(row, &Total { accounts, balance, movements, rejected })
}

/// Compares all rows of `balances`. Returns their number.
pub(crate) async fn compare_balances(
    source: RowSource<'_>,
    cursor: &mut Cursor,
    ledger: &Ledger,
    findings: &mut Findings,
) -> Result<u64, ScanError> {
    let mut scan = Scan::new(source, cursor, findings, "", String::new());
    for (name, account) in &ledger.accounts {
        scan.expect(name, account.seq, PAGE_MAX, |row| is_balance(row, account)).await?;
    }
    scan.end().await?;
    Ok(scan.rows)
}

/// Compares all rows of `totals`. Returns their number.
pub(crate) async fn compare_totals(
    source: RowSource<'_>,
    cursor: &mut Cursor,
    ledger: &Ledger,
    findings: &mut Findings,
) -> Result<u64, ScanError> {
    let mut scan = Scan::new(source, cursor, findings, "", String::new());
    if ledger.totals_seq > 0 {
        scan.expect(TOTAL, ledger.totals_seq, PAGE_MAX, |row| is_total(row, ledger)).await?;
    }
    scan.end().await?;
    Ok(scan.rows)
}

/// A movement, as the statement must show it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Movement {
    seq: u64,
    at: u64,
    kind: &'static str,
    amount: i64,
    balance: i64,
    memo: Option<Box<str>>,
}

impl Movement {
    /// The movement of an event, if money moved. `seq` and `at` are the entry's.
    pub(crate) fn of(seq: u64, at: u64, event: &Event) -> Option<Self> {
        let (amount, balance) = event.moved()?;
        let (kind, memo) = (event.kind.name(), event.data.memo.clone());
        Some(Self { seq, at, kind, amount, balance, memo })
    }

    /// Checks that this is its row in `statement`.
    pub(crate) fn is_row(&self, account: &str, row: &RawValue) -> Result<(), String> {
        let Self { at, kind, amount, balance, ref memo, .. } = *self;
        let (account, memo) = (account.into(), memo.as_deref().map(Cow::from));
        same(row, &LineRow { account, kind: kind.into(), amount, balance, at, memo })
    }

    fn memo_bytes(&self) -> usize {
        self.memo.as_ref().map_or(0, |memo| memo.len())
    }
}

/// The key of a movement in `statement`.
pub(crate) fn line_key(account: &str, seq: u64) -> String {
    format!("{account}/{seq:020}")
}

#[derive(Debug, Default)]
struct OfAccount {
    lines: Vec<Movement>,
    /// The seqs of the first and the last compared movement: all between them are compared, too.
    compared: Option<(u64, u64)>,
}

/// The statement. Only its newest part is in memory.
#[derive(Debug, Default)]
pub(crate) struct Statement {
    /// By name and slash, which is the order of their rows.
    accounts: BTreeMap<String, OfAccount>,
    lines: usize,
    memo_bytes: usize,
    /// The [`NEWEST_ROWS`] highest keys, if they are wanted.
    highest: Option<BTreeSet<String>>,
}

impl Statement {
    /// `highest`: whether the caller needs [`Statement::highest`].
    pub(crate) fn new(highest: bool) -> Self {
        Self { highest: highest.then(BTreeSet::new), ..Self::default() }
    }

    /// The highest keys, at most [`NEWEST_ROWS`].
    pub(crate) fn highest(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.highest.iter().flatten().map(String::as_str)
    }

    pub(crate) fn add(&mut self, seq: u64, at: u64, events: &[Event]) {
        for event in events {
            let Some(movement) = Movement::of(seq, at, event) else { continue };
            if let Some(highest) = &mut self.highest {
                highest.insert(line_key(&event.document, seq));
                if highest.len() > NEWEST_ROWS {
                    highest.pop_first();
                }
            }
            let account = self.accounts.entry(format!("{}/", event.document)).or_default();
            // An entry makes one row per account, which shows the last of several movements.
            if let Some(before) = account.lines.pop_if(|last| last.seq == seq) {
                self.lines -= 1;
                self.memo_bytes -= before.memo_bytes();
            }
            self.lines += 1;
            self.memo_bytes += movement.memo_bytes();
            account.lines.push(movement);
        }
    }

    /// Whether the caller should call [`Statement::flush`].
    pub(crate) fn is_full(&self, lines_max: usize) -> bool {
        self.lines > lines_max || self.memo_bytes > MEMO_BYTES_MAX
    }

    /// Compares the movements of the accounts that have most of them, and forgets them. Returns the
    /// number of rows.
    pub(crate) async fn flush(
        &mut self,
        source: RowSource<'_>,
        cursor: &mut Cursor,
        findings: &mut Findings,
    ) -> Result<u64, ScanError> {
        let mut fullest: Vec<(usize, &String)> =
            self.accounts.iter().map(|(prefix, account)| (account.lines.len(), prefix)).collect();
        fullest.sort_unstable_by(|a, b| b.cmp(a));
        let enough = self.lines / 2 + 1;
        let mut left = self.lines;
        let chosen = fullest.into_iter().take_while(|(lines, _)| {
            let goes = left > enough;
            left -= lines;
            goes
        });
        let chosen: Vec<String> = chosen.map(|(_, prefix)| prefix.clone()).collect();
        let mut rows = 0;
        for prefix in chosen {
            let Some(account) = self.accounts.get_mut(&prefix) else { continue };
            let lines = std::mem::take(&mut account.lines);
            self.lines -= lines.len();
            self.memo_bytes -= lines.iter().map(Movement::memo_bytes).sum::<usize>();
            let (Some(first), Some(last)) = (lines.first(), lines.last()) else { continue };
            let name = prefix.trim_end_matches('/');
            let after = account.compared.map(|(_, last)| line_key(name, last));
            let compared = (account.compared.map_or(first.seq, |(first, _)| first), last.seq);
            account.compared = Some(compared);
            let mut scan = Scan::new(source, cursor, findings, &prefix, after.unwrap_or_default());
            compare_lines(&mut scan, name, &lines).await?;
            rows += scan.rows;
        }
        Ok(rows)
    }

    /// Compares all other movements, and checks that there are no more rows. Returns the number of
    /// rows.
    pub(crate) async fn compare(
        &self,
        source: RowSource<'_>,
        cursor: &mut Cursor,
        findings: &mut Findings,
    ) -> Result<u64, ScanError> {
        let mut scan = Scan::new(source, cursor, findings, "", String::new());
        for (prefix, account) in &self.accounts {
            let name = prefix.trim_end_matches('/');
            if let Some((first, last)) = account.compared {
                // This row was compared before. It is read again to show that no row stands before
                // it.
                scan.expect(&line_key(name, first), first, 1, |_| Ok(())).await?;
                scan.jump(line_key(name, last));
            }
            compare_lines(&mut scan, name, &account.lines).await?;
        }
        scan.end().await?;
        Ok(scan.rows)
    }
}

async fn compare_lines(
    scan: &mut Scan<'_, '_>,
    account: &str,
    lines: &[Movement],
) -> Result<(), ScanError> {
    for (at, line) in lines.iter().enumerate() {
        let needed = (lines.len() - at) as u64;
        let key = line_key(account, line.seq);
        scan.expect(&key, line.seq, needed, |row| line.is_row(account, row)).await?;
    }
    Ok(())
}
