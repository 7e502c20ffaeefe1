//! The progress bar on a terminal.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::live::Live;

/// A bar on the terminal. Dropping it removes the bar.
pub(crate) struct Progress {
    bar: ProgressBar,
    before: (Instant, u64),
}

impl Progress {
    pub(crate) fn counting(what: &'static str, length: u64) -> Self {
        Self::new(length, "{prefix} {bar:30} {human_pos}/{human_len}", what)
    }

    /// A bar for a load of this duration.
    pub(crate) fn lasting(what: String, time: Duration, live: &Live) -> Self {
        let length = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut bar = Self::new(length, "{prefix} {bar:20} {elapsed} {msg}", what);
        // Commands that were accepted before do not count for its rate.
        bar.before.1 = live.numbers().accepted;
        bar
    }

    fn new(length: u64, template: &str, what: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        let style = ProgressStyle::with_template(template).expect("the template is one");
        let bar = ProgressBar::new(length).with_style(style).with_prefix(what);
        Self { bar, before: (Instant::now(), 0) }
    }

    pub(crate) fn count(&self, position: u64) {
        self.bar.set_position(position);
    }

    pub(crate) fn count_of(&self, position: u64, length: u64) {
        self.bar.set_length(length);
        self.bar.set_position(position);
    }

    pub(crate) fn show(&mut self, live: &Live, elapsed: Duration) {
        let (now, numbers) = (Instant::now(), live.numbers());
        let seconds = (now - self.before.0).as_secs_f64().max(1e-3);
        let per_s = numbers.accepted.saturating_sub(self.before.1) as f64 / seconds;
        self.before = (now, numbers.accepted);
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(format!(
            "{per_s:.0}/s  {} errors  {} under way  {:.1} ms late  view {:.1} ms",
            numbers.errors, numbers.under_way, numbers.late_ms, numbers.view_ms
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
