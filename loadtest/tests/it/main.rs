//! The generator and its auditor, against a target in memory.

mod generator;
mod interrupts;
mod open_loop;
mod outcome;
mod proxy;
