//! The generator and its auditor, against a target in memory.

mod auditor;
mod fake;
mod fake_log;
mod generator;
mod plant;
mod proxy;
mod purity;
mod script;
