//! Tests the conformance suite: each of these ports breaks one sentence of its specification, and
//! the suite must find that.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::{TransitConfig, ports::Ports};
use async_trait::async_trait;
use bytes::Bytes;
use fanfold::host::body::lease::Lease;
use fanfold::{LogId, RowKey, Seq, StateKey, Time};
use fanfold_pipeline::conformance;
use fanfold_pipeline::ports::{
    Append, AppendError, CataloguePage, CataloguePosition, Change, Commands, CommitItem, Cursor,
    CursorMove, Env, Guarded, Journal, JournalAppendError, JournalLogs, JournalPage, LeaseWrite,
    OperatorCommands, OperatorJournal, OperatorView, ParkedItem, ParkedTable, ParkedView,
    ParkedViewPage, PutRowError, RowPage, RowRange, Slot, SlotRaise, State, StateItem, StoredRow,
    Token, Unavailable, ViewTable, Waits,
};
use futures::executor::block_on;

use super::paused_env::{PausedEnv, paused_runtime};

macro_rules! bugs {
    ($($port:literal: $($bug:ident)*;)*) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        enum Bug {
            None,
            $($($bug,)*)*
        }

        /// By port.
        const BUGS: &[(&str, &[Bug])] = &[$(($port, &[$(Bug::$bug),*])),*];
    };
}

bugs! {
    "commands": TokensAreNotCompared RefusalShowsNoSlot BatchIsMiscounted CatalogueLeavesOneOut;
    "operated commands": RefusedRaiseIsAcknowledged RefusedRaiseShowsNoSlot RaiseIsLost
        RaiseGoesTooFar RaiseKeepsTheBatch RaiseHasCommands
        RaiseSparesMissingSlots RaiseIsAnAdvance;
    "journal": FromInsideIsMissed NothingIsEverBehind ConflictIsAcknowledged RefusalShowsNoCommit
        TailIsTheLastFirst LimitIsPassed;
    "operated journal": LogsArePassedBy LastLogIsMissed LogsBeginAgain LogsAreTooMany;
    "state": EqualIsStored KeysAreSorted;
    "parked": OneIdentityPerSeq FromIsLeftOut IdentityIsIgnored RemovesAllOfASeq;
    "view table": EveryAdvanceMoves ParksAnywhere MarksNothing AttemptsMoveTheCursor
        AdvancingForgetsAttempts ParkedAttemptsStay AttemptsAreNotGuarded TombstonesAreHidden
        RowsAreNotGuarded AlwaysAscending PrefixIsIgnored AfterIsIgnored ReasonIsIgnored
        ReleaseForgetsAttempts ReleaseStays;
    "operated view": LastParkedIsMissed ParkedBeginsAgain ReleasedStayParked ReplacesAnyReason
        ReplacedKeepsItsSeq ReplacedIsReleased ClearsAnyReason ClearsNothing ClearsTooMuch;
    "waits": WaitsForTheTimer;
}

/// Ports with a bug, and each log's last batch, which the slot holds on AWS.
struct Broken(Ports, Bug, Mutex<BTreeMap<LogId, Change>>);

impl Broken {
    fn has(&self, bug: Bug) -> bool {
        self.1 == bug
    }

    fn table(&self) -> &dyn ViewTable {
        &*self.0.views["v"]
    }
}

#[async_trait]
impl Commands for Broken {
    async fn append(&self, log: &LogId, append: Append) -> Result<Seq, AppendError> {
        let (again, token) = (append.clone(), append.token);
        let appended = self.0.commands.append(log, append).await;
        if let Ok(last) = appended {
            let Append { n, body, at, token } = again.clone();
            let change = Change { log: log.clone(), last, n, at, token, body };
            self.2.lock().unwrap().insert(log.clone(), change);
        }
        match appended {
            Err(AppendError::Refused(_)) if self.has(Bug::TokensAreNotCompared) => {
                let token = Token(token.0 ^ 1);
                self.0.commands.append(log, Append { token, ..again }).await
            }
            Err(AppendError::Refused(slot)) if self.has(Bug::RefusalShowsNoSlot) => {
                Err(AppendError::Refused(Slot { seq: Seq::ZERO, ..slot }))
            }
            result => result,
        }
    }

    async fn slot(&self, log: &LogId) -> Result<Option<Slot>, Unavailable> {
        self.0.commands.slot(log).await
    }

    async fn batch(&self, log: &LogId) -> Result<Option<Change>, Unavailable> {
        let mut batch = self.2.lock().unwrap().get(log).cloned();
        if let Some(batch) = batch.as_mut().filter(|_| self.has(Bug::BatchIsMiscounted)) {
            batch.n += 1;
        }
        Ok(batch)
    }

