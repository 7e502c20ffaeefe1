use async_trait::async_trait;
use fanfold::host::limits::SEQ_END;
use fanfold::{LogId, Seq};
use fanfold_pipeline::ports::{
    CommitItem, Journal, JournalAppendError, JournalLogs, JournalPage, Nonce, OperatorJournal,
    Unavailable,
};

use super::boundaries::Boundaries;
use super::item::{Item, Malformed, Take, bytes, item, number, random_bits, text};
use super::table::{Expression, Query, Table, WriteError};
use crate::Aws;
use crate::call::RetryPolicy;
use crate::names::attribute::{AT, BODY, N, NONCE, PK, SK};

/// The journal table.
///
/// | call | costs |
/// |---|---|
/// | `append` | a write unit per KB of the commit; one attempt, the processor retries |
/// | `read` | a read unit per 4 KB of the commits returned, and of one more, which shows whether there are more; if no commit begins at `from` and this process does not know `from` as the log's end, one more query for the commit before |
/// | `tail` | one unit if nothing was appended since this process last saw the log's end, else a unit per 4 KB of the last commit |
/// | `logs` | for each log a call, and half a unit per 4 KB of its first commit |
#[derive(Debug)]
pub struct DynamoJournal {
    table: Table,
    boundaries: Boundaries,
}

impl DynamoJournal {
    /// The journal in this table.
    pub fn new(aws: &Aws, table: impl Into<String>) -> Self {
        Self { table: Table::new(aws, table, "journal"), boundaries: Boundaries::default() }
    }

    fn commit(&self, log: &LogId, item: Item) -> Result<CommitItem, Unavailable> {
        let commit = commit(item).map_err(self.table.malformed())?;
        self.boundaries.note(log, commit.last().next());
        Ok(commit)
    }

    /// The commit that begins before `from` and contains it. `known` is a boundary: if it is before
    /// `from`, the commit begins at or after it.
    async fn around(
        &self,
        log: &LogId,
        from: Seq,
        known: Seq,
    ) -> Result<Option<CommitItem>, Unavailable> {
        let lowest = if known < from { known } else { Seq(1) };
        let keys = Expression(
            "#pk = :pk AND #sk BETWEEN :lowest AND :before",
            [
                (":pk", text(log.as_str())),
                (":lowest", number(lowest.0)),
                (":before", number(from.before().0)),
            ],
        );
        let query = Query { descending: true, limit: Some(1), ..Query::new(keys) };
        let found = self.table.query(query).await?.items.pop();
        let commit = found.map(|item| self.commit(log, item)).transpose()?;
        Ok(commit.filter(|commit| commit.last() >= from))
    }
}

#[async_trait]
impl Journal for DynamoJournal {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        let CommitItem { first, n, at, nonce, body } = commit;
        let item = item([
            (PK, text(log.as_str())),
            (SK, number(first.0)),
            (N, number(*n)),
            (AT, number(at.0)),
            (NONCE, random_bits(nonce.0)),
            (BODY, bytes(body)),
        ]);
        let is_new = Expression("attribute_not_exists(#pk)", []);
        match self.table.put(item, Some(is_new), RetryPolicy::NONE).await {
            Ok(_) => {
                self.boundaries.note(log, commit.last().next());
                Ok(())
            }
            Err(WriteError::Conflict(Some(stored))) => {
                Err(JournalAppendError::Exists(self.commit(log, stored)?))
            }
            Err(error) => Err(error.unavailable(&self.table).into()),
        }
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        let (from, limit) = (from.max(Seq(1)), limit.max(1));
        let known = self.boundaries.of(log);
        let keys = Expression(
            "#pk = :pk AND #sk >= :from",
            [(":pk", text(log.as_str())), (":from", number(from.0))],
        );
        // Reads one commit more than asked for, which shows whether there are more. A query's key
        // to continue from does not show that.
        let query = Query { limit: Some(limit.saturating_add(1)), ..Query::new(keys) };
        let page = self.table.query(query).await?;
        let mut commits = Vec::with_capacity(page.items.len() + 1);
        // The chain has no holes (F3): a commit before can contain `from` only if none begins there.
        let begins = |item: &Item| item.get(SK) == Some(&number(from.0));
        let is_boundary = from == Seq(1) || from == known || page.items.first().is_some_and(begins);
        if !is_boundary {
            commits.extend(self.around(log, from, known).await?);
        }
        let mut is_cut = false;
        for item in page.items {
            match self.commit(log, item) {
                Ok(commit) => commits.push(commit),
                // Returns the commits before a damaged one.
                Err(Unavailable::Damaged { .. }) if !commits.is_empty() => {
                    is_cut = true;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let more = is_cut || page.next.is_some() || commits.len() > limit;
        commits.truncate(limit);
        Ok(JournalPage { commits, more })
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        let known = self.boundaries.of(log);
        let keys = Expression(
            "#pk = :pk AND #sk >= :known",
            [(":pk", text(log.as_str())), (":known", number(known.0))],
        );
        let only = Some("#sk, #n");
        let query = Query { only, descending: true, limit: Some(1), ..Query::new(keys) };
        let Some(mut last) = self.table.query(query).await?.items.pop() else {
            return Ok(known.before());
        };
        let first = last.seq(SK).map_err(self.table.malformed())?;
        let boundary = first.plus(last.number(N).map_err(self.table.malformed())?);
        self.boundaries.note(log, boundary);
        Ok(boundary.before())
    }
}

#[async_trait]
impl OperatorJournal for DynamoJournal {
    /// A scan of one item finds a log; the next one begins behind all commits of that log. A scan takes any key to begin
    /// behind, whether there is such an item or not (AWS Database Blog, "Generate a distinct set of partition keys for an
    /// Amazon DynamoDB table efficiently").
    async fn logs(&self, after: Option<&LogId>, limit: usize) -> Result<JournalLogs, Unavailable> {
        let behind = |pk: &str| Some(item([(PK, text(pk)), (SK, number(SEQ_END))]));
        let table = self.table.eventual();
        let mut page = JournalLogs::default();
        let mut start = after.and_then(|after| behind(after.as_str()));
        while page.logs.len() < limit {
            let found = table.scan(Some("#pk"), 1, start).await?;
            let Some(mut found_item) = found.items.into_iter().next() else {
                start = found.next;
                match start {
                    Some(_) => continue,
                    None => return Ok(JournalLogs { next: None, ..page }),
                }
            };
            let pk = found_item.text(PK).map_err(self.table.malformed())?;
            start = behind(&pk);
            match pk.parse::<LogId>() {
                Ok(log) => {
                    page.next = Some(log.clone());
                    page.logs.push(log);
                }
                Err(problem) => tracing::error!(
                    alarm = "foreign_log",
                    pk,
                    %problem,
                    "a walk over the journal skips an item that Fanfold did not write"
                ),
            }
        }
        Ok(page)
    }
}

fn commit(mut item: Item) -> Result<CommitItem, Malformed> {
    Ok(CommitItem {
        first: item.seq(SK)?,
        n: item.number(N)?,
        at: item.time(AT)?,
        nonce: Nonce(item.random_bits(NONCE)?),
        body: item.bytes(BODY)?,
    })
}
