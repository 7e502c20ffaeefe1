//! The stages of Fanfold, as async functions over ports. In reading order, the way of one command:
//!
//! 1. [`ingest`]: a request gets its place in its log, and is durable;
//! 2. [`relay`]: what changed goes on to the command stream, in order;
//! 3. [`process`]: decided, folded, appended to the journal, published;
//! 4. [`project`]: folded into the rows of a view.
//!
//! [`sweep`] finds what stands still; [`read`] is what callers see. Hosts have [`panics`] logged.
//!
//! None of the four calls another: what passes between them goes through [`ports`], and each resumes
//! from its own checkpoint. (Sweeps use stages: their canaries, and their view's projector.) They
//! know nothing of Lambda, AWS, HTTP or the embedded engine; time, randomness and sleep reach them
//! as the port [`Env`](ports::Env). No task outlives a call.

mod at_once;
mod attempts;
mod backoff;
mod breach;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod ingest;
pub mod panics;
pub mod ports;
pub mod process;
pub mod project;
pub mod read;
pub mod relay;
pub mod sweep;

pub use attempts::Others;

/// What a stage says of a batch of records, in the way Lambda's event source mappings read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchOutcome {
    /// The index of the first record that is not finished: it and all behind it must come again.
    /// `None`: the batch is done.
    pub unfinished: Option<usize>,
}

impl BatchOutcome {
    /// The batch is done.
    pub const DONE: Self = Self { unfinished: None };

    /// Also unfinished from `index` on.
    pub fn fail_from(&mut self, index: usize) {
        self.unfinished = Some(self.unfinished.map_or(index, |at| at.min(index)));
    }
}

#[cfg(test)]
mod tests {
    use fanfold::Time;

    use super::*;

    fn assert_send(_: impl Send) {}

    /// Hosts run the stages as tasks of any runtime. That this compiles is the test.
    #[expect(dead_code, reason = "only its types are of interest")]
    fn stages_are_send(
        ingest: &ingest::Ingest,
        relay: &relay::Relay,
        processor: &process::Processor,
        projector: &project::Projector,
        sweep: &sweep::Sweep,
        view_sweep: &sweep::ViewSweep,
    ) {
        assert_send(ingest.ingest(&[]));
        assert_send(relay.relay(&[], Time(0)));
        assert_send(processor.process(&[], Time(0)));
        assert_send(projector.project(&[], Time(0)));
        assert_send(sweep.sweep(None, 1, Time(0)));
        assert_send(view_sweep.sweep(None, 1, Time(0)));
    }
}
