//! Tests of the embedded engine's guarantees.

mod admission;
mod broken_ports;
mod child;
mod command_log;
mod conformance;
mod durable;
mod engine;
mod event_source;
mod first_start;
mod gaps;
mod interleave;
mod lethal;
mod many_logs;
mod memory;
mod paused_env;
mod rare_effects;
mod reshard;
mod reshard_driven;
mod restart;
mod shards;
mod store;
mod subscription;
mod torn_log;
mod waits;
