//! Sends a request until each of its commands has a final answer. A retry has the same ids, as that
//! of a client which relies on "exactly once".

use std::cell::RefCell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::Rng;

use crate::live::Live;
use crate::measure::{Measured, Measures};
use crate::replies::{Reply, replies};
use crate::workload::{ClientCommand, Spec};
use auditor::http::{Answer, HttpError, Target};

/// The longest first pause before a retry. It doubles with each retry (full jitter).
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// The longest pause, also if the target asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The interval of the check whether the load was stopped.
pub(crate) const POLL_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// The timeout of one answer.
    pub(crate) timeout: Duration,
    /// When a request is given up, from when it was due.
    pub(crate) give_up: Duration,
}

/// What all requests of a thread share.
pub(crate) struct Context<'a> {
    pub(crate) target: &'a Target,
    pub(crate) spec: &'a Spec,
    pub(crate) live: &'a Live,
    pub(crate) measures: &'a RefCell<Measures>,
    pub(crate) timeouts: Timeouts,
    /// The beginning of the current run of the thread, from which times count.
    pub(crate) began: Instant,
    /// The beginning of the whole run, from which the receipts' times count.
    pub(crate) clock: Instant,
}

/// Commands that were due together, and have no final answer yet.
pub(crate) struct Request {
    /// When it was due, from the beginning of the current run.
    pub(crate) due: Duration,
    pub(crate) commands: Vec<ClientCommand>,
    pause_max: Duration,
    pub(crate) was_sent: bool,
    was_accepted: bool,
}

/// The last known state of a command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum FinalState {
    Accepted(u64),
    /// It was sent once and refused, so it has no entry.
    Refused,
    /// It may have an entry.
    Unknown,
}

/// The result of sending a request once.
pub(crate) struct Attempt {
    /// When the request was due.
    pub(crate) due: Duration,
    /// The commands that are not sent again.
    pub(crate) settled: Vec<(ClientCommand, FinalState)>,
    /// Why the first command without a receipt has none.
    pub(crate) refusal: Option<String>,
    /// The commands to send again, and the pause before that.
    pub(crate) retry: Option<(Request, Duration)>,
    pub(crate) was_repeated: bool,
}

impl Attempt {
    fn of(request: &Request) -> Self {
        let (due, was_repeated) = (request.due, request.was_sent);
        Self { due, settled: Vec::new(), refusal: None, retry: None, was_repeated }
    }
}

impl Request {
    pub(crate) fn new(commands: Vec<ClientCommand>, due: Duration) -> Self {
        Self { due, commands, pause_max: PAUSE_MIN, was_sent: false, was_accepted: false }
    }
}

impl Context<'_> {
    /// The time since the beginning of the current run.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The time until something that was due then is given up.
    pub(crate) fn time_left(&self, due: Duration) -> Duration {
        (due + self.timeouts.give_up).saturating_sub(self.now())
    }

    /// The result of `work`; `None`: the load was stopped before.
    pub(crate) async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let stopped = async {
            while !self.live.is_stopped() {
                tokio::time::sleep(POLL_EVERY).await;
            }
        };
        tokio::select! {
            biased;
            done = work => Some(done),
            () = stopped => None,
        }
    }

    /// Sends requests one after another, each until each of its commands has a receipt, is refused,
    /// or is given up.
    pub(crate) async fn exchange(
        &self,
        requests: impl IntoIterator<Item = Vec<ClientCommand>>,
    ) -> Attempt {
        let mut done = Attempt::of(&Request::new(Vec::new(), self.now()));
        for commands in requests {
            let mut request = Request::new(commands, self.now());
            loop {
                let attempt = self.attempt(request).await;
                done.settled.extend(attempt.settled);
                done.refusal = done.refusal.or(attempt.refusal);
                done.was_repeated |= attempt.was_repeated;
                let Some((retry, pause)) = attempt.retry else { break };
                tokio::time::sleep(pause).await;
                request = retry;
            }
        }
        done
    }

    pub(crate) async fn attempt(&self, request: Request) -> Attempt {
        let answer = self.send(&request.commands).await;
        let (mut attempt, left, why) = self.settle(&answer, request);
        if left.commands.is_empty() {
            return attempt;
        }
        let requested = answer.ok().and_then(|answer| answer.retry_after).unwrap_or_default();
        let jitter = rand::rng().random_range(Duration::ZERO..=left.pause_max);
        let pause = jitter.max(requested).min(PAUSE_MAX);
        if pause > self.time_left(left.due) || self.live.is_stopped() {
            let given_up = self.give_up(left, why);
            attempt.settled.extend(given_up.settled);
            attempt.refusal = attempt.refusal.or(given_up.refusal);
            return attempt;
        }
        self.measures.borrow_mut().retried(why);
        let pause_max = (left.pause_max * 2).min(PAUSE_MAX);
        attempt.retry = Some((Request { pause_max, ..left }, pause));
        attempt
    }

    /// Gives these commands up. Their latency counts until now.
    pub(crate) fn give_up(&self, request: Request, why: String) -> Attempt {
        let mut attempt = Attempt::of(&request);
        let mut measures = self.measures.borrow_mut();
        measures.counts.unanswered += request.commands.len() as u64;
        measures.took(Measured::Accept, request.due, self.now());
        attempt
            .settled
            .extend(request.commands.into_iter().map(|command| (command, FinalState::Unknown)));
        attempt.refusal = Some(why);
        attempt
    }

    /// Reads the answers to an attempt. Returns also the commands to send again, and why.
    fn settle(
        &self,
        answer: &Result<Answer, HttpError>,
        request: Request,
    ) -> (Attempt, Request, String) {
        let mut attempt = Attempt::of(&request);
        let mut left = Request { commands: Vec::new(), was_sent: true, ..request };
        let (mut accepted, mut refused, mut why) = (0, 0, None);
        let replies = replies(answer, &request.commands, self.spec);
        for (command, reply) in request.commands.into_iter().zip(replies) {
            let state = match reply {
                Reply::Receipt(seq) => FinalState::Accepted(seq),
                // It may have been accepted when it was sent before.
                Reply::Refused(_) if !request.was_sent => FinalState::Refused,
                Reply::Refused(_) | Reply::Unexpected(_) => FinalState::Unknown,
                Reply::Retry(reason) => {
                    left.commands.push(command);
                    why.get_or_insert(reason);
                    continue;
                }
            };
            attempt.settled.push((command, state));
            match reply {
                Reply::Refused(refusal) | Reply::Unexpected(refusal) => {
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
        if refused > 0 || !left.commands.is_empty() {
            measures.failed(now);
            self.live.add_error();
        }
        if left.commands.is_empty() && left.was_accepted {
            measures.took(Measured::Accept, left.due, now);
        }
    }

    async fn send(&self, commands: &[ClientCommand]) -> Result<Answer, HttpError> {
        let mut body = Vec::with_capacity(commands.len() * self.spec.payload.max(192) + 2);
        let path = match commands {
            [command] => {
                command.write_request(self.spec, &mut body);
                "/command"
            }
            _ => {
                for command in commands {
                    body.push(if body.is_empty() { b'[' } else { b',' });
                    command.write_request(self.spec, &mut body);
                }
                body.push(b']');
                "/commands"
            }
        };
        self.target.post(path, Bytes::from(body), self.timeouts.timeout).await
    }
}
