//! The fault layer. The model: every port call takes some time before and after its effect, and
//! while faults are on, any call
//!
//! - fails before its effect, or is throttled;
//! - takes effect and fails all the same;
//! - gets no answer, and takes effect much later, or never;
//! - succeeds for a part of its records or messages only.
//!
//! And in some runs the topics refuse messages of some logs for good ([`crate::ports::Refusal`]).
//!
//! The transport (`drive`) adds the rest: invocations that die between any two calls, or go on as
//! zombies beside their retry; several environments; records and notifications that come twice,
//! late, and out of order.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fanfold::Time;
use fanfold_pipeline::ports::{Env, Unavailable};

use crate::executor::World;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A call failed and had no effect.
    ErrorBefore,
    /// A call failed after its effect.
    ErrorAfter,
    /// A call got no answer, and took effect much later.
    TimedOutLate,
    /// A call got no answer, and never took effect.
    TimedOutNever,
    /// A call was throttled.
    Throttled,
    /// A whole port answered nothing but errors for a while.
    Outage,
    /// Some records of a `put_records` were not put.
    PartialPut,
    /// Some messages of a `publish` were not published.
    PartialPublish,
    /// The topic refused a message for good.
    MessageRefused,
    /// An invocation died between two port calls.
    Killed,
    /// An invocation went on beside its retry.
    Zombie,
    /// Another environment than the last got a log's batch.
    OtherEnvironment,
    /// A new environment started, with nothing in memory.
    ColdStart,
    /// A batch came again although it had been acknowledged.
    BatchTwice,
    /// A batch was cut in two after a failure.
    Bisected,
    /// A record of the command stream came twice.
    RecordTwice,
    /// A record of the command stream came before an earlier one.
    RecordReordered,
    /// A record of the command stream came seconds after it had been acknowledged.
    RecordDelayed,
    /// A shard stood still for a while.
    ShardDelayed,
    /// A notification came twice.
    NotificationTwice,
    /// A notification came before an earlier one.
    NotificationReordered,
    /// A notification came late.
    NotificationDelayed,
    /// A notification was not delivered, and went to the dead letters.
    DeadLetter,
    /// A head was shown as it was before.
    StaleHead,
    /// A client sent a command again.
    Repeated,
    /// Several sweeps of a view began at the same place.
    SweepsPileUp,
    /// A change was never on the change stream.
    ChangeLost,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 27] = [
        Self::ErrorBefore,
        Self::ErrorAfter,
        Self::TimedOutLate,
        Self::TimedOutNever,
        Self::Throttled,
        Self::Outage,
        Self::PartialPut,
        Self::PartialPublish,
        Self::MessageRefused,
        Self::Killed,
        Self::Zombie,
        Self::OtherEnvironment,
        Self::ColdStart,
        Self::BatchTwice,
        Self::Bisected,
        Self::RecordTwice,
        Self::RecordReordered,
        Self::RecordDelayed,
        Self::ShardDelayed,
        Self::NotificationTwice,
        Self::NotificationReordered,
        Self::NotificationDelayed,
        Self::DeadLetter,
        Self::StaleHead,
        Self::Repeated,
        Self::SweepsPileUp,
        Self::ChangeLost,
    ];
}

/// How often each fault was injected.
pub type Counts = BTreeMap<Fault, u64>;

/// How likely faults are in one run, in thousandths: drawn once per seed, so that calm and wild
/// runs both come up.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// Of a port call.
    pub call: u64,
    /// Of an invocation: death, zombie.
    pub invocation: u64,
    /// Of the transport: repetition, disorder, delay.
    pub transport: u64,
    /// Of a call to begin an outage of its port, in hundred-thousandths.
    pub outage: u64,
    /// Of a change to be lost. Seldom: what is overwritten before it is found, stops its log.
    pub loss: u64,
}

/// The longest time that a port call takes before, and after, its effect.
const LATENCY_MS_MAX: u64 = 12;
/// How much later a call may take effect whose answer was given up.
const LATE_MS_MAX: u64 = 20_000;
/// How long an outage takes: longer than any stage tries.
const OUTAGE_MS: std::ops::Range<u64> = 2_000..30_000;

/// Draws faults, and counts them.
#[derive(Clone)]
pub struct Faults {
    world: World,
    rates: Rates,
    on: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    outages: Arc<Mutex<BTreeMap<&'static str, Time>>>,
}

