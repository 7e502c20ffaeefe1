//! Runs the tests' scenarios.

use std::sync::Once;

use futures::executor::block_on;

/// Runs a scenario.
pub(crate) fn play(scenario: impl AsyncFn()) {
    be_quiet_about_faults();
    block_on(scenario());
}

/// Runs a random scenario with the seeds 1 to `seeds`. Prints the seed that fails.
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

/// Silences caught panics, since many scenarios have services and views that panic.
fn be_quiet_about_faults() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let loud = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !fanfold::host::catch::is_catching() {
                loud(info);
            }
        }));
    });
}
