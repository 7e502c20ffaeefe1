//! The whole of Fanfold in one process: for development, for tests, and for users whom one machine
//! still serves.
//!
//! In reading order:
//!
//! 1. [`hash_key`]: which shard, lane and bucket a log belongs to;
//! 2. [`shard`]: an ordered queue of what is on its way, and how much that is;
//! 3. [`shards`]: a stream of them, which can be split and merged while it runs;
//! 4. [`memory`]: all ports in memory;
//! 5. [`store`]: a folder, with a command log and tables, of which checkpoints are made;
//! 6. [`durable`]: all ports on a store;
//! 7. [`ports`]: either of them;
//! 8. [`waits`]: waiting for what the journal and the views come to;
//! 9. [`event_source`]: drives a stage as Lambda's event source mappings do;
//! 10. [`subscription`]: delivers notifications to a view as SNS does;
//! 11. `again`: what is done again after a crash, and how, if the process ends there again;
//! 12. [`engine`]: all of it together, with [`SystemEnv`], the clock and chance of this machine.
//!
//! It guarantees what the ports ask for; in memory all but durability. What is on its way is bounded
//! in bytes and in count: [`memory::MemoryAdmission`] refuses commands before that grows without
//! end. Ports in memory, and everything below them, need no runtime, no clock but the port
//! [`Env`](fanfold_pipeline::ports::Env), and do the same in the same order each time: the simulator
//! runs on them.
//!
//! It knows nothing of AWS, and shares no code with the adapter for it: a bug in both would hide.
//! It knows nothing of HTTP, and nothing of what services decide.

mod again;
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
mod start;
pub mod stop;
pub mod store;
mod striped;
pub mod subscription;
pub mod waits;
mod watchdog;

pub use engine::{Config, Engine, Status, Watch};
pub use env::SystemEnv;
