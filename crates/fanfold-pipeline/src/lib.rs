//! The stages of Fanfold, as async functions over ports. In reading order, the path of one command:
//!
//! 1. [`ingest`] assigns a request its seq in its log and makes it durable.
//! 2. [`relay`] puts changes of the slots on the command stream, in order.
//! 3. [`process`] decides commands, appends their entries to the journal and publishes the commits.
//! 4. [`project`] folds commits into the rows of a view.
//!
//! [`sweep`] finds logs that stand still; [`arrivals`] bounds what an outage can lose; [`operate`] is what operators do,
//! [`doctor`] what they look at; [`announce`] makes a view known; [`read`] answers callers; [`packing`] publishes commits as
//! messages; [`telemetry`] is what the stages measure, [`traces`] what they report of single commands; [`panics`] lets hosts log panics; [`build`] names the program;
//! [`wiring`] connects the stages to their ports.
//!
//! None of the four stages calls another. What passes between them goes through [`ports`], and each
//! resumes from its own checkpoint. (The sweeps do use stages: ingest for canaries, and a view's
//! projector.) The stages do not depend on Lambda, AWS, HTTP or the embedded engine. Time,
//! randomness and sleep reach them through the port [`Env`](ports::Env). No task outlives a call.

pub mod announce;
pub mod arrivals;
mod at_once;
mod backoff;
mod breach;
pub mod build;
pub mod calls;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod doctor;
pub mod ingest;
mod leases;
pub mod metrics;
pub mod operate;
pub mod packing;
pub mod panics;
mod parked_pages;
pub mod ports;
pub mod process;
pub mod project;
pub mod read;
pub mod relay;
pub mod sweep;
pub mod telemetry;
pub mod tenants;
#[cfg(feature = "testing")]
pub mod testing;
pub mod timeline;
pub mod traces;
pub mod wiring;

pub use leases::Others;

/// A stage's answer to a batch of records, as Lambda's event source mappings read it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BatchOutcome {
    /// The index of the first record that is not finished. It and all records behind it must come
    /// again. `None`: the batch is done.
    pub unfinished: Option<usize>,
}

impl BatchOutcome {
    /// The batch is done.
    pub const DONE: Self = Self { unfinished: None };

    /// Marks the batch as unfinished from `index` on, too.
    pub fn fail_from(&mut self, index: usize) {
        self.unfinished = Some(self.unfinished.map_or(index, |at| at.min(index)));
    }
}

#[cfg(test)]
mod tests {
    use fanfold::Time;

    use super::*;

    fn assert_send(_: impl Send) {}

    /// Hosts run the stages as tasks of any runtime, so their futures are `Send`. Compiling this is
    /// the test.
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
