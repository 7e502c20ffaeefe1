//! Samples: what becomes of some of the accepted commands, and how soon.
//!
//! Each is read with `?wait=`: half of them in the log, the others in a view, in turn. What was read
//! goes to the receipts, for the auditor to compare with what is there in the end.

use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::exchange::{Context, is_passing};
use crate::measure::Kind;
use crate::receipts::{Line, SeenEntry, SeenRow, SeenRows};

/// Samples under way. Each holds a connection while it waits.
pub(crate) const UNDER_WAY_MAX: usize = 64;
/// Samples that wait for their turn: theirs is then an upper bound. More are dropped, and counted.
pub(crate) const WAITING_MAX: usize = 4_096;
/// The longest `wait` that the API takes.
const WAIT_MS: u64 = 25_000;
/// Until a request is given up that was to wait: the wait, and time for the answer.
const TIMEOUT: Duration = Duration::from_millis(WAIT_MS + 10_000);
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
    fn path(&self) -> String {
        let Self { log, seq, .. } = self;
        let view = |view, more| format!("/views/{view}/{log}?seq={seq}&wait={WAIT_MS}{more}");
        match self.place {
            Place::Entry => format!("/logs/{log}/{seq}?wait={WAIT_MS}"),
            Place::Balances => view("balances", "&limit=1000"),
            Place::Statement => view("statement", "&order=desc&limit=10"),
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

impl Context<'_> {
    /// Waits until the command is there; `None`: the patience is over, or the load was stopped.
    pub(crate) async fn look_for(&self, sample: &Sample) -> Option<Line> {
        let path = sample.path();
        loop {
            let (began, sent) = (self.now(), self.clock.elapsed());
            let answer = self.target.get(&path, TIMEOUT).await;
            let now = self.now();
            let status = answer.as_ref().map(|answer| answer.status.as_u16());
            // Not there, or not to be read: asking again changes nothing.
            let is_refused = status.is_ok_and(|status| status >= 300 && !is_passing(status));
            let line = answer
                .ok()
                .filter(|answer| answer.status == StatusCode::OK)
                .and_then(|answer| sample.line(&answer.body, sent, self.clock.elapsed()).ok());
            if let Some(line) = line {
                let mut measures = self.measures.borrow_mut();
                measures.took(sample.kind(), sample.due, now);
                if sample.kind() == Kind::View {
                    let us = now.saturating_sub(sample.due).as_micros();
                    self.live.seen_in_view(u64::try_from(us).unwrap_or(u64::MAX));
                }
                return Some(line);
            }
            let is_over = now > sample.due + self.patience.give_up;
            if is_refused || is_over || self.live.is_stopped() {
                return None;
            }
            // A wait that was over has taken its time already.
            if now < began + PAUSE {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
