//! Compares what is stored of a log: its slot, its commits, its head and documents, and each view's cursor and rows.
//!
//! It changes nothing. It reads while stages write, so it reads first what is written last: a cursor, then rows, a head, the
//! tail, the slot, the entries. What it then finds too far ahead is wrong, and what is behind may be on its way.

mod compare;
mod formats;

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold::host::body::head::Head;
use fanfold::host::body::lease::ProcessorLease;
use fanfold::host::body::parked::{Parked, Reason};
use fanfold::{AnyView, Entry, LogId, RowKey, Seq, Services, StateKey, Time, Views, with_causes};
use serde::Serialize;

use crate::operate::OperatePorts;
use crate::ports::{
    CataloguePage, CataloguePosition, JournalLogs, OperatorView, RowPage, RowRange, StoredRow,
    Unavailable, ViewTable,
};

/// Commits per read of the journal. Source: our choice; a page ends at about 1 MiB anyway.
const COMMITS_PER_READ: usize = 100;
/// Entries at the end of a log that a sample reads. Source: our choice, about one page.
const SAMPLED_ENTRIES: u64 = 100;
/// Rows per read of a view's table. Source: the port's limit is 1,000.
const ROWS_PER_READ: usize = 200;
/// Entries of a log that are folded to compare rows and documents. Source: our choice. They are held in memory, and a
/// thousand of the largest have 64 MiB. Rows and documents of longer logs are not compared.
const FOLDED_ENTRIES_MAX: u64 = 1_000;
/// Rows of a view, in one log, that are compared in a sample, and at all. Source: our choice.
const ROWS_MAX: [usize; 2] = [ROWS_PER_READ, 10_000];
/// Bytes of such rows. Source: our choice; a function of AWS has 512 MB, and a log few views.
const ROWS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Parked items of a log that are read to find one that may have crashed its process. Source: our choice.
const PARKED_PER_READ: usize = 100;
/// How long one page may take, in milliseconds. Source: our choice. A request of AWS ends after 29 s.
const PAGE_MS: u64 = 15_000;
/// What is behind for less than this, in milliseconds, is on its way. Source: the sweep's alarms wait for as long.
const LATE_MS: u64 = 300_000;

/// How much is read of each log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// All entries of logs of up to 1,000, and the last 100 of others; views of up to 200 rows.
    Sample,
    /// All entries, and views of up to 10,000 rows or 16 MiB.
    All,
}

/// Checks logs.
#[derive(Clone)]
pub struct Doctor {
    ports: OperatePorts,
    services: Services,
    views: Views,
}

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ailment {
    /// The log has entries above what its slot has given out, or no slot. New commands get positions that are taken. The
    /// commands table was restored to an older state.
    SlotBehind,
    /// Commands were accepted minutes ago, and have no entries.
    SlotAhead,
    /// A commit does not follow the one before it, or cannot be read.
    Chain,
    /// A head is ahead of the journal. The journal was restored to an older state, or the head is of another log.
    HeadAhead,
    /// A stored document is not the fold of the log's events, or is missing although the head is past its events.
    DocumentWrong,
    /// A view's cursor is ahead of the journal.
    CursorAhead,
    /// A view has not applied an entry that is minutes old, and is not parked.
    CursorBehind,
    /// A view is parked for the log.
    Parked,
    /// A rebuild of the view's log has begun, and not ended.
    Rebuild,
    /// A row is not the fold of the log's entries.
    RowWrong,
    /// A row is missing although the cursor is past its entries.
    RowMissing,
    /// There is a row that no entry has made.
    RowUnknown,
    /// An item has a format that is newer than this build reads.
    NewerFormat,
    /// An item cannot be read.
    Damaged,
}

/// Something that does not fit, in one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: Ailment,
    /// The view, if it is one of a view.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub view: Option<String>,
    /// Details, for people.
    pub detail: String,
}

/// What was found in one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Examined {
    /// The log.
    pub log: LogId,
    /// The last seq that ingest has given out.
    pub accepted: Seq,
    /// The seq of the last entry.
    pub tail: Seq,
    /// How many entries were read.
    pub entries: u64,
    /// How many rows were compared with their fold.
    pub rows: u64,
    /// How many views had too many rows to be compared.
    pub uncompared: u64,
    /// How many bodies of each format were read: `commit v1`.
    pub formats: BTreeMap<String, u64>,
    /// Whether the time was over before all entries were read.
    pub is_incomplete: bool,
    /// What does not fit.
    pub findings: Vec<Finding>,
}

/// A page of examined logs: of the catalogue, or of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct ExaminedPage<P = CataloguePosition> {
    /// In the order of the catalogue, or the journal's own.
    pub logs: Vec<Examined>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<P>,
}

