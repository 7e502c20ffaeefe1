//! Positions in a log, command ids, points in time.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::{COMMAND_ID_END, SEQ_END};

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

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub u64);

impl Time {
    /// The milliseconds from `earlier` until this; zero if `earlier` is later.
    pub fn since_ms(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The milliseconds between this and another time, whichever comes first.
    pub fn apart_ms(self, other: Time) -> u64 {
        self.0.abs_diff(other.0)
    }

    /// Reads what [`Time`]'s `Display` writes; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
        let shape =
            text.bytes().zip(b"0000-00-00T00:00:00.000Z").all(|(byte, shape)| match shape {
                b'0' => byte.is_ascii_digit(),
                separator => byte == *separator,
            });
        if text.len() != 24 || !shape {
            return None;
        }
        let days = days_from_civil(number(0, 4)?, number(5, 7)?, number(8, 10)?)?;
        let seconds = number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?;
        let time = Self(days * 86_400_000 + seconds * 1_000 + number(20, 23)?);
        (time.to_string() == text).then_some(time)
    }

    /// This time plus `ms`.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl fmt::Display for Time {
    /// RFC 3339, in UTC, with milliseconds: `2026-11-23T09:01:00.123Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (days, ms) = (self.0 / 86_400_000, self.0 % 86_400_000);
        let (year, month, day) = civil_from_days(days);
        let (h, m, s) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{:03}Z", ms % 1000)
    }
}

/// The proleptic Gregorian date of a day since 1970-01-01 (Hinnant, "chrono-Compatible Low-Level
/// Date Algorithms", `civil_from_days`, for days at or after the epoch).
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`]; `None` before 1970.
fn days_from_civil(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year - u64::from(month <= 2 && year > 0);
    let (era, year_of_era) = (year / 400, year % 400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day.checked_sub(1)?;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_are_shown_as_rfc_3339() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_401_660_123, "2026-11-23T02:41:00.123Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(Time(ms).to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn a_time_is_parsed_from_its_text(ms in 0u64..250_000_000_000_000) {
            prop_assert_eq!(Time::parse(&Time(ms).to_string()), Some(Time(ms)));
        }

        #[test]
        fn other_texts_are_not_times(text in "[0-9TZ:.-]{0,26}") {
            if let Some(time) = Time::parse(&text) {
                prop_assert_eq!(time.to_string(), text);
            }
        }
    }

    #[test]
    fn dates_that_do_not_exist_are_not_times() {
        for text in [
            "2026-02-30T00:00:00.000Z",
            "2026-13-01T00:00:00.000Z",
            "2026-00-00T00:00:00.000Z",
            "2026-01-01T25:00:00.000Z",
            "1969-12-31T00:00:00.000Z",
            "",
        ] {
            assert_eq!(Time::parse(text), None, "{text}");
        }
    }
}
