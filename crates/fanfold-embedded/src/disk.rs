//! The seam between the store and the machine: files, and the tables that a database keeps.
//!
//! [`FileDisk`] is the real one. [`MemoryDisk`] keeps everything in memory: for `--in-memory`, and, told to lose what
//! was not synced, to tear writes, to fill up and to fail, for tests and the simulator.

mod files;
mod memory;

use std::io::{self, Read};
use std::path::Path;

pub(crate) use files::FileDisk;
pub(crate) use files::sync_folder;
pub use memory::{DiskCall, DiskFault, DiskFaults, MemoryDisk};

use crate::store::{StoreError, Tables};

/// Files and tables, by their paths.
///
/// What a crash leaves: a file has at least the bytes that were synced, unless they were overwritten or cut off since; a
/// folder lists at least what it listed at its last [`Disk::sync_folder`], unless that was removed or renamed since; a
/// rename is done or not done. Tables have every batch that was committed, and of a batch all or nothing.
pub trait Disk: Send + Sync + 'static {
    /// Makes a folder and those above it, durably. Not an error if it is there.
    fn make_folder(&self, folder: &Path) -> io::Result<()>;

    /// The names in a folder, with the bytes of those that are files.
    fn list(&self, folder: &Path) -> io::Result<Vec<(String, u64)>>;

    /// Whether nothing is at this path. `false` also if that cannot be found out.
    fn is_missing(&self, path: &Path) -> bool;

    /// The whole content of a file, which is small.
    fn read(&self, file: &Path) -> io::Result<Vec<u8>>;

    /// Opens a file that is there, to be read and written.
    fn open(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens an empty file. One of this name is emptied.
    fn create(&self, file: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file, made if it is not there, and holds it until it is dropped. `None`: another process holds it.
    fn lock(&self, file: &Path) -> io::Result<Option<Box<dyn DiskFile>>>;

    /// Renames a file, in one step. One of the new name is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, file: &Path) -> io::Result<()>;

    /// Removes a folder with everything in it.
    fn remove_folder(&self, folder: &Path) -> io::Result<()>;

    /// Makes durable which files a folder has.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;

    /// The bytes that everything below a folder takes.
    fn bytes_below(&self, folder: &Path) -> u64;

    /// Opens tables of these names, and makes those that are missing. `is_new`: the folder holds none yet.
    fn open_tables(
        &self,
        folder: &Path,
        names: &[String],
        is_new: bool,
    ) -> Result<Box<dyn Tables>, StoreError>;

    /// Whether the making of tables in this folder broke off, or was never begun.
    fn are_tables_unfinished(&self, folder: &Path) -> io::Result<bool>;
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Its length.
    fn bytes(&self) -> io::Result<u64>;

    /// Reads what is at `from`, at most `buffer.len()` bytes; 0 at the end.
    fn read_at(&self, from: u64, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `at`. After an error any part of them may be written.
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts it off, or fills it up with zeros.
    fn set_len(&mut self, bytes: u64) -> io::Result<()>;

    /// Makes its bytes durable.
    fn sync(&mut self) -> io::Result<()>;

    /// Whether its path still leads to it. `true` also if that cannot be found out.
    fn is_linked(&self) -> bool;
}

/// Reads a file from a place on.
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
