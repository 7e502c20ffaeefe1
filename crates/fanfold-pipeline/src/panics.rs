//! Panic hooks for hosts: they log panics.
//!
//! A panic in users' code becomes an outcome, and the stages go on, so it is logged at `warn`. The
//! stage that makes the outcome logs which log it happened to.

use std::panic::{self, PanicHookInfo};

/// Installs a hook that only logs panics that become outcomes, and passes all others to the hook
/// before it. For hosts whose standard error is read.
pub fn log_those_caught() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if fanfold::host::catch::is_catching() {
            log_caught(info);
        } else {
            before(info);
        }
    }));
}

/// Installs a hook that logs every panic. One that does not become an outcome is a bug, and raises
/// an alarm. For hosts of which only the log is read.
pub fn log_all() {
    panic::set_hook(Box::new(|info| {
        if fanfold::host::catch::is_catching() {
            log_caught(info);
        } else {
            tracing::error!(
                alarm = "panic",
                panic = one_line(info),
                "a stage or its host panicked"
            );
        }
    }));
}

fn log_caught(info: &PanicHookInfo<'_>) {
    tracing::warn!(panic = one_line(info), "a service or a view panicked");
}

/// The message and the place of a panic, on one line.
fn one_line(info: &PanicHookInfo<'_>) -> String {
    info.to_string().replace('\n', " ")
}
