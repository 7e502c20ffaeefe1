//! A commands table that was restored to an older state: slots that are behind their logs are raised.

use fanfold::{LogId, Seq, Time};
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::doctor::{Ailment, Depth, Doctor, Examined};
use fanfold_pipeline::operate::{Done, OperateError};
use fanfold_pipeline::ports::{
    Append, Change, Commands, Env, OperatorCommands, Slot, SlotRaise, Token,
};
use fanfold_pipeline::testing::{Broken, Op};

use crate::check::play;
use crate::operate::operate;
use crate::world::{NEVER, World, acme, log, run, services, views};

const HOUR_MS: u64 = 3_600_000;

/// A log with six entries, of which its slot knows two.
async fn behind(world: &World) {
    world.accept(&acme(), 2).await;
    world.commit(&acme(), &run(1..=6)).await;
    world.env.pass(HOUR_MS);
}

async fn slot(world: &World, log: &LogId) -> Option<Slot> {
    world.memory.commands.slot(log).await.expect("memory")
}

/// The findings that do not concern views, which these tests do not run.
async fn found(world: &World) -> Vec<Ailment> {
    let doctor = Doctor::new(world.operated(), services(), views());
    let Examined { findings, .. } = doctor.examine(&acme(), Depth::All).await.expect("memory");
    let of_log = findings.into_iter().filter(|finding| finding.view.is_none());
    of_log.map(|finding| finding.what).collect()
}

#[test]
fn a_slot_behind_its_log_is_raised_to_the_tail() {
    play(async || {
        let world = World::new();
        behind(&world).await;
        assert_eq!(found(&world).await, [Ailment::SlotBehind]);
        let raised = Done::Raised { log: acme(), to: Seq(6) };
        assert_eq!(operate(&world).raise(&acme()).await.expect("memory"), raised);
        let slot = slot(&world, &acme()).await.expect("a slot");
        assert_eq!((slot.seq, slot.n), (Seq(6), 0));
        assert_eq!(found(&world).await, []);
        assert_eq!(operate(&world).raise(&acme()).await.expect("memory"), Done::Fits);
        world.accept(&acme(), 1).await;
        assert_eq!(world.changes().last().map(|change| change.last), Some(Seq(7)));
    });
}

#[test]
fn only_a_slot_that_is_behind_is_raised() {
    play(async || {
        let world = World::new();
        assert_eq!(operate(&world).raise(&acme()).await.expect("memory"), Done::Fits);
        assert_eq!(slot(&world, &acme()).await, None, "a log without entries gets no slot");
        world.accept(&acme(), 3).await;
        world.commit(&acme(), &run(1..=2)).await;
        let before = slot(&world, &acme()).await;
        assert_eq!(operate(&world).raise(&acme()).await.expect("memory"), Done::Fits);
        assert_eq!(slot(&world, &acme()).await, before, "accepted commands are on their way");
    });
}

/// A walk over the journal finds logs that have no slot, and are in no catalogue.
#[test]
fn logs_that_only_the_journal_has_are_found_and_get_slots() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 2).await;
        world.commit(&acme(), &run(1..=2)).await;
        let lost = ["a", "b", "c"].map(|name| log(&format!("tally/org:{name}")));
        for log in &lost {
            world.commit(log, &run(1..=3)).await;
            world.commit(log, &run(4..=4)).await;
        }
        let doctor = Doctor::new(world.operated(), services(), views());
        let listed = doctor.page(None, 10, Depth::Sample).await.expect("memory");
        let listed: Vec<LogId> = listed.logs.into_iter().map(|examined| examined.log).collect();
        assert_eq!(listed, [acme()], "of the catalogue");
        for limit in [1, 2, 3, 10] {
            let (mut behind, mut logs, mut after) = (Vec::new(), 0, None);
            loop {
                let page = doctor.page_of_journal(after.as_ref(), limit, Depth::Sample).await;
                let page = page.expect("memory");
                assert!(page.logs.len() <= limit);
                for examined in page.logs {
                    logs += 1;
                    let mut findings = examined.findings.iter();
                    if findings.any(|finding| finding.what == Ailment::SlotBehind) {
                        behind.push(examined.log);
                    }
                }
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!((logs, &behind[..]), (4, &lost[..]), "pages of {limit}");
        }
        for log in &lost {
            let raised = Done::Raised { log: log.clone(), to: Seq(4) };
            assert_eq!(operate(&world).raise(log).await.expect("memory"), raised);
        }
        let listed = doctor.page(None, 10, Depth::Sample).await.expect("memory");
        assert_eq!(listed.logs.len(), 4, "the catalogue has them again");
    });
}

