use std::fs::{self, File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::{Disk, DiskFile};
use crate::store::tables::fjall as on_fjall;
use crate::store::{StoreError, Tables};

/// The files of this machine, and tables of `fjall`.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FileDisk;

struct OpenFile {
    path: PathBuf,
    file: File,
}

impl DiskFile for OpenFile {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read_at(&self, from: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(buffer, from)
    }

    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at)
    }

    fn set_len(&mut self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn is_linked(&self) -> bool {
        let same = |at: &Metadata, of: &Metadata| (at.dev(), at.ino()) == (of.dev(), of.ino());
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(at), Ok(of)) => same(&at, &of),
            (Err(error), _) => !is_nothing(&error),
            (_, Err(_)) => true,
        }
    }
}

fn opened(path: &Path, options: &mut fs::OpenOptions) -> io::Result<Box<dyn DiskFile>> {
    let file = options.read(true).write(true).open(path)?;
    Ok(Box::new(OpenFile { path: path.to_owned(), file }))
}

impl Disk for FileDisk {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder.is_dir() {
            return Ok(());
        }
        let above = match folder.parent() {
            Some(above) if above != Path::new("") => above,
            _ => Path::new("."),
        };
        self.make_folder(above)?;
        match fs::create_dir(folder) {
            Err(_) if folder.is_dir() => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Err(ErrorKind::NotADirectory.into());
            }
            made => made?,
        }
        match self.sync_folder(above) {
            // A user who may write to the folder can lack the right to read it, which a sync needs.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            synced => synced,
        }
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>> {
        let found = fs::read_dir(folder)?.map(|found| {
            let found = found?;
            let bytes =
                found.metadata().map_or(0, |data| if data.is_file() { data.len() } else { 0 });
            // A name that is not UTF-8 becomes one that equals none of ours.
            Ok((found.file_name().to_string_lossy().into_owned(), bytes))
        });
        found.collect()
    }

    fn is_missing(&self, path: &Path) -> bool {
        fs::metadata(path).is_err_and(|error| is_nothing(&error))
    }

    fn read(&self, file: &Path) -> io::Result<Vec<u8>> {
        fs::read(file)
    }

    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        opened(file, &mut File::options())
    }

    fn open_to_read(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenFile { path: file.to_owned(), file: File::open(file)? }))
    }

    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>> {
        opened(file, File::options().create(true).truncate(true))
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn DiskFile>>> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Box::new(OpenFile { path: path.to_owned(), file }))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, file: &Path) -> io::Result<()> {
        fs::remove_file(file)
    }

    fn remove_folder(&self, folder: &Path) -> io::Result<()> {
        fs::remove_dir_all(folder)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        sync_folder(folder)
    }

    /// Counts allocated blocks, so holes are 0. A file that is removed meanwhile is 0, too.
    fn bytes_below(&self, folder: &Path) -> u64 {
        let Ok(found) = fs::read_dir(folder) else { return 0 };
        let bytes = |entry: fs::DirEntry| match entry.metadata() {
            Ok(data) if data.is_dir() => self.bytes_below(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        };
        found.flatten().map(bytes).sum()
    }

    fn open_tables(
        &self,
        folder: &Path,
        names: &[String],
        is_new: bool,
    ) -> Result<Box<dyn Tables>, StoreError> {
        Ok(Box::new(on_fjall::FjallTables::open(folder, names, is_new)?))
    }

    fn copy_tables(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.make_folder(to)?;
        for found in fs::read_dir(from)? {
            let found = found?;
            let copy = to.join(found.file_name());
            if found.file_type()?.is_dir() {
                self.copy_tables(&found.path(), &copy)?;
            } else {
                fs::copy(found.path(), &copy)?;
                File::open(&copy)?.sync_all()?;
            }
        }
        sync_folder(to)
    }

    fn real_path(&self, path: &Path) -> io::Result<PathBuf> {
        match fs::canonicalize(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
                    return Err(error);
                };
                Ok(self.real_path(above)?.join(name))
            }
            found => found,
        }
    }

    fn are_tables_unfinished(&self, folder: &Path) -> io::Result<bool> {
        on_fjall::are_unfinished(folder)
    }
}

fn is_nothing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Makes the names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
