//! The configuration of an engine.

use std::sync::Arc;

use fanfold::{App, Services, Views};
use fanfold_pipeline::ports::Env;
use fanfold_pipeline::traces::Traces;

use crate::disk::{Disk, FileDisk, MemoryDisk};
use crate::env::SystemEnv;
use crate::limit::Limit;
use crate::tasks::{Spawner, TokioSpawner};

/// The services and views of an engine, and its settings.
#[derive(Clone)]
pub struct Config {
    /// The name of the app. A folder belongs to the first app that opens it, and another one is refused. `None` is
    /// taken by every folder.
    pub app: Option<String>,
    /// Whether a folder of another app becomes this one's.
    pub adopt: bool,
    /// The services.
    pub services: Services,
    /// The views.
    pub views: Views,
    /// Lanes per shard of the change stream and of the command stream, 1 to 10.
    pub parallelization: usize,
    /// The limits of data in transit.
    pub transit: TransitConfig,
    /// The pause between two runs of a sweep, in milliseconds.
    pub sweep_ms: u64,
    /// How long an invocation may run before the watchdog ends the process, in milliseconds. Has no
    /// effect without [`Machine::has_watchdog`].
    pub hang_ms: u64,
    /// How long a shutdown waits for data in transit, in milliseconds.
    pub drain_ms: u64,
    /// Whether [`Engine::chaos`](crate::Engine::chaos) can break the stages on purpose.
    pub chaos: bool,
    /// Where the stages report commands whose traces are recorded; `None`: nowhere.
    pub traces: Option<Arc<dyn Traces>>,
}

impl Config {
    /// The name, services and views of an app, and the default settings.
    pub fn of(app: &App) -> Self {
        let (services, views) = (app.services().clone(), app.views().clone());
        Self { app: Some(app.name().to_owned()), services, views, ..Self::default() }
    }
}

impl Default for Config {
    /// Hosts nothing.
    fn default() -> Self {
        Self {
            app: None,
            adopt: false,
            services: Services::default(),
            views: Views::default(),
            parallelization: 1,
            transit: TransitConfig::default(),
            // A sweep ignores what is younger than ten seconds: more runs would find no more.
            sweep_ms: 10_000,
            // Above the 70 s after which an event source drops an invocation.
            hang_ms: 80_000,
            // Half of the time that service managers commonly wait before they kill a process.
            drain_ms: 5_000,
            chaos: false,
            traces: None,
        }
    }
}

/// The limits of data in transit.
#[derive(Debug, Clone)]
pub struct TransitConfig {
    /// Shards of the change stream and, in a new folder, of the command stream.
    pub shards: usize,
    /// The backlog beyond which commands are refused.
    pub backlog: Limit,
    /// Bytes of notifications kept for subscribers that have not reached them yet.
    pub notifications_bytes_max: usize,
    /// The dead letters that are kept for one view.
    pub dead_letters: Limit,
}

impl Default for TransitConfig {
    /// For a machine with 1 GiB of memory: data in transit takes at most about a quarter of it.
    fn default() -> Self {
        Self {
            // About the number of cores of a machine whose load one process can take.
            shards: 4,
            // Some seconds of work.
            backlog: Limit { items: 200_000, bytes: 128 * 1024 * 1024 },
            notifications_bytes_max: 64 * 1024 * 1024,
            // More than a sweep delivers in ten runs: a view with so many letters is broken.
            dead_letters: Limit { items: 1_000, bytes: 16 * 1024 * 1024 },
        }
    }
}

/// The disk, the clock and the tasks of an engine.
#[derive(Clone)]
pub struct Machine {
    /// Files and tables.
    pub disk: Arc<dyn Disk>,
    /// Time and random numbers.
    pub env: Arc<dyn Env>,
    /// Runs the tasks.
    pub spawner: Arc<dyn Spawner>,
    /// Whether a watchdog ends the process when an invocation hangs. A supervisor must then restart
    /// the process, and the disk must have kept its data.
    pub has_watchdog: bool,
}

impl Machine {
    /// This machine: its disk, its clock, and the current tokio runtime.
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
