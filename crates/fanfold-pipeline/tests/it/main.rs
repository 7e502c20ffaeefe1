//! Tests of the stages over the in-memory ports, with a fault layer in between. They cover the
//! sentences of `docs/design.md` about the data and the stages. `mutations/` shows for many of
//! these that a test fails when the sentence does not hold.

mod announced;
mod audit;
mod check;
mod crash;
mod ingest;
mod invariants;
mod lookup;
mod operate;
mod packing;
mod process;
mod project;
mod read;
mod relay;
mod sweep;
mod tally;
mod two_environments;
mod world;
