//! The auditor finds no breach in a correct target, and every planted fault.

use std::path::Path;
use std::time::Duration;

use auditor::Invariant::{F1, F3, F4, F5, F6, F8, Time};
use auditor::http::Target;
use auditor::{Options, Verdict, audit};
use fake_target::{Fake, Manner, Plant};
use tempfile::NamedTempFile;

use crate::script::Script;

mod any_service;
mod design;
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

/// Runs a test against `fake`, with a file of the receipts of the short script.
fn with_receipts(fake: &Fake, test: impl AsyncFnOnce(&Target, &NamedTempFile)) {
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        test(&target, &file).await;
    });
}

fn verdict_on(plant: Option<Plant>) -> Verdict {
    verdict_with(plant, &options())
}

fn verdict_with(plant: Option<Plant>, options: &Options) -> Verdict {
    let fake = Fake::start(plant);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = NamedTempFile::new().expect("a file");
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
fn a_correct_target_has_no_breach() {
    let verdict = verdict_on(None);
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!((verdict.logs, verdict.logs_named), (4, 4));
    assert_eq!(verdict.lookups, 16);
    assert!(verdict.entries > 2_600 && verdict.receipts > 2_500, "{verdict:#?}");
    assert!(verdict.rows > 2_300 && verdict.seen > 300, "{verdict:#?}");
    assert!(verdict.balance > Some(2_200), "{verdict:#?}");
    for status in ["accepted", "rejected", "duplicate", "stale"] {
        assert!(verdict.outcomes.contains_key(status), "{status}: {verdict:#?}");
    }
    assert_eq!(verdict.outcomes.values().sum::<u64>(), verdict.entries);
}

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    for (plant, invariant, says) in [
        (Plant::Hole, F1, "the entry is missing, the next has the seq 8"),
        (Plant::EntryTwice, F1, "an entry with the seq 7 is here"),
        (Plant::AcceptedAhead, F1, "are accepted, and the entries end at"),
        (Plant::PromisedTwice, F1, "two receipts have this seq"),
        (Plant::PromisedAgain, F1, "two receipts have this seq"),
        (Plant::RefusedAndTaken, F3, "was refused, and has an entry"),
        (Plant::MemoCut, F6, "and has another, of"),
        (Plant::MemoSwapped, F6, "and has another, of"),
        (Plant::MemoLost, F6, "and has none"),
        (Plant::AnotherUser, F3, "and the entry has id"),
        (Plant::AnotherUser, F3, "never sent the id"),
        (Plant::AnotherCommand, F3, "`open` was sent, and the entry has"),
        (Plant::AnotherLog, F3, "the entry names the log ledger/org:elsewhere"),
        (Plant::EntryChanges, F3, "a reader saw"),
        (Plant::PagesDisagree, F3, "its page shows"),
        (Plant::NoNext, F3, "the next begins at None"),
        (Plant::Invented, F3, "never sent the id 1000000"),
        (Plant::AcceptedTwice, F4, "and should be a duplicate of"),
        (Plant::WrongFirst, F4, "and should be a duplicate of"),
        (Plant::NewIsDuplicate, F4, "is `duplicate` of 1, and should be neither"),
        (Plant::NewIsStale, F4, "is `stale`, and should be neither"),
        (Plant::StaleIsDecided, F4, "and should be stale"),
        (Plant::ViewStuck, F5, "balances: the view has the cursor 3, and should"),
        (Plant::ViewStuckGrows, F5, "balances: the view has the cursor 3, and should"),
        (Plant::ViewStuckParked, F5, "totals: the view has the cursor 3 and is parked"),
        (Plant::ViewParked, F5, "statement: the view is parked"),
        (Plant::ViewTooEarly, F5, "balances: a read at"),
        (Plant::ViewTooEarly, F6, "balances: the cursor went back to"),
        (Plant::RowsGoOnElsewhere, F6, "rows, or a wrong `next`"),
        (Plant::RowsDisordered, F6, "balances: the row `debts` comes after `rent`"),
        (Plant::DisorderedSeen, F6, "balances: a reader saw rows out of order"),
        (Plant::PageOfAnother, F3, "the page names the log ledger/org:elsewhere"),
        (Plant::AcceptedBehind, F1, "the page says accepted"),
        (Plant::UnknownStatus, F3, "is `pondered`, and should be"),
        (Plant::NoUser, F3, "has no user or no id"),
        (Plant::NoTime, F3, "this is not an entry"),
        (Plant::EndsEarly, F1, "are missing"),
        (Plant::Gone, F3, "the log disappeared between two pages"),
        (Plant::ReusedIsDuplicate, F4, "`id_reused`, since"),
        (Plant::SameIsReused, F4, "is `id_reused` of"),
        (Plant::ReusedWrongFirst, F4, "has another command"),
        (Plant::ClientForgotten, F3, "and the entry has id"),
        (Plant::ClientsMixed, F4, "and should be neither"),
        (Plant::NeverIdle, F4, "and should be stale"),
        (Plant::IdleTooSoon, F4, "is `stale`, and should be a duplicate"),
        (Plant::LookupOfAnother, F4, "a lookup of id"),
        (Plant::LookupFindsNothing, F4, "returns 404, and should return the entry"),
        (Plant::LookupRefused, F4, "returns 400, and should return the entry"),
        (Plant::LookupInvents, F4, "and the id was never sent"),
        (Plant::AmountChanged, F6, "and should have"),
        (Plant::OverdrawnAccepted, F6, "is accepted, and should be `overdrawn`"),
        (Plant::FineRejected, F6, "is `overdrawn`, and should be `accepted`"),
        (Plant::WrongCode, F6, "is `too_large`, and should be"),
        (Plant::MoneyMade, F6, "are not a transfer"),
        (Plant::MoneyMade, F6, "was paid in, the accounts hold"),
        (Plant::WrongSum, F6, "but the account is open and its balance is"),
        (Plant::WrongBalance, F6, "balances: the row `"),
        (Plant::WrongRowSeq, F6, "has the seq 1, and"),
        (Plant::BalanceMissing, F6, "is missing"),
        (Plant::BalanceExtra, F6, "the row `zz` should not exist"),
        (Plant::LineMissing, F6, "is missing"),
        (Plant::TimeGoesBack, Time, "is earlier than"),
        (Plant::RejectedWithEvents, F6, "has `events`"),
        (Plant::AcceptedWithFirst, F3, "has `of`"),
        (Plant::RowsOfAnotherLog, F6, "the page names the view"),
        (Plant::RowsOfAnotherView, F6, "the page names the view"),
        (Plant::LineExtra, F6, "should not exist"),
        (Plant::LineTime, F6, "statement: the row `"),
        (Plant::LineMemo, F6, "something else"),
        (Plant::WrongTotals, F6, "totals: the row `total` is"),
        (Plant::TotalsMissing, F6, "the row `total` is missing"),
        (Plant::StaleSeen, F6, "and should be of"),
        (Plant::OldAmountSeen, F6, "balances: a reader at"),
        (Plant::MissingSeen, F6, "saw no row `"),
        (Plant::LineMissingSeen, F6, "saw no row `"),
        (Plant::WrongLineSeen, F6, "statement: a reader at"),
        (Plant::WrongTotalsSeen, F6, "totals: a reader at"),
        (Plant::TotalsMissingSeen, F6, "totals: a reader at"),
        (Plant::CursorBack, F6, "and a later one"),
        (Plant::CursorAhead, F6, "the log ends at"),
        (Plant::CursorAheadLater, F6, "the log ends at"),
        (Plant::Forgets, F8, "there is no entry"),
    ] {
        let verdict = verdict_on(Some(plant));
        assert_eq!(verdict.unfinished, None, "{plant:?}");
        let found =
            verdict.examples.iter().any(|b| b.invariant == invariant && b.what.contains(says));
        if !found {
            missed.push(format!("{plant:?} should break {invariant}, `{says}`: {verdict:#?}"));
        }
        assert_eq!(verdict.broken.values().sum::<u64>(), verdict.breaches, "{plant:?}");
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

#[test]
fn limits_on_memory_do_not_change_the_verdict() {
    let small = Options { receipts_max: 1, lines_max: 10, concurrency: 1, ..options() };
    let clean = verdict_with(None, &small);
    // The number of rows differs: an early comparison repeats the first row of each account.
    assert_eq!(Verdict { rows: 0, ..clean.clone() }, Verdict { rows: 0, ..verdict_on(None) });
    for plant in [Plant::LineMissing, Plant::LineExtra, Plant::LineTime, Plant::LineMemo] {
        let (mut small, large) = (verdict_with(Some(plant), &small), verdict_on(Some(plant)));
        // An account's first row is compared twice, so its fault is found twice.
        small.examples.dedup();
        assert_eq!(small.examples, large.examples, "{plant:?}");
        assert!((large.breaches..=large.breaches + 2).contains(&small.breaches), "{plant:?}");
    }
}

#[test]
fn growth_and_faulted_and_lost_entries_are_no_breaches() {
    for (plant, status, note) in [
        (Plant::GrowsLater, "accepted", None),
        (Plant::Faulted, "faulted", None),
        (Plant::GivenUp, "lost", Some("an operator gave them up")),
    ] {
        let verdict = verdict_on(Some(plant));
        assert!(verdict.is_clean(), "{plant:?}: {verdict:#?}");
        assert!(verdict.outcomes.contains_key(status), "{plant:?}: {verdict:#?}");
        assert_eq!(verdict.notes.len(), usize::from(note.is_some()), "{plant:?}");
        assert!(note.is_none_or(|note| verdict.notes[0].contains(note)), "{plant:?}: {verdict:#?}");
    }
}

#[test]
fn a_log_that_grows_all_the_time_leaves_the_audit_unfinished() {
    let verdict = verdict_on(Some(Plant::GrowsForEver));
    assert_eq!(verdict.breaches, 0, "{verdict:#?}");
    let why = verdict.unfinished.expect("it did not finish");
    assert!(why.contains("ledger/org:a: it grew faster"), "{why}");
}

#[test]
fn the_seed_draws_the_sample_and_a_cut_off_file_is_noted() {
    with_receipts(&Fake::start(None), async |target, file| {
        let length = std::fs::metadata(file.path()).expect("it is there").len();
        // Cuts the line of the end.
        file.as_file().set_len(length - 3).expect("it is cut");
        let mut drawn = std::collections::BTreeSet::new();
        for seed in 0..8 {
            let options = Options { sample: Some(1), seed, ..options() };
            let once = verdict(target, file.path(), &options).await;
            assert_eq!((once.logs, once.logs_named, once.breaches), (1, 2, 0), "{once:#?}");
            for (note, says) in once.notes.iter().zip(["drawn at random", "cut off", "no end"]) {
                assert!(note.contains(says), "{once:#?}");
            }
            assert_eq!((once.notes.len(), once.seed), (3, seed), "{once:#?}");
            assert_eq!(once, verdict(target, file.path(), &options).await, "seed {seed}");
            drawn.insert(once.entries);
        }
        assert_eq!(drawn.len(), 2, "every seed draws the same log");
    });
}

/// A generator that is killed has sent commands that its file does not name.
#[test]
fn unnamed_entries_are_breaches_only_if_the_receipts_have_an_end() {
    with_receipts(&Fake::start(None), async |target, file| {
        let whole = std::fs::read_to_string(file.path()).expect("it is there");
        let lines: Vec<&str> = whole.lines().collect();
        let cut = |end: &str| lines[..lines.len() / 2].join("\n") + "\n" + end;
        std::fs::write(file.path(), cut("{\"rec")).expect("it is written");
        let killed = verdict(target, file.path(), &options()).await;
        assert!(killed.is_clean(), "{killed:#?}");
        assert!(killed.notes.iter().any(|note| note.contains("have no end")), "{killed:#?}");
        std::fs::write(file.path(), cut("{\"end\":{}}\n")).expect("it is written");
        let complete = verdict(target, file.path(), &options()).await;
        assert!(
            complete.examples.iter().any(|b| b.what.contains("never sent the id")),
            "{complete:#?}"
        );
    });
}

#[test]
fn failing_reads_are_retried_until_the_patience_is_over() {
    let fake = Fake::with(None, Manner::ReadsFail(12));
    with_receipts(&fake, async |target, file| {
        let options = Options { patience: Duration::from_secs(30), ..options() };
        let patient = verdict(target, file.path(), &options).await;
        assert!(patient.is_clean(), "{patient:#?}");
    });
    // More often than a read is tried without patience.
    let fake = Fake::with(None, Manner::ReadsFail(1_000));
    with_receipts(&fake, async |target, file| {
        let impatient = verdict(target, file.path(), &options()).await;
        let why = impatient.unfinished.clone().expect("it did not finish");
        assert!(why.contains("got the answer 500"), "{why}");
    });
}

#[test]
fn an_audit_without_receipts_is_not_clean() {
    with_receipts(&Fake::start(None), async |target, file| {
        let lines = "{\"run\":{\"format\":1,\"users\":\"r-\"}}\n{\"end\":{}}\n";
        std::fs::write(file.path(), lines).expect("it is written");
        let nothing = verdict(target, file.path(), &options()).await;
        assert!(nothing.breaches == 0 && !nothing.is_clean(), "{nothing:#?}");
    });
}

#[test]
fn a_stopped_audit_reports_what_it_found() {
    let fake = Fake::with(Some(Plant::Hole), Manner::ViewsStand);
    with_receipts(&fake, async |target, file| {
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let patience = Duration::from_secs(60);
        let options = Options { patience, stop: Some(stopped), ..options() };
        let began = std::time::Instant::now();
        let (ended, ()) = tokio::join!(verdict(target, file.path(), &options), async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            stop.send(true).expect("it listens");
        });
        assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
        assert!(ended.broken.contains_key(&F1), "{ended:#?}");
        assert_eq!(ended.unfinished.as_deref(), Some("ended by Ctrl-C"));
        assert!(ended.entries > 400 && ended.logs == 0, "{ended:#?}");
    });
}

#[test]
fn an_unreachable_target_leaves_the_audit_unfinished() {
    let fake = Fake::start(None);
    run(async {
        let target = Target::new(&fake.url, None).expect("it is a URL");
        let file = NamedTempFile::new().expect("a file");
        Script::short(&target, SEED).await.write(file.path());
        drop(fake);
        let verdict = verdict(&target, file.path(), &options()).await;
        let why = verdict.unfinished.clone().expect("it did not finish");
        assert!(why.contains("got no answer"), "{why}");
        assert!(!verdict.is_clean() && verdict.entries == 0, "{verdict:#?}");
    });
}
