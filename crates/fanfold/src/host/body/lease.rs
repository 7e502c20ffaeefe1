//! A lease means that a call which may end its process has begun. The processor's lease is in the
//! parked table, beside the log's parked items; a view's is in its cursor. Every call that returns
//! removes its lease. So a lease that is still there when its call can no longer run means a crash.
//! The processor's names the step at which it happened.

use serde::{Deserialize, Serialize};

use super::{DecodeError, envelope};
use crate::host::position::Seq;
use crate::time::Time;

const FORMAT: u8 = 1;

/// The step of the processor's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Everything at once.
    Whole,
    /// One at a time: loading the log, or folding what others appended.
    Loading,
    /// One at a time: reading and deciding the command at this seq.
    Deciding(Seq),
}

/// Which process began an attempt, and how long the attempt may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The attempts that began since one returned, including this one. Zero: this one has returned.
    pub attempts: u32,
    /// When this attempt began.
    pub at: Time,
    /// When its call can no longer run: its deadline plus the grace of its host.
    pub until: Time,
    /// Its process: a random number that the process drew when it started.
    pub owner: u64,
}

/// The processor's lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessorLease {
    /// Which process began it, and until when it may run.
    #[serde(flatten)]
    pub lease: Lease,
    /// Its step.
    pub step: Step,
}

impl ProcessorLease {
    /// The identity of the lease. No command has it, because theirs are `<origin>#<id>`. Only bytes, as `bytes#…`, are
    /// parked under [`Seq::ZERO`] beside it, and they sort behind it. So the lease is the first of a log's items.
    pub const IDENTITY: &str = "attempt";

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(envelope::seal(FORMAT, &serde_json::to_vec(self)?))
    }

    /// Reads what [`ProcessorLease::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(&envelope::open(FORMAT, body)?)?)
    }
}
