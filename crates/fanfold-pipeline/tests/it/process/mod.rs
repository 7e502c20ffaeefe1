//! §6 "process(stream records): decodes, groups by log, sorts each log's commands by seq, runs logs
//! concurrently (bounded)", and what §5 says of the journal and the state table.

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
