//! The process aborts right after an effect of each kind: once before any of it is on disk, and
//! once after a checkpoint that holds the effect and nothing later.

use std::thread;
use std::time::Duration;

use fanfold_embedded::testing::EFFECTS;

use crate::audit::audit;
use crate::crash::seed;
use crate::load::Load;
use crate::{Up, up_on};

/// The signal of `abort`.
const SIGABRT: i32 = 6;
/// Which occurrence of the effect aborts: the first, and one during which others are in progress.
const NTHS: [u64; 2] = [1, 20];

#[test]
fn nothing_is_lost_if_the_process_crashes_after_any_effect() {
    die_after_each(false);
}

#[test]
fn nothing_is_lost_if_the_process_crashes_after_an_effect_that_is_in_a_checkpoint() {
    die_after_each(true);
}

fn die_after_each(checkpoint_first: bool) {
    let seed = seed();
    for effect in EFFECTS {
        // There is a checkpoint only every 500 ms, so the 20th comes too late.
        let of_checkpoint = effect.starts_with("checkpoint.");
        if of_checkpoint && checkpoint_first {
            continue;
        }
        for nth in NTHS {
            let nth = if of_checkpoint { nth.min(3) } else { nth };
            die_after(effect, nth, checkpoint_first, seed);
        }
    }
}

fn die_after(effect: &str, nth: u64, checkpoint_first: bool, seed: u64) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut load = Load::new(seed, 3, 20_000);
    let mut command = up_on(folder.path());
    command.env("FANFOLD_ABORT_AFTER", format!("{effect}:{nth}"));
    if checkpoint_first {
        command.env("FANFOLD_CHECKPOINT_FIRST", "1");
    }
    let mut up = Up::start(&mut command);
    load.run(&up.url.clone(), || {
        let died = up.died(Duration::from_secs(20));
        assert_eq!(died, Some(SIGABRT), "{effect}:{nth} was not reached");
    });
    let acknowledged = load.acknowledged();
    // Crashes again during recovery, if recovery causes the effect.
    drop(up);
    let mut again = command.spawn().expect("the binary starts");
    thread::sleep(Duration::from_millis(300));
    again.kill().expect("it can be killed");
    again.wait().expect("it ends");
    let up = Up::on(folder.path());
    audit(&up.url, &load);
    load.resend(&up.url);
    let audited = audit(&up.url, &load);
    assert_eq!(load.acknowledged(), load.sent().count());
    println!("{effect}:{nth}: {acknowledged} commands were acknowledged before; {audited:?}");
}
