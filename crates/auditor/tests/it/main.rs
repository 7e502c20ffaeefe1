//! The auditor finds nothing where nothing is wrong, and whatever is planted.

use std::path::Path;
use std::time::Duration;

use auditor::http::Target;
use auditor::{Options, Verdict, audit};
use fake_target::{Fake, Manner, Plant};

use crate::script::Script;

mod script;

const SEED: u64 = 11;

fn options() -> Options {
    Options { patience: Duration::from_millis(200), ..Options::default() }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

async fn verdict(target: &Target, receipts: &Path, options: &Options) -> Verdict {
    let mut verdict = audit(target, receipts, options, |_| ()).await.expect("the file is good");
    verdict.seconds = 0.0;
    verdict
}

fn verdict_on(plant: Option<Plant>) -> Verdict {
    verdict_with(plant, &options())
}

fn verdict_with(plant: Option<Plant>, options: &Options) -> Verdict {
    let fake = Fake::start(plant);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let mut script = Script::short(&target, SEED).await;
        if matches!(plant, None | Some(Plant::StaleIsDecided | Plant::NoNext | Plant::Gone)) {
            script.long().await;
        }
        if matches!(plant, None | Some(Plant::NeverIdle | Plant::IdleTooSoon)) {
            script.idle().await;
        }
        script.write(file.path());
        verdict(&target, file.path(), options).await
    })
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    let verdict = verdict_on(None);
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!((verdict.logs, verdict.logs_named), (4, 4));
    assert_eq!(verdict.lookups, 16);
    assert!(verdict.entries > 2_600 && verdict.receipts > 2_500, "{verdict:#?}");
    assert!(verdict.rows > 2_300 && verdict.seen > 300, "{verdict:#?}");
    assert!(verdict.balance > 2_200, "{verdict:#?}");
    for status in ["accepted", "rejected", "duplicate", "stale"] {
        assert!(verdict.outcomes.contains_key(status), "{status}: {verdict:#?}");
    }
    assert_eq!(verdict.outcomes.values().sum::<u64>(), verdict.entries);
}

