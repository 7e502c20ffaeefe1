//! The embedded engine against its promises: one binary.

mod admission;
mod broken_ports;
mod conformance;
mod durable;
mod engine;
mod event_source;
mod lethal;
mod memory;
mod paused_env;
mod reshard;
mod reshard_driven;
mod restart;
mod shards;
mod subscription;
mod waits;
