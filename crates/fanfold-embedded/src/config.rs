//! What an engine hosts, and how.

use std::sync::Arc;

use fanfold::{Services, Views};
use fanfold_pipeline::ports::Env;

use crate::disk::{Disk, FileDisk, MemoryDisk};
use crate::env::SystemEnv;
use crate::limit::Limit;
use crate::tasks::{Spawner, TokioSpawner};

/// What an engine hosts, and how.
#[derive(Clone)]
pub struct Config {
    /// The services.
    pub services: Services,
    /// The views.
    pub views: Views,
    /// Records are processed in so many tasks a shard, 1 to 10.
    pub parallelization: usize,
    /// How much is kept of what is on its way.
    pub transit: TransitConfig,
    /// How often the sweeps run, in milliseconds. On AWS a run costs money, here it does not.
    pub sweep_ms: u64,
    /// An invocation that has not returned after so many milliseconds ends the process of a durable engine.
    pub hang_ms: u64,
    /// How long a shutdown waits for what is on its way, in milliseconds.
    pub drain_ms: u64,
}

impl Default for Config {
    /// Hosts nothing.
    fn default() -> Self {
        Self {
            services: Services::default(),
            views: Views::default(),
            parallelization: 1,
            transit: TransitConfig::default(),
            // A log that stands still is left alone for ten seconds: looking more often finds no more.
            sweep_ms: 10_000,
            // An invocation has a minute, and ten seconds more before it is given up.
            hang_ms: 80_000,
            // Half of what service managers commonly wait before they kill.
            drain_ms: 5_000,
        }
    }
}

/// How much is kept of what is on its way.
#[derive(Debug, Clone)]
pub struct TransitConfig {
    /// Shards of the change stream and, in a new folder, of the command stream.
    pub shards: usize,
    /// How much may be on its way before commands are refused.
    pub backlog: Limit,
    /// Bytes of notifications kept for subscribers that have not come to them yet.
    pub notifications_bytes_max: usize,
    /// How many dead letters of one view are kept, and how large they may be together.
    pub dead_letters: Limit,
}

impl Default for TransitConfig {
    /// For a machine of 1 GiB: what is on its way takes at most about a quarter of it.
    fn default() -> Self {
        Self {
            // As many as cores, on the machines that one process is enough for.
            shards: 4,
            // Some seconds of work.
            backlog: Limit { items: 200_000, bytes: 128 * 1024 * 1024 },
            notifications_bytes_max: 64 * 1024 * 1024,
            // More than a sweep delivers in ten runs: a view with so many is broken.
            dead_letters: Limit { items: 1_000, bytes: 16 * 1024 * 1024 },
        }
    }
}

/// What an engine runs on.
#[derive(Clone)]
pub struct Machine {
    /// Files and tables.
    pub disk: Arc<dyn Disk>,
    /// Time and random numbers.
    pub env: Arc<dyn Env>,
    /// Runs the tasks.
    pub spawner: Arc<dyn Spawner>,
    /// Whether a hung invocation ends the process: something must start it again, and it must find its data then.
    pub has_watchdog: bool,
}

impl Machine {
    /// This machine: its disk, its clock, and the tokio runtime that this is called in.
    pub fn this() -> Self {
        Self {
            disk: Arc::new(FileDisk),
            env: Arc::new(SystemEnv),
            spawner: Arc::new(TokioSpawner::current()),
            has_watchdog: true,
        }
    }

    /// As [`Machine::this`], with a disk in memory.
    pub fn in_memory() -> Self {
        Self { disk: Arc::new(MemoryDisk::default()), has_watchdog: false, ..Self::this() }
    }
}
