//! Breaks a running engine on purpose: for development, and for drills of operators.
//!
//! The stages then have ports that fail, and invocations that panic or begin late. Ingest, readers and operators have the
//! ports themselves. An engine without a [`Chaos`] has nothing of this in front of its ports.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use fanfold::host::body::notification::Commit;
use fanfold::{LogId, Seq, StateKey, Time};
use fanfold_pipeline::ports::{
    CommandStream, CommitItem, Env, Guarded, Journal, JournalAppendError, JournalPage,
    PublishError, State, StateItem, StreamRecord, Topic, Unavailable,
};
use fanfold_pipeline::wiring::Wiring;

use crate::hash_key::{HashKey, HashKeyRange};
use crate::stop::Stop;
use crate::striped::lock;

/// The most faults at one time. Source: our choice; each call of a port compares with all of them.
const FAULTS_MAX: usize = 32;
/// The longest time that a fault lasts, in milliseconds. Source: our choice: one that was forgotten ends.
pub const FAULT_MS_MAX: u64 = 600_000;
/// The longest delay of an invocation, in milliseconds. Source: half of what an invocation may take.
pub const DELAY_MS_MAX: u64 = 30_000;
/// The most records that are held. Source: our choice: some megabytes. Beyond it, puts are throttled.
const HELD_MAX: usize = 1_000;
/// The pause between two looks for records that are held no longer, in milliseconds. Source: our choice.
const LOOK_MS: u64 = 100;

/// A port of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChaosPort {
    /// The command stream, to which the relay writes.
    Stream,
    /// The journal.
    Journal,
    /// Heads, documents and windows.
    State,
    /// Where the processor publishes.
    Topic,
}

/// A stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChaosStage {
    /// Puts commands on the stream.
    Relay,
    /// Decides commands.
    Process,
    /// Applies entries to the view of this name.
    View(String),
}

/// What is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The calls of a port fail, as if it did not answer.
    Fail(ChaosPort),
    /// The topic refuses commits for good.
    Refuse,
    /// The stream acknowledges records, and delivers them when the fault ends: too late for their order.
    Hold,
    /// The stream delivers bytes that no build can read.
    Damage,
    /// Invocations of a stage panic.
    Kill(ChaosStage),
    /// Invocations of a stage begin so many milliseconds later.
    Delay(ChaosStage, u64),
}

/// Which logs a fault is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    All,
    /// One log.
    Log(LogId),
    /// Those whose hash keys are in a range, such as that of a shard.
    Range(HashKeyRange),
}

/// A fault that was planted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planted {
    /// Its number.
    pub id: u64,
    /// What is broken.
    pub fault: Fault,
    /// For which logs.
    pub scope: Scope,
    /// When it ends.
    pub until: Time,
    /// How many calls it breaks; `None`: all of them.
    pub times: Option<u64>,
    /// How many calls it has broken so far.
    pub met: u64,
}

/// Why a fault was not planted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotPlanted {
    /// There are as many as there may be.
    #[error("there are {FAULTS_MAX} faults already: end some of them")]
    TooMany,
    /// It would last too long, or not at all.
    #[error("a fault lasts from 1 to {FAULT_MS_MAX} ms")]
    Lasts,
    /// The delay is longer than an invocation can be.
    #[error("an invocation is delayed by 1 to {DELAY_MS_MAX} ms")]
    Delay,
}

/// Breaks an engine. Clones share the faults.
#[derive(Clone)]
pub struct Chaos {
    faults: Arc<Mutex<Faults>>,
    env: Arc<dyn Env>,
}

#[derive(Default)]
struct Faults {
    planted: Vec<Planted>,
    /// The number of the last one.
    last: u64,
    /// Records that are held, each with the fault that holds it.
    held: Vec<(u64, StreamRecord)>,
}

impl Scope {
    fn has(&self, log: &LogId) -> bool {
        match self {
            Self::All => true,
            Self::Log(only) => only == log,
            Self::Range(range) => range.contains(HashKey::of_log(log)),
        }
    }
}

impl Chaos {
    pub(crate) fn new(env: Arc<dyn Env>) -> Self {
        Self { faults: Arc::default(), env }
    }

