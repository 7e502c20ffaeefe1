//! The open loop: requests leave when they are due, whatever became of those before them.
//!
//! If all connections are busy when a request is due, it leaves late; its time counts from when it
//! was due, so that a target which stands still is seen as its users would see it. What waits to be
//! sent again holds no connection meanwhile, or a target that asks to be spared would be spared what
//! is due as well. What has to wait for a command of the same origin (see `held`) is late in the same
//! way.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rand::Rng;
use rand::rngs::SmallRng;

use crate::arrivals::Arrivals;
use crate::drive::Plan;
use crate::evidence::Evidence;
use crate::exchange::{Attempt, Context, Fate, LOOK, Request};
use crate::held::{Held, Waiting};
use crate::measure::Kind;
use crate::pacer::Pacer;
use crate::samples::{self, Sample, Turns};
use crate::workload::{Order, Workload};
use auditor::receipts::Line;

/// How long after the end requests may still leave that were due before it.
const LATE_MAX: Duration = Duration::from_secs(10);

/// Chooses commands that are looked for, and keeps those that wait for their turn.
pub(crate) struct Sampler<'a> {
    turns: &'a mut Turns,
    chance: &'a mut SmallRng,
    share: f64,
    waiting: VecDeque<Sample>,
}

impl<'a> Sampler<'a> {
    /// `share`: of the commands.
    pub(crate) fn new(turns: &'a mut Turns, chance: &'a mut SmallRng, share: f64) -> Self {
        Self { turns, chance, share, waiting: VecDeque::new() }
    }

    fn offer(&mut self, context: &Context<'_>, order: &Order, seq: u64, due: Duration) {
        if self.share == 0.0 || !self.chance.random_bool(self.share) || context.live.is_stopped() {
            return;
        }
        if self.waiting.len() == samples::WAITING_MAX {
            context.measures.borrow_mut().counts.samples_dropped += 1;
            return;
        }
        let sample = self.turns.sample(order.log(context.spec), seq, due);
        self.waiting.push_back(sample);
    }
}

/// Everything that is kept while the loop goes round, but for what is under way.
pub(crate) struct Desk<'a> {
    plan: &'a Plan,
    context: &'a Context<'a>,
    workload: &'a mut Workload,
    evidence: &'a mut Evidence,
    sampler: Sampler<'a>,
    arrivals: Arrivals,
    /// When the next request is due; `None`: none is any more.
    next: Option<Duration>,
    /// What waits to be sent again, by when.
    resting: BTreeMap<(Instant, u64), Request>,
    /// What waits for something that is to be sent again.
    held: Held,
    /// What has waited for that, and leaves as soon as a connection is free: in order.
    ready: VecDeque<Request>,
    /// How often something was laid to rest: no two have the same number.
    rests: u64,
    /// Commands under way, resting, held or ready.
    open: usize,
    /// Why the first command that was refused was.
    pub(crate) refusal: Option<String>,
}

impl<'a> Desk<'a> {
    pub(crate) fn new(
        plan: &'a Plan,
        context: &'a Context<'a>,
        workload: &'a mut Workload,
        evidence: &'a mut Evidence,
        sampler: Sampler<'a>,
    ) -> Self {
        let mut arrivals = match plan.poisson {
            Some(seed) => Arrivals::poisson(plan.shape.clone(), seed),
            None => Arrivals::even(plan.shape.clone(), plan.offset),
        };
        let (next, resting) = (arrivals.next(), BTreeMap::new());
        let (held, ready) = (Held::default(), VecDeque::new());
        let (rests, open, refusal) = (0, 0, None);
        Self {
            plan,
            context,
            workload,
            evidence,
            sampler,
            arrivals,
            next,
            resting,
            held,
            ready,
            rests,
            open,
            refusal,
        }
    }

    fn may_leave(&self) -> bool {
        self.next.is_some() && self.open + self.plan.batch <= self.plan.commands_open
    }

    /// The request that is due now, if one is, and not all of it has to wait.
    fn leave(&mut self) -> Option<Request> {
        let due = std::mem::replace(&mut self.next, self.arrivals.next())?;
        let (now, commands) = (self.context.now(), self.plan.batch as u64);
        let mut measures = self.context.measures.borrow_mut();
        measures.due(due, commands);
        measures.took(Kind::Send, due, now);
        drop(measures);
        let mut orders = self.workload.next_request(self.plan.batch, self.plan.batch_of_one_tenant);
        self.open += orders.len();
        self.held.hold(&mut orders, due);
        if orders.is_empty() {
            return None;
        }
        self.context.live.left(now.saturating_sub(due).as_micros() as u64);
        Some(Request::new(orders, due))
    }

    /// These need not wait any more: those of one moment are one request.
    fn release(&mut self, waiting: impl IntoIterator<Item = Waiting>) {
        let mut last = None;
        for Waiting { due, order } in waiting {
            match self.ready.back_mut().filter(|_| last == Some(due)) {
                Some(request) => request.orders.push(order),
                None => {
                    let late = self.context.now().saturating_sub(due);
                    self.context.live.left(late.as_micros() as u64);
                    self.ready.push_back(Request::new(vec![order], due));
                }
            }
            last = Some(due);
        }
    }

