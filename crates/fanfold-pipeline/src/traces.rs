//! What stages report of the commands whose traces are recorded.
//!
//! A command of such a trace says so by its [`TraceParent`], which travels with it. A stage that has had its effect on a
//! batch reports those commands of it: at once, behind the effect, and only they cost anything. What a batch is: for the
//! relay a record, for the processor a commit, for publishing one call, for a view the entries of a log that it applies
//! together.
//!
//! The module knows no tracing system. A host that has one gives it to its stages with
//! [`Telemetry::with_traces`](crate::telemetry::Telemetry::with_traces).

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use fanfold::host::body::notification::Commit;
use fanfold::{Entry, LogId, Name, Seq, TraceParent};

/// A tracing system. Its methods wait for nothing.
pub trait Traces: fmt::Debug + Send + Sync {
    /// The time by which it measures.
    fn now(&self) -> SystemTime;

    /// Begins the span of a request. `parent` is what the request says. `route` is the path's pattern.
    fn request(
        &self,
        parent: Option<TraceParent>,
        method: &str,
        route: &'static str,
    ) -> Box<dyn RequestSpan>;

    /// Takes what a stage has done on a batch.
    fn batch(&self, batch: &TracedBatch<'_>);
}

/// The span of a request. It ends, at the latest, when it is dropped.
pub trait RequestSpan: Send {
    /// What the request's commands carry; `None` if the trace is not recorded.
    fn context(&self) -> Option<TraceParent>;

    /// Ends the span. `status` is the answer's, of HTTP.
    fn end(self: Box<Self>, status: u16);
}

/// The effects on a command's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop<'a> {
    /// The command stream has the command.
    Relay,
    /// The journal has its entry.
    Decide,
    /// The topic has its entry.
    Publish,
    /// The rows of the view of this name have its entry.
    Apply(&'a str),
}

/// A batch on which a stage has had its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TracedBatch<'a> {
    /// The effect.
    pub hop: Hop<'a>,
    /// When the stage began with it.
    pub began: SystemTime,
    /// Its commands whose traces are recorded: at least one.
    pub commands: Vec<Traced<'a>>,
}

/// A command whose trace is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traced<'a> {
    /// The span that has sent it.
    pub trace: TraceParent,
    /// Its log.
    pub log: &'a LogId,
    /// Its seq.
    pub seq: Seq,
    /// Its name, if the stage knows it.
    pub name: Option<Name>,
    /// The outcome, if it has one.
    pub outcome: Option<&'static str>,
}

/// The traces of one stage's batch: when it began, and where to report it. `None`: nothing is recorded here.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tracing(Option<(Arc<dyn Traces>, SystemTime)>);

impl Tracing {
    /// A batch that begins now.
    pub(crate) fn begin(traces: Option<&Arc<dyn Traces>>) -> Self {
        Self(traces.map(|traces| (traces.clone(), traces.now())))
    }

    /// Reports the commands of the batch, if there are any. `commands` is not asked if nothing is recorded here.
    pub(crate) fn report<'a, I>(&self, hop: Hop<'a>, commands: impl FnOnce() -> I)
    where
        I: IntoIterator<Item = Traced<'a>>,
    {
        let Some((traces, began)) = &self.0 else { return };
        let commands: Vec<Traced<'a>> = commands().into_iter().collect();
        if !commands.is_empty() {
            traces.batch(&TracedBatch { hop, began: *began, commands });
        }
    }
}

/// Those of the entries whose traces are recorded.
pub(crate) fn of_entries<'a>(
    log: &'a LogId,
    entries: impl IntoIterator<Item = &'a Entry>,
) -> impl Iterator<Item = Traced<'a>> {
    entries.into_iter().filter_map(move |entry| {
        let (seq, name) = (entry.seq, entry.command.clone());
        let outcome = Some(entry.outcome.status());
        entry.trace.map(|trace| Traced { trace, log, seq, name, outcome })
    })
}

/// As [`of_entries`], of commits.
pub(crate) fn of_commits<'a>(
    commits: impl IntoIterator<Item = &'a Commit>,
) -> impl Iterator<Item = Traced<'a>> {
    commits.into_iter().flat_map(|commit| of_entries(&commit.log, commit.entries.iter()))
}
