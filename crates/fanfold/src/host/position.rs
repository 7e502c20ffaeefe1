//! Positions in a log, and ids of commands.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::host::limits::{COMMAND_ID_END, SEQ_END};

/// Position in a log: 1, 2, 3 … without holes. [`Seq::ZERO`] stands before the first entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The position `n` further on.
    #[must_use]
    pub fn plus(self, n: u64) -> Self {
        Self(self.0 + n)
    }

    /// The position before this one. Zero stays zero.
    #[must_use]
    pub fn before(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl<'de> Deserialize<'de> for Seq {
    /// Refuses numbers that no log can reach, so that arithmetic with them cannot overflow.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seq = u64::deserialize(deserializer)?;
        if seq >= SEQ_END {
            return Err(serde::de::Error::custom(format_args!("{seq} is not below 2^47")));
        }
        Ok(Self(seq))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number that a client gives its command: 1 to 2^53 - 1, growing per (log, origin).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct CommandId(u64);

impl CommandId {
    /// The id of entries that no command caused.
    pub const NONE: Self = Self(0);

    /// `None` outside 1 to 2^53 - 1.
    pub fn new(id: u64) -> Option<Self> {
        (1..COMMAND_ID_END).contains(&id).then_some(Self(id))
    }

    /// The number.
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl<'de> Deserialize<'de> for CommandId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let id = u64::deserialize(deserializer)?;
        Self::new(id)
            .ok_or_else(|| serde::de::Error::custom(format_args!("{id} is not from 1 to 2^53 - 1")))
    }
}
