//! Fault points, at which a test can abort the process, fill the disk, or trace syncs. They exist only
//! with the feature `fault-points`; without it every function here does nothing.
//!
//! - `FANFOLD_DIE_AFTER=journal.append:37` aborts after the 37th append to the journal.
//! - `FANFOLD_CHECKPOINT_FIRST=1` pauses and makes a checkpoint before the abort. So the effect is on
//!   disk, and its consequences are not. During the pause all other threads continue: a stage that
//!   wrongly counts the effect's consequences as done then records that in the checkpoint.
//! - `FANFOLD_SEGMENT_BYTES=300` begins a new segment of the command log after so many bytes.
//! - `FANFOLD_TRACE_SYNCS=<file>` appends a line `<bytes> <path>` to the file after each sync of a
//!   log: a power cut does not change these bytes.

/// The effects that every load causes.
#[cfg(any(test, feature = "fault-points"))]
pub const EFFECTS: &[&str] = &[
    "command_log.written",
    "command_log.synced",
    "commands.show",
    "stream.put",
    "journal.append",
    "state.put",
    "topic.publish",
    "view.put_row",
    "view.advance",
    "checkpoint.cut",
    "checkpoint.saved",
    "checkpoint.trimmed",
];

/// The effects that only unusual events cause.
#[cfg(any(test, feature = "fault-points"))]
pub(crate) const RARE_EFFECTS: &[&str] = &[
    "parked.park",
    "parked.remove",
    "dead_letters.push",
    "dead_letters.remove",
    "view.mark_behind",
    "view.park",
];

#[cfg(not(any(test, feature = "fault-points")))]
pub(crate) use self::none::*;
#[cfg(any(test, feature = "fault-points"))]
pub use self::points::*;

#[cfg(not(any(test, feature = "fault-points")))]
mod none {
    use std::path::Path;