impl Faults {
    /// Faults for one run; on.
    pub fn new(world: World) -> Self {
        let draw = |max: u64| if world.happens(300) { 0 } else { world.pick(1..max) };
        let rates = Rates {
            call: draw(150),
            invocation: draw(250),
            transport: draw(400),
            outage: draw(400),
            loss: if world.happens(150) { world.pick(1..80) } else { 0 },
        };
        Self {
            world,
            rates,
            on: Arc::new(AtomicBool::new(true)),
            counts: Arc::default(),
            outages: Arc::default(),
        }
    }

    /// The run's rates.
    pub fn rates(&self) -> Rates {
        self.rates
    }

    /// From now on, nothing goes wrong any more.
    pub fn off(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// How often each fault was injected so far.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes a fault that was injected.
    pub fn count(&self, fault: Fault) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(fault).or_default() += 1;
    }

    /// Whether faults happen at all.
    pub fn are_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn happens(&self, per_mille: u64) -> bool {
        self.are_on() && self.world.happens(per_mille)
    }

    /// Whether a fault of the transport happens now.
    pub fn transport(&self, fault: Fault) -> bool {
        self.drawn(fault, self.rates.transport)
    }

    /// Whether a fault of an invocation happens now.
    pub fn invocation(&self, fault: Fault) -> bool {
        self.drawn(fault, self.rates.invocation)
    }

    /// Whether sweeps pile up. So few run while faults are on that they often do.
    pub fn piles_up(&self) -> bool {
        self.drawn(Fault::SweepsPileUp, 500)
    }

    /// Whether a change is lost.
    pub fn loses(&self) -> bool {
        self.drawn(Fault::ChangeLost, self.rates.loss)
    }

    /// Whether a replica that is asked lags behind. So few are asked that it often does.
    pub fn replication(&self) -> bool {
        self.drawn(Fault::StaleHead, 500)
    }

    fn drawn(&self, fault: Fault, per_mille: u64) -> bool {
        let happens = self.happens(per_mille);
        if happens {
            self.count(fault);
        }
        happens
    }

    /// One port call.
    pub async fn call<T, E>(
        &self,
        hop: &'static str,
        effect: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<Unavailable> + Send + 'static,
    {
        let failed = || E::from(Unavailable::Failed { hop, message: "injected".to_owned() });
        let timed_out = || E::from(Unavailable::TimedOut { hop });
        self.world.sleep(self.world.pick(0..LATENCY_MS_MAX)).await;
        let result = if self.is_out(hop) {
            Err(failed())
        } else if !self.happens(self.rates.call) {
            effect.await
        } else {
            match self.world.pick(0..5) {
                0 => {
                    self.count(Fault::ErrorBefore);
                    Err(failed())
                }
                1 => {
                    self.count(Fault::Throttled);
                    Err(E::from(Unavailable::Throttled { hop }))
                }
                2 => {
                    self.count(Fault::ErrorAfter);
                    effect.await.and_then(|_| Err(failed()))
                }
                3 => {
                    self.count(Fault::TimedOutNever);
                    Err(timed_out())
                }
                _ => {
                    self.count(Fault::TimedOutLate);
                    let (world, late_ms) = (self.world.clone(), self.world.pick(0..LATE_MS_MAX));
                    self.world.detach(async move {
                        world.sleep(late_ms).await;
                        // Nobody hears of it.
                        let _ = effect.await;
                    });
                    Err(timed_out())
                }
            }
        };
        self.world.sleep(self.world.pick(0..LATENCY_MS_MAX)).await;
        result
    }

    fn is_out(&self, hop: &'static str) -> bool {
        if !self.are_on() {
            return false;
        }
        let now = self.world.now();
        let mut outages = self.outages.lock().unwrap_or_else(PoisonError::into_inner);
        if self.rates.outage > 0 && self.world.pick(0..100_000) < self.rates.outage {
            self.count(Fault::Outage);
            outages.insert(hop, now.plus_ms(self.world.pick(OUTAGE_MS)));
        }
        outages.get(hop).is_some_and(|until| *until > now)
    }

    /// Which of `n` records or messages a call that takes parts leaves out.
    pub fn parts_left_out(&self, n: usize, fault: Fault) -> Vec<bool> {
        if n == 0 || !self.happens(self.rates.call) {
            return vec![false; n];
        }
        let left_out: Vec<bool> = (0..n).map(|_| self.world.happens(400)).collect();
        if left_out.contains(&true) {
            self.count(fault);
        }
        left_out
    }
}
