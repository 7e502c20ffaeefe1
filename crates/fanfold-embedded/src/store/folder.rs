//! The folder of a durable engine: whose it is, and in which format.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use super::StoreError;

/// The format of what is in the folder: of the command log, and of the tables' keys and values.
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "FORMAT";
const LOCK_FILE: &str = "LOCK";
/// The format file, until it is whole.
const UNFINISHED_FORMAT_FILE: &str = "FORMAT.new";
/// What the format file says before the number.
const FORMAT_NAME: &str = "fanfold embedded ";

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
    _lock: File,
}

impl Folder {
    /// Takes a folder, and makes it if it is not there.
    pub fn take(path: &Path) -> Result<Self, OpenError> {
        let failed = |source: io::Error| match StoreError::from(source) {
            StoreError::Full => OpenError::Full(path.to_owned()),
            StoreError::Io(reason) => OpenError::Unwritable { path: path.to_owned(), reason },
            source => OpenError::Broken { path: path.to_owned(), source },
        };
        fs::create_dir_all(path).map_err(failed)?;
        let format = path.join(FORMAT_FILE);
        match fs::read_to_string(&format) {
            Ok(text) => {
                let found = text.trim().strip_prefix(FORMAT_NAME.trim_end());
                let found = found.and_then(|number| number.trim().parse::<u32>().ok());
                match found {
                    Some(FORMAT) => {}
                    Some(found) => return Err(OpenError::Newer { path: path.to_owned(), found }),
                    None => return Err(OpenError::Foreign(path.to_owned())),
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {
                if !is_new(path).map_err(failed)? {
                    return Err(OpenError::Foreign(path.to_owned()));
                }
            }
            Err(error) => return Err(failed(error)),
        }
        let lock =
            File::options().create(true).truncate(false).write(true).open(path.join(LOCK_FILE));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        if !format.exists() {
            write_format(path, format!("{FORMAT_NAME}{FORMAT}\n").as_bytes()).map_err(failed)?;
        }
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is wrong with the folder, if this went wrong in it.
    pub fn explain(&self, error: StoreError) -> OpenError {
        let path = self.path.clone();
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

    /// The bytes of all files in it.
    pub fn bytes(&self) -> u64 {
        bytes_below(&self.path)
    }
}

/// Whether a folder without a format is one that nothing was written to yet: only what a start that
/// went no further has left may be there.
fn is_new(path: &Path) -> io::Result<bool> {
    for found in fs::read_dir(path)? {
        let name = found?.file_name();
        if name != LOCK_FILE && name != UNFINISHED_FORMAT_FILE {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes the format in one piece: after a crash it is there whole, or not at all.
fn write_format(folder: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(UNFINISHED_FORMAT_FILE);
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, folder.join(FORMAT_FILE))?;
    sync_folder(folder)
}

/// Makes durable which files a folder has.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// What files take on disk (holes do not count); a file that goes away meanwhile counts nothing.
fn bytes_below(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(found) = fs::read_dir(path) else { return 0 };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => bytes_below(&entry.path()),
        Ok(data) => data.blocks() * 512,
        Err(_) => 0,
    };
    found.flatten().map(bytes).sum()
}
