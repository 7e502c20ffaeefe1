//! The placement of a log: its shard, its lane within the shard, its bucket in the catalogue.
//!
//! All three derive from the MD5 of the log's name, so they are the same in every build and on
//! every machine. The highest bits choose the shard, exactly as in Kinesis. Lane and bucket are
//! remainders of the hash, so that the logs of one shard spread over all lanes.

use std::fmt;
use std::str::FromStr;

use fanfold::LogId;
use md5::{Digest, Md5};
use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};
use thiserror::Error;

/// The number of buckets of the catalogue. A log's bucket is the MD5 of its name modulo 64, stored
/// as one byte.
pub(crate) const BUCKETS: u8 = 64;

/// The MD5 of a partition key, as a number of 128 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HashKey(pub u128);

impl HashKey {
    /// The hash key of a partition key.
    pub fn of(key: &str) -> Self {
        Self(u128::from_be_bytes(Md5::digest(key.as_bytes()).into()))
    }

    /// The hash key of a log. The log's name is its partition key.
    pub fn of_log(log: &LogId) -> Self {
        Self::of(log.as_str())
    }

    /// The lane within a shard that has `lanes` lanes, counted from 0.
    pub fn lane(self, lanes: usize) -> usize {
        (self.0 % lanes.max(1) as u128) as usize
    }

    /// The log's bucket in the catalogue, below 64.
    pub fn bucket(self) -> u8 {
        (self.0 % u128::from(BUCKETS)) as u8
    }
}

impl fmt::Display for HashKey {
    /// Writes the number in decimal, as Kinesis does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The text is not a valid hash key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a hash key is a decimal integer from 0 to {}", u128::MAX)]
pub struct NotAHashKey;

impl FromStr for HashKey {
    type Err = NotAHashKey;

    fn from_str(text: &str) -> Result<Self, NotAHashKey> {
        // `u128::from_str` also accepts a sign.
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse().ok().filter(|_| digits).map(Self).ok_or(NotAHashKey)
    }
}

// As text, because many JSON readers do not hold 128 bits in a number.
impl Serialize for HashKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HashKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The hash keys of one shard, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKeyRange {
    /// The lowest key.
    pub first: HashKey,
    /// The highest key.
    pub last: HashKey,
}

impl HashKeyRange {
    /// `shards` ranges of equal width (at least one), in order; the last one also has the
    /// remainder. Kinesis gives the same ranges to the shards of a new stream.
    pub fn equal(shards: usize) -> Vec<Self> {
        let shards = shards.max(1) as u128;
        // 2^128 / shards. The dividend does not fit into a `u128`.
        let width = if shards.is_power_of_two() {
            (u128::MAX / shards).saturating_add(1)
        } else {
            u128::MAX / shards
        };
        let range = |shard: u128| Self {
            first: HashKey(width * shard),
            last: HashKey(if shard + 1 == shards { u128::MAX } else { width * (shard + 1) - 1 }),
        };
        (0..shards).map(range).collect()
    }

    /// The range's share of all hash keys, from 0 to 1.
    pub fn share(self) -> f64 {
        ((self.last.0 - self.first.0) as f64 + 1.0) / 2f64.powi(128)
    }

    /// The first key of the upper half. Of an odd number of keys, the upper half has one more. Of a
    /// single key, that key.
    pub fn middle(self) -> HashKey {
        let more = self.last.0 - self.first.0;
        HashKey(self.first.0 + more / 2 + more % 2)
    }

    /// Whether the range contains the key.
    pub fn contains(&self, key: HashKey) -> bool {
        (self.first..=self.last).contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hash_keys_are_md5() {
        // The test suite of RFC 1321.
        for (key, md5) in [
            ("", 0xd41d_8cd9_8f00_b204_e980_0998_ecf8_427e),
            ("a", 0x0cc1_75b9_c0f1_b6a8_31c3_99e2_6977_2661),
            ("message digest", 0xf96b_697d_7cb7_938d_525a_2f31_aaf1_61d0),
            ("abcdefghijklmnopqrstuvwxyz", 0xc3fc_d3d7_6192_e400_7dfb_496c_ca67_e13b_u128),
        ] {
            assert_eq!(HashKey::of(key), HashKey(md5), "{key:?}");
        }
    }

    #[test]
    fn ranges_are_those_of_a_new_kinesis_stream() {
        let firsts = |shards| -> Vec<u128> {
            HashKeyRange::equal(shards).iter().map(|range| range.first.0).collect()
        };
        assert_eq!(firsts(0), [0]);
        assert_eq!(firsts(1), [0]);
        assert_eq!(firsts(2), [0, 170_141_183_460_469_231_731_687_303_715_884_105_728]);
        assert_eq!(
            firsts(3),
            [
                0,
                113_427_455_640_312_821_154_458_202_477_256_070_485,
                226_854_911_280_625_642_308_916_404_954_512_140_970,
            ]
        );
    }

    #[test]
    fn hash_keys_are_written_in_decimal() {
        for (text, key) in [
            ("0", Some(0)),
            ("17", Some(17)),
            ("340282366920938463463374607431768211455", Some(u128::MAX)),
            ("340282366920938463463374607431768211456", None),
            ("", None),
            ("+1", None),
            ("-1", None),
            ("0x1", None),
            (" 1", None),
        ] {
            assert_eq!(text.parse().ok(), key.map(HashKey), "{text:?}");
            if let Some(key) = key {
                assert_eq!(HashKey(key).to_string(), text);
            }
        }
    }

    #[test]
    fn the_middle_halves_a_range() {
        for (first, last, middle) in [
            (0, u128::MAX, 1 << 127),
            (0, (1 << 127) - 1, 1 << 126),
            (5, 6, 6),
            (5, 7, 6),
            (5, 5, 5),
            (u128::MAX, u128::MAX, u128::MAX),
        ] {
            let range = HashKeyRange { first: HashKey(first), last: HashKey(last) };
            assert_eq!(range.middle(), HashKey(middle), "{range:?}");
        }
    }

    proptest! {
        #[test]
        fn ranges_cover_every_key_once(shards in 1usize..300, key: u128) {
            let ranges = HashKeyRange::equal(shards);
            prop_assert_eq!(ranges.len(), shards);
            prop_assert_eq!(ranges[0].first, HashKey(0));
            prop_assert_eq!(ranges[shards - 1].last, HashKey(u128::MAX));
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].last.0 + 1, pair[1].first.0);
            }
            prop_assert_eq!(ranges.iter().filter(|range| range.contains(HashKey(key))).count(), 1);
        }
    }
}
