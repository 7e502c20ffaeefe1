//! The processor decodes records, groups commands by log, sorts each log's commands by seq, and
//! works on logs concurrently, within a bound. How it uses the journal and the state table.
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
