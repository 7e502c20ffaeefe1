//! The folder of a durable engine: its lock, its format, and the check that it still exists.
//!
//! Creating a folder writes `FORMAT.new` first and renames it to `FORMAT` last. A folder with
//! `FORMAT.new` and without `FORMAT` is unfinished: no command was accepted in it, so this module
//! removes Fanfold's files, and creates them again. A folder with neither file that has other
//! content belongs to another program, and is refused.
//!
//! A copy ([`copy`]) has `FORMAT.copy` until it is complete. It is refused before that, because
//! commands were accepted in what it copies.

pub(crate) mod copy;

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fanfold::host::body::announced::AnnouncementConflict;

use super::{StoreError, command_log};
use crate::disk::{Disk, DiskFile};
use crate::rising::Rising;

/// The version of the format of the command log and of the tables' keys and values.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
/// The name of the format file while the folder is unfinished.
const UNFINISHED_FORMAT_FILE: &str = "FORMAT.new";
/// The name of the format file while the folder is a copy that is not complete.
const COPY_FORMAT_FILE: &str = "FORMAT.copy";
/// The text before the version in the format file.
const FORMAT_NAME: &str = "fanfold embedded ";
/// The folder of the command log.
pub(crate) const COMMANDS: &str = "commands";
/// The folder of the tables.
pub(crate) const TABLES: &str = "tables";
/// Names that file systems and desktops create in any folder. Names that begin with a dot are also
/// ignored.
const IGNORED: &[&str] = &["lost+found", "Thumbs.db", "desktop.ini"];

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has locked the folder.
    #[error(
        "another process uses the folder {}: stop that process, or choose another folder",
        .0.display()
    )]
    Locked(PathBuf),
    /// The folder cannot be written to.
    #[error("the folder {} cannot be written to ({reason}): change that, or choose another folder", .path.display())]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// The operating system's error.
        reason: io::Error,
    },
    /// The disk is full.
    #[error("the disk of the folder {} is full: free some space, then start again", .0.display())]
    Full(PathBuf),
    /// A newer version of Fanfold has written the folder.
    #[error(
        "the folder {} has format {found}, this version of fanfold knows up to {FORMAT}: use a newer version",
        .path.display()
    )]
    Newer {
        /// The folder.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The folder holds other files.
    #[error("the folder {} contains files that fanfold did not create: choose another folder", .0.display())]
    Foreign(PathBuf),
    /// The path is a file.
    #[error("{} is a file: choose a folder instead", .0.display())]
    NotAFolder(PathBuf),
    /// The path is a symbolic link whose target does not exist.
    #[error("the folder {} is a symbolic link to {}, which does not exist: create that, or choose another folder", .path.display(), .target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// The link's target.
        target: PathBuf,
    },
    /// The format file was changed or removed.
    #[error(
        "the file {} is missing or damaged: write the line `{FORMAT_NAME}{FORMAT}` into it if fanfold has made this folder, or choose another folder",
        .0.display()
    )]
    NoFormat(PathBuf),
    /// A copy of a folder that is not complete.
    #[error(
        "the folder {} is not a complete copy: a backup or a restore into it has not ended. Remove the folder, and make the copy again",
        .0.display()
    )]
    IncompleteCopy(PathBuf),
    /// The folder belongs to another app.
    #[error("the folder {} has the data of the app `{found}`, and this is `{app}`: choose another folder, or take this one over with `--adopt` if the app was renamed", .path.display())]
    OtherApp {
        /// The folder.
        path: PathBuf,
        /// The app that it belongs to.
        found: String,
        /// The app that would have opened it.
        app: String,
    },
    /// The folder has rows of the same version of a view, but of other services or event types.
    #[error(transparent)]
    View(#[from] AnnouncementConflict),
    /// The folder's data cannot be read.
    #[error("the folder {} cannot be opened", .path.display())]
    Broken {
        /// The folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: StoreError,
    },
}

/// A folder that this process has locked until the value is dropped.
pub struct Folder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    lock: Box<dyn DiskFile>,
    /// The folder's content when it was locked.
    content: Content,
    /// 1 once the folder was found to be gone.
    gone: Rising,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing, or the leftovers of an interrupted start.
    Unfinished,
    /// All of Fanfold's files.
    Whole,
}

