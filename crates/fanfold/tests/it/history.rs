//! Random histories between the acceptance of commands and their entries: repeats, disorder and gaps of the command
//! stream, and several processes of two document versions that crash between any two effects, also in the middle of a
//! snapshot. All histories of the same commands must give the same log.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use fanfold::host::limits::WINDOW_IDLE_MS_MAX;
use fanfold::{Seq, Time};

use crate::world::{Process, World, service, timeless};

/// A client's command: the user, the distance of its id from the user's last id, the command and
/// its data. At distance 0 it is usually a repeat of the last command, and below 0 another command.
type Sent = (u16, i64, &'static str, Value);

const FEW: u16 = 3;

#[derive(Debug, Clone)]
enum Step {
    /// A process receives the commands around the tail, except some.
    Deliver { process: usize, before: u64, len: u64, left_out: Vec<u64>, life: usize },
    /// A process ends.
    Forget(usize),
    /// Time passes.
    Wait(u64),
}

fn counter() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d"])
}

fn commands(users: u16) -> impl Strategy<Value = Sent> {
    let what = prop_oneof![
        6 => (counter(), 0u64..60, 0usize..3_000).prop_map(|(counter, by, note)| {
            ("add", json!({"counter": counter, "by": by, "note": note}))
        }),
        3 => (counter(), counter(), 0u64..60)
            .prop_map(|(from, to, by)| ("move", json!({"from": from, "to": to, "by": by}))),
        1 => counter().prop_map(|counter| ("touch", json!({"counter": counter}))),
        1 => Just(("nothing", json!({}))),
        1 => (counter(), prop::sample::select(vec!["panic_in_decide", "unlisted_event"]))
            .prop_map(|(counter, how)| ("fail", json!({"counter": counter, "how": how}))),
        1 => Just(("unheard-of", json!({}))),
        1 => Just(("add", json!({"counter": 7}))),
        1 => (counter(), 0usize..600)
            .prop_map(|(counter, bytes)| ("grow", json!({"counter": counter, "bytes": bytes}))),
    ];
    // Most ids grow by one, some leave a hole, and some repeat.
    let ahead = prop_oneof![8 => Just(1i64), 2 => 2i64..9, 2 => -6i64..1, 1 => Just(0)];
    (0..users, ahead, what).prop_map(|(user, ahead, (name, data))| (user, ahead, name, data))
}

fn step() -> impl Strategy<Value = Step> {
    let life = prop_oneof![3 => Just(usize::MAX), 2 => 0usize..14];
    prop_oneof![
        12 => (0usize..3, 0u64..20, 1u64..40, vec(0u64..60, 0..3), life).prop_map(
            |(process, before, len, left_out, life)| {
                Step::Deliver { process, before, len, left_out, life }
            }
        ),
        1 => (0usize..3).prop_map(Step::Forget),
        2 => (0u64..500).prop_map(Step::Wait),
    ]
}

/// An id that is ahead by this much comes so late that windows are idle.
const LATE: i64 = 8;

/// Either few users send many commands, or many users send few each, so that their windows leave the head.
fn history() -> impl Strategy<Value = (Vec<Sent>, Vec<Step>)> {
    prop_oneof![
        2 => (vec(commands(FEW), 1..150), vec(step(), 0..40)),
        1 => (vec(commands(200), 100..250), vec(step(), 10..60)),
    ]
}

