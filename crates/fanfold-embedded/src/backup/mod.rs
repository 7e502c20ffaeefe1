//! Backups of the folder of a running engine, and restoring them.
//!
//! A backup is a state of the folder that a crash could have left: the tables as of one checkpoint, and
//! the command log behind it. First it makes a checkpoint, takes a snapshot of the tables, and copies the
//! command log; only meanwhile the command log is not trimmed. Then it copies the tables from the
//! snapshot, page by page. Appends, stages and checkpoints go on all the time. So every command that was
//! acknowledged before the request is in the backup.
//!
//! The folder of a backup is marked as incomplete until everything in it is durable (`store/folder/copy.rs`).

mod restore;

use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use fanfold::host::knob::Knob;
use fanfold::with_causes;
use fanfold_pipeline::ports::{Env, Unavailable};

#[cfg(test)]
pub(crate) use self::restore::restore_on;
pub use self::restore::{RestoreError, Restored, restore};

use crate::commands::StoredCommands;
use crate::recovery::RUN_KEY;
use crate::stop::Stop;
use crate::store::command_log::{self, CopyError};
use crate::store::folder::copy::{Target, TargetError};
use crate::store::{Store, StoreError, Table, tables};
use crate::striped::lock;
use crate::tasks::Tasks;

/// Bytes of a page of a table, which is one batch of the copy: what a backup needs of memory, beside the
/// buffers of the copy's tables. The larger of the two bounds is that of one item.
const PAGE_BYTES: Knob = Knob::new(1024 * 1024, 100);
/// The pause after a page, in milliseconds, in which others have the disk. Source: our choice, beside the
/// some milliseconds in which a disk writes and syncs a page.
const PAUSE_MS: u64 = 1;
/// The longest pause before the next look whether the engine stops, in milliseconds.
const LOOK_MS: u64 = 200;
/// How long a backup may take, in milliseconds. The tables keep the space of all that is replaced
/// meanwhile. Source: our choice; at 25 MB/s, 1 TB takes 11 hours.
const BACKUP_MS_MAX: u64 = 12 * 60 * 60 * 1_000;

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Another backup is under way.
    #[error("a backup into {} is under way: wait for its end", .0.display())]
    UnderWay(PathBuf),
    /// The folder cannot become a backup.
    #[error(transparent)]
    Folder(#[from] TargetError),
    /// The thread of the backup could not be started.
    #[error("the backup could not be started")]
    NotStarted(#[source] std::io::Error),
    /// No checkpoint could be made.
    #[error("the engine could not make a checkpoint ({0}): try again when it can")]
    NoCheckpoint(Unavailable),
    /// The data of the engine could not be read.
    #[error("the data could not be read")]
    Unreadable(#[source] StoreError),
    /// The backup could not be written.
    #[error("the backup could not be written: look whether its disk has space")]
    Unwritable(#[source] StoreError),
    /// The backup took too long.
    #[error("the backup took longer than 12 hours: give it a higher rate, or a faster disk")]
    TooLong,
    /// The engine stops.
    #[error("the host stopped before the backup was complete: make it again")]
    Stopped,
}

impl From<CopyError> for BackupError {
    fn from(error: CopyError) -> Self {
        match error {
            CopyError::Source(error) => Self::Unreadable(error),
            CopyError::Target(error) => Self::Unwritable(error),
            CopyError::Ended => Self::Stopped,
        }
    }
}

/// How far a backup is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupStatus {
    /// Its folder, as it was requested.
    pub folder: PathBuf,
    /// Whether it is complete.
    pub state: BackupState,
    /// The bytes of keys, values and commands that are written so far.
    pub bytes: u64,
    /// How long it has taken, in milliseconds.
    pub ms: u64,
    /// The position in the command log up to which all commands are in it; `None` until that is known.
    pub position: Option<u64>,
}

/// Whether a backup is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupState {
    /// It is under way.
    Running,
    /// It is complete and durable.
    Complete,
    /// It ended with this error. Nothing of it can be used.
    Failed(String),
}

/// Makes backups of an engine's folder, one at a time.
pub struct Backups {
    store: Arc<Store>,
    commands: Arc<StoredCommands>,
    env: Arc<dyn Env>,
    stop: Stop,
    tasks: Tasks,
    last: Arc<Mutex<Option<BackupStatus>>>,
}

/// A backup that is under way.
struct Backup {
    store: Arc<Store>,
    commands: Arc<StoredCommands>,
    env: Arc<dyn Env>,
    stop: Stop,
    bytes_per_s: Option<NonZeroU64>,
    began_ms: u64,
    status: Arc<Mutex<Option<BackupStatus>>>,
}

impl Backups {
    pub(crate) fn new(
        store: Arc<Store>,
        commands: Arc<StoredCommands>,
        env: Arc<dyn Env>,
        stop: Stop,
        tasks: Tasks,
    ) -> Self {
        Self { store, commands, env, stop, tasks, last: Arc::default() }
    }

    /// The backup that is under way, or else the last one since the start of the engine.
    pub fn last(&self) -> Option<BackupStatus> {
        lock(&self.last).clone()
    }

    /// Begins a backup into a new or empty folder, an absolute path. It goes on in a thread of its own;
    /// [`Backups::last`] says how far it is. Waits for the disk. `bytes_per_s`: no more than this.
    pub fn begin(
        &self,
        folder: &Path,
        bytes_per_s: Option<NonZeroU64>,
    ) -> Result<BackupStatus, BackupError> {
        let running = BackupStatus {
            folder: folder.to_owned(),
            state: BackupState::Running,
            bytes: 0,
            ms: 0,
            position: None,
        };
        let before = {
            let mut last = lock(&self.last);
            if let Some(last) = last.as_ref().filter(|last| last.state == BackupState::Running) {
                return Err(BackupError::UnderWay(last.folder.clone()));
            }
            last.replace(running.clone())
        };
        let begun = self.begin_alone(folder, bytes_per_s);
        if begun.is_err() {
            *lock(&self.last) = before;
        }
        begun.map(|()| running)
    }

    fn begin_alone(
        &self,
        folder: &Path,
        bytes_per_s: Option<NonZeroU64>,
    ) -> Result<(), BackupError> {
        let source = self.store.folder();
        let target = Target::take(source.disk().clone(), folder, source.path())?;
        let backup = Backup {
            store: self.store.clone(),
            commands: self.commands.clone(),
            env: self.env.clone(),
            stop: self.stop.clone(),
            bytes_per_s,
            began_ms: self.env.uptime_ms(),
            status: self.last.clone(),
        };
        self.tasks
            .spawn_thread("fanfold-backup", backup.run(target))
            .map_err(BackupError::NotStarted)
    }
}

/// A task that ends before the backup does, because the engine was dropped, leaves this state.
impl Drop for Backup {
    fn drop(&mut self) {
        self.update(|status| {
            if status.state == BackupState::Running {
                status.state = BackupState::Failed(BackupError::Stopped.to_string());
            }
        });
    }
}

impl Backup {
    async fn run(self, target: Target) {
        let copied = self.copy(&target).await;
        match &copied {
            Ok(()) => drop(target),
            Err(error) => {
                tracing::error!(error = with_causes(error), "the backup is not complete");
                target.discard();
            }
        }
        self.update(|status| {
            status.state = match copied {
                Ok(()) => BackupState::Complete,
                Err(error) => BackupState::Failed(with_causes(&error)),
            };
        });
    }

    fn update(&self, change: impl FnOnce(&mut BackupStatus)) {
        let ms = self.env.uptime_ms().saturating_sub(self.began_ms);
        if let Some(status) = lock(&self.status).as_mut() {
            // The status of an ended backup keeps its time.
            if status.state == BackupState::Running {
                status.ms = ms;
            }
            change(status);
        }
    }

    async fn copy(&self, target: &Target) -> Result<(), BackupError> {
        let unwritable = BackupError::Unwritable;
        let disk = self.store.folder().disk().clone();
        let held = self.commands.hold();
        let durable = self.stop.or(self.store.durable()).await.ok_or(BackupError::Stopped)?;
        durable.map_err(BackupError::NoCheckpoint)?;
        let (done, snapshot) = self.store.snapshot().map_err(BackupError::Unreadable)?;
        let (parts, next) = held.parts();
        let written = |bytes: usize| self.update(|status| status.bytes += bytes as u64);
        let mut part = |bytes: usize| {
            written(bytes);
            if self.stop.is_given() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        command_log::copy(&*disk, &parts, done, next, &target.commands(), &mut part)?;
        self.update(|status| status.position = Some(next - 1));
        drop(held);

        let names = snapshot.names().to_vec();
        let copy = disk.open_tables(&target.tables(), &names, true).map_err(unwritable)?;
        for (index, name) in names.iter().enumerate() {
            let mut after = None;
            loop {
                self.pause().await?;
                let page = snapshot.page(name, after.as_deref(), PAGE_BYTES.get());
                let page = page.map_err(BackupError::Unreadable)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                let bytes = page.iter().map(|(key, value)| key.len() + value.len()).sum();
                // A start of the copy follows no crash of its own.
                let is_run = |key: &[u8]| name == Table::META_NAME && key == RUN_KEY;
                let items = page.into_iter().filter(|(key, _)| !is_run(key));
                let mut items = items.map(|(key, value)| (Table::at(index), key, Some(value)));
                copy.commit(&mut items).map_err(unwritable)?;
                written(bytes);
            }
        }
        let (key, value) = tables::copied(next);
        let meta = names.iter().position(|name| name == Table::META_NAME).map(Table::at);
        copy.commit(&mut meta.map(|meta| (meta, key, Some(value))).into_iter())
            .map_err(unwritable)?;
        drop(copy);
        // What was copied is that of this folder only if it is still there.
        self.store.folder().check().map_err(BackupError::Unreadable)?;
        target.finish().map_err(|error| unwritable(error.into()))
    }

    /// Pauses between two pages: for others, and to stay below the rate.
    async fn pause(&self) -> Result<(), BackupError> {
        let bytes = lock(&self.status).as_ref().map_or(0, |status| status.bytes);
        let due_ms = self.bytes_per_s.map_or(0, |rate| bytes.saturating_mul(1_000) / rate);
        let mut pause_ms = PAUSE_MS;
        loop {
            let paused = self.stop.or(self.env.sleep(pause_ms)).await;
            paused.ok_or(BackupError::Stopped)?;
            let passed_ms = self.env.uptime_ms().saturating_sub(self.began_ms);
            if passed_ms > BACKUP_MS_MAX {
                return Err(BackupError::TooLong);
            }
            if passed_ms >= due_ms {
                return Ok(());
            }
            pause_ms = (due_ms - passed_ms).min(LOOK_MS);
        }
    }
}
