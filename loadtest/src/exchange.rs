//! One request, until it is answered: sent again, with the same ids, whenever the answer says
//! nothing or never comes. So does a client that can rely on "exactly once".

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use rand::Rng;
use serde::Deserialize;

use crate::http::{Answer, HttpError, Target};
use crate::live::Live;
use crate::measure::{Kind, Measures};
use crate::workload::{Order, Spec};

/// The first pause before a request is sent again; each next may be twice as long (full jitter).
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause, also if the target asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How long a request is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For one answer.
    pub(crate) timeout: Duration,
    /// From the intended start on.
    pub(crate) give_up: Duration,
}

/// What all requests of a thread share.
pub(crate) struct Context<'a> {
    pub(crate) target: &'a Target,
    pub(crate) spec: &'a Spec,
    pub(crate) live: &'a Live,
    pub(crate) measures: &'a RefCell<Measures>,
    pub(crate) patience: Patience,
    /// The beginning of what is driven now: times are measured from here.
    pub(crate) began: Instant,
    /// The beginning of the whole run: what was seen is told apart from what was seen later.
    pub(crate) clock: Instant,
}

/// What became of a request.
pub(crate) struct Exchange {
    /// Its intended start, since the beginning of the run.
    pub(crate) due: Duration,
    /// The commands, each with the seq of its receipt.
    pub(crate) outcomes: Vec<(Order, Option<u64>)>,
    /// Why the first command without a receipt has none.
    pub(crate) refusal: Option<String>,
}

/// The answer to one command, and, without `results`, to `POST /command`.
#[derive(Deserialize)]
struct Answered<'a> {
    #[serde(borrow)]
    log: Option<&'a str>,
    seq: Option<u64>,
    problem: Option<Problem>,
}

#[derive(Deserialize)]
struct AllAnswered<'a> {
    #[serde(borrow)]
    results: Vec<Answered<'a>>,
}

#[derive(Deserialize)]
struct Problem {
    status: u16,
    #[serde(default)]
    detail: String,
}

/// What an attempt came to, for one command.
enum Outcome {
    Receipt(u64),
    Refused(String),
    Again(String),
}

impl Context<'_> {
    /// Since the beginning of the run.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Sends the commands until each has a receipt, is refused, or the patience is over.
    pub(crate) async fn exchange(&self, mut orders: Vec<Order>, due: Duration) -> Exchange {
        let mut done = Exchange { due, outcomes: Vec::with_capacity(orders.len()), refusal: None };
        let mut pause_max = PAUSE_MIN;
        loop {
            let answer = self.attempt(&orders).await;
            let Some((again, why)) = self.settle(&answer, orders, &mut done) else { return done };
            let asked = answer.ok().and_then(|answer| answer.retry_after).unwrap_or_default();
            let jitter = rand::rng().random_range(Duration::ZERO..=pause_max);
            let pause = jitter.max(asked).min(PAUSE_MAX);
            if self.now() + pause > due + self.patience.give_up || self.live.is_stopped() {
                self.measures.borrow_mut().counts.unanswered += again.len() as u64;
                done.outcomes.extend(again.into_iter().map(|order| (order, None)));
                done.refusal.get_or_insert(why);
                return done;
            }
            self.measures.borrow_mut().retried(why);
            tokio::time::sleep(pause).await;
            pause_max = (pause_max * 2).min(PAUSE_MAX);
            orders = again;
        }
    }

    /// Takes in what an attempt came to; returns what is to be sent again, and why.
    fn settle(
        &self,
        answer: &Result<Answer, HttpError>,
        orders: Vec<Order>,
        done: &mut Exchange,
    ) -> Option<(Vec<Order>, String)> {
        let outcomes = outcomes(answer, &orders, self.spec);
        let (mut accepted, mut refused, mut again, mut why) = (0, 0, Vec::new(), None);
        for (order, outcome) in orders.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Receipt(seq) => {
                    accepted += 1;
                    done.outcomes.push((order, Some(seq)));
                }
                Outcome::Refused(refusal) => {
                    refused += 1;
                    done.outcomes.push((order, None));
                    done.refusal.get_or_insert(refusal);
                }
                Outcome::Again(reason) => {
                    again.push(order);
                    why.get_or_insert(reason);
                }
            }
        }
        let now = self.now();
        let mut measures = self.measures.borrow_mut();
        measures.last = now;
        measures.counts.requests += u64::from(answer.is_ok());
        measures.counts.refused += refused;
        measures.accepted(now, accepted);
        self.live.add_accepted(accepted);
        if refused > 0 || !again.is_empty() {
            measures.failed(now);
            self.live.add_error();
        }
        if again.is_empty() && done.outcomes.iter().any(|(_, seq)| seq.is_some()) {
            measures.took(Kind::Accept, done.due, now);
        }
        why.map(|why| (again, why))
    }

    async fn attempt(&self, orders: &[Order]) -> Result<Answer, HttpError> {
        let mut body = Vec::with_capacity(orders.len() * self.spec.payload.max(192) + 2);
        let path = match orders {
            [order] => {
                order.write_request(self.spec, &mut body);
                "/command"
            }
            _ => {
                for order in orders {
                    body.push(if body.is_empty() { b'[' } else { b',' });
                    order.write_request(self.spec, &mut body);
                }
                body.push(b']');
                "/commands"
            }
        };
        self.target.post(path, Bytes::from(body), self.patience.timeout).await
    }
}

