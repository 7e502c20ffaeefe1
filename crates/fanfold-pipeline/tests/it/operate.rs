//! What operators do: everything that can wait is planted, listed, and let go on, given up, or sent again.

use fanfold::host::body::parked::{Content, Parked, Reason};
use fanfold::host::body::slot;
use fanfold::{Command, LogId, Seq, Time};
use fanfold_pipeline::operate::{Done, Operate, OperateError, WaitingItem};
use fanfold_pipeline::ports::{ParkedItem, ParkedTable};
use fanfold_pipeline::testing::{Broken, Op};
use serde_json::json;

use crate::check::play;
use crate::world::{NEVER, World, acme, add, applied, command, done, log};

pub(crate) fn operate(world: &World) -> Operate {
    Operate::new(world.operated(), world.ingest())
}

/// How many changes and records there are.
pub(crate) fn on_the_way(world: &World) -> (usize, usize) {
    (world.changes().len(), world.records().len())
}

/// Relays and processes what came since then, nudges included.
pub(crate) async fn drain(world: &World, (mut relayed, mut processed): (usize, usize)) {
    loop {
        let (changes, records) = (world.changes(), world.records());
        if changes.len() == relayed && records.len() == processed {
            return;
        }
        let outcome = world.relay().relay(&changes[relayed..], NEVER).await;
        assert_eq!(outcome.unfinished, None);
        relayed = changes.len();
        done(&world.processor(), &records[processed..]).await;
        processed = records.len();
    }
}

/// All that waits, as `7 ann#7 Gap`, in pages of `limit`.
async fn waiting(operate: &Operate, limit: usize) -> Vec<WaitingItem> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = operate.waiting(None, after.as_ref(), limit).await.expect("memory");
        all.extend(page.items);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

async fn park(world: &World, seq: u64, reason: Reason, content: Content) {
    let parked = Parked { reason, at: Time(5), detail: "a test".to_owned(), content };
    let body = parked.encode().expect("JSON").into();
    let item = ParkedItem { seq: Seq(seq), identity: parked.identity(), body };
    world.memory.parked.park(&acme(), &item).await.expect("memory");
}

/// Six commands are accepted. The fourth is lost on its way, so the two behind it are parked.
async fn one_is_lost(world: &World) {
    world.accept(&acme(), 6).await;
    done(&world.processor(), &[world.record(&acme(), 1, &[add(1), add(2), add(3)])]).await;
    done(&world.processor(), &[world.record(&acme(), 5, &[add(5), add(6)])]).await;
    assert_eq!(world.parked(&acme()).await, ["5 ann#5 Gap", "6 ann#6 Gap"]);
}

#[test]
fn a_command_that_never_came_is_given_up_and_the_log_goes_on() {
    play(async || {
        let world = World::new();
        one_is_lost(&world).await;
        let operate = operate(&world);
        let nothing = operate.resume(&acme(), Seq(4), None).await.unwrap_err().to_string();
        assert_eq!(nothing, "nothing waits at seq 4 of tally/org:acme");
        assert_eq!(operate.skip(&acme(), Seq(4), None, "gone").await.unwrap(), Done::Begun);
        done(&world.processor(), &world.records()).await;
        let expected = ["3 ann#3 accepted", "4 #0 lost", "5 ann#5 accepted", "6 ann#6 accepted"];
        assert_eq!(world.outcomes(&acme()).await[2..], expected);
        assert_eq!(world.parked(&acme()).await, [] as [String; 0]);

        // It comes after all. It is accepted again, at a new place, once.
        done(&world.processor(), &[world.record(&acme(), 4, &[add(4)])]).await;
        assert_eq!(world.parked(&acme()).await, ["4 ann#4 Conflict"]);
        let before = on_the_way(&world);
        let again = operate.resume(&acme(), Seq(4), None).await.unwrap();
        let Done::Accepted(receipt) = again else { panic!("{again:?}") };
        assert_eq!((receipt.log, receipt.seq), (acme(), Seq(7)));
        drain(&world, before).await;
        assert_eq!(world.outcomes(&acme()).await[6..], ["7 ann#4 accepted"]);
        assert_eq!(world.parked(&acme()).await, [] as [String; 0]);
    });
}

