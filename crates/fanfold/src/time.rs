//! Points in time.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::host::catch::truncated;

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
    pub(crate) fn from_stored(text: &str) -> Option<Self> {
        text.parse::<Self>().ok().filter(|time| time.to_string() == text)
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

/// Why a text is not a [`Time`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimeError {
    /// The text is not RFC 3339.
    #[error(
        "`{text}` is not a time as `2026-11-23T09:01:00Z` or `2026-11-23T10:01:00+01:00` (RFC 3339): {reason}"
    )]
    NotRfc3339 {
        /// The text, or its beginning.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Times begin with the year 1970.
    #[error("`{text}` is before 1970-01-01T00:00:00Z, where times begin")]
    TooEarly {
        /// The text.
        text: String,
    },
}

/// Bytes of a wrong text that its error shows. Source: our choice; more than any time has.
const SHOWN_BYTES: usize = 64;

impl FromStr for Time {
    type Err = TimeError;

    /// Reads RFC 3339 as people write it: with any offset, with or without seconds, with a blank instead of the `T`.
    /// What is finer than a millisecond is cut off.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let shown = || truncated(text.to_owned(), SHOWN_BYTES);
        let time = text
            .parse::<jiff::Timestamp>()
            .map_err(|e| TimeError::NotRfc3339 { text: shown(), reason: e.to_string() })?;
        // Rounds towards the past, so that a moment before 1970 stays there.
        let ms = time.as_nanosecond().div_euclid(1_000_000);
        u64::try_from(ms).map(Self).map_err(|_| TimeError::TooEarly { text: shown() })
    }
}

/// For fields that are RFC 3339 text in JSON: `#[serde(with = "fanfold::Rfc3339")] from: Time`. By itself a [`Time`] is
/// the number of its milliseconds there.
pub struct Rfc3339;

impl Rfc3339 {
    /// Writes the time as its `Display` does. Fails if the text could not be read back: then the year 9999 is over.
    pub fn serialize<S: Serializer>(time: &Time, serializer: S) -> Result<S::Ok, S::Error> {
        let text = time.to_string();
        match text.parse::<Time>() {
            Ok(read) if read == *time => serializer.serialize_str(&text),
            _ => Err(serde::ser::Error::custom(format_args!(
                "the time {text} is too late to be written"
            ))),
        }
    }

    /// Reads a time as [`Time::from_str`] does.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Time, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Rfc3339 {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Rfc3339".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Milliseconds since 1970-01-01T00:00:00Z.",
            "type": "integer",
            "minimum": 0,
        })
    }
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
            prop_assert_eq!(Time::from_stored(&Time(ms).to_string()), Some(Time(ms)));
        }

        #[test]
        fn other_texts_are_not_times(text in "[0-9TZ:.-]{0,26}") {
            if let Some(time) = Time::from_stored(&text) {
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
            assert_eq!(Time::from_stored(text), None, "{text}");
        }
    }
    #[test]
    fn a_time_is_read_as_people_write_it() {
        for (text, shown) in [
            ("2026-12-01T09:00:00Z", "2026-12-01T09:00:00.000Z"),
            ("2026-12-01T09:00Z", "2026-12-01T09:00:00.000Z"),
            ("2026-12-01 09:00:00+01:00", "2026-12-01T08:00:00.000Z"),
            ("2026-12-01t09:00:00.1239999-05:30", "2026-12-01T14:30:00.123Z"),
            ("1970-01-01T00:30:00+00:30", "1970-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(text.parse().map(|time: Time| time.to_string()), Ok(shown.to_owned()));
        }
    }

    #[test]
    fn an_error_says_why_a_text_is_not_a_time() {
        for (text, says) in [
            ("2026-12-01", "time"),
            ("2026-12-01T09:00:00", "offset"),
            ("2026-02-30T09:00:00Z", "1..=28"),
            ("tomorrow", "year"),
            ("", "year"),
            ("1969-12-31T23:59:59.9999Z", "before 1970"),
            ("1970-01-01T00:00:00+00:01", "before 1970"),
        ] {
            let error = text.parse::<Time>().expect_err(text).to_string();
            assert!(error.contains(says) && error.contains(text), "{text}: {error}");
        }
        let long = "x".repeat(10_000).parse::<Time>().expect_err("it is no time");
        assert!(long.to_string().len() < 500, "{long}");
    }

    #[test]
    fn a_field_may_be_rfc_3339() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Slot {
            #[serde(with = "Rfc3339")]
            from: Time,
        }
        let read: Slot =
            serde_json::from_str(r#"{"from":"2026-12-01T09:00+01:00"}"#).expect("it is right");
        let written = serde_json::to_string(&read).expect("it can be written");
        assert_eq!(written, r#"{"from":"2026-12-01T08:00:00.000Z"}"#);
        let last = "9999-12-30T22:00:00.999Z".parse().expect("it is a time");
        let text = serde_json::to_string(&Slot { from: last }).expect("it can be written");
        assert_eq!(serde_json::from_str::<Slot>(&text).map(|slot| slot.from).ok(), Some(last));
        for late in [last.plus_ms(1), Time(253_402_300_799_999), Time(u64::MAX)] {
            assert!(
                serde_json::to_string(&Slot { from: late }).is_err(),
                "{late} cannot be read back"
            );
        }
        let error =
            serde_json::from_str::<Slot>(r#"{"from":"2026-12-01"}"#).expect_err("it has no time");
        assert!(error.to_string().contains("2026-11-23T09:01:00Z"), "{error}");
    }
}
