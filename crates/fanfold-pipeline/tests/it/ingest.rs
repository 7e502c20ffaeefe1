//! Ingest validates requests, groups them by log, appends each group to its slot in the order of
//! the requests, and answers each request with a receipt or an error.
//!
//! `docs/design.md#ingest`, and `docs/design.md#requests` for the retries of the slot write.

use fanfold::LogId;
use fanfold::host::body::slot;
use fanfold::host::limits::SLOT_BODY_BYTES_MAX;
use fanfold_pipeline::BatchOutcome;
use fanfold_pipeline::ingest::{Ingest, IngestError, Receipt};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::testing::{Broken, Op, yield_once};
use serde_json::{Value, json};

use crate::check::play;
use crate::world::{NEVER, World, acme, log};

/// A request of ann to add one.
fn request(org: &str, id: u64) -> Value {
    let data = json!({"counter": "a", "by": 1});
    json!({"type": "tally", "command": "add", "id": id, "user": "ann", "org": org, "data": data})
}

/// A request whose command takes about `bytes` bytes in its slot.
fn large(id: u64, bytes: usize) -> Value {
    let mut request = request("acme", id);
    request["data"]["pad"] = "p".repeat(bytes).into();
    request
}

/// The answers: `org:acme 3`, or the kind of error.
async fn ask(ingest: &Ingest, requests: &[Value]) -> Vec<String> {
    let requests: Vec<String> = requests.iter().map(Value::to_string).collect();
    let requests: Vec<&[u8]> = requests.iter().map(String::as_bytes).collect();
    ingest.ingest(&requests).await.into_iter().map(show).collect()
}

fn show(answer: Result<Receipt, IngestError>) -> String {
    match answer {
        Ok(Receipt { log, seq }) => format!("{} {seq}", log.partition()),
        Err(IngestError::Invalid(error)) => error.to_string(),
        Err(IngestError::NotAdmitted(_)) => "not admitted".to_owned(),
        Err(IngestError::Closed { .. }) => "closed".to_owned(),
        Err(IngestError::Unencodable(_)) => "unencodable".to_owned(),
        Err(IngestError::Unavailable(_)) => "unavailable".to_owned(),
    }
}

/// The ids of each change of a log, in order.
fn batches(world: &World, log: &LogId) -> Vec<Vec<u64>> {
    let changes = world.changes().into_iter().filter(|change| change.log == *log);
    let ids =
        |body: &[u8]| slot::decode(body).expect("a slot").iter().map(|c| c.id.get()).collect();
    changes.map(|change| ids(&change.body)).collect()
}

#[test]
fn a_group_is_one_append_in_the_order_of_its_requests() {
    play(async || {
        let world = World::new();
        let requests = [("a", 3), ("b", 1), ("a", 1), ("c", 1), ("b", 9), ("a", 2)];
        let requests = requests.map(|(org, id)| request(org, id));
        let answers = ask(&world.ingest(), &requests).await;
        let expected = ["org:a 1", "org:b 1", "org:a 2", "org:c 1", "org:b 2", "org:a 3"];
        assert_eq!(answers, expected);
        assert_eq!(world.faults.counts([Op::SlotAppend]), [3]);
        let batches = ["a", "b", "c"].map(|org| batches(&world, &log(&format!("tally/org:{org}"))));
        assert_eq!(batches, [vec![vec![3, 1, 2]], vec![vec![1, 9]], vec![vec![1]]]);
    });
}

/// A large group is appended in parts, one after another, so that slot bodies stay small.
#[test]
fn a_large_group_is_appended_in_parts_one_after_another() {
    play(async || {
        let world = World::new();
        // The third command is larger than a part should be, so it has a part of its own.
        let sizes = [14_000, 14_000, 40_000, 10_000, 10_000, 10_000, 10_000];
        let requests: Vec<Value> = (1..).zip(sizes).map(|(id, n)| large(id, n)).collect();
        let seen = world.clone();
        world.faults.before(Op::SlotAppend, "", move || {
            let world = seen.clone();
            async move {
                for _ in 0..10 {
                    yield_once().await;
                }
                assert_eq!(
                    world.faults.counts([Op::SlotAppend]),
                    [1],
                    "the first part is not acknowledged yet"
                );
            }
        });
        let answers = ask(&world.ingest(), &requests).await;
        let expected: Vec<String> = (1..=7).map(|seq| format!("org:acme {seq}")).collect();
        assert_eq!(answers, expected);
        let parts: [&[u64]; 4] = [&[1, 2], &[3], &[4, 5, 6], &[7]];
        assert_eq!(batches(&world, &acme()), parts);
        assert_eq!(world.faults.overlap(Op::SlotAppend), 1);
        for change in world.changes() {
            assert!(change.body.len() <= SLOT_BODY_BYTES_MAX.get() || change.n == 1);
        }
    });
}

