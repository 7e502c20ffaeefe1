//! One request, until it is answered: sent again, with the same ids, whenever the answer says
//! nothing or never comes. So does a client that can rely on "exactly once".

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;

use crate::answers::{Outcome, outcomes};
use crate::live::Live;
use crate::measure::{Kind, Measures};
use crate::workload::{Order, Spec};
use auditor::http::{Answer, HttpError, Target};

/// The first pause before a request is sent again; each next may be twice as long (full jitter).
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause, also if the target asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How often it is looked whether the load was stopped.
pub(crate) const LOOK: Duration = Duration::from_millis(100);

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

/// Commands that were due together, as many of them as nothing is known of yet.
pub(crate) struct Request {
    /// The intended start, since the beginning of what is driven.
    pub(crate) due: Duration,
    pub(crate) orders: Vec<Order>,
    pause_max: Duration,
    /// Whether it was sent before.
    pub(crate) was_sent: bool,
    /// Whether some of its commands have their 202.
    was_accepted: bool,
}

/// What is known of a command for which nothing more is done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Fate {
    /// It has the place of its receipt.
    Accepted(u64),
    /// It was sent once, and refused: it has no entry.
    Refused,
    /// It may have an entry, or not.
    Unknown,
}

/// What came of sending a request once.
pub(crate) struct Attempt {
    /// Its intended start.
    pub(crate) due: Duration,
    /// Commands for which nothing more is done.
    pub(crate) settled: Vec<(Order, Fate)>,
    /// Why the first command without a receipt has none.
    pub(crate) refusal: Option<String>,
    /// What is to be sent again, and after which pause.
    pub(crate) again: Option<(Request, Duration)>,
    /// Whether some of it was sent before.
    pub(crate) was_repeated: bool,
}

impl Attempt {
    fn of(request: &Request) -> Self {
        let (due, was_repeated) = (request.due, request.was_sent);
        Self { due, settled: Vec::new(), refusal: None, again: None, was_repeated }
    }
}

impl Request {
    pub(crate) fn new(orders: Vec<Order>, due: Duration) -> Self {
        Self { due, orders, pause_max: PAUSE_MIN, was_sent: false, was_accepted: false }
    }
}

impl Context<'_> {
    /// Since the beginning of what is driven.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// What is left of the patience with something that was due then.
    pub(crate) fn patience_left(&self, due: Duration) -> Duration {
        (due + self.patience.give_up).saturating_sub(self.now())
    }

    /// What comes of `work`; `None`: the load was stopped before.
    pub(crate) async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            while !self.live.is_stopped() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = stopped => None,
        }
    }

    /// Sends the commands until each has a receipt, is refused, or the patience is over.
    pub(crate) async fn exchange(&self, orders: Vec<Order>, due: Duration) -> Attempt {
        let mut request = Request::new(orders, due);
        let mut done = Attempt::of(&request);
        loop {
            let attempt = self.attempt(request).await;
            done.settled.extend(attempt.settled);
            done.refusal = done.refusal.or(attempt.refusal);
            done.was_repeated |= attempt.was_repeated;
            let Some((again, pause)) = attempt.again else { return done };
            tokio::time::sleep(pause).await;
            request = again;
        }
    }

    /// Sends the commands once.
    pub(crate) async fn attempt(&self, request: Request) -> Attempt {
        let answer = self.send(&request.orders).await;
        let (mut attempt, left, why) = self.settle(&answer, request);
        if left.orders.is_empty() {
            return attempt;
        }
        let asked = answer.ok().and_then(|answer| answer.retry_after).unwrap_or_default();
        let jitter = rand::rng().random_range(Duration::ZERO..=left.pause_max);
        let pause = jitter.max(asked).min(PAUSE_MAX);
        if pause > self.patience_left(left.due) || self.live.is_stopped() {
            let given_up = self.give_up(left, why);
            attempt.settled.extend(given_up.settled);
            attempt.refusal = attempt.refusal.or(given_up.refusal);
            return attempt;
        }
        self.measures.borrow_mut().retried(why);
        let pause_max = (left.pause_max * 2).min(PAUSE_MAX);
        attempt.again = Some((Request { pause_max, ..left }, pause));
        attempt
    }

    /// Nothing more is done for these: they have waited in vain until now, at least.
    pub(crate) fn give_up(&self, request: Request, why: String) -> Attempt {
        let mut attempt = Attempt::of(&request);
        let mut measures = self.measures.borrow_mut();
        measures.counts.unanswered += request.orders.len() as u64;
        measures.took(Kind::Accept, request.due, self.now());
        attempt.settled.extend(request.orders.into_iter().map(|order| (order, Fate::Unknown)));
        attempt.refusal = Some(why);
        attempt
    }

    /// Takes in what an attempt came to; returns also what it has left open, and why.
    fn settle(
        &self,
        answer: &Result<Answer, HttpError>,
        request: Request,
    ) -> (Attempt, Request, String) {
        let mut attempt = Attempt::of(&request);
        let mut left = Request { orders: Vec::new(), was_sent: true, ..request };
        let (mut accepted, mut refused, mut why) = (0, 0, None);
        let outcomes = outcomes(answer, &request.orders, self.spec);
        for (order, outcome) in request.orders.into_iter().zip(outcomes) {
            let fate = match outcome {
                Outcome::Receipt(seq) => Fate::Accepted(seq),
                // One that was sent before may have been taken in then.
                Outcome::Refused(_) if !request.was_sent => Fate::Refused,
                Outcome::Refused(_) | Outcome::Odd(_) => Fate::Unknown,
                Outcome::Again(reason) => {
                    left.orders.push(order);
                    why.get_or_insert(reason);
                    continue;
                }
            };
            attempt.settled.push((order, fate));
            match outcome {
                Outcome::Refused(refusal) | Outcome::Odd(refusal) => {
                    refused += 1;
                    attempt.refusal.get_or_insert(refusal);
                }
                _ => accepted += 1,
            }
        }
        left.was_accepted |= accepted > 0;
        self.count(answer.is_ok(), accepted, refused, &left);
        (attempt, left, why.unwrap_or_default())
    }

    fn count(&self, is_answered: bool, accepted: u64, refused: u64, left: &Request) {
        let now = self.now();
        let mut measures = self.measures.borrow_mut();
        measures.last = now;
        measures.counts.requests += u64::from(is_answered);
        measures.counts.refused += refused;
        measures.accepted(now, accepted);
        self.live.add_accepted(accepted);
        if refused > 0 || !left.orders.is_empty() {
            measures.failed(now);
            self.live.add_error();
        }
        if left.orders.is_empty() && left.was_accepted {
            measures.took(Kind::Accept, left.due, now);
        }
    }

    async fn send(&self, orders: &[Order]) -> Result<Answer, HttpError> {
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
