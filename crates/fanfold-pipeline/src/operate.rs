//! What operators do: they list what waits, let it go on, give it up, or send it again.
//!
//! Operators decide, and the stages do the work, so every action is a small change of a table and, for commands, a nudge:
//!
//! | | resume | skip, with a reason |
//! |---|---|---|
//! | a command that waits for its turn, a service or a build | a nudge | its entry becomes `lost` |
//! | a suspect command | it waits for its turn again, and a nudge | its entry becomes `lost` |
//! | a command in conflict: another one has its seq | it is accepted again, with its own id and a new seq | removed |
//! | bytes that no build could read | they are read again | removed; above the tail, the entry at their seq becomes `lost` |
//! | a commit that the topic refused | a nudge: it is published again | – |
//! | a seq whose command never came | – | its entry becomes `lost` |
//! | a view that is parked for a log | it tries its next entry again | it goes on behind that entry |
//!
//! They also [raise](Operate::raise) a slot that is behind its log's tail, and [rebuild](Operate::rebuild) one log of a view.
//!
//! An action that fails half-way leaves the item parked, and can be repeated.

mod error;
mod rebuild;
mod slots;
mod views;

use std::collections::BTreeMap;
use std::sync::Arc;

use fanfold::entry::{Outcome, Raw};
use fanfold::host::body::lease::ProcessorLease;
use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::body::record::Record;
use fanfold::host::body::slot;
use fanfold::host::limits::MESSAGE_BYTES_MAX;
use fanfold::host::position::CommandId;
use fanfold::{Command, Entry, LogId, Origin, Seq, Time, with_causes};

use crate::calls::ViewCalls;
use crate::ingest::{Ingest, Receipt};
use crate::parked_pages::ParkedPages;
use crate::ports::{
    CommandStream, Cursor, Env, OperatorCommands, OperatorJournal, OperatorParked, OperatorView,
    ParkedItem, ParkedPosition, ParkedView, State, StreamRecord, Unavailable,
};

pub use error::OperateError;
pub use views::{OpenOperated, OperatedViews};

/// The most items that one list reads. Source: the port's pages.
pub const LIST_MAX: usize = 1_000;
/// Items per read of one seq. Source: our choice. A seq has one item for each command that was put there, so rarely more
/// than two; what is behind them was read in vain.
const PER_READ: usize = 8;

/// The ports of operators.
#[derive(Clone)]
pub struct OperatePorts {
    /// The slots.
    pub commands: Arc<dyn OperatorCommands>,
    /// The journal.
    pub journal: Arc<dyn OperatorJournal>,
    /// Heads and documents.
    pub state: Arc<dyn State>,
    /// What is parked, of all logs.
    pub parked: Arc<dyn OperatorParked>,
    /// Where nudges go.
    pub stream: Arc<dyn CommandStream>,
    /// The tables of the views.
    pub views: OperatedViews,
    /// When the calls of the views' hosts have ended.
    pub calls: ViewCalls,
    /// Time.
    pub env: Arc<dyn Env>,
}

/// What operators do.
#[derive(Clone)]
pub struct Operate {
    ports: OperatePorts,
    ingest: Ingest,
}

/// Something that waits in the parked table.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingItem {
    /// Its log.
    pub log: LogId,
    /// Its seq; zero for a whole record that cannot be read.
    pub seq: Seq,
    /// Tells apart what waits at one seq.
    pub identity: String,
    /// What it waits for.
    pub reason: Reason,
    /// When its command was accepted; `None` if what is stored cannot be read.
    pub at: Option<Time>,
    /// Details, for people.
    pub detail: String,
    /// The command, if it is one.
    pub command: Option<Command>,
    /// The last seq that ingest has given out in the log, and the log's tail.
    pub accepted: Seq,
    /// See `accepted`.
    pub tail: Seq,
}

