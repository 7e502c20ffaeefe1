//! How the tests play their scenarios.

use std::sync::Once;

use futures::executor::block_on;

/// Plays a scenario.
pub(crate) fn play(scenario: impl AsyncFn()) {
    be_quiet_about_faults();
    block_on(scenario());
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
