//! The seam between the store and the machine: files, and the tables that a database keeps.
//!
//! [`FileDisk`] is the real disk. [`MemoryDisk`] keeps everything in memory, for `--in-memory`.
//! Tests and the simulator also make it lose unsynced data, tear writes, fill up and fail.

mod files;
mod memory;

use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub(crate) use files::FileDisk;
pub(crate) use files::sync_folder;
pub use memory::{DiskCall, DiskFault, DiskFaults, MemoryDisk};

use crate::store::{StoreError, Tables};

/// Files and tables, by their paths.
///
/// After a crash, a file has at least its synced bytes, unless they were overwritten or cut off
/// since. A folder has at least the names of its last [`Disk::sync_folder`], unless they were
/// removed or renamed since. A rename is done or not done. Tables have every committed batch, and
/// of any batch all or nothing.
pub trait Disk: Send + Sync + 'static {
    /// Creates a folder and its missing parents, durably. Succeeds if the folder exists.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// The names in a folder, with the bytes of those that are files.
    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>>;

    /// Whether nothing is at this path. `false` also if the check fails.
    fn is_missing(&self, path: &Path) -> bool;

    /// The whole content of a small file.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;

    /// Opens an existing file for reading and writing.
    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an existing file for reading only.
    fn open_to_read(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Creates a file, or empties the existing one.
    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens or creates a file, and locks it until it is dropped. `None`: another process has it.
    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn DiskFile>>>;

    /// Renames a file atomically. Replaces an existing file of the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// Removes a folder with everything in it.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// The total size of everything below a folder, in bytes.
    fn bytes_below(&self, folder: &Path) -> u64;

    /// Opens these tables, and creates missing ones. `is_new`: the folder has no tables yet.
    fn open_tables(
        &self,
        folder: &Path,
        names: &[String],
        is_new: bool,
    ) -> Result<Box<dyn Tables>, StoreError>;

    /// Copies the closed tables of a folder into another one, durably. The other folder is new.
    fn copy_tables(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// The path without symbolic links. If nothing is there: that of the folder which would contain it.
    fn real_path(&self, path: &Path) -> io::Result<PathBuf>;

    /// Whether the creation of tables in this folder was interrupted, or never begun.
    fn are_tables_unfinished(&self, folder: &Path) -> io::Result<bool>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// The length of the file.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads at most `buffer.len()` bytes at `from`. Returns 0 at the end.
    fn read_at(&self, from: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `at`. After an error any part of them may be written.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file off, or extends it with zeros.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes the bytes of the file durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether the path still leads to this file. `true` also if the check fails.
    fn is_linked(&self) -> bool;
}

/// Reads a file from an offset on.
pub(crate) struct ReadFrom<'a> {
    pub(crate) file: &'a dyn DiskFile,
    pub(crate) at: u64,
}

impl Read for ReadFrom<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(self.at, buffer)?;
        self.at += read as u64;
        Ok(read)
    }
}
