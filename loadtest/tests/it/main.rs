//! The load generator against a fake target.

mod described;
mod generator;
mod interrupts;
mod open_loop;
mod outcome;
mod proxy;
mod workload_files;
