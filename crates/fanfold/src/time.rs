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

    /// Reads RFC 3339: with seconds, with `Z` or an offset as `+01:00`, with a blank or `t` instead of the `T`. What is
    /// finer than a millisecond is cut off. A leap second is read as the second before it.
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let shown = || truncated(text.to_owned(), SHOWN_BYTES);
        let not = |reason| TimeError::NotRfc3339 { text: shown(), reason };
        let text = in_form(text).map_err(not)?;
        let time = text.parse::<jiff::Timestamp>().map_err(|e| not(e.to_string()))?;
        // Rounds towards the past, so that a moment before 1970 stays there.
        let ms = time.as_nanosecond().div_euclid(1_000_000);
        u64::try_from(ms).map(Self).map_err(|_| TimeError::TooEarly { text: shown() })
    }
}

/// Digits of a fraction that the parser takes. Source: `jiff`, whose times have nanoseconds.
const FRACTION_DIGITS: usize = 9;

/// The text, whose form is that of RFC 3339 (section 5.6), without the digits of its fraction that the parser does not
/// take. The parser takes more forms of ISO 8601, and checks the date and the time of day.
fn in_form(text: &str) -> Result<Cow<'_, str>, String> {
    let mut rest = Rest(text.as_bytes());
    for (part, digits, mark, follows) in [
        ("the year", 4, "-", "`-` and the month"),
        ("the month", 2, "-", "`-` and the day"),
        ("the day", 2, "Tt ", "`T` and a time"),
        ("the hour", 2, ":", "`:` and the minutes"),
        ("the minutes", 2, ":", "`:` and the seconds"),
    ] {
        rest.digits(part, digits)?;
        rest.mark(mark).ok_or_else(|| format!("{follows} must follow {part}"))?;
    }
    rest.digits("the seconds", 2)?;
    let mut cut = None;
    if rest.mark(".").is_some() {
        let (begin, digits) = (text.len() - rest.0.len(), rest.count_of_digits());
        if digits == 0 {
            return Err("the fraction needs a digit".to_owned());
        }
        rest.0 = &rest.0[digits..];
        cut = (digits > FRACTION_DIGITS).then_some(begin + FRACTION_DIGITS..begin + digits);
    }
    let sign = rest.mark("Zz+-").ok_or("an offset must end it: `Z`, or one as `+01:00`")?;
    if b"+-".contains(&sign) {
        let hours = rest.digits("the offset's hours", 2)?;
        rest.mark(":").ok_or("`:` and minutes must follow the offset's hours")?;
        let minutes = rest.digits("the offset's minutes", 2)?;
        if hours > 23 || minutes > 59 {
            return Err("the offset is beyond 23:59".to_owned());
        }
    }
    if !rest.0.is_empty() {
        return Err("nothing may follow the offset".to_owned());
    }
    Ok(match cut {
        None => Cow::Borrowed(text),
        Some(cut) => Cow::Owned([&text[..cut.start], &text[cut.end..]].concat()),
    })
}

