//! Where a test can end the process: right after an effect. Only with the feature `fault-points`.
//!
//! `FANFOLD_DIE_AFTER=journal.append:37` aborts after the 37th append to the journal.

/// An effect took place.
#[cfg(not(feature = "fault-points"))]
pub(crate) fn reached(_effect: &'static str) {}

/// An effect took place.
#[cfg(feature = "fault-points")]
pub(crate) fn reached(effect: &'static str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Point {
        effect: String,
        nth: u64,
        reached: AtomicU64,
    }

    static POINT: OnceLock<Option<Point>> = OnceLock::new();
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
        std::process::abort();
    }
}
