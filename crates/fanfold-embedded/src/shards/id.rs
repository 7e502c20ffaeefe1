use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};
use thiserror::Error;

const PREFIX: &str = "shardId-";

/// A shard's name in the form of Kinesis: `shardId-000000000004`. A stream never reuses a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u64);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{:012}", self.0)
    }
}

/// The text is not a valid shard name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a shard is named as `shardId-000000000004`: 12 digits")]
pub struct NotAShardId;

impl FromStr for ShardId {
    type Err = NotAShardId;

    fn from_str(text: &str) -> Result<Self, NotAShardId> {
        let number = text.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok());
        // Only the canonical form: no sign, exactly the zeros that `Display` writes.
        number.map(Self).filter(|id| id.to_string() == text).ok_or(NotAShardId)
    }
}

impl Serialize for ShardId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ShardId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_has_one_name() {
        for (text, id) in [
            ("shardId-000000000000", Some(0)),
            ("shardId-000000000004", Some(4)),
            ("shardId-1234567890123", Some(1_234_567_890_123)),
            ("shardId-4", None),
            ("shardId-0000000000004", None),
            ("shardId-+00000000004", None),
            ("shardId-", None),
            ("000000000004", None),
            ("shardid-000000000004", None),
            ("", None),
        ] {
            assert_eq!(text.parse().ok(), id.map(ShardId), "{text:?}");
        }
    }
}
