//! The stages over the real ports in memory, with a fault layer in between. Every sentence of the
//! design about the data and the stages closes a hole that someone found: each has a test here
//! that fails without it. Where a bug can be planted, that is checked too: see [`check`].

mod audit;
mod check;
mod death;
mod faults;
mod ingest;
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
