//! Waits never miss a write, under any interleaving of threads.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crate::SystemEnv;
use crate::interleave::interleave;
use crate::{TransitConfig, ports::Ports};
use bytes::Bytes;
use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::ports::{CommitItem, Journal, Nonce, ParkedView, ViewTable, Waits};
use futures::FutureExt;
use tokio::time::timeout;

/// Far longer than these tests take: a wait of this length has missed a write.
const LONG_MS: u64 = 30_000;

async fn append(memory: &Ports, log: &LogId, seq: u64) {
    let body = Bytes::from_static(b"[]");
    let commit = CommitItem { first: Seq(seq), n: 1, at: Time(0), nonce: Nonce(0), body };
    memory.journal.append(log, &commit).await.expect("a new commit");
}

fn memory() -> Ports {
    Ports::in_memory(&TransitConfig::default(), ["balances"], Arc::new(SystemEnv)).expect("ports")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_append_is_missed() {
    const LOGS: u64 = 8;
    const SEQS: u64 = 2_000;
    let memory = memory();
    let log = |i: u64| -> LogId { format!("ledger/org:{i}").parse().expect("a log") };
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..LOGS {
        let (writer, log_id) = (memory.clone(), log(i));
        tasks.spawn(async move {
            for seq in 1..=SEQS {
                append(&writer, &log_id, seq).await;
                writer.views["balances"].move_cursor(&log_id, Seq(seq)).await.expect("memory");
                if seq % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
        });
        for _ in 0..2 {
            let (waiter, log_id) = (memory.clone(), log(i));
            tasks.spawn(async move {
                for seq in 1..=SEQS {
                    waiter.waits.entry(&log_id, Seq(seq), LONG_MS).await;
                    waiter
                        .waits
                        .view("balances", &*waiter.views["balances"], &log_id, Seq(seq), LONG_MS)
                        .await;
                    let tail = waiter.journal.tail(&log_id).await.expect("memory");
                    assert!(tail >= Seq(seq), "the wait for {seq} ended at {tail}");
                }
            });
        }
    }
    let all = async {
        while let Some(done) = tasks.join_next().await {
            done.expect("a task")
        }
    };
    timeout(Duration::from_millis(LONG_MS), all).await.expect("an append was missed");
    let held = memory.journal.waiters().logs() + memory.views["balances"].waiters().logs();
    assert_eq!(held, 0, "no memory is held without waiters");
}

/// A commit, or a move of the cursor, between any two steps of a wait ends the wait.
#[tokio::test(start_paused = true)]
async fn a_write_between_two_steps_of_a_wait_ends_it() {
    let log: LogId = "ledger/org:acme".parse().expect("a log");
    // A read of the cursor has a point of its own.
    for (is_view, nth) in [(false, 0_u32), (false, 1), (true, 0), (true, 1), (true, 2)] {
        let memory = memory();
        let (beside, written, left) = (memory.clone(), log.clone(), Cell::new(nth));
        let write = move |_| {
            if left.replace(left.get().wrapping_sub(1)) == 0 {
                append(&beside, &written, 1).now_or_never().expect("memory");
                let moved = beside.views["balances"].move_cursor(&written, Seq(1));
                moved.now_or_never().expect("memory").expect("memory");
            }
        };
        let interleaved = interleave(write);
        let wait = match is_view {
            false => memory.waits.entry(&log, Seq(1), LONG_MS),
            true => {
                memory.waits.view("balances", &*memory.views["balances"], &log, Seq(1), LONG_MS)
            }
        };
        timeout(Duration::from_millis(10), wait).await.expect("the wait ends at once");
        drop(interleaved);
    }
}

#[tokio::test(start_paused = true)]
async fn ended_and_dropped_waits_hold_no_memory() {
    let memory = memory();
    let log: LogId = "ledger/org:acme".parse().expect("a log");
    memory.waits.entry(&log, Seq(1), 50).await;
    assert_eq!(memory.journal.waiters().logs(), 0, "over");
    let waiting = memory.waits.entry(&log, Seq(1), 50);
    timeout(Duration::from_millis(10), waiting).await.expect_err("dropped before its time");
    assert_eq!(memory.journal.waiters().logs(), 0, "dropped");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_view_ends_when_the_view_is_parked() {
    let memory = memory();
    let log: LogId = "ledger/org:acme".parse().expect("a log");
    let parked = ParkedView {
        seq: Seq(1),
        reason: "test".to_owned(),
        at: Time(0),
        build: None,
        rebuild: None,
    };
    let park = async {
        tokio::time::sleep(Duration::from_millis(5)).await;
        memory.views["balances"].park(&log, Seq::ZERO, &parked).await.expect("memory");
    };
    let wait = memory.waits.view("balances", &*memory.views["balances"], &log, Seq(1), LONG_MS);
    let both = async { futures::join!(wait, park) };
    timeout(Duration::from_millis(10), both).await.expect("the waits end at once");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_an_unknown_view_ends_at_once() {
    let memory = memory();
    let log: LogId = "ledger/org:acme".parse().expect("a log");
    let wait = memory.waits.view("nothing", &*memory.views["balances"], &log, Seq(1), LONG_MS);
    timeout(Duration::from_millis(10), wait).await.expect("at once");
}
