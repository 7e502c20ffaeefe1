//! The folder of a durable engine: whose it is, in which format, and whether it is still there.
//!
//! A new folder is finished by its `FORMAT` file, which comes last. Before anything else
//! `FORMAT.new` is written: a folder that has that and no `FORMAT` was never finished, nothing was
//! accepted in it, and what this module knows to be fanfold's is removed and made again. A folder that
//! has neither, and holds anything of its own, belongs to somebody else.

use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::{StoreError, command_log, tables};

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
const NOBODYS: &[&str] = &["lost+found", "Thumbs.db", "desktop.ini"];

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
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked.
    lock: File,
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
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |error| unwritable(path, error);
        make(path).map_err(|error| match fs::symlink_metadata(path) {
            Ok(found) if found.is_symlink() && !path.exists() => OpenError::Dangling {
                path: path.to_owned(),
                target: fs::read_link(path).unwrap_or_default(),
            },
            Ok(found) if found.is_file() => OpenError::NotAFolder(path.to_owned()),
            _ => failed(error),
        })?;
        let lock = path.join(LOCK_FILE);
        // Nothing is made in a folder that is not fanfold's. What another process makes is seen
        // whole only with the lock.
        if !lock.exists()
            && let Err(error) = content(path)
            && !lock.exists()
        {
            return Err(error);
        }
        let lock = File::options().create(true).truncate(false).write(true).open(lock);
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let content = content(path)?;
        Ok(Self { path: path.to_owned(), lock, content, gone: watch::Sender::new(false) })
    }

    /// Whether its content is still to be made, between [`Folder::begin`] and [`Folder::finish`].
    pub(super) fn is_unfinished(&self) -> bool {
        self.content == Content::Unfinished
    }

    /// Notes that its content is being made, and removes what an earlier start has made of it.
    pub(super) fn begin(&self) -> io::Result<()> {
        let format = self.path.join(FORMAT_FILE);
        let unfinished = self.path.join(UNFINISHED_FORMAT_FILE);
        if format.exists() {
            fs::rename(format, unfinished)?;
        } else if !is_format(&unfinished)? {
            let mut file = File::create(&unfinished)?;
            file.write_all(format!("{FORMAT_NAME}{FORMAT}\n").as_bytes())?;
            file.sync_all()?;
        }
        sync_folder(&self.path)?;
        for made in [self.commands(), self.tables(), tables::probe(&self.tables())] {
            match fs::remove_dir_all(made) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Everything that belongs into the folder is there, and durable.
    pub(super) fn finish(&self) -> io::Result<()> {
        sync_folder(&self.path)?;
        fs::rename(self.path.join(UNFINISHED_FORMAT_FILE), self.path.join(FORMAT_FILE))?;
        sync_folder(&self.path)
    }

    /// Whether its path still leads to it. Once it does not, that stays so: what is found there
    /// later is not what was written to.
    pub fn check(&self) -> Result<(), StoreError> {
        let is_there = || {
            let names = [FORMAT_FILE, COMMANDS, TABLES];
            is_at(&self.path.join(LOCK_FILE), &self.lock)
                && names.iter().all(|name| !is_missing(&self.path.join(name)))
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
        bytes_below(&self.path)
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

/// Makes a folder, durably, with those above it.
fn make(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = match path.parent() {
        Some(above) if above != Path::new("") => above,
        _ => Path::new("."),
    };
    make(above)?;
    match fs::create_dir(path) {
        Err(_) if path.is_dir() => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(ErrorKind::NotADirectory.into());
        }
        made => made?,
    }
    match sync_folder(above) {
        // A user with the right to write to a folder may lack the right to read it.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    }
}

/// What is in a folder, if it is fanfold's, or can become so.
fn content(path: &Path) -> Result<Content, OpenError> {
    let failed = |error| unwritable(path, error);
    let (mut names, mut others) = (Vec::new(), false);
    for found in fs::read_dir(path).map_err(failed)? {
        match found.map_err(failed)?.file_name().to_str() {
            Some(name) if name.starts_with('.') || NOBODYS.contains(&name) => {}
            Some(name) if is_ours(name) => names.push(name.to_owned()),
            _ => others = true,
        }
    }
    let has = |name: &str| names.iter().any(|found| found == name);
    let is_data = has(COMMANDS) && has(TABLES);
    if !has(FORMAT_FILE) {
        let is_new =
            names.iter().all(|name| [LOCK_FILE, UNFINISHED_FORMAT_FILE].contains(&&**name));
        let begun = || is_format(&path.join(UNFINISHED_FORMAT_FILE)).map_err(failed);
        return match (others, is_new) {
            (false, true) => Ok(Content::Unfinished),
            (false, false) if begun()? => Ok(Content::Unfinished),
            _ if is_data => Err(OpenError::NoFormat(path.join(FORMAT_FILE))),
            _ => Err(OpenError::Foreign(path.to_owned())),
        };
    }
    let text = match fs::read(path.join(FORMAT_FILE)) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == ErrorKind::IsADirectory => String::new(),
        Err(error) => return Err(failed(error)),
    };
    match number(&text) {
        Some(FORMAT) if is_hollow(path).map_err(failed)? => Ok(Content::Unfinished),
        Some(FORMAT) => Ok(Content::Whole),
        Some(found) if found > FORMAT => Err(OpenError::Newer { path: path.to_owned(), found }),
        _ if is_data => Err(OpenError::NoFormat(path.join(FORMAT_FILE))),
        _ => Err(OpenError::Foreign(path.to_owned())),
    }
}

/// Whether fanfold makes something of this name in its folder.
fn is_ours(name: &str) -> bool {
    let ours = [LOCK_FILE, FORMAT_FILE, UNFINISHED_FORMAT_FILE, COMMANDS, TABLES];
    ours.contains(&name) || tables::probe(Path::new(TABLES)) == Path::new(name)
}

/// Whether a folder that has a format holds nothing else that was ever finished: nothing was accepted
/// there.
fn is_hollow(path: &Path) -> Result<bool, io::Error> {
    Ok(tables::are_unfinished(&path.join(TABLES))? && command_log::is_empty(&path.join(COMMANDS))?)
}

/// The number that a format file has.
fn number(text: &str) -> Option<u32> {
    text.trim().strip_prefix(FORMAT_NAME.trim_end())?.trim().parse().ok()
}

/// Whether a file is there, and is a whole format file of this version.
fn is_format(path: &Path) -> io::Result<bool> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(text.ends_with('\n') && number(&text) == Some(FORMAT)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) if error.kind() == ErrorKind::InvalidData => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether a path leads to an open file. `true` also if that cannot be found out.
pub(super) fn is_at(path: &Path, file: &File) -> bool {
    let same = |at: &Metadata, of: &Metadata| (at.dev(), at.ino()) == (of.dev(), of.ino());
    match (fs::metadata(path), file.metadata()) {
        (Ok(at), Ok(of)) => same(&at, &of),
        (Err(error), _) => !is_nothing(&error),
        (_, Err(_)) => true,
    }
}

fn is_missing(path: &Path) -> bool {
    fs::metadata(path).is_err_and(|error| is_nothing(&error))
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Makes durable which files a folder has.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// What files take on disk (holes do not count); a file that goes away meanwhile counts nothing.
fn bytes_below(path: &Path) -> u64 {
    let Ok(found) = fs::read_dir(path) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    found.flatten().map(bytes).sum()
}
