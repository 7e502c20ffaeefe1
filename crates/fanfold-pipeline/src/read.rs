//! Answers callers with entries of logs and rows of views. A read can wait for an entry, or for a
//! view to reach a seq.

use std::sync::Arc;

use fanfold::entry::Outcome;
use fanfold::host::body::{DecodeError, commit};
use fanfold::host::knob::Knob;
use fanfold::{CommandId, Entry, LogId, Origin, RowKey, Seq, Services, StateKey, Time};

use crate::ports::{
    Commands, Cursor, Env, Journal, ParkedView, Row, State, StateItem, Unavailable, Waits,
};

mod catalogue;
mod follow;
mod lookup;
mod rows;
mod views;

pub use rows::{AskedRows, SeenView};
pub use views::{OpenTable, ServedView, ServedViews};

/// Commits per read of the journal.
const COMMITS_PER_READ: Knob = Knob::new(100, 1);
/// The pause before the journal is read again for an entry that should be there, in milliseconds.
const HOLE_MS: u64 = 1_000;

/// A page of entries or rows ends with the commit or row that fills it up to this many bytes.
/// Source: an answer through Lambda may have 6 MB, which are 4.5 MB in base64; a commit, and the
/// fields of entries beside their payloads, are well below 1 MB.
const PAGE_BYTES: Knob = Knob::new(3 * 1024 * 1024, 1_000);

/// The ports of the reading side, beside the views' tables.
#[derive(Clone)]
pub struct ReadPorts {
    /// The slots.
    pub commands: Arc<dyn Commands>,
    /// The journal.
    pub journal: Arc<dyn Journal>,
    /// Heads and windows.
    pub state: Arc<dyn State>,
    /// Waiting for a log or a view to reach a seq.
    pub waits: Arc<dyn Waits>,
    /// Time.
    pub env: Arc<dyn Env>,
}

/// The reading side.
#[derive(Clone)]
pub struct Reads {
    ports: ReadPorts,
    views: Arc<ServedViews>,
    services: Services,
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// This host does not serve the service.
    #[error("there is no service `{0}` here")]
    UnknownService(String),
    /// A commit cannot be read by this build.
    #[error("the commit at {first} cannot be read")]
    Undecodable {
        /// The commit's first seq.
        first: Seq,
        /// Why.
        #[source]
        error: DecodeError,
    },
    /// A table does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
}

/// A seq that the log has not assigned.
#[derive(Debug, thiserror::Error)]
#[error("`{log}` has no seq {seq}: {}", match *.accepted {
    Seq::ZERO => "no command was accepted for it yet".to_owned(),
    accepted => format!("its last accepted command has {accepted}"),
})]
pub struct UnknownSeq {
    /// The log.
    pub log: LogId,
    /// The seq asked for.
    pub seq: Seq,
    /// The last accepted; zero if there is none.
    pub accepted: Seq,
}

/// Why an entry cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No command was accepted with this seq.
    #[error(transparent)]
    UnknownSeq(#[from] UnknownSeq),
}

/// Why an id cannot be looked up.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The window has the id, but the journal has no entry at its seq.
    #[error(transparent)]
    NoEntry(#[from] UnknownSeq),
    /// No command with this id was sent.
    #[error("`{log}` has had no command {id} of `{origin}`")]
    UnknownId {
        /// The log.
        log: LogId,
        /// The origin asked for.
        origin: Origin,
        /// The id asked for.
        id: CommandId,
    },
    /// The id is below the window.
    #[error(
        "`id`: {id} is below the ids that `{log}` remembers of `{origin}`: look for it in the log"
    )]
    BelowWindow {
        /// The log.
        log: LogId,
        /// The origin asked for.
        origin: Origin,
        /// The id asked for.
        id: CommandId,
    },
}

/// Why rows of a view cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The log, or the view's table, cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// No command was accepted with the seq to wait for.
    #[error(transparent)]
    UnknownSeq(#[from] UnknownSeq),
    /// This host does not serve the view.
    #[error("there is no view `{0}` here")]
    UnknownView(String),
    /// The view reads other services.
    #[error("the view `{view}` does not read the service `{service}`")]
    NotItsService {
        /// The view.
        view: String,
        /// The service asked for.
        service: String,
    },
    /// The view has no such row.
    #[error("the view `{view}` has no row `{key}` for `{log}`")]
    UnknownRow {
        /// The view.
        view: String,
        /// The log.
        log: LogId,
        /// The row asked for.
        key: RowKey,
    },
    /// The view is filtered: its cursor may rightly never reach a seq.
    #[error("`seq`: the view `{0}` reads only some event types, so a seq cannot be waited for")]
    Filtered(String),
}

