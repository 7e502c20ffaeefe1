//! Reads of callers that follow a log or a view, and the list of logs.

use fanfold::{LogId, RowKey, Seq};
use fanfold_pipeline::ports::{CataloguePosition, Env, RowRange};
use fanfold_pipeline::read::{AskedRows, LogError, Reads, SeenView, ViewError};
use fanfold_pipeline::testing::{Op, yield_once};
use futures::future::join;
use serde_json::json;

use crate::check::play;
use crate::world::{World, acme, add, applied, command, log, run};

const EVERYTHING: AskedRows = AskedRows::Range(RowRange {
    prefix: String::new(),
    after: None,
    descending: false,
    limit: 100,
});

/// Each sleep lets other work run first, so that a wait can end before its time is over.
fn sleeps_let_others_run(world: &World) {
    world.faults.before_every(Op::Sleep, || async {
        for _ in 0..1_000 {
            yield_once().await;
        }
    });
}

/// The log has no command when the wait begins.
#[test]
fn a_page_is_waited_for_until_its_first_entry_is_there() {
    play(async || {
        let world = World::new();
        sleeps_let_others_run(&world);
        let (reads, acme) = (world.reads(), acme());
        let coming = async {
            yield_once().await;
            world.accept(&acme, 2).await;
            world.commit(&acme, &run(1..=2)).await;
        };
        let start = world.env.now();
        let (page, ()) = join(reads.entries_awaited(&acme, Seq(1), 1, 60_000), coming).await;
        let page = page.expect("memory");
        assert_eq!((page.entries.len(), page.tail, page.next), (1, Seq(2), Some(Seq(2))));
        assert!(world.env.now().since_ms(start) < 60_000);

        world.faults.forget();
        let start = world.env.now();
        let page = reads.entries_awaited(&acme, Seq(2), 9, 60_000).await.expect("memory");
        assert_eq!((page.entries.len(), page.next), (1, None));
        assert_eq!(world.env.now(), start, "there is an entry, so it does not wait");
        let page = reads.next_entries(&acme, Seq(3), 7_000).await.expect("memory");
        assert_eq!((page.entries.len(), page.tail, page.next), (0, Seq(2), None));
        assert_eq!(world.env.now().since_ms(start), 7_000);
        let fly = log("fly/org:acme");
        let error = reads.next_entries(&fly, Seq(1), 7_000).await.expect_err("no such service");
        assert!(matches!(error, LogError::UnknownService(_)), "{error}");
        assert_eq!(world.env.now().since_ms(start), 7_000, "it does not wait for no service");
    });
}

/// A follower's pages are short, and together they are the log.
#[test]
fn a_follower_gets_the_log_in_short_pages() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1_200).await;
        for first in (1..1_200).step_by(100) {
            world.commit(&acme(), &run(first..first + 100)).await;
        }
        let (reads, mut seqs, mut pages) = (world.reads(), Vec::new(), Vec::new());
        while seqs.len() < 1_200 {
            let page = reads.next_entries(&acme(), Seq(seqs.len() as u64 + 1), 0).await;
            let page = page.expect("memory");
            pages.push(page.entries.len());
            seqs.extend(page.entries.iter().map(|entry| entry.seq.0));
        }
        assert_eq!(seqs, (1..=1_200).collect::<Vec<_>>());
        assert!(pages.iter().all(|entries| *entries <= 500), "{pages:?}");
    });
}

async fn rows(
    reads: &Reads,
    asked: &AskedRows,
    seen: Option<(u64, Option<bool>)>,
    wait_ms: u64,
) -> Option<(u64, bool, Vec<u64>)> {
    let seen = seen.map(|(seq, is_parked)| SeenView { seq: Seq(seq), is_parked });
    let page = reads.rows_unlike(seen, "sums", &acme(), asked, wait_ms).await.expect("memory");
    let page = page?;
    let seqs = page.rows.iter().map(|row| row.seq.0).collect();
    Some((page.seq.0, page.parked.is_some(), seqs))
}

#[test]
fn a_follower_of_a_view_gets_each_answer_that_differs() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 4).await;
        let (reads, projector) = (world.reads(), world.projector("sums"));
        let all = &EVERYTHING;
        let one = &AskedRows::One(RowKey::new("a").expect("a key"));
        assert_eq!(rows(&reads, all, None, 0).await, Some((0, false, vec![])));
        assert_eq!(rows(&reads, one, None, 0).await, Some((0, false, vec![])), "no row yet");
        assert_eq!(rows(&reads, all, Some((0, None)), 3_000).await, None);

        let message = world.commit(&acme(), &[add(1)]).await;
        applied(&projector, [&message]).await;
        for asked in [all, one] {
            assert_eq!(rows(&reads, asked, Some((0, None)), 0).await, Some((1, false, vec![1])));
            assert_eq!(rows(&reads, asked, Some((1, Some(false))), 9).await, None);
            // A client that was further, as after a new version of the view.
            assert_eq!(rows(&reads, asked, Some((5, Some(true))), 9).await, None);
        }

        // The view parks at 2: another answer with the same seq, for those that know the one before.
        let said = command("ann", 2, "say", json!({"counter": "b", "text": "boo"}));
        let message = world.commit(&acme(), &[said]).await;
        applied(&projector, [&message]).await;
        assert_eq!(rows(&reads, all, Some((1, Some(false))), 0).await, Some((1, true, vec![1])));
        assert_eq!(rows(&reads, all, Some((1, None)), 0).await, None);
        world.faults.forget();
        let start = world.env.now();
        assert_eq!(rows(&reads, all, Some((1, Some(true))), 9_000).await, None);
        assert_eq!(world.env.now().since_ms(start), 9_000);
        let looks = world.faults.calls(Op::Cursor).len();
        assert!(looks <= 25, "{looks} reads of the cursor in 9 s");
    });
}

