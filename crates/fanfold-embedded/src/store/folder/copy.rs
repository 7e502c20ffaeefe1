//! A new folder that becomes a copy of another one: complete, or refused by every start.

use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use super::{
    COMMANDS, COPY_FORMAT_FILE, Content, FORMAT, FORMAT_FILE, FORMAT_NAME, IGNORED, LOCK_FILE,
    OpenError, TABLES, content,
};
use crate::disk::{Disk, DiskFile};
use crate::store::StoreError;

/// Why a folder cannot become a copy.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// The path is relative.
    #[error("{} is not an absolute path: give one, which begins with `/`", .0.display())]
    Relative(PathBuf),
    /// The folder would be inside of the one that is copied.
    #[error("the folder {} is inside of the folder {}, which is copied: choose another folder", .folder.display(), .source_folder.display())]
    Inside {
        /// The folder.
        folder: PathBuf,
        /// The folder that is copied.
        source_folder: PathBuf,
    },
    /// There is something in the folder.
    #[error("the folder {} is not empty: choose a new folder, or remove what is in it", .0.display())]
    NotEmpty(PathBuf),
    /// Another process uses the folder.
    #[error("another process uses the folder {}: choose another folder", .0.display())]
    Locked(PathBuf),
    /// The folder cannot be made or written to.
    #[error("the folder {} cannot be written to ({reason}): change that, or choose another folder", .folder.display())]
    Unwritable {
        /// The folder.
        folder: PathBuf,
        /// The error of the disk.
        reason: StoreError,
    },
}

/// A folder that is becoming a copy. Holds the folder's lock.
pub(crate) struct Target {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    /// Whether the folder itself was made for the copy.
    is_made: bool,
    _lock: Box<dyn DiskFile>,
}

impl Target {
    /// Takes a new or empty folder, and durably marks it as an incomplete copy. `source` is the folder
    /// that will be copied.
    pub(crate) fn take(
        disk: Arc<dyn Disk>,
        folder: &Path,
        source: &Path,
    ) -> Result<Self, TargetError> {
        let failed = |error: io::Error| TargetError::Unwritable {
            folder: folder.into(),
            reason: error.into(),
        };
        if !folder.is_absolute() {
            return Err(TargetError::Relative(folder.to_owned()));
        }
        let path = disk.real_path(folder).map_err(failed)?;
        // `..` is left only behind what does not exist.
        if path.components().any(|component| component == Component::ParentDir) {
            return Err(failed(ErrorKind::NotFound.into()));
        }
        let source_path = disk.real_path(source).map_err(failed)?;
        if path.starts_with(&source_path) {
            let (folder, source_folder) = (folder.to_owned(), source.to_owned());
            return Err(TargetError::Inside { folder, source_folder });
        }
        let is_made = disk.is_missing(&path);
        disk.make_folder(&path).map_err(failed)?;
        let not_empty = || -> io::Result<bool> {
            let names = disk.list(&path)?;
            Ok(names.iter().any(|(name, _)| name != LOCK_FILE && !IGNORED.contains(&name.as_str())))
        };
        if not_empty().map_err(failed)? {
            return Err(TargetError::NotEmpty(folder.to_owned()));
        }
        let lock = disk.lock(&path.join(LOCK_FILE)).map_err(failed)?;
        let lock = lock.ok_or_else(|| TargetError::Locked(folder.to_owned()))?;
        // Another process may have made its content before it gave the lock back.
        if not_empty().map_err(failed)? {
            return Err(TargetError::NotEmpty(folder.to_owned()));
        }
        let target = Self { disk, path, is_made, _lock: lock };
        match target.begin() {
            Ok(()) => Ok(target),
            Err(error) => {
                target.discard();
                Err(failed(error))
            }
        }
    }

    fn begin(&self) -> io::Result<()> {
        let mut file = self.disk.create(&self.path.join(COPY_FORMAT_FILE))?;
        file.write_at(0, format!("{FORMAT_NAME}{FORMAT}\n").as_bytes())?;
        file.sync()?;
        self.disk.sync_folder(&self.path)?;
        // The user may just have made the folder. Without the right to read the folder above, its name
        // cannot be synced.
        match self.path.parent().map(|above| self.disk.sync_folder(above)) {
            Some(Err(error)) if error.kind() != ErrorKind::PermissionDenied => Err(error),
            _ => Ok(()),
        }
    }

    /// The path of the command log.
    pub(crate) fn commands(&self) -> PathBuf {
        self.path.join(COMMANDS)
    }

    /// The path of the tables.
    pub(crate) fn tables(&self) -> PathBuf {
        self.path.join(TABLES)
    }

    /// Durably marks the copy as complete. Its content is durable already.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.disk.sync_folder(&self.path)?;
        self.disk.rename(&self.path.join(COPY_FORMAT_FILE), &self.path.join(FORMAT_FILE))?;
        self.disk.sync_folder(&self.path)
    }

    /// Removes what was written. What cannot be removed is still marked as incomplete.
    pub(crate) fn discard(self) {
        let remove = || -> io::Result<()> {
            let (format, marker) = (self.path.join(FORMAT_FILE), self.path.join(COPY_FORMAT_FILE));
            if !self.disk.is_missing(&format) {
                self.disk.rename(&format, &marker)?;
                self.disk.sync_folder(&self.path)?;
            }
            for made in [self.commands(), self.tables()] {
                if !self.disk.is_missing(&made) {
                    self.disk.remove_folder(&made)?;
                }
            }
            self.disk.sync_folder(&self.path)?;
            for made in [marker, self.path.join(LOCK_FILE)] {
                if !self.disk.is_missing(&made) {
                    self.disk.remove(&made)?;
                }
            }
            if self.is_made {
                self.disk.remove_folder(&self.path)?;
            }
            Ok(())
        };
        if let Err(error) = remove() {
            tracing::warn!(
                folder = %self.path.display(),
                %error,
                "what an incomplete copy has left could not be removed: remove the folder"
            );
        }
    }
}

/// Locks a complete folder that nothing uses, to read it. Writes nothing into it. `None`: it has no lock
/// file, or one that this user cannot open, so no process can use it.
pub(crate) fn lock_whole(
    disk: &dyn Disk,
    folder: &Path,
) -> Result<Option<Box<dyn DiskFile>>, OpenError> {
    let lock = folder.join(LOCK_FILE);
    let lock = match disk.is_missing(&lock) {
        true => None,
        false => match disk.lock(&lock) {
            Ok(None) => return Err(OpenError::Locked(folder.to_owned())),
            Ok(lock) => lock,
            Err(_) => None,
        },
    };
    match content(disk, folder)? {
        Content::Whole => Ok(lock),
        Content::Unfinished => Err(OpenError::NoFormat(folder.join(FORMAT_FILE))),
    }
}
