//! The fault layer. Every port call takes some time before and after its effect. While faults are
//! on, any call may
//!
//! - fail before its effect, or be throttled;
//! - take effect and then fail;
//! - get no answer, and take effect much later, or never;
//! - succeed for only some of its records or messages.
//!
//! In some runs the topics refuse messages of some logs permanently ([`crate::ports::Refusal`]).
//!
//! The transport (`drive`) adds further faults: invocations that are killed between any two calls,
//! or run on as zombies beside their retry; several environments; records and notifications that
//! arrive twice, late, and out of order.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use fanfold::Time;
use fanfold_pipeline::ports::{Env, Unavailable};

use crate::executor::World;

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// A call failed without an effect.
    ErrorBefore,
    /// A call failed after its effect.
    ErrorAfter,
    /// A call got no answer and took effect much later.
    TimedOutLate,
    /// A call got no answer and never took effect.
    TimedOutNever,
    /// A call was throttled.
    Throttled,
    /// All calls of one port failed for a while.
    Outage,
    /// Some records of a `put_records` were throttled.
    PartialPut,
    /// Some messages of a `publish` were throttled.
    PartialPublish,
    /// The topic refused a message permanently.
    MessageRefused,
    /// An invocation was killed between two port calls.
    Killed,
    /// An invocation ran on beside its retry.
    Zombie,
    /// A batch went to another environment than the one before.
    OtherEnvironment,
    /// A new environment started, with empty caches.
    ColdStart,
    /// A batch was delivered again after all of it was finished.
    BatchTwice,
    /// A batch was split in two after a failure.
    Bisected,
    /// A record arrived twice on the command stream.
    RecordTwice,
    /// A record arrived on the command stream before an earlier one.
    RecordReordered,
    /// A record arrived on the command stream seconds after the stream acknowledged it.
    RecordDelayed,
    /// The delivery of a shard's next batch was delayed.
    ShardDelayed,
    /// A notification was delivered twice.
    NotificationTwice,
    /// A notification was due before an earlier one.
    NotificationReordered,
    /// A notification was delivered late.
    NotificationDelayed,
    /// A notification became a dead letter after its last attempt.
    DeadLetter,
    /// A read of a head returned an older version, or none.
    StaleHead,
    /// A client sent a command again.
    Repeated,
    /// Several sweeps of a view began at the same position.
    SweepsPileUp,
    /// A change never reached the change stream.
    ChangeLost,
    /// A new version of a service was deployed.
    Deployed,
    /// Another command arrived for the same seq.
    Rival,
}

impl Fault {
    /// Every kind.
    pub const ALL: [Self; 29] = [
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
        Self::Deployed,
        Self::Rival,
    ];
}

/// How often each fault was injected.
pub type Counts = BTreeMap<Fault, u64>;

/// The probabilities of faults in one run, in thousandths unless noted. Drawn once per seed, so
/// that runs with few and with many faults occur.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    /// That a port call fails.
    pub call: u64,
    /// That an invocation is killed, or becomes a zombie.
    pub invocation: u64,
    /// That the transport repeats, reorders or delays.
    pub transport: u64,
    /// That a call begins an outage of its port, in hundred-thousandths.
    pub outage: u64,
    /// That a change is lost. Low: a log stops once a later batch overwrites the lost one.
    pub loss: u64,
    /// That another command arrives for a seq.
    pub rivals: u64,
}

/// Longest latency of a port call before its effect, and again after it.
const LATENCY_MS_MAX: u64 = 12;
/// Longest delay of the effect of a call that timed out.
pub(crate) const LATE_MS_MAX: u64 = 20_000;
/// How long an outage lasts: longer than any stage retries.
const OUTAGE_MS: std::ops::Range<u64> = 2_000..30_000;

/// Draws faults and counts them.
#[derive(Clone)]
pub struct Faults {
    world: World,
    rates: Rates,
    on: Arc<AtomicBool>,
    counts: Arc<Mutex<Counts>>,
    outages: Arc<Mutex<BTreeMap<&'static str, Time>>>,
}

impl Faults {
    /// Draws the rates of one run. Faults are on.
    pub fn new(world: World) -> Self {
        let draw = |max: u64| if world.happens(300) { 0 } else { world.pick(1..max) };
        let rates = Rates {
            call: draw(150),
            invocation: draw(250),
            transport: draw(400),
            outage: draw(400),
            loss: if world.happens(150) { world.pick(1..80) } else { 0 },
            rivals: if world.happens(200) { world.pick(1..80) } else { 0 },
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

    /// Turns all faults off.
    pub fn off(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// How often each fault has been injected so far.
    pub fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts a fault that was injected.
    pub fn count(&self, fault: Fault) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(fault).or_default() += 1;
    }

    /// Whether faults are on.
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

    /// Whether sweeps pile up. Frequent, since few sweeps run while faults are on.
    pub fn piles_up(&self) -> bool {
        self.drawn(Fault::SweepsPileUp, 500)
    }

    /// Whether a change is lost.
    pub fn loses_change(&self) -> bool {
        self.drawn(Fault::ChangeLost, self.rates.loss)
    }

    /// Whether another command arrives for a seq.
    pub fn has_rivals(&self) -> bool {
        self.drawn(Fault::Rival, self.rates.rivals)
    }

    /// Whether a read of heads is stale. Frequent, since such reads are few.
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

    /// Makes one port call, with latency and perhaps a fault.
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
                        // The caller has its timeout already.
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

    /// Which of `n` records or messages a partial call leaves out.
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
