//! Fault points, at which a test can abort the process. They abort only with the feature
//! `fault-points`. Other work can run at each of them with the feature `interleavings`.
//!
//! - `FANFOLD_ABORT_AFTER=journal.append:37` aborts after the 37th append to the journal.
//! - `FANFOLD_CHECKPOINT_FIRST=1` pauses and makes a checkpoint before the abort. So the effect is
//!   on disk, and its consequences are not. During the pause all other threads continue: a stage
//!   that wrongly counts the effect's consequences as done then records that in the checkpoint.
//! - `FANFOLD_SEGMENT_BYTES=300` begins a new segment of the command log after so many bytes.

/// The effects that every load causes.
#[cfg(feature = "fault-points")]
pub const EFFECTS: &[&str] = &[
    "command_log.written",
    "command_log.synced",
    "commands.show",
    "stream.put",
    "journal.append",
    "state.put",
    "topic.publish",
    "view.put_row",
    "view.move_cursor",
    "checkpoint.cut",
    "checkpoint.saved",
    "checkpoint.trimmed",
];

#[cfg(not(feature = "fault-points"))]
pub(crate) use self::none::*;
#[cfg(feature = "fault-points")]
pub(crate) use self::points::*;

#[cfg(not(feature = "fault-points"))]
mod none {
    pub(crate) fn reached(_effect: &'static str) {
        crate::interleave::reached(crate::interleave::Between::Steps);
    }

    pub(crate) fn before_abort(_checkpoint: impl Fn() + Send + Sync + 'static) {}

    pub(crate) fn segment_bytes(bytes: u64) -> u64 {
        bytes
    }
}

#[cfg(feature = "fault-points")]
mod points {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex, OnceLock};
    use std::time::Duration;

    use super::EFFECTS;
    use crate::interleave::{self, Between};
    use crate::striped::lock;

    /// The pause before a checkpoint: long enough for several checks of the stages' progress.
    const OTHERS_GO_ON: Duration = Duration::from_millis(200);

    type Checkpoint = Arc<dyn Fn() + Send + Sync>;

    struct Point {
        effect: String,
        nth: u64,
        reached: AtomicU64,
    }

    static CHECKPOINT: Mutex<Option<Checkpoint>> = Mutex::new(None);

    /// Reports that an effect took place, and no step behind it. Aborts if `FANFOLD_ABORT_AFTER` asks for it.
    pub(crate) fn reached(effect: &'static str) {
        static POINT: OnceLock<Option<Point>> = OnceLock::new();
        debug_assert!(EFFECTS.contains(&effect), "{effect}");
        let point = POINT.get_or_init(|| {
            let wanted = std::env::var("FANFOLD_ABORT_AFTER").ok()?;
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
                // `block_in_place` lets this worker's other tasks continue on another thread.
                tokio::task::block_in_place(|| std::thread::sleep(OTHERS_GO_ON));
                let checkpoint = lock(&CHECKPOINT).clone();
                checkpoint.iter().for_each(|checkpoint| checkpoint());
            }
            std::process::abort();
        }
        interleave::reached(Between::Steps);
    }

    /// Sets the function that makes a checkpoint before an abort.
    pub(crate) fn before_abort(checkpoint: impl Fn() + Send + Sync + 'static) {
        *lock(&CHECKPOINT) = Some(Arc::new(checkpoint));
    }

    /// The size of a segment of the command log: `FANFOLD_SEGMENT_BYTES`, or else `bytes`.
    pub(crate) fn segment_bytes(bytes: u64) -> u64 {
        let wanted = std::env::var("FANFOLD_SEGMENT_BYTES").ok();
        wanted.and_then(|wanted| wanted.parse().ok()).unwrap_or(bytes)
    }
}

/// A full disk for tables.
#[cfg(test)]
pub(crate) mod full_disk {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    use crate::striped::lock;

    static FULL: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

    /// Makes the disk full for the tables in a folder; with `false`, makes room again.
    pub(crate) fn fill(folder: &Path, is_full: bool) {
        match is_full {
            true => lock(&FULL).insert(folder.to_owned()),
            false => lock(&FULL).remove(folder),
        };
    }

    /// Whether the disk counts as full for `below`.
    pub(crate) fn is_full(below: &Path) -> bool {
        lock(&FULL).iter().any(|full| below.starts_with(full))
    }
}
