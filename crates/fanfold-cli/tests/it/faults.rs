//! The process ends right after each kind of effect, once with nothing of it on disk, and once with
//! a checkpoint that holds the effect and nothing of what comes after it.

use std::thread;
use std::time::Duration;

use fanfold_embedded::faults::EFFECTS;

use crate::audit::audit;
use crate::crash::seed;
use crate::load::Load;
use crate::{Up, up_on};

/// What `abort` sends.
const SIGABRT: i32 = 6;
/// How often each effect happens first: not at all, and so often that others are under way.
const NTHS: [u64; 2] = [1, 20];

#[test]
fn nothing_is_lost_after_whichever_effect_the_process_dies() {
    die_after_each(false);
}

#[test]
fn nothing_is_lost_after_whichever_effect_the_process_dies_even_if_that_is_on_disk() {
    die_after_each(true);
}

fn die_after_each(checkpoint_first: bool) {
    let seed = seed();
    for effect in EFFECTS {
        // There is one checkpoint each 500 ms.
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
    command.env("FANFOLD_DIE_AFTER", format!("{effect}:{nth}"));
    if checkpoint_first {
        command.env("FANFOLD_CHECKPOINT_FIRST", "1");
    }
    let mut up = Up::start(&mut command);
    load.run(&up.url.clone(), || {
        let died = up.died(Duration::from_secs(20));
        assert_eq!(died, Some(SIGABRT), "{effect}:{nth} was not reached");
    });
    let acknowledged = load.acknowledged();
    // And again, while what was lost is done again, if that brings the effect about.
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
