use std::cell::Cell;
use std::io;
use std::sync::LazyLock;

use super::*;

thread_local! {
    /// The time of this test's clock, in milliseconds.
    static MS: Cell<u64> = const { Cell::new(0) };
}

fn clock() -> Instant {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    *START + Duration::from_millis(MS.get())
}

fn after(ms: u64) {
    MS.set(MS.get() + ms);
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        let bytes = self.0.lock().expect("no test panics here").clone();
        String::from_utf8(bytes).expect("it is text")
    }

    fn count(&self, what: &str) -> usize {
        self.text().lines().filter(|line| line.contains(what)).count()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no test panics here").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs `log` with a log of its own.
fn logged(log: impl FnOnce(&Repeats, &Lines)) {
    MS.set(0);
    let (repeats, shown) = (Repeats::by(clock), Lines::default());
    let writer = shown.clone();
    let lines = lines::layer().with_writer(move || writer.clone()).with_ansi(false);
    let subscriber = tracing_subscriber::registry().with(repeats.clone()).with(lines);
    tracing::subscriber::with_default(subscriber, || log(&repeats, &shown));
}

#[test]
fn a_repeated_warning_is_said_once_and_counted() {
    logged(|repeats, shown| {
        let full = |n: u64| {
            for seq in 0..n {
                tracing::warn!(seq, "the disk is full");
                tracing::info!("a command");
            }
        };
        full(1_000);
        after(4_999);
        full(1);
        repeats.report_after(PERIOD);
        assert_eq!(shown.count("WARN"), 1, "{}", shown.text());
        after(1);
        repeats.report_after(PERIOD);
        assert_eq!(shown.count(r#"repeats=1000 of="the disk is full""#), 1, "{}", shown.text());
        // The flood goes on: it is reported when the next period ends.
        full(10);
        after(5_000);
        repeats.report_after(PERIOD);
        assert_eq!(shown.count("repeats=10 "), 1, "{}", shown.text());
        // Two quiet periods later the warning is new again.
        after(5_000);
        repeats.report_after(PERIOD);
        full(1);
        repeats.report();
        assert_eq!(shown.count("WARN"), 4, "{}", shown.text());
        assert_eq!(shown.count("INFO"), 1_012, "all other lines are shown");
    });
}

#[test]
fn lines_are_repeats_by_their_place_and_message_whatever_their_fields_are() {
    logged(|repeats, shown| {
        for log in ["a", "b"] {
            tracing::error!(alarm = "suspect", log, "the log may have crashed its process");
            tracing::error!(alarm = "suspect", log, "the log may have crashed its process");
            tracing::warn!(log, "a request failed {}", log);
        }
        repeats.report();
        assert_eq!(shown.count("ERROR"), 2, "{}", shown.text());
        assert_eq!(shown.count("log=\"a\""), 3, "{}", shown.text());
        let reported = r#"repeats=1 of="the log may have crashed its process""#;
        assert_eq!(shown.count(reported), 2, "{}", shown.text());
        assert_eq!(shown.count("a request failed"), 2, "{}", shown.text());
    });
}

#[test]
fn messages_without_end_take_no_memory_without_end() {
    logged(|repeats, shown| {
        for n in 0..2 * KINDS_MAX {
            tracing::warn!("message {n}");
        }
        assert_eq!(shown.count("WARN"), KINDS_MAX + 1);
        assert_eq!(repeats.lock().len(), KINDS_MAX + 1);
        repeats.report();
        assert_eq!(shown.count(r#"repeats=999 of="other messages""#), 1);
        after(5_000);
        repeats.report_after(PERIOD);
        assert_eq!(repeats.lock().len(), 0);
    });
}