/// A view with its table, if it has one, and the version that is announced; an error if its announcement cannot be read.
type FoundTable = Result<Option<(Option<u32>, Arc<dyn OperatorView>)>, Unavailable>;

/// A view's table, with its cursor and rows as they were before the journal was read.
struct OfView {
    view: Arc<dyn AnyView>,
    cursor: Seq,
    /// Entries from this one on are not applied by the view, and may crash a process.
    parked_at: Option<Seq>,
    /// `None` if they are not compared.
    rows: Option<BTreeMap<RowKey, StoredRow>>,
}

impl Examined {
    fn add(&mut self, what: Ailment, view: Option<&str>, detail: impl Into<String>) {
        let (view, detail) = (view.map(str::to_owned), detail.into());
        self.findings.push(Finding { what, view, detail });
    }

    /// Notes an item that cannot be read. Other failures end the check, since they say nothing of the log.
    fn note<T>(
        &mut self,
        view: Option<&str>,
        result: Result<T, Unavailable>,
    ) -> Result<Option<T>, Unavailable> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(damaged @ Unavailable::Damaged { .. }) => {
                self.add(Ailment::Damaged, view, with_causes(&damaged));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Doctor {
    /// Checks logs of these services, and these views of them.
    pub fn new(ports: OperatePorts, services: Services, views: Views) -> Self {
        Self { ports, services, views }
    }

    /// Examines up to `limit` logs of the catalogue, behind `after`, one after another, until the time is over. At least
    /// one, of which it then does not read everything.
    pub async fn page(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
        depth: Depth,
    ) -> Result<ExaminedPage, Unavailable> {
        let until = self.ports.env.now().plus_ms(PAGE_MS);
        let page = self.ports.commands.catalogue(after.clone(), limit).await?;
        let CataloguePage { logs, next } = page;
        let examined = self.examine_all(&logs, depth, until).await?;
        if examined.len() < logs.len() {
            // Only the catalogue knows the order, so it says where to go on.
            let page = self.ports.commands.catalogue(after, examined.len()).await?;
            return Ok(ExaminedPage { logs: examined, next: page.next });
        }
        Ok(ExaminedPage { logs: examined, next })
    }

    /// As [`Doctor::page`], but of the logs that have an entry in the journal, behind the log `after`. After a restore of
    /// the commands table, which the catalogue is an index of, some of them may be in no catalogue.
    pub async fn page_of_journal(
        &self,
        after: Option<&LogId>,
        limit: usize,
        depth: Depth,
    ) -> Result<ExaminedPage<LogId>, Unavailable> {
        let until = self.ports.env.now().plus_ms(PAGE_MS);
        let JournalLogs { logs, next } = self.ports.journal.logs(after, limit).await?;
        let examined = self.examine_all(&logs, depth, until).await?;
        let next = match examined.last() {
            Some(last) if examined.len() < logs.len() => Some(last.log.clone()),
            _ => next,
        };
        Ok(ExaminedPage { logs: examined, next })
    }

    /// Examines logs until the time is over, but at least the first.
    async fn examine_all(
        &self,
        logs: &[LogId],
        depth: Depth,
        until: Time,
    ) -> Result<Vec<Examined>, Unavailable> {
        let tables = self.tables().await;
        let mut examined = Vec::with_capacity(logs.len());
        for log in logs {
            if !examined.is_empty() && self.ports.env.now() >= until {
                break;
            }
            examined.push(self.examine_until(log, &tables, depth, until).await?);
        }
        Ok(examined)
    }

    /// Examines one log. It fails only if a table does not answer.
    pub async fn examine(&self, log: &LogId, depth: Depth) -> Result<Examined, Unavailable> {
        let until = self.ports.env.now().plus_ms(PAGE_MS);
        self.examine_until(log, &self.tables().await, depth, until).await
    }

    /// The tables of all views, in the order of the views.
    async fn tables(&self) -> Vec<FoundTable> {
        let mut tables = Vec::new();
        for view in self.views.iter() {
            tables.push(self.ports.views.get(view.name()).await);
        }
        tables
    }

    async fn examine_until(
        &self,
        log: &LogId,
        tables: &[FoundTable],
        depth: Depth,
        until: Time,
    ) -> Result<Examined, Unavailable> {
        let mut found = Examined {
            log: log.clone(),
            accepted: Seq::ZERO,
            tail: Seq::ZERO,
            entries: 0,
            rows: 0,
            uncompared: 0,
            formats: BTreeMap::new(),
            is_incomplete: false,
            findings: Vec::new(),
        };
        // Rows are not read of a log that is too long anyway.
        let tail = self.ports.journal.tail(log).await;
        let Some(tail) = found.note(None, tail)? else { return Ok(found) };
        let depth_of_rows = (tail.0 <= FOLDED_ENTRIES_MAX).then_some(depth);
        // What is written last is read first.
        let views = self.views_of(&mut found, tables, tail, depth_of_rows).await?;
        let head = self.head(&mut found).await?;
        let tail = self.ports.journal.tail(log).await;
        let Some(tail) = found.note(None, tail)? else { return Ok(found) };
        found.tail = tail;
        let slot = self.ports.commands.slot(log).await;
        if let Some(slot) = found.note(None, slot)? {
            found.accepted = slot.as_ref().map_or(Seq::ZERO, |slot| slot.seq);
            let now = self.ports.env.now();
            let accepted = found.accepted;
            if accepted < tail {
                let detail =
                    format!("the slot is at {accepted}, and the log's last entry is {tail}");
                found.add(Ailment::SlotBehind, None, detail);
            } else if let Some(slot) = slot.filter(|_| accepted > tail)
                && now.since_ms(slot.at) > LATE_MS
            {
                let detail = format!(
                    "commands up to {accepted} are accepted, and the log's last entry is {tail}"
                );
                found.add(Ailment::SlotAhead, None, detail);
            }
        }
        if let Some(head) = head.filter(|head| *head > tail) {
            let detail = format!("a head is at {head}, and the log's last entry is {tail}");
            found.add(Ailment::HeadAhead, None, detail);
        }
        let from = match depth {
            Depth::All => Seq(1),
            Depth::Sample if tail.0 <= FOLDED_ENTRIES_MAX => Seq(1),
            Depth::Sample => Seq(tail.0 - SAMPLED_ENTRIES).next(),
        };
        let is_folded = from == Seq(1) && tail.0 <= FOLDED_ENTRIES_MAX;
        let entries = self.entries(&mut found, from, is_folded, until).await?;
        if let Some(entries) = &entries
            && !self.may_crash(&mut found).await?
        {
            self.compare_documents(&mut found, head.unwrap_or_default(), entries).await?;
        }
        for of in views {
            self.compare(&mut found, of, entries.as_deref());
        }
        Ok(found)
    }

    /// Whether a record of the log may have crashed its process: the author's code is then not run here.
    async fn may_crash(&self, found: &mut Examined) -> Result<bool, Unavailable> {
        let items = self.ports.parked.list(&found.log, (Seq::ZERO, ""), PARKED_PER_READ).await;
        let items = found.note(None, items)?.unwrap_or_default();
        Ok(items.len() == PARKED_PER_READ
            || items.iter().any(|item| {
                let parked = Parked::decode(&item.body);
                let is_suspect = parked.is_ok_and(|parked| parked.reason == Reason::Suspect);
                item.identity == ProcessorLease::IDENTITY || is_suspect
            }))
    }

    /// The seq of the log's head, in the service's version.
    async fn head(&self, found: &mut Examined) -> Result<Option<Seq>, Unavailable> {
        let Some(service) = self.services.get(found.log.service()) else { return Ok(None) };
        let key = StateKey::head(service.document_version());
        let heads = self.ports.state.get(&found.log, std::slice::from_ref(&key)).await;
        let head = found.note(None, heads)?.and_then(|mut heads| heads.pop().flatten());
        if let Some(head) = &head {
            found.count_format("head", &head.body);
            if let Err(error) = Head::decode(&head.body) {
                found.add_newer("the head", &error);
            }
        }
        Ok(head.map(|head| head.seq))
    }

    /// The cursors of the views that read the log, and their rows. `tail` was the log's before.
    async fn views_of(
        &self,
        found: &mut Examined,
        tables: &[FoundTable],
        tail: Seq,
        depth: Option<Depth>,
    ) -> Result<Vec<OfView>, Unavailable> {
        let mut all = Vec::new();
        let log = found.log.clone();
        let views = self.views.iter().zip(tables);
        let views = views.filter(|(view, _)| view.services().contains(&log.service()));
        for (view, table) in views {
            let name = view.name();
            let table = found.note(Some(name), table.clone())?.flatten();
            let Some((version, table)) = table else { continue };
            if version.is_some_and(|version| version != view.version()) {
                // Another build keeps the rows. This one cannot fold them.
                continue;
            }
            let cursor = table.cursor(&log).await;
            let Some(cursor) = found.note(Some(name), cursor)? else { continue };
            let cursor = cursor.unwrap_or_default();
            let is_attempted = cursor.lease.is_some_and(|lease| lease.attempts > 0);
            let is_rebuilt = cursor.parked.as_ref().is_some_and(|parked| parked.rebuild.is_some());
            let rows = match depth.filter(|_| !is_attempted && !is_rebuilt) {
                Some(depth) => {
                    let rows = self.rows(&*table, &log, depth).await;
                    found.note(Some(name), rows)?.flatten()
                }
                None => None,
            };
            found.uncompared += u64::from(rows.is_none() && !is_rebuilt);
            if let Some(parked) = &cursor.parked {
                let detail = format!("at entry {}: {}", parked.seq, parked.reason);
                let what = if is_rebuilt { Ailment::Rebuild } else { Ailment::Parked };
                found.add(what, Some(name), detail);
            }
            // The cursor of a filtered view need not follow entries of other types.
            let is_filtered = view.is_filtered(&self.services);
            let is_waiting = cursor.parked.is_some() || cursor.is_behind() || is_filtered;
            if cursor.seq < tail
                && !is_waiting
                && let Some(at) = self.next_entry_at(&log, cursor.seq).await?
            {
                let late_ms = self.ports.env.now().since_ms(at);
                if late_ms > LATE_MS {
                    let (cursor, minutes) = (cursor.seq, late_ms / 60_000);
                    let detail = format!(
                        "the cursor is at {cursor}, and the next entry is {minutes} minutes old"
                    );
                    found.add(Ailment::CursorBehind, Some(name), detail);
                }
            }
            let parked_at = cursor.parked.map(|parked| parked.seq);
            all.push(OfView { view: view.clone(), cursor: cursor.seq, parked_at, rows });
        }
        Ok(all)
    }

    /// When the commit behind the cursor was made.
    async fn next_entry_at(&self, log: &LogId, cursor: Seq) -> Result<Option<Time>, Unavailable> {
        match self.ports.journal.read(log, cursor.next(), 1).await {
            Ok(page) => Ok(page.commits.first().map(|commit| commit.at)),
            // The chain's check reports it.
            Err(Unavailable::Damaged { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All rows of the log; `None` if it has more than are compared.
    async fn rows(
        &self,
        table: &dyn OperatorView,
        log: &LogId,
        depth: Depth,
    ) -> Result<Option<BTreeMap<RowKey, StoredRow>>, Unavailable> {
        let most = ROWS_MAX[usize::from(depth == Depth::All)];
        let (mut rows, mut bytes, mut after) = (BTreeMap::new(), 0, None);
        loop {
            let range = RowRange { after, limit: ROWS_PER_READ, ..RowRange::default() };
            let RowPage { rows: page, more } = ViewTable::scan(table, log, &range).await?;
            after = page.last().map(|row| row.key.clone());
            bytes += page.iter().map(|row| row.body.len()).sum::<usize>();
            rows.extend(page.into_iter().map(|row| {
                (row.key, StoredRow { seq: row.seq, body: Some(row.body), expires: None })
            }));
            match (more, rows.len() > most || bytes > ROWS_BYTES_MAX) {
                (_, true) => return Ok(None),
                (false, false) => return Ok(Some(rows)),
                (true, false) => {}
            }
        }
    }

    /// Reads the commits from `from` on, and checks that each follows the one before it. Returns the entries if they are
    /// to be folded, and all can be read.
    async fn entries(
        &self,
        found: &mut Examined,
        from: Seq,
        is_folded: bool,
        until: Time,
    ) -> Result<Option<Vec<Entry>>, Unavailable> {
        let log = found.log.clone();
        let (mut entries, mut next, mut is_first) = (Vec::new(), from, true);
        while next <= found.tail {
            if self.ports.env.now() >= until {
                found.is_incomplete = true;
                return Ok(None);
            }
            let page = self.ports.journal.read(&log, next, COMMITS_PER_READ).await;
            let Some(page) = found.note(None, page)? else { return Ok(None) };
            if page.commits.is_empty() {
                let detail =
                    format!("there is no commit with entry {next}, and the tail is {}", found.tail);
                found.add(Ailment::Chain, None, detail);
                return Ok(None);
            }
            for commit in &page.commits {
                let (first, last) = (commit.first, commit.last());
                // The first one may begin before `from`.
                if first != next && !(is_first && first <= next && next <= last) {
                    let detail =
                        format!("expected a commit with {next}, found one from {first} to {last}");
                    found.add(Ailment::Chain, None, detail);
                    return Ok(None);
                }
                found.count_format("commit", &commit.body);
                match commit.entries() {
                    Ok((read, _)) => {
                        found.entries += read.len() as u64;
                        entries.extend(read.into_iter().filter(|_| is_folded));
                    }
                    Err(error) => {
                        let what = format!("the commit from {first}");
                        if !found.add_newer(&what, &error) {
                            let detail = format!("{what}: {}", with_causes(&error));
                            found.add(Ailment::Chain, None, detail);
                        }
                        return Ok(None);
                    }
                }
                (next, is_first) = (last.next(), false);
            }
        }
        Ok(is_folded.then_some(entries))
    }
}
