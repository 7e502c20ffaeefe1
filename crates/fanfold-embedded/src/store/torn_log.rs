//! What a power cut may leave in the log of the tables.
//!
//! `fjall` cuts off an unfinished batch at the end of its newest log. But a file system may have
//! stored the end of a batch and not its middle, which then holds zeros, or what was on the disk
//! before: such a batch looks whole, its checksum is wrong, and `fjall` opens nothing any more. Only
//! the last batch, the one that was being written, can be like that, and nobody was told that it is
//! stored. So the log is cut off before it, and what was behind is kept beside it as `*.cut`.
//!
//! This cannot be told from a disk that has lost bytes which were stored and synced: then whole
//! batches are behind the damage, and are cut off, too. What was accepted since the last checkpoint
//! is done again in both cases; what was accepted before is missing in the second. The warning says
//! how many bytes were cut off: a power cut leaves one batch at most, some megabytes.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use fjall::Database;

use super::StoreError;
use super::folder::probe;
use crate::disk::sync_folder;

/// What `fjall` reads of a damaged log may make it panic, in builds that check more than others.
pub(super) fn catch<T>(open: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // Nothing is left of a database that was not opened.
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|panic| {
        let message = panic.downcast_ref::<String>().cloned();
        let message = message.or_else(|| panic.downcast_ref::<&str>().map(|&s| s.to_owned()));
        Err(StoreError::Panicked(message.unwrap_or_default()))
    })
}

/// Whether that is what one sees then.
pub(super) fn may_be_torn(error: &StoreError) -> bool {
    matches!(error, StoreError::Panicked(_) | StoreError::Tables(fjall::Error::JournalRecovery(_)))
}

/// Cuts the newest log off where `fjall` can read it up to. `false`: that is not what is wrong.
pub(super) fn cut(tables: &Path, error: &StoreError) -> Result<bool, StoreError> {
    let Some(log) = newest(tables)? else { return Ok(false) };
    let end = data_end(&log)?;
    let trial = Probe::new(tables)?;
    // It reads `good`, and does not read `bad`. Nothing can always be read.
    let (mut good, mut bad) = (0, end + 1);
    if trial.reads(&log, end)? {
        if fs::metadata(&log)?.len() == end {
            return Ok(false);
        }
        // What breaks off can be read, and what goes on with zeros cannot.
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
        %error,
        log = %log.display(),
        kept = %kept.display(),
        bytes = end - good,
        "the end of the tables' log cannot be read and was cut off: right after a power cut, a sign \
         of a failing disk else"
    );
    Ok(true)
}

/// Empty tables, with a log of which one wants to know whether it can be read: its batches are
/// checked, and then dropped, as the tables that they are for are not there.
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
        // It may not be there.
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.clear();
    }
}

/// The log that is written to: the one with the highest number.
fn newest(tables: &Path) -> io::Result<Option<PathBuf>> {
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

/// Behind the last byte that is not zero: `fjall` makes its files larger than what is in them.
fn data_end(log: &Path) -> io::Result<u64> {
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