    /// Breaks something for `ms` milliseconds, in all calls, or in the first `times` of them.
    pub fn plant(
        &self,
        fault: Fault,
        scope: Scope,
        ms: u64,
        times: Option<u64>,
    ) -> Result<Planted, NotPlanted> {
        if !(1..=FAULT_MS_MAX).contains(&ms) {
            return Err(NotPlanted::Lasts);
        }
        if matches!(fault, Fault::Delay(_, ms) if !(1..=DELAY_MS_MAX).contains(&ms)) {
            return Err(NotPlanted::Delay);
        }
        let (mut faults, now) = (lock(&self.faults), self.env.now());
        faults.planted.retain(|planted| planted.until > now);
        if faults.planted.len() >= FAULTS_MAX {
            return Err(NotPlanted::TooMany);
        }
        faults.last += 1;
        let planted =
            Planted { id: faults.last, fault, scope, until: now.plus_ms(ms), times, met: 0 };
        tracing::warn!(fault = ?planted.fault, scope = ?planted.scope, ms, "broken on purpose");
        faults.planted.push(planted.clone());
        Ok(planted)
    }

    /// What is broken now.
    pub fn planted(&self) -> Vec<Planted> {
        let (faults, now) = (lock(&self.faults), self.env.now());
        faults.planted.iter().filter(|planted| planted.until > now).cloned().collect()
    }

    /// Ends all faults, or one. Returns how many it has ended.
    pub fn heal(&self, id: Option<u64>) -> usize {
        let (mut faults, now) = (lock(&self.faults), self.env.now());
        faults.planted.retain(|planted| planted.until > now);
        let before = faults.planted.len();
        faults.planted.retain(|planted| id.is_some_and(|id| id != planted.id));
        before - faults.planted.len()
    }

    /// The first fault of these that breaks a call for one of these logs now. Counts the call.
    fn meet<T>(&self, logs: &[&LogId], is: impl Fn(&Fault) -> Option<T>) -> Option<(u64, T)> {
        let (mut faults, now) = (lock(&self.faults), self.env.now());
        faults.planted.iter_mut().find_map(|planted| {
            let is_over = planted.until <= now || planted.times.is_some_and(|n| planted.met >= n);
            if is_over || !logs.iter().any(|log| planted.scope.has(log)) {
                return None;
            }
            let found = is(&planted.fault)?;
            planted.met += 1;
            Some((planted.id, found))
        })
    }

    /// The ports of the stages, behind this.
    pub(crate) fn before(&self, wiring: &Wiring) -> Wiring {
        let Wiring { stream, journal, state, topic, .. } = wiring.clone();
        Wiring {
            stream: Arc::new(self.of(stream)),
            journal: Arc::new(self.of(journal)),
            state: Arc::new(self.of(state)),
            topic: Arc::new(self.of(topic)),
            ..wiring.clone()
        }
    }

    fn of<P: ?Sized>(&self, port: Arc<P>) -> Broken<P> {
        Broken { port, chaos: self.clone() }
    }

    /// Puts held records on the stream once their faults have ended, until stop is signalled. A record stays held until the
    /// stream has it.
    pub(crate) async fn deliver_held(self, stream: Arc<dyn CommandStream>, stop: Stop) {
        while stop.or(self.env.sleep(LOOK_MS)).await.is_some() {
            while let Some((id, record)) = self.released() {
                let put = stream.put_records(std::slice::from_ref(&record)).await;
                if !matches!(put.as_deref(), Ok([Ok(())])) {
                    break;
                }
                let mut faults = lock(&self.faults);
                let delivered = (id, record);
                if let Some(at) = faults.held.iter().position(|held| *held == delivered) {
                    faults.held.remove(at);
                }
            }
        }
    }

    /// How many records are held.
    pub(crate) fn held(&self) -> usize {
        lock(&self.faults).held.len()
    }

    /// The first held record whose fault has ended.
    fn released(&self) -> Option<(u64, StreamRecord)> {
        let (faults, now) = (lock(&self.faults), self.env.now());
        let is_held = |id: u64| faults.planted.iter().any(|of| of.id == id && of.until > now);
        faults.held.iter().find(|(id, _)| !is_held(*id)).cloned()
    }
}

/// A stage whose invocations can be broken.
#[derive(Clone)]
pub(crate) struct BrokenStage(Option<Arc<(Chaos, ChaosStage)>>);

impl BrokenStage {
    /// `None` breaks nothing.
    pub(crate) fn new(chaos: Option<Chaos>, stage: ChaosStage) -> Self {
        Self(chaos.map(|chaos| Arc::new((chaos, stage))))
    }

    /// Begins an invocation with items of these logs: it panics, or waits, if a fault says so.
    pub(crate) async fn invocation<'a>(&self, logs: impl Iterator<Item = &'a LogId>) {
        let Some((chaos, stage)) = self.0.as_deref() else { return };
        let logs: Vec<&LogId> = logs.collect();
        let met = chaos.meet(&logs, |fault| match fault {
            Fault::Kill(of) if of == stage => Some(None),
            Fault::Delay(of, ms) if of == stage => Some(Some(*ms)),
            _ => None,
        });
        match met {
            Some((_, None)) => panic!("{stage:?} was ended on purpose"),
            Some((_, Some(ms))) => chaos.env.sleep(ms).await,
            None => {}
        }
    }
}