/// Each log takes ten seconds, so a page ends behind two.
#[test]
fn a_page_of_the_journal_ends_in_time() {
    play(async || {
        let world = World::new();
        for name in ["a", "b", "c", "d", "e"] {
            world.commit(&log(&format!("tally/org:{name}")), &run(1..=1)).await;
        }
        let clock = world.env.clone();
        world.faults.before_every(Op::SlotGet, move || {
            clock.pass(10_000);
            std::future::ready(())
        });
        let doctor = Doctor::new(world.operated(), services(), views());
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let page = doctor.page_of_journal(after.as_ref(), 10, Depth::All).await;
            let page = page.expect("memory");
            pages.push(page.logs.len());
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(pages, [2, 2, 1]);
    });
}

/// Appends come between the operator's read and write.
#[test]
fn an_append_at_the_same_time_is_not_overwritten() {
    play(async || {
        let world = World::new();
        behind(&world).await;
        let commands = world.memory.commands.clone();
        world.faults.before_every(Op::SlotRaise, move || {
            let commands = commands.clone();
            async move {
                let append =
                    Append { n: 9, body: b"[]".to_vec().into(), at: Time(1), token: Token(9) };
                commands.append(&acme(), append).await.expect("memory");
            }
        });
        assert_eq!(operate(&world).raise(&acme()).await.expect("memory"), Done::Fits);
        let slot = slot(&world, &acme()).await.expect("a slot");
        assert_eq!((slot.seq, slot.n, slot.token), (Seq(11), 9, Token(9)));
    });
}

#[test]
fn a_raise_that_fails_can_be_repeated() {
    play(async || {
        for (how, again) in [
            (Broken::Before, Done::Raised { log: acme(), to: Seq(6) }),
            (Broken::After, Done::Fits),
        ] {
            let world = World::new();
            behind(&world).await;
            world.faults.fail(Op::SlotRaise, "org:acme", 1..=1, how);
            let failed = operate(&world).raise(&acme()).await;
            assert!(matches!(failed, Err(OperateError::Unavailable(_))), "{failed:?}");
            assert_eq!(operate(&world).raise(&acme()).await.expect("memory"), again, "{how:?}");
            assert_eq!(found(&world).await, []);
        }
    });
}

/// A raised slot has no command. No stage takes it for commands that were accepted and are lost.
#[test]
fn no_stage_sends_a_raised_slot() {
    play(async || {
        let world = World::new();
        behind(&world).await;
        operate(&world).raise(&acme()).await.expect("memory");
        let raise = world.changes().pop().expect("a change");
        assert_eq!((raise.last, raise.n, raise.body.len()), (Seq(6), 0, 0));
        assert_eq!(world.relay().relay(&[raise], NEVER).await, BatchOutcome::DONE);
        world.env.pass(HOUR_MS);
        let report = world.sweep().sweep(None, 10, NEVER).await.expect("memory");
        assert_eq!((report.logs, report.nudged, report.standstill_ms_max), (1, vec![], 0));
        // Also if the journal is behind, since it was restored, too: nothing can be sent again.
        let (to, at, token) = (Seq(20), world.env.now(), Token(20));
        let raise = world.memory.commands.raise(&acme(), to, at, token).await;
        assert_eq!(raise, Ok(SlotRaise::Raised));
        world.env.pass(HOUR_MS);
        let report = world.sweep().sweep(None, 10, NEVER).await.expect("memory");
        assert_eq!((report.nudged, report.resent), (vec![acme()], vec![]));
        assert!(world.records().iter().all(|record| *record == world.nudge(&acme())));
    });
}

/// The changes before and behind that of a raised slot are sent, in order.
#[test]
fn the_relay_passes_over_a_raised_slot() {
    play(async || {
        let world = World::new();
        let change = |last, n: u64| {
            let body = if n == 0 { Vec::new() } else { vec![last as u8] };
            let (log, at, token) = (acme(), Time(last), Token(last.into()));
            Change { log, last: Seq(last), n, at, token, body: body.into() }
        };
        let changes = [change(1, 1), change(9, 0), change(10, 1), change(30, 0)];
        let relay = world.relay();
        assert_eq!(relay.relay(&changes, NEVER).await, BatchOutcome::DONE);
        let sent = world.records();
        let again = World::new();
        let with_commands = [changes[0].clone(), changes[2].clone()];
        assert_eq!(again.relay().relay(&with_commands, NEVER).await, BatchOutcome::DONE);
        assert_eq!(sent, again.records());
        // A repeat of the batch sends nothing again.
        assert_eq!(relay.relay(&changes, NEVER).await, BatchOutcome::DONE);
        assert_eq!(world.records(), sent);
        // If the stream takes nothing, the changes with commands are reported, and those before them are not.
        world.faults.fail(Op::PutRecords, "", .., Broken::Before);
        let later = [change(31, 0), change(32, 1)];
        assert_eq!(relay.relay(&later, NEVER).await.unfinished, Some(1));
    });
}
