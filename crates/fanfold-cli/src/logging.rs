//! The process's log: lines on standard error, with repeated warnings counted instead of shown.
//!
//! While a disk is full, every command causes a warning. The log shows the first lines of a kind,
//! and then at intervals how many more there were. Lines of one kind come from the same place in
//! the code, whatever their fields are.

use std::collections::HashMap;
use std::fmt::{self, Debug, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt as lines};

use crate::console::{self, BestEffort};

/// Lines of a kind to show within [`REPORT_EVERY`]. Source: our choice; enough to see which logs or
/// hops are affected.
const SHOWN_MAX: u64 = 5;
/// How often to report the number of lines that were not shown. Source: our choice; soon enough for
/// people, and at most 8,640 lines a day for each kind.
const REPORT_EVERY: Duration = Duration::from_secs(10);
/// Characters of a line's message to keep for the report.
const MESSAGE_CHARS_MAX: usize = 200;

/// Begins to log the lines that `filter` lets through. Repeats are reported while [`Repeats::run`]
/// runs.
pub(crate) fn init(filter: EnvFilter) -> Repeats {
    let repeats = Repeats::default();
    let lines = lines::layer().with_writer(|| BestEffort).with_ansi(console::has_colours());
    tracing_subscriber::registry().with(filter).with(repeats.clone()).with(lines).init();
    repeats
}

/// Counts of the latest warnings and errors, by their place in the code, which bounds the map.
#[derive(Clone, Default)]
pub(crate) struct Repeats(Arc<Mutex<HashMap<Identifier, Kind>>>);

struct Kind {
    seen: u64,
    message: String,
}

impl Repeats {
    /// Reports repeats at intervals, until dropped.
    pub(crate) async fn run(self) {
        let mut times = interval(REPORT_EVERY);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            times.tick().await;
            self.report();
        }
    }

    /// Reports how many lines were not shown since the last report, and resets the counts.
    pub(crate) fn report(&self) {
        let kinds = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for kind in kinds.into_values() {
            if let Some(repeats) = kind.seen.checked_sub(SHOWN_MAX).filter(|n| *n > 0) {
                tracing::warn!(
                    repeats,
                    of = kind.message,
                    "repeats of this message were not shown"
                );
            }
        }
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // A filter that lets more than warnings through asks for all of those lines.
        if *metadata.level() > Level::WARN || metadata.target() == module_path!() {
            return true;
        }
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(metadata.callsite()).or_insert_with(|| {
            let mut message = Message(String::new());
            event.record(&mut message);
            Kind { seen: 0, message: message.0 }
        });
        kind.seen += 1;
        kind.seen <= SHOWN_MAX
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
        let mut text = String::new();
        let mut up_to = UpTo(&mut text, MESSAGE_CHARS_MAX);
        let is_message = field.name() == "message";
        // Only the value's own `Debug` can fail; then the text so far is kept.
        let _ = match is_message {
            true => write!(up_to, "{value:?}"),
            false => write!(up_to, "{}={value:?}", field.name()),
        };
        if is_message || self.0.is_empty() {
            self.0 = text;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no test panics here").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn repeats_are_counted_by_kind() {
        let (repeats, shown) = (Repeats::default(), Lines::default());
        let writer = shown.clone();
        let lines = lines::layer().with_writer(move || writer.clone()).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(repeats.clone()).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            for seq in 0..1_000 {
                tracing::warn!(seq, "the disk is full");
                tracing::info!("a command");
            }
            tracing::error!(alarm = "other", "another kind");
            repeats.report();
            tracing::warn!("once more");
            repeats.report();
        });
        let text = String::from_utf8(shown.0.lock().expect("it is done").clone());
        let text = text.expect("it is text");
        let count = |what: &str| text.lines().filter(|line| line.contains(what)).count();
        assert_eq!(count("WARN") - count("once more"), 6, "{text}");
        assert_eq!(count("repeats=995 of=\"the disk is full\""), 1, "{text}");
        assert_eq!(count("a command"), 1_000);
        assert_eq!((count("another kind"), count("once more")), (1, 1), "{text}");
    }
}
