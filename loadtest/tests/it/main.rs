//! The generator and its auditor, against a target in memory.

mod auditor;
mod fake;
mod fake_log;
mod generator;
mod interrupts;
mod manner;
mod open_loop;
mod outcome;
mod plant;
mod proxy;
mod purity;
mod script;
