//! [`Journal`]: conditional appends, ranges and pages.

use std::collections::BTreeSet;

use bytes::Bytes;
use fanfold::host::limits::COMMIT_BYTES_MAX;
use fanfold::{LogId, Seq, Time};
use futures::future::join_all;

use super::{RACERS, log, must};
use crate::ports::{CommitItem, Journal, JournalAppendError, JournalPage, Nonce, OperatorJournal};

fn commit(first: u64, n: u64, nonce: u128) -> CommitItem {
    let body = Bytes::from(format!("{n} entries from {first} on by {nonce}"));
    CommitItem { first: Seq(first), n, at: Time(5_000 + first), nonce: Nonce(nonce), body }
}

async fn append(port: &dyn Journal, log: &LogId, commit: &CommitItem) {
    must("an append to the journal", port.append(log, commit).await);
}

async fn read(port: &dyn Journal, log: &LogId, from: u64, limit: usize) -> JournalPage {
    let page = must("a read of the journal", port.read(log, Seq(from), limit).await);
    assert!(page.commits.len() <= limit, "a page has at most {limit} commits");
    page
}

/// All commits from `from` on, page by page.
async fn walk(port: &dyn Journal, log: &LogId, from: u64, limit: usize) -> Vec<CommitItem> {
    let mut all: Vec<CommitItem> = Vec::new();
    let mut next = from;
    loop {
        let page = read(port, log, next, limit).await;
        let Some(last) = page.commits.last() else {
            assert!(!page.more, "a page of `{log}` from {next} on is empty and says there is more");
            return all;
        };
        assert!(last.last() >= Seq(next), "a page from {next} on ends at {}", last.last());
        next = last.last().0 + 1;
        all.extend(page.commits);
        let behind = !read(port, log, next, 1).await.commits.is_empty();
        assert_eq!(page.more, behind, "`more` says whether `{log}` has something from {next} on");
        if !page.more {
            return all;
        }
    }
}

async fn tail(port: &dyn Journal, log: &LogId) -> Seq {
    must("the tail of a log", port.tail(log).await)
}

/// The whole port.
pub async fn journal(port: &dyn Journal, prefix: &str) {
    reads_cover_every_range(port, prefix).await;
    a_stored_commit_is_never_replaced(port, prefix).await;
    only_first_is_compared(port, prefix).await;
    one_of_many_racers_appends(port, prefix).await;
    large_commits_are_paged(port, prefix).await;
}

async fn reads_cover_every_range(port: &dyn Journal, prefix: &str) {
    let (here, there) = (log(prefix, "ranges"), log(prefix, "ranges-elsewhere"));
    assert_eq!(tail(port, &here).await, Seq::ZERO, "the tail of a log without commits");
    for from in [0, 1, 9] {
        let page = read(port, &here, from, 10).await;
        assert_eq!(page, JournalPage::default(), "a log without commits has no pages");
    }
    // Commits of 1, 4, 1, 10, 2 and 3 entries: seqs of one and two digits sort differently as text.
    let mut commits = Vec::new();
    let mut first = 1;
    for n in [1, 4, 1, 10, 2, 3] {
        commits.push(commit(first, n, u128::from(first)));
        first += n;
    }
    for commit in &commits {
        append(port, &here, commit).await;
        assert_eq!(tail(port, &here).await, commit.last(), "the tail is the seq of the last entry");
    }
    assert_eq!(tail(port, &there).await, Seq::ZERO, "an append must not touch another log");

    let end = first;
    for from in 0..=end + 1 {
        let expected: Vec<&CommitItem> =
            commits.iter().filter(|commit| commit.last() >= Seq(from)).collect();
        for limit in 1..=commits.len() + 1 {
            let page = read(port, &here, from, limit).await;
            let enough = page.commits.len() == expected.len().min(1) || !page.commits.is_empty();
            assert!(enough, "a page holds a commit if there is one: from {from}, limit {limit}");
            let start: Vec<&CommitItem> = page.commits.iter().collect();
            assert!(
                expected.starts_with(&start),
                "commits that hold an entry at or above {from}, ascending, none left out: {start:?}"
            );
            let all = walk(port, &here, from, limit).await;
            assert_eq!(all.iter().collect::<Vec<_>>(), expected, "from {from} by {limit}");
        }
    }
}

