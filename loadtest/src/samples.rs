//! Samples: what becomes of some of the accepted commands, and how soon.
//!
//! Each is read with `?wait=`: half of them in the log, the others in a view, in turn. What was read
//! goes to the receipts, for the auditor to compare with what is there in the end.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::exchange::Context;
use crate::measure::Kind;
use auditor::http::{Answer, HttpError, is_passing};
use auditor::limits::{NEWEST_ROWS, PAGE_MAX, WAIT_MS_MAX};
use auditor::receipts::{Line, SeenEntry, SeenRow, SeenRows};

/// Samples under way. Each holds a connection while it waits.
pub(crate) const UNDER_WAY_MAX: usize = 64;
/// Samples that wait for their turn: theirs is then an upper bound. More are dropped, and counted.
pub(crate) const WAITING_MAX: usize = 4_096;
/// Before a request that failed is repeated.
const PAUSE: Duration = Duration::from_millis(50);

/// Where a sample is looked for.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Entry,
    Balances,
    Statement,
    Totals,
}

/// Each view once, and the log as often as all of them.
const TURNS: [Place; 6] =
    [Place::Entry, Place::Balances, Place::Entry, Place::Statement, Place::Entry, Place::Totals];

/// How many there are.
pub(crate) const PLACES: usize = TURNS.len();

/// A command that is looked for.
#[derive(Debug)]
pub(crate) struct Sample {
    pub(crate) log: String,
    pub(crate) seq: u64,
    pub(crate) due: Duration,
    place: Place,
}

/// Gives samples their places.
#[derive(Default)]
pub(crate) struct Turns(usize);

impl Turns {
    pub(crate) fn sample(&mut self, log: String, seq: u64, due: Duration) -> Sample {
        self.0 += 1;
        Sample { log, seq, due, place: TURNS[self.0 % TURNS.len()] }
    }
}

impl Sample {
    fn path(&self, wait_ms: u64) -> String {
        let Self { log, seq, .. } = self;
        let view = |view, more: &str| format!("/views/{view}/{log}?seq={seq}&wait={wait_ms}{more}");
        match self.place {
            Place::Entry => format!("/logs/{log}/{seq}?wait={wait_ms}"),
            Place::Balances => view("balances", &format!("&limit={PAGE_MAX}")),
            Place::Statement => view("statement", &format!("&order=desc&limit={NEWEST_ROWS}")),
            Place::Totals => view("totals", ""),
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self.place {
            Place::Entry => Kind::Entry,
            Place::Balances | Place::Statement | Place::Totals => Kind::View,
        }
    }

    fn line(&self, body: &[u8], began: Duration, ended: Duration) -> serde_json::Result<Line> {
        let view = match self.place {
            Place::Entry => {
                let entry: Box<RawValue> = serde_json::from_slice(body)?;
                return Ok(Line::Entry(SeenEntry { log: self.log.clone(), seq: self.seq, entry }));
            }
            Place::Balances => "balances",
            Place::Statement => "statement",
            Place::Totals => "totals",
        };
        let us = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let Page { seq, rows } = serde_json::from_slice(body)?;
        Ok(Line::Rows(SeenRows {
            view: view.to_owned(),
            log: self.log.clone(),
            seq,
            began_us: us(began),
            ended_us: us(ended),
            rows,
        }))
    }
}

#[derive(Deserialize)]
struct Page {
    seq: u64,
    rows: Vec<SeenRow>,
}

/// What is not there yet.
#[derive(Deserialize)]
struct Pending {
    parked: Option<IgnoredAny>,
}

/// Whether asking again can change an answer.
fn may_come(answer: &Result<Answer, HttpError>) -> bool {
    let Ok(answer) = answer else { return true };
    let pending = || serde_json::from_slice::<Pending>(&answer.body);
    match answer.status {
        // A view that is parked stands still until somebody sees to it.
        StatusCode::ACCEPTED => pending().map_or(true, |pending| pending.parked.is_none()),
        status => status.is_success() || is_passing(status.as_u16()),
    }
}

impl Context<'_> {
    /// Waits until the command is there; `None`: the patience is over, or it will not come.
    pub(crate) async fn look_for(&self, sample: &Sample) -> Option<Line> {
        loop {
            let left = self.patience_left(sample.due);
            if left.is_zero() || self.live.is_stopped() {
                return None;
            }
            let wait = left.min(Duration::from_millis(WAIT_MS_MAX));
            let path = sample.path(u64::try_from(wait.as_millis()).unwrap_or(WAIT_MS_MAX));
            let (began, sent) = (self.now(), self.clock.elapsed());
            let answer = self.target.get(&path, wait + self.patience.timeout).await;
            let now = self.now();
            let line = answer
                .as_ref()
                .ok()
                .filter(|answer| answer.status == StatusCode::OK)
                .and_then(|answer| sample.line(&answer.body, sent, self.clock.elapsed()).ok());
            if let Some(line) = line {
                self.seen(sample, now);
                return Some(line);
            }
            if !may_come(&answer) {
                return None;
            }
            // A wait that was over has taken its time already.
            if now < began + PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    fn seen(&self, sample: &Sample, now: Duration) {
        self.measures.borrow_mut().took(sample.kind(), sample.due, now);
        if sample.kind() == Kind::View {
            let us = now.saturating_sub(sample.due).as_micros();
            self.live.seen_in_view(u64::try_from(us).unwrap_or(u64::MAX));
        }
    }
}
