//! The stages over the real ports in memory, with a fault layer in between. Each sentence of the design about the data
//! and the stages has a test here that fails without it; `mutations/` shows that of many of them.

mod audit;
mod check;
mod death;
mod faults;
mod ingest;
mod invariants;
mod lookup;
mod ports;
mod process;
mod project;
mod read;
mod relay;
mod sweep;
mod tally;
mod two_environments;
mod world;
