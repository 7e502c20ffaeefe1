//! The embedded engine against its promises: one binary.

mod admission;
mod broken_ports;
mod child;
mod command_log;
mod conformance;
mod durable;
mod engine;
mod event_source;
mod lethal;
mod many_logs;
mod memory;
mod paused_env;
#[cfg(feature = "fault-points")]
mod rare_effects;
mod reshard;
mod reshard_driven;
mod restart;
mod shards;
#[cfg(feature = "fault-points")]
mod store;
mod subscription;
#[cfg(feature = "fault-points")]
mod torn_log;
mod waits;