/// The answer of a read that can wait.
#[derive(Debug, Clone, PartialEq)]
pub enum Awaited<T> {
    /// What was asked for.
    Ready(T),
    /// The command was accepted, but has no entry, or is not in the view, after the wait.
    Pending {
        /// The last seq that the log or the view has reached.
        seq: Seq,
        /// Why the view cannot go on, if it is parked.
        parked: Option<ParkedView>,
    },
}

/// Some entries of a log.
#[derive(Debug, Clone, PartialEq)]
pub struct LogPage {
    /// The seq of the last accepted command.
    pub accepted: Seq,
    /// The seq of the last entry.
    pub tail: Seq,
    /// Ascending.
    pub entries: Vec<Entry>,
    /// Where the next page begins; `None` at the tail.
    pub next: Option<Seq>,
}

/// Some rows of a view.
#[derive(Debug, Clone, PartialEq)]
pub struct ViewPage {
    /// The view's version.
    pub version: u32,
    /// All entries up to here are in the rows.
    pub seq: Seq,
    /// Why the view is parked for this log, if it is.
    pub parked: Option<ParkedView>,
    /// In the order asked for.
    pub rows: Vec<Row>,
    /// The key after which the next page begins; `None` at the end of the range.
    pub next: Option<RowKey>,
}

impl ServedView {
    fn page(&self, cursor: Cursor, rows: Vec<Row>, next: Option<RowKey>) -> ViewPage {
        let Cursor { seq, parked, .. } = cursor;
        ViewPage { version: self.version, seq, parked, rows, next }
    }
}

impl Reads {
    /// Serves these views, and the logs of these services.
    pub fn new(ports: ReadPorts, views: ServedViews, services: Services) -> Self {
        Self { ports, views: Arc::new(views), services }
    }

    /// The views that are served, by name.
    pub async fn views(&self) -> Result<Vec<Arc<ServedView>>, LogError> {
        Ok(self.views.all().await?)
    }

    /// Whether the view is filtered, so that a caller cannot wait for it.
    pub fn is_filtered(&self, view: &ServedView) -> bool {
        view.is_filtered(&self.services)
    }

    /// The entry at `seq`. Waits for it up to `wait_ms` milliseconds.
    pub async fn entry(
        &self,
        log: &LogId,
        seq: Seq,
        wait_ms: u64,
    ) -> Result<Awaited<Entry>, EntryError> {
        let accepted = self.accepted(log).await?;
        if seq == Seq::ZERO || seq > accepted {
            return Err(UnknownSeq { log: log.clone(), seq, accepted }.into());
        }
        let until = self.ports.env.now().plus_ms(wait_ms);
        let mut looks = 0;
        loop {
            looks += 1;
            if let Some(entry) = self.stored(log, seq).await? {
                return Ok(Awaited::Ready(entry));
            }
            match self.left(until) {
                0 => {
                    // The entry may have arrived just now, but the answer must not contradict
                    // itself.
                    let tail = self.ports.journal.tail(log).await.map_err(LogError::from)?;
                    let seq = tail.min(seq.before());
                    return Ok(Awaited::Pending { seq, parked: None });
                }
                ms => {
                    self.ports.waits.entry(log, seq, ms).await;
                    // After a wait the entry is there, unless the journal has a hole.
                    if looks > 1 {
                        self.ports.env.sleep(HOLE_MS.min(self.left(until))).await;
                    }
                }
            }
        }
    }

    /// The entries from `from` on: at most `limit`, or fewer if they are large.
    pub async fn entries(&self, log: &LogId, from: Seq, limit: usize) -> Result<LogPage, LogError> {
        self.page(log, from, limit, PAGE_BYTES.get()).await
    }

    /// The entries from `from` on: at most `limit`, and none behind the commit that fills the page up
    /// to `bytes_max`.
    async fn page(
        &self,
        log: &LogId,
        from: Seq,
        limit: usize,
        bytes_max: usize,
    ) -> Result<LogPage, LogError> {
        // In this order, so that a page never has more entries than accepted commands.
        let tail = self.ports.journal.tail(log).await?;
        let accepted = self.accepted(log).await?;
        let mut entries: Vec<Entry> = Vec::new();
        let mut next = from.max(Seq(1));
        let mut bytes = 0;
        while next <= tail && entries.len() < limit && bytes < bytes_max {
            let page = self.ports.journal.read(log, next, COMMITS_PER_READ.get()).await?;
            if page.commits.is_empty() {
                break;
            }
            for item in &page.commits {
                if entries.len() == limit || bytes >= bytes_max {
                    break;
                }
                let (commit, payload_bytes) = decode(item.first, &item.body)?;
                bytes += payload_bytes;
                let asked = commit.into_iter().filter(|e| (next..=tail).contains(&e.seq));
                entries.extend(asked.take(limit - entries.len()));
                next = entries.last().map_or(next, |last| last.seq.next());
            }
        }
        Ok(LogPage { accepted, tail, entries, next: (next <= tail).then_some(next) })
    }