/// A port of a stage that can be broken.
struct Broken<P: ?Sized> {
    port: Arc<P>,
    chaos: Chaos,
}

impl<P: ?Sized> Broken<P> {
    fn check(&self, port: ChaosPort, log: &LogId) -> Result<(), Unavailable> {
        let fails = |fault: &Fault| (*fault == Fault::Fail(port)).then_some(());
        match self.chaos.meet(&[log], fails) {
            None => Ok(()),
            Some(_) => {
                let message = format!("{port:?} was broken on purpose");
                Err(Unavailable::Failed { hop: "chaos", message })
            }
        }
    }
}

impl Broken<dyn CommandStream> {
    /// What becomes of a record: `None` if it is held.
    fn record(&self, record: &StreamRecord) -> Result<Option<StreamRecord>, Unavailable> {
        self.check(ChaosPort::Stream, &record.key)?;
        let met = self.chaos.meet(&[&record.key], |fault| match fault {
            Fault::Hold => Some(true),
            Fault::Damage => Some(false),
            _ => None,
        });
        match met {
            None => Ok(Some(record.clone())),
            Some((_, false)) => {
                let data = bytes::Bytes::from_static(b"damaged on purpose");
                Ok(Some(StreamRecord { data, ..record.clone() }))
            }
            Some((id, true)) => {
                let mut faults = lock(&self.chaos.faults);
                if faults.held.len() >= HELD_MAX {
                    return Err(Unavailable::Throttled { hop: "chaos" });
                }
                faults.held.push((id, record.clone()));
                Ok(None)
            }
        }
    }
}

#[async_trait]
impl CommandStream for Broken<dyn CommandStream> {
    async fn put_records(
        &self,
        records: &[StreamRecord],
    ) -> Result<Vec<Result<(), Unavailable>>, Unavailable> {
        let records: Vec<_> = records.iter().map(|record| self.record(record)).collect();
        let passed: Vec<StreamRecord> =
            records.iter().filter_map(|record| record.clone().ok().flatten()).collect();
        let mut put = self.port.put_records(&passed).await?.into_iter();
        let results = records.into_iter().map(|record| match record {
            Ok(Some(_)) => put.next().unwrap_or(Ok(())),
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        });
        Ok(results.collect())
    }
}

#[async_trait]
impl Journal for Broken<dyn Journal> {
    async fn append(&self, log: &LogId, commit: &CommitItem) -> Result<(), JournalAppendError> {
        self.check(ChaosPort::Journal, log)?;
        self.port.append(log, commit).await
    }

    async fn read(&self, log: &LogId, from: Seq, limit: usize) -> Result<JournalPage, Unavailable> {
        self.check(ChaosPort::Journal, log)?;
        self.port.read(log, from, limit).await
    }

    async fn tail(&self, log: &LogId) -> Result<Seq, Unavailable> {
        self.check(ChaosPort::Journal, log)?;
        self.port.tail(log).await
    }
}

#[async_trait]
impl State for Broken<dyn State> {
    async fn get(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        self.check(ChaosPort::State, log)?;
        self.port.get(log, keys).await
    }

    async fn heads(
        &self,
        log: &LogId,
        keys: &[StateKey],
    ) -> Result<Vec<Option<StateItem>>, Unavailable> {
        self.check(ChaosPort::State, log)?;
        self.port.heads(log, keys).await
    }

    async fn put(
        &self,
        log: &LogId,
        key: &StateKey,
        item: &StateItem,
    ) -> Result<Guarded, Unavailable> {
        self.check(ChaosPort::State, log)?;
        self.port.put(log, key, item).await
    }
}

#[async_trait]
impl Topic for Broken<dyn Topic> {
    async fn publish(&self, commits: &[&Commit], until: Time) -> Vec<Result<(), PublishError>> {
        let checked: Vec<Result<(), PublishError>> = commits
            .iter()
            .map(|commit| {
                self.check(ChaosPort::Topic, &commit.log)?;
                let refuses = |fault: &Fault| (*fault == Fault::Refuse).then_some(());
                match self.chaos.meet(&[&commit.log], refuses) {
                    None => Ok(()),
                    Some(_) => Err(PublishError::Refused("on purpose".to_owned())),
                }
            })
            .collect();
        let passed = commits.iter().zip(&checked).filter(|(_, checked)| checked.is_ok());
        let passed: Vec<&Commit> = passed.map(|(commit, _)| *commit).collect();
        let mut published = self.port.publish(&passed, until).await.into_iter();
        let results = checked
            .into_iter()
            .map(|checked| checked.and_then(|()| published.next().unwrap_or(Ok(()))));
        results.collect()
    }
}