/// A bound limits concurrent appends to a host's connections. Without one, all groups of a request
/// are appended at once.
#[test]
fn appends_at_the_same_time_are_bounded() {
    play(async || {
        let requests: Vec<Value> = (0..40).map(|n| request(&format!("o{n}"), 1)).collect();
        for (bound, expected) in [(None, 40), (Some(1), 1), (Some(7), 7), (Some(64), 40)] {
            let world = World::new();
            let ingest = match bound {
                Some(bound) => world.ingest().with_appends_at_once(bound),
                None => world.ingest(),
            };
            let answers = ask(&ingest, &requests).await;
            let accepted: Vec<String> = (0..40).map(|n| format!("org:o{n} 1")).collect();
            assert_eq!(answers, accepted);
            assert_eq!(world.faults.overlap(Op::SlotAppend), expected, "with {bound:?}");
        }
    });
}

/// If they were, the order of the group could change.
#[test]
fn the_parts_behind_a_failed_one_are_not_appended() {
    play(async || {
        let world = World::new();
        let mut requests: Vec<Value> = (1..=4).map(|id| large(id, 20_000)).collect();
        requests.insert(1, request("other", 1));
        world.faults.fail(Op::SlotAppend, "org:acme", 2.., Broken::Before);
        let answers = ask(&world.ingest(), &requests).await;
        let failed = "unavailable";
        assert_eq!(answers, ["org:acme 1", "org:other 1", failed, failed, failed]);
        assert_eq!(batches(&world, &acme()), [[1]]);
        // One append that succeeds, and five attempts of one that fails. Their number and time are
        // bounded, since a client waits.
        let attempts = world.faults.calls(Op::SlotAppend);
        assert_eq!(attempts.iter().filter(|call| call.contains("org:acme")).count(), 1 + 5);
        let slept: u64 =
            world.faults.calls(Op::Sleep).iter().map(|ms| ms.parse().unwrap_or(0)).sum();
        assert!(slept < 1_000, "{slept} ms");
    });
}

/// All attempts of an append have the same random `tok`. When the slot has this `tok` already, an
/// earlier attempt succeeded, and ingest returns its receipt.
#[test]
fn an_attempt_whose_answer_was_lost_is_recognised() {
    play(async || {
        for (lost, attempts) in [(1..=1, 2), (1..=3, 4), (2..=2, 1)] {
            let world = World::new();
            world.faults.fail(Op::SlotAppend, "", lost.clone(), Broken::After);
            let answers = ask(&world.ingest(), &[request("acme", 1), request("acme", 2)]).await;
            assert_eq!(answers, ["org:acme 1", "org:acme 2"], "the answers {lost:?} were lost");
            assert_eq!(world.changes().len(), 1, "the answers {lost:?} were lost");
            let calls = world.faults.calls(Op::SlotAppend);
            assert_eq!(calls.len(), attempts);
            assert!(calls.iter().all(|call| *call == calls[0]), "one token in all: {calls:?}");
        }
    });
}

