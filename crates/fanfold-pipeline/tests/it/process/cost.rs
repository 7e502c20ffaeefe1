//! The calls that each batch costs: one slot write per accepted batch, one journal write per log
//! and processor batch, no transactions.
//!
//! `docs/design.md#tables`.

use fanfold::LogId;
use fanfold_pipeline::testing::Op;

use crate::check::play;
use crate::world::{NEVER, World, acme, done, log, run};

const TABLES: [Op; 9] = [
    Op::SlotAppend,
    Op::PutRecords,
    Op::JournalAppend,
    Op::JournalRead,
    Op::JournalTail,
    Op::StateGet,
    Op::StatePut,
    Op::ParkedList,
    Op::Publish,
];

/// The calls of one log's batch on the whole path, cold and then warm.
#[test]
fn a_batch_costs_the_expected_calls_at_every_hop() {
    play(async || {
        let world = World::new();
        let (relay, processor) = (world.relay(), world.processor());
        // A cold load also reads the head, the documents and the journal.
        for expected in
            [[1, 1, 1, 1, 0, 2, 0, 0, 1], [1, 1, 1, 0, 0, 0, 0, 0, 1], [1, 1, 1, 0, 0, 0, 0, 0, 1]]
        {
            let (changes, records) = (world.changes().len(), world.records().len());
            world.faults.forget();
            world.accept(&acme(), 10).await;
            assert_eq!(relay.relay(&world.changes()[changes..], NEVER).await.unfinished, None);
            done(&processor, &world.records()[records..]).await;
            assert_eq!(world.faults.counts(TABLES), expected);
        }
        assert_eq!(world.tail(&acme()).await.0, 30);
    });
}

#[test]
fn a_batch_is_one_journal_write_per_log() {
    play(async || {
        let world = World::new();
        let logs: Vec<LogId> = (0..20).map(|n| log(&format!("tally/org:o{n}"))).collect();
        let processor = world.processor();
        for first in [1, 11, 21] {
            world.faults.forget();
            let records =
                (first..first + 10).flat_map(|seq| logs.iter().map(move |log| (log, seq)));
            let records: Vec<_> =
                records.map(|(log, seq)| world.record(log, seq, &run([seq]))).collect();
            done(&processor, &records).await;
            assert_eq!(world.faults.counts([Op::JournalAppend]), [logs.len()]);
        }
        let reads = [Op::JournalRead, Op::StateGet, Op::ParkedList, Op::JournalTail];
        assert_eq!(world.faults.counts(reads), [0; 4], "the logs are warm");
    });
}

/// A cold load reads the head, the commits after it, and only the documents that the commands at
/// hand need. It does not read the parked table.
#[test]
fn a_cold_load_reads_only_what_it_needs() {
    play(async || {
        let world = World::new();
        done(&world.elsewhere(), &[world.acme(1..=300)]).await;
        let head = world.head(&acme()).await.0;
        assert_eq!(head, 300, "everything is in the state table");
        done(&world.elsewhere(), &[world.acme(301..=301)]).await;
        world.faults.forget();
        // 301 and 302 touch two of the three counters.
        done(&world.processor(), &[world.acme(302..=302)]).await;
        let reads = world.faults.calls(Op::StateGet);
        let expected = ["[v1#head]", "[v1#doc#b]", "[v1#doc#c]"];
        assert_eq!(reads, expected.map(|keys| format!("{} {keys}", acme())));
        assert_eq!(world.faults.calls(Op::JournalRead), ["tally/org:acme from 301"]);
        assert_eq!(world.faults.counts([Op::ParkedList, Op::JournalTail]), [0, 0]);
    });
}

/// A warm log reads each document that it does not have once.
#[test]
fn a_warm_log_reads_a_document_once() {
    play(async || {
        let world = World::new();
        let processor = world.processor();
        for (seqs, reads) in [(1..=1, 2), (2..=2, 1), (3..=3, 1), (4..=6, 0), (7..=9, 0)] {
            world.faults.forget();
            done(&processor, &[world.acme(seqs.clone())]).await;
            assert_eq!(world.faults.counts([Op::StateGet]), [reads], "{seqs:?}");
        }
    });
}