/// The command comes while it is being given up: whichever is first, the log has one entry at its seq.
#[test]
fn a_command_that_comes_while_it_is_given_up_is_not_lost() {
    play(async || {
        let world = World::new();
        one_is_lost(&world).await;
        operate(&world).skip(&acme(), Seq(4), None, "gone").await.unwrap();
        let mut records = world.records();
        records.push(world.record(&acme(), 4, &[add(4)]));
        done(&world.processor(), &records).await;
        let expected: Vec<String> = (1..=6).map(|n| format!("{n} ann#{n} accepted")).collect();
        assert_eq!(world.outcomes(&acme()).await, expected);
        assert_eq!(world.parked(&acme()).await, [] as [String; 0]);
    });
}

#[test]
fn a_suspect_goes_on_or_is_given_up() {
    play(async || {
        for skips in [false, true] {
            let world = World::new();
            world.accept(&acme(), 3).await;
            done(&world.processor(), &[world.record(&acme(), 1, &[add(1)])]).await;
            park(&world, 2, Reason::Suspect, Content::Command(add(2))).await;
            park(&world, 3, Reason::Gap, Content::Command(add(3))).await;
            // The log is held: a nudge does nothing.
            done(&world.processor(), &[world.nudge(&acme())]).await;
            assert_eq!(world.tail(&acme()).await, Seq(1));
            let operate = operate(&world);
            let found = waiting(&operate, 1).await;
            let [suspect, behind] = &found[..] else { panic!("{found:?}") };
            assert_eq!((suspect.reason, behind.reason), (Reason::Suspect, Reason::Gap));
            assert_eq!((suspect.accepted, suspect.tail), (Seq(3), Seq(1)));
            assert_eq!(suspect.command.as_ref(), Some(&add(2)));
            let status = match skips {
                true => {
                    operate.skip(&acme(), Seq(2), None, "it ends the process").await.unwrap();
                    "2 #0 lost"
                }
                false => {
                    operate.resume(&acme(), Seq(2), None).await.unwrap();
                    "2 ann#2 accepted"
                }
            };
            done(&world.processor(), &world.records()).await;
            assert_eq!(world.outcomes(&acme()).await[1..], [status, "3 ann#3 accepted"]);
            assert_eq!(waiting(&operate, 10).await, []);
        }
    });
}

#[test]
fn a_given_up_command_leaves_its_id_free() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 2).await;
        park(&world, 1, Reason::Suspect, Content::Command(add(1))).await;
        operate(&world).skip(&acme(), Seq(1), Some("ann#1"), "no").await.unwrap();
        done(&world.processor(), &world.records()).await;
        done(&world.processor(), &[world.record(&acme(), 2, &[add(1)])]).await;
        assert_eq!(world.outcomes(&acme()).await, ["1 #0 lost", "2 ann#1 accepted"]);
    });
}

