//! The folder of a durable engine: whose it is, in which format, and whether it is still there.
//!
//! A new folder is finished by its `FORMAT` file, which comes last. Before anything else
//! `FORMAT.new` is written: a folder that has that and no `FORMAT` was never finished, nothing was
//! accepted in it, and what this module knows to be fanfold's is removed and made again. A folder that
//! has neither, and holds anything of its own, belongs to somebody else.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;

use super::{StoreError, command_log};
use crate::disk::{Disk, DiskFile};

/// The format of what is in the folder: of the command log, and of the tables' keys and values.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
/// The format file, until everything else is there.
const UNFINISHED_FORMAT_FILE: &str = "FORMAT.new";
/// What the format file says before the number.
const FORMAT_NAME: &str = "fanfold embedded ";
/// The folder of the command log.
const COMMANDS: &str = "commands";
/// The folder of the tables.
const TABLES: &str = "tables";
/// What file systems and desktops put into any folder, beside files whose names begin with a dot.
const IGNORED: &[&str] = &["lost+found", "Thumbs.db", "desktop.ini"];

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "the folder {} is in use by another process: stop that, or choose another folder",
        .0.display()
    )]
    Locked(PathBuf),
    /// It cannot be written to.
    #[error("the folder {} cannot be written to ({reason}): change that, or choose another folder", .path.display())]
    Unwritable {
        /// The folder.
        path: PathBuf,
        /// What the operating system says.
        reason: io::Error,
    },
    /// The disk is full.
    #[error("there is no space left for the folder {}: make some, then start again", .0.display())]
    Full(PathBuf),
    /// A newer version has written it.
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
    /// There is something else in it.
    #[error("the folder {} holds something else than fanfold's data: choose another folder", .0.display())]
    Foreign(PathBuf),
    /// There is a file in its place.
    #[error("{} is no folder: choose another place", .0.display())]
    NotAFolder(PathBuf),
    /// It is a link to nothing.
    #[error("the folder {} is a link to {}, which is not there: change that, or choose another folder", .path.display(), .target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// What it names.
        target: PathBuf,
    },
    /// The file that says what it is was changed or removed.
    #[error(
        "the file {} is missing or damaged: write the line `{FORMAT_NAME}{FORMAT}` into it if fanfold has made this folder, or choose another folder",
        .0.display()
    )]
    NoFormat(PathBuf),
    /// What is in it cannot be read.
    #[error("the folder {} cannot be opened", .path.display())]
    Broken {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: StoreError,
    },
}

/// A folder that is this process's own until it is dropped.
pub struct Folder {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    lock: Box<dyn DiskFile>,
    /// What was in it when it was taken.
    content: Content,
    gone: watch::Sender<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Nothing, or what a start that broke off has left.
    Unfinished,
    /// All that belongs there.
    Whole,
}

