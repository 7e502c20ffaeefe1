//! The processor: it decodes records, groups commands by log, sorts each log's commands by seq, and
//! works on logs concurrently, within a bound.
//!
//! `docs/design.md#process`.

mod append;
mod cost;
mod gaps;
mod isolation;
mod leases;
mod order;
mod publishing;
mod reuse;
mod snapshots;
mod suspect;
mod versions;