#[test]
fn what_is_planted_is_found() {
    for (plant, invariant, says) in [
        (Plant::Hole, "F1", "7 is followed by 8"),
        (Plant::EntryTwice, "F1", "7 stands in this place"),
        (Plant::AcceptedAhead, "F1", "are accepted, and entries end at"),
        (Plant::PromisedTwice, "F1", "the place was promised to"),
        (Plant::PromisedAgain, "F1", "the place was promised to"),
        (Plant::RefusedAndTaken, "F3", "was refused, and has an entry"),
        (Plant::MemoCut, "F6", "and has another, of"),
        (Plant::MemoSwapped, "F6", "and has another, of"),
        (Plant::MemoLost, "F6", "and has none"),
        (Plant::AnotherUser, "F3", "held by"),
        (Plant::AnotherUser, "F3", "has sent no"),
        (Plant::AnotherCommand, "F3", "`open` was sent, and became"),
        (Plant::AnotherLog, "F3", "it is of ledger/org:elsewhere"),
        (Plant::EntryChanges, "F3", "a reader saw"),
        (Plant::PagesDisagree, "F3", "in its page it is"),
        (Plant::NoNext, "F3", "the page goes on at None"),
        (Plant::Invented, "F3", "has sent no 1000000"),
        (Plant::AcceptedTwice, "F4", "and should be a duplicate of"),
        (Plant::WrongFirst, "F4", "and should be a duplicate of"),
        (Plant::NewIsDuplicate, "F4", "is `duplicate` of 1, and should be neither"),
        (Plant::NewIsStale, "F4", "is `stale`, and should be neither"),
        (Plant::StaleIsDecided, "F4", "and should be stale"),
        (Plant::ViewStuck, "F5", "balances: the view is at 3, the log at"),
        (Plant::ViewStuckGrows, "F5", "balances: the view is at 3, the log at"),
        (Plant::ViewStuckParked, "F5", "totals: the view is at 3, and parked"),
        (Plant::ViewParked, "F5", "statement: the view is parked"),
        (Plant::ViewTooEarly, "F5", "balances: the view was asked for"),
        (Plant::ViewTooEarly, "F6", "balances: the view went back to"),
        (Plant::RowsGoOnElsewhere, "F6", "rows, and goes on elsewhere"),
        (Plant::RowsDisordered, "F6", "balances: the row `debts` comes after `rent`"),
        (Plant::DisorderedSeen, "F6", "balances: a reader saw rows in no order"),
        (Plant::PageOfAnother, "F3", "the page is of ledger/org:elsewhere"),
        (Plant::AcceptedBehind, "F1", "are accepted and"),
        (Plant::UnknownStatus, "F3", "is `pondered`, and should be"),
        (Plant::Nobodys, "F3", "and nobody's"),
        (Plant::NoEntry, "F3", "it is no entry"),
        (Plant::EndsEarly, "F1", "are not there"),
        (Plant::Gone, "F3", "the log is gone, between two pages"),
        (Plant::ReusedIsDuplicate, "F4", "`id_reused` of"),
        (Plant::SameIsReused, "F4", "is `id_reused` of"),
        (Plant::ReusedWrongFirst, "F4", "whose command is another"),
        (Plant::ClientForgotten, "F3", "held by"),
        (Plant::ClientsMixed, "F4", "and should be neither"),
        (Plant::NeverIdle, "F4", "and should be stale"),
        (Plant::IdleTooSoon, "F4", "is `stale`, and should be a duplicate"),
        (Plant::LookupOfAnother, "F4", "is looked up: "),
        (Plant::LookupFindsNothing, "F4", "is looked up: 404, and should be the entry"),
        (Plant::LookupRefused, "F4", "is looked up: 400, and should be the entry"),
        (Plant::LookupInvents, "F4", "and it was never sent"),
        (Plant::AmountChanged, "F6", "and should to"),
        (Plant::OverdrawnAccepted, "F6", "is accepted, and should be `overdrawn`"),
        (Plant::FineRejected, "F6", "is `overdrawn`, and should be `accepted`"),
        (Plant::WrongCode, "F6", "is `too_large`, and should be"),
        (Plant::MoneyMade, "F6", "are no transfer"),
        (Plant::MoneyMade, "F6", "came in, accounts hold"),
        (Plant::WrongSum, "F6", "but the account is open and holds"),
        (Plant::WrongBalance, "F6", "balances: the row `"),
        (Plant::WrongRowSeq, "F6", "is of 1, last touched by"),
        (Plant::BalanceMissing, "F6", "is missing"),
        (Plant::BalanceExtra, "F6", "the row `zz` should not be there"),
        (Plant::LineMissing, "F6", "is missing"),
        (Plant::LineExtra, "F6", "should not be there"),
        (Plant::LineTime, "F6", "statement: the row `"),
        (Plant::LineMemo, "F6", "something else"),
        (Plant::WrongTotals, "F6", "totals: the row `total` is"),
        (Plant::TotalsMissing, "F6", "the row `total` is missing"),
        (Plant::StaleSeen, "F6", "and it is of"),
        (Plant::OldAmountSeen, "F6", "balances: a reader at"),
        (Plant::MissingSeen, "F6", "saw no row `"),
        (Plant::LineMissingSeen, "F6", "saw: no row `"),
        (Plant::WrongLineSeen, "F6", "statement: a reader at"),
        (Plant::WrongTotalsSeen, "F6", "totals: a reader at"),
        (Plant::TotalsMissingSeen, "F6", "totals: a reader at"),
        (Plant::CursorBack, "F6", "and a later one"),
        (Plant::CursorAhead, "F6", "the log ends at"),
        (Plant::CursorAheadLater, "F6", "the log ends at"),
        (Plant::Forgets, "F8", "no entry is there"),
    ] {
        let verdict = verdict_on(Some(plant));
        assert_eq!(verdict.unfinished, None, "{plant:?}");
        let found =
            verdict.examples.iter().any(|b| b.invariant == invariant && b.what.contains(says));
        assert!(found, "{plant:?} should break {invariant}, `{says}`: {verdict:#?}");
        assert_eq!(verdict.broken.values().sum::<u64>(), verdict.breaches, "{plant:?}");
    }
}

#[test]
fn bounds_of_memory_change_nothing() {
    let small = Options { receipts_max: 1, lines_max: 10, concurrency: 1, ..options() };
    let clean = verdict_with(None, &small);
    // What was compared early is looked at again, but for its first row.
    assert_eq!(Verdict { rows: 0, ..clean.clone() }, Verdict { rows: 0, ..verdict_on(None) });
    for plant in [Plant::LineMissing, Plant::LineExtra, Plant::LineTime, Plant::LineMemo] {
        let (mut small, large) = (verdict_with(Some(plant), &small), verdict_on(Some(plant)));
        // An account's first row is looked at twice: if it is at fault, it is found twice.
        small.examples.dedup();
        assert_eq!(small.examples, large.examples, "{plant:?}");
        assert!((large.breaches..=large.breaches + 2).contains(&small.breaches), "{plant:?}");
    }
}

#[test]
fn what_is_no_fault_is_none() {
    for (plant, status, note) in [
        (Plant::GrowsLater, "accepted", None),
        (Plant::Faulted, "faulted", None),
        (Plant::GivenUp, "lost", Some("an operator has given them up")),
    ] {
        let verdict = verdict_on(Some(plant));
        assert!(verdict.is_clean(), "{plant:?}: {verdict:#?}");
        assert!(verdict.outcomes.contains_key(status), "{plant:?}: {verdict:#?}");
        assert_eq!(verdict.notes.len(), usize::from(note.is_some()), "{plant:?}");
        assert!(note.is_none_or(|note| verdict.notes[0].contains(note)), "{plant:?}: {verdict:#?}");
    }
}

