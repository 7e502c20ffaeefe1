//! What happens seldom beside clients and readers: shards are split and merged, the folder is backed up,
//! the disk fills up, and the clock jumps.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use fanfold::Time;
use fanfold::host::invariant::Invariant;
use fanfold_embedded::testing::{Disk, MemoryDisk};
use fanfold_embedded::{BackupError, BackupState, Engine, Machine};
use fanfold_pipeline::operate::Done;
use fanfold_pipeline::ports::Env;

use super::machine::{SimClock, SimDisk, SimSpawner};
use super::seen::{Promises, SeenBefore};
use super::{Fault, LIFE_MS_MAX, Run, SELDOM_MS, audit};

/// How far the clock jumps, in milliseconds.
const JUMP_MS_MAX: u64 = 2 * 60 * 60 * 1_000;
/// The folder of a backup.
const BACKUP: &str = "/backup";
/// The pause between two looks how far a backup is, in milliseconds.
const BACKUP_LOOK_MS: std::ops::Range<u64> = 1..40;

/// A complete backup, with what clients and readers had seen before it was requested.
pub(super) struct Copied {
    path: PathBuf,
    due: Promises,
    before: SeenBefore,
}

impl Run {
    /// Splits and merges shards of the command stream.
    pub(super) async fn reshard(&self, engine: &Engine) {
        loop {
            self.pause(SELDOM_MS).await;
            let shards = engine.shards();
            let at = self.world.pick(0..shards.len() as u64) as usize;
            let other = self.world.pick(0..shards.len() as u64) as usize;
            if self.world.happens(500) && shards.len() < 8 {
                if engine.split_shard(shards[at].id, None).is_ok() {
                    self.count(Fault::Split);
                }
            } else if engine.merge_shards(shards[at].id, shards[other].id).is_ok() {
                self.count(Fault::Merged);
            }
        }
    }

    /// Has single logs of views rebuilt, in some lives. A stop of the machine may leave one half-way.
    pub(super) async fn rebuild(&self, engine: &Engine) {
        if !self.world.happens(300) || !engine.recovered().await {
            return;
        }
        loop {
            self.pause(SELDOM_MS).await;
            let (logs, views) = (self.logs(engine).await, self.views.iter().collect::<Vec<_>>());
            if logs.is_empty() {
                continue;
            }
            let log = &logs[self.world.pick(0..logs.len() as u64) as usize];
            let view = views[self.world.pick(0..views.len() as u64) as usize];
            if !view.services().contains(&log.service()) {
                continue;
            }
            self.seen.borrow_mut().rebuilt.insert((view.name(), log.clone()));
            let mut begun = None;
            while let Ok(Done::Rebuilding { begun: of, wait_ms, .. }) =
                engine.operate().rebuild(view.name(), log, begun).await
            {
                begun = of;
                self.world.sleep(1 + wait_ms).await;
            }
            self.count(Fault::Rebuilt);
        }
    }

    /// Fills the disk for a while, and sets the clock.
    pub(super) async fn spoil(&self, faults: &SimDisk) {
        loop {
            self.pause(SELDOM_MS).await;
            if self.world.happens(200) {
                faults.fill(true);
                self.pause(SELDOM_MS).await;
                faults.fill(false);
            }
            if self.world.happens(200) {
                let jump = self.world.pick(0..2 * JUMP_MS_MAX) as i64 - JUMP_MS_MAX as i64;
                self.offset_ms.store(jump, Ordering::Relaxed);
                self.count(Fault::ClockJumped);
            }
        }
    }

    /// Backs the folder up, in some lives. The last complete backup of a life is checked after it.
    pub(super) async fn back_up(&self, engine: &Engine, faults: &SimDisk) {
        let Some(backups) = engine.backups().filter(|_| self.world.happens(400)) else { return };
        loop {
            self.pause(SELDOM_MS).await;
            // A power cut may bring back a part of what an earlier life has removed.
            let path = Path::new(BACKUP).join(self.world.random().to_string());
            let due = self.seen.borrow().promised.clone();
            let before = self.seen.borrow().before();
            let failed = match backups.begin(&path, None) {
                Err(error) => Some(error.to_string()),
                Ok(_) => loop {
                    match backups.last().map(|last| last.state) {
                        Some(BackupState::Running) => self.pause(BACKUP_LOOK_MS).await,
                        Some(BackupState::Failed(error)) => break Some(error),
                        _ => break None,
                    }
                },
            };
            let Some(error) = failed else {
                self.count(Fault::BackedUp);
                self.copied.replace(Some(Copied { path, due, before }));
                continue;
            };
            self.count(Fault::BackupFailed);
            let excused = faults.has_failed() || error == BackupError::Stopped.to_string();
            let what = || format!("a backup fails without a fault: {error}");
            self.seen.borrow_mut().check(Invariant::F8, excused, what);
        }
    }

    /// Opens the last backup of a life as it is on the disk after that life, and audits it. Then removes
    /// all backups.
    pub(super) fn check_copied(&self, disk: &MemoryDisk, build: &'static str) {
        let copied = self.copied.take();
        if let Some(copied) = copied {
            self.world.resume();
            let clock =
                SimClock { world: self.world.clone(), offset_ms: self.offset_ms.clone(), build };
            let machine = Machine {
                disk: Arc::new(disk.copied()),
                env: Arc::new(clock),
                spawner: Arc::new(SimSpawner(self.world.clone())),
                has_watchdog: false,
            };
            let Copied { path, due, before } = copied;
            match Engine::open_on(machine, self.config(), &path) {
                Ok(engine) => self.check_opened(Rc::new(engine), due, before),
                Err(error) => {
                    let what = || format!("the backup {} does not open: {error:?}", path.display());
                    self.seen.borrow_mut().check(Invariant::F8, false, what);
                }
            }
            self.executor.clear();
        }
        // It only fails if there is none: this disk has no faults.
        let _ = disk.remove_folder(Path::new(BACKUP));
    }

    fn check_opened(&self, engine: Rc<Engine>, due: Promises, before: SeenBefore) {
        let run = self.clone();
        let main = self.executor.spawn(async move {
            if !engine.recovered().await {
                return;
            }
            // What was seen after the request need not be in the backup.
            let now = run.seen.borrow_mut().exchange(before);
            let mut seen = std::mem::take(&mut *run.seen.borrow_mut());
            let mut model = audit::audit(&engine, &run.services, &run.views, &seen, &due).await;
            seen.exchange(now);
            for breach in &mut model.violations {
                breach.what = format!("in a backup: {}", breach.what);
            }
            seen.violations.append(&mut model.violations);
            *run.seen.borrow_mut() = seen;
        });
        let until = Time(self.world.now().0 + LIFE_MS_MAX);
        let ended = self.executor.run_until(&main, until);
        let what = || "a backup that was opened stands still".to_owned();
        self.seen.borrow_mut().check(Invariant::F8, ended, what);
    }
}