/// Ingest does not report that an append failed if one of its attempts may have taken effect.
#[test]
fn the_outcome_is_unknown_if_any_attempt_may_have_happened() {
    play(async || {
        for (lost, is_certain) in [(0, true), (1, false), (3, false)] {
            for how in [Broken::After, Broken::Before] {
                let world = World::new();
                world.faults.fail(Op::SlotAppend, "", 1..=lost, how);
                world.faults.fail(Op::SlotAppend, "", lost + 1.., Broken::Throttled);
                let json = request("acme", 1).to_string();
                let answers = world.ingest().ingest(&[json.as_bytes()]).await;
                let [Err(IngestError::Unavailable(unavailable))] = &answers[..] else {
                    panic!("{answers:?}")
                };
                assert_eq!(unavailable.has_not_happened(), is_certain, "{lost} {how:?}");
            }
        }
        // Ingest does not report a closed log either if an earlier attempt may have succeeded.
        let world = World::new();
        assert_eq!(ask(&world.ingest(), &[request("acme", 1)]).await, ["org:acme 1"]);
        world.faults.fail(Op::SlotAppend, "", 1..=1, Broken::Before);
        let closing = world.clone();
        world.faults.before(Op::Sleep, "", move || {
            let world = closing.clone();
            async move { assert!(world.memory.commands.close(&acme()).await.expect("memory")) }
        });
        assert_eq!(ask(&world.ingest(), &[request("acme", 2)]).await, ["unavailable"]);
        assert_eq!(ask(&world.ingest(), &[request("acme", 2)]).await, ["closed"]);
    });
}

/// A retry restores no permission. After an attempt that may have taken effect, the outcome is
/// unknown.
#[test]
fn an_append_that_the_table_denies_is_not_retried() {
    play(async || {
        for (lost, is_certain, attempts) in [(0, true, 1), (1, false, 2)] {
            let world = World::new();
            world.faults.fail(Op::SlotAppend, "", 1..=lost, Broken::Before);
            world.faults.fail(Op::SlotAppend, "", lost + 1.., Broken::Refused);
            let json = request("acme", 1).to_string();
            let answers = world.ingest().ingest(&[json.as_bytes()]).await;
            let [Err(IngestError::Unavailable(unavailable))] = &answers[..] else {
                panic!("{answers:?}")
            };
            assert_eq!(unavailable.has_not_happened(), is_certain);
            assert_eq!(world.faults.counts([Op::SlotAppend]), [attempts]);
        }
    });
}

/// A late attempt, whose caller has retried meanwhile, is refused: the slot has its token already.
#[test]
fn an_attempt_that_comes_late_is_refused() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::SlotAppend, "", 1..=2, Broken::Late);
        let answers = ask(&world.ingest(), &[request("acme", 1)]).await;
        world.faults.land().await;
        assert_eq!(answers, ["org:acme 1"]);
        assert_eq!(world.changes().len(), 1);
    });
}

/// Each append has its own token. Otherwise the second of two equal batches would be lost.
#[test]
fn equal_batches_are_both_accepted() {
    play(async || {
        let world = World::new();
        let ingest = world.ingest();
        for seq in 1..=3 {
            assert_eq!(ask(&ingest, &[request("acme", 1)]).await, [format!("org:acme {seq}")]);
        }
    });
}

/// When another writer comes between two attempts, the batch is accepted twice. The processor makes
/// the second one duplicates.
#[test]
fn a_retried_batch_is_accepted_twice_if_another_writer_came_between() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::SlotAppend, "+2", 1..=1, Broken::After);
        let other = world.clone();
        world.faults.before(Op::Sleep, "", move || {
            let world = other.clone();
            async move {
                assert_eq!(ask(&world.ingest(), &[request("acme", 7)]).await, ["org:acme 3"]);
            }
        });
        let answers = ask(&world.ingest(), &[request("acme", 1), request("acme", 2)]).await;
        assert_eq!(answers, ["org:acme 4", "org:acme 5"]);

        assert_eq!(world.relay().relay(&world.changes(), NEVER).await, BatchOutcome::DONE);
        let outcome = world.processor().process(&world.records(), NEVER).await;
        assert_eq!(outcome, BatchOutcome::DONE);
        let expected = ["1 ann#1 accepted", "2 ann#2 accepted", "3 ann#7 accepted"];
        let again = ["4 ann#1 duplicate", "5 ann#2 duplicate"];
        assert_eq!(world.outcomes(&acme()).await, [&expected[..], &again].concat());
        world.audit(&acme()).await;
    });
}

