//! What is shown while it runs, if somebody watches.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::live::Live;

/// A bar on the terminal. It is gone when this is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    before: (Instant, u64),
}

impl Progress {
    /// For what is counted.
    pub(crate) fn counting(what: &'static str, length: u64) -> Self {
        Self::new(length, "{prefix} {bar:30} {human_pos}/{human_len}", what)
    }

    /// For a load that lasts so long.
    pub(crate) fn lasting(what: String, time: Duration, live: &Live) -> Self {
        let length = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut bar = Self::new(length, "{prefix} {bar:20} {elapsed} {msg}", what);
        // What was accepted before is none of its rate.
        bar.before.1 = live.look().accepted;
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

    /// Rate, errors and lag, as they are now.
    pub(crate) fn show(&mut self, live: &Live, elapsed: Duration) {
        let (now, look) = (Instant::now(), live.look());
        let seconds = (now - self.before.0).as_secs_f64().max(1e-3);
        let per_s = look.accepted.saturating_sub(self.before.1) as f64 / seconds;
        self.before = (now, look.accepted);
        self.bar.set_position(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX));
        self.bar.set_message(format!(
            "{per_s:.0}/s  {} errors  {} under way  {:.1} ms late  view {:.1} ms",
            look.errors, look.under_way, look.late_ms, look.view_ms
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
