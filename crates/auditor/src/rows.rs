//! Reads the rows of a view in the order of their keys, and compares them with the expected rows.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::findings::Findings;
use crate::invariant::Invariant::{self, F5, F6};
use crate::limits::PAGE_MAX;
use crate::reader::{Range, ReadError, Reader, Row, Rows, RowsPage};

/// The state of one view of a log, by all answers so far.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) view: String,
    pub(crate) seq: u64,
    /// The view did not reach the log, or its rows are out of order: they are not compared any
    /// more.
    pub(crate) given_up: bool,
    parked: bool,
}

impl Cursor {
    pub(crate) fn new(view: &str, seq: u64) -> Self {
        Self { view: view.to_owned(), seq, given_up: false, parked: false }
    }

    /// Begins another comparison: the findings of the last one are dropped.
    pub(crate) fn begin_again(&mut self) {
        (self.given_up, self.parked) = (false, false);
    }
}

/// Why a scan ended early.
#[derive(Debug)]
pub(crate) enum ScanError {
    Read(ReadError),
    /// The reason is a breach, and was added to the findings.
    GivenUp,
}

impl From<ReadError> for ScanError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

/// The view's log, and the seq that the view must have reached at a time.
#[derive(Clone, Copy)]
pub(crate) struct RowSource<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) log: &'a str,
    pub(crate) seq: u64,
    pub(crate) until: Instant,
}

/// Compares rows with expected ones, both in the order of their keys.
pub(crate) struct Scan<'s, 'a> {
    source: RowSource<'a>,
    cursor: &'s mut Cursor,
    findings: &'s mut Findings,
    prefix: String,
    after: String,
    page: VecDeque<Row>,
    more: bool,
    pub(crate) rows: u64,
}

impl<'s, 'a> Scan<'s, 'a> {
    /// Scans the rows whose key begins with `prefix` and is greater than `after`.
    pub(crate) fn new(
        source: RowSource<'a>,
        cursor: &'s mut Cursor,
        findings: &'s mut Findings,
        prefix: &str,
        after: String,
    ) -> Self {
        let (prefix, page) = (prefix.to_owned(), VecDeque::new());
        Self { source, cursor, findings, prefix, after, page, more: true, rows: 0 }
    }

    pub(crate) fn jump(&mut self, after: String) {
        self.page.clear();
        self.more = true;
        self.after = after;
    }

    fn breach(&mut self, invariant: Invariant, seq: u64, what: String) {
        let what = format!("{}: {what}", self.cursor.view);
        self.findings.add(invariant, self.source.log, Some(seq), what);
    }

    /// The next row, without taking it. `needed`: how many rows the caller still expects.
    async fn peek(&mut self, needed: u64) -> Result<Option<&Row>, ScanError> {
        while self.page.is_empty() && self.more {
            self.read(needed).await?;
        }
        Ok(self.page.front())
    }

    async fn read(&mut self, needed: u64) -> Result<(), ScanError> {
        let RowSource { reader, log, seq, until } = self.source;
        let limit = needed.clamp(1, PAGE_MAX);
        let range = Range { prefix: self.prefix.clone(), after: self.after.clone(), limit };
        match reader.rows(&self.cursor.view, log, &range, seq, until).await? {
            Rows::Page(page) => {
                self.take(page, limit);
                if self.cursor.given_up { Err(ScanError::GivenUp) } else { Ok(()) }
            }
            Rows::Pending(pending) => {
                let parked = if pending.parked.is_some() { " and is parked" } else { "" };
                let what = format!(
                    "the view has the cursor {}{parked}, and should have reached {seq}",
                    pending.seq
                );
                self.breach(F5, seq, what);
                self.cursor.given_up = true;
                Err(ScanError::GivenUp)
            }
        }
    }

