//! Samples: measures when some of the accepted commands become visible.
//!
//! Each sample is read with `?wait=`, in turn from the log and from a view. The answers go into the
//! receipts, and the auditor compares them with the log.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::exchange::Context;
use crate::measure::Measured;
use crate::workload::Spec;
use auditor::http::{Answer, HttpError, is_transient};
use auditor::limits::{NEWEST_ROWS, PAGE_MAX, WAIT_MS_MAX};
use auditor::receipts::{Line, SeenCursor, SeenEntry, SeenRow, SeenRows};

/// Samples under way. Each holds a connection while it waits.
pub(crate) const UNDER_WAY_MAX: usize = 64;
/// Samples that wait until one of those ends; their times are upper bounds. Further samples are
/// dropped and counted.
pub(crate) const WAITING_MAX: usize = 4_096;
/// The pause before a failed request is repeated.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Entry,
    /// Views of the ledger: the auditor compares their rows.
    Balances,
    Statement,
    Totals,
    /// Any view: the auditor compares its cursor.
    View(Arc<str>),
}

#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) log: String,
    pub(crate) seq: u64,
    pub(crate) due: Duration,
    source: Source,
}

/// Assigns the sources to samples, in turn.
pub(crate) struct SampleSources {
    /// Each view once, and the log as often as all views.
    sequence: Vec<Source>,
    last: usize,
}

impl SampleSources {
    pub(crate) fn new(spec: &Spec) -> Self {
        let views = match &spec.program {
            None => vec![Source::Balances, Source::Statement, Source::Totals],
            Some(program) => {
                program.views.iter().map(|view| Source::View(view[..].into())).collect()
            }
        };
        let in_turn = views.into_iter().flat_map(|view| [Source::Entry, view]);
        let mut sequence: Vec<Source> = in_turn.collect();
        if sequence.is_empty() {
            sequence.push(Source::Entry);
        }
        Self { sequence, last: 0 }
    }

    /// The number of samples after which each source had its turn.
    pub(crate) fn count(&self) -> usize {
        self.sequence.len()
    }

    pub(crate) fn sample(&mut self, log: String, seq: u64, due: Duration) -> Sample {
        self.last += 1;
        let source = self.sequence[self.last % self.sequence.len()].clone();
        Sample { log, seq, due, source }
    }
}

impl Sample {
    fn path(&self, wait_ms: u64) -> String {
        let Self { log, seq, .. } = self;
        let view =
            |view: &str, more: &str| format!("/views/{view}/{log}?seq={seq}&wait={wait_ms}{more}");
        match &self.source {
            Source::Entry => format!("/logs/{log}/{seq}?wait={wait_ms}"),
            Source::Balances => view("balances", &format!("&limit={PAGE_MAX}")),
            Source::Statement => view("statement", &format!("&order=desc&limit={NEWEST_ROWS}")),
            Source::Totals => view("totals", ""),
            Source::View(name) => view(name, "&limit=1"),
        }
    }

    pub(crate) fn kind(&self) -> Measured {
        match self.source {
            Source::Entry => Measured::Entry,
            _ => Measured::View,
        }
    }

    fn line(&self, body: &[u8], began: Duration, ended: Duration) -> serde_json::Result<Line> {
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let (began_us, ended_us) = (us(began), us(ended));
        let view = match &self.source {
            Source::View(view) => {
                let Reached { seq } = serde_json::from_slice(body)?;
                let (view, log, wanted) = (view.to_string(), self.log.clone(), self.seq);
                return Ok(Line::Cursor(SeenCursor { view, log, wanted, seq, began_us, ended_us }));
            }
            Source::Entry => {
                let entry: Box<RawValue> = serde_json::from_slice(body)?;
                return Ok(Line::Entry(SeenEntry { log: self.log.clone(), seq: self.seq, entry }));
            }
            Source::Balances => "balances",
            Source::Statement => "statement",
            Source::Totals => "totals",
        };
        let Page { seq, rows } = serde_json::from_slice(body)?;
        Ok(Line::Rows(SeenRows {
            view: view.to_owned(),
            log: self.log.clone(),
            seq,
            began_us,
            ended_us,
            rows,
        }))
    }
}

#[derive(Deserialize)]
struct Page {
    seq: u64,
    rows: Vec<SeenRow>,
}

/// A page whose rows do not count.
#[derive(Deserialize)]
struct Reached {
    seq: u64,
}

/// The answer 202: the command is not visible yet.
#[derive(Deserialize)]
struct Pending {
    parked: Option<IgnoredAny>,
}

/// Whether a later request can get another answer.
fn may_change(answer: &Result<Answer, HttpError>) -> bool {
    let Ok(answer) = answer else { return true };
    let pending = || serde_json::from_slice::<Pending>(&answer.body);
    match answer.status {
        // A parked view does not go on until an operator acts.
        StatusCode::ACCEPTED => pending().map_or(true, |pending| pending.parked.is_none()),
        status => status.is_success() || is_transient(status.as_u16()),
    }
}

impl Context<'_> {
    /// Waits until the command is visible; `None`: its time is over, or it will not become visible.
    pub(crate) async fn await_sample(&self, sample: &Sample) -> Option<Line> {
        loop {
            let left = self.time_left(sample.due);
            if left.is_zero() || self.live.is_stopped() {
                return None;
            }
            let wait = left.min(Duration::from_millis(WAIT_MS_MAX));
            let path = sample.path(u64::try_from(wait.as_millis()).unwrap_or(WAIT_MS_MAX));
            let (began, sent) = (self.now(), self.clock.elapsed());
            let answer = self.target.get(&path, wait + self.timeouts.timeout).await;
            let now = self.now();
            let line = answer
                .as_ref()
                .ok()
                .filter(|answer| answer.status == StatusCode::OK)
                .and_then(|answer| sample.line(&answer.body, sent, self.clock.elapsed()).ok());
            if let Some(line) = line {
                self.measured(sample, now);
                return Some(line);
            }
            if !may_change(&answer) {
                return None;
            }
            // A wait that timed out was pause enough.
            if now < began + PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn measured(&self, sample: &Sample, now: Duration) {
        self.measures.borrow_mut().took(sample.kind(), sample.due, now);
        if sample.kind() == Measured::View {
            let us = now.saturating_sub(sample.due).as_micros();
            self.live.saw_in_view(u64::try_from(us).unwrap_or(u64::MAX));
        }
    }
}
