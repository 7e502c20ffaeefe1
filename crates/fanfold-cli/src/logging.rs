//! The process's log: lines on standard error, with repeated warnings counted instead of shown.
//!
//! While a disk is full, every command causes a warning. The log shows a warning or an error once in
//! [`PERIOD`], and then how many more there were. Lines are repeats of one another if they come from
//! the same place in the code with the same message, whatever their other fields are. That includes
//! alarms. The Lambdas log every line, because metric filters of CloudWatch count them there.

use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::time::{MissedTickBehavior, interval};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as lines};

use crate::console::{self, BestEffort};

/// How long the repeats of a line are counted before they are reported. Source: our choice; soon
/// enough for people, and at most two lines for each kind in that time.
const PERIOD: Duration = Duration::from_secs(5);
/// How often to look for periods that have ended. Source: our choice; a fifth of a period late.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Characters of a line's message to keep.
const MESSAGE_CHARS_MAX: usize = 200;
/// Kinds of lines to tell apart. Beyond them, lines of one place in the code are of one kind. Source:
/// our choice; more than the places, most of which have one message.
const KINDS_MAX: usize = 1_000;

/// The message of lines that are not told apart.
const OTHERS: &str = "other messages";

/// Begins to log the lines that `filter` lets through. Repeats are reported while [`Repeats::run`]
/// runs.
pub(crate) fn init(filter: EnvFilter) -> Repeats {
    let repeats = Repeats::default();
    let lines = lines::layer().with_writer(|| BestEffort).with_ansi(console::has_colours());
    tracing_subscriber::registry().with(filter).with(repeats.clone()).with(lines).init();
    repeats
}

/// Counts of the latest warnings and errors, by kind.
#[derive(Clone)]
pub(crate) struct Repeats {
    kinds: Arc<Mutex<HashMap<(Identifier, String), Kind>>>,
    now: fn() -> Instant,
}

/// Lines that repeat one another.
struct Kind {
    /// When the line was shown last.
    shown: Instant,
    /// How many were not shown since.
    hidden: u64,
}

impl Default for Repeats {
    fn default() -> Self {
        Self::by(Instant::now)
    }
}

impl Repeats {
    /// Counts by this clock.
    fn by(now: fn() -> Instant) -> Self {
        Self { kinds: Arc::default(), now }
    }

    /// Reports repeats when their period ends, until dropped.
    pub(crate) async fn run(self) {
        let mut times = interval(LOOK_EVERY);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            times.tick().await;
            self.report_after(PERIOD);
        }
    }

    /// Reports all repeats that were not reported yet.
    pub(crate) fn report(&self) {
        self.report_after(Duration::ZERO);
    }

    /// Reports how many lines were not shown, of kinds whose line was shown at least so long ago, and
    /// forgets these kinds. A kind with repeats begins its next period, so that a flood is reported
    /// once in each.
    fn report_after(&self, period: Duration) {
        let now = (self.now)();
        let mut reports = Vec::new();
        self.lock().retain(|(_, message), kind| {
            if now.saturating_duration_since(kind.shown) < period {
                return true;
            }
            if kind.hidden == 0 {
                return false;
            }
            reports.push((kind.hidden, message.clone()));
            *kind = Kind { shown: now, hidden: 0 };
            true
        });
        // Without the lock, which the layer takes for each of these lines, too.
        for (repeats, of) in reports {
            tracing::warn!(repeats, of, "repeats of this message were not shown");
        }
    }

    /// Counts a line. Whether it is to be shown.
    fn is_shown(&self, place: Identifier, message: String) -> bool {
        let now = (self.now)();
        let mut kinds = self.lock();
        let mut key = (place, message);
        if kinds.len() >= KINDS_MAX && !kinds.contains_key(&key) {
            key.1 = OTHERS.to_owned();
        }
        match kinds.get_mut(&key) {
            Some(kind) => {
                kind.hidden += 1;
                false
            }
            None => {
                kinds.insert(key, Kind { shown: now, hidden: 0 });
                true
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<(Identifier, String), Kind>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // A filter that lets more than warnings through asks for all of those lines.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.is_shown(metadata.callsite(), message.0)
    }
}

/// The message of an event, or its first field if it has no message.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        struct UpTo<'a>(&'a mut String, usize);
        impl Write for UpTo<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                let fits: String = text.chars().take(self.1).collect();
                self.1 -= fits.chars().count();
                self.0.push_str(&fits);
                Ok(())
            }
        }
        let is_message = field.name() == "message";
        if !is_message && !self.0.is_empty() {
            return;
        }
        let mut text = String::new();
        let mut up_to = UpTo(&mut text, MESSAGE_CHARS_MAX);
        // Only the value's own `Debug` can fail; then the text so far is kept.
        let _ = match is_message {
            true => write!(up_to, "{value:?}"),
            false => write!(up_to, "{}={value:?}", field.name()),
        };
        self.0 = text;
    }
}

#[cfg(test)]
mod tests;