/// The condition of the append fails for a closed log. Ingest compares `tok` first, so an append
/// that took effect before the log was closed gets its receipt.
#[test]
fn a_closed_log_refuses_new_appends_and_confirms_earlier_ones() {
    play(async || {
        let world = World::new();
        let ingest = world.ingest();
        world.faults.fail(Op::SlotAppend, "org:acme", 1..=1, Broken::After);
        let closing = world.clone();
        world.faults.before(Op::Sleep, "", move || {
            let world = closing.clone();
            async move { assert!(world.memory.commands.close(&acme()).await.expect("memory")) }
        });
        let requests = [request("acme", 1), request("other", 1)];
        assert_eq!(ask(&ingest, &requests).await, ["org:acme 1", "org:other 1"]);
        assert_eq!(ask(&ingest, &requests).await, ["closed", "org:other 2"]);
        assert_eq!(batches(&world, &acme()), [[1]]);
    });
}

/// Ingest asks for admission once per log, before it appends.
#[test]
fn a_command_that_is_not_admitted_is_not_appended() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::Admit, "org:b", .., Broken::Before);
        let requests = [request("a", 1), request("b", 1), request("a", 2)];
        let answers = ask(&world.ingest(), &requests).await;
        assert_eq!(answers, ["org:a 1", "not admitted", "org:a 2"]);
        world.memory.admission.close();
        assert_eq!(ask(&world.ingest(), &requests).await, ["not admitted"; 3]);
        assert_eq!(world.changes().len(), 1);
    });
}

/// Admission may change during a call of ingest.
#[test]
fn no_command_is_admitted_behind_one_that_was_not() {
    play(async || {
        let world = World::new();
        world.faults.fail(Op::Admit, "org:b", 1..=1, Broken::Before);
        let requests = [request("b", 1), request("a", 1), request("b", 2)];
        let answers = ask(&world.ingest(), &requests).await;
        assert_eq!(answers, ["not admitted", "org:a 1", "not admitted"]);
        // The next call asks again.
        assert_eq!(ask(&world.ingest(), &requests).await, ["org:b 1", "org:a 2", "org:b 2"]);
    });
}

/// Each request has a receipt or an error. An unknown service or command is an error, too.
#[test]
fn a_bad_request_does_not_affect_the_others() {
    let without = |field: &str| {
        let mut request = request("acme", 9);
        request.as_object_mut().expect("an object").remove(field);
        request
    };
    let with = |field: &str, value: Value| {
        let mut request = request("acme", 9);
        request[field] = value;
        request
    };
    let bad: &[(Value, &str)] = &[
        (json!([]), "must be a JSON object"),
        (without("id"), "`id`: is required"),
        (with("type", "nobody".into()), "there is no service `nobody`"),
        (with("command", "fly".into()), "has no command `fly`"),
        (with("data", json!({"counter": "a", "by": "one"})), "`data.by`"),
        (with("user", "reactor:x".into()), "is reserved"),
        (with("id", 0.into()), "`id`"),
        (with("colour", "red".into()), "`colour`: unknown field"),
        (large(9, 70_000), "at most 65536"),
    ];
    play(async || {
        let world = World::new();
        let ingest = world.ingest();
        for (turn, (request_, expected)) in (0..).zip(bad) {
            let requests =
                [request("acme", 2 * turn + 1), request_.clone(), request("acme", 2 * turn + 2)];
            let answers = ask(&ingest, &requests).await;
            assert!(answers[1].contains(expected), "{} for {request_}", answers[1]);
            let good = [2 * turn + 1, 2 * turn + 2].map(|seq| format!("org:acme {seq}"));
            assert_eq!([&answers[0], &answers[2]], [&good[0], &good[1]], "around {request_}");
        }
        let accepted = ingest.ingest(&[b"not JSON", b"\xff"]).await;
        assert!(accepted.iter().all(|a| matches!(a, Err(IngestError::Invalid(_)))), "{accepted:?}");
        assert_eq!(world.changes().len(), bad.len());
    });
}

/// A batch's `at` is the accept time of the attempt.
#[test]
fn a_batch_carries_its_accept_time() {
    play(async || {
        let world = World::new();
        ask(&world.ingest(), &[request("acme", 1)]).await;
        world.env.pass(1_234);
        ask(&world.ingest(), &[request("acme", 2)]).await;
        let times: Vec<u64> =
            world.changes().iter().map(|c| c.at.since_ms(world.env.now())).collect();
        assert_eq!(times, [0, 0], "the accept times are not in the future");
        assert_eq!(world.changes()[1].at.since_ms(world.changes()[0].at), 1_234);
    });
}