fn accept(world: &mut World, commands: &[Sent], idle: bool) {
    let mut lasts = std::collections::BTreeMap::<u16, (u64, &'static str, &Value)>::new();
    let mut passed_ms = 1_000;
    for (at, (user, ahead, name, data)) in commands.iter().enumerate() {
        let (last, ..) = lasts.get(user).copied().unwrap_or((0, name, data));
        let id = last.saturating_add_signed(*ahead).max(1);
        let again = lasts.get(user).filter(|_| *ahead == 0 && at % 4 != 0);
        let (_, name, data) = again.copied().unwrap_or((id, name, data));
        if id >= last {
            lasts.insert(*user, (id, name, data));
        }
        if idle && *ahead == LATE {
            passed_ms += WINDOW_IDLE_MS_MAX.as_u64() - 50 + at as u64;
        }
        // Accept times jitter, as if several clocks gave them.
        world.now = Time(passed_ms + at as u64 * 10 - (at as u64 * 7919) % 50);
        // Long names make windows large: with many users they soon leave the head.
        let padding = if *user < FEW { 0 } else { 100 };
        world.accept(&format!("u{user}{:@<padding$}", ""), id, name, data);
    }
}

/// At the end every command comes again, and every counter is read, so that wrong state in memory shows in the entries.
fn probes(commands: &[Sent]) -> Vec<Sent> {
    let touch = |counter| (999, 1, "add", json!({"counter": counter, "by": 0}));
    let again = commands.iter().map(|(user, ..)| (*user, 0, "nothing", json!({})));
    ["a", "b", "c", "d"].into_iter().map(touch).chain(again.take(40)).collect()
}

/// Plays a history, and returns the number of its snapshots.
fn play(mut commands: Vec<Sent>, steps: &[Step], idle: bool) -> usize {
    commands.extend(probes(&commands));
    // This is later than every accept time.
    let late = Time(WINDOW_IDLE_MS_MAX.as_u64() * 1_000);

    let mut straight = World::new();
    accept(&mut straight, &commands, idle);
    straight.now = late;
    let mut process = Process::new(service::<1>());
    for seq in 1..=commands.len() as u64 {
        straight.process(&mut process, &[Seq(seq)]).expect("the process does not crash");
    }

    let mut world = World::new();
    accept(&mut world, &commands, idle);
    // An entry may get the time of its decision, so decisions must be late enough to make the same
    // windows idle.
    world.now = if idle { late } else { Time(1_200) };
    let all = commands.len() as u64;
    let mut processes = [service::<1>(), service::<1>(), service::<2>()].map(Process::new);
    for step in steps {
        match step {
            Step::Forget(process) => processes[*process].log = None,
            Step::Wait(ms) => world.now = world.now.plus_ms(*ms),
            Step::Deliver { process, before, len, left_out, life } => {
                let first = world.tail().0.saturating_sub(*before).max(1);
                let seqs = (first..=all).take(*len as usize).map(Seq);
                let batch: Vec<Seq> =
                    seqs.filter(|seq| !left_out.contains(&(seq.0 - first))).collect();
                let process = &mut processes[*process];
                process.life = *life;
                if world.process(process, &batch).is_err() {
                    process.log = None;
                }
                process.life = usize::MAX;
            }
        }
    }
    // No unfinished command was acknowledged, so all of them come again, to any process.
    let rest: Vec<Seq> = (1..=all).map(Seq).collect();
    for (at, batch) in rest.chunks(7).enumerate() {
        world.process(&mut processes[at % 3], batch).expect("the process does not crash");
    }
    for process in &mut processes {
        world.process(process, &rest).expect("the process does not crash");
        world.check_state(process.service.as_ref());
    }

    assert_eq!(timeless(&world.entries), timeless(&straight.entries));
    world.check_repeats();
    let published: Vec<Seq> = world.published.keys().copied().collect();
    assert_eq!(published, world.journal.keys().copied().collect::<Vec<_>>(), "F5");
    world.snapshots
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn every_history_gives_the_same_log((commands, steps) in history(), idle in any::<bool>()) {
        play(commands, &steps, idle);
    }
}

/// The histories test enough only if they take snapshots and split windows.
#[test]
fn histories_take_snapshots() {
    let add = |note| ("add", json!({"counter": "a", "by": 0, "note": note}));
    let commands = (0..300).map(|n| {
        let (name, data) = add(2_000);
        (n, 1, name, data)
    });
    let deliver =
        |process| Step::Deliver { process, before: 3, len: 9, left_out: vec![], life: usize::MAX };
    let steps: Vec<Step> = (0..60).map(|n| deliver(n % 3)).collect();
    assert!(play(commands.collect(), &steps, false) > 5);
}