impl Folder {
    /// Locks a folder. Creates it if it does not exist.
    pub fn take(disk: Arc<dyn Disk>, path: &Path) -> Result<Self, OpenError> {
        let failed = |error| unwritable(path, error);
        disk.make_folder(path).map_err(|error| match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() && !path.exists() => OpenError::Dangling {
                path: path.to_owned(),
                target: fs::read_link(path).unwrap_or_default(),
            },
            Ok(found) if found.is_file() => OpenError::NotAFolder(path.to_owned()),
            _ => failed(error),
        })?;
        let lock = path.join(LOCK_FILE);
        // Create no lock file in a folder that is not Fanfold's. Without the lock, another process
        // may be creating the content at this moment: so only refuse while there is no lock file.
        if disk.is_missing(&lock)
            && let Err(error) = content(&*disk, path)
            && disk.is_missing(&lock)
        {
            return Err(error);
        }
        let lock = disk.lock(&lock).map_err(failed)?;
        let lock = lock.ok_or_else(|| OpenError::Locked(path.to_owned()))?;
        let content = content(&*disk, path)?;
        // An earlier start may have been killed before its rename of the format file was durable.
        disk.sync_folder(path).map_err(failed)?;
        Ok(Self { disk, path: path.to_owned(), lock, content, gone: Rising::default() })
    }

    /// The disk that the folder is on.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Whether its content must be created, between [`Folder::begin`] and [`Folder::finish`].
    pub(super) fn is_unfinished(&self) -> bool {
        self.content == Content::Unfinished
    }

    /// Durably marks the folder as unfinished, and removes the leftovers of an earlier start.
    pub(super) fn begin(&self) -> io::Result<()> {
        let format = self.path.join(FORMAT_FILE);
        let unfinished = self.path.join(UNFINISHED_FORMAT_FILE);
        if !self.disk.is_missing(&format) {
            self.disk.rename(&format, &unfinished)?;
        } else if !is_format(&*self.disk, &unfinished)? {
            let mut file = self.disk.create(&unfinished)?;
            file.write_at(0, format!("{FORMAT_NAME}{FORMAT}\n").as_bytes())?;
        }
        // Sync even a file of an earlier start: that may have been killed before it synced.
        self.disk.open(&unfinished)?.sync()?;
        self.disk.sync_folder(&self.path)?;
        for made in [self.commands(), self.tables(), probe(&self.tables())] {
            match self.disk.remove_folder(&made) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the folder's content durable, then durably marks the folder as finished.
    pub(super) fn finish(&self) -> io::Result<()> {
        let (unfinished, format) =
            (self.path.join(UNFINISHED_FORMAT_FILE), self.path.join(FORMAT_FILE));
        self.disk.sync_folder(&self.path)?;
        self.disk.rename(&unfinished, &format)?;
        self.disk.sync_folder(&self.path)
    }

    /// Fails if the path no longer leads to this folder, and fails ever after: a folder that
    /// appears there later is not the one that was written to.
    pub fn check(&self) -> Result<(), StoreError> {
        let is_there = || {
            let mut names = [FORMAT_FILE, COMMANDS, TABLES].iter();
            self.lock.is_linked() && names.all(|name| !self.disk.is_missing(&self.path.join(name)))
        };
        if self.is_gone() || !is_there() {
            return Err(self.mark_gone());
        }
        Ok(())
    }

    /// Records that the path no longer leads to this folder. Returns the error for callers.
    pub(crate) fn mark_gone(&self) -> StoreError {
        if self.gone.raise(1) {
            tracing::error!(
                alarm = "folder_gone",
                folder = %self.path.display(),
                "the folder was removed, moved or replaced: the engine refuses all commands, start it again on the folder where it is now"
            );
        }
        StoreError::Gone(self.path.clone())
    }

    /// Whether the folder was found to be gone.
    pub fn is_gone(&self) -> bool {
        self.gone.is_at(1)
    }

    /// Waits until the folder is found to be gone.
    pub async fn gone(&self) -> StoreError {
        self.gone.reaches(1).await;
        StoreError::Gone(self.path.clone())
    }

    /// The path of the command log.
    pub(crate) fn commands(&self) -> PathBuf {
        self.path.join(COMMANDS)
    }

    /// The path of the tables.
    pub(super) fn tables(&self) -> PathBuf {
        self.path.join(TABLES)
    }

    /// The path of the folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Converts an error of the store into the error for opening this folder.
    pub fn explain(&self, error: StoreError) -> OpenError {
        explain(&self.path, error)
    }

    /// The total size of all files in the folder, in bytes.
    pub fn bytes(&self) -> u64 {
        self.disk.bytes_below(&self.path)
    }
}

fn unwritable(path: &Path, error: io::Error) -> OpenError {
    match StoreError::from(error) {
        StoreError::Io(reason) => OpenError::Unwritable { path: path.to_owned(), reason },
        error => explain(path, error),
    }
}

fn explain(path: &Path, error: StoreError) -> OpenError {
    let path = path.to_owned();
    match error {
        StoreError::Full => OpenError::Full(path),
        StoreError::Tables(fjall::Error::Locked) => OpenError::Locked(path),
        StoreError::Io(reason)
            if matches!(
                reason.kind(),
                ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            OpenError::Unwritable { path, reason }
        }
        source => OpenError::Broken { path, source },
    }
}

/// Classifies the content of a folder that is Fanfold's or can become it; else returns why not.
fn content(disk: &dyn Disk, path: &Path) -> Result<Content, OpenError> {
    let failed = |error| unwritable(path, error);
    let (mut names, mut others) = (Vec::new(), false);
    for (name, _) in disk.list(path).map_err(failed)? {
        match name.as_str() {
            name if name.starts_with('.') || IGNORED.contains(&name) => {}
            ours if is_ours(ours) => names.push(name),
            _ => others = true,
        }
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let is_data = has(COMMANDS) && has(TABLES);
    if has(COPY_FORMAT_FILE) && !has(FORMAT_FILE) {
        return Err(OpenError::IncompleteCopy(path.to_owned()));
    }
    if !has(FORMAT_FILE) {
        let is_new =
            names.iter().all(|name| [LOCK_FILE, UNFINISHED_FORMAT_FILE].contains(&&**name));
        let begun = || is_format(disk, &path.join(UNFINISHED_FORMAT_FILE)).map_err(failed);
        return match (others, is_new) {
            (false, true) => Ok(Content::Unfinished),
            (false, false) if begun()? => Ok(Content::Unfinished),
            _ if is_data => Err(OpenError::NoFormat(path.join(FORMAT_FILE))),
            _ => Err(OpenError::Foreign(path.to_owned())),
        };
    }
    let text = match disk.read(&path.join(FORMAT_FILE)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::IsADirectory => String::new(),
        Err(error) => return Err(failed(error)),
    };
    match number(&text) {
        Some(FORMAT) if has_no_commands(disk, path).map_err(failed)? => Ok(Content::Unfinished),
        Some(FORMAT) => Ok(Content::Whole),
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found }),
        _ if is_data => Err(OpenError::NoFormat(path.join(FORMAT_FILE))),
        _ => Err(OpenError::Foreign(path.to_owned())),
    }
}

/// Whether Fanfold creates files or folders of this name.
fn is_ours(name: &str) -> bool {
    let ours = [LOCK_FILE, FORMAT_FILE, UNFINISHED_FORMAT_FILE, COPY_FORMAT_FILE, COMMANDS, TABLES];
    ours.contains(&name) || probe(Path::new(TABLES)) == Path::new(name)
}

/// Whether a folder with a format file has unfinished tables and an empty command log: no command
/// was accepted there.
fn has_no_commands(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    Ok(disk.are_tables_unfinished(&path.join(TABLES))?
        && command_log::is_empty(disk, &path.join(COMMANDS))?)
}

/// The version in the text of a format file.
fn number(text: &str) -> Option<u32> {
    text.trim().strip_prefix(FORMAT_NAME.trim_end())?.trim().parse().ok()
}

/// Whether a file exists and is a complete format file of this version.
fn is_format(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.read(path).map(String::from_utf8) {
        Ok(Ok(text)) => Ok(text.ends_with('\n') && number(&text) == Some(FORMAT)),
        Ok(Err(_)) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The path of the scratch tables in which `torn_log` tries to read a log.
pub(super) fn probe(tables: &Path) -> PathBuf {
    tables.with_extension("probe")
}
