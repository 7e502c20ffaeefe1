//! The open loop: requests are sent when they are due, whether earlier ones were answered or not.
//!
//! If all connections are busy when a request is due, it is sent late. Its time counts from when it
//! was due, so that a target which stalls is measured as its users would see it. A request that
//! waits for its retry holds no connection: otherwise a target that asks for a pause would get a
//! pause from all requests. A command that waits for another one of its origin (see `held`) counts
//! as late in the same way.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::arrivals::{Arrivals, Shape};
use crate::exchange::{Attempt, Context, FinalState, POLL_EVERY, Request, Timeouts};
use crate::held::{Held, Waiting};
use crate::measure::Measured;
use crate::pacer::Pacer;
use crate::receipt_file::ReceiptLines;
use crate::samples::{self, Sample, SampleSources};
use crate::workload::{ClientCommand, Workload, WorkloadError};
use auditor::receipts::Line;

/// How long after the end late requests may still be sent.
const LATE_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Its share of the request rate.
    pub(crate) shape: Shape,
    /// The offset of its arrivals between those of the other threads: 0 to 1.
    pub(crate) offset: f64,
    /// The seed of random arrivals; `None`: they are evenly spaced.
    pub(crate) poisson: Option<u64>,
    pub(crate) batch: usize,
    /// Whether all commands of a request are of one organisation.
    pub(crate) batch_of_one_tenant: bool,
    pub(crate) connections: usize,
    /// The maximum number of commands that are under way or wait.
    pub(crate) commands_open: usize,
    /// The share of commands that are sampled.
    pub(crate) samples: f64,
    pub(crate) timeouts: Timeouts,
}

/// Chooses the commands to sample, and queues them.
pub(crate) struct Sampler<'a> {
    sources: &'a mut SampleSources,
    rng: &'a mut SmallRng,
    share: f64,
    waiting: VecDeque<Sample>,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(sources: &'a mut SampleSources, rng: &'a mut SmallRng, share: f64) -> Self {
        Self { sources, rng, share, waiting: VecDeque::new() }
    }

    fn offer(&mut self, context: &Context<'_>, command: &ClientCommand, seq: u64, due: Duration) {
        if self.share == 0.0 || !self.rng.random_bool(self.share) || context.live.is_stopped() {
            return;
        }
        if self.waiting.len() == samples::WAITING_MAX {
            context.measures.borrow_mut().counts.samples_dropped += 1;
            return;
        }
        let sample = self.sources.sample(command.log(context.spec), seq, due);
        self.waiting.push_back(sample);
    }
}

/// The state of the loop, apart from what is under way.
pub(crate) struct OpenLoop<'a> {
    plan: &'a Plan,
    context: &'a Context<'a>,
    workload: &'a mut Workload,
    receipt_lines: &'a mut ReceiptLines,
    sampler: Sampler<'a>,
    arrivals: Arrivals,
    /// When the next request is due; `None`: no more requests are due.
    next: Option<Duration>,
    /// Requests that wait for their retry, by its time and a number that makes the key unique.
    retries: BTreeMap<(Instant, u64), Request>,
    /// Commands that wait for the retry of another one.
    held: Held,
    /// Requests that need not wait any more, in order: they are sent as soon as a connection is
    /// free.
    ready: VecDeque<Request>,
    last_retry: u64,
    /// Commands that are under way or wait.
    open: usize,
    /// Why the first refused command was refused.
    pub(crate) refusal: Option<String>,
    /// Why the workload file cannot be sent any further.
    pub(crate) unusable: Option<WorkloadError>,
}

