//! The whole of Fanfold in one process: for development, for tests, and for users whom one machine
//! still serves.
//!
//! In reading order:
//!
//! 1. [`hash_key`]: which shard, lane and bucket a log belongs to;
//! 2. [`shard`]: an ordered queue of what is on its way, and how much that is;
//! 3. [`shards`]: a stream of them, which can be split and merged while it runs;
//! 4. [`memory`]: all ports in memory;
//! 5. [`waits`]: waiting for what the journal and the views come to;
//! 6. [`event_source`]: drives a stage as Lambda's event source mappings do;
//! 7. [`subscription`]: delivers notifications to a view as SNS does;
//! 8. [`engine`]: all of it together, with [`SystemEnv`], the clock and chance of this machine.
//!
//! It guarantees what the ports ask for, but durability: everything is in memory, and gone when the
//! process ends. What is on its way is bounded in bytes and in count: [`memory::MemoryAdmission`]
//! refuses commands before that grows without end. Everything below [`event_source`] needs no
//! runtime, no clock but the port [`Env`](fanfold_pipeline::ports::Env), and does the same in the
//! same order each time: the simulator runs on it.
//!
//! It knows nothing of AWS, and shares no code with the adapter for it: a bug in both would hide.
//! It knows nothing of HTTP, and nothing of what services decide.

pub mod durable;
pub mod engine;
pub mod env;
pub mod event_source;
pub mod faults;
pub mod hash_key;
pub mod memory;
pub mod ports;
pub mod shard;
pub mod shards;
pub mod stop;
pub mod store;
mod striped;
pub mod subscription;
pub mod waits;

pub use engine::{Config, Engine, Status, Watch};
pub use env::SystemEnv;