#[test]
fn a_log_that_never_rests_is_no_breach_and_no_success() {
    let verdict = verdict_on(Some(Plant::GrowsForEver));
    assert_eq!(verdict.breaches, 0, "{verdict:#?}");
    let why = verdict.unfinished.expect("it has not come to an end");
    assert!(why.contains("ledger/org:a: it grew faster"), "{why}");
}

#[test]
fn a_sample_is_drawn_by_lot_and_the_end_of_the_file_may_be_missing() {
    let fake = Fake::start(None);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        let length = std::fs::metadata(file.path()).expect("it is there").len();
        // Of the line that says that it is the last.
        file.as_file().set_len(length - 3).expect("it is cut");
        let mut drawn = std::collections::BTreeSet::new();
        for seed in 0..8 {
            let options = Options { sample: Some(1), seed, ..options() };
            let once = verdict(&target, file.path(), &options).await;
            assert_eq!((once.logs, once.logs_named, once.breaches), (1, 2, 0), "{once:#?}");
            for (note, says) in once.notes.iter().zip(["drawn by lot", "broke off", "no end"]) {
                assert!(note.contains(says), "{once:#?}");
            }
            assert_eq!((once.notes.len(), once.seed), (3, seed), "{once:#?}");
            assert_eq!(once, verdict(&target, file.path(), &options).await, "seed {seed}");
            drawn.insert(once.entries);
        }
        assert_eq!(drawn.len(), 2, "the lot always falls on the same log");
    });
}

/// The generator is killed: much of what it had sent it could not write down.
#[test]
fn what_the_receipts_do_not_name_is_no_breach_unless_they_say_that_they_are_whole() {
    let fake = Fake::start(None);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        let whole = std::fs::read_to_string(file.path()).expect("it is there");
        let lines: Vec<&str> = whole.lines().collect();
        let cut = |end: &str| lines[..lines.len() / 2].join("\n") + "\n" + end;
        std::fs::write(file.path(), cut("{\"rec")).expect("it is written");
        let killed = verdict(&target, file.path(), &options()).await;
        assert!(killed.is_clean(), "{killed:#?}");
        assert!(killed.notes.iter().any(|note| note.contains("have no end")), "{killed:#?}");
        std::fs::write(file.path(), cut("{\"end\":{}}\n")).expect("it is written");
        let complete = verdict(&target, file.path(), &options()).await;
        assert!(complete.examples.iter().any(|b| b.what.contains("has sent no")), "{complete:#?}");
    });
}

#[test]
fn what_passes_is_waited_for() {
    let fake = Fake::with(None, Manner::ReadsFail(12));
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        let options = Options { patience: Duration::from_secs(30), ..options() };
        let patient = verdict(&target, file.path(), &options).await;
        assert!(patient.is_clean(), "{patient:#?}");
    });
    // More often than it is tried without patience.
    let fake = Fake::with(None, Manner::ReadsFail(1_000));
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        let impatient = verdict(&target, file.path(), &options()).await;
        let why = impatient.unfinished.clone().expect("nothing was read");
        assert!(why.contains("is answered with 500"), "{why}");
    });
}

#[test]
fn to_look_at_nothing_is_no_success() {
    let fake = Fake::start(None);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        let lines = "{\"run\":{\"format\":1,\"users\":\"r-\"}}\n{\"end\":{}}\n";
        std::fs::write(file.path(), lines).expect("it is written");
        let nothing = verdict(&target, file.path(), &options()).await;
        assert!(nothing.breaches == 0 && !nothing.is_clean(), "{nothing:#?}");
    });
}

#[test]
fn what_was_found_before_the_end_counts() {
    let fake = Fake::with(Some(Plant::Hole), Manner::ViewsStand);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let patience = Duration::from_secs(60);
        let options = Options { patience, stop: Some(stopped), ..options() };
        let began = std::time::Instant::now();
        let (ended, ()) = tokio::join!(verdict(&target, file.path(), &options), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.send(true).expect("it listens");
        });
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(ended.broken.contains_key("F1"), "{ended:#?}");
        assert_eq!(ended.unfinished.as_deref(), Some("ended by Ctrl-C"));
        assert!(ended.entries > 400 && ended.logs == 0, "{ended:#?}");
    });
}

#[test]
fn nobody_there_is_no_panic() {
    let fake = Fake::start(None);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = tempfile::NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        drop(fake);
        let verdict = verdict(&target, file.path(), &options()).await;
        let why = verdict.unfinished.clone().expect("nothing was read");
        assert!(why.contains("is not answered"), "{why}");
        assert!(!verdict.is_clean() && verdict.entries == 0, "{verdict:#?}");
    });
}
