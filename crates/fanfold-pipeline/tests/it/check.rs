//! How a scenario is played: once as it is, and once for each sentence of the design that it
//! guards, with that sentence undone. It must hold, and then it must not.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use fanfold::planted::Bug;
use futures::executor::block_on;

/// Plays a scenario that must hold, and must fail with each of these bugs.
pub(crate) fn check(bugs: &[Bug], scenario: impl AsyncFn()) {
    be_quiet_about_faults();
    block_on(scenario());
    for bug in bugs {
        // The panic is caught inside, so that the bug is dug up in any case.
        let found = bug.plant(|| catch_unwind(AssertUnwindSafe(|| block_on(scenario()))));
        match found {
            Ok(()) => panic!("nobody notices {bug:?}"),
            Err(panic) => println!("{bug:?}: {}", message(panic.as_ref())),
        }
    }
}

/// Plays a scenario that guards a sentence which no planted bug undoes.
pub(crate) fn play(scenario: impl AsyncFn()) {
    check(&[], scenario);
}

/// Plays a random scenario with each of so many seeds; the one that fails is printed.
pub(crate) async fn seeds(seeds: u64, scenario: impl AsyncFn(u64)) {
    struct Seed(u64);
    impl Drop for Seed {
        fn drop(&mut self) {
            if std::thread::panicking() {
                println!("with seed {}:", self.0);
            }
        }
    }
    for seed in 1..=seeds {
        let _printed = Seed(seed);
        scenario(seed).await;
    }
}

/// Services and views that break are a part of many scenarios.
fn be_quiet_about_faults() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !fanfold::catch::is_catching() {
                loud(info);
            }
        }));
    });
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(no message)")
}