    pub(crate) fn reached(_effect: &'static str) {}

    pub(crate) fn before_death(_checkpoint: impl Fn() + Send + Sync + 'static) {}

    pub(crate) fn segment_bytes(bytes: u64) -> u64 {
        bytes
    }

    pub(crate) fn synced(_path: &Path, _bytes: u64) {}

    pub(crate) fn synced_tables(_folder: &Path) {}

    pub(crate) fn is_full(_: &Path) -> bool {
        false
    }
}

#[cfg(any(test, feature = "fault-points"))]
mod points {
    use std::collections::{BTreeSet, HashMap};
    use std::fs::{self, File};
    use std::io::{self, Read, Seek, SeekFrom, Write};
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, LazyLock, Mutex, OnceLock};
    use std::time::Duration;

    use super::{EFFECTS, RARE_EFFECTS};
    use crate::striped::lock;

    /// Longer than any run of zeros in stored data.
    const ZEROS_MAX: u64 = 1024 * 1024;

    /// The pause before a checkpoint: long enough for several checks of the stages' progress.
    const OTHERS_GO_ON: Duration = Duration::from_millis(200);

    type Checkpoint = Arc<dyn Fn() + Send + Sync>;

    struct Point {
        effect: String,
        nth: u64,
        reached: AtomicU64,
    }

    static CHECKPOINT: Mutex<Option<Checkpoint>> = Mutex::new(None);
    static FULL: LazyLock<Mutex<BTreeSet<PathBuf>>> = LazyLock::new(Mutex::default);
    static ENDS: LazyLock<Mutex<HashMap<PathBuf, u64>>> = LazyLock::new(Mutex::default);

    /// Reports that an effect took place. Aborts if `FANFOLD_DIE_AFTER` asks for it.
    pub(crate) fn reached(effect: &'static str) {
        static POINT: OnceLock<Option<Point>> = OnceLock::new();
        debug_assert!(EFFECTS.contains(&effect) || RARE_EFFECTS.contains(&effect), "{effect}");
        let point = POINT.get_or_init(|| {
            let wanted = std::env::var("FANFOLD_DIE_AFTER").ok()?;
            let (effect, nth) = wanted.rsplit_once(':')?;
            let nth = nth.parse().ok()?;
            Some(Point { effect: effect.to_owned(), nth, reached: AtomicU64::new(0) })
        });
        if let Some(point) = point
            && point.effect == effect
            && point.reached.fetch_add(1, Ordering::SeqCst) + 1 == point.nth
        {
            // A checkpoint cannot be made during another one.
            if std::env::var_os("FANFOLD_CHECKPOINT_FIRST").is_some()
                && !effect.starts_with("checkpoint.")
            {
                // `block_in_place` moves this worker's other tasks to another thread, so they continue.
                tokio::task::block_in_place(|| std::thread::sleep(OTHERS_GO_ON));
                let checkpoint = lock(&CHECKPOINT).clone();
                checkpoint.iter().for_each(|checkpoint| checkpoint());
            }
            std::process::abort();
        }
    }

    /// Sets the function that makes a checkpoint before an abort.
    pub(crate) fn before_death(checkpoint: impl Fn() + Send + Sync + 'static) {
        *lock(&CHECKPOINT) = Some(Arc::new(checkpoint));
    }

    /// Simulates a full disk for everything in a folder, until it is called with `false`.
    #[cfg(test)]
    pub(crate) fn fill_disk(folder: &Path, is_full: bool) {
        match is_full {
            true => lock(&FULL).insert(folder.to_owned()),
            false => lock(&FULL).remove(folder),
        };
    }

    /// Whether the disk counts as full for `below`.
    pub(crate) fn is_full(below: &Path) -> bool {
        lock(&FULL).iter().any(|full| below.starts_with(full))
    }

    /// The size of a segment of the command log: `bytes`, unless `FANFOLD_SEGMENT_BYTES` replaces it.
    pub(crate) fn segment_bytes(bytes: u64) -> u64 {
        let wanted = std::env::var("FANFOLD_SEGMENT_BYTES").ok();
        wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(bytes)
    }

    /// Reports that the first `bytes` bytes of a file are synced.
    pub(crate) fn synced(path: &Path, bytes: u64) {
        static TRACE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
        let trace = TRACE.get_or_init(|| {
            let path = std::env::var_os("FANFOLD_TRACE_SYNCS")?;
            File::options().create(true).append(true).open(path).ok().map(Mutex::new)
        });
        if let Some(trace) = trace {
            let _ = writeln!(lock(trace), "{bytes} {}", path.display());
        }
    }

    /// Reports that the log of the tables is synced to its end.
    pub(crate) fn synced_tables(folder: &Path) {
        if std::env::var_os("FANFOLD_TRACE_SYNCS").is_none() {
            return;
        }
        let Some(log) = newest_table_log(folder) else { return };
        let mut ends = lock(&ENDS);
        let end = ends.entry(log.clone()).or_default();
        if let Ok(found) = data_end(&log, *end) {
            *end = found;
            synced(&log, found);
        }
    }

    /// The newest log file of `fjall`: the one with the highest number.
    pub fn newest_table_log(folder: &Path) -> Option<PathBuf> {
        let files = fs::read_dir(folder.join("tables")).ok()?.flatten().map(|entry| entry.path());
        let number =
            |path: &PathBuf| path.file_name()?.to_str()?.strip_suffix(".jnl")?.parse().ok();
        let numbered = files.filter_map(|path| Some((number(&path)?, path)));
        numbered.max_by_key(|(number, _): &(u64, PathBuf)| *number).map(|(_, path)| path)
    }

    /// The end of the data: the offset after the last non-zero byte from `from` on. `fjall` allocates
    /// its files larger than their data, and its data ends with a non-zero byte.
    pub fn data_end(path: &Path, from: u64) -> io::Result<u64> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(from))?;
        let (mut end, mut at) = (from, from);
        let mut piece = vec![0; 64 * 1024];
        while at - end < ZEROS_MAX {
            let bytes = file.read(&mut piece)?;
            if bytes == 0 {
                break;
            }
            let last = piece[..bytes].iter().rposition(|byte| *byte != 0);
            end = last.map_or(end, |last| at + last as u64 + 1);
            at += bytes as u64;
        }
        Ok(end)
    }
}
