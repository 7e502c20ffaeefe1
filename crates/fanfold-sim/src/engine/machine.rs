//! The simulated machine of an engine: a disk that fails and fills up, and a clock that jumps.

use std::io::{self, ErrorKind};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use fanfold::Time;
use fanfold_embedded::testing::Spawner;
use fanfold_embedded::testing::{DiskCall, DiskFault, DiskFaults};
use fanfold_pipeline::ports::Env;
use futures::future::BoxFuture;

use super::{Counts, Fault};
use crate::executor::World;

/// The faults of the disk in one life of an engine.
pub(super) struct SimDisk {
    world: World,
    on: AtomicBool,
    /// The probability that a call fails, in thousandths.
    errors: u64,
    /// The machine stops at the call with this number; 0: it does not.
    stops_at: u64,
    calls: AtomicU64,
    has_stopped: AtomicBool,
    has_failed: AtomicBool,
    is_full: AtomicBool,
    counts: Arc<Mutex<Counts>>,
}

impl SimDisk {
    /// Draws the faults from the seed. If the machine stops in a call, it is often one of the first
    /// `few`.
    pub(super) fn draw(world: &World, counts: Arc<Mutex<Counts>>, few: u64) -> Self {
        Self {
            world: world.clone(),
            on: AtomicBool::new(true),
            errors: if world.happens(400) { world.pick(1..60) } else { 0 },
            stops_at: match world.pick(0..4) {
                0 => 1 + world.pick(0..few),
                1 => 1 + world.pick(0..1_000),
                _ => 0,
            },
            calls: AtomicU64::new(0),
            has_stopped: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
            is_full: AtomicBool::new(false),
            counts,
        }
    }

    /// Turns all faults off.
    pub(super) fn off(&self) {
        self.on.store(false, Ordering::Relaxed);
        self.is_full.store(false, Ordering::Relaxed);
    }

    pub(super) fn fill(&self, is_full: bool) {
        if is_full {
            self.count(Fault::DiskFull);
        }
        self.is_full.store(is_full && self.on.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether the machine has stopped. No call takes effect after that.
    pub(super) fn has_stopped(&self) -> bool {
        self.has_stopped.load(Ordering::Relaxed)
    }

    /// Whether any call has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    fn count(&self, fault: Fault) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(fault).or_default() += 1;
    }

    /// The number of bytes that a failed write has written.
    fn torn(&self, call: DiskCall) -> usize {
        match call {
            DiskCall::Write(bytes) if bytes > 0 => {
                self.count(Fault::TornWrite);
                self.world.pick(0..bytes as u64) as usize
            }
            _ => 0,
        }
    }
}

impl DiskFaults for SimDisk {
    fn fault(&self, call: DiskCall) -> DiskFault {
        let fault = self.draw_fault(call);
        if fault != DiskFault::None {
            self.has_failed.store(true, Ordering::Relaxed);
        }
        fault
    }
}

impl SimDisk {
    fn draw_fault(&self, call: DiskCall) -> DiskFault {
        if self.has_stopped() {
            return DiskFault::Before(ErrorKind::Other, 0);
        }
        if !self.on.load(Ordering::Relaxed) {
            return DiskFault::None;
        }
        if self.calls.fetch_add(1, Ordering::Relaxed) + 1 == self.stops_at {
            self.has_stopped.store(true, Ordering::Relaxed);
            self.count(Fault::StoppedInCall);
            self.world.stop();
            return match self.world.pick(0..2) {
                0 => DiskFault::Before(ErrorKind::Other, self.torn(call)),
                // This call takes effect, and all later calls fail.
                _ => DiskFault::After(ErrorKind::Other),
            };
        }
        let grows = matches!(call, DiskCall::Write(_) | DiskCall::Commit);
        if self.is_full.load(Ordering::Relaxed) && grows {
            return DiskFault::Before(ErrorKind::StorageFull, self.torn(call));
        }
        if self.world.happens(self.errors) {
            self.count(Fault::DiskError);
            return match self.world.pick(0..3) {
                0 => DiskFault::After(ErrorKind::Other),
                1 => DiskFault::Before(ErrorKind::StorageFull, self.torn(call)),
                _ => DiskFault::Before(ErrorKind::Other, self.torn(call)),
            };
        }
        DiskFault::None
    }
}

/// A clock that jumps: the world's time plus an offset. The uptime does not jump.
#[derive(Clone)]
pub(super) struct SimClock {
    pub(super) world: World,
    pub(super) offset_ms: Arc<AtomicI64>,
    /// The build that runs in this life.
    pub(super) build: &'static str,
}

#[async_trait]
impl Env for SimClock {
    fn now(&self) -> Time {
        Time(self.world.now().0.saturating_add_signed(self.offset_ms.load(Ordering::Relaxed)))
    }

    fn uptime_ms(&self) -> u64 {
        self.world.now().0
    }

    fn random(&self) -> u64 {
        self.world.random()
    }

    fn build(&self) -> Option<&str> {
        Some(self.build)
    }

    async fn sleep(&self, ms: u64) {
        self.world.sleep(ms).await;
    }
}

/// Starts every task on the executor, also those that have a thread of their own in production.
pub(super) struct SimSpawner(pub(super) World);

impl Spawner for SimSpawner {
    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.detach(task);
    }

    fn spawn_thread(&self, _: &str, task: BoxFuture<'static, ()>) -> io::Result<()> {
        self.0.detach(task);
        Ok(())
    }
}
