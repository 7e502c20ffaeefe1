//! Groups commits by log, and entries by the row that they touch.

use fanfold::host::body::notification::ReceivedCommit;
use fanfold::view::AnyRecorded;
use fanfold::{LogId, RowKey, Seq, Time, TraceParent};

use crate::ports::StoredRow;

/// The commits that a call has of one log.
pub(super) struct LogCommits {
    pub log: LogId,
    /// In the order of their seqs, each with the index of its message.
    pub commits: Vec<(ReceivedCommit, usize)>,
}

/// The commits of messages, log by log.
pub(super) struct ByLog<'a> {
    /// In order, each with the index of its message.
    commits: Vec<(&'a ReceivedCommit, usize)>,
    /// The index of the first commit that was not returned yet.
    next: usize,
}

impl<'a> ByLog<'a> {
    /// Leaves out the logs of other services.
    pub(super) fn new(messages: &'a [impl AsRef<[ReceivedCommit]>], services: &[&str]) -> Self {
        let numbered = messages.iter().enumerate();
        let commits =
            numbered.flat_map(|(index, commits)| commits.as_ref().iter().map(move |c| (c, index)));
        let mut commits: Vec<_> =
            commits.filter(|(commit, _)| services.contains(&commit.log.service())).collect();
        commits.sort_by(|(a, _), (b, _)| a.log.cmp(&b.log).then(a.last.cmp(&b.last)));
        Self { commits, next: 0 }
    }
}

impl Iterator for ByLog<'_> {
    type Item = LogCommits;

    fn next(&mut self) -> Option<LogCommits> {
        let left = &self.commits[self.next..];
        let log = &left.first()?.0.log;
        let n = left.iter().take_while(|(commit, _)| commit.log == *log).count();
        self.next += n;
        let commits = left[..n].iter().map(|(commit, index)| ((*commit).clone(), *index));
        Some(LogCommits { log: log.clone(), commits: commits.collect() })
    }
}

/// An entry, and the rows it touches.
pub(super) struct Touched {
    pub recorded: AnyRecorded,
    pub rows: Vec<RowKey>,
    /// The entry's time.
    pub time: Time,
    /// The trace of its command, if that is recorded.
    pub trace: Option<TraceParent>,
}

/// The rows that entries touch, each with its entries in order.
pub(super) struct Touching<'a> {
    /// In order.
    pub keys: Vec<RowKey>,
    /// For each key, the end of its entries in `entries`.
    ends: Vec<usize>,
    entries: Vec<&'a AnyRecorded>,
}

impl<'a> Touching<'a> {
    /// Groups the entries up to `end`.
    pub(super) fn group(entries: &'a [Touched], end: Seq) -> Self {
        let entries = entries.iter().take_while(|entry| entry.recorded.seq <= end);
        let mut touches: Vec<(&RowKey, &AnyRecorded)> =
            entries.flat_map(|entry| entry.rows.iter().map(|key| (key, &entry.recorded))).collect();
        // A stable sort keeps the order of each key's entries.
        touches.sort_by_key(|(key, _)| *key);
        let mut touching = Self { keys: Vec::new(), ends: Vec::new(), entries: Vec::new() };
        touching.entries.reserve_exact(touches.len());
        for (key, entry) in touches {
            if touching.keys.last() != Some(key) {
                touching.keys.push(key.clone());
                touching.ends.push(0);
            }
            touching.entries.push(entry);
            if let Some(end) = touching.ends.last_mut() {
                *end = touching.entries.len();
            }
        }
        touching
    }

    /// The entries that touch the row at this index.
    pub(super) fn of(&self, at: usize) -> &[&'a AnyRecorded] {
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.entries[start..self.ends[at]]
    }
}

/// A row to store.
pub(super) struct Folded {
    /// Its index among the touched rows.
    pub at: usize,
    /// The row's seq as it was loaded.
    pub loaded: Option<Seq>,
    pub row: StoredRow,
}