async fn a_stored_commit_is_never_replaced(port: &dyn Journal, prefix: &str) {
    let log = log(prefix, "stays");
    let stored = commit(1, 3, 1);
    append(port, &log, &stored).await;
    for other in [commit(1, 3, 2), commit(1, 9, u128::MAX), stored.clone()] {
        match port.append(&log, &other).await {
            Err(JournalAppendError::Exists(shown)) => {
                assert_eq!(shown, stored, "a refusal shows the commit that is there");
            }
            Ok(()) => panic!("a second commit from 1 on must be refused"),
            Err(JournalAppendError::Unavailable(e)) => panic!("a second commit from 1 on: {e}"),
        }
        let there = read(port, &log, 1, 10).await.commits;
        assert_eq!(there, std::slice::from_ref(&stored), "a refused append changes nothing");
    }
    assert_eq!(tail(port, &log).await, Seq(3), "a refused append changes nothing");
}

async fn only_first_is_compared(port: &dyn Journal, prefix: &str) {
    let log = log(prefix, "gaps");
    for (first, n, why) in [
        (5, 2, "a commit above a gap"),
        (20, 1, "a commit above another gap"),
        (1, 4, "a commit below others"),
        (6, 1, "a commit from inside another"),
    ] {
        must(why, port.append(&log, &commit(first, n, 1)).await);
    }
    let page = read(port, &log, 8, 10).await;
    assert_eq!(page.commits, [commit(20, 1, 1)], "reading from a gap finds what is behind it");
    let firsts: Vec<u64> =
        read(port, &log, 1, 10).await.commits.iter().map(|commit| commit.first.0).collect();
    assert_eq!(firsts, [1, 5, 6, 20], "commits come by their `first`");
}

async fn one_of_many_racers_appends(port: &dyn Journal, prefix: &str) {
    let log = log(prefix, "races");
    for round in 0..5 {
        let first = 1 + round * 2;
        let racer = |i: u64| commit(first, 2, u128::from(round * RACERS + i));
        let commits: Vec<CommitItem> = (0..RACERS).map(racer).collect();
        let results = join_all(commits.iter().map(|commit| port.append(&log, commit))).await;
        let there = read(port, &log, first, 1).await.commits;
        let [there] = there.as_slice() else { panic!("no commit from {first} on after a race") };
        let mut winners = 0;
        for (commit, result) in commits.iter().zip(results) {
            match result {
                Ok(()) => {
                    winners += 1;
                    assert_eq!(commit, there, "the commit that was acknowledged is the one stored");
                }
                Err(JournalAppendError::Exists(shown)) => {
                    assert_eq!(shown, *there, "a refusal shows the commit that is there");
                }
                Err(JournalAppendError::Unavailable(e)) => panic!("a racing append: {e}"),
            }
        }
        assert_eq!(winners, 1, "of {RACERS} commits from {first} on exactly one is stored");
    }
}

async fn large_commits_are_paged(port: &dyn Journal, prefix: &str) {
    let log = log(prefix, "large");
    let large = |first: u64| CommitItem {
        body: (0..COMMIT_BYTES_MAX.get()).map(|at| (at as u64 ^ first) as u8).collect(),
        ..commit(first, 1, 1)
    };
    for first in 1..=5 {
        append(port, &log, &large(first)).await;
    }
    let all = walk(port, &log, 1, 10).await;
    assert_eq!(all.len(), 5, "a walk finds every large commit");
    for (first, found) in (1..).zip(&all) {
        assert!(*found == large(first), "the large commit {first} comes back as it was stored");
    }
}

/// A walk over all logs lists each once, however many commits it has.
pub async fn operator_journal(port: &dyn OperatorJournal, prefix: &str) {
    // Logs of which one begins with another, and names with a blank and the sign behind it.
    let names = ["walked", "walked b", "walked!", "walked-b", "walkedb", "ümlaut"];
    let mut logs: BTreeSet<LogId> = BTreeSet::new();
    for (name, commits) in names.into_iter().zip([1, 7, 2, 1, 3, 1]) {
        let log = log(prefix, name);
        for first in 1..=commits {
            append(port, &log, &commit(first, 1, first.into())).await;
        }
        logs.insert(log);
    }
    for limit in [1, 2, 3, 1_000] {
        let mut listed = Vec::new();
        let mut after: Option<LogId> = None;
        loop {
            let page = must("a page of logs", port.logs(after.as_ref(), limit).await);
            assert!(page.logs.len() <= limit, "a page has at most {limit} logs");
            listed.extend(page.logs);
            if page.next.is_none() {
                break;
            }
            assert_ne!(page.next, after, "a walk over the journal must advance");
            assert!(listed.len() < 100_000, "the pages do not end");
            after = page.next;
        }
        listed.retain(|log| logs.contains(log));
        listed.sort();
        let expected: Vec<LogId> = logs.iter().cloned().collect();
        assert_eq!(listed, expected, "a walk in steps of {limit} lists every log once");
    }
}
