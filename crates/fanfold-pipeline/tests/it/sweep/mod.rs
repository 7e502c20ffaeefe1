//! The sweeps find what stands still, and decide nothing.
//!
//! `docs/design.md#sweep`.

mod canaries;
mod logs;
mod views;

use fanfold::LogId;

use crate::world::log;

/// More logs than there are in these tests.
const ALL: usize = 1_000;

fn org(name: &str) -> LogId {
    log(&format!("tally/org:{name}"))
}
