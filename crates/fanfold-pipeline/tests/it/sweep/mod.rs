//! The sweeps find logs and views that stand still. They decide no commands.
//!
//! `docs/design.md#sweep`.

mod canaries;
mod logs;
mod views;

use fanfold::LogId;

use crate::world::log;

/// More logs than these tests have.
const ALL: usize = 1_000;

fn org(name: &str) -> LogId {
    log(&format!("tally/org:{name}"))
}