#[test]
fn bytes_are_read_again_or_given_up() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 4).await;
        let (one, two) = (add(1), add(2));
        let (_, readable) = slot::encode(&[&one, &two]).unwrap().remove(0);
        park(&world, 1, Reason::Undecodable, Content::Bytes(readable)).await;
        park(&world, 3, Reason::Undecodable, Content::Bytes(b"?!".to_vec())).await;
        let operate = operate(&world);
        assert_eq!(operate.resume(&acme(), Seq(1), None).await.unwrap(), Done::Begun);
        done(&world.processor(), &world.records()).await;
        assert_eq!(world.outcomes(&acme()).await, ["1 ann#1 accepted", "2 ann#2 accepted"]);
        let unreadable = operate.resume(&acme(), Seq(3), None).await;
        assert!(matches!(unreadable, Err(OperateError::Unreadable { .. })), "{unreadable:?}");
        operate.skip(&acme(), Seq(3), None, "damaged").await.unwrap();
        done(&world.processor(), &world.records()).await;
        assert_eq!(world.outcomes(&acme()).await[2..], ["3 #0 lost"]);
        assert_eq!(waiting(&operate, 10).await, []);

        // A whole record that could not be read.
        let record = world.record(&acme(), 4, &[add(4)]).data.to_vec();
        park(&world, 0, Reason::Undecodable, Content::Bytes(record)).await;
        park(&world, 0, Reason::Undecodable, Content::Bytes(b"noise".to_vec())).await;
        let several = operate.resume(&acme(), Seq::ZERO, None).await;
        let Err(OperateError::Ambiguous { identities, .. }) = several else {
            panic!("{several:?}")
        };
        let mut done_with = Vec::new();
        for identity in &identities {
            match operate.resume(&acme(), Seq::ZERO, Some(identity)).await {
                Ok(found) => done_with.push(found),
                Err(_) => {
                    let skipped = operate.skip(&acme(), Seq::ZERO, Some(identity), "noise").await;
                    done_with.push(skipped.unwrap());
                }
            }
        }
        assert!(done_with.contains(&Done::Begun) && done_with.contains(&Done::Removed));
        done(&world.processor(), &world.records()).await;
        assert_eq!(world.outcomes(&acme()).await[3..], ["4 ann#4 accepted"]);
        assert_eq!(waiting(&operate, 10).await, []);
    });
}

/// Every entry that is sent again counts once, however often it is sent.
#[test]
fn a_faulted_command_is_sent_again_once() {
    play(async || {
        let world = World::new();
        let fault = |id| {
            let data = json!({"counter": "a", "how": "panic_in_decide"});
            command("ann", id, "fail", data)
        };
        world.accept(&acme(), 2).await;
        let record = world.record(&acme(), 1, &[add(1), fault(2)]);
        done(&world.processor(), &[record]).await;
        let outcomes = world.outcomes(&acme()).await;
        assert_eq!(outcomes, ["1 ann#1 accepted", "2 ann#2 faulted"]);
        let (operate, before) = (operate(&world), on_the_way(&world));
        for expected in [3, 4] {
            assert_eq!(operate.resend(&acme(), Seq(2)).await.unwrap().seq, Seq(expected));
        }
        let refused = operate.resend(&acme(), Seq(1)).await.unwrap_err().to_string();
        assert!(refused.contains("the entry 1 of tally/org:acme is accepted"), "{refused}");
        drain(&world, before).await;
        let expected = ["3 resend#2 faulted", "4 resend#2 duplicate"];
        assert_eq!(world.outcomes(&acme()).await[2..], expected);
    });
}

/// Lists show each item of each log once, and no leases. They may be of one service.
#[test]
fn lists_are_paged_and_show_no_leases() {
    play(async || {
        let world = World::new();
        let logs: Vec<LogId> = (0..7).map(|n| log(&format!("tally/org:o{n}"))).collect();
        for log in &logs {
            done(&world.processor(), &[world.record(log, 2, &[add(2), add(3)])]).await;
        }
        let item = ParkedItem { seq: Seq::ZERO, identity: "attempt".to_owned(), body: "?".into() };
        world.memory.parked.park(&logs[0], &item).await.unwrap();
        let faults = log("tally/user:reactor:suspect");
        let item = ParkedItem { identity: "tally/org:o1@3".to_owned(), ..item };
        world.memory.parked.park(&faults, &item).await.unwrap();
        let operate = operate(&world);
        for limit in [1, 2, 5, 100] {
            let found = waiting(&operate, limit).await;
            let mut found: Vec<_> = found.into_iter().map(|item| (item.log, item.seq.0)).collect();
            found.sort();
            let expected: Vec<_> =
                logs.iter().flat_map(|log| [(log.clone(), 2), (log.clone(), 3)]).collect();
            assert_eq!(found, expected, "pages of {limit}");
        }
        let other = operate.waiting(Some("ledger"), None, 100).await.unwrap();
        assert_eq!((other.items.len(), other.next), (0, None));
    });
}