/// A log for which a view is parked.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingView {
    /// The log.
    pub log: LogId,
    /// The last seq that the view has applied.
    pub cursor: Seq,
    /// Why it is parked, since when, and at which entry.
    pub parked: ParkedView,
    /// The log's tail.
    pub tail: Seq,
    /// The entry that it cannot apply, if it can be read.
    pub entry: Option<Entry>,
}

/// A page of what waits.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, P> {
    /// What waits.
    pub items: Vec<T>,
    /// Where the next page begins; `None` at the end.
    pub next: Option<P>,
}

/// What an action came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// A stage does the rest: the processor, or the view's sweep.
    Begun,
    /// The command has a new position.
    Accepted(Receipt),
    /// It waits no longer.
    Removed,
    /// The log's slot was raised to the journal's tail.
    Raised {
        /// The log.
        log: LogId,
        /// The tail.
        to: Seq,
    },
    /// There is nothing to do: the slot is at the journal's tail or beyond.
    Fits,
    /// A view's log is being rebuilt. Ask again.
    Rebuilding {
        /// When the view was parked for this, which tells one rebuild from another; `None` if it could not be parked yet.
        begun: Option<Time>,
        /// How long to wait before asking again, in milliseconds.
        wait_ms: u64,
        /// How many rows were removed now.
        rows: u64,
    },
    /// A view's log is without rows, with the cursor at zero: the view's sweep does the rest.
    Rebuilt {
        /// How many rows were removed now.
        rows: u64,
    },
}

impl Operate {
    /// What operators do through these ports. `ingest` accepts commands again.
    pub fn new(ports: OperatePorts, ingest: Ingest) -> Self {
        Self { ports, ingest }
    }

    /// A page of what waits in the parked table, of all logs, or of those of one service. A page may have fewer items
    /// than `limit` although others follow, and none.
    pub async fn waiting(
        &self,
        service: Option<&str>,
        after: Option<&ParkedPosition>,
        limit: usize,
    ) -> Result<Page<WaitingItem, ParkedPosition>, OperateError> {
        if let Some(unknown) = after.filter(|after| !self.ports.parked.is_position(after)) {
            return Err(OperateError::NoPosition(unknown.0.clone()));
        }
        let page = self.ports.parked.scan(after, limit.clamp(1, LIST_MAX)).await?;
        let (mut items, mut ends) = (Vec::new(), BTreeMap::new());
        for (log, item) in page.items {
            if service.is_some_and(|service| log.service() != service) || is_lease(&log, &item) {
                continue;
            }
            let (accepted, tail) = match ends.get(&log) {
                Some(ends) => *ends,
                None => *ends.entry(log.clone()).or_insert(self.ends(&log).await?),
            };
            items.push(waiting_item(log, item, accepted, tail));
        }
        Ok(Page { items, next: page.next })
    }