    async fn catalogue(
        &self,
        after: Option<CataloguePosition>,
        limit: usize,
    ) -> Result<CataloguePage, Unavailable> {
        let mut page = self.0.commands.catalogue(after, limit).await?;
        if self.has(Bug::CatalogueLeavesOneOut) && page.next.is_some() {
            page.logs.pop();
        }
        Ok(page)
    }
}

#[async_trait]
impl OperatorCommands for Broken {
    async fn raise(
        &self,
        log: &LogId,
        mut to: Seq,
        at: Time,
        token: Token,
    ) -> Result<SlotRaise, Unavailable> {
        let slot = self.0.commands.slot(log).await?;
        match self.1 {
            Bug::RaiseIsLost => return Ok(SlotRaise::Raised),
            Bug::RaiseSparesMissingSlots if slot.is_none() => return Ok(SlotRaise::Raised),
            Bug::RaiseGoesTooFar => to = to.next(),
            Bug::RaiseIsAnAdvance => to = Seq(to.0 + slot.map_or(0, |slot| slot.seq.0)),
            Bug::RaiseHasCommands => {
                let n = to.0.saturating_sub(slot.map_or(0, |slot| slot.seq.0));
                let append = Append { n, body: Bytes::new(), at, token };
                let (Ok(_) | Err(_)) = self.0.commands.append(log, append).await;
                return Ok(SlotRaise::Raised);
            }
            _ => {}
        }
        let raise = self.0.commands.raise(log, to, at, token).await?;
        if raise == SlotRaise::Raised && !self.has(Bug::RaiseKeepsTheBatch) {
            self.2.lock().unwrap().remove(log);
        }
        match raise {
            SlotRaise::Refused(_) if self.has(Bug::RefusedRaiseIsAcknowledged) => {
                Ok(SlotRaise::Raised)
            }
            SlotRaise::Refused(slot) if self.has(Bug::RefusedRaiseShowsNoSlot) => {
                Ok(SlotRaise::Refused(Slot { seq: Seq::ZERO, ..slot }))
            }
            raise => Ok(raise),
        }
    }
}

#[async_trait]
impl Journal for Broken {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        match self.0.journal.append(log, commit).await {
            Err(_) if self.has(Bug::ConflictIsAcknowledged) => Ok(()),
            Err(_) if self.has(Bug::RefusalShowsNoCommit) => {
                Err(JournalAppendError::Exists(commit.clone()))
            }
            result => result,
        }
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        let limit = limit + usize::from(self.has(Bug::LimitIsPassed));
        let mut page = self.0.journal.read(log, from, limit).await?;
        if self.has(Bug::FromInsideIsMissed) {
            page.commits.retain(|commit| commit.first >= from);
        }
        if self.has(Bug::NothingIsEverBehind) {
            page.more = false;
        }
        Ok(page)
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        let tail = self.0.journal.tail(log).await?;
        if self.has(Bug::TailIsTheLastFirst) {
            let last = self.0.journal.read(log, tail, 1).await?;
            return Ok(last.commits.first().map_or(Seq::ZERO, |commit| commit.first));
        }
        Ok(tail)
    }
}

#[async_trait]
impl OperatorJournal for Broken {
    async fn logs(&self, after: Option<&LogId>, limit: usize) -> Result<JournalLogs, Unavailable> {
        let limit = limit + usize::from(self.has(Bug::LogsAreTooMany));
        let after = after.filter(|_| !self.has(Bug::LogsBeginAgain));
        let mut page = self.0.journal.logs(after, limit).await?;
        match self.1 {
            Bug::LastLogIsMissed if page.next.is_none() => drop(page.logs.pop()),
            // As if the next page began behind a log that was not listed.
            Bug::LogsArePassedBy => {
                if let Some(last) = &page.next {
                    page.next = self.0.journal.logs(Some(last), 1).await?.next;
                }
            }
            _ => {}
        }
        Ok(page)
    }
}

#[async_trait]
impl State for Broken {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        let mut keys = keys.to_vec();
        if self.has(Bug::KeysAreSorted) {
            keys.sort();
        }
        self.0.state.get(log, &keys).await
    }

    async fn put(
        &self,
        log: &LogId,
        key: &StateKey,
        item: &StateItem,
    ) -> Result<Guarded, Unavailable> {
        match self.0.state.put(log, key, item).await? {
            Guarded::Newer if self.has(Bug::EqualIsStored) => Ok(Guarded::Stored),
            put => Ok(put),
        }
    }
}

#[async_trait]
impl ParkedTable for Broken {
    async fn park(&self, log: &LogId, item: &ParkedItem) -> Result<(), Unavailable> {
        if self.has(Bug::OneIdentityPerSeq) {
            self.remove_all(log, item.seq).await?;
        }
        self.0.parked.park(log, item).await
    }

