//! Panics of users' code become outcomes: they are no news for standard error.

use std::panic;

/// From now on a panic that becomes an outcome is only logged, at `warn`; all others go where they
/// went before.
pub fn log_those_caught() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if fanfold::catch::is_catching() {
            let panic = info.to_string().replace('\n', " ");
            tracing::warn!(panic, "a service or a view panicked");
        } else {
            before(info);
        }
    }));
}
