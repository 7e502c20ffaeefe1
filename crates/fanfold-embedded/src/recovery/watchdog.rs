//! Ends the process when an invocation does not return: an endless loop in users' code cannot be
//! ended from outside, and would stop its shard for ever. Lambda does the same at its timeout. The
//! next start repeats the work under way, which becomes suspect if it ends the process again.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::striped::lock;

/// The number of checks in the longest time that an invocation may take.
const CHECKS: u32 = 4;
/// The longest pause between two checks.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// Tracks the invocations under way.
#[derive(Default)]
pub(crate) struct Watchdog {
    under_way: Mutex<BTreeMap<u64, (Instant, &'static str)>>,
    next: AtomicU64,
}

/// An invocation under way, until it is dropped.
pub(crate) struct UnderWay<'a> {
    watchdog: &'a Watchdog,
    number: u64,
}

impl Watchdog {
    /// Records that an invocation begins.
    pub(crate) fn watch(&self, what: &'static str) -> UnderWay<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.under_way).insert(number, (Instant::now(), what));
        UnderWay { watchdog: self, number }
    }

    /// An invocation that has been under way for longer than `hang`.
    fn overdue(&self, hang: Duration) -> Option<&'static str> {
        let under_way = lock(&self.under_way);
        let (began, what) = under_way.first_key_value().map(|(_, invocation)| *invocation)?;
        (began.elapsed() > hang).then_some(what)
    }

    /// Starts the thread that ends the process when an invocation has been under way for longer
    /// than `hang`. The thread ends when all other references to the watchdog are dropped.
    pub(crate) fn start(self: &Arc<Self>, hang: Duration) -> std::io::Result<()> {
        let watchdog = Arc::downgrade(self);
        let pause = (hang / CHECKS).min(PAUSE_MAX);
        let thread = thread::Builder::new().name("fanfold-watchdog".to_owned());
        thread.spawn(move || {
            while let Some(watchdog) = watchdog.upgrade() {
                if let Some(what) = watchdog.overdue(hang) {
                    let seconds = hang.as_secs_f32();
                    // Unlike `eprintln!`, this does not panic if standard error is closed.
                    let _ = writeln!(
                        io::stderr(),
                        "error: {what} did not return within {seconds} s: the process ends"
                    );
                    std::process::abort();
                }
                drop(watchdog);
                thread::sleep(pause);
            }
        })?;
        Ok(())
    }
}

/// Held by a thread that the engine needs: ends the process if the thread panics.
pub(crate) struct Vital(pub(crate) &'static str);

impl Drop for Vital {
    fn drop(&mut self) {
        if thread::panicking() {
            let _ = writeln!(
                io::stderr(),
                "error: the thread of {} panicked: the process ends",
                self.0
            );
            std::process::abort();
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        lock(&self.watchdog.under_way).remove(&self.number);
    }
}