    fn came_back(&mut self, attempt: Attempt) -> io::Result<()> {
        self.open -= attempt.settled.len();
        for (order, fate) in &attempt.settled {
            self.evidence.sent(self.context.spec, order, *fate)?;
            if let Fate::Accepted(seq) = fate {
                self.sampler.offer(self.context, order, *seq, attempt.due);
            }
            if attempt.was_repeated {
                let waiting = self.held.settled(order);
                self.release(waiting);
            }
        }
        if self.refusal.is_none() {
            self.refusal = attempt.refusal;
        }
        match attempt.again {
            Some((request, pause)) => {
                if !attempt.was_repeated {
                    request.orders.iter().for_each(|order| self.held.refused(order));
                }
                self.rests += 1;
                self.resting.insert((Instant::now() + pause, self.rests), request);
            }
            None => self.context.live.came_back(),
        }
        Ok(())
    }

    /// When something has rested enough.
    fn rested_at(&self) -> Instant {
        self.resting.first_key_value().map_or_else(Instant::now, |((at, _), _)| *at)
    }

    /// What is ready, or has rested enough, unless its patience ended while it waited.
    fn wake(&mut self) -> io::Result<Option<Request>> {
        let ready = self.ready.pop_front();
        let rested = || self.resting.pop_first().map(|(_, request)| request);
        let Some(mut request) = ready.or_else(rested) else { return Ok(None) };
        if self.context.patience_left(request.due).is_zero() {
            let why = "no connection was free, or what was before it was not in, in time";
            self.give_up(request, why)?;
            return Ok(None);
        }
        if !request.was_sent {
            // What is before it may have been refused again.
            self.held.hold(&mut request.orders, request.due);
            if request.orders.is_empty() {
                self.context.live.came_back();
                return Ok(None);
            }
        }
        Ok(Some(request))
    }

    fn give_up(&mut self, request: Request, why: &str) -> io::Result<()> {
        let given_up = self.context.give_up(request, why.to_owned());
        self.came_back(given_up)
    }

    fn seen(&mut self, line: Option<Line>) -> io::Result<()> {
        match line {
            Some(line) => self.evidence.line(&line),
            None => {
                self.unseen(1);
                Ok(())
            }
        }
    }

    fn unseen(&self, samples: usize) {
        self.context.measures.borrow_mut().counts.samples_unseen += samples as u64;
    }

    /// Looks at the clock, and whether the load was stopped; `looking`: samples under way.
    fn look(&mut self, looking: usize) -> io::Result<()> {
        self.evidence.flush()?;
        let is_stopped = self.context.live.is_stopped();
        if is_stopped {
            self.unseen(looking + self.sampler.waiting.len());
            self.sampler.waiting.clear();
            let waiting = self.held.take_waiting();
            self.release(waiting);
            let rested = std::mem::take(&mut self.resting).into_values();
            for request in std::mem::take(&mut self.ready).into_iter().chain(rested) {
                self.give_up(request, "the load was stopped")?;
            }
        }
        let end = Duration::from_secs_f64(self.plan.shape.seconds());
        if is_stopped || self.context.now() > end + LATE_MAX {
            self.leave_no_more();
        }
        Ok(())
    }

    /// What was due until now was due, has waited in vain, and never leaves.
    fn leave_no_more(&mut self) {
        let (now, commands) = (self.context.now(), self.plan.batch as u64);
        let mut measures = self.context.measures.borrow_mut();
        while let Some(due) = self.next.take_if(|due| *due <= now) {
            measures.due(due, commands);
            measures.counts.unsent += commands;
            measures.took(Kind::Accept, due, now);
            self.next = self.arrivals.next();
        }
        self.next = None;
    }
}

/// Returns once everything that left came back, and what was looked for was seen or given up.
pub(crate) async fn open_loop(desk: &mut Desk<'_>, pacer: &mut Pacer) -> io::Result<()> {
    let context = desk.context;
    let connections = desk.plan.connections;
    let mut under_way = FuturesUnordered::new();
    let mut looking = FuturesUnordered::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        let is_free = under_way.len() < connections;
        let (is_ready, rested_at) = (!desk.ready.is_empty(), desk.rested_at());
        let has_rested = async move {
            if !is_ready {
                tokio::time::sleep_until(rested_at.into()).await;
            }
        };
        let is_due = pacer.until(context.began + desk.next.unwrap_or_default());
        tokio::select! {
            biased;
            // First: if more is due than this thread can do, all the others are always ready.
            _ = look.tick() => {
                desk.look(looking.len())?;
                if context.live.is_stopped() {
                    looking.clear();
                }
            }
            Some(attempt) = under_way.next() => desk.came_back(attempt)?,
            Some(line) = looking.next() => desk.seen(line)?,
            () = has_rested, if is_free && (is_ready || !desk.resting.is_empty()) => {
                under_way.extend(desk.wake()?.map(|request| context.attempt(request)));
            }
            () = is_due, if is_free && desk.may_leave() => {
                under_way.extend(desk.leave().map(|request| context.attempt(request)));
            }
        }
        while looking.len() < samples::UNDER_WAY_MAX
            && let Some(sample) = desk.sampler.waiting.pop_front()
        {
            looking.push(async move { context.look_for(&sample).await });
        }
        let is_resting = !desk.resting.is_empty() || !desk.ready.is_empty();
        let is_quiet = under_way.is_empty() && !is_resting && looking.is_empty();
        if desk.next.is_none() && is_quiet {
            return desk.evidence.flush();
        }
    }
}