    fn take(&mut self, page: RowsPage, limit: u64) {
        if page.parked.is_some() && !self.cursor.parked {
            self.cursor.parked = true;
            self.breach(F5, page.seq, "the view is parked".to_owned());
        }
        if page.view != self.cursor.view || page.log != self.source.log {
            let what = format!("the page names the view {} of {}", page.view, page.log);
            self.breach(F6, page.seq, what);
        }
        if page.seq < self.source.seq {
            let what = format!("a read at {} was answered at {}", self.source.seq, page.seq);
            self.breach(F5, page.seq, what);
        }
        if page.seq < self.cursor.seq {
            let what = format!("the cursor went back to {} from {}", page.seq, self.cursor.seq);
            self.breach(F6, page.seq, what);
        }
        self.cursor.seq = self.cursor.seq.max(page.seq);
        let last = page.rows.last().map(|row| &row.key);
        let fits = page.rows.len() as u64 <= limit;
        if !fits || page.next.as_ref().is_some_and(|next| Some(next) != last) {
            let what = format!(
                "a page of at most {limit} has {} rows, or a wrong `next`",
                page.rows.len()
            );
            self.breach(F6, page.seq, what);
        }
        self.more = page.next.is_some() && last.is_some();
        for row in page.rows {
            if row.key <= self.after || !row.key.starts_with(&self.prefix) {
                let what = format!("the row `{}` comes after `{}`", row.key, self.after);
                self.breach(F6, row.seq, what);
                // All later rows would count as missing, and the scan might never end.
                self.cursor.given_up = true;
                return;
            }
            self.after.clone_from(&row.key);
            self.page.push_back(row);
        }
    }

    /// Checks that the next row has this key and seq, and passes it to `check`. `needed`: how many
    /// rows the caller still expects, this one included.
    pub(crate) async fn expect(
        &mut self,
        key: &str,
        seq: u64,
        needed: u64,
        check: impl FnOnce(&RawValue) -> Result<(), String>,
    ) -> Result<(), ScanError> {
        while let Some(row) = self.peek(needed).await?
            && *row.key < *key
        {
            self.extra();
        }
        self.rows += 1;
        let is_next = self.page.front().is_some_and(|row| row.key == key);
        match is_next.then(|| self.page.pop_front()).flatten() {
            None => self.breach(F6, seq, format!("the row `{key}` is missing")),
            Some(row) if row.seq != seq => {
                let what =
                    format!("the row `{key}` has the seq {}, and {seq} changed it last", row.seq);
                self.breach(F6, seq, what);
            }
            Some(row) => {
                if let Err(what) = check(&row.row) {
                    self.breach(F6, seq, format!("the row `{key}` {what}"));
                }
            }
        }
        Ok(())
    }

    fn extra(&mut self) {
        if let Some(row) = self.page.pop_front() {
            self.rows += 1;
            let what = format!("the row `{}` should not exist: {}", row.key, row.row);
            self.breach(F6, row.seq, what);
        }
    }

    /// Reads the first page, which shows that the view has reached the seq. Returns its number of
    /// rows.
    pub(crate) async fn first_page(mut self) -> Result<u64, ScanError> {
        self.peek(PAGE_MAX).await?;
        Ok(self.page.len() as u64)
    }

    /// Checks that there are no more rows.
    pub(crate) async fn end(&mut self) -> Result<(), ScanError> {
        while self.peek(PAGE_MAX).await?.is_some() {
            self.extra();
        }
        Ok(())
    }
}

/// Checks that `row` equals `expected`; the error shows both.
pub(crate) fn same<'a, T>(row: &'a RawValue, expected: &T) -> Result<(), String>
where
    T: serde::Deserialize<'a> + PartialEq + std::fmt::Debug,
{
    match serde_json::from_str::<T>(row.get()) {
        Ok(found) if found == *expected => Ok(()),
        Ok(_) => Err(format!("is {row}, not {expected:?}")),
        Err(error) => Err(format!("is {row}: {error}")),
    }
}