/// What is left of a text.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn count_of_digits(&self) -> usize {
        self.0.iter().take_while(|byte| byte.is_ascii_digit()).count()
    }

    /// Takes a number of exactly `count` digits.
    fn digits(&mut self, part: &str, count: usize) -> Result<u32, String> {
        if self.count_of_digits() != count {
            return Err(format!("{part} must have {count} digits"));
        }
        let (digits, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0')))
    }

    /// Takes one of these characters.
    fn mark(&mut self, marks: &str) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        marks.as_bytes().contains(first).then(|| self.0 = rest)?;
        Some(*first)
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

/// The form of an RFC 3339 time, with the years that [`Time`] has. A pattern cannot say how an offset moves the first and the
/// last day of these, nor how long a month is.
const PATTERN: &str = "^(19[7-9][0-9]|[2-9][0-9]{3})-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])\
     [Tt]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?\
     ([Zz]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$";

impl JsonSchema for Rfc3339 {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Rfc3339".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "RFC 3339, from 1970 to 9999 in UTC.",
            "type": "string",
            "format": "date-time",
            "pattern": PATTERN,
        })
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
            "maximum": u64::MAX,
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

    /// Milliseconds since 1970 of a text of RFC 3339, read slowly: days are counted year by year and month by month.
    fn naive(text: &str) -> Option<i64> {
        let number = |text: &str, length: usize| -> Option<i64> {
            let is_right = text.len() == length && text.bytes().all(|byte| byte.is_ascii_digit());
            is_right.then(|| text.parse().ok()).flatten()
        };
        let upper = text.to_ascii_uppercase();
        let (date, time) = upper.split_once(['T', ' '])?;
        let date: Vec<&str> = date.split('-').collect();
        let [year, month, day] = date[..] else { return None };
        let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
        let (time, offset) = match time.strip_suffix('Z') {
            Some(time) => (time, 0),
            None => {
                let at = time.rfind(['+', '-'])?;
                let (hours, minutes) = time[at + 1..].split_once(':')?;
                let (hours, minutes) = (number(hours, 2)?, number(minutes, 2)?);
                let minutes = (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)?;
                (&time[..at], if time[at..].starts_with('+') { minutes } else { -minutes })
            }
        };
        let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
        number(fraction, fraction.len()).filter(|_| !fraction.is_empty())?;
        let ms = number(&format!("{fraction}00")[..3], 3)?;
        let time: Vec<&str> = time.split(':').collect();
        let [hour, minute, second] = time[..] else { return None };
        let (hour, minute, second) = (number(hour, 2)?, number(minute, 2)?, number(second, 2)?);
        let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_of = |year: i64, month: i64| match month {
            4 | 6 | 9 | 11 => 30,
            2 if is_leap(year) => 29,
            2 => 28,
            _ => 31,
        };
        let is_date = (1..=12).contains(&month) && (1..=days_of(year, month)).contains(&day);
        if year < 1970 || !is_date || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let years: i64 = (1970..year).map(|year| 365 + i64::from(is_leap(year))).sum();
        let months: i64 = (1..month).map(|month| days_of(year, month)).sum();
        let minutes = ((years + months + day - 1) * 24 + hour) * 60 + minute - offset;
        Some((minutes * 60 + second.min(59)) * 1000 + ms).filter(|ms| *ms >= 0)
    }

    /// Texts that are often a time, and else almost one.
    fn almost_a_time() -> impl Strategy<Value = String> {
        let part = |right: &'static str, wrong: &'static str| prop_oneof![30 => right, 1 => wrong];
        let date = (
            part("20[0-9]{2}", "[0-9+-]{1,6}"),
            part("-", "[:/]?"),
            part("(0[1-9]|1[0-2])", "[0-9]{0,3}"),
        );
        let day =
            (part("-", "[:/]?"), part("([01][0-9]|2[0-8])", "[0-9]{0,3}"), part("[Tt ]", "[_Z]?"));
        let time = (
            part("([01][0-9]|2[0-3])", "[0-9]{0,3}"),
            part(":", "[.-]?"),
            part("[0-5][0-9]", "[0-9]{0,3}"),
        );
        let rest = (
            part(":", "[.-]?"),
            part("[0-5][0-9]", "(60|[0-9]{0,3})"),
            part("(\\.[0-9]{1,12})?", "[.,][0-9]{0,2}"),
        );
        let offset =
            part("(Z|z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])", "[+-]?[0-9]{0,2}:?[0-9]{0,2}[Zz]?");
        (date, day, time, rest, offset, part("", "[Z \\[]")).prop_map(|(a, b, c, d, e, f)| {
            [a.0, a.1, a.2, b.0, b.1, b.2, c.0, c.1, c.2, d.0, d.1, d.2, e, f].concat()
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 5_000, ..ProptestConfig::default() })]

        #[test]
        fn a_time_is_read_as_a_naive_reader_reads_it(text in almost_a_time()) {
            let read = text.parse::<Time>();
            let ms = read.as_ref().ok().map(|time| time.0);
            prop_assert_eq!(ms, naive(&text).map(i64::unsigned_abs), "{:?}", read);
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
            ("2026-12-01t09:00:00z", "2026-12-01T09:00:00.000Z"),
            ("2026-12-01T09:00:00-00:00", "2026-12-01T09:00:00.000Z"),
            ("2026-12-01T09:00:00+23:59", "2026-11-30T09:01:00.000Z"),
            ("2026-12-01T09:00:00.1234567890123456789Z", "2026-12-01T09:00:00.123Z"),
            ("2026-12-31T23:59:60Z", "2026-12-31T23:59:59.000Z"),
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
            ("2026-12-01", "`T` and a time must follow the day"),
            ("2026-12-01T09:00:00", "an offset must end it"),
            ("2026-12-01T09Z", "`:` and the minutes must follow the hour"),
            ("2026-12-01T09:00Z", "`:` and the seconds must follow the minutes"),
            ("2026-12-01T09:00:00.Z", "the fraction needs a digit"),
            ("2026-12-01T09:00:00,5Z", "an offset must end it"),
            ("2026-12-01T09:00:00+24:00", "the offset is beyond 23:59"),
            ("2026-12-01T09:00:00+00:60", "the offset is beyond 23:59"),
            ("2026-12-01T09:00:00+01", "`:` and minutes must follow the offset's hours"),
            ("2026-12-01T09:00:00+0100", "the offset's hours must have 2 digits"),
            ("2026-12-01T09:00:00Z[UTC]", "nothing may follow the offset"),
            ("20261201T090000Z", "the year must have 4 digits"),
            ("+002026-12-01T09:00:00Z", "the year must have 4 digits"),
            ("2026-12-1T09:00:00Z", "the day must have 2 digits"),
            ("2026-12-01_09:00:00Z", "`T` and a time must follow the day"),
            ("2026-12-01T24:00:00Z", "0..=23"),
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
            serde_json::from_str(r#"{"from":"2026-12-01T09:00:00+01:00"}"#).expect("it is right");
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