    async fn list(
        &self,
        log: &LogId,
        from: (Seq, &str),
        limit: usize,
    ) -> Result<Vec<ParkedItem>, Unavailable> {
        let (seq, identity) = from;
        let from = match () {
            () if self.has(Bug::FromIsLeftOut) => (seq.next(), identity),
            () if self.has(Bug::IdentityIsIgnored) => (seq, ""),
            () => from,
        };
        self.0.parked.list(log, from, limit).await
    }

    async fn remove(&self, log: &LogId, seq: Seq, identity: &str) -> Result<(), Unavailable> {
        if self.has(Bug::RemovesAllOfASeq) {
            return self.remove_all(log, seq).await;
        }
        self.0.parked.remove(log, seq, identity).await
    }
}

impl Broken {
    async fn remove_all(&self, log: &LogId, seq: Seq) -> Result<(), Unavailable> {
        for item in self.0.parked.list(log, (seq, ""), 1_000).await? {
            if item.seq == seq {
                self.0.parked.remove(log, seq, &item.identity).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl ViewTable for Broken {
    async fn cursor(&self, log: &LogId) -> Result<Option<Cursor>, Unavailable> {
        self.table().cursor(log).await
    }

    async fn rows(
        &self,
        log: &LogId,
        keys: &[RowKey],
    ) -> Result<Vec<Option<StoredRow>>, Unavailable> {
        let rows = self.table().rows(log, keys).await?.into_iter();
        let shown = |row: &StoredRow| row.body.is_some() || !self.has(Bug::TombstonesAreHidden);
        Ok(rows.map(|row| row.filter(shown)).collect())
    }

    async fn put_row(
        &self,
        log: &LogId,
        key: &RowKey,
        row: &StoredRow,
        mut loaded: Option<Seq>,
    ) -> Result<(), PutRowError> {
        if self.has(Bug::RowsAreNotGuarded) {
            let there = self.table().rows(log, std::slice::from_ref(key)).await?.pop().flatten();
            loaded = there.map(|row| row.seq);
        }
        self.table().put_row(log, key, row, loaded).await
    }

    async fn move_cursor(&self, log: &LogId, to: Seq) -> Result<CursorMove, Unavailable> {
        let noted = self.table().cursor(log).await?.and_then(|cursor| cursor.lease);
        if self.has(Bug::AdvancingForgetsAttempts)
            && let Some(noted) = noted
        {
            let none = Lease { attempts: 0, ..noted };
            self.table().replace_lease(log, Some(&noted), &none).await?;
        }
        match self.table().move_cursor(log, to).await? {
            CursorMove::Refused(_) if self.has(Bug::EveryAdvanceMoves) => Ok(CursorMove::Moved),
            advanced => Ok(advanced),
        }
    }

    async fn mark_behind(&self, log: &LogId, target: Seq) -> Result<(), Unavailable> {
        match self.has(Bug::MarksNothing) {
            true => Ok(()),
            false => self.table().mark_behind(log, target).await,
        }
    }

    async fn park(&self, log: &LogId, at: Seq, parked: &ParkedView) -> Result<(), Unavailable> {
        let there = self.table().cursor(log).await?.unwrap_or_default().seq;
        let at = if self.has(Bug::ParksAnywhere) { there } else { at };
        self.table().park(log, at, parked).await
    }

    async fn release(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Option<Seq>,
    ) -> Result<bool, Unavailable> {
        let cursor = self.table().cursor(log).await?.unwrap_or_default();
        match (self.1, cursor) {
            (Bug::ReasonIsIgnored, Cursor { parked: Some(parked), .. }) => {
                self.table().release(log, &parked, to).await
            }
            (Bug::ReleaseForgetsAttempts, Cursor { lease: Some(noted), .. }) => {
                let none = Lease { attempts: 0, ..noted };
                self.table().replace_lease(log, Some(&noted), &none).await?;
                self.table().release(log, parked, to).await
            }
            (Bug::ReleaseStays, _) => self.table().release(log, parked, None).await,
            (Bug::ReleasedStayParked, Cursor { parked: Some(_), .. }) => Ok(true),
            _ => self.table().release(log, parked, to).await,
        }
    }

    async fn replace_lease(
        &self,
        log: &LogId,
        before: Option<&Lease>,
        lease: &Lease,
    ) -> Result<LeaseWrite, Unavailable> {
        let cursor = self.table().cursor(log).await?.unwrap_or_default();
        match self.1 {
            Bug::AttemptsMoveTheCursor => {
                self.table().move_cursor(log, cursor.seq.next()).await?;
            }
            Bug::ParkedAttemptsStay if cursor.parked.is_some() => return Ok(LeaseWrite::Stored),
            Bug::AttemptsAreNotGuarded => {
                return self.table().replace_lease(log, cursor.lease.as_ref(), lease).await;
            }
            _ => {}
        }
        self.table().replace_lease(log, before, lease).await
    }

    async fn scan(&self, log: &LogId, range: &RowRange) -> Result<RowPage, Unavailable> {
        let mut range = range.clone();
        match self.1 {
            Bug::AlwaysAscending => range.descending = false,
            Bug::PrefixIsIgnored => range.prefix.clear(),
            Bug::AfterIsIgnored => range.after = None,
            _ => {}
        }
        self.table().scan(log, &range).await
    }
}

#[async_trait]
impl OperatorView for Broken {
    async fn parked(
        &self,
        after: Option<&LogId>,
        limit: usize,
    ) -> Result<ParkedViewPage, Unavailable> {
        let after = after.filter(|_| !self.has(Bug::ParkedBeginsAgain));
        let mut page = self.0.views["v"].parked(after, limit).await?;
        if self.has(Bug::LastParkedIsMissed) && page.next.is_none() {
            page.logs.pop();
        }
        Ok(page)
    }

    async fn replace_parked(
        &self,
        log: &LogId,
        parked: &ParkedView,
        to: Seq,
        then: Option<&ParkedView>,
    ) -> Result<bool, Unavailable> {
        let table = &self.0.views["v"];
        let cursor = table.cursor(log).await?.unwrap_or_default();
        match (self.1, cursor) {
            (Bug::ReplacesAnyReason, Cursor { parked: Some(parked), .. }) => {
                table.replace_parked(log, &parked, to, then).await
            }
            (Bug::ReplacedKeepsItsSeq, Cursor { seq, .. }) => {
                table.replace_parked(log, parked, seq, then).await
            }
            (Bug::ReplacedIsReleased, _) => table.replace_parked(log, parked, to, None).await,
            _ => table.replace_parked(log, parked, to, then).await,
        }
    }

    async fn clear(
        &self,
        log: &LogId,
        parked: &ParkedView,
        limit: usize,
    ) -> Result<Option<usize>, Unavailable> {
        let table = &self.0.views["v"];
        let there = table.cursor(log).await?.and_then(|cursor| cursor.parked);
        match (self.1, there) {
            (Bug::ClearsAnyReason, Some(there)) => table.clear(log, &there, limit).await,
            (Bug::ClearsNothing, _) => Ok(Some(0)),
            (Bug::ClearsTooMuch, _) => table.clear(log, parked, limit + 1).await,
            _ => table.clear(log, parked, limit).await,
        }
    }
}

#[async_trait]
impl Waits for Broken {
    async fn entry(&self, log: &LogId, seq: Seq, ms: u64) {
        match self.has(Bug::WaitsForTheTimer) {
            true => PausedEnv::new().sleep(ms).await,
            false => self.0.waits.entry(log, seq, ms).await,
        }
    }

    async fn view(&self, view: &str, table: &dyn ViewTable, log: &LogId, seq: Seq, ms: u64) {
        self.0.waits.view(view, table, log, seq, ms).await;
    }
}

fn broken(bug: Bug) -> Broken {
    Broken(
        Ports::in_memory(&TransitConfig::default(), ["v"], PausedEnv::new()).expect("ports"),
        bug,
        Mutex::default(),
    )
}

/// Whether the suite for this kind of port finds the bug.
fn is_found(port: &str, bug: Bug) -> bool {
    let runtime = paused_runtime();
    let _inside = runtime.enter();
    let broken = broken(bug);
    let found = catch_unwind(AssertUnwindSafe(|| match port {
        "commands" => block_on(async {
            conformance::commands(&broken, "b").await;
            conformance::catalogue(&broken, "b").await;
        }),
        "operated commands" => block_on(conformance::operator_commands(&broken, "b")),
        "journal" => block_on(conformance::journal(&broken, "b")),
        "operated journal" => block_on(conformance::operator_journal(&broken, "b")),
        "state" => block_on(conformance::state(&broken, "b")),
        "parked" => block_on(conformance::parked(&broken, "b")),
        "view table" => block_on(conformance::view_table(&broken, "b")),
        "operated view" => block_on(conformance::operator_view(&broken, "b")),
        "waits" => runtime.block_on(async {
            let env: Arc<dyn Env> = PausedEnv::new();
            let (waits, journal) = (&broken as &dyn Waits, &*broken.0.journal);
            let (view, table, env) = ("v", broken.table(), &*env);
            let ports = conformance::WaitsPorts { waits, journal, view, table, env };
            conformance::waits(&ports, "b").await;
        }),
        other => panic!("there is no suite for {other}"),
    }));
    found.is_err()
}

#[test]
fn the_suite_finds_every_bug() {
    for (port, bugs) in BUGS {
        assert!(!is_found(port, Bug::None), "the {port} without a bug");
        for bug in *bugs {
            assert!(is_found(port, *bug), "the {port} with {bug:?}");
        }
    }
}