    /// Time and pauses, as the reading side has them.
    pub fn env(&self) -> &dyn Env {
        &*self.ports.env
    }

    /// Brings the events of an entry to the current versions of their types. An event that the
    /// service cannot bring there stays as it is stored.
    pub fn bring_up_to_date(&self, log: &LogId, entry: &mut Entry) {
        let Some(service) = self.services.get(log.service()) else { return };
        let Outcome::Accepted(events) = &mut entry.outcome else { return };
        for event in events {
            if let Err(fault) = service.bring_up_to_date(event) {
                let (seq, kind) = (entry.seq, &event.kind);
                tracing::warn!(%log, %seq, %kind, %fault, "an event cannot be brought to its current version: readers get it as it is stored");
            }
        }
    }

    /// The entry at `seq`, if the journal has it.
    async fn stored(&self, log: &LogId, seq: Seq) -> Result<Option<Entry>, LogError> {
        let page = self.ports.journal.read(log, seq, 1).await?;
        let Some(item) = page.commits.first() else { return Ok(None) };
        let (entries, _) = decode(item.first, &item.body)?;
        Ok(entries.into_iter().find(|entry| entry.seq == seq))
    }

    async fn state_item(&self, log: &LogId, key: StateKey) -> Result<Option<StateItem>, LogError> {
        Ok(self.ports.state.get(log, &[key]).await?.pop().flatten())
    }

    /// The seq of the last accepted command; zero before the first.
    async fn accepted(&self, log: &LogId) -> Result<Seq, LogError> {
        if self.services.get(log.service()).is_none() {
            return Err(LogError::UnknownService(log.service().to_owned()));
        }
        Ok(self.ports.commands.slot(log).await?.map_or(Seq::ZERO, |slot| slot.seq))
    }

    async fn view(&self, view: &str, log: &LogId) -> Result<Arc<ServedView>, ViewError> {
        let served = self.views.get(view).await.map_err(LogError::from)?;
        let served = served.ok_or_else(|| ViewError::UnknownView(view.to_owned()))?;
        if served.services.iter().all(|service| service != log.service()) {
            let (view, service) = (served.name.clone(), log.service().to_owned());
            return Err(ViewError::NotItsService { view, service });
        }
        Ok(served)
    }

    /// The view's cursor, once it is at `seq`. It is read before any row.
    async fn reached(
        &self,
        served: &ServedView,
        log: &LogId,
        seq: Option<Seq>,
        wait_ms: u64,
    ) -> Result<Awaited<Cursor>, ViewError> {
        if seq.is_some() && self.is_filtered(served) {
            return Err(ViewError::Filtered(served.name.clone()));
        }
        let wanted = seq.unwrap_or(Seq::ZERO);
        let until = self.ports.env.now().plus_ms(wait_ms);
        let mut checked = false;
        loop {
            let cursor =
                served.table.cursor(log).await.map_err(LogError::from)?.unwrap_or_default();
            if !checked && (cursor.seq == Seq::ZERO || cursor.seq < wanted) {
                let accepted = self.accepted(log).await?;
                if wanted > accepted {
                    let (log, seq) = (log.clone(), wanted);
                    return Err(UnknownSeq { log, seq, accepted }.into());
                }
                checked = true;
            }
            if cursor.seq >= wanted {
                return Ok(Awaited::Ready(cursor));
            }
            match self.left(until) {
                ms if ms > 0 && cursor.parked.is_none() => {
                    self.ports.waits.view(&served.name, &*served.table, log, wanted, ms).await;
                }
                _ => return Ok(Awaited::Pending { seq: cursor.seq, parked: cursor.parked }),
            }
        }
    }

    fn left(&self, until: Time) -> u64 {
        until.since_ms(self.ports.env.now())
    }
}

fn decode(first: Seq, body: &[u8]) -> Result<(Vec<Entry>, usize), LogError> {
    commit::decode(first, body).map_err(|error| LogError::Undecodable { first, error })
}