#[test]
fn a_parked_view_tries_again_or_goes_on_behind_the_entry() {
    play(async || {
        let world = World::new();
        let say = |id, text| command("ann", id, "say", json!({"counter": "a", "text": text}));
        // The view's sweep finds the log in the catalogue.
        world.accept(&acme(), 3).await;
        let commands: &[Command] = &[add(1), say(2, "boo"), add(3)];
        let message = world.commit(&acme(), commands).await;
        applied(&world.projector("sums"), [&message]).await;
        let operate = operate(&world);
        let page = operate.waiting_of_view("sums", None, 10).await.unwrap();
        let [view] = &page.items[..] else { panic!("{page:?}") };
        assert_eq!(
            (&view.log, view.cursor, view.parked.seq, view.tail),
            (&acme(), Seq(1), Seq(2), Seq(3))
        );
        assert_eq!(view.entry.as_ref().map(|entry| entry.seq), Some(Seq(2)));
        let nothing = operate.waiting_of_view("resets", None, 10).await.unwrap();
        assert_eq!(nothing.items, []);

        // The same build fails again, and parks it again.
        operate.resume_view("sums", &acme()).await.unwrap();
        applied(&world.projector("sums"), [&message]).await;
        assert!(world.cursor("sums", &acme()).await.parked.is_some());
        let empty = operate.skip_view("sums", &acme(), " ").await.unwrap_err().to_string();
        assert!(empty.starts_with("a reason is needed"), "{empty}");
        operate.skip_view("sums", &acme(), "its author says so").await.unwrap();
        assert_eq!(world.cursor("sums", &acme()).await.seq, Seq(2));
        world.env.pass(11_000);
        world.view_sweep("sums").sweep(None, 100, world.soon()).await.unwrap();
        let cursor = world.cursor("sums", &acme()).await;
        assert_eq!((cursor.seq, cursor.parked), (Seq(3), None));
        let again = operate.resume_view("sums", &acme()).await.unwrap_err().to_string();
        assert_eq!(again, "the view `sums` is not parked for tally/org:acme");
        let unknown = operate.resume_view("nothing", &acme()).await.unwrap_err().to_string();
        assert_eq!(unknown, "there is no view `nothing` here");
    });
}

/// An action that fails before, after or in the middle of its calls can be repeated: nothing is lost or done twice.
#[test]
fn an_action_that_fails_can_be_repeated() {
    play(async || {
        for op in [Op::PutRecords, Op::SlotAppend] {
            for broken in [Broken::Before, Broken::After] {
                let world = World::new();
                one_is_lost(&world).await;
                let operate = operate(&world);
                operate.skip(&acme(), Seq(4), None, "gone").await.unwrap();
                done(&world.processor(), &world.records()).await;
                done(&world.processor(), &[world.record(&acme(), 4, &[add(4)])]).await;
                let before = on_the_way(&world);
                world.faults.fail(op, "", .., broken);
                let _ = operate.resume(&acme(), Seq(4), None).await;
                world.faults.heal();
                // If it took effect without an answer, the repeat makes a duplicate.
                let _ = operate.resume(&acme(), Seq(4), None).await;
                drain(&world, before).await;
                let outcomes = world.outcomes(&acme()).await;
                let accepted = outcomes.iter().filter(|line| line.ends_with("ann#4 accepted"));
                assert_eq!(accepted.count(), 1, "{op:?} {broken:?}: {outcomes:?}");
                assert_eq!(waiting(&operate, 10).await, [], "{op:?} {broken:?}");
            }
        }
    });
}

/// All items of a seq are found, however many, and none of the next seq.
#[test]
fn many_items_at_one_seq_are_told_apart() {
    play(async || {
        let world = World::new();
        world.accept(&acme(), 2).await;
        for n in 0..20_u8 {
            park(&world, 1, Reason::Undecodable, Content::Bytes(vec![n])).await;
        }
        park(&world, 2, Reason::Gap, Content::Command(add(2))).await;
        let several = operate(&world).resume(&acme(), Seq(1), None).await;
        let Err(OperateError::Ambiguous { identities, .. }) = several else {
            panic!("{several:?}")
        };
        assert_eq!(identities.len(), 20);
        operate(&world).skip(&acme(), Seq(1), Some(&identities[19]), "noise").await.unwrap();
    });
}
