//! Panics as events of the log: what a hook of a host does with them.
//!
//! Those of users' code become outcomes, and the stages go on: they are told at `warn`. Which log it
//! was, the stage says that makes the outcome of it.

use std::panic::{self, PanicHookInfo};

/// From now on a panic that becomes an outcome is only logged; all others go where they went
/// before. For hosts whose standard error somebody reads.
pub fn log_those_caught() {
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if fanfold::catch::is_catching() {
            log_caught(info);
        } else {
            before(info);
        }
    }));
}

/// From now on every panic is logged, one that is a bug with an alarm. For hosts whose log is all
/// that anybody reads.
pub fn log_all() {
    panic::set_hook(Box::new(|info| {
        if fanfold::catch::is_catching() {
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

/// What it said, and where.
fn one_line(info: &PanicHookInfo<'_>) -> String {
    info.to_string().replace('\n', " ")
}
