//! Rows of a view, read in the order of their keys and held against what they should be.

use std::collections::VecDeque;

use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::findings::Findings;
use crate::limits::PAGE_MAX;
use crate::reader::{Range, Reader, Row, Rows, RowsPage, Trouble};
use crate::{F5, F6};

/// What is known of one view of a log, from all answers so far.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) view: &'static str,
    /// The highest that it was seen at.
    pub(crate) seq: u64,
    /// It never came to where it should be, or its rows are in no order: they are not looked at.
    pub(crate) given_up: bool,
    parked: bool,
}

impl Cursor {
    pub(crate) fn new(view: &'static str, seq: u64) -> Self {
        Self { view, seq, given_up: false, parked: false }
    }

    /// It is looked at once more, and what was found with it is not kept.
    pub(crate) fn look_again(&mut self) {
        (self.given_up, self.parked) = (false, false);
    }
}

/// Why no more rows are read.
#[derive(Debug)]
pub(crate) enum Stop {
    Trouble(Trouble),
    /// It has been added to what is found.
    GivenUp,
}

impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Where rows are read, and from when on they count.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) reader: Reader<'a>,
    pub(crate) log: &'a str,
    /// The view must have got here ...
    pub(crate) seq: u64,
    /// ... by now.
    pub(crate) until: Instant,
}

/// Reads rows, and holds them against what is expected, both in the order of their keys.
pub(crate) struct Scan<'s, 'a> {
    place: Place<'a>,
    cursor: &'s mut Cursor,
    findings: &'s mut Findings,
    prefix: String,
    after: String,
    page: VecDeque<Row>,
    more: bool,
    /// Rows that were compared.
    pub(crate) rows: u64,
}

impl<'s, 'a> Scan<'s, 'a> {
    /// Rows whose key begins with `prefix` and is greater than `after`.
    pub(crate) fn new(
        place: Place<'a>,
        cursor: &'s mut Cursor,
        findings: &'s mut Findings,
        prefix: &str,
        after: String,
    ) -> Self {
        let (prefix, page) = (prefix.to_owned(), VecDeque::new());
        Self { place, cursor, findings, prefix, after, page, more: true, rows: 0 }
    }

    /// Goes on behind this key.
    pub(crate) fn jump(&mut self, after: String) {
        self.page.clear();
        self.more = true;
        self.after = after;
    }

    fn breach(&mut self, invariant: &'static str, seq: u64, what: String) {
        let what = format!("{}: {what}", self.cursor.view);
        self.findings.add(invariant, self.place.log, Some(seq), what);
    }

    /// The next row, which stays the next; of so many that are needed.
    async fn peek(&mut self, needed: u64) -> Result<Option<&Row>, Stop> {
        while self.page.is_empty() && self.more {
            self.read(needed).await?;
        }
        Ok(self.page.front())
    }

    async fn read(&mut self, needed: u64) -> Result<(), Stop> {
        let Place { reader, log, seq, until } = self.place;
        let limit = needed.clamp(1, PAGE_MAX);
        let range = Range { prefix: self.prefix.clone(), after: self.after.clone(), limit };
        match reader.rows(self.cursor.view, log, &range, seq, until).await? {
            Rows::Page(page) => {
                self.take(page, limit);
                if self.cursor.given_up { Err(Stop::GivenUp) } else { Ok(()) }
            }
            Rows::Pending(pending) => {
                let parked = if pending.parked.is_some() { ", and parked" } else { "" };
                let what = format!("the view is at {}{parked}, the log at {seq}", pending.seq);
                self.breach(F5, seq, what);
                self.cursor.given_up = true;
                Err(Stop::GivenUp)
            }
        }
    }

    fn take(&mut self, page: RowsPage, limit: u64) {
        if page.parked.is_some() && !self.cursor.parked {
            self.cursor.parked = true;
            self.breach(F5, page.seq, "the view is parked".to_owned());
        }
        if page.seq < self.place.seq {
            let what = format!("the view was asked for {}, and is at {}", self.place.seq, page.seq);
            self.breach(F5, page.seq, what);
        }
        if page.seq < self.cursor.seq {
            let what = format!("the view went back to {} from {}", page.seq, self.cursor.seq);
            self.breach(F6, page.seq, what);
        }
        self.cursor.seq = self.cursor.seq.max(page.seq);
        let last = page.rows.last().map(|row| &row.key);
        let fits = page.rows.len() as u64 <= limit;
        if !fits || page.next.as_ref().is_some_and(|next| Some(next) != last) {
            let what =
                format!("a page of {limit} has {} rows, and goes on elsewhere", page.rows.len());
            self.breach(F6, page.seq, what);
        }
        self.more = page.next.is_some() && last.is_some();
        for row in page.rows {
            if row.key <= self.after || !row.key.starts_with(&self.prefix) {
                let what = format!("the row `{}` comes after `{}`", row.key, self.after);
                self.breach(F6, row.seq, what);
                // Everything else would be missing, and this may never end.
                self.cursor.given_up = true;
                return;
            }
            self.after.clone_from(&row.key);
            self.page.push_back(row);
        }
    }

    /// The next row is this one: of so many that are needed from here on. `check` says what is
    /// wrong with it.
    pub(crate) async fn expect(
        &mut self,
        key: &str,
        seq: u64,
        needed: u64,
        check: impl FnOnce(&RawValue) -> Result<(), String>,
    ) -> Result<(), Stop> {
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
                let what = format!("the row `{key}` is of {}, last touched by {seq}", row.seq);
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
            let what = format!("the row `{}` should not be there: {}", row.key, row.row);
            self.breach(F6, row.seq, what);
        }
    }

    /// There are no more rows.
    pub(crate) async fn end(&mut self) -> Result<(), Stop> {
        while self.peek(PAGE_MAX).await?.is_some() {
            self.extra();
        }
        Ok(())
    }
}

/// Whether `row` is what it should be; if not, both.
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
