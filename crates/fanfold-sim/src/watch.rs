//! What all ports share: the fault layer, the auditor and the trace.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fanfold::host::body::lease::Lease;
use fanfold::host::body::record::{Part, Record};
use fanfold::host::body::slot;
use fanfold::host::invariant::Invariant;
use fanfold::{Command, CommandId, LogId, Name, Origin};
use fanfold_pipeline::ports::{Env, StreamRecord};

use crate::attempts::{Attempts, counted};
use crate::executor::{TaskId, World};
use crate::faults::Faults;
use crate::model::Model;

/// The parked table's name in [`Attempts`].
pub const PARKED: &str = "parked";

/// What all ports share: the fault layer, the auditor and the trace.
#[derive(Clone)]
pub struct Watch {
    /// The fault layer.
    pub faults: Faults,
    /// The virtual clock and the randomness.
    pub world: World,
    model: Arc<Mutex<Model>>,
    trace: Arc<Mutex<Vec<String>>>,
    attempts: Arc<Mutex<Attempts>>,
}

impl Watch {
    /// Creates a watch with the auditor `model`.
    pub fn new(world: World, faults: Faults, model: Model) -> Self {
        let model = Arc::new(Mutex::new(model));
        Self { faults, world, model, trace: Arc::default(), attempts: Arc::default() }
    }

    /// The auditor.
    pub fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempts under way, and the crashes.
    pub fn attempts(&self) -> MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The trace so far, one line per effect.
    pub fn trace(&self) -> Vec<String> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a line to the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        let line = format!("{} {}", self.world.now().0, line());
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Reports an effect to the auditor. The first violation ends the run.
    pub fn audit(&self, report: impl FnOnce(&mut Model)) {
        let mut model = self.model();
        report(&mut model);
        if !model.violations.is_empty() {
            self.world.stop();
        }
    }

    /// The driver killed an invocation.
    pub fn killed(&self, task: TaskId) {
        self.attempts().killed(task);
    }

    /// A text must not state more crashes than happened.
    pub fn check_crashes(&self, table: &'static str, log: &LogId, text: &str) {
        if let Some(counted) = counted(text) {
            self.check_counted(table, log, counted, text);
        }
    }

    /// A lease counts its own attempt and the crashes before it.
    pub fn check_lease(&self, table: &'static str, log: &LogId, lease: &Lease) {
        let counted = lease.attempts.saturating_sub(1);
        self.check_counted(table, log, counted, &format!("{lease:?}"));
    }

    fn check_counted(&self, table: &'static str, log: &LogId, counted: u32, text: &str) {
        let crashes = self.attempts().crashes(table, log);
        self.audit(|model| {
            model.check(Invariant::F7, counted <= crashes, || {
                format!("{table} {log}: {crashes} crashes happened, but `{text}`")
            });
        });
    }

    /// Sometimes makes a record with another command for a seq of this record, as after a restore
    /// of the commands table. The command that arrives first becomes the entry; the processor parks
    /// the other.
    pub fn rival_of(&self, record: &StreamRecord) -> Option<StreamRecord> {
        let decoded = Record::decode(&record.data).ok()?;
        let part = decoded.parts.last().filter(|_| self.faults.has_rivals())?;
        let first = slot::decode(part.body).ok()?.pop()?;
        let id = CommandId::new(part.last.0)?;
        let origin = Origin::user(&Name::new("rival").ok()?).ok()?;
        let rival = Command { origin, id, ..first };
        let (_, body) = slot::encode(&[&rival]).ok()?.pop()?;
        let parts = vec![Part { n: 1, body: &body, ..*part }];
        let data = Record { log: decoded.log.clone(), parts }.encode().ok()?.into();
        self.note(|| format!("rival of {} {}", decoded.log, part.last));
        self.audit(|model| model.has_rival(&decoded.log, part.last, rival));
        Some(StreamRecord { key: decoded.log, data })
    }
}