/// What an answer says of each command.
fn outcomes(answer: &Result<Answer, HttpError>, orders: &[Order], spec: &Spec) -> Vec<Outcome> {
    let all = |outcome: fn(String) -> Outcome, why: String| {
        orders.iter().map(|_| outcome(why.clone())).collect()
    };
    let answer = match answer {
        Ok(answer) if answer.status == StatusCode::ACCEPTED => answer,
        Ok(answer) if is_passing(answer.status.as_u16()) => {
            return all(Outcome::Again, answer.status.as_u16().to_string());
        }
        Ok(answer) => {
            let body = String::from_utf8_lossy(&answer.body);
            return all(Outcome::Refused, format!("{}: {body}", answer.status));
        }
        Err(HttpError::TimedOut(_)) => return all(Outcome::Again, "timeout".into()),
        Err(_) => return all(Outcome::Again, "connection".into()),
    };
    let parsed: Result<Vec<Answered<'_>>, _> = match orders {
        [_] => serde_json::from_slice(&answer.body).map(|one| vec![one]),
        _ => serde_json::from_slice(&answer.body).map(|all: AllAnswered<'_>| all.results),
    };
    let results = match parsed {
        Ok(results) if results.len() == orders.len() => results,
        Ok(results) => {
            let (results, sent) = (results.len(), orders.len());
            return all(
                Outcome::Refused,
                format!("a 202 with {results} results for {sent} commands"),
            );
        }
        Err(error) => return all(Outcome::Refused, format!("a 202 that cannot be read: {error}")),
    };
    let outcome = |(result, order): (Answered<'_>, &Order)| match result {
        Answered { log: Some(log), seq: Some(seq), .. } if order.is_of_log(spec, log) => {
            Outcome::Receipt(seq)
        }
        Answered { problem: Some(Problem { status, .. }), .. } if is_passing(status) => {
            Outcome::Again(status.to_string())
        }
        Answered { problem: Some(Problem { status, detail }), .. } => {
            Outcome::Refused(format!("{status}: {detail}"))
        }
        Answered { log, seq, .. } => {
            let sent = order.log(spec);
            Outcome::Refused(format!("a receipt for {log:?} {seq:?} of a command for {sent}"))
        }
    };
    results.into_iter().zip(orders).map(outcome).collect()
}

/// Whether the same request may have another answer later.
pub(crate) fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}
