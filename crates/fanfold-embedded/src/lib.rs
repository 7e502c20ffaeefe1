//! The whole of Fanfold in one process: for development, for tests, and for users whose load one
//! machine can take.
//!
//! In reading order:
//!
//! 1. `config`: what an [`Engine`] hosts, and what it runs on;
//! 2. `disk`: files and tables, real ones and ones in memory;
//! 3. `store`: a folder with a command log and tables, of which checkpoints are made;
//! 4. `tables`: the ports whose data is only tables;
//! 5. `commands`: the commands table, and the loop that appends to the command log;
//! 6. `transit` and `shards`: data in transit; streams that can be split and merged while they run;
//! 7. `event_source`: drives a stage as Lambda's event source mappings do;
//! 8. `subscription`: delivers notifications to a view as SNS does;
//! 9. `recovery`: checkpoints, and processing commands again after a crash;
//! 10. `backup`: copies of the folder of a running engine;
//! 11. `chaos`: breaks a running engine on purpose, for drills;
//! 12. `start` and `engine`: assemble all of it, and run it.
//!
//! The engine fulfils the specification of the ports. Data in transit is limited in bytes and in
//! items: beyond the limit, the admission refuses commands. Time, random numbers, files and tasks
//! come in through a [`Machine`], so the simulator runs this engine deterministically, with
//! crashes.
//!
//! The engine depends neither on AWS nor on HTTP nor on any service. It shares no code with the AWS
//! adapter: a bug in shared code would stay hidden.

mod backup;
mod chaos;
mod commands;
mod config;
mod disk;
mod engine;
mod env;
mod event_source;
mod faults;
mod hash_key;
mod host_checks;
mod interleave;
mod limit;
mod owner;
mod ports;
mod recovery;
mod rising;
mod shards;
mod start;
mod stop;
mod store;
mod striped;
mod subscription;
mod tables;
mod tasks;
mod transit;
mod waiting;
mod waits;
mod walked;

pub use backup::{
    BackupError, BackupState, BackupStatus, Backups, RestoreError, Restored, restore,
};
pub use chaos::{
    Chaos, ChaosPort, ChaosStage, DELAY_MS_MAX, FAULT_MS_MAX, Fault, NotPlanted, Planted, Scope,
};
pub use config::{Config, Machine, TransitConfig};
pub use engine::{Engine, Lags, Monitor, Status};
pub use env::SystemEnv;
pub use fanfold_pipeline::ports::RowRange;
pub use fanfold_pipeline::read::Awaited;
pub use hash_key::{HashKey, HashKeyRange, NotAHashKey};
pub use limit::Limit;
pub use recovery::Durability;
pub use shards::{NotAShardId, ReshardError, ShardId, ShardInfo, ShardState, Shards};
pub use store::folder::copy::TargetError;
pub use store::{OpenError, StoreError};
pub use subscription::Deliveries;
pub use waiting::Waiting;
pub use walked::Walked;

/// For the simulator and the tests of other crates: ports without an engine, and a disk that fails.
pub mod testing {
    pub use crate::commands::StoredCommands;
    pub use crate::disk::{Disk, DiskCall, DiskFault, DiskFaults, DiskFile, MemoryDisk};
    #[cfg(feature = "fault-points")]
    pub use crate::faults::EFFECTS;
    pub use crate::interleave::Between;
    #[cfg(any(test, feature = "interleavings"))]
    pub use crate::interleave::interleave;
    pub use crate::ports::Ports;
    pub use crate::tables::{
        StoredDeadLetters, StoredJournal, StoredParked, StoredState, StoredTimeline, StoredView,
        StoredViewRegistry,
    };
    pub use crate::tasks::Spawner;
    pub use crate::transit::Position;
}

#[cfg(test)]
mod tests;