#[test]
fn a_wait_for_another_answer_ends_when_the_view_goes_on() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 1).await;
        sleeps_let_others_run(&world);
        let coming = async {
            yield_once().await;
            let message = world.commit(&acme(), &[add(1)]).await;
            applied(&world.projector("sums"), [&message]).await;
        };
        let (reads, start) = (world.reads(), world.env.now());
        let (page, ()) = join(rows(&reads, &EVERYTHING, Some((0, None)), 60_000), coming).await;
        assert_eq!(page, Some((1, false, vec![1])));
        assert!(world.env.now().since_ms(start) < 60_000);
        let error = reads.rows_unlike(None, "fly", &acme(), &EVERYTHING, 0).await;
        assert!(matches!(error, Err(ViewError::UnknownView(_))), "{error:?}");
    });
}

/// The logs that begin with `prefix`, in pages of `limit`, and the number of pages.
async fn listed(reads: &Reads, prefix: &str, limit: usize) -> (Vec<LogId>, usize) {
    let (mut logs, mut pages, mut after) = (Vec::new(), 0, None);
    loop {
        let page = reads.logs(prefix, after, limit).await.expect("memory");
        assert!(page.logs.len() <= limit, "{} logs of {limit}", page.logs.len());
        (pages, after) = (pages + 1, page.next);
        logs.extend(page.logs);
        if after.is_none() {
            logs.sort();
            return (logs, pages);
        }
    }
}

#[test]
fn each_log_is_listed_once_whatever_the_pages() {
    play(async || {
        let world = World::new();
        let mut all: Vec<LogId> = Vec::new();
        for n in 0..60 {
            all.push(log(&format!("tally/org:{}{n}", if n % 3 == 0 { "a" } else { "b" })));
        }
        all.sort();
        for log in &all {
            world.accept(log, 1).await;
        }
        let canary = br#"{"type":"canary","command":"sing","id":1,"user":"c"}"#;
        world.ingest().ingest(&[canary]).await[0].as_ref().expect("it is accepted");
        let reads = world.reads();
        for limit in [1, 7, 20, 59, 60, 1_000] {
            for prefix in ["", "t", "tally/", "tally/org:a", "tally/org:a12", "tally/org:c", "l"] {
                let expected: Vec<_> =
                    all.iter().filter(|log| log.as_str().starts_with(prefix)).cloned().collect();
                let (listed, pages) = listed(&reads, prefix, limit).await;
                assert_eq!(listed, expected, "{prefix}, {limit} per page");
                assert!(pages <= expected.len() / limit + 2, "{prefix}, {limit}: {pages} pages");
            }
        }
        let error = reads.logs("fly/", None, 9).await.expect_err("no such service");
        assert!(matches!(error, LogError::UnknownService(_)), "{error}");
        let behind = Some(CataloguePosition { bucket: 200, log: None });
        assert_eq!(reads.logs("", behind, 9).await.expect("memory").logs, []);
    });
}

/// A page looks at 5,000 logs at most, so it may be empty and yet not the last.
#[test]
fn a_prefix_of_few_logs_among_many_has_empty_pages() {
    play(async || {
        let world = World::new();
        let request = |org: &str| {
            json!({"type": "tally", "command": "add", "id": 1, "user": "ann", "org": org, "data": {"counter": "a", "by": 1}}).to_string()
        };
        let requests: Vec<String> = (0..6_000).map(|n| request(&format!("n{n}"))).collect();
        for some in requests.chunks(500) {
            let some: Vec<&[u8]> = some.iter().map(String::as_bytes).collect();
            let answers = world.ingest().ingest(&some).await;
            assert!(answers.iter().all(Result::is_ok));
        }
        world.accept(&log("tally/org:rare"), 1).await;
        world.faults.forget();
        let (logs, pages) = listed(&world.reads(), "tally/org:rare", 10).await;
        assert_eq!((logs, pages), (vec![log("tally/org:rare")], 2));
        let reads = world.faults.calls(Op::Catalogue).len();
        assert_eq!(reads, 7, "of 1,000 logs each");
    });
}
