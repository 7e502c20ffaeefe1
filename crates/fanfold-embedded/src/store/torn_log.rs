//! Repairs the log of the tables after a power cut.
//!
//! `fjall` itself cuts off an incomplete batch at the end of its newest log. But a file system may
//! have stored the end of a batch and not its middle, which then holds zeros or old bytes. Such a
//! batch looks complete and has a wrong checksum, and `fjall` refuses to open. Only the last batch,
//! which was being written, can be torn like this, and it was never acknowledged. So this module
//! cuts the log off before that batch, and keeps the cut bytes in a file `*.cut` beside it.
//!
//! A disk that has lost synced bytes looks the same. Then whole batches follow the damage, and are
//! cut off, too. In both cases the engine processes everything again that was accepted since the
//! last checkpoint; in the second case, data from before it is missing. The warning has the number
//! of bytes that were cut off: after a power cut at most one batch, some megabytes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fanfold::with_causes;
use fjall::Database;

use super::StoreError;
use super::folder::probe;
use crate::disk::sync_folder;

/// Converts a panic of `open` into an error: in builds with more checks, `fjall` may panic on a
/// damaged log.
pub(super) fn catch<T>(open: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Unwind-safe: a database whose opening panicked is dropped.
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
        Err(StoreError::Panicked(message.unwrap_or_default()))
    })
}

/// Whether a torn log may cause this error.
pub(super) fn may_be_torn(error: &StoreError) -> bool {
    matches!(error, StoreError::Panicked(_) | StoreError::Tables(fjall::Error::JournalRecovery(_)))
}

/// Cuts the newest log off after the last byte up to which `fjall` can read it. `false`: the log is
/// not the cause of `error`.
pub(super) fn cut(tables: &Path, error: &StoreError) -> Result<bool, StoreError> {
    let Some(log) = newest(tables)? else { return Ok(false) };
    let end = data_end(&log)?;
    let trial = Probe::new(tables)?;
    // Bisection: `fjall` can read `good` bytes of the log, and cannot read `bad` bytes.
    let (mut good, mut bad) = (0, end + 1);
    if trial.reads(&log, end)? {
        if fs::metadata(&log)?.len() == end {
            return Ok(false);
        }
        // `fjall` reads a log that ends after its data, but not one that continues with zeros.
        good = end;
    }
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match trial.reads(&log, middle)? {
            true => good = middle,
            false => bad = middle,
        }
    }
    let kept = log.with_extension("jnl.cut");
    let mut file = File::options().read(true).write(true).open(&log)?;
    file.seek(SeekFrom::Start(good))?;
    let mut cut = File::create(&kept)?;
    io::copy(&mut (&file).take(end - good), &mut cut)?;
    cut.sync_all()?;
    sync_folder(tables)?;
    file.set_len(good)?;
    file.sync_all()?;
    tracing::warn!(
        alarm = "log_cut",
        error = with_causes(&error),
        log = %log.display(),
        kept = %kept.display(),
        bytes = end - good,
        "the engine cut off the end of the tables' log, which cannot be read: right after a power \
         cut that is expected, at other times the disk may be failing"
    );
    Ok(true)
}

/// Scratch tables for checking whether `fjall` can read a log. It verifies the log's batches and
/// drops them, as the tables that they belong to do not exist here.
struct Probe {
    path: PathBuf,
}

impl Probe {
    fn new(tables: &Path) -> Result<Self, StoreError> {
        let trial = Self { path: probe(tables) };
        trial.clear();
        drop(Database::builder(&trial.path).open()?);
        Ok(trial)
    }

    fn reads(&self, log: &Path, bytes: u64) -> Result<bool, StoreError> {
        let Some(copy) = newest(&self.path)? else { return Ok(false) };
        io::copy(&mut File::open(log)?.take(bytes), &mut File::create(copy)?)?;
        match catch(|| Ok(Database::builder(&self.path).open().map(drop)?)) {
            Ok(()) => Ok(true),
            Err(error) if may_be_torn(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn clear(&self) {
        // An error is expected if the folder does not exist.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The newest log, which has the highest number: the one that `fjall` was writing.
pub(crate) fn newest(tables: &Path) -> io::Result<Option<PathBuf>> {
    let mut newest: Option<(u64, PathBuf)> = None;
    for found in fs::read_dir(tables)? {
        let path = found?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        let Some(number) = number else { continue };
        if newest.as_ref().is_none_or(|(highest, _)| number > *highest) {
            newest = Some((number, path));
        }
    }
    Ok(newest.map(|(_, path)| path))
}

/// The offset after the last non-zero byte. `fjall` allocates its files larger than their data.
pub(crate) fn data_end(log: &Path) -> io::Result<u64> {
    let mut file = File::open(log)?;
    let (mut at, mut end) = (0, 0);
    let mut piece = vec![0; 64 * 1024];
    loop {
        let bytes = file.read(&mut piece)?;
        if bytes == 0 {
            return Ok(end);
        }
        let last = piece[..bytes].iter().rposition(|byte| *byte != 0);
        end = last.map_or(end, |last| at + last as u64 + 1);
        at += bytes as u64;
    }
}