    /// A page of the logs for which a view is parked.
    pub async fn waiting_of_view(
        &self,
        view: &str,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<Page<WaitingView, LogId>, OperateError> {
        let page = self.view(view).await?.parked(after, limit.clamp(1, LIST_MAX)).await?;
        let mut items = Vec::new();
        for (log, Cursor { seq: cursor, parked, .. }) in page.logs {
            let Some(parked) = parked else { continue };
            let tail = self.ports.journal.tail(&log).await?;
            let entry = self.entry(&log, parked.seq).await?;
            items.push(WaitingView { log, cursor, parked, tail, entry });
        }
        Ok(Page { items, next: page.next })
    }

    /// Lets what waits at a seq go on. `identity` is needed if several items wait there.
    pub async fn resume(
        &self,
        log: &LogId,
        seq: Seq,
        identity: Option<&str>,
    ) -> Result<Done, OperateError> {
        let item = self.item(log, seq, identity).await?;
        let parked = Parked::decode(&item.body).map_err(|error| {
            let detail = with_causes(&error);
            OperateError::Unreadable { log: log.clone(), seq, detail }
        })?;
        note("resume", log, seq, &item.identity, "");
        let Parked { reason, at, detail, content } = parked;
        match (reason, content) {
            (Reason::Conflict, Content::Command(command)) => {
                let receipt = self.accept(log, command).await?;
                self.ports.parked.remove(log, seq, &item.identity).await?;
                Ok(Done::Accepted(receipt))
            }
            (Reason::Suspect, content) => {
                let detail = format!("an operator has let it go on; before: {detail}");
                let released = Parked { reason: Reason::Gap, at, detail, content };
                self.park(log, seq, &released).await?;
                self.nudge(log).await
            }
            (_, Content::Bytes(bytes)) => self.read_again(log, &item, at, &bytes).await,
            (_, Content::Command(_) | Content::Commit { .. }) => self.nudge(log).await,
        }
    }

    /// Gives up what waits at a seq, or the command of a seq that never came. `identity` is needed if several items wait
    /// there.
    pub async fn skip(
        &self,
        log: &LogId,
        seq: Seq,
        identity: Option<&str>,
        reason: &str,
    ) -> Result<Done, OperateError> {
        check_reason(reason)?;
        let (accepted, tail) = self.ends(log).await?;
        let now = self.ports.env.now();
        let item = match self.item(log, seq, identity).await {
            Ok(item) => item,
            Err(OperateError::NothingWaits { .. }) if tail < seq && seq <= accepted => {
                note("skip", log, seq, "", reason);
                self.park(log, seq, &Parked::given_up(None, now, reason)).await?;
                return self.nudge(log).await;
            }
            Err(error) => return Err(error),
        };
        note("skip", log, seq, &item.identity, reason);
        let (at, content) = match Parked::decode(&item.body) {
            Ok(Parked { at, content, .. }) => (at, content),
            // As bytes that no build can read.
            Err(_) => (now, Content::Bytes(item.body.to_vec())),
        };
        match content {
            Content::Commit { .. } => Err(OperateError::Unfit(format!(
                "seq {seq} of {log} has its entry, which the topic refuses: views find it in the journal. Let it go on instead"
            ))),
            // At seq zero is a whole record, whose seqs are unknown.
            Content::Command(_) | Content::Bytes(_) if seq <= tail => {
                self.ports.parked.remove(log, seq, &item.identity).await?;
                Ok(Done::Removed)
            }
            // Takes the place of the command, which has the same identity.
            Content::Command(command) => {
                self.park(log, seq, &Parked::given_up(Some(command), at, reason)).await?;
                self.nudge(log).await
            }
            Content::Bytes(_) => {
                self.park(log, seq, &Parked::given_up(None, at, reason)).await?;
                self.ports.parked.remove(log, seq, &item.identity).await?;
                self.nudge(log).await
            }
        }
    }

    /// Sends the command of a faulted entry again, with a new seq and the origin `resend`. Its id is the entry's seq, so
    /// it counts once however often it is sent again.
    pub async fn resend(&self, log: &LogId, seq: Seq) -> Result<Receipt, OperateError> {
        let nothing = || OperateError::NothingWaits {
            log: log.clone(),
            seq,
            hint: Some("it has no entry".to_owned()),
        };
        let entry = self.entry(log, seq).await?.ok_or_else(nothing)?;
        let Outcome::Faulted { data, timestamp, .. } = entry.outcome else {
            let status = entry.outcome.status();
            return Err(OperateError::NotFaulted { log: log.clone(), seq, status });
        };
        let (Some(name), Some(id)) = (entry.command, CommandId::new(seq.0)) else {
            return Err(nothing());
        };
        note("resend", log, seq, "", "");
        let (origin, Raw(data), trace) = (Origin::resend(), data, entry.trace);
        self.accept(log, Command { origin, id, name, timestamp, data, trace }).await
    }

    /// Lets a view go on that is parked for a log: it tries its next entry again.
    pub async fn resume_view(&self, view: &str, log: &LogId) -> Result<Done, OperateError> {
        self.release(view, log, None).await
    }

    /// Lets a view go on behind the entry that it cannot apply. Its rows never show that entry.
    pub async fn skip_view(
        &self,
        view: &str,
        log: &LogId,
        reason: &str,
    ) -> Result<Done, OperateError> {
        check_reason(reason)?;
        self.release(view, log, Some(reason)).await
    }

    async fn release(
        &self,
        view: &str,
        log: &LogId,
        skips: Option<&str>,
    ) -> Result<Done, OperateError> {
        let table = self.view(view).await?;
        let not_parked = || OperateError::NotParked { view: view.to_owned(), log: log.clone() };
        let cursor = table.cursor(log).await?.unwrap_or_default();
        let parked = cursor.parked.ok_or_else(not_parked)?;
        if parked.rebuild.is_some() {
            let (view, log) = (view.to_owned(), log.clone());
            return Err(OperateError::IsRebuilt { view, log });
        }
        if skips.is_some() && cursor.seq.next() != parked.seq {
            let (view, log) = (view.to_owned(), log.clone());
            let (cursor, seq) = (cursor.seq, parked.seq);
            return Err(OperateError::NotDirectlyBefore { view, log, cursor, seq });
        }
        let what = if skips.is_some() { "skip" } else { "resume" };
        note(what, log, parked.seq, view, skips.unwrap_or_default());
        let to = skips.map(|_| parked.seq);
        match table.release(log, &parked, to).await? {
            true => Ok(Done::Begun),
            false => Err(not_parked()),
        }
    }

    async fn view(&self, view: &str) -> Result<Arc<dyn OperatorView>, OperateError> {
        let found = self.ports.views.get(view).await?;
        let found = found.map(|(_, table)| table);
        found.ok_or_else(|| OperateError::UnknownView(view.to_owned()))
    }

    /// The last seq that ingest has given out, and the log's tail.
    async fn ends(&self, log: &LogId) -> Result<(Seq, Seq), Unavailable> {
        let slot = self.ports.commands.slot(log).await?;
        let tail = self.ports.journal.tail(log).await?;
        Ok((slot.map_or(Seq::ZERO, |slot| slot.seq).max(tail), tail))
    }

    /// The entry at a seq; `None` if there is none, or it cannot be read.
    async fn entry(&self, log: &LogId, seq: Seq) -> Result<Option<Entry>, Unavailable> {
        let page = match self.ports.journal.read(log, seq, 1).await {
            Ok(page) => page,
            Err(Unavailable::Damaged { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let entries = page.commits.first().and_then(|commit| commit.entries().ok());
        Ok(entries.and_then(|(entries, _)| entries.into_iter().find(|entry| entry.seq == seq)))
    }

    /// What waits at a seq.
    async fn item(
        &self,
        log: &LogId,
        seq: Seq,
        identity: Option<&str>,
    ) -> Result<ParkedItem, OperateError> {
        let mut pages = ParkedPages::new(&*self.ports.parked, log, seq, PER_READ);
        let mut items = Vec::new();
        while let Some(page) = pages.next().await? {
            let is_end = page.last().is_none_or(|last| last.seq > seq);
            items.extend(page.into_iter().filter(|item| {
                let is_meant = identity.is_none_or(|identity| item.identity == identity);
                item.seq == seq && is_meant && !is_lease(log, item)
            }));
            if is_end {
                break;
            }
        }
        if items.len() > 1 {
            let identities = items.into_iter().map(|item| item.identity).collect();
            return Err(OperateError::Ambiguous { log: log.clone(), seq, identities });
        }
        if let Some(item) = items.pop() {
            return Ok(item);
        }
        let (accepted, tail) = self.ends(log).await?;
        let hint = if seq == Seq::ZERO || seq > accepted {
            Some(format!("the log has accepted commands up to {accepted}"))
        } else {
            (seq <= tail).then(|| "it has its entry".to_owned())
        };
        Err(OperateError::NothingWaits { log: log.clone(), seq, hint })
    }

    /// Reads the bytes of a slot's batch, or of a whole record, which an earlier build could not read, and parks their
    /// commands in their place.
    async fn read_again(
        &self,
        log: &LogId,
        item: &ParkedItem,
        at: Time,
        bytes: &[u8],
    ) -> Result<Done, OperateError> {
        let unreadable =
            |detail: String| OperateError::Unreadable { log: log.clone(), seq: item.seq, detail };
        let mut found: Vec<(Seq, Time, Command)> = Vec::new();
        if item.seq == Seq::ZERO {
            let record = Record::decode(bytes).map_err(|error| unreadable(with_causes(&error)))?;
            if record.log != *log {
                return Err(unreadable(format!("it is a record of {}", record.log)));
            }
            for part in record.parts {
                let commands =
                    slot::decode(part.body).map_err(|error| unreadable(with_causes(&error)))?;
                let seqs = (part.first().0..).map(Seq);
                found.extend(seqs.zip(commands).map(|(seq, command)| (seq, part.at, command)));
            }
        } else {
            let commands = slot::decode(bytes).map_err(|error| unreadable(with_causes(&error)))?;
            let seqs = (item.seq.0..).map(Seq);
            found.extend(seqs.zip(commands).map(|(seq, command)| (seq, at, command)));
        }
        for (seq, at, command) in found {
            let detail = "an operator had its bytes read again".to_owned();
            let content = Content::Command(command);
            self.park(log, seq, &Parked { reason: Reason::Gap, at, detail, content }).await?;
        }
        self.ports.parked.remove(log, item.seq, &item.identity).await?;
        self.nudge(log).await
    }

    async fn accept(&self, log: &LogId, command: Command) -> Result<Receipt, OperateError> {
        self.ingest.accept(log, command).await.map_err(OperateError::NotAccepted)
    }

    async fn park(&self, log: &LogId, seq: Seq, parked: &Parked) -> Result<(), OperateError> {
        let item = ParkedItem::of(seq, parked).map_err(|error| OperateError::Unreadable {
            log: log.clone(),
            seq,
            detail: error.to_string(),
        })?;
        Ok(self.ports.parked.park(log, &item).await?)
    }

    async fn nudge(&self, log: &LogId) -> Result<Done, OperateError> {
        let put = self.ports.stream.put_records(&[StreamRecord::nudge(log.clone())]).await?;
        put.into_iter().collect::<Result<(), Unavailable>>()?;
        Ok(Done::Begun)
    }
}

fn check_reason(reason: &str) -> Result<(), OperateError> {
    match reason.trim().is_empty() || reason.len() > MESSAGE_BYTES_MAX {
        true => Err(OperateError::NoReason),
        false => Ok(()),
    }
}

/// Whether it is a lease, or the count of suspects' faults, and nothing that waits.
fn is_lease(log: &LogId, item: &ParkedItem) -> bool {
    item.identity == ProcessorLease::IDENTITY || log.partition() == "user:reactor:suspect"
}

fn waiting_item(log: LogId, item: ParkedItem, accepted: Seq, tail: Seq) -> WaitingItem {
    let ParkedItem { seq, identity, body } = item;
    match Parked::decode(&body) {
        Ok(Parked { reason, at, detail, content }) => {
            let command = match content {
                Content::Command(command) if !command.origin.is_nobody() => Some(command),
                Content::Command(_) | Content::Commit { .. } | Content::Bytes(_) => None,
            };
            let at = Some(at);
            WaitingItem { log, seq, identity, reason, at, detail, command, accepted, tail }
        }
        Err(error) => {
            let (reason, at, command) = (Reason::Undecodable, None, None);
            let detail = with_causes(&error);
            WaitingItem { log, seq, identity, reason, at, detail, command, accepted, tail }
        }
    }
}

/// Each action is a line of the log, with everything that it takes to tell what was done.
fn note(action: &str, log: &LogId, seq: Seq, identity: &str, reason: &str) {
    tracing::info!(action, %log, %seq, identity, reason, "an operator acts");
}
