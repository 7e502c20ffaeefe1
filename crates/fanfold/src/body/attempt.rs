//! An attempt marker: a call that perhaps ends its process was begun. The processor's stands in the
//! parked table beside what is parked of the log, a view's in its cursor. Every call that returns
//! removes its marker. So a marker that is there after its call can no longer run tells of a crash,
//! and of the step at which it happened.

use serde::{Deserialize, Serialize};

use super::{DecodeError, envelope};
use crate::position::{Seq, Time};

const FORMAT: u8 = 1;

/// What a call behind a marker is at.
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

/// Which process has begun an attempt, and how long the attempt may last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The attempts begun since one has returned, this one included; zero: it has returned.
    pub attempts: u32,
    /// When this one was begun.
    pub at: Time,
    /// From here on its call cannot run any more: its deadline, and the grace of its host.
    pub until: Time,
    /// The process that has begun it: a number that it drew at random when it started.
    pub owner: u64,
}

/// The processor's attempt marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The process that has begun it, and until when it may run.
    #[serde(flatten)]
    pub lease: Lease,
    /// How far it has come.
    pub step: Step,
}

impl Attempt {
    /// Tells the marker apart from what is parked. No command has it: theirs are `<origin>#<id>`,
    /// those of bytes `bytes#…`. It sorts before those, which are all that is ever parked under
    /// [`Seq::ZERO`] beside it: so the marker is the first of a log's items.
    pub const IDENTITY: &str = "attempt";

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        Ok(envelope::seal(FORMAT, &serde_json::to_vec(self)?))
    }

    /// Reads what [`Attempt::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        Ok(serde_json::from_slice(&envelope::open(FORMAT, body)?)?)
    }
}