impl Folder {
    /// Takes a folder, and makes it if it is not there.
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
        // Nothing is made in a folder that is not fanfold's. What another process makes is seen whole only with the lock.
        if disk.is_missing(&lock)
            && let Err(error) = content(&*disk, path)
            && disk.is_missing(&lock)
        {
            return Err(error);
        }
        let lock = disk.lock(&lock).map_err(failed)?;
        let lock = lock.ok_or_else(|| OpenError::Locked(path.to_owned()))?;
        let content = content(&*disk, path)?;
        // An earlier start may have been killed before it made durable that the folder is finished.
        disk.sync_folder(path).map_err(failed)?;
        Ok(Self { disk, path: path.to_owned(), lock, content, gone: watch::Sender::new(false) })
    }

    /// What it is on.
    pub(crate) fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Whether its content is still to be made, between [`Folder::begin`] and [`Folder::finish`].
    pub(super) fn is_unfinished(&self) -> bool {
        self.content == Content::Unfinished
    }

    /// Notes that its content is being made, and removes what an earlier start has made of it.
    pub(super) fn begin(&self) -> io::Result<()> {
        let format = self.path.join(FORMAT_FILE);
        let unfinished = self.path.join(UNFINISHED_FORMAT_FILE);
        if !self.disk.is_missing(&format) {
            self.disk.rename(&format, &unfinished)?;
        } else if !is_format(&*self.disk, &unfinished)? {
            let mut file = self.disk.create(&unfinished)?;
            file.write_at(0, format!("{FORMAT_NAME}{FORMAT}\n").as_bytes())?;
        }
        // Also if an earlier start has written it: that may have been killed before it synced.
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

    /// Everything that belongs into the folder is there, and durable.
    pub(super) fn finish(&self) -> io::Result<()> {
        let (unfinished, format) =
            (self.path.join(UNFINISHED_FORMAT_FILE), self.path.join(FORMAT_FILE));
        self.disk.sync_folder(&self.path)?;
        self.disk.rename(&unfinished, &format)?;
        self.disk.sync_folder(&self.path)
    }

    /// Whether its path still leads to it. Once it does not, that stays so: what is found there later is not what was
    /// written to.
    pub fn check(&self) -> Result<(), StoreError> {
        let is_there = || {
            let mut names = [FORMAT_FILE, COMMANDS, TABLES].iter();
            self.lock.is_linked() && names.all(|name| !self.disk.is_missing(&self.path.join(name)))
        };
        if self.is_gone() || !is_there() {
            return Err(self.lose());
        }
        Ok(())
    }

    /// Its path does not lead to it any more.
    pub(crate) fn lose(&self) -> StoreError {
        if !self.gone.send_replace(true) {
            tracing::error!(
                alarm = "folder_gone",
                folder = %self.path.display(),
                "the folder was removed, moved or replaced: nothing is accepted any more"
            );
        }
        StoreError::Gone(self.path.clone())
    }

    /// Whether it was found not to be there any more.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Returns once it was found not to be there any more.
    pub async fn gone(&self) -> StoreError {
        // The sender lives as long as `self`.
        let _ = self.gone.subscribe().wait_for(|gone| *gone).await;
        StoreError::Gone(self.path.clone())
    }

    /// Where the command log is.
    pub(crate) fn commands(&self) -> PathBuf {
        self.path.join(COMMANDS)
    }

    /// Where the tables are.
    pub(super) fn tables(&self) -> PathBuf {
        self.path.join(TABLES)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with the folder, if this went wrong in it.
    pub fn explain(&self, error: StoreError) -> OpenError {
        explain(&self.path, error)
    }

    /// The bytes of all files in it.
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

/// What is in a folder, if it is fanfold's, or can become so.
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
        Some(FORMAT) if is_hollow(disk, path).map_err(failed)? => Ok(Content::Unfinished),
        Some(FORMAT) => Ok(Content::Whole),
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found }),
        _ if is_data => Err(OpenError::NoFormat(path.join(FORMAT_FILE))),
        _ => Err(OpenError::Foreign(path.to_owned())),
    }
}

/// Whether fanfold makes something of this name in its folder.
fn is_ours(name: &str) -> bool {
    let ours = [LOCK_FILE, FORMAT_FILE, UNFINISHED_FORMAT_FILE, COMMANDS, TABLES];
    ours.contains(&name) || probe(Path::new(TABLES)) == Path::new(name)
}

/// Whether a folder that has a format holds nothing else that was ever finished: nothing was accepted
/// there.
fn is_hollow(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    Ok(disk.are_tables_unfinished(&path.join(TABLES))?
        && command_log::is_empty(disk, &path.join(COMMANDS))?)
}

/// The number that a format file has.
fn number(text: &str) -> Option<u32> {
    text.trim().strip_prefix(FORMAT_NAME.trim_end())?.trim().parse().ok()
}

/// Whether a file is there, and is a whole format file of this version.
fn is_format(disk: &dyn Disk, path: &Path) -> io::Result<bool> {
    match disk.read(path).map(String::from_utf8) {
        Ok(Ok(text)) => Ok(text.ends_with('\n') && number(&text) == Some(FORMAT)),
        Ok(Err(_)) => Ok(false),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Where the log of some tables is tried out.
pub(super) fn probe(tables: &Path) -> PathBuf {
    tables.with_extension("probe")
}
