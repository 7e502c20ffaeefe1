//! A parked command, or a parked commit that could not be published, and the reason.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::head::Prev;
use super::{DecodeError, envelope};
use crate::host::command::Command;
use crate::host::position::Seq;
use crate::time::Time;

const FORMAT: u8 = 1;

/// What a parked item waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The commands before it.
    Gap,
    /// A processor that hosts its service.
    NoService,
    /// A build that can fold its log, or the repair of its data.
    CannotFold,
    /// An operator: the entry at its seq is of another command.
    Conflict,
    /// An operator: its bytes cannot be read.
    Undecodable,
    /// An operator: processes crashed again and again while they worked on it or its log.
    Suspect,
    /// An operator: the topic refuses its commit. A nudge makes the processor publish it again.
    Unpublished,
    /// Its turn: an operator gave the command up, so its entry will be `lost`.
    GivenUp,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Gap,
        Self::NoService,
        Self::CannotFold,
        Self::Conflict,
        Self::Undecodable,
        Self::Suspect,
        Self::Unpublished,
        Self::GivenUp,
    ];

    /// Whether it waits for an operator. The others go on without one, once they can.
    pub fn is_for_operator(self) -> bool {
        matches!(self, Self::Conflict | Self::Undecodable | Self::Suspect | Self::Unpublished)
    }
}

/// A parked item.
#[derive(Debug, Clone, PartialEq)]
pub struct Parked {
    /// What it waits for.
    pub reason: Reason,
    /// When the command was accepted.
    pub at: Time,
    /// Details, for people.
    pub detail: String,
    /// The command or commit, or the bytes that cannot be read.
    pub content: Content,
}

/// The content of a parked item.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// A command.
    Command(Command),
    /// The commit in the journal that begins at the item's seq.
    Commit {
        /// The seq of its last entry.
        last: Seq,
        /// For every kind, the seq of the last entry before the commit that has it. A notification needs it, and later
        /// only the whole log could give it.
        prev: Prev,
    },
    /// Bytes that could not be read: a slot body, or a whole record of the command stream.
    Bytes(Vec<u8>),
}

#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    reason: Reason,
    at: Time,
    detail: Cow<'a, str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Cow<'a, Command>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    commit: Option<Cow<'a, Commit>>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Commit {
    last: Seq,
    prev: Prev,
}

impl Parked {
    /// The identity of a commit: only one begins at a seq.
    pub const UNPUBLISHED: &str = "unpublished";

    /// What an operator parks to give up the command at a seq, for a reason. If the command is parked itself, this takes
    /// its place.
    pub fn given_up(command: Option<Command>, at: Time, reason: impl Into<String>) -> Self {
        let command = command.unwrap_or_else(Command::unknown);
        let content = Content::Command(command);
        Self { reason: Reason::GivenUp, at, detail: reason.into(), content }
    }

    /// The identity, which tells items with one seq apart.
    pub fn identity(&self) -> String {
        match &self.content {
            Content::Command(command) => command.identity(),
            Content::Commit { .. } => Self::UNPUBLISHED.to_owned(),
            Content::Bytes(bytes) => format!("bytes#{:016x}", fingerprint(bytes)),
        }
    }

    /// The bytes to store.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let (mut command, mut commit, mut content) = (None, None, &[][..]);
        match &self.content {
            Content::Command(parked) => command = Some(Cow::Borrowed(parked)),
            Content::Commit { last, prev } => {
                commit = Some(Cow::Owned(Commit { last: *last, prev: prev.clone() }));
            }
            Content::Bytes(bytes) => content = bytes,
        }
        let detail = self.detail.as_str().into();
        let stored = Stored { reason: self.reason, at: self.at, detail, command, commit };
        let header = serde_json::to_vec(&stored)?;
        let mut payload = (header.len() as u32).to_be_bytes().to_vec();
        payload.extend(header);
        payload.extend_from_slice(content);
        Ok(envelope::seal(FORMAT, &payload))
    }

    /// Reads what [`Parked::encode`] wrote.
    pub fn decode(body: &[u8]) -> Result<Self, DecodeError> {
        let payload = envelope::open(FORMAT, body)?;
        let (len, rest) = payload.split_first_chunk::<4>().ok_or(DecodeError::Truncated)?;
        let len = u32::from_be_bytes(*len) as usize;
        let (header, bytes) = rest.split_at_checked(len).ok_or(DecodeError::Truncated)?;
        let stored: Stored<'_> = serde_json::from_slice(header)?;
        let content = match (stored.command, stored.commit) {
            (Some(command), _) => Content::Command(command.into_owned()),
            (None, Some(commit)) => {
                let Commit { last, prev } = commit.into_owned();
                Content::Commit { last, prev }
            }
            (None, None) => Content::Bytes(bytes.to_vec()),
        };
        let detail = stored.detail.into_owned();
        Ok(Self { reason: stored.reason, at: stored.at, detail, content })
    }
}

/// FNV-1a, 64 bits, which is the same in every build.
pub(crate) fn fingerprint(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
