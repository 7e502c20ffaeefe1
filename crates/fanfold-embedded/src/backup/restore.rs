//! Makes a new data folder from a backup.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::disk::{Disk, FileDisk};
use crate::owner::APP_KEY;
use crate::store::command_log::CommandLog;
use crate::store::folder::copy::{Target, TargetError, lock_whole};
use crate::store::folder::{COMMANDS, TABLES};
use crate::store::{OpenError, StoreError, Table, tables};

/// The bytes of a file that are copied at a time.
const PIECE_BYTES: usize = 1024 * 1024;

/// Why nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not a complete folder, or is in use.
    #[error("there is no backup to restore")]
    NoBackup(#[source] OpenError),
    /// The backup belongs to another app.
    #[error("the backup {} has the data of the app `{found}`, and this is `{app}`: restore it with the program of that app", .backup.display())]
    OtherApp {
        /// The backup.
        backup: PathBuf,
        /// The app that it belongs to.
        found: String,
        /// The app that would have restored it.
        app: String,
    },
    /// The folder cannot be restored to.
    #[error(transparent)]
    Folder(#[from] TargetError),
    /// The backup could not be copied, or is damaged.
    #[error("the backup {} could not be restored", .backup.display())]
    Failed {
        /// The backup.
        backup: PathBuf,
        /// The cause.
        #[source]
        source: StoreError,
    },
}

/// What was restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restored {
    /// The bytes of all keys, values and commands.
    pub bytes: u64,
    /// The position in the command log up to which all commands are in it.
    pub position: u64,
}

/// Copies a backup into a new or empty folder, an absolute path, and reads all of the copy. Writes nothing
/// into the backup. `app`: the name of the app that it must belong to.
pub fn restore(backup: &Path, folder: &Path, app: &str) -> Result<Restored, RestoreError> {
    restore_on(Arc::new(FileDisk), backup, folder, app)
}

/// As [`restore`], on the given disk.
pub(crate) fn restore_on(
    disk: Arc<dyn Disk>,
    backup: &Path,
    folder: &Path,
    app: &str,
) -> Result<Restored, RestoreError> {
    let _lock = lock_whole(&*disk, backup).map_err(RestoreError::NoBackup)?;
    let target = Target::take(disk.clone(), folder, backup)?;
    let restored = copy(&disk, backup, &target, app);
    match restored {
        Ok(_) => drop(target),
        Err(_) => target.discard(),
    }
    restored
}

fn copy(
    disk: &Arc<dyn Disk>,
    backup: &Path,
    target: &Target,
    app: &str,
) -> Result<Restored, RestoreError> {
    let failed = |source: StoreError| RestoreError::Failed { backup: backup.to_owned(), source };
    copy_log(&**disk, &backup.join(COMMANDS), &target.commands())
        .and_then(|()| disk.copy_tables(&backup.join(TABLES), &target.tables()))
        .map_err(|error| failed(error.into()))?;
    let names: Vec<String> = tables::NAMES.iter().map(|&name| name.to_owned()).collect();
    let stored = disk.open_tables(&target.tables(), &names, false).map_err(failed)?;
    let found = stored.get(Table::META, APP_KEY).map_err(failed)?;
    if let Some(found) = found.filter(|found| found != app.as_bytes()) {
        return Err(RestoreError::OtherApp {
            backup: backup.to_owned(),
            found: String::from_utf8_lossy(&found).into_owned(),
            app: app.to_owned(),
        });
    }
    // Reading verifies the checksums of the tables' blocks, and of the command log's groups.
    let mut bytes = 0;
    {
        let snapshot = stored.snapshot().map_err(failed)?;
        for name in snapshot.names() {
            let mut after = None;
            loop {
                let page = snapshot.page(name, after.as_deref(), PIECE_BYTES).map_err(failed)?;
                let Some((last, _)) = page.last() else { break };
                after = Some(last.clone());
                bytes += page.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>();
            }
        }
    }
    let done = tables::done(&*stored).map_err(failed)?;
    let log = CommandLog::open(disk.clone(), &target.commands(), done, |_, group| {
        bytes += group.len();
        Ok(())
    });
    let next = log.map_err(failed)?.next();
    tables::check_copied(&*stored, next).map_err(failed)?;
    drop(stored);
    target.finish().map_err(|error| failed(error.into()))?;
    Ok(Restored { bytes: bytes as u64, position: next - 1 })
}

/// Copies the files of a closed command log, durably.
fn copy_log(disk: &dyn Disk, from: &Path, to: &Path) -> io::Result<()> {
    disk.make_folder(to)?;
    let mut piece = vec![0; PIECE_BYTES];
    for (name, _) in disk.list(from)?.iter().filter(|(name, _)| name.ends_with(".log")) {
        let (file, mut copy) = (disk.open_to_read(&from.join(name))?, disk.create(&to.join(name))?);
        let mut at = 0;
        loop {
            let read = file.read_at(at, &mut piece)?;
            if read == 0 {
                break;
            }
            copy.write_at(at, &piece[..read])?;
            at += read as u64;
        }
        copy.sync()?;
    }
    disk.sync_folder(to)
}
