//! Tests of the stages over the in-memory ports, with a fault layer in between. They cover the
//! sentences of `docs/design.md` about the data and the stages. `mutations/` shows for many of
//! these that a test fails when the sentence does not hold.

mod announced;
mod arrivals;
mod audit;
mod check;
mod crash;
mod doctor;
mod follow;
mod ingest;
mod invariants;
mod lookup;
mod metrics;
mod operate;
mod packing;
mod process;
mod project;
mod read;
mod rebuild;
mod relay;
mod restore_drill;
mod restored;
mod sweep;
mod tally;
mod telemetry;
mod traces;
mod two_environments;
mod world;
