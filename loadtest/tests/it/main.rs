//! The generator and its auditor, against a target in memory.

mod auditor;
mod fake;
mod fake_log;
mod plant;
mod purity;
mod script;