impl<'a> OpenLoop<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        context: &'a Context<'a>,
        workload: &'a mut Workload,
        receipt_lines: &'a mut ReceiptLines,
        sampler: Sampler<'a>,
    ) -> Self {
        let mut arrivals = match plan.poisson {
            Some(seed) => Arrivals::poisson(plan.shape.clone(), seed),
            None => Arrivals::even(plan.shape.clone(), plan.offset),
        };
        let (next, retries) = (arrivals.next(), BTreeMap::new());
        let (held, ready) = (Held::default(), VecDeque::new());
        let (last_retry, open, refusal, unusable) = (0, 0, None, None);
        Self {
            plan,
            context,
            workload,
            receipt_lines,
            sampler,
            arrivals,
            next,
            retries,
            held,
            ready,
            last_retry,
            open,
            refusal,
            unusable,
        }
    }

    fn may_send(&self) -> bool {
        self.next.is_some() && self.open + self.plan.batch <= self.plan.commands_open
    }

    /// Takes the request that is due now; `None`: all its commands have to wait.
    fn next_due(&mut self) -> Option<Request> {
        let due = std::mem::replace(&mut self.next, self.arrivals.next())?;
        let (now, count) = (self.context.now(), self.plan.batch as u64);
        let mut measures = self.context.measures.borrow_mut();
        measures.due(due, count);
        measures.took(Measured::Send, due, now);
        drop(measures);
        let drawn = self.workload.next_request(self.plan.batch, self.plan.batch_of_one_tenant);
        let mut commands = match drawn {
            Ok(commands) => commands,
            Err(error) => {
                // None of them was sent.
                self.context.measures.borrow_mut().counts.unsent += count;
                self.end(error);
                return None;
            }
        };
        self.open += commands.len();
        self.held.hold(&mut commands, due);
        if commands.is_empty() {
            return None;
        }
        self.context.live.sent(now.saturating_sub(due).as_micros() as u64);
        Some(Request::new(commands, due))
    }

    /// Ends the load because of its workload file.
    fn end(&mut self, why: WorkloadError) {
        self.unusable.get_or_insert(why);
        self.context.live.stop();
    }

    /// Makes requests of commands that need not wait any more, one for each due time.
    fn release(&mut self, waiting: impl IntoIterator<Item = Waiting>) {
        let mut last = None;
        for Waiting { due, command } in waiting {
            match self.ready.back_mut().filter(|_| last == Some(due)) {
                Some(request) => request.commands.push(command),
                None => {
                    let late = self.context.now().saturating_sub(due);
                    self.context.live.sent(late.as_micros() as u64);
                    self.ready.push_back(Request::new(vec![command], due));
                }
            }
            last = Some(due);
        }
    }

    fn finish_attempt(&mut self, attempt: Attempt) -> io::Result<()> {
        self.open -= attempt.settled.len();
        for (command, state) in &attempt.settled {
            self.receipt_lines.sent(self.context.spec, command, *state)?;
            if let FinalState::Accepted(seq) = state {
                self.sampler.offer(self.context, command, *seq, attempt.due);
            }
            let why = || attempt.refusal.as_deref().unwrap_or_default();
            if *state == FinalState::Refused
                && let Some(error) = command.refused(self.context.spec, why())
            {
                self.end(error);
            }
            if attempt.was_repeated {
                let waiting = self.held.settled(command);
                self.release(waiting);
            }
        }
        if self.refusal.is_none() {
            self.refusal = attempt.refusal;
        }
        match attempt.retry {
            Some((request, pause)) => {
                if !attempt.was_repeated {
                    request.commands.iter().for_each(|command| self.held.retry(command));
                }
                self.last_retry += 1;
                self.retries.insert((Instant::now() + pause, self.last_retry), request);
            }
            None => self.context.live.finished(),
        }
        Ok(())
    }

    fn next_retry_at(&self) -> Instant {
        self.retries.first_key_value().map_or_else(Instant::now, |((at, _), _)| *at)
    }

    /// Takes the next ready request or due retry, and gives it up if its time is over.
    fn next_waiting(&mut self) -> io::Result<Option<Request>> {
        let ready = self.ready.pop_front();
        let retry = || self.retries.pop_first().map(|(_, request)| request);
        let Some(mut request) = ready.or_else(retry) else { return Ok(None) };
        if self.context.time_left(request.due).is_zero() {
            let why = "no connection was free in time, or an earlier command was retried too long";
            self.give_up(request, why)?;
            return Ok(None);
        }
        if !request.was_sent {
            // The command before it may wait for a retry again.
            self.held.hold(&mut request.commands, request.due);
            if request.commands.is_empty() {
                self.context.live.finished();
                return Ok(None);
            }
        }
        Ok(Some(request))
    }

    fn give_up(&mut self, request: Request, why: &str) -> io::Result<()> {
        let given_up = self.context.give_up(request, why.to_owned());
        self.finish_attempt(given_up)
    }

    fn finish_sample(&mut self, line: Option<Line>) -> io::Result<()> {
        match line {
            Some(line) => self.receipt_lines.line(&line),
            None => {
                self.count_unseen(1);
                Ok(())
            }
        }
    }

    fn count_unseen(&self, samples: usize) {
        self.context.measures.borrow_mut().counts.samples_unseen += samples as u64;
    }

    /// Flushes the receipts, and ends the loop if the load was stopped or its time is over.
    /// `sampling`: samples under way.
    fn check_clock(&mut self, sampling: usize) -> io::Result<()> {
        self.receipt_lines.flush()?;
        let is_stopped = self.context.live.is_stopped();
        if is_stopped {
            self.count_unseen(sampling + self.sampler.waiting.len());
            self.sampler.waiting.clear();
            let waiting = self.held.take_waiting();
            self.release(waiting);
            let retries = std::mem::take(&mut self.retries).into_values();
            for request in std::mem::take(&mut self.ready).into_iter().chain(retries) {
                self.give_up(request, "the load was stopped")?;
            }
        }
        let end = Duration::from_secs_f64(self.plan.shape.seconds());
        if is_stopped || self.context.now() > end + LATE_MAX {
            self.end_arrivals();
        }
        Ok(())
    }

    /// Counts what is due until now as unsent, and ends the arrivals.
    fn end_arrivals(&mut self) {
        let (now, commands) = (self.context.now(), self.plan.batch as u64);
        let mut measures = self.context.measures.borrow_mut();
        while let Some(due) = self.next.take_if(|due| *due <= now) {
            measures.due(due, commands);
            measures.counts.unsent += commands;
            measures.took(Measured::Accept, due, now);
            self.next = self.arrivals.next();
        }
        self.next = None;
    }

    /// Runs the loop until every request and sample is answered or given up.
    pub(crate) async fn run(&mut self, pacer: &mut Pacer) -> io::Result<()> {
        let context = self.context;
        let connections = self.plan.connections;
        let mut under_way = FuturesUnordered::new();
        let mut sampling = FuturesUnordered::new();
        let mut poll = tokio::time::interval(POLL_EVERY);
        loop {
            let is_free = under_way.len() < connections;
            let (is_ready, retry_at) = (!self.ready.is_empty(), self.next_retry_at());
            let retry_is_due = async move {
                if !is_ready {
                    tokio::time::sleep_until(retry_at.into()).await;
                }
            };
            let is_due = pacer.until(context.began + self.next.unwrap_or_default());
            tokio::select! {
                biased;
                // First, since under overload the others are always ready.
                _ = poll.tick() => {
                    self.check_clock(sampling.len())?;
                    if context.live.is_stopped() {
                        sampling.clear();
                    }
                }
                Some(attempt) = under_way.next() => self.finish_attempt(attempt)?,
                Some(line) = sampling.next() => self.finish_sample(line)?,
                () = retry_is_due, if is_free && (is_ready || !self.retries.is_empty()) => {
                    under_way.extend(self.next_waiting()?.map(|request| context.attempt(request)));
                }
                () = is_due, if is_free && self.may_send() => {
                    under_way.extend(self.next_due().map(|request| context.attempt(request)));
                }
            }
            while sampling.len() < samples::UNDER_WAY_MAX
                && let Some(sample) = self.sampler.waiting.pop_front()
            {
                sampling.push(async move { context.await_sample(&sample).await });
            }
            let is_waiting = !self.retries.is_empty() || !self.ready.is_empty();
            let is_quiet = under_way.is_empty() && !is_waiting && sampling.is_empty();
            if self.next.is_none() && is_quiet {
                return self.receipt_lines.flush();
            }
        }
    }
}
