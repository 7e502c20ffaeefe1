//! Bounded loss: no command is accepted while commands have not arrived for hours.
//!
//! Some providers keep a change of a slot only for a time: DynamoDB's streams keep it for 24 hours. A relay that stands
//! still for longer loses commands that were accepted. So each run of the sweep stores up to which time its canaries have
//! arrived in the journal ([`Arrivals`]). While that time is too long ago, [`WhileArriving`] refuses commands. A sweep that
//! does not run stores nothing, so its silence counts, too.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use fanfold::{LogId, Time};

use crate::ports::{Admission, Arrivals, Env, NotAdmitted, Unavailable};

/// How long the time that was read is used, in milliseconds. Source: our choice. It is short beside the hours that
/// matter, and costs each process one read in it.
const READ_EVERY_MS: u64 = 30_000;
/// When a refused caller should try again, in seconds. Source: our choice. A repaired pipeline shows after one run of the
/// sweep and one of [`READ_EVERY_MS`].
const RETRY_AFTER_S: u64 = 120;

/// Admits commands while commands arrive in the journal.
pub struct WhileArriving {
    arrivals: Arc<dyn Arrivals>,
    env: Arc<dyn Env>,
    age_ms_max: u64,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// The time up to which canaries have arrived.
    until: Option<Time>,
    /// When that is read again; zero at first.
    due: Time,
}

impl WhileArriving {
    /// Refuses commands while canaries have not arrived for so many milliseconds.
    pub fn new(arrivals: Arc<dyn Arrivals>, env: Arc<dyn Env>, age_ms_max: u64) -> Self {
        Self { arrivals, env, age_ms_max, known: Mutex::default() }
    }

    /// Reads how far commands have arrived, if it was not read for a while. A host calls it before it accepts commands.
    /// If it cannot be read, what is known stays in force.
    pub async fn refresh(&self) {
        let now = self.env.now();
        {
            let mut known = self.known();
            // A clock that was set back must not make it read never again.
            let is_due = now >= known.due || known.due.since_ms(now) > READ_EVERY_MS;
            if !is_due {
                return;
            }
            // Others do not read it meanwhile.
            known.due = now.plus_ms(READ_EVERY_MS);
        }
        match self.arrivals.get().await {
            Ok(until) => self.known().until = until,
            Err(error) => {
                tracing::warn!(%error, "it is unknown how far commands have arrived: what was known stays in force");
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Admission for WhileArriving {
    fn admit(&self, _: &LogId) -> Result<(), NotAdmitted> {
        let Some(until) = self.known().until else { return Ok(()) };
        let age_ms = self.env.now().since_ms(until);
        if age_ms <= self.age_ms_max {
            return Ok(());
        }
        let hours = age_ms as f64 / 3_600_000.0;
        let reason = format!(
            "no command has arrived for {hours:.1} hours, and commands that do not arrive within a day are lost"
        );
        Err(NotAdmitted { reason, retry_after_s: RETRY_AFTER_S, is_full: false })
    }
}

/// In this process only.
#[derive(Debug, Default)]
pub struct InProcess(Mutex<Option<Time>>);

#[async_trait]
impl Arrivals for InProcess {
    async fn get(&self) -> Result<Option<Time>, Unavailable> {
        Ok(*self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn put(&self, until: Time) -> Result<(), Unavailable> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
        Ok(())
    }
}
